//! The durable queue of a gateway: a segmented, checksummed, group-committed log, as a state machine that never touches a
//! file. Whoever runs it executes its [`Output`]s and reports back.
//!
//! # Lanes
//!
//! A gateway has three of them, one per class ([`Lanes`]): each is a [`Journal`] with its own directory, id, sequences from 1,
//! segments, cursor and bound. So classes never share a segment, an urgent one overtakes without anything being rewritten, and
//! space is freed by deleting whole segments. What nobody needs any more takes at most two: the oldest, of which a part may be
//! needed, and the newest, which stays as the witness of which sequences were given out.
//!
//! # Files
//!
//! The directory of a lane holds segments `<number, 20 digits>.fgj` and `cursor`. Integers are big-endian; every checksum is
//! CRC-32C (RFC 3720 §12.1).
//!
//! ```text
//! segment = header (512 bytes) | block | block | … | zeros
//! header  = "FGJ1" | u32 version (2) | 16 journal id | u64 number | u64 segment bytes | u64 next | u64 released | u8 class
//!         | u8 encrypted (0, 1) | 16 salt, 8 key id (if encrypted) | zeros | u32 checksum at byte 508
//! block   = "FGB2" | u64 first sequence | u32 records | u32 payload bytes | u64 released | times | u64 number of the segment
//!           written before | times of that segment | u32 flags | u32 checksum | payload | zeros
//! times   = u64 earliest | u64 latest capture time, milliseconds since 1970; flags: bit 0 a clock was vouched for, bit 1 for
//!           the other times
//! record  = u32 body bytes | u32 checksum | u32 index in the block | u8 class | body
//! body    = bytes, or if the segment is encrypted AES-256-GCM ciphertext and tag: key = HKDF(journal key, salt; class,
//!           journal id, number), nonce = sequence, associated data = class, sequence, class, length in clear
//! cursor  = slot (512 bytes) | slot (512 bytes)
//! slot    = "FGC2" | 16 journal id | u64 counter | u64 released | totals: u64 bytes written, bodies, discarded, expired
//!         | u8 uplinks (≤ 8) | uplinks × (u64 name, u64 confirmed) | u64 gaps are fixed up to
//!         | u8 gaps (≤ 8) | gaps × (u64 first, u64 last, times, u8 reason + 128 if vouched) | zeros | u32 checksum at byte 508
//! ```
//! A block begins at a multiple of 512 bytes and is filled with zeros to the next, so that no write touches a sector with
//! older records. A record's checksum is over its sequence (u64), class, length and body as it stands there, so that it is
//! valid in its place only, and damage is found without the key. `released` is the highest sequence that every collector had
//! confirmed; `next` is one more than the highest on stable storage when the segment was made.
//!
//! # What custody rests on
//!
//! - At most one block of a lane is being written. After a power cut only the block with the highest sequences can be torn: it
//!   ends before its first invalid record, and nothing behind was acknowledged. Any other invalid record is corruption; the
//!   block headers around it say which sequences are lost.
//! - [`Output::Committed`] follows a write that returned, never one that was given out. A write that failed poisons its segment:
//!   nothing more is written there, and its records go into another.
//! - A record is taken only if there is a segment on disk that has room for it.
//! - The cursor is on stable storage before a segment it frees is deleted, and a slot that may be torn is never the only valid
//!   one. A lost cursor costs repetition of what was confirmed; what was discarded is then reported as lost, since nobody knows
//!   why any more.
//! - After a restart writing goes on in a new segment, and no sequence is given out twice.
//!
//! ```text
//!  append ─▶ pending ──flush, no write in flight──▶ in flight ──handle_written(Ok)──▶ committed ──every uplink past it──▶ gone
//!              ▲                                       └──handle_written(Err): segment poisoned──▶ in flight elsewhere
//! ```
//!
//! # What policy discards
//!
//! Always the oldest segment, as a whole: when the lane is full ([`WhenFull::DropOldest`]), or when its newest record is older
//! than `ttl`. What not every collector had becomes part of a *gap*: a range of sequences with a reason and the range of
//! capture times. The gap is in the cursor, on stable storage, before the segment is deleted.
//! [`RecordSource`](crate::node::RecordSource) tells of it in order, like of records, once its end is fixed on stable storage:
//! after a restart the same range is told. It is forgotten when every uplink is past it. So each sequence that was
//! committed is delivered, or in exactly one gap that is.
//!
//! ```text
//!  segment ──full, or too old──▶ in a gap ──cursor written──▶ deleted
//!                                  └──a collector asks──▶ end fixed ──cursor written──▶ told ──confirmed by all──▶ forgotten
//! ```

mod capture;
mod cursor;
mod forecast;
mod format;
mod gaps;
mod lanes;
mod log;
mod output;
mod recovery;
mod replay;
mod scan;
mod sealing;
mod settings;
mod tail;

pub use capture::Captured;
pub use cursor::{Totals, UPLINKS_MAX};
pub use format::{BLOCK_BYTES_MAX, BlockHeader, RECORD_BODY_MAX, SECTOR, SegmentHeader};
pub use gaps::Gap;
pub use lanes::{Lanes, LanesOutput};
pub use log::{Journal, JournalStats, LaneView};
pub use output::{AppendError, JournalState, Output, WriteFailed};
pub use recovery::{Recovery, RecoveryReport};
pub use scan::{Damage, Scanned, scan_segment};
pub use sealing::{JournalKey, RecordOpener, SegmentSeal};
pub use settings::{JournalSettings, SEGMENT_BYTES_MIN, WhenFull};

#[cfg(test)]
mod tests;
