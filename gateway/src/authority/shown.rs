//! Records in the words of the wire.

use data_encoding::HEXLOWER;
use fieldgate_proto::identity::Identifier;

use super::{
    log::TicketId,
    record::{Grant, Member, Revoked, Source, TicketRecord},
    wire::{GrantOrder, MemberShown, RevokedShown, TicketShown},
};

/// Writes the identifier of a ticket.
pub(super) fn ticket_id(id: &TicketId) -> String {
    HEXLOWER.encode(id)
}

/// Reads the identifier of a ticket; capital letters are the same.
pub(super) fn read_ticket_id(text: &str) -> Option<TicketId> {
    let bytes = HEXLOWER
        .decode(text.trim().to_ascii_lowercase().as_bytes())
        .ok()?;
    bytes.try_into().ok()
}

/// Shows what is granted.
pub(super) fn grant(grant: &Grant) -> GrantOrder {
    GrantOrder {
        attributes: grant.attributes.clone(),
        hold: grant.hold.iter().map(ToString::to_string).collect(),
        reach: grant.reach.iter().map(ToString::to_string).collect(),
        enroller: grant.rights.enroller,
        administrator: grant.rights.administrator,
    }
}

/// Shows a ticket as it is at `now`, seconds since 1970.
pub(super) fn ticket(id: &TicketId, ticket: &TicketRecord, now: u64) -> TicketShown {
    TicketShown {
        id: ticket_id(id),
        state: ticket.state(now).to_owned(),
        name: Some(ticket.grant.name.clone()).filter(|name| !name.is_empty()),
        uses: ticket.uses,
        used: ticket.used,
        issued_at: ticket.issued_at,
        not_after: ticket.not_after,
        issuer: ticket.issuer.to_string(),
        grant: grant(&ticket.grant),
    }
}

/// Shows a member.
pub(super) fn member(identifier: &Identifier, member: &Member) -> MemberShown {
    MemberShown {
        identifier: identifier.to_string(),
        name: member.grant.name.clone(),
        since: member.since,
        source: match member.source {
            Source::File => "file".to_owned(),
            Source::Added => "added".to_owned(),
            Source::Ticket(id) => format!("ticket {}", ticket_id(&id)),
        },
        serial: member.serial,
        not_after: member.not_after,
        grant: grant(&member.grant),
        revoked: None,
    }
}

/// Shows who was revoked.
pub(super) fn revoked(identifier: &Identifier, revoked: &Revoked, listed: bool) -> MemberShown {
    let was = revoked.member.as_ref();
    let mut shown = was.map_or_else(
        || MemberShown {
            identifier: identifier.to_string(),
            name: String::new(),
            since: 0,
            source: "never a member".to_owned(),
            serial: 0,
            not_after: 0,
            grant: GrantOrder::default(),
            revoked: None,
        },
        |was| member(identifier, was),
    );
    shown.revoked = Some(RevokedShown {
        at: revoked.at,
        reason: revoked.reason.clone(),
        listed,
    });
    shown
}

impl TicketRecord {
    /// Returns the word for what the ticket is good for at `now`, seconds since 1970.
    pub(super) const fn state(&self, now: u64) -> &'static str {
        if self.revoked {
            "revoked"
        } else if self.used >= self.uses {
            "spent"
        } else if now > self.not_after {
            "expired"
        } else {
            "open"
        }
    }
}
