//! What a commander is told.

use std::{sync::Arc, time::Duration};

use super::{CancelError, Commander, CommanderOutput, Entry, Phase, SubmitError, entry::weight};
use crate::{
    command::{
        CommandError, CommandId, DEADLINE_MAX, Guarantee, Order, RESULT, RecordError, Report, ResultAck,
        State,
        deadline::{Deadline, Left},
        record::CommanderRecord,
    },
    identity::Identifier,
    time::Now,
};

impl Commander {
    /// Takes up what an earlier run has kept, one record at a time, before anything else.
    ///
    /// # Errors
    /// [`RecordError`]; nothing has changed then.
    pub fn restore(&mut self, now: Now, record: &[u8]) -> Result<(), RecordError> {
        let record = CommanderRecord::decode(record)?;
        if self.by_id.contains_key(&record.id) || self.entries.contains_key(&record.number) {
            return Err(RecordError::Twice);
        }
        self.next_number = self.next_number.max(record.number.saturating_add(1));
        self.insert(now, Entry::restored(now, record));
        Ok(())
    }

    /// Takes a command for a device behind `gateway`. [`CommanderOutput::Accepted`] says when it is kept, and will be sent.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing has changed then.
    pub fn submit(
        &mut self,
        now: Now,
        id: CommandId,
        gateway: Identifier,
        order: Order,
        remaining: Duration,
    ) -> Result<(), SubmitError> {
        order.check()?;
        if remaining < Duration::from_millis(1) || remaining > DEADLINE_MAX {
            return Err(SubmitError::Deadline {
                secs: remaining.as_secs(),
            });
        }
        if self.by_id.contains_key(&id) {
            return Err(SubmitError::Known);
        }
        let max = self.settings.per_gateway_max;
        let unfinished = self
            .gateways
            .get(&gateway)
            .map_or(0, |gateway| gateway.unfinished.len());
        if unfinished >= max {
            return Err(SubmitError::Gateway { max });
        }
        self.make_room(weight(&order))?;
        let number = self.next_number;
        self.next_number += 1;
        let times = (Deadline::after(now, remaining), now.wall.unix_millis);
        self.insert(now, Entry::new(number, id, gateway, Arc::new(order), times));
        self.store(now, number);
        Ok(())
    }

    /// Takes a command back. Whether that came in time is told by [`CommanderOutput::Finished`].
    ///
    /// # Errors
    /// [`CancelError`]; nothing has changed then.
    pub fn cancel(&mut self, now: Now, id: &CommandId) -> Result<(), CancelError> {
        let number = *self.by_id.get(id).ok_or(CancelError::Unknown)?;
        let entry = self.entries.get_mut(&number).ok_or(CancelError::Unknown)?;
        match &mut entry.phase {
            Phase::Closing { report, .. } | Phase::Finished(report) => {
                return Err(CancelError::Finished {
                    state: report.state.name(),
                });
            }
            Phase::Keeping | Phase::Waiting { .. } => {
                let report = own_report(now, *id, State::Cancelled);
                self.close(now, number, report, false);
            }
            // What is being kept now says already whatever happens next.
            Phase::Leaving => entry.cancel = true,
            Phase::Sent {
                attempt, repeat_at, ..
            } => {
                if !entry.cancel {
                    (*attempt, *repeat_at) = (0, now.instant);
                    entry.cancel = true;
                    self.store(now, number);
                }
            }
        }
        self.pump_of(now, number);
        Ok(())
    }

    /// Takes the news that a gateway's channel is up, or another one is.
    pub fn handle_up(&mut self, now: Now, gateway: Identifier) {
        let state = self.gateways.entry(gateway).or_default();
        state.up = true;
        for number in &state.unfinished {
            if let Some(entry) = self.entries.get_mut(number)
                && let Phase::Sent {
                    heard,
                    attempt,
                    repeat_at,
                    ..
                } = &mut entry.phase
            {
                (*heard, *attempt, *repeat_at) = (false, 0, now.instant);
            }
        }
        self.pump(now, gateway);
    }

    /// Takes the news that a gateway's channel is gone.
    pub fn handle_down(&mut self, now: Now, gateway: Identifier) {
        let Some(state) = self.gateways.get_mut(&gateway) else {
            return;
        };
        state.up = false;
        if state.unfinished.is_empty() {
            self.gateways.remove(&gateway);
            return;
        }
        self.pump(now, gateway);
    }

    /// Takes a Result.
    ///
    /// # Errors
    /// [`CommandError`]; nothing has changed then.
    pub fn handle_frame(
        &mut self,
        now: Now,
        gateway: Identifier,
        kind: u8,
        body: &[u8],
    ) -> Result<(), CommandError> {
        if kind != RESULT {
            return Err(CommandError::OutOfPlace { kind });
        }
        let report = Report::decode(body)?;
        let number = self.by_id.get(&report.id).copied();
        let entry = number.and_then(|number| self.entries.get(&number));
        let Some(entry) = entry.filter(|entry| entry.gateway == gateway) else {
            // It was forgotten here. The gateway may forget it as well; it can only speak of what is its own.
            self.acknowledge(gateway, &report);
            return Ok(());
        };
        self.take_report(now, entry.number, report);
        self.pump(now, gateway);
        Ok(())
    }

    fn take_report(&mut self, now: Now, number: u64, report: Report) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        match &mut entry.phase {
            Phase::Sent {
                heard,
                known,
                attempt,
                repeat_at,
                ..
            } => {
                if report.state.is_final() {
                    if report.state == State::Lost && entry.order.guarantee == Guarantee::AtLeastOnce {
                        // It does no harm to send it again, unless it is not wanted any more.
                        if !entry.cancel {
                            (*known, *heard) = (None, false);
                            // At once the first time; a gateway that says so again and again is not believed so fast.
                            if *attempt <= 1 {
                                *repeat_at = now.instant;
                            }
                        }
                        return;
                    }
                    self.close(now, number, report, true);
                    return;
                }
                *heard = true;
                if !entry.cancel {
                    *attempt = 0;
                }
                // An older word that was late says nothing new.
                if *known != Some(State::Acknowledged) && known.as_ref() != Some(&report.state) {
                    *known = Some(report.state.clone());
                    self.outputs.push_back(CommanderOutput::Progress {
                        id: report.id,
                        state: report.state,
                    });
                }
                self.schedule(now, number);
            }
            Phase::Finished(before) => {
                let better = before.state == State::Unconfirmed && report.state.is_final();
                if better && report.state != State::Unconfirmed && report.state != State::Lost {
                    self.close(now, number, report, true);
                } else {
                    let gateway = entry.gateway;
                    self.acknowledge(gateway, &report);
                }
            }
            // A gateway that speaks of what was not sent to it remembers more than this collector, whose copy is old.
            Phase::Keeping | Phase::Waiting { .. } | Phase::Leaving => {
                if report.state.is_final() {
                    self.close(now, number, report, true);
                }
            }
            Phase::Closing { .. } => {}
        }
    }

    fn acknowledge(&mut self, gateway: Identifier, report: &Report) {
        if report.state.is_final() {
            let mut frames = Vec::new();
            ResultAck { id: report.id }.put(&mut frames);
            self.outputs.push_back(CommanderOutput::Send { gateway, frames });
        }
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
        let (id, gateway) = (entry.id, entry.gateway);
        match &entry.phase {
            Phase::Keeping => {
                entry.phase = Phase::waiting();
                self.outputs.push_back(CommanderOutput::Accepted { id });
            }
            Phase::Leaving if entry.cancel => {
                let report = own_report(now, id, State::Cancelled);
                self.close(now, number, report, false);
            }
            Phase::Leaving => {
                entry.phase = Phase::Waiting {
                    marked: true,
                    not_before: None,
                };
            }
            Phase::Closing { .. } => {
                if let Some((report, by_gateway)) = entry.closed(now) {
                    if by_gateway && self.gateways.get(&gateway).is_some_and(|state| state.up) {
                        self.acknowledge(gateway, &report);
                    }
                    self.outputs.push_back(CommanderOutput::Finished { report });
                }
                if let Some(state) = self.gateways.get_mut(&gateway) {
                    state.unfinished.remove(&number);
                }
            }
            Phase::Waiting { .. } | Phase::Sent { .. } | Phase::Finished(_) => {}
        }
        self.schedule(now, number);
        self.pump(now, gateway);
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
        let id = entry.id;
        if entry.store_failed(now) {
            if entry.cancel && matches!(entry.phase, Phase::Waiting { .. }) {
                let report = own_report(now, id, State::Cancelled);
                self.close(now, number, report, false);
            }
            self.schedule(now, number);
        } else {
            self.outputs.push_back(CommanderOutput::NotKept { id });
            self.remove(number);
        }
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
            let id = entry.id;
            match &mut entry.phase {
                Phase::Finished(_) => {
                    self.forget(number);
                    continue;
                }
                Phase::Waiting { .. } if entry.deadline.left(now) == Left::Nothing => {
                    let report = own_report(now, id, State::Expired);
                    self.close(now, number, report, false);
                }
                Phase::Sent { .. } if now.instant >= entry.deadline.until + super::RESULT_WAIT => {
                    let report = own_report(now, id, State::Unconfirmed);
                    self.close(now, number, report, false);
                }
                Phase::Closing { again_at, .. } => {
                    if again_at.take().is_some() {
                        self.store(now, number);
                    }
                }
                Phase::Keeping | Phase::Waiting { .. } | Phase::Leaving | Phase::Sent { .. } => {}
            }
            self.pump_of(now, number);
            self.schedule(now, number);
        }
    }

    fn pump_of(&mut self, now: Now, number: u64) {
        if let Some(gateway) = self.entries.get(&number).map(|entry| entry.gateway) {
            self.pump(now, gateway);
        }
    }

    fn insert(&mut self, now: Now, entry: Entry) {
        let number = entry.number;
        self.bytes += entry.bytes;
        self.by_id.insert(entry.id, number);
        if !entry.is_finished() {
            let gateway = self.gateways.entry(entry.gateway).or_default();
            gateway.unfinished.insert(number);
        }
        self.entries.insert(number, entry);
        self.schedule(now, number);
    }

    /// Makes room for one more command, at the cost of the oldest finished ones.
    fn make_room(&mut self, weight: usize) -> Result<(), SubmitError> {
        let max = (self.settings.commands_max, self.settings.bytes_max);
        let (mut count, mut bytes) = (self.entries.len(), self.bytes);
        let mut given_up = Vec::new();
        for (number, entry) in &self.entries {
            if count < max.0 && bytes + weight <= max.1 {
                break;
            }
            if entry.is_finished() {
                given_up.push(*number);
                count -= 1;
                bytes -= entry.bytes;
            }
        }
        if count >= max.0 || bytes + weight > max.1 {
            return Err(SubmitError::Full {
                count: self.entries.len(),
                bytes: self.bytes,
            });
        }
        for number in given_up {
            self.forget(number);
        }
        Ok(())
    }
}

/// What this side finds out by itself.
fn own_report(now: Now, id: CommandId, state: State) -> Report {
    Report {
        id,
        at: now.wall,
        state,
    }
}
