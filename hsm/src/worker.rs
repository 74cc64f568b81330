//! The thread that owns a signer, and the queue in front of it.
//!
//! ```text
//!  submit ──▶ queue, one lane per priority ──▶ signer thread ──▶ deliver(Completion)
//!                 └──── watch thread: deadlines ───────────────▶ deliver(Completion)
//! ```
//!
//! A token that hangs blocks the signer thread and nobody else: the watch thread answers for it when a deadline passes. The signer
//! may be one that has the key in a process of its own ([`Worker::start_process`]); the signer thread is then what looks
//! after that process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::{Error, ErrorKind, Stage};
use crate::pkcs11::Recoveries;
use crate::process::{ProcessSettings, ProcessSigner, ProcessState};
use crate::signer::{PublicKey, Signature, Signer};

mod queue;

use queue::{Next, Queue};

/// How urgent a request is; the first is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// The attestation of a purpose key: without it every channel ends.
    Renewal,
    /// A live proof for one handshake.
    LiveProof,
    /// Enrolment and everything else that a person waits for.
    Enrolment,
}

/// A message to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The caller's number for the request; comes back in the completion.
    pub id: u64,
    /// How urgent it is.
    pub priority: Priority,
    /// What to sign (`PROTOCOL.md` §2.1).
    pub message: Vec<u8>,
    /// Time from now after which the request fails.
    pub timeout: Duration,
}

/// The answer to a request. Every request that was taken gets exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The number of the request.
    pub id: u64,
    /// The signature, or why there is none.
    pub result: Result<Signature, Error>,
    /// Time since the request was submitted.
    pub elapsed: Duration,
}

/// Takes completions. It is called on the worker's threads: it must not block, and must not drop the worker.
pub type Deliver = Box<dyn FnMut(Completion) + Send>;

/// Bounds of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that may wait, for each priority; at least 1.
    pub waiting_max: usize,
}

impl Default for Limits {
    /// 64 waiting requests of each priority: at five signatures a second, a dozen seconds of work.
    fn default() -> Self {
        Self { waiting_max: 64 }
    }
}

/// What a worker has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Signatures made, those that came too late included.
    pub signatures: u64,
    /// Time the last signature took, without waiting in the queue.
    pub latency_last: Duration,
    /// The longest of these times.
    pub latency_max: Duration,
    /// Failed attempts and unanswered requests, by class.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// Answers that came after the request had failed; they were thrown away.
    pub late: u64,
    /// Requests that were not taken because their lane was full.
    pub refused: u64,
    /// How often each rung of the recovery ladder brought the token back.
    pub recoveries: Recoveries,
    /// Requests waiting now.
    pub waiting: usize,
    /// Whether the token has been silent beyond the deadline of the request it has now.
    pub stuck: bool,
    /// How often that happened.
    pub stuck_total: u64,
    /// The process that has the key; `None` for a key in this process.
    pub process: Option<ProcessState>,
}

/// Owns a signer on its own thread.
///
/// Dropping it answers what waits with [`Error::Stopped`]. A signer thread that is stuck in its token is left behind.
pub struct Worker {
    shared: Arc<Shared>,
    signer_thread: Option<JoinHandle<()>>,
    watch_thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// There may be work for the signer thread.
    work: Condvar,
    /// Deadlines have changed.
    deadlines: Condvar,
    /// The signer was opened, or failed to open, or its thread has ended.
    progress: Condvar,
    deliver: Mutex<Deliver>,
}

struct State {
    queue: Queue,
    opened: Option<Result<PublicKey, Error>>,
    location: String,
    is_stopping: bool,
    has_signer_ended: bool,
}

impl Worker {
    /// Starts the threads; `open` runs on the worker's own, as opening may take as long as a token likes.
    ///
    /// Requests can be submitted at once; [`wait_open`](Self::wait_open) tells how the opening went.
    ///
    /// # Errors
    /// [`Error::Thread`] when the system gives no threads.
    pub fn start(
        limits: Limits,
        open: impl FnOnce() -> Result<Box<dyn Signer>, Error> + Send + 'static,
        deliver: Deliver,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: Queue::new(limits.waiting_max.max(1)),
                opened: None,
                location: String::new(),
                is_stopping: false,
                has_signer_ended: false,
            }),
            work: Condvar::new(),
            deadlines: Condvar::new(),
            progress: Condvar::new(),
            deliver: Mutex::new(deliver),
        });
        let thread = |error: std::io::Error| Error::Thread(error.into());
        let for_watch = Arc::clone(&shared);
        let watch_thread = thread::Builder::new()
            .name("hsm-watch".to_owned())
            .spawn(move || for_watch.watch())
            .map_err(thread)?;
        let for_signer = Arc::clone(&shared);
        // From here on dropping the worker ends the watch thread.
        let mut worker = Self {
            shared,
            signer_thread: None,
            watch_thread: Some(watch_thread),
        };
        let signer_thread = thread::Builder::new()
            .name("hsm-signer".to_owned())
            .spawn(move || for_signer.run(open))
            .map_err(|error| {
                worker.shared.lock().has_signer_ended = true;
                thread(error)
            })?;
        worker.signer_thread = Some(signer_thread);
        Ok(worker)
    }

    /// Starts the threads, and the worker process that has the key.
    ///
    /// # Errors
    /// [`Error::Thread`] when the system gives no threads.
    pub fn start_process(limits: Limits, settings: ProcessSettings, deliver: Deliver) -> Result<Self, Error> {
        // On the signer's own thread: the process dies with the thread that started it.
        Self::start(
            limits,
            move || Ok(Box::new(ProcessSigner::start(settings)?) as Box<dyn Signer>),
            deliver,
        )
    }

    /// Waits until the signer is open and returns its public key.
    ///
    /// # Errors
    /// Why it could not be opened, or [`Error::TimedOut`] when that takes longer than `timeout`.
    pub fn wait_open(&self, timeout: Duration) -> Result<PublicKey, Error> {
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .progress
            .wait_timeout_while(state, timeout, |state| {
                state.opened.is_none() && !state.has_signer_ended
            })
            .unwrap_or_else(PoisonError::into_inner);
        match &state.opened {
            Some(opened) => opened.clone(),
            None if state.has_signer_ended => Err(Error::Stopped),
            None => Err(Error::TimedOut {
                after: timeout,
                stage: Stage::Opening,
            }),
        }
    }

    /// Returns where the key is, once the signer is open: a PKCS#11 URI or a path.
    pub fn location(&self) -> String {
        self.shared.lock().location.clone()
    }

    /// Hands a request in; never blocks on the token.
    ///
    /// # Errors
    /// [`Error::QueueFull`], or why the signer is not there. Then no completion follows.
    pub fn submit(&self, request: Request) -> Result<(), Error> {
        let mut state = self.shared.lock();
        if let Some(Err(error)) = &state.opened {
            return Err(error.clone());
        }
        if state.has_signer_ended || state.is_stopping {
            return Err(Error::Stopped);
        }
        state.queue.submit(clock::now(), request)?;
        drop(state);
        self.shared.work.notify_one();
        self.shared.deadlines.notify_one();
        Ok(())
    }

    /// Returns what the worker has done so far.
    pub fn statistics(&self) -> Statistics {
        self.shared.lock().queue.statistics()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.lock().is_stopping = true;
        self.shared.work.notify_all();
        self.shared.deadlines.notify_all();
        if let Some(thread) = self.watch_thread.take() {
            // It can only have panicked in the caller's function; there is nothing left to do about that.
            let _ = thread.join();
        }
        let completions = self.shared.lock().queue.stop(clock::now());
        self.shared.deliver_all(completions);
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .progress
            .wait_timeout_while(state, STOP_GRACE, |state| !state.has_signer_ended)
            .unwrap_or_else(PoisonError::into_inner);
        let has_ended = state.has_signer_ended;
        drop(state);
        if let Some(thread) = self.signer_thread.take().filter(|_| has_ended) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Worker")
            .field("location", &self.location())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Locks the state. It is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands completions to the caller's function; call without the state's lock.
    fn deliver_all(&self, completions: Vec<Completion>) {
        if completions.is_empty() {
            return;
        }
        let mut deliver = self.deliver.lock().unwrap_or_else(PoisonError::into_inner);
        for completion in completions {
            deliver(completion);
        }
    }

    /// The signer thread.
    fn run(&self, open: impl FnOnce() -> Result<Box<dyn Signer>, Error>) {
        // Also when the signer panics: whoever waits must not wait for ever.
        let end = SignerEnd(self);
        match open() {
            Ok(mut signer) => {
                let mut state = self.lock();
                state.location = signer.location();
                state.opened = Some(Ok(*signer.public_key()));
                state.queue.set_signer(signer.recoveries(), signer.process());
                drop(state);
                self.progress.notify_all();
                let mut attention = Attention::default();
                while self.serve_next(signer.as_mut(), &mut attention) {}
            }
            Err(error) => {
                let mut state = self.lock();
                let completions = state.queue.fail_all(clock::now(), &error);
                state.opened = Some(Err(error));
                drop(state);
                self.progress.notify_all();
                self.deliver_all(completions);
            }
        }
        drop(end);
    }

    /// Serves one request, or looks after the signer while there is none; false when the worker is stopping.
    fn serve_next(&self, signer: &mut dyn Signer, attention: &mut Attention) -> bool {
        let mut state = self.lock();
        let message = loop {
            if state.is_stopping {
                return false;
            }
            let next = state.queue.next(clock::now());
            if let Next::Sign(message) = next {
                break message;
            }
            if next == Next::Empty && attention.is_due() {
                drop(state);
                attention.plan(signer.attend());
                let mut state = self.lock();
                state.queue.set_signer(signer.recoveries(), signer.process());
                return true;
            }
            let until = match next {
                Next::WaitUntil(time) => Some(time),
                Next::Empty | Next::Sign(_) => attention.due_at,
            };
            state = match until {
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(time) => {
                    let wait = time.saturating_duration_since(clock::now());
                    let (state, _) = self
                        .work
                        .wait_timeout(state, wait)
                        .unwrap_or_else(PoisonError::into_inner);
                    state
                }
            };
        };
        drop(state);
        let result = signer.sign(&message);
        let mut state = self.lock();
        state.queue.set_signer(signer.recoveries(), signer.process());
        let completion = state.queue.finish(clock::now(), result);
        drop(state);
        // A request that goes back to the queue has a deadline to be watched again.
        self.deadlines.notify_one();
        self.deliver_all(completion.into_iter().collect());
        true
    }

    /// The watch thread: answers requests whose time has run out.
    fn watch(&self) {
        loop {
            let mut state = self.lock();
            let completions = loop {
                if state.is_stopping {
                    return;
                }
                let completions = state.queue.expire(clock::now());
                if !completions.is_empty() {
                    break completions;
                }
                state = match state.queue.next_deadline() {
                    None => self.deadlines.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(deadline) => {
                        let wait = deadline.saturating_duration_since(clock::now());
                        let (state, _) = self
                            .deadlines
                            .wait_timeout(state, wait)
                            .unwrap_or_else(PoisonError::into_inner);
                        state
                    }
                };
            };
            drop(state);
            self.deliver_all(completions);
        }
    }
}

/// When the signer wants to be looked after.
struct Attention {
    /// `None` if never.
    due_at: Option<Instant>,
}

impl Default for Attention {
    /// At once: the signer then says itself when it wants it next.
    fn default() -> Self {
        Self {
            due_at: Some(clock::now()),
        }
    }
}

impl Attention {
    fn is_due(&self) -> bool {
        self.due_at.is_some_and(|due_at| due_at <= clock::now())
    }

    fn plan(&mut self, pause: Option<Duration>) {
        self.due_at = pause.and_then(|pause| clock::now().checked_add(pause));
    }
}

/// Says that the signer thread is gone, however it went.
struct SignerEnd<'a>(&'a Shared);

impl Drop for SignerEnd<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_signer_ended = true;
        let completions = state.queue.stop(clock::now());
        drop(state);
        self.0.progress.notify_all();
        self.0.deliver_all(completions);
    }
}

/// Time a signer has to close its sessions when the worker is dropped.
const STOP_GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
