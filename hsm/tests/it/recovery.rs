//! Tokens that go and come back.

use std::time::Duration;

use fieldgate_hsm::{Algorithm, Error, ErrorKind, Recoveries, Signer};

use crate::softhsm::{key_uri, log_in, scenario, second_user};

#[test]
fn an_unplugged_token_comes_back() {
    scenario("recovery::an_unplugged_token_comes_back", |token| {
        token.create("identity", Algorithm::P256);
        let mut signer = token.open(&key_uri("identity")).unwrap();
        signer.sign(b"before").unwrap();
        token.unplug();
        for seconds in [1, 2, 4] {
            let error = signer.sign(b"without").unwrap_err();
            assert_eq!(
                error.retry_after(),
                Some(Duration::from_secs(seconds)),
                "{error:?}"
            );
            assert_eq!(error.kind(), ErrorKind::Token);
            assert!(error.to_string().contains("object=identity;"), "{error}");
        }
        token.plug_in();
        let signature = signer.sign(b"after").unwrap();
        assert!(signer.public_key().verify(b"after", &signature));
        let recoveries = signer.recoveries();
        assert_eq!(
            recoveries,
            Recoveries {
                module: 1,
                failed: 3,
                ..Recoveries::default()
            }
        );

        // The pause starts over once it has worked.
        token.unplug();
        assert_eq!(
            signer.sign(b"without").unwrap_err().retry_after(),
            Some(Duration::from_secs(1))
        );
        token.plug_in();
        signer.sign(b"again").unwrap();
    });
}

#[test]
fn the_ladder_is_climbed_no_higher_than_needed() {
    scenario("recovery::the_ladder_is_climbed_no_higher_than_needed", |token| {
        token.create("identity", Algorithm::P256);
        let mut signer = token.open(&key_uri("identity")).unwrap();
        let (_context, session) = second_user();

        // A logout and login elsewhere in the process: the login is back, but the handles are void.
        session.logout().unwrap();
        log_in(&session);
        signer.sign(b"key").unwrap();
        assert_eq!(
            signer.recoveries(),
            Recoveries {
                key: 1,
                ..Recoveries::default()
            }
        );

        // A logout alone: new sessions log in.
        session.logout().unwrap();
        signer.sign(b"session").unwrap();
        assert_eq!(
            signer.recoveries(),
            Recoveries {
                key: 1,
                session: 1,
                ..Recoveries::default()
            }
        );
    });
}

/// One module, several signers: the one that initialises it anew must not close the sessions of the other.
#[test]
fn signers_of_one_module_recover_side_by_side() {
    scenario("recovery::signers_of_one_module_recover_side_by_side", |token| {
        token.create("one", Algorithm::P256);
        token.create("two", Algorithm::Ed25519);
        let mut one = token.open(&key_uri("one")).unwrap();
        let mut two = token.open(&key_uri("two")).unwrap();
        for round in 1..=3 {
            token.unplug();
            assert!(one.sign(b"without").is_err());
            assert!(two.sign(b"without").is_err());
            token.plug_in();
            for _ in 0..3 {
                one.sign(b"one").unwrap();
                two.sign(b"two").unwrap();
            }
            assert_eq!((one.recoveries().failed, two.recoveries().failed), (round, round));
        }
    });
}

/// Somebody else in the process has initialised the module: it is adopted, and never finalised under their feet.
#[test]
fn an_adopted_module_is_not_finalised() {
    scenario("recovery::an_adopted_module_is_not_finalised", |token| {
        token.pkcs11_tool(&[
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            "identity",
            "--id",
            "01",
        ]);
        let (_context, session) = second_user();
        let mut signer = token.open(&key_uri("identity")).unwrap();
        signer.sign(b"before").unwrap();
        token.unplug();
        let error = signer.sign(b"without").unwrap_err();
        let Error::Unavailable { cause, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(matches!(**cause, Error::Module { .. }), "{cause:?}");
        // Their session is alive.
        session.get_session_info().unwrap();
    });
}

#[test]
fn a_key_that_was_deleted_stays_away() {
    scenario("recovery::a_key_that_was_deleted_stays_away", |token| {
        let created = token.create("identity", Algorithm::P256);
        let mut signer = token.open(&key_uri("identity")).unwrap();
        token.pkcs11_tool(&["--delete-object", "--type", "privkey", "--label", "identity"]);
        // Another key under the same label is not the identity.
        token.pkcs11_tool(&[
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            "identity",
            "--id",
            "0102",
        ]);
        let error = signer.sign(b"message").unwrap_err();
        let Error::Unavailable { cause, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(matches!(**cause, Error::KeyNotFound { .. }), "{cause:?}");
        assert_eq!(signer.public_key(), &created.public_key);
    });
}
