//! Handshakes: what accepting one costs the responder, and what both sides cost together.

use std::collections::VecDeque;

use fieldgate_proto::channel::{
    ChannelId, ChannelSettings, Channels, CloseCode, Output, PathId, PqPolicy, Received, put_frame,
};
use fieldgate_proto::identity::Identifier;

use super::Case;
use super::credential::{Fleet, Novelty};
use super::identity::{System, local, now, refused};
use crate::clock;
use crate::failure::Failure;

/// Makes the cases: suites, whether the initiator's attestation is verified already, and whether both present
/// credentials.
pub(super) fn cases() -> Result<Vec<Case>, Failure> {
    let mut cases = plain_cases()?;
    for (name, novelty) in [
        ("accept, hybrid, credential known", Novelty::Known),
        ("accept, hybrid, credential new", Novelty::New),
    ] {
        let mut crowd = Crowd::new(PqPolicy::Required, Peers::Known)?;
        crowd.enrol(novelty)?;
        cases.push(case(name, crowd, Side::Responder));
    }
    Ok(cases)
}

fn case(name: &'static str, mut crowd: Crowd, side: Side) -> Case {
    let work = move |calls| (0..calls).try_fold(0, |spent, _| Ok(spent + crowd.handshake(side)?));
    Case {
        name,
        bytes: 0,
        beside: None,
        work: Box::new(work),
    }
}

fn plain_cases() -> Result<Vec<Case>, Failure> {
    let kinds = [
        (
            "accept, hybrid, peer known",
            PqPolicy::Required,
            Peers::Known,
            Side::Responder,
        ),
        (
            "accept, hybrid, peer new",
            PqPolicy::Required,
            Peers::New,
            Side::Responder,
        ),
        (
            "accept, classical, peer known",
            PqPolicy::Off,
            Peers::Known,
            Side::Responder,
        ),
        (
            "accept, classical, peer new",
            PqPolicy::Off,
            Peers::New,
            Side::Responder,
        ),
        (
            "both sides, hybrid, peer known",
            PqPolicy::Required,
            Peers::Known,
            Side::Both,
        ),
        (
            "both sides, classical, peer known",
            PqPolicy::Off,
            Peers::Known,
            Side::Both,
        ),
    ];
    kinds
        .into_iter()
        .map(|(name, pq, peers, side)| Ok(case(name, Crowd::new(pq, peers)?, side)))
        .collect()
}

/// Whether the responder has verified the initiator before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peers {
    Known,
    New,
}

/// Whose time counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Responder,
    Both,
}

/// A responder and the initiators that connect to it in turn.
struct Crowd {
    entropy: System,
    pq: PqPolicy,
    responder: Node,
    initiators: VecDeque<Node>,
    fleet: Option<Fleet>,
}

impl Crowd {
    fn new(pq: PqPolicy, peers: Peers) -> Result<Self, Failure> {
        let mut entropy = System::new();
        // A responder that remembers one peer has forgotten each initiator of two when it comes back.
        let (count, remembered) = match peers {
            Peers::Known => (1, 16),
            Peers::New => (2, 1),
        };
        let settings = ChannelSettings {
            pq,
            peers_remembered_max: remembered,
            ..ChannelSettings::default()
        };
        let responder = Node::new(settings, &mut entropy)?;
        let settings = ChannelSettings {
            pq,
            ..ChannelSettings::default()
        };
        let initiators = (0..count)
            .map(|_| Node::new(settings, &mut entropy))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            entropy,
            pq,
            responder,
            initiators,
            fleet: None,
        })
    }

    /// Gives everybody a credential, which the others verify.
    fn enrol(&mut self, novelty: Novelty) -> Result<(), Failure> {
        let mut fleet = Fleet::new(&mut self.entropy, novelty)?;
        for node in self.initiators.iter_mut().chain([&mut self.responder]) {
            node.present(fleet.credential(node.identifier())?)?;
        }
        self.fleet = Some(fleet);
        Ok(())
    }

    /// Does one handshake to its end, closes the channel and returns the nanoseconds of the side that counts.
    fn handshake(&mut self, side: Side) -> Result<u64, Failure> {
        self.initiators.rotate_left(1);
        let initiator = self
            .initiators
            .front_mut()
            .ok_or_else(|| refused("a handshake", &"there is no initiator"))?;
        if let Some(fleet) = self.fleet.as_mut().filter(|fleet| fleet.renews()) {
            initiator.present(fleet.credential(initiator.identifier())?)?;
        }
        let mut clocked = Clocked::default();
        let start = clock::now();
        let ends = connect(
            initiator,
            &mut self.responder,
            self.pq,
            &mut self.entropy,
            (&mut clocked, self.fleet.as_mut()),
        )?;
        let both = clock::now() - start;
        initiator.close(ends.initiator);
        self.responder.close(ends.responder);
        Ok(match side {
            Side::Responder => clocked.responder,
            Side::Both => both,
        })
    }
}

/// Time spent inside the responder, in nanoseconds.
#[derive(Default)]
struct Clocked {
    responder: u64,
}

/// What one end is told about a new channel.
struct Established {
    channel: ChannelId,
    peer: Identifier,
    presentation: Vec<u8>,
}

/// One channel as its two ends call it.
struct Ends {
    initiator: ChannelId,
    responder: ChannelId,
}

/// Carries messages between the two until both say that the channel is established and nothing is on its way.
fn connect(
    initiator: &mut Node,
    responder: &mut Node,
    pq: PqPolicy,
    entropy: &mut System,
    (clocked, mut fleet): (&mut Clocked, Option<&mut Fleet>),
) -> Result<Ends, Failure> {
    let peer = responder.channels.local().identifier();
    initiator
        .channels
        .connect(now(), entropy, peer, PATH, pq)
        .map_err(|error| refused("beginning a handshake", &error))?;
    let (mut ours, mut theirs): (Option<Established>, Option<Established>) = (None, None);
    // Three messages, the first record and its acknowledgement; more would be repetitions.
    for _ in 0..ROUNDS_MAX {
        let messages = initiator.drain(&mut ours);
        if let (Some(ours), Some(theirs), true) = (&ours, &theirs, messages.is_empty()) {
            return Ok(Ends {
                initiator: ours.channel,
                responder: theirs.channel,
            });
        }
        for mut message in messages {
            let start = clock::now();
            responder.handle(&mut message, entropy)?;
            clocked.responder += clock::now() - start;
        }
        let known = theirs.is_some();
        for mut message in responder.drain(&mut theirs) {
            initiator.handle(&mut message, entropy)?;
        }
        if let (Some(fleet), Some(theirs), false) = (fleet.as_deref_mut(), &theirs, known) {
            let start = clock::now();
            fleet.verify(theirs.peer, &theirs.presentation)?;
            clocked.responder += clock::now() - start;
        }
    }
    Err(refused("a handshake", &"it did not come to an end"))
}

/// The channels of one node.
struct Node {
    channels: Channels,
}

impl Node {
    fn new(settings: ChannelSettings, entropy: &mut System) -> Result<Self, Failure> {
        Ok(Self {
            channels: Channels::new(settings, local(entropy)?),
        })
    }

    fn identifier(&self) -> Identifier {
        self.channels.local().identifier()
    }

    fn present(&mut self, presentation: Vec<u8>) -> Result<(), Failure> {
        self.channels
            .set_presentation(Some(presentation.into()))
            .map_err(|error| refused("presenting a credential", &error))
    }

    fn handle(&mut self, message: &mut [u8], entropy: &mut System) -> Result<(), Failure> {
        let received = self
            .channels
            .handle_message(now(), entropy, PATH, RETURN_ROUTE, message);
        received
            .map(drop)
            .map_err(|error| refused("handling a message", &error))
    }

    /// Takes the messages to send, and the channel if it is established now.
    fn drain(&mut self, established: &mut Option<Established>) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Some(output) = self.channels.poll_output() {
            match output {
                Output::Transmit { bytes, .. } => messages.push(bytes),
                Output::Established {
                    channel,
                    peer,
                    presentation,
                    ..
                } => {
                    *established = Some(Established {
                        channel,
                        peer,
                        presentation,
                    });
                }
                Output::Presented { .. }
                | Output::Sign { .. }
                | Output::Proven { .. }
                | Output::Pong { .. }
                | Output::Closed { .. } => {}
            }
        }
        messages
    }

    fn close(&mut self, channel: ChannelId) {
        self.channels.close(channel, CloseCode::DONE);
        self.drain(&mut None);
    }
}

/// Two nodes with an established channel.
pub(super) struct Pair {
    entropy: System,
    initiator: Node,
    responder: Node,
    channel: ChannelId,
}

impl Pair {
    /// Makes two identities and lets them shake hands.
    pub(super) fn established() -> Result<Self, Failure> {
        let mut entropy = System::new();
        let mut initiator = Node::new(ChannelSettings::default(), &mut entropy)?;
        let mut responder = Node::new(ChannelSettings::default(), &mut entropy)?;
        let ends = connect(
            &mut initiator,
            &mut responder,
            PqPolicy::Required,
            &mut entropy,
            (&mut Clocked::default(), None),
        )?;
        Ok(Self {
            entropy,
            initiator,
            responder,
            channel: ends.initiator,
        })
    }

    /// Sends one frame in one record from the initiator to the responder.
    pub(super) fn exchange(&mut self, body: &[u8], record: &mut Vec<u8>) -> Result<(), Failure> {
        let now = now();
        record.clear();
        let channels = &mut self.initiator.channels;
        let start = channels
            .begin(self.channel, record)
            .map_err(|error| refused("beginning a record", &error))?;
        put_frame(record, FRAME_KIND, body);
        channels
            .finish(now.instant, self.channel, record, start)
            .map_err(|error| refused("sealing a record", &error))?;
        let received =
            self.responder
                .channels
                .handle_message(now, &mut self.entropy, PATH, RETURN_ROUTE, record);
        match received.map_err(|error| refused("opening a record", &error))? {
            Received::Record { plaintext, .. } if plaintext.len() >= body.len() => Ok(()),
            Received::Record { .. } => Err(refused("opening a record", &"the plaintext is too short")),
            Received::Handshake => Err(refused("opening a record", &"it was taken for a handshake")),
        }
    }
}

const PATH: PathId = PathId(1);
/// An empty route: the nodes are neighbours.
const RETURN_ROUTE: &[u8] = &[0];
/// Of the range of delivery, so that channels hand it on.
const FRAME_KIND: u8 = 0x22;
const ROUNDS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::{Crowd, Novelty, Pair, Peers, PqPolicy, Side, cases};

    #[test]
    fn every_case_does_its_work_again_and_again() {
        for mut case in cases().unwrap() {
            case.run(3)
                .unwrap_or_else(|failure| panic!("{}: {failure}", case.name));
        }
    }

    #[test]
    fn a_new_peer_is_verified_each_time_and_a_known_one_once() {
        for (peers, verified) in [(Peers::Known, 1), (Peers::New, 6)] {
            let mut crowd = Crowd::new(PqPolicy::Off, peers).unwrap();
            for _ in 0..6 {
                crowd.handshake(Side::Both).unwrap();
            }
            assert_eq!(crowd.responder.channels.peer_stats().misses, verified);
        }
    }

    #[test]
    fn a_new_credential_is_verified_each_time_and_a_known_one_once() {
        for (novelty, verified) in [(Novelty::Known, 1), (Novelty::New, 6)] {
            let mut crowd = Crowd::new(PqPolicy::Required, Peers::Known).unwrap();
            crowd.enrol(novelty).unwrap();
            for _ in 0..6 {
                crowd.handshake(Side::Both).unwrap();
            }
            let stats = crowd.fleet.unwrap().stats();
            assert_eq!((stats.misses, stats.hits), (verified, 6 - verified));
            let peers = crowd.responder.channels.peer_stats();
            assert_eq!(peers.misses, 1, "the attestation is known");
            let presented = crowd.initiators[0].channels.stats().presentations;
            assert_eq!(presented, 6, "the responder presents one too");
        }
    }

    #[test]
    fn a_pair_exchanges_records() {
        let mut pair = Pair::established().unwrap();
        let mut record = Vec::new();
        for size in [0, 100, 60_000] {
            pair.exchange(&vec![1; size], &mut record).unwrap();
        }
        assert!(pair.responder.channels.stats().records_opened >= 3);
    }
}
