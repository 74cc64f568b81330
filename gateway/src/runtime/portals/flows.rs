//! Flows: datagrams of one pair of UDP addresses, as a stream between the two nodes (`proto::portal::flow`).
//!
//! ```text
//!  who sends ─▶ inlet's socket ─ by address ─▶ stream ═▶ stream ─▶ socket of its own ─▶ what is reached
//! ```
//!
//! A datagram that cannot go on is dropped and counted: while there is no way to the other node, when the stream has no room and
//! enough waits for it, when the socket's queue is full. What waits for room is bounded for each flow.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use fieldgate_io::{DatagramId, DatagramOptions, DatagramPath, Io};
use fieldgate_proto::portal::{
    Open, SessionState,
    flow::{Datagrams, FLOW_TARGET, put_datagram},
};
use fieldgate_proto::time::Instant;

use super::{Ground, Key, Place, Portals, Progress, Stream, Who, audit};

/// A stream of datagrams.
pub(super) struct Flow {
    socket: DatagramId,
    /// To whom.
    path: DatagramPath,
    datagrams: Datagrams,
}

/// Whose a datagram socket is.
#[derive(Clone, Copy)]
enum Owner {
    Inlet(usize),
    /// A flow at an outlet.
    Flow(Key),
}

/// The datagram sockets of portals.
#[derive(Default)]
pub(super) struct Sockets {
    owners: BTreeMap<DatagramId, Owner>,
    /// Flows of inlets, by who sends and where to.
    by_path: BTreeMap<(DatagramId, DatagramPath), Key>,
    /// Those that the other node has refused, and until when they are not asked for again: who sends does not notice.
    refused: BTreeMap<(DatagramId, DatagramPath), Instant>,
    /// A datagram as it stands in a stream.
    written: Vec<u8>,
}

/// Datagrams of a portal since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Given to the stream, or from it to the socket.
    pub(super) passed: u64,
    pub(super) dropped: u64,
}

impl Flow {
    /// Gives the socket what came out of the stream.
    pub(super) fn deliver(&mut self, io: &mut Io, bytes: &[u8], counts: &mut Counts) {
        let (socket, path) = (self.socket, self.path);
        self.datagrams.handle_bytes(bytes, &mut |datagram| {
            if io.send_datagram(socket, path, datagram) {
                counts.passed += 1;
            } else {
                counts.dropped += 1;
            }
        });
    }
}

impl Portals {
    /// Takes note of an inlet's socket.
    pub(crate) fn set_datagrams(&mut self, inlet: usize, socket: DatagramId) {
        self.sockets.owners.insert(socket, Owner::Inlet(inlet));
    }

    /// Takes an inlet's socket away, if it has one.
    pub(super) fn take_datagrams(&mut self, inlet: usize) -> Option<DatagramId> {
        let mut owners = self.sockets.owners.iter();
        let is_its = |owner: &Owner| matches!(owner, Owner::Inlet(index) if *index == inlet);
        let (socket, _) = owners.find(|(_, owner)| is_its(owner))?;
        let socket = *socket;
        self.sockets.owners.remove(&socket);
        self.sockets.refused.retain(|(of, _), _| *of != socket);
        Some(socket)
    }

    /// Returns whether a socket is one of portals.
    pub(crate) fn has_datagrams(&self, socket: DatagramId) -> bool {
        self.sockets.owners.contains_key(&socket)
    }

    /// Takes a datagram that came to a socket of portals.
    pub(crate) fn handle_datagram(
        &mut self,
        ground: &mut Ground<'_>,
        socket: DatagramId,
        path: DatagramPath,
        bytes: &[u8],
    ) {
        let key = match self.sockets.owners.get(&socket) {
            Some(Owner::Flow(key)) => *key,
            Some(Owner::Inlet(inlet)) => {
                let (inlet, known) = (*inlet, self.sockets.by_path.get(&(socket, path)));
                match known
                    .copied()
                    .or_else(|| self.begin_flow(ground, inlet, socket, path))
                {
                    Some(key) => key,
                    None => return,
                }
            }
            None => return,
        };
        let is_taken = self.write_datagram(ground, key, bytes);
        if let Some(place) = self.streams.get(&key).map(|stream| stream.place)
            && let Some(portal) = self.portal(place)
        {
            if is_taken {
                portal.datagrams.passed += 1;
            } else {
                portal.datagrams.dropped += 1;
            }
        }
    }

    /// Gives a datagram to its stream; false if it is dropped.
    fn write_datagram(&mut self, ground: &mut Ground<'_>, key: Key, bytes: &[u8]) -> bool {
        let (Some(stream), Some(session)) = (self.streams.get_mut(&key), ground.node.portal(key.0)) else {
            return false;
        };
        // What waits until there is a way again is old when it comes.
        if session.state() != SessionState::Up {
            return false;
        }
        let written = &mut self.sockets.written;
        written.clear();
        if !put_datagram(bytes, written) {
            return false;
        }
        let is_free = stream.pending.is_empty() && stream.progress == Progress::Open;
        if !is_free && stream.pending.len() + written.len() > WAITING_BYTES_MAX {
            return false;
        }
        stream.active = ground.now.instant;
        stream.from_socket += written.len() as u64;
        // It is taken whole: what does not fit waits, and the stream says when there is room.
        let count = if is_free { session.write(key.1, written) } else { 0 };
        stream
            .pending
            .extend_from_slice(written.get(count..).unwrap_or_default());
        true
    }

    /// Asks the other node for a flow of somebody new.
    fn begin_flow(
        &mut self,
        ground: &mut Ground<'_>,
        index: usize,
        socket: DatagramId,
        path: DatagramPath,
    ) -> Option<Key> {
        let now = ground.now.instant;
        let refused = &mut self.sockets.refused;
        refused.retain(|_, until| now < *until);
        let inlet = self.inlets.get_mut(index)?;
        if refused.contains_key(&(socket, path)) {
            inlet.portal.datagrams.dropped += 1;
            return None;
        }
        let who = Who {
            origin: path.remote.to_string(),
            ..Who::default()
        };
        let open = Open {
            outlet: &inlet.outlet,
            origin: &who.origin,
            target: FLOW_TARGET,
            ..Open::default()
        };
        let session = ground.node.portal(inlet.session);
        let opened = if self.is_stopping {
            Err("the node is ending")
        } else if !inlet.allows(path.remote) {
            Err("its address is in none of the networks that are allowed")
        } else if inlet.portal.open >= inlet.portal.streams_max {
            Err("there are as many flows as may be")
        } else {
            match session.filter(|session| session.state() == SessionState::Up) {
                Some(session) => session
                    .open(open)
                    .ok_or("the session has as many streams as may be"),
                None => Err("the other node is not reached"),
            }
        };
        match opened {
            Ok(id) => {
                inlet.portal.open += 1;
                let key = (inlet.session, id);
                let mut stream = Stream::new(ground, Place::Inlet(index), who, Progress::Opening);
                stream.flow = Some(Flow {
                    socket,
                    path,
                    datagrams: Datagrams::default(),
                });
                self.sockets.by_path.insert((socket, path), key);
                self.insert(ground, key, stream);
                Some(key)
            }
            Err(reason) => {
                inlet.portal.refused += 1;
                inlet.portal.datagrams.dropped += 1;
                let place = (Place::Inlet(index), inlet.session);
                audit::refused(ground, &mut inlet.portal, place, &who, reason);
                None
            }
        }
    }

    /// Makes the socket of a flow at an outlet.
    ///
    /// # Errors
    /// The kernel's, such as when there is no way to the address.
    pub(super) fn connect_flow(
        &mut self,
        ground: &mut Ground<'_>,
        key: Key,
        remote: SocketAddr,
    ) -> std::io::Result<()> {
        let local: IpAddr = if remote.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let options = DatagramOptions {
            remote: Some(remote),
            kernel_buffer: KERNEL_BUFFER,
            ..DatagramOptions::default()
        };
        let stream = self.streams.get_mut(&key).ok_or(ErrorKind::NotFound)?;
        let (socket, _) = ground.io.bind_datagrams(SocketAddr::new(local, 0), &options)?;
        stream.reached = Some(remote);
        stream.flow = Some(Flow {
            socket,
            path: remote.into(),
            datagrams: Datagrams::default(),
        });
        self.sockets.owners.insert(socket, Owner::Flow(key));
        Ok(())
    }

    /// A datagram was not taken, or nobody listens there. Those who send datagrams live with that; the flow stays.
    pub(crate) fn handle_datagram_failed(&mut self, socket: DatagramId, error: &std::io::Error) {
        let place = match self.sockets.owners.get(&socket) {
            Some(Owner::Inlet(inlet)) => Some(Place::Inlet(*inlet)),
            Some(Owner::Flow(key)) => self.streams.get(key).map(|stream| stream.place),
            None => None,
        };
        if let Some(portal) = place.and_then(|place| self.portal(place)) {
            tracing::debug!(portal = portal.name, %error, "datagram lost");
            portal.datagrams.dropped += 1;
        }
    }

    /// Takes a flow off whose stream is no more, or never was.
    pub(super) fn end_flow(&mut self, ground: &mut Ground<'_>, flow: &Flow, was_open: bool) {
        let sockets = &mut self.sockets;
        let path = (flow.socket, flow.path);
        if sockets.by_path.remove(&path).is_none() {
            sockets.owners.remove(&flow.socket);
            ground.io.unbind_datagrams(flow.socket);
        } else if !was_open && sockets.refused.len() < REFUSED_MAX {
            sockets.refused.insert(path, ground.now.instant + REFUSED_TIME);
        }
    }
}

/// Bytes of a flow that wait for room in its stream: two of the longest datagrams.
const WAITING_BYTES_MAX: usize = 128 << 10;
/// How long a flow that was refused is not asked for again, and how many are remembered.
const REFUSED_TIME: Duration = Duration::from_secs(5);
const REFUSED_MAX: usize = 1_024;
/// Bytes the kernel keeps for a flow in each direction.
const KERNEL_BUFFER: usize = 256 << 10;
