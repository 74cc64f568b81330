//! What values look like: each shape reads one kind of value and describes it for reference and schema.

use toml::Spanned;
use toml::de::DeValue;

use crate::reader::{Context, is_secret_name, quote};
use crate::spec::Form;

mod attributes;
mod number;
mod path;
mod scalar;
mod table;

pub(crate) use attributes::Attributes;
pub(crate) use number::{bytes_u32, bytes_u64, count_u16, count_u32, millis, seconds};
pub(crate) use path::{FilePath, Secret, SinkPath, SinkPathShape};
pub(crate) use scalar::{Figure, Scalar};
pub(crate) use table::{List, inline, inlines, section, sections};

/// Reads values of one kind.
pub(crate) trait Shape {
    /// What it gives.
    type Value;

    /// Describes the values it takes.
    fn form(&self) -> Form;

    /// Takes a value, or says why not.
    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        context: &mut Context<'_>,
    ) -> Option<Self::Value>;
}

/// `true` or `false`.
pub(crate) struct Boolean;

impl Shape for Boolean {
    type Value = bool;

    fn form(&self) -> Form {
        Form::Boolean
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, context: &mut Context<'_>) -> Option<bool> {
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            refuse_type(value, path, &self.form(), context);
        }
        boolean
    }
}

/// One of a few words.
pub(crate) struct Choice<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T: Copy> Shape for Choice<T> {
    type Value = T;

    fn form(&self) -> Form {
        Form::Choice(self.0.iter().map(|(name, _)| *name).collect())
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, context: &mut Context<'_>) -> Option<T> {
        let Some(text) = value.get_ref().as_str() else {
            refuse_type(value, path, &self.form(), context);
            return None;
        };
        let chosen = self.0.iter().find(|(name, _)| *name == text);
        if chosen.is_none() {
            let names: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
            let message = format!("`{path}` is {}, not {}", quote(text), self.form().words());
            let help = match crate::suggest::nearest(text, &names) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("write \"{}\"", names.join("\" or \"")),
            };
            context.refuse(path, &value.span(), message, help);
        }
        chosen.map(|(_, value)| *value)
    }
}

/// Text that means something.
pub(crate) struct Text<T> {
    /// What it is, with an article.
    pub(crate) what: &'static str,
    /// Takes the text, or says why not.
    pub(crate) parse: fn(&str) -> Result<T, Refusal>,
}

/// Why a text is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Goes on after the name of the key, or after "which".
    pub(crate) reason: String,
    pub(crate) help: String,
    pub(crate) exposure: Exposure,
}

/// Whether a refused text may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposure {
    Open,
    /// It may be, or hold, a secret.
    Secret,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            help: help.into(),
            exposure: Exposure::Open,
        }
    }

    pub(crate) fn secret(reason: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            exposure: Exposure::Secret,
            ..Self::new(reason, help)
        }
    }
}

impl<T> Shape for Text<T> {
    type Value = T;

    fn form(&self) -> Form {
        Form::Text { what: self.what }
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, context: &mut Context<'_>) -> Option<T> {
        let Some(text) = value.get_ref().as_str() else {
            refuse_type(value, path, &self.form(), context);
            return None;
        };
        match (self.parse)(text) {
            Ok(parsed) => Some(parsed),
            Err(refusal) => {
                let message = match refusal.exposure {
                    Exposure::Open => format!("`{path}` is {}, which {}", quote(text), refusal.reason),
                    Exposure::Secret => {
                        let place = context.place(&value.span());
                        context.findings.hide(place);
                        format!("`{path}` {}", refusal.reason)
                    }
                };
                context.refuse(path, &value.span(), message, refusal.help);
                None
            }
        }
    }
}

fn refuse_type(value: &Spanned<DeValue<'_>>, path: &str, form: &Form, context: &mut Context<'_>) {
    let is_secret = is_secret_name(path);
    if is_secret {
        let place = context.place(&value.span());
        context.findings.hide(place);
    }
    let message = if is_secret {
        format!("`{path}` is not {}", form.words())
    } else {
        format!("`{path}` is {}, not {}", describe(value.get_ref()), form.words())
    };
    let help = match (value.get_ref(), form) {
        _ if is_secret => format!("write {}", form.words()),
        (DeValue::String(text), Form::Integer { .. }) if text.parse::<u64>().is_ok() => {
            format!("write the number without quotes: {text}")
        }
        (DeValue::String(text), Form::Boolean) if ["true", "false"].contains(&&**text) => {
            format!("write it without quotes: {text}")
        }
        (DeValue::Float(_), Form::Integer { .. }) => "write a whole number".to_owned(),
        _ => format!("write {}", form.words()),
    };
    context.refuse(path, &value.span(), message, help);
}

/// Names a value for a message.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {}", quote(text)),
        DeValue::Integer(integer) => format!("the integer {integer}"),
        DeValue::Float(float) => format!("the fraction {float}"),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => format!("the time {datetime}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
