//! What a lane wants done, and how it is answered.

/// An effect that somebody else has to bring about, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write `bytes` to stable storage and report with `handle_written`. At most one is under way.
    Write {
        /// Number of the segment.
        segment: u64,
        /// Where in it.
        offset: u64,
        /// What; the buffer comes back in the report.
        bytes: Vec<u8>,
    },
    /// Create a segment, reserve its space, write its first sector, sync file and directory; report with `handle_created`.
    Create {
        /// Its number.
        segment: u64,
        /// Bytes to reserve.
        segment_bytes: u64,
        /// Its first sector.
        header: Vec<u8>,
    },
    /// Write a slot of the cursor to stable storage; report with `handle_cursor_written`.
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
    /// Cut a segment off behind its last block: nothing more is written there. A failure costs space only.
    Shrink {
        /// Its number.
        segment: u64,
        /// Bytes that stay.
        bytes: u64,
    },
    /// Read from a segment; report with `handle_read`.
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
    /// Readings were discarded before every collector had them.
    Discarded {
        /// How many.
        count: u64,
        /// They were too old, rather than in the way.
        expired: bool,
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

/// How a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailed {
    /// The disk is full, or a quota is reached.
    NoRoom,
    /// Anything else.
    Broken,
}

impl WriteFailed {
    /// Returns the state of a journal that cannot go on because of it.
    pub(super) const fn state(self) -> JournalState {
        match self {
            Self::NoRoom => JournalState::Full,
            Self::Broken => JournalState::Failed,
        }
    }
}
