//! Each invariant is broken once, so that it is known to notice.

use std::ops::RangeInclusive;

use fieldgate_proto::{link::Class, wire::put_bytes_varint};

use super::*;

const COLLECTOR: usize = 3;
const KEY: SourceKey = (Identifier::from_bytes([1; 32]), [2; 16]);

fn body(sequence: u64) -> Vec<u8> {
    format!("reading {sequence}").into_bytes()
}

/// A model of a journal with ten readings, of which eight are promised.
fn model() -> Model {
    let mut model = Model {
        collectors: (COLLECTOR, 1),
        ..Model::default()
    };
    for sequence in 1..=10 {
        model.appended(KEY, sequence, body(sequence));
    }
    model.committed(KEY, 8);
    assert_eq!(model.take_broken(), None);
    model
}

fn hand(model: &mut Model, sequences: RangeInclusive<u64>, change: impl FnOnce(&mut Vec<u8>)) {
    let mut readings = Vec::new();
    for sequence in sequences.clone() {
        put_bytes_varint(&mut readings, &body(sequence));
    }
    change(&mut readings);
    let batch = Batch {
        lane: Class::Normal,
        first: *sequences.start(),
        count: sequences.count() as u64,
        readings: &readings,
        seal: None,
    };
    model.handed(COLLECTOR, KEY, &batch);
}

fn sentence(model: &mut Model) -> Option<&'static str> {
    model.take_broken().map(|broken| broken.sentence)
}

fn report(first: u64, next: u64) -> RecoveryReport {
    RecoveryReport {
        first,
        next,
        ..RecoveryReport::default()
    }
}

#[test]
fn a_run_in_order_breaks_nothing() {
    let mut model = model();
    hand(&mut model, 1..=5, |_| {});
    hand(&mut model, 6..=8, |_| {});
    model.stored(COLLECTOR, KEY, 8);
    model.released(0, KEY, 8);
    model.recovered(KEY, &report(9, 10), Policy::default());
    hand(&mut model, 9..=9, |_| {});
    model.stored(COLLECTOR, KEY, 9);
    model.released(0, KEY, 9);
    model.finish();
    assert_eq!(model.take_broken(), None);
    assert_eq!(model.totals(), (9, 9, 0));
    assert!(model.is_settled(KEY));
}

#[test]
fn what_comes_twice_late_or_early_is_noticed() {
    let order = Some("the sink gets each reading once and in order");
    for wrong in [2..=3, 1..=5, 5..=6] {
        let mut model = model();
        hand(&mut model, 1..=3, |_| {});
        hand(&mut model, wrong, |_| {});
        assert_eq!(sentence(&mut model), order);
    }
}

#[test]
fn a_changed_byte_is_noticed() {
    let stable = Some("the sink gets what the gateway has on stable storage");
    let mut changed = model();
    hand(&mut changed, 1..=3, |readings| *readings.last_mut().unwrap() ^= 1);
    assert_eq!(sentence(&mut changed), stable);
    let mut longer = model();
    hand(&mut longer, 1..=3, |readings| readings.push(0));
    assert_eq!(sentence(&mut longer), stable);
}

#[test]
fn what_was_sent_before_it_was_promised_is_noticed() {
    let mut model = model();
    hand(&mut model, 1..=9, |_| {});
    assert_eq!(
        sentence(&mut model),
        Some("the sink gets what the gateway has on stable storage")
    );
}

#[test]
fn readings_of_a_stranger_are_noticed() {
    let mut model = model();
    let batch = Batch {
        lane: Class::Normal,
        first: 1,
        count: 0,
        readings: &[],
        seal: None,
    };
    model.handed(COLLECTOR, (Identifier::from_bytes([9; 32]), [2; 16]), &batch);
    assert_eq!(
        sentence(&mut model),
        Some("the sink gets readings of known gateways only")
    );
}

#[test]
fn a_release_before_the_store_has_it_is_noticed() {
    let mut model = model();
    hand(&mut model, 1..=5, |_| {});
    model.stored(COLLECTOR, KEY, 4);
    model.released(0, KEY, 4);
    assert_eq!(sentence(&mut model), None);
    model.released(0, KEY, 5);
    assert_eq!(
        sentence(&mut model),
        Some("only what the sink has stored is released")
    );
}

#[test]
fn what_a_collector_took_and_did_not_store_is_gone_with_it() {
    let mut model = model();
    hand(&mut model, 1..=5, |_| {});
    model.stored(COLLECTOR, KEY, 2);
    model.collector_started(COLLECTOR);
    hand(&mut model, 3..=4, |_| {});
    model.stored(COLLECTOR, KEY, 4);
    assert_eq!(sentence(&mut model), None);
    model.released(0, KEY, 5);
    assert!(sentence(&mut model).is_some());
}

#[test]
fn a_promise_that_a_stop_took_back_is_noticed() {
    let mut short = model();
    short.recovered(KEY, &report(1, 8), Policy::default());
    assert_eq!(
        sentence(&mut short),
        Some("no promised reading is lost by a stop")
    );
    let mut eager = model();
    eager.recovered(KEY, &report(3, 9), Policy::default());
    assert_eq!(sentence(&mut eager), Some("no stop releases a reading"));
}

#[test]
fn a_sequence_given_out_twice_is_noticed_unless_a_stop_took_it_back() {
    let mut twice = model();
    twice.appended(KEY, 10, body(10));
    assert_eq!(
        sentence(&mut twice),
        Some("sequences are given out once and without gaps")
    );
    let mut stopped = model();
    stopped.recovered(KEY, &report(1, 9), Policy::default());
    stopped.appended(KEY, 9, b"another".to_vec());
    assert_eq!(sentence(&mut stopped), None);
}

#[test]
fn a_promise_about_nothing_is_noticed() {
    for up_to in [7, 11] {
        let mut model = model();
        model.committed(KEY, up_to);
        assert_eq!(
            sentence(&mut model),
            Some("promises grow and cover what was appended")
        );
    }
}

fn lose(model: &mut Model, sequences: RangeInclusive<u64>, reason: LostReason) -> Option<&'static str> {
    let lost = Lost {
        lane: Class::Normal,
        first: *sequences.start(),
        last: *sequences.end(),
        reason,
        captured: None,
    };
    model.gap(COLLECTOR, KEY, &lost);
    sentence(model)
}

#[test]
fn a_reading_that_never_arrives_is_noticed_unless_a_gap_says_so() {
    let mut model = model();
    hand(&mut model, 1..=7, |_| {});
    model.stored(COLLECTOR, KEY, 7);
    model.finish();
    assert_eq!(sentence(&mut model), Some("every promised reading arrives"));
    model.damaged(KEY, [8].into());
    assert_eq!(lose(&mut model, 8..=8, LostReason::Corrupt), None);
    model.finish();
    assert_eq!(
        sentence(&mut model),
        Some("every promised reading arrives"),
        "the gap is not stored"
    );
    model.stored(COLLECTOR, KEY, 8);
    model.finish();
    assert_eq!(sentence(&mut model), None);
    assert_eq!(model.totals(), (8, 7, 1));
    assert_eq!(model.lost_by(), BTreeMap::from([("corrupt", 1)]));
}

#[test]
fn a_gap_without_its_reason_is_noticed() {
    let reason = Some("a gap has its reason");
    let mut damage = model();
    damage.damaged(KEY, [1, 2].into());
    assert_eq!(lose(&mut damage, 1..=3, LostReason::Corrupt), reason);
    let mut policy = model();
    assert_eq!(lose(&mut policy, 1..=3, LostReason::Discarded), reason);
    policy = model();
    policy.recovered(
        KEY,
        &report(1, 9),
        Policy {
            drops: true,
            expires: false,
        },
    );
    assert_eq!(lose(&mut policy, 1..=3, LostReason::Discarded), None);
    assert_eq!(
        lose(&mut policy, 3..=4, LostReason::Discarded),
        Some("the sink gets each reading once and in order")
    );
    let mut released = model();
    assert_eq!(lose(&mut released, 1..=3, LostReason::Released), reason);
    released = model();
    hand(&mut released, 1..=3, |_| {});
    released.stored(COLLECTOR, KEY, 3);
    released.restored(COLLECTOR, &Store::new());
    released.collector_started(COLLECTOR);
    assert_eq!(lose(&mut released, 1..=3, LostReason::Released), None);
}

#[test]
fn a_collector_that_says_it_was_set_back_and_was_not_is_noticed() {
    let mut model = model();
    model.forgotten(COLLECTOR, 5, 3);
    let said = Some("a collector is said to be set back only if it was");
    assert_eq!(sentence(&mut model), said);
    model.restored(COLLECTOR, &Store::new());
    model.forgotten(COLLECTOR, 5, 3);
    assert_eq!(sentence(&mut model), None);
    model.told_of_restore(0, 3, 3);
    assert_eq!(sentence(&mut model), said);
}

#[test]
fn an_acknowledgement_before_stable_storage_is_noticed() {
    let mut model = model();
    model.acknowledged(KEY, 8);
    assert_eq!(sentence(&mut model), None);
    model.acknowledged(KEY, 9);
    assert_eq!(
        sentence(&mut model),
        Some("what is acknowledged is on stable storage in its lane")
    );
}

#[test]
fn plaintext_on_a_wire_is_noticed() {
    let mut model = model();
    model.tap("relay", b"\x17~secret ~secret readin~secret reading");
    assert_eq!(sentence(&mut model), None);
    model.tap("relay", b"\x17~~secret reading~ 12");
    assert_eq!(sentence(&mut model), Some("wires carry no plaintext"));
}

#[test]
fn deadlines_in_the_past_queues_without_end_and_impostors_are_noticed() {
    use fieldgate_proto::time::Instant;
    let now = Instant::from_nanos(5);
    assert!(invariant_deadlines_lie_ahead(("x", "node"), now, Some(now)).is_err());
    assert!(invariant_deadlines_lie_ahead(("x", "node"), now, None).is_ok());
    let mut buffers = crate::host::Buffers::default();
    let key = fieldgate_proto::node::ConnectionKey(1);
    buffers.open(key);
    buffers.set_queued(key, 450 << 10);
    assert!(bounds::invariant_queues_of_links_are_bounded("x", &buffers).is_ok());
    buffers.set_queued(key, 460 << 10);
    assert!(bounds::invariant_queues_of_links_are_bounded("x", &buffers).is_err());
}
