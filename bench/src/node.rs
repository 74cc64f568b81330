//! fieldgate as a measured process: its identity, its file, its start.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::failure::Failure;
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

/// Starts the node that `text` describes and waits until it listens.
pub(crate) fn start(
    binary: &Path,
    folder: &Path,
    name: &'static str,
    text: &str,
    listens: SocketAddr,
) -> Result<Running, Failure> {
    let path = write(folder, &format!("{name}.toml"), text)?;
    let mut command = Command::new(binary);
    let mut process = Running::start(name, command.args(["run", "--config"]).arg(&path), folder)?;
    process.await_listener(listens)?;
    Ok(process)
}

/// Writes a file of a measurement and returns its path.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(Failure::io(format!("writing {}", path.display())))?;
    Ok(path)
}
