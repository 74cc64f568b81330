//! Two relays between gateway and collector: what is on its way when one of them falls silent goes over the other.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::*,
    net::{COLLECTOR, GATEWAY, Host, Net, RELAY, Readings, Signer},
    portals::open,
};
use crate::{
    portal::{SessionEvent, SessionState, StreamId},
    relay::{MemberRights, RelaySettings},
};

/// The second relay.
pub(super) const SECOND: usize = 3;
pub(super) const INLET: PortalKey = PortalKey::Inlet(0);
pub(super) const OUTLET: PortalKey = PortalKey::Outlet(0);
pub(super) const UPLINK: PathOwner = PathOwner::Uplink(0);

/// A net with so many readings at the gateway, whose inlet leads to an outlet of the collector.
pub(super) fn net(readings: usize) -> Net {
    let mut net = unconnected(readings);
    net.pass(3);
    assert_eq!(net.delivered(), readings);
    assert_eq!(states(&net, UPLINK), [PathState::Active, PathState::Standby]);
    assert_eq!(
        states(&net, PathOwner::Inlet(0)),
        [PathState::Active, PathState::Standby]
    );
    net
}

/// The same before anything happened.
fn unconnected(readings: usize) -> Net {
    let second = Signer::new();
    let identifier = second.identifier();
    let mut members = BTreeMap::new();
    let mut net = Net::new(readings, |gateway, relay, collector| {
        for node in [&mut *gateway, &mut *collector] {
            let mut other = node.neighbours[0].clone();
            other.relay = Some(identifier);
            node.neighbours.push(other);
        }
        let uplink = &mut gateway.uplinks[0];
        uplink.ways.push(WaySettings::relayed(1, "plant"));
        gateway.portals.peers = vec![PortalPeerSettings {
            peer: uplink.collector,
            pq: uplink.pq,
            live_proof: false,
            ways: uplink.ways.clone(),
        }];
        collector.portals = PortalSettings {
            outlets: Some(collector.collect.as_ref().unwrap().gateways.clone()),
            sessions_max: 1,
            ..PortalSettings::default()
        };
        members.clone_from(&relay.relay.as_ref().unwrap().members);
    });
    let members: BTreeMap<Identifier, MemberRights> = members;
    let mut settings = NodeSettings::new("second");
    settings.relay = Some(RelaySettings {
        members,
        ..RelaySettings::default()
    });
    let local = second.local(&mut net.entropy);
    let node = Node::new(net.now, &mut net.entropy, settings, local);
    net.hosts.push(Host::new(node, second, Readings::default()));
    net.dials.insert((GATEWAY, 1), SECOND);
    net.dials.insert((COLLECTOR, 1), SECOND);
    net
}

pub(super) fn states(net: &Net, owner: PathOwner) -> Vec<PathState> {
    let (views, _) = net.hosts[GATEWAY].node.paths(net.now.instant, owner);
    views.iter().map(|view| view.state).collect()
}

pub(super) fn switches(net: &Net, owner: PathOwner) -> u64 {
    net.hosts[GATEWAY].node.paths(net.now.instant, owner).1
}

/// Has nothing pass between a relay and anybody, or everything again. Nobody is told.
fn silence(net: &mut Net, relay: usize, silent: bool) {
    for host in [GATEWAY, COLLECTOR] {
        for pair in [(host, relay), (relay, host)] {
            if silent {
                net.muted.insert(pair);
            } else {
                net.muted.remove(&pair);
            }
        }
    }
}

#[test]
fn readings_go_over_the_other_relay_within_a_second_and_none_is_lost_or_doubled() {
    let mut net = net(100);
    net.pass(10);
    silence(&mut net, RELAY, true);
    net.add_readings(50);
    net.pass_millis(1_000);
    assert_eq!(net.delivered(), 150);
    assert_eq!(net.hosts[GATEWAY].released, 150);
    assert_eq!(states(&net, UPLINK), [PathState::Down, PathState::Active]);
    let told = |event: &Event| {
        *event
            == Event::PathChanged {
                owner: UPLINK,
                from: 0,
                to: 1,
                reason: PathReason::Silent,
            }
    };
    assert_eq!(net.hosts[GATEWAY].count(told), 1);
    // The channel that was left is in reserve again as soon as it answers, and can be gone back to.
    silence(&mut net, RELAY, false);
    net.pass(3);
    assert_eq!(states(&net, UPLINK), [PathState::Standby, PathState::Active]);
    silence(&mut net, SECOND, true);
    net.add_readings(50);
    net.pass_millis(1_000);
    assert_eq!(net.delivered(), 200);
    assert_eq!(net.hosts[GATEWAY].released, 200);
    assert_eq!(
        (states(&net, UPLINK)[0], switches(&net, UPLINK)),
        (PathState::Active, 2)
    );
    let channels = net.hosts[GATEWAY].count(|event| matches!(event, Event::ChannelLost { .. }));
    assert_eq!(channels, 0, "nothing had to be opened again");
    let bad: u64 = net.hosts.iter().map(|host| host.node.stats().bad_frames).sum();
    assert_eq!(bad, 0);
}

#[test]
fn a_dead_path_is_opened_again_and_becomes_the_reserve() {
    let mut net = net(10);
    silence(&mut net, RELAY, true);
    net.add_readings(10);
    net.pass(30);
    assert_eq!(states(&net, UPLINK), [PathState::Down, PathState::Active]);
    let lost = |event: &Event| matches!(event, Event::ChannelLost { .. });
    assert!(net.hosts[GATEWAY].count(lost) > 0, "it was given up");
    silence(&mut net, RELAY, false);
    net.pass(120);
    assert_eq!(states(&net, UPLINK), [PathState::Standby, PathState::Active]);
    assert_eq!((net.delivered(), switches(&net, UPLINK)), (20, 1));
}

#[test]
fn a_collector_that_is_silent_on_every_path_is_not_fled_from() {
    let mut net = net(10);
    silence(&mut net, RELAY, true);
    silence(&mut net, SECOND, true);
    net.add_readings(10);
    net.pass(5);
    assert_eq!(switches(&net, UPLINK), 0);
    silence(&mut net, RELAY, false);
    net.pass(20);
    assert_eq!(net.delivered(), 20);
}

#[test]
fn a_relay_that_closes_is_left_at_once() {
    let mut net = net(10);
    let link = net.connection(GATEWAY, RELAY);
    net.dials.remove(&(GATEWAY, 0));
    net.disconnect(GATEWAY, link);
    net.add_readings(10);
    net.settle();
    assert_eq!(net.delivered(), 20);
    assert_eq!(states(&net, UPLINK), [PathState::Down, PathState::Active]);
    let down = |event: &Event| matches!(event, Event::UplinkDown { .. });
    assert_eq!(net.hosts[GATEWAY].count(down), 0);
}

#[test]
fn a_way_that_never_answered_costs_a_second_and_not_the_whole_patience_of_a_handshake() {
    let mut net = unconnected(10);
    let dials: Vec<_> = (0..2)
        .filter_map(|way| net.dials.remove_entry(&(GATEWAY, way)))
        .collect();
    net.pass(2);
    // The collector holds its name at the first relay, and nothing gets through to it any more.
    for pair in [(COLLECTOR, RELAY), (RELAY, COLLECTOR)] {
        net.muted.insert(pair);
    }
    net.dials.extend(dials);
    while net.hosts[GATEWAY].node.uplinks[0].state != UplinkState::Connecting {
        net.pass_millis(10);
    }
    net.pass_millis(900);
    assert_eq!(net.delivered(), 0, "the first relay is the preferred one");
    net.pass_millis(200);
    assert_eq!(net.delivered(), 10);
    for owner in [UPLINK, PathOwner::Inlet(0)] {
        assert_eq!(states(&net, owner), [PathState::Down, PathState::Active]);
    }
    // Once it passes on what it gets, the first way is the reserve.
    net.muted.clear();
    net.pass(40);
    for owner in [UPLINK, PathOwner::Inlet(0)] {
        assert_eq!(states(&net, owner), [PathState::Standby, PathState::Active]);
        assert_eq!(switches(&net, owner), 0);
    }
    assert_eq!(net.delivered(), 10);
}

#[test]
fn a_cable_that_is_pulled_again_and_again_is_noticed_as_soon_as_the_first_time() {
    let mut net = net(0);
    for round in 1..=10 {
        for relay in [RELAY, SECOND] {
            net.pass(6);
            silence(&mut net, relay, true);
            let delivered = net.delivered();
            net.add_readings(20);
            net.pass_millis(1_000);
            assert_eq!(net.delivered(), delivered + 20, "in round {round}");
            net.pass_millis(1_000);
            silence(&mut net, relay, false);
        }
    }
    assert_eq!(switches(&net, UPLINK), 20);
}

#[test]
fn a_path_that_is_twice_as_fast_for_long_is_taken_and_a_short_while_is_not_enough() {
    let mut net = net(10);
    let measured = |net: &mut Net, millis: u64, secs: u64| {
        for _ in 0..secs {
            let node = &mut net.hosts[GATEWAY].node;
            let active = node.uplinks[0].channel().unwrap();
            // As if its round trip were that long.
            node.path_answered(active, Duration::from_millis(millis));
            net.pass(1);
        }
    };
    // The smoothed round trip comes down slowly: five seconds of it count for more than twenty.
    measured(&mut net, 400, 5);
    measured(&mut net, 0, 40);
    assert_eq!(switches(&net, UPLINK), 0);
    measured(&mut net, 400, 60);
    assert_eq!(switches(&net, UPLINK), 1);
    let (views, _) = net.hosts[GATEWAY].node.paths(net.now.instant, UPLINK);
    assert_eq!(views[1].reason, Some(PathReason::Better));
}

/// Opens a stream from the gateway's inlet to the collector's outlet.
pub(super) fn open_stream(net: &mut Net) -> StreamId {
    let stream = open(net, "plc");
    net.pass(1);
    net.hosts[COLLECTOR].node.portal(OUTLET).unwrap().accept(stream);
    net.pass(1);
    stream
}

#[test]
fn a_stream_goes_on_over_the_other_relay_in_both_directions() {
    let mut net = net(0);
    let stream = open_stream(&mut net);
    let mut wanted = [Vec::new(), Vec::new()];
    for (relay, round) in [(RELAY, 1_u8), (SECOND, 2), (RELAY, 3)] {
        net.pass(6);
        silence(&mut net, relay, true);
        // One side has something to say, then the other: nobody asks the inlet's node in the second case.
        let (host, key, sent) = if round == 2 {
            (COLLECTOR, OUTLET, &mut wanted[1])
        } else {
            (GATEWAY, INLET, &mut wanted[0])
        };
        let piece = vec![round; 10_000];
        let session = net.hosts[host].node.portal(key).unwrap();
        assert_eq!(session.write(stream, &piece), piece.len());
        sent.extend(piece);
        net.pass_millis(1_500);
        for (host, key, sent) in [(COLLECTOR, OUTLET, &wanted[0]), (GATEWAY, INLET, &wanted[1])] {
            assert_eq!(came(&net, host, key, stream), *sent, "in round {round}");
        }
        silence(&mut net, relay, false);
        net.pass(6);
    }
    assert_eq!(switches(&net, PathOwner::Inlet(0)), 3);
    let session = net.hosts[GATEWAY].node.portal(INLET).unwrap();
    assert_eq!((session.state(), session.stats().lost), (SessionState::Up, 0));
    let ended = |event: &SessionEvent| matches!(event, SessionEvent::Reset { .. });
    assert!(!std::iter::from_fn(|| session.poll_event()).any(|event| ended(&event)));
}

pub(super) fn came(net: &Net, host: usize, key: PortalKey, stream: StreamId) -> Vec<u8> {
    net.hosts[host]
        .sink
        .2
        .get(&(key, stream))
        .cloned()
        .unwrap_or_default()
}
