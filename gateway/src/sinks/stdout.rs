//! The sink that prints.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use fieldgate_adapters::reading::Reading;
use fieldgate_config::settings::sink::{Format, Output};

use super::{
    Confirm, SinkHandle, Source,
    item::Item,
    json,
    lines::{self, Target},
    output::body_into,
    positions::Positions,
    stats::SinkStats,
    writers::Writing,
};

/// How a printed reading looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As the settings say.
    Lines,
    /// As an event, with the path.
    Events,
    /// For people.
    Pretty,
}

/// Starts a sink that prints to standard output.
///
/// # Errors
/// If the system gives no thread.
pub(crate) fn spawn(
    index: usize,
    style: Style,
    output: Output,
    confirm: Confirm,
    writing: Writing,
) -> io::Result<SinkHandle> {
    lines::spawn(
        index,
        "standard output".to_owned(),
        Stdout { style, output },
        Positions::forgetful(),
        confirm,
        Arc::new(SinkStats::new()),
        writing,
    )
}

struct Stdout {
    style: Style,
    output: Output,
}

impl Target for Stdout {
    fn write_item(&self, out: &mut Vec<u8>, item: &Item<'_>) {
        match (self.style, item) {
            (_, Item::Undecodable { .. }) => {}
            (
                Style::Events,
                Item::Reading {
                    source,
                    sequence,
                    reading,
                },
            ) => json::event(out, source, *sequence, reading),
            (Style::Pretty, Item::Reading { source, reading, .. }) => pretty(out, source, reading),
            (Style::Pretty, Item::Gap { gap, first, last }) => {
                // Writing to memory cannot fail.
                let _ = writeln!(
                    out,
                    "{} {} readings of {} are missing: {}",
                    last - first + 1,
                    json::class(gap.class),
                    gap.source.name,
                    gap.reason.word()
                );
            }
            (Style::Lines | Style::Events, _) => {
                body_into(&self.output, out, item);
                if self.output.format != Format::Cbor {
                    out.push(b'\n');
                }
            }
        }
    }

    fn put(&mut self, records: Vec<u8>) -> (Vec<u8>, Result<(), String>) {
        let mut out = io::stdout().lock();
        let result = out.write_all(&records).and_then(|()| out.flush());
        (records, result.map_err(|error| error.to_string()))
    }

    fn tend(&mut self, _: &mut Positions, _: usize) {}

    fn due_in(&self) -> Option<Duration> {
        None
    }
}

/// Writes a reading for people: time, device, resource, payload, path.
fn pretty(out: &mut Vec<u8>, source: &Source, reading: &Reading<'_>) {
    let time = json::rfc3339(reading.captured_at.unix_millis);
    let time = time.get(11..23).unwrap_or_default();
    let payload = match std::str::from_utf8(reading.payload) {
        Ok(text) => text
            .chars()
            .take(120)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
        Err(_) => format!("{} bytes", reading.payload.len()),
    };
    // Writing to memory cannot fail.
    let _ = writeln!(
        out,
        "{time}  {}  {} = {payload}   [{}]",
        reading.device,
        reading.resource,
        source.path.join(" → ")
    );
}
