//! What is asked of a policy: may this principal do this to that, as things stand?

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use fieldgate_proto::identity::Identifier;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::word::{UnknownWord, words};

/// A node that wants something, and what is known about it.
///
/// What is `true` here must have been proven: the policy believes it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Principal {
    /// Who it is.
    #[serde(serialize_with = "as_text")]
    pub identifier: Identifier,
    /// What it is called: in this node's own file if it stands there, else in its credential. May be empty.
    pub name: String,
    /// This node's own file names it.
    pub named: bool,
    /// It holds a credential of the authority that this node trusts, and the credential counts now.
    pub member: bool,
    /// It may hand out tickets that make plain members.
    pub enroller: bool,
    /// It may hand out any ticket, revoke members and change configuration.
    pub administrator: bool,
    /// Where its identity key lives.
    pub key: KeyStorage,
    /// The attributes of its credential; the tags of the entity in Cedar's words. The one called `groups` names groups, with
    /// commas between.
    pub attributes: BTreeMap<String, String>,
}

impl Principal {
    /// Begins with a node of which nothing but the identifier is known.
    #[must_use]
    pub const fn new(identifier: Identifier) -> Self {
        Self {
            identifier,
            name: String::new(),
            named: false,
            member: false,
            enroller: false,
            administrator: false,
            key: KeyStorage::Unknown,
            attributes: BTreeMap::new(),
        }
    }

    /// Returns the groups that its credential puts it in, each once.
    #[must_use]
    pub fn groups(&self) -> BTreeSet<&str> {
        let groups = self.attributes.get(GROUPS).map(String::as_str);
        let groups = groups.unwrap_or_default().split(',').map(str::trim);
        groups.filter(|group| !group.is_empty()).collect()
    }
}

/// The attribute that names groups.
const GROUPS: &str = "groups";

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

words! {
    /// Where an identity key lives.
    KeyStorage, "place of a key" {
        /// In a PKCS#11 token, which does not give it out.
        Token = "token",
        /// In a sealed file.
        File = "file",
        /// In the memory of one process, as in the demo.
        Memory = "memory",
        /// Nobody has said.
        Unknown = "unknown",
    }
}

words! {
    /// What a principal wants to do. Each action is done to one kind of resource.
    Action, "action" {
        /// Open a channel to a service of this node.
        Connect = "connect",
        /// Be found under a name at this relay.
        RegisterRelay = "registerRelay",
        /// Send first messages to whoever is found under a name at this relay.
        Reach = "reach",
        /// Deliver readings as a gateway.
        Publish = "publish",
        /// Send a command to a field device.
        Command = "command",
        /// Open a stream to the outlet of a portal.
        OpenPortal = "openPortal",
        /// Have this authority make a ticket.
        IssueTicket = "issueTicket",
        /// Become a member with a ticket, which is looked at afterwards.
        Enroll = "enroll",
        /// Get a new credential for an old one that is still valid.
        Renew = "renew",
        /// End the membership of another.
        Revoke = "revoke",
        /// Change this node's configuration.
        Configure = "configure",
        /// Look at this node's status.
        ReadStatus = "readStatus",
    }
}

impl Action {
    /// Returns what it is done to.
    #[must_use]
    pub const fn resource_kind(self) -> ResourceKind {
        match self {
            Self::Connect | Self::Publish => ResourceKind::Service,
            Self::RegisterRelay | Self::Reach => ResourceKind::RelayName,
            Self::Command => ResourceKind::Device,
            Self::OpenPortal => ResourceKind::Portal,
            Self::IssueTicket | Self::Enroll | Self::Renew | Self::Revoke => ResourceKind::Authority,
            Self::Configure | Self::ReadStatus => ResourceKind::Configuration,
        }
    }
}

words! {
    /// What channels end at.
    Service, "service" {
        /// The relay's registrar.
        Registrar = "registrar",
        /// The collector's end of the uplinks.
        Uplink = "uplink",
        /// The authority.
        Authority = "authority",
        /// The outlets of portals.
        Portal = "portal",
        /// Commands to field devices.
        Command = "command",
    }
}

words! {
    /// The kinds of resources: the entity types of the schema.
    ResourceKind, "kind of resource" {
        /// A service of this node.
        Service = "Service",
        /// A name at a relay.
        RelayName = "RelayName",
        /// A field device.
        Device = "Device",
        /// The outlet of a portal.
        Portal = "Portal",
        /// The authority that this node is.
        Authority = "Authority",
        /// The configuration of this node.
        Configuration = "Configuration",
    }
}

/// What an action is done to.
///
/// As text it is written as in a policy, `Service::"uplink"`, with or without `Fieldgate::` in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A service of this node.
    Service(Service),
    /// A name at a relay, under which nodes are found.
    RelayName(String),
    /// A field device.
    Device {
        /// Its name on its gateway.
        name: String,
        /// The name of the gateway it is paired with.
        gateway: String,
    },
    /// The outlet of a portal.
    Portal {
        /// Its name.
        name: String,
        /// What comes out of it: `tcp`, `udp`, `serial`.
        kind: String,
    },
    /// The authority that this node is.
    Authority,
    /// The configuration of this node.
    Configuration,
}

/// Id of the one authority and the one configuration.
pub(crate) const THIS: &str = "this";

impl Resource {
    /// Returns its kind.
    #[must_use]
    pub const fn kind(&self) -> ResourceKind {
        match self {
            Self::Service(_) => ResourceKind::Service,
            Self::RelayName(_) => ResourceKind::RelayName,
            Self::Device { .. } => ResourceKind::Device,
            Self::Portal { .. } => ResourceKind::Portal,
            Self::Authority => ResourceKind::Authority,
            Self::Configuration => ResourceKind::Configuration,
        }
    }

    /// Returns its id within its kind.
    #[must_use]
    pub const fn id(&self) -> &str {
        match self {
            Self::Service(service) => service.as_str(),
            Self::RelayName(name) | Self::Device { name, .. } | Self::Portal { name, .. } => name.as_str(),
            Self::Authority | Self::Configuration => THIS,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::\"{}\"", self.kind(), self.id().escape_debug())
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.kind())?;
        map.serialize_entry("id", self.id())?;
        match self {
            Self::Device { gateway, .. } => map.serialize_entry("gateway", gateway)?,
            Self::Portal { kind, .. } => map.serialize_entry("kind", kind)?,
            Self::Service(_) | Self::RelayName(_) | Self::Authority | Self::Configuration => {}
        }
        map.end()
    }
}

/// Why a text is no resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// It is not of the form `Kind::"id"`.
    #[error("{got:?} is no resource")]
    Form {
        /// What was given.
        got: String,
    },
    /// There is no such kind, or no such service.
    #[error(transparent)]
    Word(#[from] UnknownWord),
    /// There is one only, and this is not its id.
    #[error("there is no {kind} {got:?}")]
    Single {
        /// What there is one of.
        kind: ResourceKind,
        /// The id that was given.
        got: String,
    },
}

impl ResourceError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Form { .. } => "write it as in a policy: 'Service::\"uplink\"'".to_owned(),
            Self::Word(word) => word.hint(),
            Self::Single { kind, .. } => format!("there is one only: {kind}::\"{THIS}\""),
        }
    }
}

/// Reads the text of a resource; the quotes may be missing, because shells eat them. A device has no gateway and a portal no
/// kind afterwards: their texts do not say.
impl FromStr for Resource {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let form = || ResourceError::Form { got: text.to_owned() };
        let short = text.trim();
        let short = short.strip_prefix("Fieldgate::").unwrap_or(short);
        let (kind, id) = short.split_once("::").ok_or_else(form)?;
        let kind: ResourceKind = kind.parse()?;
        let id = match id.strip_prefix('"') {
            Some(quoted) => quoted.strip_suffix('"').ok_or_else(form)?,
            None => id,
        };
        if id.is_empty() || id.contains(['"', '\\']) {
            return Err(form());
        }
        let single = |resource| {
            if id == THIS {
                Ok(resource)
            } else {
                Err(ResourceError::Single {
                    kind,
                    got: id.to_owned(),
                })
            }
        };
        let name = id.to_owned();
        match kind {
            ResourceKind::Service => Ok(Self::Service(id.parse()?)),
            ResourceKind::RelayName => Ok(Self::RelayName(name)),
            ResourceKind::Device => Ok(Self::Device {
                name,
                gateway: String::new(),
            }),
            ResourceKind::Portal => Ok(Self::Portal {
                name,
                kind: String::new(),
            }),
            ResourceKind::Authority => single(Self::Authority),
            ResourceKind::Configuration => single(Self::Configuration),
        }
    }
}

words! {
    /// How good this node's clock is.
    TimeQuality, "quality of time" {
        /// Synchronised with a time server or a satellite.
        Synchronised = "synchronised",
        /// Told by the authority in a signed message.
        Authority = "authority",
        /// Not before the last time this node has known.
        Floor = "floor",
        /// Nobody knows.
        Unknown = "unknown",
    }
}

words! {
    /// Kinds of links.
    LinkKind, "kind of link" {
        /// TCP.
        Tcp = "tcp",
        /// QUIC.
        Quic = "quic",
        /// WebSocket.
        WebSocket = "websocket",
        /// Within one process.
        Memory = "memory",
    }
}

words! {
    /// What is known about revoked members.
    Revocation, "state of revocation" {
        /// A list within its validity.
        Fresh = "fresh",
        /// A list past its validity.
        Stale = "stale",
        /// No list.
        None = "none",
    }
}

words! {
    /// Days of the week.
    Weekday, "day of the week" {
        /// Monday.
        Monday = "monday",
        /// Tuesday.
        Tuesday = "tuesday",
        /// Wednesday.
        Wednesday = "wednesday",
        /// Thursday.
        Thursday = "thursday",
        /// Friday.
        Friday = "friday",
        /// Saturday.
        Saturday = "saturday",
        /// Sunday.
        Sunday = "sunday",
    }
}

/// What is known of a stream that shall be opened.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamFacts {
    /// Who connected to the inlet.
    pub origin: String,
    /// As whom they proved to be there; empty if they did not.
    pub user: String,
    /// Where the stream shall lead, if the outlet leaves that to the inlet; empty otherwise.
    pub destination: String,
    /// Minutes since midnight UTC, 0..=1439.
    pub minute_of_day: u16,
    /// The day in UTC.
    pub weekday: Weekday,
}

/// Nobody, to nowhere, at the beginning of 1970.
impl Default for StreamFacts {
    fn default() -> Self {
        Self {
            origin: String::new(),
            user: String::new(),
            destination: String::new(),
            minute_of_day: 0,
            weekday: Weekday::Thursday,
        }
    }
}

impl StreamFacts {
    /// Returns the same at a time, in milliseconds since 1970.
    #[must_use]
    pub fn at(self, unix_millis: u64) -> Self {
        let minutes = unix_millis / 60_000;
        let minute_of_day = u16::try_from(minutes % MINUTES_A_DAY).unwrap_or(0);
        // 1970 began on a Thursday.
        let day = usize::try_from((minutes / MINUTES_A_DAY + 3) % 7).unwrap_or(0);
        Self {
            minute_of_day,
            weekday: Weekday::ALL.get(day).copied().unwrap_or(Weekday::Monday),
            ..self
        }
    }
}

const MINUTES_A_DAY: u64 = 24 * 60;

/// The circumstances of a request.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Context {
    /// How good this node's clock is.
    pub time_quality: TimeQuality,
    /// The link to the neighbour it came through; `None` if it came from this machine itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkKind>,
    /// Hops to the principal, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<u32>,
    /// The channel's keys hold against quantum computers.
    pub post_quantum: bool,
    /// The principal's key has signed this very handshake, not only an attestation of the last hours.
    pub live_proof: bool,
    /// The file or the credential that tells who the principal is grants this by name.
    pub granted: bool,
    /// What is known about revoked members.
    pub revocation: Revocation,
    /// What a ticket to be issued would give; needed for [`Action::IssueTicket`], not looked at for others.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<TicketRights>,
    /// The stream that is wanted, for [`Action::OpenPortal`]; not looked at for others.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamFacts>,
}

/// The worst: nothing proven, nothing granted, nothing known.
impl Default for Context {
    fn default() -> Self {
        Self {
            time_quality: TimeQuality::Unknown,
            link: None,
            hops: None,
            post_quantum: false,
            live_proof: false,
            granted: false,
            revocation: Revocation::None,
            ticket: None,
            stream: None,
        }
    }
}

/// The rights that a ticket gives beyond membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TicketRights {
    /// It makes an administrator.
    pub grants_administrator: bool,
    /// It makes an enroller.
    pub grants_enroller: bool,
}

/// One question to a policy. It fits the schema by construction.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Request {
    principal: Principal,
    action: Action,
    resource: Resource,
    context: Context,
}

/// Why something cannot be asked. Always the caller's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The action is not done to this kind of resource.
    #[error("{action} is done to a {wanted}, not to a {got}")]
    ResourceKind {
        /// The action.
        action: Action,
        /// The kind of resource it is done to.
        wanted: ResourceKind,
        /// The kind that was given.
        got: ResourceKind,
    },
    /// The rights that the ticket gives are not said.
    #[error("{} is asked without the rights that the ticket gives", Action::IssueTicket)]
    TicketRights,
}

impl RequestError {
    /// Returns what to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::ResourceKind { .. } => "`fieldgate policy schema` says what each action is done to",
            Self::TicketRights => "say both grantsAdministrator and grantsEnroller",
        }
    }
}

impl Request {
    /// Puts a question together.
    ///
    /// # Errors
    /// If the action is not done to this kind of resource, or issues a ticket with unknown rights.
    pub fn new(
        principal: Principal,
        action: Action,
        resource: Resource,
        context: Context,
    ) -> Result<Self, RequestError> {
        if action.resource_kind() != resource.kind() {
            return Err(RequestError::ResourceKind {
                action,
                wanted: action.resource_kind(),
                got: resource.kind(),
            });
        }
        if action == Action::IssueTicket && context.ticket.is_none() {
            return Err(RequestError::TicketRights);
        }
        Ok(Self {
            principal,
            action,
            resource,
            context,
        })
    }

    /// Returns who wants something.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Returns what it wants to do.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }

    /// Returns what it wants to do it to.
    #[must_use]
    pub const fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Returns under which circumstances.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Returns the same question with or without a live proof.
    #[must_use]
    pub fn with_live_proof(&self, live_proof: bool) -> Self {
        let mut request = self.clone();
        request.context.live_proof = live_proof;
        request
    }
}
