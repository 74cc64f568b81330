//! A collector, a gateway, a device and everything between them, one step at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::super::{
    CommandId, Commander, CommanderOutput, CommanderSettings, Delivered, Executor, ExecutorOutput,
    ExecutorSettings, Guarantee, Order, Permission, Stage, State,
};
use crate::{
    channel::frames,
    identity::Identifier,
    time::{ClockQuality, Instant, Now, WallTime},
};

pub(super) const COLLECTOR: Identifier = Identifier::from_bytes([1; 32]);
pub(super) const GATEWAY: Identifier = Identifier::from_bytes([2; 32]);
/// The wall clock at the start.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// Something that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    CommanderStore,
    ExecutorStore,
    ToGateway,
    ToCollector,
    Permit,
    Device,
    Answer,
}

/// What is on its way to stable storage.
enum Pending<K> {
    Store(u64, K, Vec<u8>),
    Forget(K),
}

/// A command as its submitter and its device know it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) guarantee: Guarantee,
    pub(super) device: Arc<str>,
    /// On the true clock.
    pub(super) deadline: Duration,
    /// When its device was handed it, on the true clock.
    pub(super) handed: Vec<Duration>,
    pub(super) accepted: bool,
    pub(super) ends: Vec<State>,
}

pub(super) struct World {
    pub(super) time: Duration,
    pub(super) gateway_quality: ClockQuality,
    gateway_started: Duration,
    collector_started: Duration,
    pub(super) commander: Commander,
    pub(super) executor: Executor,
    commander_kept: BTreeMap<CommandId, Vec<u8>>,
    executor_kept: BTreeMap<u64, Vec<u8>>,
    commander_pending: VecDeque<Pending<CommandId>>,
    executor_pending: VecDeque<Pending<u64>>,
    pub(super) to_gateway: VecDeque<Vec<u8>>,
    pub(super) to_collector: VecDeque<Vec<u8>>,
    questions: VecDeque<u64>,
    pub(super) handing: VecDeque<(u64, CommandId, Arc<Order>)>,
    answering: VecDeque<(Arc<str>, u64, CommandId)>,
    pub(super) up: bool,
    pub(super) awake: bool,
    pub(super) permission: Permission,
    pub(super) can_answer: bool,
    pub(super) known: BTreeMap<CommandId, Known>,
    pub(super) first_handed: Vec<CommandId>,
}

pub(super) fn order(guarantee: Guarantee, answer_wanted: bool, device: &str) -> Order {
    Order {
        guarantee,
        answer_wanted,
        device: device.into(),
        resource: "valve".into(),
        content_type: "text/plain".into(),
        payload: b"open".as_slice().into(),
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            time: Duration::ZERO,
            gateway_quality: ClockQuality::Synchronised,
            gateway_started: Duration::ZERO,
            collector_started: Duration::ZERO,
            commander: Commander::new(CommanderSettings::default()),
            executor: Executor::new(ExecutorSettings::default()),
            commander_kept: BTreeMap::new(),
            executor_kept: BTreeMap::new(),
            commander_pending: VecDeque::new(),
            executor_pending: VecDeque::new(),
            to_gateway: VecDeque::new(),
            to_collector: VecDeque::new(),
            questions: VecDeque::new(),
            handing: VecDeque::new(),
            answering: VecDeque::new(),
            up: false,
            awake: false,
            permission: Permission::Permitted,
            can_answer: true,
            known: BTreeMap::new(),
            first_handed: Vec::new(),
        }
    }

    fn wall(&self, quality: ClockQuality) -> WallTime {
        let now = u64::try_from(self.time.as_millis()).unwrap();
        let unix_millis = if quality == ClockQuality::Unknown {
            7
        } else {
            EPOCH_MS + now
        };
        WallTime { unix_millis, quality }
    }

    pub(super) fn collector_now(&self) -> Now {
        Now {
            instant: Instant::START + (self.time - self.collector_started),
            wall: self.wall(ClockQuality::Synchronised),
        }
    }

    pub(super) fn gateway_now(&self) -> Now {
        Now {
            instant: Instant::START + (self.time - self.gateway_started),
            wall: self.wall(self.gateway_quality),
        }
    }

    pub(super) fn submit(&mut self, id: CommandId, order: Order, remaining: Duration) {
        let now = self.collector_now();
        self.known.insert(
            id,
            Known {
                guarantee: order.guarantee,
                device: Arc::clone(&order.device),
                deadline: self.time + remaining,
                handed: Vec::new(),
                accepted: false,
                ends: Vec::new(),
            },
        );
        self.commander.submit(now, id, GATEWAY, order, remaining).unwrap();
        self.drain();
    }

    pub(super) fn cancel(&mut self, id: CommandId) {
        let now = self.collector_now();
        // One that is finished cannot be.
        let _ = self.commander.cancel(now, &id);
        self.drain();
    }

    pub(super) fn set_up(&mut self, up: bool) {
        self.to_gateway.clear();
        self.to_collector.clear();
        self.up = up;
        let (collector_now, gateway_now) = (self.collector_now(), self.gateway_now());
        if up {
            self.commander.handle_up(collector_now, GATEWAY);
            self.executor.handle_up(gateway_now, COLLECTOR);
        } else {
            self.commander.handle_down(collector_now, GATEWAY);
            self.executor.handle_down(COLLECTOR);
        }
        self.drain();
    }

    /// The device comes or goes. What it was being handed when it goes is cut short, and it may have had it or not.
    pub(super) fn set_awake(&mut self, awake: bool, had: impl Fn(usize) -> bool) {
        self.awake = awake;
        let now = self.gateway_now();
        for device in ["pump", "lamp"] {
            if awake {
                self.executor.handle_device_awake(now, device);
            } else {
                self.executor.handle_device_asleep(device);
            }
        }
        if !awake {
            for (index, (number, id, order)) in std::mem::take(&mut self.handing).into_iter().enumerate() {
                let word = if had(index) {
                    self.device_takes(number, id, &order);
                    Delivered::Interrupted
                } else if had(index + 1) {
                    Delivered::Interrupted
                } else {
                    Delivered::NotHanded
                };
                self.executor.handle_delivered(now, number, word);
            }
        }
        self.drain();
    }

    fn device_takes(&mut self, number: u64, id: CommandId, order: &Order) {
        let time = self.time;
        let known = self.known.get_mut(&id).unwrap();
        if known.handed.is_empty() {
            self.first_handed.push(id);
        }
        known.handed.push(time);
        if order.answer_wanted && self.can_answer {
            self.answering.push_back((Arc::clone(&order.device), number, id));
        }
    }

    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (step, possible) in [
            (Step::CommanderStore, !self.commander_pending.is_empty()),
            (Step::ExecutorStore, !self.executor_pending.is_empty()),
            (Step::ToGateway, !self.to_gateway.is_empty()),
            (Step::ToCollector, !self.to_collector.is_empty()),
            (Step::Permit, !self.questions.is_empty()),
            (Step::Device, self.awake && !self.handing.is_empty()),
            (Step::Answer, !self.answering.is_empty()),
        ] {
            if possible {
                steps.push(step);
            }
        }
        steps
    }

    pub(super) fn step(&mut self, step: Step) {
        let (collector_now, gateway_now) = (self.collector_now(), self.gateway_now());
        match step {
            Step::CommanderStore => match self.commander_pending.pop_front().unwrap() {
                Pending::Store(ticket, id, record) => {
                    self.commander_kept.insert(id, record);
                    self.commander.handle_stored(collector_now, ticket);
                }
                Pending::Forget(id) => {
                    self.commander_kept.remove(&id);
                }
            },
            Step::ExecutorStore => match self.executor_pending.pop_front().unwrap() {
                Pending::Store(ticket, number, record) => {
                    self.executor_kept.insert(number, record);
                    self.executor.handle_stored(gateway_now, ticket);
                }
                Pending::Forget(number) => {
                    self.executor_kept.remove(&number);
                }
            },
            Step::ToGateway => {
                let bytes = self.to_gateway.pop_front().unwrap();
                let (kind, body) = frames(&bytes).next().unwrap().unwrap();
                self.executor
                    .handle_frame(gateway_now, COLLECTOR, kind, body)
                    .unwrap();
            }
            Step::ToCollector => {
                let bytes = self.to_collector.pop_front().unwrap();
                let (kind, body) = frames(&bytes).next().unwrap().unwrap();
                self.commander
                    .handle_frame(collector_now, GATEWAY, kind, body)
                    .unwrap();
            }
            Step::Permit => {
                let question = self.questions.pop_front().unwrap();
                self.executor
                    .handle_permission(gateway_now, question, self.permission);
            }
            Step::Device => {
                let (number, id, order) = self.handing.pop_front().unwrap();
                self.device_takes(number, id, &order);
                let can_answer = self.can_answer;
                // Like MQTT at QoS 0: nothing is acknowledged.
                let word = match order.guarantee {
                    Guarantee::AtMostOnce => Delivered::Handed,
                    Guarantee::AtLeastOnce => Delivered::Acknowledged { can_answer },
                };
                self.executor.handle_delivered(gateway_now, number, word);
            }
            Step::Answer => {
                let (device, number, id) = self.answering.pop_front().unwrap();
                self.executor
                    .handle_answer(gateway_now, &device, (number, id), "text/plain", b"done")
                    .unwrap();
            }
        }
        self.drain();
    }

    /// The next store of one side fails.
    pub(super) fn fail_store(&mut self, gateway: bool) {
        let (collector_now, gateway_now) = (self.collector_now(), self.gateway_now());
        if gateway {
            if let Some(Pending::Store(ticket, ..)) = self.executor_pending.front() {
                self.executor.handle_store_failed(gateway_now, *ticket);
                self.executor_pending.pop_front();
            }
        } else if let Some(Pending::Store(ticket, ..)) = self.commander_pending.front() {
            self.commander.handle_store_failed(collector_now, *ticket);
            self.commander_pending.pop_front();
        }
        self.drain();
    }

    pub(super) fn crash_collector(&mut self, kept: usize) {
        let kept = kept.min(self.commander_pending.len());
        for pending in std::mem::take(&mut self.commander_pending).into_iter().take(kept) {
            match pending {
                Pending::Store(_, id, record) => {
                    self.commander_kept.insert(id, record);
                }
                Pending::Forget(id) => {
                    self.commander_kept.remove(&id);
                }
            }
        }
        self.up = false;
        self.to_gateway.clear();
        self.to_collector.clear();
        self.executor.handle_down(COLLECTOR);
        self.collector_started = self.time;
        self.commander = Commander::new(CommanderSettings::default());
        let now = self.collector_now();
        for record in self.commander_kept.values() {
            self.commander.restore(now, record).unwrap();
        }
        // What was kept and not told before the crash is told by what is kept.
        for view in self.commander.commands() {
            if let (Stage::Finished(report), Some(known)) = (view.stage, self.known.get_mut(&view.id))
                && known.ends.last() != Some(&report.state)
            {
                known.ends.push(report.state);
            }
        }
        self.drain();
    }

    /// `had` says which of what was being handed over its device has got.
    pub(super) fn crash_gateway(&mut self, kept: usize, had: impl Fn(usize) -> bool) {
        let kept = kept.min(self.executor_pending.len());
        for pending in std::mem::take(&mut self.executor_pending).into_iter().take(kept) {
            match pending {
                Pending::Store(_, number, record) => {
                    self.executor_kept.insert(number, record);
                }
                Pending::Forget(number) => {
                    self.executor_kept.remove(&number);
                }
            }
        }
        for (index, (number, id, order)) in std::mem::take(&mut self.handing).into_iter().enumerate() {
            if had(index) {
                self.device_takes(number, id, &order);
            }
        }
        self.up = false;
        self.awake = false;
        self.questions.clear();
        self.to_gateway.clear();
        self.to_collector.clear();
        let collector_now = self.collector_now();
        self.commander.handle_down(collector_now, GATEWAY);
        self.gateway_started = self.time;
        self.executor = Executor::new(ExecutorSettings::default());
        let now = self.gateway_now();
        for record in self.executor_kept.values() {
            self.executor.restore(now, record).unwrap();
        }
        self.drain();
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.time += by;
        let (collector_now, gateway_now) = (self.collector_now(), self.gateway_now());
        if self
            .commander
            .poll_timeout()
            .is_some_and(|at| at <= collector_now.instant)
        {
            self.commander.handle_timeout(collector_now);
        }
        if self
            .executor
            .poll_timeout()
            .is_some_and(|at| at <= gateway_now.instant)
        {
            self.executor.handle_timeout(gateway_now);
        }
        self.drain();
        for (after, at) in [
            (collector_now.instant, self.commander.poll_timeout()),
            (gateway_now.instant, self.executor.poll_timeout()),
        ] {
            assert!(
                at.is_none_or(|at| at > after),
                "a timer stays due: {at:?} at {after}"
            );
        }
    }

    /// Lets everything happen that can, in a fixed order.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            let Some(step) = self.steps().first().copied() else {
                return;
            };
            self.step(step);
        }
        panic!("it never comes to rest");
    }

    /// Lets things happen until every command is kept by its collector.
    pub(super) fn run_until_accepted(&mut self) {
        while self.known.values().any(|known| !known.accepted) {
            let step = self.steps().first().copied().unwrap();
            self.step(step);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.commander.poll_output() {
            match output {
                CommanderOutput::Send {
                    gateway,
                    frames: bytes,
                } => {
                    assert_eq!(gateway, GATEWAY);
                    assert!(self.up, "frames without a channel");
                    for frame in frames(&bytes) {
                        let (kind, body) = frame.unwrap();
                        let mut one = Vec::new();
                        crate::channel::put_frame(&mut one, kind, body);
                        self.to_gateway.push_back(one);
                    }
                }
                CommanderOutput::Store { ticket, id, record } => {
                    self.commander_pending
                        .push_back(Pending::Store(ticket, id, record));
                }
                CommanderOutput::Forget { id } => self.commander_pending.push_back(Pending::Forget(id)),
                CommanderOutput::Accepted { id } => self.known.get_mut(&id).unwrap().accepted = true,
                CommanderOutput::NotKept { id } => {
                    let known = self.known.remove(&id).unwrap();
                    assert!(!known.accepted && known.handed.is_empty());
                }
                CommanderOutput::Progress { .. } => {}
                CommanderOutput::Finished { report } => {
                    let known = self.known.get_mut(&report.id).unwrap();
                    known.ends.push(report.state);
                }
            }
        }
        while let Some(output) = self.executor.poll_output() {
            match output {
                ExecutorOutput::Send { collector, frame } => {
                    assert_eq!(collector, COLLECTOR);
                    assert!(self.up, "frames without a channel");
                    self.to_collector.push_back(frame);
                }
                ExecutorOutput::Authorise { question, .. } => self.questions.push_back(question),
                ExecutorOutput::Store {
                    ticket,
                    number,
                    record,
                } => {
                    self.executor_pending
                        .push_back(Pending::Store(ticket, number, record));
                }
                ExecutorOutput::Forget { number } => {
                    self.executor_pending.push_back(Pending::Forget(number));
                }
                ExecutorOutput::Deliver {
                    number, id, order, ..
                } => {
                    assert!(self.awake, "a device that sleeps is handed something");
                    self.handing.push_back((number, id, order));
                }
                ExecutorOutput::Withdraw { number } => {
                    let before = self.handing.len();
                    self.handing.retain(|(handed, ..)| *handed != number);
                    if self.handing.len() < before {
                        let now = self.gateway_now();
                        self.executor.handle_delivered(now, number, Delivered::NotHanded);
                    }
                }
                ExecutorOutput::Finished { .. } => {}
            }
        }
    }

    /// Checks what is promised at any time.
    pub(super) fn check(&self) {
        for (id, known) in &self.known {
            let handed = known.handed.len();
            if known.guarantee == Guarantee::AtMostOnce {
                assert!(handed <= 1, "{id:?} was handed over {handed} times: {known:?}");
            }
            for end in &known.ends {
                match end {
                    State::Delivered | State::Answered(_) => assert!(handed > 0, "{id:?}: {known:?}"),
                    State::Expired
                    | State::Refused(_)
                    | State::UnknownDevice
                    | State::Cancelled
                    | State::Lost => assert_eq!(handed, 0, "{id:?}: {known:?}"),
                    State::Unconfirmed => {}
                    State::Queued | State::Acknowledged | State::Rejected(_) => {
                        panic!("{id:?} ends as {end:?}")
                    }
                }
            }
            assert!(
                known.ends.len() <= 1 || (known.ends.len() == 2 && known.ends[0] == State::Unconfirmed),
                "{id:?}: {known:?}"
            );
            if self.gateway_quality == ClockQuality::Synchronised {
                assert!(
                    known.handed.iter().all(|at| *at <= known.deadline),
                    "{id:?} was handed over too late: {known:?}"
                );
            }
        }
    }

    /// Checks what is promised in the end: everything that was accepted has one, and each device saw its commands in order.
    pub(super) fn check_end(&self) {
        self.check();
        for (id, known) in &self.known {
            assert!(
                !known.accepted || !known.ends.is_empty(),
                "{id:?} has no end: {known:?}, {:?}",
                self.commander.command(id)
            );
        }
        for device in ["pump", "lamp"] {
            let order: Vec<CommandId> = self
                .first_handed
                .iter()
                .copied()
                .filter(|id| self.known.get(id).is_some_and(|known| *known.device == *device))
                .collect();
            assert!(order.is_sorted(), "{device} saw {order:?}");
        }
    }
}
