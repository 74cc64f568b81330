//! `[portal]`.

use std::net::SocketAddr;
use std::time::Duration;

use fieldgate_proto::identity::Identifier;

use super::{Pq, Registration, UplinkPath};
use crate::address::{HostPort, Network};

/// Streams of others; at least one inlet or outlet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Where this node registers, and under which name.
    pub registrations: Vec<Registration>,
    /// Policy for the channels that inlets of others open, where no other role of the file has one.
    pub pq: Pq,
    /// Listeners, names unique.
    pub inlets: Vec<PortalInlet>,
    /// What they may lead to here, names unique.
    pub outlets: Vec<PortalOutlet>,
}

/// A listener that leads to an outlet of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalInlet {
    /// Name in logs, metrics and lists: 1 to 63 of `a-z0-9-`.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who has the outlet.
    pub node: Identifier,
    /// Name of the outlet there.
    pub outlet: String,
    /// How that node is reached; the same for all inlets that lead to it, as are `pq` and `live_proof`.
    pub path: UplinkPath,
    /// Whether the channel must be post-quantum.
    pub pq: Pq,
    /// Whether that node has to prove in each channel that it holds its identity key.
    pub live_proof: bool,
    /// Networks whose addresses may connect.
    pub allow: Vec<Network>,
    /// Streams at a time.
    pub streams_max: u16,
    /// How long a stream may carry nothing.
    pub idle: Duration,
}

/// Something that this node can reach, for inlets of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalOutlet {
    /// Name that inlets know it by: 1 to 63 of `a-z0-9-`.
    pub name: String,
    /// Where its streams lead.
    pub address: HostPort,
    /// Whose inlets may lead here, beside those that a policy permits.
    pub allow: Vec<Identifier>,
    /// Streams at a time, over all nodes.
    pub streams_max: u16,
    /// How long a stream may carry nothing.
    pub idle: Duration,
}
