//! From CONNECT to CONNACK.

use fieldgate_adapters::{
    authenticate::{Authentication, Denial},
    password::hash_password,
};
use fieldgate_mqtt::{
    frame::{Split, split},
    packet::{Packet, connack::ConnAck},
    property::Property,
    session::end::SessionEnd,
    settings::Settings,
};

use crate::{
    bench::{Bench, Counting},
    bytes::{V5, V311, connect, device_connect, plain_connect, publish_1, string},
};

#[test]
fn connack_of_mqtt_5_says_what_bounds_there_are() {
    let mut bench = Bench::new();
    bench.give(&plain_connect(V5)).unwrap();
    let expected = [
        0x20, 14, 0x00, 0x00, 11, // CONNACK, no session present, success, 11 bytes of properties
        0x21, 0, 64, // receive maximum
        0x22, 0, 16, // topic alias maximum
        0x27, 0, 0, 0xfc, 0x00, // maximum packet size; all else is available, which need not be said
    ];
    assert_eq!(bench.sent(), expected);
}

#[test]
fn connack_of_mqtt_3_1_1_has_two_bytes() {
    let mut bench = Bench::new();
    bench.give(&plain_connect(V311)).unwrap();
    assert_eq!(bench.sent(), [0x20, 2, 0, 0]);
}

#[test]
fn a_kept_session_is_present_when_its_client_returns() {
    for (version, section) in [(V311, [].as_slice()), (V5, &[0x11, 0, 0, 0, 9])] {
        let mut bench = Bench::new();
        bench
            .give(&connect(version, 0, section, &[&string("c")]))
            .unwrap();
        assert_eq!(bench.sent()[2], 0, "[MQTT-3.2.2-3]");
        bench.close();
        bench.reconnect();
        bench
            .give(&connect(version, 0, section, &[&string("c")]))
            .unwrap();
        assert_eq!(bench.sent()[2], 1, "[MQTT-3.2.2-2]");
        bench.close();
        bench.reconnect();
        bench
            .give(&connect(version, 2, section, &[&string("c")]))
            .unwrap();
        assert_eq!(bench.sent()[2], 0, "[MQTT-3.1.2-4]");
    }
}

fn connack<'a>(answer: &'a [u8]) -> ConnAck<'a> {
    let Ok(Split::Complete { frame, rest: [] }) = split(answer, 1_000) else {
        panic!("{answer:02x?}")
    };
    let Ok(Packet::ConnAck(connack)) = Packet::decode(&frame, V5) else {
        panic!("{answer:02x?}")
    };
    connack
}

#[test]
fn a_client_is_told_how_long_its_session_is_kept_if_that_is_not_as_it_wishes() {
    for (section, told) in [
        ([0x11, 0, 0, 0, 9], false),
        ([0x11, 0, 0, 0, 10], true),
        ([0x11, 0, 0, 0, 0], false),
        ([0x11, 255, 255, 255, 255], true),
    ] {
        let mut bench = Bench::with(Settings::default().with_session_expiry_secs_max(9));
        bench.give(&connect(V5, 0, &section, &[&string("c")])).unwrap();
        let answer = bench.sent();
        let found = connack(&answer)
            .properties
            .iter()
            .any(|property| property == Property::SessionExpiryInterval(9));
        assert_eq!(found, told);
    }
}

#[test]
fn a_client_without_identifier_is_given_one() {
    let mut bench = Bench::new();
    bench.give(&connect(V5, 0, &[], &[&string("")])).unwrap();
    let chosen = bench.session.client_id().unwrap().to_owned();
    assert_eq!(chosen, "fg-0102030405060708090a0b0c0d0e0f10");
    let answer = bench.sent();
    let assigned = Property::AssignedClientIdentifier(&chosen);
    assert!(
        connack(&answer)
            .properties
            .iter()
            .any(|property| property == assigned),
        "[MQTT-3.2.2-16]"
    );
    assert_eq!(bench.session.device().unwrap().name(), "anonymous");

    let mut bench = Bench::new();
    bench.give(&connect(V311, 2, &[], &[&string("")])).unwrap();
    assert_eq!(bench.sent(), [0x20, 2, 0, 0]);
    assert_eq!(bench.session.client_id(), Some(chosen.as_str()));
}

#[test]
fn who_is_connected_is_known_afterwards() {
    let mut bench = Bench::new();
    assert_eq!(bench.session.client_id(), None);
    bench.give(&device_connect(V5, "password")).unwrap();
    assert_eq!(bench.session.client_id(), Some("c"));
    assert_eq!(bench.session.device().unwrap().name(), "pump");
    assert_eq!(bench.session.version(), Some(V5));
    assert_eq!(bench.counters.connected, 1);
}

#[test]
fn a_refused_client_has_no_session() {
    let mut bench = Bench::new();
    assert!(bench.give(&device_connect(V5, "wrong")).is_err());
    assert_eq!(bench.broker.counters().sessions, 0);
    assert_eq!(
        (bench.counters.connects_refused, bench.counters.logins_refused),
        (1, 1)
    );
}

#[test]
fn packets_may_follow_connect_at_once() {
    for version in [V5, V311] {
        let mut bench = Bench::new();
        bench
            .give(&[plain_connect(version), publish_1(version, 1, "x"), vec![0xc0, 0]].concat())
            .unwrap();
        assert_eq!(bench.journal.readings.len(), 1);
        assert_eq!(bench.sent().last_chunk(), Some(&[0xd0, 0]));
    }
}

#[test]
fn a_slow_password_check_holds_the_session_and_nothing_is_lost() {
    for version in [V5, V311] {
        let mut bench = Bench::with_slow_passwords();
        let publish = crate::bytes::publish(version, 2, "pump/x", 1, &[], "x");
        bench
            .give(&[device_connect(version, "password"), publish, vec![0xc0]].concat())
            .unwrap();
        bench.give(&[0x00]).unwrap();
        assert!(bench.sent().is_empty() && bench.journal.readings.is_empty());
        assert!(!bench.session.wants_bytes());
        assert!(
            bench.session.poll_timeout().is_some(),
            "the connect timeout still counts"
        );
        assert_eq!(bench.authenticated(Authentication::Pending), Ok(()));
        let checked = bench.authenticator.take_check().unwrap().run();
        let answer = bench.authenticator.handle_checked(&checked);
        bench.authenticated(answer).unwrap();
        assert_eq!(bench.journal.readings.len(), 1);
        let sent = bench.sent();
        assert_eq!((sent[0], sent.last_chunk()), (0x20, Some(&[0xd0, 0])));
        // An answer that comes twice does nothing.
        assert_eq!(bench.authenticated(Authentication::Denied(Denial::Busy)), Ok(()));
        bench.give(&[0xc0, 0]).unwrap();
    }
}

#[test]
fn a_slow_check_can_fail() {
    let denials = [
        (Denial::BadCredentials, 0x86, 4),
        (Denial::NotAuthorized, 0x87, 5),
        (Denial::Busy, 0x88, 3),
    ];
    for (denial, reason, return_code) in denials {
        for (version, expected) in [
            (V5, vec![0x20, 3, 0, reason, 0]),
            (V311, vec![0x20, 2, 0, return_code]),
        ] {
            let mut bench = Bench::with_slow_passwords();
            bench.give(&device_connect(version, "wrong")).unwrap();
            let end = bench.authenticated(Authentication::Denied(denial)).unwrap_err();
            assert!(matches!(end, SessionEnd::Refused { .. }));
            assert_eq!(bench.sent(), expected);
        }
    }
}

#[test]
fn an_answer_after_the_connect_timeout_comes_too_late() {
    let mut bench = Bench::with_slow_passwords();
    bench.give(&device_connect(V5, "password")).unwrap();
    bench.advance_millis(10_000);
    assert_eq!(bench.timeout(), Err(SessionEnd::ConnectTimeout));
    let checked = bench.authenticator.take_check().unwrap().run();
    let answer = bench.authenticator.handle_checked(&checked);
    assert_eq!(bench.authenticated(answer), Err(SessionEnd::ConnectTimeout));
    assert!(bench.sent().is_empty());
}

#[test]
fn what_an_unanswered_client_may_send_is_bounded() {
    let mut bench = Bench::with_slow_passwords();
    bench.give(&device_connect(V5, "password")).unwrap();
    bench.give(&[0; 131_072]).unwrap();
    assert!(bench.give(&[0]).is_err());
}

#[test]
fn no_packet_is_larger_than_the_client_takes() {
    // 10 bytes: too small for a CONNACK with properties, which is then left out ([MQTT-3.1.2-25]).
    let mut bench = Bench::new();
    bench
        .give(&connect(V5, 2, &[0x27, 0, 0, 0, 4], &[&string("c")]))
        .unwrap();
    assert!(bench.sent().is_empty());
    bench.give(&publish_1(V5, 1, "x")).unwrap();
    assert_eq!(bench.acks(1), [0x40, 2, 0, 1], "four bytes are taken");
    bench
        .give(&crate::bytes::publish(V5, 2, "$x", 2, &[], ""))
        .unwrap();
    assert!(bench.sent().is_empty(), "five are not");
    assert!(bench.give(&[0x00, 0]).is_err());
    assert_eq!(bench.sent(), [0xe0, 1, 0x81]);
}

#[test]
fn the_session_keeps_no_trace_of_a_password() {
    let mut bench = Bench::with_slow_passwords();
    for byte in device_connect(V5, "password") {
        bench.give(&[byte]).unwrap();
    }
    let shown = format!("{:?}", bench.session);
    let bytes: Vec<String> = b"password".iter().map(u8::to_string).collect();
    assert!(
        !shown.contains("password") && !shown.contains(&bytes.join(", ")),
        "{shown}"
    );
    let hash = hash_password(b"password", 1_001, &mut Counting::default()).unwrap();
    assert!(!shown.contains(&hash.to_string()));
}
