//! SUBACK and UNSUBACK (MQTT 5.0 §3.9, §3.11, MQTT 3.1.1 §3.9, §3.11).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use fieldgate_proto::wire::Reader;

use super::{PacketIdentifier, reason_among};
use crate::{
    encode::{EncodeError, put_packet},
    field::packet_identifier,
    frame::PacketType,
    property::{Properties, PropertySite},
    reason::ReasonCode,
    version::ProtocolVersion,
    violation::Violation,
};

/// The answer to SUBSCRIBE: one reason code for each topic filter, in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The packet identifier of the SUBSCRIBE.
    pub packet_id: PacketIdentifier,
    /// Properties; empty in MQTT 3.1.1.
    pub properties: Properties<'a>,
    /// What became of each topic filter.
    pub reasons: Reasons<'a>,
}

/// The answer to UNSUBSCRIBE: in MQTT 5.0 one reason code for each topic filter, in MQTT 3.1.1 none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// The packet identifier of the UNSUBSCRIBE.
    pub packet_id: PacketIdentifier,
    /// Properties; empty in MQTT 3.1.1.
    pub properties: Properties<'a>,
    /// What became of each topic filter; empty in MQTT 3.1.1.
    pub reasons: Reasons<'a>,
}

impl<'a> SubAck<'a> {
    /// Reads the packet's body.
    ///
    /// # Errors
    /// [`Violation`] if the bytes break a rule of §3.9.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let packet_id = packet_identifier(&mut reader)?;
        let properties = Properties::take_for(&mut reader, version, PropertySite::SubAck)?;
        let reasons = Reasons::decode(reader.rest(), suback_reasons(version))?;
        Ok(Self {
            packet_id,
            properties,
            reasons,
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] if a rule of the standard would be broken; `out` is then unchanged.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_packet(out, PacketType::SubAck.first_byte(), |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            self.properties.put_for(out, version, PropertySite::SubAck)?;
            self.reasons.put(out, suback_reasons(version))
        })
    }
}

impl<'a> UnsubAck<'a> {
    /// Reads the packet's body.
    ///
    /// # Errors
    /// [`Violation`] if the bytes break a rule of §3.11.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let packet_id = packet_identifier(&mut reader)?;
        let properties = Properties::take_for(&mut reader, version, PropertySite::UnsubAck)?;
        let reasons = match version {
            ProtocolVersion::V311 => {
                reader.finish()?;
                Reasons::EMPTY
            }
            ProtocolVersion::V5 => Reasons::decode(reader.rest(), &UNSUBACK_REASONS)?,
        };
        Ok(Self {
            packet_id,
            properties,
            reasons,
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] if a rule of the standard would be broken; `out` is then unchanged.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version == ProtocolVersion::V311 && self.reasons != Reasons::EMPTY {
            return Err(EncodeError::Rule {
                what: "UNSUBACK of MQTT 3.1.1 has no payload (3.1.1 §3.11.3)",
            });
        }
        put_packet(out, PacketType::UnsubAck.first_byte(), |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            self.properties.put_for(out, version, PropertySite::UnsubAck)?;
            match version {
                ProtocolVersion::V311 => Ok(()),
                ProtocolVersion::V5 => self.reasons.put(out, &UNSUBACK_REASONS),
            }
        })
    }
}

/// Reason codes of SUBACK or UNSUBACK: a list, or the bytes of a packet that was read.
#[derive(Clone, Copy)]
pub struct Reasons<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    List(&'a [ReasonCode]),
    /// Invariant: every byte is a reason code.
    Encoded(&'a [u8]),
}

impl<'a> Reasons<'a> {
    /// No reason codes.
    pub const EMPTY: Self = Self(Source::List(&[]));

    /// Wraps `list`.
    #[must_use]
    pub const fn from_list(list: &'a [ReasonCode]) -> Self {
        Self(Source::List(list))
    }

    /// Returns the reason codes in their order.
    pub fn iter(&self) -> impl Iterator<Item = ReasonCode> + 'a {
        let (list, bytes) = match self.0 {
            Source::List(list) => (list, [].as_slice()),
            Source::Encoded(bytes) => ([].as_slice(), bytes),
        };
        list.iter()
            .copied()
            .chain(bytes.iter().filter_map(|code| ReasonCode::from_code(*code)))
    }

    fn decode(bytes: &'a [u8], allowed: &[ReasonCode]) -> Result<Self, Violation> {
        if bytes.is_empty() {
            return Err(Violation::malformed(
                "an acknowledgement has no reason code ([MQTT-3.8.4-6], [MQTT-3.11.3-1])",
            ));
        }
        for code in bytes {
            reason_among(*code, allowed)?;
        }
        Ok(Self(Source::Encoded(bytes)))
    }

    fn put(&self, out: &mut Vec<u8>, allowed: &[ReasonCode]) -> Result<(), EncodeError> {
        let before = out.len();
        for reason in self.iter() {
            if !allowed.contains(&reason) {
                return Err(EncodeError::Rule {
                    what: "the reason code is not one of this packet's (§3.9.3, §3.11.3)",
                });
            }
            out.push(reason.code());
        }
        if out.len() == before {
            return Err(EncodeError::Rule {
                what: "an acknowledgement has no reason code ([MQTT-3.8.4-6])",
            });
        }
        Ok(())
    }
}

impl PartialEq for Reasons<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Reasons<'_> {}

impl fmt::Debug for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

const fn suback_reasons(version: ProtocolVersion) -> &'static [ReasonCode] {
    match version {
        ProtocolVersion::V311 => &SUBACK_REASONS_311,
        ProtocolVersion::V5 => &SUBACK_REASONS,
    }
}

/// Return codes of SUBACK in MQTT 3.1.1 (§3.9.3).
pub const SUBACK_REASONS_311: [ReasonCode; 4] = [
    ReasonCode::Success,
    ReasonCode::GrantedQos1,
    ReasonCode::GrantedQos2,
    ReasonCode::UnspecifiedError,
];
/// Reason codes of SUBACK (MQTT 5.0 §3.9.3, table 3-8).
pub const SUBACK_REASONS: [ReasonCode; 12] = [
    ReasonCode::Success,
    ReasonCode::GrantedQos1,
    ReasonCode::GrantedQos2,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::PacketIdentifierInUse,
    ReasonCode::QuotaExceeded,
    ReasonCode::SharedSubscriptionsNotSupported,
    ReasonCode::SubscriptionIdentifiersNotSupported,
    ReasonCode::WildcardSubscriptionsNotSupported,
];
/// Reason codes of UNSUBACK (MQTT 5.0 §3.11.3, table 3-9).
pub const UNSUBACK_REASONS: [ReasonCode; 7] = [
    ReasonCode::Success,
    ReasonCode::NoSubscriptionExisted,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::PacketIdentifierInUse,
];
