//! A table whose keys go stale: an index and a generation, so that an old key never reaches a new entry.

/// Entries in slots; a slot's generation changes whenever its entry leaves.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// Generation of a slot used for the first time.
    first_generation: u32,
    /// Generations wrap to 1 behind it.
    generation_max: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Where an entry is. Generations start at 1, so no key is all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl<T> Slab<T> {
    /// Makes an empty table whose generations are `1..=generation_max` and start at `first_generation`.
    pub(super) const fn new(first_generation: u32, generation_max: u32) -> Self {
        let first_generation = if first_generation == 0 {
            1
        } else {
            first_generation
        };
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            first_generation,
            generation_max,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts in an entry and returns its key; the caller has checked its own limit on [`Slab::len`].
    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return Key {
                index,
                generation: slot.generation,
            };
        }
        let index = u32::try_from(self.slots.len()).expect("limits of the callers lie far below 2^32");
        let generation = self.first_generation;
        self.slots.push(Slot {
            generation,
            value: Some(value),
        });
        Key { index, generation }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.slots
            .get(key.index as usize)
            .filter(|slot| slot.generation == key.generation)?
            .value
            .as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slots
            .get_mut(key.index as usize)
            .filter(|slot| slot.generation == key.generation)?
            .value
            .as_mut()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self
            .slots
            .get_mut(key.index as usize)
            .filter(|slot| slot.generation == key.generation)?;
        let value = slot.value.take()?;
        slot.generation = if slot.generation >= self.generation_max {
            1
        } else {
            slot.generation + 1
        };
        self.free.push(key.index);
        Some(value)
    }

    /// Returns all entries by index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let index = u32::try_from(index).ok()?;
            Some((
                Key {
                    index,
                    generation: slot.generation,
                },
                slot.value.as_ref()?,
            ))
        })
    }

    /// Returns all entries by index.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            let index = u32::try_from(index).ok()?;
            Some((
                Key {
                    index,
                    generation: slot.generation,
                },
                slot.value.as_mut()?,
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_does_not_reach_a_new_entry() {
        let mut slab = Slab::new(7, 8);
        let first = slab.insert("a");
        assert_eq!(slab.remove(first), Some("a"));
        assert_eq!(slab.remove(first), None);
        let second = slab.insert("b");
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut "b"));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn generations_wrap_and_leave_out_zero() {
        let mut slab = Slab::new(0, 2);
        let generations: Vec<u32> = (0..4)
            .map(|_| {
                let key = slab.insert(());
                slab.remove(key);
                key.generation
            })
            .collect();
        assert_eq!(generations, [1, 2, 1, 2]);
    }
}
