//! Links as routing sees them.

mod membership;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    address::LinkAddress,
    flow::{FlowId, FlowLost, Flows},
    label::{GoneLimit, Labels},
    received::RouterStats,
    slab::{Key, Slab},
};
use crate::{
    entropy::Entropy,
    identity::Identifier,
    relay::{ClassQueues, HOLDERS_PER_NAME_MAX, LeaseExpired, Relay, RelaySettings},
    time::Instant,
};

/// A link of this node. A number that goes stale when the link goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(super) Key);

impl LinkId {
    /// Returns the place of the link among the links that are up: small, used again after a link went down. The caller
    /// can keep what belongs to a link in a list by it.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0.index as usize
    }

    /// Returns a number that no other link of this node has had (until 2^32 went by at the same place).
    #[must_use]
    pub const fn number(self) -> u64 {
        (self.0.generation as u64) << 32 | self.0.index as u64
    }

    #[cfg(test)]
    pub(crate) const fn for_test(index: u32) -> Self {
        Self(Key { index, generation: 1 })
    }
}

/// The send buffers of the links; the event loop has them.
pub trait LinkWriter {
    /// Returns the buffer to which bytes for `link` are appended, `None` if its connection is gone.
    fn buffer(&mut self, link: LinkId) -> Option<&mut Vec<u8>>;

    /// Returns how many bytes wait to be sent over `link`, those in the buffer included.
    fn queued_bytes(&self, link: LinkId) -> usize;
}

/// What routing is allowed to take.
#[derive(Clone, Debug)]
pub struct RouterSettings {
    /// Services of this node that take first messages, for example `uplink`; 1 to 32 of a-z, 0-9, `-`.
    pub services: BTreeSet<String>,
    /// Forwarding, if this node is a relay.
    pub relay: Option<RelaySettings>,
    /// Links at the same time.
    pub links_max: usize,
    /// Labels on all links together; 32 bytes each.
    pub labels_max: usize,
    /// Conversations of this node.
    pub flows_max: usize,
    /// Bytes queued on a link above which frames for it wait in queues by class, where alarms overtake.
    pub link_bytes_max: usize,
}

impl Default for RouterSettings {
    /// No services, no relay, the limits of a relay with ten thousand gateways.
    fn default() -> Self {
        Self {
            services: BTreeSet::new(),
            relay: None,
            links_max: 16_384,
            labels_max: 262_144,
            flows_max: 65_536,
            link_bytes_max: 128 << 10,
        }
    }
}

/// Effects of the router that are not bytes on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A conversation cannot go on over its route. Its [`FlowId`] is stale from now on; the owner opens another.
    FlowLost {
        /// Which one.
        flow: FlowId,
        /// The link it ran over.
        link: LinkId,
        /// Why.
        reason: FlowLost,
    },
    /// A member did not renew a name in time.
    LeaseExpired(LeaseExpired),
}

/// Why a link cannot be used for routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouterError {
    /// There are too many links.
    #[error("{max} links are up already")]
    TooManyLinks {
        /// The limit.
        max: usize,
    },
}

impl RouterError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::TooManyLinks { .. } => "raise the limit of links, or spread the gateways over more relays",
        }
    }
}

/// Why a link cannot be attached to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberLinkError {
    /// The link is gone.
    #[error("link is gone")]
    Gone,
    /// This node is no relay.
    #[error("this node is no relay")]
    NotARelay,
    /// The identity is not in the policy.
    #[error("identity is not a member")]
    NotAMember,
    /// The link is attached to another member already.
    #[error("link is attached to another member")]
    OtherMember,
    /// The member has too many links.
    #[error("member has {max} links already")]
    TooManyLinks {
        /// The limit.
        max: usize,
    },
    /// The name this node has for the relay at the other end is held by as many as may hold one.
    #[error("the relay's name here has {HOLDERS_PER_NAME_MAX} holders already")]
    TooManyHolders,
}

impl MemberLinkError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Gone => "nothing to do: the node will dial again",
            Self::NotARelay => "add a [relay] section, or dial a node that has one",
            Self::NotAMember => "add the identifier as a [[relay.member]]",
            Self::OtherMember => "give each node an identity of its own",
            Self::TooManyLinks { .. } => "look for several nodes that run with the same identity",
            Self::TooManyHolders => "give the relay a name that no member may hold",
        }
    }
}

/// A link as routing sees it.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) address: LinkAddress,
    pub(super) frame_len_max: usize,
    /// Who was authenticated at its other end; only then does a relay forward from and to it.
    pub(super) member: Option<Identifier>,
    /// Channels that vouch for it: a member may open a second before the first is closed.
    attachments: u32,
    pub(super) labels: Labels,
    /// Labels this neighbour offered for forwarding that nobody took up yet.
    pub(super) incomplete: usize,
    pub(super) flows: BTreeSet<FlowId>,
    /// Conversations begun by others over this link, by the return route's encoding.
    pub(super) by_return: BTreeMap<Box<[u8]>, FlowId>,
    pub(super) queue: ClassQueues,
    pub(super) gone: GoneLimit,
    pub(super) traffic: LinkTraffic,
}

/// What was forwarded from and to a link, for metering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkTraffic {
    /// Frames that came over the link and were forwarded.
    pub frames_in: u64,
    /// Their payload in bytes.
    pub bytes_in: u64,
    /// Frames that were forwarded over the link.
    pub frames_out: u64,
    /// Their payload in bytes.
    pub bytes_out: u64,
}

/// Routes, labels and conversations of a node; see the [module](super).
#[derive(Debug)]
pub struct Router {
    pub(super) settings: RouterSettings,
    pub(super) links: Slab<LinkState>,
    pub(super) by_address: BTreeMap<LinkAddress, LinkId>,
    /// Labels on all links together.
    pub(super) label_count: usize,
    pub(super) flows: Flows,
    pub(super) relay: Option<Relay>,
    /// Links with frames in their queues.
    pub(super) congested: BTreeSet<LinkId>,
    /// Bytes in the queues of all links.
    pub(super) held_bytes: usize,
    pub(super) outputs: VecDeque<Output>,
    pub(super) stats: RouterStats,
    next_sweep: Instant,
}

impl Router {
    /// Makes a router without links.
    #[must_use]
    pub fn new(settings: RouterSettings) -> Self {
        let relay = settings.relay.clone().map(Relay::new);
        Self {
            settings,
            links: Slab::new(1, u32::MAX),
            by_address: BTreeMap::new(),
            label_count: 0,
            flows: Flows::new(),
            relay,
            congested: BTreeSet::new(),
            held_bytes: 0,
            outputs: VecDeque::new(),
            stats: RouterStats::default(),
            next_sweep: Instant::START,
        }
    }

    /// Takes in a link whose Hello has come. `frame_len_max` is what the neighbour accepts, in bytes of body.
    ///
    /// # Errors
    /// [`RouterError::TooManyLinks`]: close the connection.
    pub fn link_up(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        frame_len_max: usize,
    ) -> Result<LinkId, RouterError> {
        let max = self.settings.links_max;
        if self.links.len() >= max {
            return Err(RouterError::TooManyLinks { max });
        }
        let mut address = LinkAddress([0; 8]);
        entropy.fill(&mut address.0);
        let id = LinkId(self.links.insert(LinkState {
            address,
            frame_len_max,
            member: None,
            attachments: 0,
            labels: Labels::new(entropy.u32()),
            incomplete: 0,
            flows: BTreeSet::new(),
            by_return: BTreeMap::new(),
            queue: ClassQueues::default(),
            gone: GoneLimit::new(now),
            traffic: LinkTraffic::default(),
        }));
        // 64 random bits of at most some ten thousand links do not meet twice; should they, the newer link wins.
        self.by_address.insert(address, id);
        Ok(id)
    }

    /// Forgets a link whose connection is gone: its labels, registrations and conversations, and tells neighbours
    /// whose labels led to it.
    pub fn link_down(&mut self, link: LinkId, links: &mut (impl LinkWriter + ?Sized)) {
        self.expel(link, links);
        let Some(state) = self.links.get(link.0) else {
            return;
        };
        for flow in state.flows.clone() {
            self.lose_flow(flow, FlowLost::LinkDown);
        }
        let Some(state) = self.links.remove(link.0) else {
            return;
        };
        if self.by_address.get(&state.address) == Some(&link) {
            self.by_address.remove(&state.address);
        }
        self.held_bytes -= state.queue.len();
        self.congested.remove(&link);
    }

    /// Returns the member a link is attached to.
    #[must_use]
    pub fn member(&self, link: LinkId) -> Option<Identifier> {
        self.links.get(link.0)?.member
    }

    /// Returns what was forwarded from and to a link.
    #[must_use]
    pub fn link_traffic(&self, link: LinkId) -> Option<LinkTraffic> {
        Some(self.links.get(link.0)?.traffic)
    }

    /// Returns the relay's registrations, if this node is one.
    #[must_use]
    pub const fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// Returns the counters.
    #[must_use]
    pub const fn stats(&self) -> &RouterStats {
        &self.stats
    }

    /// Returns how many labels this node has chosen, on all links together.
    #[must_use]
    pub const fn label_count(&self) -> usize {
        self.label_count
    }

    /// Returns how many bytes wait in the queues of congested links.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Returns the next effect; drain it to `None` after every `handle_*`, [`Router::link_down`] and
    /// [`Router::close`].
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

/// How often expired entries are looked for; they live at most so much longer.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// A label nobody took up is dropped (PROTOCOL.md §3.3).
pub(super) const INCOMPLETE_LIFETIME: Duration = Duration::from_secs(30);
/// A label over which nothing passes is dropped (PROTOCOL.md §3.3).
pub(super) const UNUSED_LIFETIME: Duration = Duration::from_secs(120);
