//! Two nodes that find a path without the relay, and come back to it.

use std::net::SocketAddr;

use super::{
    super::*,
    failover::{INLET, OUTLET, UPLINK, came, open_stream, states, switches},
    net::{COLLECTOR, GATEWAY, Net, RELAY},
};
use crate::candidates::{Candidates, Range};

const INLETS: PathOwner = PathOwner::Inlet(0);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at_gateway() -> SocketAddr {
    address("10.0.1.1:5001")
}

fn at_collector() -> SocketAddr {
    address("10.0.2.1:5002")
}

/// A net whose gateway wants a direct path for its uplink and its inlet; `adjust` has the settings of gateway and collector.
fn net_with(readings: usize, adjust: impl FnOnce(&mut DirectSettings, &mut DirectSettings)) -> Net {
    let mut net = Net::new(readings, |gateway, _, collector| {
        for _ in 0..2 {
            let mut other = gateway.neighbours[0].clone();
            other.relay = None;
            other.registrations.clear();
            gateway.neighbours.push(other);
        }
        let everything = Range {
            first: "0.0.0.0".parse().unwrap(),
            last: "255.255.255.255".parse().unwrap(),
        };
        let uplink = &mut gateway.uplinks[0];
        let relayed = uplink.ways[0].clone();
        uplink.ways.push(WaySettings::direct(1));
        gateway.portals.peers = vec![PortalPeerSettings {
            peer: uplink.collector,
            pq: uplink.pq,
            live_proof: false,
            ways: vec![relayed, WaySettings::direct(2)],
        }];
        collector.portals = PortalSettings {
            outlets: Some(collector.collect.as_ref().unwrap().gateways.clone()),
            sessions_max: 1,
            ..PortalSettings::default()
        };
        gateway.direct = DirectSettings {
            neighbours: [1, 2].into(),
            ranges: vec![everything],
            ..DirectSettings::default()
        };
        collector.direct = DirectSettings {
            collector: true,
            outlets: true,
            ranges: vec![everything],
            ..DirectSettings::default()
        };
        adjust(&mut gateway.direct, &mut collector.direct);
    });
    for (host, own) in [(GATEWAY, at_gateway()), (COLLECTOR, at_collector())] {
        let now = net.now;
        let host = &mut net.hosts[host];
        host.node.set_own_addresses(now, vec![own], &mut host.buffers);
    }
    net
}

fn net(readings: usize) -> Net {
    let mut net = net_with(readings, |_, _| {});
    net.addresses.insert(at_collector(), COLLECTOR);
    net
}

fn is_up(net: &Net, owner: PathOwner) -> bool {
    let view = net.hosts[GATEWAY].node.direct(owner).unwrap();
    matches!(view.state, DirectState::Up { .. })
}

fn failure(net: &Net) -> Option<DirectFailure> {
    net.hosts[GATEWAY].node.direct(UPLINK).unwrap().failure
}

/// Has nothing pass between two hosts, or everything again.
fn silence(net: &mut Net, one: usize, other: usize, silent: bool) {
    for pair in [(one, other), (other, one)] {
        if silent {
            net.muted.insert(pair);
        } else {
            net.muted.remove(&pair);
        }
    }
}

fn carried(net: &Net, from: usize, to: usize) -> usize {
    net.carried.get(&(from, to)).copied().unwrap_or_default()
}

#[test]
fn readings_and_streams_leave_the_relay_and_come_back_when_the_path_breaks() {
    let mut net = net(10);
    net.pass(5);
    for owner in [UPLINK, INLETS] {
        assert_eq!(states(&net, owner), [PathState::Standby, PathState::Active]);
        assert!(is_up(&net, owner));
    }
    let direct = |event: &Event| {
        matches!(
            event,
            Event::PathChanged {
                reason: PathReason::Direct,
                ..
            }
        )
    };
    assert_eq!(net.hosts[GATEWAY].count(direct), 2);
    let linked = |event: &Event| matches!(event, Event::PeerLinked { .. });
    assert_eq!(
        net.hosts[COLLECTOR].count(linked),
        2,
        "the caller may trust the link"
    );
    let stream = open_stream(&mut net);
    let over_relay = carried(&net, GATEWAY, RELAY);
    net.add_readings(1_000);
    let piece = vec![7; 50_000];
    let write = |net: &mut Net, piece: &[u8]| {
        let session = net.hosts[GATEWAY].node.portal(INLET).unwrap();
        assert_eq!(session.write(stream, piece), piece.len());
    };
    write(&mut net, &piece);
    net.pass(2);
    assert_eq!(net.delivered(), 1_010);
    assert_eq!(came(&net, COLLECTOR, OUTLET, stream), piece);
    let more = carried(&net, GATEWAY, RELAY) - over_relay;
    assert!(more < 5_000, "{more} bytes went over the relay");
    // The path breaks, and nobody is told.
    silence(&mut net, GATEWAY, COLLECTOR, true);
    net.add_readings(50);
    let session = net.hosts[COLLECTOR].node.portal(OUTLET).unwrap();
    session.handle_consumed(stream, piece.len());
    write(&mut net, &piece);
    net.pass_millis(1_500);
    assert_eq!(net.delivered(), 1_060);
    assert_eq!(net.hosts[GATEWAY].released, 1_060);
    assert_eq!(came(&net, COLLECTOR, OUTLET, stream).len(), 100_000);
    for owner in [UPLINK, INLETS] {
        assert_eq!(states(&net, owner)[0], PathState::Active);
    }
    // It is there again, and is gone back to; what the relay does then is of no interest.
    silence(&mut net, GATEWAY, COLLECTOR, false);
    net.pass(180);
    assert!(is_up(&net, UPLINK));
    assert_eq!(states(&net, UPLINK), [PathState::Standby, PathState::Active]);
    silence(&mut net, GATEWAY, RELAY, true);
    net.add_readings(50);
    net.pass_millis(1_000);
    assert_eq!(net.delivered(), 1_110);
    assert_eq!(switches(&net, UPLINK), 3);
}

#[test]
fn a_path_that_broke_for_good_is_given_up_and_tried_again_ever_less_often() {
    let mut net = net(10);
    net.pass(5);
    net.addresses.clear();
    silence(&mut net, GATEWAY, COLLECTOR, true);
    net.add_readings(10);
    net.pass(120);
    assert_eq!(
        (net.delivered(), states(&net, UPLINK)[0]),
        (20, PathState::Active)
    );
    assert_eq!(failure(&net), Some(DirectFailure::NotReached));
    let stats = net.hosts[GATEWAY].node.direct_stats();
    assert_eq!(
        stats.failed[DirectFailure::Broken as usize],
        2,
        "uplink and inlet"
    );
    let before = stats.attempts;
    net.pass(3_600);
    let more = net.hosts[GATEWAY].node.direct_stats().attempts - before;
    assert!(
        (10..=30).contains(&more),
        "{more} attempts of two paths in an hour"
    );
    net.addresses.insert(at_collector(), COLLECTOR);
    silence(&mut net, GATEWAY, COLLECTOR, false);
    net.pass(600);
    assert!(is_up(&net, UPLINK) && is_up(&net, INLETS));
}

#[test]
fn nobody_is_told_anything_unless_the_file_says_so() {
    let mut net = net_with(10, |_, collector| {
        collector.collector = false;
        collector.outlets = false;
    });
    net.addresses.insert(at_collector(), COLLECTOR);
    net.pass(60);
    assert_eq!(failure(&net), Some(DirectFailure::NoAnswer));
    assert_eq!((net.dialled.len(), net.punched.len()), (0, 0));
    assert_eq!(net.hosts[COLLECTOR].node.direct_stats().answered, 0);
    // And addresses outside of what may be dialled are not.
    let mut net = net_with(10, |gateway, _| {
        gateway.ranges = vec![Range {
            first: "10.0.1.0".parse().unwrap(),
            last: "10.0.1.255".parse().unwrap(),
        }];
    });
    net.pass(60);
    assert_eq!(failure(&net), Some(DirectFailure::NoAddress));
    assert_eq!(net.dialled.len(), 0);
}

#[test]
fn another_node_at_the_address_is_not_taken_for_the_peer() {
    let mut net = net(10);
    let wrong = address("10.0.2.9:5002");
    net.addresses.insert(wrong, RELAY);
    let now = net.now;
    let collector = &mut net.hosts[COLLECTOR];
    collector
        .node
        .set_own_addresses(now, vec![wrong, at_collector()], &mut collector.buffers);
    net.pass(30);
    let failed = net.hosts[GATEWAY].node.direct_stats().failed;
    assert_eq!(failed[DirectFailure::NotThere as usize], 2, "uplink and inlet");
    assert_eq!(net.dialled[0], [wrong, at_collector()]);
    net.pass(60);
    assert!(is_up(&net, UPLINK) && is_up(&net, INLETS));
    assert_eq!(net.dialled.last().unwrap(), &[at_collector(), wrong]);
    assert_eq!(net.delivered(), 10);
}

#[test]
fn a_relay_says_where_links_come_from_and_peers_are_told_at_once_when_that_changes() {
    let mut net = net_with(10, |_, _| {});
    net.pass(3);
    assert_eq!(net.hosts[GATEWAY].node.direct_addresses(), [at_gateway()]);
    assert_eq!(failure(&net), Some(DirectFailure::NotReached));
    assert_eq!(net.punched[0], (COLLECTOR, vec![at_gateway()]));
    // The relay sees a router's address, behind which the collector is.
    let outside = address("203.0.113.7:61001");
    net.addresses.insert(outside, COLLECTOR);
    net.pass(4);
    let dialled = net.dialled.len();
    let connection = net.connection(RELAY, COLLECTOR);
    let now = net.now;
    let relay = &mut net.hosts[RELAY];
    relay
        .node
        .handle_address(now, connection, outside, &mut relay.buffers);
    net.pass(2);
    assert_eq!(
        net.hosts[COLLECTOR].node.direct_addresses(),
        [at_collector(), outside]
    );
    assert!(net.dialled.len() > dialled, "the back-off was cut short");
    net.pass(4);
    assert!(is_up(&net, UPLINK));
    // A relay that would lead peers to a machine that must not be reached is not believed.
    let connection = net.connection(RELAY, GATEWAY);
    let now = net.now;
    for bad in ["127.0.0.1:5001", "224.0.0.1:5001", "10.0.0.1:22"] {
        let relay = &mut net.hosts[RELAY];
        relay
            .node
            .handle_address(now, connection, address(bad), &mut relay.buffers);
        net.settle();
        assert_eq!(net.hosts[GATEWAY].node.direct_addresses(), [at_gateway()]);
    }
}

#[test]
fn who_asks_often_is_answered_now_and_then_and_what_nobody_asked_for_is_not_dialled() {
    let mut net = net(10);
    net.pass(20);
    let answered = net.hosts[COLLECTOR].node.direct_stats().answered;
    let dialled = net.dialled.len();
    let asked = |attempt| {
        let mut frames = Vec::new();
        Candidates {
            attempt,
            addresses: vec![address("10.0.1.7:5001")],
        }
        .put(&mut frames);
        frames
    };
    let channel = net.hosts[GATEWAY].channel(|used_for| matches!(used_for, Use::Uplink { .. }));
    for attempt in 1..100 {
        net.say(GATEWAY, channel, &asked(attempt));
        net.settle();
    }
    assert_eq!(net.hosts[COLLECTOR].node.direct_stats().answered, answered + 1);
    // A collector that answers what it was not asked, or says often that it has other addresses.
    let channel = net.hosts[COLLECTOR].channel(|used_for| matches!(used_for, Use::Gateway { .. }));
    for attempt in 0..100 {
        net.say(COLLECTOR, channel, &asked(attempt));
        net.settle();
    }
    assert_eq!(net.dialled.len(), dialled);
    let bad: u64 = net.hosts.iter().map(|host| host.node.stats().bad_frames).sum();
    assert_eq!(bad, 0);
    net.say(
        GATEWAY,
        channel_of(&net),
        &[crate::candidates::CANDIDATES, 0, 1, 9],
    );
    net.settle();
    assert_eq!(net.hosts[COLLECTOR].node.stats().bad_frames, 1);
}

fn channel_of(net: &Net) -> ChannelId {
    net.hosts[GATEWAY].channel(|used_for| matches!(used_for, Use::Uplink { .. }))
}
