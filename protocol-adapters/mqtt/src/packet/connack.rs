//! CONNACK (MQTT 5.0 §3.2, MQTT 3.1.1 §3.2).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use fieldgate_proto::wire::Reader;

use super::reason_among;
use crate::{
    encode::{EncodeError, put_packet},
    frame::PacketType,
    property::{Properties, PropertySite},
    reason::ReasonCode,
    version::ProtocolVersion,
    violation::Violation,
};

/// The answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server has a session of this client.
    pub session_present: bool,
    /// What the server says; in MQTT 3.1.1 one of those with a return code.
    pub reason: ReasonCode,
    /// Properties; empty in MQTT 3.1.1.
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    /// Reads the packet's body.
    ///
    /// # Errors
    /// [`Violation`] if the bytes break a rule of §3.2.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let flags = reader.u8("connect acknowledge flags")?;
        if flags > 1 {
            return Err(Violation::malformed(
                "reserved connect acknowledge flags are set ([MQTT-3.2.2-1])",
            ));
        }
        let code = reader.u8("reason code")?;
        let reason = match version {
            ProtocolVersion::V5 => reason_among(code, &REASONS)?,
            ProtocolVersion::V311 => ReasonCode::from_connect_return_code(code).ok_or(
                Violation::malformed("a connect return code is reserved (3.1.1 §3.2.2.3)"),
            )?,
        };
        let session_present = flags == 1;
        if session_present && reason != ReasonCode::Success {
            return Err(Violation::protocol(
                "session present stands with a refusal ([MQTT-3.2.2-6])",
            ));
        }
        let properties = Properties::take_for(&mut reader, version, PropertySite::ConnAck)?;
        reader.finish()?;
        Ok(Self {
            session_present,
            reason,
            properties,
        })
    }

    /// Returns what a server says in CONNACK for `reason`: itself, or that it was a protocol error where CONNACK has no word for it.
    #[must_use]
    pub fn reason_for(reason: ReasonCode) -> ReasonCode {
        if REASONS.contains(&reason) {
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
        let code = match version {
            ProtocolVersion::V5 => Some(self.reason.code()).filter(|_| REASONS.contains(&self.reason)),
            ProtocolVersion::V311 => self.reason.connect_return_code(),
        };
        let Some(code) = code else {
            return Err(EncodeError::Rule {
                what: "the reason code is not one of CONNACK (§3.2.2.2)",
            });
        };
        if self.session_present && self.reason != ReasonCode::Success {
            return Err(EncodeError::Rule {
                what: "session present stands with a refusal ([MQTT-3.2.2-6])",
            });
        }
        put_packet(out, PacketType::ConnAck.first_byte(), |out| {
            out.extend_from_slice(&[u8::from(self.session_present), code]);
            self.properties.put_for(out, version, PropertySite::ConnAck)
        })
    }
}

/// Reason codes of CONNACK (MQTT 5.0 §3.2.2.2, table 3-1).
pub const REASONS: [ReasonCode; 22] = [
    ReasonCode::Success,
    ReasonCode::UnspecifiedError,
    ReasonCode::MalformedPacket,
    ReasonCode::ProtocolError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::UnsupportedProtocolVersion,
    ReasonCode::ClientIdentifierNotValid,
    ReasonCode::BadUserNameOrPassword,
    ReasonCode::NotAuthorized,
    ReasonCode::ServerUnavailable,
    ReasonCode::ServerBusy,
    ReasonCode::Banned,
    ReasonCode::BadAuthenticationMethod,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::QuotaExceeded,
    ReasonCode::PayloadFormatInvalid,
    ReasonCode::RetainNotSupported,
    ReasonCode::QosNotSupported,
    ReasonCode::UseAnotherServer,
    ReasonCode::ServerMoved,
    ReasonCode::ConnectionRateExceeded,
];
