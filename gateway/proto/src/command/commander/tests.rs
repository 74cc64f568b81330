#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a test does not look at may be anything"
)]

use super::{
    super::{Answer, CANCEL, COMMAND, QUERY, RESOURCE_LEN_MAX, RESULT_ACK},
    *,
};
use crate::{
    channel::frames,
    time::{ClockQuality, WallTime},
};

const GATEWAY: Identifier = Identifier::from_bytes([2; 32]);

fn at(secs: u64) -> Now {
    Now {
        instant: Instant::START + Duration::from_secs(secs),
        wall: WallTime {
            unix_millis: secs * 1000,
            quality: ClockQuality::Synchronised,
        },
    }
}

fn order(guarantee: Guarantee, device: &str) -> Order {
    Order {
        guarantee,
        answer_wanted: false,
        device: device.into(),
        resource: "valve".into(),
        content_type: Box::default(),
        payload: b"open".as_slice().into(),
    }
}

/// Stores at once; returns the kinds and ids of frames, and what else there is.
fn settle(commander: &mut Commander, now: Now) -> (Vec<(u8, u8)>, Vec<CommanderOutput>) {
    let (mut sent, mut rest) = (Vec::new(), Vec::new());
    while let Some(output) = commander.poll_output() {
        match output {
            CommanderOutput::Store { ticket, .. } => commander.handle_stored(now, ticket),
            CommanderOutput::Send { frames: bytes, .. } => {
                sent.extend(frames(&bytes).map(|frame| {
                    let (kind, body) = frame.unwrap();
                    (kind, body[0])
                }));
            }
            output => rest.push(output),
        }
    }
    (sent, rest)
}

fn submit(commander: &mut Commander, id: u8, guarantee: Guarantee, device: &str) {
    let order = order(guarantee, device);
    commander
        .submit(at(0), [id; 16], GATEWAY, order, Duration::from_mins(1))
        .unwrap();
}

fn hear(commander: &mut Commander, now: Now, id: u8, state: State) {
    let report = Report {
        id: [id; 16],
        at: now.wall,
        state,
    };
    let mut frame = Vec::new();
    report.put(&mut frame);
    let (kind, body) = frames(&frame).next().unwrap().unwrap();
    commander.handle_frame(now, GATEWAY, kind, body).unwrap();
}

#[test]
fn sends_once_and_then_asks_what_may_be_handed_over_at_most_once() {
    let mut commander = Commander::new(CommanderSettings::default());
    submit(&mut commander, 1, Guarantee::AtMostOnce, "pump");
    commander.handle_up(at(0), GATEWAY);
    assert_eq!(settle(&mut commander, at(0)).0, [(COMMAND, 1)]);
    commander.handle_timeout(at(2));
    assert_eq!(settle(&mut commander, at(2)).0, [(QUERY, 1)]);
    commander.handle_down(at(3), GATEWAY);
    commander.handle_up(at(3), GATEWAY);
    assert_eq!(settle(&mut commander, at(3)).0, [(QUERY, 1)]);
    hear(&mut commander, at(4), 1, State::Lost);
    let (sent, rest) = settle(&mut commander, at(4));
    assert_eq!(sent, [(RESULT_ACK, 1)]);
    assert!(matches!(&rest[..], [CommanderOutput::Finished { report }] if report.state == State::Lost));
}

#[test]
fn repeats_what_may_be_handed_over_again_until_it_is_heard_of() {
    let mut commander = Commander::new(CommanderSettings::default());
    submit(&mut commander, 1, Guarantee::AtLeastOnce, "pump");
    commander.handle_up(at(0), GATEWAY);
    settle(&mut commander, at(0));
    let mut times = Vec::new();
    for secs in 1..31 {
        commander.handle_timeout(at(secs));
        times.extend(settle(&mut commander, at(secs)).0.iter().map(|_| secs));
    }
    assert_eq!(times, [2, 6, 14, 30]);
    hear(&mut commander, at(31), 1, State::Queued);
    commander.handle_timeout(at(59));
    assert!(settle(&mut commander, at(59)).0.is_empty());
    // In another channel it is asked after, and sent again if the gateway has lost it.
    commander.handle_up(at(59), GATEWAY);
    assert_eq!(settle(&mut commander, at(59)).0, [(QUERY, 1)]);
    hear(&mut commander, at(59), 1, State::Lost);
    assert_eq!(settle(&mut commander, at(59)).0, [(COMMAND, 1)]);
}

#[test]
fn the_next_for_a_device_waits_until_the_one_before_has_arrived() {
    let mut commander = Commander::new(CommanderSettings::default());
    for (id, device) in [(1, "pump"), (2, "pump"), (3, "lamp")] {
        submit(&mut commander, id, Guarantee::AtLeastOnce, device);
    }
    commander.handle_up(at(0), GATEWAY);
    assert_eq!(settle(&mut commander, at(0)).0, [(COMMAND, 1), (COMMAND, 3)]);
    hear(&mut commander, at(0), 1, State::Queued);
    assert_eq!(settle(&mut commander, at(0)).0, [(COMMAND, 2)]);
}

#[test]
fn no_more_than_a_window_is_on_its_way() {
    let mut commander = Commander::new(CommanderSettings::default());
    for id in 0..40 {
        submit(
            &mut commander,
            id,
            Guarantee::AtLeastOnce,
            &format!("device {id}"),
        );
    }
    commander.handle_up(at(0), GATEWAY);
    let sent = settle(&mut commander, at(0)).0;
    assert_eq!(sent.len(), WINDOW);
    hear(&mut commander, at(0), 3, State::Queued);
    assert_eq!(settle(&mut commander, at(0)).0, [(COMMAND, 16)]);
}

#[test]
fn a_deadline_ends_what_never_left_and_what_nothing_is_heard_of() {
    let mut commander = Commander::new(CommanderSettings::default());
    submit(&mut commander, 1, Guarantee::AtLeastOnce, "pump");
    settle(&mut commander, at(0));
    commander.handle_timeout(at(60));
    let (_, rest) = settle(&mut commander, at(60));
    assert!(matches!(&rest[..], [CommanderOutput::Finished { report }] if report.state == State::Expired));

    let mut commander = Commander::new(CommanderSettings::default());
    submit(&mut commander, 1, Guarantee::AtLeastOnce, "pump");
    commander.handle_up(at(0), GATEWAY);
    settle(&mut commander, at(0));
    commander.handle_timeout(at(69));
    assert!(settle(&mut commander, at(69)).1.is_empty());
    commander.handle_timeout(at(70));
    let (_, rest) = settle(&mut commander, at(70));
    assert!(
        matches!(&rest[..], [CommanderOutput::Finished { report }] if report.state == State::Unconfirmed)
    );
    // The truth comes late, and counts.
    hear(&mut commander, at(80), 1, State::Delivered);
    let (sent, rest) = settle(&mut commander, at(80));
    assert_eq!(sent, [(RESULT_ACK, 1)]);
    assert!(matches!(&rest[..], [CommanderOutput::Finished { report }] if report.state == State::Delivered));
    // It does not change any more.
    hear(&mut commander, at(81), 1, State::Rejected(0x80));
    let (sent, rest) = settle(&mut commander, at(81));
    assert_eq!((sent, rest), (vec![(RESULT_ACK, 1)], Vec::new()));
}

#[test]
fn a_command_is_taken_back_here_before_it_left_and_there_afterwards() {
    let mut commander = Commander::new(CommanderSettings::default());
    submit(&mut commander, 1, Guarantee::AtLeastOnce, "pump");
    settle(&mut commander, at(0));
    commander.cancel(at(1), &[1; 16]).unwrap();
    let (_, rest) = settle(&mut commander, at(1));
    assert!(matches!(&rest[..], [CommanderOutput::Finished { report }] if report.state == State::Cancelled));
    assert_eq!(
        commander.cancel(at(1), &[1; 16]),
        Err(CancelError::Finished { state: "cancelled" })
    );

    submit(&mut commander, 2, Guarantee::AtLeastOnce, "pump");
    commander.handle_up(at(1), GATEWAY);
    settle(&mut commander, at(1));
    commander.cancel(at(1), &[2; 16]).unwrap();
    assert_eq!(settle(&mut commander, at(1)).0, [(CANCEL, 2)]);
    assert_eq!(commander.cancel(at(1), &[9; 16]), Err(CancelError::Unknown));
}

#[test]
fn an_answer_that_nobody_wanted_is_dropped() {
    let mut commander = Commander::new(CommanderSettings::default());
    submit(&mut commander, 1, Guarantee::AtLeastOnce, "pump");
    commander.handle_up(at(0), GATEWAY);
    settle(&mut commander, at(0));
    let answer = Answer {
        content_type: Box::default(),
        payload: vec![0; 100].into(),
    };
    hear(&mut commander, at(0), 1, State::Answered(answer));
    let (_, rest) = settle(&mut commander, at(0));
    assert!(matches!(&rest[..], [CommanderOutput::Finished { report }] if report.state == State::Delivered));
    assert_eq!(commander.bytes(), 0);
}

#[test]
fn another_gateway_cannot_speak_of_it() {
    let mut commander = Commander::new(CommanderSettings::default());
    submit(&mut commander, 1, Guarantee::AtLeastOnce, "pump");
    commander.handle_up(at(0), GATEWAY);
    settle(&mut commander, at(0));
    let mut frame = Vec::new();
    Report {
        id: [1; 16],
        at: at(0).wall,
        state: State::Delivered,
    }
    .put(&mut frame);
    let (kind, body) = frames(&frame).next().unwrap().unwrap();
    let other = Identifier::from_bytes([9; 32]);
    commander.handle_frame(at(0), other, kind, body).unwrap();
    assert!(matches!(
        commander.command(&[1; 16]).map(|view| view.stage),
        Some(Stage::Sent)
    ));
}

#[test]
fn commands_and_bytes_have_bounds_and_finished_ones_make_room() {
    let mut commander = Commander::new(CommanderSettings {
        per_gateway_max: 3,
        commands_max: 4,
        bytes_max: 2 * PAYLOAD_LEN_MAX,
        ..CommanderSettings::default()
    });
    let minute = Duration::from_mins(1);
    let try_submit = |commander: &mut Commander, id, gateway: u8, answer_wanted| {
        let mut order = order(Guarantee::AtLeastOnce, "pump");
        order.answer_wanted = answer_wanted;
        let result = commander.submit(
            at(0),
            [id; 16],
            Identifier::from_bytes([gateway; 32]),
            order,
            minute,
        );
        settle(commander, at(0));
        result
    };
    for id in [1, 2, 3] {
        assert_eq!(try_submit(&mut commander, id, 2, false), Ok(()));
    }
    assert_eq!(try_submit(&mut commander, 1, 2, false), Err(SubmitError::Known));
    assert_eq!(
        try_submit(&mut commander, 4, 2, false),
        Err(SubmitError::Gateway { max: 3 })
    );
    assert_eq!(try_submit(&mut commander, 4, 3, true), Ok(()));
    let full = SubmitError::Full {
        count: 4,
        bytes: PAYLOAD_LEN_MAX + 16,
    };
    assert_eq!(try_submit(&mut commander, 5, 3, false), Err(full));
    commander.cancel(at(0), &[2; 16]).unwrap();
    settle(&mut commander, at(0));
    assert_eq!(try_submit(&mut commander, 5, 3, false), Ok(()));
    assert_eq!(commander.command(&[2; 16]), None);
}

#[test]
fn orders_that_are_none_are_refused() {
    let mut commander = Commander::new(CommanderSettings::default());
    let minute = Duration::from_mins(1);
    let mut bad = order(Guarantee::AtLeastOnce, "pump");
    bad.resource = "r".repeat(RESOURCE_LEN_MAX + 1).into();
    assert!(matches!(
        commander.submit(at(0), [1; 16], GATEWAY, bad, minute),
        Err(SubmitError::Order(CommandError::TooLong { .. }))
    ));
    for remaining in [Duration::ZERO, DEADLINE_MAX + Duration::from_secs(1)] {
        let order = order(Guarantee::AtLeastOnce, "pump");
        assert!(matches!(
            commander.submit(at(0), [1; 16], GATEWAY, order, remaining),
            Err(SubmitError::Deadline { .. })
        ));
    }
    assert_eq!(commander.poll_output(), None);
}

#[test]
fn a_finished_command_is_forgotten_after_a_day() {
    let mut commander = Commander::new(CommanderSettings::default());
    submit(&mut commander, 1, Guarantee::AtLeastOnce, "pump");
    settle(&mut commander, at(0));
    commander.cancel(at(0), &[1; 16]).unwrap();
    settle(&mut commander, at(0));
    commander.handle_timeout(at(24 * 3600 - 1));
    assert_eq!(commander.commands().count(), 1);
    commander.handle_timeout(at(24 * 3600));
    assert_eq!(commander.commands().count(), 0);
    assert_eq!(
        commander.poll_output(),
        Some(CommanderOutput::Forget { id: [1; 16] })
    );
}

#[test]
fn what_cannot_be_kept_is_not_sent() {
    let mut commander = Commander::new(CommanderSettings::default());
    commander.handle_up(at(0), GATEWAY);
    submit(&mut commander, 1, Guarantee::AtLeastOnce, "pump");
    let Some(CommanderOutput::Store { ticket, .. }) = commander.poll_output() else {
        panic!("not to be kept");
    };
    commander.handle_store_failed(at(0), ticket);
    assert_eq!(
        commander.poll_output(),
        Some(CommanderOutput::NotKept { id: [1; 16] })
    );
    assert_eq!(commander.commands().count(), 0);
}
