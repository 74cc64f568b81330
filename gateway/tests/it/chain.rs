//! Gateway, relay and collector as three processes made from the example files.

use crate::harness::{
    broker::{Broker, publish, subscribe_by},
    node::{Node, json},
    scrape,
    site::{DEVICE, Site, backend},
};

#[test]
fn a_publish_at_the_gateway_reaches_broker_and_file_behind_the_collector() {
    let mut site = Site::new();
    let broker = Broker::start(site.dir(), site.broker);
    let mut subscriber = subscribe_by(&[], site.broker);
    site.start();

    let publishes = [("mqttv311", "1", "21.5"), ("5", "1", "22.5"), ("5", "0", "23.5")];
    for (index, (version, qos, payload)) in publishes.into_iter().enumerate() {
        let topic = format!("{DEVICE}/temperature");
        let mut arguments = vec!["-V", version, "-q", qos, "-t", &topic, "-m", payload];
        arguments.extend(site.login());
        publish(site.mqtt, &arguments).expect(0);
        let line = subscriber.wait_for("message", |line| {
            line.starts_with("gateway-1/pump-7/temperature ")
                .then(|| line.to_owned())
        });
        assert!(line.ends_with(&format!(" {payload}")), "{line}");
        let at_broker = line
            .split(' ')
            .find_map(|word| word.strip_prefix("fieldgate-id:"));
        let readings = site.wait_readings(index + 1);
        let reading = &readings[index];
        assert_eq!(reading["id"].as_str(), at_broker, "{line} is not {reading}");
        assert_eq!(reading["payload"], payload);
        assert_eq!(reading["device"], DEVICE);
        assert_eq!(reading["resource"], "pump-7/temperature");
        assert_eq!(reading["gateway"], "gateway-1");
        assert_eq!(reading["class"], "normal");
    }

    site.wait_healthy();
    every_node_tells_its_state(&site);
    site.gateway.stop();
    site.collector.stop();
    site.relay.stop();
    broker.stop();
    assert_eq!(site.readings().len(), 3, "nothing came twice while all stopped");
}

fn every_node_tells_its_state(site: &Site) {
    for (node, role) in site.nodes() {
        let printed = node.run(&["status", "--json"]).expect(0);
        let status = json(&printed.out);
        assert_eq!(status["health"], "healthy", "{status:#}");
        assert_eq!(status["name"], node.name.as_str());
        assert_eq!(status["roles"], serde_json::json!([role]));
        let wanted = backend();
        if wanted != "auto" {
            assert_eq!(status["io"]["backend"], wanted.as_str());
        }
        let (code, body) = scrape::get(node.metrics, "/healthz");
        assert_eq!((code, body.as_str()), (200, "healthy\n"));
        assert_eq!(scrape::get(node.metrics, "/else").0, 404);
        assert!(node.samples().sum("fieldgate_healthy") > 0.0);
    }
    let confirmed = [
        ("fieldgate_ingested_readings_total", 3.0),
        ("fieldgate_uplink_confirmed_sequence", 3.0),
    ];
    counts(&site.gateway, &confirmed);
    let delivered = [
        ("fieldgate_delivered_readings_total", 3.0),
        ("fieldgate_sink_confirmed_readings_total", 6.0),
    ];
    counts(&site.collector, &delivered);
    counts(&site.relay, &[("fieldgate_relay_names", 1.0)]);
    assert!(site.relay.samples().sum("fieldgate_relay_forwarded_frames_total") > 0.0);
}

/// Waits until a node counts so much: what has arrived is confirmed a little later.
fn counts(node: &Node, wanted: &[(&str, f64)]) {
    crate::harness::wait::until("counted", || {
        let samples = node.samples();
        for (name, value) in wanted {
            let have = samples.find(name).unwrap_or_default();
            if (have - value).abs() >= f64::EPSILON {
                return Err(format!("{name} is {have}, not {value}"));
            }
        }
        Ok(())
    });
}
