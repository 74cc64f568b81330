//! `docs`: files that are generated from the code and committed.

use std::fs;

use clap::Args;

use crate::failure::Failure;
use crate::program::Program;
use crate::workspace::Workspace;

/// What to do with the generated text.
#[derive(Args)]
pub(crate) struct Options {
    /// Change nothing; fail if a committed file differs
    #[arg(long)]
    check: bool,
}

/// Writes every generated file, or compares it.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    for page in PAGES {
        let path = workspace.path(page.path);
        let wanted = generate(workspace, &page)?;
        if options.check {
            let have = fs::read(&path).map_err(|source| Failure::File {
                path: path.clone(),
                source,
            })?;
            if have != wanted {
                return Err(Failure::Stale { path });
            }
        } else {
            fs::write(&path, wanted).map_err(|source| Failure::File { path, source })?;
            println!("docs: wrote {}", page.path);
        }
    }
    Ok(())
}

/// Compares the generated files once they are in the tree.
pub(crate) fn check_if_committed(workspace: &Workspace) -> Result<(), Failure> {
    if PAGES.iter().all(|page| workspace.path(page.path).exists()) {
        return run(workspace, &Options { check: true });
    }
    println!("docs: nothing generated is committed yet");
    Ok(())
}

fn generate(workspace: &Workspace, page: &Page) -> Result<Vec<u8>, Failure> {
    Program::cargo_build(workspace, "run")
        .args(["--quiet", "--package=fieldgate", "--", "config", page.subcommand])
        .output()
}

/// A generated file.
struct Page {
    path: &'static str,
    /// Of `fieldgate config`, which prints it.
    subcommand: &'static str,
}

const PAGES: [Page; 2] = [
    Page {
        path: "config/REFERENCE.md",
        subcommand: "reference",
    },
    Page {
        path: "config/schema.json",
        subcommand: "schema",
    },
];
