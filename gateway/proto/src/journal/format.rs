//! The bytes of segments, blocks and records.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{capture::Captured, sealing::SegmentSeal};
use crate::{crypto::TAG_LEN, wire::Reader};

/// What blocks and slots are aligned to: the smallest unit a disk writes.
pub const SECTOR: usize = 512;
/// Longest body of a record in bytes (PROTOCOL.md §14).
pub const RECORD_BODY_MAX: usize = 65_000;
/// Longest block in bytes, header included.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Largest sequence: the next must have a place in an Offer (PROTOCOL.md §8). At a million readings a second it lasts for
/// 146,000 years, so that a larger one on a disk is damage.
pub(super) const SEQUENCE_MAX: u64 = (1 << 62) - 1;
pub(super) const BLOCK_HEADER_LEN: usize = 76;
pub(super) const RECORD_HEADER_LEN: usize = 13;
/// Longest body as it stands in a segment.
const SEALED_BODY_MAX: usize = RECORD_BODY_MAX + TAG_LEN;
/// Largest number of a class.
const LANE_MAX: u8 = 2;

const SEGMENT_MAGIC: &[u8; 4] = b"FGJ1";
const BLOCK_MAGIC: &[u8; 4] = b"FGB2";
const VERSION: u32 = 2;

/// The first sector of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Which journal.
    pub journal: [u8; 16],
    /// Number of the segment, growing by one.
    pub number: u64,
    /// Size of the file in bytes when it was made.
    pub segment_bytes: u64,
    /// Number of the lane's class.
    pub lane: u8,
    /// One more than the highest sequence on stable storage when it was made.
    pub next: u64,
    /// Highest sequence that was released when it was made.
    pub released: u64,
    /// How its records are encrypted, if they are.
    pub seal: Option<SegmentSeal>,
}

impl SegmentHeader {
    /// Returns the sector.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SECTOR);
        out.extend_from_slice(SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.journal);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.segment_bytes.to_be_bytes());
        out.extend_from_slice(&self.next.to_be_bytes());
        out.extend_from_slice(&self.released.to_be_bytes());
        out.push(self.lane);
        out.push(u8::from(self.seal.is_some()));
        if let Some(seal) = &self.seal {
            out.extend_from_slice(&seal.salt);
            out.extend_from_slice(&seal.key_id);
        }
        out.resize(SECTOR.saturating_sub(4), 0);
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_be_bytes());
        out
    }

    /// Reads the sector at the beginning of `bytes`; `None` if it is not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let sector = bytes.get(..SECTOR)?;
        let (content, checksum) = sector.split_last_chunk::<4>()?;
        if crc32c::crc32c(content) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let mut reader = Reader::new(content);
        let known = reader.bytes("magic", 4).ok()? == SEGMENT_MAGIC && reader.u32("version").ok()? == VERSION;
        known.then_some(())?;
        let header = Self {
            journal: reader.array("journal id").ok()?,
            number: reader.u64("number").ok()?,
            segment_bytes: reader.u64("segment bytes").ok()?,
            next: reader.u64("next").ok()?,
            released: reader.u64("released").ok()?,
            lane: reader.u8("lane").ok()?,
            seal: match reader.u8("encryption").ok()? {
                0 => None,
                1 => Some(SegmentSeal {
                    salt: reader.array("salt").ok()?,
                    key_id: reader.array("key").ok()?,
                }),
                _ => return None,
            },
        };
        let sound = header.lane <= LANE_MAX && header.next <= SEQUENCE_MAX && header.released <= SEQUENCE_MAX;
        sound.then_some(header)
    }
}

/// What stands in front of the records of one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Sequence of the first record.
    pub first: u64,
    /// Number of records, at least 1.
    pub count: u32,
    /// Bytes of all records.
    pub payload_len: u32,
    /// Highest sequence that was released when the block was written.
    pub released: u64,
    /// When its records were captured.
    pub captured: Captured,
    /// Number of the segment that was written before this one, 0 if there was none.
    pub previous: u64,
    /// When the records of that segment were captured: it is told so late since only then it is known.
    pub previous_captured: Captured,
}

impl BlockHeader {
    /// Writes the header into the first bytes of a block.
    pub(super) fn put(&self, block: &mut [u8]) {
        let vouched = u32::from(self.captured.vouched) | (u32::from(self.previous_captured.vouched) << 1);
        let fields = BLOCK_MAGIC
            .iter()
            .copied()
            .chain(self.first.to_be_bytes())
            .chain(self.count.to_be_bytes())
            .chain(self.payload_len.to_be_bytes())
            .chain(self.released.to_be_bytes())
            .chain(self.captured.earliest.to_be_bytes())
            .chain(self.captured.latest.to_be_bytes())
            .chain(self.previous.to_be_bytes())
            .chain(self.previous_captured.earliest.to_be_bytes())
            .chain(self.previous_captured.latest.to_be_bytes())
            .chain(vouched.to_be_bytes());
        let Some((header, _)) = block.split_first_chunk_mut::<BLOCK_HEADER_LEN>() else {
            return;
        };
        let (content, checksum) = header.split_at_mut(BLOCK_HEADER_LEN.saturating_sub(4));
        content
            .iter_mut()
            .zip(fields)
            .for_each(|(place, byte)| *place = byte);
        checksum.copy_from_slice(&crc32c::crc32c(content).to_be_bytes());
    }

    /// Reads the header at the beginning of `bytes`; `None` if it is not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..BLOCK_HEADER_LEN)?;
        if header.get(..4)? != BLOCK_MAGIC {
            return None;
        }
        let (content, checksum) = header.split_last_chunk::<4>()?;
        if crc32c::crc32c(content) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let mut reader = Reader::new(content.get(4..)?);
        let mut header = Self {
            first: reader.u64("first").ok()?,
            count: reader.u32("count").ok()?,
            payload_len: reader.u32("payload").ok()?,
            released: reader.u64("released").ok()?,
            captured: times(&mut reader)?,
            previous: reader.u64("previous").ok()?,
            previous_captured: times(&mut reader)?,
        };
        let vouched = reader.u32("vouched").ok()?;
        header.captured.vouched = vouched & 1 != 0;
        header.previous_captured.vouched = vouched & 2 != 0;
        let sound = header.first > 0
            && header.count > 0
            && header.last() <= SEQUENCE_MAX
            && header.released <= SEQUENCE_MAX;
        (sound && header.block_len() <= BLOCK_BYTES_MAX).then_some(header)
    }

    /// Returns the bytes of the block, zeros at its end included.
    #[must_use]
    pub const fn block_len(&self) -> usize {
        aligned(BLOCK_HEADER_LEN.saturating_add(self.payload_len as usize))
    }

    /// Returns the sequence of the last record.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.first.saturating_add(self.count as u64).saturating_sub(1)
    }
}

fn times(reader: &mut Reader<'_>) -> Option<Captured> {
    Some(Captured {
        earliest: reader.u64("earliest").ok()?,
        latest: reader.u64("latest").ok()?,
        vouched: false,
    })
}

/// Returns `len` rounded up to whole sectors.
pub(super) const fn aligned(len: usize) -> usize {
    match len.checked_next_multiple_of(SECTOR) {
        Some(len) => len,
        None => usize::MAX,
    }
}

/// One record of a block; its body as it stands there, so it may be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) sequence: u64,
    pub(super) class: u8,
    pub(super) body: &'a [u8],
}

/// Writes the header of a record whose body stands at the end of `block`, from `start` + header on.
pub(super) fn seal_record(block: &mut [u8], start: usize, sequence: u64, index: u32, class: u8) {
    let body = block
        .get(start.saturating_add(RECORD_HEADER_LEN)..)
        .unwrap_or_default();
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let checksum = record_checksum(sequence, class, len, body);
    put_record_header(block, start, checksum, index, class);
}

/// As [`seal_record`], with a checksum that is known, or not needed.
pub(super) fn put_record_header(block: &mut [u8], start: usize, checksum: u32, index: u32, class: u8) {
    let Some((header, body)) = block
        .get_mut(start..)
        .and_then(|record| record.split_at_mut_checked(RECORD_HEADER_LEN))
    else {
        return;
    };
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let fields = len
        .to_be_bytes()
        .into_iter()
        .chain(checksum.to_be_bytes())
        .chain(index.to_be_bytes())
        .chain([class]);
    header
        .iter_mut()
        .zip(fields)
        .for_each(|(place, byte)| *place = byte);
}

/// Reads the record at the beginning of `bytes` without verifying it; gives the record's whole length as well.
pub(super) fn peek_record(bytes: &[u8], first: u64) -> Option<(Record<'_>, u32, usize)> {
    let mut reader = Reader::new(bytes);
    let len = reader.u32("length").ok()?;
    let checksum = reader.u32("checksum").ok()?;
    let index = reader.u32("index").ok()?;
    let class = reader.u8("class").ok()?;
    let body = reader.bytes("body", len as usize).ok()?;
    let sequence = first.checked_add(u64::from(index))?;
    Some((
        Record {
            sequence,
            class,
            body,
        },
        checksum,
        RECORD_HEADER_LEN.saturating_add(body.len()),
    ))
}

fn record_checksum(sequence: u64, class: u8, len: u32, body: &[u8]) -> u32 {
    let mut head = [0; 13];
    let fields = sequence
        .to_be_bytes()
        .into_iter()
        .chain([class])
        .chain(len.to_be_bytes());
    head.iter_mut()
        .zip(fields)
        .for_each(|(place, byte)| *place = byte);
    crc32c::crc32c_append(crc32c::crc32c(&head), body)
}

/// Goes through the records of a block, verifying each. What does not verify is passed over: the walk finds the next record
/// that does, wherever it begins.
#[derive(Clone, Debug)]
pub(super) struct Records<'a> {
    payload: &'a [u8],
    at: usize,
    first: u64,
    next: u64,
    last: u64,
}

impl<'a> Records<'a> {
    /// Walks over `payload`, in which the sequences `first` to `last` stand.
    pub(super) const fn new(payload: &'a [u8], first: u64, last: u64) -> Self {
        Self {
            payload,
            at: 0,
            first,
            next: first,
            last,
        }
    }

    /// Returns how many bytes have been used.
    pub(super) const fn at(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        while self.next <= self.last {
            let rest = self
                .payload
                .get(self.at..)
                .filter(|rest| rest.len() >= RECORD_HEADER_LEN)?;
            let found = peek_record(rest, self.first).filter(|(record, checksum, _)| {
                // The cheap checks first: at a wrong place they fail nearly always.
                (self.next..=self.last).contains(&record.sequence)
                    && record.body.len() <= SEALED_BODY_MAX
                    && *checksum
                        == record_checksum(
                            record.sequence,
                            record.class,
                            u32::try_from(record.body.len()).unwrap_or(u32::MAX),
                            record.body,
                        )
            });
            match found {
                Some((record, _, len)) => {
                    self.at = self.at.saturating_add(len);
                    self.next = record.sequence.saturating_add(1);
                    return Some(record);
                }
                None => self.at = self.at.saturating_add(1),
            }
        }
        None
    }
}
