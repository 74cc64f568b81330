//! Bounds and policy of one lane.

use std::time::Duration;

/// Bounds of a journal, and what it does at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// Bytes of all segments together; at least three segments.
    pub bytes_max: u64,
    /// Bytes of one segment, a multiple of 4,096, at least [`SEGMENT_BYTES_MIN`].
    pub segment_bytes: u64,
    /// Bytes of committed records kept in memory.
    pub tail_bytes_max: usize,
    /// Bytes of records that wait for the write in flight, at the most, one record more; 1 to 900 KiB, and less where two
    /// blocks of that would not fit a segment.
    pub pending_bytes_max: usize,
    /// How old a record may become before it is discarded; it may be a quarter older, as whole segments are.
    pub ttl: Option<Duration>,
    /// What happens when there is no room.
    pub when_full: WhenFull,
}

/// What a lane does when its own bound or the disk leaves no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It takes nothing more.
    Refuse,
    /// It discards its oldest segment, whose records become a gap.
    DropOldest,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 30,
            segment_bytes: 8 << 20,
            tail_bytes_max: 4 << 20,
            pending_bytes_max: PENDING_BYTES_MAX,
            ttl: None,
            when_full: WhenFull::Refuse,
        }
    }
}

/// Shortest segment: two blocks of the longest record fit, with as much again.
pub const SEGMENT_BYTES_MIN: u64 = 256 << 10;

/// Bytes of records that may wait: with one record more they are still a block.
pub(super) const PENDING_BYTES_MAX: usize = 900 << 10;
