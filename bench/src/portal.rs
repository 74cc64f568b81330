//! `portal`: streams through fieldgate beside loopback, stunnel, ssh and nebula, in one run.

mod iperf3;
pub(crate) mod plain;
mod report;
mod rivals;
mod server;
pub(crate) mod site;
mod traffic;
mod tunnel;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tempfile::TempDir;

use self::report::Report;
use self::rivals::Ground;
use self::server::Server;
use self::traffic::Way;
use self::tunnel::Tunnel;
use self::wire::{Quality, Wire};
use crate::failure::Failure;
use crate::latency::Summary;
use crate::place::Place;
use crate::process::free_address;
use crate::procfs::Usage;

/// What is compared, and how long.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Systems to measure, in turns; without it all
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = System::ALL)]
    systems: Vec<System>,
    /// Kinds of traffic; without it all
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    traffic: Vec<Kind>,
    /// Rounds; ratios are taken inside a round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Measured seconds of each system, kind and round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Streams at once
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1024))]
    streams: u16,
    /// `[node] io` of fieldgate
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    io: String,
    /// Milliseconds there and back on a wire between clients and servers, each in a namespace; without it there is no wire. Needs root
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    round_trip_ms: Option<u32>,
    /// Percent of the frames that the wire loses, in each direction
    #[arg(long, default_value_t = 0.0, requires = "round_trip_ms", value_parser = percent)]
    loss_percent: f64,
    /// Megabits per second of the wire
    #[arg(long, default_value_t = 100, requires = "round_trip_ms", value_parser = clap::value_parser!(u32).range(1..=1000))]
    mbit: u32,
    /// The fieldgate binary; without it the one beside this program
    #[arg(long)]
    gateway_binary: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|percent| (0.0..=100.0).contains(percent));
    number.ok_or_else(|| "a number between 0 and 100 is wanted".to_owned())
}

impl Options {
    /// Returns what the wire does, if there is one.
    fn wire(&self) -> Option<Quality> {
        let round_trip = u64::from(self.round_trip_ms?) * 1_000_000;
        Some(Quality {
            delay_nanos: round_trip / 2,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "at most a million, at least 0"
            )]
            loss_ppm: (self.loss_percent * 1e4).round() as u32,
            bits_per_sec: u64::from(self.mbit) * 1_000_000,
            // As routers are set up: about a round trip, and not less than a burst takes.
            queue_nanos: round_trip.max(20_000_000),
        })
    }
}

/// A way from clients to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// No tunnel: TCP over loopback, or over the wire
    Loopback,
    /// fieldgate, the two nodes linked with each other
    Direct,
    /// fieldgate over one relay
    Relay,
    /// fieldgate over two relays, one behind the other
    Relays,
    /// stunnel on both sides, TLS 1.3, AES-128-GCM
    Stunnel,
    /// `ssh -L`, aes128-gcm
    Ssh,
    /// Two nebula nodes in namespaces; needs root
    Nebula,
    /// Three processes that copy from one TCP connection to the next: what the four hops over one relay cost alone
    Hops,
}

impl System {
    const ALL: [Self; 8] = [
        Self::Loopback,
        Self::Direct,
        Self::Relay,
        Self::Relays,
        Self::Stunnel,
        Self::Ssh,
        Self::Nebula,
        Self::Hops,
    ];

    /// Returns the name on the command line.
    const fn key(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Relays => "relays",
            Self::Stunnel => "stunnel",
            Self::Ssh => "ssh",
            Self::Nebula => "nebula",
            Self::Hops => "hops",
        }
    }

    /// Returns the name in tables.
    const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "plain TCP",
            Self::Direct => "fieldgate, direct",
            Self::Relay => "fieldgate, 1 relay",
            Self::Relays => "fieldgate, 2 relays",
            Self::Stunnel => "stunnel",
            Self::Ssh => "ssh -L",
            Self::Nebula => "nebula",
            Self::Hops => "3 plain TCP relays",
        }
    }
}

/// What is put through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// One stream as fast as it goes
    Bulk,
    /// The same from iperf3 to iperf3, 64 KiB per write
    Iperf3,
    /// 64 bytes there and back
    Ping,
    /// Streams opened, used for a byte, closed
    Connects,
    /// Many streams at once
    Many,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Bulk, Self::Iperf3, Self::Ping, Self::Connects, Self::Many];
}

/// What one system did in one round; what was not asked for is `None`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Measured {
    system: System,
    round: u32,
    gbit_per_sec: Option<f64>,
    /// Processor time of the tunnel's processes, in seconds per 10^9 bytes.
    cpu_secs_per_gb: Option<f64>,
    iperf3_gbit_per_sec: Option<f64>,
    ping: Option<Summary>,
    connects_per_sec: Option<f64>,
    /// From the first connect to the first message back through the last of many streams.
    many_opened_ms: Option<f64>,
    many_trips_per_sec: Option<f64>,
    /// Proportional set size of the tunnel's processes while many streams are open.
    many_pss_kib: Option<u64>,
    /// Highest resident set until then, summed over the processes.
    peak_rss_kib: Option<u64>,
}

/// A system that is up.
struct Rig {
    system: System,
    near: Place,
    server: Server,
    tunnel: Tunnel,
    /// Between clients and servers.
    wire: Option<Wire>,
    /// Below it are the system's files.
    folder: TempDir,
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut rigs = Vec::new();
    for system in System::ALL
        .into_iter()
        .filter(|system| options.systems.contains(system))
    {
        let rig = Rig::start(options, system)?;
        rig.way().await_up()?;
        rigs.push(rig);
    }
    let mut measured = Vec::new();
    for round in 0..options.rounds {
        // Every round begins with another one.
        let first = usize::try_from(round).unwrap_or(0) % rigs.len().max(1);
        let (later, earlier) = rigs.split_at_mut(first);
        for rig in earlier.iter_mut().chain(later) {
            if !options.json {
                eprintln!("round {}: {}", round + 1, rig.system.name());
            }
            measured.push(rig.measure(options, round)?);
        }
    }
    for rig in rigs {
        if let Some(wire) = rig.wire.as_ref().filter(|_| !options.json) {
            let (lost, overflowed) = wire.lost_permille();
            let name = rig.system.name();
            eprintln!(
                "{name}: the wire lost {lost:.1} ‰ of the frames by chance and {overflowed:.1} ‰ for want of room"
            );
        }
        rig.tunnel.stop()?;
    }
    let report = Report::new(options, measured);
    if options.json {
        println!("{}", report.json()?);
    } else {
        print!("{}", report.text());
    }
    Ok(())
}

impl Rig {
    fn start(options: &Options, system: System) -> Result<Self, Failure> {
        let folder = tempfile::tempdir().map_err(Failure::io("making a private folder"))?;
        let quality = options.wire();
        let (near, far) = if quality.is_some() || system == System::Nebula {
            let place = |end| Place::fresh(&format!("{}-{end}", system.key()));
            (place("near")?, place("far")?)
        } else {
            (Place::here(), Place::here())
        };
        let wire = quality
            .map(|quality| Wire::join(system.key(), &near, &far, quality))
            .transpose()?;
        if wire.is_none() && system == System::Nebula {
            rivals::join(&near, &far)?;
        }
        let outside = match quality {
            Some(_) => rivals::FAR_ADDRESS.parse().expect("it is an address"),
            None => Ipv4Addr::LOCALHOST,
        };
        let serves: SocketAddr = match system {
            System::Nebula => (Ipv4Addr::UNSPECIFIED, rivals::SERVER_PORT).into(),
            System::Loopback => (outside, 0).into(),
            System::Direct
            | System::Relay
            | System::Relays
            | System::Stunnel
            | System::Ssh
            | System::Hops => (Ipv4Addr::LOCALHOST, 0).into(),
        };
        let server = Server::start(&far, serves)?;
        let ground = Ground {
            folder: folder.path(),
            near: &near,
            far: &far,
            entry: free_address()?,
            meeting: (outside, free_address()?.port()).into(),
            server: server.address(),
        };
        let tunnel = match system {
            System::Loopback => Tunnel {
                entry: server.address(),
                processes: Vec::new(),
            },
            System::Direct => fieldgate(options, &ground, 0)?,
            System::Relay => fieldgate(options, &ground, 1)?,
            System::Relays => fieldgate(options, &ground, 2)?,
            System::Stunnel => rivals::stunnel(&ground)?,
            System::Ssh => rivals::ssh(&ground)?,
            System::Nebula => rivals::nebula(folder.path(), &near, &far)?,
            System::Hops => plain::start(&ground)?,
        };
        Ok(Self {
            system,
            near,
            server,
            tunnel,
            wire,
            folder,
        })
    }

    const fn way(&self) -> Way<'_> {
        Way {
            near: &self.near,
            entry: self.tunnel.entry,
            server: &self.server,
        }
    }

    fn measure(&mut self, options: &Options, round: u32) -> Result<Measured, Failure> {
        let seconds = Duration::from_secs(options.seconds);
        let Self {
            system,
            near,
            server,
            tunnel,
            folder,
            ..
        } = self;
        let way = Way {
            near,
            entry: tunnel.entry,
            server,
        };
        let wants = |kind| options.traffic.contains(&kind);
        let bulk = wants(Kind::Bulk)
            .then(|| way.bulk(seconds, || tunnel.usage()))
            .transpose()?;
        let iperf3 = wants(Kind::Iperf3)
            .then(|| iperf3::run(near, tunnel.entry, server, folder.path(), options.seconds))
            .transpose()?;
        let way = Way {
            near,
            entry: tunnel.entry,
            server,
        };
        let ping = wants(Kind::Ping).then(|| way.ping(seconds)).transpose()?;
        let connects = wants(Kind::Connects).then(|| way.connects(seconds)).transpose()?;
        let many = wants(Kind::Many)
            .then(|| way.many(options.streams.into(), seconds, || tunnel.usage()))
            .transpose()?;
        let of_many = |usage: fn(&Usage) -> u64| many.as_ref().map(|many| usage(&many.sample));
        Ok(Measured {
            system: *system,
            round,
            gbit_per_sec: bulk
                .as_ref()
                .map(|bulk| bulk.bytes as f64 * 8.0 / bulk.nanos as f64),
            cpu_secs_per_gb: bulk.as_ref().map(|bulk| {
                let cpu = bulk.after.cpu.saturating_sub(bulk.before.cpu);
                cpu.as_secs_f64() * 1e9 / bulk.bytes.max(1) as f64
            }),
            iperf3_gbit_per_sec: iperf3,
            ping,
            connects_per_sec: connects,
            many_opened_ms: many.as_ref().map(|many| many.opened_nanos as f64 / 1e6),
            many_trips_per_sec: many.as_ref().map(|many| many.trips_per_sec),
            many_pss_kib: of_many(|usage| usage.pss_kib),
            peak_rss_kib: of_many(|usage| usage.peak_rss_kib),
        })
    }
}

/// Starts fieldgate with so many relays between its two nodes, all where the server is.
fn fieldgate(options: &Options, ground: &Ground<'_>, relays: usize) -> Result<Tunnel, Failure> {
    let settings = site::Settings {
        binary: crate::uplink::binary(options.gateway_binary.as_ref())?,
        io: options.io.clone(),
        relays,
    };
    let links = (0..relays.max(1))
        .map(|_| Ok((ground.meeting.ip(), free_address()?.port()).into()))
        .collect::<Result<_, Failure>>()?;
    let portal = site::Portal {
        name: "bench",
        entry: ground.entry,
        server: ground.server,
    };
    let processes = site::start(
        &settings,
        ground.folder,
        (ground.near, ground.far),
        links,
        std::slice::from_ref(&portal),
    )?;
    Ok(Tunnel {
        entry: portal.entry,
        processes,
    })
}
