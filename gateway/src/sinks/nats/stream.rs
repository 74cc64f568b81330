//! The stream behind the sink: finding or creating it, judging it, and reading back which readings it has.

use std::{future::poll_fn, pin::pin, time::Duration};

use async_nats::jetstream::{
    self, Context,
    consumer::{AckPolicy, DeliverPolicy, pull},
    context::GetStreamErrorKind,
    stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream},
};
use fieldgate_config::settings::sink::{NatsSink as Settings, Output, StreamCreate};
use futures_util::Stream as _;

use crate::sinks::positions::{SourceKey, parse_id};

/// Finds the stream, or creates it if the settings say how.
///
/// # Errors
/// In words, and whether it is a refusal.
pub(crate) async fn open(
    context: &Context,
    settings: &Settings,
    output: &Output,
) -> Result<Stream, (bool, String)> {
    let name = settings.stream.as_str();
    let error = match context.get_stream(name).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let is_absent = matches!(
        error.kind(),
        GetStreamErrorKind::JetStream(error) if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND
    );
    let is_refused = matches!(error.kind(), GetStreamErrorKind::JetStream(_));
    match &settings.create {
        Some(create) if is_absent => {
            let created = context.create_stream(config(name, create, output)).await;
            let stream =
                created.map_err(|error| (true, format!("stream {name} cannot be created: {error}")))?;
            tracing::info!(stream = name, subjects = ?subjects(output), "stream created");
            Ok(stream)
        }
        None if is_absent => Err((
            true,
            format!("stream {name} is not there; create it, or add [collector.sink.create]"),
        )),
        Some(_) | None => Err((is_refused, format!("stream {name}: {error}"))),
    }
}

fn config(name: &str, create: &StreamCreate, output: &Output) -> Config {
    Config {
        name: name.to_owned(),
        subjects: subjects(output),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        // What does not fit is refused and stays with the gateways, instead of pushing out what was acknowledged.
        discard: DiscardPolicy::New,
        num_replicas: create.replicas as usize,
        duplicate_window: create.duplicate_window,
        max_bytes: create
            .bytes_max
            .map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_age: create.age_max.unwrap_or_default(),
        description: Some("readings of fieldgate collectors".to_owned()),
        ..Config::default()
    }
}

/// Returns the subjects that cover every topic: the fixed first levels and all below.
fn subjects(output: &Output) -> Vec<String> {
    let templates = std::iter::once(&output.topic).chain(output.renames.iter().map(|rename| &rename.to));
    let mut roots: Vec<&str> = templates.filter_map(|template| template.literal_root()).collect();
    roots.sort_unstable();
    roots.dedup();
    roots
        .into_iter()
        .flat_map(|root| [root.to_owned(), format!("{root}.>")])
        .collect()
}

/// Says what an acknowledgement of this stream is worth, if less than stable storage on several machines.
pub(crate) fn durability(info: &Info, server_version: &str) -> Option<String> {
    let config = &info.config;
    if config.storage == StorageType::Memory {
        return Some(format!(
            "stream {} is kept in memory: what it acknowledged is lost when its server restarts",
            config.name
        ));
    }
    if config.no_ack {
        return Some(format!(
            "stream {} has no_ack: it acknowledges nothing",
            config.name
        ));
    }
    let replicas = config.num_replicas;
    let copies = match replicas {
        0 | 1 => "on one server".to_owned(),
        count => format!("on {count} servers"),
    };
    let cure = if has_sync_interval(server_version) {
        "unless its file says `sync_interval: always`, which it does not tell over this connection"
    } else {
        "and this version cannot be told otherwise; run 2.10 or newer with `sync_interval: always`"
    };
    Some(format!(
        "NATS {server_version} acknowledges before fsync {copies}, {cure}: a power cut can lose what was acknowledged in the two \
         minutes before"
    ))
}

/// Whether the server has the setting, which came with 2.10.
fn has_sync_interval(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (2, 10)
}

/// Reads the ids of messages `from` to `to` of the stream and hands each to `take`.
///
/// # Errors
/// In words, if the server does not give all of them.
pub(crate) async fn read_back(
    stream: &Stream,
    from: u64,
    to: u64,
    mut take: impl FnMut(SourceKey, u64, u64),
) -> Result<(), String> {
    if from > to {
        return Ok(());
    }
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
        ack_policy: AckPolicy::None,
        headers_only: true,
        inactive_threshold: CONSUMER_LIFE,
        ..pull::Config::default()
    };
    let failed = |error: &dyn std::fmt::Display| format!("reading back what the stream has: {error}");
    let consumer = stream
        .create_consumer(config)
        .await
        .map_err(|error| failed(&error))?;
    let mut pending = consumer.cached_info().num_pending;
    let mut reached = from - 1;
    let mut silences = 0;
    while reached < to && pending > 0 {
        let messages = consumer
            .fetch()
            .max_messages(FETCH_COUNT)
            .expires(FETCH_WAIT)
            .messages()
            .await
            .map_err(|error| failed(&error))?;
        let mut messages = pin!(messages);
        let mut count = 0;
        while let Some(message) = poll_fn(|task| messages.as_mut().poll_next(task)).await {
            let message = message.map_err(|error| failed(&error))?;
            let info = message.info().map_err(|error| failed(&error))?;
            (reached, pending) = (info.stream_sequence, info.pending);
            count += 1;
            let id = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get("Nats-Msg-Id"));
            if let Some((key, first, last)) = id.and_then(|id| parse_id(id.as_str())) {
                take(key, first, last);
            }
        }
        silences = if count == 0 { silences + 1 } else { 0 };
        if silences > SILENCES_MAX {
            return Err(format!(
                "reading back what the stream has: it ends at {reached}, {to} was promised"
            ));
        }
    }
    Ok(())
}

/// How long the server keeps the consumer when nothing is asked of it.
const CONSUMER_LIFE: Duration = Duration::from_secs(30);
/// Messages asked for at a time.
const FETCH_COUNT: usize = 1000;
/// How long the server looks for them.
const FETCH_WAIT: Duration = Duration::from_secs(2);
/// Answers without a message before that counts as a failure.
const SILENCES_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_came_with_2_10() {
        for (version, has) in [
            ("2.9.10", false),
            ("2.10.0", true),
            ("2.12.1-preview", true),
            ("3.0.0", true),
            ("", false),
        ] {
            assert_eq!(has_sync_interval(version), has, "{version}");
        }
    }
}
