//! `[[uplink]]`.

use super::{Unique, values};
use crate::problem::{Draft, Findings};
use crate::raw;
use crate::reader::quote;
use crate::settings;

pub(super) fn uplinks(raws: Vec<raw::Uplink>, findings: &mut Findings) -> Option<Vec<settings::Uplink>> {
    let mut names = Unique::new("a name", "give each uplink a name of its own");
    let mut collectors = Unique::new(
        "a collector",
        "write one [[uplink]] per collector; several ways to one collector go into `relays`",
    );
    for raw in &raws {
        if let Some(name) = &raw.name.value {
            names.add(name, raw.name.place(), findings);
        }
        if let Some(collector) = raw.collector.value {
            collectors.add(collector, raw.collector.place(), findings);
        }
        check_relays(raw.relays.value.as_deref(), findings);
        let relays = raw.relay.value.iter().chain(raw.relays.value.iter().flatten());
        check_through(raw.via.value.as_ref(), relays, findings);
    }
    raws.into_iter().map(uplink).collect()
}

fn uplink(raw: raw::Uplink) -> Option<settings::Uplink> {
    let path = path(raw.direct.value, raw.via.value, raw.relay.value, raw.relays.value)?;
    Some(settings::Uplink {
        name: raw.name.value?,
        collector: raw.collector.value?,
        path,
        pq: raw.pq.value?,
        padding: raw.padding.value?,
        live_proof: raw.live_proof.value?,
        direct_path: raw.direct_path.value.unwrap_or(false),
        commands: raw.commands.value?,
        latency: raw.latency_ms.value?,
        verifiable: raw.verifiable.value?,
    })
}

/// Finds relays that stand in a list twice.
pub(super) fn check_relays(relays: Option<&[raw::RelayWay]>, findings: &mut Findings) {
    let mut ways = Unique::new("an address", "take one of the two out");
    for relay in relays.into_iter().flatten() {
        if let Some(address) = &relay.address.value {
            let mut way = address.to_string();
            for name in relay.through.value.iter().flatten() {
                way.push_str(" through ");
                way.push_str(&name.value);
            }
            ways.add(way, relay.address.place(), findings);
        }
        let mut addresses = Unique::new("an address", "take one of the two out");
        let first = relay
            .address
            .value
            .iter()
            .map(|address| (address, relay.address.place()));
        let also = relay.also.value.iter().flatten();
        for (address, place) in first.chain(also.map(|item| (&item.value, item.place()))) {
            addresses.add(address, place, findings);
        }
    }
}

/// Finds relays that stand in one way twice, as nothing would come through, and those of which some have no identifier.
pub(super) fn check_through<'r>(
    via: Option<&String>,
    relays: impl Iterator<Item = &'r raw::RelayWay>,
    findings: &mut Findings,
) {
    for relay in relays {
        check_identifiers(relay, findings);
        let mut names = Unique::new("a name", "name each relay on the way once");
        for name in relay.through.value.iter().flatten() {
            names.add(&name.value, name.place(), findings);
            if Some(&name.value) == via {
                let place = name.place();
                let draft = Draft::error(format!(
                    "`{}` is {}, which is `via`",
                    place.path,
                    quote(&name.value)
                ))
                .key(place.path)
                .at(place.span, "this name");
                findings.push(draft.help("give the last relay and the node behind it different names"));
            }
        }
    }
}

/// Finds ways of which some relays are known and others are not.
fn check_identifiers(relay: &raw::RelayWay, findings: &mut Findings) {
    let (Some(names), Some(identifiers)) = (&relay.through.value, &relay.through_identifiers.value) else {
        return;
    };
    if !identifiers.is_empty() && identifiers.len() != names.len() {
        let place = relay.through_identifiers.place();
        let draft = Draft::error(format!(
            "`{}` has {} entries, and `through` has {}",
            place.path,
            identifiers.len(),
            names.len()
        ))
        .key(place.path)
        .at(place.span, "these");
        findings.push(draft.help(
            "give the identifier of every relay in `through`, in the same order (`fieldgate identity show` on each), or of none",
        ));
    }
    let mut known = Unique::new("an identifier", "name each relay on the way once");
    let first = relay
        .identifier
        .value
        .iter()
        .map(|identifier| (identifier, relay.identifier.place()));
    let others = identifiers.iter().map(|item| (&item.value, item.place()));
    for (identifier, place) in first.chain(others) {
        known.add(*identifier, place, findings);
    }
}

/// Builds the way to a node from the keys that say it.
pub(super) fn path(
    direct: Option<raw::DirectAddress>,
    via: Option<String>,
    relay: Option<raw::RelayWay>,
    relays: Option<Vec<raw::RelayWay>>,
) -> Option<settings::UplinkPath> {
    if let Some(direct) = direct {
        return Some(settings::UplinkPath::Direct {
            address: direct.address.value?,
            also: values(direct.also.value?),
        });
    }
    let relays = relay.into_iter().chain(relays.into_iter().flatten());
    let relays: Option<Vec<_>> = relays.map(relay_way).collect();
    Some(settings::UplinkPath::Relays {
        via: via?,
        relays: relays.filter(|relays| !relays.is_empty())?,
    })
}

fn relay_way(raw: raw::RelayWay) -> Option<settings::RelayWay> {
    Some(settings::RelayWay {
        relay: settings::RelayAddress {
            address: raw.address.value?,
            also: values(raw.also.value?),
            identifier: raw.identifier.value?,
        },
        through: values(raw.through.value?),
        through_identifiers: values(raw.through_identifiers.value?),
    })
}

pub(super) fn relay_address(raw: raw::RelayAddress) -> Option<settings::RelayAddress> {
    Some(settings::RelayAddress {
        address: raw.address.value?,
        also: values(raw.also.value?),
        identifier: raw.identifier.value?,
    })
}
