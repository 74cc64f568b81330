//! Two channels to a peer over two ways: one in use, one in reserve (PROTOCOL.md §17).
//!
//! ```text
//!                 ┌ closed, dead, or worse for long ┐
//!  in use ────────┴──────────▶ change places ◀──────┴──────── reserve
//!    ▲                             │                            │ ▲
//!    │ first to be established     └ what was on its way is     │ └ opened over another way, back-off
//!    └ way, back-off                 told and sent again        └ dead for 15 s: closed
//! ```
//!
//! A channel that was left stays open in reserve: where it was only slow, or comes back, nothing has to be opened again.

use std::time::Duration;

use super::{
    Event, Node, Use, WaySettings, Wire,
    probe::{Expectation, Probe},
    settings::{PORTAL, UPLINK},
    way::{Attempts, BACKOFF, Destination},
};
use crate::{
    channel::{ChannelId, CloseCode},
    entropy::Entropy,
    identity::Identifier,
    portal::SessionState,
    route::FlowId,
    time::{Instant, Now},
};

/// Whose channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathOwner {
    /// An uplink's, by its index.
    Uplink(usize),
    /// Those of the inlets that lead to one node, by its index.
    Inlet(usize),
}

/// Why a path is the one in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathReason {
    /// It was the first to be established.
    First,
    /// The channel over the one before was closed.
    Closed,
    /// The one before gave no sign of life.
    Silent,
    /// It was better for long.
    Better,
    /// The relay of the one before wanted to be left.
    Drained,
    /// It needs no relay.
    Direct,
}

impl PathReason {
    /// Returns a word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Better => "better",
            Self::Drained => "drained",
            Self::Direct => "direct",
        }
    }
}

/// Where a path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// In use.
    Active,
    /// In reserve, and answers.
    Standby,
    /// The peer is not heard, or there is no channel.
    Down,
}

impl PathState {
    /// Returns a word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Down => "down",
        }
    }
}

/// What can be seen of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// Index of the neighbour it begins with.
    pub neighbour: usize,
    /// Names of further relays on the way.
    pub through: Vec<String>,
    /// Where it stands.
    pub state: PathState,
    /// Smoothed round trip to the peer, once measured.
    pub round_trip: Option<Duration>,
    /// How many of a thousand probes are lost, smoothed.
    pub loss_permille: u16,
    /// Why it is in use, if it is.
    pub reason: Option<PathReason>,
}

/// The channel in reserve.
#[derive(Debug)]
struct Reserve {
    channel: ChannelId,
    flow: FlowId,
    is_up: bool,
    probe: Probe,
}

/// What an uplink or an inlet with several ways knows of its paths, beside the channel in use.
#[derive(Debug)]
pub(super) struct Failover {
    /// Watches the channel in use.
    probe: Probe,
    reserve: Option<Reserve>,
    /// While no channel is up: when the handshake of the one that shall be in use was begun.
    begun_at: Option<Instant>,
    /// Of the channel in reserve.
    attempts: Attempts,
    reason: PathReason,
    /// Since when the reserve is the better one.
    better_since: Option<Instant>,
    /// How often another channel was taken into use while there was one.
    switches: u64,
    /// The way that needs no relay, if there is one.
    preferred: Option<Preferred>,
}

/// A way that is taken whenever it is up, unless it was left not long ago.
#[derive(Clone, Copy, Debug)]
struct Preferred {
    way: usize,
    not_before: Instant,
    /// How long it is not taken after it is left the next time.
    hold: Duration,
    taken_at: Option<Instant>,
}

impl Preferred {
    fn handle_taken(&mut self, now: Instant) {
        self.taken_at = Some(now);
    }

    /// It was left since it was silent, closed, or worse.
    fn handle_left(&mut self, now: Instant) {
        let taken_at = self.taken_at.take();
        if taken_at.is_some_and(|taken_at| now >= taken_at + HOLD_MAX) {
            self.hold = HOLD_MIN;
        }
        self.not_before = now + self.hold;
        self.hold = self.hold.saturating_mul(2).min(HOLD_MAX);
    }
}

impl Failover {
    pub(super) fn new(now: Instant, preferred: Option<usize>) -> Self {
        Self {
            preferred: preferred.map(|way| Preferred {
                way,
                not_before: now,
                hold: HOLD_MIN,
                taken_at: None,
            }),
            probe: Probe::new(now),
            reserve: None,
            begun_at: None,
            attempts: Attempts::new(now, BACKOFF),
            reason: PathReason::First,
            better_since: None,
            switches: 0,
        }
    }

    pub(super) const fn switches(&self) -> u64 {
        self.switches
    }

    /// Returns the channel in reserve, whether it is up or not.
    pub(super) fn reserve(&self) -> Option<ChannelId> {
        self.reserve.as_ref().map(|reserve| reserve.channel)
    }

    /// Returns the channel in reserve, whether it can be taken into use, and its way.
    pub(super) fn reserve_state(&self, now: Instant) -> Option<(ChannelId, bool, usize)> {
        let reserve = self.reserve.as_ref()?;
        let usable = reserve.is_up && !reserve.probe.is_dead(now);
        Some((reserve.channel, usable, self.attempts.way))
    }

    /// A way's neighbour is ready.
    pub(super) fn wake(&mut self, now: Instant) {
        if self.reserve.is_none() {
            self.attempts.retry_at.get_or_insert(now);
        }
    }

    /// Takes the news that the handshake of the channel that shall be in use was begun, over one of `ways`.
    pub(super) fn handle_begun(&mut self, now: Instant, ways: usize) {
        if ways > 1 {
            self.begun_at = Some(now);
            self.wake(now);
        }
    }

    /// Takes the news that the channel in use is established.
    pub(super) fn handle_up(&mut self, now: Instant) {
        self.begun_at = None;
        self.probe = Probe::new(now);
        self.reason = PathReason::First;
        self.better_since = None;
        self.wake(now);
    }

    /// Takes the news that the channel in reserve is established; false if `channel` is not that one.
    pub(super) fn handle_reserve_up(&mut self, now: Instant, channel: ChannelId) -> bool {
        let Some(reserve) = self.reserve.as_mut().filter(|reserve| reserve.channel == channel) else {
            return false;
        };
        reserve.is_up = true;
        reserve.probe = Probe::new(now);
        self.attempts.backoff.handle_success(now);
        true
    }

    /// Lets the channel in reserve, which is the first to be established, be the one in use, and the one without an answer the reserve.
    pub(super) fn prefer_reserve(
        &mut self,
        now: Instant,
        active: &mut Option<(ChannelId, FlowId)>,
        attempts: &mut Attempts,
    ) {
        let switches = self.switches;
        self.change_places(now, (active, attempts), PathReason::First);
        // None was in use before.
        self.switches = switches;
        if let Some(reserve) = &mut self.reserve {
            reserve.is_up = false;
        }
    }

    /// Takes the news that the channel in reserve is gone; false if `channel` is not that one.
    pub(super) fn handle_reserve_closed(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        channel: ChannelId,
        ways: usize,
    ) -> bool {
        if self.reserve() != Some(channel) {
            return false;
        }
        self.reserve = None;
        self.better_since = None;
        self.attempts.handle_failure(now, entropy, ways);
        true
    }

    /// The channel in use, which went by `attempts`, is gone: gives the reserve, if there is one, and whether that is up.
    pub(super) fn take_reserve(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        attempts: &mut Attempts,
        ways: usize,
    ) -> Option<(ChannelId, FlowId, bool)> {
        self.begun_at = None;
        let reserve = self.reserve.take()?;
        self.note_change(now, attempts.way, self.attempts.way);
        std::mem::swap(attempts, &mut self.attempts);
        // What failed is the way that was in use.
        self.attempts.handle_failure(now, entropy, ways);
        self.probe = reserve.probe;
        self.begun_at = (!reserve.is_up).then_some(now);
        self.better_since = None;
        self.reason = PathReason::Closed;
        self.switches += u64::from(reserve.is_up);
        Some((reserve.channel, reserve.flow, reserve.is_up))
    }

    /// Lets the channel in use and the one in reserve change places.
    fn change_places(
        &mut self,
        now: Instant,
        (active, attempts): (&mut Option<(ChannelId, FlowId)>, &mut Attempts),
        reason: PathReason,
    ) {
        let (Some(reserve), Some((channel, flow))) = (&mut self.reserve, active.as_mut()) else {
            return;
        };
        std::mem::swap(channel, &mut reserve.channel);
        std::mem::swap(flow, &mut reserve.flow);
        std::mem::swap(&mut self.probe, &mut reserve.probe);
        let to = self.attempts.way;
        std::mem::swap(attempts, &mut self.attempts);
        self.note_change(now, self.attempts.way, to);
        self.reason = reason;
        self.better_since = None;
        self.switches += 1;
    }

    /// Takes note of what the change from one way to another means for the preferred one.
    fn note_change(&mut self, now: Instant, from: usize, to: usize) {
        let Some(preferred) = &mut self.preferred else {
            return;
        };
        if from == preferred.way {
            preferred.handle_left(now);
        } else if to == preferred.way {
            preferred.handle_taken(now);
        }
    }

    /// The neighbour of the preferred way was reached anew.
    pub(super) fn handle_preferred_ready(&mut self, now: Instant) {
        if let Some(preferred) = &mut self.preferred {
            preferred.not_before = now;
        }
    }

    /// Returns when the preferred way, which is the reserve, is to be taken into use; `None` if it is not good.
    fn taken_from(&self) -> Option<Instant> {
        let preferred = self.preferred?;
        let reserve = self.reserve.as_ref().filter(|reserve| reserve.is_up)?;
        let probe = &reserve.probe;
        let is_good = self.attempts.way == preferred.way
            && probe.round_trip().is_some()
            && probe.silent_since().is_none()
            && !is_better(&self.probe, probe);
        is_good.then_some(preferred.not_before)
    }

    /// Has the reserve be opened over the preferred way, which is ready and not in use. Returns the channel that has to make room.
    fn make_room(&mut self, now: Instant) -> Option<ChannelId> {
        let preferred = self.preferred.filter(|preferred| now >= preferred.not_before)?;
        match &self.reserve {
            Some(_) if self.attempts.way == preferred.way => None,
            Some(reserve) => Some(reserve.channel),
            None => {
                self.attempts.way = preferred.way;
                None
            }
        }
    }

    fn probe_of(&mut self, active: Option<ChannelId>, channel: ChannelId) -> Option<&mut Probe> {
        if active == Some(channel) {
            return Some(&mut self.probe);
        }
        let reserve = self.reserve.as_mut()?;
        (reserve.channel == channel).then_some(&mut reserve.probe)
    }

    pub(super) fn poll_timeout(&self, is_up: bool, expectation: Expectation) -> Option<Instant> {
        if !is_up {
            return self.second_at();
        }
        let reserve = match &self.reserve {
            Some(reserve) if reserve.is_up => Some(reserve.probe.poll_timeout(self.of_reserve())),
            Some(_) => None,
            None => self.attempts.retry_at,
        };
        let better = self.better_since.map(|since| since + BETTER_FOR);
        let active = Some(self.probe.poll_timeout(expectation));
        [active, reserve, better, self.taken_from()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns when, without a channel that is up, the handshake over a second way is to be begun beside that over the first.
    fn second_at(&self) -> Option<Instant> {
        let begun_at = self.begun_at.filter(|_| self.reserve.is_none())?;
        Some(self.attempts.retry_at?.max(begun_at + SECOND_AFTER))
    }

    /// While the channel in use is silent, the reserve has to show that it is not.
    fn of_reserve(&self) -> Expectation {
        match self.probe.silent_since() {
            Some(_) => Expectation::Answer,
            None => Expectation::Idle,
        }
    }

    /// Does what is due, and says what the caller has to do.
    fn handle_timeout(
        &mut self,
        now: Instant,
        active: ChannelId,
        expectation: Expectation,
        wants_preferred: bool,
    ) -> Steps {
        let mut steps = Steps::default();
        if self.probe.handle_timeout(now, expectation) {
            steps.pings.push(active);
        }
        if wants_preferred && let Some(channel) = self.make_room(now) {
            steps.replaces = Some(channel);
            return steps;
        }
        let taken_from = self.taken_from();
        let expected = self.of_reserve();
        let Some(reserve) = &mut self.reserve else {
            steps.opens = self.attempts.is_due(now);
            return steps;
        };
        if !reserve.is_up {
            return steps;
        }
        if reserve.probe.handle_timeout(now, expected) {
            steps.pings.push(reserve.channel);
        }
        if reserve
            .probe
            .silent_since()
            .is_some_and(|since| now >= since + GIVEN_UP_AFTER)
        {
            steps.closes = Some(reserve.channel);
            return steps;
        }
        let lives = |since| reserve.probe.was_heard_since(since);
        if self.probe.is_dead(now) && self.probe.silent_since().is_some_and(lives) {
            steps.switches = Some(PathReason::Silent);
            return steps;
        }
        if taken_from.is_some_and(|from| now >= from) {
            steps.switches = Some(PathReason::Direct);
            return steps;
        }
        let is_better = !reserve.probe.is_silent(now) && is_better(&reserve.probe, &self.probe);
        if !is_better {
            self.better_since = None;
        } else if now >= *self.better_since.get_or_insert(now) + BETTER_FOR {
            steps.switches = Some(PathReason::Better);
        }
        steps
    }

    /// Describes each of `ways`; `active` is the one in use and whether its channel is up.
    pub(super) fn views(&self, now: Instant, ways: &[WaySettings], active: (usize, bool)) -> Vec<PathView> {
        let views = ways.iter().enumerate().map(|(index, way)| {
            let in_use = index == active.0;
            let reserve = self
                .reserve
                .as_ref()
                .filter(|_| !in_use && index == self.attempts.way);
            let probe = if in_use {
                active.1.then_some(&self.probe)
            } else {
                reserve
                    .filter(|reserve| reserve.is_up)
                    .map(|reserve| &reserve.probe)
            };
            let lives = probe.is_some_and(|probe| !probe.is_dead(now));
            PathView {
                neighbour: way.neighbour,
                through: way
                    .names
                    .split_last()
                    .map_or_else(Vec::new, |(_, names)| names.to_vec()),
                state: match (in_use && active.1, lives) {
                    (true, _) => PathState::Active,
                    (false, true) => PathState::Standby,
                    (false, false) => PathState::Down,
                },
                round_trip: probe.and_then(Probe::round_trip),
                loss_permille: probe.map_or(0, Probe::loss_permille),
                reason: (in_use && active.1).then_some(self.reason),
            }
        });
        views.collect()
    }
}

/// Returns whether a path is markedly better than another: half of its round trip, or a tenth less lost.
fn is_better(one: &Probe, other: &Probe) -> bool {
    let (Some(fast), Some(slow)) = (one.round_trip(), other.round_trip()) else {
        return false;
    };
    let loses_less = one.loss_permille() + 100 <= other.loss_permille();
    let loses_more = other.loss_permille() + 100 <= one.loss_permille();
    let is_faster = fast.saturating_mul(2) + Duration::from_millis(20) < slow;
    let is_slower = slow.saturating_mul(2) + Duration::from_millis(20) < fast;
    (loses_less && !is_slower) || (is_faster && !loses_more)
}

/// What the caller has to do.
#[derive(Debug, Default)]
struct Steps {
    /// Probes to send.
    pings: Vec<ChannelId>,
    /// Whether a channel in reserve is to be opened.
    opens: bool,
    /// The channel in reserve, to be closed.
    closes: Option<ChannelId>,
    /// The channel in reserve, to be closed for one over a better way.
    replaces: Option<ChannelId>,
    /// Why the two are to change places.
    switches: Option<PathReason>,
}

/// What a channel's owner has of it.
pub(super) struct Owned<'n> {
    peer: Identifier,
    pub(super) ways: &'n [WaySettings],
    pub(super) channel: &'n mut Option<(ChannelId, FlowId)>,
    pub(super) is_up: bool,
    expectation: Expectation,
    pub(super) attempts: &'n mut Attempts,
    pub(super) failover: &'n mut Failover,
}

impl Node {
    pub(super) fn owned(&mut self, owner: PathOwner) -> Option<Owned<'_>> {
        match owner {
            PathOwner::Uplink(index) => self.uplinks.get_mut(index).map(|uplink| uplink.owned()),
            PathOwner::Inlet(index) => self.portals.owned(index),
        }
    }

    /// Takes the news that a record of a channel was opened.
    pub(super) fn path_heard(&mut self, now: Now, channel: ChannelId) {
        if let Some(probe) = self.probe_of(channel) {
            probe.handle_heard(now.instant);
        }
    }

    /// Takes the answer to a probe.
    pub(super) fn path_answered(&mut self, channel: ChannelId, round_trip: Duration) {
        if let Some(probe) = self.probe_of(channel) {
            probe.handle_answer(round_trip);
        }
    }

    fn probe_of(&mut self, channel: ChannelId) -> Option<&mut Probe> {
        let owner = match self.by_channel.get(&channel)?.used_for {
            Use::Uplink { uplink } => PathOwner::Uplink(uplink),
            Use::Inlet { inlet } => PathOwner::Inlet(inlet),
            Use::Registrar { .. }
            | Use::Member { .. }
            | Use::Gateway { .. }
            | Use::Authority
            | Use::Asker
            | Use::Outlet { .. }
            | Use::Carrier { .. }
            | Use::Unknown { .. } => return None,
        };
        let owned = self.owned(owner)?;
        let active = owned.channel.map(|(channel, _)| channel);
        owned.failover.probe_of(active, channel)
    }

    /// Probes the paths of an owner with several ways, opens and closes the one in reserve, and changes over.
    pub(super) fn time_out_paths(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        owner: PathOwner,
        wire: &mut dyn Wire,
    ) {
        let Some(owned) = self.owned(owner).filter(|owned| owned.ways.len() > 1) else {
            return;
        };
        let Some((active, _)) = *owned.channel else { return };
        if !owned.is_up {
            if owned.failover.second_at().is_some_and(|at| now.instant >= at) {
                self.open_reserve(now, entropy, owner, wire);
            }
            return;
        }
        let expectation = owned.expectation;
        let wants_preferred = self.wants_preferred(owner);
        let Some(owned) = self.owned(owner) else { return };
        let steps = owned
            .failover
            .handle_timeout(now.instant, active, expectation, wants_preferred);
        for channel in steps.pings {
            // One that is just being closed says so itself.
            let _ = self.channels.ping(now, channel);
        }
        if let Some(channel) = steps.closes {
            self.close_channel(channel, CloseCode::BROKEN);
        }
        if let Some(channel) = steps.replaces {
            self.close_channel(channel, CloseCode::DONE);
        }
        if steps.opens {
            self.open_reserve(now, entropy, owner, wire);
        }
        if let Some(reason) = steps.switches {
            self.change_path(now, owner, reason);
        }
    }

    /// Returns whether an owner's preferred way is ready and another is in use.
    fn wants_preferred(&mut self, owner: PathOwner) -> bool {
        let Some(owned) = self.owned(owner) else {
            return false;
        };
        let preferred = owned.failover.preferred.map(|preferred| preferred.way);
        let other = preferred.filter(|way| *way != owned.attempts.way);
        let Some(neighbour) = other.and_then(|way| owned.ways.get(way)).map(|way| way.neighbour) else {
            return false;
        };
        self.ready_link(neighbour).is_some()
    }

    /// Goes on with whoever has a way over a neighbour that is there on demand, and is there now.
    pub(super) fn look_at_direct(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        neighbour: usize,
        wire: &mut dyn Wire,
    ) {
        for owner in self.path_owners() {
            let Some(owned) = self.owned(owner) else { continue };
            if owned.ways.iter().any(|way| way.neighbour == neighbour) {
                owned.failover.handle_preferred_ready(now.instant);
                self.time_out_paths(now, entropy, owner, wire);
            }
        }
    }

    /// Returns the channel of an owner that is in use.
    pub(super) fn channel_up(&self, owner: PathOwner) -> Option<ChannelId> {
        let (channel, is_up) = match owner {
            PathOwner::Uplink(index) => {
                let uplink = self.uplinks.get(index)?;
                (uplink.channel?, uplink.state == super::UplinkState::Up)
            }
            PathOwner::Inlet(index) => {
                let inlet = self.portals.inlets.get(index)?;
                let is_down = matches!(inlet.session.state(), SessionState::Down { .. });
                (inlet.channel?, !is_down)
            }
        };
        is_up.then_some(channel.0)
    }

    /// Returns whether an owner has a channel that is up over one of its ways.
    pub(super) fn is_up_over(&self, owner: PathOwner, way: usize) -> bool {
        let parts = match owner {
            PathOwner::Uplink(index) => self
                .uplinks
                .get(index)
                .map(|uplink| (&uplink.attempts, &uplink.failover)),
            PathOwner::Inlet(index) => {
                let inlet = self.portals.inlets.get(index);
                inlet.map(|inlet| (&inlet.attempts, &inlet.failover))
            }
        };
        let Some((attempts, failover)) = parts else {
            return false;
        };
        if attempts.way == way {
            return self.channel_up(owner).is_some();
        }
        let reserve = failover.reserve.as_ref().filter(|reserve| reserve.is_up);
        reserve.is_some() && failover.attempts.way == way
    }

    /// Opens a channel over another way than the one in use, or meant to be.
    fn open_reserve(&mut self, now: Now, entropy: &mut dyn Entropy, owner: PathOwner, wire: &mut dyn Wire) {
        let (pq, service, used_for) = match owner {
            PathOwner::Uplink(uplink) => {
                let pq = self.uplinks.get(uplink).map(|uplink| uplink.settings.pq);
                (pq, UPLINK, Use::Uplink { uplink })
            }
            PathOwner::Inlet(inlet) => {
                let pq = self.portals.peer_settings(inlet).map(|settings| settings.pq);
                (pq, PORTAL, Use::Inlet { inlet })
            }
        };
        let (Some(pq), Some(owned)) = (pq, self.owned(owner)) else {
            return;
        };
        let (peer, in_use) = (owned.peer, owned.attempts.way);
        let ways = owned.ways.to_vec();
        let mut attempts =
            std::mem::replace(&mut owned.failover.attempts, Attempts::new(now.instant, BACKOFF));
        let destination = Destination {
            peer,
            pq,
            service,
            used_for,
            ways: &ways,
        };
        let opened = self.open_way_but(now, entropy, destination, &mut attempts, Some(in_use), wire);
        let Some(owned) = self.owned(owner) else { return };
        owned.failover.attempts = attempts;
        let Some((channel, flow)) = opened else { return };
        owned.failover.reserve = Some(Reserve {
            channel,
            flow,
            is_up: false,
            probe: Probe::new(now.instant),
        });
    }

    pub(super) fn change_path(&mut self, now: Now, owner: PathOwner, reason: PathReason) {
        let Some(owned) = self.owned(owner) else { return };
        let from = owned.ways.get(owned.attempts.way).map_or(0, |way| way.neighbour);
        owned
            .failover
            .change_places(now.instant, (owned.channel, owned.attempts), reason);
        let to = owned.ways.get(owned.attempts.way).map_or(0, |way| way.neighbour);
        self.event(Event::PathChanged {
            owner,
            from,
            to,
            reason,
        });
        self.path_taken(now, owner);
    }

    /// Goes on in the channel that was in reserve and is up.
    pub(super) fn path_taken(&mut self, now: Now, owner: PathOwner) {
        match owner {
            PathOwner::Uplink(index) => self.uplink_moved(now, index),
            PathOwner::Inlet(index) => self.portals.moved(now.instant, index),
        }
    }
}

impl super::uplink::Uplink {
    fn owned(&mut self) -> Owned<'_> {
        let expectation = self.expectation();
        Owned {
            peer: self.settings.collector,
            ways: &self.settings.ways,
            is_up: self.state == super::UplinkState::Up,
            channel: &mut self.channel,
            expectation,
            attempts: &mut self.attempts,
            failover: &mut self.failover,
        }
    }

    /// Returns what is expected of the channel in use.
    pub(super) fn expectation(&self) -> Expectation {
        if self.sender.awaits_answer() {
            Expectation::Answer
        } else {
            Expectation::Idle
        }
    }
}

impl super::portal::Portals {
    fn owned(&mut self, index: usize) -> Option<Owned<'_>> {
        let inlet = self.inlets.get_mut(index)?;
        let expectation = inlet.expectation();
        Some(Owned {
            peer: inlet.settings.peer,
            ways: &inlet.settings.ways,
            is_up: !matches!(inlet.session.state(), SessionState::Down { .. }),
            channel: &mut inlet.channel,
            expectation,
            attempts: &mut inlet.attempts,
            failover: &mut inlet.failover,
        })
    }

    fn moved(&mut self, now: Instant, index: usize) {
        if let Some(inlet) = self.inlets.get_mut(index) {
            inlet.session.handle_down(now);
            inlet.session.handle_up(now);
        }
    }
}

impl super::portal::Inlet {
    /// Returns what is expected of the channel in use.
    pub(super) fn expectation(&self) -> Expectation {
        if self.session.bytes_kept() > 0 || self.session.state() == SessionState::Beginning {
            Expectation::Answer
        } else if self.session.streams().len() > 0 {
            Expectation::Open
        } else {
            Expectation::Idle
        }
    }
}

/// How long a handshake may go unanswered before one over another way is begun beside it.
const SECOND_AFTER: Duration = Duration::from_secs(1);
/// How long the reserve has to be the better path before it is taken into use.
const BETTER_FOR: Duration = Duration::from_secs(30);
/// How long the preferred way is not taken after it was left for the first time in a while, and at most.
const HOLD_MIN: Duration = Duration::from_secs(30);
const HOLD_MAX: Duration = Duration::from_secs(600);
/// How long the reserve may be silent before its channel is closed, and another opened after a while.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(15);
