//! What a node tells its caller.

use std::{net::SocketAddr, sync::Arc};

use super::{
    Access, Asked, AuthorityRequest, CommandAccess, ConnectionKey, PathOwner, PathReason, SourceIndex,
};
use crate::{
    channel::{ChannelId, CloseReason},
    command::{CommanderOutput, ExecutorOutput},
    delivery::Lost,
    identity::Identifier,
    link::{Class, LinkError},
    relay::RefusedReason,
    route::MemberLinkError,
    time::WallTime,
    trust::{Freshness, SavedPart, Standing, StatusList, TrustError},
};

/// An effect that is not bytes on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Dial this neighbour and report with `handle_connected` or `handle_dial_failed`.
    Dial {
        /// Index in the settings.
        neighbour: usize,
    },
    /// Dial a neighbour that is there on demand, over QUIC, at these addresses, and report as after `Dial`.
    DialDirect {
        /// Index in the settings.
        neighbour: usize,
        /// At most [`CANDIDATES_MAX`](crate::candidates::CANDIDATES_MAX), the preferred first.
        addresses: Vec<SocketAddr>,
    },
    /// Send a datagram that says nothing to each of these addresses, and take connections over QUIC from there for a while.
    Punch {
        /// At most [`CANDIDATES_MAX`](crate::candidates::CANDIDATES_MAX).
        addresses: Vec<SocketAddr>,
    },
    /// Close this connection; the node has forgotten it.
    CloseConnection {
        /// Which one.
        connection: ConnectionKey,
    },
    /// An uplink's collector has everything of a lane up to here; the journal may forget what every uplink's has.
    Released {
        /// Index of the uplink.
        uplink: usize,
        /// Which lane.
        lane: Class,
        /// The highest such sequence.
        up_to: u64,
    },
    /// Decide what a peer may do, and answer with [`Node::handle_verdict`](super::Node::handle_verdict).
    Authorise(Box<Access>),
    /// Have the identity key sign `message`, and answer with [`Node::handle_signature`](super::Node::handle_signature).
    Sign {
        /// For which channel.
        channel: ChannelId,
        /// What to sign.
        message: Vec<u8>,
    },
    /// Answer as the authority, with [`Node::handle_authority_answer`](super::Node::handle_authority_answer).
    Authority(Box<AuthorityRequest>),
    /// What became of a request of this node to its authority.
    Asked {
        /// The caller's number.
        id: u64,
        /// What became of it.
        asked: Asked,
    },
    /// Keep this on stable storage.
    Save {
        /// What it is.
        what: SavedPart,
        /// All of it.
        bytes: Arc<[u8]>,
    },
    /// This node is the authority, and a peer has a list of the revoked that it has signed and does not know: it was set back to a
    /// time before that. The authority takes over whom the list names, and signs one with a higher number.
    Forgotten(Arc<StatusList>),
    /// The authority has signed what time it is now.
    Time(WallTime),
    /// Decide whether a collector may command a device, and answer with
    /// [`Executor::handle_permission`](crate::command::Executor::handle_permission).
    AuthoriseCommand(Box<CommandAccess>),
    /// What the caller has to do for commands to its devices.
    Executor(Box<ExecutorOutput>),
    /// What the caller has to do for commands to others' devices.
    Commander(Box<CommanderOutput>),
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
    /// Nothing is forwarded to the relay at a neighbour, although this node is a relay that should.
    RelayNotAttached {
        /// Index of the neighbour.
        neighbour: usize,
        /// Why.
        error: MemberLinkError,
    },
    /// The relay at a neighbour wants to be left.
    RelayDrains {
        /// Index of the neighbour.
        neighbour: usize,
    },
    /// The relay at a neighbour wants to be left no more.
    RelayStays {
        /// Index of the neighbour.
        neighbour: usize,
    },
    /// The relay at a neighbour was left, because it wanted to be and nothing lies over it.
    RelayLeft {
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
    /// Streams to this node flow, or can.
    PortalUp {
        /// Who is at the other end.
        peer: Identifier,
    },
    /// Another path was taken into use, while the node at the other end could be reached.
    PathChanged {
        /// Whose.
        owner: PathOwner,
        /// Index of the neighbour it went by.
        from: usize,
        /// Index of the neighbour it goes by now.
        to: usize,
        /// Why.
        reason: PathReason,
    },
    /// The channel for streams to this node is gone. They wait for another.
    PortalDown {
        /// Who was at the other end.
        peer: Identifier,
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
        /// Which lane.
        lane: Class,
        /// What the collector has confirmed.
        committed: u64,
    },
    /// An uplink's collector has less than it had confirmed: it was set back. What the gateway still has is sent again.
    CollectorSetBack {
        /// Index of the uplink.
        uplink: usize,
        /// Which lane.
        lane: Class,
        /// What it had confirmed.
        confirmed: u64,
        /// What it has.
        committed: u64,
    },
    /// A member is attached to this relay.
    MemberAttached {
        /// Who.
        member: Identifier,
        /// The connection of its link.
        connection: ConnectionKey,
    },
    /// A peer that may deliver here, or lead streams here, has a channel that came straight over its link.
    PeerLinked {
        /// Who.
        peer: Identifier,
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
    /// A gateway cannot deliver readings any more; the sinks were told.
    ReadingsLost {
        /// Which source.
        source: SourceIndex,
        /// Which, and why.
        lost: Lost,
    },
    /// This collector knows of less than it has confirmed to a gateway: it was set back to an older state.
    Forgotten {
        /// Which source.
        source: SourceIndex,
        /// What it has confirmed.
        confirmed: u64,
        /// What it knows of.
        received: u64,
    },
    /// A gateway's journal is older than what was received of it.
    SourceSetBack {
        /// Which source.
        source: SourceIndex,
    },
    /// A peer was revoked; its channel is closed.
    PeerRevoked {
        /// Who.
        peer: Identifier,
    },
    /// The list of the revoked names this node, or does so no more.
    SelfRevoked {
        /// Whether it does.
        revoked: bool,
    },
    /// A channel was closed since the peer's credential is not good any more.
    PeerEnded {
        /// Who.
        peer: Identifier,
        /// Why.
        standing: Standing,
    },
    /// A peer's credential has expired; it is served for the time of grace.
    PeerInGrace {
        /// Who.
        peer: Identifier,
        /// When it expired, seconds since 1970.
        since: u64,
    },
    /// A credential, a peer's or this node's own, does not verify.
    CredentialRefused {
        /// Whose.
        peer: Identifier,
        /// Why.
        error: TrustError,
    },
    /// The authority has given this node a credential.
    CredentialTaken {
        /// Its end, seconds since 1970.
        not_after: u64,
    },
    /// The authority refused to renew the credential.
    RenewalDenied,
    /// A newer list of the revoked was taken.
    ListTaken {
        /// Its number.
        number: u64,
        /// How many it names that the one before did not.
        newly_revoked: usize,
    },
    /// A list of the revoked was refused.
    ListRefused {
        /// Who sent it.
        peer: Identifier,
        /// Why.
        error: TrustError,
    },
    /// How fresh the list of the revoked is has changed.
    FreshnessChanged {
        /// How fresh it is.
        freshness: Freshness,
    },
    /// The authority is reached.
    AuthorityUp,
    /// The authority is lost.
    AuthorityDown,
}
