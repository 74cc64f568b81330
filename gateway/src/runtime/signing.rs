//! The way to the identity key: a message goes in, its signature comes out some time later.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fieldgate_hsm::{Completion, Deliver, Priority, Request, Statistics, Worker};
use fieldgate_proto::crypto::Signature;
use tokio::sync::oneshot;

use super::StartError;

/// Those who wait for signatures, by the number of their request.
type Waiting = BTreeMap<u64, oneshot::Sender<Completion>>;

/// The identity key's worker; copies lead to the same.
#[derive(Clone)]
pub(crate) struct SignerHandle {
    current: Arc<Mutex<Current>>,
    last_request: Arc<AtomicU64>,
}

/// The worker in use; another after the key was rotated.
#[derive(Clone)]
struct Current {
    worker: Arc<Worker>,
    waiting: Arc<Mutex<Waiting>>,
}

impl SignerHandle {
    /// Starts the worker with `start`, which is given where completions go.
    ///
    /// # Errors
    /// Those of `start`.
    pub(crate) fn start(
        start: impl FnOnce(Deliver) -> Result<Worker, fieldgate_hsm::Error>,
    ) -> Result<Self, StartError> {
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        let completed = Arc::clone(&waiting);
        let deliver = Box::new(move |completion: Completion| {
            let waits = lock(&completed).remove(&completion.id);
            if let Some(waits) = waits {
                // Who asked may have gone.
                drop(waits.send(completion));
            }
        });
        let worker = start(deliver).map_err(|error| StartError::key(&error))?;
        Ok(Self {
            current: Arc::new(Mutex::new(Current {
                worker: Arc::new(worker),
                waiting,
            })),
            last_request: Arc::default(),
        })
    }

    /// Signs with the key of `other` from now on, in all copies. What waits for the old worker is answered by it.
    pub(crate) fn replace(&self, other: &Self) {
        let fresh = other.current();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    fn current(&self) -> Current {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Has the identity key sign `message` (PROTOCOL.md §2.1).
    ///
    /// # Errors
    /// [`StartError`] if the key does not sign, or not in time, or too much waits for it already.
    pub(crate) async fn sign(&self, priority: Priority, message: Vec<u8>) -> Result<Signature, StartError> {
        let id = self.last_request.fetch_add(1, Ordering::Relaxed) + 1;
        let Current { worker, waiting } = self.current();
        let (sender, completion) = oneshot::channel();
        lock(&waiting).insert(id, sender);
        let request = Request {
            id,
            priority,
            message,
            timeout: SIGN_TIME_MAX,
        };
        if let Err(error) = worker.submit(request) {
            lock(&waiting).remove(&id);
            return Err(StartError::key(&error));
        }
        // Every request that was taken is answered; a worker that is dropped answers as well.
        let completion = completion
            .await
            .map_err(|_| StartError::new("the signer has ended"))?;
        completion.result.map_err(|error| StartError::key(&error))
    }

    /// Returns the worker, for its public key and where that is.
    pub(crate) fn worker(&self) -> Arc<Worker> {
        self.current().worker
    }

    /// Returns what the worker has done so far.
    pub(crate) fn statistics(&self) -> Statistics {
        self.current().worker.statistics()
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Longest time a token may take for a signature.
const SIGN_TIME_MAX: Duration = Duration::from_secs(20);
