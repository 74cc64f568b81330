//! `fieldgate demo`.

use std::{collections::BTreeSet, net::SocketAddr, net::TcpListener, path::PathBuf};

use rustix::process::Signal;

use crate::harness::{
    broker::publish,
    node::{json, text},
    process::{Process, fieldgate, run},
    site::private_dir,
};

/// A demo that runs, and what its first line says.
struct Demo {
    process: Process,
    mqtt: SocketAddr,
    dir: PathBuf,
    path: [String; 3],
}

/// Returns what a line says. Warnings, which a slow machine brings about, are no events.
fn event(line: &str) -> Option<serde_json::Value> {
    line.starts_with('{').then(|| json(line))
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Process::spawn("demo", fieldgate(["demo", "--json"]).args(arguments));
        let ready = process.wait_for("first line", event);
        assert_eq!(ready["event"], "ready", "{ready}");
        Self {
            mqtt: text(&ready, "mqtt").parse().expect("it is an address"),
            dir: text(&ready, "dir").into(),
            path: ["gateway", "relay", "collector"].map(|role| text(&ready, role)),
            process,
        }
    }

    fn reading(&mut self) -> serde_json::Value {
        self.process.wait_for("reading", |line| {
            event(line).filter(|value| value["event"] == "reading")
        })
    }

    /// Ends it as Ctrl-C does.
    fn interrupt(mut self) {
        self.process.signal(Signal::INT);
        let status = self.process.wait();
        assert_eq!(status.code(), Some(0), "{}", self.process.printed());
        assert!(!self.dir.exists(), "{} is still there", self.dir.display());
    }
}

#[test]
fn readings_of_both_versions_and_qualities_appear_with_the_path_they_took() {
    let mut demo = Demo::start(&["--mqtt", "127.0.0.1:0"]);
    assert!(demo.mqtt.ip().is_loopback() && demo.mqtt.port() != 0);
    assert!(demo.dir.exists());
    for (version, qos) in [("mqttv311", "0"), ("mqttv311", "1"), ("5", "0"), ("5", "1")] {
        let payload = format!("{version}-{qos}");
        let topic = ["-i", "press-1", "-t", "press-1/temperature"];
        let mut arguments = vec!["-V", version, "-q", qos, "-m", &payload];
        arguments.extend(topic);
        publish(demo.mqtt, &arguments).expect(0);
        let reading = demo.reading();
        assert_eq!(reading["payload"], payload.as_str());
        assert_eq!(reading["device"], "press-1");
        assert_eq!(reading["resource"], "press-1/temperature");
        let path = reading["path"].as_array().expect("it is a list");
        assert_eq!(path.len(), 3, "gateway, relay, collector: {reading}");
        assert!(
            path[1].as_str().is_some_and(|relay| relay.contains("relay")),
            "{reading}"
        );
        assert!(reading["captured_at"].is_string() && reading["id"].is_string());
    }
    // The three nodes prove themselves with three identities.
    let different: BTreeSet<_> = demo.path.iter().filter(|id| id.starts_with("fg1")).collect();
    assert_eq!(different.len(), 3);
    demo.interrupt();
}

#[test]
fn simulated_devices_publish_by_themselves() {
    let mut demo = Demo::start(&["--mqtt", "127.0.0.1:0", "--simulate", "3"]);
    let mut devices = BTreeSet::new();
    while devices.len() < 3 {
        let reading = demo.reading();
        let device = text(&reading, "device");
        assert_eq!(reading["resource"], format!("{device}/temperature"));
        devices.insert(device);
    }
    assert!(devices.iter().eq(["sim-1", "sim-2", "sim-3"]), "{devices:?}");
    demo.interrupt();
}

#[test]
fn a_taken_port_that_was_asked_for_is_an_error_that_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let ended = run(&mut fieldgate(["demo", "--mqtt", &address])).expect(1);
    assert!(
        ended.err.contains(&address) && ended.err.contains("help:"),
        "{}",
        ended.err
    );
}

#[test]
fn without_a_wish_a_taken_standard_port_is_no_obstacle() {
    // Taken by this test, or by whoever has it already.
    let _taken = TcpListener::bind("127.0.0.1:1883");
    let demo = Demo::start(&[]);
    assert_ne!(demo.mqtt.port(), 1883);
    demo.interrupt();
}

#[test]
fn an_address_that_others_reach_is_refused() {
    let ended = run(&mut fieldgate(["demo", "--mqtt", "0.0.0.0:1883"])).expect(2);
    assert!(ended.err.contains("not a loopback address"), "{}", ended.err);
}

#[test]
fn a_directory_that_was_named_stays() {
    let dir = private_dir();
    let path = dir.path().join("demo");
    let name = path.to_str().expect("the path is text");
    let mut demo = Demo::start(&["--mqtt", "127.0.0.1:0", "--dir", name]);
    demo.process.signal(Signal::TERM);
    assert_eq!(demo.process.wait().code(), Some(0));
    assert!(path.join("demo-gateway/journal").is_dir());
}
