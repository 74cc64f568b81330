//! When to try again: bounded exponential back-off with jitter.

use std::time::Duration;

use crate::{entropy::Entropy, time::Instant};

/// Bounds of a [`Backoff`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffSettings {
    /// Delay after the first failure.
    pub delay_min: Duration,
    /// Delay never exceeded.
    pub delay_max: Duration,
    /// A success that lasted so long makes the next failure the first again.
    pub stable_after: Duration,
}

impl Default for BackoffSettings {
    /// A quarter of a second to a minute; stable after half a minute.
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(250),
            delay_max: Duration::from_secs(60),
            stable_after: Duration::from_secs(30),
        }
    }
}

/// Delays between attempts at something that may fail for long: dialling a link, registering a name.
///
/// The n-th failure in a row waits between half of and the whole of `delay_min` × 2^(n − 1), at most `delay_max`. The
/// jitter keeps a thousand gateways from dialling a restarted relay at once. A success that breaks soon counts on, so
/// that a peer which accepts and closes is not dialled in a tight loop.
#[derive(Clone, Debug)]
pub struct Backoff {
    settings: BackoffSettings,
    failures: u32,
    up_since: Option<Instant>,
}

impl Backoff {
    /// Begins without any failure.
    #[must_use]
    pub const fn new(settings: BackoffSettings) -> Self {
        Self {
            settings,
            failures: 0,
            up_since: None,
        }
    }

    /// Notes that the attempt succeeded at `now`.
    pub const fn handle_success(&mut self, now: Instant) {
        self.up_since = Some(now);
    }

    /// Notes that the attempt failed, or what it reached was lost, and returns when to try again.
    pub fn handle_failure(&mut self, now: Instant, entropy: &mut dyn Entropy) -> Instant {
        if self
            .up_since
            .take()
            .is_some_and(|since| now - since >= self.settings.stable_after)
        {
            self.failures = 0;
        }
        let doublings = self.failures.min(DOUBLINGS_MAX);
        self.failures = self.failures.saturating_add(1);
        let delay = self
            .settings
            .delay_min
            .saturating_mul(1 << doublings)
            .min(self.settings.delay_max);
        let half = delay / 2;
        // A u16 fraction keeps the multiplication within a Duration; 1/65,536 of a minute is a millisecond.
        let jitter = half.saturating_mul(entropy.u32() & 0xffff) / 0xffff;
        now + half + jitter
    }

    /// Returns the failures in a row, for status and logs.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

/// Doublings after which `delay_max` is reached from any sensible `delay_min`; keeps the shift within 32 bits.
const DOUBLINGS_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the same value for ever.
    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn delays(fixed: u8, count: usize) -> Vec<u128> {
        let mut backoff = Backoff::new(BackoffSettings::default());
        let start = Instant::from_nanos(7);
        (0..count)
            .map(|_| (backoff.handle_failure(start, &mut Fixed(fixed)) - start).as_millis())
            .collect()
    }

    #[test]
    fn doubles_up_to_the_limit() {
        let longest = [
            250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000,
        ];
        assert_eq!(delays(0xff, 10), longest);
        assert_eq!(delays(0, 10), longest.map(|millis| millis / 2));
    }

    #[test]
    fn stays_at_the_limit_for_ever() {
        assert_eq!(delays(0xff, 200).last(), Some(&60_000));
    }

    #[test]
    fn begins_again_only_after_a_stable_period() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        let mut now = Instant::START;
        for _ in 0..4 {
            now = backoff.handle_failure(now, &mut Fixed(0xff));
        }
        backoff.handle_success(now);
        let lost = now + Duration::from_secs(29);
        assert_eq!(
            backoff.handle_failure(lost, &mut Fixed(0xff)) - lost,
            Duration::from_secs(4)
        );
        backoff.handle_success(lost);
        let lost = lost + Duration::from_secs(30);
        assert_eq!(
            backoff.handle_failure(lost, &mut Fixed(0xff)) - lost,
            Duration::from_millis(250)
        );
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn a_second_failure_does_not_profit_from_an_earlier_success() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        backoff.handle_success(Instant::START);
        let later = Instant::START + Duration::from_secs(100);
        backoff.handle_failure(later, &mut Fixed(0xff));
        let much_later = later + Duration::from_secs(100);
        assert_eq!(
            backoff.handle_failure(much_later, &mut Fixed(0xff)) - much_later,
            Duration::from_millis(500)
        );
    }
}
