//! Trust in whole networks (PROTOCOL.md §5.2, §10, §11).

mod credentials;
mod lists;
mod requests;
mod time;

use super::{super::*, fleet::*, net::*};

#[test]
fn members_serve_each_other_on_their_credentials() {
    let mut net = fleet(|_| {});
    net.pass(3);
    let events: Vec<_> = net.hosts.iter().map(|host| &host.events).collect();
    assert_eq!(net.delivered(), 100, "{events:#?}");
    assert_eq!(net.lists(), [1, 1, 1, 1]);
    assert_eq!(net.view(GATEWAY).state, AuthorityState::Up);
    let bad: Vec<u64> = net
        .hosts
        .iter()
        .map(|host| host.node.stats().bad_frames)
        .collect();
    assert_eq!(bad, [0; 4]);
}

#[test]
fn nothing_goes_to_a_collector_before_its_live_proof() {
    let mut net = fleet(|plan| plan.settings[GATEWAY].uplinks[0].live_proof = true);
    net.hosts[COLLECTOR].signs = false;
    net.pass(20);
    let uplink = |net: &Net| net.hosts[GATEWAY].node.uplinks().next().unwrap();
    assert_eq!(
        (uplink(&net).state, sent(&uplink(&net))),
        (UplinkState::Connecting, 0)
    );
    assert!(
        net.hosts[COLLECTOR].node.sources().next().is_none(),
        "no journal was offered"
    );
    // The token comes back in time.
    let mut outputs = std::mem::take(&mut net.hosts[COLLECTOR].outputs).into_iter();
    let Some(Output::Sign { channel, message }) = outputs.next() else {
        panic!("a signature is asked for");
    };
    let (now, collector) = (net.now, &mut net.hosts[COLLECTOR]);
    let signature = sign(&collector.signer.key, &message);
    collector.node.handle_signature(
        now,
        &mut net.entropy,
        channel,
        Some(signature),
        &mut collector.buffers,
    );
    net.pass(2);
    assert_eq!(net.delivered(), 100);
    assert_eq!(net.hosts[GATEWAY].node.channel_stats().proofs_verified, 1);
}

#[test]
fn a_collector_whose_proof_never_comes_gets_nothing() {
    let mut net = fleet(|plan| plan.settings[GATEWAY].uplinks[0].live_proof = true);
    net.hosts[COLLECTOR].signs = false;
    net.pass(120);
    assert_eq!(net.delivered(), 0);
    let gateway = &net.hosts[GATEWAY];
    assert!(gateway.node.channel_stats().proofs_refused >= 2, "it tries again");
    assert_eq!(sent(&gateway.node.uplinks().next().unwrap()), 0);
    assert_eq!(gateway.count(|event| matches!(event, Event::UplinkUp { .. })), 0);
}

/// Returns how many readings an uplink has sent, over all lanes.
fn sent(uplink: &UplinkView) -> u64 {
    uplink.lanes.0.iter().map(|lane| lane.stats.sent).sum()
}

/// Has a host demand a live proof of everybody it reaches itself.
fn demand_of_all(net: &mut Net, host: usize) {
    let now = net.now_at(host);
    let host = &mut net.hosts[host];
    let peers = host.node.own_peers();
    assert!(!peers.is_empty());
    host.node.set_proof_demands(now, peers);
}

#[test]
fn a_relay_is_not_used_before_its_live_proof() {
    let mut net = fleet(|_| {});
    demand_of_all(&mut net, GATEWAY);
    net.hosts[RELAY].signs = false;
    net.pass(20);
    let state = net.hosts[GATEWAY].node.neighbours().next().unwrap().state;
    assert!(matches!(state, NeighbourState::Attaching { .. }), "{state:?}");
    assert_eq!(net.delivered(), 0);
    assert_eq!(net.view(GATEWAY).list_number, 0, "nor is its word taken");
    // A token that is away for longer than a proof is waited for.
    net.pass(20);
    net.hosts[RELAY].signs = true;
    net.pass(60);
    assert_eq!(net.delivered(), 100);
    assert_eq!(net.view(GATEWAY).state, AuthorityState::Up);
}

#[test]
fn both_ends_may_demand_a_live_proof() {
    let mut net = fleet(|_| {});
    let authority = net.identifier(AUTHORITY);
    for host in [GATEWAY, COLLECTOR, AUTHORITY] {
        demand_of_all(&mut net, host);
    }
    for host in 0..4 {
        net.hosts[host].policy = Some(proving(authority));
    }
    net.pass(5);
    assert_eq!(net.delivered(), 100);
    assert_eq!(net.lists(), [1, 1, 1, 1]);
    assert_eq!(net.view(GATEWAY).state, AuthorityState::Up);
}

#[test]
fn a_demand_that_comes_later_concerns_the_channels_that_are_open() {
    let mut net = fleet(|_| {});
    net.pass(3);
    let is_registrar = |used_for| matches!(used_for, Use::Registrar { .. });
    let channel = net.hosts[GATEWAY].channel(is_registrar);
    demand_of_all(&mut net, GATEWAY);
    net.pass(40);
    assert_eq!(
        net.hosts[GATEWAY].channel(is_registrar),
        channel,
        "it was proven in it"
    );
    // Another time nobody proves anything.
    let mut net = fleet(|_| {});
    net.pass(3);
    let channel = net.hosts[GATEWAY].channel(is_registrar);
    net.hosts[RELAY].signs = false;
    demand_of_all(&mut net, GATEWAY);
    net.pass(40);
    let known = &net.hosts[GATEWAY].node.known;
    assert!(!known.contains_key(&channel), "it has ended");
}

#[test]
fn a_node_knows_whom_it_reaches_itself() {
    let net = fleet(|_| {});
    let peers = |host: usize| net.hosts[host].node.own_peers();
    assert_eq!(
        peers(GATEWAY),
        [
            (Service::Registrar, net.identifier(RELAY)),
            (Service::Uplink, net.identifier(COLLECTOR)),
            (Service::Authority, net.identifier(AUTHORITY)),
        ]
    );
    assert_eq!(peers(AUTHORITY), [(Service::Registrar, net.identifier(RELAY))]);
}
