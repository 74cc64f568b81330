//! `channel`: what the end-to-end channel costs, beside sealing the same bytes without it.

mod aead;

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
pub(crate) struct Case {
    /// What is done with what.
    name: &'static str,
    /// Size of the message; 0 where it has none.
    bytes: usize,
    /// Does it once.
    work: Box<dyn FnMut() -> Result<(), Failure>>,
}

/// What a case took, over the rounds.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    bytes: usize,
    nanoseconds: Spread,
    per_sec: f64,
    gigabytes_per_sec: Option<f64>,
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut cases = aead::cases(&SIZES)?;
    let mut times: Vec<Vec<f64>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds {
        for (case, times) in cases.iter_mut().zip(&mut times) {
            times.push(time(case, options.millis * 1_000_000)?);
        }
    }
    let outcomes: Vec<Outcome> = cases
        .iter()
        .zip(times)
        .filter_map(|(case, times)| Outcome::new(case, times))
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
    (case.work)()?;
    let start = clock::now();
    let mut calls = 0_u64;
    loop {
        // The clock is read once per batch: it costs about as much as sealing a small message.
        for _ in 0..BATCH {
            (case.work)()?;
        }
        calls += BATCH;
        let elapsed = clock::now() - start;
        if elapsed >= nanoseconds {
            return Ok(elapsed as f64 / calls as f64);
        }
    }
}

impl Outcome {
    fn new(case: &Case, times: Vec<f64>) -> Option<Self> {
        let nanoseconds = Spread::of(times)?;
        let gigabytes_per_sec = (case.bytes > 0).then(|| case.bytes as f64 / nanoseconds.median);
        let per_sec = 1e9 / nanoseconds.median;
        Some(Self {
            name: case.name,
            bytes: case.bytes,
            nanoseconds,
            per_sec,
            gigabytes_per_sec,
        })
    }

    fn print(&self) {
        let rate = self
            .gigabytes_per_sec
            .map_or_else(String::new, |rate| format!("{rate:7.2} GB/s"));
        println!(
            "{:<36} {:>6} B  {:>12.0} /s {rate}  ns {}",
            self.name, self.bytes, self.per_sec, self.nanoseconds
        );
    }
}

const SIZES: [usize; 4] = [64, 1024, 16 * 1024, 64 * 1024];
const BATCH: u64 = 16;
