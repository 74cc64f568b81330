use crate::connection::ConnectionId;

/// The connections, or the datagram sockets, of a shard, in slots that are used again under a new generation.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    max: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Option<Box<T>>,
}

impl<T> Table<T> {
    pub(crate) const fn new(max: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is room for another.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < self.max as usize
    }

    /// Puts an entry in, or drops it when the table is full.
    pub(crate) fn insert(&mut self, entry: T) -> Option<ConnectionId> {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.entry = Some(Box::new(entry));
            return Some(ConnectionId {
                index,
                generation: slot.generation,
            });
        }
        match u32::try_from(self.slots.len()) {
            Ok(index) if index < self.max => {
                self.slots.push(Slot {
                    generation: 0,
                    entry: Some(Box::new(entry)),
                });
                Some(ConnectionId { index, generation: 0 })
            }
            Ok(_) | Err(_) => None,
        }
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation {
            slot.entry.as_deref()
        } else {
            None
        }
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation {
            slot.entry.as_deref_mut()
        } else {
            None
        }
    }

    /// Takes an entry out; its name is stale from now on.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Box<T>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let entry = slot.entry.take()?;
        // 31 bits: the topmost belongs to the backends, which put names into 64 bits together with other things.
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(id.index);
        Some(entry)
    }

    /// Names of all entries, in order of their slots.
    pub(crate) fn ids(&self) -> Vec<ConnectionId> {
        (0_u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.entry.is_some())
            .map(|(index, slot)| ConnectionId {
                index,
                generation: slot.generation,
            })
            .collect()
    }
}

/// Generations wrap after this many uses of one slot.
const GENERATION_MASK: u32 = 0x7fff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_dies_with_its_entry() {
        let mut table = Table::new(1);
        let first = table.insert('a').expect("room for one");
        assert!(table.insert('b').is_none());
        assert!(!table.has_room());
        assert_eq!(table.remove(first).as_deref(), Some(&'a'));
        assert!(table.remove(first).is_none());
        let second = table.insert('c').expect("room again");
        assert_eq!(first.index, second.index);
        assert!(table.get(first).is_none());
        assert_eq!(table.get_mut(second), Some(&mut 'c'));
        assert_eq!((table.len(), table.ids()), (1, vec![second]));
    }
}
