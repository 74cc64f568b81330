//! A running node: its threads, what passes between them, and how it starts and ends.

use std::{
    fmt, io,
    net::SocketAddr,
    path::Path,
    rc::Rc,
    sync::{Arc, PoisonError},
};

use fieldgate_adapters::authenticate::CheckedPassword;
use fieldgate_io::{Selected, mailbox::MailSender};
use fieldgate_proto::{
    channel::{ChannelId, LocalIdentity},
    command::Permission,
    crypto::Signature,
    identity::{ChangeHistory, Identifier},
    node::{AuthorityAnswer, Service, Verdict},
    relay::StoreEvent,
    seal::SealKey,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    authority::service::AuthorityHandle,
    commands::Failure,
    sinks::Confirmation,
    status::{IdentityStatus, IoStatus, MqttStatus, NodeStatus, ShardStatus, TokenStatus, TpmStatus},
};

pub(crate) mod accepting;
pub(crate) mod belonging;
pub(crate) mod classes;
pub(crate) mod clock;
pub(crate) mod clustering;
pub(crate) mod collector;
pub(crate) mod commanding;
pub(crate) mod desk;
pub(crate) mod doorkeeper;
pub(crate) mod durable;
pub(crate) mod enrolling;
pub(crate) mod entropy;
pub(crate) mod exchange;
pub(crate) mod field;
pub(crate) mod governing;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod links;
pub(crate) mod portals;
pub(crate) mod shard;
pub(crate) mod signing;
pub(crate) mod start;
pub(crate) mod threads;
pub(crate) mod translate;
pub(crate) mod transport;
pub(crate) mod trunk;

/// What is sent to a shard. Every mailbox is bounded; what does not fit waits at its sender.
pub(crate) enum ShardMessage {
    /// Tell what you are doing.
    Status(oneshot::Sender<ShardReport>),
    /// To the trunk: from the control thread.
    Trunk(TrunkMessage),
    /// To the trunk: another inlet or outlet, or one less.
    Portal(
        Box<portals::changing::Change>,
        oneshot::Sender<Result<String, StartError>>,
    ),
    /// To the trunk: what became of records of commands.
    CommandsKept(commanding::store::Kept),
    /// To the trunk: a sink has made readings safe.
    Confirmed(Confirmation),
    /// To the trunk: what clients of a shard without journal sent and want.
    Field(exchange::batch::FieldBatch),
    /// To the trunk: what became of a batch of the store of sessions.
    Stored(exchange::store::Stored),
    /// From the trunk: everything up to this ticket of yours is on stable storage.
    Committed {
        /// The shard's own count of messages.
        ticket: u64,
    },
    /// From the trunk: what the broker has for your clients.
    Answers(exchange::Answers),
    /// A client's slow password was checked.
    Checked {
        /// Which client.
        connection: u64,
        /// What became of it.
        checked: Box<CheckedPassword>,
    },
    /// End: tell clients, flush, stop.
    Stop,
}

/// What the control thread has to say to the trunk.
pub(crate) enum TrunkMessage {
    /// Prove yourself with this from now on.
    Local(Box<LocalIdentity>),
    /// The key that seals readings, and the history of the identity that vouches for it.
    SealKey(Box<(SealKey, ChangeHistory)>),
    /// Addresses of a name, or why there are none.
    Resolved {
        /// For what.
        wanted: trunk::Wanted,
        /// Addresses to try, best first.
        addresses: Result<Vec<SocketAddr>, String>,
    },
    /// What a peer may do.
    Verdict {
        /// Which question it answers.
        attempt: u64,
        /// The answer.
        verdict: Verdict,
    },
    /// The policy has changed, so every channel is decided on again.
    PolicyChanged {
        /// Of whom a live proof is demanded when this node reaches them.
        proof_demands: Vec<(Service, Identifier)>,
    },
    /// The identity key's signature for a live proof, if there is one.
    Signature {
        /// For which channel.
        channel: ChannelId,
        /// The signature.
        signature: Option<Signature>,
    },
    /// What this node's authority answers.
    AuthorityAnswer {
        /// To whom.
        channel: ChannelId,
        /// To which request.
        request: u32,
        /// The answer.
        answer: AuthorityAnswer,
    },
    /// Ask the authority.
    Ask {
        /// The asker's number.
        id: u64,
        /// What to ask.
        question: Question,
    },
    /// The list of the revoked that this node's authority has made.
    PublishStatus {
        /// The list.
        list: Arc<[u8]>,
        /// Numbers of the lists that the authority knows to have signed.
        issued: Arc<[u64]>,
    },
    /// This node's own credential.
    Credential(Arc<[u8]>),
    /// Whether a collector may command a device.
    CommandPermission {
        /// Which question it answers.
        question: u64,
        /// The answer.
        permission: Permission,
    },
    /// Whether a stream may lead to an outlet.
    PortalPermission {
        /// Which question it answers.
        question: u64,
        /// The answer.
        permitted: bool,
    },
    /// Members are to leave this relay within this time, or may stay again.
    Drain {
        /// How long it takes; `None` takes it back.
        within: Option<std::time::Duration>,
    },
    /// What the store of the cluster has to say.
    Store(Vec<StoreEvent>),
    /// Do something about commands.
    Command(Box<commanding::Job>),
    /// From a task that talks to a broker about commands.
    Inbox(commanding::owed::InboxWord),
}

/// What a node asks its authority.
pub(crate) enum Question {
    /// To be enrolled: a signed request.
    Enrol(Vec<u8>),
    /// To manage members and tickets: JSON text.
    Manage(String),
}

/// A shard's part of the status.
#[derive(Default)]
pub(crate) struct ShardReport {
    /// Its clients.
    pub(crate) shard: ShardStatus,
    /// What the shard with the broker knows.
    pub(crate) mqtt: Option<MqttStatus>,
    /// What only the trunk knows.
    pub(crate) trunk: Option<trunk::TrunkReport>,
}

impl ShardReport {
    /// What is known of a shard that does not answer.
    fn silent() -> Self {
        Self {
            shard: ShardStatus {
                is_silent: true,
                ..ShardStatus::default()
            },
            ..Self::default()
        }
    }
}

/// A running node as the control thread sees it.
pub(crate) struct NodeHandle {
    pub(crate) name: String,
    pub(crate) roles: Vec<String>,
    pub(crate) started: u64,
    pub(crate) io: Selected,
    pub(crate) identifier: String,
    pub(crate) key_place: &'static str,
    pub(crate) key_health: Arc<std::sync::Mutex<keys::KeyHealth>>,
    pub(crate) signer: signing::SignerHandle,
    pub(crate) clock: clock::Clock,
    pub(crate) authority: Option<AuthorityHandle>,
    pub(crate) desk: Rc<desk::Desk>,
    pub(crate) rotations: mpsc::Sender<Rotation>,
    /// Whom it has links to.
    pub(crate) neighbours: translate::KnownNeighbours,
    pub(crate) shards: Vec<MailSender<ShardMessage>>,
}

/// Takes what became of a rotation that the node was told of.
pub(crate) type Rotation = oneshot::Sender<Result<(), StartError>>;

impl NodeHandle {
    /// Takes the new key of the identity, which was rotated on disk. Channels go on.
    ///
    /// # Errors
    /// [`StartError`] if the new key cannot be used.
    pub(crate) async fn handle_rotated(&self) -> Result<(), StartError> {
        let (sender, taken) = oneshot::channel();
        let ended = || StartError::new("the node is ending");
        self.rotations.send(sender).await.map_err(|_| ended())?;
        taken.await.map_err(|_| ended())?
    }

    /// Asks every shard and puts the answers together.
    pub(crate) async fn status(&self) -> NodeStatus {
        let mut answers = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (answer, report) = oneshot::channel();
            // A shard too busy to take the question is shown as silent.
            drop(shard.try_send(ShardMessage::Status(answer)));
            answers.push(report);
        }
        let mut status = NodeStatus {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_secs: (fieldgate_io::clock::monotonic() - self.started) / 1_000_000_000,
            roles: self.roles.clone(),
            io: IoStatus {
                backend: self.io.backend.as_str().to_owned(),
                reason: self.io.reason.clone(),
                cure: self.io.cure.clone(),
            },
            identity: self.identity_status(),
            authority: self.authority.as_ref().map(AuthorityHandle::status),
            clock: self.clock.status(),
            ..NodeStatus::default()
        };
        for answer in answers {
            let report = tokio::time::timeout(ANSWER_TIME_MAX, answer).await;
            let report = report
                .ok()
                .and_then(Result::ok)
                .unwrap_or_else(ShardReport::silent);
            status.shards.push(report.shard);
            status.mqtt = status.mqtt.or(report.mqtt);
            if let Some(trunk) = report.trunk {
                status.network = trunk.network;
                status.journal = trunk.journal;
                status.uplinks = trunk.uplinks;
                status.sources = trunk.sources;
                status.sinks = trunk.sinks;
                status.ledger = trunk.ledger;
                status.delivered = trunk.delivered;
                status.trust = trunk.trust;
                status.commands = trunk.commands;
                status.portals = trunk.portals;
                status.cluster = trunk.cluster;
            }
        }
        if let Some(mqtt) = &mut status.mqtt {
            let dropped = status.shards.iter().map(|shard| shard.messages_dropped);
            mqtt.dropped_behind += dropped.sum::<u64>();
        }
        status.judge();
        status
    }

    fn identity_status(&self) -> IdentityStatus {
        let health = self
            .key_health
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let statistics = self.signer.statistics();
        IdentityStatus {
            identifier: self.identifier.clone(),
            key: self.key_place.to_owned(),
            attestation_secs: health.not_after.saturating_sub(self.clock.wall().unix_secs()),
            signatures: statistics.signatures,
            signing_errors: statistics.errors.values().sum(),
            problem: health.problem,
            tpm: health.tpm.as_ref().map(TpmStatus::new),
            worker: statistics
                .process
                .as_ref()
                .map(|state| TokenStatus::new(state, self.key_place == "token")),
        }
    }

    /// Adds or removes an inlet or an outlet; returns where it listens, or what it leads to.
    ///
    /// # Errors
    /// [`StartError`] if it cannot be.
    pub(crate) async fn change_portals(
        &self,
        change: portals::changing::Change,
    ) -> Result<String, StartError> {
        let (sender, done) = oneshot::channel();
        let mut message = ShardMessage::Portal(Box::new(change), sender);
        let ended = || StartError::new("the node is ending");
        let trunk = self.shards.first().ok_or_else(ended)?;
        while let Err(error) = trunk.try_send(message) {
            if matches!(error, fieldgate_io::mailbox::MailError::Closed(_)) {
                return Err(ended());
            }
            message = error.into_value();
            tokio::time::sleep(MAILBOX_RETRY).await;
        }
        done.await.map_err(|_| ended())?
    }

    /// Has members leave this relay within this time, or lets them stay again.
    pub(crate) async fn drain(&self, within: Option<std::time::Duration>) {
        self.desk.tell(TrunkMessage::Drain { within }).await;
    }

    /// Has members leave this relay, and waits until none is left that will, `within` this time at the most.
    pub(crate) async fn drain_and_wait(&self, within: std::time::Duration) {
        let deadline = tokio::time::Instant::now() + within;
        self.drain(Some(within)).await;
        while tokio::time::Instant::now() < deadline {
            let status = self.status().await;
            if !status.network.drain.is_some_and(|drain| drain.is_waiting) {
                return;
            }
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Asks every shard to end.
    pub(crate) fn stop(&self) {
        for shard in &self.shards {
            let mut message = ShardMessage::Stop;
            // A mailbox that is full is being emptied: the shard is alive.
            while let Err(error) = shard.try_send(message) {
                if matches!(error, fieldgate_io::mailbox::MailError::Closed(_)) {
                    break;
                }
                message = error.into_value();
                std::thread::yield_now();
            }
        }
    }
}

/// Why a node does not start.
#[derive(Debug)]
pub(crate) struct StartError {
    message: String,
    hint: Option<String>,
}

impl StartError {
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            hint: None,
        }
    }

    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        Self::new(format!("{}: {error}", path.display()))
    }

    pub(crate) fn key(error: &fieldgate_hsm::Error) -> Self {
        Self::new(format!("identity key: {error}")).hint(error.hint())
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Returns what is wrong and what to do about it.
    pub(crate) fn into_parts(self) -> (String, Option<String>) {
        (self.message, self.hint)
    }

    pub(crate) fn into_failure(self) -> Failure {
        let failure = Failure::new(self.message);
        match self.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}

/// Wait for room in the trunk's mailbox.
const MAILBOX_RETRY: std::time::Duration = std::time::Duration::from_millis(10);
/// How often a node that ends looks whether members have left.
const DRAIN_LOOK: std::time::Duration = std::time::Duration::from_millis(200);
/// Longest time a shard may take to tell its status.
const ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(2);
/// Messages that wait for a shard, at the most.
pub(crate) const MAILBOX_MAX: usize = 4096;
