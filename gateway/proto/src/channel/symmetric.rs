//! Noise's `SymmetricState` (Noise rev 34 §5.2).

use std::fmt;

use crate::crypto::{Aead, AeadKey, CryptoError, Secret, TAG_LEN, hkdf_expand, label16, noise_hkdf, sha256};

const LABEL_ROOT: [u8; 16] = label16("FG1 root v1");

/// Chaining key, transcript hash and cipher of a handshake.
///
/// FG1 begins with its own label and then does exactly what Noise does, so the published Noise vectors run
/// through this code (see the tests).
pub(super) struct SymmetricState {
    aead: Aead,
    ck: Secret,
    h: [u8; 32],
    /// Noise's `k`; `None` before the first `MixKey`.
    k: Option<Secret>,
    /// Noise's `n`.
    n: u64,
}

/// What a handshake leaves behind (PROTOCOL.md §4.5).
#[derive(Debug)]
pub(super) struct Keys {
    /// Traffic secret from the initiator to the responder.
    pub(super) initiator: Secret,
    /// Traffic secret from the responder to the initiator.
    pub(super) responder: Secret,
    /// Chaining key of the next rekey.
    pub(super) root: Secret,
    /// The final transcript hash.
    pub(super) binding: [u8; 32],
}

impl SymmetricState {
    /// Begins with the given chaining key and transcript hash.
    pub(super) const fn new(aead: Aead, ck: Secret, h: [u8; 32]) -> Self {
        Self {
            aead,
            ck,
            h,
            k: None,
            n: 0,
        }
    }

    /// Copies the state, to read a message that may turn out to be forged.
    pub(super) fn duplicate(&self) -> Self {
        Self {
            aead: self.aead,
            ck: self.ck.duplicate(),
            h: self.h,
            k: self.k.as_ref().map(Secret::duplicate),
            n: self.n,
        }
    }

    /// Returns the transcript hash.
    #[cfg(test)]
    pub(super) const fn h(&self) -> &[u8; 32] {
        &self.h
    }

    /// `MixHash`.
    pub(super) fn mix_hash(&mut self, data: &[u8]) {
        self.h = sha256(&[&self.h, data]);
    }

    /// `MixKey`.
    pub(super) fn mix_key(&mut self, ikm: &Secret) {
        let (ck, k) = noise_hkdf(&self.ck, ikm.as_bytes());
        self.ck = ck;
        self.k = Some(k);
        self.n = 0;
    }

    /// `EncryptAndHash`: appends the ciphertext of `plaintext`, with a tag once there is a key.
    pub(super) fn encrypt_and_hash(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(plaintext);
        let (_, in_out) = out.split_at_mut(at);
        if let Some(k) = &self.k {
            let tag = AeadKey::new(self.aead, k).seal(self.n, &self.h, in_out);
            self.n += 1;
            out.extend_from_slice(&tag);
        }
        let (_, ciphertext) = out.split_at(at);
        self.mix_hash(ciphertext);
    }

    /// `DecryptAndHash`.
    pub(super) fn decrypt_and_hash(&mut self, ciphertext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut plaintext = ciphertext.to_vec();
        if let Some(k) = &self.k {
            AeadKey::new(self.aead, k).open(self.n, &self.h, &mut plaintext)?;
            plaintext.truncate(ciphertext.len().saturating_sub(TAG_LEN));
            self.n += 1;
        }
        self.mix_hash(ciphertext);
        Ok(plaintext)
    }

    /// `Split`, and the root of PROTOCOL.md §4.5.
    pub(super) fn split(&self) -> Keys {
        let (initiator, responder) = noise_hkdf(&self.ck, &[]);
        Keys {
            initiator,
            responder,
            root: hkdf_expand(&self.ck, &LABEL_ROOT, &self.h),
            binding: self.h,
        }
    }
}

impl fmt::Debug for SymmetricState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricState(..)")
    }
}

#[cfg(test)]
mod tests;
