//! Maintenance of a relay: what `fieldgate relay` asks of it.

use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum RelayJob {
    /// Have members leave.
    Drain {
        /// Seconds until the relay may stop.
        within_secs: u32,
    },
    /// Let members stay, and come again.
    Undrain {},
    /// End the node as it is.
    Stop {},
}
