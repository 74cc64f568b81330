//! Child processes whose output is read while they run.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{Deadline, PATIENCE};

/// A running program. It is killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    looked: usize,
}

impl Process {
    /// Starts `command`; `name` stands in messages.
    ///
    /// # Panics
    /// If it does not start.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::null());
        Self::of(name, command).0
    }

    /// Starts `command` and returns its standard input too.
    ///
    /// # Panics
    /// If it does not start.
    pub(crate) fn spawn_with_input(name: &str, command: &mut Command) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let (process, input) = Self::of(name, command);
        (process, input.expect("it is piped"))
    }

    fn of(name: &str, command: &mut Command) -> (Self, Option<ChildStdin>) {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = start(command);
        let input = child.stdin.take();
        let (sender, lines) = channel();
        let out = child.stdout.take().expect("it is piped");
        let err = child.stderr.take().expect("it is piped");
        read_lines(out, sender.clone());
        read_lines(err, sender);
        let process = Self {
            name: name.to_owned(),
            child,
            lines,
            seen: Vec::new(),
            looked: 0,
        };
        (process, input)
    }

    /// Waits for the next line of either stream that `want` takes.
    ///
    /// # Panics
    /// If the program ends or [`PATIENCE`] runs out before; with everything it has printed.
    pub(crate) fn wait_for<T>(&mut self, what: &str, mut want: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Deadline::after(PATIENCE);
        loop {
            while let Some(line) = self.seen.get(self.looked) {
                self.looked += 1;
                if let Some(found) = want(line) {
                    return found;
                }
            }
            match self.lines.recv_timeout(deadline.left()) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no {what} within {PATIENCE:?}; {}", self.printed())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended without {what}; {}", self.printed())
                }
            }
        }
    }

    /// Waits for a line that contains `text`.
    ///
    /// # Panics
    /// As [`Self::wait_for`].
    pub(crate) fn wait_for_text(&mut self, text: &str) -> String {
        self.wait_for(&format!("`{text}`"), |line| {
            line.contains(text).then(|| line.to_owned())
        })
    }

    /// Returns every line printed so far.
    pub(crate) fn output(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // A process that is gone already needs none; whoever waits for it sees how it ended.
        let _ = kill_process(self.pid(), signal);
    }

    /// Returns its number.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it goes on for [`PATIENCE`].
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Deadline::after(PATIENCE);
        // Both streams end with the process; then nothing is left to wait for but the status.
        loop {
            match self.lines.recv_timeout(deadline.left()) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().expect("it is our child"),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no end within {PATIENCE:?}; {}", self.printed())
                }
            }
        }
    }

    /// Waits for its end and returns whether it came within `wait`.
    pub(crate) fn ends_within(&mut self, wait: Duration) -> bool {
        let deadline = Deadline::after(wait);
        loop {
            match self.lines.recv_timeout(deadline.left()) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().is_ok(),
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    /// Sends SIGTERM and waits for its end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Kills it at once, as a power cut would, and waits until the kernel has taken its sockets and locks.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Everything it printed, for messages.
    pub(crate) fn printed(&mut self) -> String {
        let name = self.name.clone();
        let output = self.output();
        let skipped = output.len().saturating_sub(PRINTED_LINES_MAX);
        format!(
            "{name} printed ({skipped} lines left out):\n{}",
            output[skipped..].join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_lines(stream: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(stream.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if lines.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
}

fn start(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| {
        let program = command.get_program().display();
        panic!("{program}: {error}; `cargo xtask setup` installs what the tests need")
    })
}

/// What a program that ended has left.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; -1 if a signal ended it.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ended {
    /// Returns itself if the exit code is `code`.
    ///
    /// # Panics
    /// If it is another.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// Runs a program to its end.
///
/// # Panics
/// If it does not start.
pub(crate) fn run(command: &mut Command) -> Ended {
    run_with_input(command, b"")
}

/// Runs a program to its end with `input` on its standard input.
///
/// # Panics
/// If it does not start.
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Ended {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = start(command);
    let mut stdin = child.stdin.take().expect("it is piped");
    // A program that does not read its input has closed it.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().expect("its output can be read");
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The binary under test.
pub(crate) fn fieldgate<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldgate"));
    command.args(arguments);
    command
}

/// A command of a few words.
pub(crate) fn command(words: &[&str]) -> Command {
    let (program, arguments) = words.split_first().expect("a command has a name");
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// How long a stock client may take; given to those that can end by themselves.
pub(crate) const CLIENT_TIME: Duration = Duration::from_secs(180);
/// Lines of a process that a message shows.
const PRINTED_LINES_MAX: usize = 60;
