//! An authority, a collector and gateways that know each other by credentials only; links are direct.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::{
    node::Node,
    ports,
    site::{backend, private_dir},
};

/// A small fleet.
pub(crate) struct Trusted {
    /// Decides who belongs to it.
    pub(crate) authority: Node,
    /// Ends the uplinks of members.
    pub(crate) collector: Node,
    /// Delivers.
    pub(crate) gateway: Node,
    /// Where the gateway takes MQTT, from anybody.
    pub(crate) mqtt: SocketAddr,
    _dir: TempDir,
}

impl Trusted {
    /// Lays the nodes out with keys in sealed files; identities are made by [`Self::create`].
    pub(crate) fn new() -> Self {
        let dir = private_dir();
        let address = || SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let node = |name| Node::new(dir.path(), name, address());
        let fleet = Self {
            authority: node("authority-1"),
            collector: node("collector-1"),
            gateway: node("gateway-1"),
            mqtt: address(),
            _dir: dir,
        };
        let (public, uplink, mqtt) = (address(), address(), fleet.mqtt);
        fleet.authority.write(&head(&fleet.authority));
        fleet.authority.append(&format!(
            "[link.tcp]\nlisten = [\"{public}\"]\n[authority]\nstatus_valid_secs = 600\npublic = [\"{public}\"]\n"
        ));
        fleet.collector.write(&head(&fleet.collector));
        fleet.collector.append(&format!(
            "[trust]\ngrace_secs = 7200\n[link.tcp]\nlisten = [\"{uplink}\"]\n[collector]\n[[collector.sink]]\nkind = \"file\"\n\
             path = \"readings.jsonl\"\n"
        ));
        fleet.gateway.write(&head(&fleet.gateway));
        fleet.gateway.append(&format!(
            "[trust]\n[journal]\nbytes_max = \"64 MiB\"\n[mqtt]\nlisten = [\"{mqtt}\"]\nanonymous = true\n[[uplink]]\n\
             name = \"plant\"\ncollector = \"{NOBODY}\"\ndirect = {{ address = \"{uplink}\" }}\n"
        ));
        fleet
    }

    /// Makes the identities.
    pub(crate) fn create(&self) {
        self.authority.create_identity();
        let collector = self.collector.create_identity();
        self.gateway.create_identity();
        self.gateway.edit(NOBODY, &collector);
    }

    /// Starts all, and has collector and gateway enrol; the gateway's credential gets `attributes`, of the form `KEY=VALUE`.
    /// Returns the ticket of the gateway.
    pub(crate) fn start(&mut self, attributes: &[&str]) -> String {
        self.authority.start();
        self.authority.wait_healthy();
        self.collector.start();
        self.gateway.start();
        enrol(&self.authority, &mut self.collector, &[]);
        enrol(&self.authority, &mut self.gateway, attributes)
    }

    /// Lines that the collector has written.
    pub(crate) fn lines(&self) -> usize {
        let text = std::fs::read_to_string(self.collector.dir.join("readings.jsonl")).unwrap_or_default();
        text.lines().count()
    }
}

/// Has a running node enrol with a ticket of its own, which is returned; it starts anew as a member.
pub(crate) fn enrol(authority: &Node, node: &mut Node, attributes: &[&str]) -> String {
    let file = node.dir.join("ticket");
    let path = file.to_str().expect("the path is text");
    let mut words = vec!["ticket", "issue", "--name", &node.name, "--out", path];
    for attribute in attributes {
        words.extend(["--attribute", attribute]);
    }
    authority.run(&words).expect(0);
    node.run(&["enroll", path]).expect(0);
    node.wait_ready();
    node.wait_status("a member", |status| {
        status["trust"]["member"] == node.name.as_str()
    });
    std::fs::read_to_string(&file)
        .expect("the ticket was written")
        .trim()
        .to_owned()
}

fn head(node: &Node) -> String {
    format!(
        "[node]\nname = \"{}\"\nstate_dir = \"state\"\ncontrol_socket = \"control.sock\"\nio = \"{}\"\n[log]\nlevel = \"trace\"\n\
         [identity]\n{SEALED}\n[metrics]\nlisten = \"{}\"\n",
        node.name,
        backend(),
        node.metrics
    )
}

/// Where the key is, in the file of every node.
pub(crate) const SEALED: &str = "file = \"identity.key\"\npassphrase = { file = \"passphrase\" }";
/// An identifier that is well formed and nobody's.
const NOBODY: &str = "fg1yyqndwc2q82mdq8h26sywqg9wvqrthy7l6p5kwcfrtzkz4tux94qy47c2a";
