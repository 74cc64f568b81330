//! Credentials of an authority, and a node that verifies them.

use std::collections::BTreeMap;

use fieldgate_proto::identity::Identifier;
use fieldgate_proto::relay::NamePattern;
use fieldgate_proto::trust::{
    Credential, Presentation, Rights, Saved, StatementKey, StatementKeyDraft, StatementKind, StatusList,
    Trust, TrustSettings,
};

use super::identity::{DAY_SECS, NOW_SECS, Owner, System, now, refused};
use crate::failure::Failure;

/// Whether a credential was verified before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Novelty {
    Known,
    New,
}

/// An authority, and a node that trusts it.
pub(super) struct Fleet {
    authority: Owner,
    key: StatementKey,
    trust: Trust,
    novelty: Novelty,
    serial: u64,
}

impl Fleet {
    pub(super) fn new(entropy: &mut System, novelty: Novelty) -> Result<Self, Failure> {
        let authority = Owner::new(entropy)?;
        let draft = StatementKeyDraft::new(entropy, &authority.history, NOW_SECS, DAY_SECS, 1)
            .map_err(|error| refused("drafting a statement key", &error))?;
        let signature = authority.sign(&draft.message(), entropy)?;
        let key = draft
            .finish(signature, &authority.history)
            .map_err(|error| refused("attesting a statement key", &error))?;
        let settings = TrustSettings {
            authority: Some(authority.history.identifier()),
            ..TrustSettings::default()
        };
        let node = Identifier::from_bytes([0; 32]);
        let mut trust = Trust::new(node, settings, &Saved::default())
            .map_err(|error| refused("making a verifier", &error))?;
        let list = presentation_of_list(&authority, &key)?;
        trust
            .take_status(now().wall, &list)
            .map_err(|error| refused("taking a status list", &error))?;
        while trust.poll_output().is_some() {}
        Ok(Self {
            authority,
            key,
            trust,
            novelty,
            serial: 0,
        })
    }

    /// Whether each handshake brings another credential.
    pub(super) fn renews(&self) -> bool {
        self.novelty == Novelty::New
    }

    /// Issues a credential such as a gateway has.
    pub(super) fn credential(&mut self, subject: Identifier) -> Result<Vec<u8>, Failure> {
        self.serial += 1;
        let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let credential = Credential {
            subject,
            serial: self.serial,
            rights: Rights::default(),
            name: "gateway-17.plant-3".to_owned(),
            attributes: ATTRIBUTES.into_iter().map(text).collect::<BTreeMap<_, _>>(),
            hold: vec![NamePattern::Exact("gateway-17.plant-3".to_owned())],
            reach: vec![NamePattern::Prefix("collector.".to_owned())],
            issued_at: NOW_SECS,
            not_after: NOW_SECS + DAY_SECS,
        };
        let signed = credential
            .sign(&self.key)
            .map_err(|error| refused("issuing a credential", &error))?;
        Presentation::encode(StatementKind::Credential, &self.authority.history, &signed)
            .map_err(|error| refused("presenting a credential", &error))
    }

    /// Does what a node does with a presentation before it decides about its peer.
    pub(super) fn verify(&mut self, peer: Identifier, presentation: &[u8]) -> Result<(), Failure> {
        let verified = self.trust.verify(now().wall, peer, presentation);
        while self.trust.poll_output().is_some() {}
        verified
            .map(drop)
            .map_err(|error| refused("verifying a credential", &error))
    }

    /// Returns what the verifier did.
    #[cfg(test)]
    pub(super) fn stats(&self) -> fieldgate_proto::trust::TrustStats {
        self.trust.stats()
    }
}

fn presentation_of_list(authority: &Owner, key: &StatementKey) -> Result<Vec<u8>, Failure> {
    let revoked = (0..REVOKED).map(|index: u16| {
        let mut identifier = [0xee; 32];
        identifier[..2].copy_from_slice(&index.to_be_bytes());
        Identifier::from_bytes(identifier)
    });
    let signed = StatusList::new(1, NOW_SECS, NOW_SECS + DAY_SECS, revoked)
        .and_then(|list| list.sign(key))
        .map_err(|error| refused("signing a status list", &error))?;
    Presentation::encode(StatementKind::StatusList, &authority.history, &signed)
        .map_err(|error| refused("presenting a status list", &error))
}

const ATTRIBUTES: [(&str, &str); 3] = [("site", "plant-3"), ("role", "gateway"), ("owner", "operations")];
const REVOKED: u16 = 1000;
