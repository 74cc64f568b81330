use std::{
    fmt, io,
    net::{Shutdown, SocketAddr, TcpStream},
};

use socket2::{SockAddr, SockRef};

use crate::outbox::{BufferPool, Outbox};

/// Names one connection of one shard. A name is not used again while anyone could hold it, so a stale one is harmless.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ConnectionId {
    /// Returns the name as a number, unique within the shard.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        ((self.generation as u64) << 32) | self.index as u64
    }

    /// Undoes [`Self::as_u64`].
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are taken apart")]
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self {
            index: number as u32,
            generation: (number >> 32) as u32,
        }
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// Names one listener of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub(crate) u32);

/// What a connection carries, which decides how large the buffers are that it receives into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BufferClass {
    /// Many small messages on many connections: 4 KiB at a time.
    #[default]
    Device,
    /// Large records on few connections: 64 KiB at a time.
    Link,
}

impl BufferClass {
    /// Bytes a single receive can bring.
    #[must_use]
    pub const fn buffer_size(self) -> usize {
        match self {
            Self::Device => 4 << 10,
            Self::Link => 64 << 10,
        }
    }

    /// Bytes one connection can bring in one turn, so that a fast peer leaves room for the others.
    #[must_use]
    pub const fn turn_bytes_max(self) -> usize {
        match self {
            // What the kernel brings for one connection before it goes on to the next: 32 buffers.
            Self::Device => 128 << 10,
            Self::Link => 1 << 20,
        }
    }
}

/// Why a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer ended its stream, and this side closed after that.
    Peer,
    /// This side closed; what was queued has been handed to the kernel.
    Local,
    /// This side aborted; what was queued is lost.
    Aborted,
    /// The peer reset the connection.
    Reset,
    /// The peer has stopped answering (keep-alive or retransmission ran out).
    TimedOut,
    /// This side closed, and the peer did not take what was queued within [`crate::Settings::close_timeout`].
    Unflushed,
    /// More was queued than [`crate::Settings::queued_bytes_max`].
    Overrun,
    /// Any other error of the kernel, by its number.
    Failed {
        /// `errno`.
        errno: i32,
    },
}

impl CloseReason {
    /// Sorts an error of a send or receive.
    pub(crate) fn from_error(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE | libc::ENOTCONN) => Self::Reset,
            Some(libc::ETIMEDOUT) => Self::TimedOut,
            Some(errno) => Self::Failed { errno },
            None => Self::Failed { errno: libc::EIO },
        }
    }
}

/// ```text
///  Connecting ──▶ Open ──close──▶ Closing ──▶ Gone ──kernel holds nothing──▶ (slot free)
///      └───────────┴──error, abort───────────▶ ┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Connecting,
    Open,
    /// The handler has closed. What is queued is sent, then what still comes is thrown away until the peer closes too:
    /// closing with unread bytes would make the kernel send a reset, which can destroy our last words on their way.
    Closing,
    /// The handler has been told or will be at the end of this turn. Waits for the kernel to give back what it holds.
    Gone,
}

/// One connection. Which flags the two backends use is said at each.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) phase: Phase,
    pub(crate) class: BufferClass,
    pub(crate) socket: TcpStream,
    pub(crate) outbox: Outbox,
    /// Received bytes the handler has not seen: it paused, or had its share of the turn. Only the ring needs it.
    pub(crate) backlog: Vec<u8>,
    /// Where a connecting socket goes; the ring's kernel side reads it.
    pub(crate) address: Option<Box<SockAddr>>,
    /// When connecting or closing has taken too long; `u64::MAX` otherwise.
    pub(crate) deadline: u64,
    /// The turn `turn_bytes` counts for.
    pub(crate) turn: u64,
    pub(crate) turn_bytes: usize,
    /// What `closed` will say when closing has gone well.
    pub(crate) reason: CloseReason,
    /// The handler does not want to receive.
    pub(crate) paused: bool,
    /// The peer has ended its stream.
    pub(crate) peer_ended: bool,
    /// The handler has been told so.
    pub(crate) ended_reported: bool,
    /// The handler will write no more: end our stream when the outbox is empty.
    pub(crate) finishing: bool,
    /// Our stream is ended.
    pub(crate) finished: bool,
    /// More than the high-water mark was queued; `drained` is owed.
    pub(crate) congested: bool,
    /// Closing drops the connection with a reset.
    pub(crate) reset: bool,
    /// It is in the list of connections to look at before the next wait.
    pub(crate) dirty: bool,
    /// It is in the list of connections with something to receive without the kernel's help.
    pub(crate) ready: bool,
    /// Ring: the kernel holds a receive, a send, a connect, a cancellation of the receive or of everything.
    pub(crate) receiving: bool,
    pub(crate) sending: bool,
    pub(crate) connecting: bool,
    pub(crate) cancelling: bool,
    pub(crate) cancelling_all: bool,
    /// Ring: the socket is in the table of registered files.
    pub(crate) registered: bool,
    /// Epoll: the socket may have bytes; the socket can take bytes.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Epoll: the peer has ended its stream or the connection has failed, so a short read does not mean that all was read.
    pub(crate) hung_up: bool,
}

impl Connection {
    pub(crate) const fn new(socket: TcpStream, phase: Phase, class: BufferClass) -> Self {
        Self {
            phase,
            class,
            socket,
            outbox: Outbox::new(),
            backlog: Vec::new(),
            address: None,
            deadline: u64::MAX,
            turn: 0,
            turn_bytes: 0,
            reason: CloseReason::Local,
            paused: false,
            peer_ended: false,
            ended_reported: false,
            finishing: false,
            finished: false,
            congested: false,
            reset: false,
            dirty: false,
            ready: false,
            receiving: false,
            sending: false,
            connecting: false,
            cancelling: false,
            cancelling_all: false,
            registered: false,
            readable: false,
            writable: false,
            hung_up: false,
        }
    }

    /// Operations the ring's kernel side holds that may touch this connection's memory or socket.
    pub(crate) fn operations(&self) -> i32 {
        i32::from(self.receiving) + i32::from(self.sending) + i32::from(self.connecting)
    }

    /// Bytes the handler may still get in turn `turn`.
    pub(crate) const fn turn_allowance(&mut self, turn: u64) -> usize {
        if self.turn != turn {
            self.turn = turn;
            self.turn_bytes = 0;
        }
        self.class.turn_bytes_max().saturating_sub(self.turn_bytes)
    }

    /// Whether bytes of the peer are wanted now.
    pub(crate) const fn wants_bytes(&self) -> bool {
        match self.phase {
            Phase::Open => !self.paused && self.backlog.is_empty() && !self.peer_ended,
            Phase::Closing => !self.peer_ended,
            Phase::Connecting | Phase::Gone => false,
        }
    }

    /// Ends our stream if that is due, and returns why the connection is over if it is.
    pub(crate) fn settle(&mut self) -> Option<CloseReason> {
        if self.finishing && !self.finished && self.outbox.queued() == 0 {
            self.finished = true;
            // Fails only when the peer has reset the connection, which the receive tells.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        (self.phase == Phase::Closing && self.finished && self.peer_ended).then_some(self.reason)
    }

    /// Makes the close that follows a reset, which discards what the kernel still has to send.
    pub(crate) fn arm_reset(&self) {
        // Without it the close is an orderly one, which is as far as we can go.
        let _ = SockRef::from(&self.socket).set_linger(Some(std::time::Duration::ZERO));
    }
}

/// Removes the kernel's and the pool's interest in a connection that nobody holds any more.
pub(crate) fn dismantle(mut connection: Connection, pool: &mut BufferPool) {
    assert!(
        connection.operations() == 0,
        "a connection was freed while the kernel used its memory"
    );
    connection.outbox.clear(pool);
    if connection.reset {
        connection.arm_reset();
    }
}

/// Returns the address of the peer, in the form a handler gets it.
pub(crate) fn peer_address(socket: &TcpStream) -> io::Result<SocketAddr> {
    socket.peer_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_in_a_number() {
        let id = ConnectionId {
            index: 0xfedc_ba98,
            generation: 0x7654_3210,
        };
        assert_eq!(ConnectionId::from_u64(id.as_u64()), id);
        assert_eq!(id.to_string(), "4275878552.1985229328");
    }
}
