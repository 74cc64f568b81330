//! The clocks in the core's words.

use fieldgate_proto::time::{ClockQuality, Instant, Now, WallTime};

/// Reads the wall clock.
pub(crate) fn wall() -> WallTime {
    let wall = fieldgate_io::clock::wall();
    let quality = if wall.synchronised {
        ClockQuality::Synchronised
    } else {
        ClockQuality::Unknown
    };
    WallTime {
        unix_millis: wall.unix_millis,
        quality,
    }
}

/// The time of a shard's turn. The wall clock, which costs a system call, is read at most once a millisecond.
pub(crate) struct TurnClock {
    start: u64,
    now: Now,
    wall_read: u64,
}

impl TurnClock {
    /// Counts instants from `start` ([`fieldgate_io::clock::monotonic`]).
    pub(crate) fn new(start: u64) -> Self {
        let monotonic = fieldgate_io::clock::monotonic();
        let instant = Instant::from_nanos(monotonic - start);
        Self {
            start,
            now: Now {
                instant,
                wall: wall(),
            },
            wall_read: monotonic,
        }
    }

    /// Returns the time of the turn that began at `monotonic`.
    pub(crate) fn at(&mut self, monotonic: u64) -> Now {
        self.now.instant = Instant::from_nanos(monotonic.saturating_sub(self.start));
        if monotonic.saturating_sub(self.wall_read) >= WALL_EVERY_NANOS {
            self.wall_read = monotonic;
            self.now.wall = wall();
        }
        self.now
    }

    /// Returns `instant` as the driver counts.
    pub(crate) const fn monotonic(&self, instant: Instant) -> u64 {
        self.start.saturating_add(instant.as_nanos())
    }
}

/// How old the wall clock's reading may be.
const WALL_EVERY_NANOS: u64 = 1_000_000;
