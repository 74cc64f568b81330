//! The operator guide in `README.md`: exactly its commands, in their order, and what has to be true after each.

use std::{
    collections::VecDeque,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    node::{Node, json},
    shell::Shell,
    site::{backend, private_dir},
    wait::until,
};

#[test]
fn the_operator_guide_makes_a_fleet_revokes_and_enrols_by_files() {
    let mut guide = Guide::new();
    make(&mut guide);
    revoke(&mut guide);
    enrol_by_files(&mut guide);

    let printed = guide.step("policy");
    assert_eq!(count(&printed, ": good, "), 1, "{printed:#?}");
    assert_eq!(count(&printed, "ALLOWED: publish"), 1, "{printed:#?}");
    guide.step("backup");
    let log = fs::read_to_string(guide.dir().join("authority-1/log")).expect("the guide writes it");
    guide.node("authority-1").wait_healthy();
    assert!(log.contains("stopped"), "it was copied while it ran: {log}");
    let copy = guide.dir().join("authority-1.backup/state/authority.redb");
    assert!(copy.is_file(), "no {}", copy.display());
    for name in ["relay-1", "collector-1", "gateway-1", "gateway-3", "gateway-4"] {
        guide.wait_member(name);
    }
    log_is_intact(&mut guide);
    assert!(guide.steps.is_empty(), "the guide goes on: {:?}", guide.steps);

    // After all that, everybody who belongs delivers, each reading once.
    for gateway in [1, 3, 4] {
        guide.publish(gateway, "at-the-end");
        guide.wait_reading(gateway, "at-the-end");
    }
    guide.each_reading_stands_once();
}

#[test]
fn a_fleet_outlives_its_relay_its_authority_and_a_killed_gateway() {
    let mut guide = Guide::new();
    make(&mut guide);

    // The jobs of the shell are numbered as the guide starts them.
    guide.shell.run("kill %2 && wait %2");
    guide.publish(1, "without-relay");
    guide.shell.run(&start("relay-1"));
    guide.wait_reading(1, "without-relay");
    guide.publish(2, "relay-is-back");
    guide.wait_reading(2, "relay-is-back");

    guide.shell.run("kill $authority && wait $authority");
    for name in ["relay-1", "collector-1", "gateway-1", "gateway-2", "gateway-3"] {
        guide.node(name).wait_status("authority missed", |status| {
            status["trust"]["connected"] == false && status["trust"]["member"] == name
        });
    }
    for gateway in [1, 2, 3] {
        guide.publish(gateway, "without-authority");
        guide.wait_reading(gateway, "without-authority");
    }

    // Nothing of a power cut on the gateway is made good by the authority: it is still away.
    guide.shell.run("kill $relay_1 && wait $relay_1");
    guide.publish(3, "before-the-power-cut");
    guide.shell.run("kill -9 %6; wait %6 || test $? = 137");
    let script = format!("{}; {}", start("gateway-3"), start("relay-1"));
    guide.shell.run(&script);
    guide.wait_reading(3, "before-the-power-cut");
    guide.publish(3, "after-the-power-cut");
    guide.wait_reading(3, "after-the-power-cut");
    let status = guide.node("gateway-3").status();
    assert_eq!(status["trust"]["member"], "gateway-3");
    assert_eq!(status["trust"]["connected"], false, "the authority is away");

    guide.shell.run(&start("authority-1"));
    for name in NODES {
        guide.wait_member(name);
    }
    log_is_intact(&mut guide);
    guide.each_reading_stands_once();
    // Three of the guide, and those above.
    assert_eq!(guide.readings().len(), 3 + 7);
}

/// The whole directory of the authority is put back as it was before a revocation; only the fleet remembers that.
#[test]
fn an_authority_restored_from_an_older_copy_lets_nobody_back_in() {
    let mut guide = Guide::new();
    make(&mut guide);
    guide
        .shell
        .run("kill $authority && wait $authority; cp -a authority-1 authority-1.copy");
    guide.shell.run(&start("authority-1"));
    guide.wait_member("authority-1");
    guide
        .shell
        .run("fieldgate member revoke gateway-2 --reason stolen --config authority-1/fieldgate.toml");
    let first = guide.node("gateway-2").identifier();
    guide.wait_log("relay-1", "peer is revoked; its channel is closed", &first);

    guide.shell.run("kill $authority_1 && wait $authority_1; mv authority-1 authority-1.newer; mv authority-1.copy authority-1");
    guide.shell.run(&start("authority-1"));
    // At once: the next list is signed before or after the authority has learned what it has forgotten.
    until("the authority takes the next revocation", || {
        guide.node("authority-1").try_status().map(drop)
    });
    guide
        .shell
        .run("fieldgate member revoke gateway-3 --reason stolen --config authority-1/fieldgate.toml");
    let second = guide.node("gateway-3").identifier();
    guide.node("authority-1").wait_status("what happened", |status| {
        status["reasons"]
            .to_string()
            .contains("restored from an older copy")
    });
    guide.wait_log(
        "authority-1",
        "WARN",
        "this authority was restored from an older copy of its state",
    );
    guide.wait_log("relay-1", "peer is revoked; its channel is closed", &second);
    let printed = guide.shell.run(
        "fieldgate member list --revoked --config authority-1/fieldgate.toml\n\
         fieldgate authority status --config authority-1/fieldgate.toml || true",
    );
    for identifier in [&first, &second] {
        assert!(count(&printed, identifier) >= 1, "{printed:#?}");
    }
    assert_eq!(count(&printed, "restored from an older copy"), 1, "{printed:#?}");
    for name in ["relay-1", "collector-1", "gateway-1"] {
        guide.node(name).wait_status("the newest list", |status| {
            // It signs one more for each that it had forgotten.
            status["trust"]["list_number"] == guide.node("authority-1").status()["authority"]["list_number"]
        });
    }

    // Both come back and are refused; a renewal is refused as well.
    for (gateway, name) in [(2, "gateway-2"), (3, "gateway-3")] {
        guide.publish(gateway, "revoked");
        guide.node(name).wait_status("shut out", |status| {
            status["uplinks"][0]["state"] != "delivering" && status["uplinks"][0]["waiting"] == 1
        });
    }
    guide.publish(1, "after-all-that");
    guide.wait_reading(1, "after-all-that");
    assert_eq!(guide.readings_of(2), ["21.2"]);
    assert_eq!(guide.readings_of(3), ["21.3"]);
    log_is_intact(&mut guide);
}

/// A policy whose rule for `connect` wants a live proof holds for those whom a node reaches itself, relays included.
#[test]
fn a_policy_may_demand_live_proof_of_relay_collector_and_authority() {
    let mut guide = Guide::new();
    make(&mut guide);
    let signatures = |guide: &Guide| {
        ["relay-1", "collector-1", "authority-1"].map(|name| {
            let status = guide.node(name).status();
            status["identity"]["signatures"].as_u64().expect("a number")
        })
    };
    let restart = |guide: &mut Guide, job: &str| {
        guide
            .shell
            .run(&format!("kill {job} && wait {job}; {}", start("gateway-1")));
        guide.wait_member("gateway-1");
    };
    let before = signatures(&guide);
    restart(&mut guide, "%4");
    assert_eq!(
        signatures(&guide),
        before,
        "without that rule nobody proves anything"
    );
    guide.shell.run(
        "fieldgate policy show > gateway-1/policy.cedar\n\
         echo 'forbid (principal, action == Fieldgate::Action::\"connect\", resource) unless { context.liveProof };' >> gateway-1/policy.cedar\n\
         sed -i 's/^\\[trust\\]/&\\npolicy = \"policy.cedar\"/' gateway-1/fieldgate.toml",
    );
    restart(&mut guide, "$gateway_1");
    guide.publish(1, "with-proof");
    guide.wait_reading(1, "with-proof");
    // One for each channel; a channel that was lost was made again.
    let after = signatures(&guide);
    assert!(
        after.iter().zip(before).all(|(after, before)| *after > before),
        "{before:?} {after:?}"
    );
}

/// From nothing to one authority, one relay, one collector and three gateways.
fn make(guide: &mut Guide) {
    guide.step("files");
    let printed = guide.step("identities");
    assert_eq!(count(&printed, "fg1"), NODES.len(), "{printed:#?}");
    let printed = guide.step("names");
    assert_eq!(count(&printed, ": good"), NODES.len(), "{printed:#?}");

    guide.step("start");
    guide.node("authority-1").wait_healthy();
    for name in &NODES[1..] {
        let status = guide.node(name).wait_status("running", |_| true);
        assert_eq!(
            status["trust"]["member"],
            Value::Null,
            "{name} is a member of itself"
        );
    }
    // Relay and collector too, though the authority is named in their files and in reach of them.
    for name in &NODES[1..] {
        guide.wait_stranger(name);
    }
    assert_eq!(guide.readings().len(), 0);

    let printed = guide.step("enrol");
    assert_eq!(count(&printed, "This node is a member now"), 5, "{printed:#?}");
    for name in NODES {
        guide.wait_member(name);
    }

    let printed = guide.step("look");
    assert_eq!(count(&printed, ", healthy, "), NODES.len(), "{printed:#?}");
    for gateway in [1, 2, 3] {
        guide.wait_reading(gateway, &format!("21.{gateway}"));
    }
}

/// One gateway out, within two seconds, and for good.
fn revoke(guide: &mut Guide) {
    let identifier = guide.node("gateway-2").identifier();
    let printed = guide.step("revoke");
    let number = printed
        .iter()
        .find_map(|line| line.split("is revoked; status list ").nth(1));
    let number = number
        .and_then(|rest| rest.split(' ').next())
        .expect("it names the list");
    assert_eq!(count(&printed, "stolen from the yard"), 1, "{printed:#?}");
    assert_eq!(count(&printed, "The log is intact"), 1, "{printed:#?}");
    for name in ["relay-1", "collector-1"] {
        let taken = guide.wait_log(name, &format!("list of the revoked taken number={number}"), "");
        let closed = guide.wait_log(name, "peer is revoked; its channel is closed", &identifier);
        let took = closed.duration_since(taken).expect("closed because of the list");
        assert!(
            took <= Duration::from_secs(2),
            "{name} took {took:?} after the list"
        );
    }

    // It comes again and again, and is refused each time. Its devices are still served: the readings are its own.
    guide.publish(2, "revoked");
    let refused = |guide: &Guide| {
        let status = guide.node("relay-1").try_status();
        status.map(|status| status["trust"]["credentials_refused"].as_u64().unwrap_or(0))
    };
    let before = refused(guide).expect("the relay runs");
    until("the revoked gateway comes again, and again", || {
        let now = refused(guide)?;
        (now > before + 2)
            .then_some(())
            .ok_or_else(|| format!("refused {now} times, {before} before"))
    });
    let log = fs::read_to_string(guide.dir().join("relay-1/log")).expect("it has a log");
    let of_it: Vec<String> = log
        .lines()
        .filter(|line| line.contains(&identifier))
        .map(str::to_owned)
        .collect();
    // Once at first, and then once a minute, which is longer than this takes.
    assert!(
        (1..=2).contains(&count(&of_it, "credential refused")),
        "{of_it:#?}"
    );
    assert!((1..=2).contains(&count(&of_it, "peer is revoked")), "{of_it:#?}");
    let status = guide
        .node("gateway-2")
        .wait_status("cut off", |status| status["uplinks"][0]["waiting"] == 1);
    assert_eq!(status["health"], "degraded");
    guide.publish(1, "after-the-revocation");
    guide.wait_reading(1, "after-the-revocation");
    assert_eq!(guide.readings_of(2), ["21.2"]);
}

/// A node without a ticket gets nowhere, nor does one with a spent ticket; with files it becomes a member.
fn enrol_by_files(guide: &mut Guide) {
    let refused = |guide: &Guide| -> Result<u64, String> {
        let status = guide.node("relay-1").try_status()?;
        let dropped = status["network"]["dropped"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = dropped.iter().find(|entry| entry[0] == "not_allowed");
        Ok(found.and_then(|entry| entry[1].as_u64()).unwrap_or(0))
    };
    let before = refused(guide).expect("the relay runs");
    guide.step("offline-start");
    guide.wait_stranger("gateway-4");
    guide.publish(4, "early");
    until("the relay refuses the stranger", || {
        let now = refused(guide)?;
        (now > before)
            .then_some(())
            .ok_or_else(|| format!("refused {now} times, {before} before"))
    });
    let printed = guide.shell.run(
        "if fieldgate enroll --config gateway-4/fieldgate.toml gateway-3.ticket 2>&1; then exit 9; fi\n\
         fieldgate enroll --config gateway-4/fieldgate.toml gateway-3.ticket --request spent.request\n\
         if fieldgate authority answer spent.request --out spent.response --config authority-1/fieldgate.toml 2>&1; then exit 9; fi\n\
         test ! -e spent.response\n\
         fieldgate authority log --config authority-1/fieldgate.toml",
    );
    // The operator reads why, the stranger does not.
    assert_eq!(count(&printed, "the authority has refused"), 1, "{printed:#?}");
    assert!(count(&printed, "the ticket is used up") >= 2, "{printed:#?}");
    guide.wait_stranger("gateway-4");
    assert_eq!(guide.readings_of(4), [""; 0]);

    let printed = guide.step("offline-enrol");
    assert_eq!(count(&printed, "This node is a member now"), 1, "{printed:#?}");
    guide.wait_member("gateway-4");
    guide.wait_reading(4, "21.4");
    assert_eq!(guide.readings_of(4), ["early", "21.4"]);
}

fn log_is_intact(guide: &mut Guide) {
    let printed = guide
        .shell
        .run("fieldgate authority log --verify --config authority-1/fieldgate.toml");
    assert_eq!(count(&printed, "The log is intact"), 1, "{printed:#?}");
}

/// Commands that start a node again, and keep its number in a variable.
fn start(name: &str) -> String {
    format!(
        "fieldgate run --config {name}/fieldgate.toml >> {name}/log 2>&1 & {}=$!",
        name.replace('-', "_")
    )
}

fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

/// The guide, and the machine on which it is followed.
struct Guide {
    /// What was not done yet: names and commands.
    steps: VecDeque<(String, String)>,
    // Ends before its directory is removed.
    shell: Shell,
    dir: TempDir,
}

impl Guide {
    /// Reads the guide, and makes a source tree with the examples to follow it in.
    ///
    /// # Panics
    /// If the guide has no commands, or the machine cannot be made.
    fn new() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let readme = fs::read_to_string(source.join("README.md")).expect("the guide is there");
        let dir = private_dir();
        let examples = dir.path().join("packaging/examples");
        fs::create_dir_all(&examples).expect("the directory is ours");
        for name in EXAMPLES {
            let text = fs::read_to_string(source.join("packaging/examples").join(name))
                .expect("the example is there");
            // The one thing that differs: the backend of this run of the tests.
            let text = text.replacen("[node]\n", &format!("[node]\nio = \"{}\"\n", backend()), 1);
            fs::write(examples.join(name), text).expect("the directory is ours");
        }
        Self {
            steps: steps(&readme),
            shell: Shell::start(dir.path()),
            dir,
        }
    }

    /// Does the next step of the guide, which must be `name`, and returns what it printed.
    ///
    /// # Panics
    /// If another is next, or a command fails.
    fn step(&mut self, name: &str) -> Vec<String> {
        let (next, commands) = self.steps.pop_front().expect("the guide goes on");
        assert_eq!(next, name, "the guide has another step");
        self.shell.run(&commands)
    }

    /// The directory that the guide makes.
    fn dir(&self) -> PathBuf {
        self.dir.path().join("fleet")
    }

    fn node(&self, name: &str) -> Node {
        let unused = SocketAddr::from(([127, 0, 0, 1], 0));
        Node::found(self.dir().join(name), name, unused)
    }

    /// Waits until the node says that it is a member, with authority and all.
    fn wait_member(&self, name: &str) {
        self.node(name)
            .wait_status(&format!("{name} is a member"), |status| {
                let trust = &status["trust"];
                status["health"] == "healthy"
                    && trust["member"] == name
                    && trust["connected"] == true
                    && trust["list"] == "fresh"
            });
    }

    /// Waits until the node says that it is none.
    fn wait_stranger(&self, name: &str) {
        self.node(name)
            .wait_status(&format!("{name} is not enrolled"), |status| {
                let reasons = status["reasons"].to_string();
                status["health"] == "degraded" && reasons.contains("not enrolled")
            });
    }

    /// Publishes from the device of a gateway and waits until it is acknowledged.
    fn publish(&mut self, gateway: u32, payload: &str) {
        self.shell.run(&format!(
            "mosquitto_pub -h 127.77.1.{gateway} -q 1 -i pump-{gateway} -u pump-{gateway} \
             -P \"$(cat gateway-{gateway}/pump-{gateway}.password)\" -t pump-{gateway}/temperature -m {payload}"
        ));
    }

    /// Reads what the collector has written.
    fn readings(&self) -> Vec<Value> {
        // It comes with the first start.
        let text = fs::read_to_string(self.dir().join("collector-1/readings.jsonl")).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(json).collect()
    }

    /// The payloads that came from a gateway, in their order.
    ///
    /// # Panics
    /// If the gateway is called otherwise than its credential says.
    fn readings_of(&self, gateway: u32) -> Vec<String> {
        let device = format!("pump-{gateway}");
        let readings = self.readings();
        let from = readings.iter().filter(|reading| reading["device"] == *device);
        from.map(|reading| {
            assert_eq!(reading["gateway"], *format!("gateway-{gateway}"), "{reading}");
            reading["payload"].as_str().expect("it is text").to_owned()
        })
        .collect()
    }

    fn wait_reading(&self, gateway: u32, payload: &str) {
        until(&format!("{payload} of gateway {gateway}"), || {
            let readings = self.readings_of(gateway);
            let found = readings.iter().any(|reading| reading == payload);
            found.then_some(()).ok_or_else(|| format!("{readings:?}"))
        });
    }

    /// # Panics
    /// If one stands twice.
    fn each_reading_stands_once(&self) {
        let readings = self.readings();
        let mut ids: Vec<String> = readings.iter().map(|reading| reading["id"].to_string()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), readings.len(), "{readings:#?}");
    }

    /// Waits for a line with both texts in a node's log and returns its time.
    fn wait_log(&self, name: &str, text: &str, about: &str) -> SystemTime {
        let path = self.dir().join(name).join("log");
        until(&format!("`{text}` in the log of {name}"), || {
            let log = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            let found = log
                .lines()
                .find(|line| line.contains(text) && line.contains(about));
            let line = found.ok_or_else(|| log.clone())?;
            let time = line.split(' ').next().unwrap_or_default();
            Ok(humantime::parse_rfc3339(time).unwrap_or_else(|error| panic!("{error}: {line}")))
        })
    }
}

/// Finds the commands of the guide: blocks whose fence says `sh fleet` and the name of the step.
///
/// # Panics
/// If a block does not end, or there is none.
fn steps(readme: &str) -> VecDeque<(String, String)> {
    let mut steps = VecDeque::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```sh fleet ") else {
            continue;
        };
        let mut commands = String::new();
        loop {
            match lines.next().expect("a block ends") {
                "```" => break,
                command => commands.extend([command, "\n"]),
            }
        }
        steps.push_back((name.to_owned(), commands));
    }
    assert!(!steps.is_empty(), "no `sh fleet` block in the guide");
    steps
}

/// The nodes that the guide begins with.
const NODES: [&str; 6] = [
    "authority-1",
    "relay-1",
    "collector-1",
    "gateway-1",
    "gateway-2",
    "gateway-3",
];
/// Files that the guide takes.
const EXAMPLES: [&str; 5] = [
    "authority.toml",
    "relay-fleet.toml",
    "collector-fleet.toml",
    "gateway-fleet.toml",
    "policy.cedar",
];
