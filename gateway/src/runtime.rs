//! A running node: its threads, what passes between them, and how it starts and ends.

use std::{
    fmt, io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, PoisonError},
};

use fieldgate_io::{Selected, mailbox::MailSender};
use fieldgate_proto::channel::LocalIdentity;
use tokio::sync::oneshot;

use crate::{
    commands::Failure,
    sinks::Confirmation,
    status::{IdentityStatus, IoStatus, NodeStatus, ShardStatus},
};

pub(crate) mod clock;
pub(crate) mod collector;
pub(crate) mod entropy;
pub(crate) mod field;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod shard;
pub(crate) mod start;
pub(crate) mod tls;
pub(crate) mod trunk;

/// What is sent to a shard. Every mailbox is bounded; what does not fit waits at its sender.
pub(crate) enum ShardMessage {
    /// Tell what you are doing.
    Status(oneshot::Sender<ShardReport>),
    /// To the trunk: prove yourself with this from now on.
    Local(Box<LocalIdentity>),
    /// To the trunk: the address of a neighbour, or why there is none.
    Resolved {
        /// Index of the neighbour.
        neighbour: usize,
        /// Addresses to try, best first.
        addresses: Result<Vec<SocketAddr>, String>,
    },
    /// To the trunk: a sink has made readings safe.
    Confirmed(Confirmation),
    /// To the trunk: readings that a shard without journal took.
    Readings(field::ReadingBatch),
    /// From the trunk: every reading up to this ticket of yours is on stable storage.
    Committed {
        /// The shard's own count of readings.
        ticket: u64,
    },
    /// A client has connected to another shard with this identifier: end its older session.
    TakenOver {
        /// MQTT client identifier.
        client_id: Box<str>,
    },
    /// End: tell clients, flush, stop.
    Stop,
}

/// A shard's part of the status.
#[derive(Default)]
pub(crate) struct ShardReport {
    /// Its clients.
    pub(crate) shard: ShardStatus,
    /// What only the trunk knows.
    pub(crate) trunk: Option<trunk::TrunkReport>,
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
    pub(crate) signer: Arc<fieldgate_hsm::Worker>,
    pub(crate) shards: Vec<MailSender<ShardMessage>>,
}

impl NodeHandle {
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
            ..NodeStatus::default()
        };
        for answer in answers {
            let report = tokio::time::timeout(ANSWER_TIME_MAX, answer).await;
            let report = report.ok().and_then(Result::ok).unwrap_or_default();
            status.shards.push(report.shard);
            if let Some(trunk) = report.trunk {
                status.network = trunk.network;
                status.journal = trunk.journal;
                status.uplinks = trunk.uplinks;
                status.sources = trunk.sources;
                status.sinks = trunk.sinks;
                status.delivered = trunk.delivered;
            }
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
            attestation_secs: health.not_after.saturating_sub(clock::wall().unix_secs()),
            signatures: statistics.signatures,
            signing_errors: statistics.errors.values().sum(),
            problem: health.problem,
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

/// Longest time a shard may take to tell its status.
const ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(2);
/// Messages that wait for a shard, at the most.
pub(crate) const MAILBOX_MAX: usize = 4096;
