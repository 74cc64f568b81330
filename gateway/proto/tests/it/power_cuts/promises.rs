//! What was promised of one lane, and what may have become of it.

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_proto::{
    delivery::LostReason,
    journal::{JournalSettings, WhenFull},
};

/// A record that was appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    /// Unlike the sequence, never used again.
    pub(super) id: u64,
    /// What the wall clock said, in milliseconds.
    pub(super) captured: u64,
    /// When it really was, in milliseconds.
    pub(super) at: u64,
}

/// The oracle of one lane.
#[derive(Debug)]
pub(super) struct Promises {
    settings: JournalSettings,
    records: BTreeMap<u64, Appended>,
    /// Everything up to here was said to be on stable storage.
    pub(super) promised: u64,
    /// Sequences that were being written when the power went, and are there: all of them, or in part.
    unpromised: BTreeSet<u64>,
    /// Sequences whose bytes were damaged.
    rotten: BTreeSet<u64>,
    /// Sequences that the lane said it discarded, and when that was.
    discarded: BTreeMap<u64, u64>,
    /// The cursor was damaged: what it knew of discarded records may be forgotten.
    pub(super) cursor_was_damaged: bool,
}

impl Promises {
    pub(super) const fn new(settings: JournalSettings) -> Self {
        Self {
            settings,
            records: BTreeMap::new(),
            promised: 0,
            unpromised: BTreeSet::new(),
            rotten: BTreeSet::new(),
            discarded: BTreeMap::new(),
            cursor_was_damaged: false,
        }
    }

    pub(super) fn appended(&mut self, sequence: u64, record: Appended) {
        let last = self.records.keys().next_back().copied().unwrap_or(0);
        assert!(
            sequence > last.max(self.promised),
            "sequence {sequence} was given out before"
        );
        self.records.insert(sequence, record);
    }

    pub(super) fn committed(&mut self, up_to: u64) {
        assert!(up_to >= self.promised, "promises grow");
        self.promised = up_to;
    }

    /// The lane says that it discarded some.
    pub(super) fn discarded(&mut self, first: u64, last: u64, reason: LostReason, at: u64) {
        match reason {
            LostReason::Discarded => {
                assert_eq!(
                    self.settings.when_full,
                    WhenFull::DropOldest,
                    "discarded against its policy"
                );
            }
            LostReason::Expired => assert!(self.settings.ttl.is_some(), "expired against its policy"),
            // Missing in front of what was discarded: excused, or not, when a collector is told.
            LostReason::Corrupt => return,
            LostReason::Released => panic!("policy discards with no such reason"),
        }
        for sequence in first..=last {
            self.discarded.entry(sequence).or_insert(at);
        }
    }

    pub(super) fn rotted(&mut self, first: u64, last: u64) {
        self.rotten.extend(first..=last);
    }

    /// The gateway started again and has everything up to `committed`.
    pub(super) fn restarted(&mut self, committed: u64) {
        assert!(
            committed >= self.promised,
            "{} was promised, and {committed} is the last there is",
            self.promised
        );
        self.unpromised.extend(self.promised + 1..=committed);
        self.records.split_off(&(committed + 1));
        self.promised = committed;
    }

    /// A collector got a record.
    pub(super) fn delivered(&self, sequence: u64, id: u64) {
        let appended = self.records.get(&sequence);
        assert_eq!(
            appended.map(|record| record.id),
            Some(id),
            "record {sequence} is not what was appended there"
        );
    }

    /// A collector was told that some cannot be had any more.
    pub(super) fn lost(
        &self,
        (first, last): (u64, u64),
        reason: LostReason,
        captured: Option<(u64, u64)>,
        has_jumped: bool,
    ) {
        for sequence in first..=last {
            let discarded_at = self.discarded.get(&sequence);
            match reason {
                LostReason::Discarded => assert!(discarded_at.is_some(), "{sequence} was never discarded"),
                LostReason::Expired => {
                    assert!(discarded_at.is_some(), "{sequence} was never discarded");
                    self.expired(sequence, has_jumped);
                }
                LostReason::Corrupt => {
                    let is_excused = self.unpromised.contains(&sequence)
                        || self.rotten.contains(&sequence)
                        || (self.cursor_was_damaged && discarded_at.is_some());
                    assert!(
                        is_excused,
                        "{sequence} of {first} to {last} was promised and is lost"
                    );
                }
                LostReason::Released => {}
            }
            if let (Some((earliest, latest)), Some(record)) = (captured, self.records.get(&sequence)) {
                assert!(
                    (earliest..=latest).contains(&record.captured),
                    "{sequence} was captured at {}, outside of {earliest} to {latest}",
                    record.captured
                );
            }
        }
    }

    /// What has expired was old enough: by its own clock, which can be wrong only if it jumped.
    fn expired(&self, sequence: u64, has_jumped: bool) {
        let (Some(record), Some(at), Some(ttl)) = (
            self.records.get(&sequence),
            self.discarded.get(&sequence),
            self.settings.ttl,
        ) else {
            return;
        };
        let age = at.saturating_sub(record.at);
        // Where segments were discarded for both reasons the gap may bear either.
        let is_old = u128::from(age) >= ttl.as_millis() || self.settings.when_full == WhenFull::DropOldest;
        assert!(
            is_old || has_jumped,
            "{sequence} expired after {age} ms of {ttl:?}"
        );
    }
}
