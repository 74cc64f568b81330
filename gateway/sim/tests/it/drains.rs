//! Relays that have their members leave before they stop, one after the other.

use fieldgate_sim::{Report, Scenario};

use crate::seeds::play;

#[test]
fn a_relay_that_is_drained_is_missed_by_nobody() {
    let mut total = Report::default();
    for seed in 1..=SEEDS {
        let scenario = Scenario::draw_drained(seed);
        let mut story = Vec::new();
        let played = play(&scenario, Some(&mut |line| story.push(line)));
        let report = played.unwrap_or_else(|failure| panic!("seed {seed}: {failure}\n{}", story.join("\n")));
        let told = || format!("seed {seed}: {report:?}\n{}", story.join("\n"));
        assert_eq!(report.drains, scenario.relays as u64, "{}", told());
        // Relays stay with a relay they have dialled: whoever reaches what lies behind it knows nothing of this.
        let relays = scenario.chains.as_ref().map_or(0, |chains| chains.links.len());
        assert_eq!(report.left_behind, relays as u64, "{}", told());
        assert_eq!(report.delivered, report.acknowledged, "{}", told());
        let streams = &report.streams;
        assert_eq!(streams.ended_well, streams.opened, "{}", told());
        let down = |line: &&String| line.contains("PortalDown") || line.contains("UplinkDown");
        assert_eq!(story.iter().find(down), None, "{}", told());
        total.add(&report);
    }
    assert!(total.streams.bytes > 1 << 20, "{total:?}");
    assert!(
        total.streams.resumed > SEEDS,
        "streams were on their way: {total:?}"
    );
}

/// Networks played.
const SEEDS: u64 = 6;
