//! Where a collector puts readings.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::SecretSource;
use crate::address::HostPort;
use crate::template::{Rename, TopicTemplate};
use crate::url::HttpUrl;

/// Where a collector puts readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// Name in logs, metrics and stored positions: 1 to 63 of `a-z0-9-`.
    pub name: String,
    /// What it is.
    pub kind: SinkKind,
    /// How readings look there. Of no meaning for [`SinkKind::Null`].
    pub output: Output,
}

/// What a sink is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// An MQTT broker.
    Mqtt(MqttSink),
    /// A NATS JetStream stream.
    Nats(NatsSink),
    /// An HTTP server.
    Http(HttpSink),
    /// A file.
    File(FileSink),
    /// Standard output.
    Stdout,
    /// Nowhere, for measurements.
    Null,
}

/// How a reading looks at a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Topic of each reading.
    pub topic: TopicTemplate,
    /// Other topics for some; the first that fits counts. At most 64.
    pub renames: Vec<Rename>,
    /// How it is written. Never [`Format::Raw`] for files and HTTP.
    pub format: Format,
    /// Fields of a record in [`Format::Json`] and [`Format::Cbor`]; begins with [`FieldName::Id`], none twice.
    pub fields: Vec<FieldName>,
    /// Texts that are added.
    pub set: BTreeMap<String, String>,
}

/// How a reading is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Its payload alone.
    Raw,
    /// A JSON object.
    Json,
    /// A CBOR map (RFC 8949).
    Cbor,
    /// A `CloudEvents` 1.0 event in JSON.
    CloudEvents,
}

/// A field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FieldName {
    /// What identifies the reading everywhere and for ever.
    Id,
    /// Name of the gateway.
    Gateway,
    /// Identifier of the gateway.
    Identifier,
    /// Name of the device.
    Device,
    /// Resource of the device.
    Resource,
    /// The topic that `topic` and `rename` make.
    Topic,
    /// Class.
    Class,
    /// Capture time.
    CapturedAt,
    /// What the capture time is worth.
    TimeQuality,
    /// Content type.
    ContentType,
    /// User properties.
    Properties,
    /// The payload.
    Payload,
    /// Nodes passed on the way.
    Path,
}

impl FieldName {
    /// Every field with its name, in the order of a record.
    pub(crate) const WORDS: &'static [(&'static str, Self)] = &[
        ("id", Self::Id),
        ("gateway", Self::Gateway),
        ("identifier", Self::Identifier),
        ("device", Self::Device),
        ("resource", Self::Resource),
        ("topic", Self::Topic),
        ("class", Self::Class),
        ("captured_at", Self::CapturedAt),
        ("time_quality", Self::TimeQuality),
        ("content_type", Self::ContentType),
        ("properties", Self::Properties),
        ("payload", Self::Payload),
        ("path", Self::Path),
    ];

    /// The fields of a record for which the file names none.
    pub const USUAL: [Self; 10] = [
        Self::Id,
        Self::Gateway,
        Self::Device,
        Self::Resource,
        Self::Class,
        Self::CapturedAt,
        Self::TimeQuality,
        Self::ContentType,
        Self::Properties,
        Self::Payload,
    ];
}

/// An MQTT broker as a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttSink {
    /// The broker.
    pub address: HostPort,
    /// TLS; plain TCP without.
    pub tls: Option<SinkTls>,
    /// MQTT client identifier.
    pub client_id: String,
    /// Credentials.
    pub login: Option<Login>,
    /// Version of MQTT.
    pub version: MqttVersion,
    /// Publishes without PUBACK at a time, at least 1.
    pub inflight_max: u16,
    /// What happens to a reading that the broker refuses for good.
    pub on_rejected: OnRejected,
    /// Commands to devices that the broker brings; `None` if it brings none.
    pub commands: Option<BrokerCommands>,
}

/// Commands to devices that a broker brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerCommands {
    /// First levels of their topics.
    pub command_topic: String,
    /// First levels of the topics of their results.
    pub result_topic: String,
}

/// Version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    /// 5.0.
    V5,
    /// 3.1.1.
    V311,
}

/// A NATS JetStream stream as a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsSink {
    /// The server.
    pub address: HostPort,
    /// TLS; plain TCP without.
    pub tls: Option<SinkTls>,
    /// Who the collector is there.
    pub auth: NatsAuth,
    /// The stream.
    pub stream: String,
    /// How to create it, if it is not there.
    pub create: Option<StreamCreate>,
    /// Messages without acknowledgement at a time, at least 1.
    pub inflight_max: u16,
    /// What happens to a reading that the server refuses for good.
    pub on_rejected: OnRejected,
}

/// Who a collector is at a NATS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsAuth {
    /// Nobody, or who its TLS certificate says.
    None,
    /// User name and password.
    Login(Login),
    /// A token.
    Token(SecretSource),
    /// User JWT and NKEY seed, as a `.creds` file has them.
    Credentials(SecretSource),
}

/// How to create a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamCreate {
    /// Servers that hold it, 1 to 5.
    pub replicas: u32,
    /// In which the server recognises a message that comes again.
    pub duplicate_window: Duration,
    /// Size at which it takes no more.
    pub bytes_max: Option<u64>,
    /// Age at which messages are forgotten.
    pub age_max: Option<Duration>,
}

/// An HTTP server as a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSink {
    /// Where batches are posted.
    pub url: HttpUrl,
    /// What the certificate has to be like, with `https`.
    pub tls: SinkTls,
    /// Bearer token, read anew for each request.
    pub token: Option<SecretSource>,
    /// Readings in one request, at least 1.
    pub batch_count: u32,
    /// Bytes of one request before compression, at least 1024.
    pub batch_bytes: u64,
    /// How long a request that is not full waits.
    pub linger: Duration,
    /// Longest time for connecting, and for an answer.
    pub timeout: Duration,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// What happens to a reading that the server refuses for good.
    pub on_rejected: OnRejected,
}

/// A file as a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSink {
    /// Its path while it is written.
    pub path: PathBuf,
    /// Size after which a new one is begun.
    pub rotate_bytes: Option<u64>,
    /// Age after which a new one is begun.
    pub rotate_after: Option<Duration>,
    /// Closed files that are kept, at least 1.
    pub keep_files: Option<u32>,
}

/// What happens to a reading that is refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRejected {
    /// It, and all after it, stay with the gateways until somebody looks after it.
    Stop,
    /// It goes to a file beside the positions, is counted, and the sink goes on.
    SetAside,
}

/// TLS to a broker or server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkTls {
    /// Certificates of the authorities that may vouch for it; those of the system without.
    pub ca: Option<PathBuf>,
    /// Own certificate chain and private key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// User name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Where the password comes from.
    pub password: Option<SecretSource>,
}
