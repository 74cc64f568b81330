//! fieldgate: an inlet's node, any number of relays, an outlet's node.
//!
//! ```text
//! clients ─▶ desk ══link══▶ relay-1 ══▶ … ══link══▶ hall ─▶ server
//! ```

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use fieldgate_proto::identity::Identifier;

use crate::failure::Failure;
use crate::node;
use crate::place::Place;
use crate::process::Running;

/// How a site is set up.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The `fieldgate` binary.
    pub(crate) binary: PathBuf,
    /// `[node] io`.
    pub(crate) io: String,
    /// Relays between the two.
    pub(crate) relays: usize,
}

/// An inlet and the outlet that it leads to.
#[derive(Clone, Debug)]
pub(crate) struct Portal {
    pub(crate) name: &'static str,
    /// Where the inlet listens.
    pub(crate) entry: SocketAddr,
    /// What the outlet leads to.
    pub(crate) server: SocketAddr,
}

/// Where everything listens, and who is who.
struct Files<'a> {
    folder: &'a Path,
    settings: &'a Settings,
    portals: &'a [Portal],
    /// Links of the relays, or of the outlet's node where there is none.
    links: Vec<SocketAddr>,
    desk: String,
    hall: String,
    relays: Vec<String>,
}

/// Makes identities and files in `folder` and starts the nodes, the inlets' where clients are and the others where the servers are.
pub(crate) fn start(
    settings: &Settings,
    folder: &Path,
    (near, far): (&Place, &Place),
    links: Vec<SocketAddr>,
    portals: &[Portal],
) -> Result<Vec<Running>, Failure> {
    node::write_passphrase(folder)?;
    let nobody = |byte| Identifier::from_bytes([byte; 32]).to_string();
    let mut files = Files {
        folder,
        settings,
        portals,
        links,
        desk: nobody(1),
        hall: nobody(2),
        relays: vec![nobody(3); settings.relays],
    };
    let create = |name: &str, text: &str| node::create_identity(&settings.binary, folder, name, text);
    // A file is refused while it names nobody, so the first ones name nodes that do not exist.
    let desk = create("desk", &files.desk())?;
    let hall = create("hall", &files.hall())?;
    let mut relays = Vec::new();
    for (index, name) in RELAYS.iter().enumerate().take(settings.relays) {
        relays.push(create(name, &files.relay(index))?);
    }
    (files.desk, files.hall, files.relays) = (desk, hall, relays);
    let mut processes = Vec::new();
    let mut run = |place: &Place, name: &'static str, text: &str| -> Result<(), Failure> {
        node::write(folder, &format!("{name}.toml"), text)?;
        processes.push(node::run(place, &settings.binary, folder, name)?);
        Ok(())
    };
    for (index, name) in RELAYS.iter().enumerate().take(settings.relays) {
        run(far, name, &files.relay(index))?;
    }
    run(far, "hall", &files.hall())?;
    run(near, "desk", &files.desk())?;
    Ok(processes)
}

impl Files<'_> {
    fn head(&self, name: &str) -> String {
        node::head(self.folder, name, &self.settings.io, 1, "warn")
    }

    /// Returns the file of the node with the inlet.
    fn desk(&self) -> String {
        let mut text = self.head("desk");
        let way = match self.links.as_slice() {
            [link] if self.relays.is_empty() => format!("direct = {{ address = \"{link}\" }}"),
            _ => format!(
                "via = \"{HALL}\"\nrelay = {}",
                self.relay_table(0, RELAYS.get(1..self.relays.len()))
            ),
        };
        for Portal { name, entry, .. } in self.portals {
            let _ = write!(
                text,
                "\n[[portal.inlet]]\n\
                 name = \"{name}\"\n\
                 listen = \"{entry}\"\n\
                 node = \"{hall}\"\n\
                 outlet = \"{name}\"\n\
                 streams_max = 1024\n\
                 {way}\n",
                hall = self.hall,
            );
        }
        text
    }

    /// Returns the file of the node with the outlet.
    fn hall(&self) -> String {
        let mut text = self.head("hall");
        text += &match self.relays.len() {
            0 => format!("\n[link.tcp]\nlisten = [\"{}\"]\n\n[portal]\n", self.links[0]),
            count => format!(
                "\n[portal]\nregister = [{{ relay = {}, name = \"{HALL}\" }}]\n",
                self.relay_table(count - 1, None)
            ),
        };
        for Portal { name, server, .. } in self.portals {
            let _ = write!(
                text,
                "\n[[portal.outlet]]\n\
                 name = \"{name}\"\n\
                 address = \"{server}\"\n\
                 allow = [\"{desk}\"]\n\
                 streams_max = 1024\n",
                desk = self.desk,
            );
        }
        text
    }

    /// Returns the file of a relay. All but the last dial the next one and forward to it; it knows them as members.
    fn relay(&self, index: usize) -> String {
        let mut text = self.head(RELAYS[index]);
        let (before, before_is) = match index.checked_sub(1) {
            None => ("desk", &self.desk),
            Some(before) => (RELAYS[before], &self.relays[before]),
        };
        let is_last = index + 1 == self.relays.len();
        let _ = write!(
            text,
            "\n[link.tcp]\n\
             listen = [\"{link}\"]\n\
             \n\
             [relay]\n\
             \n\
             [[relay.member]]\n\
             name = \"{before}\"\n\
             identifier = \"{before_is}\"\n\
             hold = []\n\
             reach = [\"{next}\"]\n\
             \n",
            link = self.links[index],
            next = if is_last { HALL } else { RELAYS[index + 1] },
        );
        let _ = if is_last {
            write!(
                text,
                "[[relay.member]]\n\
                 name = \"hall\"\n\
                 identifier = \"{hall}\"\n\
                 hold = [\"{HALL}\"]\n\
                 reach = []\n",
                hall = self.hall,
            )
        } else {
            write!(
                text,
                "[[relay.neighbour]]\n\
                 name = \"{name}\"\n\
                 address = \"{link}\"\n\
                 identifier = \"{identifier}\"\n",
                name = RELAYS[index + 1],
                link = self.links[index + 1],
                identifier = self.relays[index + 1],
            )
        };
        text
    }

    /// Returns how a node reaches a relay, and the names of further ones behind it.
    fn relay_table(&self, index: usize, through: Option<&[&str]>) -> String {
        let through = match through {
            Some(names @ [_, ..]) => format!(", through = {names:?}"),
            Some([]) | None => String::new(),
        };
        format!(
            "{{ address = \"{}\", identifier = \"{}\"{through} }}",
            self.links[index], self.relays[index]
        )
    }
}

/// The name that the outlet's node holds at its relay.
const HALL: &str = "bench-hall";
/// Names of the relays, from the inlet's side.
const RELAYS: [&str; 2] = ["relay-1", "relay-2"];
/// Most relays that a site can have.
pub(crate) const RELAYS_MAX: usize = RELAYS.len();

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use fieldgate_proto::identity::Identifier;

    use super::{Files, Portal, RELAYS, Settings};

    /// Fails with what fieldgate would say if it refused the file.
    fn check(text: &str) {
        let loaded = fieldgate_config::load_str("bench.toml", text, Path::new("/tmp"), "host");
        let said = loaded.problems.render_text(fieldgate_config::Colour::None, 100);
        assert!(loaded.settings.is_some(), "{said}\n{text}");
    }

    #[test]
    fn fieldgate_takes_every_file() {
        let address = |port: u16| ([127, 0, 0, 1], port).into();
        for relays in 0..=RELAYS.len() {
            let settings = Settings {
                binary: PathBuf::new(),
                io: "epoll".to_owned(),
                relays,
            };
            let of = |byte: u8| Identifier::from_bytes([byte; 32]).to_string();
            let files = Files {
                folder: Path::new("/tmp/bench"),
                settings: &settings,
                portals: &[Portal {
                    name: "bench",
                    entry: address(1),
                    server: address(2),
                }],
                links: (3..=3 + u16::try_from(relays.saturating_sub(1)).expect("few"))
                    .map(address)
                    .collect(),
                desk: of(1),
                hall: of(2),
                relays: (0..relays)
                    .map(|index| of(u8::try_from(3 + index).expect("few")))
                    .collect(),
            };
            check(&files.desk());
            check(&files.hall());
            for index in 0..relays {
                check(&files.relay(index));
            }
        }
    }
}
