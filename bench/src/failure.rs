//! Why a measurement stopped.

use std::io;
use std::path::PathBuf;

/// Why a measurement stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The operating system refused something.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A peer broke MQTT or ended its connection.
    #[error("{who}: {problem}")]
    Peer {
        /// Which connection.
        who: String,
        /// What it did.
        problem: String,
    },
    /// A measured process ended or did not become ready.
    #[error("{name} {problem}; the end of {log}:\n{tail}", log = log.display())]
    Process {
        /// Its name here.
        name: String,
        /// What happened.
        problem: String,
        /// Where it writes what it says.
        log: PathBuf,
        /// The last lines of that.
        tail: String,
    },
    /// Something printed or served is not what was expected.
    #[error("{what} is not understood: {problem}")]
    Format {
        /// What was read.
        what: String,
        /// Why it cannot be used.
        problem: String,
    },
    /// The measured code refused its work.
    #[error("{what} failed: {problem}")]
    Subject {
        /// What was done.
        what: &'static str,
        /// What it said.
        problem: String,
    },
    /// Something needs rights that this process does not have.
    #[error("{what} need root")]
    NotRoot {
        /// What was wanted.
        what: &'static str,
    },
    /// All was measured, and is not as it should be.
    #[error("the aim is missed: {problem}")]
    Missed {
        /// What is not.
        problem: String,
    },
}

impl Failure {
    /// Wraps an error of the operating system with what was tried; for `map_err`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }

    /// Makes an error about a peer.
    pub(crate) fn peer(who: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Peer {
            who: who.into(),
            problem: problem.into(),
        }
    }

    /// Returns what the caller can do about it.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => "programs: `cargo xtask setup`; files: --dir and `ulimit -n`",
            Self::Peer { .. } => "look whether the address is an MQTT listener that lets these clients in",
            Self::Process { .. } => "run it by hand with the file named in its log folder",
            Self::Format { .. } => "build both binaries from the same tree",
            Self::Subject { .. } => "run the tests of that crate",
            Self::NotRoot { .. } => {
                "run it as root, or in a container that has CAP_NET_ADMIN and CAP_SYS_ADMIN"
            }
            Self::Missed { .. } => {
                "give it a machine that does nothing else; --json says what every death did"
            }
        }
    }
}
