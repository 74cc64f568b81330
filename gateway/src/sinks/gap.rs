//! What did not come: readings that a gateway's journal could not keep, told in their place.

use std::sync::Arc;

use fieldgate_adapters::class::Class;

use super::Source;

/// Consecutive sequences of one source whose readings will never come.
///
/// It takes the place of the readings: it is offered in order with batches, and a sink confirms it by position when the record
/// of it is safe. A sink that has some of the sequences already records the rest, so each sequence counts once.
#[derive(Debug)]
pub(crate) struct Gap {
    /// Whose readings.
    pub(crate) source: Arc<Source>,
    /// The first sequence that will not come.
    pub(crate) first: u64,
    /// The last.
    pub(crate) last: u64,
    /// Why.
    pub(crate) reason: GapReason,
    /// How urgent they were.
    pub(crate) class: Class,
    /// When the earliest and the latest were captured, in milliseconds since 1970, where the gateway knows.
    pub(crate) captured: Option<(u64, u64)>,
}

impl Gap {
    /// Returns how many readings will not come.
    pub(crate) const fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// Why readings will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GapReason {
    /// The journal's storage gave back something else than was put there.
    Corrupt,
    /// The journal was full, and its policy drops the oldest.
    Discarded,
    /// They were older than their class may become.
    Expired,
    /// This collector confirmed them once, and has since been set back: the gateway does not have them any more.
    Released,
}

impl GapReason {
    /// Returns the word for it in records and logs.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::Discarded => "discarded",
            Self::Expired => "expired",
            Self::Released => "released",
        }
    }
}

#[cfg(test)]
mod tests {
    use fieldgate_proto::identity::Identifier;

    use super::*;

    #[test]
    fn a_gap_that_grew_is_another_record() {
        let source = Source {
            index: 0,
            gateway: Identifier::from_bytes([1; 32]),
            name: "a".to_owned(),
            journal: [2; 16],
            class: Class::Alarm,
            path: Vec::new(),
        };
        assert!(
            source
                .gap_id(3, 9)
                .ends_with("/02020202020202020202020202020202/3-9")
        );
        assert_ne!(source.gap_id(3, 9), source.gap_id(3, 10));
    }

    #[test]
    fn every_reason_has_its_own_word() {
        let reasons = [
            GapReason::Corrupt,
            GapReason::Discarded,
            GapReason::Expired,
            GapReason::Released,
        ];
        assert_eq!(
            reasons.map(GapReason::word),
            ["corrupt", "discarded", "expired", "released"]
        );
    }
}
