//! What runs through the portal while relays die.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::network::Network;
use super::site::{ENTRY, SERVER};
use super::tap::Tap;
use crate::clock;
use crate::failure::Failure;
use crate::node::write;
use crate::place::Place;
use crate::process::{Running, complete};

/// A client and its server.
pub(super) trait Load {
    /// Waits until the stream that carries the load flows, and has enough before it for one more death.
    fn await_flow(&mut self, tap: &Tap) -> Result<(), Failure>;
    /// Returns whether its stream is not broken.
    fn goes_on(&mut self) -> bool;
    /// Returns whether all that its stream had to carry has arrived.
    fn is_complete(&mut self) -> bool;
    /// Ends it; returns what was wrong with what arrived.
    fn finish(self: Box<Self>) -> Result<Vec<String>, Failure>;
}

/// Waits until a stream has brought at least `least` bytes.
fn await_bytes(
    tap: &Tap,
    least: u64,
    mut check: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let until = clock::now() + PATIENCE;
    while !check()? || tap.largest_open() < least {
        if clock::now() > until {
            return Err(Failure::peer("the load", "brings nothing to the far end"));
        }
        clock::pause(STEP);
    }
    Ok(())
}

/// iperf3, from the inlet to the outlet, as fast as it goes.
pub(super) struct Iperf3 {
    client: Running,
    server: Running,
}

impl Iperf3 {
    pub(super) fn start(network: &Network, folder: &Path, mbit: u32) -> Result<Self, Failure> {
        let mut command = network.hall.command("iperf3");
        command.args(["--server", "--bind", "127.0.0.1", "--port"]);
        command.arg(SERVER.port().to_string());
        let mut server = Running::start("iperf3-server", &mut command, folder)?;
        server.await_listener_at(&network.hall, SERVER)?;
        // The inlet may not listen, its channel may not be up: the client ends with the first refusal.
        let mut command = network.desk.command("sh");
        command.args(["-c", "until \"$@\"; do sleep 0.2; done", "sh", "iperf3"]);
        command.args(["--client", "127.0.0.1", "--port"]);
        command.arg(ENTRY.port().to_string());
        command.args(["--time", "1"]);
        run_limited(&mut command)?;
        let mut command = network.desk.command("iperf3");
        command.args(["--client", "127.0.0.1", "--port"]);
        command.arg(ENTRY.port().to_string());
        // Until it is told to end.
        command.args(["--time", "86400", "--interval", "60", "--bitrate"]);
        command.arg(format!("{mbit}M"));
        let client = Running::start("iperf3", &mut command, folder)?;
        Ok(Self { client, server })
    }
}

/// Runs a program to its end, which is not far.
fn run_limited(command: &mut Command) -> Result<(), Failure> {
    let mut limited = Command::new("timeout");
    limited
        .args(["--kill-after", "5", "120"])
        .arg(command.get_program());
    complete(limited.args(command.get_args())).map(drop)
}

impl Load for Iperf3 {
    fn await_flow(&mut self, tap: &Tap) -> Result<(), Failure> {
        await_bytes(tap, 1 << 20, || {
            self.client.check_alive()?;
            Ok(true)
        })
    }

    fn goes_on(&mut self) -> bool {
        self.client.check_alive().is_ok() && self.server.check_alive().is_ok()
    }

    fn is_complete(&mut self) -> bool {
        false
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<String>, Failure> {
        let mut broken = Vec::new();
        if let Err(failure) = self.client.check_alive() {
            broken.push(failure.to_string());
        } else if let Some(pid) = i32::try_from(self.client.id()).ok().and_then(Pid::from_raw) {
            // It says goodbye to the server and ends.
            kill_process(pid, Signal::INT)
                .map_err(|error| Failure::io("interrupting iperf3")(error.into()))?;
        }
        self.server.stop()?;
        Ok(broken)
    }
}

/// rsync of a random file at 10 MB/s to a daemon, again and again, each copy compared by hash.
pub(super) struct Rsync {
    desk: Place,
    folder: PathBuf,
    source: PathBuf,
    hash: String,
    daemon: Running,
    client: Running,
    copies: u32,
    broken: Vec<String>,
}

impl Rsync {
    pub(super) fn start(network: &Network, folder: &Path) -> Result<Self, Failure> {
        let source = folder.join("random");
        random_file(&source)?;
        let hash = hash(&source)?;
        let target = folder.join("copies");
        fs::create_dir(&target).map_err(Failure::io(format!("making {}", target.display())))?;
        let text = format!(
            "use chroot = no\nuid = {}\ngid = {}\n[copies]\npath = {}\nread only = no\n",
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
            target.display()
        );
        let file = write(folder, "rsyncd.conf", &text)?;
        let mut command = network.hall.command("rsync");
        command.args(["--daemon", "--no-detach", "--address", "127.0.0.1", "--port"]);
        command.arg(SERVER.port().to_string());
        command.arg("--config").arg(file);
        let mut daemon = Running::start("rsyncd", &mut command, folder)?;
        daemon.await_listener_at(&network.hall, SERVER)?;
        // Answers as soon as the portal leads somewhere.
        let list = format!("rsync://{ENTRY}/");
        let mut command = network.desk.command("sh");
        command.args(["-c", "until rsync \"$0\"; do sleep 0.2; done", &list]);
        run_limited(&mut command)?;
        let client = copy(&network.desk, folder, &source, 0)?;
        Ok(Self {
            desk: network.desk.clone(),
            folder: folder.to_owned(),
            source,
            hash,
            daemon,
            client,
            copies: 0,
            broken: Vec::new(),
        })
    }

    /// Compares the copy that is complete, and removes it.
    fn compare(&mut self) -> Result<(), Failure> {
        let path = self.folder.join("copies").join(self.copies.to_string());
        if hash(&path)? != self.hash {
            self.broken
                .push(format!("copy {} has another SHA-256", self.copies + 1));
        }
        fs::remove_file(&path).map_err(Failure::io(format!("removing {}", path.display())))
    }
}

fn copy(desk: &Place, folder: &Path, source: &Path, number: u32) -> Result<Running, Failure> {
    let mut command = desk.command("rsync");
    command.args(["--whole-file", "--bwlimit", BANDWIDTH]).arg(source);
    command.arg(format!("rsync://{ENTRY}/copies/{number}"));
    Running::start("rsync", &mut command, folder)
}

fn hash(path: &Path) -> Result<String, Failure> {
    let said = complete(Command::new("sha256sum").arg("--binary").arg(path))?;
    let said = String::from_utf8_lossy(&said);
    Ok(said.split(' ').next().unwrap_or_default().to_owned())
}

fn random_file(path: &Path) -> Result<(), Failure> {
    let write = || -> std::io::Result<()> {
        let mut random = File::open("/dev/urandom")?.take(FILE_BYTES);
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        std::io::copy(&mut random, &mut file)?;
        file.flush()
    };
    write().map_err(Failure::io(format!("writing {}", path.display())))
}

impl Load for Rsync {
    fn await_flow(&mut self, tap: &Tap) -> Result<(), Failure> {
        if self.client.success()?.is_none() && tap.largest_open() + LEFT_BYTES > FILE_BYTES {
            // The last bytes of a copy are no time for a death: what comes after them is no pause.
            while self.client.success()?.is_none() {
                clock::pause(STEP);
            }
        }
        match self.client.success()? {
            None => {}
            Some(true) => {
                self.compare()?;
                self.copies += 1;
                self.client = copy(&self.desk, &self.folder, &self.source, self.copies)?;
            }
            Some(false) => return Err(self.client.broken("failed")),
        }
        await_bytes(tap, 1 << 20, || {
            self.client.success().map(|ended| ended.is_none())
        })
    }

    fn goes_on(&mut self) -> bool {
        !matches!(self.client.success(), Ok(Some(false)) | Err(_)) && self.daemon.check_alive().is_ok()
    }

    fn is_complete(&mut self) -> bool {
        matches!(self.client.success(), Ok(Some(true)))
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<String>, Failure> {
        let outcome = loop {
            match self.client.success()? {
                None => clock::pause(STEP),
                Some(outcome) => break outcome,
            }
        };
        if outcome {
            self.compare()?;
        } else {
            self.broken.push(self.client.broken("failed").to_string());
        }
        self.daemon.stop()?;
        Ok(self.broken)
    }
}

/// As rsync's `--bwlimit` takes it: 10 MB/s, in bytes of 1000 to the kilobyte.
const BANDWIDTH: &str = "10MB";
/// Half a minute.
const FILE_BYTES: u64 = 300_000_000;
/// What has to be left of a copy when a relay dies.
const LEFT_BYTES: u64 = 60_000_000;
/// How long a load may take to begin, in nanoseconds.
const PATIENCE: u64 = 60_000_000_000;
const STEP: Duration = Duration::from_millis(20);
