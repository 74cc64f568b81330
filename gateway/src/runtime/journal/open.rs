//! Finding the journal at the start.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fieldgate_config::settings::{self as config, WhenFull as ConfigWhenFull};
use fieldgate_io::storage::{Directory, FileRef, StorageError};
use fieldgate_proto::{
    crypto::sha256,
    entropy::Entropy as _,
    identity::Identifier,
    journal::{
        Journal, JournalKey, JournalSettings, Lanes, Output, Recovery, RecoveryReport, WhenFull, WriteFailed,
    },
    link::Class,
    time::Instant,
};

use super::{describe, key::KeyPlace};
use crate::runtime::{StartError, entropy::SystemEntropy};

/// What was found, with the files that are open.
pub(super) struct Opened {
    pub(super) lanes: Lanes,
    pub(super) directories: Vec<Directory>,
    pub(super) files: BTreeMap<(Class, u64), FileRef>,
    pub(super) lock: Directory,
}

/// Returns the name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:020}.fgj")
}

/// Returns the number in the name of a segment's file.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".fgj")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Returns the directory of a lane.
pub(crate) fn lane_dir(dir: &Path, lane: Class) -> PathBuf {
    dir.join(lane.name())
}

/// Returns a name for an uplink that stays the same as long as it delivers to the same collector under the same name.
pub(crate) fn uplink_name(collector: &Identifier, name: &str) -> u64 {
    let hash = sha256(&[b"fieldgate journal uplink", collector.as_bytes(), name.as_bytes()]);
    let (first, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
    u64::from_be_bytes(*first)
}

/// Turns the file's words into the lane's.
pub(crate) fn settings(config: &config::Journal, lane: Class) -> JournalSettings {
    let memory = usize::try_from(config.tail_bytes_max).unwrap_or(usize::MAX);
    let share = match lane {
        Class::Normal => memory / 2,
        Class::Alarm | Class::Bulk => memory / 4,
    };
    JournalSettings {
        tail_bytes_max: share,
        ..settings_of(&config.lanes[usize::from(lane.bits())])
    }
}

/// Turns what a file says about one lane into the lane's words.
fn settings_of(config: &config::JournalLane) -> JournalSettings {
    JournalSettings {
        bytes_max: config.bytes_max,
        segment_bytes: config.segment_bytes,
        ttl: config.ttl,
        when_full: match config.when_full {
            ConfigWhenFull::Refuse => WhenFull::Refuse,
            ConfigWhenFull::DropOldest => WhenFull::DropOldest,
        },
        ..JournalSettings::default()
    }
}

/// Locks the directories and recovers what is in them. The first segment of each lane is made at once, so that readings are
/// taken from the first moment.
pub(super) fn open(
    config: &config::Journal,
    key: Option<&KeyPlace<'_>>,
    uplinks: &[u64],
) -> Result<Opened, StartError> {
    let broken = |error: StorageError| StartError::new(describe(&error)).hint(error.hint());
    let lock = Directory::lock(&config.dir).map_err(broken)?;
    let has_old = lock
        .list()
        .map_err(broken)?
        .iter()
        .any(|entry| segment_number(&entry.name).is_some());
    if has_old {
        let message = format!("{} holds a journal of an older format", config.dir.display());
        return Err(StartError::new(message).hint(
            "let the version that wrote it deliver what it holds, or move its files away if nobody needs them",
        ));
    }
    let key =
        match key {
            Some(place) => Some(place.open_or_create(&lock).map_err(|error| {
                StartError::new(format!("key of the journal: {error}")).hint(error.hint())
            })?),
            None => None,
        };
    let mut directories = Vec::with_capacity(Class::ALL.len());
    let mut files = BTreeMap::new();
    let mut journals = Vec::with_capacity(Class::ALL.len());
    for lane in Class::ALL {
        let directory = Directory::lock(&lane_dir(&config.dir, lane)).map_err(broken)?;
        let mut journal = open_lane(config, lane, (uplinks, key.as_ref()), &directory)?;
        settle(&mut journal, &directory, &mut files);
        journals.push(journal);
        directories.push(directory);
    }
    let journals: [Journal; 3] = journals
        .try_into()
        .map_err(|_| StartError::new("a journal has three lanes"))?;
    Ok(Opened {
        lanes: Lanes::new(journals),
        directories,
        files,
        lock,
    })
}

fn open_lane(
    config: &config::Journal,
    lane: Class,
    (uplinks, key): (&[u64], Option<&JournalKey>),
    directory: &Directory,
) -> Result<Journal, StartError> {
    let broken = |error: StorageError| StartError::new(describe(&error)).hint(error.hint());
    let (journal, report) =
        recover(directory, lane, settings(config, lane), (uplinks, key)).map_err(broken)?;
    if let Some(number) = report.locked.first() {
        let name = directory.path().join(segment_name(*number));
        return Err(
            StartError::new(format!("{} is encrypted with another key", name.display())).hint(
                "restore `key` in the journal's directory, or move the directory away if nobody needs it",
            ),
        );
    }
    for number in &report.quarantined {
        let name = segment_name(*number);
        let set_aside = directory.quarantine(&name).map_err(broken)?;
        tracing::warn!(
            lane = lane.name(),
            segment = name,
            set_aside,
            "segment cannot be read and is set aside; `fieldgate journal verify` says more"
        );
    }
    let has_cursor = directory
        .list()
        .map_err(broken)?
        .iter()
        .any(|entry| entry.name == CURSOR);
    if !has_cursor {
        directory.create(CURSOR, CURSOR_LEN as u64, &[]).map_err(broken)?;
    }
    tracing::info!(
        dir = %directory.path().display(),
        segments = report.segments,
        waiting = report.next - report.first,
        torn = report.torn,
        new = report.is_new,
        "journal opened"
    );
    Ok(journal)
}

/// Reads what is in a lane's directory and makes its journal. Segments that cannot be used are named in the report.
///
/// # Errors
/// If the directory or a file cannot be read.
pub(crate) fn recover(
    directory: &Directory,
    lane: Class,
    settings: JournalSettings,
    (uplinks, key): (&[u64], Option<&JournalKey>),
) -> Result<(Journal, RecoveryReport), StorageError> {
    let mut fresh_id = [0; 16];
    SystemEntropy.fill(&mut fresh_id);
    let mut recovery = Recovery::new(settings, lane, fresh_id).uplinks(uplinks);
    if let Some(key) = key {
        let mut salt = [0; 16];
        SystemEntropy.fill(&mut salt);
        recovery = recovery.key(key.duplicate(), salt);
    }
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

/// Does at once what a lane wants done with its files. What fails is tried again later, as at any time.
fn settle(journal: &mut Journal, directory: &Directory, files: &mut BTreeMap<(Class, u64), FileRef>) {
    let now = Instant::START;
    while let Some(output) = journal.poll_output() {
        let result = match output {
            Output::Create {
                segment,
                segment_bytes,
                header,
            } => {
                let created = directory.create(&segment_name(segment), segment_bytes, &header);
                let result = failed(&created);
                if let Ok(file) = created {
                    files.insert((journal.class(), segment), file);
                }
                journal.handle_created(now, segment, result);
                continue;
            }
            Output::WriteCursor { offset, bytes } => {
                let written = directory.write(CURSOR, offset, &bytes);
                journal.handle_cursor_written(now, failed(&written));
                continue;
            }
            Output::Delete { segment } => directory.delete(&segment_name(segment)),
            Output::Shrink { segment, bytes } => directory.shrink(&segment_name(segment), bytes),
            // Nothing was appended and nothing was asked for; what has changed is seen in the journal.
            Output::Write { .. }
            | Output::Read { .. }
            | Output::Committed { .. }
            | Output::Discarded { .. }
            | Output::StateChanged(_) => Ok(()),
        };
        // It costs space only.
        let _ = failed(&result);
    }
}

/// Writes a failure to the log and gives it as the journal takes it.
fn failed<T>(result: &Result<T, StorageError>) -> Result<(), WriteFailed> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(
                error = describe(error),
                hint = error.hint(),
                "journal: a file operation failed"
            );
            Err(super::failure(error.is_full()))
        }
    }
}

pub(crate) const CURSOR: &str = "cursor";
/// Two sectors.
const CURSOR_LEN: usize = 1024;
/// Segment header and first block header.
const HEAD_LEN: usize = 1024;
/// The largest segment that the configuration allows.
const SEGMENT_BYTES_READ_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_are_read_back() {
        for number in [1, 42, u64::MAX] {
            assert_eq!(segment_number(&segment_name(number)), Some(number));
        }
        for name in [
            "1.fgj",
            "cursor",
            "00000000000000000001.fgj.bad",
            "0000000000000000000a.fgj",
        ] {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }
}
