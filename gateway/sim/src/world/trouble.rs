//! What goes wrong, and that it ends.

use std::time::Duration;

use fieldgate_proto::time::ClockQuality;

use super::{Event, World};
use crate::{
    host::{Host, Role},
    pipe::Side,
    scenario::{Clock, Fault, Stop},
};

impl World<'_, '_> {
    pub(super) fn begin_fault(&mut self, number: usize) {
        let Some((_, fault)) = self.scenario.faults.get(number) else {
            return;
        };
        let fault = *fault;
        self.tell(|_| format!("*** {fault:?}"));
        let lasting = match fault {
            Fault::Stop { host, lasting, how } => {
                if host < self.scenario.gateways && self.dice.one_in(2) {
                    // Where it hurts most.
                    self.doomed.insert(host, (how, lasting));
                } else {
                    self.stop(host, how, lasting);
                }
                None
            }
            Fault::Reset { between } => {
                if self.reset(between) {
                    self.report.resets += 1;
                }
                None
            }
            Fault::Partition { between, lasting } => {
                self.block(between, lasting);
                self.block((between.1, between.0), lasting);
                self.report.partitions += 1;
                Some(lasting)
            }
            Fault::OneWay { from, to, lasting } => {
                self.block((from, to), lasting);
                self.report.one_ways += 1;
                Some(lasting)
            }
            Fault::Disk {
                host,
                trouble,
                lasting,
            } => {
                if let Some(Role::Gateway(files)) = self.hosts.get_mut(host).map(|host| &mut host.role) {
                    files.disk.trouble = Some(trouble);
                }
                Some(lasting)
            }
            Fault::Rot { host } => {
                self.rot(host);
                None
            }
            Fault::SinkStops { lasting } => {
                self.stop_sink(true);
                self.report.sink_stops += 1;
                Some(lasting)
            }
            Fault::Renew { host } => {
                let now = self.now;
                if let Some(host) = self.hosts.get_mut(host).filter(|host| host.machine.is_some()) {
                    host.renew(now);
                    self.report.renewals += 1;
                }
                None
            }
            Fault::Restore { host, lasting, .. } => {
                self.stop(host, Stop::Kill, lasting);
                self.restore(host);
                None
            }
            Fault::Drain {
                host,
                within,
                lasting,
            } => {
                self.drain(host, within, lasting);
                None
            }
            Fault::WrongClock { host, lasting } => {
                let wrong = Clock {
                    ahead_millis: self.dice.pick(&[-1, 1]) * WRONG_MILLIS,
                    quality: ClockQuality::Synchronised,
                };
                self.set_clock(host, wrong);
                self.report.wrong_clocks += 1;
                Some(lasting)
            }
            Fault::StepClock { host, ahead_millis } => {
                let quality = ClockQuality::Synchronised;
                self.set_clock(
                    host,
                    Clock {
                        ahead_millis,
                        quality,
                    },
                );
                self.report.clock_steps += 1;
                None
            }
        };
        if let Some(lasting) = lasting {
            self.schedule(lasting, Event::End { fault: number });
        }
    }

    pub(super) fn end_fault(&mut self, number: usize) {
        let Some((_, fault)) = self.scenario.faults.get(number) else {
            return;
        };
        match *fault {
            Fault::Disk { host, .. } => {
                if let Some(Role::Gateway(files)) = self.hosts.get_mut(host).map(|host| &mut host.role) {
                    files.disk.trouble = None;
                }
            }
            Fault::Partition { between, .. } => {
                self.unblock(between);
                self.unblock((between.1, between.0));
            }
            Fault::OneWay { from, to, .. } => self.unblock((from, to)),
            Fault::SinkStops { .. } => self.stop_sink(false),
            Fault::WrongClock { host, .. } => self.set_clock(host, Clock::RIGHT),
            Fault::Drain { host, .. } => self.undrain(host),
            Fault::Stop { .. }
            | Fault::Reset { .. }
            | Fault::Rot { .. }
            | Fault::Renew { .. }
            | Fault::Restore { .. }
            | Fault::StepClock { .. } => {}
        }
    }

    /// Stops a host in the middle of whatever it does.
    pub(super) fn stop(&mut self, index: usize, how: Stop, lasting: Duration) {
        let Some(host) = self.hosts.get_mut(index).filter(|host| host.machine.is_some()) else {
            return;
        };
        host.stop(&mut self.report);
        self.model.streams_stopped(index, self.now);
        if let Role::Gateway(files) = &mut host.role {
            files.disk.stop(how, &mut self.dice);
            self.disk_busy_until.remove(&index);
        }
        let kind = match &host.role {
            Role::Gateway(_) => Some(0),
            Role::Relay => Some(1),
            Role::Collector(_) => Some(2),
            Role::Authority(_) | Role::Impostor => None,
        };
        if let Some(count) = kind.and_then(|kind| self.report.restarts.get_mut(kind)) {
            *count += 1;
        }
        // A kernel tells the neighbours, a dead machine does not: they notice at its next start, or by themselves.
        let silence = match how {
            Stop::Kill => Duration::ZERO,
            Stop::PowerCut => self.dice.millis(0, 80_000),
        };
        let mut ends = Vec::new();
        for (number, pipe) in &self.pipes {
            for side in Side::BOTH {
                if pipe.end(side).host == index && pipe.end(side).open {
                    ends.push((*number, side));
                }
            }
        }
        if silence > LINK_SILENCE_MAX && !ends.is_empty() {
            self.report.silent_ends += 1;
        }
        for (number, side) in ends {
            self.hang_up(number, side, silence);
        }
        self.tell(|world| format!("{} stops: {how:?}", world.name(index)));
        self.down.insert(index);
        self.schedule(lasting, Event::Start { host: index });
    }

    pub(super) fn start(&mut self, index: usize) {
        let now = self.now;
        if !self.down.remove(&index) || self.is_impostor(index) && self.healed_at.is_some() {
            return;
        }
        if let Some(host) = self.hosts.get_mut(index) {
            host.start(now, self.scenario, &mut self.model);
        }
        self.tell(|world| {
            let from = world.hosts.get(index).and_then(Host::journal_keys);
            format!(
                "{} starts, journal {:?}",
                world.name(index),
                from.map(|keys| keys.map(|key| key.1).0)
            )
        });
        self.started_trust(index);
        if self.scenario.all_collectors().contains(&index) && self.sink_is_stopped() {
            self.stop_sink_of(index, true);
        }
        self.turn(index);
    }

    fn drain(&mut self, index: usize, within: Duration, lasting: Duration) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(index).filter(|host| host.machine.is_some()) else {
            return;
        };
        host.drain(now, within);
        let drained = Event::Drained {
            host: index,
            life: host.life,
            until: now + super::nanos(within),
            lasting,
        };
        self.turn(index);
        self.schedule(DRAIN_LOOK, drained);
    }

    /// Stops a relay whose members have left, or whose time is over.
    pub(super) fn drained(&mut self, (index, life): (usize, u32), until: u64, lasting: Duration) {
        let host = self.hosts.get(index).filter(|host| host.life == life);
        let Some((left, is_waiting)) = host.and_then(Host::members_left) else {
            return;
        };
        if is_waiting && self.now < until {
            let again = Event::Drained {
                host: index,
                life,
                until,
                lasting,
            };
            return self.schedule(DRAIN_LOOK, again);
        }
        self.report.drains += 1;
        self.report.left_behind += left as u64;
        self.tell(|world| format!("{} is drained, {left} members are left", world.name(index)));
        self.stop(index, Stop::Kill, lasting);
    }

    fn undrain(&mut self, index: usize) {
        let now = self.now;
        if let Some(host) = self.hosts.get_mut(index) {
            host.undrain(now);
            self.turn(index);
        }
    }

    fn is_impostor(&self, index: usize) -> bool {
        index >= self.scenario.impostor_host()
    }

    /// Returns whether a stop of the sink is under way.
    fn sink_is_stopped(&self) -> bool {
        let elapsed = Duration::from_nanos(self.now);
        self.healed_at.is_none()
            && self.scenario.faults.iter().any(|(at, fault)| {
                matches!(fault, Fault::SinkStops { lasting } if *at <= elapsed && elapsed < *at + *lasting)
            })
    }

    fn stop_sink(&mut self, stopped: bool) {
        for collector in self.scenario.all_collectors() {
            self.stop_sink_of(collector, stopped);
        }
    }

    fn stop_sink_of(&mut self, collector: usize, stopped: bool) {
        if let Some(sink) = self.sink_mut(collector) {
            sink.stopped = stopped;
            self.turn(collector);
        }
    }

    /// Keeps a copy of a collector's store.
    pub(super) fn back_up(&mut self, index: usize) {
        if let Some(Role::Collector(store)) = self.hosts.get(index).map(|host| &host.role) {
            self.backups.insert(index, store.clone());
        }
    }

    /// Puts the copy in the place of a collector's store. It is down.
    fn restore(&mut self, index: usize) {
        let backup = self.backups.get(&index).cloned().unwrap_or_default();
        let Some(Role::Collector(store)) = self.hosts.get_mut(index).map(|host| &mut host.role) else {
            return;
        };
        if *store != backup {
            self.report.restored += 1;
        }
        self.model.restored(index, &backup);
        *store = backup;
    }

    fn set_clock(&mut self, index: usize, clock: Clock) {
        let now = self.now;
        if let Some(host) = self.hosts.get_mut(index) {
            host.clock = clock;
            self.model.trust.clock_set(index, now);
        }
    }

    /// Damages the disk of a gateway.
    fn rot(&mut self, index: usize) {
        let Some(host) = self.hosts.get_mut(index) else {
            return;
        };
        // Without a running journal it is not known whose sequences those are.
        let Some(keys) = host.journal_keys() else { return };
        let Role::Gateway(files) = &mut host.role else {
            return;
        };
        if let Some((lane, sequences)) = files.disk.rot(&mut self.dice) {
            self.model.damaged(keys[lane], sequences);
            self.report.rot += 1;
        }
    }

    /// Ends everything that goes wrong, and lets devices publish once more.
    pub(super) fn heal(&mut self) {
        self.tell(|_| "*** everything works from now on".to_owned());
        self.healed_at = Some(self.now);
        self.model.healed();
        self.doomed.clear();
        for fault in 0..self.scenario.faults.len() {
            self.end_fault(fault);
        }
        for index in 0..self.hosts.len() {
            if self.is_impostor(index) {
                self.stop(index, Stop::Kill, Duration::ZERO);
            } else {
                let after = self.dice.millis(0, 500);
                self.schedule(after, Event::Start { host: index });
            }
            self.set_clock(index, Clock::RIGHT);
        }
        self.heal_trust();
        for gateway in 0..self.scenario.gateways {
            self.schedule(Duration::from_secs(1), Event::Publish { gateway });
        }
    }
}

/// A link that is silent for so long is closed (PROTOCOL.md §3.1).
const LINK_SILENCE_MAX: Duration = Duration::from_secs(45);
/// Between two looks of a relay whether it may stop.
const DRAIN_LOOK: Duration = Duration::from_millis(200);
/// Three days: longer than an attestation.
const WRONG_MILLIS: i64 = 3 * 86_400_000;
