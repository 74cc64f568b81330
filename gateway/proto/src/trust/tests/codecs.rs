//! Statements, credentials and frames as bytes.

use super::*;
use crate::channel::frames;

fn statement(body: &[u8]) -> Statement<'_> {
    Statement {
        kind: StatementKind::Credential,
        authority: subject(9),
        number: 7,
        issued_at: BEGIN,
        not_after: BEGIN + DAY,
        body,
    }
}

#[test]
fn a_statement_has_the_bytes_of_the_specification() {
    let bytes = statement(b"body").encode().expect("the window is allowed");
    let want = [
        [1, 1].as_slice(),
        &[9; 32],
        &7_u64.to_be_bytes(),
        &BEGIN.to_be_bytes(),
        &(BEGIN + DAY).to_be_bytes(),
        b"body",
    ]
    .concat();
    assert_eq!(bytes, want);
    assert_eq!(
        Statement::decode(StatementKind::Credential, &bytes),
        Ok(statement(b"body"))
    );
    assert_eq!(
        Statement::decode(StatementKind::StatusList, &bytes),
        Err(TrustError::Kind { got: 1, want: 2 })
    );
    let mut newer = bytes;
    newer[0] = 2;
    assert_eq!(
        Statement::decode(StatementKind::Credential, &newer),
        Err(TrustError::Version {
            what: "statement",
            got: 2,
            want: 1
        })
    );
}

#[test]
fn a_statement_is_valid_for_a_second_at_least_and_400_days_at_most() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let sign = |not_after| {
        authority
            .key
            .sign(StatementKind::LogHead, 1, BEGIN, not_after, &[0; 32])
            .map(drop)
    };
    let lifetime = |secs| {
        Err(TrustError::Lifetime {
            secs,
            max: VALIDITY_SECS_MAX,
        })
    };
    assert_eq!(sign(BEGIN - 1), lifetime(0));
    assert_eq!(sign(BEGIN), lifetime(0));
    assert_eq!(sign(BEGIN + 1), Ok(()));
    assert_eq!(sign(BEGIN + VALIDITY_SECS_MAX), Ok(()));
    assert_eq!(
        sign(BEGIN + VALIDITY_SECS_MAX + 1),
        lifetime(VALIDITY_SECS_MAX + 1)
    );
}

#[test]
fn a_statement_key_signs_in_its_window_only() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    for (issued_at, allowed) in [
        (BEGIN - 1, false),
        (BEGIN, true),
        (BEGIN + DAY, true),
        (BEGIN + DAY + 1, false),
    ] {
        let signed = authority
            .key
            .sign(StatementKind::LogHead, 1, issued_at, issued_at + 1, &[0; 32]);
        assert_eq!(signed.is_ok(), allowed, "{issued_at}");
    }
    // A verifier refuses it, too: a statement that was signed with its true window and carries a later attestation.
    let late = Authority::of(
        TestIdentity {
            key: authority.identity.key,
            history: authority.identity.history.clone(),
        },
        BEGIN + 2 * DAY,
    );
    let signed = credential(subject(1)).sign(&authority.key).expect("it can sign");
    let len = signed.len();
    let attestation = late.key.attestation().encode();
    let mixed = [
        &signed[..len - 64 - attestation.len()],
        &attestation,
        &signed[len - 64..],
    ]
    .concat();
    let decoded = SignedStatement::decode(StatementKind::Credential, &mixed).expect("it is well-formed");
    assert_eq!(
        decoded.verify(&authority.identity.history),
        Err(TrustError::OutsideAttestation {
            issued_at: BEGIN,
            not_before: BEGIN + 2 * DAY,
            not_after: BEGIN + 3 * DAY
        })
    );
}

#[test]
fn a_statement_of_one_kind_is_none_of_another() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let history = &authority.identity.history;
    // Signed as a time, with the body of a log head; then read as every other kind.
    let head = LogHead {
        entries: 12,
        hash: [5; 32],
        issued_at: BEGIN,
        not_after: BEGIN + 10,
    };
    let signed = head.sign(&authority.key).expect("it can sign");
    for kind in [StatementKind::Credential, StatementKind::Time] {
        assert!(matches!(
            SignedStatement::decode(kind, &signed),
            Err(TrustError::Kind { got: 4, .. })
        ));
    }
    assert!(SignedStatement::decode(StatementKind::StatusList, &signed).is_err());
    let decoded = SignedStatement::decode(StatementKind::LogHead, &signed).expect("it is well-formed");
    let verified = decoded.verify(history).expect("it was signed");
    assert_eq!(LogHead::decode(&verified), Ok(head));
    let kind = |want| TrustError::Kind { got: 4, want };
    assert_eq!(Credential::decode(&verified), Err(kind(1)));
    assert_eq!(StatusList::decode(&verified), Err(kind(2)));
    assert_eq!(SignedTime::decode(&verified), Err(kind(3)));
    assert_eq!(
        LogHead::decode(&statement(&[0; 32])),
        Err(TrustError::Kind { got: 1, want: 4 })
    );
    // Changing the kind breaks the signature.
    let mut changed = signed.clone();
    changed[3] = 3;
    let err = SignedStatement::decode(StatementKind::Time, &changed).expect_err("the body is too long");
    assert!(matches!(err, TrustError::Length { .. }));
    for bit in 0..signed.len() * 8 {
        let mut forged = signed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let verified = SignedStatement::decode(StatementKind::LogHead, &forged)
            .and_then(|decoded| decoded.verify(history).map(drop));
        assert!(verified.is_err(), "bit {bit}");
    }
    let short = authority
        .key
        .sign(StatementKind::LogHead, 1, BEGIN, BEGIN + 1, &[0; 31])
        .expect("it is signed as it is");
    let decoded = SignedStatement::decode(StatementKind::LogHead, &short).expect("it is well-formed");
    let verified = decoded.verify(history).expect("it was signed");
    assert!(matches!(
        LogHead::decode(&verified),
        Err(TrustError::Length { len: 31, .. })
    ));
}

#[test]
fn a_statement_is_valid_as_far_as_the_clock_can_tell() {
    use ClockQuality::{Authority as Signed, Floor, Synchronised, Unknown};
    let statement = statement(b"");
    for (secs, quality, valid) in [
        (BEGIN - 301, Synchronised, false),
        (BEGIN - 300, Synchronised, true),
        (BEGIN - 301, Signed, false),
        (BEGIN - 301, Floor, true),
        (BEGIN - 301, Unknown, true),
        (BEGIN + DAY + 300, Synchronised, true),
        (BEGIN + DAY + 301, Synchronised, false),
        (BEGIN + DAY + 301, Signed, false),
        (BEGIN + DAY + 301, Floor, false),
        (BEGIN + DAY + 301, Unknown, true),
    ] {
        assert_eq!(
            statement.check_time(at(secs, quality)).is_ok(),
            valid,
            "{secs} {quality:?}"
        );
    }
}

#[test]
fn who_knows_only_the_identifier_can_verify_a_presentation() {
    let authority = Authority::new(KeyAlgorithm::EcdsaP256);
    let bytes = authority.present(&credential(NODE));
    let presented = Presentation::decode(StatementKind::Credential, &bytes).expect("it is well-formed");
    let (history, statement) = presented
        .verify_alone(authority.identifier())
        .expect("it is genuine");
    assert_eq!(history, authority.identity.history);
    assert_eq!(presented.history(), history.to_bytes());
    assert_eq!(Credential::decode(&statement), Ok(credential(NODE)));
    assert!(matches!(
        presented.verify_alone(subject(1)),
        Err(TrustError::Foreign { .. })
    ));
    for (bit, forged) in each_bit_inverted(&bytes) {
        let verified = Presentation::decode(StatementKind::Credential, &forged)
            .and_then(|presented| presented.verify_alone(authority.identifier()).map(drop));
        assert!(verified.is_err(), "bit {bit}");
    }
}

#[test]
fn a_frame_of_another_form_is_refused() {
    let bad: [(&str, u8, &[u8]); 13] = [
        ("a short number", 0x30, &[0; 39]),
        ("a long number", 0x30, &[0; 41]),
        ("an empty part", 0x31, &[0; 48]),
        ("a long part", 0x31, &[0; 48 + 60_001]),
        ("a short nonce", 0x32, &[0; 15]),
        ("no time", 0x33, &[]),
        ("an empty signed time", 0x33, &[1]),
        ("another form of time", 0x33, &[3; 26]),
        (
            "a clock that does not exist",
            0x33,
            &[&[2_u8; 25][..], &[3]].concat(),
        ),
        ("an empty request", 0x34, &[0; 4]),
        ("a long request", 0x34, &[0; 4 + 4097]),
        ("a long presentation", 0x36, &[0; 4 + 4097]),
        ("no text", 0x38, &[0, 0, 0, 1, 0xff]),
    ];
    for (what, kind, body) in bad {
        assert!(TrustFrame::decode(kind, body).is_err(), "{what}");
    }
    assert_eq!(TrustFrame::decode(0x3a, &[1, 2]), Ok(None), "a later version's");
    assert_eq!(TrustFrame::decode(0x3f, &[]), Ok(None));
}

#[test]
fn every_error_says_what_to_do() {
    let errors = [
        TrustError::NoAuthority,
        TrustError::TicketKey,
        TrustError::NotAsked,
        TrustError::Lapsed { since: 1 },
        TrustError::RolledBack { have: 2, got: 1 },
        TrustError::Revoked { number: 1 },
        TrustError::Address {
            address: "x".to_owned(),
        },
        TrustError::Pattern("".parse::<NamePattern>().expect_err("it is empty")),
    ];
    for error in errors {
        assert!(!error.hint().is_empty() && !error.to_string().is_empty());
        assert!(!error.to_string().ends_with('.') && !error.hint().ends_with('.'));
    }
}

fn any_frame(bytes: &[u8], words: (u32, u32, u64), which: u8) -> TrustFrame<'_> {
    let (request, offset, number) = words;
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    let authority = subject(which);
    match which {
        0 => TrustFrame::StatusHave { authority, number },
        1 => TrustFrame::StatusPart(StatusPart {
            authority,
            number,
            total: request,
            offset,
            bytes,
        }),
        2 => TrustFrame::TimePlease { nonce },
        3 => TrustFrame::SignedTime { presentation: bytes },
        4 => TrustFrame::TimePlease { nonce: [which; 16] },
        5 => TrustFrame::Enrol {
            request,
            signed_request: bytes,
        },
        6 => TrustFrame::Renew { request },
        7 => TrustFrame::Issued {
            request,
            presentation: bytes,
        },
        8 => TrustFrame::Denied { request },
        9 => TrustFrame::Manage {
            request,
            text: "{\"list\":1}",
        },
        _ => TrustFrame::Managed { request, text: "" },
    }
}

proptest! {
    #[test]
    fn frames_come_back(
        bytes in prop::collection::vec(any::<u8>(), 1..300),
        words: (u32, u32, u64),
        which in 0_u8..11,
    ) {
        let frame = any_frame(&bytes, words, which);
        let mut out = Vec::new();
        frame.put(&mut out);
        let (kind, body) = frames(&out).next().unwrap().unwrap();
        prop_assert!((FIRST_KIND..=LAST_KIND).contains(&kind));
        prop_assert_eq!(TrustFrame::decode(kind, body), Ok(Some(frame)));
    }

    #[test]
    fn any_bytes_are_a_statement_or_refused(bytes: Vec<u8>, kind in FIRST_KIND..=LAST_KIND) {
        for statement_kind in [
            StatementKind::Credential,
            StatementKind::StatusList,
            StatementKind::Time,
            StatementKind::LogHead,
        ] {
            let _ = SignedStatement::decode(statement_kind, &bytes);
            prop_assert!(Presentation::decode(statement_kind, &bytes).is_err());
            let with_head = [[1, statement_kind.code()].as_slice(), &bytes].concat();
            if let Ok(statement) = Statement::decode(statement_kind, &with_head) {
                prop_assert_eq!(statement.encode(), Ok(with_head));
            }
        }
        if let Ok(credential) = Credential::decode(&statement(&bytes)) {
            prop_assert_eq!(credential.encode(), Ok(bytes.clone()));
        }
        if let Ok(Some(frame)) = TrustFrame::decode(kind, &bytes) {
            let mut out = Vec::new();
            frame.put(&mut out);
            let written: Vec<_> = frames(&out).collect();
            prop_assert_eq!(written, [Ok((kind, bytes.as_slice()))]);
        }
        let mut trust = Trust::new(
            NODE,
            TrustSettings { authority: Some(subject(9)), ..TrustSettings::default() },
            &Saved::default(),
        )
        .unwrap();
        prop_assert!(trust.verify(WallTime::default(), NODE, &bytes).is_err());
        prop_assert!(trust.take_status(WallTime::default(), &bytes).is_err());
        prop_assert!(trust.take_time(crate::time::Instant::START, &bytes).is_err());
        prop_assert!(trust.set_own(WallTime::default(), &bytes).is_err());
    }
}
