//! Making keys.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use fieldgate_hsm::{Algorithm, Error, KeyOrigin, ObjectType, PublicKey, Settings, Signer, create_pkcs11};

use crate::softhsm::{Preparation, TOKEN, key_uri, module, prepared_scenario, scenario, token_uri};

#[test]
fn makes_opens_and_signs_with_p256() {
    scenario("create::makes_opens_and_signs_with_p256", |token| {
        let created = token.create("identity", Algorithm::P256);
        assert_eq!(created.uri.token.as_deref(), Some(TOKEN));
        assert_eq!(created.uri.object.as_deref(), Some("identity"));
        assert_eq!(created.uri.object_type, Some(ObjectType::Private));
        assert_eq!(created.uri.id.as_deref(), Some(&created.public_key.key_id()[..]));

        let mut signer = token.open(&created.uri).unwrap();
        assert_eq!(signer.public_key(), &created.public_key);
        assert_eq!(signer.algorithm(), Algorithm::P256);
        assert_eq!(signer.location(), created.uri.to_string());
        let PublicKey::P256(point) = created.public_key else {
            panic!("{created:?}")
        };
        let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        // Longer than any digest, so that the hash made on the host is what gets signed.
        for message in [&b""[..], b"reading", &[0x5a; 70_000]] {
            let signature = signer.sign(message).unwrap();
            verifier.verify(message, &signature).unwrap();
            assert!(verifier.verify(b"another", &signature).is_err());
        }
        assert_eq!(signer.recoveries(), fieldgate_hsm::Recoveries::default());
    });
}

#[test]
fn makes_opens_and_signs_with_ed25519() {
    scenario("create::makes_opens_and_signs_with_ed25519", |token| {
        let created = token.create("identity", Algorithm::Ed25519);
        let mut signer = token.open(&key_uri("identity")).unwrap();
        assert_eq!(signer.public_key(), &created.public_key);
        let signature = signer.sign(b"reading").unwrap();
        let PublicKey::Ed25519(key) = created.public_key else {
            panic!("{created:?}")
        };
        let verifier = UnparsedPublicKey::new(&ED25519, key);
        verifier
            .verify(digest(&SHA256, b"reading").as_ref(), &signature)
            .unwrap();
        assert!(
            verifier.verify(b"reading", &signature).is_err(),
            "the digest is signed, not the message"
        );
    });
}

/// What another program sees of the key.
#[test]
fn the_key_is_sensitive_and_signs_only() {
    scenario("create::the_key_is_sensitive_and_signs_only", |token| {
        let created = token.create("identity", Algorithm::P256);
        let signer = token.open(&created.uri).unwrap();
        let expected = KeyOrigin {
            local: Some(true),
            never_extractable: Some(true),
            always_sensitive: Some(true),
        };
        assert_eq!((created.origin, signer.origin()), (expected, expected));

        let listing = token.pkcs11_tool(&["--list-objects", "--type", "privkey"]);
        let line = |name: &str| {
            let line = listing.lines().find_map(|line| line.trim().strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {listing}"))
                .trim()
                .to_owned()
        };
        assert_eq!(line("Usage:"), "sign");
        assert_eq!(
            line("Access:"),
            "sensitive, always sensitive, never extractable, local"
        );
        assert_eq!(line("label:"), "identity");
        let id: String = created
            .public_key
            .key_id()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(line("ID:"), id);
        let public = token.pkcs11_tool(&["--list-objects", "--type", "pubkey"]);
        assert!(public.contains(&id), "{public}");
    });
}

#[test]
fn never_makes_a_second_key_of_the_same_label() {
    scenario("create::never_makes_a_second_key_of_the_same_label", |token| {
        let first = token.create("identity", Algorithm::P256);
        let again = create_pkcs11(
            &module(),
            &token_uri(),
            &token.pin(),
            "identity",
            Algorithm::Ed25519,
        );
        assert!(
            matches!(again, Err(Error::LabelTaken { ref label, .. }) if label == "identity"),
            "{again:?}"
        );
        assert_eq!(
            token.open(&key_uri("identity")).unwrap().public_key(),
            &first.public_key
        );
        for label in [String::new(), "x".repeat(65)] {
            let refused = create_pkcs11(&module(), &token_uri(), &token.pin(), &label, Algorithm::P256);
            assert_eq!(
                refused,
                Err(Error::Label {
                    have: label.len(),
                    max: 64
                })
            );
        }
    });
}

#[test]
fn a_write_protected_token_takes_no_key() {
    scenario("create::a_write_protected_token_takes_no_key", |token| {
        token.set_token_flags(0x0000_0002);
        let refused = create_pkcs11(&module(), &token_uri(), &token.pin(), "identity", Algorithm::P256);
        assert!(
            matches!(refused, Err(Error::WriteProtected { .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn a_token_without_the_mechanism_takes_no_key() {
    let preparation = Preparation {
        mechanisms: "CKM_ECDSA,CKM_SHA256",
        ..Preparation::default()
    };
    prepared_scenario(
        "create::a_token_without_the_mechanism_takes_no_key",
        preparation,
        |token| {
            let refused = create_pkcs11(&module(), &token_uri(), &token.pin(), "identity", Algorithm::P256);
            let Err(Error::Mechanism {
                mechanism, offered, ..
            }) = refused
            else {
                panic!("{refused:?}")
            };
            assert_eq!(mechanism, "CKM_EC_KEY_PAIR_GEN");
            assert!(offered.contains(&"CKM_ECDSA".to_owned()), "{offered:?}");
        },
    );
}

#[test]
fn settings_make_and_open_a_key() {
    scenario("create::settings_make_and_open_a_key", |token| {
        let settings = Settings::pkcs11(token_uri(), Some(module()), Some(token.pin())).unwrap();
        let created = settings.create(Algorithm::P256).unwrap();
        let mut signer = settings.open().unwrap();
        assert_eq!(
            (signer.public_key(), signer.location()),
            (created.public_key(), created.location())
        );
        assert!(
            signer.location().contains("object=fieldgate-identity;"),
            "{}",
            signer.location()
        );
        let signature = signer.sign(b"message").unwrap();
        assert!(created.public_key().verify(b"message", &signature));
    });
}
