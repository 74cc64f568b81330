//! `[relay.cluster]`.

use super::sink::{auth, tls};
use super::uplink::relay_address;
use super::{Unique, values};
use crate::problem::Findings;
use crate::raw;
use crate::reader::RawTable as _;
use crate::settings::cluster::{NatsBucket, RelayCluster};
use crate::settings::sink::Login;

pub(super) fn cluster(raw: raw::cluster::RelayCluster, findings: &mut Findings) -> Option<RelayCluster> {
    let mut addresses = Unique::new("an address", "take one of the two out");
    let mut identifiers = Unique::new("an identifier", "give each relay an identity of its own");
    for relay in raw.relays.value.iter().flatten() {
        if let Some(address) = &relay.address.value {
            addresses.add(address, relay.address.place(), findings);
        }
        if let Some(identifier) = &relay.identifier.value {
            identifiers.add(identifier, relay.identifier.place(), findings);
        }
    }
    let mut servers = Unique::new("an address", "take one of the two out");
    for server in raw.servers.value.iter().flatten() {
        servers.add(&server.value, server.place(), findings);
    }
    check_transport(&raw, findings);
    let relays = raw.relays.value?.into_iter().map(relay_address);
    let login = raw.username.value.map(|username| Login {
        username,
        password: raw.password.value,
    });
    Some(RelayCluster {
        relays: relays.collect::<Option<_>>()?,
        store: NatsBucket {
            servers: values(raw.servers.value?),
            tls: raw.tls.value.map(tls),
            auth: auth(login, raw.token.value, raw.credentials.value),
            bucket: raw.bucket.value?,
            replicas: raw.replicas.value?,
        },
        lease: raw.lease_secs.value?,
        grace: raw.grace_secs.value?,
        names_per_relay_max: usize::try_from(raw.names_per_relay_max.value?).unwrap_or(usize::MAX),
        names_max: usize::try_from(raw.names_max.value?).unwrap_or(usize::MAX),
    })
}

fn check_transport(raw: &raw::cluster::RelayCluster, findings: &mut Findings) {
    if let Some(tls) = &raw.tls.value
        && tls.certificate.is_given()
        && !tls.key.is_given()
    {
        let draft = tls
            .certificate
            .error(format!("`{}` needs `key`", tls.certificate.path));
        findings.push(draft.help("name the file of its private key"));
    }
    let secret = raw.password.is_given() || raw.token.is_given() || raw.credentials.is_given();
    let mut servers = raw.servers.value.iter().flatten();
    if secret && !raw.tls.is_given() && servers.any(|server| !server.value.is_loopback()) {
        let draft = raw.servers.warning(format!(
            "`{}` names other machines: the password goes there unencrypted",
            raw.servers.path
        ));
        findings.push(draft.help(format!("add [{}.tls]", raw.header().path)));
    }
}
