//! `setup`: installs what the checks and tests need and skips what is there.

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::program::Program;
use crate::suites;
use crate::workspace::Workspace;

/// Installs Debian packages, cargo tools, the clients and peers of the tests, and the test suites of others.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    debian_packages(workspace, DEBIAN_PACKAGES)?;
    cargo_tool(workspace, &CARGO_DENY)?;
    python_peers(workspace)?;
    suites::install(workspace)
}

/// Installs those of some Debian packages that are missing.
pub(crate) fn debian_packages(workspace: &Workspace, packages: &[&str]) -> Result<(), Failure> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !is_installed(workspace, package))
        .collect();
    if missing.is_empty() {
        println!("setup: all {} Debian packages are installed", packages.len());
        return Ok(());
    }
    let root = Program::new(workspace, "id").arg("-u").output()? == b"0\n";
    let apt = |arguments: &[&str]| {
        let program = if root {
            Program::new(workspace, "env")
        } else {
            Program::new(workspace, "sudo").arg("env")
        };
        // By `env`: sudo lets no variable through.
        program
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", APT_LOCK_WAIT])
            .args(arguments)
    };
    apt(&["update", "-q"]).run()?;
    apt(&["install", "-q", "-y", "--no-install-recommends"])
        .args(&missing)
        .run()
}

fn is_installed(workspace: &Workspace, package: &str) -> bool {
    Program::new(workspace, "dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}\\n", package])
        .quiet_output()
        .is_some_and(|answer| says_installed(&answer))
}

/// Whether a package is installed for any architecture; each has a line.
fn says_installed(answer: &[u8]) -> bool {
    answer
        .split(|byte| *byte == b'\n')
        .any(|status| status == b"installed")
}

/// Installs a tool unless there is one, of whatever version.
pub(crate) fn cargo_tool(workspace: &Workspace, tool: &CargoTool) -> Result<(), Failure> {
    let is_there = Program::cargo(workspace, tool.subcommand)
        .arg("--version")
        .succeeds();
    if is_there {
        println!("setup: cargo {} is installed", tool.subcommand);
        return Ok(());
    }
    Program::cargo(workspace, "install")
        .args(["--locked", "--version", tool.version, tool.package])
        .run()
}

fn python_peers(workspace: &Workspace) -> Result<(), Failure> {
    let requirements = requirements(workspace)?;
    if requirements.is_empty() {
        return Ok(());
    }
    let python = python_environment(workspace, &workspace.path(PYTHON_ENVIRONMENT))?;
    for file in requirements {
        Program::new(workspace, &python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--requirement",
            ])
            .arg(file)
            .run()?;
    }
    Ok(())
}

/// Makes a Python environment unless there is one; returns its Python.
pub(crate) fn python_environment(workspace: &Workspace, venv: &Path) -> Result<PathBuf, Failure> {
    let python = venv.join("bin/python");
    // One whose making was interrupted has no pip.
    let is_whole = Program::new(workspace, &python)
        .args(["-m", "pip", "--version"])
        .succeeds();
    if !is_whole {
        Program::new(workspace, "python3")
            .args(["-m", "venv", "--clear"])
            .arg(venv)
            .run()?;
    }
    Ok(python)
}

/// Finds every tracked `requirements.txt`: each belongs to a peer that the tests talk to.
fn requirements(workspace: &Workspace) -> Result<Vec<PathBuf>, Failure> {
    let listing = Program::new(workspace, "git")
        .args(["ls-files", "-z", "--", ":(glob)**/requirements.txt"])
        .output()?;
    Ok(String::from_utf8_lossy(&listing)
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(|path| workspace.path(Path::new(path)))
        .collect())
}

/// A subcommand of cargo that does not come with it.
pub(crate) struct CargoTool {
    subcommand: &'static str,
    package: &'static str,
    version: &'static str,
}

const CARGO_DENY: CargoTool = CargoTool {
    subcommand: "deny",
    package: "cargo-deny",
    version: "0.20.2",
};

/// Only `fuzz` runs it.
pub(crate) const CARGO_FUZZ: CargoTool = CargoTool {
    subcommand: "fuzz",
    package: "cargo-fuzz",
    version: "0.13.2",
};

/// Another apt may be at work, such as that of a machine that has just started.
const APT_LOCK_WAIT: &str = "--option=DPkg::Lock::Timeout=600";

/// Where the Python packages go: below `target`, so that nothing outside the tree changes.
pub(crate) const PYTHON_ENVIRONMENT: &str = "target/python";

/// What tests and measurements start, one line per purpose.
const DEBIAN_PACKAGES: &[&str] = &[
    // Builds: C compiler for aws-lc, C++ for libFuzzer.
    "gcc",
    "g++",
    // TLS with pre-shared keys.
    "libssl-dev",
    "pkg-config",
    // MQTT peers, and the bridge that bench compares with.
    "mosquitto",
    "mosquitto-clients",
    // A client of SOCKS 5.
    "curl",
    // A JetStream server, to which the collector delivers.
    "nats-server",
    // PKCS#11 tokens.
    "softhsm2",
    "opensc",
    "opensc-pkcs11",
    "openssl",
    // A software TPM behind the resource manager, and its PKCS#11 module.
    "swtpm",
    "tpm2-abrmd",
    "libtss2-tcti-swtpm0",
    "libtss2-tcti-tabrmd0",
    "libtpm2-pkcs11-1",
    "tpm2-tools",
    "dbus-daemon",
    "dbus-bin",
    // Network namespaces and what crosses them.
    "iproute2",
    "tcpdump",
    "rsync",
    // Mounts and namespaces of a test's own, timeouts; part of every Debian but the smallest images.
    "util-linux",
    "mount",
    "coreutils",
    // Fault injection at the system call.
    "strace",
    // The second implementation of the protocol.
    "python3",
    "python3-venv",
    "git",
];

#[cfg(test)]
mod tests {
    use super::says_installed;

    #[test]
    fn a_package_is_installed_in_one_architecture_or_several() {
        assert!(says_installed(b"installed\n"));
        assert!(says_installed(b"installed\ninstalled\n"));
        assert!(says_installed(b"config-files\ninstalled\n"));
        assert!(!says_installed(b"not-installed\n"));
        assert!(!says_installed(b""));
    }
}
