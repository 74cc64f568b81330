//! Packets of MQTT 3.1.1 and 5.0, to read and to write.
//!
//! A packet that was read borrows the bytes it was read from. The codec checks what one packet alone can show; what
//! depends on packets before it, or on who may send it, is the session's business.

pub mod acknowledgement;
pub mod connack;
pub mod connect;
pub mod disconnect;
pub mod publish;
pub mod suback;
pub mod subscribe;
pub mod unsubscribe;

use std::num::NonZeroU16;

use fieldgate_proto::wire::Reader;

use self::{
    acknowledgement::{Acknowledgement, AcknowledgementKind},
    connack::ConnAck,
    connect::Connect,
    disconnect::{Auth, Disconnect},
    publish::Publish,
    suback::{SubAck, UnsubAck},
    subscribe::Subscribe,
    unsubscribe::Unsubscribe,
};
use crate::{
    encode::{EncodeError, put_packet},
    frame::{Frame, PacketType},
    property::{Properties, PropertySite},
    reason::ReasonCode,
    version::ProtocolVersion,
    violation::Violation,
};

/// Number that ties an acknowledgement to its packet, never 0 (MQTT 5.0 §2.2.1).
pub type PacketIdentifier = NonZeroU16;

/// How surely a message arrives (MQTT 5.0 §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl Qos {
    /// Returns the two bits on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the QoS of two bits; 3 is none.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Any packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A client asks for a session.
    Connect(Connect<'a>),
    /// The answer to CONNECT.
    ConnAck(ConnAck<'a>),
    /// A message.
    Publish(Publish<'a>),
    /// The answer to a message at QoS 1.
    PubAck(Acknowledgement<'a>),
    /// The first answer to a message at QoS 2.
    PubRec(Acknowledgement<'a>),
    /// The release of a message at QoS 2.
    PubRel(Acknowledgement<'a>),
    /// The last answer to a message at QoS 2.
    PubComp(Acknowledgement<'a>),
    /// A client asks for messages.
    Subscribe(Subscribe<'a>),
    /// The answer to SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// A client wants no more messages.
    Unsubscribe(Unsubscribe<'a>),
    /// The answer to UNSUBSCRIBE.
    UnsubAck(UnsubAck<'a>),
    /// A client is still there.
    PingReq,
    /// The answer to PINGREQ.
    PingResp,
    /// One side leaves.
    Disconnect(Disconnect<'a>),
    /// A step of an extended authentication.
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Reads the packet in `frame`. CONNECT brings its own version, `version` counts for all others.
    ///
    /// # Errors
    /// [`Violation`] if the bytes break a rule that this packet alone can break.
    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Self, Violation> {
        let (packet_type, body) = (frame.packet_type, frame.body);
        let version = if packet_type == PacketType::Connect {
            Connect::version(body)?
        } else {
            version
        };
        check_length_form(frame, version)?;
        let acknowledgement = |kind| Acknowledgement::decode(body, version, kind);
        Ok(match packet_type {
            PacketType::Connect => Self::Connect(Connect::decode(body)?),
            PacketType::ConnAck => Self::ConnAck(ConnAck::decode(body, version)?),
            PacketType::Publish => Self::Publish(Publish::decode(frame.flags, body, version)?),
            PacketType::PubAck => Self::PubAck(acknowledgement(AcknowledgementKind::PubAck)?),
            PacketType::PubRec => Self::PubRec(acknowledgement(AcknowledgementKind::PubRec)?),
            PacketType::PubRel => Self::PubRel(acknowledgement(AcknowledgementKind::PubRel)?),
            PacketType::PubComp => Self::PubComp(acknowledgement(AcknowledgementKind::PubComp)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::decode(body, version)?),
            PacketType::SubAck => Self::SubAck(SubAck::decode(body, version)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(body, version)?),
            PacketType::UnsubAck => Self::UnsubAck(UnsubAck::decode(body, version)?),
            PacketType::PingReq => {
                Reader::new(body).finish()?;
                Self::PingReq
            }
            PacketType::PingResp => {
                Reader::new(body).finish()?;
                Self::PingResp
            }
            PacketType::Disconnect => Self::Disconnect(Disconnect::decode(body, version)?),
            PacketType::Auth => Self::Auth(Auth::decode(body, version)?),
        })
    }

    /// Appends the packet to `out` in the form of `version`; CONNECT brings its own.
    ///
    /// # Errors
    /// [`EncodeError`] if a field is too long or a rule of the standard would be broken; `out` is then unchanged.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let empty = |out: &mut Vec<u8>, packet_type: PacketType| {
            put_packet(out, packet_type.first_byte(), |_| Ok(()))
        };
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::ConnAck(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::PubAck(packet) => packet.encode(version, AcknowledgementKind::PubAck, out),
            Self::PubRec(packet) => packet.encode(version, AcknowledgementKind::PubRec, out),
            Self::PubRel(packet) => packet.encode(version, AcknowledgementKind::PubRel, out),
            Self::PubComp(packet) => packet.encode(version, AcknowledgementKind::PubComp, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::SubAck(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::UnsubAck(packet) => packet.encode(version, out),
            Self::PingReq => empty(out, PacketType::PingReq),
            Self::PingResp => empty(out, PacketType::PingResp),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(version, out),
        }
    }
}

/// Refuses a remaining length that is longer than needed, where the version does (`[MQTT-1.5.5-1]`; MQTT 3.1.1 has no such rule,
/// and there are devices that always send the same number of bytes).
pub(crate) const fn check_length_form(frame: &Frame<'_>, version: ProtocolVersion) -> Result<(), Violation> {
    match version {
        ProtocolVersion::V5 if !frame.shortest_length => Err(Violation::malformed(
            "a remaining length is longer than needed ([MQTT-1.5.5-1])",
        )),
        ProtocolVersion::V311 | ProtocolVersion::V5 => Ok(()),
    }
}

/// Takes the reason code and the properties at the end of a packet, both of which may be missing (MQTT 5.0 §3.4.2.1, §3.14.2.1).
fn take_optional_reason<'a>(
    mut reader: Reader<'a>,
    site: PropertySite,
    allowed: &[ReasonCode],
) -> Result<(ReasonCode, Properties<'a>), Violation> {
    let mut reason = ReasonCode::Success;
    let mut properties = Properties::EMPTY;
    if !reader.is_empty() {
        reason = reason_among(reader.u8("reason code")?, allowed)?;
    }
    if !reader.is_empty() {
        properties = Properties::take(&mut reader, site)?;
    }
    reader.finish()?;
    Ok((reason, properties))
}

/// Appends reason code and properties in their shortest form.
fn put_optional_reason(
    out: &mut Vec<u8>,
    site: PropertySite,
    reason: ReasonCode,
    properties: &Properties<'_>,
) -> Result<(), EncodeError> {
    if reason == ReasonCode::Success && properties.is_empty() {
        return Ok(());
    }
    out.push(reason.code());
    if properties.is_empty() {
        Ok(())
    } else {
        properties.put(out, site)
    }
}

/// Returns the reason code of a number if it may stand in this packet.
fn reason_among(code: u8, allowed: &[ReasonCode]) -> Result<ReasonCode, Violation> {
    ReasonCode::from_code(code)
        .filter(|reason| allowed.contains(reason))
        .ok_or(Violation::malformed(
            "a reason code is not one of this packet's (§2.4)",
        ))
}
