//! `cuts`: power cuts of the journal, more than the suite tries.

use clap::Args;

use crate::failure::Failure;
use crate::program::Program;
use crate::suite::Tally;
use crate::workspace::Workspace;

/// How many power cuts, or which seed.
#[derive(Args)]
pub(crate) struct Options {
    /// Repeat this seed and tell its story; without it: seeds from 0 on
    seed: Option<u64>,
    /// How many power cuts are tried in all
    #[arg(long, default_value_t = 200_000, conflicts_with = "seed")]
    cuts: u64,
}

/// Hands the wish to the tests of the journal, which read it from their environment.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    let program = Program::cargo_build(workspace, "test").args([
        "--package=fieldgate-proto",
        "--test=it",
        "--release",
        "nothing_promised_is_lost_whenever_the_power_goes",
        "--",
        "--nocapture",
    ]);
    let program = match options.seed {
        Some(seed) => program.env("FIELDGATE_CUTS_SEED", &seed.to_string()),
        None => program.env("FIELDGATE_CUTS", &options.cuts.to_string()),
    };
    let line = program.line().to_owned();
    let mut tally = Tally::default();
    let ended_well = program.watch(|line| tally.add_line(line))?;
    if !ended_well {
        return Err(Failure::Status {
            line,
            status: "a failing seed".to_owned(),
        });
    }
    if tally.total() == 0 {
        return Err(Failure::NoTests { line });
    }
    tally.conclude()
}
