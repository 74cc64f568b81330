//! Relays: who may register and reach which name, and what waits for congested links (PROTOCOL.md §7).
//!
//! Forwarding itself is in [`route`](crate::route); a [`Router`](crate::route::Router) made with [`RelaySettings`] is
//! a relay. A node behind one runs a [`Registration`] for each name it wants to be found under.

mod cluster;
mod queue;
mod registrar;
mod registration;
mod registry;

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

pub use cluster::{
    Cluster, ClusterSettings, Directory, DirectoryStats, EntryError, EntryKey, LeaseEntry, NameEntry,
    Publisher, PublisherStats, RemoteName, StoreEvent, StoreWrite, WriteFailed,
};
pub use queue::ClassQueues;
pub use registrar::{RefusedReason, RegistrarFrame, StaysReason};
pub use registration::{Registration, RegistrationOutput, RegistrationState};
pub use registry::{LeaseExpired, Registered, Relay};
pub(crate) use registry::{NoWay, Way};

use crate::identity::Identifier;

/// The service that authenticates links and registers names.
pub const REGISTRAR_SERVICE: &str = "registrar";
/// Names registered by one member (PROTOCOL.md §14).
pub const NAMES_PER_MEMBER_MAX: usize = 16;
/// Holders of one name.
pub const HOLDERS_PER_NAME_MAX: usize = 8;

/// What a relay allows, to whom. Who is not named may nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    /// The members and their rights.
    pub members: BTreeMap<Identifier, MemberRights>,
    /// How long a registration lasts unless it is repeated; whole seconds.
    pub lease: Duration,
    /// Links attached to one member at the same time.
    pub links_per_member_max: usize,
    /// Bytes that may wait for one congested link, over all classes; at least twice the longest frame.
    pub queue_bytes_max: usize,
    /// Bytes that may wait for all congested links together.
    pub held_bytes_max: usize,
}

impl Default for RelaySettings {
    /// Nobody may anything; ten minutes' lease, 4 MiB per link, 64 MiB in all.
    fn default() -> Self {
        Self {
            members: BTreeMap::new(),
            lease: Duration::from_secs(600),
            links_per_member_max: 16,
            queue_bytes_max: 4 << 20,
            held_bytes_max: 64 << 20,
        }
    }
}

/// What one member may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRights {
    /// Names it may register.
    pub names: Vec<NamePattern>,
    /// Names it may send first messages to.
    pub reach: Vec<NamePattern>,
}

/// A name, or all names with a beginning: `plant-7`, `plant-*`, `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamePattern {
    /// This name only.
    Exact(String),
    /// Every name that begins so; the empty beginning is every name.
    Prefix(String),
}

impl NamePattern {
    /// Returns whether `name` is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// Why a text is not a name pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a name or a beginning of names")]
pub struct NamePatternError {
    text: String,
}

impl NamePatternError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        "write a name of 1 to 128 bytes, or its beginning and a single * at the end"
    }
}

impl FromStr for NamePattern {
    type Err = NamePatternError;

    fn from_str(text: &str) -> Result<Self, NamePatternError> {
        let error = || NamePatternError {
            text: text.to_owned(),
        };
        let (literal, pattern) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, Self::Prefix(prefix.to_owned())),
            None => (text, Self::Exact(text.to_owned())),
        };
        let long_enough = !text.is_empty() && literal.len() <= crate::route::NAME_LEN_MAX;
        if long_enough && !literal.contains('*') {
            Ok(pattern)
        } else {
            Err(error())
        }
    }
}

#[cfg(test)]
mod tests;
