//! `[[collector.sink]]`.

use std::collections::BTreeSet;

use super::Unique;
use crate::problem::Findings;
use crate::raw;
use crate::raw::sink::SinkName;
use crate::reader::{Field, RawTable};
use crate::settings::SecretSource;
use crate::settings::sink::{
    BrokerCommands, FieldName, FileSink, Format, HttpSink, Login, MqttSink, MqttVersion, NatsAuth, NatsSink,
    Output, Sink, SinkKind, SinkTls, StreamCreate,
};
use crate::shape::SinkPath;
use crate::template::{Rename, TopicTemplate};
use crate::text::template_help;

/// Checks all sinks; `None` if one of them is wrong.
pub(super) fn sinks(
    raw: &mut raw::Collector,
    default_client_id: &str,
    findings: &mut Findings,
) -> Option<Vec<Sink>> {
    if !raw.sink.is_given() {
        let draft = raw
            .header()
            .error("`collector` has no `[[collector.sink]]`: readings would go nowhere");
        findings.push(draft.help(
            "add [[collector.sink]] with kind = \"mqtt\" or \"nats\" and address = \"host:port\", kind = \"http\" and url, or \
             kind = \"file\" and path",
        ));
    }
    let raws = raw.sink.value.take().unwrap_or_default();
    check_unique(&raws, default_client_id, findings);
    let sinks: Vec<_> = raws
        .into_iter()
        .map(|raw| {
            check(&raw, findings);
            sink(raw, default_client_id, findings)
        })
        .collect();
    sinks.into_iter().collect()
}

fn check_unique(raws: &[raw::sink::Sink], default_client_id: &str, findings: &mut Findings) {
    let mut names = Unique::new(
        "the name of a sink",
        "give each sink a `name`; without one it is called by its kind",
    );
    let mut paths = Unique::new("a file", "give each sink a file of its own");
    let mut clients = Unique::new(
        "a client of this broker",
        "give each sink of one broker a `client_id` of its own, or the broker ends one for the other",
    );
    for raw in raws {
        if let Some(name) = &raw.name.value {
            names.add(name, raw.name.place(), findings);
        } else if let Some(kind) = raw.kind.value {
            names.add(kind_name(kind), raw.kind.place(), findings);
        }
        if let Some(path) = &raw.path.value {
            paths.add(path, raw.path.place(), findings);
        }
        if let (Some(address), Some(SinkName::Mqtt)) = (&raw.address.value, raw.kind.value) {
            let client_id = raw.client_id.value.as_deref().unwrap_or(default_client_id);
            let place = if raw.client_id.is_given() {
                raw.client_id.place()
            } else {
                raw.address.place()
            };
            clients.add(format!("{client_id} at {address}"), place, findings);
        }
    }
}

fn check(raw: &raw::sink::Sink, findings: &mut Findings) {
    match raw.kind.value {
        Some(SinkName::Null) => {
            let draft = raw.header().warning(format!(
                "`{}` throws readings away and confirms them",
                raw.header().path
            ));
            findings.push(draft.help("take it out, except for measurements"));
        }
        Some(SinkName::Mqtt) => {
            check_server(raw, findings);
            check_commands(raw, findings);
        }
        Some(SinkName::Nats) => check_server(raw, findings),
        Some(SinkName::Http) => check_http(raw, findings),
        Some(SinkName::File) => check_file(raw, findings),
        None => {}
    }
    if let Some(tls) = &raw.tls.value
        && tls.certificate.is_given()
        && !tls.key.is_given()
    {
        let draft = tls
            .certificate
            .error(format!("`{}` needs `key`", tls.certificate.path));
        findings.push(draft.help("name the file of its private key"));
    }
}

fn check_server(raw: &raw::sink::Sink, findings: &mut Findings) {
    if raw.password.is_given() && !raw.username.is_given() {
        let draft = raw
            .password
            .error(format!("`{}` needs `username`", raw.password.path));
        findings.push(draft.help("add `username`: a password alone says nothing (MQTT 3.1.1 §3.1.2.9)"));
    }
    let ways = [
        raw.username.is_given(),
        raw.token.is_given(),
        raw.credentials.is_given(),
    ];
    if ways.into_iter().filter(|given| *given).count() > 1 {
        let draft = raw.header().error(format!(
            "`{}` has more than one of `username`, `token` and `credentials`",
            raw.header().path
        ));
        findings.push(draft.help("keep the one that the server asks for"));
    }
    let secret = raw.password.is_given() || raw.token.is_given() || raw.credentials.is_given();
    let is_remote = raw
        .address
        .value
        .as_ref()
        .is_some_and(|address| !address.is_loopback());
    if secret && is_remote && !raw.tls.is_given() {
        let draft = raw.address.warning(format!(
            "`{}` is another machine: the password and all readings go there unencrypted",
            raw.address.path
        ));
        findings.push(draft.help(format!(
            "add [{}.tls], or run the collector beside the broker",
            raw.header().path
        )));
    }
}

/// A result that came back as a command would make another result, without end.
fn check_commands(raw: &raw::sink::Sink, findings: &mut Findings) {
    let roots = raw
        .command_topic
        .value
        .as_deref()
        .zip(raw.result_topic.value.as_deref());
    let is_below = roots.is_some_and(|(commands, results)| {
        let rest = results.strip_prefix(commands);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    if raw.commands.value == Some(true) && is_below {
        let place = if raw.result_topic.is_given() {
            &raw.result_topic
        } else {
            &raw.command_topic
        };
        let draft = place.error(format!(
            "`{}` lies in `{}`",
            raw.result_topic.path, raw.command_topic.path
        ));
        findings.push(draft.help("results there would come back as commands: give them topics of their own"));
    }
}

fn check_http(raw: &raw::sink::Sink, findings: &mut Findings) {
    let Some(url) = &raw.url.value else { return };
    if url.is_https {
        return;
    }
    if raw.tls.is_given() {
        let draft = raw.url.error(format!(
            "`{}` is not `https://`, but `tls` is there",
            raw.url.path
        ));
        findings.push(draft.help("write https://, or take `tls` out"));
    }
    if raw.token.is_given() && !url.address.is_loopback() {
        let draft = raw.url.warning(format!(
            "`{}` is another machine: the token and all readings go there unencrypted",
            raw.url.path
        ));
        findings.push(draft.help("write https://"));
    }
}

fn check_file(raw: &raw::sink::Sink, findings: &mut Findings) {
    let rotates = raw.rotate_bytes.is_given() || raw.rotate_secs.is_given();
    if raw.path.value == Some(SinkPath::Stdout) && (rotates || raw.keep_files.is_given()) {
        let draft = raw.path.error(format!(
            "`{}` is standard output, which does not rotate",
            raw.path.path
        ));
        findings.push(draft.help("name a file, or take `rotate_bytes`, `rotate_secs` and `keep_files` out"));
    } else if raw.keep_files.is_given() && !rotates {
        let draft = raw.keep_files.error(format!(
            "`{}` needs `rotate_bytes` or `rotate_secs`",
            raw.keep_files.path
        ));
        findings.push(draft.help("say when a file is closed: there is only one otherwise"));
    }
}

fn sink(raw: raw::sink::Sink, default_client_id: &str, findings: &mut Findings) -> Option<Sink> {
    let kind = raw.kind.value?;
    let output = output(&raw, kind, findings);
    let name = match raw.name.value {
        Some(name) => name,
        None => kind_name(kind).to_owned(),
    };
    let login = raw.username.value.map(|username| Login {
        username,
        password: raw.password.value,
    });
    let kind = match kind {
        SinkName::Mqtt => SinkKind::Mqtt(MqttSink {
            address: raw.address.value?,
            tls: raw.tls.value.map(tls),
            client_id: raw
                .client_id
                .value
                .unwrap_or_else(|| default_client_id.to_owned()),
            login,
            version: raw.protocol.value?,
            inflight_max: raw.inflight_max.value?,
            on_rejected: raw.on_rejected.value?,
            commands: raw.commands.value?.then_some(BrokerCommands {
                command_topic: raw.command_topic.value?,
                result_topic: raw.result_topic.value?,
            }),
        }),
        SinkName::Nats => SinkKind::Nats(NatsSink {
            address: raw.address.value?,
            tls: raw.tls.value.map(tls),
            auth: auth(login, raw.token.value, raw.credentials.value),
            stream: raw.stream.value?,
            create: match raw.create.value {
                Some(create) => Some(StreamCreate {
                    replicas: create.replicas.value?,
                    duplicate_window: create.duplicate_window_secs.value?,
                    bytes_max: create.bytes_max.value,
                    age_max: create.age_max_secs.value,
                }),
                None => None,
            },
            inflight_max: raw.inflight_max.value?,
            on_rejected: raw.on_rejected.value?,
        }),
        SinkName::Http => SinkKind::Http(HttpSink {
            url: raw.url.value?,
            tls: raw.tls.value.map(tls).unwrap_or_default(),
            token: raw.token.value,
            batch_count: raw.batch_count.value?,
            batch_bytes: raw.batch_bytes.value?,
            linger: raw.linger_ms.value?,
            timeout: raw.timeout_secs.value?,
            gzip: raw.gzip.value?,
            on_rejected: raw.on_rejected.value?,
        }),
        SinkName::File => match raw.path.value? {
            SinkPath::Stdout => SinkKind::Stdout,
            SinkPath::File(path) => SinkKind::File(FileSink {
                path,
                rotate_bytes: raw.rotate_bytes.value,
                rotate_after: raw.rotate_secs.value,
                keep_files: raw.keep_files.value,
            }),
        },
        SinkName::Null => SinkKind::Null,
    };
    Some(Sink {
        name,
        kind,
        output: output?,
    })
}

pub(super) fn auth(
    login: Option<Login>,
    token: Option<SecretSource>,
    credentials: Option<SecretSource>,
) -> NatsAuth {
    match (login, token, credentials) {
        (Some(login), _, _) => NatsAuth::Login(login),
        (None, Some(token), _) => NatsAuth::Token(token),
        (None, None, Some(credentials)) => NatsAuth::Credentials(credentials),
        (None, None, None) => NatsAuth::None,
    }
}

pub(super) fn tls(raw: raw::sink::SinkTls) -> SinkTls {
    SinkTls {
        ca: raw.ca.value,
        own: raw.certificate.value.zip(raw.key.value),
    }
}

/// Makes how readings look there, and says what does not go together.
fn output(raw: &raw::sink::Sink, kind: SinkName, findings: &mut Findings) -> Option<Output> {
    let format = match (raw.format.value, kind) {
        (Some(format), _) => format,
        (None, SinkName::Mqtt | SinkName::Nats) => Format::Raw,
        (None, SinkName::Http | SinkName::File | SinkName::Null) => Format::Json,
    };
    check_format(raw, kind, format, findings);
    let set = raw.set.value.clone().unwrap_or_default();
    for name in set.keys().filter(|name| is_taken(name, format)) {
        let draft = raw.set.error(format!(
            "`{}` has `{name}`, which has a meaning or form of its own here",
            raw.set.path
        ));
        findings.push(draft.help("choose another name; attributes of CloudEvents are 1 to 20 of `a-z0-9`"));
    }
    let topic = topic(raw, kind, findings);
    let renames = renames(raw, kind, findings);
    Some(Output {
        topic: topic?,
        renames: renames?,
        format,
        fields: fields(&raw.fields),
        set,
    })
}

fn check_format(raw: &raw::sink::Sink, kind: SinkName, format: Format, findings: &mut Findings) {
    if format == Format::Raw && matches!(kind, SinkName::Http | SinkName::File) {
        let draft = raw.format.error(format!(
            "`{}` is \"raw\", in which one payload runs into the next",
            raw.format.path
        ));
        findings.push(draft.help("write \"json\", \"cbor\" or \"cloudevents\""));
    }
    if raw.fields.is_given() && !matches!(format, Format::Json | Format::Cbor) {
        let draft = raw.fields.error(format!(
            "`{}` goes with `format` \"json\" or \"cbor\" only",
            raw.fields.path
        ));
        findings.push(draft.help("choose such a format, or take the fields out"));
    }
    let has_no_id = format == Format::Raw && raw.protocol.value == Some(MqttVersion::V311);
    if has_no_id && kind == SinkName::Mqtt {
        let draft = raw.protocol.warning(format!(
            "`{}` has no place for the id of a raw reading",
            raw.protocol.path
        ));
        findings.push(draft.help(
            "choose format = \"json\", \"cbor\" or \"cloudevents\": copies cannot be told from readings otherwise",
        ));
    }
}

/// Whether a record in this format has something else under this name, or cannot have it.
fn is_taken(name: &str, format: Format) -> bool {
    match format {
        Format::Json | Format::Cbor => {
            FieldName::WORDS.iter().any(|(word, _)| *word == name) || is_record_word(name)
        }
        // CloudEvents 1.0, "Attribute Naming Convention".
        Format::CloudEvents => {
            is_event_word(name)
                || name.len() > 20
                || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        }
        Format::Raw => {
            name.to_ascii_lowercase().starts_with("fieldgate-")
                || name.to_ascii_lowercase().starts_with("nats-")
        }
    }
}

fn fields(field: &Field<Vec<crate::reader::Item<FieldName>>>) -> Vec<FieldName> {
    let Some(items) = &field.value else {
        return FieldName::USUAL.to_vec();
    };
    // In the order of a record, the id first, none twice.
    let chosen: BTreeSet<FieldName> = items
        .iter()
        .map(|item| item.value)
        .chain([FieldName::Id])
        .collect();
    chosen.into_iter().collect()
}

fn topic(raw: &raw::sink::Sink, kind: SinkName, findings: &mut Findings) -> Option<TopicTemplate> {
    let usual = match kind {
        SinkName::Nats => "fieldgate/{gateway}/{path}",
        SinkName::Mqtt | SinkName::Http | SinkName::File | SinkName::Null => "{gateway}/{path}",
    };
    if raw.topic.is_given() {
        let topic = raw.topic.value.clone()?;
        return check_root(&topic, kind, &raw.topic, findings).then_some(topic);
    }
    Some(
        usual
            .parse()
            .expect("the usual templates are some, which the tests show"),
    )
}

fn renames(raw: &raw::sink::Sink, kind: SinkName, findings: &mut Findings) -> Option<Vec<Rename>> {
    let renames = raw.rename.value.iter().flatten().map(|rename| {
        let from = rename.from.value.clone()?;
        let text = rename.to.value.as_ref()?;
        match TopicTemplate::parse_with(text, &from) {
            Ok(to) => check_root(&to, kind, &rename.to, findings).then_some(Rename { from, to }),
            Err(error) => {
                let draft = rename.to.error(format!("`{}` {error}", rename.to.path));
                findings.push(draft.help(template_help(&error)));
                None
            }
        }
    });
    renames.collect::<Vec<_>>().into_iter().collect()
}

/// A stream takes what is below fixed first levels, so every topic needs one.
fn check_root<T>(topic: &TopicTemplate, kind: SinkName, field: &Field<T>, findings: &mut Findings) -> bool {
    let fits = kind != SinkName::Nats || topic.literal_root().is_some_and(is_subject_token);
    if !fits {
        let draft = field.error(format!(
            "`{}` is \"{topic}\", whose first level is not fixed or no token of a NATS subject",
            field.path
        ));
        findings.push(draft.help(
            "begin with a level of your own: \"plant/{gateway}/{path}\"; the stream takes \"plant.>\"",
        ));
    }
    fits
}

fn is_subject_token(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['$', '_'])
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Names that records have beside those of their fields.
fn is_record_word(name: &str) -> bool {
    [
        "event",
        "payload_base64",
        "reason",
        "first",
        "last",
        "count",
        "captured_from",
        "captured_to",
    ]
    .contains(&name)
}

fn is_event_word(name: &str) -> bool {
    [
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "data",
        "database64",
        "gateway",
        "device",
        "class",
        "timequality",
    ]
    .contains(&name)
}

fn kind_name(kind: SinkName) -> &'static str {
    match kind {
        SinkName::Mqtt => "mqtt",
        SinkName::Nats => "nats",
        SinkName::Http => "http",
        SinkName::File => "file",
        SinkName::Null => "null",
    }
}
