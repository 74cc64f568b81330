//! What nodes present to each other.

use super::*;
use crate::channel::{PRESENTATION_LEN_MAX, message::MESSAGE_LEN_MAX};

fn presents(net: &mut Net, node: usize, presentation: &[u8]) {
    net.nodes[node]
        .channels
        .set_presentation(Some(presentation.into()))
        .expect("it is short enough");
}

/// Returns what came with `Established`, channel by channel.
fn established_with(node: &Node) -> Vec<(u32, Vec<u8>)> {
    let all = node.outputs.iter().filter_map(|output| {
        let Output::Established {
            key_sequence,
            presentation,
            ..
        } = output
        else {
            return None;
        };
        Some((*key_sequence, presentation.clone()))
    });
    all.collect()
}

/// Returns what came in Credential frames.
fn presented(node: &Node) -> Vec<(ChannelId, Vec<u8>)> {
    let all = node.outputs.iter().filter_map(|output| {
        let Output::Presented {
            channel,
            presentation,
        } = output
        else {
            return None;
        };
        Some((*channel, presentation.clone()))
    });
    all.collect()
}

fn credential(body: &[u8]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    put_frame(&mut plaintext, frame::CREDENTIAL, body);
    plaintext
}

#[test]
fn an_initiator_presents_in_message_3_and_a_responder_in_its_first_record() {
    let mut net = Net::new();
    presents(&mut net, A, b"gateway 7");
    presents(&mut net, B, b"collector 1");
    let a = net.connect(PqPolicy::Required);
    // What the responder says once it is established comes after its credential.
    net.run_with(|from, bytes| {
        if from == B && is_record(bytes[0]) {
            Fate::Hold
        } else {
            Fate::Pass
        }
    });
    assert_eq!(
        established_with(&net.nodes[B]),
        [(0, b"gateway 7".to_vec())],
        "with message 3"
    );
    assert_eq!(established_with(&net.nodes[A]), [(0, Vec::new())]);
    let b = net.nodes[B].established()[0];
    net.say(B, b, b"hello");
    let (_, first) = net.held.remove(0);
    assert!(kind_is(&first, 0x41), "number 0 is written in four bytes");
    net.deliver(B, first).expect("it opens");
    net.collect();
    assert_eq!(presented(&net.nodes[A]), [(a, b"collector 1".to_vec())]);
    net.run();
    assert_eq!(net.nodes[A].bodies(), [b"hello"]);
    assert!(presented(&net.nodes[B]).is_empty(), "message 3 was enough");
    // Messages 1 to 3, the credential, its acknowledgement, and what was said.
    let kinds: Vec<_> = net.log.iter().map(|(from, bytes)| (*from, bytes[0])).collect();
    let answer = [(A, 0x11), (B, 0x12), (A, 0x13), (B, 0x41)];
    assert_eq!(kinds[..4], answer);
    assert_eq!(kinds.len(), 5, "one Pong: {kinds:x?}");
    net.pass(secs(200), |_, _| Fate::Pass);
    assert_eq!(net.log.len(), 5, "what was acknowledged is not repeated");
    assert!(net.is_quiet());
}

#[test]
fn whoever_has_nothing_to_present_sends_what_it_sent_before() {
    let mut net = Net::new();
    let nothing = net.nodes[A].channels.set_presentation(Some(Arc::from([])));
    assert_eq!(nothing, Ok(()));
    let [a, b] = net.established();
    let now = net.now;
    for (node, channel) in [(A, a), (B, b)] {
        let channels = &mut net.nodes[node].channels;
        assert_eq!(channels.present(now, channel), Ok(()));
        channels.present_everywhere(now);
    }
    net.pass(secs(10), |_, _| Fate::Pass);
    assert_eq!(net.log.len(), 4, "three messages and the empty first record");
    assert_eq!(established_with(&net.nodes[B]), [(0, Vec::new())]);
    let unknown = ChannelId::from_wire(1);
    assert_eq!(
        net.nodes[A].channels.present(now, unknown),
        Err(ChannelError::Channel(unknown))
    );
}

#[test]
fn the_longest_history_and_presentation_fit_into_message_3() {
    let mut net = Net::new();
    let mut identity = TestIdentity::new(KeyAlgorithm::EcdsaP256);
    for _ in 1..crate::identity::CHANGES_MAX {
        identity = identity.rotated(KeyAlgorithm::EcdsaP256);
    }
    net.nodes[A].channels.set_local(local(&identity, 5));
    let longest = vec![9; PRESENTATION_LEN_MAX];
    presents(&mut net, A, &longest);
    presents(&mut net, B, &longest);
    let [a, _] = net.established();
    let message_3 = net.log.iter().find(|(_, bytes)| kind_is(bytes, MESSAGE_3));
    let len = message_3.expect("it was sent").1.len();
    assert_eq!(len, 8169);
    const { assert!(8169 <= MESSAGE_LEN_MAX) };
    const { assert!(PRESENTATION_LEN_MAX == crate::trust::PRESENTATION_LEN_MAX) };
    assert_eq!(established_with(&net.nodes[B]), [(15, longest.clone())]);
    assert_eq!(presented(&net.nodes[A]), [(a, longest)]);
}

#[test]
fn a_presentation_that_is_too_long_is_neither_set_nor_taken() {
    let mut net = Net::new();
    presents(&mut net, A, b"good");
    let long = vec![9; PRESENTATION_LEN_MAX + 1];
    let refused = net.nodes[A]
        .channels
        .set_presentation(Some(long.as_slice().into()));
    assert_eq!(refused, Err(ChannelError::TooLong { len: 4097, max: 4096 }));
    let [a, b] = net.established();
    assert_eq!(established_with(&net.nodes[B]), [(0, b"good".to_vec())]);
    let record = net.seal_raw(A, a, &credential(&long));
    assert_eq!(
        net.deliver(A, record),
        Err(ChannelError::Frame(FrameError::Length {
            kind: frame::CREDENTIAL,
            len: 4097
        }))
    );
    assert!(net.nodes[B].channels.peer(b).is_some());
    // In message 3 it costs the handshake.
    let honest = local(&net.nodes[A].identity, 3);
    let mut payload = honest.payload.clone();
    payload.truncate(payload.len() - 2);
    crate::wire::put_bytes16(&mut payload, &long);
    net.nodes[A]
        .channels
        .set_presentation(None)
        .expect("nothing is short enough");
    net.nodes[A]
        .channels
        .set_local(LocalIdentity { payload, ..honest });
    net.nodes[B].errors.clear();
    net.connect(PqPolicy::Required);
    net.run();
    let refused = WireError::Value {
        field: "length of presentation",
        value: 4097,
    };
    assert_eq!(net.nodes[B].errors, [refused.into()]);
    assert_eq!(established_with(&net.nodes[B]).len(), 1);
}

#[test]
fn a_presentation_in_message_2_is_refused() {
    let mut net = Net::new();
    let honest = local(&net.nodes[B].identity, 2);
    let payload = honest.payload_3(b"me").into_owned();
    net.nodes[B]
        .channels
        .set_local(LocalIdentity { payload, ..honest });
    net.connect(PqPolicy::Required);
    net.pass(secs(40), |_, _| Fate::Pass);
    let refusal = WireError::Value {
        field: "length of presentation",
        value: 2,
    };
    let refusal = Some(refusal.into());
    assert_eq!(net.nodes[A].closed(), [CloseReason::NoAnswer { refusal }]);
}

/// Two nodes with so many channels, as A calls them.
fn with_channels(count: usize) -> (Net, Vec<ChannelId>) {
    let mut net = Net::with(
        ChannelSettings {
            pq: PqPolicy::Off,
            ..settings()
        },
        ChannelSettings {
            pq: PqPolicy::Off,
            ..settings()
        },
    );
    for _ in 0..count {
        net.connect(PqPolicy::Off);
        net.run();
    }
    let channels = net.nodes[A].established();
    assert_eq!(channels.len(), count);
    (net, channels)
}

#[test]
fn a_renewed_credential_reaches_every_channel_once_and_a_few_at_a_time() {
    let (mut net, mut channels) = with_channels(600);
    presents(&mut net, A, b"new");
    let now = net.now;
    net.nodes[A].channels.present_everywhere(now);
    let mut steps = Vec::new();
    for step in 0..10 {
        let before = presented(&net.nodes[B]).len();
        net.pass(Duration::from_millis(10 * step), |_, _| Fate::Pass);
        steps.push(presented(&net.nodes[B]).len() - before);
        if step == 1 {
            // Whoever comes meanwhile has it from message 3.
            channels.push(net.connect(PqPolicy::Off));
            net.run();
        }
    }
    assert_eq!(steps, [256, 256, 88, 0, 0, 0, 0, 0, 0, 0]);
    let mut have: Vec<_> = presented(&net.nodes[B])
        .into_iter()
        .map(|(channel, presentation)| {
            assert_eq!(presentation, b"new");
            channel
        })
        .collect();
    have.sort();
    have.dedup();
    assert_eq!(have.len(), 600);
    assert_eq!(
        established_with(&net.nodes[B]).last(),
        Some(&(0, b"new".to_vec()))
    );
    assert_eq!(net.nodes[B].channels.stats().presentations, 600);
    // Once more: everybody has it.
    let (now, before) = (net.now, net.log.len());
    net.nodes[A].channels.present_everywhere(now);
    net.pass(secs(10), |_, _| Fate::Pass);
    assert_eq!(net.log.len(), before);
    assert!(net.is_quiet());
}

#[test]
fn a_walk_through_the_channels_begins_again_with_the_newest_presentation() {
    let (mut net, channels) = with_channels(300);
    for text in ["one", "two"] {
        presents(&mut net, A, text.as_bytes());
        let now = net.now;
        net.nodes[A].channels.present_everywhere(now);
        net.nodes[A].channels.handle_timeout(now, &mut Seeded::new(1));
        net.run();
    }
    net.pass(secs(5), |_, _| Fate::Pass);
    let mut last = BTreeMap::new();
    for (channel, presentation) in presented(&net.nodes[B]) {
        last.insert(channel, presentation);
    }
    assert_eq!(last.len(), channels.len());
    assert!(last.values().all(|presentation| presentation == b"two"));
    let all = presented(&net.nodes[B]).len();
    assert_eq!(all, 256 + 300, "the last 44 never heard of the first");
}

#[test]
fn a_channel_closed_while_its_credential_is_on_its_way_is_no_trouble() {
    let (mut net, channels) = with_channels(3);
    presents(&mut net, A, b"new");
    let now = net.now;
    net.nodes[A].channels.present_everywhere(now);
    net.nodes[A].channels.close(channels[1], CloseCode::DONE);
    net.pass(secs(1), |_, _| Fate::Pass);
    assert_eq!(presented(&net.nodes[B]).len(), 2);
}

#[test]
fn two_presentations_of_a_channel_are_two_seconds_apart_and_the_newest_wins() {
    let mut net = Net::new();
    presents(&mut net, A, b"first");
    let [a, _] = net.established();
    for text in ["second", "third", "fourth"] {
        presents(&mut net, A, text.as_bytes());
        let now = net.now;
        net.nodes[A].channels.present(now, a).expect("it is open");
        net.run();
    }
    net.pass(Duration::from_millis(1999), |_, _| Fate::Pass);
    assert!(presented(&net.nodes[B]).is_empty());
    net.pass(secs(2), |_, _| Fate::Pass);
    let got: Vec<_> = presented(&net.nodes[B])
        .into_iter()
        .map(|(_, body)| body)
        .collect();
    assert_eq!(got, [b"fourth"]);
    assert_eq!(net.nodes[B].channels.stats().presentations_dropped, 0);
}

#[test]
fn more_than_one_presentation_a_second_is_dropped() {
    let mut net = Net::new();
    presents(&mut net, A, b"first");
    let [a, b] = net.established();
    let mut many = Vec::new();
    for _ in 0..1000 {
        many.extend_from_slice(&credential(b"again"));
    }
    let mut taken = 0;
    for tenth in 0..25 {
        net.pass(Duration::from_millis(100 * tenth), |_, _| Fate::Pass);
        let record = net.seal_raw(A, a, &many);
        net.deliver(A, record).expect("it is well-formed");
        net.collect();
        taken = presented(&net.nodes[B]).len();
        // Message 3 was the first.
        let want = usize::try_from(tenth / 10).expect("it is small");
        assert_eq!(taken, want, "{tenth} tenths of a second");
    }
    let stats = net.nodes[B].channels.stats();
    assert_eq!(stats.presentations, taken as u64);
    assert_eq!(stats.presentations_dropped, 25_000 - taken as u64);
    // A peer may withdraw what it presented.
    net.pass(secs(5), |_, _| Fate::Pass);
    let record = net.seal_raw(A, a, &credential(&[]));
    net.deliver(A, record).expect("it is well-formed");
    net.collect();
    assert_eq!(presented(&net.nodes[B]).last(), Some(&(b, Vec::new())));
    assert!(net.is_quiet());
}

#[test]
fn a_lost_credential_is_sent_again_until_it_is_acknowledged() {
    for lost in 0..4 {
        let mut net = Net::new();
        presents(&mut net, B, b"collector 1");
        net.connect(PqPolicy::Required);
        let mut records = 0;
        // The credential, the Pong, and what repeats them.
        net.pass(secs(120), |_, bytes| {
            if !is_record(bytes[0]) {
                return Fate::Pass;
            }
            records += 1;
            if records == lost { Fate::Drop } else { Fate::Pass }
        });
        let got: Vec<_> = presented(&net.nodes[A])
            .into_iter()
            .map(|(_, body)| body)
            .collect();
        assert!(!got.is_empty(), "record {lost} lost");
        assert!(got.len() <= 2 && got.iter().all(|body| body == b"collector 1"));
        assert!(net.is_quiet());
        let before = net.log.len();
        net.pass(secs(300), |_, _| Fate::Pass);
        assert_eq!(net.log.len(), before, "record {lost} lost: still repeated");
    }
}

#[test]
fn a_credential_that_is_never_acknowledged_is_given_up() {
    let mut net = Net::new();
    let [a, _] = net.established();
    presents(&mut net, A, b"new");
    let now = net.now;
    net.nodes[A].channels.present(now, a).expect("it is open");
    net.log.clear();
    let mut sent = Vec::new();
    for second in 0..200 {
        let before = net.log.len();
        net.pass(secs(second), |_, _| Fate::Drop);
        sent.extend(std::iter::repeat_n(second, net.log.len() - before));
    }
    assert_eq!(sent, [0, 1, 3, 7, 15, 31, 63], "in seconds");
    assert!(net.is_quiet());
    // The next one is sent again.
    let now = net.now;
    net.nodes[A].channels.present(now, a).expect("it is open");
    net.run();
    assert_eq!(presented(&net.nodes[B]).len(), 1);
}
