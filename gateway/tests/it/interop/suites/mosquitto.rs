//! mosquitto's own tests of its broker. They are long, and some measure seconds: `cargo xtask suites` runs them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
};

use tempfile::TempDir;

use super::{installed, ours, site};
use crate::harness::{
    process::{Ended, command, run},
    site::{Site, private_dir},
};

#[test]
fn the_tests_of_mosquitto_end_as_known() {
    let site = site();
    let suite = Mosquitto::new(&site);
    let verdicts = verdicts();
    let scripts = suite.scripts();
    assert_eq!(
        scripts.keys().collect::<Vec<_>>(),
        verdicts.keys().collect::<Vec<_>>(),
        "each script of the suite has a verdict"
    );
    let waiting: Mutex<Vec<(usize, &String)>> = Mutex::new(
        verdicts
            .iter()
            .enumerate()
            .filter(|(_, (_, verdict))| **verdict != Verdict::Other)
            .map(|(number, (script, _))| (number, script))
            .collect(),
    );
    let wrong: Mutex<Vec<String>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((number, script)) = waiting.lock().ok().and_then(|mut all| all.pop()) {
                    // Its database is called after its port, and all scripts run in one directory.
                    let first = 2_000 + 10 * number;
                    let ports: Vec<String> = (first..first + scripts[script])
                        .map(|port| port.to_string())
                        .collect();
                    let ended = suite.run(script, &ports);
                    let expected = verdicts[script];
                    if (ended.code == 0) != (expected == Verdict::Passes) {
                        let what = format!("{script} is not what {expected:?} says: {ended:?}");
                        wrong.lock().expect("nobody panics").push(what);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("nobody panics");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_packet_sequences_of_mosquitto_end_as_known() {
    let site = site();
    let suite = Mosquitto::new(&site);
    let ended = suite.run("msg_sequence_test.py", &["1888".to_owned()]);
    let mut rules = rules();
    let mut unknown = Vec::new();
    for line in ended.out.lines() {
        let plain = line.replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
        let Some((name, said)) = plain.split_once(" failed: ") else {
            continue;
        };
        match rules.iter_mut().find(|rule| rule.takes(name, said)) {
            Some(rule) => rule.seen += 1,
            None => unknown.push(plain),
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    let miscounted: Vec<&Rule> = rules.iter().filter(|rule| rule.seen != rule.count).collect();
    assert!(miscounted.is_empty(), "{miscounted:#?}");
    let differ: usize = rules.iter().map(|rule| rule.count).sum();
    let sums = format!(
        "{SEQUENCES} tests total\n{} tests succeeded\n",
        SEQUENCES - differ
    );
    assert!(ended.out.ends_with(&sums), "{}", ended.err);
}

/// mosquitto's tests in a directory of this test, with a gateway where they look for their broker.
struct Mosquitto {
    dir: TempDir,
    /// What each gateway gets a copy of.
    template: PathBuf,
}

impl Mosquitto {
    fn new(site: &Site) -> Self {
        site.gateway
            .edit(&format!("\"{}\"", site.mqtt), "\"127.0.0.1:@PORT@\"");
        // The tests read what their broker says when it has ended: more would fill the pipe.
        site.gateway.append("\n[log]\nlevel = \"error\"\n");
        let dir = private_dir();
        let made = Self {
            dir,
            template: site.gateway.dir.clone(),
        };
        let tests = made.path("test");
        let copied = run(command(&["cp", "-r"])
            .arg(installed("suites/mosquitto/test"))
            .arg(&tests));
        copied.expect(0);
        let move_to = |from: &Path, to: &Path| {
            fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        };
        let module = tests.join("mosq_test.py");
        move_to(&module, &tests.join("mosq_test_theirs.py"));
        move_to(&ours().join("mosq_test.py"), &module);
        fs::create_dir(made.path("src")).expect("the directory is ours");
        let broker = made.path("src/mosquitto");
        move_to(&ours().join("mosquitto.py"), &broker);
        fs::set_permissions(&broker, fs::Permissions::from_mode(0o700)).expect("the file is ours");
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The scripts that the suite's own runner starts, with the number of ports each wants.
    fn scripts(&self) -> BTreeMap<String, usize> {
        let runner = fs::read_to_string(self.path("test/broker/test.py")).expect("the suite has it");
        runner
            .lines()
            .filter_map(|line| {
                let (ports, rest) = line.trim().strip_prefix('(')?.split_once(", './")?;
                let (script, _) = rest.split_once('\'')?;
                Some((script.to_owned(), ports.parse().ok()?))
            })
            .collect()
    }

    /// Runs a script in network and process namespaces of its own: some insist on a port, some leave their broker behind.
    fn run(&self, script: &str, ports: &[String]) -> Ended {
        assert!(
            rustix::process::geteuid().is_root(),
            "namespaces need root: run the tests as root, or in a container that has CAP_SYS_ADMIN"
        );
        let state = private_dir();
        let mut words = command(&[
            "timeout",
            "400",
            "unshare",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
        ]);
        words.args(["sh", "-c", "ip link set lo up && exec python3 \"$0\" \"$@\""]);
        words.arg(format!("./{script}")).args(ports);
        words.current_dir(self.path("test/broker"));
        self.environment(&mut words, state.path());
        run(&mut words)
    }

    fn environment(&self, words: &mut Command, state: &Path) {
        words.env("INTEROP_TEMPLATE", &self.template);
        words.env("INTEROP_FIELDGATE", env!("CARGO_BIN_EXE_fieldgate"));
        words.env("INTEROP_STATE", state);
        words.env("PYTHONDONTWRITEBYTECODE", "1");
    }
}

/// What becomes of a script of mosquitto's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It passes.
    Passes,
    /// It fails, for a reason that stands beside it.
    Differs,
    /// It is about something else than the protocol and not run.
    Other,
}

/// Reads `mosquitto.txt`.
fn verdicts() -> BTreeMap<String, Verdict> {
    lines("mosquitto.txt")
        .iter()
        .map(|line| {
            let mut words = line.split_whitespace();
            let verdict = match words.next() {
                Some("passes") => Verdict::Passes,
                Some("differs") => Verdict::Differs,
                Some("other") => Verdict::Other,
                _ => panic!("no verdict in {line:?}"),
            };
            let script = words.next().unwrap_or_else(|| panic!("no script in {line:?}"));
            assert!(
                (verdict == Verdict::Passes) == words.next().is_none(),
                "what does not pass has a reason: {line:?}"
            );
            (script.to_owned(), verdict)
        })
        .collect()
}

/// A line of `sequences.txt`.
#[derive(Debug)]
struct Rule {
    count: usize,
    name: String,
    said: String,
    seen: usize,
}

impl Rule {
    fn takes(&self, name: &str, said: &str) -> bool {
        matches(&self.name, name) && matches(&self.said, said)
    }
}

fn rules() -> Vec<Rule> {
    lines("sequences.txt")
        .iter()
        .map(|line| {
            let parts: Vec<&str> = line.split(" | ").collect();
            let [count, name, said, _why] = parts[..] else {
                panic!("not four parts: {line:?}")
            };
            Rule {
                count: count.parse().unwrap_or_else(|error| panic!("{error}: {line:?}")),
                name: name.to_owned(),
                // What came and what was expected stand beside each other with a bar, which parts the columns here.
                said: said.replace(" / ", " | "),
                seen: 0,
            }
        })
        .collect()
}

/// Returns whether `text` is what `pattern` says, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Lines of a file in `tests/interop` that are no comments.
fn lines(name: &str) -> Vec<String> {
    let path = ours().join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// Scripts at once; each waits more than it works.
const AT_ONCE: usize = 3;
/// Sequences in the files of the suite.
const SEQUENCES: usize = 1_486;
