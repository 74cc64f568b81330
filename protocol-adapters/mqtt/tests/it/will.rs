//! The will of a client that is lost.

use fieldgate_adapters::class::Class;
use fieldgate_mqtt::{session::end::Termination, settings::Settings, version::ProtocolVersion};

use crate::{
    bench::{Bench, filters},
    bytes::{V5, V311, connect, properties, string},
};

fn connect_with_will(version: ProtocolVersion, topic: &str, section: &[u8]) -> Vec<u8> {
    connect(
        version,
        0x06,
        &[],
        &[
            &string("c"),
            &properties(version, section),
            &string(topic),
            &string("gone"),
        ],
    )
}

fn with_will(version: ProtocolVersion) -> Bench {
    let settings = Settings::default().with_alarm_topics(filters(&["alarm/#"]).to_vec());
    let mut bench = Bench::with(settings);
    bench
        .give(&connect_with_will(version, "alarm/lost", &[]))
        .unwrap();
    bench.sent();
    bench
}

#[test]
fn a_lost_client_leaves_its_will() {
    for version in [V5, V311] {
        let losses: [fn(&mut Bench); 5] = [
            |bench| {
                bench.close();
            },
            |bench| {
                bench.advance_millis(90_000);
                bench.timeout().unwrap_err();
            },
            |bench| {
                bench.give(&[0x00, 0x00]).unwrap_err();
            },
            |bench| {
                bench.terminate(Termination::TakenOver);
            },
            |bench| {
                bench.terminate(Termination::ShuttingDown);
            },
        ];
        for lose in losses {
            let mut bench = with_will(version);
            assert!(bench.journal.readings.is_empty());
            lose(&mut bench);
            let [will] = bench.journal.readings.as_slice() else {
                panic!("one will")
            };
            assert_eq!(
                (will.device.as_str(), will.resource.as_str()),
                ("c", "alarm/lost")
            );
            assert_eq!(
                (will.payload.as_slice(), will.class),
                (b"gone".as_slice(), Class::Alarm)
            );
            assert_eq!(will.captured_at, bench.now.wall);
            assert_eq!(bench.broker.counters().wills, 1);
            bench.close();
            assert_eq!(bench.journal.readings.len(), 1, "once");
        }
    }
}

#[test]
fn a_goodbye_takes_the_will_back() {
    for version in [V5, V311] {
        let mut bench = with_will(version);
        assert!(bench.give(&[0xe0, 0]).is_err());
        bench.close();
        assert!(bench.journal.readings.is_empty(), "[MQTT-3.14.4-3]");
    }
}

#[test]
fn a_client_of_mqtt_5_can_ask_for_its_will() {
    let mut bench = with_will(V5);
    assert!(bench.give(&[0xe0, 1, 0x04]).is_err());
    assert_eq!(bench.journal.readings.len(), 1);
    assert!(bench.sent().is_empty());
    // Every other reason says that something went wrong.
    let mut bench = with_will(V5);
    assert!(bench.give(&[0xe0, 1, 0x80]).is_err());
    assert_eq!(
        bench.journal.readings.len(),
        1,
        "[MQTT-3.14.4-3] takes it back for 0x00 only"
    );
}

#[test]
fn a_will_brings_its_properties() {
    let section = [
        [0x03].as_slice(),
        &string("text/plain"),
        &[0x26],
        &string("k"),
        &string("v"),
        &[0x18, 0, 0, 0, 9],
    ]
    .concat();
    let mut bench = Bench::new();
    bench.give(&connect_with_will(V5, "t", &section)).unwrap();
    // The session ends with its connection, so the delay does not count.
    bench.close();
    let will = &bench.journal.readings[0];
    assert_eq!(will.content_type.as_deref(), Some("text/plain"));
    assert_eq!(will.user_properties, [("k".to_owned(), "v".to_owned())]);
}

#[test]
fn a_will_outside_the_rights_is_refused_at_connect() {
    for (version, expected) in [(V5, vec![0x20, 3, 0, 0x87, 0]), (V311, vec![0x20, 2, 0, 5])] {
        let mut bench = Bench::new();
        let payload = [
            string("c"),
            properties(version, &[]),
            string("foreign"),
            string("gone"),
            string("user"),
            string("password"),
        ]
        .concat();
        assert!(bench.give(&connect(version, 0xc6, &[], &[&payload])).is_err());
        assert_eq!(bench.sent(), expected);
        assert_eq!(bench.counters.unauthorized, 1);
        bench.close();
        assert!(bench.journal.readings.is_empty());
    }
}
