//! What a relay shares with others of its cluster: which names are held where (PROTOCOL.md §16).
//!
//! ```text
//!  registrar ─held, gone─▶ Publisher ─Write─▶ store ─Entry─▶ Directory ─▶ which relay holds a name
//!  (of this relay)                            (of all)       (of the others)
//! ```
//!
//! The store is a directory and no authority: whoever forges an entry can misroute first messages, and nothing else, since
//! channels authenticate their ends. Every entry is bounded, and one that cannot be read is counted and left alone.

mod directory;
mod entry;
mod publisher;

use std::{collections::BTreeSet, time::Duration};

pub use directory::{Directory, DirectoryStats, RemoteName};
pub use entry::{EntryError, EntryKey, LeaseEntry, NameEntry};
pub use publisher::{Publisher, PublisherStats, StoreWrite, WriteFailed};

use crate::{entropy::Entropy, identity::Identifier, time::Instant};

/// How a relay takes part in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// This relay.
    pub own: Identifier,
    /// The others. What the store says of anyone else is ignored.
    pub relays: BTreeSet<Identifier>,
    /// How long this relay's names hold unless it renews its lease; renewed at a third of it.
    pub lease: Duration,
    /// How much longer the others' leases count while this relay does not reach the store.
    pub grace: Duration,
    /// Names that are known of one other relay.
    pub names_per_relay_max: usize,
    /// Names that are known of all others together, and names that this relay publishes.
    pub names_max: usize,
}

impl ClusterSettings {
    /// Returns the settings of a relay with the usual times and limits: 15 s of lease, 5 min of grace, 65,536 names of one relay
    /// and 262,144 of all.
    #[must_use]
    pub const fn new(own: Identifier, relays: BTreeSet<Identifier>) -> Self {
        Self {
            own,
            relays,
            lease: Duration::from_secs(15),
            grace: Duration::from_secs(300),
            names_per_relay_max: 65_536,
            names_max: 262_144,
        }
    }
}

/// What the store has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// All entries come now, and then every change: what does not come is not there.
    Begin,
    /// An entry is there, or has changed.
    Entry {
        /// Its key.
        key: String,
        /// The store's number of the change; each is greater than all before.
        revision: u64,
        /// What it says; `None` if it was deleted.
        value: Option<Vec<u8>>,
    },
    /// Everything that was there has come; from now on there are changes only.
    Current,
    /// What became of a write.
    Written {
        /// The number of the write.
        ticket: u64,
        /// The revision it has, or why it failed.
        result: Result<u64, WriteFailed>,
    },
    /// The store is not reached any more.
    Away,
}

/// A relay's part of a cluster (PROTOCOL.md §16).
#[derive(Debug)]
pub struct Cluster {
    directory: Directory,
    publisher: Publisher,
}

impl Cluster {
    /// Makes the part of a relay that has just started: it draws the number of this life of the relay.
    #[must_use]
    pub fn new(now: Instant, entropy: &mut dyn Entropy, settings: ClusterSettings) -> Self {
        Self {
            publisher: Publisher::new(now, entropy.u64(), &settings),
            directory: Directory::new(settings),
        }
    }

    /// Returns what is known of the others.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Returns what the others are told.
    #[must_use]
    pub const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Takes what the store has to say.
    pub fn handle_event(&mut self, now: Instant, event: &StoreEvent) {
        match event {
            StoreEvent::Begin => {
                self.directory.handle_begin();
                self.publisher.handle_begin();
            }
            StoreEvent::Entry { key, revision, value } => match EntryKey::decode(key) {
                Ok(EntryKey::Lease(relay) | EntryKey::Name { relay, .. })
                    if relay == self.publisher.own() =>
                {
                    self.publisher.handle_entry(now, key, *revision, value.as_deref());
                }
                Ok(key) => self.directory.handle_entry(now, &key, value.as_deref()),
                Err(_) => self.directory.count_malformed(),
            },
            StoreEvent::Current => {
                self.directory.handle_current();
                self.publisher.handle_current(now);
            }
            StoreEvent::Written { ticket, result } => self.publisher.handle_written(now, *ticket, *result),
            StoreEvent::Away => {
                self.directory.handle_away();
                self.publisher.handle_away();
            }
        }
    }

    /// Learns since when a name is held at this relay, `None` if it is not.
    pub fn handle_local(&mut self, now: Instant, name: &str, since: Option<Instant>) {
        self.publisher.handle_local(now, name, since);
    }

    /// Drops what has ended.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.directory.handle_timeout(now);
    }

    /// Returns the next thing to write; ask until `None` after every `handle_*`, and at [`Cluster::poll_timeout`].
    pub fn poll_write(&mut self, now: Instant) -> Option<StoreWrite> {
        self.publisher.poll_write(now)
    }

    /// Returns when [`Cluster::handle_timeout`] and [`Cluster::poll_write`] want to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.directory.poll_timeout(), self.publisher.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

#[cfg(test)]
mod tests;
