//! Which authority a node belongs to and how it is reached: what the file says, and what enrolment has kept.

use std::{io, path::PathBuf, str::FromStr as _};

use fieldgate_config::{
    address::LinkAddress,
    settings::{AfterGrace, RelayAddress, RelayWay, Settings, UplinkPath},
};
use fieldgate_proto::{
    identity::{ChangeHistory, Identifier},
    trust::{self, Saved, SavedPart, Ticket, Trust, TrustSettings, Way},
};
use serde::{Deserialize, Serialize};

use super::{StartError, durable::write_durably};

/// The authority of a node, and the ways to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Belonging {
    /// Who it is; `None` if the node is not enrolled, or its file names its peers.
    pub(crate) authority: Option<Identifier>,
    /// Ways to it; empty on the authority itself.
    pub(crate) paths: Vec<UplinkPath>,
}

impl Belonging {
    /// Puts together what the file says and what enrolment has kept.
    ///
    /// # Errors
    /// [`StartError`] if the two name different authorities, or what was kept cannot be read.
    pub(crate) fn find(settings: &Settings, own: Identifier, files: &TrustFiles) -> Result<Self, StartError> {
        if settings.authority.is_some() {
            return Ok(Self {
                authority: Some(own),
                paths: Vec::new(),
            });
        }
        let Some(configured) = &settings.trust else {
            return Ok(Self::default());
        };
        let enrolled = files.enrolled()?;
        let authority = match (configured.authority, enrolled.as_ref().map(|kept| kept.authority)) {
            (Some(configured), Some(kept)) if configured != kept => {
                return Err(StartError::new(format!(
                    "[trust] names the authority {configured}, but this node is enrolled with {kept}"
                ))
                .hint(format!(
                    "correct `authority`, or remove {} and enrol anew with a ticket of the other authority",
                    files.dir().display()
                )));
            }
            (Some(authority), _) | (None, Some(authority)) => Some(authority),
            (None, None) => None,
        };
        let paths = match &configured.path {
            Some(path) => vec![path.clone()],
            None => enrolled.map(|kept| kept.paths).unwrap_or_default(),
        };
        let paths = paths.into_iter().filter(|path| !leads_home(path, own)).collect();
        Ok(Self { authority, paths })
    }

    /// Belongs to whoever issued a ticket.
    ///
    /// # Errors
    /// [`StartError`] for a way whose address cannot be used.
    pub(crate) fn of_ticket(ticket: &Ticket) -> Result<Self, StartError> {
        Ok(Self {
            authority: Some(ticket.authority()),
            paths: paths(ticket.ways())?,
        })
    }

    /// Makes the machine that believes the authority, with what was kept.
    ///
    /// # Errors
    /// [`StartError`] if what was kept is damaged.
    pub(crate) fn trust(
        &self,
        settings: &Settings,
        history: &ChangeHistory,
        files: &TrustFiles,
    ) -> Result<Trust, StartError> {
        let own = history.identifier();
        let mut trust_settings = TrustSettings {
            authority: self.authority,
            ..TrustSettings::default()
        };
        if let Some(configured) = &settings.trust {
            trust_settings.grace = configured.grace;
            trust_settings.after_grace = match configured.after_grace {
                AfterGrace::Refuse => trust::AfterGrace::Refuse,
                AfterGrace::GoOn => trust::AfterGrace::GoOn,
            };
        }
        let mut saved = files.load()?;
        if self.authority == Some(own) {
            saved.history = Some(history.to_bytes());
        }
        Trust::new(own, trust_settings, &saved).map_err(|error| {
            StartError::new(format!("{}: {error}", files.path(error.what).display())).hint(error.hint())
        })
    }
}

/// Returns whether a way begins at this very node: tickets name every relay at which the authority registers.
fn leads_home(path: &UplinkPath, own: Identifier) -> bool {
    match path {
        UplinkPath::Relays { relays, .. } => relays.iter().any(|way| way.relay.identifier == own),
        UplinkPath::Direct { .. } => false,
    }
}

fn paths(ways: &[Way]) -> Result<Vec<UplinkPath>, StartError> {
    ways.iter()
        .map(|way| {
            let address = |text: &str| {
                LinkAddress::from_str(text)
                    .map_err(|error| StartError::new(format!("the ticket's address {text}: {error}")))
            };
            Ok(match way {
                Way::Relay {
                    address: at,
                    relay,
                    name,
                } => UplinkPath::Relays {
                    via: name.clone(),
                    relays: vec![RelayWay {
                        relay: RelayAddress {
                            address: address(at)?,
                            also: Vec::new(),
                            identifier: *relay,
                        },
                        through: Vec::new(),
                        through_identifiers: Vec::new(),
                    }],
                },
                Way::Direct { address: at } => UplinkPath::Direct {
                    address: address(at)?,
                    also: Vec::new(),
                },
            })
        })
        .collect()
}

/// What enrolment keeps of a ticket.
struct Enrolled {
    authority: Identifier,
    paths: Vec<UplinkPath>,
}

/// The same in its file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnrolledFile {
    authority: String,
    ways: Vec<WayFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WayFile {
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relay: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// What a node keeps of its authority, in a directory of its own.
#[derive(Clone, Debug)]
pub(crate) struct TrustFiles(PathBuf);

impl TrustFiles {
    pub(crate) fn new(state_dir: &std::path::Path) -> Self {
        Self(state_dir.join("trust"))
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.0
    }

    /// Reads what the machine believes.
    ///
    /// # Errors
    /// [`StartError`] for a file that is there and cannot be read.
    pub(crate) fn load(&self) -> Result<Saved, StartError> {
        Ok(Saved {
            history: self.read(self.path(SavedPart::History))?,
            status: self.read(self.path(SavedPart::Status))?,
            own: self.read(self.path(SavedPart::Own))?,
        })
    }

    fn read(&self, path: PathBuf) -> Result<Option<Vec<u8>>, StartError> {
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StartError::file(&path, &error)),
        }
    }

    /// Keeps one part of it.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn save(&self, what: SavedPart, bytes: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        write_durably(&self.path(what), bytes)
    }

    pub(crate) fn path(&self, what: SavedPart) -> PathBuf {
        self.0.join(what.name())
    }

    fn enrolled_path(&self) -> PathBuf {
        self.0.join("authority.json")
    }

    fn enrolled(&self) -> Result<Option<Enrolled>, StartError> {
        let path = self.enrolled_path();
        let Some(bytes) = self.read(path.clone())? else {
            return Ok(None);
        };
        let damaged = |why: &dyn std::fmt::Display| {
            StartError::new(format!("{}: {why}", path.display()))
                .hint("enrol anew, or restore it from a backup")
        };
        let file: EnrolledFile = serde_json::from_slice(&bytes).map_err(|error| damaged(&error))?;
        let authority = file
            .authority
            .parse::<Identifier>()
            .map_err(|error| damaged(&error))?;
        let ways = file.ways.into_iter().map(|way| {
            Ok(match (way.relay, way.name) {
                (Some(relay), Some(name)) => Way::Relay {
                    address: way.address,
                    relay: relay.parse().map_err(|error| damaged(&error))?,
                    name,
                },
                (None, None) => Way::Direct { address: way.address },
                _ => return Err(damaged(&"a way has a relay or a name, not both")),
            })
        });
        let ways: Vec<Way> = ways.collect::<Result<_, StartError>>()?;
        Ok(Some(Enrolled {
            authority,
            paths: paths(&ways)?,
        }))
    }

    /// Keeps whom the node belongs to from now on: the authority of a ticket, and the ways to it.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn keep_ticket(&self, ticket: &Ticket) -> io::Result<()> {
        let ways = ticket.ways().iter().map(|way| match way {
            Way::Relay { address, relay, name } => WayFile {
                address: address.clone(),
                relay: Some(relay.to_string()),
                name: Some(name.clone()),
            },
            Way::Direct { address } => WayFile {
                address: address.clone(),
                relay: None,
                name: None,
            },
        });
        let file = EnrolledFile {
            authority: ticket.authority().to_string(),
            ways: ways.collect(),
        };
        std::fs::create_dir_all(&self.0)?;
        write_durably(&self.enrolled_path(), &serde_json::to_vec_pretty(&file)?)
    }
}
