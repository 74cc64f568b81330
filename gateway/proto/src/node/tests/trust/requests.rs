//! Requests to the authority: how many, how long, whose.

use super::*;
use crate::trust::TrustFrame;

fn managed(net: &Net) -> Vec<(u64, Asked)> {
    net.hosts[GATEWAY].answers()
}

fn manage(net: &mut Net, id: u64, text: &str) {
    let (now, gateway) = (net.now, &mut net.hosts[GATEWAY]);
    gateway
        .node
        .manage(now, id, text.to_owned(), &mut gateway.buffers);
}

#[test]
fn many_requests_are_answered_sixteen_at_a_time() {
    let mut net = fleet(|_| {});
    net.pass(2);
    for id in 0..50 {
        manage(&mut net, id, &format!("{{\"n\":{id}}}"));
    }
    net.settle();
    let answers = managed(&net);
    assert_eq!(answers.len(), 50);
    for (id, asked) in answers {
        assert_eq!(asked, Asked::Managed(format!("did {{\"n\":{id}}}")));
    }
}

#[test]
fn what_is_too_much_or_too_long_is_said_at_once() {
    let mut net = fleet(|_| {});
    manage(&mut net, 1, &"x".repeat(65_001));
    net.settle();
    assert_eq!(managed(&net), [(1, Asked::TooLong)]);
    net.pass(2);
    manage(&mut net, 2, &"x".repeat(65_000));
    net.settle();
    // The answer would be longer than a frame may be.
    assert_eq!(managed(&net)[1..], [(2, Asked::Denied)]);
    net.authority().mood = Mood::IsSilent;
    for id in 3..200 {
        manage(&mut net, id, "{}");
    }
    net.settle();
    let refused = managed(&net).len();
    assert_eq!(refused, 2 + 197 - 16 - 64, "the others wait");
    net.pass(31);
    assert_eq!(managed(&net).len(), 2 + 197);
    assert!(
        managed(&net)[2..]
            .iter()
            .all(|(_, asked)| *asked == Asked::Unanswered)
    );
}

#[test]
fn a_node_without_a_way_to_an_authority_says_so() {
    let mut net = fleet(|plan| plan.settings[GATEWAY].authority_ways.clear());
    manage(&mut net, 1, "{}");
    net.settle();
    assert_eq!(managed(&net), [(1, Asked::Unanswered)]);
    assert_eq!(net.view(GATEWAY).state, AuthorityState::None);
}

#[test]
fn what_is_asked_is_given_up_with_the_channel() {
    let mut net = fleet(|_| {});
    net.pass(2);
    net.authority().mood = Mood::IsSilent;
    manage(&mut net, 1, "{}");
    net.settle();
    let link = net.connection(GATEWAY, RELAY);
    net.disconnect(GATEWAY, link);
    net.settle();
    assert_eq!(managed(&net), [(1, Asked::Unanswered)]);
    let down = |event: &Event| matches!(event, Event::AuthorityDown);
    assert_eq!(net.hosts[GATEWAY].count(down), 1);
    net.authority().mood = Mood::Answers;
    net.pass(10);
    manage(&mut net, 2, "{}");
    net.settle();
    assert_eq!(managed(&net)[1..], [(2, Asked::Managed("did {}".to_owned()))]);
}

#[test]
fn sixteen_requests_of_a_channel_wait_at_the_authority() {
    let mut net = fleet(|_| {});
    net.pass(2);
    net.authority().mood = Mood::IsSilent;
    let mut frames = Vec::new();
    for request in 0..1_000 {
        TrustFrame::Renew { request }.put(&mut frames);
    }
    let channel = net.hosts[GATEWAY].channel(|used_for| used_for == Use::Authority);
    let asked = |net: &mut Net| net.authority().count(|kind| *kind == AuthorityRequestKind::Renew);
    net.say(GATEWAY, channel, &frames);
    net.settle();
    assert_eq!(asked(&mut net), 16);
    net.pass(29);
    net.say(GATEWAY, channel, &frames);
    net.settle();
    assert_eq!(asked(&mut net), 16);
    net.pass(2);
    net.say(GATEWAY, channel, &frames);
    net.settle();
    assert_eq!(asked(&mut net), 32, "who asked has given up by then");
    // What is answered makes room.
    net.pass(31);
    net.authority().mood = Mood::Denies;
    for times in 3..6 {
        net.say(GATEWAY, channel, &frames);
        net.settle();
        assert_eq!(asked(&mut net), 16 * times);
    }
    let bad = net.hosts[GATEWAY].node.stats().bad_frames;
    assert_eq!(bad, 48, "answers to what it has not asked");
}

#[test]
fn only_an_authority_is_asked() {
    let mut net = fleet(|_| {});
    net.pass(2);
    let mut frames = Vec::new();
    TrustFrame::Renew { request: 1 }.put(&mut frames);
    TrustFrame::Enrol {
        request: 2,
        signed_request: b"request",
    }
    .put(&mut frames);
    TrustFrame::Manage {
        request: 3,
        text: "{}",
    }
    .put(&mut frames);
    let relay = net.hosts[GATEWAY].channel(|used_for| matches!(used_for, Use::Registrar { .. }));
    let collector = net.hosts[GATEWAY].channel(|used_for| matches!(used_for, Use::Uplink { .. }));
    let outputs = [RELAY, COLLECTOR].map(|host| net.hosts[host].outputs.len());
    for (host, channel) in [(RELAY, relay), (COLLECTOR, collector)] {
        net.say(GATEWAY, channel, &frames);
        net.settle();
        assert_eq!(net.hosts[host].node.stats().bad_frames, 3, "host {host}");
    }
    assert_eq!(
        [RELAY, COLLECTOR].map(|host| net.hosts[host].outputs.len()),
        outputs
    );
}

#[test]
fn answers_of_others_than_the_authority_count_for_nothing() {
    let mut net = fleet(|_| {});
    net.pass(2);
    net.authority().mood = Mood::IsSilent;
    manage(&mut net, 1, "{}");
    net.settle();
    let (gateway, secs) = (net.identifier(GATEWAY), net.now.wall.unix_secs());
    let newer = net.authority().issue(gateway, secs).unwrap();
    let before = net.view(GATEWAY).credential;
    let mut frames = Vec::new();
    for request in 0..5 {
        TrustFrame::Issued {
            request,
            presentation: &newer,
        }
        .put(&mut frames);
        TrustFrame::Denied { request }.put(&mut frames);
        TrustFrame::Managed { request, text: "yes" }.put(&mut frames);
    }
    for host in [RELAY, COLLECTOR] {
        let channel = net.hosts[host].channel_with(gateway).unwrap();
        net.say(host, channel, &frames);
    }
    // Nor what the authority says about what nobody asked.
    let channel = net.hosts[AUTHORITY].channel_with(gateway).unwrap();
    let mut unasked = Vec::new();
    TrustFrame::Issued {
        request: 4_000,
        presentation: &newer,
    }
    .put(&mut unasked);
    net.say(AUTHORITY, channel, &unasked);
    net.settle();
    assert_eq!(managed(&net), []);
    assert_eq!(net.view(GATEWAY).credential, before);
    assert_eq!(net.hosts[GATEWAY].node.stats().bad_frames, 31);
}
