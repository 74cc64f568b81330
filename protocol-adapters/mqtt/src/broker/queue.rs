//! The messages above QoS 0 on their way to one session.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::message::Message;
use crate::{packet::PacketIdentifier, packet::Qos, property::SubscriptionIdentifier};

/// A message that waits for a session.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) message: Arc<Message>,
    /// Its number in the store; 0 if it is not there.
    pub(super) stored_as: u64,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) identifiers: Vec<SubscriptionIdentifier>,
    /// Its place among the session's messages.
    pub(super) position: u64,
    /// The batch of the store that holds it; 0 if none does.
    pub(super) batch: u64,
}

/// A message that has a packet identifier.
///
/// ```text
///  QoS 1   Published ──PUBACK──▶ gone
///  QoS 2   Published ──PUBREC──▶ Released ──PUBCOMP──▶ gone
/// ```
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) queued: Queued,
    pub(super) packet_id: PacketIdentifier,
    pub(super) phase: Phase,
    /// Whether it was sent on this connection.
    pub(super) sent: bool,
}

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client is to acknowledge it.
    Published,
    /// The client has it and is to forget its identifier.
    Released,
}

/// Messages in flight, and behind them those that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) waiting: VecDeque<Queued>,
    /// Commands that are to be acknowledged on this connection: their tags.
    pub(super) commands: BTreeMap<PacketIdentifier, u64>,
    bytes: usize,
    in_flight_bytes: usize,
    last_packet_id: u16,
    last_position: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.in_flight.len() + self.waiting.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    pub(super) const fn next_position(&mut self) -> u64 {
        self.last_position += 1;
        self.last_position
    }

    /// Appends a message behind all others.
    pub(super) fn push(&mut self, queued: Queued) {
        self.bytes += queued.message.bytes();
        self.last_position = self.last_position.max(queued.position);
        self.waiting.push_back(queued);
    }

    /// Takes the first waiting message out, to be dropped or sent.
    pub(super) fn pop_waiting(&mut self) -> Option<Queued> {
        let queued = self.waiting.pop_front()?;
        self.bytes -= queued.message.bytes();
        Some(queued)
    }

    /// Gives a message a packet identifier; returns it.
    pub(super) fn send(&mut self, queued: Queued) -> PacketIdentifier {
        let packet_id = self.free_packet_id();
        self.restore_in_flight(queued, packet_id, Phase::Published, true);
        packet_id
    }

    /// Gives a command a packet identifier; returns it.
    pub(super) fn send_command(&mut self, tag: u64) -> PacketIdentifier {
        let packet_id = self.free_packet_id();
        self.commands.insert(packet_id, tag);
        packet_id
    }

    /// Returns how many messages and commands the client is to acknowledge.
    pub(super) fn unacknowledged(&self) -> usize {
        self.in_flight.len() + self.commands.len()
    }

    /// Puts a message in flight that has its packet identifier already.
    pub(super) fn restore_in_flight(
        &mut self,
        queued: Queued,
        packet_id: PacketIdentifier,
        phase: Phase,
        sent: bool,
    ) {
        let bytes = queued.message.bytes();
        self.bytes += bytes;
        self.in_flight_bytes += bytes;
        self.last_position = self.last_position.max(queued.position);
        self.in_flight.push_back(InFlight {
            queued,
            packet_id,
            phase,
            sent,
        });
    }

    /// Returns the message with this packet identifier.
    pub(super) fn find(&mut self, packet_id: PacketIdentifier) -> Option<&mut InFlight> {
        self.in_flight
            .iter_mut()
            .find(|message| message.packet_id == packet_id)
    }

    /// Removes the message with this packet identifier.
    pub(super) fn complete(&mut self, packet_id: PacketIdentifier) -> Option<InFlight> {
        let index = self
            .in_flight
            .iter()
            .position(|message| message.packet_id == packet_id)?;
        let message = self.in_flight.remove(index)?;
        let bytes = message.queued.message.bytes();
        self.bytes -= bytes;
        self.in_flight_bytes -= bytes;
        if self.len() == 0 {
            // A burst's memory is worth nothing to a session that may be idle for days.
            self.in_flight.shrink_to(KEPT);
            self.waiting.shrink_to(KEPT);
        }
        Some(message)
    }

    /// Returns the next packet identifier that no message has. There are never so many in flight that none is free.
    fn free_packet_id(&mut self) -> PacketIdentifier {
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            if let Some(packet_id) = PacketIdentifier::new(self.last_packet_id)
                && self.find(packet_id).is_none()
                && !self.commands.contains_key(&packet_id)
            {
                return packet_id;
            }
        }
    }
}

/// Places kept for the next burst.
const KEPT: usize = 4;
