//! A bounded table that forgets what was not used for the longest time.

use std::collections::BTreeMap;

/// The values used last, by the hash they are known by.
///
/// A look-up allocates nothing. Keys are hashes, so nobody can choose them to make the tree uneven or slow.
///
/// Invariant: `slots` and `places` have the same length; the slots form one ring through `newer` and `older`, and
/// `newest` is one of them unless the table is empty.
#[derive(Debug)]
pub(super) struct Recent<V> {
    capacity: usize,
    places: BTreeMap<[u8; 32], usize>,
    slots: Vec<Slot<V>>,
    newest: usize,
}

#[derive(Debug)]
struct Slot<V> {
    key: [u8; 32],
    value: V,
    newer: usize,
    older: usize,
}

impl<V> Recent<V> {
    /// Makes an empty table for at most `capacity` values (at least 1).
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            places: BTreeMap::new(),
            slots: Vec::new(),
            newest: 0,
        }
    }

    /// Returns the value known by `key`, which is now the one used last.
    pub(super) fn get(&mut self, key: &[u8; 32]) -> Option<&V> {
        let place = *self.places.get(key)?;
        if place != self.newest {
            self.unlink(place);
            self.link_newest(place);
        }
        self.slots.get(place).map(|slot| &slot.value)
    }

    /// Adds a value; returns whether another was forgotten for it.
    pub(super) fn insert(&mut self, key: [u8; 32], value: V) -> bool {
        if let Some(place) = self.places.get(&key).copied() {
            if let Some(slot) = self.slots.get_mut(place) {
                slot.value = value;
            }
            self.get(&key);
            return false;
        }
        let full = self.slots.len() >= self.capacity;
        let place = if full { self.oldest() } else { self.slots.len() };
        if full {
            if let Some(slot) = self.slots.get_mut(place) {
                self.places.remove(&slot.key);
                (slot.key, slot.value) = (key, value);
            }
            // The oldest stands next to the newest in the ring: it becomes the newest where it is.
            self.newest = place;
        } else {
            self.slots.push(Slot {
                key,
                value,
                newer: place,
                older: place,
            });
            self.link_newest(place);
        }
        self.places.insert(key, place);
        full
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.slots.clear();
        self.newest = 0;
    }

    /// Returns how many values there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the place of the value not used for the longest time: in the ring, the newer of the newest.
    fn oldest(&self) -> usize {
        self.slots.get(self.newest).map_or(0, |slot| slot.newer)
    }

    fn unlink(&mut self, place: usize) {
        let Some((newer, older)) = self.slots.get(place).map(|slot| (slot.newer, slot.older)) else {
            return;
        };
        if let Some(slot) = self.slots.get_mut(newer) {
            slot.older = older;
        }
        if let Some(slot) = self.slots.get_mut(older) {
            slot.newer = newer;
        }
    }

    /// Puts a slot that is not in the ring between the oldest and the newest, and makes it the newest.
    fn link_newest(&mut self, place: usize) {
        let (before, oldest) = (self.newest, self.oldest());
        if let Some(slot) = self.slots.get_mut(place) {
            (slot.newer, slot.older) = (oldest, before);
        }
        if let Some(slot) = self.slots.get_mut(oldest) {
            slot.older = place;
        }
        if let Some(slot) = self.slots.get_mut(before) {
            slot.newer = place;
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> [u8; 32] {
        [number; 32]
    }

    proptest! {
        /// Against a list with the value used last in front.
        #[test]
        fn forgets_what_was_not_used_for_the_longest_time(
            capacity in 1_usize..6,
            steps in prop::collection::vec((any::<bool>(), 0_u8..9), 0..200),
        ) {
            let mut recent = Recent::new(capacity);
            let mut model: Vec<(u8, usize)> = Vec::new();
            for (step, (insert, number)) in steps.into_iter().enumerate() {
                let known = model.iter().position(|(known, _)| *known == number);
                if insert {
                    let forgot = recent.insert(key(number), step);
                    if let Some(at) = known {
                        model.remove(at);
                    }
                    model.insert(0, (number, step));
                    prop_assert_eq!(forgot, model.len() > capacity);
                    model.truncate(capacity);
                } else {
                    let got = recent.get(&key(number)).copied();
                    prop_assert_eq!(got, known.map(|at| model[at].1));
                    if let Some(at) = known {
                        let entry = model.remove(at);
                        model.insert(0, entry);
                    }
                }
                prop_assert_eq!(recent.len(), model.len());
                prop_assert_eq!(recent.places.len(), model.len());
            }
            recent.clear();
            prop_assert_eq!(recent.len(), 0);
            prop_assert_eq!(recent.get(&key(0)), None);
            recent.insert(key(1), 1);
            prop_assert_eq!(recent.get(&key(1)), Some(&1));
        }
    }
}
