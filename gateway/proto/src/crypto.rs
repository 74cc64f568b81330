//! The primitives of FG1 (PROTOCOL.md §1), as thin wrappers over aws-lc-rs.
//!
//! Randomness is an argument everywhere in this crate, with one exception: aws-lc-rs has no interface to
//! ML-KEM with given randomness, so [`KemSecret::generate`] and [`kem_encapsulate`] draw from the generator
//! inside aws-lc. A simulation stays deterministic nevertheless, because no decision and no length depends
//! on those bytes.
//!
//! Secrets are wiped when dropped, compare in constant time and print as `Secret(..)`.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod aead;
mod ed25519;
mod hash;
mod kem;
mod secret;
mod signature;
mod x25519;

pub use aead::{Aead, AeadKey, TAG_LEN};
pub use ed25519::Ed25519Secret;
pub use hash::{MacKey, hkdf_expand, hmac_sha256, label16, noise_hkdf, sha256};
pub use kem::{CIPHERTEXT_LEN, ENCAPSULATION_KEY_LEN, KemSecret, kem_encapsulate};
pub use secret::Secret;
pub use signature::{
    Signature, verify_ecdsa_p256, verify_ed25519, verify_ed25519_parts, verify_ed25519_plain,
};
pub use x25519::{X25519_LEN, X25519Secret};

/// Why a primitive refused its input. Says no more, so that it cannot be used as an oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// A tag does not fit the ciphertext, its key, number or associated data.
    #[error("the tag does not verify")]
    Tag,
    /// An X25519 public key is of low order: the shared secret would be known to everyone.
    #[error("the X25519 public key is of low order")]
    LowOrder,
    /// An ML-KEM encapsulation key or ciphertext fails the checks of FIPS 203 §7.
    #[error("the ML-KEM input is invalid")]
    Kem,
    /// A signature does not fit its message and key, or the key is none.
    #[error("the signature does not verify")]
    Signature,
}

impl CryptoError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Tag => "someone changed the bytes in transit, or the peers do not share the key: reconnect",
            Self::LowOrder | Self::Kem => "the peer is broken or hostile: check what runs there",
            Self::Signature => "check that the peer's identity was created and rotated by fieldgate",
        }
    }
}

/// Returns whether AES-GCM is the faster AEAD here: the processor has AES and carry-less multiplication.
#[must_use]
pub fn cpu_prefers_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let prefers = std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let prefers =
        std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let prefers = false;
    prefers
}

#[cfg(test)]
pub(crate) mod tests;
