//! Datagram sockets: what a shard knows of one, and what waits in it to be sent.

use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    clock,
    connection::ConnectionId,
    handler::Handler,
    io::Io,
    shard::{ERROR_RETRY, Event, Shard, Stats},
    sys::messages::{self, Outgoing},
};

pub(crate) mod wire;

/// Names one datagram socket of one shard. A name is not used again while anyone could hold it, so a stale one is harmless.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatagramId(pub(crate) ConnectionId);

impl fmt::Debug for DatagramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "datagrams {}", self.0)
    }
}

/// Between whom a datagram goes. An answer goes the way its question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatagramPath {
    /// The other end.
    pub remote: SocketAddr,
    /// Our end. Received: known if the socket is bound to a wildcard, and a multicast address if it was sent to one.
    /// Sent: must be an address of this machine; `None` leaves the choice to the kernel.
    pub local: Option<IpAddr>,
}

impl From<SocketAddr> for DatagramPath {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}

/// How to bind a datagram socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramOptions {
    /// The only address datagrams come from and go to. The kernel then also tells when nobody listens there
    /// ([`Handler::datagram_failed`] with `ConnectionRefused`).
    pub remote: Option<SocketAddr>,
    /// Other shards may bind the same address, and the kernel spreads the senders over them.
    pub reuse_port: bool,
    /// Bytes the kernel keeps until they are received, and sends; it applies its own limits (`net.core.rmem_max`,
    /// `wmem_max`). 0 leaves its default.
    pub kernel_buffer: usize,
    /// Datagrams that are longer than the path takes are refused (`Failed` with `EMSGSIZE`), not cut to pieces.
    pub never_fragment: bool,
}

impl Default for DatagramOptions {
    fn default() -> Self {
        Self {
            remote: None,
            reuse_port: false,
            // A burst of some thousand small datagrams; what is not used costs nothing.
            kernel_buffer: 1 << 20,
            never_fragment: false,
        }
    }
}

/// One datagram socket. Which flags the two backends use is said at each.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    pub(crate) socket: UdpSocket,
    queue: Queue,
    /// A datagram was refused because the queue was full; `datagrams_drained` is owed.
    congested: bool,
    /// The handler wants no more of it.
    pub(crate) closing: bool,
    /// It is in the list of sockets to look at before the next wait.
    dirty: bool,
    /// It has one remote address, whose network can answer with errors.
    connected: bool,
    /// The kernel takes datagrams.
    pub(crate) writable: bool,
    /// Not before this time is receiving tried again; 0 if nothing is wrong.
    pub(crate) retry_at: u64,
    /// Epoll: there may be datagrams to receive; it is in the list of those.
    pub(crate) readable: bool,
    pub(crate) ready: bool,
    /// Ring: the kernel holds a receive, a poll for room to send, a cancellation of both.
    pub(crate) receiving: bool,
    pub(crate) polling: bool,
    pub(crate) cancelling: bool,
}

/// Datagrams on their way out, one after the other in one buffer.
#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    /// Bytes at the beginning of `bytes` that are sent.
    sent: usize,
}

#[derive(Debug)]
struct Entry {
    path: DatagramPath,
    length: usize,
}

impl Queue {
    fn push(&mut self, path: DatagramPath, bytes: &[u8]) -> bool {
        if self.entries.len() >= QUEUED_MAX
            || self.bytes.len() - self.sent + bytes.len() > QUEUED_BYTES_MAX
            || bytes.len() > DATAGRAM_MAX
        {
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        self.entries.push_back(Entry {
            path,
            length: bytes.len(),
        });
        true
    }

    /// The first datagrams, as many as one call sends.
    fn batch(&self) -> impl Iterator<Item = Outgoing<'_>> {
        let mut rest = self.bytes.get(self.sent..).unwrap_or_default();
        self.entries.iter().map(move |entry| {
            let (bytes, after) = rest.split_at(entry.length);
            rest = after;
            Outgoing {
                path: entry.path,
                bytes,
            }
        })
    }

    /// Forgets the first `count` datagrams; returns their bytes.
    fn advance(&mut self, count: usize) -> usize {
        let bytes = self.entries.drain(..count).map(|entry| entry.length).sum();
        self.sent += bytes;
        if self.entries.is_empty() {
            self.sent = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
        }
        bytes
    }

    /// Gives the room of what was sent to what comes.
    fn compact(&mut self) {
        self.bytes.drain(..self.sent);
        self.sent = 0;
    }
}

impl DatagramSocket {
    fn bind(addr: SocketAddr, options: &DatagramOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            // So that the same port can be bound for IPv4 as well, whatever net.ipv6.bindv6only says.
            socket.set_only_v6(true)?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if options.kernel_buffer > 0 {
            socket.set_recv_buffer_size(options.kernel_buffer)?;
            socket.set_send_buffer_size(options.kernel_buffer)?;
        }
        if addr.ip().is_unspecified() {
            messages::tell_local_address(socket.as_fd(), addr.is_ipv6())?;
        }
        if options.never_fragment {
            messages::never_fragment(socket.as_fd(), addr.is_ipv6())?;
        }
        socket.bind(&addr.into())?;
        if let Some(remote) = options.remote {
            socket.connect(&remote.into())?;
        }
        Ok(Self {
            socket: socket.into(),
            queue: Queue::default(),
            congested: false,
            closing: false,
            dirty: false,
            connected: options.remote.is_some(),
            writable: true,
            retry_at: 0,
            readable: false,
            ready: false,
            receiving: false,
            polling: false,
            cancelling: false,
        })
    }

    /// Sends what is queued as far as the kernel takes it. What goes wrong with one datagram is told, and costs only that.
    fn send(&mut self, stats: &mut Stats, mut failed: impl FnMut(SocketAddr, io::Error)) {
        while self.writable && !self.queue.entries.is_empty() {
            stats.system_calls += 1;
            match messages::send(self.socket.as_fd(), self.queue.batch()) {
                Ok(count) => {
                    stats.datagrams_sent += count as u64;
                    stats.bytes_sent += self.queue.advance(count) as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    stats.datagrams_failed += 1;
                    if let Some(entry) = self.queue.entries.front() {
                        failed(entry.path.remote, error);
                    }
                    self.queue.advance(1);
                }
            }
        }
        self.queue.compact();
    }

    /// Whether more may have come, when a receive brought fewer datagrams than it could have.
    pub(crate) const fn may_have_more(&self) -> bool {
        // A receive also ends where an error stands in the queue, which the next one tells.
        self.connected
    }

    /// Whether something waits until the kernel takes datagrams again.
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.queue.entries.is_empty()
    }

    /// Operations the ring's kernel side holds.
    pub(crate) const fn in_kernel(&self) -> bool {
        self.receiving || self.polling || self.cancelling
    }
}

impl Shard {
    /// Has the backend look at the socket before the next wait.
    pub(crate) fn mark_datagrams_dirty(&mut self, id: DatagramId) {
        if let Some(socket) = self.datagrams.get_mut(id.0)
            && !socket.dirty
        {
            socket.dirty = true;
            self.dirty_datagrams.push(id);
        }
    }

    /// Has the socket's datagrams received in this turn or the next.
    pub(crate) fn mark_datagrams_ready(&mut self, id: DatagramId) {
        if let Some(socket) = self.datagrams.get_mut(id.0) {
            socket.readable = true;
            if !socket.ready {
                socket.ready = true;
                self.ready_datagrams.push(id);
            }
        }
    }

    /// Sends what a socket has queued; returns the socket for what else the backend has to do with it.
    pub(crate) fn send_datagrams(&mut self, id: DatagramId) -> Option<&mut DatagramSocket> {
        let socket = self.datagrams.get_mut(id.0)?;
        socket.dirty = false;
        let events = &mut self.events;
        if !socket.closing {
            socket.send(&mut self.stats, |remote, error| {
                events.push_back(Event::DatagramFailed(id, Some(remote), error));
            });
            if socket.congested && !socket.wants_to_send() {
                socket.congested = false;
                events.push_back(Event::DatagramsDrained(id));
            }
        }
        Some(socket)
    }

    /// A receive has failed. What the network said is told; after anything else receiving pauses, so that it cannot spin.
    pub(crate) fn datagrams_failed(&mut self, id: DatagramId, error: io::Error) {
        let retry_at = self.now.saturating_add(clock::nanos(ERROR_RETRY));
        let Some(socket) = self.datagrams.get_mut(id.0) else {
            return;
        };
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED) => return,
            Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EMSGSIZE) => {}
            _ => {
                socket.retry_at = retry_at;
                self.paused_datagrams.push(id);
            }
        }
        self.stats.datagrams_failed += 1;
        if !socket.closing {
            self.events.push_back(Event::DatagramFailed(id, None, error));
        }
    }

    /// Lets sockets whose pause is over receive again.
    pub(crate) fn end_datagram_pauses(&mut self) {
        let mut paused = std::mem::take(&mut self.paused_datagrams);
        paused.retain(|&id| {
            let Some(socket) = self.datagrams.get_mut(id.0) else {
                return false;
            };
            if socket.retry_at > self.now {
                return true;
            }
            socket.retry_at = 0;
            self.mark_datagrams_ready(id);
            self.mark_datagrams_dirty(id);
            false
        });
        self.paused_datagrams = paused;
    }

    /// When the first pause is over.
    pub(crate) fn datagram_pause_end(&self) -> Option<u64> {
        let sockets = self.paused_datagrams.iter();
        let sockets = sockets.filter_map(|id| self.datagrams.get(id.0));
        sockets.map(|socket| socket.retry_at).min()
    }
}

impl Io {
    /// Binds a datagram socket to `addr` (port 0: any) and returns where. Each datagram that comes is one
    /// [`Handler::datagram`]; none is cut, however long.
    ///
    /// # Errors
    /// `QuotaExceeded` when the shard has all the sockets it may have; the kernel's: address in use, not ours, not
    /// permitted, remote address not reachable.
    pub fn bind_datagrams(
        &mut self,
        addr: SocketAddr,
        options: &DatagramOptions,
    ) -> io::Result<(DatagramId, SocketAddr)> {
        let table_full = || {
            io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the shard has all the datagram sockets it may have",
            )
        };
        if !self.shard.datagrams.has_room() {
            return Err(table_full());
        }
        let socket = DatagramSocket::bind(addr, options)?;
        let local = socket.socket.local_addr()?;
        let id = DatagramId(self.shard.datagrams.insert(socket).ok_or_else(table_full)?);
        if let Err(error) = self.watch_datagrams(id) {
            self.shard.datagrams.remove(id.0);
            return Err(error);
        }
        self.shard.mark_datagrams_dirty(id);
        Ok((id, local))
    }

    /// Closes a datagram socket at once; what is queued in it is sent before, as far as the kernel takes it.
    pub fn unbind_datagrams(&mut self, id: DatagramId) {
        if let Some(socket) = self.shard.send_datagrams(id) {
            socket.closing = true;
            self.shard.mark_datagrams_dirty(id);
        }
    }

    /// Queues one datagram, which is sent after the turn. Returns whether there was room: a full queue refuses (counted in
    /// [`Stats::datagrams_refused`]), and [`Handler::datagrams_drained`] comes when it is empty again.
    ///
    /// Never more than [`Self::DATAGRAM_MAX`] bytes; of a socket bound to one remote address the path must name that.
    pub fn send_datagram(&mut self, id: DatagramId, path: DatagramPath, bytes: &[u8]) -> bool {
        let Some(socket) = self.shard.datagrams.get_mut(id.0) else {
            return false;
        };
        if socket.closing {
            return false;
        }
        let taken = socket.queue.push(path, bytes);
        if !taken {
            socket.congested = true;
            self.shard.stats.datagrams_refused += 1;
        }
        self.shard.mark_datagrams_dirty(id);
        taken
    }

    /// Bytes in the longest datagram there is (UDP over IPv6, RFC 768; over IPv4 20 less).
    pub const DATAGRAM_MAX: usize = DATAGRAM_MAX;

    /// Datagrams that one socket queues for sending.
    pub const DATAGRAMS_QUEUED_MAX: usize = QUEUED_MAX;

    /// Hands a datagram to the handler.
    pub(crate) fn receive_datagram(
        &mut self,
        handler: &mut dyn Handler,
        id: DatagramId,
        path: Option<DatagramPath>,
        bytes: &mut [u8],
    ) {
        self.shard.stats.receives += 1;
        self.shard.stats.datagrams_received += 1;
        self.shard.stats.bytes_received += bytes.len() as u64;
        if let Some(path) = path
            && self.is_bound(id)
        {
            handler.datagram(self, id, path, bytes);
        }
    }
}

/// Payload of the longest datagram: what 16 bits of length say, without the header.
const DATAGRAM_MAX: usize = 65_535 - 8;

/// Datagrams queued in one socket.
const QUEUED_MAX: usize = 4096;

/// Bytes queued in one socket.
const QUEUED_BYTES_MAX: usize = 4 << 20;

/// Memory an idle socket keeps for the next datagrams.
const KEPT_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> DatagramPath {
        DatagramPath::from(SocketAddr::from(([127, 0, 0, 1], 9)))
    }

    #[test]
    fn a_queue_gives_back_what_was_put_in() {
        let mut queue = Queue::default();
        for length in [3, 0, 1500] {
            assert!(queue.push(path(), &vec![7; length]));
        }
        let lengths = |queue: &Queue| queue.batch().map(|one| one.bytes.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&queue), [3, 0, 1500]);
        assert_eq!(queue.advance(2), 3);
        assert!(queue.push(path(), &[1, 2]));
        assert_eq!(lengths(&queue), [1500, 2]);
        queue.compact();
        assert_eq!((lengths(&queue), queue.bytes.len()), (vec![1500, 2], 1502));
        assert_eq!(queue.advance(2), 1502);
        assert!(queue.batch().next().is_none() && queue.bytes.is_empty());
    }

    #[test]
    fn a_queue_is_bounded() {
        let mut queue = Queue::default();
        assert!(!queue.push(path(), &vec![0; DATAGRAM_MAX + 1]));
        assert_eq!(
            (0..10_000).filter(|_| queue.push(path(), &[0])).count(),
            QUEUED_MAX
        );
        let mut queue = Queue::default();
        let taken = (0..10_000).filter(|_| queue.push(path(), &[0; 60_000])).count();
        assert_eq!(taken, QUEUED_BYTES_MAX / 60_000);
        queue.advance(1);
        assert!(queue.push(path(), &[0; 60_000]), "what is sent counts no more");
    }
}
