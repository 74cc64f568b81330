//! How readings look at a sink: topic and format, as its settings say.

use std::borrow::Cow;

use fieldgate_adapters::{class::Class, reading::Reading};
use fieldgate_config::{
    settings::sink::{FieldName, Format, Output},
    template::Origin,
};

use super::{
    Source,
    gap::Gap,
    item::Item,
    json::{class, quality, rfc3339},
    record::{Record, Value},
};

/// Device, and first level of the resource, of a record of missing readings: `$gap/<class>`.
pub(crate) const GAP: &str = "$gap";

/// Appends the topic of `item` to `topic`: that of the first rename that fits, otherwise the sink's.
pub(crate) fn topic_into(output: &Output, topic: &mut String, item: &Item<'_>) {
    let mut gap_resource = String::new();
    let (source, device, resource, class_of) = match item {
        Item::Reading { source, reading, .. } => (*source, reading.device, reading.resource, reading.class),
        Item::Gap { gap, .. } => {
            gap_resource = format!("{GAP}/{}", class(gap.class));
            (&*gap.source, GAP, gap_resource.as_str(), gap.class)
        }
        Item::Undecodable { .. } => return,
    };
    let origin = Origin {
        gateway: &source.name,
        device,
        resource,
        class: class(class_of),
    };
    let is_gap = !gap_resource.is_empty();
    // Renames are for resources of devices; a gap is nobody's.
    let renamed = !is_gap
        && output
            .renames
            .iter()
            .any(|rename| rename.expand_into(topic, &origin));
    if !renamed {
        output.topic.expand_into(topic, &origin);
    }
}

/// Appends `item` in the sink's format, without anything around it. Nothing for one that does not decode.
pub(crate) fn body_into(output: &Output, out: &mut Vec<u8>, item: &Item<'_>) {
    match (item, output.format) {
        (Item::Undecodable { .. }, _) => {}
        (Item::Reading { reading, .. }, Format::Raw) => out.extend_from_slice(reading.payload),
        (Item::Gap { gap, first, last }, Format::Raw) => {
            let mut record = Record::default();
            record.text("id", item.id());
            gap_into(&mut record, gap, *first, *last);
            record.write_json(out);
        }
        (_, Format::Json) => plain(output, item).write_json(out),
        (_, Format::Cbor) => plain(output, item).write_cbor(out),
        (_, Format::CloudEvents) => event(output, item).write_json(out),
    }
}

/// Returns the content type of what [`body_into`] makes, where it is not that of the payload.
pub(crate) const fn content_type(output: &Output, item: &Item<'_>) -> Option<&'static str> {
    match (output.format, item) {
        (Format::Raw, Item::Reading { .. } | Item::Undecodable { .. }) => None,
        (Format::Raw, Item::Gap { .. }) | (Format::Json, _) => Some("application/json"),
        (Format::Cbor, _) => Some("application/cbor"),
        // CloudEvents 1.0, JSON Event Format §3.
        (Format::CloudEvents, _) => Some("application/cloudevents+json"),
    }
}

/// The record of `json` and `cbor`. The id comes first, so that a reader of a file finds it without parsing the rest.
fn plain<'a>(output: &'a Output, item: &'a Item<'a>) -> Record<'a> {
    let mut record = Record::default();
    match item {
        Item::Reading {
            source,
            sequence,
            reading,
        } => {
            for field in &output.fields {
                field_into(&mut record, *field, output, item, (source, *sequence, reading));
            }
        }
        Item::Gap { gap, first, last } => {
            record.text("id", item.id());
            gap_into(&mut record, gap, *first, *last);
        }
        Item::Undecodable { .. } => {}
    }
    for (name, text) in &output.set {
        record.text(name, text.as_str());
    }
    record
}

fn field_into<'a>(
    record: &mut Record<'a>,
    field: FieldName,
    output: &Output,
    item: &Item<'a>,
    (source, sequence, reading): (&'a Source, u64, &'a Reading<'a>),
) {
    match field {
        FieldName::Id => record.text("id", source.reading_id(sequence)),
        FieldName::Gateway => record.text("gateway", source.name.as_str()),
        FieldName::Identifier => record.text("identifier", source.gateway.to_string()),
        FieldName::Device => record.text("device", reading.device),
        FieldName::Resource => record.text("resource", reading.resource),
        FieldName::Topic => {
            let mut topic = String::new();
            topic_into(output, &mut topic, item);
            record.text("topic", topic);
        }
        FieldName::Class => record.text("class", class(reading.class)),
        FieldName::CapturedAt => record.text("captured_at", rfc3339(reading.captured_at.unix_millis)),
        FieldName::TimeQuality => record.text("time_quality", quality(reading.captured_at.quality)),
        FieldName::ContentType => {
            if let Some(content_type) = reading.content_type {
                record.text("content_type", content_type);
            }
        }
        FieldName::Properties => {
            if !reading.user_properties.is_empty() {
                record.push(
                    "properties",
                    Value::Pairs(reading.user_properties.iter().collect()),
                );
            }
        }
        FieldName::Payload => match (output.format, std::str::from_utf8(reading.payload)) {
            (Format::Cbor, _) => record.push("payload", Value::Bytes(reading.payload)),
            (_, Ok(text)) => record.text("payload", text),
            (_, Err(_)) => record.push("payload_base64", Value::Bytes(reading.payload)),
        },
        FieldName::Path => record.push("path", Value::Texts(&source.path)),
    }
}

/// Appends what a record says of missing readings.
pub(crate) fn gap_into<'a>(record: &mut Record<'a>, gap: &'a Gap, first: u64, last: u64) {
    record.text("event", "gap");
    record.text("gateway", gap.source.name.as_str());
    record.text("class", class(gap.class));
    gap_range_into(record, gap, first, last);
}

fn gap_range_into(record: &mut Record<'_>, gap: &Gap, first: u64, last: u64) {
    record.text("reason", gap.reason.word());
    record.push("first", Value::Number(first));
    record.push("last", Value::Number(last));
    record.push("count", Value::Number(last - first + 1));
    if let Some((from, to)) = gap.captured {
        record.text("captured_from", rfc3339(from));
        record.text("captured_to", rfc3339(to));
    }
}

/// The event of `cloudevents` (CloudEvents 1.0, JSON Event Format). Its `source` and `id` together are unique, and a consumer
/// may take two events that have both in common for copies (§"id").
fn event<'a>(output: &'a Output, item: &'a Item<'a>) -> Record<'a> {
    let mut record = Record::default();
    let source: &Source = match item {
        Item::Reading { source, .. } => source,
        Item::Gap { gap, .. } => &gap.source,
        Item::Undecodable { .. } => return record,
    };
    record.text("id", item.id());
    record.text("specversion", "1.0");
    record.text("source", format!("fieldgate:{}", source.gateway));
    let mut topic = String::new();
    topic_into(output, &mut topic, item);
    match item {
        Item::Reading { reading, .. } => {
            record.text("type", "fieldgate.reading");
            record.text("subject", topic);
            record.text("time", rfc3339(reading.captured_at.unix_millis));
            record.text("timequality", quality(reading.captured_at.quality));
            record.text("device", reading.device);
            attributes_into(&mut record, output, source, reading.class);
            let (content_type, name, value) = data(reading);
            record.text("datacontenttype", content_type);
            record.push(name, value);
        }
        Item::Gap { gap, first, last } => {
            record.text("type", "fieldgate.gap");
            record.text("subject", topic);
            attributes_into(&mut record, output, source, gap.class);
            record.text("datacontenttype", "application/json");
            let mut data = Record::default();
            gap_range_into(&mut data, gap, *first, *last);
            record.push("data", Value::Record(data));
        }
        Item::Undecodable { .. } => {}
    }
    record
}

fn attributes_into<'a>(record: &mut Record<'a>, output: &'a Output, source: &'a Source, class_of: Class) {
    record.text("gateway", source.name.as_str());
    record.text("class", class(class_of));
    for (name, text) in &output.set {
        record.text(name, text.as_str());
    }
}

/// Returns content type, name and value of an event's data (JSON Event Format §3.1.1): JSON as it is, text as text, the rest in
/// Base64.
fn data<'a>(reading: &'a Reading<'a>) -> (Cow<'a, str>, &'static str, Value<'a>) {
    let text = std::str::from_utf8(reading.payload).ok();
    let given = reading.content_type;
    if given.is_some_and(is_json) {
        let is_valid = serde_json::from_slice::<serde::de::IgnoredAny>(reading.payload).is_ok();
        if let (true, Some(given)) = (is_valid, given) {
            return (given.into(), "data", Value::Json(reading.payload));
        }
        // A consumer must not take a text for the JSON it says it is.
        let given = given.unwrap_or_default();
        return (given.into(), "data_base64", Value::Bytes(reading.payload));
    }
    match text {
        Some(text) => (
            given.unwrap_or("text/plain").into(),
            "data",
            Value::Text(text.into()),
        ),
        None => (
            given.unwrap_or("application/octet-stream").into(),
            "data_base64",
            Value::Bytes(reading.payload),
        ),
    }
}

/// Whether a media type is JSON (JSON Event Format §3.1): `json` or `…+json` as subtype.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let subtype = media_type.split_once('/').map_or("", |(_, subtype)| subtype);
    subtype.eq_ignore_ascii_case("json")
        || subtype
            .rsplit_once('+')
            .is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case("json"))
}

#[cfg(test)]
mod tests;
