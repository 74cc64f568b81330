//! Finding out after a start what is there.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use super::{
    JournalSettings,
    capture::Captured,
    cursor::Cursor,
    format::{BlockHeader, SECTOR, SegmentHeader},
    log::{Journal, Recovered, Segment},
    scan::{Damage, Scanned, scan_segment},
    sealing::{JournalKey, SegmentSeal},
};
use crate::link::Class;

/// Takes the files of a directory, the first sectors of each segment and the whole of a few, and makes the journal.
///
/// ```text
/// Recovery::new ─▶ cursor(bytes)? ─▶ head(number, first bytes)* ─▶ while let Some(number) = wanted() { whole(number, bytes) } ─▶ finish
/// ```
#[derive(Debug)]
pub struct Recovery {
    settings: JournalSettings,
    class: Class,
    fresh_id: [u8; 16],
    uplinks: Vec<u64>,
    key: Option<(JournalKey, SegmentSeal)>,
    cursor: Option<Cursor>,
    heads: BTreeMap<u64, Head>,
    report: RecoveryReport,
}

#[derive(Debug)]
struct Head {
    header: SegmentHeader,
    file_len: u64,
    first_block: Option<BlockHeader>,
    whole: Option<Whole>,
}

/// What a whole segment holds.
#[derive(Clone, Copy, Debug)]
struct Whole {
    /// First sequence, 0 if there is no block.
    first: u64,
    last: u64,
    /// Offset behind the last block.
    end: u64,
    /// The last sequence the last block should hold, and the last it does.
    last_block: Option<(u64, u64)>,
    released: u64,
    captured: Captured,
    /// There is something in it that does not verify.
    residue: bool,
    /// A record in it verifies.
    readable: bool,
}

/// What recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments that hold records.
    pub segments: u64,
    /// Segments with nothing readable in them, or of another journal: rename them to end in `.bad`. Their records are lost to
    /// delivery, but can be looked at.
    pub quarantined: Vec<u64>,
    /// Segments that are encrypted with another key than the one given, or with any if none was: the journal must not be used,
    /// for it would take every record in them for damaged.
    pub locked: Vec<u64>,
    /// Records at the end that were being written when the power went; they were never acknowledged.
    pub torn: u64,
    /// The oldest sequence that is still needed, and the next that will be given out.
    pub first: u64,
    /// See `first`.
    pub next: u64,
    /// The journal was begun anew.
    pub is_new: bool,
}

impl Recovery {
    /// Begins. `fresh_id` names the journal if there is none yet.
    #[must_use]
    pub fn new(settings: JournalSettings, class: Class, fresh_id: [u8; 16]) -> Self {
        Self {
            settings,
            class,
            fresh_id,
            uplinks: Vec::new(),
            key: None,
            cursor: None,
            heads: BTreeMap::new(),
            report: RecoveryReport::default(),
        }
    }

    /// Takes stable names of the uplinks, at most [`UPLINKS_MAX`](super::UPLINKS_MAX): each has a position of its own. A position
    /// whose uplink is not named any more goes.
    #[must_use]
    pub fn uplinks(mut self, names: &[u64]) -> Self {
        self.uplinks = names.to_vec();
        self
    }

    /// Takes the key with which segments are encrypted from now on, and 16 random bytes. Segments that are not encrypted are
    /// still read.
    #[must_use]
    pub fn key(mut self, key: JournalKey, salt: [u8; 16]) -> Self {
        let key_id = key.id();
        self.key = Some((key, SegmentSeal { salt, key_id }));
        self
    }

    /// Takes the cursor's file, if there is one.
    pub fn cursor(&mut self, bytes: &[u8]) {
        self.cursor = Cursor::decode(bytes);
    }

    /// Takes the first 1,024 bytes of segment `number` (fewer if the file is shorter), and the length of the file.
    pub fn head(&mut self, number: u64, bytes: &[u8], file_len: u64) {
        let belongs = |header: &SegmentHeader| header.number == number && header.lane == self.class.bits();
        let Some(header) = SegmentHeader::decode(bytes).filter(belongs) else {
            self.report.quarantined.push(number);
            return;
        };
        let first_block = bytes.get(SECTOR..).and_then(BlockHeader::decode);
        self.heads.insert(
            number,
            Head {
                header,
                file_len,
                first_block,
                whole: None,
            },
        );
    }

    /// Returns the next segment of which all bytes are needed: the last one with blocks, and those whose first block cannot
    /// be read.
    #[must_use]
    pub fn wanted(&self) -> Option<u64> {
        let unclear = self
            .heads
            .iter()
            .find(|(_, head)| head.first_block.is_none() && head.whole.is_none());
        if let Some((number, _)) = unclear {
            return Some(*number);
        }
        // With every first block known, the newest block is in the segment with the highest sequences.
        let newest = self
            .heads
            .iter()
            .filter(|(_, head)| head.first() > 0)
            .max_by_key(|(number, head)| (head.first(), **number));
        newest
            .filter(|(_, head)| head.whole.is_none())
            .map(|(number, _)| *number)
    }

    /// Takes all bytes of the segment [`wanted`](Self::wanted).
    pub fn whole(&mut self, number: u64, bytes: &[u8]) {
        let Some(head) = self.heads.get_mut(&number) else {
            return;
        };
        let mut whole = Whole {
            first: 0,
            last: 0,
            end: 0,
            last_block: None,
            released: 0,
            captured: Captured::NOTHING,
            residue: false,
            readable: false,
        };
        whole.end = scan_segment(bytes, &mut |scanned| match scanned {
            Scanned::Block { header, .. } => {
                if whole.first == 0 {
                    whole.first = header.first;
                }
                whole.last = whole.last.max(header.last());
                whole.released = whole.released.max(header.released);
                whole.captured.merge(&header.captured);
                whole.last_block = Some((header.last(), header.first.saturating_sub(1)));
            }
            Scanned::Record { sequence, .. } => {
                whole.readable = true;
                if let Some((_, last)) = &mut whole.last_block {
                    *last = (*last).max(sequence);
                }
            }
            Scanned::Damage(damage) => {
                whole.residue = true;
                if matches!(damage, Damage::Block { .. }) {
                    // Records whose block does not say any more when they were captured.
                    whole.captured = Captured::UNKNOWN;
                }
            }
        });
        head.whole = Some(whole);
    }

    /// Makes the journal and says what was found.
    #[must_use]
    pub fn finish(mut self) -> (Journal, RecoveryReport) {
        let id = self.journal_id();
        self.set_aside_strangers(&id);
        self.report.locked = self.locked();
        let cursor = self.cursor.take().filter(|cursor| cursor.journal() == &id);
        let newest = self.newest();
        // What stands behind the last valid record of the newest block was being written and never acknowledged. Invalid records
        // before it are reported as lost when their turn comes, for nobody can tell a torn write from later damage there.
        let (claimed, intact) = newest.map_or((0, 0), |whole| {
            whole.last_block.unwrap_or((whole.last, whole.last))
        });
        self.report.torn = claimed.saturating_sub(intact);
        let headers = self.heads.values().map(|head| &head.header);
        // Sequences that were given out are not given out again, even if nothing else than this tells of them.
        let promised = headers
            .clone()
            .map(|header| header.next.saturating_sub(1))
            .max()
            .unwrap_or(0);
        let mentioned = headers
            .map(|header| header.released)
            .chain(newest.map(|whole| whole.released.min(intact)))
            .max()
            .unwrap_or(0);
        let (segments, surplus, residues) = self.segments(intact);
        self.report.quarantined.extend(residues);
        // What does not verify is left where it is: somebody may want to look at it.
        let is_clean = |number: &u64| {
            let whole = self.heads.get(number).and_then(|head| head.whole);
            whole.is_some_and(|whole| !whole.residue)
        };
        let unfinished = segments
            .iter()
            .filter(|(number, segment)| segment.end < segment.size && is_clean(number))
            .map(|(number, _)| *number)
            .collect();
        let cursor = cursor.unwrap_or_else(|| Cursor::new(id));
        let released = cursor.content.released.max(mentioned);
        let positions = &cursor.content.positions;
        let confirmed = positions
            .iter()
            .map(|position| position.confirmed)
            .max()
            .unwrap_or(0);
        let next = [intact, promised, released, cursor.content.gaps.last(), confirmed]
            .into_iter()
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        let next_segment = self
            .heads
            .keys()
            .chain(&self.report.quarantined)
            .max()
            .map_or(1, |last| last.saturating_add(1));
        self.report.segments = segments.len() as u64;
        self.report.next = next;
        self.report.is_new = id == self.fresh_id;
        let recovered = Recovered {
            class: self.class,
            id,
            segments,
            next_segment,
            next,
            released,
            uplinks: self.uplinks,
            cursor,
            surplus,
            unfinished,
            key: self.key,
        };
        let journal = Journal::new(self.settings, recovered);
        self.report.first = journal.first_available();
        (journal, self.report)
    }

    /// Returns the id that most segments carry, else the cursor's, else the fresh one.
    fn journal_id(&self) -> [u8; 16] {
        let mut votes: BTreeMap<[u8; 16], usize> = BTreeMap::new();
        for head in self.heads.values() {
            let count = votes.entry(head.header.journal).or_default();
            *count = count.saturating_add(1);
        }
        let elected = votes
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map(|(id, _)| id);
        elected
            .or_else(|| self.cursor.as_ref().map(|cursor| *cursor.journal()))
            .unwrap_or(self.fresh_id)
    }

    fn set_aside_strangers(&mut self, id: &[u8; 16]) {
        let strangers: Vec<u64> = self
            .heads
            .iter()
            .filter(|(_, head)| &head.header.journal != id)
            .map(|(number, _)| *number)
            .collect();
        for number in strangers {
            self.heads.remove(&number);
            self.report.quarantined.push(number);
        }
    }

    /// Returns segments that the key does not fit.
    fn locked(&self) -> Vec<u64> {
        let known = self.key.as_ref().map(|(_, seal)| seal.key_id);
        let is_locked = |head: &Head| head.header.seal.is_some_and(|seal| Some(seal.key_id) != known);
        self.heads
            .iter()
            .filter(|(_, head)| is_locked(head))
            .map(|(number, _)| *number)
            .collect()
    }

    /// Returns the segment with the highest sequences.
    fn newest(&self) -> Option<Whole> {
        let wholes = self
            .heads
            .iter()
            .filter_map(|(number, head)| Some((number, head.whole?)));
        wholes
            .filter(|(_, whole)| whole.readable)
            .max_by_key(|(number, whole)| (whole.first, **number))
            .map(|(_, whole)| whole)
    }

    /// Returns the segments with records, each ending before the next begins; those that are empty; and those that hold
    /// something unreadable only.
    fn segments(&self, intact: u64) -> (BTreeMap<u64, Segment>, Vec<u64>, Vec<u64>) {
        let mut segments = BTreeMap::new();
        let mut surplus = Vec::new();
        let mut residues = Vec::new();
        let mut last = intact;
        // What the first block of the segment behind says of the one before it.
        let mut before = (0, Captured::UNKNOWN);
        // From the newest to the oldest: a block written again after a failure stands in two, and the newer one counts.
        for (number, head) in self.heads.iter().rev() {
            let first = head.first();
            if first == 0 || first > last {
                if head.whole.is_some_and(|whole| whole.residue) {
                    residues.push(*number);
                } else {
                    surplus.push(*number);
                }
                continue;
            }
            let end = head.whole.map_or(head.file_len, |whole| whole.end);
            let captured = match (head.whole, before) {
                (Some(whole), _) => whole.captured,
                (None, (of, captured)) if of == *number => captured,
                (None, _) => Captured::UNKNOWN,
            };
            segments.insert(
                *number,
                Segment {
                    first,
                    last,
                    end,
                    size: head.file_len,
                    sealed: true,
                    captured,
                    seal: head.header.seal,
                    seen: None,
                },
            );
            before = head.first_block.map_or((0, Captured::UNKNOWN), |header| {
                (header.previous, header.previous_captured)
            });
            last = first.saturating_sub(1);
        }
        (segments, surplus, residues)
    }
}

impl Head {
    /// Returns the first sequence, 0 if there is no record, or none that can be read.
    fn first(&self) -> u64 {
        match (self.whole, self.first_block) {
            (Some(whole), _) if !whole.readable => 0,
            (_, Some(header)) => header.first,
            (Some(whole), None) => whole.first,
            (None, None) => 0,
        }
    }
}
