//! The caller's connections and the links on them.

use std::{net::SocketAddr, time::Duration};

use super::{ConnectionKey, Event, Links, Node, Wire, carried, neighbour::NeighbourState};
use crate::{
    entropy::Entropy,
    identity::Identifier,
    link::{Link, LinkError},
    route::LinkId,
    time::Now,
};

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Taken out while bytes of it are dealt with, because what they hold is borrowed from it.
    pub(super) link: Option<Link>,
    /// Known to routing, once Hello came.
    pub(super) id: Option<LinkId>,
    /// Index of the neighbour, if this node dialled.
    pub(super) neighbour: Option<usize>,
    /// Where it comes from, if the caller has said so.
    pub(super) address: Option<SocketAddr>,
}

/// What can be seen of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionView {
    /// Which one.
    pub connection: ConnectionKey,
    /// The caller's connection that it goes over, if the link lies in a channel.
    pub below: Option<ConnectionKey>,
    /// Index of the neighbour, if this node dialled.
    pub neighbour: Option<usize>,
    /// Whether Hello came.
    pub up: bool,
    /// The member the link is attached to.
    pub member: Option<Identifier>,
    /// Smoothed round trip, once measured.
    pub round_trip: Option<Duration>,
}

impl Node {
    /// Takes a new connection: accepted (`neighbour` is `None`), or dialled for a neighbour.
    pub fn handle_connected(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        neighbour: Option<usize>,
        wire: &mut dyn Wire,
    ) {
        let link = wire
            .buffer(connection)
            .map(|out| Link::new(now.instant, &self.link_settings, out));
        // One that was dialled and is gone again already is noted all the same: the news of its end, which follows, then
        // has the neighbour dialled again.
        if link.is_none() && neighbour.is_none() {
            return;
        }
        self.connections.insert(
            connection,
            Box::new(Connection {
                link,
                id: None,
                neighbour,
                address: None,
            }),
        );
        if let Some(neighbour) = neighbour.and_then(|neighbour| self.neighbours.get_mut(neighbour)) {
            neighbour.state = NeighbourState::Greeting { connection };
        }
    }

    /// Takes the news that a neighbour could not be dialled.
    pub fn handle_dial_failed(&mut self, now: Now, entropy: &mut dyn Entropy, neighbour: usize) {
        if let Some(neighbour) = self.neighbours.get_mut(neighbour) {
            neighbour.handle_failure(now.instant, entropy);
        }
    }

    /// Takes the news that a connection is gone.
    pub fn handle_disconnected(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        connection: ConnectionKey,
        wire: &mut dyn Wire,
    ) {
        self.forget_connection(now, entropy, connection, wire);
        self.settle(now, entropy, wire);
    }

    /// Forgets a connection and everything that ran over it.
    pub(super) fn forget_connection(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        connection: ConnectionKey,
        wire: &mut dyn Wire,
    ) {
        let Some(entry) = self.connections.remove(&connection) else {
            return;
        };
        if let Some(id) = entry.id {
            self.router.link_down(
                id,
                &mut Links {
                    connection_of: &self.connection_of,
                    carried: &mut self.carried,
                    wire,
                },
            );
            if let Some(place) = self.connection_of.get_mut(id.index()) {
                *place = None;
            }
        }
        if let Some(neighbour) = entry
            .neighbour
            .and_then(|neighbour| self.neighbours.get_mut(neighbour))
            && neighbour.connection() == Some(connection)
        {
            neighbour.handle_failure(now.instant, entropy);
        }
    }

    /// Closes a connection because of what came, or did not come, over it.
    pub(super) fn break_connection(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        connection: ConnectionKey,
        error: LinkError,
        wire: &mut dyn Wire,
    ) {
        self.stats.bad_links += 1;
        self.forget_connection(now, entropy, connection, wire);
        self.event(Event::LinkBroken { connection, error });
        self.close_connection(connection);
    }

    /// Sends pings, and closes connections that are silent.
    pub(super) fn time_out_connections(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        if now.instant < self.next_link_sweep {
            return;
        }
        self.next_link_sweep = now.instant + LINK_SWEEP_INTERVAL;
        let mut broken = Vec::new();
        for (key, connection) in &mut self.connections {
            let Some(link) = &mut connection.link else {
                continue;
            };
            if link.poll_timeout().is_none_or(|deadline| now.instant < deadline) {
                continue;
            }
            let Some(out) = carried::buffer(&mut self.carried, wire, *key) else {
                continue;
            };
            if let Err(error) = link.handle_timeout(now.instant, out) {
                broken.push((*key, error));
            }
        }
        for (key, error) in broken {
            self.break_connection(now, entropy, key, error, wire);
        }
    }

    /// Returns the caller's connection that a link which lies in a channel goes over; `None` for one of the caller's.
    #[must_use]
    pub fn connection_below(&self, connection: ConnectionKey) -> Option<ConnectionKey> {
        self.carried.below(connection)
    }

    /// Returns what can be seen of each connection.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionView> + '_ {
        self.connections.iter().map(|(key, connection)| ConnectionView {
            connection: *key,
            below: self.connection_below(*key),
            neighbour: connection.neighbour,
            up: connection.id.is_some(),
            member: connection.id.and_then(|id| self.router.member(id)),
            round_trip: connection
                .link
                .as_ref()
                .and_then(|link| link.round_trip().smoothed()),
        })
    }
}

/// How often links are asked for pings that are due.
const LINK_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
