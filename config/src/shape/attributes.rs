//! Names and texts that only policies read.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

use super::{Shape, describe, refuse_type};
use crate::reader::{Context, quote};
use crate::spec::Form;

/// Attributes of a member, as its credential has them (`PROTOCOL.md` §10.1).
pub(crate) struct Attributes;

impl Shape for Attributes {
    type Value = BTreeMap<String, String>;

    fn form(&self) -> Form {
        Form::Attributes { max: COUNT_MAX }
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        context: &mut Context<'_>,
    ) -> Option<Self::Value> {
        let Some(table) = value.get_ref().as_table() else {
            let name = path.rsplit('.').next().unwrap_or(path);
            let message = format!("`{path}` is {}, not a table", describe(value.get_ref()));
            let help = format!("write {name} = {{ site = \"north\" }}");
            context.refuse(path, &value.span(), message, help);
            return None;
        };
        if table.len() > COUNT_MAX {
            let message = format!("`{path}` has {} attributes, more than {COUNT_MAX}", table.len());
            context.refuse(path, &value.span(), message, "take attributes out");
        }
        let mut attributes = BTreeMap::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            if !is_attribute_name(name) {
                let message = format!(
                    "`{path}` has {}, which is not the name of an attribute",
                    quote(name)
                );
                let help = "use 1 to 63 letters, digits, dots, underscores and hyphens";
                context.refuse(path, &key.span(), message, help);
                continue;
            }
            let path = format!("{path}.{name}");
            let Some(text) = value.get_ref().as_str() else {
                refuse_type(value, &path, &Form::Text { what: TEXT }, context);
                continue;
            };
            if text.len() > TEXT_LEN_MAX || text.chars().any(char::is_control) {
                let message =
                    format!("`{path}` is longer than {TEXT_LEN_MAX} bytes or has control characters");
                context.refuse(&path, &value.span(), message, "choose a shorter plain text");
                continue;
            }
            attributes.insert(name.to_owned(), text.to_owned());
        }
        Some(attributes)
    }
}

fn is_attribute_name(text: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Most attributes of a credential (`PROTOCOL.md` §10.1).
const COUNT_MAX: usize = 32;
/// Longest name of an attribute, in bytes: that of every other name in the file.
const NAME_LEN_MAX: usize = 63;
/// Longest text of an attribute, in bytes: what a `text8` holds (`PROTOCOL.md` §1).
const TEXT_LEN_MAX: usize = 255;
const TEXT: &str = "text of at most 255 bytes";
