//! What policy discarded before every collector had it.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use super::capture::Captured;
use crate::delivery::LostReason;

/// Readings that were discarded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// Why: [`LostReason::Discarded`], [`LostReason::Expired`], or [`LostReason::Corrupt`] for what was found missing in front of
    /// those.
    pub reason: LostReason,
    /// When they were captured, as far as that is known.
    pub captured: Captured,
}

impl Gap {
    const fn holds(&self, sequence: u64) -> bool {
        self.first <= sequence && sequence <= self.last
    }
}

/// The gaps of a lane, oldest first. Policy discards the oldest records only, so each begins where the one before ends.
///
/// ```text
///  extend ─▶ grows ──a collector is to be told: seal──▶ fixed ──every collector is past it: forget──▶ gone
/// ```
/// What a collector was told once is told again with the same end, however much is discarded meanwhile: an end that was
/// sealed, and is on stable storage as such, does not move. Only when [`GAPS_MAX`] are full do the two oldest become one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps {
    list: Vec<Gap>,
    /// Gaps that end up to here are fixed.
    sealed: u64,
}

impl Gaps {
    /// Puts gaps together as they were stored; `None` if they contradict each other.
    pub(super) fn restore(list: Vec<Gap>, sealed: u64) -> Option<Self> {
        let follows = list
            .iter()
            .zip(list.iter().skip(1))
            .all(|(gap, next)| gap.last.checked_add(1) == Some(next.first));
        let sound = list.iter().all(|gap| gap.first > 0 && gap.first <= gap.last);
        (follows && sound && list.len() <= GAPS_MAX).then_some(Self { list, sealed })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Gap> {
        self.list.iter()
    }

    /// Returns the last sequence that was discarded, 0 if none is remembered.
    pub(super) fn last(&self) -> u64 {
        self.list.last().map_or(0, |gap| gap.last)
    }

    /// Returns up to where gaps are fixed.
    pub(super) const fn sealed(&self) -> u64 {
        self.sealed
    }

    /// Returns the gap that holds a sequence.
    pub(super) fn find(&self, sequence: u64) -> Option<&Gap> {
        self.list.iter().find(|gap| gap.holds(sequence))
    }

    /// Adds what was discarded; it begins where the last gap ends.
    pub(super) fn extend(&mut self, added: Gap) {
        let sealed = self.sealed;
        if let Some(gap) = self
            .list
            .last_mut()
            .filter(|gap| gap.reason == added.reason && gap.last > sealed)
        {
            gap.last = added.last;
            gap.captured.merge(&added.captured);
            return;
        }
        if self.list.len() >= GAPS_MAX {
            self.join_oldest();
        }
        self.list.push(added);
    }

    /// Fixes the ends of all gaps up to the one that ends at `last`.
    pub(super) fn seal(&mut self, last: u64) {
        self.sealed = self.sealed.max(last);
    }

    /// Drops gaps that every collector is past.
    pub(super) fn forget(&mut self, released: u64) {
        self.list.retain(|gap| gap.last > released);
    }

    /// Makes one of the two oldest; the reason is that of the larger.
    fn join_oldest(&mut self) {
        let [oldest, next, ..] = &mut self.list[..] else {
            return;
        };
        let len = |gap: &Gap| gap.last.saturating_sub(gap.first);
        if len(oldest) > len(next) {
            next.reason = oldest.reason;
        }
        next.first = oldest.first;
        next.captured.merge(&oldest.captured);
        self.list.remove(0);
    }
}

/// Gaps of a lane that are remembered apart: as many as a slot of the cursor has room for.
pub(super) const GAPS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first: u64, last: u64, reason: LostReason) -> Gap {
        Gap {
            first,
            last,
            reason,
            captured: Captured {
                earliest: first,
                latest: last,
                vouched: true,
            },
        }
    }

    #[test]
    fn a_gap_grows_until_a_collector_is_told_of_it() {
        let mut gaps = Gaps::default();
        gaps.extend(gap(1, 10, LostReason::Discarded));
        gaps.extend(gap(11, 20, LostReason::Discarded));
        assert_eq!(gaps.find(5), Some(&gap(1, 20, LostReason::Discarded)));
        gaps.seal(20);
        gaps.extend(gap(21, 30, LostReason::Discarded));
        assert_eq!(gaps.find(20).unwrap().last, 20, "its end does not move any more");
        assert_eq!(gaps.find(21), Some(&gap(21, 30, LostReason::Discarded)));
        gaps.extend(gap(31, 35, LostReason::Expired));
        assert_eq!((gaps.iter().count(), gaps.last()), (3, 35));
        gaps.forget(25);
        assert_eq!((gaps.iter().count(), gaps.find(20)), (2, None));
        gaps.forget(35);
        assert_eq!(gaps.last(), 0);
    }

    #[test]
    fn there_are_never_more_than_fit_a_slot_and_no_sequence_is_forgotten() {
        let mut gaps = Gaps::default();
        for index in 0..100 {
            let reason = [LostReason::Discarded, LostReason::Expired][usize::from(index % 2 == 0)];
            gaps.extend(gap(index * 10 + 1, index * 10 + 10, reason));
            gaps.seal(gaps.last());
            assert!(gaps.iter().count() <= GAPS_MAX);
            let list = gaps.iter().copied().collect();
            assert_eq!(Gaps::restore(list, gaps.sealed()).as_ref(), Some(&gaps));
        }
        for sequence in 1..=1000 {
            assert!(gaps.find(sequence).unwrap().captured.earliest <= sequence);
        }
    }

    #[test]
    fn gaps_that_contradict_each_other_are_refused() {
        let reason = LostReason::Discarded;
        assert_eq!(Gaps::restore(vec![gap(1, 5, reason), gap(7, 9, reason)], 0), None);
        assert_eq!(Gaps::restore(vec![gap(5, 4, reason)], 0), None);
        assert_eq!(Gaps::restore(vec![gap(0, 4, reason)], 0), None);
        let whole = Gap {
            last: u64::MAX,
            ..gap(5, 5, reason)
        };
        assert_eq!(Gaps::restore(vec![whole, gap(1, 4, reason)], 0), None);
        assert_eq!(Gaps::restore(vec![gap(1, 1, reason); GAPS_MAX + 1], 0), None);
    }
}
