//! Properties of MQTT 5.0 packets (§2.2.2): which there are, where they may stand, how often.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::fmt;

use fieldgate_proto::wire::Reader;

use crate::{
    encode::{EncodeError, put_with_length},
    field::{
        VARIABLE_BYTE_INTEGER_MAX, put_binary, put_string, put_variable_byte_integer, string,
        variable_byte_integer,
    },
    reason::ReasonCode,
    version::ProtocolVersion,
    violation::Violation,
};

/// Where properties stand: a packet, or the will in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum PropertySite {
    /// CONNECT.
    Connect = 1 << 0,
    /// The will in CONNECT.
    Will = 1 << 1,
    /// CONNACK.
    ConnAck = 1 << 2,
    /// PUBLISH.
    Publish = 1 << 3,
    /// PUBACK.
    PubAck = 1 << 4,
    /// PUBREC.
    PubRec = 1 << 5,
    /// PUBREL.
    PubRel = 1 << 6,
    /// PUBCOMP.
    PubComp = 1 << 7,
    /// SUBSCRIBE.
    Subscribe = 1 << 8,
    /// SUBACK.
    SubAck = 1 << 9,
    /// UNSUBSCRIBE.
    Unsubscribe = 1 << 10,
    /// UNSUBACK.
    UnsubAck = 1 << 11,
    /// DISCONNECT.
    Disconnect = 1 << 12,
    /// AUTH.
    Auth = 1 << 13,
}

impl PropertySite {
    /// Every site.
    pub const ALL: [Self; 14] = [
        Self::Connect,
        Self::Will,
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::Disconnect,
        Self::Auth,
    ];
}

const CONNECT: u16 = PropertySite::Connect as u16;
const WILL: u16 = PropertySite::Will as u16;
const CONNACK: u16 = PropertySite::ConnAck as u16;
const PUBLISH: u16 = PropertySite::Publish as u16;
const SUBSCRIBE: u16 = PropertySite::Subscribe as u16;
const DISCONNECT: u16 = PropertySite::Disconnect as u16;
const AUTH: u16 = PropertySite::Auth as u16;
/// Every packet that tells the result of another.
const ANSWERS: u16 = CONNACK
    | PropertySite::PubAck as u16
    | PropertySite::PubRec as u16
    | PropertySite::PubRel as u16
    | PropertySite::PubComp as u16
    | PropertySite::SubAck as u16
    | PropertySite::UnsubAck as u16
    | DISCONNECT
    | AUTH;
const EVERYWHERE: u16 = (1 << 14) - 1;

/// A value on the wire: one of the types of MQTT 5.0 §1.5.
trait Value<'a>: Sized {
    fn take(reader: &mut Reader<'a>) -> Result<Self, Violation>;
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;
}

impl Value<'_> for bool {
    fn take(reader: &mut Reader<'_>) -> Result<Self, Violation> {
        match reader.u8("property")? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Violation::protocol(
                "a property is neither 0 nor 1 (§3.1.2.11, §3.2.2.3, §3.3.2.3.2)",
            )),
        }
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(u8::from(*self));
        Ok(())
    }
}

impl Value<'_> for u16 {
    fn take(reader: &mut Reader<'_>) -> Result<Self, Violation> {
        Ok(reader.u16("property")?)
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.to_be_bytes());
        Ok(())
    }
}

impl Value<'_> for u32 {
    fn take(reader: &mut Reader<'_>) -> Result<Self, Violation> {
        Ok(reader.u32("property")?)
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.to_be_bytes());
        Ok(())
    }
}

/// The identifier of a subscription, 1 to 268,435,455 (MQTT 5.0 §3.8.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionIdentifier(pub u32);

impl Value<'_> for SubscriptionIdentifier {
    fn take(reader: &mut Reader<'_>) -> Result<Self, Violation> {
        Ok(Self(variable_byte_integer(reader, "subscription identifier")?))
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.0 > VARIABLE_BYTE_INTEGER_MAX {
            return Err(EncodeError::Rule {
                what: "a subscription identifier is above 268435455 (§3.8.2.1.2)",
            });
        }
        put_variable_byte_integer(out, self.0);
        Ok(())
    }
}

impl<'a> Value<'a> for &'a str {
    fn take(reader: &mut Reader<'a>) -> Result<Self, Violation> {
        string(reader, "property")
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_string(out, "property", self)
    }
}

impl<'a> Value<'a> for &'a [u8] {
    fn take(reader: &mut Reader<'a>) -> Result<Self, Violation> {
        Ok(reader.bytes16("property")?)
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_binary(out, "property", self)
    }
}

impl<'a> Value<'a> for (&'a str, &'a str) {
    fn take(reader: &mut Reader<'a>) -> Result<Self, Violation> {
        Ok((
            string(reader, "name of a user property")?,
            string(reader, "value of a user property")?,
        ))
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_string(out, "name of a user property", self.0)?;
        put_string(out, "value of a user property", self.1)
    }
}

macro_rules! properties {
    ($($(#[doc = $doc:literal])+ $code:literal $name:ident: $value:ty, in $sites:expr;)+) => {
        /// One property (MQTT 5.0 §2.2.2.2, table 2-4). `Debug` shows no authentication data.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub enum Property<'a> {
            $($(#[doc = $doc])+ $name($value),)+
        }

        impl<'a> Property<'a> {
            /// The identifiers of all properties.
            pub const IDENTIFIERS: [u8; 27] = [$($code),+];

            /// Returns the identifier on the wire.
            #[must_use]
            pub const fn identifier(&self) -> u8 {
                match self { $(Self::$name(_) => $code,)+ }
            }

            const fn sites(&self) -> u16 {
                match self { $(Self::$name(_) => $sites,)+ }
            }

            fn take(reader: &mut Reader<'a>) -> Result<Self, Violation> {
                match reader.u8("property identifier")? {
                    $($code => Ok(Self::$name(Value::take(reader)?)),)+
                    _ => Err(Violation::malformed("a property identifier has no meaning (§2.2.2.2)")),
                }
            }

            fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                out.push(self.identifier());
                match self { $(Self::$name(value) => Value::put(value, out),)+ }
            }
        }
    };
}

properties! {
    /// Whether the payload is UTF-8 text.
    0x01 PayloadFormatIndicator: bool, in PUBLISH | WILL;
    /// Seconds after which the message is worth nothing.
    0x02 MessageExpiryInterval: u32, in PUBLISH | WILL;
    /// MIME type of the payload.
    0x03 ContentType: &'a str, in PUBLISH | WILL;
    /// Topic for a response.
    0x08 ResponseTopic: &'a str, in PUBLISH | WILL;
    /// What the response shall carry.
    0x09 CorrelationData: &'a [u8], in PUBLISH | WILL;
    /// Which subscription a message belongs to.
    0x0b SubscriptionIdentifier: SubscriptionIdentifier, in PUBLISH | SUBSCRIBE;
    /// Seconds a session outlives its connection; `u32::MAX` for ever.
    0x11 SessionExpiryInterval: u32, in CONNECT | CONNACK | DISCONNECT;
    /// Client identifier that the server chose.
    0x12 AssignedClientIdentifier: &'a str, in CONNACK;
    /// Keep-alive in seconds that the server demands.
    0x13 ServerKeepAlive: u16, in CONNACK;
    /// Name of an extended authentication.
    0x15 AuthenticationMethod: &'a str, in CONNECT | CONNACK | AUTH;
    /// Data of an extended authentication.
    0x16 AuthenticationData: &'a [u8], in CONNECT | CONNACK | AUTH;
    /// Whether the server may send reasons as text.
    0x17 RequestProblemInformation: bool, in CONNECT;
    /// Seconds between the end of a connection and its will.
    0x18 WillDelayInterval: u32, in WILL;
    /// Whether the client wants response information.
    0x19 RequestResponseInformation: bool, in CONNECT;
    /// Base of response topics.
    0x1a ResponseInformation: &'a str, in CONNACK;
    /// Another server to use.
    0x1c ServerReference: &'a str, in CONNACK | DISCONNECT;
    /// Reason as text, for people.
    0x1f ReasonString: &'a str, in ANSWERS;
    /// Unacknowledged publishes that the sender of the property takes.
    0x21 ReceiveMaximum: u16, in CONNECT | CONNACK;
    /// Largest topic alias that the sender of the property takes.
    0x22 TopicAliasMaximum: u16, in CONNECT | CONNACK;
    /// Number that stands for the topic.
    0x23 TopicAlias: u16, in PUBLISH;
    /// Whether the highest QoS is 1 rather than 0.
    0x24 MaximumQos: bool, in CONNACK;
    /// Whether the server takes retained messages.
    0x25 RetainAvailable: bool, in CONNACK;
    /// A name and a value, as often as wanted.
    0x26 UserProperty: (&'a str, &'a str), in EVERYWHERE;
    /// Bytes of the largest packet that the sender of the property takes.
    0x27 MaximumPacketSize: u32, in CONNECT | CONNACK;
    /// Whether the server takes wildcards in subscriptions.
    0x28 WildcardSubscriptionAvailable: bool, in CONNACK;
    /// Whether the server takes subscription identifiers.
    0x29 SubscriptionIdentifierAvailable: bool, in CONNACK;
    /// Whether the server takes shared subscriptions.
    0x2a SharedSubscriptionAvailable: bool, in CONNACK;
}

impl Property<'_> {
    /// Returns whether the property may stand at `site` (MQTT 5.0 table 2-4).
    #[must_use]
    pub const fn is_allowed_in(&self, site: PropertySite) -> bool {
        self.sites() & site as u16 != 0
    }

    fn may_repeat_in(&self, site: PropertySite) -> bool {
        matches!(self, Self::UserProperty(_))
            || matches!(self, Self::SubscriptionIdentifier(_)) && site == PropertySite::Publish
    }

    /// Refuses values that their section forbids.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most properties take every value of their type"
    )]
    fn check(&self) -> Result<(), Violation> {
        let what = match self {
            Self::ReceiveMaximum(0) => "the receive maximum is 0 (§3.1.2.11.3, §3.2.2.3.3)",
            Self::MaximumPacketSize(0) => "the maximum packet size is 0 (§3.1.2.11.4, §3.2.2.3.6)",
            Self::SubscriptionIdentifier(SubscriptionIdentifier(0)) => {
                "the subscription identifier is 0 (§3.3.2.3.8, §3.8.2.1.2)"
            }
            Self::TopicAlias(0) => {
                let reason = ReasonCode::TopicAliasInvalid;
                return Err(Violation::Rule {
                    reason,
                    what: "the topic alias is 0 ([MQTT-3.3.2-8])",
                });
            }
            Self::ResponseTopic(topic) if topic.is_empty() || topic.contains(['#', '+']) => {
                "the response topic is empty or contains a wildcard ([MQTT-3.3.2-14])"
            }
            _ => return Ok(()),
        };
        Err(Violation::protocol(what))
    }
}

impl fmt::Debug for Property<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Property(0x{:02x})", self.identifier())
    }
}

/// The properties of a packet: a list, or the bytes of a packet that was read. Empty in MQTT 3.1.1.
#[derive(Clone, Copy)]
pub struct Properties<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    List(&'a [Property<'a>]),
    /// Invariant: made by [`Properties::take`], so it holds whole and valid properties.
    Encoded(&'a [u8]),
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Self = Self(Source::List(&[]));

    /// Wraps `list`; it is checked when it is encoded.
    #[must_use]
    pub const fn from_list(list: &'a [Property<'a>]) -> Self {
        Self(Source::List(list))
    }

    /// Returns whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        match self.0 {
            Source::List(list) => list.is_empty(),
            Source::Encoded(bytes) => bytes.is_empty(),
        }
    }

    /// Returns the properties in their order.
    #[must_use]
    pub const fn iter(&self) -> PropertiesIter<'a> {
        PropertiesIter(self.0)
    }

    /// Takes the property length and the properties, which all must be allowed at `site`.
    pub(crate) fn take(reader: &mut Reader<'a>, site: PropertySite) -> Result<Self, Violation> {
        let len = variable_byte_integer(reader, "property length")?;
        let len = usize::try_from(len)
            .map_err(|_| Violation::malformed("the properties exceed the address space"))?;
        let bytes = reader.bytes("properties", len)?;
        let mut section = Reader::new(bytes);
        let mut rules = Rules::default();
        while !section.is_empty() {
            rules.apply(&Property::take(&mut section)?, site)?;
        }
        rules.finish()?;
        Ok(Self(Source::Encoded(bytes)))
    }

    /// Takes the properties if `version` has them.
    pub(crate) fn take_for(
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
        site: PropertySite,
    ) -> Result<Self, Violation> {
        match version {
            ProtocolVersion::V311 => Ok(Self::EMPTY),
            ProtocolVersion::V5 => Self::take(reader, site),
        }
    }

    /// Appends the property length and the properties.
    pub(crate) fn put(&self, out: &mut Vec<u8>, site: PropertySite) -> Result<(), EncodeError> {
        let mut rules = Rules::default();
        put_with_length(out, "properties", |out| {
            for property in self.iter() {
                rules.apply(&property, site).map_err(into_encode_error)?;
                property.put(out)?;
            }
            rules.finish().map_err(into_encode_error)
        })
    }

    /// Appends the properties if `version` has them.
    pub(crate) fn put_for(
        &self,
        out: &mut Vec<u8>,
        version: ProtocolVersion,
        site: PropertySite,
    ) -> Result<(), EncodeError> {
        match version {
            ProtocolVersion::V5 => self.put(out, site),
            ProtocolVersion::V311 if self.is_empty() => Ok(()),
            ProtocolVersion::V311 => Err(EncodeError::Rule {
                what: "MQTT 3.1.1 has no properties",
            }),
        }
    }
}

/// What must hold for all properties of a packet together.
#[derive(Default)]
struct Rules {
    /// Bit i: a property with identifier i was there.
    seen: u64,
}

impl Rules {
    fn apply(&mut self, property: &Property<'_>, site: PropertySite) -> Result<(), Violation> {
        if !property.is_allowed_in(site) {
            return Err(Violation::malformed(
                "a property is not allowed in this packet (§2.2.2.2)",
            ));
        }
        property.check()?;
        let bit = 1_u64 << property.identifier();
        if self.seen & bit != 0 && !property.may_repeat_in(site) {
            return Err(Violation::protocol("a property stands twice (§2.2.2.2)"));
        }
        self.seen |= bit;
        Ok(())
    }

    fn finish(&self) -> Result<(), Violation> {
        let has = |identifier: u8| self.seen & 1_u64 << identifier != 0;
        if has(AUTHENTICATION_DATA) && !has(AUTHENTICATION_METHOD) {
            return Err(Violation::protocol(
                "authentication data stands without a method (§3.1.2.11.10)",
            ));
        }
        Ok(())
    }
}

const AUTHENTICATION_METHOD: u8 = 0x15;
const AUTHENTICATION_DATA: u8 = 0x16;

fn into_encode_error(violation: Violation) -> EncodeError {
    match violation {
        Violation::Rule { what, .. } => EncodeError::Rule { what },
        Violation::Field(_) => EncodeError::Rule {
            what: "a property is not what its type allows (§1.5)",
        },
    }
}

impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Properties<'_> {}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertiesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The properties of a packet in their order.
#[derive(Clone)]
pub struct PropertiesIter<'a>(Source<'a>);

impl fmt::Debug for PropertiesIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Properties(self.0), f)
    }
}

impl<'a> Iterator for PropertiesIter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::List(list) => {
                let (first, rest) = list.split_first()?;
                *list = rest;
                Some(*first)
            }
            Source::Encoded(bytes) => {
                let mut reader = Reader::new(bytes);
                // Checked by `take`: the only error left is the end.
                let property = Property::take(&mut reader).ok()?;
                *bytes = reader.rest();
                Some(property)
            }
        }
    }
}

#[cfg(test)]
mod tests;
