//! `[relay.cluster]` and `[authority.cluster]`.

use super::sink::{auth, tls};
use super::uplink::relay_address;
use super::{Unique, values};
use crate::address::HostPort;
use crate::problem::Findings;
use crate::raw;
use crate::reader::{Field, Header, Item, RawTable as _};
use crate::settings::SecretSource;
use crate::settings::cluster::{AuthorityCluster, NatsBucket, RelayCluster};
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
    let secrets = [&raw.password, &raw.token, &raw.credentials];
    check_servers(&raw.servers, &raw.tls, secrets, raw.header(), findings);
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

pub(super) fn authority(
    raw: raw::cluster::AuthorityCluster,
    findings: &mut Findings,
) -> Option<AuthorityCluster> {
    let secrets = [&raw.password, &raw.token, &raw.credentials];
    check_servers(&raw.servers, &raw.tls, secrets, raw.header(), findings);
    let login = raw.username.value.map(|username| Login {
        username,
        password: raw.password.value,
    });
    Some(AuthorityCluster {
        servers: values(raw.servers.value?),
        tls: raw.tls.value.map(tls),
        auth: auth(login, raw.token.value, raw.credentials.value),
        key: raw.key.value?,
        stream: raw.stream.value?,
        replicas: raw.replicas.value?,
        entries_max: raw.entries_max.value?,
        found: raw.found.value?,
    })
}

fn check_servers(
    servers: &Field<Vec<Item<HostPort>>>,
    tls: &Field<raw::sink::SinkTls>,
    secrets: [&Field<SecretSource>; 3],
    header: &Header,
    findings: &mut Findings,
) {
    let mut unique = Unique::new("an address", "take one of the two out");
    for server in servers.value.iter().flatten() {
        unique.add(&server.value, server.place(), findings);
    }
    if let Some(tls) = &tls.value
        && tls.certificate.is_given()
        && !tls.key.is_given()
    {
        let draft = tls
            .certificate
            .error(format!("`{}` needs `key`", tls.certificate.path));
        findings.push(draft.help("name the file of its private key"));
    }
    let secret = secrets.iter().any(|secret| secret.is_given());
    let mut all = servers.value.iter().flatten();
    if secret && !tls.is_given() && all.any(|server| !server.value.is_loopback()) {
        let draft = servers.warning(format!(
            "`{}` names other machines: the password goes there unencrypted",
            servers.path
        ));
        findings.push(draft.help(format!("add [{}.tls]", header.path)));
    }
}
