//! Stories of lanes: tickets, policies, gaps, uplinks.

use std::time::Duration;

use super::{Disk, Machine, SEGMENT, settings};
use crate::{
    delivery::LostReason,
    journal::*,
    link::Class,
    node::{Copied, RecordSource as _},
    time::{ClockQuality, Instant, Now, WallTime},
};

fn drop_oldest() -> JournalSettings {
    JournalSettings {
        when_full: WhenFull::DropOldest,
        ..settings()
    }
}

fn start(disk: Disk, settings: JournalSettings, uplinks: &[u64]) -> Machine {
    Machine::start_with(disk, settings, uplinks)
}

/// Appends and commits records of 1,000 bytes.
fn fill(machine: &mut Machine, count: usize) {
    for _ in 0..count {
        machine.append(1_000).unwrap();
        machine.commit();
    }
}

#[test]
fn a_lane_that_may_discard_takes_everything_and_tells_what_it_discarded() {
    let mut machine = start(Disk::default(), drop_oldest(), &[1]);
    fill(&mut machine, 1_000);
    assert_eq!(
        (machine.committed, machine.journal.state()),
        (1_000, JournalState::Ready)
    );
    assert!(machine.disk.bytes_max as u64 <= 6 * SEGMENT);
    let gaps: Vec<Gap> = machine.journal.gaps().copied().collect();
    let [gap] = gaps[..] else {
        panic!("one gap: {gaps:?}")
    };
    assert_eq!((gap.first, gap.reason), (1, LostReason::Discarded));
    assert_eq!(machine.journal.view(Now::default()).totals.discarded, gap.last);
    let (found, lost) = machine.read_all(1);
    assert_eq!(lost, [(1, gap.last)]);
    assert_eq!(found.len() as u64 + gap.last, 1_000);
    // It grew no more once it was told, and the same is told after a restart.
    fill(&mut machine, 200);
    let mut machine = start(machine.power_cut(0), drop_oldest(), &[1]);
    let (_, lost) = machine.read_all(1);
    assert_eq!(lost[0], (1, gap.last));
    assert_eq!(lost[1].0, gap.last + 1);
    machine.release(1_200);
    machine.pass(2_000);
    assert_eq!(machine.journal.gap_count(), 0, "everybody knows");
}

#[test]
fn a_gap_is_told_only_once_its_end_is_on_stable_storage() {
    let mut machine = start(Disk::default(), drop_oldest(), &[1]);
    fill(&mut machine, 500);
    let mut out = Vec::new();
    let mut ask = |machine: &mut Machine| machine.journal.copy_records(Class::Normal, 1, 9_000, 9, &mut out);
    machine.cursor_fails = true;
    assert_eq!(ask(&mut machine), Copied::NotYet);
    machine.execute();
    assert_eq!(
        ask(&mut machine),
        Copied::NotYet,
        "the cursor could not be written"
    );
    machine.cursor_fails = false;
    machine.pass(1_000);
    assert!(matches!(
        ask(&mut machine),
        Copied::Lost {
            reason: LostReason::Discarded,
            captured: Some(_),
            ..
        }
    ));
}

#[test]
fn records_expire_by_time_in_the_lane_whatever_the_wall_clock_says() {
    let ttl = JournalSettings {
        ttl: Some(Duration::from_secs(100)),
        ..settings()
    };
    let mut machine = start(Disk::default(), ttl, &[1]);
    fill(&mut machine, 10);
    let later = |machine: &mut Machine, secs: u64, wall: WallTime| {
        machine.now = machine.now + Duration::from_secs(secs);
        let now = Now {
            instant: machine.now,
            wall,
        };
        machine.journal.handle_timeout(now);
        machine.execute();
    };
    let year_3000 = WallTime {
        unix_millis: 32_503_680_000_000,
        quality: ClockQuality::Synchronised,
    };
    later(&mut machine, 30, year_3000);
    assert_eq!(
        machine.journal.gap_count(),
        0,
        "a clock that jumped makes nothing old"
    );
    fill(&mut machine, 5);
    later(&mut machine, 71, WallTime::default());
    later(&mut machine, 7, WallTime::default());
    let gap = *machine.journal.gaps().next().expect("the first ten are too old");
    assert_eq!((gap.first, gap.last, gap.reason), (1, 10, LostReason::Expired));
    let (found, lost) = machine.read_all(1);
    assert_eq!((found.len(), lost), (5, vec![(1, 10)]));
}

#[test]
fn each_uplink_has_a_position_of_its_own_across_restarts() {
    let mut machine = start(Disk::default(), settings(), &[7, 8]);
    fill(&mut machine, 100);
    machine.journal.handle_confirmed(machine.now, 0, 90);
    machine.journal.handle_confirmed(machine.now, 1, 20);
    machine.pass(2_000);
    assert_eq!(machine.journal.released(), 20);
    // The order does not matter, and who is gone keeps nothing back.
    let mut machine = start(machine.disk, settings(), &[8, 7]);
    assert_eq!(
        [0, 1].map(|uplink| machine.journal.confirmed(uplink)),
        [Some(20), Some(90)]
    );
    machine.pass(2_000);
    let mut machine = start(machine.disk, settings(), &[7]);
    assert_eq!(machine.journal.released(), 90);
    machine.pass(2_000);
    // A new one begins at what is still needed by others.
    let machine = start(machine.disk, settings(), &[7, 9]);
    assert_eq!(machine.journal.confirmed(1), Some(90));
}

#[test]
fn tickets_grow_over_all_lanes_and_wait_for_each_other() {
    let now = Instant::START;
    let journals = Class::ALL.map(|lane| Recovery::new(settings(), lane, [9; 16]).finish().0);
    let mut lanes = Lanes::new(journals);
    let mut writes = Vec::new();
    let run = |lanes: &mut Lanes, writes: &mut Vec<(Class, Vec<u8>)>| {
        let mut committed = None;
        while let Some(output) = lanes.poll_output() {
            match output {
                LanesOutput::Lane {
                    lane,
                    output: Output::Create { segment, .. },
                } => {
                    lanes.handle_created(now, lane, segment, Ok(()));
                }
                LanesOutput::Lane {
                    lane,
                    output: Output::Write { bytes, .. },
                } => writes.push((lane, bytes)),
                LanesOutput::Lane { .. } => {}
                LanesOutput::Committed { up_to } => committed = Some(up_to),
            }
        }
        committed
    };
    run(&mut lanes, &mut writes);
    for (ticket, lane) in (1..).zip([Class::Bulk, Class::Alarm, Class::Bulk, Class::Normal]) {
        let given = lanes.append(lane, WallTime::default(), |body| body.push(1));
        assert_eq!(given, Ok(ticket));
    }
    lanes.flush();
    assert_eq!(run(&mut lanes, &mut writes), None);
    let mut written = std::mem::take(&mut writes).into_iter();
    let mut promised = Vec::new();
    for (lane, bytes) in written.by_ref() {
        lanes.handle_written(now, lane, bytes, Ok(()));
        promised.push(run(&mut lanes, &mut writes));
    }
    assert_eq!(
        promised,
        [None, None, Some(4)],
        "the first ticket is in the lane that was written last"
    );
    assert_eq!(lanes.committed(), 4);
}

#[test]
fn a_full_disk_takes_from_the_lane_that_may_discard() {
    let journals = Class::ALL.map(|lane| {
        let settings = if lane == Class::Bulk {
            drop_oldest()
        } else {
            settings()
        };
        Recovery::new(settings, lane, [9; 16]).uplinks(&[1]).finish().0
    });
    let mut lanes = Lanes::new(journals);
    let mut now = Instant::START;
    let (mut deleted, mut full) = (Vec::new(), false);
    let publish = |lanes: &mut Lanes, (now, lane): (Instant, Class), full: bool, deleted: &mut Vec<Class>| {
        lanes.handle_timeout(Now {
            instant: now,
            wall: WallTime::default(),
        });
        let taken = lanes.append(lane, WallTime::default(), |body| body.resize(1_000, 0));
        lanes.flush();
        while let Some(output) = lanes.poll_output() {
            let LanesOutput::Lane { lane, output } = output else {
                continue;
            };
            match output {
                Output::Create { segment, .. } => {
                    let result = if full { Err(WriteFailed::NoRoom) } else { Ok(()) };
                    lanes.handle_created(now, lane, segment, result);
                }
                Output::Write { bytes, .. } => lanes.handle_written(now, lane, bytes, Ok(())),
                Output::WriteCursor { .. } => lanes.handle_cursor_written(now, lane, Ok(())),
                Output::Delete { .. } => deleted.push(lane),
                Output::Read { .. }
                | Output::Shrink { .. }
                | Output::Committed { .. }
                | Output::Discarded { .. }
                | Output::StateChanged(_) => {}
            }
        }
        taken
    };
    // The first finds no segment yet.
    let _ = publish(&mut lanes, (now, Class::Bulk), full, &mut deleted);
    for _ in 0..150 {
        publish(&mut lanes, (now, Class::Bulk), full, &mut deleted).unwrap();
    }
    assert!(deleted.is_empty());
    full = true;
    for record in 0..100 {
        now = now + Duration::from_secs(3);
        assert!(record > 25 || deleted.is_empty(), "there is room for alarms yet");
        let _ = publish(&mut lanes, (now, Class::Alarm), full, &mut deleted);
    }
    assert!(deleted.contains(&Class::Bulk), "bulk makes room");
    assert!(!deleted.contains(&Class::Alarm));
    assert_eq!(lanes.lane(Class::Alarm).gap_count(), 0);
    assert_eq!(lanes.lane(Class::Bulk).gap_count(), 1);
}

#[test]
fn a_lane_whose_segment_cannot_be_made_goes_on_by_itself() {
    let mut machine = start(Disk::default(), settings(), &[1]);
    machine.creation_fails = Some(WriteFailed::Broken);
    let mut taken = 0;
    while machine.append(1_000).is_ok() {
        machine.commit();
        taken += 1;
    }
    assert!(taken > 10);
    assert_eq!(machine.append(10), Err(AppendError::Failed));
    machine.creation_fails = None;
    machine.pass(3_000);
    assert_eq!(machine.journal.state(), JournalState::Ready);
    assert!(machine.append(10).is_ok());
}

#[test]
fn encrypted_records_come_back_and_damage_in_them_is_a_loss() {
    let key = || JournalKey::new(crate::crypto::Secret::new([5; 32]));
    let mut machine = Machine::start_encrypted(Disk::default(), settings(), key());
    fill(&mut machine, 200);
    let bodies = machine.bodies.clone();
    let (found, lost) = machine.read_all(1);
    assert_eq!(
        (found, lost),
        (bodies.clone(), vec![]),
        "half from memory, half from disk"
    );
    let disk = machine.disk.clone();
    let in_clear = disk.segments.values().any(|file| {
        file.windows(64)
            .any(|window| bodies[&100].windows(64).next() == Some(window))
    });
    assert!(!in_clear);
    let mut again = Machine::start_encrypted(disk.clone(), settings(), key());
    assert_eq!(again.read_all(1), (bodies, vec![]));
    // Without the key, or with another, nothing is taken for damaged.
    for key in [None, Some(JournalKey::new(crate::crypto::Secret::new([6; 32])))] {
        let mut recovery = Recovery::new(settings(), Class::Normal, [3; 16]);
        if let Some(key) = key {
            recovery = recovery.key(key, [1; 16]);
        }
        for (number, bytes) in &disk.segments {
            recovery.head(*number, &bytes[..bytes.len().min(1024)], bytes.len() as u64);
        }
        while let Some(number) = recovery.wanted() {
            recovery.whole(number, &disk.segments[&number]);
        }
        assert!(!recovery.finish().1.locked.is_empty());
    }
}
