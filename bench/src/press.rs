//! `load`: the generator alone, against any MQTT listener.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::clock::{self, Window};
use crate::failure::Failure;
use crate::latency::Summary;
use crate::load::{Load, Progress, Settings};

/// Where to publish, and how hard.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The MQTT listener; clients connect anonymously
    address: SocketAddr,
    /// MQTT clients
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    clients: u32,
    /// Publishes of one client that wait for their PUBACK
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    window: u16,
    /// Size of a payload in bytes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(22..=60_000))]
    payload_bytes: u32,
    /// Publishes per second of all clients together; without it as fast as they are acknowledged
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Measured seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    acknowledged_per_sec: f64,
    unacknowledged: u64,
    acknowledgement: Option<Summary>,
    generator_us_per_publish: f64,
}

/// Publishes, prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let load = Load::connect(Settings {
        window: options.window,
        payload_bytes: usize::try_from(options.payload_bytes).unwrap_or(usize::MAX),
        ..Settings::new(
            options.address,
            usize::try_from(options.clients).unwrap_or(usize::MAX),
            options.rate,
        )
    })?;
    let (window, progress) = (Window::new(), Progress::default());
    let (report, elapsed, acked) = thread::scope(|scope| {
        let generator = scope.spawn(|| load.run(&window, &progress));
        let start = clock::now();
        window.open(start);
        clock::pause(Duration::from_secs(options.seconds));
        let elapsed = clock::now() - start;
        let acked = progress.acked();
        progress.stop();
        let report = generator
            .join()
            .unwrap_or_else(|_| Err(Failure::peer("load generator", "panicked")));
        report.map(|report| (report, elapsed, acked))
    })?;
    let outcome = Outcome {
        acknowledged_per_sec: acked as f64 * 1e9 / elapsed as f64,
        unacknowledged: report.sent - report.acked,
        acknowledgement: report.latencies.summary(),
        generator_us_per_publish: report.cpu.as_secs_f64() * 1e6 / report.sent.max(1) as f64,
    };
    if options.json {
        let json = serde_json::to_string(&outcome).map_err(|error| Failure::Format {
            what: "the report".to_owned(),
            problem: error.to_string(),
        })?;
        println!("{json}");
        return Ok(());
    }
    println!("acknowledged    {:.0} /s", outcome.acknowledged_per_sec);
    println!("unacknowledged  {}", outcome.unacknowledged);
    if let Some(Summary {
        p50_us,
        p90_us,
        p99_us,
        max_us,
        ..
    }) = outcome.acknowledgement
    {
        println!(
            "PUBLISH to PUBACK µs: p50 {p50_us:.0}, p90 {p90_us:.0}, p99 {p99_us:.0}, highest {max_us:.0}"
        );
    }
    println!(
        "generator CPU   {:.2} µs/publish",
        outcome.generator_us_per_publish
    );
    Ok(())
}
