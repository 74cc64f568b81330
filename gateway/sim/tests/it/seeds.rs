//! Many seeds, each with a network and faults of its own.
//!
//! `FIELDGATE_SIM_SEED` plays one and tells its story; `FIELDGATE_SIM_SEEDS` says how many are played, `FIELDGATE_SIM_FROM` from which
//! on. Whoever asks for more than a thousand is shown how far it is.

use std::{
    collections::BTreeSet,
    env,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use fieldgate_sim::{Report, Scenario, Trace, Verb, run};

/// Plays a seed; a panic of a machine counts as a failure like any other.
pub(crate) fn play(scenario: &Scenario, tell: Option<&mut dyn FnMut(String)>) -> Result<Report, String> {
    let mut trace = tell.map_or_else(Trace::off, Trace::to);
    let played = catch_unwind(AssertUnwindSafe(|| run(scenario, &mut trace)));
    match played {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(violation)) => Err(format!("{violation}; {}", violation.hint())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let (seed, draw) = (scenario.seed, scenario.draw.name());
            Err(format!("seed {seed} of {draw}: panic: {}", text.unwrap_or("?")))
        }
    }
}

/// Plays a seed that failed once more, and returns the end of its story.
fn story(scenario: &Scenario) -> String {
    let mut lines = Vec::new();
    let _ = play(scenario, Some(&mut |line| lines.push(line)));
    let from = lines.len().saturating_sub(STORY_LINES);
    lines.split_off(from).join("\n")
}

/// Plays all `seeds` on every processor, and returns the sum of the reports.
fn play_all(seeds: &[u64], draw: fn(u64) -> Scenario) -> Report {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let mut sum = Report::default();
        let mut failures = Vec::new();
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            match play(&draw(*seed), None) {
                Ok(report) => sum.add(&report),
                Err(failure) => {
                    show(&failure);
                    failures.push((*seed, failure));
                }
            }
            let played = done.fetch_add(1, Ordering::Relaxed) + 1;
            if seeds.len() >= SHOWN_FROM && played.is_multiple_of(SHOWN_EVERY) {
                show(&format!("{played} of {} seeds", seeds.len()));
            }
        }
        (sum, failures)
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a seed's panic is caught"))
            .collect()
    });
    let mut total = Report::default();
    let mut failures = Vec::new();
    for (sum, failed) in results {
        total.add(&sum);
        failures.extend(failed);
    }
    failures.sort();
    if let Some((seed, _)) = failures.first() {
        let all: Vec<&str> = failures.iter().map(|(_, failure)| failure.as_str()).collect();
        panic!(
            "{} of {} seeds failed:\n{}\n\nthe end of the story of seed {seed}:\n{}",
            failures.len(),
            seeds.len(),
            all.join("\n"),
            story(&draw(*seed))
        );
    }
    total
}

/// Says something while seeds are played. Past the test's captured output, for whoever waits wants it now.
fn show(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, not a number")),
    )
}

/// Returns the seeds of a list.
fn listed(list: &str) -> Vec<u64> {
    list.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .map(|seed| {
            seed.parse()
                .expect("a line of a list of seeds begins with a number")
        })
        .collect()
}

/// Plays the seeds that are asked for, or those that are kept and the first `count` others; returns the sum of the reports, if it
/// was so many that everything must have happened.
#[expect(clippy::print_stdout, reason = "whoever asks for a seed wants its story")]
pub(crate) fn play_seeds(kept: &str, count: u64, draw: fn(u64) -> Scenario) -> Option<Report> {
    if let Some(seed) = number("FIELDGATE_SIM_SEED") {
        let scenario = draw(seed);
        println!("{scenario:#?}");
        let played = play(&scenario, Some(&mut |line| println!("{line}")));
        println!("{played:#?}");
        played.expect("the seed breaks nothing");
        return None;
    }
    let asked = number("FIELDGATE_SIM_SEEDS");
    let from = number("FIELDGATE_SIM_FROM").unwrap_or(1);
    let mut seeds = listed(kept);
    let known: BTreeSet<u64> = seeds.iter().copied().collect();
    let fresh = (from..).take(usize::try_from(asked.unwrap_or(count)).unwrap_or(usize::MAX));
    seeds.extend(fresh.filter(|seed| !known.contains(seed)));
    let total = play_all(&seeds, draw);
    println!("{} seeds: {total:#?}", seeds.len());
    asked.is_none_or(|asked| asked >= count).then_some(total)
}

#[test]
fn whatever_goes_wrong_nothing_promised_is_lost_or_counts_twice() {
    if let Some(total) = play_seeds(include_str!("../../seeds.txt"), SEEDS, Scenario::draw) {
        everything_happened(&total);
    }
}

/// A simulator that never does what it is made for would find nothing.
fn everything_happened(total: &Report) {
    assert!(total.restarts.iter().all(|restarts| *restarts > 0), "{total:?}");
    let counts = [
        total.resets,
        total.partitions,
        total.one_ways,
        total.silent_ends,
        total.disk_faults,
        total.rot,
        total.lost,
        total.discarded,
        total.restored,
        total.restores_noticed,
        total.sink_stops,
        total.renewals,
        total.wrong_clocks,
        total.refused,
        total.rekeys,
        total.duplicates,
        total.out_of_order,
        total.held_back,
        total.refused_peers,
        total.impostor_messages,
    ];
    assert!(counts.iter().all(|count| *count > 0), "{total:?}");
    assert!(
        total.records_refused.iter().all(|refused| *refused > 0),
        "{total:?}"
    );
    assert!(
        Verb::ALL.iter().all(|verb| total.attacks_of(*verb) > 0),
        "{total:?}"
    );
    assert!(total.acknowledged > 10_000 && total.tapped > 1 << 20, "{total:?}");
}

#[test]
fn a_seed_does_the_same_every_time() {
    for seed in 1..=6 {
        let reports = [(); 2].map(|()| play(&Scenario::draw(seed), None).unwrap());
        assert_eq!(reports[0], reports[1]);
    }
}

#[test]
fn different_seeds_do_different_things() {
    let fingerprints: BTreeSet<u64> = (1..=6)
        .map(|seed| play(&Scenario::draw(seed), None).unwrap().fingerprint)
        .collect();
    assert_eq!(fingerprints.len(), 6);
}

/// Seeds played unless asked for another number.
const SEEDS: u64 = 150;
/// Seeds from which on it is shown how far they are, and how often.
const SHOWN_FROM: usize = 1_000;
const SHOWN_EVERY: usize = 100;
/// Lines of a story that are shown.
const STORY_LINES: usize = 120;
