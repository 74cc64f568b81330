//! fieldgate over two relays side by side: an inlet's node, an outlet's node, and what can be done to the relays.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fieldgate_proto::identity::Identifier;
use serde_json::Value;

use super::network::{self, Network};
use crate::clock;
use crate::failure::Failure;
use crate::node;
use crate::place::Place;
use crate::process::{Running, complete};

/// The four nodes.
pub(super) struct Site {
    folder: PathBuf,
    binary: PathBuf,
    /// The relays' places, to start them again.
    places: [Place; 2],
    /// `None` while one is dead.
    relays: [Option<Running>; 2],
    desk: Running,
    hall: Running,
}

/// What the nodes' files are made of.
struct Files<'a> {
    folder: &'a Path,
    io: &'a str,
    desk: String,
    hall: String,
    relays: [String; 2],
}

impl Site {
    /// Makes identities and files in `folder` and starts the nodes.
    pub(super) fn start(network: &Network, binary: &Path, io: &str, folder: &Path) -> Result<Self, Failure> {
        node::write_passphrase(folder)?;
        let nobody = |byte| Identifier::from_bytes([byte; 32]).to_string();
        let mut files = Files {
            folder,
            io,
            desk: nobody(1),
            hall: nobody(2),
            relays: [nobody(3), nobody(4)],
        };
        let create = |name: &str, text: &str| node::create_identity(binary, folder, name, text);
        // A file is refused while it names nobody, so the first ones name nodes that do not exist.
        let desk = create("desk", &files.desk())?;
        let hall = create("hall", &files.hall())?;
        let relays = [
            create(RELAYS[0], &files.relay(0))?,
            create(RELAYS[1], &files.relay(1))?,
        ];
        (files.desk, files.hall, files.relays) = (desk, hall, relays);
        for (name, text) in [
            ("desk", files.desk()),
            ("hall", files.hall()),
            (RELAYS[0], files.relay(0)),
            (RELAYS[1], files.relay(1)),
        ] {
            node::write(folder, &format!("{name}.toml"), &text)?;
        }
        let run = |place: &Place, name| node::run(place, binary, folder, name);
        let [first, second] = &network.relays;
        Ok(Self {
            folder: folder.to_owned(),
            binary: binary.to_owned(),
            places: network.relays.clone(),
            relays: [Some(run(first, RELAYS[0])?), Some(run(second, RELAYS[1])?)],
            hall: run(&network.hall, "hall")?,
            desk: run(&network.desk, "desk")?,
        })
    }

    /// Kills a relay as the kernel does it, without a word of its own.
    pub(super) fn kill(&mut self, relay: usize) -> Result<(), Failure> {
        let mut process = self.relays[relay]
            .take()
            .ok_or_else(|| Failure::peer(RELAYS[relay], "is dead already"))?;
        process.check_alive()?;
        drop(process);
        Ok(())
    }

    /// Starts it again.
    pub(super) fn restart(&mut self, relay: usize) -> Result<(), Failure> {
        let process = node::run(&self.places[relay], &self.binary, &self.folder, RELAYS[relay])?;
        self.relays[relay] = Some(process);
        Ok(())
    }

    fn status(&self) -> Result<Value, Failure> {
        let mut command = Command::new(&self.binary);
        command.args(["status", "--json", "--socket"]);
        let text = complete(command.arg(self.folder.join("desk.sock")))?;
        serde_json::from_slice(&text).map_err(|error| Failure::Format {
            what: "`fieldgate status --json`".to_owned(),
            problem: error.to_string(),
        })
    }

    /// Asks the inlets' node for its paths until what it says will do.
    fn await_paths<T>(
        &mut self,
        what: &str,
        check: impl Fn(&[(String, String)]) -> Option<T>,
    ) -> Result<T, Failure> {
        let until = clock::now() + PATIENCE;
        loop {
            for process in self
                .relays
                .iter_mut()
                .flatten()
                .chain([&mut self.desk, &mut self.hall])
            {
                process.check_alive()?;
            }
            // One that has just been started has no control socket yet.
            let paths = self.status().map(|status| paths(&status)).unwrap_or_default();
            if let Some(seen) = check(&paths) {
                return Ok(seen);
            }
            if clock::now() > until {
                return Err(self.desk.broken(format!("has no {what}: {paths:?}")));
            }
            clock::pause(STEP);
        }
    }

    /// Waits until one path is in use and the other in reserve; returns the number of the relay in use.
    pub(super) fn await_paired(&mut self) -> Result<usize, Failure> {
        self.await_paths("path in use with one in reserve", |paths| {
            let has = |wanted: &str| paths.iter().find(|(_, state)| state == wanted);
            has("standby")?;
            let (by, _) = has("active")?;
            (0..2).find(|relay| link(*relay).to_string() == *by)
        })
    }

    /// Waits until another relay than `dead` is the one in use; returns when that was seen.
    pub(super) fn await_moved(&mut self, dead: usize) -> Result<u64, Failure> {
        self.await_paths("path in use over the other relay", |paths| {
            paths
                .iter()
                .any(|(by, state)| state == "active" && *by != link(dead).to_string())
                .then(clock::now)
        })
    }

    /// Returns how many sessions were given up.
    pub(super) fn sessions_lost(&self) -> Result<u64, Failure> {
        let status = self.status()?;
        let sessions = status["portals"]["sessions"].as_array();
        sessions
            .and_then(|sessions| sessions.iter().map(|session| session["lost"].as_u64()).sum())
            .ok_or_else(|| Failure::Format {
                what: "`fieldgate status --json`".to_owned(),
                problem: "there are no sessions of portals".to_owned(),
            })
    }

    /// Ends all four.
    pub(super) fn stop(self) -> Result<(), Failure> {
        self.desk.stop()?;
        self.hall.stop()?;
        self.relays.into_iter().flatten().try_for_each(Running::stop)
    }
}

/// Returns address and state of each path.
fn paths(status: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let paths = status["network"]["paths"][0]["paths"].as_array();
    paths
        .into_iter()
        .flatten()
        .map(|path| (text(&path["by"]), text(&path["state"])))
        .collect()
}

/// Where a relay takes links.
fn link(relay: usize) -> SocketAddr {
    let address: Ipv4Addr = network::RELAYS[relay].parse().expect("it is an address");
    (address, LINK_PORT).into()
}

impl Files<'_> {
    fn head(&self, name: &str) -> String {
        node::head(self.folder, name, self.io, 1, "info")
    }

    fn way(&self, relay: usize) -> String {
        format!(
            "{{ address = \"{}\", identifier = \"{}\" }}",
            link(relay),
            self.relays[relay]
        )
    }

    /// Returns the file of the node with the inlet.
    fn desk(&self) -> String {
        let mut text = self.head("desk");
        let _ = write!(
            text,
            "\n[[portal.inlet]]\n\
             name = \"load\"\n\
             listen = \"{ENTRY}\"\n\
             node = \"{hall}\"\n\
             outlet = \"load\"\n\
             via = \"{NAME}\"\n\
             relays = [{}, {}]\n",
            self.way(0),
            self.way(1),
            hall = self.hall,
        );
        text
    }

    /// Returns the file of the node with the outlet.
    fn hall(&self) -> String {
        let mut text = self.head("hall");
        let _ = write!(
            text,
            "\n[portal]\n\
             register = [{{ relay = {}, name = \"{NAME}\" }}, {{ relay = {}, name = \"{NAME}\" }}]\n\
             \n\
             [[portal.outlet]]\n\
             name = \"load\"\n\
             address = \"{TAP}\"\n\
             allow = [\"{desk}\"]\n",
            self.way(0),
            self.way(1),
            desk = self.desk,
        );
        text
    }

    fn relay(&self, relay: usize) -> String {
        let mut text = self.head(RELAYS[relay]);
        let _ = write!(
            text,
            "\n[link.tcp]\n\
             listen = [\"{link}\"]\n\
             \n\
             [relay]\n\
             \n\
             [[relay.member]]\n\
             name = \"desk\"\n\
             identifier = \"{desk}\"\n\
             hold = []\n\
             reach = [\"{NAME}\"]\n\
             \n\
             [[relay.member]]\n\
             name = \"hall\"\n\
             identifier = \"{hall}\"\n\
             hold = [\"{NAME}\"]\n\
             reach = []\n",
            link = link(relay),
            desk = self.desk,
            hall = self.hall,
        );
        text
    }
}

/// Where clients find the inlet, in the desk's namespace.
pub(super) const ENTRY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6000);
/// Where the outlet leads to, in the hall's namespace.
pub(super) const TAP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6001);
/// What stands behind the tap.
pub(super) const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6002);
const LINK_PORT: u16 = 7000;
const RELAYS: [&str; 2] = ["relay-1", "relay-2"];
/// The name that the outlet's node holds at both relays.
const NAME: &str = "hall";
/// How long a change of the paths may take, in nanoseconds.
const PATIENCE: u64 = 120_000_000_000;
const STEP: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fieldgate_proto::identity::Identifier;

    use super::Files;

    #[test]
    fn fieldgate_takes_every_file() {
        let of = |byte: u8| Identifier::from_bytes([byte; 32]).to_string();
        let files = Files {
            folder: Path::new("/tmp/bench"),
            io: "epoll",
            desk: of(1),
            hall: of(2),
            relays: [of(3), of(4)],
        };
        for text in [files.desk(), files.hall(), files.relay(0), files.relay(1)] {
            let loaded = fieldgate_config::load_str("bench.toml", &text, Path::new("/tmp"), "host");
            let said = loaded.problems.render_text(fieldgate_config::Colour::None, 100);
            assert!(loaded.settings.is_some(), "{said}\n{text}");
        }
    }
}
