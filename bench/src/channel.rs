//! `channel`: what the end-to-end channel costs, beside sealing the same bytes without it.

mod aead;
mod credential;
mod handshake;
pub(crate) mod identity;
mod record;

use clap::Args;
use serde::Serialize;

use crate::clock;
use crate::failure::Failure;
use crate::spread::Spread;

/// How long is measured.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Rounds; every case runs once in each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Milliseconds of each case and round
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    millis: u64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// One case: an operation on messages of one size.
struct Case {
    /// What is done with what.
    name: &'static str,
    /// Size of the message; 0 where it has none.
    bytes: usize,
    /// The case of the same size that the times are divided by.
    beside: Option<&'static str>,
    /// Does it so many times and returns the nanoseconds that count.
    work: Work,
}

type Work = Box<dyn FnMut(u64) -> Result<u64, Failure>>;

impl Case {
    /// Makes a case all of whose work counts.
    fn new(
        name: &'static str,
        bytes: usize,
        mut once: impl FnMut() -> Result<(), Failure> + 'static,
    ) -> Self {
        let work = move |calls| {
            let start = clock::now();
            for _ in 0..calls {
                once()?;
            }
            Ok(clock::now() - start)
        };
        Self {
            name,
            bytes,
            beside: None,
            work: Box::new(work),
        }
    }

    /// Compares with the case of this name and the same size.
    fn beside(mut self, name: &'static str) -> Self {
        self.beside = Some(name);
        self
    }

    /// Does the work so many times and returns the nanoseconds that count.
    fn run(&mut self, calls: u64) -> Result<u64, Failure> {
        (self.work)(calls)
    }
}

/// What a case took, over the rounds.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    bytes: usize,
    nanoseconds: Spread,
    per_sec: f64,
    gigabytes_per_sec: Option<f64>,
    /// Time divided by that of sealing, or sealing and opening, the same bytes with aws-lc-rs alone.
    ratio_to_plain: Option<Spread>,
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut cases = aead::cases(&SIZES)?;
    cases.extend(record::cases(&SIZES)?);
    cases.extend(handshake::cases()?);
    let mut times: Vec<Vec<f64>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds {
        for (case, times) in cases.iter_mut().zip(&mut times) {
            times.push(time(case, options.millis * 1_000_000)?);
        }
    }
    let outcomes: Vec<Outcome> = (0..cases.len())
        .filter_map(|index| Outcome::new(&cases, &times, index))
        .collect();
    if options.json {
        let json = serde_json::to_string_pretty(&outcomes).map_err(|error| Failure::Format {
            what: "the report".to_owned(),
            problem: error.to_string(),
        })?;
        println!("{json}");
    } else {
        outcomes.iter().for_each(Outcome::print);
    }
    Ok(())
}

/// Returns nanoseconds of one call.
fn time(case: &mut Case, nanoseconds: u64) -> Result<f64, Failure> {
    case.run(1)?;
    let start = clock::now();
    let (mut calls, mut counted) = (0_u64, 0);
    while clock::now() - start < nanoseconds {
        // The clock is read once per batch: it costs about as much as sealing a small message.
        counted += case.run(BATCH)?;
        calls += BATCH;
    }
    Ok(counted as f64 / calls as f64)
}

impl Outcome {
    fn new(cases: &[Case], times: &[Vec<f64>], index: usize) -> Option<Self> {
        let (case, own) = (cases.get(index)?, times.get(index)?);
        let nanoseconds = Spread::of(own.iter().copied())?;
        let beside = case.beside.and_then(|name| {
            let other = cases
                .iter()
                .position(|other| other.name == name && other.bytes == case.bytes)?;
            let other = times.get(other)?;
            // Inside a round both ran within seconds: what the machine did besides hit both.
            Spread::of(own.iter().zip(other).map(|(own, other)| own / other))
        });
        Some(Self {
            name: case.name,
            bytes: case.bytes,
            nanoseconds,
            per_sec: 1e9 / nanoseconds.median,
            gigabytes_per_sec: (case.bytes > 0).then(|| case.bytes as f64 / nanoseconds.median),
            ratio_to_plain: beside,
        })
    }

    fn print(&self) {
        let size = if self.bytes > 0 {
            format!("{} B", self.bytes)
        } else {
            String::new()
        };
        let rate = self
            .gigabytes_per_sec
            .map_or_else(String::new, |rate| format!("{rate:.2} GB/s"));
        let ratio = self
            .ratio_to_plain
            .map_or_else(String::new, |ratio| format!("  × plain {ratio}"));
        let Self {
            name,
            per_sec,
            nanoseconds,
            ..
        } = self;
        println!("{name:<36} {size:>8} {per_sec:>10.0} /s {rate:>11}  ns {nanoseconds}{ratio}");
    }
}

const SIZES: [usize; 4] = [64, 1024, 16 * 1024, 64 * 1024];
const BATCH: u64 = 16;

#[cfg(test)]
mod tests {
    use super::{Case, Outcome};

    #[test]
    fn a_ratio_is_taken_to_the_same_size_inside_each_round() {
        let case = |name, bytes| Case::new(name, bytes, || Ok(()));
        let cases = [
            case("plain", 64),
            case("plain", 1024),
            case("record", 1024).beside("plain"),
        ];
        let times = [vec![1.0; 3], vec![10.0, 20.0, 40.0], vec![20.0, 40.0, 40.0]];
        let outcome = Outcome::new(&cases, &times, 2).unwrap();
        assert!((outcome.ratio_to_plain.unwrap().median - 2.0).abs() < 1e-9);
        assert!((outcome.gigabytes_per_sec.unwrap() - 1024.0 / 40.0).abs() < 1e-9);
        assert!(Outcome::new(&cases, &times, 0).unwrap().ratio_to_plain.is_none());
    }
}
