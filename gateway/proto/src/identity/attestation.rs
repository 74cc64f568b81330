//! The identity's word for a short-lived key.

use super::{ChangeHistory, Identifier, IdentityError, PublicKey};
use crate::{
    crypto::{Signature, label16, sha256},
    time::WallTime,
    wire::{Reader, WireError},
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
/// Stands in front of what is signed.
const LABEL: [u8; 16] = label16("FG1 attest v1");

/// What an attested key is for (PROTOCOL.md §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// The X25519 static key of channels.
    Channel,
    /// The Ed25519 key with which an authority signs statements.
    Statements,
    /// The Ed25519 key with which a gateway seals batches of readings.
    Readings,
}

impl Purpose {
    /// Returns the number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Channel => 1,
            Self::Statements => 2,
            Self::Readings => 3,
        }
    }

    /// Returns the purpose with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Channel),
            2 => Some(Self::Statements),
            3 => Some(Self::Readings),
            _ => None,
        }
    }
}

/// A statement of an identity about one of its short-lived keys (PROTOCOL.md §2.2).
///
/// ```text
/// u8 version (1) | 32 identifier | u32 key_sequence | u8 purpose | 32 public key
/// | u64 not_before | u64 not_after | u64 sequence
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// Who says it.
    pub identifier: Identifier,
    /// The change whose key signs.
    pub key_sequence: u32,
    /// What the key is for.
    pub purpose: Purpose,
    /// The public key it is about: X25519 or Ed25519, as the purpose says.
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
        out.push(self.purpose.code());
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
        let code = reader.u8("purpose")?;
        let purpose = Purpose::from_code(code).ok_or_else(|| WireError::Value {
            field: "purpose",
            value: u64::from(code),
        })?;
        Ok(Self {
            identifier,
            key_sequence,
            purpose,
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
        if wall.is_surely_after(self.not_after.saturating_add(SKEW_SECS)) {
            return Err(IdentityError::Expired {
                not_after: self.not_after,
                now,
            });
        }
        if wall.is_surely_before(self.not_before.saturating_sub(SKEW_SECS)) {
            return Err(IdentityError::NotYetValid {
                not_before: self.not_before,
                now,
            });
        }
        Ok(())
    }

    /// Checks what the key is for.
    pub(super) const fn check_purpose(&self, want: Purpose) -> Result<(), IdentityError> {
        let (got, want) = (self.purpose.code(), want.code());
        if got == want {
            Ok(())
        } else {
            Err(IdentityError::Purpose { got, want })
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
    /// [`IdentityError::Wire`] or [`IdentityError::Version`].
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

    /// Verifies all that does not depend on time about a key for channels: identity, current key, length of the
    /// window, signature.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn verify(&self, history: &ChangeHistory) -> Result<(), IdentityError> {
        self.verify_current(history, Purpose::Channel)
    }

    /// Verifies all that does not depend on time about a key for statements. Any key of `history` may have signed,
    /// if it was current when the window began: what an authority said stays said when it rotates its key.
    ///
    /// A key that was replaced cannot go on vouching: where the time of its replacement is known, a window that
    /// begins later (by more than [`SKEW_SECS`]) is refused.
    ///
    /// # Errors
    /// [`IdentityError`]; [`IdentityError::NotCurrentKey`] if `history` has no such key or had replaced it.
    pub fn verify_statement_key(&self, history: &ChangeHistory) -> Result<(), IdentityError> {
        self.verify_lasting(history, Purpose::Statements)
    }

    /// Verifies all that does not depend on time about a key for sealing readings, as
    /// [`verify_statement_key`](Self::verify_statement_key) does for statements.
    ///
    /// # Errors
    /// As there.
    pub fn verify_readings_key(&self, history: &ChangeHistory) -> Result<(), IdentityError> {
        self.verify_lasting(history, Purpose::Readings)
    }

    fn verify_lasting(&self, history: &ChangeHistory, purpose: Purpose) -> Result<(), IdentityError> {
        let attestation = &self.attestation;
        attestation.check_purpose(purpose)?;
        let got = attestation.key_sequence;
        let not_current = |current| IdentityError::NotCurrentKey { got, current };
        let mut changes = history.changes().skip_while(|change| change.sequence < got);
        let change = changes
            .next()
            .ok_or_else(|| not_current(history.current().sequence))?;
        if let Some(next) = changes.next()
            && next.created_at > 0
            && attestation.not_before > next.created_at.saturating_add(SKEW_SECS)
        {
            return Err(not_current(next.sequence));
        }
        self.verify_with(history, &change.key)
    }

    fn verify_current(&self, history: &ChangeHistory, purpose: Purpose) -> Result<(), IdentityError> {
        self.attestation.check_purpose(purpose)?;
        let current = history.current().sequence;
        let got = self.attestation.key_sequence;
        if self.attestation.identifier == history.identifier() && got != current {
            return Err(IdentityError::NotCurrentKey { got, current });
        }
        self.verify_with(history, history.current_key())
    }

    /// Verifies identity, length of the window and the signature by `key`, which is one of `history`.
    fn verify_with(&self, history: &ChangeHistory, key: &PublicKey) -> Result<(), IdentityError> {
        let attestation = &self.attestation;
        if attestation.identifier != history.identifier() {
            return Err(IdentityError::Foreign {
                got: attestation.identifier,
                want: history.identifier(),
            });
        }
        attestation.check_lifetime()?;
        key.verify(&attestation.message(), &self.signature)
            .map_err(|source| IdentityError::Signature {
                what: "attestation",
                sequence: attestation.key_sequence,
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
    /// Lets the owner of `history` vouch for `public_key`, an X25519 key for channels, from `not_before` (seconds
    /// since 1970) for `lifetime_secs`. `sequence` must exceed that of every attestation the identity made before.
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
        Self::with(
            Purpose::Channel,
            history,
            public_key,
            not_before,
            lifetime_secs,
            sequence,
        )
    }

    /// Lets the owner of `history`, an authority, vouch for `public_key`, an Ed25519 key for statements; otherwise
    /// as [`AttestationDraft::new`], and out of the same sequence.
    ///
    /// # Errors
    /// [`IdentityError::Lifetime`] outside 1..=[`LIFETIME_SECS_MAX`].
    pub fn for_statements(
        history: &ChangeHistory,
        public_key: [u8; 32],
        not_before: u64,
        lifetime_secs: u64,
        sequence: u64,
    ) -> Result<Self, IdentityError> {
        Self::with(
            Purpose::Statements,
            history,
            public_key,
            not_before,
            lifetime_secs,
            sequence,
        )
    }

    /// Lets the owner of `history`, a gateway, vouch for `public_key`, an Ed25519 key that seals readings; otherwise as
    /// [`AttestationDraft::new`], and out of the same sequence.
    ///
    /// # Errors
    /// [`IdentityError::Lifetime`] outside 1..=[`LIFETIME_SECS_MAX`].
    pub fn for_readings(
        history: &ChangeHistory,
        public_key: [u8; 32],
        not_before: u64,
        lifetime_secs: u64,
        sequence: u64,
    ) -> Result<Self, IdentityError> {
        Self::with(
            Purpose::Readings,
            history,
            public_key,
            not_before,
            lifetime_secs,
            sequence,
        )
    }

    fn with(
        purpose: Purpose,
        history: &ChangeHistory,
        public_key: [u8; 32],
        not_before: u64,
        lifetime_secs: u64,
        sequence: u64,
    ) -> Result<Self, IdentityError> {
        let attestation = Attestation {
            identifier: history.identifier(),
            key_sequence: history.current().sequence,
            purpose,
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
        signed.verify_current(history, signed.attestation.purpose)?;
        Ok(signed)
    }
}
