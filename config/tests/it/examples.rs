//! The files in `packaging/examples/`, which are what people begin with.

use std::path::{Path, PathBuf};

use fieldgate_config::settings::{Identity, SecretSource, SinkKind, UplinkPath};
use fieldgate_config::{Colour, load};
use fieldgate_proto::relay::NamePattern;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/examples")
}

fn settings(name: &str) -> fieldgate_config::settings::Settings {
    let loaded = load(&directory().join(name), "host");
    let text = loaded.problems.render_text(Colour::None, 100);
    assert!(loaded.problems.is_empty(), "{text}");
    loaded.settings.expect("no problems")
}

#[test]
fn every_example_is_without_problems() {
    let mut names: Vec<String> = std::fs::read_dir(directory())
        .expect("examples exist")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    let expected = [
        "collector-minimal.toml",
        "collector.toml",
        "gateway-minimal.toml",
        "gateway.toml",
        "relay.toml",
    ];
    assert_eq!(names, expected);
    for name in names {
        settings(&name);
    }
}

#[test]
fn gateway_relay_and_collector_belong_together() {
    let (gateway, relay, collector) = (
        settings("gateway.toml"),
        settings("relay.toml"),
        settings("collector.toml"),
    );

    let [uplink] = gateway.uplinks.as_slice() else {
        panic!("one uplink")
    };
    let UplinkPath::Relays { via, relays } = &uplink.path else {
        panic!("through a relay")
    };
    let [registration] = collector
        .collector
        .as_ref()
        .expect("a collector")
        .registrations
        .as_slice()
    else {
        panic!("one registration")
    };
    assert_eq!(
        &registration.name, via,
        "the gateway looks for the name the collector registers"
    );
    assert_eq!(
        relays.as_slice(),
        std::slice::from_ref(&registration.relay),
        "both use the same relay"
    );

    let listen = &relay.link_tcp.as_ref().expect("a listener").listen;
    let address = &registration.relay.address;
    assert_eq!(
        listen.first().map(ToString::to_string),
        Some(address.to_string()),
        "the relay listens there"
    );

    let members = &relay.relay.as_ref().expect("a relay").members;
    let holder = members
        .iter()
        .find(|member| member.identifier == uplink.collector)
        .expect("the collector");
    let exactly = [NamePattern::Exact(via.clone())];
    assert_eq!(holder.hold, exactly);
    let known = &collector.collector.as_ref().expect("a collector").gateways;
    let sender = members
        .iter()
        .find(|member| member.identifier != uplink.collector)
        .expect("the gateway");
    assert_eq!(sender.reach, exactly);
    assert_eq!(
        known.first().map(|gateway| gateway.identifier),
        Some(sender.identifier)
    );
}

#[test]
fn the_big_examples_keep_their_keys_in_tokens() {
    for name in ["gateway.toml", "relay.toml", "collector.toml"] {
        let Identity::Pkcs11 { uri, pin, .. } = settings(name).identity else {
            panic!("{name}: no token")
        };
        assert!(uri.starts_with("pkcs11:token=fieldgate;object="), "{name}");
        assert!(
            matches!(pin, SecretSource::Credential(_) | SecretSource::File(_)),
            "{name}"
        );
    }
}

#[test]
fn the_minimal_examples_belong_together() {
    let (gateway, collector) = (
        settings("gateway-minimal.toml"),
        settings("collector-minimal.toml"),
    );
    let UplinkPath::Direct { address } = &gateway.uplinks.first().expect("one uplink").path else {
        panic!("direct")
    };
    let listen = &collector.link_tcp.as_ref().expect("a listener").listen;
    assert_eq!(listen.first().map(ToString::to_string), Some(address.to_string()));
    assert_eq!(
        collector
            .collector
            .expect("a collector")
            .sinks
            .first()
            .map(|sink| sink.kind.clone()),
        Some(SinkKind::Stdout)
    );
    assert_ne!(gateway.node.state_dir, collector.node.state_dir);
    assert_ne!(gateway.node.control_socket, collector.node.control_socket);
}
