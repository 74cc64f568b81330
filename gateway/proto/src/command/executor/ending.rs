//! How commands end, and how their collectors are told.

use std::sync::Arc;

use super::{
    CommandId, Deadline, Entry, Executor, ExecutorOutput, Identifier, Now, Phase, REPORTS_MAX, State,
    repeat_wait,
};

impl Executor {
    /// Ends a command; its result is told once it is kept.
    pub(super) fn close(&mut self, now: Now, number: u64, state: State) {
        self.leave_device(number);
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let report = entry.report(now, entry.ending(state));
        self.bytes -= entry.bytes;
        entry.phase = Phase::Closing(report);
        entry.order = Arc::new(entry.order.without_payload());
        (entry.again_at, entry.attempt) = (None, 0);
        entry.weigh();
        self.bytes += entry.bytes;
        self.store(now, number);
        self.schedule(now, number);
    }

    /// Ends a command of which nothing is kept: its collector is told, and asks again if it does not hear it.
    pub(super) fn dismiss(&mut self, now: Now, number: u64, state: State) {
        let Some(entry) = self.entries.get(&number) else {
            return;
        };
        let (collector, id, deadline) = (entry.collector, entry.id, entry.deadline);
        let device = Arc::clone(&entry.order.device);
        self.stats.refused += 1;
        self.remove(number);
        self.turn_down(now, (collector, id), device, deadline, state);
    }

    /// Answers for a command that is not taken, and remembers that, so that a copy that comes late is not taken either.
    pub(super) fn turn_down(
        &mut self,
        now: Now,
        who: (Identifier, CommandId),
        device: Arc<str>,
        deadline: Deadline,
        state: State,
    ) {
        let settled = self.peers.get(&who.0).map_or(0, |peer| peer.settled.len());
        if settled >= self.settings.remembered_max {
            // What cannot be remembered is not promised: the collector is told nothing and asks again.
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        let order = super::entry::nameless(device);
        let mut entry = Entry::new(number, who, order, deadline, Phase::Asking);
        let report = entry.report(now, state);
        entry.phase = Phase::Settled(report.clone());
        entry.weigh();
        self.insert(now, entry);
        self.send(who.0, &report);
    }

    /// Notes that the end of a command is kept.
    pub(super) fn finished(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let Phase::Closing(report) = &entry.phase else {
            return;
        };
        let report = report.clone();
        if report.state.is_success() {
            self.stats.succeeded += 1;
        } else {
            self.stats.failed += 1;
        }
        let collector = entry.collector;
        self.outputs.push_back(ExecutorOutput::Finished {
            collector,
            id: entry.id,
            device: Arc::clone(&entry.order.device),
            state: report.state.clone(),
        });
        entry.phase = Phase::Finished(report);
        (entry.again_at, entry.attempt) = (None, 0);
        if let Some(peer) = self.peers.get_mut(&collector) {
            peer.unreported.insert(number);
        }
        self.schedule(now, number);
        self.report_more(now, collector);
    }

    /// Sends results that were not sent in this channel, as far as there is room.
    pub(super) fn report_more(&mut self, now: Now, collector: Identifier) {
        while let Some(peer) = self.peers.get_mut(&collector) {
            let next = peer.unreported.difference(&peer.in_flight).next().copied();
            let Some(number) = next.filter(|_| peer.up && peer.in_flight.len() < REPORTS_MAX) else {
                return;
            };
            peer.in_flight.insert(number);
            if let Some(entry) = self.entries.get_mut(&number) {
                entry.attempt = 0;
            }
            self.report(now, number);
        }
    }

    /// Sends a result, and again after a while.
    pub(super) fn report(&mut self, now: Now, number: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.again_at = Some(now.instant + repeat_wait(entry.attempt));
            entry.attempt += 1;
        }
        self.say(now, number);
        self.schedule(now, number);
    }

    /// Notes that the collector has a result. Of the command, its id stays.
    pub(super) fn settle(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let Phase::Finished(report) = &entry.phase else {
            return;
        };
        let mut report = report.clone();
        if report.state.answer().is_some() {
            // Whoever asks again, having lost it, learns at least that the device had the command.
            report.state = State::Delivered;
        }
        let collector = entry.collector;
        self.bytes -= entry.bytes;
        entry.phase = Phase::Settled(report);
        entry.weigh();
        self.bytes += entry.bytes;
        if let Some(peer) = self.peers.get_mut(&collector) {
            peer.open -= 1;
            peer.unreported.remove(&number);
            peer.in_flight.remove(&number);
            peer.settled.insert(number);
            // What came first is forgotten first. Its collector has acknowledged the result and sends it no more.
            let oldest = peer.settled.first().copied();
            let full = peer.settled.len() > self.settings.remembered_max;
            if let Some(oldest) = oldest.filter(|_| full) {
                self.remove(oldest);
            }
        }
        self.store(now, number);
        self.schedule(now, number);
        self.report_more(now, collector);
    }

    /// Ends a command whose deadline has passed.
    pub(super) fn expire(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get(&number) else {
            return;
        };
        match &entry.phase {
            Phase::Asking => self.dismiss(now, number, State::Expired),
            Phase::Accepting | Phase::Queued | Phase::Handing => {
                self.close(now, number, State::Expired);
            }
            Phase::Handed { holds } => {
                if *holds {
                    self.outputs.push_back(ExecutorOutput::Withdraw { number });
                }
                self.close(now, number, State::Unconfirmed);
            }
            Phase::Acknowledged => self.close(now, number, State::Delivered),
            Phase::Closing(_) | Phase::Finished(_) | Phase::Settled(_) => {}
        }
    }
}
