//! A wire with a delay, losses and a rate between two network namespaces, for kernels without netem.
//!
//! ```text
//!  near ── vxlan ══ veth ══▶ UDP socket ─ lane ─ UDP socket ══ veth ══ vxlan ── far
//!                                 namespace of the wire
//! ```
//!
//! Each end has a VXLAN device (RFC 7348), which puts every frame of Ethernet into one datagram; a thread in a namespace between them
//! passes datagrams on, each when its time has come, or never.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::rivals::{FAR_ADDRESS, NEAR_ADDRESS};
use crate::clock;
use crate::failure::Failure;
use crate::place::Place;
use crate::process::complete;

/// What a wire does to frames, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quality {
    /// From one end to the other, besides waiting and transmission.
    pub(crate) delay_nanos: u64,
    /// Of a million frames so many are lost, each by itself.
    pub(crate) loss_ppm: u32,
    pub(crate) bits_per_sec: u64,
    /// How long a frame may wait for its transmission; who would have to wait longer is lost.
    pub(crate) queue_nanos: u64,
}

/// Two namespaces joined by a wire: [`NEAR_ADDRESS`] is in the first, [`FAR_ADDRESS`] in the second.
pub(crate) struct Wire {
    is_over: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
    /// The thread's namespace, which must outlive it.
    _place: Place,
}

/// What was done to frames, both directions together.
#[derive(Debug, Default)]
struct Counts {
    passed: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
}

impl Wire {
    /// Joins two namespaces. Needs root.
    pub(crate) fn join(name: &str, near: &Place, far: &Place, quality: Quality) -> Result<Self, Failure> {
        let place = Place::fresh(&format!("{name}-wire"))?;
        let ends = [
            (near, NEAR_ADDRESS, "10.77.7.1", "10.77.7.2", "near"),
            (far, FAR_ADDRESS, "10.77.6.1", "10.77.6.2", "far"),
        ];
        for (end, address, outer, middle, port) in ends {
            cable(&place, end, (outer, middle), port)?;
            tunnel(end, address, outer, middle)?;
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let sockets = ends.map(|(_, _, outer, middle, _)| (middle, outer));
        let (over, count, here) = (Arc::clone(&is_over), Arc::clone(&counts), place.clone());
        let socket =
            |middle: &'static str, outer: &'static str| -> Result<(UdpSocket, SocketAddr), Failure> {
                let address = |host: &str| format!("{host}:{PORT}").parse().expect("it is an address");
                let at: SocketAddr = address(middle);
                let socket = UdpSocket::bind(at).map_err(Failure::io(format!("taking {at}")))?;
                socket
                    .set_nonblocking(true)
                    .map_err(Failure::io("setting up a socket"))?;
                Ok((socket, address(outer)))
            };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = thread::Builder::new()
            .name("wire".to_owned())
            .spawn(move || {
                let opened = here.enter().and_then(|()| {
                    let [near, far] = sockets;
                    Ok([socket(near.0, near.1)?, socket(far.0, far.1)?])
                });
                let (outcome, ends) = match opened {
                    Ok(ends) => (Ok(()), Some(ends)),
                    Err(failure) => (Err(failure), None),
                };
                // Who waits for it is there until it was told.
                let _ = ready.send(outcome);
                if let Some(ends) = ends {
                    carry(&ends, quality, &count, &over);
                }
            })
            .map_err(Failure::io("starting a thread"))?;
        is_ready
            .recv()
            .unwrap_or_else(|_| Err(Failure::peer("a thread", "panicked")))?;
        Ok(Self {
            is_over,
            counts,
            thread: Some(thread),
            _place: place,
        })
    }

    /// Returns how many frames of a thousand were lost, by chance and because too many waited.
    pub(crate) fn lost_permille(&self) -> (f64, f64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let (lost, overflowed) = (read(&self.counts.lost), read(&self.counts.overflowed));
        let all = (lost + overflowed + read(&self.counts.passed)).max(1.0);
        (lost * 1e3 / all, overflowed * 1e3 / all)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connects an end with the wire's namespace, whose side is called `port`.
fn cable(place: &Place, end: &Place, (outer, middle): (&str, &str), port: &str) -> Result<(), Failure> {
    end.cable("under", place, port)?;
    for (place, address, device) in [(end, outer, "under"), (place, middle, port)] {
        let address = format!("{address}/30");
        place.ip(&["address", "add", &address, "dev", device])?;
        // Datagrams of the wire are larger than frames on it.
        place.ip(&["link", "set", device, "mtu", "1600", "up"])?;
    }
    Ok(())
}

fn tunnel(end: &Place, address: &str, outer: &str, middle: &str) -> Result<(), Failure> {
    let port = PORT.to_string();
    let remote = ["remote", middle, "local", outer, "dstport", &port];
    let vxlan = ["link", "add", "wire", "type", "vxlan", "id", "7"];
    end.ip(&[vxlan.as_slice(), &remote].concat())?;
    let address = format!("{address}/24");
    end.ip(&["address", "add", &address, "dev", "wire"])?;
    end.ip(&["link", "set", "wire", "mtu", "1500", "up"])?;
    // No card comes after the datagrams that would fill in checksums, or cut into frames what was put into one datagram.
    let mut offloads = end.command("ethtool");
    complete(offloads.args(["--offload", "wire", "tx", "off", "tso", "off", "gso", "off"])).map(drop)
}

/// One direction.
struct Lane<T> {
    quality: Quality,
    random: u64,
    /// When the last frame that was admitted has been put onto the wire.
    free_at: u64,
    /// In order of arrival at the other end.
    flying: VecDeque<(u64, T)>,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives(u64),
    Lost,
    Overflowed,
}

impl<T> Lane<T> {
    const fn new(quality: Quality, seed: u64) -> Self {
        Self {
            quality,
            random: seed,
            free_at: 0,
            flying: VecDeque::new(),
        }
    }

    /// Takes a frame of `count` bytes.
    fn admit(&mut self, now: u64, count: usize, frame: T) -> Fate {
        let begins = self.free_at.max(now);
        if begins - now > self.quality.queue_nanos || self.flying.len() >= FLYING_MAX {
            return Fate::Overflowed;
        }
        let nanos = count as u64 * 8 * 1_000_000_000 / self.quality.bits_per_sec.max(1);
        self.free_at = begins + nanos;
        // What is lost takes its time on the wire all the same.
        if self.draw() % 1_000_000 < u64::from(self.quality.loss_ppm) {
            return Fate::Lost;
        }
        let arrives = self.free_at + self.quality.delay_nanos;
        self.flying.push_back((arrives, frame));
        Fate::Arrives(arrives)
    }

    /// Returns the next frame that has arrived.
    fn poll(&mut self, now: u64) -> Option<T> {
        let (arrives, _) = self.flying.front()?;
        if *arrives > now {
            return None;
        }
        self.flying.pop_front().map(|(_, frame)| frame)
    }

    fn next_at(&self) -> Option<u64> {
        self.flying.front().map(|(arrives, _)| *arrives)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    const fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

fn carry(ends: &[(UdpSocket, SocketAddr); 2], quality: Quality, counts: &Counts, is_over: &AtomicBool) {
    let mut lanes: [Lane<Box<[u8]>>; 2] = [Lane::new(quality, 1), Lane::new(quality, 2)];
    let mut buffer = vec![0; DATAGRAM_MAX];
    while !is_over.load(Ordering::Relaxed) {
        for (from, lane) in lanes.iter_mut().enumerate() {
            take(&ends[from].0, lane, &mut buffer, counts);
            let (socket, to) = &ends[1 - from];
            while let Some(frame) = lane.poll(clock::now()) {
                // A socket without room loses it, as a card would.
                let _ = socket.send_to(&frame, to);
                counts.passed.fetch_add(1, Ordering::Relaxed);
            }
        }
        wait(ends, lanes.iter().filter_map(Lane::next_at).min());
    }
}

/// Takes what has come to one end.
fn take(socket: &UdpSocket, lane: &mut Lane<Box<[u8]>>, buffer: &mut [u8], counts: &Counts) {
    for _ in 0..BATCH {
        let count = match socket.recv(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // As long as the other end is being set up, datagrams come back as errors.
            Err(_) => continue,
        };
        let frame = buffer.get(..count).unwrap_or_default().into();
        let counter = match lane.admit(clock::now(), count.saturating_sub(VXLAN_BYTES), frame) {
            Fate::Arrives(_) => continue,
            Fate::Lost => &counts.lost,
            Fate::Overflowed => &counts.overflowed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn wait(ends: &[(UdpSocket, SocketAddr); 2], next_at: Option<u64>) {
    let most = 50_000_000;
    let nanos = next_at.map_or(most, |at| at.saturating_sub(clock::now()).min(most));
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    let mut descriptors = [
        PollFd::new(&ends[0].0, PollFlags::IN),
        PollFd::new(&ends[1].0, PollFlags::IN),
    ];
    // Interrupted: it looks again.
    let _ = poll(&mut descriptors, Some(&timeout));
}

/// Of VXLAN (RFC 7348 §5).
const PORT: u16 = 4789;
/// What VXLAN puts before a frame.
const VXLAN_BYTES: usize = 8;
const DATAGRAM_MAX: usize = 65_536;
/// Frames in flight in one direction: 200 ms of a gigabit per second.
const FLYING_MAX: usize = 1 << 14;
/// Frames taken before those that are due are looked after.
const BATCH: usize = 64;

#[cfg(test)]
mod tests {
    use super::{Fate, Lane, Quality};

    const MS: u64 = 1_000_000;

    fn quality() -> Quality {
        Quality {
            delay_nanos: 50 * MS,
            loss_ppm: 0,
            bits_per_sec: 8_000_000,
            queue_nanos: 2 * MS,
        }
    }

    #[test]
    fn a_frame_arrives_after_its_transmission_and_the_delay_and_in_order() {
        let mut lane = Lane::new(quality(), 1);
        // A millisecond each.
        assert_eq!(lane.admit(0, 1000, 'a'), Fate::Arrives(51 * MS));
        assert_eq!(lane.admit(0, 1000, 'b'), Fate::Arrives(52 * MS));
        assert_eq!(lane.admit(0, 1000, 'c'), Fate::Arrives(53 * MS));
        assert_eq!(lane.admit(0, 1000, 'd'), Fate::Overflowed);
        assert_eq!((lane.poll(51 * MS - 1), lane.next_at()), (None, Some(51 * MS)));
        assert_eq!(
            (lane.poll(52 * MS), lane.poll(52 * MS), lane.poll(52 * MS)),
            (Some('a'), Some('b'), None)
        );
        assert_eq!(lane.admit(100 * MS, 1000, 'e'), Fate::Arrives(151 * MS));
        assert_eq!(
            (lane.poll(u64::MAX), lane.poll(u64::MAX), lane.poll(u64::MAX)),
            (Some('c'), Some('e'), None)
        );
    }

    #[test]
    fn as_many_are_lost_as_should_be_and_the_same_ones_each_time() {
        let lossy = Quality {
            loss_ppm: 10_000,
            bits_per_sec: u64::MAX,
            ..quality()
        };
        let lost = |seed| -> Vec<u64> {
            let mut lane = Lane::new(lossy, seed);
            (0..100_000_u64)
                .filter(|now| {
                    let fate = lane.admit(*now, 1000, ());
                    lane.poll(u64::MAX);
                    fate == Fate::Lost
                })
                .collect()
        };
        let first = lost(1);
        assert!((900..1100).contains(&first.len()), "{}", first.len());
        assert_eq!(first, lost(1));
        assert_ne!(first, lost(2));
    }
}
