//! What is wrong with a policy.

use std::{fmt::Write as _, ops::Range, sync::Arc};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};
use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::source::{Source, shown};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The policy can be used, but is not likely to do what its author wants.
    Warning,
    /// The policy cannot be used.
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

/// One thing that is wrong with a policy: what, where, and what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    severity: Severity,
    message: String,
    help: String,
    /// Where, and what to write beside it; `None` where the policy as a whole is concerned.
    place: Option<(Range<usize>, String)>,
    source_text: Arc<Source>,
}

impl Problem {
    /// Returns how bad it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.severity
    }

    /// Returns what is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.help
    }

    /// Returns the name of the file, as it was given to [`check`](crate::check()).
    #[must_use]
    pub fn file(&self) -> &str {
        self.source_text.name()
    }

    /// Returns line and column, counted from 1, the column in characters; `None` if the policy as a whole is concerned.
    #[must_use]
    pub fn line_and_column(&self) -> Option<(usize, usize)> {
        self.place
            .as_ref()
            .map(|(span, _)| self.source_text.line_and_column(span.start))
    }
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
        self.place.as_ref().map(|_| &*self.source_text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (span, text) = self.place.as_ref()?;
        let label = LabeledSpan::new_primary_with_span(Some(text.clone()), span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (line, column) = self.line_and_column().unzip();
        let mut fields = serializer.serialize_struct("Problem", 6)?;
        fields.serialize_field("severity", self.severity.as_str())?;
        fields.serialize_field("file", self.file())?;
        fields.serialize_field("line", &line)?;
        fields.serialize_field("column", &column)?;
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

/// Everything that is wrong with a policy, in the order of the text.
#[derive(Clone, Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Returns the problems, those of the policy as a whole first, then from top to bottom.
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

    /// Returns how many of them keep the policy from being used.
    #[must_use]
    pub fn error_count(&self) -> usize {
        let errors = self
            .0
            .iter()
            .filter(|problem| problem.severity == Severity::Error);
        errors.count()
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
    /// (both from 1, or null if the policy as a whole is concerned), `message`, `help`.
    #[must_use]
    pub fn render_json(&self) -> String {
        serde_json::json!(self.0).to_string()
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
    message: String,
    help: String,
    place: Option<(Range<usize>, String)>,
}

impl Draft {
    /// Begins a problem that keeps the policy from being used.
    pub(crate) fn error(message: &str, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: short(message),
            help: short(&help.into()),
            place: None,
        }
    }

    /// Begins a problem that one can live with.
    pub(crate) fn warning(message: &str, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message, help)
        }
    }

    /// Points at a place, with a few words beside it.
    pub(crate) fn at(mut self, span: Range<usize>, label: &str) -> Self {
        self.place = Some((span, short(label)));
        self
    }
}

/// Cuts what the parser has to say, which can hold half of the text, to a length that is read.
fn short(message: &str) -> String {
    let message = shown(message);
    if message.len() <= MESSAGE_BYTES_MAX {
        return message;
    }
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    format!("{}…", message.get(..end).unwrap_or_default())
}

/// Longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 400;

/// Collects problems while a text is read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    errors: Pile,
    warnings: Pile,
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

    /// Returns how many errors there are.
    pub(crate) const fn error_count(&self) -> usize {
        self.errors.drafts.len() + self.errors.left_out
    }

    /// Returns whether the policy cannot be used.
    pub(crate) const fn has_errors(&self) -> bool {
        self.error_count() > 0
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
                let help = "mend these first; a file with so many is often no policy at all";
                drafts.push(Draft {
                    severity,
                    ..Draft::error(&message, help)
                });
            }
            drafts.extend(pile.drafts);
        }
        if drafts.is_empty() {
            return Problems::default();
        }
        let source = Arc::new(Source::new(name, text));
        // Stable, so that of two problems of one place the one found first comes first.
        drafts.sort_by_key(|draft| draft.place.as_ref().map(|(span, _)| span.start));
        let problems = drafts.into_iter().map(|draft| Problem {
            severity: draft.severity,
            message: draft.message,
            help: draft.help,
            place: draft.place.map(|(span, label)| (source.clamp(&span), label)),
            source_text: Arc::clone(&source),
        });
        Problems(problems.collect())
    }
}

/// Problems of one severity shown for one policy; more are counted only.
const PROBLEMS_MAX: usize = 1_000;
