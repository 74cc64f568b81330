//! Streams from the gateway to an outlet of the collector, over the relay.

use std::collections::BTreeSet;

use super::{
    super::*,
    net::{COLLECTOR, GATEWAY, Net, RELAY},
};
use crate::portal::{Open, ResetReason, SessionEvent, SessionState, StreamId};

const INLET: PortalKey = PortalKey::Inlet(0);
const OUTLET: PortalKey = PortalKey::Outlet(0);

/// A network whose collector has outlets, for whom `listed` names.
fn net_for(listed: impl Fn(Identifier) -> BTreeSet<Identifier>) -> Net {
    let mut net = Net::new(0, |gateway, _, collector| {
        let uplink = &gateway.uplinks[0];
        gateway.portals.peers = vec![PortalPeerSettings {
            peer: uplink.collector,
            pq: uplink.pq,
            live_proof: false,
            ways: uplink.ways.clone(),
        }];
        let gateways = &collector.collect.as_ref().unwrap().gateways;
        collector.portals = PortalSettings {
            outlets: Some(listed(*gateways.first().unwrap())),
            sessions_max: 4,
            ..PortalSettings::default()
        };
    });
    net.pass(2);
    net
}

fn net() -> Net {
    net_for(|gateway| BTreeSet::from([gateway]))
}

/// Lets time pass, accepts what is asked for, and passes on what came. Returns what happened at the gateway.
fn run(net: &mut Net, turns: usize) -> Vec<SessionEvent> {
    let mut events = Vec::new();
    for _ in 0..turns {
        net.pass(1);
        let collector = &mut net.hosts[COLLECTOR].node;
        while let Some((key, event)) = collector.poll_portal_event() {
            if let SessionEvent::Requested { stream, outlet, .. } = event {
                let session = collector.portal(key).unwrap();
                match outlet.as_str() {
                    "plc" => session.accept(stream),
                    _ => session.reset(stream, ResetReason::NotAllowed),
                }
            }
        }
        let gateway = &mut net.hosts[GATEWAY].node;
        events.extend(std::iter::from_fn(|| gateway.poll_portal_event()).map(|(_, event)| event));
    }
    events
}

/// Asks for a stream from the gateway's inlet to an outlet.
pub(super) fn open(net: &mut Net, outlet: &str) -> StreamId {
    let session = net.hosts[GATEWAY].node.portal(INLET).unwrap();
    let open = Open {
        outlet,
        origin: "10.0.0.7:4711",
        ..Open::default()
    };
    session.open(open).unwrap()
}

fn came(net: &Net, host: usize, key: PortalKey, stream: StreamId) -> usize {
    net.hosts[host].sink.2.get(&(key, stream)).map_or(0, Vec::len)
}

#[test]
fn a_stream_crosses_the_relay_and_nobody_there_reads_it() {
    let mut net = net();
    let stream = open(&mut net, "plc");
    assert_eq!(run(&mut net, 2), [SessionEvent::Opened { stream }]);
    let secret = b"the valve opens at noon".repeat(1_000);
    let session = net.hosts[GATEWAY].node.portal(INLET).unwrap();
    assert_eq!(session.write(stream, &secret), secret.len());
    session.finish(stream);
    run(&mut net, 2);
    assert_eq!(net.hosts[COLLECTOR].sink.2[&(OUTLET, stream)], secret);
    let hidden = !net.tapped.windows(9).any(|window| window == b"the valve");
    assert!(hidden, "the relay's links carry no plaintext");
    // The answer, and the end.
    let session = net.hosts[COLLECTOR].node.portal(OUTLET).unwrap();
    session.handle_consumed(stream, secret.len());
    assert_eq!(session.write(stream, b"it does"), 7);
    session.finish(stream);
    assert_eq!(run(&mut net, 2), [SessionEvent::Finished { stream }]);
    let session = net.hosts[GATEWAY].node.portal(INLET).unwrap();
    session.handle_consumed(stream, 7);
    assert_eq!(run(&mut net, 1), [SessionEvent::Over { stream }]);
    assert_eq!(net.hosts[GATEWAY].sink.2[&(INLET, stream)], b"it does");
    assert!(net.hosts[RELAY].sink.2.is_empty());
    for host in [GATEWAY, COLLECTOR] {
        let view = net.hosts[host].node.portals().next().unwrap();
        assert_eq!((view.session.streams().len(), view.session.bytes_kept()), (0, 0));
    }
}

#[test]
fn whoever_decides_is_told_whose_streams_they_are() {
    let mut net = net();
    open(&mut net, "plc");
    run(&mut net, 2);
    let now = net.now;
    let gateway = net.hosts[GATEWAY].node.portals().next().unwrap();
    assert_eq!(
        net.hosts[GATEWAY].node.portal_access(now, gateway.key),
        None,
        "it is its own"
    );
    let seen = net.hosts[COLLECTOR].node.portals().next().unwrap();
    let access = net.hosts[COLLECTOR].node.portal_access(now, OUTLET).unwrap();
    assert_eq!(access.peer, seen.peer);
    assert!(access.facts.post_quantum && !access.facts.direct && !access.facts.live_proof);
    // Nobody decides about a node that is not there.
    let key = net.pipes.keys().find(|(index, _)| *index == COLLECTOR).unwrap().1;
    net.disconnect(COLLECTOR, key);
    assert_eq!(net.hosts[COLLECTOR].node.portal_access(now, OUTLET), None);
}

#[test]
fn an_outlet_that_is_not_there_is_refused() {
    let mut net = net();
    let stream = open(&mut net, "door");
    let reason = ResetReason::NotAllowed;
    assert_eq!(run(&mut net, 2), [SessionEvent::Reset { stream, reason }]);
}

#[test]
fn a_node_that_is_not_listed_gets_no_channel() {
    let mut net = net_for(|_| BTreeSet::new());
    net.pass(20);
    let refused = |event: &Event| {
        matches!(
            event,
            Event::NotAuthorised {
                service: "portal",
                ..
            }
        )
    };
    assert!(net.hosts[COLLECTOR].events.iter().any(refused));
    let view = net.hosts[GATEWAY].node.portals().next().unwrap();
    assert!(matches!(view.session.state(), SessionState::Down { .. }));
    assert_eq!(net.hosts[COLLECTOR].node.portals().count(), 0);
}

#[test]
fn a_node_that_inlets_lead_to_may_come_and_go() {
    let mut net = net();
    let gateway = &mut net.hosts[GATEWAY].node;
    let settings = gateway.portals.peer_settings(0).unwrap().clone();
    gateway.leave_portal_peer(0);
    assert_eq!(gateway.portals().count(), 0);
    assert!(!gateway.own_peers().contains(&(Service::Portal, settings.peer)));
    run(&mut net, 10);
    let gateway = &mut net.hosts[GATEWAY].node;
    assert!(gateway.portals.inlets[0].channel.is_none());
    assert!(matches!(
        gateway.portal(INLET).unwrap().state(),
        SessionState::Down { .. }
    ));
    // Nothing is tried, so nothing is waited for but the end of the session.
    let of_session = gateway.portal(INLET).unwrap().poll_timeout();
    assert_eq!(gateway.portals.poll_timeout(), of_session);

    let now = net.now_at(GATEWAY).instant;
    let gateway = &mut net.hosts[GATEWAY].node;
    assert_eq!(gateway.add_portal_peer(now, settings.clone()), Some(0));
    assert_eq!(gateway.add_portal_peer(now, settings), Some(0), "it is there");
    run(&mut net, 10);
    let stream = open(&mut net, "plc");
    let events = run(&mut net, 3);
    assert_eq!(events, [SessionEvent::Opened { stream }]);

    // Without outlets nobody new is let in.
    net.hosts[COLLECTOR].node.set_portal_outlets(None);
    let key = net.pipes.keys().find(|(index, _)| *index == GATEWAY).unwrap().1;
    net.disconnect(GATEWAY, key);
    run(&mut net, 15);
    let session = net.hosts[GATEWAY].node.portal(INLET).unwrap();
    assert!(matches!(session.state(), SessionState::Down { .. }));
}

#[test]
fn streams_go_on_after_each_link_was_cut() {
    let mut net = net();
    let stream = open(&mut net, "plc");
    run(&mut net, 2);
    let mut total = 0;
    for host in [GATEWAY, COLLECTOR, GATEWAY] {
        let session = net.hosts[GATEWAY].node.portal(INLET).unwrap();
        total += session.write(stream, &[7; 100_000]);
        let key = net.pipes.keys().find(|(index, _)| *index == host).unwrap().1;
        net.disconnect(host, key);
        // What is said meanwhile waits for the next channel.
        let session = net.hosts[GATEWAY].node.portal(INLET).unwrap();
        total += session.write(stream, &[8; 50_000]);
        let events = run(&mut net, 15);
        assert_eq!(events, [], "the stream notices nothing");
        assert_eq!(came(&net, COLLECTOR, OUTLET, stream), total);
        let session = net.hosts[COLLECTOR].node.portal(OUTLET).unwrap();
        session.handle_consumed(stream, 150_000);
        run(&mut net, 1);
    }
    assert_eq!(total, 450_000);
    let view = net.hosts[GATEWAY].node.portals().next().unwrap();
    let stats = view.session.stats();
    assert_eq!((stats.lost, stats.resumed), (0, 3), "{stats:?}");
    let happened = |event: &Event| matches!(event, Event::PortalDown { .. });
    assert_eq!(
        net.hosts[GATEWAY]
            .events
            .iter()
            .filter(|event| happened(event))
            .count(),
        3
    );
}

#[test]
fn a_relay_that_loses_records_stops_no_stream() {
    let mut net = net();
    let stream = open(&mut net, "plc");
    run(&mut net, 2);
    // The last record of each piece arrives damaged, so it counts as lost, until the relay behaves.
    net.tamper = Some(|bytes| {
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
    });
    let session = net.hosts[GATEWAY].node.portal(INLET).unwrap();
    assert_eq!(session.write(stream, &[7; 200_000]), 200_000);
    run(&mut net, 3);
    assert!(came(&net, COLLECTOR, OUTLET, stream) < 200_000);
    net.tamper = None;
    run(&mut net, 40);
    assert_eq!(came(&net, COLLECTOR, OUTLET, stream), 200_000);
    let view = net.hosts[GATEWAY].node.portals().next().unwrap();
    assert!(view.session.stats().went_back > 0);
}
