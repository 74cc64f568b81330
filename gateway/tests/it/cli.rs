//! The command line: what is printed, and with which exit code.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use crate::harness::{
    node::{Node, json, text},
    process::{Ended, fieldgate, run},
    site::{placed, private_dir, sealed},
    token,
};

#[test]
fn every_example_is_good() {
    for example in [
        "gateway",
        "relay",
        "collector",
        "gateway-minimal",
        "collector-minimal",
        "authority",
        "relay-fleet",
        "collector-fleet",
        "gateway-fleet",
        "gateway-listeners",
    ] {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../packaging/examples/{example}.toml"));
        let ended = run(fieldgate(["check"]).arg(&file)).expect(0);
        assert!(ended.out.contains(": good") && ended.err.is_empty(), "{ended:?}");
        let ended = run(fieldgate(["check", "--json"]).arg(&file)).expect(0);
        assert_eq!(json(&ended.out), serde_json::json!([]));
    }
}

#[test]
fn every_problem_of_a_file_is_named_at_once_with_line_and_cure() {
    let dir = private_dir();
    let file = dir.path().join("bad.toml");
    let text = "[node]\nnme = \"x\"\nio = \"fast\"\n[identity]\nfile = \"k\"\npassphrase = \"literal\"\n\
                [mqtt]\nlisten = [\"0.0.0.0:1883\"]\nanonymous = true\n[colector]\n";
    fs::write(&file, text).expect("the directory is ours");
    let keys = [
        "node.nme",
        "node.io",
        "identity.passphrase",
        "mqtt.anonymous",
        "colector",
    ];
    let lines = [2, 3, 6, 9, 10];

    let ended = run(fieldgate(["check", "--json"]).arg(&file)).expect(2);
    let problems = json(&ended.out);
    let problems = problems.as_array().expect("a list");
    for (key, line) in keys.into_iter().zip(lines) {
        let problem = problems.iter().find(|problem| problem["key"] == key);
        let problem = problem.unwrap_or_else(|| panic!("{key} is not among {problems:#?}"));
        assert_eq!(
            (&problem["line"], &problem["severity"]),
            (&line.into(), &"error".into())
        );
        assert!(problem["help"].as_str().is_some_and(|help| !help.is_empty()));
    }
    let ended = run(fieldgate(["check"]).arg(&file)).expect(2);
    assert!(
        !ended.err.contains("literal") && !ended.out.contains("literal"),
        "a secret is shown"
    );
    for part in [
        "`nme`",
        "\"fast\"",
        "did you mean `collector`?",
        "dangerous_anonymous",
        "bad.toml:6:",
    ] {
        assert!(ended.err.contains(part), "no {part} in {}", ended.err);
    }
    // Other commands refuse the file in the same way and do nothing.
    for words in [
        &["run"][..],
        &["identity", "create"],
        &["journal", "status"],
        &["status"],
    ] {
        let ended = run(fieldgate(words).arg("--config").arg(&file)).expect(2);
        assert!(ended.err.contains("\"fast\""), "{ended:?}");
    }
    assert!(!dir.path().join("k").exists());
}

#[test]
fn a_file_that_is_not_there_is_wrong_input() {
    for words in [
        &["check", "/nowhere/x.toml"][..],
        &["run", "--config", "/nowhere/x.toml"],
    ] {
        let ended = run(&mut fieldgate(words)).expect(2);
        assert!(ended.err.contains("/nowhere/x.toml"), "{ended:?}");
    }
}

#[test]
fn an_identity_is_made_once_and_the_second_try_names_the_file() {
    let (_dir, node) = relay();
    node.write_secret("passphrase", b"typed by a person\n");
    let made = json(&node.run(&["identity", "create", "--json"]).expect(0).out);
    assert_eq!(made["algorithm"], "ECDSA P-256");
    let identifier = text(&made, "identifier");
    let key = node.dir.join("identity.key");
    let sealed = fs::read(&key).expect("the key is there");

    let ended = node.run(&["identity", "create"]).expect(1);
    assert!(
        ended.err.contains("identity.") && ended.err.contains("help:"),
        "{}",
        ended.err
    );
    assert_eq!(
        fs::read(&key).expect("the key is there"),
        sealed,
        "the key was touched"
    );
    let shown = node.run(&["identity", "show"]).expect(0);
    assert_eq!(shown.out.lines().next(), Some(identifier.as_str()));
    assert_eq!(node.identifier(), identifier);

    node.write_secret("passphrase", b"typed by somebody else\n");
    let ended = node.run(&["run"]).expect(1);
    assert!(
        ended.err.contains("identity.key") && ended.err.contains("help:"),
        "{}",
        ended.err
    );
}

#[test]
fn an_identity_can_be_ed25519() {
    let (_dir, node) = relay();
    let made = node
        .run(&["identity", "create", "--algorithm", "ed25519", "--json"])
        .expect(0);
    assert_eq!(json(&made.out)["algorithm"], "Ed25519");
}

#[test]
fn a_node_without_identity_says_how_to_make_one() {
    let (_dir, node) = relay();
    for words in [&["run"][..], &["identity", "show"]] {
        let ended = node.run(words).expect(1);
        assert!(ended.err.contains("fieldgate identity create"), "{}", ended.err);
    }
}

#[test]
fn a_wrong_pin_ends_the_start_with_one_clear_error() {
    let dir = private_dir();
    let mut node = Node::new(dir.path(), "relay-1", UNUSED);
    token::give(&mut node);
    node.write(&placed("relay").replace("{ credential = \"fieldgate-pin\" }", "{ file = \"pin\" }"));
    node.write_secret("pin", token::PIN.as_bytes());
    node.create_identity();

    node.write_secret("pin", b"000000");
    let ended = node.run(&["run"]).expect(1);
    assert!(
        ended.err.to_lowercase().contains("pin") && ended.err.contains("help:"),
        "{}",
        ended.err
    );
    assert!(!ended.err.contains("000000"), "the PIN is shown: {}", ended.err);
    assert_eq!(ended.err.matches("error:").count(), 1, "{}", ended.err);
}

#[test]
fn every_command_has_help_and_a_wrong_word_is_wrong_input() {
    let commands: [&[&str]; 18] = [
        &[],
        &["demo"],
        &["run"],
        &["check"],
        &["config"],
        &["config", "schema"],
        &["config", "reference"],
        &["identity"],
        &["identity", "create"],
        &["identity", "show"],
        &["device"],
        &["device", "password"],
        &["journal"],
        &["journal", "status"],
        &["journal", "verify"],
        &["journal", "dump"],
        &["status"],
        &["completions"],
    ];
    for words in commands {
        let ended = run(fieldgate(words).arg("--help")).expect(0);
        assert!(ended.out.contains("Usage: fieldgate"), "{words:?}: {ended:?}");
        run(fieldgate(words).arg("--no-such-option")).expect(2);
    }
    let version = run(&mut fieldgate(["--version"])).expect(0);
    assert_eq!(version.out, format!("fieldgate {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_password_is_made_in_the_form_that_the_device_needs() {
    for (flag, scheme) in [(None, "pbkdf2-sha256"), (Some("--scram"), "scram-sha-256")] {
        let words = ["device", "password", "pump-1", "--json"];
        let ended = run(fieldgate(words).args(flag)).expect(0);
        let made = json(&ended.out);
        let (password, text) = (made["password"].as_str(), made["password_hash"].as_str());
        let text = text.expect("a hash");
        assert!(text.starts_with(&format!("{scheme}$")), "{text}");
        let hash: fieldgate_adapters::password::PasswordHash = text.parse().expect("it is well formed");
        assert!(hash.verify(password.expect("it is shown once").as_bytes()));
        assert!(flag.is_none() || hash.iterations() >= 4_096, "RFC 7677 §4");
    }
}

#[test]
fn completions_are_taken_by_the_shell_they_are_for() {
    let script = run(&mut fieldgate(["completions", "bash"])).expect(0).out;
    assert!(script.contains("fieldgate") && script.contains("journal"));
    let ended = crate::harness::process::run_with_input(Command::new("bash").args(["-n"]), script.as_bytes());
    ended.expect(0);
    for shell in ["zsh", "fish"] {
        assert!(
            !run(&mut fieldgate(["completions", shell]))
                .expect(0)
                .out
                .is_empty()
        );
    }
}

#[test]
fn schema_and_reference_name_every_section() {
    let schema = json(&run(&mut fieldgate(["config", "schema"])).expect(0).out);
    let reference = run(&mut fieldgate(["config", "reference"])).expect(0).out;
    for section in [
        "node",
        "identity",
        "journal",
        "mqtt",
        "uplink",
        "link",
        "relay",
        "collector",
        "metrics",
    ] {
        assert!(schema["properties"][section].is_object(), "{section}");
        assert!(reference.contains(&format!("| `{section}` |")), "{section}");
    }
}

#[test]
fn status_without_a_node_says_what_to_look_at() {
    let (_dir, node) = relay();
    let ended = node.run(&["status"]).expect(1);
    assert!(
        ended.err.contains("control.sock") && ended.err.contains("help:"),
        "{}",
        ended.err
    );
    let ended: Ended = run(&mut fieldgate(["status", "--socket", "/nowhere/s", "--json"])).expect(1);
    assert!(
        ended.err.contains("/nowhere/s") && ended.out.is_empty(),
        "{ended:?}"
    );
}

#[test]
fn a_second_node_on_the_same_directory_does_not_start() {
    let mut site = crate::harness::site::Site::new().without_broker();
    site.gateway.start();
    let ended = site.gateway.run(&["run"]).expect(1);
    assert!(
        ended.err.contains("journal") && ended.err.contains("help:"),
        "{}",
        ended.err
    );
    site.gateway
        .wait_status("undisturbed", |status| status["name"] == "gateway-1");
}

/// A node with a file and no identity yet.
fn relay() -> (tempfile::TempDir, Node) {
    let dir = private_dir();
    let node = Node::new(dir.path(), "relay-1", UNUSED);
    node.write(&sealed(&placed("relay")));
    (dir, node)
}

/// Of nodes that never serve metrics.
const UNUSED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
