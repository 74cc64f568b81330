//! The three nodes of the examples in `packaging/examples`, on one machine.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    node::{Node, json, text},
    ports,
    process::{fieldgate, run},
    wait::until,
};

/// Gateway, relay and collector as the examples describe them.
pub(crate) struct Site {
    /// The gateway `gateway-1`.
    pub(crate) gateway: Node,
    /// The relay `relay-1`.
    pub(crate) relay: Node,
    /// The collector `collector-1`.
    pub(crate) collector: Node,
    /// Where the gateway takes MQTT.
    pub(crate) mqtt: SocketAddr,
    /// Where the relay takes links.
    pub(crate) link: SocketAddr,
    /// Port on which the collector expects the broker.
    pub(crate) broker: u16,
    /// Password of the device [`DEVICE`].
    pub(crate) password: String,
    dir: TempDir,
}

impl Site {
    /// Makes files and identities, with keys in sealed files, everything on 127.0.0.1.
    ///
    /// # Panics
    /// If an example is not what it was, or the binary fails.
    pub(crate) fn new() -> Self {
        let dir = private_dir();
        let address = || SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let [gateway, relay, collector] =
            ["gateway-1", "relay-1", "collector-1"].map(|name| Node::new(dir.path(), name, address()));
        let site = Self {
            gateway,
            relay,
            collector,
            mqtt: address(),
            link: address(),
            broker: ports::free(),
            password: String::new(),
            dir,
        };
        let (mqtt, link, broker) = (site.mqtt.to_string(), site.link.to_string(), site.broker);
        for (node, example) in site.nodes() {
            node.write(&sealed(&placed(example)));
            node.edit(EXAMPLE_METRICS, &node.metrics.to_string());
        }
        site.gateway.edit("10.77.0.1:1883", &mqtt);
        site.gateway.edit(EXAMPLE_RELAY, &link);
        site.relay.edit(EXAMPLE_RELAY, &link);
        site.collector.edit(EXAMPLE_RELAY, &link);
        site.collector
            .edit("127.0.0.1:1883", &format!("127.0.0.1:{broker}"));
        site.finish()
    }

    /// Makes the identities, and puts identifiers and a password into the files.
    pub(crate) fn finish(mut self) -> Self {
        let identifiers = self.nodes().map(|(node, _)| node.create_identity());
        for (node, _) in self.nodes() {
            for (example, identifier) in EXAMPLE_IDENTIFIERS.into_iter().zip(&identifiers) {
                // Not every file names every node.
                if read(&node.config).contains(example) {
                    node.edit(example, identifier);
                }
            }
        }
        let (password, hash) = device_password(DEVICE);
        self.gateway.edit(EXAMPLE_HASH, &hash);
        self.password = password;
        self
    }

    /// Puts the parts together; for sites that are laid out in another way. Files and identities are still to be made.
    pub(crate) fn of(
        dir: TempDir,
        nodes: [Node; 3],
        mqtt: SocketAddr,
        link: SocketAddr,
        broker: u16,
    ) -> Self {
        let [gateway, relay, collector] = nodes;
        Self {
            gateway,
            relay,
            collector,
            mqtt,
            link,
            broker,
            password: String::new(),
            dir,
        }
    }

    /// The nodes with the names of their examples.
    pub(crate) fn nodes(&self) -> [(&Node, &'static str); 3] {
        [
            (&self.gateway, "gateway"),
            (&self.relay, "relay"),
            (&self.collector, "collector"),
        ]
    }

    /// The private directory of the test.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts all three and waits until each is ready.
    pub(crate) fn start(&mut self) {
        self.relay.spawn();
        self.collector.spawn();
        self.gateway.spawn();
        self.relay.wait_ready();
        self.collector.wait_ready();
        self.gateway.wait_ready();
    }

    /// Waits until each says that it does what its file says.
    pub(crate) fn wait_healthy(&self) {
        for (node, _) in self.nodes() {
            node.wait_healthy();
        }
    }

    /// Arguments of a stock client that log the device in.
    pub(crate) fn login(&self) -> [&str; 6] {
        ["-u", DEVICE, "-P", &self.password, "-i", DEVICE]
    }

    /// The file of JSON lines.
    pub(crate) fn readings_file(&self) -> PathBuf {
        self.collector.dir.join("readings.jsonl")
    }

    /// Reads the JSON lines that are complete.
    ///
    /// # Panics
    /// If one is no JSON.
    pub(crate) fn readings(&self) -> Vec<Value> {
        // It comes with the first start.
        let text = fs::read_to_string(self.readings_file()).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(json).collect()
    }

    /// Waits until there are as many JSON lines, and returns them.
    pub(crate) fn wait_readings(&self, count: usize) -> Vec<Value> {
        until(&format!("{count} readings in the file"), || {
            let readings = self.readings();
            if readings.len() >= count {
                Ok(readings)
            } else {
                Err(format!("there are {}", readings.len()))
            }
        })
    }

    /// Removes the collector's MQTT sink, for tests that need no broker.
    ///
    /// # Panics
    /// If the example is not what it was.
    pub(crate) fn without_broker(self) -> Self {
        let address = format!("address = \"127.0.0.1:{}\"\n", self.broker);
        let sink = "[[collector.sink]]\nkind = \"mqtt\"\n".to_owned() + &address;
        self.collector
            .edit(&(sink + "topic = \"{gateway}/{path}\"\n"), "");
        self
    }
}

/// Makes a private directory with a short name: a UNIX socket's path has a bound.
///
/// # Panics
/// If the file system says no.
pub(crate) fn private_dir() -> TempDir {
    let made = tempfile::Builder::new().prefix("fgt-").tempdir();
    made.expect("a temporary directory can be made")
}

/// Returns an example with the places of this machine replaced by those of a directory, and the backend of this run.
pub(crate) fn placed(example: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../packaging/examples/{example}.toml"));
    let text = read(&path);
    let name = format!("name = \"{example}-1\"\n");
    let here = format!(
        "{name}state_dir = \"state\"\ncontrol_socket = \"control.sock\"\nio = \"{}\"\n",
        backend()
    );
    assert!(text.contains(&name), "{} has another name", path.display());
    // The first is the node's, a member or gateway of the same name would come later.
    text.replacen(&name, &here, 1)
        .replace("/var/lib/fieldgate/readings.jsonl", "readings.jsonl")
}

/// Returns a file with the key in a sealed file in the place of a token.
pub(crate) fn sealed(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let key = line.split(" = ").next().unwrap_or_default();
        match key {
            "pkcs11" => out.push_str("file = \"identity.key\""),
            "module" => out.push_str("passphrase = { file = \"passphrase\" }"),
            "pin" => continue,
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    assert!(out.contains("passphrase = "), "no token in {text}");
    out
}

/// The I/O backend of this run.
pub(crate) fn backend() -> String {
    std::env::var("FIELDGATE_IO").unwrap_or_else(|_| "auto".to_owned())
}

/// Makes a password for a device and returns it with its hash.
///
/// # Panics
/// If the binary fails.
pub(crate) fn device_password(name: &str) -> (String, String) {
    let made = run(&mut fieldgate(["device", "password", name, "--json"])).expect(0);
    let made = json(&made.out);
    (text(&made, "password"), text(&made, "password_hash"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The device of the example.
pub(crate) const DEVICE: &str = "pump-7";
/// Relay address in the examples.
pub(crate) const EXAMPLE_RELAY: &str = "10.77.0.2:4433";
/// Metrics address in the examples.
pub(crate) const EXAMPLE_METRICS: &str = "127.0.0.1:9464";
/// Identifiers in the examples: gateway, relay, collector.
const EXAMPLE_IDENTIFIERS: [&str; 3] = [
    "fg1d582kw6m4ndcxy0lgpxzg9464jwwsrrw5xgcxgq5fshccu9qqqvqymxy6r",
    "fg1wrwssj5734a52879dr84mn8t0azmvgd87tt7revw5r6ry9zthgdserc5lc",
    "fg1yyqndwc2q82mdq8h26sywqg9wvqrthy7l6p5kwcfrtzkz4tux94qy47c2a",
];
const EXAMPLE_HASH: &str =
    "pbkdf2-sha256$1000$g+oJb6/46ZcmU1L3bniJHQ$VgUe+H4v/tDq1QXIalRT8pkxxaSa2q85wg1z0ifzZG0";
