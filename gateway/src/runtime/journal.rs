//! The journal's files: recovery at the start, and the execution of what the journal asks for.

use std::{collections::BTreeMap, fs, io, os::unix::fs::FileExt as _};

use fieldgate_config::settings::Journal as JournalConfig;
use fieldgate_io::{
    Io, Waker,
    mailbox::MailReceiver,
    storage::{Directory, FileRef, Outcome, Reply, Storage, StorageError, Task, is_full},
};
use fieldgate_proto::{
    entropy::Entropy as _,
    journal::{Journal, JournalSettings, JournalState, Output, Recovery, RecoveryReport, WriteFailed},
    time::Instant,
};

use super::{StartError, entropy::SystemEntropy};

/// Returns the name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:020}.fgj")
}

/// Returns the number in the name of a segment's file.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".fgj")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Turns the file's words into the journal's.
pub(crate) fn settings(config: &JournalConfig) -> JournalSettings {
    JournalSettings {
        bytes_max: config.bytes_max,
        segment_bytes: config.segment_bytes,
        tail_bytes_max: usize::try_from(config.tail_bytes_max).unwrap_or(usize::MAX),
        ..JournalSettings::default()
    }
}

/// Reads what is in a directory and makes the journal. Segments that cannot be used are named in the report.
///
/// # Errors
/// If the directory or a file cannot be read.
pub(crate) fn recover(
    directory: &Directory,
    settings: JournalSettings,
) -> Result<(Journal, RecoveryReport), StorageError> {
    let mut fresh_id = [0; 16];
    SystemEntropy.fill(&mut fresh_id);
    let mut recovery = Recovery::new(settings, fresh_id);
    let mut lengths = BTreeMap::new();
    for entry in directory.list()? {
        if entry.name == CURSOR {
            recovery.cursor(&directory.read(CURSOR, 0, CURSOR_LEN)?);
        } else if let Some(number) = segment_number(&entry.name) {
            recovery.head(number, &directory.read(&entry.name, 0, HEAD_LEN)?, entry.length);
            lengths.insert(number, entry.length);
        }
    }
    while let Some(number) = recovery.wanted() {
        let length = lengths.get(&number).copied().unwrap_or(0);
        let length = usize::try_from(length.min(SEGMENT_BYTES_READ_MAX)).unwrap_or(usize::MAX);
        recovery.whole(number, &directory.read(&segment_name(number), 0, length)?);
    }
    Ok(recovery.finish())
}

/// A journal with its files.
pub(crate) struct JournalFiles {
    pub(crate) journal: Journal,
    storage: Storage,
    replies: MailReceiver<Reply>,
    open: BTreeMap<u64, FileRef>,
    durable: bool,
    /// A buffered write that was done, when the journal is not durable.
    done: Option<(Vec<u8>, Result<(), WriteFailed>)>,
    busy: bool,
}

/// What became known while the journal's wishes were carried out.
#[derive(Default)]
pub(crate) struct Progress {
    /// The journal promises everything up to here.
    pub(crate) committed: Option<u64>,
    /// Whether it takes readings has changed.
    pub(crate) state: Option<JournalState>,
}

impl JournalFiles {
    /// Locks the directory, recovers what is in it, and starts the thread for its files.
    ///
    /// # Errors
    /// [`StartError`] if the directory is used by another process or cannot be read.
    pub(crate) fn open(config: &JournalConfig, waker: Waker) -> Result<Self, StartError> {
        fs::create_dir_all(&config.dir).map_err(|error| StartError::file(&config.dir, &error))?;
        let broken = |error: StorageError| StartError::new(describe(&error)).hint(error.hint());
        let directory = Directory::lock(&config.dir).map_err(broken)?;
        let (journal, report) = recover(&directory, settings(config)).map_err(broken)?;
        for number in &report.quarantined {
            let name = segment_name(*number);
            let set_aside = directory.quarantine(&name).map_err(broken)?;
            tracing::warn!(
                segment = name,
                set_aside,
                "segment cannot be read and is set aside; `fieldgate journal verify` says more"
            );
        }
        if !directory
            .list()
            .map_err(broken)?
            .iter()
            .any(|entry| entry.name == CURSOR)
        {
            directory.create(CURSOR, CURSOR_LEN as u64, &[]).map_err(broken)?;
        }
        tracing::info!(
            dir = %config.dir.display(),
            segments = report.segments,
            waiting = report.next - report.first,
            torn = report.torn,
            new = report.is_new,
            "journal opened"
        );
        let (storage, replies) = Storage::spawn(directory, waker, STORAGE_TASKS_MAX)
            .map_err(|error| StartError::new(format!("journal: {error}")))?;
        Ok(Self {
            journal,
            storage,
            replies,
            open: BTreeMap::new(),
            durable: config.durable,
            done: None,
            busy: false,
        })
    }

    /// Takes the answers of the storage thread.
    pub(crate) fn handle_replies(&mut self, now: Instant) {
        while let Some(Reply { token, result }) = self.replies.try_receive() {
            let number = token & NUMBER_MASK;
            if let Err(error) = &result {
                tracing::warn!(
                    error = describe(error),
                    hint = error.hint(),
                    "journal: a file operation failed"
                );
            }
            let failed = result.as_ref().err().map(|error| {
                if error.is_full() {
                    WriteFailed::NoRoom
                } else {
                    WriteFailed::Broken
                }
            });
            match (token >> KIND_SHIFT, result) {
                (KIND_CREATE, Ok(Outcome::Created(file))) => {
                    self.open.insert(number, file);
                    self.journal.handle_created(now, number, Ok(()));
                }
                (KIND_CREATE, _) => {
                    self.journal
                        .handle_created(now, number, Err(failed.unwrap_or(WriteFailed::Broken)));
                }
                (KIND_CURSOR, _) => self
                    .journal
                    .handle_cursor_written(now, failed.map_or(Ok(()), Err)),
                (KIND_READ, Ok(Outcome::Read(bytes))) => self.journal.handle_read(Some(bytes)),
                (KIND_READ, _) => self.journal.handle_read(None),
                // A file that could not be deleted costs its space until the next start.
                (_, _) => {}
            }
        }
    }

    /// Takes the end of a durable write.
    pub(crate) fn handle_written(&mut self, now: Instant, buffer: Vec<u8>, result: io::Result<()>) {
        let result = result.map_err(|error| {
            tracing::warn!(%error, "journal: a write failed; its segment is not used any more");
            if is_full(&error) {
                WriteFailed::NoRoom
            } else {
                WriteFailed::Broken
            }
        });
        self.busy = false;
        self.journal.handle_written(now, buffer, result);
    }

    /// Returns whether a reading is on stable storage before it is promised.
    pub(crate) const fn is_durable(&self) -> bool {
        self.durable
    }

    /// Returns whether nothing is pending and nothing is being written.
    pub(crate) fn is_idle(&self) -> bool {
        !self.busy && self.journal.pending_bytes() == 0
    }

    /// Carries out what the journal wants.
    pub(crate) fn execute(&mut self, now: Instant, io: &mut Io) -> Progress {
        let mut progress = Progress::default();
        loop {
            while let Some(output) = self.journal.poll_output() {
                self.execute_one(io, output, &mut progress);
            }
            let Some((buffer, result)) = self.done.take() else {
                return progress;
            };
            self.busy = false;
            self.journal.handle_written(now, buffer, result);
        }
    }

    fn execute_one(&mut self, io: &mut Io, output: Output, progress: &mut Progress) {
        match output {
            Output::Write {
                segment,
                offset,
                bytes,
            } => self.write(io, segment, offset, bytes),
            Output::Create {
                segment,
                segment_bytes,
                header,
            } => {
                let task = Task::Create {
                    name: segment_name(segment),
                    length: segment_bytes,
                    header,
                };
                self.submit(KIND_CREATE, segment, task);
            }
            Output::WriteCursor { offset, bytes } => {
                self.submit(
                    KIND_CURSOR,
                    0,
                    Task::Write {
                        name: CURSOR.to_owned(),
                        offset,
                        bytes,
                    },
                );
            }
            Output::Delete { segment } => {
                self.open.remove(&segment);
                self.submit(
                    KIND_DELETE,
                    segment,
                    Task::Delete {
                        name: segment_name(segment),
                    },
                );
            }
            Output::Read { segment, offset, len } => {
                self.submit(
                    KIND_READ,
                    segment,
                    Task::Read {
                        name: segment_name(segment),
                        offset,
                        length: len,
                    },
                );
            }
            Output::Committed { up_to } => progress.committed = Some(up_to),
            Output::StateChanged(state) => progress.state = Some(state),
        }
    }

    fn write(&mut self, io: &mut Io, segment: u64, offset: u64, bytes: Vec<u8>) {
        self.busy = true;
        let Some(file) = self.open.get(&segment) else {
            self.done = Some((bytes, Err(WriteFailed::Broken)));
            return;
        };
        if self.durable {
            if let Err(bytes) = io.write_durable(file, offset, bytes, segment) {
                self.done = Some((bytes, Err(WriteFailed::Broken)));
            }
        } else {
            let result = file
                .file()
                .write_all_at(&bytes, offset)
                .map_err(|_| WriteFailed::Broken);
            self.done = Some((bytes, result));
        }
    }

    fn submit(&mut self, kind: u64, number: u64, task: Task) {
        // The journal has at most one creation, one cursor write and one read under way, and deletes what it created, so there
        // is always room for its tasks; a delete that found none would be repeated at the next start.
        if self.storage.submit(kind << KIND_SHIFT | number, task).is_err() {
            tracing::warn!("journal: the storage thread is behind");
        }
    }
}

/// Writes a storage error with its cause.
pub(crate) fn describe(error: &StorageError) -> String {
    format!("{error}: {}", error.source)
}

const CURSOR: &str = "cursor";
/// Two sectors.
const CURSOR_LEN: usize = 1024;
/// Segment header and first block header.
const HEAD_LEN: usize = 1024;
/// The largest segment that the configuration allows.
const SEGMENT_BYTES_READ_MAX: u64 = 64 << 20;
/// Tasks for the storage thread: more segments than are ever deleted at once.
const STORAGE_TASKS_MAX: usize = 4096;
const KIND_SHIFT: u32 = 60;
const NUMBER_MASK: u64 = (1 << KIND_SHIFT) - 1;
const KIND_CREATE: u64 = 1;
const KIND_CURSOR: u64 = 2;
const KIND_DELETE: u64 = 3;
const KIND_READ: u64 = 4;
