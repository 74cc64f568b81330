//! Commands: messages of the gateway itself to one device, which the broker neither keeps nor sends again.
//!
//! Whoever gave the command decides what follows when a connection ends before its PUBACK: one that may be handed over once only
//! must not be sent again, and any other is given anew, with the time that is left then. So a command is in flight like a
//! message at QoS 1, and gone with its connection. (MQTT 5.0 §4.4 would have the server send it again in a session that is
//! resumed; nothing of it is left in the session here.)

use std::sync::Arc;

use fieldgate_adapters::topic::filter_matches;
use fieldgate_proto::time::Now;

use super::{
    Broker, ConnectionKey, Output, SessionIndex, message::Message, session::SessionKey, subscriptions::Filter,
};
use crate::{
    exchange::{Answer, Delivery, SubscriptionOptions},
    packet::{PacketIdentifier, Qos},
    reason::ReasonCode,
};

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// The device has acknowledged it.
    Acknowledged {
        /// Whether it speaks MQTT 5.0, and so was told where to answer.
        can_answer: bool,
    },
    /// It has been sent at QoS 0, since the device subscribed so: nothing more will be heard of it.
    Sent,
    /// The device has it and refuses it.
    Refused(ReasonCode),
    /// Nothing was sent: the device is not there, does not listen, has too much under way, or takes no packet of this size.
    NotSent,
    /// It was sent, and the connection ended before it was acknowledged.
    Interrupted,
}

impl Broker {
    /// Returns which device a connection belongs to.
    #[must_use]
    pub fn device_of(&self, connection: ConnectionKey) -> Option<&str> {
        let index = self.by_connection.get(&connection)?;
        Some(&self.session(*index)?.key.device)
    }

    /// Returns whether a device is connected and listens to something.
    #[must_use]
    pub fn is_reachable(&self, device: &str) -> bool {
        self.sessions_of(device).any(|index| {
            let session = self.session(index);
            session.is_some_and(|session| {
                session.open_connection().is_some() && !session.subscriptions.is_empty()
            })
        })
    }

    /// Sends a command to the device that `message.device` names, if one of its clients listens to the topic.
    /// [`Broker::poll_command`] tells with `tag` what became of it.
    pub fn command(&mut self, now: Now, tag: u64, message: Message) {
        let Some((index, to, options)) = self.listener(&message) else {
            self.command_outcomes.push_back((tag, CommandOutcome::NotSent));
            return;
        };
        let Some(session) = self.session_mut(index) else {
            return;
        };
        let qos = options.qos.min(Qos::AtLeastOnce);
        let packet_id = if qos == Qos::AtMostOnce {
            self.command_outcomes.push_back((tag, CommandOutcome::Sent));
            None
        } else {
            Some(session.queue.send_command(tag))
        };
        self.counters.delivered += 1;
        let delivery = Delivery {
            qos,
            retain: false,
            dup: false,
            packet_id,
            identifiers: options.identifier.into_iter().collect(),
            expiry_secs: message.expiry_secs(now.instant),
            message: Arc::new(message),
        };
        let answer = Answer::Deliver(Box::new(delivery));
        self.outputs.push_back(Output::Answer { to, answer });
    }

    /// Returns what became of the next command.
    pub fn poll_command(&mut self) -> Option<(u64, CommandOutcome)> {
        self.command_outcomes.pop_front()
    }

    fn sessions_of(&self, device: &str) -> impl Iterator<Item = SessionIndex> {
        let first = SessionKey {
            device: device.into(),
            client_id: Box::default(),
        };
        self.by_key
            .range(first.clone()..)
            .take_while(move |(key, _)| key.device == first.device)
            .map(|(_, index)| *index)
    }

    /// Finds a client of the device that listens to the message's topic and has room for it; one that acknowledges before one
    /// that does not.
    fn listener(&self, message: &Message) -> Option<(SessionIndex, ConnectionKey, SubscriptionOptions)> {
        let listeners = self.sessions_of(&message.device).filter_map(|index| {
            let session = self.session(index)?;
            let to = session.open_connection()?;
            if !session.has_room() {
                return None;
            }
            let matching = session.subscriptions.iter().filter(|(filter, _)| {
                Filter::parse(filter)
                    .is_some_and(|filter| filter_matches(filter.topic_filter, &message.topic))
            });
            let (_, options) = matching.max_by_key(|(_, options)| options.qos)?;
            Some((index, to, *options))
        });
        listeners.max_by_key(|(_, _, options)| options.qos.min(Qos::AtLeastOnce))
    }

    /// Takes an acknowledgement, if it is of a command.
    pub(super) fn acknowledge_command(
        &mut self,
        index: SessionIndex,
        packet_id: PacketIdentifier,
        reason: ReasonCode,
    ) -> bool {
        let Some(session) = self.session_mut(index) else {
            return false;
        };
        let Some(tag) = session.queue.commands.remove(&packet_id) else {
            return false;
        };
        let outcome = if reason == ReasonCode::PacketTooLarge {
            CommandOutcome::NotSent
        } else if reason.is_failure() {
            CommandOutcome::Refused(reason)
        } else {
            CommandOutcome::Acknowledged {
                can_answer: session.speaks_v5,
            }
        };
        self.command_outcomes.push_back((tag, outcome));
        true
    }

    /// Gives up the commands of a session whose connection has ended.
    pub(super) fn interrupt_commands(&mut self, index: SessionIndex) {
        let Some(session) = self.session_mut(index) else {
            return;
        };
        let tags = std::mem::take(&mut session.queue.commands);
        self.command_outcomes
            .extend(tags.into_values().map(|tag| (tag, CommandOutcome::Interrupted)));
    }
}
