//! `[[uplink]]`.

use super::Unique;
use crate::problem::Findings;
use crate::raw;
use crate::settings;

pub(super) fn uplinks(raws: Vec<raw::Uplink>, findings: &mut Findings) -> Option<Vec<settings::Uplink>> {
    let (mut names, mut collectors) = (Unique::new(), Unique::new());
    for raw in &raws {
        if let Some(name) = &raw.name.value {
            names.add(
                name.clone(),
                raw.name.place(),
                "a name",
                "give each uplink a name of its own",
                findings,
            );
        }
        if let Some(collector) = raw.collector.value {
            let help = "write one [[uplink]] per collector; several ways to one collector go into `relays`";
            collectors.add(collector, raw.collector.place(), "a collector", help, findings);
        }
        check_relays(raw, findings);
    }
    raws.into_iter().map(uplink).collect()
}

fn check_relays(raw: &raw::Uplink, findings: &mut Findings) {
    let mut addresses = Unique::new();
    for relay in raw.relays.value.iter().flatten() {
        if let Some(address) = &relay.address.value {
            let help = "take one of the two out";
            addresses.add(
                address.clone(),
                relay.address.place(),
                "an address",
                help,
                findings,
            );
        }
    }
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
