//! `[[uplink]]`.

use super::Unique;
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
        let mut addresses = Unique::new("an address", "take one of the two out");
        for relay in raw.relays.value.iter().flatten() {
            if let Some(address) = &relay.address.value {
                addresses.add(address, relay.address.place(), findings);
            }
        }
    }
    raws.into_iter().map(uplink).collect()
}

fn uplink(raw: raw::Uplink) -> Option<settings::Uplink> {
    let path = if let Some(direct) = raw.direct.value {
        settings::UplinkPath::Direct {
            address: direct.address.value?,
        }
    } else {
        let relays = raw
            .relay
            .value
            .into_iter()
            .chain(raw.relays.value.into_iter().flatten());
        let relays: Option<Vec<_>> = relays.map(relay_address).collect();
        settings::UplinkPath::Relays {
            via: raw.via.value?,
            relays: relays.filter(|relays| !relays.is_empty())?,
        }
    };
    Some(settings::Uplink {
        name: raw.name.value?,
        collector: raw.collector.value?,
        path,
        pq: raw.pq.value?,
        padding: raw.padding.value?,
        latency: raw.latency_ms.value?,
    })
}

pub(super) fn relay_address(raw: raw::RelayAddress) -> Option<settings::RelayAddress> {
    Some(settings::RelayAddress {
        address: raw.address.value?,
        identifier: raw.identifier.value?,
    })
}
