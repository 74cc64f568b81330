//! `[collector]`.

use std::path::Path;

use super::Unique;
use super::uplink::relay_address;
use crate::problem::Findings;
use crate::raw;
use crate::reader::RawTable;
use crate::settings;
use crate::shape::SinkPath;

/// What the collector has to know of the rest of the file.
pub(super) struct Surroundings<'s> {
    pub(super) has_link_tcp: bool,
    pub(super) has_trust: bool,
    pub(super) state_dir: &'s Path,
    pub(super) journal_dir: Option<&'s Path>,
    pub(super) node_name: &'s str,
}

pub(super) fn collector(
    raw: raw::Collector,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<settings::Collector> {
    check_reachable(&raw, surroundings, findings);
    check_gateways(&raw, surroundings.has_trust, findings);
    let state_dir = raw
        .state_dir
        .value
        .clone()
        .unwrap_or_else(|| surroundings.state_dir.join("collector"));
    if surroundings.journal_dir == Some(state_dir.as_path()) {
        let field = &raw.state_dir;
        let message = "`collector.state_dir` is the directory of the journal";
        let draft = if field.is_given() {
            field.error(message)
        } else {
            raw.header().error(message)
        };
        findings.push(draft.help("give each a directory of its own; the defaults do"));
    }
    let default_client_id = format!("fieldgate-{}", surroundings.node_name);
    check_sinks(&raw, &default_client_id, findings);
    let sinks = raw
        .sink
        .value
        .unwrap_or_default()
        .into_iter()
        .map(|raw| sink(raw, &default_client_id));
    let ledger = match raw.ledger.value {
        Some(ledger) => Some(settings::Ledger {
            dir: ledger.dir.value.unwrap_or_else(|| state_dir.join("ledger")),
            bytes_max: ledger.bytes_max.value?,
        }),
        None => None,
    };
    Some(settings::Collector {
        ledger,
        state_dir,
        pq: raw.pq.value?,
        registrations: raw
            .register
            .value
            .unwrap_or_default()
            .into_iter()
            .map(registration)
            .collect::<Option<_>>()?,
        gateways: raw
            .gateway
            .value
            .unwrap_or_default()
            .into_iter()
            .map(gateway)
            .collect::<Option<_>>()?,
        sinks: sinks.collect::<Option<_>>()?,
    })
}

fn check_reachable(raw: &raw::Collector, surroundings: &Surroundings<'_>, findings: &mut Findings) {
    if !raw.register.is_given() && !surroundings.has_link_tcp {
        let draft = raw
            .header()
            .error("`collector` has neither `register` nor `[link.tcp]`: no gateway could reach it");
        findings.push(draft.help(
            "add register = [{ relay = { address = \"host:port\", identifier = \"fg1…\" }, name = \"collector-1\" }]; or \
             [link.tcp] for direct uplinks",
        ));
    }
    check_registrations(raw.register.value.as_deref(), findings);
}

/// Finds names that are to be held at a relay twice.
pub(super) fn check_registrations(registrations: Option<&[raw::Registration]>, findings: &mut Findings) {
    let mut registered = Unique::new(
        "a registration",
        "take one of the two out, or choose another relay or name",
    );
    for registration in registrations.into_iter().flatten() {
        let relay = registration
            .relay
            .value
            .as_ref()
            .and_then(|relay| relay.address.value.as_ref());
        if let (Some(relay), Some(name)) = (relay, &registration.name.value) {
            registered.add(format!("{name} at {relay}"), registration.name.place(), findings);
        }
    }
}

fn check_gateways(raw: &raw::Collector, has_trust: bool, findings: &mut Findings) {
    if !raw.gateway.is_given() && !has_trust {
        let draft = raw.header().warning(
            "`collector` has no `[[collector.gateway]]`, and there is no `[trust]`: it serves nobody",
        );
        findings.push(draft.help(
            "add a [[collector.gateway]] with name and identifier for each gateway; or [trust], and enrol this node and the \
             gateways with an authority",
        ));
    }
    let mut names = Unique::new("a name", "give each gateway a name of its own");
    let mut identifiers = Unique::new("an identifier", "write one [[collector.gateway]] per gateway");
    for gateway in raw.gateway.value.iter().flatten() {
        if let Some(name) = &gateway.name.value {
            names.add(name, gateway.name.place(), findings);
        }
        if let Some(identifier) = gateway.identifier.value {
            identifiers.add(identifier, gateway.identifier.place(), findings);
        }
    }
}

pub(super) fn registration(raw: raw::Registration) -> Option<settings::Registration> {
    Some(settings::Registration {
        relay: relay_address(raw.relay.value?)?,
        name: raw.name.value?,
    })
}

fn gateway(raw: raw::CollectorGateway) -> Option<settings::CollectorGateway> {
    Some(settings::CollectorGateway {
        name: raw.name.value?,
        identifier: raw.identifier.value?,
    })
}

fn check_sinks(raw: &raw::Collector, default_client_id: &str, findings: &mut Findings) {
    if !raw.sink.is_given() {
        let draft = raw
            .header()
            .error("`collector` has no `[[collector.sink]]`: readings would go nowhere");
        findings.push(draft.help(
            "add [[collector.sink]] with kind = \"mqtt\" and address = \"host:port\", or kind = \"file\" and path",
        ));
    }
    let mut names = Unique::new(
        "the name of a sink",
        "give each sink a `name`; without one it is called by its kind",
    );
    let mut paths = Unique::new("a file", "give each sink a file of its own");
    let mut clients = Unique::new(
        "a client of this broker",
        "give each sink of one broker a `client_id` of its own, or the broker ends one for the other",
    );
    for raw in raw.sink.value.iter().flatten() {
        check_sink(raw, findings);
        if let Some(name) = &raw.name.value {
            names.add(name, raw.name.place(), findings);
        } else if let Some(kind) = raw.kind.value {
            names.add(kind_name(kind), raw.kind.place(), findings);
        }
        if let Some(path) = &raw.path.value {
            paths.add(path, raw.path.place(), findings);
        }
        if let Some(address) = &raw.address.value {
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

fn check_sink(raw: &raw::Sink, findings: &mut Findings) {
    if raw.kind.value == Some(raw::SinkName::Null) {
        let draft = raw.header().warning(format!(
            "`{}` throws readings away and confirms them",
            raw.header().path
        ));
        findings.push(draft.help("take it out, except for measurements"));
    }
    if raw.kind.value != Some(raw::SinkName::Mqtt) {
        return;
    }
    if raw.password.is_given() && !raw.username.is_given() {
        let draft = raw
            .password
            .error(format!("`{}` needs `username`", raw.password.path));
        findings
            .push(draft.help("add `username`: MQTT 3.1.1 brokers take no password without one (§3.1.2.9)"));
    }
    let is_remote = raw
        .address
        .value
        .as_ref()
        .is_some_and(|address| !address.is_loopback());
    if raw.password.is_given() && is_remote {
        let draft = raw.address.warning(format!(
            "`{}` is another machine: the password and all readings go there unencrypted",
            raw.address.path
        ));
        findings.push(
            draft.help("run the collector beside the broker, or see to it that nobody listens on the way"),
        );
    }
}

fn sink(raw: raw::Sink, default_client_id: &str) -> Option<settings::Sink> {
    let kind = raw.kind.value?;
    let name = match raw.name.value {
        Some(name) => name,
        None => kind_name(kind).to_owned(),
    };
    let kind = match kind {
        raw::SinkName::Mqtt => settings::SinkKind::Mqtt(settings::MqttSink {
            address: raw.address.value?,
            client_id: raw
                .client_id
                .value
                .unwrap_or_else(|| default_client_id.to_owned()),
            login: raw.username.value.map(|username| settings::MqttLogin {
                username,
                password: raw.password.value,
            }),
            topic: raw.topic.value?,
            inflight_max: raw.inflight_max.value?,
        }),
        raw::SinkName::File => match raw.path.value? {
            SinkPath::Stdout => settings::SinkKind::Stdout,
            SinkPath::File(path) => settings::SinkKind::File(path),
        },
        raw::SinkName::Null => settings::SinkKind::Null,
    };
    Some(settings::Sink { name, kind })
}

fn kind_name(kind: raw::SinkName) -> &'static str {
    match kind {
        raw::SinkName::Mqtt => "mqtt",
        raw::SinkName::File => "file",
        raw::SinkName::Null => "null",
    }
}
