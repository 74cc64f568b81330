//! The will of a connected client (MQTT 5.0 §3.1.2.5).

use fieldgate_adapters::{
    ingest::Ingest,
    reading::{CONTENT_TYPE_LEN_MAX, Reading, USER_PROPERTIES_MAX, UserProperties},
};

use crate::{
    packet::{Qos, connect::Will},
    property::Property,
    reason::ReasonCode,
    version::ProtocolVersion,
};

/// A will that waits for the end of its connection.
///
/// A session lives no longer than its connection, so the will delay interval never delays: the will is due at the end of
/// the session or after the delay, whichever comes first (`[MQTT-3.1.3-9]`).
#[derive(Clone, Debug)]
pub(super) struct StoredWill {
    topic: Box<str>,
    payload: Box<[u8]>,
    content_type: Option<Box<str>>,
    user_properties: Box<[(Box<str>, Box<str>)]>,
}

impl StoredWill {
    /// Copies a will, or says why it can never be published.
    pub(super) fn new(will: &Will<'_>, version: ProtocolVersion) -> Result<Self, ReasonCode> {
        if version == ProtocolVersion::V5 && will.qos == Qos::ExactlyOnce {
            return Err(ReasonCode::QosNotSupported);
        }
        if version == ProtocolVersion::V5 && will.retain {
            return Err(ReasonCode::RetainNotSupported);
        }
        let mut content_type = None;
        let mut user_properties = Vec::new();
        for property in will.properties.iter() {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "the other properties say nothing about the reading"
            )]
            match property {
                Property::ContentType(text) => content_type = Some(text),
                Property::UserProperty((name, value)) => user_properties.push((name.into(), value.into())),
                Property::PayloadFormatIndicator(true) if std::str::from_utf8(will.payload).is_err() => {
                    return Err(ReasonCode::PayloadFormatInvalid);
                }
                _ => {}
            }
        }
        let content_type_len = content_type.map_or(0, str::len);
        if content_type_len > CONTENT_TYPE_LEN_MAX || user_properties.len() > USER_PROPERTIES_MAX {
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(Self {
            topic: will.topic.into(),
            payload: will.payload.into(),
            content_type: content_type.map(Into::into),
            user_properties: user_properties.into(),
        })
    }

    pub(super) const fn topic(&self) -> &str {
        &self.topic
    }

    /// Puts the will into the journal; says whether it was taken.
    pub(super) fn publish(&self, like: &Reading<'_>, ingest: &mut dyn Ingest) -> bool {
        let pairs: Vec<(&str, &str)> = self
            .user_properties
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let reading = Reading {
            resource: &self.topic,
            content_type: self.content_type.as_deref(),
            user_properties: UserProperties::from_pairs(&pairs),
            payload: &self.payload,
            ..*like
        };
        ingest.publish(&reading).is_ok()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let pairs: usize = self
            .user_properties
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let content_type = self.content_type.as_ref().map_or(0, |text| text.len());
        size_of::<Self>() + self.topic.len() + self.payload.len() + content_type + pairs
    }
}
