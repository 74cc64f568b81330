//! Files of the lanes as a disk has them: what is under way when the power goes is there, or not, or in part, and in any order.

use std::collections::{BTreeMap, VecDeque};

use fieldgate_proto::{
    journal::{
        Journal, JournalKey, JournalSettings, Output, Recovery, RecoveryReport, SECTOR, Scanned, WriteFailed,
        scan_segment,
    },
    link::Class,
};

use super::dice::Dice;

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// Nothing new fits.
    Full,
    /// Writing fails, with some of it on disk.
    Broken,
    /// It was mounted read-only.
    ReadOnly,
    /// Reading fails.
    Unreadable,
}

/// The end of an operation, for the lane.
pub(super) enum Done {
    Written(Vec<u8>, Result<(), WriteFailed>),
    Created(u64, Result<(), WriteFailed>),
    CursorWritten(Result<(), WriteFailed>),
    Read(Option<Vec<u8>>),
    Nothing,
}

/// The files of one lane.
#[derive(Default)]
pub(super) struct LaneFiles {
    segments: BTreeMap<u64, Vec<u8>>,
    /// Segments as they are on stable storage once a write to them failed: a kernel says so once, and whatever is written there
    /// afterwards seems to succeed and goes with the power.
    doubtful: BTreeMap<u64, Vec<u8>>,
    cursor: Vec<u8>,
    write: Option<(u64, usize, Vec<u8>)>,
}

/// All files, and what is under way.
pub(super) struct Files {
    lanes: [LaneFiles; 3],
    /// Of the thread that does everything but block writes.
    queue: VecDeque<(Class, Output)>,
    pub(super) trouble: Trouble,
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("files are small")
}

impl Files {
    pub(super) fn new() -> Self {
        Self {
            lanes: Default::default(),
            queue: VecDeque::new(),
            trouble: Trouble::None,
        }
    }

    pub(super) fn lane(&mut self, lane: Class) -> &mut LaneFiles {
        &mut self.lanes[usize::from(lane.bits())]
    }

    /// Takes what a lane wants; what concerns the caller comes back.
    pub(super) fn begin(&mut self, lane: Class, output: Output) -> Option<Output> {
        match output {
            Output::Write {
                segment,
                offset,
                bytes,
            } => {
                let write = &mut self.lane(lane).write;
                assert!(write.is_none(), "at most one write of a lane is under way");
                *write = Some((segment, place(offset), bytes));
                None
            }
            Output::Committed { .. } | Output::Discarded { .. } | Output::StateChanged(_) => Some(output),
            Output::Create { .. }
            | Output::WriteCursor { .. }
            | Output::Delete { .. }
            | Output::Shrink { .. }
            | Output::Read { .. } => {
                self.queue.push_back((lane, output));
                None
            }
        }
    }

    pub(super) fn is_writing(&mut self, lane: Class) -> bool {
        self.lane(lane).write.is_some()
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Ends the write of a lane.
    pub(super) fn end_write(&mut self, lane: Class, dice: &mut Dice) -> Done {
        let trouble = self.trouble;
        let files = self.lane(lane);
        let Some((segment, offset, bytes)) = files.write.take() else {
            return Done::Nothing;
        };
        match trouble {
            Trouble::Broken => {
                files.tear(segment, offset, &bytes, dice);
                let file = files.segments.get(&segment).cloned().unwrap_or_default();
                files.doubtful.entry(segment).or_insert(file);
                Done::Written(bytes, Err(WriteFailed::Broken))
            }
            Trouble::ReadOnly => Done::Written(bytes, Err(WriteFailed::Broken)),
            // A block fits the space that was reserved.
            Trouble::None | Trouble::Full | Trouble::Unreadable => {
                files.put(segment, offset, &bytes);
                Done::Written(bytes, Ok(()))
            }
        }
    }

    /// Ends the oldest of the other operations.
    pub(super) fn end_other(&mut self) -> Option<(Class, Done)> {
        let trouble = self.trouble;
        let (lane, operation) = self.queue.pop_front()?;
        let files = self.lane(lane);
        let broken = match trouble {
            Trouble::Broken | Trouble::ReadOnly => Err(WriteFailed::Broken),
            Trouble::None | Trouble::Full | Trouble::Unreadable => Ok(()),
        };
        let done = match operation {
            Output::Create {
                segment,
                segment_bytes,
                header,
            } => {
                let result = if trouble == Trouble::Full {
                    Err(WriteFailed::NoRoom)
                } else {
                    broken
                };
                if result.is_ok() {
                    files.create(segment, place(segment_bytes), header);
                }
                Done::Created(segment, result)
            }
            Output::WriteCursor { offset, bytes } => {
                if broken.is_ok() {
                    files.put_cursor(place(offset), &bytes);
                }
                Done::CursorWritten(broken)
            }
            Output::Delete { segment } => {
                if trouble != Trouble::ReadOnly {
                    files.segments.remove(&segment);
                    files.doubtful.remove(&segment);
                }
                Done::Nothing
            }
            Output::Shrink { segment, bytes } => {
                if trouble != Trouble::ReadOnly {
                    files.shrink(segment, place(bytes));
                }
                Done::Nothing
            }
            Output::Read { segment, offset, len } => {
                let bytes = files.read(segment, place(offset), len);
                Done::Read(bytes.filter(|_| trouble != Trouble::Unreadable))
            }
            Output::Write { .. }
            | Output::Committed { .. }
            | Output::Discarded { .. }
            | Output::StateChanged(_) => Done::Nothing,
        };
        Some((lane, done))
    }

    /// Cuts the power: writes are torn, and of the other operations some are done, the next one in part, the rest never.
    pub(super) fn cut(&mut self, dice: &mut Dice) {
        for files in &mut self.lanes {
            if let Some((segment, offset, bytes)) = files.write.take() {
                files.tear(segment, offset, &bytes, dice);
            }
            let doubtful = std::mem::take(&mut files.doubtful);
            files.segments.extend(doubtful);
        }
        let done = dice.index(self.queue.len() + 1);
        for _ in 0..done {
            self.end_other();
        }
        if let Some((lane, operation)) = self.queue.pop_front() {
            self.lane(lane).cut(operation, dice);
        }
        self.queue.clear();
    }

    /// Ends the process: the kernel finishes what it was given, or never got it.
    pub(super) fn kill(&mut self, dice: &mut Dice) {
        let trouble = std::mem::replace(&mut self.trouble, Trouble::None);
        for lane in Class::ALL {
            if dice.one_in(2) {
                self.end_write(lane, dice);
            }
            self.lane(lane).write = None;
        }
        self.trouble = trouble;
        let done = dice.index(self.queue.len() + 1);
        for _ in 0..done {
            self.end_other();
        }
        self.queue.clear();
    }
}

impl LaneFiles {
    pub(super) fn recover(
        &mut self,
        (settings, lane): (JournalSettings, Class),
        uplinks: &[u64],
        key: Option<JournalKey>,
        dice: &mut Dice,
    ) -> (Journal, RecoveryReport) {
        let mut recovery = Recovery::new(settings, lane, dice.bytes()).uplinks(uplinks);
        if let Some(key) = key {
            recovery = recovery.key(key, dice.bytes());
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
        }
        (journal, report)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|file| file.len() as u64).sum()
    }

    /// Returns whether `marker` stands in a segment as it is.
    pub(super) fn holds(&self, marker: &[u8]) -> bool {
        let mut files = self.segments.values();
        files.any(|file| file.windows(marker.len()).any(|window| window == marker))
    }

    /// Changes a bit somewhere in a committed block and returns which sequences that may cost. The newest block is spared:
    /// damage there cannot be told from a torn write.
    pub(super) fn rot(&mut self, dice: &mut Dice) -> Option<(u64, u64)> {
        let newest = *self.segments.keys().next_back()?;
        let mut places = Vec::new();
        for (number, bytes) in self.segments.iter().filter(|(number, _)| **number != newest) {
            scan_segment(bytes, &mut |scanned| {
                if let Scanned::Block { offset, header } = scanned {
                    places.push((*number, place(offset), header));
                }
            });
        }
        // The newest segment may be empty, so that the newest block is the last of those before.
        places.sort_by_key(|(_, _, header)| header.first);
        places.pop();
        if places.is_empty() {
            return None;
        }
        let (number, offset, header) = places[dice.index(places.len())];
        let file = self.segments.get_mut(&number)?;
        let len = header.block_len().min(file.len() - offset);
        file[offset + dice.index(len)] ^= 1 << dice.below(8);
        Some((header.first, header.last()))
    }

    /// Changes a bit of one slot of the cursor, or of both.
    pub(super) fn rot_cursor(&mut self, both: bool, dice: &mut Dice) -> bool {
        if self.cursor.is_empty() {
            return false;
        }
        let chosen = dice.index(2);
        for slot in [0, 1] {
            if both || slot == chosen {
                self.cursor[slot * SECTOR + dice.index(200)] ^= 1 << dice.below(8);
            }
        }
        true
    }

    fn read(&self, segment: u64, offset: usize, len: usize) -> Option<Vec<u8>> {
        let rest = self.segments.get(&segment)?.get(offset..)?;
        Some(rest[..len.min(rest.len())].to_vec())
    }

    fn create(&mut self, segment: u64, len: usize, header: Vec<u8>) {
        let mut file = header;
        file.resize(len, 0);
        let before = self.segments.insert(segment, file);
        assert!(before.is_none(), "a segment takes the place of another");
    }

    fn put(&mut self, segment: u64, offset: usize, bytes: &[u8]) {
        let file = self.segments.get_mut(&segment).expect("it was created");
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn shrink(&mut self, segment: u64, len: usize) {
        for kept in [&mut self.segments, &mut self.doubtful] {
            if let Some(file) = kept.get_mut(&segment) {
                file.truncate(len);
            }
        }
    }

    /// Puts some sectors of `bytes` there, in no order; some may be half old and half new.
    fn tear(&mut self, segment: u64, offset: usize, bytes: &[u8], dice: &mut Dice) {
        let share = dice.below(5);
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            let at = offset + index * SECTOR;
            if dice.below(4) < share {
                self.put(segment, at, sector);
            } else if dice.one_in(8) {
                self.put(segment, at, &sector[..dice.index(sector.len())]);
            }
        }
    }

    fn put_cursor(&mut self, offset: usize, bytes: &[u8]) {
        self.cursor.resize(2 * SECTOR, 0);
        self.cursor[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Leaves what a power cut in the middle of an operation leaves.
    fn cut(&mut self, operation: Output, dice: &mut Dice) {
        match operation {
            Output::Create {
                segment,
                segment_bytes,
                header,
            } => match dice.below(5) {
                0 => {}
                1 => self.create(segment, 0, Vec::new()),
                2 => self.create(segment, place(segment_bytes), Vec::new()),
                3 => self.create(segment, header.len(), header),
                _ => self.create(segment, place(segment_bytes), header),
            },
            Output::WriteCursor { offset, bytes } => match dice.below(3) {
                0 => {}
                1 => self.put_cursor(place(offset), &bytes[..dice.index(bytes.len())]),
                _ => {
                    let garbage: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x5a).collect();
                    self.put_cursor(place(offset), &garbage);
                }
            },
            Output::Delete { segment } if dice.one_in(2) => {
                self.segments.remove(&segment);
            }
            Output::Shrink { segment, bytes } if dice.one_in(2) => self.shrink(segment, place(bytes)),
            Output::Write { .. }
            | Output::Delete { .. }
            | Output::Shrink { .. }
            | Output::Read { .. }
            | Output::Committed { .. }
            | Output::Discarded { .. }
            | Output::StateChanged(_) => {}
        }
    }
}
