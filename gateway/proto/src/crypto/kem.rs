//! ML-KEM-768 (FIPS 203).

use std::fmt;

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768, SharedSecret};

use super::{CryptoError, Secret};

/// Bytes of an encapsulation key.
pub const ENCAPSULATION_KEY_LEN: usize = 1184;
/// Bytes of a ciphertext.
pub const CIPHERTEXT_LEN: usize = 1088;

/// An ML-KEM-768 decapsulation key with its encapsulation key. Wiped by aws-lc when dropped.
pub struct KemSecret {
    key: DecapsulationKey,
    public: Box<[u8; ENCAPSULATION_KEY_LEN]>,
}

impl KemSecret {
    /// Makes a key pair from aws-lc's own generator (see the module's page).
    ///
    /// # Panics
    /// If aws-lc cannot allocate.
    #[must_use]
    pub fn generate() -> Self {
        let key = DecapsulationKey::generate(&ML_KEM_768).expect("aws-lc's generator needs only memory");
        let encoded = key
            .encapsulation_key()
            .and_then(|public| public.key_bytes())
            .expect("a generated key has its public half");
        let mut public = Box::new([0; ENCAPSULATION_KEY_LEN]);
        public.copy_from_slice(encoded.as_ref());
        Self { key, public }
    }

    /// Returns the encapsulation key.
    #[must_use]
    pub const fn public(&self) -> &[u8; ENCAPSULATION_KEY_LEN] {
        &self.public
    }

    /// Returns the shared secret in `ciphertext`.
    ///
    /// A ciphertext made for another key gives a secret nobody knows (FIPS 203 §6.3, implicit rejection), so
    /// success says nothing; what is derived from the secret must be confirmed by an AEAD.
    ///
    /// # Errors
    /// [`CryptoError::Kem`] if aws-lc fails.
    pub fn decapsulate(&self, ciphertext: &[u8; CIPHERTEXT_LEN]) -> Result<Secret, CryptoError> {
        let shared = self
            .key
            .decapsulate(Ciphertext::from(ciphertext.as_slice()))
            .map_err(|_| CryptoError::Kem)?;
        to_secret(&shared)
    }

    /// Restores a pair from the expanded decapsulation key of FIPS 203 §6.1, for published vectors:
    /// 1,152 bytes of the private part, the encapsulation key, its hash, and 32 bytes for rejection.
    #[cfg(test)]
    pub(crate) fn from_expanded(bytes: &[u8]) -> Result<Self, CryptoError> {
        let key = DecapsulationKey::new(&ML_KEM_768, bytes).map_err(|_| CryptoError::Kem)?;
        let public = bytes
            .get(1152..1152 + ENCAPSULATION_KEY_LEN)
            .ok_or(CryptoError::Kem)?;
        Ok(Self {
            key,
            public: Box::new(public.try_into().map_err(|_| CryptoError::Kem)?),
        })
    }
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemSecret(..)")
    }
}

/// Makes a shared secret for the owner of `public`, with randomness from aws-lc's own generator.
///
/// # Errors
/// [`CryptoError::Kem`] if `public` holds a coefficient that is not reduced (FIPS 203 §7.2).
pub fn kem_encapsulate(
    public: &[u8; ENCAPSULATION_KEY_LEN],
) -> Result<(Box<[u8; CIPHERTEXT_LEN]>, Secret), CryptoError> {
    let key = EncapsulationKey::new(&ML_KEM_768, public).map_err(|_| CryptoError::Kem)?;
    let (encoded, shared) = key.encapsulate().map_err(|_| CryptoError::Kem)?;
    let mut ciphertext = Box::new([0; CIPHERTEXT_LEN]);
    ciphertext.copy_from_slice(encoded.as_ref());
    Ok((ciphertext, to_secret(&shared)?))
}

fn to_secret(shared: &SharedSecret) -> Result<Secret, CryptoError> {
    shared
        .as_ref()
        .try_into()
        .map(Secret::new)
        .map_err(|_| CryptoError::Kem)
}
