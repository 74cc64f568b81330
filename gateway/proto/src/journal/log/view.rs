//! What can be seen of a lane.

use std::time::Duration;

use super::Journal;
use crate::{
    journal::{capture::Captured, cursor::Totals, format::SECTOR, gaps::Gap, output::JournalState},
    link::Class,
    time::Now,
};

/// What a journal has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Blocks written.
    pub commits: u64,
    /// Records committed.
    pub records: u64,
    /// Bytes of bodies committed.
    pub body_bytes: u64,
    /// Bytes given to the disk: blocks, segment headers, cursor slots.
    pub written_bytes: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Records refused.
    pub refused: u64,
    /// Records read back from disk.
    pub replayed: u64,
    /// Sequences found to be lost.
    pub lost: u64,
    /// Largest block in records.
    pub block_records_max: u64,
}

/// A lane as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneView {
    /// Whether it takes readings.
    pub state: JournalState,
    /// Bytes of its segments on the disk.
    pub bytes: u64,
    /// Their bound.
    pub bytes_max: u64,
    /// Records that some collector still needs.
    pub waiting: u64,
    /// The oldest of them; one more than `committed` if there are none.
    pub oldest: u64,
    /// When it was captured, in milliseconds since 1970; for a record that is not in memory, the earliest time in its segment.
    pub oldest_captured: Option<u64>,
    /// Highest sequence on stable storage.
    pub committed: u64,
    /// Bytes of blocks on the disk, needed or not, and the earliest and latest capture time of what they hold, in milliseconds
    /// since 1970.
    pub block_bytes: u64,
    /// See `block_bytes`; `None` if it is not known of every segment.
    pub captured: Option<(u64, u64)>,
    /// When it will be full, as things go; `None` while it drains.
    pub full_in: Option<Duration>,
    /// Bytes given to the disk per day, as things go.
    pub written_per_day: Option<u64>,
    /// Bytes given to the disk per 1,000 bytes of bodies, since the lane was begun.
    pub write_amplification_milli: Option<u64>,
    /// What was discarded and is not known to every collector, oldest first.
    pub gaps: Vec<Gap>,
    /// Since the start.
    pub stats: JournalStats,
    /// Since the lane was begun.
    pub totals: Totals,
}

impl Journal {
    /// Returns what an operator wants to know.
    #[must_use]
    pub fn view(&self, now: Now) -> LaneView {
        let (bytes, bytes_max) = self.bytes();
        let gone = self.gone();
        let held = self.held_bytes();
        let forecast = self.forecast.with(now.instant, held, self.totals.written_bytes);
        LaneView {
            state: self.state,
            bytes,
            bytes_max,
            waiting: self.committed.saturating_sub(gone),
            oldest: gone.saturating_add(1),
            oldest_captured: self.oldest_captured(),
            committed: self.committed,
            block_bytes: self.block_bytes(),
            captured: self.captured(),
            full_in: forecast.full_in(self.bytes_left()),
            written_per_day: forecast.written_per_day(),
            write_amplification_milli: self
                .totals
                .written_bytes
                .saturating_mul(1000)
                .checked_div(self.totals.body_bytes),
            gaps: self.gaps.iter().copied().collect(),
            stats: self.stats(),
            totals: self.totals,
        }
    }

    /// Returns the class of its records.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Returns whether what is written is encrypted, or a segment that was.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.key.is_some() || self.segments.values().any(|segment| segment.seal.is_some())
    }

    /// Returns which journal this is.
    #[must_use]
    pub const fn id(&self) -> &[u8; 16] {
        &self.id
    }

    /// Returns whether readings are taken.
    #[must_use]
    pub const fn state(&self) -> JournalState {
        self.state
    }

    /// Returns the highest sequence on stable storage.
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.committed
    }

    /// Returns the highest sequence that every collector has.
    #[must_use]
    pub const fn released(&self) -> u64 {
        self.released
    }

    /// Returns the highest sequence that the collector of `uplink` has.
    #[must_use]
    pub fn confirmed(&self, uplink: usize) -> Option<u64> {
        self.positions.get(uplink).map(|position| position.confirmed)
    }

    /// Returns the oldest sequence of which some collector still has to hear: the record, or that it was discarded.
    #[must_use]
    pub const fn first_available(&self) -> u64 {
        self.released.saturating_add(1)
    }

    /// Returns the oldest sequence that is still on disk, released or not; one more than [`Journal::committed`] if there is
    /// none.
    #[must_use]
    pub fn oldest_held(&self) -> u64 {
        let held = self.segments.values().filter(|segment| segment.first > 0);
        let first = held.map(|segment| segment.first).min();
        let behind_gaps = self.gaps.last().saturating_add(1);
        let nothing = self.committed.saturating_add(1);
        first.map_or(nothing, |first| first.max(behind_gaps))
    }

    /// Returns what was discarded and is not known to every collector, oldest first.
    pub fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter()
    }

    /// Returns how many gaps there are.
    #[must_use]
    pub fn gap_count(&self) -> usize {
        self.gaps.iter().count()
    }

    /// Returns the sequence that was given out last.
    #[must_use]
    pub const fn last_given(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Returns the bytes of records that wait to be written.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        // A record that was refused leaves the room for a block's header behind, and nothing to write.
        if self.pending.count == 0 {
            0
        } else {
            self.pending.block.len()
        }
    }

    /// Returns the bytes of all segments, and their bound.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let bytes = self
            .segments
            .values()
            .fold(0_u64, |bytes, segment| bytes.saturating_add(segment.size));
        (bytes, self.settings.bytes_max)
    }

    /// Returns the counters.
    #[must_use]
    pub const fn stats(&self) -> JournalStats {
        JournalStats {
            replayed: self.replay.records,
            ..self.stats
        }
    }

    /// Returns the bytes of records that are still needed; within a segment they are taken to be of equal length.
    pub(super) fn held_bytes(&self) -> u64 {
        let gone = self.gone();
        let held = self.segments.values().filter(|segment| segment.last > gone);
        held.fold(0_u64, |sum, segment| {
            let bytes = u128::from(segment.end.saturating_sub(SECTOR as u64));
            let records = u128::from(segment.last.saturating_sub(segment.first)).saturating_add(1);
            let needed = u128::from(segment.last.saturating_sub(gone)).min(records);
            let share = bytes.saturating_mul(needed).checked_div(records).unwrap_or(0);
            sum.saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
        })
    }

    /// Returns the bytes that can still be written before there is no room.
    fn bytes_left(&self) -> u64 {
        let (bytes, bytes_max) = self.bytes();
        let in_use = [self.current, self.spare]
            .into_iter()
            .flatten()
            .filter_map(|number| self.segments.get(&number));
        let started = in_use.fold(0_u64, |sum, segment| {
            sum.saturating_add(segment.size.saturating_sub(segment.end))
        });
        // What was released and not deleted yet will be room as well.
        let dead = self.block_bytes().saturating_sub(self.held_bytes());
        bytes_max
            .saturating_sub(bytes)
            .saturating_add(started)
            .saturating_add(dead)
    }

    fn block_bytes(&self) -> u64 {
        self.segments.values().fold(0_u64, |sum, segment| {
            sum.saturating_add(segment.end.saturating_sub(SECTOR as u64))
        })
    }

    /// Returns from when to when the records on disk were captured.
    fn captured(&self) -> Option<(u64, u64)> {
        let mut captured = Captured::NOTHING;
        for segment in self.segments.values().filter(|segment| segment.first > 0) {
            captured.merge(&segment.captured);
        }
        captured.times()
    }

    /// Returns when the oldest record that is needed was captured.
    fn oldest_captured(&self) -> Option<u64> {
        let oldest = self.gone().saturating_add(1);
        if oldest > self.committed {
            return None;
        }
        let captured = self.tail.captured(oldest).or_else(|| {
            let mut segments = self.segments.values();
            segments
                .find(|segment| segment.holds(oldest))
                .map(|segment| segment.captured)
        })?;
        captured.times().map(|(earliest, _)| earliest)
    }
}
