//! Two relays in a row: the gateway is attached to the first, the collector to the second.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::*,
    net::{COLLECTOR, GATEWAY, Host, Net, RELAY, Readings, Signer},
};
use crate::{
    portal::SessionState,
    relay::{MemberRights, NamePattern, RelaySettings},
};

/// The relay that the collector is attached to; [`RELAY`] dials it.
const SECOND: usize = 3;

fn patterns(names: &[&str]) -> Vec<NamePattern> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// What the relays allow.
struct Rights<'a> {
    /// What the gateway may reach at its relay.
    gateway: &'a [&'a str],
    /// What the first relay may reach at the second.
    relay: &'a [&'a str],
    /// What may be reached at the first from the second.
    back: &'a [&'a str],
}

const ALL: Rights<'static> = Rights {
    gateway: &["second"],
    relay: &["plant"],
    back: &["gate"],
};

/// A net whose gateway has 100 readings, and an outlet that the collector's inlet leads to.
fn net(rights: &Rights<'_>) -> Net {
    let second = Signer::new();
    let identifier = second.identifier();
    let mut ends = None;
    let mut net = Net::new(100, |gateway, relay, collector| {
        let to_second = |name: &str| NeighbourSettings {
            relay: Some(identifier),
            registrations: vec![RegistrationSettings {
                name: name.to_owned(),
            }],
            ..collector.neighbours[0].clone()
        };
        let uplink = &mut gateway.uplinks[0];
        let peer = uplink.collector;
        let own = *collector.collect.as_ref().unwrap().gateways.first().unwrap();
        ends = Some((peer, own));
        uplink.ways = vec![WaySettings {
            neighbour: 0,
            names: vec!["second".to_owned(), "plant".to_owned()],
        }];
        gateway.neighbours[0].registrations = vec![RegistrationSettings {
            name: "gate".to_owned(),
        }];
        gateway.portals = PortalSettings {
            outlets: Some(BTreeSet::from([peer])),
            sessions_max: 1,
            ..PortalSettings::default()
        };
        let mut neighbour = to_second("first");
        neighbour.forwarding = Some(ForwardingSettings {
            name: "second".to_owned(),
            reach: patterns(rights.back),
        });
        relay.neighbours = vec![neighbour];
        relay.relay.as_mut().unwrap().members = BTreeMap::from([(
            own,
            MemberRights {
                names: patterns(&["gate"]),
                reach: patterns(rights.gateway),
            },
        )]);
        collector.portals.peers = vec![PortalPeerSettings {
            peer: own,
            pq: gateway.uplinks[0].pq,
            live_proof: false,
            ways: vec![WaySettings {
                neighbour: 0,
                names: vec!["first".to_owned(), "gate".to_owned()],
            }],
        }];
        collector.neighbours = vec![to_second("plant")];
    });
    let (collector, gateway) = ends.unwrap();
    let rights_of = |hold: &[&str], reach: &[&str]| MemberRights {
        names: patterns(hold),
        reach: patterns(reach),
    };
    let mut settings = NodeSettings::new("second");
    settings.relay = Some(RelaySettings {
        members: BTreeMap::from([
            (
                net.hosts[RELAY].signer.identifier(),
                rights_of(&["first"], rights.relay),
            ),
            (collector, rights_of(&["plant"], &["first"])),
        ]),
        ..RelaySettings::default()
    });
    assert_ne!(gateway, collector);
    let local = second.local(&mut net.entropy);
    let node = Node::new(net.now, &mut net.entropy, settings, local);
    net.hosts.push(Host::new(node, second, Readings::default()));
    net.dials = BTreeMap::from([
        ((GATEWAY, 0), RELAY),
        ((RELAY, 0), SECOND),
        ((COLLECTOR, 0), SECOND),
    ]);
    net
}

fn inlet_state(net: &Net) -> SessionState {
    let mut portals = net.hosts[COLLECTOR].node.portals();
    portals.next().unwrap().session.state()
}

fn is_inlet_up(net: &Net) -> bool {
    matches!(inlet_state(net), SessionState::Up)
}

#[test]
fn readings_and_streams_cross_two_relays_in_both_directions() {
    let mut net = net(&ALL);
    net.pass(5);
    assert_eq!(net.delivered(), 100);
    assert_eq!(net.hosts[GATEWAY].released, 100);
    assert!(is_inlet_up(&net), "{:?}", inlet_state(&net));
    assert_eq!(net.hosts[SECOND].node.registered_names(), ["first", "plant"]);
    assert_eq!(net.hosts[RELAY].node.registered_names(), ["gate", "second"]);
    let neighbour = net.hosts[RELAY].node.neighbours().next().unwrap();
    assert!(neighbour.attached);
    let hidden = !net.tapped.windows(14).any(|window| window == b"secret reading");
    assert!(hidden, "the relays' links carry no plaintext");
}

#[test]
fn what_one_relay_does_not_allow_does_not_pass_both() {
    for (rights, delivered, up) in [
        (
            Rights {
                gateway: &["plant"],
                ..ALL
            },
            0,
            true,
        ),
        (
            Rights {
                relay: &["other"],
                ..ALL
            },
            0,
            true,
        ),
        (
            Rights {
                back: &["other"],
                ..ALL
            },
            100,
            false,
        ),
    ] {
        let mut net = net(&rights);
        net.pass(30);
        assert_eq!((net.delivered(), is_inlet_up(&net)), (delivered, up));
    }
}

#[test]
fn when_the_link_between_the_relays_goes_the_channels_do_and_come_back_with_it() {
    let mut net = net(&ALL);
    net.pass(5);
    let between = net.connection(RELAY, SECOND);
    net.disconnect(RELAY, between);
    net.add_readings(50);
    net.pass(30);
    assert_eq!(net.delivered(), 150);
    assert!(is_inlet_up(&net), "{:?}", inlet_state(&net));
    assert_eq!(net.hosts[GATEWAY].released, 150);
}

/// A net in which the gateway reaches the second relay by a link in a channel: there it is a member itself, and the first relay has
/// no right to anything.
fn carried_net(adjust: impl FnOnce(&mut NodeSettings)) -> Net {
    let second = Signer::new();
    let identifier = second.identifier();
    let mut ends = None;
    let mut net = Net::new(100, |gateway, relay, collector| {
        let to_second = |names: &[&str]| NeighbourSettings {
            relay: Some(identifier),
            registrations: names
                .iter()
                .map(|name| RegistrationSettings {
                    name: (*name).to_owned(),
                })
                .collect(),
            ..gateway.neighbours[0].clone()
        };
        let own = *collector.collect.as_ref().unwrap().gateways.first().unwrap();
        let uplink = &mut gateway.uplinks[0];
        let (peer, pq) = (uplink.collector, uplink.pq);
        ends = Some((peer, own));
        uplink.ways = vec![WaySettings::relayed(1, "plant")];
        gateway.portals.peers = vec![PortalPeerSettings {
            peer,
            pq,
            live_proof: false,
            ways: vec![WaySettings::relayed(1, "plant")],
        }];
        let mut from_first = to_second(&["first"]);
        from_first.forwarding = Some(ForwardingSettings {
            name: "second".to_owned(),
            reach: Vec::new(),
        });
        relay.neighbours = vec![from_first];
        relay.relay.as_mut().unwrap().members = BTreeMap::from([(
            own,
            MemberRights {
                names: Vec::new(),
                reach: patterns(&["second"]),
            },
        )]);
        collector.neighbours = vec![to_second(&["plant"])];
        collector.portals = PortalSettings {
            outlets: Some(BTreeSet::from([own])),
            sessions_max: 1,
            ..PortalSettings::default()
        };
        let carried = to_second(&["gate"]);
        gateway.neighbours.push(carried);
        gateway.carried = BTreeMap::from([(1, WaySettings::relayed(0, "second"))]);
        adjust(gateway);
    });
    let (collector, gateway) = ends.unwrap();
    let rights_of = |hold: &[&str], reach: &[&str]| MemberRights {
        names: patterns(hold),
        reach: patterns(reach),
    };
    let mut settings = NodeSettings::new("second");
    settings.relay = Some(RelaySettings {
        members: BTreeMap::from([
            (net.hosts[RELAY].signer.identifier(), rights_of(&["first"], &[])),
            (collector, rights_of(&["plant"], &[])),
            (gateway, rights_of(&["gate"], &["plant"])),
        ]),
        ..RelaySettings::default()
    });
    let local = second.local(&mut net.entropy);
    let node = Node::new(net.now, &mut net.entropy, settings, local);
    net.hosts.push(Host::new(node, second, Readings::default()));
    net.dials = BTreeMap::from([
        ((GATEWAY, 0), RELAY),
        ((RELAY, 0), SECOND),
        ((COLLECTOR, 0), SECOND),
    ]);
    net
}

/// Returns whether the gateway has a link to the second relay, and is attached there.
fn is_attached_behind(net: &Net) -> bool {
    let state = net.hosts[GATEWAY].node.neighbours().nth(1).unwrap().state;
    matches!(state, NeighbourState::Ready { .. })
}

#[test]
fn a_relay_behind_another_is_authenticated_and_the_one_before_learns_nothing() {
    let mut net = carried_net(|_| ());
    net.pass(5);
    assert!(is_attached_behind(&net));
    assert_eq!(net.delivered(), 100);
    assert_eq!(net.hosts[GATEWAY].released, 100);
    assert_eq!(
        net.hosts[SECOND].node.registered_names(),
        ["first", "gate", "plant"]
    );
    let gateway = net.hosts[GATEWAY].signer.identifier();
    let mut links = net.hosts[SECOND].node.connections();
    assert!(links.any(|link| link.member == Some(gateway)));
    // The names that the gateway asks the second relay for do not pass the first in clear.
    let seen = |name: &[u8]| net.tapped.windows(name.len()).any(|window| window == name);
    assert!(!seen(b"plant"), "the first relay reads whom the gateway talks to");
}

#[test]
fn a_relay_that_is_not_the_one_named_gets_no_link() {
    let stranger = Signer::new().identifier();
    let mut net = carried_net(|gateway| gateway.neighbours[1].relay = Some(stranger));
    net.pass(30);
    assert!(!is_attached_behind(&net));
    assert_eq!(net.delivered(), 0);
}

#[test]
fn a_carried_link_comes_back_with_what_it_lies_on() {
    let mut net = carried_net(|_| ());
    net.pass(5);
    for (from, to) in [(GATEWAY, RELAY), (RELAY, SECOND)] {
        let between = net.connection(from, to);
        net.disconnect(from, between);
        net.add_readings(50);
        net.pass(60);
        assert!(is_attached_behind(&net));
    }
    assert_eq!(net.delivered(), 200);
    assert_eq!(net.hosts[GATEWAY].released, 200);
    // Nothing is left of those that are gone.
    assert_eq!(net.hosts[GATEWAY].node.connections().count(), 2);
    assert_eq!(net.hosts[SECOND].node.connections().count(), 3);
}

#[test]
fn lost_records_are_lost_frames_and_no_more() {
    let mut net = carried_net(|_| ());
    // Whatever the first relay passes on to the second is lost for a while: Hello with it.
    net.muted.insert((RELAY, SECOND));
    net.pass(3);
    net.muted.clear();
    net.pass(60);
    net.add_readings(1000);
    net.muted.insert((SECOND, RELAY));
    net.pass(2);
    net.muted.clear();
    net.pass(60);
    assert_eq!(net.delivered(), 1100);
}

#[test]
fn streams_and_the_largest_readings_pass_a_carried_link() {
    use crate::portal::{Open, SessionEvent};

    let mut net = carried_net(|_| ());
    net.pass(5);
    let inlet = PortalKey::Inlet(0);
    let session = net.hosts[GATEWAY].node.portal(inlet).unwrap();
    let stream = session
        .open(Open {
            outlet: "plc",
            ..Open::default()
        })
        .unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.to_be_bytes()[2] ^ n.to_be_bytes()[3])
        .collect();
    let mut written = 0;
    for _ in 0..400 {
        net.pass_millis(50);
        let node = &mut net.hosts[COLLECTOR].node;
        while let Some((key, event)) = node.poll_portal_event() {
            if let SessionEvent::Requested { stream, .. } = event {
                node.portal(key).unwrap().accept(stream);
            }
        }
        let came = net.hosts[COLLECTOR].sink.2.clone();
        for ((key, stream), bytes) in came {
            let session = net.hosts[COLLECTOR].node.portal(key).unwrap();
            session.handle_consumed(stream, bytes.len());
        }
        let session = net.hosts[GATEWAY].node.portal(inlet).unwrap();
        written += session.write(stream, &bytes[written..]);
    }
    let came: Vec<&Vec<u8>> = net.hosts[COLLECTOR].sink.2.values().collect();
    assert_eq!(came.len(), 1);
    assert!(*came[0] == bytes, "{} of {}", came[0].len(), bytes.len());
    let gateway = &mut net.hosts[GATEWAY];
    gateway.journal.0.push(vec![7; 65_000]);
    gateway.journal.0.push(vec![8; 64_990]);
    gateway
        .node
        .handle_available(net.now, Class::Normal, 1, gateway.journal.0.len() as u64);
    net.pass(5);
    assert_eq!(net.delivered(), 102);
}
