//! `relay`: thousands of members on one relay: memory of each, registrations per second, and how soon all are back after a crash.
//!
//! The members are nodes of the protocol crate in this process, each with a socket, a key and a handshake of its own. Figures of
//! registrations per second hold both sides' work: on a machine of their own the members would leave the relay its processors.

mod fleet;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use fieldgate_proto::identity::Identifier;
use serde::Serialize;

use self::fleet::Fleet;
use crate::clock;
use crate::failure::Failure;
use crate::node;
use crate::process::{Running, free_address};
use crate::procfs::Usage;

/// How many.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Members
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    members: u32,
    /// Members that connect at the same time at first; after a crash all do
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    at_once: u32,
    /// `[node] io` of the relay
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    io: String,
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
    members: u32,
    registrations_per_sec: f64,
    /// Processor time of the relay for one registration, handshake included, in microseconds.
    relay_cpu_us_per_registration: f64,
    /// Growth of the relay's proportional set size by a member that is registered.
    bytes_per_member: u64,
    /// From the end of the relay's process to its next one that listens.
    restart_secs: f64,
    /// From the end of the relay's process to the registration of the last member at the next one.
    all_back_secs: f64,
    /// The same for half of the members.
    half_back_secs: f64,
}

/// Measures, prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(Failure::io("making a private folder"))?;
    let outcome = measure(options, folder.path())?;
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

fn measure(options: &Options, folder: &Path) -> Result<Outcome, Failure> {
    let binary = crate::uplink::binary(options.gateway_binary.as_ref())?;
    let link = free_address()?;
    let count = usize::try_from(options.members).unwrap_or(usize::MAX);
    let text = |members: &[Identifier]| file(folder, &options.io, link, members);
    node::write_passphrase(folder)?;
    let relay = node::create_identity(&binary, folder, NAME, &text(&[]))?;
    let relay: Identifier = relay.parse().map_err(|_| Failure::Format {
        what: "the relay's identifier".to_owned(),
        problem: relay.clone(),
    })?;
    let mut fleet = Fleet::new(count, link, relay)?;
    let text = text(&fleet.identifiers());
    let process = node::start(&binary, folder, NAME, &text, link)?;
    let before = Usage::read(process.id())?;
    let start = clock::now();
    let at_once = usize::try_from(options.at_once).unwrap_or(usize::MAX);
    fleet.run_until(at_once, count)?;
    let seconds = (clock::now() - start) as f64 / 1e9;
    let after = Usage::read(process.id())?;
    let (process, back) = crash(&mut fleet, process, || {
        node::start(&binary, folder, NAME, &text, link)
    })?;
    process.stop()?;
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    Ok(Outcome {
        members: options.members,
        registrations_per_sec: f64::from(options.members) / seconds,
        relay_cpu_us_per_registration: cpu * 1e6 / f64::from(options.members),
        bytes_per_member: after.pss_kib.saturating_sub(before.pss_kib) * 1024 / u64::from(options.members),
        restart_secs: back.restart_secs,
        half_back_secs: back.half_secs,
        all_back_secs: back.all_secs,
    })
}

/// How long members were away.
struct Back {
    restart_secs: f64,
    half_secs: f64,
    all_secs: f64,
}

/// Kills the relay, starts it again at once, and waits until all members have come back by themselves.
fn crash(
    fleet: &mut Fleet,
    process: Running,
    start: impl FnOnce() -> Result<Running, Failure>,
) -> Result<(Running, Back), Failure> {
    let since = clock::now();
    let secs = || (clock::now() - since) as f64 / 1e9;
    // Dropping kills.
    drop(process);
    let process = start()?;
    let restart_secs = secs();
    // Members hear of the crash only now, as they have been waiting for this process; none is counted that was there before.
    fleet.forget_registered();
    let count = fleet.len();
    fleet.run_until(count, count.div_ceil(2))?;
    let half_secs = secs();
    fleet.run_until(count, count)?;
    let back = Back {
        restart_secs,
        half_secs,
        all_secs: secs(),
    };
    Ok((process, back))
}

/// Returns the relay's file.
fn file(folder: &Path, io: &str, link: SocketAddr, members: &[Identifier]) -> String {
    let links_max = members.len() + SPARE_LINKS;
    let mut text = node::head(folder, NAME, io, 1, "error");
    let _ = write!(
        text,
        "\n[link.tcp]\nlisten = [\"{link}\"]\n\n[relay]\nlinks_max = {links_max}\n"
    );
    let nobody = [Identifier::from_bytes([1; 32])];
    let members = if members.is_empty() { &nobody } else { members };
    for (index, identifier) in members.iter().enumerate() {
        let _ = write!(
            text,
            "\n[[relay.member]]\nname = \"{name}\"\nidentifier = \"{identifier}\"\nhold = [\"{name}\"]\nreach = []\n",
            name = fleet::name(index),
        );
    }
    text
}

fn print(outcome: &Outcome) {
    println!("{} members on one relay", outcome.members);
    println!(
        "  registrations/s, members in the same machine {:>10.0}",
        outcome.registrations_per_sec
    );
    println!(
        "  CPU of the relay, µs/registration            {:>10.0}",
        outcome.relay_cpu_us_per_registration
    );
    println!(
        "  memory of the relay, bytes/member            {:>10}",
        outcome.bytes_per_member
    );
    println!(
        "  killed: s until it listens again             {:>10.2}",
        outcome.restart_secs
    );
    println!(
        "          s until half of the members are back {:>10.2}",
        outcome.half_back_secs
    );
    println!(
        "          s until all members are back         {:>10.2}",
        outcome.all_back_secs
    );
}

const NAME: &str = "relay";
/// Links beside those of members: what shows that it listens.
const SPARE_LINKS: usize = 64;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fieldgate_proto::identity::Identifier;

    use super::file;

    #[test]
    fn fieldgate_takes_the_file() {
        let members = [7, 8].map(|byte| Identifier::from_bytes([byte; 32]));
        for members in [&members[..], &[]] {
            let text = file(
                Path::new("/tmp/bench"),
                "epoll",
                ([127, 0, 0, 1], 1).into(),
                members,
            );
            let loaded = fieldgate_config::load_str("bench.toml", &text, Path::new("/tmp"), "host");
            let said = loaded.problems.render_text(fieldgate_config::Colour::None, 100);
            assert!(loaded.settings.is_some(), "{said}\n{text}");
        }
    }
}
