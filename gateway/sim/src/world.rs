//! A network and its time: events one after the other, and what they do to hosts and wires.

mod build;
mod network;
mod trouble;
mod trust;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fieldgate_proto::{
    channel::ChannelId,
    node::{AuthorityRequest, ConnectionKey, SourceIndex, Verdict},
    route::DropReason,
};

use crate::{
    attacker::Attacker,
    dice::Dice,
    disk::Hand,
    host::{Host, Role, Wishes},
    model::{self, Broken, Model, Violation, ensure},
    pipe::{Pipe, Side},
    report::{Report, Trace},
    scenario::{Scenario, Stop},
    sink::Store,
};

/// Something that happens at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    /// Bandwidth for the bytes that one end of a connection has queued.
    Pump { pipe: u64, side: Side },
    /// The oldest that is under way to this end arrives.
    Arrive { pipe: u64, side: Side },
    /// What an attacker kept back goes on.
    LetGo { pipe: u64, side: Side },
    /// The end of an attempt to dial.
    Dialled {
        host: usize,
        life: u32,
        neighbour: usize,
    },
    /// The end of a disk operation.
    DiskDone { host: usize, life: u32, hand: Hand },
    /// The sink has put some of what it took into its store.
    SinkStores { host: usize, life: u32 },
    /// The sink says so.
    SinkConfirms {
        host: usize,
        life: u32,
        source: SourceIndex,
        up_to: u64,
    },
    /// Devices publish.
    Publish { gateway: usize },
    /// A fault begins.
    Begin { fault: usize },
    /// Something that lasted is over.
    End { fault: usize },
    /// A host stops.
    Stop {
        host: usize,
        how: Stop,
        lasting: Duration,
    },
    /// A host starts.
    Start { host: usize },
    /// A relay that is being drained looks whether it may stop.
    Drained {
        host: usize,
        life: u32,
        until: u64,
        lasting: Duration,
    },
    /// Somebody has decided about a peer.
    Decided {
        host: usize,
        life: u32,
        attempt: u64,
        verdict: Verdict,
    },
    /// A token signs.
    Signed {
        host: usize,
        life: u32,
        channel: ChannelId,
        message: Vec<u8>,
    },
    /// The authority answers.
    Answered { life: u32, request: AuthorityRequest },
    /// A stranger asks to become a member.
    Enrol { host: usize },
    /// The authority publishes a list, and again after a while if it is to go on.
    PublishList { goes_on: bool },
    /// A gateway is revoked, or no more.
    Revoke { gateway: usize, revoked: bool },
    /// A host comes back with what it had kept long before.
    RollBack { host: usize },
    /// Somebody copies the store of a collector.
    BackUp { host: usize },
    /// Everything works from now on.
    Heal,
}

/// The whole simulation.
#[derive(Debug)]
pub(crate) struct World<'a, 't> {
    scenario: &'a Scenario,
    trace: &'a mut Trace<'t>,
    now: u64,
    dice: Dice,
    /// By time, then by order of scheduling.
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    hosts: Vec<Host>,
    pipes: BTreeMap<u64, Pipe>,
    /// By connection: its pipe and end.
    ends: BTreeMap<ConnectionKey, (u64, Side)>,
    next_pipe: u64,
    /// From which host nothing passes to which other, and until when.
    blocked: BTreeMap<(usize, usize), u64>,
    /// What would have happened on their connections, in order, and which way it would have gone.
    postponed: Vec<((usize, usize), Event)>,
    wires: BTreeMap<(usize, usize), WireProfile>,
    /// When the storage thread of a gateway is done with what it has.
    disk_busy_until: BTreeMap<usize, u64>,
    attacker: Option<Attacker>,
    /// Hosts that stopped and will be started by an event.
    down: BTreeSet<usize>,
    /// Gateways that will stop in the middle of their next write.
    doomed: BTreeMap<usize, (Stop, Duration)>,
    /// Copies of collectors' stores.
    backups: BTreeMap<usize, Store>,
    model: Model,
    report: Report,
    healed_at: Option<u64>,
    fingerprint: Fingerprint,
    /// Events in a row at the same moment.
    steps_at_once: u64,
}

/// What the wire between two hosts is like.
#[derive(Clone, Copy, Debug)]
struct WireProfile {
    latency: Duration,
    bytes_per_sec: u64,
    /// Bytes that arrive in one piece, at the most.
    piece_max: u64,
}

impl World<'_, '_> {
    /// Plays until everything has settled.
    pub(crate) fn run(mut self) -> Result<Report, Violation> {
        loop {
            if let Some(broken) = self.model.take_broken() {
                return Err(self.violation(broken));
            }
            if self.is_settled() {
                return self.finish();
            }
            if let Some(healed_at) = self.healed_at
                && self.now > healed_at + nanos(self.scenario.settle_max())
            {
                let broken = ensure(false, "everything settles after healing", || self.describe());
                return broken
                    .map_err(|broken| self.violation(broken))
                    .map(|()| self.report);
            }
            let before = self.now;
            self.step();
            self.steps_at_once = if self.now > before {
                0
            } else {
                self.steps_at_once + 1
            };
            let check = ensure(self.steps_at_once < STEPS_AT_ONCE_MAX, "time goes on", || {
                let wakes = self.hosts.iter().map(|host| (&host.name, host.wakes_at()));
                format!("{:?}", wakes.collect::<Vec<_>>())
            });
            self.model.note(check);
        }
    }

    /// Plays the next event, or lets the host do what is due next.
    fn step(&mut self) {
        self.report.steps += 1;
        self.model.millis = self.now / 1_000_000;
        let next_event = self.events.first_key_value().map(|((at, _), _)| *at);
        let wakes = self.hosts.iter().enumerate();
        let next_wake = wakes
            .filter_map(|(index, host)| Some((host.wakes_at()?, index)))
            .min();
        match (next_event, next_wake) {
            (event_at, Some((at, host))) if event_at.is_none_or(|event_at| at < event_at) => {
                self.now = self.now.max(at);
                self.turn(host);
            }
            (Some(at), _) => {
                self.now = self.now.max(at);
                if let Some((_, event)) = self.events.pop_first() {
                    self.handle(event);
                }
            }
            (None, _) => self
                .model
                .note(ensure(false, "something happens next", String::new)),
        }
    }

    fn handle(&mut self, event: Event) {
        self.fingerprint.add(self.now);
        match event {
            Event::Pump { pipe, side } => self.pump(pipe, side),
            Event::Arrive { pipe, side } => self.arrive(pipe, side),
            Event::LetGo { pipe, side } => self.let_go(pipe, side),
            Event::Dialled {
                host,
                life,
                neighbour,
            } => self.dialled(host, life, neighbour),
            Event::DiskDone { host, life, hand } => self.disk_done(host, life, hand),
            Event::SinkStores { host, life } => self.sink_stores(host, life),
            Event::SinkConfirms {
                host,
                life,
                source,
                up_to,
            } => self.sink_confirms(host, life, source, up_to),
            Event::BackUp { host } => self.back_up(host),
            Event::Publish { gateway } => self.publish(gateway),
            Event::Begin { fault } => self.begin_fault(fault),
            Event::End { fault } => self.end_fault(fault),
            Event::Stop { host, how, lasting } => self.stop(host, how, lasting),
            Event::Start { host } => self.start(host),
            Event::Drained {
                host,
                life,
                until,
                lasting,
            } => self.drained((host, life), until, lasting),
            Event::Decided {
                host,
                life,
                attempt,
                verdict,
            } => self.decided(host, life, attempt, verdict),
            Event::Signed {
                host,
                life,
                channel,
                message,
            } => self.signed(host, life, channel, &message),
            Event::Answered { life, request } => self.answered(life, &request),
            Event::Enrol { host } => self.enrol(host),
            Event::PublishList { goes_on } => self.publish_list(goes_on),
            Event::Revoke { gateway, revoked } => self.revoke(gateway, revoked),
            Event::RollBack { host } => self.roll_back(host),
            Event::Heal => self.heal(),
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.schedule_at(self.now + nanos(after), event);
    }

    fn schedule_at(&mut self, at: u64, event: Event) {
        self.events.insert((at.max(self.now), self.next_event), event);
        self.next_event += 1;
    }

    /// Lets a host end its turn, and gives the network what came out of it.
    fn turn(&mut self, index: usize) {
        let now = self.now;
        let hosts = self.hosts.len();
        let Some(host) = self.hosts.get_mut(index) else {
            return;
        };
        let wishes = host.end_turn(now, &mut self.model);
        let is_attacked = self.scenario.is_attacked(index);
        host.check_bounds((hosts, is_attacked), &mut self.model);
        self.fulfil(index, wishes);
        self.send(index);
        self.begin_disk_operations(index);
        self.begin_storing(index);
    }

    fn fulfil(&mut self, index: usize, wishes: Wishes) {
        self.ask(index, wishes.accesses, wishes.signs, wishes.requests);
        for wall in wishes.times {
            self.told_time(index, wall);
        }
        for event in wishes.events {
            self.fingerprint.add(index as u64);
            self.count_trust(&event);
            self.tell(|world| format!("{}: {event:?}", world.name(index)));
        }
        for neighbour in wishes.dials {
            self.dial(index, neighbour);
        }
        for connection in wishes.closes {
            self.close(index, connection);
        }
    }

    /// Schedules the ends of disk operations that the journal has begun.
    fn begin_disk_operations(&mut self, index: usize) {
        let millis = self.scenario.disk_millis.clone();
        let Some(host) = self.hosts.get_mut(index) else {
            return;
        };
        let Role::Gateway(files) = &host.role else { return };
        let slow = files.disk.trouble == Some(crate::scenario::DiskTrouble::Slow);
        let life = host.life;
        let machine = host.machine.as_mut();
        let Some(journal) = machine.and_then(|machine| machine.journal.as_mut()) else {
            return;
        };
        for hand in std::mem::take(&mut journal.begun) {
            let mut takes = self.dice.millis(millis.start, millis.end);
            if slow {
                takes += Duration::from_secs(1);
            }
            let at = match hand {
                Hand::Write(_) => self.now + nanos(takes),
                Hand::Storage => {
                    let busy_until = self.disk_busy_until.entry(index).or_default();
                    *busy_until = self.now.max(*busy_until) + nanos(takes);
                    *busy_until
                }
            };
            if matches!(hand, Hand::Write(_))
                && let Some((how, lasting)) = self.doomed.remove(&index)
            {
                let stop = Event::Stop {
                    host: index,
                    how,
                    lasting,
                };
                let within = self.dice.below(nanos(takes) + 1);
                self.schedule(Duration::from_nanos(within), stop);
            }
            self.schedule_at(
                at,
                Event::DiskDone {
                    host: index,
                    life,
                    hand,
                },
            );
        }
    }

    fn disk_done(&mut self, index: usize, life: u32, hand: Hand) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(index).filter(|host| host.life == life) else {
            return;
        };
        let instant = host.now(now).instant;
        let Role::Gateway(files) = &mut host.role else {
            return;
        };
        let machine = host.machine.as_mut();
        let Some(journal) = machine.and_then(|machine| machine.journal.as_mut()) else {
            return;
        };
        journal.handle_done(instant, files.disk.end(hand, &mut self.dice));
        self.turn(index);
    }

    fn begin_storing(&mut self, index: usize) {
        let life = self.hosts.get(index).map_or(0, |host| host.life);
        let Some(sink) = self.sink_mut(index) else { return };
        if !sink.has_work() || sink.storing {
            return;
        }
        sink.storing = true;
        let range = sink.plan().store_millis.clone();
        let takes = self.dice.millis(range.start, range.end);
        self.schedule(takes, Event::SinkStores { host: index, life });
    }

    fn sink_stores(&mut self, index: usize, life: u32) {
        let batches = self.dice.between(1, 8);
        let Some(host) = self.hosts.get_mut(index).filter(|host| host.life == life) else {
            return;
        };
        let Role::Collector(store) = &mut host.role else {
            return;
        };
        let Some(sink) = host.machine.as_mut().and_then(|machine| machine.sink.as_mut()) else {
            return;
        };
        sink.storing = false;
        if sink.stopped {
            return;
        }
        let range = sink.plan().confirm_millis.clone();
        let confirmations = sink.store(batches, store, (index, &mut self.model));
        // One delay for all, so that confirmations of a source come in their order.
        let takes = self.dice.millis(range.start, range.end);
        for (source, up_to) in confirmations {
            let confirms = Event::SinkConfirms {
                host: index,
                life,
                source,
                up_to,
            };
            self.schedule(takes, confirms);
        }
        self.turn(index);
    }

    fn sink_confirms(&mut self, index: usize, life: u32, source: SourceIndex, up_to: u64) {
        let Some(host) = self.hosts.get_mut(index).filter(|host| host.life == life) else {
            return;
        };
        host.handle_confirmed(source, up_to);
        self.turn(index);
    }

    fn sink_mut(&mut self, index: usize) -> Option<&mut crate::sink::Sink> {
        self.hosts.get_mut(index)?.machine.as_mut()?.sink.as_mut()
    }

    fn publish(&mut self, gateway: usize) {
        let now = self.now;
        let devices = &self.scenario.devices;
        if self.healed_at.is_none() {
            let pause = self
                .dice
                .millis(devices.pause_millis.start, devices.pause_millis.end);
            self.schedule(pause, Event::Publish { gateway });
        }
        let Some(host) = self.hosts.get_mut(gateway) else {
            return;
        };
        let time = host.now(now);
        let Role::Gateway(files) = &mut host.role else {
            return;
        };
        let machine = host.machine.as_mut();
        let Some(journal) = machine.and_then(|machine| machine.journal.as_mut()) else {
            return;
        };
        let with = (devices, &mut self.dice);
        self.report.appended += journal.publish(time, files, with, &mut self.model);
        self.turn(gateway);
    }

    /// Returns whether everything has arrived, is released, and healing is over.
    fn is_settled(&self) -> bool {
        let Some(healed_at) = self.healed_at else {
            return false;
        };
        // What devices publish at healing is in the journals by then.
        self.now > healed_at + nanos(Duration::from_secs(3))
            && self.down.is_empty()
            && self.lists_are_everywhere()
            && self.model.streams_are_settled()
            && self.hosts.iter().take(self.scenario.gateways).all(|host| {
                let machine = host.machine.as_ref();
                let journal = machine.and_then(|machine| machine.journal.as_ref());
                journal.is_some_and(|journal| {
                    let lanes = journal.journal.iter();
                    journal.journal.pending_bytes() == 0
                        && journal.keys.0.iter().all(|key| self.model.is_settled(*key))
                        && lanes
                            .map(|(_, lane)| lane)
                            .all(|lane| lane.released() == lane.committed())
                })
            })
    }

    fn finish(mut self) -> Result<Report, Violation> {
        self.model.finish();
        if let Some(broken) = self.model.take_broken() {
            return Err(self.violation(broken));
        }
        for host in &mut self.hosts {
            if let Role::Gateway(files) = &host.role {
                self.report.disk_faults += files.disk.faults;
            }
            host.stop(&mut self.report);
        }
        (self.report.acknowledged, self.report.delivered, self.report.lost) = self.model.totals();
        self.report.lost_by = self.model.lost_by();
        self.report.arrivals = std::mem::take(&mut self.model.arrivals);
        self.report.restores_noticed = self.model.restores_noticed;
        let streams = self.model.stream_report();
        self.report.streams.take_model(streams);
        let (frames, forwarded) = (self.report.frames, self.report.forwarded);
        if let Err(broken) = model::invariant_no_frame_goes_round_for_ever(frames, forwarded) {
            return Err(self.violation(broken));
        }
        self.report.tapped = self.model.tapped;
        if let Some(attacker) = self.attacker {
            self.report.attacks = attacker.done;
        }
        let settled_after = self.now - self.healed_at.unwrap_or(self.now);
        self.report.settled_after = Duration::from_nanos(settled_after);
        self.report.fingerprint = self.fingerprint.0;
        Ok(self.report)
    }

    fn violation(&self, broken: Broken) -> Violation {
        Violation {
            seed: self.scenario.seed,
            draw: self.scenario.draw,
            millis: self.now / 1_000_000,
            step: self.report.steps,
            sentence: broken.sentence,
            detail: broken.detail,
        }
    }

    /// Says where every gateway stands, for a run that does not settle.
    fn describe(&self) -> String {
        let mut text = self.model.describe_streams();
        for host in &self.hosts {
            let Some(machine) = &host.machine else {
                text.push_str(&format!("{} is down; ", host.name));
                continue;
            };
            if let Some(journal) = &machine.journal {
                for (lane, journal) in journal.journal.iter() {
                    text.push_str(&format!(
                        "{} {}: {:?}, {} bytes pending, committed {}, released {}; ",
                        host.name,
                        lane.name(),
                        journal.state(),
                        journal.pending_bytes(),
                        journal.committed(),
                        journal.released(),
                    ));
                }
                text.push_str(&format!(
                    "{:?}, {:?}; ",
                    machine.node.uplinks().collect::<Vec<_>>(),
                    machine
                        .node
                        .neighbours()
                        .map(|view| view.state)
                        .collect::<Vec<_>>(),
                ));
            }
            let dropped: Vec<(&str, u64)> = DropReason::ALL
                .into_iter()
                .map(|reason| (reason.name(), machine.node.router_stats().dropped(reason)))
                .filter(|(_, count)| *count > 0)
                .collect();
            let channels = machine.node.channel_stats();
            text.push_str(&format!("{}: dropped {dropped:?}, {channels:?}; ", host.name));
            for source in machine.node.sources() {
                text.push_str(&format!("{}: {source:?}; ", host.name));
            }
        }
        text
    }

    fn name(&self, host: usize) -> &str {
        self.hosts.get(host).map_or("?", |host| host.name.as_str())
    }

    /// Tells a line of the story.
    fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_on() {
            let text = format!("{:>9.3} {}", self.now as f64 / 1e9, line(self));
            self.trace.line(text);
        }
    }
}

/// Events at one moment from which on it is clear that they go on for ever.
const STEPS_AT_ONCE_MAX: u64 = 100_000;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A hash (FNV-1a) over what happens when.
#[derive(Debug)]
struct Fingerprint(u64);

impl Fingerprint {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, value: u64) {
        for byte in value.to_be_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
