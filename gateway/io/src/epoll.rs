//! The backend that asks for readiness: edge-triggered, one send per connection and turn.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

use crate::{
    connection::{BufferClass, CloseReason, Connection, ConnectionId, ListenerId, Phase},
    datagram::DatagramId,
    handler::Handler,
    io::{Io, Port},
    shard::{Listener, Shard},
    storage::FileRef,
    sys::{
        self, Epoll, EpollEvent,
        messages::{self, Scratch},
    },
    waker::Waker,
};

mod writer;

use writer::Writer;

#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    waker: Waker,
    /// Started with the first durable write.
    writer: Option<Writer>,
    /// The last wait brought as many events as fit, so there are more to be had without waiting.
    full: bool,
}

/// Events of one turn, and the buffer all connections receive into, one after the other.
#[derive(Debug)]
pub(crate) struct Inbox {
    events: Vec<EpollEvent>,
    count: usize,
    scratch: Box<[u8]>,
    /// Made with the first datagram.
    datagrams: Option<Scratch>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            events: vec![EpollEvent { events: 0, u64: 0 }; EVENTS_MAX],
            count: 0,
            scratch: vec![0; SCRATCH_SIZE].into_boxed_slice(),
            datagrams: None,
        }
    }
}

impl Poller {
    pub(crate) fn new(waker: &Waker) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        if let Some(event) = waker.event() {
            epoll.add(event, libc::EPOLLIN, WAKE)?;
        }
        Ok(Self {
            epoll,
            waker: waker.clone(),
            writer: None,
            full: false,
        })
    }

    pub(crate) fn watch_listener(&self, listener: &Listener, id: ListenerId) -> io::Result<()> {
        self.epoll
            .add(listener.socket.as_fd(), libc::EPOLLIN, LISTENER | u64::from(id.0))
    }

    /// Watches an accepted connection.
    pub(crate) fn watch(&self, connection: &mut Connection, id: ConnectionId) -> io::Result<()> {
        connection.writable = true;
        self.watch_all(&connection.socket, id)
    }

    fn watch_all(&self, socket: &TcpStream, id: ConnectionId) -> io::Result<()> {
        self.epoll.add(
            socket.as_fd(),
            libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP,
            id.as_u64(),
        )
    }

    pub(crate) fn watch_datagrams(&self, socket: &UdpSocket, id: DatagramId) -> io::Result<()> {
        let flags = libc::EPOLLIN | libc::EPOLLOUT;
        self.epoll.add(socket.as_fd(), flags, DATAGRAMS | id.0.as_u64())
    }

    pub(crate) fn write_durable(
        &mut self,
        file: &FileRef,
        offset: u64,
        buffer: Vec<u8>,
        token: u64,
    ) -> Result<(), Vec<u8>> {
        if self.writer.is_none() {
            match Writer::spawn(self.waker.clone()) {
                Ok(writer) => self.writer = Some(writer),
                Err(_) => return Err(buffer),
            }
        }
        match &mut self.writer {
            Some(writer) => writer.write(file, offset, buffer, token),
            None => Err(buffer),
        }
    }

    /// Does what the handler asked for since the last wait.
    pub(crate) fn flush(&mut self, shard: &mut Shard) {
        for slot in &mut shard.listeners {
            if slot.as_ref().is_some_and(|listener| listener.closing) {
                *slot = None;
            }
        }
        for id in std::mem::take(&mut shard.dirty_datagrams) {
            if shard.send_datagrams(id).is_some_and(|socket| socket.closing) {
                shard.datagrams.remove(id.0);
            }
        }
        while !shard.dirty.is_empty() {
            let mut dirty = std::mem::take(&mut shard.dirty);
            for id in dirty.drain(..) {
                self.advance(shard, id);
            }
            // Losing a connection makes it dirty once more; otherwise this keeps the list's memory.
            if shard.dirty.is_empty() {
                shard.dirty = dirty;
            }
        }
    }

    fn advance(&self, shard: &mut Shard, id: ConnectionId) {
        let Some(connection) = shard.connections.get_mut(id) else {
            return;
        };
        connection.dirty = false;
        match connection.phase {
            Phase::Connecting => self.start_connect(shard, id),
            Phase::Gone => shard.release(id),
            Phase::Open | Phase::Closing => {
                if shard.check_queue(id) {
                    send(shard, id);
                }
            }
        }
    }

    fn start_connect(&self, shard: &mut Shard, id: ConnectionId) {
        let Some(connection) = shard.connections.get_mut(id) else {
            return;
        };
        let Some(address) = connection.address.take() else {
            return;
        };
        let socket = socket2::SockRef::from(&connection.socket);
        let started = socket
            .set_nonblocking(true)
            .and_then(|()| match socket.connect(&address) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
                // Watched only now: a socket that does not connect yet counts as hung up.
                Ok(()) | Err(_) => self.watch_all(&connection.socket, id),
            });
        if let Err(error) = started {
            shard.connect_failed(id, error);
        }
    }

    /// Waits at most `timeout`; the first `window` of it without being disturbed.
    pub(crate) fn wait(
        &mut self,
        inbox: &mut Inbox,
        timeout: Option<Duration>,
        window: Duration,
    ) -> io::Result<()> {
        let mut timeout = timeout;
        if !window.is_zero() && !self.full {
            sys::sleep(window);
            timeout = timeout.map(|timeout| timeout.saturating_sub(window));
        }
        inbox.count = self.epoll.wait(&mut inbox.events, timeout)?;
        self.full = inbox.count == inbox.events.len();
        Ok(())
    }
}

/// Sends what is queued as far as the kernel takes it.
fn send(shard: &mut Shard, id: ConnectionId) {
    let Some(connection) = shard.connections.get_mut(id) else {
        return;
    };
    while connection.writable && connection.outbox.stage() {
        shard.stats.sends += 1;
        shard.stats.system_calls += 1;
        let length = connection.outbox.unsent().len();
        match (&connection.socket).write(connection.outbox.unsent()) {
            Ok(count) => {
                shard.stats.bytes_sent += count as u64;
                connection.outbox.advance(count, &mut shard.pool);
                // Less than asked for: the kernel's buffer is full, and an edge comes when it no longer is.
                connection.writable = count == length;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.writable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                shard.lose(id, CloseReason::from_error(&error));
                return;
            }
        }
    }
    shard.after_send(id);
}

/// Tells the handler what the last wait brought.
pub(crate) fn dispatch(io: &mut Io, inbox: &mut Inbox, handler: &mut dyn Handler) {
    // First what is known to be readable: those had their share of an earlier turn and come before the new ones.
    let mut ready = std::mem::take(&mut io.shard.ready);
    let count = inbox.count.min(inbox.events.len());
    for index in 0..count {
        let Some(event) = inbox.events.get(index) else {
            break;
        };
        // The kernel's structure is packed on some machines: copy, do not borrow.
        let (flags, data) = (event.events.cast_signed(), event.u64);
        if data == WAKE {
            wake(io, handler);
        } else if data & LISTENER != 0 {
            if let Some(listener) = u32::try_from(data & !LISTENER)
                .ok()
                .and_then(|id| io.shard.listener(ListenerId(id)))
            {
                listener.readable = true;
            }
        } else if data & DATAGRAMS != 0 {
            let id = DatagramId(ConnectionId::from_u64(data & !DATAGRAMS));
            note_datagrams(&mut io.shard, id, flags);
        } else {
            note(&mut io.shard, ConnectionId::from_u64(data), flags);
        }
    }
    // That a connection is there comes before its first bytes, which may have come with it.
    io.tell(handler);
    accept_all(io, handler);
    ready.append(&mut io.shard.ready);
    for id in ready.drain(..) {
        receive(io, inbox, handler, id);
    }
    for id in std::mem::take(&mut io.shard.ready_datagrams) {
        receive_datagrams(io, inbox, handler, id);
    }
    // What is still readable was put on the shard's list meanwhile; otherwise keep the memory.
    if io.shard.ready.is_empty() {
        io.shard.ready = ready;
    }
}

fn wake(io: &mut Io, handler: &mut dyn Handler) {
    if let Port::Epoll(poller) = &mut io.port {
        poller.waker.clear();
    }
    loop {
        let done = match &mut io.port {
            Port::Epoll(Poller {
                writer: Some(writer), ..
            }) => writer.take_done(),
            Port::Epoll(_) | Port::Ring(_) => None,
        };
        let Some(done) = done else { break };
        io.shard.stats.writes += 1;
        handler.written(io, done.token, done.buffer, done.result);
    }
    handler.woken(io);
}

/// Notes what an event says about a connection; a stale name has no connection and is passed over.
fn note(shard: &mut Shard, id: ConnectionId, flags: libc::c_int) {
    let Some(connection) = shard.connections.get_mut(id) else {
        return;
    };
    if flags & (libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP) != 0 {
        connection.writable = true;
        if connection.phase == Phase::Connecting {
            match connection.socket.take_error() {
                Ok(None) => shard.connected(id),
                Ok(Some(error)) | Err(error) => return shard.connect_failed(id, error),
            }
        } else if connection.outbox.queued() > 0 {
            shard.mark_dirty(id);
        }
    }
    if flags & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLERR | libc::EPOLLHUP) != 0
        && let Some(connection) = shard.connections.get_mut(id)
    {
        connection.readable = true;
        connection.hung_up |= flags & (libc::EPOLLRDHUP | libc::EPOLLERR | libc::EPOLLHUP) != 0;
        shard.mark_ready(id);
    }
}

/// Notes what an event says about a datagram socket.
fn note_datagrams(shard: &mut Shard, id: DatagramId, flags: libc::c_int) {
    if flags & libc::EPOLLOUT != 0
        && let Some(socket) = shard.datagrams.get_mut(id.0)
    {
        socket.writable = true;
        if socket.wants_to_send() {
            shard.mark_datagrams_dirty(id);
        }
    }
    if flags & (libc::EPOLLIN | libc::EPOLLERR | libc::EPOLLHUP) != 0 {
        shard.mark_datagrams_ready(id);
    }
}

/// Receives from one datagram socket until the kernel has nothing more or its share of the turn is used up.
fn receive_datagrams(io: &mut Io, inbox: &mut Inbox, handler: &mut dyn Handler, id: DatagramId) {
    if let Some(socket) = io.shard.datagrams.get_mut(id.0) {
        socket.ready = false;
    }
    let scratch = inbox.datagrams.get_or_insert_with(Scratch::new);
    for _ in 0..DATAGRAM_BATCHES_PER_TURN {
        let Some(socket) = io.shard.datagrams.get_mut(id.0) else {
            return;
        };
        if !socket.readable || socket.closing || socket.retry_at != 0 {
            return;
        }
        io.shard.stats.system_calls += 1;
        match scratch.receive(socket.socket.as_fd()) {
            Ok(count) => {
                socket.readable = count == messages::BATCH || socket.may_have_more();
                for index in 0..count {
                    if let Some((path, bytes)) = scratch.datagram(index) {
                        io.receive_datagram(handler, id, path, bytes);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable = false,
            Err(error) => io.shard.datagrams_failed(id, error),
        }
    }
    io.shard.stats.throttled += 1;
    io.shard.mark_datagrams_ready(id);
}

/// Accepts from every listener that has something, up to a bound per turn.
fn accept_all(io: &mut Io, handler: &mut dyn Handler) {
    for index in (0_u32..).take(io.shard.listeners.len()) {
        let id = ListenerId(index);
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = io.shard.listener(id) else {
                break;
            };
            if !listener.readable || listener.retry_at != 0 || listener.closing {
                break;
            }
            match sys::accept(listener.socket.as_fd()) {
                Ok((socket, peer)) => io.accept(handler, id, TcpStream::from(socket), peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.readable = false,
                Err(error) => io.shard.accept_failed(id, &error),
            }
        }
    }
}

/// Receives from one connection until the kernel has nothing more, the handler wants no more, or its share is used up.
fn receive(io: &mut Io, inbox: &mut Inbox, handler: &mut dyn Handler, id: ConnectionId) {
    if let Some(connection) = io.shard.connections.get_mut(id) {
        connection.ready = false;
        if connection.peer_ended {
            // It was paused when the end came.
            return io.end_of_stream(handler, id);
        }
    }
    loop {
        let turn = io.shard.turn;
        let Some(connection) = io.shard.connections.get_mut(id) else {
            return;
        };
        if !connection.readable || !connection.wants_bytes() {
            return;
        }
        let room = connection.turn_allowance(turn).min(inbox.scratch.len());
        if room == 0 {
            io.shard.stats.throttled += 1;
            io.shard.mark_ready(id);
            return;
        }
        io.shard.stats.system_calls += 1;
        let scratch = inbox.scratch.get_mut(..room).unwrap_or_default();
        match (&connection.socket).read(scratch) {
            Ok(0) => {
                connection.readable = false;
                return io.end_of_stream(handler, id);
            }
            Ok(count) => {
                // A short read has emptied the socket, and what comes later brings a new edge; unless the end of the
                // stream has been announced already, which brings no other.
                connection.readable = count == room || connection.hung_up;
                if connection.phase == Phase::Closing {
                    connection.turn_bytes += count;
                }
                if let Some(bytes) = inbox.scratch.get_mut(..count) {
                    io.receive(handler, id, bytes);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return io.shard.lose(id, CloseReason::from_error(&error)),
        }
    }
}

/// Events taken in one wait.
const EVENTS_MAX: usize = 512;

/// One receive brings at most this.
const SCRATCH_SIZE: usize = BufferClass::Link.buffer_size();

/// Connections accepted from one listener in one turn, so that a flood of them does not starve those that are there.
const ACCEPTS_PER_TURN: usize = 64;

/// Batches of datagrams taken from one socket in one turn.
const DATAGRAM_BATCHES_PER_TURN: usize = 8;

/// Marks in the 64 bits of an event; names leave the topmost bit clear, and that of the index too: slots are few.
const WAKE: u64 = u64::MAX;
const LISTENER: u64 = 1 << 63;
const DATAGRAMS: u64 = 1 << 31;
