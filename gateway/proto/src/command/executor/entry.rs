//! One command of a gateway.

use std::sync::Arc;

use super::{CommandId, Deadline, ExecutorSettings, Left, Order, Report, STORE_WAIT, State};
use crate::{
    command::{
        Guarantee,
        commander::weight,
        record::{ExecutorRecord, Kept},
    },
    identity::Identifier,
    time::{Instant, Now},
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) id: CommandId,
    pub(super) collector: Identifier,
    /// Without payload once it is finished.
    pub(super) order: Arc<Order>,
    pub(super) deadline: Deadline,
    pub(super) phase: Phase,
    /// Whether the device may have been handed it.
    pub(super) handed: bool,
    /// The same, before it was handed over last.
    pub(super) handed_before: bool,
    /// Whether what is kept says that the device may have been handed it.
    pub(super) marked: bool,
    /// Whether something may be kept of it.
    pub(super) kept: bool,
    /// Whether it is to be taken back.
    pub(super) cancel: bool,
    /// The store that is waited for.
    pub(super) ticket: Option<u64>,
    pub(super) wake_at: Option<Instant>,
    /// When it may be handed over again, or its result sent again.
    pub(super) again_at: Option<Instant>,
    /// Attempts so far of what `again_at` is about.
    pub(super) attempt: usize,
    /// What it counts for against the bound.
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Whether it is permitted is being decided. Nothing is kept.
    Asking,
    /// It is being kept.
    Accepting,
    /// It waits for its device.
    Queued,
    /// That it is handed over is being kept.
    Handing,
    /// The device is handed it.
    Handed {
        /// Whether the next one for this device waits until something is heard of it.
        holds: bool,
    },
    /// The device has acknowledged it, and its answer is waited for.
    Acknowledged,
    /// Its end is being kept.
    Closing(Report),
    /// Its result is to be told.
    Finished(Report),
    /// Its id is remembered.
    Settled(Report),
}

impl Phase {
    pub(super) const fn name(&self) -> Option<&'static str> {
        match self {
            Self::Asking | Self::Accepting => Some("asking"),
            Self::Queued => Some("queued"),
            Self::Handing | Self::Handed { .. } => Some("handed"),
            Self::Acknowledged => Some("acknowledged"),
            Self::Closing(_) => Some("closing"),
            Self::Finished(_) | Self::Settled(_) => None,
        }
    }
}

impl Entry {
    pub(super) fn new(
        number: u64,
        (collector, id): (Identifier, CommandId),
        order: Arc<Order>,
        deadline: Deadline,
        phase: Phase,
    ) -> Self {
        let mut entry = Self {
            number,
            id,
            collector,
            order,
            deadline,
            phase,
            handed: false,
            handed_before: false,
            marked: false,
            kept: false,
            cancel: false,
            ticket: None,
            wake_at: None,
            again_at: None,
            attempt: 0,
            bytes: 0,
        };
        entry.weigh();
        entry
    }

    /// Makes an entry of what is kept. What is kept as handed over and may be repeated waits in the queue again.
    pub(super) fn restored(now: Now, record: ExecutorRecord) -> Self {
        let deadline = Deadline::restored(now, record.deadline);
        let (order, phase, handed) = match record.kept {
            Kept::Queued(order) => (order, Phase::Queued, false),
            Kept::Handed(order) => {
                let phase = match order.guarantee {
                    Guarantee::AtLeastOnce => Phase::Queued,
                    Guarantee::AtMostOnce => Phase::Handed { holds: false },
                };
                (order, phase, true)
            }
            Kept::Acknowledged(order) => (order, Phase::Acknowledged, true),
            Kept::Finished { device, report } => (nameless(device), Phase::Finished(report), true),
            Kept::Settled { device, report } => (nameless(device), Phase::Settled(report), true),
        };
        let who = (record.collector, record.id);
        let mut entry = Self::new(record.number, who, order, deadline, phase);
        entry.kept = true;
        entry.handed = handed;
        entry.handed_before = handed;
        entry.marked = handed;
        entry
    }

    /// Computes anew what it counts for.
    pub(super) fn weigh(&mut self) {
        self.bytes = match &self.phase {
            Phase::Closing(report) | Phase::Finished(report) => answer_len(&report.state),
            Phase::Settled(_) => 0,
            Phase::Asking
            | Phase::Accepting
            | Phase::Queued
            | Phase::Handing
            | Phase::Handed { .. }
            | Phase::Acknowledged => weight(&self.order),
        };
    }

    pub(super) const fn report(&self, now: Now, state: State) -> Report {
        Report {
            id: self.id,
            at: now.wall,
            state,
        }
    }

    /// Returns how it ends for want of `state`: nobody may say that the device has not had what it may have had.
    pub(super) fn ending(&self, state: State) -> State {
        let not_had = matches!(
            state,
            State::Expired | State::Refused(_) | State::UnknownDevice | State::Cancelled
        );
        if not_had && self.handed {
            State::Unconfirmed
        } else if state.answer().is_some() && !self.order.answer_wanted {
            State::Delivered
        } else {
            state
        }
    }

    /// Returns when this wants to be looked at.
    pub(super) fn wake(&self, now: Now, in_flight: bool, settings: &ExecutorSettings) -> Option<Instant> {
        let again = self.again_at.filter(|at| *at > now.instant);
        let until = self.deadline.until;
        match &self.phase {
            Phase::Asking
            | Phase::Accepting
            | Phase::Handing
            | Phase::Handed { .. }
            | Phase::Acknowledged => Some(self.deadline.look_at(now)),
            Phase::Queued => {
                let deadline = self.deadline.look_at(now);
                Some(again.map_or(deadline, |at| at.min(deadline)))
            }
            Phase::Closing(_) => again,
            Phase::Finished(_) => {
                let end = until + settings.keep;
                Some(again.filter(|_| in_flight).map_or(end, |at| at.min(end)))
            }
            Phase::Settled(_) => Some(until + settings.grace),
        }
    }

    /// Returns whether it may be handed over now, as far as time goes.
    pub(super) fn is_ready(&self, now: Now) -> bool {
        self.again_at.is_none_or(|at| now.instant >= at) && matches!(self.deadline.left(now), Left::Time(_))
    }

    /// Puts it off after a store that failed.
    pub(super) fn put_off(&mut self, now: Now) {
        self.again_at = Some(now.instant + STORE_WAIT);
    }

    /// Returns what is to be kept of it, if anything.
    pub(super) fn record(&self, now: Now) -> Option<Vec<u8>> {
        let order = || Arc::clone(&self.order);
        let device = || Arc::clone(&self.order.device);
        let kept = match &self.phase {
            Phase::Asking => return None,
            Phase::Accepting | Phase::Queued if !self.marked => Kept::Queued(order()),
            Phase::Accepting | Phase::Queued | Phase::Handing | Phase::Handed { .. } => Kept::Handed(order()),
            Phase::Acknowledged => Kept::Acknowledged(order()),
            Phase::Closing(report) | Phase::Finished(report) => Kept::Finished {
                device: device(),
                report: report.clone(),
            },
            Phase::Settled(report) => Kept::Settled {
                device: device(),
                report: report.clone(),
            },
        };
        Some(
            ExecutorRecord {
                number: self.number,
                collector: self.collector,
                id: self.id,
                deadline: self.deadline.carried(now),
                kept,
            }
            .encode(),
        )
    }
}

/// An order of which only the device is known.
pub(super) fn nameless(device: Arc<str>) -> Arc<Order> {
    Arc::new(Order {
        guarantee: Guarantee::AtMostOnce,
        answer_wanted: true,
        device,
        resource: Box::default(),
        content_type: Box::default(),
        payload: Arc::default(),
    })
}

fn answer_len(state: &State) -> usize {
    state.answer().map_or(0, |answer| answer.payload.len())
}
