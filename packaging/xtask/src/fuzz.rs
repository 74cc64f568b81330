//! `fuzz`: libFuzzer targets of `gateway/fuzz`, on the stable compiler.

use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::program::Program;
use crate::setup::{self, CARGO_FUZZ};
use crate::workspace::Workspace;

/// What is fuzzed, and for how long.
#[derive(Args)]
pub(crate) struct Options {
    /// A target, or `all`; without it the targets are listed
    target: Option<String>,
    /// Inputs to try per target
    #[arg(default_value_t = 1_000_000)]
    runs: u64,
    /// Longest input in bytes
    #[arg(long, default_value_t = 4096)]
    max_len: u32,
    /// The decoders are free of unsafe code, so `none` finds the same bugs and is twice as fast
    #[arg(long, value_enum, default_value = "none")]
    sanitizer: Sanitizer,
}

/// What the compiler adds besides coverage.
#[derive(Clone, Copy, ValueEnum)]
enum Sanitizer {
    /// Coverage only.
    None,
    /// AddressSanitizer, for the C code behind the cryptography.
    Address,
}

/// Lists the targets, or runs one or all of them.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    let targets = targets(&workspace.read(MANIFEST)?).map_err(|problem| Failure::Manifest {
        path: workspace.path(MANIFEST),
        problem,
    })?;
    let Some(wanted) = &options.target else {
        for target in targets {
            println!("{target}");
        }
        return Ok(());
    };
    if wanted != "all" && !targets.contains(wanted) {
        return Err(Failure::UnknownTarget {
            name: wanted.clone(),
            known: targets.join(", "),
        });
    }
    setup::cargo_tool(workspace, &CARGO_FUZZ)?;
    targets
        .iter()
        .filter(|target| wanted == "all" || *target == wanted)
        .try_for_each(|target| run_one(workspace, target, options))
}

fn run_one(workspace: &Workspace, target: &str, options: &Options) -> Result<(), Failure> {
    let sanitizer = match options.sanitizer {
        Sanitizer::None => "none",
        Sanitizer::Address => "address",
    };
    Program::cargo(workspace, "fuzz")
        .args([
            "run",
            "--fuzz-dir",
            FOLDER,
            "--sanitizer",
            sanitizer,
            target,
            "--",
        ])
        .arg(format!("-runs={}", options.runs))
        .arg(format!("-max_len={}", options.max_len))
        .args(["-rss_limit_mb=1024", "-timeout=10", "-print_final_stats=1"])
        // cargo-fuzz asks for flags that the stable compiler hides; no language feature is used.
        .env("RUSTC_BOOTSTRAP", "1")
        .run()
}

/// Reads the names of the targets from the fuzz crate's manifest.
fn targets(manifest: &str) -> Result<Vec<String>, String> {
    let manifest: toml::Table = manifest
        .parse()
        .map_err(|error: toml::de::Error| error.to_string())?;
    let Some(targets) = manifest.get("bin").and_then(toml::Value::as_array) else {
        return Err("has no [[bin]]".to_owned());
    };
    targets
        .iter()
        .map(|target| {
            let name = target.get("name").and_then(toml::Value::as_str);
            name.map(str::to_owned)
                .ok_or_else(|| "a [[bin]] has no name".to_owned())
        })
        .collect()
}

const FOLDER: &str = "gateway/fuzz";
/// The manifest of the fuzz crate, which is no member of the workspace.
pub(crate) const MANIFEST: &str = "gateway/fuzz/Cargo.toml";

#[cfg(test)]
mod tests {
    use super::targets;

    #[test]
    fn reads_the_targets_from_the_manifest() {
        let manifest = "[[bin]]\nname = \"a\"\n[[bin]]\nname = \"b\"\n";
        assert_eq!(targets(manifest), Ok(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn a_manifest_without_targets_is_refused() {
        assert!(targets("[package]\n").is_err());
        assert!(targets("[[bin]]\npath = \"x\"\n").is_err());
        assert!(targets("[[bin").is_err());
    }
}
