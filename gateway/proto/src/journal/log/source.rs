//! Giving a lane's records to uplinks.

use std::time::Duration;

use super::Journal;
use crate::{
    delivery::LostReason,
    journal::{Output, replay::Replayed},
    link::Class,
    node::{Copied, RecordSource},
};

impl Journal {
    /// Takes the bytes of the read under way, `None` if it failed: it is tried again a few times before what should have been
    /// there is given up.
    pub fn handle_read(&mut self, bytes: Option<Vec<u8>>) {
        if bytes.is_none() && self.read_failures < READ_TRIES {
            self.read_failures += 1;
            self.reread_at = Some(self.clock + READ_INTERVAL);
            self.replay.cancel_read();
            return;
        }
        self.read_failures = 0;
        self.replay.handle_read(bytes, &self.segments);
    }

    /// Says that `from` was discarded, as soon as what is said is on stable storage.
    fn copy_gap(&mut self, from: u64) -> Option<Copied> {
        let gap = *self.gaps.find(from)?;
        if gap.last > self.sealed_safe {
            self.gaps.seal(gap.last);
            if self.cursor_writing.is_none() && self.cursor_due.is_none() {
                self.write_cursor();
            }
            return Some(Copied::NotYet);
        }
        Some(Copied::Lost {
            last: gap.last,
            reason: gap.reason,
            captured: gap.captured.times(),
        })
    }

    /// Has the key at hand that opens what was read from disk.
    fn prepare_opener(&mut self) {
        let Some(number) = self.replay.sealed_segment(&self.segments) else {
            return;
        };
        let seal = self.segments.get(&number).and_then(|segment| segment.seal);
        if let (Some(seal), Some((key, _))) = (seal, &self.key) {
            let header = self.header_of(number, Some(seal));
            self.replay.set_opener(number, key.segment(&header, &seal.salt));
        }
    }

    /// Says that `from` is not there and was not discarded by policy.
    fn lose(&mut self, from: u64, last: u64) -> Copied {
        let last = last.min(self.committed);
        if from <= self.released {
            // Asked for by a collector that was set back: it has confirmed them before.
            return Copied::Lost {
                last: last.min(self.released),
                reason: LostReason::Released,
                captured: None,
            };
        }
        // A gap behind is told as such.
        let gap = self.gaps.iter().find(|gap| gap.first > from);
        let last = gap.map_or(last, |gap| last.min(gap.first.saturating_sub(1)));
        let count = last.saturating_add(1).saturating_sub(from);
        self.stats.lost = self.stats.lost.saturating_add(count);
        Copied::Lost {
            last,
            reason: LostReason::Corrupt,
            captured: None,
        }
    }
}

impl RecordSource for Journal {
    fn copy_records(
        &mut self,
        _lane: Class,
        from: u64,
        bytes_max: usize,
        count_max: u64,
        out: &mut Vec<u8>,
    ) -> Copied {
        if from > self.committed {
            return Copied::NotYet;
        }
        if let Some(copied) = self.copy_gap(from) {
            return copied;
        }
        let in_memory = self.tail.first().is_some_and(|first| from >= first);
        if in_memory {
            self.replay.rest();
            let copied = self.tail.copy(from, bytes_max, count_max, out);
            return if copied > 0 {
                Copied::Records(copied)
            } else {
                Copied::NotYet
            };
        }
        if self.reread_at.is_some() {
            return Copied::NotYet;
        }
        self.prepare_opener();
        match self
            .replay
            .copy(from, (bytes_max, count_max), &self.segments, out)
        {
            Replayed::Records(0) | Replayed::Waiting => Copied::NotYet,
            Replayed::Records(count) => Copied::Records(count),
            Replayed::Lost { last } => self.lose(from, last),
            Replayed::Read(wanted) => {
                self.outputs.push_back(Output::Read {
                    segment: wanted.segment,
                    offset: wanted.offset,
                    len: wanted.len,
                });
                Copied::NotYet
            }
        }
    }
}

/// How often a read that failed is tried again.
const READ_TRIES: u32 = 5;
/// How long after a read failed it is tried again.
const READ_INTERVAL: Duration = Duration::from_secs(2);
