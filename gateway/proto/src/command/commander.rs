//! The collector's side: sends commands, and learns what becomes of them.

mod entry;
mod inputs;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

pub(super) use entry::weight;
use entry::{Entry, Phase};

use super::{
    Cancel, Command, CommandError, CommandId, DEADLINE_MAX, Guarantee, Order, PAYLOAD_LEN_MAX, Query, Report,
    State,
    deadline::{Deadline, Left},
};
use crate::{
    identity::Identifier,
    time::{Instant, Now},
};

/// Bounds of a [`Commander`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommanderSettings {
    /// Commands of one gateway that are not finished.
    pub per_gateway_max: usize,
    /// Commands in all, finished ones that are still remembered included.
    pub commands_max: usize,
    /// Bytes of payloads and answers in all; an answer that is waited for counts with [`PAYLOAD_LEN_MAX`].
    pub bytes_max: usize,
    /// How long a finished command is remembered.
    pub keep: Duration,
}

impl Default for CommanderSettings {
    /// 256 for each gateway, 4,096 and 64 MiB in all, remembered for a day.
    fn default() -> Self {
        Self {
            per_gateway_max: 256,
            commands_max: 4096,
            bytes_max: 64 << 20,
            keep: Duration::from_hours(24),
        }
    }
}

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The order is none.
    #[error("the command cannot be sent")]
    Order(#[from] CommandError),
    /// The time to the deadline is nothing, or too long.
    #[error("deadline is in {secs} s, outside 1 ms..={} s", DEADLINE_MAX.as_secs())]
    Deadline {
        /// Whole seconds to the deadline.
        secs: u64,
    },
    /// Too many commands of this gateway are not finished.
    #[error("{max} commands of this gateway are not finished")]
    Gateway {
        /// How many may be.
        max: usize,
    },
    /// Too many commands, or too many bytes, are kept.
    #[error("no room for the command: {count} commands with {bytes} bytes are kept")]
    Full {
        /// How many there are.
        count: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// A command with this id is known.
    #[error("a command with this id is known already")]
    Known,
}

impl SubmitError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Order(error) => error.hint(),
            Self::Deadline { .. } => "choose a deadline of at least a second and at most 30 days",
            Self::Gateway { .. } | Self::Full { .. } => {
                "wait for the gateway, or cancel commands: `fieldgate command list` shows them"
            }
            Self::Known => "let every command have an id of its own",
        }
    }
}

/// Why a command cannot be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CancelError {
    /// There is none with this id.
    #[error("no command has this id")]
    Unknown,
    /// It is finished.
    #[error("the command is finished: {state}")]
    Finished {
        /// What has become of it.
        state: &'static str,
    },
}

impl CancelError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Unknown | Self::Finished { .. } => "`fieldgate command list` shows what can be cancelled",
        }
    }
}

/// An effect of a [`Commander`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommanderOutput {
    /// Send these frames in the gateway's channel.
    Send {
        /// To whom.
        gateway: Identifier,
        /// Whole frames.
        frames: Vec<u8>,
    },
    /// Keep this on stable storage in place of what was kept under this id, and answer with [`Commander::handle_stored`] or
    /// [`Commander::handle_store_failed`]. What is kept later replaces what was kept before, in the order of these outputs.
    Store {
        /// Comes back in the answer.
        ticket: u64,
        /// Which command.
        id: CommandId,
        /// All of it.
        record: Vec<u8>,
    },
    /// Remove what is kept under this id.
    Forget {
        /// Which command.
        id: CommandId,
    },
    /// The command is kept: it will be sent, whatever happens to this node.
    Accepted {
        /// Which command.
        id: CommandId,
    },
    /// The command could not be kept, and is not sent.
    NotKept {
        /// Which command.
        id: CommandId,
    },
    /// The gateway has news, which are not final.
    Progress {
        /// Which command.
        id: CommandId,
        /// The news.
        state: State,
    },
    /// The command is finished, which is kept. [`State::Unconfirmed`] may be followed by a better one, if the gateway comes
    /// back. An end that was kept in the moment before a crash is not told again, but [`Commander::commands`] shows it.
    Finished {
        /// What has become of it.
        report: Report,
    },
}

/// Where a command stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is on its way to stable storage.
    Keeping,
    /// It waits for the gateway's channel.
    Waiting,
    /// It was sent, and the gateway has not said that it has it.
    Sent,
    /// The gateway has said so.
    Known(State),
    /// It is finished.
    Finished(Report),
}

/// What can be seen of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandView {
    /// Which one.
    pub id: CommandId,
    /// Whose device it is for.
    pub gateway: Identifier,
    /// What the device is told; without payload once it is finished.
    pub order: Arc<Order>,
    /// When it was submitted, in milliseconds since 1970-01-01 UTC.
    pub submitted: u64,
    /// Until when it may be handed over, in milliseconds since 1970-01-01 UTC.
    pub deadline: u64,
    /// Whether it is to be taken back.
    pub cancelled: bool,
    /// Where it stands.
    pub stage: Stage,
}

/// Sends commands to gateways and learns what becomes of them.
///
/// ```text
///  Keeping ─▶ Waiting ─▶ Leaving ──────────▶ Sent ──────────▶ Closing ─────▶ Finished ─▶ forgotten
///  (Store)    (channel)  (Store: may have    (repeats or       (Store, then    (remembered)
///                         left from here on)  asks, §9.2)       ResultAck)
/// ```
///
/// Invariant: a frame with a command leaves only in Sent, which is on stable storage before.
#[derive(Debug)]
pub struct Commander {
    settings: CommanderSettings,
    entries: BTreeMap<u64, Entry>,
    by_id: BTreeMap<CommandId, u64>,
    gateways: BTreeMap<Identifier, Gateway>,
    /// What is waited for, by ticket.
    tickets: BTreeMap<u64, u64>,
    timers: BTreeSet<(Instant, u64)>,
    next_number: u64,
    next_ticket: u64,
    bytes: usize,
    outputs: VecDeque<CommanderOutput>,
}

/// A gateway's channel, and its commands that are not finished.
#[derive(Debug, Default)]
struct Gateway {
    up: bool,
    unfinished: BTreeSet<u64>,
}

impl Commander {
    /// Begins with nothing.
    #[must_use]
    pub const fn new(settings: CommanderSettings) -> Self {
        Self {
            settings,
            entries: BTreeMap::new(),
            by_id: BTreeMap::new(),
            gateways: BTreeMap::new(),
            tickets: BTreeMap::new(),
            timers: BTreeSet::new(),
            next_number: 1,
            next_ticket: 1,
            bytes: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Returns the next effect.
    pub fn poll_output(&mut self) -> Option<CommanderOutput> {
        self.outputs.pop_front()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns what can be seen of each command, in the order of submission.
    pub fn commands(&self) -> impl Iterator<Item = CommandView> + '_ {
        self.entries.values().map(Entry::view)
    }

    /// Returns what can be seen of a command.
    #[must_use]
    pub fn command(&self, id: &CommandId) -> Option<CommandView> {
        self.by_id
            .get(id)
            .and_then(|number| self.entries.get(number))
            .map(Entry::view)
    }

    /// Returns how many commands are not finished.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.gateways
            .values()
            .map(|gateway| gateway.unfinished.len())
            .sum()
    }

    /// Returns the bytes of payloads and answers that are kept, reserves for answers included.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sends what may be sent to a gateway, in order.
    fn pump(&mut self, now: Now, gateway: Identifier) {
        let Some(state) = self.gateways.get(&gateway) else {
            return;
        };
        let up = state.up;
        let numbers: Vec<u64> = state.unfinished.iter().copied().collect();
        // Of each device's commands at most one is on its way unheard, since frames can be lost and the next must not overtake.
        let mut busy: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut in_flight = 0;
        let mut frames = Vec::new();
        for number in numbers {
            let Some(entry) = self.entries.get_mut(&number) else {
                continue;
            };
            let device = Arc::clone(&entry.order.device);
            match entry.phase {
                Phase::Closing { .. } | Phase::Finished(_) => continue,
                Phase::Sent { heard: true, .. } => {
                    if up {
                        entry.repeat(now, &mut frames);
                    }
                }
                Phase::Keeping => {
                    busy.insert(device);
                }
                Phase::Leaving => {
                    in_flight += 1;
                    busy.insert(device);
                }
                Phase::Sent { heard: false, .. } => {
                    if up && in_flight < WINDOW {
                        entry.repeat(now, &mut frames);
                    } else {
                        entry.put_off(now);
                    }
                    in_flight += 1;
                    busy.insert(device);
                }
                Phase::Waiting { marked, not_before } => {
                    let free = up && in_flight < WINDOW && !busy.contains(&device);
                    busy.insert(device);
                    let ready = not_before.is_none_or(|at| now.instant >= at);
                    if free && ready && matches!(entry.deadline.left(now), Left::Time(_)) {
                        in_flight += 1;
                        if marked {
                            entry.phase = Phase::sent(false);
                            entry.repeat(now, &mut frames);
                        } else {
                            entry.phase = Phase::Leaving;
                            self.store(now, number);
                        }
                    }
                }
            }
            self.schedule(now, number);
        }
        if !frames.is_empty() {
            self.outputs.push_back(CommanderOutput::Send { gateway, frames });
        }
    }

    /// Has an entry kept as it is, and remembers that it waits for that.
    fn store(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some(before) = entry.ticket.replace(ticket) {
            // Only the newest counts: what it waits for stands in it.
            self.tickets.remove(&before);
        }
        self.tickets.insert(ticket, number);
        let (id, record) = (entry.id, entry.record(now));
        self.outputs
            .push_back(CommanderOutput::Store { ticket, id, record });
    }

    /// Ends a command, once that is kept.
    fn close(&mut self, now: Now, number: u64, report: Report, by_gateway: bool) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        self.bytes -= entry.bytes;
        entry.finish(report, by_gateway);
        self.bytes += entry.bytes;
        self.store(now, number);
        self.schedule(now, number);
    }

    /// Sets the timer of an entry to when it next wants to be looked at.
    fn schedule(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let up = self
            .gateways
            .get(&entry.gateway)
            .is_some_and(|gateway| gateway.up);
        let wake = entry.wake(now, up, self.settings.keep);
        if let Some(before) = std::mem::replace(&mut entry.wake_at, wake) {
            self.timers.remove(&(before, number));
        }
        if let Some(wake) = wake {
            self.timers.insert((wake, number));
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(entry) = self.entries.remove(&number) else {
            return;
        };
        self.bytes -= entry.bytes;
        self.by_id.remove(&entry.id);
        if let Some(wake) = entry.wake_at {
            self.timers.remove(&(wake, number));
        }
        if let Some(ticket) = entry.ticket {
            self.tickets.remove(&ticket);
        }
        if let Some(gateway) = self.gateways.get_mut(&entry.gateway) {
            gateway.unfinished.remove(&number);
            if !gateway.up && gateway.unfinished.is_empty() {
                self.gateways.remove(&entry.gateway);
            }
        }
    }

    fn forget(&mut self, number: u64) {
        let id = self.entries.get(&number).map(|entry| entry.id);
        self.outputs.extend(id.map(|id| CommanderOutput::Forget { id }));
        self.remove(number);
    }
}

/// Commands of one gateway that may be on their way and that the gateway has said nothing about.
const WINDOW: usize = 16;
/// How long what finds no room in the window waits before it looks again.
const WINDOW_WAIT: Duration = Duration::from_secs(1);
/// How long after a deadline a gateway's result is waited for.
const RESULT_WAIT: Duration = Duration::from_secs(10);
/// How long a store that failed is left alone.
const STORE_WAIT: Duration = Duration::from_secs(1);
/// Waits between repetitions, in seconds.
const REPEAT_SECS: [u64; 6] = [2, 4, 8, 16, 32, 60];

/// Returns how long to wait after the `attempt`th time, counted from 0.
pub(in crate::command) fn repeat_wait(attempt: usize) -> Duration {
    let secs = REPEAT_SECS.get(attempt).or(REPEAT_SECS.last());
    Duration::from_secs(secs.copied().unwrap_or(1))
}

#[cfg(test)]
mod tests;
