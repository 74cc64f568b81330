//! Chance, from a seed.

/// A generator of repeatable values (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a value of 0 to `bound` − 1.
    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("an index is small")
    }

    pub(super) const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        [(); N].map(|()| self.roll().to_be_bytes()[0])
    }
}
