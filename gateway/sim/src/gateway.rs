//! A gateway's journal in one life: what it wants from its disk, and what devices give it.

use std::{collections::VecDeque, time::Duration};

use fieldgate_adapters::{
    class,
    reading::{Reading, UserProperties},
};
use fieldgate_proto::{
    delivery::{LaneSettings, PerLane},
    entropy::Entropy as _,
    identity::Identifier,
    journal::{JournalSettings, Lanes, LanesOutput, Output},
    link::Class,
    time::{Instant, Now},
};

use crate::{
    dice::Dice,
    disk::{Disk, Done, Hand},
    model::{MARKER, Model, Policy},
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
    pub(crate) journal: Lanes,
    pub(crate) keys: PerLane<SourceKey>,
    /// The next sequence of each lane.
    next: PerLane<u64>,
    /// Tickets that are not promised, with lane and sequence.
    tickets: VecDeque<(u64, Class, u64)>,
    pending_since: Option<Instant>,
    /// Operations that were given to the disk and whose end has to be scheduled.
    pub(crate) begun: Vec<Hand>,
    pub(crate) refused: u64,
    /// What policy discarded.
    pub(crate) discarded: u64,
}

impl JournalHost {
    /// Recovers what is on the disk, for so many uplinks.
    pub(crate) fn recover(
        files: &mut GatewayDisk,
        settings: &PerLane<JournalSettings>,
        (gateway, uplinks, dice): (Identifier, usize, &mut Dice),
        model: &mut Model,
    ) -> Self {
        let names: Vec<u64> = (1..=uplinks as u64).collect();
        let ids = [(); 3].map(|()| {
            let mut fresh_id = [0; 16];
            dice.fill(&mut fresh_id);
            fresh_id
        });
        let (journal, reports) = files.disk.recover(settings, ids, &names);
        let keys = PerLane::from_fn(|lane| (gateway, *journal.lane(lane).id()));
        for (lane, report) in Class::ALL.into_iter().zip(&reports) {
            model.recovered(keys[lane], report, Policy::of(&settings[lane]));
        }
        Self {
            journal,
            keys,
            next: PerLane(reports.map(|report| report.next)),
            tickets: VecDeque::new(),
            pending_since: None,
            begun: Vec::new(),
            refused: 0,
            discarded: 0,
        }
    }

    /// Returns what the lanes have for an uplink.
    pub(crate) fn lane_settings(&self, uplink: usize) -> PerLane<LaneSettings> {
        PerLane::from_fn(|lane| {
            let journal = self.journal.lane(lane);
            LaneSettings {
                journal: *journal.id(),
                first: journal.first_available(),
                available: journal.committed(),
                confirmed: journal.confirmed(uplink).unwrap_or(0),
            }
        })
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
            let class = devices.classes.pick(dice);
            let body = reading(now, files.published, class, devices, dice);
            match self
                .journal
                .append(class, now.wall, |out| out.extend_from_slice(&body))
            {
                Ok(ticket) => {
                    taken += 1;
                    let sequence = self.next[class];
                    self.next[class] += 1;
                    self.tickets.push_back((ticket, class, sequence));
                    model.appended(self.keys[class], sequence, body);
                }
                // The device is not acknowledged, so nobody was promised anything.
                Err(_) => self.refused += 1,
            }
        }
        taken
    }

    /// Flushes when it is time, and gives the disk what the journal wants. Returns how far lanes are on stable storage whose
    /// position moved.
    pub(crate) fn execute(
        &mut self,
        now: Now,
        files: &mut GatewayDisk,
        model: &mut Model,
    ) -> PerLane<Option<u64>> {
        if self
            .journal
            .poll_timeout()
            .is_some_and(|deadline| now.instant >= deadline)
        {
            self.journal.handle_timeout(now);
        }
        if self.journal.pending_bytes() == 0 {
            // A new segment may have taken what waited before its time.
            self.pending_since = None;
        } else {
            let since = *self.pending_since.get_or_insert(now.instant);
            if now.instant >= since + COMMIT_DELAY {
                self.journal.flush();
                self.pending_since = None;
            }
        }
        let mut committed = PerLane::default();
        while let Some(output) = self.journal.poll_output() {
            match output {
                LanesOutput::Lane { lane, output } => match files.disk.begin(lane, output) {
                    Ok(hand) => self.begun.push(hand),
                    Err(Output::Committed { up_to }) => {
                        model.committed(self.keys[lane], up_to);
                        committed[lane] = Some(up_to);
                    }
                    Err(Output::Discarded { count, .. }) => self.discarded += count,
                    Err(_) => {}
                },
                LanesOutput::Committed { up_to } => self.promise(up_to, model),
            }
        }
        committed
    }

    /// Devices are acknowledged up to a ticket.
    fn promise(&mut self, up_to: u64, model: &mut Model) {
        while let Some((_, lane, sequence)) = self.tickets.pop_front_if(|(ticket, ..)| *ticket <= up_to) {
            model.acknowledged(self.keys[lane], sequence);
        }
    }

    /// Takes the end of a disk operation.
    pub(crate) fn handle_done(&mut self, now: Instant, (lane, done): (Class, Done)) {
        match done {
            Done::Written(bytes, result) => self.journal.handle_written(now, lane, bytes, result),
            Done::Created(segment, result) => self.journal.handle_created(now, lane, segment, result),
            Done::CursorWritten(result) => self.journal.handle_cursor_written(now, lane, result),
            Done::Read(bytes) => self.journal.handle_read(lane, bytes),
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
fn reading(now: Now, number: u64, class: Class, devices: &Devices, dice: &mut Dice) -> Vec<u8> {
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
        class: class::Class::from_code(class.bits()).expect("they are the same"),
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
        let identity = (Identifier::from_bytes([1; 32]), 1, &mut dice.fork());
        let mut host = JournalHost::recover(&mut files, &scenario.journal, identity, &mut model);
        let mut now = Now::default();
        for _ in 0..20 {
            host.publish(now, &mut files, (&scenario.devices, &mut dice), &mut model);
            now.instant = now.instant + COMMIT_DELAY;
            host.execute(now, &mut files, &mut model);
            for hand in std::mem::take(&mut host.begun) {
                host.handle_done(now.instant, files.disk.end(hand, &mut dice));
            }
        }
        assert!(
            Class::ALL
                .into_iter()
                .all(|lane| host.journal.lane(lane).committed() > 0)
        );
        assert!(files.disk.holds(MARKER));
        assert_eq!(model.take_broken(), None);
    }
}
