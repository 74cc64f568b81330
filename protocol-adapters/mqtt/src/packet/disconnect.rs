//! DISCONNECT and AUTH (MQTT 5.0 §3.14, §3.15, MQTT 3.1.1 §3.14).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use fieldgate_proto::wire::Reader;

use super::{put_optional_reason, take_optional_reason};
use crate::{
    encode::{EncodeError, put_packet},
    frame::PacketType,
    property::{Properties, PropertySite},
    reason::ReasonCode,
    version::ProtocolVersion,
    violation::Violation,
};

/// One side leaves; in MQTT 3.1.1 only the client says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why; always success in MQTT 3.1.1.
    pub reason: ReasonCode,
    /// Properties; empty in MQTT 3.1.1.
    pub properties: Properties<'a>,
}

/// A step of an extended authentication; MQTT 5.0 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Which step.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    /// Reads the packet's body.
    ///
    /// # Errors
    /// [`Violation`] if the bytes break a rule of §3.14.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, Violation> {
        let reader = Reader::new(body);
        let (reason, properties) = match version {
            ProtocolVersion::V311 => {
                reader.finish()?;
                (ReasonCode::Success, Properties::EMPTY)
            }
            ProtocolVersion::V5 => {
                take_optional_reason(reader, PropertySite::Disconnect, &DISCONNECT_REASONS)?
            }
        };
        Ok(Self { reason, properties })
    }

    /// Returns what a server says in DISCONNECT for `reason`: itself, or that it was a protocol error where DISCONNECT has no word
    /// for it (a second CONNECT may break rules that only CONNACK can name, MQTT 5.0 §3.1.0-2).
    #[must_use]
    pub fn reason_for(reason: ReasonCode) -> ReasonCode {
        if DISCONNECT_REASONS.contains(&reason) {
            reason
        } else {
            ReasonCode::ProtocolError
        }
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] if a rule of the standard would be broken; `out` is then unchanged.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let plain = self.reason == ReasonCode::Success && self.properties.is_empty();
        if version == ProtocolVersion::V311 && !plain || !DISCONNECT_REASONS.contains(&self.reason) {
            return Err(EncodeError::Rule {
                what: "the reason code is not one of DISCONNECT (§3.14.2.1)",
            });
        }
        put_packet(out, PacketType::Disconnect.first_byte(), |out| {
            put_optional_reason(out, PropertySite::Disconnect, self.reason, &self.properties)
        })
    }
}

impl<'a> Auth<'a> {
    /// Reads the packet's body.
    ///
    /// # Errors
    /// [`Violation`] if the bytes break a rule of §3.15, or the version has no AUTH.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, Violation> {
        if version == ProtocolVersion::V311 {
            return Err(Violation::malformed("packet type 15 is forbidden (3.1.1 §2.2.1)"));
        }
        let (reason, properties) =
            take_optional_reason(Reader::new(body), PropertySite::Auth, &AUTH_REASONS)?;
        Ok(Self { reason, properties })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] if a rule of the standard would be broken; `out` is then unchanged.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version == ProtocolVersion::V311 || !AUTH_REASONS.contains(&self.reason) {
            return Err(EncodeError::Rule {
                what: "the reason code is not one of AUTH (§3.15.2.1)",
            });
        }
        put_packet(out, PacketType::Auth.first_byte(), |out| {
            put_optional_reason(out, PropertySite::Auth, self.reason, &self.properties)
        })
    }
}

/// Reason codes of DISCONNECT (MQTT 5.0 §3.14.2.1, table 3-10).
pub const DISCONNECT_REASONS: [ReasonCode; 29] = [
    ReasonCode::Success,
    ReasonCode::DisconnectWithWill,
    ReasonCode::UnspecifiedError,
    ReasonCode::MalformedPacket,
    ReasonCode::ProtocolError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::ServerBusy,
    ReasonCode::ServerShuttingDown,
    ReasonCode::KeepAliveTimeout,
    ReasonCode::SessionTakenOver,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::TopicNameInvalid,
    ReasonCode::ReceiveMaximumExceeded,
    ReasonCode::TopicAliasInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::MessageRateTooHigh,
    ReasonCode::QuotaExceeded,
    ReasonCode::AdministrativeAction,
    ReasonCode::PayloadFormatInvalid,
    ReasonCode::RetainNotSupported,
    ReasonCode::QosNotSupported,
    ReasonCode::UseAnotherServer,
    ReasonCode::ServerMoved,
    ReasonCode::SharedSubscriptionsNotSupported,
    ReasonCode::ConnectionRateExceeded,
    ReasonCode::MaximumConnectTime,
    ReasonCode::SubscriptionIdentifiersNotSupported,
    ReasonCode::WildcardSubscriptionsNotSupported,
];
/// Reason codes of DISCONNECT that a client may send (MQTT 5.0 table 3-10, column "Sent by").
pub const CLIENT_DISCONNECT_REASONS: [ReasonCode; 14] = [
    ReasonCode::Success,
    ReasonCode::DisconnectWithWill,
    ReasonCode::UnspecifiedError,
    ReasonCode::MalformedPacket,
    ReasonCode::ProtocolError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::TopicNameInvalid,
    ReasonCode::ReceiveMaximumExceeded,
    ReasonCode::TopicAliasInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::MessageRateTooHigh,
    ReasonCode::QuotaExceeded,
    ReasonCode::AdministrativeAction,
    ReasonCode::PayloadFormatInvalid,
];
/// Reason codes of AUTH (MQTT 5.0 §3.15.2.1, table 3-11).
pub const AUTH_REASONS: [ReasonCode; 3] = [
    ReasonCode::Success,
    ReasonCode::ContinueAuthentication,
    ReasonCode::ReAuthenticate,
];
