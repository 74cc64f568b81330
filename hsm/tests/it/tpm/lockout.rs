//! Power cuts, and what keeps them from locking the identity key up.

use std::path::PathBuf;

use fieldgate_hsm::tpm::{
    INTERVAL_SECS, RECOVERY_SECS, TRIES_MAX, TpmDictionaryAttack, TpmError, end_lockout, read, set_limits,
    shutdown_orderly,
};
use fieldgate_hsm::{ErrorKind, Secret};

use super::{Tpm, socket};
use crate::suite::{Bench, bench};

fn state(bench: &Bench<Tpm>) -> TpmDictionaryAttack {
    read(&socket(&bench.directory)).unwrap()
}

/// The power goes in the middle of the work, and comes back with everything else.
fn cut_and_restart(bench: &mut Bench<Tpm>) {
    bench.token.cut_power();
    bench.token.power_on();
}

#[test]
fn power_cuts_lock_a_tpm_with_its_own_limits() {
    bench::<Tpm>(
        "tpm::lockout::power_cuts_lock_a_tpm_with_its_own_limits",
        |bench| {
            let created = bench.create("identity");
            let fresh = state(bench);
            assert_eq!((fresh.counter, fresh.in_lockout), (0, false));
            let mut signer = bench.open(&created.uri).unwrap();
            for cut in 1..=fresh.tries_max {
                signer.sign(b"message").unwrap();
                cut_and_restart(bench);
                assert_eq!(state(bench).counter, cut);
            }
            assert!(state(bench).in_lockout);
            let error = signer.sign(b"message").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Pin, "{error:?}");
            assert_eq!(state(bench).counter, fresh.tries_max, "trying made nothing worse");

            let ended = end_lockout(&socket(&bench.directory), None).unwrap();
            assert_eq!((ended.counter, ended.in_lockout), (0, false));
            let mut signer = bench.open(&created.uri).unwrap();
            signer.sign(b"message").unwrap();
        },
    );
}

#[test]
fn the_key_outlives_ten_power_cuts_with_our_limits() {
    bench::<Tpm>(
        "tpm::lockout::the_key_outlives_ten_power_cuts_with_our_limits",
        |bench| {
            let limits = set_limits(&socket(&bench.directory), None).unwrap();
            let expected = TpmDictionaryAttack {
                in_lockout: false,
                counter: 0,
                tries_max: TRIES_MAX,
                interval_secs: INTERVAL_SECS,
                recovery_secs: RECOVERY_SECS,
                needs_authorization: false,
            };
            assert_eq!(limits, expected);
            let created = bench.create("identity");
            let mut signer = bench.open(&created.uri).unwrap();
            for cut in 1..=10 {
                signer.sign(b"message").unwrap();
                cut_and_restart(bench);
                assert_eq!(
                    state(bench),
                    TpmDictionaryAttack {
                        counter: cut,
                        ..expected
                    }
                );
            }
            let signature = signer.sign(b"message").unwrap();
            assert!(signer.public_key().verify(b"message", &signature));
        },
    );
}

#[test]
fn an_orderly_shutdown_keeps_the_counter_at_zero() {
    bench::<Tpm>(
        "tpm::lockout::an_orderly_shutdown_keeps_the_counter_at_zero",
        |bench| {
            let created = bench.create("identity");
            let mut signer = bench.open(&created.uri).unwrap();
            for _ in 0..4 {
                // The TPM works on after it was told; telling it again covers what came in between.
                shutdown_orderly(&socket(&bench.directory)).unwrap();
                signer.sign(b"message").unwrap();
                shutdown_orderly(&socket(&bench.directory)).unwrap();
                cut_and_restart(bench);
                assert_eq!(state(bench).counter, 0);
            }
            // What is used after the last word counts.
            shutdown_orderly(&socket(&bench.directory)).unwrap();
            signer.sign(b"message").unwrap();
            cut_and_restart(bench);
            assert_eq!(state(bench).counter, 1);
        },
    );
}

/// The lockout authorisation: not tried empty where one is set, tried once where it is wrong.
#[test]
fn the_lockout_authorisation_is_tried_at_most_once() {
    bench::<Tpm>(
        "tpm::lockout::the_lockout_authorisation_is_tried_at_most_once",
        |bench| {
            let path = socket(&bench.directory);
            set_limits(&path, None).unwrap();
            set_lockout_authorization(&path, b"recovery words");
            assert!(state(bench).needs_authorization);
            let missing = set_limits(&path, None).unwrap_err();
            assert!(
                matches!(missing, TpmError::AuthorizationMissing { .. }),
                "{missing:?}"
            );
            let right = Secret::new(b"recovery words".to_vec());
            // Nothing was burnt by the missing one.
            set_limits(&path, Some(&right)).unwrap();
            let wrong = Secret::new(b"guess".to_vec());
            for given in [&wrong, &right] {
                // After a wrong one even the right one is refused for a day.
                let refused = end_lockout(&path, Some(given)).unwrap_err();
                assert!(
                    matches!(refused, TpmError::AuthorizationRefused { .. }),
                    "{refused:?}"
                );
            }
            assert!(!state(bench).in_lockout, "keys are not concerned");
        },
    );
}

/// Says `TPM2_HierarchyChangeAuth(TPM_RH_LOCKOUT)` (TPM 2.0 Library Part 3 §24.8), which fieldgate itself never does.
fn set_lockout_authorization(path: &std::path::Path, authorization: &[u8]) {
    use std::io::{Read, Write};
    let length = u8::try_from(authorization.len()).unwrap();
    let mut command = vec![0x80, 0x02, 0, 0, 0, 29 + length, 0, 0, 0x01, 0x29];
    command.extend([0x40, 0, 0, 0x0a]);
    command.extend([0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0]);
    command.extend([0, length]);
    command.extend(authorization);
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    stream.write_all(&command).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[6..10], [0; 4], "{answer:02x?}");
}

#[test]
fn what_is_no_tpm_is_told() {
    bench::<Tpm>("tpm::lockout::what_is_no_tpm_is_told", |bench| {
        let absent = bench.directory.join("absent");
        assert!(matches!(read(&absent), Err(TpmError::Open { .. })));
        assert!(matches!(read(&bench.directory), Err(TpmError::NoTpm { .. })));
        assert!(matches!(
            read(&bench.directory.join("swtpm.pid")),
            Err(TpmError::NoTpm { .. })
        ));
        // A device that answers nothing.
        let error = read(&PathBuf::from("/dev/null")).unwrap_err();
        assert!(matches!(error, TpmError::Answer { .. }), "{error:?}");
    });
}
