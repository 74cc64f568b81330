//! What operators decide: tickets, members, revocations.

use fieldgate_proto::{
    entropy::Entropy,
    identity::Identifier,
    trust::{Rights, Ticket},
};

use super::{Case, Context, NONE, Stop, check_name_free, check_room};
use crate::{
    authority::{
        Origin, Refusal, Wish,
        log::{Actor, TicketId},
        order,
        record::{Grant, Member, Revoked, Source, StoredKey, TicketRecord},
        shown,
        store::Batch,
        wire::{IssuedTicket, MemberOrder, TicketOrder},
    },
    control::enrol::TicketText,
};

/// What somebody may do at the authority, and what it may give away.
pub(in crate::authority) struct Standing {
    /// Who.
    pub(in crate::authority) actor: Actor,
    /// Its rights.
    pub(in crate::authority) rights: Rights,
    /// What it has itself.
    own: Grant,
}

impl Standing {
    /// Returns whether it may do nothing here.
    pub(in crate::authority) fn is_stranger(&self) -> bool {
        self.rights == NONE
    }

    /// Returns whether it may see and end this ticket.
    pub(in crate::authority) fn minds(&self, ticket: &TicketRecord) -> bool {
        self.rights.administrator || self.rights.enroller && ticket.issuer == self.actor
    }

    fn require_administrator(&self, wish: &Wish) -> Result<(), Refusal> {
        if self.rights.administrator {
            Ok(())
        } else {
            Err(Refusal::NotAllowed {
                what: wish.what(),
                right: "administrator",
            })
        }
    }

    fn require_enroller(&self, wish: &Wish) -> Result<(), Refusal> {
        if self.rights.enroller || self.rights.administrator {
            Ok(())
        } else {
            Err(Refusal::NotAllowed {
                what: wish.what(),
                right: "enroller",
            })
        }
    }
}

/// Finds out what `from` may do. The store has the last word about members: a right that was taken back ends at once, not
/// with the credential that still says it.
pub(in crate::authority) fn standing(batch: &Batch<'_>, from: &Origin) -> Result<Standing, Stop> {
    let actor = from.actor();
    let (rights, own) = match from {
        Origin::Local { .. } => (
            Rights {
                enroller: true,
                administrator: true,
            },
            Grant::default(),
        ),
        Origin::Channel { peer, .. } if batch.is_revoked(peer)? => (NONE, Grant::default()),
        Origin::Channel { peer, rights } => match batch.member(peer)? {
            Some(member) => {
                let both = Rights {
                    enroller: rights.enroller && member.grant.rights.enroller,
                    administrator: rights.administrator && member.grant.rights.administrator,
                };
                (both, member.grant)
            }
            // Named in the node's own file: it has these rights and nothing else to give away.
            None => (*rights, Grant::default()),
        },
    };
    Ok(Standing { actor, rights, own })
}

/// Checks that somebody may look at tickets, members and log.
pub(in crate::authority) fn require_reader(
    context: &Context<'_>,
    from: &Origin,
    standing: &Standing,
    only_own: bool,
) -> Result<(), Stop> {
    let wish = Wish::Read;
    if only_own {
        standing.require_enroller(&wish)?;
    } else {
        standing.require_administrator(&wish)?;
    }
    context.ask_policy(from, &wish)?;
    Ok(())
}

/// Makes a ticket. An enroller's tickets grant no rights at the authority and nothing it does not have itself.
pub(in crate::authority) fn issue_ticket(
    batch: &mut Batch<'_>,
    context: &Context<'_>,
    from: &Origin,
    order: &TicketOrder,
    entropy: &mut dyn Entropy,
    case: &mut Case,
) -> Result<IssuedTicket, Stop> {
    let standing = standing(batch, from)?;
    let wish = Wish::IssueTicket {
        grants: Rights {
            enroller: order.grant.enroller,
            administrator: order.grant.administrator,
        },
    };
    standing.require_enroller(&wish)?;
    let grant = order::ticket(order)?;
    if !standing.rights.administrator
        && let Some(what) = order::exceeds(&standing.own, &grant)
    {
        return Err(Refusal::Exceeds { what }.into());
    }
    context.ask_policy(from, &wish)?;
    let count = batch.ticket_count()?;
    if count >= context.settings.limits.tickets_max {
        return Err(Refusal::Full {
            what: "tickets",
            count,
        }
        .into());
    }
    let now = context.now();
    let not_after = now.saturating_add(order.expires_secs);
    let ticket = Ticket::generate(
        entropy,
        context.history.identifier(),
        not_after,
        context.settings.ways.clone(),
    )
    .map_err(|error| Refusal::Order {
        field: "public",
        problem: format!("or `register` under [authority] does not fit a ticket: {error}"),
    })?;
    let id = *ticket.id();
    case.ticket = Some(id);
    let notes = notes(batch, context, &grant)?;
    let record = TicketRecord {
        key: StoredKey(*ticket.key().as_bytes()),
        revoked: false,
        issued_at: now,
        not_after,
        uses: order.uses,
        used: 0,
        issuer: standing.actor,
        grant,
    };
    batch.put_ticket(&id, &record)?;
    Ok(IssuedTicket {
        id: shown::ticket_id(&id),
        ticket: TicketText::new((*ticket.to_text()).clone()),
        not_after,
        notes,
    })
}

/// Says what may surprise the issuer of a ticket later.
fn notes(batch: &Batch<'_>, context: &Context<'_>, grant: &Grant) -> Result<Vec<String>, Stop> {
    let mut notes = Vec::new();
    if let Some(holder) = batch.holder(&grant.name)? {
        notes.push(format!(
            "{holder} is named {} already: revoke it before another node enrols with this ticket",
            grant.name
        ));
    }
    if context.settings.ways.is_empty() {
        notes.push(
            "the ticket names no way to the authority: enrol with a file (`fieldgate enroll --request`), or set `public` or `register` under [authority]"
                .to_owned(),
        );
    }
    Ok(notes)
}

/// Ends a ticket; returns whether it had ended already.
pub(in crate::authority) fn revoke_ticket(
    batch: &mut Batch<'_>,
    context: &Context<'_>,
    from: &Origin,
    id: &str,
    case: &mut Case,
) -> Result<(TicketId, bool), Stop> {
    let standing = standing(batch, from)?;
    let wish = Wish::RevokeTicket;
    standing.require_enroller(&wish)?;
    let id = shown::read_ticket_id(id).ok_or_else(|| Refusal::Order {
        field: "ticket",
        problem: "is not an identifier of 32 hexadecimal digits".to_owned(),
    })?;
    case.ticket = Some(id);
    let mut ticket = batch.ticket(&id)?.ok_or(Refusal::UnknownTicket)?;
    if !standing.minds(&ticket) {
        standing.require_administrator(&wish)?;
    }
    context.ask_policy(from, &wish)?;
    if ticket.revoked {
        return Ok((id, true));
    }
    ticket.revoked = true;
    batch.put_ticket(&id, &ticket)?;
    Ok((id, false))
}

/// What came of adding a member.
pub(in crate::authority) struct Added {
    /// Who.
    pub(in crate::authority) identifier: Identifier,
    /// What it is granted.
    pub(in crate::authority) member: Member,
}

/// Makes a member of an identity that is known already.
pub(in crate::authority) fn add_member(
    batch: &mut Batch<'_>,
    context: &Context<'_>,
    from: &Origin,
    order: &MemberOrder,
    case: &mut Case,
) -> Result<Added, Stop> {
    let standing = standing(batch, from)?;
    let wish = Wish::AddMember {
        grants: Rights {
            enroller: order.grant.enroller,
            administrator: order.grant.administrator,
        },
    };
    standing.require_administrator(&wish)?;
    let identifier = read_identifier(&order.identifier)?;
    case.subject = Some(identifier);
    order::check_name(&order.name)?;
    let grant = order::grant(&order.name, &order.grant)?;
    context.ask_policy(from, &wish)?;
    if batch.is_revoked(&identifier)? {
        return Err(Refusal::RevokedIdentity.into());
    }
    if let Some(member) = batch.member(&identifier)? {
        return Err(Refusal::AlreadyAMember {
            name: member.grant.name,
        }
        .into());
    }
    check_name_free(batch, &identifier, &order.name)?;
    check_room(batch, context)?;
    let member = Member {
        grant,
        source: Source::Added,
        since: context.now(),
        serial: 0,
        not_after: 0,
    };
    batch.put_member(&identifier, &member)?;
    Ok(Added { identifier, member })
}

/// What came of revoking somebody.
pub(in crate::authority) struct RevokedMember {
    /// Who.
    pub(in crate::authority) identifier: Identifier,
    /// Its name, if it was a member.
    pub(in crate::authority) name: Option<String>,
    /// It was revoked before.
    pub(in crate::authority) repeated: bool,
}

/// Ends a membership for good, or keeps an identity from ever becoming a member.
pub(in crate::authority) fn revoke_member(
    batch: &mut Batch<'_>,
    context: &Context<'_>,
    from: &Origin,
    member: &str,
    reason: &str,
    case: &mut Case,
) -> Result<RevokedMember, Stop> {
    let standing = standing(batch, from)?;
    let wish = Wish::RevokeMember;
    standing.require_administrator(&wish)?;
    order::check_reason(reason)?;
    let identifier = find_member(batch, member)?;
    case.subject = Some(identifier);
    context.ask_policy(from, &wish)?;
    if identifier == context.history.identifier() {
        return Err(Refusal::Order {
            field: "member",
            problem: "is the authority itself".to_owned(),
        }
        .into());
    }
    if let Some(revoked) = batch.revoked(&identifier)? {
        return Ok(RevokedMember {
            identifier,
            name: revoked.member.map(|member| member.grant.name),
            repeated: true,
        });
    }
    if batch.member(&identifier)?.is_none() {
        check_room(batch, context)?;
    }
    let was = batch.remove_member(&identifier)?;
    let now = context.now();
    let revoked = Revoked {
        at: now,
        not_after: was.as_ref().map_or(now, |was| was.not_after.max(now)),
        reason: reason.to_owned(),
        member: was,
    };
    batch.put_revoked(&identifier, &revoked)?;
    Ok(RevokedMember {
        identifier,
        name: revoked.member.map(|member| member.grant.name),
        repeated: false,
    })
}

/// Finds who is meant by an identifier or the name of a member.
pub(in crate::authority) fn find_member(batch: &Batch<'_>, wanted: &str) -> Result<Identifier, Stop> {
    // No name begins as identifiers do.
    if wanted.starts_with(order::IDENTIFIER_START) {
        return Ok(read_identifier(wanted)?);
    }
    if let Some(holder) = batch.holder(wanted)? {
        return Ok(holder);
    }
    Err(Refusal::NoSuchMember {
        wanted: wanted.chars().take(64).collect(),
    }
    .into())
}

fn read_identifier(text: &str) -> Result<Identifier, Refusal> {
    text.parse().map_err(|error| Refusal::Order {
        field: "identifier",
        problem: format!("is wrong: {error}"),
    })
}
