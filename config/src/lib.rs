//! One TOML file into checked settings.
//!
//! ```text
//!  file ──toml──▶ tables ──raw: names, types, bounds──▶ raw::Root ──check: partners, duplicates──▶ Settings
//!                    │                  │                                        │
//!                    └──────────────────┴────────────── Problem, all of them ────┘
//! ```
//!
//! [`load`] says everything that is wrong with a file at once, and hands out [`Settings`] only if
//! nothing is that would keep the node from starting. [`reference()`] and [`schema()`] are made from the same table of
//! keys the file is read with, so they cannot tell of keys, bounds or defaults that do not exist.
//!
//! ```
//! let loaded = fieldgate_config::load_str("fieldgate.toml", "[metrics]\nlisten = '0.0.0.0:9464'", "/etc/fieldgate".as_ref(), "hall-3");
//! assert!(loaded.settings.is_none());
//! print!("{}", loaded.problems.render_text(fieldgate_config::Colour::None, 100));
//! ```
//!
//! Nothing here reads anything but the one file: whether keys, certificates and directories exist is found out at start.
#![forbid(unsafe_code)]

pub mod address;
mod check;
mod document;
mod problem;
mod raw;
mod reader;
mod reference;
mod schema;
pub mod settings;
mod shape;
mod source;
mod spec;
mod suggest;
pub mod target;
pub mod template;
mod text;
pub mod url;

use std::io::Read;
use std::path::Path;

pub use problem::{Colour, Problem, Problems, Severity};
use problem::{Draft, Findings};
use reader::{Context, RawTable};
use settings::{OwnIdentity, Settings};

/// What became of a file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings, exactly if no problem is an error.
    pub settings: Option<Settings>,
    /// What `[node]` and `[identity]` say, exactly if no error is about them or about the form of the file.
    pub own_identity: Option<OwnIdentity>,
    /// What is wrong, warnings included.
    pub problems: Problems,
}

/// Reads and checks a file.
///
/// Paths in it are relative to its directory. `host_name` is the name of this machine, which a node without a name of its own
/// is called by (what a node name cannot hold is left out).
///
/// A file that cannot be read is a problem like any other, so there is no other error.
#[must_use]
pub fn load(path: &Path, host_name: &str) -> Loaded {
    let name = path.display().to_string();
    let base_dir = path.parent().unwrap_or_else(|| Path::new(""));
    match read(path) {
        Ok(text) => load_str(&name, &text, base_dir, host_name),
        Err(draft) => {
            let mut findings = Findings::default();
            findings.push(draft);
            Loaded {
                settings: None,
                own_identity: None,
                problems: findings.finish(&name, ""),
            }
        }
    }
}

/// Checks the text of a file called `name` as if it lay in `base_dir`.
#[must_use]
pub fn load_str(name: &str, text: &str, base_dir: &Path, host_name: &str) -> Loaded {
    let mut findings = Findings::default();
    let checked = document::parse(text, &mut findings).map(|table| {
        let mut context = Context::new(base_dir, &mut findings);
        let root = raw::Root::read(&table, &(0..0), "", &mut context);
        check::check(root, host_name, &mut context)
    });
    let check::Checked {
        settings,
        own_identity,
    } = checked.unwrap_or_default();
    Loaded {
        settings,
        own_identity,
        problems: findings.finish(name, text),
    }
}

/// Returns all keys with type, bounds, default and meaning, in Markdown.
#[must_use]
pub fn reference() -> String {
    reference::render(&raw::Root::spec(), &raw::Secret::spec())
}

/// Returns a JSON Schema (2020-12) for the file, for editors.
#[must_use]
pub fn schema() -> serde_json::Value {
    schema::render(&raw::Root::spec())
}

fn read(path: &Path) -> Result<String, Draft> {
    let unreadable = |error: &std::io::Error| {
        let help = if error.kind() == std::io::ErrorKind::NotFound {
            "examples for every role stand in /usr/share/doc/fieldgate/examples"
        } else {
            "name a TOML file that the user fieldgate runs as can read"
        };
        Draft::error(format!("cannot read {}: {error}", path.display())).help(help)
    };
    let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Draft::error(format!(
            "{} is larger than {FILE_BYTES_MAX} bytes",
            path.display()
        ))
        .help("no fieldgate file is that large; is it the right one?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        Draft::error(format!(
            "{} is not UTF-8 text: bad bytes in line {line}",
            path.display()
        ))
        .help("save the file as UTF-8, as TOML demands")
    })
}

/// Largest file that is read, in bytes: room for a device table of tens of thousands.
const FILE_BYTES_MAX: u64 = 16 << 20;
