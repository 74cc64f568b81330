use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{super::handshake::tests::local, *};
use crate::{
    channel::{
        NumberLen, PLAINTEXT_LEN_MAX, RekeySettings, Suite, SuiteOrder,
        message::{self, FORM_CACHED},
    },
    crypto::{CryptoError, X25519Secret},
    identity::{
        KeyAlgorithm,
        tests::{Seeded, TestIdentity},
    },
    time::ClockQuality,
};

const PATH: PathId = PathId(5);
const ROUTE: &[u8] = b"return route";
/// Half a day after 1970 began: within the attestations of `local`.
const NOON: u64 = 43_200;

struct Node {
    channels: Channels,
    entropy: Seeded,
    identity: TestIdentity,
    outputs: Vec<Output>,
    opened: Vec<(ChannelId, Vec<u8>)>,
    errors: Vec<ChannelError>,
}

/// What the network does to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
    Hold,
}

/// Two nodes and what is between them.
struct Net {
    nodes: [Node; 2],
    now: Now,
    wire: VecDeque<(usize, Vec<u8>)>,
    held: Vec<(usize, Vec<u8>)>,
    /// Every message sent, with its sender.
    log: Vec<(usize, Vec<u8>)>,
}

const A: usize = 0;
const B: usize = 1;

fn settings() -> ChannelSettings {
    ChannelSettings {
        order: SuiteOrder::AesFirst,
        ..ChannelSettings::default()
    }
}

impl Node {
    fn new(settings: ChannelSettings, algorithm: KeyAlgorithm, seed: u64) -> Self {
        let identity = TestIdentity::new(algorithm);
        Self {
            channels: Channels::new(settings, local(&identity, seed)),
            entropy: Seeded::new(seed),
            identity,
            outputs: Vec::new(),
            opened: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn identifier(&self) -> Identifier {
        self.identity.history.identifier()
    }

    fn established(&self) -> Vec<ChannelId> {
        let ids = self.outputs.iter().filter_map(|output| match output {
            Output::Established { channel, .. } => Some(*channel),
            Output::Transmit { .. } | Output::Pong { .. } | Output::Closed { .. } => None,
        });
        ids.collect()
    }

    fn closed(&self) -> Vec<CloseReason> {
        let reasons = self.outputs.iter().filter_map(|output| match output {
            Output::Closed { reason, .. } => Some(*reason),
            Output::Transmit { .. } | Output::Pong { .. } | Output::Established { .. } => None,
        });
        reasons.collect()
    }

    /// Returns the bodies of application frames received.
    fn bodies(&self) -> Vec<Vec<u8>> {
        let all = self.opened.iter().flat_map(|(_, plaintext)| frames(plaintext));
        let application = all.filter_map(|frame| match frame.expect("the channel checked it") {
            (FIRST_APPLICATION_KIND.., body) => Some(body.to_vec()),
            _ => None,
        });
        application.collect()
    }
}

impl Net {
    fn new() -> Self {
        Self::with(settings(), settings())
    }

    fn with(a: ChannelSettings, b: ChannelSettings) -> Self {
        Self {
            nodes: [
                Node::new(a, KeyAlgorithm::Ed25519, 1),
                Node::new(b, KeyAlgorithm::EcdsaP256, 2),
            ],
            now: Now {
                instant: Instant::START,
                wall: WallTime {
                    unix_millis: NOON * 1000,
                    quality: ClockQuality::Synchronised,
                },
            },
            wire: VecDeque::new(),
            held: Vec::new(),
            log: Vec::new(),
        }
    }

    fn collect(&mut self) {
        for from in [A, B] {
            while let Some(output) = self.nodes[from].channels.poll_output() {
                if let Output::Transmit { bytes, .. } = &output {
                    self.wire.push_back((from, bytes.clone()));
                    self.log.push((from, bytes.clone()));
                }
                self.nodes[from].outputs.push(output);
            }
        }
    }

    fn deliver(&mut self, from: usize, mut bytes: Vec<u8>) -> Result<(), ChannelError> {
        let now = self.now;
        let node = &mut self.nodes[1 - from];
        let received = node
            .channels
            .handle_message(now, &mut node.entropy, PATH, ROUTE, &mut bytes);
        match received {
            Ok(Received::Record { channel, plaintext }) => node.opened.push((channel, plaintext.to_vec())),
            Ok(Received::Handshake) => {}
            Err(error) => {
                node.errors.push(error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Delivers until nothing moves, without time passing.
    fn run(&mut self) {
        self.run_with(|_, _| Fate::Pass);
    }

    fn run_with(&mut self, mut fate: impl FnMut(usize, &[u8]) -> Fate) {
        self.collect();
        while let Some((from, bytes)) = self.wire.pop_front() {
            match fate(from, &bytes) {
                Fate::Pass => drop(self.deliver(from, bytes)),
                Fate::Drop => {}
                Fate::Hold => self.held.push((from, bytes)),
            }
            self.collect();
        }
    }

    fn at(&mut self, nanos_later: Duration) {
        self.now.instant = self.now.instant + nanos_later;
        self.now.wall.unix_millis += u64::try_from(nanos_later.as_millis()).expect("tests last hours");
    }

    /// Lets time pass up to `until`, timer by timer.
    fn pass(&mut self, until: Duration, mut fate: impl FnMut(usize, &[u8]) -> Fate) {
        let until = Instant::START + until;
        loop {
            self.run_with(&mut fate);
            let next = self
                .nodes
                .iter()
                .filter_map(|node| node.channels.poll_timeout())
                .min();
            let Some(next) = next.filter(|next| *next <= until) else {
                break;
            };
            self.at(next.max(self.now.instant) - self.now.instant);
            let now = self.now;
            for node in &mut self.nodes {
                node.channels.handle_timeout(now, &mut node.entropy);
            }
        }
        self.at(until - self.now.instant);
    }

    fn connect(&mut self, pq: PqPolicy) -> ChannelId {
        let (now, peer) = (self.now, self.nodes[B].identifier());
        let node = &mut self.nodes[A];
        node.channels
            .connect(now, &mut node.entropy, peer, PATH, pq)
            .expect("there is room")
    }

    /// Connects A to B; gives back the channel as each of them calls it.
    fn established(&mut self) -> [ChannelId; 2] {
        let a = self.connect(PqPolicy::Required);
        self.run();
        let b = *self.nodes[B].established().last().expect("B has the channel too");
        assert_eq!(self.nodes[A].established().last(), Some(&a));
        [a, b]
    }

    fn seal(&mut self, from: usize, channel: ChannelId, body: &[u8]) -> Vec<u8> {
        let now = self.now.instant;
        let channels = &mut self.nodes[from].channels;
        let mut out = Vec::new();
        let start = channels
            .begin(channel, &mut out)
            .expect("the channel is established");
        put_frame(&mut out, 0x20, body);
        channels
            .finish(now, channel, &mut out, start)
            .expect("the record is short");
        out
    }

    fn say(&mut self, from: usize, channel: ChannelId, body: &[u8]) {
        let record = self.seal(from, channel, body);
        self.wire.push_back((from, record));
    }

    /// Seals a record of raw frames, as a peer that does not keep to the protocol would.
    fn seal_raw(&mut self, from: usize, channel: ChannelId, plaintext: &[u8]) -> Vec<u8> {
        let now = self.now.instant;
        let channels = &mut self.nodes[from].channels;
        let mut out = Vec::new();
        let start = channels
            .begin(channel, &mut out)
            .expect("the channel is established");
        out.extend_from_slice(plaintext);
        channels
            .finish(now, channel, &mut out, start)
            .expect("the record is short");
        out
    }

    fn is_quiet(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| node.errors.is_empty() && node.closed().is_empty())
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn kind_is(bytes: &[u8], kind: u8) -> bool {
    bytes.first() == Some(&kind)
}

#[test]
fn a_channel_is_established_and_carries_frames_both_ways() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let parts = |node: &Node| {
        let found = node.outputs.iter().find_map(|output| match output {
            Output::Established {
                peer,
                role,
                binding,
                suite,
                path,
                not_after,
                ..
            } => Some((*peer, *role, *binding, *suite, *path, *not_after)),
            Output::Transmit { .. } | Output::Pong { .. } | Output::Closed { .. } => None,
        });
        found.expect("it is established")
    };
    let (at_a, at_b) = (parts(&net.nodes[A]), parts(&net.nodes[B]));
    assert_eq!(
        (at_a.0, at_b.0),
        (net.nodes[B].identifier(), net.nodes[A].identifier())
    );
    assert_eq!((at_a.1, at_b.1), (Role::Initiator, Role::Responder));
    assert_eq!(at_a.2, at_b.2);
    assert_eq!((at_a.3, at_b.3), (Suite::HybridAes256Gcm, Suite::HybridAes256Gcm));
    assert_eq!((at_a.4, at_a.5, at_b.5), (PATH, 86_400, 86_400));
    net.say(A, a, b"up");
    net.say(B, b, b"down");
    net.run();
    assert_eq!(net.nodes[B].bodies(), [b"up"]);
    assert_eq!(net.nodes[A].bodies(), [b"down"]);
    assert!(net.is_quiet());
    assert_eq!(net.nodes[A].channels.peer(a), Some(net.nodes[B].identifier()));
    assert_eq!(net.nodes[A].channels.path(a), Some(PATH));
    // Message 1, 2, 3, and the responder's first record.
    let sizes: Vec<_> = net.log.iter().map(|(from, bytes)| (*from, bytes[0])).collect();
    assert_eq!(sizes, [(A, 0x11), (B, 0x12), (A, 0x13), (B, 0x41)]);
    assert!(net.log[1].1.len() <= net.log[0].1.len());
}

#[test]
fn policies_that_agree_on_nothing_do_not_connect() {
    for (initiator, responder) in [
        (PqPolicy::Off, PqPolicy::Required),
        (PqPolicy::Required, PqPolicy::Off),
    ] {
        let mut net = Net::with(
            settings(),
            ChannelSettings {
                pq: responder,
                ..settings()
            },
        );
        net.connect(initiator);
        net.pass(secs(40), |_, _| Fate::Pass);
        assert_eq!(net.nodes[A].closed(), [CloseReason::NoAnswer { refusal: None }]);
        assert!(
            net.nodes[B]
                .errors
                .iter()
                .all(|error| *error == ChannelError::Suite)
        );
        assert!(
            net.log.iter().all(|(from, _)| *from == A),
            "a responder explains nothing"
        );
    }
}

#[test]
fn a_handshake_survives_the_loss_of_each_message() {
    for lost in [MESSAGE_1, MESSAGE_2, MESSAGE_3, 0x41] {
        let mut net = Net::new();
        let a = net.connect(PqPolicy::Required);
        let mut dropped = 0;
        net.pass(secs(9), |_, bytes| {
            if kind_is(bytes, lost) && dropped == 0 {
                dropped += 1;
                return Fate::Drop;
            }
            Fate::Pass
        });
        assert_eq!(dropped, 1);
        assert_eq!(net.nodes[A].established(), [a], "{lost:#x}");
        assert_eq!(net.nodes[B].established().len(), 1, "{lost:#x}");
        net.say(A, a, b"still there");
        net.pass(secs(100), |_, _| Fate::Pass);
        assert_eq!(net.nodes[B].bodies(), [b"still there"], "{lost:#x}");
        assert!(net.nodes.iter().all(|node| node.closed().is_empty()));
        let stats = net.nodes[B].channels.stats();
        assert_eq!((stats.open, stats.half_open), (1, 0), "{lost:#x}");
    }
}

#[test]
fn message_1_is_repeated_four_times_and_given_up_after_31_seconds() {
    let mut net = Net::new();
    net.connect(PqPolicy::Required);
    let mut sent = Vec::new();
    for second in 0..40 {
        let before = net.log.len();
        net.pass(secs(second), |_, _| Fate::Drop);
        sent.extend(std::iter::repeat_n(second, net.log.len() - before));
        assert_eq!(
            net.nodes[A].closed().len(),
            usize::from(second >= 31),
            "{second} s"
        );
    }
    assert_eq!(sent, [0, 1, 3, 7, 15]);
    assert_eq!(net.nodes[A].closed(), [CloseReason::NoAnswer { refusal: None }]);
    assert_eq!(net.nodes[A].channels.poll_timeout(), None);
    assert_eq!(net.nodes[A].channels.stats().connecting, 0);
}

#[test]
fn a_half_open_handshake_repeats_message_2_and_is_dropped_after_10_seconds() {
    let mut net = Net::new();
    net.connect(PqPolicy::Required);
    let mut sent = Vec::new();
    for second in 0..12 {
        net.pass(secs(second), |from, bytes| {
            if from == B {
                sent.push(second);
            }
            // One message 1 gets through.
            if from == A && second == 0 && kind_is(bytes, MESSAGE_1) {
                Fate::Pass
            } else {
                Fate::Drop
            }
        });
        assert_eq!(
            net.nodes[B].channels.stats().half_open,
            u64::from(second < 10),
            "{second} s"
        );
    }
    assert_eq!(sent, [0, 1, 3, 7]);
    let stats = net.nodes[B].channels.stats();
    assert_eq!((stats.abandoned, stats.open), (1, 0));
    assert!(net.nodes[B].channels.half_open.is_empty() && net.nodes[B].channels.half_open_by_path.is_empty());
}

#[test]
fn an_initiator_whose_message_3_never_arrives_pings_and_gives_up() {
    let mut net = Net::new();
    net.connect(PqPolicy::Required);
    net.pass(secs(30), |from, bytes| {
        if from == A && !kind_is(bytes, MESSAGE_1) {
            Fate::Drop
        } else {
            Fate::Pass
        }
    });
    let pings = net
        .log
        .iter()
        .filter(|(from, bytes)| *from == A && is_record(bytes[0]))
        .count();
    assert_eq!(pings, 4);
    assert!(net.nodes[A].closed().is_empty());
    net.pass(secs(31), |_, _| Fate::Drop);
    assert_eq!(net.nodes[A].closed(), [CloseReason::Unconfirmed]);
    assert!(net.nodes[B].established().is_empty());
}

#[test]
fn a_message_1_that_comes_twice_is_answered_by_the_same_message_2() {
    let mut net = Net::new();
    net.connect(PqPolicy::Required);
    net.collect();
    let (_, message_1) = net.wire.pop_front().expect("message 1 was sent");
    net.deliver(A, message_1.clone()).expect("it is good");
    net.deliver(A, message_1).expect("it is good again");
    net.collect();
    assert_eq!(net.wire[0], net.wire[1]);
    assert_eq!(net.nodes[B].channels.stats().half_open, 1);
    net.run();
    assert_eq!(
        (net.nodes[A].established().len(), net.nodes[B].established().len()),
        (1, 1)
    );
}

#[test]
fn messages_replayed_after_the_handshake_change_nothing() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let log = net.log.clone();
    for (from, bytes) in log {
        let again = net.deliver(from, bytes.clone());
        // Message 1 begins another handshake, which nobody can finish.
        assert_eq!(again.is_ok(), kind_is(&bytes, MESSAGE_1), "{:#x}", bytes[0]);
    }
    net.pass(secs(11), |_, _| Fate::Drop);
    assert_eq!(net.nodes[B].channels.stats().half_open, 0);
    net.say(A, a, b"up");
    net.say(B, b, b"down");
    net.run();
    assert_eq!(
        (net.nodes[B].bodies(), net.nodes[A].bodies()),
        (vec![b"up".to_vec()], vec![b"down".to_vec()])
    );
}

#[test]
fn a_record_replayed_reordered_or_changed_is_not_taken() {
    let mut net = Net::new();
    let [a, _] = net.established();
    let records: Vec<_> = (0..20_u8).map(|index| net.seal(A, a, &[index])).collect();
    for index in [3, 1, 0, 19, 18, 5] {
        net.deliver(A, records[index].clone())
            .expect("it is the first time");
    }
    let before = net.nodes[B].bodies();
    assert_eq!(before, [[3], [1], [0], [19], [18], [5]]);
    for index in [3, 1, 0, 19, 18, 5] {
        let number = index as u64;
        assert_eq!(
            net.deliver(A, records[index].clone()),
            Err(ChannelError::Replayed { number })
        );
    }
    assert_eq!(net.nodes[B].channels.stats().records_replayed, 6);
    for bit in 0..records[7].len() * 8 {
        let mut forged = records[7].clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(net.deliver(A, forged).is_err(), "bit {bit}");
    }
    assert_eq!(net.nodes[B].bodies(), before);
    let stats = net.nodes[B].channels.stats();
    assert!(stats.records_forged > 0 && stats.records_unknown > 0);
    net.deliver(A, records[7].clone())
        .expect("the right one is still taken");
}

#[test]
fn a_record_does_not_open_at_its_sender_or_in_another_channel() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let [_, b2] = net.established();
    let record = net.seal(A, a, b"x");
    assert!(net.deliver(B, record.clone()).is_err(), "reflected");
    let mut moved = record;
    moved[1..5].copy_from_slice(&b2.to_wire().to_be_bytes());
    assert_ne!(b, b2);
    assert_eq!(net.deliver(A, moved), Err(ChannelError::Crypto(CryptoError::Tag)));
}

#[test]
fn a_stranger_s_first_message_leaves_no_trace_and_no_answer() {
    let mut net = Net::new();
    let (now, stranger) = (net.now, Identifier::from_bytes([1; 32]));
    let node = &mut net.nodes[A];
    let channel = node
        .channels
        .connect(now, &mut node.entropy, stranger, PATH, PqPolicy::Required);
    channel.expect("there is room");
    net.run();
    assert_eq!(net.nodes[B].errors, [ChannelError::Mac1]);
    assert_eq!(
        net.nodes[B].channels.stats(),
        ChannelsStats {
            wrong_mac1: 1,
            ..ChannelsStats::default()
        }
    );
    assert_eq!(net.log.len(), 1);
}

#[test]
fn under_load_an_initiator_proves_its_path_first() {
    let mut net = Net::with(
        settings(),
        ChannelSettings {
            cookie_from: 0,
            ..settings()
        },
    );
    let [a, b] = net.established();
    net.say(A, a, b"up");
    net.run();
    assert_eq!(net.nodes[B].bodies(), [b"up"]);
    let kinds: Vec<_> = net.log.iter().map(|(_, bytes)| bytes[0]).collect();
    assert_eq!(kinds, [0x11, 0x1c, 0x11, 0x12, 0x13, 0x41]);
    assert_eq!(net.log[1].1.len(), 53);
    assert_eq!(net.nodes[B].channels.stats().cookies_sent, 1);
    assert_eq!(net.nodes[B].channels.path(b), Some(PATH));
    // A cookie for one path is none for another.
    let mut message_1 = net.log[2].1.clone();
    let (now, node) = (net.now, &mut net.nodes[B]);
    let received = node
        .channels
        .handle_message(now, &mut node.entropy, PATH, b"elsewhere", &mut message_1);
    assert_eq!(received, Ok(Received::Handshake));
    assert_eq!(node.channels.stats().cookies_sent, 2);
    assert_eq!(node.channels.stats().half_open, 0);
}

#[test]
fn an_unproven_path_never_gets_more_than_it_sent() {
    // A history of 16 changes makes message 2 longer than message 1.
    let mut net = Net::new();
    let mut identity = TestIdentity::new(KeyAlgorithm::EcdsaP256);
    for _ in 1..16 {
        identity = identity.rotated(KeyAlgorithm::EcdsaP256);
    }
    net.nodes[B].channels.set_local(local(&identity, 3));
    net.nodes[B].identity = identity;
    net.established();
    let sizes: Vec<_> = net.log.iter().map(|(_, bytes)| (bytes[0], bytes.len())).collect();
    assert_eq!(
        sizes[..3].iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        [0x11, 0x1c, 0x11]
    );
    assert!(sizes[1].1 <= sizes[0].1);
    assert_eq!(sizes[3].0, 0x12);
    assert!(sizes[3].1 > sizes[2].1 && sizes[3].1 <= message::MESSAGE_LEN_MAX);
    assert!(net.is_quiet());
}

#[test]
fn half_open_handshakes_are_bounded_in_all_and_per_path() {
    let bounded = ChannelSettings {
        half_open_max: 5,
        half_open_per_path_max: 3,
        ..settings()
    };
    let mut net = Net::with(settings(), bounded);
    for _ in 0..7 {
        net.connect(PqPolicy::Off);
    }
    net.collect();
    let messages: Vec<_> = net.wire.drain(..).map(|(_, bytes)| bytes).collect();
    let mut results = Vec::new();
    for (index, mut bytes) in messages.into_iter().enumerate() {
        let (now, node) = (net.now, &mut net.nodes[B]);
        node.channels.settings.pq = PqPolicy::Preferred;
        let path = if index < 4 { PATH } else { PathId(6) };
        let received = node
            .channels
            .handle_message(now, &mut node.entropy, path, ROUTE, &mut bytes);
        results.push(received.map(|_| ()));
    }
    let per_path = Err(ChannelError::Full {
        table: "half-open handshakes of one path",
        max: 3,
    });
    let in_all = Err(ChannelError::Full {
        table: "half-open handshakes",
        max: 5,
    });
    assert_eq!(
        results,
        [Ok(()), Ok(()), Ok(()), per_path, Ok(()), Ok(()), in_all]
    );
    assert_eq!(net.nodes[B].channels.stats().full, 2);
    net.pass(secs(11), |_, _| Fate::Drop);
    assert_eq!(net.nodes[B].channels.stats().half_open, 0);
}

#[test]
fn channels_are_bounded() {
    let mut net = Net::with(
        ChannelSettings {
            channels_max: 2,
            ..settings()
        },
        settings(),
    );
    let [a, _] = net.established();
    net.established();
    let (now, peer) = (net.now, net.nodes[B].identifier());
    let node = &mut net.nodes[A];
    let full = Err(ChannelError::Full {
        table: "channels",
        max: 2,
    });
    assert_eq!(
        node.channels
            .connect(now, &mut node.entropy, peer, PATH, PqPolicy::Off),
        full
    );
    node.channels.close(a, CloseCode::DONE);
    assert!(
        node.channels
            .connect(now, &mut node.entropy, peer, PATH, PqPolicy::Off)
            .is_ok()
    );
}

/// Replaces a node's static key and attestation, whether or not they belong together.
fn presenting(
    node: &mut Node,
    attestation: &crate::identity::SignedAttestation,
    history: &[u8],
    secret: X25519Secret,
) {
    let honest = local(&node.identity, 99);
    let mut payload = vec![message::FORM_FULL];
    payload.extend_from_slice(history);
    crate::wire::put_bytes16(&mut payload, &attestation.encode());
    node.channels.set_local(LocalIdentity {
        identifier: honest.identifier,
        static_secret: Arc::new(secret),
        payload,
        attestation_hash: [9; 16],
    });
}

fn secret(seed: u64) -> X25519Secret {
    X25519Secret::generate(&mut Seeded::new(seed))
}

/// Lets the responder present something wrong; the initiator must refuse it before it shows who it is.
fn responder_refused(present: impl FnOnce(&mut Node), want: impl Fn(IdentityError) -> bool) {
    let mut net = Net::new();
    present(&mut net.nodes[B]);
    net.connect(PqPolicy::Required);
    net.pass(secs(40), |_, _| Fate::Pass);
    let closed = net.nodes[A].closed();
    let [
        CloseReason::NoAnswer {
            refusal: Some(ChannelError::Identity(error)),
        },
    ] = closed[..]
    else {
        panic!("closed for another reason: {closed:?}");
    };
    assert!(want(error), "{error:?}");
    assert!(
        net.log.iter().all(|(_, bytes)| !kind_is(bytes, MESSAGE_3)),
        "an impostor learns who asks"
    );
    assert!(net.nodes[A].channels.stats().identities_refused > 0);
}

/// Lets the initiator present something wrong; the responder must refuse it once message 3 has opened.
fn initiator_refused(present: impl FnOnce(&mut Node), want: impl Fn(IdentityError) -> bool) {
    let mut net = Net::new();
    present(&mut net.nodes[A]);
    net.connect(PqPolicy::Required);
    net.run();
    let [ChannelError::Identity(error)] = net.nodes[B].errors[..] else {
        panic!("refused for another reason: {:?}", net.nodes[B].errors);
    };
    assert!(want(error), "{error:?}");
    let stats = net.nodes[B].channels.stats();
    assert_eq!((stats.identities_refused, stats.open, stats.half_open), (1, 0, 0));
    assert!(net.nodes[B].established().is_empty());
}

#[test]
fn an_expired_or_future_attestation_is_refused() {
    let expired = |node: &mut Node| {
        let attestation = node.identity.attest(*secret(7).public(), 0, NOON - 400, 1);
        presenting(node, &attestation, &node.identity.history.to_bytes(), secret(7));
    };
    responder_refused(expired, |error| matches!(error, IdentityError::Expired { .. }));
    initiator_refused(expired, |error| matches!(error, IdentityError::Expired { .. }));
    let future = |node: &mut Node| {
        let attestation = node.identity.attest(*secret(7).public(), NOON + 400, 3600, 1);
        presenting(node, &attestation, &node.identity.history.to_bytes(), secret(7));
    };
    responder_refused(future, |error| matches!(error, IdentityError::NotYetValid { .. }));
    initiator_refused(future, |error| matches!(error, IdentityError::NotYetValid { .. }));
}

#[test]
fn an_attestation_of_another_key_is_refused() {
    let other = |node: &mut Node| {
        let attestation = node.identity.attest(*secret(7).public(), 0, 86_400, 1);
        presenting(node, &attestation, &node.identity.history.to_bytes(), secret(8));
    };
    responder_refused(other, |error| error == IdentityError::OtherKey);
    initiator_refused(other, |error| error == IdentityError::OtherKey);
}

#[test]
fn a_foreign_identity_is_refused() {
    // Everything is in order, but it is somebody else's.
    responder_refused(
        |node| {
            let stranger = TestIdentity::new(KeyAlgorithm::Ed25519);
            let attestation = stranger.attest(*secret(7).public(), 0, 86_400, 1);
            presenting(node, &attestation, &stranger.history.to_bytes(), secret(7));
        },
        |error| matches!(error, IdentityError::Foreign { .. }),
    );
    // The history is one's own, the attestation is signed by somebody else.
    let forged = |node: &mut Node| {
        let stranger = TestIdentity::new(KeyAlgorithm::Ed25519);
        let attestation = stranger.attest(*secret(7).public(), 0, 86_400, 1);
        presenting(node, &attestation, &node.identity.history.to_bytes(), secret(7));
    };
    responder_refused(forged, |error| matches!(error, IdentityError::Foreign { .. }));
    initiator_refused(forged, |error| matches!(error, IdentityError::Foreign { .. }));
}

#[test]
fn an_initiator_may_not_answer_with_the_short_form() {
    let mut net = Net::new();
    let honest = local(&net.nodes[A].identity, 1);
    net.nodes[A].channels.set_local(LocalIdentity {
        payload: vec![FORM_CACHED],
        ..honest
    });
    net.connect(PqPolicy::Required);
    net.run();
    assert_eq!(
        net.nodes[B].errors,
        [WireError::Value {
            field: "form of payload",
            value: 2
        }
        .into()]
    );
    assert_eq!(net.nodes[B].channels.stats().half_open, 0);
}

#[test]
fn a_peer_that_answers_by_the_short_form_without_reason_is_refused() {
    let mut net = Net::new();
    let honest = local(&net.nodes[B].identity, 2);
    net.nodes[B].channels.set_local(LocalIdentity {
        payload: vec![FORM_CACHED],
        ..honest
    });
    net.connect(PqPolicy::Required);
    net.pass(secs(40), |_, _| Fate::Pass);
    let refusal = Some(ChannelError::Identity(IdentityError::OtherKey));
    assert_eq!(net.nodes[A].closed(), [CloseReason::NoAnswer { refusal }]);
}

#[test]
fn a_known_attestation_is_not_sent_again_until_it_changes() {
    let mut net = Net::new();
    net.established();
    let first = net
        .log
        .iter()
        .find(|(_, bytes)| kind_is(bytes, MESSAGE_2))
        .expect("it was sent")
        .1
        .len();
    net.log.clear();
    net.established();
    let second = net
        .log
        .iter()
        .find(|(_, bytes)| kind_is(bytes, MESSAGE_2))
        .expect("it was sent")
        .1
        .len();
    assert!(second + 300 < first, "{second} and {first} bytes");
    for node in &net.nodes {
        assert_eq!(
            (node.channels.peer_stats().hits, node.channels.peer_stats().misses),
            (1, 1)
        );
    }
    // A new attestation, as every half day.
    let renewed = local(&net.nodes[B].identity, 50);
    net.nodes[B].channels.set_local(renewed);
    net.established();
    assert_eq!(net.nodes[A].channels.peer_stats().misses, 2);
    assert!(net.is_quiet());
}

#[test]
fn a_forged_answer_does_not_keep_the_right_one_out() {
    let mut net = Net::new();
    net.connect(PqPolicy::Required);
    net.collect();
    let (_, message_1) = net.wire.pop_front().expect("message 1 was sent");
    let mut copy = message_1.clone();
    // Somebody in the middle answers with a key of its own.
    let mut mallory = Node::new(settings(), KeyAlgorithm::Ed25519, 66);
    mallory.channels.mac1_key = mac1_key(net.nodes[B].identifier());
    let own = local(&mallory.identity, 66);
    let posing = LocalIdentity {
        identifier: net.nodes[B].identifier(),
        ..own
    };
    mallory.channels.local = Arc::new(posing);
    let received = mallory
        .channels
        .handle_message(net.now, &mut mallory.entropy, PATH, ROUTE, &mut copy);
    assert_eq!(received, Ok(Received::Handshake));
    let Some(Output::Transmit { bytes, .. }) = mallory.channels.poll_output() else {
        panic!("no answer")
    };
    let refused = net.deliver(B, bytes);
    assert!(
        matches!(
            refused,
            Err(ChannelError::Identity(IdentityError::Foreign { .. }))
        ),
        "{refused:?}"
    );
    net.deliver(A, message_1).expect("it is good");
    net.run();
    assert_eq!(net.nodes[A].established().len(), 1);
}

#[test]
fn an_unknown_clock_skips_the_window_but_not_the_sequence() {
    let mut net = Net::new();
    net.now.wall = WallTime::default();
    net.now.wall.unix_millis = 999_999_999_000;
    net.established();
    // An older attestation of the same identity and key.
    let node = &mut net.nodes[A];
    let attestation = node.identity.attest(*secret(7).public(), 0, 86_400, 0);
    presenting(node, &attestation, &node.identity.history.to_bytes(), secret(7));
    net.connect(PqPolicy::Required);
    net.run();
    let old = IdentityError::OldAttestation { got: 0, highest: 1 };
    assert_eq!(net.nodes[B].errors, [ChannelError::Identity(old)]);
}

#[test]
fn closing_tells_the_peer_and_wipes_the_channel_on_both_sides() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let late = net.seal(B, b, b"late");
    net.nodes[A].channels.close(a, CloseCode::SHUTDOWN);
    net.nodes[A].channels.close(a, CloseCode::SHUTDOWN);
    net.run();
    assert_eq!(net.nodes[A].closed(), [CloseReason::Local(CloseCode::SHUTDOWN)]);
    assert_eq!(net.nodes[B].closed(), [CloseReason::Peer(CloseCode::SHUTDOWN)]);
    assert_eq!(net.deliver(B, late), Err(ChannelError::Channel(a)));
    for (node, channel) in [(A, a), (B, b)] {
        let channels = &mut net.nodes[node].channels;
        assert_eq!(
            channels.begin(channel, &mut Vec::new()).err(),
            Some(ChannelError::Channel(channel))
        );
        assert_eq!((channels.stats().open, channels.stats().closed), (0, 1));
        assert_eq!(channels.peer(channel), None);
    }
    net.pass(secs(100), |_, _| Fate::Pass);
    assert!(
        net.nodes
            .iter()
            .all(|node| node.channels.poll_timeout().is_none())
    );
}

#[test]
fn a_ping_measures_the_round_trip() {
    let mut net = Net::new();
    let [a, _] = net.established();
    let now = net.now;
    net.nodes[A]
        .channels
        .ping(now, a)
        .expect("the channel is established");
    net.collect();
    let (from, ping) = net.wire.pop_front().expect("the ping was sent");
    net.at(Duration::from_millis(30));
    net.deliver(from, ping).expect("it opens");
    net.collect();
    net.at(Duration::from_millis(12));
    net.run();
    let pong = Output::Pong {
        channel: a,
        round_trip: Duration::from_millis(42),
    };
    assert!(net.nodes[A].outputs.contains(&pong));
    assert!(net.nodes[B].bodies().is_empty());
}

#[test]
fn own_records_go_along_the_path_that_was_set() {
    let mut net = Net::new();
    let [a, _] = net.established();
    assert_eq!(net.nodes[A].channels.set_path(a, PathId(77)), Ok(()));
    let now = net.now;
    net.nodes[A]
        .channels
        .ping(now, a)
        .expect("the channel is established");
    let Some(Output::Transmit { path, channel, .. }) = net.nodes[A].channels.poll_output() else {
        panic!("the ping is sent")
    };
    assert_eq!((path, channel), (PathId(77), Some(a)));
    let unknown = ChannelId::from_wire(1);
    assert_eq!(
        net.nodes[A].channels.set_path(unknown, PATH),
        Err(ChannelError::Channel(unknown))
    );
}

#[test]
fn a_record_with_malformed_frames_is_dropped_whole() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let mut close_first = Vec::new();
    put_frame(&mut close_first, frame::CLOSE, &[0]);
    for bad in [
        [close_first.as_slice(), &[0x20, 0, 9, 1]].concat(),
        [close_first.as_slice(), &[0, 0, 1]].concat(),
        [close_first.as_slice(), &[frame::PING, 0, 7, 1, 2, 3, 4, 5, 6, 7]].concat(),
        vec![frame::CLOSE, 0, 0],
        vec![frame::REKEY_PLEASE, 0, 1, 0],
        vec![frame::REKEY1, 0, 2, 1, 1],
        vec![frame::REKEY2, 0, 2, 1, 1],
    ] {
        let record = net.seal_raw(A, a, &bad);
        assert!(
            matches!(net.deliver(A, record), Err(ChannelError::Frame(_))),
            "{bad:?}"
        );
    }
    assert_eq!(net.nodes[B].channels.stats().records_malformed, 7);
    assert!(net.nodes[B].channels.peer(b).is_some());
    assert!(net.nodes[B].bodies().is_empty());
    // Unknown kinds are skipped and counted.
    let record = net.seal_raw(A, a, &[0x0e, 0, 0, 0x20, 0, 1, 5]);
    net.deliver(A, record).expect("it is well-formed");
    assert_eq!(net.nodes[B].bodies(), [[5]]);
    assert_eq!(net.nodes[B].channels.stats().frames_unknown, 1);
}

#[test]
fn many_pings_in_one_record_get_one_pong() {
    let mut net = Net::new();
    let [a, _] = net.established();
    let mut pings = Vec::new();
    while pings.len() + 11 <= PLAINTEXT_LEN_MAX {
        let number = (pings.len() as u64).to_be_bytes();
        put_frame(&mut pings, frame::PING, &number);
    }
    let record = net.seal_raw(A, a, &pings);
    net.log.clear();
    net.deliver(A, record).expect("it is well-formed");
    net.run();
    assert_eq!(
        net.log
            .iter()
            .map(|(from, bytes)| (*from, bytes.len()))
            .collect::<Vec<_>>(),
        [(B, 7 + 11 + 16)]
    );
}

#[test]
fn a_silent_channel_closes() {
    let quiet = ChannelSettings {
        rekey: RekeySettings {
            interval: secs(100_000),
            ..RekeySettings::default()
        },
        ..settings()
    };
    let mut net = Net::with(quiet, quiet);
    net.established();
    net.pass(secs(7199), |_, _| Fate::Pass);
    assert!(net.is_quiet());
    net.pass(secs(7300), |_, _| Fate::Drop);
    for node in &net.nodes {
        assert_eq!(node.closed(), [CloseReason::Silent]);
        assert_eq!(node.channels.poll_timeout(), None);
    }
}

#[test]
fn a_channel_ends_with_the_attestation_of_its_peer() {
    let mut net = Net::new();
    net.established();
    let end = 86_400 + 300 - NOON;
    net.pass(secs(end - 61), |_, _| Fate::Pass);
    assert!(net.is_quiet(), "{:?}", net.nodes[A].closed());
    assert!(net.nodes[A].channels.stats().rekeys > 8);
    net.pass(secs(end + 61), |_, _| Fate::Drop);
    assert_eq!(net.nodes[A].closed(), [CloseReason::Expired]);

    // Whoever does not know the time goes on.
    let mut net = Net::new();
    net.now.wall.quality = ClockQuality::Unknown;
    net.established();
    net.pass(secs(100_000), |_, _| Fate::Pass);
    assert!(net.is_quiet());
}

#[test]
fn two_to_the_twentieth_forgeries_close_a_channel() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let mut forged = net.seal(A, a, b"");
    *forged.last_mut().expect("a record has a tag") ^= 1;
    let (now, node) = (net.now, &mut net.nodes[B]);
    for count in 1..=1 << 20_u32 {
        assert!(node.channels.peer(b).is_some(), "{count}");
        // Opening spoils the bytes, and spoilt bytes are forged too.
        let received = node
            .channels
            .handle_message(now, &mut node.entropy, PATH, ROUTE, &mut forged);
        assert_eq!(received, Err(ChannelError::Crypto(CryptoError::Tag)));
    }
    net.run();
    assert_eq!(net.nodes[B].closed(), [CloseReason::Forgeries]);
    assert_eq!(net.nodes[A].closed(), [CloseReason::Peer(CloseCode::BROKEN)]);
}

#[test]
fn a_channel_survives_the_loss_of_70_000_records_and_of_three_million_numbers() {
    let mut net = Net::new();
    let [a, _] = net.established();
    for _ in 0..70_000 {
        drop(net.seal(A, a, b"lost"));
    }
    for _ in 0..256 {
        net.say(A, a, b"found");
    }
    net.run();
    let found = net.nodes[B].bodies().len();
    assert!(found > 0, "the receiver found its place within 256 records");
    net.nodes[A]
        .channels
        .table
        .open_mut(a)
        .expect("it is open")
        .sealer()
        .leap(3_070_000);
    for _ in 0..256 {
        net.say(A, a, b"found");
    }
    net.run();
    assert!(net.nodes[B].bodies().len() > found);
    assert!(net.nodes.iter().all(|node| node.closed().is_empty()));
}

#[test]
fn a_sender_told_to_use_long_numbers_loses_nothing_after_a_gap() {
    let mut net = Net::new();
    let [a, _] = net.established();
    let sealer = net.nodes[A]
        .channels
        .table
        .open_mut(a)
        .expect("it is open")
        .sealer();
    sealer.set_number_len(NumberLen::Eight);
    sealer.leap(16 << 20);
    net.say(A, a, b"found");
    net.run();
    assert_eq!(net.nodes[B].bodies(), [b"found"]);
}

fn quick() -> ChannelSettings {
    let rekey = RekeySettings {
        interval: secs(60),
        bytes_max: 1 << 40,
        interval_min: secs(1),
    };
    ChannelSettings { rekey, ..settings() }
}

fn generation(net: &Net, node: usize, channel: ChannelId) -> u64 {
    net.nodes[node]
        .channels
        .channel_stats(channel)
        .expect("the channel is open")
        .generation
}

#[test]
fn keys_are_replaced_by_time_and_the_old_ones_wiped_after_five_seconds() {
    let mut net = Net::with(quick(), quick());
    let [a, b] = net.established();
    let early = [net.seal(A, a, b"early"), net.seal(A, a, b"too late")];
    let early_down = [net.seal(B, b, b"early"), net.seal(B, b, b"too late")];
    let mut begun = None;
    for tenth in 0..800 {
        net.pass(Duration::from_millis(tenth * 100), |_, _| Fate::Pass);
        if generation(&net, A, a) == 1 && begun.is_none() {
            begun = Some(tenth);
            assert_eq!(generation(&net, B, b), 1, "both go over without time passing");
            net.deliver(A, early[0].clone())
                .expect("the old generation still opens");
            net.deliver(B, early_down[0].clone())
                .expect("the old generation still opens");
        }
        let Some(begun) = begun else { continue };
        let open = |net: &Net, node: usize, channel| {
            net.nodes[node]
                .channels
                .table
                .open(channel)
                .expect("the channel is open")
                .has_previous()
        };
        let want = tenth < begun + 50;
        assert_eq!(
            (open(&net, A, a), open(&net, B, b)),
            (want, want),
            "{} ms",
            (tenth - begun) * 100
        );
        if tenth == begun + 51 {
            break;
        }
    }
    let begun = begun.expect("a minute has passed");
    assert!((480..=720).contains(&begun), "{begun} tenths of a second");
    for (from, record) in [(A, &early[1]), (B, &early_down[1])] {
        assert_eq!(
            net.deliver(from, record.clone()),
            Err(ChannelError::Generation { got: 0 })
        );
    }
    net.say(A, a, b"up");
    net.say(B, b, b"down");
    net.run();
    assert_eq!(net.nodes[B].bodies(), [b"early".to_vec(), b"up".to_vec()]);
    assert_eq!(net.nodes[A].bodies(), [b"early".to_vec(), b"down".to_vec()]);
    assert_eq!(
        (
            net.nodes[A].channels.stats().rekeys,
            net.nodes[B].channels.stats().rekeys
        ),
        (1, 1)
    );
}

#[test]
fn keys_are_not_used_past_their_time_even_if_the_timer_is_late() {
    let mut net = Net::with(quick(), quick());
    let [a, b] = net.established();
    let old = net.seal(A, a, b"old");
    while generation(&net, B, b) == 0 {
        let next = net.now.instant + secs(1);
        net.pass(next - Instant::START, |_, _| Fate::Pass);
    }
    net.at(secs(5));
    assert_eq!(net.deliver(A, old), Err(ChannelError::Generation { got: 0 }));
}

#[test]
fn keys_are_replaced_after_their_bytes() {
    let rekey = RekeySettings {
        interval: secs(3600),
        bytes_max: 100_000,
        interval_min: secs(1),
    };
    let bounded = ChannelSettings { rekey, ..settings() };
    for (from, other) in [(A, B), (B, A)] {
        // The side that does not count shows that one side suffices.
        let mut both = [settings(), settings()];
        both[from] = bounded;
        let [first, second] = both;
        let mut net = Net::with(first, second);
        let channels = net.established();
        for _ in 0..12 {
            net.say(from, channels[from], &[7; 10_000]);
        }
        net.run();
        assert_eq!(
            generation(&net, from, channels[from]),
            0,
            "not before a second has passed"
        );
        net.pass(secs(2), |_, _| Fate::Pass);
        assert_eq!(
            generation(&net, A, channels[A]),
            1,
            "{from} counts, {other} does not"
        );
        assert_eq!(generation(&net, B, channels[B]), 1);
        net.pass(secs(60), |_, _| Fate::Pass);
        assert_eq!(generation(&net, A, channels[A]), 1);
        assert!(net.is_quiet());
    }
}

#[test]
fn a_lost_rekey_message_is_repeated_and_data_flows_meanwhile() {
    for lost in 1..=3 {
        let mut net = Net::with(quick(), quick());
        let [a, b] = net.established();
        let mut own = 0;
        let mut dropped = false;
        for second in 1..100_u64 {
            net.say(A, a, &second.to_be_bytes());
            net.say(B, b, &second.to_be_bytes());
            net.pass(secs(second), |_, bytes| {
                // Rekey1, Rekey2, and the ping in the new generation: told from data by length and order.
                let rekeying =
                    is_record(bytes[0]) && bytes.len() != 7 + 11 + 16 && bytes.len() != 9 + 11 + 16;
                let ping = is_record(bytes[0]) && bytes[0] >> 2 & 3 == 1;
                if (rekeying && bytes.len() > 1000) || (ping && own == 2) {
                    own += 1;
                    if own == lost && !dropped {
                        dropped = true;
                        return Fate::Drop;
                    }
                }
                Fate::Pass
            });
        }
        assert!(dropped, "{lost}");
        assert_eq!((generation(&net, A, a), generation(&net, B, b)), (1, 1), "{lost}");
        assert_eq!(net.nodes[A].bodies().len(), 99, "{lost}");
        // The lost message may have been a record with data.
        assert!(net.nodes[B].bodies().len() >= 98, "{lost}");
        assert!(
            net.is_quiet(),
            "{lost}: {:?} {:?}",
            net.nodes[A].errors,
            net.nodes[B].errors
        );
    }
}

#[test]
fn a_rekey_that_is_never_answered_closes_the_channel() {
    let mut net = Net::with(quick(), quick());
    let [a, _] = net.established();
    net.log.clear();
    net.pass(secs(150), |_, _| Fate::Drop);
    assert_eq!(net.nodes[A].closed(), [CloseReason::RekeyUnanswered]);
    let sent = net.log.iter().filter(|(from, _)| *from == A).count();
    assert_eq!(sent, 1 + 8 + 1, "an offer, eight repetitions, and the close");
    let offers: Vec<_> = net
        .log
        .iter()
        .filter(|(from, bytes)| *from == A && bytes.len() > 1000)
        .collect();
    assert_eq!(offers.len(), 9);
    assert!(net.nodes[A].channels.peer(a).is_none());
}

#[test]
fn rekey_frames_that_do_not_fit_the_state_are_counted_and_change_nothing() {
    let mut net = Net::with(quick(), quick());
    let [a, b] = net.established();
    net.pass(secs(2), |_, _| Fate::Pass);
    let body = |generation: u8, len: usize| {
        let mut body = vec![generation; len];
        body[1..].fill(9);
        body
    };
    let hybrid_1 = 1 + 32 + 1184;
    let hybrid_2 = 1 + 32 + 1088;
    for (from, channel, kind, body) in [
        (A, a, frame::REKEY1, body(2, hybrid_1)),
        (A, a, frame::REKEY1, body(0, hybrid_1)),
        // The key is not reduced: every coefficient has 0x909.
        (
            A,
            a,
            frame::REKEY1,
            [vec![1], vec![9; 32], vec![0xff; 1184]].concat(),
        ),
        (A, a, frame::REKEY2, body(1, hybrid_2)),
        (B, b, frame::REKEY1, body(1, hybrid_1)),
        (B, b, frame::REKEY2, body(1, hybrid_2)),
    ] {
        let mut plaintext = Vec::new();
        put_frame(&mut plaintext, kind, &body);
        put_frame(&mut plaintext, 0x20, b"data");
        let record = net.seal_raw(from, channel, &plaintext);
        net.deliver(from, record).expect("the record itself is good");
    }
    assert_eq!(net.nodes[B].bodies().len(), 4, "data in the same record counts");
    assert_eq!(net.nodes[B].channels.stats().records_malformed, 4);
    assert_eq!(net.nodes[A].channels.stats().records_malformed, 2);
    net.pass(secs(80), |_, _| Fate::Pass);
    assert_eq!(
        (generation(&net, A, a), generation(&net, B, b)),
        (1, 1),
        "the real rekey goes through"
    );
}

#[test]
fn a_peer_cannot_make_a_responder_answer_many_offers() {
    let mut net = Net::with(quick(), quick());
    let [a, _] = net.established();
    net.pass(secs(2), |_, _| Fate::Pass);
    let mut plaintext = Vec::new();
    for seed in 0..50 {
        let mut body = vec![1];
        body.extend_from_slice(secret(seed).public());
        body.extend_from_slice(crate::crypto::KemSecret::generate().public());
        put_frame(&mut plaintext, frame::REKEY1, &body);
    }
    let record = net.seal_raw(A, a, &plaintext);
    net.log.clear();
    net.deliver(A, record).expect("the record itself is good");
    net.collect();
    assert_eq!(net.log.len(), 1);
    assert!(net.log[0].1.len() < 1200, "one answer, to the first");
    assert_eq!(net.nodes[B].channels.stats().records_malformed, 49);
}

#[test]
fn rekey_please_is_not_obeyed_more_often_than_allowed() {
    let slow = RekeySettings {
        interval: secs(3600),
        bytes_max: 1 << 40,
        interval_min: secs(50),
    };
    let mut net = Net::with(
        ChannelSettings {
            rekey: slow,
            ..settings()
        },
        settings(),
    );
    let [a, b] = net.established();
    for second in 1..300 {
        let mut please = Vec::new();
        put_frame(&mut please, frame::REKEY_PLEASE, &[]);
        let record = net.seal_raw(B, b, &please);
        net.wire.push_back((B, record));
        net.pass(secs(second), |_, _| Fate::Pass);
    }
    assert_eq!(generation(&net, A, a), 5);
    assert!(net.is_quiet());
}

#[test]
fn a_responder_asks_when_the_initiator_is_late() {
    // The initiator would wait for a day.
    let never = RekeySettings {
        interval: secs(86_400),
        ..RekeySettings::default()
    };
    let mut net = Net::with(
        ChannelSettings {
            rekey: never,
            ..settings()
        },
        quick(),
    );
    let [a, b] = net.established();
    net.pass(secs(89), |_, _| Fate::Pass);
    assert_eq!(generation(&net, B, b), 0);
    net.pass(secs(91), |_, _| Fate::Pass);
    assert_eq!((generation(&net, A, a), generation(&net, B, b)), (1, 1));
}

/// Records of both generations under way at once, any loss and order: everything that arrives in time opens,
/// once, and the channel lives on.
#[test]
fn rekeying_survives_loss_and_reordering() {
    for seed in 0..40 {
        let mut net = Net::with(quick(), quick());
        let [a, b] = net.established();
        let mut dice = Seeded::new(1000 + seed);
        let loss = 5 + dice.u32() % 25;
        let mut sent = BTreeMap::new();
        let mut next = 0_u64;
        for step in 1..=2000_u64 {
            for (from, channel) in [(A, a), (B, b)] {
                if dice.u32().is_multiple_of(3) {
                    next += 1;
                    sent.insert(next, from);
                    net.say(from, channel, &next.to_be_bytes());
                }
            }
            let random = &mut dice;
            net.pass(Duration::from_millis(step * 100), |_, _| {
                match random.u32() % 100 {
                    roll if roll < loss => Fate::Drop,
                    roll if roll < loss + 30 => Fate::Hold,
                    _ => Fate::Pass,
                }
            });
            // What was held back comes later, in another order.
            while !net.held.is_empty() && dice.u32().is_multiple_of(2) {
                let index = usize::try_from(dice.u32()).expect("32 bits fit") % net.held.len();
                let late = net.held.swap_remove(index);
                net.wire.push_back(late);
            }
        }
        net.held.clear();
        net.pass(secs(201), |_, _| Fate::Pass);
        assert!(
            net.nodes.iter().all(|node| node.closed().is_empty()),
            "seed {seed}"
        );
        assert!(
            generation(&net, A, a) >= 2,
            "seed {seed}: {}",
            generation(&net, A, a)
        );
        assert_eq!(generation(&net, A, a), generation(&net, B, b), "seed {seed}");
        let mut seen = BTreeMap::new();
        for node in [A, B] {
            for body in net.nodes[node].bodies() {
                let number = u64::from_be_bytes(body.try_into().expect("eight bytes were sent"));
                assert_eq!(sent.get(&number), Some(&(1 - node)), "seed {seed}");
                assert_eq!(seen.insert(number, ()), None, "seed {seed}: {number} came twice");
            }
            for error in &net.nodes[node].errors {
                assert!(
                    matches!(
                        error,
                        ChannelError::Generation { .. } | ChannelError::TooOld { .. }
                    ),
                    "seed {seed}: {error:?}"
                );
            }
        }
        let share = seen.len() * 100 / sent.len();
        assert!(share >= 55, "seed {seed}: {share} % arrived with {loss} % loss");
    }
}

#[test]
fn sealing_allocates_nothing_once_the_buffer_is_large_enough() {
    let mut net = Net::new();
    let [a, _] = net.established();
    let mut out = Vec::with_capacity(1 << 16);
    let before = out.as_ptr();
    let now = net.now.instant;
    for _ in 0..1000 {
        out.clear();
        let start = net.nodes[A]
            .channels
            .begin(a, &mut out)
            .expect("the channel is established");
        put_frame(&mut out, 0x20, &[1; 500]);
        net.nodes[A]
            .channels
            .finish(now, a, &mut out, start)
            .expect("the record is short");
    }
    assert_eq!((out.as_ptr(), out.capacity()), (before, 1 << 16));
    assert!(net.nodes[A].channels.poll_output().is_none());
}

#[test]
fn messages_for_the_wrong_state_are_refused() {
    let mut net = Net::new();
    let connecting = net.connect(PqPolicy::Required);
    net.collect();
    let with_id = |kind: u8, len: usize| {
        let mut message = vec![kind; len];
        message[1..5].copy_from_slice(&connecting.to_wire().to_be_bytes());
        message
    };
    let refused = Err(ChannelError::Channel(connecting));
    assert_eq!(net.deliver(B, with_id(MESSAGE_3, 200)), refused);
    assert_eq!(net.deliver(B, with_id(0x40, 200)), refused);
    assert!(net.deliver(B, with_id(MESSAGE_2, 2000)).is_err());
    assert!(net.deliver(B, with_id(COOKIE, 53)).is_err());
    assert_eq!(
        net.deliver(B, Vec::new()),
        Err(WireError::Truncated {
            field: "message kind",
            need: 1,
            have: 0
        }
        .into())
    );
    assert_eq!(net.deliver(B, vec![0x77]), Err(ChannelError::Kind { got: 0x77 }));
    assert_eq!(
        net.nodes[A].channels.begin(connecting, &mut Vec::new()).err(),
        refused.err()
    );
    let now = net.now;
    assert_eq!(net.nodes[A].channels.ping(now, connecting), refused);
    net.run();
    assert_eq!(net.nodes[A].established(), [connecting], "none of that did harm");
}

#[test]
fn counters_come_back_to_zero() {
    let mut net = Net::new();
    for _ in 0..5 {
        net.established();
    }
    net.connect(PqPolicy::Off);
    net.pass(secs(60), |_, _| Fate::Pass);
    for channel in net.nodes[A].established() {
        net.nodes[A].channels.close(channel, CloseCode::DONE);
    }
    net.run();
    for node in &net.nodes {
        let stats = node.channels.stats();
        assert_eq!((stats.open, stats.connecting, stats.half_open), (0, 0, 0));
        assert_eq!(stats.established, 5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_handled_without_harm(mut messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..40)) {
        let mut net = Net::new();
        let [a, b] = net.established();
        let half = net.connect(PqPolicy::Required);
        net.collect();
        let held = net.wire.split_off(0);
        for (index, message) in messages.iter_mut().enumerate() {
            // Most kinds and channels exist.
            let kind = [MESSAGE_1, MESSAGE_2, MESSAGE_3, COOKIE, 0x40, 0x44, 0x41, 0x42][index % 8];
            let id = [a, b, half][index % 3].to_wire().to_be_bytes();
            for (to, from) in message.iter_mut().zip([kind].into_iter().chain(id)) {
                *to = from;
            }
            for from in [A, B] {
                prop_assert!(net.deliver(from, message.clone()).is_err());
            }
        }
        prop_assert!(net.nodes.iter_mut().all(|node| node.channels.poll_output().is_none()));
        net.wire = held;
        net.say(A, a, b"up");
        net.run();
        prop_assert_eq!(net.nodes[B].bodies(), vec![b"up".to_vec()]);
        prop_assert_eq!(net.nodes[A].established(), vec![a, half]);
    }

    /// Each message of a handshake changed in one place, while the real one follows.
    #[test]
    fn a_changed_message_of_a_handshake_does_no_harm(at in any::<prop::sample::Index>(), flip in 1..=u8::MAX, which in 0..3_u8) {
        let mut net = Net::new();
        let a = net.connect(PqPolicy::Required);
        let kind = [MESSAGE_1, MESSAGE_2, MESSAGE_3][usize::from(which)];
        net.collect();
        while let Some((from, bytes)) = net.wire.pop_front() {
            if kind_is(&bytes, kind) {
                let mut changed = bytes.clone();
                changed[at.index(bytes.len())] ^= flip;
                prop_assert!(net.deliver(from, changed).is_err());
            }
            let _ = net.deliver(from, bytes);
            net.collect();
        }
        prop_assert_eq!(net.nodes[A].established(), vec![a]);
        prop_assert_eq!(net.nodes[B].established().len(), 1);
    }
}
