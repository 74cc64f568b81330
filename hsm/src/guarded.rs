//! Reading files that hold secrets: only regular files, only of the right owner and mode, only so long.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::error::OsError;

/// Who may be able to read a file besides its owner.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Audience {
    /// Nobody: no bits of group and others.
    Owner,
    /// systemd gives the service's user access by an ACL, whose mask shows in the group's bits; its directory
    /// is closed to all others.
    ServiceManager,
}

impl Audience {
    /// Returns the permission bits that must not be set.
    const fn forbidden(self) -> u32 {
        match self {
            Self::Owner => 0o077,
            Self::ServiceManager => 0o027,
        }
    }
}

/// Why a guarded file was not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The system refused.
    Os(OsError),
    /// The file is longer than allowed.
    TooLong,
    /// The mode lets others in.
    Exposed { mode: u32 },
    /// The file belongs to neither root nor this process's user.
    Owner { owner: u32, user: u32 },
}

/// Reads the whole of a guarded file of at most `bytes_max` bytes.
///
/// The checks are made on the open file, so that it cannot be exchanged between check and reading.
pub(crate) fn read(
    path: &Path,
    audience: Audience,
    bytes_max: usize,
) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let os = |error: std::io::Error| ReadError::Os(error.into());
    // Without O_NONBLOCK the opening of a named pipe would wait for a writer for ever.
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(os)?;
    let metadata = file.metadata().map_err(os)?;
    if !metadata.is_file() {
        let message = "not a regular file".to_owned();
        return Err(ReadError::Os(OsError {
            kind: ErrorKind::InvalidInput,
            message,
        }));
    }
    let user = geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != user {
        return Err(ReadError::Owner {
            owner: metadata.uid(),
            user,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & audience.forbidden() != 0 {
        return Err(ReadError::Exposed { mode });
    }
    // Room for one byte more than allowed, so that the buffer never moves and leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max.saturating_add(32)));
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(os)?;
    if bytes.len() > bytes_max {
        return Err(ReadError::TooLong);
    }
    Ok(bytes)
}
