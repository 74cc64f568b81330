//! What an authority does beside others of the same identity: it takes over what they have decided, and decides nothing while it does
//! not know.

use std::time::Duration;

use fieldgate_proto::time::{Instant, Now};

use super::{Engine, Recent, founding};
use crate::authority::{StoreError, status::AuthorityClusterStatus, store::Touched};

/// Whether the log can be followed.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Why not.
    halted: Option<String>,
    /// When it is looked at next.
    due: Instant,
}

impl Cluster {
    /// One of several processes knows nothing of the others before it has looked for the first time.
    pub(super) fn new(now: Instant, is_clustered: bool) -> Self {
        Self {
            halted: is_clustered.then(|| NOT_LOOKED.to_owned()),
            due: now,
        }
    }

    /// Returns why nothing is decided now.
    pub(super) fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// Returns when the log is looked at next.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }
}

impl Engine {
    /// Looks at the log if it is time; `None` if nothing can be decided now.
    pub(super) fn follow(&mut self, now: Now) -> Option<()> {
        if self.store.is_clustered() && now.instant >= self.cluster.due {
            self.catch_up(now)?;
            self.align(now);
        }
        self.cluster.halted.is_none().then_some(())
    }

    /// Takes over what others have decided; `None` if that is not known. After a failure the log is left alone for a moment, so that
    /// requests do not wait for it one after the other.
    pub(super) fn catch_up(&mut self, now: Now) -> Option<()> {
        if !self.store.is_clustered() {
            return Some(());
        }
        if self.cluster.halted.is_some() && now.instant < self.cluster.due {
            return None;
        }
        let caught_up = self
            .store
            .catch_up()
            .and_then(|touched| self.take_touched(&touched));
        match caught_up {
            Ok(()) => {
                if self.cluster.halted.take().is_some() {
                    tracing::info!("the cluster's log is followed");
                }
                self.cluster.due = now.instant + FOLLOW_EVERY;
                Some(())
            }
            Err(error) => {
                self.stop_for(now, &error);
                None
            }
        }
    }

    /// Brings the store in line with the settings once, as soon as it has what the log says.
    fn align(&mut self, now: Now) {
        let Some(held) = self.unaligned.take() else {
            return;
        };
        let settings = self.settings.clone();
        let authority = self.history.identifier();
        let aligned = self.transact(now, None, |turn| {
            let aligned = founding::align(turn.batch, now.wall, &settings, &authority, held.as_ref())?;
            turn.changes.issued_changed = true;
            Ok(aligned)
        });
        match aligned {
            Some((complaints, found)) => {
                self.complaints = complaints;
                self.found = found;
            }
            None => self.unaligned = Some(held),
        }
    }

    /// Stops deciding because of an error: until the log serves, or for good.
    pub(super) fn stop_for(&mut self, now: Now, error: &StoreError) {
        if !error.is_of_log() {
            self.fail(error);
            return;
        }
        self.cluster.due = now.instant + RETRY_AFTER;
        let reason = format!("{error} ({})", error.hint());
        if self.cluster.halted.as_ref() != Some(&reason) {
            tracing::warn!(%error, hint = error.hint(), "the authority decides nothing");
        }
        self.cluster.halted = Some(reason);
    }

    /// Takes over into memory what others have written into the store.
    fn take_touched(&mut self, touched: &Touched) -> Result<(), StoreError> {
        if !touched.any {
            return Ok(());
        }
        if touched.identities.len() > IDENTITIES_MAX {
            self.recent = Recent::default();
        }
        for identity in &touched.identities {
            self.recent.remove(identity);
        }
        let (list, number, issued) = self
            .store
            .batch(|batch| Ok((batch.list()?, batch.list_number(), batch.issued_lists()?)))?;
        self.issued = issued.into();
        if let Some(list) = list
            && self.list.as_ref() != Some(&list)
        {
            self.publish(list);
        }
        self.list_is_behind = self.list.as_ref().is_none_or(|list| list.number < number);
        Ok(())
    }

    /// Returns how the log is followed, for status.
    pub(super) fn cluster_status(&self) -> Option<AuthorityClusterStatus> {
        let (log, server, entry, stats) = self.store.replication()?;
        Some(AuthorityClusterStatus {
            log: log.to_owned(),
            server,
            halted: self.cluster.halted.clone(),
            entry,
            taken: stats.taken,
            written: stats.written,
            late: stats.late,
        })
    }
}

/// How often the log is looked at when nothing is asked.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// How long it is left alone after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Why nothing is decided at first.
const NOT_LOOKED: &str = "the cluster's log has not been looked at yet";
/// With more identities than that, everything issued a moment ago is forgotten at once.
const IDENTITIES_MAX: usize = 4_096;

#[cfg(test)]
mod tests;
