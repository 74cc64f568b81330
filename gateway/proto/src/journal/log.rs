//! The journal itself.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    cursor::Cursor,
    format::{
        BLOCK_BYTES_MAX, BLOCK_HEADER_LEN, BlockHeader, RECORD_BODY_MAX, RECORD_HEADER_LEN, SECTOR,
        SEQUENCE_MAX, SegmentHeader, aligned, seal_record,
    },
    replay::{Replay, Replayed},
    tail::Tail,
};
use crate::{
    delivery::LostReason,
    link::Class,
    node::{Copied, RecordSource},
    time::{Instant, WallTime},
};

/// Bounds of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// Bytes of all segments together; at least three segments.
    pub bytes_max: u64,
    /// Bytes of one segment, a multiple of 4,096, at least twice the longest block.
    pub segment_bytes: u64,
    /// Bytes of committed records kept in memory.
    pub tail_bytes_max: usize,
    /// Bytes of records that wait for the write in flight, at the most, one record more; 1 to 900 KiB.
    pub pending_bytes_max: usize,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 30,
            segment_bytes: 8 << 20,
            tail_bytes_max: 4 << 20,
            pending_bytes_max: PENDING_BYTES_MAX,
        }
    }
}

/// An effect that somebody else has to bring about, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write `bytes` to stable storage and report with [`Journal::handle_written`]. At most one is under way.
    Write {
        /// Number of the segment.
        segment: u64,
        /// Where in it.
        offset: u64,
        /// What; the buffer comes back in the report.
        bytes: Vec<u8>,
    },
    /// Create a segment, reserve its space, write its first sector, sync file and directory; report with
    /// [`Journal::handle_created`].
    Create {
        /// Its number.
        segment: u64,
        /// Bytes to reserve.
        segment_bytes: u64,
        /// Its first sector.
        header: Vec<u8>,
    },
    /// Write a slot of the cursor to stable storage; report with [`Journal::handle_cursor_written`].
    WriteCursor {
        /// Where in the file.
        offset: u64,
        /// The slot.
        bytes: Vec<u8>,
    },
    /// Delete a segment and sync the directory. A failure costs its space until the next start only.
    Delete {
        /// Its number.
        segment: u64,
    },
    /// Read from a segment; report with [`Journal::handle_read`].
    Read {
        /// Its number.
        segment: u64,
        /// From where.
        offset: u64,
        /// How many bytes; fewer only where the file ends.
        len: usize,
    },
    /// Everything up to here is on stable storage.
    Committed {
        /// The highest such sequence.
        up_to: u64,
    },
    /// Whether readings are taken has changed.
    StateChanged(JournalState),
}

/// Whether readings are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// Yes.
    Ready,
    /// No: its own bound or the disk leaves no room. It goes on by itself when there is some.
    Full,
    /// No: the disk fails. It is tried again every few seconds.
    Failed,
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// There is no room; see [`JournalState::Full`].
    #[error("the journal is full")]
    Full,
    /// Too much waits for the disk at the moment.
    #[error("the disk does not keep up")]
    Busy,
    /// The disk fails.
    #[error("the journal's disk fails")]
    Failed,
    /// The record can never be taken; in bytes.
    #[error("record of {len} bytes exceeds {max}")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
}

impl AppendError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Full => "restore the uplink, or give the journal more bytes",
            Self::Busy => "wait, or use a faster disk",
            Self::Failed => "look at the system's log for errors of the disk",
            Self::TooLong { .. } => "let the device send smaller messages",
        }
    }
}

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

/// A segment that holds records, or will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// First sequence in it; 0 while it is empty.
    pub(super) first: u64,
    /// Last committed sequence in it.
    pub(super) last: u64,
    /// Offset behind the last committed block.
    pub(super) end: u64,
    /// Nothing may be written to it any more.
    pub(super) sealed: bool,
}

impl Segment {
    pub(super) const fn holds(&self, sequence: u64) -> bool {
        self.first != 0 && self.first <= sequence && sequence <= self.last
    }
}

/// The block that is being written.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    segment: u64,
    /// Offset behind the block.
    end: u64,
    first: u64,
    last: u64,
    body_bytes: u64,
    ticket: u64,
}

/// A block that waits.
#[derive(Debug, Default)]
struct Pending {
    block: Vec<u8>,
    first: u64,
    count: u32,
    body_bytes: u64,
    /// Ticket of its first record.
    ticket: u64,
}

/// The durable queue; see the [module](super).
///
/// Invariants: sequences are given out without gaps; `released ≤ committed < next`; at most one write, one creation and one
/// read are under way.
#[derive(Debug)]
pub struct Journal {
    settings: JournalSettings,
    id: [u8; 16],
    segments: BTreeMap<u64, Segment>,
    /// Where blocks go.
    current: Option<u64>,
    /// Created ahead of need.
    spare: Option<u64>,
    creating: Option<u64>,
    next_segment: u64,
    pending: Pending,
    /// A failed block, which has to be written before anything else.
    retry: Option<(Pending, u64)>,
    in_flight: Option<InFlight>,
    flush: bool,
    next: u64,
    committed: u64,
    released: u64,
    cursor: Cursor,
    /// What the cursor on disk says at least: segments up to here may be deleted.
    cursor_safe: u64,
    /// The value being written, and whether another is wanted.
    cursor_writing: Option<u64>,
    cursor_due: Option<Instant>,
    tail: Tail,
    replay: Replay,
    state: JournalState,
    retry_at: Option<Instant>,
    outputs: VecDeque<Output>,
    stats: JournalStats,
}

/// What recovery found, for the journal to go on with.
pub(super) struct Recovered {
    pub(super) id: [u8; 16],
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) next_segment: u64,
    pub(super) next: u64,
    pub(super) released: u64,
    /// As it is on disk.
    pub(super) cursor: Cursor,
    pub(super) surplus: Vec<u64>,
}

impl Journal {
    pub(super) fn new(settings: JournalSettings, recovered: Recovered) -> Self {
        let pending_bytes_max = settings.pending_bytes_max.clamp(1, PENDING_BYTES_MAX);
        let settings = JournalSettings {
            pending_bytes_max,
            ..settings
        };
        let mut journal = Self {
            settings,
            id: recovered.id,
            segments: recovered.segments,
            current: None,
            spare: None,
            creating: None,
            next_segment: recovered.next_segment,
            pending: Pending::default(),
            retry: None,
            in_flight: None,
            flush: false,
            next: recovered.next,
            committed: recovered.next.saturating_sub(1),
            released: recovered.released,
            cursor: recovered.cursor,
            cursor_safe: recovered.cursor.released,
            cursor_writing: None,
            cursor_due: None,
            tail: Tail::new(settings.tail_bytes_max),
            replay: Replay::default(),
            state: JournalState::Ready,
            retry_at: None,
            outputs: recovered
                .surplus
                .into_iter()
                .map(|segment| Output::Delete { segment })
                .collect(),
            stats: JournalStats::default(),
        };
        if journal.released > journal.cursor.released {
            // Blocks say more than the cursor: before they are deleted it has to be told.
            journal.write_cursor();
        } else {
            journal.delete_freed();
        }
        journal.create_ahead();
        journal
    }

    /// Appends a record of `class` (0 to 2) whose body `fill` writes to the end of the buffer it is given, and returns its
    /// sequence. It is on stable storage when [`Output::Committed`] says so.
    ///
    /// # Errors
    /// [`AppendError`]: nothing was taken.
    pub fn append(&mut self, class: u8, fill: impl FnOnce(&mut Vec<u8>)) -> Result<u64, AppendError> {
        self.take(class, 0, fill)
    }

    /// As [`Journal::append`], for a lane of its class, with a ticket of [`Lanes`](super::Lanes).
    pub(super) fn append_ticket(
        &mut self,
        ticket: u64,
        captured: WallTime,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, AppendError> {
        let _ = captured;
        self.take(1, ticket, fill)
    }

    fn take(&mut self, class: u8, ticket: u64, fill: impl FnOnce(&mut Vec<u8>)) -> Result<u64, AppendError> {
        match self.state {
            JournalState::Ready => {}
            JournalState::Full => return Err(self.refuse(AppendError::Full)),
            JournalState::Failed => return Err(self.refuse(AppendError::Failed)),
        }
        if self.pending.block.is_empty() {
            self.pending.block.resize(BLOCK_HEADER_LEN, 0);
            self.pending.first = self.next;
            self.pending.count = 0;
            self.pending.body_bytes = 0;
        }
        if self.pending.block.len() >= self.settings.pending_bytes_max {
            return Err(self.refuse(AppendError::Busy));
        }
        let start = self.pending.block.len();
        let body_start = start.saturating_add(RECORD_HEADER_LEN);
        self.pending.block.resize(body_start, 0);
        fill(&mut self.pending.block);
        let body_len = self.pending.block.len().saturating_sub(body_start);
        if body_len > RECORD_BODY_MAX {
            self.pending.block.truncate(start);
            return Err(self.refuse(AppendError::TooLong {
                len: body_len,
                max: RECORD_BODY_MAX,
            }));
        }
        if self.next > SEQUENCE_MAX || !self.fits(self.pending.block.len()) {
            self.pending.block.truncate(start);
            self.change_state(JournalState::Full);
            return Err(self.refuse(AppendError::Full));
        }
        let sequence = self.next;
        if self.pending.count == 0 {
            self.pending.ticket = ticket;
        }
        seal_record(
            &mut self.pending.block,
            start,
            sequence,
            self.pending.count,
            class,
        );
        self.pending.count = self.pending.count.saturating_add(1);
        self.pending.body_bytes = self.pending.body_bytes.saturating_add(body_len as u64);
        self.next = sequence.saturating_add(1);
        Ok(sequence)
    }

    /// Writes what is pending as soon as no write is under way.
    pub fn flush(&mut self) {
        self.flush = true;
        self.write_next();
    }

    /// Takes the end of the write under way, and its buffer. `no_room` tells a full disk from a broken one.
    pub fn handle_written(&mut self, now: Instant, bytes: Vec<u8>, result: Result<(), WriteFailed>) {
        let Some(written) = self.in_flight.take() else {
            return;
        };
        let Some(segment) = self.segments.get_mut(&written.segment) else {
            return;
        };
        match result {
            Ok(()) => {
                if segment.first == 0 {
                    segment.first = written.first;
                }
                segment.last = written.last;
                segment.end = written.end;
                let count = written.last.saturating_sub(written.first).saturating_add(1);
                self.stats.commits = self.stats.commits.saturating_add(1);
                self.stats.records = self.stats.records.saturating_add(count);
                self.stats.body_bytes = self.stats.body_bytes.saturating_add(written.body_bytes);
                self.stats.written_bytes = self.stats.written_bytes.saturating_add(bytes.len() as u64);
                self.stats.block_records_max = self.stats.block_records_max.max(count);
                self.committed = written.last;
                self.tail.push(written.first, written.last, bytes);
                self.outputs.push_back(Output::Committed { up_to: written.last });
                if self.state == JournalState::Failed {
                    self.change_state(JournalState::Ready);
                }
            }
            Err(failed) => {
                // What the disk holds now is unknown: nothing more is written there, and nothing there is overwritten.
                segment.sealed = true;
                self.current = None;
                self.stats.write_errors = self.stats.write_errors.saturating_add(1);
                let count = u32::try_from(written.last.saturating_sub(written.first).saturating_add(1))
                    .unwrap_or(u32::MAX);
                let block = Pending {
                    block: bytes,
                    first: written.first,
                    count,
                    body_bytes: written.body_bytes,
                    ticket: written.ticket,
                };
                self.retry = Some((block, written.last));
                self.retry_at = Some(now + RETRY_INTERVAL);
                self.change_state(match failed {
                    WriteFailed::NoRoom => JournalState::Full,
                    WriteFailed::Broken => JournalState::Failed,
                });
            }
        }
        self.create_ahead();
        self.write_next();
    }

    /// Takes the end of a creation.
    pub fn handle_created(&mut self, now: Instant, segment: u64, result: Result<(), WriteFailed>) {
        if self.creating != Some(segment) {
            return;
        }
        self.creating = None;
        match result {
            Ok(()) => {
                self.stats.written_bytes = self.stats.written_bytes.saturating_add(SECTOR as u64);
                let empty = Segment {
                    first: 0,
                    last: 0,
                    end: SECTOR as u64,
                    sealed: false,
                };
                self.segments.insert(segment, empty);
                self.spare = Some(segment);
                if self.state == JournalState::Full {
                    self.change_state(JournalState::Ready);
                }
                self.write_next();
            }
            Err(failed) => {
                self.stats.write_errors = self.stats.write_errors.saturating_add(1);
                self.retry_at = Some(now + RETRY_INTERVAL);
                // While the current segment has room nothing is lost yet; the next append that does not fit says Full.
                if self.current.is_none() {
                    self.change_state(match failed {
                        WriteFailed::NoRoom => JournalState::Full,
                        WriteFailed::Broken => JournalState::Failed,
                    });
                }
            }
        }
    }

    /// Takes the end of a cursor write.
    pub fn handle_cursor_written(&mut self, now: Instant, result: Result<(), WriteFailed>) {
        let Some(released) = self.cursor_writing.take() else {
            return;
        };
        if result.is_ok() {
            self.stats.written_bytes = self.stats.written_bytes.saturating_add(SECTOR as u64);
            self.cursor_safe = self.cursor_safe.max(released);
            self.delete_freed();
            self.create_ahead();
        } else {
            self.stats.write_errors = self.stats.write_errors.saturating_add(1);
        }
        if self.released > released || result.is_err() {
            self.cursor_due = Some(now + CURSOR_INTERVAL);
        }
    }

    /// Takes the bytes of the read under way, `None` if it failed.
    pub fn handle_read(&mut self, bytes: Option<Vec<u8>>) {
        self.replay.handle_read(bytes, &self.segments);
    }

    /// Takes the word that every collector has everything up to `up_to`.
    pub fn handle_released(&mut self, now: Instant, up_to: u64) {
        let up_to = up_to.min(self.committed);
        if up_to <= self.released {
            return;
        }
        self.released = up_to;
        self.tail.release(up_to);
        let frees = self
            .segments
            .iter()
            .any(|(number, segment)| self.is_free(*number, segment, up_to));
        if frees && self.cursor_writing.is_none() {
            self.write_cursor();
        } else if self.cursor_due.is_none() {
            self.cursor_due = Some(now + CURSOR_INTERVAL);
        }
    }

    /// Writes the cursor or tries again what failed, whatever is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.cursor_due.is_some_and(|due| now >= due) {
            self.cursor_due = None;
            if self.cursor_writing.is_none() && self.released > self.cursor.released {
                self.write_cursor();
            }
        }
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            self.create_ahead();
            self.write_next();
        }
    }

    /// Returns when [`Journal::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.cursor_due, self.retry_at].into_iter().flatten().min()
    }

    /// Returns the next effect; drain it to `None` after every call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes the word that an uplink's collector has everything up to `up_to`.
    pub(super) fn handle_confirmed(&mut self, now: Instant, _uplink: usize, up_to: u64) {
        self.handle_released(now, up_to);
    }

    /// Returns the ticket of the oldest record that is not on stable storage.
    pub(super) fn first_open_ticket(&self) -> Option<u64> {
        let in_flight = self.in_flight.map(|written| written.ticket);
        let retry = self.retry.as_ref().map(|(block, _)| block.ticket);
        let pending = (self.pending.count > 0).then_some(self.pending.ticket);
        in_flight.or(retry).or(pending)
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

    /// Returns the oldest sequence that is still needed.
    #[must_use]
    pub const fn first_available(&self) -> u64 {
        self.released.saturating_add(1)
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
        let count = self.segments.len() as u64;
        (
            count.saturating_mul(self.settings.segment_bytes),
            self.settings.bytes_max,
        )
    }

    /// Returns the counters.
    #[must_use]
    pub const fn stats(&self) -> JournalStats {
        JournalStats {
            replayed: self.replay.records,
            ..self.stats
        }
    }

    fn refuse(&mut self, error: AppendError) -> AppendError {
        self.stats.refused = self.stats.refused.saturating_add(1);
        error
    }

    fn change_state(&mut self, state: JournalState) {
        if self.state != state {
            self.state = state;
            self.outputs.push_back(Output::StateChanged(state));
        }
    }

    /// Returns whether a pending block of `len` bytes has a place to go.
    fn fits(&self, len: usize) -> bool {
        self.room() >= aligned(len) as u64 || self.spare.is_some() || self.creating.is_some()
    }

    /// Returns the bytes left in the current segment, behind the write in flight.
    fn room(&self) -> u64 {
        let Some(segment) = self.current.and_then(|current| self.segments.get(&current)) else {
            return 0;
        };
        let end = self.in_flight.map_or(segment.end, |written| written.end);
        self.settings.segment_bytes.saturating_sub(end)
    }

    /// Gives out the next write, if there is something to write and a place to write it to.
    fn write_next(&mut self) {
        if self.in_flight.is_some() || (self.retry.is_none() && (!self.flush || self.pending.count == 0)) {
            return;
        }
        let waiting = self.retry.as_ref().map_or(&self.pending, |(block, _)| block);
        let len = aligned(waiting.block.len()) as u64;
        if self.room() < len {
            if let Some(current) = self.current.and_then(|current| self.segments.get_mut(&current)) {
                current.sealed = true;
            }
            self.current = self.spare.take();
            self.create_ahead();
            if self.current.is_none() {
                if self.creating.is_none() && self.retry_at.is_none() {
                    self.change_state(JournalState::Full);
                }
                return;
            }
        }
        let Some(number) = self.current else { return };
        let offset = self
            .segments
            .get(&number)
            .map_or(SECTOR as u64, |segment| segment.end);
        let buffer = self.tail.buffer();
        let (mut block, is_retry) = match self.retry.take() {
            Some((block, _)) => (block, true),
            None => {
                self.flush = false;
                (
                    std::mem::replace(
                        &mut self.pending,
                        Pending {
                            block: buffer,
                            ..Pending::default()
                        },
                    ),
                    false,
                )
            }
        };
        if !is_retry {
            let payload_len = block.block.len().saturating_sub(BLOCK_HEADER_LEN);
            let header = BlockHeader {
                first: block.first,
                count: block.count,
                payload_len: u32::try_from(payload_len).unwrap_or(u32::MAX),
                released: self.released,
            };
            debug_assert!(
                header.block_len() <= BLOCK_BYTES_MAX,
                "pending records are bounded"
            );
            header.put(&mut block.block);
            block.block.resize(header.block_len(), 0);
        }
        let last = block
            .first
            .saturating_add(u64::from(block.count))
            .saturating_sub(1);
        self.in_flight = Some(InFlight {
            segment: number,
            end: offset.saturating_add(block.block.len() as u64),
            first: block.first,
            last,
            body_bytes: block.body_bytes,
            ticket: block.ticket,
        });
        self.outputs.push_back(Output::Write {
            segment: number,
            offset,
            bytes: block.block,
        });
    }

    /// Has a segment created if none is spare and the bound allows it.
    fn create_ahead(&mut self) {
        if self.spare.is_some() || self.creating.is_some() || self.retry_at.is_some() {
            return;
        }
        if !self.has_room_for_segment() {
            // A segment that was in use when its records were released, and is not any more.
            self.delete_freed();
            if !self.has_room_for_segment() {
                return;
            }
        }
        let number = self.next_segment;
        self.next_segment = number.saturating_add(1);
        self.creating = Some(number);
        let header = SegmentHeader {
            journal: self.id,
            number,
            segment_bytes: self.settings.segment_bytes,
        };
        self.outputs.push_back(Output::Create {
            segment: number,
            segment_bytes: self.settings.segment_bytes,
            header: header.encode(),
        });
    }

    fn write_cursor(&mut self) {
        let (offset, bytes) = self.cursor.advance(self.released);
        self.cursor_writing = Some(self.released);
        self.cursor_due = None;
        self.outputs.push_back(Output::WriteCursor { offset, bytes });
    }

    /// Returns whether a segment holds nothing after `released` and nothing will be written to it.
    fn is_free(&self, number: u64, segment: &Segment, released: u64) -> bool {
        let in_use = self.current == Some(number)
            || self.spare == Some(number)
            || self.in_flight.is_some_and(|written| written.segment == number);
        !in_use && segment.last <= released
    }

    fn has_room_for_segment(&self) -> bool {
        let (bytes, bytes_max) = self.bytes();
        bytes.saturating_add(self.settings.segment_bytes) <= bytes_max
    }

    /// Deletes segments that the cursor on disk frees.
    fn delete_freed(&mut self) {
        let free: Vec<u64> = self
            .segments
            .iter()
            .filter(|(number, segment)| self.is_free(**number, segment, self.cursor_safe))
            .map(|(number, _)| *number)
            .collect();
        for number in free {
            self.segments.remove(&number);
            self.replay.forget(number);
            self.outputs.push_back(Output::Delete { segment: number });
        }
    }
}

impl RecordSource for Journal {
    fn copy_records(
        &mut self,
        _lane: Class,
        from: u64,
        bytes_max: usize,
        count_max: u64,
        out: &mut Vec<u8>,
    ) -> Copied {
        if from > self.committed {
            return Copied::NotYet;
        }
        let in_memory = self.tail.first().is_some_and(|first| from >= first);
        if in_memory {
            self.replay.rest();
            let copied = self.tail.copy(from, bytes_max, count_max, out);
            return if copied > 0 {
                Copied::Records(copied)
            } else {
                Copied::NotYet
            };
        }
        match self
            .replay
            .copy(from, (bytes_max, count_max), &self.segments, out)
        {
            Replayed::Records(0) | Replayed::Waiting => Copied::NotYet,
            Replayed::Records(count) => Copied::Records(count),
            Replayed::Lost { last } => {
                let last = last.min(self.committed);
                self.stats.lost = self
                    .stats
                    .lost
                    .saturating_add(last.saturating_add(1).saturating_sub(from));
                Copied::Lost {
                    last,
                    reason: LostReason::Corrupt,
                    captured: None,
                }
            }
            Replayed::Read(wanted) => {
                self.outputs.push_back(Output::Read {
                    segment: wanted.segment,
                    offset: wanted.offset,
                    len: wanted.len,
                });
                Copied::NotYet
            }
        }
    }
}

/// How a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailed {
    /// The disk is full, or a quota is reached.
    NoRoom,
    /// Anything else.
    Broken,
}

/// Bytes of records that may wait: with one record more they are still a block.
const PENDING_BYTES_MAX: usize = 900 << 10;
/// How long after a failure it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long the cursor may lag behind when it frees nothing.
const CURSOR_INTERVAL: Duration = Duration::from_secs(1);
