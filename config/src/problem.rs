//! What is wrong with a file.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::source::Source;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The node would start, but not do what its owner is likely to want.
    Warning,
    /// The node does not start.
    Error,
}

impl Severity {
    /// Returns the word used in JSON output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that is wrong with a file: what, where, and what to do about it.
///
/// Secrets that stand in the file by mistake are shown neither in the message nor in the snippet.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    severity: Severity,
    key: Option<String>,
    message: String,
    help: String,
    /// The first is the place of the problem; empty where the file as a whole is concerned.
    labels: Vec<(Range<usize>, String)>,
    source_text: Arc<Source>,
}

impl Problem {
    /// Returns how bad it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.severity
    }

    /// Returns the key concerned, as a path from the top: `uplink[0].relay.address`, tables of a list counted from 0.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns what is wrong, with the value and what is allowed.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.help
    }

    /// Returns whether it is about one of these sections or what is in them.
    #[must_use]
    pub fn is_about(&self, sections: &[&str]) -> bool {
        self.key.as_deref().is_some_and(|key| is_about(key, sections))
    }

    /// Returns the name of the file, as it was given to [`load`](crate::load).
    #[must_use]
    pub fn file(&self) -> &str {
        self.source_text.name()
    }

    /// Returns line and column, counted from 1, the column in characters; `None` if the file as a whole is concerned.
    #[must_use]
    pub fn line_and_column(&self) -> Option<(usize, usize)> {
        self.labels
            .first()
            .map(|(span, _)| self.source_text.line_and_column(span.start))
    }
}

/// Returns whether a key lies in one of these sections.
fn is_about(key: &str, sections: &[&str]) -> bool {
    let section = key.split(['.', '[']).next().unwrap_or_default();
    sections.contains(&section)
}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Warning => miette::Severity::Warning,
            Severity::Error => miette::Severity::Error,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        if self.labels.is_empty() {
            None
        } else {
            Some(&*self.source_text)
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let labels = self.labels.iter().enumerate().map(|(index, (span, text))| {
            let text = Some(text.clone());
            if index == 0 {
                LabeledSpan::new_primary_with_span(text, span.clone())
            } else {
                LabeledSpan::new_with_span(text, span.clone())
            }
        });
        Some(Box::new(labels))
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (line, column) = self.line_and_column().unzip();
        let mut fields = serializer.serialize_struct("Problem", 7)?;
        fields.serialize_field("severity", self.severity.as_str())?;
        fields.serialize_field("file", self.file())?;
        fields.serialize_field("line", &line)?;
        fields.serialize_field("column", &column)?;
        fields.serialize_field("key", &self.key)?;
        fields.serialize_field("message", &self.message)?;
        fields.serialize_field("help", &self.help)?;
        fields.end()
    }
}

/// Whether the text output may use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// For terminals.
    Ansi,
    /// For files, pipes and `NO_COLOR`.
    None,
}

/// Everything that is wrong with a file, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Returns the problems, those of the file as a whole first, then from top to bottom.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// Returns how many there are, warnings included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether nothing is wrong.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many of them keep the node from starting.
    #[must_use]
    pub fn error_count(&self) -> usize {
        self.0
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count()
    }

    /// Returns the problems for people, each with the line it is about, wrapped at `width` columns.
    #[must_use]
    pub fn render_text(&self, colour: Colour, width: usize) -> String {
        let theme = match colour {
            Colour::Ansi => GraphicalTheme::unicode(),
            Colour::None => GraphicalTheme::unicode_nocolor(),
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_links(false)
            .with_width(width.max(WIDTH_MIN));
        let mut text = String::new();
        for problem in &self.0 {
            let start = text.len();
            if handler.render_report(&mut text, problem).is_err() {
                // The renderer gave up on the snippet; the words and the place are still owed.
                text.truncate(start);
                let (line, column) = problem.line_and_column().unwrap_or((1, 1));
                let _: std::fmt::Result = writeln!(
                    text,
                    "{}: {}:{line}:{column}: {}\n  help: {}",
                    problem.severity.as_str(),
                    problem.file(),
                    problem.message,
                    problem.help
                );
            }
            text.push('\n');
        }
        text
    }

    /// Returns the problems for programs: a JSON list of objects with `severity` (`error`, `warning`), `file`, `line`, `column`
    /// (both from 1, or null if the file as a whole is concerned), `key` (or null), `message`, `help`.
    #[must_use]
    pub fn render_json(&self) -> String {
        // Not by way of a map: its order depends on what else is built. Texts and numbers are always JSON.
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Narrower than this no snippet is readable.
const WIDTH_MIN: usize = 40;

/// A problem on its way: its place is not yet tied to the text.
#[derive(Debug)]
pub(crate) struct Draft {
    severity: Severity,
    key: Option<String>,
    message: String,
    help: String,
    labels: Vec<(Range<usize>, String)>,
}

impl Draft {
    /// Begins a problem that keeps the node from starting.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            key: None,
            message: message.into(),
            help: String::new(),
            labels: Vec::new(),
        }
    }

    /// Begins a problem that the node can live with.
    pub(crate) fn warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message)
        }
    }

    /// Says which key it is about.
    pub(crate) fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Points at a place, if there is one; the first place is the main one.
    pub(crate) fn at(mut self, span: Option<Range<usize>>, label: &str) -> Self {
        if let Some(span) = span {
            self.labels.push((span, label.to_owned()));
        }
        self
    }

    /// Says what to do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

/// Collects problems, and what must not be shown, while a file is read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    errors: Pile,
    warnings: Pile,
    secrets: Vec<Range<usize>>,
}

/// Problems of one severity. Each severity has its own, so that warnings cannot crowd out an error.
#[derive(Debug, Default)]
struct Pile {
    drafts: Vec<Draft>,
    /// Problems beyond [`PROBLEMS_MAX`].
    left_out: usize,
}

impl Findings {
    /// Takes a problem.
    pub(crate) fn push(&mut self, draft: Draft) {
        let pile = match draft.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if pile.drafts.len() < PROBLEMS_MAX {
            pile.drafts.push(draft);
        } else {
            pile.left_out += 1;
        }
    }

    /// Keeps a part of the file from being shown.
    pub(crate) fn hide(&mut self, span: Option<Range<usize>>) {
        self.secrets.extend(span);
    }

    /// Returns whether the node may not start.
    pub(crate) const fn has_errors(&self) -> bool {
        !self.errors.drafts.is_empty()
    }

    /// Returns whether an error is about one of these sections or what is in them, about the form of the file, or is among
    /// those that were left out and may be about anything.
    pub(crate) fn has_errors_about(&self, sections: &[&str]) -> bool {
        self.errors.left_out > 0
            || self
                .errors
                .drafts
                .iter()
                .any(|draft| draft.key.as_deref().is_none_or(|key| is_about(key, sections)))
    }

    /// Ties the problems to the text.
    pub(crate) fn finish(self, name: &str, text: &str) -> Problems {
        let mut drafts = Vec::new();
        let piles = [
            (self.errors, "errors", Severity::Error),
            (self.warnings, "warnings", Severity::Warning),
        ];
        for (pile, what, severity) in piles {
            if pile.left_out > 0 {
                let message = format!("{} more {what} are not shown", pile.left_out);
                let help = "mend these first; a file with so many is often not meant for fieldgate";
                drafts.push(Draft {
                    severity,
                    ..Draft::error(message).help(help)
                });
            }
            drafts.extend(pile.drafts);
        }
        let source = Arc::new(Source::new(name, text, &self.secrets));
        // Stable, so that of two problems of one place the one found first comes first.
        drafts.sort_by_key(|draft| draft.labels.first().map(|(span, _)| span.start));
        let problems = drafts.into_iter().map(|draft| Problem {
            severity: draft.severity,
            key: draft.key,
            message: draft.message,
            help: draft.help,
            labels: draft
                .labels
                .into_iter()
                .map(|(span, text)| (source.clamp(&span), text))
                .collect(),
            source_text: Arc::clone(&source),
        });
        Problems(problems.collect())
    }
}

/// Problems of one severity shown for one file; more are counted only.
const PROBLEMS_MAX: usize = 1_000;
