//! The sinks of a collector with what is behind them in the world: killed, restarted, full, refusing, restored from a backup.

use std::{net::SocketAddr, ops::Range, path::PathBuf};

use fieldgate_mqtt::{reason::ReasonCode, version::ProtocolVersion};
use serde_json::Value;

use crate::harness::{
    client::{Client, Received},
    node::Node,
    site::{DEVICE, Site},
};

mod files;
mod http;
mod http_server;
mod mqtt;
mod nats;
pub(crate) mod nats_server;

/// The example site whose collector has these sinks and no others.
fn site_with(sinks: &str) -> Site {
    let site = Site::new().without_broker();
    site.collector.edit(
        "[[collector.sink]]\nkind = \"file\"\npath = \"readings.jsonl\"\n",
        sinks,
    );
    site
}

/// A sink that takes nothing: a broker that is not there. While it is one of several, gateways keep every reading.
fn absent_broker(site: &Site) -> String {
    format!(
        "[[collector.sink]]\nkind = \"mqtt\"\nname = \"absent\"\naddress = \"127.0.0.1:{}\"\n",
        site.broker
    )
}

/// Publishes numbers as the device and waits for each acknowledgement.
fn publish_numbers(site: &Site, numbers: Range<u32>) {
    publish_each(site, numbers.map(|number| number.to_string()));
}

fn publish_each(site: &Site, payloads: impl IntoIterator<Item = String>) {
    let to: SocketAddr = site.mqtt;
    let login = Some((DEVICE, site.password.as_str()));
    let mut client =
        Client::connect(to, ProtocolVersion::V5, DEVICE, login).expect("the gateway takes the device");
    let topic = format!("{DEVICE}/count");
    for (packet, payload) in (1..).zip(payloads) {
        let answer = client.publish_and_wait(packet, &topic, payload.as_bytes());
        assert_eq!(
            answer.expect("the socket works"),
            Received::PubAck(packet, ReasonCode::Success)
        );
    }
}

/// Waits until the gateway has nothing left.
fn wait_drained(site: &Site) {
    site.gateway
        .wait_status("journal drained", |status| status["journal"]["readings"] == 0);
}

/// Waits until the collector's sink number `index` is as wanted.
fn wait_sink(collector: &Node, index: usize, what: &str, mut want: impl FnMut(&Value) -> bool) -> Value {
    let status = collector.wait_status(what, |status| want(&status["sinks"][index]));
    status["sinks"][index].clone()
}

/// Where a sink of this name keeps how far it is.
fn positions_file(site: &Site, name: &str) -> PathBuf {
    site.collector
        .dir
        .join(format!("state/collector/sink-{name}.positions"))
}

/// Asserts that these are the numbers from 0 on, each once; in whatever order.
fn assert_each_once(mut payloads: Vec<String>, count: u32) {
    payloads.sort_by_key(|payload| payload.parse::<u32>().unwrap_or(u32::MAX));
    let wanted: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert_eq!(payloads, wanted);
}
