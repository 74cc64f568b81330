//! Handshakes: loss, repetition, load, bounds, nonsense.

use super::*;

#[test]
fn policies_that_agree_on_nothing_do_not_connect() {
    for (initiator, responder) in [
        (PqPolicy::Off, PqPolicy::Required),
        (PqPolicy::Required, PqPolicy::Off),
    ] {
        let mut net = Net::with(
            settings(),
            ChannelSettings {
                pq: responder,
                ..settings()
            },
        );
        net.connect(initiator);
        net.pass(secs(40), |_, _| Fate::Pass);
        assert_eq!(net.nodes[A].closed(), [CloseReason::NoAnswer { refusal: None }]);
        assert!(
            net.nodes[B]
                .errors
                .iter()
                .all(|error| *error == ChannelError::Suite)
        );
        assert!(
            net.log.iter().all(|(from, _)| *from == A),
            "a responder explains nothing"
        );
    }
}

#[test]
fn a_handshake_survives_the_loss_of_each_message() {
    for lost in [MESSAGE_1, MESSAGE_2, MESSAGE_3, 0x41] {
        let mut net = Net::new();
        let a = net.connect(PqPolicy::Required);
        let mut dropped = 0;
        net.pass(secs(9), |_, bytes| {
            if kind_is(bytes, lost) && dropped == 0 {
                dropped += 1;
                return Fate::Drop;
            }
            Fate::Pass
        });
        assert_eq!(dropped, 1);
        assert_eq!(net.nodes[A].established(), [a], "{lost:#x}");
        assert_eq!(net.nodes[B].established().len(), 1, "{lost:#x}");
        net.say(A, a, b"still there");
        net.pass(secs(100), |_, _| Fate::Pass);
        assert_eq!(net.nodes[B].bodies(), [b"still there"], "{lost:#x}");
        assert!(net.nodes.iter().all(|node| node.closed().is_empty()));
        let stats = net.nodes[B].channels.stats();
        assert_eq!((stats.open, stats.half_open), (1, 0), "{lost:#x}");
    }
}

#[test]
fn message_1_is_repeated_six_times_and_given_up_after_32_seconds() {
    let mut net = Net::new();
    net.connect(PqPolicy::Required);
    let mut sent = Vec::new();
    for quarter in 0..160 {
        let before = net.log.len();
        net.pass(Duration::from_millis(250 * quarter), |_, _| Fate::Drop);
        sent.extend(std::iter::repeat_n(quarter, net.log.len() - before));
        assert_eq!(
            net.nodes[A].closed().len(),
            usize::from(quarter >= 127),
            "quarter {quarter}"
        );
    }
    assert_eq!(sent, [0, 1, 3, 7, 15, 31, 63], "in quarters of a second");
    assert_eq!(net.nodes[A].closed(), [CloseReason::NoAnswer { refusal: None }]);
    assert_eq!(net.nodes[A].channels.poll_timeout(), None);
    assert_eq!(net.nodes[A].channels.stats().connecting, 0);
}

#[test]
fn a_half_open_handshake_repeats_message_2_and_is_dropped_after_10_seconds() {
    let mut net = Net::new();
    net.connect(PqPolicy::Required);
    let mut sent = Vec::new();
    for second in 0..12 {
        net.pass(secs(second), |from, bytes| {
            if from == B {
                sent.push(second);
            }
            // One message 1 gets through.
            if from == A && second == 0 && kind_is(bytes, MESSAGE_1) {
                Fate::Pass
            } else {
                Fate::Drop
            }
        });
        assert_eq!(
            net.nodes[B].channels.stats().half_open,
            u64::from(second < 10),
            "{second} s"
        );
    }
    assert_eq!(sent, [0, 1, 3, 7]);
    let stats = net.nodes[B].channels.stats();
    assert_eq!((stats.abandoned, stats.open), (1, 0));
    assert!(net.nodes[B].channels.half_open.is_empty() && net.nodes[B].channels.half_open_by_path.is_empty());
}

#[test]
fn a_message_1_that_comes_twice_is_answered_by_the_same_message_2() {
    let mut net = Net::new();
    net.connect(PqPolicy::Required);
    net.collect();
    let (_, message_1) = net.wire.pop_front().expect("message 1 was sent");
    net.deliver(A, message_1.clone()).expect("it is good");
    net.deliver(A, message_1).expect("it is good again");
    net.collect();
    assert_eq!(net.wire[0], net.wire[1]);
    assert_eq!(net.nodes[B].channels.stats().half_open, 1);
    net.run();
    assert_eq!(
        (net.nodes[A].established().len(), net.nodes[B].established().len()),
        (1, 1)
    );
}

#[test]
fn messages_replayed_after_the_handshake_change_nothing() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let log = net.log.clone();
    for (from, bytes) in log {
        let again = net.deliver(from, bytes.clone());
        // Message 1 begins another handshake, which nobody can finish.
        assert_eq!(again.is_ok(), kind_is(&bytes, MESSAGE_1), "{:#x}", bytes[0]);
    }
    net.pass(secs(11), |_, _| Fate::Drop);
    assert_eq!(net.nodes[B].channels.stats().half_open, 0);
    net.say(A, a, b"up");
    net.say(B, b, b"down");
    net.run();
    assert_eq!(
        (net.nodes[B].bodies(), net.nodes[A].bodies()),
        (vec![b"up".to_vec()], vec![b"down".to_vec()])
    );
}

#[test]
fn a_stranger_s_first_message_leaves_no_trace_and_no_answer() {
    let mut net = Net::new();
    let (now, stranger) = (net.now, Identifier::from_bytes([1; 32]));
    let node = &mut net.nodes[A];
    let channel = node
        .channels
        .connect(now, &mut node.entropy, stranger, PATH, PqPolicy::Required);
    channel.expect("there is room");
    net.run();
    assert_eq!(net.nodes[B].errors, [ChannelError::Mac1]);
    assert_eq!(
        net.nodes[B].channels.stats(),
        ChannelsStats {
            wrong_mac1: 1,
            ..ChannelsStats::default()
        }
    );
    assert_eq!(net.log.len(), 1);
}

#[test]
fn under_load_an_initiator_proves_its_path_first() {
    let mut net = Net::with(
        settings(),
        ChannelSettings {
            cookie_from: 0,
            ..settings()
        },
    );
    let [a, b] = net.established();
    net.say(A, a, b"up");
    net.run();
    assert_eq!(net.nodes[B].bodies(), [b"up"]);
    let kinds: Vec<_> = net.log.iter().map(|(_, bytes)| bytes[0]).collect();
    assert_eq!(kinds, [0x11, 0x1c, 0x11, 0x12, 0x13, 0x41]);
    assert_eq!(net.log[1].1.len(), 53);
    assert_eq!(net.nodes[B].channels.stats().cookies_sent, 1);
    assert_eq!(net.nodes[B].channels.path(b), Some(PATH));
    // A cookie for one path is none for another.
    let mut message_1 = net.log[2].1.clone();
    let (now, node) = (net.now, &mut net.nodes[B]);
    let received = node
        .channels
        .handle_message(now, &mut node.entropy, PATH, b"elsewhere", &mut message_1);
    assert_eq!(received, Ok(Received::Handshake));
    assert_eq!(node.channels.stats().cookies_sent, 2);
    assert_eq!(node.channels.stats().half_open, 0);
}

#[test]
fn an_unproven_path_never_gets_more_than_it_sent() {
    // A history of 16 changes makes message 2 longer than message 1.
    let mut net = Net::new();
    let mut identity = TestIdentity::new(KeyAlgorithm::EcdsaP256);
    for _ in 1..16 {
        identity = identity.rotated(KeyAlgorithm::EcdsaP256);
    }
    net.nodes[B].channels.set_local(local(&identity, 3));
    net.nodes[B].identity = identity;
    net.established();
    let sizes: Vec<_> = net.log.iter().map(|(_, bytes)| (bytes[0], bytes.len())).collect();
    assert_eq!(
        sizes[..3].iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        [0x11, 0x1c, 0x11]
    );
    assert!(sizes[1].1 <= sizes[0].1);
    assert_eq!(sizes[3].0, 0x12);
    assert!(sizes[3].1 > sizes[2].1 && sizes[3].1 <= message::MESSAGE_LEN_MAX);
    assert!(net.is_quiet());
}

#[test]
fn half_open_handshakes_are_bounded_in_all_and_per_path() {
    let bounded = ChannelSettings {
        half_open_max: 5,
        half_open_per_path_max: 3,
        ..settings()
    };
    let mut net = Net::with(settings(), bounded);
    for _ in 0..7 {
        net.connect(PqPolicy::Off);
    }
    net.collect();
    let messages: Vec<_> = net.wire.drain(..).map(|(_, bytes)| bytes).collect();
    let mut results = Vec::new();
    for (index, mut bytes) in messages.into_iter().enumerate() {
        let (now, node) = (net.now, &mut net.nodes[B]);
        node.channels.settings.pq = PqPolicy::Preferred;
        let path = if index < 4 { PATH } else { PathId(6) };
        let received = node
            .channels
            .handle_message(now, &mut node.entropy, path, ROUTE, &mut bytes);
        results.push(received.map(|_| ()));
    }
    let per_path = Err(ChannelError::Full {
        table: "half-open handshakes of one path",
        max: 3,
    });
    let in_all = Err(ChannelError::Full {
        table: "half-open handshakes",
        max: 5,
    });
    assert_eq!(
        results,
        [Ok(()), Ok(()), Ok(()), per_path, Ok(()), Ok(()), in_all]
    );
    assert_eq!(net.nodes[B].channels.stats().full, 2);
    net.pass(secs(11), |_, _| Fate::Drop);
    assert_eq!(net.nodes[B].channels.stats().half_open, 0);
}

#[test]
fn channels_are_bounded() {
    let mut net = Net::with(
        ChannelSettings {
            channels_max: 2,
            ..settings()
        },
        settings(),
    );
    let [a, _] = net.established();
    net.established();
    let (now, peer) = (net.now, net.nodes[B].identifier());
    let node = &mut net.nodes[A];
    let full = Err(ChannelError::Full {
        table: "channels",
        max: 2,
    });
    assert_eq!(
        node.channels
            .connect(now, &mut node.entropy, peer, PATH, PqPolicy::Off),
        full
    );
    node.channels.close(a, CloseCode::DONE);
    assert!(
        node.channels
            .connect(now, &mut node.entropy, peer, PATH, PqPolicy::Off)
            .is_ok()
    );
}

#[test]
fn messages_for_the_wrong_state_are_refused() {
    let mut net = Net::new();
    let connecting = net.connect(PqPolicy::Required);
    net.collect();
    let with_id = |kind: u8, len: usize| {
        let mut message = vec![kind; len];
        message[1..5].copy_from_slice(&connecting.to_wire().to_be_bytes());
        message
    };
    let refused = Err(ChannelError::Channel(connecting));
    assert_eq!(net.deliver(B, with_id(MESSAGE_3, 200)), refused);
    assert_eq!(net.deliver(B, with_id(0x40, 200)), refused);
    assert!(net.deliver(B, with_id(MESSAGE_2, 2000)).is_err());
    assert!(net.deliver(B, with_id(COOKIE, 53)).is_err());
    assert_eq!(
        net.deliver(B, Vec::new()),
        Err(WireError::Truncated {
            field: "message kind",
            need: 1,
            have: 0
        }
        .into())
    );
    assert_eq!(net.deliver(B, vec![0x77]), Err(ChannelError::Kind { got: 0x77 }));
    assert_eq!(
        net.nodes[A].channels.begin(connecting, &mut Vec::new()).err(),
        refused.err()
    );
    let now = net.now;
    assert_eq!(net.nodes[A].channels.ping(now, connecting), refused);
    net.run();
    assert_eq!(net.nodes[A].established(), [connecting], "none of that did harm");
}

#[test]
fn counters_come_back_to_zero() {
    let mut net = Net::new();
    for _ in 0..5 {
        net.established();
    }
    net.connect(PqPolicy::Off);
    net.pass(secs(60), |_, _| Fate::Pass);
    for channel in net.nodes[A].established() {
        net.nodes[A].channels.close(channel, CloseCode::DONE);
    }
    net.run();
    for node in &net.nodes {
        let stats = node.channels.stats();
        assert_eq!((stats.open, stats.connecting, stats.half_open), (0, 0, 0));
        assert_eq!(stats.established, 5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_handled_without_harm(mut messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..40)) {
        let mut net = Net::new();
        let [a, b] = net.established();
        let half = net.connect(PqPolicy::Required);
        net.collect();
        let held = net.wire.split_off(0);
        for (index, message) in messages.iter_mut().enumerate() {
            // Most kinds and channels exist.
            let kind = [MESSAGE_1, MESSAGE_2, MESSAGE_3, COOKIE, 0x40, 0x44, 0x41, 0x42][index % 8];
            let id = [a, b, half][index % 3].to_wire().to_be_bytes();
            for (to, from) in message.iter_mut().zip([kind].into_iter().chain(id)) {
                *to = from;
            }
            for from in [A, B] {
                prop_assert!(net.deliver(from, message.clone()).is_err());
            }
        }
        prop_assert!(net.nodes.iter_mut().all(|node| node.channels.poll_output().is_none()));
        net.wire = held;
        net.say(A, a, b"up");
        net.run();
        prop_assert_eq!(net.nodes[B].bodies(), vec![b"up".to_vec()]);
        prop_assert_eq!(net.nodes[A].established(), vec![a, half]);
    }

    /// Each message of a handshake changed in one place, while the real one follows.
    #[test]
    fn a_changed_message_of_a_handshake_does_no_harm(at in any::<prop::sample::Index>(), flip in 1..=u8::MAX, which in 0..3_u8) {
        let mut net = Net::new();
        let a = net.connect(PqPolicy::Required);
        let kind = [MESSAGE_1, MESSAGE_2, MESSAGE_3][usize::from(which)];
        net.collect();
        while let Some((from, bytes)) = net.wire.pop_front() {
            if kind_is(&bytes, kind) {
                let mut changed = bytes.clone();
                changed[at.index(bytes.len())] ^= flip;
                prop_assert!(net.deliver(from, changed).is_err());
            }
            let _ = net.deliver(from, bytes);
            net.collect();
        }
        prop_assert_eq!(net.nodes[A].established(), vec![a]);
        prop_assert_eq!(net.nodes[B].established().len(), 1);
    }
}
