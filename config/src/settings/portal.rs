//! `[portal]`.

use std::path::PathBuf;
use std::time::Duration;

use fieldgate_proto::identity::Identifier;
use fieldgate_proto::portal::proxy::ProxyVersion;

use super::{Pq, Registration, SecretSource, UplinkPath};
use crate::address::{HostPort, Network};
use crate::target::{InletAddress, TargetPattern};

/// Streams of others; at least one inlet or outlet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Where this node registers, and under which name.
    pub registrations: Vec<Registration>,
    /// Policy for the channels that inlets of others open, where no other role of the file has one.
    pub pq: Pq,
    /// Whether peers may come over paths without a relay.
    pub direct_path: bool,
    /// Where every stream is written down, beside the log.
    pub audit: Option<PortalAudit>,
    /// Listeners, names unique.
    pub inlets: Vec<PortalInlet>,
    /// What they may lead to here, names unique.
    pub outlets: Vec<PortalOutlet>,
}

/// Files in which every stream is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalAudit {
    /// The file that is written; older ones have `.1`, `.2` … behind their names.
    pub file: PathBuf,
    /// Largest size of each.
    pub bytes_max: u64,
    /// How many there are at most, at least two.
    pub files_max: u16,
}

/// A listener that leads to an outlet of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalInlet {
    /// Name in logs, metrics and lists: 1 to 63 of `a-z0-9-`.
    pub name: String,
    /// Where it listens.
    pub listen: InletAddress,
    /// Permissions of the file of a UNIX socket.
    pub mode: u32,
    /// Who has the outlet.
    pub node: Identifier,
    /// Name of the outlet there.
    pub outlet: String,
    /// How that node is reached; the same for all inlets that lead to it, as are `pq`, `live_proof` and
    /// `direct_path`.
    pub path: UplinkPath,
    /// Whether the channel must be post-quantum.
    pub pq: Pq,
    /// Whether that node has to prove in each channel that it holds its identity key.
    pub live_proof: bool,
    /// Whether a path without a relay is looked for.
    pub direct_path: bool,
    /// Networks whose addresses may connect.
    pub allow: Vec<Network>,
    /// Load balancers that say in a PROXY header for whom they connect, and have to.
    pub accept_proxy_from: Vec<Network>,
    /// Whether clients say by SOCKS where they want to go, and who may.
    pub socks: Option<Socks>,
    /// Silence after which the kernel asks whether a client is still there; `None`: never.
    pub keep_alive: Option<Duration>,
    /// Streams at a time.
    pub streams_max: u16,
    /// How long a stream may carry nothing.
    pub idle: Duration,
}

/// How clients of an inlet say where they want to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Socks {
    /// Who may log in, names unique; if empty, nobody has to.
    pub users: Vec<SocksUser>,
}

/// Somebody who logs in at an inlet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocksUser {
    /// The name.
    pub name: String,
    /// Where the password is.
    pub password: SecretSource,
}

/// How a serial line is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial {
    /// Bits per second, 50 to 4,000,000.
    pub baud: u32,
    /// Bits of a byte, 5 to 8.
    pub data_bits: u8,
    /// The bit to check them by.
    pub parity: SerialParity,
    /// Bits between two bytes, 1 or 2.
    pub stop_bits: u8,
    /// Who may hold up the bytes.
    pub flow_control: SerialFlow,
    /// Whether the driver switches the line between sending and receiving, and how.
    pub rs485: Option<Rs485>,
    /// Whether streams speak telnet with the option for serial ports (RFC 2217), and may set the line.
    pub rfc2217: bool,
}

/// The bit that bytes of a serial line are checked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialParity {
    /// There is none.
    None,
    /// The number of ones is even.
    Even,
    /// The number of ones is odd.
    Odd,
}

/// Who may hold up the bytes of a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialFlow {
    /// Nobody.
    None,
    /// The lines RTS and CTS.
    RtsCts,
    /// The bytes XON and XOFF.
    XonXoff,
}

/// How a driver switches a line of RS-485.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rs485 {
    /// Level of RTS while this side sends.
    pub rts_on_send: bool,
    /// From switching to the first bit.
    pub delay_before: Duration,
    /// From the last bit to switching back.
    pub delay_after: Duration,
}

/// What an outlet leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutletTarget {
    /// Always the same, over TCP.
    Tcp(HostPort),
    /// A UNIX socket.
    Unix(PathBuf),
    /// Always the same, over UDP.
    Udp(HostPort),
    /// A serial line, one stream at a time.
    Serial {
        /// Its device.
        device: PathBuf,
        /// How it is set.
        line: Serial,
    },
    /// What the inlet asks for, if one of these allows it; over TCP.
    Asked(Vec<TargetPattern>),
}

/// Something that this node can reach, for inlets of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalOutlet {
    /// Name that inlets know it by: 1 to 63 of `a-z0-9-`.
    pub name: String,
    /// Where its streams lead.
    pub target: OutletTarget,
    /// The form in which what it leads to is told in the first bytes for whom the connection is, if it is.
    pub send_proxy: Option<ProxyVersion>,
    /// Silence after which the kernel asks whether the other end is still there; `None`: never.
    pub keep_alive: Option<Duration>,
    /// Whose inlets may lead here, beside those that a policy permits.
    pub allow: Vec<Identifier>,
    /// Streams at a time, over all nodes.
    pub streams_max: u16,
    /// How long a stream may carry nothing.
    pub idle: Duration,
}
