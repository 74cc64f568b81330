//! Why a statement is not believed.

use crate::{
    crypto::CryptoError,
    identity::{Identifier, IdentityError},
    relay::NamePatternError,
    wire::WireError,
};

/// Why a statement, a credential, a list or a request was refused. The fault of who presents it, except for
/// [`TrustError::NoAuthority`] and [`TrustError::Lapsed`], which say something about this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The bytes are not what PROTOCOL.md §10 describes.
    #[error("malformed statement")]
    Wire(#[from] WireError),
    /// The authority's history or its attestation is refused.
    #[error("the authority's identity is refused")]
    Identity(#[from] IdentityError),
    /// The version is not one we speak.
    #[error("{what} has version {got}, not {want}")]
    Version {
        /// Which structure.
        what: &'static str,
        /// The version found.
        got: u8,
        /// The version we speak.
        want: u8,
    },
    /// The statement is of another kind than the one wanted.
    #[error("statement is of kind {got}, not {want}")]
    Kind {
        /// The kind found.
        got: u8,
        /// The kind wanted.
        want: u8,
    },
    /// Something is empty or too long.
    #[error("{what} has {len} bytes or entries, outside {min}..={max}")]
    Length {
        /// What.
        what: &'static str,
        /// How long it is.
        len: usize,
        /// The least length allowed.
        min: usize,
        /// The largest length allowed.
        max: usize,
    },
    /// A text has a character that no terminal and no log should be given.
    #[error("{what} has the control character {found:?}")]
    Text {
        /// Which text.
        what: &'static str,
        /// The character.
        found: char,
    },
    /// A name pattern is none.
    #[error("a pattern of the credential is refused")]
    Pattern(#[from] NamePatternError),
    /// Entries that must ascend do not.
    #[error("{what} do not ascend")]
    Order {
        /// Which entries.
        what: &'static str,
    },
    /// The statement has no number.
    #[error("{what} has the number 0")]
    NoNumber {
        /// Which statement.
        what: &'static str,
    },
    /// The number of a status list is further ahead of its time than lists can have come.
    #[error("status list made at {issued_at} has the number {number}, more than {max} ahead")]
    NumberAhead {
        /// Its number.
        number: u64,
        /// When it was made, seconds since 1970.
        issued_at: u64,
        /// How far ahead a number may be.
        max: u64,
    },
    /// The address of a way is not `host:port`.
    #[error("address {address:?} is not a host and a port")]
    Address {
        /// The address.
        address: String,
    },
    /// The window of validity is empty or too long.
    #[error("statement is valid for {secs} s, outside 1..={max}")]
    Lifetime {
        /// Length of the window in seconds; 0 if it ends before it starts.
        secs: u64,
        /// The longest window allowed.
        max: u64,
    },
    /// The statement key was not vouched for when the statement was made.
    #[error("statement was issued at {issued_at}, outside its key's {not_before}..={not_after}")]
    OutsideAttestation {
        /// When the statement was made, seconds since 1970.
        issued_at: u64,
        /// Since when the key is vouched for.
        not_before: u64,
        /// Until when.
        not_after: u64,
    },
    /// A signature does not verify.
    #[error("{what} is not signed by the key it names")]
    Signature {
        /// What is signed.
        what: &'static str,
        /// Why.
        source: CryptoError,
    },
    /// The request was not made with the ticket it names.
    #[error("the request was not made with that ticket")]
    TicketKey,
    /// This node trusts no authority.
    #[error("no authority is trusted")]
    NoAuthority,
    /// The statement is another authority's.
    #[error("statement is of the authority {got}, not {want}")]
    Foreign {
        /// Whose it is.
        got: Identifier,
        /// Whose was wanted.
        want: Identifier,
    },
    /// The credential is somebody else's.
    #[error("credential is {got}'s, not {want}'s")]
    Subject {
        /// Whose it is.
        got: Identifier,
        /// Who presented it.
        want: Identifier,
    },
    /// The statement is not valid yet.
    #[error("statement is valid from {issued_at}, and it is {now} (seconds since 1970)")]
    NotYetValid {
        /// When it was made.
        issued_at: u64,
        /// The verifier's time.
        now: u64,
    },
    /// The statement is not valid any more, and its grace is over.
    #[error("statement was valid until {not_after}, and it is {now} (seconds since 1970)")]
    Expired {
        /// End of its window.
        not_after: u64,
        /// The verifier's time.
        now: u64,
    },
    /// The subject is in the newest status list.
    #[error("credential is revoked by status list {number}")]
    Revoked {
        /// The list's number.
        number: u64,
    },
    /// The authority was silent for so long that no credential counts any more.
    #[error("no status list came since {since} (seconds since 1970)")]
    Lapsed {
        /// Since when a newer list is missing.
        since: u64,
    },
    /// The status list is older than the one held.
    #[error("status list {got} is older than {have}, which is held")]
    RolledBack {
        /// Number of the list held.
        have: u64,
        /// Number of the list presented.
        got: u64,
    },
    /// The status list was signed on behalf of a key that the authority had replaced before the list held.
    #[error("status list is signed for key {got} of the authority, the one held for key {have}")]
    OldKey {
        /// The change whose key stands behind the list held.
        have: u32,
        /// The change whose key stands behind the list presented.
        got: u32,
    },
    /// Nobody asked for this time, or too long ago.
    #[error("nobody asked for this time")]
    NotAsked,
    /// The parts of a signed time contradict each other.
    #[error("signed time says {unix_millis} ms and was issued at {issued_at} s")]
    Contradiction {
        /// The time it says, milliseconds since 1970.
        unix_millis: u64,
        /// When it says it was made, seconds since 1970.
        issued_at: u64,
    },
}

impl TrustError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Wire(_) | Self::Version { .. } | Self::Kind { .. } => {
                "upgrade the older of the nodes, and check that the file or text was copied whole"
            }
            Self::Identity(error) => error.hint(),
            Self::Length { .. } | Self::Text { .. } | Self::Order { .. } | Self::NoNumber { .. } => {
                "let the authority issue it again with texts and lists within the limits"
            }
            Self::NumberAhead { .. } => "check the authority's clock, and who can use its statement key",
            Self::Pattern(error) => error.hint(),
            Self::Address { .. } => "write an address like relay.example:7447 or [2001:db8::1]:7447",
            Self::Lifetime { .. } => "let the authority issue it for at most 400 days",
            Self::OutsideAttestation { .. } => {
                "compare the authority's clock with the true time, and check that its token still signs"
            }
            Self::Signature { .. } => "it is damaged or forged: let the authority issue it again",
            Self::TicketKey => "copy the ticket again, whole; if it fails again, issue a new one",
            Self::NoAuthority => "enrol this node, or name the authority's identifier under [trust]",
            Self::Foreign { .. } => {
                "the two nodes belong to different authorities: compare `fieldgate status` on both"
            }
            Self::Subject { .. } => {
                "the peer presents a credential that is not its own: check what runs there"
            }
            Self::NotYetValid { .. } => "compare the clocks of this node and the authority",
            Self::Expired { .. } => {
                "let the peer reach the authority to renew its credential, or enrol it anew"
            }
            Self::Revoked { .. } => "if the member shall come back, let an administrator enrol it anew",
            Self::Lapsed { .. } => {
                "bring this node in contact with the authority, or carry a newer status list to it"
            }
            Self::RolledBack { .. } | Self::OldKey { .. } => {
                "it is out of date: an authority restored from a backup learns of this and goes on above it"
            }
            Self::NotAsked => "the path to the authority is too slow for its time, or the answer is replayed",
            Self::Contradiction { .. } => "check the authority's software: it signs what cannot be",
        }
    }
}
