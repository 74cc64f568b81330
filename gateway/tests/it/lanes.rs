//! Lanes in real processes: alarms overtake, policy discards and says so, collectors are two, or come back from a backup.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
};

use fieldgate_mqtt::{
    packet::connect::Connect, property::Property, reason::ReasonCode, version::ProtocolVersion,
};
use serde_json::Value;

use crate::{
    harness::{
        client::{Client, Received},
        node::{Node, json, text},
        ports,
        site::{DEVICE, Site},
        wait::until,
    },
    mqtt_peer::{How, Peer, fresh, will},
};

#[test]
fn an_alarm_overtakes_the_backlog() {
    let mut site = Site::new().without_broker();
    site.relay.start();
    site.gateway.start();
    let readings = 12_000;
    publish(&site, "count", numbers(0..readings, 300));
    publish(&site, "alarm/level", numbers(0..20, 20));
    let status = site
        .gateway
        .wait_status("20 alarms wait", |status| lane(status, "alarm")["readings"] == 20);
    assert_eq!(lane(&status, "normal")["readings"], readings);
    site.collector.start();
    let lines = site.wait_readings(readings + 20);
    let last_alarm = lines.iter().rposition(|line| line["class"] == "alarm");
    let before = last_alarm.expect("the alarms are there") - 19;
    // The first records of all lanes, a window of 256 KiB at the most, are on their way before the collector has said how far it
    // is with each.
    assert!(
        before < readings / 4,
        "{before} readings came before the last alarm"
    );
    let in_order: Vec<String> = payloads(&lines, "normal");
    assert_eq!(in_order, numbers(0..readings, 300), "each once and in its order");
    assert_eq!(payloads(&lines, "alarm"), numbers(0..20, 20));
    site.wait_healthy();
}

#[test]
fn what_policy_discards_stands_in_the_file_as_a_gap_though_the_gateway_is_killed() {
    let mut site = Site::new().without_broker();
    site.gateway.append(
        "\n[[journal.class]]\nclass = \"bulk\"\ntopic = \"+/log\"\n\n[journal.bulk]\nbytes_max = \"768 KiB\"\n",
    );
    site.relay.start();
    site.gateway.start();
    let readings = 4_000;
    for half in [0..readings / 2, readings / 2..readings] {
        publish(&site, "log", numbers(half, 500));
        site.gateway.kill();
        site.gateway.start();
    }
    let status = site.gateway.status();
    let bulk = lane(&status, "bulk");
    assert!(
        bulk["bytes"].as_u64() <= bulk["bytes_max"].as_u64(),
        "the disk cap holds: {bulk}"
    );
    assert!(bulk["discarded"].as_u64() > Some(1_000), "{bulk}");
    assert_eq!(bulk["state"], "ready");
    site.collector.start();
    site.gateway
        .wait_status("journal drained", |status| status["journal"]["readings"] == 0);
    let lines = site.readings();
    let accounts = Accounts::of(&lines);
    accounts.check();
    // Nothing was acknowledged that is neither there nor in a gap, and what is there is in order.
    let kept = payloads(&lines, "bulk");
    assert_eq!(
        kept.len() as u64 + accounts.lost("discarded"),
        readings as u64,
        "{accounts:?}"
    );
    let newest = numbers(0..readings, 500).split_off(readings - kept.len());
    assert_eq!(kept, newest);
    let status = site.collector.status();
    let sources = status["sources"].as_array().expect("a list");
    let source = sources.iter().find(|source| source["class"] == "bulk");
    let source = source.expect("bulk was delivered");
    assert_eq!(
        source["lost"].as_u64(),
        Some(accounts.lost("discarded")),
        "{source}"
    );
    let samples = site.collector.samples();
    assert!(samples.sum("fieldgate_source_lost_readings_total") > 1_000.0);
}

#[test]
fn two_collectors_get_everything_each_though_one_is_away() {
    let mut site = Site::new().without_broker();
    let mut second = second_collector(&site);
    site.start();
    publish(&site, "count", numbers(0..300, 50));
    site.wait_readings(300);
    let status = site.gateway.wait_status("the first has confirmed", |status| {
        status["uplinks"][0]["confirmed"] == 300 && status["uplinks"][1]["waiting"] == 300
    });
    assert_eq!(
        status["journal"]["readings"], 300,
        "kept for the one that is away: {status:#}"
    );
    // The gateway forgets neither of them.
    site.gateway.kill();
    site.gateway.start();
    second.start();
    let file = second.dir.join("readings.jsonl");
    let lines = until("everything at the second", || {
        let lines = lines_of(&file);
        if lines.len() >= 300 {
            Ok(lines)
        } else {
            Err(format!("it has {}", lines.len()))
        }
    });
    assert_eq!(payloads(&lines, "normal"), numbers(0..300, 50));
    site.gateway
        .wait_status("journal drained", |status| status["journal"]["readings"] == 0);
    assert_eq!(site.readings().len(), 300, "the first got nothing twice");
    second.stop();
}

#[test]
fn a_collector_restored_from_a_backup_gets_again_what_is_left_and_records_what_is_not() {
    let mut site = Site::new().without_broker();
    site.gateway
        .append("\n[journal.normal]\nbytes_max = \"768 KiB\"\n");
    site.start();
    publish(&site, "count", numbers(0..500, 400));
    site.wait_readings(500);
    site.gateway
        .wait_status("journal drained", |status| status["journal"]["readings"] == 0);
    site.collector.stop();
    let backup = site.dir().join("backup");
    copy(&site.collector.dir, &backup);
    site.collector.start();
    // A lane that is full would refuse.
    for begin in [500, 1_000, 1_500, 2_000] {
        publish(&site, "count", numbers(begin..begin + 500, 400));
        site.gateway
            .wait_status("journal drained", |status| status["journal"]["readings"] == 0);
    }
    site.wait_readings(2_500);
    site.collector.stop();
    copy(&backup, &site.collector.dir);
    assert_eq!(site.readings().len(), 500);
    site.collector.start();

    let accounts = until("every sequence accounted for", || {
        let lines = site.readings();
        let accounts = Accounts::of(&lines);
        if accounts.highest() == 2_500 {
            Ok(accounts)
        } else {
            Err(format!("up to {}", accounts.highest()))
        }
    });
    accounts.check();
    let released = accounts.lost("released");
    assert!(
        (1..2_000).contains(&released),
        "some segments were deleted, and some were not: {released}"
    );
    let lines = site.readings();
    let kept = payloads(&lines, "normal");
    assert_eq!(kept.len() as u64 + released, 2_500);
    let told = |status: &Value| status.to_string().contains("set back");
    site.gateway.wait_status("the gateway says so", told);
    site.collector.wait_status("the collector says so", told);
    let shown = site.collector.run(&["status"]).expect(0);
    assert!(shown.out.contains("it was set back"), "{}", shown.out);
    site.wait_healthy();
}

#[test]
fn rules_give_readings_their_class() {
    let mut site = Site::new().without_broker();
    site.gateway.append(
        "\n[[journal.class]]\nclass = \"alarm\"\ndevice = \"pump-*\"\njson = { path = \"/level\", at_least = 3 }\n\
         \n[[journal.class]]\nclass = \"alarm\"\ndevice = \"valve-*\"\n\
         \n[[journal.class]]\nclass = \"bulk\"\ntopic = \"+/log/#\"\n\
         \n[[journal.class]]\nclass = \"bulk\"\ncontent_type = \"text/csv\"\n",
    );
    site.start();
    let last_words = format!("{DEVICE}/last-words");
    let connect = Connect {
        will: Some(will(&last_words, b"{\"level\": 4}", &[])),
        username: Some(DEVICE),
        password: Some(site.password.as_bytes()),
        ..fresh(ProtocolVersion::V5, DEVICE)
    };
    let (mut device, _) = Peer::accepted(site.mqtt, &connect);
    for (topic, content_type, payload) in [
        ("state", "application/json", "{\"level\": 2.5}"),
        ("state", "text/csv; charset=utf-8", "1,2"),
        ("state", "text/plain", "1 2"),
        ("state", "application/json", "{\"level\": 3}"),
        ("log/a", "application/json", "{\"level\": 9}"),
        ("log/b", "text/plain", "text"),
        ("alarm/door", "text/plain", "open"),
    ] {
        let how = How {
            qos: 1,
            properties: &[Property::ContentType(content_type)],
            ..How::default()
        };
        device.publish(&format!("{DEVICE}/{topic}"), payload, how);
    }
    // Its end without DISCONNECT makes its will a reading.
    drop(device);
    let mut classes: Vec<(String, String)> = site
        .wait_readings(8)
        .iter()
        .map(|line| (text(line, "payload"), text(line, "class")))
        .collect();
    classes.sort();
    let found: Vec<(&str, &str)> = classes
        .iter()
        .map(|(payload, class)| (payload.as_str(), class.as_str()))
        .collect();
    let wanted = [
        ("1 2", "normal"),
        ("1,2", "bulk"),
        ("open", "alarm"),
        ("text", "bulk"),
        ("{\"level\": 2.5}", "normal"),
        ("{\"level\": 3}", "alarm"),
        ("{\"level\": 4}", "alarm"),
        ("{\"level\": 9}", "alarm"),
    ];
    assert_eq!(found, wanted);
}

/// What stands in a file, by journal: sequences of readings, and gaps.
#[derive(Debug, Default)]
struct Accounts {
    readings: BTreeMap<String, Vec<u64>>,
    gaps: BTreeMap<String, Vec<(u64, u64, String)>>,
}

impl Accounts {
    fn of(lines: &[Value]) -> Self {
        let mut accounts = Self::default();
        for line in lines {
            let id = text(line, "id");
            let (journal, place) = id.rsplit_once('/').expect("an id has three parts");
            if line["event"] == "gap" {
                let (first, last) = (&line["first"], &line["last"]);
                let range = (
                    first.as_u64().expect("a number"),
                    last.as_u64().expect("a number"),
                );
                assert_eq!(place, format!("{}-{}", range.0, range.1));
                assert_eq!(line["count"].as_u64(), Some(range.1 - range.0 + 1));
                let gaps = accounts.gaps.entry(journal.to_owned()).or_default();
                gaps.push((range.0, range.1, text(line, "reason")));
            } else {
                let sequence = place.parse().expect("a sequence");
                accounts
                    .readings
                    .entry(journal.to_owned())
                    .or_default()
                    .push(sequence);
            }
        }
        accounts
    }

    /// Checks that every sequence is in exactly one reading or gap.
    fn check(&self) {
        let journals: BTreeSet<&String> = self.readings.keys().chain(self.gaps.keys()).collect();
        for journal in journals {
            let mut all: Vec<(u64, u64)> = Vec::new();
            let readings = self.readings.get(journal).into_iter().flatten();
            all.extend(readings.map(|sequence| (*sequence, *sequence)));
            let gaps = self.gaps.get(journal).into_iter().flatten();
            all.extend(gaps.map(|(first, last, _)| (*first, *last)));
            all.sort_unstable();
            let mut expected = 1;
            for (first, last) in all {
                assert_eq!(
                    first, expected,
                    "each sequence once in {journal}: {:?}",
                    self.gaps
                );
                expected = last + 1;
            }
        }
    }

    fn highest(&self) -> u64 {
        let readings = self.readings.values().flatten().copied();
        let gaps = self.gaps.values().flatten().map(|(_, last, _)| *last);
        readings.chain(gaps).max().unwrap_or(0)
    }

    /// Returns how many readings were lost for a reason.
    fn lost(&self, reason: &str) -> u64 {
        let gaps = self.gaps.values().flatten().filter(|(_, _, why)| why == reason);
        gaps.map(|(first, last, _)| last - first + 1).sum()
    }
}

/// Returns numbers as texts of a length.
fn numbers(range: std::ops::Range<usize>, len: usize) -> Vec<String> {
    range.map(|number| format!("{number:0len$}")).collect()
}

/// Publishes under the device's topic, many at a time, and waits for every acknowledgement.
fn publish(site: &Site, topic: &str, payloads: Vec<String>) {
    let login = Some((DEVICE, site.password.as_str()));
    let mut client = Client::connect(site.mqtt, ProtocolVersion::V5, DEVICE, login).expect("it is let in");
    let topic = format!("{DEVICE}/{topic}");
    for some in payloads.chunks(WINDOW) {
        for (packet, payload) in (1..).zip(some) {
            client
                .publish(packet, &topic, payload.as_bytes(), false)
                .expect("it is taken");
        }
        for _ in some {
            let received = client.receive().expect("an acknowledgement");
            assert!(
                matches!(received, Received::PubAck(_, ReasonCode::Success)),
                "{received:?}"
            );
        }
    }
}

/// Returns the payloads of a class in the order of the file.
fn payloads(lines: &[Value], class: &str) -> Vec<String> {
    let readings = lines
        .iter()
        .filter(|line| line["event"] != "gap" && line["class"] == class);
    readings.map(|line| text(line, "payload")).collect()
}

/// Returns what a gateway shows of a lane.
fn lane<'a>(status: &'a Value, class: &str) -> &'a Value {
    let lanes = status["journal"]["lanes"].as_array().expect("a list of lanes");
    let lane = lanes.iter().find(|lane| lane["class"] == class);
    lane.unwrap_or_else(|| panic!("no lane {class} in {status:#}"))
}

fn lines_of(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(json).collect()
}

/// Makes a collector like the first, and has relay and gateway know it.
fn second_collector(site: &Site) -> Node {
    let metrics = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let node = Node::new(site.dir(), "collector-2", metrics);
    let read = |path: &Path| fs::read_to_string(path).expect("it was written");
    let file = read(&site.collector.config)
        .replace("collector-1", "collector-2")
        .replace(&site.collector.metrics.to_string(), &metrics.to_string());
    node.write(&file);
    let identifier = node.create_identity();
    let first = site.collector.identifier();
    site.relay.append(&format!(
        "\n[[relay.member]]\nname = \"collector-2\"\nidentifier = \"{identifier}\"\nhold = [\"collector-2\"]\n"
    ));
    site.relay.edit(
        "reach = [\"collector-1\"]",
        "reach = [\"collector-1\", \"collector-2\"]",
    );
    let gateway = read(&site.gateway.config);
    let begin = gateway.find("[[uplink]]").expect("it has an uplink");
    let end = gateway[begin..]
        .find("\n\n")
        .map_or(gateway.len(), |end| begin + end);
    let uplink = gateway[begin..end]
        .replace("name = \"plant\"", "name = \"archive\"")
        .replace(&first, &identifier)
        .replace("collector-1", "collector-2");
    site.gateway.append(&format!("\n{uplink}\n"));
    node
}

/// Puts a copy of a directory in the place of another.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("it is ours");
    }
    fs::create_dir_all(to).expect("the parent is ours");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        let kind = entry.file_type().expect("it has a type");
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).expect("there is room");
        }
    }
}

/// Publishes without acknowledgement, fewer than the gateway allows.
const WINDOW: usize = 60;
