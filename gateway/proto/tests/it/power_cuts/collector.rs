//! The collector of one uplink and lane: takes in order, confirms later, forgets what it has not confirmed when it stops.

use std::collections::BTreeMap;

use fieldgate_proto::{
    delivery::LostReason,
    journal::Lanes,
    link::Class,
    node::{Copied, RecordSource as _},
    wire::Reader,
};

use super::{dice::Dice, promises::Promises, world::Tally};

/// How far one collector is with one lane.
#[derive(Debug, Default)]
pub(super) struct Collector {
    pub(super) received: u64,
    /// On its stable storage.
    pub(super) confirmed: u64,
    /// The highest it ever confirmed.
    pub(super) confirmed_max: u64,
    /// Gaps it was told of, by their first sequence.
    told: BTreeMap<u64, u64>,
    /// Sequences by what identifies their records.
    sequences: BTreeMap<u64, u64>,
}

impl Collector {
    /// Takes what there is next; false if there is nothing for now.
    pub(super) fn take(
        &mut self,
        (lanes, lane): (&mut Lanes, Class),
        promises: &Promises,
        (has_jumped, dice): (bool, &mut Dice),
        tally: &mut Tally,
    ) -> bool {
        let first = self.received + 1;
        let mut out = Vec::new();
        let (bytes_max, count_max) = (4_000 + dice.index(20_000), 1 + dice.below(60));
        match lanes.copy_records(lane, first, bytes_max, count_max, &mut out) {
            Copied::NotYet => return false,
            Copied::Records(count) => {
                assert!(count > 0 && count <= count_max && out.len() <= bytes_max);
                let mut reader = Reader::new(&out);
                for sequence in first..first + count {
                    let body = reader.bytes_varint("body").expect("as many as was said");
                    let id = u64::from_be_bytes(*body.first_chunk().expect("each begins with its number"));
                    promises.delivered(sequence, id);
                    let before = *self.sequences.entry(id).or_insert(sequence);
                    assert_eq!(before, sequence, "a record came under two sequences");
                    tally.delivered += 1;
                }
                reader.finish().expect("nothing else");
                self.received += count;
            }
            Copied::Lost {
                last,
                reason,
                captured,
            } => {
                assert!(last >= first && last <= lanes.lane(lane).committed());
                promises.lost((first, last), reason, captured, has_jumped);
                self.told(first, last, reason, lanes.lane(lane).gap_count(), tally);
                self.received = last;
            }
        }
        true
    }

    /// Takes note of a gap: it is told with the same end as before, unless there were so many that some became one.
    fn told(&mut self, first: u64, last: u64, reason: LostReason, gaps: usize, tally: &mut Tally) {
        let count = last - first + 1;
        match reason {
            LostReason::Discarded => tally.discarded += count,
            LostReason::Expired => tally.expired += count,
            LostReason::Corrupt => {
                tally.corrupt += count;
                return;
            }
            LostReason::Released => {
                assert!(last <= self.confirmed_max, "it never confirmed {last}");
                tally.released += count;
                return;
            }
        }
        if let Some(before) = self.told.insert(first, last) {
            assert!(
                before == last || gaps >= GAPS_MAX,
                "{first} to {before} became {first} to {last}"
            );
            tally.told_again += 1;
        }
    }

    /// Confirms some of what it has.
    pub(super) fn confirm(&mut self, dice: &mut Dice) -> Option<u64> {
        if self.received <= self.confirmed {
            return None;
        }
        self.confirmed += 1 + dice.below(self.received - self.confirmed);
        self.confirmed_max = self.confirmed_max.max(self.confirmed);
        Some(self.confirmed)
    }

    /// Stops and starts again.
    pub(super) const fn restart(&mut self) {
        self.received = self.confirmed;
    }

    /// Is restored from an old copy.
    pub(super) fn set_back(&mut self, dice: &mut Dice) {
        self.confirmed -= dice.below(self.confirmed.min(50) + 1);
        self.received = self.confirmed;
        // What an old copy was told may differ from what a newer one is.
        self.told.clear();
    }
}

const GAPS_MAX: usize = 8;
