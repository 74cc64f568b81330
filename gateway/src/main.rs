//! fieldgate: an edge gateway that keeps field readings durably and carries them end to end in secure channels.
//!
//! One program plays gateway, relay and collector; the file it is given decides which.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

mod authority;
mod cli;
mod cluster;
mod commands;
mod control;
mod ledger;
mod logs;
mod memory;
mod metrics;
mod runtime;
mod sinks;
mod status;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commands::run(cli::Cli::parse())
}
