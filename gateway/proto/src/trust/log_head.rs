//! How far an authority's log goes (PROTOCOL.md §10.1, kind 4).

use super::{Statement, StatementKey, StatementKind, TrustError};

/// The end of an authority's log: who keeps one notices if the log is shortened or rewritten later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// Entries in the log.
    pub entries: u64,
    /// Hash of the last entry.
    pub hash: [u8; 32],
    /// When it was made, seconds since 1970.
    pub issued_at: u64,
    /// Until when it is called current, seconds since 1970.
    pub not_after: u64,
}

impl LogHead {
    /// Reads the body of a statement, which [`SignedStatement::verify`](super::SignedStatement::verify) handed out.
    ///
    /// # Errors
    /// [`TrustError::Kind`] or [`TrustError::Length`].
    pub fn decode(statement: &Statement<'_>) -> Result<Self, TrustError> {
        if statement.kind != StatementKind::LogHead {
            return Err(TrustError::Kind {
                got: statement.kind.code(),
                want: StatementKind::LogHead.code(),
            });
        }
        let hash = statement.body.try_into().map_err(|_| TrustError::Length {
            what: "log head",
            len: statement.body.len(),
            min: 32,
            max: 32,
        })?;
        Ok(Self {
            entries: statement.number,
            hash,
            issued_at: statement.issued_at,
            not_after: statement.not_after,
        })
    }

    /// Signs it: a signed statement for [`Presentation::encode`](super::Presentation::encode).
    ///
    /// # Errors
    /// As [`StatementKey::sign`].
    pub fn sign(&self, key: &StatementKey) -> Result<Vec<u8>, TrustError> {
        key.sign(
            StatementKind::LogHead,
            self.entries,
            self.issued_at,
            self.not_after,
            &self.hash,
        )
    }
}
