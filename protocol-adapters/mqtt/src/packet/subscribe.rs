//! SUBSCRIBE (MQTT 5.0 §3.8, MQTT 3.1.1 §3.8).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use fieldgate_proto::wire::Reader;

use super::{PacketIdentifier, Qos};
use crate::{
    encode::{EncodeError, put_packet},
    field::{packet_identifier, put_string, string},
    frame::PacketType,
    property::{Properties, PropertySite},
    version::ProtocolVersion,
    violation::Violation,
};

/// A client asks for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The packet identifier.
    pub packet_id: PacketIdentifier,
    /// Properties; empty in MQTT 3.1.1.
    pub properties: Properties<'a>,
    /// What it wants, at least one.
    pub subscriptions: Subscriptions<'a>,
}

/// One topic filter with its options. The filter's form is not checked by the codec: a bad one fails alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// The topic filter.
    pub filter: &'a str,
    /// The highest QoS wanted.
    pub qos: Qos,
    /// Whether the client's own messages are left out; MQTT 5.0 only.
    pub no_local: bool,
    /// Whether the retain flag stays as it was published; MQTT 5.0 only.
    pub retain_as_published: bool,
    /// When retained messages are sent; MQTT 5.0 only.
    pub retain_handling: RetainHandling,
}

/// When a subscriber gets retained messages (MQTT 5.0 §3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// With each SUBSCRIBE.
    #[default]
    Always = 0,
    /// When the subscription is new.
    IfNew = 1,
    /// Never.
    Never = 2,
}

impl<'a> Subscribe<'a> {
    /// Reads the packet's body.
    ///
    /// # Errors
    /// [`Violation`] if the bytes break a rule of §3.8.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let packet_id = packet_identifier(&mut reader)?;
        let properties = Properties::take_for(&mut reader, version, PropertySite::Subscribe)?;
        let bytes = reader.rest();
        if reader.is_empty() {
            return Err(Violation::protocol(
                "SUBSCRIBE has no topic filter ([MQTT-3.8.3-2], 3.1.1 [MQTT-3.8.3-3])",
            ));
        }
        while !reader.is_empty() {
            Subscription::take(&mut reader, version)?;
        }
        Ok(Self {
            packet_id,
            properties,
            subscriptions: Subscriptions(Source::Encoded { bytes, version }),
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] if a field is too long or a rule of the standard would be broken; `out` is then unchanged.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_packet(out, PacketType::Subscribe.first_byte(), |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            self.properties.put_for(out, version, PropertySite::Subscribe)?;
            let before = out.len();
            for subscription in self.subscriptions.iter() {
                subscription.put(out, version)?;
            }
            if out.len() == before {
                return Err(EncodeError::Rule {
                    what: "SUBSCRIBE has no topic filter ([MQTT-3.8.3-2])",
                });
            }
            Ok(())
        })
    }
}

impl<'a> Subscription<'a> {
    fn take(reader: &mut Reader<'a>, version: ProtocolVersion) -> Result<Self, Violation> {
        let filter = string(reader, "topic filter")?;
        let options = reader.u8("subscription options")?;
        let reserved = match version {
            ProtocolVersion::V311 => !QOS_MASK,
            ProtocolVersion::V5 => OPTIONS_RESERVED,
        };
        if options & reserved != 0 {
            return Err(Violation::malformed(
                "reserved subscription options are set ([MQTT-3.8.3-5], 3.1.1 [MQTT-3.8.3-4])",
            ));
        }
        let qos = Qos::from_code(options & QOS_MASK).ok_or(Violation::malformed(
            "the QoS of a subscription is 3 (§3.8.3.1, 3.1.1 [MQTT-3.8.3-4])",
        ))?;
        let retain_handling = match options >> RETAIN_HANDLING_SHIFT {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => {
                return Err(Violation::protocol(
                    "the retain handling of a subscription is 3 (§3.8.3.1)",
                ));
            }
        };
        let no_local = options & FLAG_NO_LOCAL != 0;
        if no_local && filter.starts_with("$share/") {
            return Err(Violation::protocol(
                "no local is set on a shared subscription ([MQTT-3.8.3-4])",
            ));
        }
        let retain_as_published = options & FLAG_RETAIN_AS_PUBLISHED != 0;
        Ok(Self {
            filter,
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        })
    }

    fn put(&self, out: &mut Vec<u8>, version: ProtocolVersion) -> Result<(), EncodeError> {
        let mut options = self.qos.code() | (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT;
        options |= if self.no_local { FLAG_NO_LOCAL } else { 0 };
        options |= if self.retain_as_published {
            FLAG_RETAIN_AS_PUBLISHED
        } else {
            0
        };
        if version == ProtocolVersion::V311 && options & !QOS_MASK != 0 {
            return Err(EncodeError::Rule {
                what: "MQTT 3.1.1 has no subscription option but the QoS",
            });
        }
        if self.no_local && self.filter.starts_with("$share/") {
            return Err(EncodeError::Rule {
                what: "no local is set on a shared subscription ([MQTT-3.8.3-4])",
            });
        }
        put_string(out, "topic filter", self.filter)?;
        out.push(options);
        Ok(())
    }
}

const QOS_MASK: u8 = 0b11;
const FLAG_NO_LOCAL: u8 = 1 << 2;
const FLAG_RETAIN_AS_PUBLISHED: u8 = 1 << 3;
const RETAIN_HANDLING_SHIFT: u8 = 4;
const OPTIONS_RESERVED: u8 = 0b1100_0000;

/// The subscriptions of a SUBSCRIBE: a list, or the bytes of a packet that was read.
#[derive(Clone, Copy)]
pub struct Subscriptions<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    List(&'a [Subscription<'a>]),
    /// Invariant: made by [`Subscribe::decode`], so it holds whole and valid subscriptions.
    Encoded {
        bytes: &'a [u8],
        version: ProtocolVersion,
    },
}

impl<'a> Subscriptions<'a> {
    /// Wraps `list`.
    #[must_use]
    pub const fn from_list(list: &'a [Subscription<'a>]) -> Self {
        Self(Source::List(list))
    }

    /// Returns the subscriptions in their order.
    #[must_use]
    pub const fn iter(&self) -> SubscriptionsIter<'a> {
        SubscriptionsIter(self.0)
    }
}

impl PartialEq for Subscriptions<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Subscriptions<'_> {}

impl fmt::Debug for Subscriptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Subscriptions<'a> {
    type Item = Subscription<'a>;
    type IntoIter = SubscriptionsIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The subscriptions of a SUBSCRIBE in their order.
#[derive(Clone)]
pub struct SubscriptionsIter<'a>(Source<'a>);

impl fmt::Debug for SubscriptionsIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Subscriptions(self.0), f)
    }
}

impl<'a> Iterator for SubscriptionsIter<'a> {
    type Item = Subscription<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::List(list) => {
                let (first, rest) = list.split_first()?;
                *list = rest;
                Some(*first)
            }
            Source::Encoded { bytes, version } => {
                let mut reader = Reader::new(bytes);
                // Checked by `decode`: the only error left is the end.
                let subscription = Subscription::take(&mut reader, *version).ok()?;
                *bytes = reader.rest();
                Some(subscription)
            }
        }
    }
}
