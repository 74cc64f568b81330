//! Sinks: where a collector puts readings, and what it may say about them.
//!
//! The trunk hands each sink the same shared batches through a bounded queue. A sink confirms, per source, the highest
//! sequence up to which everything is safe where it put it. The lowest confirmation of all sinks is what the gateway is told.
//! What a gateway lost is told in its place by a [`Gap`], which travels, is recorded and is confirmed like a batch of readings.

use std::{fmt, sync::Arc};

use fieldgate_adapters::{class::Class, reading::Reading};
use fieldgate_proto::{
    identity::Identifier,
    seal::{Seal, merkle::Hash},
    wire::Reader,
};

use self::{gap::Gap, queue::DeliverySender, stats::SinkStats};

mod custody;
pub(crate) mod fanout;
pub(crate) mod file;
pub(crate) mod gap;
mod http;
mod item;
pub(crate) mod json;
pub(crate) mod ledger;
mod lines;
pub(crate) mod mqtt;
mod nats;
mod null;
pub(crate) mod open;
mod output;
pub(crate) mod positions;
pub(crate) mod queue;
mod record;
mod set_aside;
pub(crate) mod stats;
pub(crate) mod stdout;
#[cfg(test)]
mod testing;
mod tls;
pub(crate) mod writers;

/// One lane of one gateway's journal, as the collector knows it.
#[derive(Debug)]
pub(crate) struct Source {
    /// Small number of this source within the process.
    pub(crate) index: u32,
    /// Who sends.
    pub(crate) gateway: Identifier,
    /// The name that the collector's file gives the gateway.
    pub(crate) name: String,
    /// The journal id of the lane.
    pub(crate) journal: [u8; 16],
    /// The class of what comes in it.
    pub(crate) class: Class,
    /// The nodes its readings pass, gateway first, collector last.
    pub(crate) path: Vec<String>,
}

impl Source {
    /// Returns the text that identifies reading `sequence` of this source everywhere and for ever.
    pub(crate) fn reading_id(&self, sequence: u64) -> String {
        format!("{}/{}/{sequence}", self.gateway, JournalText(&self.journal))
    }

    /// Returns the text that identifies a record of missing sequences `first` to `last`. A gap that grew is another record.
    pub(crate) fn gap_id(&self, first: u64, last: u64) -> String {
        format!("{}/{}/{first}-{last}", self.gateway, JournalText(&self.journal))
    }
}

/// A journal id as 32 hexadecimal digits.
pub(crate) struct JournalText<'a>(pub(crate) &'a [u8; 16]);

impl fmt::Display for JournalText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Consecutive readings of one source.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Whose they are.
    pub(crate) source: Arc<Source>,
    /// Sequence of the first.
    pub(crate) first: u64,
    /// How many.
    pub(crate) count: u64,
    /// Each reading behind its variable-length length (PROTOCOL.md §8).
    pub(crate) readings: Vec<u8>,
    /// The gateway's word for the batch they came in.
    pub(crate) seal: Option<BatchSeal>,
}

/// The gateway's word for a batch, of which readings in front may have come in another one before.
#[derive(Debug)]
pub(crate) struct BatchSeal {
    /// The key, as the gateway showed it.
    pub(crate) key: Arc<ShownKey>,
    /// The signature.
    pub(crate) seal: Seal,
    /// Sequence of the batch's first reading.
    pub(crate) first: u64,
    /// Leaves of the readings that had come before.
    pub(crate) skipped: Vec<Hash>,
}

/// A sealing key as the gateway showed it. Nobody has verified it yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ShownKey {
    /// The gateway's change history.
    pub(crate) history: Vec<u8>,
    /// Its identity's word for the key.
    pub(crate) attestation: Vec<u8>,
}

impl Batch {
    /// Returns the sequence of the last reading.
    pub(crate) const fn last(&self) -> u64 {
        self.first + self.count - 1
    }

    /// Goes through the readings with their sequences; `None` stands for one that does not decode.
    pub(crate) fn readings(&self) -> impl Iterator<Item = (u64, Option<Reading<'_>>)> {
        let mut reader = Reader::new(&self.readings);
        (self.first..self.first + self.count).map(move |sequence| {
            let decoded = reader
                .bytes_varint("reading")
                .ok()
                .and_then(|body| Reading::decode(body).ok());
            (sequence, decoded)
        })
    }
}

/// What the trunk hands to every sink, per source in the order of sequences.
#[derive(Clone, Debug)]
pub(crate) enum Delivery {
    /// Readings.
    Readings(Arc<Batch>),
    /// That there will be none.
    Gap(Arc<Gap>),
}

impl Delivery {
    /// Returns whose it is.
    pub(crate) fn source(&self) -> &Arc<Source> {
        match self {
            Self::Readings(batch) => &batch.source,
            Self::Gap(gap) => &gap.source,
        }
    }

    /// Returns the first sequence it stands for.
    pub(crate) fn first(&self) -> u64 {
        match self {
            Self::Readings(batch) => batch.first,
            Self::Gap(gap) => gap.first,
        }
    }

    /// Returns the last sequence it stands for.
    pub(crate) fn last(&self) -> u64 {
        match self {
            Self::Readings(batch) => batch.last(),
            Self::Gap(gap) => gap.last,
        }
    }

    /// Returns the bytes of readings in it.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Readings(batch) => batch.readings.len(),
            Self::Gap(_) => 0,
        }
    }
}

/// A sink's word that everything of a source up to a sequence is safe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confirmation {
    /// Which sink, counted in the order of the file.
    pub(crate) sink: usize,
    /// [`Source::index`].
    pub(crate) source: u32,
    /// The highest sequence that is safe.
    pub(crate) up_to: u64,
}

/// Takes confirmations to the trunk; never blocks for long, never loses one.
pub(crate) type Confirm = Box<dyn FnMut(Confirmation) + Send>;

/// The trunk's end of a sink.
pub(crate) struct SinkHandle {
    /// Name for people: kind and target.
    pub(crate) name: String,
    /// What the sink shows of itself.
    pub(crate) stats: Arc<SinkStats>,
    /// Where readings and gaps go in.
    pub(crate) queue: DeliverySender,
}

impl SinkHandle {
    /// Gives the sink its name.
    fn named(mut self, name: String) -> Self {
        self.name = name;
        self
    }
}

/// How many deliveries of each class a sink's queue holds. Their bytes are bounded by the fan-out.
pub(crate) const QUEUE_DELIVERIES: usize = 256;
