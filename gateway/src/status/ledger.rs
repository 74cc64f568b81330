//! The ledger: what can be proved later.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::bytes;
use crate::sinks::ledger::LedgerStats;

/// What a collector's ledger shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerStatus {
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// Readings that came without a signature since the start: they cannot be proved.
    pub(crate) unsealed: u64,
    /// Readings whose signature does not hold: they cannot be proved.
    pub(crate) refused: u64,
}

impl LedgerStatus {
    pub(crate) fn new(stats: &LedgerStats) -> Self {
        Self {
            bytes: stats.bytes.load(Ordering::Relaxed),
            unsealed: stats.unsealed.load(Ordering::Relaxed),
            refused: stats.refused.load(Ordering::Relaxed),
        }
    }

    /// Returns what is wrong, if anything is.
    pub(super) fn reason(&self) -> Option<String> {
        (self.refused > 0).then(|| {
            format!(
                "ledger: {} readings came with signatures that do not hold, and cannot be proved",
                self.refused
            )
        })
    }

    pub(super) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        use std::fmt::Write as _;
        writeln!(
            out,
            "  ledger     {}, {} readings without a signature, {} with one that does not hold",
            bytes(self.bytes),
            self.unsealed,
            self.refused
        )
    }
}
