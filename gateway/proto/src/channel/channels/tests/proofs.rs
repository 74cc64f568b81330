//! Live proofs.

use super::*;
use crate::{
    channel::{PROOFS_WAITING_MAX, handshake::tests::local},
    crypto::{Signature, label16},
    identity::AttestationCache,
};

/// Returns what the owner of a node is asked to sign.
fn wanted(node: &Node) -> Vec<(ChannelId, Vec<u8>)> {
    let all = node.outputs.iter().filter_map(|output| {
        let Output::Sign { channel, message } = output else {
            return None;
        };
        Some((*channel, message.clone()))
    });
    all.collect()
}

fn proven(node: &Node) -> Vec<ChannelId> {
    let all = node.outputs.iter().filter_map(|output| {
        let Output::Proven { channel } = output else {
            return None;
        };
        Some(*channel)
    });
    all.collect()
}

/// Signs the last thing that the owner of a node was asked to sign.
fn sign(net: &mut Net, node: usize) {
    let (channel, message) = wanted(&net.nodes[node]).pop().expect("a signature is wanted");
    let signature = net.nodes[node].identity.key.sign(&message);
    answer(net, node, channel, Ok(signature));
}

fn answer(net: &mut Net, node: usize, channel: ChannelId, signature: Result<Signature, ()>) {
    let now = net.now;
    net.nodes[node]
        .channels
        .handle_signature(now, channel, signature)
        .expect("it was asked for");
    net.run();
}

fn demand(net: &mut Net, node: usize, channel: ChannelId) {
    let now = net.now;
    net.nodes[node]
        .channels
        .demand_proof(now, channel)
        .expect("the channel is open");
    net.run();
}

fn binding(node: &Node, wanted: ChannelId) -> [u8; 32] {
    let found = node.outputs.iter().find_map(|output| {
        let Output::Established { channel, binding, .. } = output else {
            return None;
        };
        (*channel == wanted).then_some(*binding)
    });
    found.expect("the channel was established")
}

fn message(role: u8, binding: &[u8; 32]) -> Vec<u8> {
    [label16("FG1 live v1").as_slice(), &[role], binding].concat()
}

fn proof(key_sequence: u32, signature: &Signature) -> Vec<u8> {
    let mut plaintext = Vec::new();
    let body = [&key_sequence.to_be_bytes(), signature.as_slice()].concat();
    put_frame(&mut plaintext, frame::PROOF, &body);
    plaintext
}

fn proof_please() -> Vec<u8> {
    vec![frame::PROOF_PLEASE, 0, 0]
}

/// Gives a node the next key of its identity.
fn rotate(net: &mut Net, node: usize) {
    let rotated = net.nodes[node].identity.rotated(KeyAlgorithm::EcdsaP256);
    net.nodes[node].channels.set_local(local(&rotated, 70));
    net.nodes[node].identity = rotated;
}

/// A closed the channel because of B's proof, and told it so.
fn assert_unproven(net: &Net, case: &str) {
    assert_eq!(net.nodes[A].closed(), [CloseReason::Unproven], "{case}");
    let told = CloseReason::Peer(CloseCode::NOT_AUTHORISED);
    assert_eq!(net.nodes[B].closed(), [told], "{case}");
    assert_eq!(net.nodes[A].channels.stats().proofs_refused, 1, "{case}");
    assert!(proven(&net.nodes[A]).is_empty(), "{case}");
}

#[test]
fn each_side_proves_itself_when_asked() {
    let mut net = Net::new();
    let [a, b] = net.established();
    for (node, own, other, peer, role) in [(A, a, B, b, 1), (B, b, A, a, 0)] {
        demand(&mut net, node, own);
        assert!(!net.nodes[node].channels.is_proven(own));
        let binding = binding(&net.nodes[node], own);
        assert_eq!(wanted(&net.nodes[other]), [(peer, message(role, &binding))]);
        net.at(secs(3));
        sign(&mut net, other);
        assert_eq!(proven(&net.nodes[node]), [own]);
        assert!(net.nodes[node].channels.is_proven(own));
        // Each side asks once.
        let before = net.log.len();
        demand(&mut net, node, own);
        assert_eq!(net.log.len(), before);
        let stats = net.nodes[node].channels.stats();
        assert_eq!((stats.proofs_verified, stats.proofs_refused), (1, 0));
        assert_eq!(net.nodes[other].channels.stats().proofs_given, 1);
    }
    net.pass(secs(300), |_, _| Fate::Pass);
    assert!(net.is_quiet(), "{:?}", net.nodes[A].errors);
    assert_eq!((proven(&net.nodes[A]).len(), proven(&net.nodes[B]).len()), (1, 1));
    let unknown = ChannelId::from_wire(1);
    let refused = Err(ChannelError::Channel(unknown));
    let now = net.now;
    assert_eq!(net.nodes[A].channels.demand_proof(now, unknown), refused);
    let unasked = net.nodes[A].channels.handle_signature(now, unknown, Err(()));
    assert_eq!(unasked, refused);
}

#[test]
fn a_proof_of_something_else_closes_the_channel() {
    type Forge = fn(&Net, &[ChannelId; 2], &[ChannelId; 2]) -> (u32, Signature);
    let cases: [(&str, Forge); 6] = [
        ("another key", |net, [a, _], _| {
            let binding = binding(&net.nodes[A], *a);
            let stranger = TestIdentity::new(KeyAlgorithm::EcdsaP256);
            (0, stranger.key.sign(&message(1, &binding)))
        }),
        ("the verifier's key", |net, [a, _], _| {
            let binding = binding(&net.nodes[A], *a);
            (0, net.nodes[A].identity.key.sign(&message(1, &binding)))
        }),
        ("another channel between the two", |net, _, [other, _]| {
            let binding = binding(&net.nodes[A], *other);
            (0, net.nodes[B].identity.key.sign(&message(1, &binding)))
        }),
        ("the other role", |net, [a, _], _| {
            let binding = binding(&net.nodes[A], *a);
            (0, net.nodes[B].identity.key.sign(&message(0, &binding)))
        }),
        ("another key sequence", |net, [a, _], _| {
            let binding = binding(&net.nodes[A], *a);
            (1, net.nodes[B].identity.key.sign(&message(1, &binding)))
        }),
        ("without the label", |net, [a, _], _| {
            let binding = binding(&net.nodes[A], *a);
            (0, net.nodes[B].identity.key.sign(&message(1, &binding)[16..]))
        }),
    ];
    for (case, forge) in cases {
        let mut net = Net::new();
        let channels = net.established();
        let others = net.established();
        demand(&mut net, A, channels[0]);
        let (key_sequence, signature) = forge(&net, &channels, &others);
        let record = net.seal_raw(B, channels[1], &proof(key_sequence, &signature));
        net.deliver(B, record).expect("the record itself is good");
        net.run();
        assert_unproven(&net, case);
        assert!(net.nodes[A].channels.peer(others[0]).is_some(), "{case}");
    }
}

#[test]
fn a_proof_replayed_from_another_channel_closes_the_channel() {
    let mut net = Net::new();
    let [first, _] = net.established();
    demand(&mut net, A, first);
    let (_, asked) = wanted(&net.nodes[B]).pop().expect("it is asked");
    let signature = net.nodes[B].identity.key.sign(&asked);
    sign(&mut net, B);
    assert_eq!(proven(&net.nodes[A]), [first]);
    let [second, at_b] = net.established();
    demand(&mut net, A, second);
    let record = net.seal_raw(B, at_b, &proof(0, &signature));
    net.deliver(B, record).expect("the record itself is good");
    assert_eq!(net.nodes[A].channels.peer(second), None);
    assert!(net.nodes[A].channels.is_proven(first));
}

#[test]
fn a_proof_that_nobody_asked_for_closes_the_channel() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let binding = binding(&net.nodes[A], a);
    let signature = net.nodes[B].identity.key.sign(&message(1, &binding));
    let record = net.seal_raw(B, b, &proof(0, &signature));
    net.deliver(B, record).expect("the record itself is good");
    net.run();
    assert_unproven(&net, "unasked, and right");
}

#[test]
fn a_proof_counts_for_thirty_seconds_even_if_the_timer_is_late() {
    // Nobody signs.
    let mut net = Net::new();
    let [a, _] = net.established();
    demand(&mut net, A, a);
    net.pass(Duration::from_millis(29_999), |_, _| Fate::Pass);
    assert!(net.is_quiet());
    net.pass(secs(30), |_, _| Fate::Pass);
    assert_unproven(&net, "never");
    // The token was still at work. What comes of it is for nobody.
    sign(&mut net, B);
    assert_eq!(net.nodes[B].channels.stats().proofs_given, 0);

    for (millis, in_time) in [(29_999, true), (30_000, false)] {
        let mut net = Net::new();
        let [a, _] = net.established();
        demand(&mut net, A, a);
        net.at(Duration::from_millis(millis));
        sign(&mut net, B);
        if in_time {
            assert_eq!(proven(&net.nodes[A]), [a]);
        } else {
            assert_unproven(&net, "late");
        }
    }
}

#[test]
fn a_token_that_does_not_sign_closes_the_channel_and_is_named() {
    for foreign in [false, true] {
        let mut net = Net::new();
        let [a, b] = net.established();
        demand(&mut net, A, a);
        let (_, asked) = wanted(&net.nodes[B]).pop().expect("it is asked");
        let stranger = TestIdentity::new(KeyAlgorithm::EcdsaP256);
        let signature = foreign.then(|| stranger.key.sign(&asked));
        answer(&mut net, B, b, signature.ok_or(()));
        assert_eq!(net.nodes[B].closed(), [CloseReason::Unsigned]);
        assert_eq!(net.nodes[A].closed(), [CloseReason::Peer(CloseCode::BROKEN)]);
        let stats = net.nodes[B].channels.stats();
        assert_eq!((stats.proofs_given, stats.open), (0, 0));
        assert!(net.nodes[B].channels.signing.is_empty());
    }
}

#[test]
fn a_proof_is_about_the_first_keys_whatever_was_replaced_meanwhile() {
    let rekey = RekeySettings {
        interval: secs(10),
        bytes_max: 1 << 40,
        interval_min: secs(1),
    };
    let quick = ChannelSettings { rekey, ..settings() };
    let mut net = Net::with(quick, quick);
    let [a, b] = net.established();
    let first = binding(&net.nodes[A], a);
    net.pass(secs(15), |_, _| Fate::Pass);
    demand(&mut net, A, a);
    net.pass(secs(40), |_, _| Fate::Pass);
    assert_eq!(wanted(&net.nodes[B]), [(b, message(1, &first))]);
    sign(&mut net, B);
    let generation = net.nodes[A]
        .channels
        .channel_stats(a)
        .map(|stats| stats.generation);
    assert!(generation >= Some(2), "{generation:?}");
    assert_eq!(proven(&net.nodes[A]), [a]);
    assert!(net.is_quiet());
}

#[test]
fn a_key_rotated_while_it_signs_is_asked_again() {
    // The verifier has seen the newer key in another channel.
    let mut net = Net::new();
    let [a, b] = net.established();
    demand(&mut net, A, a);
    let (_, asked) = wanted(&net.nodes[B]).pop().expect("it is asked");
    let old = net.nodes[B].identity.key.sign(&asked);
    rotate(&mut net, B);
    net.established();
    answer(&mut net, B, b, Ok(old));
    assert_eq!(wanted(&net.nodes[B]), [(b, asked.clone()), (b, asked)]);
    assert_eq!(net.nodes[B].channels.signing.len(), 1);
    sign(&mut net, B);
    assert_eq!(proven(&net.nodes[A]), [a]);

    // A token that failed because its key was replaced is asked again too.
    let mut net = Net::new();
    let [a, b] = net.established();
    demand(&mut net, A, a);
    rotate(&mut net, B);
    answer(&mut net, B, b, Err(()));
    assert_eq!(wanted(&net.nodes[B]).len(), 2);
    // This verifier does not know the newer key: the next handshake shows it.
    sign(&mut net, B);
    assert_unproven(&net, "a key the verifier does not know");
    let [again, _] = net.established();
    demand(&mut net, A, again);
    sign(&mut net, B);
    assert_eq!(proven(&net.nodes[A]), [again]);
}

#[test]
fn a_key_known_to_be_replaced_proves_nothing() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let binding = binding(&net.nodes[A], a);
    let stolen = net.nodes[B].identity.key.sign(&message(1, &binding));
    rotate(&mut net, B);
    net.established();
    demand(&mut net, A, a);
    let record = net.seal_raw(B, b, &proof(0, &stolen));
    net.deliver(B, record).expect("the record itself is good");
    net.run();
    assert_unproven(&net, "the key before");
}

#[test]
fn a_proof_verifies_although_the_peer_is_not_remembered_any_more() {
    let mut net = Net::new();
    let [a, _] = net.established();
    net.nodes[A].channels.peers = AttestationCache::new(1);
    demand(&mut net, A, a);
    sign(&mut net, B);
    assert_eq!(proven(&net.nodes[A]), [a]);
}

#[test]
fn a_peer_that_asks_again_and_again_causes_one_signature() {
    let mut net = Net::new();
    let [a, b] = net.established();
    let record = net.seal_raw(A, a, &proof_please().repeat(8));
    net.deliver(A, record).expect("it is well-formed");
    net.collect();
    assert_eq!(wanted(&net.nodes[B]).len(), 1);
    assert!(net.nodes[B].closed().is_empty(), "repetitions are allowed");
    let record = net.seal_raw(A, a, &proof_please());
    net.deliver(A, record).expect("it is well-formed");
    net.run();
    assert_eq!(net.nodes[B].closed(), [CloseReason::Local(CloseCode::LIMIT)]);
    assert_eq!(net.nodes[A].closed(), [CloseReason::Peer(CloseCode::LIMIT)]);
    assert_eq!(wanted(&net.nodes[B]).len(), 1);
    // All in one record.
    let [a, _] = net.established();
    let record = net.seal_raw(A, a, &proof_please().repeat(20_000));
    net.deliver(A, record).expect("it is well-formed");
    net.run();
    assert_eq!(net.nodes[B].closed().len(), 2);
    assert_eq!(
        wanted(&net.nodes[B]).len(),
        1,
        "closed before anything was signed"
    );
    assert_eq!(net.nodes[B].channels.peer(b), None);
}

#[test]
fn no_more_than_64_proofs_wait_for_the_token() {
    let mut net = Net::new();
    let mut channels = Vec::new();
    for _ in 0..=PROOFS_WAITING_MAX {
        channels.push(net.established());
    }
    for [a, _] in &channels {
        demand(&mut net, A, *a);
    }
    let [refused, at_b] = channels[PROOFS_WAITING_MAX];
    assert_eq!(wanted(&net.nodes[B]).len(), PROOFS_WAITING_MAX);
    assert_eq!(net.nodes[B].closed(), [CloseReason::Local(CloseCode::LIMIT)]);
    assert_eq!(net.nodes[A].channels.peer(refused), None);
    assert_eq!(net.nodes[B].channels.peer(at_b), None);
    assert_eq!(net.nodes[B].channels.stats().full, 1);
    // Whoever closes its channels has the token at work all the same.
    for [a, _] in &channels {
        net.nodes[A].channels.close(*a, CloseCode::DONE);
    }
    net.run();
    let [a, _] = net.established();
    demand(&mut net, A, a);
    assert_eq!(net.nodes[A].channels.peer(a), None, "closed by B");
    // Each answer makes room, though there is nobody to prove anything to.
    let (done, _) = wanted(&net.nodes[B])[0].clone();
    answer(&mut net, B, done, Err(()));
    let [a, _] = net.established();
    demand(&mut net, A, a);
    sign(&mut net, B);
    assert_eq!(proven(&net.nodes[A]), [a]);
    assert_eq!(net.nodes[B].channels.signing.len(), PROOFS_WAITING_MAX - 1);
}

#[test]
fn proofs_survive_the_loss_of_any_record() {
    for lost in 0..8 {
        let mut net = Net::new();
        let [a, b] = net.established();
        let now = net.now;
        for (node, channel) in [(A, a), (B, b)] {
            let demanded = net.nodes[node].channels.demand_proof(now, channel);
            demanded.expect("the channel is open");
        }
        let mut records = 0;
        let mut signed = [false; 2];
        for tenth in 1..290 {
            net.pass(Duration::from_millis(100 * tenth), |_, _| {
                records += 1;
                if records == lost { Fate::Drop } else { Fate::Pass }
            });
            for node in [A, B] {
                if !signed[node]
                    && let Some((channel, asked)) = wanted(&net.nodes[node]).pop()
                {
                    signed[node] = true;
                    let signature = net.nodes[node].identity.key.sign(&asked);
                    let now = net.now;
                    let channels = &mut net.nodes[node].channels;
                    channels
                        .handle_signature(now, channel, Ok(signature))
                        .expect("it was asked for");
                }
            }
        }
        assert!(net.is_quiet(), "record {lost} lost: {:?}", net.nodes[A].closed());
        for (node, channel) in [(A, a), (B, b)] {
            assert_eq!(proven(&net.nodes[node]), [channel], "record {lost} lost");
            assert_eq!(wanted(&net.nodes[node]).len(), 1, "record {lost} lost");
        }
        assert!(records >= 8, "{records} records: the last ones were never lost");
    }
}

/// A verifier brought into one state, and the peer's right proof.
fn verifier(state: &str) -> (Net, [ChannelId; 2], Signature) {
    let mut net = Net::new();
    let channels = net.established();
    let binding = binding(&net.nodes[A], channels[0]);
    let signature = net.nodes[B].identity.key.sign(&message(1, &binding));
    if state != "Unasked" {
        demand(&mut net, A, channels[0]);
    }
    if state == "Overdue" {
        net.at(secs(30));
    }
    if state == "Proven" {
        let record = net.seal_raw(B, channels[1], &proof(0, &signature));
        net.deliver(B, record).expect("the record itself is good");
    }
    net.run();
    (net, channels, signature)
}

/// A prover brought into one state.
fn prover(state: &str) -> (Net, [ChannelId; 2]) {
    let mut net = Net::new();
    let channels = net.established();
    if state != "Unasked" {
        demand(&mut net, A, channels[0]);
    }
    if state == "Answered" {
        sign(&mut net, B);
    }
    (net, channels)
}

/// Names what a node put out since `before`.
fn news(net: &Net, node: usize, before: usize) -> String {
    let names = net.nodes[node].outputs[before..]
        .iter()
        .map(|output| match output {
            Output::Transmit { .. } => "record".to_owned(),
            Output::Established { .. } => "established".to_owned(),
            Output::Presented { .. } => "presented".to_owned(),
            Output::Sign { .. } => "sign".to_owned(),
            Output::Proven { .. } => "proven".to_owned(),
            Output::Pong { .. } => "pong".to_owned(),
            Output::Closed { reason, .. } => format!("closed: {reason}"),
        });
    names.collect::<Vec<_>>().join(", ")
}

#[test]
fn transitions_of_live_proofs_are_these() {
    let mut lines = Vec::new();
    for input in ["demand", "right Proof", "wrong Proof", "30 s"] {
        for state in ["Unasked", "Pending", "Overdue", "Proven"] {
            let (mut net, [a, b], signature) = verifier(state);
            let before = net.nodes[A].outputs.len();
            let now = net.now;
            match input {
                "demand" => drop(net.nodes[A].channels.demand_proof(now, a)),
                "30 s" => {
                    net.at(secs(30));
                    let (now, node) = (net.now, &mut net.nodes[A]);
                    node.channels.handle_timeout(now, &mut node.entropy);
                }
                _ => {
                    let mut signature = signature;
                    signature[40] ^= u8::from(input == "wrong Proof");
                    let record = net.seal_raw(B, b, &proof(0, &signature));
                    net.deliver(B, record).expect("the record itself is good");
                }
            }
            net.collect();
            let line = format!("verifier {state:8} {input:11} -> {}", news(&net, A, before));
            lines.push(line.trim_end().to_owned());
        }
    }
    for input in ["ProofPlease", "signature", "failure", "wrong key", "rotated"] {
        for state in ["Unasked", "Signing", "Answered"] {
            let (mut net, [a, b]) = prover(state);
            let before = net.nodes[B].outputs.len();
            let now = net.now;
            let binding = binding(&net.nodes[B], b);
            let right = net.nodes[B].identity.key.sign(&message(1, &binding));
            let mut asked = true;
            match input {
                "ProofPlease" => {
                    let record = net.seal_raw(A, a, &proof_please());
                    net.deliver(A, record).expect("the record itself is good");
                }
                _ => {
                    if input == "rotated" {
                        rotate(&mut net, B);
                    }
                    let signature = match input {
                        "failure" => Err(()),
                        "wrong key" => Ok(net.nodes[A].identity.key.sign(&message(1, &binding))),
                        _ => Ok(right),
                    };
                    let handled = net.nodes[B].channels.handle_signature(now, b, signature);
                    asked = handled.is_ok();
                }
            }
            net.collect();
            let news = if asked {
                news(&net, B, before)
            } else {
                "refused".to_owned()
            };
            let line = format!("prover   {state:8} {input:11} -> {news}");
            lines.push(line.trim_end().to_owned());
        }
    }
    let want: Vec<_> = include_str!("transitions.txt").lines().collect();
    assert_eq!(lines, want, "\n{}", lines.join("\n"));
}
