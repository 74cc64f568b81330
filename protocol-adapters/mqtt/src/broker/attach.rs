//! Beginning and end of connections and sessions.

use std::time::Duration;

use fieldgate_proto::time::{Instant, Now};

use super::{
    Broker, ConnectionKey, Output, SessionIndex,
    queue::Phase,
    session::{Session, SessionKey},
    store::key,
};
use crate::{
    exchange::{Answer, Attach, Attached, Will},
    reason::ReasonCode,
    session::end::Termination,
};

impl Broker {
    /// Gives a client its session, as soon as an older connection of it has ended (`[MQTT-3.1.4-3]`).
    pub(super) fn attach(&mut self, now: Now, from: ConnectionKey, attach: Box<Attach>) {
        let key = SessionKey {
            device: attach.device.name().into(),
            client_id: attach.client_id.clone(),
        };
        let Some(index) = self.by_key.get(&key).copied() else {
            if self.by_key.len() >= self.limits.sessions_max {
                self.counters.sessions_refused += 1;
                return self.answer(from, Answer::Refused(ReasonCode::QuotaExceeded));
            }
            let index = self.add_session(key);
            return self.begin(now, index, from, &attach, false);
        };
        let Some(session) = self.session_mut(index) else {
            return;
        };
        let Some(older) = session.connection else {
            return self.resume(now, index, from, &attach);
        };
        let was_closing = std::mem::replace(&mut session.is_closing, true);
        if let Some((waiting, _)) = session.successor.replace((from, attach)) {
            self.by_connection.remove(&waiting);
            self.answer(waiting, Answer::Close(Termination::TakenOver));
        }
        self.by_connection.insert(from, index);
        if !was_closing {
            self.answer(older, Answer::Close(Termination::TakenOver));
        }
    }

    /// A client comes to a session that has no connection.
    fn resume(&mut self, now: Now, index: SessionIndex, from: ConnectionKey, attach: &Attach) {
        if attach.clean_start {
            // [MQTT-3.1.2-4]; the will of the older session is due with its end (§3.1.3.2.2).
            let key = self.session(index).map(|session| session.key.clone());
            self.end_session(now, index);
            if let Some(key) = key {
                let index = self.add_session(key);
                self.begin(now, index, from, attach, false);
            }
            return;
        }
        if let Some(session) = self.session_mut(index) {
            // [MQTT-3.1.3-9]: a client that is back in time takes its will back.
            (session.will, session.will_at, session.ends_at) = (None, None, None);
            let refused: Vec<Box<str>> = session
                .subscriptions
                .keys()
                .filter(|filter| !may_subscribe(attach, filter))
                .cloned()
                .collect();
            for filter in refused {
                self.remove_subscription(index, &filter);
            }
        }
        self.begin(now, index, from, attach, true);
    }

    fn add_session(&mut self, key: SessionKey) -> SessionIndex {
        let number = self.next_number();
        let session = Some(Box::new(Session::new(key.clone(), number)));
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.sessions.push(None);
                SessionIndex(u32::try_from(self.sessions.len() - 1).expect("sessions are bounded"))
            }
        };
        self.sessions[index.0 as usize] = session;
        self.by_key.insert(key, index);
        index
    }

    /// Ties a connection to its session, and sends what waits.
    fn begin(
        &mut self,
        now: Now,
        index: SessionIndex,
        from: ConnectionKey,
        attach: &Attach,
        session_present: bool,
    ) {
        let Some(session) = self.session_mut(index) else {
            return;
        };
        let was_kept = session.is_kept();
        session.connection = Some(from);
        session.is_closing = false;
        session.expiry_secs = attach.expiry_secs;
        session.receive_maximum = attach.receive_maximum.max(1);
        session.speaks_v5 = attach.speaks_v5;
        session.will.clone_from(&attach.will);
        for message in &mut session.queue.in_flight {
            message.sent = false;
        }
        let attached = Attached {
            session_present,
            received: session.received.iter().copied().collect(),
        };
        self.by_connection.insert(from, index);
        self.counters.connected += 1;
        self.schedule(index);
        self.change_keeping(now, index, was_kept);
        self.answer(from, Answer::Attached(Box::new(attached)));
        self.pump(now, index);
    }

    /// Takes the end of a connection.
    pub(super) fn detach(
        &mut self,
        now: Now,
        from: ConnectionKey,
        publishes_will: bool,
        expiry_secs: Option<u32>,
    ) {
        let Some(index) = self.by_connection.remove(&from) else {
            return;
        };
        let Some(session) = self.session_mut(index) else {
            return;
        };
        if session.connection != Some(from) {
            // A successor that did not wait.
            session.successor = None;
            return;
        }
        let was_kept = session.is_kept();
        session.connection = None;
        session.is_closing = false;
        if let Some(secs) = expiry_secs {
            session.expiry_secs = secs;
        }
        let expiry = session.expiry_secs;
        session.ends_at = (expiry != u32::MAX).then(|| after(now.instant, expiry));
        if !publishes_will {
            session.will = None;
        }
        // Due after the delay or with the session's end, whichever comes first (§3.1.3.2.2).
        session.will_at = session
            .will
            .as_ref()
            .map(|will| after(now.instant, will.delay_secs.min(expiry)));
        let successor = session.successor.take();
        self.interrupt_commands(index);
        self.counters.connected -= 1;
        if expiry == 0 {
            let key = self.session(index).map(|session| session.key.clone());
            self.end_session(now, index);
            if let (Some((connection, attach)), Some(key)) = (successor, key) {
                // The session ended with its connection, so none is present (§3.1.2.11.2).
                let index = self.add_session(key);
                self.begin(now, index, connection, &attach, false);
            }
            return;
        }
        self.change_keeping(now, index, was_kept);
        self.schedule(index);
        self.fire_will(now, index);
        if let Some((connection, attach)) = successor {
            self.resume(now, index, connection, &attach);
        }
    }

    /// Does what a session's deadline asks for.
    pub(super) fn handle_deadline(&mut self, now: Now, index: SessionIndex) {
        self.fire_will(now, index);
        let Some(session) = self.session_mut(index) else {
            return;
        };
        if session.ends_at.is_some_and(|at| at <= now.instant) {
            self.counters.sessions_expired += 1;
            self.end_session(now, index);
        } else {
            self.schedule(index);
        }
    }

    /// Publishes a session's will if it is due.
    fn fire_will(&mut self, now: Now, index: SessionIndex) {
        let Some(session) = self.session_mut(index) else {
            return;
        };
        if session.will_at.is_none_or(|at| at > now.instant) {
            return;
        }
        session.will_at = None;
        if let Some(will) = session.will.take() {
            self.store_session(now, index);
            self.publish_will(now, *will);
        }
        self.schedule(index);
    }

    fn publish_will(&mut self, now: Now, mut will: Will) {
        will.message.expires_at = will.expiry_secs.map(|secs| after(now.instant, secs));
        self.counters.wills += 1;
        self.route_owned(now, &will.message);
        if !will.is_local {
            self.outputs.push_back(Output::Will(Box::new(will)));
        }
    }

    /// Forgets a session that has no connection.
    fn end_session(&mut self, now: Now, index: SessionIndex) {
        let Some(mut session) = self.sessions.get_mut(index.0 as usize).and_then(Option::take) else {
            return;
        };
        self.by_key.remove(&session.key);
        if let Some(deadline) = session.deadline {
            self.deadlines.remove(&(deadline, index));
        }
        for filter in session.subscriptions.keys() {
            if let Some(filter) = super::subscriptions::Filter::parse(filter) {
                self.subscriptions.remove(&filter, index);
            }
        }
        self.counters.queued -= session.queue.len() as u64;
        self.counters.queued_bytes -= session.queue.bytes() as u64;
        self.unstore_session(&session);
        self.free.push(index);
        // Last, so that the session does not get its own will.
        if let Some(will) = session.will.take() {
            self.publish_will(now, *will);
        }
    }

    /// Brings the session's place among the deadlines up to date.
    pub(super) fn schedule(&mut self, index: SessionIndex) {
        let Some(session) = self.session_mut(index) else {
            return;
        };
        let next = match session.connection {
            Some(_) => None,
            None => [session.will_at, session.ends_at].into_iter().flatten().min(),
        };
        let old = std::mem::replace(&mut session.deadline, next);
        if let Some(old) = old {
            self.deadlines.remove(&(old, index));
        }
        if let Some(next) = next {
            self.deadlines.insert((next, index));
        }
    }

    /// Brings the store up to date after a session's expiry interval may have changed.
    fn change_keeping(&mut self, now: Now, index: SessionIndex, was_kept: bool) {
        let Some(session) = self.session(index) else {
            return;
        };
        match (was_kept, session.is_kept()) {
            (_, true) => {
                self.store_session(now, index);
                if !was_kept {
                    self.store_contents(now, index);
                }
            }
            (true, false) => self.forget_contents(index),
            (false, false) => {}
        }
    }

    /// Removes what of a session is in the store; it lives on in memory until its connection ends.
    fn forget_contents(&mut self, index: SessionIndex) {
        let Some(session) = self.sessions.get_mut(index.0 as usize).and_then(Option::take) else {
            return;
        };
        self.unstore_session(&session);
        self.sessions[index.0 as usize] = Some(session);
        if let Some(session) = self.session_mut(index) {
            session.is_stored = false;
            for queued in session
                .queue
                .in_flight
                .iter_mut()
                .map(|message| &mut message.queued)
                .chain(&mut session.queue.waiting)
            {
                (queued.stored_as, queued.batch) = (0, 0);
            }
        }
    }

    /// Takes the release of a message at QoS 2 that the gateway received; answers when that is stored, so that a crash cannot
    /// take the identifier's next message for the last one.
    pub(super) fn release(&mut self, from: ConnectionKey, packet_id: crate::packet::PacketIdentifier) {
        let Some(index) = self.by_connection.get(&from).copied() else {
            return;
        };
        let Some(session) = self.session_mut(index) else {
            return;
        };
        let number = session.number;
        let was_there = session.received.remove(&packet_id) && session.is_kept();
        let batch = if was_there {
            self.pending.remove(key::received(number, packet_id))
        } else {
            0
        };
        self.answer_after(batch, from, Answer::Completed { packet_id });
    }
}

impl Phase {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Published => 1,
            Self::Released => 2,
        }
    }
}

fn may_subscribe(attach: &Attach, filter: &str) -> bool {
    super::subscriptions::Filter::parse(filter)
        .is_some_and(|filter| attach.device.may_subscribe(filter.topic_filter))
}

fn after(now: Instant, secs: u32) -> Instant {
    now + Duration::from_secs(secs.into())
}
