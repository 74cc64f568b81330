//! Conversations between honest nodes.

use super::*;

fn lost(flow: FlowId, reason: FlowLost) -> Event {
    Event::Lost { flow, reason }
}

#[test]
fn a_conversation_crosses_three_relays_with_eight_bytes_per_hop() {
    let mut chain = chain();
    let (gateway, collector) = chain.converse();
    let net = &mut chain.net;
    assert_eq!(net.labels(), [1, 2, 2, 2, 1]);
    let now = net.now;
    for (from, to, flow, other) in [(0, 4, gateway, collector), (4, 0, collector, gateway)] {
        for class in Class::ALL {
            net.nodes[from].send(now, flow, class, &[7; 100]);
            let link = net.nodes[from].router.link_of(flow).expect("a flow");
            assert_eq!(net.nodes[from].buffers.queued_bytes(link), 108);
            net.run();
            let payload = vec![7; 100];
            assert_eq!(
                net.nodes[to].events(),
                [Event::Local {
                    flow: other,
                    class,
                    payload
                }]
            );
        }
    }
    assert!(!net.nodes[0].router.is_direct(gateway) && !net.nodes[4].router.is_direct(collector));
    let stats = net.nodes[2].router.stats();
    assert_eq!(stats.dropped_total(), 0);
    // Four messages to agree on labels were of class normal.
    assert_eq!(stats.frames_forwarded, [2, 6, 2]);
    let traffic = net.nodes[2].router.link_traffic(chain.onward[2]).expect("a link");
    assert_eq!((traffic.frames_in, traffic.frames_out), (5, 5));
}

#[test]
fn a_conversation_without_a_relay_is_direct() {
    let mut net = Network::new(vec![endpoint(), endpoint()]);
    let (link, _) = net.connect(0, 1);
    let now = net.now;
    let flow = net.nodes[0]
        .router
        .open(now, &mut net.entropy, link, &route("service:uplink"))
        .expect("opened");
    net.nodes[0].send(now, flow, Class::Normal, b"one");
    net.run();
    let events = net.nodes[1].events();
    let [Event::Accepted { flow: answerer, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert!(net.nodes[0].router.is_direct(flow) && net.nodes[1].router.is_direct(*answerer));
    assert_eq!(net.labels(), [0, 1]);
}

#[test]
fn a_candidate_costs_no_state() {
    let mut net = Network::new(vec![endpoint(), endpoint()]);
    let (link, at) = net.connect(0, 1);
    let now = net.now;
    let flow = net.nodes[0]
        .router
        .open(now, &mut net.entropy, link, &route("service:uplink"))
        .expect("opened");
    net.nodes[0].send(now, flow, Class::Alarm, b"one");
    let bytes = std::mem::take(net.nodes[0].buffers.bytes.get_mut(&link).expect("up"));
    let mut body = bytes[4..].to_vec();
    let node = &mut net.nodes[1];
    let frame = Frame::decode(bytes[3], &mut body).expect("routed");
    let received = node.router.handle_frame(now, at, frame, &mut node.buffers);
    let Received::Candidate { candidate, payload } = received else {
        panic!("{received:?}")
    };
    assert_eq!(payload, b"one");
    assert_eq!(
        (candidate.service(), candidate.link(), candidate.is_direct()),
        ("uplink", at, true)
    );
    let mut path = Vec::new();
    candidate.put_path(&mut path);
    let mut reader = crate::wire::Reader::new(&path);
    let read = RouteRef::read(&mut reader).expect("a route");
    let address = node.router.links.get(at.0).expect("up").address;
    assert_eq!(
        read.split_first(),
        Some((Address::Link(address), candidate.return_route()))
    );
    node.router
        .answer(&candidate, b"cookie", &mut node.buffers)
        .expect("answered");
    assert_eq!(
        (node.router.label_count(), node.router.flows.is_empty()),
        (0, true)
    );
    assert_eq!(node.router.poll_timeout(), None);
    net.run();
    let expected = Event::Local {
        flow,
        class: Class::Alarm,
        payload: b"cookie".to_vec(),
    };
    assert_eq!(net.nodes[0].events(), [expected]);
    assert_eq!(net.labels(), [0, 0]);
}

#[test]
fn repeated_handshake_messages_stay_in_one_conversation() {
    let mut chain = chain();
    let net = &mut chain.net;
    let now = net.now;
    let gateway = net.nodes[0]
        .router
        .open(now, &mut net.entropy, chain.onward[0], &route(CHAIN_ROUTE))
        .expect("opened");
    for _ in 0..3 {
        net.nodes[0].send(now, gateway, Class::Normal, b"one");
    }
    net.run();
    let events = net.nodes[4].events();
    let Some(Event::Accepted { flow: collector, .. }) = events.first() else {
        panic!("{events:?}")
    };
    let again = Event::Local {
        flow: *collector,
        class: Class::Normal,
        payload: b"one".to_vec(),
    };
    assert_eq!(events[1..], [again.clone(), again]);
    for _ in 0..3 {
        net.nodes[4].send(now, *collector, Class::Normal, b"two");
    }
    net.run();
    assert_eq!(net.nodes[0].events().len(), 3);
    assert_eq!(net.labels(), [1, 1, 1, 1, 1]);
    for _ in 0..3 {
        net.nodes[0].send(now, gateway, Class::Normal, b"three");
    }
    net.run();
    assert_eq!(net.nodes[4].events().len(), 3);
    assert_eq!(net.labels(), [1, 2, 2, 2, 1]);
    // An answer that was under way for long changes nothing any more.
    net.nodes[4].send(now, *collector, Class::Normal, b"two");
    net.run();
    assert_eq!(net.labels(), [1, 2, 2, 2, 1]);
}

#[test]
fn a_lost_link_ends_the_conversation_at_both_ends_and_leaves_nothing() {
    for broken in 0..4 {
        let mut chain = chain();
        let (gateway, collector) = chain.converse();
        chain.net.cut(broken, chain.onward[broken]);
        let reason = |end: usize| {
            if broken == end {
                FlowLost::LinkDown
            } else {
                FlowLost::LabelGone
            }
        };
        assert_eq!(
            chain.net.nodes[0].events(),
            [lost(gateway, reason(0))],
            "link {broken}"
        );
        assert_eq!(
            chain.net.nodes[4].events(),
            [lost(collector, reason(3))],
            "link {broken}"
        );
        assert_eq!(chain.net.labels(), [0; 5], "link {broken}");
        let error = chain.net.nodes[0].router.send(
            chain.net.now,
            gateway,
            Class::Bulk,
            b"x",
            &mut Buffers::default(),
        );
        assert_eq!(error, Err(FlowError::Gone));
    }
}

#[test]
fn a_conversation_closed_at_one_end_ends_at_the_other() {
    for end in [0, 4] {
        let mut chain = chain();
        let (gateway, collector) = chain.converse();
        let (flow, other) = if end == 0 {
            (gateway, collector)
        } else {
            (collector, gateway)
        };
        let node = &mut chain.net.nodes[end];
        node.router.close(flow, &mut node.buffers);
        node.drain();
        chain.net.run();
        assert_eq!(chain.net.nodes[end].events(), []);
        assert_eq!(
            chain.net.nodes[4 - end].events(),
            [lost(other, FlowLost::LabelGone)]
        );
        assert_eq!(chain.net.labels(), [0; 5]);
    }
}

#[test]
fn an_idle_conversation_is_kept_in_use() {
    let mut chain = chain();
    let (gateway, collector) = chain.converse();
    let before = chain.net.nodes[2].router.stats().frames_forwarded;
    chain.net.wait(600, &[0, 1, 2, 3, 4]);
    assert_eq!(chain.net.nodes[0].events(), []);
    assert_eq!(chain.net.nodes[4].events(), []);
    assert_eq!(chain.net.labels(), [1, 2, 2, 2, 1]);
    let after = chain.net.nodes[2].router.stats().frames_forwarded;
    assert!(
        (12..=15).contains(&(after[1] - before[1])),
        "one frame in 40 to 45 s: {before:?} {after:?}"
    );
    let now = chain.net.now;
    chain.net.nodes[4].send(now, collector, Class::Normal, b"still");
    chain.net.run();
    let still = Event::Local {
        flow: gateway,
        class: Class::Normal,
        payload: b"still".to_vec(),
    };
    assert_eq!(chain.net.nodes[0].events(), [still]);
}

#[test]
fn unused_labels_expire_and_their_use_ends_the_conversation() {
    let mut chain = chain();
    let (gateway, collector) = chain.converse();
    chain.net.wait(119, &[1, 2, 3]);
    assert_eq!(chain.net.labels(), [1, 2, 2, 2, 1]);
    chain.net.wait(6, &[1, 2, 3]);
    assert_eq!(chain.net.labels(), [1, 0, 0, 0, 1]);
    assert_eq!(chain.net.nodes[2].router.stats().labels_expired, 2);
    let now = chain.net.now;
    chain.net.nodes[0].send(now, gateway, Class::Normal, b"late");
    chain.net.run();
    assert_eq!(chain.net.nodes[0].events(), [lost(gateway, FlowLost::LabelGone)]);
    assert_eq!(
        chain.net.nodes[1].events(),
        [Event::Dropped(DropReason::UnknownLabel)]
    );
    chain.net.wait(1, &[4]);
    assert_eq!(chain.net.nodes[4].events(), [lost(collector, FlowLost::Unused)]);
    assert_eq!(chain.net.nodes[4].router.poll_timeout(), None);
}

#[test]
fn traffic_in_one_direction_keeps_both() {
    let mut chain = chain();
    let (_, collector) = chain.converse();
    for _ in 0..10 {
        chain.net.wait(60, &[1, 2, 3]);
        let now = chain.net.now;
        chain.net.nodes[4].send(now, collector, Class::Normal, b"tick");
        chain.net.run();
    }
    assert_eq!(chain.net.labels(), [1, 2, 2, 2, 1]);
}

#[test]
fn an_offer_nobody_takes_up_expires() {
    let mut chain = chain();
    let net = &mut chain.net;
    let now = net.now;
    let gateway = net.nodes[0]
        .router
        .open(now, &mut net.entropy, chain.onward[0], &route(CHAIN_ROUTE))
        .expect("opened");
    net.nodes[0].send(now, gateway, Class::Normal, b"one");
    net.run();
    let events = net.nodes[4].events();
    let [Event::Accepted { flow: collector, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    net.nodes[4].send(now, *collector, Class::Normal, b"two");
    net.run();
    net.nodes[0].events();
    net.wait(29, &[0, 1, 2, 3, 4]);
    assert_eq!(net.labels(), [1, 1, 1, 1, 1]);
    net.wait(6, &[0, 1, 2, 3, 4]);
    assert_eq!(net.labels(), [0; 5]);
    assert_eq!(net.nodes[0].events(), [lost(gateway, FlowLost::Incomplete)]);
    assert_eq!(net.nodes[4].events(), [lost(*collector, FlowLost::Incomplete)]);
}

#[test]
fn an_unanswered_conversation_ends_by_itself() {
    let mut net = Network::new(vec![endpoint(), endpoint()]);
    let (link, _) = net.connect(0, 1);
    let now = net.now;
    let flow = net.nodes[0]
        .router
        .open(now, &mut net.entropy, link, &route("service:nobody"))
        .expect("opened");
    net.nodes[0].send(now, flow, Class::Normal, b"one");
    net.run();
    assert_eq!(
        net.nodes[1].events(),
        [Event::Dropped(DropReason::UnknownService)]
    );
    net.wait(119, &[0]);
    assert_eq!(net.nodes[0].events(), []);
    net.wait(6, &[0]);
    assert_eq!(net.nodes[0].events(), [lost(flow, FlowLost::Incomplete)]);
}

#[test]
fn the_latest_holder_serves_and_an_older_one_takes_over() {
    let mut net = Network::new(vec![
        endpoint(),
        relay(vec![
            (0, rights(&[], &["plant"])),
            (2, rights(&["plant"], &[])),
            (3, rights(&["plant"], &[])),
        ]),
        endpoint(),
        endpoint(),
    ]);
    let (gateway, at_gateway) = net.connect(0, 1);
    let links = [net.connect(2, 1), net.connect(3, 1)];
    let now = net.now;
    net.nodes[1].router.attach(at_gateway, id(0)).expect("a member");
    for (member, (_, link)) in [2, 3].into_iter().zip(links) {
        net.nodes[1].router.attach(link, id(member)).expect("a member");
        net.nodes[1].register(now, link, id(member), "plant");
    }
    // A renewal of the older holder does not move it in front.
    net.nodes[1].register(now, links[0].1, id(2), "plant");
    let knock = |net: &mut Network| {
        let now = net.now;
        let onward = route("name:plant/service:uplink");
        let flow = net.nodes[0]
            .router
            .open(now, &mut net.entropy, gateway, &onward)
            .expect("opened");
        net.nodes[0].send(now, flow, Class::Normal, b"hello");
        net.run();
        [2, 3].map(|node: usize| net.nodes[node].events().len())
    };
    assert_eq!(knock(&mut net), [0, 1]);
    net.cut(3, links[1].0);
    net.nodes[3].events();
    assert_eq!(knock(&mut net), [1, 0]);
    net.cut(2, links[0].0);
    net.nodes[2].events();
    assert_eq!(knock(&mut net), [0, 0]);
    assert_eq!(net.nodes[1].events(), [Event::Dropped(DropReason::UnknownName)]);
}

#[test]
fn a_lease_not_renewed_ends() {
    let mut chain = chain();
    chain.net.wait(606, &[3]);
    assert_eq!(
        chain.net.nodes[3].events(),
        [Event::LeaseExpired("plant".to_owned())]
    );
    assert_eq!(
        chain.net.nodes[3]
            .router
            .relay()
            .map(|relay| relay.registrations().count()),
        Some(0)
    );
    assert_eq!(chain.net.nodes[3].router.poll_timeout(), None);
}

#[test]
fn without_labels_a_conversation_goes_on_in_routed_frames() {
    let mut chain = chain();
    chain.net.nodes[2].router.settings.labels_max = 0;
    let net = &mut chain.net;
    let now = net.now;
    let gateway = net.nodes[0]
        .router
        .open(now, &mut net.entropy, chain.onward[0], &route(CHAIN_ROUTE))
        .expect("opened");
    net.nodes[0].send(now, gateway, Class::Normal, b"one");
    net.run();
    let events = net.nodes[4].events();
    let [Event::Accepted { flow: collector, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    for _ in 0..3 {
        net.nodes[4].send(now, *collector, Class::Normal, b"two");
        net.run();
        assert_eq!(net.nodes[0].events().len(), 1);
        net.nodes[0].send(now, gateway, Class::Normal, b"three");
        net.run();
        let three = Event::Local {
            flow: *collector,
            class: Class::Normal,
            payload: b"three".to_vec(),
        };
        assert_eq!(net.nodes[4].events(), [three]);
    }
    assert!(net.nodes[2].router.stats().labels_refused >= 1);
}

#[test]
fn a_relay_in_steady_state_uses_its_buffers_again() {
    let mut chain = chain();
    let (gateway, _) = chain.converse();
    let now = chain.net.now;
    let mut frame = Vec::new();
    let mark = chain.net.nodes[0]
        .router
        .begin(now, gateway, Class::Bulk, &mut frame)
        .expect("a flow");
    frame.extend_from_slice(&[5; 60_000]);
    chain.net.nodes[0]
        .router
        .finish(gateway, &mut frame, mark)
        .expect("fits");
    let node = &mut chain.net.nodes[1];
    let mut pointers = BTreeSet::new();
    for _ in 0..100 {
        let (header, body) = frame.split_at_mut(4);
        let data = Frame::decode(header[3], body).expect("data");
        let received = node
            .router
            .handle_frame(now, chain.back[0], data, &mut node.buffers);
        assert_eq!(
            received,
            Received::Forwarded {
                link: chain.onward[1]
            }
        );
        let buffer = node.buffers.bytes.get_mut(&chain.onward[1]).expect("up");
        pointers.insert(buffer.as_ptr());
        buffer.clear();
    }
    assert_eq!(pointers.len(), 1);
}

#[test]
fn a_frame_is_written_whole_or_not_at_all() {
    let mut net = Network::new(vec![endpoint()]);
    let link = net.nodes[0]
        .router
        .link_up(net.now, &mut net.entropy, 4_096)
        .expect("room");
    net.nodes[0].buffers.bytes.insert(link, vec![1]);
    let now = net.now;
    let flow = net.nodes[0]
        .router
        .open(now, &mut net.entropy, link, &route("service:uplink"))
        .expect("opened");
    let room = net.nodes[0].router.payload_len_max(flow).expect("a flow");
    let node = &mut net.nodes[0];
    let error = node
        .router
        .send(now, flow, Class::Bulk, &vec![0; room + 4], &mut node.buffers);
    assert!(matches!(error, Err(FlowError::Frame(_))), "{error:?}");
    assert_eq!(node.buffers.bytes[&link], [1]);
    node.router
        .send(now, flow, Class::Bulk, &vec![0; room], &mut node.buffers)
        .expect("fits");
    let mut out = vec![2];
    let mark = node
        .router
        .begin(now, flow, Class::Bulk, &mut out)
        .expect("a flow");
    node.router.abandon(&mut out, mark);
    assert_eq!(out, [2]);
    let mark = node
        .router
        .begin(now, flow, Class::Bulk, &mut out)
        .expect("a flow");
    assert_eq!(
        node.router.finish(FlowId::from_number(0), &mut out, mark),
        Err(FlowError::Gone)
    );
    assert_eq!(out, [2]);
}

#[test]
fn limits_refuse_without_leaving_anything() {
    let mut net = Network::new(vec![Node::new(RouterSettings {
        links_max: 1,
        flows_max: 1,
        ..RouterSettings::default()
    })]);
    let link = net.nodes[0].up(net.now, &mut net.entropy);
    let (now, node) = (net.now, &mut net.nodes[0]);
    assert_eq!(
        node.router.link_up(now, &mut net.entropy, 4_096),
        Err(RouterError::TooManyLinks { max: 1 })
    );
    assert_eq!(
        node.router.open(now, &mut net.entropy, link, &route("")),
        Err(FlowError::EmptyRoute)
    );
    node.router
        .open(now, &mut net.entropy, link, &route("service:a"))
        .expect("opened");
    let error = node.router.open(now, &mut net.entropy, link, &route("service:a"));
    assert_eq!(error, Err(FlowError::TooMany { max: 1 }));
    node.router.link_down(link, &mut node.buffers);
    let error = node.router.open(now, &mut net.entropy, link, &route("service:a"));
    assert_eq!(error, Err(FlowError::LinkGone));
    assert_eq!(node.router.attach(link, id(1)), Err(MemberLinkError::Gone));
    node.drain();
}

#[test]
fn ids_survive_the_way_through_a_number() {
    let mut net = Network::new(vec![endpoint()]);
    let link = net.nodes[0].up(net.now, &mut net.entropy);
    let (now, node) = (net.now, &mut net.nodes[0]);
    let flow = node
        .router
        .open(now, &mut net.entropy, link, &route("service:a"))
        .expect("opened");
    assert_eq!(FlowId::from_number(flow.number()), flow);
    assert_ne!(flow.number(), 0);
    node.router.close(flow, &mut node.buffers);
    let next = node
        .router
        .open(now, &mut net.entropy, link, &route("service:a"))
        .expect("opened");
    assert_ne!(next.number(), flow.number());
    assert_eq!(node.router.link_of(flow), None);
}

#[test]
fn an_answer_of_a_responder_that_began_anew_replaces_the_old_one() {
    let mut net = Network::new(vec![endpoint(), endpoint()]);
    let (link, at) = net.connect(0, 1);
    let now = net.now;
    let flow = net.nodes[0]
        .router
        .open(now, &mut net.entropy, link, &route("service:uplink"))
        .expect("opened");
    net.nodes[0].send(now, flow, Class::Normal, b"one");
    let first = net.nodes[0].buffers.bytes[&link].clone();
    let mut offers = BTreeSet::new();
    for _ in 0..2 {
        net.nodes[1].take(now, at, first.clone());
        let events = net.nodes[1].events();
        let [Event::Accepted { flow: answerer, .. }] = events.as_slice() else {
            panic!("{events:?}")
        };
        net.nodes[1].send(now, *answerer, Class::Normal, b"two");
        let answer = std::mem::take(net.nodes[1].buffers.bytes.get_mut(&at).expect("up"));
        // The responder forgets without a word; the answer arrives all the same.
        net.nodes[1].router.close(*answerer, &mut Buffers::default());
        net.nodes[0].take(now, link, answer);
        assert_eq!(net.nodes[0].events().len(), 1);
        assert_eq!(net.nodes[0].router.label_count(), 1);
        let mut out = Vec::new();
        let mark = net.nodes[0]
            .router
            .begin(now, flow, Class::Normal, &mut out)
            .expect("a flow");
        net.nodes[0].router.finish(flow, &mut out, mark).expect("fits");
        let [_, _, _, 0x21, labels @ ..] = out.as_slice() else {
            panic!("no DataOffer: {out:?}")
        };
        offers.insert(labels.to_vec());
    }
    assert_eq!(offers.len(), 2, "both labels are new");
}
