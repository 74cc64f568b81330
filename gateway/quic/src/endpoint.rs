//! All connections of a node over QUIC, and the datagrams they live on.

mod connection;
mod transport;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use connection::{Connection, State, Told};
use fieldgate_proto::time::Instant;
use quinn_proto::{
    ClientConfig, ConnectError, ConnectionHandle, DatagramEvent, Incoming as Knock, ServerConfig, Transmit,
    VarInt,
};

use crate::{OPENING_TIME_MAX, Settings, tls};

/// Names one connection. No name is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Whom to dial, and through which socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// The caller's number for the socket.
    pub socket: u64,
    /// Where the other end is.
    pub remote: SocketAddr,
}

/// A datagram that came, or is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The caller's number for the socket.
    pub socket: u64,
    /// The other end.
    pub remote: SocketAddr,
    /// Our end, if it is known or matters.
    pub local: Option<IpAddr>,
    /// Its content.
    pub bytes: &'a [u8],
}

/// What an endpoint has to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Frames can be sent.
    Opened {
        /// Which connection.
        id: LinkId,
        /// Whether this side dialled.
        dialled: bool,
        /// Where the other end is.
        remote: SocketAddr,
    },
    /// Whole frames have come.
    Received {
        /// Which connection.
        id: LinkId,
        /// One after the other.
        frames: Vec<u8>,
    },
    /// The other end has another address now; nothing else has changed (RFC 9000 §9).
    Moved {
        /// Which connection.
        id: LinkId,
        /// Where it is.
        remote: SocketAddr,
    },
    /// The connection is no more, and not because this side closed it.
    Closed {
        /// Which connection.
        id: LinkId,
        /// Whether it had been open.
        was_open: bool,
        /// Why, in words.
        reason: String,
    },
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections that others began and that were turned away, or made way for others.
    pub refused: u64,
    /// Strangers who were asked to prove their address before anything was kept for them.
    pub retried: u64,
    /// Connections that others began and whose handshake did not come to an end.
    pub failed: u64,
    /// Times that a connection went on from another address.
    pub moved: u64,
}

/// The connections; see the [crate](crate).
#[derive(Debug)]
pub struct Endpoint {
    inner: quinn_proto::Endpoint,
    epoch: std::time::Instant,
    client: ClientConfig,
    accepted_max: usize,
    connections: BTreeMap<u64, Connection>,
    by_handle: BTreeMap<usize, u64>,
    next: u64,
    /// Connections that others opened.
    accepted: usize,
    /// Those of them whose handshake has not ended; the lowest is the oldest.
    opening: BTreeSet<u64>,
    timers: BTreeSet<(Instant, u64)>,
    /// Something has come for them.
    touched: BTreeSet<u64>,
    /// They may have something to send.
    dirty: BTreeSet<u64>,
    /// As `dirty`, but their socket is full.
    waiting: BTreeSet<u64>,
    full: BTreeSet<u64>,
    /// Answers to those for whom nothing is kept.
    responses: VecDeque<Response>,
    outputs: VecDeque<Output>,
    scratch: Vec<u8>,
    stats: Stats,
}

#[derive(Debug)]
struct Response {
    socket: u64,
    remote: SocketAddr,
    local: Option<IpAddr>,
    bytes: Vec<u8>,
}

impl Endpoint {
    /// Makes an endpoint that dials, and takes connections that come through sockets of which [`Self::handle_datagram`] says so.
    ///
    /// # Errors
    /// [`tls::TlsError`].
    pub fn new(settings: &Settings) -> Result<Self, tls::TlsError> {
        let transport = Arc::new(transport::transport());
        let mut server = ServerConfig::with_crypto(Arc::new(tls::server()?));
        server.transport_config(Arc::clone(&transport));
        transport::limit(&mut server);
        let mut client = ClientConfig::new(Arc::new(tls::client()?));
        client.transport_config(transport);
        let config = Arc::new(transport::endpoint(&settings.reset_key));
        Ok(Self {
            inner: quinn_proto::Endpoint::new(config, Some(Arc::new(server)), true, None),
            epoch: settings.epoch,
            client,
            accepted_max: settings.accepted_max,
            connections: BTreeMap::new(),
            by_handle: BTreeMap::new(),
            next: 0,
            accepted: 0,
            opening: BTreeSet::new(),
            timers: BTreeSet::new(),
            touched: BTreeSet::new(),
            dirty: BTreeSet::new(),
            waiting: BTreeSet::new(),
            full: BTreeSet::new(),
            responses: VecDeque::new(),
            outputs: VecDeque::new(),
            scratch: Vec::new(),
            stats: Stats::default(),
        })
    }

    /// Returns what has happened since the start.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Begins to connect; [`Output::Opened`] or [`Output::Closed`] follows.
    ///
    /// # Errors
    /// In words, if there can be nobody at that address.
    pub fn dial(&mut self, now: Instant, dial: Dial) -> Result<LinkId, String> {
        let at = self.at(now);
        let (handle, inner) = self
            .inner
            .connect(at, self.client.clone(), dial.remote, tls::SERVER_NAME)
            .map_err(|error: ConnectError| error.to_string())?;
        Ok(self.insert(now, handle, Connection::new(inner, handle, dial.socket, true)))
    }

    fn insert(&mut self, now: Instant, handle: ConnectionHandle, mut connection: Connection) -> LinkId {
        connection.state = State::Opening {
            by: now + OPENING_TIME_MAX,
        };
        let id = self.next;
        self.next += 1;
        self.by_handle.insert(handle.0, id);
        self.connections.insert(id, connection);
        self.touched.insert(id);
        LinkId(id)
    }

    /// Takes a datagram; `listens` tells whether strangers may connect through its socket. Call [`Self::process`] when all that
    /// have come are in.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &Datagram<'_>, listens: bool) {
        let (at, bytes) = (self.at(now), BytesMut::from(datagram.bytes));
        let mut answer = Vec::new();
        let (remote, local) = (datagram.remote, datagram.local);
        match self.inner.handle(at, remote, local, None, bytes, &mut answer) {
            None => {}
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(id) = self.by_handle.get(&handle.0)
                    && let Some(connection) = self.connections.get_mut(id)
                {
                    connection.inner.handle_event(event);
                    self.touched.insert(*id);
                }
            }
            Some(DatagramEvent::NewConnection(knock)) if listens => {
                self.take(now, datagram.socket, knock, answer);
            }
            Some(DatagramEvent::NewConnection(knock)) => self.inner.ignore(knock),
            Some(DatagramEvent::Response(transmit)) => self.respond(datagram.socket, &transmit, answer),
        }
    }

    /// Decides on somebody who begins a connection.
    fn take(&mut self, now: Instant, socket: u64, knock: Knock, mut answer: Vec<u8>) {
        answer.clear();
        if self.accepted >= self.accepted_max {
            self.stats.refused += 1;
            let transmit = self.inner.refuse(knock, &mut answer);
            return self.respond(socket, &transmit, answer);
        }
        // Whoever only pretends to be at an address costs nothing but this answer.
        if self.opening.len() >= RETRY_ABOVE && knock.may_retry() {
            self.stats.retried += 1;
            if let Ok(transmit) = self.inner.retry(knock, &mut answer) {
                self.respond(socket, &transmit, answer);
            }
            return;
        }
        let at = self.at(now);
        match self.inner.accept(knock, at, &mut answer, None) {
            Ok((handle, inner)) => {
                let id = self.insert(now, handle, Connection::new(inner, handle, socket, false));
                self.accepted += 1;
                self.opening.insert(id.0);
                if self.opening.len() > OPENING_MAX
                    && let Some(oldest) = self.opening.first().copied()
                {
                    self.stats.refused += 1;
                    self.abort(now, LinkId(oldest));
                }
            }
            Err(error) => {
                self.stats.failed += 1;
                if let Some(transmit) = error.response {
                    self.respond(socket, &transmit, answer);
                }
            }
        }
    }

    fn respond(&mut self, socket: u64, transmit: &Transmit, mut bytes: Vec<u8>) {
        bytes.truncate(transmit.size);
        // More would wait in no time only if somebody floods; he gets no answer then.
        if self.responses.len() < RESPONSES_MAX {
            self.responses.push_back(Response {
                socket,
                remote: transmit.destination,
                local: transmit.src_ip,
                bytes,
            });
        }
    }

    /// Works on what has come since the last time; [`Self::poll_output`] has what it came to.
    pub fn process(&mut self, now: Instant) {
        let at = self.at(now);
        while let Some((deadline, id)) = self
            .timers
            .first()
            .copied()
            .filter(|(deadline, _)| *deadline <= now)
        {
            self.timers.remove(&(deadline, id));
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.timer = None;
                connection.inner.handle_timeout(at);
                self.touched.insert(id);
            }
        }
        while let Some(id) = self.touched.pop_first() {
            self.drive(now, id);
        }
    }

    /// Has a connection do what is to be done.
    fn drive(&mut self, now: Instant, id: u64) {
        let at = self.at(now);
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let mut told = Vec::new();
        loop {
            while let Some(event) = connection.inner.poll_endpoint_events() {
                if let Some(event) = self.inner.handle_event(connection.handle, event) {
                    connection.inner.handle_event(event);
                }
            }
            let Some(event) = connection.inner.poll() else {
                break;
            };
            connection.handle_event(at, event, &mut told);
        }
        connection.advance(now, at, &mut told);
        let dialled = connection.dialled;
        for told in told {
            self.tell(id, dialled, told);
        }
        self.settle(id);
    }

    fn tell(&mut self, number: u64, dialled: bool, told: Told) {
        let id = LinkId(number);
        let output = match told {
            Told::Opened { remote } => {
                self.opening.remove(&number);
                Output::Opened { id, dialled, remote }
            }
            Told::Received(frames) => Output::Received { id, frames },
            Told::Moved { remote } => {
                self.stats.moved += 1;
                Output::Moved { id, remote }
            }
            Told::Closed { was_open, reason } => {
                self.opening.remove(&number);
                self.stats.failed += u64::from(!was_open && !dialled);
                Output::Closed { id, was_open, reason }
            }
        };
        self.outputs.push_back(output);
    }

    /// Notes when a connection wants to be called again, or forgets it.
    fn settle(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if let Some(timer) = connection.timer.take() {
            self.timers.remove(&(timer, id));
        }
        if connection.inner.is_drained() {
            let (handle, dialled) = (connection.handle.0, connection.dialled);
            self.connections.remove(&id);
            self.by_handle.remove(&handle);
            self.opening.remove(&id);
            self.waiting.remove(&id);
            self.dirty.remove(&id);
            self.accepted -= usize::from(!dialled);
            return;
        }
        let epoch = self.epoch;
        let own = connection.inner.poll_timeout().map(|at| {
            let nanos = at.saturating_duration_since(epoch).as_nanos();
            Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        });
        let next = own.into_iter().chain(connection.state.deadline()).min();
        if let Some(next) = next {
            connection.timer = Some(next);
            self.timers.insert((next, id));
        }
        self.dirty.insert(id);
    }

    /// Returns what has happened; ask until there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns whether frames can be sent.
    #[must_use]
    pub fn is_open(&self, id: LinkId) -> bool {
        self.connections
            .get(&id.0)
            .is_some_and(|connection| matches!(connection.state, State::Open))
    }

    /// Returns how many bytes wait that the connection has not taken yet.
    #[must_use]
    pub fn queued_bytes(&self, id: LinkId) -> usize {
        self.connections.get(&id.0).map_or(0, Connection::queued_bytes)
    }

    /// Takes whole frames to send. They are lost if the connection is not open.
    pub fn write(&mut self, id: LinkId, frames: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id.0)
            && matches!(connection.state, State::Open)
        {
            connection.write(frames);
            self.dirty.insert(id.0);
        }
    }

    /// Lets the other end of a connection send as much at a time as the network carries: it has shown who it is.
    pub fn trust(&mut self, id: LinkId) {
        if let Some(connection) = self.connections.get_mut(&id.0) {
            connection.inner.set_receive_window(transport::TRUSTED_WINDOW);
            self.dirty.insert(id.0);
        }
    }

    /// Sends what was written, and ends the connection when it has arrived, or after [`CLOSING_TIME_MAX`].
    pub fn close(&mut self, now: Instant, id: LinkId) {
        if let Some(connection) = self.connections.get_mut(&id.0) {
            let at = self.epoch + Duration::from_nanos(now.as_nanos());
            connection.close(now, at);
            self.opening.remove(&id.0);
            self.touched.insert(id.0);
        }
    }

    /// Ends the connection at once.
    pub fn abort(&mut self, now: Instant, id: LinkId) {
        let at = self.at(now);
        if let Some(connection) = self.connections.get_mut(&id.0) {
            connection.state = State::Over;
            connection.inner.close(at, DONE, bytes::Bytes::new());
            self.opening.remove(&id.0);
            self.touched.insert(id.0);
        }
    }

    /// Ends all connections at once: the node stops.
    pub fn abort_all(&mut self, now: Instant) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.abort(now, LinkId(id));
        }
        self.process(now);
        self.outputs.clear();
    }

    /// Gives out the datagrams that are to be sent, until there is none or `send` says that the socket is full. What was refused
    /// counts as lost on the way, and is sent again.
    pub fn flush(&mut self, now: Instant, send: &mut dyn FnMut(Datagram<'_>) -> bool) {
        let at = self.at(now);
        for response in self.responses.drain(..) {
            send(Datagram {
                socket: response.socket,
                remote: response.remote,
                local: response.local,
                bytes: &response.bytes,
            });
        }
        while let Some(id) = self.dirty.pop_first() {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            loop {
                if self.full.contains(&connection.socket) {
                    self.waiting.insert(id);
                    break;
                }
                self.scratch.clear();
                let transmit = connection
                    .inner
                    .poll_transmit(at, SEGMENTS_MAX, &mut self.scratch);
                let Some(transmit) = transmit else { break };
                let bytes = self.scratch.get(..transmit.size).unwrap_or_default();
                let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
                for bytes in bytes.chunks(segment) {
                    let taken = send(Datagram {
                        socket: connection.socket,
                        remote: transmit.destination,
                        local: transmit.src_ip,
                        bytes,
                    });
                    if !taken {
                        self.full.insert(connection.socket);
                        break;
                    }
                }
            }
            self.settle(id);
            self.dirty.remove(&id);
        }
    }

    /// A socket that was full takes datagrams again.
    pub fn handle_drained(&mut self, socket: u64) {
        self.full.remove(&socket);
        self.dirty.append(&mut self.waiting);
    }

    /// Returns when [`Self::process`] and [`Self::flush`] have something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let is_idle = self.touched.is_empty()
            && self.dirty.is_empty()
            && self.responses.is_empty()
            && self.outputs.is_empty();
        if !is_idle {
            return Some(Instant::START);
        }
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    fn at(&self, now: Instant) -> std::time::Instant {
        self.epoch + Duration::from_nanos(now.as_nanos())
    }
}

/// Connections that others began and whose handshake has not ended.
pub const OPENING_MAX: usize = 1024;

/// As [`OPENING_MAX`]; above this a stranger has to prove his address first.
pub const RETRY_ABOVE: usize = 64;

/// Longest time that what was written before a close may take.
pub const CLOSING_TIME_MAX: Duration = Duration::from_secs(3);

/// Answers without a connection that wait to be sent: those of one turn.
const RESPONSES_MAX: usize = 1024;

/// Datagrams that a connection makes at a time.
const SEGMENTS_MAX: usize = 16;

/// PROTOCOL.md §3.5: the link has ended.
const DONE: VarInt = VarInt::from_u32(0);

/// PROTOCOL.md §3.5: the other side does not keep to the protocol.
const VIOLATION: VarInt = VarInt::from_u32(1);

#[cfg(test)]
mod tests;
