//! Who connects to inlets and sits behind outlets: opens streams, writes, reads, breaks off.

use std::{collections::BTreeMap, time::Duration};

use fieldgate_proto::{
    delivery::{Batch, Lost, ShownKey},
    identity::Identifier,
    node::{Node, PortalKey, ReadingSink, SourceInfo},
    portal::{Open, ResetReason, SessionEvent, SessionId, SessionState, StreamId},
    time::Instant,
};

use crate::{
    dice::Dice,
    model::{Model, Place, StreamBounds, Tag},
    scenario::StreamPlan,
};

/// What came out of streams in one call of a node.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Vec<(PortalKey, StreamId, Vec<u8>)>);

/// What a node is handed as its sink: readings go on, what streams carry is kept for [`Streams`].
pub(crate) struct Port<'a> {
    pub(crate) readings: &'a mut dyn ReadingSink,
    pub(crate) arrivals: &'a mut Arrivals,
}

impl ReadingSink for Port<'_> {
    fn accept(&mut self, source: &SourceInfo, batch: Batch<'_>) -> bool {
        self.readings.accept(source, batch)
    }

    fn gap(&mut self, source: &SourceInfo, lost: &Lost) -> bool {
        self.readings.gap(source, lost)
    }

    fn seal_key(&mut self, gateway: &Identifier, key: ShownKey<'_>) {
        self.readings.seal_key(gateway, key);
    }

    fn portal_data(&mut self, portal: PortalKey, stream: StreamId, bytes: &[u8]) {
        self.arrivals.0.push((portal, stream, bytes.to_vec()));
    }
}

/// The local ends of a host's streams, in one life.
#[derive(Debug)]
pub(crate) struct Streams {
    plan: StreamPlan,
    dice: Dice,
    host: usize,
    /// The host that each inlet leads to, and when somebody connects there next.
    inlets: Vec<(usize, Instant)>,
    /// The hosts whose streams may lead here.
    peers: BTreeMap<Identifier, usize>,
    ends: BTreeMap<(PortalKey, StreamId), End>,
    sessions: BTreeMap<PortalKey, Seen>,
    pub(crate) arrivals: Arrivals,
}

/// What was last seen of a session.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    id: Option<SessionId>,
    /// When it began, in nanoseconds of the simulation.
    began: u64,
    /// Since when it has no channel.
    down_since: Option<Instant>,
    is_up: bool,
}

/// The local end of a stream.
#[derive(Debug)]
struct End {
    tag: Tag,
    place: Place,
    /// An outlet that is still connecting.
    is_opening: bool,
    /// What is still to be said.
    left: u64,
    has_finished: bool,
    /// The session said that nothing could be written.
    waits: bool,
    /// The other side may have heard of the stream.
    is_told: bool,
    unread: usize,
    next_write: Instant,
    next_read: Instant,
    breaks_off: Option<Instant>,
}

impl Streams {
    pub(crate) fn new(
        plan: &StreamPlan,
        mut dice: Dice,
        (host, now): (usize, Instant),
        inlets: &[usize],
        peers: BTreeMap<Identifier, usize>,
    ) -> Self {
        let inlets = inlets.iter().map(|to| (*to, now + dice.millis(0, 2_000)));
        Self {
            plan: plan.clone(),
            inlets: inlets.collect(),
            dice,
            host,
            peers,
            ends: BTreeMap::new(),
            sessions: BTreeMap::new(),
            arrivals: Arrivals::default(),
        }
    }

    /// Returns when somebody has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let inlets = self.inlets.iter().map(|(_, at)| *at);
        let ends = self.ends.values().flat_map(|end| {
            let write = (end.is_opening || end.may_write()).then_some(end.next_write);
            let read = (end.unread > 0).then_some(end.next_read);
            [write, read, end.breaks_off].into_iter().flatten()
        });
        inlets.chain(ends).min()
    }

    /// Does what is due: takes what came, connects, writes, reads, breaks off.
    pub(crate) fn turn(&mut self, (now, at): (Instant, u64), node: &mut Node, model: &mut Model) {
        for (key, stream, bytes) in std::mem::take(&mut self.arrivals.0) {
            self.take(key, stream, &bytes, model);
        }
        self.look_for_given_up((now, at), node, model);
        self.take_events(now, node, model);
        self.look(at, node);
        self.connect(now, node, model);
        while let Some((key, stream)) = node.poll_portal_writable() {
            if let Some(end) = self.ends.get_mut(&(key, stream)) {
                end.waits = false;
            }
        }
        let mut over = Vec::new();
        for (id, end) in &mut self.ends {
            let ends = end.turn((now, &self.plan, &mut self.dice), *id, node, model);
            if ends {
                over.push(*id);
            }
        }
        for id in over {
            self.ends.remove(&id);
        }
        self.look_for_given_up((now, at), node, model);
        self.take_events(now, node, model);
        self.look(at, node);
        self.check(node, model);
    }

    fn take(&mut self, key: PortalKey, stream: StreamId, bytes: &[u8], model: &mut Model) {
        let end = self.ends.get_mut(&(key, stream));
        let tag = end.map(|end| {
            end.unread += bytes.len();
            (end.tag, end.place)
        });
        model.came(self.host, tag, bytes);
    }

    fn take_events(&mut self, now: Instant, node: &mut Node, model: &mut Model) {
        while let Some((key, event)) = node.poll_portal_event() {
            match event {
                SessionEvent::Requested {
                    stream,
                    outlet,
                    origin,
                    ..
                } => {
                    let peer = self.peer(key, node);
                    let tag = model.requested((peer, self.host), &outlet, &origin);
                    let Some(tag) = tag else { continue };
                    let end = self.end(now, tag, Place::Outlet);
                    self.ends.insert((key, stream), end);
                    // What is refused for that never comes as far as here.
                    if self.ends_of(key) >= self.plan.session.streams_max
                        && let Some(peer) = peer
                    {
                        model.is_full((peer, self.host));
                    }
                }
                SessionEvent::Opened { stream } => {
                    if let Some(end) = self.ends.get(&(key, stream)) {
                        model.opened(end.tag);
                    }
                }
                SessionEvent::Finished { stream } => {
                    if let Some(end) = self.ends.get(&(key, stream)) {
                        model.finished(end.tag, end.place);
                    }
                }
                SessionEvent::Over { stream } => {
                    if let Some(end) = self.ends.remove(&(key, stream)) {
                        model.over(end.tag, end.place);
                    }
                }
                SessionEvent::Reset { stream, reason } => {
                    let Some(end) = self.ends.remove(&(key, stream)) else {
                        continue;
                    };
                    let began = self.sessions.get(&key).map_or(0, |seen| seen.began);
                    model.was_reset((end.tag, end.place), reason, (end.is_told, began));
                }
            }
        }
    }

    fn ends_of(&self, key: PortalKey) -> usize {
        self.ends.keys().filter(|(of, _)| *of == key).count()
    }

    fn peer(&self, key: PortalKey, node: &Node) -> Option<usize> {
        let view = node.portals().find(|view| view.key == key)?;
        self.peers.get(&view.peer).copied()
    }

    /// Notes which sessions were given up because they had no channel for too long.
    fn look_for_given_up(&self, (now, at): (Instant, u64), node: &Node, model: &mut Model) {
        for view in node.portals() {
            let Some(seen) = self.sessions.get(&view.key) else {
                continue;
            };
            let patience = self.plan.session.resume_within;
            let is_late = seen.down_since.is_some_and(|since| now >= since + patience);
            if !is_late || seen.id.is_none() || view.session.id().is_some() {
                continue;
            }
            let pair = match view.key {
                PortalKey::Inlet(index) => self.inlets.get(index).map(|(to, _)| (self.host, *to)),
                PortalKey::Outlet(_) => self.peers.get(&view.peer).map(|from| (*from, self.host)),
            };
            if let Some(pair) = pair {
                model.session_given_up(pair, at);
            }
        }
    }

    /// Notes which sessions there are, and which have a channel.
    fn look(&mut self, at: u64, node: &Node) {
        for view in node.portals() {
            let seen = self.sessions.entry(view.key).or_default();
            let id = view.session.id();
            if seen.id != id {
                (seen.id, seen.began) = (id, at);
            }
            seen.is_up = view.session.state() == SessionState::Up;
            seen.down_since = match view.session.state() {
                SessionState::Down { since } => since,
                SessionState::Beginning | SessionState::Up => None,
            };
        }
        for ((key, _), end) in &mut self.ends {
            end.is_told |= self.sessions.get(key).is_some_and(|seen| seen.is_up);
        }
    }

    /// Lets somebody connect to the inlets whose time it is.
    fn connect(&mut self, now: Instant, node: &mut Node, model: &mut Model) {
        for index in 0..self.inlets.len() {
            let Some((to, at)) = self.inlets.get(index).copied() else {
                return;
            };
            if at > now {
                continue;
            }
            let pause = self.plan.pause_millis.clone();
            let pause = if model.is_healed() {
                PROBE_PAUSE
            } else {
                self.dice.millis(pause.start, pause.end) + Duration::from_millis(1)
            };
            if let Some((_, at)) = self.inlets.get_mut(index) {
                *at = now + pause;
            }
            if !model.wants_stream((self.host, to)) {
                continue;
            }
            let key = PortalKey::Inlet(index);
            let Some(session) = node.portal(key) else { continue };
            let full = session.streams().len() >= self.plan.session.streams_max;
            let tag = model.next_tag();
            let origin = tag.text();
            let opened = session.open(Open {
                outlet: OUTLET,
                origin: &origin,
                ..Open::default()
            });
            model.connected(tag, (self.host, to), opened.is_some(), full);
            if let Some(stream) = opened {
                let end = self.end(now, tag, Place::Inlet);
                self.ends.insert((key, stream), end);
            }
        }
    }

    fn end(&mut self, now: Instant, tag: Tag, place: Place) -> End {
        let (bytes, dice) = (&self.plan.bytes, &mut self.dice);
        let left = if dice.one_in(8) {
            0
        } else {
            dice.between(bytes.start, bytes.end)
        };
        let breaks_off = dice.one_in(self.plan.broken_one_in);
        let breaks_off = breaks_off.then(|| now + dice.millis(1, 10_000));
        let stalls = dice.one_in(self.plan.stalled_one_in);
        let next_read = if stalls {
            now + dice.millis(5_000, 60_000)
        } else {
            now
        };
        End {
            tag,
            place,
            is_opening: place == Place::Outlet,
            left,
            has_finished: false,
            waits: false,
            is_told: place == Place::Outlet,
            unread: 0,
            next_write: now + dice.millis(0, 300),
            next_read,
            breaks_off,
        }
    }

    fn check(&self, node: &Node, model: &mut Model) {
        for view in node.portals() {
            let ends = self.ends.iter().filter(|((key, _), _)| *key == view.key);
            let unread = ends.clone().map(|(_, end)| end.unread);
            let bounds = StreamBounds {
                streams: view.session.streams().len(),
                ends: ends.count(),
                unread_max: unread.clone().max().unwrap_or_default(),
                unread: unread.sum(),
                kept: view.session.bytes_kept(),
            };
            model.check_session(self.host, bounds, &self.plan.session);
        }
    }
}

impl End {
    const fn may_write(&self) -> bool {
        !self.waits && !self.has_finished && !self.is_opening
    }

    /// Does what is due; returns whether the stream is broken off, or refused.
    fn turn(
        &mut self,
        (now, plan, dice): (Instant, &StreamPlan, &mut Dice),
        (key, stream): (PortalKey, StreamId),
        node: &mut Node,
        model: &mut Model,
    ) -> bool {
        let Some(session) = node.portal(key) else {
            return false;
        };
        if model.is_healed() {
            // What began before comes to its end.
            self.left = self.left.min(LEFT_MAX);
            self.next_read = self.next_read.min(now + PROBE_PAUSE);
            self.breaks_off = None;
        }
        if self.breaks_off.is_some_and(|at| now >= at) {
            session.reset(stream, ResetReason::Broken);
            model.resets(self.tag, self.place, ResetReason::Broken);
            return true;
        }
        if self.is_opening && now >= self.next_write {
            if dice.one_in(plan.refused_one_in) && !model.is_healed() {
                session.reset(stream, ResetReason::Unreachable);
                model.resets(self.tag, self.place, ResetReason::Unreachable);
                return true;
            }
            session.accept(stream);
            model.accepts(self.tag);
            self.is_opening = false;
        }
        let (pause, piece) = (&plan.piece_millis, &plan.piece);
        if self.may_write() && now >= self.next_write {
            let count = dice.between(piece.start, piece.end).min(self.left);
            let bytes = model.words(self.tag, self.place, count);
            let written = session.write(stream, &bytes);
            model.says(self.tag, self.place, written);
            self.left -= written as u64;
            self.waits = (written as u64) < count;
            if self.left == 0 {
                session.finish(stream);
                self.has_finished = true;
                model.has_finished(self.tag, self.place);
            }
            self.next_write = now + dice.millis(pause.start, pause.end) + Duration::from_micros(1);
        }
        if self.unread > 0 && now >= self.next_read {
            let count = dice.between(piece.start, piece.end);
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.unread);
            self.unread -= count;
            session.handle_consumed(stream, count);
            self.next_read = now + dice.millis(pause.start, pause.end) + Duration::from_micros(1);
        }
        false
    }
}

/// The outlet that all streams lead to.
pub(crate) const OUTLET: &str = "plc";
/// Between two attempts after healing.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// What a side has to say after healing, at the most.
const LEFT_MAX: u64 = 8 << 10;
