//! `[link]`.

use super::values;
use crate::problem::{Draft, Findings};
use crate::raw;
use crate::reader::RawTable;
use crate::settings;

/// Whether other nodes can connect here.
pub(super) fn listens(raw: &raw::Link) -> bool {
    raw.tcp.is_given() || raw.websocket.value.as_ref().is_some_and(is_listening)
}

/// Whether other nodes can connect here over WebSockets.
pub(super) fn is_listening(raw: &raw::LinkWebSocket) -> bool {
    raw.listen.value.as_ref().is_some_and(|listen| !listen.is_empty())
}

pub(super) fn tcp(raw: raw::LinkTcp) -> Option<settings::LinkTcp> {
    Some(settings::LinkTcp {
        listen: values(raw.listen.value?),
    })
}

pub(super) fn websocket(raw: raw::LinkWebSocket, findings: &mut Findings) -> Option<settings::LinkWebSocket> {
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
