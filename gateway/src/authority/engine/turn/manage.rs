//! Requests of operators.

use data_encoding::BASE64;
use fieldgate_proto::trust::{EnrolResponse, LogHead, Presentation, StatementKind};
use serde::Serialize;

use super::Turn;
use crate::authority::{
    Origin, Refusal, StoreError,
    decide::{self, Case, Standing, Stop},
    log::Action,
    shown,
    wire::{IssuedTicket, LogPage, ManageAnswer, ManageError, ManageRequest},
};

/// Bytes of JSON that the items of one page may take: the answer around them stays within the longest message.
const PAGE_BYTES_MAX: usize = 48 << 10;
/// Longest response to an enrolment request for somebody at the other end of a channel; in Base64 it still fits a message.
const RESPONSE_BYTES_MAX: usize = 36 << 10;
/// How long a signed log head is called current, in seconds. What it proves does not end with it.
const HEAD_VALID_SECS: u64 = 86_400;

/// Returns the answer when the store does not serve; `halted` is why it may later.
pub(in crate::authority::engine) fn store_failed(halted: Option<&str>) -> ManageAnswer {
    if let Some(reason) = halted {
        return ManageAnswer::Error(ManageError {
            code: "store".to_owned(),
            // An entry whose acknowledgement was lost may stand in the log.
            message: format!("nothing was decided, as far as is known: {reason}"),
            hint: Some(
                "try again later, or at another process of this authority; if it is not to happen twice, look first whether it has"
                    .to_owned(),
            ),
        });
    }
    ManageAnswer::Error(ManageError {
        code: "store".to_owned(),
        message: "the authority's store has failed; nothing was decided".to_owned(),
        hint: Some("see the node's log, check the disk, and restart the node".to_owned()),
    })
}

impl Turn<'_, '_> {
    /// Decides about an operator's request.
    pub(super) fn manage(
        &mut self,
        from: &Origin,
        request: &ManageRequest,
    ) -> Result<ManageAnswer, StoreError> {
        let (kind, answer) = match self.try_manage(from, request) {
            (kind, Ok(answer)) => (kind, Ok(answer)),
            (kind, Err(Stop::Refused(refusal))) => (kind, Err(refusal)),
            (_, Err(Stop::Store(error))) => return Err(error),
        };
        self.count(kind, &answer);
        match answer {
            Ok(answer) => Ok(answer),
            Err(refusal) => self.refused(from, &refusal),
        }
    }

    fn try_manage(
        &mut self,
        from: &Origin,
        request: &ManageRequest,
    ) -> (&'static str, Result<ManageAnswer, Stop>) {
        match request {
            ManageRequest::Status {} => ("status", self.status(from)),
            ManageRequest::TicketIssue(order) => {
                let mut case = Case::default();
                let issued =
                    decide::issue_ticket(self.batch, &self.context, from, order, self.entropy, &mut case);
                let describe = |ticket: &IssuedTicket| {
                    let name = order.name.as_deref().unwrap_or("any name");
                    let reason = format!("{name}, {} uses, until {}", order.uses, ticket.not_after);
                    (false, reason)
                };
                let answer = self.decided(from, Action::IssueTicket, case, issued, describe);
                ("ticket-issue", answer.map(ManageAnswer::Ticket))
            }
            ManageRequest::TicketList { after } => ("ticket-list", self.tickets(from, after.as_deref())),
            ManageRequest::TicketRevoke { id } => ("ticket-revoke", self.revoke_ticket(from, id)),
            ManageRequest::MemberList { revoked, after } => {
                ("member-list", self.members(from, *revoked, after.as_deref()))
            }
            ManageRequest::MemberShow { member } => ("member-show", self.member(from, member)),
            ManageRequest::MemberAdd(order) => {
                let mut case = Case::default();
                let added = decide::add_member(self.batch, &self.context, from, order, &mut case);
                let describe = |added: &decide::Added| (false, added.member.grant.name.clone());
                let answer = self.decided(from, Action::AddMember, case, added, describe);
                let shown = answer.map(|added| shown::member(&added.identifier, &added.member));
                ("member-add", shown.map(ManageAnswer::Member))
            }
            ManageRequest::MemberRevoke { member, reason } => {
                ("member-revoke", self.revoke_member(from, member, reason))
            }
            ManageRequest::Log { from: first } => ("log", self.log_page(from, *first)),
            ManageRequest::LogHead {} => ("log-head", self.log_head(from)),
            ManageRequest::Answer { enrolment } => ("answer", self.answer(from, enrolment)),
        }
    }

    /// Writes the log entry of an operator's decision.
    fn decided<T>(
        &mut self,
        from: &Origin,
        action: Action,
        case: Case,
        result: Result<T, Stop>,
        describe: impl FnOnce(&T) -> (bool, String),
    ) -> Result<T, Stop> {
        Ok(self.conclude(from, action, case, result, describe)??)
    }

    /// Checks that somebody may look; who may not is written down.
    fn reader(&mut self, from: &Origin, only_own: bool) -> Result<Standing, Stop> {
        let standing = decide::standing(self.batch, from)?;
        match decide::require_reader(&self.context, from, &standing, only_own) {
            Ok(()) => Ok(standing),
            stopped => {
                self.decided(from, Action::Read, Case::default(), stopped, |()| {
                    (false, String::new())
                })?;
                Ok(standing)
            }
        }
    }

    fn status(&mut self, from: &Origin) -> Result<ManageAnswer, Stop> {
        self.reader(from, true)?;
        let status = self.status.clone().unwrap_or_default();
        Ok(ManageAnswer::Status(Box::new(status)))
    }

    fn tickets(&mut self, from: &Origin, after: Option<&str>) -> Result<ManageAnswer, Stop> {
        let standing = self.reader(from, true)?;
        let after = match after {
            Some(text) => Some(shown::read_ticket_id(text).ok_or_else(|| bad_cursor(text))?),
            None => None,
        };
        let now = self.context.now();
        let mut room = Room::default();
        let mut tickets = Vec::new();
        let page = self.batch.tickets_after(after.as_ref(), |id, ticket| {
            let shown = shown::ticket(id, ticket, now);
            // Tickets of others are passed over, and cost a little room so that a page ends.
            if !standing.minds(ticket) {
                return room.take_bytes(16);
            }
            let fits = room.take(&shown);
            if fits {
                tickets.push(shown);
            }
            fits
        })?;
        let next = page.next.map(|id| shown::ticket_id(&id));
        Ok(ManageAnswer::Tickets { tickets, next })
    }

    fn revoke_ticket(&mut self, from: &Origin, id: &str) -> Result<ManageAnswer, Stop> {
        let mut case = Case::default();
        let revoked = decide::revoke_ticket(self.batch, &self.context, from, id, &mut case);
        let (id, repeated) = self.decided(from, Action::RevokeTicket, case, revoked, |(_, repeated)| {
            (*repeated, String::new())
        })?;
        Ok(ManageAnswer::Revoked {
            id: shown::ticket_id(&id),
            list: None,
            note: repeated.then(|| "the ticket was revoked already".to_owned()),
        })
    }

    fn members(&mut self, from: &Origin, revoked: bool, after: Option<&str>) -> Result<ManageAnswer, Stop> {
        self.reader(from, false)?;
        let mut room = Room::default();
        let mut members = Vec::new();
        if !revoked {
            let page = self.batch.members_after(after, |identifier, member| {
                let shown = shown::member(identifier, member);
                let fits = room.take(&shown);
                if fits {
                    members.push(shown);
                }
                fits
            })?;
            return Ok(ManageAnswer::Members {
                members,
                next: page.next,
            });
        }
        let after = match after {
            Some(text) => Some(text.parse().map_err(|_| bad_cursor(text))?),
            None => None,
        };
        let page = self.batch.revoked_after(after.as_ref(), |identifier, revoked| {
            // Whether it is listed is looked up below: one row more or less does not matter for the room.
            let shown = shown::revoked(identifier, revoked, false);
            let fits = room.take(&shown);
            if fits {
                members.push(shown);
            }
            fits
        })?;
        for (shown, (identifier, _)) in members.iter_mut().zip(&page.items) {
            let listed = self.batch.is_listed(identifier)?;
            if let Some(revoked) = &mut shown.revoked {
                revoked.listed = listed;
            }
        }
        Ok(ManageAnswer::Members {
            members,
            next: page.next.map(|identifier| identifier.to_string()),
        })
    }

    fn member(&mut self, from: &Origin, wanted: &str) -> Result<ManageAnswer, Stop> {
        self.reader(from, false)?;
        let identifier = decide::find_member(self.batch, wanted)?;
        if let Some(member) = self.batch.member(&identifier)? {
            return Ok(ManageAnswer::Member(shown::member(&identifier, &member)));
        }
        let revoked = self
            .batch
            .revoked(&identifier)?
            .ok_or_else(|| Refusal::NoSuchMember {
                wanted: wanted.to_owned(),
            })?;
        let listed = self.batch.is_listed(&identifier)?;
        Ok(ManageAnswer::Member(shown::revoked(
            &identifier,
            &revoked,
            listed,
        )))
    }

    fn revoke_member(&mut self, from: &Origin, member: &str, reason: &str) -> Result<ManageAnswer, Stop> {
        let mut case = Case::default();
        let revoked = decide::revoke_member(self.batch, &self.context, from, member, reason, &mut case);
        let describe = |revoked: &decide::RevokedMember| {
            let name = revoked.name.as_deref().unwrap_or("never a member");
            (revoked.repeated, format!("{name}: {reason}"))
        };
        let revoked = self.decided(from, Action::RevokeMember, case, revoked, describe)?;
        let id = revoked.identifier.to_string();
        if revoked.repeated {
            return Ok(ManageAnswer::Revoked {
                id,
                list: self.list.map(|list| list.number),
                note: Some("it was revoked already".to_owned()),
            });
        }
        self.changes.revoked.push(revoked.identifier);
        let number = self.require_list();
        let unsigned = self.context.key.is_none();
        Ok(ManageAnswer::Revoked {
            id,
            list: Some(number),
            note: unsigned.then(|| {
                "the status list cannot be signed now: it goes out when the identity key has signed; see `fieldgate status`"
                    .to_owned()
            }),
        })
    }

    fn log_page(&mut self, from: &Origin, first: u64) -> Result<ManageAnswer, Stop> {
        self.reader(from, false)?;
        let (head, hash) = self.batch.log_head();
        let mut room = Room::default();
        let mut page = LogPage {
            first: self.batch.log_first()?,
            head,
            head_hash: data_encoding::HEXLOWER.encode(&hash),
            entries: Vec::new(),
            next: None,
        };
        self.batch.log_from(first, |sequence, entry| {
            let entry = BASE64.encode(entry);
            let fits = room.take_bytes(entry.len() + 3);
            if fits {
                page.entries.push(entry);
            } else {
                page.next = Some(sequence);
            }
            fits
        })?;
        Ok(ManageAnswer::Log(page))
    }

    fn log_head(&mut self, from: &Origin) -> Result<ManageAnswer, Stop> {
        self.reader(from, false)?;
        let key = self.context.key.ok_or(Refusal::NotReady)?;
        let (entries, hash) = self.batch.log_head();
        let now = self.context.now();
        let head = LogHead {
            entries,
            hash,
            issued_at: now,
            not_after: now.saturating_add(HEAD_VALID_SECS),
        };
        let statement = head
            .sign(key)
            .and_then(|signed| Presentation::encode(StatementKind::LogHead, self.context.history, &signed))
            .map_err(|error| Refusal::Unsignable(error.to_string()))?;
        Ok(ManageAnswer::LogHead {
            statement: BASE64.encode(&statement),
        })
    }

    /// Decides about a request that came as a file. Who brings it must have a right of its own; the decision is the same as
    /// in a channel, but for that the operator hears why it is no.
    fn answer(&mut self, from: &Origin, enrolment: &str) -> Result<ManageAnswer, Stop> {
        self.reader(from, true)?;
        let bytes = BASE64
            .decode(enrolment.as_bytes())
            .map_err(|error| Refusal::Malformed(error.to_string()))?;
        let mut case = Case::default();
        let admission = self.enrol(from, &bytes, &mut case)??;
        let list = self.list.map(|list| list.statement.as_slice());
        let fits = |list: &&[u8]| {
            matches!(from, Origin::Local { .. })
                || admission.presentation.len() + list.len() < RESPONSE_BYTES_MAX
        };
        let response = EnrolResponse::encode(&admission.presentation, list.filter(fits))
            .map_err(|error| Refusal::Unsignable(error.to_string()))?;
        Ok(ManageAnswer::Response {
            response: BASE64.encode(&response),
            member: shown::member(&admission.identifier, &admission.member),
        })
    }

    /// Says no to an operator, with the reason, and to a stranger without.
    fn refused(&self, from: &Origin, refusal: &Refusal) -> Result<ManageAnswer, StoreError> {
        let stranger = match decide::standing(self.batch, from) {
            Ok(standing) => standing.is_stranger(),
            Err(Stop::Refused(_)) => true,
            Err(Stop::Store(error)) => return Err(error),
        };
        let error = if stranger {
            ManageError {
                code: "not-allowed".to_owned(),
                message: "not allowed".to_owned(),
                hint: None,
            }
        } else {
            ManageError {
                code: refusal.code().to_owned(),
                message: refusal.to_string(),
                hint: Some(refusal.hint().to_owned()),
            }
        };
        Ok(ManageAnswer::Error(error))
    }
}

/// The room that is left in a page. Whatever comes first fits: it is never larger than a page.
#[derive(Debug, Default)]
struct Room {
    used: usize,
}

impl Room {
    fn take(&mut self, item: &impl Serialize) -> bool {
        // What cannot be written takes all the room, and the page ends; the records are all writable.
        let bytes = serde_json::to_vec(item).map_or(PAGE_BYTES_MAX, |text| text.len() + 1);
        self.take_bytes(bytes)
    }

    const fn take_bytes(&mut self, bytes: usize) -> bool {
        let first = self.used == 0;
        self.used = self.used.saturating_add(bytes);
        first || self.used <= PAGE_BYTES_MAX
    }
}

fn bad_cursor(text: &str) -> Refusal {
    Refusal::Order {
        field: "after",
        problem: format!(
            "is {:?}, which no page ended with",
            text.chars().take(80).collect::<String>()
        ),
    }
}
