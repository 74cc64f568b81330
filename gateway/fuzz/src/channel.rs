//! All channels of a node (PROTOCOL.md §4–6): any messages, in any order, in any state.

use fieldgate_proto::channel::{ChannelSettings, Channels, Output, PathId, PqPolicy};
use fieldgate_proto::crypto::{MacKey, label16, sha256};

use crate::world::{Repeatable, members, now, pieces};

/// Lets two nodes shake hands, and a third party put a message of the input in front of each that they exchange.
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
                Output::Established { peer, .. } => {
                    assert_eq!(
                        peer,
                        members()[to].history.identifier(),
                        "somebody else was authenticated"
                    );
                    established += 1;
                }
                Output::Presented { .. }
                | Output::Sign { .. }
                | Output::Proven { .. }
                | Output::Pong { .. }
                | Output::Closed { .. } => {}
            }
        }
        nodes[to].handle_timeout(now, &mut entropy);
        to = from;
    }
    assert!(established <= 2);
}

const PATH: PathId = PathId(1);
const MESSAGE_1: u8 = 0x11;
const MESSAGES_MAX: usize = 32;
