//! `programs`: programs that people use, unchanged, through portals over relays.
//!
//! Each has a server behind the outlets' node and a client that knows the inlet's address only, and each checks what arrived. Nothing
//! here is a measurement; the seconds only tell whether something waits that should not.

mod clients;
mod servers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::clock;
use crate::failure::Failure;
use crate::place::Place;
use crate::portal::site;
use crate::process::{Running, free_address};

/// Which programs.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Programs to run; without it all
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Program::ALL)]
    only: Vec<Program>,
    /// `[node] io` of fieldgate
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    io: String,
    /// A Python with pymodbus
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The fieldgate binary; without it the one beside this program
    #[arg(long)]
    gateway_binary: Option<PathBuf>,
}

/// A program that is run through a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Program {
    /// psql asks a PostgreSQL server
    Psql,
    /// ssh sends a file through a command
    Ssh,
    /// rsync copies a tree over ssh, and compares checksums
    Rsync,
    /// A browser loads a page with 200 images
    Browser,
    /// Modbus/TCP: pymodbus as client and server
    Modbus,
    /// iperf3 with eight streams, both ways
    Iperf3,
}

impl Program {
    const ALL: [Self; 6] = [
        Self::Psql,
        Self::Ssh,
        Self::Rsync,
        Self::Browser,
        Self::Modbus,
        Self::Iperf3,
    ];

    /// Returns the name of its portal.
    const fn name(self) -> &'static str {
        match self {
            Self::Psql => "psql",
            Self::Ssh => "ssh",
            Self::Rsync => "rsync",
            Self::Browser => "browser",
            Self::Modbus => "modbus",
            Self::Iperf3 => "iperf3",
        }
    }
}

/// What programs and their servers need to know.
struct Ground<'a> {
    folder: &'a Path,
    python: &'a Path,
    /// Where the server is.
    server: SocketAddr,
    /// Where the client connects.
    entry: SocketAddr,
}

/// Runs the programs, prints a table, and fails if one failed.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(Failure::io("making a private folder"))?;
    let mut portals = Vec::new();
    for program in &options.only {
        portals.push(site::Portal {
            name: program.name(),
            entry: free_address()?,
            server: free_address()?,
        });
    }
    let settings = site::Settings {
        binary: crate::uplink::binary(options.gateway_binary.as_ref())?,
        io: options.io.clone(),
        relays: site::RELAYS_MAX,
    };
    let here = Place::here();
    let links = (0..settings.relays)
        .map(|_| free_address())
        .collect::<Result<_, _>>()?;
    let mut nodes = site::start(&settings, folder.path(), (&here, &here), links, &portals)?;
    println!(
        "{} programs through portals over {} relays",
        portals.len(),
        settings.relays
    );
    let mut failed = None;
    for (program, portal) in options.only.iter().zip(&portals) {
        let place = folder.path().join(format!("of-{}", portal.name));
        std::fs::create_dir(&place).map_err(Failure::io(format!("making {}", place.display())))?;
        let ground = Ground {
            folder: &place,
            python: &options.python,
            server: portal.server,
            entry: portal.entry,
        };
        let start = clock::now();
        let outcome = try_one(*program, &ground);
        let seconds = (clock::now() - start) as f64 / 1e9;
        match outcome {
            Ok(what) => println!("  {:<8} ok      {seconds:>6.1} s  {what}", portal.name),
            Err(failure) => {
                println!("  {:<8} FAILED  {seconds:>6.1} s  {failure}", portal.name);
                failed = failed.or(Some(failure));
            }
        }
        nodes.iter_mut().try_for_each(Running::check_alive)?;
    }
    nodes.into_iter().try_for_each(Running::stop)?;
    failed.map_or(Ok(()), Err)
}

/// Runs one program; returns what was seen.
fn try_one(program: Program, ground: &Ground<'_>) -> Result<String, Failure> {
    let server = servers::start(program, ground)?;
    let seen = clients::run(program, ground)?;
    if let Some(server) = server {
        server.stop()?;
    }
    Ok(seen)
}
