//! Enrolment, renewal, grace.

use super::*;
use crate::{
    relay::RelaySettings,
    trust::{AfterGrace, EnrolDraft, Standing, Ticket, TrustError},
};

fn enrol(net: &mut Net, host: usize, id: u64, ticket: &Ticket) {
    let now = net.now_at(host);
    let signer = &net.hosts[host].signer;
    let draft = EnrolDraft::new(ticket, &signer.history, now.wall.unix_secs(), [1; 16], "new").unwrap();
    let signature = sign(&signer.key, &draft.message());
    let request = draft.finish(&signature).unwrap();
    let host = &mut net.hosts[host];
    host.node.enrol(now, id, request, &mut host.buffers);
}

fn asked(net: &Net, host: usize) -> Vec<(u64, Asked)> {
    net.hosts[host].answers()
}

fn renewals(net: &mut Net, host: usize) -> usize {
    let peer = net.identifier(host);
    let requests = &net.authority().requests;
    let is_it =
        |request: &&AuthorityRequest| request.peer == peer && request.kind == AuthorityRequestKind::Renew;
    requests.iter().filter(is_it).count()
}

fn serial(net: &Net, host: usize) -> u64 {
    net.view(host).credential.unwrap().serial
}

fn established(net: &Net) -> Vec<u64> {
    net.hosts
        .iter()
        .map(|host| host.node.channel_stats().established)
        .collect()
}

#[test]
fn a_stranger_enrols_through_the_relay_and_stays_without_a_new_handshake() {
    let mut net = fleet(|plan| {
        plan.strangers.insert(GATEWAY);
    });
    net.pass(5);
    assert_eq!((net.delivered(), net.view(GATEWAY).credential), (0, None));
    let gateway = net.identifier(GATEWAY);
    let channel = net.hosts[RELAY].channel_with(gateway);
    assert!(channel.is_some());
    let ticket = net.ticket(MemberPlan::new("gateway", &[], &["plant", "authority"]));
    enrol(&mut net, GATEWAY, 7, &ticket);
    net.pass(15);
    assert_eq!(asked(&net, GATEWAY), [(7, Asked::Issued)]);
    let taken = |event: &Event| matches!(event, Event::CredentialTaken { .. });
    assert_eq!(net.hosts[GATEWAY].count(taken), 1);
    assert!(net.hosts[GATEWAY].saved.own.is_some());
    assert_eq!(net.delivered(), 100);
    assert_eq!(net.view(GATEWAY).list_number, 1);
    net.pass(200);
    assert_eq!(
        net.hosts[RELAY].channel_with(gateway),
        channel,
        "it stays more than a minute"
    );
    // Registrar, authority, collector; what was forwarded for the guest may have to begin anew with the member's rights.
    assert!((3..=4).contains(&established(&net)[GATEWAY]));
}

#[test]
fn a_request_to_enrol_waits_for_the_way_and_not_for_ever() {
    let mut net = fleet(|plan| {
        plan.strangers.insert(GATEWAY);
    });
    let ticket = net.ticket(MemberPlan::new("gateway", &[], &["plant", "authority"]));
    enrol(&mut net, GATEWAY, 1, &ticket);
    net.pass(5);
    assert_eq!(asked(&net, GATEWAY), [(1, Asked::Issued)]);
    net.authority().mood = Mood::IsSilent;
    enrol(&mut net, GATEWAY, 2, &ticket);
    net.pass(29);
    assert_eq!(asked(&net, GATEWAY).len(), 1);
    net.pass(2);
    assert_eq!(asked(&net, GATEWAY)[1..], [(2, Asked::Unanswered)]);
    // An answer that was lost costs no ticket.
    net.authority().mood = Mood::Answers;
    enrol(&mut net, GATEWAY, 3, &ticket);
    net.pass(2);
    assert_eq!(asked(&net, GATEWAY)[2..], [(3, Asked::Issued)]);
}

#[test]
fn a_ticket_of_nobody_gets_nothing() {
    let mut net = fleet(|plan| {
        plan.strangers.insert(GATEWAY);
    });
    let ticket = net.ticket(MemberPlan::default());
    // The number of one ticket with the secret of another.
    let other = net.ticket(MemberPlan::default());
    let (key, plan) = (other.key(), MemberPlan::default());
    net.authority().tickets.insert(*ticket.id(), (key, plan));
    enrol(&mut net, GATEWAY, 1, &ticket);
    net.pass(5);
    assert_eq!(asked(&net, GATEWAY), [(1, Asked::Denied)]);
    assert_eq!(net.view(GATEWAY).credential, None);
}

#[test]
fn a_credential_is_renewed_at_half_of_its_life_and_shown_in_all_channels() {
    let mut net = fleet(|plan| plan.credential_secs = 600);
    net.pass(298);
    let (before, first) = (established(&net), serial(&net, GATEWAY));
    assert_eq!(renewals(&mut net, GATEWAY), 0);
    net.pass(6);
    for host in [GATEWAY, RELAY, COLLECTOR] {
        assert_eq!(renewals(&mut net, host), 1, "host {host}");
    }
    let gateway = net.identifier(GATEWAY);
    for host in [RELAY, COLLECTOR, AUTHORITY] {
        let host = &net.hosts[host];
        let known = &host.node.known[&host.channel_with(gateway).unwrap()];
        assert_eq!(known.credential.as_ref().unwrap().serial, serial(&net, GATEWAY));
        let asked = host.asked.iter().rfind(|access| access.peer == gateway).unwrap();
        assert_eq!(asked.credential.as_ref().unwrap().0.serial, serial(&net, GATEWAY));
    }
    assert!(serial(&net, GATEWAY) > first);
    net.pass(1_800);
    assert_eq!(established(&net), before, "no handshake was needed for any of it");
    assert_eq!(renewals(&mut net, GATEWAY), 7, "one in five minutes");
    let grace = |event: &Event| matches!(event, Event::PeerInGrace { .. } | Event::PeerEnded { .. });
    for host in [GATEWAY, RELAY, COLLECTOR] {
        assert_eq!(net.hosts[host].count(grace), 0);
    }
}

#[test]
fn what_a_renewed_credential_says_counts_at_once() {
    let mut net = fleet(|plan| plan.credential_secs = 600);
    net.pass(3);
    assert_eq!(net.delivered(), 100);
    let (gateway, collector) = (net.identifier(GATEWAY), net.identifier(COLLECTOR));
    // Neither may the gateway reach the collector any more, nor the collector hold the name.
    net.authority()
        .members
        .insert(gateway, MemberPlan::new("gateway", &[], &["authority"]));
    net.authority()
        .members
        .insert(collector, MemberPlan::new("collector", &[], &["authority"]));
    net.pass(310);
    assert_eq!(net.hosts[RELAY].node.registered_names(), ["authority"]);
    let uplink = |net: &Net| net.hosts[GATEWAY].node.uplinks().next().unwrap().state;
    assert_ne!(uplink(&net), UplinkState::Up);
    net.authority()
        .members
        .insert(gateway, MemberPlan::new("gateway", &[], &["*"]));
    net.authority().members.insert(
        collector,
        MemberPlan::new("collector", &["plant"], &["authority"]),
    );
    net.pass(420);
    assert_eq!(uplink(&net), UplinkState::Up);
}

#[test]
fn a_refused_renewal_is_said_and_tried_less_and_less() {
    let mut net = fleet(|plan| plan.credential_secs = 7_200);
    net.authority().mood = Mood::Denies;
    net.pass(3_600 + 1_800);
    let denied = |event: &Event| matches!(event, Event::RenewalDenied);
    let tries = renewals(&mut net, GATEWAY);
    assert!((4..=12).contains(&tries), "{tries} in half an hour");
    assert_eq!(net.hosts[GATEWAY].count(denied), tries);
    let before = serial(&net, GATEWAY);
    net.authority().mood = Mood::Answers;
    net.pass(601);
    assert!(serial(&net, GATEWAY) > before);
    assert_eq!(renewals(&mut net, GATEWAY), tries + 1);
}

#[test]
fn a_renewal_whose_answer_is_lost_is_asked_for_again() {
    let mut net = fleet(|plan| plan.credential_secs = 600);
    let before = serial(&net, GATEWAY);
    net.authority().mood = Mood::IsSilent;
    net.pass(310);
    assert_eq!(renewals(&mut net, GATEWAY), 1);
    net.authority().mood = Mood::Answers;
    net.pass(60);
    assert_eq!(renewals(&mut net, GATEWAY), 2);
    assert!(serial(&net, GATEWAY) > before);
}

#[test]
fn a_credential_of_somebody_else_is_not_taken() {
    let mut net = fleet(|_| {});
    net.pass(2);
    let (relay, secs) = (net.identifier(RELAY), net.now.wall.unix_secs());
    let foreign = net.authority().issue(relay, secs).unwrap();
    let (now, gateway) = (net.now, &mut net.hosts[GATEWAY]);
    let before = gateway.saved.own.clone();
    assert!(matches!(
        gateway.node.take_credential(now, &foreign),
        Err(TrustError::Subject { .. })
    ));
    net.pass(2);
    assert_eq!(net.hosts[GATEWAY].saved.own, before);
    // Nor does it replace what a peer knows when it is shown.
    let channel = net.hosts[GATEWAY].channel(|used_for| matches!(used_for, Use::Uplink { .. }));
    let mut shown = Vec::new();
    crate::channel::put_frame(&mut shown, 0x07, &foreign);
    net.say(GATEWAY, channel, &shown);
    net.settle();
    let collector = &net.hosts[COLLECTOR];
    assert_eq!(collector.node.stats().credentials_refused, 1);
    let known = &collector.node.known[&collector.channel_with(net.identifier(GATEWAY)).unwrap()];
    assert_eq!(
        known.credential.as_ref().unwrap().subject,
        net.identifier(GATEWAY)
    );
}

fn in_grace(event: &Event) -> bool {
    matches!(event, Event::PeerInGrace { .. })
}

fn ended(event: &Event) -> bool {
    matches!(event, Event::PeerEnded { .. })
}

/// More readings at the gateway; returns how many there are.
fn publish_readings(net: &mut Net, count: u64) -> usize {
    let now = net.now;
    let gateway = &mut net.hosts[GATEWAY];
    for n in 0..count {
        gateway.journal.0.push(format!("later reading {n}").into_bytes());
    }
    let available = gateway.journal.0.len();
    gateway
        .node
        .handle_available(now, Class::Normal, 1, available as u64);
    available
}

#[test]
fn a_credential_that_has_ended_counts_for_the_time_of_grace() {
    let mut net = fleet(|plan| plan.credential_secs = 300);
    net.pass(2);
    net.authority().mood = Mood::IsSilent;
    // It ends at 300, clocks may differ by 300, and 600 are the grace.
    net.pass(596);
    assert_eq!(net.hosts[RELAY].count(in_grace), 0);
    net.pass(6);
    let gateway = net.identifier(GATEWAY);
    let of_gateway = |event: &Event| matches!(event, Event::PeerInGrace { peer, .. } if *peer == gateway);
    for host in [RELAY, COLLECTOR, AUTHORITY] {
        assert_eq!(net.hosts[host].count(of_gateway), 1, "host {host}");
    }
    assert_eq!(net.view(RELAY).peers_in_grace, 2);
    let available = publish_readings(&mut net, 50);
    net.pass(590);
    assert_eq!(net.delivered(), available, "it is served");
    assert_eq!(net.hosts[RELAY].count(of_gateway), 1, "and spoken of once");
    assert_eq!(net.hosts[RELAY].count(ended), 0);
    net.pass(10);
    let expired = |event: &Event| matches!(event, Event::PeerEnded { peer, standing: Standing::Expired } if *peer == gateway);
    assert_eq!(net.hosts[RELAY].count(expired), 1);
    publish_readings(&mut net, 50);
    net.pass(120);
    assert_eq!(net.delivered(), available, "it is not served any more");
    assert!(net.hosts[RELAY].node.stats().credentials_refused > 0);
}

#[test]
fn a_list_that_is_missing_counts_as_the_authoritys_silence() {
    let mut net = fleet(|plan| {
        plan.credential_secs = 40_000;
        plan.list_secs = 300;
    });
    net.pass(590);
    let fresh = |host: &Host| {
        let events = host.events.iter();
        let names = events.filter_map(|event| {
            let Event::FreshnessChanged { freshness } = event else {
                return None;
            };
            Some(freshness.name())
        });
        names.collect::<Vec<_>>()
    };
    assert_eq!(fresh(&net.hosts[COLLECTOR]), ["none", "fresh"]);
    net.pass(15);
    assert_eq!(fresh(&net.hosts[COLLECTOR]), ["none", "fresh", "stale"]);
    let gateway = net.identifier(GATEWAY);
    assert_eq!(net.hosts[COLLECTOR].count(in_grace), 1);
    // Word comes: all is as before.
    net.publish();
    net.pass(2);
    assert_eq!(fresh(&net.hosts[COLLECTOR]), ["none", "fresh", "stale", "fresh"]);
    assert_eq!(net.view(COLLECTOR).peers_in_grace, 0);
    // And stays away.
    let available = publish_readings(&mut net, 10);
    net.pass(1_195);
    assert_eq!(net.delivered(), available);
    assert_eq!(net.hosts[COLLECTOR].count(in_grace), 2);
    net.pass(15);
    let lapsed = |event: &Event| matches!(event, Event::PeerEnded { peer, standing: Standing::Lapsed { .. } } if *peer == gateway);
    assert_eq!(net.hosts[COLLECTOR].count(lapsed), 1);
    assert_eq!(fresh(&net.hosts[COLLECTOR])[4..], ["stale", "lapsed"]);
    publish_readings(&mut net, 10);
    net.pass(60);
    assert_eq!(net.delivered(), available);
}

#[test]
fn a_fleet_that_has_lapsed_recovers_when_the_authority_is_back() {
    let mut net = fleet(|plan| {
        plan.credential_secs = 300;
        plan.list_secs = 300;
    });
    net.pass(3);
    // Nothing of the authority arrives, until nobody believes anybody any more.
    net.authority().mood = Mood::IsSilent;
    net.pass(1_800);
    let available = publish_readings(&mut net, 10);
    net.pass(30);
    assert!(net.delivered() < available);
    assert_eq!(net.view(COLLECTOR).freshness.name(), "lapsed");
    net.authority().mood = Mood::Answers;
    net.publish();
    net.pass(660);
    assert_eq!(net.lists(), [2, 2, 2, 2]);
    assert_eq!(net.delivered(), available);
}

#[test]
fn a_node_that_is_to_go_on_goes_on() {
    let mut net = fleet(|plan| {
        plan.credential_secs = 400;
        plan.list_secs = 300;
        for trust in plan.trust.iter_mut().flatten() {
            trust.after_grace = AfterGrace::GoOn;
        }
    });
    net.pass(2);
    net.authority().mood = Mood::IsSilent;
    net.pass(5_000);
    let available = publish_readings(&mut net, 10);
    net.pass(2);
    assert_eq!(net.delivered(), available);
    assert_eq!(net.hosts[COLLECTOR].count(ended), 0);
    assert_eq!(net.hosts[COLLECTOR].count(in_grace), 1);
    assert_eq!(net.view(COLLECTOR).freshness.name(), "lapsed");
    // Revoked is revoked all the same.
    net.revoke(GATEWAY);
    net.settle();
    let revoked = |event: &Event| matches!(event, Event::PeerRevoked { .. });
    assert_eq!(net.hosts[COLLECTOR].count(revoked), 1);
}

#[test]
fn a_peer_that_is_named_in_the_settings_does_not_end_with_its_credential() {
    let mut net = fleet(|plan| {
        plan.credential_secs = 300;
        let (gateway, collector) = (plan.identifiers[GATEWAY], plan.identifiers[COLLECTOR]);
        for host in [RELAY, COLLECTOR] {
            plan.settings[host].access = AccessPolicy::Lists;
        }
        let rights = |hold: &[&str], reach: &[&str]| crate::relay::MemberRights {
            names: hold.iter().map(|name| name.parse().unwrap()).collect(),
            reach: reach.iter().map(|name| name.parse().unwrap()).collect(),
        };
        plan.settings[RELAY].relay = Some(RelaySettings {
            members: [
                (gateway, rights(&[], &["plant"])),
                (collector, rights(&["plant"], &[])),
            ]
            .into(),
            ..RelaySettings::default()
        });
        let collect = plan.settings[COLLECTOR].collect.as_mut().unwrap();
        collect.gateways.insert(gateway);
    });
    net.pass(3);
    assert_eq!(net.delivered(), 100);
    let before = established(&net);
    net.pass(3_000);
    for host in 0..3 {
        assert_eq!(net.hosts[host].count(ended), 0, "host {host}");
    }
    assert_eq!(established(&net)[GATEWAY], before[GATEWAY]);
    let available = publish_readings(&mut net, 10);
    net.pass(2);
    assert_eq!(net.delivered(), available);
}

#[test]
fn the_history_learned_from_a_peer_is_kept() {
    let mut net = fleet(|plan| {
        plan.strangers.insert(RELAY);
        for settings in &mut plan.settings {
            settings.authority_ways.clear();
        }
    });
    net.dials.remove(&(AUTHORITY, 0));
    net.dials.remove(&(RELAY, 0));
    net.pass(2);
    assert_eq!(net.delivered(), 100);
    assert_eq!(net.view(RELAY).list_number, 0);
    assert!(net.hosts[RELAY].saved.history.is_some());
}

#[test]
fn a_life_that_is_short_is_renewed_in_time() {
    let mut net = fleet(|plan| plan.credential_secs = 20);
    net.pass(200);
    let count = renewals(&mut net, GATEWAY);
    assert!((15..=21).contains(&count), "{count}");
    assert_eq!(net.delivered(), 100);
}
