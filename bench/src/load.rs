//! The load generator: many MQTT clients on one thread, each with a window of QoS 1 publishes.
//!
//! *Closed loop*: every acknowledgement is answered by the next publish, so the peer decides the rate.
//! *Open loop*: publishes leave at a given rate whatever the peer does; one that finds every window full is
//! measured from the moment it should have left.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};

use crate::clock::{self, Window};
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::packet::{self, Inbox, Packet, TooLong, kind};
use crate::stamp;

/// What the generator does.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The MQTT listener.
    pub(crate) address: SocketAddr,
    /// Number of clients.
    pub(crate) clients: usize,
    /// Publishes of one client that wait for their PUBACK.
    pub(crate) window: u16,
    /// Size of a payload in bytes, at least that of a stamp.
    pub(crate) payload_bytes: usize,
    /// Publishes per second of all clients together; `None`: closed loop.
    pub(crate) rate: Option<u32>,
    /// What the clients' names begin with; loads that run together need different ones.
    pub(crate) name: &'static str,
    /// What each client publishes, below its own name.
    pub(crate) topic: &'static str,
    /// Whether payloads carry the time at which they left; the far end does not time those that do not.
    pub(crate) is_stamped: bool,
}

impl Settings {
    /// Returns the settings of a plain closed loop, or of an open one at `rate`, with stamps.
    pub(crate) const fn new(address: SocketAddr, clients: usize, rate: Option<u32>) -> Self {
        Self {
            address,
            clients,
            window: 1,
            payload_bytes: stamp::STAMP_BYTES,
            rate,
            name: "device",
            topic: "temperature",
            is_stamped: true,
        }
    }

    fn client_identifier(&self, index: usize) -> String {
        format!("{}-{index:05}", self.name)
    }
}

/// What the generator's thread shares with the one that measures.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    acked: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Returns how many publishes were acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Lets the generator publish no more, wait for what is outstanding, and return.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// What the generator saw.
#[derive(Debug)]
pub(crate) struct Report {
    /// From PUBLISH to PUBACK, within the window.
    pub(crate) latencies: Latencies,
    /// Publishes sent in the whole run.
    pub(crate) sent: u64,
    /// Publishes acknowledged in the whole run.
    pub(crate) acked: u64,
    /// What the generator's thread cost in the whole run.
    pub(crate) cpu: Duration,
}

/// Connected clients that have not published yet.
pub(crate) struct Load {
    settings: Settings,
    poll: Poll,
    clients: Vec<Client>,
    scratch: Vec<u8>,
    counts: Counts,
    pace: Pace,
}

impl Load {
    /// Connects all clients, some CONNECTs under way together: a gateway lets go of half-open connections if there are too many.
    pub(crate) fn connect(settings: Settings) -> Result<Self, Failure> {
        let poll = Poll::new().map_err(Failure::io("making an epoll set"))?;
        let mut clients = Vec::with_capacity(settings.clients);
        while clients.len() < settings.clients {
            let end = settings.clients.min(clients.len() + CONNECTS_AT_ONCE);
            let mut streams = Vec::with_capacity(CONNECTS_AT_ONCE);
            for index in clients.len()..end {
                streams.push(open(settings.address, &settings.client_identifier(index))?);
            }
            for mut stream in streams {
                let index = clients.len();
                await_connack(&mut stream, &settings.client_identifier(index))?;
                stream
                    .set_nonblocking(true)
                    .map_err(Failure::io("making a socket non-blocking"))?;
                let mut stream = TcpStream::from_std(stream);
                poll.registry()
                    .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)
                    .map_err(Failure::io("registering a socket"))?;
                clients.push(Client::new(stream, index, &settings));
            }
        }
        let pace = Pace::default();
        Ok(Self {
            settings,
            poll,
            clients,
            scratch: vec![0; SCRATCH_BYTES],
            counts: Counts::new(),
            pace,
        })
    }

    /// Publishes until told to stop, then waits for the outstanding acknowledgements, at most [`DRAIN_MAX`].
    ///
    /// # Errors
    ///
    /// When a client loses its connection or gets what is not MQTT.
    pub(crate) fn run(mut self, window: &Window, progress: &Progress) -> Result<Report, Failure> {
        let cpu_before = thread_cpu();
        let mut events = Events::with_capacity(EVENTS_MAX);
        let closed_loop = self.settings.rate.is_none();
        let turn_max = if closed_loop {
            CLOSED_LOOP_TURN
        } else {
            OPEN_LOOP_TURN
        };
        if closed_loop {
            for client in &mut self.clients {
                client.fill(&mut self.counts);
                client.flush()?;
            }
        }
        self.pace.start = clock::now();
        let mut drain_until = None;
        loop {
            let stopping = progress.stop.load(Ordering::Acquire);
            if stopping {
                let now = clock::now();
                let until = *drain_until.get_or_insert(now + DRAIN_MAX);
                if self.counts.acked == self.counts.sent || now >= until {
                    break;
                }
            }
            match self.poll.poll(&mut events, Some(turn_max)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.map_err(Failure::io("waiting for sockets"))?,
            }
            for event in &events {
                let Some(client) = self.clients.get_mut(event.token().0) else {
                    continue;
                };
                if event.is_readable() {
                    client.receive(&mut self.scratch, window, &mut self.counts)?;
                    if closed_loop && !stopping {
                        client.fill(&mut self.counts);
                    }
                }
                client.flush()?;
            }
            if let (Some(rate), false) = (self.settings.rate, stopping) {
                self.publish_due(rate)?;
            }
            progress.acked.store(self.counts.acked, Ordering::Release);
        }
        let cpu = thread_cpu().saturating_sub(cpu_before);
        let Counts {
            latencies,
            sent,
            acked,
        } = self.counts;
        Ok(Report {
            latencies,
            sent,
            acked,
            cpu,
        })
    }

    /// Sends what the open loop's schedule has due, one message to one client after the other.
    fn publish_due(&mut self, rate: u32) -> Result<(), Failure> {
        let now = clock::now();
        let elapsed = u128::from(now.saturating_sub(self.pace.start));
        let due = u64::try_from(elapsed * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX);
        while self.pace.sent < due {
            let Some(index) = self.next_free_client() else {
                self.pace.blocked_below = due;
                break;
            };
            // The generator's own tick is not the peer's fault; a full window is.
            let intended = self.pace.start + self.pace.sent * 1_000_000_000 / u64::from(rate);
            let time = if self.pace.sent < self.pace.blocked_below {
                intended
            } else {
                now
            };
            let Some(client) = self.clients.get_mut(index) else {
                break;
            };
            client.publish(time, &mut self.counts);
            client.flush()?;
            self.pace.sent += 1;
        }
        Ok(())
    }

    fn next_free_client(&mut self) -> Option<usize> {
        let count = self.clients.len();
        for _ in 0..count {
            let index = self.pace.cursor;
            self.pace.cursor = (index + 1) % count;
            if self
                .clients
                .get(index)
                .is_some_and(|client| !client.slots.free.is_empty())
            {
                return Some(index);
            }
        }
        None
    }
}

/// Where the open loop stands.
#[derive(Debug, Default)]
struct Pace {
    start: u64,
    sent: u64,
    cursor: usize,
    /// Messages below this number were due while every window was full.
    blocked_below: u64,
}

/// Sums of one run.
struct Counts {
    latencies: Latencies,
    sent: u64,
    acked: u64,
}

impl Counts {
    fn new() -> Self {
        Self {
            latencies: Latencies::new(),
            sent: 0,
            acked: 0,
        }
    }
}

/// One MQTT client.
struct Client {
    stream: TcpStream,
    name: String,
    is_stamped: bool,
    /// A whole PUBLISH; packet identifier and stamp are written into each copy.
    template: Vec<u8>,
    identifier_at: usize,
    inbox: Inbox,
    out: Vec<u8>,
    slots: Slots,
}

impl Client {
    fn new(stream: TcpStream, index: usize, settings: &Settings) -> Self {
        let mut template = Vec::new();
        let name = settings.client_identifier(index);
        let topic = format!("{name}/{}", settings.topic);
        let payload = stamp::payload(settings.payload_bytes);
        let identifier_at = packet::put_publish(&mut template, &topic, 0, &payload);
        let slots = Slots::new(settings.window);
        Self {
            stream,
            name,
            is_stamped: settings.is_stamped,
            template,
            identifier_at,
            inbox: Inbox::default(),
            out: Vec::new(),
            slots,
        }
    }

    /// Publishes into every free slot.
    fn fill(&mut self, counts: &mut Counts) {
        if !self.slots.free.is_empty() {
            let now = clock::now();
            while !self.slots.free.is_empty() {
                self.publish(now, counts);
            }
        }
    }

    /// Appends one PUBLISH that carries `time`; the caller has seen a free slot.
    fn publish(&mut self, time: u64, counts: &mut Counts) {
        let Some(identifier) = self.slots.take(time) else {
            return;
        };
        let start = self.out.len();
        self.out.extend_from_slice(&self.template);
        let identifier_at = start + self.identifier_at;
        if let Some(bytes) = self.out.get_mut(identifier_at..identifier_at + 2) {
            bytes.copy_from_slice(&identifier.to_be_bytes());
        }
        if let Some(payload) = self.out.get_mut(identifier_at + 2..)
            && self.is_stamped
        {
            stamp::write(payload, time);
        }
        counts.sent += 1;
    }

    /// Reads until the socket is empty.
    fn receive(&mut self, scratch: &mut [u8], window: &Window, counts: &mut Counts) -> Result<(), Failure> {
        loop {
            let read = match self.stream.read(scratch) {
                Ok(0) => return Err(self.broken("the peer closed the connection")),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(error.to_string())),
            };
            let now = clock::now();
            let slots = &mut self.slots;
            let bytes = scratch.get(..read).unwrap_or_default();
            let fed = self
                .inbox
                .feed(bytes, |packet| slots.handle(&packet, now, window, counts));
            fed.map_err(|Unexpected(problem)| self.broken(problem))?;
            if read < scratch.len() {
                // Edge-triggered epoll reports what comes later.
                return Ok(());
            }
        }
    }

    /// Writes what is waiting, as far as the socket takes it.
    fn flush(&mut self) -> Result<(), Failure> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) if written == self.out.len() => self.out.clear(),
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error.to_string())),
            }
        }
        Ok(())
    }

    fn broken(&self, problem: impl Into<String>) -> Failure {
        Failure::peer(format!("client {}", self.name), problem)
    }
}

/// The window of one client: slot `i` is packet identifier `i + 1`.
struct Slots {
    /// When each was published; 0 while it is free.
    sent_at: Vec<u64>,
    free: Vec<u16>,
}

impl Slots {
    fn new(window: u16) -> Self {
        Self {
            sent_at: vec![0; usize::from(window)],
            free: (0..window).rev().collect(),
        }
    }

    /// Takes a free slot and returns its packet identifier.
    fn take(&mut self, time: u64) -> Option<u16> {
        let slot = self.free.pop()?;
        *self.sent_at.get_mut(usize::from(slot))? = time;
        Some(slot + 1)
    }

    fn handle(
        &mut self,
        packet: &Packet<'_>,
        now: u64,
        window: &Window,
        counts: &mut Counts,
    ) -> Result<(), Unexpected> {
        if packet.kind() != kind::PUBACK {
            return Err(Unexpected("the peer sent a packet that is no PUBACK"));
        }
        let slot = packet
            .packet_identifier()
            .and_then(|identifier| identifier.checked_sub(1));
        let sent_at = slot.and_then(|slot| self.sent_at.get_mut(usize::from(slot)));
        let (Some(slot), Some(sent_at)) = (slot, sent_at) else {
            return Err(Unexpected(
                "the peer acknowledged a packet identifier that is not in use",
            ));
        };
        if *sent_at == 0 {
            return Err(Unexpected("the peer acknowledged a publish twice"));
        }
        if window.contains(*sent_at) {
            counts.latencies.record(now.saturating_sub(*sent_at));
        }
        *sent_at = 0;
        counts.acked += 1;
        self.free.push(slot);
        Ok(())
    }
}

/// What a peer should not have sent.
struct Unexpected(&'static str);

impl From<TooLong> for Unexpected {
    fn from(_: TooLong) -> Self {
        Self("the peer sent a packet without an end")
    }
}

/// Connects and sends CONNECT.
pub(crate) fn open(address: SocketAddr, client_identifier: &str) -> Result<std::net::TcpStream, Failure> {
    let connect = || -> io::Result<std::net::TcpStream> {
        let mut stream = std::net::TcpStream::connect_timeout(&address, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CONNECT_MAX))?;
        let mut out = Vec::new();
        packet::put_connect(&mut out, client_identifier, KEEP_ALIVE_SECS);
        stream.write_all(&out)?;
        Ok(stream)
    };
    connect().map_err(Failure::io(format!(
        "connecting {client_identifier} to {address}"
    )))
}

fn await_connack(stream: &mut std::net::TcpStream, who: &str) -> Result<(), Failure> {
    let mut answer = [0; 4];
    stream
        .read_exact(&mut answer)
        .map_err(Failure::io(format!("waiting for the CONNACK of {who}")))?;
    match answer {
        [kind::CONNACK, 2, _, 0] => Ok(()),
        [kind::CONNACK, 2, _, code] => Err(Failure::peer(who, format!("was refused with code {code}"))),
        other => Err(Failure::peer(
            who,
            format!("was answered {other:02x?} instead of CONNACK"),
        )),
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// CONNECTs under way together.
const CONNECTS_AT_ONCE: usize = 50;
/// How long a connection and its CONNACK may take.
const CONNECT_MAX: Duration = Duration::from_secs(60);
/// Longer than any run, so that no PINGREQ disturbs the figures.
const KEEP_ALIVE_SECS: u16 = 3600;
/// How long the last acknowledgements may take, in nanoseconds.
const DRAIN_MAX: u64 = 60_000_000_000;
/// How late the closed loop may notice that it shall stop.
const CLOSED_LOOP_TURN: Duration = Duration::from_millis(20);
/// The tick of the open loop's schedule.
const OPEN_LOOP_TURN: Duration = Duration::from_millis(1);
const EVENTS_MAX: usize = 1024;
const SCRATCH_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
