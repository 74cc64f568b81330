//! UNSUBSCRIBE (MQTT 5.0 §3.10, MQTT 3.1.1 §3.10).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use fieldgate_proto::wire::Reader;

use super::PacketIdentifier;
use crate::{
    encode::{EncodeError, put_packet},
    field::{packet_identifier, put_string, string},
    frame::PacketType,
    property::{Properties, PropertySite},
    version::ProtocolVersion,
    violation::Violation,
};

/// A client wants no more messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The packet identifier.
    pub packet_id: PacketIdentifier,
    /// Properties; empty in MQTT 3.1.1.
    pub properties: Properties<'a>,
    /// What it does not want any more, at least one.
    pub filters: Filters<'a>,
}

impl<'a> Unsubscribe<'a> {
    /// Reads the packet's body.
    ///
    /// # Errors
    /// [`Violation`] if the bytes break a rule of §3.10.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let packet_id = packet_identifier(&mut reader)?;
        let properties = Properties::take_for(&mut reader, version, PropertySite::Unsubscribe)?;
        let bytes = reader.rest();
        if reader.is_empty() {
            return Err(Violation::protocol(
                "UNSUBSCRIBE has no topic filter ([MQTT-3.10.3-2])",
            ));
        }
        while !reader.is_empty() {
            string(&mut reader, "topic filter")?;
        }
        Ok(Self {
            packet_id,
            properties,
            filters: Filters(Source::Encoded(bytes)),
        })
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] if a field is too long or a rule of the standard would be broken; `out` is then unchanged.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_packet(out, PacketType::Unsubscribe.first_byte(), |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            self.properties.put_for(out, version, PropertySite::Unsubscribe)?;
            let before = out.len();
            for filter in self.filters.iter() {
                put_string(out, "topic filter", filter)?;
            }
            if out.len() == before {
                return Err(EncodeError::Rule {
                    what: "UNSUBSCRIBE has no topic filter ([MQTT-3.10.3-2])",
                });
            }
            Ok(())
        })
    }
}

/// The topic filters of an UNSUBSCRIBE: a list, or the bytes of a packet that was read.
#[derive(Clone, Copy)]
pub struct Filters<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    List(&'a [&'a str]),
    /// Invariant: made by [`Unsubscribe::decode`], so it holds whole and valid filters.
    Encoded(&'a [u8]),
}

impl<'a> Filters<'a> {
    /// Wraps `list`.
    #[must_use]
    pub const fn from_list(list: &'a [&'a str]) -> Self {
        Self(Source::List(list))
    }

    /// Returns the filters in their order.
    #[must_use]
    pub const fn iter(&self) -> FiltersIter<'a> {
        FiltersIter(self.0)
    }
}

impl PartialEq for Filters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Filters<'_> {}

impl fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Filters<'a> {
    type Item = &'a str;
    type IntoIter = FiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The topic filters of an UNSUBSCRIBE in their order.
#[derive(Clone)]
pub struct FiltersIter<'a>(Source<'a>);

impl fmt::Debug for FiltersIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Filters(self.0), f)
    }
}

impl<'a> Iterator for FiltersIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::List(list) => {
                let (first, rest) = list.split_first()?;
                *list = rest;
                Some(first)
            }
            Source::Encoded(bytes) => {
                let mut reader = Reader::new(bytes);
                // Checked by `decode`: the only error left is the end.
                let filter = string(&mut reader, "topic filter").ok()?;
                *bytes = reader.rest();
                Some(filter)
            }
        }
    }
}
