use super::*;
use crate::clock;
use crate::error::ErrorKind;

const SECOND: Duration = Duration::from_secs(1);
const SIGNATURE: Signature = [7; 64];

fn request(id: u64, priority: Priority, timeout: Duration) -> Request {
    Request {
        id,
        priority,
        message: vec![u8::try_from(id).unwrap()],
        timeout,
    }
}

fn unavailable(retry_after: Duration) -> Error {
    let cause = Box::new(Error::TokenNotFound {
        uri: "pkcs11:token=a".into(),
        offered: vec![],
    });
    Error::Unavailable {
        key: "pkcs11:".into(),
        retry_after,
        cause,
    }
}

/// Submits requests with a minute each and a queue of room for four.
fn queue_of(requests: &[(u64, Priority)]) -> (Queue, Instant) {
    let now = clock::now();
    let mut queue = Queue::new(4);
    for &(id, priority) in requests {
        queue.submit(now, request(id, priority, SECOND * 60)).unwrap();
    }
    (queue, now)
}

#[test]
fn serves_the_urgent_first_and_equals_in_order() {
    let (mut queue, now) = queue_of(&[
        (1, Priority::Enrolment),
        (2, Priority::LiveProof),
        (3, Priority::Renewal),
        (4, Priority::LiveProof),
        (5, Priority::Renewal),
    ]);
    let mut order = Vec::new();
    while let Next::Sign(message) = queue.next(now) {
        order.extend(message);
        queue.finish(now, Ok(SIGNATURE)).unwrap();
    }
    assert_eq!(order, [3, 5, 2, 4, 1]);
    assert_eq!(queue.statistics().signatures, 5);
    assert_eq!(queue.next_deadline(), None);
}

#[test]
fn a_full_lane_refuses_and_leaves_room_for_the_urgent() {
    let (mut queue, now) = queue_of(&[(1, Priority::LiveProof); 4]);
    let refused = queue.submit(now, request(2, Priority::LiveProof, SECOND));
    assert_eq!(refused, Err(Error::QueueFull { limit: 4 }));
    queue.submit(now, request(3, Priority::Renewal, SECOND)).unwrap();
    let statistics = queue.statistics();
    assert_eq!((statistics.waiting, statistics.refused), (5, 1));
    assert_eq!(statistics.errors.get(&ErrorKind::Refused), Some(&1));
}

#[test]
fn measures_the_token_and_not_the_queue() {
    let (mut queue, now) = queue_of(&[(1, Priority::Renewal), (2, Priority::Renewal)]);
    queue.next(now + SECOND);
    let completion = queue.finish(now + SECOND * 4, Ok(SIGNATURE)).unwrap();
    assert_eq!(
        completion,
        Completion {
            id: 1,
            result: Ok(SIGNATURE),
            elapsed: SECOND * 4
        }
    );
    queue.next(now + SECOND * 4);
    queue.finish(now + SECOND * 5, Ok(SIGNATURE)).unwrap();
    let statistics = queue.statistics();
    assert_eq!(
        (statistics.latency_last, statistics.latency_max),
        (SECOND, SECOND * 3)
    );
}

#[test]
fn a_silent_token_costs_its_request_and_is_called_stuck() {
    let now = clock::now();
    let mut queue = Queue::new(4);
    queue.submit(now, request(1, Priority::Renewal, SECOND)).unwrap();
    queue
        .submit(now, request(2, Priority::Renewal, SECOND * 2))
        .unwrap();
    queue.next(now);
    assert_eq!(queue.next_deadline(), Some(now + SECOND));
    assert_eq!(queue.expire(now + SECOND / 2), []);
    let timed_out = |stage, seconds| {
        Err(Error::TimedOut {
            after: SECOND * seconds,
            stage,
        })
    };
    let expired = queue.expire(now + SECOND);
    assert_eq!(
        expired,
        [Completion {
            id: 1,
            result: timed_out(Stage::Signing, 1),
            elapsed: SECOND
        }]
    );
    assert!(queue.statistics().stuck);
    let expired = queue.expire(now + SECOND * 3);
    assert_eq!(
        expired,
        [Completion {
            id: 2,
            result: timed_out(Stage::Queued, 2),
            elapsed: SECOND * 3
        }]
    );

    // The token comes back with an answer nobody waits for any more.
    assert_eq!(queue.finish(now + SECOND * 9, Ok(SIGNATURE)), None);
    let statistics = queue.statistics();
    assert_eq!(
        (statistics.stuck, statistics.stuck_total, statistics.late),
        (false, 1, 1)
    );
    assert_eq!(statistics.errors.get(&ErrorKind::TimedOut), Some(&2));
}

#[test]
fn an_unavailable_token_is_left_alone_and_the_request_tried_again() {
    let (mut queue, now) = queue_of(&[(1, Priority::LiveProof), (2, Priority::LiveProof)]);
    assert_eq!(queue.next(now), Next::Sign(vec![1]));
    assert_eq!(queue.finish(now, Err(unavailable(SECOND * 2))), None);
    assert_eq!(queue.next(now + SECOND), Next::WaitUntil(now + SECOND * 2));
    assert_eq!(queue.next(now + SECOND * 2), Next::Sign(vec![1]));
    assert_eq!(queue.finish(now + SECOND * 3, Ok(SIGNATURE)).unwrap().id, 1);
    assert_eq!(queue.next(now + SECOND * 3), Next::Sign(vec![2]));
    assert_eq!(queue.statistics().errors.get(&ErrorKind::Token), Some(&1));
}

#[test]
fn a_request_that_times_out_while_the_token_rests_says_why() {
    let now = clock::now();
    let mut queue = Queue::new(4);
    queue.submit(now, request(1, Priority::Renewal, SECOND)).unwrap();
    queue.next(now);
    queue.finish(now, Err(unavailable(SECOND * 60)));
    let [completion] = queue.expire(now + SECOND).try_into().unwrap();
    let Err(Error::TimedOut {
        stage: Stage::Waiting(problem),
        ..
    }) = completion.result
    else {
        panic!("{completion:?}")
    };
    assert!(problem.contains("no token matches pkcs11:token=a"), "{problem}");
}

#[test]
fn a_failure_that_time_does_not_cure_is_answered_at_once() {
    let (mut queue, now) = queue_of(&[(1, Priority::Renewal), (2, Priority::Renewal)]);
    queue.next(now);
    let error = Error::PinUnset {
        token: "pkcs11:".into(),
    };
    assert_eq!(queue.finish(now, Err(error.clone())).unwrap().result, Err(error));
    assert_eq!(queue.next(now), Next::Sign(vec![2]));
}

#[test]
fn an_unavailable_token_at_the_deadline_is_answered() {
    let now = clock::now();
    let mut queue = Queue::new(4);
    queue.submit(now, request(1, Priority::Renewal, SECOND)).unwrap();
    queue.next(now);
    let completion = queue.finish(now + SECOND, Err(unavailable(SECOND))).unwrap();
    assert_eq!(completion.result, Err(unavailable(SECOND)));
}

#[test]
fn a_request_that_is_late_does_not_reach_the_token() {
    let now = clock::now();
    let mut queue = Queue::new(4);
    queue.submit(now, request(1, Priority::Renewal, SECOND)).unwrap();
    queue
        .submit(now, request(2, Priority::Renewal, SECOND * 5))
        .unwrap();
    assert_eq!(queue.next(now + SECOND), Next::Sign(vec![2]));
    assert_eq!(queue.expire(now + SECOND).len(), 1);
}

#[test]
fn stopping_answers_everybody_once() {
    let (mut queue, now) = queue_of(&[
        (1, Priority::Renewal),
        (2, Priority::LiveProof),
        (3, Priority::Enrolment),
    ]);
    queue.next(now);
    let stopped = queue.stop(now);
    assert_eq!(
        stopped.iter().map(|completion| completion.id).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(
        stopped
            .iter()
            .all(|completion| completion.result == Err(Error::Stopped))
    );
    assert_eq!(queue.finish(now, Ok(SIGNATURE)), None);
    assert_eq!(queue.stop(now), []);
}

mod model {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Submit(u8, u8),
        Next,
        Finish(u8),
        Expire,
        Pass(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_u8, 1..20_u8).prop_map(|(priority, timeout)| Step::Submit(priority, timeout)),
            Just(Step::Next),
            (0..3_u8).prop_map(Step::Finish),
            Just(Step::Expire),
            (0..10_u8).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order, each request taken is answered exactly once.
        #[test]
        fn every_request_gets_exactly_one_answer(steps in proptest::collection::vec(step(), 0..200)) {
            let mut now = clock::now();
            let mut queue = Queue::new(3);
            let (mut taken, mut answered) = (Vec::new(), Vec::new());
            let mut is_signing = false;
            for (id, step) in (0_u64..).zip(steps) {
                match step {
                    Step::Submit(priority, timeout) => {
                        let priority = [Priority::Renewal, Priority::LiveProof, Priority::Enrolment][usize::from(priority)];
                        let request = Request { id, priority, message: vec![], timeout: SECOND * timeout.into() };
                        if queue.submit(now, request).is_ok() {
                            taken.push(id);
                        }
                    }
                    Step::Next if !is_signing => is_signing = matches!(queue.next(now), Next::Sign(_)),
                    Step::Finish(outcome) if is_signing => {
                        let result = [Ok(SIGNATURE), Err(unavailable(SECOND)), Err(Error::PrivateKey)][usize::from(outcome)].clone();
                        answered.extend(queue.finish(now, result).map(|completion| completion.id));
                        is_signing = false;
                    }
                    Step::Next | Step::Finish(_) => {}
                    Step::Expire => answered.extend(queue.expire(now).iter().map(|completion| completion.id)),
                    Step::Pass(seconds) => now += SECOND * seconds.into(),
                }
                prop_assert!(queue.statistics().waiting <= 3 * 3 + 1);
            }
            answered.extend(queue.stop(now).iter().map(|completion| completion.id));
            answered.sort_unstable();
            prop_assert_eq!(answered, taken);
        }
    }
}
