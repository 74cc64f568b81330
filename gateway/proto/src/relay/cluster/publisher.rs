//! What a relay tells the others of its cluster.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{ClusterSettings, EntryKey, LeaseEntry, NameEntry};
use crate::{identity::Identifier, time::Instant};

/// Something to do at the store. Each write is answered by one [`StoreEvent::Written`](super::StoreEvent::Written).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreWrite {
    /// Set an entry.
    Put {
        /// The number of the write.
        ticket: u64,
        /// The entry's key.
        key: String,
        /// What it shall say.
        value: Vec<u8>,
    },
    /// Delete an entry, whether it is there or not.
    Delete {
        /// The number of the write.
        ticket: u64,
        /// The entry's key.
        key: String,
    },
    /// Read everything again: changes do not come any more, although writes are taken.
    Reread,
}

/// Why a write failed. It may have been done nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteFailed;

/// What a publisher has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublisherStats {
    /// Entries written, leases included.
    pub written: u64,
    /// Writes that failed.
    pub failed: u64,
    /// Names that are not published, since there are too many.
    pub refused: u64,
    /// Times somebody else wrote this relay's lease: another process has its identity.
    pub conflicts: u64,
    /// Times everything was read again, since changes did not come.
    pub reread: u64,
}

/// Keeps a relay's entries in the store as they should be.
///
/// It compares what is held here with what the store was last heard to say, and writes the difference. So a write whose answer
/// was lost, or that was done late, is put right by what the store says of it.
///
/// Invariant: a name stands in `dirty`, in `old` or in `writing` if `wanted` and `stored` differ in it.
#[derive(Debug)]
pub struct Publisher {
    own: Identifier,
    epoch: u64,
    lease: Duration,
    names_max: usize,
    wanted: BTreeMap<Box<str>, Wanted>,
    stored: BTreeMap<Box<str>, Stored>,
    dirty: BTreeSet<Box<str>>,
    /// Names that an earlier life of this relay left, until it is time to delete them.
    old: BTreeSet<Box<str>>,
    old_until: Instant,
    writes: BTreeMap<u64, Write>,
    writing: BTreeSet<Box<str>>,
    next_number: u64,
    next_ticket: u64,
    reach: Reach,
    reading: u64,
    lease_due: Instant,
    lease_state: LeaseState,
    /// When everything is read again, unless the lease comes back before.
    reread_at: Option<Instant>,
    retry_at: Option<Instant>,
    stats: PublisherStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Away,
    Reading,
    Current,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    number: u64,
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    /// Epoch and number, `None` if it was deleted.
    what: Option<(u64, u64)>,
    /// Of the change that was heard of last; 0 if there was none.
    revision: u64,
    reading: u64,
}

#[derive(Debug)]
enum Write {
    Lease,
    Name {
        name: Box<str>,
        what: Option<(u64, u64)>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseState {
    Idle,
    Writing,
}

impl Publisher {
    pub(super) const fn new(now: Instant, epoch: u64, settings: &ClusterSettings) -> Self {
        Self {
            own: settings.own,
            epoch,
            lease: settings.lease,
            names_max: settings.names_max,
            wanted: BTreeMap::new(),
            stored: BTreeMap::new(),
            dirty: BTreeSet::new(),
            old: BTreeSet::new(),
            old_until: now,
            writes: BTreeMap::new(),
            writing: BTreeSet::new(),
            next_number: 1,
            next_ticket: 1,
            reach: Reach::Away,
            reading: 0,
            lease_due: now,
            lease_state: LeaseState::Idle,
            reread_at: None,
            retry_at: None,
            stats: PublisherStats {
                written: 0,
                failed: 0,
                refused: 0,
                conflicts: 0,
                reread: 0,
            },
        }
    }

    /// Returns the counters.
    #[must_use]
    pub const fn stats(&self) -> &PublisherStats {
        &self.stats
    }

    /// Returns how many names the others are to know of.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.wanted.len()
    }

    /// Returns how many names the store does not have yet, or has although they are gone.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.dirty.len() + self.old.len() + self.writing.len()
    }

    pub(super) const fn own(&self) -> Identifier {
        self.own
    }

    pub(super) fn handle_local(&mut self, now: Instant, name: &str, since: Option<Instant>) {
        match since {
            None => {
                self.wanted.remove(name);
            }
            Some(since) => {
                let before = self.wanted.get(name);
                if before.is_some_and(|before| before.since == since) {
                    return;
                }
                if before.is_none() && self.wanted.len() >= self.names_max {
                    self.stats.refused += 1;
                    return;
                }
                let number = self.next_number;
                self.next_number += 1;
                self.wanted.insert(name.into(), Wanted { number, since });
            }
        }
        self.compare(now, name);
    }

    pub(super) fn handle_begin(&mut self) {
        self.reach = Reach::Reading;
        self.reading += 1;
        self.reread_at = None;
        self.retry_at = None;
    }

    pub(super) fn handle_away(&mut self) {
        self.reach = Reach::Away;
        self.reread_at = None;
    }

    /// Everything that is there was told.
    pub(super) fn handle_current(&mut self, now: Instant) {
        self.reach = Reach::Current;
        let reading = self.reading;
        self.stored.retain(|_, stored| stored.reading == reading);
        // What an earlier life left counts for nobody; who held it is given time to come back, which spares a write.
        if reading == 1 {
            self.old_until = now + self.lease;
        }
        let names: BTreeSet<Box<str>> = self.wanted.keys().chain(self.stored.keys()).cloned().collect();
        for name in names {
            self.compare(now, &name);
        }
    }

    /// Takes what the store says of this relay itself.
    pub(super) fn handle_entry(&mut self, now: Instant, key: &str, revision: u64, value: Option<&[u8]>) {
        match EntryKey::decode(key) {
            Ok(EntryKey::Lease(_)) => {
                let epoch = value.and_then(|value| LeaseEntry::decode(value).ok());
                if epoch.is_some_and(|entry| entry.epoch == self.epoch) {
                    self.reread_at = None;
                } else if self.stats.written > 0 && self.reach == Reach::Current {
                    self.stats.conflicts += 1;
                }
            }
            Ok(EntryKey::Name { name, .. }) => {
                // What cannot be read is there all the same, and is of no life.
                let what = value.map(|value| {
                    NameEntry::decode(value).map_or(UNKNOWN, |entry| (entry.epoch, entry.number))
                });
                self.handle_name(now, &name, revision, what);
            }
            Err(_) => {}
        }
    }

    fn handle_name(&mut self, now: Instant, name: &str, revision: u64, what: Option<(u64, u64)>) {
        let reading = self.reading;
        match self.stored.get_mut(name) {
            Some(stored) => {
                stored.reading = reading;
                if revision < stored.revision {
                    return;
                }
                stored.revision = revision;
                stored.what = what;
                if what.is_none() && !self.writing.contains(name) {
                    self.stored.remove(name);
                }
            }
            None => {
                if what.is_none() || self.stored.len() >= self.names_max.saturating_mul(2) {
                    return;
                }
                let stored = Stored {
                    what,
                    revision,
                    reading,
                };
                self.stored.insert(name.into(), stored);
            }
        }
        self.compare(now, name);
    }

    pub(super) fn handle_written(&mut self, now: Instant, ticket: u64, result: Result<u64, WriteFailed>) {
        let Some(write) = self.writes.remove(&ticket) else {
            return;
        };
        match result {
            Ok(_) => self.stats.written += 1,
            Err(WriteFailed) => {
                self.stats.failed += 1;
                self.retry_at = Some(now + RETRY);
            }
        }
        match write {
            Write::Lease => {
                self.lease_state = LeaseState::Idle;
                if result.is_ok() {
                    self.lease_due = now + self.lease / 3;
                    self.reread_at.get_or_insert(now + self.lease);
                } else {
                    self.lease_due = now;
                }
            }
            Write::Name { name, what } => {
                self.writing.remove(&name);
                let revision = result.unwrap_or(0);
                let reading = self.reading;
                let stored = self.stored.entry(name.clone()).or_insert(Stored {
                    what: None,
                    revision: 0,
                    reading,
                });
                if result.is_err() {
                    stored.what = Some(UNKNOWN);
                } else if revision > stored.revision {
                    stored.what = what;
                    stored.revision = revision;
                } else if stored.what.is_none() {
                    // The store has told of this deletion already; otherwise the entry waits for it here.
                    self.stored.remove(&name);
                }
                self.compare(now, &name);
            }
        }
    }

    /// Sees to a name in which the store is to be changed.
    fn compare(&mut self, now: Instant, name: &str) {
        let wanted = self.wanted.get(name).map(|wanted| (self.epoch, wanted.number));
        let stored = self.stored.get(name).and_then(|stored| stored.what);
        if wanted == stored {
            self.dirty.remove(name);
            self.old.remove(name);
        } else if self.writing.contains(name) {
            // It is compared again after the write.
        } else if wanted.is_none()
            && stored.is_some_and(|(epoch, _)| epoch != self.epoch)
            && now < self.old_until
        {
            self.old.insert(name.into());
        } else {
            self.old.remove(name);
            self.dirty.insert(name.into());
        }
    }

    pub(super) fn poll_write(&mut self, now: Instant) -> Option<StoreWrite> {
        if self.reach == Reach::Away || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        if self.reread_at.is_some_and(|at| now >= at) {
            self.reread_at = None;
            self.stats.reread += 1;
            return Some(StoreWrite::Reread);
        }
        if self.lease_state == LeaseState::Idle && now >= self.lease_due {
            self.lease_state = LeaseState::Writing;
            let ticket = self.begin(Write::Lease);
            let entry = LeaseEntry {
                epoch: self.epoch,
                lease: self.lease,
            };
            return Some(StoreWrite::Put {
                ticket,
                key: EntryKey::Lease(self.own).encode(),
                value: entry.encode(),
            });
        }
        if self.reach != Reach::Current || self.writes.len() >= WRITES_MAX {
            return None;
        }
        if now >= self.old_until {
            self.dirty.append(&mut self.old);
        }
        let name = self.dirty.pop_first()?;
        let key = EntryKey::Name {
            relay: self.own,
            name: Cow::Borrowed(&name),
        }
        .encode();
        self.writing.insert(name.clone());
        Some(match self.wanted.get(&name).copied() {
            Some(wanted) => {
                let what = Some((self.epoch, wanted.number));
                let ticket = self.begin(Write::Name { name, what });
                let entry = NameEntry {
                    epoch: self.epoch,
                    number: wanted.number,
                    age: now.saturating_since(wanted.since),
                };
                StoreWrite::Put {
                    ticket,
                    key,
                    value: entry.encode(),
                }
            }
            None => {
                let ticket = self.begin(Write::Name { name, what: None });
                StoreWrite::Delete { ticket, key }
            }
        })
    }

    fn begin(&mut self, write: Write) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.writes.insert(ticket, write);
        ticket
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.reach == Reach::Away {
            return None;
        }
        let lease = (self.lease_state == LeaseState::Idle).then_some(self.lease_due);
        let room = self.reach == Reach::Current && self.writes.len() < WRITES_MAX;
        let dirty = (room && !self.dirty.is_empty()).then_some(Instant::START);
        let old = (room && !self.old.is_empty()).then_some(self.old_until);
        let next = [lease, dirty, old, self.reread_at].into_iter().flatten().min()?;
        Some(self.retry_at.map_or(next, |retry| next.max(retry)))
    }
}

/// An entry of which it is not known whether it is there, and what it says: numbers of registrations begin with 1.
const UNKNOWN: (u64, u64) = (0, 0);
/// Writes on their way at the same time, beside that of the lease.
const WRITES_MAX: usize = 256;
/// How long after a failed write the next begins.
const RETRY: Duration = Duration::from_secs(1);
