//! The rules: who gets what. Pure over the view of one transaction.
//!
//! Every function looks at everything first and writes only when nothing can be refused any more: a refusal leaves the
//! batch, which goes on with other requests, as it was. The caller writes the log.

mod manage;

use fieldgate_proto::{
    identity::{ChangeHistory, Identifier},
    time::WallTime,
    trust::{
        Credential, EnrolRequest, Presentation, Rights, StatementKey, StatementKind, TicketKey, TrustError,
    },
};

use super::{
    AuthoritySettings, Origin, Permit, Refusal, StoreError, Wish,
    log::TicketId,
    order,
    record::{Grant, Member, Source},
    store::Batch,
};

pub(super) use manage::{
    Added, RevokedMember, Standing, add_member, find_member, issue_ticket, require_reader, revoke_member,
    revoke_ticket, standing,
};

/// What the rules look at besides the store.
pub(super) struct Context<'a> {
    /// The time.
    pub(super) wall: WallTime,
    /// What the authority was told at start.
    pub(super) settings: &'a AuthoritySettings,
    /// The authority's own history.
    pub(super) history: &'a ChangeHistory,
    /// The statement key, if it is vouched for now.
    pub(super) key: Option<&'a StatementKey>,
    /// The node's policy.
    pub(super) permit: &'a dyn Permit,
}

impl Context<'_> {
    /// Returns the time in seconds since 1970.
    pub(super) const fn now(&self) -> u64 {
        self.wall.unix_secs()
    }

    fn ask_policy(&self, from: &Origin, wish: &Wish) -> Result<(), Refusal> {
        if self.permit.may(from, wish) {
            Ok(())
        } else {
            Err(Refusal::Policy { what: wish.what() })
        }
    }
}

/// Why a decision has not been taken as asked.
#[derive(Debug)]
pub(super) enum Stop {
    /// The rules say no.
    Refused(Refusal),
    /// The store does not serve; the whole batch is void.
    Store(StoreError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Who and what a request is about, as far as it was understood before it was refused. For the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Case {
    /// About whom.
    pub(super) subject: Option<Identifier>,
    /// With or about which ticket.
    pub(super) ticket: Option<TicketId>,
}

/// Somebody has a credential now.
pub(super) struct Admission {
    /// Who.
    pub(super) identifier: Identifier,
    /// What it is granted.
    pub(super) member: Member,
    /// The credential behind the authority's history.
    pub(super) presentation: Vec<u8>,
    /// It had one by the same ticket already.
    pub(super) repeated: bool,
}

/// Decides about an enrolment request (PROTOCOL.md §10.4).
///
/// The use of the ticket is spent for its subject: who asks again with the same ticket gets its credential again, also
/// after the ticket has expired, so that a lost answer costs no ticket. An operator who revokes the ticket ends that too.
pub(super) fn enrol(
    batch: &mut Batch<'_>,
    context: &Context<'_>,
    from: &Origin,
    bytes: &[u8],
    case: &mut Case,
) -> Result<Admission, Stop> {
    let request = EnrolRequest::decode(bytes).map_err(|error| Refusal::Malformed(error.to_string()))?;
    let id = request.ticket;
    case.ticket = Some(id);
    if request.authority != context.history.identifier() {
        return Err(Refusal::OtherAuthority {
            wanted: request.authority,
        }
        .into());
    }
    context.ask_policy(from, &Wish::Enrol)?;
    let mut ticket = batch.ticket(&id)?.ok_or(Refusal::UnknownTicket)?;
    let subject = match request.verify(&TicketKey::from_bytes(ticket.key.0)) {
        Ok(history) => history.identifier(),
        Err(TrustError::TicketKey) => return Err(Refusal::ForgedTicket.into()),
        Err(_) => return Err(Refusal::ForgedIdentity.into()),
    };
    case.subject = Some(subject);
    if ticket.revoked {
        return Err(Refusal::RevokedTicket.into());
    }
    if batch.is_revoked(&subject)? {
        return Err(Refusal::RevokedIdentity.into());
    }
    let before = batch.member(&subject)?;
    if batch.is_spent_for(&id, &subject)? {
        let member = before.ok_or(Refusal::NotAMember)?;
        let (member, presentation) = issue(batch, context, &subject, member)?;
        return Ok(Admission {
            identifier: subject,
            member,
            presentation,
            repeated: true,
        });
    }
    let now = context.now();
    if now > ticket.not_after {
        return Err(Refusal::ExpiredTicket {
            not_after: ticket.not_after,
        }
        .into());
    }
    if ticket.used >= ticket.uses {
        return Err(Refusal::SpentTicket {
            used: ticket.used,
            uses: ticket.uses,
        }
        .into());
    }
    if let Some(before) = before.as_ref().filter(|before| before.source == Source::File) {
        return Err(Refusal::AlreadyAMember {
            name: before.grant.name.clone(),
        }
        .into());
    }
    if before.is_none() {
        check_room(batch, context)?;
    }
    let name = choose_name(batch, &subject, before.as_ref(), &ticket.grant.name, request.name)?;
    let member = Member {
        grant: Grant {
            name,
            ..ticket.grant.clone()
        },
        source: Source::Ticket(id),
        since: before.as_ref().map_or(now, |before| before.since),
        serial: 0,
        not_after: before.map_or(0, |before| before.not_after),
    };
    let (member, presentation) = issue(batch, context, &subject, member)?;
    ticket.used += 1;
    batch.put_ticket(&id, &ticket)?;
    batch.spend(&id, &subject, now)?;
    Ok(Admission {
        identifier: subject,
        member,
        presentation,
        repeated: false,
    })
}

/// Decides about a new credential for a member whom a handshake has proven to be at the other end of a channel.
pub(super) fn renew(
    batch: &mut Batch<'_>,
    context: &Context<'_>,
    from: &Origin,
    case: &mut Case,
) -> Result<Admission, Stop> {
    let Origin::Channel { peer, .. } = from else {
        return Err(Refusal::NotAMember.into());
    };
    case.subject = Some(*peer);
    if batch.is_revoked(peer)? {
        return Err(Refusal::RevokedIdentity.into());
    }
    let member = batch.member(peer)?.ok_or(Refusal::NotAMember)?;
    context.ask_policy(from, &Wish::Renew)?;
    let (member, presentation) = issue(batch, context, peer, member)?;
    Ok(Admission {
        identifier: *peer,
        member,
        presentation,
        repeated: false,
    })
}

/// Signs a credential for a member and writes the member. Refuses before it writes.
fn issue(
    batch: &mut Batch<'_>,
    context: &Context<'_>,
    subject: &Identifier,
    mut member: Member,
) -> Result<(Member, Vec<u8>), Stop> {
    let key = context.key.ok_or(Refusal::NotReady)?;
    let unsignable = |error: TrustError| Refusal::Unsignable(error.to_string());
    let issued_at = context.now();
    let credential = Credential {
        subject: *subject,
        serial: batch.next_serial(),
        rights: member.grant.rights,
        name: member.grant.name.clone(),
        attributes: member.grant.attributes.clone(),
        hold: member.grant.hold.clone(),
        reach: member.grant.reach.clone(),
        issued_at,
        not_after: issued_at.saturating_add(context.settings.credential_valid.as_secs()),
    };
    let signed = credential.sign(key).map_err(unsignable)?;
    let presentation =
        Presentation::encode(StatementKind::Credential, context.history, &signed).map_err(unsignable)?;
    member.serial = credential.serial;
    member.not_after = member.not_after.max(credential.not_after);
    batch.put_member(subject, &member)?;
    Ok((member, presentation))
}

/// Checks that there is room for one more member.
fn check_room(batch: &Batch<'_>, context: &Context<'_>) -> Result<(), Stop> {
    let max = context.settings.limits.members_max;
    let members = batch.member_count()?;
    if members >= max {
        return Err(Refusal::Full {
            what: "members",
            count: members,
        }
        .into());
    }
    // Revoking a member always works, so what it adds to is bounded here.
    let revoked = batch.revoked_count()?;
    if revoked >= max.saturating_mul(REVOKED_PER_MEMBER_MAX) {
        return Err(Refusal::Full {
            what: "revoked identities",
            count: revoked,
        }
        .into());
    }
    Ok(())
}

/// Finds the name of a new member: that of the ticket, else the one it wants, else one made of its identifier. A name it
/// only wants never takes away or imitates another's: if it is taken, a part of the identifier is added.
fn choose_name(
    batch: &Batch<'_>,
    subject: &Identifier,
    before: Option<&Member>,
    bound: &str,
    wanted: &str,
) -> Result<String, Stop> {
    if !bound.is_empty() {
        check_name_free(batch, subject, bound)?;
        return Ok(bound.to_owned());
    }
    if let Some(before) = before {
        return Ok(before.grant.name.clone());
    }
    if !wanted.is_empty() {
        order::check_name(wanted)?;
        if check_name_free(batch, subject, wanted).is_ok() {
            return Ok(wanted.to_owned());
        }
    }
    let tag: String = subject.to_string().chars().skip(4).take(NAME_TAG_LEN).collect();
    let stem = if wanted.is_empty() { "node" } else { wanted };
    let stem: String = stem
        .chars()
        .take(fieldgate_proto::trust::NAME_LEN_MAX - NAME_TAG_LEN - 1)
        .collect();
    let name = format!("{stem}-{tag}");
    check_name_free(batch, subject, &name)?;
    Ok(name)
}

/// Checks that nobody else has a name.
fn check_name_free(batch: &Batch<'_>, subject: &Identifier, name: &str) -> Result<(), Stop> {
    match batch.holder(name)? {
        Some(holder) if holder != *subject => Err(Refusal::NameTaken {
            name: name.to_owned(),
            holder,
        }
        .into()),
        _ => Ok(()),
    }
}

/// How many identities may be revoked for each member there may be.
const REVOKED_PER_MEMBER_MAX: u64 = 4;
/// Characters of an identifier that make a name unique: 40 bits.
const NAME_TAG_LEN: usize = 8;
/// The rights of somebody who has none.
const NONE: Rights = Rights {
    enroller: false,
    administrator: false,
};
