//! A gateway's disk: what is on it, what is under way, and what a power cut leaves of that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldgate_proto::journal::{
    Journal, JournalSettings, Output, Recovery, RecoveryReport, SECTOR, Scanned, WriteFailed, scan_segment,
};

use crate::{
    dice::Dice,
    scenario::{DiskTrouble, Stop},
};

/// An operation under way.
#[derive(Debug)]
pub(crate) enum Operation {
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

/// The files of one journal.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    segments: BTreeMap<u64, Vec<u8>>,
    cursor: Vec<u8>,
    /// Segments that recovery set aside; their numbers stay taken.
    set_aside: BTreeSet<u64>,
    /// The block write under way.
    write: Option<Operation>,
    /// Operations of the storage thread, one after the other.
    queue: VecDeque<Operation>,
    /// Segments as they are on stable storage, once a write to them has failed: a kernel reports that once, and whatever is
    /// written there afterwards seems to succeed and is gone with the power.
    doubtful: BTreeMap<u64, Vec<u8>>,
    pub(crate) trouble: Option<DiskTrouble>,
    pub(crate) faults: u64,
}

impl Disk {
    /// Takes an operation that the journal wants; `true` if it is the block write, `false` for the storage thread. What
    /// concerns the caller comes back.
    pub(crate) fn begin(&mut self, output: Output) -> Result<Lane, Output> {
        let operation = match output {
            Output::Write {
                segment,
                offset,
                bytes,
            } => {
                assert!(self.write.is_none(), "at most one block is being written");
                self.write = Some(Operation::Write {
                    segment,
                    offset: place(offset),
                    bytes,
                });
                return Ok(Lane::Write);
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
            Output::Read { segment, offset, len } => Operation::Read {
                segment,
                offset: place(offset),
                len,
            },
            other @ (Output::Committed { .. } | Output::StateChanged(_)) => return Err(other),
        };
        self.queue.push_back(operation);
        Ok(Lane::Storage)
    }

    /// Ends the oldest operation of a lane.
    pub(crate) fn end(&mut self, lane: Lane, dice: &mut Dice) -> Done {
        let operation = match lane {
            Lane::Write => self.write.take(),
            Lane::Storage => self.queue.pop_front(),
        };
        let Some(operation) = operation else {
            return Done::Nothing;
        };
        let failure = match (self.trouble, &operation) {
            (Some(DiskTrouble::Full), Operation::Create { .. }) => Some(WriteFailed::NoRoom),
            // A block fits the space that was reserved.
            (Some(DiskTrouble::Broken), Operation::Create { .. } | Operation::Cursor { .. }) => {
                Some(WriteFailed::Broken)
            }
            (Some(DiskTrouble::Broken), Operation::Write { .. }) => Some(WriteFailed::Broken),
            _ => None,
        };
        if failure.is_some() {
            self.faults += 1;
        }
        let result = failure.map_or(Ok(()), Err);
        match operation {
            Operation::Write {
                segment,
                offset,
                bytes,
            } => {
                match result {
                    Ok(()) => self.put(segment, offset, &bytes),
                    Err(_) => {
                        self.tear(segment, offset, &bytes, dice);
                        let file = self.segments.get(&segment).cloned().unwrap_or_default();
                        self.doubtful.entry(segment).or_insert(file);
                    }
                }
                Done::Written(bytes, result)
            }
            Operation::Create { segment, len, header } => {
                if result.is_ok() {
                    self.create(segment, len, header);
                }
                Done::Created(segment, result)
            }
            Operation::Cursor { offset, bytes } => {
                if result.is_ok() {
                    self.put_cursor(offset, &bytes);
                }
                Done::CursorWritten(result)
            }
            Operation::Delete { segment } => {
                self.segments.remove(&segment);
                self.doubtful.remove(&segment);
                Done::Nothing
            }
            Operation::Read { segment, offset, len } => Done::Read(self.read(segment, offset, len)),
        }
    }

    /// Stops everything under way, and leaves what that leaves.
    pub(crate) fn stop(&mut self, how: Stop, dice: &mut Dice) {
        if let Some(Operation::Write {
            segment,
            offset,
            bytes,
        }) = self.write.take()
        {
            match how {
                // The kernel finishes what the process gave it, or never got it.
                Stop::Kill if dice.one_in(2) => self.put(segment, offset, &bytes),
                Stop::Kill => {}
                Stop::PowerCut => self.tear(segment, offset, &bytes, dice),
            }
        }
        if how == Stop::PowerCut {
            self.segments.append(&mut self.doubtful);
        }
        let trouble = self.trouble.take();
        for _ in 0..dice.index(self.queue.len() + 1) {
            self.end(Lane::Storage, dice);
        }
        self.trouble = trouble;
        let cut = self.queue.pop_front();
        self.queue.clear();
        if let (Stop::PowerCut, Some(cut)) = (how, cut) {
            self.faults += 1;
            match cut {
                Operation::Create { segment, len, header } => match dice.below(3) {
                    0 => self.create(segment, 0, Vec::new()),
                    1 => self.create(segment, len, Vec::new()),
                    _ => self.create(segment, header.len(), header),
                },
                Operation::Cursor { offset, bytes } => {
                    let garbage: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x5a).collect();
                    self.put_cursor(offset, &garbage);
                }
                Operation::Write { .. } | Operation::Delete { .. } | Operation::Read { .. } => {}
            }
        }
    }

    /// Makes a journal of what is there.
    pub(crate) fn recover(
        &mut self,
        settings: JournalSettings,
        fresh_id: [u8; 16],
    ) -> (Journal, RecoveryReport) {
        let mut recovery = Recovery::new(settings, fresh_id);
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

    /// Changes a bit somewhere in committed blocks, and returns the sequences that may be lost by that; `None` if there is
    /// nothing old enough. The newest block is spared: damage there cannot be told from a torn write.
    pub(crate) fn rot(&mut self, dice: &mut Dice) -> Option<BTreeSet<u64>> {
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

    /// Returns the bytes of all files that count against the journal's bound.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().map(|file| file.len() as u64).sum()
    }

    /// Returns whether `marker` stands in clear in a segment.
    #[cfg(test)]
    pub(crate) fn holds(&self, marker: &[u8]) -> bool {
        let mut files = self.segments.values();
        files.any(|file| crate::model::contains(file, marker))
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
        self.faults += 1;
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
pub(crate) enum Lane {
    /// The durable write.
    Write,
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

    #[test]
    fn a_power_cut_leaves_some_sectors_of_a_write_and_a_kill_all_or_none() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..200 {
            let how = if seed % 2 == 0 { Stop::Kill } else { Stop::PowerCut };
            let mut disk = Disk::default();
            disk.create(1, 4 * SECTOR, Vec::new());
            let write = Output::Write {
                segment: 1,
                offset: SECTOR as u64,
                bytes: vec![7; 2 * SECTOR],
            };
            assert_eq!(disk.begin(write), Ok(Lane::Write));
            disk.stop(how, &mut Dice::new(seed));
            let written = disk.segments[&1].iter().filter(|byte| **byte == 7).count();
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
            disk.create(1, 4 * SECTOR, Vec::new());
            for trouble in [Some(DiskTrouble::Broken), None] {
                disk.trouble = trouble;
                let write = Output::Write {
                    segment: 1,
                    offset: 0,
                    bytes: vec![9; 4 * SECTOR],
                };
                assert_eq!(disk.begin(write), Ok(Lane::Write));
                let Done::Written(_, result) = disk.end(Lane::Write, &mut dice) else {
                    panic!("it was a write");
                };
                assert_eq!(result.is_err(), trouble.is_some());
            }
            disk.stop(how, &mut dice);
            let all = disk.segments[&1].iter().all(|byte| *byte == 9);
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
            assert_eq!(disk.begin(create), Ok(Lane::Storage));
        }
        let mut dice = Dice::new(1);
        assert!(matches!(
            disk.end(Lane::Storage, &mut dice),
            Done::Created(1, Ok(()))
        ));
        disk.trouble = Some(DiskTrouble::Full);
        let done = disk.end(Lane::Storage, &mut dice);
        assert!(matches!(done, Done::Created(2, Err(WriteFailed::NoRoom))));
        assert_eq!((disk.bytes(), disk.faults), (1024, 1));
    }
}
