//! `tokens`: the identity suite on tokens that take too long to build for every run.
//!
//! Kryoptic is built as a package of its own below `target`, from the registry, on the OpenSSL of the distribution. So neither
//! it nor what it depends on is a dependency of the workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::failure::Failure;
use crate::program::Program;
use crate::setup;
use crate::workspace::Workspace;

/// Builds kryoptic, unless it is there, and runs its tests.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    setup::debian_packages(workspace, DEBIAN_PACKAGES)?;
    let package = workspace.target_dir().join("tokens/kryoptic");
    write(&package.join("Cargo.toml"), MANIFEST)?;
    write(&package.join("src/main.rs"), "fn main() {}\n")?;
    Program::cargo(workspace, "build")
        .arg("--manifest-path")
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(package.join("target"))
        .run()?;
    let module = module(&package.join("target/debug/deps"))?;
    Program::cargo_build(workspace, "test")
        .args(["--package", "fieldgate-hsm", "--features", "kryoptic"])
        .args(["--test", "it", "kryoptic"])
        .env("FIELDGATE_KRYOPTIC_MODULE", &module.to_string_lossy())
        .run()
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |source| Failure::File {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    // Left as it is where it is right: cargo builds anew what has changed.
    if fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    fs::write(path, text).map_err(failed)
}

/// Finds the module that was built last: cargo puts a hash into its name.
fn module(folder: &Path) -> Result<PathBuf, Failure> {
    let failed = |source| Failure::File {
        path: folder.to_owned(),
        source,
    };
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("libkryoptic_pkcs11") && name.ends_with(".so") {
            let modified = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .map_err(failed)?;
            if newest.as_ref().is_none_or(|(time, _)| *time < modified) {
                newest = Some((modified, entry.path()));
            }
        }
    }
    newest
        .map(|(_, path)| path)
        .ok_or_else(|| failed(std::io::Error::other("kryoptic was built without its module")))
}

/// `minimal` is what the OpenSSL 3.0 of the distribution can carry; it has no Ed25519.
const MANIFEST: &str = "\
[package]
name = \"tokens\"
version = \"0.0.0\"
edition = \"2024\"
publish = false

[workspace]

[dependencies]
kryoptic = { version = \"=1.5.4\", default-features = false, features = [\"minimal\"] }
kryoptic-lib = { version = \"=1.5.4\", default-features = false, features = [\"minimal\", \"dynamic\"] }

[profile.dev]
debug = false
opt-level = 1
";

/// What kryoptic is built with and on.
const DEBIAN_PACKAGES: &[&str] = &["libssl-dev", "libclang-dev", "pkg-config", "opensc"];

#[cfg(test)]
mod tests {
    use super::{MANIFEST, module};

    #[test]
    fn the_manifest_names_exact_versions() {
        let manifest: toml::Table = MANIFEST.parse().expect("TOML");
        let dependencies = manifest
            .get("dependencies")
            .and_then(toml::Value::as_table)
            .expect("dependencies");
        for (name, dependency) in dependencies {
            let version = dependency.get("version").and_then(toml::Value::as_str);
            assert!(version.is_some_and(|version| version.starts_with('=')), "{name}");
        }
    }

    #[test]
    fn a_build_without_the_module_is_an_error() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let failure = module(folder).expect_err("there is none here");
        assert!(failure.to_string().contains("xtask"), "{failure}");
        assert!(module(&folder.join("absent")).is_err());
    }
}
