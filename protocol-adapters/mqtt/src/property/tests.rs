use super::*;

/// One valid encoding of each property.
fn sample(identifier: u8) -> Vec<u8> {
    let value: &[u8] = match identifier {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a | 0x0b => &[1],
        0x02 | 0x11 | 0x18 | 0x27 => &[0, 0, 0, 1],
        0x13 | 0x21 | 0x22 | 0x23 => &[0, 1],
        0x26 => &[0, 1, b'k', 0, 1, b'v'],
        _ => &[0, 1, b'x'],
    };
    let mut bytes = vec![identifier];
    bytes.extend_from_slice(value);
    bytes
}

fn take(section: &[u8], site: PropertySite) -> Result<usize, ReasonCode> {
    let mut bytes = Vec::new();
    put_variable_byte_integer(&mut bytes, u32::try_from(section.len()).unwrap());
    bytes.extend_from_slice(section);
    let mut reader = Reader::new(&bytes);
    let properties = Properties::take(&mut reader, site).map_err(|violation| violation.reason())?;
    assert!(reader.is_empty());
    Ok(properties.iter().count())
}

/// MQTT 5.0 table 2-4, typed off a second time in another form: letters of the sites for each property.
/// c CONNECT, w will, C CONNACK, p PUBLISH, a PUBACK, r PUBREC, R PUBREL, o PUBCOMP, s SUBSCRIBE, S SUBACK, u UNSUBSCRIBE,
/// U UNSUBACK, d DISCONNECT, A AUTH.
const TABLE_2_4: [(u8, &str); 27] = [
    (0x01, "pw"),
    (0x02, "pw"),
    (0x03, "pw"),
    (0x08, "pw"),
    (0x09, "pw"),
    (0x0b, "ps"),
    (0x11, "cCd"),
    (0x12, "C"),
    (0x13, "C"),
    (0x15, "cCA"),
    (0x16, "cCA"),
    (0x17, "c"),
    (0x18, "w"),
    (0x19, "c"),
    (0x1a, "C"),
    (0x1c, "Cd"),
    (0x1f, "CarRoSUdA"),
    (0x21, "cC"),
    (0x22, "cC"),
    (0x23, "p"),
    (0x24, "C"),
    (0x25, "C"),
    (0x26, "cwCparRosSuUdA"),
    (0x27, "cC"),
    (0x28, "C"),
    (0x29, "C"),
    (0x2a, "C"),
];
const LETTERS: &str = "cwCparRosSuUdA";

#[test]
fn each_property_is_taken_where_table_2_4_allows_it_and_nowhere_else() {
    assert_eq!(TABLE_2_4.map(|row| row.0), Property::IDENTIFIERS);
    for (identifier, sites) in TABLE_2_4 {
        for (site, letter) in PropertySite::ALL.into_iter().zip(LETTERS.chars()) {
            let mut section = sample(identifier);
            if identifier == 0x16 {
                section.extend(sample(0x15));
            }
            let expected = if sites.contains(letter) {
                Ok(if identifier == 0x16 { 2 } else { 1 })
            } else {
                Err(ReasonCode::MalformedPacket)
            };
            assert_eq!(take(&section, site), expected, "0x{identifier:02x} in {site:?}");
        }
    }
}

#[test]
fn only_user_properties_and_subscription_identifiers_of_publish_stand_twice() {
    for (identifier, sites) in TABLE_2_4 {
        for (site, letter) in PropertySite::ALL.into_iter().zip(LETTERS.chars()) {
            if !sites.contains(letter) {
                continue;
            }
            let twice = [sample(identifier), sample(identifier), sample(0x26)].concat();
            let repeatable = identifier == 0x26 || identifier == 0x0b && site == PropertySite::Publish;
            let expected = if repeatable {
                Ok(3)
            } else {
                Err(ReasonCode::ProtocolError)
            };
            assert_eq!(take(&twice, site), expected, "0x{identifier:02x} in {site:?}");
        }
    }
}

#[test]
fn values_that_their_section_forbids_are_refused() {
    use PropertySite::{ConnAck, Connect, Publish, Subscribe, Will};
    let cases: [(&[u8], PropertySite, ReasonCode); 18] = [
        (&[0x01, 2], Publish, ReasonCode::ProtocolError),
        (&[0x01, 0xff], Will, ReasonCode::ProtocolError),
        (&[0x17, 2], Connect, ReasonCode::ProtocolError),
        (&[0x19, 2], Connect, ReasonCode::ProtocolError),
        (&[0x21, 0, 0], Connect, ReasonCode::ProtocolError),
        (&[0x27, 0, 0, 0, 0], Connect, ReasonCode::ProtocolError),
        (&[0x24, 2], ConnAck, ReasonCode::ProtocolError),
        (&[0x25, 2], ConnAck, ReasonCode::ProtocolError),
        (&[0x0b, 0], Subscribe, ReasonCode::ProtocolError),
        (&[0x0b, 0x80, 0], Subscribe, ReasonCode::MalformedPacket),
        (
            &[0x0b, 0x80, 0x80, 0x80, 0x80, 1],
            Subscribe,
            ReasonCode::MalformedPacket,
        ),
        (&[0x23, 0, 0], Publish, ReasonCode::TopicAliasInvalid),
        (
            &[0x08, 0, 3, b'a', b'/', b'#'],
            Publish,
            ReasonCode::ProtocolError,
        ),
        (&[0x08, 0, 1, b'+'], Will, ReasonCode::ProtocolError),
        (&[0x16, 0, 1, 1], Connect, ReasonCode::ProtocolError),
        (&[0x03, 0, 1, 0], Publish, ReasonCode::MalformedPacket),
        (
            &[0x26, 0, 1, b'k', 0, 1, 0xff],
            Connect,
            ReasonCode::MalformedPacket,
        ),
        (&[0x03, 0, 2, b'a'], Publish, ReasonCode::MalformedPacket),
    ];
    for (section, site, expected) in cases {
        assert_eq!(take(section, site), Err(expected), "{section:02x?}");
    }
}

#[test]
fn identifiers_without_meaning_are_refused() {
    for identifier in 0..=u8::MAX {
        if !Property::IDENTIFIERS.contains(&identifier) {
            assert_eq!(
                take(&[identifier, 1], PropertySite::Connect),
                Err(ReasonCode::MalformedPacket)
            );
        }
    }
}

#[test]
fn a_property_length_beyond_the_packet_is_refused() {
    let mut reader = Reader::new(&[0x03, 0x26, 0, 0]);
    assert!(Properties::take(&mut reader, PropertySite::Connect).is_err());
    let mut reader = Reader::new(&[0x80, 0x00]);
    assert!(
        Properties::take(&mut reader, PropertySite::Connect).is_err(),
        "longer than needed"
    );
    let mut reader = Reader::new(&[]);
    assert!(Properties::take(&mut reader, PropertySite::Connect).is_err());
}

#[test]
fn a_list_that_breaks_a_rule_is_not_written() {
    let lists: [&[Property<'_>]; 5] = [
        &[Property::TopicAlias(1)],
        &[Property::ReceiveMaximum(0)],
        &[Property::ReceiveMaximum(1), Property::ReceiveMaximum(1)],
        &[Property::AuthenticationData(b"x")],
        &[Property::UserProperty(("a\0", "b"))],
    ];
    for list in lists {
        let mut out = Vec::new();
        assert!(
            Properties::from_list(list)
                .put(&mut out, PropertySite::Connect)
                .is_err()
        );
    }
}

#[test]
fn debug_shows_no_values() {
    let list = [
        Property::AuthenticationMethod("SECRET"),
        Property::AuthenticationData(b"SECRET"),
    ];
    assert_eq!(
        format!("{:?}", Properties::from_list(&list)),
        "[Property(0x15), Property(0x16)]"
    );
}
