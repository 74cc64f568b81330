//! The collector's sink: takes readings, puts them into its store after a while, and says so later still.

use std::collections::{BTreeMap, VecDeque};

use fieldgate_proto::{
    delivery::{Batch, JournalId},
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
    /// Stored, and not said yet.
    unconfirmed: u64,
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
            unconfirmed: 0,
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

    /// Returns whether nothing that it took is unconfirmed.
    pub(crate) fn is_idle(&self) -> bool {
        self.taken.is_empty() && self.unconfirmed == 0
    }

    /// Stores the oldest batches, and returns what is to be confirmed: source and last sequence.
    pub(crate) fn store(
        &mut self,
        batches: u64,
        store: &mut Store,
        model: &mut Model,
    ) -> BTreeMap<SourceIndex, u64> {
        let mut confirmations = BTreeMap::new();
        for _ in 0..batches.min(self.plan.batches_at_once) {
            let Some(taken) = self.taken.pop_front() else {
                break;
            };
            self.held_bytes -= taken.bytes;
            store.insert(taken.key, taken.last);
            model.stored(taken.key, taken.last);
            confirmations.insert(taken.source, taken.last);
        }
        self.unconfirmed += confirmations.len() as u64;
        confirmations
    }

    /// Notes that a confirmation was given to the node.
    pub(crate) const fn confirmed(&mut self) {
        self.unconfirmed -= 1;
    }

    /// Returns the plan.
    pub(crate) const fn plan(&self) -> &SinkPlan {
        &self.plan
    }
}

/// The sink as the node sees it during one call.
pub(crate) struct SinkPort<'a> {
    pub(crate) sink: &'a mut Sink,
    pub(crate) model: &'a mut Model,
}

impl ReadingSink for SinkPort<'_> {
    fn accept(&mut self, source: &SourceInfo, batch: Batch<'_>) -> bool {
        if !self.sink.accepts() {
            self.sink.held_back += batch.count;
            return false;
        }
        let key = (source.gateway, source.journal);
        self.model.handed(key, &batch);
        let bytes = batch.readings.len();
        self.sink.held_bytes += bytes;
        self.sink.taken.push_back(Taken {
            source: source.index,
            key,
            last: batch.first + batch.count - 1,
            bytes,
        });
        true
    }
}

/// A sink that nothing may ever reach.
pub(crate) struct ForbiddenSink<'a>(pub(crate) &'a mut Model);

impl ReadingSink for ForbiddenSink<'_> {
    fn accept(&mut self, source: &SourceInfo, batch: Batch<'_>) -> bool {
        self.0.reached_impostor(source, &batch);
        false
    }
}
