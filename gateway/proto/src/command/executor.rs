//! The gateway's side: keeps commands, has devices handed them, and tells what became of them.

mod delivery;
mod ending;
mod entry;
mod inputs;
mod rights;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use entry::{Entry, Phase};
use rights::Rights;

use super::{
    CommandId, Order, Refusal, Report, State,
    commander::repeat_wait,
    deadline::{Deadline, Left},
};
use crate::{
    identity::Identifier,
    time::{Instant, Now},
};

/// Bounds of an [`Executor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutorSettings {
    /// Commands of one collector that are not finished, or whose result it has not acknowledged.
    pub commands_max: usize,
    /// Bytes of payloads and answers in all; an answer that is waited for counts with
    /// [`PAYLOAD_LEN_MAX`](super::PAYLOAD_LEN_MAX).
    pub bytes_max: usize,
    /// Finished commands of one collector whose ids are remembered.
    pub remembered_max: usize,
    /// How long after its deadline an id is remembered: longer than any copy of a frame can be on its way.
    pub grace: Duration,
    /// How long after the deadline a result is kept for a collector that does not come.
    pub keep: Duration,
}

impl Default for ExecutorSettings {
    /// 256 commands of each collector, 16 MiB, 16,384 ids for 10 minutes, results for a week.
    fn default() -> Self {
        Self {
            commands_max: 256,
            bytes_max: 16 << 20,
            remembered_max: 16_384,
            grace: Duration::from_mins(10),
            keep: Duration::from_hours(7 * 24),
        }
    }
}

/// Whether a collector may command a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may.
    Permitted,
    /// It may not.
    Refused,
    /// There is no such device.
    UnknownDevice,
    /// That cannot be told before the collector's channel is up. The command waits.
    Undecided,
}

impl Permission {
    /// Returns how a command ends that has it, if it does.
    const fn ending(self) -> Option<State> {
        match self {
            Self::Permitted | Self::Undecided => None,
            Self::Refused => Some(State::Refused(Refusal::NotAuthorised)),
            Self::UnknownDevice => Some(State::UnknownDevice),
        }
    }
}

/// What has become of what a device was to be handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The device has acknowledged it.
    Acknowledged {
        /// Whether an answer can come from it.
        can_answer: bool,
    },
    /// It went out and will not be acknowledged; an answer can come.
    Handed,
    /// The device refuses it, with a reason code (MQTT 5.0 §2.4).
    Rejected(u8),
    /// Nothing of it went out.
    NotHanded,
    /// It went out, and the device went away without a word.
    Interrupted,
}

/// An effect of an [`Executor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutorOutput {
    /// Send this frame in the channel to a collector.
    Send {
        /// To whom.
        collector: Identifier,
        /// A whole frame.
        frame: Vec<u8>,
    },
    /// Decide whether a collector may command a device, and answer with [`Executor::handle_permission`].
    Authorise {
        /// Comes back in the answer.
        question: u64,
        /// Who wants to.
        collector: Identifier,
        /// Which device.
        device: Arc<str>,
    },
    /// Keep this on stable storage in place of what was kept under this number, and answer with [`Executor::handle_stored`] or
    /// [`Executor::handle_store_failed`]. What is kept later replaces what was kept before, in the order of these outputs.
    Store {
        /// Comes back in the answer.
        ticket: u64,
        /// Which command.
        number: u64,
        /// All of it.
        record: Vec<u8>,
    },
    /// Remove what is kept under this number.
    Forget {
        /// Which command.
        number: u64,
    },
    /// Hand this to the device, and tell with [`Executor::handle_delivered`] what became of it. It must not be handed over
    /// twice on one such output if it is to be handed over at most once.
    Deliver {
        /// Comes back in the word on it; with `id` it makes an answer's correlation data.
        number: u64,
        /// The collector's name for it.
        id: CommandId,
        /// What the device is told.
        order: Arc<Order>,
        /// Until the deadline.
        left: Duration,
    },
    /// What a device was to be handed is not wanted any more; if it has not gone out, it shall not, which
    /// [`Delivered::NotHanded`] says.
    Withdraw {
        /// Which command.
        number: u64,
    },
    /// A command has come to its end.
    Finished {
        /// Whose it was.
        collector: Identifier,
        /// The collector's name for it.
        id: CommandId,
        /// For which device.
        device: Arc<str>,
        /// What became of it.
        state: State,
    },
}

/// What an [`Executor`] has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecutorStats {
    /// Commands accepted.
    pub accepted: u64,
    /// Copies of commands recognised.
    pub duplicates: u64,
    /// Commands not accepted.
    pub refused: u64,
    /// Times a device was to be handed a command.
    pub handed: u64,
    /// Commands that ended with the device's acknowledgement or answer.
    pub succeeded: u64,
    /// Commands that ended otherwise after they were accepted.
    pub failed: u64,
    /// Answers that nobody waited for.
    pub answers_ignored: u64,
}

/// What can be seen of a command that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingView {
    /// Whose it is.
    pub collector: Identifier,
    /// The collector's name for it.
    pub id: CommandId,
    /// For which device.
    pub device: Arc<str>,
    /// Where it stands: `asking`, `queued`, `handed`, `acknowledged` or `closing`.
    pub stage: &'static str,
}

/// Keeps commands, has devices handed them, and tells what became of them.
///
/// ```text
///  Asking ──permitted──▶ Accepting ─▶ Queued ─▶ Handing ──────▶ Handed ─▶ Acknowledged
///    │ (right)           (Store)      │  ▲ ▲   (Store: handed   │   │      │ (answer, deadline)
///    │                                │  │ └────── not handed, ─┘   │      │
///    ▼ refused, expired, cancelled    ▼  └──────── at least once    ▼      ▼
///  Settled ◀──ResultAck── Finished ◀── Closing ◀──────────────────────────────
///  (id remembered)        (reported)   (Store)
/// ```
///
/// Invariants: `Deliver` follows a stored Handing and nothing else; a command that may be handed over once has at most one
/// `Deliver` that was not answered by [`Delivered::NotHanded`], restarts included.
#[derive(Debug)]
pub struct Executor {
    settings: ExecutorSettings,
    entries: BTreeMap<u64, Entry>,
    by_id: BTreeMap<(Identifier, CommandId), u64>,
    /// Commands of a device that are not closing or finished.
    devices: BTreeMap<Arc<str>, BTreeSet<u64>>,
    /// Devices that can be handed something now.
    awake: BTreeSet<Arc<str>>,
    peers: BTreeMap<Identifier, Peer>,
    rights: Rights,
    tickets: BTreeMap<u64, u64>,
    timers: BTreeSet<(Instant, u64)>,
    next_number: u64,
    next_ticket: u64,
    bytes: usize,
    stats: ExecutorStats,
    outputs: VecDeque<ExecutorOutput>,
}

/// A collector's channel, and its commands.
#[derive(Debug, Default)]
struct Peer {
    up: bool,
    /// Commands that are not settled.
    open: usize,
    /// Finished commands whose result is not acknowledged.
    unreported: BTreeSet<u64>,
    /// Of these, those whose result was sent in this channel.
    in_flight: BTreeSet<u64>,
    /// Commands of which only the id is remembered.
    settled: BTreeSet<u64>,
}

impl Executor {
    /// Begins with nothing.
    #[must_use]
    pub fn new(settings: ExecutorSettings) -> Self {
        Self {
            settings,
            entries: BTreeMap::new(),
            by_id: BTreeMap::new(),
            devices: BTreeMap::new(),
            awake: BTreeSet::new(),
            peers: BTreeMap::new(),
            rights: Rights::default(),
            tickets: BTreeMap::new(),
            timers: BTreeSet::new(),
            next_number: 1,
            next_ticket: 1,
            bytes: 0,
            stats: ExecutorStats::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Returns the next effect.
    pub fn poll_output(&mut self) -> Option<ExecutorOutput> {
        self.outputs.pop_front()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns what was seen so far.
    #[must_use]
    pub const fn stats(&self) -> ExecutorStats {
        self.stats
    }

    /// Returns the bytes of payloads and answers that are kept, reserves for answers included.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the commands that are not finished, in the order they came.
    pub fn waiting(&self) -> impl Iterator<Item = WaitingView> + '_ {
        self.entries.values().filter_map(|entry| {
            Some(WaitingView {
                collector: entry.collector,
                id: entry.id,
                device: Arc::clone(&entry.order.device),
                stage: entry.phase.name()?,
            })
        })
    }

    /// Returns how many results wait for their collector.
    #[must_use]
    pub fn unreported(&self) -> usize {
        self.peers.values().map(|peer| peer.unreported.len()).sum()
    }

    /// Has an entry kept as it is, and remembers who waits for that.
    fn store(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let Some(record) = entry.record(now) else {
            return;
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some(before) = entry.ticket.replace(ticket) {
            // Only the newest counts: what it waits for stands in it.
            self.tickets.remove(&before);
        }
        entry.kept = true;
        self.tickets.insert(ticket, number);
        self.outputs.push_back(ExecutorOutput::Store {
            ticket,
            number,
            record,
        });
    }

    /// Sets the timer of an entry to when it next wants to be looked at.
    fn schedule(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let in_flight = self
            .peers
            .get(&entry.collector)
            .is_some_and(|peer| peer.in_flight.contains(&number));
        let wake = entry.wake(now, in_flight, &self.settings);
        if let Some(before) = std::mem::replace(&mut entry.wake_at, wake) {
            self.timers.remove(&(before, number));
        }
        if let Some(wake) = wake {
            self.timers.insert((wake, number));
        }
    }

    fn send(&mut self, collector: Identifier, report: &Report) {
        if self.peers.get(&collector).is_some_and(|peer| peer.up) {
            let mut frame = Vec::new();
            report.put(&mut frame);
            self.outputs.push_back(ExecutorOutput::Send { collector, frame });
        }
    }

    /// Tells the collector where a command stands, if that is on stable storage.
    fn say(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get(&number) else {
            return;
        };
        let report = match &entry.phase {
            Phase::Asking | Phase::Accepting | Phase::Closing { .. } => return,
            Phase::Queued | Phase::Handing | Phase::Handed { .. } => entry.report(now, State::Queued),
            Phase::Acknowledged => entry.report(now, State::Acknowledged),
            Phase::Finished(report) | Phase::Settled(report) => report.clone(),
        };
        let collector = entry.collector;
        self.send(collector, &report);
    }

    fn insert(&mut self, now: Now, entry: Entry) {
        let (number, collector) = (entry.number, entry.collector);
        self.bytes += entry.bytes;
        self.by_id.insert((collector, entry.id), number);
        let peer = self.peers.entry(collector).or_default();
        match &entry.phase {
            Phase::Settled(_) => {
                peer.settled.insert(number);
            }
            Phase::Finished(_) => {
                peer.open += 1;
                peer.unreported.insert(number);
            }
            Phase::Asking
            | Phase::Accepting
            | Phase::Queued
            | Phase::Handing
            | Phase::Handed { .. }
            | Phase::Acknowledged
            | Phase::Closing { .. } => {
                peer.open += 1;
                let device = Arc::clone(&entry.order.device);
                self.devices.entry(device).or_default().insert(number);
            }
        }
        self.entries.insert(number, entry);
        self.schedule(now, number);
    }

    /// Takes a command off its device's queue.
    fn leave_device(&mut self, number: u64) {
        let Some(entry) = self.entries.get(&number) else {
            return;
        };
        let device = &entry.order.device;
        if let Some(queue) = self.devices.get_mut(device) {
            queue.remove(&number);
            if queue.is_empty() {
                self.devices.remove(device);
            }
        }
    }

    fn remove(&mut self, number: u64) {
        self.leave_device(number);
        let Some(entry) = self.entries.remove(&number) else {
            return;
        };
        self.bytes -= entry.bytes;
        self.by_id.remove(&(entry.collector, entry.id));
        if let Some(wake) = entry.wake_at {
            self.timers.remove(&(wake, number));
        }
        if let Some(ticket) = entry.ticket {
            self.tickets.remove(&ticket);
        }
        if entry.kept {
            self.outputs.push_back(ExecutorOutput::Forget { number });
        }
        if let Some(peer) = self.peers.get_mut(&entry.collector) {
            if !peer.settled.remove(&number) {
                peer.open -= 1;
            }
            peer.unreported.remove(&number);
            peer.in_flight.remove(&number);
            if !peer.up && peer.open == 0 && peer.settled.is_empty() {
                self.peers.remove(&entry.collector);
            }
        }
    }

    fn numbers_of(&self, device: &str) -> Vec<u64> {
        self.devices
            .get(device)
            .map(|queue| queue.iter().copied().collect())
            .unwrap_or_default()
    }
}

/// Results to one collector that were sent and not acknowledged.
const REPORTS_MAX: usize = 16;
/// How long a store that failed is left alone.
const STORE_WAIT: Duration = Duration::from_secs(1);
/// Devices that can be awake at the same time.
const AWAKE_MAX: usize = 65_536;

#[cfg(test)]
mod tests;
