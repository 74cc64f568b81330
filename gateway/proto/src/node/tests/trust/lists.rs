//! Lists of the revoked: who gets them, who does not, and what is made of bad ones.

use super::*;
use crate::{
    identity::Identifier,
    link::put_ping,
    relay::{MemberRights, RelaySettings},
    trust::{TrustFrame, status_parts},
};

fn revoked(event: &Event) -> bool {
    matches!(event, Event::PeerRevoked { .. })
}

/// Identifiers of nobody, so that a list becomes long.
fn many(count: u32) -> impl Iterator<Item = Identifier> {
    (0..count).map(|n| {
        let mut bytes = [0xee; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Identifier::from_bytes(bytes)
    })
}

/// The frames with a list, as one host would send them to another.
fn parts(net: &Net, number: u64, list: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    for part in status_parts(net.identifier(AUTHORITY), number, list) {
        part.put(&mut frames);
    }
    frames
}

/// Has the collector send these frames to the relay.
fn collector_says(net: &mut Net, frames: &[u8]) {
    let channel = net.hosts[COLLECTOR].channel(|used_for| matches!(used_for, Use::Registrar { .. }));
    net.say(COLLECTOR, channel, frames);
    net.settle();
}

/// A gateway and a relay that know each other and no authority but by its lists; no other channel.
fn pair() -> Net {
    let mut net = fleet(|plan| {
        for settings in &mut plan.settings {
            settings.authority_ways.clear();
        }
        plan.settings[GATEWAY].uplinks.clear();
    });
    for from in [COLLECTOR, AUTHORITY, RELAY] {
        net.dials.remove(&(from, 0));
    }
    net.pass(2);
    assert!(net.hosts[RELAY].channel_with(net.identifier(GATEWAY)).is_some());
    assert_eq!(net.lists()[..2], [0, 0]);
    net
}

#[test]
fn the_revoked_are_closed_in_the_same_turn_and_not_let_in_again() {
    let mut net = fleet(|_| {});
    net.pass(3);
    assert_eq!(net.delivered(), 100);
    let gateway = net.identifier(GATEWAY);
    net.revoke(GATEWAY);
    assert_eq!(net.hosts[AUTHORITY].node.stats().revoked, 1, "in the same call");
    net.settle();
    assert_eq!(net.lists()[1..], [2, 2, 2]);
    for host in [RELAY, COLLECTOR, AUTHORITY] {
        assert_eq!(net.hosts[host].channel_with(gateway), None, "host {host}");
        assert_eq!(net.hosts[host].count(revoked), 1, "host {host}");
    }
    let now = net.now;
    net.hosts[GATEWAY].journal.0.push(b"secret reading".to_vec());
    net.hosts[GATEWAY]
        .node
        .handle_available(now, Class::Normal, 1, 101);
    net.pass(300);
    assert_eq!(net.delivered(), 100);
    for host in [COLLECTOR, AUTHORITY] {
        assert_eq!(net.hosts[host].channel_with(gateway), None, "host {host}");
    }
    assert!(
        net.hosts[RELAY].node.stats().revoked > 3,
        "it tries, and is turned away"
    );
    assert_eq!(
        net.hosts[RELAY]
            .asked
            .iter()
            .filter(|access| access.peer == gateway)
            .count(),
        1
    );
}

#[test]
fn who_opened_the_channel_closes_it_too() {
    let mut net = fleet(|_| {});
    net.pass(3);
    let collector = net.identifier(COLLECTOR);
    net.revoke(COLLECTOR);
    net.settle();
    assert_eq!(net.hosts[GATEWAY].channel_with(collector), None);
    assert_eq!(net.hosts[GATEWAY].count(revoked), 1);
    net.pass(120);
    assert_ne!(
        net.hosts[GATEWAY].node.uplinks().next().unwrap().state,
        UplinkState::Up
    );
}

#[test]
fn a_revocation_is_taken_back_by_a_newer_list() {
    let mut net = fleet(|_| {});
    net.pass(2);
    net.revoke(GATEWAY);
    net.pass(30);
    net.authority().revoked.clear();
    net.publish();
    net.pass(60);
    assert_eq!(net.lists(), [3, 3, 3, 3]);
    assert!(
        net.hosts[COLLECTOR]
            .channel_with(net.identifier(GATEWAY))
            .is_some()
    );
}

#[test]
fn a_list_is_kept_and_obeyed_after_a_restart() {
    let mut net = fleet(|_| {});
    net.pass(2);
    net.revoke(GATEWAY);
    net.settle();
    let (relay, authority) = (net.identifier(RELAY), net.identifier(AUTHORITY));
    let settings = crate::trust::TrustSettings {
        authority: Some(authority),
        ..crate::trust::TrustSettings::default()
    };
    let trust = Trust::new(relay, settings, &net.hosts[RELAY].saved).unwrap();
    assert_eq!(trust.status().unwrap().number(), 2);
    assert!(trust.is_revoked(&net.identifier(GATEWAY)));
}

#[test]
fn lists_come_by_way_of_whoever_has_them() {
    // The relay trusts nobody and asks nobody; the gateway has only the collector.
    let mut net = fleet(|plan| {
        let rights = |hold: &[&str], reach: &[&str]| MemberRights {
            names: hold.iter().map(|name| name.parse().unwrap()).collect(),
            reach: reach.iter().map(|name| name.parse().unwrap()).collect(),
        };
        plan.trust[RELAY] = None;
        plan.settings[RELAY].access = AccessPolicy::Lists;
        plan.settings[RELAY].relay = Some(RelaySettings {
            members: [
                (plan.identifiers[GATEWAY], rights(&[], &["plant"])),
                (plan.identifiers[COLLECTOR], rights(&["plant"], &["authority"])),
                (plan.identifiers[AUTHORITY], rights(&["authority"], &[])),
            ]
            .into(),
            ..RelaySettings::default()
        });
        plan.settings[GATEWAY].authority_ways.clear();
    });
    net.pass(3);
    let numbers = |net: &Net| [GATEWAY, COLLECTOR, AUTHORITY].map(|host| net.view(host).list_number);
    assert_eq!(numbers(&net), [1, 1, 1]);
    net.publish();
    net.settle();
    assert_eq!(numbers(&net), [2, 2, 2]);
    assert_eq!(
        net.hosts[RELAY].node.stats().bad_frames,
        0,
        "others' frames are no fault"
    );
}

#[test]
fn a_newer_list_from_below_goes_up_and_not_back() {
    let mut net = fleet(|plan| plan.settings[GATEWAY].authority_ways.clear());
    net.pass(3);
    net.authority().revoked.extend(many(8_000));
    let secs = net.now.wall.unix_secs();
    let list = net.authority().list(secs);
    assert!(list.len() > 120_000, "three parts");
    let before = net.carried.clone();
    net.give_list(COLLECTOR, &list);
    net.settle();
    assert_eq!(net.lists(), [2, 2, 2, 2]);
    let carried = |from, to| net.carried[&(from, to)] - before[&(from, to)];
    assert!(carried(COLLECTOR, RELAY) > 120_000);
    assert!(
        carried(RELAY, COLLECTOR) < 5_000,
        "{} bytes",
        carried(RELAY, COLLECTOR)
    );
    let taken = |event: &Event| {
        matches!(
            event,
            Event::ListTaken {
                number: 2,
                newly_revoked: 8_000
            }
        )
    };
    assert_eq!(net.hosts[GATEWAY].count(taken), 1);
}

#[test]
fn an_older_list_is_refused_from_whomever() {
    let mut net = fleet(|_| {});
    net.pass(2);
    let secs = net.now.wall.unix_secs();
    let old = net.authority().list_numbered(1, secs);
    net.revoke(GATEWAY);
    net.settle();
    let frames = parts(&net, 1, &old);
    for _ in 0..5 {
        collector_says(&mut net, &frames);
    }
    let relay = &net.hosts[RELAY];
    assert_eq!(
        (relay.node.stats().lists_refused, net.view(RELAY).list_number),
        (5, 2)
    );
    let refused = |event: &Event| {
        matches!(
            event,
            Event::ListRefused {
                error: crate::trust::TrustError::RolledBack { have: 2, got: 1 },
                ..
            }
        )
    };
    assert_eq!(relay.count(refused), 1, "it is said once in a while");
    net.pass(10);
    collector_says(&mut net, &frames);
    assert_eq!(net.hosts[RELAY].count(refused), 2);
    // Nor does a lie about the number help.
    let frames = parts(&net, 3, &old);
    collector_says(&mut net, &frames);
    assert_eq!(
        (
            net.hosts[RELAY].node.stats().lists_refused,
            net.view(RELAY).list_number
        ),
        (7, 2)
    );
    assert_eq!(net.hosts[RELAY].channel_with(net.identifier(GATEWAY)), None);
}

#[test]
fn a_forged_list_is_refused_and_its_sender_not_listened_to_for_a_while() {
    let mut net = fleet(|_| {});
    net.pass(2);
    let secs = net.now.wall.unix_secs();
    let good = net.authority().list(secs);
    let mut forged = good.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let (forged, genuine) = (parts(&net, 2, &forged), parts(&net, 2, &good));
    collector_says(&mut net, &forged);
    assert_eq!(net.hosts[RELAY].node.stats().lists_refused, 1);
    let refused = |event: &Event| matches!(event, Event::ListRefused { .. });
    assert_eq!(net.hosts[RELAY].count(refused), 1);
    // What costs a signature is not looked at, so a flood of forgeries costs none.
    collector_says(&mut net, &forged);
    collector_says(&mut net, &genuine);
    assert_eq!(net.hosts[RELAY].node.stats().lists_refused, 1);
    assert_eq!(net.view(RELAY).list_number, 1);
    // Others are heard.
    net.pass(10);
    collector_says(&mut net, &genuine);
    assert_eq!(net.lists(), [2, 2, 2, 2]);
}

#[test]
fn a_foreign_list_is_of_no_use_and_no_fault() {
    let mut net = fleet(|_| {});
    net.pass(2);
    let other = TestAuthority::new(&net.hosts[COLLECTOR].signer, &mut net.entropy);
    let list = other.list_numbered(9, net.now.wall.unix_secs());
    let mut frames = Vec::new();
    for part in status_parts(net.identifier(COLLECTOR), 9, &list) {
        part.put(&mut frames);
    }
    TrustFrame::StatusHave {
        authority: net.identifier(COLLECTOR),
        number: 0,
    }
    .put(&mut frames);
    let before = net.carried[&(RELAY, COLLECTOR)];
    collector_says(&mut net, &frames);
    let stats = net.hosts[RELAY].node.stats();
    assert_eq!((stats.lists_refused, stats.bad_frames), (0, 0));
    assert_eq!(
        net.carried[&(RELAY, COLLECTOR)],
        before,
        "and nothing is answered"
    );
    // With the right name in front of it, it is a forgery.
    let frames = parts(&net, 9, &list);
    collector_says(&mut net, &frames);
    assert_eq!(net.hosts[RELAY].node.stats().lists_refused, 1);
}

#[test]
fn a_stranger_brings_word_only_where_there_is_none() {
    let mut net = fleet(|plan| {
        plan.list_secs = 300;
        plan.strangers.insert(GATEWAY);
    });
    net.pass(2);
    let gateway_says = |net: &mut Net, list: &[u8]| {
        let channel = net.hosts[GATEWAY].channel(|used_for| matches!(used_for, Use::Registrar { .. }));
        let frames = parts(net, 2, list);
        net.say(GATEWAY, channel, &frames);
        net.settle();
    };
    let secs = net.now.wall.unix_secs();
    let list = net.authority().list(secs);
    gateway_says(&mut net, &list);
    assert_eq!(net.view(RELAY).list_number, 1);
    net.pass(610);
    assert_eq!(net.view(RELAY).freshness.name(), "stale");
    gateway_says(&mut net, &list);
    assert_eq!(net.view(RELAY).list_number, 2);
}

#[test]
fn a_peer_that_asks_again_and_again_gets_a_list_less_and_less() {
    let mut net = pair();
    net.authority().revoked.extend(many(2_000));
    let secs = net.now.wall.unix_secs();
    let list = net.authority().list(secs);
    net.give_list(RELAY, &list);
    net.settle();
    assert_eq!(net.view(GATEWAY).list_number, 2);
    let mut frames = Vec::new();
    for _ in 0..500 {
        TrustFrame::StatusHave {
            authority: net.identifier(AUTHORITY),
            number: 0,
        }
        .put(&mut frames);
    }
    let before = net.carried[&(RELAY, GATEWAY)];
    for _ in 0..60 {
        let channel = net.hosts[GATEWAY].channel(|used_for| matches!(used_for, Use::Registrar { .. }));
        net.say(GATEWAY, channel, &frames);
        net.pass(1);
        let (sending, _) = net.hosts[RELAY].node.lists.held();
        assert!(sending <= 1);
    }
    let lists = (net.carried[&(RELAY, GATEWAY)] - before) / list.len();
    assert!((4..=6).contains(&lists), "{lists} lists in a minute");
}

#[test]
fn a_link_that_is_full_gets_no_more_until_there_is_room() {
    let mut net = pair();
    net.authority().revoked.extend(many(60_000));
    let secs = net.now.wall.unix_secs();
    let list = net.authority().list(secs);
    assert!(list.len() > 900_000);
    let link = net.connection(RELAY, GATEWAY);
    net.stalled.insert((RELAY, link));
    let queued = |net: &Net| net.hosts[RELAY].buffers.0[&link].len();
    net.give_list(RELAY, &list);
    for _ in 0..20 {
        net.pass(1);
        assert!(
            queued(&net) <= (256 << 10) + 61_000,
            "{} bytes wait",
            queued(&net)
        );
    }
    assert!(queued(&net) > 256 << 10);
    net.stalled.clear();
    net.settle();
    assert!(queued(&net) < 1_000);
    net.pass(5);
    assert_eq!(net.view(GATEWAY).list_number, 2);
    // One that is full from the start gets none at all.
    let list = net.authority().list(secs);
    net.stalled.insert((RELAY, link));
    let buffer = net.hosts[RELAY].buffers.0.get_mut(&link).unwrap();
    while buffer.len() <= 256 << 10 {
        put_ping(buffer, 1);
    }
    let before = queued(&net);
    net.give_list(RELAY, &list);
    net.pass(3);
    assert!(queued(&net) < before + 1_000);
    net.stalled.clear();
    net.pass(5);
    assert_eq!(net.view(GATEWAY).list_number, 3);
}

#[test]
fn a_list_of_which_a_part_was_lost_comes_again() {
    let mut net = pair();
    net.authority().revoked.extend(many(12_000));
    let secs = net.now.wall.unix_secs();
    let list = net.authority().list(secs);
    // A bit of the first part, where it does not harm the link.
    net.tamper = Some(|bytes| {
        if let Some(byte) = bytes.get_mut(30_000) {
            *byte ^= 1;
        }
    });
    net.give_list(RELAY, &list);
    net.settle();
    assert_eq!(net.view(GATEWAY).list_number, 0);
    net.tamper = None;
    // A part a second, since time goes in steps of one here.
    net.pass(8);
    assert_eq!(net.view(GATEWAY).list_number, 2);
}

#[test]
fn a_list_that_was_lost_altogether_comes_in_the_end() {
    let mut net = pair();
    let secs = net.now.wall.unix_secs();
    let list = net.authority().list(secs);
    net.muted.insert((RELAY, GATEWAY));
    net.give_list(RELAY, &list);
    net.settle();
    net.muted.clear();
    net.pass(250);
    assert_eq!(net.view(GATEWAY).list_number, 0);
    net.pass(60);
    assert_eq!(net.view(GATEWAY).list_number, 2);
}

/// A gateway that has list 2 and demands a live proof of a collector that has none; nobody else has anything to do with lists.
fn demanding() -> Net {
    let mut net = fleet(|plan| {
        plan.settings[GATEWAY].uplinks[0].live_proof = true;
        for host in [GATEWAY, COLLECTOR, RELAY] {
            plan.settings[host].authority_ways.clear();
        }
        plan.trust[RELAY] = None;
        plan.settings[RELAY].access = AccessPolicy::Lists;
        let anything = MemberRights {
            names: vec!["*".parse().unwrap()],
            reach: vec!["*".parse().unwrap()],
        };
        plan.settings[RELAY].relay = Some(RelaySettings {
            members: plan
                .identifiers
                .iter()
                .map(|host| (*host, anything.clone()))
                .collect(),
            ..RelaySettings::default()
        });
    });
    let secs = net.now.wall.unix_secs();
    let list = net.authority().list(secs);
    net.give_list(GATEWAY, &list);
    net
}

#[test]
fn what_was_said_before_a_proof_is_not_forgotten() {
    let mut net = demanding();
    let up = |net: &Net| net.hosts[GATEWAY].node.uplinks().next().unwrap().state == UplinkState::Up;
    while !up(&net) {
        assert_eq!(net.view(COLLECTOR).list_number, 0);
        net.pass(1);
    }
    assert_eq!(net.view(COLLECTOR).list_number, 2);
}

#[test]
fn no_list_goes_to_who_has_not_proven_itself() {
    let mut net = demanding();
    net.hosts[COLLECTOR].signs = false;
    net.pass(5);
    assert_eq!(net.view(COLLECTOR).list_number, 0);
    for output in std::mem::take(&mut net.hosts[COLLECTOR].outputs) {
        if let Output::Sign { channel, message } = output {
            let (now, collector) = (net.now, &mut net.hosts[COLLECTOR]);
            let signature = sign(&collector.signer.key, &message);
            collector.node.handle_signature(
                now,
                &mut net.entropy,
                channel,
                Some(signature),
                &mut collector.buffers,
            );
        }
    }
    net.settle();
    assert_eq!(net.view(COLLECTOR).list_number, 2);
}

fn forgotten(net: &Net) -> Vec<(u64, usize)> {
    let outputs = net.hosts[AUTHORITY].outputs.iter();
    outputs
        .filter_map(|output| {
            let Output::Forgotten(list) = output else {
                return None;
            };
            Some((list.number(), list.revoked().len()))
        })
        .collect()
}

/// An authority that was set back: it knows its first list, and everybody else one that names the gateway.
fn set_back() -> Net {
    let mut net = fleet(|plan| plan.settings[GATEWAY].uplinks.clear());
    let subject = net.identifier(GATEWAY);
    net.hosts[AUTHORITY].node.set_issued_lists(&[1]);
    net.authority().revoked.insert(subject);
    let secs = net.now_at(AUTHORITY).wall.unix_secs();
    let list = net.authority().list_numbered(5, secs);
    net.give_list(RELAY, &list);
    net.authority().revoked.clear();
    net
}

#[test]
fn an_authority_that_was_set_back_learns_what_it_has_forgotten() {
    let mut net = set_back();
    let gateway = net.identifier(GATEWAY);
    net.pass(3);
    assert_eq!(forgotten(&net), [(5, 1)]);
    assert_eq!(net.lists()[1..], [5, 5, 5]);
    assert!(
        net.hosts[AUTHORITY].node.stats().revoked > 0 || net.hosts[AUTHORITY].channel_with(gateway).is_none()
    );
    // What it publishes without having learned is older than what its node has: it is told again.
    net.publish();
    net.settle();
    assert_eq!(forgotten(&net), [(5, 1), (5, 1)]);
}

#[test]
fn a_newer_list_of_an_authority_that_was_set_back_waits_for_the_one_it_has_forgotten() {
    let mut net = set_back();
    let gateway = net.identifier(GATEWAY);
    // It goes on without knowing: its list has a higher number, and does not name the gateway.
    let secs = net.now_at(AUTHORITY).wall.unix_secs();
    let list = net.authority().list_numbered(9, secs);
    net.hosts[AUTHORITY].node.set_issued_lists(&[1, 9]);
    net.give_list(AUTHORITY, &list);
    net.pass(5);
    assert_eq!(forgotten(&net), [(5, 1)]);
    assert_eq!(
        net.lists()[1..],
        [5, 5, 9],
        "nobody whom it names is let in meanwhile"
    );
    assert_eq!(net.hosts[RELAY].channel_with(gateway), None);
    // It has taken over whom that named.
    net.authority().revoked.insert(gateway);
    let list = net.authority().list_numbered(10, secs);
    net.hosts[AUTHORITY].node.set_issued_lists(&[1, 5, 9, 10]);
    net.give_list(AUTHORITY, &list);
    net.pass(5);
    assert_eq!(net.lists()[1..], [10, 10, 10]);
    assert_eq!(net.hosts[RELAY].channel_with(gateway), None);
    assert_eq!(forgotten(&net), [(5, 1)]);
}

#[test]
fn a_forgotten_list_that_names_nobody_more_is_replaced_at_once() {
    let mut net = set_back();
    let gateway = net.identifier(GATEWAY);
    let secs = net.now_at(AUTHORITY).wall.unix_secs();
    net.authority().revoked.insert(gateway);
    let list = net.authority().list_numbered(9, secs);
    net.hosts[AUTHORITY].node.set_issued_lists(&[1, 9]);
    net.give_list(AUTHORITY, &list);
    net.pass(5);
    assert_eq!(forgotten(&net), [(5, 1)]);
    assert_eq!(net.lists()[1..], [9, 9, 9]);
}

#[test]
fn who_is_not_the_authority_is_not_believed_about_what_it_forgot() {
    let mut net = set_back();
    net.pass(3);
    let count = forgotten(&net).len();
    let secs = net.now_at(AUTHORITY).wall.unix_secs();
    // Forged, and with a number that nobody signed.
    let mut list = net.authority().list_numbered(7, secs);
    *list.last_mut().unwrap() ^= 1;
    let frames = parts(&net, 7, &list);
    let channel = net.hosts[COLLECTOR].channel(|used_for| matches!(used_for, Use::Authority));
    let before = net.hosts[AUTHORITY].node.stats().lists_refused;
    net.say(COLLECTOR, channel, &frames);
    net.settle();
    assert_eq!(net.hosts[AUTHORITY].node.stats().lists_refused, before + 1);
    assert_eq!(forgotten(&net).len(), count);
    assert_eq!(net.view(AUTHORITY).list_number, 5);
}

#[test]
fn a_node_learns_from_the_list_it_holds_that_it_is_revoked() {
    let mut net = fleet(|_| {});
    net.pass(2);
    let said = |net: &Net| {
        let events = net.hosts[GATEWAY].events.iter();
        events
            .filter_map(|event| {
                let Event::SelfRevoked { revoked } = event else {
                    return None;
                };
                Some(*revoked)
            })
            .collect::<Vec<bool>>()
    };
    assert!(!net.view(GATEWAY).self_revoked);
    let subject = net.identifier(GATEWAY);
    net.authority().revoked.insert(subject);
    let secs = net.now_at(AUTHORITY).wall.unix_secs();
    let list = net.authority().list_numbered(2, secs);
    // As it would come with a file.
    net.give_list(GATEWAY, &list);
    net.pass(10);
    assert!(net.view(GATEWAY).self_revoked);
    assert_eq!(said(&net), [true], "once");
    net.authority().revoked.clear();
    let list = net.authority().list_numbered(3, secs);
    net.give_list(GATEWAY, &list);
    net.pass(2);
    assert!(!net.view(GATEWAY).self_revoked);
    assert_eq!(said(&net), [true, false]);
}
