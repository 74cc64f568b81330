//! What is not as it should be between gateway and collector: devices notice nothing, operators are told.

use serde_json::Value;

use crate::harness::{
    broker::{Broker, publish, subscribe_by},
    node::Node,
    scrape,
    site::{DEVICE, Site},
};

#[test]
fn with_the_relay_away_readings_wait_in_the_journal_and_are_delivered_when_it_comes() {
    let mut site = Site::new().without_broker();
    site.collector.start();
    site.gateway.start();
    publish_numbers(&site, 0..5);
    let status = wait_degraded(&site.gateway, "uplink plant");
    assert_eq!(status["journal"]["readings"], 5);
    assert_eq!(status["journal"]["state"], "ready");
    assert_eq!(status["uplinks"][0]["waiting"], 5);
    assert_ne!(status["uplinks"][0]["state"], "delivering");
    let (code, body) = scrape::get(site.gateway.metrics, "/healthz");
    assert!(code == 503 && body.contains("uplink plant"), "{code} {body}");
    let samples = site.gateway.samples();
    assert!(samples.sum("fieldgate_uplink_up") == 0.0 && samples.sum("fieldgate_healthy") == 0.0);
    assert!(samples.sum("fieldgate_journal_readings") == 5.0);
    let shown = site.gateway.run(&["status"]).expect(0);
    assert!(
        shown.out.contains("DEGRADED") && shown.out.contains("  ! uplink plant"),
        "{}",
        shown.out
    );

    site.relay.start();
    delivers(&site, 5);
}

#[test]
fn readings_wait_while_the_gateway_runs_without_any_neighbour_and_over_its_restart() {
    let mut site = Site::new().without_broker();
    site.gateway.start();
    publish_numbers(&site, 0..3);
    site.gateway.stop();
    site.gateway.start();
    publish_numbers(&site, 3..6);
    site.gateway.kill();
    site.gateway.start();
    assert_eq!(site.gateway.status()["journal"]["readings"], 6);
    site.relay.start();
    site.collector.start();
    delivers(&site, 6);
}

#[test]
fn a_collector_other_than_the_file_names_gets_nothing() {
    let mut site = Site::new().without_broker();
    let collector = site.collector.identifier();
    site.gateway.edit(
        &format!("collector = \"{collector}\""),
        &format!("collector = \"{NOBODY}\""),
    );
    site.start();
    publish_numbers(&site, 0..2);
    wait_degraded(&site.gateway, "uplink plant");
    // The collector has said nothing to it, and keeps its own registration.
    site.collector.wait_healthy();
    assert_eq!(site.readings().len(), 0);

    site.gateway.stop();
    site.gateway.edit(NOBODY, &collector);
    site.gateway.start();
    delivers(&site, 2);
}

#[test]
fn a_gateway_that_is_no_member_of_the_relay_gets_nowhere_and_keeps_its_readings() {
    let mut site = Site::new().without_broker();
    let gateway = site.gateway.identifier();
    site.relay.edit(&gateway, NOBODY);
    site.start();
    publish_numbers(&site, 0..2);
    wait_degraded(&site.gateway, "uplink plant");
    site.relay.wait_healthy();
    assert_eq!(site.readings().len(), 0);

    site.relay.stop();
    site.relay.edit(NOBODY, &gateway);
    site.relay.start();
    delivers(&site, 2);
}

#[test]
fn a_gateway_that_the_collector_does_not_know_keeps_its_readings() {
    let mut site = Site::new().without_broker();
    let gateway = site.gateway.identifier();
    site.collector.edit(&gateway, NOBODY);
    site.start();
    publish_numbers(&site, 0..2);
    wait_degraded(&site.gateway, "uplink plant");
    assert_eq!(site.readings().len(), 0);

    site.collector.stop();
    site.collector.edit(NOBODY, &gateway);
    site.collector.start();
    delivers(&site, 2);
}

#[test]
fn a_broker_that_is_away_is_told_and_holds_readings_back_until_it_comes() {
    let mut site = Site::new();
    site.start();
    publish_numbers(&site, 0..3);
    let status = wait_degraded(&site.collector, "not reachable");
    assert_eq!(status["sinks"][0]["reachable"], false);
    // The file has them; custody stays with the gateway until the broker has them, too.
    assert_eq!(site.wait_readings(3).len(), 3);
    assert_eq!(site.gateway.status()["journal"]["readings"], 3);

    let broker = Broker::start(site.dir(), site.broker);
    site.gateway
        .wait_status("journal released", |status| status["journal"]["readings"] == 0);
    site.wait_healthy();
    assert_eq!(site.readings().len(), 3, "the file has none twice");
    broker.stop();
}

#[test]
fn a_collector_killed_before_its_broker_was_there_brings_everything_to_the_broker() {
    let mut site = Site::new();
    site.start();
    publish_numbers(&site, 0..3);
    site.wait_readings(3);
    // The file has them and says so; nothing was ever written down for the broker.
    site.collector.kill();
    let broker = Broker::start(site.dir(), site.broker);
    let mut subscriber = subscribe_by(&[], site.broker);
    site.collector.start();
    for number in 0..3 {
        subscriber.wait_for(&format!("reading {number}"), |line| {
            (line.starts_with("gateway-1/") && line.ends_with(&format!(" {number}"))).then_some(())
        });
    }
    site.gateway
        .wait_status("journal released", |status| status["journal"]["readings"] == 0);
    assert_eq!(site.readings().len(), 3, "the file has none twice");
    broker.stop();
}

fn publish_numbers(site: &Site, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let (topic, payload) = (format!("{DEVICE}/count"), number.to_string());
        let mut arguments = vec!["-q", "1", "-t", &topic, "-m", &payload];
        arguments.extend(site.login());
        publish(site.mqtt, &arguments).expect(0);
    }
}

/// Waits until the node says that it is degraded, with `reason` among the reasons.
fn wait_degraded(node: &Node, reason: &str) -> Value {
    node.wait_status(&format!("{} degraded: {reason}", node.name), |status| {
        let reasons = status["reasons"].as_array().map_or(&[][..], Vec::as_slice);
        let named = reasons
            .iter()
            .any(|given| given.as_str().is_some_and(|given| given.contains(reason)));
        status["health"] == "degraded" && named
    })
}

/// Waits until `count` readings came out, in order and once, and all three nodes are healthy.
fn delivers(site: &Site, count: usize) {
    let readings = site.wait_readings(count);
    let payloads: Vec<_> = readings
        .iter()
        .map(|reading| reading["payload"].as_str())
        .collect();
    let wanted: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert!(
        payloads
            .iter()
            .copied()
            .eq(wanted.iter().map(|number| Some(number.as_str()))),
        "{payloads:?}"
    );
    site.gateway
        .wait_status("journal released", |status| status["journal"]["readings"] == 0);
    site.wait_healthy();
    assert_eq!(site.readings().len(), count, "none came twice");
}

/// A well-formed identifier that belongs to nobody.
const NOBODY: &str = "fg1d582kw6m4ndcxy0lgpxzg9464jwwsrrw5xgcxgq5fshccu9qqqvqymxy6r";
