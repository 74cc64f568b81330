//! The journal of a real gateway that is killed while it discards, and whose disk is in the wrong hands.

use std::{fs, path::Path};

use fieldgate_mqtt::{reason::ReasonCode, version::ProtocolVersion};

use crate::harness::{
    client::{Client, Received},
    guarded::{self, Guard, give_token},
    node::json,
    process::{command, run},
    site::{DEVICE, Site},
};

#[test]
fn what_a_full_lane_discards_is_told_exactly_although_the_gateway_is_killed_meanwhile() {
    let mut site = Site::new().without_broker();
    site.gateway.edit(
        "bytes_max = \"1 GiB\"",
        "bytes_max = \"6 MiB\"\nsegment_bytes = \"2 MiB\"\n[journal.normal]\nwhen_full = \"drop-oldest\"",
    );
    site.collector.start();
    let mut published = 0;
    for _ in 0..3 {
        site.gateway.start();
        let mut client = log_in(&site);
        for packet in 1..=READINGS_PER_LIFE {
            published += 1;
            let payload = format!("{published} {}", "x".repeat(PAYLOAD_BYTES));
            let answer = client.publish_and_wait(packet, &topic(), payload.as_bytes());
            assert_eq!(
                answer.expect("the socket works"),
                Received::PubAck(packet, ReasonCode::Success)
            );
        }
        site.gateway.kill();
    }
    site.gateway.start();
    let status = json(&site.gateway.run(&["journal", "status", "--json"]).expect(0).out);
    let normal = &status["lanes"][1];
    let bytes = (normal["bytes"].as_u64(), normal["bytes_max"].as_u64());
    assert!(bytes.0 <= bytes.1, "{normal}");
    assert!(
        normal["discarded"].as_u64() > Some(READINGS_PER_LIFE.into()),
        "{normal}"
    );
    site.gateway.run(&["journal", "verify"]).expect(0);

    site.relay.start();
    site.gateway
        .wait_status("delivered", |status| status["journal"]["readings"] == 0);
    site.collector.wait_status("all there", |status| {
        let sources = status["sources"].as_array().expect("a collector has sources");
        sources.iter().any(|source| source["confirmed"] == published)
    });
    // Each sequence is a reading or in one gap, in order. One client published, so the sequence is the number in the payload.
    let mut next = 1;
    let mut missing = 0;
    for line in site.readings() {
        if line["event"] == "gap" {
            assert_eq!(
                (&line["first"], &line["reason"]),
                (&next.into(), &"discarded".into()),
                "{line}"
            );
            assert!(
                line["captured_from"].is_string() && line["captured_to"].is_string(),
                "{line}"
            );
            missing += line["count"].as_u64().expect("a count");
            next = line["last"].as_u64().expect("a sequence") + 1;
        } else {
            let payload = line["payload"].as_str().expect("it is text");
            assert_eq!(payload.split(' ').next(), Some(next.to_string().as_str()));
            next += 1;
        }
    }
    assert_eq!(next, published + 1);
    assert_eq!(Some(missing), normal["discarded"].as_u64(), "the counts agree");
}

#[test]
fn a_stolen_disk_shows_no_reading_and_the_key_shows_all() {
    let mut site = Site::new().without_broker();
    site.gateway.write_secret("journal.secret", &[0xf3; 32]);
    site.gateway.edit(
        "bytes_max = \"1 GiB\"",
        "bytes_max = \"1 GiB\"\nkey = { file = \"journal.secret\" }",
    );
    site.gateway.start();
    let mut client = log_in(&site);
    for packet in 1..=5 {
        let answer = client.publish_and_wait(packet, &topic(), SECRET_READING);
        assert_eq!(
            answer.expect("the socket works"),
            Received::PubAck(packet, ReasonCode::Success)
        );
    }
    site.gateway.kill();
    let journal = site.gateway.dir.join("state/journal");
    assert!(
        !holds(&journal, SECRET_READING),
        "a reading stands on the disk in clear"
    );

    let verified = site.gateway.run(&["journal", "verify", "--json"]).expect(0).out;
    let summary = json(verified.trim());
    assert_eq!((&summary["readings"], &summary["opened"]), (&5.into(), &5.into()));
    let dumped = site.gateway.run(&["journal", "dump"]).expect(0).out;
    assert_eq!(dumped.matches("melting").count(), 5);
    let status = site.gateway.run(&["journal", "status"]).expect(0).out;
    assert!(status.contains("encrypted"), "{status}");

    // Another secret does not open it, and nothing is taken for damaged.
    site.gateway.write_secret("journal.secret", &[0xf4; 32]);
    let refused = site.gateway.run(&["run"]).expect(1).err;
    assert!(refused.contains("key of the journal"), "{refused}");
    let unreadable = site.gateway.run(&["journal", "dump"]).expect(1).err;
    assert!(unreadable.contains("cannot be decrypted"), "{unreadable}");
    site.gateway.write_secret("journal.secret", &[0xf3; 32]);
    site.start();
    let readings = site.wait_readings(5);
    assert!(
        readings
            .iter()
            .all(|line| line["payload"] == "the core is melting")
    );
    assert_eq!(readings.len(), 5);
}

#[test]
fn what_the_identity_s_token_protects_no_one_reads_without_it() {
    let (mut site, _module) = guarded::site(|node| {
        give_token(node, PIN);
        Guard::faulty(node)
    });
    site.gateway.start();
    let mut client = log_in(&site);
    for packet in 1..=5 {
        let answer = client.publish_and_wait(packet, &topic(), SECRET_READING);
        assert_eq!(
            answer.expect("the socket works"),
            Received::PubAck(packet, ReasonCode::Success)
        );
    }
    site.gateway.kill();
    let journal = site.gateway.dir.join("state/journal");
    assert!(
        !holds(&journal, SECRET_READING),
        "a reading stands on the disk in clear"
    );
    let dumped = site.gateway.run(&["journal", "dump"]).expect(0).out;
    assert_eq!(dumped.matches("melting").count(), 5);

    // Whoever has the disk and the PIN, but not this key of the token, reads nothing, and nothing is taken for damaged.
    let store = site.gateway.dir.join("tokens");
    let kept = site.gateway.dir.join("tokens.kept");
    copy_dir(&store, &kept);
    let words = [
        "pkcs11-tool",
        "--module",
        guarded::SOFTHSM,
        "--login",
        "--pin",
        PIN,
    ];
    let which = [
        "--delete-object",
        "--type",
        "privkey",
        "--label",
        "fieldgate-wrapping",
    ];
    let mut delete = command(&[words.as_slice(), &which].concat());
    delete.env("SOFTHSM2_CONF", site.gateway.dir.join("softhsm2.conf"));
    run(&mut delete).expect(0);
    let refused = site.gateway.run(&["run"]).expect(1).err;
    assert!(
        refused.contains("key of the journal") && refused.contains("fieldgate-wrapping"),
        "{refused}"
    );
    let unreadable = site.gateway.run(&["journal", "dump"]).expect(1).err;
    assert!(unreadable.contains("cannot be decrypted"), "{unreadable}");
    // A worker that ends may still have a lock file in there.
    fs::rename(&store, store.with_extension("gone")).expect("it is ours");
    fs::rename(&kept, &store).expect("it is ours");
    site.start();
    let readings = site.wait_readings(5);
    assert_eq!(readings.len(), 5);
}

/// Copies a directory with all that is below it.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the directory is ours");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        let copy = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &copy);
        } else {
            fs::copy(entry.path(), copy).expect("there is room");
        }
    }
}

/// Returns whether a file below `dir` holds `bytes`.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(dir).expect("it is there").any(|entry| {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        let file = fs::read(&path).expect("it can be read");
        file.windows(bytes.len()).any(|window| window == bytes)
    })
}

fn log_in(site: &Site) -> Client {
    let login = Some((DEVICE, site.password.as_str()));
    Client::connect(site.mqtt, ProtocolVersion::V5, "counter", login).expect("the gateway takes the device")
}

fn topic() -> String {
    format!("{DEVICE}/count")
}

/// With those of the other lives more than the lane has room for, so that it discards in each life but the first.
const READINGS_PER_LIFE: u16 = 60;
const PAYLOAD_BYTES: usize = 60_000;
const PIN: &str = "271828";
const SECRET_READING: &[u8] = b"the core is melting";
