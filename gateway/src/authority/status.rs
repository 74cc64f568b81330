//! What an authority is doing, for `fieldgate status` and the metrics.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// The state of the authority and what it has done since it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AuthorityStatus {
    /// `fg1…`.
    pub(crate) identifier: String,
    /// Whether credentials can be issued: the statement key is attested.
    pub(crate) ready: bool,
    /// What is wrong, if anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<String>,
    /// Members that are not revoked.
    pub(crate) members: u64,
    /// Identities revoked for good.
    pub(crate) revoked: u64,
    /// Tickets somebody can still enrol with.
    pub(crate) tickets_open: u64,
    /// Tickets kept, the spent and expired ones included.
    pub(crate) tickets: u64,
    /// Number of the newest status list; 0 before the first.
    pub(crate) list_number: u64,
    /// Identifiers in it.
    pub(crate) list_entries: u64,
    /// Revoked identifiers with living credentials that had no room in it.
    pub(crate) list_overflow: u64,
    /// Its end, seconds since 1970.
    pub(crate) list_not_after: u64,
    /// End of the statement key's attestation, seconds since 1970.
    pub(crate) key_not_after: u64,
    /// Entries of the log, the dropped ones included.
    pub(crate) log_entries: u64,
    /// Refusals of strangers since the start that were counted but not logged one by one.
    pub(crate) log_suppressed: u64,
    /// Size of the store's file, in bytes.
    pub(crate) store_bytes: u64,
    /// Requests since the start by `kind` and `outcome`, joined by a slash: `enrol/issued`.
    pub(crate) requests: BTreeMap<String, u64>,
    /// Transactions since the start, those that only read included.
    pub(crate) commits: u64,
    /// Requests answered by them.
    pub(crate) committed_requests: u64,
    /// Most requests in one transaction.
    pub(crate) batch_max: u64,
    /// Time spent in transactions since the start, decisions and commits, in microseconds.
    pub(crate) commit_micros: u64,
    /// Longest transaction, in microseconds.
    pub(crate) commit_micros_max: u64,
    /// Requests refused because too many waited.
    pub(crate) busy: u64,
    /// How it follows the log, if it is one of several processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<AuthorityClusterStatus>,
}

/// How one of several processes of an authority follows their log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AuthorityClusterStatus {
    /// What the log is called.
    pub(crate) log: String,
    /// What it is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    /// Why nothing is decided now, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) halted: Option<String>,
    /// The last entry of the log that the store has.
    pub(crate) entry: u64,
    /// Transactions of the other processes taken since the start.
    pub(crate) taken: u64,
    /// Transactions of this process written since the start.
    pub(crate) written: u64,
    /// Transactions decided again since the start, because another process came first.
    pub(crate) late: u64,
}

impl fmt::Display for AuthorityClusterStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, entry, .. } = self;
        write!(f, "log {log} up to entry {entry}")?;
        match &self.server {
            Some(server) => write!(f, " at {server}")?,
            None => f.write_str(", not connected")?,
        }
        write!(
            f,
            "; {} of its own, {} of others, {} decided again",
            self.written, self.taken, self.late
        )
    }
}
