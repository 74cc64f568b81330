//! One link of an identity: the announcement of a signing key.

use super::{Identifier, IdentityError, KeyAlgorithm, PublicKey};
use crate::{
    crypto::{label16, sha256},
    wire::{self, Reader, WireError},
};

/// Version of the encoding.
const VERSION: u8 = 1;
/// Stands in front of everything signed or hashed about changes.
const LABEL: [u8; 16] = label16("FG1 change v1");

/// One link of an identity (PROTOCOL.md §2.1).
///
/// ```text
/// u8 version (1) | u8 algorithm | u32 sequence | u64 created_at | 32 previous | bytes8 public key
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Position in the history, from 0.
    pub sequence: u32,
    /// Seconds since 1970 when it was made; 0 where the clock was unknown.
    pub created_at: u64,
    /// [`Change::hash`] of the change before, zero in the first.
    pub previous: [u8; 32],
    /// The key it announces.
    pub key: PublicKey,
}

impl Change {
    /// Returns the encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(47 + self.key.as_bytes().len());
        out.push(VERSION);
        out.push(self.key.algorithm().code());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.created_at.to_be_bytes());
        out.extend_from_slice(&self.previous);
        wire::put_bytes8(&mut out, self.key.as_bytes());
        out
    }

    /// Reads an encoding.
    ///
    /// # Errors
    /// [`IdentityError::Wire`], [`IdentityError::Version`] or [`IdentityError::Key`].
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("change version")?;
        if version != VERSION {
            return Err(IdentityError::Version {
                what: "change",
                got: version,
                want: VERSION,
            });
        }
        let code = reader.u8("key algorithm")?;
        let algorithm = KeyAlgorithm::from_code(code).ok_or_else(|| WireError::Value {
            field: "key algorithm",
            value: u64::from(code),
        })?;
        let sequence = reader.u32("change sequence")?;
        let created_at = reader.u64("created_at")?;
        let previous = reader.array("previous change")?;
        let key = PublicKey::new(algorithm, reader.bytes8("public key")?, sequence)?;
        reader.finish()?;
        Ok(Self {
            sequence,
            created_at,
            previous,
            key,
        })
    }

    /// Returns what its signatures are over.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut message = LABEL.to_vec();
        message.extend_from_slice(&self.encode());
        message
    }

    /// Returns the hash that the next change names, and that names the identity if this is the first.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[&LABEL, &self.encode()])
    }

    pub(super) fn identifier(&self) -> Identifier {
        Identifier::from_bytes(self.hash())
    }
}
