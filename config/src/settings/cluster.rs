//! `[relay.cluster]` and `[authority.cluster]`.

use std::time::Duration;

use super::{
    RelayAddress, SecretSource,
    sink::{NatsAuth, SinkTls},
};
use crate::address::HostPort;

/// Relays that reach each other's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayCluster {
    /// The relays, perhaps with this one; addresses and identifiers unique.
    pub relays: Vec<RelayAddress>,
    /// What keeps the names.
    pub store: NatsBucket,
    /// How long the others take this relay for alive, at least 5 s.
    pub lease: Duration,
    /// How much longer the others' leases count without the store.
    pub grace: Duration,
    /// Names that are known of one other relay, at least 1.
    pub names_per_relay_max: usize,
    /// Names that are known of all others, at least 1.
    pub names_max: usize,
}

/// A key-value bucket of NATS JetStream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsBucket {
    /// The servers, at least one.
    pub servers: Vec<HostPort>,
    /// TLS; plain TCP without.
    pub tls: Option<SinkTls>,
    /// Who the relay is there.
    pub auth: NatsAuth,
    /// The bucket: letters, digits, `-` and `_`.
    pub bucket: String,
    /// Servers that hold a bucket that is created, 1 to 5.
    pub replicas: u32,
}

/// The log that several processes of an authority write together: a stream of NATS JetStream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityCluster {
    /// The servers, at least one.
    pub servers: Vec<HostPort>,
    /// TLS; plain TCP without.
    pub tls: Option<SinkTls>,
    /// Who the authority is there.
    pub auth: NatsAuth,
    /// What the processes share, at least 32 bytes.
    pub key: SecretSource,
    /// The stream: letters, digits, `-` and `_`.
    pub stream: String,
    /// Servers that hold a stream that is created, 1 to 5.
    pub replicas: u32,
    /// Entries that it keeps, at least 1,000.
    pub entries_max: u32,
    /// Whether this process begins an empty stream.
    pub found: bool,
}
