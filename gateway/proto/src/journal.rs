//! The durable queue of a gateway: a segmented, checksummed, group-committed log, as a state machine that never touches a
//! file. Whoever runs it executes its [`Output`]s and reports back.
//!
//! # Files
//!
//! One directory holds segments `<number, 20 digits>.fgj`, all of one size, and `cursor`. Integers are big-endian; every
//! checksum is CRC-32C (RFC 3720 §12.1).
//!
//! ```text
//! segment = header (512 bytes) | block | block | … | zeros
//! header  = "FGJ1" | u32 version (1) | 16 journal id | u64 number | u64 segment bytes | zeros | u32 checksum at byte 508
//! block   = "FGB1" | u64 first sequence | u32 records | u32 payload bytes | u64 released | u32 checksum | payload | zeros
//! record  = u32 body bytes | u32 checksum | u32 index in the block | u8 class | body
//! cursor  = slot (512 bytes) | slot (512 bytes)
//! slot    = "FGC1" | 16 journal id | u64 counter | u64 released | u32 checksum | zeros
//! ```
//! A block begins at a multiple of 512 bytes and is filled with zeros to the next, so that no write touches a sector with
//! older records. A record's checksum is over its sequence (u64), class, length and body, so that it is valid in its place
//! only. `released` is the highest sequence that every collector had confirmed.
//!
//! # What custody rests on
//!
//! - At most one block is being written. After a power cut only the block with the highest sequences can be torn: it ends
//!   before its first invalid record, and nothing behind was acknowledged. Any other invalid record is corruption; the block
//!   headers around it say which sequences are lost.
//! - [`Output::Committed`] follows a write that returned, never one that was given out. A write that failed poisons its segment:
//!   nothing more is written there, and its records go into another.
//! - The cursor is on stable storage before a segment it frees is deleted. A lost cursor costs repetition only.
//! - After a restart writing goes on in a new segment.
//!
//! ```text
//!  append ─▶ pending ──flush, no write in flight──▶ in flight ──handle_written(Ok)──▶ committed ──handle_released──▶ gone
//!              ▲                                       └──handle_written(Err): segment poisoned──▶ in flight elsewhere
//! ```

mod cursor;
mod format;
mod lanes;
mod log;
mod recovery;
mod replay;
mod scan;
mod tail;

pub use format::{BLOCK_BYTES_MAX, BlockHeader, RECORD_BODY_MAX, SECTOR, SegmentHeader};
pub use lanes::{Lanes, LanesOutput};
pub use log::{AppendError, Journal, JournalSettings, JournalState, JournalStats, Output, WriteFailed};
pub use recovery::{Recovery, RecoveryReport};
pub use scan::{Damage, Scanned, scan_segment};

#[cfg(test)]
mod tests;
