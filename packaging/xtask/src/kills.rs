//! `kills`: streams through portals over two relays, of which the one in use dies again and again.

use clap::Args;

use crate::failure::Failure;
use crate::program::Program;
use crate::setup;
use crate::workspace::Workspace;

/// How often, and what.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Options of `fieldgate-bench kills`, as `--kills 50 --json`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Installs what runs through the portals, builds both binaries optimised, and runs.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    setup::debian_packages(workspace, PROGRAMS)?;
    Program::cargo_build(workspace, "build")
        .args([
            "--release",
            "--quiet",
            "--package=fieldgate",
            "--package=fieldgate-bench",
        ])
        .run()?;
    Program::new(workspace, workspace.target_dir().join("release/fieldgate-bench"))
        .arg("kills")
        .args(&options.arguments)
        .run()
}

/// From Debian: the loads, and what namespaces are made with.
const PROGRAMS: &[&str] = &["iperf3", "rsync", "iproute2", "coreutils"];
