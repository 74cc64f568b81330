//! What time it is, as far as this node can tell: a machine that is told what the kernel says and never asks.
//!
//! The table of its rules stands in the documentation of the module above.

use std::collections::VecDeque;

use fieldgate_proto::time::{ClockQuality, WallTime};

/// What the kernel says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelTime {
    /// Milliseconds since boot, sleep included. It does not go back while the node runs.
    pub(crate) uptime_millis: u64,
    /// Its wall clock, milliseconds since 1970.
    pub(crate) unix_millis: u64,
    /// Whether it holds its wall clock for synchronised.
    pub(crate) synchronised: bool,
}

/// Times known to be past, milliseconds since 1970; what is kept on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floors {
    /// From the build, from uptime, from statements of the authority. Never lowered.
    pub(crate) sure_millis: u64,
    /// From a kernel that held its clock for synchronised as well. Lowered only by the authority.
    pub(crate) likely_millis: u64,
}

/// Where the time in use comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The kernel's clock, synchronised and plausible.
    Kernel,
    /// The authority's signed time, counted on by uptime.
    Authority,
    /// The kernel's clock, which nobody vouches for; it lies above the floor and not far above.
    KernelAlone,
    /// The last time that was vouched for in this run, counted on by uptime.
    Uptime,
    /// The floor kept on disk, counted on by uptime.
    Floor,
    /// The kernel's clock, with nothing to compare it with.
    Unchecked,
}

impl Source {
    /// Returns the words used in status.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel, synchronised",
            Self::Authority => "authority",
            Self::KernelAlone => "kernel, not synchronised",
            Self::Uptime => "last good time and uptime",
            Self::Floor => "floor and uptime",
            Self::Unchecked => "kernel, unchecked",
        }
    }
}

/// Why the kernel's clock is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distrust {
    /// It says a time that is past.
    BelowFloor,
    /// It is more than three years ahead of the last time known to be past.
    Implausible,
    /// It was set to another time while nobody vouched for it.
    Stepped,
    /// It differs from what the authority said.
    Contradicted,
}

/// What a log should tell of the clock. Each tells a change, not a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockEvent {
    /// The kernel's clock was set.
    Jumped {
        /// By how much, negative for back.
        by_millis: i64,
    },
    /// The kernel's clock is not used any more.
    Distrusted {
        /// Why.
        why: Distrust,
        /// What it says.
        kernel_millis: u64,
        /// What is used instead.
        used_millis: u64,
    },
    /// The kernel's clock is used again.
    Restored,
    /// The authority's time took back what a synchronised kernel had said.
    Corrected {
        /// The floor before.
        from_millis: u64,
        /// The floor now.
        to_millis: u64,
    },
    /// The authority said a time that is surely past; it was not taken.
    AuthorityBehind {
        /// What it said.
        told_millis: u64,
        /// The time it is at least.
        floor_millis: u64,
    },
}

/// The time in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    /// The time, and how far it can be believed.
    pub(crate) wall: WallTime,
    /// Where it comes from.
    pub(crate) source: Source,
    /// The time it is at least, milliseconds since 1970; 0 if nothing is known.
    pub(crate) floor_millis: u64,
    /// Why the kernel's clock is not used, if it is not.
    pub(crate) distrust: Option<Distrust>,
}

impl Judged {
    /// Returns the time to judge the end of validity with: the same where somebody vouches for it, else the floor, since a
    /// kernel's clock that nobody vouches for may be ahead.
    pub(crate) const fn bound(&self) -> WallTime {
        match self.wall.quality {
            ClockQuality::Synchronised | ClockQuality::Authority | ClockQuality::Unknown => self.wall,
            ClockQuality::Floor => WallTime {
                unix_millis: self.floor_millis,
                quality: ClockQuality::Floor,
            },
        }
    }
}

/// The clock of a node.
///
/// Invariant: `sure` and, but for [`ClockEvent::Corrected`], `likely` never decrease; every time given out as synchronised or
/// from the authority is at most `likely` at that moment.
#[derive(Debug)]
pub(crate) struct ClockState {
    sure: Anchor,
    likely: Anchor,
    /// Whether there is a floor at all.
    has_floor: bool,
    /// Whether somebody vouched for a time in this run, so that `likely` counts from there.
    is_vouched: bool,
    /// The authority's last signed time.
    authority: Option<Anchor>,
    last: KernelTime,
    distrust: Option<Distrust>,
    /// Uptime at which the floors were kept last; that of the start at first.
    kept_at: u64,
    /// Time between keeping the floors.
    keep_every: u64,
    events: VecDeque<ClockEvent>,
}

impl ClockState {
    /// Begins with what is known: when the program was built, and what an earlier run kept.
    pub(crate) fn new(first: KernelTime, built_millis: Option<u64>, kept: Option<Floors>) -> Self {
        let kept_floors = kept.unwrap_or_default();
        let sure = kept_floors.sure_millis.max(built_millis.unwrap_or(0));
        let anchor = |unix_millis| Anchor {
            unix_millis,
            uptime_millis: first.uptime_millis,
        };
        Self {
            sure: anchor(sure),
            likely: anchor(sure.max(kept_floors.likely_millis)),
            has_floor: sure.max(kept_floors.likely_millis) > 0,
            is_vouched: false,
            authority: None,
            last: first,
            distrust: None,
            kept_at: first.uptime_millis,
            keep_every: KEEP_FIRST_MILLIS,
            events: VecDeque::new(),
        }
    }

    /// Takes what the kernel says and returns the time in use.
    pub(crate) fn observe(&mut self, kernel: KernelTime) -> Judged {
        let kernel = KernelTime {
            uptime_millis: kernel.uptime_millis.max(self.last.uptime_millis),
            ..kernel
        };
        self.notice_jump(kernel);
        self.last = kernel;
        let judged = self.judge(kernel);
        if matches!(
            judged.wall.quality,
            ClockQuality::Synchronised | ClockQuality::Authority
        ) {
            self.likely.raise(judged.wall.unix_millis, kernel.uptime_millis);
            self.has_floor = true;
            self.is_vouched = true;
        }
        self.notice_distrust(kernel, &judged);
        Judged {
            floor_millis: if self.has_floor {
                self.floor(kernel.uptime_millis)
            } else {
                0
            },
            ..judged
        }
    }

    /// Takes the authority's signed time, as it is at `uptime_millis`. Call only with an answer to a question of this run: a
    /// repeated one would set the clock back.
    pub(crate) fn learn(&mut self, uptime_millis: u64, unix_millis: u64) {
        let uptime_millis = uptime_millis.max(self.last.uptime_millis);
        let sure = self.sure.least(uptime_millis);
        if self.has_floor && unix_millis.saturating_add(STEP_MAX_MILLIS) < sure {
            self.tell(ClockEvent::AuthorityBehind {
                told_millis: unix_millis,
                floor_millis: sure,
            });
            return;
        }
        let before = self.floor(uptime_millis);
        self.sure.raise(unix_millis, uptime_millis);
        if unix_millis.saturating_add(STEP_MAX_MILLIS) < before {
            // A kernel that called itself synchronised was ahead. Only who may say who belongs here may say so.
            self.likely = self.sure;
            self.keep_every = 0;
            let to_millis = self.floor(uptime_millis);
            self.tell(ClockEvent::Corrected {
                from_millis: before,
                to_millis,
            });
        }
        self.has_floor = true;
        self.authority = Some(Anchor {
            unix_millis,
            uptime_millis,
        });
    }

    /// Takes the time at which a verified statement of the authority was issued, which is past.
    pub(crate) fn note_statement_time(&mut self, unix_secs: u64) {
        let unix_millis = unix_secs.saturating_mul(1_000);
        self.sure.raise(unix_millis, self.last.uptime_millis);
        self.has_floor |= unix_millis > 0;
    }

    /// Returns the next event.
    pub(crate) fn poll_event(&mut self) -> Option<ClockEvent> {
        self.events.pop_front()
    }

    /// Returns the floors as they are now, to be kept; `None` if there is none.
    pub(crate) fn floors(&self) -> Option<Floors> {
        let uptime = self.last.uptime_millis;
        self.has_floor.then(|| Floors {
            sure_millis: self.sure.least(uptime),
            likely_millis: self.floor(uptime),
        })
    }

    /// Returns whether the floors should be kept now: five minutes after the start, then once an hour, and when the authority
    /// lowered one.
    pub(crate) const fn is_keeping_due(&self) -> bool {
        self.has_floor && self.last.uptime_millis.saturating_sub(self.kept_at) >= self.keep_every
    }

    /// Takes that keeping was tried.
    pub(crate) const fn handle_kept(&mut self) {
        self.kept_at = self.last.uptime_millis;
        self.keep_every = KEEP_EVERY_MILLIS;
    }

    fn floor(&self, uptime_millis: u64) -> u64 {
        self.sure
            .least(uptime_millis)
            .max(self.likely.least(uptime_millis))
    }

    fn judge(&self, kernel: KernelTime) -> Judged {
        let uptime = kernel.uptime_millis;
        let floor = self.floor(uptime);
        let is_past = self.has_floor && kernel.unix_millis.saturating_add(STEP_MAX_MILLIS) < floor;
        let is_far_ahead = self.has_floor && kernel.unix_millis > floor.saturating_add(AHEAD_MAX_MILLIS);
        let judged = |unix_millis, quality, source, distrust| Judged {
            wall: WallTime { unix_millis, quality },
            source,
            floor_millis: floor,
            distrust,
        };
        let by_kernel = |quality, source| judged(kernel.unix_millis, quality, source, None);
        if let Some(authority) = self.authority {
            if authority.is_near(kernel) && !is_past && kernel.synchronised {
                return by_kernel(ClockQuality::Synchronised, Source::Kernel);
            }
            // What was given out before is not taken back by more than a step.
            let told = authority
                .estimate(uptime)
                .max(floor.saturating_sub(STEP_MAX_MILLIS));
            let distrust = (!authority.is_near(kernel)).then_some(Distrust::Contradicted);
            return judged(told, ClockQuality::Authority, Source::Authority, distrust);
        }
        let by_floor = |why| {
            let source = if self.is_vouched {
                Source::Uptime
            } else {
                Source::Floor
            };
            let estimate = self.sure.estimate(uptime).max(self.likely.estimate(uptime));
            judged(estimate, ClockQuality::Floor, source, Some(why))
        };
        if !self.has_floor {
            return if kernel.synchronised {
                by_kernel(ClockQuality::Synchronised, Source::Kernel)
            } else {
                by_kernel(ClockQuality::Unknown, Source::Unchecked)
            };
        }
        if is_far_ahead {
            by_floor(Distrust::Implausible)
        } else if kernel.synchronised && !is_past {
            by_kernel(ClockQuality::Synchronised, Source::Kernel)
        } else if is_past || (!self.is_vouched && kernel.unix_millis < floor) {
            by_floor(Distrust::BelowFloor)
        } else if self.is_vouched && !self.likely.is_near(kernel) {
            by_floor(Distrust::Stepped)
        } else {
            let unix_millis = kernel.unix_millis.max(floor);
            judged(unix_millis, ClockQuality::Floor, Source::KernelAlone, None)
        }
    }

    fn notice_jump(&mut self, kernel: KernelTime) {
        let expected = Anchor {
            unix_millis: self.last.unix_millis,
            uptime_millis: self.last.uptime_millis,
        }
        .estimate(kernel.uptime_millis);
        if kernel.unix_millis.abs_diff(expected) < JUMP_MIN_MILLIS {
            return;
        }
        let signed = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
        self.tell(ClockEvent::Jumped {
            by_millis: signed(kernel.unix_millis).saturating_sub(signed(expected)),
        });
    }

    fn notice_distrust(&mut self, kernel: KernelTime, judged: &Judged) {
        if judged.distrust == self.distrust {
            return;
        }
        self.distrust = judged.distrust;
        let event = judged
            .distrust
            .map_or(ClockEvent::Restored, |why| ClockEvent::Distrusted {
                why,
                kernel_millis: kernel.unix_millis,
                used_millis: judged.wall.unix_millis,
            });
        self.tell(event);
    }

    fn tell(&mut self, event: ClockEvent) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }
}

/// A time and the uptime at which it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Anchor {
    unix_millis: u64,
    uptime_millis: u64,
}

impl Anchor {
    /// Returns what time it is now, if uptime counts exactly.
    const fn estimate(self, uptime_millis: u64) -> u64 {
        self.unix_millis.saturating_add(self.elapsed(uptime_millis))
    }

    /// Returns what time it is at least now: oscillators may be fast. Never decreases with uptime.
    const fn least(self, uptime_millis: u64) -> u64 {
        let elapsed = self.elapsed(uptime_millis);
        self.unix_millis.saturating_add(elapsed - elapsed / DRIFT)
    }

    const fn elapsed(self, uptime_millis: u64) -> u64 {
        uptime_millis.saturating_sub(self.uptime_millis)
    }

    /// Counts from `unix_millis` on, if that is later than what is known.
    fn raise(&mut self, unix_millis: u64, uptime_millis: u64) {
        if unix_millis > self.least(uptime_millis) {
            *self = Self {
                unix_millis,
                uptime_millis,
            };
        }
    }

    /// Returns whether the kernel's clock is within a step of the estimate, and what its oscillator may have made of it.
    const fn is_near(self, kernel: KernelTime) -> bool {
        let drift = self.elapsed(kernel.uptime_millis) / DRIFT;
        kernel.unix_millis.abs_diff(self.estimate(kernel.uptime_millis))
            <= STEP_MAX_MILLIS.saturating_add(drift)
    }
}

/// How far a clock may be set back, or two differ, before one of them is wrong: an hour, since more is what people make of
/// time zones.
const STEP_MAX_MILLIS: u64 = 3_600_000;
/// How far a kernel may be ahead of the floor: three years, longer than a spare lies on a shelf.
const AHEAD_MAX_MILLIS: u64 = 3 * 366 * 86_400_000;
/// A part in so many is what oscillators may be wrong by: ten times what cheap ones are over industrial temperatures.
const DRIFT: u64 = 1_000;
/// The least change of the kernel's clock that is worth a line in the log.
const JUMP_MIN_MILLIS: u64 = 10_000;
/// From the start until the floors are kept first: machines that lose power often get on nevertheless.
const KEEP_FIRST_MILLIS: u64 = 300_000;
/// Between two times the floors are kept, so that flash lasts.
const KEEP_EVERY_MILLIS: u64 = 3_600_000;
/// Events that wait for the log.
const EVENTS_MAX: usize = 16;

#[cfg(test)]
mod tests;
