//! A record as a sink writes it: named values, as a JSON object or a CBOR map.

use std::borrow::Cow;

/// Values with their names, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record<'a> {
    entries: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// A value of a record.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes; in JSON as Base64 (RFC 4648 §4).
    Bytes(&'a [u8]),
    /// A number.
    Number(u64),
    /// Texts in order.
    Texts(&'a [String]),
    /// Names with texts.
    Pairs(Vec<(&'a str, &'a str)>),
    /// A JSON text that was found to be one. JSON only.
    Json(&'a [u8]),
    /// Another record.
    Record(Record<'a>),
}

impl<'a> Record<'a> {
    /// Appends a value.
    pub(crate) fn push(&mut self, name: impl Into<Cow<'a, str>>, value: Value<'a>) {
        self.entries.push((name.into(), value));
    }

    /// Appends a text.
    pub(crate) fn text(&mut self, name: &'a str, text: impl Into<Cow<'a, str>>) {
        self.push(name, Value::Text(text.into()));
    }

    /// Appends the record as a JSON object on one line, without an end.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (name, value)) in self.entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json_text(out, name);
            out.push(b':');
            value.write_json(out);
        }
        out.push(b'}');
    }

    /// Appends the record as a CBOR map of definite length (RFC 8949 §4.2.1, but in the order of the record).
    pub(crate) fn write_cbor(&self, out: &mut Vec<u8>) {
        cbor_head(out, MAP, self.entries.len() as u64);
        for (name, value) in &self.entries {
            cbor_text(out, name);
            value.write_cbor(out);
        }
    }
}

impl Value<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => json_text(out, text),
            Self::Bytes(bytes) => json_text(out, &data_encoding::BASE64.encode(bytes)),
            Self::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Texts(texts) => {
                out.push(b'[');
                for (index, text) in texts.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    json_text(out, text);
                }
                out.push(b']');
            }
            Self::Pairs(pairs) => {
                out.push(b'{');
                for (index, (name, text)) in pairs.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    json_text(out, name);
                    out.push(b':');
                    json_text(out, text);
                }
                out.push(b'}');
            }
            // A line feed in valid JSON is white space (RFC 8259 §2), and the record is to stand on one line.
            Self::Json(text) => out.extend(text.iter().map(|byte| match byte {
                b'\n' | b'\r' => b' ',
                byte => *byte,
            })),
            Self::Record(record) => record.write_json(out),
        }
    }

    fn write_cbor(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => cbor_text(out, text),
            Self::Bytes(bytes) | Self::Json(bytes) => {
                cbor_head(out, BYTES, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Self::Number(number) => cbor_head(out, UNSIGNED, *number),
            Self::Texts(texts) => {
                cbor_head(out, ARRAY, texts.len() as u64);
                texts.iter().for_each(|text| cbor_text(out, text));
            }
            Self::Pairs(pairs) => {
                cbor_head(out, MAP, pairs.len() as u64);
                for (name, text) in pairs {
                    cbor_text(out, name);
                    cbor_text(out, text);
                }
            }
            Self::Record(record) => record.write_cbor(out),
        }
    }
}

fn json_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing text to memory cannot fail");
}

fn cbor_text(out: &mut Vec<u8>, text: &str) {
    cbor_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a head in its shortest form (RFC 8949 §3, §4.2.1).
fn cbor_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    let bytes = argument.to_be_bytes();
    match argument {
        0..=23 => out.push(major | bytes[7]),
        24..=0xff => out.extend_from_slice(&[major | 24, bytes[7]]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&bytes[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Returns the length of the first data item in `bytes`, if it is whole and one that [`Record::write_cbor`] writes: no tags,
/// no indefinite lengths, nested at most [`DEPTH_MAX`] deep.
pub(crate) fn cbor_item_len(bytes: &[u8]) -> Option<usize> {
    item_end(bytes, 0, 0)
}

fn item_end(bytes: &[u8], at: usize, depth: u8) -> Option<usize> {
    if depth > DEPTH_MAX {
        return None;
    }
    let (major, argument, mut at) = head(bytes, at)?;
    match major {
        UNSIGNED => Some(at),
        BYTES | TEXT => {
            let end = at.checked_add(usize::try_from(argument).ok()?)?;
            (end <= bytes.len()).then_some(end)
        }
        ARRAY | MAP => {
            let items = if major == MAP {
                argument.checked_mul(2)?
            } else {
                argument
            };
            for _ in 0..items {
                at = item_end(bytes, at, depth + 1)?;
            }
            Some(at)
        }
        _ => None,
    }
}

/// Returns major type, argument and where the head ends.
fn head(bytes: &[u8], at: usize) -> Option<(u8, u64, usize)> {
    let first = *bytes.get(at)?;
    let len = match first & 0x1f {
        small @ 0..=23 => return Some((first >> 5, u64::from(small), at + 1)),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return None,
    };
    let argument = bytes.get(at + 1..at + 1 + len)?;
    let argument = argument.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Some((first >> 5, argument, at + 1 + len))
}

/// Returns the text under the first name of a map, if the name is `name`.
pub(crate) fn cbor_first_text<'b>(bytes: &'b [u8], name: &str) -> Option<&'b str> {
    let (MAP, 1.., at) = head(bytes, 0)? else {
        return None;
    };
    let (key, at) = text_at(bytes, at)?;
    (key == name)
        .then(|| text_at(bytes, at))
        .flatten()
        .map(|(text, _)| text)
}

fn text_at(bytes: &[u8], at: usize) -> Option<(&str, usize)> {
    let (TEXT, len, at) = head(bytes, at)? else {
        return None;
    };
    let end = at.checked_add(usize::try_from(len).ok()?)?;
    Some((std::str::from_utf8(bytes.get(at..end)?).ok()?, end))
}

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
/// Deepest nesting of a record.
const DEPTH_MAX: u8 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_and_cbor_say_the_same() {
        let texts = ["a".to_owned(), "b".to_owned()];
        let mut record = Record::default();
        record.text("id", "x\"\n");
        record.push("n", Value::Number(500));
        record.push("b", Value::Bytes(&[0xff, 0]));
        record.push("l", Value::Texts(&texts));
        record.push("p", Value::Pairs(vec![("k", "v")]));
        let mut json = Vec::new();
        record.write_json(&mut json);
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"id":"x\"\n","n":500,"b":"/wA=","l":["a","b"],"p":{"k":"v"}}"#
        );
        let mut cbor = Vec::new();
        record.write_cbor(&mut cbor);
        // As RFC 8949 §3 has it, by hand.
        let wanted =
            b"\xa5\x62id\x63x\"\n\x61n\x19\x01\xf4\x61b\x42\xff\x00\x61l\x82\x61a\x61b\x61p\xa1\x61k\x61v";
        assert_eq!(cbor, wanted);
        assert_eq!(cbor_first_text(&cbor, "id"), Some("x\"\n"));
        assert_eq!(cbor_first_text(&cbor, "n"), None);
    }

    #[test]
    fn heads_are_as_short_as_they_can_be() {
        // RFC 8949 Appendix A.
        for (number, wanted) in [
            (0, &[0x00][..]),
            (23, &[0x17]),
            (24, &[0x18, 0x18]),
            (1000, &[0x19, 0x03, 0xe8]),
            (1_000_000, &[0x1a, 0x00, 0x0f, 0x42, 0x40]),
            (u64::MAX, &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ] {
            let mut out = Vec::new();
            cbor_head(&mut out, UNSIGNED, number);
            assert_eq!(out, wanted);
        }
    }

    #[test]
    fn json_payloads_stay_as_they_are_on_one_line() {
        let mut out = Vec::new();
        Value::Json(b"{\"v\":8.10,\r\n \"w\":1e400}").write_json(&mut out);
        assert_eq!(out, b"{\"v\":8.10,   \"w\":1e400}");
    }

    proptest! {
        #[test]
        fn the_length_of_an_item_is_found_and_no_part_of_it_is_whole(
            id in "\\PC{0,300}", payload in prop::collection::vec(any::<u8>(), 0..300), number: u64, rest in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut record = Record::default();
            record.text("id", id.as_str());
            record.push("payload", Value::Bytes(&payload));
            record.push("n", Value::Number(number));
            let mut cbor = Vec::new();
            record.write_cbor(&mut cbor);
            let len = cbor.len();
            for cut in 0..len {
                prop_assert_eq!(cbor_item_len(&cbor[..cut]), None);
            }
            prop_assert_eq!(cbor_first_text(&cbor, "id"), Some(id.as_str()));
            cbor.extend_from_slice(&rest);
            prop_assert_eq!(cbor_item_len(&cbor), Some(len));
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(len) = cbor_item_len(&bytes) {
                prop_assert!(len <= bytes.len());
            }
            let _ = cbor_first_text(&bytes, "id");
        }

        #[test]
        fn written_json_is_json(text in "\\PC{0,40}|[\\x00-\\x20]{0,9}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut record = Record::default();
            record.push(text.as_str(), Value::Text(text.as_str().into()));
            record.push("b", Value::Bytes(&bytes));
            let mut json = Vec::new();
            record.write_json(&mut json);
            let parsed: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            prop_assert!(parsed.get(&text).is_some() && !json.contains(&b'\n'));
        }
    }
}
