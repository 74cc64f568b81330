//! Any bytes in any portions: no panic, and the portions make no difference.

use fieldgate_mqtt::{
    frame::{PacketType, Split, split},
    packet::Packet,
    session::end::SessionEnd,
    version::ProtocolVersion,
};
use proptest::{collection::vec, prelude::*};

use crate::{
    bench::{Bench, Taken},
    bytes::{V5, V311, device_connect, plain_connect, publish},
    codec::any_packet,
};

/// Everything that can be seen of a session.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    result: Result<(), SessionEnd>,
    sent: Vec<Vec<u8>>,
    acks: Vec<u8>,
    readings: Vec<Taken>,
}

fn run(portions: &[&[u8]]) -> Seen {
    let mut bench = Bench::new();
    let result = portions.iter().try_for_each(|portion| bench.give(portion));
    if let Err(end) = result {
        assert_eq!(bench.give(&[]), Err(end));
    }
    assert!(bench.session.memory_bytes() < 300_000);
    let acks = bench.acks(u64::MAX);
    let sent = packets_of(&bench.sent(), result.is_err());
    Seen {
        result,
        sent,
        acks,
        readings: bench.journal.readings,
    }
}

/// Returns the packets of an output, in an order of their own: what the broker answers may come before or after what the
/// session says itself, and not at all when the session has ended.
fn packets_of(mut sent: &[u8], has_ended: bool) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Ok(Split::Complete { frame, rest }) = split(sent, u32::MAX) {
        let packet = sent[..sent.len() - rest.len()].to_vec();
        if !has_ended || matches!(frame.packet_type, PacketType::ConnAck | PacketType::Disconnect) {
            packets.push(packet);
        }
        sent = rest;
    }
    packets.sort();
    packets
}

fn portions<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn connects() -> impl Strategy<Value = (ProtocolVersion, Vec<u8>)> {
    (prop::sample::select(vec![V5, V311]), 0..3_u8).prop_map(|(version, kind)| {
        let bytes = match kind {
            0 => plain_connect(version),
            1 => device_connect(version, "password"),
            _ => device_connect(version, "wrong"),
        };
        (version, bytes)
    })
}

/// What a client might send after its CONNECT: mostly sane publishes, and any packet at all.
fn packets() -> impl Strategy<Value = Vec<(bool, u16, Option<Packet<'static>>)>> {
    let foreign = any_packet().prop_map(|(_, packet)| packet);
    vec(
        (any::<bool>(), 1..20_u16, prop::option::weighted(0.3, foreign)),
        0..20,
    )
}

fn stream(
    version: ProtocolVersion,
    connect: &[u8],
    packets: &[(bool, u16, Option<Packet<'static>>)],
) -> Vec<u8> {
    let mut bytes = connect.to_vec();
    for (dup, packet_id, foreign) in packets {
        match foreign {
            // A packet that its version cannot write is left out.
            Some(packet) => drop(packet.encode(version, &mut bytes)),
            None => {
                let flags = if *dup { 0x0a } else { 0x02 };
                bytes.extend(publish(version, flags, "pump/x", *packet_id, &[], "payload"));
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn portions_make_no_difference(
        (version, connect) in connects(),
        packets in packets(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes = stream(version, &connect, &packets);
        prop_assert_eq!(run(&portions(&bytes, &cuts)), run(&[&bytes]));
    }

    #[test]
    fn portions_of_damaged_streams_make_no_difference(
        (version, connect) in connects(),
        packets in packets(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut bytes = stream(version, &connect, &packets);
        for (at, value) in damage {
            let index = at.index(bytes.len());
            bytes[index] = value;
        }
        prop_assert_eq!(run(&portions(&bytes, &cuts)), run(&[&bytes]));
    }

    #[test]
    fn any_bytes_make_no_panic(
        connect in prop::option::of(connects()),
        bytes in vec(any::<u8>(), 0..200),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut all = connect.map_or_else(Vec::new, |(_, connect)| connect);
        all.extend_from_slice(&bytes);
        prop_assert_eq!(run(&portions(&all, &cuts)), run(&[&all]));
    }
}
