//! Neighbours that lie, guess and flood, and links that are congested.

use super::*;
use crate::link::{begin_data_offer, put_label_gone};

/// A relay 0 with the members 1 (may reach `b`), 2 (holds `b`) and 3 (may nothing), each on its link.
struct Star {
    node: Node,
    entropy: Seeded,
    links: [LinkId; 3],
}

fn star() -> Star {
    let mut node = relay(vec![
        (1, rights(&["a"], &["b"])),
        (2, rights(&["b"], &["a"])),
        (3, rights(&[], &[])),
    ]);
    let mut entropy = Seeded(3);
    let links = [1, 2, 3].map(|member| {
        let link = node.up(seconds(1), &mut entropy);
        node.router.attach(link, id(member)).expect("a member");
        link
    });
    node.register(seconds(1), links[1], id(2), "b");
    Star { node, entropy, links }
}

/// A Routed frame as any neighbour can write it.
struct Forged<'a> {
    hops: u8,
    offered: u32,
    onward: &'a str,
    back: &'a str,
    payload: &'a [u8],
}

impl Default for Forged<'_> {
    fn default() -> Self {
        Self {
            hops: 8,
            offered: 0,
            onward: TO_B,
            back: FLOW,
            payload: b"x",
        }
    }
}

const TO_B: &str = "name:b/service:uplink";
const FLOW: &str = "service:flow-00000000000000aa";

impl Forged<'_> {
    fn bytes(&self) -> Vec<u8> {
        self.bytes_along(&route(self.onward), &route(self.back))
    }

    fn bytes_along(&self, onward: &Route, back: &Route) -> Vec<u8> {
        let head = RoutedHead {
            hop_limit: HopLimit::new(self.hops).expect("at most 8"),
            offered: Label::new(self.offered),
            onward: onward.as_ref(),
            return_route: back.as_ref(),
        };
        let mut out = Vec::new();
        let mark = begin_routed(&mut out, Class::Normal, &head);
        out.extend_from_slice(self.payload);
        finish_frame(&mut out, mark, FRAME_LEN_MAX).expect("short");
        out
    }
}

fn data(class: Class, label: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_data(
        &mut out,
        class,
        Label::new(label).expect("not zero"),
        payload,
        FRAME_LEN_MAX,
    )
    .expect("short");
    out
}

fn data_offer(label: u32, offered: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let [label, offered] = [label, offered].map(|number| Label::new(number).expect("not zero"));
    let mark = begin_data_offer(&mut out, Class::Normal, label, offered);
    out.push(1);
    finish_frame(&mut out, mark, FRAME_LEN_MAX).expect("short");
    out
}

impl Star {
    fn take(&mut self, link: usize, bytes: Vec<u8>) -> Vec<Event> {
        self.node.take(seconds(1), self.links[link], bytes);
        self.node.events()
    }

    fn dropped(&mut self, link: usize, bytes: Vec<u8>) -> DropReason {
        let before = self.node.router.stats().dropped_total();
        match self.take(link, bytes).as_slice() {
            [Event::Dropped(reason)] => {
                let stats = self.node.router.stats();
                assert!(stats.dropped(*reason) > 0 && stats.dropped_total() == before + 1);
                *reason
            }
            other => panic!("{other:?}"),
        }
    }

    fn address(&self, link: usize) -> LinkAddress {
        self.node
            .router
            .links
            .get(self.links[link].0)
            .expect("up")
            .address
    }

    /// Takes what was sent over a link.
    fn sent(&mut self, link: usize) -> Vec<u8> {
        std::mem::take(self.node.buffers.bytes.get_mut(&self.links[link]).expect("up"))
    }

    /// The route of an answer from a neighbour to the conversation `FLOW` of link `to`.
    fn answer(&self, to: usize) -> Route {
        Route::new([
            Address::Link(self.address(to)),
            Address::Service(&FLOW["service:".len()..]),
        ])
        .expect("a route")
    }

    /// Member 2 answers member 1 with an offer; the label member 1 is offered in its place, 0 for none.
    fn offer(&mut self, from: usize, to: usize, offered: u32) -> u32 {
        let answer = Forged {
            offered,
            ..Forged::default()
        }
        .bytes_along(&self.answer(to), &route(""));
        assert_eq!(self.take(from, answer), []);
        let sent = self.sent(to);
        u32::from_be_bytes(sent[5..9].try_into().expect("four bytes"))
    }

    fn labels(&self) -> usize {
        self.node.router.label_count()
    }
}

#[test]
fn what_is_not_allowed_is_dropped_for_its_reason() {
    let long_back = (0..8)
        .map(|n| format!("link:{n:016x}"))
        .collect::<Vec<_>>()
        .join("/");
    let forged = Forged::default;
    // Why, hop limit, offer, onward and return route.
    let cases = [
        (DropReason::NoDestination, 8, 0, "", FLOW),
        (DropReason::BehindService, 8, 0, "service:registrar/name:b", FLOW),
        (DropReason::UnknownService, 8, 0, "service:uplink", FLOW),
        (DropReason::UnknownFlow, 8, 0, FLOW, FLOW),
        (DropReason::NoWayBack, 8, 0, "service:registrar", ""),
        (
            DropReason::NoWayBack,
            8,
            0,
            "service:registrar",
            "service:registrar",
        ),
        (DropReason::OfferUnasked, 8, 5, "service:registrar", FLOW),
        (DropReason::OfferUnasked, 8, 5, TO_B, FLOW),
        (DropReason::NotAllowed, 8, 0, "name:c/service:uplink", FLOW),
        (
            DropReason::UnknownLinkAddress,
            8,
            0,
            "link:00000000000000ff/service:uplink",
            FLOW,
        ),
        (DropReason::HopLimit, 0, 0, TO_B, FLOW),
        (DropReason::RouteFull, 8, 0, TO_B, long_back.as_str()),
    ];
    let mut star = star();
    for (reason, hops, offered, onward, back) in cases {
        let forged = Forged {
            hops,
            offered,
            onward,
            back,
            payload: b"x",
        };
        assert_eq!(star.dropped(0, forged.bytes()), reason, "{onward} back {back}");
    }
    for link in 0..3 {
        assert_eq!(star.sent(link), b"", "nothing is explained");
    }
    assert_eq!((star.labels(), star.node.router.flows.is_empty()), (0, true));
    assert_eq!(star.take(0, Forged { hops: 1, ..forged() }.bytes()), []);
    assert!(!star.sent(1).is_empty());
}

#[test]
fn a_member_reaches_only_the_names_it_may() {
    let mut star = star();
    assert_eq!(star.dropped(2, Forged::default().bytes()), DropReason::NotAllowed);
    let mut forged = Forged {
        onward: "name:a/service:uplink",
        ..Forged::default()
    };
    assert_eq!(star.dropped(1, forged.bytes()), DropReason::UnknownName);
    forged.onward = "name:b/service:uplink";
    assert_eq!(star.dropped(1, forged.bytes()), DropReason::NotAllowed);
}

#[test]
fn a_node_that_is_no_relay_forwards_nothing() {
    let mut node = endpoint();
    let link = node.up(seconds(1), &mut Seeded(1));
    node.take(seconds(1), link, Forged::default().bytes());
    assert_eq!(node.events(), [Event::Dropped(DropReason::NotARelay)]);
    assert_eq!(node.router.attach(link, id(1)), Err(MemberLinkError::NotARelay));
}

#[test]
fn an_unattached_link_reaches_the_registrar_and_nothing_else() {
    let mut star = star();
    let stranger = star.node.up(seconds(1), &mut star.entropy);
    let answer = Forged::default().bytes_along(&star.answer(0), &route(""));
    for bytes in [Forged::default().bytes(), answer] {
        star.node.take(seconds(1), stranger, bytes);
        assert_eq!(star.node.events(), [Event::Dropped(DropReason::Unattached)]);
    }
    star.node.take(
        seconds(1),
        stranger,
        Forged {
            onward: "service:registrar",
            ..Forged::default()
        }
        .bytes(),
    );
    assert!(matches!(star.node.events().as_slice(), [Event::Accepted { .. }]));
    // Nor is anything forwarded to it.
    let address = star.node.router.links.get(stranger.0).expect("up").address;
    let to =
        Route::new([Address::Link(address), Address::Service("flow-00000000000000aa")]).expect("a route");
    assert_eq!(
        star.dropped(0, Forged::default().bytes_along(&to, &route(""))),
        DropReason::Unattached
    );
}

#[test]
fn a_link_is_attached_to_one_member_only_and_within_limits() {
    let mut star = star();
    let router = &mut star.node.router;
    assert_eq!(router.attach(star.links[0], id(1)), Ok(()));
    assert_eq!(
        router.attach(star.links[0], id(2)),
        Err(MemberLinkError::OtherMember)
    );
    let now = seconds(1);
    for n in 2..=17 {
        let link = router
            .link_up(now, &mut star.entropy, FRAME_LEN_MAX)
            .expect("room");
        let expected = if n <= 16 {
            Ok(())
        } else {
            Err(MemberLinkError::TooManyLinks { max: 16 })
        };
        assert_eq!(router.attach(link, id(1)), expected);
        assert_eq!(router.member(link), expected.is_ok().then(|| id(1)));
    }
    let link = router
        .link_up(now, &mut star.entropy, FRAME_LEN_MAX)
        .expect("room");
    assert_eq!(router.attach(link, id(9)), Err(MemberLinkError::NotAMember));
}

#[test]
fn a_known_link_address_does_not_serve_to_begin_conversations() {
    let mut star = star();
    let address = star.address(0);
    for onward in ["uplink", "flow-00000000000000AA", "flow-00aa", "flow-"] {
        let Ok(onward) = Route::new([Address::Link(address), Address::Service(onward)]) else {
            continue;
        };
        assert_eq!(
            star.dropped(1, Forged::default().bytes_along(&onward, &route(FLOW))),
            DropReason::NotAnAnswer
        );
    }
    let onward = Route::new([Address::Link(address)]).expect("a route");
    assert_eq!(
        star.dropped(1, Forged::default().bytes_along(&onward, &route(FLOW))),
        DropReason::NotAnAnswer
    );
    // An answer nobody waits for is dropped where it arrives.
    let mut victim = endpoint();
    let link = victim.up(seconds(1), &mut Seeded(1));
    let answer = Forged {
        offered: 9,
        ..Forged::default()
    }
    .bytes_along(&star.answer(0), &route(""));
    assert_eq!(star.take(1, answer), []);
    victim.take(seconds(1), link, star.sent(0));
    assert_eq!(victim.events(), [Event::Dropped(DropReason::UnknownFlow)]);
}

#[test]
fn an_answer_over_another_link_is_not_taken() {
    let mut net = Network::new(vec![endpoint(), endpoint(), endpoint()]);
    let (link, _) = net.connect(0, 1);
    let (other, _) = net.connect(0, 2);
    let now = net.now;
    let flow = net.nodes[0]
        .router
        .open(now, &mut net.entropy, link, &route("service:uplink"))
        .expect("opened");
    net.nodes[0].send(now, flow, Class::Normal, b"one");
    let sent = net.nodes[0].buffers.bytes[&link].clone();
    // The return route of a conversation is the last 24 bytes before the payload: count, type, length, 21 bytes.
    let back = &sent[sent.len() - 3 - 24..sent.len() - 3];
    let mut reader = crate::wire::Reader::new(back);
    let back = RouteRef::read(&mut reader).expect("a route").to_route();
    let forged = Forged::default().bytes_along(&back, &route(""));
    net.nodes[0].take(now, other, forged.clone());
    assert_eq!(net.nodes[0].events(), [Event::Dropped(DropReason::UnknownFlow)]);
    net.nodes[0].take(now, link, forged);
    assert_eq!(
        net.nodes[0].events(),
        [Event::Local {
            flow,
            class: Class::Normal,
            payload: b"x".to_vec()
        }]
    );
}

#[test]
fn loops_are_broken() {
    let mut star = star();
    // The name's only holder is the link the frame came over.
    let forged = Forged {
        onward: "name:b/service:uplink",
        ..Forged::default()
    };
    star.node.router.relay = None;
    star.node
        .router
        .set_relay(policy(vec![(2, rights(&["b"], &["b"]))]), &mut Buffers::default());
    for link in star.links {
        star.node.router.detach(link, &mut star.node.buffers);
    }
    star.node.router.attach(star.links[1], id(2)).expect("a member");
    star.node.register(seconds(1), star.links[1], id(2), "b");
    assert_eq!(star.dropped(1, forged.bytes()), DropReason::Loop);
    let own = star.answer(1);
    assert_eq!(
        star.dropped(1, Forged::default().bytes_along(&own, &route(""))),
        DropReason::Loop
    );
}

#[test]
fn a_route_that_turns_back_on_itself_is_a_loop() {
    let mut star = star();
    let onward = route("name:b/service:uplink");
    let forged = Forged::default();
    assert_eq!(star.take(0, forged.bytes_along(&onward, &route(FLOW))), []);
    star.sent(1);
    // It passed over this link before.
    let again = Route::new([
        Address::Link(star.address(0)),
        Address::Service("flow-00000000000000aa"),
    ]);
    let bytes = forged.bytes_along(&onward, &again.expect("a route"));
    assert_eq!(star.dropped(0, bytes), DropReason::Loop);
    // An address stands twice, onward or back; no route of ours can be written so.
    let twice_onward = [
        &[3, 1, 1, b'b', 1, 1, b'b', 2, 1, b'u', 1, 2, 21][..],
        &FLOW.as_bytes()[8..],
    ]
    .concat();
    let twice_back = [
        &[1, 1, 1, b'b', 3, 1, 1, b'x', 1, 1, b'x', 2, 21][..],
        &FLOW.as_bytes()[8..],
    ]
    .concat();
    for routes in [twice_onward, twice_back] {
        let mut bytes = vec![0, 0, 0, 0x31, 8, 0, 0, 0, 0];
        bytes.extend_from_slice(&routes);
        bytes[2] = u8::try_from(bytes.len() - 4).expect("short");
        assert_eq!(star.dropped(0, bytes), DropReason::Loop);
    }
}

#[test]
fn a_label_offered_to_two_conversations_of_this_node_serves_the_first() {
    let mut net = Network::new(vec![endpoint(), endpoint()]);
    let (link, _) = net.connect(0, 1);
    let now = net.now;
    let flows = [0, 1].map(|_| {
        let onward = route("service:uplink");
        net.nodes[0]
            .router
            .open(now, &mut net.entropy, link, &onward)
            .expect("opened")
    });
    for flow in flows {
        let back = net.nodes[0]
            .router
            .flows
            .return_route(flow)
            .expect("an initiator");
        let answer = Forged {
            offered: 77,
            ..Forged::default()
        };
        net.nodes[0].take(now, link, answer.bytes_along(&route(&back), &route("")));
        let payload = b"x".to_vec();
        assert_eq!(
            net.nodes[0].events(),
            [Event::Local {
                flow,
                class: Class::Normal,
                payload
            }]
        );
    }
    assert_eq!(net.nodes[0].router.label_count(), 1);
    assert_eq!(net.nodes[0].router.stats().labels_refused, 1);
    let mut gone = Vec::new();
    put_label_gone(&mut gone, Label::new(77).expect("not zero"));
    net.nodes[0].take(now, link, gone);
    let lost = Event::Lost {
        flow: flows[0],
        reason: FlowLost::LabelGone,
    };
    assert_eq!(net.nodes[0].events(), [lost]);
    assert_eq!(net.nodes[0].router.link_of(flows[1]), Some(link));
}

#[test]
fn an_agreed_label_is_not_exchanged_for_another() {
    let mut chain = chain();
    let (gateway, collector) = chain.converse();
    let now = chain.net.now;
    let back = chain.net.nodes[0]
        .router
        .flows
        .return_route(gateway)
        .expect("an initiator");
    let answer = Forged {
        offered: 77,
        ..Forged::default()
    };
    chain.net.nodes[0].take(
        now,
        chain.onward[0],
        answer.bytes_along(&route(&back), &route("")),
    );
    chain.net.nodes[0].events();
    chain.net.nodes[0].send(now, gateway, Class::Normal, b"on");
    chain.net.run();
    let on = Event::Local {
        flow: collector,
        class: Class::Normal,
        payload: b"on".to_vec(),
    };
    assert_eq!(chain.net.nodes[4].events(), [on]);
}

#[test]
fn two_relays_that_hold_each_other_do_not_play_ball() {
    let mut net = Network::new(vec![
        endpoint(),
        relay(vec![(0, rights(&[], &["x"])), (2, rights(&["x"], &["x"]))]),
        relay(vec![(1, rights(&["x"], &["x"]))]),
    ]);
    let (gateway, at_first) = net.connect(0, 1);
    let (to_second, to_first) = net.connect(1, 2);
    let now = net.now;
    net.nodes[1].router.attach(at_first, id(0)).expect("a member");
    net.nodes[1].router.attach(to_second, id(2)).expect("a member");
    net.nodes[2].router.attach(to_first, id(1)).expect("a member");
    net.nodes[1].register(now, to_second, id(2), "x");
    net.nodes[2].register(now, to_first, id(1), "x");
    let long = (0..7).map(|_| &b"\x01\x01x"[..]).collect::<Vec<_>>().concat();
    let mut frame = vec![0, 0, 0, 0x31, 8, 0, 0, 0, 0, 7];
    frame.extend_from_slice(&long);
    frame.extend_from_slice(b"\x01\x02\x15flow-00000000000000aa");
    frame[2] = u8::try_from(frame.len() - 4).expect("short");
    net.nodes[0]
        .buffers
        .bytes
        .get_mut(&gateway)
        .expect("up")
        .extend_from_slice(&frame);
    net.run();
    assert_eq!(net.nodes[1].events(), [Event::Dropped(DropReason::Loop)]);
    // With the name once, the second relay would have to send it back.
    net.nodes[0]
        .router
        .open(now, &mut net.entropy, gateway, &route("name:x/service:uplink"))
        .map_or_else(
            |error| panic!("{error}"),
            |flow| net.nodes[0].send(now, flow, Class::Normal, b"x"),
        );
    net.run();
    assert_eq!(
        net.nodes[2].events(),
        [Event::Dropped(DropReason::UnknownService)]
    );
    let bytes = Forged {
        onward: "name:x/service:uplink",
        ..Forged::default()
    }
    .bytes();
    net.nodes[2].take(now, to_first, bytes);
    assert_eq!(net.nodes[2].events(), [Event::Dropped(DropReason::Loop)]);
}

#[test]
fn a_label_means_nothing_on_another_link() {
    let mut star = star();
    let label = star.offer(1, 0, 77);
    assert_eq!(
        star.dropped(2, data(Class::Normal, label, b"guess")),
        DropReason::UnknownLabel
    );
    assert_eq!(
        star.dropped(1, data(Class::Normal, label, b"guess")),
        DropReason::UnknownLabel
    );
    assert_eq!(star.sent(1).get(..4), Some(&[0, 0, 4, 4][..]));
    star.sent(2);
    assert_eq!(star.take(0, data(Class::Normal, label, b"right")), []);
    assert_eq!(star.sent(1), data(Class::Normal, 77, b"right"));
    // Nor does a stranger's LabelGone take a label away.
    let mut gone = Vec::new();
    put_label_gone(&mut gone, Label::new(77).expect("not zero"));
    assert_eq!(star.take(2, gone.clone()), []);
    assert_eq!(star.labels(), 1);
    assert_eq!(star.take(1, gone), []);
    assert_eq!(star.labels(), 0);
}

#[test]
fn unknown_labels_are_answered_ten_times_a_second() {
    let mut star = star();
    for label in 1..=1_000 {
        assert_eq!(
            star.dropped(0, data(Class::Bulk, label, b"x")),
            DropReason::UnknownLabel
        );
    }
    assert_eq!(star.sent(0).len(), 10 * 8);
    assert_eq!(star.node.router.stats().label_gone_suppressed, 990);
    star.node
        .take(seconds(2), star.links[0], data(Class::Bulk, 1, b"x"));
    assert_eq!(star.sent(0).len(), 8);
    star.node.events();
    // An unknown LabelGone is never answered.
    let mut gone = Vec::new();
    put_label_gone(&mut gone, Label::new(1).expect("not zero"));
    assert_eq!(star.take(0, gone), []);
    assert_eq!(star.sent(0), b"");
}

#[test]
fn an_offer_serves_one_conversation() {
    let mut star = star();
    let label = star.offer(1, 0, 77);
    assert_eq!(star.offer(1, 0, 77), label, "a repeated answer");
    let again = Forged {
        offered: 77,
        ..Forged::default()
    }
    .bytes_along(&star.answer(2), &route(""));
    assert_eq!(star.dropped(1, again), DropReason::OfferReused);
    assert_eq!(star.take(0, data_offer(label, 5)), []);
    star.sent(1);
    assert_eq!(star.labels(), 2);
    // The offer cannot be exchanged, nor used for the other direction of another conversation.
    assert_eq!(star.dropped(0, data_offer(label, 6)), DropReason::OfferReused);
    let other = star.offer(1, 0, 78);
    assert_eq!(star.dropped(0, data_offer(other, 5)), DropReason::OfferReused);
    assert_eq!(star.take(0, data_offer(other, 7)), []);
    assert_eq!(star.labels(), 4);
}

#[test]
fn offers_nobody_takes_up_are_bounded_and_expire() {
    let mut star = star();
    star.node.check_each = false;
    let answer = star.answer(0);
    for offered in 1..=5_000 {
        let bytes = Forged {
            offered,
            ..Forged::default()
        }
        .bytes_along(&answer, &route(""));
        assert_eq!(star.take(1, bytes), []);
    }
    assert_eq!(star.labels(), 1_024);
    assert_eq!(star.node.router.stats().labels_refused, 5_000 - 1_024);
    // So much waits that the link counts as congested.
    while star.node.router.held_bytes() > 0 {
        star.sent(0);
        star.node.router.flush(&mut star.node.buffers);
    }
    star.sent(0);
    invariants::check(&star.node.router);
    // Another neighbour still gets its labels.
    assert_ne!(star.offer(2, 0, 1), 0);
    star.node
        .router
        .handle_timeout(seconds(32), &mut star.node.buffers);
    star.node.drain();
    assert_eq!(star.labels(), 0);
    assert_eq!(star.node.router.stats().labels_expired, 1_025);
    assert_ne!(star.offer(1, 0, 9_000), 0);
}

#[test]
fn labels_per_link_are_bounded_even_between_accomplices() {
    let mut star = star();
    star.node.check_each = false;
    let mut without = 0;
    for offered in 1..=5_000 {
        let label = star.offer(1, 0, offered);
        if label == 0 {
            without += 1;
        } else {
            assert_eq!(star.take(0, data_offer(label, offered)), []);
            star.sent(1);
        }
    }
    invariants::check(&star.node.router);
    assert_eq!(star.labels(), 2 * LABELS_PER_LINK_MAX);
    assert_eq!(without, 5_000 - LABELS_PER_LINK_MAX);
}

#[test]
fn a_frame_too_long_for_the_next_neighbour_is_dropped() {
    let mut star = star();
    star.node
        .router
        .links
        .get_mut(star.links[1].0)
        .expect("up")
        .frame_len_max = 4_096;
    let label = star.offer(1, 0, 77);
    assert_eq!(
        star.dropped(0, data(Class::Bulk, label, &[0; 4_093])),
        DropReason::TooLong
    );
    assert_eq!(star.sent(1), b"");
    assert_eq!(star.take(0, data(Class::Bulk, label, &[0; 4_092])), []);
    assert_eq!(star.sent(1).len(), 4_100);
    let long = Forged {
        payload: &[0; 4_090],
        ..Forged::default()
    };
    assert_eq!(star.dropped(0, long.bytes()), DropReason::TooLong);
    assert_eq!(star.sent(1), b"");
}

/// What router settings say by default.
const LINK_BYTES_MAX: usize = 320 << 10;

#[test]
fn a_congested_link_keeps_alarms_and_drops_bulk_first() {
    let mut star = star();
    let label = star.offer(1, 0, 77);
    star.node.buffers.stuck.insert(star.links[1], LINK_BYTES_MAX);
    let mut reasons = BTreeSet::new();
    for fill in 0..60 {
        for class in [Class::Bulk, Class::Normal] {
            for event in star.take(0, data(class, label, &[fill; 10_000])) {
                let Event::Dropped(reason) = event else {
                    panic!("{event:?}")
                };
                reasons.insert(reason);
            }
        }
    }
    assert_eq!(
        reasons,
        BTreeSet::from([DropReason::CongestedNormal, DropReason::CongestedBulk])
    );
    assert_eq!(star.take(0, data(Class::Alarm, label, b"fire")), []);
    assert_eq!(star.sent(1), b"", "everything waits");
    let held = star.node.router.held_bytes();
    assert!((300 << 10..=512 << 10).contains(&held), "{held}");

    star.node.router.flush(&mut star.node.buffers);
    assert_eq!(star.node.router.held_bytes(), held);
    star.node.buffers.stuck.clear();
    star.node.router.flush(&mut star.node.buffers);
    star.node.drain();
    let first = star.sent(1);
    assert!(first.starts_with(&data(Class::Alarm, 77, b"fire")));
    assert!((LINK_BYTES_MAX..LINK_BYTES_MAX + 70_000).contains(&first.len()));
    // What comes meanwhile stays behind what waits.
    assert_eq!(star.take(0, data(Class::Bulk, label, b"last")), []);
    let mut rest = first.len();
    while star.node.router.held_bytes() > 0 {
        star.node.router.flush(&mut star.node.buffers);
        star.node.drain();
        let sent = star.sent(1);
        rest += sent.len();
        if star.node.router.held_bytes() == 0 {
            assert!(sent.ends_with(&data(Class::Bulk, 77, b"last")));
        }
    }
    assert_eq!(rest, held + 12);
    assert_eq!(star.take(0, data(Class::Bulk, label, b"direct")), []);
    assert_eq!(star.sent(1), data(Class::Bulk, 77, b"direct"));
}

#[test]
fn what_waits_is_bounded_over_all_links_and_goes_with_its_link() {
    let mut star = star();
    let mut settings = policy(vec![
        (1, rights(&["a"], &["b"])),
        (2, rights(&["b"], &["a"])),
        (3, rights(&[], &[])),
    ]);
    settings.held_bytes_max = 20_000;
    star.node.router.set_relay(settings, &mut star.node.buffers);
    let label = star.offer(1, 0, 77);
    star.node.buffers.stuck.insert(star.links[1], 1 << 20);
    assert_eq!(star.take(0, data(Class::Bulk, label, &[0; 15_000])), []);
    assert_eq!(
        star.dropped(0, data(Class::Alarm, label, &[0; 15_000])),
        DropReason::CongestedAlarm
    );
    star.node.router.link_down(star.links[1], &mut star.node.buffers);
    star.node.drain();
    assert_eq!((star.node.router.held_bytes(), star.labels()), (0, 0));
}

#[test]
fn a_frame_for_a_connection_that_is_gone_is_dropped() {
    let mut star = star();
    let label = star.offer(1, 0, 77);
    star.node.buffers.bytes.remove(&star.links[1]);
    assert_eq!(
        star.dropped(0, data(Class::Normal, label, b"x")),
        DropReason::LinkGone
    );
    star.node.router.link_down(star.links[0], &mut star.node.buffers);
    assert_eq!(
        star.dropped(0, data(Class::Normal, label, b"x")),
        DropReason::StaleLink
    );
}

#[test]
fn frames_of_the_link_itself_are_not_routed() {
    let mut star = star();
    let received =
        star.node
            .router
            .handle_frame(seconds(1), star.links[0], Frame::Ping(1), &mut star.node.buffers);
    assert_eq!(received, Received::Dropped(DropReason::NotRouting));
}

#[test]
fn a_narrowed_policy_ends_what_it_forbids() {
    let mut chain = chain();
    let (gateway, collector) = chain.converse();
    let node = &mut chain.net.nodes[1];
    node.router.set_relay(
        policy(vec![(0, rights(&[], &[])), (2, rights(&["r2"], &[]))]),
        &mut node.buffers,
    );
    node.drain();
    chain.net.run();
    let lost = |flow| {
        [Event::Lost {
            flow,
            reason: FlowLost::LabelGone,
        }]
    };
    assert_eq!(chain.net.nodes[0].events(), lost(gateway));
    assert_eq!(chain.net.nodes[4].events(), lost(collector));
    assert_eq!(chain.net.labels(), [0; 5]);
    assert_eq!(chain.net.nodes[1].router.member(chain.back[0]), Some(id(0)));
    let now = chain.net.now;
    let onward = route(CHAIN_ROUTE);
    let again = chain.net.nodes[0]
        .router
        .open(now, &mut chain.net.entropy, chain.onward[0], &onward)
        .expect("opened");
    chain.net.nodes[0].send(now, again, Class::Normal, b"x");
    chain.net.run();
    assert_eq!(
        chain.net.nodes[1].events(),
        [Event::Dropped(DropReason::NotAllowed)]
    );
}

#[test]
fn a_member_struck_off_is_detached_with_its_names() {
    let mut chain = chain();
    let (gateway, _) = chain.converse();
    let node = &mut chain.net.nodes[3];
    node.router
        .set_relay(policy(vec![(2, rights(&[], &["plant"]))]), &mut node.buffers);
    node.drain();
    chain.net.run();
    assert_eq!(chain.net.nodes[3].router.member(chain.onward[3]), None);
    assert_eq!(
        chain.net.nodes[3]
            .router
            .relay()
            .map(|relay| relay.registrations().count()),
        Some(0)
    );
    assert_eq!(
        chain.net.nodes[0].events(),
        [Event::Lost {
            flow: gateway,
            reason: FlowLost::LabelGone
        }]
    );
}

#[test]
fn a_policy_that_does_not_concern_a_conversation_leaves_it_alone() {
    let mut chain = chain();
    chain.converse();
    let node = &mut chain.net.nodes[1];
    let more = vec![
        (0, rights(&[], &["r2"])),
        (2, rights(&["r2"], &[])),
        (9, rights(&["z"], &["z"])),
    ];
    node.router.set_relay(policy(more), &mut node.buffers);
    node.drain();
    assert_eq!(chain.net.labels(), [1, 2, 2, 2, 1]);
}
