//! A journal that is full, a disk that is full, a disk that forgets.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use fieldgate_mqtt::{reason::ReasonCode, version::ProtocolVersion};

use crate::harness::{
    client::{Client, Received},
    node::json,
    process::{command, run},
    site::{DEVICE, Site},
};

#[test]
fn a_full_journal_refuses_what_it_cannot_keep_and_takes_more_once_the_uplink_is_back() {
    let mut site = Site::new().without_broker();
    site.gateway.edit(
        "bytes_max = \"1 GiB\"",
        "bytes_max = \"6 MiB\"\nsegment_bytes = \"2 MiB\"",
    );
    fills_refuses_and_recovers(&mut site);
}

#[test]
fn a_full_disk_refuses_what_it_cannot_keep_and_takes_more_once_there_is_room() {
    let mut site = Site::new().without_broker();
    // Declared after the site, so unmounted before its directory is removed.
    let _disk = SmallDisk::mount(&site.gateway.dir.join("disk"), "7m");
    site.gateway.edit(
        "bytes_max = \"1 GiB\"",
        "bytes_max = \"1 GiB\"\nsegment_bytes = \"2 MiB\"\ndir = \"disk\"",
    );
    fills_refuses_and_recovers(&mut site);
}

/// Publishes without an uplink until the gateway refuses, then lets the uplink come.
fn fills_refuses_and_recovers(site: &mut Site) {
    // On one shard, as another one would hold the first reading that does not fit until it knows.
    site.gateway.edit("state_dir = ", "shards = 1\nstate_dir = ");
    site.collector.start();
    site.gateway.start();
    let acknowledged = publish_until_refused(site);
    let status = site
        .gateway
        .wait_status("journal full", |status| status["journal"]["state"] == "full");
    assert_eq!(status["health"], "degraded");
    assert!(
        status["reasons"][0]
            .as_str()
            .is_some_and(|reason| reason.contains("journal full")),
        "{status:#}"
    );
    assert_eq!(status["journal"]["readings"], acknowledged);
    let samples = site.gateway.samples();
    // Alarms and bulk have lanes of their own, which have room.
    assert!(samples.sum("fieldgate_journal_accepting") == 2.0);
    assert!(samples.sum("fieldgate_refused_readings_total") >= 1.0);

    // A client of 3.1.1 cannot be told no: its connection ends, and no PUBACK came before.
    let mut old = log_in(site, ProtocolVersion::V311, "old");
    let answer = old.publish_and_wait(1, &topic(), &[b'x'; PAYLOAD_BYTES]);
    assert_eq!(answer.expect("the socket works"), Received::End);

    site.relay.start();
    site.gateway.wait_status("journal drained", |status| {
        status["journal"]["state"] == "ready" && status["journal"]["readings"] == 0
    });
    site.wait_healthy();
    let mut client = log_in(site, ProtocolVersion::V5, "later");
    let answer = client.publish_and_wait(1, &topic(), b"after");
    assert_eq!(
        answer.expect("the socket works"),
        Received::PubAck(1, ReasonCode::Success)
    );
    let count = usize::try_from(acknowledged).expect("a few hundred");
    let readings = site.wait_readings(count + 1);
    assert_eq!(
        readings.len(),
        count + 1,
        "what was acknowledged, and nothing else"
    );
    assert_eq!(readings[count]["payload"], "after");
}

/// Publishes until a PUBACK says that there is no room; returns how many said success.
fn publish_until_refused(site: &Site) -> u64 {
    let mut client = log_in(site, ProtocolVersion::V5, "filler");
    let mut acknowledged = 0;
    for packet in 1..=1000 {
        let answer = client.publish_and_wait(packet, &topic(), &[b'x'; PAYLOAD_BYTES]);
        match answer.expect("the socket works") {
            Received::PubAck(id, ReasonCode::Success) if id == packet => acknowledged += 1,
            Received::PubAck(id, ReasonCode::QuotaExceeded) if id == packet => {
                assert!(acknowledged > 10, "only {acknowledged} found room");
                return acknowledged;
            }
            other => panic!("after {acknowledged}: {other:?}"),
        }
    }
    panic!("{} MB found room", 1000 * PAYLOAD_BYTES / 1_000_000);
}

#[test]
fn what_is_intact_around_a_corrupt_place_is_delivered_and_the_rest_is_named_and_counted() {
    let mut site = Site::new().without_broker();
    // The place to damage is found by what stands there.
    site.gateway.edit("encrypt = true\n", "");
    site.gateway.start();
    let mut client = log_in(&site, ProtocolVersion::V5, "counter");
    for number in 1..=READINGS {
        let answer = client.publish_and_wait(number, &topic(), payload(number).as_bytes());
        assert_eq!(
            answer.expect("the socket works"),
            Received::PubAck(number, ReasonCode::Success)
        );
    }
    drop(client);
    site.gateway.stop();
    let journal = site.gateway.dir.join("state/journal/normal");
    let whole = site.gateway.run(&["journal", "verify", "--json"]).expect(0);
    assert_eq!(json(whole.out.trim())["readings"], READINGS);

    let segment = corrupt(&journal, payload(VICTIM).as_bytes());
    let verified = site.gateway.run(&["journal", "verify", "--json"]).expect(1);
    let mut lines = verified.out.lines().map(json);
    let found = lines.next().expect("a line for the damage");
    assert_eq!(found["segment"], format!("normal/{segment}"));
    assert!(found["cure"].is_string(), "{found}");
    let (first, last) = (found["first"].as_u64(), found["last"].as_u64());
    let (first, last) = (first.expect("a range"), last.expect("a range"));
    assert!((first..=last).contains(&u64::from(VICTIM)), "{found}");
    let lost = last - first + 1;
    let summary = lines.next().expect("a summary");
    assert_eq!(summary["damaged"], 1);
    assert_eq!(summary["readings"], u64::from(READINGS) - lost);
    let for_people = site.gateway.run(&["journal", "verify"]).expect(1);
    assert!(for_people.out.contains(&segment) && for_people.out.contains("readings do not verify"));

    site.start();
    let kept = usize::try_from(u64::from(READINGS) - lost).expect("a few");
    let readings = site.wait_readings(kept);
    assert!(
        readings
            .iter()
            .all(|reading| reading["payload"] != payload(VICTIM).as_str())
    );
    let status = site
        .gateway
        .wait_status("released", |status| status["journal"]["readings"] == 0);
    assert_eq!(status["journal"]["lost"], lost);
    assert_eq!(status["health"], "degraded");
    assert!(
        site.gateway
            .samples()
            .sum("fieldgate_journal_lost_readings_total")
            > 0.0
    );
    let status = site
        .collector
        .wait_status("loss known", |status| source(status)["lost"] == lost);
    assert_eq!(source(&status)["confirmed"], READINGS);
    let lines = site.wait_readings(kept + 1);
    let gaps: Vec<_> = lines.iter().filter(|line| line["event"] == "gap").collect();
    assert_eq!(
        (lines.len(), gaps.len()),
        (kept + 1, 1),
        "the loss is in the file as well"
    );
    assert_eq!(
        (&gaps[0]["first"], &gaps[0]["last"]),
        (&first.into(), &last.into())
    );
}

/// Returns the source of the normal lane.
fn source(status: &serde_json::Value) -> &serde_json::Value {
    let sources = status["sources"].as_array().expect("a collector has sources");
    let normal = sources.iter().find(|source| source["class"] == "normal");
    normal.unwrap_or(&serde_json::Value::Null)
}

/// Flips the bits of one byte of `payload` where it stands in a segment; returns the segment's name.
fn corrupt(journal: &Path, payload: &[u8]) -> String {
    for entry in fs::read_dir(journal).expect("the journal is there") {
        let path = entry.expect("the directory can be read").path();
        let mut bytes = fs::read(&path).expect("the file can be read");
        if let Some(at) = bytes.windows(payload.len()).position(|window| window == payload) {
            bytes[at] ^= 0xff;
            fs::write(&path, bytes).expect("the file is ours");
            let name = path.file_name().and_then(|name| name.to_str());
            return name.expect("the name is text").to_owned();
        }
    }
    panic!("{} stands in no segment", String::from_utf8_lossy(payload));
}

#[test]
fn the_journal_can_be_looked_at_while_the_gateway_runs() {
    let mut site = Site::new().without_broker();
    site.gateway.start();
    let mut client = log_in(&site, ProtocolVersion::V5, "counter");
    for number in 1..=5 {
        let answer = client.publish_and_wait(number, &topic(), payload(number).as_bytes());
        assert_eq!(
            answer.expect("the socket works"),
            Received::PubAck(number, ReasonCode::Success)
        );
    }
    let status = json(&site.gateway.run(&["journal", "status", "--json"]).expect(0).out);
    let [alarm, normal, bulk] = [0, 1, 2].map(|lane: usize| &status["lanes"][lane]);
    assert_eq!(
        (&normal["waiting"], &normal["oldest"], &normal["next"]),
        (&5.into(), &1.into(), &6.into())
    );
    assert!(
        normal["oldest_captured_at"].is_string() && normal["bytes_max"].is_u64(),
        "{normal}"
    );
    assert_eq!(
        (&status["waiting"], &alarm["waiting"], &bulk["waiting"]),
        (&5.into(), &0.into(), &0.into())
    );
    let shown = site.gateway.run(&["journal", "status"]).expect(0).out;
    assert!(shown.contains("5 readings wait"), "{shown}");
    let verified = site.gateway.run(&["journal", "verify"]).expect(0).out;
    assert!(
        verified.contains("5 readings intact; 0 damaged places"),
        "{verified}"
    );
    let dumped = site.gateway.run(&["journal", "dump", "--json"]).expect(0).out;
    let dumped: Vec<_> = dumped.lines().map(json).collect();
    assert_eq!(dumped.len(), 5);
    for (number, line) in (1..).zip(&dumped) {
        assert_eq!(line["sequence"], number);
        assert_eq!(line["payload"], payload(number).as_str());
        assert_eq!(line["device"], DEVICE);
    }
    let part = site
        .gateway
        .run(&["journal", "dump", "--from", "2", "--limit", "2"])
        .expect(0)
        .out;
    let sequences: Vec<_> = part.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(sequences, ["2", "3"], "{part}");
    let file = site.gateway.dir.join("export.jsonl");
    let words = [
        "journal",
        "export",
        file.to_str().expect("it is text"),
        "--to",
        "4",
    ];
    site.gateway.run(&words).expect(0);
    let exported = fs::read_to_string(&file).expect("it was written");
    let lines: Vec<_> = exported.lines().map(json).collect();
    let journal = lines[0]["lanes"][1]["journal"]
        .as_str()
        .expect("it has an id")
        .to_owned();
    assert_eq!(lines.len(), 6, "a header, four readings, an end: {exported}");
    assert_eq!(lines[1]["id"], format!("{journal}/1"));
    assert_eq!(lines[4]["reading"]["payload"], payload(4).as_str());
    assert_eq!(
        (&lines[5]["end"], &lines[5]["readings"]),
        (&true.into(), &4.into())
    );
    let again = site.gateway.run(&words).expect(1);
    assert!(
        again.err.contains("exists"),
        "a file is never overwritten: {}",
        again.err
    );
    let other = site
        .gateway
        .run(&["journal", "dump", "--device", "nobody"])
        .expect(0)
        .out;
    assert_eq!(other, "");
    // Nobody disturbed the gateway.
    let answer = client.publish_and_wait(6, &topic(), b"after");
    assert_eq!(
        answer.expect("the socket works"),
        Received::PubAck(6, ReasonCode::Success)
    );
}

fn log_in(site: &Site, version: ProtocolVersion, client_id: &str) -> Client {
    let to: SocketAddr = site.mqtt;
    let login = Some((DEVICE, site.password.as_str()));
    Client::connect(to, version, client_id, login).expect("the gateway takes the device")
}

fn topic() -> String {
    format!("{DEVICE}/count")
}

fn payload(number: u16) -> String {
    format!("reading number {number:05}")
}

/// A file system in memory with a bound, mounted until dropped. Needs root.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "mounting needs root: run the tests as root, or in a container that has CAP_SYS_ADMIN"
        );
        fs::create_dir_all(at).expect("the directory is ours");
        let mut mount = command(&["mount", "-t", "tmpfs", "-o"]);
        run(mount
            .arg(format!("size={size},mode=0700"))
            .arg("fieldgate-test")
            .arg(at))
        .expect(0);
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // If a test ends early its gateway may still run: the mount then goes with the last user.
        let _ = run(command(&["umount", "--lazy"]).arg(&self.0));
    }
}

/// Large enough to fill a journal in a hundred steps, small enough for one reading.
const PAYLOAD_BYTES: usize = 60_000;
/// Readings in the journal that is damaged.
const READINGS: u16 = 60;
/// The one whose bytes are changed.
const VICTIM: u16 = 30;
