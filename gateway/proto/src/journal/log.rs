//! One lane of the journal: taking records and writing them.

use std::collections::{BTreeMap, VecDeque};

use super::{
    AppendError, JournalSettings, JournalState, Output, WriteFailed,
    capture::Captured,
    cursor::{Cursor, Position, Totals},
    forecast::Forecast,
    format::{
        BLOCK_BYTES_MAX, BLOCK_HEADER_LEN, BlockHeader, RECORD_BODY_MAX, RECORD_HEADER_LEN, SECTOR,
        SEQUENCE_MAX, SegmentHeader, aligned, put_record_header, seal_record,
    },
    gaps::Gaps,
    replay::Replay,
    sealing::{JournalKey, SegmentKey, SegmentSeal},
    settings::PENDING_BYTES_MAX,
    tail::Tail,
};
use crate::{
    crypto::TAG_LEN,
    link::Class,
    time::{Instant, WallTime},
};

mod segments;
mod source;
mod view;

pub use view::{JournalStats, LaneView};

/// A segment that holds records, or will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// First sequence in it; 0 while it is empty.
    pub(super) first: u64,
    /// Last committed sequence in it.
    pub(super) last: u64,
    /// Offset behind the last committed block.
    pub(super) end: u64,
    /// Bytes it takes on the disk.
    pub(super) size: u64,
    /// Nothing may be written to it any more.
    pub(super) sealed: bool,
    /// When its records were captured, as far as that is known.
    pub(super) captured: Captured,
    /// How it is encrypted, if it is.
    pub(super) seal: Option<SegmentSeal>,
    /// When the first and the last of its records were seen in this life of the node.
    pub(super) seen: Option<(Instant, Instant)>,
}

impl Segment {
    pub(super) const fn holds(&self, sequence: u64) -> bool {
        self.first != 0 && self.first <= sequence && sequence <= self.last
    }
}

/// The block that is being written.
#[derive(Debug)]
struct InFlight {
    segment: u64,
    /// Offset behind the block.
    end: u64,
    /// What it holds; its buffer is the one being written if that is not encrypted.
    block: Pending,
}

/// A block that waits.
#[derive(Debug)]
struct Pending {
    /// In clear.
    block: Vec<u8>,
    /// Bytes of it up to the end of its records, while it is being written.
    len: usize,
    first: u64,
    count: u32,
    body_bytes: u64,
    /// Ticket of its first record.
    ticket: u64,
    captured: Captured,
}

impl Pending {
    const fn new(block: Vec<u8>) -> Self {
        Self {
            block,
            len: 0,
            first: 0,
            count: 0,
            body_bytes: 0,
            ticket: 0,
            captured: Captured::NOTHING,
        }
    }

    const fn last(&self) -> u64 {
        self.first.saturating_add(self.count as u64).saturating_sub(1)
    }

    /// Returns the bytes it takes in a segment.
    const fn written_len(&self, tag_len: usize) -> usize {
        aligned(
            self.block
                .len()
                .saturating_add(tag_len.saturating_mul(self.count as usize)),
        )
    }
}

/// The cursor write under way: what will be on stable storage after it.
#[derive(Clone, Copy, Debug)]
struct CursorWrite {
    released: u64,
    gone: u64,
    sealed: u64,
}

/// The durable queue of one class; see the [module](super).
///
/// Invariants: sequences are given out without gaps; `released ≤ committed < next`; at most one write, one creation, one
/// cursor write and one read are under way; what `gone_safe` does not cover is not deleted.
#[derive(Debug)]
pub struct Journal {
    settings: JournalSettings,
    class: Class,
    id: [u8; 16],
    segments: BTreeMap<u64, Segment>,
    /// Where blocks go.
    current: Option<u64>,
    /// The segment that was written before the current one.
    previous: (u64, Captured),
    /// Created ahead of need.
    spare: Option<u64>,
    creating: Option<u64>,
    /// How the last creation failed, until one succeeds.
    create_failed: Option<WriteFailed>,
    next_segment: u64,
    pending: Pending,
    /// A failed block, which has to be written before anything else.
    retry: Option<Pending>,
    in_flight: Option<InFlight>,
    flush: bool,
    next: u64,
    committed: u64,
    released: u64,
    /// How far each uplink's collector is, in the order the uplinks were given.
    positions: Vec<Position>,
    gaps: Gaps,
    cursor: Cursor,
    /// Up to here the cursor on disk says that nothing is needed: segments up to here may be deleted.
    gone_safe: u64,
    /// Up to here the cursor on disk says that gaps are fixed: collectors may be told of them.
    sealed_safe: u64,
    cursor_writing: Option<CursorWrite>,
    cursor_due: Option<Instant>,
    tail: Tail,
    replay: Replay,
    state: JournalState,
    retry_at: Option<Instant>,
    expire_at: Option<Instant>,
    /// What time it was when something last happened.
    clock: Instant,
    /// Reads that failed in a row, and when it is tried again.
    read_failures: u32,
    reread_at: Option<Instant>,
    outputs: VecDeque<Output>,
    key: Option<(JournalKey, SegmentSeal)>,
    /// The key of the segment last written to.
    sealer: Option<(u64, SegmentKey)>,
    /// For blocks as they are written, encrypted.
    sealed_buffer: Vec<u8>,
    stats: JournalStats,
    totals: Totals,
    forecast: Forecast,
}

/// What recovery found, for the journal to go on with.
pub(super) struct Recovered {
    pub(super) class: Class,
    pub(super) id: [u8; 16],
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) next_segment: u64,
    pub(super) next: u64,
    /// What is known to be released, by the cursor or by blocks.
    pub(super) released: u64,
    /// Names of the uplinks there are now.
    pub(super) uplinks: Vec<u64>,
    /// As it is on disk.
    pub(super) cursor: Cursor,
    /// Empty segments.
    pub(super) surplus: Vec<u64>,
    /// Segments with space behind their last block.
    pub(super) unfinished: Vec<u64>,
    pub(super) key: Option<(JournalKey, SegmentSeal)>,
}

impl Journal {
    pub(super) fn new(settings: JournalSettings, recovered: Recovered) -> Self {
        let pending_bytes_max = settings.pending_bytes_max.clamp(1, PENDING_BYTES_MAX);
        let settings = JournalSettings {
            pending_bytes_max,
            ..settings
        };
        let newest = recovered.segments.iter().max_by_key(|(_, segment)| segment.last);
        let previous = newest.map_or((0, Captured::NOTHING), |(number, segment)| {
            (*number, segment.captured)
        });
        let stored = &recovered.cursor.content;
        let mut journal = Self {
            settings,
            class: recovered.class,
            id: recovered.id,
            current: None,
            previous,
            spare: None,
            creating: None,
            create_failed: None,
            next_segment: recovered.next_segment,
            pending: Pending::new(Vec::new()),
            retry: None,
            in_flight: None,
            flush: false,
            next: recovered.next,
            committed: recovered.next.saturating_sub(1),
            released: recovered.released,
            positions: Vec::new(),
            gaps: stored.gaps.clone(),
            gone_safe: stored.gone(),
            sealed_safe: stored.gaps.sealed(),
            totals: stored.totals,
            cursor_writing: None,
            cursor_due: None,
            tail: Tail::new(settings.tail_bytes_max),
            replay: Replay::default(),
            state: JournalState::Ready,
            retry_at: None,
            expire_at: settings.ttl.map(|_| Instant::START),
            clock: Instant::START,
            read_failures: 0,
            reread_at: None,
            outputs: recovered
                .surplus
                .into_iter()
                .map(|segment| Output::Delete { segment })
                .collect(),
            segments: recovered.segments,
            cursor: recovered.cursor,
            key: recovered.key,
            sealer: None,
            sealed_buffer: Vec::new(),
            stats: JournalStats::default(),
            forecast: Forecast::default(),
        };
        journal.begin(&recovered.uplinks, &recovered.unfinished);
        journal
    }

    /// Appends a record that was captured at `captured` and whose body `fill` writes to the end of the buffer it is given, and
    /// returns its sequence. It is on stable storage when [`Output::Committed`] says so. `ticket` is the caller's number.
    ///
    /// # Errors
    /// [`AppendError`]: nothing was taken.
    pub fn append(
        &mut self,
        ticket: u64,
        captured: WallTime,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, AppendError> {
        match self.state {
            JournalState::Ready => {}
            JournalState::Full => return Err(self.refuse(AppendError::Full)),
            JournalState::Failed => return Err(self.refuse(AppendError::Failed)),
        }
        let tag_len = self.tag_len();
        if self.pending.count == 0 {
            self.pending.block.resize(BLOCK_HEADER_LEN, 0);
            self.pending.first = self.next;
            self.pending.body_bytes = 0;
            self.pending.captured = Captured::NOTHING;
        } else if self.pending.written_len(tag_len) >= self.settings.pending_bytes_max {
            return Err(self.refuse(AppendError::Busy));
        }
        let start = self.pending.block.len();
        let body_start = start.saturating_add(RECORD_HEADER_LEN);
        self.pending.block.resize(body_start, 0);
        fill(&mut self.pending.block);
        let body_len = self.pending.block.len().saturating_sub(body_start);
        if let Some(error) = self.cannot_take(body_len) {
            self.pending.block.truncate(start);
            return Err(self.refuse(error));
        }
        let sequence = self.next;
        if self.pending.count == 0 {
            self.pending.ticket = ticket;
        }
        let (block, index, class) = (&mut self.pending.block, self.pending.count, self.class.bits());
        if tag_len == 0 {
            seal_record(block, start, sequence, index, class);
        } else {
            // Its checksum is over the ciphertext, which there is when it is known where it goes.
            put_record_header(block, start, 0, index, class);
        }
        self.pending.count = self.pending.count.saturating_add(1);
        self.pending.body_bytes = self.pending.body_bytes.saturating_add(body_len as u64);
        self.pending.captured.include(captured);
        self.next = sequence.saturating_add(1);
        Ok(sequence)
    }

    /// Returns why the record of `body_len` bytes that was put behind the pending ones has to go again, if it has.
    fn cannot_take(&mut self, body_len: usize) -> Option<AppendError> {
        let alone_max = usize::try_from(self.settings.segment_bytes)
            .unwrap_or(usize::MAX)
            .saturating_sub(2 * SECTOR + BLOCK_HEADER_LEN + RECORD_HEADER_LEN + TAG_LEN);
        let max = RECORD_BODY_MAX.min(alone_max);
        if body_len > max {
            return Some(AppendError::TooLong { len: body_len, max });
        }
        let len = aligned(
            self.pending
                .block
                .len()
                .saturating_add(self.tag_len().saturating_mul(self.pending.count as usize + 1)),
        );
        let segment_bytes = self.settings.segment_bytes.saturating_sub(SECTOR as u64);
        // A block that failed and the one behind it fit one segment together.
        if self.pending.count > 0 && len as u64 > segment_bytes / 2 {
            return Some(AppendError::Busy);
        }
        if self.next > SEQUENCE_MAX {
            self.change_state(JournalState::Full);
            return Some(AppendError::Full);
        }
        // Only space that is there counts: a segment that is still being made may fail to be, and what was taken for it would
        // hold up the acknowledgements of all lanes.
        if self.room() >= len as u64 || self.spare.is_some() {
            return None;
        }
        if self.creating.is_some() || self.is_making_room() {
            return Some(AppendError::Busy);
        }
        let state = self.create_failed.map_or(JournalState::Full, WriteFailed::state);
        self.change_state(state);
        Some(match state {
            JournalState::Ready | JournalState::Full => AppendError::Full,
            JournalState::Failed => AppendError::Failed,
        })
    }

    /// Writes what is pending as soon as no write is under way.
    pub fn flush(&mut self) {
        self.flush = true;
        self.write_next();
    }

    /// Takes the end of the write under way, and its buffer.
    pub fn handle_written(&mut self, now: Instant, bytes: Vec<u8>, result: Result<(), WriteFailed>) {
        self.clock = now;
        let Some(written) = self.in_flight.take() else {
            return;
        };
        let mut block = written.block;
        let written_bytes = bytes.len() as u64;
        if block.block.is_empty() {
            block.block = bytes;
        } else {
            self.sealed_buffer = bytes;
        }
        let Some(segment) = self.segments.get_mut(&written.segment) else {
            return;
        };
        match result {
            Ok(()) => {
                let last = block.last();
                if segment.first == 0 {
                    segment.first = block.first;
                }
                segment.last = last;
                segment.end = written.end;
                segment.captured.merge(&block.captured);
                segment.seen = Some((segment.seen.map_or(now, |(first, _)| first), now));
                self.stats.commits = self.stats.commits.saturating_add(1);
                self.stats.records = self.stats.records.saturating_add(u64::from(block.count));
                self.stats.body_bytes = self.stats.body_bytes.saturating_add(block.body_bytes);
                self.stats.block_records_max = self.stats.block_records_max.max(u64::from(block.count));
                self.totals.body_bytes = self.totals.body_bytes.saturating_add(block.body_bytes);
                self.count_written(written_bytes);
                self.committed = last;
                self.tail.push(block.first, last, block.captured, block.block);
                self.outputs.push_back(Output::Committed { up_to: last });
                if self.state == JournalState::Failed {
                    self.change_state(JournalState::Ready);
                }
                self.observe(now);
            }
            Err(failed) => {
                // What the disk holds now is unknown: nothing more is written there, and nothing there is overwritten.
                self.stats.write_errors = self.stats.write_errors.saturating_add(1);
                block.block.truncate(block.len);
                self.retry = Some(block);
                self.retry_at = Some(now + RETRY_INTERVAL);
                self.leave_current();
                self.change_state(failed.state());
            }
        }
        self.create_ahead();
        self.write_next();
    }

    /// Gives out the next write, if there is something to write and a place to write it to.
    fn write_next(&mut self) {
        if self.in_flight.is_some() || (self.retry.is_none() && (!self.flush || self.pending.count == 0)) {
            return;
        }
        let waiting = self.retry.as_ref().unwrap_or(&self.pending);
        let len = waiting.written_len(self.tag_len()) as u64;
        if self.room() < len {
            self.leave_current();
            self.current = self.spare.take();
            self.create_ahead();
            if self.current.is_none() {
                if self.creating.is_none() && self.retry_at.is_none() && !self.is_making_room() {
                    self.change_state(self.create_failed.map_or(JournalState::Full, WriteFailed::state));
                }
                return;
            }
        }
        let Some(number) = self.current else { return };
        let block = match self.retry.take() {
            Some(block) => block,
            None => {
                self.flush = false;
                let buffer = self.tail.buffer();
                std::mem::replace(&mut self.pending, Pending::new(buffer))
            }
        };
        self.write_block(number, block);
    }

    /// Gives out a block as it goes into a segment.
    fn write_block(&mut self, number: u64, mut block: Pending) {
        let offset = self
            .segments
            .get(&number)
            .map_or(SECTOR as u64, |segment| segment.end);
        block.len = block.block.len();
        let mut bytes = if self.sealer_of(number) {
            let mut sealed = std::mem::take(&mut self.sealed_buffer);
            if let Some((_, key)) = &self.sealer {
                key.seal_block(&block.block, block.first, &mut sealed);
            }
            sealed
        } else {
            std::mem::take(&mut block.block)
        };
        let (previous, previous_captured) = self.previous;
        let records = bytes.len().saturating_sub(BLOCK_HEADER_LEN);
        let header = BlockHeader {
            first: block.first,
            count: block.count,
            payload_len: u32::try_from(records).unwrap_or(u32::MAX),
            released: self.released,
            captured: block.captured,
            previous,
            previous_captured,
        };
        debug_assert!(
            header.block_len() <= BLOCK_BYTES_MAX,
            "pending records are bounded"
        );
        header.put(&mut bytes);
        bytes.resize(header.block_len(), 0);
        self.in_flight = Some(InFlight {
            segment: number,
            end: offset.saturating_add(bytes.len() as u64),
            block,
        });
        self.outputs.push_back(Output::Write {
            segment: number,
            offset,
            bytes,
        });
    }

    /// Makes the key of a segment the one at hand; false if it is not encrypted.
    fn sealer_of(&mut self, number: u64) -> bool {
        let Some((key, seal)) = &self.key else {
            return false;
        };
        if self.sealer.as_ref().is_none_or(|(of, _)| *of != number) {
            let header = self.header_of(number, Some(*seal));
            self.sealer = Some((number, key.segment(&header, &seal.salt)));
        }
        true
    }

    /// Returns the header of a segment as far as it names it.
    fn header_of(&self, number: u64, seal: Option<SegmentSeal>) -> SegmentHeader {
        SegmentHeader {
            journal: self.id,
            number,
            segment_bytes: self.settings.segment_bytes,
            lane: self.class.bits(),
            next: self.committed.saturating_add(1),
            released: self.released,
            seal,
        }
    }

    /// Returns the bytes that encryption adds to each record.
    const fn tag_len(&self) -> usize {
        if self.key.is_some() { TAG_LEN } else { 0 }
    }

    /// Returns the bytes left in the current segment, behind the write in flight.
    fn room(&self) -> u64 {
        let Some(segment) = self.current.and_then(|current| self.segments.get(&current)) else {
            return 0;
        };
        let end = self.in_flight.as_ref().map_or(segment.end, |written| written.end);
        self.settings.segment_bytes.saturating_sub(end)
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

    fn count_written(&mut self, bytes: u64) {
        self.stats.written_bytes = self.stats.written_bytes.saturating_add(bytes);
        self.totals.written_bytes = self.totals.written_bytes.saturating_add(bytes);
    }

    /// Returns the next effect; drain it to `None` after every call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns the ticket of the oldest record that is not on stable storage.
    pub(super) fn first_open_ticket(&self) -> Option<u64> {
        let in_flight = self.in_flight.as_ref().map(|written| written.block.ticket);
        let retry = self.retry.as_ref().map(|block| block.ticket);
        let pending = (self.pending.count > 0).then_some(self.pending.ticket);
        in_flight.or(retry).or(pending)
    }
}

/// How long after a failure it is tried again.
const RETRY_INTERVAL: std::time::Duration = std::time::Duration::from_secs(2);
