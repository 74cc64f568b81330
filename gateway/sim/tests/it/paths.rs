//! Networks made to bring about one thing that a seed found once.

use std::time::Duration;

use fieldgate_proto::channel::RekeySettings;
use fieldgate_sim::{Report, Scenario, scenario::Fault};

use crate::seeds::play;

fn tell(scenario: &Scenario) -> (Report, Vec<String>) {
    let mut story = Vec::new();
    let report = play(scenario, Some(&mut |line| story.push(line)));
    (
        report.unwrap_or_else(|failure| panic!("{failure}\n{}", story.join("\n"))),
        story,
    )
}

/// Counts the lines that hold all of `words`.
fn count(story: &[String], words: &[&str]) -> usize {
    let lines = story.iter();
    lines
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .count()
}

#[test]
fn an_offer_still_on_its_way_when_its_channel_was_given_up_changes_nothing() {
    for seed in 1..=3 {
        let mut scenario = Scenario::quiet(seed);
        scenario.relays = 2;
        scenario.chaos = Duration::from_secs(60);
        scenario.channels.rekey = RekeySettings {
            interval: Duration::from_secs(2),
            ..RekeySettings::default()
        };
        let (_, story) = tell(&scenario);
        let first = count(&story, &["UplinkUp { uplink: 0, neighbour: 0 }"]) > 0;
        let relay = scenario.first_relay() + usize::from(!first);
        // The sink stands still, so the gateway repeats its Offer; these are caught on the wire to its relay. The gateway gives
        // the channel up because nobody answers its rekey, before the link counts as silent, and goes by the other relay.
        // Then the old Offers arrive.
        let stops = Fault::SinkStops {
            lasting: Duration::from_millis(39_500),
        };
        let partition = Fault::Partition {
            between: (0, relay),
            lasting: Duration::from_millis(39_500),
        };
        scenario.faults = vec![
            (Duration::from_secs(5), stops),
            (Duration::from_millis(6500), partition),
        ];
        let (report, story) = tell(&scenario);
        assert_eq!(report.delivered, report.acknowledged);
        let text = story.join("\n");
        let given_up = count(&story, &["gateway-0: ChannelLost", "RekeyUnanswered"]);
        assert!(given_up >= 1, "{text}");
        assert_eq!(
            count(&story, &["LinkBroken"]),
            0,
            "what was caught is lost: {text}"
        );
        assert_eq!(count(&story, &["gateway-0: UplinkUp"]), 2, "{text}");
        assert_eq!(count(&story, &["gateway-0: UplinkDown"]), 1, "{text}");
    }
}
