//! Portals: sessions with the nodes that streams lead to, and with those they come from.
//!
//! ```text
//!  Node::portal(key) ─▶ Session ─ open, write, finish … ─┐
//!                                                        ├─ flush ─▶ records of the session's channel
//!  ReadingSink::portal_data ◀─ frames of the channel ────┘
//! ```
//!
//! For each node that inlets lead to there is one channel that this node opens and keeps; a node whose inlets lead here opens one
//! to this node's service. A session outlives its channels; without one it is given up after a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    ChannelFacts, Event, Links, Node, PathOwner, PathReason, PathView, ReadingSink, Use, WaySettings, Wire,
    failover::Failover,
    settings::{PORTAL, direct_way},
    way::{Attempts, BACKOFF, Destination},
};
use crate::{
    channel::{ChannelId, CloseCode, PqPolicy},
    entropy::Entropy,
    identity::Identifier,
    link::Class,
    portal::{
        BEGIN, Begin, Role, Session, SessionEvent, SessionSettings, SessionState, StreamId, StreamSink,
    },
    route::{FlowId, LinkWriter as _},
    time::{Instant, Now},
    trust::{Credential, Freshness, Standing},
};

/// A session of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortalKey {
    /// With the node at this index of [`PortalSettings::peers`]; its streams begin here.
    Inlet(usize),
    /// With a node whose streams lead here: its place, which another takes when it is gone.
    Outlet(usize),
}

/// What a node does for streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortalSettings {
    /// Nodes that inlets of this node lead to.
    pub peers: Vec<PortalPeerSettings>,
    /// Who may have streams led here, where the lists decide; `None` if this node has no outlets.
    pub outlets: Option<BTreeSet<Identifier>>,
    /// Bounds of each session.
    pub session: SessionSettings,
    /// Nodes whose streams lead here at the same time.
    pub sessions_max: usize,
}

/// A node that inlets lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalPeerSettings {
    /// Who must be at the other end.
    pub peer: Identifier,
    /// Policy for the channel.
    pub pq: PqPolicy,
    /// Whether its identity key must sign in the channel before anything is said.
    pub live_proof: bool,
    /// Ways to it, in order of preference.
    pub ways: Vec<WaySettings>,
}

/// Whose streams lead here, for whoever decides about one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalAccess {
    /// Who wants it.
    pub peer: Identifier,
    /// Its verified credential and how good that is now.
    pub credential: Option<(Arc<Credential>, Standing)>,
    /// How fresh the list of the revoked is.
    pub freshness: Freshness,
    /// What is known of the channel.
    pub facts: ChannelFacts,
}

/// What can be seen of a session.
#[derive(Clone, Copy, Debug)]
pub struct PortalView<'a> {
    /// Which one.
    pub key: PortalKey,
    /// With whom.
    pub peer: Identifier,
    /// Index of the neighbour that its channel goes by, or would next; `None` for one that the other node opened.
    pub neighbour: Option<usize>,
    /// The session.
    pub session: &'a Session,
}

/// The way to a node that inlets lead to.
#[derive(Debug)]
pub(super) struct Inlet {
    pub(super) settings: PortalPeerSettings,
    pub(super) attempts: Attempts,
    pub(super) failover: Failover,
    /// From the beginning of the handshake on.
    pub(super) channel: Option<(ChannelId, FlowId)>,
    pub(super) session: Session,
    /// Whether inlets lead there; otherwise no channel is opened.
    is_wanted: bool,
}

impl Inlet {
    /// `direct`: which of its ways is there on demand only.
    fn new(
        now: Instant,
        settings: PortalPeerSettings,
        session: SessionSettings,
        direct: Option<usize>,
    ) -> Self {
        Self {
            settings,
            attempts: Attempts::new(now, BACKOFF),
            failover: Failover::new(now, direct),
            channel: None,
            session: Session::new(Role::Inlet, session),
            is_wanted: true,
        }
    }
}

/// What a node's streams lead to.
#[derive(Debug)]
struct Outlet {
    peer: Identifier,
    /// The one in use.
    channel: Option<(ChannelId, FlowId)>,
    /// Which of the peer's channels it is in the order of their establishment, and the term in which the peer took it.
    order: u64,
    term: u32,
    /// All of the peer's channels, in that order: it may keep one in reserve.
    channels: Vec<(ChannelId, FlowId, u64)>,
    session: Session,
}

impl Outlet {
    /// Takes another channel into use, or the same again; what was said in the one before counts no more.
    fn take(&mut self, now: Instant, (channel, flow, order): (ChannelId, FlowId, u64), term: u32) {
        if self.channel.replace((channel, flow)).is_some() {
            self.session.handle_down(now);
        }
        (self.order, self.term) = (order, term);
        self.session.handle_up(now);
    }

    /// Takes a Begin in one of the peer's channels into account. Returns whether it counts, and channels that an earlier run of the
    /// peer has left behind.
    fn begin(&mut self, now: Instant, channel: ChannelId, begin: &Begin) -> (bool, Vec<ChannelId>) {
        let Some(of) = self.channels.iter().find(|(of, ..)| *of == channel).copied() else {
            return (false, Vec::new());
        };
        let is_in_use = self.channel.is_some_and(|(in_use, _)| in_use == channel);
        let is_same = self.session.id() == Some(begin.session);
        let counts = match (is_same, is_in_use) {
            (true, true) => begin.term >= self.term,
            (true, false) => begin.term > self.term,
            (false, true) => true,
            (false, false) => self.channel.is_none() || of.2 > self.order,
        };
        if !counts {
            return (false, Vec::new());
        }
        if !is_in_use || begin.term != self.term {
            self.take(now, of, begin.term);
        }
        let mut left = Vec::new();
        if !is_same {
            self.channels.retain(|(other, _, order)| {
                let stays = *order >= of.2;
                if !stays {
                    left.push(*other);
                }
                stays
            });
        }
        (true, left)
    }
}

#[derive(Debug)]
pub(super) struct Portals {
    settings: SessionSettings,
    sessions_max: usize,
    listed: Option<BTreeSet<Identifier>>,
    pub(super) inlets: Vec<Inlet>,
    outlets: Vec<Option<Outlet>>,
    /// Channels of peers established so far.
    admitted: u64,
    by_peer: BTreeMap<Identifier, usize>,
}

impl Portals {
    pub(super) fn new(now: Instant, settings: PortalSettings, on_demand: &BTreeSet<usize>) -> Self {
        let session = settings.session;
        let peers = settings.peers.into_iter();
        let inlets = peers.map(|settings| {
            let direct = direct_way(&settings.ways, on_demand);
            Inlet::new(now, settings, session, direct)
        });
        Self {
            settings: session,
            sessions_max: settings.sessions_max,
            listed: settings.outlets,
            inlets: inlets.collect(),
            outlets: Vec::new(),
            admitted: 0,
            by_peer: BTreeMap::new(),
        }
    }

    /// Returns whether the settings name `peer` as one whose streams may lead here.
    pub(super) fn is_listed(&self, peer: &Identifier) -> bool {
        self.listed.as_ref().is_some_and(|listed| listed.contains(peer))
    }

    pub(super) fn peer_settings(&self, inlet: usize) -> Option<&PortalPeerSettings> {
        Some(&self.inlets.get(inlet)?.settings)
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = Identifier> + '_ {
        let wanted = self.inlets.iter().filter(|inlet| inlet.is_wanted);
        wanted.map(|inlet| inlet.settings.peer)
    }

    fn session(&mut self, key: PortalKey) -> Option<&mut Session> {
        match key {
            PortalKey::Inlet(index) => Some(&mut self.inlets.get_mut(index)?.session),
            PortalKey::Outlet(index) => Some(&mut self.outlets.get_mut(index)?.as_mut()?.session),
        }
    }

    /// Returns the channel of a session in which frames may be sent and taken.
    fn channel(&self, key: PortalKey) -> Option<(ChannelId, FlowId)> {
        match key {
            PortalKey::Inlet(index) => {
                let inlet = self.inlets.get(index)?;
                inlet
                    .channel
                    .filter(|_| !matches!(inlet.session.state(), SessionState::Down { .. }))
            }
            PortalKey::Outlet(index) => self.outlets.get(index)?.as_ref()?.channel,
        }
    }

    fn keys(&self) -> impl Iterator<Item = PortalKey> + use<> {
        let outlets = (0..self.outlets.len()).map(PortalKey::Outlet);
        (0..self.inlets.len()).map(PortalKey::Inlet).chain(outlets)
    }

    fn sessions(&self) -> impl Iterator<Item = &Session> {
        let outlets = self.outlets.iter().flatten().map(|outlet| &outlet.session);
        self.inlets.iter().map(|inlet| &inlet.session).chain(outlets)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let wanted = self.inlets.iter().filter(|inlet| inlet.is_wanted);
        let waiting = wanted.filter(|inlet| inlet.channel.is_none());
        let attempts = waiting.filter_map(|inlet| inlet.attempts.retry_at);
        let paths = self.inlets.iter().filter_map(|inlet| {
            let is_up = !matches!(inlet.session.state(), SessionState::Down { .. });
            let has_choice = is_up && inlet.settings.ways.len() > 1;
            inlet.failover.poll_timeout(has_choice, inlet.expectation())
        });
        self.sessions()
            .filter_map(Session::poll_timeout)
            .chain(attempts)
            .chain(paths)
            .min()
    }

    /// Returns how many nodes inlets lead to.
    pub(super) const fn inlet_count(&self) -> usize {
        self.inlets.len()
    }

    pub(super) fn wake(&mut self, now: Instant) {
        for inlet in &mut self.inlets {
            match inlet.channel {
                None => _ = inlet.attempts.retry_at.get_or_insert(now),
                Some(_) => inlet.failover.wake(now),
            }
        }
    }

    /// Takes the channel of a peer whose streams lead here; the first is in use at once, others when the peer begins there. Returns
    /// the place of its session, and a channel that has to go; `None` if there are as many sessions as may be.
    fn admit(
        &mut self,
        now: Instant,
        (channel, flow): (ChannelId, FlowId),
        peer: Identifier,
    ) -> Option<(usize, Option<ChannelId>)> {
        self.listed.as_ref()?;
        let place = match self.by_peer.get(&peer) {
            Some(place) => *place,
            None => self.place_for(peer)?,
        };
        let outlet = self.outlets.get_mut(place)?.as_mut()?;
        self.admitted = self.admitted.saturating_add(1);
        let admitted = (channel, flow, self.admitted);
        outlet.channels.push(admitted);
        let Some((in_use, _)) = outlet.channel else {
            let term = outlet.term;
            outlet.take(now, admitted, term);
            return Some((place, None));
        };
        if outlet.channels.len() <= CHANNELS_PER_PEER_MAX {
            return Some((place, None));
        }
        let oldest = outlet.channels.iter().position(|(other, ..)| *other != in_use)?;
        Some((place, Some(outlet.channels.remove(oldest).0)))
    }

    /// Returns what can be seen of the ways to a node that inlets lead to, and how often another was taken.
    pub(super) fn paths(&self, now: Instant, index: usize) -> Option<(Vec<PathView>, u64)> {
        let inlet = self.inlets.get(index)?;
        let is_up = !matches!(inlet.session.state(), SessionState::Down { .. });
        let views = inlet
            .failover
            .views(now, &inlet.settings.ways, (inlet.attempts.way, is_up));
        Some((views, inlet.failover.switches()))
    }

    fn place_for(&mut self, peer: Identifier) -> Option<usize> {
        let is_idle = |outlet: &Outlet| outlet.channel.is_none() && outlet.session.streams().len() == 0;
        let find = |fits: &dyn Fn(&Outlet) -> bool| {
            let mut outlets = self.outlets.iter();
            outlets.position(|outlet| outlet.as_ref().is_none_or(fits))
        };
        // One that was given up is of no use to anybody; one that its inlet may resume makes room only where there is none.
        let given_up = find(&|outlet| is_idle(outlet) && outlet.session.id().is_none());
        let place = match given_up {
            Some(place) => place,
            None if self.outlets.len() < self.sessions_max => {
                self.outlets.push(None);
                self.outlets.len() - 1
            }
            None => find(&is_idle)?,
        };
        let outlet = Outlet {
            peer,
            channel: None,
            order: 0,
            term: 0,
            channels: Vec::new(),
            session: Session::new(Role::Outlet, self.settings),
        };
        if let Some(before) = self.outlets.get_mut(place)?.replace(outlet) {
            self.by_peer.remove(&before.peer);
        }
        self.by_peer.insert(peer, place);
        Some(place)
    }
}

/// Hands what comes out of streams to the caller.
struct ToCaller<'a> {
    key: PortalKey,
    sink: &'a mut dyn ReadingSink,
}

impl StreamSink for ToCaller<'_> {
    fn data(&mut self, stream: StreamId, bytes: &[u8]) {
        self.sink.portal_data(self.key, stream, bytes);
    }
}

impl Node {
    /// Returns a session, to open streams in and to write to them. Call [`Node::flush`] afterwards.
    pub fn portal(&mut self, key: PortalKey) -> Option<&mut Session> {
        self.portals.session(key)
    }

    /// Takes a node that inlets lead to from now on, and returns the index of its session; `None` if there have been too many since
    /// the start. Of a node that inlets lead to already the settings stay as they are.
    pub fn add_portal_peer(&mut self, now: Instant, settings: PortalPeerSettings) -> Option<usize> {
        let session = self.portals.settings;
        let inlets = &mut self.portals.inlets;
        let known = inlets
            .iter_mut()
            .enumerate()
            .find(|(_, inlet)| inlet.settings.peer == settings.peer);
        if let Some((index, inlet)) = known {
            if !inlet.is_wanted {
                inlet.is_wanted = true;
                inlet.settings = settings;
                inlet.attempts = Attempts::new(now, BACKOFF);
                inlet.failover = Failover::new(now, None);
            }
            return Some(index);
        }
        if inlets.len() >= PEERS_MAX {
            return None;
        }
        inlets.push(Inlet::new(now, settings, session, None));
        Some(inlets.len() - 1)
    }

    /// Takes note that no inlet leads to a node any more: its channels are closed, and none is opened until it is added again.
    pub fn leave_portal_peer(&mut self, index: usize) {
        let Some(inlet) = self.portals.inlets.get_mut(index) else {
            return;
        };
        inlet.is_wanted = false;
        let active = inlet.channel.map(|(channel, _)| channel);
        // The reserve first, so that it is not taken into use.
        for channel in inlet.failover.reserve().into_iter().chain(active) {
            self.close_channel(channel, CloseCode::DONE);
        }
    }

    /// Says anew who may have streams led here, where the lists decide; `None`: this node has no outlets. Streams that are open stay.
    pub fn set_portal_outlets(&mut self, listed: Option<BTreeSet<Identifier>>) {
        self.portals.listed = listed;
    }

    /// Returns what happened next to a stream, in whichever session.
    pub fn poll_portal_event(&mut self) -> Option<(PortalKey, SessionEvent)> {
        let keys = self.portals.keys();
        keys.into_iter()
            .find_map(|key| Some((key, self.portals.session(key)?.poll_event()?)))
    }

    /// Returns the next stream that has waited and can be written to now; see [`Session::poll_writable`].
    pub fn poll_portal_writable(&mut self) -> Option<(PortalKey, StreamId)> {
        let keys = self.portals.keys();
        keys.into_iter()
            .find_map(|key| Some((key, self.portals.session(key)?.poll_writable()?)))
    }

    /// Returns what can be seen of each session.
    pub fn portals(&self) -> impl Iterator<Item = PortalView<'_>> {
        let inlets = self.portals.inlets.iter().enumerate();
        let inlets = inlets.filter(|(_, inlet)| inlet.is_wanted || inlet.session.streams().len() > 0);
        let inlets = inlets.map(|(index, inlet)| PortalView {
            key: PortalKey::Inlet(index),
            peer: inlet.settings.peer,
            neighbour: inlet
                .settings
                .ways
                .get(inlet.attempts.way)
                .map(|way| way.neighbour),
            session: &inlet.session,
        });
        let outlets = self.portals.outlets.iter().enumerate();
        let outlets = outlets.filter_map(|(index, outlet)| {
            let outlet = outlet.as_ref()?;
            Some(PortalView {
                key: PortalKey::Outlet(index),
                peer: outlet.peer,
                neighbour: None,
                session: &outlet.session,
            })
        });
        inlets.chain(outlets)
    }

    /// Returns what is known of the node whose streams a session leads here; `None` while it has no channel, and for a session of this
    /// node's inlets.
    #[must_use]
    pub fn portal_access(&self, now: Now, key: PortalKey) -> Option<PortalAccess> {
        let PortalKey::Outlet(index) = key else {
            return None;
        };
        let (channel, _) = self.portals.outlets.get(index)?.as_ref()?.channel?;
        let known = self.known.get(&channel)?;
        let credential = known.credential.as_ref().map(|credential| {
            let standing = self.standing(now, credential);
            (Arc::clone(credential), standing)
        });
        Some(PortalAccess {
            peer: known.peer,
            credential,
            freshness: self.freshness(now),
            facts: self.channel_facts(channel, known),
        })
    }

    /// Opens channels that are missing and whose way is ready; lets sessions do what is due.
    pub(super) fn time_out_portals(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        for key in self.portals.keys() {
            if let Some(session) = self.portals.session(key) {
                session.handle_timeout(now.instant);
            }
            if let PortalKey::Inlet(index) = key
                && let Some(inlet) = self.portals.inlets.get(index)
                && inlet.is_wanted
                && inlet.channel.is_none()
                && inlet.attempts.is_due(now.instant)
            {
                self.connect_inlet(now, entropy, index, wire);
            }
            if let PortalKey::Inlet(index) = key {
                self.time_out_paths(now, entropy, PathOwner::Inlet(index), wire);
            }
        }
    }

    fn connect_inlet(&mut self, now: Now, entropy: &mut dyn Entropy, index: usize, wire: &mut dyn Wire) {
        let Some(inlet) = self.portals.inlets.get_mut(index) else {
            return;
        };
        inlet.session.prepare(entropy);
        let mut attempts = std::mem::replace(&mut inlet.attempts, Attempts::new(now.instant, BACKOFF));
        let ways = std::mem::take(&mut inlet.settings.ways);
        let destination = Destination {
            peer: inlet.settings.peer,
            pq: inlet.settings.pq,
            service: PORTAL,
            used_for: Use::Inlet { inlet: index },
            ways: &ways,
        };
        let opened = self.open_way(now, entropy, destination, &mut attempts, wire);
        let Some(inlet) = self.portals.inlets.get_mut(index) else {
            return;
        };
        (inlet.attempts, inlet.settings.ways) = (attempts, ways);
        inlet.channel = opened;
        if opened.is_some() {
            let ways = inlet.settings.ways.len();
            inlet.failover.handle_begun(now.instant, ways);
        }
    }

    pub(super) fn inlet_established(&mut self, now: Now, index: usize, channel: ChannelId) {
        let Some(inlet) = self.portals.inlets.get_mut(index) else {
            return;
        };
        if inlet.failover.handle_reserve_up(now.instant, channel) {
            if !matches!(inlet.session.state(), SessionState::Down { .. }) {
                return;
            }
            inlet
                .failover
                .prefer_reserve(now.instant, &mut inlet.channel, &mut inlet.attempts);
        }
        inlet.failover.handle_up(now.instant);
        inlet.attempts.backoff.handle_success(now.instant);
        inlet.session.handle_up(now.instant);
        let peer = inlet.settings.peer;
        self.event(Event::PortalUp { peer });
    }

    pub(super) fn inlet_closed(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        index: usize,
        channel: ChannelId,
    ) {
        let Some(inlet) = self.portals.inlets.get_mut(index) else {
            return;
        };
        let ways = inlet.settings.ways.len();
        let was_reserve = inlet
            .failover
            .handle_reserve_closed(now.instant, entropy, channel, ways);
        if was_reserve {
            return;
        }
        let was_up = !matches!(inlet.session.state(), SessionState::Down { .. });
        let from = inlet.attempts.way;
        let reserve = inlet
            .failover
            .take_reserve(now.instant, entropy, &mut inlet.attempts, ways);
        if let Some((channel, flow, true)) = reserve {
            inlet.channel = Some((channel, flow));
            let neighbour = |way: usize| inlet.settings.ways.get(way).map_or(0, |way| way.neighbour);
            let (from, to) = (neighbour(from), neighbour(inlet.attempts.way));
            self.event(Event::PathChanged {
                owner: PathOwner::Inlet(index),
                from,
                to,
                reason: PathReason::Closed,
            });
            self.path_taken(now, PathOwner::Inlet(index));
            return;
        }
        inlet.channel = reserve.map(|(channel, flow, _)| (channel, flow));
        if inlet.channel.is_none() {
            inlet.attempts.handle_failure(now.instant, entropy, ways);
        }
        // The reserve may be established after the session was given up.
        inlet.session.prepare(entropy);
        inlet.session.handle_down(now.instant);
        let peer = inlet.settings.peer;
        if was_up {
            self.event(Event::PortalDown { peer });
        }
    }

    /// Serves a channel of a node whose streams lead here; false if there are too many.
    pub(super) fn outlet_established(
        &mut self,
        now: Now,
        (channel, flow): (ChannelId, FlowId),
        peer: Identifier,
    ) -> bool {
        let admitted = self.portals.admit(now.instant, (channel, flow), peer);
        let Some((outlet, before)) = admitted else {
            return false;
        };
        self.set_use(channel, Use::Outlet { outlet });
        if let Some(before) = before {
            self.close_channel(before, CloseCode::REPLACED);
        }
        true
    }

    pub(super) fn outlet_closed(&mut self, now: Now, channel: ChannelId, index: usize) {
        let outlet = self.portals.outlets.get_mut(index).and_then(Option::as_mut);
        let Some(outlet) = outlet else { return };
        outlet.channels.retain(|(of, ..)| *of != channel);
        // One in reserve is of no account yet.
        if outlet.channel.is_some_and(|(of, _)| of == channel) {
            outlet.channel = None;
            outlet.session.handle_down(now.instant);
        }
    }

    /// Takes a frame of a session's channel; false if it is bad, and the channel is closed.
    pub(super) fn portal_frame(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        (channel, key): (ChannelId, PortalKey),
        (kind, body): (u8, &[u8]),
        sink: &mut dyn ReadingSink,
    ) -> bool {
        if let (PortalKey::Outlet(index), BEGIN) = (key, kind) {
            let Ok(begin) = Begin::decode(body) else {
                self.close_channel(channel, CloseCode::BROKEN);
                return false;
            };
            let outlet = self.portals.outlets.get_mut(index).and_then(Option::as_mut);
            let begun = outlet.map(|outlet| outlet.begin(now.instant, channel, &begin));
            let (counts, left) = begun.unwrap_or_default();
            for before in left {
                // The peer was restarted: it could not say any more that it closed this one.
                self.close_channel(before, CloseCode::REPLACED);
            }
            if !counts {
                return true;
            }
        }
        if self.portals.channel(key).is_none_or(|(of, _)| of != channel) {
            // One that the peer has left, or has in reserve: nothing in it counts.
            return true;
        }
        let Some(session) = self.portals.session(key) else {
            return true;
        };
        let mut sink = ToCaller { key, sink };
        let taken = session.handle_frame(now.instant, entropy, kind, body, &mut sink);
        if taken.is_err() {
            self.close_channel(channel, CloseCode::BROKEN);
        }
        taken.is_ok()
    }

    /// Seals what sessions have to say, as far as links take it.
    pub(super) fn flush_portals(&mut self, now: Now, wire: &mut dyn Wire) {
        for key in self.portals.keys() {
            while self.flush_portal(now, key, wire) {}
        }
    }

    /// Seals one record of a session; false if there is nothing more to do for now.
    fn flush_portal(&mut self, now: Now, key: PortalKey, wire: &mut dyn Wire) -> bool {
        let Some((channel, flow)) = self.portals.channel(key) else {
            return false;
        };
        let Some(session) = self.portals.session(key).filter(|session| session.has_frames()) else {
            return false;
        };
        let mut links = Links {
            connection_of: &self.connection_of,
            carried: &mut self.carried,
            wire,
        };
        let Some(link) = self.router.link_of(flow) else {
            return false;
        };
        if links.queued_bytes(link) >= LINK_BYTES_MAX {
            return false;
        }
        let Some(out) = links.buffer(link) else {
            return false;
        };
        let Ok(mark) = self.router.begin(now.instant, flow, Class::Normal, out) else {
            return false;
        };
        let Ok(start) = self.channels.begin(channel, out) else {
            self.router.abandon(out, mark);
            return false;
        };
        session.write_frames(now.instant, out);
        if self.channels.finish(now.instant, channel, out, start).is_err() {
            // What was written is sent again when nobody takes it.
            self.router.abandon(out, mark);
            return false;
        }
        self.router.finish(flow, out, mark).is_ok()
    }
}

/// Bytes queued on a link from which on nothing more of streams is sealed for it: what is sealed cannot be overtaken any more.
const LINK_BYTES_MAX: usize = 256 << 10;
/// Nodes that inlets may lead to, over the time that a node runs.
const PEERS_MAX: usize = 256;
/// Channels of one peer: the one in use, one in reserve, and some that it has lost and could not close.
const CHANNELS_PER_PEER_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::START;

    /// The first `count` peers, and a node with room for two of them.
    fn portals(count: u8) -> (Vec<Identifier>, Portals) {
        let peers: Vec<_> = (1..=count)
            .map(|byte| Identifier::from_bytes([byte; 32]))
            .collect();
        let settings = PortalSettings {
            outlets: Some(peers.iter().copied().collect()),
            sessions_max: 2,
            ..PortalSettings::default()
        };
        (peers, Portals::new(NOW, settings, &BTreeSet::new()))
    }

    fn admit(portals: &mut Portals, peer: Identifier, channel: u32) -> Option<usize> {
        let channel = (ChannelId::from_wire(channel), FlowId::from_number(1));
        portals.admit(NOW, channel, peer).map(|(place, _)| place)
    }

    fn leave(portals: &mut Portals, place: usize) {
        let outlet = portals.outlets[place].as_mut().expect("it is there");
        outlet.channels.clear();
        outlet.channel = None;
        outlet.session.handle_down(NOW);
    }

    /// Lets the peer of the first place begin in a channel. Returns whether that counts, and the channels that it has left.
    fn begin(portals: &mut Portals, channel: u32, session: u8, term: u32) -> (bool, Vec<ChannelId>) {
        let begin = Begin {
            session: [session; 16],
            taken: 0,
            resumes: false,
            term,
        };
        let outlet = portals.outlets[0].as_mut().expect("it is there");
        let (counts, left) = outlet.begin(NOW, ChannelId::from_wire(channel), &begin);
        if counts {
            let mut frame = Vec::new();
            begin.put(BEGIN, &mut frame);
            let taken = (outlet.session).handle_frame(NOW, &mut Nothing, BEGIN, &frame[3..], &mut Nothing);
            assert_eq!(taken, Ok(()));
        }
        (counts, left)
    }

    #[test]
    fn an_idle_session_makes_room_only_where_there_is_none() {
        let (peers, mut portals) = portals(3);
        assert_eq!(admit(&mut portals, peers[0], 1), Some(0));
        assert!(begin(&mut portals, 1, 7, 1).0);
        // Its inlet may come back to it.
        leave(&mut portals, 0);
        assert_eq!(admit(&mut portals, peers[1], 2), Some(1));
        assert_eq!(admit(&mut portals, peers[0], 3), Some(0));
        let known = portals.outlets[0].as_ref().and_then(|outlet| outlet.session.id());
        assert_eq!(known, Some([7; 16]));
        assert_eq!(admit(&mut portals, peers[2], 4), None);
        // Nobody comes back to one that never began; it goes first.
        leave(&mut portals, 0);
        leave(&mut portals, 1);
        assert_eq!(admit(&mut portals, peers[2], 5), Some(1));
        assert_eq!(admit(&mut portals, peers[1], 6), Some(0));
        assert_eq!(admit(&mut portals, peers[0], 7), None);
    }

    #[test]
    fn the_latest_begin_says_which_channel_counts() {
        let (peers, mut portals) = portals(1);
        for channel in [1, 2] {
            assert_eq!(admit(&mut portals, peers[0], channel), Some(0));
        }
        let in_use = |portals: &Portals| portals.channel(PortalKey::Outlet(0)).expect("one is").0.to_wire();
        for (channel, term, counts) in [
            (1, 1, true),
            (2, 2, true),
            // Said before, and come late; or said of another channel.
            (1, 1, false),
            (1, 2, false),
            (2, 1, false),
            // Said again.
            (2, 2, true),
            (1, 3, true),
            (3, 4, false),
        ] {
            let before = in_use(&portals);
            assert_eq!(
                begin(&mut portals, channel, 7, term),
                (counts, Vec::new()),
                "{channel} {term}"
            );
            assert_eq!(in_use(&portals), if counts { channel } else { before });
        }
        // The peer was restarted: what it established before is of no use to it.
        let left = ChannelId::from_wire(1);
        assert_eq!(begin(&mut portals, 2, 8, 1), (true, vec![left]));
        assert_eq!(begin(&mut portals, 1, 7, 9), (false, Vec::new()));
        assert_eq!(in_use(&portals), 2);
    }

    /// An outlet draws nothing, and nothing comes out of streams here.
    struct Nothing;

    impl Entropy for Nothing {
        fn fill(&mut self, _: &mut [u8]) {}
    }

    impl StreamSink for Nothing {
        fn data(&mut self, _: StreamId, _: &[u8]) {}
    }
}
