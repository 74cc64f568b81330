//! What `fieldgate enroll` asks of a node.

use std::{fmt, future::Future, pin::Pin, rc::Rc};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Makes the node a member of an authority. Whoever composes the node implements it.
pub(crate) type Enrol = Rc<dyn Fn(EnrolJob) -> EnrolFuture>;
/// What comes of an [`EnrolJob`], some time.
pub(crate) type EnrolFuture = Pin<Box<dyn Future<Output = Result<EnrolDone, EnrolFailure>>>>;

/// The ways to enrol (PROTOCOL.md §10.4).
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum EnrolJob {
    /// Ask the authority over the ways in the ticket, wait for its answer and keep the credential.
    Online {
        /// The ticket; it has been parsed once.
        ticket: TicketText,
        /// How the node wants to be called; its own name if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Make a signed request for a file.
    Request {
        /// The ticket; it has been parsed once.
        ticket: TicketText,
        /// How the node wants to be called; its own name if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Take the authority's response from a file and keep the credential.
    Response {
        /// The response, Base64.
        response: String,
    },
}

/// What has come of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum EnrolDone {
    /// The node is a member, and has kept its credential.
    Enrolled(Membership),
    /// The signed request, Base64.
    Request {
        /// The signed request of PROTOCOL.md §10.4, Base64.
        request: String,
        /// Whose answer is needed, `fg1…`.
        authority: String,
    },
}

/// What the node is a member of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// The authority, `fg1…`.
    pub(crate) authority: String,
    /// This node, `fg1…`.
    pub(crate) identifier: String,
    /// The node's name in its credential.
    pub(crate) name: String,
    /// End of the credential, seconds since 1970; it is renewed before.
    pub(crate) not_after: u64,
}

/// Why a node has not become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct EnrolFailure {
    /// What went wrong.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// A ticket's text: as secret as a password until it is used. Wiped when dropped, does not print.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub(crate) struct TicketText(String);

impl TicketText {
    /// Takes the text.
    pub(crate) const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TicketText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketText(..)")
    }
}
