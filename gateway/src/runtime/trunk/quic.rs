//! Links over QUIC, as the trunk sees them.

use std::net::SocketAddr;

use fieldgate_io::{ConnectionId, DatagramId, DatagramPath, Io};
use fieldgate_proto::{node::ConnectionKey, time::Now};
use fieldgate_quic::Output;

use super::Trunk;
use crate::runtime::links::quic;

impl Trunk {
    /// Takes links over QUIC at an address; returns which it is.
    pub(crate) fn listen_quic(&mut self, io: &mut Io, address: SocketAddr) -> std::io::Result<SocketAddr> {
        self.layers.listen_quic(io, address)
    }

    /// Takes a datagram; says whether it is one of links.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Now,
        (socket, path): (DatagramId, DatagramPath),
        bytes: &[u8],
    ) -> bool {
        self.layers.handle_datagram(now.instant, (socket, path), bytes)
    }

    /// The queue of a socket is empty again.
    pub(crate) fn handle_datagrams_drained(&mut self, socket: DatagramId) {
        self.layers.handle_datagrams_drained(socket);
    }

    /// The node ends now: neighbours over QUIC would wait for it otherwise.
    pub(crate) fn handle_end(&mut self, io: &mut Io, now: Now) {
        self.layers.stop(io, now.instant);
    }

    /// Deals with what has come over QUIC in this turn.
    pub(super) fn run_quic(&mut self, io: &mut Io, now: Now) {
        let mut any = false;
        while let Some(output) = self.layers.poll_quic(now.instant) {
            any = true;
            match output {
                Output::Opened { id, dialled, remote } => {
                    let id = quic::connection(id);
                    if dialled {
                        self.opened(io, now, id);
                    } else {
                        let key = ConnectionKey(id.as_u64());
                        self.peers.insert(key, over_quic(remote));
                        self.node.handle_connected(now, key, None, &mut wire!(self, io));
                        self.node.handle_address(now, key, remote, &mut wire!(self, io));
                    }
                }
                Output::Received { id, mut frames } => {
                    let key = ConnectionKey(quic::connection(id).as_u64());
                    self.take_bytes(io, now, key, &mut frames);
                }
                Output::Moved { id, remote } => {
                    let key = ConnectionKey(quic::connection(id).as_u64());
                    if let Some(peer) = self.peers.get_mut(&key) {
                        tracing::info!(peer, to = %remote, "link goes on from another address");
                        *peer = over_quic(remote);
                    }
                    self.node.handle_address(now, key, remote, &mut wire!(self, io));
                }
                Output::Closed { id, was_open, reason } => {
                    self.quic_closed(io, now, quic::connection(id), was_open, &reason)
                }
            }
            self.drain(io, now);
        }
        if any {
            self.run_portals(io, now);
        }
    }

    fn quic_closed(&mut self, io: &mut Io, now: Now, id: ConnectionId, was_open: bool, reason: &str) {
        tracing::debug!(
            peer = %self.peer(ConnectionKey(id.as_u64())),
            reason,
            "link closed"
        );
        if !self.lost(io, now, id, reason) && was_open {
            self.handle_closed(io, now, id);
        }
    }
}

/// Says where a neighbour is that has dialled.
fn over_quic(remote: SocketAddr) -> String {
    format!("{remote} over QUIC")
}
