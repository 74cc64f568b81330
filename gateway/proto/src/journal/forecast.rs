//! When a lane will be full, and how much it writes.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::time::Duration;

use crate::time::Instant;

/// Rates smoothed over time: what happened `MEMORY` ago counts a third of what happens now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Forecast {
    last: Option<Sample>,
    /// Growth of what the lane holds, in thousandths of a byte per second; negative while it drains.
    fill: Option<i128>,
    /// What the disk is given, in the same unit.
    write: Option<i128>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    held: u64,
    written: u64,
}

impl Forecast {
    /// Takes note of what the lane holds and has given to the disk.
    pub(super) fn observe(&mut self, now: Instant, held: u64, written: u64) {
        if self.is_due(now) {
            *self = self.with(now, held, written);
        }
    }

    /// Returns whether enough time has passed for another observation.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.last
            .is_none_or(|last| now.saturating_since(last.at) >= SAMPLE_INTERVAL)
    }

    /// Returns the forecast with what happened up to `now`.
    pub(super) fn with(&self, now: Instant, held: u64, written: u64) -> Self {
        let sample = Sample {
            at: now,
            held,
            written,
        };
        let Some(last) = self.last else {
            return Self {
                last: Some(sample),
                ..*self
            };
        };
        let millis = i128::try_from(now.saturating_since(last.at).as_millis()).unwrap_or(i128::MAX);
        if millis == 0 {
            return *self;
        }
        let rate = |from: u64, to: u64| {
            i128::from(to)
                .saturating_sub(i128::from(from))
                .saturating_mul(1_000_000)
                .checked_div(millis)
                .unwrap_or(0)
        };
        let smooth = |before: Option<i128>, rate: i128| match before {
            None => rate,
            Some(before) => {
                let step = rate.saturating_sub(before).saturating_mul(millis);
                let step = step
                    .checked_div(millis.saturating_add(MEMORY_MILLIS))
                    .unwrap_or(0);
                before.saturating_add(step)
            }
        };
        Self {
            last: Some(sample),
            fill: Some(smooth(self.fill, rate(last.held, held))),
            write: Some(smooth(self.write, rate(last.written, written))),
        }
    }

    /// Returns in how long `left` bytes are used up, or `None` while the lane does not grow, or so little that it takes more
    /// than a hundred years.
    pub(super) fn full_in(&self, left: u64) -> Option<Duration> {
        let fill = self.fill.filter(|fill| *fill > 0)?;
        let secs = i128::from(left).saturating_mul(1000).checked_div(fill)?;
        let secs = u64::try_from(secs).ok().filter(|secs| *secs < CENTURY_SECS)?;
        Some(Duration::from_secs(secs))
    }

    /// Returns how many bytes the disk is given per day.
    pub(super) fn written_per_day(&self) -> Option<u64> {
        let bytes = self.write?.saturating_mul(86_400).checked_div(1000)?;
        u64::try_from(bytes.max(0)).ok()
    }
}

/// Least time between two observations.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
const MEMORY_MILLIS: i128 = 15 * 60 * 1000;
const CENTURY_SECS: u64 = 100 * 365 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::START + Duration::from_secs(secs)
    }

    #[test]
    fn steady_growth_is_foretold_and_draining_is_not() {
        let mut forecast = Forecast::default();
        for secs in (0..3600).step_by(10) {
            forecast.observe(at(secs), secs * 100, secs * 200);
        }
        let full_in = forecast.full_in(360_000).unwrap().as_secs();
        assert_eq!(full_in, 3600, "360,000 bytes at 100 bytes a second");
        assert_eq!(forecast.written_per_day(), Some(200 * 86_400));
        for secs in (3600..7200).step_by(10) {
            forecast.observe(at(secs), 360_000 - (secs - 3600) * 100, 720_000);
        }
        assert_eq!(forecast.full_in(360_000), None);
    }

    #[test]
    fn a_burst_does_not_change_everything_and_lasting_change_does() {
        let mut forecast = Forecast::default();
        let mut held = 0;
        for step in 0..360 {
            held += 1000;
            forecast.observe(at(step * 10), held, held);
        }
        held += 100_000;
        forecast.observe(at(3600), held, held);
        let after_burst = forecast.full_in(1_000_000).unwrap().as_secs();
        assert!((4_000..10_000).contains(&after_burst), "{after_burst}");
        for step in 1..720 {
            held += 10_000;
            forecast.observe(at(3600 + step * 10), held, held);
        }
        let later = forecast.full_in(1_000_000).unwrap().as_secs();
        assert!((1_000..1_010).contains(&later), "{later}");
    }

    #[test]
    fn nothing_is_said_before_there_is_something_to_say() {
        let mut forecast = Forecast::default();
        assert_eq!(forecast.full_in(1), None);
        forecast.observe(at(0), 10, 10);
        assert_eq!((forecast.full_in(1), forecast.written_per_day()), (None, None));
        forecast.observe(at(5), 1_000_000, 1_000_000);
        assert_eq!(forecast.full_in(1), None, "too soon");
        assert!(forecast.with(at(10), 1_000, 1_000).full_in(1).is_some());
        forecast.observe(at(100), u64::MAX, u64::MAX);
        assert_eq!(forecast.full_in(u64::MAX).map(|time| time.as_secs()), Some(100));
        forecast.observe(at(200), 0, 0);
        assert!(forecast.full_in(u64::MAX) > Some(Duration::from_secs(100)));
    }
}
