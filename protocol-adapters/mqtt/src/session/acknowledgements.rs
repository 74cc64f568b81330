//! PUBACKs and PUBRECs that wait for their commit.

use std::collections::VecDeque;

use super::connect::{send_explained, send_packet};
use crate::{
    frame::PacketType,
    packet::{Packet, PacketIdentifier, Qos, acknowledgement::Acknowledgement},
    reason::ReasonCode,
    version::ProtocolVersion,
};

/// PUBACKs and PUBRECs in the order of their PUBLISHes, which is the order they must be sent in (`[MQTT-4.6.0-2]`,
/// `[MQTT-4.6.0-3]`).
///
/// A refusal needs no commit but waits for those before it. Invariant: the first in the queue waits for a commit.
#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    queue: VecDeque<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The sequence whose commit is awaited; 0 for a refusal.
    sequence: u64,
    packet_id: PacketIdentifier,
    reason: ReasonCode,
    /// PUBREC at QoS 2, else PUBACK.
    qos: Qos,
}

impl Acknowledgements {
    /// Returns how many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns the sequence that the next PUBACK waits for.
    pub(super) fn awaited(&self) -> Option<u64> {
        self.queue.front().map(|waiting| waiting.sequence)
    }

    /// Returns whether a PUBACK with this packet identifier waits for the commit of its reading.
    pub(super) fn is_waiting(&self, packet_id: PacketIdentifier) -> bool {
        self.queue
            .iter()
            .any(|waiting| waiting.packet_id == packet_id && waiting.sequence != 0)
    }

    /// Queues the answer to a message that was taken.
    pub(super) fn await_commit(&mut self, sequence: u64, packet_id: PacketIdentifier, qos: Qos) {
        self.queue.push_back(Waiting {
            sequence,
            packet_id,
            reason: ReasonCode::Success,
            qos,
        });
    }

    /// Queues an answer that needs no commit, or writes it if none waits before it: a refusal (MQTT 5.0 only), or the repetition
    /// of a PUBREC. Returns how many messages of the client are done with.
    pub(super) fn answer(
        &mut self,
        packet_id: PacketIdentifier,
        reason: ReasonCode,
        qos: Qos,
        answers: &mut PubAcks<'_>,
    ) -> u16 {
        let waiting = Waiting {
            sequence: 0,
            packet_id,
            reason,
            qos,
        };
        if self.queue.is_empty() {
            answers.write(&waiting)
        } else {
            self.queue.push_back(waiting);
            0
        }
    }

    /// Writes every answer whose message is on stable storage up to the sequence `up_to`. Returns how many messages of the
    /// client are done with.
    pub(super) fn commit(&mut self, up_to: u64, answers: &mut PubAcks<'_>) -> u16 {
        let mut done = 0;
        while let Some(waiting) = self.queue.pop_front_if(|waiting| waiting.sequence <= up_to) {
            done += answers.write(&waiting);
        }
        done
    }

    /// Gives memory back that a burst took.
    pub(super) fn shrink(&mut self) {
        self.queue.shrink_to(KEPT);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Waiting>()
    }
}

/// Places kept for the next burst.
const KEPT: usize = 8;

/// Writes PUBACKs and PUBRECs into the output of a connection.
pub(super) struct PubAcks<'a> {
    pub(super) send: &'a mut Vec<u8>,
    /// Bytes of the largest packet the client takes; larger ones are left out (`[MQTT-3.1.2-25]`).
    pub(super) maximum_packet_size: u32,
    /// Whether the client wants failures explained (`[MQTT-3.1.2-29]`).
    pub(super) explains: bool,
}

impl PubAcks<'_> {
    /// Returns 1 if the message is done with: a PUBREC that does not refuse it leaves it open.
    fn write(&mut self, waiting: &Waiting) -> u16 {
        let Waiting {
            packet_id,
            reason,
            qos,
            ..
        } = *waiting;
        let [high, low] = packet_id.get().to_be_bytes();
        let is_open = qos == Qos::ExactlyOnce && !reason.is_failure();
        // Only MQTT 5.0 gets as far as here with a failure.
        if reason.is_failure() {
            let text = reason.text().filter(|_| self.explains);
            let maximum_packet_size = self.maximum_packet_size;
            send_explained(text, self.send, |properties, send| {
                let answer = Acknowledgement {
                    packet_id,
                    reason,
                    properties,
                };
                let packet = match qos {
                    Qos::ExactlyOnce => Packet::PubRec(answer),
                    Qos::AtMostOnce | Qos::AtLeastOnce => Packet::PubAck(answer),
                };
                send_packet(&packet, ProtocolVersion::V5, maximum_packet_size, send);
            });
            return u16::from(!is_open);
        }
        let first = match qos {
            Qos::ExactlyOnce => PacketType::PubRec,
            Qos::AtMostOnce | Qos::AtLeastOnce => PacketType::PubAck,
        }
        .first_byte();
        // A reason code of 0 is left out: the same four bytes serve both versions (MQTT 5.0 §3.4.2.1).
        let plain = [first, 2, high, low];
        let with_reason = [first, 3, high, low, reason.code()];
        let packet = if reason == ReasonCode::Success {
            plain.as_slice()
        } else {
            &with_reason
        };
        if packet.len() as u64 <= u64::from(self.maximum_packet_size) {
            self.send.extend_from_slice(packet);
        }
        u16::from(!is_open)
    }
}
