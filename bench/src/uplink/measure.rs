//! One system under one load.

use std::fmt;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::{Kind, Options, System, syscalls};
use crate::clock::{self, Window};
use crate::failure::Failure;
use crate::latency::Summary;
use crate::load::{self, Load, Progress};
use crate::procfs::Usage;

/// How hard the devices publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pace {
    /// The next publish follows each PUBACK at once.
    Saturated,
    /// Readings per second of all devices together.
    Paced(u32),
}

impl fmt::Display for Pace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saturated => formatter.write_str("saturated"),
            Self::Paced(rate) => write!(formatter, "{rate} per second"),
        }
    }
}

/// What one system did in one measured window.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) kind: Kind,
    pub(crate) pace: Pace,
    pub(crate) round: u32,
    /// Measured seconds.
    pub(crate) seconds: f64,
    /// Readings that the devices had acknowledged, per second.
    pub(crate) acknowledged_per_sec: f64,
    /// Readings that reached the far end, per second.
    pub(crate) delivered_per_sec: f64,
    /// Processor time of all measured processes per delivered reading, in microseconds.
    pub(crate) cpu_us_per_reading: f64,
    /// System calls of all measured processes per delivered reading, and how they were counted.
    pub(crate) syscalls: Option<syscalls::Count>,
    /// From PUBLISH to PUBACK.
    pub(crate) acknowledgement: Option<Summary>,
    /// From PUBLISH to the far end, where that takes the time.
    pub(crate) end_to_end: Option<Summary>,
    /// Sum over the processes, in KiB.
    pub(crate) peak_rss_kib: u64,
    /// Sum over the processes, in KiB.
    pub(crate) pss_kib: u64,
    /// Acknowledged readings that did not arrive, even after the load had ended.
    pub(crate) missing: u64,
    /// What each process used.
    pub(crate) processes: Vec<ProcessCost>,
    /// Processor time of the load generator per publish, in microseconds.
    pub(crate) generator_us_per_publish: f64,
}

/// What one process used in the measured window.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProcessCost {
    pub(crate) name: &'static str,
    /// Processor time per delivered reading, in microseconds.
    pub(crate) cpu_us_per_reading: f64,
    pub(crate) peak_rss_kib: u64,
    pub(crate) pss_kib: u64,
}

/// Puts the load on the system, measures, lets everything arrive, and stops the system.
pub(crate) fn run(
    mut system: Box<dyn System>,
    options: &Options,
    kind: Kind,
    pace: Pace,
    round: u32,
    window: &Window,
) -> Result<Measurement, Failure> {
    await_path(&mut *system)?;
    let delivered_before = system.delivered()?;
    let rate = match pace {
        Pace::Saturated => None,
        Pace::Paced(rate) => Some(rate),
    };
    let clients = usize::try_from(options.clients).unwrap_or(usize::MAX);
    let load = Load::connect(load::Settings {
        window: options.window,
        payload_bytes: usize::try_from(options.payload_bytes).unwrap_or(usize::MAX),
        ..load::Settings::new(system.devices(), clients, rate)
    })?;
    let progress = Progress::default();
    let (middle, report) = thread::scope(|scope| {
        let generator = thread::Builder::new()
            .name("load".to_owned())
            .spawn_scoped(scope, || load.run(window, &progress))
            .map_err(Failure::io("starting a thread"))?;
        let middle = observe(&mut *system, options, pace, window, &progress);
        progress.stop();
        let report = generator
            .join()
            .unwrap_or_else(|_| Err(Failure::peer("load generator", "panicked")))?;
        Ok::<_, Failure>((middle?, report))
    })?;
    let arrived = await_rest(&*system, delivered_before, report.acked)?;
    let end_to_end = system.finish()?;
    let delivered = middle.after.delivered - middle.before.delivered;
    let seconds = seconds_between(&middle.before, &middle.after);
    let processes = costs(&middle, delivered);
    Ok(Measurement {
        kind,
        pace,
        round,
        seconds,
        acknowledged_per_sec: per(middle.after.acked - middle.before.acked, seconds),
        delivered_per_sec: per(delivered, seconds),
        cpu_us_per_reading: processes.iter().map(|process| process.cpu_us_per_reading).sum(),
        syscalls: middle.syscalls,
        acknowledgement: report.latencies.summary(),
        end_to_end: end_to_end.and_then(|latencies| latencies.summary()),
        peak_rss_kib: processes.iter().map(|process| process.peak_rss_kib).sum(),
        pss_kib: processes.iter().map(|process| process.pss_kib).sum(),
        missing: report.acked.saturating_sub(arrived),
        processes,
        generator_us_per_publish: micros_per(report.cpu, report.sent),
    })
}

/// What was read at the ends of the measured window.
struct Middle {
    names: Vec<&'static str>,
    before: Snapshot,
    after: Snapshot,
    syscalls: Option<syscalls::Count>,
}

struct Snapshot {
    time: u64,
    delivered: u64,
    acked: u64,
    usages: Vec<Usage>,
}

impl Snapshot {
    fn take(system: &mut dyn System, progress: &Progress) -> Result<Self, Failure> {
        let mut usages = Vec::new();
        for process in system.processes() {
            process.check_alive()?;
            usages.push(Usage::read(process.id())?);
        }
        Ok(Self {
            time: clock::now(),
            delivered: system.delivered()?,
            acked: progress.acked(),
            usages,
        })
    }
}

/// Warm-up, window, then a shorter one in which system calls are counted, as counting costs.
fn observe(
    system: &mut dyn System,
    options: &Options,
    pace: Pace,
    window: &Window,
    progress: &Progress,
) -> Result<Middle, Failure> {
    clock::pause(Duration::from_secs(options.warm_up));
    let before = Snapshot::take(system, progress)?;
    window.open(before.time);
    clock::pause(Duration::from_secs(options.seconds));
    window.close(clock::now());
    let after = Snapshot::take(system, progress)?;
    let names = system.processes().iter().map(|process| process.name()).collect();
    let counted = !options.no_syscalls && pace == Pace::Saturated;
    let syscalls = if counted { syscalls::count(system)? } else { None };
    Ok(Middle {
        names,
        before,
        after,
        syscalls,
    })
}

fn costs(middle: &Middle, delivered: u64) -> Vec<ProcessCost> {
    let usages = middle.before.usages.iter().zip(&middle.after.usages);
    let cost = |(name, (before, after)): (&&'static str, (&Usage, &Usage))| ProcessCost {
        name,
        cpu_us_per_reading: micros_per(after.cpu.saturating_sub(before.cpu), delivered),
        peak_rss_kib: after.peak_rss_kib,
        pss_kib: after.pss_kib,
    };
    middle.names.iter().zip(usages).map(cost).collect()
}

/// Publishes until the first reading has come through: bridges and channels are up then.
pub(crate) fn await_path(system: &mut dyn System) -> Result<(), Failure> {
    let until = clock::now() + PATH_MAX;
    let settings = load::Settings::new(system.devices(), 1, Some(PROBES_PER_SEC));
    let (window, progress) = (Window::new(), Progress::default());
    let load = Load::connect(settings)?;
    let sent = thread::scope(|scope| {
        let prober = scope.spawn(|| load.run(&window, &progress));
        let outcome = loop {
            match system.delivered() {
                Ok(0) if clock::now() > until => break Err(no_path(system)),
                Ok(0) => clock::pause(STEP),
                Ok(_) => break Ok(()),
                Err(failure) => break Err(failure),
            }
            if let Err(failure) = system
                .processes()
                .iter_mut()
                .try_for_each(|process| process.check_alive())
            {
                break Err(failure);
            }
        };
        progress.stop();
        let report = prober
            .join()
            .unwrap_or_else(|_| Err(Failure::peer("prober", "panicked")));
        outcome.and_then(|()| report.map(|report| report.acked))
    })?;
    // What was acknowledged before the path was up may be kept or dropped; it must not arrive inside the window.
    await_rest(system, 0, sent).map(drop)
}

fn no_path(system: &mut dyn System) -> Failure {
    system.processes().first().map_or_else(
        || Failure::peer("system", "has no process"),
        |process| process.broken("delivers nothing to the far end"),
    )
}

/// Waits until `expected` readings have arrived since `before`, or nothing more arrives. Returns how many did.
pub(crate) fn await_rest(system: &dyn System, before: u64, expected: u64) -> Result<u64, Failure> {
    let mut arrived = system.delivered()?.saturating_sub(before);
    let mut until = clock::now() + REST_MAX;
    while arrived < expected && clock::now() < until {
        clock::pause(STEP);
        let now = system.delivered()?.saturating_sub(before);
        if now > arrived {
            until = clock::now() + REST_MAX;
        }
        arrived = now;
    }
    Ok(arrived)
}

fn seconds_between(before: &Snapshot, after: &Snapshot) -> f64 {
    (after.time - before.time) as f64 / 1e9
}

fn per(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

fn micros_per(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// How long the path from devices to the far end may take to come up, in nanoseconds.
const PATH_MAX: u64 = 20_000_000_000;
/// How long the far end may be silent before the rest counts as missing, in nanoseconds.
const REST_MAX: u64 = 2_000_000_000;
const STEP: Duration = Duration::from_millis(20);
const PROBES_PER_SEC: u32 = 20;
