//! What lies between a link's bytes and its socket: nothing over TCP and UNIX sockets; a WebSocket, TLS and a proxy for addresses
//! `wss://…`; QUIC for `quic://…`.
//!
//! ```text
//!  node ──frames──▶ plain ──end of turn──▶ WebSocket ──▶ TLS ──▶ (tunnel through a proxy) ──▶ TCP
//! ```
//!
//! A layered link is a link once its WebSocket is open; before that the node does not know of it.
//!
//! | bound | value |
//! |---|---|
//! | time until a WebSocket is open, handshakes included | [`OPENING_TIME_MAX`] |
//! | connections accepted whose WebSocket is not open | [`OPENING_MAX`]; the oldest makes way for the next |
//! | bytes before the WebSocket is open | 128 KiB, as for devices |

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use fieldgate_config::{
    address::{LinkAddress, WebSocketAddress},
    settings::{LinkWebSocket, MqttTls, Settings},
};
use fieldgate_io::{ConnectionId, DatagramId, DatagramPath, Io};
use fieldgate_proto::{
    node::{ConnectionKey, Wire},
    time::Instant,
};

use super::{
    StartError,
    clock::Clock,
    transport::{
        SecurityPlan, Stack, Transport,
        tls::{Acceptor, Directory},
    },
    trunk::dialling::Neighbour,
};

pub(crate) mod dial;
pub(crate) mod quic;
pub(crate) mod verify;

use dial::{Connector, Dial};
use quic::{Quic, is_quic};

/// The layers of all links that have some.
pub(crate) struct Layers {
    /// For those who connect; `None` if nobody does over WebSockets.
    stack: Option<Stack>,
    /// For those who are dialled.
    connector: Connector,
    links: BTreeMap<ConnectionKey, Layered>,
    /// Links with bytes that wait for the end of the turn.
    dirty: Vec<ConnectionKey>,
    /// Connections that are not open, oldest first; may hold some that are open or gone.
    opening: VecDeque<ConnectionKey>,
    refused: u64,
    quic: Quic,
}

/// The layers of one link.
struct Layered {
    layer: Layer,
    /// What the node wrote in this turn.
    plain: Vec<u8>,
    /// Not open later than this; `None` once it is.
    open_by: Option<Instant>,
}

enum Layer {
    Accepted(Box<Transport>),
    Dialled(Box<Dial>),
}

/// What received bytes came to.
pub(crate) enum Received {
    /// Bytes of the link; `opened` tells that these are its first.
    Link {
        /// The WebSocket is open now and was not before.
        opened: bool,
        /// The bytes, maybe none.
        bytes: Vec<u8>,
    },
    /// It is over; what the peer is told is on its way. Close the connection.
    Broken {
        /// Whether it had been open.
        was_open: bool,
        /// Why.
        error: String,
        /// What came before, if it was open.
        bytes: Vec<u8>,
    },
}

impl Layers {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// [`StartError`]: a file that cannot be read, a secret that is not there.
    pub(crate) fn load(
        settings: &Settings,
        neighbours: &[Neighbour],
        clock: &Clock,
    ) -> Result<Self, StartError> {
        let links_max = settings.relay.as_ref().map_or(LINKS_MAX, |relay| relay.links_max);
        let websocket = settings.link_websocket.as_ref();
        let dials_tls = neighbours.iter().flat_map(|neighbour| &neighbour.addresses);
        let dials_tls = dials_tls
            .into_iter()
            .any(|address| matches!(address, LinkAddress::WebSocket(url) if url.is_tls));
        Ok(Self {
            stack: websocket
                .filter(|websocket| !websocket.listen.is_empty())
                .map(|websocket| stack(websocket, clock))
                .transpose()?,
            connector: Connector::load(websocket, dials_tls, clock)?,
            links: BTreeMap::new(),
            dirty: Vec::new(),
            opening: VecDeque::new(),
            refused: 0,
            quic: Quic::load(settings, links_max)?,
        })
    }

    /// Returns what has files that may change while the node runs.
    pub(crate) fn acceptor(&self) -> Option<Acceptor> {
        match self.stack.as_ref()?.security.as_ref()? {
            SecurityPlan::Tls(acceptor) => Some(acceptor.clone()),
            SecurityPlan::Psk(_) => None,
        }
    }

    pub(crate) const fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Connections whose WebSocket did not open, for whatever reason.
    pub(crate) const fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns what lies on UDP.
    pub(crate) const fn quic(&self) -> &Quic {
        &self.quic
    }

    /// Takes links over QUIC at an address; returns which it is.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn listen_quic(&mut self, io: &mut Io, address: SocketAddr) -> std::io::Result<SocketAddr> {
        self.quic.listen(io, address)
    }

    /// Begins to connect over QUIC.
    ///
    /// # Errors
    /// In words: there is no socket, or can be nobody at that address.
    pub(crate) fn dial_quic(
        &mut self,
        io: &mut Io,
        now: Instant,
        remote: SocketAddr,
    ) -> Result<ConnectionId, String> {
        self.quic.dial(io, now, remote)
    }

    /// Returns when the addresses of this node are to be looked at; `None` if it has no direct paths.
    pub(crate) const fn poll_addresses(&self) -> Option<Instant> {
        self.quic.poll_addresses()
    }

    /// Returns the addresses at which the sockets for QUIC are reached, as far as this machine knows.
    pub(crate) fn look_at_addresses(&mut self, io: &mut Io, again_at: Instant) -> Vec<SocketAddr> {
        self.quic.look_at_addresses(io, again_at)
    }

    /// Sends something to each address, and takes connections over QUIC from there for a while.
    pub(crate) fn punch(&mut self, io: &mut Io, now: Instant, addresses: &[SocketAddr]) {
        self.quic.punch(io, now, addresses);
    }

    /// Takes a datagram; says whether it is one of links.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        (socket, path): (DatagramId, DatagramPath),
        bytes: &[u8],
    ) -> bool {
        self.quic.handle_datagram(now, socket, path, bytes)
    }

    /// The queue of a socket is empty again.
    pub(crate) fn handle_datagrams_drained(&mut self, socket: DatagramId) {
        self.quic.handle_drained(socket);
    }

    /// Returns the next of what has come over QUIC.
    pub(crate) fn poll_quic(&mut self, now: Instant) -> Option<fieldgate_quic::Output> {
        self.quic.process(now);
        self.quic.poll_output()
    }

    /// The neighbour has shown who it is, and may send as fast as the network carries.
    pub(crate) fn trust(&mut self, key: ConnectionKey) {
        if is_quic(key) {
            self.quic.trust(key);
        }
    }

    /// The node ends now; what cannot be told by the kernel is told to neighbours.
    pub(crate) fn stop(&mut self, io: &mut Io, now: Instant) {
        self.quic.stop(io, now);
    }

    /// Begins with a connection that somebody opened; returns the one that has to make way for it, if one has.
    ///
    /// # Errors
    /// The library's, for want of memory.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        key: ConnectionKey,
    ) -> Result<Option<ConnectionKey>, String> {
        let transport = self
            .stack
            .as_ref()
            .and_then(|stack| stack.open().transpose())
            .ok_or("nothing listens for WebSockets")?
            .map_err(|error| error.to_string())?;
        self.links.insert(
            key,
            Layered {
                layer: Layer::Accepted(transport),
                plain: Vec::new(),
                open_by: Some(now + OPENING_TIME_MAX),
            },
        );
        self.opening.push_back(key);
        if self.opening.len() <= OPENING_MAX {
            return Ok(None);
        }
        let links = &self.links;
        self.opening
            .retain(|key| links.get(key).is_some_and(|link| link.open_by.is_some()));
        if self.opening.len() <= OPENING_MAX {
            return Ok(None);
        }
        self.refused += 1;
        Ok(self.opening.pop_front())
    }

    /// Begins with a connection that was dialled and is there.
    ///
    /// # Errors
    /// In words, if the address names nobody whom a certificate can be for.
    pub(crate) fn dial(
        &mut self,
        io: &mut Io,
        now: Instant,
        key: ConnectionKey,
        url: &WebSocketAddress,
    ) -> Result<(), String> {
        let Some(out) = io.send_buffer(id(key)) else {
            return Err("the connection is gone again".to_owned());
        };
        let dial = self.connector.open(url, out)?;
        self.links.insert(
            key,
            Layered {
                layer: Layer::Dialled(Box::new(dial)),
                plain: Vec::new(),
                open_by: Some(now + OPENING_TIME_MAX),
            },
        );
        self.opening.push_back(key);
        Ok(())
    }

    /// Takes received bytes; `None` if the connection has no layers, and they are the link's as they are.
    pub(crate) fn receive(&mut self, io: &mut Io, key: ConnectionKey, bytes: &[u8]) -> Option<Received> {
        let link = self.links.get_mut(&key)?;
        let mut plain = Vec::new();
        let mut answers = Vec::new();
        let result = match &mut link.layer {
            Layer::Accepted(transport) => transport
                .receive(bytes, &mut answers, |piece, _| plain.extend_from_slice(piece))
                .map_err(|error| error.to_string()),
            Layer::Dialled(dial) => dial
                .receive(bytes, &mut answers, |piece| plain.extend_from_slice(piece))
                .map_err(|error| format!("{error}; {}", error.hint())),
        };
        if let Some(out) = io.send_buffer(id(key)).filter(|_| !answers.is_empty()) {
            out.extend_from_slice(&answers);
        }
        let was_open = link.open_by.is_none();
        if let Err(error) = result {
            self.refused += u64::from(!was_open);
            return Some(Received::Broken {
                was_open,
                error,
                bytes: plain,
            });
        }
        let opened = !was_open && link.layer.is_open();
        if opened {
            link.open_by = None;
        }
        Some(Received::Link { opened, bytes: plain })
    }

    /// Returns the bytes that wait to be sent on a link.
    pub(crate) fn queued_bytes(&self, io: &Io, key: ConnectionKey) -> usize {
        if is_quic(key) {
            return self.quic.queued_bytes(key);
        }
        let waiting = self.links.get(&key).map_or(0, |link| link.plain.len());
        waiting.saturating_add(io.queued_bytes(id(key)))
    }

    /// Returns whether the connection has layers that are not open yet.
    pub(crate) fn is_opening(&self, key: ConnectionKey) -> bool {
        self.links.get(&key).is_some_and(|link| link.open_by.is_some())
    }

    /// Sends what the node has written, layer by layer.
    pub(crate) fn flush(&mut self, io: &mut Io, now: Instant) {
        for key in std::mem::take(&mut self.dirty) {
            self.flush_one(io, key);
        }
        self.quic.flush(io, now);
    }

    fn flush_one(&mut self, io: &mut Io, key: ConnectionKey) {
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        if let Some(out) = io.send_buffer(id(key)) {
            for piece in link.plain.chunks(MESSAGE_BYTES_MAX) {
                link.layer.send(piece, out);
            }
        }
        link.plain.clear();
        link.plain.shrink_to(KEPT_BYTES);
    }

    /// Says goodbye on every layer and forgets the connection, which the caller closes.
    pub(crate) fn close(&mut self, io: &mut Io, now: Instant, key: ConnectionKey) {
        if is_quic(key) {
            return self.quic.close(now, key);
        }
        self.flush_one(io, key);
        if let Some(mut link) = self.links.remove(&key)
            && let Some(out) = io.send_buffer(id(key))
        {
            link.layer.close(out);
        }
    }

    /// Forgets a connection that is gone or not wanted.
    pub(crate) fn forget(&mut self, now: Instant, key: ConnectionKey) {
        if is_quic(key) {
            self.quic.forget(now, key);
        }
        self.links.remove(&key);
    }

    /// Returns the connections that took too long to open, and forgets them.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<ConnectionKey> {
        let mut late = Vec::new();
        while let Some(key) = self.opening.front() {
            match self.links.get(key).and_then(|link| link.open_by) {
                Some(by) if now < by => break,
                Some(_) => late.push(*key),
                None => {}
            }
            self.opening.pop_front();
        }
        self.refused += late.len() as u64;
        for key in &late {
            self.links.remove(key);
        }
        late
    }

    /// Returns when [`Self::overdue`] or [`Self::flush`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if !self.dirty.is_empty() {
            return Some(Instant::START);
        }
        // All have the same time, so the first that is still opening is the first to be late.
        let mut opening = self.opening.iter();
        let overdue = opening.find_map(|key| self.links.get(key)?.open_by);
        overdue.into_iter().chain(self.quic.poll_timeout()).min()
    }
}

impl Layer {
    const fn is_open(&self) -> bool {
        match self {
            Self::Accepted(transport) => transport.is_open(),
            Self::Dialled(dial) => dial.is_open(),
        }
    }

    fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Accepted(transport) => transport.send(plain, out),
            Self::Dialled(dial) => dial.send(plain, out),
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Accepted(transport) => transport.close(out),
            Self::Dialled(dial) => dial.close(out),
        }
    }
}

/// Send buffers as the node wants them: the driver's, or what waits for the layers.
pub(crate) struct IoWire<'a> {
    pub(crate) io: &'a mut Io,
    pub(crate) layers: &'a mut Layers,
}

impl Wire for IoWire<'_> {
    fn buffer(&mut self, connection: ConnectionKey) -> Option<&mut Vec<u8>> {
        if is_quic(connection) {
            return self.layers.quic.buffer(connection);
        }
        let Some(link) = self.layers.links.get_mut(&connection) else {
            return self.io.send_buffer(id(connection));
        };
        if link.open_by.is_some() || !self.io.is_open(id(connection)) {
            return None;
        }
        if link.plain.is_empty() {
            self.layers.dirty.push(connection);
        }
        Some(&mut link.plain)
    }

    fn queued_bytes(&self, connection: ConnectionKey) -> usize {
        self.layers.queued_bytes(self.io, connection)
    }
}

const fn id(key: ConnectionKey) -> ConnectionId {
    ConnectionId::from_u64(key.0)
}

fn stack(settings: &LinkWebSocket, clock: &Clock) -> Result<Stack, StartError> {
    let security = settings.tls.as_ref().map(|(certificate, key)| {
        let tls = MqttTls {
            listen: settings.listen.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
            clients: None,
        };
        Acceptor::load(&tls, &Arc::new(Directory::default()), clock).map(SecurityPlan::Tls)
    });
    Ok(Stack {
        security: security.transpose()?,
        websocket: Some(Arc::new(fieldgate_websocket::Settings {
            path: settings.path.clone(),
            subprotocol: SUBPROTOCOL.to_owned(),
            // A page of a browser has no business on a link.
            origins: Some(Vec::new()),
        })),
    })
}

/// PROTOCOL.md §3: what WebSockets of links are for.
const SUBPROTOCOL: &str = "fieldgate-link";

/// Links of a node that is no relay.
pub(crate) const LINKS_MAX: u32 = 1024;

/// Longest time from the connection to an open WebSocket.
const OPENING_TIME_MAX: Duration = Duration::from_secs(10);

/// Accepted connections whose WebSocket is not open.
const OPENING_MAX: usize = 1024;

/// Bytes of one WebSocket message at most; a link's frames may be spread over several.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Memory that a link keeps for its next turn.
const KEPT_BYTES: usize = 64 << 10;
