//! The files in `packaging/examples/`, which are what people begin with.

use std::path::{Path, PathBuf};

use fieldgate_config::settings::{Identity, SecretSource, UplinkPath, sink::SinkKind};
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
    names.retain(|name| name.ends_with(".toml"));
    let expected = [
        "authority-cluster.toml",
        "authority.toml",
        "collector-fleet.toml",
        "collector-minimal.toml",
        "collector.toml",
        "gateway-fleet.toml",
        "gateway-listeners.toml",
        "gateway-minimal.toml",
        "gateway.toml",
        "relay-cluster.toml",
        "relay-fleet.toml",
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
        relays.iter().map(|way| &way.relay).collect::<Vec<_>>(),
        [&registration.relay],
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
    for name in [
        "gateway.toml",
        "relay.toml",
        "collector.toml",
        "authority.toml",
        "authority-cluster.toml",
        "relay-cluster.toml",
        "gateway-fleet.toml",
        "relay-fleet.toml",
        "collector-fleet.toml",
    ] {
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
fn the_examples_of_clusters_belong_together() {
    let (authority, relay) = (
        settings("authority-cluster.toml").authority.expect("it is one"),
        settings("relay-cluster.toml"),
    );
    let log = authority.cluster.expect("it is one of several");
    assert!(log.found);
    let role = relay.relay.expect("it is a relay");
    let cluster = role.cluster.expect("it is one of several");
    assert_eq!(log.servers, cluster.store.servers);
    // Relays that the authority registers at are those of the cluster, which let it hold that name and others reach it.
    for registration in &authority.registrations {
        assert!(cluster.relays.contains(&registration.relay));
        assert_eq!(registration.name, "authority");
    }
    let [member] = role.members.as_slice() else {
        panic!("the authority alone is named")
    };
    assert_eq!(
        Some(member.identifier),
        relay.trust.and_then(|trust| trust.authority)
    );
    assert_eq!(member.hold, [NamePattern::Exact("authority".into())]);
}

#[test]
fn the_examples_of_a_fleet_belong_together() {
    let (authority, relay, collector, gateway) = (
        settings("authority.toml"),
        settings("relay-fleet.toml"),
        settings("collector-fleet.toml"),
        settings("gateway-fleet.toml"),
    );
    let link = authority.link_tcp.expect("a listener");
    let authority = authority.authority.expect("an authority");
    let public: Vec<String> = authority.public.iter().map(ToString::to_string).collect();
    let listen: Vec<String> = link.listen.iter().map(ToString::to_string).collect();
    assert_eq!(public, listen, "tickets name where it listens");

    let relay_trust = relay.trust.expect("trust");
    let relay_link = relay.link_tcp.expect("a listener");
    let relay = relay.relay.expect("a relay");
    let [registration] = authority.registrations.as_slice() else {
        panic!("one registration")
    };
    let [member] = relay.members.as_slice() else {
        panic!("nobody but the authority is named")
    };
    assert_eq!(
        relay.open,
        std::slice::from_ref(&registration.name),
        "who enrols reaches it"
    );
    assert_eq!(member.hold, [NamePattern::Exact(registration.name.clone())]);
    assert_eq!(Some(member.identifier), relay_trust.authority);
    assert_eq!(
        relay_link.listen.first().map(ToString::to_string),
        Some(registration.relay.address.to_string())
    );

    let direct = UplinkPath::Direct {
        address: authority.public.first().expect("one").clone().into(),
        also: Vec::new(),
    };
    assert_eq!(relay_trust.path.as_ref(), Some(&direct));
    let collector_trust = collector.trust.expect("trust");
    assert_eq!(collector_trust, relay_trust);
    let collector = collector.collector.expect("a collector");
    assert!(collector.gateways.is_empty(), "credentials say who may deliver");
    let UplinkPath::Relays { via, relays } = &gateway.uplinks.first().expect("one uplink").path else {
        panic!("through a relay")
    };
    let held = collector.registrations.first().expect("one registration");
    assert_eq!(
        (&held.name, &held.relay),
        (via, &relays.first().expect("one relay").relay)
    );
    let trust = gateway.trust.expect("trust");
    assert_eq!((trust.authority, trust.path), (None, None), "the ticket says it");
}

#[test]
fn the_minimal_examples_belong_together() {
    let (gateway, collector) = (
        settings("gateway-minimal.toml"),
        settings("collector-minimal.toml"),
    );
    let UplinkPath::Direct { address, .. } = &gateway.uplinks.first().expect("one uplink").path else {
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
