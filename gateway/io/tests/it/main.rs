//! The driver over real sockets and files, the same for both backends.
//!
//! The io_uring half fails where there is no io_uring, unless `FIELDGATE_IO=epoll` says that this is known.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks at the few events it is about"
)]

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use fieldgate_io::{
    Backend, BackendChoice, CloseReason, ConnectionId, DatagramId, DatagramPath, Driver, Handler, Io,
    ListenOptions, ListenerId, LocalPeer, Settings, Turn, Waker, clock,
};

mod datagrams;
mod lifecycle;
mod limits;
mod local;
mod streams;
mod traffic;
mod windows;
mod work;

/// Declares tests that take a backend, once for each.
macro_rules! on_both_backends {
    ($($name:ident),* $(,)?) => {
        mod epoll {
            $(#[test] fn $name() { super::$name(fieldgate_io::Backend::Epoll); })*
        }
        mod uring {
            $(#[test] fn $name() {
                if crate::uring_wanted() { super::$name(fieldgate_io::Backend::Uring); }
            })*
        }
    };
}
pub(crate) use on_both_backends;

/// Whether io_uring is to be tested, which must work then.
pub(crate) fn uring_wanted() -> bool {
    if std::env::var("FIELDGATE_IO").is_ok_and(|choice| choice == "epoll") {
        return false;
    }
    let selected =
        Backend::select(BackendChoice::Uring).expect("io_uring works here, or FIELDGATE_IO=epoll is set");
    assert_eq!(selected.backend, Backend::Uring);
    true
}

/// What a handler was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Accepted(ListenerId, ConnectionId),
    Connected(ConnectionId, Result<(), ErrorKind>),
    Received(ConnectionId, Vec<u8>),
    Ended(ConnectionId),
    Drained(ConnectionId),
    Closed(ConnectionId, CloseReason),
    Written(u64, Vec<u8>, Result<(), ErrorKind>),
    Woken,
    Datagram(DatagramId, DatagramPath, Vec<u8>),
    DatagramsDrained(DatagramId),
    DatagramFailed(DatagramId, Option<SocketAddr>, ErrorKind),
    TurnEnded,
}

/// A handler that passes everything to a closure and remembers it.
pub(crate) struct Script<F> {
    react: F,
    pub(crate) seen: Vec<Seen>,
    /// How long a turn may wait; short, so that a test that fails ends.
    patience: Duration,
    pub(crate) coalesce: Duration,
    pub(crate) turns: usize,
}

impl<F: FnMut(&mut Io, &Seen)> Script<F> {
    pub(crate) const fn new(react: F) -> Self {
        Self {
            react,
            seen: Vec::new(),
            patience: Duration::from_millis(20),
            coalesce: Duration::ZERO,
            turns: 0,
        }
    }

    pub(crate) const fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn see(&mut self, io: &mut Io, seen: Seen) {
        (self.react)(io, &seen);
        if seen != Seen::TurnEnded {
            self.seen.push(seen);
        }
    }

    /// All bytes received on a connection.
    pub(crate) fn bytes(&self, connection: ConnectionId) -> Vec<u8> {
        let bytes = self.seen.iter().filter_map(|seen| match seen {
            Seen::Received(id, bytes) if *id == connection => Some(bytes.as_slice()),
            _ => None,
        });
        bytes.collect::<Vec<_>>().concat()
    }

    pub(crate) fn count(&self, of: impl Fn(&Seen) -> bool) -> usize {
        self.seen.iter().filter(|seen| of(seen)).count()
    }

    pub(crate) fn arrivals(&self) -> Vec<ConnectionId> {
        let ids = self.seen.iter().filter_map(|seen| match seen {
            Seen::Accepted(_, id) => Some(*id),
            _ => None,
        });
        ids.collect()
    }

    pub(crate) fn end_of(&self, connection: ConnectionId) -> Option<CloseReason> {
        self.seen.iter().find_map(|seen| match seen {
            Seen::Closed(id, reason) if *id == connection => Some(*reason),
            _ => None,
        })
    }

    /// Runs turns until `done`, and fails if nothing is seen for absurdly long.
    pub(crate) fn run(&mut self, driver: &mut Driver, done: impl Fn(&Self, &mut Io) -> bool) {
        let mut progress = Progress::default();
        while !done(self, driver.io()) {
            driver.turn(self).expect("the kernel lets us wait");
            let stats = driver.io().stats();
            let last = self.seen.len().saturating_sub(20);
            assert!(
                progress.goes_on(self.seen.len()),
                "stuck after {:?}\n{stats:?}",
                &self.seen[last..]
            );
        }
    }
}

/// Tells a test that is stuck from one that is slow.
pub(crate) struct Progress {
    count: usize,
    /// Monotonic nanoseconds.
    give_up: u64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            count: 0,
            give_up: clock::monotonic() + Self::STUCK_NANOS,
        }
    }
}

impl Progress {
    /// Without anything new for so long, nothing comes any more.
    const STUCK_NANOS: u64 = 60_000_000_000;

    /// Takes how much has happened so far; false if that has been the same for a minute.
    pub(crate) fn goes_on(&mut self, count: usize) -> bool {
        let now = clock::monotonic();
        if count != self.count {
            self.count = count;
            self.give_up = now + Self::STUCK_NANOS;
        }
        now < self.give_up
    }
}

impl<F: FnMut(&mut Io, &Seen)> Handler for Script<F> {
    fn accepted(&mut self, io: &mut Io, listener: ListenerId, connection: ConnectionId, peer: SocketAddr) {
        assert!(peer.ip().is_loopback() && peer.port() != 0);
        self.see(io, Seen::Accepted(listener, connection));
    }

    fn accepted_local(
        &mut self,
        io: &mut Io,
        listener: ListenerId,
        connection: ConnectionId,
        peer: LocalPeer,
    ) {
        assert_eq!(peer.process, std::process::id());
        self.see(io, Seen::Accepted(listener, connection));
    }

    fn connected(&mut self, io: &mut Io, connection: ConnectionId, result: io::Result<()>) {
        self.see(
            io,
            Seen::Connected(connection, result.map_err(|error| error.kind())),
        );
    }

    fn received(&mut self, io: &mut Io, connection: ConnectionId, bytes: &mut [u8]) {
        assert!(!bytes.is_empty());
        self.see(io, Seen::Received(connection, bytes.to_vec()));
        // The slice is the handler's to spoil.
        bytes.fill(0xee);
    }

    fn ended(&mut self, io: &mut Io, connection: ConnectionId) {
        self.see(io, Seen::Ended(connection));
    }

    fn drained(&mut self, io: &mut Io, connection: ConnectionId) {
        self.see(io, Seen::Drained(connection));
    }

    fn closed(&mut self, io: &mut Io, connection: ConnectionId, reason: CloseReason) {
        assert!(
            io.send_buffer(connection).is_none(),
            "nothing can be sent after the end"
        );
        self.see(io, Seen::Closed(connection, reason));
    }

    fn datagram(&mut self, io: &mut Io, socket: DatagramId, path: DatagramPath, bytes: &mut [u8]) {
        self.see(io, Seen::Datagram(socket, path, bytes.to_vec()));
        bytes.fill(0xee);
    }

    fn datagrams_drained(&mut self, io: &mut Io, socket: DatagramId) {
        self.see(io, Seen::DatagramsDrained(socket));
    }

    fn datagram_failed(
        &mut self,
        io: &mut Io,
        socket: DatagramId,
        remote: Option<SocketAddr>,
        error: io::Error,
    ) {
        self.see(io, Seen::DatagramFailed(socket, remote, error.kind()));
    }

    fn written(&mut self, io: &mut Io, token: u64, buffer: Vec<u8>, result: io::Result<()>) {
        self.see(
            io,
            Seen::Written(token, buffer, result.map_err(|error| error.kind())),
        );
    }

    fn woken(&mut self, io: &mut Io) {
        self.see(io, Seen::Woken);
    }

    fn turn_ended(&mut self, io: &mut Io) -> Turn {
        self.turns += 1;
        self.see(io, Seen::TurnEnded);
        let patience = u64::try_from(self.patience.as_nanos()).expect("short");
        Turn {
            deadline_nanos: Some(io.now() + patience),
            coalesce: self.coalesce,
        }
    }
}

/// The default settings, but a peer that is slow to take what is left when its connection closes may be so.
pub(crate) fn settings() -> Settings {
    Settings {
        close_timeout: Duration::from_secs(600),
        ..Settings::default()
    }
}

pub(crate) fn driver(backend: Backend, settings: Settings) -> Driver {
    Driver::new(backend, settings, &Waker::new().expect("a descriptor")).expect("the backend works")
}

/// A driver that listens, and where.
pub(crate) fn listening(backend: Backend, settings: Settings) -> (Driver, ListenerId, SocketAddr) {
    let mut driver = driver(backend, settings);
    let (listener, addr) = listen_at(&mut driver, Ipv4Addr::LOCALHOST);
    (driver, listener, addr)
}

/// Has a driver listen at an address of the loopback network.
pub(crate) fn listen_at(driver: &mut Driver, host: Ipv4Addr) -> (ListenerId, SocketAddr) {
    let (listener, addr) = driver
        .io()
        .listen(SocketAddr::from((host, 0)), &ListenOptions::default())
        .expect("loopback");
    assert_ne!(addr.port(), 0);
    (listener, addr)
}

/// An address of the loopback network that no other test uses, this one for the other backend included: a port there that was
/// given back stays free.
pub(crate) fn own_host(backend: Backend, test: u8) -> Ipv4Addr {
    let kind = 2 * test + u8::from(backend == Backend::Uring);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 + kind, high, low)
}

/// A client, and the server's name for its connection.
pub(crate) fn client<F: FnMut(&mut Io, &Seen)>(
    driver: &mut Driver,
    script: &mut Script<F>,
    addr: SocketAddr,
) -> (TcpStream, ConnectionId) {
    let before = script.arrivals().len();
    let stream = TcpStream::connect(addr).expect("the kernel queues it");
    script.run(driver, |script, _| script.arrivals().len() > before);
    let id = *script.arrivals().last().expect("it was accepted");
    (stream, id)
}

/// Appends to a connection that must take it.
pub(crate) fn send(io: &mut Io, connection: ConnectionId, bytes: &[u8]) {
    io.send_buffer(connection)
        .expect("it is open")
        .extend_from_slice(bytes);
}

/// Bytes that tell where they belong: different streams and positions rarely agree.
pub(crate) fn pattern(stream: u64, from: usize, length: usize) -> Vec<u8> {
    (from as u64..(from + length) as u64)
        .map(|position| {
            let mixed = (position + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                ^ stream.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed.to_be_bytes()[0] ^ mixed.to_be_bytes()[3]
        })
        .collect()
}
