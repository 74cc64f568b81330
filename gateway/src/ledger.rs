//! The files of a collector's ledger (`fieldgate_proof::ledger`): appending for the sink, searching for `fieldgate proof`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use fieldgate_proof::{
    Proof, ProofError,
    ledger::{CONTENT_LEN_MAX, Entries, Entry, SealedBatch},
};
use fieldgate_proto::{identity::Identifier, seal::merkle::Hash};

/// Returns the numbers of the files in `dir`, oldest first.
fn numbers(dir: &Path) -> io::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_suffix(SUFFIX))
            .filter(|digits| digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}{SUFFIX}"))
}

/// Reads a file, no more of it than one may have.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 2 * CONTENT_LEN_MAX as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where proofs are kept: appends batches, deletes the oldest file when the bound is reached.
#[derive(Debug)]
pub(crate) struct Ledger {
    dir: PathBuf,
    bytes_max: u64,
    /// Finished files and their lengths.
    files: BTreeMap<u64, u64>,
    current: Option<Current>,
    next: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Current {
    number: u64,
    file: File,
    length: u64,
    /// Keys that stand in it.
    keys: BTreeSet<Hash>,
}

impl Ledger {
    /// Opens the directory, creating it if need be. Whatever the last run left unfinished stays behind in its file, which is not
    /// written any more.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut files = BTreeMap::new();
        for number in numbers(dir)? {
            files.insert(number, fs::metadata(path_of(dir, number))?.len());
        }
        let next = files
            .last_key_value()
            .map_or(1, |(last, _)| last.saturating_add(1));
        Ok(Self {
            dir: dir.to_owned(),
            bytes_max: bytes_max.max(BYTES_MAX_MIN),
            files,
            current: None,
            next,
            buffer: Vec::new(),
        })
    }

    /// Takes a batch for the next [`Ledger::commit`], with the key it names.
    ///
    /// # Errors
    /// [`ProofError::Length`]: the batch is too long to be kept.
    pub(crate) fn append(
        &mut self,
        batch: SealedBatch<'_>,
        history: &[u8],
        attestation: &[u8],
    ) -> Result<(), LedgerError> {
        if self
            .current
            .as_ref()
            .is_none_or(|current| current.length.saturating_add(self.buffer.len() as u64) >= FILE_BYTES_MAX)
        {
            self.commit()?;
            self.rotate()?;
        }
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        if current.keys.insert(batch.key_id) {
            Entry::Key { history, attestation }.put(&mut self.buffer)?;
        }
        Entry::Batch(batch).put(&mut self.buffer)?;
        Ok(())
    }

    /// Puts everything taken on stable storage.
    ///
    /// # Errors
    /// Those of the file system. What is in doubt is written again, into another file.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = current
            .file
            .write_all(&self.buffer)
            .and_then(|()| current.file.sync_data());
        if let Err(error) = written {
            // What the file holds now is unknown; nothing is appended to it any more.
            if let Some(current) = self.current.take() {
                let length = current.file.metadata().map_or(current.length, |data| data.len());
                self.files.insert(current.number, length);
            }
            self.buffer.clear();
            return Err(error);
        }
        current.length = current.length.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
        self.delete_old()
    }

    /// Returns the bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let finished: u64 = self.files.values().sum();
        finished.saturating_add(self.current.as_ref().map_or(0, |current| current.length))
    }

    fn rotate(&mut self) -> io::Result<()> {
        if let Some(current) = self.current.take() {
            self.files.insert(current.number, current.length);
        }
        let number = self.next;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path_of(&self.dir, number))?;
        File::open(&self.dir)?.sync_all()?;
        self.next = number.saturating_add(1);
        self.current = Some(Current {
            number,
            file,
            length: 0,
            keys: BTreeSet::new(),
        });
        Ok(())
    }

    fn delete_old(&mut self) -> io::Result<()> {
        while self.bytes() > self.bytes_max {
            let Some((number, length)) = self.files.pop_first() else {
                return Ok(());
            };
            let path = path_of(&self.dir, number);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                self.files.insert(number, length);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// The file system refused.
    #[error("the ledger cannot be written")]
    Io(#[from] io::Error),
    /// The batch cannot be kept.
    #[error("the batch cannot be kept")]
    Batch(#[from] ProofError),
}

/// What a search found.
#[derive(Debug)]
pub(crate) enum Found {
    /// The proof.
    Proof(Box<Proof>),
    /// The ledger has nothing about this reading. Its oldest and newest readings of that journal, if there are any.
    Nothing {
        /// First and last sequence held of the journal.
        held: Option<(u64, u64)>,
        /// Damaged places that were passed over.
        damaged: u64,
    },
}

/// Searches the ledger in `dir` for reading `sequence` of a gateway's journal, newest file first.
///
/// # Errors
/// Those of the file system.
pub(crate) fn find(dir: &Path, gateway: Identifier, journal: [u8; 16], sequence: u64) -> io::Result<Found> {
    let mut held: Option<(u64, u64)> = None;
    let mut damaged = 0_u64;
    for number in numbers(dir)?.into_iter().rev() {
        let bytes = match read(&path_of(dir, number)) {
            Ok(bytes) => bytes,
            // The collector deletes the oldest while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut keys = BTreeMap::new();
        let mut entries = Entries::new(&bytes);
        for entry in entries.by_ref() {
            match entry {
                Entry::Key { history, attestation } => {
                    keys.insert(
                        fieldgate_proto::crypto::sha256(&[attestation]),
                        (history, attestation),
                    );
                }
                Entry::Batch(batch) if batch.gateway == gateway && batch.extent.journal == journal => {
                    let first = batch.extent.first.saturating_add(batch.skipped.len() as u64);
                    let last = batch
                        .extent
                        .first
                        .saturating_add(batch.extent.count)
                        .saturating_sub(1);
                    held = Some(held.map_or((first, last), |(from, to)| (from.min(first), to.max(last))));
                    if let Some((history, attestation)) = keys.get(&batch.key_id)
                        && let Ok(proof) = batch.prove(history, attestation, sequence)
                    {
                        return Ok(Found::Proof(Box::new(proof)));
                    }
                }
                Entry::Batch(_) => {}
            }
        }
        damaged = damaged.saturating_add(entries.damaged());
    }
    Ok(Found::Nothing { held, damaged })
}

const SUFFIX: &str = ".fgl";
const DIGITS: usize = 20;
/// A file is finished when it has this many bytes; one batch more may be in it.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Smallest bound: the current file and one before it.
const BYTES_MAX_MIN: u64 = 2 * FILE_BYTES_MAX;

#[cfg(test)]
mod tests;
