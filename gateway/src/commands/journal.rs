//! `fieldgate journal status|verify|dump|export`: a look at the files, while the node runs or not.

use std::path::PathBuf;

use fieldgate_io::storage::{Directory, StorageError};
use fieldgate_proto::{
    journal::{JournalKey, JournalSettings, RecordOpener, SegmentHeader, WhenFull},
    link::Class,
};

use super::{Failure, check};
use crate::{
    cli::{JournalArgs, JournalCommand},
    runtime::{
        StartError,
        journal::{self, key::KeyPlace},
    },
};

mod dump;
mod export;
mod status;
mod verify;

pub(super) fn run(command: JournalCommand) -> Result<(), Failure> {
    match command {
        JournalCommand::Status(args) => status::run(&args),
        JournalCommand::Verify(args) => verify::run(&args),
        JournalCommand::Dump { journal, filter } => dump::run(&journal, &filter),
        JournalCommand::Export {
            journal,
            filter,
            file,
        } => export::run(&journal, &filter, &file),
    }
}

/// A journal that is looked at.
struct Files {
    dir: PathBuf,
    /// Name of the node, if its file was given.
    node: Option<String>,
    /// Alarms first.
    lanes: Vec<Lane>,
    key: Option<JournalKey>,
    /// Why there is no key, although the node's file names one.
    no_key: Option<String>,
}

/// A lane's files and bounds.
struct Lane {
    class: Class,
    directory: Directory,
    settings: JournalSettings,
    /// The bounds are those of the node's file.
    is_configured: bool,
}

/// One segment.
struct Segment {
    /// With the lane before it.
    name: String,
    header: Option<SegmentHeader>,
    bytes: Vec<u8>,
}

impl Files {
    /// Opens the lanes of the journal.
    fn open(args: &JournalArgs) -> Result<Self, Failure> {
        let (dir, config, settings) = match &args.dir {
            Some(dir) => (dir.clone(), None, None),
            None => {
                let settings = check::settings(&args.config)?;
                let config = settings.journal.clone().ok_or_else(|| {
                    Failure::input("the file describes no journal")
                        .hint("a node has one if it has [mqtt] or an [[uplink]]")
                })?;
                (config.dir.clone(), Some(config), Some(settings))
            }
        };
        let lanes = Class::ALL.into_iter().map(|class| {
            let settings = config.as_ref().map_or_else(JournalSettings::default, |config| {
                journal::settings(config, class)
            });
            Ok(Lane {
                class,
                directory: Directory::open_read_only(&journal::lane_dir(&dir, class)).map_err(storage)?,
                // Who only looks discards nothing.
                settings: JournalSettings {
                    ttl: None,
                    when_full: WhenFull::Refuse,
                    ..settings
                },
                is_configured: config.is_some(),
            })
        });
        let lanes = lanes.collect::<Result<_, Failure>>()?;
        let place = settings.as_ref().map(KeyPlace::of).transpose();
        let place = place.map_err(StartError::into_failure)?.flatten();
        let (key, no_key) = match place.map(|place| place.open(&dir)) {
            None => (None, None),
            Some(Ok(key)) => (Some(key), None),
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        Ok(Self {
            dir,
            node: settings.map(|settings| settings.node.name),
            lanes,
            key,
            no_key,
        })
    }

    /// Gives every segment to `look`, lane by lane and in order, until it says that is enough.
    fn for_each_segment(
        &self,
        mut look: impl FnMut(&Lane, &Segment) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        for lane in &self.lanes {
            for entry in lane.directory.list().map_err(storage)? {
                if journal::segment_number(&entry.name).is_none() {
                    continue;
                }
                let name = format!("{}/{}", lane.class.name(), entry.name);
                let length = usize::try_from(entry.length).map_err(|error| Failure::chain(&name, &error))?;
                let bytes = match lane.directory.read(&entry.name, 0, length) {
                    Ok(bytes) => bytes,
                    // The node has deleted it meanwhile.
                    Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(storage(error)),
                };
                let header = SegmentHeader::decode(&bytes);
                let segment = Segment { name, header, bytes };
                if !look(lane, &segment)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Returns what opens the records of a segment: `Ok(None)` if they stand there in clear.
    fn opener(&self, segment: &Segment) -> Result<Option<RecordOpener>, Failure> {
        let Some(header) = segment.header.filter(|header| header.seal.is_some()) else {
            return Ok(None);
        };
        let opener = self.key.as_ref().and_then(|key| key.opener(&header));
        opener.map(Some).ok_or_else(|| {
            let why = match (&self.no_key, &self.key) {
                (Some(why), _) => why.clone(),
                (None, Some(_)) => "it was encrypted with another key".to_owned(),
                (None, None) => "there is no key".to_owned(),
            };
            Failure::new(format!("{} cannot be decrypted: {why}", segment.name))
                .hint("give the node's file with --config, which says what protects the key of the journal")
        })
    }
}

fn storage(error: StorageError) -> Failure {
    Failure::new(journal::describe(&error)).hint(error.hint())
}
