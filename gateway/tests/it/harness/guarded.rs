//! Tokens with another module in front of them: one that fails on demand, or one that writes every call down.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{
    node::Node,
    ports,
    process::{command, run},
    site::{EXAMPLE_METRICS, EXAMPLE_RELAY, Site, placed, private_dir, sealed},
};

/// Gives the node a SoftHSM2 token `fieldgate` with `pin`, and a file `pin` that holds it.
///
/// # Panics
/// If SoftHSM2 is not installed or does not make it.
pub(crate) fn give_token(node: &mut Node, pin: &str) {
    let store = node.dir.join("tokens");
    fs::create_dir_all(&store).expect("the directory is ours");
    let config = node.dir.join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\n",
        store.display()
    );
    fs::write(&config, text).expect("the directory is ours");
    let config = config.to_str().expect("the path is text").to_owned();
    node.set_environment("SOFTHSM2_CONF", &config);
    node.write_secret("pin", pin.as_bytes());
    add_token(node, pin);
}

/// Adds a token `fieldgate` to the store that [`give_token`] has made.
///
/// # Panics
/// If SoftHSM2 does not make it.
pub(crate) fn add_token(node: &Node, pin: &str) {
    let words = ["softhsm2-util", "--init-token", "--free", "--label", "fieldgate"];
    let mut make = command(&words);
    make.args(["--so-pin", "12345678", "--pin", pin])
        .env("SOFTHSM2_CONF", node.dir.join("softhsm2.conf"));
    run(&mut make).expect(0);
}

/// A module in front of SoftHSM2, and where its files are.
pub(crate) struct Guard {
    dir: PathBuf,
}

impl Guard {
    /// Puts the module that fails on demand between the node and its token.
    ///
    /// # Panics
    /// If it was not built.
    pub(crate) fn faulty(node: &mut Node) -> Self {
        let guard = Self::new(node);
        guard.control("");
        fs::write(guard.dir.join("counts"), "").expect("the directory is ours");
        for (name, path) in [
            ("FIELDGATE_FAULTY_MODULE", PathBuf::from(SOFTHSM)),
            ("FIELDGATE_FAULTY_CONTROL", guard.dir.join("control")),
            ("FIELDGATE_FAULTY_COUNTS", guard.dir.join("counts")),
        ] {
            node.set_environment(name, path_text(&path));
        }
        let tests = env::current_exe().expect("this program has a path");
        let beside = tests.parent().expect("it lies in a directory");
        let module = beside.join("libfieldgate_faulty_token.so");
        assert!(module.exists(), "{} was not built", module.display());
        let sandbox = format!(
            "module = {:?}\nsandbox = {{ paths = [{:?}], environment = [\"FIELDGATE_FAULTY_CONTROL\", \
             \"FIELDGATE_FAULTY_COUNTS\", \"FIELDGATE_FAULTY_MODULE\"] }}",
            path_text(&module),
            path_text(&guard.dir)
        );
        node.edit(&format!("module = {SOFTHSM:?}"), &sandbox);
        guard
    }

    /// Puts `pkcs11-spy` between the node and its token. Its log has the PIN in it and lies in the test's private directory.
    ///
    /// # Panics
    /// If it is not installed.
    pub(crate) fn spy(node: &mut Node) -> Self {
        let guard = Self::new(node);
        node.set_environment("PKCS11SPY", SOFTHSM);
        node.set_environment("PKCS11SPY_OUTPUT", path_text(&guard.dir.join("calls")));
        let spy = find_spy();
        node.edit(
            &format!("module = {SOFTHSM:?}"),
            &format!("module = {:?}", path_text(&spy)),
        );
        guard
    }

    fn new(node: &Node) -> Self {
        let dir = node.dir.join("guard");
        fs::create_dir_all(&dir).expect("the directory is ours");
        Self { dir }
    }

    /// Tells the faulty module what to do from now on.
    ///
    /// # Panics
    /// If the file system says no.
    pub(crate) fn control(&self, lines: &str) {
        // At once: half a file would be an error.
        let fresh = self.dir.join("control.new");
        fs::write(&fresh, lines).expect("the directory is ours");
        fs::rename(fresh, self.dir.join("control")).expect("the directory is ours");
    }

    /// How often a function, such as `C_Login`, was called through the faulty module.
    pub(crate) fn calls(&self, function: &str) -> usize {
        let counts = fs::read_to_string(self.dir.join("counts")).unwrap_or_default();
        counts.lines().filter(|line| *line == function).count()
    }

    /// How many signatures the token gave, as the spy has seen it: calls of `C_Sign` that returned bytes, not those that asked
    /// for their number.
    pub(crate) fn signatures(&self) -> usize {
        let log = fs::read(self.dir.join("calls")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let mut is_sign = false;
        let mut found = 0;
        for line in log.lines() {
            if let Some(name) = line.split(": ").nth(1).filter(|name| name.starts_with("C_")) {
                is_sign = name.trim() == "C_Sign";
            }
            // With bytes the line has their address and number, without it says NULL.
            if is_sign && line.starts_with("[out] pSignature[") && !line.contains("NULL") {
                found += 1;
            }
        }
        found
    }
}

/// The three nodes of the examples; `prepare` gives the gateway its token, the others have sealed files. The collector has no
/// broker. Everything is on 127.0.0.1.
///
/// # Panics
/// If an example is not what it was, or the binary fails.
pub(crate) fn site<T>(prepare: impl FnOnce(&mut Node) -> T) -> (Site, T) {
    let dir = private_dir();
    let address = || ([127, 0, 0, 1], ports::free()).into();
    let nodes = ["gateway-1", "relay-1", "collector-1"].map(|name| Node::new(dir.path(), name, address()));
    let mut site = Site::of(dir, nodes, address(), address(), 1883);
    let (mqtt, link) = (site.mqtt.to_string(), site.link.to_string());
    for (node, example) in site.nodes() {
        let text = placed(example);
        node.write(&if example == "gateway" { text } else { sealed(&text) });
        node.edit(EXAMPLE_METRICS, &node.metrics.to_string());
    }
    site.gateway.edit("10.77.0.1:1883", &mqtt);
    site.gateway
        .edit("{ credential = \"fieldgate-pin\" }", "{ file = \"pin\" }");
    for node in [&site.gateway, &site.relay, &site.collector] {
        node.edit(EXAMPLE_RELAY, &link);
    }
    let prepared = prepare(&mut site.gateway);
    (site.finish().without_broker(), prepared)
}

fn find_spy() -> PathBuf {
    let roots = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    roots
        .map(|entry| entry.path())
        .flat_map(|root| [root.join("pkcs11/pkcs11-spy.so"), root.join("pkcs11-spy.so")])
        .find(|path| path.exists())
        .expect("pkcs11-spy is not installed: `cargo xtask setup` installs what the tests need")
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

/// The module of the examples.
pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
