//! Numbers that need not be whole, and values of several kinds.

use toml::Spanned;
use toml::de::DeValue;

use super::{Shape, refuse_type};
use crate::reader::Context;
use crate::settings::{JsonValue, Number};
use crate::spec::Form;

/// A number, whole or not.
pub(crate) struct Figure;

impl Shape for Figure {
    type Value = Number;

    fn form(&self) -> Form {
        Form::Number
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, context: &mut Context<'_>) -> Option<Number> {
        let number = number(value.get_ref());
        if number.is_none() {
            refuse_type(value, path, &self.form(), context);
        }
        number
    }
}

/// A text, a number, or a truth value.
pub(crate) struct Scalar;

impl Shape for Scalar {
    type Value = JsonValue;

    fn form(&self) -> Form {
        Form::Scalar
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, context: &mut Context<'_>) -> Option<JsonValue> {
        let read = match value.get_ref() {
            DeValue::String(text) => Some(JsonValue::Text(text.to_string())),
            DeValue::Boolean(boolean) => Some(JsonValue::Bool(*boolean)),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => number(value.get_ref()).map(JsonValue::Number),
        };
        if read.is_none() {
            refuse_type(value, path, &self.form(), context);
        }
        read
    }
}

/// Returns the number that a value is; neither infinity nor what is none.
fn number(value: &DeValue<'_>) -> Option<Number> {
    let text = match value {
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
        DeValue::Float(float) => float.as_str(),
        DeValue::Integer(_)
        | DeValue::String(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => return None,
    };
    Number::new(text.parse().ok()?)
}
