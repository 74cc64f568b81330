//! Where readings go that a server refuses for good: a file of JSON lines beside the positions, for people.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use fieldgate_config::settings::sink::{FieldName, Format, Output};

use super::{item::Item, output::body_into};

/// A file of refused readings, made when the first is put there.
///
/// A line is a record with every field and the reason. After a crash a reading may stand there twice, with the same id.
#[derive(Debug)]
pub(crate) struct SetAside {
    path: PathBuf,
    output: Output,
    file: Option<File>,
}

impl SetAside {
    /// Names the file. `output` gives the topics.
    pub(crate) fn new(path: PathBuf, output: &Output) -> Self {
        let mut output = Output {
            format: Format::Json,
            fields: FieldName::USUAL.to_vec(),
            ..output.clone()
        };
        output.fields.insert(4, FieldName::Topic);
        Self {
            path,
            output,
            file: None,
        }
    }

    /// Returns the file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an item and the reason, and waits for stable storage.
    ///
    /// # Errors
    /// Those of the file system, or `StorageFull` beyond [`BYTES_MAX`].
    pub(crate) fn append(&mut self, item: &Item<'_>, reason: &str) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(&self.path)?;
                if let Some(directory) = self.path.parent() {
                    File::open(directory)?.sync_all()?;
                }
                self.file.insert(file)
            }
        };
        let before = file.metadata()?.len();
        if before >= BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("it has reached {BYTES_MAX} bytes; move it away"),
            ));
        }
        self.output.set.insert("refused".to_owned(), reason.to_owned());
        let mut line = Vec::new();
        body_into(&self.output, &mut line, item);
        line.push(b'\n');
        file.write_all(&line)
            .and_then(|()| file.sync_data())
            .inspect_err(|_| {
                // Half a line would run into the next one. If this fails too, that line does not parse, and is seen.
                let _ = file.set_len(before);
            })
    }
}

/// Size beyond which nothing more is put aside, so that a server that refuses everything does not fill the disk.
const BYTES_MAX: u64 = 1 << 30;
