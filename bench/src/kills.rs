//! `kills`: streams through two relays, of which the one in use dies again and again.
//!
//! ```text
//!  desk ──┐             ┌── relay-1
//!         ├── switch ───┤              each in a network namespace of its own, with a cable to the switch
//!  hall ──┘             └── relay-2
//! ```
//!
//! What is measured is the pause: the longest time around a death in which what stands behind the outlet got no byte of a stream. A tap
//! before it takes the times. A machine that is busy with other things makes pauses of its own, so a thread that only wants to be woken
//! says how late that happened in the same moments.

mod loads;
mod network;
mod report;
mod site;
mod starvation;
mod tap;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::network::Network;
use self::report::Report;
use self::site::Site;
use self::starvation::Starvation;
use self::tap::Tap;
use crate::clock;
use crate::failure::Failure;

/// How often, and what.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Deaths in each phase
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    kills: u32,
    /// Phases to run; without it all
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Phase::ALL)]
    phases: Vec<Phase>,
    /// `[node] io` of fieldgate
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    io: String,
    /// Megabits per second that iperf3 sends; 0 is as much as goes
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    iperf3_mbit: u32,
    /// The fieldgate binary; without it the one beside this program
    #[arg(long)]
    gateway_binary: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What is carried, and how the relay in use dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// iperf3; the relay is killed and started again
    Iperf3Kill,
    /// rsync at 10 MB/s; the relay is killed and started again
    RsyncKill,
    /// iperf3; the relay's cable is pulled and put back
    Iperf3Pull,
    /// rsync at 10 MB/s; the relay's cable is pulled and put back
    RsyncPull,
}

impl Phase {
    const ALL: [Self; 4] = [
        Self::Iperf3Kill,
        Self::RsyncKill,
        Self::Iperf3Pull,
        Self::RsyncPull,
    ];

    /// Returns its name in tables.
    const fn name(self) -> &'static str {
        match self {
            Self::Iperf3Kill => "iperf3, relay killed",
            Self::RsyncKill => "rsync, relay killed",
            Self::Iperf3Pull => "iperf3, cable pulled",
            Self::RsyncPull => "rsync, cable pulled",
        }
    }

    const fn pulls(self) -> bool {
        matches!(self, Self::Iperf3Pull | Self::RsyncPull)
    }
}

/// One death.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Death {
    /// Longest time without a byte, up to the next death.
    pub(crate) pause_ms: f64,
    /// From the death to the beginning of that time.
    pub(crate) pause_after_ms: f64,
    /// How late a thread with nothing to do was woken in that time, at the worst.
    pub(crate) starved_ms: f64,
    /// From the death to the other way's being in use, as the status tells.
    pub(crate) moved_ms: f64,
}

/// What came of a phase.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) phase: Phase,
    pub(crate) deaths: Vec<Death>,
    /// Longest time without a byte before the first death.
    pub(crate) pause_before_ms: f64,
    /// Bytes that arrived behind the outlet.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Sessions of portals that were given up, with all their streams.
    pub(crate) sessions_lost: u64,
    /// What went wrong: a stream that broke, a checksum that differs.
    pub(crate) broken: Vec<String>,
}

/// Runs the phases, prints, and fails if the aim is missed.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::NotRoot {
            what: "network namespaces",
        });
    }
    let binary = crate::uplink::binary(options.gateway_binary.as_ref())?;
    let mut outcomes = Vec::new();
    for phase in &options.phases {
        if !options.json {
            eprintln!("{} × {}", options.kills, phase.name());
        }
        let folder = tempfile::tempdir().map_err(Failure::io("making a private folder"))?;
        let outcome = run_phase(options, *phase, &binary, folder.path())?;
        // Each takes minutes: what one has shown is not lost with the next.
        if !options.json {
            print!("{}", Report::new(vec![outcome.clone()]).text());
        }
        outcomes.push(outcome);
    }
    let report = Report::new(outcomes);
    if options.json {
        println!("{}", report.json()?);
    }
    report.verdict()
}

fn run_phase(options: &Options, phase: Phase, binary: &Path, folder: &Path) -> Result<Outcome, Failure> {
    let network = Network::new()?;
    let mut site = Site::start(&network, binary, &options.io, folder)?;
    let tap = Tap::start(&network.hall, site::TAP, site::SERVER)?;
    let starvation = Starvation::watch()?;
    let mut load: Box<dyn loads::Load> = match phase {
        Phase::Iperf3Kill | Phase::Iperf3Pull => {
            Box::new(loads::Iperf3::start(&network, folder, options.iperf3_mbit)?)
        }
        Phase::RsyncKill | Phase::RsyncPull => Box::new(loads::Rsync::start(&network, folder)?),
    };
    let start = clock::now();
    site.await_paired()?;
    load.await_flow(&tap)?;
    // What the pauses look like while nothing happens.
    clock::pause(BEFORE);
    let pause_before = tap.longest(start, clock::now()).map_or(0, |pause| pause.nanos);
    let death = |died: u64, moved: u64| {
        let pause = tap.longest(died, clock::now()).unwrap_or_default();
        Death {
            pause_ms: millis(pause.nanos),
            pause_after_ms: millis(pause.since.saturating_sub(died)),
            starved_ms: millis(starvation.worst(pause.since, pause.since + pause.nanos)),
            moved_ms: millis(moved - died),
        }
    };
    let (mut deaths, mut broken, mut last) = (Vec::new(), Vec::new(), None);
    for number in 0..options.kills {
        load.await_flow(&tap)?;
        let active = site.await_paired()?;
        // Not always at the same time after the status changed.
        clock::pause(SETTLE * (number % 5 + 1));
        // The one before ends here: what its relay's return does counts, too.
        deaths.extend(last.take().map(|(died, moved)| death(died, moved)));
        let died = clock::now();
        if phase.pulls() {
            network.unplug(active)?;
        } else {
            site.kill(active)?;
        }
        last = Some((died, site.await_moved(active)?));
        if !tap.await_more(AFTER, || load.is_complete()) || !load.goes_on() {
            broken.push(format!("after death {} nothing arrived any more", number + 1));
            break;
        }
        // Some stay away for longer than a silent channel is kept.
        clock::pause(if (number + 1) % LONG_EVERY == 0 {
            LONG
        } else {
            SHORT
        });
        if phase.pulls() {
            network.plug(active)?;
        } else {
            site.restart(active)?;
        }
    }
    deaths.extend(last.map(|(died, moved)| death(died, moved)));
    let (seconds, bytes) = ((clock::now() - start) as f64 / 1e9, tap.bytes());
    broken.extend(load.finish()?);
    let sessions_lost = site.sessions_lost()?;
    if sessions_lost > 0 {
        broken.push(format!("{sessions_lost} sessions were given up"));
    }
    site.stop()?;
    Ok(Outcome {
        phase,
        deaths,
        pause_before_ms: millis(pause_before),
        bytes,
        seconds,
        sessions_lost,
        broken,
    })
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// How long a stream is watched before the first death.
const BEFORE: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_millis(130);
/// Bytes that have to arrive after a death before it counts as survived.
const AFTER: u64 = 2 << 20;
/// Every so many deaths one stays away for [`LONG`].
const LONG_EVERY: u32 = 10;
const LONG: Duration = Duration::from_secs(20);
/// How long the others stay away after the stream has moved.
const SHORT: Duration = Duration::from_secs(2);
