//! What every signer can do, and the keys and signatures it deals in.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};

use crate::error::Error;
use crate::pkcs11::Recoveries;
use crate::process::ProcessState;

/// A signature: `r | s` of 32 bytes each for ECDSA P-256, `R | S` for Ed25519.
///
/// ECDSA signatures are malleable: never use one as an identifier.
pub type Signature = [u8; 64];

/// A signature algorithm of an identity key; the numbers are those of `PROTOCOL.md` §2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// ECDSA over P-256 (FIPS 186-5): what every token has.
    P256 = 1,
    /// Pure Ed25519 (RFC 8032), where the token has it.
    Ed25519 = 2,
}

impl Algorithm {
    /// Returns the number that stands in a change of an identity.
    pub const fn code(self) -> u8 {
        match self {
            Self::P256 => 1,
            Self::Ed25519 => 2,
        }
    }

    /// Returns the algorithm with that number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::P256),
            2 => Some(Self::Ed25519),
            _ => None,
        }
    }

    /// Returns the name people know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "ECDSA P-256",
            Self::Ed25519 => "Ed25519",
        }
    }
}

/// The public half of an identity key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// A point in SEC 1 uncompressed form: 4, then x and y of 32 bytes each.
    P256([u8; 65]),
    /// An Ed25519 public key (RFC 8032 §5.1.5).
    Ed25519([u8; 32]),
}

impl PublicKey {
    /// Makes a public key of its bytes, if they have the form the algorithm wants.
    ///
    /// Whether the bytes are a point of the curve shows when a signature is verified.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::P256 => {
                let point: [u8; 65] = bytes.try_into().ok()?;
                (point.first() == Some(&4)).then_some(Self::P256(point))
            }
            Algorithm::Ed25519 => bytes.try_into().ok().map(Self::Ed25519),
        }
    }

    /// Returns the algorithm the key is for.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::P256(_) => Algorithm::P256,
            Self::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// Returns the key as `PROTOCOL.md` §2.1 wants it: 65 bytes for P-256, 32 for Ed25519.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::P256(point) => point,
            Self::Ed25519(key) => key,
        }
    }

    /// Returns the identifier the key has on a token: the first 16 bytes of its SHA-256 (`CKA_ID`).
    pub fn key_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(digest(&SHA256, self.as_bytes()).as_ref()) {
            *to = *from;
        }
        id
    }

    /// Returns the identifier in hexadecimal digits, for people.
    pub fn key_id_text(&self) -> String {
        self.key_id().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Says whether `signature` is this key's signature of `message` (`PROTOCOL.md` §2.1).
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        match self {
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(digest(&SHA256, message).as_ref(), signature)
            }
        }
        .is_ok()
    }
}

/// Something that signs with one identity key.
///
/// A signer may block for as long as its token does: give it to a [`Worker`](crate::Worker).
pub trait Signer: Send {
    /// Returns the public key; it never changes while the signer lives.
    fn public_key(&self) -> &PublicKey;

    /// Returns the algorithm.
    fn algorithm(&self) -> Algorithm {
        self.public_key().algorithm()
    }

    /// Signs `message` as `PROTOCOL.md` §2.1 says; the hash is made here, not by the token.
    ///
    /// # Errors
    /// [`Error::Unavailable`] names the time to wait before the next call can be of use;
    /// [`Error::retry_after`] is `None` for what waiting does not cure.
    fn sign(&mut self, message: &[u8]) -> Result<Signature, Error>;

    /// Returns where the key is: a PKCS#11 URI, a path, or "memory". Never a secret.
    fn location(&self) -> String;

    /// Returns how often each rung of the recovery ladder brought the token back.
    fn recoveries(&self) -> Recoveries {
        Recoveries::default()
    }

    /// Returns the state of the worker process, if the key is in one.
    fn process(&self) -> Option<ProcessState> {
        None
    }

    /// Does what is due while there is nothing to sign; returns the time until it wants to be called again.
    fn attend(&mut self) -> Option<Duration> {
        None
    }
}

/// Returns the SHA-256 of a message, which is what gets signed.
pub(crate) fn message_digest(message: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(digest(&SHA256, message).as_ref()) {
        *to = *from;
    }
    bytes
}
