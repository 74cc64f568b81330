//! Relays that share their members.

use super::*;
use crate::relay::{Cluster, ClusterSettings, StoreEvent, StoreWrite};

/// Gateway 0 at relay 1, collector 4 at relay 3; relays 1, 2 and 3 joined to each other. The number of a node is its identity.
struct Fleet {
    net: Network,
    /// The gateway's link at its end, and at relay 1.
    uplink: (LinkId, LinkId),
    /// The collector's link at relay 3, and at its end.
    plant: (LinkId, LinkId),
    /// Links between relays: at the first and at the second.
    mesh: BTreeMap<(usize, usize), (LinkId, LinkId)>,
    revision: u64,
}

fn fleet() -> Fleet {
    let members = || vec![(0, rights(&[], &["plant"])), (4, rights(&["plant"], &[]))];
    let mut net = Network::new(vec![
        endpoint(),
        relay(members()),
        relay(members()),
        relay(members()),
        endpoint(),
    ]);
    for number in 1..=3_u8 {
        let others = (1..=3).filter(|other| *other != number).map(id).collect();
        let settings = ClusterSettings::new(id(number), others);
        let cluster = Cluster::new(net.now, &mut net.entropy, settings);
        net.nodes[usize::from(number)]
            .router
            .join_cluster(net.now, cluster);
    }
    let mut mesh = BTreeMap::new();
    for (a, b) in [(1, 2), (1, 3), (2, 3)] {
        let (at_a, at_b) = net.connect(a, b);
        let numbers = [a, b].map(|number| u8::try_from(number).expect("it is small"));
        net.nodes[a]
            .router
            .attach(at_a, id(numbers[1]))
            .expect("of the cluster");
        net.nodes[b]
            .router
            .attach(at_b, id(numbers[0]))
            .expect("of the cluster");
        mesh.insert((a, b), (at_a, at_b));
    }
    let uplink = net.connect(0, 1);
    net.nodes[1].router.attach(uplink.1, id(0)).expect("a member");
    let plant = net.connect(3, 4);
    net.nodes[3].router.attach(plant.0, id(4)).expect("a member");
    let now = net.now;
    net.nodes[3].register(now, plant.0, id(4), "plant");
    let mut fleet = Fleet {
        net,
        uplink,
        plant,
        mesh,
        revision: 0,
    };
    for relay in 1..=3 {
        for event in [StoreEvent::Begin, StoreEvent::Current] {
            fleet.net.nodes[relay].router.handle_store(now, &event);
        }
    }
    fleet.settle();
    fleet
}

impl Fleet {
    /// Has the store take what the relays write, and tell all of them.
    fn settle(&mut self) {
        let now = self.net.now;
        for writer in 1..=3 {
            while let Some(write) = self.net.nodes[writer].router.poll_store_write(now) {
                let (ticket, key, value) = match write {
                    StoreWrite::Put { ticket, key, value } => (ticket, key, Some(value)),
                    StoreWrite::Delete { ticket, key } => (ticket, key, None),
                    StoreWrite::Reread => panic!("every change is told"),
                };
                self.revision += 1;
                let revision = self.revision;
                let entry = StoreEvent::Entry { key, revision, value };
                for relay in 1..=3 {
                    self.net.nodes[relay].router.handle_store(now, &entry);
                }
                let result = Ok(revision);
                let written = StoreEvent::Written { ticket, result };
                self.net.nodes[writer].router.handle_store(now, &written);
            }
        }
    }

    /// Has the gateway begin a conversation with the collector, if the relays find a way.
    fn begin(&mut self) -> (FlowId, Option<FlowId>) {
        let now = self.net.now;
        let net = &mut self.net;
        let route = route("name:plant/service:uplink");
        let flow = net.nodes[0]
            .router
            .open(now, &mut net.entropy, self.uplink.0, &route);
        let flow = flow.expect("opened");
        net.nodes[0].send(now, flow, Class::Normal, b"one");
        net.run();
        let there = net.nodes[4].events().into_iter().find_map(|event| match event {
            Event::Accepted { flow, .. } => Some(flow),
            Event::Local { .. } | Event::Dropped(_) | Event::Lost { .. } | Event::LeaseExpired(_) => None,
        });
        (flow, there)
    }

    fn forwarded(&self, relay: usize) -> u64 {
        self.net.nodes[relay].router.stats().frames_forwarded.iter().sum()
    }

    fn dropped(&mut self, relay: usize) -> Vec<Event> {
        self.net.nodes[relay].events()
    }
}

#[test]
fn a_member_of_one_relay_converses_with_a_member_of_another() {
    let mut fleet = fleet();
    let (gateway, collector) = fleet.begin();
    let collector = collector.expect("it is found");
    let now = fleet.net.now;
    for round in 0..3 {
        fleet.net.nodes[4].send(now, collector, Class::Normal, b"back");
        fleet.net.run();
        assert_eq!(fleet.net.nodes[0].events().len(), 1, "round {round}");
        fleet.net.nodes[0].send(now, gateway, Class::Normal, b"on");
        fleet.net.run();
        assert_eq!(fleet.net.nodes[4].events().len(), 1, "round {round}");
    }
    assert_eq!(fleet.forwarded(2), 0, "the third relay is in nobody's way");
    assert_eq!(fleet.net.labels()[1], 2, "both directions go by labels");
}

#[test]
fn a_name_that_went_is_known_nowhere_and_one_without_a_link_is_no_way() {
    let mut fleet = fleet();
    let (at_1, _) = fleet.mesh[&(1, 3)];
    fleet.net.cut(1, at_1);
    assert_eq!(fleet.begin().1, None);
    let unknown = Event::Dropped(DropReason::UnknownName);
    assert_eq!(
        fleet.dropped(1),
        std::slice::from_ref(&unknown),
        "not over the second relay"
    );
    assert_eq!(fleet.forwarded(2), 0);

    let mut fleet = self::fleet();
    fleet.net.cut(3, fleet.plant.0);
    fleet.settle();
    assert_eq!(fleet.begin().1, None);
    assert_eq!(fleet.dropped(1), [unknown]);
}

#[test]
fn what_comes_from_a_relay_of_the_cluster_goes_to_no_other() {
    let mut fleet = fleet();
    let (at_1, at_2) = fleet.mesh[&(1, 2)];
    let head = |onward: &Route, back: &Route| {
        let head = RoutedHead {
            hop_limit: HopLimit::new(8).expect("at most 8"),
            offered: None,
            onward: onward.as_ref(),
            return_route: back.as_ref(),
        };
        let mut out = Vec::new();
        let mark = begin_routed(&mut out, Class::Normal, &head);
        out.push(b'x');
        finish_frame(&mut out, mark, FRAME_LEN_MAX).expect("short");
        out
    };
    let back = route("service:flow-00000000000000aa");
    let now = fleet.net.now;
    let onward = head(&route("name:plant/service:uplink"), &back);
    fleet.net.nodes[1].take(now, at_1, onward.clone());
    assert_eq!(fleet.dropped(1), [Event::Dropped(DropReason::UnknownName)]);
    // An answer that would go from relay to relay.
    fleet.net.nodes[2].take(now, at_2, onward);
    fleet.dropped(2);
    let (to_3, _) = fleet.mesh[&(1, 3)];
    let address = fleet.net.nodes[1]
        .router
        .links
        .get(to_3.0)
        .expect("it is up")
        .address;
    let answer =
        Route::new([Address::Link(address), Address::Service("flow-00000000000000aa")]).expect("a route");
    fleet.net.nodes[1].take(now, at_1, head(&answer, &back));
    assert_eq!(fleet.dropped(1), [Event::Dropped(DropReason::Loop)]);
}

#[test]
fn whom_a_member_may_reach_is_decided_at_its_own_relay() {
    let mut fleet = fleet();
    let policy = policy(vec![(0, rights(&[], &[])), (4, rights(&["plant"], &[]))]);
    let node = &mut fleet.net.nodes[1];
    node.router.set_relay(policy, &mut node.buffers);
    assert_eq!(fleet.begin().1, None);
    assert_eq!(fleet.dropped(1), [Event::Dropped(DropReason::NotAllowed)]);
    // The links between relays are none of the policy's.
    assert!(fleet.net.nodes[1].router.member(fleet.mesh[&(1, 3)].0).is_some());
}

#[test]
fn who_registered_last_is_reached_wherever_that_was() {
    let mut fleet = fleet();
    // The collector moves to relay 1, and its old link lingers.
    fleet.net.now = seconds(5);
    let (at_1, at_4) = fleet.net.connect(1, 4);
    fleet.net.nodes[1].router.attach(at_1, id(4)).expect("a member");
    let now = fleet.net.now;
    fleet.net.nodes[1].register(now, at_1, id(4), "plant");
    fleet.settle();
    let (_, there) = fleet.begin();
    assert_eq!(
        fleet.net.nodes[4].router.link_of(there.expect("found")),
        Some(at_4)
    );
    // And back.
    fleet.net.now = seconds(9);
    let (at_3, again) = fleet.net.connect(3, 4);
    fleet.net.nodes[3].router.attach(at_3, id(4)).expect("a member");
    let now = fleet.net.now;
    fleet.net.nodes[3].register(now, at_3, id(4), "plant");
    fleet.settle();
    // The name has been at relay 3 all the time, with its latest registration since now.
    let (_, there) = fleet.begin();
    assert_eq!(
        fleet.net.nodes[4].router.link_of(there.expect("found")),
        Some(again)
    );
}
