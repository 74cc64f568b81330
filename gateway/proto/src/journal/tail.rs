//! The newest committed records in memory, in clear, in the buffers they were gathered in.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;

use super::{
    capture::Captured,
    format::{BLOCK_HEADER_LEN, peek_record},
};
use crate::wire::put_bytes_varint;

/// Blocks in memory, oldest first, without gaps between them.
#[derive(Debug)]
pub(super) struct Tail {
    blocks: VecDeque<TailBlock>,
    bytes: usize,
    bytes_max: usize,
    /// Where the last copy ended, so that the next one need not walk there: sequence, index of the block's first sequence,
    /// offset in the block.
    place: Option<Place>,
    /// Buffers of blocks that were dropped, for the next blocks.
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct TailBlock {
    first: u64,
    last: u64,
    captured: Captured,
    block: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    sequence: u64,
    block_first: u64,
    offset: usize,
}

impl Tail {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            blocks: VecDeque::new(),
            bytes: 0,
            bytes_max,
            place: None,
            spare: Vec::new(),
        }
    }

    /// Returns the oldest sequence in memory.
    pub(super) fn first(&self) -> Option<u64> {
        self.blocks.front().map(|block| block.first)
    }

    /// Returns when the records of the block were captured that holds `sequence`, if that is in memory.
    pub(super) fn captured(&self, sequence: u64) -> Option<Captured> {
        let index = self.blocks.partition_point(|block| block.last < sequence);
        let block = self.blocks.get(index).filter(|block| block.first <= sequence)?;
        Some(block.captured)
    }

    /// Takes a block that was written.
    pub(super) fn push(&mut self, first: u64, last: u64, captured: Captured, block: Vec<u8>) {
        self.bytes = self.bytes.saturating_add(block.len());
        self.blocks.push_back(TailBlock {
            first,
            last,
            captured,
            block,
        });
        while self.bytes > self.bytes_max && self.blocks.len() > 1 {
            self.pop();
        }
    }

    /// Drops blocks that hold nothing after `released`.
    pub(super) fn release(&mut self, released: u64) {
        while self.blocks.front().is_some_and(|block| block.last <= released) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(dropped) = self.blocks.pop_front() else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(dropped.block.len());
        if self.spare.len() < SPARE_MAX {
            let mut buffer = dropped.block;
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Returns an empty buffer, used before if there is one.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Appends records from `from` on behind their lengths; returns how many.
    pub(super) fn copy(&mut self, from: u64, bytes_max: usize, count_max: u64, out: &mut Vec<u8>) -> u64 {
        let limit = out.len().saturating_add(bytes_max);
        let mut index = self.blocks.partition_point(|block| block.last < from);
        let mut next = from;
        let mut copied = 0_u64;
        while let Some(block) = self.blocks.get(index) {
            let at_place = self
                .place
                .filter(|place| place.sequence == next && place.block_first == block.first);
            let mut offset = at_place.map_or(BLOCK_HEADER_LEN, |place| place.offset);
            while next <= block.last {
                let Some((record, _, len)) = block
                    .block
                    .get(offset..)
                    .and_then(|rest| peek_record(rest, block.first))
                else {
                    return copied;
                };
                if record.sequence == next {
                    let end = out.len().saturating_add(record.body.len()).saturating_add(4);
                    if copied >= count_max || end > limit {
                        self.place = Some(Place {
                            sequence: next,
                            block_first: block.first,
                            offset,
                        });
                        return copied;
                    }
                    put_bytes_varint(out, record.body);
                    copied = copied.saturating_add(1);
                    next = next.saturating_add(1);
                }
                offset = offset.saturating_add(len);
            }
            self.place = Some(Place {
                sequence: next,
                block_first: block.first,
                offset,
            });
            index = index.saturating_add(1);
        }
        copied
    }
}

/// Buffers kept for reuse: one being filled, one in flight, one to spare.
const SPARE_MAX: usize = 3;
