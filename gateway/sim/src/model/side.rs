//! What one collector has of one lane.

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_proto::delivery::Lost;

/// A collector's store and sink, as far as one lane is concerned.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// Readings in the store.
    stored: BTreeSet<u64>,
    /// Gaps in the store, by first sequence.
    gaps: BTreeMap<u64, Lost>,
    /// Highest sequence in the store.
    position: u64,
    /// Highest sequence handed to the sink in its present life.
    handed: u64,
    /// What was handed to it in this life and is not stored.
    pending: BTreeSet<u64>,
    pending_gaps: Vec<Lost>,
    /// What was ever in the store, whatever backup it was restored from.
    settled: BTreeSet<u64>,
    /// Highest sequence that the gateway was told of.
    pub(crate) released: u64,
}

impl Side {
    /// A new life: the sink goes on where the store is.
    pub(crate) fn start(&mut self) {
        self.handed = self.position;
        self.pending.clear();
        self.pending_gaps.clear();
    }

    /// The store is that of a backup.
    pub(crate) fn restore(&mut self, position: u64) {
        self.stored.retain(|sequence| *sequence <= position);
        self.gaps.retain(|_, gap| gap.last <= position);
        self.position = position;
        self.start();
    }

    /// Readings or a gap were handed to the sink.
    pub(crate) fn hand(&mut self, first: u64, last: u64, gap: Option<Lost>) {
        match gap {
            Some(gap) => self.pending_gaps.push(gap),
            None => self.pending.extend(first..=last),
        }
        self.handed = last;
    }

    /// What was handed over up to `up_to` is in the store.
    pub(crate) fn store(&mut self, up_to: u64) {
        let later = self.pending.split_off(&(up_to + 1));
        let stored = std::mem::replace(&mut self.pending, later);
        self.settled.extend(&stored);
        self.stored.extend(stored);
        for gap in self.pending_gaps.extract_if(.., |gap| gap.last <= up_to) {
            self.settled.extend(gap.first..=gap.last);
            self.gaps.insert(gap.first, gap);
        }
        self.position = self.position.max(up_to);
    }

    pub(crate) const fn handed(&self) -> u64 {
        self.handed
    }

    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// Returns whether a sequence was ever in the store, or in a gap there.
    pub(crate) fn was_settled(&self, sequence: u64) -> bool {
        self.settled.contains(&sequence)
    }

    /// Returns in how many readings and gaps of the store a sequence is.
    pub(crate) fn accounts(&self, sequence: u64) -> usize {
        let gaps = self.gaps.range(..=sequence);
        let in_gaps = gaps.filter(|(_, gap)| gap.last >= sequence).count();
        usize::from(self.stored.contains(&sequence)) + in_gaps
    }

    pub(crate) fn readings(&self) -> u64 {
        self.stored.len() as u64
    }

    pub(crate) fn lost(&self) -> u64 {
        self.gaps.values().map(Lost::count).sum()
    }

    pub(crate) fn gaps(&self) -> impl Iterator<Item = &Lost> {
        self.gaps.values()
    }
}
