//! Identity keys.

use super::IdentityError;
use crate::crypto::{CryptoError, Signature, verify_ecdsa_p256, verify_ed25519};

/// What an identity key signs with (PROTOCOL.md §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256 with SHA-256; the baseline, because every token has it.
    EcdsaP256,
    /// Ed25519 (RFC 8032), where the token has it.
    Ed25519,
}

impl KeyAlgorithm {
    /// Returns the number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::EcdsaP256 => 1,
            Self::Ed25519 => 2,
        }
    }

    /// Returns the algorithm with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::EcdsaP256),
            2 => Some(Self::Ed25519),
            _ => None,
        }
    }
}

/// The public half of an identity key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicKey {
    /// SEC 1 uncompressed point: 4, then x and y.
    EcdsaP256([u8; 65]),
    /// The 32 bytes of RFC 8032.
    Ed25519([u8; 32]),
}

impl PublicKey {
    /// Takes the encoded key. `sequence` is the change it stands in, for the error.
    ///
    /// # Errors
    /// [`IdentityError::Key`] for a wrong length or a point that is not uncompressed. Whether the point lies
    /// on the curve shows when a signature is verified.
    pub fn new(algorithm: KeyAlgorithm, bytes: &[u8], sequence: u32) -> Result<Self, IdentityError> {
        let error = IdentityError::Key { sequence };
        match algorithm {
            KeyAlgorithm::EcdsaP256 if bytes.first() == Some(&4) => {
                bytes.try_into().map(Self::EcdsaP256).map_err(|_| error)
            }
            KeyAlgorithm::EcdsaP256 => Err(error),
            KeyAlgorithm::Ed25519 => bytes.try_into().map(Self::Ed25519).map_err(|_| error),
        }
    }

    /// Returns the algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> KeyAlgorithm {
        match self {
            Self::EcdsaP256(_) => KeyAlgorithm::EcdsaP256,
            Self::Ed25519(_) => KeyAlgorithm::Ed25519,
        }
    }

    /// Returns the encoded key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::EcdsaP256(bytes) => bytes,
            Self::Ed25519(bytes) => bytes,
        }
    }

    /// Verifies a signature as PROTOCOL.md §2.1 defines `sign`.
    ///
    /// # Errors
    /// [`CryptoError::Signature`].
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), CryptoError> {
        match self {
            Self::EcdsaP256(key) => verify_ecdsa_p256(key, message, signature),
            Self::Ed25519(key) => verify_ed25519(key, message, signature),
        }
    }
}
