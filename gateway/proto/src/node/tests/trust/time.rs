//! Clocks that are wrong, unknown or a floor, and what is asked then.

use super::*;
use crate::{
    time::{ClockQuality, WallTime},
    trust::TrustFrame,
};

/// 1970-01-01.
const BEGINNING: TestClock = TestClock {
    ahead_millis: -(EPOCH_SECS.cast_signed() * 1000),
    quality: ClockQuality::Unknown,
};
/// A hundred years, about.
const CENTURY_MILLIS: i64 = 36_525 * 86_400_000;

fn times(net: &Net) -> Vec<WallTime> {
    let outputs = net.hosts[GATEWAY].outputs.iter();
    let times = outputs.filter_map(|output| {
        let Output::Time(wall) = output else { return None };
        Some(*wall)
    });
    times.collect()
}

fn peer_times(net: &Net) -> Vec<WallTime> {
    let outputs = net.hosts[GATEWAY].outputs.iter();
    let times = outputs.filter_map(|output| {
        let Output::PeerTime { wall, .. } = output else {
            return None;
        };
        Some(*wall)
    });
    times.collect()
}

#[test]
fn a_node_that_begins_in_1970_works_and_is_told_the_time() {
    let mut net = fleet(|_| {});
    net.hosts[GATEWAY].clock = BEGINNING;
    net.pass(3);
    assert_eq!(net.delivered(), 100);
    let told = times(&net);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].quality, ClockQuality::Authority);
    let wrong = told[0].unix_millis.abs_diff(net.now.wall.unix_millis);
    assert!(wrong <= 3_000, "{wrong} ms");
    assert!(!peer_times(&net).is_empty(), "peers are asked as well");
}

#[test]
fn a_node_with_a_right_clock_asks_nobody() {
    let mut net = fleet(|_| {});
    net.pass(130);
    assert_eq!(
        net.authority()
            .count(|kind| matches!(kind, AuthorityRequestKind::Time(_))),
        0
    );
}

#[test]
fn a_clock_that_is_unknown_renews_no_more_often_than_others() {
    let mut net = fleet(|plan| plan.credential_secs = 1_200);
    net.hosts[GATEWAY].clock = BEGINNING;
    net.pass(1_500);
    let gateway = net.identifier(GATEWAY);
    let renewals = net
        .authority()
        .requests
        .iter()
        .filter(|request| request.peer == gateway && request.kind == AuthorityRequestKind::Renew);
    // At once, for it cannot know how old its credential is; then twice at half of a life.
    assert_eq!(renewals.count(), 3);
    assert_eq!(
        net.hosts[RELAY].count(|event| matches!(event, Event::PeerInGrace { .. })),
        0
    );
}

#[test]
fn a_clock_that_runs_ahead_does_not_renew_without_end() {
    let mut net = fleet(|plan| plan.credential_secs = 3_600);
    // Not so far that the credential would have ended.
    net.hosts[GATEWAY].clock.ahead_millis = 3_000_000;
    net.pass(3_000);
    let gateway = net.identifier(GATEWAY);
    let renewals = net
        .authority()
        .requests
        .iter()
        .filter(|request| request.peer == gateway && request.kind == AuthorityRequestKind::Renew);
    let count = renewals.count();
    assert!((2..=6).contains(&count), "{count} in 50 minutes");
}

#[test]
fn a_node_that_believes_it_is_2100_is_cut_off_and_comes_back() {
    let mut net = fleet(|_| {});
    net.hosts[GATEWAY].clock = TestClock {
        ahead_millis: CENTURY_MILLIS,
        quality: ClockQuality::Synchronised,
    };
    net.pass(60);
    assert_eq!(net.delivered(), 0, "whatever anybody shows it has ended long ago");
    net.hosts[GATEWAY].clock = TestClock::RIGHT;
    net.pass(60);
    assert_eq!(net.delivered(), 100);
}

#[test]
fn a_relay_in_2100_ends_whom_it_served_and_serves_them_again() {
    let mut net = fleet(|_| {});
    net.pass(3);
    net.hosts[RELAY].clock.ahead_millis = CENTURY_MILLIS;
    net.pass(2);
    let ended = |event: &Event| matches!(event, Event::PeerEnded { .. });
    assert!(net.hosts[RELAY].count(ended) >= 2);
    assert_eq!(net.view(RELAY).freshness.name(), "lapsed");
    net.hosts[RELAY].clock = TestClock::RIGHT;
    net.pass(90);
    let available = net.hosts[GATEWAY].journal.0.len() as u64 + 1;
    net.hosts[GATEWAY].journal.0.push(b"one more".to_vec());
    let now = net.now;
    net.hosts[GATEWAY]
        .node
        .handle_available(now, Class::Normal, 1, available);
    net.pass(30);
    assert_eq!(net.delivered(), 101);
}

#[test]
fn a_floor_judges_what_is_over_and_nothing_else() {
    let mut net = fleet(|plan| {
        plan.credential_secs = 300;
        plan.list_secs = 40_000;
    });
    // The relay knows only that it is later than a year ago: nothing has ended, nothing begins later.
    net.hosts[RELAY].clock = TestClock {
        ahead_millis: -365 * 86_400_000,
        quality: ClockQuality::Floor,
    };
    net.authority().mood = Mood::IsSilent;
    net.pass(1_000);
    assert_eq!(net.delivered(), 100);
    let said = |event: &Event| matches!(event, Event::PeerInGrace { .. } | Event::PeerEnded { .. });
    assert_eq!(net.hosts[RELAY].count(said), 0);
    // A floor that has come so far is as good as a clock.
    net.hosts[RELAY].clock.ahead_millis = 300_000;
    net.pass(2);
    assert!(net.hosts[RELAY].count(said) > 0);
}

#[test]
fn a_question_that_nobody_answers_is_asked_again_every_minute() {
    let mut net = fleet(|_| {});
    net.hosts[GATEWAY].clock = BEGINNING;
    net.authority().mood = Mood::IsSilent;
    net.pass(300);
    let gateway = net.identifier(GATEWAY);
    let asked =
        net.authority().requests.iter().filter(|request| {
            request.peer == gateway && matches!(request.kind, AuthorityRequestKind::Time(_))
        });
    let asked = asked.count();
    assert!((4..=7).contains(&asked), "{asked}");
    assert_eq!(times(&net), []);
}

#[test]
fn an_answer_that_is_late_or_to_another_question_does_not_count() {
    let mut net = fleet(|_| {});
    net.hosts[GATEWAY].clock = BEGINNING;
    net.authority().mood = Mood::IsSilent;
    net.pass(4);
    let gateway = net.identifier(GATEWAY);
    let nonce = net.question(GATEWAY);
    let nonce = nonce.unwrap();
    let channel = net.hosts[AUTHORITY].channel_with(gateway).unwrap();
    let answer = |net: &mut Net, nonce| {
        let millis = net.now.wall.unix_millis;
        let presentation = net.authority().time(nonce, millis);
        let mut frames = Vec::new();
        TrustFrame::SignedTime {
            presentation: &presentation,
        }
        .put(&mut frames);
        net.say(AUTHORITY, channel, &frames);
        net.settle();
    };
    answer(&mut net, [7; 16]);
    assert_eq!(times(&net), []);
    net.pass(35);
    answer(&mut net, nonce);
    assert_eq!(times(&net), [], "that is more than 30 s old");
    net.pass(35);
    let nonce = net.question(GATEWAY);
    answer(&mut net, nonce.unwrap());
    assert_eq!(times(&net).len(), 1);
    answer(&mut net, nonce.unwrap());
    assert_eq!(times(&net).len(), 1, "a question is answered once");
}

#[test]
fn a_forged_time_is_refused() {
    let mut net = fleet(|_| {});
    net.hosts[GATEWAY].clock = BEGINNING;
    net.authority().mood = Mood::IsSilent;
    net.pass(4);
    let gateway = net.identifier(GATEWAY);
    let nonce = net.question(GATEWAY);
    let millis = net.now.wall.unix_millis;
    let genuine = net.authority().time(nonce.unwrap(), millis);
    let mut forged = genuine.clone();
    *forged.last_mut().unwrap() ^= 1;
    let channel = net.hosts[AUTHORITY].channel_with(gateway).unwrap();
    let mut frames = Vec::new();
    for presentation in [&forged, &genuine] {
        TrustFrame::SignedTime { presentation }.put(&mut frames);
    }
    net.say(AUTHORITY, channel, &frames);
    net.settle();
    assert_eq!(times(&net), [], "nor is what follows a forgery looked at");
    assert_eq!(net.hosts[GATEWAY].node.stats().bad_frames, 2);
}

#[test]
fn a_peer_answers_once_for_each_question() {
    let mut net = fleet(|plan| {
        for settings in &mut plan.settings {
            settings.authority_ways.clear();
        }
    });
    net.hosts[GATEWAY].clock = BEGINNING;
    net.pass(3);
    let before = peer_times(&net);
    assert!((2..=4).contains(&before.len()), "relay and collector: {before:?}");
    for wall in &before {
        assert!(wall.unix_millis.abs_diff(net.now.wall.unix_millis) <= 3_000);
        assert_eq!(wall.quality, ClockQuality::Synchronised);
    }
    // Any number of answers, to that question and to none.
    let gateway = net.identifier(GATEWAY);
    let channel = net.hosts[RELAY].channel_with(gateway).unwrap();
    let mut frames = Vec::new();
    for n in 0..200 {
        let wall = net.now.wall;
        TrustFrame::OwnTime { nonce: [n; 16], wall }.put(&mut frames);
    }
    net.say(RELAY, channel, &frames);
    net.settle();
    assert_eq!(peer_times(&net), before);
    assert_eq!(net.hosts[GATEWAY].node.stats().bad_frames, 200);
    assert_eq!(times(&net), []);
}

#[test]
fn a_peer_answers_in_time_and_only_once() {
    let mut net = fleet(|_| {});
    // The relay answers nothing by itself; what it is asked the authority is asked too.
    for host in [GATEWAY, RELAY] {
        net.hosts[host].clock = BEGINNING;
    }
    net.authority().mood = Mood::IsSilent;
    net.pass(4);
    let channel = net.hosts[RELAY].channel_with(net.identifier(GATEWAY)).unwrap();
    let answer = |net: &mut Net, wall| {
        let nonce = net.question(GATEWAY).unwrap();
        let mut frames = Vec::new();
        TrustFrame::OwnTime { nonce, wall }.put(&mut frames);
        let before = peer_times(net).len();
        net.say(RELAY, channel, &frames);
        net.settle();
        peer_times(net).len() - before
    };
    let wall = net.now.wall;
    assert_eq!(answer(&mut net, wall), 1);
    assert_eq!(answer(&mut net, wall), 0);
    // The next question, answered too late, and the one after, answered by somebody who does not know.
    net.pass(60 + 31);
    assert_eq!(answer(&mut net, wall), 0);
    net.pass(35);
    assert_eq!(answer(&mut net, WallTime::default()), 0);
    assert_eq!(answer(&mut net, wall), 0);
    net.pass(60);
    assert_eq!(answer(&mut net, wall), 1);
}

#[test]
fn a_peer_that_does_not_know_the_time_does_not_tell_it() {
    let mut net = fleet(|_| {});
    for host in [GATEWAY, RELAY] {
        net.hosts[host].clock = BEGINNING;
    }
    net.dials.remove(&(AUTHORITY, 0));
    net.dials.remove(&(RELAY, 0));
    net.hosts[COLLECTOR].clock = BEGINNING;
    net.pass(70);
    assert_eq!(net.delivered(), 100);
    assert_eq!((times(&net), peer_times(&net)), (Vec::new(), Vec::new()));
}

#[test]
fn a_flood_of_questions_gets_one_answer_a_second() {
    let mut net = fleet(|_| {});
    net.pass(2);
    let mut frames = Vec::new();
    for n in 0..200 {
        TrustFrame::TimePlease { nonce: [n; 16] }.put(&mut frames);
    }
    let relay = net.hosts[GATEWAY].channel(|used_for| matches!(used_for, Use::Registrar { .. }));
    let authority = net.hosts[GATEWAY].channel(|used_for| used_for == Use::Authority);
    let before = net.hosts[RELAY].node.stats().bad_frames;
    for channel in [relay, authority] {
        net.say(GATEWAY, channel, &frames);
    }
    net.settle();
    assert_eq!(net.hosts[RELAY].node.stats().bad_frames, before + 199);
    assert_eq!(
        net.authority()
            .count(|kind| matches!(kind, AuthorityRequestKind::Time(_))),
        1
    );
}
