//! Verification of signatures. Signing with an identity key is the business of `fieldgate-hsm`.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};

use super::{CryptoError, sha256};

/// A signature of an identity key: `r | s` of ECDSA P-256, or Ed25519 (PROTOCOL.md §2.1).
pub type Signature = [u8; 64];

/// Verifies ECDSA P-256 over SHA-256 of `message`; `key` is the SEC 1 uncompressed point.
///
/// # Errors
/// [`CryptoError::Signature`], also if `key` is not a point of the curve in that form.
pub fn verify_ecdsa_p256(key: &[u8; 65], message: &[u8], signature: &Signature) -> Result<(), CryptoError> {
    // aws-lc-rs takes further encodings of a point; the identifier would then not be unique per key.
    if key.first() != Some(&4) {
        return Err(CryptoError::Signature);
    }
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .map_err(|_| CryptoError::Signature)?
        .verify_sig(message, signature)
        .map_err(|_| CryptoError::Signature)
}

/// Verifies pure Ed25519 (RFC 8032) over the 32 bytes SHA-256 of `message`.
///
/// # Errors
/// [`CryptoError::Signature`].
pub fn verify_ed25519(key: &[u8; 32], message: &[u8], signature: &Signature) -> Result<(), CryptoError> {
    verify_ed25519_parts(key, &[message], signature)
}

/// Verifies as [`verify_ed25519`]; the message is the concatenation of `parts`.
///
/// # Errors
/// [`CryptoError::Signature`].
pub fn verify_ed25519_parts(
    key: &[u8; 32],
    parts: &[&[u8]],
    signature: &Signature,
) -> Result<(), CryptoError> {
    ParsedPublicKey::new(&ED25519, key)
        .map_err(|_| CryptoError::Signature)?
        .verify_sig(&sha256(parts), signature)
        .map_err(|_| CryptoError::Signature)
}

/// Verifies pure Ed25519 over `message` itself (RFC 8032 §5.1.7), the counterpart of
/// [`Ed25519Secret::sign_plain`](super::Ed25519Secret::sign_plain).
///
/// # Errors
/// [`CryptoError::Signature`].
pub fn verify_ed25519_plain(
    key: &[u8; 32],
    message: &[u8],
    signature: &Signature,
) -> Result<(), CryptoError> {
    ParsedPublicKey::new(&ED25519, key)
        .map_err(|_| CryptoError::Signature)?
        .verify_sig(message, signature)
        .map_err(|_| CryptoError::Signature)
}
