//! What an authority says, and the key it says it with (PROTOCOL.md §10.1).

use crate::{
    crypto::{Ed25519Secret, Signature, label16, verify_ed25519_parts},
    entropy::Entropy,
    identity::{AttestationDraft, ChangeHistory, Identifier, IdentityError, SKEW_SECS, SignedAttestation},
    time::WallTime,
    wire::{Reader, put_bytes16},
};

use super::{PRESENTATION_LEN_MAX, STATUS_LEN_MAX, TrustError};

/// Longest validity of a statement in seconds: 400 days.
pub const VALIDITY_SECS_MAX: u64 = 400 * 86_400;

/// Bytes of a statement without its body: version, kind, identifier, number, two times.
const HEAD_LEN: usize = 1 + 1 + 32 + 8 + 8 + 8;
/// Version of the encoding.
const VERSION: u8 = 1;
/// Stands in front of what is signed.
const LABEL: [u8; 16] = label16("FG1 statement");

/// What a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatementKind {
    /// A member and its rights.
    Credential,
    /// Who is revoked.
    StatusList,
    /// What time it is.
    Time,
    /// The end of the authority's log.
    LogHead,
}

impl StatementKind {
    /// Returns the number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Credential => 1,
            Self::StatusList => 2,
            Self::Time => 3,
            Self::LogHead => 4,
        }
    }

    /// Returns the word for errors and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::StatusList => "status list",
            Self::Time => "signed time",
            Self::LogHead => "log head",
        }
    }

    /// Returns the largest length of a body.
    const fn body_len_max(self) -> usize {
        match self {
            Self::Credential => PRESENTATION_LEN_MAX,
            Self::StatusList => STATUS_LEN_MAX,
            Self::Time => 16,
            Self::LogHead => 32,
        }
    }
}

/// What an authority says (PROTOCOL.md §10.1). Holding one does not mean that it was signed.
///
/// ```text
/// u8 version (1) | u8 kind | 32 authority's identifier | u64 number | u64 issued_at | u64 not_after | body
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// What it is about.
    pub kind: StatementKind,
    /// Who says it.
    pub authority: Identifier,
    /// Serial, list number, milliseconds since 1970 or entries in the log, as the kind says.
    pub number: u64,
    /// When it was made, seconds since 1970.
    pub issued_at: u64,
    /// Until when it holds, seconds since 1970.
    pub not_after: u64,
    /// The rest, as the kind says.
    pub body: &'a [u8],
}

impl<'a> Statement<'a> {
    /// Reads a statement of `kind`.
    ///
    /// # Errors
    /// [`TrustError::Wire`], [`TrustError::Version`], [`TrustError::Kind`], [`TrustError::Lifetime`] or
    /// [`TrustError::Length`].
    pub fn decode(kind: StatementKind, bytes: &'a [u8]) -> Result<Self, TrustError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("statement version")?;
        if version != VERSION {
            return Err(TrustError::Version {
                what: "statement",
                got: version,
                want: VERSION,
            });
        }
        let (got, want) = (reader.u8("statement kind")?, kind.code());
        if got != want {
            return Err(TrustError::Kind { got, want });
        }
        let statement = Self {
            kind,
            authority: Identifier::from_bytes(reader.array("authority")?),
            number: reader.u64("statement number")?,
            issued_at: reader.u64("issued_at")?,
            not_after: reader.u64("not_after")?,
            body: reader.rest(),
        };
        statement.check()?;
        Ok(statement)
    }

    /// Returns the encoding.
    ///
    /// # Errors
    /// [`TrustError::Lifetime`] or [`TrustError::Length`].
    pub fn encode(&self) -> Result<Vec<u8>, TrustError> {
        self.check()?;
        let mut out = Vec::with_capacity(HEAD_LEN.saturating_add(self.body.len()));
        out.extend_from_slice(&[VERSION, self.kind.code()]);
        out.extend_from_slice(self.authority.as_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.issued_at.to_be_bytes());
        out.extend_from_slice(&self.not_after.to_be_bytes());
        out.extend_from_slice(self.body);
        Ok(out)
    }

    /// Checks that `wall` lies within the window widened by [`SKEW_SECS`], as far as `wall` can be believed.
    ///
    /// # Errors
    /// [`TrustError::Expired`] or [`TrustError::NotYetValid`].
    pub fn check_time(&self, wall: WallTime) -> Result<(), TrustError> {
        if wall.is_surely_after(self.not_after.saturating_add(SKEW_SECS)) {
            return Err(TrustError::Expired {
                not_after: self.not_after,
                now: wall.unix_secs(),
            });
        }
        self.check_begun(wall)
    }

    /// Checks the beginning of the window only.
    pub(super) const fn check_begun(&self, wall: WallTime) -> Result<(), TrustError> {
        if wall.is_surely_before(self.issued_at.saturating_sub(SKEW_SECS)) {
            return Err(TrustError::NotYetValid {
                issued_at: self.issued_at,
                now: wall.unix_secs(),
            });
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TrustError> {
        check_validity(self.issued_at, self.not_after)?;
        let max = self.kind.body_len_max();
        if self.body.len() > max {
            return Err(TrustError::Length {
                what: self.kind.name(),
                len: self.body.len(),
                min: 0,
                max,
            });
        }
        Ok(())
    }
}

/// Checks the length of a window.
pub(super) const fn check_validity(issued_at: u64, not_after: u64) -> Result<(), TrustError> {
    let secs = not_after.saturating_sub(issued_at);
    if secs == 0 || secs > VALIDITY_SECS_MAX {
        return Err(TrustError::Lifetime {
            secs,
            max: VALIDITY_SECS_MAX,
        });
    }
    Ok(())
}

/// A statement with its signature and the attestation of the key that made it. Nothing of it is verified before
/// [`SignedStatement::verify`] says so.
///
/// ```text
/// bytes16 (kind 2: u32 length) statement | bytes16 signed attestation | 64 signature
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedStatement<'a> {
    statement: Statement<'a>,
    /// What the signature is over.
    bytes: &'a [u8],
    attestation: SignedAttestation,
    signature: Signature,
}

impl<'a> SignedStatement<'a> {
    /// Reads a signed statement of `kind` without verifying it.
    ///
    /// # Errors
    /// As [`Statement::decode`], and [`TrustError::Identity`] for the attestation.
    pub fn decode(kind: StatementKind, bytes: &'a [u8]) -> Result<Self, TrustError> {
        let mut reader = Reader::new(bytes);
        let bytes = match kind {
            StatementKind::StatusList => {
                let len = reader.u32("length of the statement")?;
                reader.bytes("statement", usize::try_from(len).unwrap_or(usize::MAX))?
            }
            StatementKind::Credential | StatementKind::Time | StatementKind::LogHead => {
                reader.bytes16("statement")?
            }
        };
        let statement = Statement::decode(kind, bytes)?;
        let attestation = SignedAttestation::decode(reader.bytes16("attestation")?)?;
        let signature = reader.array("statement signature")?;
        reader.finish()?;
        Ok(Self {
            statement,
            bytes,
            attestation,
            signature,
        })
    }

    /// Returns what is said, verified or not.
    #[must_use]
    pub const fn statement(&self) -> &Statement<'a> {
        &self.statement
    }

    /// Returns the attestation of the key that signed, verified or not.
    #[must_use]
    pub const fn attestation(&self) -> &SignedAttestation {
        &self.attestation
    }

    /// Verifies all that does not depend on time: that the owner of `history` vouched for the key when the statement
    /// was made, and that the key signed it.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn verify(&self, history: &ChangeHistory) -> Result<Statement<'a>, TrustError> {
        self.check_author(history.identifier())?;
        self.attestation.verify_statement_key(history)?;
        self.verify_signature()
    }

    /// Checks what costs nothing: whose statement it is, and whether its key was vouched for at its time.
    pub(super) fn check_author(&self, authority: Identifier) -> Result<(), TrustError> {
        let attested = self.attestation.attestation();
        for got in [self.statement.authority, attested.identifier] {
            if got != authority {
                return Err(TrustError::Foreign { got, want: authority });
            }
        }
        let issued_at = self.statement.issued_at;
        if !(attested.not_before..=attested.not_after).contains(&issued_at) {
            return Err(TrustError::OutsideAttestation {
                issued_at,
                not_before: attested.not_before,
                not_after: attested.not_after,
            });
        }
        Ok(())
    }

    /// Verifies the signature. Call only after the attestation has verified: it says whose key this is.
    pub(super) fn verify_signature(&self) -> Result<Statement<'a>, TrustError> {
        let key = &self.attestation.attestation().public_key;
        verify_ed25519_parts(key, &[&LABEL, self.bytes], &self.signature).map_err(|source| {
            TrustError::Signature {
                what: self.statement.kind.name(),
                source,
            }
        })?;
        Ok(self.statement)
    }
}

/// A new statement key that waits for the signature of the authority's identity key, which a token holds.
#[derive(Debug)]
pub struct StatementKeyDraft {
    secret: Ed25519Secret,
    draft: AttestationDraft,
}

impl StatementKeyDraft {
    /// Draws a key for the owner of `history`, valid from `not_before` (seconds since 1970) for `lifetime_secs`.
    /// `sequence` must exceed that of every attestation the identity made before, those for channels included.
    ///
    /// # Errors
    /// [`IdentityError::Lifetime`] outside 1..=[`LIFETIME_SECS_MAX`](crate::identity::LIFETIME_SECS_MAX).
    pub fn new(
        entropy: &mut dyn Entropy,
        history: &ChangeHistory,
        not_before: u64,
        lifetime_secs: u64,
        sequence: u64,
    ) -> Result<Self, IdentityError> {
        let secret = Ed25519Secret::generate(entropy);
        let draft =
            AttestationDraft::for_statements(history, *secret.public(), not_before, lifetime_secs, sequence)?;
        Ok(Self { secret, draft })
    }

    /// Returns what the identity's current key signs.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        self.draft.message()
    }

    /// Takes the signature.
    ///
    /// # Errors
    /// [`IdentityError::Signature`] if it is not the current key's, [`IdentityError::NotCurrentKey`] if `history` was
    /// rotated meanwhile.
    pub fn finish(
        self,
        signature: Signature,
        history: &ChangeHistory,
    ) -> Result<StatementKey, IdentityError> {
        Ok(StatementKey {
            attestation: self.draft.finish(signature, history)?,
            secret: self.secret,
        })
    }
}

/// The key an authority signs statements with, and the word of its identity for it. Lives in this process only.
#[derive(Debug)]
pub struct StatementKey {
    secret: Ed25519Secret,
    attestation: SignedAttestation,
}

impl StatementKey {
    /// Returns the word for this key. It says until when the key can sign.
    #[must_use]
    pub const fn attestation(&self) -> &SignedAttestation {
        &self.attestation
    }

    /// Returns who signs.
    #[must_use]
    pub const fn authority(&self) -> Identifier {
        self.attestation.attestation().identifier
    }

    /// Signs a statement; times in seconds since 1970. [`Credential`](super::Credential) and its like do this for
    /// their kinds.
    ///
    /// # Errors
    /// [`TrustError::OutsideAttestation`] if the key is not vouched for at `issued_at`, [`TrustError::Lifetime`] or
    /// [`TrustError::Length`].
    ///
    /// # Panics
    /// Never: the length of every statement is bounded.
    pub fn sign(
        &self,
        kind: StatementKind,
        number: u64,
        issued_at: u64,
        not_after: u64,
        body: &[u8],
    ) -> Result<Vec<u8>, TrustError> {
        let statement = Statement {
            kind,
            authority: self.authority(),
            number,
            issued_at,
            not_after,
            body,
        };
        let bytes = statement.encode()?;
        let signed = SignedStatement {
            statement,
            bytes: &bytes,
            attestation: self.attestation,
            signature: self.secret.sign(&[&LABEL, &bytes]),
        };
        signed.check_author(self.authority())?;
        let mut out = Vec::with_capacity(bytes.len().saturating_add(256));
        if kind == StatementKind::StatusList {
            let len = u32::try_from(bytes.len()).expect("a status list is far below 4 GiB");
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&bytes);
        } else {
            put_bytes16(&mut out, &bytes);
        }
        put_bytes16(&mut out, &self.attestation.encode());
        out.extend_from_slice(&signed.signature);
        Ok(out)
    }
}
