//! Which lane goes next.

use super::lane::PerLane;
use crate::link::Class;

/// What the lanes below alarms are sure of while others are sent.
///
/// Alarms go first, then normal readings, then bulk. A lane that waits is owed a part of what the others send meanwhile; once
/// that is a record, it goes before them. So a flood of alarms or a backlog of normal readings starves nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Of what is sent while normal readings wait, one byte in so many is theirs; at least 2.
    pub normal_one_in: u64,
    /// The same for bulk.
    pub bulk_one_in: u64,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            normal_one_in: 8,
            bulk_one_in: 16,
        }
    }
}

/// What each lane is owed, in bytes.
///
/// A debt is called in from those who ran it up: bulk that is owed something by normal readings goes before these, and not before an
/// alarm. So a single alarm among a backlog waits for nobody.
///
/// Invariant: a lane that does not wait is owed nothing, and none is ever owed more than [`OWED_MAX`] twice.
#[derive(Debug)]
pub(super) struct Schedule {
    shares: Shares,
    /// What a lane may go before an alarm for.
    by_alarms: PerLane<u64>,
    /// What bulk may go before normal readings for.
    bulk_by_normal: u64,
}

impl Schedule {
    pub(super) fn new(shares: Shares) -> Self {
        Self {
            shares,
            by_alarms: PerLane::default(),
            bulk_by_normal: 0,
        }
    }

    /// Returns the lane that goes next of those that wait.
    pub(super) fn pick(&self, waiting: &PerLane<bool>) -> Option<Class> {
        let lane = Class::ALL
            .into_iter()
            .find(|lane| waiting[*lane] && self.is_owed_by_alarms(*lane))
            .or_else(|| Class::ALL.into_iter().find(|lane| waiting[*lane]))?;
        let bulk_is_due = waiting[Class::Bulk] && self.bulk_by_normal >= OWED_MIN;
        Some(if lane == Class::Normal && bulk_is_due {
            Class::Bulk
        } else {
            lane
        })
    }

    /// Returns whether a lane may go before an alarm.
    pub(super) fn is_owed_by_alarms(&self, lane: Class) -> bool {
        self.by_alarms[lane] >= OWED_MIN
    }

    /// Notes `bytes` bytes of `lane`, and which lanes waited meanwhile.
    pub(super) fn handle_sent(&mut self, lane: Class, bytes: usize, waiting: &PerLane<bool>) {
        let bytes = bytes as u64;
        for other in Class::ALL {
            if other == lane {
                self.pay(lane, bytes);
            } else if waiting[other] {
                let part = self.part(other, bytes);
                let owed = if (other, lane) == (Class::Bulk, Class::Normal) {
                    &mut self.bulk_by_normal
                } else {
                    &mut self.by_alarms[other]
                };
                *owed = (*owed + part).min(OWED_MAX);
            } else {
                self.pay(other, u64::MAX);
            }
        }
    }

    fn pay(&mut self, lane: Class, bytes: u64) {
        let rest = bytes.saturating_sub(self.by_alarms[lane]);
        self.by_alarms[lane] = self.by_alarms[lane].saturating_sub(bytes);
        if lane == Class::Bulk {
            self.bulk_by_normal = self.bulk_by_normal.saturating_sub(rest);
        }
    }

    /// Returns what `lane` is owed for `bytes` bytes of others: of n bytes in all, n − 1 are theirs for one of its own.
    fn part(&self, lane: Class, bytes: u64) -> u64 {
        let one_in = match lane {
            Class::Alarm => return 0,
            Class::Normal => self.shares.normal_one_in,
            Class::Bulk => self.shares.bulk_one_in,
        };
        bytes.div_ceil(one_in.saturating_sub(1).max(1))
    }
}

/// A record: what is owed is paid in whole ones, so that many small alarms pass in a row.
const OWED_MIN: u64 = 64 << 10;
/// What a lane can save up, lest it hold back alarms for long afterwards.
const OWED_MAX: u64 = 2 * OWED_MIN;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: PerLane<bool> = PerLane([true; 3]);

    #[test]
    fn an_alarm_passes_whatever_waits() {
        let schedule = Schedule::new(Shares::default());
        assert_eq!(schedule.pick(&ALL), Some(Class::Alarm));
        assert_eq!(schedule.pick(&PerLane([false, true, true])), Some(Class::Normal));
        assert_eq!(schedule.pick(&PerLane([false, false, true])), Some(Class::Bulk));
        assert_eq!(schedule.pick(&PerLane([false; 3])), None);
    }

    #[test]
    fn single_alarms_among_a_backlog_are_never_held_back() {
        let mut schedule = Schedule::new(Shares::default());
        for _ in 0..10_000 {
            assert_eq!(schedule.pick(&ALL), Some(Class::Alarm));
            schedule.handle_sent(Class::Alarm, 120, &ALL);
            // No further alarm for a while: the others get everything, and what they were owed with it.
            for _ in 0..4 {
                let waiting = PerLane([false, true, true]);
                let lane = schedule.pick(&waiting).unwrap();
                schedule.handle_sent(lane, 64 << 10, &waiting);
            }
        }
    }

    #[test]
    fn what_was_owed_is_forgotten_when_a_lane_runs_empty() {
        let mut schedule = Schedule::new(Shares::default());
        schedule.handle_sent(Class::Alarm, 64 << 20, &ALL);
        assert_eq!(schedule.pick(&ALL), Some(Class::Normal));
        schedule.handle_sent(Class::Alarm, 100, &PerLane([true, false, false]));
        assert_eq!(schedule.pick(&ALL), Some(Class::Alarm));
    }

    proptest! {
        #[test]
        fn lanes_that_wait_get_their_shares(sizes in prop::collection::vec(1..65_536_usize, 2_000..3_000)) {
            let mut schedule = Schedule::new(Shares::default());
            let mut sent = PerLane::<u64>::default();
            for size in sizes {
                let lane = schedule.pick(&ALL).unwrap();
                schedule.handle_sent(lane, size, &ALL);
                sent[lane] += size as u64;
            }
            let all: u64 = sent.0.iter().sum();
            // But for what is owed at the end.
            prop_assert!(sent[Class::Normal] + OWED_MAX >= all / 8, "{:?}", sent);
            prop_assert!(sent[Class::Bulk] + 2 * OWED_MAX >= all / 16, "{:?}", sent);
            prop_assert!(sent[Class::Alarm] >= all * 3 / 4, "{:?}", sent);
        }
    }
}
