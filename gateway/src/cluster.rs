//! The store of a cluster of relays, and the task between it and the trunk.
//!
//! One connection to the store is one *session*: everything is read, then every change; what is written is answered. When it
//! ends, the trunk learns that the store is away, and the next session reads everything again. So nothing depends on what a client
//! library remembers over a lost connection.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use fieldgate_io::mailbox::{MailError, MailSender};
use fieldgate_proto::relay::{StoreEvent, StoreWrite, WriteFailed};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::{sync::mpsc, time};

use crate::{
    runtime::{ShardMessage, TrunkMessage},
    sinks::custody::BackOff,
};

pub(crate) mod nats;

/// Where the relays of a cluster keep which names they hold.
///
/// It has entries by key, each with the number of the change that made it: numbers grow over all entries. Deleting what is not
/// there is no failure.
pub(crate) trait ClusterStore {
    /// A connection to it.
    type Session: StoreSession;

    /// Connects, and makes what is missing there.
    ///
    /// # Errors
    /// In words, why it cannot be used now.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, String>>;
}

/// A connection to a store.
pub(crate) trait StoreSession {
    /// All entries, and then every change of any.
    type Changes: Stream<Item = Result<Change, String>> + Unpin;

    /// Returns what the other end is called, for status.
    fn server(&self) -> String;

    /// Returns all entries and then every change, and whether there is no entry yet.
    ///
    /// # Errors
    /// In words, why not.
    fn watch(&self) -> impl Future<Output = Result<(Self::Changes, bool), String>>;

    /// Sets an entry, or deletes it where there is no value; returns the number of the change. It ends within seconds.
    fn write(&self, key: &str, value: Option<Vec<u8>>) -> Write;

    /// Ends when the connection does, with the reason.
    fn lost(&mut self) -> impl Future<Output = String>;
}

/// A write on its way.
pub(crate) type Write = Pin<Box<dyn Future<Output = Result<u64, String>>>>;

/// An entry that is there, or has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) revision: u64,
    /// `None`: it was deleted.
    pub(crate) value: Option<Vec<u8>>,
    /// Whether it is the last of what is there.
    pub(crate) is_last: bool,
}

/// How the store does, for status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreHealth {
    /// What it is connected to.
    pub(crate) server: Option<String>,
    /// Why it is not, or was not before; with a server, why that takes no writes.
    pub(crate) problem: Option<String>,
    /// Sessions since the start.
    pub(crate) sessions: u64,
}

impl StoreHealth {
    /// Notes that the store is not reached; says whether that is news. That it took no writes while it was reached is another thing.
    fn lose(&mut self, reason: &str) -> bool {
        let is_new = self.server.is_some() || self.problem.is_none();
        self.server = None;
        self.problem = Some(reason.to_owned());
        is_new
    }
}

/// Shared with whoever tells the status.
pub(crate) type SharedHealth = Arc<Mutex<StoreHealth>>;

/// Serves the trunk until it is gone.
pub(crate) async fn run<S: ClusterStore>(
    store: S,
    mut writes: mpsc::Receiver<StoreWrite>,
    trunk: MailSender<ShardMessage>,
    health: SharedHealth,
) {
    let mut back_off = BackOff::new();
    let note = |change: &mut dyn FnMut(&mut StoreHealth)| {
        change(&mut health.lock().unwrap_or_else(PoisonError::into_inner));
    };
    loop {
        let reason = match store.connect().await {
            Ok(session) => {
                let server = session.server();
                tracing::info!(server, "store of the cluster reached");
                note(&mut |health| {
                    health.server = Some(server.clone());
                    health.problem = None;
                    health.sessions += 1;
                });
                back_off = BackOff::new();
                match serve(session, &mut writes, &trunk, &health).await {
                    Some(reason) => reason,
                    None => return,
                }
            }
            Err(reason) => reason,
        };
        let mut is_new = false;
        note(&mut |health| is_new = health.lose(&reason));
        if is_new {
            tracing::warn!(
                reason,
                "the store of the cluster is not reached; what is known counts for the time of grace"
            );
        } else {
            tracing::debug!(reason, "the store of the cluster is still not reached");
        }
        if refuse(&mut writes, &trunk, &mut back_off).await.is_none() {
            return;
        }
    }
}

/// Waits before the next attempt; what the trunk still wants to write meanwhile has failed. `None` if the trunk is gone.
async fn refuse(
    writes: &mut mpsc::Receiver<StoreWrite>,
    trunk: &MailSender<ShardMessage>,
    back_off: &mut BackOff,
) -> Option<()> {
    let wait = time::sleep(back_off.next());
    tokio::pin!(wait);
    loop {
        tokio::select! {
            () = &mut wait => return Some(()),
            write = writes.recv() => {
                let ticket = ticket(&write?);
                let failed = ticket.map(|ticket| StoreEvent::Written { ticket, result: Err(WriteFailed) });
                tell(trunk, failed.into_iter().collect()).await?;
            }
        }
    }
}

const fn ticket(write: &StoreWrite) -> Option<u64> {
    match write {
        StoreWrite::Put { ticket, .. } | StoreWrite::Delete { ticket, .. } => Some(*ticket),
        StoreWrite::Reread => None,
    }
}

type Answer = Pin<Box<dyn Future<Output = (u64, Result<u64, String>)>>>;

/// Serves the trunk with one connection; returns why it ended, `None` if the trunk is gone.
async fn serve<S: StoreSession>(
    mut session: S,
    writes: &mut mpsc::Receiver<StoreWrite>,
    trunk: &MailSender<ShardMessage>,
    health: &SharedHealth,
) -> Option<String> {
    let mut answers: Vec<Answer> = Vec::new();
    let reason = loop {
        match watch(&mut session, writes, &mut answers, trunk, health).await? {
            Ended::Reread => {
                tracing::warn!("changes of the cluster's store did not come: all of it is read again")
            }
            Ended::Lost(reason) => break reason,
        }
    };
    // Whether they were done is not known.
    let mut events = vec![StoreEvent::Away];
    for mut answer in answers {
        let (ticket, result) = match answer.as_mut().now_or_never() {
            Some((ticket, result)) => (ticket, result.map_err(|_| WriteFailed)),
            None => {
                // A write ends within seconds, whatever has become of the connection.
                let (ticket, _) = answer.await;
                (ticket, Err(WriteFailed))
            }
        };
        events.push(StoreEvent::Written { ticket, result });
    }
    tell(trunk, events).await?;
    Some(reason)
}

enum Ended {
    Reread,
    Lost(String),
}

/// Reads everything and then every change, and writes what is wanted. `None` if the trunk is gone.
async fn watch<S: StoreSession>(
    session: &mut S,
    writes: &mut mpsc::Receiver<StoreWrite>,
    answers: &mut Vec<Answer>,
    trunk: &MailSender<ShardMessage>,
    health: &SharedHealth,
) -> Option<Ended> {
    let (mut changes, is_empty) = match session.watch().await {
        Ok(watch) => watch,
        Err(reason) => return Some(Ended::Lost(reason)),
    };
    let mut is_current = is_empty;
    let mut events = vec![StoreEvent::Begin];
    if is_empty {
        events.push(StoreEvent::Current);
    }
    tell(trunk, events).await?;
    loop {
        let mut events = Vec::new();
        tokio::select! {
            reason = session.lost() => return Some(Ended::Lost(reason)),
            write = writes.recv() => match write? {
                StoreWrite::Put { ticket, key, value } => answers.push(begin(session, ticket, &key, Some(value))),
                StoreWrite::Delete { ticket, key } => answers.push(begin(session, ticket, &key, None)),
                StoreWrite::Reread => return Some(Ended::Reread),
            },
            (ticket, result) = next_answer(answers) => {
                note_write(health, result.as_ref().err());
                let result = result.map_err(|_| WriteFailed);
                events.push(StoreEvent::Written { ticket, result });
            }
            change = changes.next() => {
                let mut next = Some(change);
                // What is there already goes to the trunk together.
                while let Some(change) = next {
                    match change {
                        Some(Ok(change)) => take(change, &mut is_current, &mut events),
                        Some(Err(reason)) => return Some(Ended::Lost(reason)),
                        None => return Some(Ended::Lost("the store ended its changes".to_owned())),
                    }
                    next = if events.len() < EVENTS_MAX { changes.next().now_or_never() } else { None };
                }
            }
        }
        tell(trunk, events).await?;
    }
}

/// Keeps for status whether the server takes writes: one without a majority of the others stays connected, and takes none.
fn note_write(health: &SharedHealth, failed: Option<&String>) {
    let mut health = health.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reason) = failed {
        if health.problem.is_none() {
            tracing::warn!(reason, "the cluster's store does not take a write");
        } else {
            tracing::debug!(reason, "the cluster's store still does not take a write");
        }
    }
    health.problem = failed.cloned();
}

fn begin<S: StoreSession>(session: &S, ticket: u64, key: &str, value: Option<Vec<u8>>) -> Answer {
    let write = session.write(key, value);
    Box::pin(async move { (ticket, write.await) })
}

/// Waits for the next write that ends; for ever, where there is none.
async fn next_answer(answers: &mut Vec<Answer>) -> (u64, Result<u64, String>) {
    if answers.is_empty() {
        return std::future::pending().await;
    }
    poll_fn(|task| {
        for index in 0..answers.len() {
            if let Poll::Ready(answer) = answers[index].as_mut().poll(task) {
                drop(answers.swap_remove(index));
                return Poll::Ready(answer);
            }
        }
        Poll::Pending
    })
    .await
}

fn take(change: Change, is_current: &mut bool, events: &mut Vec<StoreEvent>) {
    let is_last = change.is_last;
    events.push(StoreEvent::Entry {
        key: change.key,
        revision: change.revision,
        value: change.value,
    });
    if is_last && !*is_current {
        *is_current = true;
        events.push(StoreEvent::Current);
    }
}

/// Gives the trunk events; waits while it is busy. `None` if it is gone.
async fn tell(trunk: &MailSender<ShardMessage>, events: Vec<StoreEvent>) -> Option<()> {
    if events.is_empty() {
        return Some(());
    }
    let mut message = ShardMessage::Trunk(TrunkMessage::Store(events));
    loop {
        message = match trunk.try_send(message) {
            Ok(()) => return Some(()),
            Err(MailError::Full(back)) => back,
            Err(MailError::Closed(_)) => return None,
        };
        time::sleep(MAILBOX_RETRY).await;
    }
}

/// Wait for room in the trunk's mailbox.
const MAILBOX_RETRY: Duration = Duration::from_millis(10);
/// Events in one message to the trunk.
const EVENTS_MAX: usize = 256;
/// What the trunk may have written before the task looks at it: more than are on their way at a time.
pub(crate) const WRITES_MAX: usize = 1_024;

#[cfg(test)]
mod tests;
