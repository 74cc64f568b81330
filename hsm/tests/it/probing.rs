//! Trying tokens out: what the report says is what the token does, and nothing is left on it.

use fieldgate_hsm::{Error, PinState, ProbeReport, Serials, TokenTrials, Trial, TrialOutcome, probe_report};

use crate::softhsm::{TOKEN, token_uri};
use crate::suite::soft_token::SoftHsm;
use crate::suite::{Bench, TokenUnderTest, bench};
use crate::tpm::Tpm;
use crate::{faulty, spy};

fn report<T: TokenUnderTest>(bench: &Bench<T>, module: &std::path::Path) -> Result<ProbeReport, Error> {
    let (uri, pin) = (token_uri(), bench.pin());
    probe_report(module, Trial::Yes { uri: &uri, pin: &pin })
}

fn trials<T: TokenUnderTest>(bench: &Bench<T>, module: &std::path::Path) -> TokenTrials {
    report(bench, module).unwrap().trials.unwrap()
}

/// Each row with the beginning of its result.
fn assert_rows(trials: &TokenTrials, expected: [&str; 13]) {
    for (row, expected) in trials.rows.iter().zip(expected) {
        let outcome = row.outcome.to_string();
        assert!(outcome.starts_with(expected), "{}: {outcome}", row.what);
    }
    assert_eq!(trials.rows.len(), expected.len());
    assert_eq!((trials.left_behind, trials.left_earlier), (0, 0));
    let signing = trials.signing.unwrap();
    assert_eq!(signing.count, 20);
    assert!(signing.p99 >= signing.median && !signing.median.is_zero());
}

#[test]
fn softhsm_is_reported_as_it_is() {
    bench::<SoftHsm>("probing::softhsm_is_reported_as_it_is", |bench| {
        let before = bench.pkcs11_tool(&["--list-objects"]);
        let report = report(bench, &spy::module()).unwrap();
        assert_rows(
            report.trials.as_ref().unwrap(),
            [
                "yes: in ",
                "yes: DER OCTET STRING, 67 bytes",
                "yes",
                "yes",
                "no: 64 are taken",
                "no: CKM_ECDSA_SHA256 is not offered",
                "yes: the other point is given raw",
                "yes: CKA_EC_POINT is DER, 34 bytes",
                "no: CKM_EC_MONTGOMERY_KEY_PAIR_GEN is not offered",
                "yes: in ",
                "yes: in ",
                "no: CKM_ML_DSA_KEY_PAIR_GEN is not offered",
                "no: CKM_ML_KEM_KEY_PAIR_GEN is not offered",
            ],
        );
        assert_eq!(spy::calls(&bench.directory, "C_Login"), 1);
        assert_eq!(bench.pkcs11_tool(&["--list-objects"]), before);

        let text = report.to_markdown(Serials::LeftOut);
        let token = report
            .probe
            .slots
            .iter()
            .find_map(|slot| slot.token.as_ref().filter(|token| token.is_initialized));
        let serial = token.unwrap().uri.serial.clone().unwrap();
        assert!(!text.contains(&serial), "{text}");
        assert!(
            text.contains(TOKEN) && text.contains("| CKM_ECDSA over 32 bytes | yes |\n"),
            "{text}"
        );
        assert!(report.to_markdown(Serials::Shown).contains(&serial));
    });
}

#[test]
fn a_tpm_is_reported_as_it_is() {
    bench::<Tpm>("probing::a_tpm_is_reported_as_it_is", |bench| {
        let trials = trials(bench, &Tpm::module());
        assert_rows(
            &trials,
            [
                "yes: in ",
                "yes: DER OCTET STRING, 67 bytes",
                "**no**: C_GenerateKeyPair returned CKR_ATTRIBUTE_VALUE_INVALID",
                "yes",
                "no: 64 are taken",
                "yes",
                "no: CKM_ECDH1_DERIVE is not offered",
                "no: CKM_EC_EDWARDS_KEY_PAIR_GEN is not offered",
                "no: CKM_EC_MONTGOMERY_KEY_PAIR_GEN is not offered",
                "no: CKM_AES_GCM is not offered",
                "yes: in ",
                "no: CKM_ML_DSA_KEY_PAIR_GEN is not offered",
                "no: CKM_ML_KEM_KEY_PAIR_GEN is not offered",
            ],
        );
        assert!(
            !bench
                .pkcs11_tool(&["--list-objects"])
                .contains("fieldgate-probe-")
        );
    });
}

#[test]
fn without_consent_nothing_is_made_and_no_pin_is_given() {
    bench::<SoftHsm>(
        "probing::without_consent_nothing_is_made_and_no_pin_is_given",
        |bench| {
            let report = probe_report(&spy::module(), Trial::No).unwrap();
            assert_eq!(report.trials, None);
            assert_eq!(report.probe, fieldgate_hsm::probe(&spy::module()).unwrap());
            for function in ["C_OpenSession", "C_Login", "C_GenerateKeyPair"] {
                assert_eq!(spy::calls(&bench.directory, function), 0, "{function}");
            }
            assert!(report.to_markdown(Serials::LeftOut).contains("CKM_ECDSA"));
        },
    );
}

/// Each call fails in its turn; the report says so, and the token is as empty as before.
#[test]
fn a_token_that_fails_is_reported_and_left_clean() {
    bench::<faulty::Faulty<false>>(
        "probing::a_token_that_fails_is_reported_and_left_clean",
        |bench| {
            let module = faulty::module();
            let outcome = |trials: &TokenTrials, what: &str| {
                let row = trials.rows.iter().find(|row| row.what == what);
                row.unwrap().outcome.clone()
            };
            for (lines, what, expected) in [
                (
                    "sign fail 0x30",
                    "CKM_ECDSA over 32 bytes",
                    "**no**: C_Sign returned CKR_DEVICE_ERROR",
                ),
                (
                    "sign garbage",
                    "CKM_ECDSA over 32 bytes",
                    "**wrong**: the signature does not verify",
                ),
                (
                    "sign short",
                    "P-256 key as session object",
                    "**wrong**: the signature has 63 bytes",
                ),
                (
                    "generatekeypair fail 0x31",
                    "CKM_ECDSA over 32 bytes",
                    "not tried: needs a P-256 key on the token",
                ),
                (
                    "getattributevalue fail 0x30 times 1",
                    "P-256 key on the token, sensitive, not extractable",
                    "**no**: C_GetAttributeValue returned CKR_DEVICE_ERROR",
                ),
                (
                    "generaterandom fail 0x30",
                    "C_GenerateRandom of 32 bytes",
                    "**no**: C_GenerateRandom returned CKR_DEVICE_ERROR",
                ),
            ] {
                bench.control(&format!("{lines}\n"));
                let trials = trials(bench, &module);
                assert_eq!(outcome(&trials, what).to_string(), expected, "{lines}");
                assert_eq!((trials.left_behind, trials.left_earlier), (0, 0), "{lines}");
                bench.control("");
                assert!(
                    !bench
                        .pkcs11_tool(&["--list-objects"])
                        .contains("fieldgate-probe-"),
                    "{lines}"
                );
            }
        },
    );
}

#[test]
fn objects_that_cannot_be_destroyed_are_told() {
    bench::<faulty::Faulty<false>>("probing::objects_that_cannot_be_destroyed_are_told", |bench| {
        bench.control("destroyobject fail 0x30\n");
        let first = report(bench, &faulty::module()).unwrap();
        let trials = first.trials.as_ref().unwrap();
        // Two halves of a P-256 and of an Ed25519 key.
        assert_eq!((trials.left_behind, trials.left_earlier), (4, 0));
        let label = trials.label.clone();
        assert!(first.to_markdown(Serials::LeftOut).contains(&format!(
            "4 could not be removed: pkcs11-tool --delete-object --label {label}"
        )));
        bench.control("");
        let second = self::trials(bench, &faulty::module());
        assert_eq!((second.left_behind, second.left_earlier), (0, 4));
        assert_ne!(second.label, label);
        // What is not ours to remove is still there.
        assert!(bench.pkcs11_tool(&["--list-objects"]).contains(&label));
    });
}

#[test]
fn a_pin_is_never_tried_twice_and_never_against_a_warning() {
    bench::<faulty::Faulty<false>>(
        "probing::a_pin_is_never_tried_twice_and_never_against_a_warning",
        |bench| {
            let module = faulty::module();
            bench.control("flags final-try\n");
            let error = report(bench, &module).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::PinBlocked {
                        state: PinState::FinalTry,
                        ..
                    }
                ),
                "{error:?}"
            );
            bench.control("flags write-protected\n");
            let error = report(bench, &module).unwrap_err();
            assert!(matches!(error, Error::WriteProtected { .. }), "{error:?}");
            assert_eq!(faulty::calls(&bench.directory, "C_Login"), 0);
            bench.control("");
            let (uri, wrong) = (token_uri(), bench.secret("wrong", "999999"));
            let refused = probe_report(
                &module,
                Trial::Yes {
                    uri: &uri,
                    pin: &wrong,
                },
            );
            assert!(matches!(refused, Err(Error::PinRefused { .. })), "{refused:?}");
            assert_eq!(faulty::calls(&bench.directory, "C_Login"), 1);
        },
    );
}

/// Keys that are there already are neither used nor changed nor counted.
#[test]
fn keys_of_others_are_left_alone() {
    bench::<faulty::Faulty<false>>("probing::keys_of_others_are_left_alone", |bench| {
        let created = bench.create("identity");
        let before = bench.pkcs11_tool(&["--list-objects"]);
        let trials = trials(bench, &faulty::module());
        assert!(matches!(trials.rows[0].outcome, TrialOutcome::Works { .. }));
        assert_eq!(bench.pkcs11_tool(&["--list-objects"]), before);
        bench.open(&created.uri).unwrap().sign(b"message").unwrap();
    });
}
