//! Portals at work: sockets of inlets and outlets on one side, streams of the node's sessions on the other.
//!
//! ```text
//!  who connects ─▶ inlet: allow? ─▶ session.open ── Opened ─▶ bytes both ways ─▶ Over, or Reset
//!                                        ║ channel                                  ▲
//!  Requested ─▶ which outlet? ─▶ policy (control thread) ─▶ name ─▶ connect ─▶ accept
//! ```
//!
//! At an inlet a load balancer's PROXY header and SOCKS come before the wish for a stream: see `arriving`.
//!
//! What a local socket brings and the session does not take is kept, at most one receive of it, and the socket is not read until it
//! is gone. What the session brings is queued on the socket; while more than a quarter of a megabyte is queued, the other side
//! gets no more credit.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use fieldgate_config::{
    address::{HostPort, Network},
    settings::portal::{OutletTarget, Portal as Settings, PortalInlet},
};
use fieldgate_io::{BufferClass, CloseReason, ConnectOptions, ConnectionId, Io, LocalPeer};
use fieldgate_proto::{
    identity::Identifier,
    node::{Node, PortalKey},
    portal::{ResetReason, SessionEvent, StreamId, proxy::ProxyVersion, socks::SocksReply},
    time::{Instant, Now},
};
use tokio::sync::mpsc;

use super::{
    StartError,
    desk::DeskRequest,
    trunk::{Resolve, Wanted},
};
use crate::control::portal::PortalKind;

mod arriving;
mod audit;
pub(crate) mod book;
pub(crate) mod changing;
mod flows;
mod lingering;
mod opening;
pub(crate) mod report;
mod serial;
pub(crate) mod staged;
pub(crate) mod trail;

use arriving::{Arrival, Login};
use audit::Complaint;
use book::Added;
use changing::PortalOrigin;
use flows::{Flow, Sockets};
use lingering::Lingering;
use staged::Staged;
use trail::Trail;

/// A stream of one of the node's sessions.
type Key = (PortalKey, StreamId);

/// What portals work with, for the time of a call.
pub(crate) struct Ground<'a> {
    pub(crate) io: &'a mut Io,
    pub(crate) now: Now,
    pub(crate) node: &'a mut Node,
    pub(crate) desk: &'a mpsc::Sender<DeskRequest>,
    pub(crate) resolve: &'a mpsc::Sender<Resolve>,
}

/// The inlets and outlets of a node, and their streams.
///
/// Invariants: every entry of `by_connection` leads to a stream; `open` of a portal is the number of its streams; `by_question` has the
/// questions that are not answered, perhaps about streams that are no more.
#[derive(Default)]
pub(crate) struct Portals {
    inlets: Vec<Inlet>,
    outlets: Vec<Outlet>,
    /// Streams that were asked for by a name that no outlet has.
    unknown: Complaint,
    unknown_total: u64,
    trail: Trail,
    streams: BTreeMap<Key, Stream>,
    by_connection: BTreeMap<ConnectionId, Key>,
    /// Connections to inlets that have not said yet for whom they are, or whereto; each counts as a stream of its inlet.
    arrivals: BTreeMap<ConnectionId, Arrival>,
    /// Streams that wait for the control thread.
    by_question: BTreeMap<u64, Key>,
    last_question: u64,
    /// Streams to whose sockets something was given whose going out the session was not told of.
    untold: BTreeSet<Key>,
    lingering: Lingering,
    sockets: Sockets,
    /// What came out of streams in this call of the node.
    pub(crate) staged: Staged,
    /// For whom something came out last.
    last: Option<Key>,
    /// When streams are looked at that wait or carry nothing; `None` if there is none.
    sweep_at: Option<Instant>,
    is_stopping: bool,
}

/// What inlets and outlets have in common.
struct Portal {
    name: String,
    streams_max: usize,
    idle: Duration,
    /// Streams now.
    open: usize,
    /// Streams since the start, without those that were refused.
    total: u64,
    refused: u64,
    datagrams: flows::Counts,
    complaint: Complaint,
    trail: Trail,
    origin: PortalOrigin,
    /// It was removed. What it carries goes on.
    is_gone: bool,
}

struct Inlet {
    portal: Portal,
    /// Where it listens, in words.
    listen: String,
    /// It takes datagrams.
    is_udp: bool,
    /// The session that its streams are in.
    session: PortalKey,
    outlet: String,
    allow: Vec<Network>,
    accept_proxy_from: Vec<Network>,
    /// Who may log in, if clients speak SOCKS.
    socks: Option<Vec<Login>>,
}

struct Outlet {
    portal: Portal,
    target: OutletTarget,
    /// The thread of the serial line it leads to.
    line: Option<serial::Line>,
    send_proxy: Option<ProxyVersion>,
    keep_alive: Option<Duration>,
    /// Whose inlets the file lets lead here.
    allow: Vec<Identifier>,
}

/// Who has connected to an inlet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller {
    /// Over TCP.
    Network(SocketAddr),
    /// Over a UNIX socket.
    Local(LocalPeer),
}

/// For whom a stream is, and whereto. At an outlet by the word of the other node, with what is not plain text escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Who {
    /// Who connected to the inlet.
    origin: String,
    /// As whom they proved to be there; empty if they did not.
    user: String,
    /// Where the stream shall lead, if the outlet leaves that to the inlet; empty otherwise.
    target: String,
}

/// Which portal a stream belongs to, by its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Inlet(usize),
    Outlet(usize),
}

/// How far a stream is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// The control thread is asked whether it may be, or for addresses.
    Asking { question: u64 },
    /// What the outlet leads to is being connected; addresses left to try, the best last.
    Connecting { candidates: Vec<SocketAddr> },
    /// The node with the outlet was asked.
    Opening,
    /// Bytes flow.
    Open,
}

struct Stream {
    place: Place,
    who: Who,
    /// The client of an inlet waits for a reply of SOCKS.
    is_socks: bool,
    progress: Progress,
    /// What an outlet's stream leads to, once it is being connected.
    reached: Option<SocketAddr>,
    connection: Option<ConnectionId>,
    /// What takes the place of a connection for datagrams.
    flow: Option<Flow>,
    /// From the socket, not taken by the session; empty as soon as all is.
    pending: Vec<u8>,
    /// How many of those it has taken meanwhile.
    pending_taken: usize,
    /// The socket has no more to say.
    has_ended: bool,
    /// The other side has no more to say.
    is_finished: bool,
    /// Bytes from the socket.
    from_socket: u64,
    /// Bytes given to the socket.
    to_socket: u64,
    /// Bytes of those of which the session knows that they went out.
    told: u64,
    since: Instant,
    /// When the policy was asked about it last.
    asked: Instant,
    /// When something passed last.
    active: Instant,
}

/// How a stream ends on this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Both sides have finished.
    Over,
    /// This side ends it.
    Here(ResetReason),
    /// The other side has ended it, or the session is lost.
    There(ResetReason),
}

/// Returns the nodes that inlets lead to, each by the first inlet that does: the order of their sessions.
pub(crate) fn peers_of(inlets: &[PortalInlet]) -> Vec<&PortalInlet> {
    let mut peers: Vec<&PortalInlet> = Vec::new();
    for inlet in inlets {
        if !peers.iter().any(|peer| peer.node == inlet.node) {
            peers.push(inlet);
        }
    }
    peers
}

/// Returns how many local connections portals may have.
pub(crate) fn connections_max(settings: Option<&Settings>) -> u32 {
    let portals = settings.iter();
    let inlets = portals.clone().flat_map(|portal| &portal.inlets);
    let outlets = portals.flat_map(|portal| &portal.outlets);
    let streams = inlets
        .map(|inlet| inlet.streams_max)
        .chain(outlets.map(|outlet| outlet.streams_max));
    // As many again may still be on their way out.
    streams
        .map(u32::from)
        .chain([book::STREAMS_MAX])
        .map(|streams| streams * 2)
        .fold(0, u32::saturating_add)
}

impl Portal {
    fn new(name: &str, streams_max: u16, idle: Duration, trail: &Trail, origin: PortalOrigin) -> Self {
        Self {
            name: name.to_owned(),
            streams_max: streams_max.into(),
            idle,
            open: 0,
            total: 0,
            refused: 0,
            datagrams: flows::Counts::default(),
            complaint: Complaint::default(),
            trail: trail.clone(),
            origin,
            is_gone: false,
        }
    }

    /// Returns whether it was removed, and nothing refers to its place any more.
    const fn is_vacant(&self) -> bool {
        self.is_gone && self.open == 0
    }
}

impl Portals {
    /// Makes them; passwords of the inlets' users are read. `added` are those that come from commands.
    ///
    /// # Errors
    /// [`StartError`] for a password that cannot be read, or a line that can have no thread.
    pub(crate) fn new(settings: Option<&Settings>, added: &Added, trail: &Trail) -> Result<Self, StartError> {
        let Some(settings) = settings else {
            return Ok(Self {
                trail: trail.clone(),
                ..Self::default()
            });
        };
        let peers = peers_of(&settings.inlets);
        let inlets = settings.inlets.iter().map(|inlet| {
            let session = peers.iter().position(|peer| peer.node == inlet.node);
            let session = session.expect("every node that an inlet leads to is among them");
            Inlet::first(
                inlet,
                session,
                trail,
                added.origin(PortalKind::Inlet, &inlet.name),
            )
        });
        let outlets = settings
            .outlets
            .iter()
            .map(|outlet| Outlet::first(outlet, trail, added.origin(PortalKind::Outlet, &outlet.name)));
        Ok(Self {
            inlets: inlets.collect::<Result<_, StartError>>()?,
            outlets: outlets.collect::<Result<_, StartError>>()?,
            trail: trail.clone(),
            ..Self::default()
        })
    }

    /// Takes note of where an inlet listens.
    pub(crate) fn set_listening(&mut self, inlet: usize, address: String) {
        if let Some(inlet) = self.inlets.get_mut(inlet) {
            inlet.listen = address;
        }
    }

    /// Returns whether the connection is a local one of a stream.
    pub(crate) fn has(&self, connection: ConnectionId) -> bool {
        self.by_connection.contains_key(&connection) || self.arrivals.contains_key(&connection)
    }

    fn portal(&mut self, place: Place) -> Option<&mut Portal> {
        match place {
            Place::Inlet(index) => self.inlets.get_mut(index).map(|inlet| &mut inlet.portal),
            Place::Outlet(index) => self.outlets.get_mut(index).map(|outlet| &mut outlet.portal),
        }
    }

    fn stream_of(&mut self, connection: ConnectionId) -> Option<(Key, &mut Stream)> {
        let key = *self.by_connection.get(&connection)?;
        Some((key, self.streams.get_mut(&key)?))
    }

    /// Takes bytes of a local socket.
    pub(crate) fn handle_received(
        &mut self,
        ground: &mut Ground<'_>,
        connection: ConnectionId,
        bytes: &[u8],
    ) {
        let now = ground.now.instant;
        let Some((key, stream)) = self.stream_of(connection) else {
            self.handle_arriving(ground, connection, bytes);
            return;
        };
        if let Progress::Connecting { .. } = stream.progress {
            return self.handle_line_open(ground, connection, bytes);
        }
        stream.active = now;
        stream.from_socket += bytes.len() as u64;
        let (written, is_ready) = match ground.node.portal(key.0) {
            Some(session) if stream.pending.is_empty() && stream.progress == Progress::Open => {
                let written = session.write(key.1, bytes);
                // What is not fetched need not be kept, and copied again, when the session has no room for it.
                let is_ready = session.is_ready();
                if !is_ready {
                    session.wait(key.1);
                }
                (written, is_ready)
            }
            Some(_) | None => (0, false),
        };
        let rest = bytes.get(written..).unwrap_or_default();
        stream.pending.extend_from_slice(rest);
        if !is_ready || !rest.is_empty() {
            ground.io.pause_receive(connection);
        }
    }

    /// A local socket has no more to say.
    pub(crate) fn handle_ended(&mut self, ground: &mut Ground<'_>, connection: ConnectionId) {
        let Some((key, stream)) = self.stream_of(connection) else {
            if let Some(arrival) = self.arrivals.remove(&connection) {
                ground.io.close(connection);
                self.turn_away(ground, &arrival, "it ended before it had said what it wants");
            }
            return;
        };
        stream.has_ended = true;
        if let Some(reason) = self.line_lost(key) {
            return self.end(ground, key, End::Here(reason));
        }
        let Some(stream) = self.streams.get(&key) else {
            return;
        };
        if stream.pending.is_empty()
            && let Some(session) = ground.node.portal(key.0)
        {
            session.finish(key.1);
        }
        self.handle_events(ground);
    }

    /// A local socket is gone.
    pub(crate) fn handle_closed(
        &mut self,
        ground: &mut Ground<'_>,
        connection: ConnectionId,
        reason: CloseReason,
    ) {
        self.lingering.forget(connection);
        let Some((key, stream)) = self.stream_of(connection) else {
            if let Some(arrival) = self.arrivals.remove(&connection) {
                self.turn_away(ground, &arrival, "it was gone before it had said what it wants");
            }
            return;
        };
        // It cannot be told apart whether all of it arrived, when the kernel says that the connection broke.
        let is_clean = matches!(reason, CloseReason::Peer | CloseReason::Local);
        let end = if is_clean && stream.has_ended && stream.is_finished {
            End::Over
        } else {
            End::Here(ResetReason::Broken)
        };
        stream.connection = None;
        self.by_connection.remove(&connection);
        self.end(ground, key, end);
    }

    /// Deals with what sessions have to say, and with what came out of their streams.
    pub(crate) fn handle_events(&mut self, ground: &mut Ground<'_>) {
        self.pass_on(ground);
        while let Some((session, event)) = ground.node.poll_portal_event() {
            match event {
                SessionEvent::Requested {
                    stream,
                    outlet,
                    origin,
                    user,
                    target,
                } => {
                    let who = Who { origin, user, target };
                    self.handle_requested(ground, (session, stream), &outlet, &who);
                }
                SessionEvent::Opened { stream } => self.handle_opened(ground, (session, stream)),
                SessionEvent::Finished { stream: id } => {
                    if let Some(stream) = self.streams.get_mut(&(session, id)) {
                        stream.is_finished = true;
                        if let Some(connection) = stream.connection {
                            ground.io.finish(connection);
                        } else if let (Some(_), Some(session)) = (&stream.flow, ground.node.portal(session)) {
                            // Flows have one end only.
                            session.finish(id);
                        }
                    }
                }
                SessionEvent::Reset { stream, reason } => {
                    self.end(ground, (session, stream), End::There(reason));
                }
                SessionEvent::Over { stream } => self.end(ground, (session, stream), End::Over),
            }
        }
    }

    /// Lends out the send buffer of the socket that got something last: what comes for it next is not copied on its way.
    /// [`Portals::handle_events`] takes it back; nobody else writes to that socket.
    pub(crate) fn lend(&mut self, io: &mut Io) {
        if self.staged.borrowed().is_none()
            && let Some(key) = self.last
            && let Some(connection) = self.streams.get(&key).and_then(|stream| stream.connection)
            && let Some(buffer) = io.send_buffer(connection)
        {
            self.staged.borrow(key, buffer);
        }
    }

    /// Takes back what [`Portals::lend`] has lent.
    fn take_back(&mut self, ground: &mut Ground<'_>) {
        let Some((key, count)) = self.staged.borrowed() else {
            return;
        };
        let stream = self.streams.get_mut(&key);
        let connection = stream.as_ref().and_then(|stream| stream.connection);
        self.staged
            .give_back(connection.and_then(|connection| ground.io.send_buffer(connection)));
        if let Some(stream) = stream.filter(|_| count > 0) {
            stream.active = ground.now.instant;
            stream.to_socket += count as u64;
            self.untold.insert(key);
        }
    }

    /// Gives sockets what came out of streams.
    fn pass_on(&mut self, ground: &mut Ground<'_>) {
        self.take_back(ground);
        let staged = std::mem::take(&mut self.staged);
        for (key, bytes) in staged.pieces() {
            let Some(stream) = self.streams.get_mut(&key) else {
                continue;
            };
            stream.active = ground.now.instant;
            stream.to_socket += bytes.len() as u64;
            // One that is gone will be told of by `handle_closed`; what comes meanwhile goes nowhere.
            if let Some(buffer) = stream.connection.and_then(|id| ground.io.send_buffer(id)) {
                buffer.extend_from_slice(bytes);
            } else if let Some(flow) = &mut stream.flow {
                let portal = match stream.place {
                    Place::Inlet(index) => self.inlets.get_mut(index).map(|inlet| &mut inlet.portal),
                    Place::Outlet(index) => self.outlets.get_mut(index).map(|outlet| &mut outlet.portal),
                };
                if let Some(portal) = portal {
                    flow.deliver(ground.io, bytes, &mut portal.datagrams);
                }
            }
            self.last = Some(key);
            self.untold.insert(key);
        }
        self.staged = staged.emptied();
    }

    /// Does what is due, and has sessions told what went out. Call it before the node is flushed.
    pub(crate) fn end_turn(&mut self, ground: &mut Ground<'_>) {
        self.handle_events(ground);
        self.tell_consumed(ground);
        self.lingering.end_turn(ground.io, ground.now.instant);
        if self.sweep_at.is_some_and(|at| ground.now.instant >= at) {
            self.sweep(ground);
        }
        self.handle_events(ground);
    }

    /// Tells sessions what went out. What is queued counts as out while it is little: whoever waits for a socket that is not read
    /// gets no more credit, and no other word of the kernel is needed.
    fn tell_consumed(&mut self, ground: &mut Ground<'_>) {
        let (io, node, streams) = (&*ground.io, &mut *ground.node, &mut self.streams);
        self.untold.retain(|key| {
            let Some(stream) = streams.get_mut(key) else {
                return false;
            };
            let congested = stream
                .connection
                .filter(|connection| io.is_congested(*connection));
            let queued = congested.map_or(0, |connection| io.queued_bytes(connection));
            let out = stream.to_socket.saturating_sub(queued as u64);
            let news = usize::try_from(out.saturating_sub(stream.told)).unwrap_or(usize::MAX);
            if news > 0
                && let Some(session) = node.portal(key.0)
            {
                session.handle_consumed(key.1, news);
                stream.told = out;
            }
            stream.told < stream.to_socket
        });
    }

    /// Gives sessions what waited for room in them; says whether there was any. Call it after the node was flushed, and flush it
    /// again then.
    pub(crate) fn write_pending(&mut self, ground: &mut Ground<'_>) -> bool {
        let mut any = false;
        while let Some(key) = ground.node.poll_portal_writable() {
            let (Some(stream), Some(session)) = (self.streams.get_mut(&key), ground.node.portal(key.0))
            else {
                continue;
            };
            let rest = stream.pending.get(stream.pending_taken..).unwrap_or_default();
            let written = session.write(key.1, rest);
            any |= written > 0;
            stream.active = ground.now.instant;
            stream.pending_taken += written;
            if stream.pending_taken < stream.pending.len() {
                continue;
            }
            stream.pending_taken = 0;
            stream.pending.clear();
            stream.pending.shrink_to(PENDING_KEPT_MAX);
            if stream.has_ended {
                session.finish(key.1);
            } else if let Some(connection) = stream.connection {
                ground.io.resume_receive(connection);
            }
        }
        if any {
            self.handle_events(ground);
        }
        any
    }

    /// Ends streams that wait, or carry nothing, for too long.
    fn sweep(&mut self, ground: &mut Ground<'_>) {
        let now = ground.now.instant;
        let late: Vec<(Key, ResetReason)> = self
            .streams
            .iter()
            .filter_map(|(key, stream)| {
                if stream.progress != Progress::Open {
                    if self.is_line_busy(now, stream) {
                        return Some((*key, ResetReason::Limit));
                    }
                    let is_late = now.saturating_since(stream.since) >= OPEN_TIME_MAX;
                    return is_late.then_some((*key, ResetReason::Unreachable));
                }
                let idle = match stream.place {
                    Place::Inlet(index) => self.inlets.get(index).map(|inlet| inlet.portal.idle),
                    Place::Outlet(index) => self.outlets.get(index).map(|outlet| outlet.portal.idle),
                };
                let is_idle = idle.is_some_and(|idle| now.saturating_since(stream.active) >= idle);
                is_idle.then_some((*key, ResetReason::Idle))
            })
            .collect();
        for (key, reason) in late {
            self.end(ground, key, End::Here(reason));
        }
        self.ask_again(ground);
        self.sweep_arrivals(ground);
        let is_empty = self.streams.is_empty() && self.arrivals.is_empty();
        self.sweep_at = (!is_empty).then(|| now + SWEEP_EVERY);
    }

    /// Ends every stream, as an operator wants the node to end.
    pub(crate) fn handle_stop(&mut self, ground: &mut Ground<'_>) {
        self.is_stopping = true;
        let all: Vec<Key> = self.streams.keys().copied().collect();
        for key in all {
            self.end(ground, key, End::Here(ResetReason::Closed));
        }
        for (connection, arrival) in std::mem::take(&mut self.arrivals) {
            ground.io.abort(connection);
            self.turn_away(ground, &arrival, "the node is ending");
        }
    }

    /// Takes a stream off; its socket is closed when everything has gone out if it is over, and with a reset otherwise.
    fn end(&mut self, ground: &mut Ground<'_>, key: Key, end: End) {
        let Some(stream) = self.streams.remove(&key) else {
            return;
        };
        self.untold.remove(&key);
        if let Progress::Asking { question } = &stream.progress {
            self.by_question.remove(question);
        }
        if let End::Here(reason) = end
            && let Some(session) = ground.node.portal(key.0)
        {
            session.reset(key.1, reason);
        }
        if let Some(connection) = stream.connection {
            self.by_connection.remove(&connection);
            match end {
                End::Over => self.lingering.add(ground.io, ground.now.instant, connection),
                End::Here(reason) | End::There(reason)
                    if stream.is_socks && stream.progress == Progress::Opening =>
                {
                    arriving::reply(ground.io, connection, SocksReply::from(reason));
                    ground.io.close(connection);
                }
                End::Here(_) | End::There(_) => ground.io.abort(connection),
            }
        }
        if let Some(flow) = &stream.flow {
            self.end_flow(ground, flow, stream.progress == Progress::Open);
        }
        let Some(portal) = self.portal(stream.place) else {
            return;
        };
        portal.open = portal.open.saturating_sub(1);
        let is_vacant = portal.is_vacant();
        if stream.progress == Progress::Open {
            audit::ended(ground, portal, key, &stream, end);
        } else if let End::Here(reason) | End::There(reason) = end {
            portal.refused += 1;
            audit::refused(ground, portal, (stream.place, key.0), &stream.who, reason.name());
        }
        if is_vacant {
            self.leave_unused(ground, key.0);
        }
    }

    /// Returns when [`Portals::end_turn`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.sweep_at, self.lingering.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Longest time from the wish for a stream to its being open.
const OPEN_TIME_MAX: Duration = Duration::from_secs(30);
/// Memory that a stream keeps for what its session may not take the next time.
const PENDING_KEPT_MAX: usize = 256 << 10;
/// Between two looks at streams that wait or carry nothing.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
