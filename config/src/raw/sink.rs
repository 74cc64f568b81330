//! `[[collector.sink]]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{FILE, MIB, PATH_LEN_MAX, SECRET, TIB};
use crate::address::HostPort;
use crate::reader::{Field, Header, Item, RawTable, Reader};
use crate::settings::SecretSource;
use crate::settings::sink::{FieldName, Format, MqttVersion, OnRejected};
use crate::shape::{
    Attributes, Boolean, Choice, FilePath, List, Shape, SinkPath, SinkPathShape, bytes_u64, count_u16,
    count_u32, millis, seconds, section, sections,
};
use crate::spec::Presence::{Default, Optional, Required};
use crate::spec::{Key, Spec, When};
use crate::template::{TopicPattern, TopicTemplate};
use crate::text::{
    CLIENT_ID, HOST_PORT, HTTP_URL, NAME, STREAM, TOPIC_PATTERN, TOPIC_ROOT, TOPIC_TEMPLATE, TOPIC_TO,
    USERNAME,
};
use crate::url::HttpUrl;

/// What the key `kind` of a sink says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinkName {
    Mqtt,
    Nats,
    Http,
    File,
    Null,
}

const KIND: Choice<SinkName> = Choice(&[
    ("mqtt", SinkName::Mqtt),
    ("nats", SinkName::Nats),
    ("http", SinkName::Http),
    ("file", SinkName::File),
    ("null", SinkName::Null),
]);
const PROTOCOL: Choice<MqttVersion> = Choice(&[("5", MqttVersion::V5), ("3.1.1", MqttVersion::V311)]);
const FORMAT: Choice<Format> = Choice(&[
    ("raw", Format::Raw),
    ("json", Format::Json),
    ("cbor", Format::Cbor),
    ("cloudevents", Format::CloudEvents),
]);
const ON_REJECTED: Choice<OnRejected> =
    Choice(&[("stop", OnRejected::Stop), ("set-aside", OnRejected::SetAside)]);
const FIELD: Choice<FieldName> = Choice(FieldName::WORDS);
const PATH: SinkPathShape = SinkPathShape(FilePath {
    what: "a path, relative to the directory of this file",
    len_max: PATH_LEN_MAX,
});

const MQTT: When = When::Equals("kind", "mqtt");
const NATS: When = When::Equals("kind", "nats");
const HTTP: When = When::Equals("kind", "http");
const LINES: When = When::Equals("kind", "file");
/// Servers that each reading is published to by itself.
const SERVER: When = When::OneOf("kind", &["mqtt", "nats"]);
/// Everything that is reached over a network.
const REMOTE: When = When::OneOf("kind", &["mqtt", "nats", "http"]);
/// Everything that readings are kept in.
const KEPT: When = When::OneOf("kind", &["mqtt", "nats", "http", "file"]);

tables! {
    /// Where readings go.
    Sink {
        /// What it is: an MQTT broker, a NATS JetStream stream, an HTTP server, a file, or nowhere (for measurements).
        kind: SinkName = KIND, Required;
        /// Name in logs, metrics and stored positions.
        name: String = NAME, Optional("`kind`");
        /// The broker or server. Without `tls` the connection is not encrypted.
        address: HostPort = HOST_PORT, Required, if SERVER;
        /// Where batches are posted, `http://` or `https://`.
        url: HttpUrl = HTTP_URL, Required, if HTTP;
        /// TLS: on for MQTT and NATS if the table is there; for HTTP it refines what `https://` does.
        tls: SinkTls = section::<SinkTls>(), Optional("off"), if REMOTE;
        /// User name at the broker or server.
        username: String = USERNAME, Optional("no login"), if SERVER;
        /// Password at the broker or server; needs `username`.
        password: SecretSource = SECRET, Optional("no password"), if SERVER;
        /// Token at the NATS server, or bearer token of each request (RFC 6750); an HTTP sink reads it anew for each request.
        token: SecretSource = SECRET, Optional("none"), if When::OneOf("kind", &["nats", "http"]);
        /// What a `.creds` file of NATS holds: user JWT and NKEY seed.
        credentials: SecretSource = SECRET, Optional("none"), if NATS;
        /// MQTT client identifier; no other client of the broker may have it.
        client_id: String = CLIENT_ID, Optional("`fieldgate-<name of the node>`"), if MQTT;
        /// Version of MQTT. With 3.1.1 there are no user properties: choose a `format` that holds the id.
        protocol: MqttVersion = PROTOCOL, Default("\"5\""), if MQTT;
        /// Whether the broker brings commands to devices. Whoever it lets publish below `command_topic` may command what the
        /// gateways let this collector command.
        commands: bool = Boolean, Default("false"), if MQTT;
        /// Commands come on `<command_topic>/<gateway>/<device>/<resource>`.
        command_topic: String = TOPIC_ROOT, Default("\"fieldgate/command\""), if MQTT;
        /// What became of a command that names no response topic is told on `<result_topic>/<gateway>/<device>/<resource>`.
        result_topic: String = TOPIC_ROOT, Default("\"fieldgate/result\""), if MQTT;
        /// The stream that takes the readings.
        stream: String = STREAM, Required, if NATS;
        /// How to create the stream if it is not there. Without this table it has to be there.
        create: StreamCreate = section::<StreamCreate>(), Optional("it has to be there"), if NATS;
        /// Topic of each reading; `{path}` is the resource with the device before it, unless it begins with the device
        /// anyway. For NATS each `/` becomes a `.`; elsewhere it is the field `topic`. Missing readings are told as the
        /// resource `$gap/<class>` of the device `$gap`.
        topic: TopicTemplate = TOPIC_TEMPLATE, Optional("`\"{gateway}/{path}\"`, for NATS `\"fieldgate/{gateway}/{path}\"`"), if KEPT;
        /// Other topics for some resources; the first that fits counts.
        rename: Vec<SinkRename> = sections::<SinkRename>(64), Optional("none"), if KEPT;
        /// How a reading is written: its payload alone (`raw`, not for HTTP and files), or a record around it.
        format: Format = FORMAT, Optional("`\"raw\"` for MQTT and NATS, `\"json\"` for HTTP and files"), if KEPT;
        /// Which fields a record has, with `json` and `cbor`; `id` is always there.
        fields: Vec<Item<FieldName>> = List { item: FIELD, min: 1, max: 13 }, Optional("all but `identifier`, `topic` and `path`"), if KEPT;
        /// Texts that are added to each record; to MQTT user properties and NATS headers with `raw`.
        set: BTreeMap<String, String> = Attributes, Optional("none"), if KEPT;
        /// Readings that may wait for acknowledgement at a time.
        inflight_max: u16 = count_u16(1, 65_535), Default("1000"), if SERVER;
        /// Readings in one request, at the most.
        batch_count: u32 = count_u32(1, 10_000), Default("500"), if HTTP;
        /// Bytes of one request before compression, at the most; a single larger reading goes by itself.
        batch_bytes: u64 = bytes_u64(1 << 10, 16 * MIB), Default("\"1 MiB\""), if HTTP;
        /// How long a request that is not full waits for more readings.
        linger_ms: Duration = millis(0, 10_000), Default("50"), if HTTP;
        /// Longest time for connecting, and for the answer to a request.
        timeout_secs: Duration = seconds(1, 600), Default("30"), if HTTP;
        /// Compresses requests (`Content-Encoding: gzip`).
        gzip: bool = Boolean, Default("false"), if HTTP;
        /// What happens to a reading that is refused for good: `stop` keeps it, and all after it, with the gateways;
        /// `set-aside` writes it to `sink-<name>.rejected.jsonl` in the collector's `state_dir` and goes on.
        on_rejected: OnRejected = ON_REJECTED, Default("\"stop\""), if REMOTE;
        /// File that records are appended to; `"-"` is standard output.
        path: SinkPath = PATH, Required, if LINES;
        /// Size after which the file is closed, renamed and a new one begun.
        rotate_bytes: u64 = bytes_u64(4 << 10, TIB), Optional("never"), if LINES;
        /// Age after which the file is closed, renamed and a new one begun.
        rotate_secs: Duration = seconds(1, 366 * 86_400), Optional("never"), if LINES;
        /// Closed files that are kept; older ones are deleted.
        keep_files: u32 = count_u32(1, 1_000_000), Optional("all"), if LINES;
    }

    /// TLS to a broker or server.
    SinkTls {
        /// Certificates of the authorities that may vouch for the server (PEM).
        ca: PathBuf = FILE, Optional("those of the system");
        /// Own certificate chain, for servers that want one (PEM); needs `key`.
        certificate: PathBuf = FILE, Optional("none");
        /// Private key of `certificate` (PEM).
        key: PathBuf = FILE, Optional("none"), if When::With(&["certificate"]);
    }

    /// How to create a stream that is not there. It takes the first level of each topic and everything below.
    StreamCreate {
        /// Servers of a cluster that hold the stream.
        replicas: u32 = count_u32(1, 5), Default("1");
        /// Time in which the server itself recognises a message that comes again.
        duplicate_window_secs: Duration = seconds(1, 86_400), Default("120");
        /// Size at which the server refuses more; the readings then wait with their gateways.
        bytes_max: u64 = bytes_u64(MIB, 1024 * TIB), Optional("no limit");
        /// Age at which the server forgets.
        age_max_secs: Duration = seconds(60, 3_660 * 86_400), Optional("no limit");
    }

    /// Another topic for some resources.
    SinkRename {
        /// Which resources, as an MQTT topic filter; `{name}` in the place of `+`, and `{name...}` in the place of `#`,
        /// keep what stands there.
        from: TopicPattern = TOPIC_PATTERN, Required;
        /// The topic, with the variables of `topic` and the names in `from`.
        to: String = TOPIC_TO, Required;
    }
}
