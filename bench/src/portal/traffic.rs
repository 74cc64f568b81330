//! The four kinds of traffic that are put through a tunnel, each checked to have arrived.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::server::{BULK_BYTES, ECHO, SWALLOW, Server};
use crate::clock;
use crate::failure::Failure;
use crate::latency::{Latencies, Summary};
use crate::place::Place;

/// One end of a tunnel and what stands behind the other.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    /// Where clients are.
    pub(crate) near: &'a Place,
    /// Where they connect.
    pub(crate) entry: SocketAddr,
    /// What the other end leads to.
    pub(crate) server: &'a Server,
}

impl Way<'_> {
    fn connect(&self, wish: u8) -> Result<TcpStream, Failure> {
        let mut stream = self.near.connect(self.entry)?;
        prepare(&mut stream, wish).map_err(Failure::io("beginning a stream"))?;
        Ok(stream)
    }

    /// Waits until a byte comes back: the tunnel is up then.
    pub(crate) fn await_up(&self) -> Result<(), Failure> {
        let until = clock::now() + UP_MAX;
        loop {
            let once = || -> Result<(), Failure> {
                let mut stream = self.connect(ECHO)?;
                trip(&mut stream, &mut [1]).map_err(Failure::io("waiting for an echo"))
            };
            match once() {
                Ok(()) => return Ok(()),
                Err(failure) if clock::now() > until => return Err(failure),
                Err(_) => clock::pause(STEP),
            }
        }
    }

    /// Writes as fast as the stream takes it; `sample` is called when the measured window begins and when it ends. Returns what it gave,
    /// with the bytes that arrived in between and the nanoseconds.
    pub(crate) fn bulk<T>(
        &self,
        seconds: Duration,
        mut sample: impl FnMut() -> Result<T, Failure>,
    ) -> Result<Bulk<T>, Failure> {
        let mut stream = self.connect(SWALLOW)?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| -> std::io::Result<u64> {
                let piece = vec![0x5a; BULK_BYTES];
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(&piece)?;
                    sent += piece.len() as u64;
                }
                stream.shutdown(Shutdown::Write)?;
                let mut total = [0; 8];
                stream.read_exact(&mut total)?;
                let arrived = u64::from_be_bytes(total);
                Ok(sent.abs_diff(arrived))
            });
            clock::pause(WARM_UP);
            let outcome = (|| {
                let before = (clock::now(), self.server.swallowed(), sample()?);
                clock::pause(seconds);
                let after = (clock::now(), self.server.swallowed(), sample()?);
                Ok(Bulk {
                    bytes: after.1 - before.1,
                    nanos: after.0 - before.0,
                    before: before.2,
                    after: after.2,
                })
            })();
            stop.store(true, Ordering::Relaxed);
            match writer.join() {
                Ok(Ok(0)) => outcome,
                Ok(Ok(missing)) => Err(Failure::peer("a bulk stream", format!("lost {missing} bytes"))),
                Ok(Err(error)) => Err(Failure::io("writing a bulk stream")(error)),
                Err(_) => Err(Failure::peer("a thread", "panicked")),
            }
        })
    }

    /// Sends messages of 64 bytes, each after the one before came back.
    pub(crate) fn ping(&self, seconds: Duration) -> Result<Summary, Failure> {
        let mut stream = self.connect(ECHO)?;
        let mut message = [7; MESSAGE_BYTES];
        let mut latencies = Latencies::new();
        for _ in 0..WARM_UP_TRIPS {
            trip(&mut stream, &mut message).map_err(Failure::io("waiting for an echo"))?;
        }
        let until = clock::now() + u64::try_from(seconds.as_nanos()).unwrap_or(u64::MAX);
        let mut now = clock::now();
        while now < until {
            trip(&mut stream, &mut message).map_err(Failure::io("waiting for an echo"))?;
            let after = clock::now();
            latencies.record(after - now);
            now = after;
        }
        latencies
            .summary()
            .ok_or_else(|| Failure::peer("the far end", "sent nothing back"))
    }

    /// Opens streams on a few threads, has a byte come back through each and closes it. Returns how many a second.
    pub(crate) fn connects(&self, seconds: Duration) -> Result<f64, Failure> {
        let stop = AtomicBool::new(false);
        let count = AtomicU64::new(0);
        thread::scope(|scope| {
            let work = || -> Result<(), Failure> {
                self.near.enter()?;
                while !stop.load(Ordering::Relaxed) {
                    let once = || -> std::io::Result<()> {
                        let mut stream = TcpStream::connect(self.entry)?;
                        prepare(&mut stream, ECHO)?;
                        trip(&mut stream, &mut [1])
                    };
                    once().map_err(Failure::io("opening a stream"))?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            };
            let threads: Vec<_> = (0..CONNECTING).map(|_| scope.spawn(work)).collect();
            clock::pause(STEP);
            let (start, before) = (clock::now(), count.load(Ordering::Relaxed));
            clock::pause(seconds);
            let (end, after) = (clock::now(), count.load(Ordering::Relaxed));
            stop.store(true, Ordering::Relaxed);
            for thread in threads {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Failure::peer("a thread", "panicked")))?;
            }
            Ok((after - before) as f64 * 1e9 / (end - start) as f64)
        })
    }

    /// Opens `streams` streams, lets a message of 64 bytes come back through each again and again, and calls `sample` while all are open.
    pub(crate) fn many<T>(
        &self,
        streams: usize,
        seconds: Duration,
        sample: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> Result<Many<T>, Failure>
    where
        T: Send,
    {
        thread::scope(|scope| {
            let work = || {
                self.near.enter()?;
                all_at_once(self.entry, streams, seconds, sample)
            };
            let thread = scope.spawn(work);
            thread
                .join()
                .unwrap_or_else(|_| Err(Failure::peer("a thread", "panicked")))
        })
    }
}

/// What a bulk stream did in the measured window.
pub(crate) struct Bulk<T> {
    pub(crate) bytes: u64,
    pub(crate) nanos: u64,
    pub(crate) before: T,
    pub(crate) after: T,
}

/// What many streams at once did.
pub(crate) struct Many<T> {
    /// From the first connect to the first byte back through the last stream.
    pub(crate) opened_nanos: u64,
    /// Messages that came back each second, over all streams.
    pub(crate) trips_per_sec: f64,
    /// What was seen while all were open.
    pub(crate) sample: T,
}

fn all_at_once<T>(
    entry: SocketAddr,
    count: usize,
    seconds: Duration,
    sample: impl FnOnce() -> Result<T, Failure>,
) -> Result<Many<T>, Failure> {
    let echo = || Failure::io("waiting for an echo");
    let start = clock::now();
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(entry).map_err(Failure::io("opening a stream"))?;
        prepare(&mut stream, ECHO).map_err(Failure::io("beginning a stream"))?;
        streams.push(stream);
    }
    let mut message = [7; MESSAGE_BYTES];
    round(&mut streams, &mut message).map_err(echo())?;
    let opened = clock::now();
    let until = opened + u64::try_from(seconds.as_nanos()).unwrap_or(u64::MAX);
    let mut trips = 0;
    let mut now = opened;
    while now < until {
        round(&mut streams, &mut message).map_err(echo())?;
        trips += streams.len();
        now = clock::now();
    }
    Ok(Many {
        opened_nanos: opened - start,
        trips_per_sec: trips as f64 * 1e9 / (now - opened) as f64,
        sample: sample()?,
    })
}

/// Sends a message into every stream, then waits for all to come back.
fn round(streams: &mut [TcpStream], message: &mut [u8]) -> std::io::Result<()> {
    for stream in &mut *streams {
        stream.write_all(message)?;
    }
    for stream in streams {
        stream.read_exact(message)?;
    }
    Ok(())
}

/// Says what is wanted of the far end.
fn prepare(stream: &mut TcpStream, wish: u8) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    stream.write_all(&[wish])
}

fn trip(stream: &mut TcpStream, message: &mut [u8]) -> std::io::Result<()> {
    stream.write_all(message)?;
    stream.read_exact(message)
}

/// Bytes of a message in the ping-pong.
const MESSAGE_BYTES: usize = 64;
/// Threads that open streams.
const CONNECTING: usize = 8;
const WARM_UP: Duration = Duration::from_millis(700);
const WARM_UP_TRIPS: u32 = 100;
/// A stream that carries nothing for so long is broken.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long a tunnel may take to come up, in nanoseconds.
const UP_MAX: u64 = 20_000_000_000;
const STEP: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Way;
    use crate::place::Place;
    use crate::portal::server::Server;

    #[test]
    fn each_kind_of_traffic_gives_figures_without_a_tunnel() {
        let near = Place::here();
        let server = Server::start(&near, ([127, 0, 0, 1], 0).into()).unwrap();
        let way = Way {
            near: &near,
            entry: server.address(),
            server: &server,
        };
        way.await_up().unwrap();
        let short = Duration::from_millis(100);
        let mut samples = 0;
        let bulk = way
            .bulk(short, || {
                samples += 1;
                Ok(samples)
            })
            .unwrap();
        assert!(bulk.nanos > 0);
        assert_eq!((bulk.before, bulk.after), (1, 2));
        assert!(way.ping(short).unwrap().count > 0);
        way.connects(short).unwrap();
        let many = way.many(20, short, || Ok("open")).unwrap();
        assert_eq!(many.sample, "open");
        assert!(many.trips_per_sec > 0.0 && many.opened_nanos > 0);
    }
}
