//! Which sequences of a source a stream has, beyond those that are known to be in it without a gap.

use std::collections::BTreeMap;

/// Sets of sequences, kept as ranges that neither touch nor overlap.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    /// Last by first.
    by_first: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds `first` to `last`.
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last);
        // The ranges that touch or overlap are those that begin at the latest behind `last` and end at the earliest before
        // `first`; they lie side by side.
        while let Some((&other_first, &other_last)) = self
            .by_first
            .range(..=last.saturating_add(1))
            .next_back()
            .filter(|(_, other_last)| other_last.saturating_add(1) >= first)
        {
            self.by_first.remove(&other_first);
            first = first.min(other_first);
            last = last.max(other_last);
        }
        self.by_first.insert(first, last);
    }

    /// Forgets everything up to `known`.
    pub(crate) fn forget(&mut self, known: u64) {
        while let Some(entry) = self.by_first.first_entry() {
            let (first, last) = (*entry.key(), *entry.get());
            if first > known {
                return;
            }
            entry.remove();
            if last > known {
                self.by_first.insert(known + 1, last);
                return;
            }
        }
    }

    /// Returns the end of what follows `known` without a gap, `known` itself if nothing does.
    pub(crate) fn contiguous_after(&self, known: u64) -> u64 {
        match self.by_first.range(..=known.saturating_add(1)).next_back() {
            Some((_, &last)) => last.max(known),
            None => known,
        }
    }

    /// Returns the parts of `first` to `last` that are not there, in order.
    pub(crate) fn missing(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut next = first;
        let before = self.by_first.range(..first).next_back();
        for (&from, &to) in before.into_iter().chain(self.by_first.range(first..=last)) {
            if to < next {
                continue;
            }
            if from > next {
                missing.push((next, from - 1));
            }
            next = to.saturating_add(1);
        }
        if next <= last {
            missing.push((next, last));
        }
        missing
    }

    /// Returns how many ranges there are.
    pub(crate) fn len(&self) -> usize {
        self.by_first.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_the_set_they_stand_for(
            parts in prop::collection::vec((1_u64..60, 0_u64..9), 0..12), known in 0_u64..60, first in 1_u64..60, len in 0_u64..30,
        ) {
            let mut ranges = Ranges::default();
            let mut set = BTreeSet::new();
            for (from, more) in parts {
                ranges.insert(from, from + more);
                set.extend(from..=from + more);
            }
            for sequence in 1..80 {
                prop_assert_eq!(ranges.missing(sequence, sequence).is_empty(), set.contains(&sequence));
            }
            let contiguous = (known + 1..).take_while(|sequence| set.contains(sequence)).last().unwrap_or(known);
            prop_assert_eq!(ranges.contiguous_after(known), contiguous);
            let missing: Vec<u64> = ranges.missing(first, first + len).into_iter().flat_map(|(a, b)| a..=b).collect();
            let wanted: Vec<u64> = (first..=first + len).filter(|sequence| !set.contains(sequence)).collect();
            prop_assert_eq!(missing, wanted);
            // They neither touch nor overlap.
            let list: Vec<_> = ranges.by_first.iter().collect();
            prop_assert!(list.windows(2).all(|pair| *pair[0].1 + 1 < *pair[1].0));
            ranges.forget(known);
            for sequence in 1..80 {
                prop_assert_eq!(ranges.missing(sequence, sequence).is_empty(), sequence > known && set.contains(&sequence));
            }
        }
    }
}
