//! Why the store does not serve.

use std::{
    io,
    path::{Path, PathBuf},
};

use fieldgate_proto::identity::Identifier;

/// Why the store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The file cannot be opened or made.
    #[error("store {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory or a device.
    #[error("store {} is not a file", path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// Others than its owner may open it.
    #[error("store {} has mode {mode:03o}: others than its owner may open it", path.display())]
    Permissions {
        /// Which.
        path: PathBuf,
        /// The permission bits.
        mode: u32,
    },
    /// Another process has it open.
    #[error("store {} is in use by another process", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Its checksums do not fit, or it is something else.
    #[error("store {} is damaged: {detail}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Another version of fieldgate made it.
    #[error("store {} has version {got}, not {want}", path.display())]
    Schema {
        /// Which.
        path: PathBuf,
        /// Version found.
        got: u32,
        /// Version known.
        want: u32,
    },
    /// It belongs to another authority.
    #[error("store {} belongs to the authority {got}, not to {want}", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        got: Identifier,
        /// Whose it should be.
        want: Identifier,
    },
    /// A record cannot be read although the checksums fit.
    #[error("the store holds a {what} that cannot be read")]
    Record {
        /// What it is about.
        what: &'static str,
    },
    /// Reading or writing failed.
    #[error("the store cannot be read or written")]
    Disk {
        /// Why.
        source: redb::Error,
    },
}

impl StoreError {
    /// Returns what an operator can do about it.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } | Self::NotAFile { .. } => {
                "check `store` under [authority], and that its directory exists and belongs to the node's user"
            }
            Self::Permissions { .. } => {
                "chmod 600 the file, and revoke the tickets that are open if others could have read it"
            }
            Self::InUse { .. } => "one node at a time: stop the other one",
            Self::Damaged { .. } | Self::Record { .. } => {
                "keep a copy of the file, restore the last backup, revoke what was revoked since, and check the disk"
            }
            Self::Schema { .. } => "run the version of fieldgate that made it, or a later one",
            Self::Foreign { .. } => "point `store` under [authority] at this authority's own file",
            Self::Disk { .. } => "check the disk: full, worn out or mounted read-only; then restart the node",
        }
    }

    pub(super) fn open(path: &Path, error: redb::DatabaseError) -> Self {
        let path = path.to_owned();
        let error = redb::Error::from(error);
        if matches!(
            error,
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch
        ) {
            return Self::InUse { path };
        }
        let detail = error.to_string();
        if let redb::Error::Io(source) = error
            && source.kind() != io::ErrorKind::InvalidData
        {
            return Self::File { path, source };
        }
        Self::Damaged { path, detail }
    }

    pub(super) fn disk(error: impl Into<redb::Error>) -> Self {
        Self::Disk { source: error.into() }
    }

    pub(super) const fn record(what: &'static str) -> Self {
        Self::Record { what }
    }
}
