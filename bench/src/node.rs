//! fieldgate as a measured process: its identity, its file, its start.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::failure::Failure;
use crate::place::Place;
use crate::process::{Running, complete};

/// Writes the file `passphrase` in `folder`, which protects the keys of the nodes there.
pub(crate) fn write_passphrase(folder: &Path) -> Result<(), Failure> {
    let path = folder.join("passphrase");
    // A file that others may read is refused.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(b"only for this measurement\n"))
        .map_err(Failure::io(format!("writing {}", path.display())))
}

/// Creates the identity of the node that `text` describes and returns its identifier.
pub(crate) fn create_identity(
    binary: &Path,
    folder: &Path,
    name: &str,
    text: &str,
) -> Result<String, Failure> {
    let path = write(folder, &format!("{name}.toml"), text)?;
    let call = |action: &str| {
        let mut command = Command::new(binary);
        command.args(["identity", action, "--config"]).arg(&path);
        command
    };
    complete(&mut call("create"))?;
    let shown = complete(call("show").arg("--json"))?;
    let shown: Shown = serde_json::from_slice(&shown).map_err(|error| Failure::Format {
        what: "`fieldgate identity show --json`".to_owned(),
        problem: error.to_string(),
    })?;
    Ok(shown.identifier)
}

/// What `fieldgate identity show --json` prints, as far as it is needed.
#[derive(Deserialize)]
struct Shown {
    identifier: String,
}

/// Returns what every node's file begins with: the node has folder, key and control socket by its name in `folder`.
pub(crate) fn head(folder: &Path, name: &str, io: &str, shards: u16, level: &str) -> String {
    let folder = folder.display();
    format!(
        "[node]\n\
         name = \"{name}\"\n\
         state_dir = \"{folder}/{name}\"\n\
         io = \"{io}\"\n\
         shards = {shards}\n\
         control_socket = \"{folder}/{name}.sock\"\n\
         \n\
         [log]\n\
         level = \"{level}\"\n\
         \n\
         [identity]\n\
         file = \"{folder}/{name}.key\"\n\
         passphrase = {{ file = \"{folder}/passphrase\" }}\n"
    )
}

/// Starts the node in a place whose file `name.toml` is in `folder`.
pub(crate) fn run(
    place: &Place,
    binary: &Path,
    folder: &Path,
    name: &'static str,
) -> Result<Running, Failure> {
    let mut command = place.command(binary);
    command
        .args(["run", "--config"])
        .arg(folder.join(format!("{name}.toml")));
    Running::start(name, &mut command, folder)
}

/// Starts the node that `text` describes and waits until it listens.
pub(crate) fn start(
    binary: &Path,
    folder: &Path,
    name: &'static str,
    text: &str,
    listens: SocketAddr,
) -> Result<Running, Failure> {
    write(folder, &format!("{name}.toml"), text)?;
    let mut process = run(&Place::here(), binary, folder, name)?;
    process.await_listener(listens)?;
    Ok(process)
}

/// Writes a file of a measurement and returns its path.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(Failure::io(format!("writing {}", path.display())))?;
    Ok(path)
}
