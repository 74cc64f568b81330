//! The fixed header: where a packet begins and ends (MQTT 5.0 §2.1).
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use crate::{field::split_variable_byte_integer, reason::ReasonCode, violation::Violation};

/// The type of a packet (MQTT 5.0 §2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// A client asks for a session.
    Connect = 1,
    /// The answer to CONNECT.
    ConnAck = 2,
    /// A message.
    Publish = 3,
    /// The answer to a message at QoS 1.
    PubAck = 4,
    /// The first answer to a message at QoS 2.
    PubRec = 5,
    /// The release of a message at QoS 2.
    PubRel = 6,
    /// The last answer to a message at QoS 2.
    PubComp = 7,
    /// A client asks for messages.
    Subscribe = 8,
    /// The answer to SUBSCRIBE.
    SubAck = 9,
    /// A client wants no more messages.
    Unsubscribe = 10,
    /// The answer to UNSUBSCRIBE.
    UnsubAck = 11,
    /// A client is still there.
    PingReq = 12,
    /// The answer to PINGREQ.
    PingResp = 13,
    /// One side leaves.
    Disconnect = 14,
    /// A step of an extended authentication; MQTT 5.0 only.
    Auth = 15,
}

impl PacketType {
    /// Returns the type in the upper half of a packet's first byte; 0 is none.
    #[must_use]
    pub const fn from_first_byte(first: u8) -> Option<Self> {
        Some(match first >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// Returns a packet's first byte with the flags that the type must have (MQTT 5.0 §2.1.3); those of PUBLISH are clear.
    #[must_use]
    pub const fn first_byte(self) -> u8 {
        let flags = match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            Self::Connect
            | Self::ConnAck
            | Self::Publish
            | Self::PubAck
            | Self::PubRec
            | Self::PubComp
            | Self::SubAck
            | Self::UnsubAck
            | Self::PingReq
            | Self::PingResp
            | Self::Disconnect
            | Self::Auth => 0,
        };
        (self as u8) << 4 | flags
    }
}

/// One packet, its fields not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type.
    pub packet_type: PacketType,
    /// The lower half of the first byte, checked for all types but PUBLISH.
    pub flags: u8,
    /// Variable header and payload.
    pub body: &'a [u8],
    /// Whether the remaining length has its shortest form; MQTT 5.0 demands it, MQTT 3.1.1 does not.
    pub shortest_length: bool,
}

/// What stands at the front of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole packet, and what follows it.
    Complete {
        /// The packet.
        frame: Frame<'a>,
        /// The bytes behind it.
        rest: &'a [u8],
    },
    /// The beginning of a packet.
    Incomplete {
        /// More bytes that it has at the least, never 0.
        need: usize,
    },
}

/// Finds the first packet in `bytes`; looks at the fixed header only.
///
/// # Errors
/// [`Violation`] as soon as the bytes show that the packet has no type, wrong flags, a bad length, or that it is larger
/// than `maximum_packet_size` bytes (which counts the fixed header, MQTT 5.0 §3.1.2.11.4).
pub fn split(bytes: &[u8], maximum_packet_size: u32) -> Result<Split<'_>, Violation> {
    let Some((first, after_first)) = bytes.split_first() else {
        return Ok(Split::Incomplete {
            need: SHORTEST_PACKET,
        });
    };
    let packet_type = PacketType::from_first_byte(*first).ok_or(Violation::malformed(
        "packet type 0 is forbidden (§2.1.2, 3.1.1 §2.2.1)",
    ))?;
    if packet_type != PacketType::Publish && *first != packet_type.first_byte() {
        return Err(Violation::malformed(
            "reserved flags of a fixed header are wrong ([MQTT-2.1.3-1], 3.1.1 [MQTT-2.2.2-2])",
        ));
    }
    let Some(length) = split_variable_byte_integer(after_first)? else {
        return Ok(Split::Incomplete { need: 1 });
    };
    let header_len = length.len.saturating_add(1);
    let total = u64::from(length.value).saturating_add(header_len as u64);
    if total > u64::from(maximum_packet_size) {
        let reason = ReasonCode::PacketTooLarge;
        return Err(Violation::Rule {
            reason,
            what: "a packet exceeds the maximum packet size (§3.2.2.3.6)",
        });
    }
    let total =
        usize::try_from(total).map_err(|_| Violation::malformed("a packet exceeds the address space"))?;
    let Some((packet, rest)) = bytes.split_at_checked(total) else {
        return Ok(Split::Incomplete {
            need: total.saturating_sub(bytes.len()),
        });
    };
    let body = packet.get(header_len..).unwrap_or_default();
    let frame = Frame {
        packet_type,
        flags: first & 0x0f,
        body,
        shortest_length: length.shortest,
    };
    Ok(Split::Complete { frame, rest })
}

/// Bytes of the shortest packet: first byte and a remaining length of 0.
const SHORTEST_PACKET: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn says_how_many_bytes_are_missing() {
        assert_eq!(split(&[], 100), Ok(Split::Incomplete { need: 2 }));
        assert_eq!(split(&[0x30], 100), Ok(Split::Incomplete { need: 1 }));
        assert_eq!(split(&[0x30, 0x80], 1000), Ok(Split::Incomplete { need: 1 }));
        assert_eq!(split(&[0x30, 0x05, 1], 100), Ok(Split::Incomplete { need: 4 }));
        let frame = Frame {
            packet_type: PacketType::PingReq,
            flags: 0,
            body: &[],
            shortest_length: true,
        };
        assert_eq!(
            split(&[0xc0, 0x00, 0xff], 100),
            Ok(Split::Complete { frame, rest: &[0xff] })
        );
    }

    #[test]
    fn refuses_a_packet_that_is_too_large_before_its_body_arrives() {
        let reason = |bytes: &[u8], max| split(bytes, max).err().map(|violation| violation.reason());
        assert_eq!(reason(&[0x30, 0x62], 100), None);
        assert_eq!(reason(&[0x30, 0x63], 100), Some(ReasonCode::PacketTooLarge));
        assert_eq!(reason(&[0x30, 0xff, 0xff, 0xff, 0x7f], u32::MAX), None);
        assert_eq!(
            reason(&[0x30, 0xff, 0xff, 0xff, 0xff], u32::MAX),
            Some(ReasonCode::MalformedPacket)
        );
    }

    #[test]
    fn first_bytes_come_back() {
        for first in 0..=u8::MAX {
            let Some(packet_type) = PacketType::from_first_byte(first) else {
                assert_eq!(first >> 4, 0);
                continue;
            };
            assert_eq!(packet_type.first_byte() >> 4, first >> 4);
            let taken = split(&[first, 0], 100).is_ok();
            assert_eq!(
                taken,
                packet_type == PacketType::Publish || first == packet_type.first_byte()
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_without_loss(bytes: Vec<u8>, max in 5_u32..300) {
            match split(&bytes, max) {
                Ok(Split::Complete { frame, rest }) => {
                    prop_assert!(bytes.len() - rest.len() <= max as usize);
                    prop_assert!(frame.body.len() + rest.len() + 2 <= bytes.len());
                }
                Ok(Split::Incomplete { need }) => prop_assert!(need > 0 && bytes.len() + need <= max as usize),
                Err(_) => {}
            }
        }
    }
}
