//! Frames and records come back as they were written, and nothing else is read.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::{
    Answer, Cancel, Carried, Command, CommandError, CommandId, Guarantee, Order, PAYLOAD_LEN_MAX, Query,
    RESOURCE_LEN_MAX, RecordError, Refusal, Report, ResultAck, State,
    record::{CommanderRecord, ExecutorRecord, Kept, Leaving},
};
use crate::{
    channel::frames,
    identity::Identifier,
    time::{ClockQuality, WallTime},
};

fn qualities() -> impl Strategy<Value = ClockQuality> {
    prop::sample::select(vec![
        ClockQuality::Unknown,
        ClockQuality::Floor,
        ClockQuality::Synchronised,
    ])
}

fn carried() -> impl Strategy<Value = Carried> {
    (any::<u64>(), qualities(), any::<u32>()).prop_map(|(unix_millis, quality, remaining_ms)| Carried {
        unix_millis,
        quality,
        remaining_ms,
    })
}

fn orders() -> impl Strategy<Value = Arc<Order>> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    (
        any::<(bool, bool)>(),
        "\\PC{1,60}",
        "\\PC{0,80}",
        "\\PC{0,40}",
        payload,
    )
        .prop_map(
            |((once, answer_wanted), device, resource, content_type, payload)| {
                Arc::new(Order {
                    guarantee: if once {
                        Guarantee::AtMostOnce
                    } else {
                        Guarantee::AtLeastOnce
                    },
                    answer_wanted,
                    device: device.into(),
                    resource: resource.into(),
                    content_type: content_type.into(),
                    payload: payload.into(),
                })
            },
        )
}

fn states() -> impl Strategy<Value = State> {
    let answer = ("\\PC{0,40}", prop::collection::vec(any::<u8>(), 0..300));
    prop_oneof![
        Just(State::Queued),
        Just(State::Acknowledged),
        Just(State::Delivered),
        answer.prop_map(|(content_type, payload)| State::Answered(Answer {
            content_type: content_type.into(),
            payload: payload.into(),
        })),
        Just(State::Expired),
        Just(State::Refused(Refusal::NotAuthorised)),
        Just(State::Refused(Refusal::Limit)),
        Just(State::Refused(Refusal::Storage)),
        Just(State::UnknownDevice),
        Just(State::Cancelled),
        Just(State::Lost),
        Just(State::Unconfirmed),
        any::<u8>().prop_map(State::Rejected),
    ]
}

fn reports() -> impl Strategy<Value = Report> {
    (any::<CommandId>(), any::<u64>(), qualities(), states()).prop_map(|(id, unix_millis, quality, state)| {
        Report {
            id,
            at: WallTime { unix_millis, quality },
            state,
        }
    })
}

fn body(frame: &[u8], kind: u8) -> Vec<u8> {
    let all: Vec<_> = frames(frame).collect();
    let [Ok((got, body))] = all[..] else {
        panic!("not one frame: {all:?}");
    };
    assert_eq!(got, kind);
    body.to_vec()
}

proptest! {
    #[test]
    fn commands_come_back(id: CommandId, deadline in carried(), order in orders()) {
        let command = Command { id, deadline, order };
        let mut out = Vec::new();
        command.put(&mut out);
        prop_assert_eq!(Command::decode(&body(&out, super::super::COMMAND)), Ok(command));
    }

    #[test]
    fn results_come_back(report in reports()) {
        let mut out = Vec::new();
        report.put(&mut out);
        prop_assert_eq!(Report::decode(&body(&out, super::super::RESULT)), Ok(report));
    }

    #[test]
    fn short_frames_come_back(id: CommandId, remaining_ms: u32, once: bool) {
        let guarantee = if once { Guarantee::AtMostOnce } else { Guarantee::AtLeastOnce };
        let (query, cancel, ack) = (Query { id, guarantee, remaining_ms }, Cancel { id, remaining_ms }, ResultAck { id });
        let mut out = Vec::new();
        query.put(&mut out);
        prop_assert_eq!(Query::decode(&body(&out, super::super::QUERY)), Ok(query));
        out.clear();
        cancel.put(&mut out);
        prop_assert_eq!(Cancel::decode(&body(&out, super::super::CANCEL)), Ok(cancel));
        out.clear();
        ack.put(&mut out);
        prop_assert_eq!(ResultAck::decode(&body(&out, super::super::RESULT_ACK)), Ok(ack));
    }

    #[test]
    fn records_come_back(
        (number, collector, deadline, submitted) in (any::<u64>(), any::<[u8; 32]>(), carried(), any::<u64>()),
        (order, report, cancel) in (orders(), reports(), any::<bool>()),
        which in 0..5_usize,
    ) {
        let device: Arc<str> = Arc::clone(&order.device);
        let leaving = [Leaving::Waiting, Leaving::Sent, Leaving::Finished(report.clone())][which % 3].clone();
        let id = report.id;
        let record = CommanderRecord {
            number, gateway: Identifier::from_bytes(collector), id, deadline, submitted, cancel, leaving,
            order: Arc::clone(&order),
        };
        prop_assert_eq!(CommanderRecord::decode(&record.encode()), Ok(record));
        let kept = match which {
            0 => Kept::Queued(order),
            1 => Kept::Handed(order),
            2 => Kept::Acknowledged(order),
            3 => Kept::Finished { device, report },
            _ => Kept::Settled { device, report },
        };
        let record = ExecutorRecord { number, collector: Identifier::from_bytes(collector), id, deadline, kept };
        prop_assert_eq!(ExecutorRecord::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Command::decode(&bytes);
        let _ = Report::decode(&bytes);
        let _ = Query::decode(&bytes);
        let _ = Cancel::decode(&bytes);
        let _ = ResultAck::decode(&bytes);
        let mut record = vec![1];
        record.extend_from_slice(&bytes);
        let _ = CommanderRecord::decode(&record);
        let _ = ExecutorRecord::decode(&record);
    }
}

fn order(device: &str, resource: &str, payload_len: usize) -> Order {
    Order {
        guarantee: Guarantee::AtLeastOnce,
        answer_wanted: false,
        device: device.into(),
        resource: resource.into(),
        content_type: Box::default(),
        payload: vec![0; payload_len].into(),
    }
}

#[test]
fn orders_have_bounds() {
    assert_eq!(
        order("pump", &"r".repeat(RESOURCE_LEN_MAX), PAYLOAD_LEN_MAX).check(),
        Ok(())
    );
    let too_long = |field, len, max| Err(CommandError::TooLong { field, len, max });
    assert_eq!(
        order("pump", "speed", PAYLOAD_LEN_MAX + 1).check(),
        too_long("payload", PAYLOAD_LEN_MAX + 1, PAYLOAD_LEN_MAX)
    );
    assert_eq!(
        order("pump", &"r".repeat(RESOURCE_LEN_MAX + 1), 0).check(),
        too_long("resource", RESOURCE_LEN_MAX + 1, RESOURCE_LEN_MAX)
    );
    assert_eq!(
        order(&"d".repeat(256), "", 0).check(),
        too_long("device", 256, 255)
    );
    assert_eq!(
        order("", "", 0).check(),
        Err(CommandError::Text { field: "device" })
    );
    assert_eq!(
        order("pump", "sp\0eed", 0).check(),
        Err(CommandError::Text { field: "resource" })
    );
}

#[test]
fn the_longest_command_fits_a_record() {
    let mut order = order(&"d".repeat(255), &"r".repeat(RESOURCE_LEN_MAX), PAYLOAD_LEN_MAX);
    order.content_type = "t".repeat(255).into();
    let command = Command {
        id: [0; 16],
        deadline: Carried {
            unix_millis: 0,
            quality: ClockQuality::Unknown,
            remaining_ms: 0,
        },
        order: Arc::new(order),
    };
    let mut out = Vec::new();
    command.put(&mut out);
    assert!(out.len() < crate::channel::PLAINTEXT_LEN_MAX);
    assert_eq!(Command::decode(&body(&out, super::super::COMMAND)), Ok(command));
}

#[test]
fn a_record_of_another_version_is_refused() {
    assert_eq!(
        ExecutorRecord::decode(&[9, 0]),
        Err(RecordError::Version { got: 9 })
    );
}

#[test]
fn payloads_do_not_show_in_debug_output() {
    let text = format!("{:?}", order("pump", "speed", 3));
    assert!(text.contains("payload_len: 3") && !text.contains("[0"), "{text}");
}
