//! `[link]`.

use super::values;
use crate::address::Network;
use crate::problem::{Draft, Findings};
use crate::raw;
use crate::reader::{Header, RawTable};
use crate::settings;

/// Whether other nodes can connect here.
pub(super) fn listens(raw: &raw::Link) -> bool {
    raw.tcp.is_given()
        || raw.quic.is_given()
        || raw.unix.is_given()
        || raw.websocket.value.as_ref().is_some_and(is_listening)
}

/// Whether other nodes can connect here over WebSockets.
pub(super) fn is_listening(raw: &raw::LinkWebSocket) -> bool {
    raw.listen.value.as_ref().is_some_and(|listen| !listen.is_empty())
}

fn tcp(raw: raw::LinkTcp) -> Option<settings::LinkTcp> {
    Some(settings::LinkTcp {
        listen: values(raw.listen.value?),
    })
}

fn quic(raw: raw::LinkQuic) -> Option<settings::LinkQuic> {
    Some(settings::LinkQuic {
        listen: values(raw.listen.value?),
    })
}

/// Returns the networks of paths without relays; without the section its default, which is all there are.
fn direct_allow(raw: Option<raw::LinkDirect>) -> Vec<Network> {
    match raw {
        Some(raw) => raw.allow.value.map(values).unwrap_or_default(),
        None => ["0.0.0.0/0", "::/0"]
            .map(|all| all.parse().expect("a network"))
            .to_vec(),
    }
}

fn unix(raw: raw::LinkUnix) -> Option<settings::LinkUnix> {
    Some(settings::LinkUnix {
        listen: raw.listen.value?,
        mode: raw.mode.value?,
    })
}

/// The listeners of `[link]`, by what they speak.
#[derive(Default)]
pub(super) struct Links {
    pub(super) tcp: Option<settings::LinkTcp>,
    pub(super) quic: Option<settings::LinkQuic>,
    pub(super) direct_allow: Vec<Network>,
    pub(super) websocket: Option<settings::LinkWebSocket>,
    pub(super) unix: Option<settings::LinkUnix>,
}

pub(super) fn links(raw: Option<raw::Link>, findings: &mut Findings) -> Links {
    let Some(raw) = raw else {
        return Links {
            direct_allow: direct_allow(None),
            ..Links::default()
        };
    };
    Links {
        tcp: raw.tcp.value.and_then(tcp),
        quic: raw.quic.value.and_then(quic),
        direct_allow: direct_allow(raw.direct.value),
        websocket: raw.websocket.value.and_then(|raw| websocket(raw, findings)),
        unix: raw.unix.value.and_then(unix),
    }
}

/// Returns the tables of those that listen, with their names.
pub(super) fn tables(raw: &raw::Link) -> impl Iterator<Item = (&Header, &'static str)> {
    let websocket = raw.websocket.value.as_ref().filter(|raw| is_listening(raw));
    let tables = [
        raw.tcp.value.as_ref().map(|raw| (raw.header(), "link.tcp")),
        raw.quic.value.as_ref().map(|raw| (raw.header(), "link.quic")),
        websocket.map(|raw| (raw.header(), "link.websocket")),
        raw.unix.value.as_ref().map(|raw| (raw.header(), "link.unix")),
    ];
    tables.into_iter().flatten()
}

fn websocket(raw: raw::LinkWebSocket, findings: &mut Findings) -> Option<settings::LinkWebSocket> {
    let public = raw
        .listen
        .value
        .iter()
        .flatten()
        .find(|item| !item.value.ip().is_loopback());
    if let Some(item) = public.filter(|_| !raw.certificate.is_given()) {
        let draft = Draft::error(format!(
            "`link.websocket` has no certificate, and {} can be reached by other machines",
            item.value
        ))
        .at(item.span.clone(), "this address");
        findings.push(draft.help(
            "add certificate and key, such as an ACME client gets; or listen on 127.0.0.1, behind a proxy that ends TLS",
        ));
    }
    if raw.certificate.is_given() && !is_listening(&raw) && raw.listen.value.is_some() {
        let draft = raw
            .header()
            .warning("`link.websocket.certificate` is not used: nothing listens");
        findings.push(draft.help("add listen = [\"0.0.0.0:443\"], or take certificate and key out"));
    }
    let tls = match raw.certificate.value {
        Some(certificate) => Some((certificate, raw.key.value?)),
        None => None,
    };
    let login = match raw.proxy_username.value {
        Some(username) => Some((username, raw.proxy_password.value?)),
        None => None,
    };
    Some(settings::LinkWebSocket {
        listen: values(raw.listen.value?),
        tls,
        path: raw.path.value?,
        ca: raw.ca.value,
        proxy: raw.proxy.value.map(|address| settings::Proxy { address, login }),
    })
}
