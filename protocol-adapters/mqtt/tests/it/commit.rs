//! PUBACK only after the commit, in order, once.

use fieldgate_adapters::ingest::Refused;
use fieldgate_mqtt::{
    session::{Flow, end::SessionEnd},
    settings::Settings,
};

use crate::{
    bench::Bench,
    bytes::{V5, V311, connect, publish, publish_1, string},
};

fn puback(packet_id: u8) -> [u8; 4] {
    [0x40, 2, 0, packet_id]
}

#[test]
fn nothing_is_acknowledged_before_its_commit() {
    for version in [V5, V311] {
        let mut bench = Bench::connected(version);
        assert_eq!(bench.session.awaited_commit(), None);
        bench.give(&publish_1(version, 7, "x")).unwrap();
        assert!(bench.sent().is_empty());
        assert_eq!(bench.session.awaited_commit(), Some(1));
        assert!(bench.acks(0).is_empty());
        assert_eq!(bench.acks(1), puback(7));
        assert!(bench.acks(u64::MAX).is_empty(), "once");
        assert_eq!(bench.session.awaited_commit(), None);
    }
}

#[test]
fn acknowledgements_are_joined_and_in_the_order_of_their_publishes() {
    let mut bench = Bench::connected(V5);
    for packet_id in [9, 3, 5, 1] {
        bench.give(&publish_1(V5, packet_id, "x")).unwrap();
    }
    assert_eq!(bench.acks(3), [puback(9), puback(3), puback(5)].concat());
    assert_eq!(bench.session.awaited_commit(), Some(4));
    assert_eq!(bench.acks(4), puback(1));
}

#[test]
fn readings_of_others_in_between_do_not_matter() {
    let mut bench = Bench::connected(V311);
    bench.journal.last = 40;
    bench.give(&publish_1(V311, 1, "x")).unwrap();
    bench.journal.last = 100;
    bench.give(&publish_1(V311, 2, "x")).unwrap();
    assert!(bench.acks(40).is_empty());
    assert_eq!(bench.acks(100), puback(1));
    assert_eq!(bench.acks(101), puback(2));
}

#[test]
fn qos_0_is_taken_and_not_acknowledged() {
    let mut bench = Bench::connected(V311);
    bench.give(&publish(V311, 0, "t", 0, &[], "x")).unwrap();
    assert_eq!(bench.journal.readings.len(), 1);
    assert_eq!(bench.session.awaited_commit(), None);
    assert!(bench.acks(u64::MAX).is_empty());
}

#[test]
fn a_repetition_while_the_commit_is_awaited_is_not_a_second_reading() {
    for version in [V5, V311] {
        let mut bench = Bench::connected(version);
        bench.give(&publish_1(version, 7, "x")).unwrap();
        bench.give(&publish(version, 0x0a, "t", 7, &[], "x")).unwrap();
        assert_eq!(bench.journal.readings.len(), 1);
        assert_eq!(bench.counters.repeated, 1);
        assert_eq!(bench.acks(u64::MAX), puback(7), "one acknowledgement");
        // Acknowledged, the identifier is free: what comes now is new, whatever DUP says ([MQTT-2.2.1-5], [MQTT-3.3.1-1]).
        bench.give(&publish(version, 0x0a, "t", 7, &[], "y")).unwrap();
        assert_eq!(bench.journal.readings.len(), 2);
        assert_eq!(bench.acks(u64::MAX), puback(7));
    }
}

#[test]
fn a_reused_identifier_without_dup_is_another_message() {
    let mut bench = Bench::connected(V311);
    bench.give(&publish_1(V311, 7, "x")).unwrap();
    bench.give(&publish_1(V311, 7, "y")).unwrap();
    assert_eq!(
        bench.journal.readings.len(),
        2,
        "nothing that will be acknowledged may be lost"
    );
    assert_eq!(bench.acks(u64::MAX), [puback(7), puback(7)].concat());
}

#[test]
fn dup_of_an_unknown_identifier_is_a_new_message() {
    let mut bench = Bench::connected(V5);
    bench.give(&publish(V5, 0x0a, "t", 7, &[], "x")).unwrap();
    assert_eq!(bench.journal.readings.len(), 1);
    assert_eq!(bench.acks(1), puback(7));
}

#[test]
fn a_refusal_waits_for_the_acknowledgements_before_it() {
    let mut bench = Bench::connected(V5);
    bench.give(&publish_1(V5, 1, "x")).unwrap();
    bench.journal.refuse = Some(Refused::Full);
    bench.give(&publish_1(V5, 2, "x")).unwrap();
    bench.journal.refuse = None;
    bench.give(&publish_1(V5, 3, "x")).unwrap();
    assert!(bench.sent().is_empty());
    let refusal = [0x40, 3, 0, 2, 0x97];
    assert_eq!(bench.acks(1), [puback(1).as_slice(), &refusal].concat());
    assert_eq!(bench.session.awaited_commit(), Some(2));
    assert_eq!(bench.acks(2), puback(3));
}

#[test]
fn a_refused_identifier_may_be_tried_again_at_once() {
    let mut bench = Bench::connected(V5);
    bench.give(&publish_1(V5, 1, "x")).unwrap();
    bench.journal.refuse = Some(Refused::Full);
    bench.give(&publish_1(V5, 2, "x")).unwrap();
    bench.journal.refuse = None;
    bench.give(&publish(V5, 0x0a, "t", 2, &[], "x")).unwrap();
    assert_eq!(bench.journal.readings.len(), 2);
    assert_eq!(
        bench.acks(u64::MAX),
        [puback(1).as_slice(), &[0x40, 3, 0, 2, 0x97], &puback(2)].concat()
    );
}

#[test]
fn a_full_journal_is_told_to_mqtt_5_and_ends_mqtt_3_1_1_unacknowledged() {
    for (refused, reason) in [(Refused::Full, 0x97), (Refused::TooLarge, 0x97)] {
        let mut bench = Bench::connected(V5);
        bench.journal.refuse = Some(refused);
        bench.give(&publish_1(V5, 1, "x")).unwrap();
        assert_eq!(bench.sent(), [0x40, 3, 0, 1, reason]);

        let mut bench = Bench::connected(V311);
        bench.give(&publish_1(V311, 1, "x")).unwrap();
        bench.journal.refuse = Some(refused);
        assert_eq!(
            bench.give(&publish_1(V311, 2, "x")),
            Err(SessionEnd::NotTaken { cause: refused })
        );
        assert!(bench.sent().is_empty());
        assert!(
            bench.acks(u64::MAX).is_empty(),
            "the connection is gone, the client repeats both"
        );
    }
}

#[test]
fn a_node_that_takes_nothing_sends_its_clients_away() {
    let mut bench = Bench::connected(V5);
    bench.journal.refuse = Some(Refused::NotNow);
    let end = SessionEnd::NotTaken {
        cause: Refused::NotNow,
    };
    assert_eq!(bench.give(&publish_1(V5, 1, "x")), Err(end));
    assert_eq!(bench.sent(), [0xe0, 1, 0x89]);
    assert_eq!(bench.counters.not_now, 1);
}

#[test]
fn qos_0_that_is_not_taken_is_counted_and_the_session_goes_on() {
    for version in [V5, V311] {
        let mut bench = Bench::connected(version);
        for refused in [Refused::Full, Refused::TooLarge, Refused::NotNow] {
            bench.journal.refuse = Some(refused);
            bench.give(&publish(version, 0, "t", 0, &[], "x")).unwrap();
        }
        assert!(bench.sent().is_empty());
        let counters = bench.counters;
        assert_eq!(
            (counters.journal_full, counters.too_large, counters.not_now),
            (1, 1, 1)
        );
        assert_eq!(counters.dropped_qos0, 3);
    }
}

#[test]
fn mqtt_3_1_1_is_paused_at_the_receive_maximum_and_loses_nothing() {
    let settings = Settings::default().with_receive_maximum(3).unwrap();
    let mut bench = Bench::connected_with(settings, V311);
    let bytes: Vec<u8> = (1..=8)
        .flat_map(|id| publish_1(V311, id, "x"))
        .chain([0xc0, 0])
        .collect();
    bench.give(&bytes).unwrap();
    assert_eq!(bench.journal.readings.len(), 3);
    assert!(!bench.session.wants_bytes());
    assert_eq!(
        bench.session.poll_timeout(),
        None,
        "it cannot show that it is there"
    );
    // What was under way already is kept as well.
    bench.give(&publish_1(V311, 9, "x")).unwrap();
    assert_eq!(bench.journal.readings.len(), 3);

    let mut acked = Vec::new();
    for (up_to, taken) in [(3, 6), (6, 9)] {
        let (acks, flow) = bench.commit(up_to);
        assert_eq!(flow, Flow::Resume);
        acked.extend(acks);
        bench.give(&[]).unwrap();
        assert_eq!(bench.journal.readings.len(), taken);
    }
    assert_eq!(
        bench.sent(),
        [0xd0, 0],
        "the ping in between was answered in its turn"
    );
    let (acks, flow) = bench.commit(9);
    acked.extend(acks);
    assert_eq!(flow, Flow::Resume);
    bench.give(&[]).unwrap();
    assert!(bench.session.wants_bytes());
    assert_eq!(acked, (1..=9).flat_map(puback).collect::<Vec<u8>>());
    assert_eq!(bench.commit(9).1, Flow::Steady);
}

#[test]
fn a_paused_client_that_keeps_sending_is_ended() {
    let settings = Settings::default().with_receive_maximum(1).unwrap();
    let mut bench = Bench::connected_with(settings, V311);
    bench.give(&publish_1(V311, 1, "x")).unwrap();
    let more = publish(V311, 2, "t", 2, &[], vec![0; 10_000]);
    let ended = (0..20).find(|_| bench.give(&more).is_err());
    assert_eq!(ended, Some(13), "131,072 bytes are held");
    assert!(bench.sent().is_empty());
}

#[test]
fn mqtt_5_may_have_the_receive_maximum_and_no_more() {
    let settings = Settings::default().with_receive_maximum(2).unwrap();
    let mut bench = Bench::connected_with(settings, V5);
    for packet_id in 1..=2 {
        bench.give(&publish_1(V5, packet_id, "x")).unwrap();
    }
    bench.give(&publish(V5, 0, "t", 0, &[], "x")).unwrap();
    bench.give(&publish(V5, 0x0a, "t", 2, &[], "x")).unwrap();
    assert_eq!(bench.acks(1), puback(1));
    bench.give(&publish_1(V5, 3, "x")).unwrap();
    assert!(bench.give(&publish_1(V5, 4, "x")).is_err());
    assert_eq!(bench.sent(), [0xe0, 1, 0x93]);
    assert!(
        bench.acks(u64::MAX).is_empty(),
        "an ended session acknowledges nothing"
    );
}

#[test]
fn a_busy_session_needs_no_new_memory() {
    for version in [V5, V311] {
        let mut bench = Bench::connected(version);
        bench.journal.counts_only = true;
        let mut send = Vec::with_capacity(1_024);
        let burst: Vec<u8> = (1..=20)
            .flat_map(|id| publish(version, 2, "hall/pressure", id, &[], vec![b'x'; 100]))
            .collect();
        let (first, second) = burst.split_at(burst.len() / 2);
        let mut memory = None;
        for _ in 0..100 {
            bench.give(first).unwrap();
            bench.give(second).unwrap();
            let _ = bench.session.handle_committed(bench.journal.last, &mut send);
            assert_eq!(send.len(), 80);
            send.clear();
            let now = bench.session.memory_bytes();
            assert_eq!(*memory.get_or_insert(now), now);
        }
        assert_eq!(send.capacity(), 1_024);
        assert!(bench.send.is_empty() && bench.send.capacity() == 0);
        assert_eq!(bench.journal.last, 2_000);
    }
}

#[test]
fn an_idle_session_takes_less_than_a_kibibyte() {
    for version in [V5, V311] {
        let mut bench = Bench::connected(version);
        // After a burst, and a large packet in parts.
        for id in 1..=60 {
            bench.give(&publish_1(version, id, "x")).unwrap();
        }
        let large = publish(version, 2, "t", 61, &[], vec![0; 60_000]);
        for part in large.chunks(1_000) {
            bench.give(part).unwrap();
        }
        assert_eq!(
            bench.journal.readings.last().map(|reading| reading.payload.len()),
            Some(60_000)
        );
        assert_eq!(bench.acks(u64::MAX).len(), 61 * 4);
        bench.timeout().unwrap();
        let bytes = bench.session.memory_bytes();
        println!("an idle session of {version:?} takes {bytes} bytes");
        assert!(bytes <= 1_024, "{bytes}");
    }
}

#[test]
fn failures_explain_themselves_unless_the_client_does_not_want_it_or_has_no_room() {
    let explained = |section: &[u8]| {
        let mut bench = Bench::new();
        bench
            .give(&connect(V5, 0x02, section, &[&string("client")]))
            .unwrap();
        bench.sent();
        bench.journal.refuse = Some(Refused::Full);
        bench.give(&publish_1(V5, 1, "x")).unwrap();
        let acknowledgement = bench.sent_whole();
        // Reserved bits: the connection ends.
        bench.give(&[0xc1, 0]).unwrap_err();
        [acknowledgement, bench.sent_whole()]
            .map(|packet| String::from_utf8_lossy(&packet).contains(" is reached") || packet.len() > 40)
    };
    assert_eq!(explained(&[]), [true, true]);
    assert_eq!(explained(&[0x17, 1]), [true, true]);
    assert_eq!(explained(&[0x17, 0]), [false, true], "[MQTT-3.1.2-29]");
    assert_eq!(
        explained(&[0x27, 0, 0, 0, 20]),
        [false, false],
        "[MQTT-3.4.2-2], [MQTT-3.14.2-3]"
    );
}
