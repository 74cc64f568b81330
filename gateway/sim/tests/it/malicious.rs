//! The relay in between cannot read, alter, replay or reorder: one test for each thing that it may try.
//!
//! Every run ends only if all readings that were promised are in the collector's store, each once, in order and byte for byte as
//! the device gave them: an attack has no effect beyond delay. The tests here show that the attack took place.

use fieldgate_sim::{Report, Scenario, Verb};

use crate::seeds::play;

/// Lets the relay do `verb` in some networks, and returns what happened in all of them.
fn attack(verb: Verb) -> Report {
    let mut total = Report::default();
    for seed in 1..=3 {
        let scenario = Scenario::malicious(seed, verb);
        let report = play(&scenario, None).unwrap_or_else(|failure| panic!("{verb:?}: {failure}"));
        assert!(report.attacks_of(verb) >= 20, "{report:?}");
        assert_eq!(report.attacks.len(), 1, "it does only that");
        assert_eq!(report.lost, 0);
        assert!(report.acknowledged > 200, "{report:?}");
        assert_eq!(report.delivered, report.acknowledged);
        total.add(&report);
    }
    total
}

#[test]
fn a_relay_cannot_read() {
    let report = play(&Scenario::quiet(1), None).unwrap();
    // Every reading crossed the relay, everything on its wires was searched, and nothing of any reading was found: the
    // search is shown to find them where they are in clear by a test of the gateway's disk.
    assert!(report.forwarded > 50, "{report:?}");
    assert!(report.tapped > report.delivered * 20, "{report:?}");
    assert_eq!(report.delivered, report.acknowledged);
}

#[test]
fn a_relay_cannot_alter_a_bit() {
    let report = attack(Verb::Flip);
    assert!(
        report.records_refused[0] > 0,
        "records did not verify: {report:?}"
    );
}

#[test]
fn a_relay_cannot_replay_old_bytes() {
    let report = attack(Verb::Replay);
    assert!(report.records_refused[1] > 0, "records came again: {report:?}");
}

#[test]
fn a_relay_cannot_reorder_frames() {
    let report = attack(Verb::Reorder);
    assert!(report.out_of_order > 0, "readings came too early: {report:?}");
}

#[test]
fn a_relay_cannot_drop_frames_unnoticed() {
    let report = attack(Verb::Drop);
    assert!(report.out_of_order > 0, "readings were missing: {report:?}");
}

#[test]
fn a_relay_cannot_duplicate_frames() {
    let report = attack(Verb::Duplicate);
    assert!(report.records_refused[1] > 0, "records came twice: {report:?}");
}

#[test]
fn a_relay_cannot_inject_frames() {
    let report = attack(Verb::Inject);
    let refused: u64 = report.records_refused.iter().sum();
    assert!(refused > 0, "records were made up: {report:?}");
}

#[test]
fn a_relay_cannot_swap_payloads_between_labels() {
    let report = attack(Verb::Swap);
    let refused: u64 = report.records_refused.iter().sum();
    assert!(refused > 0, "records came by the wrong label: {report:?}");
}

#[test]
fn a_relay_that_holds_everything_back_only_delays() {
    attack(Verb::HoldBack);
}

#[test]
fn a_relay_cannot_hand_the_collectors_name_to_somebody_else() {
    let mut total = Report::default();
    for seed in 1..=4 {
        let mut scenario = Scenario::quiet(seed);
        scenario.impostor = true;
        let report = play(&scenario, None).unwrap();
        assert_eq!(report.delivered, report.acknowledged);
        total.add(&report);
    }
    assert!(total.impostor_messages > 0, "gateways were led to it: {total:?}");
    assert!(total.refused_peers > 0, "and it came to the collector: {total:?}");
}
