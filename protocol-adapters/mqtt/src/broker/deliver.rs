//! From a message to its subscribers, and what they say to it.

use std::sync::Arc;

use fieldgate_proto::time::Now;

use super::{
    Broker, ConnectionKey, Output, SessionIndex,
    limits::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX, SlowConsumer},
    message::Message,
    queue::{Phase, Queued},
    retained::Kept,
    session::Session,
    store::key,
    subscriptions::{Found, Group},
};
use crate::{
    exchange::{Answer, Delivery, Publication, Step, SubscriptionOptions},
    packet::{PacketIdentifier, Qos},
    property::SubscriptionIdentifier,
    reason::ReasonCode,
    session::end::Termination,
};

/// A session that is to get a message, by which of its subscriptions together.
#[derive(Debug)]
pub(super) struct Match {
    session: SessionIndex,
    is_shared: bool,
    qos: Qos,
    retain_as_published: bool,
    identifiers: Vec<SubscriptionIdentifier>,
}

impl Match {
    fn new(session: SessionIndex, is_shared: bool, options: &SubscriptionOptions) -> Self {
        Self {
            session,
            is_shared,
            qos: options.qos,
            retain_as_published: options.retain_as_published,
            identifiers: options.identifier.into_iter().collect(),
        }
    }
}

/// Gathers who gets a message.
struct Gathering<'a> {
    sessions: &'a [Option<Box<Session>>],
    origin: Option<SessionIndex>,
    matches: &'a mut Vec<Match>,
    queue_messages_max: usize,
}

impl Gathering<'_> {
    fn session(&self, index: SessionIndex) -> Option<&Session> {
        self.sessions.get(index.0 as usize)?.as_deref()
    }
}

impl Found for Gathering<'_> {
    fn subscription(&mut self, session: SessionIndex, options: &SubscriptionOptions) {
        if !(options.no_local && self.origin == Some(session)) {
            self.matches.push(Match::new(session, false, options));
        }
    }

    /// Chooses one of the group: in turn, one that can take the message at once before one that cannot (§4.8.2).
    fn group(&mut self, group: &Group) {
        let rank = |index: SessionIndex| {
            let session = self.session(index)?;
            let has_room = session.queue.len() < self.queue_messages_max;
            Some(match (session.open_connection(), has_room) {
                (Some(_), true) => 0,
                (None, true) => 1,
                (_, false) => 2,
            })
        };
        let chosen = group
            .in_turn()
            .filter_map(|(index, options)| Some((rank(index)?, index, options)))
            .min_by_key(|(rank, ..)| *rank);
        if let Some((_, index, options)) = chosen {
            group.note(index);
            self.matches.push(Match::new(index, true, options));
        }
    }
}

impl Broker {
    /// Passes a message on to its subscribers and retains it, as it asks for. Returns the batch of the store that must be
    /// stored before the message is acknowledged; 0 if none has to be.
    pub fn publish(&mut self, now: Now, from: ConnectionKey, publication: &Publication<'_>) -> u64 {
        let envelope = &publication.envelope;
        let mut batch = 0;
        let origin = self.by_connection.get(&from).copied();
        if let Some(packet_id) = envelope.kept_packet_id
            && let Some(session) = origin.and_then(|index| self.session_mut(index))
            && session.is_kept()
        {
            session.received.insert(packet_id);
            let key = key::received(session.number, packet_id);
            batch = self.pending.put(key, Vec::new());
        }
        let topic = publication.reading.resource;
        self.gather(topic, origin);
        if self.matches.is_empty() && !envelope.retain {
            return batch;
        }
        let message = Arc::new(Message::new(publication, now.instant));
        batch.max(self.route(now, &message))
    }

    /// Returns whether a message with these properties is anything to the broker: if not, [`publish`](Self::publish) does
    /// nothing and need not be called.
    #[must_use]
    pub const fn is_interested(&self, is_retained: bool, has_packet_id: bool) -> bool {
        self.subscriptions.len() > 0 || is_retained || has_packet_id
    }

    /// Passes on a message of the broker's own.
    pub(super) fn route_owned(&mut self, now: Now, message: &Message) {
        self.gather(&message.topic, None);
        if !self.matches.is_empty() || message.retain {
            self.route(now, &Arc::new(message.clone()));
        }
    }

    /// Finds who gets a message: one entry per session, and one per shared subscription.
    fn gather(&mut self, topic: &str, origin: Option<SessionIndex>) {
        self.matches.clear();
        self.subscriptions.find(
            topic,
            &mut Gathering {
                sessions: &self.sessions,
                origin,
                matches: &mut self.matches,
                queue_messages_max: self.limits.queue_messages_max,
            },
        );
        if self.matches.len() < 2 {
            return;
        }
        self.matches.sort_by_key(|found| (found.session, found.is_shared));
        // One copy for overlapping subscriptions: the highest QoS, all identifiers ([MQTT-3.3.5-1], [MQTT-3.3.4-4]).
        self.matches.dedup_by(|next, first| {
            let same = next.session == first.session && !next.is_shared && !first.is_shared;
            if same {
                first.qos = first.qos.max(next.qos);
                first.retain_as_published |= next.retain_as_published;
                first.identifiers.append(&mut next.identifiers);
            }
            same
        });
    }

    /// Gives a message to those who were found, and retains it if it asks for that.
    fn route(&mut self, now: Now, message: &Arc<Message>) -> u64 {
        let mut batch = 0;
        let mut stored_as = 0;
        for mut found in std::mem::take(&mut self.matches) {
            let queued = Queued {
                message: Arc::clone(message),
                stored_as,
                qos: found.qos.min(message.qos),
                retain: message.retain && found.retain_as_published,
                identifiers: std::mem::take(&mut found.identifiers),
                position: 0,
                batch: 0,
            };
            let (needed, number) = self.enqueue(now, found.session, queued);
            (batch, stored_as) = (batch.max(needed), number);
        }
        if message.retain && !message.topic.starts_with('$') {
            batch = batch.max(self.retain(now, message));
        }
        batch
    }

    fn retain(&mut self, now: Now, message: &Arc<Message>) -> u64 {
        match self.retained.keep(message, &self.limits) {
            Kept::Stored => {
                let mut value = Vec::new();
                message.encode(now, &mut value);
                self.pending.put(key::retained(&message.topic), value)
            }
            Kept::Removed => self.pending.remove(key::retained(&message.topic)),
            Kept::Nothing => 0,
            Kept::Refused => {
                self.counters.retained_refused += 1;
                0
            }
        }
    }

    /// Gives a message to a session: at once at QoS 0, else behind those that wait. Returns the batch to wait for, and the
    /// message's number in the store.
    pub(super) fn enqueue(&mut self, now: Now, index: SessionIndex, mut queued: Queued) -> (u64, u64) {
        let (nothing, limits) = ((0, queued.stored_as), self.limits);
        let Some(session) = self.session_mut(index) else {
            return nothing;
        };
        if queued.qos == Qos::AtMostOnce {
            if let Some(to) = session.open_connection() {
                self.deliver(now, to, &queued, None, false);
            }
            return nothing;
        }
        let bytes = queued.message.bytes();
        if session.queue.len() >= limits.queue_messages_max
            || session.queue.bytes() + bytes > limits.queue_bytes_max
        {
            let slow = session.open_connection();
            self.counters.dropped_queue_full += 1;
            if let Some(to) = slow.filter(|_| limits.slow_consumer == SlowConsumer::Disconnect) {
                self.counters.slow_consumers += 1;
                self.close(index, to, Termination::QuotaExceeded);
            }
            return nothing;
        }
        queued.position = session.queue.next_position();
        let is_kept = session.is_kept();
        let number = session.number;
        if is_kept {
            self.store_message(now, &mut queued);
            self.store_waiting(number, &queued);
        }
        let (batch, stored_as) = (queued.batch, queued.stored_as);
        self.counters.queued += 1;
        self.counters.queued_bytes += bytes as u64;
        let Some(session) = self.session_mut(index) else {
            return nothing;
        };
        session.queue.push(queued);
        self.pump(now, index);
        (batch, stored_as)
    }

    /// Tells a connection to end.
    fn close(&mut self, index: SessionIndex, to: ConnectionKey, why: Termination) {
        if let Some(session) = self.session_mut(index) {
            session.is_closing = true;
            self.answer(to, Answer::Close(why));
        }
    }

    /// Sends what a session's client takes: first what it did not acknowledge on an earlier connection, then what waits.
    pub(super) fn pump(&mut self, now: Now, index: SessionIndex) {
        let Some(to) = self.session(index).and_then(Session::open_connection) else {
            return;
        };
        self.send_again(now, index, to);
        loop {
            let stored = self.stored;
            let Some(session) = self.session_mut(index) else {
                return;
            };
            let window = usize::from(session.receive_maximum).min(IN_FLIGHT_MAX);
            let queue = &mut session.queue;
            let Some(first) = queue.waiting.front() else {
                return;
            };
            if first.message.is_expired(now.instant) {
                self.drop_expired(index);
                continue;
            }
            let bytes = queue.in_flight_bytes();
            if queue.unacknowledged() >= window
                || bytes > 0 && bytes + first.message.bytes() > IN_FLIGHT_BYTES_MAX
            {
                return;
            }
            if first.qos == Qos::ExactlyOnce && first.batch > stored {
                if !std::mem::replace(&mut session.is_stalled, true) {
                    self.stalled.push(index);
                }
                return;
            }
            let Some(queued) = queue.pop_waiting() else { return };
            let packet_id = queue.send(queued.clone());
            self.store_queued(index, packet_id);
            self.deliver(now, to, &queued, Some(packet_id), false);
        }
    }

    /// Sends what was in flight when an earlier connection ended, in its order (`[MQTT-4.4.0-1]`).
    fn send_again(&mut self, now: Now, index: SessionIndex, to: ConnectionKey) {
        loop {
            let Some(session) = self.session_mut(index) else {
                return;
            };
            let window = usize::from(session.receive_maximum).min(IN_FLIGHT_MAX);
            let mut sent = 0;
            let Some(message) = session.queue.in_flight.iter_mut().find(|message| {
                sent += usize::from(message.sent);
                !message.sent
            }) else {
                return;
            };
            if sent >= window {
                return;
            }
            message.sent = true;
            let (packet_id, phase, queued) = (message.packet_id, message.phase, message.queued.clone());
            match phase {
                Phase::Published => self.deliver(now, to, &queued, Some(packet_id), true),
                Phase::Released => self.answer(
                    to,
                    Answer::Release {
                        packet_id,
                        is_known: true,
                    },
                ),
            }
        }
    }

    fn drop_expired(&mut self, index: SessionIndex) {
        let Some(session) = self.session_mut(index) else {
            return;
        };
        let number = session.number;
        if let Some(queued) = session.queue.pop_waiting() {
            self.counters.dropped_expired += 1;
            self.forget(number, &queued);
        }
    }

    fn deliver(
        &mut self,
        now: Now,
        to: ConnectionKey,
        queued: &Queued,
        packet_id: Option<PacketIdentifier>,
        dup: bool,
    ) {
        self.counters.delivered += 1;
        let delivery = Delivery {
            message: Arc::clone(&queued.message),
            qos: queued.qos,
            retain: queued.retain,
            dup,
            packet_id,
            identifiers: queued.identifiers.clone(),
            expiry_secs: queued.message.expiry_secs(now.instant),
        };
        self.outputs.push_back(Output::Answer {
            to,
            answer: Answer::Deliver(Box::new(delivery)),
        });
    }

    /// Takes a client's acknowledgement. What is not known is forgotten, or was never sent: PUBREC alone gets an answer,
    /// because its client waits for one (§4.3.3). One that is not the next of its message's quality of service ends the
    /// connection: the two sides no longer agree on what is under way (§4.13).
    pub(super) fn acknowledge(
        &mut self,
        now: Now,
        from: ConnectionKey,
        step: Step,
        packet_id: PacketIdentifier,
        reason: ReasonCode,
    ) {
        let Some(index) = self.by_connection.get(&from).copied() else {
            return;
        };
        if step == Step::Acknowledged && self.acknowledge_command(index, packet_id, reason) {
            self.pump(now, index);
            return;
        }
        let Some(session) = self.session_mut(index) else {
            return;
        };
        let is_refusal = reason.is_failure();
        let found = session.queue.find(packet_id);
        let state = found.as_ref().map(|message| (message.queued.qos, message.phase));
        // What this connection has not sent yet, the acknowledgement cannot be about.
        let is_out_of_step = found.as_ref().is_some_and(|message| {
            message.sent
                && match step {
                    Step::Acknowledged => message.queued.qos == Qos::ExactlyOnce,
                    Step::Received => message.queued.qos == Qos::AtLeastOnce,
                    Step::Completed => message.phase == Phase::Published,
                }
        });
        if is_out_of_step {
            return self.close(index, from, Termination::WrongAcknowledgement);
        }
        match (step, state) {
            (Step::Acknowledged, Some((Qos::AtLeastOnce, _)))
            | (Step::Completed, Some((_, Phase::Released))) => self.complete(now, index, packet_id),
            (Step::Received, Some((Qos::ExactlyOnce, Phase::Published))) if is_refusal => {
                self.complete(now, index, packet_id);
            }
            (Step::Received, Some((Qos::ExactlyOnce, phase))) => {
                let mut batch = 0;
                if phase == Phase::Published
                    && let Some(message) = found
                {
                    message.phase = Phase::Released;
                    batch = self.store_queued(index, packet_id);
                }
                let is_known = true;
                self.answer_after(batch, from, Answer::Release { packet_id, is_known });
            }
            (Step::Received, _) if !is_refusal => {
                let is_known = false;
                self.answer(from, Answer::Release { packet_id, is_known });
            }
            (Step::Acknowledged | Step::Received | Step::Completed, _) => {}
        }
    }

    /// Forgets a message that a client is done with, and sends the next.
    fn complete(&mut self, now: Now, index: SessionIndex, packet_id: PacketIdentifier) {
        let Some(session) = self.session_mut(index) else {
            return;
        };
        let number = session.number;
        if let Some(message) = session.queue.complete(packet_id) {
            self.forget(number, &message.queued);
        }
        self.pump(now, index);
    }

    /// Counts a message off that left a session's queue, and takes it out of the store.
    fn forget(&mut self, session: u64, queued: &Queued) {
        self.counters.queued -= 1;
        self.counters.queued_bytes -= queued.message.bytes() as u64;
        if queued.stored_as != 0 {
            self.pending.remove(key::queued(session, queued.position));
            self.release_message(queued.stored_as);
        }
    }
}
