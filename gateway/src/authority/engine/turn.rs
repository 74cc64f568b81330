//! One batch of requests within one transaction.

mod manage;

use std::sync::Arc;

use fieldgate_proto::{
    entropy::Entropy,
    identity::Identifier,
    time::ClockQuality,
    trust::{Presentation, SignedTime, StatementKind},
};

pub(super) use self::manage::store_failed;
use super::{
    AuthorityAnswer, RequestKind,
    budget::Budget,
    recent::{Issued, Recent},
};
use crate::authority::{
    AuthorityStatus, Origin, Refusal, StoreError,
    decide::{self, Admission, Case, Context, Stop},
    log::{Action, Actor, Decision, Outcome},
    store::{Batch, StoredList},
};

/// What a transaction changes outside the store, taken over once it is committed.
pub(super) struct Changes {
    /// Credentials issued.
    pub(super) issued: Vec<(Identifier, Issued)>,
    /// Identities whose remembered credentials count no more.
    pub(super) revoked: Vec<Identifier>,
    /// A new status list.
    pub(super) list: Option<StoredList>,
    /// The numbers of lists that were signed are others than before.
    pub(super) issued_changed: bool,
    /// All of them, in that case.
    pub(super) issued_lists: Option<Arc<[u64]>>,
    /// What is left for refusals of strangers.
    pub(super) budget: Budget,
    /// Kinds and outcomes of requests.
    pub(super) counts: Vec<(&'static str, &'static str)>,
    /// What the store holds now.
    pub(super) totals: Totals,
}

/// What the store holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) members: u64,
    pub(super) revoked: u64,
    pub(super) tickets: u64,
    pub(super) log_entries: u64,
    /// The last number given to a status list, signed or not.
    pub(super) list_number: u64,
}

/// The work on one transaction.
pub(super) struct Turn<'a, 'txn> {
    pub(super) batch: &'a mut Batch<'txn>,
    pub(super) context: Context<'a>,
    pub(super) entropy: &'a mut dyn Entropy,
    recent: &'a Recent,
    /// The list signed last.
    pub(super) list: Option<&'a StoredList>,
    /// For whoever asks for it.
    status: Option<AuthorityStatus>,
    /// The number under which this transaction signs a new list.
    pub(super) list_number: Option<u64>,
    pub(super) changes: Changes,
}

impl<'a, 'txn> Turn<'a, 'txn> {
    pub(super) fn new(
        batch: &'a mut Batch<'txn>,
        context: Context<'a>,
        entropy: &'a mut dyn Entropy,
        recent: &'a Recent,
        list: Option<&'a StoredList>,
        status: Option<AuthorityStatus>,
        budget: Budget,
    ) -> Self {
        Self {
            batch,
            context,
            entropy,
            recent,
            list,
            status,
            list_number: None,
            changes: Changes {
                issued: Vec::new(),
                revoked: Vec::new(),
                list: None,
                issued_changed: false,
                issued_lists: None,
                budget,
                counts: Vec::new(),
                totals: Totals::default(),
            },
        }
    }

    /// Ends the work: signs the list if that is wanted and possible.
    pub(super) fn finish(mut self) -> Result<Changes, StoreError> {
        if let (Some(number), Some(key)) = (self.list_number, self.context.key) {
            self.changes.list = self.sign_list(key, number)?;
        }
        if self.changes.issued_changed {
            self.changes.issued_lists = Some(self.batch.issued_lists()?.into());
        }
        self.changes.totals = Totals {
            members: self.batch.member_count()?,
            revoked: self.batch.revoked_count()? + self.batch.prefix_count()?,
            tickets: self.batch.ticket_count()?,
            log_entries: self.batch.log_head().0,
            list_number: self.batch.list_number(),
        };
        Ok(self.changes)
    }

    /// Decides about one request.
    pub(super) fn serve(&mut self, from: &Origin, kind: &RequestKind) -> Result<AuthorityAnswer, StoreError> {
        match kind {
            RequestKind::Enrol(bytes) => {
                let mut case = Case::default();
                let result = self.enrol(from, bytes, &mut case)?;
                self.count("enrol", &result);
                Ok(Self::issued(result))
            }
            RequestKind::Renew => {
                let result = self.renew(from)?;
                self.count("renew", &result);
                Ok(Self::issued(result))
            }
            RequestKind::Time { nonce } => Ok(self.time(*nonce)),
            RequestKind::Manage(request) => {
                let answer = self.manage(from, request)?;
                Ok(AuthorityAnswer::Managed(Box::new(answer)))
            }
        }
    }

    /// Writes that refusals were counted and not written, if there are any.
    pub(super) fn write_suppressed(&mut self) -> Result<(), StoreError> {
        let count = self.changes.budget.take_waiting();
        if count > 0 {
            self.log_own(
                Action::Suppressed,
                format!("{count} refusals were counted and not written one by one"),
            )?;
        }
        Ok(())
    }

    /// Writes what the authority does by itself.
    pub(super) fn log_own(&mut self, action: Action, reason: String) -> Result<(), StoreError> {
        let decision = Decision {
            actor: Actor::Authority,
            action,
            outcome: Outcome::Done,
            subject: None,
            ticket: None,
            reason,
        };
        self.batch.log(self.context.wall, decision)
    }

    /// Decides about an enrolment and writes the log.
    fn enrol(
        &mut self,
        from: &Origin,
        bytes: &[u8],
        case: &mut Case,
    ) -> Result<Result<Admission, Refusal>, StoreError> {
        if self.context.key.is_none() {
            // Nothing is decided and nothing written: whoever asks may ask again.
            return Ok(Err(Refusal::NotReady));
        }
        let result = decide::enrol(self.batch, &self.context, from, bytes, case);
        let result = self.conclude(from, Action::Enrol, *case, result, |admission| {
            (admission.repeated, described(admission))
        })?;
        if let Ok(admission) = &result {
            self.remember(admission);
        }
        Ok(result)
    }

    fn renew(&mut self, from: &Origin) -> Result<Result<Renewed, Refusal>, StoreError> {
        if self.context.key.is_none() {
            return Ok(Err(Refusal::NotReady));
        }
        if let Origin::Channel { peer, .. } = from
            && let Some(presentation) = self.recent.find(peer, self.context.now())
            && !self.changes.revoked.contains(peer)
        {
            return Ok(Ok(Renewed(presentation)));
        }
        let mut case = Case::default();
        let result = decide::renew(self.batch, &self.context, from, &mut case);
        let result = self.conclude(from, Action::Renew, case, result, |admission| {
            (false, described(admission))
        })?;
        Ok(result.map(|admission| {
            self.remember(&admission);
            Renewed(Arc::from(admission.presentation))
        }))
    }

    fn time(&mut self, nonce: [u8; 16]) -> AuthorityAnswer {
        // An authority that does not know the time must not teach it; one that is late teaches the time its own
        // credentials are made in, which is the best a fleet without any clock can have.
        let known = self.context.wall.quality != ClockQuality::Unknown;
        let Some(key) = self.context.key.filter(|_| known) else {
            self.changes.counts.push(("time", "not-ready"));
            return AuthorityAnswer::NotReady;
        };
        let time = SignedTime {
            nonce,
            unix_millis: self.context.wall.unix_millis,
        };
        let signed = time
            .sign(key)
            .and_then(|signed| Presentation::encode(StatementKind::Time, self.context.history, &signed));
        match signed {
            Ok(bytes) => {
                self.changes.counts.push(("time", "done"));
                AuthorityAnswer::Time(bytes)
            }
            Err(error) => {
                tracing::error!(%error, "the time cannot be signed");
                self.changes.counts.push(("time", "unsignable"));
                AuthorityAnswer::NotReady
            }
        }
    }

    /// Writes the log entry of a decision. Refusals of nodes, and what they have had before, go by the budget.
    fn conclude<T>(
        &mut self,
        from: &Origin,
        action: Action,
        case: Case,
        result: Result<T, Stop>,
        describe: impl FnOnce(&T) -> (bool, String),
    ) -> Result<Result<T, Refusal>, StoreError> {
        let (outcome, reason, result) = match result {
            Ok(done) => {
                let (repeated, reason) = describe(&done);
                let outcome = if repeated {
                    Outcome::Repeated
                } else {
                    Outcome::Done
                };
                (outcome, reason, Ok(done))
            }
            Err(Stop::Refused(refusal)) => (
                Outcome::Refused,
                format!("{}: {refusal}", refusal.code()),
                Err(refusal),
            ),
            Err(Stop::Store(error)) => return Err(error),
        };
        let actor = from.actor();
        let bounded = outcome != Outcome::Done && matches!(actor, Actor::Node(_));
        if bounded && !self.changes.budget.take() {
            return Ok(result);
        }
        tracing::info!(
            action = action.name(),
            outcome = outcome.name(),
            %actor,
            subject = case.subject.map(tracing::field::display),
            ticket = case.ticket.map(|ticket| data_encoding::HEXLOWER.encode(&ticket)),
            reason,
            "decided"
        );
        let decision = Decision {
            actor,
            action,
            outcome,
            subject: case.subject,
            ticket: case.ticket,
            reason,
        };
        self.batch.log(self.context.wall, decision)?;
        Ok(result)
    }

    fn remember(&mut self, admission: &Admission) {
        let issued = Issued {
            at: self.context.now(),
            presentation: Arc::from(admission.presentation.as_slice()),
        };
        self.changes.issued.push((admission.identifier, issued));
    }

    fn count<T>(&mut self, kind: &'static str, result: &Result<T, Refusal>) {
        let outcome = result.as_ref().map_or_else(Refusal::code, |_| "done");
        self.changes.counts.push((kind, outcome));
    }

    fn issued<T: Into<Arc<[u8]>>>(result: Result<T, Refusal>) -> AuthorityAnswer {
        match result {
            Ok(admission) => AuthorityAnswer::Issued(admission.into()),
            Err(Refusal::NotReady) => AuthorityAnswer::NotReady,
            // The same for every reason: who asks learns nothing about tickets and members.
            Err(_) => AuthorityAnswer::Denied,
        }
    }
}

/// A credential, new or from a moment ago.
struct Renewed(Arc<[u8]>);

impl From<Renewed> for Arc<[u8]> {
    fn from(renewed: Renewed) -> Self {
        renewed.0
    }
}

impl From<Admission> for Arc<[u8]> {
    fn from(admission: Admission) -> Self {
        Self::from(admission.presentation)
    }
}

fn described(admission: &Admission) -> String {
    let member = &admission.member;
    format!("{}, serial {}", member.grant.name, member.serial)
}
