//! What is printed of deaths, and whether the aim was met.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Death, Outcome};
use crate::failure::Failure;

/// All phases.
#[derive(Serialize)]
pub(super) struct Report {
    phases: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    outcome: Outcome,
    pause: Option<Quantiles>,
    starved: Option<Quantiles>,
    moved: Option<Quantiles>,
}

/// Of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Quantiles {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Quantiles {
    /// Nearest rank: of fifty the p99 is the highest.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100);
            values.get(rank.saturating_sub(1)).copied()
        };
        Some(Self {
            p50: rank(50)?,
            p90: rank(90)?,
            p99: rank(99)?,
            max: rank(100)?,
        })
    }
}

impl Report {
    pub(super) fn new(outcomes: Vec<Outcome>) -> Self {
        let lines = outcomes.into_iter().map(|outcome| {
            let of = |value: fn(&Death) -> f64| Quantiles::of(outcome.deaths.iter().map(value));
            Line {
                pause: of(|death| death.pause_ms),
                starved: of(|death| death.starved_ms),
                moved: of(|death| death.moved_ms),
                outcome,
            }
        });
        Self {
            phases: lines.collect(),
        }
    }

    pub(super) fn json(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| Failure::Format {
            what: "the report".to_owned(),
            problem: error.to_string(),
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = "pauses in ms: the longest time without a byte around each death; starved: how late a thread with nothing to do \
                        was woken in it\n"
            .to_owned();
        for Line {
            outcome,
            pause,
            starved,
            ..
        } in &self.phases
        {
            let _ = write!(
                text,
                "{:<22} {:>3} deaths, {:>5.1} MB/s, ",
                outcome.phase.name(),
                outcome.deaths.len(),
                outcome.bytes as f64 / 1e6 / outcome.seconds.max(1e-9)
            );
            if let Some(pause) = pause {
                let Quantiles { p50, p90, p99, max } = pause;
                let _ = write!(
                    text,
                    "pause p50 {p50:.0} p90 {p90:.0} p99 {p99:.0} max {max:.0}, before the first {:.0}",
                    outcome.pause_before_ms
                );
            }
            if let Some(starved) = starved {
                let _ = write!(text, ", starved p50 {:.0} max {:.0}", starved.p50, starved.max);
            }
            let verdict = if outcome.broken.is_empty() {
                ", nothing broken"
            } else {
                ", BROKEN"
            };
            text.push_str(verdict);
            text.push('\n');
            for broken in &outcome.broken {
                let _ = writeln!(text, "  {broken}");
            }
        }
        text
    }

    /// Fails if something broke or took too long.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let mut problems = Vec::new();
        for Line { outcome, pause, .. } in &self.phases {
            let name = outcome.phase.name();
            problems.extend(outcome.broken.iter().map(|broken| format!("{name}: {broken}")));
            if let Some(pause) = pause.filter(|pause| pause.p99 > PAUSE_MAX_MS) {
                problems.push(format!(
                    "{name}: the pause's p99 is {:.0} ms, and should be {PAUSE_MAX_MS:.0} at the most",
                    pause.p99
                ));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Failure::Missed {
            problem: problems.join("; "),
        })
    }
}

/// Highest p99 of the pauses.
const PAUSE_MAX_MS: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use super::super::{Death, Outcome, Phase};
    use super::{Quantiles, Report};

    fn outcome(pauses: &[f64]) -> Outcome {
        let death = |pause_ms: &f64| Death {
            pause_ms: *pause_ms,
            pause_after_ms: 0.0,
            starved_ms: 1.0,
            moved_ms: 2.0,
        };
        Outcome {
            phase: Phase::RsyncPull,
            deaths: pauses.iter().map(death).collect(),
            pause_before_ms: 3.0,
            bytes: 1,
            seconds: 1.0,
            sessions_lost: 0,
            broken: Vec::new(),
        }
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let all = Quantiles::of((1..=50).map(f64::from)).unwrap();
        assert_eq!((all.p50, all.p90, all.p99, all.max), (25.0, 45.0, 50.0, 50.0));
        let all = Quantiles::of((1..=200).map(f64::from)).unwrap();
        assert_eq!((all.p99, all.max), (198.0, 200.0));
        assert_eq!(Quantiles::of(std::iter::empty()), None);
    }

    #[test]
    fn a_long_pause_and_a_broken_stream_miss_the_aim() {
        assert!(Report::new(vec![outcome(&[1000.0; 50])]).verdict().is_ok());
        let mut pauses = [10.0; 50];
        pauses[7] = 1001.0;
        let failure = Report::new(vec![outcome(&pauses)]).verdict().unwrap_err();
        assert!(failure.to_string().contains("1001 ms"), "{failure}");
        let mut broken = outcome(&[1.0]);
        broken.broken.push("copy 3 has another SHA-256".to_owned());
        let report = Report::new(vec![broken]);
        assert!(report.verdict().is_err());
        assert!(report.text().contains("copy 3"));
    }
}
