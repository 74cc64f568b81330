//! `[portal]`: streams of others.

use std::net::SocketAddr;
use std::time::Duration;

use fieldgate_proto::identity::Identifier;

use super::{DirectAddress, PQ, Registration, RelayWay};
use crate::address::{HostPort, Network};
use crate::reader::{Field, Header, Item, RawTable, Reader};
use crate::settings::Pq;
use crate::shape::{Boolean, List, Shape, count_u16, inline, inlines, seconds, sections};
use crate::spec::Presence::{Default, Optional, Required};
use crate::spec::{Key, Spec, When};
use crate::text::{HOST_PORT, IDENTIFIER, LISTEN, NAME, NETWORK, RELAY_NAME};

/// Streams of a session with one node, whatever the file says of each portal (`PROTOCOL.md` §15).
const STREAMS_MAX: u16 = 1_024;

tables! {
    /// Portals: streams through channels. An inlet listens here and leads to an outlet of another node; an outlet leads from this node
    /// to something it can reach, such as a controller behind a gateway.
    Portal {
        /// Where this node registers, and under which name, so that inlets of others find its outlets.
        register: Vec<Registration> = inlines::<Registration>(8), Optional("none");
        /// Whether channels from inlets must be post-quantum, as for `[[uplink]]`. With `[relay]`, `[collector]` or `[authority]` in the
        /// same file theirs counts.
        pq: Pq = PQ, Default("\"required\"");
        /// Listeners that lead to outlets of other nodes.
        inlet: Vec<PortalInlet> = sections::<PortalInlet>(256), Optional("none");
        /// What inlets of other nodes may lead to.
        outlet: Vec<PortalOutlet> = sections::<PortalOutlet>(256), Optional("none");
    }

    /// A listener that leads to an outlet of another node. Inlets that lead to one node have the same ways to it.
    PortalInlet exactly_one("relay", "relays", "direct") {
        /// Name in logs, metrics and `fieldgate portal list`.
        name: String = NAME, Required;
        /// Address for TCP. An IPv6 address takes IPv6 only.
        listen: SocketAddr = LISTEN, Required;
        /// Identifier of the node that has the outlet; nobody else gets the streams.
        node: Identifier = IDENTIFIER, Required;
        /// Name of the outlet there.
        outlet: String = NAME, Required;
        /// Name that node holds at the relays.
        via: String = RELAY_NAME, Required, if When::With(&["relay", "relays"]);
        /// The relay.
        relay: RelayWay = inline::<RelayWay>(), Optional("none");
        /// Several relays, in order of preference.
        relays: Vec<RelayWay> = inlines::<RelayWay>(8), Optional("none");
        /// That node itself, where it can be reached without a relay.
        direct: DirectAddress = inline::<DirectAddress>(), Optional("none");
        /// Whether the channel must be post-quantum, as for `[[uplink]]`.
        pq: Pq = PQ, Default("\"required\"");
        /// Whether that node has to prove with each channel that it holds its identity key at that moment, as for `[[uplink]]`.
        live_proof: bool = Boolean, Default("false");
        /// Networks whose addresses may connect.
        allow: Vec<Item<Network>> = List { item: NETWORK, min: 0, max: 256 }, Default("[\"127.0.0.0/8\", \"::1/128\"]");
        /// Streams at a time.
        streams_max: u16 = count_u16(1, STREAMS_MAX), Default("256");
        /// How long in seconds a stream may carry nothing before it is ended.
        idle_secs: Duration = seconds(10, 31_536_000), Default("86400");
    }

    /// Something that this node can reach, and who may reach it through this node.
    PortalOutlet {
        /// Name that inlets write as `outlet`.
        name: String = NAME, Required;
        /// Where its streams lead, over TCP.
        address: HostPort = HOST_PORT, Required;
        /// Identifiers of the nodes whose inlets may lead here. A policy may permit others, and forbid these.
        allow: Vec<Item<Identifier>> = List { item: IDENTIFIER, min: 0, max: 1_024 }, Default("[]");
        /// Streams at a time, over all nodes. Each may hold 1.25 MiB of memory while what it leads to does not read.
        streams_max: u16 = count_u16(1, STREAMS_MAX), Default("256");
        /// How long in seconds a stream may carry nothing before it is ended.
        idle_secs: Duration = seconds(10, 31_536_000), Default("86400");
    }
}
