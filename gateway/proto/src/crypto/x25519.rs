//! X25519 (RFC 7748) from given private bytes.

use std::fmt;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};

use super::{CryptoError, Secret};
use crate::entropy::Entropy;

/// Bytes of a private key, a public key and a shared secret.
pub const X25519_LEN: usize = 32;

/// An X25519 private key with its public key. Wiped by aws-lc when dropped.
pub struct X25519Secret {
    key: PrivateKey,
    public: [u8; X25519_LEN],
}

impl X25519Secret {
    /// Takes a private key.
    ///
    /// # Panics
    /// Never: every 32 bytes are a private key (RFC 7748 §5 clamps them).
    #[must_use]
    pub fn new(private: &Secret) -> Self {
        let key = PrivateKey::from_private_key(&agreement::X25519, private.as_bytes())
            .expect("any 32 bytes are an X25519 private key");
        let computed = key
            .compute_public_key()
            .expect("the public key is part of the private key object");
        let mut public = [0; X25519_LEN];
        public.copy_from_slice(computed.as_ref());
        Self { key, public }
    }

    /// Draws a new private key.
    #[must_use]
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        Self::new(&Secret::random(entropy))
    }

    /// Returns the public key.
    #[must_use]
    pub const fn public(&self) -> &[u8; X25519_LEN] {
        &self.public
    }

    /// Returns the shared secret with the owner of `peer`.
    ///
    /// # Errors
    /// [`CryptoError::LowOrder`] if the secret would be all zero (RFC 7748 §6.1).
    pub fn agree(&self, peer: &[u8; X25519_LEN]) -> Result<Secret, CryptoError> {
        let peer = UnparsedPublicKey::new(&agreement::X25519, peer);
        agreement::agree(&self.key, peer, CryptoError::LowOrder, |shared| {
            shared
                .try_into()
                .map(Secret::new)
                .map_err(|_| CryptoError::LowOrder)
        })
    }
}

impl fmt::Debug for X25519Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("X25519Secret(..)")
    }
}
