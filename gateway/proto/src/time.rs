//! Time as an argument: the core never reads a clock.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

/// A point on the node's monotonic clock, in nanoseconds since the node started.
///
/// Unlike [`std::time::Instant`] it can be printed, stored and made up by a test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The start of the node.
    pub const START: Self = Self(0);

    /// Returns the point `nanos` nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to `self`, zero if `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Adds, and stays at the largest instant (584 years) instead of wrapping.
    fn add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// How far the wall clock can be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClockQuality {
    /// Nothing vouches for it: no real-time clock, no synchronisation.
    #[default]
    Unknown,
    /// It is at least as late as a time known to be past.
    Floor,
    /// The authority's signed answer to a question of this node set it; judged like [`ClockQuality::Synchronised`].
    Authority,
    /// It was synchronised.
    Synchronised,
}

impl ClockQuality {
    /// Returns the number on the wire (PROTOCOL.md §9), which does not tell who set a good clock.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Floor => 1,
            Self::Authority | Self::Synchronised => 2,
        }
    }

    /// Returns the quality with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Unknown),
            1 => Some(Self::Floor),
            2 => Some(Self::Synchronised),
            _ => None,
        }
    }
}

/// Wall-clock time in milliseconds since 1970-01-01 UTC, with its quality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime {
    /// Milliseconds since 1970-01-01 UTC.
    pub unix_millis: u64,
    /// How far `unix_millis` can be believed.
    pub quality: ClockQuality,
}

impl WallTime {
    /// Returns whole seconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn unix_secs(self) -> u64 {
        self.unix_millis / 1000
    }

    /// Returns whether it is surely later than `unix_secs`. An unknown clock proves nothing, a floor proves this.
    #[must_use]
    pub const fn is_surely_after(self, unix_secs: u64) -> bool {
        match self.quality {
            ClockQuality::Unknown => false,
            ClockQuality::Floor | ClockQuality::Authority | ClockQuality::Synchronised => {
                self.unix_secs() > unix_secs
            }
        }
    }

    /// Returns whether it is surely earlier than `unix_secs`. A floor cannot prove this: it may be any later.
    #[must_use]
    pub const fn is_surely_before(self, unix_secs: u64) -> bool {
        match self.quality {
            ClockQuality::Unknown | ClockQuality::Floor => false,
            ClockQuality::Authority | ClockQuality::Synchronised => self.unix_secs() < unix_secs,
        }
    }
}

/// What every `handle_*` is told about time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock: deadlines, ages, rates.
    pub instant: Instant,
    /// The wall clock: validity of statements, capture times.
    pub wall: WallTime,
}
