//! Where a reading came from, proved long after and without contact to anyone.

use std::fs;

use serde_json::Value;

use crate::harness::{
    broker::publish,
    process::{Ended, fieldgate, run},
    site::{DEVICE, Site},
};

/// A site whose collector keeps a ledger.
fn site() -> Site {
    let site = Site::new().without_broker();
    site.collector.append("\n[collector.ledger]\n");
    site
}

fn send(site: &Site, payload: &str) {
    let topic = format!("{DEVICE}/temperature");
    let mut arguments = vec!["-V", "5", "-q", "1", "-t", &topic, "-m", payload];
    arguments.extend(site.login());
    publish(site.mqtt, &arguments).expect(0);
}

/// Waits until so many readings stand in the file, and every sink has them: the ledger is one.
fn wait_readings(site: &Site, count: usize) -> Vec<Value> {
    // A delivery goes to all sinks in one turn: what one has written another has at least waiting.
    site.wait_readings(count);
    site.collector.wait_status("every sink has them", |status| {
        let waiting = status["sinks"].as_array().expect("a list").iter();
        waiting.map(|sink| sink["waiting_bytes"].as_u64()).max() == Some(Some(0))
    });
    site.readings()
}

/// Takes the proof of a line that the file sink wrote into a file of that name.
fn prove(site: &Site, line: &Value, name: &str) -> (Ended, String) {
    let out = site.dir().join(name).display().to_string();
    let id = line["id"].as_str().expect("every line has an id");
    (site.collector.run(&["proof", id, "--out", &out]), out)
}

fn verify(arguments: &[&str]) -> Ended {
    let mut words = vec!["verify"];
    words.extend(arguments);
    // Nothing of the site is needed, not even its directory.
    run(fieldgate(words).current_dir("/").env_clear())
}

#[test]
fn a_proof_holds_and_with_any_bit_changed_it_does_not() {
    let mut site = site();
    site.start();
    site.wait_healthy();
    for payload in ["21.5", "21.6", "21.7"] {
        send(&site, payload);
    }
    let lines = wait_readings(&site, 3);
    let gateway = site.gateway.identifier();
    let (made, file) = prove(&site, &lines[1], "one.proof");
    made.expect(0);

    let shown = verify(&[&file, "--gateway", &gateway, "--json"]).expect(0).out;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["gateway"], gateway.as_str());
    assert_eq!(shown["id"], lines[1]["id"]);
    assert_eq!(shown["payload"], "21.6");
    assert_eq!(shown["captured_at"], lines[1]["captured_at"]);
    let text = verify(&[&file]).expect(0).out;
    assert!(text.contains("genuine") && text.contains("21.6"), "{text}");

    let other = identifier_of_somebody_else(&gateway);
    let text = verify(&[&file, "--gateway", &other]).expect(1).err;
    assert!(text.contains("another gateway"), "{text}");

    // One bit in each 16th byte, by the program itself; the library's tests change every bit.
    let good = fs::read(&file).unwrap();
    let bad_file = site.dir().join("bad.proof");
    for at in (0..good.len()).step_by(16) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at / 16 % 8);
        fs::write(&bad_file, &bad).unwrap();
        let ended = verify(&[bad_file.to_str().unwrap()]);
        assert!(matches!(ended.code, 1 | 2), "byte {at}: {ended:?}");
        assert!(ended.out.is_empty(), "byte {at}: {}", ended.out);
    }
}

#[test]
fn proofs_outlive_restarts_rotation_and_the_gateway_itself() {
    let mut site = site();
    site.start();
    site.wait_healthy();
    send(&site, "before");
    wait_readings(&site, 1);
    site.gateway.run(&["identity", "rotate"]).expect(0);
    send(&site, "after");
    wait_readings(&site, 2);
    let gateway = site.gateway.identifier();
    site.collector.kill();
    site.collector.spawn();
    site.collector.wait_ready();
    send(&site, "later");
    let lines = wait_readings(&site, 3);
    site.gateway.kill();
    for (line, payload) in lines.iter().zip(["before", "after", "later"]) {
        let (made, file) = prove(&site, line, payload);
        made.expect(0);
        let shown = verify(&[&file, "--gateway", &gateway, "--json"]).expect(0).out;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["payload"], payload);
    }
}

#[test]
fn what_cannot_be_proved_is_said() {
    let mut site = site();
    site.gateway
        .edit("[[uplink]]\n", "[[uplink]]\nverifiable = false\n");
    site.start();
    site.wait_healthy();
    send(&site, "21.5");
    let lines = wait_readings(&site, 1);
    let status = site
        .collector
        .wait_status("one reading that cannot be proved", |status| {
            status["ledger"]["unsealed"] == 1
        });
    assert_eq!(status["ledger"]["refused"], 0);
    let (ended, _) = prove(&site, &lines[0], "none.proof");
    let text = ended.expect(1).err;
    assert!(
        text.contains("nothing of this journal") && text.contains("verifiable"),
        "{text}"
    );

    for id in ["fg1", "a/b/c", "a/b/c/d"] {
        let text = site.collector.run(&["proof", id]).expect(2).err;
        assert!(text.contains("is not the id of a reading"), "{text}");
    }
    let id = lines[0]["id"].as_str().unwrap();
    let text = site.relay.run(&["proof", id]).expect(2).err;
    assert!(text.contains("[collector.ledger]"), "{text}");
    let missing = verify(&["/no/such/file"]).expect(2).err;
    assert!(missing.contains("/no/such/file"), "{missing}");
    let no_proof = verify(&[site.collector.config.to_str().unwrap()]).expect(2).err;
    assert!(no_proof.contains("not in the form of a proof"), "{no_proof}");
}

/// Returns an identifier that is not the gateway's: the example's.
fn identifier_of_somebody_else(gateway: &str) -> String {
    let other = "fg1yyqndwc2q82mdq8h26sywqg9wvqrthy7l6p5kwcfrtzkz4tux94qy47c2a";
    assert_ne!(gateway, other);
    other.to_owned()
}
