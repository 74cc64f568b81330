//! A gateway whose token fails: what it goes on doing, what it says, and what it refuses.

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{
    broker::publish,
    guarded::{self, Guard, add_token, give_token},
    node::Node,
    process::{command, run},
    scrape,
    site::{DEVICE, Site},
};

const PIN: &str = "271828";

fn faulty_site() -> (Site, Guard) {
    guarded::site(|node| {
        give_token(node, PIN);
        Guard::faulty(node)
    })
}

/// Publishes a reading and waits until it has arrived.
fn deliver(site: &Site, count: usize) {
    send(site);
    site.wait_readings(count);
}

fn send(site: &Site) {
    let topic = format!("{DEVICE}/temperature");
    let mut arguments = vec!["-V", "5", "-q", "1", "-t", &topic, "-m", "21.5"];
    arguments.extend(site.login());
    publish(site.mqtt, &arguments).expect(0);
}

/// Returns one sample by name and labels, as they are written.
fn sample(node: &Node, name: &str) -> String {
    let (_, body) = scrape::get(node.metrics, "/metrics");
    let found = body
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {name} in {body}")).to_owned()
}

/// Has `run` refuse to start, and returns what it printed.
fn refused(node: &mut Node) -> String {
    node.spawn();
    // One that starts after all does not end, and fails the test by that.
    let status = node.process().wait();
    let text = node.process().output().join("\n");
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("help:"), "{text}");
    assert!(!text.contains(" ready "), "{text}");
    text
}

#[test]
fn a_gateway_goes_on_without_its_token_says_so_and_takes_it_back() {
    let (mut site, token) = faulty_site();
    site.start();
    site.wait_healthy();
    deliver(&site, 1);
    assert_eq!(sample(&site.gateway, "fieldgate_token_present"), "1");

    token.control("token vanish\n");
    let status = site.gateway.wait_status("the token missed", |status| {
        status["identity"]["worker"]["token_present"] == false
    });
    assert_eq!(status["health"], "degraded");
    let reasons = status["reasons"].to_string();
    assert!(reasons.contains("token is not there"), "{reasons}");
    assert_eq!(status["identity"]["worker"]["token_present"], false);
    assert_eq!(status["identity"]["worker"]["condition"], "running");
    assert!(
        status["identity"]["attestation_secs"].as_u64() > Some(80_000),
        "{status:#}"
    );
    assert_eq!(status["uplinks"][0]["state"], "delivering");
    let text = site.gateway.run(&["status"]).expect(0).out;
    assert!(text.contains("TOKEN AWAY") && text.contains("DEGRADED"), "{text}");
    assert_eq!(sample(&site.gateway, "fieldgate_token_present"), "0");
    assert_eq!(sample(&site.gateway, "fieldgate_healthy"), "0");
    let running = "fieldgate_token_worker_condition{condition=\"running\"}";
    assert_eq!(sample(&site.gateway, running), "1");

    // The channel that is there goes on, and new ones live on the attestation.
    deliver(&site, 2);
    for node in [&mut site.relay, &mut site.collector] {
        node.kill();
        node.start();
    }
    deliver(&site, 3);

    token.control("");
    let status = site.gateway.wait_healthy();
    assert_eq!(status["identity"]["worker"]["token_present"], true);
    assert_eq!(sample(&site.gateway, "fieldgate_token_present"), "1");
    assert_eq!(sample(&site.gateway, "fieldgate_healthy"), "1");
    deliver(&site, 4);
}

#[test]
fn where_live_proof_is_demanded_a_missing_token_stops_delivery_until_it_is_back() {
    let (mut site, token) = faulty_site();
    let policy = "permit (principal, action, resource) when { principal.named && context.granted };\n\
                  forbid (principal, action == Fieldgate::Action::\"publish\", resource) unless { context.liveProof };\n";
    std::fs::write(site.collector.dir.join("policy.cedar"), policy).expect("the directory is ours");
    site.collector.append("[trust]\npolicy = \"policy.cedar\"\n");
    site.start();
    deliver(&site, 1);

    token.control("token vanish\n");
    site.gateway.wait_status("the token missed", |status| {
        status["identity"]["worker"]["token_present"] == false
    });
    site.collector.kill();
    site.collector.start();
    send(&site);
    let status = site.gateway.wait_status("a failed proof", |status| {
        status["identity"]["signing_errors"].as_u64() > Some(0)
    });
    assert_ne!(status["uplinks"][0]["state"], "delivering", "{status:#}");
    assert_eq!(site.readings().len(), 1);

    token.control("");
    site.wait_readings(2);
    site.gateway.wait_healthy();
}

#[test]
fn a_worker_that_is_killed_is_started_again_and_counted() {
    let (mut site, _token) = faulty_site();
    site.start();
    let status = site.gateway.wait_healthy();
    let pid = |status: &serde_json::Value| status["identity"]["worker"]["pid"].as_i64();
    let first = pid(&status).expect("the worker has a number");
    let raw = i32::try_from(first)
        .ok()
        .and_then(Pid::from_raw)
        .expect("it is a process");
    kill_process(raw, Signal::KILL).expect("it runs");
    deliver(&site, 1);
    let status = site.gateway.wait_status("another worker", |status| {
        pid(status).is_some_and(|now| now != first)
    });
    assert_eq!(status["identity"]["worker"]["restarts_crash"], 1);
    assert_eq!(status["identity"]["worker"]["condition"], "running");
    let restarts = "fieldgate_token_worker_restarts_total{cause=\"crash\"}";
    assert_eq!(sample(&site.gateway, restarts), "1");
    site.gateway.wait_healthy();
    deliver(&site, 2);
}

#[test]
fn a_wrong_pin_is_tried_once_over_all_starts() {
    let (mut site, token) = faulty_site();
    site.gateway.write_secret("pin", b"314159");
    let before = token.calls("C_Login");
    let text = refused(&mut site.gateway);
    assert!(text.contains("refuses the PIN"), "{text}");
    assert!(!text.contains("314159"), "{text}");
    assert_eq!(token.calls("C_Login"), before + 1);
    for _ in 0..3 {
        let text = refused(&mut site.gateway);
        assert!(text.contains("PIN"), "{text}");
        assert_eq!(token.calls("C_Login"), before + 1, "{text}");
    }
    // The token warns of a wrong PIN by now. A PIN that differs is tried all the same.
    site.gateway.write_secret("pin", PIN.as_bytes());
    site.gateway.start();
    // Once for the identity, twice to make the key of the journal.
    assert_eq!(token.calls("C_Login"), before + 1 + 3);
    site.gateway.stop();
    assert!(!site.gateway.dir.join("state/pin.refused").exists());
}

#[test]
fn a_second_wrong_pin_leaves_the_rest_to_a_person() {
    let (mut site, token) = faulty_site();
    let before = token.calls("C_Login");
    for (tries, wrong) in [(1, "314159"), (2, "161803")] {
        site.gateway.write_secret("pin", wrong.as_bytes());
        let text = refused(&mut site.gateway);
        assert!(
            text.contains("refuses the PIN") && !text.contains(wrong),
            "{text}"
        );
        assert_eq!(token.calls("C_Login"), before + tries);
    }
    // Neither of them, nor the right one, can be read out of what is kept of them.
    let kept = std::fs::read_to_string(site.gateway.dir.join("state/pin.refused")).expect("it is kept");
    assert_eq!(
        kept.lines().filter(|line| line.starts_with("refused ")).count(),
        2
    );
    for pin in ["314159", "161803", PIN] {
        assert!(!kept.contains(pin), "{kept}");
    }
    site.gateway.write_secret("pin", PIN.as_bytes());
    let text = refused(&mut site.gateway);
    assert!(text.contains("given wrongly since the last login"), "{text}");
    assert_eq!(token.calls("C_Login"), before + 2);

    // A person logs in, and then the node does.
    let words = [
        "pkcs11-tool",
        "--module",
        guarded::SOFTHSM,
        "--token-label",
        "fieldgate",
        "--login",
    ];
    let mut by_hand = command(&words);
    by_hand.args(["--pin", PIN, "--list-objects"]);
    run(by_hand.env("SOFTHSM2_CONF", site.gateway.dir.join("softhsm2.conf"))).expect(0);
    site.gateway.start();
    // Once for the identity, twice to make the key of the journal.
    assert_eq!(token.calls("C_Login"), before + 2 + 3);
}

#[test]
fn a_locked_pin_is_not_tried() {
    let (mut site, token) = faulty_site();
    let before = token.calls("C_Login");
    token.control("flags locked\n");
    let text = refused(&mut site.gateway);
    assert!(text.contains("locked"), "{text}");
    assert_eq!(token.calls("C_Login"), before);
}

#[test]
fn the_last_try_of_a_pin_is_not_the_gateways() {
    let (mut site, token) = faulty_site();
    let before = token.calls("C_Login");
    site.gateway.write_secret("pin", b"314159");
    refused(&mut site.gateway);
    token.control("flags final-try\n");
    site.gateway.write_secret("pin", PIN.as_bytes());
    let text = refused(&mut site.gateway);
    assert!(text.contains("has one try left"), "{text}");
    assert_eq!(token.calls("C_Login"), before + 1);
}

#[test]
fn several_tokens_that_match_are_refused_with_the_candidates() {
    let (mut site, token) = faulty_site();
    add_token(&site.gateway, PIN);
    let before = token.calls("C_Login");
    let text = refused(&mut site.gateway);
    assert_eq!(text.matches(";serial=").count(), 2, "{text}");
    assert_eq!(
        token.calls("C_Login"),
        before,
        "no PIN is given to a token that is guessed"
    );
}
