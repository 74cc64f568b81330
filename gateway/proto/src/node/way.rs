//! Channels that this node opens to a peer, by one of several ways.

use super::{ChannelEntry, Links, Node, Use, WaySettings, Wire, flow_path};
use crate::{
    channel::{ChannelId, PqPolicy},
    entropy::Entropy,
    identity::Identifier,
    link::{Backoff, BackoffSettings},
    route::{Address, FlowId, LinkId, Route},
    time::{Instant, Now},
};

/// Whom a channel is opened to, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination<'a> {
    /// Who must be at the other end.
    pub(super) peer: Identifier,
    /// Policy for the channel.
    pub(super) pq: PqPolicy,
    /// What is wanted of it.
    pub(super) service: &'static str,
    /// What the channel will be for.
    pub(super) used_for: Use,
    /// In order of preference.
    pub(super) ways: &'a [WaySettings],
}

/// Which way is tried when.
#[derive(Debug)]
pub(super) struct Attempts {
    /// Index of the way in use, or to try next.
    pub(super) way: usize,
    pub(super) backoff: Backoff,
    /// `None` while the channel is wanted no earlier than a neighbour is ready.
    pub(super) retry_at: Option<Instant>,
}

impl Attempts {
    pub(super) const fn new(now: Instant, backoff: BackoffSettings) -> Self {
        Self {
            way: 0,
            backoff: Backoff::new(backoff),
            retry_at: Some(now),
        }
    }

    /// Notes that the channel is gone, and plans to try the next way after a while.
    pub(super) fn handle_failure(&mut self, now: Instant, entropy: &mut dyn Entropy, ways: usize) {
        self.way = (self.way + 1) % ways.max(1);
        self.retry_at = Some(self.backoff.handle_failure(now, entropy));
    }

    /// Returns whether it is time to try.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| now >= at)
    }
}

impl Node {
    /// Begins the handshake over the first way, from the preferred one on, whose neighbour is ready. Says what becomes of the
    /// attempts; returns the channel and its flow if one was begun.
    pub(super) fn open_way(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        destination: Destination<'_>,
        attempts: &mut Attempts,
        wire: &mut dyn Wire,
    ) -> Option<(ChannelId, FlowId)> {
        self.open_way_but(now, entropy, destination, attempts, None, wire)
    }

    /// The same without one of the ways, and rather over another neighbour than that one's.
    pub(super) fn open_way_but(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        destination: Destination<'_>,
        attempts: &mut Attempts,
        but: Option<usize>,
        wire: &mut dyn Wire,
    ) -> Option<(ChannelId, FlowId)> {
        let ways = destination.ways;
        let shunned = but.and_then(|but| ways.get(but)).map(|way| way.neighbour);
        let ready = (0..ways.len())
            .map(|offset| (attempts.way + offset) % ways.len())
            .filter(|way| Some(*way) != but)
            .filter_map(|way| {
                let settings = ways.get(way)?;
                // A relay that is to be left is no reserve.
                if but.is_some() && self.is_leaving(settings.neighbour) {
                    return None;
                }
                Some((way, self.ready_link(settings.neighbour)?, &settings.names))
            })
            .min_by_key(|(way, ..)| {
                let neighbour = ways.get(*way).map(|way| way.neighbour);
                let is_leaving = neighbour.is_some_and(|neighbour| self.is_leaving(neighbour));
                (is_leaving, neighbour == shunned && but.is_some())
            });
        let Some((way, link, names)) = ready else {
            // The neighbour wakes whoever waits when it is ready.
            attempts.retry_at = None;
            return None;
        };
        attempts.way = way;
        let names = names.iter().map(|name| Address::Name(name));
        let route = Route::new(names.chain([Address::Service(destination.service)]))
            .expect("checked names and a service make a route");
        let (peer, pq) = (destination.peer, destination.pq);
        let opened = self.open_channel(
            now,
            entropy,
            (link, &route),
            (peer, pq, destination.used_for),
            wire,
        );
        attempts.retry_at = match opened {
            Some(_) => None,
            None => Some(attempts.backoff.handle_failure(now.instant, entropy)),
        };
        opened
    }

    /// Begins the handshake with a peer over a link, and notes what the channel is for.
    pub(super) fn open_channel(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        (link, route): (LinkId, &Route),
        (peer, pq, used_for): (Identifier, PqPolicy, Use),
        wire: &mut dyn Wire,
    ) -> Option<(ChannelId, FlowId)> {
        let flow = self.router.open(now.instant, entropy, link, route).ok()?;
        let connected = self.channels.connect(now, entropy, peer, flow_path(flow), pq);
        let Ok(channel) = connected else {
            let mut links = Links {
                connection_of: &self.connection_of,
                carried: &mut self.carried,
                wire,
            };
            self.router.close(flow, &mut links);
            return None;
        };
        self.by_channel.insert(channel, ChannelEntry { used_for, flow });
        self.by_flow.insert(flow, channel);
        Some((channel, flow))
    }
}

/// Waits between attempts to reach a peer.
pub(super) const BACKOFF: BackoffSettings = BackoffSettings {
    delay_min: std::time::Duration::from_millis(100),
    delay_max: std::time::Duration::from_secs(5),
    stable_after: std::time::Duration::from_secs(5),
};
