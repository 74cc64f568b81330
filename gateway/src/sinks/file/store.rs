//! The files of a sink: the open one, and those that were closed.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use fieldgate_config::settings::sink::FileSink;
use fieldgate_io::{
    Backend, Waker,
    clock::{monotonic, wall},
    files::{Appended, LineFile},
    lock::LockedFile,
    mailbox::MailReceiver,
};

use super::{names::Names, scan};
use crate::sinks::positions::Positions;

/// How records are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Each ends in a line feed.
    Lines,
    /// Each says how long it is (RFC 8742).
    Sequence,
}

/// The files of a sink.
pub(crate) struct Store {
    path: PathBuf,
    names: Names,
    rotate_bytes: Option<u64>,
    rotate_after: Option<Duration>,
    keep_files: Option<u32>,
    framing: Framing,
    backend: Backend,
    /// `None` after a new file could not be opened.
    writer: Option<Writer>,
    /// Bytes in the open file.
    len: u64,
    /// Number of the file closed last.
    number: u64,
    /// When the open file will be too old (monotonic nanoseconds).
    old_at: Option<u64>,
}

/// The open file.
enum Writer {
    Lines {
        lines: LineFile,
        answers: MailReceiver<Appended>,
    },
    Sequence(LockedFile),
}

impl Store {
    /// Opens the files and brings `positions` up to what stands in them. Returns the bytes that were confirmed and are not
    /// there.
    pub(crate) fn open(
        settings: &FileSink,
        framing: Framing,
        backend: Backend,
        positions: &mut Positions,
    ) -> io::Result<(Self, u64)> {
        let path = settings.path.clone();
        let at = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let names = Names::new(&path).map_err(at)?;
        let closed = names.list_closed().map_err(at)?;
        let known: u64 = positions.place.parse().unwrap_or(0);
        let number = closed.last().map_or(0, |(number, _)| *number).max(known);
        let mut store = Self {
            path: path.clone(),
            names,
            rotate_bytes: settings.rotate_bytes,
            rotate_after: settings.rotate_after,
            keep_files: settings.keep_files,
            framing,
            backend,
            writer: None,
            len: 0,
            number,
            old_at: None,
        };
        let mut offset = positions.offset;
        for (_, path) in closed.iter().filter(|(number, _)| *number > known) {
            read_closed(path, framing, offset, positions)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            offset = 0;
        }
        store.open_file().map_err(at)?;
        let missing = offset.saturating_sub(store.len);
        if missing > 0 || !store.is_boundary(offset).map_err(at)? {
            offset = 0;
        }
        let mut file = File::open(&path).map_err(at)?;
        let whole = match scan::records(&mut file, framing, offset, store.len, positions) {
            // The checkpoint belongs to another file, so its offset means nothing here.
            Err(error) if error.kind() == io::ErrorKind::InvalidData && offset > 0 => {
                scan::records(&mut file, framing, 0, store.len, positions)
            }
            scanned => scanned,
        };
        let whole = whole.map_err(at)?;
        store.cut_torn(whole).map_err(at)?;
        positions.account_for(&number.to_string(), store.len);
        Ok((store, missing))
    }

    /// Returns how records are told apart.
    pub(crate) const fn framing(&self) -> Framing {
        self.framing
    }

    /// Opens or creates the open file.
    fn open_file(&mut self) -> io::Result<()> {
        let is_new = !self.path.try_exists()?;
        match self.framing {
            Framing::Lines => {
                let (lines, answers, opened) = LineFile::open(&self.path, self.backend, Waker::none(), 1)
                    .map_err(|error| io::Error::new(error.source.kind(), error.source.to_string()))?;
                if opened.torn > 0 {
                    tracing::info!(path = %self.path.display(), bytes = opened.torn, "the rest of an unfinished line was cut off");
                }
                self.len = opened.length;
                self.writer = Some(Writer::Lines { lines, answers });
            }
            Framing::Sequence => {
                let file = open_locked(&self.path)?;
                self.len = file.metadata()?.len();
                self.writer = Some(Writer::Sequence(file));
            }
        }
        if is_new {
            File::open(self.names.directory())?.sync_all()?;
        }
        self.old_at = self.rotate_after.map(|limit| {
            let left = limit.saturating_sub(age(&self.path).unwrap_or_default());
            monotonic().saturating_add(nanos(left))
        });
        Ok(())
    }

    /// Whether a record ends at `offset`, as far as one can see without reading all before.
    fn is_boundary(&self, offset: u64) -> io::Result<bool> {
        if offset == 0 || self.framing == Framing::Sequence {
            return Ok(true);
        }
        let mut byte = [0];
        File::open(&self.path)?.read_exact_at(&mut byte, offset - 1)?;
        Ok(byte == [b'\n'])
    }

    /// Cuts off what follows the last whole record of a sequence.
    fn cut_torn(&mut self, whole: u64) -> io::Result<()> {
        if let Some(Writer::Sequence(file)) = &self.writer {
            if whole < self.len {
                tracing::info!(path = %self.path.display(), bytes = self.len - whole, "the rest of an unfinished record was cut off");
                file.set_len(whole)?;
            }
            // Also for the records before: the process that wrote them may have died between write and sync.
            file.sync_all()?;
            self.len = whole;
        }
        Ok(())
    }

    /// Appends whole records and waits until they are on stable storage.
    pub(crate) fn append(&mut self, records: Vec<u8>) -> (Vec<u8>, Result<(), String>) {
        if self.writer.is_none()
            && let Err(error) = self.open_file()
        {
            return (records, Err(format!("{}: {error}", self.path.display())));
        }
        let added = records.len() as u64;
        let (records, result) = match &mut self.writer {
            None => (records, Err(String::new())),
            Some(Writer::Lines { lines, answers }) => match lines.append(0, records) {
                Ok(()) => match answers.receive() {
                    Some(answer) => {
                        let result = answer
                            .result
                            .map_err(|error| format!("{error}: {}; {}", error.source, error.hint()));
                        (answer.bytes, result)
                    }
                    None => (Vec::new(), Ok(())),
                },
                Err(records) => (
                    records,
                    Err(format!("{}: its writer has ended", self.path.display())),
                ),
            },
            Some(Writer::Sequence(file)) => {
                let written = file
                    .write_all_at(&records, self.len)
                    .and_then(|()| file.sync_data());
                if written.is_err() {
                    // If that fails too, the next write begins at the same place, and the next start cuts off what is torn.
                    drop(file.set_len(self.len).and_then(|()| file.sync_all()));
                }
                let path = &self.path;
                (
                    records,
                    written.map_err(|error| format!("{}: {error}", path.display())),
                )
            }
        };
        if result.is_ok() {
            self.len += added;
        }
        (records, result)
    }

    /// Notes in `positions` which file they account for, and how much of it.
    pub(crate) fn account(&self, positions: &mut Positions) {
        positions.account_for(&self.number.to_string(), self.len);
    }

    /// Whether the open file is full or too old.
    pub(crate) fn is_due(&self) -> bool {
        let is_full = self.rotate_bytes.is_some_and(|limit| self.len >= limit);
        let is_old = self.old_at.is_some_and(|at| monotonic() >= at);
        self.len > 0 && (is_full || is_old)
    }

    /// Returns the time until the open file is too old. An empty one never is.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        let at = self.old_at.filter(|_| self.len > 0)?;
        Some(Duration::from_nanos(at.saturating_sub(monotonic())))
    }

    /// Closes the open file, gives it its name and begins a new one. What does not work is tried again with the next write.
    pub(crate) fn rotate(&mut self, positions: &mut Positions) {
        // Only a checkpoint on disk that covers all of the file lets it be closed: closed files are not looked at again.
        if let Err(error) = self.try_rotate(positions) {
            tracing::warn!(path = %self.path.display(), %error, "the file is not closed yet");
            // Not at once again.
            self.old_at = Some(monotonic().saturating_add(nanos(RETRY_AFTER)));
            return;
        }
        if let Err(error) = self.retire() {
            tracing::warn!(path = %self.path.display(), %error, "old files are not deleted");
        }
    }

    fn try_rotate(&mut self, positions: &mut Positions) -> io::Result<()> {
        positions.save()?;
        let closed = self.names.closed(self.number + 1, wall().unix_millis);
        self.writer = None;
        fs::rename(&self.path, &closed)?;
        self.number += 1;
        self.len = 0;
        self.old_at = None;
        File::open(self.names.directory())?.sync_all()?;
        self.account(positions);
        tracing::info!(path = %closed.display(), "file closed");
        self.open_file()
    }

    /// Deletes the oldest closed files, if so many are not wanted.
    fn retire(&self) -> io::Result<()> {
        let Some(keep) = self.keep_files else {
            return Ok(());
        };
        let closed = self.names.list_closed()?;
        let surplus = closed.len().saturating_sub(keep as usize);
        for (_, path) in closed.iter().take(surplus) {
            fs::remove_file(path)?;
            tracing::info!(path = %path.display(), "file deleted, as `keep_files` says");
        }
        Ok(())
    }
}

fn open_locked(path: &Path) -> io::Result<LockedFile> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    match LockedFile::new(file) {
        Ok(file) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "another process uses this file",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read_closed(path: &Path, framing: Framing, offset: u64, positions: &mut Positions) -> io::Result<()> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    scan::records(&mut file, framing, offset.min(len), len, positions).map(drop)
}

/// Returns how long ago a file was made; nothing where the file system does not know, or says it lies ahead.
fn age(path: &Path) -> Option<Duration> {
    let made = fs::metadata(path).ok()?.created().ok()?;
    let made = made.duration_since(UNIX_EPOCH).ok()?;
    Duration::from_millis(wall().unix_millis).checked_sub(made)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Wait before closing a file is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(10);
