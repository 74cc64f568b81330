//! The authority's store and key: who is a member, who is revoked, what was issued.

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_proto::{
    entropy::Entropy,
    identity::Identifier,
    node::{AuthorityAnswer, AuthorityRequest, AuthorityRequestKind},
    relay::NamePattern,
    time::WallTime,
    trust::{
        Credential, EnrolRequest, Presentation, Rights, SignedTime, StatementKey, StatementKind, StatusList,
        Ticket, TicketKey, TrustError,
    },
};

use crate::{member::Member, model::Model, scenario::TrustPlan};

/// What survives the authority, and the key it has in one life.
#[derive(Debug)]
pub(crate) struct Authority {
    /// The name and the rights of each member.
    members: BTreeMap<Identifier, MemberPlan>,
    tickets: BTreeMap<[u8; 16], (TicketKey, MemberPlan)>,
    revoked: BTreeSet<Identifier>,
    serial: u64,
    list_number: u64,
    key: Option<StatementKey>,
    plan: TrustPlan,
}

/// What a credential says.
#[derive(Clone, Debug)]
pub(crate) struct MemberPlan {
    pub(crate) name: String,
    pub(crate) hold: Vec<NamePattern>,
    pub(crate) reach: Vec<NamePattern>,
}

impl Authority {
    pub(crate) fn new(plan: &TrustPlan) -> Self {
        Self {
            members: BTreeMap::new(),
            tickets: BTreeMap::new(),
            revoked: BTreeSet::new(),
            serial: 0,
            list_number: 0,
            key: None,
            plan: plan.clone(),
        }
    }

    /// Draws and attests another statement key, as at each start.
    pub(crate) fn start(&mut self, member: &mut Member, entropy: &mut dyn Entropy, unix_secs: u64) {
        self.key = Some(member.statement_key(entropy, unix_secs));
    }

    pub(crate) fn admit(&mut self, subject: Identifier, plan: MemberPlan) {
        self.members.insert(subject, plan);
    }

    /// Draws a ticket with which its bearer becomes a member.
    pub(crate) fn ticket(
        &mut self,
        authority: Identifier,
        entropy: &mut dyn Entropy,
        plan: MemberPlan,
        not_after: u64,
    ) -> Ticket {
        let ticket = Ticket::generate(entropy, authority, not_after, Vec::new())
            .expect("a ticket without ways is short");
        self.tickets.insert(*ticket.id(), (ticket.key(), plan));
        ticket
    }

    pub(crate) fn revoke(&mut self, subject: Identifier) {
        self.revoked.insert(subject);
    }

    pub(crate) fn restore(&mut self, subject: &Identifier) {
        self.revoked.remove(subject);
    }

    /// Issues a credential; `None` for who is no member, or revoked, or if the key does not reach so far.
    pub(crate) fn issue(
        &mut self,
        member: &Member,
        subject: Identifier,
        wall: WallTime,
        model: &mut Model,
    ) -> Option<Vec<u8>> {
        let plan = self
            .members
            .get(&subject)
            .filter(|_| !self.revoked.contains(&subject))?;
        self.serial += 1;
        let issued_at = wall.unix_secs();
        let credential = Credential {
            subject,
            serial: self.serial,
            rights: Rights::default(),
            name: plan.name.clone(),
            attributes: BTreeMap::new(),
            hold: plan.hold.clone(),
            reach: plan.reach.clone(),
            issued_at,
            not_after: issued_at + self.plan.credential.as_secs(),
        };
        let signed = credential.sign(self.key.as_ref()?).ok()?;
        model.trust.issued(subject, credential.not_after);
        present(member, StatementKind::Credential, &signed).ok()
    }

    /// Makes the next list of the revoked.
    pub(crate) fn list(&mut self, member: &Member, wall: WallTime, model: &mut Model) -> Option<Vec<u8>> {
        self.list_number += 1;
        let issued_at = wall.unix_secs();
        let not_after = issued_at + self.plan.list.as_secs();
        let list = StatusList::new(
            self.list_number,
            issued_at,
            not_after,
            self.revoked.iter().copied(),
        );
        let signed = list.ok()?.sign(self.key.as_ref()?).ok()?;
        model
            .trust
            .published(self.list_number, not_after, self.revoked.clone());
        present(member, StatementKind::StatusList, &signed).ok()
    }

    /// Answers a request.
    pub(crate) fn answer(
        &mut self,
        member: &Member,
        wall: WallTime,
        request: &AuthorityRequest,
        model: &mut Model,
    ) -> AuthorityAnswer {
        let issued = match &request.kind {
            AuthorityRequestKind::Enrol(bytes) => self
                .enrolled(bytes)
                .and_then(|subject| self.issue(member, subject, wall, model)),
            AuthorityRequestKind::Renew => self.issue(member, request.peer, wall, model),
            AuthorityRequestKind::Manage(_) => None,
            AuthorityRequestKind::Time(nonce) => {
                let time = SignedTime {
                    nonce: *nonce,
                    unix_millis: wall.unix_millis,
                };
                let signed = self.key.as_ref().and_then(|key| time.sign(key).ok());
                let told = signed.and_then(|signed| present(member, StatementKind::Time, &signed).ok());
                return told.map_or(AuthorityAnswer::Denied, AuthorityAnswer::Time);
            }
        };
        issued.map_or(AuthorityAnswer::Denied, AuthorityAnswer::Issued)
    }

    /// Makes a member of who asks with a ticket, and returns who that is.
    fn enrolled(&mut self, bytes: &[u8]) -> Option<Identifier> {
        let request = EnrolRequest::decode(bytes).ok()?;
        let (key, plan) = self.tickets.get(&request.ticket)?;
        let subject = request.verify(key).ok()?.identifier();
        let plan = plan.clone();
        self.admit(subject, plan);
        Some(subject)
    }
}

fn present(member: &Member, kind: StatementKind, signed: &[u8]) -> Result<Vec<u8>, TrustError> {
    Presentation::encode(kind, member.history(), signed)
}
