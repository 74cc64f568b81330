//! Workers over a real token.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use fieldgate_hsm::process::ProcessSettings;
use fieldgate_hsm::{
    Algorithm, Completion, Deliver, Error, ErrorKind, Limits, Priority, PublicKey, Recoveries, Request,
    Settings, Signature, Signer, Worker,
};

use crate::softhsm::{key_uri, module, scenario};

const MINUTE: Duration = Duration::from_secs(60);

fn channel() -> (Deliver, Receiver<Completion>) {
    let (sender, receiver) = mpsc::channel();
    (
        Box::new(move |completion| sender.send(completion).unwrap()),
        receiver,
    )
}

fn request(id: u64, priority: Priority) -> Request {
    Request {
        id,
        priority,
        message: id.to_be_bytes().to_vec(),
        timeout: MINUTE,
    }
}

/// Where the signer of a worker is.
#[derive(Clone, Copy)]
enum Place {
    Thread,
    Process,
}

impl Place {
    fn start(self, settings: &Settings, limits: Limits, deliver: Deliver) -> Worker {
        let settings = settings.clone();
        match self {
            Self::Thread => Worker::start(limits, move || settings.open(), deliver),
            Self::Process => {
                let process = ProcessSettings {
                    program: env!("CARGO_BIN_EXE_fieldgate-token-worker").into(),
                    arguments: vec![],
                    ..ProcessSettings::new(settings)
                };
                Worker::start_process(limits, process, deliver)
            }
        }
        .unwrap()
    }
}

#[test]
fn several_threads_share_a_token_and_a_worker() {
    scenario("worker::several_threads_share_a_token_and_a_worker", |token| {
        token.create("identity", Algorithm::P256);
        share(
            &Settings::pkcs11(key_uri("identity"), Some(module()), Some(token.pin())).unwrap(),
            Place::Thread,
        );
    });
}

#[test]
fn several_threads_share_a_token_and_a_worker_process() {
    scenario(
        "worker::several_threads_share_a_token_and_a_worker_process",
        |token| {
            token.create("identity", Algorithm::P256);
            share(
                &Settings::pkcs11(key_uri("identity"), Some(module()), Some(token.pin())).unwrap(),
                Place::Process,
            );
        },
    );
}

fn share(settings: &Settings, place: Place) {
    let (deliver, completions) = channel();
    let worker = place.start(settings, Limits { waiting_max: 400 }, deliver);
    let public_key = worker.wait_open(MINUTE).unwrap();
    thread::scope(|scope| {
        for part in 0..4_u64 {
            let worker = &worker;
            // Half of the threads ask the worker, half sign with sessions of their own.
            scope.spawn(move || {
                for id in part * 50..part * 50 + 50 {
                    worker.submit(request(id, Priority::LiveProof)).unwrap();
                }
            });
            scope.spawn(move || {
                let mut signer = settings.open().unwrap();
                for id in 0..50_u64 {
                    let signature = signer.sign(&id.to_be_bytes()).unwrap();
                    assert!(public_key.verify(&id.to_be_bytes(), &signature));
                }
                assert_eq!(signer.recoveries(), Recoveries::default());
            });
        }
    });
    let mut ids: Vec<u64> = completions
        .iter()
        .take(200)
        .map(|completion| {
            assert!(public_key.verify(&completion.id.to_be_bytes(), &completion.result.unwrap()));
            completion.id
        })
        .collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..200));
    let statistics = worker.statistics();
    assert_eq!(
        (statistics.signatures, statistics.waiting, statistics.stuck),
        (200, 0, false)
    );
    assert_eq!(statistics.errors.len(), 0);
    assert!(statistics.latency_max >= statistics.latency_last && statistics.latency_last > Duration::ZERO);
    assert!(worker.location().contains("object=identity;"));
}

/// Tells when a signature has failed.
struct Observed {
    inner: Box<dyn Signer>,
    failed: Sender<()>,
}

impl Signer for Observed {
    fn public_key(&self) -> &PublicKey {
        self.inner.public_key()
    }

    fn sign(&mut self, message: &[u8]) -> Result<Signature, Error> {
        self.inner
            .sign(message)
            .inspect_err(|_| self.failed.send(()).unwrap())
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn recoveries(&self) -> Recoveries {
        self.inner.recoveries()
    }
}

/// The token is gone for a while: the request waits and is answered when the token is back.
#[test]
fn a_request_outlives_an_absent_token() {
    scenario("worker::a_request_outlives_an_absent_token", |token| {
        token.create("identity", Algorithm::P256);
        let settings = Settings::pkcs11(key_uri("identity"), Some(module()), Some(token.pin())).unwrap();
        let (deliver, completions) = channel();
        let (failed, failures) = mpsc::channel();
        let open = move || {
            Ok(Box::new(Observed {
                inner: settings.open()?,
                failed,
            }) as Box<dyn Signer>)
        };
        let worker = Worker::start(Limits::default(), open, deliver).unwrap();
        let public_key = worker.wait_open(MINUTE).unwrap();
        token.unplug();
        worker.submit(request(1, Priority::Renewal)).unwrap();
        failures.recv().unwrap();
        token.plug_in();
        let completion = completions.recv().unwrap();
        assert!(public_key.verify(&1_u64.to_be_bytes(), &completion.result.unwrap()));
        assert!(
            completion.elapsed >= Duration::from_secs(1),
            "the token was left alone for its pause"
        );
        // On a slow machine the token may come back only after the next try.
        let statistics = worker.statistics();
        let failed = statistics.recoveries.failed;
        assert!(failed >= 1);
        assert_eq!(
            statistics.recoveries,
            Recoveries {
                module: 1,
                failed,
                ..Recoveries::default()
            }
        );
        assert_eq!(statistics.errors.get(&ErrorKind::Token), Some(&failed));
    });
}

/// The same with the key in a process: the request waits out the pauses.
#[test]
fn a_request_to_a_process_outlives_an_absent_token() {
    scenario(
        "worker::a_request_to_a_process_outlives_an_absent_token",
        |token| {
            token.create("identity", Algorithm::P256);
            let settings = Settings::pkcs11(key_uri("identity"), Some(module()), Some(token.pin())).unwrap();
            let (deliver, completions) = channel();
            let worker = Place::Process.start(&settings, Limits::default(), deliver);
            let public_key = worker.wait_open(MINUTE).unwrap();
            token.unplug();
            worker.submit(request(1, Priority::Renewal)).unwrap();
            while !worker.statistics().errors.contains_key(&ErrorKind::Token) {
                thread::yield_now();
            }
            token.plug_in();
            let completion = completions.recv().unwrap();
            assert!(public_key.verify(&1_u64.to_be_bytes(), &completion.result.unwrap()));
            worker.submit(request(2, Priority::Renewal)).unwrap();
            assert!(completions.recv().unwrap().result.is_ok());
            let process = worker.statistics().process.unwrap();
            assert_eq!((process.restarts_crash, process.restarts_hang), (0, 0));
        },
    );
}

#[test]
fn a_token_that_does_not_open_is_told_to_all() {
    scenario("worker::a_token_that_does_not_open_is_told_to_all", |token| {
        let settings = Settings::pkcs11(key_uri("absent"), Some(module()), Some(token.pin())).unwrap();
        for place in [Place::Thread, Place::Process] {
            let (deliver, completions) = channel();
            let worker = place.start(&settings, Limits::default(), deliver);
            let error = worker.wait_open(MINUTE).unwrap_err();
            assert!(matches!(error, Error::KeyNotFound { .. }), "{error:?}");
            assert_eq!(worker.submit(request(1, Priority::Renewal)), Err(error));
            assert_eq!(completions.try_iter().count(), 0);
        }
    });
}
