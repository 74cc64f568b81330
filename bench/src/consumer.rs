//! The far end of a chain: counts readings and takes the time from their stamps.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::clock::{self, Window};
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::load;
use crate::packet::{self, Inbox, Packet, TooLong, kind};
use crate::stamp;

/// A thread that receives readings over MQTT and acknowledges each.
pub(crate) struct Consumer {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: JoinHandle<Result<(), Failure>>,
}

impl Consumer {
    /// Subscribes to everything at a broker.
    pub(crate) fn subscribe(broker: SocketAddr, window: Arc<Window>) -> Result<Self, Failure> {
        let mut stream = load::open(broker, "consumer")?;
        let mut out = Vec::new();
        packet::put_subscribe(&mut out, 1, "#", 1);
        stream.write_all(&out).map_err(Failure::io("subscribing"))?;
        stream
            .set_read_timeout(None)
            .map_err(Failure::io("unsetting a time-out"))?;
        let shared = Arc::new(Shared::new(window));
        shared.attend(&stream)?;
        let ours = Arc::clone(&shared);
        let thread = spawn(move || {
            serve(stream, &ours)?;
            if ours.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            Err(Failure::peer("consumer", "the broker closed the connection"))
        })?;
        Ok(Self {
            shared,
            address: broker,
            thread,
        })
    }

    /// Plays the broker for a sink that publishes to it: one connection after the other.
    pub(crate) fn listen(window: Arc<Window>) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(Failure::io("listening"))?;
        let address = listener.local_addr().map_err(Failure::io("asking for a port"))?;
        let shared = Arc::new(Shared::new(window));
        let ours = Arc::clone(&shared);
        let thread = spawn(move || {
            loop {
                let (stream, _) = listener.accept().map_err(Failure::io("accepting"))?;
                if ours.stop.load(Ordering::Acquire) {
                    return Ok(());
                }
                stream
                    .set_nodelay(true)
                    .map_err(Failure::io("setting TCP_NODELAY"))?;
                ours.attend(&stream)?;
                serve(stream, &ours)?;
            }
        })?;
        Ok(Self {
            shared,
            address,
            thread,
        })
    }

    /// Returns where it listens, or which broker it subscribes to.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many readings have arrived.
    pub(crate) fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::Acquire)
    }

    /// Returns how many of them carried the time at which they left.
    pub(crate) fn delivered_stamped(&self) -> u64 {
        self.shared.stamped.load(Ordering::Acquire)
    }

    /// Returns the latencies of the window until now, and begins anew.
    pub(crate) fn take_latencies(&self) -> Latencies {
        self.shared.take_latencies()
    }

    /// Ends the thread and returns the latencies of the window since they were last taken.
    pub(crate) fn finish(self) -> Result<Latencies, Failure> {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(stream) = self
            .shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            // It may be closed already: then the thread has noticed.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // A listening thread waits for a connection; a subscriber has ended and its broker ignores this one.
        drop(TcpStream::connect(self.address));
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Failure::peer("consumer", "its thread panicked")))?;
        Ok(self.shared.take_latencies())
    }
}

/// What the thread shares with its owner.
struct Shared {
    delivered: AtomicU64,
    stamped: AtomicU64,
    latencies: Mutex<Latencies>,
    stop: AtomicBool,
    window: Arc<Window>,
    /// The connection the thread blocks on, so that its owner can end it.
    current: Mutex<Option<TcpStream>>,
}

impl Shared {
    fn new(window: Arc<Window>) -> Self {
        Self {
            delivered: AtomicU64::new(0),
            stamped: AtomicU64::new(0),
            latencies: Mutex::new(Latencies::new()),
            stop: AtomicBool::new(false),
            window,
            current: Mutex::new(None),
        }
    }

    fn take_latencies(&self) -> Latencies {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut latencies, Latencies::new())
    }

    fn attend(&self, stream: &TcpStream) -> Result<(), Failure> {
        let clone = stream.try_clone().map_err(Failure::io("sharing a socket"))?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(clone);
        Ok(())
    }
}

fn spawn(
    work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) -> Result<JoinHandle<Result<(), Failure>>, Failure> {
    let builder = thread::Builder::new().name("consumer".to_owned());
    builder.spawn(work).map_err(Failure::io("starting a thread"))
}

/// Answers what a peer sends until it closes the connection.
fn serve(mut stream: TcpStream, shared: &Shared) -> Result<(), Failure> {
    let mut inbox = Inbox::default();
    let mut scratch = vec![0; SCRATCH_BYTES];
    let mut out = Vec::new();
    loop {
        let read = match stream.read(&mut scratch) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(Failure::io("receiving readings")(error)),
        };
        let now = clock::now();
        let mut arrived = Arrived::default();
        let bytes = scratch.get(..read).unwrap_or_default();
        let mut latencies = shared.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let fed = inbox.feed(bytes, |packet| {
            arrived.add(handle(&packet, &mut out)?, now, &shared.window, &mut latencies);
            Ok::<(), Unexpected>(())
        });
        drop(latencies);
        fed.map_err(|Unexpected(problem)| Failure::peer("consumer", problem))?;
        // Who looks at both never sees fewer readings than stamps.
        shared.delivered.fetch_add(arrived.readings, Ordering::AcqRel);
        shared.stamped.fetch_add(arrived.stamped, Ordering::AcqRel);
        if !out.is_empty() {
            match stream.write_all(&out) {
                Err(error) if !is_disconnect(&error) => return Err(Failure::io("acknowledging")(error)),
                _ => out.clear(),
            }
        }
    }
}

/// Readings that arrived together.
#[derive(Default)]
struct Arrived {
    readings: u64,
    stamped: u64,
}

impl Arrived {
    fn add(&mut self, received: Received, now: u64, window: &Window, latencies: &mut Latencies) {
        let Received::Reading { left_at } = received else {
            return;
        };
        self.readings += 1;
        if let Some(time) = left_at {
            self.stamped += 1;
            if window.contains(time) {
                latencies.record(now.saturating_sub(time));
            }
        }
    }
}

/// What a packet was.
enum Received {
    /// A reading, and when it left, if it says so.
    Reading { left_at: Option<u64> },
    /// Something else.
    Other,
}

/// Answers one packet into `out`.
fn handle(packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<Received, Unexpected> {
    match packet.kind() {
        kind::PUBLISH => {
            if let Some(identifier) = packet.packet_identifier() {
                packet::put_puback(out, identifier);
            }
            return Ok(Received::Reading {
                left_at: stamp::find(packet.body).filter(|time| *time > 0),
            });
        }
        kind::CONNECT => packet::put_connack(out, packet),
        kind::PINGREQ => packet::put_pingresp(out),
        kind::CONNACK if packet.body.get(1) != Some(&0) => return Err(Unexpected("the broker refused it")),
        kind::SUBACK if packet.body.last().is_none_or(|code| *code > 2) => {
            return Err(Unexpected("the broker refused the subscription"));
        }
        kind::CONNACK | kind::SUBACK | kind::DISCONNECT => {}
        _ => return Err(Unexpected("the peer sent a packet that is not expected here")),
    }
    Ok(Received::Other)
}

fn is_disconnect(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// What a peer should not have sent.
struct Unexpected(&'static str);

impl From<TooLong> for Unexpected {
    fn from(_: TooLong) -> Self {
        Self("the peer sent a packet without an end")
    }
}

const SCRATCH_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Arc;

    use super::Consumer;
    use crate::clock::Window;
    use crate::load;
    use crate::packet;
    use crate::stamp;

    fn publish(stream: &mut TcpStream, time: u64) {
        let mut payload = stamp::payload(50);
        stamp::write(&mut payload, time);
        let mut out = Vec::new();
        packet::put_publish(&mut out, "a/b", 7, &payload);
        stream.write_all(&out).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0x40, 2, 0, 7]);
    }

    #[test]
    fn counts_and_times_what_a_sink_publishes_over_two_connections() {
        let window = Arc::new(Window::new());
        window.open(100);
        let consumer = Consumer::listen(window).unwrap();
        for times in [[99, 100], [101, 102]] {
            let mut stream = load::open(consumer.address(), "sink").unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
            times.into_iter().for_each(|time| publish(&mut stream, time));
        }
        assert_eq!(consumer.delivered(), 4);
        assert_eq!(consumer.finish().unwrap().summary().unwrap().count, 3);
    }

    #[test]
    fn ends_without_any_connection() {
        let consumer = Consumer::listen(Arc::new(Window::new())).unwrap();
        assert!(consumer.finish().unwrap().summary().is_none());
    }
}
