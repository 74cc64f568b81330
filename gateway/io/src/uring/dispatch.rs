use std::io;

use io_uring::cqueue;

use super::{Completion, Inbox, Operation, Ring, accepted};
use crate::{
    connection::{BufferClass, CloseReason, ConnectionId, ListenerId, Phase, peer_address},
    datagram::{DatagramId, DatagramPath, wire},
    handler::Handler,
    io::{Io, Port},
};

/// Tells the handler what the last wait brought.
pub(crate) fn dispatch(io: &mut Io, inbox: &mut Inbox, handler: &mut dyn Handler) {
    // First what earlier turns have left over: it came before what comes now.
    let mut ready = std::mem::take(&mut io.shard.ready);
    for id in ready.drain(..) {
        if let Some(connection) = io.shard.connections.get_mut(id) {
            connection.ready = false;
            let ended = connection.peer_ended;
            if io.receive_backlog(handler, id) && ended {
                io.end_of_stream(handler, id);
            }
        }
    }
    if io.shard.ready.is_empty() {
        io.shard.ready = ready;
    }
    for index in 0..inbox.completions.len() {
        if let Some(&completion) = inbox.completions.get(index) {
            complete(io, inbox, handler, completion);
        }
    }
    inbox.completions.clear();
    inbox.device.publish();
    inbox.link.publish();
    inbox.datagrams.publish();
}

fn complete(io: &mut Io, inbox: &mut Inbox, handler: &mut dyn Handler, completion: Completion) {
    let Some((operation, id)) = Operation::from_token(completion.token) else {
        unreachable!("the kernel made up the completion {completion:?}")
    };
    match operation {
        Operation::Accept => accept(io, handler, ListenerId(id.index), completion),
        Operation::CancelAccept => {
            if let Some(listener) = io.shard.listener(ListenerId(id.index)) {
                listener.cancelling = false;
            }
        }
        Operation::ReceiveDevice => receive(io, inbox, handler, BufferClass::Device, id, completion),
        Operation::ReceiveLink => receive(io, inbox, handler, BufferClass::Link, id, completion),
        Operation::CancelReceive => {
            if let Some(connection) = io.shard.connections.get_mut(id) {
                connection.cancelling = false;
            }
        }
        Operation::Send => sent(io, id, completion.result),
        Operation::Connect => connected(io, id, completion.result),
        Operation::CancelAll => cancelled(io, id, completion.result),
        Operation::Wake => {
            if let Port::Ring(ring) = &mut io.port {
                ring.wake_armed = cqueue::more(completion.flags);
                ring.waker.clear();
            }
            handler.woken(io);
        }
        Operation::Write => written(io, handler, id.index, completion.result),
        Operation::CancelAny => {}
        Operation::ReceiveDatagrams => receive_datagram(io, inbox, handler, DatagramId(id), completion),
        Operation::PollDatagrams => {
            if let Some(socket) = io.shard.datagrams.get_mut(id) {
                socket.polling = false;
                // Cancelled or not: sending tells.
                socket.writable = true;
            }
            io.shard.mark_datagrams_dirty(DatagramId(id));
        }
        Operation::CancelDatagrams => {
            if let Some(socket) = io.shard.datagrams.get_mut(id) {
                socket.cancelling = false;
            }
            // Some operation may have been missed while it was moved between queues: then it is cancelled again.
            io.shard.mark_datagrams_dirty(DatagramId(id));
        }
    }
}

/// Splits a result into what was done and the error.
fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

fn accept(io: &mut Io, handler: &mut dyn Handler, id: ListenerId, completion: Completion) {
    let closing = match io.shard.listener(id) {
        Some(listener) => {
            listener.armed = cqueue::more(completion.flags);
            listener.closing
        }
        None => true,
    };
    match outcome(completion.result) {
        Ok(_) => {
            let socket = accepted(completion.result);
            if !closing {
                // A peer that is gone again already has no address, and nothing to say; nor has one on a UNIX socket.
                let peer = peer_address(&socket).ok();
                io.accept(handler, id, socket, peer);
            }
        }
        Err(error) => io.shard.accept_failed(id, &error),
    }
}

fn receive(
    io: &mut Io,
    inbox: &mut Inbox,
    handler: &mut dyn Handler,
    class: BufferClass,
    id: ConnectionId,
    completion: Completion,
) {
    let buffer = cqueue::buffer_select(completion.flags);
    let buffers = inbox.buffers(class);
    if let Some(buffer) = buffer {
        buffers.take(buffer);
    }
    if let Some(connection) = io.shard.connections.get_mut(id) {
        connection.brings_much =
            outcome(completion.result).is_ok_and(|count| count >= BufferClass::Device.buffer_size());
        if !cqueue::more(completion.flags) {
            connection.receiving = false;
            io.shard.mark_dirty(id);
        }
    }
    match (outcome(completion.result), buffer) {
        (Ok(count), Some(buffer)) if count > 0 => io.receive(handler, id, buffers.bytes(buffer, count)),
        (Ok(_), _) => io.end_of_stream(handler, id),
        (Err(error), _) => match error.raw_os_error() {
            // The buffers of this turn are back before the receive is armed again.
            Some(libc::ENOBUFS) => io.shard.stats.buffers_exhausted += 1,
            // We cancelled it, or it has to be asked for again.
            Some(libc::ECANCELED | libc::EAGAIN | libc::EINTR) => {}
            _ => io.shard.lose(id, CloseReason::from_error(&error)),
        },
    }
    if let Some(buffer) = buffer {
        buffers.recycle(buffer);
    }
}

fn receive_datagram(
    io: &mut Io,
    inbox: &mut Inbox,
    handler: &mut dyn Handler,
    id: DatagramId,
    completion: Completion,
) {
    let buffer = cqueue::buffer_select(completion.flags);
    if let Some(buffer) = buffer {
        inbox.datagrams.take(buffer);
    }
    if !cqueue::more(completion.flags) {
        if let Some(socket) = io.shard.datagrams.get_mut(id.0) {
            socket.receiving = false;
        }
        io.shard.mark_datagrams_dirty(id);
    }
    match (outcome(completion.result), buffer) {
        (Ok(length), Some(buffer)) => {
            if let Some(received) = wire::read_received(inbox.datagrams.bytes(buffer, length)) {
                let path = received.remote.map(|remote| DatagramPath {
                    remote,
                    local: received.local,
                });
                io.receive_datagram(handler, id, path, received.payload);
            }
        }
        (Ok(_), None) => {}
        (Err(error), _) if error.raw_os_error() == Some(libc::ENOBUFS) => {
            // The buffers of this turn are back before the receive is armed again.
            io.shard.stats.buffers_exhausted += 1;
        }
        (Err(error), _) => io.shard.datagrams_failed(id, error),
    }
    if let Some(buffer) = buffer {
        inbox.datagrams.recycle(buffer);
    }
}

fn sent(io: &mut Io, id: ConnectionId, result: i32) {
    let Some(connection) = io.shard.connections.get_mut(id) else {
        return;
    };
    connection.sending = false;
    match outcome(result) {
        Ok(count) => {
            io.shard.stats.bytes_sent += count as u64;
            connection.outbox.advance(count, &mut io.shard.pool);
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::ECANCELED | libc::EAGAIN | libc::EINTR) => {}
            _ => io.shard.lose(id, CloseReason::from_error(&error)),
        },
    }
    io.shard.mark_dirty(id);
}

fn connected(io: &mut Io, id: ConnectionId, result: i32) {
    let Some(connection) = io.shard.connections.get_mut(id) else {
        return;
    };
    connection.connecting = false;
    connection.address = None;
    match outcome(result) {
        Ok(_) => io.shard.connected(id),
        Err(error) => io.shard.connect_failed(id, error),
    }
    io.shard.mark_dirty(id);
}

/// Everything of a lost connection was cancelled; `result` says how much was found.
fn cancelled(io: &mut Io, id: ConnectionId, result: i32) {
    if let Some(connection) = io.shard.connections.get_mut(id)
        && connection.phase == Phase::Gone
        && connection.operations() > result.max(0)
    {
        // Some operation was just being moved between queues and was missed, or is done anyway. Ending the socket ends it.
        let _ = connection.socket.shutdown(std::net::Shutdown::Both);
    }
}

fn written(io: &mut Io, handler: &mut dyn Handler, index: u32, result: i32) {
    let Port::Ring(ring) = &mut io.port else { return };
    let Some(result) = write_result(ring, index, result) else {
        return ring.push_write(index);
    };
    if let Some((token, buffer)) = ring.writes.remove(index) {
        io.shard.stats.writes += 1;
        handler.written(io, token, buffer, result);
    }
}

/// Returns how a write has ended, or `None` if it must go on.
fn write_result(ring: &mut Ring, index: u32, result: i32) -> Option<io::Result<()>> {
    let write = ring.writes.get_mut(index)?;
    match outcome(result) {
        Ok(count) => {
            write.advance(count);
            if write.rest().is_empty() {
                Some(Ok(()))
            } else if count == 0 {
                Some(Err(io::ErrorKind::WriteZero.into()))
            } else {
                None
            }
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => None,
            _ => Some(Err(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Settings, Waker, storage::FileRef};

    #[test]
    fn a_write_goes_on_until_all_is_written() {
        if std::env::var("FIELDGATE_IO").is_ok_and(|choice| choice == "epoll") {
            return;
        }
        let waker = Waker::new().expect("a descriptor");
        let (mut ring, _inbox) =
            Ring::new(&Settings::default(), &waker).expect("io_uring, or FIELDGATE_IO=epoll");
        let file = FileRef::new(tempfile::tempfile().expect("room for a file"));
        let index = ring
            .writes
            .insert(&file, 1000, vec![1; 100], 7)
            .expect("room for one");
        for (result, left) in [(40, 60), (-libc::EINTR, 60), (59, 1)] {
            assert!(write_result(&mut ring, index, result).is_none());
            let write = ring.writes.get(index).expect("it goes on");
            assert_eq!((write.rest().len(), write.position()), (left, 1100 - left as u64));
        }
        assert!(
            matches!(write_result(&mut ring, index, 0), Some(Err(error)) if error.kind() == io::ErrorKind::WriteZero)
        );
        let full = write_result(&mut ring, index, -libc::ENOSPC);
        assert!(matches!(full, Some(Err(error)) if error.kind() == io::ErrorKind::StorageFull));
        assert!(matches!(write_result(&mut ring, index, 1), Some(Ok(()))));
        assert_eq!(ring.writes.remove(index), Some((7, vec![1; 100])));
        assert!(write_result(&mut ring, index, 1).is_none());
    }
}
