//! The worker process: what it survives, what it may do, and that it never spends the tries of a PIN.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use fieldgate_hsm::process::wire::{
    AnswerBody, Opened, RequestBody, WireError, WorkerAnswer, WorkerStatistics, decode_request, encode_answer,
};
use fieldgate_hsm::process::{Condition, ProcessSettings, ProcessSigner, ProcessState, SandboxReport};
use fieldgate_hsm::{
    Algorithm, Completion, Error, Limits, PinState, Priority, PublicKey, Request, SandboxSettings,
    SecretSource, Settings, Signer, SoftwareSigner, Worker, WorkerEnd, probe,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::pin::{CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY};
use crate::softhsm::{PIN, Token, key_uri, module, scenario, spy};

mod making;

const MINUTE: Duration = Duration::from_secs(60);
/// Longer than any step of a worker's start takes on a machine that is busy with other tests.
const HANG: Duration = Duration::from_secs(12);

/// Directory of the scenario.
fn directory(token: &Token) -> PathBuf {
    token.tokens().parent().unwrap().to_owned()
}

/// The node's state directory of the scenario.
fn state_dir(token: &Token) -> PathBuf {
    let directory = directory(token).join("state");
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn worker_program() -> PathBuf {
    env!("CARGO_BIN_EXE_fieldgate-token-worker").into()
}

/// Settings of a worker process for a key of the scenario's token.
fn process_settings(token: &Token, module: PathBuf, pin: SecretSource) -> ProcessSettings {
    let signer = Settings::pkcs11(key_uri("identity"), Some(module), Some(pin)).unwrap();
    ProcessSettings {
        program: worker_program(),
        arguments: vec![],
        state_dir: Some(state_dir(token)),
        // The scenario looks when it wants to.
        check_every: MINUTE,
        ..ProcessSettings::new(signer)
    }
}

fn start_worker(settings: ProcessSettings) -> (Worker, Receiver<Completion>, PublicKey) {
    let (sender, completions) = mpsc::channel();
    let deliver = Box::new(move |completion| sender.send(completion).unwrap());
    let worker = Worker::start_process(Limits::default(), settings, deliver).unwrap();
    let public_key = worker.wait_open(MINUTE).unwrap();
    (worker, completions, public_key)
}

fn request(id: u64) -> Request {
    Request {
        id,
        priority: Priority::LiveProof,
        message: id.to_be_bytes().to_vec(),
        timeout: MINUTE,
    }
}

fn state(worker: &Worker) -> ProcessState {
    worker.statistics().process.expect("the key is in a process")
}

fn pid_of(state: &ProcessState) -> Pid {
    pid(state.pid.expect("there is a worker"))
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

/// Waits until a condition holds, which another thread brings about.
fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

#[test]
fn a_confined_process_signs() {
    scenario("process::a_confined_process_signs", |token| {
        let created = token.create("identity", Algorithm::P256);
        let (worker, completions, public_key) = start_worker(process_settings(token, module(), token.pin()));
        assert_eq!(public_key, created.public_key);
        for id in 0..20 {
            worker.submit(request(id)).unwrap();
        }
        for completion in completions.iter().take(20) {
            assert!(public_key.verify(&completion.id.to_be_bytes(), &completion.result.unwrap()));
        }
        let statistics = worker.statistics();
        assert_eq!((statistics.signatures, statistics.errors.len()), (20, 0));
        let state = state(&worker);
        assert_eq!(state.sandbox, SandboxReport::Full, "{}", state.sandbox);
        assert_eq!(state.condition, Condition::Running);
        assert_eq!(state.origin, Some(created.origin));
        assert!(
            state
                .module
                .as_deref()
                .is_some_and(|module| module.contains("SoftHSM")),
            "{state:?}"
        );
        let shown = state.token.as_ref().expect("the token is there");
        assert_eq!((&shown.pin_state, shown.is_write_protected), (&None, false));
        assert_eq!(
            (state.restarts_crash, state.restarts_hang, state.restarts_renewal),
            (0, 0, 0)
        );

        // What the kernel says about it.
        let status = fs::read_to_string(format!("/proc/{}/status", state.pid.unwrap())).unwrap();
        for line in [
            "Name:\tfieldgate-token",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "Threads:\t1",
        ] {
            assert!(status.lines().any(|found| found == line), "{line}: {status}");
        }
        let limits = fs::read_to_string(format!("/proc/{}/limits", state.pid.unwrap())).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    });
}

/// The worker's first moments are written down by a script in its place, which then becomes the worker.
#[test]
fn the_process_is_told_no_secret_by_arguments_and_environment() {
    scenario(
        "process::the_process_is_told_no_secret_by_arguments_and_environment",
        |token| {
            token.create("identity", Algorithm::P256);
            let directory = directory(token);
            let script = directory.join("worker.sh");
            let text = format!(
                "cp /proc/$$/environ {0}/environ\ncp /proc/$$/cmdline {0}/cmdline\nexec {1} \"$@\"\n",
                directory.display(),
                worker_program().display()
            );
            fs::write(&script, text).unwrap();
            let settings = ProcessSettings {
                program: SHELL.into(),
                arguments: vec![script.into()],
                ..process_settings(token, module(), token.pin())
            };
            let mut signer = ProcessSigner::start(settings).unwrap();
            signer.sign(b"message").unwrap();

            let told = |name| String::from_utf8(fs::read(directory.join(name)).unwrap()).unwrap();
            let (environment, arguments) = (told("environ"), told("cmdline"));
            assert!(environment.contains("SOFTHSM2_CONF="), "{environment}");
            // The scenario itself has these two.
            assert!(env::var_os("PATH").is_some() && env::var_os("FIELDGATE_HSM_TEST_DIRECTORY").is_some());
            for name in ["PATH=", "FIELDGATE_", "CARGO_"] {
                assert!(!environment.contains(name), "{environment}");
            }
            assert!(
                !environment.contains(PIN) && !arguments.contains(PIN),
                "{environment} {arguments}"
            );
        },
    );
}

#[test]
fn a_worker_that_is_killed_while_it_signs_is_replaced() {
    scenario(
        "process::a_worker_that_is_killed_while_it_signs_is_replaced",
        |token| {
            token.create("identity", Algorithm::P256);
            let (worker, completions, public_key) =
                start_worker(process_settings(token, module(), token.pin()));
            let first = state(&worker);
            // It stands still, so the request is under way when it dies.
            kill_process(pid_of(&first), Signal::STOP).unwrap();
            worker.submit(request(1)).unwrap();
            kill_process(pid_of(&first), Signal::KILL).unwrap();
            let completion = completions.recv().unwrap();
            assert!(public_key.verify(&1_u64.to_be_bytes(), &completion.result.unwrap()));
            worker.submit(request(2)).unwrap();
            assert!(completions.recv().unwrap().result.is_ok());
            let second = state(&worker);
            assert_ne!(second.pid, first.pid);
            assert_eq!((second.restarts_crash, second.restarts_hang), (1, 0));
        },
    );
}

#[test]
fn a_worker_that_hangs_is_killed_and_replaced() {
    scenario("process::a_worker_that_hangs_is_killed_and_replaced", |token| {
        token.create("identity", Algorithm::P256);
        let settings = ProcessSettings {
            hang_after: HANG,
            ..process_settings(token, module(), token.pin())
        };
        let (worker, completions, _) = start_worker(settings);
        let first = state(&worker);
        let first_process = pidfd_open(pid_of(&first), PidfdFlags::empty()).unwrap();
        kill_process(pid_of(&first), Signal::STOP).unwrap();
        worker.submit(request(1)).unwrap();
        let how = WorkerEnd::Silent(HANG);
        assert_eq!(
            completions.recv().unwrap().result,
            Err(Error::WorkerEnded { how })
        );
        worker.submit(request(2)).unwrap();
        assert!(completions.recv().unwrap().result.is_ok());
        let second = state(&worker);
        assert_eq!(second.restarts_crash, 0);
        // A replacement that starts too slowly counts as well.
        assert!(second.restarts_hang >= 1);
        wait_for_end(&first_process);
    });
}

/// Nobody asks it anything, and still its death and its hanging are noticed.
#[test]
fn an_idle_worker_is_looked_after() {
    scenario("process::an_idle_worker_is_looked_after", |token| {
        token.create("identity", Algorithm::P256);
        let settings = ProcessSettings {
            hang_after: HANG,
            check_every: Duration::from_millis(20),
            ..process_settings(token, module(), token.pin())
        };
        let (worker, _completions, _) = start_worker(settings);
        let first = state(&worker);
        let process = pidfd_open(pid_of(&first), PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&process, Signal::STOP).unwrap();
        wait_for_end(&process);
        // A replacement may be taken for one that hangs, too, while its start takes long: the one to kill is the one there is.
        let mut killed = first.pid;
        until(|| {
            let now = state(&worker);
            if now.restarts_crash >= 1 && now.condition == Condition::Running {
                assert!(now.restarts_hang >= 1 && now.pid.is_some(), "{now:?}");
                return true;
            }
            if let Some(number) = now.pid.filter(|_| now.pid != killed) {
                killed = now.pid;
                // It may have ended meanwhile.
                let _ = kill_process(pid(number), Signal::KILL);
            }
            false
        });
    });
}

#[test]
fn a_worker_dies_with_its_node() {
    if env::var_os(NODE).is_some() {
        return be_a_node();
    }
    scenario("process::a_worker_dies_with_its_node", |token| {
        token.create("identity", Algorithm::P256);
        let mut node = Command::new(env::current_exe().unwrap())
            .args(["--exact", "process::a_worker_dies_with_its_node", "--nocapture"])
            .env(NODE, directory(token))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(node.stdout.take().unwrap()).lines();
        let worker = lines
            .map(|line| line.unwrap())
            .find_map(|line| line.split_once("worker=")?.1.parse().ok())
            .expect("the node names its worker");
        let process = pidfd_open(pid(worker), PidfdFlags::empty()).unwrap();
        // It stands still, so it is not the closed socket that ends it.
        kill_process(pid(worker), Signal::STOP).unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
        wait_for_end(&process);
    });
}

/// Starts a worker, says which, and waits to be killed.
fn be_a_node() {
    let directory = PathBuf::from(env::var_os(NODE).unwrap());
    let pin = SecretSource::File(directory.join("pin"));
    let signer = Settings::pkcs11(key_uri("identity"), Some(module()), Some(pin)).unwrap();
    let settings = ProcessSettings {
        program: worker_program(),
        arguments: vec![],
        ..ProcessSettings::new(signer)
    };
    let signer = ProcessSigner::start(settings).unwrap();
    let mut out = io::stdout().lock();
    writeln!(out, "\nworker={}", signer.process().unwrap().pid.unwrap()).unwrap();
    out.flush().unwrap();
    let _ = io::stdin().read(&mut [0]);
}

fn wait_for_end(process: &impl AsFd) {
    let mut descriptors = [PollFd::new(process, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    let has_ended = poll(&mut descriptors, Some(&limit)).unwrap() == 1;
    if !has_ended {
        // It would hold the pipes of this test open.
        pidfd_send_signal(process, Signal::KILL).unwrap();
    }
    assert!(has_ended, "it lives on");
}

#[test]
fn a_wrong_pin_is_tried_once_in_all_starts() {
    scenario("process::a_wrong_pin_is_tried_once_in_all_starts", |token| {
        token.create("identity", Algorithm::P256);
        let wrong = token.write_secret("wrong", "999999");
        let start = |pin: &SecretSource| ProcessSigner::start(process_settings(token, spy(), pin.clone()));
        let error = start(&wrong).unwrap_err();
        assert!(matches!(error, Error::PinRefused { .. }), "{error:?}");
        assert_eq!(token.spied_calls("C_Login"), 1);
        let token_now = || probe(&module()).unwrap().slots[0].token.clone().unwrap();
        assert_eq!(token_now().pin_state, Some(PinState::CountLow));

        // The next start does not even load the module.
        let initialized = token.spied_calls("C_Initialize");
        let error = start(&wrong).unwrap_err();
        assert!(matches!(error, Error::PinRefusedBefore { .. }), "{error:?}");
        assert!(!format!("{error} {error:?} {}", error.hint()).contains("999999"));
        assert_eq!(token.spied_calls("C_Initialize"), initialized);

        let marker = state_dir(token).join("pin.refused");
        assert!(marker.exists());

        // The corrected PIN differs from the one that was refused, so the token's own warning does not hold it up.
        start(&token.pin()).unwrap().sign(b"message").unwrap();
        assert_eq!(token.spied_calls("C_Login"), 2);
        assert!(!marker.exists(), "all is forgotten");
        assert_eq!(token_now().pin_state, None);
    });
}

/// One PIN that differs is tried against the token's warning, and not another one, be it the right one.
#[test]
fn a_second_wrong_pin_leaves_the_next_try_to_a_person() {
    scenario(
        "process::a_second_wrong_pin_leaves_the_next_try_to_a_person",
        |token| {
            token.create("identity", Algorithm::P256);
            let start =
                |pin: &SecretSource| ProcessSigner::start(process_settings(token, spy(), pin.clone()));
            for (tries, wrong) in [(1, "999999"), (2, "888888")] {
                let pin = token.write_secret(wrong, wrong);
                let error = start(&pin).unwrap_err();
                assert!(matches!(error, Error::PinRefused { .. }), "{error:?}");
                assert_eq!(token.spied_calls("C_Login"), tries);
            }
            let third = token.write_secret("777777", "777777");
            for pin in [&third, &token.pin()] {
                let error = start(pin).unwrap_err();
                let is_low =
                    matches!(&error, Error::PinBlocked { state, .. } if *state == PinState::CountLow);
                assert!(is_low, "{error:?}");
            }
            assert_eq!(token.spied_calls("C_Login"), 2);
            token.pkcs11_tool(&["--list-objects"]);
            start(&token.pin()).unwrap().sign(b"message").unwrap();
        },
    );
}

/// The last try is nobody's but a person's, whatever is known of the PIN.
#[test]
fn the_final_try_is_not_made_with_another_pin_either() {
    scenario(
        "process::the_final_try_is_not_made_with_another_pin_either",
        |token| {
            token.create("identity", Algorithm::P256);
            let wrong = token.write_secret("wrong", "999999");
            let start =
                |pin: &SecretSource| ProcessSigner::start(process_settings(token, spy(), pin.clone()));
            assert!(matches!(start(&wrong), Err(Error::PinRefused { .. })));
            token.set_token_flags(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY);
            let error = start(&token.pin()).unwrap_err();
            let is_final = matches!(&error, Error::PinBlocked { state, .. } if *state == PinState::FinalTry);
            assert!(is_final, "{error:?}");
            assert_eq!(token.spied_calls("C_Login"), 1);
        },
    );
}

/// The PIN changes on the token while the node runs, and the worker dies: the old PIN is tried once and never again.
#[test]
fn a_pin_that_is_refused_later_ends_all_tries() {
    scenario("process::a_pin_that_is_refused_later_ends_all_tries", |token| {
        token.create("identity", Algorithm::P256);
        let mut signer = ProcessSigner::start(process_settings(token, spy(), token.pin())).unwrap();
        let softhsm = module();
        let login = [
            "--module",
            softhsm.to_str().unwrap(),
            "--token-label",
            crate::softhsm::TOKEN,
        ];
        let change = ["--login", "--pin", PIN, "--change-pin", "--new-pin", "112233"];
        token.tool("pkcs11-tool", &[&login[..], &change[..]].concat());
        let logins = token.spied_calls("C_Login");
        kill_process(pid_of(&signer.process().unwrap()), Signal::KILL).unwrap();
        for _ in 0..3 {
            let error = signer.sign(b"message").unwrap_err();
            assert!(matches!(error, Error::PinRefused { .. }), "{error:?}");
        }
        assert_eq!(token.spied_calls("C_Login"), logins + 1);
        let state = signer.process().unwrap();
        assert_eq!((state.condition, state.pid), (Condition::PinRefused, None));
        assert_eq!(signer.attend(), None);
        // A node that starts again with the same PIN finds the marker.
        let error = ProcessSigner::start(process_settings(token, spy(), token.pin())).unwrap_err();
        assert!(matches!(error, Error::PinRefusedBefore { .. }), "{error:?}");
    });
}

#[test]
fn a_token_that_is_away_comes_back() {
    scenario("process::a_token_that_is_away_comes_back", |token| {
        token.create("identity", Algorithm::P256);
        let mut signer = ProcessSigner::start(process_settings(token, module(), token.pin())).unwrap();
        let public_key = *signer.public_key();
        token.unplug();
        for _ in 0..4 {
            let error = signer.sign(b"without").unwrap_err();
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        }
        // The fourth failure in a row lets go of that worker; the next one does not find the token either.
        let state = signer.process().unwrap();
        assert_eq!(
            (state.restarts_renewal, state.condition),
            (1, Condition::Restarting)
        );
        let error = signer.sign(b"without").unwrap_err();
        let Error::Unavailable {
            cause, retry_after, ..
        } = &error
        else {
            panic!("{error:?}")
        };
        assert!(matches!(**cause, Error::TokenNotFound { .. }), "{cause:?}");
        assert_eq!(retry_after.as_secs(), 8);
        token.plug_in();
        // Not before its pause is over.
        let error = signer.sign(b"too soon").unwrap_err();
        assert!(
            error.retry_after().is_some_and(|pause| pause.as_secs() <= 8),
            "{error:?}"
        );
        assert_eq!(signer.public_key(), &public_key);
        drop(signer);

        // One that comes back soon enough comes back to the same worker.
        let mut signer = ProcessSigner::start(process_settings(token, module(), token.pin())).unwrap();
        let first = signer.process().unwrap().pid;
        token.unplug();
        signer.sign(b"without").unwrap_err();
        token.plug_in();
        signer.sign(b"with").unwrap();
        assert_eq!(signer.process().unwrap().pid, first);
    });
}

#[test]
fn errors_read_the_same_as_without_a_process() {
    scenario("process::errors_read_the_same_as_without_a_process", |token| {
        token.create("other", Algorithm::P256);
        let settings = process_settings(token, module(), token.pin());
        let here = settings.signer.open().map(|_| ()).unwrap_err();
        let there = ProcessSigner::start(settings).unwrap_err();
        assert!(matches!(there, Error::KeyNotFound { .. }), "{there:?}");
        assert_eq!((there.to_string(), there.hint()), (here.to_string(), here.hint()));
        assert!(there.to_string().contains("object=other"), "{there}");
    });
}

#[test]
fn what_settings_open_is_reported() {
    scenario("process::what_settings_open_is_reported", |token| {
        token.create("identity", Algorithm::P256);
        let report = |sandbox: SandboxSettings| {
            let mut settings = process_settings(token, module(), token.pin());
            if let Settings::Pkcs11 { sandbox: place, .. } = &mut settings.signer {
                *place = sandbox;
            }
            let mut signer = ProcessSigner::start(settings).unwrap();
            signer.sign(b"message").unwrap();
            signer.sandbox().clone()
        };
        let network = SandboxSettings {
            network: true,
            ..SandboxSettings::default()
        };
        assert_eq!(report(network), SandboxReport::Full);
        let extra = SandboxSettings {
            extra_paths: vec![directory(token)],
            ..SandboxSettings::default()
        };
        let open = format!("{} can be read", state_dir(token).display());
        assert_eq!(report(extra), SandboxReport::Partial(vec![open]));
    });
}

#[test]
fn a_key_is_chosen_by_its_public_key() {
    scenario("process::a_key_is_chosen_by_its_public_key", |token| {
        let settings = process_settings(token, module(), token.pin());
        let old = *settings.signer.create(Algorithm::P256).unwrap().public_key();
        let new = *settings
            .signer
            .create_next(&old, Algorithm::P256)
            .unwrap()
            .public_key();
        let error = settings.signer.open().map(|_| ()).unwrap_err();
        assert!(
            matches!(&error, Error::KeyAmbiguous { offered, .. } if offered.len() == 2),
            "{error:?}"
        );
        for wanted in [old, new] {
            let mut signer = ProcessSigner::start(ProcessSettings {
                wanted: Some(wanted),
                ..settings.clone()
            })
            .unwrap();
            assert_eq!(signer.public_key(), &wanted);
            assert!(wanted.verify(b"message", &signer.sign(b"message").unwrap()));
            let mut keys: Vec<_> = signer
                .keys()
                .unwrap()
                .iter()
                .map(|key| key.public_key.unwrap().key_id())
                .collect();
            keys.sort_unstable();
            let mut both = [old.key_id(), new.key_id()];
            both.sort_unstable();
            assert_eq!(keys, both);
        }
        let foreign = *SoftwareSigner::generate(Algorithm::P256).unwrap().public_key();
        let error = settings.signer.open_key(Some(&foreign)).map(|_| ()).unwrap_err();
        assert!(
            matches!(&error, Error::KeyNotWanted { offered, .. } if offered.len() == 2),
            "{error:?}"
        );
        assert!(matches!(
            settings.signer.destroy(&foreign),
            Err(Error::KeyNotWanted { .. })
        ));

        settings.signer.commit_next(&new).unwrap();
        settings.signer.destroy(&old).unwrap();
        assert_eq!(settings.signer.open().unwrap().public_key(), &new);
        let objects = token.pkcs11_tool(&["--list-objects"]);
        assert_eq!(objects.matches("label:      identity").count(), 2, "{objects}");
    });
}

/// The URI in the file names the first key by its identifier as well; its successor is found all the same.
#[test]
fn a_successor_is_found_although_the_uri_has_the_old_identifier() {
    scenario(
        "process::a_successor_is_found_although_the_uri_has_the_old_identifier",
        |token| {
            let created = token.create("identity", Algorithm::P256);
            for uri in [
                created.uri.clone(),
                fieldgate_hsm::Pkcs11Uri {
                    object: None,
                    ..created.uri.clone()
                },
            ] {
                let settings = Settings::pkcs11(uri.clone(), Some(module()), Some(token.pin())).unwrap();
                assert_eq!(settings.open().unwrap().public_key(), &created.public_key);
                if uri.object.is_some() {
                    settings
                        .create_next(&created.public_key, Algorithm::P256)
                        .unwrap();
                }
                let keys = settings.keys().unwrap();
                assert_eq!(keys.len(), 2);
                for key in keys {
                    let wanted = key.public_key.unwrap();
                    assert_eq!(settings.open_key(Some(&wanted)).unwrap().public_key(), &wanted);
                }
            }
        },
    );
}

#[test]
fn a_sealed_file_is_opened_in_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        SecretSource::File(path)
    };
    let settings = |key| Settings::File {
        path: directory.path().join("identity"),
        key,
    };
    let right = settings(secret("right", "a passphrase"));
    let created = *right.create(Algorithm::Ed25519).unwrap().public_key();
    let process = |signer| ProcessSettings {
        program: worker_program(),
        arguments: vec![],
        state_dir: Some(directory.path().to_owned()),
        ..ProcessSettings::new(signer)
    };
    let mut signer = ProcessSigner::start(process(right.clone())).unwrap();
    assert_eq!(signer.public_key(), &created);
    assert!(created.verify(b"message", &signer.sign(b"message").unwrap()));
    assert_eq!(signer.sandbox(), &SandboxReport::Full);
    assert_eq!((signer.keys(), signer.origin()), (Ok(vec![]), None));

    let error = ProcessSigner::start(process(settings(secret("wrong", "another")))).unwrap_err();
    assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");

    // A rotation that stopped between history and rename: the wanted key is in the file beside.
    let next = *right
        .create_next(&created, Algorithm::Ed25519)
        .unwrap()
        .public_key();
    let wanted = ProcessSettings {
        wanted: Some(next),
        ..process(right)
    };
    assert_eq!(ProcessSigner::start(wanted).unwrap().public_key(), &next);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let (_directory, settings) = false_worker("none");
    let settings = ProcessSettings {
        program: "/nowhere/fieldgate".into(),
        ..settings
    };
    let error = ProcessSigner::start(settings).unwrap_err();
    assert!(error.to_string().contains("/nowhere/fieldgate"), "{error}");
}

#[test]
fn a_worker_of_another_version_says_what_to_do() {
    let (_directory, settings) = false_worker("version");
    let error = ProcessSigner::start(settings).unwrap_err();
    assert_eq!(
        error,
        Error::WorkerProtocol(WireError::Version { got: 2, want: 1 })
    );
    assert!(error.hint().contains("restart the node"));
}

/// Whoever dies between the beginning and the end of a login may have spent a try: twice is enough, across restarts of the node.
#[test]
fn two_deaths_during_the_login_are_enough() {
    let (directory, settings) = false_worker("login");
    for _ in 0..2 {
        let error = ProcessSigner::start(settings.clone()).unwrap_err();
        assert!(matches!(error, Error::WorkerEnded { .. }), "{error:?}");
    }
    let started = starts(&directory);
    for _ in 0..2 {
        let error = ProcessSigner::start(settings.clone()).unwrap_err();
        assert!(matches!(error, Error::LoginDeadly { deaths: 2, .. }), "{error:?}");
    }
    assert_eq!(starts(&directory), started);
}

#[test]
fn a_worker_that_dies_before_the_login_is_started_again_and_again() {
    let (directory, settings) = false_worker("early");
    for _ in 0..4 {
        let error = ProcessSigner::start(settings.clone()).unwrap_err();
        assert!(matches!(error, Error::WorkerEnded { .. }), "{error:?}");
    }
    assert_eq!(starts(&directory), 4);
}

#[test]
fn a_signature_that_does_not_verify_leaves_no_node() {
    let (_directory, settings) = false_worker("signature");
    let mut signer = ProcessSigner::start(settings).unwrap();
    let error = signer.sign(b"message").unwrap_err();
    assert!(matches!(error, Error::SignatureInvalid { .. }), "{error:?}");
}

#[test]
fn a_worker_that_answers_something_else_is_replaced() {
    let (directory, settings) = false_worker("confused");
    let mut signer = ProcessSigner::start(settings).unwrap();
    let started = starts(&directory);
    // The first time a new one is started at once, the second time after a pause.
    for _ in 0..2 {
        let error = signer.sign(b"message").unwrap_err();
        assert_eq!(error, Error::WorkerProtocol(WireError::Unexpected));
        assert_eq!(signer.process().unwrap().condition, Condition::Restarting);
    }
    let error = signer.sign(b"message").unwrap_err();
    let more = if matches!(error, Error::Unavailable { .. }) {
        1
    } else {
        // The pause is over already: this machine is slow.
        assert_eq!(error, Error::WorkerProtocol(WireError::Unexpected));
        2
    };
    assert_eq!(starts(&directory), started + more);
    let crashes = u64::try_from(more).unwrap() + 1;
    assert_eq!(signer.process().unwrap().restarts_crash, crashes);
}

/// Settings of a worker that is this test program in the role named; see [`false_worker_process`].
fn false_worker(role: &str) -> (tempfile::TempDir, ProcessSettings) {
    let directory = tempfile::tempdir().unwrap();
    let pin = directory.path().join("pin");
    fs::write(&pin, PIN).unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    let script = directory.path().join("worker.sh");
    // The role goes through the script, as the environment of a worker is not ours to choose.
    let text = format!(
        "echo start >> {}/starts\n{FALSE_WORKER}={role} exec {} --exact process::false_worker_process --nocapture\n",
        directory.path().display(),
        env::current_exe().unwrap().display()
    );
    fs::write(&script, text).unwrap();
    let signer = Settings::pkcs11(
        key_uri("identity"),
        Some("/none.so".into()),
        Some(SecretSource::File(pin)),
    )
    .unwrap();
    let settings = ProcessSettings {
        program: SHELL.into(),
        arguments: vec![script.into()],
        state_dir: Some(directory.path().to_owned()),
        check_every: MINUTE,
        ..ProcessSettings::new(signer)
    };
    (directory, settings)
}

/// How often a false worker was started.
fn starts(directory: &tempfile::TempDir) -> usize {
    fs::read_to_string(directory.path().join("starts")).map_or(0, |text| text.lines().count())
}

/// A worker that does not do as it should; nothing but that when it is run as a test.
#[test]
fn false_worker_process() {
    let Some(role) = env::var_os(FALSE_WORKER) else {
        return;
    };
    let mut node = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let software = "false".to_owned();
    let mut hello = answer(0, AnswerBody::Hello { software });
    if role == "version" {
        hello[4] = 2;
    }
    node.write_all(&hello).unwrap();
    let public_key = *SoftwareSigner::generate(Algorithm::P256).unwrap().public_key();
    while let Some((id, body)) = next_request(&mut node) {
        let body = match (body, role.to_str().unwrap()) {
            (RequestBody::Configure(_), "login") => {
                node.write_all(&answer(0, AnswerBody::LoginBegun)).unwrap();
                return;
            }
            (RequestBody::Configure(_), "early") => return,
            (RequestBody::Configure(_), _) => AnswerBody::Opened(Opened {
                public_key,
                location: "false".to_owned(),
                origin: None,
                module: None,
                sandbox: SandboxReport::Partial(vec![]),
            }),
            (RequestBody::Statistics, _) => AnswerBody::Statistics(WorkerStatistics::default()),
            (RequestBody::Sign(_), "signature") => AnswerBody::Signed([7; 64]),
            (_, _) => AnswerBody::Keys(vec![]),
        };
        if node.write_all(&answer(id, body)).is_err() {
            return;
        }
    }
}

fn answer(id: u32, body: AnswerBody) -> Vec<u8> {
    encode_answer(&WorkerAnswer { id, body }).unwrap().to_vec()
}

fn next_request(node: &mut UnixStream) -> Option<(u32, RequestBody)> {
    let mut length = [0; 4];
    node.read_exact(&mut length).ok()?;
    let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    node.read_exact(&mut frame).ok()?;
    let request = decode_request(&frame).unwrap();
    Some((request.id, request.body))
}

/// Runs the scripts of workers. A script that was written right now cannot be the program itself: a child that another test
/// is starting may still hold it open for writing.
const SHELL: &str = "/bin/sh";
/// Tells a process that it is a node, and where its token is.
const NODE: &str = "FIELDGATE_HSM_TEST_NODE";
/// Tells a process that it is a false worker, and of which kind.
const FALSE_WORKER: &str = "FIELDGATE_HSM_TEST_WORKER";
