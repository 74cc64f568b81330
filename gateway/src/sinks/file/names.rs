//! Names of closed files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The name of a sink's file, in parts: `readings-00000007-20261121T144500Z.jsonl` is closed, `readings.jsonl` is not.
#[derive(Debug)]
pub(crate) struct Names {
    directory: PathBuf,
    stem: String,
    extension: String,
}

impl Names {
    /// Takes the path of the open file apart.
    ///
    /// # Errors
    /// `InvalidInput` if its name is no text.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_str().map(str::to_owned));
        let bad = || io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8 text");
        let stem = text(path.file_stem()).flatten().ok_or_else(bad)?;
        let extension = match text(path.extension()) {
            Some(extension) => format!(".{}", extension.ok_or_else(bad)?),
            None => String::new(),
        };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
        Ok(Self {
            directory,
            stem,
            extension,
        })
    }

    /// Returns the directory of all files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the path of closed file `number`, closed at this time (milliseconds since 1970).
    pub(crate) fn closed(&self, number: u64, unix_millis: u64) -> PathBuf {
        // 2026-11-21T14:45:00.123Z without what file systems and shells dislike, to the second.
        let time: String = crate::sinks::json::rfc3339(unix_millis)
            .chars()
            .take(19)
            .filter(|c| !matches!(c, '-' | ':'))
            .collect();
        let name = format!("{}-{number:08}-{time}Z{}", self.stem, self.extension);
        self.directory.join(name)
    }

    /// Lists the closed files with their numbers, lowest first.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn list_closed(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut closed = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if let Some(number) = entry.file_name().to_str().and_then(|name| self.number_of(name)) {
                closed.push((number, entry.path()));
            }
        }
        closed.sort();
        Ok(closed)
    }

    /// Returns the number in the name of a closed file of this sink.
    fn number_of(&self, name: &str) -> Option<u64> {
        let rest = name
            .strip_prefix(self.stem.as_str())?
            .strip_prefix('-')?
            .strip_suffix(self.extension.as_str())?;
        let (number, time) = rest.split_once('-')?;
        let is_number = number.len() >= 8 && number.bytes().all(|b| b.is_ascii_digit());
        let is_time = time.len() == 16 && time.ends_with('Z') && time.as_bytes().get(8) == Some(&b'T');
        (is_number && is_time).then(|| number.parse().ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_file_is_found_by_its_name_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let names = Names::new(&directory.path().join("readings.jsonl")).unwrap();
        let closed = names.closed(7, 1_795_272_300_123);
        assert_eq!(
            closed.file_name().unwrap().to_str().unwrap(),
            "readings-00000007-20261121T144500Z.jsonl"
        );
        for name in [
            "readings.jsonl",
            "readings-7-20261121T144500Z.jsonl",
            "readings-00000007-20261121T144500Z.cbor",
            "readings-00000007-old.jsonl",
            "other-00000007-20261121T144500Z.jsonl",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(names.list_closed().unwrap(), []);
        fs::write(names.closed(100_000_000, 0), "").unwrap();
        fs::write(&closed, "").unwrap();
        let numbers: Vec<u64> = names
            .list_closed()
            .unwrap()
            .iter()
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(numbers, [7, 100_000_000]);
        assert!(
            Names::new(Path::new("plain"))
                .unwrap()
                .closed(1, 0)
                .ends_with("plain-00000001-19700101T000000Z")
        );
    }
}
