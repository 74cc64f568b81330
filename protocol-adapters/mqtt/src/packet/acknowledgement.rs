//! PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 5.0 §3.4 to §3.7, MQTT 3.1.1 §3.4 to §3.7).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use fieldgate_proto::wire::Reader;

use super::{PacketIdentifier, put_optional_reason, take_optional_reason};
use crate::{
    encode::{EncodeError, put_packet},
    field::packet_identifier,
    frame::PacketType,
    property::{Properties, PropertySite},
    reason::ReasonCode,
    version::ProtocolVersion,
    violation::Violation,
};

/// An answer to a message, or to another answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement<'a> {
    /// The packet identifier of the message.
    pub packet_id: PacketIdentifier,
    /// What became of it; always success in MQTT 3.1.1.
    pub reason: ReasonCode,
    /// Properties; empty in MQTT 3.1.1.
    pub properties: Properties<'a>,
}

/// Which of the four packets an acknowledgement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AcknowledgementKind {
    /// The answer to a message at QoS 1.
    PubAck,
    /// The first answer to a message at QoS 2.
    PubRec,
    /// The release of a message at QoS 2.
    PubRel,
    /// The last answer to a message at QoS 2.
    PubComp,
}

impl AcknowledgementKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::PubAck, Self::PubRec, Self::PubRel, Self::PubComp];

    /// Returns the type of the packet.
    #[must_use]
    pub const fn packet_type(self) -> PacketType {
        match self {
            Self::PubAck => PacketType::PubAck,
            Self::PubRec => PacketType::PubRec,
            Self::PubRel => PacketType::PubRel,
            Self::PubComp => PacketType::PubComp,
        }
    }

    /// Returns the reason codes of the packet (MQTT 5.0 tables 3-4 to 3-7).
    #[must_use]
    pub const fn reasons(self) -> &'static [ReasonCode] {
        match self {
            Self::PubAck | Self::PubRec => &MESSAGE_REASONS,
            Self::PubRel | Self::PubComp => &RELEASE_REASONS,
        }
    }

    const fn site(self) -> PropertySite {
        match self {
            Self::PubAck => PropertySite::PubAck,
            Self::PubRec => PropertySite::PubRec,
            Self::PubRel => PropertySite::PubRel,
            Self::PubComp => PropertySite::PubComp,
        }
    }
}

impl<'a> Acknowledgement<'a> {
    /// Reads the packet's body.
    ///
    /// # Errors
    /// [`Violation`] if the bytes break a rule of §3.4 to §3.7.
    pub fn decode(
        body: &'a [u8],
        version: ProtocolVersion,
        kind: AcknowledgementKind,
    ) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let packet_id = packet_identifier(&mut reader)?;
        let (reason, properties) = match version {
            ProtocolVersion::V311 => {
                reader.finish()?;
                (ReasonCode::Success, Properties::EMPTY)
            }
            ProtocolVersion::V5 => take_optional_reason(reader, kind.site(), kind.reasons())?,
        };
        Ok(Self {
            packet_id,
            reason,
            properties,
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] if a rule of the standard would be broken; `out` is then unchanged.
    pub fn encode(
        &self,
        version: ProtocolVersion,
        kind: AcknowledgementKind,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let plain = self.reason == ReasonCode::Success && self.properties.is_empty();
        if version == ProtocolVersion::V311 && !plain || !kind.reasons().contains(&self.reason) {
            return Err(EncodeError::Rule {
                what: "the reason code is not one of this packet's (§3.4.2.1)",
            });
        }
        put_packet(out, kind.packet_type().first_byte(), |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            put_optional_reason(out, kind.site(), self.reason, &self.properties)
        })
    }
}

const MESSAGE_REASONS: [ReasonCode; 9] = [
    ReasonCode::Success,
    ReasonCode::NoMatchingSubscribers,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketIdentifierInUse,
    ReasonCode::QuotaExceeded,
    ReasonCode::PayloadFormatInvalid,
];
const RELEASE_REASONS: [ReasonCode; 2] = [ReasonCode::Success, ReasonCode::PacketIdentifierNotFound];
