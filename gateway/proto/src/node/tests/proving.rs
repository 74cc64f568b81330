//! Seals on batches, from a gateway through a relay to the sinks of a collector.

use super::net::{COLLECTOR, GATEWAY, Net, RELAY};

/// A network whose gateway has a key for seals, good for `lifetime_secs`.
fn net(readings: usize, lifetime_secs: u64) -> Net {
    let mut net = Net::new(readings, |_, _, _| {});
    give_key(&mut net, lifetime_secs);
    net
}

fn give_key(net: &mut Net, lifetime_secs: u64) {
    let gateway = &mut net.hosts[GATEWAY];
    let key = gateway.signer.seal_key(&mut net.entropy, lifetime_secs);
    gateway.node.set_seal_key(net.now, key, &gateway.signer.history);
}

#[test]
fn every_reading_comes_in_a_batch_whose_seal_holds() {
    let mut net = net(5_000, 86_400);
    net.settle();
    net.pass(2);
    assert_eq!(net.delivered(), 5_000);
    let seals = &net.hosts[COLLECTOR].sink.1;
    assert_eq!((seals.proved[&0], seals.unsealed), (5_000, 0));
    assert_eq!(seals.history, net.hosts[GATEWAY].signer.history.to_bytes());
    assert!(net.hosts[GATEWAY].node.uplinks[0].key_seen);
}

#[test]
fn a_new_key_takes_over_and_is_shown_first() {
    let mut net = net(100, 86_400);
    net.pass(2);
    assert_eq!(net.delivered(), 100);
    give_key(&mut net, 86_400);
    assert!(!net.hosts[GATEWAY].node.uplinks[0].key_seen);
    net.add_readings(50);
    net.pass(2);
    assert_eq!(net.delivered(), 150);
    let seals = &net.hosts[COLLECTOR].sink.1;
    assert_eq!(seals.keys.len(), 2);
    assert_eq!((seals.proved[&0], seals.proved[&1], seals.unsealed), (100, 50, 0));
}

#[test]
fn records_that_were_lost_are_sealed_again() {
    let mut net = net(2_000, 86_400);
    net.settle();
    // What the relay sends on is lost for a while, the gateway goes back and cuts other batches.
    net.muted.insert((RELAY, COLLECTOR));
    net.add_readings(3_000);
    net.pass(3);
    net.muted.clear();
    net.pass(120);
    assert_eq!(net.delivered(), 5_000);
    let seals = &net.hosts[COLLECTOR].sink.1;
    assert_eq!((seals.proved[&0], seals.unsealed), (5_000, 0));
}

#[test]
fn nothing_is_sealed_with_a_key_that_is_not_vouched_for_any_more() {
    let mut net = net(10, 300);
    net.pass(2);
    net.pass(600);
    net.add_readings(10);
    net.pass(2);
    assert_eq!(net.delivered(), 20, "readings are delivered all the same");
    let seals = &net.hosts[COLLECTOR].sink.1;
    assert_eq!((seals.proved[&0], seals.unsealed), (10, 10));
}

#[test]
fn without_a_key_or_without_the_wish_batches_are_as_before() {
    let mut net = Net::new(10, |_, _, _| {});
    net.pass(2);
    assert_eq!((net.delivered(), net.hosts[COLLECTOR].sink.1.unsealed), (10, 10));
    let mut net = Net::new(10, |gateway, _, _| gateway.uplinks[0].verifiable = false);
    give_key(&mut net, 86_400);
    net.pass(2);
    assert_eq!((net.delivered(), net.hosts[COLLECTOR].sink.1.unsealed), (10, 10));
    assert!(net.hosts[COLLECTOR].sink.1.keys.is_empty());
}
