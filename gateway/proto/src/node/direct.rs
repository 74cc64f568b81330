//! Direct paths: a way to a peer without a relay, found by telling each other addresses in the channel (PROTOCOL.md §19).
//!
//! ```text
//!            channel to the peer is up, `retry_at`        its addresses        connected            established
//!  Waiting ──────────────────────────────────────▶ Asking ───────────▶ Dialling ────────▶ Opening ──────────▶ Up
//!     ▲  no answer, no address allowed, not reached, another node there, broken: 5 s … 10 min   │               │
//!     └─────────────────────────────────────────────────────────────────────────────────────────┴───────────────┘
//! ```
//!
//! The node that opens channels to the peer dials; the peer answers with its addresses and sends a few datagrams to those it was
//! told, so that routers in front of it let in what comes. The link is a neighbour that is dialled on demand, and the last of the
//! ways of §17.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use super::{ConnectionKey, NeighbourState, Node, Output, PathOwner, Use, Wire};
use crate::{
    candidates::{CANDIDATES_MAX, Candidates, Range, is_allowed},
    channel::ChannelId,
    entropy::Entropy,
    link::{Backoff, BackoffSettings},
    relay::RegistrarFrame,
    time::{Instant, Now},
};

/// What a node does for direct paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectSettings {
    /// Indexes of neighbours that are dialled on demand only, at addresses that the peer tells: each the last way of one uplink, or
    /// of the inlets that lead to one node.
    pub neighbours: BTreeSet<usize>,
    /// Whether gateways that deliver here are told addresses.
    pub collector: bool,
    /// Whether nodes whose streams lead here are told addresses.
    pub outlets: bool,
    /// Addresses that are told, and dialled.
    pub ranges: Vec<Range>,
}

/// Where a direct path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectState {
    /// It is not there.
    Waiting {
        /// Not tried before this, and only once the peer is reached.
        retry_at: Instant,
    },
    /// The peer was asked for addresses.
    Asking {
        /// Its answer is not waited for longer.
        until: Instant,
    },
    /// The caller dials them.
    Dialling,
    /// Connected; it has to show that it is the peer.
    Opening {
        /// Not later than this.
        until: Instant,
    },
    /// The peer is there.
    Up {
        /// Since when.
        since: Instant,
    },
}

/// Why there is no direct path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DirectFailure {
    /// The peer did not tell its addresses.
    NoAnswer,
    /// The peer told none that may be dialled.
    NoAddress,
    /// Nobody was reached at the addresses.
    NotReached,
    /// Somebody was reached who is not the peer.
    NotThere,
    /// It was there, and broke.
    Broken,
}

impl DirectFailure {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::NoAnswer,
        Self::NoAddress,
        Self::NotReached,
        Self::NotThere,
        Self::Broken,
    ];

    /// Returns the word for metrics and status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::NoAddress => "no_address",
            Self::NotReached => "not_reached",
            Self::NotThere => "not_there",
            Self::Broken => "broken",
        }
    }

    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::NoAnswer => {
                "set direct_path = true at the other node as well, and upgrade it if it is older"
            }
            Self::NoAddress => "compare link.direct.allow of both nodes with their networks",
            Self::NotReached => {
                "let UDP pass between the two; a router that gives each connection another port can not be passed"
            }
            Self::NotThere => "nothing: another node has the same address in its own network",
            Self::Broken => "nothing: it is tried again",
        }
    }
}

/// What can be seen of a direct path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectView {
    /// Where it stands.
    pub state: DirectState,
    /// What went wrong last, if it is not up.
    pub failure: Option<DirectFailure>,
    /// The connection, once there is one.
    pub connection: Option<ConnectionKey>,
}

/// What has happened with direct paths since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectStats {
    /// Times that a peer was asked for addresses.
    pub attempts: u64,
    /// Attempts and paths that failed, in the order of [`DirectFailure::ALL`].
    pub failed: [u64; DirectFailure::ALL.len()],
    /// Times that this node told its addresses to a peer that asked.
    pub answered: u64,
    /// Times that it did not, since as many were under way as may be.
    pub unanswered: u64,
}

/// The path of one owner.
#[derive(Debug)]
struct Path {
    owner: PathOwner,
    neighbour: usize,
    /// Index among the ways of the owner.
    way: usize,
    state: DirectState,
    /// Of the attempt under way, or the last.
    number: u32,
    asked_at: Option<Instant>,
    backoff: Backoff,
    failure: Option<DirectFailure>,
    /// Whether the peer was there in this attempt.
    was_up: bool,
    /// Attempts that came to another node: how many addresses are put last.
    turn: usize,
}

/// Addresses to which datagrams go, for a peer that dials from there.
#[derive(Debug)]
struct Punch {
    addresses: Vec<SocketAddr>,
    /// How often they were sent.
    sent: usize,
    begun_at: Instant,
}

impl Punch {
    /// Returns when the next go out.
    fn next_at(&self) -> Option<Instant> {
        Some(self.begun_at + *PUNCH_AT.get(self.sent)?)
    }
}

/// The direct paths of a node.
#[derive(Debug)]
pub(super) struct Direct {
    settings: DirectSettings,
    paths: Vec<Path>,
    /// Addresses of the caller's sockets.
    own: Vec<SocketAddr>,
    /// Channels whose peers were told addresses, and when.
    told: BTreeMap<ChannelId, Instant>,
    punches: VecDeque<Punch>,
    stats: DirectStats,
}

impl Direct {
    /// Begins; each of `ways` is a way over a neighbour that is dialled on demand.
    pub(super) fn new(
        now: Instant,
        settings: DirectSettings,
        ways: impl Iterator<Item = (PathOwner, usize, usize)>,
    ) -> Self {
        let paths = ways.map(|(owner, way, neighbour)| Path {
            owner,
            neighbour,
            way,
            state: DirectState::Waiting { retry_at: now },
            number: 0,
            asked_at: None,
            backoff: Backoff::new(BACKOFF),
            failure: None,
            was_up: false,
            turn: 0,
        });
        Self {
            paths: paths.collect(),
            settings,
            own: Vec::new(),
            told: BTreeMap::new(),
            punches: VecDeque::new(),
            stats: DirectStats::default(),
        }
    }

    /// Forgets a channel that is gone.
    pub(super) fn forget(&mut self, channel: ChannelId) {
        self.told.remove(&channel);
    }
}

impl Path {
    fn fail(&mut self, now: Instant, entropy: &mut dyn Entropy, why: DirectFailure, stats: &mut DirectStats) {
        if why == DirectFailure::NotThere {
            self.turn += 1;
        }
        if let Some(count) = stats.failed.get_mut(why as usize) {
            *count += 1;
        }
        self.failure = Some(why);
        self.state = DirectState::Waiting {
            retry_at: self.backoff.handle_failure(now, entropy),
        };
    }

    /// Tries again soon: something has changed.
    fn hasten(&mut self, now: Instant) {
        if let DirectState::Waiting { retry_at } = &mut self.state {
            let earliest = self.asked_at.map_or(now, |at| at + ASKED_EVERY);
            *retry_at = (*retry_at).min(earliest.max(now));
        }
    }
}

impl Node {
    /// Takes the address from which a connection comes that somebody else opened, as this node sees it, when it is new or another
    /// than before. Members of this relay are told theirs.
    pub fn handle_address(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        address: SocketAddr,
        wire: &mut dyn Wire,
    ) {
        let Some(entry) = self.connections.get_mut(&connection) else {
            return;
        };
        entry.address = Some(address);
        let Some(id) = entry.id else { return };
        let member = self
            .by_channel
            .iter()
            .find(|(_, entry)| matches!(entry.used_for, Use::Member { link } if link == id));
        if let Some(channel) = member.map(|(channel, _)| *channel) {
            self.tell_observed(now, channel, connection, wire);
        }
    }

    /// Tells a member where its link comes from, if that is known.
    pub(super) fn tell_observed(
        &mut self,
        now: Now,
        channel: ChannelId,
        connection: ConnectionKey,
        wire: &mut dyn Wire,
    ) {
        let entry = self.connections.get(&connection);
        if let Some(address) = entry.and_then(|entry| entry.address) {
            let mut frames = Vec::new();
            RegistrarFrame::Observed { address }.put(&mut frames);
            self.send_frames(now, channel, &frames, wire);
        }
    }

    /// Takes the addresses at which the caller's sockets take QUIC, or from which they dial.
    pub fn set_own_addresses(&mut self, now: Now, addresses: Vec<SocketAddr>, wire: &mut dyn Wire) {
        let before = self.own_candidates();
        self.direct.own = addresses;
        self.tell_changes(now, &before, wire);
    }

    /// Takes the address that a relay says this node's link comes from.
    pub(super) fn take_observed(
        &mut self,
        now: Now,
        neighbour: usize,
        address: SocketAddr,
        wire: &mut dyn Wire,
    ) {
        let before = self.own_candidates();
        if let Some(neighbour) = self.neighbours.get_mut(neighbour) {
            neighbour.observed = Some(address);
        }
        self.tell_changes(now, &before, wire);
    }

    /// Has those try again who could not reach this node at its addresses of before.
    fn tell_changes(&mut self, now: Now, before: &[SocketAddr], wire: &mut dyn Wire) {
        let addresses = self.own_candidates();
        if addresses == before {
            return;
        }
        for path in &mut self.direct.paths {
            path.hasten(now.instant);
        }
        let told: Vec<ChannelId> = self.direct.told.keys().copied().collect();
        let mut frames = Vec::new();
        Candidates {
            attempt: 0,
            addresses,
        }
        .put(&mut frames);
        for channel in told {
            self.send_frames(now, channel, &frames, wire);
        }
    }

    /// Returns the addresses that this node tells.
    fn own_candidates(&self) -> Vec<SocketAddr> {
        let ranges = &self.direct.settings.ranges;
        let mut seen = BTreeSet::new();
        let mut fit = |address: &SocketAddr| is_allowed(ranges, *address) && seen.insert(*address);
        let observed = self.neighbours.iter().filter_map(|neighbour| neighbour.observed);
        let mut observed: Vec<SocketAddr> = observed.filter(&mut fit).take(OBSERVED_MAX).collect();
        let own = self.direct.own.iter().copied().filter(&mut fit);
        // Those of the same network come first: the way there is the shortest.
        let mut addresses: Vec<SocketAddr> = own.take(CANDIDATES_MAX - observed.len()).collect();
        addresses.append(&mut observed);
        addresses
    }

    /// Returns those of a peer's addresses that may be dialled.
    fn allowed(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let own = self.own_candidates();
        let mut allowed: Vec<SocketAddr> = Vec::new();
        for address in addresses {
            let is_good = is_allowed(&self.direct.settings.ranges, *address);
            if is_good && !own.contains(address) && !allowed.contains(address) {
                allowed.push(*address);
            }
        }
        allowed
    }

    /// Takes addresses of a peer; false if the frame is bad.
    pub(super) fn candidates_frame(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        (channel, used_for): (ChannelId, Use),
        body: &[u8],
        wire: &mut dyn Wire,
    ) -> bool {
        let Ok(candidates) = Candidates::decode(body) else {
            return false;
        };
        match used_for {
            Use::Uplink { uplink } => {
                self.take_addresses(now, entropy, PathOwner::Uplink(uplink), &candidates)
            }
            Use::Inlet { inlet } => self.take_addresses(now, entropy, PathOwner::Inlet(inlet), &candidates),
            Use::Gateway { .. } if self.direct.settings.collector => {
                self.tell_addresses(now, channel, &candidates, wire);
            }
            Use::Outlet { .. } if self.direct.settings.outlets => {
                self.tell_addresses(now, channel, &candidates, wire);
            }
            Use::Gateway { .. } | Use::Outlet { .. } => {}
            Use::Registrar { .. }
            | Use::Member { .. }
            | Use::Authority
            | Use::Asker
            | Use::Carrier { .. }
            | Use::Unknown { .. } => return false,
        }
        true
    }

    /// Dials the addresses of a peer that was asked for them.
    fn take_addresses(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        owner: PathOwner,
        candidates: &Candidates,
    ) {
        let mut addresses = self.allowed(&candidates.addresses);
        let direct = &mut self.direct;
        let Some(path) = direct.paths.iter_mut().find(|path| path.owner == owner) else {
            return;
        };
        if candidates.attempt == 0 {
            path.hasten(now.instant);
            return;
        }
        if !matches!(path.state, DirectState::Asking { .. }) || candidates.attempt != path.number {
            return;
        }
        if addresses.is_empty() {
            path.fail(now.instant, entropy, DirectFailure::NoAddress, &mut direct.stats);
            return;
        }
        let turn = path.turn % addresses.len();
        addresses.rotate_left(turn);
        path.state = DirectState::Dialling;
        let neighbour = path.neighbour;
        if let Some(neighbour) = self.neighbours.get_mut(neighbour) {
            neighbour.state = NeighbourState::Dialling;
        }
        self.outputs
            .push_back(Output::DialDirect { neighbour, addresses });
    }

    /// Tells a peer that asks for them the addresses of this node, and opens the routers in front of it.
    fn tell_addresses(&mut self, now: Now, channel: ChannelId, candidates: &Candidates, wire: &mut dyn Wire) {
        let told_at = self.direct.told.get(&channel);
        if told_at.is_some_and(|at| now.instant < *at + TOLD_EVERY) {
            return;
        }
        if self.direct.punches.len() >= PUNCHES_MAX {
            self.direct.stats.unanswered += 1;
            return;
        }
        self.direct.told.insert(channel, now.instant);
        self.direct.stats.answered += 1;
        let addresses = self.allowed(&candidates.addresses);
        let mut frames = Vec::new();
        Candidates {
            attempt: candidates.attempt,
            addresses: self.own_candidates(),
        }
        .put(&mut frames);
        self.send_frames(now, channel, &frames, wire);
        if !addresses.is_empty() {
            self.direct.punches.push_back(Punch {
                addresses,
                sent: 0,
                begun_at: now.instant,
            });
            self.send_punches(now.instant);
        }
    }

    fn send_punches(&mut self, now: Instant) {
        let Self { direct, outputs, .. } = self;
        for punch in &mut direct.punches {
            if punch.next_at().is_some_and(|at| now >= at) {
                punch.sent += 1;
                outputs.push_back(Output::Punch {
                    addresses: punch.addresses.clone(),
                });
            }
        }
        direct.punches.retain(|punch| punch.next_at().is_some());
    }

    /// Goes on with each direct path.
    pub(super) fn time_out_direct(&mut self, now: Now, entropy: &mut dyn Entropy, wire: &mut dyn Wire) {
        self.send_punches(now.instant);
        for index in 0..self.direct.paths.len() {
            self.time_out_direct_path(now, entropy, index, wire);
        }
    }

    fn time_out_direct_path(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
        index: usize,
        wire: &mut dyn Wire,
    ) {
        let Some(Path {
            owner,
            neighbour,
            way,
            state,
            was_up,
            ..
        }) = self.direct.paths.get(index)
        else {
            return;
        };
        let (owner, neighbour, way, state, was_up) = (*owner, *neighbour, *way, *state, *was_up);
        let is_lost = self.is_down(neighbour);
        let is_up = self.is_up_over(owner, way);
        let next = match state {
            DirectState::Waiting { retry_at } if now.instant >= retry_at => {
                self.ask_addresses(now, index, wire);
                return;
            }
            DirectState::Asking { until } if now.instant >= until => Err(DirectFailure::NoAnswer),
            DirectState::Dialling if is_lost => Err(DirectFailure::NotReached),
            DirectState::Dialling if self.ready_link(neighbour).is_some() => Ok(DirectState::Opening {
                until: now.instant + OPENED_WITHIN,
            }),
            DirectState::Opening { .. } if is_up => Ok(DirectState::Up { since: now.instant }),
            DirectState::Opening { .. } if is_lost && was_up => Err(DirectFailure::Broken),
            DirectState::Opening { .. } if is_lost => Err(DirectFailure::NotReached),
            DirectState::Opening { until } if now.instant >= until => Err(if was_up {
                DirectFailure::Broken
            } else {
                DirectFailure::NotThere
            }),
            DirectState::Up { .. } if is_lost => Err(DirectFailure::Broken),
            DirectState::Up { .. } if !is_up => Ok(DirectState::Opening {
                until: now.instant + OPENED_WITHIN,
            }),
            DirectState::Waiting { .. }
            | DirectState::Asking { .. }
            | DirectState::Dialling
            | DirectState::Opening { .. }
            | DirectState::Up { .. } => return,
        };
        let direct = &mut self.direct;
        let Some(path) = direct.paths.get_mut(index) else {
            return;
        };
        match next {
            Ok(state) => {
                if matches!(state, DirectState::Up { .. }) {
                    path.backoff.handle_success(now.instant);
                    path.was_up = true;
                    path.failure = None;
                }
                path.state = state;
            }
            Err(why) => {
                path.fail(now.instant, entropy, why, &mut direct.stats);
                self.drop_neighbour(now, entropy, neighbour, wire);
            }
        }
    }

    /// Closes the connection of a neighbour that is dialled on demand.
    fn drop_neighbour(&mut self, now: Now, entropy: &mut dyn Entropy, neighbour: usize, wire: &mut dyn Wire) {
        let connection = self
            .neighbours
            .get(neighbour)
            .and_then(super::neighbour::Neighbour::connection);
        if let Some(connection) = connection {
            self.forget_connection(now, entropy, connection, wire);
            self.close_connection(connection);
        }
    }

    /// Asks the peer for its addresses, if it is reached.
    fn ask_addresses(&mut self, now: Now, index: usize, wire: &mut dyn Wire) {
        let addresses = self.own_candidates();
        let Some(owner) = self.direct.paths.get(index).map(|path| path.owner) else {
            return;
        };
        let Some(channel) = self.channel_up(owner) else {
            return;
        };
        let direct = &mut self.direct;
        let Some(path) = direct.paths.get_mut(index) else {
            return;
        };
        direct.stats.attempts += 1;
        path.number = path.number.wrapping_add(1).max(1);
        path.asked_at = Some(now.instant);
        path.was_up = false;
        path.state = DirectState::Asking {
            until: now.instant + ANSWERED_WITHIN,
        };
        let mut frames = Vec::new();
        Candidates {
            attempt: path.number,
            addresses,
        }
        .put(&mut frames);
        self.send_frames(now, channel, &frames, wire);
    }

    fn is_down(&self, neighbour: usize) -> bool {
        let neighbour = self.neighbours.get(neighbour);
        neighbour.is_none_or(|neighbour| matches!(neighbour.state, NeighbourState::Down { .. }))
    }

    /// Returns when [`Self::time_out_direct`] has something to do.
    pub(super) fn poll_direct_timeout(&self) -> Option<Instant> {
        let punches = self.direct.punches.iter().filter_map(Punch::next_at);
        let paths = self.direct.paths.iter().filter_map(|path| {
            let is_lost = self.is_down(path.neighbour);
            match path.state {
                DirectState::Waiting { retry_at } => self.channel_up(path.owner).map(|_| retry_at),
                DirectState::Asking { until } => Some(until),
                DirectState::Opening { until } if !is_lost && !self.is_up_over(path.owner, path.way) => {
                    Some(until)
                }
                DirectState::Dialling if !is_lost && self.ready_link(path.neighbour).is_none() => None,
                DirectState::Up { .. } if !is_lost && self.is_up_over(path.owner, path.way) => None,
                // Something has changed.
                DirectState::Dialling | DirectState::Opening { .. } | DirectState::Up { .. } => {
                    Some(Instant::START)
                }
            }
        });
        punches.chain(paths).min()
    }

    /// Returns what can be seen of the direct path of an owner; `None` if it shall have none.
    #[must_use]
    pub fn direct(&self, owner: PathOwner) -> Option<DirectView> {
        let path = self.direct.paths.iter().find(|path| path.owner == owner)?;
        let neighbour = self.neighbours.get(path.neighbour);
        Some(DirectView {
            state: path.state,
            failure: path.failure,
            connection: neighbour.and_then(super::neighbour::Neighbour::connection),
        })
    }

    /// Returns what has happened with direct paths.
    #[must_use]
    pub const fn direct_stats(&self) -> DirectStats {
        self.direct.stats
    }

    /// Returns the addresses that this node tells peers, as long as it does so.
    #[must_use]
    pub fn direct_addresses(&self) -> Vec<SocketAddr> {
        self.own_candidates()
    }
}

/// Waits between attempts.
const BACKOFF: BackoffSettings = BackoffSettings {
    delay_min: Duration::from_secs(10),
    delay_max: Duration::from_secs(600),
    stable_after: Duration::from_secs(60),
};
/// A peer is not asked more often, whatever changes.
const ASKED_EVERY: Duration = Duration::from_secs(5);
/// How long a peer's answer is waited for.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// How long whoever is reached has to show that it is the peer.
const OPENED_WITHIN: Duration = Duration::from_secs(15);
/// A peer is not answered more often.
const TOLD_EVERY: Duration = Duration::from_secs(2);
/// Peers for which routers are being opened.
const PUNCHES_MAX: usize = 64;
/// When datagrams go out that open them: about when those of the peer come.
const PUNCH_AT: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(600),
    Duration::from_millis(1400),
    Duration::from_millis(3000),
];
/// Addresses told that relays have observed.
const OBSERVED_MAX: usize = 2;
