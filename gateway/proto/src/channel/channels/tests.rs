//! Two nodes, what is between them, and a clock.

mod credentials;
mod handshakes;
mod identities;
mod proofs;
mod records;
mod rekeys;

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::{super::handshake::tests::local, *};
use crate::{
    channel::{
        NumberLen, PLAINTEXT_LEN_MAX, PqPolicy, RekeySettings, Role, Suite, SuiteOrder,
        message::{self, FORM_CACHED},
    },
    crypto::{CryptoError, X25519Secret},
    identity::{
        KeyAlgorithm,
        tests::{Seeded, TestIdentity},
    },
    time::{ClockQuality, WallTime},
    wire::WireError,
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
            Output::Transmit { .. }
            | Output::Presented { .. }
            | Output::Sign { .. }
            | Output::Proven { .. }
            | Output::Pong { .. }
            | Output::Closed { .. } => None,
        });
        ids.collect()
    }

    fn closed(&self) -> Vec<CloseReason> {
        let reasons = self.outputs.iter().filter_map(|output| match output {
            Output::Closed { reason, .. } => Some(*reason),
            Output::Transmit { .. }
            | Output::Presented { .. }
            | Output::Sign { .. }
            | Output::Proven { .. }
            | Output::Pong { .. }
            | Output::Established { .. } => None,
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

fn secret(seed: u64) -> X25519Secret {
    X25519Secret::generate(&mut Seeded::new(seed))
}
