//! `fieldgate doctor` and `fieldgate hsm` on real tokens and beside a running node.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    node::{Node, json},
    ports,
    process::{Ended, command, fieldgate, run},
    site::{Site, private_dir},
    token,
};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A node with its key in a token, not made yet.
fn with_token() -> (TempDir, Node) {
    let dir = private_dir();
    let metrics = ([127, 0, 0, 1], ports::free()).into();
    let mut node = Node::new(dir.path(), "doctor", metrics);
    let link = ports::free();
    node.write(&format!(
        "[node]\nname = 'relay-1'\nstate_dir = 'state'\ncontrol_socket = 'control.sock'\n\
         [identity]\npkcs11 = 'pkcs11:token=fieldgate;object=doctor'\nmodule = '{MODULE}'\npin = {{ file = 'pin' }}\n\
         [trust]\n[link.tcp]\nlisten = ['127.0.0.1:{link}']\n[relay]\n"
    ));
    token::give(&mut node);
    node.write_secret("pin", token::PIN.as_bytes());
    (dir, node)
}

fn findings(ended: &Ended) -> Vec<Value> {
    json(&ended.out).as_array().expect("a list").clone()
}

/// Returns verdict and words of a check.
fn found(findings: &[Value], check: &str) -> (String, String) {
    let finding = findings
        .iter()
        .find(|finding| finding["check"] == check)
        .unwrap_or_else(|| panic!("no {check} in {findings:#?}"));
    let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    (text("verdict"), format!("{}; {}", text("found"), text("cure")))
}

#[test]
fn a_node_with_a_token_is_looked_at_from_file_to_signature() {
    let (_dir, node) = with_token();
    node.create_identity();
    let ended = node.run(&["doctor", "--json"]).expect(0);
    let all = findings(&ended);
    for check in ["file", "state", "module", "token", "identity", "entropy", "port"] {
        let (verdict, words) = found(&all, check);
        assert_eq!(verdict, "ok", "{check}: {words}");
    }
    // A slow machine signs slowly, and is warned of it.
    let (verdict, words) = found(&all, "signature");
    assert!(
        words.contains(" ms, good") && ["ok", "warn"].contains(&verdict.as_str()),
        "{verdict}: {words}"
    );
    assert_eq!(found(&all, "node").0, "unused");
    assert_eq!(found(&all, "authority").0, "unused");
    // For people it is a line each, and a cure with everything that is not right.
    let text = node.run(&["doctor"]).expect(0).out;
    assert_eq!(text.lines().count(), all.len() + 2, "{text}");
    for finding in &all {
        let needs_cure = finding["verdict"] == "warn" || finding["verdict"] == "fail";
        assert_eq!(finding["cure"].is_string(), needs_cure, "{finding}");
    }
    assert!(!ended.out.contains(token::PIN) && !text.contains(token::PIN));
}

#[test]
fn a_wrong_pin_is_tried_once_however_often_the_doctor_comes() {
    let (_dir, node) = with_token();
    node.create_identity();
    node.write_secret("pin", b"314159");
    let first = findings(&node.run(&["doctor", "--json"]).expect(1));
    assert_eq!(found(&first, "signature").0, "fail");
    for _ in 0..5 {
        let again = findings(&node.run(&["doctor", "--json"]).expect(1));
        assert_eq!(found(&again, "signature").0, "unused");
        let (verdict, words) = found(&again, "token");
        assert_eq!(verdict, "fail", "{words}");
        assert!(words.contains("given wrongly"), "{words}");
    }
    // A person clears it with the right one, and the doctor takes that.
    let words = [
        "pkcs11-tool",
        "--module",
        MODULE,
        "--token-label",
        "fieldgate",
        "--login",
        "--list-objects",
    ];
    let mut by_hand = command(&words);
    let config = node.dir.join("softhsm2.conf");
    run(by_hand.args(["--pin", token::PIN]).env("SOFTHSM2_CONF", config)).expect(0);
    node.write_secret("pin", token::PIN.as_bytes());
    let good = findings(&node.run(&["doctor", "--json"]).expect(0));
    assert_eq!(found(&good, "token").0, "ok");
}

#[test]
fn what_is_broken_is_told_and_the_rest_looked_at_nevertheless() {
    let (_dir, node) = with_token();
    node.edit(MODULE, "/bin/true");
    let all = findings(&node.run(&["doctor", "--json"]).expect(1));
    assert_eq!(found(&all, "module").0, "fail");
    assert_eq!(found(&all, "token").0, "fail");
    assert_eq!(found(&all, "identity").0, "fail");
    assert_eq!(found(&all, "signature").0, "unused");
    assert_eq!(found(&all, "entropy").0, "ok");

    node.edit("[relay]", "[rely]");
    let all = findings(&node.run(&["doctor", "--json"]).expect(1));
    let (verdict, words) = found(&all, "file");
    assert_eq!(verdict, "fail");
    assert!(words.contains("1 error;") || words.contains("errors;"), "{words}");
    assert_eq!(found(&all, "entropy").0, "ok");
}

#[test]
fn beside_a_running_node_its_ports_are_its_own() {
    let mut site = Site::new().without_broker();
    let free = findings(&site.relay.run(&["doctor", "--json"]).expect(0));
    assert!(found(&free, "port").1.contains("is free"));
    site.relay.start();
    let held = findings(&site.relay.run(&["doctor", "--json"]).expect(0));
    let (verdict, words) = found(&held, "node");
    assert_eq!(verdict, "ok", "{words}");
    assert_eq!(found(&held, "health").0, "ok");
    assert!(found(&held, "port").1.contains("held by the running node"));
    // A file with the same ports and another socket belongs to nobody who runs.
    site.relay.edit("\"control.sock\"", "\"other.sock\"");
    let other = findings(&site.relay.run(&["doctor", "--json"]).expect(1));
    let (verdict, words) = found(&other, "port");
    assert_eq!(verdict, "fail");
    assert!(words.contains("taken by another program"), "{words}");
    site.relay.edit("\"other.sock\"", "\"control.sock\"");
}

#[test]
fn a_probe_shows_a_module_and_a_trial_leaves_nothing_behind() {
    let (_dir, node) = with_token();
    let table = node.run(&["hsm", "probe"]).expect(0).out;
    assert!(
        table.contains("| token | fieldgate |") && table.contains("CKM_ECDSA"),
        "{table}"
    );
    let shown = json(&node.run(&["hsm", "probe", "--json", "--serials"]).expect(0).out);
    let token = shown["slots"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|slot| &slot["token"])
        .find(|token| {
            token["uri"]
                .as_str()
                .is_some_and(|uri| uri.contains("token=fieldgate"))
        })
        .expect("the token is listed");
    let serial = token["uri"]
        .as_str()
        .and_then(|uri| uri.split("serial=").nth(1))
        .and_then(|rest| rest.split(';').next())
        .expect("a serial number");
    assert!(!table.contains(serial), "serial numbers are for those who ask");
    assert!(
        shown["trials"].is_null(),
        "nothing is tried without being asked for"
    );

    let tried = json(&node.run(&["hsm", "probe", "--trial", "--json"]).expect(0).out);
    assert_eq!(tried["trials"]["left_behind"], 0);
    let rows = tried["trials"]["rows"].as_array().expect("rows");
    let outcome = |what: &str| {
        rows.iter()
            .find(|row| row["what"].as_str().is_some_and(|row| row.contains(what)))
            .and_then(|row| row["outcome"].as_str())
            .unwrap_or_else(|| panic!("no {what} in {rows:#?}"))
    };
    assert!(outcome("CKM_ECDSA over 32 bytes").starts_with("yes"));
    assert!(
        tried["trials"]["signing"]["median_us"]
            .as_u64()
            .is_some_and(|us| us > 0)
    );
    // An identity can be made as if nothing had been.
    node.create_identity();
}

#[test]
fn words_that_are_missing_or_secret_are_wrong_input() {
    let ended = run(&mut fieldgate(["hsm", "probe"])).expect(2);
    assert!(ended.err.contains("--module PATH"), "{}", ended.err);
    let ended = run(&mut fieldgate(["hsm", "probe", "--module", MODULE, "--trial"])).expect(2);
    assert!(ended.err.contains("--pin-from"), "{}", ended.err);
    let words = [
        "hsm",
        "probe",
        "--module",
        MODULE,
        "--token",
        "pkcs11:token=fieldgate",
    ];
    let ended = run(fieldgate(words).args(["--pin-from", "271828", "--trial"])).expect(2);
    assert!(!ended.err.contains("271828"), "{}", ended.err);
    let ended = run(&mut fieldgate(["hsm", "tpm", "--device", "/nowhere/tpm"])).expect(1);
    assert!(
        ended.err.contains("/nowhere/tpm") && ended.err.contains("help:"),
        "{}",
        ended.err
    );
}

#[test]
fn a_file_that_is_not_there_is_a_failure_and_not_the_end() {
    let ended = run(&mut fieldgate(["doctor", "--config", "/nowhere/x.toml"])).expect(1);
    assert!(ended.out.starts_with("fail  file"), "{}", ended.out);
    assert!(ended.out.contains("\nok    entropy"), "{}", ended.out);
    assert!(ended.err.is_empty(), "{}", ended.err);
    assert!(fs::metadata("/nowhere").is_err());
}
