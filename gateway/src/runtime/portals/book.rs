//! Inlets and outlets that come from commands, on the control thread: what they say, and which are kept over a restart.
//!
//! Each has the form that it would have in the node's file, and is checked as part of it: the file with everything that was added behind
//! it has to be good. So the same rules hold, and everything that is wrong is said at once. Those that are kept stand in
//! `portals.toml` in the state directory. At a start they are read behind the file; if they do not go with it any more, the node
//! starts without them and says so.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fieldgate_config::{
    Colour, Loaded, Severity,
    settings::{
        Settings,
        portal::{PortalInlet, PortalOutlet},
    },
};

use super::changing::PortalOrigin;
use crate::{control::portal::PortalKind, runtime::durable::write_durably};

/// One that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: PortalKind,
    name: String,
    /// Its table.
    text: String,
    kept: bool,
}

impl Entry {
    /// Makes the table of one.
    fn new(kind: PortalKind, name: &str, keys: &[(String, String)], kept: bool) -> Result<Self, String> {
        let mut text = format!("[[portal.{}]]\nname = {}\n", kind.name(), quoted(name));
        for (key, value) in keys {
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if key.is_empty() || !key.chars().all(is_plain) {
                return Err(format!("`{}` is no key of a file", key.escape_debug()));
            }
            // In one line nothing can stand that is not the value of this key.
            if value.chars().any(char::is_control) {
                return Err(format!("the value of `{key}` has to stand in one line"));
            }
            text.push_str(&format!("{key} = {value}\n"));
        }
        Ok(Self {
            kind,
            name: name.to_owned(),
            text,
            kept,
        })
    }

    /// Takes the entries of a file apart that this made; `None` if it is another.
    fn read_all(text: &str) -> Option<Vec<Self>> {
        let mut entries: Vec<Self> = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let kind = [PortalKind::Inlet, PortalKind::Outlet]
                .into_iter()
                .find(|kind| line == format!("[[portal.{}]]", kind.name()));
            if let Some(kind) = kind {
                entries.push(Self {
                    kind,
                    name: String::new(),
                    text: String::new(),
                    kept: true,
                });
            } else if let Some(name) = line.strip_prefix("name = ") {
                entries.last_mut()?.name = serde_json::from_str(name).ok()?;
            }
            let entry = entries.last_mut()?;
            entry.text.push_str(line);
            entry.text.push('\n');
        }
        entries
            .iter()
            .all(|entry| !entry.name.is_empty())
            .then_some(entries)
    }
}

/// Writes a text as a value of a file.
pub(crate) fn quoted(text: &str) -> String {
    // What JSON writes for a text TOML reads as the same.
    serde_json::Value::from(text).to_string()
}

/// Which portals come from commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Added(Vec<Entry>);

impl Added {
    /// Returns where one comes from.
    pub(crate) fn origin(&self, kind: PortalKind, name: &str) -> PortalOrigin {
        match self.find(kind, name) {
            None => PortalOrigin::File,
            Some(Entry { kept: true, .. }) => PortalOrigin::Kept,
            Some(Entry { kept: false, .. }) => PortalOrigin::Command,
        }
    }

    fn find(&self, kind: PortalKind, name: &str) -> Option<&Entry> {
        self.0
            .iter()
            .find(|entry| (entry.kind, entry.name.as_str()) == (kind, name))
    }

    fn text(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.text.as_str())
    }
}

/// The node's file and what was added to it.
pub(crate) struct Book {
    name: String,
    text: String,
    base_dir: PathBuf,
    host_name: String,
    /// Where those stand that are kept.
    kept: PathBuf,
    added: Added,
}

/// What can be added.
#[derive(Clone, Debug)]
pub(crate) enum Portal {
    /// An inlet.
    Inlet(Box<PortalInlet>),
    /// An outlet.
    Outlet(Box<PortalOutlet>),
}

/// One that may be added: it is good.
#[derive(Debug)]
pub(crate) struct Addition {
    entry: Entry,
    /// What it is.
    pub(crate) portal: Portal,
    /// What is odd about it.
    pub(crate) warnings: Vec<String>,
}

impl Book {
    /// Reads what is kept beside the file at `path`, of which `settings` were read; gives the settings with it.
    pub(crate) fn open(path: &Path, host_name: String, settings: Settings) -> (Self, Settings) {
        let mut book = Self {
            name: path.display().to_string(),
            // It was read a moment ago.
            text: fs::read_to_string(path).unwrap_or_default(),
            base_dir: path.parent().unwrap_or_else(|| Path::new("")).to_owned(),
            host_name,
            kept: settings.node.state_dir.join("portals.toml"),
            added: Added::default(),
        };
        let kept = match fs::read_to_string(&book.kept) {
            Ok(text) => Entry::read_all(&text).ok_or_else(|| "it is not as it was written".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (book, settings),
            Err(error) => Err(error.to_string()),
        };
        let kept = kept.map(Added).and_then(|kept| {
            let loaded = book.load(kept.text());
            match loaded.settings {
                Some(merged) => Ok((kept, merged)),
                None => Err(loaded.problems.render_text(Colour::None, WIDTH)),
            }
        });
        match kept {
            Ok((kept, merged)) => {
                book.added = kept;
                (book, merged)
            }
            Err(problem) => {
                tracing::error!(
                    file = %book.kept.display(),
                    problem,
                    "inlets and outlets that were added by command are left out; correct or remove the file"
                );
                (book, settings)
            }
        }
    }

    /// Returns what was added.
    pub(crate) const fn added(&self) -> &Added {
        &self.added
    }

    fn load<'a>(&self, more: impl Iterator<Item = &'a str>) -> Loaded {
        let mut text = self.text.clone();
        for entry in more {
            text.push('\n');
            text.push_str(entry);
        }
        let name = format!("{} with what was added", self.name);
        fieldgate_config::load_str(&name, &text, &self.base_dir, &self.host_name)
    }

    /// Checks one that is to be added.
    ///
    /// # Errors
    /// Everything that is wrong, in words.
    pub(crate) fn check(
        &self,
        kind: PortalKind,
        name: &str,
        keys: &[(String, String)],
        keep: bool,
    ) -> Result<Addition, String> {
        if self.added.0.len() >= ADDED_MAX {
            return Err(format!(
                "there are {ADDED_MAX} that were added by command, which is all there may be"
            ));
        }
        let entry = Entry::new(kind, name, keys, keep)?;
        let lines_before = self.load(self.added.text());
        let odd_before: Vec<String> = lines_before.problems.iter().map(ToString::to_string).collect();
        let loaded = self.load(self.added.text().chain([entry.text.as_str()]));
        let Some(settings) = loaded.settings else {
            return Err(loaded.problems.render_text(Colour::None, WIDTH));
        };
        let warnings = loaded
            .problems
            .iter()
            .filter(|problem| problem.severity() == Severity::Warning)
            .map(ToString::to_string)
            .filter(|problem| !odd_before.contains(problem))
            .collect();
        let portals = settings.portal.as_ref();
        let streams = portals.map_or(0, |portals| {
            let inlets = portals.inlets.iter();
            let inlets = inlets.filter(|inlet| {
                inlet.name == name && kind == PortalKind::Inlet
                    || self.is_added(PortalKind::Inlet, &inlet.name)
            });
            let outlets = portals.outlets.iter();
            let outlets = outlets.filter(|outlet| {
                outlet.name == name && kind == PortalKind::Outlet
                    || self.is_added(PortalKind::Outlet, &outlet.name)
            });
            let inlets = inlets.map(|inlet| u32::from(inlet.streams_max));
            inlets
                .chain(outlets.map(|outlet| u32::from(outlet.streams_max)))
                .sum()
        });
        if streams > STREAMS_MAX {
            return Err(format!(
                "what is added by command may carry {STREAMS_MAX} streams in all, and this would make {streams}; say streams_max"
            ));
        }
        let portal = portals.and_then(|portals| match kind {
            PortalKind::Inlet => portals.inlets.last().cloned().map(Box::new).map(Portal::Inlet),
            PortalKind::Outlet => portals.outlets.last().cloned().map(Box::new).map(Portal::Outlet),
        });
        Ok(Addition {
            entry,
            portal: portal.ok_or("nothing came of it")?,
            warnings,
        })
    }

    fn is_added(&self, kind: PortalKind, name: &str) -> bool {
        self.added.find(kind, name).is_some()
    }

    /// Checks whether one may be removed.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) fn check_removal(&self, kind: PortalKind, name: &str) -> Result<(), String> {
        if self.is_added(kind, name) {
            return Ok(());
        }
        Err(format!(
            "no {} {} was added by command; those of the file are changed there, and need a restart",
            kind.name(),
            name.escape_debug()
        ))
    }

    /// Takes note of one that works now.
    ///
    /// # Errors
    /// If it is to be kept and the file cannot be written; then it works until the node ends.
    pub(crate) fn add(&mut self, addition: Addition) -> io::Result<()> {
        let kept = addition.entry.kept;
        self.added.0.push(addition.entry);
        let written = if kept { self.keep() } else { Ok(()) };
        if written.is_err()
            && let Some(entry) = self.added.0.last_mut()
        {
            entry.kept = false;
        }
        written
    }

    /// Takes note that one is no more.
    ///
    /// # Errors
    /// If the file cannot be written; then it comes back with the next start.
    pub(crate) fn remove(&mut self, kind: PortalKind, name: &str) -> io::Result<()> {
        let was_kept = self.added.find(kind, name).is_some_and(|entry| entry.kept);
        self.added
            .0
            .retain(|entry| (entry.kind, entry.name.as_str()) != (kind, name));
        if was_kept { self.keep() } else { Ok(()) }
    }

    fn keep(&self) -> io::Result<()> {
        let mut text = HEAD.to_owned();
        for entry in self.added.0.iter().filter(|entry| entry.kept) {
            text.push('\n');
            text.push_str(&entry.text);
        }
        write_durably(&self.kept, text.as_bytes())
    }
}

/// How the file begins.
const HEAD: &str =
    "# Inlets and outlets that `fieldgate portal … add --keep` has added. Written by the node.\n";
/// Inlets and outlets that may be added.
const ADDED_MAX: usize = 64;
/// Streams that they may carry in all.
pub(crate) const STREAMS_MAX: u32 = 4_096;
/// Columns that diagnostics are wrapped at.
const WIDTH: usize = 110;

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const NODE: &str = "fg1qf4jcddwxhvk2zdnasrctey2axmrz6tjnq3tcdzhf922y6secyfshaufes";

    fn file(dir: &TempDir) -> PathBuf {
        let path = dir.path().join("fieldgate.toml");
        let text = "[node]\nname = \"desk\"\nstate_dir = \"state\"\n[identity]\nfile = \"k\"\npassphrase = { file = \"p\" }\n\
                    [[portal.inlet]]\nname = \"first\"\nlisten = \"127.0.0.1:1\"\noutlet = \"a\"\ndirect = { address = \"10.0.0.1:7\" }\n";
        fs::write(&path, format!("{text}node = \"{NODE}\"\n")).expect("the directory is ours");
        fs::create_dir_all(dir.path().join("state")).expect("the directory is ours");
        path
    }

    fn open(path: &Path) -> (Book, Settings) {
        let loaded = fieldgate_config::load(path, "desk");
        Book::open(
            path,
            "desk".to_owned(),
            loaded.settings.expect("the file is good"),
        )
    }

    fn keys(more: &[(&str, &str)]) -> Vec<(String, String)> {
        let keys = [("outlet", "\"b\""), ("direct", "{ address = \"10.0.0.1:7\" }")];
        let node = quoted(NODE);
        let node = [("node", node.as_str())];
        let all = keys.iter().chain(more).chain(&node);
        all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_the_rest_is_not() {
        let dir = tempfile::tempdir().expect("room for a directory");
        let path = file(&dir);
        let (mut book, settings) = open(&path);
        assert_eq!(settings.portal.expect("it has one").inlets.len(), 1);
        for (name, port, keep) in [("second", "127.0.0.1:2", true), ("third", "127.0.0.1:3", false)] {
            let listen = quoted(port);
            let keys = keys(&[("listen", &listen)]);
            let addition = book
                .check(PortalKind::Inlet, name, &keys, keep)
                .expect("it is good");
            assert!(matches!(&addition.portal, Portal::Inlet(inlet) if inlet.name == name));
            book.add(addition).expect("the directory is ours");
            let twice = book.check(PortalKind::Inlet, name, &keys, keep);
            assert!(twice.expect_err("the name is taken").contains("a name"));
        }
        let (mut book, settings) = open(&path);
        let names: Vec<String> = settings
            .portal
            .expect("it has some")
            .inlets
            .into_iter()
            .map(|inlet| inlet.name)
            .collect();
        assert_eq!(names, ["first", "second"]);
        let origin = |book: &Book, name| book.added().origin(PortalKind::Inlet, name);
        assert_eq!(origin(&book, "first"), PortalOrigin::File);
        assert_eq!(origin(&book, "second"), PortalOrigin::Kept);
        assert!(book.check_removal(PortalKind::Inlet, "first").is_err());
        book.check_removal(PortalKind::Inlet, "second")
            .expect("it was added");
        book.remove(PortalKind::Inlet, "second")
            .expect("the directory is ours");
        let (_, settings) = open(&path);
        assert_eq!(settings.portal.expect("it has one").inlets.len(), 1);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_and_nothing_else_can_be_slipped_in() {
        let dir = tempfile::tempdir().expect("room for a directory");
        let (book, _) = open(&file(&dir));
        let wrong = keys(&[("listen", "\"nowhere\""), ("streams_max", "0")]);
        let problems = book
            .check(PortalKind::Inlet, "second", &wrong, false)
            .expect_err("it is wrong");
        assert!(
            problems.contains("listen") && problems.contains("streams_max"),
            "{problems}"
        );
        for (key, value) in [
            ("mode", "0o600\n[mqtt]\nanonymous = true"),
            ("a]\n[mqtt", "1"),
            ("allow", "[] x = 1"),
        ] {
            let refused = book.check(PortalKind::Inlet, "second", &keys(&[(key, value)]), false);
            assert!(refused.is_err(), "{key}");
        }
        let many = keys(&[("listen", "\"127.0.0.1:2\""), ("streams_max", "1024")]);
        let mut book = book;
        for name in ["a", "b", "d", "e"] {
            let listen = quoted(&format!("unix:/run/{name}.sock"));
            let keys = keys(&[("listen", &listen), ("streams_max", "1024")]);
            let addition = book
                .check(PortalKind::Inlet, name, &keys, false)
                .expect("it is good");
            book.add(addition).expect("nothing is written");
        }
        let refused = book.check(PortalKind::Inlet, "c", &many, false);
        assert!(refused.expect_err("that is too much").contains("streams"));
    }

    #[test]
    fn a_node_starts_without_what_does_not_go_with_its_file_any_more() {
        let dir = tempfile::tempdir().expect("room for a directory");
        let path = file(&dir);
        let kept = dir.path().join("state/portals.toml");
        for text in [
            "[[portal.inlet]]\nname = \"first\"\n",
            "name = 1\n",
            "[mqtt]\n",
            "[[portal.inlet]]\n",
        ] {
            fs::write(&kept, text).expect("the directory is ours");
            let (book, settings) = open(&path);
            assert_eq!(settings.portal.expect("it has one").inlets.len(), 1, "{text}");
            assert_eq!(*book.added(), Added::default());
        }
    }
}
