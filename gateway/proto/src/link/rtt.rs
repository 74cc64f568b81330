//! The round trip to a neighbour, smoothed (RFC 6298 §2).

use std::time::Duration;

/// Smoothed round-trip time, its variation, and the smallest seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    smallest: Option<Duration>,
    latest: Option<Duration>,
}

impl RoundTrip {
    /// Takes one measurement.
    pub fn record(&mut self, sample: Duration) {
        self.latest = Some(sample);
        self.smallest = Some(self.smallest.map_or(sample, |smallest| smallest.min(sample)));
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.variation = sample / 2;
            return;
        };
        // RFC 6298 §2.3: the variation first, from the smoothed value of before; beta = 1/4, alpha = 1/8.
        self.variation = self.variation.saturating_mul(3) / 4 + smoothed.abs_diff(sample) / 4;
        self.smoothed = Some(smoothed.saturating_mul(7) / 8 + sample / 8);
    }

    /// Returns the smoothed round-trip time (SRTT), `None` before the first measurement.
    #[must_use]
    pub const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Returns the variation (RTTVAR).
    #[must_use]
    pub const fn variation(&self) -> Duration {
        self.variation
    }

    /// Returns the smallest measurement.
    #[must_use]
    pub const fn smallest(&self) -> Option<Duration> {
        self.smallest
    }

    /// Returns the latest measurement.
    #[must_use]
    pub const fn latest(&self) -> Option<Duration> {
        self.latest
    }

    /// Returns how long to wait for an answer before taking it for lost: SRTT + 4 × RTTVAR.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.smoothed
            .map(|smoothed| smoothed.saturating_add(self.variation.saturating_mul(4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smooths_as_rfc_6298_says() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.timeout(), None);
        round_trip.record(Duration::from_millis(80));
        assert_eq!(round_trip.smoothed(), Some(Duration::from_millis(80)));
        assert_eq!(round_trip.variation(), Duration::from_millis(40));
        assert_eq!(round_trip.timeout(), Some(Duration::from_millis(240)));
        round_trip.record(Duration::from_millis(160));
        // 3/4 × 40 + 1/4 × |80 − 160| = 50; 7/8 × 80 + 1/8 × 160 = 90.
        assert_eq!(round_trip.variation(), Duration::from_millis(50));
        assert_eq!(round_trip.smoothed(), Some(Duration::from_millis(90)));
        assert_eq!(round_trip.smallest(), Some(Duration::from_millis(80)));
        assert_eq!(round_trip.latest(), Some(Duration::from_millis(160)));
    }

    #[test]
    fn bears_the_longest_durations() {
        let mut round_trip = RoundTrip::default();
        for _ in 0..3 {
            round_trip.record(Duration::MAX);
            let _ = round_trip.timeout();
        }
    }
}
