//! MQTT packets in both versions: what is taken can be written and means the same then.

use fieldgate_mqtt::frame::{Split, split};
use fieldgate_mqtt::packet::Packet;
use fieldgate_mqtt::version::ProtocolVersion;

/// Reads the input as a packet of each version.
pub fn run(data: &[u8]) {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let Ok(Split::Complete { frame, .. }) = split(data, PACKET_MAX) else {
            return;
        };
        let Ok(packet) = Packet::decode(&frame, version) else {
            continue;
        };
        let version = match &packet {
            Packet::Connect(connect) => connect.version,
            _ => version,
        };
        let mut written = Vec::new();
        packet
            .encode(version, &mut written)
            .expect("what was decoded can be encoded");
        let Ok(Split::Complete { frame, rest: [] }) = split(&written, PACKET_MAX) else {
            panic!("no packet was written")
        };
        let again = Packet::decode(&frame, version);
        assert_eq!(again.as_ref(), Ok(&packet));
    }
}

const PACKET_MAX: u32 = 268_435_460;
