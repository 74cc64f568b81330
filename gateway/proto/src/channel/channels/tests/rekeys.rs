//! New keys while records flow.

use super::*;

fn quick() -> ChannelSettings {
    let rekey = RekeySettings {
        interval: secs(60),
        bytes_max: 1 << 40,
        interval_min: secs(1),
    };
    ChannelSettings { rekey, ..settings() }
}

fn generation(net: &Net, node: usize, channel: ChannelId) -> u64 {
    net.nodes[node]
        .channels
        .channel_stats(channel)
        .expect("the channel is open")
        .generation
}

#[test]
fn keys_are_replaced_by_time_and_the_old_ones_wiped_after_five_seconds() {
    let mut net = Net::with(quick(), quick());
    let [a, b] = net.established();
    let early = [net.seal(A, a, b"early"), net.seal(A, a, b"too late")];
    let early_down = [net.seal(B, b, b"early"), net.seal(B, b, b"too late")];
    let mut begun = None;
    for tenth in 0..800 {
        net.pass(Duration::from_millis(tenth * 100), |_, _| Fate::Pass);
        if generation(&net, A, a) == 1 && begun.is_none() {
            begun = Some(tenth);
            assert_eq!(generation(&net, B, b), 1, "both go over without time passing");
            net.deliver(A, early[0].clone())
                .expect("the old generation still opens");
            net.deliver(B, early_down[0].clone())
                .expect("the old generation still opens");
        }
        let Some(begun) = begun else { continue };
        let open = |net: &Net, node: usize, channel| {
            net.nodes[node]
                .channels
                .table
                .open(channel)
                .expect("the channel is open")
                .has_previous()
        };
        let want = tenth < begun + 50;
        assert_eq!(
            (open(&net, A, a), open(&net, B, b)),
            (want, want),
            "{} ms",
            (tenth - begun) * 100
        );
        if tenth == begun + 51 {
            break;
        }
    }
    let begun = begun.expect("a minute has passed");
    assert!((480..=720).contains(&begun), "{begun} tenths of a second");
    for (from, record) in [(A, &early[1]), (B, &early_down[1])] {
        assert_eq!(
            net.deliver(from, record.clone()),
            Err(ChannelError::Generation { got: 0 })
        );
    }
    net.say(A, a, b"up");
    net.say(B, b, b"down");
    net.run();
    assert_eq!(net.nodes[B].bodies(), [b"early".to_vec(), b"up".to_vec()]);
    assert_eq!(net.nodes[A].bodies(), [b"early".to_vec(), b"down".to_vec()]);
    assert_eq!(
        (
            net.nodes[A].channels.stats().rekeys,
            net.nodes[B].channels.stats().rekeys
        ),
        (1, 1)
    );
}

#[test]
fn keys_are_not_used_past_their_time_even_if_the_timer_is_late() {
    let mut net = Net::with(quick(), quick());
    let [a, b] = net.established();
    let old = net.seal(A, a, b"old");
    while generation(&net, B, b) == 0 {
        let next = net.now.instant + secs(1);
        net.pass(next - Instant::START, |_, _| Fate::Pass);
    }
    net.at(secs(5));
    assert_eq!(net.deliver(A, old), Err(ChannelError::Generation { got: 0 }));
}

#[test]
fn keys_are_replaced_after_their_bytes() {
    let rekey = RekeySettings {
        interval: secs(3600),
        bytes_max: 100_000,
        interval_min: secs(1),
    };
    let bounded = ChannelSettings { rekey, ..settings() };
    for (from, other) in [(A, B), (B, A)] {
        // The side that does not count shows that one side suffices.
        let mut both = [settings(), settings()];
        both[from] = bounded;
        let [first, second] = both;
        let mut net = Net::with(first, second);
        let channels = net.established();
        for _ in 0..12 {
            net.say(from, channels[from], &[7; 10_000]);
        }
        net.run();
        assert_eq!(
            generation(&net, from, channels[from]),
            0,
            "not before a second has passed"
        );
        net.pass(secs(2), |_, _| Fate::Pass);
        assert_eq!(
            generation(&net, A, channels[A]),
            1,
            "{from} counts, {other} does not"
        );
        assert_eq!(generation(&net, B, channels[B]), 1);
        net.pass(secs(60), |_, _| Fate::Pass);
        assert_eq!(generation(&net, A, channels[A]), 1);
        assert!(net.is_quiet());
    }
}

#[test]
fn a_lost_rekey_message_is_repeated_and_data_flows_meanwhile() {
    for lost in 1..=3 {
        let mut net = Net::with(quick(), quick());
        let [a, b] = net.established();
        let mut own = 0;
        let mut dropped = false;
        for second in 1..100_u64 {
            net.say(A, a, &second.to_be_bytes());
            net.say(B, b, &second.to_be_bytes());
            net.pass(secs(second), |_, bytes| {
                // Rekey1, Rekey2, and the ping in the new generation: told from data by length and order.
                let rekeying =
                    is_record(bytes[0]) && bytes.len() != 7 + 11 + 16 && bytes.len() != 9 + 11 + 16;
                let ping = is_record(bytes[0]) && bytes[0] >> 2 & 3 == 1;
                if (rekeying && bytes.len() > 1000) || (ping && own == 2) {
                    own += 1;
                    if own == lost && !dropped {
                        dropped = true;
                        return Fate::Drop;
                    }
                }
                Fate::Pass
            });
        }
        assert!(dropped, "{lost}");
        assert_eq!((generation(&net, A, a), generation(&net, B, b)), (1, 1), "{lost}");
        assert_eq!(net.nodes[A].bodies().len(), 99, "{lost}");
        // The lost message may have been a record with data.
        assert!(net.nodes[B].bodies().len() >= 98, "{lost}");
        assert!(
            net.is_quiet(),
            "{lost}: {:?} {:?}",
            net.nodes[A].errors,
            net.nodes[B].errors
        );
    }
}

#[test]
fn a_rekey_that_is_never_answered_closes_the_channel() {
    let mut net = Net::with(quick(), quick());
    let [a, _] = net.established();
    net.log.clear();
    net.pass(secs(150), |_, _| Fate::Drop);
    assert_eq!(net.nodes[A].closed(), [CloseReason::RekeyUnanswered]);
    let sent = net.log.iter().filter(|(from, _)| *from == A).count();
    assert_eq!(sent, 1 + 8 + 1, "an offer, eight repetitions, and the close");
    let offers: Vec<_> = net
        .log
        .iter()
        .filter(|(from, bytes)| *from == A && bytes.len() > 1000)
        .collect();
    assert_eq!(offers.len(), 9);
    assert!(net.nodes[A].channels.peer(a).is_none());
}

#[test]
fn rekey_frames_that_do_not_fit_the_state_are_counted_and_change_nothing() {
    let mut net = Net::with(quick(), quick());
    let [a, b] = net.established();
    net.pass(secs(2), |_, _| Fate::Pass);
    let body = |generation: u8, len: usize| {
        let mut body = vec![generation; len];
        body[1..].fill(9);
        body
    };
    let hybrid_1 = 1 + 32 + 1184;
    let hybrid_2 = 1 + 32 + 1088;
    for (from, channel, kind, body) in [
        (A, a, frame::REKEY1, body(2, hybrid_1)),
        (A, a, frame::REKEY1, body(0, hybrid_1)),
        // The key is not reduced: every coefficient has 0x909.
        (
            A,
            a,
            frame::REKEY1,
            [vec![1], vec![9; 32], vec![0xff; 1184]].concat(),
        ),
        (A, a, frame::REKEY2, body(1, hybrid_2)),
        (B, b, frame::REKEY1, body(1, hybrid_1)),
        (B, b, frame::REKEY2, body(1, hybrid_2)),
    ] {
        let mut plaintext = Vec::new();
        put_frame(&mut plaintext, kind, &body);
        put_frame(&mut plaintext, 0x20, b"data");
        let record = net.seal_raw(from, channel, &plaintext);
        net.deliver(from, record).expect("the record itself is good");
    }
    assert_eq!(net.nodes[B].bodies().len(), 4, "data in the same record counts");
    assert_eq!(net.nodes[B].channels.stats().records_malformed, 4);
    assert_eq!(net.nodes[A].channels.stats().records_malformed, 2);
    net.pass(secs(80), |_, _| Fate::Pass);
    assert_eq!(
        (generation(&net, A, a), generation(&net, B, b)),
        (1, 1),
        "the real rekey goes through"
    );
}

#[test]
fn a_peer_cannot_make_a_responder_answer_many_offers() {
    let mut net = Net::with(quick(), quick());
    let [a, _] = net.established();
    net.pass(secs(2), |_, _| Fate::Pass);
    let mut plaintext = Vec::new();
    for seed in 0..50 {
        let mut body = vec![1];
        body.extend_from_slice(secret(seed).public());
        body.extend_from_slice(crate::crypto::KemSecret::generate().public());
        put_frame(&mut plaintext, frame::REKEY1, &body);
    }
    let record = net.seal_raw(A, a, &plaintext);
    net.log.clear();
    net.deliver(A, record).expect("the record itself is good");
    net.collect();
    assert_eq!(net.log.len(), 1);
    assert!(net.log[0].1.len() < 1200, "one answer, to the first");
    assert_eq!(net.nodes[B].channels.stats().records_malformed, 49);
}

#[test]
fn a_responder_does_not_answer_offers_one_right_after_the_other() {
    let slow = RekeySettings {
        interval_min: secs(30),
        ..quick().rekey
    };
    let mut net = Net::with(
        quick(),
        ChannelSettings {
            rekey: slow,
            ..settings()
        },
    );
    let [a, _] = net.established();
    let mut body = vec![1];
    body.extend_from_slice(secret(3).public());
    body.extend_from_slice(crate::crypto::KemSecret::generate().public());
    let mut plaintext = Vec::new();
    put_frame(&mut plaintext, frame::REKEY1, &body);
    for (second, refused) in [(29, 1), (30, 1)] {
        net.pass(secs(second), |_, _| Fate::Pass);
        let record = net.seal_raw(A, a, &plaintext);
        net.deliver(A, record).expect("the record itself is good");
        assert_eq!(
            net.nodes[B].channels.stats().records_malformed,
            refused,
            "{second} s"
        );
    }
}

#[test]
fn rekey_please_is_not_obeyed_more_often_than_allowed() {
    let slow = RekeySettings {
        interval: secs(3600),
        bytes_max: 1 << 40,
        interval_min: secs(50),
    };
    let mut net = Net::with(
        ChannelSettings {
            rekey: slow,
            ..settings()
        },
        settings(),
    );
    let [a, b] = net.established();
    for second in 1..300 {
        let mut please = Vec::new();
        put_frame(&mut please, frame::REKEY_PLEASE, &[]);
        let record = net.seal_raw(B, b, &please);
        net.wire.push_back((B, record));
        net.pass(secs(second), |_, _| Fate::Pass);
    }
    assert_eq!(generation(&net, A, a), 5);
    assert!(net.is_quiet());
}

#[test]
fn a_responder_asks_when_the_initiator_is_late() {
    // The initiator would wait for a day.
    let never = RekeySettings {
        interval: secs(86_400),
        ..RekeySettings::default()
    };
    let mut net = Net::with(
        ChannelSettings {
            rekey: never,
            ..settings()
        },
        quick(),
    );
    let [a, b] = net.established();
    net.pass(secs(89), |_, _| Fate::Pass);
    assert_eq!(generation(&net, B, b), 0);
    net.pass(secs(91), |_, _| Fate::Pass);
    assert_eq!((generation(&net, A, a), generation(&net, B, b)), (1, 1));
}

/// Records of both generations under way at once, any loss and order: everything that arrives in time opens,
/// once, and the channel lives on.
#[test]
fn rekeying_survives_loss_and_reordering() {
    for seed in 0..40 {
        let mut net = Net::with(quick(), quick());
        let [a, b] = net.established();
        let mut dice = Seeded::new(1000 + seed);
        let loss = 3 + dice.u32() % 12;
        let mut sent = BTreeMap::new();
        let mut next = 0_u64;
        for step in 1..=2000_u64 {
            for (from, channel) in [(A, a), (B, b)] {
                if dice.u32().is_multiple_of(3) {
                    next += 1;
                    sent.insert(next, from);
                    net.say(from, channel, &next.to_be_bytes());
                }
            }
            let random = &mut dice;
            net.pass(Duration::from_millis(step * 100), |_, _| {
                match random.u32() % 100 {
                    roll if roll < loss => Fate::Drop,
                    roll if roll < loss + 30 => Fate::Hold,
                    _ => Fate::Pass,
                }
            });
            // What was held back comes later, in another order.
            while !net.held.is_empty() && dice.u32().is_multiple_of(2) {
                let index = usize::try_from(dice.u32()).expect("32 bits fit") % net.held.len();
                let late = net.held.swap_remove(index);
                net.wire.push_back(late);
            }
        }
        net.held.clear();
        net.pass(secs(209), |_, _| Fate::Pass);
        assert!(
            net.nodes.iter().all(|node| node.closed().is_empty()),
            "seed {seed}"
        );
        assert!(
            generation(&net, A, a) >= 2,
            "seed {seed}: {}",
            generation(&net, A, a)
        );
        assert_eq!(generation(&net, A, a), generation(&net, B, b), "seed {seed}");
        let mut seen = BTreeMap::new();
        for node in [A, B] {
            for body in net.nodes[node].bodies() {
                let number = u64::from_be_bytes(body.try_into().expect("eight bytes were sent"));
                assert_eq!(sent.get(&number), Some(&(1 - node)), "seed {seed}");
                assert_eq!(seen.insert(number, ()), None, "seed {seed}: {number} came twice");
            }
            for error in &net.nodes[node].errors {
                assert!(
                    matches!(
                        error,
                        ChannelError::Generation { .. } | ChannelError::TooOld { .. }
                    ),
                    "seed {seed}: {error:?}"
                );
            }
        }
        let share = seen.len() * 100 / sent.len();
        assert!(share >= 70, "seed {seed}: {share} % arrived with {loss} % loss");
    }
}
