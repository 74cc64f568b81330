//! The authority's thread.

use std::{
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use fieldgate_proto::{
    crypto::Signature, entropy::Entropy, identity::ChangeHistory, time::Now, trust::StatusList,
};

use super::{
    AuthorityAnswer, AuthorityOutput, AuthoritySettings, AuthorityStatus, Origin, Permit, RequestKind,
    StoreError, engine::Engine, mailbox::Mailbox, replication::ReplicationSettings,
};

/// A request and where its answer goes.
pub(crate) struct AuthorityRequest {
    /// Who asks.
    pub(crate) from: Origin,
    /// For what.
    pub(crate) kind: RequestKind,
    /// Takes the answer, on the authority's thread, after the commit. It must not block.
    pub(crate) reply: Box<dyn FnOnce(AuthorityAnswer) + Send>,
}

/// Tells the authority the time.
pub(crate) type Clock = Box<dyn FnMut() -> Now + Send>;

/// What an authority is made of.
pub(crate) struct ServiceParts {
    /// What it is told.
    pub(crate) settings: AuthoritySettings,
    /// Its own history.
    pub(crate) history: ChangeHistory,
    /// The node's policy.
    pub(crate) permit: Box<dyn Permit>,
    /// The newest status list of this authority that the node holds. A store that does not know it was restored from an older
    /// copy, which is said; it takes over whom the list names, and its lists go on above that number.
    pub(crate) held: Option<StatusList>,
    /// Randomness for tickets and statement keys.
    pub(crate) entropy: Box<dyn Entropy + Send>,
    /// The time.
    pub(crate) clock: Clock,
    /// Takes what the authority wants of the node, on the authority's thread. It must not block.
    pub(crate) deliver: Box<dyn FnMut(AuthorityOutput) + Send>,
    /// The log that several processes of this authority write together, if there are several.
    pub(crate) replication: Option<ReplicationSettings>,
}

/// The running authority. Ends, with everything that waits answered, when it is stopped or dropped.
pub(crate) struct AuthorityService {
    handle: AuthorityHandle,
    thread: Option<thread::JoinHandle<()>>,
}

/// The way to a running authority; clones lead to the same.
#[derive(Clone)]
pub(crate) struct AuthorityHandle {
    shared: Arc<Shared>,
}

struct Shared {
    mailbox: Mailbox<AuthorityRequest, Control>,
    status: Mutex<AuthorityStatus>,
}

/// What the node tells the authority.
enum Control {
    /// The identity key's answer.
    Signature {
        id: u64,
        result: Result<Signature, String>,
    },
    /// The identity was rotated.
    History(Box<ChangeHistory>),
    /// A peer has a list of this authority that it does not know.
    Forgotten(Arc<StatusList>),
}

impl AuthorityService {
    /// Opens the store, which reads it whole, and starts the thread.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be used or the system gives no thread.
    pub(crate) fn start(parts: ServiceParts) -> Result<Self, StoreError> {
        let ServiceParts {
            settings,
            history,
            permit,
            held,
            entropy,
            mut clock,
            mut deliver,
            replication,
        } = parts;
        let waiting_max = settings.limits.waiting_max;
        let path = settings.store.clone();
        let engine = Engine::open(
            clock(),
            settings,
            history,
            permit,
            entropy,
            held.as_ref(),
            replication,
        )?;
        let shared = Arc::new(Shared {
            mailbox: Mailbox::new(waiting_max),
            status: Mutex::new(engine.status()),
        });
        let handle = AuthorityHandle {
            shared: Arc::clone(&shared),
        };
        let failed = |source: io::Error| StoreError::File { path, source };
        let thread = thread::Builder::new()
            .name("authority".to_owned())
            .spawn(move || {
                // Whoever submits to a thread that is gone must be told so, even after a panic.
                let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
                    run(engine, &shared, &mut clock, &mut deliver);
                }));
                shared.mailbox.close();
                if let Err(panic) = result {
                    deliver(AuthorityOutput::Broken(
                        "the authority's thread has panicked".to_owned(),
                    ));
                    std::panic::resume_unwind(panic);
                }
            })
            .map_err(failed)?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }

    /// Returns the way to it.
    pub(crate) fn handle(&self) -> AuthorityHandle {
        self.handle.clone()
    }

    /// Answers what waits, and ends.
    #[cfg(test)]
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.handle.shared.mailbox.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the authority's thread had panicked");
        }
    }
}

impl Drop for AuthorityService {
    fn drop(&mut self) {
        self.end();
    }
}

impl AuthorityHandle {
    /// Hands a request over.
    ///
    /// # Errors
    /// The request, if too many wait or the authority has ended: its sender is to try again later.
    pub(crate) fn submit(&self, request: AuthorityRequest) -> Result<(), AuthorityRequest> {
        self.shared.mailbox.submit(request)
    }

    /// Hands over the identity key's answer to [`AuthorityOutput::Sign`].
    pub(crate) fn handle_signature(&self, id: u64, result: Result<Signature, String>) {
        self.shared.mailbox.control(Control::Signature { id, result });
    }

    /// Hands over the history after the identity was rotated.
    pub(crate) fn handle_history(&self, history: ChangeHistory) {
        self.shared.mailbox.control(Control::History(Box::new(history)));
    }

    /// Hands over a list that this authority has signed, and that its node says it has forgotten.
    pub(crate) fn handle_forgotten(&self, list: Arc<StatusList>) {
        self.shared.mailbox.control(Control::Forgotten(list));
    }

    /// Returns what the authority is doing.
    pub(crate) fn status(&self) -> AuthorityStatus {
        let mut status = self.shared.status().clone();
        status.busy = self.shared.mailbox.refused();
        status
    }
}

impl Shared {
    fn status(&self) -> MutexGuard<'_, AuthorityStatus> {
        // A status is replaced as a whole, so a panic cannot leave half of one.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(
    mut engine: Engine,
    shared: &Shared,
    clock: &mut Clock,
    deliver: &mut Box<dyn FnMut(AuthorityOutput) + Send>,
) {
    loop {
        while let Some(output) = engine.poll_output() {
            deliver(output);
        }
        *shared.status() = engine.status();
        let patience = engine.patience(clock());
        let mail = shared.mailbox.take(patience, BATCH_MAX);
        let now = clock();
        for control in mail.controls {
            match control {
                Control::Signature { id, result } => engine.handle_signature(now, id, result),
                Control::History(history) => engine.handle_history(now, *history),
                Control::Forgotten(list) => engine.handle_forgotten(now, &list),
            }
        }
        // Answers first: what time demands can wait for them.
        let (replies, requests): (Vec<_>, Vec<_>) = mail
            .requests
            .into_iter()
            .map(|request| (request.reply, (request.from, request.kind)))
            .unzip();
        if !requests.is_empty() {
            let answers = engine.handle_requests(now, requests);
            // What the decisions brought with them, a new status list, goes out before the answers do.
            while let Some(output) = engine.poll_output() {
                deliver(output);
            }
            *shared.status() = engine.status();
            for (reply, answer) in replies.into_iter().zip(answers) {
                reply(answer);
            }
        }
        if mail.closed {
            return;
        }
        engine.handle_timeout(clock());
    }
}

/// Requests in one transaction.
const BATCH_MAX: usize = 64;

#[cfg(test)]
mod tests;
