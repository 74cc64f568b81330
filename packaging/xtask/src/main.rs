//! Recipes of the fieldgate workspace: `cargo xtask <recipe>`.
//!
//! Each recipe is a module with one `run`. A recipe prints every program it starts, so that a step can be
//! repeated by hand, and ends with the first failure.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks on its standard streams"
)]

mod bench;
mod check;
mod ci;
mod cuts;
mod docs;
mod failure;
mod fuzz;
mod kills;
mod partitions;
mod program;
mod programs;
mod properties;
mod scale;
mod setup;
mod sim;
mod suite;
mod suites;
mod tidy;
mod tokens;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Recipes of the fieldgate workspace"
)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    recipe: Recipe,
}

#[derive(Subcommand)]
enum Recipe {
    /// Install what the checks and tests need: Debian packages, cargo tools, clients and suites of others
    Setup,
    /// Formatting, clippy, documentation, licences and sources of dependencies, tidy
    Check,
    /// Only the rules over the tree that no compiler knows
    Tidy,
    /// The whole suite on io_uring, then the crates that do I/O once more on epoll
    Test(suite::Options),
    /// The property tests, which draw the same inputs in each `test`, with fresh ones
    Properties(properties::Options),
    /// The simulator: all recorded seeds and fresh ones, or one seed again
    Sim(sim::Options),
    /// A cluster of relays whose machines are cut off and lost (root)
    Partitions(partitions::Options),
    /// Power cuts of the journal: many seeds, or one again
    Cuts(cuts::Options),
    /// List the fuzz targets, or run one of them, or all
    Fuzz(fuzz::Options),
    /// Measurements: what follows is handed to fieldgate-bench
    Bench(bench::Options),
    /// Write the configuration reference and schema from the key table
    Docs(docs::Options),
    /// What a million gateways ask of relays and store: the figures of gateway/docs/scale.md
    Scale(scale::Options),
    /// The identity suite on kryoptic, which is built first: minutes, and so no part of `ci`
    Tokens,
    /// Paho's and mosquitto's own test suites against a gateway: minutes, with time limits of their own, and so no part of `ci`
    Suites,
    /// psql, ssh, rsync, a browser, Modbus and iperf3 through portals: installs them all, and so no part of `ci`
    Programs(programs::Options),
    /// iperf3 and rsync through portals while relays are killed and cables pulled: how long streams pause. Needs root
    Kills(kills::Options),
    /// What continuous integration runs, and nothing else: setup, check, test
    Ci,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.recipe) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            let mut cause = std::error::Error::source(&failure);
            while let Some(error) = cause {
                eprintln!("  caused by: {error}");
                cause = error.source();
            }
            eprintln!("  help: {}", failure.hint());
            ExitCode::FAILURE
        }
    }
}

fn run(recipe: &Recipe) -> Result<(), Failure> {
    let workspace = Workspace::locate()?;
    match recipe {
        Recipe::Setup => setup::run(&workspace),
        Recipe::Check => check::run(&workspace),
        Recipe::Tidy => tidy::run(&workspace),
        Recipe::Test(options) => suite::run(&workspace, options),
        Recipe::Properties(options) => properties::run(&workspace, options),
        Recipe::Sim(options) => sim::run(&workspace, options),
        Recipe::Partitions(options) => partitions::run(&workspace, options),
        Recipe::Cuts(options) => cuts::run(&workspace, options),
        Recipe::Fuzz(options) => fuzz::run(&workspace, options),
        Recipe::Bench(options) => bench::run(&workspace, options),
        Recipe::Docs(options) => docs::run(&workspace, options),
        Recipe::Scale(options) => scale::run(options),
        Recipe::Tokens => tokens::run(&workspace),
        Recipe::Suites => suites::run(&workspace),
        Recipe::Programs(options) => programs::run(&workspace, options),
        Recipe::Kills(options) => kills::run(&workspace, options),
        Recipe::Ci => ci::run(&workspace),
    }
}
