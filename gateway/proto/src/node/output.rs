//! What a node tells its caller.

use super::{ConnectionKey, SourceIndex};
use crate::{channel::CloseReason, identity::Identifier, link::LinkError, relay::RefusedReason};

/// An effect that is not bytes on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Dial this neighbour and report with `handle_connected` or `handle_dial_failed`.
    Dial {
        /// Index in the settings.
        neighbour: usize,
    },
    /// Close this connection; the node has forgotten it.
    CloseConnection {
        /// Which one.
        connection: ConnectionKey,
    },
    /// The journal may forget everything up to here: every uplink's collector has it.
    Released {
        /// The highest such sequence.
        up_to: u64,
    },
    /// Something an operator cares about.
    Event(Event),
}

/// A change of state that is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link is up.
    LinkUp {
        /// Its connection.
        connection: ConnectionKey,
        /// Index of the neighbour, if this node dialled.
        neighbour: Option<usize>,
        /// What the other side runs.
        software: String,
    },
    /// A link is down because of what came, or did not come, over it.
    LinkBroken {
        /// Its connection.
        connection: ConnectionKey,
        /// Why.
        error: LinkError,
    },
    /// This node is attached to the relay at a neighbour.
    Attached {
        /// Index of the neighbour.
        neighbour: usize,
    },
    /// A channel that this node opened was closed.
    ChannelLost {
        /// Who was at the other end.
        peer: Identifier,
        /// Why.
        reason: CloseReason,
    },
    /// The relay at a neighbour confirmed a name.
    Registered {
        /// Index of the neighbour.
        neighbour: usize,
        /// The name.
        name: String,
    },
    /// The relay at a neighbour refused a name; it will be asked again.
    RegistrationRefused {
        /// Index of the neighbour.
        neighbour: usize,
        /// The name.
        name: String,
        /// Why.
        reason: RefusedReason,
    },
    /// An uplink's collector is reached.
    UplinkUp {
        /// Index of the uplink.
        uplink: usize,
        /// Index of the neighbour it goes by.
        neighbour: usize,
    },
    /// An uplink's collector is lost.
    UplinkDown {
        /// Index of the uplink.
        uplink: usize,
    },
    /// The collector has confirmed readings this journal never gave out: the gateway's disk was set back.
    SetBack {
        /// Index of the uplink.
        uplink: usize,
        /// What the collector has confirmed.
        committed: u64,
    },
    /// A member is attached to this relay.
    MemberAttached {
        /// Who.
        member: Identifier,
        /// The connection of its link.
        connection: ConnectionKey,
    },
    /// A name was registered here.
    NameRegistered {
        /// Who holds it.
        member: Identifier,
        /// The name.
        name: String,
    },
    /// A peer was authenticated and is not allowed what it wanted.
    NotAuthorised {
        /// Who.
        peer: Identifier,
        /// Which service it came for.
        service: &'static str,
    },
    /// A gateway offered a journal that this collector did not know since its start.
    SourceOpened {
        /// Its index from now on.
        source: SourceIndex,
    },
    /// A gateway lacks readings that this collector has not confirmed.
    ReadingsMissing {
        /// Which source.
        source: SourceIndex,
        /// First sequence missing.
        first: u64,
        /// Last sequence missing.
        last: u64,
    },
    /// A gateway's journal is older than what was received of it.
    SourceSetBack {
        /// Which source.
        source: SourceIndex,
    },
}
