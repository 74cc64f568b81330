//! Who a peer may be.

use super::*;

/// Replaces a node's static key and attestation, whether or not they belong together.
fn presenting(
    node: &mut Node,
    attestation: &crate::identity::SignedAttestation,
    history: &[u8],
    secret: X25519Secret,
) {
    let honest = local(&node.identity, 99);
    let mut payload = vec![message::FORM_FULL];
    payload.extend_from_slice(history);
    crate::wire::put_bytes16(&mut payload, &attestation.encode());
    crate::wire::put_bytes16(&mut payload, &[]);
    node.channels.set_local(LocalIdentity {
        static_secret: Arc::new(secret),
        payload,
        attestation_hash: [9; 16],
        ..honest
    });
}

/// Lets the responder present something wrong; the initiator must refuse it before it shows who it is.
fn responder_refused(present: impl FnOnce(&mut Node), want: impl Fn(IdentityError) -> bool) {
    let mut net = Net::new();
    present(&mut net.nodes[B]);
    net.connect(PqPolicy::Required);
    net.pass(secs(40), |_, _| Fate::Pass);
    let closed = net.nodes[A].closed();
    let [
        CloseReason::NoAnswer {
            refusal: Some(ChannelError::Identity(error)),
        },
    ] = closed[..]
    else {
        panic!("closed for another reason: {closed:?}");
    };
    assert!(want(error), "{error:?}");
    assert!(
        net.log.iter().all(|(_, bytes)| !kind_is(bytes, MESSAGE_3)),
        "an impostor learns who asks"
    );
    assert!(net.nodes[A].channels.stats().identities_refused > 0);
}

/// Lets the initiator present something wrong; the responder must refuse it once message 3 has opened.
fn initiator_refused(present: impl FnOnce(&mut Node), want: impl Fn(IdentityError) -> bool) {
    let mut net = Net::new();
    present(&mut net.nodes[A]);
    net.connect(PqPolicy::Required);
    net.run();
    let [ChannelError::Identity(error)] = net.nodes[B].errors[..] else {
        panic!("refused for another reason: {:?}", net.nodes[B].errors);
    };
    assert!(want(error), "{error:?}");
    let stats = net.nodes[B].channels.stats();
    assert_eq!((stats.identities_refused, stats.open, stats.half_open), (1, 0, 0));
    assert!(net.nodes[B].established().is_empty());
}

#[test]
fn an_expired_or_future_attestation_is_refused() {
    let expired = |node: &mut Node| {
        let attestation = node.identity.attest(*secret(7).public(), 0, NOON - 400, 1);
        presenting(node, &attestation, &node.identity.history.to_bytes(), secret(7));
    };
    responder_refused(expired, |error| matches!(error, IdentityError::Expired { .. }));
    initiator_refused(expired, |error| matches!(error, IdentityError::Expired { .. }));
    let future = |node: &mut Node| {
        let attestation = node.identity.attest(*secret(7).public(), NOON + 400, 3600, 1);
        presenting(node, &attestation, &node.identity.history.to_bytes(), secret(7));
    };
    responder_refused(future, |error| matches!(error, IdentityError::NotYetValid { .. }));
    initiator_refused(future, |error| matches!(error, IdentityError::NotYetValid { .. }));
}

#[test]
fn an_attestation_of_another_key_is_refused() {
    let other = |node: &mut Node| {
        let attestation = node.identity.attest(*secret(7).public(), 0, 86_400, 1);
        presenting(node, &attestation, &node.identity.history.to_bytes(), secret(8));
    };
    responder_refused(other, |error| error == IdentityError::OtherKey);
    initiator_refused(other, |error| error == IdentityError::OtherKey);
}

#[test]
fn a_foreign_identity_is_refused() {
    // Everything is in order, but it is somebody else's.
    responder_refused(
        |node| {
            let stranger = TestIdentity::new(KeyAlgorithm::Ed25519);
            let attestation = stranger.attest(*secret(7).public(), 0, 86_400, 1);
            presenting(node, &attestation, &stranger.history.to_bytes(), secret(7));
        },
        |error| matches!(error, IdentityError::Foreign { .. }),
    );
    // The history is one's own, the attestation is signed by somebody else.
    let forged = |node: &mut Node| {
        let stranger = TestIdentity::new(KeyAlgorithm::Ed25519);
        let attestation = stranger.attest(*secret(7).public(), 0, 86_400, 1);
        presenting(node, &attestation, &node.identity.history.to_bytes(), secret(7));
    };
    responder_refused(forged, |error| matches!(error, IdentityError::Foreign { .. }));
    initiator_refused(forged, |error| matches!(error, IdentityError::Foreign { .. }));
}

#[test]
fn an_initiator_may_not_answer_with_the_short_form() {
    let mut net = Net::new();
    let honest = local(&net.nodes[A].identity, 1);
    net.nodes[A].channels.set_local(LocalIdentity {
        payload: vec![FORM_CACHED],
        ..honest
    });
    net.connect(PqPolicy::Required);
    net.run();
    assert_eq!(
        net.nodes[B].errors,
        [WireError::Value {
            field: "form of payload",
            value: 2
        }
        .into()]
    );
    assert_eq!(net.nodes[B].channels.stats().half_open, 0);
}

#[test]
fn a_peer_that_answers_by_the_short_form_without_reason_is_refused() {
    let mut net = Net::new();
    let honest = local(&net.nodes[B].identity, 2);
    net.nodes[B].channels.set_local(LocalIdentity {
        payload: vec![FORM_CACHED],
        ..honest
    });
    net.connect(PqPolicy::Required);
    net.pass(secs(40), |_, _| Fate::Pass);
    let refusal = Some(ChannelError::Identity(IdentityError::OtherKey));
    assert_eq!(net.nodes[A].closed(), [CloseReason::NoAnswer { refusal }]);
}

#[test]
fn a_known_attestation_is_not_sent_again_until_it_changes() {
    let mut net = Net::new();
    net.established();
    let first = net
        .log
        .iter()
        .find(|(_, bytes)| kind_is(bytes, MESSAGE_2))
        .expect("it was sent")
        .1
        .len();
    net.log.clear();
    net.established();
    let second = net
        .log
        .iter()
        .find(|(_, bytes)| kind_is(bytes, MESSAGE_2))
        .expect("it was sent")
        .1
        .len();
    assert!(second + 300 < first, "{second} and {first} bytes");
    for node in &net.nodes {
        assert_eq!(
            (node.channels.peer_stats().hits, node.channels.peer_stats().misses),
            (1, 1)
        );
    }
    // A new attestation, as every half day.
    let renewed = local(&net.nodes[B].identity, 50);
    net.nodes[B].channels.set_local(renewed);
    net.established();
    assert_eq!(net.nodes[A].channels.peer_stats().misses, 2);
    assert!(net.is_quiet());
}

#[test]
fn a_forged_answer_does_not_keep_the_right_one_out() {
    let mut net = Net::new();
    net.connect(PqPolicy::Required);
    net.collect();
    let (_, message_1) = net.wire.pop_front().expect("message 1 was sent");
    let mut copy = message_1.clone();
    // Somebody in the middle answers with a key of its own.
    let mut mallory = Node::new(settings(), KeyAlgorithm::Ed25519, 66);
    mallory.channels.mac1_key = mac1_key(net.nodes[B].identifier());
    let own = local(&mallory.identity, 66);
    let posing = LocalIdentity {
        identifier: net.nodes[B].identifier(),
        ..own
    };
    mallory.channels.local = Arc::new(posing);
    let received = mallory
        .channels
        .handle_message(net.now, &mut mallory.entropy, PATH, ROUTE, &mut copy);
    assert_eq!(received, Ok(Received::Handshake));
    let Some(Output::Transmit { bytes, .. }) = mallory.channels.poll_output() else {
        panic!("no answer")
    };
    let refused = net.deliver(B, bytes);
    assert!(
        matches!(
            refused,
            Err(ChannelError::Identity(IdentityError::Foreign { .. }))
        ),
        "{refused:?}"
    );
    net.deliver(A, message_1).expect("it is good");
    net.run();
    assert_eq!(net.nodes[A].established().len(), 1);
}

#[test]
fn an_unknown_clock_skips_the_window_but_not_the_sequence() {
    let mut net = Net::new();
    net.now.wall = WallTime::default();
    net.now.wall.unix_millis = 999_999_999_000;
    net.established();
    // An older attestation of the same identity and key.
    let node = &mut net.nodes[A];
    let attestation = node.identity.attest(*secret(7).public(), 0, 86_400, 0);
    presenting(node, &attestation, &node.identity.history.to_bytes(), secret(7));
    net.connect(PqPolicy::Required);
    net.run();
    let old = IdentityError::OldAttestation { got: 0, highest: 1 };
    assert_eq!(net.nodes[B].errors, [ChannelError::Identity(old)]);
}

#[test]
fn a_channel_ends_with_the_attestation_of_its_peer() {
    let mut net = Net::new();
    net.established();
    let end = 86_400 + 300 - NOON;
    net.pass(secs(end - 61), |_, _| Fate::Pass);
    assert!(net.is_quiet(), "{:?}", net.nodes[A].closed());
    assert!(net.nodes[A].channels.stats().rekeys > 8);
    net.pass(secs(end + 61), |_, _| Fate::Pass);
    let reasons = [net.nodes[A].closed(), net.nodes[B].closed()].concat();
    assert_eq!(reasons.len(), 2);
    assert!(reasons.contains(&CloseReason::Expired));
    let told = CloseReason::Peer(CloseCode::BROKEN);
    assert!(
        reasons
            .iter()
            .all(|reason| [CloseReason::Expired, told].contains(reason)),
        "{reasons:?}"
    );

    // Whoever does not know the time goes on.
    let mut net = Net::new();
    net.now.wall.quality = ClockQuality::Unknown;
    net.established();
    net.pass(secs(100_000), |_, _| Fate::Pass);
    assert!(net.is_quiet());
}
