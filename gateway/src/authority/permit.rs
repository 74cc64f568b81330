//! Who asks, and what the node's policy says about it.

use fieldgate_proto::{identity::Identifier, trust::Rights};

use super::log::Actor;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A channel.
    Channel {
        /// Whom the handshake has proven to be there.
        peer: Identifier,
        /// The rights in its credential, if one counts for it, or what the node's file gives it.
        rights: Rights,
    },
    /// The control socket of the authority's own node. Who may open that may do everything.
    Local {
        /// The user at the other end, for the log.
        uid: u32,
    },
}

impl Origin {
    /// Returns who that is for the log.
    pub(crate) const fn actor(&self) -> Actor {
        match self {
            Self::Channel { peer, .. } => Actor::Node(*peer),
            Self::Local { uid } => Actor::User(*uid),
        }
    }
}

/// What somebody wants to do at the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Become a member, or carry the request of somebody who wants to.
    Enrol,
    /// Have a new credential.
    Renew,
    /// Issue a ticket that grants these rights.
    IssueTicket {
        /// What whoever uses it may do at the authority.
        grants: Rights,
    },
    /// End a ticket.
    RevokeTicket,
    /// Make somebody a member without a ticket.
    AddMember {
        /// What it may do at the authority.
        grants: Rights,
    },
    /// End a membership.
    RevokeMember,
    /// See tickets, members, log or status.
    Read,
}

impl Wish {
    /// Returns the words for errors.
    pub(crate) const fn what(&self) -> &'static str {
        match self {
            Self::Enrol => "enrolling",
            Self::Renew => "renewing a credential",
            Self::IssueTicket { .. } => "issuing a ticket",
            Self::RevokeTicket => "revoking a ticket",
            Self::AddMember { .. } => "adding a member",
            Self::RevokeMember => "revoking a member",
            Self::Read => "looking at tickets, members and log",
        }
    }
}

/// The node's policy. It is asked after the authority's own rules, and can only forbid.
pub(crate) trait Permit: Send {
    /// Returns whether the policy lets `from` do that.
    fn may(&self, from: &Origin, wish: &Wish) -> bool;
}

/// A policy that adds nothing to the authority's own rules.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OwnRules;

#[cfg(test)]
impl Permit for OwnRules {
    fn may(&self, _: &Origin, _: &Wish) -> bool {
        true
    }
}
