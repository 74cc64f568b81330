//! Figures of all rounds, and ratios inside each.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Measured, Options, System};
use crate::failure::Failure;
use crate::spread::Spread;

/// Everything measured in one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    streams: u16,
    io: String,
    /// Of the wire; `None` without one.
    round_trip_ms: Option<u32>,
    loss_percent: f64,
    mbit: u32,
    ratios: Vec<Ratio>,
    measured: Vec<Measured>,
}

/// The rate of one system by another's of the same round.
#[derive(Debug, Serialize)]
struct Ratio {
    load: &'static str,
    system: System,
    by: System,
    rate: Spread,
}

impl Report {
    /// Takes the ratios inside each round.
    pub(crate) fn new(options: &Options, measured: Vec<Measured>) -> Self {
        Self {
            streams: options.streams,
            io: options.io.clone(),
            round_trip_ms: options.round_trip_ms,
            loss_percent: options.loss_percent,
            mbit: options.mbit,
            ratios: ratios(&measured),
            measured,
        }
    }

    /// Returns the report as one JSON object.
    pub(crate) fn json(&self) -> Result<String, Failure> {
        serde_json::to_string_pretty(self).map_err(|error| Failure::Format {
            what: "the report".to_owned(),
            problem: error.to_string(),
        })
    }

    /// Returns the report as a table: medians over the rounds, with the lowest and highest.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{} streams at once, io {}; median [lowest..highest] over the rounds\n",
            self.streams, self.io
        );
        if let Some(round_trip) = self.round_trip_ms {
            let _ = writeln!(
                text,
                "a wire of {} Mbit/s, {round_trip} ms there and back, {} % lost each way",
                self.mbit, self.loss_percent
            );
        }
        for figure in FIGURES {
            let mut is_first = true;
            for system in System::ALL {
                let of_system = self.measured.iter().filter(|one| one.system == system);
                let Some(spread) = Spread::of(of_system.filter_map(figure.read)) else {
                    continue;
                };
                if std::mem::take(&mut is_first) {
                    let _ = writeln!(text, "\n{}", figure.name);
                }
                let _ = writeln!(text, "  {:<20} {spread}", system.name());
            }
        }
        for ratios in self
            .ratios
            .chunk_by(|one, next| (one.load, one.by) == (next.load, next.by))
        {
            for (index, ratio) in ratios.iter().enumerate() {
                if index == 0 {
                    let (load, by) = (ratio.load, ratio.by.name());
                    let _ = writeln!(text, "\n{load} by that of {by} in the same round");
                }
                let _ = writeln!(text, "  {:<20} {}", ratio.system.name(), ratio.rate);
            }
        }
        text
    }
}

fn ratios(measured: &[Measured]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for (load, rate) in LOADS {
        for by in [System::Loopback, System::Stunnel, System::Hops] {
            for system in System::ALL.into_iter().filter(|system| *system != by) {
                let quotients = measured
                    .iter()
                    .filter(|one| one.system == system)
                    .filter_map(|one| {
                        let other = measured
                            .iter()
                            .find(|other| other.system == by && other.round == one.round)?;
                        Some(rate(one)? / rate(other)?)
                    });
                if let Some(rate) = Spread::of(quotients) {
                    ratios.push(Ratio {
                        load,
                        system,
                        by,
                        rate,
                    });
                }
            }
        }
    }
    ratios
}

/// How fast a system was with a load.
type Rate = fn(&Measured) -> Option<f64>;

/// What is compared in ratios.
const LOADS: [(&str, Rate); 2] = [
    ("bulk", |one| one.gbit_per_sec),
    ("iperf3", |one| one.iperf3_gbit_per_sec),
];

/// A figure of a system in a round.
struct Figure {
    name: &'static str,
    read: fn(&Measured) -> Option<f64>,
}

const FIGURES: [Figure; 10] = [
    Figure {
        name: "bulk Mbit/s",
        read: |one| one.gbit_per_sec.map(|rate| rate * 1e3),
    },
    Figure {
        name: "CPU of the tunnel, s/GB",
        read: |one| one.cpu_secs_per_gb.filter(|_| one.system != System::Loopback),
    },
    Figure {
        name: "iperf3 Mbit/s",
        read: |one| one.iperf3_gbit_per_sec.map(|rate| rate * 1e3),
    },
    Figure {
        name: "64 bytes there and back, p50 µs",
        read: |one| Some(one.ping?.p50_us),
    },
    Figure {
        name: "64 bytes there and back, p99 µs",
        read: |one| Some(one.ping?.p99_us),
    },
    Figure {
        name: "connections/s, each used for a byte",
        read: |one| one.connects_per_sec,
    },
    Figure {
        name: "many streams at once: ms until all have carried a message",
        read: |one| one.many_opened_ms,
    },
    Figure {
        name: "many streams at once: messages there and back per second",
        read: |one| one.many_trips_per_sec,
    },
    Figure {
        name: "PSS of the tunnel with many streams, MiB",
        read: |one| mebibytes(one, one.many_pss_kib),
    },
    Figure {
        name: "highest resident set until then, MiB",
        read: |one| mebibytes(one, one.peak_rss_kib),
    },
];

fn mebibytes(one: &Measured, kib: Option<u64>) -> Option<f64> {
    kib.filter(|_| one.system != System::Loopback)
        .map(|kib| kib as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::super::{Measured, System};
    use super::ratios;

    #[test]
    fn ratios_are_taken_inside_a_round() {
        let one = |system, round, gbit_per_sec| Measured {
            system,
            round,
            gbit_per_sec: Some(gbit_per_sec),
            cpu_secs_per_gb: None,
            iperf3_gbit_per_sec: None,
            ping: None,
            connects_per_sec: None,
            many_opened_ms: None,
            many_trips_per_sec: None,
            many_pss_kib: None,
            peak_rss_kib: None,
        };
        let measured = [
            one(System::Loopback, 0, 10.0),
            one(System::Relay, 0, 5.0),
            one(System::Loopback, 1, 4.0),
            one(System::Relay, 1, 1.0),
            // No loopback in its round.
            one(System::Relay, 2, 9.0),
        ];
        let ratios = ratios(&measured);
        assert_eq!(ratios.len(), 1);
        assert_eq!(
            (ratios[0].system, ratios[0].by),
            (System::Relay, System::Loopback)
        );
        assert_eq!((ratios[0].rate.lowest, ratios[0].rate.highest), (0.25, 0.5));
    }
}
