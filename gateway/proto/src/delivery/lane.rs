//! Lanes: one journal per class, delivered side by side in one channel.

use std::ops::{Index, IndexMut};

use super::frame::JournalId;
use crate::link::Class;

/// One value for each lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerLane<T>(pub [T; 3]);

impl<T> PerLane<T> {
    /// Makes the values.
    pub fn from_fn(make: impl FnMut(Class) -> T) -> Self {
        Self(Class::ALL.map(make))
    }

    /// Returns the values with their lanes, the most urgent first.
    pub fn iter(&self) -> impl Iterator<Item = (Class, &T)> {
        Class::ALL.into_iter().zip(&self.0)
    }

    /// Returns the values with their lanes, the most urgent first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Class, &mut T)> {
        Class::ALL.into_iter().zip(&mut self.0)
    }

    /// Makes a value of each.
    pub fn map<U>(&self, mut make: impl FnMut(&T) -> U) -> PerLane<U> {
        PerLane::from_fn(|lane| make(&self[lane]))
    }
}

impl<T> Index<Class> for PerLane<T> {
    type Output = T;

    fn index(&self, lane: Class) -> &T {
        let [alarm, normal, bulk] = &self.0;
        match lane {
            Class::Alarm => alarm,
            Class::Normal => normal,
            Class::Bulk => bulk,
        }
    }
}

impl<T> IndexMut<Class> for PerLane<T> {
    fn index_mut(&mut self, lane: Class) -> &mut T {
        let [alarm, normal, bulk] = &mut self.0;
        match lane {
            Class::Alarm => alarm,
            Class::Normal => normal,
            Class::Bulk => bulk,
        }
    }
}

/// What a lane has when its uplink begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneSettings {
    /// Which journal.
    pub journal: JournalId,
    /// Where a collector begins that never had anything of it.
    pub first: u64,
    /// Newest sequence on stable storage, at least `first − 1`.
    pub available: u64,
    /// The highest sequence that the collector has ever confirmed, as far as is known; 0 if none.
    pub confirmed: u64,
}
