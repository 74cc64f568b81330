//! The trunk's part of commands to devices: their store, who waits for them, and how they are shown.
//!
//! ```text
//!  control socket, sinks ──job──▶ Commanding ──▶ Commander (in the node) ──▶ channel
//!        ▲                            │  ▲
//!        └──────────── reply ─────────┘  └── kept ── Store ◀── records of both sides
//! ```

pub(crate) mod store;

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use fieldgate_config::{
    settings::Settings,
    template::{Origin, TopicTemplate},
};
use fieldgate_io::mailbox::MailSender;
use fieldgate_proto::{
    command::{
        CommandId, CommandView, Commander, CommanderOutput, CommanderSettings, Executor, ExecutorSettings,
        Guarantee, Order, PAYLOAD_LEN_MAX, RecordError, Report, Stage, State,
    },
    entropy::Entropy as _,
    identity::Identifier,
    node::Node,
    time::Now,
};
use tokio::sync::oneshot;

use self::store::{Change, Kept, Side, Store, StoreHandle};
use super::{ShardMessage, StartError, entropy::SystemEntropy};
use crate::control::command::{CommandAnswer, CommandJob, CommandReply, CommandState, SendJob};

/// A job of somebody who waits for the reply.
pub(crate) struct Job {
    pub(crate) job: CommandJob,
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
    /// On which topic a device is told commands; `None` on a node without devices.
    command_topic: Option<TopicTemplate>,
    own_name: String,
}

impl Commanding {
    const fn new(store: Option<StoreHandle>, command_topic: Option<TopicTemplate>, own_name: String) -> Self {
        Self {
            store,
            command_topic,
            own_name,
            problem: None,
            waiting: BTreeMap::new(),
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
        Ok(Self::new(Some(store), topic, name))
    }

    fn write(&self, change: Change) -> bool {
        self.store.as_ref().is_some_and(|store| store.write(change))
    }

    /// Returns the topic on which a device is told this.
    pub(crate) fn topic(&self, order: &Order) -> String {
        let mut topic = String::new();
        if let Some(template) = &self.command_topic {
            let origin = Origin {
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
            record: Some((ticket, record)),
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
                    record: Some((ticket, record)),
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
                    record: None,
                });
            }
            CommanderOutput::Accepted { id } => {
                if self.waiting.get(&id).is_some_and(|waiter| !waiter.until_end) {
                    self.reply(id, CommandReply::Kept { id: hex(&id) });
                }
            }
            CommanderOutput::NotKept { id } => self.reply(
                id,
                refused("the command could not be kept", "look at the collector's disk"),
            ),
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
            CommandJob::Send(send) => match submit(now, node, names, *send) {
                Ok((id, until_end)) => {
                    let reply = job.reply;
                    self.waiting.insert(id, Waiter { until_end, reply });
                    return;
                }
                Err(reply) => reply,
            },
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
}

fn refused(message: impl ToString, hint: &str) -> CommandReply {
    CommandReply::Refused {
        message: message.to_string(),
        hint: hint.to_owned(),
    }
}

fn submit(
    now: Now,
    node: &mut Node,
    names: &BTreeMap<Identifier, String>,
    job: SendJob,
) -> Result<(CommandId, bool), CommandReply> {
    let gateway = find_gateway(node, names, &job.gateway).ok_or_else(|| {
        refused(
            format!("no gateway is called {}", job.gateway),
            "name one of [[collector.gateway]], a member that is connected, or an identifier fg1…",
        )
    })?;
    let payload = BASE64
        .decode(job.payload.as_bytes())
        .map_err(|_| refused("the payload is no Base64", "encode it with padding"))?;
    if payload.len() > PAYLOAD_LEN_MAX {
        return Err(refused(
            format!(
                "the payload has {} bytes, more than {PAYLOAD_LEN_MAX}",
                payload.len()
            ),
            "put it where the device can fetch it, and send its address",
        ));
    }
    let order = Order {
        guarantee: if job.at_most_once {
            Guarantee::AtMostOnce
        } else {
            Guarantee::AtLeastOnce
        },
        answer_wanted: job.answer,
        device: job.device.into(),
        resource: job.resource.into(),
        content_type: job.content_type.into(),
        payload: payload.into(),
    };
    let mut id = [0; 16];
    SystemEntropy.fill(&mut id);
    let remaining = std::time::Duration::from_millis(job.deadline_ms);
    let commander = node
        .commander_mut()
        .ok_or_else(|| refused("this node is no collector", "ask the collector"))?;
    commander
        .submit(now, id, gateway, order, remaining)
        .map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            refused(format!("{error}{}", cause.unwrap_or_default()), error.hint())
        })?;
    Ok((id, job.wait))
}

fn parse(id: &str) -> Result<CommandId, CommandReply> {
    let decoded = HEXLOWER_PERMISSIVE.decode(id.as_bytes()).ok();
    decoded
        .and_then(|bytes| CommandId::try_from(bytes).ok())
        .ok_or_else(|| {
            refused(
                format!("{id} is no command's id"),
                "an id has 32 hexadecimal digits; `fieldgate command list` shows them",
            )
        })
}

fn show(node: &Node, names: &BTreeMap<Identifier, String>, id: &str) -> Result<CommandReply, CommandReply> {
    let id = parse(id)?;
    let view = node.commander().and_then(|commander| commander.command(&id));
    let view = view.ok_or_else(|| {
        refused(
            "no command has this id",
            "`fieldgate command list` shows those of the last day",
        )
    })?;
    let state = Box::new(describe(node, names, &view));
    Ok(CommandReply::Is { state })
}

fn cancel(
    now: Now,
    node: &mut Node,
    names: &BTreeMap<Identifier, String>,
    id: &str,
) -> Result<CommandReply, CommandReply> {
    let parsed = parse(id)?;
    let commander = node
        .commander_mut()
        .ok_or_else(|| refused("this node is no collector", "ask the collector"))?;
    commander
        .cancel(now, &parsed)
        .map_err(|error| refused(error, error.hint()))?;
    show(node, names, id)
}

fn find_gateway(node: &Node, names: &BTreeMap<Identifier, String>, wanted: &str) -> Option<Identifier> {
    let mut named = names.iter().filter(|(_, name)| *name == wanted);
    let named = named.next().map(|(identifier, _)| *identifier);
    named
        .or_else(|| wanted.parse().ok())
        .or_else(|| node.member_called(wanted))
}

fn describe(node: &Node, names: &BTreeMap<Identifier, String>, view: &CommandView) -> CommandState {
    let gateway = names.get(&view.gateway).cloned();
    let gateway = gateway.or_else(|| node.member_name(&view.gateway).map(ToOwned::to_owned));
    let (state, end) = match &view.stage {
        Stage::Keeping => ("keeping", None),
        Stage::Waiting => ("waiting", None),
        Stage::Sent => ("sent", None),
        Stage::Known(state) => (state.name(), None),
        Stage::Finished(report) => (report.state.name(), Some(report)),
    };
    let reason_code = end.and_then(|report| {
        if let State::Rejected(code) = report.state {
            Some(code)
        } else {
            None
        }
    });
    CommandState {
        id: hex(&view.id),
        gateway: gateway.unwrap_or_else(|| view.gateway.to_string()),
        device: (*view.order.device).to_owned(),
        resource: (*view.order.resource).to_owned(),
        submitted_ms: view.submitted,
        deadline_ms: view.deadline,
        cancelled: view.cancelled,
        state: state.to_owned(),
        finished: end.is_some(),
        succeeded: end.is_some_and(|report| report.state.is_success()),
        reason_code,
        answer: end.and_then(answer),
    }
}

fn answer(report: &Report) -> Option<CommandAnswer> {
    report.state.answer().map(|answer| CommandAnswer {
        content_type: (*answer.content_type).to_owned(),
        payload: BASE64.encode(&answer.payload),
    })
}

/// Returns the text form of an id.
pub(crate) fn hex(id: &CommandId) -> String {
    HEXLOWER.encode(id)
}
