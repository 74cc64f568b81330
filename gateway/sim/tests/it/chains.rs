//! Relays in a row, and streams across them: many seeds, and what a relay in the middle may try.

use fieldgate_sim::{Report, Scenario, Verb};

use crate::seeds::{play, play_seeds};

#[test]
fn whatever_goes_wrong_streams_and_readings_cross_relays_in_a_row() {
    if let Some(total) = play_seeds(
        include_str!("../../seeds-chained.txt"),
        SEEDS,
        Scenario::draw_chained,
    ) {
        everything_happened(&total);
    }
}

/// A simulator that never does what it is made for would find nothing.
fn everything_happened(total: &Report) {
    let streams = &total.streams;
    let counts = [
        total.resets,
        total.partitions,
        total.one_ways,
        total.clock_steps,
        total.drains,
        total.left_behind,
        total.wrong_clocks,
        total.rekeys,
        total.refused_peers,
        total.impostor_messages,
        streams.ended_well,
        streams.resumed,
        streams.lost,
        streams.given_up,
        streams.went_back,
        streams.duplicates,
    ];
    assert!(counts.iter().all(|count| *count > 0), "{total:?}");
    for reason in ["unreachable", "broken", "limit", "lost"] {
        assert!(streams.broken_off.contains_key(reason), "{reason}: {total:?}");
    }
    // Where the hop limit ends a route is too seldom for these seeds: the router's own tests have it.
    assert!(total.dropped.contains_key("loop"), "{total:?}");
    assert!(total.restarts.iter().all(|restarts| *restarts > 0), "{total:?}");
    assert!(
        Verb::ALL.iter().all(|verb| total.attacks_of(*verb) > 0),
        "{total:?}"
    );
    assert!(streams.bytes > 1 << 20, "{total:?}");
}

#[test]
fn a_chained_seed_does_the_same_every_time() {
    for seed in 1..=3 {
        let reports = [(); 2].map(|()| play(&Scenario::draw_chained(seed), None).unwrap());
        assert_eq!(reports[0], reports[1]);
    }
}

#[test]
fn streams_cross_one_to_five_relays_unharmed() {
    for relays in 1..=5 {
        let report = play(&Scenario::chained(7, relays), None).unwrap();
        assert_eq!(report.delivered, report.acknowledged);
        let streams = &report.streams;
        assert!(streams.ended_well > 10, "{report:?}");
        assert_eq!(streams.ended_well, streams.opened, "{report:?}");
        assert!(report.tapped > (relays as u64 + 1) * streams.bytes, "{report:?}");
    }
}

/// Seeds played unless asked for another number.
const SEEDS: u64 = 80;
