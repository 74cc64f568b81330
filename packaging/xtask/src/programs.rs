//! `programs`: programs that people use, unchanged, through portals over relays.

use clap::Args;

use crate::failure::Failure;
use crate::program::Program;
use crate::setup;
use crate::workspace::Workspace;

/// Which of them.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Options of `fieldgate-bench programs`, as `--only psql,ssh`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Installs the programs, builds both binaries, and runs.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    setup::debian_packages(workspace, PROGRAMS)?;
    let python = setup::python_environment(workspace, &workspace.path(ENVIRONMENT))?;
    Program::new(workspace, &python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            PYMODBUS,
        ])
        .run()?;
    Program::cargo_build(workspace, "build")
        .args(["--quiet", "--package=fieldgate", "--package=fieldgate-bench"])
        .run()?;
    Program::new(workspace, workspace.target_dir().join("debug/fieldgate-bench"))
        .args(["programs", "--python"])
        .arg(&python)
        .args(&options.arguments)
        .run()
}

/// From Debian: clients, and servers where they are not the same.
const PROGRAMS: &[&str] = &[
    "postgresql",
    "postgresql-client",
    "openssh-server",
    "openssh-client",
    "rsync",
    "chromium",
    "iperf3",
    "python3",
    "python3-venv",
];

/// From PyPI, with what it needs below `target`.
const PYMODBUS: &str = "pymodbus==3.16.1";
const ENVIRONMENT: &str = "target/programs";
