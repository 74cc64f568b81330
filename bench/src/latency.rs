//! Latencies, recorded in nanoseconds.

use hdrhistogram::Histogram;
use serde::Serialize;

/// A histogram of latencies with three significant digits, up to a minute.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
}

impl Latencies {
    /// Makes an empty histogram.
    pub(crate) fn new() -> Self {
        let histogram =
            Histogram::new_with_bounds(LOWEST, HIGHEST, 3).expect("the bounds are constant and valid");
        Self { histogram }
    }

    /// Records one latency; a longer one than a minute counts as a minute.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.histogram.saturating_record(nanoseconds);
    }

    /// Returns what a reader wants of it; `None` when nothing was recorded.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let microseconds = |quantile: f64| self.histogram.value_at_quantile(quantile) as f64 / 1000.0;
        (!self.histogram.is_empty()).then(|| Summary {
            count: self.histogram.len(),
            p50_us: microseconds(0.5),
            p90_us: microseconds(0.9),
            p99_us: microseconds(0.99),
            max_us: self.histogram.max() as f64 / 1000.0,
        })
    }
}

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Summary {
    /// How many were recorded.
    pub(crate) count: u64,
    /// Half were shorter.
    pub(crate) p50_us: f64,
    /// Nine of ten were shorter.
    pub(crate) p90_us: f64,
    /// All but one of a hundred were shorter.
    pub(crate) p99_us: f64,
    /// The longest.
    pub(crate) max_us: f64,
}

/// One microsecond: shorter ones are noise of the clock.
const LOWEST: u64 = 1_000;
/// One minute.
const HIGHEST: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::Latencies;

    #[test]
    fn quantiles_are_in_microseconds() {
        let mut latencies = Latencies::new();
        assert!(latencies.summary().is_none());
        for value in 1..=100 {
            latencies.record(value * 1_000_000);
        }
        let summary = latencies.summary().unwrap();
        assert_eq!(summary.count, 100);
        assert!((summary.p50_us - 50_000.0).abs() < 100.0);
        assert!((summary.p99_us - 99_000.0).abs() < 200.0);
    }
}
