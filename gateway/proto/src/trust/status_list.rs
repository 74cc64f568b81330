//! Who is revoked (PROTOCOL.md §10.1, kind 2).

use crate::{identity::Identifier, wire::Reader};

use super::{Statement, StatementKey, StatementKind, TrustError};

/// Most subjects in a list (PROTOCOL.md §14).
pub const REVOKED_MAX: usize = 65_000;
/// Longest list with its history, in bytes (PROTOCOL.md §11).
pub const STATUS_LEN_MAX: usize = (1 << 20) + (64 << 10);

/// How far the number of a list may be ahead of the seconds since 1970 at which it was made (PROTOCOL.md §10.1): an authority
/// counts on from the time where it knows that, and by one where it does not. So whoever had got hold of a statement key cannot
/// use the numbers up.
pub const NUMBER_AHEAD_MAX: u64 = 1 << 32;

/// The first half of a subject's identifier, as lists name it.
pub type SubjectPrefix = [u8; 16];

/// Bytes of a [`SubjectPrefix`].
const PREFIX_LEN: usize = 16;

/// The revoked subjects of an authority at one time.
///
/// ```text
/// u32 n | n × 16 first half of a revoked subject's identifier, ascending
/// ```
/// Number and times stand in the statement around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusList {
    number: u64,
    issued_at: u64,
    not_after: u64,
    /// Ascending, without repetition, at most [`REVOKED_MAX`].
    revoked: Vec<SubjectPrefix>,
}

impl StatusList {
    /// Makes list `number` (from 1) of the subjects revoked at `issued_at`; a newer one will have come by `not_after`
    /// (seconds since 1970). Order and repetitions do not matter.
    ///
    /// # Errors
    /// [`TrustError::Length`] for more than [`REVOKED_MAX`] subjects, [`TrustError::NoNumber`] for the number 0,
    /// [`TrustError::NumberAhead`] for one beyond [`NUMBER_AHEAD_MAX`].
    pub fn new(
        number: u64,
        issued_at: u64,
        not_after: u64,
        revoked: impl IntoIterator<Item = Identifier>,
    ) -> Result<Self, TrustError> {
        let revoked = revoked.into_iter().map(|subject| subject_prefix(&subject));
        Self::of_prefixes(number, issued_at, not_after, revoked)
    }

    /// As [`StatusList::new`], of subjects of whom lists have told no more than what they say.
    ///
    /// # Errors
    /// As [`StatusList::new`].
    pub fn of_prefixes(
        number: u64,
        issued_at: u64,
        not_after: u64,
        revoked: impl IntoIterator<Item = SubjectPrefix>,
    ) -> Result<Self, TrustError> {
        let mut revoked: Vec<SubjectPrefix> = revoked.into_iter().collect();
        revoked.sort_unstable();
        revoked.dedup();
        let list = Self {
            number,
            issued_at,
            not_after,
            revoked,
        };
        list.check()?;
        Ok(list)
    }

    /// Reads the body of a statement, which [`SignedStatement::verify`](super::SignedStatement::verify) handed out.
    ///
    /// # Errors
    /// [`TrustError`] for anything PROTOCOL.md §10.1 does not allow.
    pub fn decode(statement: &Statement<'_>) -> Result<Self, TrustError> {
        if statement.kind != StatementKind::StatusList {
            return Err(TrustError::Kind {
                got: statement.kind.code(),
                want: StatementKind::StatusList.code(),
            });
        }
        let mut reader = Reader::new(statement.body);
        let count = usize::try_from(reader.u32("number of revoked subjects")?).unwrap_or(usize::MAX);
        check_count(count)?;
        let entries = reader.bytes("revoked subjects", count.saturating_mul(PREFIX_LEN))?;
        reader.finish()?;
        let (entries, _) = entries.as_chunks::<PREFIX_LEN>();
        if !entries.is_sorted_by(|one, next| one < next) {
            return Err(TrustError::Order {
                what: "revoked subjects",
            });
        }
        let list = Self {
            number: statement.number,
            issued_at: statement.issued_at,
            not_after: statement.not_after,
            revoked: entries.to_vec(),
        };
        list.check()?;
        Ok(list)
    }

    /// Returns the body of the statement.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.revoked.len()).unwrap_or(u32::MAX);
        [count.to_be_bytes().as_slice(), self.revoked.as_flattened()].concat()
    }

    /// Signs it: a signed statement for [`Presentation::encode`](super::Presentation::encode).
    ///
    /// # Errors
    /// As [`StatementKey::sign`].
    pub fn sign(&self, key: &StatementKey) -> Result<Vec<u8>, TrustError> {
        key.sign(
            StatementKind::StatusList,
            self.number,
            self.issued_at,
            self.not_after,
            &self.encode(),
        )
    }

    /// Returns whether the list names `subject`.
    #[must_use]
    pub fn is_revoked(&self, subject: &Identifier) -> bool {
        self.revoked.binary_search(&subject_prefix(subject)).is_ok()
    }

    /// Returns the list's number, from 1; a higher one is newer.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Returns when it was made, in seconds since 1970.
    #[must_use]
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Returns when a newer one will have come, in seconds since 1970.
    #[must_use]
    pub const fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Returns the revoked subjects, ascending.
    #[must_use]
    pub fn revoked(&self) -> &[SubjectPrefix] {
        &self.revoked
    }

    /// Returns the subjects that are revoked here and not in `before`, ascending.
    #[must_use]
    pub fn revoked_since(&self, before: Option<&Self>) -> Vec<SubjectPrefix> {
        let known = before.map_or(&[][..], Self::revoked);
        let is_new = |subject: &&SubjectPrefix| known.binary_search(subject).is_err();
        self.revoked.iter().filter(is_new).copied().collect()
    }

    fn check(&self) -> Result<(), TrustError> {
        if self.number == 0 {
            return Err(TrustError::NoNumber { what: "status list" });
        }
        if self.number > self.issued_at.saturating_add(NUMBER_AHEAD_MAX) {
            return Err(TrustError::NumberAhead {
                number: self.number,
                issued_at: self.issued_at,
                max: NUMBER_AHEAD_MAX,
            });
        }
        check_count(self.revoked.len())
    }
}

/// Returns what a list says about `subject` if it names it.
#[must_use]
pub fn subject_prefix(subject: &Identifier) -> SubjectPrefix {
    let mut prefix = [0; PREFIX_LEN];
    prefix
        .iter_mut()
        .zip(subject.as_bytes())
        .for_each(|(to, from)| *to = *from);
    prefix
}

const fn check_count(len: usize) -> Result<(), TrustError> {
    if len > REVOKED_MAX {
        return Err(TrustError::Length {
            what: "status list",
            len,
            min: 0,
            max: REVOKED_MAX,
        });
    }
    Ok(())
}
