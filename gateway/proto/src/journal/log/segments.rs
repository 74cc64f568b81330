//! A lane's segments: made ahead of need, deleted when nobody needs them, discarded by policy; and the cursor in between.

use std::time::Duration;

use super::{CursorWrite, Journal, RETRY_INTERVAL, Segment};
use crate::{
    delivery::LostReason,
    journal::{
        Output, WhenFull, WriteFailed,
        capture::{Captured, is_vouched},
        cursor::{CursorContent, Position, UPLINKS_MAX},
        format::SECTOR,
        gaps::Gap,
        output::JournalState,
    },
    time::{Instant, Now},
};

impl Journal {
    /// Finds each uplink's position, and goes on where the last life ended.
    pub(super) fn begin(&mut self, uplinks: &[u64], unfinished: &[u64]) {
        let stored = self.cursor.content.clone();
        // An uplink that is new begins at what the lane still has. Without a cursor all begin where the lane surely is.
        let fresh = if self.cursor.is_new() {
            self.released
        } else {
            self.gone()
        };
        let uplinks = uplinks.iter().take(UPLINKS_MAX);
        self.positions = uplinks
            .map(|uplink| {
                let known = stored.positions.iter().find(|known| known.uplink == *uplink);
                let confirmed = known.map_or(fresh, |known| known.confirmed.max(self.released));
                Position {
                    uplink: *uplink,
                    confirmed: confirmed.min(self.committed),
                }
            })
            .collect();
        let lowest = self.positions.iter().map(|position| position.confirmed).min();
        self.released = lowest.unwrap_or(self.released);
        self.gaps.forget(self.released);
        for number in unfinished {
            self.shrink(*number);
        }
        if self.content() == stored {
            self.delete_freed();
        } else {
            // Blocks say more than the cursor, or the uplinks have changed: before anything is deleted it has to be told.
            self.write_cursor();
        }
        self.create_ahead();
    }

    /// Takes the end of a creation.
    pub fn handle_created(&mut self, now: Instant, segment: u64, result: Result<(), WriteFailed>) {
        if self.creating != Some(segment) {
            return;
        }
        self.creating = None;
        match result {
            Ok(()) => {
                self.create_failed = None;
                self.count_written(SECTOR as u64);
                let empty = Segment {
                    first: 0,
                    last: 0,
                    end: SECTOR as u64,
                    size: self.settings.segment_bytes,
                    sealed: false,
                    captured: Captured::NOTHING,
                    seal: self.key.as_ref().map(|(_, seal)| *seal),
                    seen: None,
                };
                self.segments.insert(segment, empty);
                self.spare = Some(segment);
                let can_go_on = match self.state {
                    JournalState::Ready => false,
                    JournalState::Full => true,
                    // What failed to be written has to be written first.
                    JournalState::Failed => self.retry.is_none(),
                };
                if can_go_on {
                    self.change_state(JournalState::Ready);
                }
                self.write_next();
            }
            Err(failed) => {
                self.stats.write_errors = self.stats.write_errors.saturating_add(1);
                self.retry_at = Some(now + RETRY_INTERVAL);
                self.create_failed = Some(failed);
                if failed == WriteFailed::NoRoom {
                    self.make_room();
                }
                // While the current segment has room nothing is lost yet; the next append that does not fit says Full.
                if self.current.is_none() {
                    self.change_state(failed.state());
                }
            }
        }
    }

    /// Gives up what it can when the disk is full.
    fn make_room(&mut self) {
        let is_idle = self.in_flight.is_none() && self.retry.is_none() && self.pending.count == 0;
        if is_idle && self.committed <= self.gone_safe {
            // Nobody needs anything: even the segment in use goes, and with the next one comes another witness.
            self.leave_current();
            for number in std::mem::take(&mut self.segments).into_keys() {
                self.replay.forget(number);
                self.outputs.push_back(Output::Delete { segment: number });
            }
        } else if self.may_discard() && self.is_short() {
            // One at a time: whoever else fills the disk may soon have finished.
            self.discard_oldest();
        }
    }

    /// Returns whether there is little room left in the segment that is written to.
    pub(in crate::journal) fn is_short(&self) -> bool {
        self.room() < self.settings.segment_bytes / SHORT_SHARE
    }

    /// Takes the end of a cursor write.
    pub fn handle_cursor_written(&mut self, now: Instant, result: Result<(), WriteFailed>) {
        let Some(written) = self.cursor_writing.take() else {
            return;
        };
        if result.is_err() {
            self.stats.write_errors = self.stats.write_errors.saturating_add(1);
            self.cursor_due = Some(now + CURSOR_INTERVAL);
            return;
        }
        self.cursor.confirm();
        self.count_written(SECTOR as u64);
        self.gone_safe = self.gone_safe.max(written.gone);
        self.sealed_safe = self.sealed_safe.max(written.sealed);
        self.delete_freed();
        self.create_ahead();
        let is_waited_for = self.gaps.last() > written.gone || self.gaps.sealed() > written.sealed;
        if is_waited_for && self.cursor_writing.is_none() {
            self.write_cursor();
        } else if self.released > written.released {
            self.cursor_due = Some(now + CURSOR_INTERVAL);
        }
    }

    /// Takes the word that the collector of `uplink`, by its place among those given to the recovery, has everything up to
    /// `up_to`.
    pub fn handle_confirmed(&mut self, now: Instant, uplink: usize, up_to: u64) {
        self.clock = now;
        let up_to = up_to.min(self.committed);
        let Some(position) = self
            .positions
            .get_mut(uplink)
            .filter(|position| up_to > position.confirmed)
        else {
            return;
        };
        position.confirmed = up_to;
        self.cursor_due.get_or_insert(now + CURSOR_INTERVAL);
        let lowest = self.positions.iter().map(|position| position.confirmed).min();
        let lowest = lowest.unwrap_or(self.released);
        if lowest <= self.released {
            return;
        }
        self.released = lowest;
        self.tail.release(lowest);
        self.gaps.forget(lowest);
        self.observe(now);
        let frees = self.free_segments(self.gone()).next().is_some();
        if frees && self.cursor_writing.is_none() {
            self.write_cursor();
        }
    }

    /// Writes the cursor, tries again what failed, and discards what is too old, whatever is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.clock = now.instant;
        if self.reread_at.is_some_and(|at| now.instant >= at) {
            self.reread_at = None;
        }
        if self.cursor_due.is_some_and(|due| now.instant >= due) {
            self.cursor_due = None;
            if self.cursor_writing.is_none() && !self.cursor.holds(&self.content()) {
                self.write_cursor();
            }
        }
        if self.retry_at.is_some_and(|at| now.instant >= at) {
            self.retry_at = None;
            self.create_ahead();
            self.write_next();
        }
        if self.expire_at.is_some_and(|at| now.instant >= at) {
            self.expire(now);
        }
        self.observe(now.instant);
    }

    /// Returns when [`Journal::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expire_at = self.expire_at.filter(|_| self.committed > self.gone());
        [self.cursor_due, self.retry_at, self.reread_at, expire_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns whether the policy of this lane allows to discard what is in the way.
    pub(in crate::journal) fn may_discard(&self) -> bool {
        self.settings.when_full == WhenFull::DropOldest
    }

    /// Returns up to where nothing is needed any more: released, or discarded.
    pub(super) fn gone(&self) -> u64 {
        self.released.max(self.gaps.last())
    }

    /// Returns whether a segment will be free as soon as the cursor says so.
    pub(super) fn is_making_room(&self) -> bool {
        self.cursor_writing
            .is_some_and(|written| written.gone > self.gone_safe)
    }

    /// Has a segment created if none is spare and the bound allows it.
    pub(super) fn create_ahead(&mut self) {
        if self.spare.is_some() || self.creating.is_some() || self.retry_at.is_some() {
            return;
        }
        if !self.has_room_for_segment() {
            // A segment that was in use when its records were released, and is not any more.
            self.delete_freed();
        }
        if !self.has_room_for_segment() {
            let is_waiting = self.gone() > self.gone_safe;
            if self.may_discard() && !is_waiting {
                self.discard_oldest();
            }
            return;
        }
        let number = self.next_segment;
        self.next_segment = number.saturating_add(1);
        self.creating = Some(number);
        let seal = self.key.as_ref().map(|(_, seal)| *seal);
        self.outputs.push_back(Output::Create {
            segment: number,
            segment_bytes: self.settings.segment_bytes,
            header: self.header_of(number, seal).encode(),
        });
    }

    /// Writes no more to the current segment.
    pub(super) fn leave_current(&mut self) {
        let Some(number) = self.current.take() else {
            return;
        };
        let Some(segment) = self.segments.get_mut(&number) else {
            return;
        };
        segment.sealed = true;
        if segment.first > 0 {
            self.previous = (number, segment.captured);
        }
        if segment.size.saturating_sub(segment.end) >= self.settings.segment_bytes / SHRINK_SHARE {
            self.shrink(number);
        }
    }

    /// Gives back the space behind the last block of a segment.
    fn shrink(&mut self, number: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.size = segment.end;
            self.outputs.push_back(Output::Shrink {
                segment: number,
                bytes: segment.end,
            });
        }
    }

    fn content(&self) -> CursorContent {
        CursorContent {
            released: self.released,
            positions: self.positions.clone(),
            gaps: self.gaps.clone(),
            totals: self.totals,
        }
    }

    pub(super) fn write_cursor(&mut self) {
        let content = self.content();
        self.cursor_writing = Some(CursorWrite {
            released: content.released,
            gone: content.gone(),
            sealed: content.gaps.sealed(),
        });
        self.cursor_due = None;
        let (offset, bytes) = self.cursor.advance(content);
        self.outputs.push_back(Output::WriteCursor { offset, bytes });
    }

    fn is_in_use(&self, number: u64) -> bool {
        self.current == Some(number)
            || self.spare == Some(number)
            || self
                .in_flight
                .as_ref()
                .is_some_and(|written| written.segment == number)
    }

    /// Returns the segments that hold nothing after `gone` and are not written to any more. The one with the highest sequences
    /// stays: without a cursor it is all that tells which sequences were given out.
    fn free_segments(&self, gone: u64) -> impl Iterator<Item = u64> {
        let with_records = self.segments.iter().filter(|(_, segment)| segment.first > 0);
        let newest = with_records.max_by_key(|(_, segment)| segment.last);
        let newest = newest.map(|(number, _)| *number);
        self.segments
            .iter()
            .filter(move |(number, segment)| {
                segment.last <= gone && Some(**number) != newest && !self.is_in_use(**number)
            })
            .map(|(number, _)| *number)
    }

    fn has_room_for_segment(&self) -> bool {
        let (bytes, bytes_max) = self.bytes();
        bytes.saturating_add(self.settings.segment_bytes) <= bytes_max
    }

    /// Deletes segments that the cursor on disk frees.
    fn delete_freed(&mut self) {
        let free: Vec<u64> = self.free_segments(self.gone_safe).collect();
        for number in free {
            self.segments.remove(&number);
            self.replay.forget(number);
            self.outputs.push_back(Output::Delete { segment: number });
        }
    }

    /// Discards the oldest segment that is not in use.
    pub(in crate::journal) fn discard_oldest(&mut self) {
        let gone = self.gone();
        let oldest = self
            .segments
            .iter()
            .filter(|(number, segment)| !self.is_in_use(**number) && segment.last > gone)
            .min_by_key(|(_, segment)| segment.first)
            .map(|(_, segment)| *segment);
        if let Some(segment) = oldest {
            self.discard(&segment, LostReason::Discarded);
        }
    }

    /// Makes a gap of everything up to the end of a segment. It is deleted when the cursor says so on stable storage.
    fn discard(&mut self, segment: &Segment, reason: LostReason) {
        let gone = self.gone();
        if segment.first > gone.saturating_add(1) {
            // What should stand before it is not there, and not because of any policy.
            let missing = segment.first.saturating_sub(1);
            self.gaps.extend(Gap {
                first: gone.saturating_add(1),
                last: missing,
                reason: LostReason::Corrupt,
                captured: Captured::UNKNOWN,
            });
            self.stats.lost = self.stats.lost.saturating_add(missing.saturating_sub(gone));
        }
        let gone = self.gone();
        let count = segment.last.saturating_sub(gone);
        self.gaps.extend(Gap {
            first: gone.saturating_add(1),
            last: segment.last,
            reason,
            captured: segment.captured,
        });
        self.tail.release(segment.last);
        let is_expired = reason == LostReason::Expired;
        let total = if is_expired {
            &mut self.totals.expired
        } else {
            &mut self.totals.discarded
        };
        *total = total.saturating_add(count);
        self.outputs.push_back(Output::Discarded {
            count,
            expired: is_expired,
        });
        if self.cursor_writing.is_none() {
            self.write_cursor();
        }
    }

    /// Discards segments whose newest record is too old, and leaves the current one before it spans too long a time.
    fn expire(&mut self, now: Now) {
        let Some(ttl) = self.settings.ttl else {
            self.expire_at = None;
            return;
        };
        let interval = (ttl / 16).clamp(EXPIRE_INTERVAL_MIN, EXPIRE_INTERVAL_MAX);
        self.expire_at = Some(now.instant + interval);
        let current = self.current.and_then(|number| self.segments.get(&number));
        let spans_long = current
            .and_then(|segment| segment.seen)
            .is_some_and(|(first, _)| now.instant >= first + ttl / 4);
        if spans_long && self.in_flight.is_none() && self.spare.is_some() {
            self.leave_current();
        }
        loop {
            let gone = self.gone();
            let oldest = self
                .segments
                .iter()
                .filter(|(_, segment)| segment.last > gone)
                .min_by_key(|(_, segment)| segment.first)
                .map(|(number, segment)| (*number, *segment));
            match oldest {
                Some((number, segment)) if !self.is_in_use(number) && is_expired(&segment, now, ttl) => {
                    self.discard(&segment, LostReason::Expired);
                }
                Some(_) | None => return,
            }
        }
    }

    /// Takes note of how full the lane is.
    pub(super) fn observe(&mut self, now: Instant) {
        if self.forecast.is_due(now) {
            let held = self.held_bytes();
            self.forecast.observe(now, held, self.totals.written_bytes);
        }
    }
}

/// Returns whether every record of a segment is older than `ttl`.
///
/// What came in this life of the node is reckoned by its monotonic clock, which does not jump. For older records there is the
/// wall clock, if somebody vouched for it then and now; otherwise they count as having come at the start.
fn is_expired(segment: &Segment, now: Now, ttl: Duration) -> bool {
    if let Some((_, last)) = segment.seen {
        return now.instant >= last + ttl;
    }
    match segment.captured.times() {
        Some((_, latest)) if segment.captured.vouched && is_vouched(now.wall.quality) => {
            let ttl_millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            now.wall.unix_millis >= latest.saturating_add(ttl_millis)
        }
        _ => now.instant >= Instant::START + ttl,
    }
}

/// How long the cursor may lag behind when it frees nothing.
const CURSOR_INTERVAL: Duration = Duration::from_secs(1);
/// The space behind the last block is given back if it is at least this part of a segment.
const SHRINK_SHARE: u64 = 8;
/// A lane is short of room when less than this part of a segment is left.
const SHORT_SHARE: u64 = 4;
const EXPIRE_INTERVAL_MIN: Duration = Duration::from_secs(1);
const EXPIRE_INTERVAL_MAX: Duration = Duration::from_secs(60);
