//! The operators' commands against a running authority, from the ticket to the verified log.

use std::os::unix::fs::PermissionsExt as _;

use clap::Parser as _;
use fieldgate_proto::trust::{EnrolResponse, Ticket};

use super::*;
use crate::{
    authority::rig::{Node, Running, credential},
    cli::{Cli, Command},
    control::tests::Served,
};

/// An authority with its control socket.
struct Site {
    served: Option<Served>,
    running: Option<Running>,
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let running = Running::start(&directory.path().join("store"));
        let served = Served::start(directory.path(), Some(&running), None);
        Self {
            served: Some(served),
            running: Some(running),
            directory,
        }
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().expect("the path is text").to_owned()
    }

    /// Runs a command line as a terminal would.
    fn run(&self, words: &[&str]) -> Result<(), Failure> {
        let socket = self.path("control");
        let words = ["fieldgate"]
            .iter()
            .chain(words)
            .copied()
            .chain(["--socket", socket.as_str()]);
        let command = Cli::try_parse_from(words)
            .expect("the words are a command")
            .command;
        if let Command::Ticket(command) = command {
            return super::super::ticket::run(command);
        }
        if let Command::Member(command) = command {
            return super::super::member::run(command);
        }
        let Command::Authority(command) = command else {
            panic!("{command:?}");
        };
        super::super::authority::run(command)
    }

    fn ok(&self, words: &[&str]) {
        self.run(words)
            .unwrap_or_else(|failure| panic!("{words:?}: {failure:?}"));
    }

    fn code(&self, words: &[&str]) -> u8 {
        self.run(words).expect_err("the command fails").code
    }

    /// Makes a ticket through a file.
    fn ticket(&self, name: &str, more: &[&str]) -> Ticket {
        let path = self.path(name);
        let mut words = vec!["ticket", "issue", "--out", path.as_str()];
        words.extend(more);
        self.ok(&words);
        let mode = std::fs::metadata(&path)
            .expect("the file is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).expect("the file can be read");
        assert!(text.ends_with('\n'));
        text.trim().parse().expect("the file holds a ticket")
    }

    /// Waits until the authority can sign.
    fn wait_until_ready(&self) {
        let handle = self.running.as_ref().expect("it runs").handle();
        while !handle.status().ready {
            std::thread::yield_now();
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.served.take());
        drop(self.running.take());
    }
}

#[test]
fn a_node_without_network_becomes_a_member() {
    let site = Site::new();
    let ticket = site.ticket(
        "ticket",
        &[
            "--name",
            "press-3",
            "--attribute",
            "site=north",
            "--hold",
            "press-*",
            "--reach",
            "collector",
        ],
    );
    let mut node = Node::new();
    let request = site.path("request");
    std::fs::write(&request, node.request(&ticket, "")).expect("the file is written");
    let response = site.path("response");
    site.wait_until_ready();
    site.ok(&["authority", "answer", &request, "--out", &response]);
    let bytes = std::fs::read(&response).expect("the file is there");
    let answer = EnrolResponse::decode(&bytes).expect("the response is one");
    let credential = credential(answer.presentation, Node::seeded(1).id());
    assert_eq!(
        (credential.subject, credential.name.as_str()),
        (node.id(), "press-3")
    );
    assert!(answer.status().expect("the list is one").is_some());
    // A response that exists is not replaced, and an answer can be had again.
    assert_eq!(
        site.code(&["authority", "answer", &request, "--out", &response]),
        2
    );
    let again = site.path("again");
    site.ok(&["authority", "answer", &request, "--out", &again]);
    // Somebody else with the same ticket is refused, and the operator hears why.
    let other = site.path("other");
    std::fs::write(&other, Node::new().request(&ticket, "")).expect("the file is written");
    let failure = site
        .run(&["authority", "answer", &other, "--out", &site.path("none")])
        .expect_err("the ticket is spent");
    assert!(failure.message.contains("used up"), "{failure:?}");
    assert!(failure.hint.is_some());
    for json in [&[][..], &["--json"]] {
        let with = |words: &[&str]| site.ok(&[words, json].concat());
        with(&["member", "list"]);
        with(&["member", "list", "--revoked"]);
        with(&["member", "show", "press-3"]);
        with(&["ticket", "list"]);
        with(&["authority", "status"]);
        with(&["authority", "log"]);
        with(&["authority", "log", "--from", "2", "--limit", "1"]);
        with(&["authority", "log", "--verify"]);
    }
}

#[test]
fn members_are_added_and_revoked() {
    let site = Site::new();
    let identifier = Node::new().id().to_string();
    site.ok(&[
        "member",
        "add",
        &identifier,
        "--name",
        "relay-1",
        "--administrator",
    ]);
    assert_eq!(site.code(&["member", "add", &identifier, "--name", "relay-2"]), 1);
    assert_eq!(
        site.code(&["member", "add", "fg1nonsense", "--name", "relay-2"]),
        2
    );
    assert_eq!(site.code(&["member", "show", "relay-2"]), 2);
    site.ok(&["member", "revoke", "relay-1", "--reason", "stolen"]);
    site.ok(&["member", "revoke", &identifier, "--reason", "stolen", "--json"]);
    site.ok(&["member", "list", "--revoked"]);
    assert_eq!(site.code(&["member", "add", &identifier, "--name", "relay-1"]), 1);
}

#[test]
fn tickets_are_listed_and_revoked() {
    let site = Site::new();
    site.ok(&["ticket", "list"]);
    let ticket = site.ticket("ticket", &["--uses", "5", "--expires", "2h", "--json"]);
    site.ok(&["ticket", "issue", "--qr"]);
    site.ok(&["ticket", "issue", "--json"]);
    let id = data_encoding::HEXLOWER.encode(ticket.id());
    site.ok(&["ticket", "revoke", &id]);
    site.ok(&["ticket", "revoke", &id, "--json"]);
    assert_eq!(site.code(&["ticket", "revoke", &"0".repeat(32)]), 1);
    assert_eq!(site.code(&["ticket", "revoke", "zero"]), 2);
    // A file that exists is not replaced, and no ticket is made for it.
    assert_eq!(site.code(&["ticket", "issue", "--out", &site.path("ticket")]), 2);
    let bad: [&[&str]; 6] = [
        &["--attribute", "site"],
        &["--attribute", "site=a", "--attribute", "site=b"],
        &["--name", "Press 3"],
        &["--name", "press-3", "--uses", "2"],
        &["--expires", "1s"],
        &["--hold", "a*b"],
    ];
    for words in bad {
        assert_eq!(site.code(&[&["ticket", "issue"], words].concat()), 2, "{words:?}");
    }
}

#[test]
fn a_saved_head_proves_that_the_log_was_not_rewritten() {
    let site = Site::new();
    site.wait_until_ready();
    site.ticket("one", &[]);
    let head = site.path("head");
    site.ok(&["authority", "log", "--save-head", &head]);
    site.ticket("two", &[]);
    site.ok(&["authority", "log", "--verify", "--against", &head]);
    // A head of somebody else, and something that is none.
    let other = site.path("other-head");
    let mut bytes = std::fs::read(&head).expect("the file is there");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&other, &bytes).expect("the file is written");
    assert_eq!(
        site.code(&["authority", "log", "--verify", "--against", &other]),
        2
    );
    // The store is lost, and another one founded in its place: its log is intact, but another one.
    let site = {
        let mut site = site;
        drop(site.served.take());
        drop(site.running.take());
        std::fs::remove_file(site.path("store")).expect("the store is there");
        let running = Running::start(&site.directory.path().join("store"));
        site.served = Some(Served::start(site.directory.path(), Some(&running), None));
        site.running = Some(running);
        site
    };
    site.wait_until_ready();
    for name in ["a", "b", "c"] {
        site.ticket(name, &[]);
    }
    site.ok(&["authority", "log", "--verify"]);
    assert_eq!(
        site.code(&["authority", "log", "--verify", "--against", &head]),
        1
    );
    assert_eq!(
        site.code(&["authority", "log", "--verify", "--against", &head, "--json"]),
        1
    );
}

#[test]
fn without_a_node_the_operator_is_told_so() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let socket = directory.path().join("control");
    let args = NodeArgs {
        config: PathBuf::new(),
        socket: Some(socket),
        json: false,
    };
    let operator = Operator::new(&args).expect("the socket is named");
    let failure = operator
        .ask(ManageRequest::LogHead {})
        .expect_err("nobody listens there");
    assert_eq!((failure.code, failure.hint.as_deref()), (1, Some(NO_NODE_HINT)));
}

#[test]
fn columns_stand_below_each_other() {
    let rows = vec![
        vec!["a".to_owned(), "long text".to_owned()],
        vec!["ünïcode".to_owned(), "x".to_owned()],
    ];
    assert_eq!(
        table(&["NAME", "WHAT"], &rows),
        "NAME     WHAT\na        long text\nünïcode  x\n"
    );
}
