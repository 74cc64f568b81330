//! What a checked file says, in the types the node is composed from.
//!
//! A [`Settings`] handed out by [`load`](crate::load) is consistent: every number lies within its bounds, every name is
//! well formed and unique, every path is joined to the directory of the file, every section has the partners it needs.
//! What cannot be known without looking at the machine (does the file exist, is the port free, is the key in the token)
//! is found out at start.

pub mod cluster;
pub mod portal;
pub mod sink;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fieldgate_proto::identity::Identifier;
use fieldgate_proto::relay::NamePattern;

use crate::address::{HostPort, LinkAddress, Network};
use crate::template::TopicTemplate;

/// One node: everything its file switches on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `[node]`.
    pub node: Node,
    /// `[log]`.
    pub log: Log,
    /// `[identity]`.
    pub identity: Identity,
    /// `sandbox` in `[identity]`; of use for a key in a token only.
    pub sandbox: Sandbox,
    /// `tpm` in `[identity]`: the device or socket of the TPM that holds the key. `None` leaves that to the module's name.
    pub tpm: Option<PathBuf>,
    /// `[trust]`.
    pub trust: Option<Trust>,
    /// `[journal]`; there is one exactly if the node has `[mqtt]` or an `[[uplink]]`.
    pub journal: Option<Journal>,
    /// `[mqtt]`.
    pub mqtt: Option<Mqtt>,
    /// `[[uplink]]`, in the order of the file, names and collectors unique.
    pub uplinks: Vec<Uplink>,
    /// `[link.tcp]`.
    pub link_tcp: Option<LinkTcp>,
    /// `[link.quic]`.
    pub link_quic: Option<LinkQuic>,
    /// `[link.direct]`: addresses that paths without relays may have.
    pub direct_allow: Vec<Network>,
    /// `[link.websocket]`.
    pub link_websocket: Option<LinkWebSocket>,
    /// `[link.unix]`.
    pub link_unix: Option<LinkUnix>,
    /// `[relay]`; there is then a listener for links.
    pub relay: Option<Relay>,
    /// `[authority]`; there is a listener for links if it has `public` addresses.
    pub authority: Option<Authority>,
    /// `[collector]`; it has at least one sink and a way for gateways to reach it.
    pub collector: Option<Collector>,
    /// `[portal]`; there is a listener for links or it registers, if it has outlets.
    pub portal: Option<portal::Portal>,
    /// `[metrics]`.
    pub metrics: Option<Metrics>,
}

/// What `[node]` and `[identity]` say: enough to make, show and change an identity, whatever becomes of the rest of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnIdentity {
    /// `[node]`.
    pub node: Node,
    /// `[identity]`.
    pub identity: Identity,
    /// `sandbox` in `[identity]`.
    pub sandbox: Sandbox,
}

/// The node as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name in logs, metrics and `status`: 1 to 63 of `a-z0-9-`.
    pub name: String,
    /// Directory of everything that survives a restart.
    pub state_dir: PathBuf,
    /// How sockets are served.
    pub io: IoBackend,
    /// Data-plane threads, at most 64; `None` is one per core.
    pub shards: Option<u16>,
    /// UNIX socket for `fieldgate status` and the other runtime commands; at most 107 bytes long.
    pub control_socket: PathBuf,
}

/// How sockets are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// `io_uring` where the self-test at start passes, else epoll.
    Auto,
    /// `io_uring` or refuse to start.
    Uring,
    /// epoll.
    Epoll,
}

/// What is logged and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is written.
    pub level: LogLevel,
    /// Form of a line.
    pub format: LogFormat,
}

/// Severity of a log line, most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What stops the node.
    Error,
    /// What should wake an operator.
    Warn,
    /// States an operator cares about.
    Info,
    /// Deviations.
    Debug,
    /// Each packet.
    Trace,
}

impl Settings {
    /// Returns whether paths without relays are wanted, or allowed, by any part of the file.
    #[must_use]
    pub fn has_direct_paths(&self) -> bool {
        let portal = self.portal.as_ref();
        let mut inlets = portal.into_iter().flat_map(|portal| &portal.inlets);
        self.uplinks.iter().any(|uplink| uplink.direct_path)
            || inlets.any(|inlet| inlet.direct_path)
            || portal.is_some_and(|portal| portal.direct_path)
            || self
                .collector
                .as_ref()
                .is_some_and(|collector| collector.direct_path)
    }
}

impl LogLevel {
    /// Returns the name used in the file and by `tracing`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and the system journal.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where the identity key lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// In a PKCS#11 token.
    Pkcs11 {
        /// Shared library of the token's vendor.
        module: PathBuf,
        /// Which token and key (RFC 7512): well formed, with neither `pin-value`, `pin-source` nor `module-path`.
        uri: String,
        /// Where the user PIN comes from.
        pin: SecretSource,
    },
    /// In an encrypted file.
    File {
        /// The file.
        path: PathBuf,
        /// Where the passphrase comes from.
        passphrase: SecretSource,
    },
}

/// Where a secret comes from; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The systemd credential of this name (`$CREDENTIALS_DIRECTORY/<name>`).
    Credential(String),
    /// A file that only its owner can read.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
}

/// What the process that holds the token may touch, beside what the usual modules need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Files and directories to read and write.
    pub paths: Vec<PathBuf>,
    /// Whether it may use the network.
    pub network: bool,
    /// Names of environment variables it is given; none of them holds a secret of this file.
    pub environment: Vec<String>,
}

/// The authority the node belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Who it is. `None`: the authority of the ticket the node enrolled with; on an authority itself, itself.
    pub authority: Option<Identifier>,
    /// How it is reached. `None`: the ways of the ticket.
    pub path: Option<UplinkPath>,
    /// Whether channels with it must be post-quantum.
    pub pq: Pq,
    /// A policy in Cedar's language. `None`: the built-in one.
    pub policy: Option<PathBuf>,
    /// How long credentials and status lists count beyond their end when the authority cannot be reached.
    pub grace: Duration,
    /// What happens afterwards.
    pub after_grace: AfterGrace,
}

/// What happens to peers with credentials when nothing has been heard of the authority for longer than the grace time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterGrace {
    /// They are refused.
    Refuse,
    /// They are served, whoever may have been revoked meanwhile.
    GoOn,
}

/// How urgent readings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadingClass {
    /// Overtakes all others.
    Alarm,
    /// An ordinary reading.
    Normal,
    /// May wait for all others.
    Bulk,
}

/// A rule that gives readings their class. What is `None` fits every reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRule {
    /// What readings get that fit.
    pub class: ReadingClass,
    /// A device's name, or the beginning of names and `*`.
    pub device: Option<String>,
    /// Topic filter.
    pub topic: Option<String>,
    /// MIME type without parameters.
    pub content_type: Option<String>,
    /// What a JSON payload says.
    pub json: Option<JsonTest>,
}

/// A test of one value in a JSON payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonTest {
    /// Where the value stands (RFC 6901).
    pub path: String,
    /// What it has to be.
    pub condition: JsonCondition,
}

/// What a value in a JSON payload has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonCondition {
    /// A number, this or more.
    AtLeast(Number),
    /// A number, this or less.
    AtMost(Number),
    /// This value.
    Equals(JsonValue),
}

/// A value in a JSON payload that is no object and no array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonValue {
    /// A text.
    Text(String),
    /// A number.
    Number(Number),
    /// `true` or `false`.
    Bool(bool),
}

/// A number that is finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(f64);

impl Number {
    /// Takes a number; `None` if it is infinite or none at all.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self(number))
    }

    /// Returns it.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

// Finite numbers equal themselves.
impl Eq for Number {}

/// What a lane of the journal does when its disk space is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Devices are not acknowledged any more.
    Refuse,
    /// The oldest readings are discarded.
    DropOldest,
}

/// The readings of one class in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalLane {
    /// Disk space, in bytes; at least three segments.
    pub bytes_max: u64,
    /// Size of one segment, in bytes: a multiple of 4,096.
    pub segment_bytes: u64,
    /// How old a reading may become.
    pub ttl: Option<Duration>,
    /// What happens when the disk space is used up.
    pub when_full: WhenFull,
}

/// What protects the key with which the journal is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalKey {
    /// What protects the identity: its token, or the secret of its file.
    Identity,
    /// A secret of its own.
    Secret(SecretSource),
}

/// The durable queue of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Directory of the lanes.
    pub dir: PathBuf,
    /// Disk space of all lanes, in bytes.
    pub bytes_max: u64,
    /// Alarms, ordinary readings, and those that may wait.
    pub lanes: [JournalLane; 3],
    /// Rules that give readings their class, in their order.
    pub classes: Vec<ClassRule>,
    /// What protects the key of the journal; `None` if readings are not encrypted on disk.
    pub key: Option<JournalKey>,
    /// Extra wait before a commit so that more readings share it.
    pub commit_delay: Duration,
    /// Memory for the newest readings, in bytes, so that a live uplink does not read the disk.
    pub tail_bytes_max: u64,
    /// Whether a reading is on stable storage before its device is acknowledged. `false` loses acknowledged readings
    /// on power loss.
    pub durable: bool,
}

/// The MQTT listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mqtt {
    /// Addresses for MQTT over plain TCP; may be empty if there is another listener.
    pub listen: Vec<SocketAddr>,
    /// MQTT over TLS.
    pub tls: Option<MqttTls>,
    /// MQTT over TLS with pre-shared keys.
    pub psk: Option<MqttPsk>,
    /// MQTT over WebSockets.
    pub websocket: Option<MqttWebSocket>,
    /// Whether devices without credentials are let in.
    pub anonymous: bool,
    /// How long arriving bytes may wait for company.
    pub latency: Duration,
    /// Connections at a time, over all listeners.
    pub clients_max: u32,
    /// Largest MQTT packet a device may send, in bytes.
    pub packet_bytes_max: u32,
    /// Unacknowledged publishes per device (MQTT 5.0 Receive Maximum), at least 1.
    pub receive_max: u16,
    /// Longest keep-alive granted to an MQTT 5.0 client (Server Keep Alive).
    pub keep_alive_max: Duration,
    /// From the accepted connection to CONNECT.
    pub connect_timeout: Duration,
    /// Topic filters whose publishes are of class alarm.
    pub alarm_topics: Vec<String>,
    /// Topic on which a device is told commands.
    pub command_topic: TopicTemplate,
    /// Topic filters whose messages are passed on between devices only.
    pub local_topics: Vec<String>,
    /// Sessions, with and without a connection.
    pub sessions_max: u32,
    /// Longest time that a session outlives its connection.
    pub session_expiry_max: Duration,
    /// Subscriptions of one session.
    pub subscriptions_max: u32,
    /// Messages above QoS 0 that wait for one session.
    pub queue_messages_max: u32,
    /// Memory for the messages that wait for one session, in bytes.
    pub queue_bytes_max: u64,
    /// What becomes of a connected client whose queue is full.
    pub slow_consumer: SlowConsumer,
    /// Retained messages.
    pub retained_max: u32,
    /// Memory for retained messages, in bytes.
    pub retained_bytes_max: u64,
    /// Connections per second from one address and shard; 0 sets no bound.
    pub connects_per_second_max: u32,
    /// The device table; names and usernames unique.
    pub devices: Vec<Device>,
}

/// What becomes of a connected client whose queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowConsumer {
    /// It is disconnected.
    Disconnect,
    /// It misses what does not fit.
    Drop,
}

/// MQTT over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttTls {
    /// Addresses, at least one.
    pub listen: Vec<SocketAddr>,
    /// Certificate chain in PEM, the server's own first.
    pub certificate: PathBuf,
    /// Private key in PEM.
    pub key: PathBuf,
    /// Certificates of devices, if they are asked for.
    pub clients: Option<ClientCertificates>,
}

/// What certificates devices show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// Certificates of the authorities that sign them, in PEM.
    pub ca: PathBuf,
    /// Whether a device must show one.
    pub auth: ClientAuth,
    /// Revocation lists in PEM.
    pub crl: Option<PathBuf>,
}

/// Whether devices must show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Without one there is no connection.
    Required,
    /// Without one the password decides.
    Optional,
}

/// MQTT over TLS with pre-shared keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttPsk {
    /// Addresses, at least one.
    pub listen: Vec<SocketAddr>,
}

/// MQTT over WebSockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttWebSocket {
    /// Addresses without TLS; may be empty if `tls` is there.
    pub listen: Vec<SocketAddr>,
    /// WebSockets over TLS.
    pub tls: Option<MqttTls>,
    /// Path of the requests, beginning with `/`.
    pub path: String,
    /// Origins of web pages that may connect; `None` for every one.
    pub origins: Option<Vec<String>>,
}

/// One field device that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name in readings: 1 to 64 of `A-Za-z0-9._:-`.
    pub name: String,
    /// User Name of its CONNECT.
    pub username: String,
    /// What its password is compared with, if it has one; it has this, a certificate or a key.
    pub password_hash: Option<PasswordHash>,
    /// What its certificate has to say; no two devices have the same.
    pub certificate: Option<CertificateRule>,
    /// Its key; no two devices have the same identity.
    pub psk: Option<DevicePsk>,
    /// Topic filters it may publish to, at least one.
    pub publish: Vec<String>,
    /// Topic filters that cover what it may subscribe to.
    pub subscribe: Vec<String>,
}

/// What tells a device's certificate from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateRule {
    /// The only common name of its subject.
    SubjectCn(String),
    /// One of its DNS names, in small letters.
    SanDns(String),
    /// SHA-256 of the whole certificate.
    Sha256([u8; 32]),
}

/// The key that a device shares with the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePsk {
    /// The identity it names, 1 to 128 bytes.
    pub identity: String,
    /// Where the key is, in hexadecimal digits.
    pub key: SecretSource,
}

/// A password hash, `pbkdf2-sha256$<iterations>$<salt>$<hash>`; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub(crate) String);

impl PasswordHash {
    /// Returns the text of the file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Delivery of the journal to one collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Name in logs, metrics and `status`: 1 to 63 of `a-z0-9-`.
    pub name: String,
    /// Who must be at the other end.
    pub collector: Identifier,
    /// How the collector is reached.
    pub path: UplinkPath,
    /// Whether the channels must be post-quantum.
    pub pq: Pq,
    /// Whether records are padded to size buckets.
    pub padding: bool,
    /// Whether the collector has to prove in each channel that it holds its identity key.
    pub live_proof: bool,
    /// Whether a path without a relay is looked for.
    pub direct_path: bool,
    /// Whether the file grants the collector to command this node's devices.
    pub commands: bool,
    /// How long readings may wait for company before a record is sealed.
    pub latency: Duration,
    /// Whether batches carry a signature with which single readings can be proved later.
    pub verifiable: bool,
}

/// How a collector or an authority is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkPath {
    /// Through relays, any of which will do.
    Relays {
        /// The name it holds at the relays.
        via: String,
        /// At least one, in order of preference, none twice.
        relays: Vec<RelayWay>,
    },
    /// Over a link straight to it.
    Direct {
        /// Where it takes links.
        address: LinkAddress,
        /// Where it takes links as well.
        also: Vec<LinkAddress>,
    },
}

/// A relay and who it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// Where the relay takes links.
    pub address: LinkAddress,
    /// Where it takes links as well.
    pub also: Vec<LinkAddress>,
    /// The relay's identity.
    pub identifier: Identifier,
}

/// A relay and what comes behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayWay {
    /// The relay.
    pub relay: RelayAddress,
    /// Names of further relays, each at the one before; at most 6, none twice.
    pub through: Vec<String>,
    /// Their identifiers, if this node authenticates each of them; as many as names then, and empty otherwise.
    pub through_identifiers: Vec<Identifier>,
}

/// Policy for the post-quantum part of handshakes (`PROTOCOL.md` §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pq {
    /// Classical suites are refused.
    Required,
    /// Classical suites are taken only from peers without a hybrid one.
    Preferred,
    /// Only classical suites, for radio links where the larger messages cost too much.
    Off,
}

/// The listener for links from other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTcp {
    /// Addresses, at least one.
    pub listen: Vec<SocketAddr>,
}

/// Links over QUIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkQuic {
    /// Addresses, at least one.
    pub listen: Vec<SocketAddr>,
}

/// Links over a UNIX socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkUnix {
    /// Path of the socket, at most 107 bytes.
    pub listen: PathBuf,
    /// Permissions of its file.
    pub mode: u32,
}

/// Links over WebSockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkWebSocket {
    /// Addresses to listen on; those of other machines only with `tls`.
    pub listen: Vec<SocketAddr>,
    /// Files of the certificate chain and of the key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Path of the requests that are taken.
    pub path: String,
    /// File with the authorities of those that are dialled; `None` for the system's.
    pub ca: Option<PathBuf>,
    /// Proxy to dial through.
    pub proxy: Option<Proxy>,
}

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is.
    pub address: HostPort,
    /// User name and password, if it wants them.
    pub login: Option<(String, SecretSource)>,
}

/// The relay: who may use it, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Policy for the channels members open to the relay's registrar.
    pub pq: Pq,
    /// Links at a time.
    pub links_max: u32,
    /// Links of one member at a time.
    pub links_per_member_max: u16,
    /// Labels on all links together.
    pub labels_max: u32,
    /// Bytes waiting to leave per link.
    pub queue_bytes_max: u32,
    /// Bytes waiting to leave on all links together, at least `queue_bytes_max`.
    pub held_bytes_max: u64,
    /// How long members have to leave when the node is told to end; zero: not at all.
    pub drain: Duration,
    /// Names that anyone may reach in order to enrol.
    pub open: Vec<String>,
    /// Links of such guests at a time, at least 1.
    pub guests_max: u16,
    /// Members named in the file, beside those of the authority; names and identifiers unique.
    pub members: Vec<RelayMember>,
    /// Other relays with which it shares them.
    pub cluster: Option<cluster::RelayCluster>,
    /// Relays that it dials, addresses unique.
    pub neighbours: Vec<RelayNeighbour>,
}

/// A relay that this one dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayNeighbour {
    /// Name under which members of this relay reach it.
    pub name: String,
    /// Where and who it is.
    pub relay: RelayAddress,
    /// Names that this relay registers there.
    pub register: Vec<String>,
    /// Names here that may be reached from there.
    pub reach: Vec<NamePattern>,
}

/// A node that may use the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayMember {
    /// Name in logs, metrics and `status`: 1 to 63 of `a-z0-9-`.
    pub name: String,
    /// Its identity.
    pub identifier: Identifier,
    /// Names it may register, at most 16 entries.
    pub hold: Vec<NamePattern>,
    /// Names it may send to.
    pub reach: Vec<NamePattern>,
}

/// The authority: who belongs to it, and where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// File of its database.
    pub store: PathBuf,
    /// Validity of credentials.
    pub credential_valid: Duration,
    /// Validity of status lists.
    pub status_valid: Duration,
    /// Policy for channels with members and relays.
    pub pq: Pq,
    /// Where it registers, and under which name.
    pub registrations: Vec<Registration>,
    /// Addresses of its `[link.tcp]` as others see them.
    pub public: Vec<HostPort>,
    /// Members without a ticket; names and identifiers unique.
    pub members: Vec<AuthorityMember>,
    /// The log, if it runs as several processes.
    pub cluster: Option<cluster::AuthorityCluster>,
}

/// A member of the authority without a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityMember {
    /// Name in its credential: 1 to 63 of `a-z0-9-`.
    pub name: String,
    /// Its identity.
    pub identifier: Identifier,
    /// What policies know of it: at most 32, names of 1 to 63 bytes, texts of at most 255. With the names below they take
    /// at most 2,048 bytes, so that its credential fits a presentation.
    pub attributes: BTreeMap<String, String>,
    /// Names it may register at relays, at most 16 entries.
    pub hold: Vec<NamePattern>,
    /// Names it may send to, at most 16 entries.
    pub reach: Vec<NamePattern>,
    /// Whether it may issue tickets for ordinary members.
    pub enroller: bool,
    /// Whether it may issue every ticket, revoke, and change members.
    pub administrator: bool,
}

/// The collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Directory of the positions already confirmed per gateway.
    pub state_dir: PathBuf,
    /// Policy for the channels gateways open, and for those to the relays it registers at.
    pub pq: Pq,
    /// Where it registers, and under which name.
    pub registrations: Vec<Registration>,
    /// Whether peers may come over paths without a relay.
    pub direct_path: bool,
    /// Who may deliver, beside members of the authority; names and identifiers unique.
    pub gateways: Vec<CollectorGateway>,
    /// Where readings go, at least one, names unique. A reading is confirmed when all have it.
    pub sinks: Vec<sink::Sink>,
    /// Where proofs are kept.
    pub ledger: Option<Ledger>,
}

/// Where a collector keeps proofs of where readings came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Its directory.
    pub dir: PathBuf,
    /// Disk space in bytes; the oldest are deleted to keep to it.
    pub bytes_max: u64,
}

/// A name that this node holds at a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The relay.
    pub relay: RelayAddress,
    /// The name, 1 to 128 bytes.
    pub name: String,
}

/// A gateway that may deliver to the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorGateway {
    /// Name in topics, JSON lines, logs and metrics: 1 to 63 of `a-z0-9-`.
    pub name: String,
    /// Its identity.
    pub identifier: Identifier,
}

/// The metrics listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// A loopback address.
    pub listen: SocketAddr,
}
