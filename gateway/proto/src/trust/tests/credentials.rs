//! Credentials as bytes.

use super::*;
use crate::wire::{WireError, put_bytes8};

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

fn attributes(count: usize, value: &str) -> BTreeMap<String, String> {
    (0..count)
        .map(|number| (format!("{number:02}"), value.to_owned()))
        .collect()
}

fn exact(text: &str) -> NamePattern {
    NamePattern::Exact(text.to_owned())
}

/// Makes a good credential a bad one.
type Break<'a> = &'a dyn Fn(&mut Credential);

#[test]
fn a_credential_keeps_its_limits_when_it_is_made() {
    let authority = Authority::new(KeyAlgorithm::Ed25519);
    let good = credential(subject(1));
    assert_eq!(good.check(), Ok(()));
    let one = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let long = "x".repeat(256);
    let breaks: [(&str, Break<'_>); 12] = [
        ("no name", &|broken| broken.name.clear()),
        ("a long name", &|broken| broken.name = "n".repeat(64)),
        ("an escape in the name", &|broken| {
            broken.name.push_str("\u{1b}[2J")
        }),
        ("too many attributes", &|broken| {
            broken.attributes = attributes(33, "")
        }),
        ("an empty key", &|broken| broken.attributes = one("", "x")),
        ("a long key", &|broken| broken.attributes = one(&long, "x")),
        ("a long value", &|broken| broken.attributes = one("x", &long)),
        ("too many patterns", &|broken| broken.hold = vec![exact("a"); 17]),
        ("an empty pattern", &|broken| broken.reach = vec![exact("")]),
        ("a star that is none", &|broken| broken.reach = vec![exact("a*")]),
        ("no window", &|broken| broken.not_after = BEGIN),
        ("a long window", &|broken| {
            broken.not_after = BEGIN + VALIDITY_SECS_MAX + 1
        }),
    ];
    for (what, break_it) in breaks {
        let mut broken = good.clone();
        break_it(&mut broken);
        assert!(broken.check().is_err(), "{what}");
        assert!(broken.sign(&authority.key).is_err(), "{what}");
    }
    let full = Credential {
        name: "n".repeat(63),
        attributes: attributes(32, ""),
        hold: vec![exact("a"); 16],
        reach: vec![NamePattern::Prefix(String::new()); 16],
        ..good.clone()
    };
    assert_eq!(full.check(), Ok(()));
    // The whole is bounded by what a verifier takes.
    let large = Credential {
        attributes: attributes(15, &"v".repeat(255)),
        ..good
    };
    let signed = large.sign(&authority.key).expect("each part is allowed");
    assert!(matches!(
        Presentation::encode(StatementKind::Credential, &authority.identity.history, &signed),
        Err(TrustError::Length {
            what: "presentation",
            ..
        })
    ));
}

#[test]
fn a_credential_that_is_signed_and_nevertheless_wrong_is_refused() {
    let head = |rights: u8, name: &[u8]| {
        let mut body = vec![1; 32];
        body.push(rights);
        put_bytes8(&mut body, name);
        body
    };
    let whole = |attributes: &[u8], hold: &[u8], reach: &[u8]| {
        [head(0, b"n").as_slice(), attributes, hold, reach].concat()
    };
    let decode = |body: &[u8]| Credential::decode(&statement(body)).map(drop);
    assert_eq!(decode(&whole(&[0], &[0], &[0])), Ok(()));
    assert_eq!(
        decode(&whole(&[2, 1, b'a', 0, 1, b'b', 0], &[1, 2, b'x', b'*'], &[0])),
        Ok(())
    );
    let order = Err(TrustError::Order {
        what: "keys of attributes",
    });
    assert_eq!(decode(&whole(&[2, 1, b'b', 0, 1, b'a', 0], &[0], &[0])), order);
    assert_eq!(decode(&whole(&[2, 1, b'a', 0, 1, b'a', 0], &[0], &[0])), order);
    assert_eq!(
        decode(&head(4, b"n")),
        Err(TrustError::Wire(WireError::Value {
            field: "rights",
            value: 4
        }))
    );
    for (what, body) in [
        ("no name", head(0, b"")),
        ("no UTF-8", head(0, &[0xff])),
        ("a control character", head(0, b"a\x07")),
        ("an empty key", whole(&[1, 0, 0], &[0], &[0])),
        ("33 attributes", whole(&[33], &[0], &[0])),
        ("17 patterns", whole(&[0], &[17], &[0])),
        (
            "a star in the middle",
            whole(&[0], &[1, 3, b'a', b'*', b'b'], &[0]),
        ),
        ("an empty pattern", whole(&[0], &[0], &[1, 0])),
        ("bytes behind the end", whole(&[0], &[0], &[0, 0])),
        ("an early end", whole(&[0], &[0], &[])),
    ] {
        assert!(decode(&body).is_err(), "{what}");
    }
}

#[test]
fn rights_include_one_another() {
    let rights = |bits| Rights::from_bits(bits).expect("the bits exist");
    for (have, want, enough) in [
        (0, 0, true),
        (0, 1, false),
        (1, 1, true),
        (1, 2, false),
        (2, 1, false),
        (3, 2, true),
        (1, 3, false),
    ] {
        assert_eq!(rights(have).includes(rights(want)), enough, "{have} {want}");
        assert_eq!(rights(have).bits(), have);
    }
    assert_eq!(Rights::from_bits(4), None);
}

fn text(max: usize) -> impl Strategy<Value = String> {
    "\\PC{0,20}".prop_map(move |text| {
        let mut end = text.len().min(max);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].to_owned()
    })
}

fn pattern() -> impl Strategy<Value = NamePattern> {
    ("[a-z0-9-]{1,20}", any::<bool>()).prop_map(|(name, prefix)| {
        if prefix {
            NamePattern::Prefix(name)
        } else {
            NamePattern::Exact(name)
        }
    })
}

fn any_credential() -> impl Strategy<Value = Credential> {
    (
        any::<[u8; 32]>(),
        any::<u64>(),
        0_u8..4,
        text(62).prop_map(|name| format!("n{name}")),
        prop::collection::btree_map("[a-z]{1,10}", text(255), 0..8),
        prop::collection::vec(pattern(), 0..5),
        prop::collection::vec(pattern(), 0..5),
        1..=VALIDITY_SECS_MAX,
    )
        .prop_map(
            |(subject, serial, rights, name, attributes, hold, reach, validity)| Credential {
                subject: Identifier::from_bytes(subject),
                serial,
                rights: Rights::from_bits(rights).expect("the bits exist"),
                name,
                attributes,
                hold,
                reach,
                issued_at: BEGIN,
                not_after: BEGIN + validity,
            },
        )
}

proptest! {
    #[test]
    fn credentials_come_back(credential in any_credential()) {
        let body = credential.encode().unwrap();
        let statement = Statement {
            kind: StatementKind::Credential,
            authority: subject(9),
            number: credential.serial,
            issued_at: credential.issued_at,
            not_after: credential.not_after,
            body: &body,
        };
        let bytes = statement.encode().unwrap();
        let decoded = Statement::decode(StatementKind::Credential, &bytes).unwrap();
        prop_assert_eq!(&decoded, &statement);
        let back = Credential::decode(&decoded).unwrap();
        prop_assert_eq!(&back, &credential);
        prop_assert!((back.issued_at..back.not_after).contains(&back.renew_at()));
    }
}
