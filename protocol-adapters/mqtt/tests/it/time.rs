//! Deadlines, by injected time.

use fieldgate_mqtt::{
    session::end::{SessionEnd, Termination},
    settings::Settings,
    version::ProtocolVersion,
};

use crate::{
    bench::Bench,
    bytes::{V5, V311, packet, plain_connect, properties, publish_1, string},
};

fn connect_with_keep_alive(version: ProtocolVersion, secs: u16) -> Vec<u8> {
    let keep_alive = secs.to_be_bytes();
    packet(
        0x10,
        &[
            &string("MQTT"),
            &[version.level(), 2],
            &keep_alive,
            &properties(version, &[]),
            &string("c"),
        ],
    )
}

/// Milliseconds until the next deadline.
fn deadline(bench: &Bench) -> Option<u128> {
    bench
        .session
        .poll_timeout()
        .map(|at| at.saturating_since(bench.now.instant).as_millis())
}

#[test]
fn a_client_has_ten_seconds_to_connect() {
    let mut bench = Bench::new();
    assert_eq!(deadline(&bench), Some(10_000));
    let connect = plain_connect(V5);
    bench.give(&connect[..5]).unwrap();
    bench.advance_millis(9_999);
    bench.give(&connect[5..7]).unwrap();
    assert_eq!(deadline(&bench), Some(1), "trickling bytes wins no time");
    assert_eq!(bench.timeout(), Ok(()));
    bench.advance_millis(1);
    assert_eq!(bench.timeout(), Err(SessionEnd::ConnectTimeout));
    assert!(bench.sent().is_empty());
    assert_eq!(bench.counters.connect_timeouts, 1);
    assert_eq!(bench.give(&connect[7..]), Err(SessionEnd::ConnectTimeout));
}

#[test]
fn a_client_is_silent_for_one_and_a_half_keep_alives_at_most() {
    for version in [V5, V311] {
        let mut bench = Bench::new();
        bench.give(&connect_with_keep_alive(version, 7)).unwrap();
        bench.sent();
        assert_eq!(deadline(&bench), Some(10_500));
        bench.advance_millis(10_499);
        assert_eq!(bench.timeout(), Ok(()));
        bench.give(&[0xc0, 0]).unwrap();
        assert_eq!(bench.sent(), [0xd0, 0]);
        assert_eq!(deadline(&bench), Some(10_500));
        bench.advance_millis(5_000);
        bench.give(&publish_1(version, 1, "x")).unwrap();
        bench.advance_millis(10_499);
        // Half a packet is no packet.
        bench.give(&[0xc0]).unwrap();
        assert_eq!(deadline(&bench), Some(1));
        bench.advance_millis(1);
        assert_eq!(bench.timeout(), Err(SessionEnd::KeepAliveTimeout));
        let expected: &[u8] = if version == V5 { &[0xe0, 1, 0x8d] } else { &[] };
        assert_eq!(bench.sent(), expected);
        assert_eq!(bench.counters.keep_alive_timeouts, 1);
    }
}

#[test]
fn keep_alive_0_switches_the_check_off() {
    for version in [V5, V311] {
        let mut bench = Bench::new();
        bench.give(&connect_with_keep_alive(version, 0)).unwrap();
        assert_eq!(deadline(&bench), None);
        bench.advance_millis(1_000_000_000);
        assert_eq!(bench.timeout(), Ok(()));
        bench.give(&publish_1(version, 1, "x")).unwrap();
    }
}

#[test]
fn a_site_can_demand_a_keep_alive_of_mqtt_5() {
    let settings = || Settings::default().with_keep_alive_secs_max(Some(20)).unwrap();
    for (wanted, granted) in [
        (0, Some(20)),
        (21, Some(20)),
        (65_535, Some(20)),
        (20, None),
        (5, None),
    ] {
        let mut bench = Bench::with(settings());
        bench.give(&connect_with_keep_alive(V5, wanted)).unwrap();
        let answer = bench.sent();
        let told = answer
            .windows(3)
            .find(|window| window[0] == 0x13)
            .map(|window| window[2]);
        assert_eq!(told, granted, "{answer:02x?}");
        let secs = u128::from(granted.map_or(wanted, u16::from));
        assert_eq!(deadline(&bench), Some(secs * 1_500));

        let mut bench = Bench::with(settings());
        bench.give(&connect_with_keep_alive(V311, wanted)).unwrap();
        let expected = (wanted != 0).then_some(u128::from(wanted) * 1_500);
        assert_eq!(deadline(&bench), expected, "MQTT 3.1.1 cannot be told");
    }
}

#[test]
fn the_node_ends_a_session_with_the_reason_that_mqtt_5_understands() {
    let cases = [
        (Termination::TakenOver, 0x8e),
        (Termination::ShuttingDown, 0x8b),
        (Termination::Administrative, 0x98),
        (Termination::QuotaExceeded, 0x97),
    ];
    for (termination, reason) in cases {
        let mut bench = Bench::connected(V5);
        assert_eq!(bench.terminate(termination), SessionEnd::Terminated(termination));
        assert_eq!(bench.sent(), [0xe0, 1, reason]);
        let mut bench = Bench::connected(V311);
        assert_eq!(bench.terminate(termination), SessionEnd::Terminated(termination));
        assert!(bench.sent().is_empty());
        let mut bench = Bench::new();
        assert_eq!(bench.terminate(termination), SessionEnd::Terminated(termination));
        assert!(bench.sent().is_empty(), "not connected yet");
    }
}
