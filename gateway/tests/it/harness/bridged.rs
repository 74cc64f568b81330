//! Machines on one Ethernet switch: network namespaces, each with a cable of its own that can be pulled. Needs root.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd as _,
    path::Path,
    sync::atomic::{AtomicU16, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::{command, run};

/// The switch and its machines, which have 10.78.0.1 and on. They are removed when dropped.
pub(crate) struct Bridged {
    switch: String,
    machines: Vec<String>,
}

impl Bridged {
    /// Makes the namespaces and their cables.
    ///
    /// # Panics
    /// If this process is not root, or `ip` is not installed.
    pub(crate) fn new(count: usize) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root: run the tests as root, or in a container that has CAP_NET_ADMIN and CAP_SYS_ADMIN"
        );
        let id = format!(
            "fgt{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut network = Self {
            switch: format!("{id}s"),
            machines: Vec::new(),
        };
        let switch = network.switch.clone();
        ip(&["netns", "add", &switch]);
        ip(&["-n", &switch, "link", "add", "switch", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "switch", "up"]);
        for index in 0..count {
            let name = format!("{id}m{index}");
            ip(&["netns", "add", &name]);
            network.machines.push(name.clone());
            ip(&["-n", &name, "link", "set", "lo", "up"]);
            let port = port(index);
            ip(&[
                "-n", &switch, "link", "add", &port, "type", "veth", "peer", "eth0", "netns", &name,
            ]);
            ip(&["-n", &switch, "link", "set", &port, "master", "switch", "up"]);
            let address = format!("{}/24", network.address(index));
            ip(&["-n", &name, "address", "add", &address, "dev", "eth0"]);
            ip(&["-n", &name, "link", "set", "eth0", "up"]);
        }
        network
    }

    /// Returns the address of a machine.
    pub(crate) fn address(&self, machine: usize) -> IpAddr {
        let last = u8::try_from(machine + 1).expect("there are few");
        IpAddr::V4(Ipv4Addr::new(10, 78, 0, last))
    }

    /// Words that start a program on a machine.
    pub(crate) fn on(&self, machine: usize) -> [&str; 4] {
        ["ip", "netns", "exec", &self.machines[machine]]
    }

    /// Returns what [`inside`] is to be told for a machine.
    pub(crate) fn machine(&self, machine: usize) -> String {
        self.machines[machine].clone()
    }

    /// Pulls the cable of a machine: nobody is told, packets just do not arrive any more.
    pub(crate) fn cut(&self, machine: usize) {
        ip(&["-n", &self.switch, "link", "set", &port(machine), "down"]);
    }

    /// Puts it back.
    pub(crate) fn mend(&self, machine: usize) {
        ip(&["-n", &self.switch, "link", "set", &port(machine), "up"]);
    }
}

impl Drop for Bridged {
    fn drop(&mut self) {
        for name in self.machines.iter().chain([&self.switch]) {
            // The cables go with their ends.
            let _ = run(&mut command(&["ip", "netns", "del", name]));
        }
    }
}

/// Does `work` on a thread on that machine: sockets that it makes stay there. `None` is where the test itself runs.
///
/// # Panics
/// If there is no such machine, or `work` panics.
pub(crate) fn inside<T: Send>(machine: Option<&str>, work: impl FnOnce() -> T + Send) -> T {
    let Some(machine) = machine else {
        return work();
    };
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            let file = File::open(Path::new("/run/netns").join(machine)).expect("the machine is there");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("this process is root");
            work()
        });
        done.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn port(machine: usize) -> String {
    format!("port{machine}")
}

fn ip(words: &[&str]) {
    run(command(&["ip"]).args(words)).expect(0);
}

/// Networks made by this process.
static NEXT: AtomicU16 = AtomicU16::new(0);
