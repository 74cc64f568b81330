//! The commands: each turns its arguments into calls and its result into text and an exit code.

use std::{error::Error, fmt, io::Write as _, process::ExitCode};

use crate::cli::{Cli, Command};

mod authority;
mod check;
mod command;
mod config;
mod demo;
mod device;
mod doctor;
mod enroll;
mod hsm;
mod identity;
mod journal;
mod member;
mod operator;
mod policy;
mod portal;
mod proof;
mod relay;
mod run;
mod status;
mod ticket;
mod token_worker;
mod verify;

/// Runs the command and returns its exit code: 0 done, 1 failed, 2 wrong input.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => run::run(&args.config),
        Command::Check(args) => check::run(&args),
        Command::Config(command) => config::run(&command),
        Command::Identity(command) => identity::run(command),
        Command::Device(command) => device::run(command),
        Command::Journal(command) => journal::run(command),
        Command::Enroll(args) => enroll::run(args),
        Command::Ticket(command) => ticket::run(command),
        Command::Member(command) => member::run(command),
        Command::Authority(command) => authority::run(command),
        Command::Policy(command) => policy::run(&command),
        Command::Order(order) => command::run(order),
        Command::Portal(command) => portal::run(&command),
        Command::Relay(command) => relay::run(&command),
        Command::Proof(args) => proof::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Hsm(command) => hsm::run(command),
        Command::Completions { shell } => config::completions(shell),
        Command::TokenWorker => return token_worker::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command ended without doing its work.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// Something outside did not work: exit code 1.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
            hint: None,
        }
    }

    /// What was given is wrong: exit code 2.
    pub(crate) fn input(message: impl fmt::Display) -> Self {
        Self {
            code: 2,
            ..Self::new(message)
        }
    }

    /// Everything has been printed already; only the exit code is left.
    pub(crate) const fn silent(code: u8) -> Self {
        Self {
            code,
            message: String::new(),
            hint: None,
        }
    }

    /// An error with the chain of its causes.
    pub(crate) fn chain(context: &str, error: &dyn Error) -> Self {
        let mut message = format!("{context}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        Self::new(message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    fn print(&self) {
        if self.message.is_empty() {
            return;
        }
        let mut out = std::io::stderr().lock();
        // With standard error gone there is nobody to tell; the exit code still says it.
        let _ = writeln!(out, "error: {}", self.message);
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, " help: {hint}");
        }
    }
}

/// Prints `text` to standard output; a reader that went away, like `head`, is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::chain("standard output", &error))
        }
        _ => Ok(()),
    }
}

/// Prints `value` as one line of JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string(value).map_err(|error| Failure::chain("JSON", &error))?;
    text.push('\n');
    print(&text)
}
