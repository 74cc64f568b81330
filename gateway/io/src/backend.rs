use std::{fmt, io, str::FromStr};

use crate::uring::{self, ProbeError};

/// What the operator asked for: `[node] io = "auto" | "uring" | "epoll"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// io_uring where it works, else epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll, without a look at io_uring.
    Epoll,
}

impl FromStr for BackendChoice {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "epoll" => Ok(Self::Epoll),
            _ => Err(UnknownBackend(text.to_owned())),
        }
    }
}

/// A word that names no backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("io backend {0:?} is not one of auto, uring, epoll")]
pub struct UnknownBackend(pub String);

impl UnknownBackend {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        "write auto: it takes io_uring where that works"
    }
}

/// How this process does its I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Completions from a ring: multishot accept and receive, provided buffers, one system call per turn under load.
    Uring,
    /// Readiness, edge-triggered.
    Epoll,
}

impl Backend {
    /// Decides which backend the process uses. Call once, at start, and pass the result to every shard.
    ///
    /// io_uring is taken only after a self-test of about a millisecond in which a restricted ring has received from a
    /// socket the way shards do.
    ///
    /// # Errors
    /// io_uring was demanded and does not work here. [`BackendChoice::Auto`] and [`BackendChoice::Epoll`] never fail.
    pub fn select(choice: BackendChoice) -> Result<Selected, BackendError> {
        select_with(choice, uring::probe)
    }

    /// Returns the word used in configuration, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The backend of this process and why it was taken: one line in the log, in `status` and in the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// What to pass to every shard.
    pub backend: Backend,
    /// Why this one, in a few words.
    pub reason: String,
    /// What the operator can do to get the faster one, if it is not that already.
    pub cure: Option<String>,
}

/// io_uring was demanded and does not work.
#[derive(Debug, thiserror::Error)]
#[error("io_uring cannot be used: {reason}")]
pub struct BackendError {
    /// What is missing.
    pub reason: String,
    /// What the operator can do about it.
    pub cure: String,
    /// The kernel's answer, if it gave one.
    #[source]
    pub source: Option<io::Error>,
}

impl BackendError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.cure
    }
}

/// Decides with a probe that a test can replace.
fn select_with(
    choice: BackendChoice,
    probe: impl FnOnce() -> Result<String, ProbeError>,
) -> Result<Selected, BackendError> {
    if choice == BackendChoice::Epoll {
        return Ok(Selected {
            backend: Backend::Epoll,
            reason: "configured".to_owned(),
            cure: None,
        });
    }
    match probe() {
        Ok(features) => Ok(Selected {
            backend: Backend::Uring,
            reason: format!("self-test passed ({features})"),
            cure: None,
        }),
        Err(error) => {
            let (reason, cure) = explain(&error);
            if choice == BackendChoice::Uring {
                return Err(BackendError {
                    reason,
                    cure,
                    source: error.into_source(),
                });
            }
            Ok(Selected {
                backend: Backend::Epoll,
                reason: format!("io_uring: {reason}"),
                cure: Some(cure),
            })
        }
    }
}

/// Says what is wrong with io_uring here and what would help.
fn explain(error: &ProbeError) -> (String, String) {
    match error {
        ProbeError::Kernel { release } => (
            format!("kernel {release} is older than 6.1"),
            "run Linux 6.1 or later, or set io = \"epoll\"".to_owned(),
        ),
        ProbeError::Ring { step, source } => {
            let reason = format!("{step} failed: {source}");
            let cure = match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) if disabled_by_sysctl() => {
                    "set the sysctl kernel.io_uring_disabled to 0 (or to 1, and this user into kernel.io_uring_group)"
                }
                Some(libc::EPERM | libc::EACCES) => {
                    "let the seccomp filter pass io_uring_setup, io_uring_enter and io_uring_register \
                     (Docker: --security-opt seccomp=PROFILE)"
                }
                Some(libc::ENOSYS) => {
                    "use a kernel built with CONFIG_IO_URING, or a seccomp filter that lets io_uring pass"
                }
                Some(libc::ENOMEM) => {
                    "raise the limit of locked memory (LimitMEMLOCK= of the unit, ulimit -l)"
                }
                Some(libc::EMFILE | libc::ENFILE) => {
                    "raise the limit of open files (LimitNOFILE= of the unit, ulimit -n)"
                }
                _ => "set io = \"epoll\", and report the kernel version together with this line",
            };
            (reason, cure.to_owned())
        }
        ProbeError::Behaviour { what } => (
            format!("self-test failed: {what}"),
            "set io = \"epoll\", and report the kernel version together with this line".to_owned(),
        ),
    }
}

/// Tells whether the administrator has switched io_uring off (Linux 6.6 and later have the switch).
fn disabled_by_sysctl() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|value| value.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring_error(errno: i32) -> ProbeError {
        ProbeError::Ring {
            step: "io_uring_setup",
            source: io::Error::from_raw_os_error(errno),
        }
    }

    #[test]
    fn auto_falls_back_to_epoll_and_says_why() {
        for (errno, word) in [
            (libc::EPERM, "seccomp"),
            (libc::ENOSYS, "CONFIG_IO_URING"),
            (libc::ENOMEM, "LimitMEMLOCK"),
            (libc::EMFILE, "LimitNOFILE"),
            (libc::EIO, "epoll"),
        ] {
            let selected =
                select_with(BackendChoice::Auto, || Err(ring_error(errno))).expect("auto never fails");
            assert_eq!(selected.backend, Backend::Epoll);
            assert!(
                selected.reason.contains("io_uring_setup failed"),
                "{}",
                selected.reason
            );
            let cure = selected.cure.expect("there is a cure");
            assert!(cure.contains(word) || disabled_by_sysctl(), "{errno}: {cure}");
        }
    }

    #[test]
    fn a_demanded_ring_that_does_not_work_is_an_error_with_a_cure() {
        let probe = || {
            Err(ProbeError::Kernel {
                release: "5.15.0".to_owned(),
            })
        };
        let error = select_with(BackendChoice::Uring, probe).expect_err("5.15 is too old");
        assert_eq!(
            error.to_string(),
            "io_uring cannot be used: kernel 5.15.0 is older than 6.1"
        );
        assert_eq!(error.hint(), "run Linux 6.1 or later, or set io = \"epoll\"");

        let error =
            select_with(BackendChoice::Uring, || Err(ring_error(libc::EPERM))).expect_err("not permitted");
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn a_ring_that_misbehaves_is_not_used() {
        let probe = || {
            Err(ProbeError::Behaviour {
                what: "no completion",
            })
        };
        let selected = select_with(BackendChoice::Auto, probe).expect("auto never fails");
        assert_eq!(selected.backend, Backend::Epoll);
        assert_eq!(selected.reason, "io_uring: self-test failed: no completion");
    }

    #[test]
    fn epoll_is_taken_without_touching_the_ring() {
        let selected =
            select_with(BackendChoice::Epoll, || unreachable!("not asked")).expect("epoll never fails");
        assert_eq!(selected.backend, Backend::Epoll);
        assert_eq!(selected.cure, None);
    }

    #[test]
    fn a_working_ring_is_taken() {
        let selected = select_with(BackendChoice::Auto, || Ok("defer".to_owned())).expect("auto never fails");
        assert_eq!(selected.backend, Backend::Uring);
        assert_eq!(selected.reason, "self-test passed (defer)");
    }

    #[test]
    fn choices_are_read_from_words() {
        assert_eq!("auto".parse(), Ok(BackendChoice::Auto));
        assert_eq!("uring".parse(), Ok(BackendChoice::Uring));
        assert_eq!("epoll".parse(), Ok(BackendChoice::Epoll));
        let error = "kqueue".parse::<BackendChoice>().expect_err("not Linux");
        assert_eq!(
            error.to_string(),
            "io backend \"kqueue\" is not one of auto, uring, epoll"
        );
    }
}
