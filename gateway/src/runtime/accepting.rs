//! Which readings the journal takes, for shards that do not own it.

use std::sync::atomic::{AtomicBool, Ordering};

use fieldgate_proto::link::Class;

/// Whether each lane of the journal takes readings. Set by the trunk, read by the other shards.
#[derive(Debug)]
pub(crate) struct Accepting([AtomicBool; 3]);

impl Accepting {
    /// Makes one that says yes.
    pub(crate) const fn new() -> Self {
        Self([const { AtomicBool::new(true) }; 3])
    }

    /// Returns whether readings of `class` are taken.
    pub(crate) fn takes(&self, class: Class) -> bool {
        self.flag(class).load(Ordering::Relaxed)
    }

    /// Says whether readings of `class` are taken.
    pub(crate) fn set(&self, class: Class, accepting: bool) {
        self.flag(class).store(accepting, Ordering::Relaxed);
    }

    const fn flag(&self, class: Class) -> &AtomicBool {
        let [alarm, normal, bulk] = &self.0;
        match class {
            Class::Alarm => alarm,
            Class::Normal => normal,
            Class::Bulk => bulk,
        }
    }
}
