//! From when to when records were captured.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::time::{ClockQuality, WallTime};

/// The earliest and the latest capture time of some records, and whether every one of them can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Milliseconds since 1970; [`u64::MAX`] of no records.
    pub earliest: u64,
    /// Milliseconds since 1970; 0 of no records.
    pub latest: u64,
    /// Each was read off a clock that somebody vouched for.
    pub vouched: bool,
}

impl Captured {
    /// Of no records.
    pub const NOTHING: Self = Self {
        earliest: u64::MAX,
        latest: 0,
        vouched: true,
    };
    /// Of records about which nothing is known: at any time.
    pub const UNKNOWN: Self = Self {
        earliest: 0,
        latest: u64::MAX,
        vouched: false,
    };

    /// Takes one more record in.
    pub(super) fn include(&mut self, captured: WallTime) {
        self.earliest = self.earliest.min(captured.unix_millis);
        self.latest = self.latest.max(captured.unix_millis);
        self.vouched &= is_vouched(captured.quality);
    }

    /// Takes other records in.
    pub(super) fn merge(&mut self, other: &Self) {
        self.earliest = self.earliest.min(other.earliest);
        self.latest = self.latest.max(other.latest);
        self.vouched &= other.vouched;
    }

    /// Returns earliest and latest, if there are any and they are known.
    #[must_use]
    pub const fn times(&self) -> Option<(u64, u64)> {
        if self.earliest <= self.latest && self.latest != u64::MAX {
            Some((self.earliest, self.latest))
        } else {
            None
        }
    }
}

/// Returns whether somebody vouches for a clock of this quality, so that ages can be reckoned by it.
pub(super) const fn is_vouched(quality: ClockQuality) -> bool {
    match quality {
        ClockQuality::Authority | ClockQuality::Synchronised => true,
        ClockQuality::Unknown | ClockQuality::Floor => false,
    }
}
