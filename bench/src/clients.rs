//! `clients`: what many clients cost a gateway, and what one that does not read costs the others.
//!
//! 1. Idle clients connect; the gateway's proportional set size before and after gives the memory of one.
//! 2. Beside them others publish, in turns: among themselves, beside a subscriber to everything that reads, and beside that one and two
//!    that subscribe to everything, at QoS 0 and 1, and read nothing. The gateway has `slow_consumer = "drop"`, so these two stay.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::clock::{self, Window};
use crate::failure::Failure;
use crate::latency::Summary;
use crate::load::{Load, Progress, Settings};
use crate::packet::{self, Inbox, TooLong, kind};
use crate::procfs::Usage;
use crate::spread::Spread;
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
    /// Rounds; ratios are taken inside a round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
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
    publishing_clients: u32,
    /// In the order of [`Company::ALL`].
    parts: Vec<Part>,
    /// Acknowledged publishes beside the slow subscribers by those beside the one that reads alone, round by round.
    kept_of_publishing: Spread,
    /// The same for what the subscriber that reads was sent.
    kept_of_reading: Spread,
}

/// Who is there beside publishers and idle clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Company {
    /// Nobody.
    Nobody,
    /// A subscriber that reads.
    Reader,
    /// That one, and two that do not read.
    ReaderAndSlow,
}

impl Company {
    const ALL: [Self; 3] = [Self::Nobody, Self::Reader, Self::ReaderAndSlow];

    const fn words(self) -> &'static str {
        match self {
            Self::Nobody => "alone",
            Self::Reader => "beside one that reads",
            Self::ReaderAndSlow => "and two that do not",
        }
    }
}

/// One kind of publishing, over all rounds.
#[derive(Debug, Serialize)]
struct Part {
    company: Company,
    acknowledged_per_sec: Spread,
    acknowledgement_p50_us: Spread,
    acknowledgement_p99_us: Spread,
    /// What the subscriber that reads was sent.
    read_per_sec: Spread,
}

/// One kind of publishing in one round.
#[derive(Clone, Copy, Debug)]
struct Measured {
    acknowledged_per_sec: f64,
    acknowledgement: Summary,
    read_per_sec: f64,
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(Failure::io("making a private folder"))?;
    let settings = chain::Settings {
        binary: crate::uplink::binary(options.gateway_binary.as_ref())?,
        durable: true,
        timed: false,
        rules: None,
        clients: usize::try_from(options.idle + options.publishing).unwrap_or(usize::MAX) + SUBSCRIBERS,
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
    let mut rounds = Vec::new();
    for round in 0..options.rounds {
        let mut measured = [None; Company::ALL.len()];
        for turn in 0..Company::ALL.len() {
            // Every round begins with another one.
            let index = (turn + usize::try_from(round).unwrap_or_default()) % Company::ALL.len();
            measured[index] = Some(publish(options, address, Company::ALL[index])?);
        }
        rounds.push(measured);
    }
    drop(idle);
    let spread = |of: &dyn Fn(&[Option<Measured>; 3]) -> Option<f64>| {
        Spread::of(rounds.iter().filter_map(of)).ok_or_else(|| Failure::peer("measurement", "has no round"))
    };
    let mut parts = Vec::new();
    for (index, company) in Company::ALL.into_iter().enumerate() {
        let part = |of: fn(&Measured) -> f64| spread(&|round| round[index].as_ref().map(of));
        parts.push(Part {
            company,
            acknowledged_per_sec: part(|measured| measured.acknowledged_per_sec)?,
            acknowledgement_p50_us: part(|measured| measured.acknowledgement.p50_us)?,
            acknowledgement_p99_us: part(|measured| measured.acknowledgement.p99_us)?,
            read_per_sec: part(|measured| measured.read_per_sec)?,
        });
    }
    let kept = |of: fn(&Measured) -> f64| {
        spread(&|[_, reader, slow]| Some(of(slow.as_ref()?) / of(reader.as_ref()?).max(1.0)))
    };
    Ok(Outcome {
        idle_clients: options.idle,
        bytes_per_idle_client: after.saturating_sub(before) * 1024 / u64::from(options.idle),
        publishing_clients: options.publishing,
        kept_of_publishing: kept(|measured| measured.acknowledged_per_sec)?,
        kept_of_reading: kept(|measured| measured.read_per_sec)?,
        parts,
    })
}

fn publish(options: &Options, address: SocketAddr, company: Company) -> Result<Measured, Failure> {
    let reader = match company {
        Company::Nobody => None,
        Company::Reader | Company::ReaderAndSlow => Some(Reader::subscribe(address)?),
    };
    let slow = match company {
        Company::Nobody | Company::Reader => Vec::new(),
        Company::ReaderAndSlow => vec![subscribe(address, "slow-0", 0)?, subscribe(address, "slow-1", 1)?],
    };
    let load = Load::connect(Settings {
        payload_bytes: PAYLOAD_BYTES,
        ..Settings::new(
            address,
            usize::try_from(options.publishing).unwrap_or(usize::MAX),
            None,
        )
    })?;
    let (window, progress) = (Window::new(), Progress::default());
    let read = || reader.as_ref().map_or(0, Reader::messages);
    let (report, elapsed, acked, read) = thread::scope(|scope| {
        let generator = scope.spawn(|| load.run(&window, &progress));
        clock::pause(WARM_UP);
        let start = clock::now();
        window.open(start);
        let (acked_before, read_before) = (progress.acked(), read());
        clock::pause(Duration::from_secs(options.seconds));
        let elapsed = clock::now() - start;
        let (acked, read) = (progress.acked() - acked_before, read() - read_before);
        progress.stop();
        let report = generator
            .join()
            .unwrap_or_else(|_| Err(Failure::peer("load generator", "panicked")));
        report.map(|report| (report, elapsed, acked, read))
    })?;
    for stream in slow {
        demand_open(stream)?;
    }
    let acknowledgement = report.latencies.summary();
    Ok(Measured {
        acknowledged_per_sec: acked as f64 * 1e9 / elapsed as f64,
        acknowledgement: acknowledgement
            .ok_or_else(|| Failure::peer("the gateway", "acknowledged nothing"))?,
        read_per_sec: read as f64 * 1e9 / elapsed as f64,
    })
}

/// Connects a client that subscribes to everything.
fn subscribe(address: SocketAddr, client_identifier: &str, qos: u8) -> Result<TcpStream, Failure> {
    let mut stream = connect(address, client_identifier)?;
    let mut bytes = Vec::new();
    packet::put_subscribe(&mut bytes, 1, "#", qos);
    stream.write_all(&bytes).map_err(Failure::io("subscribing"))?;
    Ok(stream)
}

/// Reads what has been waiting for a client that did not read, to see that it still was a subscriber.
fn demand_open(mut stream: TcpStream) -> Result<(), Failure> {
    stream
        .set_nonblocking(true)
        .map_err(Failure::io("making a socket non-blocking"))?;
    let mut scratch = vec![0; SCRATCH_BYTES];
    let mut waiting = 0;
    loop {
        match stream.read(&mut scratch) {
            Ok(0) => {
                return Err(Failure::peer(
                    "the gateway",
                    "closed the connection of a slow subscriber",
                ));
            }
            Ok(read) => waiting += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::io("reading what waited for a slow subscriber")(error)),
        }
        if waiting > WAITING_BYTES_MAX {
            break;
        }
    }
    if waiting > SCRATCH_BYTES {
        Ok(())
    } else {
        Err(Failure::peer(
            "the gateway",
            format!("had only {waiting} bytes waiting for a slow subscriber"),
        ))
    }
}

/// A subscriber to everything that reads it.
struct Reader {
    stream: TcpStream,
    messages: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn subscribe(address: SocketAddr) -> Result<Self, Failure> {
        let stream = subscribe(address, "reader", 0)?;
        let mut ours = stream.try_clone().map_err(Failure::io("sharing a socket"))?;
        let messages = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&messages);
        let work = move || {
            let mut inbox = Inbox::default();
            let mut scratch = vec![0; SCRATCH_BYTES];
            while let Ok(read @ 1..) = ours.read(&mut scratch) {
                let mut arrived = 0;
                let fed = inbox.feed(scratch.get(..read).unwrap_or_default(), |packet| {
                    arrived += u64::from(packet.kind() == kind::PUBLISH);
                    Ok::<(), TooLong>(())
                });
                count.fetch_add(arrived, Ordering::AcqRel);
                if fed.is_err() {
                    // What does not count shows in the figures.
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("reader".to_owned()).spawn(work);
        Ok(Self {
            stream,
            messages,
            thread: Some(thread.map_err(Failure::io("starting a thread"))?),
        })
    }

    fn messages(&self) -> u64 {
        self.messages.load(Ordering::Acquire)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may be closed already: then the thread has noticed.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // It only counts.
            let _ = thread.join();
        }
    }
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
    println!(
        "{} clients that publish, beside them{:>20}{:>22}{:>22}{:>22}",
        outcome.publishing_clients, "acknowledged/s", "p50 µs", "p99 µs", "read/s"
    );
    for part in &outcome.parts {
        println!(
            "{:<34}{:>22}{:>22}{:>22}{:>22}",
            part.company.words(),
            part.acknowledged_per_sec.to_string(),
            part.acknowledgement_p50_us.to_string(),
            part.acknowledgement_p99_us.to_string(),
            part.read_per_sec.to_string()
        );
    }
    println!(
        "beside slow subscribers the others keep of what they did: publishing × {}, reading × {}",
        outcome.kept_of_publishing, outcome.kept_of_reading
    );
}

const PAYLOAD_BYTES: usize = 100;
/// Clients that subscribe, at the most at once; those of the last part may not have gone when the next begins.
const SUBSCRIBERS: usize = 6;
/// From the beginning of the publishing to that of its measurement: queues of slow subscribers are full then.
const WARM_UP: Duration = Duration::from_secs(1);
const SCRATCH_BYTES: usize = 64 << 10;
/// More does not wait for one client, in the gateway and in the kernel.
const WAITING_BYTES_MAX: usize = 64 << 20;
const CONNACK_BYTES: usize = 4;
/// CONNACK of MQTT 3.1.1: no session present, accepted.
const ACCEPTED: [u8; CONNACK_BYTES] = [0x20, 2, 0, 0];
