//! Portals and what they need of the trunk.

use std::collections::BTreeMap;

use fieldgate_io::{CloseReason, ConnectionId, DatagramId, DatagramPath, Io, ListenerId};
use fieldgate_proto::{node::Verdict, time::Now};

use super::{SystemEntropy, Trunk};
use crate::runtime::{
    StartError,
    portals::{Caller, Ground, Portals, changing::Change, staged::Takers},
    shard::Purpose,
};

impl Trunk {
    /// Lets portals do something, and what follows from it. What they have to say goes out at the end of the turn.
    pub(super) fn with_portals(
        &mut self,
        io: &mut Io,
        now: Now,
        act: impl FnOnce(&mut Portals, &mut Ground<'_>),
    ) {
        let mut ground = Ground {
            io,
            now,
            node: &mut self.node,
            desk: &self.desk,
            resolve: &self.resolve,
        };
        act(&mut self.portals, &mut ground);
        self.is_due = true;
    }

    /// Deals with what came out of streams, and what happened to them.
    pub(super) fn run_portals(&mut self, io: &mut Io, now: Now) {
        self.with_portals(io, now, Portals::handle_events);
    }

    /// Does what portals have to do at the end of a turn.
    pub(super) fn end_portals_turn(&mut self, io: &mut Io, now: Now) {
        self.with_portals(io, now, Portals::end_turn);
        self.is_due = false;
    }

    /// Gives sessions what waited for room in them; says whether there was any.
    pub(super) fn write_portals(&mut self, io: &mut Io, now: Now) -> bool {
        let mut any = false;
        self.with_portals(io, now, |portals, ground| any = portals.write_pending(ground));
        self.is_due = false;
        any
    }

    /// Takes a connection to an inlet.
    pub(crate) fn handle_inlet(
        &mut self,
        io: &mut Io,
        now: Now,
        inlet: usize,
        (connection, caller): (ConnectionId, Caller),
    ) {
        let now = self.judged(now);
        self.with_portals(io, now, |portals, ground| {
            portals.handle_accepted(ground, inlet, connection, caller);
        });
    }

    /// Adds or removes an inlet or outlet.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) fn change_portals(
        &mut self,
        io: &mut Io,
        now: Now,
        listeners: &mut BTreeMap<ListenerId, Purpose>,
        change: Change,
    ) -> Result<String, StartError> {
        let now = self.judged(now);
        let mut result = Err(StartError::new("the node is ending"));
        self.with_portals(io, now, |portals, ground| {
            result = portals.change(ground, listeners, change);
        });
        self.drain(io, now);
        result
    }

    /// Takes note of where an inlet listens.
    pub(crate) fn set_inlet_address(&mut self, inlet: usize, address: String) {
        self.portals.set_listening(inlet, address);
    }

    /// Takes note of an inlet's socket for datagrams, and where it is bound.
    pub(crate) fn set_inlet_datagrams(&mut self, inlet: usize, socket: DatagramId, address: String) {
        self.portals.set_listening(inlet, address);
        self.portals.set_datagrams(inlet, socket);
    }

    /// Returns whether a socket for datagrams is one of portals.
    pub(crate) fn has_portal_datagrams(&self, socket: DatagramId) -> bool {
        self.portals.has_datagrams(socket)
    }

    /// Takes a datagram that came to a socket of portals.
    pub(crate) fn handle_portal_datagram(
        &mut self,
        io: &mut Io,
        now: Now,
        (socket, path): (DatagramId, DatagramPath),
        bytes: &[u8],
    ) {
        let now = self.judged(now);
        self.with_portals(io, now, |portals, ground| {
            portals.handle_datagram(ground, socket, path, bytes);
        });
    }

    /// A datagram of portals was lost.
    pub(crate) fn handle_portal_datagram_failed(&mut self, socket: DatagramId, error: &std::io::Error) {
        self.portals.handle_datagram_failed(socket, error);
    }

    /// Returns whether the connection is a local one of a stream.
    pub(crate) fn has_portal(&self, connection: ConnectionId) -> bool {
        self.portals.has(connection)
    }

    /// A local connection of a stream has no more to say.
    pub(crate) fn handle_portal_ended(&mut self, io: &mut Io, now: Now, connection: ConnectionId) {
        let now = self.judged(now);
        self.with_portals(io, now, |portals, ground| {
            portals.handle_ended(ground, connection)
        });
    }

    /// A connection is gone that is no link.
    pub(crate) fn handle_portal_closed(
        &mut self,
        io: &mut Io,
        now: Now,
        connection: ConnectionId,
        reason: CloseReason,
    ) {
        let now = self.judged(now);
        self.with_portals(io, now, |portals, ground| {
            portals.handle_closed(ground, connection, reason);
        });
    }

    /// Takes the decision about a peer; what it said meanwhile may be for streams.
    pub(super) fn handle_verdict(&mut self, io: &mut Io, now: Now, attempt: u64, verdict: Verdict) {
        let sink = &mut Takers {
            collecting: &mut self.collecting,
            staged: &mut self.portals.staged,
        };
        self.node.handle_verdict(
            now,
            &mut SystemEntropy,
            attempt,
            verdict,
            &mut wire!(self, io),
            sink,
        );
    }

    /// The node is to end: streams are ended, so that nobody waits for them.
    pub(crate) fn handle_stop(&mut self, io: &mut Io, now: Now) {
        let now = self.judged(now);
        self.with_portals(io, now, Portals::handle_stop);
    }
}
