//! Measures the two backends against each other: an echo server on one, then the other, round by round.
//!
//! ```text
//! cargo run --release -p fieldgate-io --example echo -- [CONNECTIONS [WINDOW [SIZE [ROUNDS [COALESCE_MICROS [RATE]]]]]]
//! ```
//! `WINDOW` messages of `SIZE` bytes are under way on each connection; with `RATE` that many messages a second are sent
//! instead, whatever comes back. Processor time is that of the server's thread, kernel included, bound to the last
//! processor. The generator always uses epoll. Believe the ratios, not the absolute values.
#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fieldgate_io::{
    Backend, BufferClass, CloseReason, ConnectOptions, ConnectionId, Driver, Handler, Io, ListenOptions,
    ListenerId, Settings, Stats, Turn, Waker, clock, process, thread,
};

/// What is measured.
#[derive(Clone, Copy)]
struct Case {
    connections: usize,
    window: usize,
    size: usize,
    rounds: usize,
    coalesce: Duration,
    /// Messages a second; 0 for as many as come back.
    rate: u64,
}

/// What came out of one run.
#[derive(Clone, Copy, Debug)]
struct Figures {
    messages_per_sec: f64,
    cpu_micros: f64,
    system_calls: f64,
    turns: f64,
    receives: f64,
    sends: f64,
}

struct Echo {
    stop: Arc<AtomicBool>,
    coalesce: Duration,
}

impl Handler for Echo {
    fn accepted(&mut self, _: &mut Io, _: ListenerId, _: ConnectionId, _: SocketAddr) {}
    fn connected(&mut self, _: &mut Io, _: ConnectionId, _: io::Result<()>) {}
    fn received(&mut self, io: &mut Io, connection: ConnectionId, bytes: &mut [u8]) {
        if let Some(buffer) = io.send_buffer(connection) {
            buffer.extend_from_slice(bytes);
        }
    }
    fn drained(&mut self, _: &mut Io, _: ConnectionId) {}
    fn closed(&mut self, _: &mut Io, _: ConnectionId, _: CloseReason) {}
    fn written(&mut self, _: &mut Io, _: u64, _: Vec<u8>, _: io::Result<()>) {}
    fn woken(&mut self, io: &mut Io) {
        if self.stop.load(Ordering::Acquire) {
            io.stop();
        }
    }
    fn turn_ended(&mut self, _: &mut Io) -> Turn {
        Turn {
            deadline_nanos: None,
            coalesce: self.coalesce,
        }
    }
}

/// Keeps a window of messages under way on each connection, or sends at a rate.
struct Load {
    case: Case,
    message: Vec<u8>,
    connections: Vec<ConnectionId>,
    connected: usize,
    echoed_bytes: usize,
    /// Measured from here.
    begin: u64,
    begin_bytes: usize,
    end: u64,
    sent: u64,
}

impl Load {
    fn messages(&self) -> usize {
        (self.echoed_bytes - self.begin_bytes) / self.case.size
    }

    fn send(&self, io: &mut Io, connection: ConnectionId) {
        if let Some(buffer) = io.send_buffer(connection) {
            buffer.extend_from_slice(&self.message);
        }
    }
}

impl Handler for Load {
    fn accepted(&mut self, _: &mut Io, _: ListenerId, _: ConnectionId, _: SocketAddr) {}
    fn connected(&mut self, io: &mut Io, connection: ConnectionId, result: io::Result<()>) {
        result.expect("the server listens");
        self.connected += 1;
        if self.case.rate == 0 {
            for _ in 0..self.case.window {
                self.send(io, connection);
            }
        }
    }
    fn received(&mut self, io: &mut Io, connection: ConnectionId, bytes: &mut [u8]) {
        self.echoed_bytes += bytes.len();
        if self.case.rate == 0
            && let Some(buffer) = io.send_buffer(connection)
        {
            buffer.extend_from_slice(bytes);
        }
    }
    fn drained(&mut self, _: &mut Io, _: ConnectionId) {}
    fn closed(&mut self, _: &mut Io, _: ConnectionId, reason: CloseReason) {
        panic!("the server does not close: {reason:?}");
    }
    fn written(&mut self, _: &mut Io, _: u64, _: Vec<u8>, _: io::Result<()>) {}
    fn woken(&mut self, _: &mut Io) {}
    fn turn_ended(&mut self, io: &mut Io) -> Turn {
        if self.case.rate > 0 && self.begin > 0 && io.now() < self.end {
            let due = (io.now() - self.begin).saturating_mul(self.case.rate) / 1_000_000_000;
            while self.sent < due {
                let next = usize::try_from(self.sent).unwrap_or(0) % self.connections.len();
                self.send(io, self.connections[next]);
                self.sent += 1;
            }
            // Often enough that messages come one by one.
            return Turn {
                deadline_nanos: Some(io.now() + 1_000_000_000 / self.case.rate),
                ..Turn::default()
            };
        }
        let soon = io.now() + 10_000_000;
        Turn {
            deadline_nanos: Some(if self.end > 0 { self.end } else { soon }),
            ..Turn::default()
        }
    }
}

fn main() {
    let argument = |index, default| {
        std::env::args()
            .nth(index)
            .map_or(default, |text| text.parse().expect("arguments are numbers"))
    };
    let case = Case {
        connections: argument(1, 1000),
        window: argument(2, 1),
        size: argument(3, 128),
        rounds: argument(4, 5),
        coalesce: Duration::from_micros(argument(5, 0) as u64),
        rate: argument(6, 0) as u64,
    };
    process::raise_descriptor_limit().expect("it may be raised");
    let mut ratios = (Vec::new(), Vec::new());
    for round in 0..case.rounds {
        // Whoever is first in a round finds a colder machine: take turns.
        let order = if round % 2 == 0 {
            [Backend::Epoll, Backend::Uring]
        } else {
            [Backend::Uring, Backend::Epoll]
        };
        let figures = order.map(|backend| {
            let figures = run(backend, case);
            println!(
                "{backend}: {:9.0} messages/s  {:6.2} µs CPU  {:5.3} system calls  {:6.4} turns  {:5.3} receives  {:5.3} sends per message",
                figures.messages_per_sec, figures.cpu_micros, figures.system_calls, figures.turns, figures.receives, figures.sends
            );
            figures
        });
        let (epoll, uring) = if round % 2 == 0 {
            (figures[0], figures[1])
        } else {
            (figures[1], figures[0])
        };
        ratios.0.push(uring.cpu_micros / epoll.cpu_micros);
        ratios.1.push(uring.messages_per_sec / epoll.messages_per_sec);
    }
    println!(
        "uring / epoll, median: CPU {:.2}, throughput {:.2}",
        median(&mut ratios.0),
        median(&mut ratios.1)
    );
    println!(
        "peak resident: {} KiB",
        process::peak_resident_bytes().unwrap_or(0) / 1024
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn run(backend: Backend, case: Case) -> Figures {
    let waker = Waker::new().expect("a descriptor");
    let stop = Arc::new(AtomicBool::new(false));
    let (addr_sender, addr) = std::sync::mpsc::channel();
    let (waker_of_server, stop_of_server) = (waker.clone(), Arc::clone(&stop));
    let (snapshot_sender, snapshots) = std::sync::mpsc::channel();
    let server = thread::spawn("echo-server", thread::processors().last().copied(), move || {
        let mut driver =
            Driver::new(backend, Settings::default(), &waker_of_server).expect("the backend works");
        let options = ListenOptions {
            class: if case.size > 4096 {
                BufferClass::Link
            } else {
                BufferClass::Device
            },
            backlog: 4096,
            ..ListenOptions::default()
        };
        let (_, addr) = driver
            .io()
            .listen(([127, 0, 0, 1], 0).into(), &options)
            .expect("loopback");
        addr_sender.send(addr).expect("the main thread waits for it");
        let mut echo = Echo {
            stop: stop_of_server,
            coalesce: case.coalesce,
        };
        // Woken twice: at the beginning and at the end of what is measured.
        for _ in 0..2 {
            let mut snapshot = Snapshot {
                echo: &mut echo,
                woken: false,
            };
            while !snapshot.woken {
                driver.turn(&mut snapshot).expect("it waits");
            }
            snapshot_sender
                .send((driver.io().stats(), clock::thread_cpu()))
                .expect("the main thread waits for it");
        }
        driver.run(&mut echo).expect("it waits");
    })
    .expect("a thread");
    let addr: SocketAddr = addr.recv().expect("the server listens");
    let mut load = Load {
        case,
        message: vec![b'x'; case.size],
        connections: Vec::new(),
        connected: 0,
        echoed_bytes: 0,
        begin: 0,
        begin_bytes: 0,
        end: 0,
        sent: 0,
    };
    let own = Waker::new().expect("a descriptor");
    let mut driver = Driver::new(Backend::Epoll, Settings::default(), &own).expect("epoll works");
    for _ in 0..case.connections {
        load.connections.push(
            driver
                .io()
                .connect(addr, &ConnectOptions::default())
                .expect("a socket"),
        );
    }
    while load.connected < case.connections {
        driver.turn(&mut load).expect("it waits");
    }
    let warm = clock::monotonic() + 200_000_000;
    load.end = warm;
    while clock::monotonic() < warm {
        driver.turn(&mut load).expect("it waits");
    }
    waker.wake();
    let before: (Stats, u64) = snapshots.recv().expect("the server is woken");
    load.begin = clock::monotonic();
    load.begin_bytes = load.echoed_bytes;
    load.end = load.begin + 1_000_000_000;
    while clock::monotonic() < load.end {
        driver.turn(&mut load).expect("it waits");
    }
    let elapsed = clock::monotonic() - load.begin;
    let messages = load.messages() as f64;
    waker.wake();
    let after: (Stats, u64) = snapshots.recv().expect("the server is woken");
    stop.store(true, Ordering::Release);
    waker.wake();
    server.join().expect("the server ends");
    Figures {
        messages_per_sec: messages / (elapsed as f64 / 1e9),
        cpu_micros: (after.1 - before.1) as f64 / 1000.0 / messages,
        system_calls: (after.0.system_calls - before.0.system_calls) as f64 / messages,
        turns: (after.0.turns - before.0.turns) as f64 / messages,
        receives: (after.0.receives - before.0.receives) as f64 / messages,
        sends: (after.0.sends - before.0.sends) as f64 / messages,
    }
}

/// Notes that the server was woken.
struct Snapshot<'a> {
    echo: &'a mut Echo,
    woken: bool,
}

impl Handler for Snapshot<'_> {
    fn accepted(&mut self, _: &mut Io, _: ListenerId, _: ConnectionId, _: SocketAddr) {}
    fn connected(&mut self, _: &mut Io, _: ConnectionId, _: io::Result<()>) {}
    fn received(&mut self, io: &mut Io, connection: ConnectionId, bytes: &mut [u8]) {
        self.echo.received(io, connection, bytes);
    }
    fn drained(&mut self, _: &mut Io, _: ConnectionId) {}
    fn closed(&mut self, _: &mut Io, _: ConnectionId, _: CloseReason) {}
    fn written(&mut self, _: &mut Io, _: u64, _: Vec<u8>, _: io::Result<()>) {}
    fn woken(&mut self, _: &mut Io) {
        self.woken = true;
    }
    fn turn_ended(&mut self, io: &mut Io) -> Turn {
        self.echo.turn_ended(io)
    }
}
