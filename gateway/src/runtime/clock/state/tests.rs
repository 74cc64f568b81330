use proptest::prelude::*;

use super::*;

/// The build, a moment in 2026.
const BUILT: u64 = 1_795_000_000_000;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 366 * DAY;
/// 2100-01-01.
const Y2100: u64 = 4_102_444_800_000;

fn kernel(uptime_millis: u64, unix_millis: u64, synchronised: bool) -> KernelTime {
    KernelTime {
        uptime_millis,
        unix_millis,
        synchronised,
    }
}

/// A node that starts with this reading.
fn started(first: KernelTime, kept: Option<Floors>) -> (ClockState, Judged) {
    let mut state = ClockState::new(first, Some(BUILT), kept);
    let judged = state.observe(first);
    (state, judged)
}

fn events(state: &mut ClockState) -> Vec<ClockEvent> {
    std::iter::from_fn(|| state.poll_event()).collect()
}

fn quality(judged: &Judged) -> (ClockQuality, Source) {
    (judged.wall.quality, judged.source)
}

#[test]
fn a_boot_in_1970_goes_on_from_the_build() {
    let (mut state, judged) = started(kernel(5 * SECOND, 3 * SECOND, false), None);
    assert_eq!(quality(&judged), (ClockQuality::Floor, Source::Floor));
    assert_eq!(judged.wall.unix_millis, BUILT);
    let distrusted = ClockEvent::Distrusted {
        why: Distrust::BelowFloor,
        kernel_millis: 3 * SECOND,
        used_millis: BUILT,
    };
    assert_eq!(events(&mut state), [distrusted]);
    let later = state.observe(kernel(5 * SECOND + DAY, 3 * SECOND + DAY, false));
    assert_eq!(later.wall.unix_millis, BUILT + DAY);
    assert_eq!(later.floor_millis, BUILT + DAY - DAY / DRIFT);
    assert_eq!(events(&mut state), [], "said once");
}

#[test]
fn a_boot_in_1970_that_calls_itself_synchronised_is_not_believed() {
    let (_, judged) = started(kernel(0, 0, true), None);
    assert_eq!(quality(&judged), (ClockQuality::Floor, Source::Floor));
    assert_eq!(judged.wall.unix_millis, BUILT);
}

#[test]
fn a_boot_in_2100_is_not_believed_synchronised_or_not() {
    for synchronised in [false, true] {
        let (mut state, judged) = started(kernel(0, Y2100, synchronised), None);
        assert_eq!(quality(&judged), (ClockQuality::Floor, Source::Floor));
        assert_eq!((judged.wall.unix_millis, judged.floor_millis), (BUILT, BUILT));
        assert_eq!(judged.distrust, Some(Distrust::Implausible));
        assert_eq!(events(&mut state).len(), 1);
        // Nor does it raise the floor.
        let floors = state.floors().expect("a floor");
        assert_eq!(floors.likely_millis, BUILT);
    }
}

#[test]
fn a_node_that_was_off_until_2100_is_brought_there_by_the_authority() {
    let (mut state, _) = started(kernel(0, Y2100, true), None);
    state.learn(0, Y2100 + SECOND);
    let judged = state.observe(kernel(SECOND, Y2100 + SECOND, true));
    assert_eq!(quality(&judged), (ClockQuality::Synchronised, Source::Kernel));
    assert!(judged.floor_millis >= Y2100);
}

#[test]
fn a_flat_battery_at_each_boot_does_not_lose_what_uptime_has_counted() {
    let mut kept = None;
    let mut last = BUILT;
    for boot in 0..50 {
        let (mut state, judged) = started(kernel(0, 0, false), kept);
        assert!(judged.wall.unix_millis >= last, "boot {boot}");
        state.observe(kernel(10 * HOUR, 10 * HOUR, false));
        kept = state.floors();
        last = kept.expect("a floor").sure_millis;
    }
    let counted = 50 * 10 * HOUR;
    assert_eq!(last, BUILT + counted - counted / DRIFT);
}

#[test]
fn a_time_server_that_comes_late_is_believed_and_leaves_a_floor() {
    let now = BUILT + 200 * DAY;
    let (mut state, judged) = started(kernel(0, 0, false), None);
    assert_eq!(judged.wall.quality, ClockQuality::Floor);
    events(&mut state);
    let judged = state.observe(kernel(HOUR, now, true));
    assert_eq!(quality(&judged), (ClockQuality::Synchronised, Source::Kernel));
    let jumped = i64::try_from(now - HOUR).expect("fits");
    assert_eq!(
        events(&mut state),
        [ClockEvent::Jumped { by_millis: jumped }, ClockEvent::Restored]
    );
    // The next boot without it begins there.
    let (_, judged) = started(kernel(0, 0, false), state.floors());
    assert_eq!(judged.wall.unix_millis, now);
    // What it said is likely, not sure.
    assert!(state.floors().expect("a floor").sure_millis < now);
}

#[test]
fn an_unsynchronised_kernel_is_used_between_floor_and_three_years() {
    for (ahead, source) in [
        (0, Source::KernelAlone),
        (DAY, Source::KernelAlone),
        (3 * YEAR, Source::KernelAlone),
        (3 * YEAR + 1, Source::Floor),
    ] {
        let (state, judged) = started(kernel(0, BUILT + ahead, false), None);
        assert_eq!(quality(&judged), (ClockQuality::Floor, source), "{ahead}");
        // It is a time to show, not one to judge with, and it raises nothing.
        assert_eq!(judged.bound().unix_millis, BUILT);
        assert_eq!(state.floors().expect("a floor").likely_millis, BUILT);
    }
    let (_, judged) = started(kernel(0, BUILT - 1, false), None);
    assert_eq!((judged.source, judged.wall.unix_millis), (Source::Floor, BUILT));
}

#[test]
fn a_jump_back_of_a_day_is_not_followed() {
    let now = BUILT + 100 * DAY;
    for synchronised in [true, false] {
        let (mut state, _) = started(kernel(0, now, true), None);
        let judged = state.observe(kernel(HOUR, now + HOUR - DAY, synchronised));
        assert_eq!(quality(&judged), (ClockQuality::Floor, Source::Uptime));
        assert_eq!(judged.wall.unix_millis, now + HOUR);
        let day = -i64::try_from(DAY).expect("fits");
        assert_eq!(
            events(&mut state).first(),
            Some(&ClockEvent::Jumped { by_millis: day })
        );
        // And back again.
        let judged = state.observe(kernel(2 * HOUR, now + 2 * HOUR, true));
        assert_eq!(quality(&judged), (ClockQuality::Synchronised, Source::Kernel));
    }
}

#[test]
fn small_steps_back_of_a_synchronised_kernel_are_followed() {
    let now = BUILT + DAY;
    let (mut state, _) = started(kernel(0, now, true), None);
    let judged = state.observe(kernel(0, now - HOUR, true));
    assert_eq!(judged.wall.unix_millis, now - HOUR);
    assert_eq!(judged.wall.quality, ClockQuality::Synchronised);
    // But not hour by hour.
    let judged = state.observe(kernel(0, now - HOUR - 1, true));
    assert_eq!(quality(&judged), (ClockQuality::Floor, Source::Uptime));
    assert_eq!(judged.wall.unix_millis, now);
}

#[test]
fn a_kernel_that_loses_its_server_is_used_until_somebody_sets_it() {
    let now = BUILT + DAY;
    let (mut state, _) = started(kernel(0, now, true), None);
    let judged = state.observe(kernel(DAY, now + DAY + 5 * SECOND, false));
    assert_eq!(quality(&judged), (ClockQuality::Floor, Source::KernelAlone));
    let judged = state.observe(kernel(DAY, now + 2 * DAY, false));
    assert_eq!(quality(&judged), (ClockQuality::Floor, Source::Uptime));
    assert_eq!(judged.wall.unix_millis, now + DAY);
    assert_eq!(judged.distrust, Some(Distrust::Stepped));
}

#[test]
fn the_authority_stands_above_a_time_server_that_is_wrong() {
    let now = BUILT + 10 * DAY;
    let wrong = now + YEAR;
    let (mut state, judged) = started(kernel(0, wrong, true), None);
    assert_eq!(judged.wall.quality, ClockQuality::Synchronised);
    events(&mut state);
    state.learn(0, now);
    let judged = state.observe(kernel(HOUR, wrong + HOUR, true));
    assert_eq!(quality(&judged), (ClockQuality::Authority, Source::Authority));
    assert_eq!(judged.wall.unix_millis, now + HOUR);
    assert!(judged.floor_millis <= now + HOUR);
    let told = events(&mut state);
    assert!(
        matches!(
            told.as_slice(),
            [
                ClockEvent::Corrected { from_millis, to_millis },
                ClockEvent::Distrusted { why: Distrust::Contradicted, .. }
            ] if *from_millis == wrong && *to_millis == now
        ),
        "{told:?}"
    );
    // The correction is worth a write at once, and holds over a boot without anybody.
    assert!(state.is_keeping_due());
    let (_, judged) = started(kernel(0, 0, false), state.floors());
    assert_eq!(judged.wall.unix_millis, now + HOUR);
}

#[test]
fn an_authority_that_is_behind_is_not_taken() {
    let (mut state, before) = started(kernel(0, BUILT + DAY, true), None);
    state.learn(0, BUILT - 2 * HOUR);
    assert!(matches!(
        events(&mut state).as_slice(),
        [ClockEvent::AuthorityBehind {
            floor_millis: BUILT,
            ..
        }]
    ));
    assert_eq!(state.observe(kernel(0, BUILT + DAY, true)), before);
    // Nor is one that is behind its own statements.
    state.note_statement_time((BUILT + 20 * DAY) / 1_000);
    state.learn(0, BUILT + 10 * DAY);
    assert_eq!(events(&mut state).len(), 1);
}

#[test]
fn statements_raise_the_floor_for_ever() {
    let (mut state, _) = started(kernel(0, 0, false), None);
    state.note_statement_time((BUILT + 30 * DAY) / 1_000);
    state.note_statement_time(1);
    let judged = state.observe(kernel(0, 0, false));
    assert_eq!(judged.wall.unix_millis, BUILT + 30 * DAY);
    let floors = state.floors().expect("a floor");
    assert_eq!(floors.sure_millis, BUILT + 30 * DAY);
}

#[test]
fn without_any_floor_the_kernel_is_all_there_is() {
    let first = kernel(0, 5, false);
    let mut state = ClockState::new(first, None, None);
    let judged = state.observe(first);
    assert_eq!(quality(&judged), (ClockQuality::Unknown, Source::Unchecked));
    assert_eq!((judged.wall.unix_millis, judged.floor_millis), (5, 0));
    assert_eq!(state.floors(), None);
    let judged = state.observe(kernel(DAY, BUILT, true));
    assert_eq!(quality(&judged), (ClockQuality::Synchronised, Source::Kernel));
    assert!(state.floors().is_some());
}

#[test]
fn the_floor_is_kept_after_five_minutes_and_then_hourly() {
    let (mut state, _) = started(kernel(DAY, BUILT, false), None);
    let mut kept = Vec::new();
    for minute in 0..=130 {
        state.observe(kernel(DAY + minute * 60 * SECOND, BUILT, false));
        if state.is_keeping_due() {
            state.handle_kept();
            kept.push(minute);
        }
    }
    assert_eq!(kept, [5, 65, 125]);
}

#[test]
fn events_are_bounded() {
    let (mut state, _) = started(kernel(0, BUILT, true), None);
    for step in 0..100 {
        state.observe(kernel(step, if step % 2 == 0 { 0 } else { BUILT }, true));
    }
    assert_eq!(events(&mut state).len(), EVENTS_MAX);
}

/// What can happen to a clock.
#[derive(Clone, Debug)]
enum Step {
    Observe {
        after: u64,
        set: Option<u64>,
        synchronised: bool,
    },
    Learn(u64),
    Statement(u64),
    Reboot(u64),
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..=DAY,
        BUILT - YEAR..BUILT + 8 * YEAR,
        BUILT - 2 * HOUR..BUILT + 2 * HOUR,
        Just(Y2100),
        any::<u64>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let after = prop_oneof![0..=2 * SECOND, 0..=40 * DAY, Just(u64::MAX / 4)];
    prop_oneof![
        8 => (after, prop::option::weighted(0.3, time()), any::<bool>())
            .prop_map(|(after, set, synchronised)| Step::Observe { after, set, synchronised }),
        1 => time().prop_map(Step::Learn),
        1 => time().prop_map(|millis| Step::Statement(millis / 1_000)),
        1 => time().prop_map(Step::Reboot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn good_times_and_floors_do_not_go_back(first in time(), steps in prop::collection::vec(step(), 1..40)) {
        let mut uptime = 0;
        let mut unix = first;
        let (mut state, judged) = started(kernel(uptime, unix, false), None);
        let mut sure = 0;
        let mut floor = judged.floor_millis;
        let mut best = 0;
        for step in steps {
            let mut synchronised = false;
            match step {
                Step::Observe { after, set, synchronised: is } => {
                    uptime = u64::saturating_add(uptime, after);
                    unix = set.unwrap_or_else(|| u64::saturating_add(unix, after));
                    synchronised = is;
                }
                Step::Learn(millis) => state.learn(uptime, millis),
                Step::Statement(secs) => state.note_statement_time(secs),
                Step::Reboot(at) => {
                    let kept = state.floors();
                    (uptime, unix) = (0, at);
                    state = ClockState::new(kernel(uptime, unix, false), Some(BUILT), kept);
                }
            }
            let is_corrected = std::iter::from_fn(|| state.poll_event())
                .any(|event| matches!(event, ClockEvent::Corrected { .. }));
            if is_corrected {
                (floor, best) = (0, 0);
            }
            let judged = state.observe(kernel(uptime, unix, synchronised));
            let floors = state.floors().expect("the build is one");
            prop_assert!(floors.sure_millis >= sure, "the sure floor sank from {sure}: {floors:?}");
            prop_assert!(judged.floor_millis >= floor, "the floor sank from {floor}: {judged:?}");
            prop_assert!(floors.likely_millis >= floors.sure_millis);
            (sure, floor) = (floors.sure_millis, judged.floor_millis);
            let wall = judged.wall.unix_millis;
            match judged.wall.quality {
                ClockQuality::Synchronised | ClockQuality::Authority => {
                    prop_assert!(wall.saturating_add(STEP_MAX_MILLIS) >= best, "{wall} after {best}");
                    best = best.max(wall);
                    prop_assert_eq!(judged.bound(), judged.wall);
                }
                ClockQuality::Floor => {
                    prop_assert!(wall >= floor);
                    prop_assert_eq!(judged.bound().unix_millis, floor);
                    // Not even the floor forgets what was given out.
                    prop_assert!(wall >= best - best.min(STEP_MAX_MILLIS));
                }
                ClockQuality::Unknown => prop_assert!(false, "there is a floor"),
            }
        }
    }
}
