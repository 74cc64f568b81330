//! The identity's word for a short-lived key.

use super::{ChangeHistory, Identifier, IdentityError};
use crate::{
    crypto::{Signature, label16, sha256},
    time::{ClockQuality, WallTime},
    wire::Reader,
};

/// Longest validity in seconds.
pub const LIFETIME_SECS_MAX: u64 = 86_400;
/// How far two clocks may differ, in seconds; widens the window at both ends.
pub const SKEW_SECS: u64 = 300;
/// Bytes of a signed attestation.
pub const SIGNED_ATTESTATION_LEN: usize = ATTESTATION_LEN + 64;

/// Bytes of an attestation: version, identifier, key sequence, purpose, key, two times, sequence.
const ATTESTATION_LEN: usize = 1 + 32 + 4 + 1 + 32 + 8 + 8 + 8;
/// Version of the encoding.
const VERSION: u8 = 1;
/// Purpose of an X25519 static key of channels, the only one so far.
const PURPOSE_CHANNEL: u8 = 1;
/// Stands in front of what is signed.
const LABEL: [u8; 16] = label16("FG1 attest v1");

/// A statement of an identity about its X25519 static key for channels (PROTOCOL.md §2.2).
///
/// ```text
/// u8 version (1) | 32 identifier | u32 key_sequence | u8 purpose (1) | 32 public key
/// | u64 not_before | u64 not_after | u64 sequence
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// Who says it.
    pub identifier: Identifier,
    /// The change whose key signs.
    pub key_sequence: u32,
    /// The X25519 public key it is about.
    pub public_key: [u8; 32],
    /// Start of the validity, seconds since 1970.
    pub not_before: u64,
    /// End of the validity, seconds since 1970.
    pub not_after: u64,
    /// Grows with each attestation of the identity.
    pub sequence: u64,
}

impl Attestation {
    /// Returns the encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIGNED_ATTESTATION_LEN);
        out.push(VERSION);
        out.extend_from_slice(self.identifier.as_bytes());
        out.extend_from_slice(&self.key_sequence.to_be_bytes());
        out.push(PURPOSE_CHANNEL);
        out.extend_from_slice(&self.public_key);
        out.extend_from_slice(&self.not_before.to_be_bytes());
        out.extend_from_slice(&self.not_after.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, IdentityError> {
        let version = reader.u8("attestation version")?;
        if version != VERSION {
            return Err(IdentityError::Version {
                what: "attestation",
                got: version,
                want: VERSION,
            });
        }
        let identifier = Identifier::from_bytes(reader.array("identifier")?);
        let key_sequence = reader.u32("key sequence")?;
        let purpose = reader.u8("purpose")?;
        if purpose != PURPOSE_CHANNEL {
            return Err(IdentityError::Purpose {
                got: purpose,
                want: PURPOSE_CHANNEL,
            });
        }
        Ok(Self {
            identifier,
            key_sequence,
            public_key: reader.array("attested key")?,
            not_before: reader.u64("not_before")?,
            not_after: reader.u64("not_after")?,
            sequence: reader.u64("attestation sequence")?,
        })
    }

    fn message(&self) -> Vec<u8> {
        let mut message = LABEL.to_vec();
        message.extend_from_slice(&self.encode());
        message
    }

    /// Checks the length of the window.
    fn check_lifetime(&self) -> Result<(), IdentityError> {
        let secs = self.not_after.saturating_sub(self.not_before);
        if secs == 0 || secs > LIFETIME_SECS_MAX {
            return Err(IdentityError::Lifetime {
                secs,
                max: LIFETIME_SECS_MAX,
            });
        }
        Ok(())
    }

    /// Checks that `wall` lies within the window widened by [`SKEW_SECS`], as far as `wall` can be believed:
    /// an unknown clock proves nothing, and a floor can only prove that the window is over.
    ///
    /// # Errors
    /// [`IdentityError::Expired`] or [`IdentityError::NotYetValid`].
    pub const fn check_time(&self, wall: WallTime) -> Result<(), IdentityError> {
        let now = wall.unix_secs();
        let expired = now > self.not_after.saturating_add(SKEW_SECS);
        let early = now.saturating_add(SKEW_SECS) < self.not_before;
        match wall.quality {
            ClockQuality::Floor | ClockQuality::Synchronised if expired => Err(IdentityError::Expired {
                not_after: self.not_after,
                now,
            }),
            ClockQuality::Synchronised if early => Err(IdentityError::NotYetValid {
                not_before: self.not_before,
                now,
            }),
            ClockQuality::Unknown | ClockQuality::Floor | ClockQuality::Synchronised => Ok(()),
        }
    }
}

/// An attestation with its signature. Holding one does not mean that it was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedAttestation {
    attestation: Attestation,
    signature: Signature,
}

impl SignedAttestation {
    /// Reads a signed attestation without verifying it.
    ///
    /// # Errors
    /// [`IdentityError::Wire`], [`IdentityError::Version`] or [`IdentityError::Purpose`].
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let mut reader = Reader::new(bytes);
        let attestation = Attestation::read(&mut reader)?;
        let signature = reader.array("attestation signature")?;
        reader.finish()?;
        Ok(Self {
            attestation,
            signature,
        })
    }

    /// Returns the encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.attestation.encode();
        out.extend_from_slice(&self.signature);
        out
    }

    /// Returns what is attested.
    #[must_use]
    pub const fn attestation(&self) -> &Attestation {
        &self.attestation
    }

    /// Returns the hash whose first half the initiator of a handshake names.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[&self.encode()])
    }

    /// Verifies all that does not depend on time: identity, current key, length of the window, signature.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn verify(&self, history: &ChangeHistory) -> Result<(), IdentityError> {
        let attestation = &self.attestation;
        if attestation.identifier != history.identifier() {
            return Err(IdentityError::Foreign {
                got: attestation.identifier,
                want: history.identifier(),
            });
        }
        let current = history.current().sequence;
        if attestation.key_sequence != current {
            return Err(IdentityError::NotCurrentKey {
                got: attestation.key_sequence,
                current,
            });
        }
        attestation.check_lifetime()?;
        history
            .current_key()
            .verify(&attestation.message(), &self.signature)
            .map_err(|source| IdentityError::Signature {
                what: "attestation",
                sequence: current,
                source,
            })
    }
}

/// An attestation that waits for its signature.
#[derive(Clone, Debug)]
pub struct AttestationDraft {
    attestation: Attestation,
}

impl AttestationDraft {
    /// Lets the owner of `history` vouch for `public_key` from `not_before` (seconds since 1970) for
    /// `lifetime_secs`. `sequence` must exceed that of every attestation the identity made before.
    ///
    /// # Errors
    /// [`IdentityError::Lifetime`] outside 1..=[`LIFETIME_SECS_MAX`].
    pub fn new(
        history: &ChangeHistory,
        public_key: [u8; 32],
        not_before: u64,
        lifetime_secs: u64,
        sequence: u64,
    ) -> Result<Self, IdentityError> {
        let attestation = Attestation {
            identifier: history.identifier(),
            key_sequence: history.current().sequence,
            public_key,
            not_before,
            not_after: not_before.saturating_add(lifetime_secs),
            sequence,
        };
        attestation.check_lifetime()?;
        Ok(Self { attestation })
    }

    /// Returns what the current key signs.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        self.attestation.message()
    }

    /// Takes the signature.
    ///
    /// # Errors
    /// [`IdentityError::Signature`] if it is not the current key's, [`IdentityError::NotCurrentKey`] if
    /// `history` was rotated meanwhile.
    pub fn finish(
        self,
        signature: Signature,
        history: &ChangeHistory,
    ) -> Result<SignedAttestation, IdentityError> {
        let signed = SignedAttestation {
            attestation: self.attestation,
            signature,
        };
        signed.verify(history)?;
        Ok(signed)
    }
}
