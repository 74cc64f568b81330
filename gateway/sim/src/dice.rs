//! Everything random in a run, from its seed.

use std::time::Duration;

use fieldgate_proto::entropy::Entropy;

/// A generator of repeatable values (SplitMix64). Good enough for chance, and for keys that protect nothing.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Begins the sequence of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns another generator, whose values do not change with how many are drawn here later.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.roll())
    }

    /// Returns the next value.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a value of 0 to `bound` − 1, 0 if `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // The bias of a bound far below 2^64 does not matter here.
        match self.roll().checked_rem(bound) {
            Some(value) => value,
            None => 0,
        }
    }

    /// Returns an index into something of `len` entries.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Returns a value of `from` to `to`, both included.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from.saturating_add(self.below(to.saturating_sub(from).saturating_add(1)))
    }

    /// Returns a time of `from` to `to` milliseconds, to the microsecond.
    pub const fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.between(from * 1000, to * 1000))
    }

    /// Returns `true` once in `n` times on average, never if `n` is 0.
    pub const fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// Returns one of `choices`.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        let index = self.index(choices.len());
        choices
            .get(index)
            .expect("there is something to pick from")
            .clone()
    }
}

impl Entropy for Dice {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let value = self.roll().to_be_bytes();
            chunk.iter_mut().zip(value).for_each(|(to, from)| *to = from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_values_and_another_seed_others() {
        let rolls = |seed| -> Vec<u64> {
            let mut dice = Dice::new(seed);
            (0..20).map(|_| dice.roll()).collect()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let mut dice = Dice::new(1);
        let values: std::collections::BTreeSet<u64> = (0..200).map(|_| dice.between(3, 6)).collect();
        assert_eq!(values.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!(dice.below(0), 0);
        assert!(!dice.one_in(0));
    }
}
