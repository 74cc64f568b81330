//! The store of an authority: one redb file, one owner, one transaction per batch of requests.
//!
//! | table | key | value |
//! |---|---|---|
//! | `members` | identifier | member |
//! | `names` | name of a member | its identifier |
//! | `tickets` | ticket's identifier | ticket |
//! | `spent` | ticket, subject | seconds since 1970 |
//! | `revoked` | identifier | revoked |
//! | `listed` | identifier | the latest end of its credentials: the status list names it |
//! | `prefixes` | first half of an identifier | the same, of identities revoked in a list that the store had forgotten |
//! | `log` | sequence | entry |
//! | `meta` | word | schema, authority, counters, status list, numbers of the lists signed |
//!
//! Records are in [`record`](super::record), entries in [`log`](super::log). Opening reads the whole file and compares every
//! checksum, so a damaged store is refused instead of misread; and it walks the last entries of the log to its head.
//! Commits are in two phases: a crash leaves the transaction before or the one after, whatever order the disk wrote in.

mod batch;
mod error;
mod lists;
mod state;
mod writes;

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use fieldgate_proto::identity::Identifier;
use redb::{
    Builder, Database, Durability, ReadableTable as _, StorageBackend, TableDefinition, WriteTransaction,
    backends::FileBackend,
};

pub(crate) use batch::Batch;
pub(crate) use error::StoreError;
pub(crate) use lists::ByPrefix;
pub(crate) use state::StoredList;
pub(crate) use writes::Touched;

use self::writes::Writes;
use super::replication::{Position, Replication, ReplicationSettings, ReplicationStats, Step};

const MEMBERS: TableDefinition<'static, &[u8; 32], &[u8]> = TableDefinition::new("members");
const NAMES: TableDefinition<'static, &str, &[u8; 32]> = TableDefinition::new("names");
const TICKETS: TableDefinition<'static, &[u8; 16], &[u8]> = TableDefinition::new("tickets");
const SPENT: TableDefinition<'static, &[u8; 48], u64> = TableDefinition::new("spent");
const REVOKED: TableDefinition<'static, &[u8; 32], &[u8]> = TableDefinition::new("revoked");
const LISTED: TableDefinition<'static, &[u8; 32], u64> = TableDefinition::new("listed");
const PREFIXES: TableDefinition<'static, &[u8; 16], u64> = TableDefinition::new("prefixes");
const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");

const META_SCHEMA: &str = "schema";
const META_AUTHORITY: &str = "authority";
const META_COUNTERS: &str = "counters";
const META_LIST: &str = "status list";
const META_ISSUED: &str = "lists signed";
const META_POSITION: &str = "position in the cluster's log";

/// The version of the tables above and of the records in them.
const SCHEMA: u32 = 1;
/// Memory for pages, in bytes.
const CACHE_BYTES: usize = 32 << 20;
/// Entries at the end of the log that are checked at every start; `fieldgate authority log --verify` checks all.
const LOG_CHECKED: u64 = 10_000;
/// Numbers of status lists that are remembered, the highest ones: what a peer holds was signed some months ago at most.
const ISSUED_MAX: usize = 1024;
/// Permission bits that let others than the owner in.
const OTHERS: u32 = 0o077;

/// An open store.
pub(crate) struct Store {
    database: Database,
    path: PathBuf,
    /// The log that this store follows, if the authority is several processes.
    replication: Option<Replication>,
    /// Up to where it has followed it.
    position: Option<Position>,
    /// Set to true, the disk fails.
    #[cfg(test)]
    pub(super) fails: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Store {
    /// Opens the store of `authority` at `path`, making it if there is none.
    ///
    /// # Errors
    /// [`StoreError`] if the file is damaged, of another version or authority, open to others, or in use; or if it has followed a log
    /// and now there is to be none.
    pub(crate) fn open(
        path: &Path,
        authority: &Identifier,
        replication: Option<ReplicationSettings>,
    ) -> Result<Self, StoreError> {
        let file = open_file(path)?;
        let backend = FileBackend::new(file).map_err(|error| StoreError::open(path, error))?;
        #[cfg(test)]
        let (backend, fails) = tests::Failing::new(backend);
        let store = Self::open_on(path, backend, authority)?;
        #[cfg(test)]
        let store = Self { fails, ..store };
        store.following(authority, replication)
    }

    /// Follows a log from now on.
    fn following(
        mut self,
        authority: &Identifier,
        replication: Option<ReplicationSettings>,
    ) -> Result<Self, StoreError> {
        let position = self.read_position()?;
        self.replication = match (replication, position) {
            (None, None) => None,
            (None, Some(position)) => {
                return Err(StoreError::Clustered {
                    path: self.path,
                    name: position.name,
                });
            }
            (Some(settings), position) => {
                // What was followed under another name was another log.
                self.position = position.filter(|position| position.name == settings.name);
                Some(Replication::new(settings, *authority, self.position.as_ref()))
            }
        };
        Ok(self)
    }

    fn read_position(&self) -> Result<Option<Position>, StoreError> {
        let transaction = self.begin()?;
        let position = {
            let meta = transaction.open_table(META).map_err(StoreError::disk)?;
            let bytes = meta.get(META_POSITION).map_err(StoreError::disk)?;
            bytes.map(|bytes| Position::decode(bytes.value())).transpose()?
        };
        transaction.abort().map_err(StoreError::disk)?;
        Ok(position)
    }

    /// Opens the store in `backend`; `path` is what errors call it.
    fn open_on(
        path: &Path,
        backend: impl StorageBackend,
        authority: &Identifier,
    ) -> Result<Self, StoreError> {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(|error| StoreError::open(path, error))?;
        let store = Self {
            database,
            path: path.to_owned(),
            replication: None,
            position: None,
            #[cfg(test)]
            fails: std::sync::Arc::default(),
        };
        store.prepare(authority)?;
        Ok(store)
    }

    /// Returns the bytes of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Runs `work` in one transaction, which is on stable storage when this returns, and in the log, if there is one. A batch that
    /// has changed nothing costs no write.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of the batch has happened, or, where the disk failed in the commit itself, that
    /// cannot be known before the store is opened again. [`StoreError::Late`]: another process has decided meanwhile; look with
    /// [`Self::catch_up`] what, and decide again. [`StoreError::Away`]: it may have happened, which `catch_up` says when the log is back.
    pub(crate) fn batch<T>(
        &mut self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.begin()?;
        let kept = if self.replication.is_some() {
            Writes::kept()
        } else {
            Writes::default()
        };
        let (result, written) = {
            let mut batch = Batch::open(&transaction, kept)?;
            let result = work(&mut batch)?;
            (result, batch.finish()?)
        };
        let Some(written) = written else {
            transaction.abort().map_err(StoreError::disk)?;
            return Ok(result);
        };
        if let Some(replication) = &mut self.replication {
            let Some(position) = &self.position else {
                return Err(StoreError::Late);
            };
            let appended = replication.append(position, written.bytes());
            if appended.is_err() {
                replication.reset(Some(position));
            }
            let position = appended?;
            put_position(&transaction, &position)?;
            self.position = Some(position);
        }
        transaction.commit().map_err(StoreError::disk)?;
        Ok(result)
    }

    /// Writes what other processes have decided since, and says whom and what it was about. Without a log there is nothing.
    ///
    /// # Errors
    /// [`StoreError`]: [`StoreError::Away`] if it is not known, and others if the log is not the one that this store has followed.
    pub(crate) fn catch_up(&mut self) -> Result<Touched, StoreError> {
        let mut touched = Touched::default();
        while let Some(replication) = &mut self.replication {
            match replication.next(self.position.as_ref())? {
                Step::Current => break,
                Step::Found => {
                    let decisions = self.decisions()?;
                    if let Some(replication) = &mut self.replication {
                        replication.found(decisions)?;
                    }
                }
                Step::Join { position, decisions } => {
                    if self.decisions()? != decisions {
                        return Err(StoreError::OtherStore {
                            path: self.path.clone(),
                            name: position.name,
                        });
                    }
                    self.take(&[], position, &mut touched)?;
                }
                Step::Apply(all) => {
                    for (writes, position) in all {
                        let taken = self.take(&writes, position, &mut touched);
                        if taken.is_err()
                            && let Some(replication) = &mut self.replication
                        {
                            replication.reset(self.position.as_ref());
                        }
                        taken?;
                    }
                }
            }
        }
        Ok(touched)
    }

    /// Writes what stands in the log up to a position.
    fn take(&mut self, writes: &[u8], position: Position, touched: &mut Touched) -> Result<(), StoreError> {
        let transaction = self.begin()?;
        {
            let mut batch = Batch::open(&transaction, Writes::default())?;
            batch.apply(writes, touched)?;
        }
        put_position(&transaction, &position)?;
        transaction.commit().map_err(StoreError::disk)?;
        self.position = Some(position);
        Ok(())
    }

    /// Returns entries and hash of the log of decisions.
    fn decisions(&self) -> Result<(u64, [u8; 32]), StoreError> {
        let transaction = self.begin()?;
        let head = Batch::open(&transaction, Writes::default())?.log_head();
        transaction.abort().map_err(StoreError::disk)?;
        Ok(head)
    }

    /// Returns whether this store follows a log.
    pub(crate) const fn is_clustered(&self) -> bool {
        self.replication.is_some()
    }

    /// Returns the log's name, what it is connected to, the last entry taken, and what was done.
    pub(crate) fn replication(&self) -> Option<(&str, Option<String>, u64, ReplicationStats)> {
        let replication = self.replication.as_ref()?;
        let sequence = self.position.as_ref().map_or(0, |position| position.sequence);
        Some((
            replication.name(),
            replication.server(),
            sequence,
            replication.stats,
        ))
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut transaction = self.database.begin_write().map_err(StoreError::disk)?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(StoreError::disk)?;
        // A ticket decides who belongs to the fleet: half a transaction must not pass for a whole one, even if somebody
        // could choose what is written around it.
        transaction.set_two_phase_commit(true);
        Ok(transaction)
    }

    /// Makes the tables of a new file, or checks and migrates those of an old one.
    fn prepare(&self, authority: &Identifier) -> Result<(), StoreError> {
        let transaction = self.begin()?;
        let fresh = {
            let mut meta = transaction.open_table(META).map_err(StoreError::disk)?;
            let schema = match meta.get(META_SCHEMA).map_err(StoreError::disk)? {
                Some(bytes) => Some(read_schema(bytes.value())?),
                None => None,
            };
            match schema {
                None => {
                    let put = |meta: &mut redb::Table<'_, &str, &[u8]>, key, bytes: &[u8]| {
                        meta.insert(key, bytes).map(drop).map_err(StoreError::disk)
                    };
                    put(&mut meta, META_SCHEMA, &SCHEMA.to_be_bytes())?;
                    put(&mut meta, META_AUTHORITY, authority.as_bytes())?;
                    true
                }
                Some(SCHEMA) => {
                    let owner = meta.get(META_AUTHORITY).map_err(StoreError::disk)?;
                    check_owner(
                        &self.path,
                        owner.as_ref().map(redb::AccessGuard::value),
                        authority,
                    )?;
                    false
                }
                // Older versions are brought up to date here, step by step; version 1 is the first.
                Some(got) => {
                    return Err(StoreError::Schema {
                        path: self.path.clone(),
                        got,
                        want: SCHEMA,
                    });
                }
            }
        };
        {
            let batch = Batch::open(&transaction, Writes::default())?;
            let from = batch.log_head().0.saturating_sub(LOG_CHECKED);
            batch.verify_log(from)?.map_err(|error| StoreError::Damaged {
                path: self.path.clone(),
                detail: error.to_string(),
            })?;
        }
        if fresh {
            transaction.commit().map_err(StoreError::disk)
        } else {
            transaction.abort().map_err(StoreError::disk)
        }
    }
}

fn put_position(transaction: &WriteTransaction, position: &Position) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META).map_err(StoreError::disk)?;
    let bytes = position.encode();
    meta.insert(META_POSITION, bytes.as_slice())
        .map(drop)
        .map_err(StoreError::disk)
}

fn open_file(path: &Path) -> Result<File, StoreError> {
    let failed = |source: io::Error| StoreError::File {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(StoreError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(StoreError::Permissions {
            path: path.to_owned(),
            mode,
        });
    }
    // The name of a file made just now is part of what the first commit promises.
    if metadata.size() == 0
        && let Some(directory) = path.parent()
    {
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)?;
    }
    Ok(file)
}

fn read_schema(bytes: &[u8]) -> Result<u32, StoreError> {
    bytes
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| StoreError::record("schema version"))
}

fn check_owner(path: &Path, got: Option<&[u8]>, want: &Identifier) -> Result<(), StoreError> {
    let got: [u8; 32] = got
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| StoreError::record("authority"))?;
    let got = Identifier::from_bytes(got);
    if got == *want {
        Ok(())
    } else {
        Err(StoreError::Foreign {
            path: path.to_owned(),
            got,
            want: *want,
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
