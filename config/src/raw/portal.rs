//! `[portal]`: streams of others.

use std::path::PathBuf;
use std::time::Duration;

use fieldgate_proto::identity::Identifier;
use fieldgate_proto::portal::proxy::ProxyVersion;

use super::{DirectAddress, FILE, KIB, PQ, Registration, RelayWay, SECRET, TIB};
use crate::address::Network;
use crate::reader::{Field, Header, Item, RawTable, Reader};
use crate::settings::portal::{SerialFlow, SerialParity};
use crate::settings::{Pq, SecretSource};
use crate::shape::{
    Boolean, Choice, List, Shape, bytes_u64, count_u16, count_u32, inline, inlines, millis, seconds, section,
    sections,
};
use crate::spec::Presence::{Default, Optional, Required};
use crate::spec::{Key, Spec, When};
use crate::target::{InletAddress, OutletAddress, TargetPattern};
use crate::text::{
    IDENTIFIER, INLET_ADDRESS, NAME, NETWORK, OUTLET_ADDRESS, RELAY_NAME, SOCKET_MODE, TARGET, USERNAME,
};

/// Streams of a session with one node, whatever the file says of each portal (`PROTOCOL.md` §15).
const STREAMS_MAX: u16 = 1_024;

const PROXY_VERSION: Choice<Option<ProxyVersion>> = Choice(&[
    ("off", None),
    ("v1", Some(ProxyVersion::V1)),
    ("v2", Some(ProxyVersion::V2)),
]);

const PARITY: Choice<SerialParity> = Choice(&[
    ("none", SerialParity::None),
    ("even", SerialParity::Even),
    ("odd", SerialParity::Odd),
]);

const FLOW_CONTROL: Choice<SerialFlow> = Choice(&[
    ("none", SerialFlow::None),
    ("rtscts", SerialFlow::RtsCts),
    ("xonxoff", SerialFlow::XonXoff),
]);

tables! {
    /// Portals: streams through channels. An inlet listens here and leads to an outlet of another node; an outlet leads from this node
    /// to something it can reach, such as a controller behind a gateway.
    Portal {
        /// Where this node registers, and under which name, so that inlets of others find its outlets.
        register: Vec<Registration> = inlines::<Registration>(8), Optional("none");
        /// Whether channels from inlets must be post-quantum, as for `[[uplink]]`. With `[relay]`, `[collector]` or `[authority]` in the
        /// same file theirs counts.
        pq: Pq = PQ, Default("\"required\"");
        /// Whether nodes whose inlets lead here, and ask for it, may do so over a path without a relay, as for `[[uplink]]`.
        direct_path: bool = Boolean, Default("false");
        /// Files in which every stream is written down: who, whereto, how much, how long, why it ended.
        audit: PortalAudit = section::<PortalAudit>(), Optional("the log alone has it");
        /// Listeners that lead to outlets of other nodes.
        inlet: Vec<PortalInlet> = sections::<PortalInlet>(256), Optional("none");
        /// What inlets of other nodes may lead to.
        outlet: Vec<PortalOutlet> = sections::<PortalOutlet>(256), Optional("none");
    }

    /// Files with a line of JSON for each stream that is opened, ended or refused. Refusals of one portal are written once a second, with
    /// how many there were.
    PortalAudit {
        /// The file; when it is full it is renamed with `.1` behind its name, and older ones are counted up.
        file: PathBuf = FILE, Required;
        /// Largest size of a file.
        bytes_max: u64 = bytes_u64(4 * KIB, TIB), Default("\"16 MiB\"");
        /// How many files there are at most; the oldest goes when there would be more.
        files_max: u16 = count_u16(2, 1_000), Default("8");
    }

    /// A listener that leads to an outlet of another node. Inlets that lead to one node have the same ways to it.
    PortalInlet exactly_one("relay", "relays", "direct") {
        /// Name in logs, metrics and `fieldgate portal list`.
        name: String = NAME, Required;
        /// Address for TCP, of which an IPv6 one takes IPv6 only; the same behind `udp:` for datagrams, which lead to an outlet with such an
        /// address; or `unix:` and the path of a UNIX socket, whose file is made.
        listen: InletAddress = INLET_ADDRESS, Required;
        /// Permissions of the file of a UNIX socket: who may write to it gets in.
        mode: u32 = SOCKET_MODE, Default("\"0600\"");
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
        /// Whether the two nodes may leave the relay for a path of their own over UDP, found by telling each other their addresses in
        /// the channel. That node has to allow it as well.
        direct_path: bool = Boolean, Default("false"), if When::With(&["relay", "relays"]);
        /// Networks whose addresses may connect.
        allow: Vec<Item<Network>> = List { item: NETWORK, min: 0, max: 256 }, Default("[\"127.0.0.0/8\", \"::1/128\"]");
        /// Load balancers in front of this inlet: addresses that have to say in a PROXY header (version 1 or 2) for whom they connect.
        /// `allow` then counts for those.
        accept_proxy_from: Vec<Item<Network>> = List { item: NETWORK, min: 0, max: 256 }, Default("[]");
        /// Clients say by SOCKS 5 where they want to go; `outlet` must be one with `targets`. `{}` lets in whoever may connect.
        socks: PortalSocks = inline::<PortalSocks>(), Optional("every stream leads to what the outlet leads to");
        /// Silence in seconds after which the kernel asks whether a TCP client is still there; 0 for never.
        keep_alive_secs: Duration = seconds(0, 7_200), Default("60");
        /// Streams at a time; for UDP flows, of which each address that sends has one.
        streams_max: u16 = count_u16(1, STREAMS_MAX), Default("256");
        /// How long in seconds a stream may carry nothing before it is ended; a flow of datagrams ends in no other way.
        idle_secs: Duration = seconds(10, 31_536_000), Optional("86400, and 60 for UDP");
    }

    /// What clients of SOCKS 5 have to do.
    PortalSocks {
        /// Who may log in by name and password (RFC 1929), which go in clear from the client to this node.
        users: Vec<PortalSocksUser> = inlines::<PortalSocksUser>(256), Optional("nobody has to log in");
    }

    /// Somebody who may use an inlet for SOCKS 5.
    PortalSocksUser {
        /// The name; the other node's policy and both audit logs see it.
        name: String = USERNAME, Required;
        /// Where the password is.
        password: SecretSource = SECRET, Required;
    }

    /// Something that this node can reach, and who may reach it through this node.
    PortalOutlet exactly_one("address", "targets") {
        /// Name that inlets write as `outlet`.
        name: String = NAME, Required;
        /// Where its streams lead: `host:port` over TCP, `udp:host:port` for datagrams, `unix:` and the path of a UNIX socket, or `serial:` and the path of a device,
        /// which one stream at a time has for itself.
        address: OutletAddress = OUTLET_ADDRESS, Optional("what the inlet asks for, see `targets`");
        /// Where streams of inlets with `socks` may lead, over TCP; nowhere else. `host:ports`, the host a network, a name in which `*`
        /// stands for letters without a dot, or `*` for every host; the ports one, a range, or `*`. A name that is allowed is
        /// reached whatever its addresses are; any other only where an address is.
        targets: Vec<Item<TargetPattern>> = List { item: TARGET, min: 1, max: 256 }, Optional("always `address`");
        /// How the line of a `serial:` address is set.
        serial: PortalSerial = inline::<PortalSerial>(), Optional("none; a `serial:` address needs it"), if When::With(&["address"]);
        /// Whether what it leads to is told in the first bytes who connected to the inlet, and in which version of the PROXY header.
        send_proxy: Option<ProxyVersion> = PROXY_VERSION, Default("\"off\""), if When::With(&["address"]);
        /// Silence in seconds after which the kernel asks whether the other end of a TCP connection is still there; 0 for never.
        keep_alive_secs: Duration = seconds(0, 7_200), Default("60");
        /// Identifiers of the nodes whose inlets may lead here. A policy may permit others, and forbid these.
        allow: Vec<Item<Identifier>> = List { item: IDENTIFIER, min: 0, max: 1_024 }, Default("[]");
        /// Streams at a time, over all nodes; of a `serial:` address always 1. Each may hold 1.25 MiB of memory while what it leads to
        /// does not read.
        streams_max: u16 = count_u16(1, STREAMS_MAX), Default("256");
        /// How long in seconds a stream may carry nothing before it is ended; a flow of datagrams ends in no other way.
        idle_secs: Duration = seconds(10, 31_536_000), Optional("86400, and 60 for UDP");
    }

    /// How a serial line is set. The device is opened for each stream, locked, and in raw form; a stream that finds it in use is refused.
    PortalSerial {
        /// Bits per second.
        baud: u32 = count_u32(50, 4_000_000), Required;
        /// Bits of a byte.
        data_bits: u16 = count_u16(5, 8), Default("8");
        /// The bit that bytes are checked by; one that is wrong is left out.
        parity: SerialParity = PARITY, Default("\"none\"");
        /// Bits between two bytes.
        stop_bits: u16 = count_u16(1, 2), Default("1");
        /// Who may hold up the bytes: nobody, the lines RTS and CTS, or the bytes XON and XOFF.
        flow_control: SerialFlow = FLOW_CONTROL, Default("\"none\"");
        /// Has the driver switch a line of RS-485 between sending and receiving by RTS; not every driver can. `{}` for its usual form.
        rs485: PortalRs485 = inline::<PortalRs485>(), Optional("the line or its adapter switches by itself");
        /// Whether clients speak telnet with the option for serial ports (RFC 2217), by which they may set the line; otherwise bytes go
        /// through as they are.
        rfc2217: bool = Boolean, Default("false");
    }

    /// How a driver switches a line of RS-485.
    PortalRs485 {
        /// Whether RTS is high while this side sends, or low.
        rts_on_send: bool = Boolean, Default("true");
        /// Time in milliseconds from switching to the first bit.
        delay_before_ms: Duration = millis(0, 100), Default("0");
        /// Time in milliseconds from the last bit to switching back.
        delay_after_ms: Duration = millis(0, 100), Default("0");
    }
}
