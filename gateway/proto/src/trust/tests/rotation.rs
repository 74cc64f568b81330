//! An authority that replaces its identity key.

use super::*;
use crate::identity::IdentityError;

/// When the key is replaced: 5 days after the credential was issued.
const ROTATION: u64 = BEGIN + 5 * DAY;

#[test]
fn what_was_said_before_the_rotation_stays_said() {
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        let old = Authority::new(algorithm);
        let new = old.rotated(ROTATION);
        let before = old.present(&credential(subject(1)));
        let after = new.present(&Credential {
            issued_at: ROTATION,
            ..credential(subject(2))
        });
        let wall = synchronised(ROTATION);
        let mut trust = old.believer();
        assert!(trust.verify(wall, subject(1), &before).is_ok());
        assert_eq!(saved_parts(&mut trust), [SavedPart::History]);
        // The longer history comes with the first who was there.
        assert!(trust.verify(wall, subject(2), &after).is_ok());
        assert_eq!(trust.history(), Some(&new.identity.history));
        assert_eq!(
            saved(&mut trust),
            [(SavedPart::History, new.identity.history.to_bytes())]
        );
        // Who was away presents the shorter one, which is no harm and sets nothing back.
        assert!(trust.verify(wall, subject(1), &before).is_ok());
        assert_eq!(trust.history(), Some(&new.identity.history));
        assert_eq!(saved(&mut trust), []);
        // Somebody else may have put the longer one in front of it.
        let spliced = Presentation::encode(
            StatementKind::Credential,
            &new.identity.history,
            &credential(subject(1)).sign(&old.key).expect("it can sign"),
        )
        .expect("the presentation is short");
        assert!(new.believer().verify(wall, subject(1), &spliced).is_ok());
    }
}

#[test]
fn a_replaced_key_cannot_go_on_vouching() {
    let old = Authority::new(KeyAlgorithm::Ed25519);
    let new = old.rotated(ROTATION);
    let thief = |not_before| {
        Authority::of(
            TestIdentity {
                key: match &old.identity.key {
                    TestKey::Ed25519(key) => TestKey::Ed25519(key.clone()),
                    TestKey::P256(_) => unreachable!("the key is made above"),
                },
                history: old.identity.history.clone(),
            },
            not_before,
        )
    };
    let stolen = |not_before: u64| {
        thief(not_before).present(&Credential {
            issued_at: not_before,
            ..credential(subject(1))
        })
    };
    let wall = synchronised(ROTATION + 1000);
    let mut trust = old.believer();
    assert!(
        trust.verify(wall, subject(1), &stolen(ROTATION + 301)).is_ok(),
        "who has not heard of the rotation cannot tell"
    );
    let spliced = Presentation::encode(
        StatementKind::Credential,
        &new.identity.history,
        &Credential {
            issued_at: ROTATION + 301,
            ..credential(subject(1))
        }
        .sign(&thief(ROTATION + 301).key)
        .expect("it can sign"),
    )
    .expect("the presentation is short");
    assert!(
        trust.verify(wall, subject(1), &spliced).is_err(),
        "with the news in front of it, it refutes itself, though its key was believed before"
    );
    assert_eq!(trust.history(), Some(&old.identity.history));
    let news = new.present(&Credential {
        issued_at: ROTATION,
        ..credential(subject(2))
    });
    assert!(trust.verify(wall, subject(2), &news).is_ok());
    assert_eq!(
        trust.verify(wall, subject(1), &stolen(ROTATION + 301)),
        Err(TrustError::Identity(IdentityError::NotCurrentKey {
            got: 0,
            current: 1
        })),
        "what was remembered is judged again"
    );
    // The last day's key may sign until its attestation ends, with room for clocks that differ.
    assert!(trust.verify(wall, subject(1), &stolen(ROTATION + 300)).is_ok());
    assert!(
        trust
            .verify(wall, subject(1), &stolen(ROTATION - DAY + 1))
            .is_ok()
    );

    // Where the clock was unknown at the rotation, the time of the replacement is, too.
    let unknown = old.rotated(0);
    let mut trust = unknown.believer();
    assert!(
        trust
            .verify(
                wall,
                subject(2),
                &Authority::of(unknown.identity, ROTATION).present(&Credential {
                    issued_at: ROTATION,
                    ..credential(subject(2))
                })
            )
            .is_ok()
    );
    assert!(trust.verify(wall, subject(1), &stolen(ROTATION + 301)).is_ok());
}

#[test]
fn a_forked_history_is_refused() {
    let old = Authority::new(KeyAlgorithm::Ed25519);
    let (new, fork) = (old.rotated(ROTATION), old.rotated(ROTATION));
    let later = |authority: &Authority, number| {
        authority.present(&Credential {
            issued_at: ROTATION,
            ..credential(subject(number))
        })
    };
    let wall = synchronised(ROTATION);
    let mut trust = new.believer();
    assert!(trust.verify(wall, subject(1), &later(&new, 1)).is_ok());
    assert_eq!(
        trust.verify(wall, subject(2), &later(&fork, 2)),
        Err(TrustError::Identity(IdentityError::Fork { sequence: 1 }))
    );
    assert_eq!(trust.history(), Some(&new.identity.history));
}

#[test]
fn a_history_that_does_not_verify_teaches_nothing() {
    let old = Authority::new(KeyAlgorithm::Ed25519);
    let new = old.rotated(ROTATION);
    let wall = synchronised(ROTATION);
    let mut trust = old.believer();
    assert!(
        trust
            .verify(wall, subject(1), &old.present(&credential(subject(1))))
            .is_ok()
    );
    assert_eq!(saved_parts(&mut trust), [SavedPart::History]);
    // A genuine rotation in front of a statement that is forged.
    let mut forged = new.present(&Credential {
        issued_at: ROTATION,
        ..credential(subject(2))
    });
    *forged.last_mut().expect("it is not empty") ^= 1;
    assert!(matches!(
        trust.verify(wall, subject(2), &forged),
        Err(TrustError::Signature { .. })
    ));
    assert_eq!(trust.history(), Some(&old.identity.history));
    assert_eq!(saved(&mut trust), []);
    assert_eq!(trust.stats().remembered, 1, "an error has changed nothing");
}

#[test]
fn a_statement_of_a_key_that_does_not_exist_yet_is_refused() {
    let old = Authority::new(KeyAlgorithm::Ed25519);
    let new = old.rotated(ROTATION);
    let signed = Credential {
        issued_at: ROTATION,
        ..credential(subject(1))
    }
    .sign(&new.key)
    .expect("it can sign");
    let cut = Presentation::encode(StatementKind::Credential, &old.identity.history, &signed)
        .expect("the presentation is short");
    let refused = Err(TrustError::Identity(IdentityError::NotCurrentKey {
        got: 1,
        current: 0,
    }));
    assert_eq!(
        old.believer().verify(synchronised(ROTATION), subject(1), &cut),
        refused
    );
}

#[test]
fn a_list_of_a_replaced_key_does_not_follow_one_of_the_new() {
    let old = Authority::new(KeyAlgorithm::Ed25519);
    let new = old.rotated(BEGIN + 100);
    let wall = synchronised(BEGIN + 200);
    let mut trust = old.believer();
    assert!(trust.take_status(wall, &old.list(1, BEGIN, &[])).is_ok());
    assert!(trust.take_status(wall, &new.list(2, BEGIN + 150, &[])).is_ok());
    assert_eq!(
        trust.take_status(wall, &old.list(9, BEGIN + 160, &[])),
        Err(TrustError::OldKey { have: 1, got: 0 }),
        "a thief of the old key cannot outnumber the new"
    );
    assert_eq!(trust.status().map(StatusList::number), Some(2));
}

/// A statement key's attestation takes its place among those for channels.
#[test]
fn a_draft_for_statements_needs_the_current_key() {
    let old = Authority::new(KeyAlgorithm::EcdsaP256);
    let new = old.rotated(ROTATION);
    let draft = StatementKeyDraft::new(&mut Seeded::new(1), &old.identity.history, ROTATION, DAY, 9)
        .expect("a day is allowed");
    let signature = old.identity.key.sign(&draft.message());
    assert_eq!(
        draft
            .finish(signature, &new.identity.history)
            .map(|key| *key.attestation())
            .err(),
        Some(IdentityError::NotCurrentKey { got: 0, current: 1 }),
        "rotated while the token signed"
    );
    let draft = StatementKeyDraft::new(&mut Seeded::new(1), &new.identity.history, ROTATION, DAY, 9)
        .expect("a day is allowed");
    assert!(matches!(
        draft.finish(signature, &new.identity.history),
        Err(IdentityError::Signature { .. })
    ));
    for secs in [0, DAY + 1] {
        let draft = StatementKeyDraft::new(&mut Seeded::new(1), &new.identity.history, ROTATION, secs, 9);
        assert!(matches!(draft, Err(IdentityError::Lifetime { .. })));
    }
    // The draft for channels of the same identity stays what it was.
    let channel =
        AttestationDraft::new(&new.identity.history, [7; 32], ROTATION, DAY, 10).expect("a day is allowed");
    let signature = new.identity.key.sign(&channel.message());
    assert!(channel.finish(signature, &new.identity.history).is_ok());
    assert!(ChangeHistory::decode(&new.identity.history.to_bytes()).is_ok());
}
