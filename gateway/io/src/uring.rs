//! The backend that gets completions from a ring: multishot accept and receive into provided buffers, one system call per turn under load.
#![expect(
    unsafe_code,
    reason = "entries of the submission queue carry pointers the kernel uses later"
)]

use std::{io, net::TcpStream, os::fd::AsRawFd};

use io_uring::{
    IoUring, opcode, squeue,
    types::{self, CancelBuilder},
};

use crate::{
    connection::{BufferClass, Connection, ConnectionId, Phase},
    datagram::{DatagramId, DatagramSocket, wire},
    shard::{Listener, Settings, Shard},
    storage::FileRef,
    sys,
    waker::Waker,
};

mod buffers;
mod dispatch;
mod operation;
mod probe;
mod setup;
mod wait;
mod writes;

use buffers::BufferRing;
pub(crate) use dispatch::dispatch;
use operation::Operation;
pub(crate) use probe::{ProbeError, probe};
use writes::WriteTable;

/// One entry of the completion queue.
#[derive(Clone, Copy, Debug)]
struct Completion {
    token: u64,
    result: i32,
    flags: u32,
}

/// Completions of one turn, and the buffers the kernel receives into.
#[derive(Debug)]
pub(crate) struct Inbox {
    completions: Vec<Completion>,
    device: BufferRing,
    link: BufferRing,
    datagrams: BufferRing,
}

impl Inbox {
    const fn buffers(&mut self, class: BufferClass) -> &mut BufferRing {
        match class {
            BufferClass::Device => &mut self.device,
            BufferClass::Link => &mut self.link,
        }
    }
}

/// Number of the buffer group of a class.
const fn group(class: BufferClass) -> u16 {
    match class {
        BufferClass::Device => 0,
        BufferClass::Link => 1,
    }
}

/// Group of the buffers that datagrams come in.
const DATAGRAM_GROUP: u16 = 2;

pub(crate) struct Ring {
    ring: IoUring,
    waker: Waker,
    wake_armed: bool,
    /// Operations the kernel holds. While it is above 0 no memory they use may be freed.
    in_flight: usize,
    /// Sockets in slots below this are used through the table of registered files, which saves looking them up.
    registered_max: u32,
    enter_flags: u32,
    writes: WriteTable,
    /// How datagrams are received; the kernel reads it when a receive is submitted, and maybe later.
    datagram_header: Box<DatagramHeader>,
    /// Completions taken in order to make room, not dispatched yet.
    spill: Vec<Completion>,
    /// Connections whose receives are looked at when all sends are queued; kept for its memory.
    receives: Vec<ConnectionId>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("parameters", self.ring.params())
            .field("in_flight", &self.in_flight)
            .field("registered_max", &self.registered_max)
            .finish_non_exhaustive()
    }
}

/// Builds an entry for a connection's socket, through the registered file if there is one.
macro_rules! for_socket {
    ($connection:expr, $id:expr, |$target:ident| $build:expr) => {
        if $connection.registered {
            let $target = types::Fixed($id.index);
            $build
        } else {
            let $target = types::Fd($connection.socket.as_raw_fd());
            $build
        }
    };
}

impl Ring {
    /// Makes the ring of a shard: disabled, buffers and files registered, restricted, and only then enabled.
    pub(crate) fn new(settings: &Settings, waker: &Waker) -> io::Result<(Self, Inbox)> {
        let ring = setup::build(SUBMISSIONS, COMPLETIONS)?;
        let device = BufferRing::register(
            &ring,
            group(BufferClass::Device),
            settings.device_buffers,
            BufferClass::Device.buffer_size(),
        )?;
        let link = BufferRing::register(
            &ring,
            group(BufferClass::Link),
            settings.link_buffers,
            BufferClass::Link.buffer_size(),
        )?;
        let datagrams = BufferRing::register(
            &ring,
            DATAGRAM_GROUP,
            settings.datagram_buffers,
            wire::RECEIVED_HEADER_SIZE + wire::NAME_SIZE + wire::CONTROL_SIZE + (64 << 10),
        )?;
        let registered_max = setup::register_files(&ring, settings.connections_max);
        setup::enable(&ring)?;
        let ring = Self {
            enter_flags: setup::enter_flags(ring.params()),
            ring,
            waker: waker.clone(),
            wake_armed: false,
            in_flight: 0,
            registered_max,
            writes: WriteTable::new(),
            datagram_header: Box::default(),
            spill: Vec::new(),
            receives: Vec::new(),
        };
        Ok((
            ring,
            Inbox {
                completions: Vec::with_capacity(COMPLETIONS as usize),
                device,
                link,
                datagrams,
            },
        ))
    }

    /// Puts an entry into the submission queue.
    ///
    /// # Safety
    /// What the entry points to must stay valid and untouched until its completion has come (`in_flight`).
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        for _ in 0..PUSH_ATTEMPTS {
            let mut queue = self.ring.submission();
            // SAFETY: the caller promises what is needed.
            let pushed = unsafe { queue.push(entry) };
            drop(queue);
            if pushed.is_ok() {
                self.in_flight += 1;
                return;
            }
            // The queue is full. If the kernel does not take entries because completions pile up, take those.
            let _ = self.submit();
            let mut spill = std::mem::take(&mut self.spill);
            self.reap(&mut spill);
            self.spill = spill;
        }
        panic!("the kernel takes no entries from a full submission queue");
    }

    /// Puts in an entry that points to nothing.
    fn push_plain(&mut self, entry: &squeue::Entry) {
        // SAFETY: callers pass entries with numbers only: cancellations, polls, accepts without an address, and receives
        // into the registered buffers, which live until the ring is shut down.
        unsafe { self.push(entry) };
    }

    /// Uses the table of registered files for a fresh connection, where there is room in it.
    pub(crate) fn register(&self, connection: &mut Connection, id: ConnectionId) {
        if id.index < self.registered_max {
            let descriptor = [connection.socket.as_raw_fd()];
            let result = self.ring.submitter().register_files_update(id.index, &descriptor);
            connection.registered = matches!(result, Ok(1));
        }
    }

    /// Takes the connection out of the table and frees it; only when the kernel holds nothing of it.
    fn release(&self, shard: &mut Shard, id: ConnectionId) {
        if let Some(connection) = shard.connections.get_mut(id)
            && std::mem::take(&mut connection.registered)
        {
            let result = self.ring.submitter().register_files_update(id.index, &[-1]);
            assert!(
                matches!(result, Ok(1)),
                "a registered file cannot be taken out: {result:?}"
            );
        }
        shard.release(id);
    }

    pub(crate) fn write_durable(
        &mut self,
        file: &FileRef,
        offset: u64,
        buffer: Vec<u8>,
        token: u64,
    ) -> Result<(), Vec<u8>> {
        let index = self.writes.insert(file, offset, buffer, token)?;
        self.push_write(index);
        Ok(())
    }

    /// Writes what is left of a write.
    fn push_write(&mut self, index: u32) {
        if let Some(write) = self.writes.get(index) {
            let rest = write.rest();
            let entry = opcode::Write::new(types::Fd(write.descriptor()), rest.as_ptr(), chunk(rest))
                .offset(write.position())
                .rw_flags(libc::RWF_DSYNC)
                .build()
                .user_data(Operation::Write.token_of(index));
            // SAFETY: the buffer and the file belong to the table, which keeps both until the completion is dispatched.
            unsafe { self.push(&entry) };
        }
    }

    /// Does what the handler asked for since the last wait. The entries are submitted by the next wait.
    pub(crate) fn flush(&mut self, shard: &mut Shard) {
        if !self.wake_armed
            && let Some(event) = self.waker.event()
        {
            let entry = opcode::PollAdd::new(types::Fd(event.as_raw_fd()), libc::POLLIN as u32)
                .multi(true)
                .build()
                .user_data(Operation::Wake.token_of(0));
            self.wake_armed = true;
            self.push_plain(&entry);
        }
        for (index, slot) in (0_u32..).zip(&mut shard.listeners) {
            if let Some(listener) = slot
                && self.flush_listener(listener, index)
            {
                *slot = None;
            }
        }
        for id in std::mem::take(&mut shard.dirty_datagrams) {
            if let Some(socket) = shard.send_datagrams(id)
                && self.flush_datagrams(socket, id)
            {
                shard.datagrams.remove(id.0);
            }
        }
        // Receives come behind all sends: what was just written is in the processor's cache until they bring more.
        let mut receives = std::mem::take(&mut self.receives);
        while !shard.dirty.is_empty() {
            let mut dirty = std::mem::take(&mut shard.dirty);
            for id in dirty.drain(..) {
                self.advance(shard, id);
                receives.push(id);
            }
            // Losing a connection makes it dirty once more; otherwise this keeps the list's memory.
            if shard.dirty.is_empty() {
                shard.dirty = dirty;
            }
        }
        for id in receives.drain(..) {
            if let Some(connection) = shard.connections.get_mut(id) {
                self.direct_receive(connection, id);
            }
        }
        self.receives = receives;
    }

    /// Arms or disarms a listener; returns whether it can be dropped.
    fn flush_listener(&mut self, listener: &mut Listener, index: u32) -> bool {
        if listener.closing {
            if listener.armed && !listener.cancelling {
                listener.cancelling = true;
                let accept = Operation::Accept.token_of(index);
                let entry = opcode::AsyncCancel::new(accept).build();
                self.push_plain(&entry.user_data(Operation::CancelAccept.token_of(index)));
            }
            return !listener.armed && !listener.cancelling;
        }
        if !listener.armed && listener.retry_at == 0 {
            listener.armed = true;
            let entry = opcode::AcceptMulti::new(types::Fd(listener.socket.as_raw_fd()))
                .flags(libc::SOCK_CLOEXEC)
                .build()
                .user_data(Operation::Accept.token_of(index));
            self.push_plain(&entry);
        }
        false
    }

    /// Has the kernel do for a datagram socket what is due; returns whether the socket can be dropped.
    fn flush_datagrams(&mut self, socket: &mut DatagramSocket, id: DatagramId) -> bool {
        let descriptor = types::Fd(socket.socket.as_raw_fd());
        if socket.closing {
            if (socket.receiving || socket.polling) && !socket.cancelling {
                socket.cancelling = true;
                let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(descriptor).all()).build();
                self.push_plain(&entry.user_data(Operation::CancelDatagrams.token(id.0)));
            }
            return !socket.in_kernel();
        }
        if !socket.receiving && socket.retry_at == 0 {
            socket.receiving = true;
            let header = &raw const self.datagram_header.0;
            let entry = opcode::RecvMsgMulti::new(descriptor, header, DATAGRAM_GROUP).build();
            // SAFETY: the header points to nothing, is never changed, and stays until the ring is shut down.
            unsafe { self.push(&entry.user_data(Operation::ReceiveDatagrams.token(id.0))) };
        }
        if !socket.writable && !socket.polling {
            socket.polling = true;
            let entry = opcode::PollAdd::new(descriptor, libc::POLLOUT as u32).build();
            self.push_plain(&entry.user_data(Operation::PollDatagrams.token(id.0)));
        }
        false
    }

    fn advance(&mut self, shard: &mut Shard, id: ConnectionId) {
        let Some(connection) = shard.connections.get_mut(id) else {
            return;
        };
        connection.dirty = false;
        match connection.phase {
            Phase::Connecting => self.start_connect(connection, id),
            Phase::Gone if connection.operations() == 0 => self.release(shard, id),
            Phase::Gone => self.cancel_all(connection, id),
            Phase::Open | Phase::Closing => {
                if !shard.check_queue(id) {
                    return;
                }
                self.start_send(shard, id);
                shard.after_send(id);
            }
        }
    }

    fn start_connect(&mut self, connection: &mut Connection, id: ConnectionId) {
        if connection.connecting {
            return;
        }
        self.register(connection, id);
        if let Some(address) = &connection.address {
            connection.connecting = true;
            let entry = for_socket!(connection, id, |socket| {
                opcode::Connect::new(socket, address.as_ptr().cast(), address.len()).build()
            });
            // SAFETY: the boxed address stays with the connection until the completion clears `connecting`, and a
            // connection is not freed before that.
            unsafe { self.push(&entry.user_data(Operation::Connect.token(id))) };
        }
    }

    fn start_send(&mut self, shard: &mut Shard, id: ConnectionId) {
        let Some(connection) = shard.connections.get_mut(id) else {
            return;
        };
        if connection.sending || !connection.outbox.stage() {
            return;
        }
        connection.sending = true;
        shard.stats.sends += 1;
        let unsent = connection.outbox.unsent();
        let entry = for_socket!(connection, id, |socket| {
            // With WAITALL the kernel goes on by itself after a partial send: one completion per buffer.
            opcode::Send::new(socket, unsent.as_ptr(), chunk(unsent))
                .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                .build()
        });
        // SAFETY: these bytes are the outbox's buffer in flight, which is not touched while `sending` is set, and a
        // connection is not freed before the completion has cleared that.
        unsafe { self.push(&entry.user_data(Operation::Send.token(id))) };
    }

    /// Receives, or stops receiving, as the connection wants.
    fn direct_receive(&mut self, connection: &mut Connection, id: ConnectionId) {
        if !matches!(connection.phase, Phase::Open | Phase::Closing) {
            return;
        }
        if connection.wants_bytes() {
            if !connection.receiving {
                connection.receiving = true;
                connection.receiving_into = connection.receive_into();
                let into = connection.receiving_into;
                let size = u32::try_from(into.buffer_size()).unwrap_or(u32::MAX);
                let entry = for_socket!(connection, id, |socket| match connection.class {
                    BufferClass::Device => opcode::RecvMulti::new(socket, group(into)).build(),
                    // One buffer at a time: who gets it stops it whenever what it leads to is full, and what a receive that goes on
                    // had brought by then would have to be kept. The kernel puts in the address of the buffer.
                    BufferClass::Link => opcode::Recv::new(socket, std::ptr::null_mut(), size)
                        .buf_group(group(into))
                        .build()
                        .flags(squeue::Flags::BUFFER_SELECT),
                });
                self.push_plain(&entry.user_data(Operation::receive(into).token(id)));
            }
        } else if connection.receiving && !connection.cancelling && !connection.peer_ended {
            connection.cancelling = true;
            let receive = Operation::receive(connection.receiving_into).token(id);
            let entry = opcode::AsyncCancel::new(receive).build();
            self.push_plain(&entry.user_data(Operation::CancelReceive.token(id)));
        }
    }

    /// Takes back from the kernel whatever it does for the connection.
    fn cancel_all(&mut self, connection: &mut Connection, id: ConnectionId) {
        if connection.cancelling_all {
            return;
        }
        connection.cancelling_all = true;
        let builder = for_socket!(connection, id, |socket| CancelBuilder::fd(socket)).all();
        let entry = opcode::AsyncCancel2::new(builder).build();
        self.push_plain(&entry.user_data(Operation::CancelAll.token(id)));
    }
}

/// The header of every receive of datagrams: only the room for names and control messages counts in it.
struct DatagramHeader(libc::msghdr);

impl Default for DatagramHeader {
    fn default() -> Self {
        // SAFETY: the header is integers and pointers, for which zeroes are valid.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_namelen = sys::messages::NAME_LENGTH;
        header.msg_controllen = wire::CONTROL_SIZE as _;
        Self(header)
    }
}

/// A socket from an accept completion.
fn accepted(descriptor: i32) -> TcpStream {
    TcpStream::from(sys::own_accepted(descriptor))
}

/// Length of the next piece of `bytes`, in the 32 bits the kernel takes; what is left follows after its completion.
fn chunk(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(CHUNK_MAX).min(CHUNK_MAX)
}

/// Largest piece sent or written by one entry: results are 31 bits.
const CHUNK_MAX: u32 = 1 << 30;

/// Entries of the submission queue: more only submit earlier.
const SUBMISSIONS: u32 = 512;

/// Entries of the completion queue: a turn's worth of receives and sends. The kernel keeps what does not fit.
const COMPLETIONS: u32 = 4096;

/// Times a full submission queue is submitted before giving up. Each makes room for at least one entry unless the kernel is
/// out of memory for good.
const PUSH_ATTEMPTS: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::shard::Stats;

    #[test]
    fn a_shards_ring_does_nothing_but_its_work() {
        if std::env::var("FIELDGATE_IO").is_ok_and(|choice| choice == "epoll") {
            return;
        }
        let waker = Waker::new().expect("a descriptor");
        let (mut ring, mut inbox) =
            Ring::new(&Settings::default(), &waker).expect("io_uring, or FIELDGATE_IO=epoll");
        // A filter would not see these; the ring itself refuses them.
        let path = c"/etc/hostname";
        let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build();
        for entry in [opcode::Nop::new().build(), open, socket] {
            // SAFETY: the path is static; the others point to nothing.
            unsafe { ring.push(&entry.user_data(Operation::CancelAny.token_of(0))) };
            ring.wait(&mut inbox, None, Duration::ZERO, &mut Stats::default())
                .expect("it waits");
            let results: Vec<_> = inbox
                .completions
                .iter()
                .map(|completion| completion.result)
                .collect();
            assert_eq!(results, [-libc::EACCES]);
        }
        assert!(
            ring.ring.submitter().register_eventfd(0).is_err(),
            "nothing more can be registered"
        );
        assert_eq!(ring.in_flight, 0);
    }
}
