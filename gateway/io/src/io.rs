use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::{
    clock,
    connection::{BufferClass, CloseReason, Connection, ConnectionId, ListenerId, Phase},
    datagram::DatagramId,
    epoll,
    handler::Handler,
    local::{self, LocalPath},
    shard::{Event, Shard, Stats},
    storage::FileRef,
    sys, uring,
};

/// How to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Buffers for the connections accepted.
    pub class: BufferClass,
    /// Other shards may listen on the same address, and the kernel spreads the connections over them.
    pub reuse_port: bool,
    /// Connections the kernel keeps until they are accepted; it applies its own limit (`net.core.somaxconn`).
    pub backlog: i32,
    /// Silence after which the kernel asks whether the peer of a TCP connection is still there; `None`: it never does.
    pub keep_alive: Option<Duration>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            class: BufferClass::Device,
            reuse_port: false,
            backlog: 1024,
            keep_alive: Some(KEEP_ALIVE_IDLE),
        }
    }
}

/// How to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Buffers for the connection.
    pub class: BufferClass,
    /// `connected` says `TimedOut` after this.
    pub timeout: Duration,
    /// As [`ListenOptions::keep_alive`].
    pub keep_alive: Option<Duration>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            class: BufferClass::Link,
            timeout: Duration::from_secs(10),
            keep_alive: Some(KEEP_ALIVE_IDLE),
        }
    }
}

/// What a handler can do. Nothing here waits; the effects come after [`Handler::turn_ended`].
#[derive(Debug)]
pub struct Io {
    pub(crate) shard: Shard,
    pub(crate) port: Port,
}

/// How a shard reaches the kernel.
#[derive(Debug)]
pub(crate) enum Port {
    Epoll(epoll::Poller),
    Ring(Box<uring::Ring>),
}

impl Io {
    /// Listens on `addr` (port 0: any) and returns where. TCP_NODELAY is on for what it accepts.
    ///
    /// # Errors
    /// The kernel's: address in use, not ours, not permitted.
    pub fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            // So that the same port can be listened on for IPv4 as well, whatever net.ipv6.bindv6only says.
            socket.set_only_v6(true)?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        // Accepted sockets inherit both.
        prepare(&socket, options.keep_alive)?;
        socket.bind(&addr.into())?;
        socket.listen(options.backlog)?;
        let socket = TcpListener::from(socket);
        let local = socket.local_addr()?;
        let id = self.add_listener(socket, options.class, None)?;
        Ok((id, local))
    }

    /// Listens on a UNIX socket at `path`, whose file gets the permissions `mode`. One that a process left behind is replaced;
    /// the file is removed when listening ends. Of `options` only class and backlog count.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there; `AlreadyExists` when something else than a socket is there; the kernel's.
    pub fn listen_local(
        &mut self,
        path: &Path,
        mode: u32,
        options: &ListenOptions,
    ) -> io::Result<ListenerId> {
        let (socket, path) = local::listen(path, mode, options.backlog)?;
        self.add_listener(socket, options.class, Some(path))
    }

    fn add_listener(
        &mut self,
        socket: TcpListener,
        class: BufferClass,
        path: Option<LocalPath>,
    ) -> io::Result<ListenerId> {
        if let Port::Epoll(_) = self.port {
            socket.set_nonblocking(true)?;
        }
        let id = self.shard.add_listener(socket, class, path)?;
        if let (Port::Epoll(poller), Some(listener)) = (&self.port, self.shard.listener(id)) {
            poller.watch_listener(listener, id)?;
        }
        Ok(id)
    }

    /// Stops listening. Connections already accepted stay.
    pub fn unlisten(&mut self, listener: ListenerId) {
        if let Some(listener) = self.shard.listener(listener) {
            listener.closing = true;
        }
    }

    /// Begins to connect to `addr`; `connected` tells how it went. Bytes can be queued before that.
    ///
    /// # Errors
    /// `QuotaExceeded` when the shard has all the connections it may have; the kernel's when it has no socket left.
    pub fn connect(&mut self, addr: SocketAddr, options: &ConnectOptions) -> io::Result<ConnectionId> {
        self.demand_room()?;
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        prepare(&socket, options.keep_alive)?;
        unpace(SockRef::from(&socket), addr);
        self.connect_socket(socket, SockAddr::from(addr), options)
    }

    /// As [`Self::connect`], to the UNIX socket at `path`.
    ///
    /// # Errors
    /// Those of [`Self::connect`]; `InvalidInput` for a path longer than 107 bytes.
    pub fn connect_local(&mut self, path: &Path, options: &ConnectOptions) -> io::Result<ConnectionId> {
        self.demand_room()?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        self.connect_socket(socket, SockAddr::unix(path)?, options)
    }

    /// Takes over one end of a pair of UNIX sockets as a connection that is open; neither `accepted` nor `connected` comes for it.
    ///
    /// # Errors
    /// `QuotaExceeded` when the shard has all the connections it may have; the kernel's when the backend cannot watch it.
    pub fn adopt(&mut self, socket: UnixStream, class: BufferClass) -> io::Result<ConnectionId> {
        self.demand_room()?;
        let on_epoll = matches!(self.port, Port::Epoll(_));
        socket.set_nonblocking(on_epoll)?;
        // The calls that are made on it are those that every socket has.
        let mut connection = Connection::new(OwnedFd::from(socket).into(), Phase::Open, class);
        connection.writable = true;
        let id = self.shard.connections.insert(connection).ok_or_else(table_full)?;
        let watched = match (&mut self.port, self.shard.connections.get_mut(id)) {
            (Port::Epoll(poller), Some(connection)) => poller.watch(connection, id),
            (Port::Ring(ring), Some(connection)) => {
                ring.register(connection, id);
                Ok(())
            }
            (_, None) => Ok(()),
        };
        if let Err(error) = watched {
            self.shard.release(id);
            return Err(error);
        }
        self.shard.mark_dirty(id);
        Ok(id)
    }

    fn demand_room(&self) -> io::Result<()> {
        if self.shard.connections.has_room() {
            Ok(())
        } else {
            Err(table_full())
        }
    }

    fn connect_socket(
        &mut self,
        socket: Socket,
        address: SockAddr,
        options: &ConnectOptions,
    ) -> io::Result<ConnectionId> {
        let mut connection = Connection::new(TcpStream::from(socket), Phase::Connecting, options.class);
        connection.address = Some(Box::new(address));
        let id = self.shard.connections.insert(connection).ok_or_else(table_full)?;
        self.shard
            .set_deadline(id, self.shard.now.saturating_add(clock::nanos(options.timeout)));
        self.shard.mark_dirty(id);
        Ok(id)
    }

    /// Returns the buffer to append outgoing bytes to, or `None` if the connection is closed or its sending side finished.
    ///
    /// What is appended is sent after the turn, once. Only append: what stands in it belongs to earlier messages.
    pub fn send_buffer(&mut self, connection: ConnectionId) -> Option<&mut Vec<u8>> {
        self.shard.mark_dirty(connection);
        let shard = &mut self.shard;
        let connection = shard.connections.get_mut(connection)?;
        match connection.phase {
            Phase::Connecting | Phase::Open if !connection.finishing => {
                Some(connection.outbox.filling(&mut shard.pool))
            }
            Phase::Connecting | Phase::Open | Phase::Closing | Phase::Gone => None,
        }
    }

    /// Returns the bytes queued on a connection and not yet taken by the kernel; 0 if there is no such connection.
    #[must_use]
    pub fn queued_bytes(&self, connection: ConnectionId) -> usize {
        self.shard
            .connections
            .get(connection)
            .map_or(0, |connection| connection.outbox.queued())
    }

    /// Tells whether more than the high-water mark is queued on a connection or it has not drained since.
    #[must_use]
    pub fn is_congested(&self, connection: ConnectionId) -> bool {
        self.shard.connections.get(connection).is_some_and(|connection| {
            connection.congested || connection.outbox.queued() > self.shard.settings.high_water
        })
    }

    /// Tells whether the connection is there to be written to or received from.
    #[must_use]
    pub fn is_open(&self, connection: ConnectionId) -> bool {
        self.shard
            .connections
            .get(connection)
            .is_some_and(|connection| connection.phase == Phase::Open)
    }

    /// Sends what is queued, ends our stream, and closes when the peer has closed too, or after the close timeout.
    ///
    /// A connection that is still being made is given up: `connected` says `ConnectionAborted`.
    pub fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.shard.connections.get_mut(id) else {
            return;
        };
        match connection.phase {
            Phase::Connecting => self.shard.lose(id, CloseReason::Local),
            Phase::Open => {
                connection.phase = Phase::Closing;
                connection.finishing = true;
                connection.reason = if connection.peer_ended {
                    CloseReason::Peer
                } else {
                    CloseReason::Local
                };
                connection.backlog = Vec::new();
                let deadline = self
                    .shard
                    .now
                    .saturating_add(clock::nanos(self.shard.settings.close_timeout));
                self.shard.set_deadline(id, deadline);
                self.shard.mark_dirty(id);
                // Epoll: what was not read while paused is thrown away now.
                self.shard.mark_ready(id);
            }
            Phase::Closing | Phase::Gone => {}
        }
    }

    /// Drops the connection with a reset, and what is queued with it. While it is being made: as [`Self::close`].
    pub fn abort(&mut self, id: ConnectionId) {
        if let Some(connection) = self.shard.connections.get_mut(id) {
            connection.reset = true;
            self.shard.lose(id, CloseReason::Aborted);
        }
    }

    /// Sends what is queued and ends our stream; receiving goes on.
    pub fn finish(&mut self, id: ConnectionId) {
        if let Some(connection) = self.shard.connections.get_mut(id) {
            connection.finishing = true;
            self.shard.mark_dirty(id);
        }
    }

    /// Stops `received` for a connection, at once; the peer notices when the kernel's buffers are full.
    pub fn pause_receive(&mut self, id: ConnectionId) {
        if let Some(connection) = self.shard.connections.get_mut(id) {
            connection.paused = true;
            self.shard.mark_dirty(id);
        }
    }

    /// Lets `received` come again, from the next turn on.
    pub fn resume_receive(&mut self, id: ConnectionId) {
        if let Some(connection) = self.shard.connections.get_mut(id)
            && connection.paused
        {
            connection.paused = false;
            self.shard.mark_dirty(id);
            self.shard.mark_ready(id);
        }
    }

    /// Writes `buffer` at `offset` of `file` and, with it, to stable storage; `written` brings `token` and the buffer back.
    ///
    /// Writes in flight at the same time may end in any order.
    ///
    /// # Errors
    /// Gives the buffer back when [`Self::WRITES_MAX`] writes are in flight, or no writer could be started.
    pub fn write_durable(
        &mut self,
        file: &FileRef,
        offset: u64,
        buffer: Vec<u8>,
        token: u64,
    ) -> Result<(), Vec<u8>> {
        match &mut self.port {
            Port::Epoll(poller) => poller.write_durable(file, offset, buffer, token),
            Port::Ring(ring) => ring.write_durable(file, offset, buffer, token),
        }
    }

    /// Durable writes a shard can have in flight.
    pub const WRITES_MAX: usize = 64;

    /// Returns the time of this turn ([`clock::monotonic`], nanoseconds), without reading the clock again.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.shard.now
    }

    /// Returns what the shard has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.shard.connections.len() as u64,
            datagram_sockets: self.shard.datagrams.len() as u64,
            ..self.shard.stats
        }
    }

    /// Makes [`crate::Driver::run`] return after this turn. Connections still open are aborted when the driver is dropped.
    pub const fn stop(&mut self) {
        self.shard.stopping = true;
    }

    /// Hands received bytes to the handler, or keeps them while it does not want them.
    pub(crate) fn receive(&mut self, handler: &mut dyn Handler, id: ConnectionId, bytes: &mut [u8]) {
        self.shard.stats.receives += 1;
        self.shard.stats.bytes_received += bytes.len() as u64;
        let turn = self.shard.turn;
        let Some(connection) = self.shard.connections.get_mut(id) else {
            return;
        };
        if connection.phase != Phase::Open {
            return;
        }
        let allowance = connection.turn_allowance(turn);
        if connection.paused || !connection.backlog.is_empty() || allowance == 0 {
            connection.backlog.extend_from_slice(bytes);
            if !connection.paused {
                self.shard.stats.throttled += 1;
                self.shard.mark_ready(id);
            }
            self.shard.mark_dirty(id);
            return;
        }
        connection.turn_bytes += bytes.len();
        handler.received(self, id, bytes);
    }

    /// Hands kept bytes to the handler. Returns whether all of them are gone.
    pub(crate) fn receive_backlog(&mut self, handler: &mut dyn Handler, id: ConnectionId) -> bool {
        let turn = self.shard.turn;
        let Some(connection) = self.shard.connections.get_mut(id) else {
            return false;
        };
        if connection.backlog.is_empty() {
            return true;
        }
        if connection.paused || connection.phase != Phase::Open {
            return false;
        }
        let count = connection.turn_allowance(turn).min(connection.backlog.len());
        connection.turn_bytes += count;
        let mut backlog = std::mem::take(&mut connection.backlog);
        if let Some(bytes) = backlog.get_mut(..count) {
            handler.received(self, id, bytes);
        }
        backlog.drain(..count);
        let Some(connection) = self.shard.connections.get_mut(id) else {
            return false;
        };
        if backlog.is_empty() {
            self.shard.mark_dirty(id);
            return true;
        }
        if connection.phase == Phase::Open {
            let paused = connection.paused;
            connection.backlog = backlog;
            if !paused {
                self.shard.mark_ready(id);
            }
        }
        false
    }

    /// The peer has ended its stream: tells the handler when it has seen all that came before.
    pub(crate) fn end_of_stream(&mut self, handler: &mut dyn Handler, id: ConnectionId) {
        let Some(connection) = self.shard.connections.get_mut(id) else {
            return;
        };
        connection.peer_ended = true;
        match connection.phase {
            Phase::Open
                if connection.backlog.is_empty() && !connection.paused && !connection.ended_reported =>
            {
                connection.ended_reported = true;
                handler.ended(self, id);
            }
            Phase::Closing => self.shard.mark_dirty(id),
            Phase::Open | Phase::Connecting | Phase::Gone => {}
        }
    }

    /// Puts a fresh connection to use.
    pub(crate) fn accept(
        &mut self,
        handler: &mut dyn Handler,
        listener: ListenerId,
        socket: TcpStream,
        peer: Option<SocketAddr>,
    ) {
        let Some((class, is_local)) = self
            .shard
            .listener(listener)
            .map(|listener| (listener.class, listener.path.is_some()))
        else {
            return;
        };
        let local = if is_local {
            sys::local_peer(socket.as_fd()).ok()
        } else {
            None
        };
        if peer.is_none() && local.is_none() {
            return;
        }
        if let Some(peer) = peer {
            unpace(SockRef::from(&socket), peer);
        }
        let Some(id) = self.shard.admit(socket, class) else {
            return;
        };
        let watched = match (&mut self.port, self.shard.connections.get_mut(id)) {
            (Port::Epoll(poller), Some(connection)) => poller.watch(connection, id),
            (Port::Ring(ring), Some(connection)) => {
                ring.register(connection, id);
                Ok(())
            }
            (_, None) => Ok(()),
        };
        if let Err(error) = watched {
            // The handler has not heard of it, so it goes without a word.
            self.shard.release(id);
            self.shard.stats.accepted -= 1;
            self.shard.accept_failed(listener, &error);
            return;
        }
        if let Some(peer) = local {
            handler.accepted_local(self, listener, id, peer);
        } else if let Some(peer) = peer {
            handler.accepted(self, listener, id, peer);
        }
    }

    /// Tells the handler what came up elsewhere. What its answers bring up waits for the next turn.
    pub(crate) fn tell(&mut self, handler: &mut dyn Handler) {
        for _ in 0..self.shard.events.len() {
            match self.shard.events.pop_front() {
                Some(Event::Connected(id, result)) => handler.connected(self, id, result),
                Some(Event::Drained(id)) if self.is_open(id) => handler.drained(self, id),
                Some(Event::Closed(id, reason)) => handler.closed(self, id, reason),
                Some(Event::DatagramFailed(id, remote, error)) if self.is_bound(id) => {
                    handler.datagram_failed(self, id, remote, error);
                }
                Some(Event::DatagramsDrained(id)) if self.is_bound(id) => handler.datagrams_drained(self, id),
                Some(Event::Drained(_) | Event::DatagramFailed(..) | Event::DatagramsDrained(_)) | None => {}
            }
        }
    }

    /// Whether the handler has not given the socket up.
    pub(crate) fn is_bound(&self, id: DatagramId) -> bool {
        let socket = self.shard.datagrams.get(id.0);
        socket.is_some_and(|socket| !socket.closing)
    }

    /// Has the backend receive what comes for a fresh datagram socket.
    pub(crate) fn watch_datagrams(&mut self, id: DatagramId) -> io::Result<()> {
        match (&self.port, self.shard.datagrams.get(id.0)) {
            (Port::Epoll(poller), Some(socket)) => poller.watch_datagrams(&socket.socket, id),
            // The ring begins to receive with the next flush.
            (Port::Ring(_), _) | (Port::Epoll(_), None) => Ok(()),
        }
    }

    /// Does what the handler asked for since the last wait.
    pub(crate) fn flush(&mut self) {
        match &mut self.port {
            Port::Epoll(poller) => poller.flush(&mut self.shard),
            Port::Ring(ring) => ring.flush(&mut self.shard),
        }
    }
}

/// Sets what every TCP socket of ours has.
fn prepare(socket: &Socket, keep_alive: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let Some(idle) = keep_alive else {
        return Ok(());
    };
    socket.set_keepalive(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(idle)
            .with_interval(idle.min(KEEP_ALIVE_INTERVAL)),
    )
}

/// Has a connection inside this machine send as fast as its peer reads. Congestion control that paces (BBR) would look for a
/// bottleneck where there is none, at the cost of a timer interrupt for each segment.
fn unpace(socket: SockRef<'_>, peer: SocketAddr) {
    if peer.ip().to_canonical().is_loopback() {
        // Every process may choose this one (tcp(7), TCP_CONGESTION); a kernel that says no leaves what there is.
        let _ = socket.set_tcp_congestion(b"reno");
    }
}

fn table_full() -> io::Error {
    io::Error::new(
        io::ErrorKind::QuotaExceeded,
        "the shard has all the connections it may have",
    )
}

/// Silence before the kernel asks whether the peer is still there. Protocols with their own pings notice sooner.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(60);

/// Time between such questions.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_in_the_machine_is_not_paced() {
        let algorithm = |peer: &str| {
            let peer: SocketAddr = peer.parse().expect("an address");
            let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP));
            let socket = socket.expect("a socket");
            let before = socket.tcp_congestion().expect("it has one");
            unpace(SockRef::from(&socket), peer);
            (before, socket.tcp_congestion().expect("it has one"))
        };
        for peer in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(algorithm(peer).1.starts_with(b"reno"), "{peer}");
        }
        for peer in ["192.0.2.1:1", "[2001:db8::1]:1"] {
            let (before, after) = algorithm(peer);
            assert_eq!(before, after, "{peer}");
        }
    }
}
