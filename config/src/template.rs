//! Topics made from readings.

use std::fmt;
use std::str::FromStr;

/// The topic of a reading at a sink, with variables that stand for its origin.
///
/// | variable | stands for |
/// |---|---|
/// | `{gateway}` | name of the gateway |
/// | `{device}` | name of the device |
/// | `{resource}` | resource of the device; for MQTT the whole topic |
/// | `{path}` | the resource, with the device before it unless it begins with the device anyway |
/// | `{class}` | `alarm`, `normal` or `bulk` |
///
/// The target of a rename rule has the names of its pattern as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(Variable),
    /// What a rename rule's pattern kept: name and place among the names of the pattern.
    Capture(String, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Gateway,
    Device,
    Resource,
    Path,
    Class,
}

impl Variable {
    const ALL: [(&'static str, Self); 5] = [
        ("gateway", Self::Gateway),
        ("device", Self::Device),
        ("resource", Self::Resource),
        ("path", Self::Path),
        ("class", Self::Class),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Device => "device",
            Self::Resource => "resource",
            Self::Path => "path",
            Self::Class => "class",
        }
    }
}

/// Where a reading comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Name of the gateway.
    pub gateway: &'a str,
    /// Name of the device.
    pub device: &'a str,
    /// Resource of the device.
    pub resource: &'a str,
    /// Word for the class.
    pub class: &'a str,
}

impl TopicTemplate {
    /// Appends the topic of a reading to `topic`.
    ///
    /// What MQTT does not allow in a topic name (`+`, `#` and control characters, MQTT 5.0 §4.7.1, §1.5.4) becomes `_`, as
    /// does a `$` in front, which servers keep to themselves; such characters come only from resources that are not MQTT
    /// topics themselves. The caller has to see to the 65,535 bytes a topic may have.
    pub fn expand_into(&self, topic: &mut String, origin: &Origin<'_>) {
        self.expand_with(topic, origin, &[]);
    }

    fn expand_with(&self, topic: &mut String, origin: &Origin<'_>, captures: &[&str]) {
        let start = topic.len();
        let mut push = |value: &str| {
            for c in value.chars() {
                let c = match c {
                    '$' if topic.len() == start => '_',
                    c if is_forbidden(c) => '_',
                    c => c,
                };
                topic.push(c);
            }
        };
        for part in &self.parts {
            match part {
                Part::Literal(text) => push(text),
                Part::Variable(Variable::Gateway) => push(origin.gateway),
                Part::Variable(Variable::Device) => push(origin.device),
                Part::Variable(Variable::Resource) => push(origin.resource),
                Part::Variable(Variable::Class) => push(origin.class),
                Part::Variable(Variable::Path) => {
                    if !begins_with_level(origin.resource, origin.device) {
                        push(origin.device);
                        push("/");
                    }
                    push(origin.resource);
                }
                Part::Capture(_, index) => push(captures.get(*index).copied().unwrap_or_default()),
            }
        }
    }

    /// Reads a template that may use the names of `pattern`.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse_with(text: &str, pattern: &TopicPattern) -> Result<Self, TemplateError> {
        Self::parse(text, &pattern.names().collect::<Vec<_>>())
    }

    /// Returns the first level, if it is the same for every reading.
    #[must_use]
    pub fn literal_root(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Literal(text)] => Some(text.split('/').next().unwrap_or_default()),
            [Part::Literal(text), ..] => text.split_once('/').map(|(root, _)| root),
            _ => None,
        }
    }

    fn parse(text: &str, names: &[&str]) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, braced) = rest.split_at(at);
            push_literal(&mut parts, literal)?;
            let (name, after) = braced
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .ok_or(TemplateError::Brace)?;
            if name.contains('{') {
                return Err(TemplateError::Brace);
            }
            let variable = Variable::ALL.iter().find(|(known, _)| *known == name);
            let captured = names.iter().position(|captured| *captured == name);
            parts.push(match (variable, captured) {
                (Some((_, variable)), _) => Part::Variable(*variable),
                (None, Some(index)) => Part::Capture(name.to_owned(), index),
                (None, None) => {
                    return Err(TemplateError::Variable {
                        name: name.to_owned(),
                    });
                }
            });
            rest = after;
        }
        push_literal(&mut parts, rest)?;
        Ok(Self { parts })
    }
}

/// Whether `resource` is `device`, or begins with it as a whole level.
fn begins_with_level(resource: &str, device: &str) -> bool {
    resource
        .strip_prefix(device)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(text) => f.write_str(text)?,
                Part::Variable(variable) => write!(f, "{{{}}}", variable.name())?,
                Part::Capture(name, _) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

/// Why a text is not a topic template or pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is empty.
    #[error("is empty")]
    Empty,
    /// A brace without its partner.
    #[error("has a brace without its partner")]
    Brace,
    /// A variable that does not exist.
    #[error("uses `{{{name}}}`, which does not exist")]
    Variable {
        /// Its name.
        name: String,
    },
    /// A character that a topic name must not have.
    #[error("contains {character:?}, which a topic must not have")]
    Character {
        /// The character.
        character: char,
    },
    /// `+`, `#` or a name that is not a whole level, or what stands for the rest is not the last level.
    #[error("has `{level}`, which is no level of a pattern there")]
    Level {
        /// The level.
        level: String,
    },
    /// A name that stands there twice, is none, or means something else.
    #[error("names `{name}`, which is taken or no name")]
    Name {
        /// The name.
        name: String,
    },
}

impl FromStr for TopicTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Self::parse(text, &[])
    }
}

fn push_literal(parts: &mut Vec<Part>, literal: &str) -> Result<(), TemplateError> {
    if let Some(character) = literal.chars().find(|c| is_forbidden(*c)) {
        return Err(TemplateError::Character { character });
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.to_owned()));
    }
    Ok(())
}

fn is_forbidden(c: char) -> bool {
    matches!(c, '+' | '#') || c.is_control()
}

/// A topic filter (MQTT 5.0 §4.7) that can keep what stands in the place of its wildcards.
///
/// `{name}` stands for one level like `+`, and `{name...}` at the end for one level or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Literal(String),
    One(Option<String>),
    /// All levels that are left; only the last.
    Rest(Option<String>),
}

impl TopicPattern {
    /// Returns the names in the order in which they stand.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().filter_map(|level| match level {
            Level::One(name) | Level::Rest(name) => name.as_deref(),
            Level::Literal(_) => None,
        })
    }

    /// Returns whether `resource` fits, and puts into `captures` what stands in the place of the names.
    fn matches<'r>(&self, resource: &'r str, captures: &mut Vec<&'r str>) -> bool {
        // What is not looked at yet; `None` behind the last level.
        let mut left = Some(resource);
        for level in &self.levels {
            if let Level::Rest(name) = level {
                // The unnamed one also stands for nothing at all (MQTT 5.0 §4.7.1.2).
                return match (name, left) {
                    (None, _) => true,
                    (Some(_), Some(rest)) => {
                        captures.push(rest);
                        true
                    }
                    (Some(_), None) => false,
                };
            }
            let Some(text) = left else { return false };
            let (here, after) = match text.split_once('/') {
                Some((here, after)) => (here, Some(after)),
                None => (text, None),
            };
            match level {
                Level::Literal(literal) if literal != here => return false,
                Level::One(Some(_)) => captures.push(here),
                Level::Literal(_) | Level::One(None) | Level::Rest(_) => {}
            }
            left = after;
        }
        left.is_none()
    }
}

impl FromStr for TopicPattern {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let texts: Vec<&str> = text.split('/').collect();
        let mut levels: Vec<Level> = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let bad = || TemplateError::Level {
                level: (*text).to_owned(),
            };
            let level = match *text {
                "+" => Level::One(None),
                "#" => Level::Rest(None),
                text => match text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
                    Some(name) => match name.strip_suffix("...") {
                        Some(name) => Level::Rest(Some(name.to_owned())),
                        None => Level::One(Some(name.to_owned())),
                    },
                    None if text.contains(['{', '}', '+', '#']) => return Err(bad()),
                    None => {
                        if let Some(character) = text.chars().find(|c| c.is_control()) {
                            return Err(TemplateError::Character { character });
                        }
                        Level::Literal(text.to_owned())
                    }
                },
            };
            if matches!(level, Level::Rest(_)) && index + 1 < texts.len() {
                return Err(bad());
            }
            levels.push(level);
        }
        let pattern = Self { levels };
        let mut seen: Vec<&str> = Variable::ALL.iter().map(|(name, _)| *name).collect();
        for name in pattern.names() {
            let is_name = (1..=32).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if !is_name || seen.contains(&name) {
                return Err(TemplateError::Name {
                    name: name.to_owned(),
                });
            }
            seen.push(name);
        }
        Ok(pattern)
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, level) in self.levels.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            match level {
                Level::Literal(text) => f.write_str(text)?,
                Level::One(None) => f.write_str("+")?,
                Level::Rest(None) => f.write_str("#")?,
                Level::One(Some(name)) => write!(f, "{{{name}}}")?,
                Level::Rest(Some(name)) => write!(f, "{{{name}...}}")?,
            }
        }
        Ok(())
    }
}

/// Another topic for the resources that fit a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// Which resources.
    pub from: TopicPattern,
    /// The topic; made with [`TopicTemplate::parse_with`] from this pattern.
    pub to: TopicTemplate,
}

impl Rename {
    /// Appends the topic of a reading to `topic` if its resource fits, and returns whether it does.
    pub fn expand_into(&self, topic: &mut String, origin: &Origin<'_>) -> bool {
        let mut captures = Vec::new();
        let fits = self.from.matches(origin.resource, &mut captures);
        if fits {
            self.to.expand_with(topic, origin, &captures);
        }
        fits
    }
}

#[cfg(test)]
mod tests;
