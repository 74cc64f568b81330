//! `properties`: the property tests with inputs that nobody has tried yet.

use std::hash::{BuildHasher, Hasher, RandomState};

use clap::Args;

use crate::failure::Failure;
use crate::program::Program;
use crate::suite::{PROPERTY_SEED_NAME, Tally, run_one};
use crate::workspace::Workspace;

/// How many inputs, and which.
#[derive(Args)]
pub(crate) struct Options {
    /// Inputs per property, where a test does not set its own number
    #[arg(long, default_value_t = 2_000)]
    cases: u32,
    /// Draw the inputs of this seed again, which an earlier run has printed; without it: fresh ones
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs all tests of the crates in which property tests are; whatever fails is told with the seed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    let seed = options.seed.unwrap_or_else(fresh_seed).to_string();
    let mut tally = Tally::default();
    for targets in &TARGETS {
        let program = Program::cargo_build(workspace, "test")
            .args(targets.iter())
            .arg("--no-fail-fast")
            .env("PROPTEST_CASES", &options.cases.to_string())
            .env(PROPERTY_SEED_NAME, &seed);
        run_one(program, &mut tally)?;
    }
    println!("properties: `cargo xtask properties --seed {seed}` draws the same inputs");
    tally.conclude()
}

/// The standard library's hashers are keyed by the operating system's random numbers.
fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Where property tests are: beside the code, and in the suites of two crates.
const TARGETS: [&[&str]; 2] = [
    &["--workspace", "--lib", "--bins"],
    &[
        "--package=fieldgate-config",
        "--package=fieldgate-mqtt",
        "--test=it",
    ],
];
