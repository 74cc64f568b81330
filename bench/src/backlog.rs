//! `backlog`: how fast a backlog drains, and what that does to live traffic.
//!
//! 1. *quiet*: devices publish readings and alarms at fixed rates while nothing waits.
//! 2. The collector is stopped, and the journal filled.
//! 3. *draining*: the same devices publish at the same rates while the collector comes back and takes the backlog.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::clock::{self, Window};
use crate::failure::Failure;
use crate::latency::{Latencies, Summary};
use crate::load::{Load, Progress, Report, Settings};
use crate::uplink::System as _;
use crate::uplink::chain::{self, Chain};
use crate::uplink::measure::{await_path, await_rest};

/// How large a backlog, and what is published meanwhile.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Readings that wait when the collector comes back
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    readings: u64,
    /// Live readings per second
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    live: u32,
    /// Live alarms per second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    alarms: u32,
    /// Measured seconds without a backlog
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Size of a payload in bytes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(22..=60_000))]
    payload_bytes: u32,
    /// `[node] io` of fieldgate
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    io: String,
    /// `[node] shards` of the nodes; 0 is one per core
    #[arg(long, default_value_t = 0)]
    shards: u16,
    /// The fieldgate binary; without it the one beside this program
    #[arg(long)]
    gateway_binary: Option<PathBuf>,
    /// Folder for journals and logs; without it a temporary one
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    backlog: u64,
    drained_secs: f64,
    drained_per_sec: f64,
    quiet: Live,
    draining: Live,
    load_before: String,
    load_after: String,
}

/// What live traffic saw.
#[derive(Debug, Serialize)]
struct Live {
    /// From the PUBLISH of a reading to its PUBACK.
    reading_acknowledged: Option<Summary>,
    /// From the PUBLISH of an alarm to its PUBACK.
    alarm_acknowledged: Option<Summary>,
    /// From the PUBLISH of an alarm to the consumer behind the collector.
    alarm_delivered: Option<Summary>,
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(Failure::io("making a private folder"))?;
    let window = Arc::new(Window::new());
    let settings = chain::Settings {
        binary: crate::uplink::binary(options.gateway_binary.as_ref())?,
        durable: true,
        timed: true,
        clients: FILLING_CLIENTS + LIVE_CLIENTS + ALARM_CLIENTS,
        window: WINDOW,
        io: options.io.clone(),
        shards: options.shards,
        rules: None,
    };
    let mut chain = Chain::start(&settings, folder.path(), Arc::clone(&window))?;
    let load_before = load_average()?;
    await_path(&mut chain)?;

    let devices = Devices::connect(options, chain.devices())?;
    let (reports, ()) = devices.publish_while(&window, || {
        window.open(clock::now() + SETTLE);
        clock::pause(Duration::from_secs(options.seconds));
        window.close(clock::now());
        Ok(())
    })?;
    let published = reports.iter().map(|report| report.acked).sum();
    await_rest(&chain, 0, published)?;
    let quiet = live(&reports, chain.take_latencies());

    chain.stop_collector()?;
    let backlog = fill(options, &chain)?;
    let before = chain.delivered()? - chain.delivered_stamped();
    let devices = Devices::connect(options, chain.devices())?;
    window.open(u64::MAX);
    window.close(u64::MAX);
    let (reports, drained_secs) =
        devices.publish_while(&window, || drain(&mut chain, &window, before + backlog))?;
    clock::pause(LAST_ALARMS);
    let latencies = chain.take_latencies();
    Box::new(chain).finish()?;
    let outcome = Outcome {
        backlog,
        drained_secs,
        drained_per_sec: backlog as f64 / drained_secs,
        quiet,
        draining: live(&reports, latencies),
        load_before,
        load_after: load_average()?,
    };
    print(options, &outcome)
}

fn live([readings, alarms]: &[Report; 2], delivered: Option<Latencies>) -> Live {
    Live {
        reading_acknowledged: readings.latencies.summary(),
        alarm_acknowledged: alarms.latencies.summary(),
        alarm_delivered: delivered.as_ref().and_then(Latencies::summary),
    }
}

/// Devices that publish readings, and others that publish alarms.
struct Devices {
    readings: Load,
    alarms: Load,
}

impl Devices {
    fn connect(options: &Options, address: SocketAddr) -> Result<Self, Failure> {
        let payload_bytes = usize::try_from(options.payload_bytes).unwrap_or(usize::MAX);
        let load = |clients, rate, name, topic, is_stamped| {
            Load::connect(Settings {
                window: WINDOW,
                payload_bytes,
                name,
                topic,
                is_stamped,
                ..Settings::new(address, clients, Some(rate))
            })
        };
        Ok(Self {
            readings: load(LIVE_CLIENTS, options.live, "live", "temperature", false)?,
            alarms: load(
                ALARM_CLIENTS,
                options.alarms,
                "alarming",
                chain::ALARM_TOPIC,
                true,
            )?,
        })
    }

    /// Publishes for as long as `work` takes. Returns what came of the readings and of the alarms.
    fn publish_while<T>(
        self,
        window: &Window,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<([Report; 2], T), Failure> {
        let progress = [Progress::default(), Progress::default()];
        thread::scope(|scope| {
            let loads = [self.readings, self.alarms].into_iter().zip(&progress);
            let threads: Vec<_> = loads
                .map(|(load, progress)| scope.spawn(move || load.run(window, progress)))
                .collect();
            let done = work();
            progress.iter().for_each(Progress::stop);
            let mut reports = threads.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Failure::peer("load generator", "panicked")))
            });
            let mut next = || {
                reports
                    .next()
                    .unwrap_or_else(|| Err(Failure::peer("load generator", "was not started")))
            };
            Ok(([next()?, next()?], done?))
        })
    }
}

/// Publishes until so many readings are acknowledged; returns how many.
fn fill(options: &Options, chain: &Chain) -> Result<u64, Failure> {
    let load = Load::connect(Settings {
        window: WINDOW,
        payload_bytes: usize::try_from(options.payload_bytes).unwrap_or(usize::MAX),
        is_stamped: false,
        ..Settings::new(chain.devices(), FILLING_CLIENTS, None)
    })?;
    let (window, progress) = (Window::new(), Progress::default());
    thread::scope(|scope| {
        let filling = scope.spawn(|| load.run(&window, &progress));
        while progress.acked() < options.readings && !filling.is_finished() {
            clock::pause(LOOK_EVERY);
        }
        progress.stop();
        let report = filling
            .join()
            .unwrap_or_else(|_| Err(Failure::peer("load generator", "panicked")))?;
        if report.acked < report.sent {
            let missing = report.sent - report.acked;
            return Err(Failure::peer(
                "gateway",
                format!("acknowledged all but {missing} readings"),
            ));
        }
        Ok(report.acked)
    })
}

/// Lets the collector come and returns how many seconds it took from the first reading there to the last of the backlog.
///
/// The measurement of live traffic begins a moment after the first reading, so that neither the handshake is in it nor the alarms that
/// waited for it. Readings without a stamp are the backlog first, then live ones, in this order.
fn drain(chain: &mut Chain, window: &Window, all: u64) -> Result<f64, Failure> {
    let unstamped = |chain: &Chain| Ok::<_, Failure>(chain.delivered()? - chain.delivered_stamped());
    let before = unstamped(chain)?;
    chain.start_collector()?;
    let give_up = clock::now() + DRAIN_MAX;
    let mut began = None;
    loop {
        let delivered = unstamped(chain)?;
        let now = clock::now();
        if delivered > before && began.is_none() {
            began = Some(now);
            window.open(now + SETTLE);
        }
        if delivered >= all {
            window.close(now);
            let began = began.unwrap_or(now);
            return Ok(now.saturating_sub(began).max(1) as f64 / 1e9);
        }
        if now > give_up {
            return Err(Failure::peer(
                "collector",
                format!("has {delivered} of {all} readings"),
            ));
        }
        clock::pause(LOOK_EVERY);
    }
}

/// Returns how busy the machine is: runnable threads on average over the last minute.
fn load_average() -> Result<String, Failure> {
    let text = fs::read_to_string(LOAD_AVERAGE).map_err(Failure::io(LOAD_AVERAGE))?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

fn print(options: &Options, outcome: &Outcome) -> Result<(), Failure> {
    if options.json {
        let json = serde_json::to_string(outcome).map_err(|error| Failure::Format {
            what: "the report".to_owned(),
            problem: error.to_string(),
        })?;
        println!("{json}");
        return Ok(());
    }
    println!(
        "backlog of {} readings drained in {:.1} s: {:.0} readings/s (goal: {RATE_GOAL})",
        outcome.backlog, outcome.drained_secs, outcome.drained_per_sec
    );
    println!(
        "live: {} readings/s and {} alarms/s; machine's load average {} before, {} after",
        options.live, options.alarms, outcome.load_before, outcome.load_after
    );
    println!(
        "{:<32}{:>12}{:>12}{:>12}{:>12}",
        "ms", "p50", "p99", "highest", "of"
    );
    let (quiet, draining) = (&outcome.quiet, &outcome.draining);
    for (what, quiet, draining) in [
        (
            "reading to PUBACK",
            quiet.reading_acknowledged,
            draining.reading_acknowledged,
        ),
        (
            "alarm to PUBACK",
            quiet.alarm_acknowledged,
            draining.alarm_acknowledged,
        ),
        (
            "alarm to far end",
            quiet.alarm_delivered,
            draining.alarm_delivered,
        ),
    ] {
        for (when, summary) in [("quiet", quiet), ("draining", draining)] {
            let what = format!("{what}, {when}");
            match summary {
                Some(summary) => println!(
                    "{what:<32}{:>12.2}{:>12.2}{:>12.2}{:>12}",
                    summary.p50_us / 1e3,
                    summary.p99_us / 1e3,
                    summary.max_us / 1e3,
                    summary.count
                ),
                None => println!("{what:<32}{:>12}", "none"),
            }
        }
    }
    println!("goal: p99 below {P99_GOAL_MS} ms while the backlog drains");
    Ok(())
}

/// Readings per second of a backlog beside live traffic.
const RATE_GOAL: u32 = 10_000;
const P99_GOAL_MS: u32 = 50;
/// Clients that fill the journal, and the publishes of any client that may wait for their PUBACK.
const FILLING_CLIENTS: usize = 200;
const WINDOW: u16 = 32;
/// Clients that publish live readings.
const LIVE_CLIENTS: usize = 50;
/// Clients that publish live alarms.
const ALARM_CLIENTS: usize = 20;
/// How often the count is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// From the beginning of a part to that of its measurement, in nanoseconds.
const SETTLE: u64 = 200_000_000;
/// How long the last alarms of the measurement may take to the far end.
const LAST_ALARMS: Duration = Duration::from_secs(2);
/// Longest time to drain, in nanoseconds.
const DRAIN_MAX: u64 = 600_000_000_000;
const LOAD_AVERAGE: &str = "/proc/loadavg";
