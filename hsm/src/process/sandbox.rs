//! What a worker process takes from itself before it loads a vendor's code.
//!
//! Landlock closes the file system but for what modules and tokens need, and with it the network and signals to others where
//! the kernel can; a seccomp filter closes system calls that no signer needs. Then the worker tries what must not
//! work any more and reports what does.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope, path_beneath_rules,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getppid, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};

use super::SandboxReport;
use crate::error::OsError;
use crate::settings::Settings;

mod paths;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod seccomp;

use paths::Paths;

/// Makes this process small: it dies with its parent, leaves no core, gains no rights.
///
/// `parent` is the process that must still be there once the kernel has been told to link the two lives.
pub(super) fn harden(parent: Option<rustix::process::Pid>) -> Result<(), OsError> {
    let os = |error: rustix::io::Errno| OsError::from(io::Error::from(error));
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(os)?;
    if getppid() != parent {
        return Err(OsError {
            kind: io::ErrorKind::NotConnected,
            message: "the node that started this worker is gone".to_owned(),
        });
    }
    // Neither a core nor a debugger of the same user gets at the key.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(os)?;
    let limit = |count| Rlimit {
        current: Some(count),
        maximum: Some(count),
    };
    setrlimit(Resource::Core, limit(0)).map_err(os)?;
    setrlimit(Resource::Nofile, limit(FILES_MAX)).map_err(os)?;
    rustix::thread::set_no_new_privs(true).map_err(os)
}

/// Confines this process to what the settings need, and says what stayed open.
///
/// `closed` is a directory of the node that must not be readable afterwards.
pub(super) fn confine(settings: &Settings, closed: Option<&Path>) -> SandboxReport {
    let network = match settings {
        Settings::Pkcs11 { sandbox, .. } => sandbox.network,
        Settings::File { .. } => false,
    };
    let paths = Paths::of(settings);
    let files = match restrict_files(&paths, network) {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Ok(()),
        Ok(RulesetStatus::NotEnforced) => Err("files are open: this kernel has no Landlock".to_owned()),
        Err(error) => Err(format!("files are open: Landlock failed: {error}")),
    };
    let calls = restrict_calls(network).map_err(|reason| format!("system calls are open: {reason}"));
    let openings = openings(closed, network, files.is_ok(), calls.is_ok());
    let gaps: Vec<String> = [files.err(), calls.err()]
        .into_iter()
        .flatten()
        .chain(openings)
        .collect();
    match gaps.is_empty() {
        true => SandboxReport::Full,
        false => SandboxReport::Partial(gaps),
    }
}

/// Applies Landlock; what the kernel is too old for is left out.
fn restrict_files(paths: &Paths, network: bool) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(LANDLOCK);
    let look = AccessFs::from_read(LANDLOCK);
    let read = look & !AccessFs::Execute;
    let mut ruleset = Ruleset::default().handle_access(all)?.scope(Scope::Signal)?;
    if !network {
        ruleset = ruleset.handle_access(AccessNet::from_all(LANDLOCK))?;
    }
    // Paths that do not exist are left out: there is nothing to be allowed.
    let status = ruleset
        .create()?
        .add_rules(path_beneath_rules(&paths.execute, look))?
        .add_rules(path_beneath_rules(&paths.read, read))?
        .add_rules(path_beneath_rules(&paths.write, all & !AccessFs::Execute))?
        .add_rules(path_beneath_rules(&paths.everything, all))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Installs the filter of system calls.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn restrict_calls(network: bool) -> Result<(), String> {
    seccomp::install(network)
}

/// Says that there is no filter of system calls for this machine.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn restrict_calls(_network: bool) -> Result<(), String> {
    Err(format!("there is no filter for {}", std::env::consts::ARCH))
}

/// Tries what must not work, where the confinement is said to be in force, and describes what does.
fn openings(closed: Option<&Path>, network: bool, is_landlocked: bool, is_filtered: bool) -> Vec<String> {
    let mut found = Vec::new();
    if is_landlocked {
        let directories = [Path::new("/")].into_iter().chain(closed);
        for directory in directories {
            match fs::read_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                // What does not exist cannot be read either.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(_) | Err(_) => found.push(format!("{} can be read", directory.display())),
            }
        }
    }
    if is_filtered {
        let is_refused = |result: io::Result<()>| {
            result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        if !network && !is_refused(UdpSocket::bind("127.0.0.1:0").map(drop)) {
            found.push("the network can be reached".to_owned());
        }
        // The filter refuses before anybody looks for the file, so there need not be one.
        let execution = Command::new(PROGRAM_ABSENT)
            .stdin(Stdio::null())
            .spawn()
            .map(drop);
        if !is_refused(execution) {
            found.push("programs can be run".to_owned());
        }
    }
    found
}

/// Returns the directory that holds a file; none for the root, which is never granted.
fn directory_of(path: &Path) -> Option<PathBuf> {
    path.parent()
        .filter(|parent| *parent != Path::new("/") && !parent.as_os_str().is_empty())
        .map(Path::to_owned)
}

/// The rights that are handled; a kernel that knows fewer handles fewer. Higher versions were not tried.
const LANDLOCK: ABI = ABI::V5;
/// Files a worker may have open: sessions of TPM stacks and of databases need some dozens.
const FILES_MAX: u64 = 256;
/// A program that is nowhere.
const PROGRAM_ABSENT: &str = "/proc/self/no-such-program";
