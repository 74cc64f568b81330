//! A gateway's disk: what is on it, what is under way, and what a power cut leaves of that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldgate_proto::{
    delivery::PerLane,
    journal::{
        Journal, JournalSettings, Lanes, Output, Recovery, RecoveryReport, SECTOR, Scanned, WriteFailed,
        scan_segment,
    },
    link::Class,
};

use crate::{
    dice::Dice,
    scenario::{DiskTrouble, Stop},
};

/// An operation under way.
#[derive(Debug)]
enum Operation {
    /// Of the block write.
    Write {
        segment: u64,
        offset: usize,
        bytes: Vec<u8>,
    },
    Create {
        segment: u64,
        len: usize,
        header: Vec<u8>,
    },
    Cursor {
        offset: usize,
        bytes: Vec<u8>,
    },
    Delete {
        segment: u64,
    },
    Shrink {
        segment: u64,
        len: usize,
    },
    Read {
        segment: u64,
        offset: usize,
        len: usize,
    },
}

/// What became of an operation, for the journal.
#[derive(Debug)]
pub(crate) enum Done {
    Written(Vec<u8>, Result<(), WriteFailed>),
    Created(u64, Result<(), WriteFailed>),
    CursorWritten(Result<(), WriteFailed>),
    Read(Option<Vec<u8>>),
    Nothing,
}

/// The files of one lane.
#[derive(Debug, Default)]
struct LaneFiles {
    segments: BTreeMap<u64, Vec<u8>>,
    cursor: Vec<u8>,
    /// Segments that recovery set aside; their numbers stay taken.
    set_aside: BTreeSet<u64>,
    /// The block write under way.
    write: Option<Operation>,
    /// Segments as they are on stable storage, once a write to them has failed: a kernel reports that once, and whatever is
    /// written there afterwards seems to succeed and is gone with the power.
    doubtful: BTreeMap<u64, Vec<u8>>,
}

/// The files of a journal.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    lanes: [LaneFiles; 3],
    /// Operations of the storage thread, one after the other.
    queue: VecDeque<(Class, Operation)>,
    pub(crate) trouble: Option<DiskTrouble>,
    pub(crate) faults: u64,
}

impl Disk {
    /// Takes an operation that a lane wants, and says whose it is. What concerns the caller comes back.
    pub(crate) fn begin(&mut self, lane: Class, output: Output) -> Result<Hand, Output> {
        let operation = match output {
            Output::Write {
                segment,
                offset,
                bytes,
            } => {
                let files = self.files(lane);
                assert!(
                    files.write.is_none(),
                    "at most one block of a lane is being written"
                );
                files.write = Some(Operation::Write {
                    segment,
                    offset: place(offset),
                    bytes,
                });
                return Ok(Hand::Write(lane));
            }
            Output::Create {
                segment,
                segment_bytes,
                header,
            } => Operation::Create {
                segment,
                len: place(segment_bytes),
                header,
            },
            Output::WriteCursor { offset, bytes } => Operation::Cursor {
                offset: place(offset),
                bytes,
            },
            Output::Delete { segment } => Operation::Delete { segment },
            Output::Shrink { segment, bytes } => Operation::Shrink {
                segment,
                len: place(bytes),
            },
            Output::Read { segment, offset, len } => Operation::Read {
                segment,
                offset: place(offset),
                len,
            },
            other @ (Output::Committed { .. } | Output::Discarded { .. } | Output::StateChanged(_)) => {
                return Err(other);
            }
        };
        self.queue.push_back((lane, operation));
        Ok(Hand::Storage)
    }

    /// Ends the oldest operation of a hand, and says which lane it was for.
    pub(crate) fn end(&mut self, hand: Hand, dice: &mut Dice) -> (Class, Done) {
        let operation = match hand {
            Hand::Write(lane) => self.files(lane).write.take().map(|operation| (lane, operation)),
            Hand::Storage => self.queue.pop_front(),
        };
        let Some((lane, operation)) = operation else {
            return (Class::Normal, Done::Nothing);
        };
        let failure = match (self.trouble, &operation) {
            (Some(DiskTrouble::Full), Operation::Create { .. }) => Some(WriteFailed::NoRoom),
            // A block fits the space that was reserved.
            (
                Some(DiskTrouble::Broken),
                Operation::Create { .. } | Operation::Cursor { .. } | Operation::Write { .. },
            ) => Some(WriteFailed::Broken),
            _ => None,
        };
        self.faults += u64::from(failure.is_some());
        let result = failure.map_or(Ok(()), Err);
        (lane, self.carry_out(lane, operation, result, dice))
    }

    fn carry_out(
        &mut self,
        lane: Class,
        operation: Operation,
        result: Result<(), WriteFailed>,
        dice: &mut Dice,
    ) -> Done {
        let files = self.files(lane);
        match operation {
            Operation::Write {
                segment,
                offset,
                bytes,
            } => {
                match result {
                    Ok(()) => files.put(segment, offset, &bytes),
                    Err(_) => {
                        files.tear(segment, offset, &bytes, dice);
                        let file = files.segments.get(&segment).cloned().unwrap_or_default();
                        files.doubtful.entry(segment).or_insert(file);
                    }
                }
                Done::Written(bytes, result)
            }
            Operation::Create { segment, len, header } => {
                if result.is_ok() {
                    files.create(segment, len, header);
                }
                Done::Created(segment, result)
            }
            Operation::Cursor { offset, bytes } => {
                if result.is_ok() {
                    files.put_cursor(offset, &bytes);
                }
                Done::CursorWritten(result)
            }
            Operation::Delete { segment } => {
                files.segments.remove(&segment);
                files.doubtful.remove(&segment);
                Done::Nothing
            }
            Operation::Shrink { segment, len } => {
                let both = [&mut files.segments, &mut files.doubtful];
                for file in both.into_iter().filter_map(|kept| kept.get_mut(&segment)) {
                    file.truncate(len);
                }
                Done::Nothing
            }
            Operation::Read { segment, offset, len } => Done::Read(files.read(segment, offset, len)),
        }
    }

    /// Stops everything under way, and leaves what that leaves.
    pub(crate) fn stop(&mut self, how: Stop, dice: &mut Dice) {
        for files in &mut self.lanes {
            if let Some(Operation::Write {
                segment,
                offset,
                bytes,
            }) = files.write.take()
            {
                match how {
                    // The kernel finishes what the process gave it, or never got it.
                    Stop::Kill if dice.one_in(2) => files.put(segment, offset, &bytes),
                    Stop::Kill => {}
                    Stop::PowerCut => {
                        self.faults += 1;
                        files.tear(segment, offset, &bytes, dice);
                    }
                }
            }
            if how == Stop::PowerCut {
                files.segments.append(&mut files.doubtful);
            }
        }
        let trouble = self.trouble.take();
        for _ in 0..dice.index(self.queue.len() + 1) {
            self.end(Hand::Storage, dice);
        }
        self.trouble = trouble;
        let cut = self.queue.pop_front();
        self.queue.clear();
        if let (Stop::PowerCut, Some((lane, cut))) = (how, cut) {
            self.faults += 1;
            self.files(lane).cut(cut, dice);
        }
    }

    /// Makes a journal of what is there: `ids` name its lanes if there is none yet, `uplinks` have positions of their own.
    pub(crate) fn recover(
        &mut self,
        settings: &PerLane<JournalSettings>,
        ids: [[u8; 16]; 3],
        uplinks: &[u64],
    ) -> (Lanes, [RecoveryReport; 3]) {
        let recovered = Class::ALL.map(|lane| {
            let id = ids[usize::from(lane.bits())];
            self.files(lane)
                .recover(Recovery::new(settings[lane], lane, id).uplinks(uplinks))
        });
        let [(alarm, first), (normal, second), (bulk, third)] = recovered;
        (Lanes::new([alarm, normal, bulk]), [first, second, third])
    }

    /// Changes a bit somewhere in committed blocks, and returns the lane and the sequences that may be lost by that; `None` if
    /// there is nothing old enough.
    pub(crate) fn rot(&mut self, dice: &mut Dice) -> Option<(Class, BTreeSet<u64>)> {
        let lane = dice.pick(&Class::ALL);
        Some((lane, self.files(lane).rot(dice)?))
    }

    /// Returns the bytes of all files of a lane that count against its bound.
    pub(crate) fn bytes(&self, lane: Class) -> u64 {
        let files = &self.lanes[usize::from(lane.bits())];
        files.segments.values().map(|file| file.len() as u64).sum()
    }

    /// Returns whether `marker` stands in clear in a segment.
    #[cfg(test)]
    pub(crate) fn holds(&self, marker: &[u8]) -> bool {
        let mut files = self.lanes.iter().flat_map(|files| files.segments.values());
        files.any(|file| crate::model::contains(file, marker))
    }

    const fn files(&mut self, lane: Class) -> &mut LaneFiles {
        let [alarm, normal, bulk] = &mut self.lanes;
        match lane {
            Class::Alarm => alarm,
            Class::Normal => normal,
            Class::Bulk => bulk,
        }
    }
}

impl LaneFiles {
    fn recover(&mut self, mut recovery: Recovery) -> (Journal, RecoveryReport) {
        recovery.cursor(&self.cursor);
        for (number, bytes) in &self.segments {
            let head = bytes.get(..HEAD_LEN).unwrap_or(bytes);
            recovery.head(*number, head, bytes.len() as u64);
        }
        while let Some(number) = recovery.wanted() {
            let bytes = self.segments.get(&number).map_or(&[][..], Vec::as_slice);
            recovery.whole(number, bytes);
        }
        let (journal, report) = recovery.finish();
        for number in &report.quarantined {
            self.segments.remove(number);
            self.set_aside.insert(*number);
        }
        (journal, report)
    }

    /// Leaves what a power cut in the middle of an operation leaves.
    fn cut(&mut self, operation: Operation, dice: &mut Dice) {
        match operation {
            Operation::Create { segment, len, header } => match dice.below(3) {
                0 => self.create(segment, 0, Vec::new()),
                1 => self.create(segment, len, Vec::new()),
                _ => self.create(segment, header.len(), header),
            },
            Operation::Cursor { offset, bytes } => {
                let garbage: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x5a).collect();
                self.put_cursor(offset, &garbage);
            }
            Operation::Shrink { segment, len } => {
                if let Some(file) = self.segments.get_mut(&segment).filter(|_| dice.one_in(2)) {
                    file.truncate(len);
                }
            }
            Operation::Write { .. } | Operation::Delete { .. } | Operation::Read { .. } => {}
        }
    }

    /// The newest block is spared: damage there cannot be told from a torn write.
    fn rot(&mut self, dice: &mut Dice) -> Option<BTreeSet<u64>> {
        let newest = self.segments.keys().next_back().copied()?;
        let mut places = Vec::new();
        for (number, bytes) in &self.segments {
            let mut blocks = Vec::new();
            scan_segment(bytes, &mut |scanned| {
                if let Scanned::Block { offset, header } = scanned {
                    blocks.push((*number, place(offset), header));
                }
            });
            if *number == newest {
                blocks.clear();
            }
            places.extend(blocks);
        }
        // The last of the older segments may hold the newest block, if the newest segment is empty.
        places.pop();
        let (number, offset, header) = *places.get(dice.index(places.len()))?;
        let at = offset + dice.index(header.block_len());
        let byte = self.segments.get_mut(&number)?.get_mut(at)?;
        *byte ^= 1 << dice.below(8);
        Some((header.first..=header.last()).collect())
    }

    fn read(&self, segment: u64, offset: usize, len: usize) -> Option<Vec<u8>> {
        let rest = self.segments.get(&segment)?.get(offset..)?;
        Some(rest.get(..len).unwrap_or(rest).to_vec())
    }

    fn create(&mut self, segment: u64, len: usize, header: Vec<u8>) {
        assert!(!self.set_aside.contains(&segment), "numbers are never used again");
        let mut file = header;
        file.resize(len.max(file.len()), 0);
        let before = self.segments.insert(segment, file);
        assert!(before.is_none(), "numbers are never used again");
    }

    fn put(&mut self, segment: u64, offset: usize, bytes: &[u8]) {
        let file = self
            .segments
            .get_mut(&segment)
            .expect("a journal writes to segments that it created");
        file.get_mut(offset..offset + bytes.len())
            .expect("a journal writes into the space it reserved")
            .copy_from_slice(bytes);
    }

    /// Puts some of the sectors of `bytes` there; one may be half old and half new.
    fn tear(&mut self, segment: u64, offset: usize, bytes: &[u8], dice: &mut Dice) {
        let share = dice.between(0, 4);
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            let at = offset + index * SECTOR;
            if dice.below(4) < share {
                self.put(segment, at, sector);
            } else if dice.one_in(16) {
                let half = sector.get(..dice.index(SECTOR)).unwrap_or(sector);
                self.put(segment, at, half);
            }
        }
    }

    fn put_cursor(&mut self, offset: usize, bytes: &[u8]) {
        self.cursor.resize(2 * SECTOR, 0);
        let slot = self.cursor.get_mut(offset..offset + bytes.len());
        slot.expect("there are two slots").copy_from_slice(bytes);
    }
}

/// Who carries an operation out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hand {
    /// The durable write of a lane.
    Write(Class),
    /// The storage thread.
    Storage,
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Segment header and first block header.
const HEAD_LEN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Class = Class::Normal;

    #[test]
    fn a_power_cut_leaves_some_sectors_of_a_write_and_a_kill_all_or_none() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..200 {
            let how = if seed % 2 == 0 { Stop::Kill } else { Stop::PowerCut };
            let mut disk = Disk::default();
            disk.files(LANE).create(1, 4 * SECTOR, Vec::new());
            let write = Output::Write {
                segment: 1,
                offset: SECTOR as u64,
                bytes: vec![7; 2 * SECTOR],
            };
            assert_eq!(disk.begin(LANE, write), Ok(Hand::Write(LANE)));
            disk.stop(how, &mut Dice::new(seed));
            let written = disk.files(LANE).segments[&1]
                .iter()
                .filter(|byte| **byte == 7)
                .count();
            assert!(how == Stop::PowerCut || written == 0 || written == 2 * SECTOR);
            outcomes.insert((how == Stop::PowerCut, written));
        }
        assert!(outcomes.contains(&(false, 0)) && outcomes.contains(&(false, 2 * SECTOR)));
        assert!(outcomes.contains(&(true, SECTOR)), "half of it");
        assert!(outcomes.len() > 5, "and parts of sectors: {outcomes:?}");
    }

    #[test]
    fn what_is_written_where_a_write_failed_goes_with_the_power() {
        for how in [Stop::Kill, Stop::PowerCut] {
            let mut disk = Disk::default();
            let mut dice = Dice::new(1);
            disk.files(LANE).create(1, 4 * SECTOR, Vec::new());
            for trouble in [Some(DiskTrouble::Broken), None] {
                disk.trouble = trouble;
                let write = Output::Write {
                    segment: 1,
                    offset: 0,
                    bytes: vec![9; 4 * SECTOR],
                };
                assert_eq!(disk.begin(LANE, write), Ok(Hand::Write(LANE)));
                let (LANE, Done::Written(_, result)) = disk.end(Hand::Write(LANE), &mut dice) else {
                    panic!("it was a write");
                };
                assert_eq!(result.is_err(), trouble.is_some());
            }
            disk.stop(how, &mut dice);
            let all = disk.files(LANE).segments[&1].iter().all(|byte| *byte == 9);
            assert_eq!(all, how == Stop::Kill);
        }
    }

    #[test]
    fn operations_of_the_storage_thread_end_in_their_order() {
        let mut disk = Disk::default();
        for segment in [1, 2] {
            let create = Output::Create {
                segment,
                segment_bytes: 1024,
                header: vec![1; SECTOR],
            };
            assert_eq!(disk.begin(LANE, create), Ok(Hand::Storage));
        }
        let mut dice = Dice::new(1);
        assert!(matches!(
            disk.end(Hand::Storage, &mut dice),
            (LANE, Done::Created(1, Ok(())))
        ));
        disk.trouble = Some(DiskTrouble::Full);
        let (_, done) = disk.end(Hand::Storage, &mut dice);
        assert!(matches!(done, Done::Created(2, Err(WriteFailed::NoRoom))));
        assert_eq!((disk.bytes(LANE), disk.faults), (1024, 1));
    }
}
