//! The token worker as a program of its own, for programs other than fieldgate, which is its own worker.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    fieldgate_hsm::process::run()
}
