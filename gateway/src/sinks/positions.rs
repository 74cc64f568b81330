//! How far a sink has come with each source, kept across restarts.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use fieldgate_proto::identity::Identifier;
use serde::{Deserialize, Serialize};

use super::{JournalText, Source};

/// Which journal of which gateway.
pub(crate) type SourceKey = (Identifier, [u8; 16]);

/// How far a sink is with each source it knows.
pub(crate) type Known = BTreeMap<SourceKey, u64>;

/// The highest sequence per source that a sink has made safe, in a small file that is replaced as a whole.
#[derive(Debug)]
pub(crate) struct Positions {
    path: Option<PathBuf>,
    by_source: BTreeMap<SourceKey, u64>,
    /// How far these positions account for what is behind the sink: bytes of its file, or messages of its stream.
    pub(crate) offset: u64,
    /// Which file or stream `offset` counts in, in the words of the sink.
    pub(crate) place: String,
    /// Per source, where a request ends that was begun; its range must not change when it is repeated.
    cuts: BTreeMap<SourceKey, u64>,
    dirty: bool,
}

/// What stands in the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u8,
    offset: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    place: String,
    positions: Vec<StoredPosition>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cuts: Vec<StoredPosition>,
}

#[derive(Serialize, Deserialize)]
struct StoredPosition {
    gateway: String,
    journal: String,
    sequence: u64,
}

impl Positions {
    /// Returns positions that are not kept.
    pub(crate) const fn forgetful() -> Self {
        Self {
            path: None,
            by_source: BTreeMap::new(),
            offset: 0,
            place: String::new(),
            cuts: BTreeMap::new(),
            dirty: false,
        }
    }

    /// Loads positions from `path`; a missing file gives none.
    ///
    /// # Errors
    /// If the file cannot be read or was not written by this program: going on would repeat or skip readings silently.
    pub(crate) fn load(path: PathBuf) -> io::Result<Self> {
        let mut positions = Self {
            path: Some(path.clone()),
            ..Self::forgetful()
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(positions),
            Err(error) => return Err(named(&path, &error)),
        };
        let damaged = |what: &str| {
            named(
                &path,
                &io::Error::new(io::ErrorKind::InvalidData, what.to_owned()),
            )
        };
        let stored: Stored = serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string()))?;
        if stored.version != VERSION {
            return Err(damaged("its version is not one this program knows"));
        }
        positions.offset = stored.offset;
        positions.place = stored.place;
        for (list, map) in [
            (stored.positions, &mut positions.by_source),
            (stored.cuts, &mut positions.cuts),
        ] {
            for position in list {
                let key = parse_key(&position.gateway, &position.journal)
                    .ok_or_else(|| damaged("a source is malformed"))?;
                map.insert(key, position.sequence);
            }
        }
        Ok(positions)
    }

    /// Returns the highest sequence that is safe, 0 for a source never seen.
    pub(crate) fn of(&self, source: &Source) -> u64 {
        self.by_source
            .get(&(source.gateway, source.journal))
            .copied()
            .unwrap_or(0)
    }

    /// Makes a source known without anything of it being safe.
    pub(crate) fn introduce(&mut self, source: &Source) {
        let key = (source.gateway, source.journal);
        if let std::collections::btree_map::Entry::Vacant(place) = self.by_source.entry(key) {
            place.insert(0);
            self.dirty = true;
        }
    }

    /// Notes how far the positions account for what is behind the sink.
    pub(crate) fn account_for(&mut self, place: &str, offset: u64) {
        if self.place != place || self.offset != offset {
            place.clone_into(&mut self.place);
            self.offset = offset;
            self.dirty = true;
        }
    }

    /// Returns where a request ends that was begun and not answered yet.
    pub(crate) fn cut(&self, source: &Source) -> Option<u64> {
        let key = (source.gateway, source.journal);
        self.cuts
            .get(&key)
            .copied()
            .filter(|last| *last > self.of(source))
    }

    /// Notes where a request ends that is about to begin; `None`: none is open.
    pub(crate) fn set_cut(&mut self, source: &Source, last: Option<u64>) {
        let key = (source.gateway, source.journal);
        let before = match last {
            Some(last) => self.cuts.insert(key, last),
            None => self.cuts.remove(&key),
        };
        self.dirty |= before != last;
    }

    /// Returns all positions.
    pub(crate) const fn all(&self) -> &BTreeMap<SourceKey, u64> {
        &self.by_source
    }

    /// Notes that everything of `source` up to `sequence` is safe. Never goes back.
    pub(crate) fn advance(&mut self, source: &Source, sequence: u64) {
        self.advance_key((source.gateway, source.journal), sequence);
    }

    /// Notes that everything of the source `key` up to `sequence` is safe. Never goes back.
    pub(crate) fn advance_key(&mut self, key: SourceKey, sequence: u64) {
        let position = self.by_source.entry(key).or_insert(0);
        if sequence > *position {
            *position = sequence;
            self.dirty = true;
        }
    }

    /// Writes the file if anything changed: new file, synced, renamed over the old one, directory synced.
    ///
    /// # Errors
    /// Those of the file system; the old file then still stands.
    pub(crate) fn save(&mut self) -> io::Result<()> {
        let (Some(path), true) = (&self.path, self.dirty) else {
            return Ok(());
        };
        let list = |map: &BTreeMap<SourceKey, u64>| {
            let positions = map.iter().map(|((gateway, journal), sequence)| StoredPosition {
                gateway: gateway.to_string(),
                journal: JournalText(journal).to_string(),
                sequence: *sequence,
            });
            positions.collect()
        };
        let stored = Stored {
            version: VERSION,
            offset: self.offset,
            place: self.place.clone(),
            positions: list(&self.by_source),
            cuts: list(&self.cuts),
        };
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh).map_err(|error| named(&fresh, &error))?;
        serde_json::to_writer(&mut file, &stored)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&fresh, path).map_err(|error| named(path, &error))?;
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."));
        File::open(directory)?.sync_all()?;
        self.dirty = false;
        Ok(())
    }
}

/// Returns the source and the sequences that an id of a reading or of a gap names.
pub(crate) fn parse_id(id: &str) -> Option<(SourceKey, u64, u64)> {
    let mut parts = id.split('/');
    let key = parse_key(parts.next()?, parts.next()?)?;
    let sequences = parts.next().filter(|_| parts.next().is_none())?;
    let (first, last) = sequences.split_once('-').unwrap_or((sequences, sequences));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (1 <= first && first <= last).then_some((key, first, last))
}

/// Parses the parts of a reading's id that name its source.
pub(crate) fn parse_key(gateway: &str, journal: &str) -> Option<SourceKey> {
    let gateway = gateway.parse().ok()?;
    if journal.len() != 32 || !journal.is_ascii() {
        return None;
    }
    let mut id = [0; 16];
    for (byte, digits) in id.iter_mut().zip(journal.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some((gateway, id))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Version of the file's layout.
const VERSION: u8 = 1;

/// Returns how far all sinks have come with each source, from what each of them knows.
///
/// A source that one of the sinks does not know is left out: readings that only the others have were never confirmed to its
/// gateway, which still keeps them and sends them again.
pub(crate) fn common(sinks: &[BTreeMap<SourceKey, u64>]) -> BTreeMap<SourceKey, u64> {
    let Some((first, others)) = sinks.split_first() else {
        return BTreeMap::new();
    };
    let everywhere = first.iter().filter_map(|(key, position)| {
        let least = others
            .iter()
            .try_fold(*position, |least, sink| Some(least.min(*sink.get(key)?)));
        Some((*key, least?))
    });
    everywhere.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source {
            index: 0,
            gateway: Identifier::from_bytes([7; 32]),
            name: "press".to_owned(),
            journal: [0xab; 16],
            class: fieldgate_adapters::class::Class::Normal,
            path: Vec::new(),
        }
    }

    #[test]
    fn positions_come_back_and_never_go_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sink.positions");
        let mut positions = Positions::load(path.clone()).unwrap();
        assert_eq!(positions.of(&source()), 0);
        positions.advance(&source(), 9);
        positions.advance(&source(), 4);
        positions.account_for("stream", 77);
        positions.set_cut(&source(), Some(12));
        positions.save().unwrap();
        let mut loaded = Positions::load(path).unwrap();
        assert_eq!((loaded.of(&source()), loaded.offset), (9, 77));
        assert_eq!(
            (loaded.place.as_str(), loaded.cut(&source())),
            ("stream", Some(12))
        );
        loaded.advance(&source(), 12);
        assert_eq!(loaded.cut(&source()), None, "that request was answered");
    }

    #[test]
    fn a_source_that_one_sink_does_not_know_begins_again() {
        let key = |number| (Identifier::from_bytes([number; 32]), [number; 16]);
        let file = BTreeMap::from([(key(1), 50), (key(2), 9)]);
        let broker = BTreeMap::from([(key(2), 7)]);
        assert_eq!(common(&[file.clone(), broker]), BTreeMap::from([(key(2), 7)]));
        assert_eq!(common(std::slice::from_ref(&file)), file);
        assert_eq!(common(&[file, BTreeMap::new()]), BTreeMap::new());
        assert_eq!(common(&[]), BTreeMap::new());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sink.positions");
        fs::write(&path, "{\"version\":1").unwrap();
        assert!(
            Positions::load(path)
                .unwrap_err()
                .to_string()
                .contains("sink.positions")
        );
    }

    #[test]
    fn the_id_of_a_reading_names_its_source() {
        let key = (source().gateway, source().journal);
        assert_eq!(parse_id(&source().reading_id(12)), Some((key, 12, 12)));
        assert_eq!(parse_id(&source().gap_id(3, 12)), Some((key, 3, 12)));
        let id = source().gap_id(3, 12);
        for bad in [
            id.replace("3-", "0-"),
            id.replace("3-", "13-"),
            id.clone() + "/1",
            id.replace('/', ""),
        ] {
            assert_eq!(parse_id(&bad), None, "{bad}");
        }
    }
}
