//! Commands to devices (PROTOCOL.md §9.2): the codecs, and both machines against a peer that says anything.

use std::time::Duration;

use fieldgate_proto::channel::frames;
use fieldgate_proto::command::{
    Cancel, Command, Commander, CommanderOutput, CommanderSettings, Delivered, Executor, ExecutorOutput,
    ExecutorSettings, Guarantee, Order, Permission, Query, Report, ResultAck,
};
use fieldgate_proto::identity::Identifier;
use fieldgate_proto::time::{Instant, Now};
use fieldgate_proto::wire::Reader;

/// Reads the input as the body of each frame, as records, and as a conversation of a gateway and of a collector.
pub fn run(data: &[u8]) {
    if let Ok(command) = Command::decode(data) {
        check(data, |out| command.put(out));
    }
    if let Ok(report) = Report::decode(data) {
        check(data, |out| report.put(out));
    }
    if let Ok(query) = Query::decode(data) {
        check(data, |out| query.put(out));
    }
    if let Ok(cancel) = Cancel::decode(data) {
        check(data, |out| cancel.put(out));
    }
    if let Ok(ack) = ResultAck::decode(data) {
        check(data, |out| ack.put(out));
    }
    execute(data);
    command(data);
}

fn check(body: &[u8], put: impl FnOnce(&mut Vec<u8>)) {
    let mut record = Vec::new();
    put(&mut record);
    let written: Vec<_> = frames(&record).map(|frame| frame.map(|(_, body)| body)).collect();
    assert_eq!(written, [Ok(body)]);
}

const PEER: Identifier = Identifier::from_bytes([1; 32]);

/// A gateway whose collector says what the input says. What is to be handed over once is.
fn execute(data: &[u8]) {
    let settings = ExecutorSettings {
        commands_max: 8,
        bytes_max: 1 << 20,
        remembered_max: 16,
        ..ExecutorSettings::default()
    };
    let mut executor = Executor::new(settings);
    let mut now = Now::default();
    // The whole input as something kept is read or refused, without a trace.
    if executor.restore(now, data).is_err() {
        assert!(executor.poll_output().is_none());
    }
    let mut handed = Vec::new();
    let mut reader = Reader::new(data);
    while let (Ok(step), Ok(body)) = (reader.u8("step"), reader.bytes8("body")) {
        match step & 7 {
            0 => executor.handle_up(now, PEER),
            1 => executor.handle_down(PEER),
            2 => executor.handle_device_awake(now, std::str::from_utf8(body).unwrap_or("d")),
            3 => executor.handle_device_asleep(std::str::from_utf8(body).unwrap_or("d")),
            4 => {
                now.instant = now.instant + Duration::from_millis(u64::from(step) * 100);
                executor.handle_timeout(now);
            }
            _ => {
                // Bad frames change nothing.
                let _ = executor.handle_frame(now, PEER, 0x28 + (step >> 3) % 5, body);
            }
        }
        let mut effects = 0;
        while let Some(output) = executor.poll_output() {
            effects += 1;
            assert!(effects < 10_000, "one input has effects without end");
            match output {
                ExecutorOutput::Authorise { question, .. } => {
                    executor.handle_permission(now, question, Permission::Permitted);
                }
                ExecutorOutput::Store { ticket, .. } if step & 0x80 == 0 => {
                    executor.handle_stored(now, ticket);
                }
                ExecutorOutput::Store { ticket, .. } => executor.handle_store_failed(now, ticket),
                ExecutorOutput::Deliver { number, order, .. } => {
                    let once = order.guarantee == Guarantee::AtMostOnce;
                    assert!(!once || !handed.contains(&number), "handed over twice");
                    handed.push(number);
                    executor.handle_delivered(now, number, Delivered::Interrupted);
                }
                ExecutorOutput::Send { .. }
                | ExecutorOutput::Forget { .. }
                | ExecutorOutput::Withdraw { .. }
                | ExecutorOutput::Finished { .. } => {}
            }
        }
        assert!(executor.bytes() <= 1 << 20);
    }
}

/// A collector whose gateway says what the input says.
fn command(data: &[u8]) {
    let mut commander = Commander::new(CommanderSettings::default());
    let mut now = Now {
        instant: Instant::START,
        ..Now::default()
    };
    if commander.restore(now, data).is_err() {
        assert!(commander.poll_output().is_none());
    }
    for id in 0..4 {
        let order = Order {
            guarantee: if id % 2 == 0 {
                Guarantee::AtMostOnce
            } else {
                Guarantee::AtLeastOnce
            },
            answer_wanted: id < 2,
            device: "d".into(),
            resource: "r".into(),
            content_type: "".into(),
            payload: data.get(..16).unwrap_or_default().into(),
        };
        // The input may have brought one with the same id.
        let _ = commander.submit(now, [id; 16], PEER, order, Duration::from_secs(5));
    }
    commander.handle_up(now, PEER);
    let mut reader = Reader::new(data);
    while let (Ok(step), Ok(body)) = (reader.u8("step"), reader.bytes8("body")) {
        match step & 3 {
            0 => {
                now.instant = now.instant + Duration::from_millis(u64::from(step) * 100);
                commander.handle_timeout(now);
            }
            1 => {
                // One that is finished cannot be taken back.
                let _ = commander.cancel(now, &[step >> 6; 16]);
            }
            _ => {
                let _ = commander.handle_frame(now, PEER, 0x2a, body);
            }
        }
        let mut effects = 0;
        while let Some(output) = commander.poll_output() {
            effects += 1;
            assert!(effects < 10_000, "one input has effects without end");
            if let CommanderOutput::Store { ticket, .. } = output {
                commander.handle_stored(now, ticket);
            }
        }
    }
}
