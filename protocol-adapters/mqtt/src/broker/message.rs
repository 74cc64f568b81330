//! A message that the broker keeps, and its form in the store.

use std::fmt;

use fieldgate_adapters::reading::{Reading, UserProperties};
use fieldgate_proto::{
    time::{Instant, Now},
    wire::{Reader, WireError, put_bytes_varint, put_varint},
};

use super::age::{Age, Stamp};
use crate::{exchange::Publication, packet::Qos};

/// A message for subscribers. `Debug` does not show the payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Name of the device that published it.
    pub device: Box<str>,
    /// The topic.
    pub topic: Box<str>,
    /// The message itself.
    pub payload: Box<[u8]>,
    /// How surely it came.
    pub qos: Qos,
    /// Whether it was to be retained.
    pub retain: bool,
    /// Whether the payload is said to be UTF-8 text.
    pub payload_is_text: bool,
    /// MIME type of the payload.
    pub content_type: Option<Box<str>>,
    /// Topic for a response.
    pub response_topic: Option<Box<str>>,
    /// What the response shall carry.
    pub correlation_data: Option<Box<[u8]>>,
    /// Names and values.
    pub user_properties: Box<[(Box<str>, Box<str>)]>,
    /// From when on it is worth nothing.
    pub expires_at: Option<Instant>,
}

impl Message {
    /// Copies a publication that came at `now`.
    #[must_use]
    pub fn new(publication: &Publication<'_>, now: Instant) -> Self {
        let Publication { reading, envelope } = publication;
        Self {
            device: reading.device.into(),
            topic: reading.resource.into(),
            payload: reading.payload.into(),
            qos: envelope.qos,
            retain: envelope.retain,
            payload_is_text: envelope.payload_is_text,
            content_type: reading.content_type.map(Into::into),
            response_topic: envelope.response_topic.map(Into::into),
            correlation_data: envelope.correlation_data.map(Into::into),
            user_properties: reading
                .user_properties
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            expires_at: envelope
                .expiry_secs
                .map(|secs| now + std::time::Duration::from_secs(secs.into())),
        }
    }

    /// Calls `take` with the message as a reading like `like`.
    pub fn as_reading<T>(&self, like: &Reading<'_>, take: impl FnOnce(&Reading<'_>) -> T) -> T {
        let pairs: Vec<(&str, &str)> = self
            .user_properties
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        take(&Reading {
            device: &self.device,
            resource: &self.topic,
            content_type: self.content_type.as_deref(),
            user_properties: UserProperties::from_pairs(&pairs),
            payload: &self.payload,
            ..*like
        })
    }

    /// Returns whether it is worth nothing any more.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Returns the seconds it is still worth something, begun ones counted whole (`[MQTT-3.3.2-6]`); `None` for ever.
    #[must_use]
    pub fn expiry_secs(&self, now: Instant) -> Option<u32> {
        let left = self.expires_at?.saturating_since(now);
        let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Some(u32::try_from(secs).unwrap_or(u32::MAX))
    }

    /// Returns the bytes of memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let pairs: usize = self
            .user_properties
            .iter()
            .map(|(name, value)| name.len() + value.len() + size_of::<(Box<str>, Box<str>)>())
            .sum();
        size_of::<Self>()
            + self.device.len()
            + self.topic.len()
            + self.payload.len()
            + self.content_type.as_ref().map_or(0, |text| text.len())
            + self.response_topic.as_ref().map_or(0, |text| text.len())
            + self.correlation_data.as_ref().map_or(0, |bytes| bytes.len())
            + pairs
    }

    /// Appends the form of the store to `out`.
    pub(super) fn encode(&self, now: Now, out: &mut Vec<u8>) {
        let flags = self.qos.code()
            | u8::from(self.retain) << 2
            | u8::from(self.payload_is_text) << 3
            | u8::from(self.content_type.is_some()) << 4
            | u8::from(self.response_topic.is_some()) << 5
            | u8::from(self.correlation_data.is_some()) << 6
            | u8::from(self.expires_at.is_some()) << 7;
        out.push(flags);
        if let Some(secs) = self.expiry_secs(now.instant) {
            put_varint(out, secs.into());
            Stamp::of(now.wall).encode(out);
        }
        put_bytes_varint(out, self.device.as_bytes());
        put_bytes_varint(out, self.topic.as_bytes());
        for text in [&self.content_type, &self.response_topic].into_iter().flatten() {
            put_bytes_varint(out, text.as_bytes());
        }
        if let Some(bytes) = &self.correlation_data {
            put_bytes_varint(out, bytes);
        }
        put_varint(out, self.user_properties.len() as u64);
        for (name, value) in &self.user_properties {
            put_bytes_varint(out, name.as_bytes());
            put_bytes_varint(out, value.as_bytes());
        }
        put_bytes_varint(out, &self.payload);
    }

    /// Reads the form of the store; `age` says how long it lay there.
    pub(super) fn decode(reader: &mut Reader<'_>, age: &Age) -> Result<Self, WireError> {
        let flags = reader.u8("flags of a message")?;
        let qos = Qos::from_code(flags & 0b11).ok_or_else(|| WireError::Value {
            field: "QoS of a message",
            value: u64::from(flags),
        })?;
        let has = |bit: u8| flags & 1 << bit != 0;
        let expires_at = if has(7) {
            let secs = reader.varint("expiry of a message")?;
            let stamp = Stamp::decode(reader)?;
            Some(age.deadline(stamp, secs))
        } else {
            None
        };
        let device = text(reader)?;
        let topic = text(reader)?;
        let content_type = has(4).then(|| text(reader)).transpose()?;
        let response_topic = has(5).then(|| text(reader)).transpose()?;
        let correlation_data = has(6)
            .then(|| reader.bytes_varint("correlation data").map(Into::into))
            .transpose()?;
        let count = reader.varint("number of user properties")?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            pairs.push((text(reader)?, text(reader)?));
        }
        Ok(Self {
            device,
            topic,
            payload: reader.bytes_varint("payload")?.into(),
            qos,
            retain: has(2),
            payload_is_text: has(3),
            content_type,
            response_topic,
            correlation_data,
            user_properties: pairs.into(),
            expires_at,
        })
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("device", &self.device)
            .field("topic", &self.topic)
            .field("payload_len", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Takes a text behind its length.
pub(super) fn text(reader: &mut Reader<'_>) -> Result<Box<str>, WireError> {
    let field = "text in the store";
    std::str::from_utf8(reader.bytes_varint(field)?)
        .map(Into::into)
        .map_err(|_| WireError::Utf8 { field })
}
