//! Which crate may depend on which.

use toml::{Table, Value};

use super::{Finding, TextFile, Tree};

/// Finds dependencies between workspace crates that the layers do not allow.
pub(super) fn crate_edges(tree: &Tree) -> Vec<Finding> {
    let manifests = tree
        .files
        .iter()
        .filter(|file| file.path.ends_with("/Cargo.toml"));
    manifests.flat_map(manifest_edges).collect()
}

fn manifest_edges(file: &TextFile) -> Vec<Finding> {
    let manifest: Table = match file.text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![file.finding(0, format!("no TOML: {error}"), "repair the manifest")],
    };
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(Value::as_str);
    let Some(name) = name else {
        return vec![file.finding(0, "has no package name", "name the crate")];
    };
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
        let what = format!("crate {name} has no place among the layers");
        return vec![file.finding(0, what, "add it to the table in tidy/edges.rs")];
    };
    let edges = dependencies(&manifest)
        .into_iter()
        .filter(|dependency| is_ours(dependency));
    edges
        .filter(|dependency| !layer.may_import.contains(&dependency.as_str()))
        .map(|dependency| {
            let line = file
                .lines()
                .find(|(_, line)| line.trim_start().starts_with(&dependency));
            let line = line.map_or(0, |(number, _)| number);
            file.finding(
                line,
                format!("{name} must not depend on {dependency}"),
                layer.cure,
            )
        })
        .collect()
}

/// Returns the names of all dependencies: normal, development, build, and those of one platform.
fn dependencies(manifest: &Table) -> Vec<String> {
    let mut names = Vec::new();
    let platforms = manifest.get("target").and_then(Value::as_table);
    let tables = platforms
        .into_iter()
        .flat_map(Table::values)
        .filter_map(Value::as_table);
    for table in tables.chain([manifest]) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                let renamed = value.get("package").and_then(Value::as_str);
                names.push(renamed.unwrap_or(name).to_owned());
            }
        }
    }
    names
}

fn is_ours(name: &str) -> bool {
    LAYERS.iter().any(|layer| layer.name == name)
}

/// A crate and the workspace crates below it.
struct Layer {
    name: &'static str,
    may_import: &'static [&'static str],
    cure: &'static str,
}

const LAYERS: [Layer; 18] = [
    Layer {
        name: "fieldgate-proto",
        may_import: &[],
        cure: "the core stands alone: take a value or a trait",
    },
    Layer {
        name: "fieldgate-io",
        may_import: &[],
        cure: "the driver knows no protocol: move the code up",
    },
    Layer {
        name: "fieldgate-faulty-token",
        may_import: &[],
        cure: "a module for tests passes calls on and knows nothing else",
    },
    Layer {
        name: "fieldgate-hsm",
        // For its tests.
        may_import: &["fieldgate-faulty-token"],
        cure: "a signer knows no protocol: move the code up",
    },
    Layer {
        name: "fieldgate-adapters",
        may_import: &["fieldgate-proto"],
        cure: "an adapter knows readings and commands only",
    },
    Layer {
        name: "fieldgate-policy",
        may_import: &["fieldgate-proto"],
        cure: "policies know identifiers and words, not channels",
    },
    Layer {
        name: "fieldgate-proof",
        may_import: &["fieldgate-proto"],
        cure: "a proof is checked with nothing but the core",
    },
    Layer {
        name: "fieldgate-websocket",
        may_import: &[],
        cure: "frames know nothing of what is in them",
    },
    Layer {
        name: "fieldgate-quic",
        may_import: &["fieldgate-proto"],
        cure: "a transport knows frames by their kind, and nothing of what is in them",
    },
    Layer {
        name: "fieldgate-mqtt",
        may_import: &["fieldgate-adapters", "fieldgate-proto"],
        cure: "an adapter knows readings and commands only",
    },
    Layer {
        name: "fieldgate-coap",
        may_import: &["fieldgate-adapters", "fieldgate-proto"],
        cure: "an adapter knows readings and commands only",
    },
    Layer {
        name: "fieldgate-ble",
        may_import: &["fieldgate-adapters", "fieldgate-proto"],
        cure: "an adapter knows readings and commands only",
    },
    Layer {
        name: "fieldgate-config",
        may_import: &[
            "fieldgate-adapters",
            "fieldgate-ble",
            "fieldgate-coap",
            "fieldgate-hsm",
            "fieldgate-io",
            "fieldgate-mqtt",
            "fieldgate-proto",
        ],
        cure: "only the settings of the crates below belong here",
    },
    Layer {
        name: "fieldgate",
        may_import: BELOW_GATEWAY,
        cure: "move the shared part into a crate below",
    },
    Layer {
        name: "fieldgate-sim",
        may_import: &[
            "fieldgate-adapters",
            "fieldgate-ble",
            "fieldgate-coap",
            "fieldgate-mqtt",
            "fieldgate-proto",
        ],
        cure: "the simulator has no real sockets, files or keys",
    },
    Layer {
        name: "fieldgate-bench",
        may_import: BELOW_GATEWAY,
        cure: "start the binary and measure it",
    },
    Layer {
        name: "fieldgate-fuzz",
        may_import: BELOW_GATEWAY,
        cure: "fuzz the crate that holds the decoder",
    },
    Layer {
        name: "xtask",
        may_import: &[],
        cure: "recipes start programs; they link none of them",
    },
];

const BELOW_GATEWAY: &[&str] = &[
    "fieldgate-adapters",
    "fieldgate-ble",
    "fieldgate-coap",
    "fieldgate-config",
    // In tests: it is no part of anything that is shipped.
    "fieldgate-faulty-token",
    "fieldgate-hsm",
    "fieldgate-io",
    "fieldgate-mqtt",
    "fieldgate-policy",
    "fieldgate-proof",
    "fieldgate-proto",
    "fieldgate-quic",
    "fieldgate-websocket",
];

#[cfg(test)]
mod tests {
    use super::{Tree, crate_edges};

    fn findings(manifest: &str) -> Vec<String> {
        let tree = Tree::of(&[("x/Cargo.toml", manifest)]);
        crate_edges(&tree)
            .into_iter()
            .map(|finding| format!("{}: {}", finding.line, finding.what))
            .collect()
    }

    #[test]
    fn lets_a_crate_use_what_lies_below() {
        let manifest = "[package]\nname = \"fieldgate-mqtt\"\n[dependencies]\nfieldgate-proto.workspace = true\n\
                        serde = \"1\"\n";
        assert!(findings(manifest).is_empty());
    }

    #[test]
    fn finds_an_edge_upwards_with_its_line() {
        let manifest =
            "[package]\nname = \"fieldgate-proto\"\n[dependencies]\nfieldgate-io.workspace = true\n";
        assert_eq!(
            findings(manifest),
            ["4: fieldgate-proto must not depend on fieldgate-io"]
        );
    }

    #[test]
    fn finds_edges_of_tests_platforms_and_renamed_crates() {
        let package = "[package]\nname = \"fieldgate-hsm\"\n";
        for table in [
            "[dev-dependencies]\nfieldgate-proto = {}\n",
            "[build-dependencies]\nfieldgate-proto = {}\n",
            "[target.'cfg(unix)'.dependencies]\nfieldgate-proto = {}\n",
            "[dependencies]\np = { package = \"fieldgate-proto\" }\n",
        ] {
            assert_eq!(findings(&format!("{package}{table}")).len(), 1, "{table}");
        }
    }

    #[test]
    fn an_unknown_crate_needs_a_place() {
        assert_eq!(
            findings("[package]\nname = \"new\"\n"),
            ["0: crate new has no place among the layers"]
        );
        assert_eq!(findings("[package]\n"), ["0: has no package name"]);
        assert_eq!(findings("[").len(), 1);
    }
}
