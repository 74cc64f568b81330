//! Deadlines and polling.

use std::{sync::mpsc, time::Duration};

/// A moment after which a test has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// The moment `wait` from now.
    pub(crate) fn after(wait: Duration) -> Self {
        let wait = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Self(fieldgate_io::clock::monotonic().saturating_add(wait))
    }

    /// Returns what is left, zero if it has passed.
    pub(crate) fn left(self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(fieldgate_io::clock::monotonic()))
    }
}

/// Time since a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(u64);

impl Stopwatch {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self(fieldgate_io::clock::monotonic())
    }

    /// Returns the time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        Duration::from_nanos(fieldgate_io::clock::monotonic() - self.0)
    }
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none within [`PATIENCE`]; `look` says what there is instead.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Deadline::after(PATIENCE);
    // What is polled here has no event to wait for: it gives way to the processes that are to bring it about.
    let (_keep, quiet) = mpsc::channel::<()>();
    loop {
        match look() {
            Ok(answer) => return answer,
            Err(instead) => assert!(
                !deadline.left().is_zero(),
                "{what}: not within {PATIENCE:?}; {instead}"
            ),
        }
        let _ = quiet.recv_timeout(BETWEEN);
    }
}

/// Longest wait for anything. A machine that runs other things beside is slow; only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks.
const BETWEEN: Duration = Duration::from_millis(20);
