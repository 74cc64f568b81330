use std::fs;

use super::*;

const DAY: u64 = 86_400_000;
const NOW: u64 = BUILT_SECS * 1_000 + 30 * DAY;

fn kernel_at(uptime_millis: u64, unix_millis: u64, synchronised: bool) -> KernelTime {
    KernelTime {
        uptime_millis,
        unix_millis,
        synchronised,
    }
}

/// The clock of a node that starts with this reading, at 0 of the monotonic clock.
fn opened(state_dir: &Path, first: KernelTime) -> Clock {
    let clock = Clock::new(floor::read(state_dir), Some(state_dir.to_owned()), first);
    clock.tick_at(first, 0);
    clock
}

#[test]
fn what_is_published_is_what_was_judged() {
    let dir = tempfile::tempdir().unwrap();
    let clock = opened(dir.path(), kernel_at(5, NOW, true));
    let seconds = |n: u64| n * 1_000_000_000;
    let at = |n: u64| clock.at(seconds(n));
    assert_eq!(
        (at(0).unix_millis, at(0).quality),
        (NOW, ClockQuality::Synchronised)
    );
    assert_eq!(at(7).unix_millis, NOW + 7_000);
    assert_eq!(clock.bound_at(seconds(7)), at(7));
    // A kernel that lost its server: the time goes on, ends are judged with the floor.
    clock.tick_at(kernel_at(10_005, NOW + 10_000, false), seconds(10));
    assert_eq!(
        (at(10).unix_millis, at(10).quality),
        (NOW + 10_000, ClockQuality::Floor)
    );
    assert_eq!(clock.bound_at(seconds(10)).unix_millis, NOW + 9_990);
}

#[test]
fn a_rounding_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = opened(dir.path(), kernel_at(0, NOW, true));
    clock.tick_at(kernel_at(1_000, NOW + 1_001, true), 1_000_000_000);
    assert_eq!(clock.at(1_000_000_000).unix_millis, NOW + 1_000);
    clock.tick_at(kernel_at(2_000, NOW + 2_002, true), 2_000_000_000);
    assert_eq!(clock.at(2_000_000_000).unix_millis, NOW + 2_002);
}

#[test]
fn the_floor_survives_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let clock = opened(dir.path(), kernel_at(0, NOW, true));
    assert!(matches!(floor::read(dir.path()), Err(FloorError::Missing)));
    clock.tick_at(kernel_at(299_999, NOW + 299_999, true), 0);
    assert!(
        matches!(floor::read(dir.path()), Err(FloorError::Missing)),
        "not at each tick"
    );
    clock.tick_at(kernel_at(300_000, NOW + 300_000, true), 0);
    let kept = floor::read(dir.path()).unwrap();
    assert_eq!(kept.likely_millis, NOW + 300_000);
    clock.tick_at(kernel_at(400_000, NOW + 400_000, true), 0);
    assert_eq!(floor::read(dir.path()).unwrap(), kept);
    clock.keep();
    assert_eq!(floor::read(dir.path()).unwrap().likely_millis, NOW + 400_000);

    let next = opened(dir.path(), kernel_at(0, 0, false));
    let status = next.status();
    assert_eq!(
        (status.quality.as_str(), status.unix_millis),
        ("floor", NOW + 400_000)
    );
    assert_eq!(status.floor_millis, NOW + 400_000);
    assert_eq!(status.offset_millis, i64::try_from(NOW + 400_000).unwrap());
    assert_eq!(
        status.distrust.as_deref(),
        Some("the kernel's clock is below the floor")
    );
}

#[test]
fn a_damaged_floor_costs_what_it_knew_and_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        floor::path(dir.path()),
        "fieldgate clock floor 1\nsure 9999999999999\n",
    )
    .unwrap();
    let clock = opened(dir.path(), kernel_at(0, 0, false));
    assert_eq!(clock.status().floor_millis, BUILT_SECS * 1_000);
    assert_eq!(
        clock.status().file_problem.as_deref(),
        Some("the floor of the clock is damaged")
    );
    clock.keep();
    assert_eq!(clock.status().file_problem, None);
    assert_eq!(floor::read(dir.path()).unwrap().sure_millis, BUILT_SECS * 1_000);
}

#[test]
fn a_floor_that_cannot_be_kept_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let full = dir.path().join("clock.floor.new");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let clock = opened(dir.path(), kernel_at(0, NOW, true));
    clock.tick_at(kernel_at(300_000, NOW + 300_000, true), 0);
    let problem = clock.status().file_problem.expect("a problem");
    assert!(problem.contains("No space left"), "{problem}");
    assert_eq!(clock.status().quality, "synchronised", "the clock goes on");
    clock.tick_at(kernel_at(3_900_000, NOW + 3_900_000, true), 0);
    assert_eq!(clock.status().file_problem, None);
    assert!(floor::read(dir.path()).is_ok());
}

#[test]
fn a_command_that_looks_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::look(dir.path());
    clock.keep();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(clock.wall().unix_millis >= BUILT_SECS * 1_000);
}

#[test]
fn the_authority_sets_the_clock_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::open(dir.path());
    // Two hours from the kernel's time, whatever that is worth here.
    let told = fieldgate_io::clock::wall().unix_millis + 7_200_000;
    clock.learn(told);
    let wall = clock.wall();
    assert_eq!(wall.quality, ClockQuality::Authority);
    assert!((told..told + 60_000).contains(&wall.unix_millis), "{wall:?}");
    assert_eq!(
        clock.status().distrust.as_deref(),
        Some("the kernel's clock differs from the authority's time")
    );
    clock.note_statement_time(told / 1_000 + 3_600);
    clock.tick();
    assert!(clock.status().floor_millis >= told + 3_599_000);
}

#[test]
fn turns_follow_the_node_without_looking() {
    let dir = tempfile::tempdir().unwrap();
    let clock = opened(dir.path(), kernel_at(0, NOW, true));
    let mut turns = TurnClock::following(clock.clone(), 0);
    let second = 1_000_000_000;
    assert_eq!(turns.at(second).wall.unix_millis, NOW + 1_000);
    // The kernel of this machine says something else, and was not asked.
    let before = turns.at(5 * second);
    assert_eq!(before.wall.unix_millis, NOW + 5_000);
    assert_eq!(before.instant, Instant::from_nanos(5 * second));
    clock.tick_at(kernel_at(6_000, NOW + 60_000, true), 6 * second);
    assert_eq!(turns.at(6 * second).wall.unix_millis, NOW + 60_000);
}

#[test]
fn the_time_of_the_build_is_the_release_or_what_the_build_says() {
    let release = RELEASED_SECS;
    for (text, secs) in [
        (None, release),
        (Some(""), release),
        (Some("0"), release),
        (Some("1793491201"), 1_793_491_201),
        (Some("-1793491201"), release),
        (Some("1793491201 "), release),
        (Some("4102444800"), release),
        (Some("99999999999999999999999999"), release),
    ] {
        assert_eq!(built_secs(text), secs, "{text:?}");
    }
}

#[test]
fn packing_keeps_time_and_quality() {
    for quality in [
        ClockQuality::Unknown,
        ClockQuality::Floor,
        ClockQuality::Authority,
        ClockQuality::Synchronised,
    ] {
        // Late on a machine that booted early, and the other way round.
        for (unix_millis, monotonic) in [(0, 0), (NOW, 5_000_000), (3, 900 * DAY * 1_000_000)] {
            let wall = WallTime { unix_millis, quality };
            assert_eq!(unpack(pack(wall, monotonic), monotonic), wall);
        }
    }
}
