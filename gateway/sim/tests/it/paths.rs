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
        // The sink stands still, so the gateway repeats its Offer; these are caught on the wire to its relay. The gateway hears
        // nothing and goes by the other relay. Then the old Offers arrive.
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
        let changed = count(&story, &["gateway-0: PathChanged", "Silent"]);
        assert!(changed >= 1, "{text}");
        assert_eq!(
            count(&story, &["LinkBroken"]),
            0,
            "what was caught is lost: {text}"
        );
        assert_eq!(count(&story, &["gateway-0: UplinkUp"]), 1, "{text}");
        assert_eq!(count(&story, &["gateway-0: UplinkDown"]), 0, "{text}");
    }
}

/// Returns the longest time in milliseconds between two arrivals at the sink within a while.
fn longest_pause(report: &Report, within: std::ops::Range<u64>) -> u64 {
    let arrivals = report.arrivals.iter().map(|arrival| arrival.millis);
    let mut times: Vec<u64> = arrivals.filter(|millis| within.contains(millis)).collect();
    times.extend([within.start, within.end]);
    times.sort_unstable();
    times
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or_default()
}

#[test]
fn a_relay_that_falls_silent_holds_nothing_up_for_two_seconds() {
    for seed in 1..=30 {
        let mut scenario = Scenario::quiet(seed);
        scenario.relays = 2 + usize::from(seed % 3 == 0);
        scenario.chaos = Duration::from_secs(60);
        let (_, story) = tell(&scenario);
        let up = story.iter().find(|line| line.contains("UplinkUp")).cloned();
        let up = up.expect("the collector is reached");
        let way = (0..scenario.relays).find(|way| up.contains(&format!("neighbour: {way} }}")));
        let relay = scenario.first_relay() + way.expect("a relay's");
        // On one side of it, on the other, or on both.
        let ends = match seed % 3 {
            0 => vec![0],
            1 => vec![scenario.collector()],
            _ => vec![0, scenario.collector()],
        };
        let lasting = Duration::from_secs(30);
        scenario.faults = ends
            .into_iter()
            .map(|end| {
                // Every fourth network is cut in one direction only.
                let cut = match seed % 4 {
                    0 if seed % 8 == 0 => Fault::OneWay {
                        from: relay,
                        to: end,
                        lasting,
                    },
                    0 => Fault::OneWay {
                        from: end,
                        to: relay,
                        lasting,
                    },
                    _ => Fault::Partition {
                        between: (relay, end),
                        lasting,
                    },
                };
                (Duration::from_secs(15), cut)
            })
            .collect();
        let (report, story) = tell(&scenario);
        assert_eq!(report.delivered, report.acknowledged);
        let pause = longest_pause(&report, 14_000..55_000);
        assert!(pause < 2_000, "{pause} ms with seed {seed}\n{}", story.join("\n"));
    }
}
