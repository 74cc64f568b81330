//! Stands between an outlet and a server, passes bytes on, and notes when none came.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock;
use crate::failure::Failure;
use crate::place::Place;

/// A listener that leads on to a server.
pub(super) struct Tap {
    place: Place,
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    streams: Mutex<Vec<Times>>,
    bytes: AtomicU64,
    is_over: AtomicBool,
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, Vec<Times>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a stream brought something.
#[derive(Clone, Debug, Default)]
struct Times {
    bytes: u64,
    /// When the last bytes came; 0 before the first.
    last: u64,
    is_open: bool,
    pauses: Vec<Pause>,
}

/// A time without bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pause {
    /// When the last byte before it came.
    pub(super) since: u64,
    pub(super) nanos: u64,
}

impl Tap {
    /// Listens at `address` of a place and leads to `server` there.
    pub(super) fn start(place: &Place, address: SocketAddr, server: SocketAddr) -> Result<Self, Failure> {
        let listener = place.listen(address)?;
        let shared = Arc::new(Shared {
            streams: Mutex::new(Vec::new()),
            bytes: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let (of_thread, here) = (Arc::clone(&shared), place.clone());
        let acceptor = thread::Builder::new()
            .name("tap".to_owned())
            .spawn(move || {
                // A tap that is not where the server is finds no server, which the load says.
                if here.enter().is_ok() {
                    accept(&listener, server, &of_thread);
                }
            })
            .map_err(Failure::io("starting a thread"))?;
        Ok(Self {
            place: place.clone(),
            address,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Returns how many bytes came towards the server, over all streams.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Waits until so many more bytes came, or no more are to come; false if they do not.
    pub(super) fn await_more(&self, count: u64, mut is_complete: impl FnMut() -> bool) -> bool {
        let (from, until) = (self.bytes(), clock::now() + PATIENCE);
        while self.bytes() < from + count && !is_complete() {
            if clock::now() > until {
                return false;
            }
            clock::pause(STEP);
        }
        true
    }

    /// Returns how many bytes the stream brought that has brought the most of those which are open.
    pub(super) fn largest_open(&self) -> u64 {
        let streams = self.shared.streams();
        let open = streams.iter().filter(|times| times.is_open);
        open.map(|times| times.bytes).max().unwrap_or(0)
    }

    /// Returns the longest pause of a stream between two times, that which still goes on included. Streams that brought little carry
    /// no load, but the words of who measures, and do not count.
    pub(super) fn longest(&self, from: u64, to: u64) -> Option<Pause> {
        longest(&self.shared.streams(), from, to)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the acceptor; if that cannot be, it ends with the process.
        if self.place.connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
    }
}

fn longest(streams: &[Times], from: u64, to: u64) -> Option<Pause> {
    let loaded = streams.iter().filter(|times| times.bytes >= LOADED);
    let pauses = loaded.flat_map(|times| {
        let now = times.is_open.then(|| Pause {
            since: times.last,
            nanos: to.saturating_sub(times.last),
        });
        times.pauses.iter().copied().chain(now)
    });
    pauses
        .filter(|pause| pause.since < to && pause.since + pause.nanos > from)
        .max_by_key(|pause| pause.nanos)
}

impl Times {
    fn handle_bytes(&mut self, now: u64, count: usize) {
        let nanos = now.saturating_sub(self.last);
        if self.last != 0 && nanos >= LEAST && self.pauses.len() < PAUSES_MAX {
            self.pauses.push(Pause {
                since: self.last,
                nanos,
            });
        }
        self.last = now;
        self.bytes += count as u64;
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        // One that finds no server is closed, which its client sees.
        let (Ok(stream), Ok(onward)) = (stream, TcpStream::connect(server)) else {
            continue;
        };
        let _ = carry(stream, onward, shared);
    }
}

/// Starts the two threads of a stream.
fn carry(near: TcpStream, far: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    let (back_from, back_to) = (far.try_clone()?, near.try_clone()?);
    let index = {
        let mut streams = shared.streams();
        streams.push(Times {
            is_open: true,
            ..Times::default()
        });
        streams.len() - 1
    };
    let of_thread = Arc::clone(shared);
    thread::Builder::new()
        .name("tap-there".to_owned())
        .spawn(move || {
            let note = |count: usize| {
                of_thread.bytes.fetch_add(count as u64, Ordering::Relaxed);
                if let Some(times) = of_thread.streams().get_mut(index) {
                    times.handle_bytes(clock::now(), count);
                }
            };
            pass(near, far, note);
            if let Some(times) = of_thread.streams().get_mut(index) {
                times.is_open = false;
            }
        })?;
    thread::Builder::new()
        .name("tap-back".to_owned())
        .spawn(move || pass(back_from, back_to, |_| ()))?;
    Ok(())
}

/// Passes bytes on to the end of one direction, and then the end.
fn pass(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(usize)) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        note(count);
        if to.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
            // Tells the other side that nobody takes its bytes any more.
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

const BUFFER_BYTES: usize = 256 << 10;
/// What a stream has to bring to count as one that carries the load.
const LOADED: u64 = 1 << 20;
/// Pauses that are not worth keeping.
const LEAST: u64 = 5_000_000;
/// Pauses of one stream that are kept.
const PAUSES_MAX: usize = 1 << 20;
/// How long bytes may not come before a stream counts as broken, in nanoseconds.
const PATIENCE: u64 = 60_000_000_000;
const STEP: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};

    use super::{LOADED, Pause, Tap, Times, longest};
    use crate::place::Place;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_longest_pause_is_that_of_a_stream_with_a_load() {
        let mut loaded = Times {
            is_open: true,
            ..Times::default()
        };
        for at in [10, 20, 320, 330, 400] {
            loaded.handle_bytes(at * MS, 1 << 20);
        }
        let mut idle = Times {
            is_open: true,
            ..Times::default()
        };
        idle.handle_bytes(10 * MS, 10);
        let streams = [idle, loaded];
        let pause = |since: u64, nanos: u64| {
            Some(Pause {
                since: since * MS,
                nanos: nanos * MS,
            })
        };
        assert_eq!(longest(&streams, 15 * MS, 500 * MS), pause(20, 300));
        // From a time on that lies in it, too.
        assert_eq!(longest(&streams, 319 * MS, 500 * MS), pause(20, 300));
        assert_eq!(longest(&streams, 321 * MS, 420 * MS), pause(330, 70));
        // What still goes on.
        assert_eq!(longest(&streams, 321 * MS, 500 * MS), pause(400, 100));
        assert_eq!(longest(&[], 0, 500 * MS), None);
    }

    #[test]
    fn bytes_pass_both_ways_and_are_counted_one_way() {
        let here = Place::here();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = crate::process::free_address().unwrap();
        let tap = Tap::start(&here, free, server.local_addr().unwrap()).unwrap();
        let mut client = here.connect(free).unwrap();
        let (mut end, _) = server.accept().unwrap();
        let sent = vec![7; usize::try_from(LOADED).unwrap()];
        let writer = std::thread::spawn(move || {
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            client.read_to_end(&mut back).unwrap();
            back
        });
        let mut came = Vec::new();
        end.read_to_end(&mut came).unwrap();
        assert_eq!(came.len() as u64, LOADED);
        end.write_all(b"thanks").unwrap();
        drop(end);
        assert_eq!(writer.join().unwrap(), b"thanks");
        assert_eq!(tap.bytes(), LOADED);
    }
}
