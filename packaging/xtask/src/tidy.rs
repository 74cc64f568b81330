//! `tidy`: rules over the tree that no compiler checks.
//!
//! A rule is a function from the tracked files to findings. It stays only while it makes the code better.

mod edges;
mod source;
mod words;

use std::fmt;
use std::fs;
use std::path::PathBuf;

use crate::failure::Failure;
use crate::program::Program;
use crate::workspace::Workspace;

/// Applies every rule to the tracked files.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let tree = Tree::read(workspace)?;
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    for long in source::long_files(&tree) {
        println!("tidy: note: {long}");
    }
    if findings.is_empty() {
        println!("tidy: {} files, no finding", tree.files.len());
        Ok(())
    } else {
        Err(Failure::Untidy {
            count: findings.len(),
        })
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: [Rule; 6] = [
    edges::crate_edges,
    source::no_glob_reexports,
    source::no_vague_modules,
    source::unsafe_is_forbidden,
    words::foreign_words,
    words::registry_hosts,
];

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// Counted from 1; 0 where the whole file is meant.
    line: usize,
    what: String,
    /// What to write instead.
    cure: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}: {}; {}",
            self.path, self.line, self.what, self.cure
        )
    }
}

/// The tracked text files.
#[derive(Debug, Default)]
struct Tree {
    files: Vec<TextFile>,
}

/// A tracked text file.
#[derive(Debug)]
struct TextFile {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

impl Tree {
    /// Reads what git tracks, in git's order. What is not text is left out.
    fn read(workspace: &Workspace) -> Result<Self, Failure> {
        let listing = Program::new(workspace, "git").args(["ls-files", "-z"]).output()?;
        let mut files = Vec::new();
        for path in String::from_utf8_lossy(&listing)
            .split('\0')
            .filter(|path| !path.is_empty())
        {
            let full: PathBuf = workspace.path(path);
            // Deleted but still tracked, a link to a folder: git's business.
            if !full.is_file() {
                continue;
            }
            let bytes = fs::read(&full).map_err(|source| Failure::File { path: full, source })?;
            if let Ok(text) = String::from_utf8(bytes)
                && !text.contains('\0')
            {
                files.push(TextFile {
                    path: path.to_owned(),
                    text,
                });
            }
        }
        Ok(Self { files })
    }

    /// Returns the Rust sources.
    fn rust(&self) -> impl Iterator<Item = &TextFile> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| TextFile {
            path: (*path).into(),
            text: (*text).into(),
        };
        Self {
            files: files.iter().map(file).collect(),
        }
    }
}

impl TextFile {
    /// Returns the lines with their numbers, counted from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    fn finding(&self, line: usize, what: impl Into<String>, cure: &'static str) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            what: what.into(),
            cure,
        }
    }
}
