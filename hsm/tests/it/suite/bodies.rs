//! What every token must do.

use std::collections::BTreeSet;
use std::thread;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use fieldgate_hsm::process::SandboxReport;
use fieldgate_hsm::{
    Algorithm, Error, ErrorKind, KeyOrigin, ObjectType, Pkcs11Uri, PublicKey, Recoveries, Signer,
    WRAPPED_SECRET_BYTES, WRAPPING_LABEL, create_pkcs11,
};

use super::{Bench, TokenUnderTest};
use crate::faulty;
use crate::softhsm::{TOKEN, key_uri, token_uri};

/// What another program sees of a key.
pub(crate) fn makes_a_key_that_only_signs<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let created = bench.create("identity");
    assert_eq!(created.uri.token.as_deref(), Some(TOKEN));
    assert_eq!(created.uri.object.as_deref(), Some("identity"));
    assert_eq!(created.uri.object_type, Some(ObjectType::Private));
    let expected = KeyOrigin {
        local: Some(true),
        never_extractable: Some(true),
        always_sensitive: Some(true),
    };
    assert_eq!(created.origin, expected);

    let listing = bench.pkcs11_tool(&["--list-objects", "--type", "privkey"]);
    let line = |name: &str| {
        let line = listing.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {listing}"))
            .trim()
            .to_owned()
    };
    assert_eq!(line("label:"), "identity");
    assert_eq!(line("Usage:"), T::USAGE);
    assert_eq!(
        line("Access:"),
        "sensitive, always sensitive, never extractable, local"
    );

    let again = bench.create_through(&T::module(), "identity");
    assert!(
        matches!(again, Err(Error::LabelTaken { ref label, .. }) if label == "identity"),
        "{again:?}"
    );
}

pub(crate) fn opens_by_uri_and_signs<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let created = bench.create("identity");
    let PublicKey::P256(point) = created.public_key else {
        panic!("{created:?}")
    };
    let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    let by_id = Pkcs11Uri {
        id: created.uri.id.clone(),
        ..token_uri()
    };
    // The URI that was given out, the shortest one, by label, by identifier.
    for uri in [&created.uri, &token_uri(), &key_uri("identity"), &by_id] {
        let mut signer = bench.open(uri).unwrap();
        assert_eq!(signer.public_key(), &created.public_key, "{uri}");
        assert_eq!(signer.location(), created.uri.to_string());
        for message in [&b""[..], &[0x5a; 70_000]] {
            let signature = signer.sign(message).unwrap();
            verifier.verify(message, &signature).unwrap();
            assert!(verifier.verify(b"another", &signature).is_err());
        }
        assert_eq!(signer.recoveries(), Recoveries::default());
    }
}

pub(crate) fn ed25519_is_made_or_refused<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let made = create_pkcs11(
        &T::module(),
        &token_uri(),
        &bench.pin(),
        "identity",
        Algorithm::Ed25519,
    );
    if T::HAS_ED25519 {
        let mut signer = bench.open(&made.unwrap().uri).unwrap();
        assert_eq!(signer.algorithm(), Algorithm::Ed25519);
        let signature = signer.sign(b"reading").unwrap();
        assert!(signer.public_key().verify(b"reading", &signature));
    } else {
        let Err(Error::Mechanism {
            mechanism, offered, ..
        }) = made
        else {
            panic!("{made:?}")
        };
        assert_eq!(mechanism, "CKM_EC_EDWARDS_KEY_PAIR_GEN");
        assert!(offered.contains(&"CKM_ECDSA".to_owned()), "{offered:?}");
    }
}

pub(crate) fn several_keys_are_refused_with_the_candidates<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let mut both = [bench.create("one"), bench.create("two")].map(|key| key.uri.to_string());
    both.sort();
    let error = bench.open(&token_uri()).map(|_| ()).unwrap_err();
    let Error::KeyAmbiguous { mut offered, .. } = error else {
        panic!("{error:?}")
    };
    offered.sort();
    assert_eq!(offered, both);
    let error = bench.open(&key_uri("three")).map(|_| ()).unwrap_err();
    let Error::KeyNotFound { mut offered, .. } = error else {
        panic!("{error:?}")
    };
    offered.sort();
    assert_eq!(offered, both);
    for uri in &both {
        // What is offered can be used as it is.
        assert_eq!(&bench.open(&uri.parse().unwrap()).unwrap().location(), uri);
    }
}

pub(crate) fn several_tokens_are_refused_with_the_candidates<T: TokenUnderTest>(bench: &mut Bench<T>) {
    for label in ["second", "third"] {
        T::add_token(bench, label);
    }
    // All are of one maker. Their serial numbers may be equal: a TPM has one for all its tokens.
    let probed = fieldgate_hsm::probe(&T::module()).unwrap();
    let manufacturer = probed
        .slots
        .into_iter()
        .find_map(|slot| slot.token?.uri.manufacturer);
    let any = Pkcs11Uri {
        manufacturer,
        ..Pkcs11Uri::default()
    };
    let create = |uri| create_pkcs11(&T::module(), uri, &bench.pin(), "identity", Algorithm::P256);
    let error = create(&any).unwrap_err();
    let Error::TokenAmbiguous { offered, .. } = error else {
        panic!("{error:?}")
    };
    let labels: BTreeSet<Option<String>> = offered
        .iter()
        .map(|uri| uri.parse::<Pkcs11Uri>().unwrap().token)
        .collect();
    let expected = [TOKEN, "second", "third"].map(|label| Some(label.to_owned()));
    assert_eq!(labels, BTreeSet::from(expected));
    let absent = Pkcs11Uri {
        token: Some("absent".to_owned()),
        ..Pkcs11Uri::default()
    };
    let error = bench.open(&absent).map(|_| ()).unwrap_err();
    let Error::TokenNotFound { offered, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(offered.len(), 3, "{offered:?}");
    let second = Pkcs11Uri {
        token: Some("second".to_owned()),
        ..Pkcs11Uri::default()
    };
    let created = create(&second).unwrap();
    assert_eq!(bench.open(&second).unwrap().public_key(), &created.public_key);
}

pub(crate) fn a_missing_mechanism_is_refused<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let created = bench.create("identity");
    let missing = |outcome: Result<(), Error>| {
        let Err(Error::Mechanism {
            mechanism, offered, ..
        }) = outcome
        else {
            panic!("{outcome:?}")
        };
        assert!(!offered.contains(&mechanism.to_owned()), "{offered:?}");
        assert!(!offered.is_empty());
        mechanism
    };
    // CKM_ECDSA.
    bench.control("mechanism remove 0x1041\n");
    let opened = bench.open_through(&bench.faulty(), &created.uri).map(|_| ());
    assert_eq!(missing(opened), "CKM_ECDSA");
    let made = bench.create_through(&bench.faulty(), "other").map(|_| ());
    assert_eq!(missing(made), "CKM_ECDSA");
    // CKM_EC_KEY_PAIR_GEN.
    bench.control("mechanism remove 0x1040\n");
    let made = bench.create_through(&bench.faulty(), "other").map(|_| ());
    assert_eq!(missing(made), "CKM_EC_KEY_PAIR_GEN");
    let mut signer = bench.open_through(&bench.faulty(), &created.uri).unwrap();
    signer.sign(b"a token that makes no keys still signs").unwrap();
}

pub(crate) fn a_write_protected_token_takes_no_key<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let created = bench.create("identity");
    bench.control("flags write-protected\n");
    let made = bench.create_through(&bench.faulty(), "other");
    assert!(matches!(made, Err(Error::WriteProtected { .. })), "{made:?}");
    let listing = bench.pkcs11_tool(&["--list-objects"]);
    assert!(
        listing.contains("identity") && !listing.contains("other"),
        "{listing}"
    );
    // Signing writes nothing.
    bench
        .open_through(&bench.faulty(), &created.uri)
        .unwrap()
        .sign(b"message")
        .unwrap();
}

/// The faulty module counts: pkcs11-spy does not see the calls of a module with PKCS#11 3.2.
pub(crate) fn a_wrong_pin_is_tried_once<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let created = bench.create("identity");
    let wrong = bench.secret("wrong", "999999");
    let logins = faulty::calls(&bench.directory, "C_Login");
    let error = bench
        .open_with(&bench.faulty(), &created.uri, wrong)
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, Error::PinRefused { .. }), "{error:?}");
    assert!(error.to_string().contains("/wrong"), "{error}");
    assert!(!format!("{error} {error:?}").contains("999999"));
    assert_eq!(faulty::calls(&bench.directory, "C_Login"), logins + 1);
    // A person logs in, as the hint says; then the right PIN works.
    bench.pkcs11_tool(&["--list-objects"]);
    bench.open(&created.uri).unwrap().sign(b"message").unwrap();
}

/// What counts is that no try is spent on a PIN that cannot work, and that the reason is told.
pub(crate) fn a_locked_pin_is_not_tried_again<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let created = bench.create("identity");
    let module = T::lock_pin(bench);
    for _ in 0..2 {
        let error = bench.open_through(&module, &created.uri).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Pin, "{error:?}");
        let made = bench.create_through(&module, "other").unwrap_err();
        assert_eq!(made.kind(), ErrorKind::Pin, "{made:?}");
    }
}

pub(crate) fn a_reset_is_recovered_from<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let created = bench.create("identity");
    let mut signer = bench.open(&created.uri).unwrap();
    for round in 1..=3 {
        signer.sign(b"before").unwrap();
        T::reset(bench);
        let signature = signer.sign(b"after").unwrap();
        assert!(signer.public_key().verify(b"after", &signature));
        assert_eq!(helped(&signer.recoveries()), round, "{:?}", signer.recoveries());
        assert_eq!(signer.recoveries().failed, 0);
    }
    // Who opens the key anew in this process finds the module as it was before the reset; both signers work then.
    T::reset(bench);
    let mut another = bench.open(&created.uri).unwrap();
    for signer in [&mut another, &mut signer] {
        let signature = signer.sign(b"opened after").unwrap();
        assert!(signer.public_key().verify(b"opened after", &signature));
    }
}

/// How often any rung of the ladder helped.
const fn helped(recoveries: &Recoveries) -> u64 {
    recoveries.key + recoveries.session + recoveries.login + recoveries.module
}

pub(crate) fn an_unplugged_token_comes_back<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let created = bench.create("identity");
    let mut signer = bench.open_through(&bench.removable(), &created.uri).unwrap();
    for round in 1..=2 {
        signer.sign(b"before").unwrap();
        T::unplug(bench);
        for _ in 0..2 {
            let error = signer.sign(b"without").unwrap_err();
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
            assert!(error.retry_after().is_some());
        }
        T::plug_in(bench);
        let signature = signer.sign(b"after").unwrap();
        assert!(signer.public_key().verify(b"after", &signature));
        assert_eq!(helped(&signer.recoveries()), round);
        assert_eq!(signer.recoveries().failed, 2 * round);
    }
}

pub(crate) fn several_signers_share_the_token<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let keys = ["one", "two"].map(|label| bench.create(label));
    let mut signers: Vec<Box<dyn Signer>> = (0..4)
        .map(|index| bench.open(&keys[index % 2].uri).unwrap())
        .collect();
    thread::scope(|scope| {
        for (index, signer) in signers.iter_mut().enumerate() {
            let expected = keys[index % 2].public_key;
            scope.spawn(move || {
                for number in 0..5_u8 {
                    let signature = signer.sign(&[number]).unwrap();
                    assert!(expected.verify(&[number], &signature));
                }
                assert_eq!(signer.recoveries(), Recoveries::default());
            });
        }
    });
    // The login outlives the signers that end before others.
    let mut last = signers.pop().unwrap();
    drop(signers);
    last.sign(b"still logged in").unwrap();
    assert_eq!(last.recoveries(), Recoveries::default());
}

/// As a node has it: the module in a worker process of its own, confined to what this kind of token needs.
/// What the identity protects beside channels: only this token opens it, and the key for that is taken for no identity.
pub(crate) fn a_confined_worker_process_wraps_a_secret<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let identity = bench.create("identity");
    let unwrap = |uri: &Pkcs11Uri, wrapped: Option<&[u8]>| {
        let unwrapped = bench.process_settings(&T::module(), uri).unwrap_secret(wrapped);
        unwrapped.map(|unwrapped| unwrapped.expect("it is a token"))
    };
    let made = unwrap(&token_uri(), None).unwrap();
    assert_eq!(made.secret.expose().len(), WRAPPED_SECRET_BYTES);
    let shows = made
        .wrapped
        .windows(WRAPPED_SECRET_BYTES)
        .any(|window| window == made.secret.expose());
    assert!(!shows);
    assert_eq!(unwrap(&token_uri(), Some(&made.wrapped)).unwrap(), made);
    // Another secret, with the same key.
    let another = unwrap(&identity.uri, None).unwrap();
    assert_ne!(another.secret, made.secret);
    let listing = bench.pkcs11_tool(&["--list-objects", "--type", "privkey"]);
    assert_eq!(listing.matches(WRAPPING_LABEL).count(), 1, "{listing}");
    assert_eq!(listing.matches("never extractable").count(), 2, "{listing}");
    // The shortest URI names the identity still.
    assert_eq!(
        bench.open(&token_uri()).unwrap().public_key(),
        &identity.public_key
    );

    let mut damaged = made.wrapped.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for wrapped in [damaged.as_slice(), &made.wrapped[..40], b"", b"fgwrap\x01"] {
        let refused = unwrap(&token_uri(), Some(wrapped)).unwrap_err();
        assert!(
            matches!(refused, Error::NotUnwrapped { .. } | Error::Call { .. }),
            "{refused:?}"
        );
    }
    T::add_token(bench, "another");
    let elsewhere = Pkcs11Uri {
        token: Some("another".to_owned()),
        ..Pkcs11Uri::default()
    };
    let refused = unwrap(&elsewhere, Some(&made.wrapped)).unwrap_err();
    assert!(matches!(refused, Error::KeyNotFound { .. }), "{refused:?}");
}

pub(crate) fn a_confined_worker_process_signs<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let created = bench.create("identity");
    let mut signer = bench.open_in_process(&T::module(), &created.uri);
    assert_eq!(signer.sandbox(), &SandboxReport::Full, "{}", signer.sandbox());
    assert_eq!(signer.origin(), Some(created.origin));
    for number in 0..3_u8 {
        let signature = signer.sign(&[number]).unwrap();
        assert!(created.public_key.verify(&[number], &signature));
    }
}

/// What brings a token back works from within the sandbox too, and the process is not even started anew for it.
pub(crate) fn a_confined_worker_process_finds_the_token_again<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let created = bench.create("identity");
    let mut signer = bench.open_in_process(&bench.removable(), &created.uri);
    signer.sign(b"before").unwrap();
    T::unplug(bench);
    let error = signer.sign(b"without").unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    T::plug_in(bench);
    let signature = signer.sign(b"after").unwrap();
    assert!(created.public_key.verify(b"after", &signature));
    let state = signer.process().unwrap();
    assert_eq!(
        (state.restarts_crash, state.restarts_hang, state.restarts_renewal),
        (0, 0, 0)
    );
}
