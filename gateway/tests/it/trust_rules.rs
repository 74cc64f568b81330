//! Rules between members of an authority: live proof, attributes, and what goes without fresh lists.

use std::{fs, time::Duration};

use rustix::process::Signal;

use crate::harness::{
    broker::publish,
    guarded::{Guard, SOFTHSM, give_token},
    node::Node,
    process::fieldgate,
    site::DEVICE,
    trusted::{SEALED, Trusted},
    wait::until,
};

/// Publishes a reading at the gateway, which keeps it.
fn send(fleet: &Trusted) {
    publish(
        fleet.mqtt,
        &[
            "-V",
            "5",
            "-q",
            "1",
            "-t",
            "pump/temperature",
            "-m",
            "21.5",
            "-i",
            DEVICE,
        ],
    )
    .expect(0);
}

fn wait_lines(fleet: &Trusted, count: usize) {
    until(&format!("{count} readings in the file"), || {
        let lines = fleet.lines();
        if lines == count {
            Ok(())
        } else {
            Err(format!("there are {lines}"))
        }
    });
}

/// Puts a policy in use: the built-in one without its rule for named peers, and `rules`.
fn write_policy(node: &Node, rules: &str) {
    let built_in = crate::harness::process::run(&mut fieldgate(["policy", "show"]))
        .expect(0)
        .out;
    fs::write(node.dir.join("policy.cedar"), built_in + rules).expect("the directory is ours");
}

/// A fleet whose collector decides by `rules`, with the gateway's key in a token behind a spy.
fn fleet(rules: &str) -> (Trusted, Guard) {
    let mut fleet = Trusted::new();
    let in_token = format!(
        "pkcs11 = \"pkcs11:token=fieldgate;object=gateway-1\"\nmodule = {SOFTHSM:?}\npin = {{ file = \"pin\" }}"
    );
    fleet.gateway.edit(SEALED, &in_token);
    give_token(&mut fleet.gateway, "271828");
    let spy = Guard::spy(&mut fleet.gateway);
    fleet
        .collector
        .edit("[trust]\n", "[trust]\npolicy = \"policy.cedar\"\n");
    write_policy(&fleet.collector, rules);
    fleet.create();
    (fleet, spy)
}

const PROVE: &str =
    "forbid (principal, action == Fieldgate::Action::\"publish\", resource) unless { context.liveProof };\n";

#[test]
fn a_policy_that_demands_live_proof_costs_one_signature_for_each_channel() {
    let (mut fleet, spy) = fleet(PROVE);
    fleet.start(&[]);
    send(&fleet);
    wait_lines(&fleet, 1);
    // The same channel needs no more of them.
    let before = spy.signatures();
    send(&fleet);
    wait_lines(&fleet, 2);
    assert_eq!(spy.signatures(), before);
    for round in 0..3 {
        let before = spy.signatures();
        fleet.collector.kill();
        fleet.collector.start();
        send(&fleet);
        wait_lines(&fleet, 3 + round);
        assert_eq!(
            spy.signatures(),
            before + 1,
            "one for the channel in round {round}"
        );
    }
}

#[test]
fn a_gateway_may_demand_live_proof_of_its_collector() {
    let mut fleet = Trusted::new();
    fleet
        .gateway
        .edit("name = \"plant\"\n", "name = \"plant\"\nlive_proof = true\n");
    let in_token = "pkcs11 = \"pkcs11:token=fieldgate;object=collector-1\"\nmodule = \"".to_owned()
        + SOFTHSM
        + "\"\npin = { file = \"pin\" }";
    fleet.collector.edit(SEALED, &in_token);
    give_token(&mut fleet.collector, "271828");
    let spy = Guard::spy(&mut fleet.collector);
    fleet.create();
    fleet.start(&[]);
    send(&fleet);
    wait_lines(&fleet, 1);
    let before = spy.signatures();
    fleet.gateway.kill();
    fleet.gateway.start();
    send(&fleet);
    wait_lines(&fleet, 2);
    assert_eq!(spy.signatures(), before + 1);
}

#[test]
fn an_attribute_keeps_a_gateway_out_until_another_policy_lets_it_in() {
    let site = |name: &str| {
        format!(
            "forbid (principal, action == Fieldgate::Action::\"publish\", resource)\n\
             unless {{ principal.hasTag(\"site\") && principal.getTag(\"site\") == \"{name}\" }};\n"
        )
    };
    let (mut fleet, _spy) = fleet(&site("north"));
    fleet.start(&["site=south"]);
    send(&fleet);
    fleet.collector.process().wait_for_text("the policy refuses");
    let status = fleet.gateway.status();
    assert_ne!(status["uplinks"][0]["state"], "delivering", "{status:#}");
    assert_eq!(status["journal"]["readings"], 1);
    assert_eq!(fleet.lines(), 0);

    // A policy that is wrong changes nothing.
    write_policy(
        &fleet.collector,
        "permit (principal, action, resource) when { nonsense };\n",
    );
    fleet.collector.process().signal(Signal::HUP);
    fleet.collector.process().wait_for_text("the policy in use stays");
    assert_eq!(fleet.lines(), 0);

    // One with a rule that can never apply is in use, and its flaw is in the log.
    let flawed = site("south") + "forbid (principal, action, resource) when { false };\n";
    write_policy(&fleet.collector, &flawed);
    fleet.collector.process().signal(Signal::HUP);
    fleet
        .collector
        .process()
        .wait_for_text("perhaps not as it was meant");
    fleet.collector.process().wait_for_text("policy read again");
    wait_lines(&fleet, 1);

    // The other way round: the channel that is open ends.
    write_policy(&fleet.collector, &site("north"));
    fleet.collector.process().signal(Signal::HUP);
    fleet
        .gateway
        .wait_status("shut out", |status| status["uplinks"][0]["state"] != "delivering");
    send(&fleet);
    assert_eq!(fleet.lines(), 1);
}

/// The bounds of the file do not go below ten minutes, so time is not waited for: the collector's floor of the clock, which it
/// kept at its end, is set forward, as if the machine had been on for so long and its clock had stopped.
#[test]
fn without_fresh_lists_members_are_served_for_the_time_of_grace_and_then_no_more() {
    let mut fleet = Trusted::new();
    fleet.create();
    fleet.start(&[]);
    send(&fleet);
    wait_lines(&fleet, 1);
    let fresh = fleet.collector.wait_healthy();
    assert_eq!(fresh["trust"]["list"], "fresh");
    fleet.authority.stop();

    set_forward(&mut fleet.collector, FORWARD);
    fleet.collector.start();
    send(&fleet);
    wait_lines(&fleet, 2);
    let stale = fleet
        .collector
        .wait_status("stale", |status| status["trust"]["list"] == "stale");
    assert_eq!(stale["health"], "degraded");
    assert!(
        stale["reasons"].to_string().contains("time of grace"),
        "{stale:#}"
    );

    set_forward(&mut fleet.collector, FORWARD);
    fleet.collector.start();
    send(&fleet);
    let lapsed = fleet
        .collector
        .wait_status("lapsed", |status| status["trust"]["list"] == "lapsed");
    assert!(
        lapsed["reasons"].to_string().contains("grace is over"),
        "{lapsed:#}"
    );
    fleet
        .gateway
        .wait_status("shut out", |status| status["uplinks"][0]["state"] != "delivering");
    assert_eq!(fleet.lines(), 2);

    // The authority is back, and with it the truth about the time.
    fleet.authority.start();
    wait_lines(&fleet, 3);
    let again = fleet
        .collector
        .wait_status("fresh", |status| status["trust"]["list"] == "fresh");
    assert_eq!(again["trust"]["connected"], true);
}

/// More than the hour by which a kernel that calls itself synchronised may differ from the floor. Once it leads beyond the ten
/// minutes of a list and into the two hours of grace, twice beyond both; an attestation of a day is good all the while.
const FORWARD: Duration = Duration::from_secs(4_500);

/// Stops a node and sets what it has kept of the time forward.
fn set_forward(node: &mut Node, by: Duration) {
    node.stop();
    let path = node.dir.join("state/clock.floor");
    let text = fs::read_to_string(&path).expect("the node has kept its floor");
    let number = |name: &str| -> u64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok())
            .expect("the floor is a number")
    };
    let by = u64::try_from(by.as_millis()).expect("it is short");
    // As after a clock that called itself synchronised and was ahead: only the authority may take that back.
    let (sure, likely) = (number("sure"), number("likely") + by);
    let body = format!("fieldgate clock floor 1\nsure {sure}\nlikely {likely}\n");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    let check = data_encoding::HEXLOWER.encode(&digest.as_ref()[..8]);
    fs::write(&path, format!("{body}check {check}\n")).expect("the directory is ours");
}
