//! From PUBLISH to reading.

use fieldgate_adapters::{class::Class, reading::READING_LEN_MAX, reading::Reading};
use fieldgate_mqtt::settings::Settings;
use fieldgate_proto::time::{ClockQuality, WallTime};

use crate::{
    bench::{Bench, Taken, filters},
    bytes::{V5, V311, device_connect, packet, publish, string},
};

#[test]
fn a_message_of_mqtt_3_1_1_becomes_a_reading() {
    let mut bench = Bench::logged_in(V311);
    bench
        .give(&publish(V311, 2, "pump/pressure", 1, &[], "4.2"))
        .unwrap();
    let expected = Taken {
        device: "pump".to_owned(),
        resource: "pump/pressure".to_owned(),
        content_type: None,
        user_properties: vec![],
        payload: b"4.2".to_vec(),
        captured_at: WallTime {
            unix_millis: 1_700_000_000_123,
            quality: ClockQuality::Floor,
        },
        class: Class::Normal,
    };
    assert_eq!(bench.journal.readings, [expected]);
    assert_eq!(bench.counters.readings, 1);
}

#[test]
fn content_type_and_user_properties_go_along() {
    let mut bench = Bench::logged_in(V5);
    let section = [
        [0x03].as_slice(),
        &string("text/plain"),
        &[0x26],
        &string("unit"),
        &string("bar"),
        &[0x01, 1],
        &[0x02, 0, 0, 0, 60],
        &[0x26],
        &string("unit"),
        &string(""),
        &[0x08],
        &string("answers/here"),
        &[0x09],
        &string([0, 1, 2]),
    ]
    .concat();
    bench
        .give(&publish(V5, 2, "own/x", 1, &section, "4,2 é"))
        .unwrap();
    let reading = &bench.journal.readings[0];
    assert_eq!(reading.content_type.as_deref(), Some("text/plain"));
    assert_eq!(
        reading.user_properties,
        [("unit", "bar"), ("unit", "")].map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
    assert_eq!(reading.payload, "4,2 é".as_bytes());
    assert_eq!(bench.acks(1), [0x40, 2, 0, 1]);
}

#[test]
fn thirty_two_user_properties_are_taken() {
    let mut bench = Bench::logged_in(V5);
    let section: Vec<u8> = (0..32_u8)
        .flat_map(|i| [vec![0x26], string([b'a' + i % 26]), string([b'A' + i % 26])].concat())
        .collect();
    assert_eq!(section.len(), 224);
    let bytes = packet(0x32, &[&string("own/x"), &[0, 1], &[0xe0, 0x01], &section, b"x"]);
    bench.give(&bytes).unwrap();
    assert_eq!(bench.journal.readings[0].user_properties.len(), 32);
    assert_eq!(
        bench.journal.readings[0].user_properties[27],
        ("b".to_owned(), "B".to_owned())
    );
}

#[test]
fn an_empty_payload_is_a_reading() {
    let mut bench = Bench::connected(V311);
    bench.give(&publish(V311, 0, "t", 0, &[], "")).unwrap();
    assert!(bench.journal.readings[0].payload.is_empty());
}

#[test]
fn anonymous_readings_bear_the_client_identifier() {
    let mut bench = Bench::connected(V311);
    bench.give(&publish(V311, 0, "école/x", 0, &[], "x")).unwrap();
    assert_eq!(bench.journal.readings[0].device, "c");
    assert_eq!(bench.journal.readings[0].resource, "école/x");
}

#[test]
fn alarm_topics_make_alarms() {
    let settings = Settings::default().with_alarm_topics(filters(&["+/alarm/#", "fire"]).to_vec());
    let mut bench = Bench::connected_with(settings, V5);
    for topic in [
        "hall/alarm/door",
        "hall/alarm",
        "fire",
        "hall/temperature",
        "fire/drill",
    ] {
        bench.give(&publish(V5, 0, topic, 0, &[], "x")).unwrap();
    }
    let classes: Vec<Class> = bench
        .journal
        .readings
        .iter()
        .map(|reading| reading.class)
        .collect();
    assert_eq!(
        classes,
        [
            Class::Alarm,
            Class::Alarm,
            Class::Alarm,
            Class::Normal,
            Class::Normal
        ]
    );
}

#[test]
fn a_topic_alias_stands_for_its_topic_until_it_is_defined_anew() {
    let mut bench = Bench::connected(V5);
    let alias = |topic: &str, alias: u8, payload: &str| publish(V5, 0, topic, 0, &[0x23, 0, alias], payload);
    for bytes in [
        alias("a/long/topic", 1, "0"),
        alias("another", 16, "1"),
        alias("", 1, "2"),
        alias("", 16, "3"),
        alias("new", 1, "4"),
        alias("", 1, "5"),
    ] {
        bench.give(&bytes).unwrap();
    }
    let topics: Vec<&str> = bench
        .journal
        .readings
        .iter()
        .map(|reading| reading.resource.as_str())
        .collect();
    assert_eq!(
        topics,
        ["a/long/topic", "another", "a/long/topic", "another", "new", "new"]
    );
    assert!(bench.give(&alias("", 2, "6")).is_err(), "not defined");
    assert_eq!(bench.sent(), [0xe0, 1, 0x82]);
}

#[test]
fn an_alias_gives_no_rights() {
    let mut bench = Bench::logged_in(V5);
    bench
        .give(&publish(V5, 2, "foreign", 1, &[0x23, 0, 1], "x"))
        .unwrap();
    bench.give(&publish(V5, 2, "", 2, &[0x23, 0, 1], "x")).unwrap();
    assert_eq!(bench.sent(), [0x40, 3, 0, 1, 0x87, 0x40, 3, 0, 2, 0x87]);
    assert!(bench.journal.readings.is_empty());
    assert_eq!(bench.counters.unauthorized, 2);
}

#[test]
fn the_memory_behind_aliases_is_bounded() {
    let mut bench = Bench::connected(V5);
    let topic = |i: u8| format!("{i}{}", "x".repeat(5_000));
    for i in 1..=3 {
        bench
            .give(&publish(V5, 0, topic(i), 0, &[0x23, 0, i], ""))
            .unwrap();
    }
    // The same alias again replaces its topic.
    bench
        .give(&publish(V5, 0, topic(9), 0, &[0x23, 0, 3], ""))
        .unwrap();
    assert!(
        bench
            .give(&publish(V5, 0, topic(4), 0, &[0x23, 0, 4], ""))
            .is_err()
    );
    assert_eq!(bench.sent(), [0xe0, 1, 0x97]);
}

#[test]
fn aliases_can_be_switched_off() {
    let settings = Settings::default().with_topic_alias_maximum(0).unwrap();
    let mut bench = Bench::connected_with(settings, V5);
    assert!(bench.give(&publish(V5, 0, "t", 0, &[0x23, 0, 1], "")).is_err());
    assert_eq!(bench.sent(), [0xe0, 1, 0x94]);
}

/// The bound of the maximum packet size promises this (`Settings::MAXIMUM_PACKET_SIZE`).
#[test]
fn the_largest_packet_fits_into_a_reading_whatever_it_holds() {
    let device = "d".repeat(255);
    let largest = *Settings::MAXIMUM_PACKET_SIZE.end() as usize;
    // Each shape leaves out what the packet has besides: fixed header, lengths, identifiers.
    let pair = "k".repeat(1_000);
    let pairs = vec![(pair.as_str(), pair.as_str()); 32];
    let short_pairs = vec![("", ""); 32];
    let huge = "k".repeat(16_384);
    let huge_pairs = vec![(huge.as_str(), huge.as_str()); 1];
    for pairs in [vec![], pairs, short_pairs, huge_pairs] {
        let pair_bytes: usize = pairs
            .iter()
            .map(|(name, value)| 5 + name.len() + value.len())
            .sum();
        for topic_len in [1, 63, 64, 16_383, 16_384, 20_000] {
            let topic = "t".repeat(topic_len);
            let overhead = 4 + 2 + topic_len + 3 + pair_bytes;
            let Some(payload_len) = largest.checked_sub(overhead) else {
                continue;
            };
            let payload = vec![0; payload_len];
            let reading = Reading {
                device: &device,
                resource: &topic,
                content_type: None,
                user_properties: fieldgate_adapters::reading::UserProperties::from_pairs(&pairs),
                payload: &payload,
                captured_at: WallTime {
                    unix_millis: u64::MAX,
                    quality: ClockQuality::Unknown,
                },
                class: Class::Normal,
            };
            assert!(
                reading.encoded_len().is_ok_and(|len| len <= READING_LEN_MAX),
                "{topic_len}"
            );
        }
    }
}

#[test]
fn the_largest_packet_is_taken_in_any_portions() {
    for version in [V5, V311] {
        let overhead = 4 + 3 + 2 + usize::from(version == V5);
        let bytes = publish(version, 2, "t", 1, &[], vec![7; 64_512 - overhead]);
        assert_eq!(bytes.len(), 64_512);
        for portion in [1, 999, 4_096, 64_511, 64_512] {
            let mut bench = Bench::connected(version);
            for part in bytes.chunks(portion) {
                bench.give(part).unwrap();
            }
            assert_eq!(bench.journal.readings[0].payload.len(), 64_512 - overhead);
            assert_eq!(bench.acks(1), [0x40, 2, 0, 1]);
        }
    }
}

#[test]
fn rights_are_those_of_the_device() {
    let mut bench = Bench::new();
    bench.give(&device_connect(V5, "password")).unwrap();
    bench.sent();
    for (topic, allowed) in [
        ("pump", true),
        ("pump/a/b", true),
        ("own/x", true),
        ("own", false),
        ("own/x/y", false),
        ("pumps", false),
    ] {
        let before = bench.journal.readings.len();
        bench.give(&publish(V5, 0, topic, 0, &[], "x")).unwrap();
        assert_eq!(bench.journal.readings.len() > before, allowed, "{topic}");
    }
}
