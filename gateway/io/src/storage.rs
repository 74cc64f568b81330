//! Files of a journal: created, written, read, set aside and deleted so that a power cut at any moment leaves them readable.
//!
//! [`Directory`] does it at once, for recovery at start and for tools. [`Storage`] does the same on a thread of its own and
//! answers through a mailbox, for shards, which must not wait. Batches themselves go through [`crate::Io::write_durable`].

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use crate::{
    Waker,
    mailbox::{MailReceiver, MailSender, mailbox},
    thread,
};

mod directory;

pub use directory::{Directory, Entry};

/// An open file that a shard, the storage thread and writes in flight can share.
#[derive(Clone, Debug)]
pub struct FileRef(Arc<File>);

impl FileRef {
    /// Shares `file`.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self(Arc::new(file))
    }

    /// Returns the file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }
}

/// What could not be done to which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct StorageError {
    /// What was tried.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

impl StorageError {
    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Tells whether the disk, a quota or a limit on file sizes is exhausted: space has to be made, retrying helps after that.
    #[must_use]
    pub fn is_full(&self) -> bool {
        is_full(&self.source)
    }

    /// Returns what an operator can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        let kind = self.source.kind();
        if self.is_full() {
            "make space on the disk, or lower the size the journal may have"
        } else if kind == io::ErrorKind::PermissionDenied {
            "give the directory to the user the node runs as"
        } else if kind == io::ErrorKind::ReadOnlyFilesystem {
            "mount the state directory writable; look for disk errors in the kernel log"
        } else if kind == io::ErrorKind::WouldBlock {
            "stop the other process that uses this file, or give this node its own"
        } else if kind == io::ErrorKind::NotFound {
            "create the directory, or correct its path in the configuration"
        } else if kind == io::ErrorKind::InvalidInput {
            "use a plain file name"
        } else {
            "look for disk errors in the kernel log (journalctl -k)"
        }
    }
}

/// Tells whether a write failed because the disk, a quota or a limit on file sizes is exhausted.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Something to do in the directory. Names are plain file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Make a file of `length` bytes that begins with `header`: [`Directory::create`].
    Create {
        /// Its name.
        name: String,
        /// Bytes to reserve.
        length: u64,
        /// Its first bytes.
        header: Vec<u8>,
    },
    /// Open an existing file for reading and writing: [`Directory::open`].
    Open {
        /// Its name.
        name: String,
    },
    /// Delete a file: [`Directory::delete`].
    Delete {
        /// Its name.
        name: String,
    },
    /// Write durably: [`Directory::write`].
    Write {
        /// The file's name.
        name: String,
        /// Where.
        offset: u64,
        /// What. It comes back in [`Outcome::Written`].
        bytes: Vec<u8>,
    },
    /// Read at most `length` bytes: [`Directory::read`].
    Read {
        /// The file's name.
        name: String,
        /// From where.
        offset: u64,
        /// How many at most.
        length: usize,
    },
    /// Set a file aside: [`Directory::quarantine`].
    Quarantine {
        /// Its name.
        name: String,
    },
    /// Cut a file off: [`Directory::shrink`].
    Shrink {
        /// Its name.
        name: String,
        /// Bytes that stay.
        length: u64,
    },
    /// List the files: [`Directory::list`].
    List,
}

/// What a task has brought.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The file is there, on stable storage, and open.
    Created(FileRef),
    /// The file is open.
    Opened(FileRef),
    /// The file is gone, for good.
    Deleted,
    /// The file is not longer than it should be.
    Shrunk,
    /// The bytes are on stable storage. Here they are, to be used again.
    Written(Vec<u8>),
    /// The bytes read; fewer than asked for if the file ends there.
    Read(Vec<u8>),
    /// The file's new name.
    Quarantined(String),
    /// The files, in order of their names.
    Listed(Vec<Entry>),
}

/// The answer to a task.
#[derive(Debug)]
pub struct Reply {
    /// What the task was given.
    pub token: u64,
    /// How it went.
    pub result: Result<Outcome, StorageError>,
}

/// A task for the thread.
#[derive(Debug)]
struct Order {
    token: u64,
    /// Place of the directory among those the thread was given.
    directory: usize,
    task: Task,
}

/// A thread that works in some [`Directory`]s, one task after the other, in order.
///
/// Dropping it lets the thread finish what it was given, and waits for that.
#[derive(Debug)]
pub struct Storage {
    /// `None` only while it is dropped.
    tasks: Option<SyncSender<Order>>,
    /// How many directories there are.
    directories: usize,
    thread: Option<JoinHandle<()>>,
}

impl Storage {
    /// Starts the thread for `directories`, which tasks name by their place. At most `capacity` tasks wait; replies go to the
    /// mailbox, whose `waker` is used for each.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn spawn(
        directories: Vec<Directory>,
        waker: Waker,
        capacity: usize,
    ) -> io::Result<(Self, MailReceiver<Reply>)> {
        let capacity = capacity.max(1);
        let count = directories.len();
        let (tasks, inbox) = sync_channel::<Order>(capacity);
        let (replies, receiver): (MailSender<Reply>, _) = mailbox(capacity, waker);
        let thread = thread::spawn("fg-storage", None, move || {
            for order in inbox {
                let token = order.token;
                let Some(directory) = directories.get(order.directory) else {
                    continue;
                };
                let result = execute(directory, order.task);
                // Waits if the replies are not taken. If nobody will, the work is still done.
                let _ = replies.send(Reply { token, result });
            }
        })?;
        Ok((
            Self {
                tasks: Some(tasks),
                directories: count,
                thread: Some(thread),
            },
            receiver,
        ))
    }

    /// Hands a task in a directory to the thread; `token` comes back with the reply.
    ///
    /// # Errors
    /// Gives the task back when too many wait, or there is no such directory.
    pub fn submit(&self, token: u64, directory: usize, task: Task) -> Result<(), Task> {
        let Some(tasks) = self.tasks.as_ref().filter(|_| directory < self.directories) else {
            return Err(task);
        };
        let order = Order {
            token,
            directory,
            task,
        };
        tasks.try_send(order).map_err(|error| match error {
            TrySendError::Full(order) | TrySendError::Disconnected(order) => order.task,
        })
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // It does nothing that panics, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn execute(directory: &Directory, task: Task) -> Result<Outcome, StorageError> {
    match task {
        Task::Create { name, length, header } => {
            directory.create(&name, length, &header).map(Outcome::Created)
        }
        Task::Open { name } => directory.open(&name).map(Outcome::Opened),
        Task::Delete { name } => directory.delete(&name).map(|()| Outcome::Deleted),
        Task::Write { name, offset, bytes } => directory
            .write(&name, offset, &bytes)
            .map(|()| Outcome::Written(bytes)),
        Task::Read { name, offset, length } => directory.read(&name, offset, length).map(Outcome::Read),
        Task::Quarantine { name } => directory.quarantine(&name).map(Outcome::Quarantined),
        Task::Shrink { name, length } => directory.shrink(&name, length).map(|()| Outcome::Shrunk),
        Task::List => directory.list().map(Outcome::Listed),
    }
}

#[cfg(test)]
mod tests;
