//! One connection: its streams, and what waits for them.

use std::{net::SocketAddr, time::Instant as Moment};

use bytes::Bytes;
use fieldgate_proto::time::Instant;
use quinn_proto::{
    ConnectionError, ConnectionHandle, Dir, Event, ReadError, Side, StreamEvent, StreamId, WriteError,
};

use super::{
    CLOSING_TIME_MAX, DONE, VIOLATION,
    transport::{SEND_WINDOW_MAX, SEND_WINDOW_MIN},
};
use crate::lanes::{self, Incoming, LANES};

/// ```text
///  Opening ──handshake──▶ Open ──close──▶ Closing ──all arrived, 3 s──▶ Over
///     └──10 s, refused──────┴──lost, violation──────────────────────────▶┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Opening { by: Instant },
    Open,
    Closing { by: Instant },
    Over,
}

impl State {
    /// Returns when the state has lasted long enough.
    pub(super) const fn deadline(self) -> Option<Instant> {
        match self {
            Self::Opening { by } | Self::Closing { by } => Some(by),
            Self::Open | Self::Over => None,
        }
    }
}

/// What a connection has to say.
pub(super) enum Told {
    Opened { remote: SocketAddr },
    Received(Vec<u8>),
    Moved { remote: SocketAddr },
    Closed { was_open: bool, reason: String },
}

/// Frames that wait for their stream.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// How many of them the stream has taken.
    taken: usize,
}

impl Pending {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        self.taken += count;
        if self.taken >= self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
            self.taken = 0;
        } else if self.taken >= KEPT_BYTES {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) inner: quinn_proto::Connection,
    pub(super) handle: ConnectionHandle,
    pub(super) socket: u64,
    pub(super) dialled: bool,
    pub(super) state: State,
    /// When it is in the table of timers.
    pub(super) timer: Option<Instant>,
    remote: SocketAddr,
    incoming: Incoming,
    /// Streams that the other side has opened, and those of them that it has ended.
    theirs: usize,
    ended: [bool; LANES],
    /// By stream.
    outgoing: [Pending; LANES],
    finished: bool,
}

impl Connection {
    pub(super) fn new(
        inner: quinn_proto::Connection,
        handle: ConnectionHandle,
        socket: u64,
        dialled: bool,
    ) -> Self {
        Self {
            remote: inner.remote_address(),
            inner,
            handle,
            socket,
            dialled,
            state: State::Over,
            timer: None,
            incoming: Incoming::default(),
            theirs: 0,
            ended: [false; LANES],
            outgoing: Default::default(),
            finished: false,
        }
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.outgoing.iter().map(|pending| pending.rest().len()).sum()
    }

    /// Takes what the library has to say.
    pub(super) fn handle_event(&mut self, at: Moment, event: Event, told: &mut Vec<Told>) {
        match event {
            Event::Connected => {
                for (lane, priority) in (0..LANES).zip([2, 1, 0]) {
                    let opened = self.inner.streams().open(Dir::Uni);
                    let prioritised =
                        opened.is_some_and(|id| self.inner.send_stream(id).set_priority(priority).is_ok());
                    if !prioritised || opened != Some(self.stream(true, lane)) {
                        return self.violated(at, "it takes no streams", told);
                    }
                }
                if matches!(self.state, State::Opening { .. }) {
                    self.state = State::Open;
                    told.push(Told::Opened { remote: self.remote });
                }
            }
            Event::ConnectionLost { reason } => self.lost(&reason, told),
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                while self.inner.streams().accept(Dir::Uni).is_some() {
                    self.theirs += 1;
                }
            }
            Event::Stream(StreamEvent::Stopped { .. }) => {
                self.violated(at, "it does not want a stream", told);
            }
            Event::Stream(
                StreamEvent::Opened { dir: Dir::Bi }
                | StreamEvent::Readable { .. }
                | StreamEvent::Writable { .. }
                | StreamEvent::Finished { .. }
                | StreamEvent::Available { .. },
            )
            | Event::HandshakeDataReady
            | Event::DatagramReceived
            | Event::DatagramsUnblocked => {}
        }
    }

    /// Reads, writes and ends what can be.
    pub(super) fn advance(&mut self, now: Instant, at: Moment, told: &mut Vec<Told>) {
        if matches!(self.state, State::Open) {
            self.receive(at, told);
        }
        if matches!(self.state, State::Open) && self.inner.remote_address() != self.remote {
            self.remote = self.inner.remote_address();
            told.push(Told::Moved { remote: self.remote });
        }
        if matches!(self.state, State::Open | State::Closing { .. }) {
            self.send();
        }
        self.finish(at);
        if self.state.deadline().is_some_and(|by| now >= by) {
            if matches!(self.state, State::Opening { .. }) {
                told.push(Told::Closed {
                    was_open: false,
                    reason: "the handshake did not end in time".to_owned(),
                });
            }
            self.over(at);
        }
    }

    fn over(&mut self, at: Moment) {
        self.state = State::Over;
        self.inner.close(at, DONE, Bytes::new());
    }

    fn lost(&mut self, reason: &ConnectionError, told: &mut Vec<Told>) {
        let before = std::mem::replace(&mut self.state, State::Over);
        let was_open = matches!(before, State::Open);
        if was_open || matches!(before, State::Opening { .. }) {
            told.push(Told::Closed {
                was_open,
                reason: in_words(reason),
            });
        }
    }

    /// Ends a connection whose other side does what no link does.
    fn violated(&mut self, at: Moment, what: &str, told: &mut Vec<Told>) {
        let before = std::mem::replace(&mut self.state, State::Over);
        if !matches!(before, State::Over) {
            self.inner
                .close(at, VIOLATION, Bytes::copy_from_slice(what.as_bytes()));
            told.push(Told::Closed {
                was_open: matches!(before, State::Open),
                reason: what.to_owned(),
            });
        }
    }

    /// Returns the identifier of a stream, ours or theirs.
    fn stream(&self, is_ours: bool, lane: usize) -> StreamId {
        let initiator = if self.dialled == is_ours {
            Side::Client
        } else {
            Side::Server
        };
        StreamId::new(initiator, Dir::Uni, lane as u64)
    }

    /// Takes what has come on the streams.
    fn receive(&mut self, at: Moment, told: &mut Vec<Told>) {
        let mut frames = Vec::new();
        let mut violation = None;
        for lane in 0..self.theirs.min(LANES) {
            if self.incoming.takes(lane) && !self.ended.get(lane).is_none_or(|ended| *ended) {
                violation = self.receive_lane(lane, &mut frames).err().or(violation);
            }
        }
        if !frames.is_empty() {
            told.push(Told::Received(frames));
        }
        if let Some(violation) = violation {
            self.violated(at, violation, told);
        } else if self.ended.iter().all(|ended| *ended) {
            told.push(Told::Closed {
                was_open: true,
                reason: "the other side ended the link".to_owned(),
            });
            self.over(at);
        }
    }

    fn receive_lane(&mut self, lane: usize, frames: &mut Vec<u8>) -> Result<(), &'static str> {
        let id = self.stream(false, lane);
        let mut bytes = Vec::new();
        let mut stream = self.inner.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            return Err("a stream is closed");
        };
        let mut result = Ok(());
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.bytes),
                Ok(None) => {
                    if let Some(ended) = self.ended.get_mut(lane) {
                        *ended = true;
                    }
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(_)) => {
                    result = Err("a stream was cut off");
                    break;
                }
            }
        }
        // What is to be sent for it is asked for in the same turn.
        let _ = chunks.finalize();
        self.incoming
            .receive(lane, &mut bytes, frames)
            .map_err(|_| "a frame is too long")?;
        result
    }

    /// Takes whole frames to send.
    pub(super) fn write(&mut self, frames: &[u8]) {
        for (lane, range) in lanes::pieces(frames) {
            if let (Some(pending), Some(piece)) = (self.outgoing.get_mut(lane), frames.get(range)) {
                pending.bytes.extend_from_slice(piece);
            }
        }
        self.send();
    }

    /// Gives the streams as much as is sensible to hold: twice what the network takes at a time. Of that bulk may use three
    /// quarters and normal seven eighths, so that an alarm always finds room.
    fn send(&mut self) {
        let window = self.inner.congestion_state().window();
        let room = window.saturating_mul(2).clamp(SEND_WINDOW_MIN, SEND_WINDOW_MAX);
        for lane in 0..LANES {
            let id = self.stream(true, lane);
            let Some(pending) = self.outgoing.get_mut(lane) else {
                return;
            };
            self.inner.set_send_window(room - room / 8 * lane as u64);
            while !pending.rest().is_empty() {
                match self.inner.send_stream(id).write(pending.rest()) {
                    Ok(count) => pending.advance(count),
                    Err(WriteError::Blocked) => break,
                    // The end of the connection is told by an event of its own.
                    Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return,
                }
            }
        }
    }

    /// Begins to end the connection.
    pub(super) fn close(&mut self, now: Instant, at: Moment) {
        match self.state {
            State::Open => {
                self.state = State::Closing {
                    by: now + CLOSING_TIME_MAX,
                };
            }
            State::Opening { .. } => self.over(at),
            State::Closing { .. } | State::Over => {}
        }
    }

    /// Ends the streams when everything is in them, and the connection when everything has arrived.
    fn finish(&mut self, at: Moment) {
        if !matches!(self.state, State::Closing { .. }) {
            return;
        }
        if !self.finished && self.queued_bytes() == 0 {
            self.finished = true;
            for lane in 0..LANES {
                let id = self.stream(true, lane);
                // One that the other side has stopped has nothing to arrive.
                let _ = self.inner.send_stream(id).finish();
            }
        }
        if self.finished && self.inner.streams().send_streams() == 0 {
            self.over(at);
        }
    }
}

/// Says why a connection is lost, to an operator.
fn in_words(reason: &ConnectionError) -> String {
    match reason {
        ConnectionError::ApplicationClosed(close) if close.error_code == DONE => {
            "the other side closed the connection".to_owned()
        }
        ConnectionError::TimedOut => "no answer".to_owned(),
        ConnectionError::Reset => "the other side has begun anew".to_owned(),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => reason.to_string(),
    }
}

/// Memory that a stream's queue keeps, and gives the room of what was sent back after.
const KEPT_BYTES: usize = 64 << 10;
