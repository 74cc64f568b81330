//! What a host keeps of its trust, and how it decides about peers.

use fieldgate_proto::{
    entropy::Entropy,
    identity::Identifier,
    node::{Access, Service, Verdict},
    relay::{MemberRights, NamePattern},
    trust::{EnrolDraft, Saved, SavedPart, Ticket, TrustSettings},
};

use crate::{member::Member, scenario::TrustPlan};

/// A host's trust, for all its lives.
#[derive(Debug)]
pub(crate) struct HostTrust {
    pub(crate) settings: TrustSettings,
    proofs: bool,
    /// What is on its disk.
    pub(crate) saved: Saved,
    /// What was there long ago.
    old: Option<Saved>,
    /// With which it may become a member, if it is none.
    pub(crate) ticket: Option<Ticket>,
}

impl HostTrust {
    pub(crate) fn new(authority: Identifier, plan: &TrustPlan) -> Self {
        Self {
            settings: TrustSettings {
                authority: Some(authority),
                grace: plan.grace,
                after_grace: plan.after_grace,
                ..TrustSettings::default()
            },
            proofs: plan.proofs,
            saved: Saved::default(),
            old: None,
            ticket: None,
        }
    }

    /// Puts something on the disk.
    pub(crate) fn save(&mut self, what: SavedPart, bytes: Vec<u8>) {
        let place = match what {
            SavedPart::History => &mut self.saved.history,
            SavedPart::Status => &mut self.saved.status,
            SavedPart::Own => &mut self.saved.own,
        };
        *place = Some(bytes);
        if self.saved.status.is_some() && self.old.is_none() {
            self.old = Some(self.saved.clone());
        }
    }

    /// Puts back what was there long ago; false if there is nothing older.
    pub(crate) fn roll_back(&mut self) -> bool {
        match &self.old {
            Some(old) if *old != self.saved => {
                self.saved = old.clone();
                true
            }
            Some(_) | None => false,
        }
    }

    /// Makes a request to enrol, if there is a ticket and no credential.
    pub(crate) fn request(
        &self,
        member: &Member,
        entropy: &mut dyn Entropy,
        unix_secs: u64,
    ) -> Option<Vec<u8>> {
        let ticket = self.ticket.as_ref().filter(|_| self.saved.own.is_none())?;
        let mut nonce = [0; 16];
        entropy.fill(&mut nonce);
        let draft = EnrolDraft::new(ticket, member.history(), unix_secs, nonce, "").ok()?;
        let signature = member.sign(&draft.message());
        draft.finish(&signature).ok()
    }

    /// Decides: whoever has a credential that counts gets what it says, the authority may hold its name, and a stranger may
    /// reach that for a minute.
    pub(crate) fn decide(&self, access: &Access) -> Verdict {
        let credential = access
            .credential
            .as_ref()
            .filter(|(_, standing)| standing.counts())
            .map(|(credential, _)| credential);
        let permit = |names: &[NamePattern], reach: &[NamePattern], guest| Verdict::Permit {
            rights: MemberRights {
                names: names.to_vec(),
                reach: reach.to_vec(),
            },
            guest,
        };
        let open = [pattern(AUTHORITY_NAME)];
        match (access.service, credential) {
            (Service::Uplink, None) => Verdict::Refuse,
            (Service::Uplink, Some(_)) if self.proofs && !access.facts.live_proof => Verdict::Prove,
            (_, Some(credential)) => permit(&credential.hold, &credential.reach, false),
            (Service::Registrar, None) if Some(access.peer) == self.settings.authority => {
                permit(&open, &[], false)
            }
            (Service::Portal | Service::Link, None) => Verdict::Refuse,
            (Service::Registrar | Service::Authority, None) => permit(&[], &open, true),
        }
    }
}

/// Reads a name.
pub(crate) fn pattern(name: &str) -> NamePattern {
    name.parse().expect("it is a name")
}

/// The name the authority holds at relays.
pub(crate) const AUTHORITY_NAME: &str = "authority";
