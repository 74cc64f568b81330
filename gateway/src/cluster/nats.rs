//! A key-value bucket of NATS JetStream.
//!
//! A bucket is a stream `KV_<bucket>` with a subject for each key, of which the last message counts (NATS ADR-8). It is spoken to as a
//! stream: servers of 2.9 do not understand how newer clients ask for buckets, and an acknowledgement says the number of the
//! change.

use std::{
    future::IntoFuture as _,
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use async_nats::{
    Client, HeaderMap, ServerAddr,
    jetstream::{
        self, Context, Message,
        consumer::{DeliverPolicy, ReplayPolicy, push},
        context::{ContextBuilder, GetStreamErrorKind},
        message::PublishMessage,
        stream::{Config, DiscardPolicy, StorageType, Stream},
    },
};
use fieldgate_config::settings::cluster::NatsBucket as Settings;
use tokio::{sync::watch, time};

use super::{Change, ClusterStore, StoreSession, Write};
use crate::sinks::nats::{chain, one_connection};

/// The bucket that the settings name.
pub(crate) struct NatsStore {
    settings: Settings,
}

/// A connection to one of its servers.
pub(crate) struct NatsSession {
    context: Context,
    stream: Stream,
    prefix: String,
    lost: watch::Receiver<Option<String>>,
}

/// Messages of the bucket's stream.
pub(crate) struct NatsChanges {
    messages: Pin<Box<push::Ordered>>,
    prefix: String,
}

impl NatsStore {
    pub(crate) const fn new(settings: Settings) -> Self {
        Self { settings }
    }

    async fn client(&self) -> Result<(Client, watch::Receiver<Option<String>>), String> {
        // Another connection is another session, which reads everything again.
        let (options, scheme, lost) = one_connection(
            &self.settings.auth,
            self.settings.tls.as_ref(),
            (ANSWER_TIME, PING_EVERY),
        )?;
        let options = options.name("fieldgate relay");
        let servers = self.settings.servers.iter();
        let servers = servers.map(|server| format!("{scheme}://{server}").parse::<ServerAddr>());
        let servers = servers
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| chain(&error))?;
        match time::timeout(CONNECT_TIME, options.connect(servers)).await {
            Ok(Ok(client)) => Ok((client, lost)),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("no server answers".to_owned()),
        }
    }

    /// Finds the bucket, or makes it.
    async fn bucket(&self, context: &Context) -> Result<Stream, String> {
        let bucket = &self.settings.bucket;
        let name = format!("KV_{bucket}");
        let error = match context.get_stream(&name).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let is_absent = matches!(
            error.kind(),
            GetStreamErrorKind::JetStream(error) if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND
        );
        if !is_absent {
            return Err(format!("bucket {bucket}: {}", chain(&error)));
        }
        let config = Config {
            name,
            subjects: vec![format!("$KV.{bucket}.>")],
            description: Some("names that relays of fieldgate hold".to_owned()),
            storage: StorageType::File,
            num_replicas: self.settings.replicas as usize,
            max_messages_per_subject: 1,
            max_message_size: VALUE_LEN_MAX,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..Config::default()
        };
        let created = context.create_stream(config).await;
        let stream =
            created.map_err(|error| format!("bucket {bucket} cannot be created: {}", chain(&error)))?;
        tracing::info!(bucket, replicas = self.settings.replicas, "bucket created");
        Ok(stream)
    }
}

impl ClusterStore for NatsStore {
    type Session = NatsSession;

    async fn connect(&self) -> Result<NatsSession, String> {
        let (client, lost) = self.client().await?;
        let context = ContextBuilder::new()
            .timeout(ANSWER_TIME)
            .ack_timeout(ANSWER_TIME)
            .max_ack_inflight(super::WRITES_MAX)
            .build(client);
        let stream = self.bucket(&context).await?;
        Ok(NatsSession {
            context,
            stream,
            prefix: format!("$KV.{}.", self.settings.bucket),
            lost,
        })
    }
}

impl StoreSession for NatsSession {
    type Changes = NatsChanges;

    fn server(&self) -> String {
        let info = self.context.client().server_info();
        format!(
            "{} {}:{} (NATS {})",
            info.server_name, info.host, info.port, info.version
        )
    }

    async fn watch(&self) -> Result<(NatsChanges, bool), String> {
        let failed = |error: &dyn std::error::Error| format!("reading the bucket: {}", chain(error));
        let consumer = self.stream.create_consumer(push::OrderedConfig {
            deliver_subject: self.context.client().new_inbox(),
            description: Some("fieldgate relay".to_owned()),
            filter_subject: format!("{}>", self.prefix),
            replay_policy: ReplayPolicy::Instant,
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..push::OrderedConfig::default()
        });
        let consumer = consumer.await.map_err(|error| failed(&error))?;
        // Nobody listens to the consumer yet, so everything that is there is pending.
        let is_empty = consumer.cached_info().num_pending == 0;
        let messages = consumer.messages().await.map_err(|error| failed(&error))?;
        let changes = NatsChanges {
            messages: Box::pin(messages),
            prefix: self.prefix.clone(),
        };
        Ok((changes, is_empty))
    }

    fn write(&self, key: &str, value: Option<Vec<u8>>) -> Write {
        let context = self.context.clone();
        let subject = format!("{}{key}", self.prefix);
        Box::pin(async move {
            let mut publish = PublishMessage::build();
            match value {
                Some(value) => publish = publish.payload(value.into()),
                None => {
                    let mut headers = HeaderMap::new();
                    headers.insert(OPERATION, DELETE);
                    publish = publish.headers(headers);
                }
            }
            let written = async {
                let ack = context.send_publish(subject, publish).await?;
                ack.into_future().await
            };
            match time::timeout(ANSWER_TIME, written).await {
                Ok(Ok(ack)) => Ok(ack.sequence),
                Ok(Err(error)) => Err(chain(&error)),
                Err(_) => Err("no acknowledgement".to_owned()),
            }
        })
    }

    async fn lost(&mut self) -> String {
        loop {
            if let Some(reason) = self.lost.borrow_and_update().clone() {
                return reason;
            }
            if self.lost.changed().await.is_err() {
                return "connection lost".to_owned();
            }
        }
    }
}

impl futures_util::Stream for NatsChanges {
    type Item = Result<Change, String>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.messages.as_mut().poll_next(task);
        polled.map(|message| {
            Some(match message? {
                Ok(message) => change(&message, &self.prefix),
                Err(error) => Err(chain(&error)),
            })
        })
    }
}

fn change(message: &Message, prefix: &str) -> Result<Change, String> {
    let info = message.info().map_err(|error| error.to_string())?;
    let operation = message
        .headers
        .as_ref()
        .and_then(|headers| headers.get(OPERATION));
    let is_deleted = operation.is_some_and(|operation| matches!(operation.as_str(), DELETE | PURGE));
    let subject = message.subject.as_str();
    Ok(Change {
        key: subject.strip_prefix(prefix).unwrap_or(subject).to_owned(),
        revision: info.stream_sequence,
        value: (!is_deleted).then(|| message.payload.to_vec()),
        is_last: info.pending == 0,
    })
}

/// What an entry's message says it did, if it did not set the entry.
const OPERATION: &str = "KV-Operation";
const DELETE: &str = "DEL";
const PURGE: &str = "PURGE";
/// Longest time for an answer or an acknowledgement.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Longest time for a connection, over all servers.
const CONNECT_TIME: Duration = Duration::from_secs(15);
/// How often the server is asked whether it is there; two questions without answer end the connection.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Longest value: those of relays have some 21 bytes.
const VALUE_LEN_MAX: i32 = 1_024;
