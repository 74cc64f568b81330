//! A relay that is to stop: its members go over the other, and those that cannot are named.

use std::time::Duration;

use super::{
    super::*,
    failover::{INLET, OUTLET, SECOND, UPLINK, came, net, open_stream, states, switches},
    net::{COLLECTOR, GATEWAY, Net, RELAY},
};
use crate::{relay::StaysReason, route::DropReason};

fn drain(net: &mut Net, relay: usize) {
    net.hosts[relay].node.drain(net.now, Duration::from_secs(60));
}

fn undrain(net: &mut Net, relay: usize) {
    let host = &mut net.hosts[relay];
    host.node.undrain(net.now, &mut host.buffers);
}

fn view(net: &Net, relay: usize) -> DrainView {
    net.hosts[relay].node.drain_view(10).expect("it is being drained")
}

/// Who is left at a relay, and why.
fn left(net: &Net, relay: usize) -> Vec<(usize, Option<StaysReason>)> {
    let host = |member| {
        net.hosts
            .iter()
            .position(|host| host.signer.identifier() == member)
    };
    let members = view(net, relay).members.into_iter();
    let mut left: Vec<_> = members
        .map(|left| (host(left.member).expect("one of ours"), left.stays))
        .collect();
    left.sort_unstable_by_key(|(host, _)| *host);
    left
}

#[test]
fn members_take_the_other_relay_and_then_leave_with_nothing_lost() {
    let mut net = net(100);
    let stream = open_stream(&mut net);
    for (relay, other, round) in [(RELAY, SECOND, 1_u8), (SECOND, RELAY, 2)] {
        net.pass(20);
        drain(&mut net, relay);
        assert_eq!(view(&net, relay).left, 2);
        // What is under way in the very moment.
        net.add_readings(50);
        let session = net.hosts[GATEWAY].node.portal(INLET).unwrap();
        assert_eq!(session.write(stream, &[round; 10_000]), 10_000);
        net.pass_millis(1_000);
        assert_eq!(left(&net, relay), [], "everybody has left in round {round}");
        assert_eq!(net.delivered(), 100 + 50 * usize::from(round));
        assert_eq!(
            came(&net, COLLECTOR, OUTLET, stream).len(),
            10_000 * usize::from(round)
        );
        let way = |of: usize| usize::from(of != RELAY);
        assert_eq!(states(&net, UPLINK)[way(other)], PathState::Active);
        assert_eq!(states(&net, UPLINK)[way(relay)], PathState::Down);
        // They look in now and then, and do not stay.
        net.pass(60);
        assert_eq!(left(&net, relay), []);
        assert_eq!(switches(&net, UPLINK), u64::from(round));
        undrain(&mut net, relay);
        net.pass(130);
        assert_eq!(
            states(&net, UPLINK)[way(relay)],
            PathState::Standby,
            "it is taken again"
        );
    }
    for host in [GATEWAY, COLLECTOR] {
        let broken = |event: &Event| matches!(event, Event::UplinkDown { .. } | Event::PortalDown { .. });
        assert_eq!(net.hosts[host].count(broken), 0);
        let left = |event: &Event| matches!(event, Event::RelayLeft { .. });
        assert!(net.hosts[host].count(left) >= 2);
    }
    let bad: u64 = net.hosts.iter().map(|host| host.node.stats().bad_frames).sum();
    assert_eq!(bad, 0);
}

#[test]
fn who_has_no_other_way_stays_and_so_does_whom_it_needs() {
    let mut net = net(10);
    // Nobody can dial the second relay any more.
    for host in [GATEWAY, COLLECTOR] {
        net.dials.remove(&(host, 1));
    }
    let link = net.connection(GATEWAY, SECOND);
    net.disconnect(GATEWAY, link);
    net.pass(10);
    drain(&mut net, RELAY);
    net.add_readings(10);
    net.pass(100);
    assert_eq!(net.delivered(), 20, "what runs goes on");
    assert_eq!(
        left(&net, RELAY),
        [
            (GATEWAY, Some(StaysReason::NoOtherWay)),
            (COLLECTOR, Some(StaysReason::Peers))
        ]
    );
    assert_eq!(view(&net, RELAY).stuck, 1);
    // As soon as there is another way they are gone.
    net.dials.insert((GATEWAY, 1), SECOND);
    net.pass(30);
    assert_eq!(left(&net, RELAY), []);
    net.add_readings(10);
    net.pass(1);
    assert_eq!(net.delivered(), 30);
}

#[test]
fn a_relay_that_is_drained_is_come_back_to_if_no_other_is_left_and_takes_nothing_new() {
    let mut net = net(10);
    drain(&mut net, RELAY);
    net.pass(3);
    assert_eq!(left(&net, RELAY), []);
    for host in [GATEWAY, COLLECTOR] {
        net.dials.remove(&(host, 1));
        let link = net.connection(host, SECOND);
        net.disconnect(host, link);
    }
    net.add_readings(10);
    net.pass(2);
    assert_eq!(left(&net, RELAY).len(), 2, "they are attached");
    assert_eq!(net.delivered(), 10, "and no more");
    let refused = |event: &Event| {
        matches!(
            event,
            Event::RegistrationRefused {
                reason: crate::relay::RefusedReason::Draining,
                ..
            }
        )
    };
    assert!(net.hosts[COLLECTOR].count(refused) > 0);
    undrain(&mut net, RELAY);
    net.pass(90);
    assert_eq!(net.delivered(), 20);
    assert_eq!(net.hosts[RELAY].node.drain_view(10), None);
}

#[test]
fn first_messages_to_members_of_a_drained_relay_are_dropped() {
    let mut net = net(10);
    let link = net.connection(GATEWAY, SECOND);
    net.dials.remove(&(GATEWAY, 1));
    net.disconnect(GATEWAY, link);
    net.pass(1);
    drain(&mut net, RELAY);
    net.pass(1);
    let link = net.connection(GATEWAY, RELAY);
    net.disconnect(GATEWAY, link);
    net.add_readings(10);
    net.pass(10);
    assert_eq!(net.delivered(), 10);
    let dropped = net.hosts[RELAY].node.router_stats().dropped(DropReason::Draining);
    assert!(dropped > 0);
    undrain(&mut net, RELAY);
    net.pass(130);
    assert_eq!(net.delivered(), 20);
}
