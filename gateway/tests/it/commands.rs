//! Commands from the collector to a device behind the gateway, with real processes and a stock client as the device.

use std::{fs, net::SocketAddr, path::Path};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    broker::{Broker, publish, subscribe_by},
    node::{Node, json},
    process::{CLIENT_TIME, Ended, Process, command, fieldgate, run},
    site::{DEVICE, Site},
    trusted::Trusted,
    wait::until,
};

/// A site whose gateway lets its collector command its devices.
fn site() -> Site {
    let site = Site::new().without_broker();
    site.gateway.edit("[[uplink]]\n", "[[uplink]]\ncommands = true\n");
    site
}

/// The device of the site, subscribed to its commands.
fn device(site: &Site, version: &str, mode: &str) -> Process {
    device_at(site.mqtt, &site.password, version, mode)
}

fn device_at(mqtt: SocketAddr, password: &str, version: &str, mode: &str) -> Process {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join("../target/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run `cargo xtask setup`, which installs paho-mqtt there",
        python.display()
    );
    let mut paho = command(&[python.to_str().expect("the path is text")]);
    paho.arg(here.join("tests/it/device.py"));
    paho.args([mqtt.ip().to_string(), mqtt.port().to_string()]);
    paho.args([version, DEVICE, password, mode]);
    let mut device = Process::spawn("device", &mut paho);
    device.wait_for_text("subscribed");
    device
}

fn send(site: &Site, more: &[&str]) -> Ended {
    send_from(&site.collector, DEVICE, more)
}

fn send_from(collector: &Node, device: &str, more: &[&str]) -> Ended {
    let mut words = vec!["command", "send", "--gateway", "gateway-1", "--device", device];
    words.extend(["--resource", "valve"]);
    if !more.contains(&"--deadline") {
        words.extend(["--deadline", "5min"]);
    }
    words.extend(more);
    collector.run(&words)
}

/// Ends a device and waits until its gateway knows: what is handed to one that has just gone is not known to be without effect.
fn end(gateway: &Node, mut device: Process) {
    device.stop();
    gateway.wait_status("the device gone", |status| status["mqtt"]["connected"] == 0);
}

/// The commands that the collector knows.
fn list(collector: &Node) -> Vec<Value> {
    let listed = collector.run(&["command", "list", "--json"]).expect(0);
    let Value::Array(commands) = json(&listed.out) else {
        panic!("no list: {}", listed.out);
    };
    commands
}

fn wait_state(collector: &Node, id: &str, wanted: &str) {
    until(&format!("command {id} to be {wanted}"), || {
        let commands = list(collector);
        let command = commands.iter().find(|command| command["id"] == id);
        match command {
            Some(command) if command["state"] == wanted => Ok(()),
            other => Err(format!("it is {other:?}")),
        }
    });
}

#[test]
fn commands_reach_devices_of_both_versions_and_answers_come_back() {
    let mut site = site();
    site.start();
    site.wait_healthy();
    let mut answering = device(&site, "5", "answer");
    let sent = send(&site, &["--payload", "open", "--answer", "--wait"]).expect(0);
    assert_eq!(sent.out, "done: open\n");
    let id = list(&site.collector)[0]["id"].as_str().expect("an id").to_owned();
    let shown = site.collector.run(&["command", "show", &id]).expect(0);
    assert!(shown.out.contains("\nanswer     done: open\n"), "{shown:?}");
    answering.wait_for_text("command: pump-7/command/valve open");

    // What may be handed over once is acknowledged all the same, and this device speaks both languages.
    let words = ["--payload", "shut", "--at-most-once", "--wait"];
    assert_eq!(send(&site, &words).expect(0).out, "delivered\n");
    answering.stop();

    let mut old = device(&site, "4", "ack");
    let words = ["--payload", "half", "--answer", "--wait"];
    // A device of MQTT 3.1.1 cannot answer: that it has acknowledged is the end.
    assert_eq!(send(&site, &words).expect(0).out, "delivered\n");
    old.wait_for_text("command: pump-7/command/valve half");
    end(&site.gateway, old);

    // No device, and a deadline.
    let ended = send(&site, &["--payload", "late", "--deadline", "1s", "--wait"]).expect(1);
    assert!(ended.err.contains("expired"), "{ended:?}");
    let words = [
        "command",
        "send",
        "--gateway",
        "gateway-1",
        "--device",
        "nobody",
        "--wait",
    ];
    let ended = site.collector.run(&words).expect(1);
    assert!(ended.err.contains("unknown_device"), "{ended:?}");
    let words = ["command", "send", "--gateway", "elsewhere", "--device", DEVICE];
    let ended = site.collector.run(&words).expect(1);
    assert!(ended.err.contains("no gateway is called elsewhere"), "{ended:?}");

    assert!(site.readings().is_empty(), "answers are no readings");
    let states: Vec<Value> = list(&site.collector)
        .iter()
        .map(|command| command["state"].clone())
        .collect();
    assert_eq!(
        states,
        ["answered", "delivered", "delivered", "expired", "unknown_device"]
    );
    let listed = site.collector.run(&["command", "list"]).expect(0).out;
    let mut lines = listed.lines();
    assert!(
        lines.next().is_some_and(|head| head.starts_with("ID  ")),
        "{listed}"
    );
    let first = lines.next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    assert_eq!(
        &words[2..],
        ["gateway-1", DEVICE, "valve", "answered"],
        "{listed}"
    );
}

#[test]
fn a_command_waits_for_a_sleeping_device_and_survives_the_gateway() {
    let mut site = site();
    site.start();
    site.wait_healthy();
    let sent = send(&site, &["--payload", "wake", "--deadline", "5min"]).expect(0);
    let id = sent.out.trim().to_owned();
    wait_state(&site.collector, &id, "queued");
    let gone = send(&site, &["--payload", "never", "--deadline", "5min"]).expect(0);
    let gone = gone.out.trim().to_owned();
    wait_state(&site.collector, &gone, "queued");
    site.collector.run(&["command", "cancel", &gone]).expect(0);
    wait_state(&site.collector, &gone, "cancelled");

    site.gateway.kill();
    site.gateway.spawn();
    site.gateway.wait_ready();
    let mut device = device(&site, "5", "ack");
    device.wait_for_text("command: pump-7/command/valve wake");
    wait_state(&site.collector, &id, "delivered");
    assert_eq!(device.printed().matches("command:").count(), 1);
}

#[test]
fn a_command_at_most_once_is_not_repeated_after_crashes_of_both_sides() {
    let mut site = site();
    site.start();
    site.wait_healthy();
    let mut silent = device(&site, "5", "silent");
    let once = send(
        &site,
        &["--payload", "once", "--at-most-once", "--deadline", "5min"],
    )
    .expect(0);
    let once = once.out.trim().to_owned();
    silent.wait_for_text("command: pump-7/command/valve once");
    site.gateway.kill();
    site.collector.kill();
    silent.stop();
    site.collector.spawn();
    site.gateway.spawn();
    site.collector.wait_ready();
    site.gateway.wait_ready();
    let mut again = device(&site, "5", "ack");
    // What comes behind it shows that it would have come.
    let words = ["--payload", "next", "--wait", "--deadline", "1min"];
    assert_eq!(send(&site, &words).expect(0).out, "delivered\n");
    again.wait_for_text("command: pump-7/command/valve next");
    assert_eq!(
        again.printed().matches("command:").count(),
        1,
        "{}",
        again.printed()
    );
    wait_state(&site.collector, &once, "unconfirmed");
}

#[test]
fn nobody_commands_a_device_whose_gateway_has_not_granted_it() {
    let mut site = Site::new().without_broker();
    site.start();
    site.wait_healthy();
    let mut device = device(&site, "5", "ack");
    let refused = send(&site, &["--payload", "open", "--wait"]).expect(1);
    assert!(refused.err.contains("not_authorised"), "{refused:?}");
    assert!(!device.printed().contains("command:"));
    let elsewhere = site.gateway.run(&["command", "list"]).expect(1);
    assert!(
        elsewhere.err.contains("this node is no collector"),
        "{elsewhere:?}"
    );
    device.stop();
}

#[test]
fn the_gateways_policy_decides_by_device_and_again_when_it_changes() {
    let mut fleet = Trusted::new();
    fleet
        .gateway
        .edit("[trust]\n", "[trust]\npolicy = \"policy.cedar\"\n");
    write_policy(&fleet.gateway, PUMP_7_ONLY);
    fleet.create();
    fleet.start(&[]);
    fleet.gateway.wait_healthy();
    let device = device_at(fleet.mqtt, "", "5", "ack");
    let words = ["--payload", "open", "--wait"];
    assert_eq!(
        send_from(&fleet.collector, DEVICE, &words).expect(0).out,
        "delivered\n"
    );
    let refused = send_from(&fleet.collector, "pump-8", &words).expect(1);
    assert!(refused.err.contains("not_authorised"), "{refused:?}");
    end(&fleet.gateway, device);

    // What waits for its device is judged by the policy of the moment in which it could be handed over.
    let waits = send_from(
        &fleet.collector,
        DEVICE,
        &["--payload", "later", "--deadline", "5min"],
    )
    .expect(0);
    let waits = waits.out.trim().to_owned();
    wait_state(&fleet.collector, &waits, "queued");
    write_policy(&fleet.gateway, "");
    fleet.gateway.process().signal(Signal::HUP);
    fleet.gateway.process().wait_for_text("policy read again");
    let mut device = device_at(fleet.mqtt, "", "5", "ack");
    wait_state(&fleet.collector, &waits, "not_authorised");
    assert!(!device.printed().contains("command:"));
    device.stop();
}

/// Puts the built-in policy and `rules` in use.
fn write_policy(node: &Node, rules: &str) {
    let built_in = run(&mut fieldgate(["policy", "show"])).expect(0).out;
    fs::write(node.dir.join("policy.cedar"), built_in + rules).expect("the directory is ours");
}

/// The gateway's file calls its collector by the name of the uplink.
const PUMP_7_ONLY: &str = "permit (principal, action == Fieldgate::Action::\"command\", resource)\n\
    when { principal.member && principal.name == \"plant\" && resource.name == \"pump-7\" };\n";

/// A site with a broker that brings its collector commands.
fn broker_site(protocol: &str) -> (Site, Broker) {
    let site = Site::new();
    site.gateway.edit("[[uplink]]\n", "[[uplink]]\ncommands = true\n");
    let sink = "kind = \"mqtt\"\n";
    let with_commands = format!("{sink}commands = true\nprotocol = \"{protocol}\"\n");
    site.collector.edit(sink, &with_commands);
    let broker = Broker::start(site.dir(), site.broker);
    (site, broker)
}

/// Asks through the broker with the stock client for requests and responses; returns what it prints.
fn request(site: &Site, payload: &str) -> String {
    let port = site.broker.to_string();
    let limit = CLIENT_TIME.as_secs().to_string();
    let mut words = vec![
        "timeout",
        &limit,
        "mosquitto_rr",
        "-V",
        "5",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
    ];
    words.extend(["-q", "1", "-t", VALVE, "-e", "app/7", "-m", payload]);
    run(&mut command(&words)).expect(0).out
}

/// Publishes a command with the stock client.
fn publish_command(site: &Site, payload: &str, more: &[&str]) {
    let mut words = vec!["-V", "5", "-q", "1", "-t", VALVE, "-m", payload];
    words.extend(more);
    publish(SocketAddr::from(([127, 0, 0, 1], site.broker)), &words).expect(0);
}

const VALVE: &str = "fieldgate/command/gateway-1/pump-7/valve";
const VALVE_RESULT: &str = "fieldgate/result/gateway-1/pump-7/valve";

#[test]
fn a_plain_broker_brings_commands_and_is_told_their_results() {
    let (mut site, broker) = broker_site("5");
    site.start();
    site.wait_healthy();
    site.collector
        .process()
        .wait_for_text("the broker brings commands");
    let mut observer = subscribe_by(&[], site.broker);
    let mut answering = device(&site, "5", "answer");
    assert_eq!(request(&site, "open"), "done: open\n");
    answering.wait_for_text("command: pump-7/command/valve open");

    // Copies of a command are recognised by its id.
    let id = "000102030405060708090a0b0c0d0e0f";
    let once = ["-D", "publish", "user-property", "fieldgate-id", id];
    let words = [
        &once[..],
        &[
            "-D",
            "publish",
            "user-property",
            "fieldgate-guarantee",
            "at-most-once",
        ],
    ]
    .concat();
    publish_command(&site, "once", &words);
    wait_state(&site.collector, id, "delivered");
    publish_command(&site, "once", &words);
    observer.wait_for_text(&format!("{VALVE_RESULT} "));

    // A device that does not come, and what is no command.
    answering.stop();
    assert_eq!(answering.printed().matches("valve once").count(), 1);
    end(&site.gateway, answering);
    publish_command(&site, "late", &["-D", "publish", "message-expiry-interval", "5"]);
    observer.wait_for_text("\"state\":\"expired\"");
    publish_command(
        &site,
        "often",
        &["-D", "publish", "user-property", "fieldgate-guarantee", "often"],
    );
    observer.wait_for_text("\"refusal\":\"its fieldgate-guarantee is none");
    observer.stop();
    broker.stop();
}

#[test]
fn a_result_is_told_to_the_broker_after_a_crash_of_the_collector() {
    let (mut site, broker) = broker_site("5");
    site.start();
    site.wait_healthy();
    site.collector
        .process()
        .wait_for_text("the broker brings commands");
    let mut observer = subscribe_by(&[], site.broker);
    let words = [
        ["-D", "publish", "message-expiry-interval", "300"],
        ["-D", "publish", "response-topic", "app/7"],
        ["-D", "publish", "correlation-data", "seven"],
    ];
    publish_command(&site, "wake", &words.concat());
    until("the command to be queued at the gateway", || {
        let commands = list(&site.collector);
        match commands.first() {
            Some(command) if command["state"] == "queued" => Ok(()),
            other => Err(format!("it is {other:?}")),
        }
    });
    site.collector.kill();
    // What is published while the collector is away waits at the broker.
    publish_command(
        &site,
        "second",
        &["-D", "publish", "message-expiry-interval", "300"],
    );
    let mut answering = device(&site, "5", "answer");
    answering.wait_for_text("command: pump-7/command/valve wake");
    site.collector.spawn();
    site.collector.wait_ready();
    answering.wait_for_text("command: pump-7/command/valve second");
    // In whatever order.
    let mut wanted = vec!["app/7 ", "\"state\":\"delivered\""];
    observer.wait_for("both results", |line| {
        wanted.retain(|wanted| !line.contains(wanted));
        wanted.is_empty().then_some(())
    });
    assert!(
        observer.printed().contains("done: wake"),
        "{}",
        observer.printed()
    );
    answering.stop();
    observer.stop();
    broker.stop();
}

#[test]
fn a_broker_of_the_older_version_brings_commands_too() {
    let (mut site, broker) = broker_site("3.1.1");
    site.start();
    site.wait_healthy();
    site.collector
        .process()
        .wait_for_text("the broker brings commands");
    let mut observer = subscribe_by(&[], site.broker);
    let mut device = device(&site, "4", "ack");
    publish_command(&site, "open", &[]);
    device.wait_for_text("command: pump-7/command/valve open");
    observer.wait_for_text("\"state\":\"delivered\"");
    device.stop();
    observer.stop();
    broker.stop();
}
