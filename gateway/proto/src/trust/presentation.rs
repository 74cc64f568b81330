//! A signed statement behind its authority's history: all that is needed to verify it (PROTOCOL.md §10.2).

use crate::{
    identity::{ChangeHistory, Identifier},
    wire::Reader,
};

use super::{STATUS_LEN_MAX, SignedStatement, Statement, StatementKind, TrustError};

/// Longest presentation of a credential, in bytes (PROTOCOL.md §14).
pub const PRESENTATION_LEN_MAX: usize = 4096;

/// Longest presentation of a time or a log head: 16 changes, and a statement.
const SHORT_LEN_MAX: usize = 8192;

/// A history and a signed statement, as a peer presents its credential and as lists and times travel. Nothing of it
/// is verified.
///
/// ```text
/// history | signed statement
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presentation<'a> {
    history: &'a [u8],
    signed: SignedStatement<'a>,
}

impl<'a> Presentation<'a> {
    /// Reads the two parts without verifying them.
    ///
    /// # Errors
    /// [`TrustError::Length`], or as [`SignedStatement::decode`].
    pub fn decode(kind: StatementKind, bytes: &'a [u8]) -> Result<Self, TrustError> {
        check_len(kind, bytes.len())?;
        let mut reader = Reader::new(bytes);
        let history = ChangeHistory::take_encoded(&mut reader)?;
        let signed = SignedStatement::decode(kind, reader.rest())?;
        Ok(Self { history, signed })
    }

    /// Puts a signed statement behind the history of who signed it.
    ///
    /// # Errors
    /// [`TrustError::Length`] if the whole is longer than a verifier takes.
    pub fn encode(
        kind: StatementKind,
        history: &ChangeHistory,
        signed: &[u8],
    ) -> Result<Vec<u8>, TrustError> {
        join(kind, &history.to_bytes(), signed)
    }

    /// Returns the encoded history.
    #[must_use]
    pub const fn history(&self) -> &'a [u8] {
        self.history
    }

    /// Returns the signed statement.
    #[must_use]
    pub const fn signed(&self) -> &SignedStatement<'a> {
        &self.signed
    }

    /// Verifies both parts for somebody who knows no more of the authority than its identifier. Times are not
    /// judged: [`Statement::check_time`] does that.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn verify_alone(&self, authority: Identifier) -> Result<(ChangeHistory, Statement<'a>), TrustError> {
        self.signed.check_author(authority)?;
        let history = ChangeHistory::decode(self.history)?;
        if history.identifier() != authority {
            return Err(TrustError::Foreign {
                got: history.identifier(),
                want: authority,
            });
        }
        let statement = self.signed.verify(&history)?;
        Ok((history, statement))
    }
}

/// Puts a signed statement behind an encoded history.
pub(super) fn join(kind: StatementKind, history: &[u8], signed: &[u8]) -> Result<Vec<u8>, TrustError> {
    let bytes = [history, signed].concat();
    check_len(kind, bytes.len())?;
    Ok(bytes)
}

fn check_len(kind: StatementKind, len: usize) -> Result<(), TrustError> {
    let (what, max) = match kind {
        StatementKind::Credential => ("presentation", PRESENTATION_LEN_MAX),
        StatementKind::StatusList => ("status list", STATUS_LEN_MAX),
        StatementKind::Time => ("signed time", SHORT_LEN_MAX),
        StatementKind::LogHead => ("log head", SHORT_LEN_MAX),
    };
    if len > max {
        return Err(TrustError::Length {
            what,
            len,
            min: 0,
            max,
        });
    }
    Ok(())
}
