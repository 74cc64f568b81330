//! Each invariant is broken once, so that it is known to notice.

use std::ops::RangeInclusive;

use fieldgate_proto::wire::put_bytes_varint;

use super::*;

const KEY: SourceKey = (Identifier::from_bytes([1; 32]), [2; 16]);

fn body(sequence: u64) -> Vec<u8> {
    format!("reading {sequence}").into_bytes()
}

/// A model of a journal with ten readings, of which eight are promised.
fn model() -> Model {
    let mut model = Model::default();
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
        first: *sequences.start(),
        count: sequences.count() as u64,
        readings: &readings,
    };
    model.handed(KEY, &batch);
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
    model.stored(KEY, 8);
    model.released(KEY, 8);
    model.recovered(KEY, &report(9, 10));
    hand(&mut model, 9..=9, |_| {});
    model.stored(KEY, 9);
    model.released(KEY, 9);
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
        first: 1,
        count: 0,
        readings: &[],
    };
    model.handed((Identifier::from_bytes([9; 32]), [2; 16]), &batch);
    assert_eq!(
        sentence(&mut model),
        Some("the sink gets readings of known gateways only")
    );
}

#[test]
fn a_release_before_the_store_has_it_is_noticed() {
    let mut model = model();
    hand(&mut model, 1..=5, |_| {});
    model.stored(KEY, 4);
    model.released(KEY, 4);
    assert_eq!(sentence(&mut model), None);
    model.released(KEY, 5);
    assert_eq!(
        sentence(&mut model),
        Some("only what the sink has stored is released")
    );
}

#[test]
fn what_a_collector_took_and_did_not_store_is_gone_with_it() {
    let mut model = model();
    hand(&mut model, 1..=5, |_| {});
    model.stored(KEY, 2);
    model.collector_started();
    hand(&mut model, 3..=4, |_| {});
    model.stored(KEY, 4);
    assert_eq!(sentence(&mut model), None);
    model.released(KEY, 5);
    assert!(sentence(&mut model).is_some());
}

#[test]
fn a_promise_that_a_stop_took_back_is_noticed() {
    let mut short = model();
    short.recovered(KEY, &report(1, 8));
    assert_eq!(
        sentence(&mut short),
        Some("no promised reading is lost by a stop")
    );
    let mut eager = model();
    eager.recovered(KEY, &report(3, 9));
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
    stopped.recovered(KEY, &report(1, 9));
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

#[test]
fn a_reading_that_never_arrives_is_noticed_unless_its_disk_was_damaged() {
    let mut model = model();
    hand(&mut model, 1..=7, |_| {});
    model.stored(KEY, 7);
    model.finish();
    assert_eq!(sentence(&mut model), Some("every promised reading arrives"));
    model.damaged(KEY, [8].into());
    model.finish();
    assert_eq!(sentence(&mut model), None);
    assert_eq!(model.totals(), (8, 7, 1));
}

#[test]
fn a_gap_is_allowed_for_what_a_disk_lost_and_for_nothing_else() {
    let mut model = model();
    model.damaged(KEY, [4, 5].into());
    hand(&mut model, 1..=3, |_| {});
    hand(&mut model, 6..=7, |_| {});
    model.missing(KEY, 4, 5);
    assert_eq!(sentence(&mut model), None);
    model.missing(KEY, 4, 6);
    assert!(sentence(&mut model).is_some());
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
    buffers.set_queued(key, 300 << 10);
    assert!(bounds::invariant_queues_of_links_are_bounded("x", &buffers).is_ok());
    buffers.set_queued(key, 400 << 10);
    assert!(bounds::invariant_queues_of_links_are_bounded("x", &buffers).is_err());
}
