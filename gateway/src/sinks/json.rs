//! A reading as one line of JSON, as the file sink and the demo print it.

use std::time::{Duration, UNIX_EPOCH};

use fieldgate_adapters::{class::Class, reading::Reading};
use fieldgate_proto::time::ClockQuality;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Source, gap::Gap};

/// One reading as it stands on a line. The id comes first, so that a reader of the file finds it without parsing the rest.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a [String]>,
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

/// Appends reading `sequence` of `source` as one line.
pub(crate) fn line(out: &mut Vec<u8>, source: &Source, sequence: u64, reading: &Reading<'_>) {
    write(out, source, sequence, reading, None, None);
}

/// Appends the reading as the demo prints it: an event with the path it took.
pub(crate) fn event(out: &mut Vec<u8>, source: &Source, sequence: u64, reading: &Reading<'_>) {
    write(
        out,
        source,
        sequence,
        reading,
        Some("reading"),
        Some(&source.path),
    );
}

fn write(
    out: &mut Vec<u8>,
    source: &Source,
    sequence: u64,
    reading: &Reading<'_>,
    event: Option<&'static str>,
    path: Option<&[String]>,
) {
    let text = std::str::from_utf8(reading.payload).ok();
    let line = Line {
        event,
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
        path,
    };
    serde_json::to_writer(&mut *out, &line).expect("writing JSON to memory cannot fail");
    out.push(b'\n');
}

/// A record of readings that will not come.
#[derive(Serialize)]
struct GapLine<'a> {
    id: String,
    event: &'static str,
    gateway: &'a str,
    class: &'static str,
    reason: &'static str,
    first: u64,
    last: u64,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured_to: Option<String>,
}

/// Appends the record that `gap` from sequence `first` on is missing as one line; sequences before `first` are known already.
pub(crate) fn gap_line(out: &mut Vec<u8>, gap: &Gap, first: u64) {
    let line = GapLine {
        id: gap.source.gap_id(first, gap.last),
        event: "gap",
        gateway: &gap.source.name,
        class: class(gap.class),
        reason: gap.reason.word(),
        first,
        last: gap.last,
        count: gap.last - first + 1,
        captured_from: gap.captured.map(|(from, _)| rfc3339(from)),
        captured_to: gap.captured.map(|(_, to)| rfc3339(to)),
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

/// Returns the source and the last sequence of a line that [`line()`] or [`gap_line()`] wrote, from its id.
pub(crate) fn id_of(line: &[u8]) -> Option<(super::positions::SourceKey, u64)> {
    let id = line.strip_prefix(b"{\"id\":\"")?;
    let id = std::str::from_utf8(id.split(|byte| *byte == b'"').next()?).ok()?;
    let mut parts = id.split('/');
    let key = super::positions::parse_key(parts.next()?, parts.next()?)?;
    let sequences = parts.next()?;
    let last = sequences.rsplit('-').next()?;
    let sequence = last.parse().ok()?;
    Some((key, sequence))
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
