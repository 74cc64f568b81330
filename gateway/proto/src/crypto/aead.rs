//! AES-256-GCM and ChaCha20-Poly1305 with Noise's nonce.

use std::fmt;

use aws_lc_rs::aead::{self, LessSafeKey, Nonce, UnboundKey};

use super::{CryptoError, Secret};

/// Bytes a tag takes.
pub const TAG_LEN: usize = 16;

/// Which AEAD a suite uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aead {
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305,
}

impl Aead {
    /// The nonce of Noise rev 34 §12: four zero bytes, then the number in the cipher's own byte order.
    fn nonce(self, number: u64) -> Nonce {
        let [a, b, c, d, e, f, g, h] = match self {
            Self::Aes256Gcm => number.to_be_bytes(),
            Self::ChaCha20Poly1305 => number.to_le_bytes(),
        };
        Nonce::assume_unique_for_key([0, 0, 0, 0, a, b, c, d, e, f, g, h])
    }
}

/// One AEAD key, set up once (0.14 µs) and used for a whole epoch. Wiped by aws-lc when dropped.
pub struct AeadKey {
    aead: Aead,
    key: LessSafeKey,
}

impl AeadKey {
    /// Sets the key up.
    ///
    /// # Panics
    /// Never: both algorithms take 32 bytes.
    #[must_use]
    pub fn new(aead: Aead, secret: &Secret) -> Self {
        let algorithm = match aead {
            Aead::Aes256Gcm => &aead::AES_256_GCM,
            Aead::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, secret.as_bytes()).expect("both AEADs take 32 bytes");
        Self {
            aead,
            key: LessSafeKey::new(key),
        }
    }

    /// Encrypts `in_out` in place and returns the tag. `number` must never repeat under one key.
    ///
    /// # Panics
    /// If `in_out` exceeds the AEAD's limit of gigabytes; records end at 64 KiB.
    #[must_use]
    pub fn seal(&self, number: u64, aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        self.seal_with(self.aead.nonce(number), aad, in_out)
    }

    /// Verifies and decrypts ciphertext and tag in place, and returns the plaintext.
    ///
    /// # Errors
    /// [`CryptoError::Tag`]; what `in_out` holds then is unspecified.
    pub fn open<'m>(
        &self,
        number: u64,
        aad: &[u8],
        in_out: &'m mut [u8],
    ) -> Result<&'m mut [u8], CryptoError> {
        self.open_with(self.aead.nonce(number), aad, in_out)
    }

    pub(super) fn seal_with(&self, nonce: Nonce, aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, aead::Aad::from(aad), in_out)
            .expect("messages and records are far below the AEAD's limit");
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    pub(super) fn open_with<'m>(
        &self,
        nonce: Nonce,
        aad: &[u8],
        in_out: &'m mut [u8],
    ) -> Result<&'m mut [u8], CryptoError> {
        self.key
            .open_in_place(nonce, aead::Aad::from(aad), in_out)
            .map_err(|_| CryptoError::Tag)
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AeadKey({:?}, ..)", self.aead)
    }
}
