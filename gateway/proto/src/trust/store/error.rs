//! What a node keeps over a restart, and why that cannot be taken.

use crate::trust::TrustError;

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
