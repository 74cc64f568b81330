//! What became of a frame, and the counters of everything dropped.

use super::{
    address::{Address, LinkAddress, RouteRef},
    flow::FlowId,
    router::LinkId,
};
use crate::link::Class;

/// What became of a frame given to [`Router::handle_frame`](super::Router::handle_frame).
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'f> {
    /// A payload for a conversation of this node.
    Local {
        /// Which one.
        flow: FlowId,
        /// How urgent it was.
        class: Class,
        /// What was carried; records are opened in place.
        payload: &'f mut [u8],
    },
    /// A payload for a local service in a conversation this node keeps no state of yet.
    Candidate {
        /// Where it came from and how to answer.
        candidate: Candidate<'f>,
        /// What was carried.
        payload: &'f mut [u8],
    },
    /// It was sent on, or waits to be, over this link.
    Forwarded {
        /// The link it leaves by.
        link: LinkId,
    },
    /// It concerned routing only, and was taken care of.
    Consumed,
    /// It was dropped and counted.
    Dropped(DropReason),
}

/// The first message of a possible conversation. Costs no state until it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'f> {
    pub(super) link: LinkId,
    pub(super) link_address: LinkAddress,
    pub(super) service: &'f str,
    pub(super) class: Class,
    pub(super) return_route: RouteRef<'f>,
}

impl<'f> Candidate<'f> {
    /// Returns the link it came over.
    #[must_use]
    pub const fn link(&self) -> LinkId {
        self.link
    }

    /// Returns the local service it is for.
    #[must_use]
    pub const fn service(&self) -> &'f str {
        self.service
    }

    /// Returns how urgent the message was.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Returns the way back from the neighbour on.
    #[must_use]
    pub const fn return_route(&self) -> RouteRef<'f> {
        self.return_route
    }

    /// Returns whether it came from the neighbour itself, not through it: only then does a channel to the registrar
    /// authenticate the link.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.return_route
            .addresses()
            .all(|address| matches!(address, Address::Service(_)))
    }

    /// Appends what a handshake cookie is bound to (PROTOCOL.md §4.6): the return route with the link in front.
    pub fn put_path(&self, out: &mut Vec<u8>) {
        self.return_route.put_behind(self.link_address, out);
    }
}

/// Defines the enum with its list and its words together, so that no reason is forgotten in either.
macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $reason:ident = $name:literal,)+) => {
        /// Why a frame was dropped. Peers are never told; every reason has its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum DropReason { $($(#[doc = $doc])+ $reason,)+ }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$reason),+];

            /// Returns the word for logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$reason => $name,)+ }
            }
        }
    };
}

drop_reasons! {
    /// The link it came over is not known, or no more.
    StaleLink = "stale_link",
    /// The frame is one of the link's own, not for routing.
    NotRouting = "not_routing",
    /// The onward route is empty.
    NoDestination = "no_destination",
    /// Addresses follow a service.
    BehindService = "behind_service",
    /// The return route does not end in a conversation that could be answered.
    NoWayBack = "no_way_back",
    /// The service does not exist here.
    UnknownService = "unknown_service",
    /// An answer to a conversation that does not exist, or that runs over another link.
    UnknownFlow = "unknown_flow",
    /// It would have to be forwarded, and this node is no relay.
    NotARelay = "not_a_relay",
    /// It would have to be forwarded from or to a link that is not attached to a member.
    Unattached = "unattached",
    /// The member may not reach the name.
    NotAllowed = "not_allowed",
    /// Nobody holds the name.
    UnknownName = "unknown_name",
    /// Who holds the name does so at this relay, which is being drained.
    Draining = "draining",
    /// No link has the address.
    UnknownLinkAddress = "unknown_link_address",
    /// Along link addresses only answers to conversations travel.
    NotAnAnswer = "not_an_answer",
    /// A label was offered in a first message.
    OfferUnasked = "offer_unasked",
    /// The offered label serves another conversation already, or differs from the one offered before.
    OfferReused = "offer_reused",
    /// It would leave by the link it came from, or an address stands twice in its routes.
    Loop = "loop",
    /// It was forwarded as often as it may be.
    HopLimit = "hop_limit",
    /// The return route has no room for another address.
    RouteFull = "route_full",
    /// It is longer than the next neighbour accepts.
    TooLong = "too_long",
    /// The link it should leave by is gone.
    LinkGone = "link_gone",
    /// The label leads nowhere.
    UnknownLabel = "unknown_label",
    /// Too many alarms wait for the link already.
    CongestedAlarm = "congested_alarm",
    /// Too much waits for the link already for class normal.
    CongestedNormal = "congested_normal",
    /// Too much waits for the link already for class bulk.
    CongestedBulk = "congested_bulk",
}

impl DropReason {
    /// Returns the reason for a frame of `class` that found its link congested.
    pub(super) const fn congested(class: Class) -> Self {
        match class {
            Class::Alarm => Self::CongestedAlarm,
            Class::Normal => Self::CongestedNormal,
            Class::Bulk => Self::CongestedBulk,
        }
    }
}

/// What a router has done since the node started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterStats {
    /// Frames forwarded, by class.
    pub frames_forwarded: [u64; Class::ALL.len()],
    /// Payload bytes forwarded.
    pub bytes_forwarded: u64,
    /// Payloads for conversations and services of this node.
    pub frames_local: u64,
    /// Answers whose offer could not be taken up because a table was full; they went on without it.
    pub labels_refused: u64,
    /// `LabelGone` sent.
    pub label_gone_sent: u64,
    /// `LabelGone` not sent because of the rate limit.
    pub label_gone_suppressed: u64,
    /// Labels dropped because they were not used or not completed.
    pub labels_expired: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Default for RouterStats {
    fn default() -> Self {
        Self {
            frames_forwarded: [0; 3],
            bytes_forwarded: 0,
            frames_local: 0,
            labels_refused: 0,
            label_gone_sent: 0,
            label_gone_suppressed: 0,
            labels_expired: 0,
            dropped: [0; DropReason::ALL.len()],
        }
    }
}

impl RouterStats {
    /// Returns how many frames were dropped for `reason`.
    #[must_use]
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Returns how many frames were dropped in all.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(super) const fn count_drop(&mut self, reason: DropReason) {
        self.dropped[reason as usize] += 1;
    }
}
