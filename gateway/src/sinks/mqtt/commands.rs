//! Commands to devices that a broker brings, and their results.
//!
//! ```text
//!  broker ──PUBLISH──▶ drive ──▶ take ──▶ trunk: kept ──▶ PUBACK
//!    ▲                                       │ the command has come to its end
//!    └── PUBLISH ◀── tell ◀── result, owed ◀─┘        PUBACK ──▶ owed no more
//! ```
//! A client of its own, beside that of the readings, so that neither holds up the other. A command is acknowledged when the
//! collector has it on stable storage; a result is owed until the broker has acknowledged it. So each may come twice, and carries
//! its id.

mod request;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use fieldgate_config::settings::sink::{BrokerCommands, MqttSink as Settings};
use fieldgate_proto::command::CommandId;
use tokio::{sync::mpsc, time};

use self::request::{NotTaken, read, result_message};
use super::{
    End,
    bridge::Bridge,
    client::{Brought, Client, Events, Happening, Purpose, RECEIVE_MAX},
    connect,
};
use crate::{
    control::command::{CommandJob, CommandReply},
    runtime::{
        commanding::owed::{BrokerResult, InboxWord, RESULTS_MAX},
        desk::Desk,
    },
    sinks::custody::BackOff,
};

/// Takes commands from the broker of the sink `name` until the node ends. Runs as a task of a `LocalSet`.
pub(crate) async fn run(name: String, settings: Settings, commands: BrokerCommands, desk: Rc<Desk>) {
    let inbox = Inbox {
        client_id: format!("{}-commands", settings.client_id),
        name,
        settings,
        commands,
        desk,
    };
    let mut back_off = BackOff::new();
    // What was said last, so that an outage is one line.
    let mut said = None;
    loop {
        let reached = Cell::new(false);
        let end = inbox.incarnation(&reached).await;
        if reached.get() {
            (back_off, said) = (BackOff::new(), None);
        }
        let reason = match end {
            End::Stopped => return,
            End::Lost(reason) | End::Refused(reason) => reason,
        };
        if said.as_ref() != Some(&reason) {
            tracing::warn!(sink = inbox.name, reason, "the broker brings no commands");
        }
        said = Some(reason);
        time::sleep(back_off.next()).await;
    }
}

struct Inbox {
    name: String,
    client_id: String,
    settings: Settings,
    commands: BrokerCommands,
    desk: Rc<Desk>,
}

/// Results on their way in one incarnation of the client.
#[derive(Default)]
struct Told {
    /// Handed to the client, not yet given a packet identifier, in order; `None` for one that is not owed.
    handed: VecDeque<Option<(CommandId, String)>>,
    /// By packet identifier.
    sent: BTreeMap<u16, Option<(CommandId, String)>>,
}

impl Inbox {
    async fn incarnation(&self, reached: &Cell<bool>) -> End {
        let (client, events, bridge) = match connect(&self.settings, &self.client_id, Purpose::Commands) {
            Ok(opened) => opened,
            Err(end) => return end,
        };
        let (brought, to_take) = mpsc::channel(2 * usize::from(RECEIVE_MAX));
        let (results, to_tell) = mpsc::channel(RESULTS_MAX);
        let told = RefCell::default();
        let end = tokio::select! {
            end = self.drive(&client, events, reached, (&brought, &results), &told) => end,
            end = self.take(&client, to_take, &results) => end,
            end = self.tell(&client, to_tell, &told) => end,
        };
        // The client only sees that the socket was closed; the bridge knows why.
        match (end, bridge.as_ref().and_then(Bridge::failure)) {
            (End::Lost(_), Some(failure)) => End::Lost(failure),
            (end, _) => end,
        }
    }

    async fn drive(
        &self,
        client: &Client,
        mut events: Events,
        reached: &Cell<bool>,
        (brought, results): (&mpsc::Sender<Brought>, &mpsc::Sender<BrokerResult>),
        told: &RefCell<Told>,
    ) -> End {
        loop {
            let happening = match events.poll().await {
                Ok(happening) => happening,
                Err(reason) => return End::Lost(reason),
            };
            match happening {
                Happening::Connected { .. } => {
                    if let Err(reason) = client.subscribe_below(&self.commands.command_topic) {
                        return End::Lost(reason);
                    }
                }
                Happening::Subscribed => {
                    tracing::info!(sink = self.name, "the broker brings commands");
                    reached.set(true);
                    let (sink, results) = (self.name.clone(), results.clone());
                    self.desk.tell_inbox(InboxWord::Open { sink, results }).await;
                }
                Happening::NotSubscribed { reason } => {
                    return End::Refused(format!(
                        "it refuses the subscription to {}/#: {reason}",
                        self.commands.command_topic
                    ));
                }
                Happening::Brought(message) => {
                    if brought.try_send(*message).is_err() {
                        return End::Lost("it brings more at once than it may".to_owned());
                    }
                }
                Happening::Sent(packet) => {
                    let mut told = told.borrow_mut();
                    let Some(handed) = told.handed.pop_front() else {
                        return End::Lost("the client sent a publish that was not handed to it".to_owned());
                    };
                    told.sent.insert(packet, handed);
                }
                Happening::Acknowledged(packet) => self.acknowledged(packet, told).await,
                Happening::Refused { packet, reason, .. } => {
                    tracing::warn!(sink = self.name, reason, "the broker refuses a result");
                    // It would be refused again, and nobody else can be told.
                    self.acknowledged(packet, told).await;
                }
                Happening::Other => {}
            }
        }
    }

    async fn acknowledged(&self, packet: u16, told: &RefCell<Told>) {
        let done = told.borrow_mut().sent.remove(&packet);
        if let Some((id, state)) = done.flatten() {
            self.desk.tell_inbox(InboxWord::Told { id, state }).await;
        }
    }

    /// Gives the trunk one command after the other, so that they are acknowledged in order (`[MQTT-4.6.0-2]`).
    async fn take(
        &self,
        client: &Client,
        mut brought: mpsc::Receiver<Brought>,
        results: &mpsc::Sender<BrokerResult>,
    ) -> End {
        while let Some(message) = brought.recv().await {
            let not_taken = match read(&self.name, &self.commands, &message) {
                Ok((origin, job)) => {
                    let reply_to = origin.reply_to.clone();
                    let job_state = job.clone();
                    let job = CommandJob::Send(Box::new(job));
                    match self.desk.command_from(Some(origin), job).await {
                        None => return End::Stopped,
                        Some(CommandReply::Refused { message, hint }) => {
                            Some(NotTaken::refused(&job_state, reply_to, &message, &hint))
                        }
                        Some(_) => None,
                    }
                }
                Err(not_taken) => Some(*not_taken),
            };
            if let Some(NotTaken { result }) = not_taken {
                tracing::warn!(
                    sink = self.name,
                    topic = message.topic,
                    reason = result.refusal,
                    "a command of the broker is not taken"
                );
                if results.try_send(result).is_err() {
                    tracing::debug!(sink = self.name, "there is no room to tell so");
                }
            }
            if let Err(reason) = client.acknowledge(&message).await {
                return End::Lost(reason);
            }
        }
        End::Stopped
    }

    async fn tell(
        &self,
        client: &Client,
        mut results: mpsc::Receiver<BrokerResult>,
        told: &RefCell<Told>,
    ) -> End {
        while let Some(result) = results.recv().await {
            let owed = result.id.map(|id| (id, result.state.state.clone()));
            let message = result_message(&self.commands, result);
            told.borrow_mut().handed.push_back(owed);
            if let Err(reason) = client.publish(message).await {
                return End::Lost(reason);
            }
        }
        End::Stopped
    }
}
