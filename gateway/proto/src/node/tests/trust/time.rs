//! Clocks that are wrong, unknown or a floor, and what is asked then.

use super::*;
use crate::{
    node::trust::FORWARDED_MAX,
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

#[test]
fn a_node_that_begins_in_1970_works_and_is_told_the_time() {
    let mut net = fleet(|_| {});
    net.hosts[GATEWAY].clock = BEGINNING;
    net.pass(3);
    assert_eq!(net.delivered(), 100);
    let told = times(&net);
    // Whoever is reached is asked at once; its clock stays as it was in this test.
    assert!((1..=2).contains(&told.len()), "{told:?}");
    assert_eq!(told[0].quality, ClockQuality::Authority);
    let wrong = told[0].unix_millis.abs_diff(net.now.wall.unix_millis);
    assert!(wrong <= 3_000, "{wrong} ms");
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

/// A gateway that begins in 1970 and has no way to the authority but its peers.
fn without_way() -> Net {
    let mut net = fleet(|plan| plan.settings[GATEWAY].authority_ways.clear());
    net.hosts[GATEWAY].clock = BEGINNING;
    net
}

#[test]
fn the_authoritys_time_comes_through_a_peer() {
    let mut net = without_way();
    net.pass(5);
    let told = times(&net);
    // Relay and collector were asked, first the one and then both; each question has one answer.
    assert!((1..=2).contains(&told.len()), "{told:?}");
    assert_eq!(told[0].quality, ClockQuality::Authority);
    let wrong = told[0].unix_millis.abs_diff(net.now.wall.unix_millis);
    assert!(wrong <= 5_000, "{wrong} ms");
    assert_eq!(
        net.hosts[GATEWAY].node.stats().bad_frames,
        0,
        "the other is no fault"
    );
    for host in [RELAY, COLLECTOR] {
        assert_eq!(net.hosts[host].node.forwarding.len(), 0);
    }
}

#[test]
fn a_relay_asks_the_authority_that_came_to_it() {
    let mut net = fleet(|plan| {
        for host in [GATEWAY, RELAY, COLLECTOR] {
            plan.settings[host].authority_ways.clear();
        }
    });
    net.hosts[GATEWAY].clock = BEGINNING;
    net.pass(5);
    assert!((1..=2).contains(&times(&net).len()));
    // For itself, too.
    let mut net = fleet(|plan| plan.settings[RELAY].authority_ways.clear());
    net.hosts[RELAY].clock = BEGINNING;
    net.pass(70);
    let mut told = net.hosts[RELAY].outputs.iter();
    assert!(told.any(|output| matches!(output, Output::Time(_))));
}

#[test]
fn what_a_peer_makes_up_repeats_or_holds_back_does_not_count() {
    let mut net = without_way();
    net.authority().mood = Mood::IsSilent;
    net.pass(4);
    let channel = net.hosts[RELAY].channel_with(net.identifier(GATEWAY)).unwrap();
    let nonce = net.question(COLLECTOR).unwrap();
    let millis = net.now.wall.unix_millis;
    let genuine = net.authority().time(nonce, millis);
    let other = net.authority().time([9; 16], millis);
    let mut forged = genuine.clone();
    *forged.last_mut().unwrap() ^= 1;
    let say = |net: &mut Net, presentation: &[u8]| {
        let mut frames = Vec::new();
        TrustFrame::SignedTime { presentation }.put(&mut frames);
        net.say(RELAY, channel, &frames);
        net.settle();
        times(net).len()
    };
    assert_eq!(say(&mut net, &other), 0, "it answers no question");
    assert_eq!(say(&mut net, &forged), 0);
    assert_eq!(
        say(&mut net, &genuine),
        0,
        "nor is who forged looked at for a while"
    );
    net.pass(11);
    assert_eq!(say(&mut net, &genuine), 1);
    assert_eq!(say(&mut net, &genuine), 1, "once");
    // The next question, and its answer after half a minute.
    let before = net.question(COLLECTOR);
    net.pass(50);
    let nonce = net.question(COLLECTOR);
    assert_ne!(nonce, before);
    let late = net.authority().time(nonce.unwrap(), millis);
    net.pass(31);
    assert_eq!(say(&mut net, &late), 1);
}

#[test]
fn questions_that_are_passed_on_are_few_and_forgotten_in_time() {
    let mut net = without_way();
    net.authority().mood = Mood::IsSilent;
    net.pass(2);
    let channel = net.hosts[GATEWAY].channel(|used_for| matches!(used_for, Use::Uplink { .. }));
    let before = net.hosts[COLLECTOR].node.stats().bad_frames;
    for n in 0..100 {
        let mut frames = Vec::new();
        TrustFrame::TimePlease { nonce: [n; 16] }.put(&mut frames);
        net.say(GATEWAY, channel, &frames);
        net.settle();
    }
    assert_eq!(
        net.hosts[COLLECTOR].node.stats().bad_frames,
        before + 99,
        "it asked a moment ago"
    );
    for n in 100..200 {
        let mut frames = Vec::new();
        TrustFrame::TimePlease { nonce: [n; 16] }.put(&mut frames);
        net.pass(1);
        net.say(GATEWAY, channel, &frames);
        net.settle();
        assert!(net.hosts[COLLECTOR].node.forwarding.len() <= FORWARDED_MAX);
    }
    net.pass(32);
    assert!(
        net.hosts[COLLECTOR].node.forwarding.len() <= 1,
        "its own question a minute"
    );
}

#[test]
fn nobody_is_told_where_the_authority_is_not_reached() {
    let mut net = without_way();
    net.dials.remove(&(AUTHORITY, 0));
    net.dials.remove(&(RELAY, 0));
    net.pass(70);
    assert_eq!(net.delivered(), 100);
    assert_eq!(times(&net), []);
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
    let gateway = net.identifier(GATEWAY);
    let asked =
        net.authority().requests.iter().filter(|request| {
            request.peer == gateway && matches!(request.kind, AuthorityRequestKind::Time(_))
        });
    assert_eq!(asked.count(), 1);
    // And one through the relay.
    assert_eq!(
        net.authority()
            .count(|kind| matches!(kind, AuthorityRequestKind::Time(_))),
        2
    );
}
