//! Where a node keeps its channels: found by number in constant time, woken by deadline.

use std::{collections::BTreeSet, ops::Range};

use super::{ChannelId, PathId, established::Established, handshake};
use crate::{channel::ChannelError, entropy::Entropy, time::Instant};

/// A handshake this node began.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) handshake: Box<handshake::Initiator>,
    pub(super) path: PathId,
    /// How often message 1 was sent.
    pub(super) sent: u8,
    pub(super) deadline: Instant,
    /// Why the last answer was refused.
    pub(super) refusal: Option<ChannelError>,
}

/// A handshake another node began.
#[derive(Debug)]
pub(super) struct HalfOpen {
    pub(super) handshake: Box<handshake::Responder>,
    pub(super) path: PathId,
    /// Hash of message 1.
    pub(super) digest: [u8; 32],
    /// How often message 2 was sent on our own account.
    pub(super) sent: u8,
    pub(super) deadline: Instant,
    /// When it is dropped.
    pub(super) expires: Instant,
}

/// What is behind a channel's number.
#[derive(Debug)]
pub(super) enum State {
    /// Nothing, or taken out for a moment.
    Free,
    Connecting(Box<Connecting>),
    HalfOpen(Box<HalfOpen>),
    Open(Box<Established>),
}

impl State {
    /// Returns when it wants to be woken.
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Free => None,
            Self::Connecting(connecting) => Some(connecting.deadline),
            Self::HalfOpen(half_open) => Some(half_open.deadline),
            Self::Open(channel) => channel.deadline(),
        }
    }
}

#[derive(Debug)]
struct Slot {
    /// The whole number; its upper half is drawn anew for each use.
    id: ChannelId,
    used: bool,
    armed: Option<Instant>,
    state: State,
}

/// All channels of a node.
///
/// Invariant: `timers` holds `(armed, id)` of exactly the slots that are armed.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u16>,
    timers: BTreeSet<(Instant, ChannelId)>,
    max: usize,
}

impl Table {
    /// Makes an empty table for at most `max` channels, and at most 65,536.
    pub(super) fn new(max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            timers: BTreeSet::new(),
            max: max.min(super::CHANNELS_MAX),
        }
    }

    /// Takes a free number.
    pub(super) fn reserve(&mut self, entropy: &mut dyn Entropy) -> Result<ChannelId, ChannelError> {
        let full = ChannelError::Full {
            table: "channels",
            max: self.max,
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.max => u16::try_from(self.slots.len()).map_err(|_| full)?,
            None => return Err(full),
        };
        let id = ChannelId::from_wire(entropy.u32() << 16 | u32::from(index));
        let slot = Slot {
            id,
            used: true,
            armed: None,
            state: State::Free,
        };
        match self.slots.get_mut(usize::from(index)) {
            Some(before) => *before = slot,
            None => self.slots.push(slot),
        }
        Ok(id)
    }

    fn slot(&self, id: ChannelId) -> Option<&Slot> {
        self.slots
            .get(index(id))
            .filter(|slot| slot.used && slot.id == id)
    }

    fn slot_mut(&mut self, id: ChannelId) -> Option<&mut Slot> {
        self.slots
            .get_mut(index(id))
            .filter(|slot| slot.used && slot.id == id)
    }

    /// Returns what is behind `id`.
    pub(super) fn state(&self, id: ChannelId) -> &State {
        self.slot(id).map_or(&State::Free, |slot| &slot.state)
    }

    /// Returns the established channel `id`.
    pub(super) fn open(&self, id: ChannelId) -> Result<&Established, ChannelError> {
        match self.slot(id) {
            Some(Slot {
                state: State::Open(channel),
                ..
            }) => Ok(channel),
            _ => Err(ChannelError::Channel(id)),
        }
    }

    /// Returns the established channel `id`, to be changed. Call [`Table::rearm`] if its deadline may move.
    pub(super) fn open_mut(&mut self, id: ChannelId) -> Result<&mut Established, ChannelError> {
        match self.slot_mut(id) {
            Some(Slot {
                state: State::Open(channel),
                ..
            }) => Ok(channel),
            _ => Err(ChannelError::Channel(id)),
        }
    }

    /// Takes out what is behind `id`; the number stays taken until [`Table::remove`].
    pub(super) fn take(&mut self, id: ChannelId) -> State {
        self.slot_mut(id).map_or(State::Free, |slot| {
            std::mem::replace(&mut slot.state, State::Free)
        })
    }

    /// Puts `state` behind `id` and sets its timer.
    pub(super) fn put(&mut self, id: ChannelId, state: State) {
        if let Some(slot) = self.slot_mut(id) {
            slot.state = state;
        }
        self.rearm(id);
    }

    /// Sets the timer of `id` to its deadline.
    pub(super) fn rearm(&mut self, id: ChannelId) {
        let Some(slot) = self.slot_mut(id) else { return };
        let (before, after) = (slot.armed, slot.state.deadline());
        if before == after {
            return;
        }
        slot.armed = after;
        if let Some(at) = before {
            self.timers.remove(&(at, id));
        }
        if let Some(at) = after {
            self.timers.insert((at, id));
        }
    }

    /// Forgets `id` and returns what was behind it.
    pub(super) fn remove(&mut self, id: ChannelId) -> State {
        let Some(slot) = self.slot_mut(id) else {
            return State::Free;
        };
        slot.used = false;
        let armed = slot.armed.take();
        let state = std::mem::replace(&mut slot.state, State::Free);
        if let Some(at) = armed {
            self.timers.remove(&(at, id));
        }
        self.free.extend(u16::try_from(index(id)));
        state
    }

    /// Returns the earliest deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns a channel whose deadline has passed, and stops its timer.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<ChannelId> {
        let (at, id) = *self.timers.first()?;
        if at > now {
            return None;
        }
        self.timers.pop_first();
        if let Some(slot) = self.slot_mut(id) {
            slot.armed = None;
        }
        Some(id)
    }

    /// Returns how many places there are, free ones included.
    pub(super) const fn places(&self) -> usize {
        self.slots.len()
    }

    /// Returns the established channels at these places, as far as there are such.
    pub(super) fn open_at(&self, places: Range<usize>) -> Vec<ChannelId> {
        let places = places.start.min(self.slots.len())..places.end.min(self.slots.len());
        let open = self.slots.get(places).unwrap_or_default().iter();
        open.filter(|slot| matches!(slot.state, State::Open(_)))
            .map(|slot| slot.id)
            .collect()
    }

    /// Iterates over the established channels.
    pub(super) fn iter_open(&self) -> impl Iterator<Item = (ChannelId, &Established)> {
        self.slots.iter().filter_map(|slot| match &slot.state {
            State::Open(channel) => Some((slot.id, channel.as_ref())),
            State::Free | State::Connecting(_) | State::HalfOpen(_) => None,
        })
    }
}

fn index(id: ChannelId) -> usize {
    usize::from(u16::try_from(id.to_wire() & 0xffff).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::Seeded;

    #[test]
    fn a_number_is_not_used_twice_in_a_row_though_its_place_is() {
        let mut entropy = Seeded::new(1);
        let mut table = Table::new(1);
        let first = table.reserve(&mut entropy).expect("there is room");
        assert_eq!(
            table.reserve(&mut entropy),
            Err(ChannelError::Full {
                table: "channels",
                max: 1
            })
        );
        table.remove(first);
        table.remove(first);
        let second = table.reserve(&mut entropy).expect("there is room again");
        assert_eq!(index(first), index(second));
        assert_ne!(first, second);
        table.remove(first);
        assert!(
            table.reserve(&mut entropy).is_err(),
            "an old number must not free the new one"
        );
    }
}
