//! An authority that runs as two processes over three NATS servers: what one decides counts at the other, whoever is killed.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use fieldgate_hsm::{Algorithm, Signer as _, SoftwareSigner};
use fieldgate_proto::{
    identity::{ChangeDraft, ChangeHistory, KeyAlgorithm, PublicKey},
    trust::{EnrolDraft, Ticket},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cluster::{Server, servers},
    harness::{
        node::Node,
        ports,
        process::run,
        site::{backend, private_dir},
        trusted::SEALED,
    },
};

struct Authorities {
    /// Both have the same identity.
    both: [Node; 2],
    servers: Vec<Server>,
    /// Where each takes links.
    public: [SocketAddr; 2],
    identifier: String,
    dir: TempDir,
}

impl Authorities {
    /// Makes files and the identity, of which the second gets a copy.
    fn new(server_count: usize) -> Self {
        let dir = private_dir();
        let address = || SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let servers = servers(dir.path(), None, server_count);
        let all: Vec<String> = servers
            .iter()
            .map(|server| format!("\"{}\"", server.address))
            .collect();
        let public = [address(), address()];
        let both = [0, 1].map(|index| {
            let node = Node::new(dir.path(), &format!("authority-{index}"), address());
            node.write(&head(&node));
            node.append(&format!(
                "[link.tcp]\nlisten = [\"{link}\"]\n[authority]\npublic = [\"{link}\"]\n\
                 [authority.cluster]\nservers = [{servers}]\nreplicas = {server_count}\n\
                 key = {{ file = \"cluster.key\" }}\nfound = {founds}\n",
                link = public[index],
                servers = all.join(", "),
                founds = index == 0,
            ));
            node.write_secret("cluster.key", &[b'k'; 64]);
            node
        });
        let identifier = both[0].create_identity();
        fs::create_dir_all(both[1].dir.join("state")).expect("the directory is ours");
        for file in ["identity.key", "state/identity.history"] {
            fs::copy(both[0].dir.join(file), both[1].dir.join(file)).expect("the identity was made");
        }
        assert_eq!(both[1].identifier(), identifier);
        Self {
            both,
            servers,
            public,
            identifier,
            dir,
        }
    }

    /// Starts everything and waits until both can decide.
    fn start(&mut self) {
        for server in &mut self.servers {
            server.start();
        }
        for node in &mut self.both {
            node.spawn();
        }
        for node in &mut self.both {
            node.wait_ready();
            node.wait_healthy();
            wait_following(node);
        }
    }

    /// Makes a ticket at one of them, in a file of the test.
    fn ticket(&self, at: usize, name: &str) -> PathBuf {
        let file = self.dir.path().join(format!("{name}.ticket"));
        self.both[at]
            .run(&["ticket", "issue", "--name", name, "--out", text(&file)])
            .expect(0);
        file
    }

    /// Makes the request of somebody new, in a file.
    fn request(&self, ticket: &Path, name: &str) -> (ChangeHistory, PathBuf) {
        let ticket = fs::read_to_string(ticket).expect("it was written");
        let ticket: Ticket = ticket.trim().parse().expect("it is a ticket");
        let (mut signer, history) = identity();
        let draft = EnrolDraft::new(&ticket, &history, 0, [7; 16], "").expect("it fits");
        let signature = signer.sign(&draft.message()).expect("the key signs");
        let request = draft.finish(&signature).expect("the key has signed");
        let path = self.dir.path().join(format!("{name}.request"));
        fs::write(&path, request).expect("the directory is ours");
        (history, path)
    }

    /// The command by which one of them answers a request.
    fn answering(&self, at: usize, request: &Path) -> Command {
        let number = RESPONSES.fetch_add(1, Ordering::Relaxed);
        let response = request.with_extension(format!("response-{number}"));
        let words = ["authority", "answer", text(request), "--out", text(&response)];
        self.both[at].command(&words)
    }

    /// Has one of them answer a request; whether it gave a credential.
    fn answer(&self, at: usize, request: &Path) -> Result<(), String> {
        let ended = run(&mut self.answering(at, request));
        if ended.code == 0 { Ok(()) } else { Err(ended.err) }
    }

    fn cluster(&self, at: usize) -> Value {
        self.both[at].status()["authority"]["cluster"].clone()
    }

    fn end(mut self) {
        for node in &mut self.both {
            node.kill();
        }
        for server in &mut self.servers {
            if server.running.is_some() {
                server.kill();
            }
        }
    }
}

/// Makes an identity that lives in this process.
fn identity() -> (SoftwareSigner, ChangeHistory) {
    let mut signer = SoftwareSigner::generate(Algorithm::Ed25519).expect("keys can be made");
    let key = PublicKey::new(KeyAlgorithm::Ed25519, signer.public_key().as_bytes(), 0);
    let draft = ChangeDraft::first(key.expect("it is a key"), 0);
    let own = signer.sign(&draft.message()).expect("the key signs");
    let history = draft.finish(own, None).expect("the key has signed");
    (signer, history)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

fn head(node: &Node) -> String {
    format!(
        "[node]\nname = \"{}\"\nstate_dir = \"state\"\ncontrol_socket = \"control.sock\"\nio = \"{}\"\n[identity]\n{SEALED}\n\
         [metrics]\nlisten = \"{}\"\n",
        node.name,
        backend(),
        node.metrics
    )
}

/// Waits until one of them follows the log and has a key to sign with.
fn wait_following(node: &Node) {
    node.wait_status("it follows the log", |status| {
        status["authority"]["ready"] == true && status["authority"]["cluster"]["halted"].is_null()
    });
}

fn wait_halted(node: &Node, why: &str) {
    let status = node.wait_status("it decides nothing", |status| {
        let halted = status["authority"]["cluster"]["halted"].as_str();
        halted.is_some_and(|halted| halted.contains(why))
    });
    assert_eq!(status["authority"]["ready"], false, "{status:#}");
    assert_eq!(status["health"], "degraded", "{status:#}");
}

#[test]
fn fifty_enrol_at_both_with_one_ticket_while_one_is_killed_and_one_succeeds() {
    const NODES: usize = 50;
    let mut fleet = Authorities::new(3);
    fleet.start();
    let ticket = fleet.ticket(0, "only-one");
    let requests: Vec<PathBuf> = (0..NODES)
        .map(|number| fleet.request(&ticket, &format!("node-{number}")).1)
        .collect();
    // Half of them ask each.
    let runs = [0, 1].map(|at| {
        let asking = requests.iter().skip(at).step_by(2);
        let commands: Vec<Command> = asking.map(|path| fleet.answering(at, path)).collect();
        thread::spawn(move || {
            let ended = commands
                .into_iter()
                .map(|mut command| run(&mut command).code == 0);
            ended.filter(|succeeded| *succeeded).count()
        })
    });
    // It may or may not have decided already, and may or may not have said so.
    fleet.both[1].kill();
    let told: usize = runs
        .map(|run| run.join().expect("it does not panic"))
        .iter()
        .sum();
    assert!(told <= 1, "{told} were told that they are enrolled");
    fleet.both[1].spawn();
    fleet.both[1].wait_ready();
    wait_following(&fleet.both[1]);
    // Everybody asks again, at both: whoever it was is told at each, and nobody else.
    for at in [0, 1] {
        let winners = requests.iter().filter(|path| fleet.answer(at, path).is_ok());
        assert_eq!(winners.count(), 1, "at authority {at}");
    }
    let shown = fleet.both[0].run(&["member", "list", "--json"]).expect(0).out;
    assert_eq!(shown.matches("only-one").count(), 1, "{shown}");
    for node in &fleet.both {
        node.run(&["authority", "log", "--verify"]).expect(0);
    }
    fleet.end();
}

#[test]
fn what_one_decides_the_other_knows_and_without_a_majority_of_servers_nobody_decides() {
    let mut fleet = Authorities::new(3);
    fleet.start();
    let ticket = fleet.ticket(0, "pump");
    let (subject, request) = fleet.request(&ticket, "pump");
    fleet.answer(1, &request).expect("the other knows the ticket");
    let identifier = subject.identifier().to_string();
    let before = fleet.both[1].status()["authority"]["list_number"].as_u64();

    fleet.both[0]
        .run(&["member", "revoke", &identifier, "--reason", "lost"])
        .expect(0);
    let number = fleet.both[0].status()["authority"]["list_number"].as_u64();
    assert!(number > before, "{number:?} after {before:?}");
    fleet.both[1].wait_status("the list of the other", |status| {
        status["authority"]["list_number"].as_u64() == number && status["authority"]["list_entries"] == 1
    });
    fleet.answer(1, &request).expect_err("it is revoked");

    // One server less: two are a majority.
    fleet.servers[0].kill();
    for at in [0, 1] {
        wait_following(&fleet.both[at]);
    }
    let ticket = loop_until_issued(&fleet, "valve");
    let (_, request) = fleet.request(&ticket, "valve");
    fleet.servers[1].kill();
    for node in &fleet.both {
        wait_halted(node, "the cluster's log is not reached");
    }
    let refused = fleet.answer(0, &request).expect_err("nothing can be decided");
    assert!(refused.contains("nothing was decided"), "{refused}");
    for server in [0, 1] {
        fleet.servers[server].start();
    }
    for node in &fleet.both {
        wait_following(node);
    }
    fleet.answer(1, &request).expect("everything is there");
    for at in [0, 1] {
        assert!(
            fleet.cluster(at)["taken"].as_u64() > Some(0),
            "{}",
            fleet.cluster(at)
        );
    }
    fleet.end();
}

/// Issues a ticket as soon as the servers have a leader again: what is asked in between is refused, and may be asked again.
fn loop_until_issued(fleet: &Authorities, name: &str) -> PathBuf {
    let file = fleet.dir.path().join(format!("{name}.ticket"));
    crate::harness::wait::until("a ticket", || {
        let words = ["ticket", "issue", "--name", name, "--out", text(&file)];
        let ended = fleet.both[0].run(&words);
        if ended.code == 0 { Ok(()) } else { Err(ended.err) }
    });
    file
}

#[test]
fn a_log_that_was_set_back_or_deleted_stops_both_and_another_can_be_begun() {
    let mut fleet = Authorities::new(1);
    fleet.start();
    fleet.ticket(0, "early");
    for at in [0, 1] {
        let wanted = fleet.cluster(0)["entry"].as_u64();
        fleet.both[at].wait_status("it has the entry", |status| {
            status["authority"]["cluster"]["entry"].as_u64() >= wanted
        });
    }
    // A backup of the server's files is put back later.
    fleet.servers[0].kill();
    let (files, backup) = (fleet.servers[0].dir.clone(), fleet.dir.path().join("backup"));
    fs::rename(files.join("jetstream"), &backup).expect("the directory is ours");
    copy(&backup, &files.join("jetstream"));
    fleet.servers[0].start();
    for node in &fleet.both {
        wait_following(node);
    }
    loop_until_issued(&fleet, "late");
    let entry = fleet.cluster(0)["entry"].as_u64();
    fleet.both[1].wait_status("it has the entry", |status| {
        status["authority"]["cluster"]["entry"].as_u64() >= entry
    });

    fleet.servers[0].kill();
    fs::remove_dir_all(files.join("jetstream")).expect("the directory is ours");
    fs::rename(&backup, files.join("jetstream")).expect("the directory is ours");
    fleet.servers[0].start();
    for node in &fleet.both {
        wait_halted(node, "it was set back or made anew");
    }
    fleet.servers[0]
        .running
        .as_ref()
        .expect("it runs")
        .delete("fieldgate-authority");
    for node in &fleet.both {
        wait_halted(node, "ends at entry 0");
    }
    // Both have everything, so the first begins another log, and the second gets a copy of its store.
    for node in &mut fleet.both {
        node.stop();
        node.append("stream = \"fieldgate-authority-2\"\n");
    }
    let store = |node: &Node| node.dir.join("state/authority.redb");
    fs::copy(store(&fleet.both[0]), store(&fleet.both[1])).expect("both are there");
    for node in &mut fleet.both {
        node.start();
    }
    for node in &fleet.both {
        wait_following(node);
    }
    let shown = fleet.both[1].run(&["ticket", "list", "--json"]).expect(0).out;
    assert!(shown.contains("early") && shown.contains("late"), "{shown}");
    fleet.end();
}

#[test]
fn a_member_finds_the_other_authority_when_one_is_killed() {
    let mut fleet = Authorities::new(1);
    fleet.start();
    let ticket = fleet.ticket(0, "pump");
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let mut node = Node::new(fleet.dir.path(), "pump", address);
    let [first, second] = fleet.public;
    node.write(&format!(
        "{}[trust]\nauthority = \"{}\"\ndirect = {{ address = \"{first}\", also = [\"{second}\"] }}\n\
         [link.tcp]\nlisten = [\"127.0.0.1:{}\"]\n[relay]\n",
        head(&node),
        fleet.identifier,
        ports::free(),
    ));
    node.create_identity();
    node.start();
    node.run(&["enroll", text(&ticket)]).expect(0);
    node.wait_ready();
    let is_connected =
        |status: &Value| status["trust"]["member"] == "pump" && status["trust"]["connected"] == true;
    node.wait_status("a member, connected", is_connected);
    for killed in [0, 1] {
        fleet.both[killed].kill();
        // The other may have been connected already.
        let revoked = &fleet.both[1 - killed];
        revoked.run(&["member", "show", "pump"]).expect(0);
        node.wait_status("connected to the other", is_connected);
        fleet.both[killed].start();
        wait_following(&fleet.both[killed]);
    }
    // A list of the other reaches it, whichever it is connected to.
    let spare = identity().1.identifier().to_string();
    fleet.both[1]
        .run(&["member", "add", &spare, "--name", "spare"])
        .expect(0);
    fleet.both[1]
        .run(&["member", "revoke", "spare", "--reason", "lost"])
        .expect(0);
    let number = fleet.both[1].status()["authority"]["list_number"].clone();
    node.wait_status("the list", |status| status["trust"]["list_number"] == number);
    node.kill();
    fleet.end();
}

/// Copies a directory with everything below.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the directory above is ours");
    for entry in fs::read_dir(from).expect("it is a directory") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("there is room");
        }
    }
}

/// Responses asked for: each goes into a file of its own.
static RESPONSES: AtomicU32 = AtomicU32::new(0);
