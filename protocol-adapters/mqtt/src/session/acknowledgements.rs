//! PUBACKs that wait for their commit.

use std::collections::VecDeque;

use crate::{frame::PacketType, packet::PacketIdentifier, reason::ReasonCode};

/// PUBACKs in the order of their PUBLISHes, which is the order they must be sent in (`[MQTT-4.6.0-2]`).
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
            .any(|waiting| waiting.packet_id == packet_id && waiting.reason == ReasonCode::Success)
    }

    /// Queues the PUBACK of a reading.
    pub(super) fn await_commit(&mut self, sequence: u64, packet_id: PacketIdentifier) {
        self.queue.push_back(Waiting {
            sequence,
            packet_id,
            reason: ReasonCode::Success,
        });
    }

    /// Queues a refusal (MQTT 5.0 only), or writes it if none waits before it.
    pub(super) fn refuse(
        &mut self,
        packet_id: PacketIdentifier,
        reason: ReasonCode,
        answers: &mut PubAcks<'_>,
    ) {
        if self.queue.is_empty() {
            answers.write(packet_id, reason);
        } else {
            self.queue.push_back(Waiting {
                sequence: 0,
                packet_id,
                reason,
            });
        }
    }

    /// Writes every PUBACK whose reading is on stable storage up to the sequence `up_to`.
    pub(super) fn commit(&mut self, up_to: u64, answers: &mut PubAcks<'_>) {
        while let Some(waiting) = self.queue.front() {
            if waiting.sequence > up_to {
                return;
            }
            answers.write(waiting.packet_id, waiting.reason);
            self.queue.pop_front();
        }
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

/// Writes PUBACKs into the output of a connection.
pub(super) struct PubAcks<'a> {
    pub(super) send: &'a mut Vec<u8>,
    /// Bytes of the largest packet the client takes; larger ones are left out (`[MQTT-3.1.2-25]`).
    pub(super) maximum_packet_size: u32,
}

impl PubAcks<'_> {
    fn write(&mut self, packet_id: PacketIdentifier, reason: ReasonCode) {
        let [high, low] = packet_id.get().to_be_bytes();
        let first = PacketType::PubAck.first_byte();
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
    }
}
