//! Network namespaces with virtual cables, and what can be seen on them. Needs root.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::process::{Process, command, run};

/// Three network namespaces on a line, as the machines of the example files: 10.77.0.1 – 10.77.0.2 – 10.77.0.3. The one in the
/// middle does not forward. They are removed when dropped.
pub(crate) struct Network {
    names: [String; 3],
}

impl Network {
    /// Makes the namespaces and the two cables.
    ///
    /// # Panics
    /// If this process is not root, or the programs are not installed.
    pub(crate) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root: run the tests as root, or in a container that has CAP_NET_ADMIN and CAP_SYS_ADMIN"
        );
        let id = std::process::id();
        let network = Self {
            names: ["g", "r", "c"].map(|role| format!("fgt{id}{role}")),
        };
        for name in &network.names {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        let [gateway, relay, collector] = &network.names;
        network.cable((gateway, "10.77.0.1"), (relay, "10.77.0.2"), TO_GATEWAY);
        network.cable((collector, "10.77.0.3"), (relay, "10.77.0.2"), TO_COLLECTOR);
        network
    }

    /// Connects an end machine with the one in the middle, whose side of the cable is called `name`.
    fn cable(&self, end: (&str, &str), middle: (&str, &str), name: &str) {
        let far = "eth0";
        let peer = ["peer", "name", far, "netns", end.0];
        let mut words = vec!["link", "add", name, "netns", middle.0, "type", "veth"];
        words.extend(peer);
        ip(&words);
        for ((namespace, address), (_, other), device) in [(end, middle, far), (middle, end, name)] {
            let address = format!("{address}/32");
            ip(&["-n", namespace, "address", "add", &address, "dev", device]);
            ip(&["-n", namespace, "link", "set", device, "up"]);
            ip(&["-n", namespace, "route", "add", other, "dev", device]);
        }
    }

    /// Words that start a program on machine 0, 1 or 2 of the line.
    pub(crate) fn on(&self, machine: usize) -> [&str; 4] {
        ["ip", "netns", "exec", &self.names[machine]]
    }

    /// Records everything on one of the middle machine's cables from now on.
    ///
    /// # Panics
    /// If it does not run.
    pub(crate) fn record(&self, cable: &str, dir: &Path) -> Recording {
        let file = dir.join(format!("{cable}.pcap"));
        let name = file.to_str().expect("the path is text");
        let mut words = self.on(1).to_vec();
        words.extend([
            "tcpdump",
            "-i",
            cable,
            "-s",
            "0",
            "-U",
            "--immediate-mode",
            "-Z",
            "root",
            "-w",
            name,
        ]);
        let mut process = Process::spawn("tcpdump", &mut command(&words));
        process.wait_for_text("listening on");
        Recording { process, file }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            // One that was not made yet is not there to remove; the cables go with their ends.
            let _ = run(&mut command(&["ip", "netns", "del", name]));
        }
    }
}

fn ip(words: &[&str]) {
    run(command(&["ip"]).args(words)).expect(0);
}

/// A recording that goes on.
pub(crate) struct Recording {
    process: Process,
    file: PathBuf,
}

impl Recording {
    /// Ends it and returns the bytes of its file: frames as they were on the cable, with the headers of the recording between.
    ///
    /// # Panics
    /// If the recorder dropped a packet, or the file cannot be read.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.process.signal(Signal::INT);
        self.process.wait();
        let printed = self.process.printed();
        assert!(printed.contains("0 packets dropped by kernel"), "{printed}");
        std::fs::read(&self.file).expect("it was written")
    }
}

/// The middle machine's cable to the gateway.
pub(crate) const TO_GATEWAY: &str = "gateway0";
/// The middle machine's cable to the collector.
pub(crate) const TO_COLLECTOR: &str = "collector0";
