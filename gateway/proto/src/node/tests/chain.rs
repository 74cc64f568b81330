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
