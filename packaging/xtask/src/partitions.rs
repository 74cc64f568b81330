//! `partitions`: a cluster of relays whose machines are cut off and lost, in network namespaces.

use clap::Args;

use crate::failure::Failure;
use crate::program::Program;
use crate::suite::{self, Backend, Tally};
use crate::workspace::Workspace;

/// Tests that this recipe runs and `test` does not: each lives on leases and time-outs that run out, for minutes.
pub(crate) const TESTS: [&str; 2] = [
    "cluster::a_cable_that_is_pulled_loses_no_reading_and_breaks_no_stream_that_has_another_way",
    "cluster::machines_that_are_lost_one_after_the_other_lose_no_reading_and_break_no_stream",
];

/// On which backend.
#[derive(Args)]
pub(crate) struct Options {
    /// The I/O backend
    #[arg(long, value_enum, default_value_t = Backend::Uring)]
    io: Backend,
}

/// Runs them; needs root, for the namespaces.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    let program = Program::cargo_build(workspace, "test")
        .args(["--package=fieldgate", "--test=it", "--", "--exact"])
        .args(TESTS)
        .env("FIELDGATE_IO", options.io.name());
    let mut tally = Tally::default();
    suite::run_one(program, &mut tally)?;
    tally.conclude()
}
