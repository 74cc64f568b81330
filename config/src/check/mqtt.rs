//! `[mqtt]`.

use std::net::{Ipv4Addr, SocketAddr};

mod listeners;

use super::{Unique, values};
use crate::problem::Findings;
use crate::raw;
use crate::reader::{Field, Item, RawTable};
use crate::settings;

pub(super) fn mqtt(raw: raw::Mqtt, findings: &mut Findings) -> Option<settings::Mqtt> {
    check_listen(&raw, findings);
    check_anonymous(&raw, findings);
    listeners::check_proofs(&raw, findings);
    let devices = devices(raw.device, findings);
    let others = raw.tls.is_given() || raw.psk.is_given() || raw.websocket.is_given();
    let clients_max = raw.clients_max.value;
    let sessions_max = match raw.sessions_max.value {
        None if raw.sessions_max.span.is_some() => None,
        None => clients_max.map(|clients| clients.saturating_mul(2)),
        some => some,
    };
    let listen = match raw.listen.value {
        Some(listen) => values(listen),
        None if raw.listen.span.is_some() => return None,
        None if others => Vec::new(),
        None => vec![DEFAULT_LISTEN],
    };
    Some(settings::Mqtt {
        listen,
        tls: raw.tls.value.and_then(listeners::tls),
        psk: raw.psk.value.and_then(listeners::psk),
        websocket: raw.websocket.value.and_then(listeners::websocket),
        anonymous: raw.anonymous.value?,
        latency: raw.latency_ms.value?,
        clients_max: raw.clients_max.value?,
        packet_bytes_max: raw.packet_bytes_max.value?,
        receive_max: raw.receive_max.value?,
        keep_alive_max: raw.keep_alive_max_secs.value?,
        connect_timeout: raw.connect_timeout_secs.value?,
        alarm_topics: values(raw.alarm_topics.value?),
        command_topic: raw.command_topic.value?,
        local_topics: values(raw.local_topics.value?),
        sessions_max: sessions_max?,
        session_expiry_max: raw.session_expiry_max_secs.value?,
        subscriptions_max: raw.subscriptions_max.value?,
        queue_messages_max: raw.queue_messages_max.value?,
        queue_bytes_max: raw.queue_bytes_max.value?,
        slow_consumer: raw.slow_consumer.value?,
        retained_max: raw.retained_max.value?,
        retained_bytes_max: raw.retained_bytes_max.value?,
        connects_per_second_max: raw.connects_per_second_max.value?,
        devices: devices?,
    })
}

fn check_listen(raw: &raw::Mqtt, findings: &mut Findings) {
    let others = raw.tls.is_given() || raw.psk.is_given() || raw.websocket.is_given();
    if raw.listen.value.as_ref().is_some_and(Vec::is_empty) && !others {
        let draft = raw.listen.error(
            "`mqtt.listen` is empty and there is no `[mqtt.tls]`, `[mqtt.psk]` or `[mqtt.websocket]`: no device could connect",
        );
        findings.push(draft.help("add an address, such as \"0.0.0.0:1883\", or add [mqtt.tls]"));
    }
    if let Some(websocket) = raw.websocket.value.as_ref()
        && websocket.listen.value.as_ref().is_some_and(Vec::is_empty)
        && !websocket.tls.is_given()
    {
        let draft = websocket
            .listen
            .error("`mqtt.websocket.listen` is empty and there is no `[mqtt.websocket.tls]`: no device could connect");
        findings.push(draft.help("add an address, such as \"0.0.0.0:8083\", or add [mqtt.websocket.tls]"));
    }
}

/// Sees to it that only somebody who says so in as many words lets everybody write.
fn check_anonymous(raw: &raw::Mqtt, findings: &mut Findings) {
    let is_anonymous = raw.anonymous.value == Some(true);
    let is_dangerous = raw.dangerous_anonymous.value == Some(true);
    if is_dangerous && is_anonymous {
        let draft = raw
            .dangerous_anonymous
            .warning("`mqtt.dangerous_anonymous` is true: whoever reaches the port can write anything");
        findings.push(
            draft.help("give each device a [[mqtt.device]] with a password of its own, and take it out"),
        );
    } else if is_dangerous {
        let draft = raw
            .dangerous_anonymous
            .warning("`mqtt.dangerous_anonymous` does nothing without `anonymous = true`");
        findings.push(draft.help("take it out"));
    } else if is_anonymous {
        if let Some((address, span)) = first_open_address(raw) {
            let draft = raw
                .anonymous
                .error(format!("`mqtt.anonymous` is true and {address} can be reached by others: anybody could write anything"))
                .at(span, "this address");
            findings.push(draft.help(
                "give each device a [[mqtt.device]] with a password of its own; or listen on 127.0.0.1 only; or add \
                 dangerous_anonymous = true",
            ));
        }
    } else if raw.anonymous.value == Some(false) && !raw.device.is_given() {
        let draft = raw
            .header()
            .error("there is no `[[mqtt.device]]` and `mqtt.anonymous` is false: no device could connect");
        findings.push(draft.help(
            "add a [[mqtt.device]] with name and password_hash for each device; or anonymous = true with \
             listen = [\"127.0.0.1:1883\"]",
        ));
    }
}

type Place = Option<std::ops::Range<usize>>;

fn first_open_address(raw: &raw::Mqtt) -> Option<(SocketAddr, Place)> {
    let explicit = listeners::without_proof(raw)
        .into_iter()
        .flatten()
        .flatten()
        .find(|item| !item.value.ip().is_loopback());
    let is_default =
        !(raw.listen.is_given() || raw.tls.is_given() || raw.psk.is_given() || raw.websocket.is_given());
    let websocket = raw.websocket.value.as_ref();
    let is_websocket_default =
        websocket.is_some_and(|websocket| !(websocket.listen.is_given() || websocket.tls.is_given()));
    explicit
        .map(|item| (item.value, item.span.clone()))
        .or_else(|| is_default.then_some((DEFAULT_LISTEN, None)))
        .or_else(|| is_websocket_default.then_some((listeners::DEFAULT_WEBSOCKET_LISTEN, None)))
}

fn devices(field: Field<Vec<raw::Device>>, findings: &mut Findings) -> Option<Vec<settings::Device>> {
    let raws = field.value.unwrap_or_default();
    let mut names = Unique::new("the name of a device", "give each device a name of its own");
    let mut usernames = Unique::new(
        "the user name of a device",
        "give each device a user name of its own; without `username` it is the name of the device",
    );
    for raw in &raws {
        let name = raw.name.value.as_ref();
        let is_new = name.is_none_or(|name| names.add(name, raw.name.place(), findings));
        // The name stands for the user name; if it repeats, that has been said.
        let login = if raw.username.is_given() {
            Some(&raw.username)
        } else {
            Some(&raw.name).filter(|_| is_new && raw.password_hash.is_given())
        };
        if let Some((login, username)) =
            login.and_then(|login| login.value.as_ref().map(|value| (login, value)))
        {
            usernames.add(username, login.place(), findings);
        }
    }
    // All of them, or none: a refused device makes the file an error.
    raws.into_iter().map(device).collect()
}

fn device(raw: raw::Device) -> Option<settings::Device> {
    let name = raw.name.value?;
    let filters = |items: Vec<Item<String>>| -> Vec<String> {
        items
            .into_iter()
            .map(|item| item.value.replace("{device}", &name))
            .collect()
    };
    let publish = match raw.publish.value {
        Some(items) => filters(items),
        None => vec![format!("{name}/#")],
    };
    let subscribe = match raw.subscribe.value {
        Some(items) => filters(items),
        None => publish.clone(),
    };
    Some(settings::Device {
        username: raw.username.value.unwrap_or_else(|| name.clone()),
        password_hash: raw.password_hash.value,
        certificate: raw.certificate.value.and_then(listeners::certificate),
        psk: raw.psk.value.and_then(listeners::device_psk),
        publish,
        subscribe,
        name,
    })
}

/// What `listen` is without the key and without TLS.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1883);
