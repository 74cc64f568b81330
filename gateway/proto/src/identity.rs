//! Who a node is (PROTOCOL.md §2): a chain of signing keys, named by the hash of its first link, and the
//! short-lived keys it vouches for.
//!
//! Nothing here signs. A draft gives the message to sign ([`ChangeDraft::message`],
//! [`AttestationDraft::message`]), whoever holds the key signs it as PROTOCOL.md §2.1 says under
//! *Signatures* (P-256: the SHA-256 of the message is the digest; Ed25519: it is the message), and `finish`
//! takes the signature back and verifies it.
//!
//! A [`ChangeHistory`] cannot exist unverified, and [`AttestationCache`] hands out verified attestations only.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod attestation;
mod cache;
mod change;
mod error;
mod history;
mod identifier;
mod key;

pub use attestation::{
    Attestation, AttestationDraft, LIFETIME_SECS_MAX, Purpose, SIGNED_ATTESTATION_LEN, SKEW_SECS,
    SignedAttestation,
};
pub use cache::{AttestationCache, CacheStats};
pub use change::Change;
pub use error::IdentityError;
pub use history::{CHANGES_MAX, ChangeDraft, ChangeHistory};
pub use identifier::{Identifier, IdentifierError};
pub use key::{KeyAlgorithm, PublicKey};

#[cfg(test)]
pub(crate) mod tests;
