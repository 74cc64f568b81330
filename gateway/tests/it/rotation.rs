//! Identities that change their key: while readings flow, while the other end is away, and in a fleet with an authority.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use fieldgate_mqtt::{reason::ReasonCode, version::ProtocolVersion};
use serde_json::Value;

use crate::harness::{
    client::{Client, Received},
    guarded::{self, SOFTHSM, give_token},
    node::{Node, json, text},
    process::{command, run},
    site::{DEVICE, Site},
    trusted::{self, SEALED, Trusted},
    wait::until,
};

const PIN: &str = "271828";

/// The three nodes of the examples, each with its key in a token of its own.
fn site() -> Site {
    let (mut site, ()) = guarded::site(|gateway| give_token(gateway, PIN));
    for node in [&mut site.relay, &mut site.collector] {
        into_token(node);
    }
    // The identities of the sealed files are nobody's any more; the files name the new ones.
    for name in ["relay", "collector"] {
        let node = if name == "relay" {
            &site.relay
        } else {
            &site.collector
        };
        let before = node.identifier();
        std::fs::remove_file(node.dir.join("state/identity.history")).expect("it was made");
        let after = node.create_identity();
        for (node, _) in site.nodes() {
            let file = std::fs::read_to_string(&node.config).expect("it was written");
            // Not every file names every node.
            if file.contains(&before) {
                node.edit(&before, &after);
            }
        }
    }
    site
}

/// Moves the key of a node into a token.
fn into_token(node: &mut Node) {
    let in_token = format!(
        "pkcs11 = \"pkcs11:token=fieldgate;object={}\"\nmodule = {SOFTHSM:?}\npin = {{ file = \"pin\" }}",
        node.name
    );
    node.edit(SEALED, &in_token);
    give_token(node, PIN);
}

/// Private keys in the token of a node.
fn keys_in_token(node: &Node) -> usize {
    let words = [
        "pkcs11-tool",
        "--module",
        SOFTHSM,
        "--token-label",
        "fieldgate",
        "--login",
    ];
    let mut list = command(&words);
    list.args(["--pin", PIN, "--list-objects", "--type", "privkey"]);
    let listed = run(list.env("SOFTHSM2_CONF", node.dir.join("softhsm2.conf"))).expect(0);
    // Beside them lies the RSA key that protects the journal.
    listed.out.matches("Private Key Object; EC").count()
}

/// Rotates, and returns how many keys the identity has had; the identifier stays.
fn rotate(node: &Node, more: &[&str]) -> u64 {
    let before = node.identifier();
    let words = [&["identity", "rotate", "--json"], more].concat();
    let shown = json(&node.run(&words).expect(0).out);
    assert_eq!(text(&shown, "identifier"), before);
    assert_eq!(node.identifier(), before);
    shown["keys"].as_u64().expect("it is a number")
}

/// Handshakes completed by a node since its start.
fn handshakes(node: &Node) -> u64 {
    let status = node.status();
    status["network"]["handshakes"].as_u64().expect("it is a number")
}

/// A device that publishes numbers one after the other, whatever becomes of the gateway.
struct Flow {
    acknowledged: Arc<Mutex<Vec<String>>>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Flow {
    fn start(to: SocketAddr, login: Option<(&str, &str)>) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = channel();
        let login = login.map(|(name, password)| (name.to_owned(), password.to_owned()));
        let taken = Arc::clone(&acknowledged);
        let thread = thread::spawn(move || {
            let mut next = 1;
            // A connection ends with the gateway; the number that was not acknowledged comes again in the next.
            while converse(to, login.as_ref(), &stopped, &mut next, &taken).is_err() {
                if is_over(&stopped) {
                    return;
                }
            }
        });
        Self {
            acknowledged,
            stop,
            thread,
        }
    }

    fn acknowledged(&self) -> Vec<String> {
        let taken = self.acknowledged.lock();
        taken.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a reading arrives that was acknowledged after now.
    fn wait_arrival(&self, readings: impl Fn() -> Vec<Value>) {
        let before = self.acknowledged().len();
        until("a new reading at the other end", || {
            let fresh: BTreeSet<String> = self.acknowledged().into_iter().skip(before).collect();
            let arrived = payloads(&readings());
            match fresh.intersection(&arrived).next() {
                Some(_) => Ok(()),
                None => Err(format!("{} acknowledged, {} arrived", fresh.len(), arrived.len())),
            }
        });
    }

    /// Ends it, and waits until everything that was acknowledged has arrived; nothing stands twice.
    fn finish(self, readings: impl Fn() -> Vec<Value>) {
        let acknowledged: BTreeSet<String> = {
            self.stop.send(()).expect("it runs until it is stopped");
            self.thread.join().expect("the device found something wrong");
            let taken = self.acknowledged.lock();
            taken.unwrap_or_else(PoisonError::into_inner).drain(..).collect()
        };
        until("everything that was acknowledged", || {
            let arrived = payloads(&readings());
            let missing: Vec<_> = acknowledged.difference(&arrived).collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("missing: {missing:?}"))
            }
        });
        let ids: Vec<String> = readings().iter().map(|reading| text(reading, "id")).collect();
        let unique: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len(), "one stands twice");
    }
}

/// Publishes over one connection until it is told to stop.
fn converse(
    to: SocketAddr,
    login: Option<&(String, String)>,
    stopped: &Receiver<()>,
    next: &mut u64,
    acknowledged: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let login = login.map(|(name, password)| (name.as_str(), password.as_str()));
    let mut client = Client::connect(to, ProtocolVersion::V5, DEVICE, login)?;
    let topic = format!("{DEVICE}/count");
    loop {
        let packet = u16::try_from(*next % 60_000 + 1).expect("it is below 60,001");
        let payload = next.to_string();
        match client.publish_and_wait(packet, &topic, payload.as_bytes())? {
            Received::PubAck(taken, ReasonCode::Success) if taken == packet => {
                let mut all = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                all.push(payload);
                *next += 1;
            }
            Received::End | Received::Disconnect(_) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            other => panic!("an acknowledgement was expected, not {other:?}"),
        }
        if is_over(stopped) {
            return Ok(());
        }
    }
}

/// Waits between two readings; returns whether the device was told to stop meanwhile.
fn is_over(stopped: &Receiver<()>) -> bool {
    stopped.recv_timeout(Duration::from_millis(20)) != Err(RecvTimeoutError::Timeout)
}

fn payloads(readings: &[Value]) -> BTreeSet<String> {
    readings.iter().map(|reading| text(reading, "payload")).collect()
}

/// Reads what a collector has written.
fn readings_of(collector: &Node) -> Vec<Value> {
    // It comes with the first start.
    let file = std::fs::read_to_string(collector.dir.join("readings.jsonl")).unwrap_or_default();
    let complete = file.rfind('\n').map_or("", |end| &file[..end]);
    complete.lines().map(json).collect()
}

#[test]
fn every_node_of_a_site_changes_its_key_while_readings_flow() {
    let mut site = site();
    // The collector has each gateway prove with its key that it is there: the proof is by the new key as well.
    let policy = "permit (principal, action, resource) when { principal.named && context.granted };\n\
                  forbid (principal, action == Fieldgate::Action::\"publish\", resource) unless { context.liveProof };\n";
    std::fs::write(site.collector.dir.join("policy.cedar"), policy).expect("the directory is ours");
    site.collector.append("[trust]\npolicy = \"policy.cedar\"\n");
    site.start();
    let flow = Flow::start(site.mqtt, Some((DEVICE, &site.password)));
    flow.wait_arrival(|| site.readings());
    site.gateway.wait_healthy();

    // Channels that are open go on.
    let before = site.nodes().map(|(node, _)| handshakes(node));
    for (node, _) in site.nodes() {
        assert_eq!(rotate(node, &[]), 2, "{}", node.name);
        assert_eq!(keys_in_token(node), 2, "the old key of {} stays", node.name);
        flow.wait_arrival(|| site.readings());
    }
    assert_eq!(
        site.nodes().map(|(node, _)| handshakes(node)),
        before,
        "new connections"
    );

    // New ones take the new key, whoever of the two ends is new; the key is found again after a start.
    for index in 0..3 {
        let node = [&mut site.gateway, &mut site.relay, &mut site.collector]
            .into_iter()
            .nth(index);
        let node = node.expect("there are three");
        node.stop();
        node.start();
        flow.wait_arrival(|| site.readings());
    }
    site.gateway.wait_healthy();

    // A third key; the two before it leave the token, and the nodes go on.
    for (node, _) in site.nodes() {
        assert_eq!(rotate(node, &["--destroy-old"]), 3, "{}", node.name);
        assert_eq!(keys_in_token(node), 1, "{}", node.name);
        flow.wait_arrival(|| site.readings());
    }
    for node in [&mut site.collector, &mut site.relay, &mut site.gateway] {
        node.kill();
        node.start();
    }
    flow.wait_arrival(|| site.readings());
    flow.finish(|| site.readings());
    site.gateway.wait_healthy();
}

#[test]
fn a_gateway_that_was_away_while_keys_changed_comes_back() {
    let mut site = site();
    site.start();
    let flow = Flow::start(site.mqtt, Some((DEVICE, &site.password)));
    flow.wait_arrival(|| site.readings());

    // The others change theirs, twice, while it is away.
    site.gateway.stop();
    for keys in [2, 3] {
        assert_eq!(rotate(&site.collector, &[]), keys);
        assert_eq!(rotate(&site.relay, &[]), keys);
    }
    site.gateway.start();
    flow.wait_arrival(|| site.readings());

    // It changes its own while it is away, and the kind of key with it.
    site.gateway.stop();
    let told = site
        .gateway
        .run(&["identity", "rotate", "--algorithm", "ed25519"])
        .expect(0);
    assert!(told.out.contains("No node is running"), "{}", told.out);
    assert!(told.out.contains("Ed25519, 2 in all"), "{}", told.out);
    site.gateway.start();
    flow.wait_arrival(|| site.readings());

    // All change theirs while nobody runs.
    for node in [&mut site.gateway, &mut site.collector, &mut site.relay] {
        node.stop();
        rotate(node, &["--destroy-old"]);
        assert_eq!(keys_in_token(node), 1);
    }
    site.start();
    flow.wait_arrival(|| site.readings());
    flow.finish(|| site.readings());
    site.wait_healthy();
}

#[test]
fn a_copy_of_the_old_key_is_refused_by_who_knows_the_new_one() {
    let mut site = site();
    site.start();
    let flow = Flow::start(site.mqtt, Some((DEVICE, &site.password)));
    flow.wait_arrival(|| site.readings());
    let history = site.gateway.dir.join("state/identity.history");
    let old = std::fs::read(&history).expect("it was made");
    rotate(&site.gateway, &[]);
    // The others learn of the new key when the gateway comes anew.
    site.gateway.stop();
    site.gateway.start();
    flow.wait_arrival(|| site.readings());
    site.gateway.stop();
    let new = std::fs::read(&history).expect("it was made");
    std::fs::write(&history, old).expect("the directory is ours");
    site.gateway.start();
    let failures = |node: &Node| {
        let status = node.try_status()?;
        Ok::<u64, String>(status["network"]["handshake_failures"].as_u64().unwrap_or(0))
    };
    let before = failures(&site.relay).expect("it runs");
    until("the relay refuses the old key", || {
        let now = failures(&site.relay)?;
        (now > before)
            .then_some(())
            .ok_or_else(|| format!("{now} failures"))
    });
    let count = site.readings().len();
    site.gateway.stop();
    assert_eq!(site.readings().len(), count, "something came with the old key");
    std::fs::write(&history, new).expect("the directory is ours");
    site.gateway.start();
    flow.wait_arrival(|| site.readings());
    flow.finish(|| site.readings());
}

#[test]
fn a_fleet_goes_on_when_its_authority_and_its_members_change_their_keys() {
    let mut fleet = Trusted::new();
    for node in [&mut fleet.authority, &mut fleet.collector, &mut fleet.gateway] {
        into_token(node);
    }
    fleet.create();
    fleet.authority.start();
    fleet.authority.wait_healthy();
    fleet.collector.start();
    fleet.gateway.start();
    trusted::enrol(&fleet.authority, &mut fleet.collector, &[]);
    // The authority has its new key by the time the gateway enrols; the collector learns of it from the gateway.
    assert_eq!(rotate(&fleet.authority, &[]), 2);
    trusted::enrol(&fleet.authority, &mut fleet.gateway, &[]);
    let flow = Flow::start(fleet.mqtt, None);
    let member = |node: &Node| {
        node.wait_status(&format!("{} is a member", node.name), |status| {
            let trust = &status["trust"];
            status["health"] == "healthy" && trust["connected"] == true && trust["list"] == "fresh"
        })
    };
    flow.wait_arrival(|| readings_of(&fleet.collector));
    member(&fleet.collector);
    member(&fleet.gateway);

    let before = [&fleet.collector, &fleet.gateway].map(handshakes);
    for node in [&fleet.authority, &fleet.collector, &fleet.gateway] {
        rotate(node, &[]);
        flow.wait_arrival(|| readings_of(&fleet.collector));
    }
    assert_eq!(
        [&fleet.collector, &fleet.gateway].map(handshakes),
        before,
        "new connections"
    );

    // Each comes back with its new key, and is known: the authority and a member that was away when its authority changed.
    fleet.gateway.stop();
    rotate(&fleet.authority, &["--destroy-old"]);
    assert_eq!(keys_in_token(&fleet.authority), 1);
    for node in [&mut fleet.authority, &mut fleet.collector] {
        node.stop();
        node.start();
    }
    rotate(&fleet.gateway, &["--destroy-old"]);
    fleet.gateway.start();
    flow.wait_arrival(|| readings_of(&fleet.collector));
    member(&fleet.collector);
    member(&fleet.gateway);
    let log = fleet.authority.run(&["authority", "log", "--verify"]).expect(0);
    assert!(log.out.contains("The log is intact"), "{}", log.out);
    flow.finish(|| readings_of(&fleet.collector));

    // What the authority decides with its new key is believed by all.
    let revoked = fleet.gateway.identifier();
    fleet
        .authority
        .run(&["member", "revoke", "gateway-1", "--reason", "a test"])
        .expect(0);
    fleet.collector.process().wait_for("closed channel", |line| {
        (line.contains("peer is revoked") && line.contains(&revoked)).then_some(())
    });
}
