//! A node: its file, its directory, its process.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{
    process::{Ended, Process, command, run},
    scrape::{self, Samples},
    wait::{PATIENCE, until},
};

/// One node in a directory of its own.
pub(crate) struct Node {
    /// What it is called in its file.
    pub(crate) name: String,
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// Its file.
    pub(crate) config: PathBuf,
    /// Where it serves metrics.
    pub(crate) metrics: SocketAddr,
    /// The program that starts it, such as `ip netns exec NAME`.
    by: Vec<String>,
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

impl Node {
    /// Makes the directory. The file comes by [`Self::write`].
    ///
    /// # Panics
    /// If the file system says no.
    pub(crate) fn new(parent: &Path, name: &str, metrics: SocketAddr) -> Self {
        let dir = parent.join(name);
        fs::create_dir_all(&dir).expect("the parent is ours");
        let node = Self::found(dir, name, metrics);
        node.write_secret("passphrase", &RANDOM_KEY);
        node
    }

    /// A node that somebody else has made in `dir`.
    pub(crate) fn found(dir: PathBuf, name: &str, metrics: SocketAddr) -> Self {
        let config = dir.join("fieldgate.toml");
        Self {
            name: name.to_owned(),
            config,
            metrics,
            by: Vec::new(),
            environment: Vec::new(),
            process: None,
            dir,
        }
    }

    /// Lets `words` start the node.
    pub(crate) fn start_by(&mut self, words: &[&str]) {
        self.by = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Sets a variable of its environment.
    pub(crate) fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Writes its file.
    ///
    /// # Panics
    /// If the file system says no.
    pub(crate) fn write(&self, text: &str) {
        fs::write(&self.config, text).expect("the directory is ours");
    }

    /// Replaces text in its file.
    ///
    /// # Panics
    /// If the text is not in there.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = self.text();
        assert!(text.contains(from), "no {from:?} in {text}");
        self.write(&text.replace(from, to));
    }

    /// Appends to its file.
    pub(crate) fn append(&self, more: &str) {
        self.write(&(self.text() + more));
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.config).expect("the file was written")
    }

    /// Writes a file that only its owner can read.
    ///
    /// # Panics
    /// If the file system says no.
    pub(crate) fn write_secret(&self, name: &str, secret: &[u8]) {
        let path = self.dir.join(name);
        // Who reads it meanwhile reads the old one.
        let new = self.dir.join(format!("{name}.new"));
        fs::write(&new, secret).expect("the directory is ours");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        fs::rename(&new, &path).expect("the directory is ours");
    }

    /// Returns a command of the binary, in the environment of this node and with its file.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut all: Vec<&str> = self.by.iter().map(String::as_str).collect();
        all.push(env!("CARGO_BIN_EXE_fieldgate"));
        all.extend(words);
        let mut command = command(&all);
        command.arg("--config").arg(&self.config);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command of the binary to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        run(&mut self.command(words))
    }

    /// Makes its identity and returns the identifier.
    ///
    /// # Panics
    /// If that fails.
    pub(crate) fn create_identity(&self) -> String {
        let made = self.run(&["identity", "create", "--json"]).expect(0);
        text(&json(&made.out), "identifier")
    }

    /// Returns its identifier, which was made before.
    ///
    /// # Panics
    /// If it was not.
    pub(crate) fn identifier(&self) -> String {
        let shown = self.run(&["identity", "show", "--json"]).expect(0);
        text(&json(&shown.out), "identifier")
    }

    /// Starts it and does not wait until it is ready.
    pub(crate) fn spawn(&mut self) {
        let process = Process::spawn(&self.name, &mut self.command(&["run"]));
        self.process = Some(process);
    }

    /// Starts it and waits until it is ready; returns the line that says so.
    pub(crate) fn start(&mut self) -> String {
        self.spawn();
        self.wait_ready()
    }

    /// Waits until it is ready.
    pub(crate) fn wait_ready(&mut self) -> String {
        self.process().wait_for_text(" ready ")
    }

    /// Its process.
    ///
    /// # Panics
    /// If it was not started.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the node was started")
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process().kill();
    }

    /// Stops it as an operator would.
    ///
    /// # Panics
    /// If it does not end with 0.
    pub(crate) fn stop(&mut self) {
        let status = self.process().stop();
        assert!(status.success(), "{status}: {}", self.process().printed());
    }

    /// Asks for its status by its control socket, as `fieldgate status` does.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn try_status(&self) -> Result<Value, String> {
        let ask = || -> std::io::Result<Value> {
            let mut stream = UnixStream::connect(self.dir.join("control.sock"))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"{\"request\":\"status\"}\n")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        let answer = ask().map_err(|error| format!("{}: {error}", self.name))?;
        let status = &answer["status"];
        let is_silent = |shard: &Value| shard["is_silent"] == true;
        match status["shards"].as_array() {
            Some(shards) if !shards.iter().any(is_silent) => Ok(status.clone()),
            // What a busy shard has not told is missing in it.
            _ => Err(format!("{}: {answer}", self.name)),
        }
    }

    /// Returns its status.
    ///
    /// # Panics
    /// If it does not tell.
    pub(crate) fn status(&self) -> Value {
        until(&format!("status of {}", self.name), || self.try_status())
    }

    /// Waits until its status is as wanted.
    ///
    /// # Panics
    /// If it does not come to that; with the last status.
    pub(crate) fn wait_status(&self, what: &str, mut want: impl FnMut(&Value) -> bool) -> Value {
        until(what, || {
            let status = self.try_status()?;
            if want(&status) {
                Ok(status)
            } else {
                Err(format!("{status:#}"))
            }
        })
    }

    /// Waits until it says that it does what its file says.
    pub(crate) fn wait_healthy(&self) -> Value {
        self.wait_status(&format!("{} healthy", self.name), |status| {
            status["health"] == "healthy"
        })
    }

    /// Scrapes its metrics.
    ///
    /// # Panics
    /// If they do not come, or are not in the format.
    pub(crate) fn samples(&self) -> Samples {
        let (code, body) = scrape::get(self.metrics, "/metrics");
        assert_eq!(code, 200, "{body}");
        Samples::parse(&body)
    }
}

/// Parses one JSON value.
///
/// # Panics
/// If it is none.
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// Returns the text in a field.
///
/// # Panics
/// If there is none.
pub(crate) fn text(value: &Value, field: &str) -> String {
    let found = value[field].as_str();
    found
        .unwrap_or_else(|| panic!("no text {field} in {value}"))
        .to_owned()
}

/// Of the sealed key files of all nodes that tests make. It looks like a random key, not like a text that somebody typed, so that
/// hundreds of starts do without a password hash of half a second.
const RANDOM_KEY: [u8; 32] = [0xa5; 32];
