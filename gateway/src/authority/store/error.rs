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
    /// The log of a clustered authority cannot be read or written now.
    #[error("the cluster's log is not reached: {reason}")]
    Away {
        /// Why.
        reason: String,
    },
    /// Another process of the authority has decided meanwhile.
    #[error("other processes of this authority write all the time")]
    Late,
    /// There is no log, and this process is not the one to begin it.
    #[error("the cluster's log {name} has no entry")]
    NotFounded {
        /// What it is called.
        name: String,
    },
    /// The log ends before what this store has taken from it.
    #[error(
        "the cluster's log {name} ends at entry {got}, and this store has taken {have}: it was set back or made anew"
    )]
    RolledBack {
        /// What it is called.
        name: String,
        /// The newest entry there.
        got: u64,
        /// The newest that this store knows.
        have: u64,
    },
    /// An entry does not follow the one before: forged, sealed with another secret, or of another log.
    #[error(
        "entry {sequence} of the cluster's log {name} does not continue what this store has taken from it"
    )]
    OtherLog {
        /// What it is called.
        name: String,
        /// Which entry.
        sequence: u64,
    },
    /// Entries that this store lacks are kept no more.
    #[error("entry {sequence} of the cluster's log {name} is kept no more, and this store lacks it")]
    Dropped {
        /// What it is called.
        name: String,
        /// Which entry.
        sequence: u64,
    },
    /// The log was begun on another store.
    #[error("the cluster's log {name} was begun on another store than {}", path.display())]
    OtherStore {
        /// Which.
        path: PathBuf,
        /// What the log is called.
        name: String,
    },
    /// The store has followed a log, and the settings name none.
    #[error("store {} is one of several that follow the log {name}, which the file does not name", path.display())]
    Clustered {
        /// Which.
        path: PathBuf,
        /// What the log is called.
        name: String,
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
            Self::Away { .. } => {
                "check the NATS servers; nothing is decided until a majority of them is back"
            }
            Self::Late => "wait, or run fewer processes of this authority",
            Self::NotFounded { .. } => {
                "set `found = true` under [authority.cluster] of the one process whose store the others are to start from"
            }
            Self::RolledBack { .. } | Self::OtherLog { .. } => {
                "if nobody but the processes of this authority writes there and all have the same `key`, begin a log of a new name \
                 (`stream` and `found = true` under [authority.cluster]) on the newest store, and give the others copies of it"
            }
            Self::Dropped { .. } | Self::OtherStore { .. } => {
                "stop this process, put a copy of the store of one that is up to date in its place, and start it again"
            }
            Self::Clustered { .. } => {
                "put [authority.cluster] back: an authority that leaves its log would decide without the others"
            }
        }
    }

    /// Returns whether it is the log's trouble, and not that of this store's file: it may pass by itself.
    pub(crate) const fn is_of_log(&self) -> bool {
        matches!(
            self,
            Self::Away { .. }
                | Self::Late
                | Self::NotFounded { .. }
                | Self::RolledBack { .. }
                | Self::OtherLog { .. }
                | Self::Dropped { .. }
                | Self::OtherStore { .. }
        )
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

    pub(crate) const fn record(what: &'static str) -> Self {
        Self::Record { what }
    }
}
