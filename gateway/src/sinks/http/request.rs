//! A request of the HTTP sink: which readings it holds, and what it looks like.

use std::io::Write as _;

use fieldgate_config::settings::sink::{Format, HttpSink as Settings, Output};
use flate2::{Compression, write::GzEncoder};

use crate::sinks::{
    Delivery, Source,
    item::{Item, Tally},
    output::body_into,
};

/// A range of one source as it is posted.
pub(crate) struct Request {
    /// First sequence.
    pub(crate) first: u64,
    /// Last sequence.
    pub(crate) last: u64,
    /// Records in the body.
    pub(crate) records: usize,
    /// What counts when the server has it.
    pub(crate) tally: Tally,
    /// The body before compression; empty if no reading of the range decodes.
    pub(crate) body: Vec<u8>,
}

/// How far a request may reach.
pub(crate) struct Bounds {
    /// Records, at the most.
    pub(crate) count_max: usize,
    /// Bytes of the body, at the most, unless one record has more.
    pub(crate) bytes_max: usize,
    /// Sequence it must not go beyond.
    pub(crate) last_max: u64,
}

impl Request {
    /// Takes what follows sequence `known` from the deliveries of one source, in order; `None` if there is nothing.
    ///
    /// A record of missing readings goes by itself: its range may be cut in another way the next time, and then has another key.
    pub(crate) fn cut<'d>(
        output: &Output,
        deliveries: impl Iterator<Item = &'d Delivery>,
        known: u64,
        bounds: &Bounds,
    ) -> Option<Self> {
        let mut request = Self {
            first: 0,
            last: 0,
            records: 0,
            tally: Tally::NOTHING,
            body: Vec::new(),
        };
        let is_array = output.format != Format::Cbor;
        let mut record = Vec::new();
        let mut next_known = known;
        for delivery in deliveries {
            for item in delivery.items(next_known) {
                let is_gap = matches!(item, Item::Gap { .. });
                let is_first = request.first == 0;
                if !is_first && (is_gap || item.last() > bounds.last_max) {
                    return Some(request.finish(is_array));
                }
                record.clear();
                body_into(output, &mut record, &item);
                let is_written = !matches!(item, Item::Undecodable { .. });
                let is_full = request.records >= bounds.count_max
                    || request.body.len() + record.len() + FRAME_BYTES > bounds.bytes_max;
                if is_written && request.records > 0 && is_full {
                    return Some(request.finish(is_array));
                }
                if is_written {
                    if is_array {
                        request.body.push(if request.records == 0 { b'[' } else { b',' });
                    }
                    request.body.extend_from_slice(&record);
                    request.records += 1;
                }
                if is_first {
                    request.first = item.first();
                }
                request.last = item.last();
                request.tally.add(item.tally());
                if is_gap {
                    return Some(request.finish(is_array));
                }
            }
            next_known = next_known.max(delivery.last());
        }
        (request.first > 0).then(|| request.finish(is_array))
    }

    fn finish(mut self, is_array: bool) -> Self {
        if is_array && self.records > 0 {
            self.body.push(b']');
        }
        self
    }

    /// Returns the idempotency key: source and range (draft-ietf-httpapi-idempotency-key-header, §2.1: a string item of
    /// RFC 8941, in quotes).
    pub(crate) fn key(&self, source: &Source) -> String {
        format!("\"{}\"", source.gap_id(self.first, self.last))
    }
}

/// Returns the media type of bodies.
pub(crate) const fn media_type(format: Format) -> &'static str {
    match format {
        // CloudEvents 1.0, JSON Event Format §4.
        Format::CloudEvents => "application/cloudevents-batch+json",
        // RFC 8742 §6.
        Format::Cbor => "application/cbor-seq",
        Format::Json | Format::Raw => "application/json",
    }
}

/// Compresses a body, if the settings say so.
pub(crate) fn encode(settings: &Settings, body: &[u8]) -> Vec<u8> {
    if !settings.gzip {
        return body.to_vec();
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .expect("compressing in memory cannot fail")
}

/// Bytes of a body beside its records, and between two.
const FRAME_BYTES: usize = 2;

#[cfg(test)]
mod tests;
