//! The three examples on three machines: network namespaces, tokens, and nothing to read for whoever listens between them.

use std::net::SocketAddr;

use crate::harness::{
    broker::{Broker, publish_by, subscribe_by},
    network::{Network, Recording, TO_COLLECTOR, TO_GATEWAY},
    node::Node,
    process::{command, run},
    site::{DEVICE, EXAMPLE_METRICS, EXAMPLE_RELAY, Site, placed, private_dir},
    token,
};

#[test]
fn three_machines_with_tokens_deliver_and_the_cables_show_no_plaintext() {
    let network = Network::new();
    let mut site = site(&network);
    let recordings = [TO_GATEWAY, TO_COLLECTOR].map(|cable| network.record(cable, site.dir()));
    let broker = Broker::start_by(&network.on(2), site.dir(), site.broker);
    let mut subscriber = subscribe_by(&network.on(2), site.broker);
    site.start();

    for number in 0..READINGS {
        let (topic, payload) = (
            format!("{DEVICE}/{TOPIC_MARK}"),
            format!("{PAYLOAD_MARK}-{number}"),
        );
        let mut arguments = vec!["-V", "5", "-q", "1", "-t", &topic, "-m", &payload];
        arguments.extend(site.login());
        publish_by(&network.on(0), site.mqtt, &arguments).expect(0);
        let line = subscriber.wait_for("message", |line| {
            (line.starts_with("gateway-1/") && line.ends_with(&payload)).then(|| line.to_owned())
        });
        assert!(
            line.contains(TOPIC_MARK) && line.contains(" fieldgate-id:fg1"),
            "{line}"
        );
    }
    assert_eq!(site.wait_readings(READINGS).len(), READINGS);
    for (node, _) in site.nodes() {
        let status = node.wait_healthy();
        assert_eq!(status["identity"]["key"], "token");
    }
    the_ends_do_not_reach_each_other(&network);
    site.gateway.stop();
    site.collector.stop();
    site.relay.stop();
    broker.stop();
    for recording in recordings {
        shows_traffic_and_no_plaintext(recording, &site.password);
    }
}

/// Lays the example files out on the machines; only paths and identifiers differ from what stands in `packaging/examples`.
fn site(network: &Network) -> Site {
    let dir = private_dir();
    let names = ["gateway-1", "relay-1", "collector-1"];
    let metrics: SocketAddr = EXAMPLE_METRICS.parse().expect("it is an address");
    let nodes = std::array::from_fn(|machine| {
        let mut node = Node::new(dir.path(), names[machine], metrics);
        node.start_by(&network.on(machine));
        node.write_secret("fieldgate-pin", token::PIN.as_bytes());
        token::give(&mut node);
        // As systemd hands credentials to a unit.
        let credentials = node.dir.to_str().expect("the path is text").to_owned();
        node.set_environment("CREDENTIALS_DIRECTORY", &credentials);
        node
    });
    let address = |text: &str| text.parse().expect("it is an address");
    let site = Site::of(
        dir,
        nodes,
        address("10.77.0.1:1883"),
        address(EXAMPLE_RELAY),
        1883,
    );
    for (node, example) in site.nodes() {
        node.write(&placed(example));
    }
    site.collector.edit("/etc/fieldgate/pin", "fieldgate-pin");
    site.finish()
}

fn the_ends_do_not_reach_each_other(network: &Network) {
    let mut words = network.on(0).to_vec();
    words.extend(["ip", "route", "get", "10.77.0.3"]);
    assert_ne!(
        run(&mut command(&words)).code,
        0,
        "there is a way around the relay"
    );
}

fn shows_traffic_and_no_plaintext(recording: Recording, password: &str) {
    let bytes = recording.end();
    // What a recording that works holds in any case: the links' greeting, and the readings, which do not compress.
    assert!(
        holds(&bytes, "FGL1"),
        "the links' greeting is not in {} bytes",
        bytes.len()
    );
    assert!(
        bytes.len() > READINGS * PAYLOAD_MARK.len(),
        "only {} bytes",
        bytes.len()
    );
    for secret in [
        PAYLOAD_MARK,
        TOPIC_MARK,
        DEVICE,
        "temperature",
        "gateway-1",
        password,
    ] {
        assert!(!holds(&bytes, secret), "{secret} stands on the cable");
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Stands in every payload.
const PAYLOAD_MARK: &str = "xylophone-payload-mark-7f3a";
/// Stands in the topic.
const TOPIC_MARK: &str = "temperature-of-the-quince";
/// Messages that are sent.
const READINGS: usize = 10;
