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
    thread: JoinHandle<Result<Latencies, Failure>>,
}

impl Consumer {
    /// Subscribes to everything at a broker.
    pub(crate) fn subscribe(broker: SocketAddr, window: Arc<Window>) -> Result<Self, Failure> {
        let mut stream = load::open(broker, "consumer")?;
        let mut out = Vec::new();
        packet::put_subscribe(&mut out, 1, "#");
        stream.write_all(&out).map_err(Failure::io("subscribing"))?;
        stream
            .set_read_timeout(None)
            .map_err(Failure::io("unsetting a time-out"))?;
        let shared = Arc::new(Shared::new(window));
        shared.attend(&stream)?;
        let ours = Arc::clone(&shared);
        let thread = spawn(move || {
            let mut latencies = Latencies::new();
            serve(stream, &ours, &mut latencies)?;
            if ours.stop.load(Ordering::Acquire) {
                return Ok(latencies);
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
            let mut latencies = Latencies::new();
            loop {
                let (stream, _) = listener.accept().map_err(Failure::io("accepting"))?;
                if ours.stop.load(Ordering::Acquire) {
                    return Ok(latencies);
                }
                stream
                    .set_nodelay(true)
                    .map_err(Failure::io("setting TCP_NODELAY"))?;
                ours.attend(&stream)?;
                serve(stream, &ours, &mut latencies)?;
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

    /// Ends the thread and returns the latencies of the window.
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
            .unwrap_or_else(|_| Err(Failure::peer("consumer", "its thread panicked")))
    }
}

/// What the thread shares with its owner.
struct Shared {
    delivered: AtomicU64,
    stop: AtomicBool,
    window: Arc<Window>,
    /// The connection the thread blocks on, so that its owner can end it.
    current: Mutex<Option<TcpStream>>,
}

impl Shared {
    const fn new(window: Arc<Window>) -> Self {
        Self {
            delivered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            window,
            current: Mutex::new(None),
        }
    }

    fn attend(&self, stream: &TcpStream) -> Result<(), Failure> {
        let clone = stream.try_clone().map_err(Failure::io("sharing a socket"))?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(clone);
        Ok(())
    }
}

fn spawn(
    work: impl FnOnce() -> Result<Latencies, Failure> + Send + 'static,
) -> Result<JoinHandle<Result<Latencies, Failure>>, Failure> {
    let builder = thread::Builder::new().name("consumer".to_owned());
    builder.spawn(work).map_err(Failure::io("starting a thread"))
}

/// Answers what a peer sends until it closes the connection.
fn serve(mut stream: TcpStream, shared: &Shared, latencies: &mut Latencies) -> Result<(), Failure> {
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
        let mut arrived = 0;
        let bytes = scratch.get(..read).unwrap_or_default();
        let fed = inbox.feed(bytes, |packet| {
            arrived += handle(&packet, now, &shared.window, latencies, &mut out)?;
            Ok::<(), Unexpected>(())
        });
        fed.map_err(|Unexpected(problem)| Failure::peer("consumer", problem))?;
        shared.delivered.fetch_add(arrived, Ordering::AcqRel);
        if !out.is_empty() {
            match stream.write_all(&out) {
                Err(error) if !is_disconnect(&error) => return Err(Failure::io("acknowledging")(error)),
                _ => out.clear(),
            }
        }
    }
}

/// Answers one packet into `out` and returns how many readings it held.
fn handle(
    packet: &Packet<'_>,
    now: u64,
    window: &Window,
    latencies: &mut Latencies,
    out: &mut Vec<u8>,
) -> Result<u64, Unexpected> {
    match packet.kind() {
        kind::PUBLISH => {
            if let Some(identifier) = packet.packet_identifier() {
                packet::put_puback(out, identifier);
            }
            if let Some(time) = stamp::find(packet.body)
                && window.contains(time)
            {
                latencies.record(now.saturating_sub(time));
            }
            return Ok(1);
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
    Ok(0)
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
