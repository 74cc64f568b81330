//! What time it is: the kernel's clock where it can be believed, else what is known without it.
//!
//! Gateways have no battery behind their clock, or a flat one, and no time server; and validity still has to be judged. So a
//! node keeps a *floor*, a time that is surely past, on its disk, and lets nobody but a synchronised kernel and its authority
//! move the clock far from it.
//!
//! | what is known | time in use | quality |
//! |---|---|---|
//! | kernel synchronised, not more than 1 h below the floor nor 3 years above | kernel | synchronised |
//! | authority's signed time in this run, and a synchronised kernel within 1 h of it | kernel | synchronised |
//! | authority's signed time in this run, otherwise | that, counted on by uptime | authority |
//! | kernel not synchronised, between the floor and 3 years above | kernel | floor |
//! | the same, but it was set since the last good time of this run | last good time, counted on by uptime | floor |
//! | everything else: below the floor, more than 3 years above | floor, counted on by uptime | floor |
//! | no floor at all, kernel not synchronised | kernel | unknown |
//!
//! - The floor is raised by uptime (less a thousandth, for oscillators that are fast), by verified statements of the authority,
//!   and by a kernel's clock in the first two rows; never by one that nobody vouches for. It begins with the time of the build.
//! - It never sinks, with one exception: a signed, fresh time of the authority takes back what a synchronised kernel said, as a
//!   time server that is wrong must not lock a node out for years. It takes back neither the build's nor its own times.
//! - So a time given out as synchronised or from the authority is followed by none of these qualities that is more than an hour
//!   earlier, but for that exception.
//! - The floor is on disk five minutes after the start, then once an hour, and at the end. A file that is damaged or cannot be
//!   written costs what it knew, not the start.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use fieldgate_proto::time::{ClockQuality, Instant, Now, WallTime};
use serde::{Deserialize, Serialize};

mod floor;
mod state;

use floor::FloorError;
use state::{ClockEvent, ClockState, Distrust, Judged, KernelTime};

/// The clock of a node. Copies are the same clock; reading one costs an atomic load.
#[derive(Clone)]
pub(crate) struct Clock {
    shared: Arc<Shared>,
}

struct Shared {
    /// Time in use, packed by [`pack`].
    wall: AtomicI64,
    /// Time for judging ends, packed by [`pack`].
    bound: AtomicI64,
    inner: Mutex<Inner>,
    /// Where the floors are kept; nowhere for a clock that only looks.
    state_dir: Option<PathBuf>,
    /// Held while the file is written, so that two do not write it at a time. Never together with `inner`.
    keeping: Mutex<()>,
}

struct Inner {
    state: ClockState,
    judged: Judged,
    kernel_millis: u64,
    /// Why the floors could not be read or kept, while that is so.
    file_problem: Option<String>,
}

/// What status and metrics show of the clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClockStatus {
    /// `synchronised`, `authority`, `floor` or `unknown`.
    pub(crate) quality: String,
    /// Where the time comes from, in words.
    pub(crate) source: String,
    /// The time in use, milliseconds since 1970.
    pub(crate) unix_millis: u64,
    /// The time it is at least, milliseconds since 1970.
    pub(crate) floor_millis: u64,
    /// Time in use less the kernel's, milliseconds.
    pub(crate) offset_millis: i64,
    /// Why the kernel's clock is not used, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) distrust: Option<String>,
    /// Why the floor is not on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_problem: Option<String>,
}

impl Clock {
    /// Opens the clock of a node with the floor kept in `state_dir`, and logs what is wrong with it.
    pub(crate) fn open(state_dir: &Path) -> Self {
        Self::new(floor::read(state_dir), Some(state_dir.to_owned()), kernel())
    }

    /// Opens a clock that takes the floor kept in `state_dir` and keeps none, for commands beside the node.
    pub(crate) fn look(state_dir: &Path) -> Self {
        Self::new(floor::read(state_dir), None, kernel())
    }

    /// Opens a clock that knows the time of the build only.
    pub(crate) fn bare() -> Self {
        Self::new(Err(FloorError::Missing), None, kernel())
    }

    fn new(kept: Result<state::Floors, FloorError>, state_dir: Option<PathBuf>, first: KernelTime) -> Self {
        let file_problem = match &kept {
            Ok(_) | Err(FloorError::Missing) => None,
            Err(error @ (FloorError::Unreadable(_) | FloorError::Damaged)) => {
                tracing::warn!(%error, "clock begins with the time of the build");
                Some(error.to_string())
            }
        };
        let mut state = ClockState::new(first, Some(BUILT_SECS * 1_000), kept.ok());
        let judged = state.observe(first);
        let clock = Self {
            shared: Arc::new(Shared {
                wall: AtomicI64::new(0),
                bound: AtomicI64::new(0),
                inner: Mutex::new(Inner {
                    state,
                    judged,
                    kernel_millis: first.unix_millis,
                    file_problem,
                }),
                state_dir,
                keeping: Mutex::new(()),
            }),
        };
        clock.publish(&judged, fieldgate_io::clock::monotonic());
        clock
    }

    /// Returns the time now.
    pub(crate) fn wall(&self) -> WallTime {
        self.at(fieldgate_io::clock::monotonic())
    }

    /// Returns the time at `monotonic` ([`fieldgate_io::clock::monotonic`]), of this second or so.
    pub(crate) fn at(&self, monotonic: u64) -> WallTime {
        unpack(self.shared.wall.load(Ordering::Relaxed), monotonic)
    }

    /// Returns the time to judge ends of validity with at `monotonic`: where nobody vouches for the kernel's clock this is
    /// the floor, and not a clock that may be ahead and lock everybody out.
    pub(crate) fn bound_at(&self, monotonic: u64) -> WallTime {
        unpack(self.shared.bound.load(Ordering::Relaxed), monotonic)
    }

    /// Takes the authority's signed time, as it is now. Call only with an answer to a question of this run whose signature
    /// was verified: whoever can call it sets the clock.
    pub(crate) fn learn(&self, unix_millis: u64) {
        let kernel = kernel();
        let mut inner = self.inner();
        inner.state.learn(kernel.uptime_millis, unix_millis);
        self.observe(&mut inner, kernel, fieldgate_io::clock::monotonic());
    }

    /// Takes the time at which a statement of the authority was issued, seconds since 1970. Call only after it was verified.
    pub(crate) fn note_statement_time(&self, unix_secs: u64) {
        self.inner().state.note_statement_time(unix_secs);
    }

    /// Looks at the kernel's clock, and keeps the floors if it is time. Call about once a second; writing may block.
    pub(crate) fn tick(&self) {
        self.tick_at(kernel(), fieldgate_io::clock::monotonic());
    }

    fn tick_at(&self, kernel: KernelTime, monotonic: u64) {
        let is_due = {
            let mut inner = self.inner();
            self.observe(&mut inner, kernel, monotonic);
            inner.state.is_keeping_due()
        };
        if is_due {
            self.keep();
        }
    }

    /// Ticks once a second until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(TICK).await;
            let clock = self.clone();
            // The disk may be slow; the next tick waits for it, the rest of the thread does not.
            if tokio::task::spawn_blocking(move || clock.tick()).await.is_err() {
                return;
            }
        }
    }

    /// Keeps the floors. Call it when the node ends in an orderly way.
    pub(crate) fn keep(&self) {
        let Some(state_dir) = &self.shared.state_dir else {
            return;
        };
        let _guard = self.shared.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let floors = {
            let mut inner = self.inner();
            inner.state.handle_kept();
            inner.state.floors()
        };
        let Some(floors) = floors else { return };
        let result = floor::keep(state_dir, floors);
        self.note_kept(&result);
    }

    fn note_kept(&self, result: &io::Result<()>) {
        let problem = result.as_ref().err().map(ToString::to_string);
        let mut inner = self.inner();
        if inner.file_problem.is_some() != problem.is_some() {
            match &problem {
                Some(error) => tracing::warn!(error, "floor of the clock cannot be kept"),
                None => tracing::info!("floor of the clock is kept again"),
            }
        }
        inner.file_problem = problem;
    }

    /// Returns what status shows.
    pub(crate) fn status(&self) -> ClockStatus {
        let inner = self.inner();
        let judged = &inner.judged;
        let millis = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        ClockStatus {
            quality: quality_name(judged.wall.quality).to_owned(),
            source: judged.source.as_str().to_owned(),
            unix_millis: judged.wall.unix_millis,
            floor_millis: judged.floor_millis,
            offset_millis: millis(judged.wall.unix_millis).saturating_sub(millis(inner.kernel_millis)),
            distrust: judged.distrust.map(|why| distrust_words(why).to_owned()),
            file_problem: inner.file_problem.clone(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observe(&self, inner: &mut Inner, kernel: KernelTime, monotonic: u64) {
        inner.judged = inner.state.observe(kernel);
        inner.kernel_millis = kernel.unix_millis;
        self.publish(&inner.judged, monotonic);
        while let Some(event) = inner.state.poll_event() {
            log(event);
        }
    }

    fn publish(&self, judged: &Judged, monotonic: u64) {
        replace(&self.shared.wall, pack(judged.wall, monotonic));
        replace(&self.shared.bound, pack(judged.bound(), monotonic));
    }
}

/// Reads the wall clock as a command does that knows no node.
pub(crate) fn wall() -> WallTime {
    Clock::bare().wall()
}

fn kernel() -> KernelTime {
    let wall = fieldgate_io::clock::wall();
    KernelTime {
        uptime_millis: fieldgate_io::clock::boottime() / NANOS_PER_MILLI,
        unix_millis: wall.unix_millis,
        synchronised: wall.synchronised,
    }
}

/// Puts quality and difference to the monotonic clock into one word, so that they are read together: the lowest three bits are
/// the quality, the rest is the difference in milliseconds.
fn pack(wall: WallTime, monotonic: u64) -> i64 {
    let millis = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let quality = match wall.quality {
        ClockQuality::Unknown => 0,
        ClockQuality::Floor => 1,
        ClockQuality::Authority => 2,
        ClockQuality::Synchronised => 3,
    };
    let difference = millis(wall.unix_millis)
        .saturating_sub(millis(monotonic / NANOS_PER_MILLI))
        .clamp(i64::MIN >> QUALITY_BITS, i64::MAX >> QUALITY_BITS);
    (difference << QUALITY_BITS) | quality
}

/// Replaces what is published, unless it differs by a rounding only: time would go back and forth by a millisecond.
fn replace(published: &AtomicI64, packed: i64) {
    let before = published.load(Ordering::Relaxed);
    let is_rounding = before & QUALITY_MASK == packed & QUALITY_MASK
        && (before >> QUALITY_BITS).abs_diff(packed >> QUALITY_BITS) <= 1;
    if !is_rounding {
        published.store(packed, Ordering::Relaxed);
    }
}

fn unpack(packed: i64, monotonic: u64) -> WallTime {
    let quality = match packed & QUALITY_MASK {
        1 => ClockQuality::Floor,
        2 => ClockQuality::Authority,
        3 => ClockQuality::Synchronised,
        _ => ClockQuality::Unknown,
    };
    let monotonic_millis = i64::try_from(monotonic / NANOS_PER_MILLI).unwrap_or(i64::MAX);
    let unix_millis = (packed >> QUALITY_BITS).saturating_add(monotonic_millis);
    WallTime {
        unix_millis: u64::try_from(unix_millis).unwrap_or(0),
        quality,
    }
}

/// Returns the word for a quality that status shows.
pub(crate) const fn quality_name(quality: ClockQuality) -> &'static str {
    match quality {
        ClockQuality::Unknown => "unknown",
        ClockQuality::Floor => "floor",
        ClockQuality::Authority => "authority",
        ClockQuality::Synchronised => "synchronised",
    }
}

const fn distrust_words(why: Distrust) -> &'static str {
    match why {
        Distrust::BelowFloor => "the kernel's clock is below the floor",
        Distrust::Implausible => "the kernel's clock is more than three years ahead",
        Distrust::Stepped => "the kernel's clock was set while not synchronised",
        Distrust::Contradicted => "the kernel's clock differs from the authority's time",
    }
}

fn log(event: ClockEvent) {
    match event {
        ClockEvent::Jumped { by_millis } => tracing::warn!(by_millis, "clock jumped"),
        ClockEvent::Distrusted {
            why,
            kernel_millis,
            used_millis,
        } => {
            let reason = distrust_words(why);
            match why {
                Distrust::BelowFloor => {
                    tracing::warn!(reason, kernel_millis, used_millis, "clock below floor");
                }
                Distrust::Implausible | Distrust::Stepped | Distrust::Contradicted => {
                    tracing::warn!(reason, kernel_millis, used_millis, "clock implausible");
                }
            }
        }
        ClockEvent::Restored => tracing::info!("clock plausible again"),
        ClockEvent::Corrected {
            from_millis,
            to_millis,
        } => tracing::warn!(from_millis, to_millis, "clock set back by the authority"),
        ClockEvent::AuthorityBehind {
            told_millis,
            floor_millis,
        } => tracing::warn!(
            told_millis,
            floor_millis,
            "authority's clock is behind; not taken"
        ),
    }
}

/// The time of a shard's turn.
pub(crate) struct TurnClock {
    start: u64,
    now: Now,
    clock: Clock,
}

impl TurnClock {
    /// Counts instants from `start`, with the node's clock: no turn costs a system call.
    pub(crate) fn following(clock: Clock, start: u64) -> Self {
        let monotonic = fieldgate_io::clock::monotonic();
        Self {
            start,
            now: Now {
                instant: Instant::from_nanos(monotonic.saturating_sub(start)),
                wall: clock.at(monotonic),
            },
            clock,
        }
    }

    /// Returns the time of the turn that began at `monotonic`.
    pub(crate) fn at(&mut self, monotonic: u64) -> Now {
        self.now = Now {
            instant: Instant::from_nanos(monotonic.saturating_sub(self.start)),
            wall: self.clock.at(monotonic),
        };
        self.now
    }

    /// Returns `instant` as the driver counts.
    pub(crate) const fn monotonic(&self, instant: Instant) -> u64 {
        self.start.saturating_add(instant.as_nanos())
    }
}

/// Returns when this program was built, in seconds since 1970: `SOURCE_DATE_EPOCH` of the build, which reproducible builds set,
/// but never before the release it belongs to. Not the time of the compiler's run, which would make two builds differ.
const fn built_secs(source_date_epoch: Option<&str>) -> u64 {
    let Some(text) = source_date_epoch else {
        return RELEASED_SECS;
    };
    let digits = text.as_bytes();
    let mut secs: u64 = 0;
    let mut at = 0;
    while at < digits.len() {
        if !digits[at].is_ascii_digit() || at >= SECS_DIGITS_MAX {
            return RELEASED_SECS;
        }
        secs = secs * 10 + (digits[at] - b'0') as u64;
        at += 1;
    }
    if secs > RELEASED_SECS && secs < RELEASED_SECS + BUILT_AFTER_SECS_MAX {
        secs
    } else {
        RELEASED_SECS
    }
}

/// The first floor, seconds since 1970.
const BUILT_SECS: u64 = built_secs(option_env!("SOURCE_DATE_EPOCH"));
/// 2026-11-01, before which no program with this line was built.
const RELEASED_SECS: u64 = 1_793_491_200;
/// A build more than twenty years after its release is a slip, which would keep every clock below the floor.
const BUILT_AFTER_SECS_MAX: u64 = 20 * 366 * 86_400;
/// More digits than any such time has.
const SECS_DIGITS_MAX: usize = 12;
/// Between two looks at the kernel's clock: so long a step of it may go unnoticed.
const TICK: Duration = Duration::from_secs(1);
const NANOS_PER_MILLI: u64 = 1_000_000;
const QUALITY_BITS: u32 = 3;
const QUALITY_MASK: i64 = (1 << QUALITY_BITS) - 1;

#[cfg(test)]
mod tests;
