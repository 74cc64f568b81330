//! Bounds here and in the crates that work with the values are the same.

use std::time::Duration;

use fieldgate_config::settings::Mqtt;
use fieldgate_mqtt::{broker::limits::Limits, settings::Settings};
use fieldgate_proto::{portal::SessionSettings, relay, route};

use crate::load;

/// Returns the listener with one more line, if it is taken.
fn mqtt(line: &str) -> Option<Mqtt> {
    let identity = "[identity]\nfile = 'k'\npassphrase = { env = 'P' }";
    let text = format!("{identity}\n[mqtt]\nanonymous = true\nlisten = ['127.0.0.1:1883']\n{line}\n");
    load(&text).settings.and_then(|settings| settings.mqtt)
}

#[test]
fn mqtt_bounds_are_those_of_the_session() {
    let (timeout, size) = (Settings::CONNECT_TIMEOUT, Settings::MAXIMUM_PACKET_SIZE);
    let (receive, keep_alive) = (Settings::RECEIVE_MAXIMUM, Settings::KEEP_ALIVE_SECS_MAX);
    let bounds: [(&str, u64, u64); 4] = [
        (
            "connect_timeout_secs",
            timeout.start().as_secs(),
            timeout.end().as_secs(),
        ),
        ("packet_bytes_max", (*size.start()).into(), (*size.end()).into()),
        ("receive_max", (*receive.start()).into(), (*receive.end()).into()),
        (
            "keep_alive_max_secs",
            (*keep_alive.start()).into(),
            (*keep_alive.end()).into(),
        ),
    ];
    for (key, min, max) in bounds {
        for (value, is_taken) in [(min - 1, false), (min, true), (max, true), (max + 1, false)] {
            assert_eq!(
                mqtt(&format!("{key} = {value}")).is_some(),
                is_taken,
                "{key} = {value}"
            );
        }
    }
}

#[test]
fn mqtt_defaults_are_those_of_the_session() {
    let (mqtt, session) = (mqtt("").expect("a listener"), Settings::default());
    assert_eq!(mqtt.packet_bytes_max, session.maximum_packet_size());
    let with_defaults = session
        .with_connect_timeout(mqtt.connect_timeout)
        .and_then(|session| session.with_receive_maximum(mqtt.receive_max));
    assert!(with_defaults.is_ok());
    assert_eq!(mqtt.connect_timeout, Duration::from_secs(10));
    assert_eq!(
        mqtt.session_expiry_max.as_secs(),
        u64::from(Settings::default().session_expiry_secs_max())
    );
    let limits = Limits::default();
    assert_eq!(mqtt.subscriptions_max as usize, limits.subscriptions_max);
    assert_eq!(mqtt.queue_messages_max as usize, limits.queue_messages_max);
    assert_eq!(mqtt.queue_bytes_max, limits.queue_bytes_max as u64);
    assert_eq!(mqtt.retained_max as usize, limits.retained_max);
    assert_eq!(mqtt.retained_bytes_max, limits.retained_bytes_max as u64);
    assert_eq!(mqtt.sessions_max, mqtt.clients_max * 2);
}

#[test]
fn relay_defaults_and_limits_are_those_of_the_protocol() {
    let text = "[identity]\nfile = 'k'\npassphrase = { env = 'P' }\n[link.tcp]\n[relay]\n";
    let configured = load(text)
        .settings
        .and_then(|settings| settings.relay)
        .expect("a relay");
    let (relay, router) = (relay::RelaySettings::default(), route::RouterSettings::default());
    assert_eq!(
        usize::from(configured.links_per_member_max),
        relay.links_per_member_max
    );
    assert_eq!(configured.queue_bytes_max as usize, relay.queue_bytes_max);
    assert_eq!(configured.held_bytes_max, relay.held_bytes_max as u64);
    assert_eq!(configured.labels_max as usize, router.labels_max);

    let member = |name: &str| {
        format!("{text}[[relay.member]]\nname = 'm'\nidentifier = '$GATEWAY'\nhold = ['{name}']\n")
    };
    let longest = "n".repeat(route::NAME_LEN_MAX);
    assert!(load(&member(&longest)).settings.is_some());
    assert!(load(&member(&format!("{longest}n"))).settings.is_none());
}

#[test]
fn bounds_of_portals_are_those_of_the_protocol() {
    let identity = "[identity]\nfile = 'k'\npassphrase = { env = 'P' }\n";
    let outlet = |streams: usize| {
        let text = format!(
            "{identity}[link.tcp]\n[[portal.outlet]]\nname = 'o'\naddress = 'p:1'\nallow = ['$OTHER']\nstreams_max = {streams}"
        );
        load(&text).settings.is_some()
    };
    let session = SessionSettings::default();
    assert!(outlet(session.streams_max) && !outlet(session.streams_max + 1));
}
