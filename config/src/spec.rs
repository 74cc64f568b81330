//! The table of keys, as data: what [`reference`](crate::reference()) and [`schema`](crate::schema()) are made from.

/// A table of the file.
#[derive(Debug)]
pub(crate) struct Spec {
    /// What it is for.
    pub(crate) doc: &'static str,
    /// Keys in the order they are documented in.
    pub(crate) keys: Vec<Key>,
    /// Keys of which exactly one has to stand there; empty if there is no such rule.
    pub(crate) exactly_one: &'static [&'static str],
    /// Keys of which one may stand there; empty if there is no such rule.
    pub(crate) at_most_one: &'static [&'static str],
}

/// A key of a table.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// Meaning, in sentences.
    pub(crate) doc: &'static str,
    pub(crate) form: Form,
    pub(crate) presence: Presence,
    pub(crate) when: When,
}

/// What a key becomes when it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// That is an error.
    Required,
    /// This value, in TOML.
    Default(&'static str),
    /// What these words say.
    Optional(&'static str),
}

/// When a key has a meaning at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    /// If one of these keys of the same table is there.
    With(&'static [&'static str]),
    /// If this key of the same table has this value.
    Equals(&'static str, &'static str),
    /// If this key of the same table has one of these values.
    OneOf(&'static str, &'static [&'static str]),
}

/// What values a key takes.
#[derive(Debug)]
pub(crate) enum Form {
    Boolean,
    Integer {
        min: u64,
        max: u64,
    },
    /// Bytes, as a number or as text with a unit.
    Size {
        min: u64,
        max: u64,
    },
    Choice(Vec<&'static str>),
    Text {
        what: &'static str,
    },
    /// A number, whole or not.
    Number,
    /// A text, a number, `true` or `false`.
    Scalar,
    List {
        item: Box<Self>,
        min: usize,
        max: usize,
    },
    /// One table.
    Table(Spec, Style),
    /// Several tables.
    Tables {
        spec: Spec,
        style: Style,
        max: usize,
    },
    /// One table, or text for the mistake of writing the secret itself.
    Secret(Spec),
    /// Names the file makes up, each with a text.
    Attributes {
        max: usize,
    },
}

/// How people write a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `[mqtt]`, `[[uplink]]`.
    Header,
    /// `relay = { … }`.
    Inline,
}

impl When {
    /// Returns the condition in words: "with `relay` or `relays`"; nothing for [`When::Always`].
    pub(crate) fn words(self) -> Option<String> {
        match self {
            Self::Always => None,
            Self::With(partners) => Some(format!(
                "with {}",
                partners
                    .iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(" or ")
            )),
            Self::Equals(partner, value) => Some(format!("with `{partner} = \"{value}\"`")),
            Self::OneOf(partner, values) => {
                let values = values
                    .iter()
                    .map(|value| format!("`\"{value}\"`"))
                    .collect::<Vec<_>>();
                Some(format!("with `{partner}` {}", values.join(" or ")))
            }
        }
    }
}

impl Form {
    /// Returns the words for messages and for the reference: "an integer, 0..=100".
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Boolean => "`true` or `false`".to_owned(),
            Self::Integer { min, max } => format!("an integer, {min}..={max}"),
            Self::Size { min, max } => format!("a size, {}..={}", size_text(*min), size_text(*max)),
            Self::Choice(names) => {
                format!(
                    "one of {}",
                    names
                        .iter()
                        .map(|name| format!("\"{name}\""))
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            }
            Self::Text { what } => (*what).to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Scalar => "a text, a number, `true` or `false`".to_owned(),
            Self::List { item, min, max } => format!("a list of {min} to {max}, each {}", item.words()),
            Self::Table(_, Style::Header) => "a table of its own".to_owned(),
            Self::Table(_, Style::Inline) => "a table in braces".to_owned(),
            Self::Tables {
                max,
                style: Style::Header,
                ..
            } => format!("tables of their own, at most {max}"),
            Self::Tables {
                max,
                style: Style::Inline,
                ..
            } => format!("a list of 1 to {max} tables in braces"),
            Self::Secret(_) => "a secret by reference".to_owned(),
            Self::Attributes { max } => format!("at most {max} names with texts in braces"),
        }
    }
}

/// Returns a byte count as people write it: `8 MiB`, and `65000 B` where no unit divides it.
pub(crate) fn size_text(bytes: u64) -> String {
    let (unit, factor) = UNITS
        .into_iter()
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(UNITS[0]);
    format!("{} {unit}", bytes / factor)
}

/// Units of sizes and what they stand for in bytes.
pub(crate) const UNITS: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Returns the documentation of a table or key without the indentation of doc comments, one line.
pub(crate) fn flow(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the first sentence of a documentation text, without its full stop.
pub(crate) fn first_sentence(doc: &str) -> String {
    let doc = flow(doc);
    let sentence = doc.split_once(". ").map_or(doc.as_str(), |(first, _)| first);
    sentence.trim_end_matches('.').to_owned()
}
