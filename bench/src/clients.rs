//! `clients`: what many clients cost a gateway, and what one that does not read costs the others.
//!
//! 1. Idle clients connect; the gateway's proportional set size before and after gives the memory of one.
//! 2. Beside them others publish, first among themselves, then while one client subscribes to everything and reads nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::clock::{self, Window};
use crate::failure::Failure;
use crate::latency::Summary;
use crate::load::{Load, Progress, Settings};
use crate::packet;
use crate::procfs::Usage;
use crate::uplink::System;
use crate::uplink::chain::{self, Chain};

/// How many, and how long.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Clients that connect and stay silent
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    idle: u32,
    /// Clients that publish
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    publishing: u32,
    /// Measured seconds of each part
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// `[node] io` of fieldgate
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    io: String,
    /// `[node] shards` of the nodes; 0 is one per core
    #[arg(long, default_value_t = 0)]
    shards: u16,
    /// The fieldgate binary; without it the one beside this program
    #[arg(long)]
    gateway_binary: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    idle_clients: u32,
    bytes_per_idle_client: u64,
    alone: Part,
    beside_slow_subscriber: Part,
}

/// One part of the publishing.
#[derive(Debug, Serialize)]
struct Part {
    acknowledged_per_sec: f64,
    acknowledgement: Option<Summary>,
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(Failure::io("making a private folder"))?;
    let settings = chain::Settings {
        binary: crate::uplink::binary(options.gateway_binary.as_ref())?,
        durable: true,
        timed: false,
        rules: None,
        clients: usize::try_from(options.idle + options.publishing + 1).unwrap_or(usize::MAX),
        window: 1,
        io: options.io.clone(),
        shards: options.shards,
    };
    let mut chain = Chain::start(&settings, folder.path(), Arc::new(Window::new()))?;
    let outcome = measure(options, &mut chain)?;
    Box::new(chain).finish()?;
    if options.json {
        let json = serde_json::to_string(&outcome).map_err(|error| Failure::Format {
            what: "the report".to_owned(),
            problem: error.to_string(),
        })?;
        println!("{json}");
    } else {
        print(&outcome);
    }
    Ok(())
}

fn measure(options: &Options, chain: &mut Chain) -> Result<Outcome, Failure> {
    let address = chain.devices();
    let gateway = chain
        .processes()
        .first()
        .map(|process| process.id())
        .unwrap_or_default();
    let before = Usage::read(gateway)?.pss_kib;
    let mut idle = Vec::with_capacity(usize::try_from(options.idle).unwrap_or_default());
    for number in 0..options.idle {
        idle.push(connect(address, &format!("idle-{number}"))?);
    }
    let after = Usage::read(gateway)?.pss_kib;
    let alone = publish(options, address)?;
    let mut slow = connect(address, "slow")?;
    let mut subscribe = Vec::new();
    packet::put_subscribe(&mut subscribe, 1, "#");
    slow.write_all(&subscribe).map_err(Failure::io("subscribing"))?;
    let beside_slow_subscriber = publish(options, address)?;
    drop((slow, idle));
    Ok(Outcome {
        idle_clients: options.idle,
        bytes_per_idle_client: after.saturating_sub(before) * 1024 / u64::from(options.idle),
        alone,
        beside_slow_subscriber,
    })
}

fn publish(options: &Options, address: SocketAddr) -> Result<Part, Failure> {
    let load = Load::connect(Settings {
        address,
        clients: usize::try_from(options.publishing).unwrap_or(usize::MAX),
        window: 1,
        payload_bytes: PAYLOAD_BYTES,
        rate: None,
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
    Ok(Part {
        acknowledged_per_sec: acked as f64 * 1e9 / elapsed as f64,
        acknowledgement: report.latencies.summary(),
    })
}

/// Connects one client that sends nothing more, and waits until it is accepted.
fn connect(address: SocketAddr, client_identifier: &str) -> Result<TcpStream, Failure> {
    let failed = || Failure::io(format!("connecting {client_identifier}"));
    let mut stream = TcpStream::connect(address).map_err(failed())?;
    let mut bytes = Vec::new();
    packet::put_connect(&mut bytes, client_identifier, 0);
    stream.write_all(&bytes).map_err(failed())?;
    let mut answer = [0; CONNACK_BYTES];
    stream.read_exact(&mut answer).map_err(failed())?;
    if answer == ACCEPTED {
        Ok(stream)
    } else {
        Err(Failure::peer(
            "the gateway",
            format!("refused {client_identifier}"),
        ))
    }
}

fn print(outcome: &Outcome) {
    println!(
        "{} idle clients: {} bytes each",
        outcome.idle_clients, outcome.bytes_per_idle_client
    );
    for (name, part) in [
        ("alone", &outcome.alone),
        ("beside a slow subscriber", &outcome.beside_slow_subscriber),
    ] {
        let (p50, p99) = part
            .acknowledgement
            .as_ref()
            .map_or((0.0, 0.0), |summary| (summary.p50_us, summary.p99_us));
        println!(
            "publishing {name}: {:.0} acknowledged/s, p50 {p50:.0} µs, p99 {p99:.0} µs",
            part.acknowledged_per_sec
        );
    }
}

const PAYLOAD_BYTES: usize = 100;
const CONNACK_BYTES: usize = 4;
/// CONNACK of MQTT 3.1.1: no session present, accepted.
const ACCEPTED: [u8; CONNACK_BYTES] = [0x20, 2, 0, 0];
