//! Which names the other relays of a cluster hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{ClusterSettings, EntryKey, LeaseEntry, NameEntry};
use crate::{identity::Identifier, time::Instant};

/// A name that another relay holds, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteName<'a> {
    /// The name.
    pub name: &'a str,
    /// The relay that holds it.
    pub relay: Identifier,
    /// Since when it is registered there, as far as can be told.
    pub since: Instant,
}

/// What a directory has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryStats {
    /// Entries that could not be read.
    pub malformed: u64,
    /// Entries of relays that are not of the cluster.
    pub foreign: u64,
    /// Names that were not taken, since one relay had too many or all together.
    pub refused: u64,
    /// Leases of other relays that ended without being renewed.
    pub expired: u64,
}

/// The names of the other relays, as the store told them.
///
/// A name counts while its relay's lease does, and only in the life of the relay that the lease is of. Leases are reckoned from
/// when they were read, so no relay's clock has to be right.
///
/// Invariant: `names` has a relay for a name exactly if that relay's `names` have the name; `count` is the number of both.
#[derive(Debug)]
pub struct Directory {
    settings: ClusterSettings,
    relays: BTreeMap<Identifier, Peer>,
    names: BTreeMap<Box<str>, BTreeSet<Identifier>>,
    count: usize,
    /// Changes with each reading of the whole store.
    reading: u64,
    /// Since when the store is away; before the first reading it was never there.
    reach: Reach,
    stats: DirectoryStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// It was never reached.
    Never,
    /// All entries are being read.
    Reading,
    /// What it says is known.
    Current,
    Away,
}

#[derive(Debug, Default)]
struct Peer {
    lease: Option<Lease>,
    names: BTreeMap<Box<str>, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    epoch: u64,
    ends: Instant,
    reading: u64,
    /// Whether its end was counted.
    is_over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: u64,
    number: u64,
    since: Instant,
    reading: u64,
}

impl Directory {
    pub(super) const fn new(settings: ClusterSettings) -> Self {
        Self {
            settings,
            relays: BTreeMap::new(),
            names: BTreeMap::new(),
            count: 0,
            reading: 0,
            reach: Reach::Never,
            stats: DirectoryStats {
                malformed: 0,
                foreign: 0,
                refused: 0,
                expired: 0,
            },
        }
    }

    /// Returns the settings of the cluster.
    #[must_use]
    pub const fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// Returns the counters.
    #[must_use]
    pub const fn stats(&self) -> &DirectoryStats {
        &self.stats
    }

    /// Returns how many names are known of the others, those included whose relay's lease is over.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Returns whether no name is known.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns whether the store says what holds now.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        matches!(self.reach, Reach::Current)
    }

    /// Returns whether `relay` is another relay of the cluster.
    #[must_use]
    pub fn has_relay(&self, relay: &Identifier) -> bool {
        self.settings.relays.contains(relay)
    }

    /// Returns whether the lease of another relay counts, and how many of its names do.
    #[must_use]
    pub fn relay(&self, now: Instant, relay: &Identifier) -> (bool, usize) {
        let Some(peer) = self.relays.get(relay) else {
            return (false, 0);
        };
        let Some(epoch) = self.living(now, peer) else {
            return (false, 0);
        };
        let living = peer.names.values().filter(|held| held.epoch == epoch);
        (true, living.count())
    }

    /// Returns the relays that hold `name`, who registered it last first.
    pub fn holders(&self, now: Instant, name: &str) -> Vec<RemoteName<'_>> {
        let Some((name, relays)) = self.names.get_key_value(name) else {
            return Vec::new();
        };
        let mut holders: Vec<RemoteName<'_>> = relays
            .iter()
            .filter_map(|relay| {
                let peer = self.relays.get(relay)?;
                let held = peer.names.get(name)?;
                (self.living(now, peer) == Some(held.epoch)).then_some(RemoteName {
                    name,
                    relay: *relay,
                    since: held.since,
                })
            })
            .collect();
        holders.sort_by_key(|holder| std::cmp::Reverse((holder.since, holder.relay)));
        holders
    }

    /// Returns which life of a relay has a lease that counts.
    fn living(&self, now: Instant, peer: &Peer) -> Option<u64> {
        let lease = peer.lease?;
        (now < lease.ends + self.extra()).then_some(lease.epoch)
    }

    /// Returns how much longer leases count. While the whole store is being read a lease may be renewed there that has not
    /// been read yet.
    const fn extra(&self) -> Duration {
        match self.reach {
            Reach::Never | Reach::Current => Duration::ZERO,
            Reach::Reading | Reach::Away => self.settings.grace,
        }
    }

    pub(super) const fn count_malformed(&mut self) {
        self.stats.malformed += 1;
    }

    pub(super) const fn handle_begin(&mut self) {
        self.reading += 1;
        self.reach = Reach::Reading;
    }

    /// Forgets what did not come again.
    pub(super) fn handle_current(&mut self) {
        self.reach = Reach::Current;
        let reading = self.reading;
        let mut gone = Vec::new();
        for (relay, peer) in &mut self.relays {
            peer.lease = peer.lease.filter(|lease| lease.reading == reading);
            let old = peer.names.iter().filter(|(_, held)| held.reading != reading);
            gone.extend(old.map(|(name, _)| (*relay, name.clone())));
        }
        for (relay, name) in gone {
            self.forget(relay, &name);
        }
        self.relays
            .retain(|_, peer| peer.lease.is_some() || !peer.names.is_empty());
    }

    pub(super) fn handle_away(&mut self) {
        if self.reach != Reach::Never {
            self.reach = Reach::Away;
        }
    }

    pub(super) fn handle_entry(&mut self, now: Instant, key: &EntryKey<'_>, value: Option<&[u8]>) {
        match key {
            EntryKey::Lease(relay) => {
                if !self.has_relay(relay) {
                    self.stats.foreign += 1;
                    return;
                }
                self.handle_lease(now, *relay, value);
            }
            EntryKey::Name { relay, name } => {
                if !self.has_relay(relay) {
                    self.stats.foreign += 1;
                    return;
                }
                self.handle_name(now, *relay, name, value);
            }
        }
    }

    fn handle_lease(&mut self, now: Instant, relay: Identifier, value: Option<&[u8]>) {
        let Some(value) = value else {
            if let Some(peer) = self.relays.get_mut(&relay) {
                peer.lease = None;
            }
            return;
        };
        let Ok(entry) = LeaseEntry::decode(value) else {
            self.stats.malformed += 1;
            return self.handle_lease(now, relay, None);
        };
        self.relays.entry(relay).or_default().lease = Some(Lease {
            epoch: entry.epoch,
            ends: now + entry.lease,
            reading: self.reading,
            is_over: false,
        });
    }

    fn handle_name(&mut self, now: Instant, relay: Identifier, name: &str, value: Option<&[u8]>) {
        let Some(value) = value else {
            self.forget(relay, name);
            return;
        };
        let Ok(entry) = NameEntry::decode(value) else {
            // What was there before is there no more.
            self.stats.malformed += 1;
            self.forget(relay, name);
            return;
        };
        let peer = self.relays.entry(relay).or_default();
        let reading = self.reading;
        let held = peer.names.get_mut(name);
        let is_known = held.is_some();
        if let Some(held) = held.filter(|held| (held.epoch, held.number) == (entry.epoch, entry.number)) {
            // Told again: the name does not move in front of those that came later.
            held.reading = reading;
            return;
        }
        let is_full = peer.names.len() >= self.settings.names_per_relay_max;
        if !is_known && (is_full || self.count >= self.settings.names_max) {
            self.stats.refused += 1;
            return;
        }
        let since = Instant::from_nanos(
            now.as_nanos()
                .saturating_sub(u64::try_from(entry.age.as_nanos()).unwrap_or(u64::MAX)),
        );
        let held = Held {
            epoch: entry.epoch,
            number: entry.number,
            since,
            reading,
        };
        if peer.names.insert(name.into(), held).is_none() {
            self.count += 1;
            self.names.entry(name.into()).or_default().insert(relay);
        }
    }

    fn forget(&mut self, relay: Identifier, name: &str) {
        let Some(peer) = self.relays.get_mut(&relay) else {
            return;
        };
        if peer.names.remove(name).is_none() {
            return;
        }
        self.count -= 1;
        if let Some(relays) = self.names.get_mut(name) {
            relays.remove(&relay);
            if relays.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// Counts leases that are over. Their names stay in the table, bounded as they are, because a relay that was only slow
    /// renews one lease and has them all again.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let extra = self.extra();
        for peer in self.relays.values_mut() {
            if let Some(lease) = &mut peer.lease
                && !lease.is_over
                && now >= lease.ends + extra
            {
                lease.is_over = true;
                self.stats.expired += 1;
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let leases = self.relays.values().filter_map(|peer| peer.lease);
        let living = leases.filter(|lease| !lease.is_over);
        living.map(|lease| lease.ends + self.extra()).min()
    }
}
