//! One worker process, from its start to its end.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::connection::{Connection, Interruption};
use super::marker::Marker;
use super::wire::{
    AnswerBody, Configuration, LoginOutcome, Opened, RequestBody, Task, WireError, WorkerAnswer,
    WorkerRequest, decode_answer, encode_request,
};
use super::{ProcessSettings, environment};
use crate::clock;
use crate::error::{Error, WorkerEnd};
use crate::pkcs11::{WRAPPED_SECRET_BYTES, WrappedSecret};
use crate::secret::SecretSource;
use crate::settings::Settings;
use crate::signer::PublicKey;

/// A worker process.
pub(super) struct Running {
    /// `None` once it has been collected, or handed over to be.
    child: Option<Child>,
    pub(super) pid: u32,
    connection: Connection,
    hang_after: Duration,
    last_id: u32,
    /// Whether a PIN is on its way to the token.
    is_logging_in: bool,
}

impl Running {
    /// Starts a process and has it open a key, as `task` says.
    pub(super) fn start(
        settings: &ProcessSettings,
        task: Task,
        marker: &mut Marker,
    ) -> Result<(Self, Opened), Error> {
        let (running, answer) = Self::configured(settings, task, marker)?;
        if let AnswerBody::Opened(opened) = answer {
            return Ok((running, opened));
        }
        Err(running.other(answer, marker))
    }

    /// Starts a process that removes a key from a token, and waits until it has.
    pub(super) fn destroy(
        settings: &ProcessSettings,
        public_key: &PublicKey,
        marker: &mut Marker,
    ) -> Result<(), Error> {
        let (running, answer) = Self::configured(settings, Task::Destroy(*public_key), marker)?;
        if let AnswerBody::Destroyed = answer {
            return Ok(());
        }
        Err(running.other(answer, marker))
    }

    /// Starts a process that opens a wrapped secret, or makes one, and waits until it has.
    pub(super) fn unwrap_secret(
        settings: &ProcessSettings,
        wrapped: Option<&[u8]>,
        marker: &mut Marker,
    ) -> Result<WrappedSecret, Error> {
        let task = Task::Unwrap(wrapped.map(<[u8]>::to_vec));
        let (running, answer) = Self::configured(settings, task, marker)?;
        if let AnswerBody::Unwrapped(unwrapped) = answer {
            return match unwrapped.secret.expose().len() {
                WRAPPED_SECRET_BYTES => Ok(unwrapped),
                _ => Err(running.end(Interruption::Broken(WireError::Unexpected), marker)),
            };
        }
        Err(running.other(answer, marker))
    }

    /// Takes the error out of an answer that is not the one that was hoped for.
    fn other(self, answer: AnswerBody, marker: &mut Marker) -> Error {
        if let AnswerBody::Failed(error) = answer {
            return error;
        }
        self.end(Interruption::Broken(WireError::Unexpected), marker)
    }

    /// Starts a process, gives it its task and waits for the answer.
    fn configured(
        settings: &ProcessSettings,
        task: Task,
        marker: &mut Marker,
    ) -> Result<(Self, AnswerBody), Error> {
        let source = settings.signer.secret();
        let secret = source.read()?;
        if matches!(settings.signer, Settings::Pkcs11 { .. }) {
            marker.check(&secret, &source.to_string())?;
        }
        let mut running = Self::spawn(settings)?;
        let configuration = Configuration {
            settings: settings.signer.clone(),
            secret,
            task,
            low_count: marker.low_count(),
            closed: settings.state_dir.clone(),
        };
        let answer = running
            .greet()
            .and_then(|()| running.ask(RequestBody::Configure(configuration), marker));
        match answer {
            Ok(answer) => Ok((running, answer)),
            Err(interruption) => Err(running.end(interruption, marker)),
        }
    }

    fn spawn(settings: &ProcessSettings) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::WorkerStart {
            program: settings.program.clone(),
            cause: error.into(),
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let extra = match &settings.signer {
            Settings::Pkcs11 { sandbox, .. } => sandbox.environment.as_slice(),
            Settings::File { .. } => &[],
        };
        let secret = match settings.signer.secret() {
            SecretSource::Environment(name) => Some(name.as_str()),
            SecretSource::Credential(_) | SecretSource::File(_) => None,
        };
        let mut command = Command::new(&settings.program);
        command
            .arg0("fieldgate")
            .args(&settings.arguments)
            .env_clear()
            .envs(environment::allowed(extra, secret))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        // The command holds their end of the socket; with it open here, their death would go unnoticed.
        drop(command);
        Ok(Self {
            pid: child.id(),
            child: Some(child),
            connection: Connection::new(ours),
            hang_after: settings.hang_after,
            last_id: 0,
            is_logging_in: false,
        })
    }

    /// Waits until the process says that it is there.
    fn greet(&mut self) -> Result<(), Interruption> {
        let answer = self.receive(self.hang_after)?;
        match matches!(answer.body, AnswerBody::Hello { .. }) {
            true => Ok(()),
            false => Err(Interruption::Broken(WireError::Unexpected)),
        }
    }

    fn receive(&mut self, time: Duration) -> Result<WorkerAnswer, Interruption> {
        let frame = self.connection.receive(clock::now().checked_add(time))?;
        decode_answer(&frame).map_err(Interruption::Broken)
    }

    /// Asks and waits for the answer; notes logins on the way.
    pub(super) fn ask(&mut self, body: RequestBody, marker: &mut Marker) -> Result<AnswerBody, Interruption> {
        // 0 stands before what was not asked for.
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let id = self.last_id;
        let request = WorkerRequest { id, body };
        let frame = encode_request(&request).map_err(Interruption::Broken)?;
        // It may hold the PIN, which the frame has now.
        drop(request);
        self.connection.send(&frame, Some(self.hang_after))?;
        drop(frame);
        for _ in 0..NOTES_MAX {
            // Each is a sign of life and renews the time: a recovery may log in several times.
            let answer = self.receive(self.hang_after)?;
            if let AnswerBody::LoginBegun = answer.body {
                self.is_logging_in = true;
            } else if let AnswerBody::LoginDone(outcome) = answer.body {
                self.is_logging_in = false;
                // What cannot be written is known to this process still, and the token's own flags guard the next one.
                let _ = match outcome {
                    LoginOutcome::Accepted => marker.clear(),
                    LoginOutcome::Refused(pin) => marker.refuse(pin),
                    LoginOutcome::Other => marker.survived(),
                };
            } else if answer.id == id {
                return Ok(answer.body);
            } else {
                break;
            }
        }
        Err(Interruption::Broken(WireError::Unexpected))
    }

    /// Ends a process that did not answer as it should, and says how it ended.
    pub(super) fn end(mut self, interruption: Interruption, marker: &mut Marker) -> Error {
        if self.is_logging_in {
            // What cannot be written is known to this process still.
            let _ = marker.died();
        }
        match interruption {
            Interruption::Closed => Error::WorkerEnded { how: self.collect() },
            Interruption::Late => {
                self.kill();
                let how = WorkerEnd::Silent(self.hang_after);
                Error::WorkerEnded { how }
            }
            Interruption::Broken(error) => {
                self.kill();
                Error::WorkerProtocol(error)
            }
        }
    }

    /// Collects a process that has closed its end of the socket, and says how it ended.
    fn collect(&mut self) -> WorkerEnd {
        let Some(mut child) = self.child.take() else {
            return WorkerEnd::Confused;
        };
        // It is about to be gone, and then the signal changes nothing in how it went.
        let _ = child.kill();
        let Ok(status) = child.wait() else {
            return WorkerEnd::Confused;
        };
        match status.signal() {
            Some(signal) => WorkerEnd::Signal(signal),
            None => WorkerEnd::Exited(status.code().unwrap_or_default()),
        }
    }

    /// Kills the process. It is collected on a thread of its own: one that hangs in a driver dies only when that lets go of it.
    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let _ = child.kill();
        let collector = thread::Builder::new().name("hsm-collect".to_owned());
        // Without a thread it stays a zombie until this process ends; it holds nothing by then.
        let _ = collector.spawn(move || child.wait());
    }
}

impl Drop for Running {
    /// Lets the worker close its sessions, for a while.
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        let request = WorkerRequest {
            id: 0,
            body: RequestBody::Stop,
        };
        let is_told = encode_request(&request)
            .is_ok_and(|frame| self.connection.send(&frame, Some(STOP_GRACE)).is_ok());
        // It answers nothing; that its end of the socket closes is the answer.
        if is_told
            && let Err(Interruption::Closed) = self.connection.receive(clock::now().checked_add(STOP_GRACE))
        {
            self.collect();
        } else {
            self.kill();
        }
    }
}

/// Time a worker has to close its sessions.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Frames that may come before the answer to a request.
const NOTES_MAX: u32 = 32;
