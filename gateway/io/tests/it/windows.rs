//! What comes while a shard waits for company, or just after: none of it may be left lying.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use fieldgate_io::{Backend, ConnectionId, Driver, Io, Waker};

use super::{Script, Seen, listen_at, on_both_backends, send, settings};

on_both_backends!(whatever_comes_around_the_end_of_a_window_is_dealt_with);

/// Each shard's client sends a byte and waits for the answer, which another thread lets the shard give a moment later, by waking
/// it; both at random moments around the end of the shard's window. Several shards, so that they are in each other's way.
fn whatever_comes_around_the_end_of_a_window_is_dealt_with(backend: Backend) {
    let shards = (1..=SHARDS).map(|seed| thread::spawn(move || run_shard(backend, seed)));
    for shard in shards.collect::<Vec<_>>() {
        shard.join().expect("everything is answered");
    }
}

fn run_shard(backend: Backend, seed: u64) {
    let waker = Waker::new().expect("a descriptor");
    let mut driver = Driver::new(backend, settings(), &waker).expect("the backend works");
    let (_, addr) = listen_at(&mut driver, Ipv4Addr::LOCALHOST);
    let (asked, asks) = mpsc::channel();
    let helper = thread::spawn(move || wake_later(&asks, &waker, seed));
    let client = thread::spawn(move || converse(addr, seed));
    let mut unanswered: Option<(ConnectionId, Vec<u8>)> = None;
    let mut script = Script::new(move |io: &mut Io, seen: &Seen| match seen {
        Seen::Received(id, bytes) => {
            unanswered = Some((*id, bytes.clone()));
            asked.send(()).expect("the helper listens");
        }
        Seen::Woken => {
            if let Some((id, bytes)) = unanswered.take() {
                send(io, id, &bytes);
            }
        }
        Seen::Ended(id) => io.close(*id),
        Seen::Closed(..) => io.stop(),
        _ => {}
    })
    .patient(DEADLINE);
    script.coalesce = WINDOW;
    driver.run(&mut script).expect("it waits");
    drop(script);
    client.join().expect("everything is answered");
    helper.join().expect("it ends with the shard");
}

fn converse(addr: SocketAddr, seed: u64) {
    let mut moments = Moments::new(seed);
    let mut stream = TcpStream::connect(addr).expect("the kernel queues it");
    stream.set_nodelay(true).expect("it is a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    for message in 0..MESSAGES {
        moments.wait(Duration::from_micros(1_200));
        stream.write_all(&[7]).expect("it is open");
        let mut answer = [0];
        let answered = stream.read_exact(&mut answer);
        assert!(answered.is_ok(), "message {message} is left lying: {answered:?}");
    }
}

fn wake_later(asks: &Receiver<()>, waker: &Waker, seed: u64) {
    let mut moments = Moments::new(seed << 32);
    while asks.recv().is_ok() {
        moments.wait(Duration::from_millis(3));
        waker.wake();
    }
}

/// Random moments.
struct Moments {
    state: u64,
    /// Nothing ever comes here.
    quiet: Receiver<()>,
    _keep: mpsc::Sender<()>,
}

impl Moments {
    fn new(seed: u64) -> Self {
        let (keep, quiet) = mpsc::channel();
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            quiet,
            _keep: keep,
        }
    }

    /// Lets up to `bound` pass.
    fn wait(&mut self, bound: Duration) {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let nanos = self.state % u64::try_from(bound.as_nanos()).expect("short");
        // It ends by time alone.
        let _ = self.quiet.recv_timeout(Duration::from_nanos(nanos));
    }
}

const SHARDS: u64 = 12;
const MESSAGES: usize = 3_000;
const WINDOW: Duration = Duration::from_millis(1);
/// How long a message may take; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// When a shard turns without cause: so late that it helps no message that is left lying.
const DEADLINE: Duration = Duration::from_secs(90);
