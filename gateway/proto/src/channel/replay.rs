//! Which numbers were received already.

/// Numbers below the highest that are still taken, the highest included.
pub const REPLAY_WINDOW: u64 = 2048;

/// Bits in the ring: twice the window, so that a whole word can be cleared ahead of the highest number.
const RING_BITS: u64 = 2 * REPLAY_WINDOW;
const WORDS: usize = 64;
const _: () = assert!(WORDS as u64 * 64 == RING_BITS);

/// What the window says about a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be opened.
    Fresh,
    /// It was opened before.
    Replayed,
    /// It left the window: nobody knows.
    TooOld,
}

/// A sliding window over record numbers, as a ring of bits (RFC 6479).
///
/// Invariant: a bit of a number above `highest` is never read before [`ReplayWindow::mark`] cleared its word.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// The number after the highest one marked; 0 before the first.
    next: u64,
    words: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplayWindow {
    /// Makes a window in which every number is fresh.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: 0,
            words: [0; WORDS],
        }
    }

    /// Returns the number after the highest one marked.
    #[must_use]
    pub const fn next_expected(&self) -> u64 {
        self.next
    }

    /// Says whether `number` may be opened. Changes nothing.
    #[must_use]
    pub fn check(&self, number: u64) -> Verdict {
        if number >= self.next {
            return Verdict::Fresh;
        }
        if self.next - number > REPLAY_WINDOW {
            return Verdict::TooOld;
        }
        let (word, bit) = position(number);
        match self.words.get(word) {
            Some(word) if word & bit == 0 => Verdict::Fresh,
            _ => Verdict::Replayed,
        }
    }

    /// Marks `number`, which [`ReplayWindow::check`] called fresh, as received.
    ///
    /// Call only after the tag has verified: a forged number must not move the window.
    pub fn mark(&mut self, number: u64) {
        if number >= self.next {
            // Words between the last marked one and that of `number` may hold bits of numbers one turn ago.
            let first = if self.next == 0 {
                0
            } else {
                (self.next - 1) / 64 + 1
            };
            let last = number / 64;
            if first <= last {
                for step in 0..(last - first + 1).min(WORDS as u64) {
                    let (word, _) = position((last - step) * 64);
                    if let Some(word) = self.words.get_mut(word) {
                        *word = 0;
                    }
                }
            }
            self.next = number.saturating_add(1);
        }
        let (word, bit) = position(number);
        if let Some(word) = self.words.get_mut(word) {
            *word |= bit;
        }
    }
}

/// Word and bit of `number` in the ring.
fn position(number: u64) -> (usize, u64) {
    let word = usize::try_from((number % RING_BITS) / 64).unwrap_or_default();
    (word, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_number_of_the_window_is_taken_once_and_the_one_before_never() {
        let mut window = ReplayWindow::new();
        window.mark(5000);
        assert_eq!(window.check(5000 - 2047), Verdict::Fresh);
        assert_eq!(window.check(5000 - 2048), Verdict::TooOld);
        window.mark(5000 - 2047);
        assert_eq!(window.check(5000 - 2047), Verdict::Replayed);
    }

    #[test]
    fn a_jump_over_the_whole_ring_forgets_every_bit() {
        let mut window = ReplayWindow::new();
        for number in 0..RING_BITS {
            window.mark(number);
        }
        window.mark(3_000_000);
        for number in 3_000_000 - 2047..3_000_000 {
            assert_eq!(window.check(number), Verdict::Fresh, "{number}");
        }
    }

    #[test]
    fn the_last_number_of_all_can_be_marked() {
        let mut window = ReplayWindow::new();
        window.mark(u64::MAX - 1);
        assert_eq!(window.check(u64::MAX - 1), Verdict::Replayed);
    }

    /// Steps that stay, go back, go on and jump, so that every branch of the window is met.
    fn numbers() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(
            prop_oneof![(-3000..3000_i64), (-10..10_i64), (0..200_i64), (2000..9000_i64)],
            1..300,
        )
        .prop_map(|steps| {
            let mut at = 4000_i64;
            steps
                .into_iter()
                .map(|step| {
                    at = (at + step).max(0);
                    at.unsigned_abs()
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_all_numbers(numbers in numbers()) {
            let mut window = ReplayWindow::new();
            let mut seen = BTreeSet::new();
            for number in numbers {
                let want = match seen.last() {
                    Some(highest) if number + REPLAY_WINDOW <= *highest => Verdict::TooOld,
                    _ if seen.contains(&number) => Verdict::Replayed,
                    _ => Verdict::Fresh,
                };
                prop_assert_eq!(window.check(number), want, "{}", number);
                if want == Verdict::Fresh {
                    window.mark(number);
                    seen.insert(number);
                }
                prop_assert_eq!(window.next_expected(), seen.last().map_or(0, |highest| highest + 1));
            }
        }
    }
}
