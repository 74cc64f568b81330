//! `fieldgate relay`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use fieldgate_io::clock::monotonic;

use super::{Failure, print, print_json, run::control_runtime};
use crate::{
    cli::{DrainArgs, RelayCommand, StatusArgs},
    control::{self, relay::RelayJob},
    status::{DrainStatus, NodeStatus, bytes},
};

/// Carries out a command about the relay.
pub(super) fn run(command: &RelayCommand) -> Result<(), Failure> {
    match command {
        RelayCommand::Drain(args) => drain(args),
        RelayCommand::Undrain(args) => {
            ask(&socket(args)?, RelayJob::Undrain {})?;
            print("members may stay, and come again\n")
        }
    }
}

/// Has members leave, shows how far that is, and names those who do not.
fn drain(args: &DrainArgs) -> Result<(), Failure> {
    let socket = socket(&args.node)?;
    let within_secs = args.wait;
    ask(&socket, RelayJob::Drain { within_secs })?;
    let ticker = Ticker::new()?;
    let deadline = monotonic() + u64::from(within_secs) * NANOS_PER_SEC;
    let mut progress = Progress::default();
    let left = loop {
        let status = control::ask_status(&socket)
            .map_err(|error| Failure::chain("status", &error).hint("look whether the relay has ended"))?;
        let Some(drain) = status.network.drain.clone() else {
            return Err(Failure::new("somebody has taken the draining back")
                .hint("ask whoever has run `fieldgate relay undrain`"));
        };
        if !args.node.json {
            progress.show(&status, &drain)?;
        }
        if drain.left == 0 || !drain.is_waiting || monotonic() >= deadline {
            break drain;
        }
        ticker.wait();
    };
    if args.stop {
        ask(&socket, RelayJob::Stop {})?;
        wait_stopped(&socket, &ticker)?;
    }
    if args.node.json {
        print_json(&left)?;
    } else {
        print(&verdict(&left, args.stop))?;
    }
    if left.left == 0 {
        Ok(())
    } else {
        Err(Failure::silent(1))
    }
}

/// What has come of it, in words.
fn verdict(drain: &DrainStatus, stopped: bool) -> String {
    let end = if stopped { ", and has stopped" } else { "" };
    if drain.left == 0 {
        return format!("the relay is empty{end}\n");
    }
    let mut text = format!("{} members are still there{end}:\n", drain.left);
    drain
        .write_members(&mut text)
        .expect("writing to memory cannot fail");
    text
}

/// What was shown last.
#[derive(Default)]
struct Progress {
    shown: Option<(u64, u64)>,
    /// When they were looked at, in nanoseconds, and how many there were.
    bytes: Option<(u64, u64)>,
}

impl Progress {
    /// Prints a line whenever something has changed.
    fn show(&mut self, status: &NodeStatus, drain: &DrainStatus) -> Result<(), Failure> {
        let now = monotonic();
        let forwarded = status.network.forwarded_bytes;
        let moved = match self.bytes.replace((now, forwarded)) {
            Some((since, before)) => {
                let elapsed = u128::from(now.saturating_sub(since).max(1));
                let moved = u128::from(forwarded.saturating_sub(before)) * u128::from(NANOS_PER_SEC);
                u64::try_from(moved / elapsed).unwrap_or(u64::MAX)
            }
            None => 0,
        };
        let state = (drain.left, drain.labels);
        if self.shown.replace(state) == Some(state) {
            return Ok(());
        }
        print(&format!(
            "{} members left, {} without another way, {} labels in use, {}/s moving\n",
            drain.left,
            drain.stuck,
            drain.labels,
            bytes(moved)
        ))
    }
}

/// Waits until nobody answers there any more.
fn wait_stopped(socket: &Path, ticker: &Ticker) -> Result<(), Failure> {
    let deadline = monotonic() + STOP_SECS_MAX * NANOS_PER_SEC;
    while control::ask_status(socket).is_ok() {
        if monotonic() >= deadline {
            return Err(
                Failure::new(format!("the node has not ended in {STOP_SECS_MAX} s"))
                    .hint("look into its log; `systemctl stop` kills it in the end"),
            );
        }
        ticker.wait();
    }
    Ok(())
}

/// Waits between two looks.
struct Ticker(tokio::runtime::Runtime);

impl Ticker {
    fn new() -> Result<Self, Failure> {
        control_runtime().map(Self)
    }

    fn wait(&self) {
        self.0.block_on(async { tokio::time::sleep(LOOK_EVERY).await });
    }
}

fn socket(args: &StatusArgs) -> Result<PathBuf, Failure> {
    match &args.socket {
        Some(socket) => Ok(socket.clone()),
        None => Ok(super::check::settings(&args.config)?.node.control_socket),
    }
}

fn ask(socket: &Path, job: RelayJob) -> Result<(), Failure> {
    control::ask_relay(socket, job).map_err(|error| {
        Failure::chain("relay", &error).hint(
            "is the node running, is it a relay, and may you open its control socket? (`fieldgate run`, group of the socket)",
        )
    })
}

/// How often a person is shown how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest time that a node may take to end: sinks and journal are brought to their end.
const STOP_SECS_MAX: u64 = 60;
const NANOS_PER_SEC: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_says_who_is_left() {
        let mut drain = DrainStatus::default();
        assert_eq!(verdict(&drain, false), "the relay is empty\n");
        assert_eq!(verdict(&drain, true), "the relay is empty, and has stopped\n");
        drain.left = 2;
        assert_eq!(
            verdict(&drain, false),
            "2 members are still there:\n  and 2 more\n"
        );
    }
}
