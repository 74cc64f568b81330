//! The authority's machine: requests, signatures and time go in, answers and wishes come out.
//!
//! It owns the store, the statement key and the status list, and blocks in commits only. The
//! [service](super::service) gives it a thread; tests drive it by hand.

mod budget;
mod cluster;
mod founding;
mod list;
mod recent;
mod restored;
mod turn;
mod upkeep;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use fieldgate_proto::{
    crypto::Signature,
    entropy::Entropy,
    identity::ChangeHistory,
    time::{Instant, Now},
    trust::{Presentation, StatementKind, StatusList},
};

use self::{
    budget::Budget,
    cluster::Cluster,
    recent::Recent,
    restored::Found,
    turn::{Changes, Turn},
};
use super::{
    AuthoritySettings, AuthorityStatus, Origin, Permit, SignRequest, StoreError,
    decide::Context,
    key::Keys,
    replication::ReplicationSettings,
    store::{Store, StoredList},
    wire::{ManageAnswer, ManageRequest},
};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// A signed request of enrolment (PROTOCOL.md §10.4).
    Enrol(Vec<u8>),
    /// A new credential for the peer of the channel.
    Renew,
    /// The time.
    Time {
        /// Drawn by who asks.
        nonce: [u8; 16],
    },
    /// An operator's request.
    Manage(Box<ManageRequest>),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AuthorityAnswer {
    /// To [`RequestKind::Enrol`] and [`RequestKind::Renew`]: a presentation (PROTOCOL.md §10.2).
    Issued(Arc<[u8]>),
    /// To the same: no. There is nothing more to say to who asked.
    Denied,
    /// Not now: nothing can be signed, or the store does not serve. Nothing was decided, and no ticket is spent.
    NotReady,
    /// To [`RequestKind::Time`]: history and signed statement of kind 3.
    Time(Vec<u8>),
    /// To [`RequestKind::Manage`].
    Managed(Box<ManageAnswer>),
}

/// What the authority wants of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AuthorityOutput {
    /// The identity key's signature, for
    /// [`AuthorityHandle::handle_signature`](super::service::AuthorityHandle::handle_signature).
    Sign(SignRequest),
    /// There is a new status list, to be taken by the node itself and told to everybody connected.
    StatusList {
        /// History and signed statement of kind 2.
        list: Arc<[u8]>,
        /// The numbers of the lists that are known to have been signed, ascending, for
        /// [`Node::set_issued_lists`](fieldgate_proto::node::Node::set_issued_lists).
        issued: Arc<[u64]>,
    },
    /// The store has failed; nothing is decided any more. The node should end and be started again.
    Broken(String),
}

/// The machine.
pub(super) struct Engine {
    store: Store,
    settings: AuthoritySettings,
    history: ChangeHistory,
    permit: Box<dyn Permit>,
    entropy: Box<dyn Entropy + Send>,
    /// What the node held at the start, until the store has been brought in line with it.
    unaligned: Option<Option<StatusList>>,
    cluster: Cluster,
    keys: Keys,
    /// The status list as signed last.
    list: Option<StoredList>,
    /// Identities were revoked that no signed list names.
    list_is_behind: bool,
    recent: Recent,
    budget: Budget,
    /// When the store is looked after next.
    upkeep_at: Instant,
    outputs: VecDeque<AuthorityOutput>,
    /// Why the store has failed.
    broken: Option<String>,
    /// What the file says that cannot be done.
    complaints: Vec<String>,
    /// Numbers of the lists signed.
    issued: Arc<[u64]>,
    /// What peers have shown that was forgotten.
    found: Option<Found>,
    status: AuthorityStatus,
    counts: BTreeMap<(&'static str, &'static str), u64>,
}

impl Engine {
    /// Opens the store and brings it in line with the settings, and with the newest status list that the node
    /// holds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn open(
        now: Now,
        settings: AuthoritySettings,
        history: ChangeHistory,
        permit: Box<dyn Permit>,
        entropy: Box<dyn Entropy + Send>,
        held: Option<&StatusList>,
        replication: Option<ReplicationSettings>,
    ) -> Result<Self, StoreError> {
        let mut store = Store::open(&settings.store, &history.identifier(), replication)?;
        let is_clustered = store.is_clustered();
        let (aligned, list, number, issued) = store.batch(|batch| {
            let aligned = if is_clustered {
                // What the log says comes first, and it may be away.
                Default::default()
            } else {
                founding::align(batch, now.wall, &settings, &history.identifier(), held)?
            };
            Ok((aligned, batch.list()?, batch.list_number(), batch.issued_lists()?))
        })?;
        let (complaints, found) = aligned;
        let mut engine = Self {
            unaligned: is_clustered.then(|| held.cloned()),
            cluster: Cluster::new(now.instant, is_clustered),
            store,
            settings,
            history,
            permit,
            entropy,
            keys: Keys::new(),
            list: None,
            list_is_behind: list.as_ref().is_none_or(|list| list.number < number),
            recent: Recent::default(),
            budget: Budget::new(now.instant),
            upkeep_at: now.instant,
            outputs: VecDeque::new(),
            broken: None,
            complaints,
            issued: issued.into(),
            found,
            status: AuthorityStatus::default(),
            counts: BTreeMap::new(),
        };
        if let Some(list) = list {
            engine.publish(list);
        }
        if !is_clustered {
            engine.handle_timeout(now);
        }
        Ok(engine)
    }

    /// Decides about a batch of requests; the answers come in the same order.
    pub(super) fn handle_requests(
        &mut self,
        now: Now,
        requests: Vec<(Origin, RequestKind)>,
    ) -> Vec<AuthorityAnswer> {
        let kinds: Vec<bool> = requests
            .iter()
            .map(|(_, kind)| matches!(kind, RequestKind::Manage(_)))
            .collect();
        let count = requests.len();
        let asks = |kind: &RequestKind| matches!(kind, RequestKind::Manage(request) if matches!(**request, ManageRequest::Status {}));
        let status = requests.iter().any(|(_, kind)| asks(kind)).then(|| self.status());
        let answers = self.transact(now, status, |turn| {
            let mut answers = Vec::with_capacity(count);
            for (from, kind) in &requests {
                answers.push(turn.serve(from, kind)?);
            }
            Ok(answers)
        });
        let halted = self.cluster.halted();
        match answers {
            Some(answers) => {
                self.status.committed_requests += count as u64;
                self.status.batch_max = self.status.batch_max.max(count as u64);
                answers
            }
            // Nothing of the batch counts.
            None => kinds
                .into_iter()
                .map(|manage| {
                    if manage {
                        AuthorityAnswer::Managed(Box::new(turn::store_failed(halted)))
                    } else {
                        AuthorityAnswer::NotReady
                    }
                })
                .collect(),
        }
    }

    /// Takes the answer to [`AuthorityOutput::Sign`].
    pub(super) fn handle_signature(&mut self, now: Now, id: u64, result: Result<Signature, String>) {
        if self.keys.handle_signature(now, id, result, &self.history) {
            tracing::info!(not_after = self.keys.not_after(), "statement key attested");
            self.status.ready = self.keys.usable(now.wall.unix_secs()).is_some();
            // What waited for the key is signed now.
            self.refresh_list(now);
        } else if let Some(problem) = self.keys.problem() {
            tracing::warn!(problem, "statement key not attested");
        }
    }

    /// Takes the history after the authority's identity was rotated.
    pub(super) fn handle_history(&mut self, now: Now, history: ChangeHistory) {
        if history.identifier() != self.history.identifier() {
            tracing::error!("a history of another identity was ignored");
            return;
        }
        self.history = history;
        self.keys.handle_rotation(now);
        // What was presented before rests on the shorter history.
        self.recent = Recent::default();
        if let Some(list) = self.list.clone() {
            self.publish(list);
        }
        self.handle_timeout(now);
    }

    /// Does what time demands.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        if self.broken.is_some() || self.follow(now).is_none() {
            return;
        }
        if self.keys.is_due(now) {
            self.ask_for_key(now);
        }
        if now.instant >= self.upkeep_at {
            self.upkeep_at = now.instant + UPKEEP_EVERY;
            self.upkeep(now);
        }
        self.refresh_list(now);
    }

    /// Returns how long nothing needs to be done if nothing happens.
    pub(super) fn patience(&self, now: Now) -> Duration {
        let until = |at: Instant| at.saturating_since(now.instant);
        let key = until(self.keys.poll_timeout());
        let upkeep = until(self.upkeep_at);
        // A deadline of the key that is over waits for nothing: the key is in use, and judged by the wall clock.
        let own = if key.is_zero() { upkeep } else { key.min(upkeep) };
        if self.store.is_clustered() {
            // What others have decided is looked for, whatever else is due.
            until(self.cluster.due())
        } else {
            own
        }
    }

    /// Returns the next thing the node is to do.
    pub(super) fn poll_output(&mut self) -> Option<AuthorityOutput> {
        self.outputs.pop_front()
    }

    /// Returns the status, without what the mailbox knows.
    pub(super) fn status(&self) -> AuthorityStatus {
        let mut status = self.status.clone();
        status.identifier = self.history.identifier().to_string();
        status.key_not_after = self.keys.not_after();
        status.ready = self.broken.is_none() && self.cluster.halted().is_none() && status.ready;
        status.cluster = self.cluster_status();
        status.problems.extend(self.cluster.halted().map(str::to_owned));
        status.log_suppressed = self.budget.suppressed();
        status.store_bytes = self.store.file_bytes();
        status.problems.extend_from_slice(&self.complaints);
        status
            .problems
            .extend(self.found.as_ref().map(ToString::to_string));
        status.problems.extend(self.broken.clone());
        if let Some(problem) = self.keys.problem() {
            status
                .problems
                .push(format!("the statement key is not attested: {problem}"));
        }
        if let Some(list) = &self.list {
            status.list_number = list.number;
            status.list_entries = u64::from(list.entries);
            status.list_overflow = u64::from(list.overflow);
            status.list_not_after = list.not_after;
            if list.overflow > 0 {
                status.problems.push(format!(
                    "{} revoked identities have no room in the status list: they are refused new credentials, and their old ones run out",
                    list.overflow
                ));
            }
        }
        for ((kind, outcome), count) in &self.counts {
            status.requests.insert(format!("{kind}/{outcome}"), *count);
        }
        status
    }

    /// Walks the log.
    #[cfg(test)]
    pub(super) fn verify_log(&mut self) -> Result<Result<(), super::log::LogError>, StoreError> {
        self.store.batch(|batch| batch.verify_log(0))
    }

    fn ask_for_key(&mut self, now: Now) {
        let sequence = self.transact(now, None, |turn| {
            Ok(turn.batch.next_attestation(turn.context.wall.unix_secs()))
        });
        let Some(sequence) = sequence else {
            return;
        };
        match self.keys.ask(now, self.entropy.as_mut(), &self.history, sequence) {
            Ok(request) => self.outputs.push_back(AuthorityOutput::Sign(request)),
            Err(error) => tracing::error!(%error, "no attestation can be made"),
        }
    }

    /// Runs `work` in one transaction and, once that is on the disk, takes over what it changed. `None` if the store does
    /// not serve. Where other processes decide, too, `work` runs again for each that came first.
    fn transact<T>(
        &mut self,
        now: Now,
        status: Option<AuthorityStatus>,
        mut work: impl FnMut(&mut Turn<'_, '_>) -> Result<T, StoreError>,
    ) -> Option<T> {
        for _ in 0..TRIES_MAX {
            if self.broken.is_some() {
                return None;
            }
            self.catch_up(now)?;
            match self.try_transact(now, status.clone(), &mut work) {
                Ok(result) => return Some(result),
                Err(StoreError::Late) => {}
                Err(error) => {
                    self.stop_for(now, &error);
                    return None;
                }
            }
        }
        self.stop_for(now, &StoreError::Late);
        None
    }

    fn try_transact<T>(
        &mut self,
        now: Now,
        status: Option<AuthorityStatus>,
        work: impl FnOnce(&mut Turn<'_, '_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let context = Context {
            wall: now.wall,
            settings: &self.settings,
            history: &self.history,
            key: self.keys.usable(now.wall.unix_secs()),
            permit: self.permit.as_ref(),
        };
        self.status.ready = context.key.is_some();
        let (entropy, recent, list) = (self.entropy.as_mut(), &self.recent, self.list.as_ref());
        let budget = self.budget.refilled(now.instant);
        let started = fieldgate_io::clock::monotonic();
        let (result, changes) = self.store.batch(|batch| {
            let mut turn = Turn::new(batch, context, entropy, recent, list, status, budget);
            let result = work(&mut turn)?;
            Ok((result, turn.finish()?))
        })?;
        let micros = (fieldgate_io::clock::monotonic() - started) / 1000;
        self.status.commits += 1;
        self.status.commit_micros += micros;
        self.status.commit_micros_max = self.status.commit_micros_max.max(micros);
        self.take_over(changes);
        Ok(result)
    }

    /// Takes over what a committed transaction changed.
    fn take_over(&mut self, changes: Changes) {
        self.budget = changes.budget;
        for (identifier, issued) in changes.issued {
            self.recent.insert(identifier, issued);
        }
        for identifier in changes.revoked {
            self.recent.remove(&identifier);
        }
        for count in changes.counts {
            *self.counts.entry(count).or_default() += 1;
        }
        let totals = changes.totals;
        self.status.members = totals.members;
        self.status.revoked = totals.revoked;
        self.status.tickets = totals.tickets;
        self.status.log_entries = totals.log_entries;
        if let Some(issued) = changes.issued_lists {
            self.issued = issued;
        }
        if let Some(list) = changes.list {
            self.publish(list);
        }
        self.list_is_behind = self
            .list
            .as_ref()
            .is_none_or(|list| list.number < totals.list_number);
    }

    /// Tells the node about a status list.
    fn publish(&mut self, list: StoredList) {
        match Presentation::encode(StatementKind::StatusList, &self.history, &list.statement) {
            Ok(bytes) => self.outputs.push_back(AuthorityOutput::StatusList {
                list: Arc::from(bytes),
                issued: Arc::clone(&self.issued),
            }),
            Err(error) => tracing::error!(%error, "the status list cannot be told"),
        }
        self.list = Some(list);
    }

    fn fail(&mut self, error: &StoreError) {
        let mut message = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            message.push_str(": ");
            message.push_str(&cause.to_string());
        }
        tracing::error!(
            error = message,
            hint = error.hint(),
            "the authority's store has failed"
        );
        let message = format!("authority: {message} ({})", error.hint());
        self.broken = Some(message.clone());
        self.status.ready = false;
        self.outputs.push_back(AuthorityOutput::Broken(message));
    }
}

/// How often a decision is taken again because other processes came first.
const TRIES_MAX: usize = 32;
/// How often the store is looked after.
const UPKEEP_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
