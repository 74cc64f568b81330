//! All channels of a node (PROTOCOL.md §4–6): any messages, in any order, in any state; and any frames, of a peer
//! that is authenticated.

use fieldgate_proto::channel::{
    ChannelId, ChannelSettings, Channels, Output, PRESENTATION_LEN_MAX, PathId, PqPolicy,
};
use fieldgate_proto::crypto::{MacKey, label16, sha256};

use crate::world::{Repeatable, members, now, pieces};

/// Lets two nodes shake hands, and a third party put a message of the input in front of each that they exchange.
/// Once they have a channel, they say the same in there.
pub fn run(data: &[u8]) {
    let [one, two] = members();
    let mut entropy = Repeatable::new(3);
    let settings = ChannelSettings {
        pq: PqPolicy::Off,
        ..ChannelSettings::default()
    };
    let mut nodes = [
        Channels::new(settings, one.local()),
        Channels::new(settings, two.local()),
    ];
    for (node, presentation) in nodes.iter_mut().zip(PRESENTED) {
        let set = node.set_presentation(Some(presentation.into()));
        set.expect("it is short");
    }
    let live_proof = data.len().is_multiple_of(2);
    let mut channels: [Option<ChannelId>; 2] = [None; 2];
    let peer = two.history.identifier();
    if nodes[0]
        .connect(now(0), &mut entropy, peer, PATH, PqPolicy::Off)
        .is_err()
    {
        return;
    }
    let mut established = 0;
    let mut to = 1;
    for (turn, message) in pieces(data).take(MESSAGES_MAX).enumerate() {
        let now = now(turn as u64 * 100);
        let mut forged = message.to_vec();
        if message.first() == Some(&MESSAGE_1) {
            // With the right MAC the message gets past the filter that stops scanners.
            let key = sha256(&[&label16("FG1 mac1 v1"), nodes[to].local().identifier().as_bytes()]);
            let mac = MacKey::new(&key).mac16(&[&forged]);
            forged.extend_from_slice(&mac);
        }
        let _ = nodes[to].handle_message(now, &mut entropy, PATH, &[0], &mut forged);
        let from = 1 - to;
        while let Some(output) = nodes[from].poll_output() {
            match output {
                Output::Transmit { mut bytes, .. } => {
                    let _ = nodes[to].handle_message(now, &mut entropy, PATH, &[0], &mut bytes);
                }
                Output::Established {
                    channel,
                    peer,
                    presentation,
                    ..
                } => {
                    assert_eq!(
                        peer,
                        members()[to].history.identifier(),
                        "somebody else was authenticated"
                    );
                    let want = if from == 1 { PRESENTED[0] } else { b"" };
                    assert_eq!(presentation, want, "something else was presented");
                    established += 1;
                    channels[from] = Some(channel);
                    if live_proof {
                        // The other may have closed it already; that is the next output then.
                        let _ = nodes[from].demand_proof(now, channel);
                    }
                }
                Output::Presented { presentation, .. } => {
                    assert!(presentation.len() <= PRESENTATION_LEN_MAX);
                }
                Output::Sign { channel, message } => {
                    let signature = if turn.is_multiple_of(2) {
                        Ok([9; 64])
                    } else {
                        Err(())
                    };
                    assert_eq!(message.len(), 16 + 1 + 32);
                    let asked = nodes[from].handle_signature(now, channel, signature);
                    asked.expect("it was asked for");
                }
                Output::Proven { .. } => panic!("proven, though no key has signed"),
                Output::Closed { channel, .. } => {
                    if channels[from] == Some(channel) {
                        channels[from] = None;
                    }
                }
                Output::Pong { .. } => {}
            }
        }
        if let Some(channel) = channels[from] {
            let mut record = Vec::new();
            let start = nodes[from]
                .begin(channel, &mut record)
                .expect("it was not closed");
            record.extend_from_slice(message);
            nodes[from]
                .finish(now.instant, channel, &mut record, start)
                .expect("a piece is short");
            let _ = nodes[to].handle_message(now, &mut entropy, PATH, &[0], &mut record);
        }
        nodes[to].handle_timeout(now, &mut entropy);
        to = from;
    }
    assert!(established <= 2);
}

const PRESENTED: [&[u8]; 2] = [b"the initiator's", b"the responder's"];
const PATH: PathId = PathId(1);
const MESSAGE_1: u8 = 0x11;
const MESSAGES_MAX: usize = 32;
