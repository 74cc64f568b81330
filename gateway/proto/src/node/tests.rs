//! Whole nodes talking over in-memory connections: gateway, relay, collector.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::*;
use crate::{
    channel::PqPolicy,
    crypto::X25519Secret,
    identity::{
        AttestationDraft, ChangeDraft, Identifier, KeyAlgorithm, PublicKey, SignedAttestation, tests::Seeded,
    },
    relay::{MemberRights, RelaySettings},
    time::{ClockQuality, WallTime},
    wire::{Reader, put_bytes_varint},
};

/// 2026-01-01.
const EPOCH_SECS: u64 = 1_767_225_600;

/// An identity with its key in memory.
struct Signer {
    key: EcdsaKeyPair,
    history: crate::identity::ChangeHistory,
}

impl Signer {
    fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = PublicKey::new(KeyAlgorithm::EcdsaP256, key.public_key().as_ref(), 0).unwrap();
        let draft = ChangeDraft::first(public, EPOCH_SECS);
        let signature = sign(&key, &draft.message());
        let history = draft.finish(signature, None).unwrap();
        Self { key, history }
    }

    fn identifier(&self) -> Identifier {
        self.history.identifier()
    }

    fn local(&self, entropy: &mut dyn Entropy) -> LocalIdentity {
        let secret = X25519Secret::generate(entropy);
        let draft = AttestationDraft::new(&self.history, *secret.public(), EPOCH_SECS, 86_400, 1).unwrap();
        let signature = sign(&self.key, &draft.message());
        let attestation: SignedAttestation = draft.finish(signature, &self.history).unwrap();
        LocalIdentity::new(&self.history, &attestation, secret).unwrap()
    }
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> [u8; 64] {
    let signature = key.sign(&aws_lc_rs::rand::SystemRandom::new(), message).unwrap();
    signature.as_ref().try_into().unwrap()
}

/// Send buffers of one node's connections.
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

/// A journal in memory: reading n has the sequence n.
#[derive(Default)]
struct Readings(Vec<Vec<u8>>);

impl RecordSource for Readings {
    fn copy_records(&mut self, from: u64, bytes_max: usize, count_max: u64, out: &mut Vec<u8>) -> Copied {
        let start = out.len();
        let mut copied = 0;
        let first = usize::try_from(from - 1).unwrap();
        for reading in self
            .0
            .iter()
            .skip(first)
            .take(usize::try_from(count_max).unwrap())
        {
            if out.len() - start + reading.len() + 8 > bytes_max {
                break;
            }
            put_bytes_varint(out, reading);
            copied += 1;
        }
        Copied::Records(copied)
    }
}

#[derive(Default)]
struct Taken(Vec<Vec<u8>>);

impl ReadingSink for Taken {
    fn accept(&mut self, _source: &SourceInfo, batch: Batch<'_>) -> bool {
        assert_eq!(batch.first, self.0.len() as u64 + 1, "in order and each once");
        let mut reader = Reader::new(batch.readings);
        for _ in 0..batch.count {
            self.0.push(reader.bytes_varint("reading").unwrap().to_vec());
        }
        true
    }
}

/// One node with what surrounds it.
struct Host {
    node: Node,
    buffers: Buffers,
    journal: Readings,
    sink: Taken,
    events: Vec<Event>,
    /// What it wants of its caller, and nobody has answered.
    outputs: Vec<Output>,
    released: u64,
}

/// Hosts and the pipes between them.
struct Net {
    now: Now,
    entropy: Seeded,
    hosts: Vec<Host>,
    /// By host and connection: the host and connection at the other end.
    pipes: BTreeMap<(usize, ConnectionKey), (usize, ConnectionKey)>,
    /// By host and neighbour: the host behind it.
    dials: BTreeMap<(usize, usize), usize>,
    next_connection: u64,
    /// What the relay's neighbours saw on the wire, for a look at what is in clear.
    tapped: Vec<u8>,
    /// Changes bytes on their way out of the relay.
    tamper: Option<fn(&mut Vec<u8>)>,
}

const GATEWAY: usize = 0;
const RELAY: usize = 1;
const COLLECTOR: usize = 2;

impl Net {
    fn now_of(secs: u64) -> Now {
        Now {
            instant: Instant::from_nanos(secs * 1_000_000_000),
            wall: WallTime {
                unix_millis: (EPOCH_SECS + 60 + secs) * 1000,
                quality: ClockQuality::Synchronised,
            },
        }
    }

    /// A gateway and a collector that dial a relay, with `readings` in the gateway's journal.
    fn new(
        readings: usize,
        adjust: impl FnOnce(&mut NodeSettings, &mut NodeSettings, &mut NodeSettings),
    ) -> Self {
        let mut entropy = Seeded::new(7);
        let now = Self::now_of(0);
        let signers = [Signer::new(), Signer::new(), Signer::new()];
        let journal = Readings(
            (0..readings)
                .map(|n| format!("secret reading {n}").into_bytes())
                .collect(),
        );
        let to_relay = |names: &[&str]| NeighbourSettings {
            relay: Some(signers[RELAY].identifier()),
            pq: PqPolicy::Required,
            registrations: names
                .iter()
                .map(|name| RegistrationSettings {
                    name: (*name).to_owned(),
                })
                .collect(),
        };
        let mut gateway = NodeSettings::new("gateway");
        gateway.neighbours = vec![to_relay(&[])];
        gateway.uplinks = vec![UplinkSettings {
            collector: signers[COLLECTOR].identifier(),
            pq: PqPolicy::Required,
            live_proof: false,
            ways: vec![(0, Some("plant".to_owned()))],
            latency: Duration::ZERO,
            journal: [4; 16],
            first: 1,
            available: readings as u64,
        }];
        let mut relay = NodeSettings::new("relay");
        let rights = |hold: &[&str], reach: &[&str]| MemberRights {
            names: hold.iter().map(|name| name.parse().unwrap()).collect(),
            reach: reach.iter().map(|name| name.parse().unwrap()).collect(),
        };
        relay.relay = Some(RelaySettings {
            members: BTreeMap::from([
                (signers[GATEWAY].identifier(), rights(&[], &["plant"])),
                (signers[COLLECTOR].identifier(), rights(&["plant"], &[])),
            ]),
            ..RelaySettings::default()
        });
        let mut collector = NodeSettings::new("collector");
        collector.neighbours = vec![to_relay(&["plant"])];
        collector.collect = Some(CollectSettings {
            gateways: BTreeSet::from([signers[GATEWAY].identifier()]),
            ..CollectSettings::default()
        });
        adjust(&mut gateway, &mut relay, &mut collector);
        let mut journals = vec![journal, Readings::default(), Readings::default()].into_iter();
        let hosts = [gateway, relay, collector]
            .into_iter()
            .zip(&signers)
            .map(|(settings, signer)| {
                let local = signer.local(&mut entropy);
                Host {
                    node: Node::new(now, &mut entropy, settings, local),
                    buffers: Buffers::default(),
                    journal: journals.next().unwrap(),
                    sink: Taken::default(),
                    events: Vec::new(),
                outputs: Vec::new(),
                    released: 0,
                }
            });
        let hosts = hosts.collect();
        Self {
            now,
            entropy,
            hosts,
            pipes: BTreeMap::new(),
            dials: BTreeMap::from([((GATEWAY, 0), RELAY), ((COLLECTOR, 0), RELAY)]),
            next_connection: 1,
            tapped: Vec::new(),
            tamper: None,
        }
    }

    fn connect(&mut self, from: usize, neighbour: usize, to: usize) {
        let keys = [
            ConnectionKey(self.next_connection),
            ConnectionKey(self.next_connection + 1),
        ];
        self.next_connection += 2;
        self.pipes.insert((from, keys[0]), (to, keys[1]));
        self.pipes.insert((to, keys[1]), (from, keys[0]));
        for (host, key, neighbour) in [(from, keys[0], Some(neighbour)), (to, keys[1], None)] {
            let host = &mut self.hosts[host];
            host.buffers.0.insert(key, Vec::new());
            host.node
                .handle_connected(self.now, key, neighbour, &mut host.buffers);
        }
    }

    fn disconnect(&mut self, host: usize, key: ConnectionKey) {
        let Some(other) = self.pipes.remove(&(host, key)) else {
            return;
        };
        self.pipes.remove(&other);
        for (host, key) in [(host, key), other] {
            let host = &mut self.hosts[host];
            host.buffers.0.remove(&key);
            host.node
                .handle_disconnected(self.now, &mut self.entropy, key, &mut host.buffers);
        }
    }

    /// Runs every node until nothing moves at this instant.
    fn settle(&mut self) {
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 10_000, "the nodes talk for ever");
            let mut moved = false;
            for index in 0..self.hosts.len() {
                let host = &mut self.hosts[index];
                host.node
                    .handle_timeout(self.now, &mut self.entropy, &mut host.buffers);
                host.node.flush(
                    self.now,
                    &mut self.entropy,
                    &mut host.buffers,
                    Some(&mut host.journal),
                );
                let mut dials = Vec::new();
                let mut closes = Vec::new();
                while let Some(output) = host.node.poll_output() {
                    match output {
                        Output::Dial { neighbour } => dials.push(neighbour),
                        Output::CloseConnection { connection } => closes.push(connection),
                        Output::Released { up_to } => host.released = up_to,
                        Output::Event(event) => host.events.push(event),
                        other @ (Output::Authorise(_)
                        | Output::Sign { .. }
                        | Output::Authority(_)
                        | Output::Asked { .. }
                        | Output::Save { .. }
                        | Output::Time(_)
                        | Output::PeerTime { .. }) => host.outputs.push(other),
                    }
                }
                for neighbour in dials {
                    moved = true;
                    match self.dials.get(&(index, neighbour)).copied() {
                        Some(to) => self.connect(index, neighbour, to),
                        None => {
                            self.hosts[index]
                                .node
                                .handle_dial_failed(self.now, &mut self.entropy, neighbour)
                        }
                    }
                }
                for connection in closes {
                    moved = true;
                    self.disconnect(index, connection);
                }
            }
            let mut in_transit = VecDeque::new();
            for (&(from, key), &(to, other)) in &self.pipes {
                if let Some(buffer) = self.hosts[from]
                    .buffers
                    .0
                    .get_mut(&key)
                    .filter(|buffer| !buffer.is_empty())
                {
                    in_transit.push_back((from, to, other, std::mem::take(buffer)));
                }
            }
            for (from, to, key, mut bytes) in in_transit {
                moved = true;
                if from == RELAY {
                    self.tapped.extend_from_slice(&bytes);
                    if let Some(tamper) = self.tamper {
                        tamper(&mut bytes);
                    }
                }
                let host = &mut self.hosts[to];
                host.node.handle_bytes(
                    self.now,
                    &mut self.entropy,
                    key,
                    &mut bytes,
                    &mut host.buffers,
                    &mut host.sink,
                );
                let taken = host.sink.0.len() as u64;
                if taken > 0 {
                    host.node.handle_sinks_committed(SourceIndex(0), taken);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn pass(&mut self, secs: u64) {
        for _ in 0..secs {
            let elapsed = self.now.instant.as_nanos() / 1_000_000_000 + 1;
            self.now = Self::now_of(elapsed);
            self.settle();
        }
    }

    fn delivered(&self) -> usize {
        self.hosts[COLLECTOR].sink.0.len()
    }
}

#[test]
fn readings_cross_the_relay_and_are_released() {
    let mut net = Net::new(5_000, |_, _, _| {});
    net.settle();
    net.pass(2);
    assert_eq!(
        net.delivered(),
        5_000,
        "{:?}",
        net.hosts.iter().map(|host| &host.events).collect::<Vec<_>>()
    );
    assert_eq!(net.hosts[COLLECTOR].sink.0[4_999], b"secret reading 4999");
    assert_eq!(net.hosts[GATEWAY].released, 5_000);
    let via = net.hosts[COLLECTOR].node.sources().next().unwrap().info.neighbour;
    assert_eq!(via, Some(0), "the collector knows that it came by its relay");
    assert_eq!(net.hosts[RELAY].node.registered_names(), ["plant"]);
    let hidden = !net.tapped.windows(14).any(|window| window == b"secret reading");
    assert!(hidden, "the relay's links carry no plaintext");
    // 5,000 readings of up to 19 bytes: a few records, 8 bytes of link header each, one byte of length per reading.
    let overhead = net.tapped.len() - 5_000 * 19;
    assert!(overhead < 5_000 * 4, "{overhead} bytes beside the readings");
}

#[test]
fn a_gateway_that_is_no_member_reaches_nobody() {
    let mut net = Net::new(10, |_, relay, _| {
        let settings = relay.relay.as_mut().unwrap();
        settings.members.retain(|_, rights| !rights.names.is_empty());
    });
    net.pass(30);
    assert_eq!(net.delivered(), 0);
    assert!(net.hosts[RELAY].events.iter().any(|event| matches!(
        event,
        Event::NotAuthorised {
            service: "registrar",
            ..
        }
    )));
    assert!(net.hosts[RELAY].node.stats().unauthorised > 0);
}

#[test]
fn a_gateway_the_collector_does_not_know_delivers_nothing() {
    let mut net = Net::new(10, |_, _, collector| {
        collector.collect.as_mut().unwrap().gateways.clear()
    });
    net.pass(30);
    assert_eq!(net.delivered(), 0);
    let refused = |event: &Event| {
        matches!(
            event,
            Event::NotAuthorised {
                service: "uplink",
                ..
            }
        )
    };
    assert!(net.hosts[COLLECTOR].events.iter().any(refused));
}

#[test]
fn a_member_reaches_only_the_names_it_may() {
    let mut net = Net::new(10, |_, relay, _| {
        for rights in relay.relay.as_mut().unwrap().members.values_mut() {
            rights.reach.clear();
        }
    });
    net.pass(30);
    assert_eq!(net.delivered(), 0);
    let dropped = net.hosts[RELAY]
        .node
        .router_stats()
        .dropped(crate::route::DropReason::NotAllowed);
    assert!(dropped > 0, "the relay dropped the handshake");
}

#[test]
fn a_collector_with_another_identity_gets_nothing() {
    let mut net = Net::new(10, |gateway, _, _| {
        gateway.uplinks[0].collector = Identifier::from_bytes([9; 32]);
    });
    net.pass(60);
    assert_eq!(net.delivered(), 0);
    assert_eq!(
        net.hosts[COLLECTOR].node.channel_stats().established,
        1,
        "only its own with the relay"
    );
    assert!(net.hosts[COLLECTOR].node.channel_stats().wrong_mac1 > 0);
}

#[test]
fn delivery_goes_on_after_each_link_was_cut() {
    let mut net = Net::new(300, |gateway, _, _| gateway.uplinks[0].available = 100);
    net.pass(2);
    assert_eq!(net.delivered(), 100);
    for (round, host) in [(2, GATEWAY), (3, COLLECTOR)] {
        let key = net.pipes.keys().find(|(index, _)| *index == host).unwrap().1;
        net.disconnect(host, key);
        let available = round * 100;
        net.hosts[GATEWAY].node.handle_available(net.now, 1, available);
        net.pass(10);
        assert_eq!(
            net.delivered() as u64,
            available,
            "after the link of host {host} was cut"
        );
        assert_eq!(net.hosts[GATEWAY].released, available);
    }
}

#[test]
fn a_relay_that_changes_bits_stops_delivery_and_changes_nothing() {
    let mut net = Net::new(100, |gateway, _, _| gateway.uplinks[0].available = 10);
    net.pass(2);
    assert_eq!(net.delivered(), 10);
    // Flips a bit in the last byte of whatever leaves the relay: payloads of Data frames, for records the tag.
    net.tamper = Some(|bytes| {
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
    });
    net.hosts[GATEWAY].node.handle_available(net.now, 1, 100);
    net.pass(20);
    assert_eq!(net.delivered(), 10, "a forged record is not taken");
    assert!(net.hosts[COLLECTOR].node.channel_stats().records_forged > 0);
    net.tamper = None;
    net.pass(60);
    assert_eq!(
        net.delivered(),
        100,
        "and what was meant to come comes when the relay behaves"
    );
}

#[test]
fn a_link_that_sends_garbage_is_closed_and_others_go_on() {
    let mut net = Net::new(100, |_, _, _| {});
    net.settle();
    let relay = &mut net.hosts[RELAY];
    let key = ConnectionKey(999);
    relay.buffers.0.insert(key, Vec::new());
    relay
        .node
        .handle_connected(net.now, key, None, &mut relay.buffers);
    relay.node.handle_bytes(
        net.now,
        &mut net.entropy,
        key,
        &mut b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        &mut relay.buffers,
        &mut NoSink,
    );
    let closed = std::iter::from_fn(|| relay.node.poll_output())
        .any(|output| output == Output::CloseConnection { connection: key });
    assert!(closed);
    net.pass(2);
    assert_eq!(net.delivered(), 100);
}

/// A journal whose disk is slow.
struct Slow;

impl RecordSource for Slow {
    fn copy_records(&mut self, _: u64, _: usize, _: u64, _: &mut Vec<u8>) -> Copied {
        Copied::NotYet
    }
}

#[test]
fn a_connection_that_is_gone_before_it_is_noted_is_dialled_again() {
    let mut net = Net::new(5, |_, _, _| {});
    let gateway = &mut net.hosts[GATEWAY];
    gateway
        .node
        .handle_timeout(net.now, &mut net.entropy, &mut gateway.buffers);
    assert_eq!(gateway.node.poll_output(), Some(Output::Dial { neighbour: 0 }));
    // It came up and went down within one turn, so there is no buffer any more.
    let key = ConnectionKey(999);
    gateway
        .node
        .handle_connected(net.now, key, Some(0), &mut gateway.buffers);
    gateway
        .node
        .handle_disconnected(net.now, &mut net.entropy, key, &mut gateway.buffers);
    net.pass(5);
    assert_eq!(net.delivered(), 5);
}

#[test]
fn readings_that_wait_for_the_disk_leave_no_deadline_in_the_past() {
    let mut net = Net::new(100, |gateway, _, _| {
        gateway.uplinks[0].available = 10;
        gateway.uplinks[0].latency = Duration::from_millis(2);
    });
    net.pass(5);
    assert_eq!(net.delivered(), 10);
    net.hosts[GATEWAY].node.handle_available(net.now, 1, 100);
    let gateway = &mut net.hosts[GATEWAY];
    for millis in [0, 2, 4] {
        let mut now = net.now;
        now.instant = now.instant + Duration::from_millis(millis);
        gateway
            .node
            .handle_timeout(now, &mut net.entropy, &mut gateway.buffers);
        gateway
            .node
            .flush(now, &mut net.entropy, &mut gateway.buffers, Some(&mut Slow));
        let deadline = gateway.node.poll_timeout().unwrap();
        assert!(
            deadline > now.instant,
            "it would turn without end: {deadline} at {}",
            now.instant
        );
    }
    net.pass(2);
    assert_eq!(net.delivered(), 100, "they go once the disk is there");
}
