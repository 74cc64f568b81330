//! The collector's sink: takes readings, puts them into its store after a while, and says so later still.

use std::collections::{BTreeMap, VecDeque};

use fieldgate_proto::{
    delivery::{Batch, JournalId, Lost},
    identity::Identifier,
    node::{ReadingSink, SourceIndex, SourceInfo},
};

use crate::{model::Model, scenario::SinkPlan};

/// Whose readings, and of which journal.
pub(crate) type SourceKey = (Identifier, JournalId);

/// What survives the collector: how far the sink's store has each journal. Data and position are stored in one step.
pub(crate) type Store = BTreeMap<SourceKey, u64>;

/// What the sink has taken and not stored.
#[derive(Debug)]
struct Taken {
    source: SourceIndex,
    key: SourceKey,
    last: u64,
    bytes: usize,
}

/// The sink in one life of the collector.
#[derive(Debug)]
pub(crate) struct Sink {
    plan: SinkPlan,
    taken: VecDeque<Taken>,
    held_bytes: usize,
    /// It takes and stores nothing.
    pub(crate) stopped: bool,
    /// An end of storing is scheduled.
    pub(crate) storing: bool,
    /// What the node was told last about its willingness.
    pub(crate) told_accepting: bool,
    pub(crate) held_back: u64,
}

impl Sink {
    pub(crate) const fn new(plan: SinkPlan) -> Self {
        Self {
            plan,
            taken: VecDeque::new(),
            held_bytes: 0,
            stopped: false,
            storing: false,
            told_accepting: true,
            held_back: 0,
        }
    }

    pub(crate) const fn accepts(&self) -> bool {
        !self.stopped && self.held_bytes < self.plan.held_bytes_max
    }

    /// Returns whether something waits to be stored.
    pub(crate) fn has_work(&self) -> bool {
        !self.stopped && !self.taken.is_empty()
    }

    /// Stores the oldest batches, and returns what is to be confirmed: source and last sequence.
    pub(crate) fn store(
        &mut self,
        batches: u64,
        store: &mut Store,
        (collector, model): (usize, &mut Model),
    ) -> BTreeMap<SourceIndex, u64> {
        let mut confirmations = BTreeMap::new();
        for _ in 0..batches.min(self.plan.batches_at_once) {
            let Some(taken) = self.taken.pop_front() else {
                break;
            };
            self.held_bytes -= taken.bytes;
            store.insert(taken.key, taken.last);
            model.stored(collector, taken.key, taken.last);
            confirmations.insert(taken.source, taken.last);
        }
        confirmations
    }

    /// Returns the plan.
    pub(crate) const fn plan(&self) -> &SinkPlan {
        &self.plan
    }
}

/// The sink as the node sees it during one call.
pub(crate) struct SinkPort<'a> {
    pub(crate) sink: &'a mut Sink,
    /// Number of the collector's host.
    pub(crate) collector: usize,
    pub(crate) model: &'a mut Model,
}

impl SinkPort<'_> {
    fn take(&mut self, source: &SourceInfo, last: u64, bytes: usize) {
        self.sink.held_bytes += bytes;
        self.sink.taken.push_back(Taken {
            source: source.index,
            key: (source.gateway, source.journal),
            last,
            bytes,
        });
    }
}

impl ReadingSink for SinkPort<'_> {
    fn accept(&mut self, source: &SourceInfo, batch: Batch<'_>) -> bool {
        if !self.sink.accepts() {
            self.sink.held_back += batch.count;
            return false;
        }
        let key = (source.gateway, source.journal);
        self.model.handed(self.collector, key, &batch);
        self.take(source, batch.first + batch.count - 1, batch.readings.len());
        true
    }

    fn gap(&mut self, source: &SourceInfo, lost: &Lost) -> bool {
        if !self.sink.accepts() {
            self.sink.held_back += 1;
            return false;
        }
        let key = (source.gateway, source.journal);
        self.model.gap(self.collector, key, lost);
        self.take(source, lost.last, GAP_BYTES);
        true
    }
}

/// A sink that nothing may ever reach.
pub(crate) struct ForbiddenSink<'a>(pub(crate) &'a mut Model);

impl ReadingSink for ForbiddenSink<'_> {
    fn accept(&mut self, source: &SourceInfo, batch: Batch<'_>) -> bool {
        self.0.reached_impostor(source, batch.count);
        false
    }

    fn gap(&mut self, source: &SourceInfo, lost: &Lost) -> bool {
        self.0.reached_impostor(source, lost.count());
        false
    }
}

/// What a gap record takes.
const GAP_BYTES: usize = 100;
