//! MQTT.js from the npm registry, and the public test suites that `gateway/tests/it/interop` runs: part of `setup`, and `suites`.
//!
//! Everything goes below `target`, is pinned, and is checked against a hash that stands in the tree.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::program::Program;
use crate::setup::{self, PYTHON_ENVIRONMENT, debian_packages};
use crate::workspace::Workspace;

/// Installs what is missing of what the tests of `ci` need.
pub(crate) fn install(workspace: &Workspace) -> Result<(), Failure> {
    node_clients(workspace)
}

/// Installs the public suites, and runs them.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    setup::run(workspace)?;
    paho(workspace)?;
    mosquitto(workspace)?;
    Program::cargo_build(workspace, "test")
        .args(["--package", "fieldgate", "--features", "public-suites"])
        .args(["--test", "it", "--", "interop::suites"])
        .run()
}

/// Installs the packages of `gateway/tests/interop/package-lock.json`, without their install scripts.
fn node_clients(workspace: &Workspace) -> Result<(), Failure> {
    let there = |program: &str| Program::new(workspace, program).arg("--version").succeeds();
    if !there("node") || !there("npm") {
        debian_packages(workspace, &["nodejs", "npm"])?;
    }
    let home = workspace.path("target/node");
    let lock = workspace.read(OURS.to_owned() + "/package-lock.json")?;
    // Written last: an installation that was interrupted has none.
    let marker = home.join("installed.json");
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == lock)
        && home.join("node_modules/mqtt").exists()
    {
        println!("setup: the Node.js clients are installed");
        return Ok(());
    }
    make_directory(&home)?;
    for file in ["package.json", "package-lock.json"] {
        let from = workspace.path(OURS).join(file);
        copy(&from, &home.join(file))?;
    }
    Program::new(workspace, "npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"])
        .arg(&home)
        .run()?;
    copy(&home.join("package-lock.json"), &marker)
}

/// Unpacks the tests of paho-mqtt, which come with its source distribution only.
fn paho(workspace: &Workspace) -> Result<(), Failure> {
    let home = workspace.path("target/suites/paho");
    if home.join("tests").exists() {
        println!("setup: the suite of paho is there");
        return Ok(());
    }
    make_directory(&home)?;
    Program::new(workspace, workspace.path(PYTHON_ENVIRONMENT).join("bin/python"))
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
        .args([
            "--no-deps",
            "--no-binary",
            ":all:",
            "--require-hashes",
            "--requirement",
        ])
        .arg(workspace.path(OURS).join("paho/suite.txt"))
        .arg("--dest")
        .arg(&home)
        .run()?;
    unpack(workspace, &home.join("paho_mqtt-2.1.0.tar.gz"), &home)
}

/// Unpacks the tests of mosquitto's broker, which come with its source package only. The release of Debian that has the pinned
/// version need not be the one that runs here, so apt gets a list of its own.
fn mosquitto(workspace: &Workspace) -> Result<(), Failure> {
    let home = workspace.path("target/suites/mosquitto");
    if home.join("test/broker").exists() {
        println!("setup: the suite of mosquitto is there");
        return Ok(());
    }
    let apt = workspace.path("target/suites/apt");
    for directory in ["lists/partial", "cache/archives/partial", "source"] {
        make_directory(&apt.join(directory))?;
    }
    let list = apt.join("sources.list");
    let line = format!("deb-src {} {MOSQUITTO_RELEASE} main\n", debian_site(workspace)?);
    fs::write(&list, line).map_err(|source| Failure::File {
        path: list.clone(),
        source,
    })?;
    let option = |name: &str, path: &Path| format!("--option={name}={}", path.display());
    let options = [
        option("Dir::Etc::SourceList", &list),
        option("Dir::Etc::SourceParts", Path::new("/dev/null")),
        option("Dir::State::Lists", &apt.join("lists")),
        option("Dir::Cache", &apt.join("cache")),
    ];
    Program::new(workspace, "apt-get")
        .args(&options)
        .args(["update", "-q"])
        .run()?;
    let source = apt.join("source");
    Program::new(workspace, "env")
        .arg("--chdir")
        .arg(&source)
        .arg("apt-get")
        .args(&options)
        .args(["source", "-q", "--download-only", "mosquitto"])
        .run()?;
    let archive = source.join(MOSQUITTO_ARCHIVE);
    let sum = Program::new(workspace, "sha256sum").arg(&archive).output()?;
    if !sum.starts_with(MOSQUITTO_SHA256.as_bytes()) {
        return Err(Failure::Manifest {
            path: archive,
            problem: format!("its SHA-256 is not {MOSQUITTO_SHA256}"),
        });
    }
    make_directory(&home)?;
    unpack(workspace, &archive, &home)
}

/// Returns where this machine gets the packages of its own release from.
fn debian_site(workspace: &Workspace) -> Result<String, Failure> {
    let path = PathBuf::from("/etc/os-release");
    let release = fs::read_to_string(&path).map_err(|source| Failure::File {
        path: path.clone(),
        source,
    })?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .unwrap_or_default()
        .to_owned();
    let targets = Program::new(workspace, "apt-get")
        .args([
            "indextargets",
            "--format",
            "$(RELEASE) $(COMPONENT) $(SITE)",
            "Created-By: Packages",
        ])
        .output()?;
    String::from_utf8_lossy(&targets)
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{codename} main ")))
        .map(str::to_owned)
        .ok_or_else(|| Failure::Manifest {
            path,
            problem: format!("apt has no source of the release {codename:?}"),
        })
}

/// Unpacks an archive into a directory, without the one directory that everything in it lies in.
fn unpack(workspace: &Workspace, archive: &Path, into: &Path) -> Result<(), Failure> {
    Program::new(workspace, "tar")
        .args([
            "--extract",
            "--gzip",
            "--strip-components=1",
            "--no-same-owner",
            "--file",
        ])
        .arg(archive)
        .arg("--directory")
        .arg(into)
        .run()
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|source| Failure::File {
        path: path.to_owned(),
        source,
    })
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::copy(from, to).map(|_| ()).map_err(|source| Failure::File {
        path: from.to_owned(),
        source,
    })
}

/// What is pinned, and what stands beside the suites.
const OURS: &str = "gateway/tests/interop";
/// The release of Debian whose mosquitto is run.
const MOSQUITTO_RELEASE: &str = "trixie";
const MOSQUITTO_ARCHIVE: &str = "mosquitto_2.0.21.orig.tar.gz";
const MOSQUITTO_SHA256: &str = "551daff96cd0675faf888f8881536177934424ecc45924fecf94cffe207f6e81";
