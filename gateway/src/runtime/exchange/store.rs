//! Where sessions and retained messages outlive the process: one redb file, on a thread of its own.
//!
//! Each batch of the broker is one transaction, which is on stable storage when the trunk is told. A transaction that fails is
//! tried again, with the file opened anew, until it succeeds: until then nobody is acknowledged who waits for it, and status
//! says why. A file that is damaged is put aside, and sessions begin anew: readings are the journal's, which this is not.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    time::Duration,
};

use fieldgate_io::{mailbox::MailSender, thread};
use fieldgate_mqtt::broker::store::{Batch, Change};
use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::runtime::ShardMessage;

/// Keys and values of the broker, as it makes them.
const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("mqtt");
/// Memory for pages, in bytes.
const CACHE_BYTES: usize = 4 << 20;
/// Time between attempts to write.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Everything in the store.
pub(crate) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// A store whose thread does not run yet.
pub(crate) struct Store {
    path: PathBuf,
    database: Database,
}

/// What the store tells the trunk.
#[derive(Debug)]
pub(crate) enum Stored {
    /// The batch of this number is on stable storage.
    Done(u64),
    /// A batch could not be written, and is tried again.
    Failed(String),
}

impl Store {
    /// Opens the file at `path`, making it if there is none, and reads all of it.
    ///
    /// # Errors
    /// If the file can neither be used nor put aside.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Entries)> {
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
                    "the file of MQTT sessions is damaged and was put aside: sessions and retained messages begin anew"
                );
                fs::rename(path, &aside)?;
                Self::try_open(path).map_err(io::Error::other)
            }
        }
    }

    fn try_open(path: &Path) -> Result<(Self, Entries), redb::Error> {
        let database = open_database(path)?;
        let mut entries = Vec::new();
        let transaction = database.begin_read()?;
        match transaction.open_table(TABLE) {
            Ok(table) => {
                for entry in table.iter()? {
                    let (key, value) = entry?;
                    entries.push((key.value().to_vec(), value.value().to_vec()));
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        transaction.close()?;
        let path = path.to_owned();
        Ok((Self { path, database }, entries))
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If there is none to be had.
    pub(crate) fn spawn(self, trunk: MailSender<ShardMessage>) -> io::Result<StoreHandle> {
        let (sender, batches) = sync_channel(1);
        let thread = thread::spawn("fg-sessions", None, move || self.run(&batches, &trunk))?;
        Ok(StoreHandle {
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    fn run(self, batches: &Receiver<Batch>, trunk: &MailSender<ShardMessage>) {
        let Self { path, database } = self;
        let mut database = Some(database);
        while let Ok(batch) = batches.recv() {
            loop {
                let written = match &database {
                    Some(database) => write(database, &batch.changes),
                    None => Err(io::Error::other("the file is not open")),
                };
                let error = match written {
                    Ok(()) => break,
                    Err(error) => error,
                };
                // The trunk is gone only when the node ends.
                drop(trunk.send(ShardMessage::Stored(Stored::Failed(error.to_string()))));
                // After an error of the disk, redb serves nothing before the file is opened again.
                drop(database.take());
                if batches.recv_timeout(RETRY_AFTER) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
                database = open_database(&path).ok();
            }
            drop(trunk.send(ShardMessage::Stored(Stored::Done(batch.number))));
        }
    }
}

/// The trunk's end of the store's thread. Dropping it waits for the transaction under way.
pub(crate) struct StoreHandle {
    sender: Option<SyncSender<Batch>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl StoreHandle {
    /// Hands over a batch; gives it back if one is under way.
    pub(crate) fn write(&self, batch: Batch) -> Result<(), Batch> {
        match &self.sender {
            Some(sender) => sender
                .try_send(batch)
                .map_err(|(TrySendError::Full(batch) | TrySendError::Disconnected(batch))| batch),
            None => Err(batch),
        }
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
    {
        let mut table = transaction.open_table(TABLE).map_err(io::Error::other)?;
        for (key, value) in changes {
            match value {
                Some(value) => table.insert(key.as_slice(), value.as_slice()).map(drop),
                None => table.remove(key.as_slice()).map(drop),
            }
            .map_err(io::Error::other)?;
        }
    }
    transaction.commit().map_err(io::Error::other)
}
