//! Secure channels end to end between two identities (PROTOCOL.md §4–6).
//!
//! ```text
//!  Channels ── handshake ── SymmetricState        who the peer is, and keys nobody else has
//!     │           └ cookie, message layouts
//!     └ Established ── Sealer, Opener ── ReplayWindow    records
//!          ├ rekey                                       new keys while records flow
//!          └ Assured, LiveProof                          credentials and live proofs, in records too
//! ```
//!
//! [`Channels`] is the whole of a node's channels and the way in for bytes from outside. It neither knows
//! routes nor sockets: a path is a number its caller gives meaning to. [`Sealer`], [`Opener`] and [`frames`]
//! are its parts that cost something per record, public for measurement and for tests of other crates.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod channels;
mod cookie;
mod error;
mod established;
mod frame;
mod handshake;
mod message;
mod output;
mod record;
mod rekey;
mod replay;
mod settings;
mod suite;
mod symmetric;
mod table;

pub use channels::{Channels, Received};
pub use error::ChannelError;
pub use frame::{
    FIRST_APPLICATION_KIND, FrameError, FrameMark, Frames, begin_frame, finish_frame, frames, put_frame,
};
pub use output::{ChannelStats, ChannelsStats, CloseCode, CloseReason, Output, Role};
pub use record::{
    EPOCHS_AHEAD_MAX, NumberLen, Opener, PLAINTEXT_CARRIED_MAX, PLAINTEXT_LEN_MAX, RECORD_OVERHEAD_MAX,
    RecordHeader, RecordStart, Sealer,
};
pub use replay::{REPLAY_WINDOW, ReplayWindow, Verdict};
pub use settings::{
    CHANNELS_MAX, ChannelSettings, HALF_OPEN_MAX, LocalIdentity, PRESENTATION_LEN_MAX, PROOFS_WAITING_MAX,
    Padding, RekeySettings,
};
pub use suite::{PqPolicy, Suite, SuiteOrder};

use std::fmt;

/// A channel, or a handshake that may become one, as this node calls it. Never reused within a short time:
/// half of it is drawn at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(u32);

impl ChannelId {
    /// Takes the number from a message.
    #[must_use]
    pub const fn from_wire(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number for a message.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Where messages go and come from; the number means something to the caller only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u64);

#[cfg(test)]
mod second;
