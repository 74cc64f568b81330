//! Why an identity is refused.

use super::Identifier;
use crate::{crypto::CryptoError, wire::WireError};

/// Why a change history or an attestation was refused. Always the fault of who presents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are not what PROTOCOL.md §2 describes.
    #[error("malformed identity")]
    Wire(#[from] WireError),
    /// The version is not one we speak.
    #[error("{what} has version {got}, not {want}")]
    Version {
        /// Which structure.
        what: &'static str,
        /// The version found.
        got: u8,
        /// The version we speak.
        want: u8,
    },
    /// The public key does not have the form of its algorithm.
    #[error("public key of change {sequence} does not have the form of its algorithm")]
    Key {
        /// The change that holds the key.
        sequence: u32,
    },
    /// There are no changes, or too many.
    #[error("history has {got} changes, outside 1..={max}")]
    ChangeCount {
        /// How many there are.
        got: usize,
        /// How many there may be.
        max: usize,
    },
    /// The numbers of the changes have a gap.
    #[error("change has sequence {got}, not {want}")]
    Sequence {
        /// The number found.
        got: u32,
        /// The number expected.
        want: u32,
    },
    /// A change does not name the one before it.
    #[error("change {sequence} does not follow the change before it")]
    Previous {
        /// The change.
        sequence: u32,
    },
    /// A signature does not verify.
    #[error("{what} is not signed by the key it needs (change {sequence})")]
    Signature {
        /// What is signed.
        what: &'static str,
        /// The change whose key should have signed.
        sequence: u32,
        /// Why.
        source: CryptoError,
    },
    /// The history contradicts one that was verified before.
    #[error("history departs from the known one at change {sequence}")]
    Fork {
        /// The first change that differs.
        sequence: u32,
    },
    /// The history is an old one.
    #[error("history ends at change {got}, but change {known} is known")]
    OldHistory {
        /// The last change presented.
        got: u32,
        /// The last change known.
        known: u32,
    },
    /// The identity is somebody else's.
    #[error("identity is {got}, not {want}")]
    Foreign {
        /// Whose it is.
        got: Identifier,
        /// Whose was expected.
        want: Identifier,
    },
    /// The attestation was signed by a key that is not the current one.
    #[error("attestation is signed by key {got}, but key {current} is current")]
    NotCurrentKey {
        /// The change whose key signed.
        got: u32,
        /// The last change.
        current: u32,
    },
    /// The attestation is about a key for something else.
    #[error("attestation has purpose {got}, not {want}")]
    Purpose {
        /// The purpose found.
        got: u8,
        /// The purpose needed.
        want: u8,
    },
    /// The attestation is about another key than the one in use.
    #[error("attestation is about another key than the one in use")]
    OtherKey,
    /// The window of validity is empty or too long.
    #[error("attestation is valid for {secs} s, outside 1..={max}")]
    Lifetime {
        /// Length of the window in seconds; 0 if it ends before it starts.
        secs: u64,
        /// The longest window allowed.
        max: u64,
    },
    /// The attestation is not valid yet.
    #[error("attestation is valid from {not_before}, and it is {now} (seconds since 1970)")]
    NotYetValid {
        /// Start of the window.
        not_before: u64,
        /// The verifier's time.
        now: u64,
    },
    /// The attestation is not valid any more.
    #[error("attestation was valid until {not_after}, and it is {now} (seconds since 1970)")]
    Expired {
        /// End of the window.
        not_after: u64,
        /// The verifier's time.
        now: u64,
    },
    /// A newer attestation of the same identity was seen.
    #[error("attestation has sequence {got}, but {highest} was seen")]
    OldAttestation {
        /// The number found.
        got: u64,
        /// The highest number accepted.
        highest: u64,
    },
}

impl IdentityError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Wire(_) | Self::Version { .. } => "upgrade the older of the two nodes",
            Self::Key { .. } | Self::Sequence { .. } | Self::Previous { .. } | Self::Signature { .. } => {
                "the identity file is damaged or forged: restore it on the peer"
            }
            Self::ChangeCount { .. } => "the identity was rotated too often: enrol the peer anew",
            Self::Fork { .. } => {
                "two nodes rotated copies of one identity: enrol the peer anew and look for the copy"
            }
            Self::OldHistory { .. } => {
                "the peer was restored from an old backup: copy its latest identity file to it"
            }
            Self::Foreign { .. } => {
                "compare the identifier in the configuration with `fieldgate identity show` on the peer"
            }
            Self::NotCurrentKey { .. } => "the peer rotated its key and must attest anew: restart it",
            Self::Purpose { .. } | Self::OtherKey => {
                "the peer presents an attestation that is not its own: check what runs there"
            }
            Self::Lifetime { .. } => "the peer must attest for at most 24 hours",
            Self::NotYetValid { .. } | Self::Expired { .. } => {
                "compare the clocks of the two nodes, and check that the peer's token still signs"
            }
            Self::OldAttestation { .. } => "the peer was restored from an old state: let it attest anew",
        }
    }
}
