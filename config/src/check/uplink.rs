//! `[[uplink]]`.

use super::{Unique, values};
use crate::problem::Findings;
use crate::raw;
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
        commands: raw.commands.value?,
        latency: raw.latency_ms.value?,
        verifiable: raw.verifiable.value?,
    })
}

/// Finds relays that stand in a list twice.
pub(super) fn check_relays(relays: Option<&[raw::RelayAddress]>, findings: &mut Findings) {
    let mut addresses = Unique::new("an address", "take one of the two out");
    for relay in relays.into_iter().flatten() {
        if let Some(address) = &relay.address.value {
            addresses.add(address, relay.address.place(), findings);
        }
        for item in relay.also.value.iter().flatten() {
            addresses.add(&item.value, item.place(), findings);
        }
    }
}

/// Builds the way to a node from the keys that say it.
pub(super) fn path(
    direct: Option<raw::DirectAddress>,
    via: Option<String>,
    relay: Option<raw::RelayAddress>,
    relays: Option<Vec<raw::RelayAddress>>,
) -> Option<settings::UplinkPath> {
    if let Some(direct) = direct {
        return Some(settings::UplinkPath::Direct {
            address: direct.address.value?,
            also: values(direct.also.value?),
        });
    }
    let relays = relay.into_iter().chain(relays.into_iter().flatten());
    let relays: Option<Vec<_>> = relays.map(relay_address).collect();
    Some(settings::UplinkPath::Relays {
        via: via?,
        relays: relays.filter(|relays| !relays.is_empty())?,
    })
}

pub(super) fn relay_address(raw: raw::RelayAddress) -> Option<settings::RelayAddress> {
    Some(settings::RelayAddress {
        address: raw.address.value?,
        also: values(raw.also.value?),
        identifier: raw.identifier.value?,
    })
}
