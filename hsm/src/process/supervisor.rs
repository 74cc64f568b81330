//! The node's side: starts the worker process, watches it, and starts it anew.

use std::fmt;
use std::time::{Duration, Instant};

use super::connection::Interruption;
use super::marker::Marker;
use super::running::Running;
use super::wire::{AnswerBody, Opened, RequestBody, Task, WireError, WorkerStatistics};
use super::{Condition, ProcessSettings, ProcessState, SandboxReport};
use crate::clock;
use crate::error::{Error, ErrorKind, WorkerEnd};
use crate::pkcs11::{KeyOrigin, KeySummary, Recoveries, WrappedSecret, pause_after};
use crate::signer::{PublicKey, Signature, Signer};

/// Signs with a key in a worker process, and keeps that process alive.
///
/// ```text
///            ┌── start ──▶ running ──crash, hang──▶ gone ──pause 0 s, 1 s … 60 s──▶ start
///            │                │                      │
///            │                └─ PIN refused ────────┴─ two deaths in a row during the login ──▶ given up
///            └────────────────── token away for long: started anew
/// ```
///
/// A request whose worker died is repeated once with the next worker: to sign twice does no harm. One whose worker hung is not,
/// as its time is over. The PIN is read right before each start of a worker and kept by the worker alone.
///
/// Invariant: once given up, no worker is started and no PIN is read.
pub struct ProcessSigner {
    settings: ProcessSettings,
    marker: Marker,
    running: Option<Running>,
    /// What the last worker has said of the key.
    opened: Opened,
    statistics: WorkerStatistics,
    /// What earlier workers have added to the recoveries.
    recoveries_before: Recoveries,
    restart_at: Option<Instant>,
    /// Workers lost in a row without a signature between.
    failures: u32,
    /// When an idle worker is looked at next.
    look_at: Option<Instant>,
    /// Why there is no worker.
    problem: Option<Error>,
    /// Answers in a row that the token is away.
    absences: u32,
    given_up: Option<Error>,
    restarts_crash: u64,
    restarts_hang: u64,
    restarts_renewal: u64,
}

impl ProcessSigner {
    /// Starts the worker process and has it open the key.
    ///
    /// A worker dies with the thread that started it, which is the one that calls `start`, and `sign` after a loss: keep to one
    /// thread that lives as long as the signer.
    ///
    /// # Errors
    /// What [`Settings::open`](crate::Settings::open) gives, and [`Error::WorkerStart`], [`Error::WorkerEnded`], [`Error::WorkerProtocol`],
    /// [`Error::PinRefusedBefore`], [`Error::LoginDeadly`], [`Error::PinMarker`].
    pub fn start(settings: ProcessSettings) -> Result<Self, Error> {
        let task = Task::Open(settings.wanted);
        Self::begin(settings, task)
    }

    /// Starts the worker process with a task that ends with an open key. Later workers open that key, and make none.
    pub(super) fn begin(mut settings: ProcessSettings, task: Task) -> Result<Self, Error> {
        let mut marker = Marker::open(settings.state_dir.as_deref())?;
        let (running, opened) = Running::start(&settings, task, &mut marker)?;
        // From now on it is this key and no other.
        settings.wanted = Some(opened.public_key);
        let mut signer = Self {
            settings,
            marker,
            running: Some(running),
            opened,
            statistics: WorkerStatistics::default(),
            recoveries_before: Recoveries::default(),
            restart_at: None,
            look_at: None,
            failures: 0,
            problem: None,
            absences: 0,
            given_up: None,
            restarts_crash: 0,
            restarts_hang: 0,
            restarts_renewal: 0,
        };
        signer.look();
        Ok(signer)
    }

    /// Returns what the token says about how the key came to be; `None` for a sealed file.
    pub const fn origin(&self) -> Option<KeyOrigin> {
        self.opened.origin
    }

    /// Returns what confines the worker.
    pub const fn sandbox(&self) -> &SandboxReport {
        &self.opened.sandbox
    }

    /// Lists the keys that match the settings; none for a sealed file.
    ///
    /// # Errors
    /// Those of [`Signer::sign`] for a worker that cannot be had, and what the token says.
    pub fn keys(&mut self) -> Result<Vec<KeySummary>, Error> {
        self.ensure()?;
        match self.ask(RequestBody::Keys) {
            Ok(AnswerBody::Keys(keys)) => Ok(keys),
            Ok(AnswerBody::Failed(error)) => {
                self.note(&error);
                Err(error)
            }
            Ok(_) => Err(self.confused()),
            Err(error) => Err(error),
        }
    }

    /// Asks the worker how it and its token are.
    fn look(&mut self) {
        self.look_at = clock::now().checked_add(self.settings.check_every);
        match self.ask(RequestBody::Statistics) {
            Ok(AnswerBody::Statistics(statistics)) => self.statistics = statistics,
            Ok(_) => {
                self.confused();
            }
            // Counted already, and a new worker is on its way.
            Err(_) => {}
        }
    }

    /// Sees that there is a worker; starts one if it is time for that.
    fn ensure(&mut self) -> Result<(), Error> {
        if let Some(error) = &self.given_up {
            return Err(error.clone());
        }
        if self.running.is_some() {
            return Ok(());
        }
        let now = clock::now();
        if let Some(restart_at) = self.restart_at
            && now < restart_at
        {
            let cause = self.problem.clone().unwrap_or(Error::Stopped);
            return Err(self.unavailable(restart_at.saturating_duration_since(now), cause));
        }
        let task = Task::Open(self.settings.wanted);
        match Running::start(&self.settings, task, &mut self.marker) {
            Ok((running, opened)) => {
                self.running = Some(running);
                self.opened = opened;
                self.restart_at = None;
                self.problem = None;
                Ok(())
            }
            Err(error) => {
                self.count(&error);
                let pause = self.schedule(&error);
                if self.is_given_up(&error) || error.kind() == ErrorKind::Pin {
                    return Err(error);
                }
                Err(self.unavailable(pause, error))
            }
        }
    }

    fn unavailable(&self, retry_after: Duration, cause: Error) -> Error {
        Error::Unavailable {
            key: self.opened.location.clone(),
            // The text counts in seconds, and nobody is to come back at once.
            retry_after: retry_after.max(Duration::from_secs(1)),
            cause: Box::new(cause),
        }
    }

    /// Asks the worker something; an error means that the worker is lost.
    fn ask(&mut self, body: RequestBody) -> Result<AnswerBody, Error> {
        let Some(running) = &mut self.running else {
            return Err(self.problem.clone().unwrap_or(Error::Stopped));
        };
        match running.ask(body, &mut self.marker) {
            Ok(answer) => Ok(answer),
            Err(interruption) => Err(self.lost(interruption)),
        }
    }

    /// Ends a worker that says what it was not asked.
    fn confused(&mut self) -> Error {
        self.lost(Interruption::Broken(WireError::Unexpected))
    }

    /// Ends a worker that does not answer as it should, and plans the next.
    fn lost(&mut self, interruption: Interruption) -> Error {
        let Some(running) = self.running.take() else {
            return Error::Stopped;
        };
        self.keep_recoveries();
        let error = running.end(interruption, &mut self.marker);
        self.count(&error);
        self.schedule(&error);
        error
    }

    /// Plans the next start: the first at once, the later ones after pauses that grow. Returns the pause.
    fn schedule(&mut self, error: &Error) -> Duration {
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => pause_after(failures.saturating_sub(1)),
        };
        self.failures = self.failures.saturating_add(1);
        self.restart_at = clock::now().checked_add(pause);
        self.problem = Some(error.clone());
        if let Some(deadly) = self.marker.deadly() {
            self.given_up = Some(deadly);
        }
        pause
    }

    /// Counts a worker that was lost; what else an error says is no loss.
    const fn count(&mut self, error: &Error) {
        if is_hang(error) {
            self.restarts_hang = self.restarts_hang.saturating_add(1);
        } else if matches!(error, Error::WorkerEnded { .. } | Error::WorkerProtocol(_)) {
            self.restarts_crash = self.restarts_crash.saturating_add(1);
        }
    }

    /// Says whether only a person can help after this error, and if so remembers it and lets go of the worker.
    fn is_given_up(&mut self, error: &Error) -> bool {
        let is_final = matches!(
            error,
            Error::PinRefused { .. } | Error::PinRefusedBefore { .. } | Error::LoginDeadly { .. }
        );
        if is_final {
            self.given_up = Some(error.clone());
            self.running = None;
        }
        is_final
    }

    /// Takes note of an error that the worker has reported.
    fn note(&mut self, error: &Error) {
        if self.is_given_up(error) {
            return;
        }
        if !matches!(error, Error::Unavailable { .. }) {
            return;
        }
        self.absences = self.absences.saturating_add(1);
        if self.absences < ABSENCES_MAX {
            return;
        }
        // A device that came back may be another file now, which the old worker's sandbox does not know.
        self.absences = 0;
        self.restarts_renewal = self.restarts_renewal.saturating_add(1);
        self.keep_recoveries();
        self.running = None;
        self.failures = self.failures.max(ABSENCES_MAX);
    }

    /// Adds what the worker that goes has counted to what all have.
    fn keep_recoveries(&mut self) {
        self.recoveries_before = self.recoveries();
        self.statistics.recoveries = Recoveries::default();
    }
}

impl Signer for ProcessSigner {
    fn public_key(&self) -> &PublicKey {
        &self.opened.public_key
    }

    fn sign(&mut self, message: &[u8]) -> Result<Signature, Error> {
        let mut is_repeated = false;
        loop {
            self.ensure()?;
            match self.ask(RequestBody::Sign(message.to_vec())) {
                // Whatever the worker says: no signature leaves the node that others would refuse.
                Ok(AnswerBody::Signed(signature)) if self.opened.public_key.verify(message, &signature) => {
                    (self.failures, self.absences) = (0, 0);
                    return Ok(signature);
                }
                Ok(AnswerBody::Signed(_)) => {
                    return Err(Error::SignatureInvalid {
                        key: self.opened.location.clone(),
                    });
                }
                Ok(AnswerBody::Failed(error)) => {
                    self.note(&error);
                    return Err(error);
                }
                Ok(_) => return Err(self.confused()),
                Err(error) => {
                    if is_repeated || is_hang(&error) {
                        return Err(error);
                    }
                    is_repeated = true;
                }
            }
        }
    }

    fn location(&self) -> String {
        self.opened.location.clone()
    }

    fn recoveries(&self) -> Recoveries {
        self.recoveries_before.plus(&self.statistics.recoveries)
    }

    fn process(&self) -> Option<ProcessState> {
        let condition = match (&self.given_up, &self.running) {
            (Some(Error::LoginDeadly { .. }), _) => Condition::LoginDeadly,
            (Some(_), _) => Condition::PinRefused,
            (None, Some(_)) => Condition::Running,
            (None, None) => Condition::Restarting,
        };
        Some(ProcessState {
            pid: self.running.as_ref().map(|running| running.pid),
            condition,
            sandbox: self.opened.sandbox.clone(),
            module: self.opened.module.clone(),
            origin: self.opened.origin,
            token: self.statistics.token.clone(),
            restarts_crash: self.restarts_crash,
            restarts_hang: self.restarts_hang,
            restarts_renewal: self.restarts_renewal,
        })
    }

    fn attend(&mut self) -> Option<Duration> {
        if self.given_up.is_some() {
            return None;
        }
        if let Some(look_at) = self.look_at.filter(|_| self.running.is_some()) {
            let left = look_at.saturating_duration_since(clock::now());
            if !left.is_zero() {
                return Some(left);
            }
        }
        // Without a worker nobody knows how the token is.
        if self.running.is_none() {
            self.statistics.token = None;
        }
        let was_running = self.running.is_some();
        if self.ensure().is_ok() {
            self.look();
        }
        if was_running && self.running.is_some() {
            // It has lived through a whole interval: the pauses begin anew.
            self.failures = 0;
        }
        let until_restart = self
            .restart_at
            .filter(|_| self.running.is_none())
            .map(|restart_at| restart_at.saturating_duration_since(clock::now()));
        Some(until_restart.unwrap_or(self.settings.check_every))
    }
}

impl fmt::Debug for ProcessSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ProcessSigner")
            .field("location", &self.opened.location)
            .field("process", &self.process())
            .finish_non_exhaustive()
    }
}

/// Has a worker process remove a key from a token.
pub(super) fn destroy(settings: &ProcessSettings, public_key: &PublicKey) -> Result<(), Error> {
    let mut marker = Marker::open(settings.state_dir.as_deref())?;
    Running::destroy(settings, public_key, &mut marker)
}

/// Has a worker process open a wrapped secret, or make one.
pub(super) fn unwrap_secret(
    settings: &ProcessSettings,
    wrapped: Option<&[u8]>,
) -> Result<WrappedSecret, Error> {
    let mut marker = Marker::open(settings.state_dir.as_deref())?;
    Running::unwrap_secret(settings, wrapped, &mut marker)
}

/// Says whether an error is that of a worker that hung.
const fn is_hang(error: &Error) -> bool {
    matches!(
        error,
        Error::WorkerEnded {
            how: WorkerEnd::Silent(_)
        }
    )
}

/// Answers in a row that the token is away after which a fresh worker looks for it.
const ABSENCES_MAX: u32 = 4;
