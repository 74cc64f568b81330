//! Why a recipe stopped.

use std::io;
use std::path::PathBuf;

/// Why a recipe stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A program is not on this machine.
    #[error("cannot start `{line}`")]
    Start {
        /// The program with its arguments.
        line: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A program ran and said no.
    #[error("`{line}` ended with {status}")]
    Status {
        /// The program with its arguments.
        line: String,
        /// Exit code or signal, as the standard library words it.
        status: String,
    },
    /// A file could not be read or written.
    #[error("{path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A manifest is not what the recipe understands.
    #[error("{path}: {problem}", path = path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The rules over the tree are broken.
    #[error("the tree is not tidy: {count} findings")]
    Untidy {
        /// How many places break a rule.
        count: usize,
    },
    /// A run of the test suite was not clean.
    #[error("{failed} of {total} tests failed")]
    Tests {
        /// Failed tests.
        failed: u64,
        /// All tests that ran.
        total: u64,
    },
    /// A runner ended well without running anything.
    #[error("`{line}` ran no test")]
    NoTests {
        /// The runner with its arguments.
        line: String,
    },
    /// No fuzz target bears this name.
    #[error("no fuzz target is called {name}; there are: {known}")]
    UnknownTarget {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A generated file differs from what is committed.
    #[error("{path} is out of date", path = path.display())]
    Stale {
        /// The generated file.
        path: PathBuf,
    },
}

impl Failure {
    /// Returns what the caller can do about it.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::Start { .. } => "run `cargo xtask setup`; it installs what the recipes need",
            Self::Status { .. } => "the program's own message is above; the line can be run by hand",
            Self::File { .. } => "look at the path's owner, mode and free space",
            Self::Manifest { .. } => "write the manifest like those of the other crates",
            Self::Untidy { .. } => "each finding above says what to write instead",
            Self::Tests { .. } => "the failing tests are named above; `cargo test -p CRATE NAME` repeats one",
            Self::NoTests { .. } => "check the name or the filter",
            Self::UnknownTarget { .. } => "`cargo xtask fuzz` lists the targets",
            Self::Stale { .. } => "run `cargo xtask docs` and commit the result",
        }
    }
}
