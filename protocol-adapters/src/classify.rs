//! Which class a reading gets: rules on device, topic and content, the first that matches wins.

mod json;

use json::Scalar;

use crate::{class::Class, reading::Reading, topic::TopicFilter};

/// Rules in their order, made once.
///
/// Deciding about a reading allocates nothing. Content is looked at only where a rule asks for it, and only if it has no more than
/// [`JSON_LEN_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classifier {
    rules: Vec<Rule>,
}

/// One rule. What is `None` fits every reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What a reading gets that fits.
    pub class: Class,
    /// Which devices.
    pub device: Option<DevicePattern>,
    /// Which topics, or other names of resources.
    pub topic: Option<TopicFilter>,
    /// MIME type without parameters; upper and lower case are the same.
    pub content_type: Option<Box<str>>,
    /// What the payload says.
    pub json: Option<JsonTest>,
}

/// A device's name, or the beginning of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevicePattern {
    /// This device.
    Name(Box<str>),
    /// Every device whose name begins so.
    Prefix(Box<str>),
}

impl DevicePattern {
    /// Makes a pattern of its text: a name, or the beginning of names and `*`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.into()),
            None => Self::Name(text.into()),
        }
    }

    fn matches(&self, device: &str) -> bool {
        match self {
            Self::Name(name) => device == &**name,
            Self::Prefix(prefix) => device.starts_with(&**prefix),
        }
    }
}

/// A test of one value in a JSON payload.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonTest {
    path: Vec<Box<str>>,
    condition: Condition,
}

/// What the value has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A number, this or more.
    AtLeast(f64),
    /// A number, this or less.
    AtMost(f64),
    /// This number.
    Number(f64),
    /// This text.
    Text(Box<str>),
    /// This truth value.
    Bool(bool),
}

/// Why a test cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// RFC 6901: a pointer is empty, or begins with a slash.
    #[error("a path into JSON begins with `/`")]
    NoSlash,
    /// RFC 6901: a tilde stands in `~0` and `~1` only.
    #[error("`~` in a path into JSON is written `~0`, and `/` in a name `~1`")]
    Tilde,
    /// It leads too deep.
    #[error("a path into JSON has at most {max} steps")]
    TooDeep {
        /// The limit.
        max: usize,
    },
}

impl JsonTest {
    /// Makes a test of the value at `pointer` (RFC 6901): `/level`, `/status/0/code`.
    ///
    /// # Errors
    /// [`PathError`] if that is no pointer.
    pub fn new(pointer: &str, condition: Condition) -> Result<Self, PathError> {
        let mut path = Vec::new();
        if !pointer.is_empty() {
            let steps = pointer.strip_prefix('/').ok_or(PathError::NoSlash)?;
            for step in steps.split('/') {
                path.push(unescape(step)?);
            }
        }
        if path.len() > PATH_STEPS_MAX {
            return Err(PathError::TooDeep { max: PATH_STEPS_MAX });
        }
        Ok(Self { path, condition })
    }

    fn holds(&self, payload: &[u8]) -> bool {
        if payload.len() > JSON_LEN_MAX {
            return false;
        }
        match (&self.condition, json::find(payload, &self.path)) {
            (Condition::AtLeast(bound), Some(Scalar::Number(number))) => number >= *bound,
            (Condition::AtMost(bound), Some(Scalar::Number(number))) => number <= *bound,
            (Condition::Number(wanted), Some(Scalar::Number(number))) => {
                number.total_cmp(wanted).is_eq() || (number == 0.0 && *wanted == 0.0)
            }
            (Condition::Text(wanted), Some(Scalar::Text(text))) => text.equals(wanted),
            (Condition::Bool(wanted), Some(Scalar::Bool(value))) => value == *wanted,
            _ => false,
        }
    }
}

fn unescape(step: &str) -> Result<Box<str>, PathError> {
    let mut name = String::with_capacity(step.len());
    let mut rest = step.chars();
    while let Some(char) = rest.next() {
        name.push(match char {
            '~' => match rest.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(PathError::Tilde),
            },
            char => char,
        });
    }
    Ok(name.into())
}

impl Classifier {
    /// Makes a classifier of rules in their order.
    #[must_use]
    pub const fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Returns the class of the first rule that fits, and of the reading itself if none does.
    #[must_use]
    pub fn class(&self, reading: &Reading<'_>) -> Class {
        self.rules
            .iter()
            .find(|rule| rule.fits(reading))
            .map_or(reading.class, |rule| rule.class)
    }
}

impl Rule {
    /// Returns whether a reading fits; the content is looked at last.
    fn fits(&self, reading: &Reading<'_>) -> bool {
        let device = self.device.as_ref();
        let topic = self.topic.as_ref();
        let content_type = self.content_type.as_deref();
        device.is_none_or(|pattern| pattern.matches(reading.device))
            && topic.is_none_or(|filter| filter.matches(reading.resource))
            && content_type.is_none_or(|wanted| reading.content_type.is_some_and(|is| is_type(is, wanted)))
            && self.json.as_ref().is_none_or(|test| test.holds(reading.payload))
    }
}

/// Returns whether a MIME type, with or without parameters, is `wanted` (RFC 9110 §8.3.1).
fn is_type(content_type: &str, wanted: &str) -> bool {
    let (bare, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    bare.trim().eq_ignore_ascii_case(wanted)
}

/// Bytes of a payload up to which a rule looks into it.
pub const JSON_LEN_MAX: usize = 16 << 10;
/// Steps of a path into JSON.
pub const PATH_STEPS_MAX: usize = 8;

#[cfg(test)]
mod tests;
