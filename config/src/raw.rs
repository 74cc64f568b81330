//! The table of keys: the file as it is written.
//!
//! Names, types, bounds, defaults and meanings stand here and nowhere else. From one declaration come the type that
//! [`check`](crate::check) works with, the reader that fills it, the reference and the schema.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fieldgate_proto::identity::Identifier;
use fieldgate_proto::relay::NamePattern;

use crate::address::{HostPort, LinkAddress, Network};
use crate::reader::{Field, Header, Item, RawTable, Reader};
use crate::settings::{
    AfterGrace, IoBackend, JsonValue, LogFormat, LogLevel, Number, PasswordHash, Pq, ReadingClass,
    SecretSource, SlowConsumer, WhenFull,
};
use crate::shape::{
    Attributes, Boolean, Choice, Figure, FilePath, List, Scalar, Shape, bytes_u32, bytes_u64, count_u16,
    count_u32, inline, inlines, millis, seconds, section, sections,
};
use crate::spec::Presence::{Default, Optional, Required};
use crate::spec::{Key, Spec, When};
use crate::template::TopicTemplate;
use crate::text::{
    CONTENT_TYPE, CREDENTIAL, DEVICE_NAME, DEVICE_PATTERN, HOST_PORT, IDENTIFIER, JSON_PATH, LINK_ADDRESS,
    LISTEN, LISTEN_LOOPBACK, NAME, NAME_PATTERN, NETWORK, PASSWORD_HASH, PKCS11_URI, PROXY, PROXY_USERNAME,
    RELAY_NAME, SOCKET_MODE, TOPIC_FILTER, TOPIC_TEMPLATE, URL_PATH, USERNAME, VARIABLE,
};

/// Declares tables: `/// meaning`, key, type, `=` shape, presence, and `if` when the key means something.
macro_rules! tables {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident $(exactly_one($($one:literal),+))? $(at_most_one($($most:literal),+))? {
            $( $(#[doc = $key_doc:literal])+ $key:ident: $value:ty = $shape:expr, $presence:expr $(, if $when:expr)?; )+
        }
    )+) => { $(
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub(crate) struct $name {
            header: Header,
            $( $(#[doc = $key_doc])+ pub(crate) $key: Field<$value>, )+
        }

        impl RawTable for $name {
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),+];
            const EXACTLY_ONE: &'static [&'static str] = &[$($($one),+)?];
            const AT_MOST_ONE: &'static [&'static str] = &[$($($most),+)?];

            fn header(&self) -> &Header {
                &self.header
            }

            fn spec() -> Spec {
                Spec {
                    doc: concat!($($doc),+),
                    keys: vec![$( Key {
                        name: stringify!($key),
                        doc: concat!($($key_doc),+),
                        form: Shape::form(&$shape),
                        presence: $presence,
                        when: tables!(@when $($when)?),
                    } ),+],
                    exactly_one: Self::EXACTLY_ONE,
                    at_most_one: Self::AT_MOST_ONE,
                }
            }

            fn fields(reader: &mut Reader<'_, '_, '_>) -> Self {
                Self {
                    header: reader.header(),
                    $( $key: reader.field(
                        stringify!($key),
                        concat!($($key_doc),+),
                        &$shape,
                        $presence,
                        tables!(@when $($when)?),
                    ), )+
                }
            }
        }
    )+ };
    (@when) => { When::Always };
    (@when $when:expr) => { $when };
}

pub(crate) mod cluster;
mod listeners;
mod portal;
pub(crate) mod sink;

pub(crate) use cluster::{AuthorityCluster, RelayCluster};
pub(crate) use listeners::{Certificate, DevicePsk, MqttPsk, MqttTls, MqttWebSocket, MqttWebSocketTls};
pub(crate) use portal::{Portal, PortalAudit, PortalInlet, PortalOutlet, PortalSerial, PortalSocks};

const LOG_LEVEL: Choice<LogLevel> = Choice(&[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
]);
const LOG_FORMAT: Choice<LogFormat> = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
const IO_BACKEND: Choice<IoBackend> = Choice(&[
    ("auto", IoBackend::Auto),
    ("uring", IoBackend::Uring),
    ("epoll", IoBackend::Epoll),
]);
const PQ: Choice<Pq> = Choice(&[
    ("required", Pq::Required),
    ("preferred", Pq::Preferred),
    ("off", Pq::Off),
]);
const AFTER_GRACE: Choice<AfterGrace> =
    Choice(&[("refuse", AfterGrace::Refuse), ("go-on", AfterGrace::GoOn)]);
const CLASS: Choice<ReadingClass> = Choice(&[
    ("alarm", ReadingClass::Alarm),
    ("normal", ReadingClass::Normal),
    ("bulk", ReadingClass::Bulk),
]);
const WHEN_FULL: Choice<WhenFull> = Choice(&[
    ("refuse", WhenFull::Refuse),
    ("drop-oldest", WhenFull::DropOldest),
]);
const SLOW_CONSUMER: Choice<SlowConsumer> = Choice(&[
    ("disconnect", SlowConsumer::Disconnect),
    ("drop", SlowConsumer::Drop),
]);
const FILE: FilePath = FilePath {
    what: "a path, relative to the directory of this file",
    len_max: PATH_LEN_MAX,
};
const SOCKET: FilePath = FilePath {
    what: "a path of at most 107 bytes, relative to the directory of this file",
    len_max: SOCKET_LEN_MAX,
};
const SECRET: crate::shape::Secret = crate::shape::Secret;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// `PATH_MAX` of Linux less the final zero.
const PATH_LEN_MAX: usize = 4_095;
/// Size of `sun_path` on Linux less the final zero.
const SOCKET_LEN_MAX: usize = 107;

/// Largest MQTT packet that can be set: with the longest device name it still fits into a reading of 65,000 bytes
/// (`PROTOCOL.md` §14). Anything larger could only be refused.
const PACKET_BYTES_MAX: u32 = 63 << 10;
/// Longest validity of a statement (`PROTOCOL.md` §10.1), in seconds: 400 days.
const VALID_SECS_MAX: u64 = 34_560_000;
/// Least queue of a link: two of the longest frames (`PROTOCOL.md` §3.1).
const QUEUE_BYTES_MIN: u32 = 2 * 69_632;

tables! {
    /// The file. A section switches its function on.
    Root {
        /// The node as a whole.
        node: Node = section::<Node>(), Default("{}");
        /// What is logged and how.
        log: Log = section::<Log>(), Default("{}");
        /// Where the key of this node lives. `fieldgate identity create` makes it.
        identity: Identity = section::<Identity>(), Required;
        /// The authority this node belongs to, and what its members may do here.
        trust: Trust = section::<Trust>(), Optional("off: only who is named in this file is served");
        /// The durable queue on disk between devices and uplinks.
        journal: Journal = section::<Journal>(), Optional("all defaults, if there is `[mqtt]` or `[[uplink]]`");
        /// MQTT listener for field devices.
        mqtt: Mqtt = section::<Mqtt>(), Optional("off");
        /// Delivery of the journal to a collector.
        uplink: Vec<Uplink> = sections::<Uplink>(16), Optional("none");
        /// Listeners for links from other nodes.
        link: Link = section::<Link>(), Optional("off");
        /// Forwarding between members that never see each other's networks.
        relay: Relay = section::<Relay>(), Optional("off");
        /// Decides who belongs to it: enrols with tickets, issues credentials, revokes.
        authority: Authority = section::<Authority>(), Optional("off");
        /// End of the uplinks.
        collector: Collector = section::<Collector>(), Optional("off");
        /// Streams of others through channels: inlets and outlets.
        portal: Portal = section::<Portal>(), Optional("off");
        /// Metrics in the Prometheus text format.
        metrics: Metrics = section::<Metrics>(), Optional("off");
    }

    /// The node as a whole.
    Node {
        /// Name in logs, metrics and `status`.
        name: String = NAME, Optional("the host name up to its first dot");
        /// Directory of everything that survives a restart.
        state_dir: PathBuf = FILE, Default("\"/var/lib/fieldgate\"");
        /// How sockets are served: io_uring after a self-test, else epoll; or one of them.
        io: IoBackend = IO_BACKEND, Default("\"auto\"");
        /// Data-plane threads; 0 is one per core.
        shards: u16 = count_u16(0, 64), Default("0");
        /// UNIX socket for `fieldgate status` and the other commands that talk to a running node.
        control_socket: PathBuf = SOCKET, Default("\"/run/fieldgate/control.sock\"");
    }

    /// What is logged and how. Logs go to standard error.
    Log {
        /// Least severe level that is written.
        level: LogLevel = LOG_LEVEL, Default("\"info\"");
        /// Form of a line: for people, or one JSON object.
        format: LogFormat = LOG_FORMAT, Default("\"text\"");
    }

    /// Where the key of this node lives: in a PKCS#11 token, or in an encrypted file.
    Identity exactly_one("pkcs11", "file") {
        /// Key in a token (RFC 7512); it must match one key exactly. Without PIN, module and query part.
        pkcs11: String = PKCS11_URI, Optional("no token");
        /// PKCS#11 library of the token.
        module: PathBuf = FILE, Required, if When::With(&["pkcs11"]);
        /// User PIN of the token.
        pin: SecretSource = SECRET, Required, if When::With(&["pkcs11"]);
        /// What the process that holds the token may touch beyond what the usual modules need.
        sandbox: Sandbox = inline::<Sandbox>(), Optional("nothing more"), if When::With(&["pkcs11"]);
        /// TPM whose protection against guessing is watched: its device, or the UNIX socket of a software TPM.
        tpm: PathBuf = FILE, Optional("`/dev/tpmrm0` if `module` has `tpm2` in its name, otherwise none"), if When::With(&["pkcs11"]);
        /// Key in a file.
        file: PathBuf = FILE, Optional("no file");
        /// Passphrase of the file.
        passphrase: SecretSource = SECRET, Required, if When::With(&["file"]);
    }

    /// What the module may touch. It runs in a process of its own, which sees the system's libraries, the usual places of
    /// tokens and nothing else of the files.
    Sandbox {
        /// Files and directories that the module reads and writes.
        paths: Vec<Item<PathBuf>> = List { item: FILE, min: 0, max: 32 }, Default("[]");
        /// Whether the module may use the network, for an HSM that is reached over it.
        network: bool = Boolean, Default("false");
        /// Environment variables that the module reads.
        environment: Vec<Item<String>> = List { item: VARIABLE, min: 0, max: 32 }, Default("[]");
    }

    /// The authority this node belongs to. With this section every member of the authority is served as far as the policy and
    /// its credential allow, beside those who are named in this file. `fieldgate enroll` makes the node a member.
    Trust at_most_one("relay", "relays", "direct") {
        /// Identifier of the authority; tickets of others are refused.
        authority: Identifier = IDENTIFIER,
            Optional("that of the ticket this node enrolled with; on an authority its own");
        /// Name the authority holds at the relays.
        via: String = RELAY_NAME, Required, if When::With(&["relay", "relays"]);
        /// The relay through which the authority is reached.
        relay: RelayWay = inline::<RelayWay>(), Optional("the ways of the ticket");
        /// Several relays, in order of preference.
        relays: Vec<RelayWay> = inlines::<RelayWay>(8), Optional("the ways of the ticket");
        /// The authority itself, where it can be reached without a relay.
        direct: DirectAddress = inline::<DirectAddress>(), Optional("the ways of the ticket");
        /// Whether channels with the authority must be post-quantum, as for `[[uplink]]`.
        pq: Pq = PQ, Default("\"required\"");
        /// Cedar policy: who may do what here. `fieldgate policy check` says what is wrong with one.
        policy: PathBuf = FILE, Optional("the built-in one, which `fieldgate policy show` prints");
        /// How long in seconds credentials count beyond their end, and a status list that should have been replaced, when the
        /// authority cannot be reached. The node says so meanwhile.
        grace_secs: Duration = seconds(0, VALID_SECS_MAX), Default("86400");
        /// What happens to peers with credentials when that time is over: refuse them, or go on although somebody may have been
        /// revoked.
        after_grace: AfterGrace = AFTER_GRACE, Default("\"refuse\"");
    }

    /// Where a secret is. The secret itself never stands in the file.
    Secret exactly_one("credential", "file", "env") {
        /// Credential that systemd hands to the unit (`LoadCredentialEncrypted=`).
        credential: String = CREDENTIAL, Optional("none");
        /// File that only its owner can read; one line feed at its end is not part of the secret.
        file: PathBuf = FILE, Optional("none");
        /// Environment variable. Other processes of the same user can read it.
        env: String = VARIABLE, Optional("none");
    }

    /// The durable queue on disk between devices and uplinks.
    Journal {
        /// Directory of the segments.
        dir: PathBuf = FILE, Optional("`<state_dir>/journal`");
        /// Disk space of all lanes; at least three times `segment_bytes`. Lanes that do not say how much is theirs share it.
        bytes_max: u64 = bytes_u64(6 * MIB, 64 * TIB), Default("\"1 GiB\"");
        /// Largest size of one segment, a multiple of 4 KiB; space is freed segment by segment. A lane's are at most a quarter of
        /// what is the lane's, and those for alarms at most 2 MiB.
        segment_bytes: u64 = bytes_u64(2 * MIB, 64 * MIB), Default("\"8 MiB\"");
        /// Extra wait in milliseconds before a commit, so that more readings share one write. Devices wait as much longer.
        commit_delay_ms: Duration = millis(0, 100), Default("0");
        /// Memory for the newest readings, so that a live uplink does not read the disk; at most `bytes_max`.
        tail_bytes_max: u64 = bytes_u64(64 * KIB, 256 * MIB), Default("\"4 MiB\"");
        /// Whether a reading is on stable storage before its device is acknowledged. Without it a power cut loses
        /// acknowledged readings; for comparisons only.
        durable: bool = Boolean, Default("true");
        /// Rules that give readings their class; the first that fits decides. Where none fits, what `mqtt.alarm_topics` names is an
        /// alarm, and everything else is normal.
        class: Vec<JournalClass> = sections::<JournalClass>(64), Optional("none");
        /// Whether readings are encrypted on disk, with a key that what holds the identity protects: the token opens it, or the
        /// secret of the identity's file does. Without either a stolen disk cannot be read.
        encrypt: bool = Boolean, Optional("`false`, and `true` if there is `key`");
        /// Where another secret is that protects the key with which readings are encrypted on disk, instead of the identity's.
        key: SecretSource = SECRET, Optional("what holds the identity protects it");
        /// The lane of alarms. Each class has one: its own files, its own share of the disk, its own policy.
        alarm: JournalLane = section::<JournalLane>(), Default("{}");
        /// The lane of ordinary readings.
        normal: JournalLane = section::<JournalLane>(), Default("{}");
        /// The lane of readings that may wait for all others.
        bulk: JournalLane = section::<JournalLane>(), Default("{}");
    }

    /// A rule that gives readings their class. What it does not name fits every reading.
    JournalClass {
        /// What readings get that fit: alarms overtake all others, bulk may wait for all others.
        class: ReadingClass = CLASS, Required;
        /// Device: its name, or the beginning of names and `*`.
        device: String = DEVICE_PATTERN, Optional("every device");
        /// Topic.
        topic: String = TOPIC_FILTER, Optional("every topic");
        /// MIME type; parameters such as `charset` do not count.
        content_type: String = CONTENT_TYPE, Optional("every type");
        /// What a JSON payload says; one of more than 16 KiB is not looked into and does not fit.
        json: JsonTest = inline::<JsonTest>(), Optional("every payload");
    }

    /// A test of one value in a JSON payload.
    JsonTest exactly_one("at_least", "at_most", "equals") {
        /// Where the value stands (RFC 6901): `/level`, `/status/0/code`.
        path: String = JSON_PATH, Required;
        /// The least number that fits.
        at_least: Number = Figure, Optional("none");
        /// The greatest number that fits.
        at_most: Number = Figure, Optional("none");
        /// The one value that fits.
        equals: JsonValue = Scalar, Optional("none");
    }

    /// The readings of one class in the journal.
    JournalLane {
        /// Disk space of this lane, at least 768 KiB.
        bytes_max: u64 = bytes_u64(768 * KIB, 64 * TIB),
            Optional("a share of `journal.bytes_max`: alarms 1/16, bulk 4/16, ordinary readings what is left");
        /// Size of one segment of this lane, a multiple of 4 KiB; three fit its disk space.
        segment_bytes: u64 = bytes_u64(256 * KIB, 64 * MIB), Optional("see `journal.segment_bytes`");
        /// How old in seconds a reading may become that no collector has taken; then it is discarded, and the collector is told
        /// which. Whole segments are, so some become up to a quarter older.
        ttl_secs: Duration = seconds(60, 315_360_000), Optional("readings do not expire");
        /// What happens when the disk space is used up: devices are not acknowledged any more, or the oldest readings are
        /// discarded, and the collector is told which.
        when_full: WhenFull = WHEN_FULL, Optional("`refuse`, and `drop-oldest` in `journal.bulk`");
    }

    /// MQTT listener for field devices: 3.1.1 and 5.0 on the same port.
    Mqtt {
        /// Addresses for plain TCP. An IPv6 address takes IPv6 only.
        listen: Vec<Item<SocketAddr>> = List { item: LISTEN, min: 0, max: 16 },
            Optional("`[\"0.0.0.0:1883\"]`, and none if there is `[mqtt.tls]`, `[mqtt.psk]` or `[mqtt.websocket]`");
        /// Listener with TLS.
        tls: MqttTls = section::<MqttTls>(), Optional("off");
        /// Listener with TLS under keys that devices share with the gateway.
        psk: MqttPsk = section::<MqttPsk>(), Optional("off");
        /// Listener for WebSockets.
        websocket: MqttWebSocket = section::<MqttWebSocket>(), Optional("off");
        /// Whether devices without credentials are let in; only on loopback addresses.
        anonymous: bool = Boolean, Default("false");
        /// Allows `anonymous` on every address: whoever reaches the port can write anything.
        dangerous_anonymous: bool = Boolean, Default("false");
        /// How long in milliseconds arriving bytes may wait for company; 0 serves each at once.
        latency_ms: Duration = millis(0, 100), Default("1");
        /// Connections at a time, over all addresses.
        clients_max: u32 = count_u32(1, 1_000_000), Default("10000");
        /// Largest packet a device may send; more would not fit into a reading, which has at most 65,000 bytes encoded.
        packet_bytes_max: u32 = bytes_u32(1 << 10, PACKET_BYTES_MAX), Default("\"63 KiB\"");
        /// Publishes of one device that may wait for their acknowledgement (MQTT 5.0 Receive Maximum).
        receive_max: u16 = count_u16(1, 4_096), Default("64");
        /// Longest keep-alive in seconds granted to a client of MQTT 5.0; one that asks for more, or for none, gets this.
        keep_alive_max_secs: Duration = seconds(5, 65_535), Default("1200");
        /// Seconds from the accepted connection to CONNECT.
        connect_timeout_secs: Duration = seconds(1, 60), Default("10");
        /// Topic filters whose readings are alarms and overtake the backlog.
        alarm_topics: Vec<Item<String>> = List { item: TOPIC_FILTER, min: 0, max: 64 }, Default("[]");
        /// Topic on which a device is told commands; it gets them if it has subscribed to it. `{gateway}` is this node's name.
        command_topic: TopicTemplate = TOPIC_TEMPLATE, Default("\"{device}/command/{resource}\"");
        /// Topic filters whose messages are passed on between devices only: they are not journalled and reach no collector.
        local_topics: Vec<Item<String>> = List { item: TOPIC_FILTER, min: 0, max: 64 }, Default("[]");
        /// Sessions, with and without a connection.
        sessions_max: u32 = count_u32(1, 2_000_000), Optional("twice `clients_max`");
        /// Longest time in seconds that a session outlives its connection; clients of MQTT 3.1.1 without Clean Session get it whole.
        session_expiry_max_secs: Duration = seconds(0, 4_294_967_295), Default("604800");
        /// Subscriptions of one session.
        subscriptions_max: u32 = count_u32(1, 10_000), Default("100");
        /// Messages above QoS 0 that wait for one session.
        queue_messages_max: u32 = count_u32(1, 1_000_000), Default("1000");
        /// Memory for the messages that wait for one session.
        queue_bytes_max: u64 = bytes_u64(64 * KIB, GIB), Default("\"1 MiB\"");
        /// What becomes of a connected client whose queue is full: it is disconnected, or it misses what does not fit.
        slow_consumer: SlowConsumer = SLOW_CONSUMER, Default("\"disconnect\"");
        /// Retained messages.
        retained_max: u32 = count_u32(0, 1_000_000), Default("10000");
        /// Memory for retained messages.
        retained_bytes_max: u64 = bytes_u64(64 * KIB, 4 * GIB), Default("\"16 MiB\"");
        /// Connections that one address may open per second, for each processor that serves clients; ten times as many at once. 0
        /// sets no bound.
        connects_per_second_max: u32 = count_u32(0, 1_000_000), Default("200");
        /// Devices that may connect.
        device: Vec<Device> = sections::<Device>(65_536), Optional("none");
    }

    /// A device that may connect: with a password, with a certificate, or with a key; with any one of those it has.
    Device {
        /// Name in readings.
        name: String = DEVICE_NAME, Required;
        /// User name of its CONNECT.
        username: String = USERNAME, Optional("`name`"), if When::With(&["password_hash"]);
        /// Hash of the password of its CONNECT.
        password_hash: PasswordHash = PASSWORD_HASH, Optional("no password");
        /// Its certificate on listeners with `client_ca`; user name and password of CONNECT are not looked at then.
        certificate: Certificate = inline::<Certificate>(), Optional("no certificate");
        /// Its key on `[mqtt.psk]`; user name and password of CONNECT are not looked at then.
        psk: DevicePsk = inline::<DevicePsk>(), Optional("no key");
        /// Topic filters it may publish to; `{device}` stands for its name.
        publish: Vec<Item<String>> = List { item: TOPIC_FILTER, min: 1, max: 64 },
            Optional("`[\"<name>/#\"]`: everything under its own name");
        /// Topic filters it may subscribe to, and to everything that one of them covers; `{device}` stands for its name.
        subscribe: Vec<Item<String>> = List { item: TOPIC_FILTER, min: 0, max: 64 }, Optional("what it may publish to");
    }

    /// Delivery of the journal to a collector, end to end, through relays or straight.
    Uplink exactly_one("relay", "relays", "direct") {
        /// Name in logs, metrics and `status`.
        name: String = NAME, Required;
        /// Identifier of the collector; nobody else is let in.
        collector: Identifier = IDENTIFIER, Required;
        /// Name the collector holds at the relays.
        via: String = RELAY_NAME, Required, if When::With(&["relay", "relays"]);
        /// The relay.
        relay: RelayWay = inline::<RelayWay>(), Optional("none");
        /// Several relays, in order of preference.
        relays: Vec<RelayWay> = inlines::<RelayWay>(8), Optional("none");
        /// The collector itself, where it can be reached without a relay.
        direct: DirectAddress = inline::<DirectAddress>(), Optional("none");
        /// Whether channels must be post-quantum (X25519 with ML-KEM-768): classical ones are refused, or taken from peers
        /// that have no other, or the only ones (for radio links).
        pq: Pq = PQ, Default("\"required\"");
        /// Whether records are padded to size buckets, so that their length tells less.
        padding: bool = Boolean, Default("false");
        /// Whether the collector has to prove with each channel that it holds its identity key at that moment, instead of an
        /// attestation of up to a day.
        live_proof: bool = Boolean, Default("false");
        /// Whether the two nodes may leave the relay for a path of their own over UDP, found by telling each other their addresses in
        /// the channel. The collector has to allow it as well.
        direct_path: bool = Boolean, Default("false"), if When::With(&["relay", "relays"]);
        /// Whether this file grants the collector to command this node's devices; a policy may permit or forbid it besides.
        commands: bool = Boolean, Default("false");
        /// How long in milliseconds readings may wait for company before a record is sealed.
        latency_ms: Duration = millis(0, 100), Default("1");
        /// Whether batches carry a signature, so that the collector can prove later where a single reading came from. It costs the
        /// gateway some 20 µs and the wire 72 bytes per batch.
        verifiable: bool = Boolean, Default("true");
    }

    /// A relay and who it must be.
    RelayAddress {
        /// Where it listens for links: `host:port` over TCP, `quic://host:port`, `wss://host/path`, or `unix:/path` on this machine.
        address: LinkAddress = LINK_ADDRESS, Required;
        /// Other addresses of the same node. One is dialled when those before it had no answer for 250 ms, the one that worked
        /// last comes first, and the first that answers is kept.
        also: Vec<Item<LinkAddress>> = List { item: LINK_ADDRESS, min: 0, max: 4 }, Default("[]");
        /// Its identifier.
        identifier: Identifier = IDENTIFIER, Required;
    }

    /// A relay, who it must be, and the relays behind it.
    RelayWay {
        /// Where it listens for links: `host:port` over TCP, `quic://host:port`, `wss://host/path`, or `unix:/path` on this machine.
        address: LinkAddress = LINK_ADDRESS, Required;
        /// Other addresses of the same node. One is dialled when those before it had no answer for 250 ms, the one that worked
        /// last comes first, and the first that answers is kept.
        also: Vec<Item<LinkAddress>> = List { item: LINK_ADDRESS, min: 0, max: 4 }, Default("[]");
        /// Its identifier.
        identifier: Identifier = IDENTIFIER, Required;
        /// Names of further relays on the way, each as the relay before calls the next; `via` is then a name at the last one.
        through: Vec<Item<String>> = List { item: RELAY_NAME, min: 0, max: 6 }, Default("[]");
        /// Who the relays of `through` are, in their order, at most 3. This node then opens a channel to each inside the one to the relay
        /// before, and is a member of each itself: none of them can pretend to be the next, or sees whereto the way goes on. Empty: each
        /// relay vouches for the next one.
        through_identifiers: Vec<Item<Identifier>> = List { item: IDENTIFIER, min: 0, max: 3 }, Default("[]");
    }

    /// A node without a relay in between.
    DirectAddress {
        /// Where it listens for links: `host:port` over TCP, `quic://host:port`, `wss://host/path`, or `unix:/path` on this machine.
        address: LinkAddress = LINK_ADDRESS, Required;
        /// Other addresses of the same node. One is dialled when those before it had no answer for 250 ms, the one that worked
        /// last comes first, and the first that answers is kept.
        also: Vec<Item<LinkAddress>> = List { item: LINK_ADDRESS, min: 0, max: 4 }, Default("[]");
    }

    /// Listeners for links from other nodes.
    Link {
        /// Links over TCP.
        tcp: LinkTcp = section::<LinkTcp>(), Optional("off");
        /// Links over QUIC: a lost packet holds up its own class only, and a link lives on when an address changes.
        quic: LinkQuic = section::<LinkQuic>(), Optional("off");
        /// Paths without relays; those who shall have some say so by `direct_path`.
        direct: LinkDirect = section::<LinkDirect>(), Optional("as an empty section");
        /// Links over WebSockets, for networks that let out port 443 only.
        websocket: LinkWebSocket = section::<LinkWebSocket>(), Optional("off");
        /// Links of nodes on this machine.
        unix: LinkUnix = section::<LinkUnix>(), Optional("off");
    }

    /// Links over TCP, for a relay and for a collector with direct uplinks. Needs no TLS: links carry channels only.
    LinkTcp {
        /// Addresses. An IPv6 address takes IPv6 only.
        listen: Vec<Item<SocketAddr>> = List { item: LISTEN, min: 1, max: 16 }, Default("[\"0.0.0.0:4433\"]");
    }

    /// Links over QUIC (RFC 9000). Its TLS needs no certificate: links carry channels only. Nodes that dial `quic://…` need no section.
    LinkQuic {
        /// Addresses, of UDP. An IPv6 address takes IPv6 only.
        listen: Vec<Item<SocketAddr>> = List { item: LISTEN, min: 1, max: 16 }, Default("[\"0.0.0.0:4433\"]");
    }

    /// Paths between two nodes without a relay, over QUIC. Both say by `direct_path` for whom they want them.
    LinkDirect {
        /// Networks whose addresses are told to peers, and dialled when peers tell them. Never those of no single host; those of this
        /// machine (127.0.0.0/8, ::1) only where a network of the list is of nothing else; no port below 1024.
        allow: Vec<Item<Network>> = List { item: NETWORK, min: 0, max: 64 }, Default("[\"0.0.0.0/0\", \"::/0\"]");
    }

    /// Links over a UNIX socket, for nodes on this machine. Nodes that dial `unix:/…` need no section.
    LinkUnix {
        /// Path of the socket; its file is made.
        listen: PathBuf = SOCKET, Default("\"/run/fieldgate/link.sock\"");
        /// Permissions of the file: who may write to it can connect, which is no more than everybody can who reaches a port.
        mode: u32 = SOCKET_MODE, Default("\"0660\"");
    }

    /// Links over WebSockets (RFC 6455), and how this node dials addresses `wss://…`. The channel inside is what protects; TLS
    /// is there because networks let nothing else through.
    LinkWebSocket {
        /// Addresses. Without `certificate` on this machine only, for a proxy there that ends TLS.
        listen: Vec<Item<SocketAddr>> = List { item: LISTEN, min: 0, max: 16 }, Default("[]");
        /// Certificate chain in PEM, the server's own first. Files that change are read again within a minute.
        certificate: PathBuf = FILE, Optional("none");
        /// Private key in PEM.
        key: PathBuf = FILE, Required, if When::With(&["certificate"]);
        /// Path of the requests that are taken.
        path: String = URL_PATH, Default("\"/\"");
        /// Certificates of the authorities that may sign those of the nodes this one dials, in PEM.
        ca: PathBuf = FILE, Optional("those of the system");
        /// HTTP proxy to dial through.
        proxy: HostPort = PROXY, Optional("none");
        /// User name for the proxy.
        proxy_username: String = PROXY_USERNAME, Optional("none"), if When::With(&["proxy"]);
        /// Its password.
        proxy_password: SecretSource = SECRET, Required, if When::With(&["proxy_username"]);
    }

    /// Forwarding between members. The relay sees ciphertext only. Needs a listener for links.
    Relay {
        /// Whether the channels in which members register must be post-quantum, as for `[[uplink]]`.
        pq: Pq = PQ, Default("\"required\"");
        /// Links at a time.
        links_max: u32 = count_u32(1, 65_536), Default("10000");
        /// Links of one member at a time.
        links_per_member_max: u16 = count_u16(1, 1_024), Default("16");
        /// Labels on all links together; a conversation takes two, of 32 bytes each. One link has at most 4096 per direction.
        labels_max: u32 = count_u32(4_096, 16_777_216), Default("262144");
        /// Bytes that may wait to leave on one link; what comes on top is dropped and sent again by its owner.
        queue_bytes_max: u32 = bytes_u32(QUEUE_BYTES_MIN, 256 << 20), Default("\"4 MiB\"");
        /// Bytes that may wait on all links together; at least `queue_bytes_max`.
        held_bytes_max: u64 = bytes_u64(MIB, 64 * GIB), Default("\"64 MiB\"");
        /// How long members have to move to other relays when the node is told to end; 0 is not at all. It ends before if nobody is
        /// left who could move. A service manager has to wait longer than this.
        drain_secs: Duration = seconds(0, 3_600), Default("5");
        /// Names that anyone may reach for a minute in order to enrol: those of authorities.
        open: Vec<Item<String>> = List { item: RELAY_NAME, min: 0, max: 16 }, Default("[]");
        /// Links of such guests at a time.
        guests_max: u16 = count_u16(1, 4_096), Default("64");
        /// Nodes that may use the relay, beside members of `[trust]`. Everybody else is refused.
        member: Vec<RelayMember> = sections::<RelayMember>(65_536), Optional("none");
        /// Other relays with which this one shares its members.
        cluster: RelayCluster = section::<RelayCluster>(), Optional("off");
        /// Relays that this one dials, to forward to them and from them.
        neighbour: Vec<RelayNeighbour> = sections::<RelayNeighbour>(64), Optional("none");
    }

    /// A relay that this one dials. What this relay may reach there is decided there, as for any member.
    RelayNeighbour {
        /// Name under which members of this relay reach it; they need the right to, as for any name.
        name: String = RELAY_NAME, Required;
        /// Where it listens for links: `host:port` over TCP, `quic://host:port`, `wss://host/path`, or `unix:/path` on this machine.
        address: LinkAddress = LINK_ADDRESS, Required;
        /// Other addresses of the same node. One is dialled when those before it had no answer for 250 ms, the one that worked
        /// last comes first, and the first that answers is kept.
        also: Vec<Item<LinkAddress>> = List { item: LINK_ADDRESS, min: 0, max: 4 }, Default("[]");
        /// Its identifier.
        identifier: Identifier = IDENTIFIER, Required;
        /// Names that this relay registers there, so that members of the other reach those of this one.
        register: Vec<Item<String>> = List { item: RELAY_NAME, min: 0, max: 16 }, Default("[]");
        /// Names here that may be reached from there. Answers need no right.
        reach: Vec<Item<NamePattern>> = List { item: NAME_PATTERN, min: 0, max: 1_024 }, Default("[]");
    }

    /// A node that may use the relay.
    RelayMember {
        /// Name in logs, metrics and `status`.
        name: String = NAME, Required;
        /// Its identifier.
        identifier: Identifier = IDENTIFIER, Required;
        /// Names it may register, so that others reach it; at most 16 at a time.
        hold: Vec<Item<NamePattern>> = List { item: NAME_PATTERN, min: 0, max: 16 }, Default("[]");
        /// Names it may send to. Answers need no right.
        reach: Vec<Item<NamePattern>> = List { item: NAME_PATTERN, min: 0, max: 1_024 }, Default("[]");
    }

    /// Decides who belongs to it. Members may be anywhere: they reach it over relays, straight, or by files on a stick.
    Authority {
        /// Database of members, tickets, revocations and the log of decisions.
        store: PathBuf = FILE, Optional("`<state_dir>/authority.redb` with the `state_dir` of `[node]`");
        /// Validity in seconds of the credentials it issues; members renew them at half of it.
        credential_valid_secs: Duration = seconds(600, VALID_SECS_MAX), Default("259200");
        /// Validity in seconds of the lists of who is revoked; it issues a new one at half of it.
        status_valid_secs: Duration = seconds(600, VALID_SECS_MAX), Default("86400");
        /// Whether channels with members and relays must be post-quantum, as for `[[uplink]]`.
        pq: Pq = PQ, Default("\"required\"");
        /// Where it registers, and under which name. Tickets name the first four of these ways and of `public`.
        register: Vec<Registration> = inlines::<Registration>(8), Optional("none");
        /// Addresses of its `[link.tcp]` as others see them.
        public: Vec<Item<HostPort>> = List { item: HOST_PORT, min: 0, max: 4 }, Default("[]");
        /// Members from the beginning, without a ticket.
        member: Vec<AuthorityMember> = sections::<AuthorityMember>(65_536), Optional("none");
        /// Other processes that are this authority, too.
        cluster: AuthorityCluster = section::<AuthorityCluster>(), Optional("off");
    }

    /// A member without a ticket.
    AuthorityMember {
        /// Name in its credential, logs and lists.
        name: String = NAME, Required;
        /// Its identifier.
        identifier: Identifier = IDENTIFIER, Required;
        /// What policies know of it.
        attributes: BTreeMap<String, String> = Attributes, Optional("none");
        /// Names it may register at relays.
        hold: Vec<Item<NamePattern>> = List { item: NAME_PATTERN, min: 0, max: 16 }, Default("[]");
        /// Names it may send to through relays.
        reach: Vec<Item<NamePattern>> = List { item: NAME_PATTERN, min: 0, max: 16 }, Default("[]");
        /// Whether it may issue tickets for ordinary members.
        enroller: bool = Boolean, Default("false");
        /// Whether it may issue every ticket, revoke, and change members.
        administrator: bool = Boolean, Default("false");
    }

    /// End of the uplinks: takes readings from gateways and confirms them when every sink has them.
    Collector {
        /// Directory of the positions confirmed per gateway.
        state_dir: PathBuf = FILE, Optional("`<state_dir>/collector` with the `state_dir` of `[node]`");
        /// Whether channels from gateways and to relays must be post-quantum, as for `[[uplink]]`.
        pq: Pq = PQ, Default("\"required\"");
        /// Where it registers, and under which name. Without it only direct uplinks reach the collector.
        register: Vec<Registration> = inlines::<Registration>(8), Optional("none");
        /// Whether gateways that deliver here, and ask for it, may do so over a path without a relay, as for `[[uplink]]`.
        direct_path: bool = Boolean, Default("false");
        /// Gateways that may deliver, beside members of `[trust]`. Everybody else is refused.
        gateway: Vec<CollectorGateway> = sections::<CollectorGateway>(65_536), Optional("none");
        /// Where readings go.
        sink: Vec<sink::Sink> = sections::<sink::Sink>(16), Optional("none, which is an error");
        /// Proofs of where readings came from, for `fieldgate proof`.
        ledger: Ledger = section::<Ledger>(), Optional("off: nothing can be proved later");
    }

    /// Proofs of where readings came from: a copy of each reading with the gateway's signature. A reading is confirmed when it
    /// stands here too.
    Ledger {
        /// Its directory.
        dir: PathBuf = FILE, Optional("`ledger` in the `state_dir` of `[collector]`");
        /// Disk space. When it is used up the oldest are deleted.
        bytes_max: u64 = bytes_u64(64 * MIB, 64 * TIB), Default("\"1 GiB\"");
    }

    /// A name held at a relay.
    Registration {
        /// The relay.
        relay: RelayAddress = inline::<RelayAddress>(), Required;
        /// The name, which gateways write as `via`.
        name: String = RELAY_NAME, Required;
    }

    /// A gateway that may deliver.
    CollectorGateway {
        /// Name in topics, JSON lines, logs and metrics.
        name: String = NAME, Required;
        /// Its identifier.
        identifier: Identifier = IDENTIFIER, Required;
    }

    /// Metrics in the Prometheus text format, on `/metrics`.
    Metrics {
        /// A loopback address.
        listen: SocketAddr = LISTEN_LOOPBACK, Default("\"127.0.0.1:9464\"");
    }
}
