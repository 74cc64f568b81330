//! The broker: who gets which message, and what of it outlives connections and the process. Sans-IO, for all connections of
//! a gateway together.
//!
//! ```text
//!  sessions on any thread ──Publication, Request──▶ Broker ──Answer──▶ sessions
//!                                                    │  ▲
//!                                             Batch  ▼  │ handle_stored
//!                                                   store
//! ```
//!
//! The caller
//! 1. gives messages to [`Broker::publish`] after they were taken for the journal, and requests to [`Broker::handle_request`];
//! 2. drains [`Broker::poll_output`];
//! 3. writes what [`Broker::take_batch`] gives, one batch after the other, and says so with [`Broker::handle_stored`];
//! 4. acknowledges a message to its publisher only after the batch that [`Broker::publish`] named is stored;
//! 5. calls [`Broker::handle_timeout`] at [`Broker::poll_timeout`].
//!
//! What is kept over a crash: sessions with an expiry interval, with their subscriptions, wills, messages above QoS 0 and
//! packet identifiers of both directions; and retained messages. A message at QoS 2 is sent, and released, only after the
//! state that recognises its repetition is stored, so a crash at any point duplicates none.
//!
//! **Invariants:** a message takes memory once, however many sessions it waits for; every table has a limit in
//! [`Limits`]; a client that does not read costs others nothing but that memory.

mod age;
mod attach;
pub mod command;
pub mod counters;
mod deliver;
mod durable;
pub mod limits;
pub mod message;
mod queue;
mod retained;
mod session;
pub mod store;
mod subscribe;
pub(crate) mod subscriptions;
mod system;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldgate_proto::time::{Instant, Now};

use self::{
    counters::BrokerCounters,
    deliver::Match,
    limits::Limits,
    retained::Retained,
    session::{Session, SessionKey},
    store::{Batch, Pending},
    subscriptions::Subscriptions,
    system::System,
};
use crate::exchange::{Answer, Request, Will};

pub use self::subscriptions::FILTER_LEVELS_MAX;

/// A connection, as the caller counts them. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// Which of the caller's threads owns it.
    pub shard: usize,
    /// Its number there.
    pub connection: u64,
}

/// Place of a session among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionIndex(u32);

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell a session.
    Answer {
        /// Which.
        to: ConnectionKey,
        /// What.
        answer: Answer,
    },
    /// A will was published: put it into the journal. Subscribers have it.
    Will(Box<Will>),
}

/// The broker; see the [module](self).
#[derive(Debug)]
pub struct Broker {
    limits: Limits,
    sessions: Vec<Option<Box<Session>>>,
    free: Vec<SessionIndex>,
    by_key: BTreeMap<SessionKey, SessionIndex>,
    by_connection: BTreeMap<ConnectionKey, SessionIndex>,
    subscriptions: Subscriptions,
    retained: Retained,
    outputs: VecDeque<Output>,
    /// Outputs that wait until a batch is stored.
    deferred: VecDeque<(u64, Output)>,
    deadlines: BTreeSet<(Instant, SessionIndex)>,
    /// Sessions that wait until a batch is stored.
    stalled: Vec<SessionIndex>,
    pending: Pending,
    /// The last batch that is stored.
    stored: u64,
    /// How many sessions wait for each message in the store.
    messages: BTreeMap<u64, usize>,
    last_number: u64,
    system: System,
    counters: BrokerCounters,
    /// What became of commands, by their tags.
    command_outcomes: VecDeque<(u64, command::CommandOutcome)>,
    /// Kept for its capacity.
    matches: Vec<Match>,
}

impl Broker {
    /// Begins with nothing. `version` is what `$SYS/broker/version` says.
    #[must_use]
    pub fn new(limits: Limits, version: &str, now: Instant) -> Self {
        Self {
            limits,
            sessions: Vec::new(),
            free: Vec::new(),
            by_key: BTreeMap::new(),
            by_connection: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            retained: Retained::default(),
            outputs: VecDeque::new(),
            deferred: VecDeque::new(),
            deadlines: BTreeSet::new(),
            stalled: Vec::new(),
            pending: Pending::default(),
            stored: 0,
            messages: BTreeMap::new(),
            last_number: 0,
            system: System::new(version, now),
            counters: BrokerCounters::default(),
            command_outcomes: VecDeque::new(),
            matches: Vec::new(),
        }
    }

    /// Takes a request of a connection.
    pub fn handle_request(&mut self, now: Now, from: ConnectionKey, request: Request) {
        match request {
            Request::Attach(attach) => self.attach(now, from, attach),
            Request::Subscribe { packet_id, wanted } => self.subscribe(now, from, packet_id, wanted),
            Request::Unsubscribe { packet_id, filters } => self.unsubscribe(from, packet_id, filters),
            Request::Acknowledge {
                step,
                packet_id,
                reason,
            } => self.acknowledge(now, from, step, packet_id, reason),
            Request::Release { packet_id } => self.release(from, packet_id),
            Request::Detach {
                publishes_will,
                expiry_secs,
            } => self.detach(now, from, publishes_will, expiry_secs),
        }
    }

    /// Learns that every batch up to `number` is on stable storage.
    pub fn handle_stored(&mut self, now: Now, number: u64) {
        self.stored = self.stored.max(number);
        while let Some((_, output)) = self.deferred.pop_front_if(|(batch, _)| *batch <= self.stored) {
            self.outputs.push_back(output);
        }
        for index in std::mem::take(&mut self.stalled) {
            if let Some(session) = self.session_mut(index) {
                session.is_stalled = false;
                self.pump(now, index);
            }
        }
    }

    /// Ends sessions and publishes wills whose time has come.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((deadline, index)) = self.deadlines.first().copied() {
            if deadline > now.instant {
                break;
            }
            self.handle_deadline(now, index);
        }
        if self.system.is_due(now.instant) {
            self.report_system(now);
            for topic in self.retained.expire(now.instant) {
                self.pending.remove(store::key::retained(&topic));
                self.counters.dropped_expired += 1;
            }
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due; `None` if never, as things are.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let session = self.deadlines.first().map(|(deadline, _)| *deadline);
        let is_used = self.subscriptions.has_first_level("$SYS") || self.retained.len() > 0;
        let system = is_used.then(|| self.system.due());
        [session, system].into_iter().flatten().min()
    }

    /// Returns the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes the changes that have gathered for the store.
    pub fn take_batch(&mut self) -> Option<Batch> {
        self.pending.take()
    }

    /// Returns the bytes of changes that gather.
    #[must_use]
    pub const fn pending_bytes(&self) -> usize {
        self.pending.bytes()
    }

    /// Returns the counts.
    #[must_use]
    pub fn counters(&self) -> BrokerCounters {
        BrokerCounters {
            sessions: self.by_key.len() as u64,
            subscriptions: self.subscriptions.len() as u64,
            retained: self.retained.len() as u64,
            retained_bytes: self.retained.bytes() as u64,
            ..self.counters
        }
    }

    fn session(&self, index: SessionIndex) -> Option<&Session> {
        self.sessions.get(index.0 as usize)?.as_deref()
    }

    fn session_mut(&mut self, index: SessionIndex) -> Option<&mut Session> {
        self.sessions.get_mut(index.0 as usize)?.as_deref_mut()
    }

    fn answer(&mut self, to: ConnectionKey, answer: Answer) {
        self.outputs.push_back(Output::Answer { to, answer });
    }

    /// Answers when a batch is stored; at once if it is, or if there is none.
    fn answer_after(&mut self, batch: u64, to: ConnectionKey, answer: Answer) {
        if batch <= self.stored {
            self.answer(to, answer);
        } else {
            self.deferred.push_back((batch, Output::Answer { to, answer }));
        }
    }

    const fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}
