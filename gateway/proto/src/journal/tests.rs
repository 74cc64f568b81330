//! The journal against a disk that loses what was not synced, and a model that knows what was promised.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    link::Class,
    node::{Copied, RecordSource as _},
    time::{Instant, Now, WallTime},
    wire::Reader,
};

mod lanes;

const SEGMENT: u64 = 64 << 10;

fn settings() -> JournalSettings {
    JournalSettings {
        bytes_max: 6 * SEGMENT,
        segment_bytes: SEGMENT,
        tail_bytes_max: 8 << 10,
        pending_bytes_max: 16 << 10,
        ..JournalSettings::default()
    }
}

/// Files as the disk has them.
#[derive(Clone, Debug, Default)]
struct Disk {
    segments: BTreeMap<u64, Vec<u8>>,
    cursor: Vec<u8>,
    bad: BTreeSet<u64>,
    /// Bytes of all segments at the same time, at the most so far.
    bytes_max: usize,
}

impl Disk {
    fn recover(
        &mut self,
        settings: JournalSettings,
        uplinks: &[u64],
        key: Option<JournalKey>,
    ) -> (Journal, RecoveryReport) {
        let mut recovery = Recovery::new(settings, Class::Normal, [3; 16]).uplinks(uplinks);
        if let Some(key) = key {
            recovery = recovery.key(key, [4; 16]);
        }
        recovery.cursor(&self.cursor);
        for (number, bytes) in &self.segments {
            recovery.head(*number, &bytes[..bytes.len().min(1024)], bytes.len() as u64);
        }
        while let Some(number) = recovery.wanted() {
            recovery.whole(number, &self.segments[&number]);
        }
        let (journal, report) = recovery.finish();
        for number in &report.quarantined {
            self.segments.remove(number);
            self.bad.insert(*number);
        }
        (journal, report)
    }
}

/// What records hold, by sequence.
type Bodies = BTreeMap<u64, Vec<u8>>;

/// A journal, its disk, and what was promised of it.
struct Machine {
    journal: Journal,
    disk: Disk,
    now: Instant,
    /// A write that was given out and has not returned.
    write: Option<(u64, u64, Vec<u8>)>,
    read: Option<Option<Vec<u8>>>,
    committed: u64,
    /// Bodies by sequence, of everything ever appended in this life of the journal.
    bodies: BTreeMap<u64, Vec<u8>>,
    no_room: bool,
    creation_fails: Option<WriteFailed>,
    cursor_fails: bool,
    /// Sequences that were being written when the power went: found or not, nobody was promised them.
    unpromised: BTreeSet<u64>,
}

impl Machine {
    fn start(disk: Disk) -> Self {
        Self::start_with(disk, settings(), &[1])
    }

    fn start_with(mut disk: Disk, settings: JournalSettings, uplinks: &[u64]) -> Self {
        let (journal, _) = disk.recover(settings, uplinks, None);
        Self::of(disk, journal)
    }

    fn start_encrypted(mut disk: Disk, settings: JournalSettings, key: JournalKey) -> Self {
        let (journal, _) = disk.recover(settings, &[1], Some(key));
        Self::of(disk, journal)
    }

    fn of(disk: Disk, journal: Journal) -> Self {
        let committed = journal.committed();
        let mut machine = Self {
            journal,
            disk,
            now: Instant::START,
            write: None,
            read: None,
            committed,
            bodies: BTreeMap::new(),
            no_room: false,
            creation_fails: None,
            cursor_fails: false,
            unpromised: BTreeSet::new(),
        };
        machine.execute();
        machine
    }

    fn execute(&mut self) {
        while let Some(output) = self.journal.poll_output() {
            match output {
                Output::Write {
                    segment,
                    offset,
                    bytes,
                } => {
                    assert!(self.write.is_none(), "one write at a time");
                    assert_eq!(offset % SECTOR as u64, 0);
                    self.write = Some((segment, offset, bytes));
                }
                Output::Create {
                    segment,
                    segment_bytes,
                    header,
                } => {
                    let failure = self
                        .creation_fails
                        .or_else(|| self.no_room.then_some(WriteFailed::NoRoom));
                    let result = failure.map_or(Ok(()), Err);
                    if result.is_ok() {
                        let mut file = header;
                        file.resize(usize::try_from(segment_bytes).unwrap(), 0);
                        assert!(
                            self.disk.segments.insert(segment, file).is_none(),
                            "numbers are never used again"
                        );
                        let bytes = self.disk.segments.values().map(Vec::len).sum();
                        self.disk.bytes_max = self.disk.bytes_max.max(bytes);
                    }
                    self.journal.handle_created(self.now, segment, result);
                }
                Output::WriteCursor { .. } if self.cursor_fails => {
                    self.journal
                        .handle_cursor_written(self.now, Err(WriteFailed::Broken));
                }
                Output::WriteCursor { offset, bytes } => {
                    self.disk.cursor.resize(2 * SECTOR, 0);
                    let offset = usize::try_from(offset).unwrap();
                    self.disk.cursor[offset..offset + bytes.len()].copy_from_slice(&bytes);
                    self.journal.handle_cursor_written(self.now, Ok(()));
                }
                Output::Delete { segment } => {
                    self.disk.segments.remove(&segment);
                }
                Output::Shrink { segment, bytes } => {
                    let file = self.disk.segments.get_mut(&segment).unwrap();
                    file.truncate(usize::try_from(bytes).unwrap());
                }
                Output::Read { segment, offset, len } => {
                    let bytes = self.disk.segments.get(&segment).map(|file| {
                        let start = usize::try_from(offset).unwrap().min(file.len());
                        file[start..(start + len).min(file.len())].to_vec()
                    });
                    assert!(self.read.is_none(), "one read at a time");
                    self.read = Some(bytes);
                }
                Output::Committed { up_to } => {
                    assert!(up_to >= self.committed, "promises grow");
                    self.committed = up_to;
                }
                Output::StateChanged(_) | Output::Discarded { .. } => {}
            }
        }
    }

    fn append(&mut self, len: usize) -> Result<u64, AppendError> {
        let seed = self.bodies.len();
        let body: Vec<u8> = (0..len)
            .map(|byte| u8::try_from((seed * 31 + byte * 7) % 251).unwrap())
            .collect();
        let sequence = self
            .journal
            .append(0, WallTime::default(), |out| out.extend_from_slice(&body))?;
        self.bodies.insert(sequence, body);
        self.execute();
        Ok(sequence)
    }

    /// Lets the write under way succeed.
    fn written(&mut self) {
        if let Some((segment, offset, bytes)) = self.write.take() {
            let offset = usize::try_from(offset).unwrap();
            self.disk.segments.get_mut(&segment).unwrap()[offset..offset + bytes.len()]
                .copy_from_slice(&bytes);
            self.journal.handle_written(self.now, bytes, Ok(()));
            self.execute();
        }
    }

    fn commit(&mut self) {
        self.journal.flush();
        self.execute();
        while self.write.is_some() {
            self.written();
            self.journal.flush();
            self.execute();
        }
    }

    /// Lets the write under way fail, with some of its sectors on disk.
    fn write_fails(&mut self, sectors: u64, failed: WriteFailed) {
        if let Some((segment, offset, bytes)) = self.write.take() {
            tear(
                self.disk.segments.get_mut(&segment).unwrap(),
                offset,
                &bytes,
                sectors,
            );
            self.journal.handle_written(self.now, bytes, Err(failed));
            self.execute();
        }
    }

    fn release(&mut self, up_to: u64) {
        self.journal.handle_confirmed(self.now, 0, up_to);
        self.execute();
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + std::time::Duration::from_millis(millis);
        self.journal.handle_timeout(Now {
            instant: self.now,
            wall: WallTime::default(),
        });
        self.execute();
    }

    /// Cuts the power: of the write under way, the sectors whose bits are set in `sectors` are on disk.
    fn power_cut(mut self, sectors: u64) -> Disk {
        if let Some((segment, offset, bytes)) = self.write.take() {
            tear(
                self.disk.segments.get_mut(&segment).unwrap(),
                offset,
                &bytes,
                sectors,
            );
        }
        self.disk
    }

    /// Reads everything from `from` to the last committed record, as an uplink would.
    fn read_all(&mut self, from: u64) -> (Bodies, Vec<(u64, u64)>) {
        let mut found = BTreeMap::new();
        let mut lost = Vec::new();
        let mut next = from;
        let mut idle = 0;
        while next <= self.journal.committed() {
            let mut out = Vec::new();
            let count = self.journal.committed() - next + 1;
            match self
                .journal
                .copy_records(Class::Normal, next, 5_000, count, &mut out)
            {
                Copied::Records(count) => {
                    idle = 0;
                    let mut reader = Reader::new(&out);
                    for _ in 0..count {
                        found.insert(next, reader.bytes_varint("body").unwrap().to_vec());
                        next += 1;
                    }
                    reader.finish().unwrap();
                }
                Copied::Lost { last, .. } => {
                    assert!(last >= next, "a loss moves on");
                    lost.push((next, last));
                    next = last + 1;
                }
                Copied::NotYet => {
                    idle += 1;
                    assert!(idle < 100, "stuck at {next} of {}", self.journal.committed());
                    self.execute();
                    if let Some(read) = self.read.take() {
                        self.journal.handle_read(read);
                    }
                }
            }
        }
        (found, lost)
    }

    /// Checks that everything promised and not released is there, and nothing else.
    fn check_promises(mut self, bodies: &BTreeMap<u64, Vec<u8>>, committed: u64, released: u64) -> Self {
        assert!(
            self.journal.committed() >= committed,
            "{} was promised, {} is there",
            committed,
            self.journal.committed()
        );
        assert!(self.journal.released() <= released, "released more than was said");
        let first = self.journal.first_available();
        let (found, lost) = self.read_all(first);
        // What every collector has may be forgotten, or asked for again.
        let may_be_lost = |sequence: u64| {
            sequence > committed || sequence <= released || self.unpromised.contains(&sequence)
        };
        let all_may = lost.iter().all(|(first, last)| (*first..=*last).all(may_be_lost));
        assert!(all_may, "lost {lost:?} of {committed}");
        let needed = first.max(released + 1)..=committed;
        for sequence in needed.filter(|sequence| !self.unpromised.contains(sequence)) {
            assert!(
                found.get(&sequence) == bodies.get(&sequence),
                "record {sequence} of {committed}"
            );
        }
        for (sequence, body) in &found {
            assert!(
                bodies.get(sequence) == Some(body),
                "record {sequence} of {committed} was never appended like this"
            );
        }
        self
    }
}

/// Puts the sectors of `bytes` whose bits are set in `sectors` onto the file.
fn tear(file: &mut [u8], offset: u64, bytes: &[u8], sectors: u64) {
    let offset = usize::try_from(offset).unwrap();
    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
        if sectors >> (index % 64) & 1 == 1 {
            let at = offset + index * SECTOR;
            file[at..at + sector.len()].copy_from_slice(sector);
        }
    }
}

#[test]
fn a_record_is_promised_after_the_write_and_not_before() {
    let mut machine = Machine::start(Disk::default());
    assert_eq!(machine.append(100), Ok(1));
    machine.journal.flush();
    machine.execute();
    assert_eq!(machine.committed, 0);
    assert_eq!(machine.append(100), Ok(2));
    machine.written();
    assert_eq!(machine.committed, 1, "the second waits for its own write");
    machine.commit();
    assert_eq!(machine.committed, 2);
}

#[test]
fn records_of_many_segments_are_read_back_in_order() {
    let mut machine = Machine::start(Disk::default());
    for number in 0..600 {
        machine.append(300 + number % 50).unwrap();
        if number % 7 == 0 {
            machine.commit();
        }
    }
    machine.commit();
    assert!(machine.disk.segments.len() > 2);
    let bodies = machine.bodies.clone();
    let machine = machine.check_promises(&bodies, 600, 0);
    assert!(machine.journal.stats().replayed > 500, "most came from disk");
    // The same after a restart, when nothing is in memory.
    Machine::start(machine.disk).check_promises(&bodies, 600, 0);
}

#[test]
fn buffers_are_used_again() {
    let mut machine = Machine::start(Disk::default());
    let mut addresses = BTreeSet::new();
    for round in 0..200 {
        for _ in 0..20 {
            machine.append(100).unwrap();
        }
        machine.journal.flush();
        machine.execute();
        let address = machine.write.as_ref().unwrap().2.as_ptr() as usize;
        if round > 50 {
            addresses.insert(address);
        }
        machine.written();
        machine.release(machine.committed);
    }
    assert!(
        addresses.len() <= 8,
        "{} different buffers in the steady state",
        addresses.len()
    );
}

#[test]
fn the_bound_in_bytes_holds_and_releasing_makes_room() {
    let mut machine = Machine::start(Disk::default());
    let mut taken = 0;
    let refused = loop {
        match machine.append(1_000) {
            Ok(sequence) => taken = sequence,
            Err(error) => break error,
        }
        machine.commit();
    };
    assert_eq!(refused, AppendError::Full);
    assert_eq!(machine.journal.state(), JournalState::Full);
    assert!(
        machine.disk.bytes_max as u64 <= 6 * SEGMENT,
        "{} bytes",
        machine.disk.bytes_max
    );
    assert!(taken > 200, "{taken} records of 1,000 bytes in 384 KiB");
    assert_eq!(machine.append(10), Err(AppendError::Full));
    machine.release(taken);
    assert_eq!(machine.journal.state(), JournalState::Ready);
    assert_eq!(machine.append(1_000), Ok(taken + 1));
    machine.commit();
    assert_eq!(machine.committed, taken + 1);
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let mut machine = Machine::start(Disk::default());
    machine.no_room = true;
    let mut taken = 0;
    while let Ok(sequence) = machine.append(1_000) {
        machine.commit();
        taken = sequence;
    }
    assert_eq!(machine.journal.state(), JournalState::Full);
    assert_eq!(
        machine.journal.pending_bytes(),
        0,
        "what was refused does not wait"
    );
    machine.no_room = false;
    machine.pass(3_000);
    assert_eq!(machine.journal.state(), JournalState::Ready);
    assert_eq!(machine.append(1_000), Ok(taken + 1));
    machine.commit();
    let bodies = machine.bodies.clone();
    machine.check_promises(&bodies, taken + 1, 0);
}

#[test]
fn a_failed_write_is_never_repeated_in_place() {
    let mut machine = Machine::start(Disk::default());
    machine.append(100).unwrap();
    machine.commit();
    machine.append(100).unwrap();
    machine.journal.flush();
    machine.execute();
    let (segment, ..) = *machine.write.as_ref().unwrap();
    machine.write_fails(0, WriteFailed::Broken);
    assert_eq!(machine.journal.state(), JournalState::Failed);
    assert_eq!(machine.append(100), Err(AppendError::Failed));
    assert_eq!(machine.committed, 1);
    machine.pass(3_000);
    let (elsewhere, ..) = *machine.write.as_ref().expect("the block is written again");
    assert_ne!(elsewhere, segment);
    machine.written();
    assert_eq!(
        (machine.committed, machine.journal.state()),
        (2, JournalState::Ready)
    );
    let bodies = machine.bodies.clone();
    let machine = machine.check_promises(&bodies, 2, 0);
    Machine::start(machine.disk).check_promises(&bodies, 2, 0);
}

#[test]
fn a_disk_that_fails_for_long_does_not_use_up_the_journal() {
    let mut machine = Machine::start(Disk::default());
    machine.append(100).unwrap();
    machine.commit();
    machine.release(1);
    machine.pass(2_000);
    assert_eq!(machine.append(100), Ok(2));
    machine.journal.flush();
    machine.execute();
    // Each failure leaves a segment behind that nothing is written to any more; there is room for six.
    for attempt in 0..20 {
        assert!(machine.write.is_some(), "attempt {attempt}");
        machine.write_fails(0, WriteFailed::Broken);
        machine.pass(3_000);
    }
    machine.written();
    assert_eq!(
        (machine.committed, machine.journal.state()),
        (2, JournalState::Ready)
    );
    let bodies = machine.bodies.clone();
    Machine::start(machine.disk).check_promises(&bodies, 2, 1);
}

#[test]
fn a_file_that_is_cut_short_is_read_to_its_end_and_not_for_ever() {
    let mut machine = Machine::start(Disk::default());
    for _ in 0..4 {
        for _ in 0..3 {
            machine.append(700).unwrap();
        }
        machine.commit();
    }
    let bodies = machine.bodies.clone();
    let blocks = 4 * (3 * 713_usize + 76).next_multiple_of(SECTOR);
    for missing in [500, 1_000, 1_700, 3_000] {
        let mut disk = machine.disk.clone();
        let file = disk.segments.values_mut().next().unwrap();
        file.truncate(SECTOR + blocks - missing);
        let mut restarted = Machine::start(disk);
        let (found, lost) = restarted.read_all(1);
        assert!(!found.is_empty() && found.len() < 12, "{lost:?}");
        assert!(
            found
                .iter()
                .all(|(sequence, body)| bodies.get(sequence) == Some(body))
        );
    }
}

#[test]
fn a_record_too_long_is_refused_and_leaves_no_trace() {
    let mut machine = Machine::start(Disk::default());
    machine.append(10).unwrap();
    let error = machine.append(RECORD_BODY_MAX + 1).unwrap_err();
    assert!(matches!(
        error,
        AppendError::TooLong { len, max } if len == RECORD_BODY_MAX + 1 && max <= RECORD_BODY_MAX
    ));
    assert_eq!(machine.append(10), Ok(2));
    machine.commit();
    assert_eq!(machine.committed, 2);
}

#[test]
fn power_may_go_with_any_sectors_of_the_last_block_missing() {
    let mut machine = Machine::start(Disk::default());
    for _ in 0..5 {
        machine.append(200).unwrap();
    }
    machine.commit();
    for _ in 0..8 {
        machine.append(150).unwrap();
    }
    machine.journal.flush();
    machine.execute();
    let (segment, offset, bytes) = machine.write.clone().unwrap();
    let bodies = machine.bodies.clone();
    assert_eq!(bytes.len() / SECTOR, 3);
    for sectors in 0..8 {
        let mut disk = machine.disk.clone();
        tear(disk.segments.get_mut(&segment).unwrap(), offset, &bytes, sectors);
        let mut after = Machine::start(disk).check_promises(&bodies, 5, 0);
        // Life goes on, and what comes next survives another restart.
        let next = after.append(33).unwrap();
        after.commit();
        let mut known = bodies.clone();
        known.retain(|sequence, _| *sequence < next);
        known.insert(next, after.bodies[&next].clone());
        let disk = after.disk;
        let mut again = Machine::start(disk);
        let (found, _) = again.read_all(1);
        assert_eq!(found.get(&next), known.get(&next));
    }
}

#[test]
fn power_may_go_at_every_byte_of_a_write() {
    let mut machine = Machine::start(Disk::default());
    for _ in 0..3 {
        machine.append(100).unwrap();
    }
    machine.commit();
    for _ in 0..6 {
        machine.append(120).unwrap();
    }
    machine.journal.flush();
    machine.execute();
    let (segment, offset, bytes) = machine.write.clone().unwrap();
    let bodies = machine.bodies.clone();
    for len in 0..=bytes.len() {
        let mut disk = machine.disk.clone();
        let offset = usize::try_from(offset).unwrap();
        disk.segments.get_mut(&segment).unwrap()[offset..offset + len].copy_from_slice(&bytes[..len]);
        Machine::start(disk).check_promises(&bodies, 3, 0);
    }
}

#[test]
fn a_torn_cursor_costs_repetition_only() {
    let mut machine = Machine::start(Disk::default());
    for _ in 0..180 {
        machine.append(1_000).unwrap();
        machine.commit();
    }
    machine.release(60);
    machine.pass(2_000);
    machine.release(120);
    machine.pass(2_000);
    let bodies = machine.bodies.clone();
    for at in 0..machine.disk.cursor.len() {
        let mut disk = machine.disk.clone();
        disk.cursor[at] ^= 0x40;
        Machine::start(disk).check_promises(&bodies, 180, 120);
    }
    let mut disk = machine.disk.clone();
    disk.cursor.clear();
    Machine::start(disk).check_promises(&bodies, 180, 120);
}

#[test]
fn damage_in_the_middle_is_reported_exactly_and_the_rest_delivered() {
    let mut machine = Machine::start(Disk::default());
    for number in 0..120 {
        machine.append(400).unwrap();
        if number % 5 == 4 {
            machine.commit();
        }
    }
    let bodies = machine.bodies.clone();
    let first = *machine.disk.segments.keys().next().unwrap();
    let header = BlockHeader::decode(&machine.disk.segments[&first][SECTOR..]).unwrap();
    let block_len = header.block_len();
    // Every 37th byte of the second block, its header and its padding included.
    for at in (0..block_len).step_by(37) {
        let mut disk = machine.disk.clone();
        disk.segments.get_mut(&first).unwrap()[SECTOR + block_len + at] ^= 0xff;
        let mut after = Machine::start(disk);
        assert_eq!(after.journal.committed(), 120);
        let (found, lost) = after.read_all(1);
        let missing: u64 = lost.iter().map(|(first, last)| last - first + 1).sum();
        assert!(
            missing <= 1,
            "byte {at}: lost {lost:?}, but one record at most is damaged"
        );
        assert_eq!(found.len() as u64 + missing, 120);
        assert!(found.iter().all(|(sequence, body)| bodies[sequence] == *body));
    }
}

#[test]
fn a_segment_without_a_readable_header_is_set_aside_and_reported() {
    let mut machine = Machine::start(Disk::default());
    for _ in 0..300 {
        machine.append(600).unwrap();
        machine.commit();
    }
    let bodies = machine.bodies.clone();
    let mut disk = machine.disk.clone();
    let second = *disk.segments.keys().nth(1).unwrap();
    disk.segments.get_mut(&second).unwrap()[8] ^= 1;
    let mut after = Machine::start(disk);
    assert_eq!(after.disk.bad, BTreeSet::from([second]));
    let (found, lost) = after.read_all(1);
    let [(first_lost, last_lost)] = lost[..] else {
        panic!("one gap, not {lost:?}")
    };
    assert_eq!(found.len() as u64, 300 - (last_lost - first_lost + 1));
    assert!(found.iter().all(|(sequence, body)| bodies[sequence] == *body));
}

#[test]
fn a_read_that_fails_loses_its_segment_and_no_more() {
    let mut machine = Machine::start(Disk::default());
    for _ in 0..200 {
        machine.append(800).unwrap();
        machine.commit();
    }
    let mut out = Vec::new();
    assert_eq!(
        machine
            .journal
            .copy_records(Class::Normal, 1, 10_000, 200, &mut out),
        Copied::NotYet
    );
    machine.execute();
    for _ in 0..5 {
        assert!(machine.read.take().is_some());
        machine.journal.handle_read(None);
        let copied = machine
            .journal
            .copy_records(Class::Normal, 1, 10_000, 200, &mut out);
        assert_eq!(copied, Copied::NotYet, "it is tried again after a while");
        machine.pass(2_000);
        let copied = machine
            .journal
            .copy_records(Class::Normal, 1, 10_000, 200, &mut out);
        assert_eq!(copied, Copied::NotYet);
        machine.execute();
    }
    assert!(machine.read.take().is_some());
    machine.journal.handle_read(None);
    let Copied::Lost { last, .. } = machine
        .journal
        .copy_records(Class::Normal, 1, 10_000, 200, &mut out)
    else {
        panic!("the segment could not be read")
    };
    assert!(last < 100, "only one segment is lost, not {last} records");
    let (found, lost) = machine.read_all(last + 1);
    assert_eq!((found.len() as u64, lost.len()), (200 - last, 0));
}

#[test]
fn scanning_tells_everything_there_is() {
    let mut machine = Machine::start(Disk::default());
    for _ in 0..10 {
        machine.append(50).unwrap();
    }
    machine.commit();
    machine.append(60).unwrap();
    machine.commit();
    let mut bytes = machine.disk.segments.values().next().unwrap().clone();
    let mut blocks = 0;
    let mut records = Vec::new();
    scan_segment(&bytes, &mut |scanned| match scanned {
        Scanned::Block { .. } => blocks += 1,
        Scanned::Record { sequence, .. } => records.push(sequence),
        Scanned::Damage(damage) => panic!("{damage:?}"),
    });
    assert_eq!((blocks, records.len()), (2, 11));
    bytes[SECTOR + 76 + 20] ^= 1;
    let mut damage = Vec::new();
    scan_segment(&bytes, &mut |scanned| {
        if let Scanned::Damage(found) = scanned {
            damage.push(found);
        }
    });
    assert_eq!(
        damage,
        [Damage::Records {
            offset: SECTOR as u64,
            first: 1,
            last: 1
        }]
    );
}

#[derive(Clone, Debug)]
enum Step {
    Append(u16),
    Flush,
    Written,
    WriteFails(u64, bool),
    Release(u8),
    Pass(u16),
    NoRoom(bool),
    PowerCut(u64),
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0..3_000_u16).prop_map(Step::Append),
        6 => Just(Step::Flush),
        6 => Just(Step::Written),
        1 => (any::<u64>(), any::<bool>()).prop_map(|(sectors, room)| Step::WriteFails(sectors, room)),
        3 => (0..60_u8).prop_map(Step::Release),
        2 => (0..3_000_u16).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::NoRoom),
        2 => any::<u64>().prop_map(Step::PowerCut),
        1 => Just(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_promised_is_ever_lost(steps in prop::collection::vec(step(), 1..200)) {
        let mut machine = Machine::start(Disk::default());
        // What was ever appended under a sequence that may have survived.
        let mut bodies: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut released = 0;
        for step in steps {
            match step {
                Step::Append(len) => {
                    if let Ok(sequence) = machine.append(usize::from(len)) {
                        bodies.insert(sequence, machine.bodies[&sequence].clone());
                    }
                }
                Step::Flush => {
                    machine.journal.flush();
                    machine.execute();
                }
                Step::Written => machine.written(),
                Step::WriteFails(sectors, room) => {
                    machine.write_fails(sectors, if room { WriteFailed::NoRoom } else { WriteFailed::Broken });
                }
                Step::Release(count) => {
                    released = (released + u64::from(count)).min(machine.committed);
                    machine.release(released);
                }
                Step::Pass(millis) => machine.pass(u64::from(millis)),
                Step::NoRoom(no_room) => machine.no_room = no_room,
                Step::PowerCut(sectors) => {
                    let committed = machine.committed;
                    let mut unpromised = std::mem::take(&mut machine.unpromised);
                    let disk = machine.power_cut(sectors);
                    machine = Machine::start(disk);
                    prop_assert!(machine.journal.committed() >= committed);
                    let next = machine.journal.committed() + 1;
                    bodies.retain(|sequence, _| *sequence < next);
                    unpromised.extend(committed + 1..next);
                    machine.unpromised = unpromised;
                    machine = machine.check_promises(&bodies, committed, released);
                    machine.committed = machine.journal.committed();
                }
                Step::Read => {
                    let committed = machine.committed;
                    machine = machine.check_promises(&bodies, committed, released);
                }
            }
            prop_assert!(machine.disk.bytes_max as u64 <= 6 * SEGMENT);
        }
    }

    #[test]
    fn any_bytes_are_scanned_and_recovered_from(
        mut garbage in prop::collection::vec(any::<u8>(), 0..4_000),
        keep_header in any::<bool>(),
        flips in prop::collection::vec((0..20_000_usize, any::<u8>()), 0..20),
    ) {
        let mut machine = Machine::start(Disk::default());
        for _ in 0..30 {
            machine.append(200).unwrap();
            machine.commit();
        }
        let mut disk = machine.disk.clone();
        let file = disk.segments.values_mut().next().unwrap();
        for (at, value) in flips {
            file[at] ^= value;
        }
        if keep_header {
            garbage.splice(0..0, file[..SECTOR].iter().copied());
        }
        disk.segments.insert(77, garbage);
        let mut after = Machine::start(disk);
        let first = after.journal.first_available();
        after.read_all(first);
        prop_assert!(after.append(10).is_ok());
    }
}

#[test]
fn a_block_that_failed_and_survived_a_power_cut_is_the_same_after_the_next() {
    for sectors in 0..4 {
        let mut machine = Machine::start(Disk::default());
        machine.append(0).unwrap();
        machine.commit();
        machine.append(468).unwrap();
        machine.journal.flush();
        machine.execute();
        machine.write_fails(sectors, WriteFailed::Broken);
        let first = Machine::start(machine.power_cut(0));
        let committed = first.journal.committed();
        let second = Machine::start(first.power_cut(0));
        assert_eq!(second.journal.committed(), committed, "sectors {sectors:b}");
    }
}
