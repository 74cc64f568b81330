//! The authority: says who belongs to the fleet, and since when no more (PROTOCOL.md §10 and §11).
//!
//! ```text
//!  node, control socket ──AuthorityRequest──▶ service ──▶ engine ──▶ decide ──▶ store (redb)
//!                       ◀──AuthorityAnswer───  thread     keys,      rules      one commit
//!                       ◀──AuthorityOutput───             lists                 per batch
//! ```
//!
//! A decision, its entry in the log and what it changes are one transaction; the answer goes out only after the commit.
//! Killing the process at any point thus leaves every ticket either unspent or spent for the one who asked, and that
//! one gets its credential when it asks again. That a commit survives a power cut rests on redb and on disks that
//! do what `fsync` asks of them.
//!
//! Who asks to be enrolled is never told why it was refused; log, metrics and operators are.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use fieldgate_proto::{identity::Identifier, trust::Way};

mod decide;
mod engine;
mod key;
pub(crate) mod log;
mod mailbox;
mod order;
pub(crate) mod permit;
mod record;
mod refusal;
pub(crate) mod replication;
#[cfg(test)]
pub(crate) mod rig;
pub(crate) mod service;
mod shown;
mod status;
mod store;
pub(crate) mod wire;

pub(crate) use engine::{AuthorityAnswer, AuthorityOutput, RequestKind};
pub(crate) use key::SignRequest;
pub(crate) use permit::{Origin, Permit, Wish};
pub(crate) use record::Grant;
pub(crate) use refusal::Refusal;
pub(crate) use status::AuthorityStatus;
pub(crate) use store::StoreError;

/// What an authority is told at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthoritySettings {
    /// File of the store.
    pub(crate) store: PathBuf,
    /// Validity of credentials: 10 minutes to 400 days.
    pub(crate) credential_valid: Duration,
    /// Validity of status lists: 10 minutes to 400 days. A new one is made at half of it.
    pub(crate) status_valid: Duration,
    /// Ways to the authority that go into tickets, best first; at most four.
    pub(crate) ways: Vec<Way>,
    /// Members that need no ticket. A line that goes away ends the membership: no more credentials are issued, and the
    /// last one runs out.
    pub(crate) members: BTreeMap<Identifier, Grant>,
    /// How much is kept.
    pub(crate) limits: AuthorityLimits,
}

/// How much an authority keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AuthorityLimits {
    /// Members; and four times as many revoked identities.
    pub(crate) members_max: u64,
    /// Tickets, the spent and expired ones included.
    pub(crate) tickets_max: u64,
    /// Entries of the log; the oldest tenth is dropped when there are more.
    pub(crate) log_entries_max: u64,
    /// Requests that wait.
    pub(crate) waiting_max: usize,
}

impl Default for AuthorityLimits {
    fn default() -> Self {
        Self {
            members_max: 1_000_000,
            tickets_max: 100_000,
            log_entries_max: 10_000_000,
            waiting_max: 1024,
        }
    }
}
