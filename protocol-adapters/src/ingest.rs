//! The way of a reading from an adapter into the node.

use crate::reading::Reading;

/// Takes readings into the journal.
///
/// An adapter must not acknowledge a reading to its device before the node has said that its sequence is on stable storage.
pub trait Ingest {
    /// Puts `reading` into the journal and returns its sequence, which grows with every reading.
    ///
    /// The reading borrows the adapter's input: what is kept must be copied before the call returns.
    ///
    /// # Errors
    /// [`Refused`]: the reading was not taken and must not be acknowledged.
    fn publish(&mut self, reading: &Reading<'_>) -> Result<u64, Refused>;
}

/// Why a reading was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The journal has reached its size.
    #[error("the journal is full")]
    Full,
    /// The reading can never be taken: it exceeds [`READING_LEN_MAX`](crate::reading::READING_LEN_MAX) or the limit of a field.
    #[error("the reading is too large")]
    TooLarge,
    /// The node cannot take readings at the moment: it starts, stops, or the journal's disk does not answer.
    #[error("no readings are taken at the moment")]
    NotNow,
}

impl Refused {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Full => "restore the uplink, or give the journal more bytes",
            Self::TooLarge => "let the device send smaller messages",
            Self::NotNow => "wait, or look at the journal's state with `fieldgate status`",
        }
    }
}
