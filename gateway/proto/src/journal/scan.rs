//! Everything that can be read in the bytes of a segment, with what cannot.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::format::{BLOCK_HEADER_LEN, BlockHeader, Records, SECTOR, SegmentHeader};

/// Something found in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned<'a> {
    /// A block with a valid header.
    Block {
        /// Offset in the segment.
        offset: u64,
        /// The header.
        header: BlockHeader,
    },
    /// A record that verifies.
    Record {
        /// Its sequence.
        sequence: u64,
        /// Its class, 0 to 2.
        class: u8,
        /// What it holds.
        body: &'a [u8],
    },
    /// Something that does not verify.
    Damage(Damage),
}

/// Bytes that do not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The first sector is not a segment header: nothing else is read.
    SegmentHeader,
    /// Records of a block with a valid header do not verify.
    Records {
        /// Offset of the block in the segment.
        offset: u64,
        /// First sequence.
        first: u64,
        /// Last sequence.
        last: u64,
    },
    /// There is something where a block should begin, and blocks follow.
    Block {
        /// Offset in the segment.
        offset: u64,
        /// Where the next block begins.
        next_offset: u64,
    },
    /// There is something behind the last block that is none: a torn write that was never acknowledged, or a damaged block.
    Tail {
        /// Offset in the segment.
        offset: u64,
    },
}

/// Reads a whole segment and reports what is there, in order. Returns the offset behind the last block.
pub fn scan_segment<'a>(bytes: &'a [u8], report: &mut impl FnMut(Scanned<'a>)) -> u64 {
    if SegmentHeader::decode(bytes).is_none() {
        report(Scanned::Damage(Damage::SegmentHeader));
        return 0;
    }
    let mut offset = SECTOR;
    loop {
        let rest = bytes.get(offset..).unwrap_or_default();
        if let Some(header) = BlockHeader::decode(rest) {
            report(Scanned::Block {
                offset: offset as u64,
                header,
            });
            scan_block(rest, offset, &header, report);
            offset = offset.saturating_add(header.block_len());
            continue;
        }
        match next_block(bytes, offset) {
            Some(next) => {
                report(Scanned::Damage(Damage::Block {
                    offset: offset as u64,
                    next_offset: next as u64,
                }));
                offset = next;
            }
            None => {
                if rest.iter().any(|byte| *byte != 0) {
                    report(Scanned::Damage(Damage::Tail {
                        offset: offset as u64,
                    }));
                }
                return offset as u64;
            }
        }
    }
}

fn scan_block<'a>(
    block: &'a [u8],
    offset: usize,
    header: &BlockHeader,
    report: &mut impl FnMut(Scanned<'a>),
) {
    let mut expected = header.first;
    let damage = |first: u64, last: u64| {
        Scanned::Damage(Damage::Records {
            offset: offset as u64,
            first,
            last,
        })
    };
    for record in Records::new(payload(block, header), header.first, header.last()) {
        if record.sequence > expected {
            report(damage(expected, record.sequence.saturating_sub(1)));
        }
        report(Scanned::Record {
            sequence: record.sequence,
            class: record.class,
            body: record.body,
        });
        expected = record.sequence.saturating_add(1);
    }
    if expected <= header.last() {
        report(damage(expected, header.last()));
    }
}

/// Returns the payload of the block at the beginning of `block`, as far as it is there.
pub(super) fn payload<'a>(block: &'a [u8], header: &BlockHeader) -> &'a [u8] {
    let payload = block.get(BLOCK_HEADER_LEN..).unwrap_or_default();
    payload.get(..header.payload_len as usize).unwrap_or(payload)
}

/// Returns the offset of the first valid block header behind `offset`.
pub(super) fn next_block(bytes: &[u8], offset: usize) -> Option<usize> {
    let mut at = offset.saturating_add(SECTOR);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= BLOCK_HEADER_LEN) {
        if BlockHeader::decode(rest).is_some() {
            return Some(at);
        }
        at = at.saturating_add(SECTOR);
    }
    None
}
