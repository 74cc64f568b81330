//! The clocks. Nothing else in the workspace reads them; protocol code is told the time.

use std::time::Duration;

use crate::sys;

/// Returns the monotonic clock in nanoseconds since an arbitrary start (`CLOCK_MONOTONIC`).
#[must_use]
pub fn monotonic() -> u64 {
    nanos(sys::clock(libc::CLOCK_MONOTONIC))
}

/// Returns a beginning for libraries that count in [`std::time::Instant`], to which what the other clocks say is added.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place where clocks are read, and there is no other way to one of these"
)]
#[must_use]
pub fn epoch() -> std::time::Instant {
    std::time::Instant::now()
}

/// Returns the time since the machine booted in nanoseconds, with the time it slept (`CLOCK_BOOTTIME`).
#[must_use]
pub fn boottime() -> u64 {
    nanos(sys::clock(libc::CLOCK_BOOTTIME))
}

/// The wall clock at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// Milliseconds since 1970-01-01 UTC; 0 if the clock stands before that.
    pub unix_millis: u64,
    /// Whether the kernel holds the clock for synchronised (`adjtimex(2)`, `STA_UNSYNC`).
    pub synchronised: bool,
}

/// Reads the wall clock and its state of synchronisation. Costs one system call: read it once per turn, not per message.
#[must_use]
pub fn wall() -> WallClock {
    WallClock {
        unix_millis: nanos(sys::clock(libc::CLOCK_REALTIME)) / 1_000_000,
        synchronised: sys::clock_synchronised(),
    }
}

/// Returns the processor time the calling thread has used, in nanoseconds.
#[must_use]
pub fn thread_cpu() -> u64 {
    nanos(sys::clock(libc::CLOCK_THREAD_CPUTIME_ID))
}

/// Returns the processor time all threads of this process have used, in nanoseconds.
#[must_use]
pub fn process_cpu() -> u64 {
    nanos(sys::clock(libc::CLOCK_PROCESS_CPUTIME_ID))
}

/// Converts to the nanoseconds the clocks count in; 584 years are the end.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_never_goes_back() {
        let mut last = monotonic();
        for _ in 0..1000 {
            let now = monotonic();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn boottime_counts_what_monotonic_counts_and_sleep() {
        let monotonic = monotonic();
        assert!(boottime() >= monotonic);
    }

    #[test]
    fn wall_clock_is_later_than_the_first_release() {
        assert!(wall().unix_millis > 1_700_000_000_000);
    }

    #[test]
    fn the_thread_uses_no_more_time_than_the_process() {
        let thread = thread_cpu();
        assert!(thread <= process_cpu());
    }
}
