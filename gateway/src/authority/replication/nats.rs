//! A replication log in a stream of NATS JetStream.
//!
//! Its one subject has an entry for each message, and the number of an entry is that of its message. A message is taken only behind the one
//! it names (`Nats-Expected-Last-Sequence`), which the stream's leader decides with a majority of its replicas. The newest message is asked
//! of the leader, so a replica that is behind never answers.

use std::time::Duration;

use async_nats::{
    Client, ServerAddr,
    jetstream::{
        self, Context,
        context::{ContextBuilder, GetStreamErrorKind, PublishErrorKind},
        message::PublishMessage,
        stream::{Config, DiscardPolicy, LastRawMessageErrorKind, RawMessageErrorKind, StorageType, Stream},
    },
};
use fieldgate_config::settings::cluster::AuthorityCluster as Settings;
use fieldgate_proto::trust::REPLICATION_ENTRY_LEN_MAX;
use futures_util::{StreamExt as _, stream};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time,
};

use super::{Appended, LogAway, ReplicationLog};
use crate::sinks::nats::{chain, one_connection};

/// The stream that the settings name.
pub(crate) struct NatsLog {
    settings: Settings,
    /// Made on the authority's thread, on which it runs while something is asked.
    runtime: Option<Runtime>,
    session: Option<Session>,
}

/// A connection.
struct Session {
    context: Context,
    stream: Stream,
    server: String,
    lost: watch::Receiver<Option<String>>,
}

impl NatsLog {
    pub(crate) const fn new(settings: Settings) -> Self {
        Self {
            settings,
            runtime: None,
            session: None,
        }
    }

    /// Asks something, over a new connection if there is none. After a failure the next question has a new one.
    fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&Session, &str) -> Result<T, String>,
    ) -> Result<T, LogAway> {
        let runtime = match &mut self.runtime {
            Some(runtime) => runtime,
            none => {
                let made = Builder::new_current_thread().enable_all().build();
                none.insert(made.map_err(|error| LogAway(error.to_string()))?)
            }
        };
        let (settings, session) = (&self.settings, &mut self.session);
        let answer = runtime.block_on(async {
            if let Some(reason) = session.as_ref().and_then(|session| session.lost.borrow().clone()) {
                tracing::debug!(reason, "the connection to the cluster's log was lost");
                *session = None;
            }
            let session = match session {
                Some(session) => session,
                none => none.insert(connect(settings).await?),
            };
            let subject = subject(settings);
            let asked = question(session, &subject);
            match time::timeout(QUESTION_TIME, asked).await {
                Ok(answer) => answer,
                Err(_) => Err("no answer".to_owned()),
            }
        });
        if answer.is_err() {
            self.session = None;
        }
        answer.map_err(LogAway)
    }
}

impl ReplicationLog for NatsLog {
    fn newest(&mut self) -> Result<Option<(u64, Vec<u8>)>, LogAway> {
        self.ask(async |session, subject| {
            match session.stream.get_last_raw_message_by_subject(subject).await {
                Ok(message) => Ok(Some((message.sequence, message.payload.to_vec()))),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(chain(&error)),
            }
        })
    }

    fn range(&mut self, from: u64, to: u64) -> Result<Option<Vec<Vec<u8>>>, LogAway> {
        self.ask(async |session, _| {
            let mut entries = Vec::new();
            let mut messages = stream::iter(from..=to)
                .map(|sequence| session.stream.get_raw_message(sequence))
                .buffered(READS_MAX);
            while let Some(message) = messages.next().await {
                match message {
                    Ok(message) => entries.push(message.payload.to_vec()),
                    Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
                    Err(error) => return Err(chain(&error)),
                }
            }
            Ok(Some(entries))
        })
    }

    fn append(&mut self, after: u64, entry: Vec<u8>) -> Result<Appended, LogAway> {
        self.ask(async |session, subject| {
            let message = PublishMessage::build()
                .payload(entry.into())
                .expected_last_sequence(after);
            let sent = session.context.send_publish(subject.to_owned(), message).await;
            let answer = match sent {
                Ok(answer) => answer.await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(ack) if ack.sequence == after + 1 => Ok(Appended::Done),
                Ok(ack) => Err(format!(
                    "the message behind {after} has the number {}",
                    ack.sequence
                )),
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(Appended::Late),
                Err(error) => Err(chain(&error)),
            }
        })
    }

    fn server(&self) -> Option<String> {
        self.session.as_ref().map(|session| session.server.clone())
    }
}

async fn connect(settings: &Settings) -> Result<Session, String> {
    let (options, scheme, lost) =
        one_connection(&settings.auth, settings.tls.as_ref(), (ANSWER_TIME, PING_EVERY))?;
    let servers = settings.servers.iter();
    let servers = servers.map(|server| format!("{scheme}://{server}").parse::<ServerAddr>());
    let servers = servers
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| chain(&error))?;
    let connecting = options.name("fieldgate authority").connect(servers);
    let client: Client = match time::timeout(CONNECT_TIME, connecting).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Err(chain(&error)),
        Err(_) => return Err("no server answers".to_owned()),
    };
    let info = client.server_info();
    let server = format!(
        "{} {}:{} (NATS {})",
        info.server_name, info.host, info.port, info.version
    );
    let context = ContextBuilder::new()
        .timeout(ANSWER_TIME)
        .ack_timeout(ANSWER_TIME)
        .build(client);
    let opened = time::timeout(QUESTION_TIME, open(&context, settings)).await;
    let stream = opened.map_err(|_| "no answer".to_owned())??;
    Ok(Session {
        context,
        stream,
        server,
        lost,
    })
}

/// Finds the stream, or makes it.
async fn open(context: &Context, settings: &Settings) -> Result<Stream, String> {
    let name = &settings.stream;
    let error = match context.get_stream(name).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let is_absent = matches!(
        error.kind(),
        GetStreamErrorKind::JetStream(error) if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND
    );
    if !is_absent {
        return Err(format!("stream {name}: {}", chain(&error)));
    }
    let config = Config {
        name: name.clone(),
        subjects: vec![subject(settings)],
        description: Some("what an authority of fieldgate has decided".to_owned()),
        storage: StorageType::File,
        num_replicas: settings.replicas as usize,
        max_messages: i64::from(settings.entries_max),
        max_message_size: i32::try_from(REPLICATION_ENTRY_LEN_MAX + HEADERS_LEN_MAX).unwrap_or(i32::MAX),
        discard: DiscardPolicy::Old,
        deny_delete: true,
        deny_purge: true,
        ..Config::default()
    };
    let created = context.create_stream(config).await;
    let stream = created.map_err(|error| format!("stream {name} cannot be created: {}", chain(&error)))?;
    tracing::info!(stream = name, replicas = settings.replicas, "stream created");
    Ok(stream)
}

/// The one subject of the stream.
fn subject(settings: &Settings) -> String {
    format!("{}.log", settings.stream)
}

/// Longest time for one answer.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// Longest time for a question of several parts.
const QUESTION_TIME: Duration = Duration::from_secs(10);
/// Longest time for a connection, over all servers.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How often the server is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Messages asked for at a time.
const READS_MAX: usize = 16;
/// Room for the headers of a message, in bytes.
const HEADERS_LEN_MAX: usize = 1_024;
