//! What each fault does to a signer.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fieldgate_hsm::process::ProcessSettings;
use fieldgate_hsm::{
    CallError, Completion, Deliver, Error, Limits, PinState, Priority, Recoveries, Request, Settings, Signer,
    Stage, Worker,
};

use super::{Faulty, calls};
use crate::softhsm::{PIN, TOKEN, key_uri, token_uri};
use crate::suite::{Bench, TokenUnderTest, bench, path_text};

type Token = Faulty<false>;

const fn key(count: u64) -> Recoveries {
    recovered(count, 0)
}

const fn recovered(key: u64, failed: u64) -> Recoveries {
    Recoveries {
        key,
        session: 0,
        login: 0,
        module: 0,
        failed,
    }
}

/// Makes a key and opens it.
fn open(bench: &Bench<Token>) -> Box<dyn Signer> {
    let created = bench.create("identity");
    bench.open(&created.uri).unwrap()
}

#[test]
fn a_call_that_fails_once_is_repeated() {
    bench::<Token>("faulty::faults::a_call_that_fails_once_is_repeated", |bench| {
        let mut signer = open(bench);
        // CKR_DEVICE_ERROR, CKR_OPERATION_ACTIVE, CKR_FUNCTION_FAILED, and one no standard knows.
        for (round, (call, value)) in [
            ("sign", "0x30"),
            ("signinit", "0x90"),
            ("signinit", "6"),
            ("sign", "0x80001234"),
        ]
        .into_iter()
        .enumerate()
        {
            bench.control(&format!("{call} fail {value} times 1\n"));
            signer.sign(b"message").unwrap();
            let expected = u64::try_from(round).unwrap() + 1;
            assert_eq!(signer.recoveries(), key(expected), "{call} {value}");
        }
    });
}

#[test]
fn a_token_that_always_fails_is_unavailable_and_comes_back() {
    bench::<Token>(
        "faulty::faults::a_token_that_always_fails_is_unavailable_and_comes_back",
        |bench| {
            let mut signer = open(bench);
            bench.control("sign fail 0x30\n");
            let before = calls(&bench.directory, "C_Sign");
            for seconds in [1, 2] {
                let error = signer.sign(b"message").unwrap_err();
                let Error::Unavailable {
                    cause, retry_after, ..
                } = error
                else {
                    panic!("{error:?}")
                };
                assert_eq!(retry_after, Duration::from_secs(seconds));
                assert!(
                    matches!(
                        *cause,
                        Error::Call {
                            cause: CallError { ref function, ref code },
                            ..
                        } if function == "C_Sign" && code == "CKR_DEVICE_ERROR"
                    ),
                    "{cause:?}"
                );
            }
            // The first request tries as it is and on four rungs; the second finds no key open, so it begins with new sessions.
            assert_eq!(calls(&bench.directory, "C_Sign") - before, 5 + 3);
            bench.control("");
            let signature = signer.sign(b"message").unwrap();
            assert!(signer.public_key().verify(b"message", &signature));
        },
    );
}

/// Signatures that are wrong never leave the signer, whatever the token says about them.
#[test]
fn wrong_signatures_are_caught() {
    bench::<Token>("faulty::faults::wrong_signatures_are_caught", |bench| {
        let mut signer = open(bench);
        for (round, fault) in ["garbage", "short"].into_iter().enumerate() {
            bench.control(&format!("sign {fault} times 1\n"));
            let signature = signer.sign(b"message").unwrap();
            assert!(signer.public_key().verify(b"message", &signature), "{fault}");
            assert_eq!(signer.recoveries().key, u64::try_from(round).unwrap() + 1);
        }
        for fault in ["garbage", "short"] {
            bench.control(&format!("sign {fault}\n"));
            let error = signer.sign(b"message").unwrap_err();
            let Error::Unavailable { cause, .. } = error else {
                panic!("{error:?}")
            };
            match fault {
                "garbage" => assert!(matches!(*cause, Error::SignatureInvalid { .. }), "{cause:?}"),
                _ => assert_eq!(*cause, Error::SignatureLength { have: 63 }),
            }
        }
        // Neither is such a token opened, nor keeps it a key that was made there.
        bench.control("sign garbage\n");
        let error = bench.open(&key_uri("identity")).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::SignatureInvalid { .. }), "{error:?}");
        let error = bench.create_through(&Token::module(), "other").unwrap_err();
        assert!(matches!(error, Error::SignatureInvalid { .. }), "{error:?}");
        bench.control("");
        let listing = bench.pkcs11_tool(&["--list-objects"]);
        assert!(
            listing.contains("identity") && !listing.contains("other"),
            "{listing}"
        );
    });
}

/// A refused PIN is not given again, whichever way it is refused, on no rung of the ladder.
#[test]
fn a_refused_login_is_final() {
    bench::<Token>("faulty::faults::a_refused_login_is_final", |bench| {
        let mut signer = open(bench);
        // The token comes back from a removal with another opinion of the PIN.
        bench.control("token vanish\n");
        signer.sign(b"without").unwrap_err();
        // CKR_PIN_LOCKED.
        bench.control("login fail 0xa4\n");
        let before = calls(&bench.directory, "C_Login");
        for _ in 0..3 {
            let error = signer.sign(b"message").unwrap_err();
            let Error::PinRefused { cause, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!(cause.to_string(), "C_Login returned CKR_PIN_LOCKED");
        }
        assert_eq!(calls(&bench.directory, "C_Login"), before + 1);
    });
}

#[test]
fn every_warning_about_the_pin_is_heeded() {
    bench::<Token>("faulty::faults::every_warning_about_the_pin_is_heeded", |bench| {
        let created = bench.create("identity");
        let before = calls(&bench.directory, "C_Login");
        for (flag, expected) in [
            ("count-low", PinState::CountLow),
            ("final-try", PinState::FinalTry),
            ("locked", PinState::Locked),
        ] {
            bench.control(&format!("flags {flag}\n"));
            let error = bench.open(&created.uri).map(|_| ()).unwrap_err();
            let Error::PinBlocked { state, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!(state, expected);
        }
        assert_eq!(calls(&bench.directory, "C_Login"), before);
        bench.control("");
        bench.open(&created.uri).unwrap();
        assert_eq!(calls(&bench.directory, "C_Login"), before + 1);
    });
}

#[test]
fn a_key_that_is_found_twice_is_ambiguous() {
    bench::<Token>(
        "faulty::faults::a_key_that_is_found_twice_is_ambiguous",
        |bench| {
            let created = bench.create("identity");
            bench.control("keys double\n");
            let error = bench.open(&created.uri).map(|_| ()).unwrap_err();
            let Error::KeyAmbiguous { offered, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!(offered.len(), 2, "{offered:?}");
            bench.control("");
            bench.open(&created.uri).unwrap();
        },
    );
}

/// Without a token in any slot; a look at it with another program too.
#[test]
fn a_token_that_has_vanished_is_in_no_slot() {
    bench::<Token>(
        "faulty::faults::a_token_that_has_vanished_is_in_no_slot",
        |bench| {
            bench.create("identity");
            bench.control("token vanish\n");
            let error = bench.open(&token_uri()).map(|_| ()).unwrap_err();
            let Error::TokenNotFound { offered, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!(offered.len(), 0);
            let found = fieldgate_hsm::probe(&Token::module()).unwrap();
            assert!(!found.slots.is_empty());
            assert!(
                found
                    .slots
                    .iter()
                    .all(|slot| slot.token.is_none() && slot.problem.is_none())
            );
            bench.control("");
            let found = fieldgate_hsm::probe(&Token::module()).unwrap();
            let labels: Vec<String> = found
                .slots
                .into_iter()
                .filter_map(|slot| slot.token?.uri.token)
                .collect();
            assert!(labels.contains(&TOKEN.to_owned()), "{labels:?}");
        },
    );
}

fn channel() -> (Deliver, mpsc::Receiver<Completion>) {
    let (sender, receiver) = mpsc::channel();
    // A request that hangs may be answered when nobody listens any more.
    let deliver = move |completion| drop(sender.send(completion));
    (Box::new(deliver), receiver)
}

fn request(id: u64, timeout: Duration) -> Request {
    Request {
        id,
        priority: Priority::Renewal,
        message: b"message".to_vec(),
        timeout,
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// A call that hangs does not hold up the one who asked.
#[test]
fn a_token_that_hangs_costs_no_more_than_the_time_given() {
    bench::<Token>(
        "faulty::faults::a_token_that_hangs_costs_no_more_than_the_time_given",
        |bench| {
            let created = bench.create("identity");
            let settings = Settings::pkcs11(created.uri, Some(Token::module()), Some(bench.pin())).unwrap();
            let (deliver, completions) = channel();
            let worker = Worker::start(Limits::default(), move || settings.open(), deliver).unwrap();
            worker.wait_open(MINUTE).unwrap();
            bench.control("sign hang\n");
            let timeout = Duration::from_millis(300);
            // A busy machine may let a request time out before the signer thread gets to it; until one is in the token.
            for id in 1.. {
                worker.submit(request(id, timeout)).unwrap();
                let Err(Error::TimedOut { after, stage }) = completions.recv().unwrap().result else {
                    panic!("the token answered")
                };
                assert_eq!(after, timeout);
                if stage == Stage::Signing {
                    break;
                }
            }
            assert!(worker.statistics().stuck);
        },
    );
}

/// A slow token answers late and not wrongly; nothing is repeated because of it.
#[test]
fn a_slow_token_is_waited_for() {
    bench::<Token>("faulty::faults::a_slow_token_is_waited_for", |bench| {
        let created = bench.create("identity");
        let settings = Settings::pkcs11(created.uri, Some(Token::module()), Some(bench.pin())).unwrap();
        let (deliver, completions) = channel();
        let worker = Worker::start(Limits::default(), move || settings.open(), deliver).unwrap();
        let public_key = worker.wait_open(MINUTE).unwrap();
        bench.control("sign delay 400\n");
        let before = calls(&bench.directory, "C_Sign");
        worker.submit(request(1, MINUTE)).unwrap();
        let completion = completions.recv().unwrap();
        assert!(public_key.verify(b"message", &completion.result.unwrap()));
        assert!(
            completion.elapsed >= Duration::from_millis(400),
            "{:?}",
            completion.elapsed
        );
        assert_eq!(calls(&bench.directory, "C_Sign"), before + 1);
        assert_eq!(worker.statistics().recoveries, Recoveries::default());
    });
}

/// A crash takes the process that loaded the module with it: here a program of the distribution.
#[test]
fn a_crash_kills_the_process_that_holds_the_module() {
    bench::<Token>(
        "faulty::faults::a_crash_kills_the_process_that_holds_the_module",
        |bench| {
            use std::os::unix::process::ExitStatusExt;
            bench.create("identity");
            bench.control("sign crash after 1\n");
            let message = bench.directory.join("message");
            std::fs::write(&message, [7; 32]).unwrap();
            let module = Token::module();
            let sign = || {
                Command::new("pkcs11-tool")
                    .args(["--module", path_text(&module), "--token-label", TOKEN])
                    .args(["--login", "--pin", PIN, "--sign", "--mechanism", "ECDSA"])
                    .args(["--label", "identity", "--input-file", path_text(&message)])
                    .output()
                    .unwrap()
                    .status
            };
            // The count is that of a process: the call that crashes is the second of each.
            assert!(sign().success());
            bench.control("sign crash\n");
            assert_eq!(sign().signal(), Some(6), "SIGABRT");
        },
    );
}

/// What a worker process is for: a module that crashes or hangs costs a restart of it.
#[test]
fn a_module_that_crashes_or_hangs_costs_its_process() {
    bench::<Token>(
        "faulty::faults::a_module_that_crashes_or_hangs_costs_its_process",
        |bench| {
            let created = bench.create("identity");
            let settings = ProcessSettings {
                // Longer than any step of a worker's start takes on a machine that is busy with other tests.
                hang_after: Duration::from_secs(12),
                ..bench.process_settings(&Token::module(), &created.uri)
            };
            let (deliver, completions) = channel();
            let worker = Worker::start_process(Limits::default(), settings, deliver).unwrap();
            let public_key = worker.wait_open(MINUTE).unwrap();
            let ask = |id| {
                worker.submit(request(id, MINUTE)).unwrap();
                completions.recv().unwrap().result
            };
            let state = || worker.statistics().process.unwrap();
            bench.control("sign crash\n");
            worker.submit(request(1, MINUTE)).unwrap();
            while state().restarts_crash == 0 {
                thread::yield_now();
            }
            bench.control("");
            // Whether a later worker answers it or it fails with the earlier ones depends on when the fault ended.
            if let Ok(signature) = completions.recv().unwrap().result {
                assert!(public_key.verify(b"message", &signature));
            }
            let signature = ask(2).unwrap();
            assert!(public_key.verify(b"message", &signature));

            bench.control("sign hang\n");
            let before = state().restarts_hang;
            let error = ask(3).unwrap_err();
            assert!(matches!(error, Error::WorkerEnded { .. }), "{error:?}");
            bench.control("");
            let signature = ask(4).unwrap();
            assert!(public_key.verify(b"message", &signature));
            assert!(state().restarts_hang > before);
        },
    );
}

/// Two threads with sessions of their own: a fault of one does not leak into the other. Two in a row are cured without a
/// logout, which would concern both.
#[test]
fn faults_are_counted_over_all_threads() {
    bench::<Token>("faulty::faults::faults_are_counted_over_all_threads", |bench| {
        let created = bench.create("identity");
        let mut signers: Vec<Box<dyn Signer>> = (0..2).map(|_| bench.open(&created.uri).unwrap()).collect();
        bench.control("sign fail 0x30 after 3 times 2\n");
        thread::scope(|scope| {
            for signer in &mut signers {
                scope.spawn(|| {
                    for number in 0..10_u8 {
                        let signature = signer.sign(&[number]).unwrap();
                        assert!(signer.public_key().verify(&[number], &signature));
                    }
                });
            }
        });
        let recoveries: u64 = signers
            .iter()
            .map(|signer| signer.recoveries())
            .map(|found| found.key + found.session + found.login + found.module)
            .sum();
        assert!((1..=2).contains(&recoveries), "{recoveries}");
    });
}

/// A control file that cannot be read fails every call: a misspelt fault must not look like a token without faults.
#[test]
fn a_misspelt_fault_is_no_silence() {
    bench::<Token>("faulty::faults::a_misspelt_fault_is_no_silence", |bench| {
        let mut signer = open(bench);
        bench.control("sing crash\n");
        signer.sign(b"message").unwrap_err();
        let error = fieldgate_hsm::probe(&Token::module()).unwrap_err();
        assert!(matches!(error, Error::Module { .. }), "{error:?}");
        bench.control("");
        signer.sign(b"message").unwrap();
        let module = env::var_os("FIELDGATE_FAULTY_MODULE").map(PathBuf::from);
        assert_eq!(module, Some(Token::real_module()));
    });
}
