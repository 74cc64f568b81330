//! Finding the key, and refusing those that are no identity keys.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use fieldgate_hsm::{Algorithm, Error, KeyProblem, Pkcs11Uri, Signer};

use crate::softhsm::{Preparation, key_uri, prepared_scenario, scenario, second_user, token_uri};

#[test]
fn an_absent_or_ambiguous_key_is_told_with_candidates() {
    scenario(
        "keys::an_absent_or_ambiguous_key_is_told_with_candidates",
        |token| {
            let one = token.create("one", Algorithm::P256);
            assert_eq!(
                token.open(&token_uri()).unwrap().public_key(),
                &one.public_key,
                "the only key needs no name"
            );
            let two = token.create("two", Algorithm::P256);
            let mut both = [one.uri.to_string(), two.uri.to_string()];
            both.sort();

            let error = token.open(&token_uri()).unwrap_err();
            let Error::KeyAmbiguous { mut offered, .. } = error else {
                panic!("{error:?}")
            };
            offered.sort();
            assert_eq!(offered, both);
            let error = token.open(&key_uri("three")).unwrap_err();
            let Error::KeyNotFound { mut offered, .. } = error else {
                panic!("{error:?}")
            };
            offered.sort();
            assert_eq!(offered, both);

            assert_eq!(token.open(&key_uri("two")).unwrap().public_key(), &two.public_key);
            let by_id = Pkcs11Uri {
                id: Some(one.public_key.key_id().to_vec()),
                ..token_uri()
            };
            assert_eq!(token.open(&by_id).unwrap().public_key(), &one.public_key);
        },
    );
}

/// Two keys of one label: the second was made by another program.
#[test]
fn equal_labels_are_ambiguous() {
    scenario("keys::equal_labels_are_ambiguous", |token| {
        let ours = token.create("identity", Algorithm::P256);
        token.pkcs11_tool(&[
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            "identity",
            "--id",
            "0102",
        ]);
        assert!(matches!(
            token.open(&key_uri("identity")),
            Err(Error::KeyAmbiguous { .. })
        ));
        assert_eq!(token.open(&ours.uri).unwrap().public_key(), &ours.public_key);
        let theirs = Pkcs11Uri {
            id: Some(vec![1, 2]),
            ..key_uri("identity")
        };
        let signer = token.open(&theirs).unwrap();
        assert_ne!(signer.public_key(), &ours.public_key);
    });
}

#[test]
fn keys_that_could_have_leaked_are_refused() {
    scenario("keys::keys_that_could_have_leaked_are_refused", |token| {
        token.pkcs11_tool(&[
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            "extractable",
            "--extractable",
        ]);
        let p256 = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07].to_vec();
        let p384 = vec![0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
        let (_context, session) = second_user();
        let make = |label: &str, curve: &[u8], sensitive: bool, sign: bool| {
            let public = [
                Attribute::Token(true),
                Attribute::EcParams(curve.to_vec()),
                Attribute::Label(label.into()),
            ];
            let private = [
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(sensitive),
                Attribute::Extractable(false),
                Attribute::Sign(sign),
                Attribute::Label(label.into()),
            ];
            session
                .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
                .unwrap();
        };
        make("readable", &p256, false, true);
        make("silent", &p256, true, false);
        make("wide", &p384, true, true);
        let public = [
            Attribute::Token(true),
            Attribute::ModulusBits(2048.into()),
            Attribute::PublicExponent(vec![1, 0, 1]),
            Attribute::Label("rsa".into()),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Label("rsa".into()),
        ];
        session
            .generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private)
            .unwrap();

        let expected = [
            ("extractable", KeyProblem::Extractable),
            ("readable", KeyProblem::NotSensitive),
            ("silent", KeyProblem::CannotSign),
            ("wide", KeyProblem::Curve("06052b81040022".into())),
            ("rsa", KeyProblem::Type("CKK_RSA".into())),
        ];
        for (label, expected) in expected {
            let error = token.open(&key_uri(label)).unwrap_err();
            let Error::KeyUnsuitable { problem, .. } = error else {
                panic!("{label}: {error:?}")
            };
            assert_eq!(problem, expected, "{label}");
        }
    });
}

#[test]
fn a_key_without_its_public_half_is_refused() {
    scenario("keys::a_key_without_its_public_half_is_refused", |token| {
        token.create("identity", Algorithm::P256);
        token.pkcs11_tool(&["--delete-object", "--type", "pubkey", "--label", "identity"]);
        let error = token.open(&key_uri("identity")).unwrap_err();
        assert!(matches!(error, Error::PublicKeyMissing { .. }), "{error:?}");
    });
}

/// A foreign public key under the same identifier: only the right one verifies, and a wrong one alone is refused.
#[test]
fn the_public_key_that_verifies_is_taken() {
    scenario("keys::the_public_key_that_verifies_is_taken", |token| {
        let ours = token.create("identity", Algorithm::P256);
        let other = token.create("other", Algorithm::P256);
        let (_context, session) = second_user();
        let public_key_of = |label: &str| {
            let template = [
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::Label(label.into()),
            ];
            session.find_objects(&template).unwrap()[0]
        };
        let foreign = public_key_of("other");
        let id = ours.public_key.key_id().to_vec();
        session
            .update_attributes(foreign, &[Attribute::Id(id.clone())])
            .unwrap();
        assert_eq!(
            token.open(&key_uri("identity")).unwrap().public_key(),
            &ours.public_key
        );

        let id_read = session.get_attributes(foreign, &[AttributeType::Id]).unwrap();
        assert_eq!(id_read, [Attribute::Id(id)]);
        session.destroy_object(public_key_of("identity")).unwrap();
        let error = token.open(&key_uri("identity")).unwrap_err();
        assert!(matches!(error, Error::SignatureInvalid { .. }), "{error:?}");
        assert_ne!(ours.public_key, other.public_key);
    });
}

#[test]
fn a_token_that_cannot_sign_is_refused() {
    let preparation = Preparation {
        mechanisms: "CKM_EC_KEY_PAIR_GEN,CKM_EDDSA",
        ..Preparation::default()
    };
    prepared_scenario(
        "keys::a_token_that_cannot_sign_is_refused",
        preparation,
        |token| {
            token.pkcs11_tool(&[
                "--keypairgen",
                "--key-type",
                "EC:prime256v1",
                "--label",
                "identity",
            ]);
            let error = token.open(&key_uri("identity")).unwrap_err();
            let Error::Mechanism {
                mechanism, offered, ..
            } = error
            else {
                panic!("{error:?}")
            };
            assert_eq!(mechanism, "CKM_ECDSA");
            assert!(!offered.is_empty() && !offered.contains(&"CKM_ECDSA".to_owned()));
        },
    );
}
