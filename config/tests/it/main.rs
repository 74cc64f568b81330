//! The public API of fieldgate-config: whole files in, settings or problems out.

mod agreement;
mod checks;
mod diagnostics;
mod examples;
mod files;
mod reference;
mod robustness;
mod schema;
mod trust;

use fieldgate_config::{Loaded, load_str};

/// Identifiers that are well formed and belong to nobody.
const GATEWAY: &str = "fg1d582kw6m4ndcxy0lgpxzg9464jwwsrrw5xgcxgq5fshccu9qqqvqymxy6r";
const RELAY: &str = "fg1wrwssj5734a52879dr84mn8t0azmvgd87tt7revw5r6ry9zthgdserc5lc";
const COLLECTOR: &str = "fg1yyqndwc2q82mdq8h26sywqg9wvqrthy7l6p5kwcfrtzkz4tux94qy47c2a";
const OTHER: &str = "fg1xr2mk6wxjjy9cc6d7lugvmrgnwqrhxy0qt0ljyqr7pu02n2fhc7qmqahhc";
const HASH: &str = "pbkdf2-sha256$1000$g+oJb6/46ZcmU1L3bniJHQ$VgUe+H4v/tDq1QXIalRT8pkxxaSa2q85wg1z0ifzZG0";

/// Loads a text in which `$GATEWAY`, `$RELAY`, `$COLLECTOR`, `$OTHER` and `$HASH` stand for what they name.
fn load(text: &str) -> Loaded {
    load_str(
        "fieldgate.toml",
        &filled(text),
        "/etc/fieldgate".as_ref(),
        "hall-3.example.net",
    )
}

fn filled(text: &str) -> String {
    [
        ("$GATEWAY", GATEWAY),
        ("$RELAY", RELAY),
        ("$COLLECTOR", COLLECTOR),
        ("$OTHER", OTHER),
        ("$HASH", HASH),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// Returns what is wrong with a text, a line for each problem.
fn complaints(text: &str) -> String {
    let loaded = load(text);
    assert_eq!(loaded.settings.is_some(), loaded.problems.error_count() == 0);
    let lines = loaded.problems.iter().map(|problem| {
        assert!(!problem.hint().is_empty(), "no cure for {problem}");
        let place = problem
            .line_and_column()
            .map(|(line, column)| format!("{line}:{column} "))
            .unwrap_or_default();
        format!("{place}{}: {problem}\n", problem.severity().as_str())
    });
    lines.collect()
}
