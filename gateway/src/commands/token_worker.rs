//! `fieldgate token-worker`: the process that has the identity key. A node starts it by itself.

use std::process::ExitCode;

/// Serves the node at the other end of standard input until that is done with it.
pub(super) fn run() -> ExitCode {
    fieldgate_hsm::process::run()
}
