//! The labels of one link: those this node chose for what it receives, and those the neighbour chose.

use std::{collections::BTreeMap, time::Duration};

use super::{
    flow::FlowId,
    router::LinkId,
    slab::{Key, Slab},
};
use crate::{link::Label, time::Instant};

/// What a label this node chose leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Another link, under the label the neighbour there chose.
    Forward { link: LinkId, label: Label },
    /// A conversation of this node.
    Flow(FlowId),
}

/// Who sends under a label the neighbour chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Traffic that arrives on another link under a label of this node.
    Label { link: LinkId, label: Label },
    /// A conversation of this node.
    Flow(FlowId),
}

/// One label this node chose.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) target: Target,
    /// The label of the other direction, on the link the target names. `None` until the initiator offered one.
    pub(super) pair: Option<Label>,
    pub(super) last_used: Instant,
}

/// The labels of one link, in both directions.
#[derive(Debug)]
pub(super) struct Labels {
    /// What arrives: chosen by this node. The hot path is one look-up by index here.
    chosen: Slab<Entry>,
    /// What leaves: chosen by the neighbour, needed only when a label or a link goes.
    leaving: BTreeMap<Label, Source>,
}

impl Labels {
    /// Makes empty tables; `random` keeps the labels of an earlier link from meaning anything on this one.
    pub(super) const fn new(random: u32) -> Self {
        Self {
            chosen: Slab::new(random & GENERATION_MAX, GENERATION_MAX),
            leaving: BTreeMap::new(),
        }
    }

    /// Chooses a label for `entry`, `None` if there are too many.
    pub(super) fn choose(&mut self, entry: Entry) -> Option<Label> {
        if self.chosen.len() >= LABELS_PER_LINK_MAX {
            return None;
        }
        let Key { index, generation } = self.chosen.insert(entry);
        Label::new(generation << INDEX_BITS | index)
    }

    pub(super) fn get(&self, label: Label) -> Option<&Entry> {
        self.chosen.get(key(label))
    }

    pub(super) fn get_mut(&mut self, label: Label) -> Option<&mut Entry> {
        self.chosen.get_mut(key(label))
    }

    pub(super) fn remove(&mut self, label: Label) -> Option<Entry> {
        self.chosen.remove(key(label))
    }

    /// Returns all labels this node chose.
    pub(super) fn chosen(&self) -> impl Iterator<Item = (Label, &Entry)> {
        self.chosen
            .iter()
            .filter_map(|(Key { index, generation }, entry)| {
                Some((Label::new(generation << INDEX_BITS | index)?, entry))
            })
    }

    /// Returns who sends under the neighbour's `label`.
    pub(super) fn source(&self, label: Label) -> Option<Source> {
        self.leaving.get(&label).copied()
    }

    /// Notes that `source` sends under the neighbour's `label`. False if another does, or there are too many.
    #[must_use]
    pub(super) fn claim(&mut self, label: Label, source: Source) -> bool {
        match self.leaving.get(&label) {
            Some(holder) => *holder == source,
            None if self.leaving.len() >= LABELS_PER_LINK_MAX => false,
            None => {
                self.leaving.insert(label, source);
                true
            }
        }
    }

    /// Forgets that `source` sends under the neighbour's `label`.
    pub(super) fn release(&mut self, label: Label, source: Source) {
        if self.source(label) == Some(source) {
            self.leaving.remove(&label);
        }
    }

    /// Returns who sends over this link, by the neighbour's label.
    pub(super) fn leaving(&self) -> impl Iterator<Item = (Label, Source)> {
        self.leaving.iter().map(|(label, source)| (*label, *source))
    }
}

const fn key(label: Label) -> Key {
    let number = label.number();
    Key {
        index: number & (INDEX_COUNT - 1),
        generation: number >> INDEX_BITS,
    }
}

/// How many answers for unknown labels a link still gets in this second.
#[derive(Debug)]
pub(super) struct GoneLimit {
    since: Instant,
    sent: u32,
}

impl GoneLimit {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, sent: 0 }
    }

    /// Returns whether one more may be sent, and counts it.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        if now - self.since >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.sent += 1;
        self.sent <= GONE_PER_SECOND_MAX
    }
}

/// Labels per link and direction (PROTOCOL.md §14).
pub const LABELS_PER_LINK_MAX: usize = INDEX_COUNT as usize;
/// `LabelGone` sent per link and second for unknown labels (PROTOCOL.md §3.3).
pub(super) const GONE_PER_SECOND_MAX: u32 = 10;
/// A label is 20 bits of generation, 1 to 2^20 − 1, above 12 bits of index.
const INDEX_BITS: u32 = 12;
const INDEX_COUNT: u32 = 1 << INDEX_BITS;
const GENERATION_MAX: u32 = (1 << (32 - INDEX_BITS)) - 1;
