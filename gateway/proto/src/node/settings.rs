//! What a node is made from.

use std::collections::{BTreeMap, BTreeSet};

use super::{AccessPolicy, DirectSettings, PathOwner, PortalSettings};
use crate::{
    channel::{ChannelSettings, PqPolicy},
    delivery::{JournalId, LaneSettings, PerLane, ReceiverSettings, Shares},
    identity::Identifier,
    relay::{NamePattern, RelaySettings},
    route::RouterSettings,
};

/// Everything a node does.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Name and version of the software, told to neighbours; at most 255 bytes.
    pub software: String,
    /// How channels behave.
    pub channels: ChannelSettings,
    /// Nodes this node dials, and keeps a link to.
    pub neighbours: Vec<NeighbourSettings>,
    /// Of these, by index, the relays that are not dialled: the link to one lies in a channel to it, which goes this way over a
    /// neighbour before it (PROTOCOL.md §3.6).
    pub carried: BTreeMap<usize, WaySettings>,
    /// Collectors the journal is delivered to.
    pub uplinks: Vec<UplinkSettings>,
    /// Forwarding for others.
    pub relay: Option<RelaySettings>,
    /// Taking readings of gateways.
    pub collect: Option<CollectSettings>,
    /// Streams of others.
    pub portals: PortalSettings,
    /// Paths without relays.
    pub direct: DirectSettings,
    /// Who decides what peers may do.
    pub access: AccessPolicy,
    /// Ways to the authority of [`Node::trusting`](super::Node::trusting), in order of preference. Empty if this node is the
    /// authority.
    pub authority_ways: Vec<WaySettings>,
    /// Policy for the channel to the authority.
    pub authority_pq: PqPolicy,
    /// Whether this node is an authority.
    pub authority: bool,
    /// Guests of a relay at the same time.
    pub guests_max: usize,
    /// Links at the same time.
    pub links_max: usize,
    /// Labels on all links together.
    pub labels_max: usize,
    /// Bytes queued on a link above which frames forwarded to it wait by class.
    pub link_bytes_max: usize,
}

impl NodeSettings {
    /// Returns settings of a node that does nothing, with the default limits.
    #[must_use]
    pub fn new(software: &str) -> Self {
        let router = RouterSettings::default();
        Self {
            software: software.to_owned(),
            channels: ChannelSettings::default(),
            neighbours: Vec::new(),
            carried: BTreeMap::new(),
            uplinks: Vec::new(),
            relay: None,
            collect: None,
            portals: PortalSettings::default(),
            direct: DirectSettings::default(),
            access: AccessPolicy::Lists,
            authority_ways: Vec::new(),
            authority_pq: PqPolicy::default(),
            authority: false,
            guests_max: 64,
            links_max: router.links_max,
            labels_max: router.labels_max,
            link_bytes_max: router.link_bytes_max,
        }
    }

    /// Returns the ways that are there on demand only: whose, which of them, and over which neighbour.
    pub(super) fn direct_ways(&self) -> impl Iterator<Item = (PathOwner, usize, usize)> {
        let uplinks = self.uplinks.iter().enumerate();
        let uplinks = uplinks.map(|(index, uplink)| (PathOwner::Uplink(index), &uplink.ways));
        let inlets = self.portals.peers.iter().enumerate();
        let inlets = inlets.map(|(index, peer)| (PathOwner::Inlet(index), &peer.ways));
        uplinks.chain(inlets).filter_map(|(owner, ways)| {
            let way = direct_way(ways, &self.direct.neighbours)?;
            Some((owner, way, ways.get(way)?.neighbour))
        })
    }

    /// Returns what of it concerns routing.
    pub(super) fn router(&self) -> RouterSettings {
        let mut services = BTreeSet::new();
        if self.relay.is_some() {
            services.insert(REGISTRAR.to_owned());
            services.insert(LINK.to_owned());
        }
        if self.collect.is_some() {
            services.insert(UPLINK.to_owned());
        }
        if self.authority {
            services.insert(AUTHORITY.to_owned());
        }
        if self.portals.outlets.is_some() {
            services.insert(PORTAL.to_owned());
        }
        RouterSettings {
            services,
            relay: self.relay.clone(),
            links_max: self.links_max,
            labels_max: self.labels_max,
            link_bytes_max: self.link_bytes_max,
            ..RouterSettings::default()
        }
    }
}

/// A node to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourSettings {
    /// Its identity, if it is a relay: this node then attaches to it. `None` for a collector that is dialled directly.
    pub relay: Option<Identifier>,
    /// Policy for the channel to its registrar.
    pub pq: PqPolicy,
    /// Names to register there.
    pub registrations: Vec<RegistrationSettings>,
    /// What this node forwards over the link, if it is a relay itself; needs `relay`.
    pub forwarding: Option<ForwardingSettings>,
}

/// What a relay forwards over the link to another that it has dialled (PROTOCOL.md §7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardingSettings {
    /// The name under which the other relay is reached here, 1 to 128 bytes.
    pub name: String,
    /// Names here that first messages which come from there may go to.
    pub reach: Vec<NamePattern>,
}

/// One way to a peer: the neighbour it begins with, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaySettings {
    /// Index of the neighbour.
    pub neighbour: usize,
    /// The name that each relay has for the next, and the last one for the peer; empty if the neighbour is the peer. At most
    /// [`NAMES_PER_WAY_MAX`], none twice.
    pub names: Vec<String>,
}

impl WaySettings {
    /// Returns the way to a neighbour itself.
    #[must_use]
    pub const fn direct(neighbour: usize) -> Self {
        Self {
            neighbour,
            names: Vec::new(),
        }
    }

    /// Returns the way to whoever holds `name` at the relay that is the neighbour.
    #[must_use]
    pub fn relayed(neighbour: usize, name: &str) -> Self {
        Self {
            neighbour,
            names: vec![name.to_owned()],
        }
    }
}

/// Returns which of the ways begins with a neighbour that is dialled on demand.
pub(super) fn direct_way(ways: &[WaySettings], on_demand: &BTreeSet<usize>) -> Option<usize> {
    ways.iter().position(|way| on_demand.contains(&way.neighbour))
}

/// Names in a way: with the service behind them they fill a route (PROTOCOL.md §3.2).
pub const NAMES_PER_WAY_MAX: usize = crate::route::ADDRESSES_MAX - 1;

/// A name to register at a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationSettings {
    /// The name, 1 to 128 bytes.
    pub name: String,
}

/// A collector to deliver to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkSettings {
    /// Who must be at the other end.
    pub collector: Identifier,
    /// Policy for the channel.
    pub pq: PqPolicy,
    /// Whether its identity key must sign in the channel before anything is sent.
    pub live_proof: bool,
    /// Ways to it, in order of preference.
    pub ways: Vec<WaySettings>,
    /// How long committed readings may wait for company before a record is sealed.
    pub latency: std::time::Duration,
    /// What each lane of the journal has.
    pub lanes: PerLane<LaneSettings>,
    /// What lanes that wait are sure of.
    pub shares: Shares,
    /// Whether batches carry a seal, once there is a key for it ([`Node::set_seal_key`](super::Node::set_seal_key)).
    pub verifiable: bool,
}

/// What a collector takes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CollectSettings {
    /// Gateways that may deliver.
    pub gateways: BTreeSet<Identifier>,
    /// How far the sinks are with the journals they know.
    pub positions: BTreeMap<(Identifier, JournalId), u64>,
    /// How each source is received.
    pub receiver: ReceiverSettings,
}

/// Service of a relay that members attach to.
pub(super) const REGISTRAR: &str = "registrar";
/// Service of a collector that uplinks deliver to.
pub(super) const UPLINK: &str = "uplink";
/// Service of an authority.
pub(super) const AUTHORITY: &str = "authority";
/// Service of a node with outlets.
pub(super) const PORTAL: &str = "portal";
/// Service of a relay that takes links in channels.
pub(super) const LINK: &str = "link";
