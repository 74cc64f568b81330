//! SHA-256, HMAC and the two key derivations.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use subtle::ConstantTimeEq;

use super::Secret;

/// Returns `text` padded with zero bytes to 16 bytes (PROTOCOL.md §1, domain separation).
///
/// # Panics
/// If `text` is longer than 16 bytes: labels are constants of this crate.
#[must_use]
pub const fn label16(text: &str) -> [u8; 16] {
    let text = text.as_bytes();
    assert!(text.len() <= 16, "a label has at most 16 bytes");
    let mut label = [0; 16];
    let (head, _) = label.split_at_mut(text.len());
    head.copy_from_slice(text);
    label
}

/// Returns SHA-256 over the concatenation of `parts`.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Returns HMAC-SHA-256 over the concatenation of `parts` (RFC 2104).
#[must_use]
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Secret {
    MacKey::new(key).mac(parts)
}

/// HKDF-Expand of RFC 5869 with SHA-256 to 32 bytes: one block.
#[must_use]
pub fn hkdf_expand(prk: &Secret, label: &[u8; 16], context: &[u8]) -> Secret {
    hmac_sha256(prk.as_bytes(), &[label, context, &[1]])
}

/// `HKDF(ck, ikm, 2)` of Noise rev 34 §4.3.
#[must_use]
pub fn noise_hkdf(ck: &Secret, ikm: &[u8]) -> (Secret, Secret) {
    let temp_key = MacKey::new(hmac_sha256(ck.as_bytes(), &[ikm]).as_bytes());
    let first = temp_key.mac(&[&[1]]);
    let second = temp_key.mac(&[first.as_bytes(), &[2]]);
    (first, second)
}

/// An HMAC-SHA-256 key, prepared once for many messages.
pub struct MacKey(hmac::Key);

impl MacKey {
    /// Prepares `key`.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Returns HMAC-SHA-256 over the concatenation of `parts`.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> Secret {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut out = Secret::new([0; 32]);
        out.as_mut().copy_from_slice(context.sign().as_ref());
        out
    }

    /// Returns the first 16 bytes of [`MacKey::mac`].
    #[must_use]
    pub fn mac16(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mac = self.mac(parts);
        let mut half = [0; 16];
        half.iter_mut()
            .zip(mac.as_bytes())
            .for_each(|(to, from)| *to = *from);
        half
    }

    /// Returns whether `mac16` belongs to `parts`, in constant time.
    #[must_use]
    pub fn verify16(&self, parts: &[&[u8]], mac16: &[u8; 16]) -> bool {
        self.mac16(parts).ct_eq(mac16).into()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(..)")
    }
}
