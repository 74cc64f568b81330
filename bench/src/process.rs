//! Measured processes: started from here, known by their process identifier, ended from here.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::clock;
use crate::failure::Failure;
use crate::place::Place;

/// A process that runs until it is stopped; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command` with its output in `folder/<name>.log`.
    pub(crate) fn start(name: &'static str, command: &mut Command, folder: &Path) -> Result<Self, Failure> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).map_err(Failure::io(format!("creating {}", log.display())))?;
        let same = file.try_clone().map_err(Failure::io("sharing a log file"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(same)
            .spawn()
            .map_err(Failure::io(format!(
                "starting {name} ({})",
                command.get_program().display()
            )))?;
        Ok(Self { name, child, log })
    }

    /// Returns the name given at the start.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the process identifier.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process accepts connections at `address`.
    pub(crate) fn await_listener(&mut self, address: SocketAddr) -> Result<(), Failure> {
        self.await_listener_at(&Place::here(), address)
    }

    /// Waits until the process accepts connections at `address` of a place.
    pub(crate) fn await_listener_at(&mut self, place: &Place, address: SocketAddr) -> Result<(), Failure> {
        let until = clock::now() + READY_MAX;
        while place.connect(address).is_err() {
            self.check_alive()?;
            if clock::now() > until {
                return Err(self.broken(format!("does not listen at {address}")));
            }
            clock::pause(READY_STEP);
        }
        Ok(())
    }

    /// Fails if the process has ended.
    pub(crate) fn check_alive(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.broken(format!("ended with {status}"))),
            Err(error) => Err(Failure::io(format!("asking after {}", self.name))(error)),
        }
    }

    /// Returns whether a process that has ended did so without an error; `None` while it runs.
    pub(crate) fn success(&mut self) -> Result<Option<bool>, Failure> {
        match self.child.try_wait() {
            Ok(status) => Ok(status.map(|status| status.success())),
            Err(error) => Err(Failure::io(format!("asking after {}", self.name))(error)),
        }
    }

    /// Makes an error with the end of the process's log.
    pub(crate) fn broken(&self, problem: impl Into<String>) -> Failure {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(TAIL_LINES)..)
            .unwrap_or_default()
            .join("\n");
        Failure::Process {
            name: self.name.to_owned(),
            problem: problem.into(),
            log: self.log.clone(),
            tail,
        }
    }

    /// Asks the process to end and waits for it; one that does not is killed and reported.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        self.check_alive()?;
        let ended = self.signal_and_wait(Signal::TERM);
        if !ended {
            return Err(self.broken("did not end within the time given"));
        }
        // Waiting collects the exit status; the process has ended already.
        self.child
            .wait()
            .map(drop)
            .map_err(Failure::io(format!("waiting for {}", self.name)))
    }

    /// Sends a signal and says whether the process ended within [`STOP_MAX`].
    fn signal_and_wait(&self, signal: Signal) -> bool {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else {
            return false;
        };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        if kill_process(pid, signal).is_err() {
            return false;
        }
        let mut descriptors = [PollFd::new(&handle, PollFlags::IN)];
        poll(&mut descriptors, Some(&STOP_MAX)).is_ok_and(|ready| ready == 1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end.
///
/// # Errors
///
/// With what it wrote to its standard error if it fails.
pub(crate) fn complete(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let what = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(Failure::io(format!("starting {what}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::peer(
        what,
        format!("ended with {}: {said}", output.status),
    ))
}

/// Finds a loopback port that is free now.
pub(crate) fn free_address() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(Failure::io("looking for a free port"))?;
    listener.local_addr().map_err(Failure::io("asking for a port"))
}

/// How long a process may take to listen, in nanoseconds.
const READY_MAX: u64 = 60_000_000_000;
const READY_STEP: Duration = Duration::from_millis(20);
/// How long a process may take to end.
const STOP_MAX: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};
const TAIL_LINES: usize = 20;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Running, complete, free_address};
    use crate::failure::Failure;

    #[test]
    fn a_process_is_stopped_by_its_identifier() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Running::start(
            "cat",
            Command::new("tail").args(["-f", "/dev/null"]),
            folder.path(),
        )
        .unwrap();
        process.check_alive().unwrap();
        process.stop().unwrap();
    }

    #[test]
    fn a_process_that_ends_early_is_reported_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let script = ["-c", "echo last words; exit 3"];
        let mut process = Running::start("sh", Command::new("sh").args(script), folder.path()).unwrap();
        let failure = process.await_listener(free_address().unwrap()).unwrap_err();
        let Failure::Process { problem, tail, .. } = failure else {
            panic!("{failure}")
        };
        assert!(problem.contains("exit status: 3"), "{problem}");
        assert_eq!(tail, "last words");
    }

    #[test]
    fn a_failing_program_is_reported_with_its_standard_error() {
        let failure = complete(Command::new("sh").args(["-c", "echo no >&2; exit 1"])).unwrap_err();
        assert!(failure.to_string().ends_with("no"), "{failure}");
    }
}
