//! Until when a command may be handed over, judged by two clocks.
//!
//! A wall clock that nobody vouches for says nothing, so a command carries the time that is left as well, and whoever takes it
//! counts that down on its own monotonic clock. The monotonic clock of a node that was restarted says nothing about the time
//! before, and then only a wall clock or the other side's word can tell:
//!
//! | monotonic clock | wall clocks of both | what is left |
//! |---|---|---|
//! | counts since the other side's word | not both synchronised | what it says |
//! | counts since the other side's word | both synchronised | the smaller of the two |
//! | begun anew | both synchronised | what the wall clock says |
//! | begun anew | not both synchronised | unknown, but not more than when it was written down |

use std::time::Duration;

use super::{DEADLINE_MAX, frame::read_quality};
use crate::{
    time::{ClockQuality, Instant, Now},
    wire::{Reader, WireError},
};

/// A deadline as it is sent and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The collector's wall clock at the deadline, in milliseconds since 1970-01-01 UTC.
    pub unix_millis: u64,
    /// How far that clock could be believed when the deadline was set.
    pub quality: ClockQuality,
    /// Milliseconds left when this was written; at most [`DEADLINE_MAX`].
    pub remaining_ms: u32,
}

impl Carried {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let unix_millis = reader.u64("deadline")?;
        let quality = read_quality(reader)?;
        let remaining_ms = reader.u32("remaining time")?;
        Ok(Self {
            unix_millis,
            quality,
            remaining_ms,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.unix_millis.to_be_bytes());
        out.push(self.quality.code());
        out.extend_from_slice(&self.remaining_ms.to_be_bytes());
    }
}

/// What is left until a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// So much, and not nothing.
    Time(Duration),
    /// Nothing.
    Nothing,
    /// The clocks cannot tell.
    Unknown,
}

/// A deadline on this node's clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// The collector's wall clock at the deadline.
    pub(super) unix_millis: u64,
    quality: ClockQuality,
    /// When it has passed at the latest.
    pub(super) until: Instant,
    /// Whether `until` counts from the other side's word, or the submission, in this run.
    anchored: bool,
}

impl Deadline {
    /// Sets a deadline `remaining` from now.
    pub(super) fn after(now: Now, remaining: Duration) -> Self {
        let remaining = remaining.min(DEADLINE_MAX);
        Self {
            unix_millis: now.wall.unix_millis.saturating_add(millis(remaining).into()),
            quality: now.wall.quality,
            until: now.instant + remaining,
            anchored: true,
        }
    }

    /// Takes a deadline that came from the other side just now.
    pub(super) fn received(now: Now, carried: Carried) -> Self {
        Self {
            anchored: true,
            ..Self::restored(now, carried)
        }
    }

    /// Takes a deadline that an earlier run of this node has written down.
    pub(super) fn restored(now: Now, carried: Carried) -> Self {
        Self {
            unix_millis: carried.unix_millis,
            quality: carried.quality,
            until: now.instant + remaining(carried.remaining_ms),
            anchored: false,
        }
    }

    /// Takes the other side's word for what is left. A clock that was counting already goes on, since the word took its time.
    pub(super) fn heard(&mut self, now: Now, remaining_ms: u32) {
        if !self.anchored {
            self.anchored = true;
            self.until = self.until.min(now.instant + remaining(remaining_ms));
        }
    }

    /// Says what is left.
    pub(super) fn left(&self, now: Now) -> Left {
        let counted = self.until.saturating_since(now.instant);
        if counted.is_zero() {
            return Left::Nothing;
        }
        if is_good(self.quality) && is_good(now.wall.quality) {
            let by_wall = Duration::from_millis(self.unix_millis.saturating_sub(now.wall.unix_millis));
            return match by_wall.min(counted) {
                Duration::ZERO => Left::Nothing,
                left => Left::Time(left),
            };
        }
        if self.anchored {
            Left::Time(counted)
        } else {
            Left::Unknown
        }
    }

    /// Returns when the deadline has to be looked at again.
    pub(super) fn look_at(&self, now: Now) -> Instant {
        match self.left(now) {
            Left::Time(left) => now.instant + left,
            Left::Nothing => now.instant,
            Left::Unknown => self.until.min(now.instant + CLOCK_LOOK),
        }
    }

    /// Returns the form that is sent and kept.
    pub(super) fn carried(&self, now: Now) -> Carried {
        let left = match self.left(now) {
            Left::Time(left) => left,
            Left::Nothing => Duration::ZERO,
            Left::Unknown => self.until.saturating_since(now.instant),
        };
        Carried {
            unix_millis: self.unix_millis,
            quality: self.quality,
            remaining_ms: millis(left),
        }
    }
}

fn remaining(millis: u32) -> Duration {
    Duration::from_millis(u64::from(millis)).min(DEADLINE_MAX)
}

/// Rounds up, so that what is left is never called nothing.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

const fn is_good(quality: ClockQuality) -> bool {
    match quality {
        ClockQuality::Unknown | ClockQuality::Floor => false,
        ClockQuality::Authority | ClockQuality::Synchronised => true,
    }
}

/// How often it is looked whether a clock has become good.
const CLOCK_LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WallTime;

    fn at(secs: u64, wall_secs: u64, quality: ClockQuality) -> Now {
        Now {
            instant: Instant::START + Duration::from_secs(secs),
            wall: WallTime {
                unix_millis: wall_secs * 1000,
                quality,
            },
        }
    }

    const fn carried(secs: u64, quality: ClockQuality, remaining_ms: u32) -> Carried {
        Carried {
            unix_millis: secs * 1000,
            quality,
            remaining_ms,
        }
    }

    #[test]
    fn counts_on_its_own_clock_where_nobody_vouches_for_the_wall() {
        let sent = carried(1_000_030, ClockQuality::Synchronised, 30_000);
        let deadline = Deadline::received(at(5, 0, ClockQuality::Unknown), sent);
        let left = |secs| deadline.left(at(secs, 5_000_000, ClockQuality::Floor));
        assert_eq!(left(34), Left::Time(Duration::from_secs(1)));
        assert_eq!(left(35), Left::Nothing);
    }

    #[test]
    fn good_wall_clocks_take_off_what_the_way_took() {
        let sent = carried(1_000_030, ClockQuality::Synchronised, 30_000);
        let now = at(5, 1_000_020, ClockQuality::Authority);
        let deadline = Deadline::received(now, sent);
        assert_eq!(deadline.left(now), Left::Time(Duration::from_secs(10)));
        assert_eq!(deadline.look_at(now), Instant::START + Duration::from_secs(15));
    }

    #[test]
    fn a_wall_clock_that_is_set_back_wins_no_time() {
        let deadline = Deadline::after(
            at(0, 1_000_000, ClockQuality::Synchronised),
            Duration::from_secs(10),
        );
        assert_eq!(
            deadline.left(at(10, 999_000, ClockQuality::Synchronised)),
            Left::Nothing
        );
    }

    #[test]
    fn after_a_restart_only_a_good_clock_or_the_other_side_can_tell() {
        let kept = carried(1_000_030, ClockQuality::Synchronised, 30_000);
        let mut deadline = Deadline::restored(at(0, 0, ClockQuality::Unknown), kept);
        assert_eq!(deadline.left(at(1, 0, ClockQuality::Unknown)), Left::Unknown);
        assert_eq!(
            deadline.left(at(1, 1_000_025, ClockQuality::Synchronised)),
            Left::Time(Duration::from_secs(5))
        );
        assert_eq!(deadline.left(at(30, 0, ClockQuality::Unknown)), Left::Nothing);
        deadline.heard(at(1, 0, ClockQuality::Unknown), 4_000);
        assert_eq!(
            deadline.left(at(2, 0, ClockQuality::Unknown)),
            Left::Time(Duration::from_secs(3))
        );
    }

    #[test]
    fn no_deadline_is_further_away_than_the_limit() {
        let now = at(0, 0, ClockQuality::Unknown);
        let far = carried(0, ClockQuality::Unknown, u32::MAX);
        assert_eq!(Deadline::received(now, far).left(now), Left::Time(DEADLINE_MAX));
    }
}
