//! CONNECT (MQTT 5.0 §3.1, MQTT 3.1.1 §3.1).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use fieldgate_proto::wire::Reader;

use super::Qos;
use crate::{
    encode::{EncodeError, put_packet},
    field::{check_topic_name, put_binary, put_string, string, topic_name},
    frame::PacketType,
    property::{Properties, PropertySite},
    reason::ReasonCode,
    version::{PROTOCOL_NAME, ProtocolVersion},
    violation::Violation,
};

/// A client asks for a session. `Debug` does not show the password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version the client speaks on this connection.
    pub version: ProtocolVersion,
    /// Whether an older session is forgotten (Clean Session in MQTT 3.1.1).
    pub clean_start: bool,
    /// Seconds in which the client sends at least one packet; 0 switches the check off.
    pub keep_alive_secs: u16,
    /// The client identifier; empty lets the server choose.
    pub client_id: &'a str,
    /// What is published when the connection ends without a DISCONNECT.
    pub will: Option<Will<'a>>,
    /// The user name.
    pub username: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// Properties; empty in MQTT 3.1.1.
    pub properties: Properties<'a>,
}

/// The message that the server publishes when a client is lost (MQTT 5.0 §3.1.2.5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// Its QoS.
    pub qos: Qos,
    /// Whether it is retained.
    pub retain: bool,
    /// Its topic.
    pub topic: &'a str,
    /// Its payload, at most 65,535 bytes.
    pub payload: &'a [u8],
    /// Its properties; empty in MQTT 3.1.1.
    pub properties: Properties<'a>,
}

/// The version a CONNECT asks for, when it is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedVersion {
    /// The protocol level byte.
    pub level: u8,
}

impl<'a> Connect<'a> {
    /// Reads the version from the front of a CONNECT.
    ///
    /// # Errors
    /// [`Violation`] if the protocol name is wrong or the level is none of ours.
    pub fn version(body: &[u8]) -> Result<ProtocolVersion, Violation> {
        let (version, _) = take_version(body)?;
        version.map_err(|_| Violation::Rule {
            reason: ReasonCode::UnsupportedProtocolVersion,
            what: "the protocol version is not supported ([MQTT-3.1.2-2])",
        })
    }

    /// Returns the level byte of a CONNECT that is well formed up to there but asks for a version that is none of ours.
    #[must_use]
    pub fn unsupported_version(body: &[u8]) -> Option<UnsupportedVersion> {
        take_version(body).ok()?.0.err()
    }

    /// Reads variable header and payload.
    ///
    /// # Errors
    /// [`Violation`] if the bytes break a rule of §3.1.
    pub fn decode(body: &'a [u8]) -> Result<Self, Violation> {
        let version = Self::version(body)?;
        let (_, mut reader) = take_version(body)?;
        let flags = reader.u8("connect flags")?;
        check_flags(flags, version)?;
        let keep_alive_secs = reader.u16("keep alive")?;
        let properties = Properties::take_for(&mut reader, version, PropertySite::Connect)?;
        let client_id = string(&mut reader, "client identifier")?;
        let will = if flags & FLAG_WILL == 0 {
            None
        } else {
            Some(Will::take(&mut reader, flags, version)?)
        };
        let username = if flags & FLAG_USERNAME == 0 {
            None
        } else {
            Some(string(&mut reader, "user name")?)
        };
        let password = if flags & FLAG_PASSWORD == 0 {
            None
        } else {
            Some(reader.bytes16("password")?)
        };
        reader.finish()?;
        let clean_start = flags & FLAG_CLEAN_START != 0;
        Ok(Self {
            version,
            clean_start,
            keep_alive_secs,
            client_id,
            will,
            username,
            password,
            properties,
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] if a field is too long or a rule of the standard would be broken; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.version == ProtocolVersion::V311 && self.password.is_some() && self.username.is_none() {
            return Err(EncodeError::Rule {
                what: "a password stands without a user name (3.1.1 [MQTT-3.1.2-22])",
            });
        }
        let mut flags = 0;
        for (present, flag) in [
            (self.clean_start, FLAG_CLEAN_START),
            (self.will.is_some(), FLAG_WILL),
            (self.will.is_some_and(|will| will.retain), FLAG_WILL_RETAIN),
            (self.username.is_some(), FLAG_USERNAME),
            (self.password.is_some(), FLAG_PASSWORD),
        ] {
            flags |= if present { flag } else { 0 };
        }
        flags |= self.will.map_or(0, |will| will.qos.code() << WILL_QOS_SHIFT);
        put_packet(out, PacketType::Connect.first_byte(), |out| {
            put_binary(out, "protocol name", PROTOCOL_NAME)?;
            out.extend_from_slice(&[self.version.level(), flags]);
            out.extend_from_slice(&self.keep_alive_secs.to_be_bytes());
            self.properties
                .put_for(out, self.version, PropertySite::Connect)?;
            put_string(out, "client identifier", self.client_id)?;
            if let Some(will) = &self.will {
                will.put(out, self.version)?;
            }
            if let Some(username) = self.username {
                put_string(out, "user name", username)?;
            }
            self.password
                .map_or(Ok(()), |password| put_binary(out, "password", password))
        })
    }
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_secs", &self.keep_alive_secs)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "…"))
            .field("properties", &self.properties)
            .finish()
    }
}

impl<'a> Will<'a> {
    fn take(reader: &mut Reader<'a>, flags: u8, version: ProtocolVersion) -> Result<Self, Violation> {
        let qos = will_qos(flags)?;
        let properties = Properties::take_for(reader, version, PropertySite::Will)?;
        let topic = topic_name(reader, "will topic")?;
        let payload = reader.bytes16("will payload")?;
        Ok(Self {
            qos,
            retain: flags & FLAG_WILL_RETAIN != 0,
            topic,
            payload,
            properties,
        })
    }

    fn put(&self, out: &mut Vec<u8>, version: ProtocolVersion) -> Result<(), EncodeError> {
        if check_topic_name(self.topic).is_err() {
            return Err(EncodeError::Rule {
                what: "the will topic is no topic name ([MQTT-4.7.1-1], [MQTT-4.7.3-1])",
            });
        }
        self.properties.put_for(out, version, PropertySite::Will)?;
        put_string(out, "will topic", self.topic)?;
        put_binary(out, "will payload", self.payload)
    }
}

impl fmt::Debug for Will<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("topic", &self.topic)
            .field("payload_len", &self.payload.len())
            .field("properties", &self.properties)
            .finish()
    }
}

const FLAG_RESERVED: u8 = 1;
const FLAG_CLEAN_START: u8 = 1 << 1;
const FLAG_WILL: u8 = 1 << 2;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_QOS: u8 = 0b11 << WILL_QOS_SHIFT;
const FLAG_WILL_RETAIN: u8 = 1 << 5;
const FLAG_PASSWORD: u8 = 1 << 6;
const FLAG_USERNAME: u8 = 1 << 7;

type Version = Result<ProtocolVersion, UnsupportedVersion>;

/// Takes protocol name and level; the old name of MQTT 3.1 is recognised, so that its clients get an answer.
fn take_version(body: &[u8]) -> Result<(Version, Reader<'_>), Violation> {
    let mut reader = Reader::new(body);
    let name = reader.bytes16("protocol name")?;
    if name != PROTOCOL_NAME && name != PROTOCOL_NAME_3_1 {
        return Err(Violation::protocol(
            "the protocol name is not MQTT ([MQTT-3.1.2-1])",
        ));
    }
    let level = reader.u8("protocol level")?;
    let version = match ProtocolVersion::from_level(level) {
        Some(version) if name == PROTOCOL_NAME => Ok(version),
        Some(_) => {
            return Err(Violation::protocol(
                "the protocol name is not that of the version ([MQTT-3.1.2-1])",
            ));
        }
        None => Err(UnsupportedVersion { level }),
    };
    Ok((version, reader))
}

const PROTOCOL_NAME_3_1: &[u8] = b"MQIsdp";

fn check_flags(flags: u8, version: ProtocolVersion) -> Result<(), Violation> {
    if flags & FLAG_RESERVED != 0 {
        return Err(Violation::malformed(
            "the reserved connect flag is set ([MQTT-3.1.2-3])",
        ));
    }
    if flags & FLAG_WILL == 0 && flags & (WILL_QOS | FLAG_WILL_RETAIN) != 0 {
        return Err(Violation::malformed(
            "will QoS or will retain stand without a will ([MQTT-3.1.2-11], [MQTT-3.1.2-13])",
        ));
    }
    will_qos(flags)?;
    if version == ProtocolVersion::V311 && flags & FLAG_PASSWORD != 0 && flags & FLAG_USERNAME == 0 {
        return Err(Violation::malformed(
            "a password stands without a user name (3.1.1 [MQTT-3.1.2-22])",
        ));
    }
    Ok(())
}

fn will_qos(flags: u8) -> Result<Qos, Violation> {
    Qos::from_code((flags & WILL_QOS) >> WILL_QOS_SHIFT).ok_or(Violation::malformed(
        "the will QoS is 3 ([MQTT-3.1.2-12], 3.1.1 [MQTT-3.1.2-14])",
    ))
}
