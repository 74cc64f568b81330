use std::{io, net::SocketAddr, time::Duration};

use crate::{
    connection::{CloseReason, ConnectionId, ListenerId},
    datagram::{DatagramId, DatagramPath},
    io::Io,
};

/// What a shard does with what happens. All calls come from the shard's thread.
///
/// For each connection: `accepted`, `accepted_local` or `connected(Ok)`, then any number of `received` and `drained`, at most one `ended`, and
/// at last exactly one `closed`. After the handler has closed or aborted a connection only `closed` still comes.
pub trait Handler {
    /// A peer has connected to a listener. The handler may write, or close it at once.
    fn accepted(&mut self, io: &mut Io, listener: ListenerId, connection: ConnectionId, peer: SocketAddr);

    /// A process of this machine has connected to a listener of [`Io::listen_local`]. Unless overridden, it is turned away.
    fn accepted_local(
        &mut self,
        io: &mut Io,
        listener: ListenerId,
        connection: ConnectionId,
        peer: LocalPeer,
    ) {
        let _ = (listener, peer);
        io.abort(connection);
    }

    /// A connect has ended. After an error the connection is gone, and `closed` does not come.
    fn connected(&mut self, io: &mut Io, connection: ConnectionId, result: io::Result<()>);

    /// Bytes have come. The slice is valid during the call only, and may be overwritten to decrypt in place.
    fn received(&mut self, io: &mut Io, connection: ConnectionId, bytes: &mut [u8]);

    /// The peer has ended its stream and may still be reading. Unless overridden, the connection is closed.
    fn ended(&mut self, io: &mut Io, connection: ConnectionId) {
        io.close(connection);
    }

    /// The queue of a connection has fallen below the low-water mark after having been above the high-water mark.
    fn drained(&mut self, io: &mut Io, connection: ConnectionId);

    /// The connection is no more.
    fn closed(&mut self, io: &mut Io, connection: ConnectionId, reason: CloseReason);

    /// A datagram has come; it may be empty. The slice is valid during the call only, and may be overwritten.
    fn datagram(&mut self, io: &mut Io, socket: DatagramId, path: DatagramPath, bytes: &mut [u8]) {
        let _ = (io, socket, path, bytes);
    }

    /// The queue of a socket that had refused a datagram is empty.
    fn datagrams_drained(&mut self, io: &mut Io, socket: DatagramId) {
        let _ = (io, socket);
    }

    /// A datagram to `remote` was not taken by the kernel; or, without `remote`, the network has answered an earlier one
    /// with an error, which only sockets with one remote address hear of, or receiving has failed. The socket stays.
    fn datagram_failed(
        &mut self,
        io: &mut Io,
        socket: DatagramId,
        remote: Option<SocketAddr>,
        error: io::Error,
    ) {
        let _ = (io, socket, remote, error);
    }

    /// A durable write has ended; on success the bytes are on stable storage. The buffer comes back as it was given.
    fn written(&mut self, io: &mut Io, token: u64, buffer: Vec<u8>, result: io::Result<()>);

    /// The shard's [`crate::Waker`] was used. May come without cause.
    fn woken(&mut self, io: &mut Io);

    /// All that has happened was told; what was written is sent after this. Says when and how to wait.
    fn turn_ended(&mut self, io: &mut Io) -> Turn;
}

/// Who is at the other end of a UNIX socket, by the word of the kernel: as it was when the peer connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPeer {
    /// Its process; 0 if that is not of this PID namespace.
    pub process: u32,
    /// Its effective user.
    pub user: u32,
    /// Its effective group.
    pub group: u32,
}

/// How the shard waits for its next turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The next turn comes at this time ([`crate::clock::monotonic`], nanoseconds) even if nothing happens.
    pub deadline_nanos: Option<u64>,
    /// The next turn does not begin sooner than this after the last one began, so that more gathers for it, unless the
    /// deadline or a full batch comes first. Zero reacts at once; 1–2 ms suit telemetry.
    pub coalesce: Duration,
}
