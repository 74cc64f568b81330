//! `check`: everything that can be said about the tree without running it.

use crate::failure::Failure;
use crate::program::Program;
use crate::workspace::Workspace;
use crate::{docs, fuzz, tidy};

/// Runs the cheap checks first, so that a slip shows within seconds.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    Program::cargo(workspace, "fmt")
        .args(["--all", "--check"])
        .run()?;
    tidy::run(workspace)?;
    Program::cargo_build(workspace, "clippy")
        .args([
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "--deny",
            "warnings",
        ])
        .run()?;
    // The fuzz crate is no member of the workspace, so its targets would rot unseen.
    Program::cargo_build(workspace, "clippy")
        .args(["--manifest-path", fuzz::MANIFEST, "--all-targets", "--target-dir"])
        .arg(workspace.target_dir())
        .args(["--quiet", "--", "--deny", "warnings"])
        .run()?;
    Program::cargo_build(workspace, "doc")
        .args(["--workspace", "--no-deps", "--document-private-items", "--quiet"])
        .env("RUSTDOCFLAGS", "--deny warnings")
        .run()?;
    // Advisories are left out on purpose: their database comes from the network.
    Program::cargo(workspace, "deny")
        .args([
            "--workspace",
            "check",
            "--hide-inclusion-graph",
            "licenses",
            "bans",
            "sources",
        ])
        .run()?;
    docs::check_if_committed(workspace)
}
