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
        /// The change of the peer's history whose key vouched for it.
        key_sequence: u32,
        /// What an initiator presented in message 3, at most
        /// [`PRESENTATION_LEN_MAX`](super::PRESENTATION_LEN_MAX) bytes that nobody has verified; empty if it has
        /// nothing to present. Always empty at the initiator: a responder presents in the channel
        /// ([`Output::Presented`]).
        presentation: Vec<u8>,
    },
    /// The peer presents a credential, in place of what it presented before.
    Presented {
        /// The channel.
        channel: ChannelId,
        /// At most [`PRESENTATION_LEN_MAX`](super::PRESENTATION_LEN_MAX) bytes that nobody has verified; empty
        /// if the peer withdraws what it presented.
        presentation: Vec<u8>,
    },
    /// The peer demands a live proof: sign `message` with the identity key and answer by
    /// [`handle_signature`](super::Channels::handle_signature), once, even if the channel closes meanwhile.
    Sign {
        /// The channel.
        channel: ChannelId,
        /// What is signed as PROTOCOL.md §2.1 says.
        message: Vec<u8>,
    },
    /// The peer's identity key has signed in this channel, as
    /// [`demand_proof`](super::Channels::demand_proof) wanted.
    Proven {
        /// The channel.
        channel: ChannelId,
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
    /// The peer's live proof is wrong, late or missing, or nobody asked for it.
    #[error("the peer did not prove that it holds its identity key")]
    Unproven,
    /// This node's identity key did not sign the live proof that the peer demands.
    #[error("this node's identity key did not sign the proof that the peer demands")]
    Unsigned,
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
            Self::Unproven => {
                "check that the peer's token signs within 30 s; if it does, somebody uses a stolen purpose key"
            }
            Self::Unsigned => "check that this node's token is there and signs, then connect again",
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
    /// Credential frames taken.
    pub presentations: u64,
    /// Credential frames dropped, because another was taken less than a second before.
    pub presentations_dropped: u64,
    /// Live proofs of peers that verified.
    pub proofs_verified: u64,
    /// Channels closed because the peer's live proof was wrong, late, missing or unasked.
    pub proofs_refused: u64,
    /// Live proofs given.
    pub proofs_given: u64,
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
