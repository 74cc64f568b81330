//! What a seed draws: bounds and policies of the lanes, who collects, and how often what happens.

use std::time::Duration;

use fieldgate_proto::{
    journal::{JournalSettings, WhenFull},
    link::Class,
};

use super::dice::Dice;

/// What one seed is about.
pub(super) struct Plan {
    pub(super) lanes: [JournalSettings; 3],
    /// Stable names of the uplinks.
    pub(super) uplinks: Vec<u64>,
    /// An uplink whose collector is away until the end.
    pub(super) absent: Option<usize>,
    pub(super) is_encrypted: bool,
    pub(super) steps: u64,
    /// A stop comes once in so many steps.
    pub(super) stop_one_in: u64,
    /// Trouble of any kind comes once in so many steps, never if 0.
    pub(super) trouble_one_in: u64,
    pub(super) has_rot: bool,
    /// The wall clock is stepped now and then.
    pub(super) clock_jumps: bool,
}

impl Plan {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let uplinks = 1 + dice.below(3);
        let lanes = Class::ALL.map(|lane| {
            let may_discard = match lane {
                Class::Alarm => false,
                Class::Normal => dice.one_in(3),
                Class::Bulk => !dice.one_in(4),
            };
            let may_expire = lane != Class::Alarm && dice.one_in(3);
            JournalSettings {
                bytes_max: (3 + dice.below(4)) * SEGMENT_BYTES,
                segment_bytes: SEGMENT_BYTES,
                tail_bytes_max: 8 << 10,
                pending_bytes_max: 12 << 10,
                ttl: may_expire.then(|| Duration::from_secs(20 + dice.below(80))),
                when_full: if may_discard {
                    WhenFull::DropOldest
                } else {
                    WhenFull::Refuse
                },
            }
        });
        Self {
            lanes,
            uplinks: (0..uplinks).map(|index| 100 + index).collect(),
            absent: dice.one_in(3).then(|| dice.index(3)),
            is_encrypted: dice.one_in(2),
            steps: 300 + dice.below(600),
            stop_one_in: 15 + dice.below(40),
            trouble_one_in: if dice.one_in(3) { 0 } else { 30 + dice.below(60) },
            has_rot: dice.one_in(4),
            clock_jumps: dice.one_in(3),
        }
    }
}

pub(super) const SEGMENT_BYTES: u64 = 32 << 10;
