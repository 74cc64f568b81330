//! Why something with a channel did not work.

use super::{ChannelId, FrameError};
use crate::{crypto::CryptoError, identity::IdentityError, wire::WireError};

/// Why a message or a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The bytes are not what PROTOCOL.md describes.
    #[error("malformed message")]
    Wire(#[from] WireError),
    /// The first byte is that of no message.
    #[error("message kind {got:#04x} is unknown")]
    Kind {
        /// The byte found.
        got: u8,
    },
    /// The version of a handshake is not one we speak.
    #[error("handshake has version {got}, not {want}")]
    Version {
        /// The version found.
        got: u8,
        /// The version we speak.
        want: u8,
    },
    /// The message is longer than it may be.
    #[error("message has {len} bytes, more than {max}")]
    TooLong {
        /// Bytes it has.
        len: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// The sender does not know our identifier, or the message was changed.
    #[error("first message is not addressed to this identity")]
    Mac1,
    /// No suite of the initiator's is allowed, or the responder chose one that was not offered.
    #[error("no common suite")]
    Suite,
    /// There is no such channel, or it is in another state.
    #[error("channel {0} does not exist or is not in the state for this")]
    Channel(ChannelId),
    /// Cryptography refused the message.
    #[error("message is not authentic")]
    Crypto(#[from] CryptoError),
    /// The peer's identity was refused.
    #[error("peer's identity is refused")]
    Identity(#[from] IdentityError),
    /// The record was opened before.
    #[error("record {number} was received before")]
    Replayed {
        /// Its number.
        number: u64,
    },
    /// The record is older than the window or its key.
    #[error("record {number} is too old: {highest} was received")]
    TooOld {
        /// Its number.
        number: u64,
        /// The highest number received.
        highest: u64,
    },
    /// The record is further ahead than keys are derived.
    #[error("record {number} is {ahead} epochs ahead, more than {max}")]
    TooFar {
        /// Its number.
        number: u64,
        /// Epochs it is ahead.
        ahead: u64,
        /// Epochs it may be ahead.
        max: u64,
    },
    /// There are no keys for the generation of the record.
    #[error("record is of generation {got} (modulo 4), for which there are no keys")]
    Generation {
        /// The generation modulo 4.
        got: u8,
    },
    /// A record holds something that is not a sequence of frames.
    #[error("record holds a malformed frame")]
    Frame(#[from] FrameError),
    /// The rekey message does not fit the state of the channel.
    #[error("rekey to generation {got} (modulo 256) does not fit generation {current}")]
    Rekey {
        /// Generation it names.
        got: u8,
        /// Generation the channel is in.
        current: u64,
    },
    /// A table is full.
    #[error("{table} has reached its limit of {max}")]
    Full {
        /// Which table.
        table: &'static str,
        /// Its limit.
        max: usize,
    },
}

impl ChannelError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Wire(_) | Self::Kind { .. } | Self::Version { .. } | Self::Frame(_) => {
                "upgrade the older of the two nodes"
            }
            Self::TooLong { .. } => "the sender does not keep to the protocol: check what runs there",
            Self::Mac1 => "the peer wants another identity: compare the identifier it is configured with",
            Self::Suite => "make `pq` of the two nodes agree",
            Self::Channel(_) | Self::Generation { .. } => {
                "harmless after a restart or a reconnection; if it lasts, a relay delivers to the wrong node"
            }
            Self::Crypto(error) => error.hint(),
            Self::Identity(error) => error.hint(),
            Self::Replayed { .. } | Self::TooOld { .. } => {
                "a network that duplicates or delays does this; if it is frequent, someone replays records"
            }
            Self::TooFar { .. } => "more than 16 million records in a row were lost: reconnect",
            Self::Rekey { .. } => "if it is repeated, reconnect; the peer does not keep to the protocol",
            Self::Full { .. } => "find out which peers open so many channels, or raise the limit",
        }
    }
}
