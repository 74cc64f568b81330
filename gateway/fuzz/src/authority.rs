//! An authority whose keys are the same in every run, so that committed inputs stay genuine.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use fieldgate_proto::crypto::{Ed25519Secret, Secret};
use fieldgate_proto::identity::{ChangeDraft, ChangeHistory, Identifier, PublicKey};
use fieldgate_proto::relay::NamePattern;
use fieldgate_proto::trust::{
    Credential, EnrolDraft, Presentation, Rights, Saved, StatementKey, StatementKeyDraft, StatementKind,
    StatusList, Ticket, Trust, TrustSettings, Way,
};

use crate::world::{BEGIN_SECS, Repeatable};

/// The authority, and what it says.
pub(crate) struct Authority {
    pub(crate) history: ChangeHistory,
    pub(crate) key: StatementKey,
    /// A member's credential, presented.
    pub(crate) presentation: Vec<u8>,
    /// A list of three subjects, with the history.
    pub(crate) list: Vec<u8>,
    /// A ticket with a way of each kind.
    pub(crate) ticket: Ticket,
    /// A request that was made with it.
    pub(crate) request: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let (history, secret) = identity(1);
        let draft = StatementKeyDraft::new(&mut Repeatable::new(2), &history, BEGIN_SECS, 86_400, 1)
            .expect("a day is the longest validity");
        let signature = secret.sign(&[&draft.message()]);
        let key = draft
            .finish(signature, &history)
            .expect("the signature is its own");
        let presentation = present(
            StatementKind::Credential,
            &history,
            &credential().sign(&key).expect("it is within the limits"),
        );
        let revoked = (1..=3).map(|number| Identifier::from_bytes([number; 32]));
        let list = StatusList::new(LIST_NUMBER, BEGIN_SECS, BEGIN_SECS + 86_400, revoked)
            .and_then(|list| list.sign(&key))
            .expect("it is within the limits");
        let list = present(StatementKind::StatusList, &history, &list);
        let ticket = Ticket::generate(&mut Repeatable::new(3), history.identifier(), BEGIN_SECS, ways())
            .expect("the ways are good");
        let (asker, secret) = identity(4);
        let draft = EnrolDraft::new(&ticket, &asker, BEGIN_SECS, [5; 16], "plant-7")
            .expect("it is within the limits");
        let signature = secret.sign(&[&draft.message()]);
        let request = draft.finish(&signature).expect("the signature is its own");
        Self {
            history,
            key,
            presentation,
            list,
            ticket,
            request,
        }
    }

    /// A node that trusts it and knows nothing else.
    pub(crate) fn believer(&self) -> Trust {
        let settings = TrustSettings {
            authority: Some(self.history.identifier()),
            ..TrustSettings::default()
        };
        Trust::new(MEMBER, settings, &Saved::default()).expect("nothing was saved")
    }

    /// Signs any body.
    pub(crate) fn sign(&self, kind: StatementKind, number: u64, body: &[u8]) -> Option<Vec<u8>> {
        let signed = self
            .key
            .sign(kind, number, BEGIN_SECS, BEGIN_SECS + 86_400, body)
            .ok()?;
        Presentation::encode(kind, &self.history, &signed).ok()
    }
}

/// The same authority for the whole process.
pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(Authority::new)
}

/// What the authority says about [`MEMBER`].
pub(crate) fn credential() -> Credential {
    Credential {
        subject: MEMBER,
        serial: 9,
        rights: Rights {
            enroller: true,
            administrator: false,
        },
        name: "plant-7".to_owned(),
        attributes: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
        hold: vec![NamePattern::Exact("plant-7".to_owned())],
        reach: vec![NamePattern::Prefix("collector-".to_owned())],
        issued_at: BEGIN_SECS,
        not_after: BEGIN_SECS + 30 * 86_400,
    }
}

fn identity(seed: u8) -> (ChangeHistory, Ed25519Secret) {
    let secret = Ed25519Secret::new(&Secret::new([seed; 32]));
    let draft = ChangeDraft::first(PublicKey::Ed25519(*secret.public()), BEGIN_SECS);
    let signature = secret.sign(&[&draft.message()]);
    let history = draft.finish(signature, None).expect("the signature is its own");
    (history, secret)
}

fn present(kind: StatementKind, history: &ChangeHistory, signed: &[u8]) -> Vec<u8> {
    Presentation::encode(kind, history, signed).expect("it is short")
}

fn ways() -> Vec<Way> {
    vec![
        Way::Relay {
            address: "relay.example:7447".to_owned(),
            relay: MEMBER,
            name: "authority".to_owned(),
        },
        Way::Direct {
            address: "[2001:db8::1]:7447".to_owned(),
        },
    ]
}

/// Replaces single bytes: each three bytes of the input are a place (2) and what the byte there is xored with.
pub(crate) fn patched(genuine: &[u8], patches: &[u8]) -> Vec<u8> {
    let mut bytes = genuine.to_vec();
    for patch in patches.chunks_exact(3).take(4) {
        let place = usize::from(u16::from_be_bytes([patch[0], patch[1]])) % bytes.len();
        bytes[place] ^= patch[2];
    }
    bytes
}

/// The member that has a credential.
pub(crate) const MEMBER: Identifier = Identifier::from_bytes([7; 32]);
/// Number of the list that is there.
pub(crate) const LIST_NUMBER: u64 = 5;
