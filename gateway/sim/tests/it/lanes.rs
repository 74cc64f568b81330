//! Lanes: who overtakes whom, what policy discards, collectors that are away or come back with an old store.

use std::time::Duration;

use fieldgate_proto::{journal::WhenFull, link::Class};
use fieldgate_sim::{
    Arrival, Report, Scenario,
    scenario::{Classes, Fault, Stop},
};

use crate::seeds::play;

fn run(scenario: &Scenario) -> Report {
    play(scenario, None).unwrap_or_else(|failure| panic!("{failure}"))
}

fn count(arrivals: &[Arrival], lane: Class) -> u64 {
    let of_lane = arrivals.iter().filter(|arrival| arrival.lane == lane);
    of_lane.map(|arrival| arrival.readings).sum()
}

/// Returns what had arrived of all lanes, alarms first, when so many of every 100 alarms had.
fn when_alarms_are_there(arrivals: &[Arrival], percent: u64) -> [u64; 3] {
    let enough = count(arrivals, Class::Alarm) * percent / 100;
    let mut so_far = [0; 3];
    for arrival in arrivals {
        so_far[usize::from(arrival.lane.bits())] += arrival.readings;
        if so_far[0] >= enough {
            break;
        }
    }
    so_far
}

#[test]
fn alarms_overtake_a_backlog() {
    for seed in 1..=3 {
        let mut scenario = Scenario::quiet(seed);
        scenario.chaos = Duration::from_secs(120);
        scenario.bytes_per_sec = 48 << 10..64 << 10;
        scenario.devices.pause_millis = 100..300;
        scenario.devices.burst = 4..20;
        scenario.devices.classes = Classes([1, 10, 10]);
        for lane in &mut scenario.journal.0 {
            lane.bytes_max = 64 * lane.segment_bytes;
        }
        scenario.faults = vec![(
            Duration::from_secs(2),
            Fault::Stop {
                host: scenario.collector(),
                lasting: Duration::from_secs(100),
                how: Stop::Kill,
            },
        )];
        let report = run(&scenario);
        assert_eq!((report.delivered, report.lost), (report.acknowledged, 0));
        let after: Vec<Arrival> = report
            .arrivals
            .iter()
            .copied()
            .filter(|arrival| arrival.millis > 102_000)
            .collect();
        let backlog = count(&after, Class::Normal) + count(&after, Class::Bulk);
        // What devices publish afterwards comes later.
        let [alarms, normal, bulk] = when_alarms_are_there(&after, 75);
        assert!(backlog > 4_000, "a backlog of {backlog}");
        assert!(
            normal + bulk < backlog / 10,
            "with {alarms} alarms came {normal} and {bulk} of {backlog} others"
        );
    }
}

#[test]
fn a_flood_of_alarms_on_a_slow_wire_starves_nobody() {
    let mut scenario = Scenario::quiet(1);
    scenario.chaos = Duration::from_secs(180);
    scenario.bytes_per_sec = 24 << 10..25 << 10;
    scenario.devices.pause_millis = 100..200;
    scenario.devices.burst = 20..40;
    scenario.devices.classes = Classes([8, 1, 1]);
    for lane in &mut scenario.journal.0 {
        lane.bytes_max = 16 * lane.segment_bytes;
        lane.when_full = WhenFull::DropOldest;
    }
    let report = run(&scenario);
    assert!(report.discarded > 0, "more alarms than the wire carries");
    let flood: Vec<Arrival> = report
        .arrivals
        .iter()
        .copied()
        .filter(|arrival| arrival.millis < 180_000)
        .collect();
    let all: u64 = flood.iter().map(|arrival| arrival.readings).sum();
    let [alarm, normal, bulk] = Class::ALL.map(|lane| count(&flood, lane));
    assert!(alarm > all * 3 / 5, "{alarm} of {all}");
    // An eighth and a sixteenth of the bytes, in whole records of 64 KiB.
    assert!(
        normal > all / 10 && bulk > all / 20,
        "{normal} and {bulk} of {all}"
    );
    for minute in 1..3 {
        let later = flood
            .iter()
            .filter(|arrival| arrival.millis / 60_000 == minute)
            .copied()
            .collect::<Vec<_>>();
        assert!(
            count(&later, Class::Normal) > 0 && count(&later, Class::Bulk) > 0,
            "nothing of a lane in minute {minute}"
        );
    }
}

/// After each step the model looks whether each lane is within its bytes on the disk, whether what arrives is byte for byte and in
/// order what the devices gave, each sequence once, and whether each gap is exactly what policy discarded.
#[test]
fn after_a_week_without_collector_the_alarms_of_the_whole_week_come_first() {
    let mut scenario = Scenario::quiet(7);
    scenario.chaos = DAY * 7 + Duration::from_secs(3_600);
    scenario.channels.pq = fieldgate_proto::channel::PqPolicy::Off;
    scenario.devices.pause_millis = 60_000..180_000;
    scenario.devices.burst = 2..12;
    scenario.devices.classes = Classes([1, 8, 8]);
    let [alarm, normal, bulk] = &mut scenario.journal.0;
    alarm.bytes_max = 64 * alarm.segment_bytes;
    normal.bytes_max = 96 * normal.segment_bytes;
    bulk.bytes_max = 8 * bulk.segment_bytes;
    bulk.when_full = WhenFull::DropOldest;
    // Nothing beyond the gateway is there.
    for host in [scenario.first_relay(), scenario.collector()] {
        let away = Fault::Stop {
            host,
            lasting: DAY * 7,
            how: Stop::PowerCut,
        };
        scenario.faults.push((Duration::from_secs(60), away));
    }
    // The token attests a new key twice a day.
    for half in 1..=14 {
        scenario.faults.push((DAY / 2 * half, Fault::Renew { host: 0 }));
    }
    let report = run(&scenario);
    let back: Vec<Arrival> = report
        .arrivals
        .iter()
        .copied()
        .filter(|arrival| u128::from(arrival.millis) > (DAY * 7).as_millis())
        .collect();
    let alarms = count(&back, Class::Alarm);
    assert!(alarms > 1_500, "{alarms} alarms of a week");
    // Bulk had room for a part of the week only, and every reading that went is in a gap record.
    let discarded = report.lost_by.get("discarded").copied().unwrap_or(0);
    assert!(discarded > 5_000, "{:?}", report.lost_by);
    assert_eq!(discarded, report.lost);
    assert_eq!(report.delivered + report.lost, report.acknowledged);
    let others = count(&back, Class::Normal) + count(&back, Class::Bulk);
    // But for those of the hour afterwards, alarms come before everything else.
    let [_, normal, bulk] = when_alarms_are_there(&back, 98);
    assert!(
        others > 10_000 && normal + bulk < others / 100,
        "when the alarms were there {normal} and {bulk} of {others} others were"
    );
}

#[test]
fn a_collector_with_the_store_of_a_backup_gets_again_what_is_left() {
    let mut forgotten = 0;
    for seed in 1..=4 {
        let mut scenario = Scenario::quiet(seed);
        scenario.chaos = Duration::from_secs(90);
        scenario.devices.burst = 1..30;
        scenario.faults = vec![(
            Duration::from_secs(60),
            Fault::Restore {
                host: scenario.collector(),
                age: Duration::from_secs(40),
                lasting: Duration::from_secs(5),
            },
        )];
        let report = run(&scenario);
        assert_eq!(report.restored, 1);
        // The gateway and the collector each say so, for each lane.
        assert_eq!(report.restores_noticed, 6);
        assert_eq!(report.delivered + report.lost, report.acknowledged);
        assert_eq!(
            report.lost_by.get("released").copied().unwrap_or(0),
            report.lost,
            "what is gone was confirmed once"
        );
        forgotten += report.lost;
    }
    assert!(forgotten > 0, "segments were deleted meanwhile");
}

#[test]
fn two_collectors_of_which_one_is_away_get_everything_each() {
    for seed in 1..=3 {
        let mut scenario = Scenario::quiet(seed);
        scenario.collectors = 2;
        scenario.relays = 2;
        scenario.chaos = Duration::from_secs(120);
        for lane in &mut scenario.journal.0 {
            lane.bytes_max = 64 * lane.segment_bytes;
        }
        let second = scenario.collector() + 1;
        scenario.faults = vec![(
            Duration::from_secs(10),
            Fault::Stop {
                host: second,
                lasting: Duration::from_secs(100),
                how: Stop::PowerCut,
            },
        )];
        let report = run(&scenario);
        assert_eq!((report.delivered, report.lost), (report.acknowledged, 0));
        // The one that is there is served all the while.
        for second in 15..110 {
            let served = report
                .arrivals
                .iter()
                .any(|arrival| arrival.millis / 5_000 == second / 5);
            assert!(served, "nothing came about second {second}");
        }
    }
}

#[test]
fn capture_times_stay_what_they_were_when_the_clock_steps_while_readings_wait() {
    // The model compares every reading, capture time and its quality included, with what the device gave.
    let mut scenario = Scenario::quiet(3);
    scenario.chaos = Duration::from_secs(120);
    scenario.faults = vec![
        (
            Duration::from_secs(5),
            Fault::Stop {
                host: scenario.collector(),
                lasting: Duration::from_secs(100),
                how: Stop::Kill,
            },
        ),
        (
            Duration::from_secs(40),
            Fault::WrongClock {
                host: 0,
                lasting: Duration::from_secs(20),
            },
        ),
    ];
    let report = run(&scenario);
    assert_eq!((report.wrong_clocks, report.lost), (1, 0));
    assert_eq!(report.delivered, report.acknowledged);
    assert!(report.delivered > 500);
}

const DAY: Duration = Duration::from_secs(86_400);
