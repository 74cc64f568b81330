//! The small file that says what has been released and what was discarded.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use super::{
    capture::Captured,
    format::{SECTOR, SEQUENCE_MAX},
    gaps::{GAPS_MAX, Gap, Gaps},
};
use crate::{delivery::LostReason, wire::Reader};

/// The newest of the two slots, and where the next goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    journal: [u8; 16],
    counter: u64,
    /// Whether the second slot is the one that surely holds the newest value.
    second_is_safe: bool,
    /// Whether `content` is on stable storage.
    is_safe: bool,
    pub(super) content: CursorContent,
}

/// What a slot says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CursorContent {
    /// Highest sequence that every uplink's collector has.
    pub(super) released: u64,
    /// How far each uplink's collector is.
    pub(super) positions: Vec<Position>,
    pub(super) gaps: Gaps,
    pub(super) totals: Totals,
}

/// How far one uplink's collector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// A stable name of the uplink.
    pub(super) uplink: u64,
    /// Highest sequence its collector has.
    pub(super) confirmed: u64,
}

/// What a lane has done since it was begun; what the last seconds before a power cut added is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes given to the disk.
    pub written_bytes: u64,
    /// Bytes of bodies committed.
    pub body_bytes: u64,
    /// Records discarded since there was no room.
    pub discarded: u64,
    /// Records discarded since they were too old.
    pub expired: u64,
}

impl CursorContent {
    /// Returns up to where nothing is needed any more.
    pub(super) fn gone(&self) -> u64 {
        self.released.max(self.gaps.last())
    }

    fn put(&self, out: &mut Vec<u8>) {
        let Totals {
            written_bytes,
            body_bytes,
            discarded,
            expired,
        } = self.totals;
        for number in [self.released, written_bytes, body_bytes, discarded, expired] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.push(u8::try_from(self.positions.len()).unwrap_or(0));
        for position in &self.positions {
            out.extend_from_slice(&position.uplink.to_be_bytes());
            out.extend_from_slice(&position.confirmed.to_be_bytes());
        }
        out.extend_from_slice(&self.gaps.sealed().to_be_bytes());
        out.push(u8::try_from(self.gaps.iter().count()).unwrap_or(0));
        for gap in self.gaps.iter() {
            out.extend_from_slice(&gap.first.to_be_bytes());
            out.extend_from_slice(&gap.last.to_be_bytes());
            out.extend_from_slice(&gap.captured.earliest.to_be_bytes());
            out.extend_from_slice(&gap.captured.latest.to_be_bytes());
            out.push(gap.reason.code() | (u8::from(gap.captured.vouched) << VOUCHED_SHIFT));
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let released = reader.u64("released").ok()?;
        let totals = Totals {
            written_bytes: reader.u64("written").ok()?,
            body_bytes: reader.u64("bodies").ok()?,
            discarded: reader.u64("discarded").ok()?,
            expired: reader.u64("expired").ok()?,
        };
        let count = usize::from(reader.u8("uplinks").ok()?);
        let mut positions = Vec::with_capacity(count.min(UPLINKS_MAX));
        for _ in 0..count {
            positions.push(Position {
                uplink: reader.u64("uplink").ok()?,
                confirmed: reader.u64("confirmed").ok()?,
            });
        }
        let sealed = reader.u64("sealed").ok()?;
        let count = usize::from(reader.u8("gaps").ok()?);
        let mut gaps = Vec::with_capacity(count.min(GAPS_MAX));
        for _ in 0..count {
            gaps.push(read_gap(reader)?);
        }
        let gaps = Gaps::restore(gaps, sealed)?;
        let content = Self {
            released,
            positions,
            gaps,
            totals,
        };
        let positions_sound = content
            .positions
            .iter()
            .all(|position| position.confirmed <= SEQUENCE_MAX);
        let sound = positions_sound
            && content.positions.len() <= UPLINKS_MAX
            && content.gone() <= SEQUENCE_MAX
            && content.gaps.sealed() <= SEQUENCE_MAX;
        sound.then_some(content)
    }
}

fn read_gap(reader: &mut Reader<'_>) -> Option<Gap> {
    let (first, last) = (reader.u64("first").ok()?, reader.u64("last").ok()?);
    let (earliest, latest) = (reader.u64("earliest").ok()?, reader.u64("latest").ok()?);
    let flags = reader.u8("reason").ok()?;
    Some(Gap {
        first,
        last,
        reason: LostReason::from_code(flags & !(1 << VOUCHED_SHIFT))?,
        captured: Captured {
            earliest,
            latest,
            vouched: flags >> VOUCHED_SHIFT != 0,
        },
    })
}

impl Cursor {
    /// The cursor of a journal that has none yet.
    pub(super) fn new(journal: [u8; 16]) -> Self {
        Self {
            journal,
            counter: 0,
            second_is_safe: true,
            is_safe: false,
            content: CursorContent::default(),
        }
    }

    /// Returns whether nothing was ever written.
    pub(super) const fn is_new(&self) -> bool {
        self.counter == 0
    }

    /// Reads the newest valid slot of the file.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        bytes
            .chunks(SECTOR)
            .zip([false, true])
            .filter_map(|(slot, is_second)| Self::decode_slot(slot, is_second))
            .max_by_key(|cursor| cursor.counter)
    }

    fn decode_slot(slot: &[u8], is_second: bool) -> Option<Self> {
        let (content, checksum) = slot.get(..SECTOR)?.split_last_chunk::<4>()?;
        if crc32c::crc32c(content) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let mut reader = Reader::new(content);
        (reader.bytes("magic", 4).ok()? == MAGIC).then_some(())?;
        Some(Self {
            journal: reader.array("journal id").ok()?,
            counter: reader.u64("counter").ok()?,
            second_is_safe: is_second,
            is_safe: true,
            content: CursorContent::read(&mut reader)?,
        })
    }

    /// Returns the journal it belongs to.
    pub(super) const fn journal(&self) -> &[u8; 16] {
        &self.journal
    }

    /// Returns whether `content` is on stable storage.
    pub(super) fn holds(&self, content: &CursorContent) -> bool {
        self.is_safe && self.content == *content
    }

    /// Takes the news that the slot last given out is on stable storage.
    pub(super) const fn confirm(&mut self) {
        self.second_is_safe = !self.second_is_safe;
        self.is_safe = true;
    }

    /// Moves on to `content` and returns the slot to write: its offset, and its bytes. It is never the slot that surely holds
    /// the newest value, however often writing fails.
    pub(super) fn advance(&mut self, content: CursorContent) -> (u64, Vec<u8>) {
        self.counter = self.counter.saturating_add(1);
        self.is_safe = false;
        self.content = content;
        let mut slot = Vec::with_capacity(SECTOR);
        slot.extend_from_slice(MAGIC);
        slot.extend_from_slice(&self.journal);
        slot.extend_from_slice(&self.counter.to_be_bytes());
        self.content.put(&mut slot);
        slot.resize(SECTOR.saturating_sub(4), 0);
        let checksum = crc32c::crc32c(&slot);
        slot.extend_from_slice(&checksum.to_be_bytes());
        let offset = if self.second_is_safe { 0 } else { SECTOR as u64 };
        (offset, slot)
    }
}

/// Uplinks whose positions are kept: as many as a slot has room for beside the gaps.
pub const UPLINKS_MAX: usize = 8;

const MAGIC: &[u8; 4] = b"FGC2";
const VOUCHED_SHIFT: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_slot_is_read_as_it_was_written() {
        let list = (0..GAPS_MAX as u64)
            .map(|index| Gap {
                first: index * 5 + 1,
                last: index * 5 + 5,
                reason: if index % 2 == 0 {
                    LostReason::Expired
                } else {
                    LostReason::Discarded
                },
                captured: Captured {
                    earliest: index,
                    latest: u64::MAX - index,
                    vouched: index > 3,
                },
            })
            .collect();
        let content = CursorContent {
            released: 3,
            positions: (0..UPLINKS_MAX as u64)
                .map(|index| Position {
                    uplink: u64::MAX - index,
                    confirmed: 3 + index,
                })
                .collect(),
            gaps: Gaps::restore(list, 20).expect("they follow each other"),
            totals: Totals {
                written_bytes: 1,
                body_bytes: 2,
                discarded: 3,
                expired: 4,
            },
        };
        let mut cursor = Cursor::new([7; 16]);
        let (first, _) = cursor.advance(CursorContent::default());
        let (again, _) = cursor.advance(CursorContent::default());
        assert_eq!((first, again), (0, 0), "what failed is written to the same place");
        cursor.confirm();
        let (second, slot) = cursor.advance(content.clone());
        assert_eq!((slot.len(), second), (SECTOR, SECTOR as u64));
        let read = Cursor::decode(&slot).expect("it is whole");
        assert_eq!((read.content, read.counter), (content, 3));
    }
}
