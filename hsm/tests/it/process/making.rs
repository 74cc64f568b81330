//! Keys that are made in the worker process.

use std::fs;

use fieldgate_hsm::process::{ProcessSettings, ProcessSigner, SandboxReport};
use fieldgate_hsm::{Algorithm, Error, Signer, SoftwareSigner};
use rustix::process::{Signal, kill_process};

use super::{pid_of, process_settings};
use crate::softhsm::{module, scenario};

/// Keys are made, succeeded and removed without the module in the process of who asks.
#[test]
fn keys_are_made_and_removed_in_a_process_of_their_own() {
    scenario(
        "process::making::keys_are_made_and_removed_in_a_process_of_their_own",
        |token| {
            let settings = || process_settings(token, module(), token.pin());
            let mut first = settings().create(Algorithm::P256).unwrap();
            let first_key = *first.public_key();
            assert!(first.process().unwrap().sandbox == SandboxReport::Full);
            let again = settings().create(Algorithm::P256).map(drop).unwrap_err();
            assert!(matches!(again, Error::LabelTaken { .. }), "{again:?}");

            let mut second = settings().create_next(&first_key, Algorithm::Ed25519).unwrap();
            let second_key = *second.public_key();
            assert_ne!(first_key.as_bytes(), second_key.as_bytes());
            for signer in [&mut first, &mut second] {
                let signature = signer.sign(b"message").unwrap();
                assert!(signer.public_key().verify(b"message", &signature));
            }
            // A worker that takes the place of one that made a key opens that key, and makes none.
            kill_process(pid_of(&second.process().unwrap()), Signal::KILL).unwrap();
            let signature = second.sign(b"message").unwrap();
            assert!(second_key.verify(b"message", &signature));
            let keys = || {
                let wanted = ProcessSettings {
                    wanted: Some(second_key),
                    ..settings()
                };
                ProcessSigner::start(wanted).unwrap().keys().unwrap().len()
            };
            assert_eq!(keys(), 2);

            settings().destroy(&first_key).unwrap();
            assert_eq!(keys(), 1);
            // The only key there is, of another kind even, is not taken for the one that is meant.
            let gone = settings().destroy(&first_key).unwrap_err();
            assert!(matches!(gone, Error::KeyNotWanted { .. }), "{gone:?}");
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            assert!(!maps.contains("softhsm"), "{maps}");
        },
    );
}

/// A key of which nothing is known but that it is the only one: it may be opened if it signs as it should, and is not removed for
/// another.
#[test]
fn the_only_key_is_not_removed_for_another() {
    scenario(
        "process::making::the_only_key_is_not_removed_for_another",
        |token| {
            let created = token.create("identity", Algorithm::P256);
            token.pkcs11_tool(&["--delete-object", "--type", "pubkey", "--label", "identity"]);
            let settings = || process_settings(token, module(), token.pin());
            let other = *SoftwareSigner::generate(Algorithm::P256).unwrap().public_key();
            let refused = settings().destroy(&other).unwrap_err();
            assert!(matches!(refused, Error::KeyNotWanted { .. }), "{refused:?}");
            let wanted = ProcessSettings {
                wanted: Some(created.public_key),
                ..settings()
            };
            ProcessSigner::start(wanted).unwrap().sign(b"message").unwrap();
            settings().destroy(&created.public_key).unwrap();
            let gone = settings().destroy(&created.public_key).unwrap_err();
            assert!(matches!(gone, Error::KeyNotWanted { .. }), "{gone:?}");
        },
    );
}
