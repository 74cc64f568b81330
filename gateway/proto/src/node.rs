//! A whole node, sans-IO: links, routing, channels, registrations, delivery.
//!
//! ```text
//!  bytes of a connection ─▶ Link ─▶ Router ─▶ Channels ─▶ frames ─▶ uplink │ source │ registrar
//!                                     │                               │        │
//!                          other links ◀┘ (relay)      journal ◀──────┘        └─▶ sinks
//! ```
//!
//! The caller owns sockets, clocks, the journal and the sinks. It gives bytes and the end of each turn in, and takes
//! bytes (through [`Wire`]) and [`Output`]s out. Everything a node says is appended to send buffers of the caller; readings
//! are sealed where they are copied to.

mod access;
mod carried;
mod cluster;
mod collect;
mod command;
mod connection;
mod direct;
mod drain;
mod failover;
mod incoming;
mod neighbour;
mod output;
mod portal;
mod probe;
mod proving;
mod settings;
mod trust;
mod uplink;
mod way;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use access::{Access, AccessPolicy, ChannelFacts, Verdict};
pub use carried::CARRIED_DEPTH_MAX;
pub use cluster::ClusterRelayView;
pub use collect::{SourceIndex, SourceInfo, SourceView, Trouble};
pub use command::CommandAccess;
pub use connection::ConnectionView;
pub use direct::{DirectFailure, DirectSettings, DirectState, DirectStats, DirectView};
pub use drain::{DrainView, LeaverView};
pub use failover::{PathOwner, PathReason, PathState, PathView};
pub use neighbour::{NeighbourState, NeighbourView};
pub use output::{Event, Output};
pub use portal::{PortalAccess, PortalKey, PortalPeerSettings, PortalSettings, PortalView};
pub use settings::{
    CollectSettings, ForwardingSettings, NAMES_PER_WAY_MAX, NeighbourSettings, NodeSettings,
    RegistrationSettings, UplinkSettings, WaySettings,
};
pub use trust::{Asked, AuthorityAnswer, AuthorityRequest, AuthorityRequestKind, AuthorityState, TrustView};
pub use uplink::{UplinkState, UplinkView};

use crate::{
    channel::{ChannelId, Channels, ChannelsStats, CloseCode, LocalIdentity, PathId},
    delivery::{Batch, Lost, LostReason, ShownKey},
    entropy::Entropy,
    identity::Identifier,
    link::{Class, LinkSettings},
    portal::StreamId,
    route::{FlowId, LinkId, LinkWriter, Router, RouterStats},
    time::{Instant, Now},
    trust::Trust,
};

/// A connection of the caller: any number below 2⁶³ that is not used again while the node knows it. The others are the node's own, for
/// links that lie in channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey(pub u64);

/// The send buffers of the caller's connections.
pub trait Wire {
    /// Returns the buffer to which bytes for the connection are appended, `None` if it is gone.
    fn buffer(&mut self, connection: ConnectionKey) -> Option<&mut Vec<u8>>;

    /// Returns how many bytes wait to be sent, those in the buffer included.
    fn queued_bytes(&self, connection: ConnectionKey) -> usize;
}

/// Where what comes for this node goes: a collector's readings, what streams carry.
pub trait ReadingSink {
    /// Takes consecutive readings of a source that follow what it took before, all of them or none.
    ///
    /// Returns `false` if it holds too much already; the node then asks for them again later.
    fn accept(&mut self, source: &SourceInfo, batch: Batch<'_>) -> bool;

    /// Takes the news that readings of a source that follow what it took before cannot be had any more. It is confirmed like
    /// readings, by its last sequence.
    ///
    /// Returns `false` if it holds too much already; the node then asks for the news again later.
    fn gap(&mut self, source: &SourceInfo, lost: &Lost) -> bool;

    /// Learns the key with which a gateway seals batches from now on; batches sealed with the one before may still come. Nobody
    /// has verified it. Who keeps no proofs does nothing.
    fn seal_key(&mut self, gateway: &Identifier, key: ShownKey<'_>) {
        let _ = (gateway, key);
    }

    /// Takes bytes of a stream, in order and each once; tell the session by
    /// [`Session::handle_consumed`](crate::portal::Session::handle_consumed) once they have gone out. Who has no portals gets none.
    fn portal_data(&mut self, portal: PortalKey, stream: StreamId, bytes: &[u8]) {
        let _ = (portal, stream, bytes);
    }
}

/// What a node without a collector does with readings.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSink;

impl ReadingSink for NoSink {
    fn accept(&mut self, _source: &SourceInfo, _batch: Batch<'_>) -> bool {
        false
    }

    fn gap(&mut self, _source: &SourceInfo, _lost: &Lost) -> bool {
        false
    }
}

/// The journal as uplinks see it.
pub trait RecordSource {
    /// Copies records of a lane from `from` on in the form of a Batch frame (PROTOCOL.md §8) to the end of `out`: at most
    /// `bytes_max` bytes and `count_max` records.
    fn copy_records(
        &mut self,
        lane: Class,
        from: u64,
        bytes_max: usize,
        count_max: u64,
        out: &mut Vec<u8>,
    ) -> Copied;
}

/// What [`RecordSource::copy_records`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// So many records were copied, at least one.
    Records(u64),
    /// They have to be read from disk first; nothing was copied. Call again once they are there.
    NotYet,
    /// They cannot be had any more, up to this sequence; nothing was copied.
    Lost {
        /// The last sequence that is lost.
        last: u64,
        /// Why.
        reason: LostReason,
        /// Their earliest and latest capture time in milliseconds since 1970, where that is known.
        captured: Option<(u64, u64)>,
    },
}

/// What a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// To the registrar of the relay at a neighbour.
    Registrar { neighbour: usize },
    /// From an uplink to its collector.
    Uplink { uplink: usize },
    /// From a node to this relay's registrar, straight over a link.
    Member { link: LinkId },
    /// From a gateway to this collector; its place is known once a lane was offered. `order` grows with each channel that is
    /// established.
    Gateway { gateway: Option<usize>, order: u64 },
    /// From this node to its authority.
    Authority,
    /// From a node to this authority.
    Asker,
    /// To a node that inlets lead to.
    Inlet { inlet: usize },
    /// From a node whose streams lead here.
    Outlet { outlet: usize },
    /// A link lies in it: to the relay that is this neighbour, or from another node.
    Carrier { neighbour: Option<usize> },
    /// It came for a service, and the peer is not authenticated, or not authorised yet.
    Unknown { service: Service },
}

/// Services that other nodes' channels can come for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// A relay's: authenticates links and registers names.
    Registrar,
    /// A collector's: takes readings.
    Uplink,
    /// An authority's: enrols, renews, revokes.
    Authority,
    /// That of a node with outlets: takes streams.
    Portal,
    /// A relay's: takes links that lie in channels.
    Link,
}

impl Service {
    /// Returns its name in routes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registrar => settings::REGISTRAR,
            Self::Uplink => settings::UPLINK,
            Self::Authority => settings::AUTHORITY,
            Self::Portal => settings::PORTAL,
            Self::Link => settings::LINK,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::Registrar,
            Self::Uplink,
            Self::Authority,
            Self::Portal,
            Self::Link,
        ];
        all.into_iter().find(|service| service.as_str() == name)
    }
}

/// A channel's end in this node.
#[derive(Clone, Copy, Debug)]
struct ChannelEntry {
    used_for: Use,
    flow: FlowId,
}

/// The node. See the [module](self).
#[derive(Debug)]
pub struct Node {
    link_settings: LinkSettings,
    router: Router,
    channels: Channels,
    /// By connection.
    connections: BTreeMap<ConnectionKey, Box<connection::Connection>>,
    /// By [`LinkId::index`].
    connection_of: Vec<Option<ConnectionKey>>,
    carried: carried::CarriedLinks,
    by_channel: BTreeMap<ChannelId, ChannelEntry>,
    by_flow: BTreeMap<FlowId, ChannelId>,
    neighbours: Vec<neighbour::Neighbour>,
    uplinks: Vec<uplink::Uplink>,
    collector: Option<collect::Collector>,
    commands: command::Commands,
    portals: portal::Portals,
    proving: proving::Proving,
    direct: direct::Direct,
    accesses: access::Accesses,
    /// Peers of channels, from the end of the handshake on.
    known: BTreeMap<ChannelId, access::Known>,
    trust: Option<Trust>,
    authority_client: trust::TrustClient,
    lists: trust::Lists,
    forwarding: trust::Forwarding,
    next_trust_sweep: Instant,
    next_list_push: Instant,
    guests_max: usize,
    /// Whom this node demands a live proof of when it opens a channel for that service.
    proof_demands: BTreeSet<(Service, Identifier)>,
    outputs: VecDeque<Output>,
    /// Bytes of the link machine on their way to a send buffer; kept for its capacity.
    scratch: Vec<u8>,
    stats: NodeStats,
    /// Whether and how far this relay is being drained.
    drain: Option<drain::Drain>,
    /// Links count in seconds, so they are asked once a second and not at every turn.
    next_link_sweep: Instant,
}

/// What a node has seen since it was made, beside what its parts count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Channels closed because the peer is not allowed what it wanted.
    pub unauthorised: u64,
    /// Frames inside channels that were malformed or out of place.
    pub bad_frames: u64,
    /// Links closed because of what came over them.
    pub bad_links: u64,
    /// Frames dropped because too much waited for decisions already.
    pub frames_unkept: u64,
    /// Channels closed because the peer was revoked.
    pub revoked: u64,
    /// Credentials that did not verify.
    pub credentials_refused: u64,
    /// Lists of the revoked that did not verify, or are older than the one held.
    pub lists_refused: u64,
}

impl Node {
    /// Makes a node without connections; it asks for those it needs at its first timeout.
    #[must_use]
    pub fn new(now: Now, entropy: &mut dyn Entropy, settings: NodeSettings, local: LocalIdentity) -> Self {
        let link_settings = LinkSettings::new(&settings.software, entropy.u64());
        let router = Router::new(settings.router());
        let run = entropy.u64();
        let direct = direct::Direct::new(now.instant, settings.direct.clone(), settings.direct_ways());
        let on_demand = &settings.direct.neighbours;
        Self {
            direct,
            link_settings,
            router,
            channels: Channels::new(settings.channels, local),
            connections: BTreeMap::new(),
            connection_of: Vec::new(),
            carried: carried::CarriedLinks::default(),
            by_channel: BTreeMap::new(),
            by_flow: BTreeMap::new(),
            neighbours: settings
                .neighbours
                .iter()
                .enumerate()
                .map(|(index, neighbour)| {
                    let over = settings.carried.get(&index).cloned();
                    let on_demand = on_demand.contains(&index);
                    neighbour::Neighbour::new(now.instant, neighbour, over, on_demand)
                })
                .collect(),
            uplinks: settings
                .uplinks
                .into_iter()
                .map(|uplink| uplink::Uplink::new(now.instant, uplink, on_demand, run))
                .collect(),
            collector: settings.collect.map(collect::Collector::new),
            commands: command::Commands::default(),
            portals: portal::Portals::new(now.instant, settings.portals, on_demand),
            proving: proving::Proving::default(),
            accesses: access::Accesses::new(settings.access),
            known: BTreeMap::new(),
            trust: None,
            authority_client: trust::TrustClient::new(
                now.instant,
                settings.authority_ways,
                settings.authority_pq,
            ),
            lists: trust::Lists::default(),
            forwarding: trust::Forwarding::default(),
            next_trust_sweep: now.instant,
            next_list_push: now.instant,
            guests_max: settings.guests_max,
            proof_demands: BTreeSet::new(),
            outputs: VecDeque::new(),
            scratch: Vec::new(),
            stats: NodeStats::default(),
            drain: None,
            next_link_sweep: now.instant,
        }
    }

    /// Replaces what the node proves itself with in handshakes from now on.
    pub fn set_local(&mut self, local: LocalIdentity) {
        self.channels.set_local(local);
    }

    /// Does what is due at `now`: dialling, handshakes, repetitions, expiries.
    pub fn handle_timeout(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        self.time_out_connections(now, entropy, wire);
        self.router.handle_timeout(
            now.instant,
            &mut Links {
                connection_of: &self.connection_of,
                carried: &mut self.carried,
                wire,
            },
        );
        self.channels.handle_timeout(now, entropy);
        self.settle(now, entropy, wire);
        self.time_out_neighbours(now, entropy, wire);
        self.time_out_carried(now, wire);
        self.time_out_uplinks(now, entropy, wire);
        self.time_out_portals(now, entropy, wire);
        self.time_out_direct(now, entropy, wire);
        self.time_out_leaving(now, entropy, wire);
        self.time_out_drain(now, wire);
        self.time_out_trust(now, entropy, wire);
        if let Some(collector) = &mut self.collector {
            collector.handle_timeout(now.instant);
        }
        self.commands.handle_timeout(now);
        self.settle(now, entropy, wire);
    }

    /// Returns when [`Node::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let neighbours = self
            .neighbours
            .iter()
            .filter_map(neighbour::Neighbour::poll_timeout);
        let uplinks = self.uplinks.iter().filter_map(uplink::Uplink::poll_timeout);
        let own = [
            (!self.connections.is_empty()).then_some(self.next_link_sweep),
            self.router.poll_timeout(),
            self.channels.poll_timeout(),
            self.poll_trust_timeout(),
            self.collector.as_ref().and_then(collect::Collector::poll_timeout),
            self.commands.poll_timeout(),
            self.portals.poll_timeout(),
            self.poll_drain_timeout(),
            self.poll_direct_timeout(),
            self.carried.poll_timeout(),
        ];
        neighbours.chain(uplinks).chain(own.into_iter().flatten()).min()
    }

    /// Returns the next effect; drain it to `None` after every `handle_*` and [`Node::flush`].
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Seals and sends whatever waits: readings of the journal, acknowledgements, frames held back for congested links.
    /// Call it once at the end of each turn.
    pub fn flush(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        wire: &mut dyn Wire,
        journal: Option<&mut dyn RecordSource>,
    ) {
        self.router.flush(&mut Links {
            connection_of: &self.connection_of,
            carried: &mut self.carried,
            wire,
        });
        if let Some(journal) = journal {
            self.flush_uplinks(now, wire, journal);
        }
        self.flush_sources(now, wire);
        self.flush_commands(now, wire);
        self.flush_portals(now, wire);
        self.settle(now, entropy, wire);
        self.flush_carried(now, wire);
    }

    /// Deals with what the parts have to say until none has anything.
    fn settle(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        loop {
            if let Some(output) = self.channels.poll_output() {
                self.handle_channel_output(now, entropy, wire, output);
            } else if let Some(output) = self.router.poll_output() {
                self.handle_router_output(now, output);
            } else {
                return;
            }
        }
    }

    /// Appends `message` of `channel` to the link of its flow.
    fn send(&mut self, now: Now, flow: FlowId, message: &[u8], wire: &mut dyn Wire) {
        let mut links = Links {
            connection_of: &self.connection_of,
            carried: &mut self.carried,
            wire,
        };
        // A flow that is gone was or will be reported; the channel repeats what matters over the next.
        let _ = self
            .router
            .send(now.instant, flow, Class::Normal, message, &mut links);
    }

    /// Seals `frames` as one record of `channel` and appends it to the link of its flow.
    fn send_frames(&mut self, now: Now, channel: ChannelId, frames: &[u8], wire: &mut dyn Wire) {
        self.send_frames_of(now, (channel, Class::Normal), frames, wire);
    }

    /// The same, in a class.
    fn send_frames_of(
        &mut self,
        now: Now,
        (channel, class): (ChannelId, Class),
        frames: &[u8],
        wire: &mut dyn Wire,
    ) {
        let Some(entry) = self.by_channel.get(&channel).copied() else {
            return;
        };
        let mut links = Links {
            connection_of: &self.connection_of,
            carried: &mut self.carried,
            wire,
        };
        let Some(link) = self.router.link_of(entry.flow) else {
            return;
        };
        let Some(out) = links.buffer(link) else { return };
        let Ok(mark) = self.router.begin(now.instant, entry.flow, class, out) else {
            return;
        };
        let sealed = self.channels.begin(channel, out).and_then(|start| {
            out.extend_from_slice(frames);
            self.channels.finish(now.instant, channel, out, start)
        });
        match sealed {
            // A frame longer than the neighbour takes was taken back already.
            Ok(()) => drop(self.router.finish(entry.flow, out, mark)),
            Err(_) => self.router.abandon(out, mark),
        }
    }

    /// Closes a channel of which the caller has forgotten the use already.
    fn close_channel(&mut self, channel: ChannelId, code: CloseCode) {
        self.channels.close(channel, code);
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Returns the counters of the channels.
    #[must_use]
    pub fn channel_stats(&self) -> ChannelsStats {
        self.channels.stats()
    }

    /// Returns the counters of routing.
    #[must_use]
    pub const fn router_stats(&self) -> &RouterStats {
        self.router.stats()
    }

    /// Returns the node's own counters.
    #[must_use]
    pub const fn stats(&self) -> NodeStats {
        self.stats
    }

    /// Returns what the credential of a peer that has a channel calls it.
    #[must_use]
    pub fn member_name(&self, peer: &Identifier) -> Option<&str> {
        let known = self.known.values().filter(|known| known.peer == *peer);
        known
            .filter_map(|known| known.credential.as_deref())
            .map(|credential| credential.name.as_str())
            .next()
    }

    /// Returns the names registered at this relay, with the members that hold them.
    #[must_use]
    pub fn registered_names(&self) -> Vec<String> {
        let Some(relay) = self.router.relay() else {
            return Vec::new();
        };
        let mut names: Vec<String> = relay
            .registrations()
            .map(|registered| registered.name.to_owned())
            .collect();
        names.dedup();
        names
    }
}

/// The send buffers by link, on top of those by connection.
struct Links<'a> {
    connection_of: &'a [Option<ConnectionKey>],
    carried: &'a mut carried::CarriedLinks,
    wire: &'a mut dyn Wire,
}

impl LinkWriter for Links<'_> {
    fn buffer(&mut self, link: LinkId) -> Option<&mut Vec<u8>> {
        let connection = (*self.connection_of.get(link.index())?)?;
        carried::buffer(self.carried, self.wire, connection)
    }

    fn queued_bytes(&self, link: LinkId) -> usize {
        let connection = self.connection_of.get(link.index()).copied().flatten();
        connection.map_or(0, |connection| {
            if carried::CarriedLinks::is_one(connection) {
                self.carried.queued_bytes(connection, self.wire)
            } else {
                self.wire.queued_bytes(connection)
            }
        })
    }
}

/// The path of a message for a service that has no flow yet: told apart from flows by the highest bit.
fn candidate_path(link: LinkId) -> PathId {
    PathId(link.number() | 1 << 63)
}

/// The path of a flow.
fn flow_path(flow: FlowId) -> PathId {
    PathId(flow.number())
}

#[cfg(test)]
mod tests;
