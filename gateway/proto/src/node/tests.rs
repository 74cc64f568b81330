//! Whole nodes talking over in-memory connections: gateway, relay, collector, authority.

mod access;
mod chain;
mod commands;
mod direct;
mod drain;
mod failover;
mod fleet;
mod flood;
mod net;
mod portals;
mod proving;
mod trust;

use std::time::Duration;

use net::{COLLECTOR, GATEWAY, Net, RELAY, lanes};

use super::*;
use crate::{delivery::PerLane, identity::Identifier};

#[test]
fn readings_cross_the_relay_and_are_released() {
    let mut net = Net::new(5_000, |_, _, _| {});
    net.settle();
    net.pass(2);
    assert_eq!(
        net.delivered(),
        5_000,
        "{:?}",
        net.hosts.iter().map(|host| &host.events).collect::<Vec<_>>()
    );
    assert_eq!(net.hosts[COLLECTOR].sink.0[4_999], b"secret reading 4999");
    assert_eq!(net.hosts[GATEWAY].released, 5_000);
    let via = net.hosts[COLLECTOR].node.sources().next().unwrap().info.neighbour;
    assert_eq!(via, Some(0), "the collector knows that it came by its relay");
    assert_eq!(net.hosts[RELAY].node.registered_names(), ["plant"]);
    let hidden = !net.tapped.windows(14).any(|window| window == b"secret reading");
    assert!(hidden, "the relay's links carry no plaintext");
    // 5,000 readings of up to 19 bytes: a few records, 8 bytes of link header each, one byte of length per reading.
    let overhead = net.tapped.len() - 5_000 * 19;
    assert!(overhead < 5_000 * 4, "{overhead} bytes beside the readings");
}

#[test]
fn a_gateway_that_is_no_member_reaches_nobody() {
    let mut net = Net::new(10, |_, relay, _| {
        let settings = relay.relay.as_mut().unwrap();
        settings.members.retain(|_, rights| !rights.names.is_empty());
    });
    net.pass(30);
    assert_eq!(net.delivered(), 0);
    assert!(net.hosts[RELAY].events.iter().any(|event| matches!(
        event,
        Event::NotAuthorised {
            service: "registrar",
            ..
        }
    )));
    assert!(net.hosts[RELAY].node.stats().unauthorised > 0);
}

#[test]
fn a_gateway_the_collector_does_not_know_delivers_nothing() {
    let mut net = Net::new(10, |_, _, collector| {
        collector.collect.as_mut().unwrap().gateways.clear()
    });
    net.pass(30);
    assert_eq!(net.delivered(), 0);
    let refused = |event: &Event| {
        matches!(
            event,
            Event::NotAuthorised {
                service: "uplink",
                ..
            }
        )
    };
    assert!(net.hosts[COLLECTOR].events.iter().any(refused));
}

#[test]
fn a_member_reaches_only_the_names_it_may() {
    let mut net = Net::new(10, |_, relay, _| {
        for rights in relay.relay.as_mut().unwrap().members.values_mut() {
            rights.reach.clear();
        }
    });
    net.pass(30);
    assert_eq!(net.delivered(), 0);
    let dropped = net.hosts[RELAY]
        .node
        .router_stats()
        .dropped(crate::route::DropReason::NotAllowed);
    assert!(dropped > 0, "the relay dropped the handshake");
}

#[test]
fn a_collector_with_another_identity_gets_nothing() {
    let mut net = Net::new(10, |gateway, _, _| {
        gateway.uplinks[0].collector = Identifier::from_bytes([9; 32]);
    });
    net.pass(60);
    assert_eq!(net.delivered(), 0);
    assert_eq!(
        net.hosts[COLLECTOR].node.channel_stats().established,
        1,
        "only its own with the relay"
    );
    assert!(net.hosts[COLLECTOR].node.channel_stats().wrong_mac1 > 0);
}

#[test]
fn delivery_goes_on_after_each_link_was_cut() {
    let mut net = Net::new(300, |gateway, _, _| gateway.uplinks[0].lanes = lanes(100));
    net.pass(2);
    assert_eq!(net.delivered(), 100);
    for (round, host) in [(2, GATEWAY), (3, COLLECTOR)] {
        let key = net.pipes.keys().find(|(index, _)| *index == host).unwrap().1;
        net.disconnect(host, key);
        let available = round * 100;
        net.hosts[GATEWAY]
            .node
            .handle_available(net.now, Class::Normal, 1, available);
        net.pass(10);
        assert_eq!(
            net.delivered() as u64,
            available,
            "after the link of host {host} was cut"
        );
        assert_eq!(net.hosts[GATEWAY].released, available);
    }
}

#[test]
fn a_relay_that_changes_bits_stops_delivery_and_changes_nothing() {
    let mut net = Net::new(100, |gateway, _, _| gateway.uplinks[0].lanes = lanes(10));
    net.pass(2);
    assert_eq!(net.delivered(), 10);
    // Flips a bit in the last byte of whatever leaves the relay: payloads of Data frames, for records the tag.
    net.tamper = Some(|bytes| {
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
    });
    net.hosts[GATEWAY]
        .node
        .handle_available(net.now, Class::Normal, 1, 100);
    net.pass(20);
    assert_eq!(net.delivered(), 10, "a forged record is not taken");
    assert!(net.hosts[COLLECTOR].node.channel_stats().records_forged > 0);
    net.tamper = None;
    net.pass(60);
    assert_eq!(
        net.delivered(),
        100,
        "and what was meant to come comes when the relay behaves"
    );
}

#[test]
fn a_link_that_sends_garbage_is_closed_and_others_go_on() {
    let mut net = Net::new(100, |_, _, _| {});
    net.settle();
    let relay = &mut net.hosts[RELAY];
    let key = ConnectionKey(999);
    relay.buffers.0.insert(key, Vec::new());
    relay
        .node
        .handle_connected(net.now, key, None, &mut relay.buffers);
    relay.node.handle_bytes(
        net.now,
        &mut net.entropy,
        key,
        &mut b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        &mut relay.buffers,
        &mut NoSink,
    );
    let closed = std::iter::from_fn(|| relay.node.poll_output())
        .any(|output| output == Output::CloseConnection { connection: key });
    assert!(closed);
    net.pass(2);
    assert_eq!(net.delivered(), 100);
}

/// A journal whose disk is slow.
struct Slow;

impl RecordSource for Slow {
    fn copy_records(&mut self, _: Class, _: u64, _: usize, _: u64, _: &mut Vec<u8>) -> Copied {
        Copied::NotYet
    }
}

#[test]
fn a_connection_that_is_gone_before_it_is_noted_is_dialled_again() {
    let mut net = Net::new(5, |_, _, _| {});
    let gateway = &mut net.hosts[GATEWAY];
    gateway
        .node
        .handle_timeout(net.now, &mut net.entropy, &mut gateway.buffers);
    assert_eq!(gateway.node.poll_output(), Some(Output::Dial { neighbour: 0 }));
    // It came up and went down within one turn, so there is no buffer any more.
    let key = ConnectionKey(999);
    gateway
        .node
        .handle_connected(net.now, key, Some(0), &mut gateway.buffers);
    gateway
        .node
        .handle_disconnected(net.now, &mut net.entropy, key, &mut gateway.buffers);
    net.pass(5);
    assert_eq!(net.delivered(), 5);
}

#[test]
fn readings_that_wait_for_the_disk_leave_no_deadline_in_the_past() {
    let mut net = Net::new(100, |gateway, _, _| {
        gateway.uplinks[0].lanes = lanes(10);
        gateway.uplinks[0].latency = Duration::from_millis(2);
    });
    net.pass(5);
    assert_eq!(net.delivered(), 10);
    net.hosts[GATEWAY]
        .node
        .handle_available(net.now, Class::Normal, 1, 100);
    let gateway = &mut net.hosts[GATEWAY];
    for millis in [0, 2, 4] {
        let mut now = net.now;
        now.instant = now.instant + Duration::from_millis(millis);
        gateway
            .node
            .handle_timeout(now, &mut net.entropy, &mut gateway.buffers);
        gateway
            .node
            .flush(now, &mut net.entropy, &mut gateway.buffers, Some(&mut Slow));
        let deadline = gateway.node.poll_timeout().unwrap();
        assert!(
            deadline > now.instant,
            "it would turn without end: {deadline} at {}",
            now.instant
        );
    }
    net.pass(2);
    assert_eq!(net.delivered(), 100, "they go once the disk is there");
}

/// A journal whose alarms have to be read from a slow disk.
struct AlarmsOnDisk<'a>(&'a mut net::Readings);

impl RecordSource for AlarmsOnDisk<'_> {
    fn copy_records(
        &mut self,
        lane: Class,
        from: u64,
        bytes_max: usize,
        count_max: u64,
        out: &mut Vec<u8>,
    ) -> Copied {
        match lane {
            Class::Alarm => Copied::NotYet,
            Class::Normal | Class::Bulk => self.0.copy_records(lane, from, bytes_max, count_max, out),
        }
    }
}

#[test]
fn readings_leave_the_way_to_alarms_that_are_read_from_disk_for_a_moment() {
    let mut net = Net::new(100, |gateway, _, _| gateway.uplinks[0].lanes = lanes(10));
    net.pass(5);
    assert_eq!(net.delivered(), 10);
    let gateway = &mut net.hosts[GATEWAY];
    gateway.node.handle_available(net.now, Class::Alarm, 1, 1);
    gateway.node.handle_available(net.now, Class::Normal, 1, 100);
    for (millis, sent) in [(0, 10), (100, 10), (249, 10), (250, 100), (260, 100)] {
        let mut now = net.now;
        now.instant = now.instant + Duration::from_millis(millis);
        gateway
            .node
            .handle_timeout(now, &mut net.entropy, &mut gateway.buffers);
        let mut journal = AlarmsOnDisk(&mut gateway.journal);
        gateway
            .node
            .flush(now, &mut net.entropy, &mut gateway.buffers, Some(&mut journal));
        let uplink = gateway.node.uplinks().next().unwrap();
        let stats = uplink.lanes.map(|lane| lane.stats.sent);
        assert_eq!(stats.0, [0, sent, 0], "after {millis} ms");
        assert!(
            gateway.node.poll_timeout().is_none_or(|at| at > now.instant),
            "it would turn without end"
        );
    }
}

#[test]
fn readings_that_are_owed_their_share_wait_for_no_disk() {
    let mut net = Net::new(0, |_, _, _| {});
    let uplink = &mut net.hosts[GATEWAY].node.uplinks[0];
    let (now, alarms) = (Instant::START, PerLane([true, false, false]));
    uplink.handle_absent(now, Class::Alarm);
    assert!(uplink.yields(Class::Normal, &alarms) && uplink.yields(Class::Bulk, &alarms));
    assert!(!uplink.yields(Class::Alarm, &alarms));
    // In this turn nobody asked for alarms before them.
    assert!(!uplink.yields(Class::Normal, &PerLane::default()));
    uplink.handle_present(Class::Alarm);
    assert!(!uplink.yields(Class::Normal, &alarms), "the disk has been read");
}
