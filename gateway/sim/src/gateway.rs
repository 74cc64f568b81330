//! A gateway's journal in one life: what it wants from its disk, and what devices give it.

use std::time::Duration;

use fieldgate_adapters::{
    class::Class,
    reading::{Reading, UserProperties},
};
use fieldgate_proto::{
    delivery::JournalId,
    identity::Identifier,
    journal::{Journal, JournalSettings, Output},
    time::{Instant, Now},
};

use crate::{
    dice::Dice,
    disk::{Disk, Done, Lane},
    model::{MARKER, Model},
    scenario::Devices,
    sink::SourceKey,
};

/// What a gateway has on its disk, for all its lives.
#[derive(Debug, Default)]
pub(crate) struct GatewayDisk {
    pub(crate) disk: Disk,
    /// Numbers readings over all lives, as devices would.
    published: u64,
}

/// A journal at work.
#[derive(Debug)]
pub(crate) struct JournalHost {
    pub(crate) journal: Journal,
    pub(crate) key: SourceKey,
    pending_since: Option<Instant>,
    /// Operations that were given to the disk and whose end has to be scheduled.
    pub(crate) begun: Vec<Lane>,
    pub(crate) refused: u64,
}

impl JournalHost {
    /// Recovers what is on the disk.
    pub(crate) fn recover(
        files: &mut GatewayDisk,
        settings: JournalSettings,
        (gateway, fresh_id): (Identifier, JournalId),
        model: &mut Model,
    ) -> Self {
        let (journal, report) = files.disk.recover(settings, fresh_id);
        let key = (gateway, *journal.id());
        model.recovered(key, &report);
        Self {
            journal,
            key,
            pending_since: None,
            begun: Vec::new(),
            refused: 0,
        }
    }

    /// Lets devices publish a burst; returns how many readings were taken.
    pub(crate) fn publish(
        &mut self,
        now: Now,
        files: &mut GatewayDisk,
        (devices, dice): (&Devices, &mut Dice),
        model: &mut Model,
    ) -> u64 {
        let count = dice.between(devices.burst.start, devices.burst.end);
        let mut taken = 0;
        for _ in 0..count {
            files.published += 1;
            let body = reading(now, files.published, devices, dice);
            match self.journal.append(1, |out| out.extend_from_slice(&body)) {
                Ok(sequence) => {
                    taken += 1;
                    model.appended(self.key, sequence, body);
                }
                // The device is not acknowledged, so nobody was promised anything.
                Err(_) => self.refused += 1,
            }
        }
        taken
    }

    /// Flushes when it is time, and gives the disk what the journal wants. Returns how far it is on stable storage if that
    /// moved.
    pub(crate) fn execute(
        &mut self,
        now: Instant,
        files: &mut GatewayDisk,
        model: &mut Model,
    ) -> Option<u64> {
        if self
            .journal
            .poll_timeout()
            .is_some_and(|deadline| now >= deadline)
        {
            self.journal.handle_timeout(now);
        }
        if self.journal.pending_bytes() == 0 {
            // A new segment may have taken what waited before its time.
            self.pending_since = None;
        } else {
            let since = *self.pending_since.get_or_insert(now);
            if now >= since + COMMIT_DELAY {
                self.journal.flush();
                self.pending_since = None;
            }
        }
        let mut committed = None;
        while let Some(output) = self.journal.poll_output() {
            match files.disk.begin(output) {
                Ok(lane) => self.begun.push(lane),
                Err(Output::Committed { up_to }) => {
                    model.committed(self.key, up_to);
                    committed = Some(up_to);
                }
                Err(_) => {}
            }
        }
        committed
    }

    /// Takes the end of a disk operation.
    pub(crate) fn handle_done(&mut self, now: Instant, done: Done) {
        match done {
            Done::Written(bytes, result) => self.journal.handle_written(now, bytes, result),
            Done::Created(segment, result) => self.journal.handle_created(now, segment, result),
            Done::CursorWritten(result) => self.journal.handle_cursor_written(now, result),
            Done::Read(bytes) => self.journal.handle_read(bytes),
            Done::Nothing => {}
        }
    }

    /// Returns when it has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let flush = self.pending_since.map(|since| since + COMMIT_DELAY);
        [self.journal.poll_timeout(), flush].into_iter().flatten().min()
    }
}

/// Encodes a reading with its number, the marker and some filling.
fn reading(now: Now, number: u64, devices: &Devices, dice: &mut Dice) -> Vec<u8> {
    let len = if dice.one_in(devices.long_one_in) {
        devices.payload_long
    } else {
        dice.between(devices.payload.start, devices.payload.end)
    };
    let mut payload = MARKER.to_vec();
    payload.extend_from_slice(format!("{number} ").as_bytes());
    let filling = dice.roll().to_be_bytes()[0] | 1;
    payload.resize(payload.len() + usize::try_from(len).unwrap_or(0), filling);
    let mut body = Vec::new();
    Reading {
        device: "press-1",
        resource: "hall/temperature",
        content_type: None,
        user_properties: UserProperties::EMPTY,
        payload: &payload,
        captured_at: now.wall,
        class: dice.pick(&Class::ALL),
    }
    .encode(&mut body)
    .expect("it is within its limits");
    body
}

/// How long readings wait for company before a block is written.
const COMMIT_DELAY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn the_marker_is_on_the_disk_in_clear_so_looking_for_it_on_wires_means_something() {
        let mut model = Model::default();
        let mut files = GatewayDisk::default();
        let scenario = Scenario::quiet(1);
        let mut dice = Dice::new(1);
        let key = (Identifier::from_bytes([1; 32]), [2; 16]);
        let mut host = JournalHost::recover(&mut files, scenario.journal, key, &mut model);
        let mut now = Now::default();
        for _ in 0..20 {
            host.publish(now, &mut files, (&scenario.devices, &mut dice), &mut model);
            now.instant = now.instant + COMMIT_DELAY;
            host.execute(now.instant, &mut files, &mut model);
            for lane in std::mem::take(&mut host.begun) {
                host.handle_done(now.instant, files.disk.end(lane, &mut dice));
            }
        }
        assert!(host.journal.committed() > 0);
        assert!(files.disk.holds(MARKER));
        assert_eq!(model.take_broken(), None);
    }
}
