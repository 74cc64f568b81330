//! The listeners beside the plain one, and what devices show there instead of a password.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::super::{Unique, values};
use crate::problem::Findings;
use crate::raw;
use crate::reader::{Field, Item, RawTable};
use crate::settings::{self, CertificateRule, ClientAuth};

pub(super) fn tls(raw: raw::MqttTls) -> Option<settings::MqttTls> {
    let clients = clients(raw.client_ca, &raw.client_auth, raw.client_crl)?;
    Some(settings::MqttTls {
        listen: values(raw.listen.value?),
        certificate: raw.certificate.value?,
        key: raw.key.value?,
        clients,
    })
}

fn websocket_tls(raw: raw::MqttWebSocketTls) -> Option<settings::MqttTls> {
    let clients = clients(raw.client_ca, &raw.client_auth, raw.client_crl)?;
    Some(settings::MqttTls {
        listen: values(raw.listen.value?),
        certificate: raw.certificate.value?,
        key: raw.key.value?,
        clients,
    })
}

/// Builds what is said of devices' certificates; `Some(None)` if nothing is.
#[expect(
    clippy::option_option,
    reason = "nothing said and something refused are not the same"
)]
fn clients(
    ca: Field<PathBuf>,
    auth: &Field<ClientAuth>,
    crl: Field<PathBuf>,
) -> Option<Option<settings::ClientCertificates>> {
    let Some(ca) = ca.value else {
        return Some(None);
    };
    Some(Some(settings::ClientCertificates {
        ca,
        auth: auth.value?,
        crl: crl.value,
    }))
}

pub(super) fn psk(raw: raw::MqttPsk) -> Option<settings::MqttPsk> {
    Some(settings::MqttPsk {
        listen: values(raw.listen.value?),
    })
}

pub(super) fn websocket(raw: raw::MqttWebSocket) -> Option<settings::MqttWebSocket> {
    let listen = match raw.listen.value {
        Some(listen) => values(listen),
        None if raw.listen.is_given() => return None,
        None if raw.tls.is_given() => Vec::new(),
        None => vec![DEFAULT_WEBSOCKET_LISTEN],
    };
    Some(settings::MqttWebSocket {
        listen,
        tls: raw.tls.value.and_then(websocket_tls),
        path: raw.path.value?,
        origins: raw.origins.value.map(values),
    })
}

pub(super) fn certificate(raw: raw::Certificate) -> Option<CertificateRule> {
    let name = raw.subject_cn.value.map(CertificateRule::SubjectCn);
    let dns = raw.san_dns.value.map(CertificateRule::SanDns);
    name.or(dns)
        .or_else(|| raw.sha256.value.map(CertificateRule::Sha256))
}

pub(super) fn device_psk(raw: raw::DevicePsk) -> Option<settings::DevicePsk> {
    Some(settings::DevicePsk {
        identity: raw.identity.value?,
        key: raw.key.value?,
    })
}

/// Returns the addresses on which a client can get as far as CONNECT without having shown anything.
pub(super) fn without_proof(raw: &raw::Mqtt) -> [Option<&Vec<Item<SocketAddr>>>; 4] {
    let tls = raw
        .tls
        .value
        .as_ref()
        .filter(|tls| !tls.client_ca.is_given() || tls.client_auth.value == Some(ClientAuth::Optional));
    let websocket = raw.websocket.value.as_ref();
    let websocket_tls = websocket
        .and_then(|websocket| websocket.tls.value.as_ref())
        .filter(|tls| !tls.client_ca.is_given() || tls.client_auth.value == Some(ClientAuth::Optional));
    [
        raw.listen.value.as_ref(),
        tls.and_then(|tls| tls.listen.value.as_ref()),
        websocket.and_then(|websocket| websocket.listen.value.as_ref()),
        websocket_tls.and_then(|tls| tls.listen.value.as_ref()),
    ]
}

/// Sees to it that every device has something to show, that somebody asks for it, and that nobody else shows the same.
pub(super) fn check_proofs(raw: &raw::Mqtt, findings: &mut Findings) {
    let devices = raw.device.value.as_deref().unwrap_or_default();
    let asks = asking(raw);
    let mut rules = Unique::new(
        "the certificate of a device",
        "give each device a rule of its own; the same certificate in two devices stands for neither",
    );
    let mut identities = Unique::new("the identity of a key", "give each device an identity of its own");
    for device in devices {
        check_device(raw, device, asks.is_some(), findings);
        if let Some(certificate) = &device.certificate.value {
            if let Some(name) = &certificate.subject_cn.value {
                rules.add(format!("CN {name}"), certificate.subject_cn.place(), findings);
            } else if let Some(name) = &certificate.san_dns.value {
                rules.add(format!("DNS {name}"), certificate.san_dns.place(), findings);
            } else if let Some(hash) = &certificate.sha256.value {
                rules.add(format!("{hash:02x?}"), certificate.sha256.place(), findings);
            }
        }
        if let Some(psk) = &device.psk.value
            && let Some(identity) = &psk.identity.value
        {
            identities.add(identity, psk.identity.place(), findings);
        }
    }
    if let Some(psk) = raw
        .psk
        .value
        .as_ref()
        .filter(|_| !devices.iter().any(|device| device.psk.is_given()))
    {
        let draft = psk
            .header()
            .error("no `[[mqtt.device]]` has a `psk`: none could connect to `[mqtt.psk]`");
        let help = "add psk = { identity = \"…\", key = { credential = \"…\" } } to a device, or take [mqtt.psk] out";
        findings.push(draft.help(help));
    }
    if let Some((ca, Some(ClientAuth::Required))) = asks
        && !devices.iter().any(|device| device.certificate.is_given())
    {
        let draft = ca.error(
            "no `[[mqtt.device]]` has a `certificate`, but a listener takes only devices that have one",
        );
        let help =
            "add certificate = { subject_cn = \"…\" } to a device, or choose client_auth = \"optional\"";
        findings.push(draft.help(help));
    }
}

/// Returns where devices are asked for certificates, and whether they must have one there.
fn asking(raw: &raw::Mqtt) -> Option<(&Field<PathBuf>, Option<ClientAuth>)> {
    let tls = raw.tls.value.as_ref();
    let websocket = raw.websocket.value.as_ref();
    let websocket_tls = websocket.and_then(|websocket| websocket.tls.value.as_ref());
    let direct = tls.map(|tls| (&tls.client_ca, tls.client_auth.value));
    let through = websocket_tls.map(|tls| (&tls.client_ca, tls.client_auth.value));
    [direct, through]
        .into_iter()
        .flatten()
        .find(|(ca, _)| ca.is_given())
}

fn check_device(raw: &raw::Mqtt, device: &raw::Device, is_asked: bool, findings: &mut Findings) {
    let path = &device.header().path;
    if !(device.password_hash.is_given() || device.certificate.is_given() || device.psk.is_given()) {
        let draft = device.header().error(format!(
            "`{path}` has no `password_hash`, `certificate` or `psk`: it could not connect"
        ));
        let help = "add `password_hash`, which `fieldgate device password NAME` makes; or a certificate on a listener with client_ca, \
                    or a psk";
        findings.push(draft.help(help));
    }
    if device.certificate.is_given() && !is_asked {
        let draft = device.certificate.error(format!(
            "`{path}.certificate` is never asked for: no listener has `client_ca`"
        ));
        findings.push(draft.help("add client_ca to [mqtt.tls] or [mqtt.websocket.tls]"));
    }
    if device.psk.is_given() && !raw.psk.is_given() {
        let draft = device.psk.error(format!(
            "`{path}.psk` is never asked for: there is no `[mqtt.psk]`"
        ));
        findings.push(draft.help("add [mqtt.psk], which listens on port 8884"));
    }
}

/// What `mqtt.websocket.listen` is without the key and without TLS.
pub(super) const DEFAULT_WEBSOCKET_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8083);
