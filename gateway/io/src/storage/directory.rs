use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use super::{FileRef, StorageError};
use crate::{lock::LockedFile, sys};

/// A directory whose files survive power cuts; one process at a time may change it.
///
/// Every change is on stable storage when its method returns: the file's content, its length and its name.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// For making names durable.
    handle: File,
    /// Held as long as this exists; `None` when opened for reading only.
    lock: Option<LockedFile>,
}

/// A file in a [`Directory`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
}

impl Directory {
    /// Opens the directory for this process alone, creating it (mode 0700) if need be, and removes half-made files.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it; otherwise the kernel's.
    pub fn lock(path: &Path) -> Result<Self, StorageError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| StorageError::new("create directory", path, source))?;
        let lock_path = path.join(LOCK_NAME);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&lock_path)
            .map_err(|source| StorageError::new("open lock file", &lock_path, source))?;
        let lock = match LockedFile::new(lock) {
            Ok(lock) => lock,
            Err(TryLockError::WouldBlock) => {
                let source = io::Error::new(io::ErrorKind::WouldBlock, "another process uses this directory");
                return Err(StorageError::new("lock", &lock_path, source));
            }
            Err(TryLockError::Error(source)) => return Err(StorageError::new("lock", &lock_path, source)),
        };
        let directory = Self {
            path: path.to_owned(),
            handle: open_directory(path)?,
            lock: Some(lock),
        };
        // The directory's own name, in case it is new.
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync(&open_directory(parent)?, parent)?;
        }
        directory.remove_half_made()?;
        Ok(directory)
    }

    /// Opens the directory without locking it, for tools that only read. Changing it fails with `PermissionDenied`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_read_only(path: &Path) -> Result<Self, StorageError> {
        Ok(Self {
            path: path.to_owned(),
            handle: open_directory(path)?,
            lock: None,
        })
    }

    /// Returns the path it was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file that is `length` bytes long, begins with `header` and has its space reserved.
    ///
    /// It appears under its name only when all of that is on stable storage: after a power cut it is complete or not there.
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidInput` for a name that is not plain or a header longer than the file, or the kernel's. After
    /// an error nothing is left behind.
    pub fn create(&self, name: &str, length: u64, header: &[u8]) -> Result<FileRef, StorageError> {
        let path = self.writable(name)?;
        if header.len() as u64 > length {
            return Err(StorageError::new(
                "create",
                &path,
                invalid("the header is longer than the file"),
            ));
        }
        let scratch = self.path.join(format!("{name}{HALF_MADE}"));
        let made = self.make(&scratch, &path, length, header);
        if made.is_err() {
            // Best effort: what stays is removed when the directory is locked the next time.
            let _ = fs::remove_file(&scratch);
        }
        made.map(FileRef::new)
            .map_err(|source| StorageError::new("create", &path, source))
    }

    fn make(&self, scratch: &Path, path: &Path, length: u64, header: &[u8]) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(scratch)?;
        if length > 0 {
            match sys::allocate(file.as_fd(), length) {
                // A file system that cannot reserve: the length alone has to do, and a full disk shows at the write.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => file.set_len(length)?,
                result => result?,
            }
        }
        file.write_all_at(header, 0)?;
        file.sync_all()?;
        // A hard link, unlike a rename, does not replace a file that is there already.
        fs::hard_link(scratch, path)?;
        let finish = fs::remove_file(scratch).and_then(|()| self.handle.sync_all());
        if finish.is_err() {
            let _ = fs::remove_file(path);
        }
        finish.map(|()| file)
    }

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is not plain, or the kernel's.
    pub fn open(&self, name: &str) -> Result<FileRef, StorageError> {
        let path = self.writable(name)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map(FileRef::new)
            .map_err(|source| StorageError::new("open", &path, source))
    }

    /// Deletes a file. It does not come back after a power cut.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput` for a name that is not plain, or the kernel's.
    pub fn delete(&self, name: &str) -> Result<(), StorageError> {
        let path = self.writable(name)?;
        fs::remove_file(&path)
            .and_then(|()| self.handle.sync_all())
            .map_err(|source| StorageError::new("delete", &path, source))
    }

    /// Cuts a file off behind `length` bytes, durably; a file that is not longer stays as it is.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput` for a name that is not plain, or the kernel's.
    pub fn shrink(&self, name: &str, length: u64) -> Result<(), StorageError> {
        let path = self.writable(name)?;
        let shrink = || {
            let file = OpenOptions::new().write(true).open(&path)?;
            if file.metadata()?.len() <= length {
                return Ok(());
            }
            file.set_len(length)?;
            file.sync_all()
        };
        shrink().map_err(|source| StorageError::new("shrink", &path, source))
    }

    /// Writes `bytes` at `offset` of an existing file, durably; for slots that are smaller than a disk's sector.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput` for a name that is not plain, or the kernel's.
    pub fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.writable(name)?;
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(bytes, offset).and_then(|()| file.sync_data()))
            .map_err(|source| StorageError::new("write", &path, source))
    }

    /// Puts `bytes` in place of a file's whole content, or makes the file: after a power cut it is the old or the new one.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is not plain, or the kernel's. After an error the old content is still there.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.writable(name)?;
        let scratch = self.path.join(format!("{name}{HALF_MADE}"));
        let replaced = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(&scratch)
            .and_then(|file| file.write_all_at(bytes, 0).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&scratch, &path));
        if replaced.is_err() {
            // Best effort, as in `create`.
            let _ = fs::remove_file(&scratch);
        }
        replaced
            .and_then(|()| self.handle.sync_all())
            .map_err(|source| StorageError::new("replace", &path, source))
    }

    /// Reads at most `length` bytes from `offset`; fewer if the file ends there.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput` for a name that is not plain, or the kernel's.
    pub fn read(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let path = self.plain(name)?;
        let read = || {
            let file = File::open(&path)?;
            // Never reserve more than there is, whatever was asked for.
            let there = file.metadata()?.len().saturating_sub(offset);
            let length = length.min(usize::try_from(there).unwrap_or(usize::MAX));
            let mut bytes = Vec::with_capacity(length);
            let mut reader = OffsetReader { file: &file, offset };
            (&mut reader).take(length as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| StorageError::new("read", &path, source))
    }

    /// Sets a file aside under a name that ends in `.bad` (`.bad.1`, `.bad.2` … if that is taken) and returns the name.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput` for a name that is not plain, or the kernel's.
    pub fn quarantine(&self, name: &str) -> Result<String, StorageError> {
        let path = self.writable(name)?;
        for attempt in 0..QUARANTINE_MAX {
            let aside = if attempt == 0 {
                format!("{name}.bad")
            } else {
                format!("{name}.bad.{attempt}")
            };
            // A hard link, unlike a rename, does not replace a file that was set aside before.
            match fs::hard_link(&path, self.path.join(&aside)) {
                Ok(()) => {
                    return fs::remove_file(&path)
                        .and_then(|()| self.handle.sync_all())
                        .map(|()| aside)
                        .map_err(|source| StorageError::new("set aside", &path, source));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(StorageError::new("set aside", &path, source)),
            }
        }
        let source = io::Error::new(
            io::ErrorKind::QuotaExceeded,
            "too many files were set aside under this name",
        );
        Err(StorageError::new("set aside", &path, source))
    }

    /// Lists the files in order of their names, without the lock, half-made files and whatever is no file.
    ///
    /// # Errors
    /// The kernel's.
    pub fn list(&self) -> Result<Vec<Entry>, StorageError> {
        let list = || {
            let mut entries = Vec::new();
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                // Names that are not UTF-8 are not ours.
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                if name == LOCK_NAME || name.ends_with(HALF_MADE) {
                    continue;
                }
                match entry.metadata() {
                    Ok(metadata) if metadata.is_file() => entries.push(Entry {
                        name,
                        length: metadata.len(),
                    }),
                    Ok(_) => {}
                    // Deleted meanwhile, which a reader without the lock may meet.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            entries.sort();
            Ok(entries)
        };
        list().map_err(|source| StorageError::new("list", &self.path, source))
    }

    /// Returns the bytes that can still be written to the file system of the directory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn available_bytes(&self) -> Result<u64, StorageError> {
        sys::available(self.handle.as_fd())
            .map_err(|source| StorageError::new("ask for space in", &self.path, source))
    }

    fn remove_half_made(&self) -> Result<(), StorageError> {
        let remove = || {
            let mut removed = false;
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().ends_with(HALF_MADE) && entry.file_type()?.is_file() {
                    fs::remove_file(entry.path())?;
                    removed = true;
                }
            }
            if removed { self.handle.sync_all() } else { Ok(()) }
        };
        remove().map_err(|source| StorageError::new("clean up", &self.path, source))
    }

    /// Returns the path of a file, refusing names that could lead out of the directory or to what is not the caller's.
    fn plain(&self, name: &str) -> Result<PathBuf, StorageError> {
        let reserved = name == LOCK_NAME || name.ends_with(HALF_MADE);
        if name.is_empty()
            || name.len() > NAME_MAX
            || name.starts_with('.')
            || name.contains(['/', '\0'])
            || reserved
        {
            return Err(StorageError::new(
                "use",
                &self.path.join("?"),
                invalid("not a plain file name"),
            ));
        }
        Ok(self.path.join(name))
    }

    /// As [`Self::plain`], for changes, which need the lock.
    fn writable(&self, name: &str) -> Result<PathBuf, StorageError> {
        let path = self.plain(name)?;
        if self.lock.is_none() {
            let source = io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the directory is open for reading only",
            );
            return Err(StorageError::new("change", &path, source));
        }
        Ok(path)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn open_directory(path: &Path) -> Result<File, StorageError> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(path)
        .map_err(|source| StorageError::new("open directory", path, source))
}

fn sync(directory: &File, path: &Path) -> Result<(), StorageError> {
    directory
        .sync_all()
        .map_err(|source| StorageError::new("sync", path, source))
}

/// Reads a file from a position without moving anyone else's.
struct OffsetReader<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for OffsetReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Held with `flock(2)` by the process that uses the directory; the kernel lets go of it when that dies.
const LOCK_NAME: &str = "LOCK";

/// Ends the names of files that are being made.
const HALF_MADE: &str = ".tmp";

/// Longest name, with room for the endings above.
const NAME_MAX: usize = 200;

/// Files set aside under one name before an operator has to look.
const QUARANTINE_MAX: u32 = 1000;

/// Readings are nobody else's business.
const FILE_MODE: u32 = 0o600;
