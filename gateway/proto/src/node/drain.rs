//! Leaving a relay that is to stop: the relay's side and its members' (PROTOCOL.md §7).
//!
//! ```text
//!  relay                                         member
//!  drain ──Drain, so many members a second──▶ owners of channels take their reserve over another neighbour
//!    │  ◀──Stays: no other way, moving, peers──  what is still over this one, when that changes
//!    │  ◀──Close──────────────────────────────  nothing is: the link goes, and is tried again after a rest
//!    └ half of the time gone: members that wait for peers behind other relays lose these
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    ConnectionKey, Event, Links, Node, Output, PathOwner, PathReason, Use, Wire,
    neighbour::{Neighbour, NeighbourState},
};
use crate::{
    channel::{ChannelId, CloseCode},
    entropy::Entropy,
    identity::Identifier,
    relay::{RegistrarFrame, StaysReason},
    route::LinkId,
    time::{Instant, Now},
};

/// A relay that is being drained.
#[derive(Debug)]
pub(super) struct Drain {
    since: Instant,
    until: Instant,
    /// Members that have not been told yet.
    untold: VecDeque<ChannelId>,
    /// When the next of them are told.
    tell_at: Instant,
    /// How many at a time.
    at_once: usize,
    /// Why members have not left, by their word.
    stays: BTreeMap<ChannelId, StaysReason>,
    /// When those who wait for peers behind other relays lose these; `None` once that is done.
    cut_at: Option<Instant>,
    /// Until when they may notice, and leave.
    parted_until: Option<Instant>,
}

/// What can be seen of a relay that is being drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainView {
    /// Since when.
    pub since: Instant,
    /// When it may stop.
    pub until: Instant,
    /// Links of members.
    pub left: usize,
    /// How many of them will not leave by themselves: they have said that they have no other way.
    pub stuck: usize,
    /// Whether some of them may still leave by themselves.
    pub is_waiting: bool,
    /// The first of them.
    pub members: Vec<LeaverView>,
    /// Labels that are in use.
    pub labels: usize,
}

/// A member that has not left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaverView {
    /// Who.
    pub member: Identifier,
    /// Its connection.
    pub connection: Option<ConnectionKey>,
    /// Why, if it has said so.
    pub stays: Option<StaysReason>,
    /// Names it holds over the link.
    pub names: Vec<String>,
}

/// The relay at a neighbour wants to be left.
#[derive(Debug)]
pub(super) struct Leaving {
    /// When this node looks again what is over it.
    look_at: Instant,
    /// What the relay was told last.
    said: Option<StaysReason>,
}

impl Leaving {
    pub(super) const fn poll_timeout(&self) -> Instant {
        self.look_at
    }
}

/// How long a relay that was left is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    next: Duration,
    /// Whether it is so now.
    pub(super) is_resting: bool,
}

impl Rest {
    pub(super) const fn new() -> Self {
        Self {
            next: REST_MIN,
            is_resting: false,
        }
    }

    /// Begins, and will be twice as long the next time.
    fn begin(&mut self) -> Duration {
        self.is_resting = true;
        let rest = self.next;
        self.next = rest.saturating_mul(2).min(REST_MAX);
        rest
    }
}

/// What of an owner's channels lies over a neighbour that is to be left.
struct Lying {
    active: Option<ChannelId>,
    /// The channel in reserve, and whether it can be taken into use.
    reserve: Option<(ChannelId, bool)>,
    /// Neighbours of the ways in use and in reserve.
    neighbours: (usize, Option<usize>),
    /// Neighbours of all ways.
    ways: Vec<usize>,
}

impl Node {
    /// Has members leave this relay, which may stop `within` this time. Called again it begins anew. Does nothing for a node that
    /// is no relay.
    pub fn drain(&mut self, now: Now, within: Duration) {
        if self.router.relay().is_none() {
            return;
        }
        self.router.set_draining(true);
        let members = self.by_channel.iter().filter_map(|(channel, entry)| {
            let Use::Member { link } = entry.used_for else {
                return None;
            };
            self.is_leaver(link).then_some(*channel)
        });
        let untold: VecDeque<ChannelId> = members.collect();
        let steps = (within.as_nanos() / 4 / TELL_EVERY.as_nanos()).max(1);
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        let since = self.drain.as_ref().map_or(now.instant, |drain| drain.since);
        self.drain = Some(Drain {
            since,
            until: now.instant + within,
            at_once: untold.len().div_ceil(steps).max(TELL_MIN),
            untold,
            tell_at: now.instant,
            stays: BTreeMap::new(),
            cut_at: Some(now.instant + within / 2),
            parted_until: None,
        });
    }

    /// Takes that back: members may stay, and come again.
    pub fn undrain(&mut self, now: Now, wire: &mut dyn Wire) {
        if self.drain.take().is_none() {
            return;
        }
        self.router.set_draining(false);
        let channels = self.by_channel.iter();
        let members: Vec<ChannelId> = channels
            .filter(|(_, entry)| matches!(entry.used_for, Use::Member { .. }))
            .map(|(channel, _)| *channel)
            .collect();
        for channel in members {
            self.tell_drain(now, channel, 0, wire);
        }
    }

    /// Returns how far draining is, with at most so many of the members that are left; `None` if this node is not being drained.
    #[must_use]
    pub fn drain_view(&self, members_max: usize) -> Option<DrainView> {
        let (drain, relay) = (self.drain.as_ref()?, self.router.relay()?);
        let stays = drain.stays.iter().filter_map(|(channel, reason)| {
            let Use::Member { link } = self.by_channel.get(channel)?.used_for else {
                return None;
            };
            Some((link, *reason))
        });
        let stays: BTreeMap<LinkId, StaysReason> = stays.collect();
        let stuck = drain
            .stays
            .values()
            .filter(|reason| **reason == StaysReason::NoOtherWay);
        let is_waiting = relay.leavers().any(|(link, _)| match stays.get(&link) {
            None | Some(StaysReason::Moving) => true,
            // Those behind other relays are parted from them in the middle of the time.
            Some(StaysReason::Peers) => drain.cut_at.or(drain.parted_until).is_some(),
            Some(StaysReason::NoOtherWay) => false,
        });
        let members = relay
            .leavers()
            .take(members_max)
            .map(|(link, member)| LeaverView {
                member,
                connection: self.connection_of.get(link.index()).copied().flatten(),
                stays: stays.get(&link).copied(),
                names: relay.names_of(link).map(ToOwned::to_owned).collect(),
            });
        Some(DrainView {
            since: drain.since,
            until: drain.until,
            left: relay.leavers().count(),
            stuck: stuck.count(),
            is_waiting,
            members: members.collect(),
            labels: self.router.label_count(),
        })
    }

    fn is_leaver(&self, link: LinkId) -> bool {
        let relay = self.router.relay();
        relay.is_some_and(|relay| relay.is_leaver(link))
    }

    fn tell_drain(&mut self, now: Now, channel: ChannelId, within_secs: u32, wire: &mut dyn Wire) {
        let mut frames = Vec::new();
        RegistrarFrame::Drain { within_secs }.put(&mut frames);
        self.send_frames(now, channel, &frames, wire);
    }

    /// A member has attached: it is told at once, if this relay is to be left.
    pub(super) fn drain_attached(&mut self, channel: ChannelId, link: LinkId) {
        if self.is_leaver(link)
            && let Some(drain) = &mut self.drain
        {
            drain.untold.push_front(channel);
        }
    }

    /// Takes a member's word why it has not left.
    pub(super) fn drain_stays(&mut self, channel: ChannelId, reason: StaysReason) {
        if let Some(drain) = &mut self.drain {
            drain.stays.insert(channel, reason);
        }
    }

    pub(super) fn drain_closed(&mut self, channel: ChannelId) {
        if let Some(drain) = &mut self.drain {
            drain.stays.remove(&channel);
        }
    }

    pub(super) fn poll_drain_timeout(&self) -> Option<Instant> {
        let drain = self.drain.as_ref()?;
        let telling = (!drain.untold.is_empty()).then_some(drain.tell_at);
        let moments = [telling, drain.cut_at, drain.parted_until];
        moments.into_iter().flatten().min()
    }

    /// Tells members that are to leave; parts those who wait from peers that nobody has told.
    pub(super) fn time_out_drain(&mut self, now: Now, wire: &mut dyn Wire) {
        let Some(drain) = &mut self.drain else { return };
        if now.instant >= drain.tell_at && !drain.untold.is_empty() {
            let count = drain.at_once.min(drain.untold.len());
            let told: Vec<ChannelId> = drain.untold.drain(..count).collect();
            drain.tell_at = now.instant + TELL_EVERY;
            let left = drain.until.saturating_since(now.instant).as_secs().max(1);
            let within_secs = u32::try_from(left).unwrap_or(u32::MAX);
            for channel in told {
                if matches!(
                    self.by_channel.get(&channel).map(|entry| entry.used_for),
                    Some(Use::Member { .. })
                ) {
                    self.tell_drain(now, channel, within_secs, wire);
                }
            }
        }
        let Some(drain) = &mut self.drain else { return };
        drain.parted_until.take_if(|until| now.instant >= *until);
        if drain.cut_at.is_some_and(|at| now.instant >= at) {
            drain.cut_at = None;
            drain.parted_until = Some(now.instant + PARTED_WITHIN);
            let waiting = drain.stays.iter();
            let waiting: Vec<ChannelId> = waiting
                .filter(|(_, reason)| **reason == StaysReason::Peers)
                .map(|(channel, _)| *channel)
                .collect();
            for channel in waiting {
                let Some(Use::Member { link }) = self.by_channel.get(&channel).map(|entry| entry.used_for)
                else {
                    continue;
                };
                let mut links = Links {
                    connection_of: &self.connection_of,
                    carried: &mut self.carried,
                    wire: &mut *wire,
                };
                self.router.cut_from_relays(link, &mut links);
            }
        }
    }

    /// Takes a relay's word that it is to be left, or no more.
    pub(super) fn neighbour_drains(&mut self, now: Now, index: usize, within_secs: u32) {
        let Some(neighbour) = self.neighbours.get_mut(index) else {
            return;
        };
        if within_secs == 0 {
            neighbour.rest = Rest::new();
            if neighbour.leaving.take().is_some() {
                self.event(Event::RelayStays { neighbour: index });
                self.wake_uplinks(now);
                self.portals.wake(now.instant);
            }
        } else if neighbour.leaving.is_none() {
            neighbour.leaving = Some(Leaving {
                look_at: now.instant,
                said: None,
            });
            self.event(Event::RelayDrains { neighbour: index });
        }
    }

    /// Returns whether the relay at a neighbour wants to be left.
    pub(super) fn is_leaving(&self, index: usize) -> bool {
        self.neighbours
            .get(index)
            .is_some_and(|neighbour| neighbour.leaving.is_some())
    }

    /// Returns whether a neighbour can be used and does not want to be left.
    pub(super) fn is_staying(&self, index: usize) -> bool {
        self.ready_link(index).is_some() && !self.is_leaving(index)
    }

    /// Moves away from relays that want to be left, and leaves those that nothing is over any more.
    pub(super) fn time_out_leaving(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        for index in 0..self.neighbours.len() {
            let Some(leaving) = self.neighbours[index].leaving.as_mut() else {
                self.end_rest(now, index);
                continue;
            };
            if now.instant < leaving.look_at {
                continue;
            }
            leaving.look_at = now.instant + LOOK_EVERY;
            for owner in self.path_owners() {
                self.move_owner(now, owner);
            }
            // What was closed just now counts no more.
            self.settle(now, entropy, wire);
            match self.stays_at(index) {
                None => self.leave(now, entropy, index, wire),
                Some(reason) => self.say_stays(now, index, reason, wire),
            }
        }
    }

    /// Has a relay that was left dialled at once, if nothing else is left.
    fn end_rest(&mut self, now: Now, index: usize) {
        let neighbour = &self.neighbours[index];
        let rests = neighbour.rest.is_resting && matches!(neighbour.state, NeighbourState::Down { .. });
        if rests && !(0..self.neighbours.len()).any(|other| other != index && self.is_staying(other)) {
            let neighbour = &mut self.neighbours[index];
            neighbour.rest.is_resting = false;
            if neighbour.over.is_some() {
                neighbour.state = NeighbourState::Down {
                    retry_at: now.instant,
                };
            } else {
                neighbour.state = NeighbourState::Dialling;
                self.outputs.push_back(Output::Dial { neighbour: index });
            }
        }
    }

    pub(super) fn path_owners(&self) -> Vec<PathOwner> {
        let uplinks = (0..self.uplinks.len()).map(PathOwner::Uplink);
        uplinks
            .chain((0..self.portals.inlet_count()).map(PathOwner::Inlet))
            .collect()
    }

    fn lying(&mut self, now: Instant, owner: PathOwner) -> Option<Lying> {
        let owned = self.owned(owner)?;
        let neighbour = |way: usize| owned.ways.get(way).map_or(usize::MAX, |way| way.neighbour);
        let reserve = owned.failover.reserve_state(now);
        Some(Lying {
            active: owned.channel.map(|(channel, _)| channel),
            reserve: reserve.map(|(channel, usable, _)| (channel, usable && owned.is_up)),
            neighbours: (
                neighbour(owned.attempts.way),
                reserve.map(|(.., way)| neighbour(way)),
            ),
            ways: owned.ways.iter().map(|way| way.neighbour).collect(),
        })
    }

    /// Takes the reserve of an owner into use if only what is in use lies over a relay that wants to be left; closes a reserve
    /// that lies over one.
    fn move_owner(&mut self, now: Now, owner: PathOwner) {
        let Some(lying) = self.lying(now.instant, owner) else {
            return;
        };
        let (active, Some(reserve)) = lying.neighbours else {
            return;
        };
        let Some((channel, usable)) = lying.reserve else {
            return;
        };
        if self.is_leaving(reserve) {
            // The one in use is elsewhere, or the next reserve can be.
            if !self.is_leaving(active) || lying.ways.iter().any(|way| self.is_staying(*way)) {
                self.close_channel(channel, CloseCode::DONE);
            }
        } else if self.is_leaving(active) && usable {
            self.change_path(now, owner, PathReason::Drained);
        }
    }

    /// Returns why this node cannot leave a relay yet.
    fn stays_at(&mut self, index: usize) -> Option<StaysReason> {
        let neighbour = self.neighbours.get(index)?;
        let link = neighbour.link?;
        // Who reaches what lies behind another relay knows nothing of this.
        let mut stays = neighbour.forwards().then_some(StaysReason::NoOtherWay);
        let mut note = |reason: StaysReason| stays = Some(stays.map_or(reason, |stays| stays.min(reason)));
        for name in neighbour.registered() {
            let others =
                || (0..self.neighbours.len()).filter(|other| *other != index && self.is_staying(*other));
            if others().any(|other| self.neighbours[other].registered().any(|held| held == name)) {
                continue;
            }
            let wanted = others().any(|other| self.neighbours[other].wants(name));
            note(if wanted {
                StaysReason::Moving
            } else {
                StaysReason::NoOtherWay
            });
        }
        let ways = self.authority_client.neighbours();
        if ways.contains(&index) && !ways.iter().any(|way| self.is_staying(*way)) {
            note(StaysReason::NoOtherWay);
        }
        for entry in self.by_channel.values() {
            let incoming = matches!(
                entry.used_for,
                Use::Gateway { .. } | Use::Outlet { .. } | Use::Asker
            );
            if incoming && self.router.link_of(entry.flow) == Some(link) {
                note(StaysReason::Peers);
            }
        }
        let owners = self.path_owners();
        for owner in owners {
            let Some(lying) = self.lying(Instant::START, owner) else {
                continue;
            };
            if !lying.ways.contains(&index) {
                continue;
            }
            let over = |channel: ChannelId| {
                let entry = self.by_channel.get(&channel);
                entry.is_some_and(|entry| self.router.link_of(entry.flow) == Some(link))
            };
            let reason = if !lying.ways.iter().any(|way| self.is_staying(*way)) {
                StaysReason::NoOtherWay
            } else if lying.active.is_some_and(over)
                || lying.reserve.is_some_and(|(channel, _)| over(channel))
            {
                StaysReason::Moving
            } else {
                continue;
            };
            stays = Some(stays.map_or(reason, |stays| stays.min(reason)));
        }
        stays
    }

    fn say_stays(&mut self, now: Now, index: usize, reason: StaysReason, wire: &mut dyn Wire) {
        let neighbour = &mut self.neighbours[index];
        let (Some(channel), Some(leaving)) = (neighbour.channel, neighbour.leaving.as_mut()) else {
            return;
        };
        if leaving.said == Some(reason) {
            return;
        }
        leaving.said = Some(reason);
        let mut frames = Vec::new();
        RegistrarFrame::Stays { reason }.put(&mut frames);
        self.send_frames(now, channel, &frames, wire);
    }

    /// Closes the link to a relay that nothing is over any more.
    fn leave(&mut self, now: Now, entropy: &mut dyn Entropy, index: usize, wire: &mut dyn Wire) {
        let neighbour = &mut self.neighbours[index];
        let Some(connection) = neighbour.connection() else {
            return;
        };
        self.event(Event::RelayLeft { neighbour: index });
        if let Some(channel) = self.neighbours[index].channel {
            // What the channel has to say goes before the link does, which goes with it.
            self.close_channel(channel, CloseCode::DONE);
            self.settle(now, entropy, wire);
        }
        if self.neighbours[index].connection() == Some(connection) {
            self.forget_connection(now, entropy, connection, wire);
            self.close_connection(connection);
        }
        let neighbour = &mut self.neighbours[index];
        let rest = neighbour.rest.begin();
        neighbour.state = NeighbourState::Down {
            retry_at: now.instant + rest,
        };
    }
}

impl Neighbour {
    fn forwards(&self) -> bool {
        self.attached.is_some()
    }
}

/// How often members that wait to be told are.
const TELL_EVERY: Duration = Duration::from_millis(50);
/// How many of them at least: a small relay tells all at once.
const TELL_MIN: usize = 100;
/// How long members may take to notice that they were parted from peers behind other relays: a few round trips.
const PARTED_WITHIN: Duration = Duration::from_secs(5);
/// How often a member looks what is still over a relay that it is to leave.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a relay that was left is not dialled while there is another; twice as long each time.
const REST_MIN: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(120);
