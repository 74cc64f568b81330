//! The journal's files: the execution of what the lanes ask for.
//!
//! ```text
//! <journal>/LOCK, key, alarm/, normal/, bulk/: each LOCK, cursor, <number, 20 digits>.fgj
//! ```
//! One thread creates, deletes and reads; durable writes go through the shard's driver, one for each lane at a time.

use std::{collections::BTreeMap, io, os::unix::fs::FileExt as _};

use fieldgate_config::settings::Journal as JournalConfig;
use fieldgate_io::{
    Io, Waker,
    mailbox::MailReceiver,
    storage::{Directory, FileRef, Outcome, Reply, Storage, StorageError, Task, is_full},
};
use fieldgate_proto::{
    journal::{JournalState, Lanes, LanesOutput, Output, WriteFailed},
    link::Class,
    time::{Instant, Now},
};

use super::StartError;
use key::KeyPlace;

pub(crate) mod key;
mod open;

pub(crate) use open::{CURSOR, lane_dir, recover, segment_name, segment_number, settings, uplink_name};

/// A journal with its files.
pub(crate) struct JournalFiles {
    pub(crate) lanes: Lanes,
    storage: Storage,
    replies: MailReceiver<Reply>,
    open: BTreeMap<(Class, u64), FileRef>,
    durable: bool,
    /// Writes that ended at once: the journal is not durable, or there was no file to write to.
    done: Vec<Written>,
    /// Lanes that are being written to.
    writing: [bool; 3],
    /// Holds the directory as a whole.
    _lock: Directory,
}

/// The end of a write.
struct Written {
    lane: Class,
    buffer: Vec<u8>,
    result: Result<(), WriteFailed>,
}

/// What became known while the journal's wishes were carried out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// The journal promises everything up to this ticket.
    pub(crate) committed: Option<u64>,
    /// Lanes, by the number of their class, that have more on stable storage, or less than before since they discarded some.
    pub(crate) moved: [bool; 3],
    /// Lanes whose readings are taken, or are not any more.
    pub(crate) states: [Option<JournalState>; 3],
}

impl JournalFiles {
    /// Locks the directories, recovers what is in them, and starts the thread for their files. `uplinks` are stable names
    /// ([`uplink_name`]) in the order in which uplinks are numbered; `key` says how readings are encrypted, if they are.
    ///
    /// # Errors
    /// [`StartError`] if a directory is used by another process or cannot be read.
    pub(crate) fn open(
        config: &JournalConfig,
        key: Option<&KeyPlace<'_>>,
        uplinks: &[u64],
        waker: Waker,
    ) -> Result<Self, StartError> {
        let opened = open::open(config, key, uplinks)?;
        let (storage, replies) = Storage::spawn(opened.directories, waker, STORAGE_TASKS_MAX)
            .map_err(|error| StartError::new(format!("journal: {error}")))?;
        Ok(Self {
            lanes: opened.lanes,
            storage,
            replies,
            open: opened.files,
            durable: config.durable,
            done: Vec::new(),
            writing: [false; 3],
            _lock: opened.lock,
        })
    }

    /// Takes the answers of the storage thread.
    pub(crate) fn handle_replies(&mut self, now: Instant) {
        while let Some(Reply { token, result }) = self.replies.try_receive() {
            let Some((lane, kind, number)) = taken_apart(token) else {
                continue;
            };
            if let Err(error) = &result {
                tracing::warn!(
                    lane = lane.name(),
                    error = describe(error),
                    hint = error.hint(),
                    "journal: a file operation failed"
                );
            }
            let ended = match &result {
                Ok(_) => Ok(()),
                Err(error) => Err(failure(error.is_full())),
            };
            match (kind, result) {
                (Kind::Create, Ok(Outcome::Created(file))) => {
                    self.open.insert((lane, number), file);
                    self.lanes.handle_created(now, lane, number, Ok(()));
                }
                (Kind::Create, _) => {
                    let ended = ended.and(Err(WriteFailed::Broken));
                    self.lanes.handle_created(now, lane, number, ended);
                }
                (Kind::Cursor, _) => self.lanes.handle_cursor_written(now, lane, ended),
                (Kind::Read, Ok(Outcome::Read(bytes))) => self.lanes.handle_read(lane, Some(bytes)),
                (Kind::Read, _) => self.lanes.handle_read(lane, None),
                // A file that could not be deleted or cut off costs its space until the next start.
                (Kind::Remove, _) => {}
            }
        }
    }

    /// Takes the end of the durable write that was given `token`.
    pub(crate) fn handle_written(
        &mut self,
        now: Instant,
        token: u64,
        buffer: Vec<u8>,
        result: io::Result<()>,
    ) {
        let Some((lane, _, segment)) = taken_apart(token) else {
            return;
        };
        let result = result.map_err(|error| {
            tracing::warn!(
                lane = lane.name(),
                segment,
                %error,
                "journal: a write failed; its segment is not used any more"
            );
            failure(is_full(&error))
        });
        self.writing[place(lane)] = false;
        self.lanes.handle_written(now, lane, buffer, result);
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        self.lanes.handle_timeout(now);
    }

    /// Returns whether a reading is on stable storage before it is promised.
    pub(crate) const fn is_durable(&self) -> bool {
        self.durable
    }

    /// Returns whether nothing is pending and nothing is being written.
    pub(crate) fn is_idle(&self) -> bool {
        self.writing == [false; 3] && self.lanes.pending_bytes() == 0
    }

    /// Carries out what the journal wants.
    pub(crate) fn execute(&mut self, now: Instant, io: &mut Io) -> Progress {
        let mut progress = Progress::default();
        loop {
            while let Some(output) = self.lanes.poll_output() {
                match output {
                    LanesOutput::Lane { lane, output } => {
                        self.execute_one(io, lane, output, &mut progress);
                    }
                    LanesOutput::Committed { up_to } => progress.committed = Some(up_to),
                }
            }
            let Some(written) = self.done.pop() else {
                return progress;
            };
            self.writing[place(written.lane)] = false;
            self.lanes
                .handle_written(now, written.lane, written.buffer, written.result);
        }
    }

    fn execute_one(&mut self, io: &mut Io, lane: Class, output: Output, progress: &mut Progress) {
        match output {
            Output::Write {
                segment,
                offset,
                bytes,
            } => self.write(io, (lane, segment), offset, bytes),
            Output::Create {
                segment,
                segment_bytes,
                header,
            } => self.submit(
                lane,
                Kind::Create,
                segment,
                Task::Create {
                    name: segment_name(segment),
                    length: segment_bytes,
                    header,
                },
            ),
            Output::WriteCursor { offset, bytes } => self.submit(
                lane,
                Kind::Cursor,
                0,
                Task::Write {
                    name: CURSOR.to_owned(),
                    offset,
                    bytes,
                },
            ),
            Output::Delete { segment } => {
                self.open.remove(&(lane, segment));
                let name = segment_name(segment);
                self.submit(lane, Kind::Remove, segment, Task::Delete { name });
            }
            Output::Shrink { segment, bytes } => self.submit(
                lane,
                Kind::Remove,
                segment,
                Task::Shrink {
                    name: segment_name(segment),
                    length: bytes,
                },
            ),
            Output::Read { segment, offset, len } => self.submit(
                lane,
                Kind::Read,
                segment,
                Task::Read {
                    name: segment_name(segment),
                    offset,
                    length: len,
                },
            ),
            Output::Committed { .. } => progress.moved[place(lane)] = true,
            Output::Discarded { count, expired } => {
                progress.moved[place(lane)] = true;
                tracing::warn!(
                    lane = lane.name(),
                    readings = count,
                    reason = if expired { "too old" } else { "no room" },
                    "journal: readings discarded before every collector had them"
                );
            }
            Output::StateChanged(state) => {
                progress.states[place(lane)] = Some(state);
                let lane = lane.name();
                match state {
                    JournalState::Ready => tracing::info!(lane, "journal takes readings again"),
                    JournalState::Full => {
                        tracing::warn!(lane, "journal is full: devices are not acknowledged");
                    }
                    JournalState::Failed => {
                        tracing::warn!(lane, "journal's disk fails: devices are not acknowledged");
                    }
                }
            }
        }
    }

    fn write(&mut self, io: &mut Io, (lane, segment): (Class, u64), offset: u64, bytes: Vec<u8>) {
        self.writing[place(lane)] = true;
        let ended = match self.open.get(&(lane, segment)) {
            None => (bytes, Err(WriteFailed::Broken)),
            Some(file) if self.durable => {
                let token = put_together(lane, Kind::Create, segment);
                match io.write_durable(file, offset, bytes, token) {
                    Ok(()) => return,
                    Err(bytes) => (bytes, Err(WriteFailed::Broken)),
                }
            }
            Some(file) => {
                let result = file.file().write_all_at(&bytes, offset);
                (bytes, result.map_err(|error| failure(is_full(&error))))
            }
        };
        let (buffer, result) = ended;
        self.done.push(Written { lane, buffer, result });
    }

    fn submit(&mut self, lane: Class, kind: Kind, number: u64, task: Task) {
        // A lane has at most one creation, one cursor write and one read under way, and deletes what it created, so there
        // is always room for its tasks; a delete that found none would be repeated at the next start.
        let token = put_together(lane, kind, number);
        if self.storage.submit(token, place(lane), task).is_err() {
            tracing::warn!(lane = lane.name(), "journal: the storage thread is behind");
        }
    }
}

/// What a task of the storage thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Create = 0,
    Cursor = 1,
    Remove = 2,
    Read = 3,
}

/// Puts lane, kind and a segment's number into one token.
fn put_together(lane: Class, kind: Kind, number: u64) -> u64 {
    u64::from(lane.bits()) << LANE_SHIFT | (kind as u64) << KIND_SHIFT | (number & NUMBER_MASK)
}

fn taken_apart(token: u64) -> Option<(Class, Kind, u64)> {
    let lane = u8::try_from(token >> LANE_SHIFT)
        .ok()
        .and_then(Class::from_bits)?;
    let kind = match token >> KIND_SHIFT & KIND_MASK {
        0 => Kind::Create,
        1 => Kind::Cursor,
        2 => Kind::Remove,
        _ => Kind::Read,
    };
    Some((lane, kind, token & NUMBER_MASK))
}

/// Returns the place of a lane among the three.
const fn place(lane: Class) -> usize {
    lane.bits() as usize
}

const fn failure(is_full: bool) -> WriteFailed {
    if is_full {
        WriteFailed::NoRoom
    } else {
        WriteFailed::Broken
    }
}

/// Writes a storage error with its cause.
pub(crate) fn describe(error: &StorageError) -> String {
    format!("{error}: {}", error.source)
}

/// Tasks for the storage thread: more segments than are ever deleted at once.
const STORAGE_TASKS_MAX: usize = 4096;
const LANE_SHIFT: u32 = 62;
const KIND_SHIFT: u32 = 60;
const KIND_MASK: u64 = 3;
const NUMBER_MASK: u64 = (1 << KIND_SHIFT) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_apart_as_they_were_put_together() {
        for lane in Class::ALL {
            for kind in [Kind::Create, Kind::Cursor, Kind::Remove, Kind::Read] {
                for number in [0, 1, NUMBER_MASK] {
                    let token = put_together(lane, kind, number);
                    assert_eq!(taken_apart(token), Some((lane, kind, number)));
                }
            }
        }
        assert_eq!(taken_apart(u64::MAX), None);
    }
}
