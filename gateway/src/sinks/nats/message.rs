//! A reading as a message of NATS: subject, headers, payload.

use async_nats::{HeaderMap, HeaderValue};
use fieldgate_config::settings::sink::{Format, Output};

use crate::sinks::{
    item::Item,
    json,
    output::{body_into, content_type, topic_into},
};

/// A message for a stream.
pub(crate) struct Message {
    /// Subject.
    pub(crate) subject: String,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Payload.
    pub(crate) payload: Vec<u8>,
}

impl Message {
    /// Makes the message of an item for `stream`.
    pub(crate) fn new(output: &Output, stream: &str, item: &Item<'_>) -> Self {
        let mut topic = String::new();
        topic_into(output, &mut topic, item);
        let mut payload = Vec::new();
        body_into(output, &mut payload, item);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", item.id().as_str());
        headers.insert("Nats-Expected-Stream", stream);
        headers.insert("Fieldgate-Class", json::class(item.class()));
        let mut given = None;
        if let Item::Reading { reading, .. } = item {
            given = reading.content_type;
            headers.insert(
                "Fieldgate-Captured-At",
                json::rfc3339(reading.captured_at.unix_millis).as_str(),
            );
            headers.insert(
                "Fieldgate-Time-Quality",
                json::quality(reading.captured_at.quality),
            );
            for (name, text) in reading.user_properties.iter() {
                // Devices say what they like; what a header cannot hold is left out.
                if let (true, Some(value)) = (is_header_name(name), header_value(text)) {
                    headers.append(format!("Fieldgate-Property-{name}").as_str(), value);
                }
            }
        }
        if let Some(value) = content_type(output, item).or(given).and_then(header_value) {
            headers.insert("Content-Type", value);
        }
        if output.format == Format::Raw {
            for (name, text) in &output.set {
                if let Some(value) = header_value(text) {
                    headers.insert(name.as_str(), value);
                }
            }
        }
        Self {
            subject: subject(&topic),
            headers,
            payload,
        }
    }
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

fn header_value(text: &str) -> Option<HeaderValue> {
    text.parse().ok()
}

/// Makes a subject of a topic: `/` becomes `.`, and what a token cannot have becomes `_`.
pub(crate) fn subject(topic: &str) -> String {
    let mut subject = String::with_capacity(topic.len());
    for (index, level) in topic.split('/').enumerate() {
        if index > 0 {
            subject.push('.');
        }
        if level.is_empty() {
            subject.push('_');
        }
        subject.extend(level.chars().map(|c| match c {
            '.' | '*' | '>' => '_',
            c if c.is_whitespace() || c.is_control() => '_',
            c => c,
        }));
    }
    subject
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn topics_become_subjects() {
        assert_eq!(subject("plant/hall 3/temp.1"), "plant.hall_3.temp_1");
        assert_eq!(subject("plant//x/"), "plant._.x._");
        assert_eq!(subject("plant/*/>"), "plant._._");
        assert_eq!(subject("plant/$gap/bulk"), "plant.$gap.bulk");
    }

    proptest! {
        #[test]
        fn every_subject_has_as_many_whole_tokens_as_its_topic_has_levels(topic in "[a-c/.*> \\t\\PC]{1,40}") {
            let subject = subject(&topic);
            let tokens: Vec<&str> = subject.split('.').collect();
            prop_assert_eq!(tokens.len(), topic.split('/').count());
            let is_whole = |token: &&str| !token.is_empty() && !token.contains(['*', '>', ' ', '\t', '\n', '\r']);
            prop_assert!(tokens.iter().all(is_whole));
        }
    }
}
