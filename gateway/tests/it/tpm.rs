//! A gateway whose key a TPM holds: it shows how near the TPM is to its lockout.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{
    guarded::{self, Guard, give_token},
    node::Node,
    process::{Process, command, run},
    scrape,
    site::Site,
    wait::until,
};

/// A software TPM; its protected keys are those of SoftHSM2, as nobody asks it for more than its counter here.
struct Tpm {
    socket: PathBuf,
    _process: Process,
}

impl Tpm {
    /// Starts it and gives it something to guess at.
    fn start(dir: &Path) -> Self {
        let dir = dir.join("tpm");
        std::fs::create_dir(&dir).expect("the directory is ours");
        let socket = dir.join("tpm");
        let server = format!("type=unixio,path={}", socket.display());
        let control_path = dir.join("tpm.ctrl");
        let control = format!("type=unixio,path={}", control_path.display());
        let state = format!("dir={}", dir.display());
        let words = [
            "swtpm",
            "socket",
            "--tpm2",
            "--tpmstate",
            &state,
            "--server",
            &server,
        ];
        let mut start = command(&words);
        start.args(["--ctrl", &control, "--flags", "not-need-init,startup-clear"]);
        let process = Process::spawn("swtpm", &mut start);
        let tpm = Self {
            socket,
            _process: process,
        };
        until("swtpm", || {
            std::os::unix::net::UnixStream::connect(&control_path)
                .map(drop)
                .map_err(|error| error.to_string())
        });
        let define = ["tpm2_nvdefine", INDEX, "-C", "o", "-s", "8", "-p", "right"];
        run(tpm.tool(&define).args(["-a", "authread|authwrite"])).expect(0);
        tpm
    }

    /// Guesses wrongly, which the TPM counts.
    fn guess(&self) {
        let ended = run(&mut self.tool(&["tpm2_nvread", INDEX, "-C", INDEX, "-P", "wrong"]));
        assert!(ended.err.contains("DA counter incremented"), "{ended:?}");
    }

    fn tool(&self, words: &[&str]) -> std::process::Command {
        let mut tool = command(words);
        tool.env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.socket.display()));
        tool
    }
}

fn site_with(tpm: &Path) -> (Site, Guard) {
    guarded::site(|node| {
        give_token(node, "271828");
        node.edit(
            "[identity]\n",
            &format!("[identity]\ntpm = {:?}\n", tpm.display().to_string()),
        );
        Guard::faulty(node)
    })
}

/// Metrics of the TPM, as they are written.
fn tpm_samples(node: &Node) -> Vec<String> {
    let (_, body) = scrape::get(node.metrics, "/metrics");
    let samples = body.lines().filter(|line| line.starts_with("fieldgate_tpm_"));
    let mut samples: Vec<String> = samples.map(str::to_owned).collect();
    samples.sort_unstable();
    samples
}

fn wait_failures(node: &Node, failures: u64) -> Value {
    node.wait_status(&format!("{failures} failures"), |status| {
        status["identity"]["tpm"]["failures"] == failures
    })
}

#[test]
fn failures_that_a_tpm_counts_are_seen_before_it_locks_its_keys_up() {
    let dir = crate::harness::site::private_dir();
    let tpm = Tpm::start(dir.path());
    tpm.guess();
    let (mut site, token) = site_with(&tpm.socket);
    site.start();
    let status = wait_failures(&site.gateway, 1);
    assert_eq!(status["identity"]["tpm"]["failures_max"], 3);
    assert_eq!(status["identity"]["tpm"]["in_lockout"], false);
    site.wait_healthy();
    let text = site.gateway.run(&["status"]).expect(0).out;
    assert!(text.contains("TPM counts 1 of 3 failures"), "{text}");
    assert_eq!(
        tpm_samples(&site.gateway),
        [
            "fieldgate_tpm_lockout 0",
            "fieldgate_tpm_lockout_failures 1",
            "fieldgate_tpm_lockout_failures_max 3",
            "fieldgate_tpm_lockout_forgiven_seconds 1000",
        ]
    );
    // Where the key is in a file there is nothing to be seen.
    let status = site.relay.status();
    assert_eq!(status["identity"]["tpm"], Value::Null);
    assert_eq!(tpm_samples(&site.relay), [""; 0]);

    // A log-in that fails makes the gateway look again.
    tpm.guess();
    token.control("flags locked\n");
    let pid = status_pid(&site.gateway);
    kill_process(pid, Signal::KILL).expect("it runs");
    wait_failures(&site.gateway, 2);

    // And so does one that succeeds after all. By now the TPM is locked out, and that is not healthy.
    tpm.guess();
    token.control("");
    let status = wait_failures(&site.gateway, 3);
    assert_eq!(status["identity"]["tpm"]["in_lockout"], true);
    assert_eq!(status["health"], "degraded");
    let reasons = status["reasons"].to_string();
    assert!(reasons.contains("the TPM is locked out"), "{reasons}");
    assert!(tpm_samples(&site.gateway).contains(&"fieldgate_tpm_lockout 1".to_owned()));
}

#[test]
fn a_tpm_that_is_not_there_is_not_spoken_of() {
    let (mut site, _token) = site_with(Path::new("/nonexistent/tpmrm0"));
    site.start();
    site.wait_healthy();
    let status = site.gateway.status();
    assert_eq!(status["identity"]["tpm"], Value::Null);
    assert_eq!(tpm_samples(&site.gateway), [""; 0]);
    let logged = site.gateway.process().output().join("\n");
    assert!(!logged.contains("TPM"), "{logged}");
}

fn status_pid(node: &Node) -> Pid {
    let status = node.status();
    let pid = status["identity"]["worker"]["pid"].as_i64();
    let pid = pid
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    pid.expect("the worker has a number")
}

/// Of what is guessed at.
const INDEX: &str = "0x1500016";
