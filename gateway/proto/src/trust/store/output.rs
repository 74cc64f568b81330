//! What [`Trust`](super::Trust) is made from and gives out.

use std::sync::Arc;

use crate::trust::{Credential, SubjectPrefix, TrustError};

/// What a node kept of its authority over a restart, as [`TrustOutput::Save`] gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The authority's history.
    pub history: Option<Vec<u8>>,
    /// The newest status list.
    pub status: Option<Vec<u8>>,
    /// The node's own credential.
    pub own: Option<Vec<u8>>,
}

/// An effect of [`Trust`](super::Trust).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustOutput {
    /// Keep this over a restart, in the place of what was saved as the same part before.
    Save {
        /// Which part of [`Saved`].
        what: SavedPart,
        /// Its bytes.
        bytes: Arc<[u8]>,
    },
}

/// A node's own credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// What it presents to peers: history and signed statement.
    pub presentation: Arc<[u8]>,
    /// What that says.
    pub credential: Arc<Credential>,
}

/// What became of a status list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusTaken {
    /// Whether it is newer than the one held before; it is held now.
    pub newer: bool,
    /// The number of the list held.
    pub number: u64,
    /// The subjects it revokes and the one before did not, ascending: their channels are to be closed
    /// ([`Trust::is_revoked`](super::Trust::is_revoked)).
    pub revoked: Vec<SubjectPrefix>,
}

/// What [`Trust`](super::Trust) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrustStats {
    /// Presentations that were known: no signature verified.
    pub hits: u64,
    /// Presentations that were verified.
    pub misses: u64,
    /// Of those, the ones for whose statement key the attestation was verified as well.
    pub attestations: u64,
    /// Credentials forgotten to make room.
    pub evictions: u64,
    /// Credentials remembered now.
    pub remembered: usize,
}

/// What a node keeps over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SavedPart {
    /// The authority's history.
    History,
    /// The newest status list with its history. It must survive: whoever is revoked would be let in again.
    Status,
    /// The node's own credential, as it presents it.
    Own,
}

impl SavedPart {
    /// All parts, in the order in which they are best saved.
    pub const ALL: [Self; 3] = [Self::History, Self::Status, Self::Own];

    /// Returns the words for errors and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::History => "history of the authority",
            Self::Status => "status list",
            Self::Own => "own credential",
        }
    }

    pub(super) const fn place(self) -> usize {
        match self {
            Self::History => 0,
            Self::Status => 1,
            Self::Own => 2,
        }
    }
}

/// Why what was saved cannot be taken: damaged, or another authority's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved {} cannot be used", what.name())]
pub struct SavedError {
    /// Which part.
    pub what: SavedPart,
    /// Why.
    pub source: TrustError,
}

impl SavedError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match (self.what, &self.source) {
            (_, TrustError::Foreign { .. }) => {
                "it is another authority's: if the change is meant, remove the saved trust state and enrol again"
            }
            (SavedPart::History | SavedPart::Status, _) => {
                "restore it from a backup, or remove it and carry the newest status list to this node"
            }
            (SavedPart::Own, _) => "remove it and enrol this node again",
        }
    }
}
