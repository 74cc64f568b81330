//! The clock of all measurements.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns nanoseconds of the monotonic clock; the same clock in every process of this machine.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Lets time pass for a process that offers no event to wait on.
#[expect(
    clippy::disallowed_methods,
    reason = "a foreign process under measurement offers no event to wait on"
)]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// The measured part of a run: latencies of messages outside of it are not recorded.
#[derive(Debug)]
pub(crate) struct Window {
    start: AtomicU64,
    end: AtomicU64,
}

impl Window {
    /// Makes a window that has not begun.
    pub(crate) const fn new() -> Self {
        Self {
            start: AtomicU64::new(u64::MAX),
            end: AtomicU64::new(u64::MAX),
        }
    }

    /// Begins at `now`.
    pub(crate) fn open(&self, now: u64) {
        self.start.store(now, Ordering::Relaxed);
    }

    /// Ends at `now`.
    pub(crate) fn close(&self, now: u64) {
        self.end.store(now, Ordering::Relaxed);
    }

    /// Returns whether something that began at `time` belongs to the measurement.
    pub(crate) fn contains(&self, time: u64) -> bool {
        self.start.load(Ordering::Relaxed) <= time && time < self.end.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn a_window_holds_what_began_between_its_ends() {
        let window = Window::new();
        assert!(!window.contains(5));
        window.open(10);
        assert!(!window.contains(9));
        assert!(window.contains(10));
        window.close(20);
        assert!(window.contains(19));
        assert!(!window.contains(20));
    }
}
