//! The authority's answer to a question for the time (PROTOCOL.md §10.1, kind 3).

use super::{Statement, StatementKey, StatementKind, TrustError};

/// How long a signed time is called valid, in seconds. The nonce bounds its use, not this.
const VALIDITY_SECS: u64 = 60;

/// The time at an authority when it was asked.
///
/// The body of the statement is the 16 bytes of the question's nonce, its number the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedTime {
    /// The question it answers.
    pub nonce: [u8; 16],
    /// Milliseconds since 1970.
    pub unix_millis: u64,
}

impl SignedTime {
    /// Reads the body of a statement, which [`SignedStatement::verify`](super::SignedStatement::verify) handed out.
    ///
    /// # Errors
    /// [`TrustError::Kind`], [`TrustError::Length`], or [`TrustError::Contradiction`] if the statement was not made
    /// at the time it says.
    pub fn decode(statement: &Statement<'_>) -> Result<Self, TrustError> {
        if statement.kind != StatementKind::Time {
            return Err(TrustError::Kind {
                got: statement.kind.code(),
                want: StatementKind::Time.code(),
            });
        }
        let nonce = statement.body.try_into().map_err(|_| TrustError::Length {
            what: "signed time",
            len: statement.body.len(),
            min: 16,
            max: 16,
        })?;
        let unix_millis = statement.number;
        if unix_millis / 1000 != statement.issued_at {
            return Err(TrustError::Contradiction {
                unix_millis,
                issued_at: statement.issued_at,
            });
        }
        Ok(Self { nonce, unix_millis })
    }

    /// Signs it: a signed statement for [`Presentation::encode`](super::Presentation::encode).
    ///
    /// # Errors
    /// As [`StatementKey::sign`].
    pub fn sign(&self, key: &StatementKey) -> Result<Vec<u8>, TrustError> {
        let issued_at = self.unix_millis / 1000;
        key.sign(
            StatementKind::Time,
            self.unix_millis,
            issued_at,
            issued_at.saturating_add(VALIDITY_SECS),
            &self.nonce,
        )
    }
}
