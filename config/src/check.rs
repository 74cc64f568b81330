//! From the file as it is written to settings: what no single key can tell, partners, duplicates, contradictions.
//!
//! Every function here says all it has to say and then builds; it gives `None` only if a value it needs was refused, which
//! is a problem already said.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::problem::{Draft, Findings};
use crate::raw;
use crate::reader::{Context, Field, Item, RawTable, quote};
use crate::settings;
use crate::target::InletAddress;
use crate::text::{NAME_LEN_MAX, is_name};

mod cluster;
mod collector;
mod journal;
mod link;
mod mqtt;
mod portal;
mod relay;
mod sink;
mod trust;
mod uplink;

/// What is built from a file.
#[derive(Default)]
pub(crate) struct Checked {
    /// Everything, if no problem is an error.
    pub(crate) settings: Option<settings::Settings>,
    /// What `[node]` and `[identity]` say, if no error is about them.
    pub(crate) own_identity: Option<settings::OwnIdentity>,
}

/// Checks a file and builds its settings.
pub(crate) fn check(raw: raw::Root, host_name: &str, context: &mut Context<'_>) -> Checked {
    let mut own_identity = None;
    let settings = whole(raw, host_name, context, &mut own_identity);
    Checked {
        settings,
        own_identity,
    }
}

/// Builds the settings of the whole file, and on the way those of the node's own identity.
fn whole(
    mut raw: raw::Root,
    host_name: &str,
    context: &mut Context<'_>,
    own_identity: &mut Option<settings::OwnIdentity>,
) -> Option<settings::Settings> {
    let node = raw.node.value.take().map(|raw| node(raw, host_name));
    let has_node = node.is_some();
    let node = node.flatten();
    let state_dir = node
        .as_ref()
        .map_or_else(PathBuf::new, |node| node.state_dir.clone());
    let tpm = raw.identity.value.as_ref().and_then(|raw| raw.tpm.value.clone());
    let (identity, sandbox) = raw
        .identity
        .value
        .take()
        .map(|raw| identity(raw, &state_dir, context.findings))
        .unzip();
    if let (Some(node), Some(Some(identity)), Some(sandbox)) = (&node, &identity, &sandbox)
        && !context.findings.has_errors_about(&OWN_SECTIONS)
    {
        *own_identity = Some(settings::OwnIdentity {
            node: node.clone(),
            identity: identity.clone(),
            sandbox: sandbox.clone(),
        });
    }
    check_purpose(&raw, context.findings);
    check_listeners(&raw, context.findings);
    if !has_node {
        return None;
    }
    let has_link_listener = raw.link.value.as_ref().is_some_and(link::listens);
    // An authority trusts itself.
    let has_trust = raw.trust.is_given() || raw.authority.is_given();
    let has_journal = raw.mqtt.is_given() || raw.uplink.is_given();

    let log = raw.log.value.and_then(log);
    let trust = raw
        .trust
        .value
        .and_then(|raw| trust::trust(raw, context.findings));
    let journal = journal::journal(raw.journal, has_journal, &state_dir, context);
    let mqtt = raw.mqtt.value.and_then(|raw| mqtt::mqtt(raw, context.findings));
    let uplinks = uplink::uplinks(raw.uplink.value.unwrap_or_default(), context.findings);
    let links = link::links(raw.link.value, context.findings);
    let relay = raw
        .relay
        .value
        .and_then(|raw| relay::relay(raw, has_link_listener, has_trust, context.findings));
    let authority = raw
        .authority
        .value
        .and_then(|raw| trust::authority(raw, has_link_listener, &state_dir, context.findings));
    let collector = raw.collector.value.and_then(|raw| {
        let surroundings = collector::Surroundings {
            has_link_listener,
            has_trust,
            state_dir: &state_dir,
            journal_dir: journal.as_ref().map(|journal| journal.dir.as_path()),
            node_name: node.as_ref().map_or("", |node| &node.name),
        };
        collector::collector(raw, &surroundings, context.findings)
    });
    let portal = raw.portal.value.and_then(|raw| {
        let surroundings = portal::Surroundings {
            has_link_listener,
            has_trust,
        };
        portal::portal(raw, &surroundings, context.findings)
    });
    let metrics = raw.metrics.value.and_then(|raw| {
        Some(settings::Metrics {
            listen: raw.listen.value?,
        })
    });

    if context.findings.has_errors() {
        return None;
    }
    Some(settings::Settings {
        node: node?,
        log: log?,
        identity: identity??,
        sandbox: sandbox?,
        tpm,
        trust,
        journal,
        mqtt,
        uplinks: uplinks?,
        link_tcp: links.tcp,
        link_quic: links.quic,
        direct_allow: links.direct_allow,
        link_websocket: links.websocket,
        link_unix: links.unix,
        relay,
        authority,
        collector,
        portal,
        metrics,
    })
}

/// Whether any part of the file wants paths without relays, or allows them.
fn wants_direct_paths(raw: &raw::Root) -> bool {
    let portal = raw.portal.value.as_ref();
    let inlets = portal.and_then(|portal| portal.inlet.value.as_ref());
    let mut inlets = inlets.into_iter().flatten();
    let mut uplinks = raw.uplink.value.iter().flatten();
    let collector = raw.collector.value.as_ref();
    uplinks.any(|uplink| uplink.direct_path.value == Some(true))
        || inlets.any(|inlet| inlet.direct_path.value == Some(true))
        || portal.is_some_and(|portal| portal.direct_path.value == Some(true))
        || collector.is_some_and(|collector| collector.direct_path.value == Some(true))
}

/// Sees to it that the sections make a whole.
fn check_purpose(raw: &raw::Root, findings: &mut Findings) {
    let portal = raw.portal.value.as_ref();
    let has_outlets = portal.is_some_and(|portal| portal.outlet.is_given());
    let answers = raw.relay.is_given() || raw.collector.is_given() || raw.authority.is_given() || has_outlets;
    if !(raw.mqtt.is_given() || raw.uplink.is_given() || raw.portal.is_given() || answers) {
        findings.push(Draft::error("the file switches nothing on").help(
            "a gateway has [mqtt] and [[uplink]], a relay [relay], a collector [collector], an authority [authority], and \
             any of them may have [portal]; examples stand in /usr/share/doc/fieldgate/examples",
        ));
    }
    if let Some(mqtt) = raw.mqtt.value.as_ref().filter(|_| !raw.uplink.is_given()) {
        let draft = mqtt
            .header()
            .warning("there is no `[[uplink]]`: readings stay in the journal until it is full");
        findings.push(draft.help("add an [[uplink]] to the collector that shall get them"));
    }
    let first_uplink = raw.uplink.value.as_ref().and_then(|uplinks| uplinks.first());
    if let Some(uplink) = first_uplink.filter(|_| !raw.mqtt.is_given()) {
        let draft = uplink
            .header()
            .warning("nothing fills the journal: only what it already holds is delivered");
        findings.push(draft.help("add [mqtt], where devices publish"));
    }
    if let Some(direct) = raw
        .link
        .value
        .as_ref()
        .and_then(|link| link.direct.value.as_ref())
        && !wants_direct_paths(raw)
    {
        let draft = direct
            .header()
            .warning("`link.direct` is not used: nothing in this file has `direct_path`");
        findings.push(draft.help(
            "add direct_path = true to [[uplink]], [[portal.inlet]], [collector] or [portal]; or take the section out",
        ));
    }
    let idle = raw.link.value.iter().flat_map(link::tables);
    for (header, name) in idle.filter(|_| !answers) {
        let draft = header.warning(format!(
            "`{name}` listens, but nothing in this file answers there"
        ));
        findings.push(draft.help(
            "take it out: only relays, collectors, authorities and nodes with outlets are connected to; gateways connect by themselves",
        ));
    }
    if let Some(journal) = raw
        .journal
        .value
        .as_ref()
        .filter(|_| !(raw.mqtt.is_given() || raw.uplink.is_given()))
    {
        let draft = journal
            .header()
            .warning("`journal` is not used: there is neither `[mqtt]` nor `[[uplink]]`");
        findings.push(draft.help("take it out"));
    }
}

/// Finds addresses that cannot be listened on at the same time.
fn check_listeners(raw: &raw::Root, findings: &mut Findings) {
    let mqtt = raw.mqtt.value.as_ref();
    let tls = mqtt.and_then(|mqtt| mqtt.tls.value.as_ref());
    let psk = mqtt.and_then(|mqtt| mqtt.psk.value.as_ref());
    let websocket = mqtt.and_then(|mqtt| mqtt.websocket.value.as_ref());
    let websocket_tls = websocket.and_then(|websocket| websocket.tls.value.as_ref());
    let tcp = raw.link.value.as_ref().and_then(|link| link.tcp.value.as_ref());
    let link_websocket = raw
        .link
        .value
        .as_ref()
        .and_then(|link| link.websocket.value.as_ref());
    let lists = [
        mqtt.map(|mqtt| &mqtt.listen),
        tls.map(|tls| &tls.listen),
        psk.map(|psk| &psk.listen),
        websocket.map(|websocket| &websocket.listen),
        websocket_tls.map(|tls| &tls.listen),
        tcp.map(|tcp| &tcp.listen),
        link_websocket.map(|websocket| &websocket.listen),
    ];
    let items = lists
        .into_iter()
        .flatten()
        .filter_map(|list| list.value.as_ref())
        .flatten();
    let metrics = raw.metrics.value.as_ref().map(|metrics| &metrics.listen);
    let inlets = raw
        .portal
        .value
        .as_ref()
        .and_then(|portal| portal.inlet.value.as_ref());
    let inlets = inlets.into_iter().flatten().map(|inlet| &inlet.listen);
    let streams = inlets.clone().filter_map(|field| match field.value.as_ref()? {
        InletAddress::Tcp(address) => Some((*address, field.place())),
        InletAddress::Unix(_) | InletAddress::Udp(_) => None,
    });
    let datagrams = inlets.filter_map(|field| match field.value.as_ref()? {
        InletAddress::Udp(address) => Some((*address, field.place())),
        InletAddress::Unix(_) | InletAddress::Tcp(_) => None,
    });
    let listeners: Vec<(SocketAddr, Place<'_>)> = items
        .map(|item| (item.value, item.place()))
        .chain(streams)
        .chain(metrics.and_then(|field| field.value.map(|address| (address, field.place()))))
        .collect();
    check_collisions(&listeners, findings);
    // Ports of UDP are others than those of TCP.
    let quic = raw.link.value.as_ref().and_then(|link| link.quic.value.as_ref());
    let quic = quic.and_then(|quic| quic.listen.value.as_ref());
    let over_udp: Vec<_> = quic
        .into_iter()
        .flatten()
        .map(|item| (item.value, item.place()))
        .chain(datagrams)
        .collect();
    check_collisions(&over_udp, findings);
}

/// Sees to it that no address is listened on twice.
fn check_collisions(listeners: &[(SocketAddr, Place<'_>)], findings: &mut Findings) {
    for (index, (address, place)) in listeners.iter().enumerate() {
        let Some((other, other_place)) = listeners
            .iter()
            .take(index)
            .find(|(other, _)| collide(*other, *address))
        else {
            continue;
        };
        let message = format!(
            "`{}` is {address}, which `{}` ({other}) already takes",
            place.path, other_place.path
        );
        let draft = Draft::error(message)
            .key(place.path)
            .at(place.span.clone(), "this address")
            .at(other_place.span.clone(), "taken here");
        findings.push(draft.help("choose another port or another address of this machine"));
    }
}

/// Whether two listeners get in each other's way. IPv6 listeners take IPv6 only.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn node(raw: raw::Node, host_name: &str) -> Option<settings::Node> {
    let name = match raw.name.value {
        Some(name) => name,
        None if raw.name.is_given() => return None,
        None => name_of_host(host_name),
    };
    Some(settings::Node {
        name,
        state_dir: raw.state_dir.value?,
        io: raw.io.value?,
        shards: raw.shards.value.map(|shards| (shards > 0).then_some(shards))?,
        control_socket: raw.control_socket.value?,
    })
}

/// Makes a node name from the name of the machine.
fn name_of_host(host_name: &str) -> String {
    let first = host_name.split('.').next().unwrap_or_default().to_lowercase();
    let kept: String = first
        .chars()
        .map(|c| if is_name(&c.to_string()) { c } else { '-' })
        .take(NAME_LEN_MAX)
        .collect();
    let name = kept.trim_matches('-');
    if is_name(name) {
        name.to_owned()
    } else {
        "fieldgate".to_owned()
    }
}

fn log(raw: raw::Log) -> Option<settings::Log> {
    Some(settings::Log {
        level: raw.level.value?,
        format: raw.format.value?,
    })
}

/// Builds the place of the key, and what its process may touch.
fn identity(
    mut raw: raw::Identity,
    state_dir: &Path,
    findings: &mut Findings,
) -> (Option<settings::Identity>, settings::Sandbox) {
    let sandbox = raw.sandbox.value.as_ref();
    for item in sandbox
        .and_then(|raw| raw.paths.value.as_ref())
        .into_iter()
        .flatten()
    {
        if state_dir.starts_with(&item.value) {
            let message = format!(
                "`{}` is {}, which opens the state of this node to the module",
                item.path,
                item.value.display()
            );
            let draft = Draft::warning(message)
                .key(item.path.as_str())
                .at(item.span.clone(), "this path");
            findings.push(draft.help("name the one directory that the token keeps its files in"));
        }
    }
    let secret = [&raw.pin.value, &raw.passphrase.value]
        .into_iter()
        .flatten()
        .find_map(|source| match source {
            settings::SecretSource::Environment(name) => Some(name.as_str()),
            settings::SecretSource::Credential(_) | settings::SecretSource::File(_) => None,
        });
    let names = sandbox.and_then(|raw| raw.environment.value.as_ref());
    for item in names.into_iter().flatten() {
        if Some(item.value.as_str()) == secret {
            let message = format!("`{}` hands the PIN to the module's environment", item.path);
            let draft = Draft::error(message)
                .key(item.path.as_str())
                .at(item.span.clone(), "this name");
            findings.push(draft.help("take it out: fieldgate reads the PIN and logs in itself"));
        }
    }
    let sandbox = raw
        .sandbox
        .value
        .take()
        .map_or_else(Default::default, |raw| settings::Sandbox {
            paths: values(raw.paths.value.unwrap_or_default()),
            network: raw.network.value.unwrap_or_default(),
            environment: values(raw.environment.value.unwrap_or_default()),
        });
    (place_of_key(raw), sandbox)
}

fn place_of_key(raw: raw::Identity) -> Option<settings::Identity> {
    if let Some(uri) = raw.pkcs11.value {
        return Some(settings::Identity::Pkcs11 {
            module: raw.module.value?,
            uri,
            pin: raw.pin.value?,
        });
    }
    Some(settings::Identity::File {
        path: raw.file.value?,
        passphrase: raw.passphrase.value?,
    })
}

/// Takes the values out of a list.
fn values<V>(items: Vec<Item<V>>) -> Vec<V> {
    items.into_iter().map(|item| item.value).collect()
}

/// Finds values that may stand in the file once only.
struct Unique {
    /// What they are, with an article.
    what: &'static str,
    help: &'static str,
    first: BTreeMap<String, Option<Range<usize>>>,
}

impl Unique {
    const fn new(what: &'static str, help: &'static str) -> Self {
        Self {
            what,
            help,
            first: BTreeMap::new(),
        }
    }

    /// Takes a value and returns whether it is new; says so if it is not.
    fn add(&mut self, value: impl ToString, place: Place<'_>, findings: &mut Findings) -> bool {
        let value = value.to_string();
        if let Some(first) = self.first.get(&value) {
            let message = format!(
                "`{}` is {}, {} that is taken already",
                place.path,
                quote(&value),
                self.what
            );
            let draft = Draft::error(message)
                .key(place.path)
                .at(place.span, "again here")
                .at(first.clone(), "first here");
            findings.push(draft.help(self.help));
            false
        } else {
            self.first.insert(value, place.span);
            true
        }
    }
}

/// Where a value stands.
struct Place<'p> {
    path: &'p str,
    span: Option<Range<usize>>,
}

impl<V> Field<V> {
    fn place(&self) -> Place<'_> {
        Place {
            path: &self.path,
            span: self.span.clone(),
        }
    }
}

impl<V> Item<V> {
    fn place(&self) -> Place<'_> {
        Place {
            path: &self.path,
            span: self.span.clone(),
        }
    }
}

/// What an identity needs of the file.
const OWN_SECTIONS: [&str; 2] = ["node", "identity"];
