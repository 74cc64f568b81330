//! What an executor is told by collectors, its store and its clock.

use std::sync::Arc;

use super::{
    CommandId, Deadline, Entry, Executor, ExecutorOutput, Identifier, Left, Now, Permission, Phase, State,
    rights::Right,
};
use crate::command::{
    CANCEL, COMMAND, Cancel, Command, CommandError, Guarantee, QUERY, Query, RESULT_ACK, RecordError,
    Refusal, Report, ResultAck, commander::weight, record::ExecutorRecord,
};

impl Executor {
    /// Takes up what an earlier run has kept, one record at a time, before anything else.
    ///
    /// # Errors
    /// [`RecordError`]; nothing has changed then.
    pub fn restore(&mut self, now: Now, record: &[u8]) -> Result<(), RecordError> {
        let record = ExecutorRecord::decode(record)?;
        let key = (record.collector, record.id);
        if self.by_id.contains_key(&key) || self.entries.contains_key(&record.number) {
            return Err(RecordError::Twice);
        }
        let number = record.number;
        self.next_number = self.next_number.max(number.saturating_add(1));
        let entry = Entry::restored(now, record);
        let hopeless = matches!(entry.phase, Phase::Handed { .. }) && !entry.order.answer_wanted;
        self.insert(now, entry);
        if hopeless {
            // Nothing more can be heard of it.
            self.close(now, number, State::Unconfirmed);
        }
        Ok(())
    }

    /// Takes the news that the channel to a collector is up, or another one is.
    pub fn handle_up(&mut self, now: Now, collector: Identifier) {
        let peer = self.peers.entry(collector).or_default();
        peer.up = true;
        peer.in_flight.clear();
        self.rights.look_again(collector);
        self.report_more(now, collector);
        self.hand_all(now);
    }

    /// Takes the news that the channel to a collector is gone.
    pub fn handle_down(&mut self, collector: Identifier) {
        if let Some(peer) = self.peers.get_mut(&collector) {
            peer.up = false;
            peer.in_flight.clear();
            if peer.open == 0 && peer.settled.is_empty() {
                self.peers.remove(&collector);
            }
        }
    }

    /// Takes a frame of a collector.
    ///
    /// # Errors
    /// [`CommandError`]; nothing has changed then.
    pub fn handle_frame(
        &mut self,
        now: Now,
        collector: Identifier,
        kind: u8,
        body: &[u8],
    ) -> Result<(), CommandError> {
        match kind {
            COMMAND => self.handle_command(now, collector, Command::decode(body)?),
            QUERY => self.handle_query(now, collector, Query::decode(body)?),
            CANCEL => self.handle_cancel(now, collector, Cancel::decode(body)?),
            RESULT_ACK => {
                let number = self.number_of(collector, ResultAck::decode(body)?.id);
                if let Some(number) = number {
                    self.settle(now, number);
                }
            }
            _ => return Err(CommandError::OutOfPlace { kind }),
        }
        Ok(())
    }

    fn number_of(&self, collector: Identifier, id: CommandId) -> Option<u64> {
        self.by_id.get(&(collector, id)).copied()
    }

    fn handle_command(&mut self, now: Now, collector: Identifier, command: Command) {
        if let Some(number) = self.number_of(collector, command.id) {
            self.stats.duplicates += 1;
            if matches!(self.entries.get(&number), Some(entry) if matches!(entry.phase, Phase::Asking)) {
                // Who decides may have been overwhelmed when it was asked.
                self.rights.look_again(collector);
                self.admit(now, number);
            }
            self.hear(now, number, command.deadline.remaining_ms);
            return;
        }
        let deadline = Deadline::received(now, command.deadline);
        let who = (collector, command.id);
        let turned_down = if deadline.left(now) == Left::Nothing {
            Some(State::Expired)
        } else {
            let open = self.peers.get(&collector).map_or(0, |peer| peer.open);
            let full = open >= self.settings.commands_max
                || self.bytes + weight(&command.order) > self.settings.bytes_max;
            full.then_some(State::Refused(Refusal::Limit))
        };
        if let Some(state) = turned_down {
            self.stats.refused += 1;
            let device = Arc::clone(&command.order.device);
            self.turn_down(now, who, device, deadline, state);
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.insert(
            now,
            Entry::new(number, who, command.order, deadline, Phase::Asking),
        );
        self.admit(now, number);
    }

    fn handle_query(&mut self, now: Now, collector: Identifier, query: Query) {
        if let Some(number) = self.number_of(collector, query.id) {
            self.hear(now, number, query.remaining_ms);
            return;
        }
        match query.guarantee {
            Guarantee::AtMostOnce => {
                self.disown(now, (collector, query.id), query.remaining_ms, State::Lost);
            }
            Guarantee::AtLeastOnce => {
                let report = Report {
                    id: query.id,
                    at: now.wall,
                    state: State::Lost,
                };
                self.send(collector, &report);
            }
        }
    }

    fn handle_cancel(&mut self, now: Now, collector: Identifier, cancel: Cancel) {
        let Some(number) = self.number_of(collector, cancel.id) else {
            self.disown(now, (collector, cancel.id), cancel.remaining_ms, State::Cancelled);
            return;
        };
        self.take_back(now, number);
        self.say(now, number);
    }

    fn take_back(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        match &entry.phase {
            Phase::Asking => self.dismiss(now, number, State::Cancelled),
            Phase::Accepting | Phase::Queued | Phase::Handing => self.close(now, number, State::Cancelled),
            Phase::Handed { holds: true } => {
                if !entry.cancel {
                    entry.cancel = true;
                    self.outputs.push_back(ExecutorOutput::Withdraw { number });
                }
            }
            Phase::Handed { holds: false } => self.close(now, number, State::Unconfirmed),
            Phase::Acknowledged => self.close(now, number, State::Delivered),
            Phase::Closing(_) | Phase::Finished(_) | Phase::Settled(_) => {}
        }
    }

    /// Answers for a command that is not known, and sees to it that it is not taken any more.
    fn disown(&mut self, now: Now, who: (Identifier, CommandId), remaining_ms: u32, state: State) {
        let remaining = std::time::Duration::from_millis(remaining_ms.into());
        self.turn_down(now, who, Arc::default(), Deadline::after(now, remaining), state);
    }

    /// Takes the collector's word for the time left of a known command, and tells it where the command stands.
    fn hear(&mut self, now: Now, number: u64, remaining_ms: u32) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        entry.deadline.heard(now, remaining_ms);
        let device = Arc::clone(&entry.order.device);
        self.say(now, number);
        self.schedule(now, number);
        self.hand_next(now, &device);
    }

    /// Accepts a new command, if that is permitted, or has that decided.
    fn admit(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get(&number) else {
            return;
        };
        let (collector, device) = (entry.collector, Arc::clone(&entry.order.device));
        match self.may(collector, &device) {
            None => {}
            Some(Permission::Permitted) => {
                if let Some(entry) = self.entries.get_mut(&number) {
                    entry.phase = Phase::Accepting;
                }
                self.store(now, number);
            }
            Some(permission) => {
                if let Some(state) = permission.ending() {
                    self.dismiss(now, number, state);
                }
            }
        }
    }

    /// Returns what was decided, or `None` and has it decided.
    pub(super) fn may(&mut self, collector: Identifier, device: &Arc<str>) -> Option<Permission> {
        match self.rights.look_up(collector, device) {
            Right::Decided(permission) => Some(permission),
            Right::Asked => None,
            Right::Ask(question) => {
                self.outputs.push_back(ExecutorOutput::Authorise {
                    question,
                    collector,
                    device: Arc::clone(device),
                });
                None
            }
        }
    }

    /// Takes the answer to [`ExecutorOutput::Authorise`]. One that nobody waits for any more is ignored.
    pub fn handle_permission(&mut self, now: Now, question: u64, permission: Permission) {
        let Some((collector, device)) = self.rights.decide(question, permission) else {
            return;
        };
        for number in self.numbers_of(&device) {
            let Some(entry) = self.entries.get(&number) else {
                continue;
            };
            if entry.collector != collector {
                continue;
            }
            match (&entry.phase, permission.ending()) {
                (Phase::Asking, _) => self.admit(now, number),
                (Phase::Accepting | Phase::Queued | Phase::Handing, Some(state)) => {
                    self.close(now, number, state);
                }
                _ => {}
            }
        }
        self.hand_next(now, &device);
    }

    /// Takes the news that the policy, a credential or the devices have changed: every right is decided again before it is
    /// used again.
    pub fn handle_rights_changed(&mut self, now: Now) {
        self.rights.clear();
        let asking: Vec<u64> = self
            .devices
            .values()
            .flatten()
            .copied()
            .filter(|number| {
                let entry = self.entries.get(number);
                entry.is_some_and(|entry| matches!(entry.phase, Phase::Asking))
            })
            .collect();
        for number in asking {
            self.admit(now, number);
        }
        self.hand_all(now);
    }

    /// Takes the word that a record is kept. One that nothing waits for is ignored.
    pub fn handle_stored(&mut self, now: Now, ticket: u64) {
        let Some(number) = self.tickets.remove(&ticket) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        entry.ticket = None;
        let device = Arc::clone(&entry.order.device);
        match &entry.phase {
            Phase::Accepting => {
                entry.phase = Phase::Queued;
                self.stats.accepted += 1;
                self.say(now, number);
            }
            Phase::Handing => {
                // What has changed meanwhile is looked at again.
                entry.phase = Phase::Queued;
                entry.marked = true;
            }
            Phase::Closing(_) => self.finished(now, number),
            Phase::Asking
            | Phase::Queued
            | Phase::Handed { .. }
            | Phase::Acknowledged
            | Phase::Finished(_)
            | Phase::Settled(_) => {}
        }
        self.schedule(now, number);
        self.hand_next(now, &device);
    }

    /// Takes the word that a record could not be kept: what rests on it is put off, and asked for again.
    pub fn handle_store_failed(&mut self, now: Now, ticket: u64) {
        let Some(number) = self.tickets.remove(&ticket) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        entry.ticket = None;
        match &entry.phase {
            Phase::Accepting => {
                self.dismiss(now, number, State::Refused(Refusal::Storage));
                return;
            }
            Phase::Handing => {
                entry.phase = Phase::Queued;
                entry.put_off(now);
            }
            Phase::Closing(_) => entry.put_off(now),
            Phase::Asking
            | Phase::Queued
            | Phase::Handed { .. }
            | Phase::Acknowledged
            | Phase::Finished(_)
            | Phase::Settled(_) => {}
        }
        self.schedule(now, number);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((at, number)) = self.timers.first().copied() {
            if at > now.instant {
                break;
            }
            self.timers.pop_first();
            let Some(entry) = self.entries.get_mut(&number) else {
                continue;
            };
            entry.wake_at = None;
            let device = Arc::clone(&entry.order.device);
            match &entry.phase {
                Phase::Settled(_) => {
                    self.remove(number);
                    continue;
                }
                Phase::Finished(_) if now.instant >= entry.deadline.until + self.settings.keep => {
                    self.remove(number);
                    continue;
                }
                Phase::Finished(_) => self.report(now, number),
                Phase::Closing(_) => self.store(now, number),
                Phase::Asking
                | Phase::Accepting
                | Phase::Queued
                | Phase::Handing
                | Phase::Handed { .. }
                | Phase::Acknowledged
                    if entry.deadline.left(now) == Left::Nothing =>
                {
                    self.expire(now, number);
                }
                Phase::Asking
                | Phase::Accepting
                | Phase::Queued
                | Phase::Handing
                | Phase::Handed { .. }
                | Phase::Acknowledged => {}
            }
            self.schedule(now, number);
            self.hand_next(now, &device);
        }
    }
}
