//! The journal against a disk that loses power, fills up, fails, rots and forgets, with clocks that jump and collectors that
//! come and go: whatever was promised is delivered, or in exactly one gap that is told.
//!
//! Each seed is a gateway of its own, with several lives. `FIELDGATE_CUTS` says how many power cuts are tried in all;
//! `FIELDGATE_CUTS_SEED` plays one seed and tells its story.

mod collector;
mod dice;
mod files;
mod plan;
mod promises;
mod world;

use std::{
    env,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use world::{Tally, World};

/// Plays one seed to its end.
fn play(seed: u64, is_told: bool) -> Result<Tally, String> {
    let played = catch_unwind(AssertUnwindSafe(|| World::new(seed, is_told).run()));
    played.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("seed {seed}: {}", text.unwrap_or("?"))
    })
}

/// Plays some seeds on all processors; returns their sums and the stories of those that failed.
fn play_round(seeds: Range<u64>) -> (Tally, Vec<String>) {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let (mut sum, mut failures) = (Tally::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return (sum, failures);
            }
            match play(seed, false) {
                Ok(tally) => sum.add(&tally),
                Err(failure) => failures.push(failure),
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (mut total, mut failures) = (Tally::default(), Vec::new());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let (sum, failed) = worker.join().expect("a seed's panic is caught");
            total.add(&sum);
            failures.extend(failed);
        }
    });
    (total, failures)
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, not a number")),
    )
}

#[test]
fn nothing_promised_is_lost_whenever_the_power_goes() {
    if let Some(seed) = number("FIELDGATE_CUTS_SEED") {
        let tally = play(seed, true).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{tally:#?}");
        return;
    }
    let wanted = number("FIELDGATE_CUTS").unwrap_or(POWER_CUTS);
    let (mut total, mut failures) = (Tally::default(), Vec::new());
    let mut seeds = 0;
    // Whole rounds, so that the same seeds are played however many processors there are.
    while total.power_cuts < wanted && failures.len() < FAILURES_MAX {
        let (sum, failed) = play_round(seeds..seeds + SEEDS_PER_ROUND);
        seeds += SEEDS_PER_ROUND;
        total.add(&sum);
        failures.extend(failed);
    }
    assert!(
        failures.is_empty(),
        "FIELDGATE_CUTS_SEED=n tells the story of seed n\n{}",
        failures.join("\n")
    );
    println!("{seeds} seeds: {total:#?}");
    if wanted >= POWER_CUTS {
        total.everything_happened();
    }
}

#[test]
fn a_seed_does_the_same_every_time() {
    for seed in 1..=3 {
        assert_eq!(play(seed, false).unwrap(), play(seed, false).unwrap());
    }
}

/// Power cuts tried unless asked for another number.
const POWER_CUTS: u64 = 1_500;
/// Seeds played before the power cuts are counted.
const SEEDS_PER_ROUND: u64 = 64;
/// Seeds that may fail before no others are tried.
const FAILURES_MAX: usize = 5;
