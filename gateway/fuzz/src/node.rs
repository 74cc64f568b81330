//! A whole node: bytes of two connections, as a relay, collector and authority gets them from anybody; and frames in a channel, as
//! it gets them from a peer that is authenticated.

mod insider;

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_proto::channel::PqPolicy;
use fieldgate_proto::delivery::{Batch, Lost};
use fieldgate_proto::node::{
    AccessPolicy, CollectSettings, ConnectionKey, Node, NodeSettings, Output, ReadingSink, SourceInfo, Wire,
};
use fieldgate_proto::relay::{MemberRights, RelaySettings};
use fieldgate_proto::trust::{Saved, Trust, TrustSettings};

use crate::authority::authority;
use crate::world::{Repeatable, members, now, pieces};

/// Plays the input as strangers would, and as somebody would who has a key.
pub fn run(data: &[u8]) {
    strangers(data);
    insider::run(data);
}

/// Makes a relay, collector and authority that trusts.
fn node(entropy: &mut Repeatable, access: AccessPolicy) -> Node {
    let [own, member] = members();
    let mut settings = NodeSettings::new("fuzz");
    let member = member.history.identifier();
    settings.access = access;
    settings.authority = true;
    settings.channels.pq = PqPolicy::Off;
    settings.relay = Some(RelaySettings {
        members: BTreeMap::from([(
            member,
            MemberRights {
                names: Vec::new(),
                reach: Vec::new(),
            },
        )]),
        ..RelaySettings::default()
    });
    settings.collect = Some(CollectSettings {
        gateways: BTreeSet::from([member]),
        ..CollectSettings::default()
    });
    let trust = TrustSettings {
        authority: Some(authority().history.identifier()),
        ..TrustSettings::default()
    };
    let trust = Trust::new(own.history.identifier(), trust, &Saved::default());
    let node = Node::new(now(0), entropy, settings, own.local());
    node.trusting(trust.expect("nothing was saved"))
}

/// Gives each piece of the input to one of the connections; the first of each is preceded by a Hello.
fn strangers(data: &[u8]) {
    let mut entropy = Repeatable::new(5);
    let mut node = node(&mut entropy, AccessPolicy::Lists);
    let mut buffers = Buffers::default();
    for key in KEYS {
        buffers.0.insert(key, Vec::new());
        node.handle_connected(now(0), key, None, &mut buffers);
        node.handle_bytes(
            now(0),
            &mut entropy,
            key,
            &mut HELLO.to_vec(),
            &mut buffers,
            &mut Nothing,
        );
    }
    for (turn, piece) in pieces(data).take(PIECES_MAX).enumerate() {
        let now = now(turn as u64 * 50);
        let key = KEYS[turn % KEYS.len()];
        node.handle_bytes(
            now,
            &mut entropy,
            key,
            &mut piece.to_vec(),
            &mut buffers,
            &mut Nothing,
        );
        node.handle_timeout(now, &mut entropy, &mut buffers);
        node.flush(now, &mut entropy, &mut buffers, None);
        while let Some(output) = node.poll_output() {
            if let Output::CloseConnection { connection } = output {
                buffers.0.remove(&connection);
                node.handle_disconnected(now, &mut entropy, connection, &mut buffers);
            }
        }
        let queued: usize = buffers.0.values().map(Vec::len).sum();
        assert!(
            queued <= ANSWER_MAX * (turn + 2),
            "{queued} bytes for {turn} small pieces"
        );
    }
    assert!(
        node.registered_names().is_empty(),
        "a name was registered without a key"
    );
}

#[derive(Default)]
struct Buffers(BTreeMap<ConnectionKey, Vec<u8>>);

impl Wire for Buffers {
    fn buffer(&mut self, connection: ConnectionKey) -> Option<&mut Vec<u8>> {
        self.0.get_mut(&connection)
    }

    fn queued_bytes(&self, connection: ConnectionKey) -> usize {
        self.0.get(&connection).map_or(0, Vec::len)
    }
}

/// Nobody but a gateway with its key may bring readings here.
struct Nothing;

impl ReadingSink for Nothing {
    fn accept(&mut self, _: &SourceInfo, _: Batch<'_>) -> bool {
        panic!("readings were taken from a peer without a key");
    }

    fn gap(&mut self, _source: &SourceInfo, _lost: &Lost) -> bool {
        panic!("a gap was taken from a peer without a key");
    }
}

const KEYS: [ConnectionKey; 2] = [ConnectionKey(1), ConnectionKey(2)];
/// A Hello with the largest frame length, some nonce and an empty name.
const HELLO: [u8; 21] = [
    0, 0, 17, 0x01, b'F', b'G', b'L', b'1', 0, 1, 0x10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0,
];
/// What a node may say to a piece of 255 bytes, which holds at most 63 frames.
const ANSWER_MAX: usize = 16 * 1024;
const PIECES_MAX: usize = 64;
