//! `sim`: runs of the deterministic simulator.

use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::program::Program;
use crate::suite::Tally;
use crate::workspace::Workspace;

/// Which runs of the simulator.
#[derive(Args)]
pub(crate) struct Options {
    /// Repeat the run of this seed, with its trace; without it: recorded seeds, then fresh ones
    seed: Option<u64>,
    /// How many fresh seeds are tried; from 1,000 on it is shown how far they are
    #[arg(long, default_value_t = 200, conflicts_with = "seed")]
    seeds: u32,
    /// The first of them
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    from: u64,
    /// What is drawn from seeds; without it: each of these, and the other tests of the simulator
    #[arg(long)]
    of: Option<Draw>,
}

/// What the simulator draws from a seed.
#[derive(Clone, Copy, ValueEnum)]
enum Draw {
    /// Gateways and collectors at the same relays
    Plain,
    /// The same with an authority
    Trusting,
    /// Relays in a row, and streams
    Chained,
    /// The same, with each relay on the way authenticated
    Carried,
}

impl Draw {
    /// The test that plays its seeds.
    const fn test(self) -> &'static str {
        match self {
            Self::Plain => "seeds::whatever_",
            Self::Trusting => "trust::whatever_",
            Self::Chained => "chains::whatever_",
            Self::Carried => "chains::nor_is_anything_lost_",
        }
    }
}

/// Hands the wish to the simulator's tests, which read it from their environment.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    let program = Program::cargo_build(workspace, "test").args(["--package=fieldgate-sim", "--release"]);
    let program = match options.seed {
        Some(seed) => program.env("FIELDGATE_SIM_SEED", &seed.to_string()).args([
            "--",
            "--nocapture",
            "--test-threads=1",
        ]),
        None => program
            .env("FIELDGATE_SIM_SEEDS", &options.seeds.to_string())
            .env("FIELDGATE_SIM_FROM", &options.from.to_string())
            .args(["--"]),
    };
    let program = match options.of {
        Some(draw) => program.args([draw.test()]),
        None => program,
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
