//! Inlets and outlets that come and go while the node runs: what `fieldgate portal` asks of it.

use serde::{Deserialize, Serialize};

/// Which side of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PortalKind {
    /// Where others connect.
    Inlet,
    /// What others are led to.
    Outlet,
}

impl PortalKind {
    /// Returns a word for it, which is its table's in a file, too.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Inlet => "inlet",
            Self::Outlet => "outlet",
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum PortalJob {
    /// Add one.
    Add {
        /// Which side.
        kind: PortalKind,
        /// Its name.
        name: String,
        /// Its other keys with their values, as a file has them.
        keys: Vec<(String, String)>,
        /// Have it after a restart, too.
        keep: bool,
    },
    /// Take one away that was added by command.
    Remove {
        /// Which side.
        kind: PortalKind,
        /// Its name.
        name: String,
        /// End an inlet's streams, too.
        now: bool,
    },
}

/// What has come of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortalDone {
    /// Where an inlet listens; what an outlet leads to.
    pub(crate) address: String,
    /// What is odd about it.
    pub(crate) warnings: Vec<String>,
}
