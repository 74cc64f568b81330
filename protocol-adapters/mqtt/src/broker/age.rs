//! How long something lay in the store, told by clocks that may be wrong.

use std::time::Duration;

use fieldgate_proto::{
    time::{ClockQuality, Instant, Now, WallTime},
    wire::{Reader, WireError, put_varint},
};

/// The wall clock when something was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(WallTime);

impl Stamp {
    pub(super) const fn of(wall: WallTime) -> Self {
        Self(wall)
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, self.0.unix_millis.min(fieldgate_proto::wire::VARINT_MAX));
        out.push(self.0.quality.code());
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let unix_millis = reader.varint("time of storing")?;
        let code = reader.u8("quality of the time of storing")?;
        let quality = ClockQuality::from_code(code).ok_or_else(|| WireError::Value {
            field: "quality of the time of storing",
            value: code.into(),
        })?;
        Ok(Self(WallTime { unix_millis, quality }))
    }
}

/// The clocks at the moment of reading the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    pub(super) now: Now,
}

impl Age {
    /// Returns when something ends that had `secs` left when it was stored.
    ///
    /// Time counts that both clocks agree on: both vouched for, or both the same floor, which only rises while the node runs.
    /// Otherwise none has passed: a gateway that began in 1970 and then learnt the time must not end every session.
    pub(super) fn deadline(&self, stored: Stamp, secs: u64) -> Instant {
        let comparable = match (stored.0.quality, self.now.wall.quality) {
            (
                ClockQuality::Authority | ClockQuality::Synchronised,
                ClockQuality::Authority | ClockQuality::Synchronised,
            )
            | (ClockQuality::Floor, ClockQuality::Floor) => true,
            (
                ClockQuality::Unknown
                | ClockQuality::Floor
                | ClockQuality::Authority
                | ClockQuality::Synchronised,
                _,
            ) => false,
        };
        let passed = if comparable {
            self.now.wall.unix_millis.saturating_sub(stored.0.unix_millis)
        } else {
            0
        };
        let left = secs.saturating_mul(1_000).saturating_sub(passed);
        self.now.instant + Duration::from_millis(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_only_where_both_clocks_can_be_compared() {
        let wall = |secs: u64, quality| WallTime {
            unix_millis: secs * 1_000,
            quality,
        };
        let left = |stored, now| {
            let instant = Instant::from_nanos(7_000_000_000);
            let age = Age {
                now: Now { instant, wall: now },
            };
            (age.deadline(Stamp::of(stored), 100) - instant).as_secs()
        };
        use ClockQuality::{Floor, Synchronised, Unknown};
        assert_eq!(left(wall(1_000, Synchronised), wall(1_030, Synchronised)), 70);
        assert_eq!(left(wall(1_000, Synchronised), wall(1_101, Synchronised)), 0);
        assert_eq!(left(wall(1_000, Floor), wall(1_001, Floor)), 99);
        assert_eq!(left(wall(1_000, Floor), wall(9_000, Synchronised)), 100);
        assert_eq!(left(wall(0, Unknown), wall(9_000, Unknown)), 100);
        assert_eq!(
            left(wall(9_000, Synchronised), wall(1_000, Synchronised)),
            100,
            "set back"
        );
    }
}
