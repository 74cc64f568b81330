use proptest::prelude::*;

use super::*;

const PLAIN: Reading<'_> = Reading {
    device: "pump-7",
    resource: "hall/pressure",
    content_type: None,
    user_properties: UserProperties::EMPTY,
    payload: b"4.2",
    captured_at: WallTime {
        unix_millis: 1_700_000_000_000,
        quality: ClockQuality::Synchronised,
    },
    class: Class::Normal,
};

fn encoded(reading: &Reading<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    reading
        .encode(&mut out)
        .expect("the reading is within its limits");
    out
}

/// Written by hand from PROTOCOL.md §9.
#[test]
fn has_the_bytes_of_the_protocol_text() {
    let mut expected = vec![0b0000_1001];
    expected.extend_from_slice(&(1_700_000_000_000_u64 | 0b11 << 62).to_be_bytes());
    expected.extend_from_slice(b"\x06pump-7\x0dhall/pressure4.2");
    assert_eq!(encoded(&PLAIN), expected);

    let full = Reading {
        content_type: Some("text/plain"),
        user_properties: UserProperties::from_pairs(&[("unit", "bar"), ("unit", "")]),
        captured_at: WallTime {
            unix_millis: 5,
            quality: ClockQuality::Unknown,
        },
        class: Class::Alarm,
        ..PLAIN
    };
    assert_eq!(
        encoded(&full),
        b"\x30\x05\x06pump-7\x0dhall/pressure\x0atext/plain\x02\x04unit\x03bar\x04unit\x004.2"
    );
}

#[test]
fn refuses_what_encode_does_not_write() {
    let cases: [(&[u8], &str); 11] = [
        (b"", "flags"),
        (b"\x40\x05\x01d\x01r", "flags"),
        (b"\x80\x05\x01d\x01r", "flags"),
        (b"\x03\x05\x01d\x01r", "flags"),
        (b"\x0c\x05\x01d\x01r", "flags"),
        (b"\x00\x40\x05\x01d\x01r", "captured at"),
        (b"\x00\x05\x00\x01r", "length of the device"),
        (b"\x00\x05\x01\xff\x01r", "device"),
        (b"\x00\x05\x01d\x02r", "resource"),
        (b"\x20\x05\x01d\x01r\x00", "number of user properties"),
        (b"\x20\x05\x01d\x01r\x21", "number of user properties"),
    ];
    for (bytes, expected) in cases {
        let error = Reading::decode(bytes).expect_err("the case is malformed");
        let field = match error {
            WireError::Truncated { field, .. }
            | WireError::Value { field, .. }
            | WireError::Utf8 { field } => field,
            WireError::Trailing { .. } => "trailing",
        };
        assert_eq!(field, expected, "{bytes:02x?}");
    }
}

#[test]
fn a_reading_beyond_a_limit_leaves_the_buffer_alone() {
    let long = "x".repeat(256);
    let pairs = [("k", "v"); 33];
    let payload = vec![0; READING_LEN_MAX];
    let cases = [
        (Reading { device: "", ..PLAIN }, ReadingError::NoDevice),
        (
            Reading {
                device: &long,
                ..PLAIN
            },
            ReadingError::TooLong {
                field: "device",
                len: 256,
                max: 255,
            },
        ),
        (
            Reading {
                content_type: Some(&long),
                ..PLAIN
            },
            ReadingError::TooLong {
                field: "content type",
                len: 256,
                max: 255,
            },
        ),
        (
            Reading {
                user_properties: UserProperties::from_pairs(&pairs),
                ..PLAIN
            },
            ReadingError::TooLong {
                field: "user properties",
                len: 33,
                max: 32,
            },
        ),
        (
            Reading {
                payload: &payload,
                ..PLAIN
            },
            ReadingError::TooLong {
                field: "reading",
                len: 65_030,
                max: 65_000,
            },
        ),
    ];
    for (reading, expected) in cases {
        let mut out = vec![1, 2, 3];
        assert_eq!(reading.encode(&mut out), Err(expected));
        assert_eq!(out, [1, 2, 3]);
    }
}

#[test]
fn the_largest_reading_comes_back_and_one_byte_more_is_refused() {
    let payload = vec![7; READING_LEN_MAX - encoded(&PLAIN).len() + PLAIN.payload.len()];
    let reading = Reading {
        payload: &payload,
        ..PLAIN
    };
    let mut bytes = encoded(&reading);
    assert_eq!(bytes.len(), READING_LEN_MAX);
    assert_eq!(Reading::decode(&bytes), Ok(reading));
    bytes.push(7);
    assert_eq!(
        Reading::decode(&bytes),
        Err(WireError::Value {
            field: "length of the reading",
            value: 65_001
        })
    );
}

#[test]
fn debug_shows_no_payload_and_no_property_values() {
    let reading = Reading {
        payload: b"secret-payload",
        user_properties: UserProperties::from_pairs(&[("token", "secret-value")]),
        ..PLAIN
    };
    let shown = format!("{reading:?}");
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("payload_len: 14"), "{shown}");
}

fn class() -> impl Strategy<Value = Class> {
    prop::sample::select(Class::ALL.to_vec())
}

fn quality() -> impl Strategy<Value = ClockQuality> {
    prop::sample::select(vec![
        ClockQuality::Unknown,
        ClockQuality::Floor,
        ClockQuality::Synchronised,
    ])
}

proptest! {
    #[test]
    fn readings_come_back(
        device in "\\PC{1,60}",
        resource in "\\PC{0,100}",
        content_type in prop::option::of("\\PC{0,60}"),
        pairs in prop::collection::vec(("\\PC{0,80}", "\\PC{0,80}"), 0..=32),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        unix_millis in 0..=VARINT_MAX,
        quality in quality(),
        class in class(),
    ) {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let reading = Reading {
            device: &device,
            resource: &resource,
            content_type: content_type.as_deref(),
            user_properties: UserProperties::from_pairs(&pairs),
            payload: &payload,
            captured_at: WallTime { unix_millis, quality },
            class,
        };
        let bytes = encoded(&reading);
        prop_assert_eq!(reading.encoded_len(), Ok(bytes.len()));
        let decoded = Reading::decode(&bytes);
        prop_assert_eq!(decoded, Ok(reading));
        let again = encoded(&decoded.expect("decoded above"));
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn any_bytes_are_refused_or_written_the_same(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(reading) = Reading::decode(&bytes) {
            prop_assert_eq!(encoded(&reading), bytes);
        }
    }

    #[test]
    fn a_changed_byte_never_panics(at in 0_usize..40, value: u8) {
        let mut bytes = encoded(&Reading {
            content_type: Some("text/plain"),
            user_properties: UserProperties::from_pairs(&[("unit", "bar")]),
            ..PLAIN
        });
        let index = at % bytes.len();
        bytes[index] = value;
        if let Ok(reading) = Reading::decode(&bytes) {
            prop_assert_eq!(encoded(&reading), bytes);
        }
    }
}
