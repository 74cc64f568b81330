//! How many refusals strangers can write into the log.

use std::time::Duration;

use fieldgate_proto::time::Instant;

/// Entries that may come at once.
const BURST: u32 = 1000;
/// How long it takes for one more.
const EVERY: Duration = Duration::from_secs(10);

/// A bucket of log entries. Whoever reaches the authority can have itself refused as often as it likes; the log must not
/// grow with it. What is not written is counted, and the count is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    tokens: u32,
    /// Up to when the bucket was filled.
    filled: Instant,
    /// Not written since the last entry that says so.
    waiting: u64,
    suppressed: u64,
}

impl Budget {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            filled: now,
            waiting: 0,
            suppressed: 0,
        }
    }

    /// Returns the bucket as it is at `now`.
    pub(super) fn refilled(mut self, now: Instant) -> Self {
        let passed = now.saturating_since(self.filled);
        let tokens = passed.as_secs() / EVERY.as_secs();
        let missing = u64::from(BURST - self.tokens);
        if tokens >= missing {
            self.tokens = BURST;
            self.filled = now;
        } else {
            // Below `missing`, which came from a `u32`.
            self.tokens += u32::try_from(tokens).unwrap_or(BURST);
            self.filled = self.filled + Duration::from_secs(tokens * EVERY.as_secs());
        }
        self
    }

    /// Takes one entry out; `false` if there is none, which is counted.
    pub(super) const fn take(&mut self) -> bool {
        if self.tokens == 0 {
            self.waiting += 1;
            self.suppressed += 1;
            return false;
        }
        self.tokens -= 1;
        true
    }

    /// Returns how many were not written since this was asked last.
    pub(super) const fn take_waiting(&mut self) -> u64 {
        let waiting = self.waiting;
        self.waiting = 0;
        waiting
    }

    /// Returns how many were not written since the start.
    pub(super) const fn suppressed(&self) -> u64 {
        self.suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_empty_after_a_burst_and_fills_up_slowly() {
        let mut budget = Budget::new(Instant::START);
        assert_eq!((0..2000).filter(|_| budget.take()).count(), 1000);
        assert_eq!(budget.suppressed(), 1000);
        assert_eq!(budget.take_waiting(), 1000);
        assert_eq!(budget.take_waiting(), 0);
        let mut later = budget.refilled(Instant::START + Duration::from_secs(25));
        assert_eq!((0..10).filter(|_| later.take()).count(), 2);
        // The five seconds over are not lost.
        let mut later = later.refilled(Instant::START + Duration::from_secs(30));
        assert_eq!((0..10).filter(|_| later.take()).count(), 1);
        let mut later = later.refilled(Instant::START + Duration::from_secs(1_000_000));
        assert_eq!((0..2000).filter(|_| later.take()).count(), 1000);
    }
}
