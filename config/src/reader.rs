//! Reads tables of the file, gathering every unknown, missing and ill-typed key on the way.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Draft, Findings};
use crate::shape::Shape;
use crate::spec::{Presence, Spec, When, first_sentence};
use crate::suggest;

/// A table of the file as a Rust type; `tables!` in [`raw`](crate::raw) implements it.
pub(crate) trait RawTable: Sized {
    /// Names of all keys.
    const KEYS: &'static [&'static str];
    /// Keys of which exactly one has to stand there, or none.
    const EXACTLY_ONE: &'static [&'static str];
    /// Keys of which one may stand there, or none.
    const AT_MOST_ONE: &'static [&'static str];
    /// Returns where the table stands.
    fn header(&self) -> &Header;
    /// Returns the table as data.
    fn spec() -> Spec;
    /// Takes the keys out of the table.
    fn fields(reader: &mut Reader<'_, '_, '_>) -> Self;

    /// Reads a table that stands at `span`.
    fn read(table: &DeTable<'_>, span: &Range<usize>, path: &str, context: &mut Context<'_>) -> Self {
        let header = Header {
            span: context.place(span),
            path: path.to_owned(),
        };
        let mut reader = Reader {
            table,
            header,
            context,
        };
        let fields = Self::fields(&mut reader);
        reader.refuse_unknown_keys(Self::KEYS);
        reader.demand_exactly_one(Self::EXACTLY_ONE);
        reader.demand_at_most_one(Self::AT_MOST_ONE);
        fields
    }

    /// Returns what the table is if it is not there. Only for tables without required keys.
    fn defaults(path: &str, context: &mut Context<'_>) -> Self {
        context.within_defaults(|context| Self::read(&DeTable::new(), &(0..0), path, context))
    }
}

/// Where a table stands.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    /// Its header or braces; `None` if it is not in the file.
    pub(crate) span: Option<Range<usize>>,
    /// Dotted path from the top, empty for the top.
    pub(crate) path: String,
}

impl Header {
    /// Returns the path of a key of this table.
    pub(crate) fn key(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Begins an error about this table.
    pub(crate) fn error(&self, message: impl Into<String>) -> Draft {
        Draft::error(message)
            .key(self.path.clone())
            .at(self.span.clone(), "this table")
    }

    /// Begins a warning about this table.
    pub(crate) fn warning(&self, message: impl Into<String>) -> Draft {
        Draft::warning(message)
            .key(self.path.clone())
            .at(self.span.clone(), "this table")
    }
}

/// A key of a table and what it was found to be.
#[derive(Debug)]
pub(crate) struct Field<V> {
    /// The value; `None` if it is absent without a default, or was refused.
    pub(crate) value: Option<V>,
    /// Place of the value; `None` if it is not in the file.
    pub(crate) span: Option<Range<usize>>,
    /// Dotted path from the top.
    pub(crate) path: String,
}

impl<V> Field<V> {
    /// Returns whether the key stands in the file, valid or not.
    pub(crate) const fn is_given(&self) -> bool {
        self.span.is_some()
    }

    /// Begins an error about this value.
    pub(crate) fn error(&self, message: impl Into<String>) -> Draft {
        Draft::error(message)
            .key(self.path.clone())
            .at(self.span.clone(), "this value")
    }

    /// Begins a warning about this value.
    pub(crate) fn warning(&self, message: impl Into<String>) -> Draft {
        Draft::warning(message)
            .key(self.path.clone())
            .at(self.span.clone(), "this value")
    }
}

/// One value of a list.
#[derive(Debug)]
pub(crate) struct Item<V> {
    pub(crate) value: V,
    /// Its place; `None` if it comes from a default.
    pub(crate) span: Option<Range<usize>>,
    /// Dotted path of the list, with the index.
    pub(crate) path: String,
}

/// What reading needs besides the table.
#[derive(Debug)]
pub(crate) struct Context<'c> {
    /// What relative paths are relative to.
    pub(crate) base_dir: &'c Path,
    pub(crate) findings: &'c mut Findings,
    /// A default is being read: spans mean nothing, and problems are ours.
    in_default: bool,
}

impl<'c> Context<'c> {
    pub(crate) const fn new(base_dir: &'c Path, findings: &'c mut Findings) -> Self {
        Self {
            base_dir,
            findings,
            in_default: false,
        }
    }

    /// Returns the span if it is one of the file.
    pub(crate) fn place(&self, span: &Range<usize>) -> Option<Range<usize>> {
        (!self.in_default).then(|| span.clone())
    }

    /// Takes a problem.
    ///
    /// # Panics
    /// If a default of the key table does not pass its own check, which the tests of the key table rule out.
    pub(crate) fn push(&mut self, draft: Draft) {
        assert!(
            !self.in_default,
            "a default of the key table is refused: {draft:?}"
        );
        self.findings.push(draft);
    }

    /// Takes a problem with a value.
    pub(crate) fn refuse(
        &mut self,
        path: &str,
        span: &Range<usize>,
        message: String,
        help: impl Into<String>,
    ) {
        let place = self.place(span);
        self.push(Draft::error(message).key(path).at(place, "this value").help(help));
    }

    fn within_defaults<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.in_default, true);
        let value = read(self);
        self.in_default = outer;
        value
    }
}

/// A table being read.
pub(crate) struct Reader<'r, 'c, 't> {
    table: &'t DeTable<'t>,
    header: Header,
    context: &'r mut Context<'c>,
}

impl Reader<'_, '_, '_> {
    /// Returns where the table stands.
    pub(crate) fn header(&self) -> Header {
        self.header.clone()
    }

    /// Reads one key.
    pub(crate) fn field<S: Shape>(
        &mut self,
        name: &'static str,
        doc: &str,
        shape: &S,
        presence: Presence,
        when: When,
    ) -> Field<S::Value> {
        let path = self.header.key(name);
        let given = self.table.get(name);
        let relevance = self.relevance(when);
        let value = match (given, relevance) {
            (Some(value), Relevance::Yes | Relevance::Unknown) => shape.read(value, &path, self.context),
            (Some(value), Relevance::No) => {
                self.refuse_irrelevant(&path, value, when);
                None
            }
            (None, Relevance::Yes) => match presence {
                Presence::Required => {
                    self.demand(name, &path, doc, &shape.form().words());
                    None
                }
                Presence::Default(text) => self.default(&path, shape, text),
                Presence::Optional(_) => None,
            },
            (None, Relevance::No | Relevance::Unknown) => None,
        };
        Field {
            value,
            span: given.and_then(|value| self.context.place(&value.span())),
            path,
        }
    }

    fn relevance(&self, when: When) -> Relevance {
        match when {
            When::Always => Relevance::Yes,
            When::With(partners) if partners.iter().any(|partner| self.table.contains_key(*partner)) => {
                Relevance::Yes
            }
            When::With(_) => Relevance::No,
            When::Equals(partner, wanted) => self.relevance_of(partner, &[wanted]),
            When::OneOf(partner, wanted) => self.relevance_of(partner, wanted),
        }
    }

    fn relevance_of(&self, partner: &str, wanted: &[&str]) -> Relevance {
        match self.table.get(partner).map(|value| value.get_ref().as_str()) {
            Some(Some(value)) if wanted.contains(&value) => Relevance::Yes,
            Some(Some(_)) => Relevance::No,
            // The partner is missing or ill-typed, which is a problem of its own.
            Some(None) | None => Relevance::Unknown,
        }
    }

    fn default<S: Shape>(&mut self, path: &str, shape: &S, text: &str) -> Option<S::Value> {
        let value = DeValue::parse(text).expect("defaults of the key table are TOML, which its tests show");
        self.context
            .within_defaults(|context| shape.read(&value, path, context))
    }

    fn demand(&mut self, name: &str, path: &str, doc: &str, words: &str) {
        let meaning = first_sentence(doc);
        let draft = if self.header.path.is_empty() {
            Draft::error(format!("`[{name}]` is missing")).help(format!("add [{name}]: {meaning}"))
        } else {
            let help = format!("add `{name}`, {words}: {meaning}");
            self.header.error(format!("`{path}` is missing")).help(help)
        };
        self.context.push(draft.key(path));
    }

    fn refuse_irrelevant(&mut self, path: &str, value: &Spanned<DeValue<'_>>, when: When) {
        let span = value.span();
        if is_secret_name(path) {
            self.context.findings.hide(self.context.place(&span));
        }
        let condition = when.words().unwrap_or_default();
        let (reason, cure) = match when {
            When::Equals(partner, _) | When::OneOf(partner, _) => {
                let actual = self
                    .table
                    .get(partner)
                    .and_then(|value| value.get_ref().as_str())
                    .unwrap_or_default();
                let wanted = match when {
                    When::Equals(_, wanted) => wanted.to_owned(),
                    When::OneOf(_, wanted) => wanted.join("\" or \""),
                    When::Always | When::With(_) => String::new(),
                };
                (
                    format!("not with {}", quote(actual)),
                    format!("write `{partner} = \"{wanted}\"`"),
                )
            }
            When::With(partners) => (
                "which is not there".to_owned(),
                format!("add `{}`", partners.join("` or `")),
            ),
            When::Always => return,
        };
        let (message, help) = (
            format!("`{path}` goes {condition}, {reason}"),
            format!("take it out, or {cure}"),
        );
        self.context.refuse(path, &span, message, help);
    }

    fn refuse_unknown_keys(&mut self, known: &[&str]) {
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            if is_secret_name(&self.header.key(name)) {
                self.context.findings.hide(self.context.place(&value.span()));
            }
            let place = if self.header.path.is_empty() {
                "at the top".to_owned()
            } else {
                format!("in `{}`", self.header.path)
            };
            let message = format!("{} {place} is not a key fieldgate knows", code(name));
            let allowed = known.join("`, `");
            let help = match suggest::nearest(name, known) {
                Some(meant) => format!("did you mean `{meant}`? Allowed here: `{allowed}`"),
                None => format!("allowed here: `{allowed}`"),
            };
            let span = self.context.place(&key.span());
            let draft = Draft::error(message)
                .key(self.header.key(name))
                .at(span, "this key")
                .help(help);
            self.context.push(draft);
        }
    }

    fn demand_exactly_one(&mut self, names: &[&str]) {
        if names.is_empty() || names.iter().any(|name| self.table.contains_key(*name)) {
            self.refuse_more_than_one(names, "exactly one");
            return;
        }
        let choices = choices(names);
        let message = format!("`{}` needs one of {choices}", self.header.path);
        let draft = self.header.error(message);
        self.context
            .push(draft.help(format!("add exactly one of {choices}")));
    }

    fn demand_at_most_one(&mut self, names: &[&str]) {
        self.refuse_more_than_one(names, "at most one");
    }

    fn refuse_more_than_one(&mut self, names: &[&str], allowed: &str) {
        let given: Vec<_> = names
            .iter()
            .filter_map(|name| self.table.get_key_value(*name))
            .collect();
        let [(first, _), (second, _), ..] = given.as_slice() else {
            return;
        };
        let message = format!(
            "`{}` has {} of {}, but takes {allowed}",
            self.header.path,
            given.len(),
            choices(names)
        );
        let first_at = self.context.place(&first.span());
        let second_at = self.context.place(&second.span());
        let draft = Draft::error(message)
            .key(self.header.path.clone())
            .at(second_at, "and this one")
            .at(first_at, "this one")
            .help("keep the one that is meant");
        self.context.push(draft);
    }
}

/// Lists keys for a message.
fn choices(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// Whether a key means something beside its neighbours.
enum Relevance {
    Yes,
    No,
    Unknown,
}

/// Whether the value at this path may be a secret that somebody wrote into the file. Too often rather than too seldom: it
/// only decides what a snippet shows.
pub(crate) fn is_secret_name(path: &str) -> bool {
    let path = path.to_lowercase();
    ["pin", "pass", "secret", "token", "pwd", "psk"]
        .iter()
        .any(|word| path.contains(word))
        || path.rsplit(['_', '-', '.']).next() == Some("key")
}

/// Returns a text of the file for a message: in quotes, harmless on a terminal, not too long.
pub(crate) fn quote(text: &str) -> String {
    let shortened: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    if shortened.len() == text.len() {
        format!("{text:?}")
    } else {
        format!("{shortened:?}…")
    }
}

/// Returns the name of a key for a message: harmless on a terminal, not too long.
fn code(name: &str) -> String {
    let shortened: String = name.chars().take(QUOTED_CHARS_MAX).collect();
    let dots = if shortened.len() == name.len() { "" } else { "…" };
    format!("`{}{dots}`", shortened.escape_debug())
}

/// Characters of a value that a message repeats; the snippet shows the rest.
const QUOTED_CHARS_MAX: usize = 72;
