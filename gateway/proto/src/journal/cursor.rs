//! The small file that says what has been released.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::format::{SECTOR, SEQUENCE_MAX};
use crate::wire::Reader;

/// The newest of the two slots, and where the next goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    journal: [u8; 16],
    counter: u64,
    pub(super) released: u64,
}

impl Cursor {
    pub(super) const fn new(journal: [u8; 16], released: u64) -> Self {
        Self {
            journal,
            counter: 0,
            released,
        }
    }

    /// Reads the newest valid slot of the file.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        bytes
            .chunks(SECTOR)
            .take(2)
            .filter_map(Self::decode_slot)
            .max_by_key(|cursor| cursor.counter)
    }

    fn decode_slot(slot: &[u8]) -> Option<Self> {
        let (content, rest) = slot.split_at_checked(CONTENT_LEN)?;
        let checksum = u32::from_be_bytes(*rest.first_chunk()?);
        if crc32c::crc32c(content) != checksum {
            return None;
        }
        let mut reader = Reader::new(content);
        (reader.bytes("magic", 4).ok()? == MAGIC).then_some(())?;
        let cursor = Self {
            journal: reader.array("journal id").ok()?,
            counter: reader.u64("counter").ok()?,
            released: reader.u64("released").ok()?,
        };
        (cursor.released <= SEQUENCE_MAX).then_some(cursor)
    }

    /// Returns the journal it belongs to.
    pub(super) const fn journal(&self) -> &[u8; 16] {
        &self.journal
    }

    /// Moves on to `released` and returns the slot to write: its offset, and its bytes.
    pub(super) fn advance(&mut self, released: u64) -> (u64, Vec<u8>) {
        self.counter = self.counter.saturating_add(1);
        self.released = released;
        let mut slot = Vec::with_capacity(SECTOR);
        slot.extend_from_slice(MAGIC);
        slot.extend_from_slice(&self.journal);
        slot.extend_from_slice(&self.counter.to_be_bytes());
        slot.extend_from_slice(&released.to_be_bytes());
        let checksum = crc32c::crc32c(&slot);
        slot.extend_from_slice(&checksum.to_be_bytes());
        slot.resize(SECTOR, 0);
        // The slot with the newest value is never the one written.
        ((self.counter % 2).saturating_mul(SECTOR as u64), slot)
    }
}

const MAGIC: &[u8; 4] = b"FGC1";
const CONTENT_LEN: usize = 4 + 16 + 8 + 8;
