//! One thing a sink writes: a reading, or the record that readings are missing.

use std::sync::atomic::Ordering;

use fieldgate_adapters::{class::Class, reading::Reading};

use super::{Delivery, Source, gap::Gap, stats::SinkStats};

/// A reading or a gap, with its place among the sequences of its source.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// A reading.
    Reading {
        /// Whose it is.
        source: &'a Source,
        /// Its sequence.
        sequence: u64,
        /// What it says.
        reading: Reading<'a>,
    },
    /// Readings that will not come, as far as the sink does not know the sequences.
    Gap {
        /// The gap.
        gap: &'a Gap,
        /// First sequence that is not known.
        first: u64,
        /// Last sequence that is not known.
        last: u64,
    },
    /// A sequence whose reading does not decode. There is nothing to write; it is counted.
    Undecodable {
        /// The sequence.
        sequence: u64,
    },
}

impl<'a> Item<'a> {
    /// Returns the first sequence it stands for.
    pub(crate) const fn first(&self) -> u64 {
        match self {
            Self::Reading { sequence, .. } | Self::Undecodable { sequence } => *sequence,
            Self::Gap { first, .. } => *first,
        }
    }

    /// Returns the last sequence it stands for.
    pub(crate) const fn last(&self) -> u64 {
        match self {
            Self::Reading { sequence, .. } | Self::Undecodable { sequence } => *sequence,
            Self::Gap { last, .. } => *last,
        }
    }

    /// Returns what identifies it everywhere and for ever.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Reading { source, sequence, .. } => source.reading_id(*sequence),
            Self::Gap { gap, first, last } => gap.source.gap_id(*first, *last),
            Self::Undecodable { .. } => String::new(),
        }
    }

    /// Returns its class, of use for what is written only.
    pub(crate) const fn class(&self) -> Class {
        match self {
            Self::Reading { reading, .. } => reading.class,
            Self::Gap { gap, .. } => gap.class,
            Self::Undecodable { .. } => Class::Normal,
        }
    }

    /// Returns what it counts once it is confirmed.
    pub(crate) const fn tally(&self) -> Tally {
        match self {
            Self::Reading { .. } => Tally {
                confirmed: 1,
                ..Tally::NOTHING
            },
            Self::Gap { first, last, .. } => Tally {
                missing: *last - *first + 1,
                ..Tally::NOTHING
            },
            Self::Undecodable { .. } => Tally {
                undecodable: 1,
                ..Tally::NOTHING
            },
        }
    }
}

/// What confirmed items count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    confirmed: u64,
    missing: u64,
    undecodable: u64,
}

impl Tally {
    /// What was put aside or known already.
    pub(crate) const NOTHING: Self = Self {
        confirmed: 0,
        missing: 0,
        undecodable: 0,
    };

    /// Counts an item that is found to be there already as a copy.
    pub(crate) fn copy_of(item: &Item<'_>, stats: &SinkStats) -> Self {
        if matches!(item, Item::Reading { .. }) {
            stats.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        Self::NOTHING
    }

    /// Adds up.
    pub(crate) const fn add(&mut self, other: Self) {
        self.confirmed += other.confirmed;
        self.missing += other.missing;
        self.undecodable += other.undecodable;
    }

    /// Counts it in what the sink shows.
    pub(crate) fn count(self, stats: &SinkStats) {
        for (counter, count) in [
            (&stats.confirmed, self.confirmed),
            (&stats.missing, self.missing),
            (&stats.undecodable, self.undecodable),
        ] {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}

impl Delivery {
    /// Goes through what the delivery brings beyond sequence `known`, in order. What is known is left out.
    pub(crate) fn items(&self, known: u64) -> impl Iterator<Item = Item<'_>> {
        let (batch, gap) = match self {
            Self::Readings(batch) => (Some(batch), None),
            Self::Gap(gap) => (None, Some(gap).filter(|gap| gap.last > known)),
        };
        let readings = batch.into_iter().flat_map(move |batch| {
            let source: &Source = &batch.source;
            batch
                .readings()
                .filter(move |(sequence, _)| *sequence > known)
                .map(move |(sequence, reading)| match reading {
                    Some(reading) => Item::Reading {
                        source,
                        sequence,
                        reading,
                    },
                    None => Item::Undecodable { sequence },
                })
        });
        let gap = gap.map(move |gap| Item::Gap {
            gap,
            first: gap.first.max(known + 1),
            last: gap.last,
        });
        readings.chain(gap)
    }

    /// Counts the readings up to sequence `known` as copies.
    pub(crate) fn count_known(&self, known: u64, stats: &SinkStats) {
        if let Self::Readings(batch) = self {
            let copies = (known.min(batch.last()) + 1).saturating_sub(batch.first);
            stats.duplicates.fetch_add(copies, Ordering::Relaxed);
        }
    }
}
