//! Why the authority says no.

use fieldgate_proto::identity::Identifier;

/// Why a request was refused. For the log, the metrics and operators; whoever asks to be enrolled is told nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The bytes are no request.
    #[error("the request is malformed: {0}")]
    Malformed(String),
    /// The request is meant for another authority.
    #[error("the request is for the authority {wanted}")]
    OtherAuthority {
        /// For which.
        wanted: Identifier,
    },
    /// There is no such ticket, or it ended long ago.
    #[error("there is no such ticket")]
    UnknownTicket,
    /// The request was made without the ticket's secret.
    #[error("the request was not made with the ticket: its secret does not fit")]
    ForgedTicket,
    /// The ticket's time is over.
    #[error("the ticket expired at {not_after} (seconds since 1970)")]
    ExpiredTicket {
        /// When.
        not_after: u64,
    },
    /// An operator ended the ticket.
    #[error("the ticket was revoked")]
    RevokedTicket,
    /// Others have used the ticket up.
    #[error("the ticket is used up: {used} of {uses}")]
    SpentTicket {
        /// How many have enrolled.
        used: u32,
        /// How many may.
        uses: u32,
    },
    /// The subject's identity key has not signed the request.
    #[error("the request is not signed by the identity it is about")]
    ForgedIdentity,
    /// The identity was revoked.
    #[error("the identity is revoked")]
    RevokedIdentity,
    /// The identity is no member.
    #[error("the identity is not a member")]
    NotAMember,
    /// No member has this name or identifier.
    #[error("there is no member {wanted:?}")]
    NoSuchMember {
        /// What was asked for.
        wanted: String,
    },
    /// Another member has the name.
    #[error("the name {name:?} belongs to {holder}")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        holder: Identifier,
    },
    /// The identity is a member already.
    #[error("the identity is a member already, named {name:?}")]
    AlreadyAMember {
        /// Its name.
        name: String,
    },
    /// The asker may not do that.
    #[error("{what} needs the right {right}")]
    NotAllowed {
        /// What was asked.
        what: &'static str,
        /// What it takes.
        right: &'static str,
    },
    /// The policy forbids it.
    #[error("the policy forbids {what}")]
    Policy {
        /// What was asked.
        what: &'static str,
    },
    /// A ticket would grant more than its issuer has.
    #[error("the ticket would grant {what}, which its issuer does not have")]
    Exceeds {
        /// What.
        what: String,
    },
    /// Something in an order is out of bounds.
    #[error("{field} {problem}")]
    Order {
        /// Which part.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no room.
    #[error("there are {count} {what} already, the most there may be")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: u64,
    },
    /// The identity key has not vouched for the statement key, so nothing can be signed.
    #[error("the authority cannot sign at the moment")]
    NotReady,
    /// The credential cannot be made.
    #[error("the credential cannot be made: {0}")]
    Unsignable(String),
}

impl Refusal {
    /// Returns the word for programs and metrics.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::OtherAuthority { .. } => "other-authority",
            Self::UnknownTicket => "unknown-ticket",
            Self::ForgedTicket => "forged-ticket",
            Self::ExpiredTicket { .. } => "expired-ticket",
            Self::RevokedTicket => "revoked-ticket",
            Self::SpentTicket { .. } => "spent-ticket",
            Self::ForgedIdentity => "forged-identity",
            Self::RevokedIdentity => "revoked-identity",
            Self::NotAMember => "not-a-member",
            Self::NoSuchMember { .. } => "no-such-member",
            Self::NameTaken { .. } => "name-taken",
            Self::AlreadyAMember { .. } => "already-a-member",
            Self::NotAllowed { .. } => "not-allowed",
            Self::Policy { .. } => "policy",
            Self::Exceeds { .. } => "exceeds",
            Self::Order { .. } => "order",
            Self::Full { .. } => "full",
            Self::NotReady => "not-ready",
            Self::Unsignable(_) => "unsignable",
        }
    }

    /// Returns what an operator can do about it.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "make the request again, with the same version of fieldgate",
            Self::OtherAuthority { .. } => "answer it at that authority, or issue a ticket here",
            Self::UnknownTicket | Self::ExpiredTicket { .. } | Self::RevokedTicket => {
                "issue a new ticket: `fieldgate ticket issue`"
            }
            Self::ForgedTicket => {
                "somebody tried a ticket without having it: watch for more, or issue a new one"
            }
            Self::SpentTicket { .. } => {
                "see who used it in `fieldgate authority log`; if that was nobody of yours, revoke that member; then issue a new ticket"
            }
            Self::ForgedIdentity => "somebody tried to enrol an identity that is not theirs: watch for more",
            Self::RevokedIdentity => {
                "an identity stays revoked for good: give the node a new one with `fieldgate identity create`"
            }
            Self::NotAMember => "enrol it with a ticket, or `fieldgate member add`",
            Self::NoSuchMember { .. } => "see `fieldgate member list` and `fieldgate member list --revoked`",
            Self::NameTaken { .. } => "revoke the member that has the name, or take another name",
            Self::AlreadyAMember { .. } => {
                "nothing to do; to change what it is granted, let it enrol with a new ticket, or change the line in the authority's file if it stands there"
            }
            Self::NotAllowed { .. } | Self::Policy { .. } => {
                "ask somebody with the right, or do it on the authority's own machine"
            }
            Self::Exceeds { .. } => "leave it out, or let an administrator issue the ticket",
            Self::Order { .. } => "see `fieldgate ticket issue --help` and `fieldgate member add --help`",
            Self::Full { .. } => "revoke tickets or members that are not needed",
            Self::NotReady => "see `fieldgate status` on the authority: its identity key must sign first",
            Self::Unsignable(_) => "use fewer and shorter attributes and patterns",
        }
    }
}
