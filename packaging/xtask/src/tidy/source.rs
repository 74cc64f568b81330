//! Rules for Rust sources.

use super::{Finding, TextFile, Tree};

/// Finds `pub use x::*`: an item must have one public path that a reader can find.
pub(super) fn no_glob_reexports(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for (number, line) in file.lines() {
            let line = line.trim();
            let exports = line.starts_with("pub use ") || line.starts_with("pub(") && line.contains(") use ");
            if exports && (line.ends_with("::*;") || line.contains("::{*") || line.contains(", *")) {
                findings.push(file.finding(number, "re-exports everything", "name the items"));
            }
        }
    }
    findings
}

/// Finds `mod.rs` and modules whose name says nothing about what they hold.
pub(super) fn no_vague_modules(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let mut parts = file.path.rsplit('/');
        let name = parts.next().unwrap_or_default().trim_end_matches(".rs");
        if name == "mod" {
            findings.push(file.finding(0, "is a mod.rs", "write foo.rs beside the folder foo"));
        }
        if is_vague(name) || parts.any(is_vague) {
            findings.push(file.finding(0, "has a vague name", "name it after its main type"));
        }
        for (number, line) in file.lines() {
            if inline_module(line).is_some_and(is_vague) {
                findings.push(file.finding(number, "is a vague module", "name it after its main type"));
            }
        }
    }
    findings
}

/// Returns the name of a module that begins on this line with its body.
fn inline_module(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    (words.next()? == "mod").then_some(())?;
    let name = words.next()?;
    (words.next()? == "{").then_some(name)
}

fn is_vague(name: &str) -> bool {
    ["common", "helper", "helpers", "misc", "util", "utils"].contains(&name)
}

/// Finds crate roots that do not forbid unsafe code.
pub(super) fn unsafe_is_forbidden(tree: &Tree) -> Vec<Finding> {
    let roots = tree
        .rust()
        .filter(|file| is_crate_root(&file.path) && !may_be_unsafe(&file.path));
    roots
        .filter(|file| {
            !file
                .lines()
                .any(|(_, line)| line.trim() == "#![forbid(unsafe_code)]")
        })
        .map(|file| {
            file.finding(
                0,
                "does not forbid unsafe code",
                "begin with #![forbid(unsafe_code)]",
            )
        })
        .collect()
}

fn is_crate_root(path: &str) -> bool {
    path.ends_with("/src/lib.rs")
        || path.ends_with("/src/main.rs")
        || path
            .rsplit_once('/')
            .is_some_and(|(folder, _)| folder.ends_with("/src/bin"))
}

/// The driver talks to the kernel in terms of pointers. The faulty token, which only tests load, is itself a C library:
/// its interface is pointers.
fn may_be_unsafe(path: &str) -> bool {
    ["gateway/io/", "hsm/faulty/"]
        .iter()
        .any(|folder| path.starts_with(folder))
}

/// Describes sources that are longer than one can hold in mind. No finding: clearer code wins over a number.
pub(super) fn long_files(tree: &Tree) -> Vec<String> {
    tree.rust()
        .filter(|file| !is_test(&file.path))
        .map(|file| (file, lines_without_tests(file)))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| format!("{} has {lines} lines without its tests", file.path))
        .collect()
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Tests stand at the end of a file.
fn lines_without_tests(file: &TextFile) -> usize {
    file.lines()
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .count()
}

/// About what one can hold in mind.
const LINES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::{Tree, long_files, no_glob_reexports, no_vague_modules, unsafe_is_forbidden};

    #[test]
    fn finds_glob_reexports_of_every_visibility() {
        for line in [
            "pub use wire::*;",
            "pub(crate) use wire::*;",
            "pub use wire::{self, *};",
            "pub use a::{*};",
        ] {
            assert_eq!(
                no_glob_reexports(&Tree::of(&[("a/src/b.rs", line)])).len(),
                1,
                "{line}"
            );
        }
        for line in ["use super::*;", "pub use wire::Frame;", "// pub use wire::*;"] {
            assert!(
                no_glob_reexports(&Tree::of(&[("a/src/b.rs", line)])).is_empty(),
                "{line}"
            );
        }
    }

    #[test]
    fn finds_modules_that_say_nothing() {
        for (path, text) in [
            ("a/src/mod.rs", ""),
            ("a/src/utils.rs", ""),
            ("a/tests/common/server.rs", ""),
            ("a/src/b.rs", "pub(crate) mod helpers {"),
        ] {
            assert_eq!(no_vague_modules(&Tree::of(&[(path, text)])).len(), 1, "{path}");
        }
        let good = Tree::of(&[
            ("a/src/replay.rs", "mod tests {\nmod commonly {"),
            ("doc/common.md", ""),
        ]);
        assert!(no_vague_modules(&good).is_empty());
    }

    #[test]
    fn every_crate_root_forbids_unsafe_code_but_two() {
        let tree = Tree::of(&[
            ("a/src/lib.rs", "//! Text.\n#![forbid(unsafe_code)]\n"),
            ("gateway/io/src/lib.rs", ""),
            ("hsm/faulty/src/lib.rs", ""),
            ("hsm/src/lib.rs", ""),
            ("a/src/inner.rs", ""),
            ("b/src/main.rs", "// #![forbid(unsafe_code)]\n"),
            ("b/src/bin/tool.rs", ""),
        ]);
        let paths: Vec<String> = unsafe_is_forbidden(&tree)
            .into_iter()
            .map(|finding| finding.path)
            .collect();
        assert_eq!(paths, ["hsm/src/lib.rs", "b/src/main.rs", "b/src/bin/tool.rs"]);
    }

    #[test]
    fn a_long_file_is_noted_unless_the_length_is_tests() {
        let long = "x\n".repeat(501);
        let tested = format!("{}#[cfg(test)]\n{long}", "x\n".repeat(499));
        let tree = Tree::of(&[("a/b.rs", &long), ("a/c.rs", &tested), ("a/tests/d.rs", &long)]);
        assert_eq!(long_files(&tree), ["a/b.rs has 501 lines without its tests"]);
    }
}
