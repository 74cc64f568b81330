//! `uplink`: fieldgate beside a mosquitto bridge, in one run.

pub(crate) mod bridge;
pub(crate) mod chain;
pub(crate) mod measure;
mod report;
mod syscalls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::bridge::Bridge;
use self::chain::Chain;
use self::measure::{Measurement, Pace};
use self::report::Report;
use crate::clock::Window;
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::process::Running;

/// What is compared, and how long.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Systems to measure, in turns
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Bridge, Kind::Durable, Kind::Volatile])]
    systems: Vec<Kind>,
    /// Rounds; ratios are taken inside a round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Measured seconds of each system and round
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Seconds under load before the measurement
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=60))]
    warm_up: u64,
    /// MQTT clients
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    clients: u32,
    /// Publishes of one client that wait for their PUBACK
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    window: u16,
    /// Size of a payload in bytes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(22..=60_000))]
    payload_bytes: u32,
    /// Readings per second of the paced part, which gives end-to-end latencies; 0 leaves it out
    #[arg(long, default_value_t = 5000)]
    paced_rate: u32,
    /// Leave out the count of system calls
    #[arg(long)]
    no_syscalls: bool,
    /// `[node] io` of fieldgate
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    io: String,
    /// `[node] shards` of the nodes; 0 is one per core
    #[arg(long, default_value_t = 0)]
    shards: u16,
    /// The fieldgate binary; without it the one beside this program
    #[arg(long)]
    gateway_binary: Option<PathBuf>,
    /// Folder for journals and logs: its disk is what a durable reading waits for; without it a temporary one
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// A system under measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// mosquitto → mosquitto over TLS
    Bridge,
    /// fieldgate, each reading on stable storage before its PUBACK
    Durable,
    /// fieldgate without that wait
    Volatile,
    /// fieldgate durable, while every node reads a policy of 200 rules again all the time and asks it about every channel
    Deciding,
}

/// A chain of processes from devices to a far end.
pub(crate) trait System {
    /// Returns where devices connect.
    fn devices(&self) -> SocketAddr;
    /// Returns the measured processes.
    fn processes(&mut self) -> &mut [Running];
    /// Returns how many readings the far end has had.
    fn delivered(&self) -> Result<u64, Failure>;
    /// Stops everything and returns the end-to-end latencies, if the far end takes the time.
    fn finish(self: Box<Self>) -> Result<Option<Latencies>, Failure>;
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(Failure::io("making a private folder"))?;
    let mut measurements = Vec::new();
    for round in 0..options.rounds {
        for pace in paces(options) {
            for kind in turns(&options.systems, round) {
                if !options.json {
                    eprintln!("round {}: {kind:?}, {pace}", round + 1);
                }
                let place = folder.path().join(format!("{round}-{kind:?}-{pace}"));
                std::fs::create_dir(&place).map_err(Failure::io(format!("making {}", place.display())))?;
                measurements.push(measure_one(options, kind, pace, round, &place)?);
                // The journal of one run must not slow down the next.
                std::fs::remove_dir_all(&place)
                    .map_err(Failure::io(format!("removing {}", place.display())))?;
            }
        }
    }
    let report = Report::new(options, measurements);
    if options.json {
        println!("{}", report.json()?);
    } else {
        print!("{}", report.text());
    }
    Ok(())
}

fn paces(options: &Options) -> Vec<Pace> {
    let paced = (options.paced_rate > 0).then_some(Pace::Paced(options.paced_rate));
    [Pace::Saturated].into_iter().chain(paced).collect()
}

/// Every round begins with another system, so that none always runs on a warm or a tired machine.
fn turns(systems: &[Kind], round: u32) -> Vec<Kind> {
    let mut turns = systems.to_vec();
    turns.dedup();
    let count = turns.len();
    turns.rotate_left(usize::try_from(round).unwrap_or(0) % count.max(1));
    turns
}

fn measure_one(
    options: &Options,
    kind: Kind,
    pace: Pace,
    round: u32,
    folder: &Path,
) -> Result<Measurement, Failure> {
    let window = Arc::new(Window::new());
    let system: Box<dyn System> = match kind {
        Kind::Bridge => Box::new(Bridge::start(folder, Arc::clone(&window))?),
        Kind::Durable | Kind::Volatile | Kind::Deciding => {
            let settings = chain::Settings {
                binary: binary(options.gateway_binary.as_ref())?,
                durable: kind != Kind::Volatile,
                rules: (kind == Kind::Deciding).then_some(POLICY_RULES),
                timed: pace != Pace::Saturated,
                clients: usize::try_from(options.clients).unwrap_or(usize::MAX),
                window: options.window,
                io: options.io.clone(),
                shards: options.shards,
            };
            Box::new(Chain::start(&settings, folder, Arc::clone(&window))?)
        }
    };
    measure::run(system, options, kind, pace, round, &window)
}

/// Rules of the policy of [`Kind::Deciding`].
const POLICY_RULES: usize = 200;

/// Returns the binary that was named, or the one beside this program.
pub(crate) fn binary(named: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(binary) = named {
        return Ok(binary.clone());
    }
    let own = std::env::current_exe().map_err(Failure::io("looking for this program"))?;
    Ok(own.with_file_name("fieldgate"))
}

#[cfg(test)]
mod tests {
    use super::{Kind, turns};

    #[test]
    fn every_round_begins_with_another_system() {
        let systems = [Kind::Bridge, Kind::Durable];
        assert_eq!(turns(&systems, 0), [Kind::Bridge, Kind::Durable]);
        assert_eq!(turns(&systems, 1), [Kind::Durable, Kind::Bridge]);
        assert_eq!(turns(&[], 1), []);
    }
}
