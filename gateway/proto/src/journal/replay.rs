//! Reading what is no longer in memory.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use super::{
    format::{BLOCK_BYTES_MAX, BlockHeader, Record, Records, SECTOR},
    log::Segment,
    scan::{next_block, payload},
    sealing::SegmentKey,
};
use crate::{
    crypto::TAG_LEN,
    wire::{put_bytes_varint, put_varint},
};

/// One position on disk that moves forward as records are copied.
///
/// It reads a chunk, finds the blocks in it, and copies from them, verifying every record. What does not verify is lost: the
/// sequences around say exactly what.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Segment and offset that the next chunk begins at, and the sequence expected there.
    next: Option<Position>,
    /// What was read, and from which segment.
    chunk: Vec<u8>,
    chunk_of: u64,
    blocks: Vec<Found>,
    /// The read under way, and how many bytes were asked for.
    waiting: Option<(Position, usize)>,
    /// The chunk did not help because a block header is damaged: read the rest of the segment at once.
    whole: bool,
    /// Opens the records of an encrypted segment.
    opener: Option<(u64, SegmentKey)>,
    /// Records copied from disk.
    pub(super) records: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    segment: u64,
    offset: u64,
    expected: u64,
}

/// A stretch of the chunk in which the sequences `first` to `last` belong.
#[derive(Clone, Copy, Debug)]
struct Found {
    first: u64,
    last: u64,
    start: usize,
    end: usize,
    /// Where a sequential copy goes on: next sequence, and its offset behind `start`.
    next: u64,
    at: usize,
}

/// A read that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) len: usize,
}

/// What a copy did.
pub(super) enum Replayed {
    Records(u64),
    Lost { last: u64 },
    Read(Wanted),
    Waiting,
}

impl Replay {
    /// Returns the segment that was read from, if it is encrypted and its key is not at hand.
    pub(super) fn sealed_segment(&self, segments: &BTreeMap<u64, Segment>) -> Option<u64> {
        let number = self.chunk_of;
        let is_sealed = segments
            .get(&number)
            .is_some_and(|segment| segment.seal.is_some());
        let is_ready = self.opener.as_ref().is_some_and(|(of, _)| *of == number);
        (is_sealed && !is_ready).then_some(number)
    }

    /// Takes the key of a segment.
    pub(super) fn set_opener(&mut self, number: u64, key: SegmentKey) {
        self.opener = Some((number, key));
    }

    /// Copies records from `from` on, or says what keeps it from that.
    pub(super) fn copy(
        &mut self,
        from: u64,
        (bytes_max, count_max): (usize, u64),
        segments: &BTreeMap<u64, Segment>,
        out: &mut Vec<u8>,
    ) -> Replayed {
        if let Some(index) = self
            .blocks
            .iter()
            .position(|block| (block.first..=block.last).contains(&from))
        {
            let is_sealed = segments
                .get(&self.chunk_of)
                .is_some_and(|segment| segment.seal.is_some());
            return self.copy_from(index, (from, is_sealed), (bytes_max, count_max), out);
        }
        if self.waiting.is_some() {
            return Replayed::Waiting;
        }
        let Some((number, segment)) = segments.iter().find(|(_, segment)| segment.holds(from)) else {
            let next = segments
                .values()
                .filter(|segment| segment.first > from)
                .map(|segment| segment.first)
                .min();
            // Nothing behind either: then nobody has it, for what is in memory is on disk as well.
            let last = next.map_or(u64::MAX, |next| next.saturating_sub(1));
            return Replayed::Lost { last };
        };
        let start = Position {
            segment: *number,
            offset: SECTOR as u64,
            expected: segment.first,
        };
        let position = self
            .next
            .filter(|next| next.segment == *number && next.expected <= from)
            .unwrap_or(start);
        let end = segment.end;
        if position.offset >= end {
            // The segment ends before `from`, although it should be there.
            return Replayed::Lost { last: segment.last };
        }
        let left = usize::try_from(end.saturating_sub(position.offset)).unwrap_or(usize::MAX);
        let len = if self.whole { left } else { left.min(CHUNK_LEN) };
        self.waiting = Some((position, len));
        Replayed::Read(Wanted {
            segment: *number,
            offset: position.offset,
            len,
        })
    }

    fn copy_from(
        &mut self,
        index: usize,
        (from, is_sealed): (u64, bool),
        (bytes_max, count_max): (usize, u64),
        out: &mut Vec<u8>,
    ) -> Replayed {
        let opener = self.opener.as_ref().map(|(_, key)| key).filter(|_| is_sealed);
        let limit = out.len().saturating_add(bytes_max);
        let mut copied = 0_u64;
        let mut wanted = from;
        for block in self.blocks.iter_mut().skip(index) {
            if block.first > wanted {
                break;
            }
            let payload = self.chunk.get(block.start..block.end).unwrap_or_default();
            if block.next > wanted {
                (block.next, block.at) = (block.first, 0);
            }
            let rest = payload.get(block.at..).unwrap_or_default();
            let mut records = Records::new(rest, block.first, block.last);
            let mut before = 0;
            while let Some(record) = records.next() {
                if record.sequence < wanted {
                    before = records.at();
                    continue;
                }
                if record.sequence > wanted {
                    if copied > 0 {
                        return self.copied(copied);
                    }
                    return Replayed::Lost {
                        last: record.sequence.saturating_sub(1),
                    };
                }
                let len = out.len().saturating_add(record.body.len()).saturating_add(4);
                if copied >= count_max || len > limit {
                    block.at = block.at.saturating_add(before);
                    block.next = wanted;
                    return self.copied(copied);
                }
                if !put_body(out, &record, is_sealed, opener) {
                    block.at = block.at.saturating_add(before);
                    block.next = wanted;
                    if copied > 0 {
                        return self.copied(copied);
                    }
                    return Replayed::Lost {
                        last: record.sequence,
                    };
                }
                copied = copied.saturating_add(1);
                wanted = wanted.saturating_add(1);
                before = records.at();
                block.next = wanted;
            }
            block.at = block.at.saturating_add(before);
            if wanted <= block.last {
                if copied > 0 {
                    return self.copied(copied);
                }
                return Replayed::Lost { last: block.last };
            }
        }
        self.copied(copied)
    }

    const fn copied(&mut self, count: u64) -> Replayed {
        self.records = self.records.saturating_add(count);
        Replayed::Records(count)
    }

    /// Forgets the read under way: it will be asked for again.
    pub(super) const fn cancel_read(&mut self) {
        self.waiting = None;
    }

    /// Takes the bytes that were read, or none if reading failed: what should have been there is lost then.
    pub(super) fn handle_read(&mut self, bytes: Option<Vec<u8>>, segments: &BTreeMap<u64, Segment>) {
        let Some((position, len)) = self.waiting.take() else {
            return;
        };
        self.blocks.clear();
        let Some(segment) = segments.get(&position.segment) else {
            return;
        };
        let Some(bytes) = bytes else {
            let last = segment.last;
            self.blocks.push(Found {
                first: position.expected,
                last,
                start: 0,
                end: 0,
                next: position.expected,
                at: 0,
            });
            self.next = None;
            return;
        };
        let chunk = bytes;
        self.chunk_of = position.segment;
        // A file that is shorter than its blocks say has ended as well.
        let at_end = chunk.len() < len || position.offset.saturating_add(chunk.len() as u64) >= segment.end;
        self.whole = false;
        let mut offset = 0;
        let mut expected = position.expected;
        while let Some(rest) = chunk.get(offset..).filter(|rest| !rest.is_empty()) {
            let header = BlockHeader::decode(rest);
            match header {
                Some(header) if header.block_len() <= rest.len() || at_end => {
                    if header.first > expected {
                        let missing = header.first.saturating_sub(1).min(segment.last);
                        self.found(expected, missing, offset, offset);
                    }
                    let last = header.last().min(segment.last);
                    if header.first <= last {
                        let start = offset.saturating_add(super::format::BLOCK_HEADER_LEN);
                        let end = start.saturating_add(payload(rest, &header).len());
                        self.found(header.first, last, start, end);
                        expected = expected.max(last.saturating_add(1));
                    }
                    offset = offset.saturating_add(header.block_len());
                }
                Some(_) => break,
                None => match next_block(&chunk, offset) {
                    Some(next) => {
                        let after = chunk
                            .get(next..)
                            .and_then(BlockHeader::decode)
                            .map_or(expected, |header| header.first)
                            .min(segment.last.saturating_add(1));
                        // The header is damaged; the records behind it may not be.
                        let start = offset.saturating_add(super::format::BLOCK_HEADER_LEN);
                        self.found(expected, after.saturating_sub(1), start.min(next), next);
                        expected = expected.max(after);
                        offset = next;
                    }
                    None if at_end => {
                        let start = offset.saturating_add(super::format::BLOCK_HEADER_LEN);
                        let end = chunk.len();
                        self.found(expected, segment.last, start.min(end), end);
                        offset = end;
                        expected = segment.last.saturating_add(1);
                    }
                    None => {
                        self.whole = true;
                        break;
                    }
                },
            }
        }
        let offset = position.offset.saturating_add(offset as u64);
        self.next = Some(Position {
            segment: position.segment,
            offset,
            expected,
        });
        if at_end && expected <= segment.last {
            // The file ends before the sequences that should be in it.
            self.found(expected, segment.last, chunk.len(), chunk.len());
        }
        self.chunk = chunk;
    }

    fn found(&mut self, first: u64, last: u64, start: usize, end: usize) {
        if first <= last {
            self.blocks.push(Found {
                first,
                last,
                start,
                end,
                next: first,
                at: 0,
            });
        }
    }

    /// Forgets what was read from a segment that is deleted.
    pub(super) fn forget(&mut self, segment: u64) {
        if self.chunk_of == segment || self.next.is_some_and(|next| next.segment == segment) {
            self.next = None;
            self.blocks.clear();
            self.chunk = Vec::new();
        }
    }

    /// Gives memory back: everything is read from the tail again.
    pub(super) fn rest(&mut self) {
        if self.waiting.is_none() && !self.chunk.is_empty() {
            *self = Self {
                records: self.records,
                ..Self::default()
            };
        }
    }
}

/// Appends a body behind its length; false if it is encrypted and does not verify.
fn put_body(out: &mut Vec<u8>, record: &Record<'_>, is_sealed: bool, opener: Option<&SegmentKey>) -> bool {
    if !is_sealed {
        put_bytes_varint(out, record.body);
        return true;
    }
    let before = out.len();
    let len = record.body.len().saturating_sub(TAG_LEN);
    put_varint(out, len as u64);
    let start = out.len();
    out.extend_from_slice(record.body);
    let sealed = out.get_mut(start..).unwrap_or_default();
    let is_open = opener.is_some_and(|opener| opener.open(record.sequence, record.class, sealed).is_some());
    out.truncate(if is_open {
        start.saturating_add(len)
    } else {
        before
    });
    is_open
}

/// Bytes read at a time: holds at least one block of any length.
const CHUNK_LEN: usize = BLOCK_BYTES_MAX + SECTOR;
