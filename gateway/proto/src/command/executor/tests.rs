#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a test does not look at may be anything"
)]

use super::{
    super::{
        Cancel, Carried, Command, CommandError, CommandId, Guarantee, PAYLOAD_LEN_MAX, Query, Refusal,
        ResultAck,
    },
    *,
};
use crate::{
    channel::frames,
    time::{ClockQuality, WallTime},
};

const A: Identifier = Identifier::from_bytes([1; 32]);
const B: Identifier = Identifier::from_bytes([2; 32]);

fn at(secs: u64) -> Now {
    Now {
        instant: Instant::START + Duration::from_secs(secs),
        wall: WallTime {
            unix_millis: secs * 1000,
            quality: ClockQuality::Unknown,
        },
    }
}

fn order(guarantee: Guarantee, answer_wanted: bool) -> Order {
    Order {
        guarantee,
        answer_wanted,
        device: "pump".into(),
        resource: "valve".into(),
        content_type: Box::default(),
        payload: b"open".as_slice().into(),
    }
}

fn command(id: CommandId, order: Order, remaining_ms: u32) -> Vec<u8> {
    let mut out = Vec::new();
    Command {
        id,
        deadline: Carried {
            unix_millis: 0,
            quality: ClockQuality::Unknown,
            remaining_ms,
        },
        order: Arc::new(order),
    }
    .put(&mut out);
    out
}

fn say(executor: &mut Executor, now: Now, collector: Identifier, bytes: &[u8]) {
    for frame in frames(bytes) {
        let (kind, body) = frame.unwrap();
        executor.handle_frame(now, collector, kind, body).unwrap();
    }
}

/// Everything but storage, which is done at once, and permissions, which are given.
fn settle(executor: &mut Executor, now: Now) -> Vec<ExecutorOutput> {
    let mut rest = Vec::new();
    while let Some(output) = executor.poll_output() {
        match output {
            ExecutorOutput::Store { ticket, .. } => executor.handle_stored(now, ticket),
            ExecutorOutput::Authorise { question, .. } => {
                executor.handle_permission(now, question, Permission::Permitted);
            }
            ExecutorOutput::Forget { .. } => {}
            output => rest.push(output),
        }
    }
    rest
}

fn reported(outputs: &[ExecutorOutput]) -> Vec<State> {
    let sent = outputs.iter().filter_map(|output| match output {
        ExecutorOutput::Send { frame, .. } => {
            let (_, body) = frames(frame).next().unwrap().unwrap();
            Some(Report::decode(body).unwrap().state)
        }
        _ => None,
    });
    sent.collect()
}

fn delivered(outputs: &[ExecutorOutput]) -> Vec<u64> {
    let numbers = outputs.iter().filter_map(|output| match output {
        ExecutorOutput::Deliver { number, .. } => Some(*number),
        _ => None,
    });
    numbers.collect()
}

fn gateway() -> Executor {
    let mut executor = Executor::new(ExecutorSettings::default());
    executor.handle_up(at(0), A);
    executor
}

#[test]
fn queues_while_the_device_sleeps_and_hands_over_in_order() {
    let mut executor = gateway();
    for id in [1, 2] {
        let frame = command([id; 16], order(Guarantee::AtLeastOnce, false), 60_000);
        say(&mut executor, at(0), A, &frame);
    }
    let outputs = settle(&mut executor, at(0));
    assert_eq!(reported(&outputs), [State::Queued, State::Queued]);
    assert!(delivered(&outputs).is_empty());

    executor.handle_device_awake(at(5), "pump");
    let outputs = settle(&mut executor, at(5));
    assert_eq!(delivered(&outputs), [1]);
    executor.handle_delivered(at(6), 1, Delivered::Acknowledged { can_answer: true });
    let outputs = settle(&mut executor, at(6));
    assert_eq!(delivered(&outputs), [2]);
    assert_eq!(reported(&outputs), [State::Delivered]);
}

#[test]
fn nobody_is_told_anything_before_it_is_kept() {
    let mut executor = gateway();
    executor.handle_device_awake(at(0), "pump");
    let frame = command([1; 16], order(Guarantee::AtMostOnce, false), 60_000);
    say(&mut executor, at(0), A, &frame);
    let Some(ExecutorOutput::Authorise { question, .. }) = executor.poll_output() else {
        panic!("no question");
    };
    executor.handle_permission(at(0), question, Permission::Permitted);
    for _ in 0..2 {
        // First that it is accepted, then that it is handed over.
        let Some(ExecutorOutput::Store { ticket, .. }) = executor.poll_output() else {
            panic!("not kept");
        };
        assert_eq!(executor.poll_output(), None);
        executor.handle_stored(at(0), ticket);
        if let Some(output) = executor.outputs.front()
            && matches!(output, ExecutorOutput::Send { .. })
        {
            executor.poll_output();
        }
    }
    assert!(matches!(
        executor.poll_output(),
        Some(ExecutorOutput::Deliver { .. })
    ));
}

#[test]
fn a_right_is_asked_for_once_and_again_after_it_may_have_changed() {
    let mut executor = gateway();
    for id in [1, 2, 3] {
        let frame = command([id; 16], order(Guarantee::AtLeastOnce, false), 60_000);
        say(&mut executor, at(0), A, &frame);
    }
    let mut questions = Vec::new();
    while let Some(output) = executor.poll_output() {
        if let ExecutorOutput::Authorise { question, .. } = output {
            questions.push(question);
        }
    }
    assert_eq!(questions.len(), 1);
    executor.handle_rights_changed(at(0));
    let Some(ExecutorOutput::Authorise { question, .. }) = executor.poll_output() else {
        panic!("not asked again");
    };
    // The answer under the policy before counts no more.
    executor.handle_permission(at(0), questions[0], Permission::Permitted);
    assert_eq!(executor.poll_output(), None);
    executor.handle_permission(at(0), question, Permission::Refused);
    let outputs = settle(&mut executor, at(0));
    let refused = State::Refused(Refusal::NotAuthorised);
    assert_eq!(reported(&outputs), [refused.clone(), refused.clone(), refused]);
    assert_eq!(executor.stats().refused, 3);
}

#[test]
fn a_queued_command_is_refused_if_the_policy_has_changed() {
    let mut executor = gateway();
    let frame = command([1; 16], order(Guarantee::AtLeastOnce, false), 60_000);
    say(&mut executor, at(0), A, &frame);
    settle(&mut executor, at(0));
    executor.handle_rights_changed(at(1));
    executor.handle_device_awake(at(1), "pump");
    let Some(ExecutorOutput::Authorise { question, .. }) = executor.poll_output() else {
        panic!("not asked");
    };
    executor.handle_permission(at(1), question, Permission::UnknownDevice);
    let outputs = settle(&mut executor, at(1));
    assert!(delivered(&outputs).is_empty());
    assert_eq!(reported(&outputs), [State::UnknownDevice]);
}

#[test]
fn only_the_device_that_was_addressed_can_answer() {
    let mut executor = gateway();
    executor.handle_device_awake(at(0), "pump");
    let frame = command([1; 16], order(Guarantee::AtLeastOnce, true), 60_000);
    say(&mut executor, at(0), A, &frame);
    settle(&mut executor, at(0));
    executor.handle_delivered(at(1), 1, Delivered::Acknowledged { can_answer: true });
    assert_eq!(reported(&settle(&mut executor, at(1))), [State::Acknowledged]);
    let answer = |executor: &mut Executor, device, key, len| {
        executor.handle_answer(at(2), device, key, "text/plain", &vec![7; len])
    };
    assert_eq!(answer(&mut executor, "lamp", (1, [1; 16]), 1), Ok(false));
    assert_eq!(answer(&mut executor, "pump", (1, [2; 16]), 1), Ok(false));
    assert_eq!(answer(&mut executor, "pump", (2, [1; 16]), 1), Ok(false));
    assert!(matches!(
        answer(&mut executor, "pump", (1, [1; 16]), PAYLOAD_LEN_MAX + 1),
        Err(CommandError::TooLong { .. })
    ));
    assert_eq!(answer(&mut executor, "pump", (1, [1; 16]), 3), Ok(true));
    let outputs = settle(&mut executor, at(2));
    let [State::Answered(answer)] = &reported(&outputs)[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(&*answer.payload, [7, 7, 7]);
    assert_eq!(executor.stats().answers_ignored, 3);
}

#[test]
fn results_are_repeated_until_they_are_acknowledged() {
    let mut executor = gateway();
    executor.handle_device_awake(at(0), "pump");
    let frame = command([1; 16], order(Guarantee::AtLeastOnce, false), 60_000);
    say(&mut executor, at(0), A, &frame);
    settle(&mut executor, at(0));
    executor.handle_delivered(at(0), 1, Delivered::Acknowledged { can_answer: false });
    assert_eq!(reported(&settle(&mut executor, at(0))), [State::Delivered]);
    executor.handle_timeout(at(1));
    assert!(settle(&mut executor, at(1)).is_empty());
    executor.handle_timeout(at(2));
    assert_eq!(reported(&settle(&mut executor, at(2))), [State::Delivered]);
    // Another channel: at once.
    executor.handle_down(A);
    executor.handle_up(at(3), A);
    assert_eq!(reported(&settle(&mut executor, at(3))), [State::Delivered]);
    let mut ack = Vec::new();
    ResultAck { id: [1; 16] }.put(&mut ack);
    say(&mut executor, at(4), A, &ack);
    settle(&mut executor, at(4));
    assert_eq!(executor.unreported(), 0);
    // A copy that was on its way is recognised, and the id forgotten in the end.
    say(&mut executor, at(5), A, &frame);
    assert_eq!(reported(&settle(&mut executor, at(5))), [State::Delivered]);
    assert_eq!(executor.stats().duplicates, 1);
    executor.handle_timeout(at(60 + 600));
    assert_eq!(executor.poll_output(), Some(ExecutorOutput::Forget { number: 1 }));
    assert_eq!((executor.poll_timeout(), executor.by_id.len()), (None, 0));
}

#[test]
fn an_id_belongs_to_the_collector_that_drew_it() {
    let mut executor = gateway();
    executor.handle_up(at(0), B);
    let frame = command([1; 16], order(Guarantee::AtLeastOnce, false), 60_000);
    say(&mut executor, at(0), A, &frame);
    settle(&mut executor, at(0));
    let mut cancel = Vec::new();
    Cancel {
        id: [1; 16],
        remaining_ms: 1000,
    }
    .put(&mut cancel);
    say(&mut executor, at(0), B, &cancel);
    assert_eq!(reported(&settle(&mut executor, at(0))), [State::Cancelled]);
    assert_eq!(executor.waiting().count(), 1);
    say(&mut executor, at(0), A, &cancel);
    settle(&mut executor, at(0));
    assert_eq!(executor.waiting().count(), 0);
}

#[test]
fn a_command_that_was_asked_after_is_not_taken_any_more() {
    let mut executor = gateway();
    let mut query = Vec::new();
    Query {
        id: [1; 16],
        guarantee: Guarantee::AtMostOnce,
        remaining_ms: 60_000,
    }
    .put(&mut query);
    say(&mut executor, at(0), A, &query);
    assert_eq!(reported(&settle(&mut executor, at(0))), [State::Lost]);
    let frame = command([1; 16], order(Guarantee::AtMostOnce, false), 60_000);
    say(&mut executor, at(0), A, &frame);
    assert_eq!(reported(&settle(&mut executor, at(0))), [State::Lost]);
    assert_eq!(executor.waiting().count(), 0);
}

#[test]
fn commands_and_bytes_have_bounds() {
    let mut executor = Executor::new(ExecutorSettings {
        commands_max: 2,
        bytes_max: 3 * PAYLOAD_LEN_MAX,
        remembered_max: 2,
        ..ExecutorSettings::default()
    });
    executor.handle_up(at(0), A);
    executor.handle_up(at(0), B);
    let send = |executor: &mut Executor, collector, id, answer| {
        let frame = command([id; 16], order(Guarantee::AtLeastOnce, answer), 60_000);
        say(executor, at(0), collector, &frame);
        reported(&settle(executor, at(0)))
    };
    let limit = State::Refused(Refusal::Limit);
    assert_eq!(send(&mut executor, A, 1, true), [State::Queued]);
    assert_eq!(send(&mut executor, A, 2, true), [State::Queued]);
    assert_eq!(send(&mut executor, A, 3, false), std::slice::from_ref(&limit));
    // The other collector has commands of its own, and the bytes are everybody's.
    assert_eq!(send(&mut executor, B, 1, false), [State::Queued]);
    assert_eq!(send(&mut executor, B, 2, true), std::slice::from_ref(&limit));
    assert_eq!(executor.bytes(), 2 * PAYLOAD_LEN_MAX + 12);
    // Refusals that are remembered have a bound as well; beyond it nothing is said, so that nothing has to be remembered.
    assert_eq!(send(&mut executor, A, 4, false), [limit]);
    assert_eq!(send(&mut executor, A, 5, false), []);
    assert_eq!(executor.by_id.len(), 6);
}

#[test]
fn a_restart_without_a_clock_waits_for_the_collectors_word() {
    let mut executor = gateway();
    let frame = command([1; 16], order(Guarantee::AtLeastOnce, false), 60_000);
    say(&mut executor, at(0), A, &frame);
    let mut kept = None;
    while let Some(output) = executor.poll_output() {
        match output {
            ExecutorOutput::Authorise { question, .. } => {
                executor.handle_permission(at(0), question, Permission::Permitted);
            }
            ExecutorOutput::Store { ticket, record, .. } => {
                kept = Some(record);
                executor.handle_stored(at(0), ticket);
            }
            _ => {}
        }
    }
    let mut executor = Executor::new(ExecutorSettings::default());
    executor.restore(at(0), &kept.unwrap()).unwrap();
    executor.handle_up(at(1), A);
    executor.handle_device_awake(at(1), "pump");
    assert!(delivered(&settle(&mut executor, at(1))).is_empty());
    let mut query = Vec::new();
    Query {
        id: [1; 16],
        guarantee: Guarantee::AtLeastOnce,
        remaining_ms: 10_000,
    }
    .put(&mut query);
    say(&mut executor, at(2), A, &query);
    let outputs = settle(&mut executor, at(2));
    assert_eq!(reported(&outputs), [State::Queued]);
    assert_eq!(delivered(&outputs), [1]);
}

#[test]
fn what_the_store_refuses_is_refused_or_put_off() {
    let mut executor = gateway();
    executor.handle_device_awake(at(0), "pump");
    let frame = command([1; 16], order(Guarantee::AtLeastOnce, false), 60_000);
    let mut fail = true;
    for id in [1, 2] {
        let frame = if id == 1 {
            frame.clone()
        } else {
            command([2; 16], order(Guarantee::AtLeastOnce, false), 60_000)
        };
        say(&mut executor, at(0), A, &frame);
        let mut states = Vec::new();
        while let Some(output) = executor.poll_output() {
            match output {
                ExecutorOutput::Authorise { question, .. } => {
                    executor.handle_permission(at(0), question, Permission::Permitted);
                }
                ExecutorOutput::Store { ticket, .. } if fail => executor.handle_store_failed(at(0), ticket),
                ExecutorOutput::Store { ticket, .. } => {
                    executor.handle_stored(at(0), ticket);
                    // The second is accepted; what fails is the note that it is handed over.
                    fail = true;
                }
                output => states.extend(reported(&[output])),
            }
        }
        let expected = if id == 1 {
            State::Refused(Refusal::Storage)
        } else {
            State::Queued
        };
        assert_eq!(states, [expected]);
        fail = false;
    }
    assert_eq!(executor.poll_timeout(), Some(at(1).instant));
    executor.handle_timeout(at(1));
    assert_eq!(delivered(&settle(&mut executor, at(1))).len(), 1);
}

#[test]
fn a_device_that_takes_nothing_is_not_asked_without_end() {
    let mut executor = gateway();
    executor.handle_device_awake(at(0), "pump");
    let frame = command([1; 16], order(Guarantee::AtMostOnce, false), 60_000);
    say(&mut executor, at(0), A, &frame);
    let mut times = Vec::new();
    for secs in 0..20 {
        executor.handle_timeout(at(secs));
        for number in delivered(&settle(&mut executor, at(secs))) {
            times.push(secs);
            executor.handle_delivered(at(secs), number, Delivered::NotHanded);
            assert!(delivered(&settle(&mut executor, at(secs))).is_empty());
        }
    }
    assert_eq!(times, [0, 2, 6, 14]);
}

#[test]
fn a_frame_of_the_wrong_kind_is_refused() {
    assert_eq!(
        gateway().handle_frame(at(0), A, 0x2a, &[]),
        Err(CommandError::OutOfPlace { kind: 0x2a })
    );
}

#[test]
fn what_nobody_could_decide_is_asked_again_when_the_collector_repeats_it() {
    let mut executor = gateway();
    let frame = command([1; 16], order(Guarantee::AtLeastOnce, false), 60_000);
    say(&mut executor, at(0), A, &frame);
    let Some(ExecutorOutput::Authorise { question, .. }) = executor.poll_output() else {
        panic!("no question");
    };
    executor.handle_permission(at(0), question, Permission::Undecided);
    assert_eq!(executor.poll_output(), None);
    say(&mut executor, at(2), A, &frame);
    assert_eq!(reported(&settle(&mut executor, at(2))), [State::Queued]);
    assert_eq!(executor.stats().accepted, 1);
}
