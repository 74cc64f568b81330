//! One message from a device, and its form on the wire (PROTOCOL.md §9).
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::fmt;

use fieldgate_proto::{
    time::{ClockQuality, WallTime},
    wire::{Reader, VARINT_MAX, WireError, put_bytes_varint, put_bytes8, put_varint, varint_len},
};

use crate::class::Class;

/// One message from a field device.
///
/// All texts and bytes are borrowed, from the device's packet or from the encoded reading; nothing is allocated.
/// The payload never shows in `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reading<'a> {
    /// Name of the device, 1 to 255 bytes.
    pub device: &'a str,
    /// What of the device: the MQTT topic, the CoAP path, the BLE characteristic.
    pub resource: &'a str,
    /// MIME type of the payload, at most 255 bytes.
    pub content_type: Option<&'a str>,
    /// Name and value pairs the device added, at most [`USER_PROPERTIES_MAX`].
    pub user_properties: UserProperties<'a>,
    /// The message itself.
    pub payload: &'a [u8],
    /// When the gateway received it, and how far its clock could be believed.
    pub captured_at: WallTime,
    /// How urgent it is.
    pub class: Class,
}

impl<'a> Reading<'a> {
    /// Returns the length of the encoded reading in bytes.
    ///
    /// # Errors
    /// [`ReadingError`] if a field or the whole exceeds its limit.
    pub fn encoded_len(&self) -> Result<usize, ReadingError> {
        if self.device.is_empty() {
            return Err(ReadingError::NoDevice);
        }
        within("device", self.device.len(), DEVICE_LEN_MAX)?;
        let mut len = 1_usize
            .saturating_add(varint_len(self.captured_at_millis()))
            .saturating_add(1)
            .saturating_add(self.device.len())
            .saturating_add(bytes_varint_len(self.resource.as_bytes()));
        if let Some(content_type) = self.content_type {
            within("content type", content_type.len(), CONTENT_TYPE_LEN_MAX)?;
            len = len.saturating_add(1).saturating_add(content_type.len());
        }
        within("user properties", self.user_properties.len(), USER_PROPERTIES_MAX)?;
        if !self.user_properties.is_empty() {
            len = len.saturating_add(varint_len(self.user_properties.len() as u64));
        }
        for (key, value) in self.user_properties.iter() {
            len = len
                .saturating_add(bytes_varint_len(key.as_bytes()))
                .saturating_add(bytes_varint_len(value.as_bytes()));
        }
        len = len.saturating_add(self.payload.len());
        within("reading", len, READING_LEN_MAX)?;
        Ok(len)
    }

    /// Appends the encoded reading to `out`.
    ///
    /// A capture time beyond what a variable-length integer holds (the year 146 million) is written as the largest.
    ///
    /// # Errors
    /// [`ReadingError`] if a field or the whole exceeds its limit; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), ReadingError> {
        let len = self.encoded_len()?;
        out.reserve(len);
        let mut flags = self.class.code() | self.captured_at.quality.code() << QUALITY_SHIFT;
        if self.content_type.is_some() {
            flags |= FLAG_CONTENT_TYPE;
        }
        if !self.user_properties.is_empty() {
            flags |= FLAG_USER_PROPERTIES;
        }
        out.push(flags);
        put_varint(out, self.captured_at_millis());
        put_bytes8(out, self.device.as_bytes());
        put_bytes_varint(out, self.resource.as_bytes());
        if let Some(content_type) = self.content_type {
            put_bytes8(out, content_type.as_bytes());
        }
        if !self.user_properties.is_empty() {
            put_varint(out, self.user_properties.len() as u64);
            for (key, value) in self.user_properties.iter() {
                put_bytes_varint(out, key.as_bytes());
                put_bytes_varint(out, value.as_bytes());
            }
        }
        out.extend_from_slice(self.payload);
        Ok(())
    }

    /// Reads an encoded reading; the result borrows `bytes`.
    ///
    /// # Errors
    /// [`WireError`] for anything that [`encode`](Self::encode) would not have written.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() > READING_LEN_MAX {
            return Err(WireError::Value {
                field: "length of the reading",
                value: bytes.len() as u64,
            });
        }
        let mut reader = Reader::new(bytes);
        let flags = reader.u8("flags")?;
        let bad_flags = WireError::Value {
            field: "flags",
            value: u64::from(flags),
        };
        if flags & FLAGS_RESERVED != 0 {
            return Err(bad_flags);
        }
        let class = Class::from_code(flags & CLASS_MASK).ok_or(bad_flags)?;
        let quality = ClockQuality::from_code(flags >> QUALITY_SHIFT & QUALITY_MASK).ok_or(bad_flags)?;
        let unix_millis = reader.varint("captured at")?;
        let device = reader.text8("device")?;
        if device.is_empty() {
            return Err(WireError::Value {
                field: "length of the device",
                value: 0,
            });
        }
        let resource = text_varint(&mut reader, "resource")?;
        let content_type = if flags & FLAG_CONTENT_TYPE == 0 {
            None
        } else {
            Some(reader.text8("content type")?)
        };
        let user_properties = if flags & FLAG_USER_PROPERTIES == 0 {
            UserProperties::EMPTY
        } else {
            UserProperties::decode(&mut reader)?
        };
        Ok(Self {
            device,
            resource,
            content_type,
            user_properties,
            payload: reader.rest(),
            captured_at: WallTime { unix_millis, quality },
            class,
        })
    }

    fn captured_at_millis(&self) -> u64 {
        self.captured_at.unix_millis.min(VARINT_MAX)
    }
}

impl fmt::Debug for Reading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading")
            .field("device", &self.device)
            .field("resource", &self.resource)
            .field("content_type", &self.content_type)
            .field("user_properties", &self.user_properties)
            .field("payload_len", &self.payload.len())
            .field("captured_at", &self.captured_at)
            .field("class", &self.class)
            .finish()
    }
}

/// Name and value pairs of a reading: names may repeat, the order is kept (MQTT 5.0 §3.3.2.3.7).
#[derive(Clone, Copy)]
pub struct UserProperties<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Pairs(&'a [(&'a str, &'a str)]),
    /// As on the wire, without the count in front. Invariant: holds `count` pairs of UTF-8 texts and nothing else.
    Encoded {
        count: usize,
        bytes: &'a [u8],
    },
}

impl<'a> UserProperties<'a> {
    /// No pairs.
    pub const EMPTY: Self = Self(Source::Pairs(&[]));

    /// Wraps `pairs`.
    #[must_use]
    pub const fn from_pairs(pairs: &'a [(&'a str, &'a str)]) -> Self {
        Self(Source::Pairs(pairs))
    }

    /// Returns the number of pairs.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            Source::Pairs(pairs) => pairs.len(),
            Source::Encoded { count, .. } => count,
        }
    }

    /// Returns whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the pairs in their order.
    #[must_use]
    pub const fn iter(&self) -> UserPropertiesIter<'a> {
        UserPropertiesIter(self.0)
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.varint("number of user properties")?;
        let bad_count = WireError::Value {
            field: "number of user properties",
            value: count,
        };
        let count = usize::try_from(count).map_err(|_| bad_count)?;
        if count == 0 || count > USER_PROPERTIES_MAX {
            return Err(bad_count);
        }
        let all = reader.rest();
        for _ in 0..count {
            text_varint(reader, "name of a user property")?;
            text_varint(reader, "value of a user property")?;
        }
        let used = all.len().saturating_sub(reader.rest().len());
        let bytes = Reader::new(all).bytes("user properties", used)?;
        Ok(Self(Source::Encoded { count, bytes }))
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserProperties({} pairs)", self.len())
    }
}

impl<'a> IntoIterator for UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertiesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The pairs of [`UserProperties`] in their order.
#[derive(Clone)]
pub struct UserPropertiesIter<'a>(Source<'a>);

impl fmt::Debug for UserPropertiesIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&UserProperties(self.0), f)
    }
}

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Pairs(pairs) => {
                let (first, rest) = pairs.split_first()?;
                *pairs = rest;
                Some(*first)
            }
            Source::Encoded { count, bytes } => {
                *count = count.checked_sub(1)?;
                let mut reader = Reader::new(bytes);
                // The section was checked when it was decoded, so neither text can fail here.
                let name = text_varint(&mut reader, "name of a user property").ok()?;
                let value = text_varint(&mut reader, "value of a user property").ok()?;
                *bytes = reader.rest();
                Some((name, value))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = UserProperties(self.0).len();
        (len, Some(len))
    }
}

impl ExactSizeIterator for UserPropertiesIter<'_> {}

/// Why a reading cannot be encoded: the device sent more than a reading holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadingError {
    /// The device's name is empty.
    #[error("the device has no name")]
    NoDevice,
    /// A field or the whole exceeds its limit; in bytes, for user properties in pairs.
    #[error("{field} has the length {len}, at most {max} is allowed")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The largest length.
        max: usize,
    },
}

impl ReadingError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NoDevice => "give the device a name in the device table, or a client identifier",
            Self::TooLong { .. } => "let the device send smaller messages",
        }
    }
}

/// Bytes of an encoded reading at most (PROTOCOL.md §14).
pub const READING_LEN_MAX: usize = 65_000;
/// Bytes of a device's name at most.
pub const DEVICE_LEN_MAX: usize = 255;
/// Bytes of a content type at most.
pub const CONTENT_TYPE_LEN_MAX: usize = 255;
/// Pairs of user properties in a reading at most.
pub const USER_PROPERTIES_MAX: usize = 32;

const CLASS_MASK: u8 = 0b11;
const QUALITY_SHIFT: u8 = 2;
const QUALITY_MASK: u8 = 0b11;
const FLAG_CONTENT_TYPE: u8 = 1 << 4;
const FLAG_USER_PROPERTIES: u8 = 1 << 5;
const FLAGS_RESERVED: u8 = 0b1100_0000;

const fn within(field: &'static str, len: usize, max: usize) -> Result<(), ReadingError> {
    if len > max {
        Err(ReadingError::TooLong { field, len, max })
    } else {
        Ok(())
    }
}

const fn bytes_varint_len(bytes: &[u8]) -> usize {
    varint_len(bytes.len() as u64).saturating_add(bytes.len())
}

fn text_varint<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a str, WireError> {
    std::str::from_utf8(reader.bytes_varint(field)?).map_err(|_| WireError::Utf8 { field })
}

#[cfg(test)]
mod tests;
