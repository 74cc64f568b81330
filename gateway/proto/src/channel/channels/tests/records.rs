//! Records, and what ends a channel.

use super::*;

#[test]
fn a_channel_is_established_and_carries_frames_both_ways() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let parts = |node: &Node| {
        let found = node.outputs.iter().find_map(|output| match output {
            Output::Established {
                peer,
                role,
                binding,
                suite,
                path,
                not_after,
                ..
            } => Some((*peer, *role, *binding, *suite, *path, *not_after)),
            Output::Transmit { .. }
            | Output::Presented { .. }
            | Output::Sign { .. }
            | Output::Proven { .. }
            | Output::Pong { .. }
            | Output::Closed { .. } => None,
        });
        found.expect("it is established")
    };
    let (at_a, at_b) = (parts(&net.nodes[A]), parts(&net.nodes[B]));
    assert_eq!(
        (at_a.0, at_b.0),
        (net.nodes[B].identifier(), net.nodes[A].identifier())
    );
    assert_eq!((at_a.1, at_b.1), (Role::Initiator, Role::Responder));
    assert_eq!(at_a.2, at_b.2);
    assert_eq!((at_a.3, at_b.3), (Suite::HybridAes256Gcm, Suite::HybridAes256Gcm));
    assert_eq!((at_a.4, at_a.5, at_b.5), (PATH, 86_400, 86_400));
    net.say(A, a, b"up");
    net.say(B, b, b"down");
    net.run();
    assert_eq!(net.nodes[B].bodies(), [b"up"]);
    assert_eq!(net.nodes[A].bodies(), [b"down"]);
    assert!(net.is_quiet());
    assert_eq!(net.nodes[A].channels.peer(a), Some(net.nodes[B].identifier()));
    assert_eq!(net.nodes[A].channels.path(a), Some(PATH));
    // Message 1, 2, 3, and the responder's first record.
    let sizes: Vec<_> = net.log.iter().map(|(from, bytes)| (*from, bytes[0])).collect();
    assert_eq!(sizes, [(A, 0x11), (B, 0x12), (A, 0x13), (B, 0x41)]);
    assert!(net.log[1].1.len() <= net.log[0].1.len());
}

#[test]
fn an_initiator_whose_message_3_never_arrives_pings_and_gives_up() {
    let mut net = Net::new();
    net.connect(PqPolicy::Required);
    net.pass(secs(30), |from, bytes| {
        if from == A && !kind_is(bytes, MESSAGE_1) {
            Fate::Drop
        } else {
            Fate::Pass
        }
    });
    let pings = net
        .log
        .iter()
        .filter(|(from, bytes)| *from == A && is_record(bytes[0]))
        .count();
    assert_eq!(pings, 4);
    assert!(net.nodes[A].closed().is_empty());
    net.pass(secs(31), |_, _| Fate::Drop);
    assert_eq!(net.nodes[A].closed(), [CloseReason::Unconfirmed]);
    assert!(net.nodes[B].established().is_empty());
}

#[test]
fn a_record_replayed_reordered_or_changed_is_not_taken() {
    let mut net = Net::new();
    let [a, _] = net.established();
    let records: Vec<_> = (0..20_u8).map(|index| net.seal(A, a, &[index])).collect();
    for index in [3, 1, 0, 19, 18, 5] {
        net.deliver(A, records[index].clone())
            .expect("it is the first time");
    }
    let before = net.nodes[B].bodies();
    assert_eq!(before, [[3], [1], [0], [19], [18], [5]]);
    for index in [3, 1, 0, 19, 18, 5] {
        let number = index as u64;
        assert_eq!(
            net.deliver(A, records[index].clone()),
            Err(ChannelError::Replayed { number })
        );
    }
    assert_eq!(net.nodes[B].channels.stats().records_replayed, 6);
    for bit in 0..records[7].len() * 8 {
        let mut forged = records[7].clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(net.deliver(A, forged).is_err(), "bit {bit}");
    }
    assert_eq!(net.nodes[B].bodies(), before);
    let stats = net.nodes[B].channels.stats();
    assert!(stats.records_forged > 0 && stats.records_unknown > 0);
    net.deliver(A, records[7].clone())
        .expect("the right one is still taken");
}

#[test]
fn a_record_does_not_open_at_its_sender_or_in_another_channel() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let [_, b2] = net.established();
    let record = net.seal(A, a, b"x");
    assert!(net.deliver(B, record.clone()).is_err(), "reflected");
    let mut moved = record;
    moved[1..5].copy_from_slice(&b2.to_wire().to_be_bytes());
    assert_ne!(b, b2);
    assert_eq!(net.deliver(A, moved), Err(ChannelError::Crypto(CryptoError::Tag)));
}

#[test]
fn closing_tells_the_peer_and_wipes_the_channel_on_both_sides() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let late = net.seal(B, b, b"late");
    net.nodes[A].channels.close(a, CloseCode::SHUTDOWN);
    net.nodes[A].channels.close(a, CloseCode::SHUTDOWN);
    net.run();
    assert_eq!(net.nodes[A].closed(), [CloseReason::Local(CloseCode::SHUTDOWN)]);
    assert_eq!(net.nodes[B].closed(), [CloseReason::Peer(CloseCode::SHUTDOWN)]);
    assert_eq!(net.deliver(B, late), Err(ChannelError::Channel(a)));
    for (node, channel) in [(A, a), (B, b)] {
        let channels = &mut net.nodes[node].channels;
        assert_eq!(
            channels.begin(channel, &mut Vec::new()).err(),
            Some(ChannelError::Channel(channel))
        );
        assert_eq!((channels.stats().open, channels.stats().closed), (0, 1));
        assert_eq!(channels.peer(channel), None);
    }
    net.pass(secs(100), |_, _| Fate::Pass);
    assert!(
        net.nodes
            .iter()
            .all(|node| node.channels.poll_timeout().is_none())
    );
}

#[test]
fn a_ping_measures_the_round_trip() {
    let mut net = Net::new();
    let [a, _] = net.established();
    let now = net.now;
    net.nodes[A]
        .channels
        .ping(now, a)
        .expect("the channel is established");
    net.collect();
    let (from, ping) = net.wire.pop_front().expect("the ping was sent");
    net.at(Duration::from_millis(30));
    net.deliver(from, ping).expect("it opens");
    net.collect();
    net.at(Duration::from_millis(12));
    net.run();
    let pong = Output::Pong {
        channel: a,
        round_trip: Duration::from_millis(42),
    };
    assert!(net.nodes[A].outputs.contains(&pong));
    assert!(net.nodes[B].bodies().is_empty());
}

#[test]
fn own_records_go_along_the_path_that_was_set() {
    let mut net = Net::new();
    let [a, _] = net.established();
    assert_eq!(net.nodes[A].channels.set_path(a, PathId(77)), Ok(()));
    let now = net.now;
    net.nodes[A]
        .channels
        .ping(now, a)
        .expect("the channel is established");
    let Some(Output::Transmit { path, channel, .. }) = net.nodes[A].channels.poll_output() else {
        panic!("the ping is sent")
    };
    assert_eq!((path, channel), (PathId(77), Some(a)));
    let unknown = ChannelId::from_wire(1);
    assert_eq!(
        net.nodes[A].channels.set_path(unknown, PATH),
        Err(ChannelError::Channel(unknown))
    );
}

#[test]
fn a_record_with_malformed_frames_is_dropped_whole() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let mut close_first = Vec::new();
    put_frame(&mut close_first, frame::CLOSE, &[0]);
    for bad in [
        [close_first.as_slice(), &[0x20, 0, 9, 1]].concat(),
        [close_first.as_slice(), &[0, 0, 1]].concat(),
        [close_first.as_slice(), &[frame::PING, 0, 7, 1, 2, 3, 4, 5, 6, 7]].concat(),
        vec![frame::CLOSE, 0, 0],
        vec![frame::REKEY_PLEASE, 0, 1, 0],
        vec![frame::REKEY1, 0, 2, 1, 1],
        vec![frame::REKEY2, 0, 2, 1, 1],
        vec![frame::PROOF_PLEASE, 0, 1, 0],
        [close_first.as_slice(), &[frame::PROOF, 0, 67], &[1; 67]].concat(),
        [close_first.as_slice(), &[frame::CREDENTIAL, 16, 1], &[1; 4097]].concat(),
    ] {
        let record = net.seal_raw(A, a, &bad);
        assert!(
            matches!(net.deliver(A, record), Err(ChannelError::Frame(_))),
            "{bad:?}"
        );
    }
    assert_eq!(net.nodes[B].channels.stats().records_malformed, 10);
    assert!(net.nodes[B].channels.peer(b).is_some());
    assert!(net.nodes[B].bodies().is_empty());
    // Unknown kinds are skipped and counted.
    let record = net.seal_raw(A, a, &[0x0e, 0, 0, 0x20, 0, 1, 5]);
    net.deliver(A, record).expect("it is well-formed");
    assert_eq!(net.nodes[B].bodies(), [[5]]);
    assert_eq!(net.nodes[B].channels.stats().frames_unknown, 1);
}

#[test]
fn many_pings_in_one_record_get_one_pong() {
    let mut net = Net::new();
    let [a, _] = net.established();
    let mut pings = Vec::new();
    while pings.len() + 11 <= PLAINTEXT_LEN_MAX {
        let number = (pings.len() as u64).to_be_bytes();
        put_frame(&mut pings, frame::PING, &number);
    }
    let record = net.seal_raw(A, a, &pings);
    net.log.clear();
    net.deliver(A, record).expect("it is well-formed");
    net.run();
    assert_eq!(
        net.log
            .iter()
            .map(|(from, bytes)| (*from, bytes.len()))
            .collect::<Vec<_>>(),
        [(B, 7 + 11 + 16)]
    );
}

#[test]
fn a_silent_channel_closes() {
    let quiet = ChannelSettings {
        rekey: RekeySettings {
            interval: secs(100_000),
            ..RekeySettings::default()
        },
        ..settings()
    };
    let mut net = Net::with(quiet, quiet);
    net.established();
    net.pass(secs(7199), |_, _| Fate::Pass);
    assert!(net.is_quiet());
    net.pass(secs(7300), |_, _| Fate::Drop);
    for node in &net.nodes {
        assert_eq!(node.closed(), [CloseReason::Silent]);
        assert_eq!(node.channels.poll_timeout(), None);
    }
}

#[test]
fn two_to_the_twentieth_forgeries_close_a_channel() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let mut forged = net.seal(A, a, b"");
    *forged.last_mut().expect("a record has a tag") ^= 1;
    let (now, node) = (net.now, &mut net.nodes[B]);
    for count in 1..=1 << 20_u32 {
        assert!(node.channels.peer(b).is_some(), "{count}");
        // Opening spoils the bytes, and spoilt bytes are forged too.
        let received = node
            .channels
            .handle_message(now, &mut node.entropy, PATH, ROUTE, &mut forged);
        assert_eq!(received, Err(ChannelError::Crypto(CryptoError::Tag)));
    }
    net.run();
    assert_eq!(net.nodes[B].closed(), [CloseReason::Forgeries]);
    assert_eq!(net.nodes[A].closed(), [CloseReason::Peer(CloseCode::BROKEN)]);
}

#[test]
fn a_channel_survives_the_loss_of_70_000_records_and_of_three_million_numbers() {
    let mut net = Net::new();
    let [a, _] = net.established();
    for _ in 0..70_000 {
        drop(net.seal(A, a, b"lost"));
    }
    for _ in 0..256 {
        net.say(A, a, b"found");
    }
    net.run();
    let found = net.nodes[B].bodies().len();
    assert!(found > 0, "the receiver found its place within 256 records");
    net.nodes[A]
        .channels
        .table
        .open_mut(a)
        .expect("it is open")
        .sealer()
        .leap(3_070_000);
    for _ in 0..256 {
        net.say(A, a, b"found");
    }
    net.run();
    assert!(net.nodes[B].bodies().len() > found);
    assert!(net.nodes.iter().all(|node| node.closed().is_empty()));
}

#[test]
fn a_sender_told_to_use_long_numbers_loses_nothing_after_a_gap() {
    let mut net = Net::new();
    let [a, _] = net.established();
    let sealer = net.nodes[A]
        .channels
        .table
        .open_mut(a)
        .expect("it is open")
        .sealer();
    sealer.set_number_len(NumberLen::Eight);
    sealer.leap(16 << 20);
    net.say(A, a, b"found");
    net.run();
    assert_eq!(net.nodes[B].bodies(), [b"found"]);
}

#[test]
fn sealing_allocates_nothing_once_the_buffer_is_large_enough() {
    let mut net = Net::new();
    let [a, _] = net.established();
    let mut out = Vec::with_capacity(1 << 16);
    let before = out.as_ptr();
    let now = net.now.instant;
    for _ in 0..1000 {
        out.clear();
        let start = net.nodes[A]
            .channels
            .begin(a, &mut out)
            .expect("the channel is established");
        put_frame(&mut out, 0x20, &[1; 500]);
        net.nodes[A]
            .channels
            .finish(now, a, &mut out, start)
            .expect("the record is short");
    }
    assert_eq!((out.as_ptr(), out.capacity()), (before, 1 << 16));
    assert!(net.nodes[A].channels.poll_output().is_none());
}
