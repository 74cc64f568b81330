//! Signing with Ed25519 (RFC 8032) from given private bytes.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

use super::{Secret, Signature, sha256};
use crate::entropy::Entropy;

/// An Ed25519 key pair of this process, such as the one an authority signs statements with. Identity keys are
/// never one of these: they live in a token. Wiped by aws-lc when dropped.
pub struct Ed25519Secret {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

impl Ed25519Secret {
    /// Takes a private key, the seed of RFC 8032 §5.1.5.
    ///
    /// # Panics
    /// Never: every 32 bytes are a seed.
    #[must_use]
    pub fn new(seed: &Secret) -> Self {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed.as_bytes()).expect("any 32 bytes are an Ed25519 seed");
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Self { pair, public }
    }

    /// Draws a new private key.
    #[must_use]
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        Self::new(&Secret::random(entropy))
    }

    /// Returns the public key.
    #[must_use]
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Signs the concatenation of `parts` as PROTOCOL.md §2.1 defines `sign`: pure Ed25519 over its SHA-256.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(&sha256(parts)).as_ref());
        signature
    }

    /// Signs `message` itself, as RFC 8032 §5.1.6 has it: for formats of others, such as COSE (RFC 9053 §2.2).
    #[must_use]
    pub fn sign_plain(&self, message: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }
}

impl fmt::Debug for Ed25519Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ed25519Secret(..)")
    }
}
