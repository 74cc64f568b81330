//! The trunk's part of commands to devices: their store, who waits for them, and how they are shown.
//!
//! ```text
//!  control socket, sinks ──job──▶ Commanding ──▶ Commander (in the node) ──▶ channel
//!        ▲                            │  ▲
//!        └──────────── reply ─────────┘  └── kept ── Store ◀── records of both sides
//! ```

pub(crate) mod job;
pub(crate) mod owed;
pub(crate) mod store;

use std::collections::BTreeMap;

use fieldgate_config::{
    settings::Settings,
    template::{self, TopicTemplate},
};
use fieldgate_io::mailbox::MailSender;
use fieldgate_proto::{
    command::{
        CommandId, CommandView, Commander, CommanderOutput, CommanderSettings, Executor, ExecutorSettings,
        Order, RecordError, Stage, State,
    },
    identity::Identifier,
    node::Node,
    time::Now,
};
use tokio::sync::oneshot;

use self::{
    job::{cancel, describe, hex, refused, show, submit},
    owed::{InboxWord, Origin, OwedResults},
    store::{Change, Kept, Side, Store, StoreHandle},
};
use super::{ShardMessage, StartError};
use crate::control::command::{CommandJob, CommandReply, CommandState};

/// A job of somebody who waits for the reply.
pub(crate) struct Job {
    pub(crate) job: CommandJob,
    /// Where a command to be sent came from, if a broker brought it.
    pub(crate) origin: Option<Origin>,
    pub(crate) reply: oneshot::Sender<CommandReply>,
}

/// Waits for a command.
struct Waiter {
    /// Whether its end is waited for, rather than that it is kept.
    until_end: bool,
    reply: oneshot::Sender<CommandReply>,
}

/// The trunk's part of commands; see the [module](self).
pub(crate) struct Commanding {
    /// On a node with devices or gateways.
    store: Option<StoreHandle>,
    /// Why the last records could not be written.
    problem: Option<String>,
    waiting: BTreeMap<CommandId, Waiter>,
    owed: OwedResults,
    /// On which topic a device is told commands; `None` on a node without devices.
    command_topic: Option<TopicTemplate>,
    own_name: String,
}

impl Commanding {
    fn new(store: Option<StoreHandle>, command_topic: Option<TopicTemplate>, own_name: String) -> Self {
        Self {
            store,
            command_topic,
            own_name,
            problem: None,
            waiting: BTreeMap::new(),
            owed: OwedResults::default(),
        }
    }

    /// Takes up the commands that were under way, and lets the node carry them.
    ///
    /// # Errors
    /// [`StartError`] if what is kept cannot be used.
    pub(crate) fn open(
        settings: &Settings,
        now: Now,
        node: &mut Node,
        trunk: &MailSender<ShardMessage>,
    ) -> Result<Self, StartError> {
        let (topic, name) = (
            settings.mqtt.as_ref().map(|mqtt| mqtt.command_topic.clone()),
            settings.node.name.clone(),
        );
        if settings.mqtt.is_none() && settings.collector.is_none() {
            return Ok(Self::new(None, topic, name));
        }
        let path = settings.node.state_dir.join("commands.redb");
        let failed = |error: &dyn std::fmt::Display| {
            StartError::new(format!("commands in {}: {error}", path.display()))
        };
        let (store, records) = Store::open(&path).map_err(|error| {
            failed(&error).hint("is another node running with this state_dir, and may it be written to?")
        })?;
        let unusable = |error: RecordError| failed(&error).hint(error.hint());
        if settings.mqtt.is_some() {
            let mut executor = Executor::new(ExecutorSettings::default());
            for record in &records.gateway {
                executor.restore(now, record).map_err(unusable)?;
            }
            node.set_executor(executor);
        }
        if settings.collector.is_some() {
            let mut commander = Commander::new(CommanderSettings::default());
            for record in &records.collector {
                commander.restore(now, record).map_err(unusable)?;
            }
            node.set_commander(commander);
        }
        let store = store.spawn(trunk.clone()).map_err(|error| failed(&error))?;
        let mut commanding = Self::new(Some(store), topic, name);
        for record in &records.owed {
            let id = commanding
                .owed
                .restore(record)
                .map_err(|error| failed(&error).hint("start the version of fieldgate that wrote it"))?;
            if node
                .commander()
                .is_none_or(|commander| commander.command(&id).is_none())
            {
                commanding.forget_owed(id);
            }
        }
        Ok(commanding)
    }

    fn write(&self, change: Change) -> bool {
        self.store.as_ref().is_some_and(|store| store.write(change))
    }

    /// Returns the topic on which a device is told this.
    pub(crate) fn topic(&self, order: &Order) -> String {
        let mut topic = String::new();
        if let Some(template) = &self.command_topic {
            let origin = template::Origin {
                gateway: &self.own_name,
                device: &order.device,
                resource: &order.resource,
                class: "command",
            };
            template.expand_into(&mut topic, &origin);
        }
        topic
    }

    /// Returns why commands cannot be kept, if so.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Has a record of a gateway kept, or says to the machine that it cannot be.
    pub(crate) fn keep_executor(&self, now: Now, node: &mut Node, ticket: u64, number: u64, record: Vec<u8>) {
        let change = Change {
            side: Side::Gateway,
            key: number.to_be_bytes().to_vec(),
            ticket: Some(ticket),
            record: Some(record),
        };
        if !self.write(change)
            && let Some(executor) = node.executor_mut()
        {
            executor.handle_store_failed(now, ticket);
        }
    }

    /// Forgets a record of a gateway. One that stays is read again by the next start, and forgotten then.
    pub(crate) fn forget_executor(&self, number: u64) {
        self.write(Change {
            side: Side::Gateway,
            key: number.to_be_bytes().to_vec(),
            ticket: None,
            record: None,
        });
    }

    /// Takes the word of the store.
    pub(crate) fn handle_kept(&mut self, now: Now, node: &mut Node, kept: Kept) {
        match (&kept.problem, &self.problem) {
            (Some(problem), None) => tracing::warn!(
                error = problem,
                "commands cannot be kept: new ones are refused, and those under way wait"
            ),
            (None, Some(_)) => tracing::info!("commands are kept again"),
            _ => {}
        }
        for (side, ticket) in kept.tickets {
            match (side, kept.problem.is_none()) {
                // Nobody waits for these.
                (Side::Owed, _) => {}
                (Side::Gateway, stored) => {
                    if let Some(executor) = node.executor_mut() {
                        if stored {
                            executor.handle_stored(now, ticket);
                        } else {
                            executor.handle_store_failed(now, ticket);
                        }
                    }
                }
                (Side::Collector, stored) => {
                    if let Some(commander) = node.commander_mut() {
                        if stored {
                            commander.handle_stored(now, ticket);
                        } else {
                            commander.handle_store_failed(now, ticket);
                        }
                    }
                }
            }
        }
        self.problem = kept.problem;
    }

    /// Does what the machine of a collector wants.
    pub(crate) fn handle_commander(
        &mut self,
        now: Now,
        node: &mut Node,
        names: &BTreeMap<Identifier, String>,
        output: CommanderOutput,
    ) {
        match output {
            CommanderOutput::Store { ticket, id, record } => {
                let change = Change {
                    side: Side::Collector,
                    key: id.to_vec(),
                    ticket: Some(ticket),
                    record: Some(record),
                };
                if !self.write(change)
                    && let Some(commander) = node.commander_mut()
                {
                    commander.handle_store_failed(now, ticket);
                }
            }
            CommanderOutput::Forget { id } => {
                self.write(Change {
                    side: Side::Collector,
                    key: id.to_vec(),
                    ticket: None,
                    record: None,
                });
                self.forget_owed(id);
            }
            CommanderOutput::Accepted { id } => {
                if self.waiting.get(&id).is_some_and(|waiter| !waiter.until_end) {
                    self.reply(id, CommandReply::Kept { id: hex(&id) });
                }
            }
            CommanderOutput::NotKept { id } => {
                self.forget_owed(id);
                let reply = refused("the command could not be kept", "look at the collector's disk");
                self.reply(id, reply);
            }
            CommanderOutput::Progress { id, state } => {
                tracing::debug!(id = hex(&id), state = state.name(), "command");
            }
            CommanderOutput::Finished { report } => {
                tracing::info!(
                    id = hex(&report.id),
                    state = report.state.name(),
                    "command finished"
                );
                let view = node
                    .commander()
                    .and_then(|commander| commander.command(&report.id));
                if let Some(view) = view {
                    self.owed.finish(report.id, || describe(node, names, &view));
                    let state = Box::new(describe(node, names, &view));
                    self.reply(report.id, CommandReply::Is { state });
                }
            }
            CommanderOutput::Send { .. } => {}
        }
    }

    fn reply(&mut self, id: CommandId, reply: CommandReply) {
        if let Some(waiter) = self.waiting.remove(&id) {
            // Who asked may have gone.
            drop(waiter.reply.send(reply));
        }
    }

    /// Does what somebody asks for; the reply may come later.
    pub(crate) fn handle_job(
        &mut self,
        now: Now,
        node: &mut Node,
        names: &BTreeMap<Identifier, String>,
        job: Job,
    ) {
        self.waiting.retain(|_, waiter| !waiter.reply.is_closed());
        let reply = match job.job {
            CommandJob::Send(send) => {
                let (until_end, asked_for) = (send.wait, job.origin.as_ref().and_then(|origin| origin.id));
                if let Some(known) = asked_for.and_then(|id| node.commander()?.command(&id)) {
                    self.recognise(known, job.reply);
                    return;
                }
                match submit(now, node, names, *send, asked_for) {
                    Ok(id) => {
                        if let Some(origin) = job.origin {
                            self.note_owed(id, origin);
                        }
                        let reply = job.reply;
                        self.waiting.insert(id, Waiter { until_end, reply });
                        return;
                    }
                    Err(reply) => reply,
                }
            }
            CommandJob::List {} => {
                let views: Vec<CommandView> = node
                    .commander()
                    .map(|commander| commander.commands().collect())
                    .unwrap_or_default();
                // Answers would be too much for one list: 4,096 of 16 KiB.
                let commands = views.iter().map(|view| CommandState {
                    answer: None,
                    ..describe(node, names, view)
                });
                CommandReply::List {
                    commands: commands.collect(),
                }
            }
            CommandJob::Show { id } => show(node, names, &id).unwrap_or_else(|reply| reply),
            CommandJob::Cancel { id } => cancel(now, node, names, &id).unwrap_or_else(|reply| reply),
        };
        // Who asked may have gone.
        drop(job.reply.send(reply));
    }

    /// Takes a copy of a command that is known: its sender has not heard that it is kept.
    fn recognise(&mut self, known: CommandView, reply: oneshot::Sender<CommandReply>) {
        if known.stage == Stage::Keeping {
            let until_end = false;
            self.waiting.insert(known.id, Waiter { until_end, reply });
        } else {
            // Who asked may have gone.
            drop(reply.send(CommandReply::Kept { id: hex(&known.id) }));
        }
    }

    fn note_owed(&mut self, id: CommandId, origin: Origin) {
        let record = self.owed.note(id, origin);
        // It comes before the command's own record, which waits for its turn in the same queue.
        self.write(Change {
            side: Side::Owed,
            key: id.to_vec(),
            ticket: None,
            record: Some(record),
        });
    }

    fn forget_owed(&mut self, id: CommandId) {
        if self.owed.forget(&id) {
            self.write_off(id);
        }
    }

    /// Removes what is kept of a result that is owed to nobody any more. If it stays, the next start tells it once more.
    fn write_off(&self, id: CommandId) {
        self.write(Change {
            side: Side::Owed,
            key: id.to_vec(),
            ticket: None,
            record: None,
        });
    }

    /// Takes the word of a task that talks to a broker.
    pub(crate) fn handle_inbox(
        &mut self,
        node: &Node,
        names: &BTreeMap<Identifier, String>,
        word: InboxWord,
    ) {
        let Some(commander) = node.commander() else {
            return;
        };
        match word {
            InboxWord::Open { sink, results } => {
                let untold = self.owed.untold(&sink);
                self.owed.open(sink, results);
                for id in untold {
                    if let Some(view) = commander.command(&id)
                        && matches!(view.stage, Stage::Finished(_))
                    {
                        self.owed.finish(id, || describe(node, names, &view));
                    }
                }
            }
            InboxWord::Told { id, state } => {
                let Some(Stage::Finished(report)) = commander.command(&id).map(|view| view.stage) else {
                    return;
                };
                let better_may_come = report.state == State::Unconfirmed;
                if self.owed.told(&id, state, (report.state.name(), better_may_come)) {
                    self.write_off(id);
                }
            }
        }
    }
}
