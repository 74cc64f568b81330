//! What a node believes of what peers present.

use super::*;

#[test]
fn a_member_is_believed_and_remembered() {
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        let authority = Authority::new(algorithm);
        let want = credential(subject(1));
        let presentation = authority.present(&want);
        let mut trust = authority.believer();
        for _ in 0..3 {
            let got = trust.verify(synchronised(BEGIN), subject(1), &presentation);
            assert_eq!(got.as_deref(), Ok(&want));
        }
        let stats = trust.stats();
        assert_eq!(
            (stats.hits, stats.misses, stats.attestations, stats.remembered),
            (2, 1, 1, 1)
        );
        assert_eq!(trust.latest_statement_time(), BEGIN);
        assert_eq!(
            saved(&mut trust),
            [(SavedPart::History, authority.identity.history.to_bytes())]
        );
        // The next credential of the day costs one signature: the key is known.
        let other = authority.present(&credential(subject(2)));
        assert!(trust.verify(synchronised(BEGIN), subject(2), &other).is_ok());
        assert_eq!((trust.stats().misses, trust.stats().attestations), (2, 1));
        assert_eq!(saved(&mut trust), []);
    }
}

#[test]
fn every_bit_of_a_presentation_counts() {
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        let authority = Authority::new(algorithm);
        let presentation = authority.present(&credential(subject(1)));
        for (bit, forged) in each_bit_inverted(&presentation) {
            let mut trust = authority.believer();
            let got = trust.verify(WallTime::default(), subject(1), &forged);
            assert!(got.is_err(), "bit {bit}");
            assert_eq!(
                (trust.stats(), trust.latest_statement_time()),
                (TrustStats::default(), 0)
            );
            assert!(trust.history().is_none() && saved(&mut trust).is_empty());
        }
    }
}

/// Who knows the history does not compare its signatures again: they can be altered and still verify.
#[test]
fn every_bit_behind_a_known_history_counts() {
    let authority = Authority::new(KeyAlgorithm::EcdsaP256);
    let presentation = authority.present(&credential(subject(1)));
    let mut trust = authority.believer();
    let wall = synchronised(BEGIN);
    assert!(trust.verify(wall, subject(1), &presentation).is_ok());
    let history_len = authority.identity.history.to_bytes().len();
    for (bit, forged) in each_bit_inverted(&presentation).skip(history_len * 8) {
        assert!(trust.verify(wall, subject(1), &forged).is_err(), "bit {bit}");
    }
    assert_eq!(trust.stats().remembered, 1);
}

#[test]
fn a_presentation_cut_or_extended_anywhere_is_refused() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let presentation = authority.present(&credential(subject(1)));
    let mut trust = authority.believer();
    for len in 0..presentation.len() {
        let cut = trust.verify(WallTime::default(), subject(1), &presentation[..len]);
        assert!(cut.is_err(), "{len} bytes");
    }
    let longer = [presentation.as_slice(), &[0]].concat();
    assert!(trust.verify(WallTime::default(), subject(1), &longer).is_err());
    let long = vec![1; PRESENTATION_LEN_MAX + 1];
    assert_eq!(
        trust.verify(WallTime::default(), subject(1), &long),
        Err(TrustError::Length {
            what: "presentation",
            len: 4097,
            min: 0,
            max: 4096
        })
    );
}

#[test]
fn another_authority_is_not_believed() {
    let (ours, theirs) = (
        Authority::new(KeyAlgorithm::Ed25519),
        Authority::new(KeyAlgorithm::Ed25519),
    );
    let mut trust = ours.believer();
    let foreign = TrustError::Foreign {
        got: theirs.identifier(),
        want: ours.identifier(),
    };
    let wall = synchronised(BEGIN);
    assert_eq!(
        trust.verify(wall, subject(1), &theirs.present(&credential(subject(1)))),
        Err(foreign.clone())
    );
    assert_eq!(
        trust.take_status(wall, &theirs.list(1, BEGIN, &[])),
        Err(foreign.clone())
    );
    let nonce = trust.ask_time(crate::time::Instant::START, &mut Seeded::new(1));
    assert_eq!(
        trust.take_time(crate::time::Instant::START, &theirs.time(nonce, BEGIN * 1000)),
        Err(foreign.clone())
    );
    assert_eq!(
        trust.set_own(wall, &theirs.present(&credential(NODE))),
        Err(foreign)
    );

    // Another's signed statement behind our history is no better.
    let signed = credential(subject(1)).sign(&theirs.key).expect("it can sign");
    let mixed = Presentation::encode(StatementKind::Credential, &ours.identity.history, &signed)
        .expect("the presentation is short");
    assert!(matches!(
        trust.verify(wall, subject(1), &mixed),
        Err(TrustError::Foreign { .. })
    ));
    // Nor is our statement behind another's history, for one who knows ours and for one who does not.
    let signed = credential(subject(1)).sign(&ours.key).expect("it can sign");
    let mixed = Presentation::encode(StatementKind::Credential, &theirs.identity.history, &signed)
        .expect("the presentation is short");
    assert!(matches!(
        trust.verify(wall, subject(1), &mixed),
        Err(TrustError::Foreign { .. })
    ));
    assert!(
        trust
            .verify(wall, subject(1), &ours.present(&credential(subject(1))))
            .is_ok()
    );
    assert!(matches!(
        trust.verify(wall, subject(1), &mixed),
        Err(TrustError::Identity(_))
    ));
}

#[test]
fn a_key_vouched_for_by_somebody_else_signs_nothing() {
    let (ours, theirs) = (
        Authority::new(KeyAlgorithm::Ed25519),
        Authority::new(KeyAlgorithm::Ed25519),
    );
    // Their token vouches for a key in our name.
    let mut attested = *theirs.key.attestation().attestation();
    attested.identifier = ours.identifier();
    let mut attestation = attested.encode();
    attestation.extend_from_slice(
        &theirs.identity.key.sign(
            &[
                crate::crypto::label16("FG1 attest v1").as_slice(),
                &attested.encode(),
            ]
            .concat(),
        ),
    );
    let signed = credential(subject(1)).sign(&ours.key).expect("it can sign");
    let len = signed.len();
    let forged = [&signed[..len - 64 - 158], &attestation, &signed[len - 64..]].concat();
    let presentation = Presentation::encode(StatementKind::Credential, &ours.identity.history, &forged)
        .expect("the presentation is short");
    assert!(matches!(
        ours.believer()
            .verify(synchronised(BEGIN), subject(1), &presentation),
        Err(TrustError::Identity(
            crate::identity::IdentityError::Signature { .. }
        ))
    ));
}

#[test]
fn a_channel_key_signs_no_statements_and_a_statement_key_opens_no_channel() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let history = &authority.identity.history;
    let purpose = |got: u8, want: u8| crate::identity::IdentityError::Purpose { got, want };
    let for_channels = authority.identity.attest([7; 32], BEGIN, DAY, 1);
    assert_eq!(for_channels.verify(history), Ok(()));
    assert_eq!(for_channels.verify_statement_key(history), Err(purpose(1, 2)));

    let for_statements = authority.key.attestation();
    assert_eq!(for_statements.verify_statement_key(history), Ok(()));
    assert_eq!(for_statements.verify(history), Err(purpose(2, 1)));
    let mut cache = crate::identity::AttestationCache::new(1);
    let key = for_statements.attestation().public_key;
    let got = cache.verify(
        &history.to_bytes(),
        &for_statements.encode(),
        None,
        &key,
        synchronised(BEGIN),
    );
    assert_eq!(got, Err(purpose(2, 1)));
    // What it is for is asked before any signature is verified.
    let mut forged = history.to_bytes();
    *forged.last_mut().expect("it is not empty") ^= 1;
    let got = cache.verify(&forged, &for_statements.encode(), None, &key, synchronised(BEGIN));
    assert_eq!(got, Err(purpose(2, 1)));
    assert!(cache.is_empty());
}

#[test]
fn a_credential_counts_for_its_subject_only() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let presentation = authority.present(&credential(subject(1)));
    let mut trust = authority.believer();
    let wall = synchronised(BEGIN);
    let stolen = Err(TrustError::Subject {
        got: subject(1),
        want: subject(2),
    });
    assert_eq!(trust.verify(wall, subject(2), &presentation), stolen);
    assert_eq!(trust.stats().remembered, 0);
    assert!(trust.verify(wall, subject(1), &presentation).is_ok());
    // From memory as well.
    assert_eq!(trust.verify(wall, subject(2), &presentation), stolen);
    assert_eq!(
        trust.set_own(wall, &presentation),
        Err(TrustError::Subject {
            got: subject(1),
            want: NODE
        })
    );
    assert!(trust.own().is_none());
}

#[test]
fn without_an_authority_nothing_is_believed() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let saved = Saved {
        history: Some(vec![1, 2, 3]),
        ..Saved::default()
    };
    let mut trust = Trust::new(NODE, TrustSettings::default(), &saved).expect("what was saved is not read");
    let wall = synchronised(BEGIN);
    let presentation = authority.present(&credential(subject(1)));
    assert_eq!(
        trust.verify(wall, subject(1), &presentation),
        Err(TrustError::NoAuthority)
    );
    assert_eq!(
        trust.take_status(wall, &authority.list(1, BEGIN, &[])),
        Err(TrustError::NoAuthority)
    );
    assert_eq!(trust.status_have(), None);
    assert_eq!(trust.freshness(wall), Freshness::NoList);
    assert_eq!(trust.renew_at(), None);
}

#[test]
fn a_known_credential_is_refused_once_it_is_revoked_or_over() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let presentation = authority.present(&credential(subject(1)));
    let wall = synchronised(BEGIN);
    let mut trust = authority.believer();
    assert!(trust.verify(wall, subject(1), &presentation).is_ok());

    let over = BEGIN + 30 * DAY + 7 * DAY + 301;
    assert_eq!(
        trust.verify(synchronised(over - 300), subject(1), &presentation),
        Err(TrustError::Lapsed { since: BEGIN }),
        "no list has come for longer than the grace"
    );
    let mut patient = Trust::new(
        NODE,
        TrustSettings {
            grace: Duration::from_hours(365 * 24),
            ..authority.settings()
        },
        &Saved::default(),
    )
    .expect("nothing was saved");
    assert!(patient.verify(wall, subject(1), &presentation).is_ok());
    let very_late = synchronised(BEGIN + 30 * DAY + 365 * DAY + 301);
    assert!(matches!(
        patient.verify(very_late, subject(1), &presentation),
        Err(TrustError::Expired { .. })
    ));
    assert!(matches!(
        patient.verify(synchronised(BEGIN - 301), subject(1), &presentation),
        Err(TrustError::NotYetValid { .. })
    ));

    let taken = trust
        .take_status(wall, &authority.list(5, BEGIN, &[subject(1), subject(3)]))
        .expect("the list is good");
    assert_eq!(taken.revoked, [[1; 16], [3; 16]]);
    assert!(trust.is_revoked(&subject(1)) && !trust.is_revoked(&subject(2)));
    assert_eq!(
        trust.verify(wall, subject(1), &presentation),
        Err(TrustError::Revoked { number: 5 })
    );
    assert_eq!(trust.check(wall, &credential(subject(1))), Standing::Revoked);
    assert_eq!(trust.stats().misses, 1, "all of this came from memory");
}

#[test]
fn a_full_memory_forgets_who_was_away_longest() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let settings = TrustSettings {
        remembered_max: 2,
        ..authority.settings()
    };
    let mut trust = Trust::new(NODE, settings, &Saved::default()).expect("nothing was saved");
    let presentations: Vec<_> = (0..3)
        .map(|number| authority.present(&credential(subject(number))))
        .collect();
    let wall = synchronised(BEGIN);
    let mut meet = |number: u8| {
        let before = trust.stats().hits;
        trust
            .verify(wall, subject(number), &presentations[usize::from(number)])
            .expect("the member is good");
        assert!(trust.stats().remembered <= 2);
        trust.stats().hits > before
    };
    let known: Vec<_> = [0, 1, 0, 2, 0, 1, 2].into_iter().map(&mut meet).collect();
    assert_eq!(known, [false, false, true, false, true, false, false]);
    assert_eq!(trust.stats().evictions, 3);
}

#[test]
fn the_own_credential_is_kept_and_renewed() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let mut trust = authority.believer();
    let wall = synchronised(BEGIN);
    let first = authority.present(&credential(NODE));
    trust.set_own(wall, &first).expect("it is ours");
    assert_eq!(trust.renew_at(), Some(BEGIN + 15 * DAY));
    assert_eq!(
        saved(&mut trust),
        [
            (SavedPart::History, authority.identity.history.to_bytes()),
            (SavedPart::Own, first.clone()),
        ]
    );
    trust.set_own(wall, &first).expect("it is ours");
    assert_eq!(saved(&mut trust), [], "nothing changed");
    let second = authority.present(&Credential {
        serial: 8,
        issued_at: BEGIN + 60,
        ..credential(NODE)
    });
    trust.set_own(wall, &second).expect("it is ours");
    assert_eq!(saved(&mut trust), [(SavedPart::Own, second.clone())]);
    let own = trust.own().expect("it was set");
    assert_eq!((&*own.presentation, own.credential.serial), (&*second, 8));
}

#[test]
fn what_was_saved_is_believed_after_a_restart_whatever_the_clock_says() {
    let authority = Authority::new(KeyAlgorithm::EcdsaP256);
    let mut trust = authority.believer();
    let wall = synchronised(BEGIN);
    trust
        .set_own(wall, &authority.present(&credential(NODE)))
        .expect("it is ours");
    trust
        .take_status(wall, &authority.list(3, BEGIN + 5, &[subject(1)]))
        .expect("the list is good");
    let mut kept = Saved::default();
    for (what, bytes) in saved(&mut trust) {
        let part = match what {
            SavedPart::History => &mut kept.history,
            SavedPart::Status => &mut kept.status,
            SavedPart::Own => &mut kept.own,
        };
        assert_eq!(part.replace(bytes), None);
    }
    let mut again = Trust::new(NODE, authority.settings(), &kept).expect("it was saved by us");
    assert_eq!(again.own(), trust.own());
    assert_eq!(again.status(), trust.status());
    assert_eq!(again.latest_statement_time(), BEGIN + 5);
    assert_eq!(saved(&mut again), [], "the disk has it already");
    assert_eq!(
        again.take_status(wall, &authority.list(2, BEGIN + 9, &[])),
        Err(TrustError::RolledBack { have: 3, got: 2 })
    );
    let centuries_later = synchronised(BEGIN + 100 * 366 * DAY);
    assert!(matches!(
        again.freshness(centuries_later),
        Freshness::Lapsed { .. }
    ));

    // Without the history, the others bring it.
    let only_status = Saved {
        status: kept.status.clone(),
        ..Saved::default()
    };
    let mut again = Trust::new(NODE, authority.settings(), &only_status).expect("it was saved by us");
    assert_eq!(saved_parts(&mut again), [SavedPart::History]);
    assert!(again.is_revoked(&subject(1)));
}

#[test]
fn damaged_or_foreign_state_is_not_passed_over() {
    let (ours, theirs) = (
        Authority::new(KeyAlgorithm::Ed25519),
        Authority::new(KeyAlgorithm::Ed25519),
    );
    let with = |what, bytes: Vec<u8>| {
        let mut kept = Saved::default();
        match what {
            SavedPart::History => kept.history = Some(bytes),
            SavedPart::Status => kept.status = Some(bytes),
            SavedPart::Own => kept.own = Some(bytes),
        }
        Trust::new(NODE, ours.settings(), &kept)
            .map(drop)
            .map_err(|error| (error.what, error.hint(), error))
    };
    let genuine = [
        (SavedPart::History, ours.identity.history.to_bytes()),
        (SavedPart::Status, ours.list(1, BEGIN, &[subject(1)])),
        (SavedPart::Own, ours.present(&credential(NODE))),
    ];
    for (what, bytes) in genuine {
        assert_eq!(with(what, bytes.clone()), Ok(()));
        for damaged in [
            bytes[..bytes.len() - 1].to_vec(),
            Vec::new(),
            bytes.iter().map(|byte| byte ^ 1).collect(),
        ] {
            assert_eq!(with(what, damaged).map_err(|(what, ..)| what), Err(what));
        }
    }
    let foreign = [
        (SavedPart::History, theirs.identity.history.to_bytes()),
        (SavedPart::Status, theirs.list(1, BEGIN, &[])),
        (SavedPart::Own, theirs.present(&credential(NODE))),
    ];
    for (what, bytes) in foreign {
        let (got, hint, error) = with(what, bytes).expect_err("it is another authority's");
        assert_eq!(got, what);
        assert!(
            matches!(error.source, TrustError::Foreign { .. }) && hint.contains("another authority"),
            "{error:?}"
        );
    }
    assert!(
        with(SavedPart::Own, ours.present(&credential(subject(1)))).is_err(),
        "it is another node's"
    );
}
