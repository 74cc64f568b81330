//! Words that do not belong into the project's files: they speak of the project alone.

use super::{Finding, Tree};

/// Finds numbers of issues, places of one machine and pages that are not in the tree.
pub(super) fn foreign_words(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| !is_exempt(&file.path)) {
        for (number, line) in file.lines() {
            if names_an_issue(line) {
                findings.push(file.finding(number, "names an issue by number", "say what it is about"));
            }
            for word in FOREIGN.iter().filter(|word| line.contains(*word)) {
                let what = format!("says {word:?}");
                findings.push(file.finding(number, what, "write what holds on every machine"));
            }
        }
    }
    findings
}

/// Finds hosts of package registries: where packages come from is the machine's setting.
pub(super) fn registry_hosts(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| !is_exempt(&file.path)) {
        for (number, line) in file.lines() {
            for host in HOSTS.iter().filter(|host| line.contains(*host)) {
                let what = format!("names the registry host {host}");
                findings.push(file.finding(number, what, "name the package only"));
            }
        }
    }
    findings
}

/// Whether the line says `issue 12`, `issue #12` or `issues/12`; other projects' `owner/name#12` is a source.
fn names_an_issue(line: &str) -> bool {
    let lower = line.to_lowercase();
    lower.match_indices("issue").any(|(at, word)| {
        let rest = lower.get(at + word.len()..).unwrap_or_default();
        let rest = rest.strip_prefix('s').unwrap_or(rest);
        let rest = rest.strip_prefix([' ', '-', '/']).unwrap_or(rest);
        let rest = rest.strip_prefix('#').unwrap_or(rest);
        rest.starts_with(|first: char| first.is_ascii_digit())
    })
}

/// The list below names what it looks for; a lock file is written by cargo.
fn is_exempt(path: &str) -> bool {
    path == "packaging/xtask/src/tidy/words.rs" || path.ends_with(".lock")
}

const FOREIGN: [&str; 8] = [
    "/work/main",
    "/work/shared",
    "/tmp/brief",
    "/root/",
    "DESIGN.md",
    "STYLE.md",
    "facts/performance",
    "facts/protocols",
];

const HOSTS: [&str; 6] = [
    "index.crates.io",
    "static.crates.io",
    "files.pythonhosted.org",
    "pypi.org/simple",
    "deb.debian.org",
    "registry.npmjs.org",
];

#[cfg(test)]
mod tests {
    use super::{Tree, foreign_words, names_an_issue, registry_hosts};

    #[test]
    fn an_issue_number_is_found_in_all_its_spellings() {
        for line in [
            "// see issue 12",
            "Issue #3",
            "issues/7",
            "fixes issue-4",
            "(issues 1 and 2)",
        ] {
            assert!(names_an_issue(line), "{line}");
        }
        for line in [
            "PKCS#11",
            "issued 3 tickets",
            "an issue of trust",
            "tokio-rs/tokio-uring#281",
            "issuer1",
        ] {
            assert!(!names_an_issue(line), "{line}");
        }
    }

    #[test]
    fn places_of_one_machine_are_found_with_their_line() {
        let tree = Tree::of(&[
            ("a.md", "fine\nlook in /tmp/brief/x\n"),
            ("b.md", "a work/main folder"),
        ]);
        let findings = foreign_words(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 2);
    }

    #[test]
    fn registry_hosts_are_found_but_not_in_lock_files() {
        let tree = Tree::of(&[
            ("a.sh", "curl https://static.crates.io/x"),
            ("Cargo.lock", "index.crates.io"),
        ]);
        assert_eq!(registry_hosts(&tree).len(), 1);
    }
}
