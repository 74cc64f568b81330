//! Why a proof does not hold.

use fieldgate_proto::{crypto::CryptoError, identity::IdentityError};

/// Why a file is no proof, or a proof does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The file is larger than any proof.
    #[error("{len} bytes are more than a proof has, which is {max} at the most")]
    Length {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The file is not in the form of a proof.
    #[error("not in the form of a proof: {what}")]
    Form {
        /// What is wrong or missing.
        what: &'static str,
    },
    /// The gateway's identity does not vouch for the sealing key.
    #[error("the gateway's identity does not vouch for the key of the seal")]
    Identity(#[from] IdentityError),
    /// The batch has no such place, or the path does not fit it.
    #[error("reading {index} of {count} and the path to the root do not fit together")]
    Place {
        /// The place, from 0.
        index: u64,
        /// Readings in the batch.
        count: u64,
    },
    /// The batch was sealed outside the key's validity.
    #[error("sealed at {sealed_at}, outside the validity of the key, {not_before} to {not_after}")]
    Time {
        /// When it was sealed, seconds since 1970.
        sealed_at: u64,
        /// Start of the validity.
        not_before: u64,
        /// End of the validity.
        not_after: u64,
    },
    /// The signature does not fit reading, place and path.
    #[error("the seal is not a signature over this reading at this place")]
    Signature(#[source] CryptoError),
}

impl ProofError {
    /// Returns what somebody who holds the file can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Length { .. } | Self::Form { .. } => {
                "take a file that `fieldgate proof` has written, and transfer it as it is"
            }
            Self::Identity(_) | Self::Place { .. } | Self::Time { .. } | Self::Signature(_) => {
                "do not rely on this reading: it, or the proof, was changed after the gateway had sealed it"
            }
        }
    }
}
