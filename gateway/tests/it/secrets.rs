//! Secrets stay where they belong: planted ones are looked for in everything that a fleet says, writes and starts.
//!
//! A panic cannot be brought about from outside, so that its text is not among what is looked through.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use fieldgate_mqtt::version::ProtocolVersion;
use fieldgate_proto::trust::Ticket;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{
    broker::publish,
    client::{Client, Received},
    guarded::{SOFTHSM, give_token},
    node::{Node, json, text},
    ports,
    process::{Process, command, fieldgate, run, run_with_input},
    trusted::{SEALED, Trusted},
    wait::until,
};

const PIN: &str = "Quokka-PIN-58213";
const PASSPHRASE_FILE: &str = "Numbat-passphrase-in-a-file-77120";
const PASSPHRASE_ENVIRONMENT: &str = "Bilby-passphrase-in-the-environment-40961";
const PASSWORD: &str = "Wombat-password-of-a-device-99173";
const PASSWORD_WRONG: &str = "Potoroo-password-that-is-wrong-31337";
const PIN_WRONG: &str = "Dunnart-PIN-that-is-wrong-60606";
const VARIABLE: &str = "FIELDGATE_TEST_PASSPHRASE";

/// What must not be found: names and bytes.
struct Planted(Vec<(String, Vec<u8>)>);

impl Planted {
    fn new() -> Self {
        let mut planted = Self(Vec::new());
        for (name, secret) in [
            ("PIN", PIN),
            ("passphrase of a file", PASSPHRASE_FILE),
            ("passphrase of a variable", PASSPHRASE_ENVIRONMENT),
            ("password of a device", PASSWORD),
            ("wrong password", PASSWORD_WRONG),
            ("wrong PIN", PIN_WRONG),
        ] {
            planted.add(name, secret.as_bytes());
        }
        planted
    }

    /// Adds a secret in every form in which bytes are printed.
    fn add(&mut self, name: &str, secret: &[u8]) {
        let list = format!("{secret:?}");
        let forms = [
            secret.to_vec(),
            HEXLOWER.encode(secret).into_bytes(),
            HEXUPPER.encode(secret).into_bytes(),
            BASE64.encode(secret).into_bytes(),
            BASE64_NOPAD.encode(secret).into_bytes(),
            BASE64URL_NOPAD.encode(secret).into_bytes(),
            list.trim_matches(['[', ']']).as_bytes().to_vec(),
        ];
        self.0
            .extend(forms.into_iter().map(|form| (name.to_owned(), form)));
    }

    /// Returns the name of a secret in there.
    fn find(&self, bytes: &[u8]) -> Option<&str> {
        // One pass for all: logs and segments of the journal are long.
        let mut begins = [false; 256];
        for (_, form) in &self.0 {
            begins[usize::from(form[0])] = true;
        }
        let places = bytes
            .iter()
            .enumerate()
            .filter(|(_, first)| begins[usize::from(**first)]);
        places
            .flat_map(|(place, _)| {
                self.0
                    .iter()
                    .filter(move |(_, form)| bytes[place..].starts_with(form))
            })
            .map(|(name, _)| name.as_str())
            .next()
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, bytes: &[u8]) {
        if let Some(name) = self.find(bytes) {
            panic!("{name} in {place}: {}", String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn what_is_looked_for_would_be_found() {
    let planted = Planted::new();
    for text in [
        format!("a {PIN} b"),
        format!("{:?}", PIN.as_bytes()),
        HEXLOWER.encode(PIN.as_bytes()),
        format!("x={}", BASE64.encode(PIN.as_bytes())),
    ] {
        assert_eq!(planted.find(text.as_bytes()), Some("PIN"), "{text}");
    }
    assert_eq!(planted.find(b"Quokka"), None);
}

#[test]
fn no_secret_is_in_logs_arguments_environments_status_or_state() {
    let mut planted = Planted::new();
    let mut fleet = Trusted::new();
    let tls = plant(&mut fleet, &mut planted);
    fleet.create();
    let ticket = fleet.start(&["site=north"]);
    plant_ticket(&ticket, &mut planted);

    exercise(&fleet, tls);
    for node in [&fleet.authority, &fleet.collector, &fleet.gateway] {
        looks_clean(node, &planted);
    }
    for node in [&mut fleet.authority, &mut fleet.collector, &mut fleet.gateway] {
        // Their own environment is whoever's who starts them; what they start gets less.
        processes_are_clean(node, &planted);
        node.stop();
        let log = node.process().output().join("\n");
        assert!(
            log.contains("TRACE") || log.contains("DEBUG"),
            "the log of {} tells little: {log}",
            node.name
        );
        planted.assert_absent(&format!("the log of {}", node.name), log.as_bytes());
        files_are_clean(node, &planted);
    }
    wrong_secrets_are_not_repeated(&fleet, &planted);
}

/// Puts secrets where the nodes take them from; returns the port for TLS.
fn plant(fleet: &mut Trusted, planted: &mut Planted) -> u16 {
    let in_token = format!(
        "pkcs11 = \"pkcs11:token=fieldgate;object=gateway-1\"\nmodule = {SOFTHSM:?}\npin = {{ file = \"pin\" }}"
    );
    fleet.gateway.edit(SEALED, &in_token);
    give_token(&mut fleet.gateway, PIN);
    fleet
        .collector
        .write_secret("passphrase", PASSPHRASE_FILE.as_bytes());
    let by_variable = format!("passphrase = {{ env = \"{VARIABLE}\" }}");
    fleet
        .authority
        .edit("passphrase = { file = \"passphrase\" }", &by_variable);
    fleet.authority.set_environment(VARIABLE, PASSPHRASE_ENVIRONMENT);

    let (key, certificate) = (
        fleet.gateway.dir.join("tls.key"),
        fleet.gateway.dir.join("tls.crt"),
    );
    let mut make = command(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]);
    make.args(["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout"]);
    run(make.arg(&key).arg("-out").arg(&certificate)).expect(0);
    let pem = fs::read_to_string(&key).expect("the key was made");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64.decode(body.as_bytes()).expect("PEM is base64");
    // PKCS#8 of a key on P-256: the scalar begins at byte 36.
    planted.add("TLS key", &der[36..68]);
    planted.add(
        "TLS key, a line of its file",
        pem.lines().nth(1).expect("the key has lines").as_bytes(),
    );

    let hash = run_with_input(
        &mut fieldgate(["device", "password", "pump-7", "--stdin", "--json"]),
        PASSWORD.as_bytes(),
    );
    planted.assert_absent("the output of `device password --stdin`", hash.out.as_bytes());
    let hash = text(&json(&hash.expect(0).out), "password_hash");
    let port = ports::free();
    let more = format!(
        "[mqtt.tls]\nlisten = [\"127.0.0.1:{port}\"]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n\
         [[mqtt.device]]\nname = \"pump-7\"\npassword_hash = \"{hash}\"\n"
    );
    fleet.gateway.edit("anonymous = true\n", &more);
    port
}

/// The secret part of a ticket, and its text.
fn plant_ticket(ticket: &str, planted: &mut Planted) {
    planted.add("ticket", ticket.as_bytes());
    let parsed: Ticket = ticket.parse().expect("it is a ticket");
    let bytes = parsed.encode();
    let id = bytes
        .windows(16)
        .position(|window| window == parsed.id())
        .expect("its identifier is in it");
    let secret = id + 16;
    planted.add("secret of a ticket", &bytes[secret..secret + 16]);
}

/// Has everything happen in which secrets take part.
fn exercise(fleet: &Trusted, tls: u16) {
    let arguments = [
        "-V",
        "5",
        "-q",
        "1",
        "-t",
        "pump-7/temperature",
        "-m",
        "21.5",
        "-i",
        "pump-7",
        "-u",
        "pump-7",
    ];
    let right = [arguments.as_slice(), &["-P", PASSWORD]].concat();
    publish(fleet.mqtt, &right).expect(0);
    let certificate = fleet.gateway.dir.join("tls.crt");
    let certificate = certificate.to_str().expect("the path is text");
    let over_tls = [right.as_slice(), &["--cafile", certificate, "--insecure"]].concat();
    publish(([127, 0, 0, 1], tls).into(), &over_tls).expect(0);
    let wrong = [arguments.as_slice(), &["-P", PASSWORD_WRONG]].concat();
    assert_ne!(publish(fleet.mqtt, &wrong).code, 0);
    let mut client = Client::dial(fleet.mqtt, ProtocolVersion::V5).expect("it listens");
    let answer = client
        .log_in(PASSWORD_WRONG, Some((PASSWORD_WRONG, PASSWORD)))
        .expect("it answers");
    assert!(
        !matches!(
            answer,
            Received::ConnAck(fieldgate_mqtt::reason::ReasonCode::Success)
        ),
        "{answer:?}"
    );
    until("two readings in the file", || match fleet.lines() {
        2 => Ok(()),
        lines => Err(format!("there are {lines}")),
    });
}

/// What the commands say about a node.
fn looks_clean(node: &Node, planted: &Planted) {
    for words in [
        ["status", "--json"].as_slice(),
        &["status"],
        &["doctor", "--json"],
        &["doctor"],
        &["identity", "show", "--json"],
    ] {
        let ended = node.run(words);
        assert!(!ended.out.is_empty(), "{words:?} says nothing: {}", ended.err);
        let said = ended.out + &ended.err;
        planted.assert_absent(&format!("{words:?} of {}", node.name), said.as_bytes());
    }
    let (code, body) = crate::harness::scrape::get(node.metrics, "/metrics");
    assert_eq!(code, 200);
    planted.assert_absent("metrics", body.as_bytes());
}

/// What the system shows of a node, and of the process that holds its key.
fn processes_are_clean(node: &mut Node, planted: &Planted) {
    let pid = node.process().pid().as_raw_nonzero().get();
    let worker = worker(node);
    for pid in [pid, worker] {
        let line = fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
        assert!(!line.is_empty());
        planted.assert_absent("arguments", &line);
    }
    let environment = fs::read(format!("/proc/{worker}/environ")).expect("it runs");
    planted.assert_absent("the environment of the token worker", &environment);
    let names = String::from_utf8_lossy(&environment).into_owned();
    assert!(
        !names.contains(VARIABLE) && !names.contains("CREDENTIALS_DIRECTORY"),
        "{names}"
    );
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        let environment = fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
        planted.assert_absent("the environment of a child", &environment);
    }
}

fn worker(node: &Node) -> i32 {
    let status: Value = node.status();
    let pid = status["identity"]["worker"]["pid"].as_i64();
    pid.and_then(|pid| i32::try_from(pid).ok())
        .expect("a process holds the key")
}

/// What a node has left on the disk, but for the files in which the secrets were given to it.
fn files_are_clean(node: &Node, planted: &Planted) {
    let given = ["pin", "passphrase", "tls.key", "ticket"].map(|name| node.dir.join(name));
    let mut files = Vec::new();
    list(&node.dir, &mut files);
    assert!(
        files.iter().any(|file| file.ends_with("identity.history")),
        "{files:?}"
    );
    for file in files.iter().filter(|file| !given.contains(file)) {
        let bytes = fs::read(file).expect("the file is ours");
        planted.assert_absent(&file.display().to_string(), &bytes);
    }
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the directory is ours") {
        let entry = entry.expect("the directory is ours");
        let kind = entry.file_type().expect("it is there");
        if kind.is_dir() {
            list(&entry.path(), files);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
}

/// Secrets that are wrong, or stand where none may stand: the message names the place and not the secret.
fn wrong_secrets_are_not_repeated(fleet: &Trusted, planted: &Planted) {
    let said = |ended: crate::harness::process::Ended, code: i32, word: &str| {
        let ended = ended.expect(code);
        let text = ended.out + &ended.err;
        assert!(text.contains(word), "no {word:?} in {text}");
        planted.assert_absent("a refusal", text.as_bytes());
    };
    let gateway = &fleet.gateway;
    gateway.write_secret("pin", PIN_WRONG.as_bytes());
    said(gateway.run(&["run"]), 1, "PIN");
    said(gateway.run(&["run"]), 1, "PIN");
    fleet
        .collector
        .write_secret("passphrase", PASSPHRASE_ENVIRONMENT.as_bytes());
    said(fleet.collector.run(&["run"]), 1, "passphrase");

    gateway.edit("pin = { file = \"pin\" }", &format!("pin = \"{PIN}\""));
    let file = gateway.config.to_str().expect("the path is text");
    said(gateway.run(&["run"]), 2, "pin");
    said(run(&mut fieldgate(["check", file])), 2, "pin");
    said(run(&mut fieldgate(["check", "--json", file])), 2, "pin");
    said(gateway.run(&["identity", "show"]), 2, "pin");
    gateway.edit(
        &format!("pin = \"{PIN}\""),
        &format!("pin = {{ file = \"pin\", value = \"{PIN}\" }}"),
    );
    said(run(&mut fieldgate(["check", file])), 2, "pin");
    let collector = &fleet.collector;
    let file = collector.config.to_str().expect("the path is text");
    collector.edit("{ file = \"passphrase\" }", &format!("\"{PASSPHRASE_FILE}\""));
    said(run(&mut fieldgate(["check", file])), 2, "passphrase");
    said(run(&mut fieldgate(["check", "--json", file])), 2, "passphrase");
}

/// Core dumps are asked for, and a program that does not refuse leaves one; node and token worker leave none.
#[test]
fn neither_node_nor_token_worker_leaves_a_core() {
    let mut fleet = Trusted::new();
    fleet.create();
    let dir = fleet.collector.dir.join("cores");
    fs::create_dir(&dir).expect("the directory is ours");
    let script = format!("ulimit -c unlimited && cd '{}' && exec \"$@\"", dir.display());
    let by = ["sh", "-c", &script, "sh"];

    let mut dumps = by.to_vec();
    dumps.extend(["sh", "-c", "echo up; exec sleep 600"]);
    let mut other = Process::spawn("a program that dumps", &mut command(&dumps));
    other.wait_for_text("up");
    assert!(
        abort(&mut other).core_dumped(),
        "this machine writes no core at all: allow them, kernel.core_pattern"
    );
    for file in fs::read_dir(&dir).expect("the directory is ours") {
        fs::remove_file(file.expect("the directory is ours").path()).expect("it is a core");
    }

    fleet.collector.start_by(&by);
    fleet.collector.start();
    let (node, worker) = (fleet.collector.process().pid(), worker(&fleet.collector));
    for pid in [node.as_raw_nonzero().get(), worker] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .expect("it is listed");
        assert_eq!(
            core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(),
            ["0", "0"],
            "{core}"
        );
    }
    kill_process(Pid::from_raw(worker).expect("it is a process"), Signal::ABORT).expect("it runs");
    fleet.collector.wait_status("another worker", |status| {
        status["identity"]["worker"]["restarts_crash"] == 1
    });
    assert!(!abort(fleet.collector.process()).core_dumped());
    let left: Vec<_> = fs::read_dir(&dir).expect("the directory is ours").collect();
    assert!(left.is_empty(), "{left:?}");
}

fn abort(process: &mut Process) -> ExitStatus {
    process.signal(Signal::ABORT);
    let status = process.wait();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    status
}
