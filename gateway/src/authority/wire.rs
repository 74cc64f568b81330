//! What operators ask an authority and what it answers: JSON, over the control socket of its node or in frames
//! `Manage` and `Managed` of a channel (PROTOCOL.md §11).
//!
//! Every text is at most [`MESSAGE_BYTES_MAX`] bytes long. Lists come in pages: an answer names where the next page
//! begins, and the same question with that word in `after` brings it. Bytes are Base64.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::enrol::TicketText;

/// Longest request or answer, in bytes of JSON (PROTOCOL.md §5.1: a frame has a length of 16 bits).
pub(crate) const MESSAGE_BYTES_MAX: usize = 60 << 10;
/// Longest reason of a revocation, in bytes.
pub(crate) const REASON_BYTES_MAX: usize = 200;

/// A request to the authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum ManageRequest {
    /// What are you doing?
    Status {},
    /// Make a ticket.
    TicketIssue(TicketOrder),
    /// Show tickets, by identifier.
    TicketList {
        /// The last ticket of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Let nobody use a ticket any more.
    TicketRevoke {
        /// The ticket's identifier: 32 hexadecimal digits.
        id: String,
    },
    /// Show members by name, or the revoked by identifier.
    MemberList {
        /// Which of the two.
        #[serde(default)]
        revoked: bool,
        /// The last name (of the revoked: identifier) of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Show one member.
    MemberShow {
        /// Identifier or name.
        member: String,
    },
    /// Make a member of an identity that is known already; it needs no ticket.
    MemberAdd(MemberOrder),
    /// End a membership for good.
    MemberRevoke {
        /// Identifier or name; an identity that is no member is kept from becoming one.
        member: String,
        /// Why, for the log and the list of the revoked; at most [`REASON_BYTES_MAX`] bytes.
        reason: String,
    },
    /// Show decisions.
    Log {
        /// The first to show; what is gone already is left out.
        from: u64,
    },
    /// Sign the head of the log.
    LogHead {},
    /// Decide about an enrolment request that came as a file.
    Answer {
        /// The signed request of PROTOCOL.md §10.4, Base64.
        enrolment: String,
    },
}

impl ManageRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, WireProblem> {
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(WireProblem::TooLong { len: text.len() });
        }
        serde_json::from_slice(text).map_err(|error| WireProblem::Json(error.to_string()))
    }

    /// Writes the request.
    ///
    /// # Errors
    /// [`WireProblem::TooLong`] if it holds more than fits.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, WireProblem> {
        to_json(self)
    }
}

/// What a ticket is to grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TicketOrder {
    /// Name of the member; without one the node that enrols says how it wants to be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// How many identities may enrol with it; 1 if it has a name.
    pub(crate) uses: u32,
    /// How long it is good for, in seconds.
    pub(crate) expires_secs: u64,
    /// What is granted.
    #[serde(default)]
    pub(crate) grant: GrantOrder,
}

/// An identity that becomes a member without a ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberOrder {
    /// The identity.
    pub(crate) identifier: String,
    /// Name of the member.
    pub(crate) name: String,
    /// What is granted.
    #[serde(default)]
    pub(crate) grant: GrantOrder,
}

/// What a credential is to say besides the name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantOrder {
    /// Attributes, for policies.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) attributes: BTreeMap<String, String>,
    /// Names at relays it may hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) hold: Vec<String>,
    /// Names at relays it may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reach: Vec<String>,
    /// May issue plain tickets.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) enroller: bool,
    /// May do everything at the authority.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) administrator: bool,
}

/// The answer to a [`ManageRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum ManageAnswer {
    /// To [`ManageRequest::Status`].
    Status(Box<super::AuthorityStatus>),
    /// To [`ManageRequest::TicketIssue`].
    Ticket(IssuedTicket),
    /// To [`ManageRequest::TicketList`].
    Tickets {
        /// One page.
        tickets: Vec<TicketShown>,
        /// `after` of the next page, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
    /// To [`ManageRequest::MemberList`].
    Members {
        /// One page.
        members: Vec<MemberShown>,
        /// `after` of the next page, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
    /// To [`ManageRequest::MemberShow`] and [`ManageRequest::MemberAdd`].
    Member(MemberShown),
    /// To [`ManageRequest::TicketRevoke`] and [`ManageRequest::MemberRevoke`].
    Revoked {
        /// Identifier of the ticket or the member.
        id: String,
        /// Number of the status list that says so, for a member.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<u64>,
        /// What the operator should know besides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// To [`ManageRequest::Log`].
    Log(LogPage),
    /// To [`ManageRequest::LogHead`].
    LogHead {
        /// The authority's history and the signed statement of kind 4 behind it, Base64.
        statement: String,
    },
    /// To [`ManageRequest::Answer`].
    Response {
        /// The response of PROTOCOL.md §10.4, Base64.
        response: String,
        /// Who became a member, or is one.
        member: MemberShown,
    },
    /// The request was not carried out.
    Error(ManageError),
}

impl ManageAnswer {
    /// Writes the answer; what does not fit becomes an error that says so.
    #[must_use]
    pub(crate) fn to_json(&self) -> Vec<u8> {
        to_json(self).unwrap_or_else(|problem| {
            let error = Self::Error(ManageError {
                code: "too-long".to_owned(),
                message: problem.to_string(),
                hint: Some("ask for less at a time".to_owned()),
            });
            to_json(&error).unwrap_or_default()
        })
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, WireProblem> {
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(WireProblem::TooLong { len: text.len() });
        }
        serde_json::from_slice(text).map_err(|error| WireProblem::Json(error.to_string()))
    }
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManageError {
    /// A word for programs; those of [`Refusal::code`](super::Refusal::code).
    pub(crate) code: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// A new ticket. The only message that holds a ticket's secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IssuedTicket {
    /// The ticket's identifier: 32 hexadecimal digits.
    pub(crate) id: String,
    /// The ticket, `fgticket1…`.
    pub(crate) ticket: TicketText,
    /// When it ends, seconds since 1970.
    pub(crate) not_after: u64,
    /// What the operator should know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

/// A ticket in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TicketShown {
    /// 32 hexadecimal digits.
    pub(crate) id: String,
    /// `open`, `spent`, `expired` or `revoked`.
    pub(crate) state: String,
    /// Name it binds, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// How many may enrol.
    pub(crate) uses: u32,
    /// How many have.
    pub(crate) used: u32,
    /// Seconds since 1970.
    pub(crate) issued_at: u64,
    /// Seconds since 1970.
    pub(crate) not_after: u64,
    /// Who issued it.
    pub(crate) issuer: String,
    /// What it grants.
    #[serde(default)]
    pub(crate) grant: GrantOrder,
}

/// A member, or who was one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberShown {
    /// `fg1…`.
    pub(crate) identifier: String,
    /// Its name; empty for an identity that was revoked before it was a member.
    pub(crate) name: String,
    /// Seconds since 1970.
    pub(crate) since: u64,
    /// How it became one: `ticket` and its identifier, `added` or `file`.
    pub(crate) source: String,
    /// Serial of its newest credential; 0 if it has had none.
    pub(crate) serial: u64,
    /// End of its newest credential, seconds since 1970; 0 if it has had none.
    pub(crate) not_after: u64,
    /// What it is granted.
    #[serde(default)]
    pub(crate) grant: GrantOrder,
    /// Since when it is revoked, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<RevokedShown>,
}

/// When and why a member was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RevokedShown {
    /// Seconds since 1970.
    pub(crate) at: u64,
    /// What the operator said.
    pub(crate) reason: String,
    /// Whether the status list still names it: as long as a credential may count.
    pub(crate) listed: bool,
}

/// A page of the log, in the bytes that the chain is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogPage {
    /// Sequence of the oldest entry that is kept.
    pub(crate) first: u64,
    /// Sequence of the newest entry; 0 if there is none.
    pub(crate) head: u64,
    /// Hash of the newest entry, hexadecimal.
    pub(crate) head_hash: String,
    /// The entries, one after the other, Base64.
    pub(crate) entries: Vec<String>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<u64>,
}

/// Why a message between operator and authority cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireProblem {
    /// It has more bytes than fit.
    #[error("the message has {len} bytes, more than {MESSAGE_BYTES_MAX}")]
    TooLong {
        /// How many it has.
        len: usize,
    },
    /// It is not one of the known messages.
    #[error("the message is not understood: {0}")]
    Json(String),
}

impl WireProblem {
    /// Returns what an operator can do about it.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "use fewer and shorter attributes and patterns",
            Self::Json(_) => "use the same version of fieldgate here and at the authority",
        }
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, WireProblem> {
    let text = serde_json::to_vec(value).map_err(|error| WireProblem::Json(error.to_string()))?;
    if text.len() > MESSAGE_BYTES_MAX {
        return Err(WireProblem::TooLong { len: text.len() });
    }
    Ok(text)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to `skip_serializing_if`"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_one_form() {
        let order = TicketOrder {
            name: Some("press-3".to_owned()),
            uses: 1,
            expires_secs: 3600,
            grant: GrantOrder {
                attributes: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
                hold: vec!["press-*".to_owned()],
                ..GrantOrder::default()
            },
        };
        let cases = [
            (ManageRequest::Status {}, r#"{"request":"status"}"#),
            (
                ManageRequest::TicketIssue(order),
                r#"{"request":"ticket-issue","name":"press-3","uses":1,"expires_secs":3600,"grant":{"attributes":{"site":"north"},"hold":["press-*"]}}"#,
            ),
            (ManageRequest::Log { from: 7 }, r#"{"request":"log","from":7}"#),
        ];
        for (request, text) in cases {
            let written = request.to_json().expect("the request fits");
            assert_eq!(String::from_utf8_lossy(&written), text);
            assert_eq!(ManageRequest::from_json(&written), Ok(request));
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "",
            "[]",
            r#"{"request":"dance"}"#,
            r#"{"request":"status","more":1}"#,
            r#"{"request":"log"}"#,
            r#"{"request":"log","from":-1}"#,
            r#"{"request":"ticket-issue","uses":1,"expires_secs":60,"hold":["x"]}"#,
            r#"{"request":"ticket-issue","uses":1,"expires_secs":60,"grant":{"root":true}}"#,
            r#"{"request":"member-add","identifier":"fg1","name":"x","uses":1}"#,
        ] {
            let read = ManageRequest::from_json(text.as_bytes());
            assert!(matches!(read, Err(WireProblem::Json(_))), "{text}: {read:?}");
        }
    }

    #[test]
    fn messages_are_bounded() {
        let long = ManageRequest::Answer {
            enrolment: "A".repeat(MESSAGE_BYTES_MAX),
        };
        let problem = long.to_json().expect_err("the request is too long");
        assert!(matches!(problem, WireProblem::TooLong { .. }));
        assert!(!problem.hint().is_empty());
        let spaces = vec![b' '; MESSAGE_BYTES_MAX + 1];
        assert!(matches!(
            ManageRequest::from_json(&spaces),
            Err(WireProblem::TooLong { .. })
        ));
        assert!(matches!(
            ManageAnswer::from_json(&spaces),
            Err(WireProblem::TooLong { .. })
        ));
        let long = ManageAnswer::LogHead {
            statement: "A".repeat(MESSAGE_BYTES_MAX),
        };
        let written = ManageAnswer::from_json(&long.to_json());
        assert!(
            matches!(&written, Ok(ManageAnswer::Error(error)) if error.code == "too-long"),
            "{written:?}"
        );
    }

    #[test]
    fn a_ticket_in_an_answer_is_not_printed() {
        let answer = ManageAnswer::Ticket(IssuedTicket {
            id: "00".to_owned(),
            ticket: TicketText::new("fgticket1secret".to_owned()),
            not_after: 0,
            notes: Vec::new(),
        });
        assert!(!format!("{answer:?}").contains("secret"));
        let written = answer.to_json();
        assert_eq!(ManageAnswer::from_json(&written), Ok(answer));
    }
}
