//! What channels tell their owner.

use std::time::Duration;

use super::{ChannelError, ChannelId, PathId, Suite};
use crate::identity::Identifier;

/// Which side began a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sent message 1.
    Initiator,
    /// Answered it.
    Responder,
}

/// An effect of [`Channels`](super::Channels).
///
/// Every channel that [`connect`](super::Channels::connect) returned or [`Output::Established`] announced
/// ends with exactly one [`Output::Closed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send `bytes` along `path`.
    Transmit {
        /// The channel it belongs to; `None` for answers that leave no state.
        channel: Option<ChannelId>,
        /// Where to.
        path: PathId,
        /// A handshake message or a record.
        bytes: Vec<u8>,
    },
    /// The peer is authenticated and records can be sealed.
    Established {
        /// The channel.
        channel: ChannelId,
        /// Who the peer is. Whether it may do anything is for the caller to say.
        peer: Identifier,
        /// The path the last message of the handshake came along.
        path: PathId,
        /// Who began it.
        role: Role,
        /// Hash of the handshake, equal on both sides and nowhere else.
        binding: [u8; 32],
        /// What was agreed on.
        suite: Suite,
        /// When the peer's attestation ends, in seconds since 1970. The channel closes then: open another
        /// before.
        not_after: u64,
    },
    /// The peer answered [`ping`](super::Channels::ping).
    Pong {
        /// The channel.
        channel: ChannelId,
        /// Time from ping to pong.
        round_trip: Duration,
    },
    /// The channel is no more; its keys are wiped.
    Closed {
        /// The channel.
        channel: ChannelId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a side closes a channel (PROTOCOL.md §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u8);

impl CloseCode {
    /// It is not needed any more.
    pub const DONE: Self = Self(0);
    /// The peer is not allowed what it wants.
    pub const NOT_AUTHORISED: Self = Self(1);
    /// The node shuts down.
    pub const SHUTDOWN: Self = Self(2);
    /// Another channel takes its place.
    pub const REPLACED: Self = Self(3);
    /// A limit is reached.
    pub const LIMIT: Self = Self(4);
    /// The channel broke: too many forged records, keys too old, peer silent.
    pub const BROKEN: Self = Self(5);
}

/// Why a channel is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// This node closed it.
    #[error("closed by this node with code {}", .0.0)]
    Local(CloseCode),
    /// The peer closed it.
    #[error("closed by the peer with code {}", .0.0)]
    Peer(CloseCode),
    /// The responder did not answer, or not acceptably.
    #[error("no acceptable answer to the handshake")]
    NoAnswer {
        /// Why the last answer was refused, if there was one.
        #[source]
        refusal: Option<ChannelError>,
    },
    /// The responder never sent a record.
    #[error("the peer never confirmed the handshake")]
    Unconfirmed,
    /// The peer did not take part in a rekey.
    #[error("the peer did not answer the rekey")]
    RekeyUnanswered,
    /// Nothing was received for too long.
    #[error("nothing was received for too long")]
    Silent,
    /// The peer's attestation is not valid any more.
    #[error("the peer's attestation has expired")]
    Expired,
    /// 2^20 records did not verify.
    #[error("too many forged records")]
    Forgeries,
}

impl CloseReason {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Local(_) => "nothing: this node decided it",
            Self::Peer(_) => "see the peer's log for its reason",
            Self::NoAnswer { refusal: Some(error) } => error.hint(),
            Self::NoAnswer { refusal: None } => {
                "check that the peer runs, that the route leads to it, and that its identifier is right"
            }
            Self::Unconfirmed | Self::RekeyUnanswered | Self::Silent => {
                "the path stopped working or the peer restarted: connect again"
            }
            Self::Expired => "connect again; if that fails too, check that the peer's token still signs",
            Self::Forgeries => {
                "someone on the path forges records: connect again, over another path if there is one"
            }
        }
    }
}

/// What all channels of a node did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelsStats {
    /// Channels established now.
    pub open: u64,
    /// Handshakes begun by this node that are not finished.
    pub connecting: u64,
    /// Handshakes begun by others that are not finished.
    pub half_open: u64,
    /// Handshakes finished, both roles.
    pub established: u64,
    /// Channels closed.
    pub closed: u64,
    /// Handshakes of others that were never finished.
    pub abandoned: u64,
    /// Cookies demanded.
    pub cookies_sent: u64,
    /// First messages for another identity.
    pub wrong_mac1: u64,
    /// Messages refused because a table was full.
    pub full: u64,
    /// Handshake messages refused for another reason.
    pub handshakes_refused: u64,
    /// Identities refused.
    pub identities_refused: u64,
    /// Records opened.
    pub records_opened: u64,
    /// Records received before or too old.
    pub records_replayed: u64,
    /// Records that did not verify.
    pub records_forged: u64,
    /// Records for no channel or without keys.
    pub records_unknown: u64,
    /// Records that hold malformed or misplaced frames.
    pub records_malformed: u64,
    /// Frames of a kind below 0x10 that we do not know.
    pub frames_unknown: u64,
    /// Generations replaced.
    pub rekeys: u64,
}

/// What one channel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelStats {
    /// Generation of the keys, from 0.
    pub generation: u64,
    /// Records sealed in this generation.
    pub records_sealed: u64,
    /// Records opened in this generation.
    pub records_opened: u64,
    /// Bytes of plaintext sealed in this generation.
    pub bytes_sealed: u64,
    /// Bytes of plaintext opened in this generation.
    pub bytes_opened: u64,
    /// Records that did not verify, in all generations.
    pub forged: u32,
    /// When the last record was opened.
    pub last_received: crate::time::Instant,
}
