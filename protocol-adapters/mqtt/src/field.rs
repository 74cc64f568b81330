//! The primitive fields of MQTT (MQTT 5.0 §1.5).
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::num::NonZeroU16;

use fieldgate_proto::wire::Reader;

use crate::{encode::EncodeError, violation::Violation};

/// The largest variable byte integer (MQTT 5.0 §1.5.5).
pub(crate) const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// Takes a UTF-8 encoded string (MQTT 5.0 §1.5.4): U+0000 is refused, everything else of UTF-8 is taken as it is, U+FEFF too.
pub(crate) fn string<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a str, Violation> {
    let bytes = reader.bytes16(field)?;
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Violation::malformed("a string is not UTF-8 ([MQTT-1.5.4-1], 3.1.1 [MQTT-1.5.3-1])"))?;
    if bytes.contains(&0) {
        return Err(Violation::malformed(
            "a string contains U+0000 ([MQTT-1.5.4-2], 3.1.1 [MQTT-1.5.3-2])",
        ));
    }
    Ok(text)
}

/// Takes a topic name: at least one character, no wildcard (MQTT 5.0 §4.7.1, §4.7.3).
pub(crate) fn topic_name<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a str, Violation> {
    let topic = string(reader, field)?;
    check_topic_name(topic)?;
    Ok(topic)
}

/// Refuses topic names that are empty or contain a wildcard.
pub(crate) fn check_topic_name(topic: &str) -> Result<(), Violation> {
    if topic.is_empty() {
        return Err(Violation::malformed("a topic name is empty ([MQTT-4.7.3-1])"));
    }
    if topic.bytes().any(|byte| byte == b'#' || byte == b'+') {
        return Err(Violation::malformed(
            "a topic name contains a wildcard ([MQTT-3.3.2-2], [MQTT-4.7.1-1])",
        ));
    }
    Ok(())
}

/// Takes a packet identifier, which is never zero (`[MQTT-2.2.1-3]`, 3.1.1 `[MQTT-2.3.1-1]`).
pub(crate) fn packet_identifier(reader: &mut Reader<'_>) -> Result<NonZeroU16, Violation> {
    NonZeroU16::new(reader.u16("packet identifier")?).ok_or(Violation::malformed(
        "the packet identifier is 0 ([MQTT-2.2.1-3], 3.1.1 [MQTT-2.3.1-1])",
    ))
}

/// Takes a variable byte integer in its shortest form (`[MQTT-1.5.5-1]`).
pub(crate) fn variable_byte_integer(reader: &mut Reader<'_>, field: &'static str) -> Result<u32, Violation> {
    match split_variable_byte_integer(reader.rest())? {
        Some(VariableByteInteger { shortest: false, .. }) => Err(Violation::malformed(
            "a variable byte integer is longer than needed ([MQTT-1.5.5-1])",
        )),
        Some(VariableByteInteger { value, len, .. }) => {
            reader.bytes(field, len)?;
            Ok(value)
        }
        None => {
            let have = reader.rest().len();
            reader.bytes(field, have.saturating_add(1))?;
            Ok(0)
        }
    }
}

/// A variable byte integer in front of other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VariableByteInteger {
    pub(crate) value: u32,
    /// Bytes it takes, 1 to 4.
    pub(crate) len: usize,
    /// Whether no shorter form holds the value.
    pub(crate) shortest: bool,
}

/// Reads the variable byte integer at the front of `bytes`; `None` if its end is not there yet.
pub(crate) fn split_variable_byte_integer(bytes: &[u8]) -> Result<Option<VariableByteInteger>, Violation> {
    let mut value = 0_u32;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        // Four times seven bits: the shift stays below 32.
        value |= u32::from(byte & 0x7f) << (index.saturating_mul(7));
        if byte & 0x80 == 0 {
            let shortest = index == 0 || *byte != 0;
            return Ok(Some(VariableByteInteger {
                value,
                len: index.saturating_add(1),
                shortest,
            }));
        }
    }
    if bytes.len() < 4 {
        return Ok(None);
    }
    Err(Violation::malformed(
        "a variable byte integer has more than 4 bytes (§1.5.5, 3.1.1 §2.2.3)",
    ))
}

/// Appends a variable byte integer.
///
/// # Panics
/// If `value` exceeds [`VARIABLE_BYTE_INTEGER_MAX`]: callers check.
pub(crate) fn put_variable_byte_integer(out: &mut Vec<u8>, mut value: u32) {
    assert!(
        value <= VARIABLE_BYTE_INTEGER_MAX,
        "{value} does not fit a variable byte integer"
    );
    loop {
        let [.., low] = (value & 0x7f).to_be_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends binary data behind a 16-bit length (MQTT 5.0 §1.5.6).
pub(crate) fn put_binary(out: &mut Vec<u8>, field: &'static str, bytes: &[u8]) -> Result<(), EncodeError> {
    let max = usize::from(u16::MAX);
    let Ok(len) = u16::try_from(bytes.len()) else {
        return Err(EncodeError::TooLong {
            field,
            len: bytes.len(),
            max,
        });
    };
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends a UTF-8 encoded string (MQTT 5.0 §1.5.4).
pub(crate) fn put_string(out: &mut Vec<u8>, field: &'static str, text: &str) -> Result<(), EncodeError> {
    if text.contains('\0') {
        return Err(EncodeError::Rule {
            what: "a string contains U+0000 ([MQTT-1.5.4-2])",
        });
    }
    put_binary(out, field, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MQTT 5.0 table 1-1 and MQTT 3.1.1 table 2.4: the ends of each length.
    #[test]
    fn variable_byte_integers_are_those_of_the_standard() {
        let cases: [(&[u8], u32); 9] = [
            (&[0x00], 0),
            (&[0x7f], 127),
            (&[0x80, 0x01], 128),
            (&[0xc1, 0x02], 321),
            (&[0xff, 0x7f], 16_383),
            (&[0x80, 0x80, 0x01], 16_384),
            (&[0xff, 0xff, 0x7f], 2_097_151),
            (&[0x80, 0x80, 0x80, 0x01], 2_097_152),
            (&[0xff, 0xff, 0xff, 0x7f], 268_435_455),
        ];
        for (bytes, value) in cases {
            assert_eq!(variable_byte_integer(&mut Reader::new(bytes), "x"), Ok(value));
            let mut out = Vec::new();
            put_variable_byte_integer(&mut out, value);
            assert_eq!(out, bytes);
            for end in 0..bytes.len() {
                assert_eq!(split_variable_byte_integer(&bytes[..end]), Ok(None));
                assert!(variable_byte_integer(&mut Reader::new(&bytes[..end]), "x").is_err());
            }
        }
        assert!(
            variable_byte_integer(&mut Reader::new(&[0x80, 0x00]), "x").is_err(),
            "longer than needed"
        );
        assert!(
            variable_byte_integer(&mut Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x01]), "x").is_err(),
            "five bytes"
        );
        assert!(split_variable_byte_integer(&[0xff, 0xff, 0xff, 0xff]).is_err());
    }

    /// MQTT 5.0 §1.5.4, figure 1-2: "A" and U+2A6D4, and the rules about U+0000, U+FEFF and surrogates.
    #[test]
    fn strings_are_those_of_the_standard() {
        let text = |bytes: &[u8]| string(&mut Reader::new(bytes), "x").ok().map(str::to_owned);
        assert_eq!(
            text(&[0x00, 0x05, 0x41, 0xf0, 0xaa, 0x9b, 0x94]).as_deref(),
            Some("A\u{2a6d4}")
        );
        assert_eq!(text(&[0x00, 0x03, 0xef, 0xbb, 0xbf]).as_deref(), Some("\u{feff}"));
        assert_eq!(text(&[0x00, 0x02, 0xc3, 0xa9]).as_deref(), Some("é"));
        assert_eq!(text(&[0x00, 0x00]).as_deref(), Some(""));
        assert_eq!(text(&[0x00, 0x01, 0x00]), None);
        assert_eq!(text(&[0x00, 0x03, 0xed, 0xa0, 0x80]), None, "a surrogate");
        assert_eq!(text(&[0x00, 0x02, 0xc0, 0x80]), None, "an overlong zero");
        assert_eq!(text(&[0x00, 0x02, 0xc3]), None);
        let mut out = Vec::new();
        assert!(put_string(&mut out, "x", "a\0").is_err());
        assert!(put_string(&mut out, "x", &"x".repeat(65_536)).is_err());
    }
}
