//! Where commands outlive the process: one redb file, on a thread of its own.
//!
//! What waits is written in one transaction, so that many commands cost one flush. A transaction that fails is not tried again
//! here: whoever wanted it kept is told so, and decides. A file that is damaged is put aside, and commands begin anew; what the
//! other side knows of them comes back from there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
};

use fieldgate_io::{
    mailbox::{MailError, MailSender},
    thread,
};
use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::runtime::ShardMessage;

/// Whose record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The gateway's, which has devices handed commands.
    Gateway,
    /// The collector's, which sends them.
    Collector,
    /// The collector's, where it owes results.
    Owed,
}

impl Side {
    const fn table(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Self::Gateway => "gateway",
            Self::Collector => "collector",
            Self::Owed => "owed",
        })
    }
}

/// Something to write.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) side: Side,
    pub(crate) key: Vec<u8>,
    /// What is told afterwards, if somebody waits for it.
    pub(crate) ticket: Option<u64>,
    /// The record; `None` to remove it.
    pub(crate) record: Option<Vec<u8>>,
}

/// What has become of records that were to be kept.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Whose, and the ticket.
    pub(crate) tickets: Vec<(Side, u64)>,
    /// Why they are not, if so.
    pub(crate) problem: Option<String>,
}

/// Everything in the store.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) gateway: Vec<Vec<u8>>,
    pub(crate) collector: Vec<Vec<u8>>,
    pub(crate) owed: Vec<Vec<u8>>,
}

/// A store whose thread does not run yet.
pub(crate) struct Store {
    path: PathBuf,
    database: Database,
}

impl Store {
    /// Opens the file at `path`, making it if there is none, and reads all of it.
    ///
    /// # Errors
    /// If the file can neither be used nor put aside.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Records)> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match Self::try_open(path) {
            Ok(opened) => Ok(opened),
            Err(error) if !is_damage(&error) => Err(io::Error::other(error)),
            Err(error) => {
                let aside = path.with_extension("damaged");
                tracing::error!(
                    path = %path.display(), aside = %aside.display(), %error,
                    "the file of commands is damaged and was put aside: what was under way is lost here"
                );
                fs::rename(path, &aside)?;
                Self::try_open(path).map_err(io::Error::other)
            }
        }
    }

    fn try_open(path: &Path) -> Result<(Self, Records), redb::Error> {
        let database = open_database(path)?;
        let transaction = database.begin_read()?;
        let read = |side: Side| -> Result<Vec<Vec<u8>>, redb::Error> {
            let table = match transaction.open_table(side.table()) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            table.iter()?.map(|entry| Ok(entry?.1.value().to_vec())).collect()
        };
        let records = Records {
            gateway: read(Side::Gateway)?,
            collector: read(Side::Collector)?,
            owed: read(Side::Owed)?,
        };
        transaction.close()?;
        let path = path.to_owned();
        Ok((Self { path, database }, records))
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If there is none to be had.
    pub(crate) fn spawn(self, trunk: MailSender<ShardMessage>) -> io::Result<StoreHandle> {
        let (sender, changes) = sync_channel(CHANGES_MAX);
        let thread = thread::spawn("fg-commands", None, move || self.run(&changes, &trunk))?;
        Ok(StoreHandle {
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    fn run(self, changes: &Receiver<Change>, trunk: &MailSender<ShardMessage>) {
        let Self { path, database } = self;
        let mut database = Some(database);
        while let Ok(first) = changes.recv() {
            let mut batch = vec![first];
            while batch.len() < CHANGES_MAX
                && let Ok(change) = changes.try_recv()
            {
                batch.push(change);
            }
            if database.is_none() {
                // After an error of the disk, redb serves nothing before the file is opened again.
                database = open_database(&path).ok();
            }
            let written = match &database {
                Some(database) => write(database, &batch),
                None => Err(io::Error::other("the file is not open")),
            };
            let problem = written.err().map(|error| error.to_string());
            if problem.is_some() {
                database = None;
            }
            let tickets = batch
                .iter()
                .filter_map(|change| change.ticket.map(|ticket| (change.side, ticket)))
                .collect();
            let mut message = ShardMessage::CommandsKept(Kept { tickets, problem });
            // A mailbox that is full is being emptied; one that is closed belongs to a node that ends.
            while let Err(MailError::Full(back)) = trunk.try_send(message) {
                message = back;
                std::thread::yield_now();
            }
        }
    }
}

/// The trunk's end of the store's thread. Dropping it waits for what is under way.
pub(crate) struct StoreHandle {
    sender: Option<SyncSender<Change>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl StoreHandle {
    /// Hands over a change; false if too many wait.
    pub(crate) fn write(&self, change: Change) -> bool {
        self.sender
            .as_ref()
            .is_some_and(|sender| match sender.try_send(change) {
                Ok(()) => true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
            })
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            // If it panicked, it has said so.
            let _ = thread.join();
        }
    }
}

fn open_database(path: &Path) -> Result<Database, redb::Error> {
    Ok(Builder::new().set_cache_size(CACHE_BYTES).create(path)?)
}

/// Returns whether the file itself is at fault, rather than the disk, its rights or another process.
fn is_damage(error: &redb::Error) -> bool {
    if let redb::Error::Io(error) = error {
        return matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        );
    }
    matches!(error, redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_))
}

fn write(database: &Database, changes: &[Change]) -> io::Result<()> {
    let transaction = database.begin_write().map_err(io::Error::other)?;
    for side in [Side::Gateway, Side::Collector, Side::Owed] {
        let mut table = transaction.open_table(side.table()).map_err(io::Error::other)?;
        for change in changes.iter().filter(|change| change.side == side) {
            match &change.record {
                Some(record) => table.insert(change.key.as_slice(), record.as_slice()).map(drop),
                None => table.remove(change.key.as_slice()).map(drop),
            }
            .map_err(io::Error::other)?;
        }
    }
    transaction.commit().map_err(io::Error::other)
}

/// Memory for pages, in bytes.
const CACHE_BYTES: usize = 1 << 20;
/// Changes that wait for the disk, and that one transaction takes.
const CHANGES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_by_side() {
        let dir = tempfile::tempdir().expect("there is room for a directory");
        let path = dir.path().join("commands.redb");
        let (store, records) = Store::open(&path).expect("a new file");
        assert!(records.gateway.is_empty() && records.collector.is_empty());
        let change = |side, key: &[u8], record: Option<&[u8]>| Change {
            side,
            key: key.to_vec(),
            ticket: record.map(|_| 1),
            record: record.map(<[u8]>::to_vec),
        };
        let changes = [
            change(Side::Gateway, b"1", Some(b"one")),
            change(Side::Collector, b"1", Some(b"two")),
            change(Side::Gateway, b"2", Some(b"three")),
            change(Side::Gateway, b"1", None),
        ];
        write(&store.database, &changes).expect("it is written");
        drop(store);
        let (_, records) = Store::open(&path).expect("the same file");
        assert_eq!(records.gateway, [b"three".to_vec()]);
        assert_eq!(records.collector, [b"two".to_vec()]);
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let dir = tempfile::tempdir().expect("there is room for a directory");
        let path = dir.path().join("commands.redb");
        fs::write(&path, vec![7; 8192]).expect("it is written");
        let (_, records) = Store::open(&path).expect("another file takes its place");
        assert!(records.gateway.is_empty());
        assert!(path.with_extension("damaged").exists());
    }
}
