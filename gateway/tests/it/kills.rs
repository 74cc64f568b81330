//! rsync through a portal over two relays on machines of their own: the one in use is killed, and then its cable pulled, in the middle
//! of a copy. The same fifty times over, with times, is `cargo xtask kills`.

use std::{fs, net::SocketAddr, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    bridged::Bridged,
    node::Node,
    process::{Process, command},
    site::{backend, private_dir},
    wait::until,
};

/// Machines: the inlet's, the outlet's, and the relays'.
const DESK: usize = 0;
const HALL: usize = 1;
const RELAYS: [usize; 2] = [2, 3];

/// rsync through a portal over two relays.
struct Copies {
    network: Bridged,
    desk: Node,
    hall: Node,
    relays: [Node; 2],
    source: PathBuf,
    target: PathBuf,
    daemon: Process,
    dir: TempDir,
}

impl Copies {
    fn started() -> Self {
        let (network, dir) = (Bridged::new(4), private_dir());
        // Each machine is alone with this address.
        let metrics: SocketAddr = "127.0.0.1:9000".parse().expect("it is an address");
        let names = ["desk", "hall", "relay-1", "relay-2"];
        let nodes: [Node; 4] = std::array::from_fn(|machine| {
            let mut node = Node::new(dir.path(), names[machine], metrics);
            node.start_by(&network.on(machine));
            node.write(&head(names[machine]));
            node
        });
        let identifiers = nodes.each_ref().map(Node::create_identity);
        let [mut desk, mut hall, mut first, mut second] = nodes;
        let [one, two] = RELAYS.map(|relay| {
            format!(
                "{{ address = \"{}:7000\", identifier = \"{}\" }}",
                network.address(relay),
                identifiers[relay]
            )
        });
        desk.append(&format!(
            "[[portal.inlet]]\nname = \"copies\"\nlisten = \"{ENTRY}\"\nnode = \"{}\"\noutlet = \"copies\"\n\
             via = \"hall\"\nrelays = [{one}, {two}]\n",
            identifiers[HALL]
        ));
        hall.append(&format!(
            "[portal]\nregister = [{{ relay = {one}, name = \"hall\" }}, {{ relay = {two}, name = \"hall\" }}]\n\
             [[portal.outlet]]\nname = \"copies\"\naddress = \"{SERVER}\"\nallow = [\"{}\"]\n",
            identifiers[DESK]
        ));
        for (machine, relay) in RELAYS.into_iter().zip([&mut first, &mut second]) {
            relay.append(&format!(
                "[link.tcp]\nlisten = [\"{}:7000\"]\n[relay]\n\
                 [[relay.member]]\nname = \"desk\"\nidentifier = \"{}\"\nhold = []\nreach = [\"hall\"]\n\
                 [[relay.member]]\nname = \"hall\"\nidentifier = \"{}\"\nhold = [\"hall\"]\nreach = []\n",
                network.address(machine),
                identifiers[DESK],
                identifiers[HALL]
            ));
            relay.start();
        }
        hall.start();
        desk.start();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        fs::create_dir(&target).expect("the directory is ours");
        fs::write(&source, random_bytes(BYTES)).expect("the directory is ours");
        let daemon = daemon(&network, &dir, &target);
        Self {
            network,
            desk,
            hall,
            relays: [first, second],
            source,
            target,
            daemon,
            dir,
        }
    }

    /// Waits until one path is in use and one in reserve; returns the number of the relay in use.
    fn wait_paired(&self) -> usize {
        let state = |path: &Value| path["state"].as_str().unwrap_or_default().to_owned();
        let status = self
            .desk
            .wait_status("a path in use and one in reserve", |status| {
                let paths = &status["network"]["paths"][0]["paths"];
                let mut states = [state(&paths[0]), state(&paths[1])];
                states.sort_unstable();
                states == ["active", "standby"]
            });
        let paths = &status["network"]["paths"][0]["paths"];
        let active = usize::from(state(&paths[0]) != "active");
        let by = paths[active]["by"].as_str().expect("an address");
        usize::from(by != format!("{}:7000", self.network.address(RELAYS[0])))
    }

    /// Begins a copy and waits until it is in the middle.
    fn begin(&self, name: &str) -> Process {
        let mut words = self.network.on(DESK).to_vec();
        let source = self.source.to_str().expect("the path is text");
        let target = format!("rsync://{ENTRY}/copies/{name}");
        words.extend([
            "rsync",
            "--whole-file",
            "--inplace",
            "--bwlimit",
            RATE,
            source,
            &target,
        ]);
        let client = Process::spawn("rsync", &mut command(&words));
        let copy = self.target.join(name);
        until("the copy grows", || match fs::metadata(&copy) {
            Ok(copy) if copy.len() >= BYTES as u64 / 10 => Ok(()),
            Ok(copy) => Err(format!("{} bytes", copy.len())),
            Err(error) => Err(error.to_string()),
        });
        client
    }

    /// Waits until the copy is complete, and compares it.
    fn finish(&self, name: &str, mut client: Process) {
        let status = client.wait();
        assert!(status.success(), "{status}: {}", client.printed());
        let read = |path: &PathBuf| fs::read(path).expect("it is there");
        let is_same = read(&self.source) == read(&self.target.join(name));
        assert!(is_same, "{name} is another file");
    }

    fn stop(mut self) {
        let status = self.desk.status();
        assert_eq!(status["portals"]["sessions"][0]["lost"], 0, "{status:#}");
        for node in [&mut self.desk, &mut self.hall]
            .into_iter()
            .chain(&mut self.relays)
        {
            node.stop();
        }
        self.daemon.kill();
        drop(self.dir);
    }
}

fn head(name: &str) -> String {
    format!(
        "[node]\nname = \"{name}\"\nstate_dir = \"state\"\ncontrol_socket = \"control.sock\"\nio = \"{}\"\n\
         [identity]\nfile = \"identity.key\"\npassphrase = {{ file = \"passphrase\" }}\n",
        backend()
    )
}

fn daemon(network: &Bridged, dir: &TempDir, target: &std::path::Path) -> Process {
    let config = dir.path().join("rsyncd.conf");
    let text = format!(
        "use chroot = no\nuid = 0\ngid = 0\n[copies]\npath = {}\nread only = no\n",
        target.display()
    );
    fs::write(&config, text).expect("the directory is ours");
    let mut words = network.on(HALL).to_vec();
    let config = config.to_str().expect("the path is text");
    let (_, port) = SERVER.split_once(':').expect("an address has a port");
    words.extend(["rsync", "--daemon", "--no-detach", "--address", "127.0.0.1"]);
    words.extend(["--port", port, "--config", config]);
    let daemon = Process::spawn("the rsync daemon", &mut command(&words));
    until("rsync listens", || {
        let mut words = network.on(HALL).to_vec();
        let list = format!("rsync://{SERVER}/");
        words.extend(["rsync", &list]);
        let ended = crate::harness::process::run(&mut command(&words));
        if ended.code == 0 { Ok(()) } else { Err(ended.err) }
    });
    daemon
}

/// Bytes that no two blocks of repeat.
fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(count);
    bytes
}

#[test]
fn copies_are_complete_although_the_relay_in_use_is_killed_or_its_cable_pulled() {
    let mut copies = Copies::started();
    // Each kind twice, so that either relay is met by it.
    for round in 0..2 {
        let name = format!("killed-{round}");
        copies.wait_paired();
        let client = copies.begin(&name);
        let active = copies.wait_paired();
        copies.relays[active].kill();
        copies.finish(&name, client);
        copies.relays[active].start();

        let name = format!("pulled-{round}");
        copies.wait_paired();
        let client = copies.begin(&name);
        let active = copies.wait_paired();
        copies.network.cut(RELAYS[active]);
        copies.finish(&name, client);
        copies.network.mend(RELAYS[active]);
    }
    copies.wait_paired();
    copies.stop();
}

/// Where the inlet listens, on its machine.
const ENTRY: &str = "127.0.0.1:6000";
/// Where the rsync daemon listens, on its machine.
const SERVER: &str = "127.0.0.1:6002";
/// Bytes of a file.
const BYTES: usize = 12_000_000;
/// As `--bwlimit` takes it: six seconds for a file.
const RATE: &str = "2MB";
