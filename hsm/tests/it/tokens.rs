//! Finding the token.

use std::fs;
use std::path::PathBuf;

use fieldgate_hsm::{Algorithm, Error, Pkcs11Signer, Pkcs11Uri, Signer, create_pkcs11, probe};

use crate::softhsm::{TOKEN, key_uri, module, scenario, token_uri};

#[test]
fn an_absent_token_is_told_with_those_that_are_there() {
    scenario(
        "tokens::an_absent_token_is_told_with_those_that_are_there",
        |token| {
            token.add_token("another");
            let absent = Pkcs11Uri {
                token: Some("absent".into()),
                ..Pkcs11Uri::default()
            };
            let error = token.open(&absent).unwrap_err();
            let Error::TokenNotFound { uri, offered } = &error else {
                panic!("{error:?}")
            };
            assert_eq!(uri, "pkcs11:token=absent");
            assert_eq!(offered.len(), 2, "{offered:?}");
            for uri in offered {
                // What is offered can be used as it is.
                let uri: Pkcs11Uri = uri.parse().unwrap();
                assert!(uri.serial.is_some());
                let error = token.open(&uri).unwrap_err();
                assert!(
                    matches!(&error, Error::KeyNotFound { offered, .. } if offered.is_empty()),
                    "{error:?}"
                );
            }
            assert!(error.to_string().contains("token=another;"), "{error}");
        },
    );
}

#[test]
fn an_ambiguous_uri_is_refused_and_a_serial_number_helps() {
    scenario(
        "tokens::an_ambiguous_uri_is_refused_and_a_serial_number_helps",
        |token| {
            token.add_token(TOKEN);
            let error = create_pkcs11(&module(), &token_uri(), &token.pin(), "identity", Algorithm::P256)
                .unwrap_err();
            let Error::TokenAmbiguous { offered, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!(offered.len(), 2);
            let exact: Pkcs11Uri = offered[1].parse().unwrap();
            let key = create_pkcs11(&module(), &exact, &token.pin(), "identity", Algorithm::P256).unwrap();
            assert!(matches!(
                token.open(&key_uri("identity")),
                Err(Error::TokenAmbiguous { .. })
            ));
            let by_serial = Pkcs11Uri {
                serial: exact.serial,
                ..key_uri("identity")
            };
            assert_eq!(token.open(&by_serial).unwrap().public_key(), &key.public_key);
        },
    );
}

#[test]
fn every_attribute_of_the_uri_counts() {
    scenario("tokens::every_attribute_of_the_uri_counts", |token| {
        token.create("identity", Algorithm::P256);
        let found = probe(&module()).unwrap();
        let library = found.library.unwrap();
        let slot = found
            .slots
            .iter()
            .find(|slot| slot.token.as_ref().is_some_and(|token| token.is_initialized))
            .unwrap();
        let full = Pkcs11Uri {
            slot_id: Some(slot.slot_id),
            slot_description: Some(slot.description.clone()),
            slot_manufacturer: Some(slot.manufacturer.clone()),
            library_manufacturer: Some(library.manufacturer.clone()),
            library_description: Some(library.description.clone()),
            library_version: Some(library.version),
            ..slot.token.as_ref().unwrap().uri.clone()
        };
        token.open(&full).unwrap();
        let wrong = || Some("wrong".to_owned());
        let variants = [
            Pkcs11Uri {
                token: wrong(),
                ..full.clone()
            },
            Pkcs11Uri {
                manufacturer: wrong(),
                ..full.clone()
            },
            Pkcs11Uri {
                serial: wrong(),
                ..full.clone()
            },
            Pkcs11Uri {
                model: wrong(),
                ..full.clone()
            },
            Pkcs11Uri {
                slot_id: Some(slot.slot_id + 1),
                ..full.clone()
            },
            Pkcs11Uri {
                slot_description: wrong(),
                ..full.clone()
            },
            Pkcs11Uri {
                slot_manufacturer: wrong(),
                ..full.clone()
            },
            Pkcs11Uri {
                library_manufacturer: wrong(),
                ..full.clone()
            },
            Pkcs11Uri {
                library_description: wrong(),
                ..full.clone()
            },
            Pkcs11Uri {
                library_version: Some((255, 0)),
                ..full.clone()
            },
        ];
        for uri in variants {
            let error = token.open(&uri).unwrap_err();
            assert!(matches!(error, Error::TokenNotFound { .. }), "{uri}: {error:?}");
        }
        let unsuitable = "pkcs11:x-vendor=a".parse().unwrap();
        assert!(matches!(
            token.open(&unsuitable),
            Err(Error::UriUnsuitable { .. })
        ));
    });
}

#[test]
fn a_module_that_is_none_is_refused() {
    scenario("tokens::a_module_that_is_none_is_refused", |token| {
        let absent = PathBuf::from("/nonexistent/module.so");
        let error = Pkcs11Signer::open(&absent, &token_uri(), &token.pin()).unwrap_err();
        assert!(matches!(error, Error::ModuleLoad { .. }), "{error:?}");
        assert!(error.hint().contains("apt-get install softhsm2"));

        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let library = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .find(|path| path.contains("libc.so"));
        let error = Pkcs11Signer::open(library.unwrap().as_ref(), &token_uri(), &token.pin()).unwrap_err();
        let Error::ModuleLoad { cause, .. } = error else {
            panic!("{error:?}")
        };
        assert!(cause.code.contains("no PKCS#11 module"), "{cause}");
    });
}

#[test]
fn a_probe_shows_what_is_there_without_a_pin() {
    scenario("tokens::a_probe_shows_what_is_there_without_a_pin", |_| {
        let found = probe(&module()).unwrap();
        let library = found.library.unwrap();
        assert!(library.manufacturer.starts_with("SoftHSM"), "{library:?}");
        // SoftHSM keeps one free slot.
        assert_eq!(found.slots.len(), 2);
        let tokens: Vec<_> = found
            .slots
            .iter()
            .filter_map(|slot| slot.token.as_ref())
            .collect();
        let token = tokens.iter().find(|token| token.is_initialized).unwrap();
        assert_eq!(token.uri.token.as_deref(), Some(TOKEN));
        assert!(token.needs_login && token.has_user_pin && !token.has_pin_pad && !token.is_write_protected);
        assert_eq!(token.pin_state, None);
        for mechanism in ["CKM_ECDSA", "CKM_EDDSA", "CKM_EC_KEY_PAIR_GEN"] {
            assert!(
                token.mechanisms.iter().any(|name| name == mechanism),
                "{mechanism}: {:?}",
                token.mechanisms
            );
        }
    });
}
