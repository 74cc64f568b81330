//! PUBLISH (MQTT 5.0 §3.3, MQTT 3.1.1 §3.3).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use fieldgate_proto::wire::Reader;

use super::{PacketIdentifier, Qos};
use crate::{
    encode::{EncodeError, put_packet},
    field::{check_topic_name, packet_identifier, put_string, string},
    frame::PacketType,
    property::{Properties, Property, PropertySite},
    version::ProtocolVersion,
    violation::Violation,
};

/// A message. `Debug` does not show the payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// How surely it arrives.
    pub qos: Qos,
    /// Whether the server keeps it for later subscribers.
    pub retain: bool,
    /// The topic; in MQTT 5.0 it may be empty if a topic alias stands for it.
    pub topic: &'a str,
    /// The packet identifier; there exactly if the QoS is not 0.
    pub packet_id: Option<PacketIdentifier>,
    /// Properties; empty in MQTT 3.1.1.
    pub properties: Properties<'a>,
    /// The message itself.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// Reads the packet from the flags of its first byte and its body.
    ///
    /// # Errors
    /// [`Violation`] if the bytes break a rule of §3.3.
    pub fn decode(flags: u8, body: &'a [u8], version: ProtocolVersion) -> Result<Self, Violation> {
        let (dup, retain) = (flags & FLAG_DUP != 0, flags & FLAG_RETAIN != 0);
        let qos = Qos::from_code(flags >> QOS_SHIFT & QOS_MASK)
            .ok_or(Violation::malformed("both QoS bits are set ([MQTT-3.3.1-4])"))?;
        if dup && qos == Qos::AtMostOnce {
            return Err(Violation::malformed("DUP is set at QoS 0 ([MQTT-3.3.1-2])"));
        }
        let mut reader = Reader::new(body);
        let topic = string(&mut reader, "topic name")?;
        if !(topic.is_empty() && version == ProtocolVersion::V5) {
            check_topic_name(topic)?;
        }
        let packet_id = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce | Qos::ExactlyOnce => Some(packet_identifier(&mut reader)?),
        };
        let properties = Properties::take_for(&mut reader, version, PropertySite::Publish)?;
        if topic.is_empty() && !has_alias(&properties) {
            return Err(Violation::protocol(
                "the topic name is empty and no topic alias is there (§3.3.2.1)",
            ));
        }
        Ok(Self {
            dup,
            qos,
            retain,
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] if a field is too long or a rule of the standard would be broken; `out` is then unchanged.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let by_alias = self.topic.is_empty() && version == ProtocolVersion::V5 && has_alias(&self.properties);
        if !by_alias && check_topic_name(self.topic).is_err() {
            return Err(EncodeError::Rule {
                what: "the topic is no topic name ([MQTT-3.3.2-2], [MQTT-4.7.3-1])",
            });
        }
        if self.dup && self.qos == Qos::AtMostOnce {
            return Err(EncodeError::Rule {
                what: "DUP is set at QoS 0 ([MQTT-3.3.1-2])",
            });
        }
        if (self.qos == Qos::AtMostOnce) != self.packet_id.is_none() {
            return Err(EncodeError::Rule {
                what: "packet identifier and QoS do not agree ([MQTT-2.2.1-2])",
            });
        }
        let flags = self.qos.code() << QOS_SHIFT
            | if self.dup { FLAG_DUP } else { 0 }
            | if self.retain { FLAG_RETAIN } else { 0 };
        put_packet(out, PacketType::Publish.first_byte() | flags, |out| {
            put_string(out, "topic name", self.topic)?;
            if let Some(packet_id) = self.packet_id {
                out.extend_from_slice(&packet_id.get().to_be_bytes());
            }
            self.properties.put_for(out, version, PropertySite::Publish)?;
            out.extend_from_slice(self.payload);
            Ok(())
        })
    }
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("dup", &self.dup)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("topic", &self.topic)
            .field("packet_id", &self.packet_id)
            .field("properties", &self.properties)
            .field("payload_len", &self.payload.len())
            .finish()
    }
}

const FLAG_RETAIN: u8 = 1;
const QOS_SHIFT: u8 = 1;
const QOS_MASK: u8 = 0b11;
const FLAG_DUP: u8 = 1 << 3;

fn has_alias(properties: &Properties<'_>) -> bool {
    properties
        .iter()
        .any(|property| matches!(property, Property::TopicAlias(_)))
}
