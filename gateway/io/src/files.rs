//! Files that only grow, written by a thread of their own.
//!
//! A [`LineFile`] takes complete lines and says when they are on stable storage; whatever waits is written together. The
//! thread runs tokio-uring where the process uses io_uring, and plain system calls where it uses epoll.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use crate::{
    Backend, Waker,
    lock::LockedFile,
    mailbox::{MailReceiver, MailSender, mailbox},
    storage::StorageError,
    thread,
};

mod appender;

/// Appends lines to a file, durably and in order.
///
/// Dropping it lets the thread finish what it was given, and waits for that.
#[derive(Debug)]
pub struct LineFile {
    /// `None` only while it is dropped.
    requests: Option<Sender<Append>>,
    thread: Option<JoinHandle<()>>,
}

/// What was found when a [`LineFile`] was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of complete lines in the file.
    pub length: u64,
    /// Bytes after the last complete line, which were cut off: the rest of a write that a power cut ended.
    pub torn: u64,
    /// The last complete line without its end, or `None` if there is none or it is longer than 1 MiB.
    pub last_line: Option<Vec<u8>>,
}

/// The answer to an append.
#[derive(Debug)]
pub struct Appended {
    /// What the append was given.
    pub token: u64,
    /// The bytes, to be used again.
    pub bytes: Vec<u8>,
    /// Whether they are on stable storage. After an error nothing of them is in the file, and the next append may go well.
    pub result: Result<(), StorageError>,
}

/// Lines on their way to the thread.
#[derive(Debug)]
struct Append {
    token: u64,
    bytes: Vec<u8>,
}

impl LineFile {
    /// Opens or creates (mode 0600) the file, cuts off a torn last line, locks it against other processes and starts the
    /// thread. At most `capacity` appends wait; answers go to the mailbox, whose `waker` is used for each.
    ///
    /// # Errors
    /// The file cannot be opened, is no regular file, or is used by another process (`WouldBlock`); the thread cannot be
    /// made.
    ///
    /// # Panics
    /// If `capacity` is 0.
    pub fn open(
        path: &Path,
        backend: Backend,
        waker: Waker,
        capacity: usize,
    ) -> Result<(Self, MailReceiver<Appended>, Opened), StorageError> {
        let error = |action| move |source| StorageError::new(action, path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(error("open"))?;
        let file = match LockedFile::new(file) {
            Ok(file) => file,
            Err(TryLockError::WouldBlock) => {
                let source = io::Error::new(io::ErrorKind::WouldBlock, "another process uses this file");
                return Err(StorageError::new("lock", path, source));
            }
            Err(TryLockError::Error(source)) => return Err(StorageError::new("lock", path, source)),
        };
        let opened = repair(&file).map_err(error("repair"))?;
        let (requests, inbox) = channel(capacity);
        let (replies, receiver) = mailbox(capacity, waker);
        let appender = Appender {
            file,
            path: path.to_owned(),
            length: opened.length,
            inbox,
            replies,
        };
        let thread = thread::spawn("fg-lines", None, move || match backend {
            Backend::Uring => appender.run_ring(),
            Backend::Epoll => appender.run_blocking(),
        })
        .map_err(error("start the writer of"))?;
        Ok((
            Self {
                requests: Some(requests),
                thread: Some(thread),
            },
            receiver,
            opened,
        ))
    }

    /// Hands complete lines, each with its end, to the thread; `token` comes back with the answer.
    ///
    /// # Errors
    /// Gives the bytes back when too many appends wait, or when they do not end in a newline.
    pub fn append(&self, token: u64, bytes: Vec<u8>) -> Result<(), Vec<u8>> {
        let Some(requests) = &self.requests else {
            return Err(bytes);
        };
        if bytes.last() != Some(&b'\n') {
            return Err(bytes);
        }
        requests
            .try_send(Append { token, bytes })
            .map_err(|error| match error {
                TrySendError::Full(append) | TrySendError::Closed(append) => append.bytes,
            })
    }
}

impl Drop for LineFile {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It does nothing that panics, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Appender {
    file: LockedFile,
    path: PathBuf,
    /// Where the next line goes; everything before is on stable storage.
    length: u64,
    inbox: Receiver<Append>,
    replies: MailSender<Appended>,
}

/// Cuts off what follows the last newline, looking backwards from the end.
fn repair(file: &File) -> io::Result<Opened> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let size = metadata.len();
    let length = find_newline_before(file, size)?.map_or(0, |position| position + 1);
    let torn = size - length;
    if torn > 0 {
        file.set_len(length)?;
    }
    // Also for the lines before: the process that wrote them may have died between write and sync.
    file.sync_all()?;
    Ok(Opened {
        length,
        torn,
        last_line: last_line(file, length)?,
    })
}

/// Returns the line that ends at `length`.
fn last_line(file: &File, length: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(end) = length.checked_sub(1) else {
        return Ok(None);
    };
    let start = find_newline_before(file, end)?.map_or(0, |position| position + 1);
    match usize::try_from(end - start) {
        Ok(size) if size <= LAST_LINE_MAX => {
            let mut line = vec![0; size];
            file.read_exact_at(&mut line, start)?;
            Ok(Some(line))
        }
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Returns the position of the last newline before `end`.
fn find_newline_before(file: &File, end: u64) -> io::Result<Option<u64>> {
    let mut block = vec![0; BLOCK_SIZE];
    let mut end = end;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_SIZE as u64);
        let size = usize::try_from(end - start).unwrap_or(BLOCK_SIZE);
        let bytes = block.get_mut(..size).unwrap_or_default();
        file.read_exact_at(bytes, start)?;
        if let Some(position) = bytes.iter().rposition(|&byte| byte == b'\n') {
            return Ok(Some(start + position as u64));
        }
        end = start;
    }
    Ok(None)
}

/// Bytes looked at in one step.
const BLOCK_SIZE: usize = 64 << 10;

/// Longest last line that is returned.
const LAST_LINE_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests;
