//! Programs that recipes start.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};

use crate::failure::Failure;
use crate::workspace::Workspace;

/// A program with its arguments, run from the root of the workspace and printed before it starts.
pub(crate) struct Program {
    command: Command,
    line: String,
}

impl Program {
    /// Makes a program without arguments.
    pub(crate) fn new(workspace: &Workspace, name: impl AsRef<OsStr>) -> Self {
        let name = name.as_ref();
        let mut command = Command::new(name);
        command.current_dir(workspace.root());
        Self {
            command,
            line: name.to_string_lossy().into_owned(),
        }
    }

    /// Makes a call of the cargo that runs this recipe.
    pub(crate) fn cargo(workspace: &Workspace, subcommand: &str) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut program = Self::new(workspace, cargo);
        "cargo".clone_into(&mut program.line);
        program.arg(subcommand)
    }

    /// Makes a call of cargo that builds; continuous integration must build what the lock file says.
    pub(crate) fn cargo_build(workspace: &Workspace, subcommand: &str) -> Self {
        let program = Self::cargo(workspace, subcommand);
        if std::env::var_os("CI").is_some() {
            program.arg("--locked")
        } else {
            program
        }
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        let argument = argument.as_ref();
        self.line.push(' ');
        self.line.push_str(&argument.to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<I: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = I>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Sets an environment variable of the program.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self.line = format!("{name}={value} {}", self.line);
        self
    }

    /// Returns the program as one would type it.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    /// Runs the program with the streams of this one.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        self.announce();
        let status = self.command.status();
        self.judge(status)
    }

    /// Runs the program and returns what it printed; its errors go to this program's.
    pub(crate) fn output(mut self) -> Result<Vec<u8>, Failure> {
        let output = self.command.stderr(Stdio::inherit()).output();
        match output {
            Ok(output) => self.judge(Ok(output.status)).map(|()| output.stdout),
            Err(error) => self.judge(Err(error)).map(|()| Vec::new()),
        }
    }

    /// Runs the program and returns what it printed if it ended well; passes nothing on.
    pub(crate) fn quiet_output(mut self) -> Option<Vec<u8>> {
        let output = self.command.stderr(Stdio::null()).output().ok()?;
        output.status.success().then_some(output.stdout)
    }

    /// Says whether the program can be started and likes its arguments; prints nothing.
    pub(crate) fn succeeds(mut self) -> bool {
        self.command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Runs the program, passes each line it prints on and shows it to `see`. Gives back whether it ended well.
    pub(crate) fn watch(mut self, mut see: impl FnMut(&str)) -> Result<bool, Failure> {
        self.announce();
        let mut child = match self.command.stdout(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(source) => {
                return Err(Failure::Start {
                    line: self.line,
                    source,
                });
            }
        };
        let mut out = std::io::stdout().lock();
        if let Some(stdout) = child.stdout.take() {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            // Bytes, not text: a test may print anything.
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                // A closed standard output must not stop the tests: their verdict is the exit code.
                let _ = out.write_all(&line);
                see(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }
        drop(out);
        match child.wait() {
            Ok(status) => Ok(status.success()),
            Err(source) => Err(Failure::Start {
                line: self.line,
                source,
            }),
        }
    }

    fn announce(&self) {
        println!("$ {}", self.line);
    }

    fn judge(self, result: std::io::Result<ExitStatus>) -> Result<(), Failure> {
        match result {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::Status {
                line: self.line,
                status: status.to_string(),
            }),
            Err(source) => Err(Failure::Start {
                line: self.line,
                source,
            }),
        }
    }
}
