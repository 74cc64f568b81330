//! A reading as one line of JSON for people and tools: as the demo prints it, and as a journal is dumped.

use std::time::{Duration, UNIX_EPOCH};

use fieldgate_adapters::{class::Class, reading::Reading};
use fieldgate_proto::time::ClockQuality;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::Source;

/// One reading as an event on a line.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    id: String,
    gateway: &'a str,
    device: &'a str,
    resource: &'a str,
    class: &'static str,
    captured_at: String,
    time_quality: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Properties::is_empty")]
    properties: Properties<'a>,
    /// The payload, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    /// The payload in Base64 (RFC 4648 §4), if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    path: &'a [String],
}

struct Properties<'a>(&'a Reading<'a>);

impl Properties<'_> {
    fn is_empty(&self) -> bool {
        self.0.user_properties.is_empty()
    }
}

impl Serialize for Properties<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.0.user_properties.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Appends the reading as the demo prints it: an event with the path it took.
pub(crate) fn event(out: &mut Vec<u8>, source: &Source, sequence: u64, reading: &Reading<'_>) {
    let text = std::str::from_utf8(reading.payload).ok();
    let line = Line {
        event: "reading",
        id: source.reading_id(sequence),
        gateway: &source.name,
        device: reading.device,
        resource: reading.resource,
        class: class(reading.class),
        captured_at: rfc3339(reading.captured_at.unix_millis),
        time_quality: quality(reading.captured_at.quality),
        content_type: reading.content_type,
        properties: Properties(reading),
        payload: text,
        payload_base64: text
            .is_none()
            .then(|| data_encoding::BASE64.encode(reading.payload)),
        path: &source.path,
    };
    serde_json::to_writer(&mut *out, &line).expect("writing JSON to memory cannot fail");
    out.push(b'\n');
}

/// One record of a journal as it is dumped.
#[derive(Serialize)]
struct Record<'a> {
    sequence: u64,
    device: &'a str,
    resource: &'a str,
    class: &'static str,
    captured_at: String,
    time_quality: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

/// Appends record `sequence` of a journal as one line of JSON.
pub(crate) fn journal_line(out: &mut Vec<u8>, sequence: u64, reading: &Reading<'_>) {
    let text = std::str::from_utf8(reading.payload).ok();
    let record = Record {
        sequence,
        device: reading.device,
        resource: reading.resource,
        class: class(reading.class),
        captured_at: rfc3339(reading.captured_at.unix_millis),
        time_quality: quality(reading.captured_at.quality),
        payload: text,
        payload_base64: text
            .is_none()
            .then(|| data_encoding::BASE64.encode(reading.payload)),
    };
    serde_json::to_writer(&mut *out, &record).expect("writing JSON to memory cannot fail");
    out.push(b'\n');
}

/// Appends record `sequence` of a journal as one line for people.
pub(crate) fn journal_text(out: &mut Vec<u8>, sequence: u64, reading: &Reading<'_>) {
    let payload = std::str::from_utf8(reading.payload).map_or_else(
        |_| format!("{} bytes", reading.payload.len()),
        |text| {
            text.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect()
        },
    );
    let time = rfc3339(reading.captured_at.unix_millis);
    let line = format!(
        "{sequence}  {time}  {}  {}  {payload}\n",
        reading.device, reading.resource
    );
    out.extend_from_slice(line.as_bytes());
}

/// Writes milliseconds since 1970 as RFC 3339 text in UTC.
pub(crate) fn rfc3339(unix_millis: u64) -> String {
    // Later than year 9999 the text form ends; a clock that says so is as good as none.
    let millis = unix_millis.min(253_402_300_799_999);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

/// Returns the word for a class.
pub(crate) const fn class(class: Class) -> &'static str {
    match class {
        Class::Alarm => "alarm",
        Class::Normal => "normal",
        Class::Bulk => "bulk",
    }
}

/// Returns the word for a clock quality.
pub(crate) const fn quality(quality: ClockQuality) -> &'static str {
    match quality {
        ClockQuality::Unknown => "unknown",
        ClockQuality::Floor => "floor",
        ClockQuality::Authority => "authority",
        ClockQuality::Synchronised => "synchronised",
    }
}
