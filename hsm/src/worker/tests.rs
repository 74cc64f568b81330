use std::sync::mpsc::{self, Receiver, Sender};

use super::*;
use crate::signer::Algorithm;
use crate::software::SoftwareSigner;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

/// A signer that waits for leave before each signature, as a token that hangs does.
struct Gated {
    inner: SoftwareSigner,
    entered: Sender<()>,
    leave: Receiver<()>,
}

impl Signer for Gated {
    fn public_key(&self) -> &PublicKey {
        self.inner.public_key()
    }

    fn sign(&mut self, message: &[u8]) -> Result<Signature, Error> {
        self.entered.send(()).unwrap();
        // A closed channel is leave as well, so that a test that fails does not hang.
        let _ = self.leave.recv();
        self.inner.sign(message)
    }

    fn location(&self) -> String {
        "test".to_owned()
    }
}

struct Bench {
    worker: Worker,
    completions: Receiver<Completion>,
    entered: Receiver<()>,
    leave: Sender<()>,
    public_key: PublicKey,
}

fn gated() -> Bench {
    let (entered_sender, entered) = mpsc::channel();
    let (leave, leave_receiver) = mpsc::channel();
    let (deliver, completions) = channel();
    let inner = SoftwareSigner::generate(Algorithm::P256).unwrap();
    let signer = Gated {
        inner,
        entered: entered_sender,
        leave: leave_receiver,
    };
    let worker = Worker::start(Limits { waiting_max: 2 }, move || Ok(Box::new(signer)), deliver).unwrap();
    let public_key = worker.wait_open(LONG).unwrap();
    Bench {
        worker,
        completions,
        entered,
        leave,
        public_key,
    }
}

fn channel() -> (Deliver, Receiver<Completion>) {
    let (sender, receiver) = mpsc::channel();
    (
        Box::new(move |completion| sender.send(completion).unwrap()),
        receiver,
    )
}

fn request(id: u64, timeout: Duration) -> Request {
    Request {
        id,
        priority: Priority::LiveProof,
        message: b"message".to_vec(),
        timeout,
    }
}

#[test]
fn signs_on_its_own_thread() {
    let bench = gated();
    bench.leave.send(()).unwrap();
    bench.worker.submit(request(1, LONG)).unwrap();
    let completion = bench.completions.recv().unwrap();
    assert_eq!(completion.id, 1);
    assert!(bench.public_key.verify(b"message", &completion.result.unwrap()));
    assert_eq!(bench.worker.statistics().signatures, 1);
    assert_eq!(bench.worker.location(), "test");
}

#[test]
fn a_hanging_token_blocks_nobody() {
    let bench = gated();
    let stage_of = |completion: &Completion| match &completion.result {
        Err(Error::TimedOut { stage, after }) => {
            assert!(*after == SHORT && completion.elapsed >= SHORT);
            stage.clone()
        }
        result => panic!("{result:?}"),
    };
    // A busy machine may let a request time out before the signer thread gets to it; until one is in the token.
    for id in 100.. {
        bench.worker.submit(request(id, SHORT)).unwrap();
        let completion = bench.completions.recv().unwrap();
        assert_eq!(completion.id, id);
        if stage_of(&completion) == Stage::Signing {
            break;
        }
    }
    bench.entered.recv().unwrap();
    assert!(bench.worker.statistics().stuck);
    bench.worker.submit(request(2, SHORT)).unwrap();
    let completion = bench.completions.recv().unwrap();
    assert_eq!((completion.id, stage_of(&completion)), (2, Stage::Queued));
    assert_eq!(bench.worker.statistics().stuck_total, 1);

    // When the token answers at last, the worker goes on.
    bench.worker.submit(request(3, LONG)).unwrap();
    bench.leave.send(()).unwrap();
    bench.leave.send(()).unwrap();
    let completion = bench.completions.recv().unwrap();
    assert_eq!(completion.id, 3);
    assert!(completion.result.is_ok());
    let statistics = bench.worker.statistics();
    assert_eq!((statistics.stuck, statistics.late), (false, 1));
}

#[test]
fn a_full_queue_refuses() {
    let bench = gated();
    bench.worker.submit(request(0, LONG)).unwrap();
    bench.entered.recv().unwrap();
    bench.worker.submit(request(1, LONG)).unwrap();
    bench.worker.submit(request(2, LONG)).unwrap();
    assert_eq!(
        bench.worker.submit(request(3, LONG)),
        Err(Error::QueueFull { limit: 2 })
    );
    for _ in 0..3 {
        bench.leave.send(()).unwrap();
    }
    let answered: Vec<u64> = bench
        .completions
        .iter()
        .take(3)
        .map(|completion| completion.id)
        .collect();
    assert_eq!(answered, [0, 1, 2]);
}

#[test]
fn dropping_it_answers_everybody_although_the_token_hangs() {
    let Bench {
        worker,
        completions,
        entered,
        leave,
        ..
    } = gated();
    worker.submit(request(1, LONG)).unwrap();
    entered.recv().unwrap();
    worker.submit(request(2, LONG)).unwrap();
    drop(worker);
    let answers: Vec<Completion> = completions.try_iter().collect();
    assert_eq!(answers.len(), 2);
    assert!(
        answers
            .iter()
            .all(|completion| completion.result == Err(Error::Stopped))
    );
    drop(leave);
}

#[test]
fn a_signer_that_does_not_open_fails_all_requests() {
    let (deliver, completions) = channel();
    let (open, may_open) = mpsc::channel::<()>();
    let error = Error::Missing { what: "a key" };
    let failure = error.clone();
    let opener = move || {
        may_open.recv().unwrap();
        Err(failure)
    };
    let worker = Worker::start(Limits::default(), opener, deliver).unwrap();
    let opening = worker.wait_open(Duration::ZERO);
    assert_eq!(
        opening,
        Err(Error::TimedOut {
            after: Duration::ZERO,
            stage: Stage::Opening
        })
    );
    worker.submit(request(1, LONG)).unwrap();
    open.send(()).unwrap();
    assert_eq!(worker.wait_open(LONG), Err(error.clone()));
    assert_eq!(completions.recv().unwrap().result, Err(error.clone()));
    assert_eq!(worker.submit(request(2, LONG)), Err(error));
}

#[test]
fn a_signer_that_panics_leaves_nobody_waiting() {
    struct Panicking(SoftwareSigner);
    impl Signer for Panicking {
        fn public_key(&self) -> &PublicKey {
            self.0.public_key()
        }

        fn sign(&mut self, _message: &[u8]) -> Result<Signature, Error> {
            panic!("a bug in a signer")
        }

        fn location(&self) -> String {
            String::new()
        }
    }
    let (deliver, completions) = channel();
    let signer = Panicking(SoftwareSigner::generate(Algorithm::Ed25519).unwrap());
    let worker = Worker::start(Limits::default(), move || Ok(Box::new(signer)), deliver).unwrap();
    worker.submit(request(1, LONG)).unwrap();
    assert_eq!(completions.recv().unwrap().result, Err(Error::Stopped));
    assert_eq!(worker.submit(request(2, LONG)), Err(Error::Stopped));
}

#[test]
fn the_callers_function_may_submit_again() {
    let (sender, receiver) = mpsc::channel();
    let signer = SoftwareSigner::generate(Algorithm::P256).unwrap();
    let slot: Arc<Mutex<Option<Worker>>> = Arc::default();
    let for_deliver = Arc::clone(&slot);
    let deliver = Box::new(move |completion: Completion| {
        if completion.id == 1 {
            for_deliver
                .lock()
                .unwrap()
                .as_ref()
                .unwrap()
                .submit(request(2, LONG))
                .unwrap();
        }
        sender.send(completion.id).unwrap();
    });
    let worker = Worker::start(Limits::default(), move || Ok(Box::new(signer)), deliver).unwrap();
    let mut held = slot.lock().unwrap();
    worker.submit(request(1, LONG)).unwrap();
    *held = Some(worker);
    drop(held);
    assert_eq!(receiver.recv().unwrap(), 1);
    assert_eq!(receiver.recv().unwrap(), 2);
    let worker = slot.lock().unwrap().take();
    drop(worker);
}
