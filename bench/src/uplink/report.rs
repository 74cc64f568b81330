//! Figures of all rounds, and ratios inside each.

use std::fmt::Write as _;

use serde::Serialize;

use super::measure::{Measurement, Pace};
use super::{Kind, Options};
use crate::failure::Failure;
use crate::spread::Spread;

/// Everything measured in one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    clients: u32,
    window: u16,
    payload_bytes: u32,
    io: String,
    ratios: Vec<Ratio>,
    measurements: Vec<Measurement>,
}

/// One system beside the bridge, over the rounds that hold both.
#[derive(Debug, Serialize)]
struct Ratio {
    kind: Kind,
    pace: Pace,
    /// Which figure.
    figure: &'static str,
    /// Of the system, divided by the bridge's of the same round.
    to_bridge: Spread,
}

impl Report {
    /// Takes the ratios inside each round.
    pub(crate) fn new(options: &Options, measurements: Vec<Measurement>) -> Self {
        let ratios = ratios(&measurements);
        Self {
            clients: options.clients,
            window: options.window,
            payload_bytes: options.payload_bytes,
            io: options.io.clone(),
            ratios,
            measurements,
        }
    }

    /// Returns the report as one JSON object.
    pub(crate) fn json(&self) -> Result<String, Failure> {
        serde_json::to_string_pretty(self).map_err(|error| Failure::Format {
            what: "the report".to_owned(),
            problem: error.to_string(),
        })
    }

    /// Returns the report as tables: medians over the rounds, with the lowest and highest.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{} clients, window {}, {} bytes, QoS 1, io {}; median [lowest..highest] over the rounds\n",
            self.clients, self.window, self.payload_bytes, self.io
        );
        for (pace, kind) in groups(&self.measurements) {
            let _ = writeln!(text, "\n{kind:?}, {pace}");
            let group = of(&self.measurements, pace, kind);
            for figure in FIGURES {
                if let Some(spread) = Spread::of(group.iter().filter_map(|one| (figure.read)(one))) {
                    let _ = writeln!(text, "  {:<34} {spread}", figure.name);
                }
            }
            for (index, process) in group
                .first()
                .iter()
                .flat_map(|one| one.processes.iter().enumerate())
            {
                let costs = group.iter().filter_map(|one| one.processes.get(index));
                let cpu = Spread::of(costs.clone().map(|cost| cost.cpu_us_per_reading));
                let pss = Spread::of(costs.map(|cost| cost.pss_kib as f64 / 1024.0));
                if let (Some(cpu), Some(pss)) = (cpu, pss) {
                    let _ = writeln!(
                        text,
                        "    {:<12} CPU µs/reading {cpu}; PSS MiB {pss}",
                        process.name
                    );
                }
            }
        }
        if !self.ratios.is_empty() {
            text.push_str("\nratio to the bridge of the same round\n");
        }
        for ratio in &self.ratios {
            let what = format!("{:?}, {}: {}", ratio.kind, ratio.pace, ratio.figure);
            let _ = writeln!(text, "  {what:<58} {}", ratio.to_bridge);
        }
        text
    }
}

fn groups(measurements: &[Measurement]) -> Vec<(Pace, Kind)> {
    let mut groups = Vec::new();
    for one in measurements {
        if !groups.contains(&(one.pace, one.kind)) {
            groups.push((one.pace, one.kind));
        }
    }
    // Systems of one load stand together, in the order of the enum.
    groups.sort_by_key(|(pace, kind)| (*pace != Pace::Saturated, *kind));
    groups
}

fn of(measurements: &[Measurement], pace: Pace, kind: Kind) -> Vec<&Measurement> {
    measurements
        .iter()
        .filter(|one| one.pace == pace && one.kind == kind)
        .collect()
}

fn ratios(measurements: &[Measurement]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for (pace, kind) in groups(measurements) {
        if kind == Kind::Bridge {
            continue;
        }
        let bridges = of(measurements, pace, Kind::Bridge);
        for figure in FIGURES.iter().filter(|figure| figure.compared) {
            let quotients = of(measurements, pace, kind).into_iter().filter_map(|one| {
                let bridge = bridges.iter().find(|bridge| bridge.round == one.round)?;
                let (ours, theirs) = ((figure.read)(one)?, (figure.read)(bridge)?);
                (theirs > 0.0).then_some(ours / theirs)
            });
            if let Some(to_bridge) = Spread::of(quotients) {
                ratios.push(Ratio {
                    kind,
                    pace,
                    figure: figure.name,
                    to_bridge,
                });
            }
        }
    }
    ratios
}

/// A figure of a measurement.
struct Figure {
    name: &'static str,
    /// Whether a ratio to the bridge is of interest.
    compared: bool,
    read: fn(&Measurement) -> Option<f64>,
}

const FIGURES: [Figure; 12] = [
    Figure {
        name: "delivered readings/s",
        compared: true,
        read: |one| Some(one.delivered_per_sec),
    },
    Figure {
        name: "acknowledged readings/s",
        compared: false,
        read: |one| Some(one.acknowledged_per_sec),
    },
    Figure {
        name: "CPU µs/reading",
        compared: true,
        read: |one| Some(one.cpu_us_per_reading),
    },
    Figure {
        name: "system calls/reading",
        compared: true,
        read: |one| one.syscalls.map(|count| count.per_reading),
    },
    Figure {
        name: "PUBLISH to PUBACK, p50 µs",
        compared: true,
        read: |one| one.acknowledgement.map(|summary| summary.p50_us),
    },
    Figure {
        name: "PUBLISH to PUBACK, p99 µs",
        compared: true,
        read: |one| one.acknowledgement.map(|summary| summary.p99_us),
    },
    Figure {
        name: "PUBLISH to far end, p50 µs",
        compared: true,
        read: |one| one.end_to_end.map(|summary| summary.p50_us),
    },
    Figure {
        name: "PUBLISH to far end, p99 µs",
        compared: true,
        read: |one| one.end_to_end.map(|summary| summary.p99_us),
    },
    Figure {
        name: "peak RSS MiB",
        compared: true,
        read: |one| Some(one.peak_rss_kib as f64 / 1024.0),
    },
    Figure {
        name: "PSS MiB",
        compared: true,
        read: |one| Some(one.pss_kib as f64 / 1024.0),
    },
    Figure {
        name: "acknowledged but missing",
        compared: false,
        read: |one| Some(one.missing as f64),
    },
    Figure {
        name: "load generator CPU µs/publish",
        compared: false,
        read: |one| Some(one.generator_us_per_publish),
    },
];
