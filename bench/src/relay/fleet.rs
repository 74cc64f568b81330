//! Members of a relay, all in one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use fieldgate_proto::channel::LocalIdentity;
use fieldgate_proto::identity::Identifier;
use fieldgate_proto::node::{
    ConnectionKey, Event, NeighbourSettings, NoSink, Node, NodeSettings, Output, RegistrationSettings, Wire,
};
use fieldgate_proto::time::{ClockQuality, Instant, Now, WallTime};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::channel::identity::{System, local_at};
use crate::clock;
use crate::failure::Failure;

/// Members of one relay, and what they wait for.
pub(super) struct Fleet {
    relay: SocketAddr,
    poll: Poll,
    members: Vec<Member>,
    /// Members that have begun to connect.
    started: usize,
    /// Members that the relay has confirmed.
    registered: usize,
    entropy: System,
    scratch: Vec<u8>,
}

struct Member {
    identifier: Identifier,
    node: Node,
    socket: Option<Socket>,
    /// Counts its connections.
    connection: u64,
    is_registered: bool,
}

struct Socket {
    stream: TcpStream,
    is_connected: bool,
    out: Vec<u8>,
}

/// The send buffer of a member's only connection.
struct Out<'a> {
    key: ConnectionKey,
    socket: Option<&'a mut Socket>,
}

impl Wire for Out<'_> {
    fn buffer(&mut self, connection: ConnectionKey) -> Option<&mut Vec<u8>> {
        let socket = self.socket.as_mut().filter(|_| connection == self.key)?;
        Some(&mut socket.out)
    }

    fn queued_bytes(&self, connection: ConnectionKey) -> usize {
        let socket = self.socket.as_ref().filter(|_| connection == self.key);
        socket.map_or(0, |socket| socket.out.len())
    }
}

/// The name that a member registers.
pub(super) fn name(index: usize) -> String {
    format!("member-{index}")
}

impl Fleet {
    /// Makes keys and nodes that will dial `relay`.
    pub(super) fn new(count: usize, relay: SocketAddr, identifier: Identifier) -> Result<Self, Failure> {
        let mut entropy = System::new();
        let mut members = Vec::with_capacity(count);
        let now_secs = now().wall.unix_millis / 1000;
        for index in 0..count {
            let local = local_at(&mut entropy, now_secs.saturating_sub(CLOCK_SLACK_SECS))?;
            members.push(Member::new(index, local, identifier, &mut entropy));
        }
        Ok(Self {
            relay,
            poll: Poll::new().map_err(Failure::io("making an epoll set"))?,
            members,
            started: 0,
            registered: 0,
            entropy,
            scratch: vec![0; 64 << 10],
        })
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn identifiers(&self) -> Vec<Identifier> {
        self.members.iter().map(|member| member.identifier).collect()
    }

    /// Counts from none again.
    pub(super) fn forget_registered(&mut self) {
        self.registered = 0;
        for member in &mut self.members {
            member.is_registered = false;
        }
    }

    /// Lets members do what they have to until `wanted` of them are registered, with at most `at_once` that begin and are not.
    pub(super) fn run_until(&mut self, at_once: usize, wanted: usize) -> Result<(), Failure> {
        let mut events = Events::with_capacity(1024);
        let mut last = (self.registered, clock::now());
        let mut swept = 0;
        while self.registered < wanted {
            let time = clock::now();
            if self.registered > last.0 {
                last = (self.registered, time);
            } else if time - last.1 > SILENCE_MAX {
                let problem = format!(
                    "has confirmed {} of {wanted} members, and no more",
                    self.registered
                );
                return Err(Failure::peer("the relay", problem));
            }
            while self.started < self.members.len()
                && self.started - self.registered.min(self.started) < at_once
            {
                let index = self.started;
                self.started += 1;
                self.time_out(index)?;
            }
            match self.poll.poll(&mut events, Some(SWEEP)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::io("waiting for sockets")(error)),
            }
            for event in &events {
                self.handle_ready(event.token().0)?;
            }
            if time - swept > SWEEP_NANOS {
                swept = time;
                self.sweep()?;
            }
        }
        Ok(())
    }

    /// Lets nodes do what is due.
    fn sweep(&mut self) -> Result<(), Failure> {
        let instant = now().instant;
        for index in 0..self.started {
            let due = self
                .members
                .get(index)
                .and_then(|member| member.node.poll_timeout());
            if due.is_some_and(|due| instant >= due) {
                self.time_out(index)?;
            }
        }
        Ok(())
    }

    fn time_out(&mut self, index: usize) -> Result<(), Failure> {
        if let Some(member) = self.members.get_mut(index) {
            let (node, mut out) = member.parts();
            node.handle_timeout(now(), &mut self.entropy, &mut out);
        }
        self.settle(index)
    }

    /// A socket has become readable or writable, or is broken.
    fn handle_ready(&mut self, index: usize) -> Result<(), Failure> {
        let Some(member) = self.members.get_mut(index) else {
            return Ok(());
        };
        let Some(socket) = &mut member.socket else {
            return Ok(());
        };
        if !socket.is_connected {
            match socket.stream.take_error() {
                Ok(None) if socket.stream.peer_addr().is_ok() => {
                    socket.is_connected = true;
                    let key = member.key();
                    let (node, mut out) = member.parts();
                    node.handle_connected(now(), key, Some(0), &mut out);
                }
                Ok(None) => return Ok(()),
                Ok(Some(_)) | Err(_) => {
                    member.socket = None;
                    member.node.handle_dial_failed(now(), &mut self.entropy, 0);
                    return self.settle(index);
                }
            }
        }
        self.receive(index);
        self.settle(index)
    }

    fn receive(&mut self, index: usize) {
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        while let Some(socket) = &mut member.socket {
            match socket.stream.read(&mut self.scratch) {
                Ok(count @ 1..) => {
                    let key = member.key();
                    let (node, mut out) = member.parts();
                    let bytes = self.scratch.get_mut(..count).unwrap_or_default();
                    node.handle_bytes(now(), &mut self.entropy, key, bytes, &mut out, &mut NoSink);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    let key = member.key();
                    member.socket = None;
                    self.registered -= usize::from(std::mem::take(&mut member.is_registered));
                    let (node, mut out) = member.parts();
                    node.handle_disconnected(now(), &mut self.entropy, key, &mut out);
                }
            }
        }
    }

    /// Does what a node wants, and sends what it has to say.
    fn settle(&mut self, index: usize) -> Result<(), Failure> {
        let Some(member) = self.members.get_mut(index) else {
            return Ok(());
        };
        {
            let (node, mut out) = member.parts();
            node.flush(now(), &mut self.entropy, &mut out, None);
        }
        while let Some(output) = member.node.poll_output() {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "a member that only registers wants nothing else"
            )]
            match output {
                Output::Dial { .. } => member.dial(self.relay, self.poll.registry(), index)?,
                Output::CloseConnection { .. } => member.socket = None,
                Output::Event(Event::Registered { .. }) => {
                    self.registered += usize::from(!std::mem::replace(&mut member.is_registered, true));
                }
                Output::Event(Event::RegistrationRefused { reason, .. }) => {
                    return Err(Failure::peer(
                        "the relay",
                        format!("refused {}: {reason:?}", name(index)),
                    ));
                }
                _ => {}
            }
        }
        member.send();
        Ok(())
    }
}

impl Member {
    fn new(index: usize, local: LocalIdentity, relay: Identifier, entropy: &mut System) -> Self {
        let mut settings = NodeSettings::new("fieldgate-bench");
        settings.neighbours = vec![NeighbourSettings {
            relay: Some(relay),
            pq: fieldgate_proto::channel::PqPolicy::default(),
            registrations: vec![RegistrationSettings { name: name(index) }],
            forwarding: None,
        }];
        Self {
            identifier: local.identifier(),
            node: Node::new(now(), entropy, settings, local),
            socket: None,
            connection: 0,
            is_registered: false,
        }
    }

    const fn key(&self) -> ConnectionKey {
        ConnectionKey(self.connection)
    }

    fn parts(&mut self) -> (&mut Node, Out<'_>) {
        let key = self.key();
        let socket = self.socket.as_mut();
        (&mut self.node, Out { key, socket })
    }

    fn dial(&mut self, relay: SocketAddr, registry: &mio::Registry, index: usize) -> Result<(), Failure> {
        let mut stream = TcpStream::connect(relay).map_err(Failure::io("connecting to the relay"))?;
        registry
            .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)
            .map_err(Failure::io("registering a socket"))?;
        self.connection += 1;
        self.socket = Some(Socket {
            stream,
            is_connected: false,
            out: Vec::new(),
        });
        Ok(())
    }

    /// Writes what the socket takes; it says when it takes more.
    fn send(&mut self) {
        let Some(socket) = self.socket.as_mut().filter(|socket| socket.is_connected) else {
            return;
        };
        while !socket.out.is_empty() {
            match socket.stream.write(&socket.out) {
                Ok(count) => drop(socket.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A broken one is found out by reading.
                Err(_) => return,
            }
        }
    }
}

/// Returns what the clocks of this machine say.
#[expect(
    clippy::disallowed_methods,
    reason = "the relay judges attestations by the time of day"
)]
fn now() -> Now {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    Now {
        instant: Instant::from_nanos(clock::now()),
        wall: WallTime {
            unix_millis: u64::try_from(millis).unwrap_or(u64::MAX),
            quality: ClockQuality::Synchronised,
        },
    }
}

/// Attestations begin so long ago: the relay may be a little behind.
const CLOCK_SLACK_SECS: u64 = 60;
/// How often nodes are asked whether something is due.
const SWEEP: Duration = Duration::from_millis(20);
const SWEEP_NANOS: u64 = 20_000_000;
/// Without any news for so long it is over, in nanoseconds.
const SILENCE_MAX: u64 = 60_000_000_000;
