//! One command of a collector.

use std::{sync::Arc, time::Duration};

use super::{
    Cancel, Command, CommandId, CommandView, Deadline, Guarantee, Left, Order, PAYLOAD_LEN_MAX, Query,
    RESULT_WAIT, Report, STORE_WAIT, Stage, State, WINDOW_WAIT, repeat_wait,
};
use crate::{
    command::record::{CommanderRecord, Leaving},
    identity::Identifier,
    time::{Instant, Now},
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) id: CommandId,
    pub(super) gateway: Identifier,
    pub(super) order: Arc<Order>,
    pub(super) deadline: Deadline,
    pub(super) submitted: u64,
    /// Whether it is to be taken back.
    pub(super) cancel: bool,
    pub(super) phase: Phase,
    /// The store that is waited for.
    pub(super) ticket: Option<u64>,
    pub(super) wake_at: Option<Instant>,
    /// What it counts for against the bound.
    pub(super) bytes: usize,
    /// When it was finished.
    finished_at: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// It is being kept.
    Keeping,
    /// It has not left.
    Waiting {
        /// What is kept says already that it may have.
        marked: bool,
        /// The store failed; it is asked again from then on.
        not_before: Option<Instant>,
    },
    /// That it may have left is being kept.
    Leaving,
    /// It may have left.
    Sent {
        /// Whether the frame with the command has been written, as far as is known.
        left: bool,
        /// Whether the gateway has said something about it in this channel.
        heard: bool,
        /// What the gateway said last, in any channel.
        known: Option<State>,
        /// Frames sent since something was heard.
        attempt: usize,
        /// When the next one may be sent.
        repeat_at: Instant,
    },
    /// The end is being kept.
    Closing {
        report: Report,
        /// Whether it is the gateway's word, which is then acknowledged.
        by_gateway: bool,
        /// The store failed; it is asked again at this time.
        again_at: Option<Instant>,
    },
    /// It is finished.
    Finished(Report),
}

impl Phase {
    /// It is sent at once, or asked after if it has `left`.
    pub(super) const fn sent(left: bool) -> Self {
        Self::Sent {
            left,
            heard: false,
            known: None,
            attempt: 0,
            repeat_at: Instant::START,
        }
    }

    pub(super) const fn waiting() -> Self {
        Self::Waiting {
            marked: false,
            not_before: None,
        }
    }
}

impl Entry {
    pub(super) fn new(
        number: u64,
        id: CommandId,
        gateway: Identifier,
        order: Arc<Order>,
        (deadline, submitted): (Deadline, u64),
    ) -> Self {
        let bytes = weight(&order);
        Self {
            number,
            id,
            gateway,
            order,
            deadline,
            submitted,
            cancel: false,
            phase: Phase::Keeping,
            ticket: None,
            wake_at: None,
            bytes,
            finished_at: None,
        }
    }

    pub(super) fn restored(now: Now, record: CommanderRecord) -> Self {
        let deadline = Deadline::restored(now, record.deadline);
        let times = (deadline, record.submitted);
        let mut entry = Self::new(record.number, record.id, record.gateway, record.order, times);
        entry.cancel = record.cancel;
        entry.phase = match record.leaving {
            Leaving::Waiting => Phase::waiting(),
            Leaving::Sent => Phase::sent(true),
            Leaving::Finished(report) => {
                entry.bytes = answer_len(&report);
                entry.finished_at = Some(now.instant);
                Phase::Finished(report)
            }
        };
        entry
    }

    pub(super) const fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished(_))
    }

    /// Ends it, once that is kept.
    pub(super) fn finish(&mut self, mut report: Report, by_gateway: bool) {
        if !self.order.answer_wanted && matches!(report.state, State::Answered(_)) {
            report.state = State::Delivered;
        }
        self.bytes = answer_len(&report);
        self.order = Arc::new(self.order.without_payload());
        self.phase = Phase::Closing {
            report,
            by_gateway,
            again_at: None,
        };
    }

    /// Notes that the end is kept, and returns it.
    pub(super) fn closed(&mut self, now: Now) -> Option<(Report, bool)> {
        let Phase::Closing {
            report, by_gateway, ..
        } = &self.phase
        else {
            return None;
        };
        let end = (report.clone(), *by_gateway);
        self.phase = Phase::Finished(end.0.clone());
        self.finished_at = Some(now.instant);
        Some(end)
    }

    /// Appends the frame that is due: the command, the question what became of it, or that it is to be taken back.
    pub(super) fn repeat(&mut self, now: Now, frames: &mut Vec<u8>) {
        let Phase::Sent {
            left,
            heard,
            known,
            attempt,
            repeat_at,
        } = &mut self.phase
        else {
            return;
        };
        if now.instant < *repeat_at || (*heard && !self.cancel) {
            return;
        }
        if self.deadline.left(now) == Left::Unknown {
            // Too much time must not be promised. What the gateway has to say it says by itself.
            *repeat_at = now.instant + WINDOW_WAIT;
            return;
        }
        let deadline = self.deadline.carried(now);
        let (id, remaining_ms) = (self.id, deadline.remaining_ms);
        let guarantee = self.order.guarantee;
        let again = match guarantee {
            Guarantee::AtMostOnce => !*left,
            Guarantee::AtLeastOnce => known.is_none(),
        };
        if self.cancel {
            Cancel { id, remaining_ms }.put(frames);
        } else if again && remaining_ms > 0 {
            *left = true;
            let order = Arc::clone(&self.order);
            Command { id, deadline, order }.put(frames);
        } else {
            Query {
                id,
                guarantee,
                remaining_ms,
            }
            .put(frames);
        }
        *repeat_at = now.instant + repeat_wait(*attempt);
        *attempt += 1;
    }

    /// Puts the next frame off: too many are on their way.
    pub(super) fn put_off(&mut self, now: Now) {
        if let Phase::Sent { repeat_at, .. } = &mut self.phase {
            *repeat_at = (*repeat_at).max(now.instant + WINDOW_WAIT);
        }
    }

    /// Returns when this wants to be looked at.
    pub(super) fn wake(&self, now: Now, up: bool, keep: Duration) -> Option<Instant> {
        match &self.phase {
            Phase::Keeping | Phase::Leaving => None,
            Phase::Waiting { not_before, .. } => {
                let deadline = self.deadline.look_at(now);
                let store = not_before.filter(|at| *at > now.instant);
                Some(store.map_or(deadline, |at| at.min(deadline)))
            }
            Phase::Sent { heard, repeat_at, .. } => {
                let end = self.deadline.until + RESULT_WAIT;
                let repeats = up && (!heard || self.cancel);
                Some(if repeats { end.min(*repeat_at) } else { end })
            }
            Phase::Closing { again_at, .. } => *again_at,
            Phase::Finished(_) => self.finished_at.map(|at| at + keep),
        }
    }

    /// Notes that a store failed; false if the command never began to be.
    pub(super) fn store_failed(&mut self, now: Now) -> bool {
        match &mut self.phase {
            Phase::Keeping => return false,
            Phase::Leaving => {
                self.phase = Phase::Waiting {
                    marked: false,
                    not_before: Some(now.instant + STORE_WAIT),
                };
            }
            Phase::Closing { again_at, .. } => *again_at = Some(now.instant + STORE_WAIT),
            Phase::Waiting { .. } | Phase::Sent { .. } | Phase::Finished(_) => {}
        }
        true
    }

    pub(super) fn record(&self, now: Now) -> Vec<u8> {
        let leaving = match &self.phase {
            Phase::Keeping | Phase::Waiting { marked: false, .. } => Leaving::Waiting,
            Phase::Waiting { marked: true, .. } | Phase::Leaving | Phase::Sent { .. } => Leaving::Sent,
            Phase::Closing { report, .. } | Phase::Finished(report) => Leaving::Finished(report.clone()),
        };
        CommanderRecord {
            number: self.number,
            gateway: self.gateway,
            id: self.id,
            deadline: self.deadline.carried(now),
            submitted: self.submitted,
            cancel: self.cancel,
            leaving,
            order: Arc::clone(&self.order),
        }
        .encode()
    }

    pub(super) fn view(&self) -> CommandView {
        let stage = match &self.phase {
            Phase::Keeping => Stage::Keeping,
            Phase::Waiting { .. } | Phase::Leaving => Stage::Waiting,
            Phase::Sent { known: None, .. } => Stage::Sent,
            Phase::Sent {
                known: Some(state), ..
            } => Stage::Known(state.clone()),
            Phase::Closing { report, .. } | Phase::Finished(report) => Stage::Finished(report.clone()),
        };
        CommandView {
            id: self.id,
            gateway: self.gateway,
            order: Arc::clone(&self.order),
            submitted: self.submitted,
            deadline: self.deadline.unix_millis,
            cancelled: self.cancel,
            stage,
        }
    }
}

/// What an order counts for: its payload, and room for an answer.
pub(in crate::command) fn weight(order: &Order) -> usize {
    order.payload.len() + if order.answer_wanted { PAYLOAD_LEN_MAX } else { 0 }
}

fn answer_len(report: &Report) -> usize {
    report.state.answer().map_or(0, |answer| answer.payload.len())
}
