//! `[collector]`.

use std::path::Path;

use super::Unique;
use super::sink;
use super::uplink::relay_address;
use crate::problem::Findings;
use crate::raw;
use crate::reader::RawTable;
use crate::settings;

/// What the collector has to know of the rest of the file.
pub(super) struct Surroundings<'s> {
    pub(super) has_link_listener: bool,
    pub(super) has_trust: bool,
    pub(super) state_dir: &'s Path,
    pub(super) journal_dir: Option<&'s Path>,
    pub(super) node_name: &'s str,
}

pub(super) fn collector(
    mut raw: raw::Collector,
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
    let sinks = sink::sinks(&mut raw, &default_client_id, findings);
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
        direct_path: raw.direct_path.value?,
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
        sinks: sinks?,
    })
}

fn check_reachable(raw: &raw::Collector, surroundings: &Surroundings<'_>, findings: &mut Findings) {
    if !raw.register.is_given() && !surroundings.has_link_listener {
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
