mod believing;
mod clock;
mod codecs;
mod credentials;
mod enrolment;
mod lists;
mod rotation;
mod tickets;

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    identity::{
        AttestationDraft, ChangeDraft, ChangeHistory, Identifier, KeyAlgorithm,
        tests::{Seeded, TestIdentity, TestKey},
    },
    relay::NamePattern,
    time::{ClockQuality, WallTime},
};

/// When everything here begins, seconds since 1970.
const BEGIN: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

/// An authority with its token and its statement key of the day.
struct Authority {
    identity: TestIdentity,
    key: StatementKey,
}

impl Authority {
    /// Its statement key is vouched for from [`BEGIN`] on, for a day.
    fn new(algorithm: KeyAlgorithm) -> Self {
        Self::of(TestIdentity::new(algorithm), BEGIN)
    }

    fn of(identity: TestIdentity, not_before: u64) -> Self {
        let draft = StatementKeyDraft::new(
            &mut Seeded::new(not_before),
            &identity.history,
            not_before,
            DAY,
            not_before,
        )
        .expect("a day is allowed");
        let signature = identity.key.sign(&draft.message());
        let key = draft
            .finish(signature, &identity.history)
            .expect("the current key signed");
        Self { identity, key }
    }

    /// The same authority after it replaced its identity key at `at`.
    fn rotated(&self, at: u64) -> Self {
        let key = TestKey::new(KeyAlgorithm::Ed25519);
        let draft =
            ChangeDraft::next(self.identity.history.clone(), key.public(), at).expect("there is room");
        let (own, predecessor) = (
            key.sign(&draft.message()),
            self.identity.key.sign(&draft.message()),
        );
        let history = draft.finish(own, Some(predecessor)).expect("both keys signed");
        Self::of(TestIdentity { key, history }, at)
    }

    fn identifier(&self) -> Identifier {
        self.identity.history.identifier()
    }

    fn present(&self, credential: &Credential) -> Vec<u8> {
        let signed = credential
            .sign(&self.key)
            .expect("the credential keeps the limits");
        Presentation::encode(StatementKind::Credential, &self.identity.history, &signed)
            .expect("the presentation is short")
    }

    fn list(&self, number: u64, issued_at: u64, revoked: &[Identifier]) -> Vec<u8> {
        let list = StatusList::new(number, issued_at, issued_at + DAY, revoked.iter().copied())
            .expect("the list keeps the limits");
        let signed = list.sign(&self.key).expect("the key is vouched for");
        Presentation::encode(StatementKind::StatusList, &self.identity.history, &signed)
            .expect("the list is short")
    }

    fn time(&self, nonce: [u8; 16], unix_millis: u64) -> Vec<u8> {
        let signed = SignedTime { nonce, unix_millis }
            .sign(&self.key)
            .expect("the key is vouched for");
        Presentation::encode(StatementKind::Time, &self.identity.history, &signed).expect("a time is short")
    }

    /// A node that trusts it and knows nothing else.
    fn believer(&self) -> Trust {
        Trust::new(NODE, self.settings(), &Saved::default()).expect("nothing was saved")
    }

    fn settings(&self) -> TrustSettings {
        TrustSettings {
            authority: Some(self.identifier()),
            ..TrustSettings::default()
        }
    }
}

/// The node whose trust is tested.
const NODE: Identifier = Identifier::from_bytes([0xee; 32]);

fn subject(number: u8) -> Identifier {
    Identifier::from_bytes([number; 32])
}

/// Valid for 30 days from [`BEGIN`] on.
fn credential(subject: Identifier) -> Credential {
    Credential {
        subject,
        serial: 7,
        rights: Rights {
            enroller: true,
            administrator: false,
        },
        name: "plant-7".to_owned(),
        attributes: BTreeMap::from([
            ("line".to_owned(), String::new()),
            ("site".to_owned(), "north".to_owned()),
        ]),
        hold: vec![NamePattern::Exact("plant-7".to_owned())],
        reach: vec![NamePattern::Prefix("collector-".to_owned())],
        issued_at: BEGIN,
        not_after: BEGIN + 30 * DAY,
    }
}

const fn at(secs: u64, quality: ClockQuality) -> WallTime {
    WallTime {
        unix_millis: secs * 1000,
        quality,
    }
}

const fn synchronised(secs: u64) -> WallTime {
    at(secs, ClockQuality::Synchronised)
}

/// Each copy of `bytes` with one bit inverted.
fn each_bit_inverted(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len() * 8).map(|bit| {
        let mut forged = bytes.to_vec();
        forged[bit / 8] ^= 1 << (bit % 8);
        (bit, forged)
    })
}

/// Everything that waits to be saved.
fn saved(trust: &mut Trust) -> Vec<(SavedPart, Vec<u8>)> {
    std::iter::from_fn(|| trust.poll_output())
        .map(|TrustOutput::Save { what, bytes }| (what, bytes.to_vec()))
        .collect()
}

fn saved_parts(trust: &mut Trust) -> Vec<SavedPart> {
    saved(trust).into_iter().map(|(what, _)| what).collect()
}
