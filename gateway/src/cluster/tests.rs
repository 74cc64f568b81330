use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use fieldgate_io::{
    Waker,
    mailbox::{MailReceiver, mailbox},
};
use tokio::sync::watch;

use super::*;

/// A store in memory: it can be made away, and deaf.
#[derive(Clone, Default)]
struct MemoryStore(Rc<RefCell<Content>>);

#[derive(Default)]
struct Content {
    entries: BTreeMap<String, (u64, Vec<u8>)>,
    revision: u64,
    watchers: Vec<mpsc::UnboundedSender<Change>>,
    /// What ends the sessions that are open.
    open: Vec<watch::Sender<bool>>,
    is_away: bool,
    refuses: bool,
}

struct MemorySession {
    store: MemoryStore,
    open: watch::Receiver<bool>,
}

struct MemoryChanges {
    known: VecDeque<Change>,
    news: mpsc::UnboundedReceiver<Change>,
}

impl MemoryStore {
    fn set(&self, key: &str, value: Option<Vec<u8>>) -> u64 {
        let content = &mut *self.0.borrow_mut();
        content.revision += 1;
        let revision = content.revision;
        match &value {
            Some(value) => content.entries.insert(key.to_owned(), (revision, value.clone())),
            None => content.entries.remove(key),
        };
        let change = Change {
            key: key.to_owned(),
            revision,
            value,
            is_last: true,
        };
        content
            .watchers
            .retain(|watcher| watcher.send(change.clone()).is_ok());
        revision
    }

    fn set_away(&self, is_away: bool) {
        let content = &mut *self.0.borrow_mut();
        content.is_away = is_away;
        if is_away {
            content.watchers.clear();
            for open in content.open.drain(..) {
                open.send_replace(true);
            }
        }
    }
}

impl ClusterStore for MemoryStore {
    type Session = MemorySession;

    async fn connect(&self) -> Result<MemorySession, String> {
        let content = &mut *self.0.borrow_mut();
        if content.is_away {
            return Err("it is away".to_owned());
        }
        let (sender, open) = watch::channel(false);
        content.open.push(sender);
        Ok(MemorySession {
            store: self.clone(),
            open,
        })
    }
}

impl StoreSession for MemorySession {
    type Changes = MemoryChanges;

    fn server(&self) -> String {
        "memory".to_owned()
    }

    async fn watch(&self) -> Result<(MemoryChanges, bool), String> {
        let content = &mut *self.store.0.borrow_mut();
        let (watcher, news) = mpsc::unbounded_channel();
        content.watchers.push(watcher);
        let mut known: VecDeque<Change> = content
            .entries
            .iter()
            .map(|(key, (revision, value))| Change {
                key: key.clone(),
                revision: *revision,
                value: Some(value.clone()),
                is_last: false,
            })
            .collect();
        let is_empty = known.is_empty();
        if let Some(last) = known.back_mut() {
            last.is_last = true;
        }
        Ok((MemoryChanges { known, news }, is_empty))
    }

    fn write(&self, key: &str, value: Option<Vec<u8>>) -> Write {
        let (store, key) = (self.store.clone(), key.to_owned());
        Box::pin(async move {
            if store.0.borrow().is_away || store.0.borrow().refuses {
                return Err("it does not take it".to_owned());
            }
            Ok(store.set(&key, value))
        })
    }

    async fn lost(&mut self) -> String {
        // Its end is an end, too.
        drop(self.open.wait_for(|lost| *lost).await);
        "it went away".to_owned()
    }
}

impl Stream for MemoryChanges {
    type Item = Result<Change, String>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut std::task::Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(change) = self.known.pop_front() {
            return Poll::Ready(Some(Ok(change)));
        }
        match self.news.poll_recv(task) {
            Poll::Ready(Some(change)) => Poll::Ready(Some(Ok(change))),
            // The session's end is told elsewhere.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// The trunk's side.
struct Trunk {
    mail: MailReceiver<ShardMessage>,
    writes: mpsc::Sender<StoreWrite>,
    events: VecDeque<StoreEvent>,
}

impl Trunk {
    /// Returns the next event; lets the task work until there is one.
    async fn next(&mut self) -> StoreEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if let Some(ShardMessage::Trunk(TrunkMessage::Store(events))) = self.mail.try_receive() {
                self.events.extend(events);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn write(&self, write: StoreWrite) {
        self.writes.send(write).await.expect("the task runs");
    }
}

/// Runs `test` beside the task.
fn with<F: Future<Output = ()>>(store: &MemoryStore, test: impl FnOnce(Trunk, SharedHealth) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (sender, mail) = mailbox(1_000, Waker::new().expect("descriptors are left"));
    let (writes, receiver) = mpsc::channel(WRITES_MAX);
    let health = SharedHealth::default();
    let trunk = Trunk {
        mail,
        writes,
        events: VecDeque::new(),
    };
    tokio::task::LocalSet::new().block_on(&runtime.expect("the system has timers"), async {
        let task = run(store.clone(), receiver, sender, Arc::clone(&health));
        let task = tokio::task::spawn_local(task);
        test(trunk, health).await;
        task.await.expect("it ends when the trunk is gone");
    });
}

fn put(ticket: u64, key: &str) -> StoreWrite {
    StoreWrite::Put {
        ticket,
        key: key.to_owned(),
        value: key.as_bytes().to_vec(),
    }
}

fn is_entry(event: &StoreEvent, wanted: &str, there: bool) -> bool {
    matches!(event, StoreEvent::Entry { key, value, .. } if key == wanted && value.is_some() == there)
}

#[test]
fn what_is_there_comes_first_and_then_every_change_and_answer() {
    let store = MemoryStore::default();
    store.set("a", Some(vec![1]));
    store.set("b", Some(vec![2]));
    with(&store, async |mut trunk, health| {
        assert_eq!(trunk.next().await, StoreEvent::Begin);
        assert!(is_entry(&trunk.next().await, "a", true));
        assert!(is_entry(&trunk.next().await, "b", true));
        assert_eq!(trunk.next().await, StoreEvent::Current);
        assert_eq!(health.lock().expect("no panic").server.as_deref(), Some("memory"));
        trunk.write(put(7, "c")).await;
        let delete = StoreWrite::Delete {
            ticket: 8,
            key: "a".to_owned(),
        };
        trunk.write(delete).await;
        let mut answers = Vec::new();
        let mut changes = Vec::new();
        while answers.len() < 2 || changes.len() < 2 {
            match trunk.next().await {
                StoreEvent::Written { ticket, result } => answers.push((ticket, result)),
                event @ (StoreEvent::Begin
                | StoreEvent::Entry { .. }
                | StoreEvent::Current
                | StoreEvent::Away) => changes.push(event),
            }
        }
        answers.sort_unstable_by_key(|(ticket, _)| *ticket);
        assert_eq!(answers, [(7, Ok(3)), (8, Ok(4))]);
        assert!(is_entry(&changes[0], "c", true) && is_entry(&changes[1], "a", false));
    });
}

#[test]
fn a_store_that_goes_and_comes_is_read_again_and_every_write_is_answered() {
    let store = MemoryStore::default();
    let shared = store.clone();
    with(&store, async move |mut trunk, health| {
        assert_eq!(trunk.next().await, StoreEvent::Begin);
        assert_eq!(trunk.next().await, StoreEvent::Current, "there is nothing");
        shared.set_away(true);
        assert_eq!(trunk.next().await, StoreEvent::Away);
        trunk.write(put(1, "a")).await;
        let failed = StoreEvent::Written {
            ticket: 1,
            result: Err(WriteFailed),
        };
        assert_eq!(trunk.next().await, failed);
        let problem = health.lock().expect("no panic").problem.clone();
        assert!(problem.is_some_and(|problem| problem.contains("away")));
        shared.set("b", Some(vec![1]));
        shared.set_away(false);
        assert_eq!(trunk.next().await, StoreEvent::Begin);
        assert!(is_entry(&trunk.next().await, "b", true));
        assert_eq!(trunk.next().await, StoreEvent::Current);
        let health = health.lock().expect("no panic").clone();
        assert_eq!((health.sessions, health.problem), (2, None));
    });
}

#[test]
fn a_refused_write_is_answered_and_everything_is_read_again_when_that_is_asked() {
    let store = MemoryStore::default();
    let shared = store.clone();
    with(&store, async move |mut trunk, health| {
        assert_eq!(trunk.next().await, StoreEvent::Begin);
        assert_eq!(trunk.next().await, StoreEvent::Current);
        shared.0.borrow_mut().refuses = true;
        trunk.write(put(1, "a")).await;
        let failed = StoreEvent::Written {
            ticket: 1,
            result: Err(WriteFailed),
        };
        assert_eq!(trunk.next().await, failed);
        let told = health.lock().expect("no panic").clone();
        assert_eq!(told.server.as_deref(), Some("memory"), "it is still connected");
        assert_eq!(told.problem.as_deref(), Some("it does not take it"));
        shared.0.borrow_mut().refuses = false;
        trunk.write(put(2, "a")).await;
        while !matches!(
            trunk.next().await,
            StoreEvent::Written {
                ticket: 2,
                result: Ok(_)
            }
        ) {}
        assert_eq!(health.lock().expect("no panic").problem, None);
        trunk.write(StoreWrite::Reread).await;
        while trunk.next().await != StoreEvent::Begin {}
        assert!(is_entry(&trunk.next().await, "a", true));
        assert_eq!(trunk.next().await, StoreEvent::Current);
    });
}

#[test]
fn a_store_that_is_lost_is_news_once_also_when_it_took_no_writes_before() {
    let mut health = StoreHealth::default();
    assert!(health.lose("never reached"));
    assert!(!health.lose("still not"));
    health = StoreHealth {
        server: Some("memory".to_owned()),
        problem: Some("no majority".to_owned()),
        sessions: 1,
    };
    assert!(health.lose("it went away"));
    assert_eq!(
        (&health.server, health.problem.as_deref()),
        (&None, Some("it went away"))
    );
    assert!(!health.lose("still away"));
}
