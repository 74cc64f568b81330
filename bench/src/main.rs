//! Load generators and side-by-side measurements of fieldgate.
//!
//! Figures of different runs are not comparable: whatever is compared is measured in turns in one run.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks on its standard streams"
)]

mod backlog;
mod channel;
mod clients;
mod clock;
mod consumer;
mod failure;
mod kills;
mod latency;
mod load;
mod node;
mod packet;
mod place;
mod portal;
mod press;
mod process;
mod procfs;
mod programs;
mod relay;
mod spread;
mod stamp;
mod uplink;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::Failure;

#[derive(Parser)]
#[command(
    name = "fieldgate-bench",
    about = "Load generators and side-by-side measurements of fieldgate"
)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// MQTT clients that publish to any broker or gateway
    Load(press::Options),
    /// fieldgate beside a mosquitto bridge: readings/s, CPU, system calls, latency, memory
    Uplink(uplink::Options),
    /// A backlog that drains beside live traffic: readings/s, latencies with and without it
    Backlog(backlog::Options),
    /// The end-to-end channel beside plain sealing
    Channel(channel::Options),
    /// Memory of idle MQTT clients, and publishing beside a subscriber that does not read
    Clients(clients::Options),
    /// Streams through portals beside loopback, stunnel, ssh and nebula: Gbit/s, CPU, latency, connections, memory
    Portal(portal::Options),
    /// Copies from one TCP connection to another, for `portal`
    #[command(hide = true)]
    PlainRelay(portal::plain::Options),
    /// Thousands of members on one relay: registrations/s, memory, and how soon all are back after a crash
    Relay(relay::Options),
    /// Streams through portals while the relay in use is killed, or its cable pulled, again and again: how long they pause
    Kills(kills::Options),
    /// Programs that people use, through portals over relays
    Programs(programs::Options),
}

fn main() -> ExitCode {
    raise_descriptor_limit();
    let outcome = match &Arguments::parse().what {
        What::Load(options) => press::run(options),
        What::Uplink(options) => uplink::run(options),
        What::Backlog(options) => backlog::run(options),
        What::Channel(options) => channel::run(options),
        What::Clients(options) => clients::run(options),
        What::Portal(options) => portal::run(options),
        What::PlainRelay(options) => portal::plain::run(options),
        What::Relay(options) => relay::run(options),
        What::Kills(options) => kills::run(options),
        What::Programs(options) => programs::run(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            ExitCode::FAILURE
        }
    }
}

fn report(failure: &Failure) {
    eprintln!("fieldgate-bench: {failure}");
    if let Some(cause) = failure.source() {
        eprintln!("  caused by: {cause}");
    }
    eprintln!("  help: {}", failure.hint());
}

/// A thousand clients are more than the usual soft limit; the measured processes inherit the new one.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Refused: connecting will say so, with the number of clients that did connect.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}
