//! Links: one transport connection between neighbours (PROTOCOL.md §3.1).
//!
//! A link protects nothing; the channel does. What a caller does with the bytes of one connection:
//!
//! ```text
//! Link::new(now, settings, out)                     writes Hello
//! let mut incoming = link.receive(now, bytes);
//! while let Some(input) = incoming.next_input(out)? { Up | Frame | Malformed }
//! link.handle_timeout(now, out)?  at  link.poll_timeout()
//! ```
//!
//! An `Err` means: close the connection. Nothing more comes out of that link afterwards.

mod backoff;
mod frame;
mod reader;
mod rtt;

use std::{num::NonZeroU32, time::Duration};

pub use backoff::{Backoff, BackoffSettings};
pub use frame::{
    FRAME_HEADER_LEN, FRAME_LEN_MAX, Frame, FrameError, Hello, Mark, RoutedHead, abandon_frame, begin_data,
    begin_data_offer, begin_routed, finish_frame, put_data, put_hello, put_label_gone, put_ping, put_pong,
};
pub use reader::{FrameReader, RawFrame, RawFrames};
pub use rtt::RoundTrip;

use crate::{time::Instant, wire::WireError};

/// How urgent a frame is. Relays let the more urgent pass first when a link is congested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Overtakes everything else.
    Alarm = 0,
    /// Live telemetry, commands, handshakes.
    Normal = 1,
    /// Backlog and streams.
    Bulk = 2,
}

impl Class {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Alarm, Self::Normal, Self::Bulk];

    /// Returns the class with the number `bits`, if there is one.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Alarm),
            1 => Some(Self::Normal),
            2 => Some(Self::Bulk),
            _ => None,
        }
    }

    /// Returns the number of the class, 0 to 2.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// Returns the word for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }
}

/// A small number that replaces a route on one link, in one direction. Never 0; chosen by who receives the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(NonZeroU32);

impl Label {
    /// Returns the label with this number, `None` for 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Returns the number on the wire, 1 to 2^32 − 1.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

/// What all links of a node have in common.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Name and version of the software, told to neighbours; at most 255 bytes.
    pub software: String,
    /// Drawn once when the node starts. A Hello that brings it back comes from the node itself.
    pub nonce: u64,
    /// Largest frame length accepted, 4,096 to [`FRAME_LEN_MAX`] bytes of body.
    pub frame_len_max: usize,
}

impl LinkSettings {
    /// Returns settings with the largest frames the protocol has.
    ///
    /// # Panics
    /// If `software` is longer than 255 bytes: it is a constant of the program.
    #[must_use]
    pub fn new(software: &str, nonce: u64) -> Self {
        assert!(
            software.len() <= 255,
            "the software's name has {} bytes, more than 255",
            software.len()
        );
        Self {
            software: software.to_owned(),
            nonce,
            frame_len_max: FRAME_LEN_MAX,
        }
    }
}

/// What the neighbour said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// Largest frame length it accepts, 4,096 to [`FRAME_LEN_MAX`] bytes of body.
    pub frame_len_max: usize,
    /// The number it drew when it started.
    pub nonce: u64,
    /// Name and version of its software, unverified; control characters are replaced.
    pub software: String,
}

/// What comes out of [`Incoming::next_input`].
#[derive(Debug)]
pub enum LinkInput<'a> {
    /// The neighbour's Hello came: the link can be used.
    Up(PeerHello),
    /// A frame for routing: `LabelGone`, `Data`, `DataOffer` or `Routed`.
    Frame(Frame<'a>),
    /// A frame that cannot be read; it is dropped and counted, the link stays.
    Malformed(FrameError),
}

/// Why a link has to be closed. The peer is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The stream of frames is broken beyond repair.
    #[error("broken frame")]
    Frame(#[source] FrameError),
    /// Something else came before Hello.
    #[error("first frame has kind {kind:#04x}, not Hello")]
    NotHello {
        /// Its kind.
        kind: u8,
    },
    /// The Hello cannot be read or has another magic.
    #[error("Hello cannot be read")]
    Hello(#[source] WireError),
    /// Hello came twice.
    #[error("second Hello")]
    SecondHello,
    /// The peer accepts only frames too short to be useful; in bytes.
    #[error("peer accepts frames up to {got} bytes, fewer than {want}")]
    FrameLenMax {
        /// What it accepts.
        got: u32,
        /// What every node must accept.
        want: usize,
    },
    /// The link leads to the node itself.
    #[error("link leads to this node itself")]
    Itself,
    /// No Hello came in time.
    #[error("no Hello for {} s", HELLO_WITHIN.as_secs())]
    HelloTimeout,
    /// Nothing was received for too long.
    #[error("no whole frame received for {} s", SILENCE_MAX.as_secs())]
    Silent,
}

impl LinkError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Frame(error) => error.hint(),
            Self::NotHello { .. } | Self::Hello(_) => {
                "check that the address is a link listener of fieldgate, and that both sides speak the same version"
            }
            Self::SecondHello => "upgrade the peer's software",
            Self::FrameLenMax { .. } => "raise the largest frame length of the peer",
            Self::Itself => "the configured address is this node's own listener: name the other node's",
            Self::HelloTimeout => "check that the address is a link listener of fieldgate",
            Self::Silent => "check the network path and whether the other node still runs",
        }
    }
}

/// What a link has seen since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Bytes received.
    pub bytes_received: u64,
    /// Whole frames received.
    pub frames_received: u64,
    /// Frames dropped because they could not be read.
    pub malformed: u64,
    /// Pings sent.
    pub pings_sent: u64,
    /// Pongs that answered the ping they should.
    pub pongs_matched: u64,
    /// Pongs that answered nothing.
    pub pongs_unmatched: u64,
    /// Pings not answered because too much was waiting to be sent.
    pub pongs_suppressed: u64,
}

/// One end of a link.
///
/// ```text
///  new ─▶ AwaitingHello ──Hello──▶ Up ──┐ Ping: Pong · every 15 s: Ping
///              │                   │ ▲──┘
///              │ 10 s, any other   │ 45 s of silence, second Hello, unknown kind, too long
///              └──────▶ Closed ◀───┘
/// ```
///
/// Invariant: after a method returned an error the state is Closed, and no input has an effect.
#[derive(Debug)]
pub struct Link {
    machine: Machine,
    reader: FrameReader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitingHello,
    Up,
    Closed,
}

/// Everything but the bytes, so that frames can be borrowed from the reader while this changes.
#[derive(Debug)]
struct Machine {
    state: State,
    nonce: u64,
    frame_len_max: usize,
    opened: Instant,
    last_received: Instant,
    next_ping: Instant,
    ping: Option<(u64, Instant)>,
    next_ping_id: u64,
    round_trip: RoundTrip,
    stats: LinkStats,
}

impl Link {
    /// Begins a link on a fresh connection and appends this side's Hello to `out`.
    #[must_use]
    pub fn new(now: Instant, settings: &LinkSettings, out: &mut Vec<u8>) -> Self {
        put_hello(
            out,
            &Hello {
                frame_len_max: u32::try_from(settings.frame_len_max).unwrap_or(u32::MAX),
                nonce: settings.nonce,
                software: &settings.software,
            },
        );
        let machine = Machine {
            state: State::AwaitingHello,
            nonce: settings.nonce,
            frame_len_max: settings.frame_len_max.min(FRAME_LEN_MAX),
            opened: now,
            last_received: now,
            next_ping: now,
            ping: None,
            next_ping_id: 1,
            round_trip: RoundTrip::default(),
            stats: LinkStats::default(),
        };
        Self {
            machine,
            reader: FrameReader::new(frame::HELLO_LEN_MAX),
        }
    }

    /// Takes bytes the connection received; the frames in them come out of the result.
    ///
    /// The result must be read to its end: what it was not asked for is lost, and the link takes no more bytes.
    pub fn receive<'a>(&'a mut self, now: Instant, bytes: &'a mut [u8]) -> Incoming<'a> {
        if self.machine.state != State::Closed {
            self.machine.stats.bytes_received += bytes.len() as u64;
        }
        Incoming {
            now,
            machine: &mut self.machine,
            frames: self.reader.read(bytes),
        }
    }

    /// Sends a ping if one is due, or finds the link dead.
    ///
    /// # Errors
    /// [`LinkError::HelloTimeout`] or [`LinkError::Silent`]: close the connection.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), LinkError> {
        let result = self.machine.handle_timeout(now, out);
        if result.is_ok() && now - self.machine.last_received >= PING_INTERVAL {
            // A silent link keeps no buffer of the size of its largest frame.
            self.reader.shrink();
        }
        result
    }

    /// Returns when [`Link::handle_timeout`] wants to be called, `None` after an error.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// Returns whether the neighbour's Hello has come and the link is not closed.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.machine.state == State::Up
    }

    /// Returns the measured round trip to the neighbour.
    #[must_use]
    pub const fn round_trip(&self) -> &RoundTrip {
        &self.machine.round_trip
    }

    /// Returns the counters.
    #[must_use]
    pub const fn stats(&self) -> LinkStats {
        self.machine.stats
    }
}

/// The inputs in bytes just received; see [`Link::receive`].
#[derive(Debug)]
pub struct Incoming<'a> {
    now: Instant,
    machine: &'a mut Machine,
    frames: RawFrames<'a>,
}

impl Incoming<'_> {
    /// Returns the next input, `None` at the end of the bytes. Answers of the link itself are appended to `out`.
    ///
    /// # Errors
    /// [`LinkError`]: close the connection; from then on the result is `Ok(None)`.
    pub fn next_input(&mut self, out: &mut Vec<u8>) -> Result<Option<LinkInput<'_>>, LinkError> {
        loop {
            let kind = match self.frames.peek_kind() {
                _ if self.machine.state == State::Closed => return Ok(None),
                Ok(Some(kind)) => {
                    // Bytes alone are no sign of life: behind a length that was damaged, or a frame that never ends, nothing is heard.
                    self.machine.last_received = self.now;
                    kind
                }
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.machine.closed(LinkError::Frame(error))),
            };
            match self.machine.state {
                State::AwaitingHello if kind != frame::KIND_HELLO => {
                    return Err(self.machine.closed(LinkError::NotHello { kind }));
                }
                State::AwaitingHello => {
                    let Some(raw) = self.frames.next_frame().ok().flatten() else {
                        return Ok(None);
                    };
                    let hello = self
                        .machine
                        .handle_hello(self.now, Hello::decode(raw.body), out)?;
                    self.frames.set_len_max(self.machine.frame_len_max);
                    return Ok(Some(LinkInput::Up(hello)));
                }
                State::Up if kind == frame::KIND_HELLO => {
                    return Err(self.machine.closed(LinkError::SecondHello));
                }
                State::Up | State::Closed => {}
            }
            if kind == frame::KIND_PING || kind == frame::KIND_PONG {
                let Some(raw) = self.frames.next_frame().ok().flatten() else {
                    return Ok(None);
                };
                match Frame::decode(raw.kind, raw.body) {
                    Ok(Frame::Ping(id)) => self.machine.handle_ping(id, out),
                    Ok(Frame::Pong(id)) => self.machine.handle_pong(self.now, id),
                    Ok(_) => {}
                    Err(error) => {
                        self.machine.stats.malformed += 1;
                        return Ok(Some(LinkInput::Malformed(error)));
                    }
                }
                continue;
            }
            let Some(raw) = self.frames.next_frame().ok().flatten() else {
                return Ok(None);
            };
            self.machine.stats.frames_received += 1;
            return match Frame::decode(raw.kind, raw.body) {
                Ok(frame) => Ok(Some(LinkInput::Frame(frame))),
                Err(error) if error.closes_link() => Err(self.machine.closed(LinkError::Frame(error))),
                Err(error) => {
                    self.machine.stats.malformed += 1;
                    Ok(Some(LinkInput::Malformed(error)))
                }
            };
        }
    }
}

impl Machine {
    const fn closed(&mut self, error: LinkError) -> LinkError {
        self.state = State::Closed;
        error
    }

    fn handle_hello(
        &mut self,
        now: Instant,
        hello: Result<Hello<'_>, WireError>,
        out: &mut Vec<u8>,
    ) -> Result<PeerHello, LinkError> {
        let hello = hello.map_err(|error| self.closed(LinkError::Hello(error)))?;
        if hello.nonce == self.nonce {
            return Err(self.closed(LinkError::Itself));
        }
        let frame_len_max = usize::try_from(hello.frame_len_max)
            .unwrap_or(usize::MAX)
            .min(FRAME_LEN_MAX);
        if frame_len_max < FRAME_LEN_MAX_AT_LEAST {
            let error = LinkError::FrameLenMax {
                got: hello.frame_len_max,
                want: FRAME_LEN_MAX_AT_LEAST,
            };
            return Err(self.closed(error));
        }
        self.state = State::Up;
        self.stats.frames_received += 1;
        // The first ping goes at once, so that the round trip is known before the first failover.
        self.send_ping(now, out);
        let software = hello.software.chars().map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        });
        Ok(PeerHello {
            frame_len_max,
            nonce: hello.nonce,
            software: software.collect(),
        })
    }

    fn handle_ping(&mut self, id: u64, out: &mut Vec<u8>) {
        self.stats.frames_received += 1;
        if out.len() > PONG_BACKLOG_MAX {
            self.stats.pongs_suppressed += 1;
            return;
        }
        put_pong(out, id);
    }

    fn handle_pong(&mut self, now: Instant, id: u64) {
        self.stats.frames_received += 1;
        match self.ping {
            Some((sent, at)) if sent == id => {
                self.ping = None;
                self.stats.pongs_matched += 1;
                self.round_trip.record(now - at);
            }
            _ => self.stats.pongs_unmatched += 1,
        }
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), LinkError> {
        match self.state {
            State::AwaitingHello if now >= self.opened + HELLO_WITHIN => {
                Err(self.closed(LinkError::HelloTimeout))
            }
            State::Up if now >= self.last_received + SILENCE_MAX => Err(self.closed(LinkError::Silent)),
            State::Up if now >= self.next_ping => {
                self.send_ping(now, out);
                Ok(())
            }
            State::AwaitingHello | State::Up | State::Closed => Ok(()),
        }
    }

    fn send_ping(&mut self, now: Instant, out: &mut Vec<u8>) {
        put_ping(out, self.next_ping_id);
        self.ping = Some((self.next_ping_id, now));
        self.next_ping_id = self.next_ping_id.wrapping_add(1);
        self.next_ping = now + PING_INTERVAL;
        self.stats.pings_sent += 1;
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::AwaitingHello => Some(self.opened + HELLO_WITHIN),
            State::Up => Some(self.next_ping.min(self.last_received + SILENCE_MAX)),
            State::Closed => None,
        }
    }
}

/// A link whose Hello takes longer is closed.
pub const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Time between pings: a link silent for so long has been pinged, a busy one has its round trip measured.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);
/// A link on which no whole frame was received for so long is closed: three pings were lost.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Every node accepts at least frames of this many bytes of body; handshake messages fit.
pub const FRAME_LEN_MAX_AT_LEAST: usize = 4_096;
/// Bytes waiting to be sent above which pings are not answered: a peer that does not read must not fill memory.
const PONG_BACKLOG_MAX: usize = 1 << 20;

#[cfg(test)]
pub(crate) mod tests;
