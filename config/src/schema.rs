//! The table of keys as a JSON Schema, for editors that check and complete TOML.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::spec::{Form, Key, Presence, Spec, When, flow};

/// Returns the schema of the file. What needs more than one table to tell is left to `fieldgate check`.
pub(crate) fn render(root: &Spec) -> Value {
    let mut schema = table(root);
    schema.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    schema.insert("title".to_owned(), json!("fieldgate configuration"));
    sorted(Value::Object(schema))
}

/// Puts the keys of every object in order. Other crates can switch on that objects keep the order they were made in, and the text
/// must not depend on what else is built.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let ordered: BTreeMap<_, _> = object
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            Value::Object(ordered.into_iter().collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

fn table(spec: &Spec) -> Map<String, Value> {
    let properties: Map<_, _> = spec
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let required: Vec<_> = spec
        .keys
        .iter()
        .filter(|key| key.presence == Presence::Required && key.when == When::Always)
        .map(|key| key.name)
        .collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("description".to_owned(), json!(flow(spec.doc)));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("required".to_owned(), json!(required));
    schema.insert("additionalProperties".to_owned(), json!(false));
    if !spec.exactly_one.is_empty() {
        schema.insert(
            "oneOf".to_owned(),
            spec.exactly_one
                .iter()
                .map(|name| json!({ "required": [name] }))
                .collect(),
        );
    }
    let conditions: Vec<_> = spec
        .keys
        .iter()
        .filter_map(condition)
        .chain(not_together(spec.at_most_one))
        .collect();
    if !conditions.is_empty() {
        schema.insert("allOf".to_owned(), Value::Array(conditions));
    }
    schema
}

/// Says of each two of these keys that they do not go together.
fn not_together(names: &'static [&'static str]) -> impl Iterator<Item = Value> {
    names.iter().enumerate().flat_map(move |(index, name)| {
        let others = names.iter().skip(index + 1);
        others.map(move |other| json!({ "not": { "required": [name, other] } }))
    })
}

/// Says when a key may, and has to, be there.
fn condition(key: &Key) -> Option<Value> {
    let when = match key.when {
        When::Always => return None,
        When::With(partners) => {
            let partners: Vec<_> = partners
                .iter()
                .map(|name| json!({ "required": [name] }))
                .collect();
            json!({ "anyOf": partners })
        }
        When::Equals(partner, value) => {
            json!({ "properties": { partner: { "const": value } }, "required": [partner] })
        }
        When::OneOf(partner, values) => {
            json!({ "properties": { partner: { "enum": values } }, "required": [partner] })
        }
    };
    let then = if key.presence == Presence::Required {
        json!({ "required": [key.name] })
    } else {
        json!({})
    };
    Some(json!({ "if": when, "then": then, "else": { "properties": { key.name: false } } }))
}

fn property(key: &Key) -> Value {
    let mut schema = form(&key.form);
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), json!(flow(key.doc)));
        if let Presence::Default(text) = key.presence
            && let Some(default) = to_json(text)
        {
            schema.insert("default".to_owned(), default);
        }
    }
    schema
}

fn form(form: &Form) -> Value {
    match form {
        Form::Boolean => json!({ "type": "boolean" }),
        Form::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Form::Size { min, max } => json!({ "oneOf": [
            { "type": "integer", "minimum": min, "maximum": max },
            { "type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB|TiB)$" },
        ] }),
        Form::Choice(names) => json!({ "enum": names }),
        Form::Text { what } => json!({ "type": "string", "title": what }),
        Form::Number => json!({ "type": "number" }),
        Form::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Form::List { item, min, max } => {
            json!({ "type": "array", "items": self::form(item), "minItems": min, "maxItems": max })
        }
        Form::Table(spec, _) | Form::Secret(spec) => Value::Object(table(spec)),
        Form::Attributes { max } => {
            json!({ "type": "object", "additionalProperties": { "type": "string" }, "maxProperties": max })
        }
        Form::Tables { spec, max, .. } => {
            json!({ "type": "array", "items": table(spec), "minItems": 1, "maxItems": max })
        }
    }
}

/// Turns a default of the key table into JSON.
fn to_json(text: &str) -> Option<Value> {
    let document: toml::Table = toml::from_str(&format!("default = {text}")).ok()?;
    serde_json::to_value(document.get("default")?).ok()
}
