//! Packets by hand, byte for byte from the standards, without the codec that is under test.

use fieldgate_mqtt::version::ProtocolVersion;

pub(crate) const V311: ProtocolVersion = ProtocolVersion::V311;
pub(crate) const V5: ProtocolVersion = ProtocolVersion::V5;

/// A packet: first byte, remaining length, body.
pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first];
    let mut len = body.len();
    loop {
        let byte = u8::try_from(len % 128).unwrap();
        len /= 128;
        out.push(byte | if len > 0 { 0x80 } else { 0 });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(&body);
    out
}

/// A string or binary data behind its length.
pub(crate) fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// The properties, behind their length, in MQTT 5.0; nothing in MQTT 3.1.1.
pub(crate) fn properties(version: ProtocolVersion, section: &[u8]) -> Vec<u8> {
    match version {
        ProtocolVersion::V311 => Vec::new(),
        ProtocolVersion::V5 => [&[u8::try_from(section.len()).unwrap()], section].concat(),
    }
}

/// A CONNECT with any flags, properties and payload.
pub(crate) fn connect(version: ProtocolVersion, flags: u8, section: &[u8], payload: &[&[u8]]) -> Vec<u8> {
    let keep_alive = [0, 60];
    packet(
        0x10,
        &[
            &string("MQTT"),
            &[version.level(), flags],
            &keep_alive,
            &properties(version, section),
            &payload.concat(),
        ],
    )
}

/// A CONNECT with clean start, client identifier "c" and nothing else.
pub(crate) fn plain_connect(version: ProtocolVersion) -> Vec<u8> {
    connect(version, 0x02, &[], &[&string("c")])
}

/// A CONNECT of the device in the table.
pub(crate) fn device_connect(version: ProtocolVersion, password: &str) -> Vec<u8> {
    connect(
        version,
        0xc2,
        &[],
        &[&string("c"), &string("user"), &string(password)],
    )
}

/// A PUBLISH; `flags` are the lower half of the first byte, the packet identifier is there if they have a QoS.
pub(crate) fn publish(
    version: ProtocolVersion,
    flags: u8,
    topic: impl AsRef<[u8]>,
    packet_id: u16,
    section: &[u8],
    payload: impl AsRef<[u8]>,
) -> Vec<u8> {
    let id = if flags & 0b0110 == 0 {
        Vec::new()
    } else {
        packet_id.to_be_bytes().to_vec()
    };
    packet(
        0x30 | flags,
        &[
            &string(topic),
            &id,
            &properties(version, section),
            payload.as_ref(),
        ],
    )
}

/// A PUBLISH at QoS 1 on topic "t".
pub(crate) fn publish_1(version: ProtocolVersion, packet_id: u16, payload: &str) -> Vec<u8> {
    publish(version, 0x02, "t", packet_id, &[], payload)
}
