//! Decisions about peers: permitted, refused, proven, kept waiting, guests.

use super::{super::*, fleet::*, net::*};
use crate::{
    channel::{CloseReason, Suite, put_frame},
    identity::Identifier,
    relay::{MemberRights, RegistrarFrame},
    route::{DropReason, MemberLinkError},
};

/// Decides as `standard` does, but about `peer` at a service not at all.
fn hesitating(net: &Net, peer: usize, service: Service) -> Policy {
    let (peer, standard) = (net.identifier(peer), standard(net.identifier(AUTHORITY)));
    Box::new(move |access| {
        if (access.peer, access.service) == (peer, service) {
            None
        } else {
            standard(access)
        }
    })
}

/// Refuses `peer` at a service.
fn refusing(net: &Net, peer: usize, service: Service) -> Policy {
    let (peer, standard) = (net.identifier(peer), standard(net.identifier(AUTHORITY)));
    Box::new(move |access| {
        if (access.peer, access.service) == (peer, service) {
            Some(Verdict::Refuse)
        } else {
            standard(access)
        }
    })
}

const fn permit() -> Verdict {
    Verdict::Permit {
        rights: MemberRights {
            names: Vec::new(),
            reach: Vec::new(),
        },
        guest: false,
    }
}

fn not_authorised(event: &Event) -> bool {
    matches!(event, Event::NotAuthorised { .. })
}

#[test]
fn who_is_refused_is_not_served() {
    let mut net = fleet(|_| {});
    net.hosts[COLLECTOR].policy = Some(refusing(&net, GATEWAY, Service::Uplink));
    net.pass(3);
    assert_eq!(net.delivered(), 0);
    assert!(net.hosts[COLLECTOR].count(not_authorised) > 0);
    let closed = CloseReason::Peer(CloseCode::NOT_AUTHORISED);
    let told = |event: &Event| matches!(event, Event::ChannelLost { reason, .. } if *reason == closed);
    assert!(net.hosts[GATEWAY].count(told) > 0);
    net.hosts[COLLECTOR].policy = Some(standard(net.identifier(AUTHORITY)));
    net.pass(10);
    assert_eq!(net.delivered(), 100);
}

#[test]
fn what_decides_is_told_what_is_known() {
    let mut net = fleet(|_| {});
    net.pass(3);
    let gateway = net.identifier(GATEWAY);
    let asked = |host: usize| {
        net.hosts[host]
            .asked
            .iter()
            .find(|access| access.peer == gateway)
            .unwrap()
    };
    for (host, direct, service) in [
        (RELAY, true, Service::Registrar),
        (COLLECTOR, false, Service::Uplink),
        (AUTHORITY, false, Service::Authority),
    ] {
        let access = asked(host);
        assert_eq!(access.service, service);
        let facts = ChannelFacts {
            post_quantum: true,
            direct,
            live_proof: false,
        };
        assert_eq!(access.facts, facts);
        let (credential, _) = access.credential.as_ref().unwrap();
        assert_eq!(
            (credential.subject, credential.name.as_str()),
            (gateway, "gateway")
        );
    }
}

#[test]
fn a_demanded_proof_is_given_and_decided_upon() {
    let mut net = fleet(|_| {});
    for host in [RELAY, COLLECTOR, AUTHORITY] {
        net.hosts[host].policy = Some(proving(net.identifier(AUTHORITY)));
    }
    net.pass(3);
    assert_eq!(net.delivered(), 100);
    let gateway = net.identifier(GATEWAY);
    for host in [RELAY, COLLECTOR, AUTHORITY] {
        let asked: Vec<bool> = net.hosts[host]
            .asked
            .iter()
            .filter(|access| access.peer == gateway)
            .map(|access| access.facts.live_proof)
            .collect();
        assert_eq!(asked, [false, true], "host {host}");
    }
    assert_eq!(net.hosts[COLLECTOR].node.channel_stats().proofs_verified, 1);
}

#[test]
fn nothing_is_served_before_the_proof_and_the_channel_ends_without_one() {
    let mut net = fleet(|_| {});
    net.hosts[GATEWAY].signs = false;
    net.hosts[COLLECTOR].policy = Some(proving(net.identifier(AUTHORITY)));
    net.pass(28);
    assert_eq!(net.delivered(), 0);
    let waits = |net: &Net| net.hosts[COLLECTOR].node.accesses.waiting().0;
    assert_eq!(waits(&net), 1);
    assert_eq!(net.hosts[COLLECTOR].node.channel_stats().proofs_refused, 0);
    net.pass(5);
    assert_eq!(net.hosts[COLLECTOR].node.channel_stats().proofs_refused, 1);
    assert_eq!(net.delivered(), 0);
    // The token is there again; what waited for it is answered, so that the next demand can be.
    net.hosts[GATEWAY].signs = true;
    for output in std::mem::take(&mut net.hosts[GATEWAY].outputs) {
        if let Output::Sign { channel, .. } = output {
            let (now, gateway) = (net.now, &mut net.hosts[GATEWAY]);
            gateway
                .node
                .handle_signature(now, &mut net.entropy, channel, None, &mut gateway.buffers);
        }
    }
    net.pass(15);
    assert_eq!(net.delivered(), 100);
    assert_eq!(waits(&net), 0);
}

#[test]
fn a_token_that_does_not_sign_ends_the_channel_at_once() {
    let mut net = fleet(|_| {});
    net.hosts[GATEWAY].signs = false;
    net.hosts[COLLECTOR].policy = Some(proving(net.identifier(AUTHORITY)));
    net.pass(2);
    let signs = std::mem::take(&mut net.hosts[GATEWAY].outputs);
    let Some(Output::Sign { channel, .. }) = signs.first() else {
        panic!("a signature is asked for: {signs:?}");
    };
    let (now, gateway) = (net.now, &mut net.hosts[GATEWAY]);
    gateway
        .node
        .handle_signature(now, &mut net.entropy, *channel, None, &mut gateway.buffers);
    net.settle();
    let unsigned = |event: &Event| {
        matches!(
            event,
            Event::ChannelLost {
                reason: CloseReason::Unsigned,
                ..
            }
        )
    };
    assert_eq!(net.hosts[GATEWAY].count(unsigned), 1);
    assert_eq!(net.hosts[COLLECTOR].node.accesses.waiting().0, 0);
}

#[test]
fn whoever_has_proven_and_is_to_prove_again_is_refused() {
    let mut net = fleet(|_| {});
    let (gateway, standard) = (net.identifier(GATEWAY), standard(net.identifier(AUTHORITY)));
    net.hosts[COLLECTOR].policy = Some(Box::new(move |access| {
        if access.peer == gateway {
            Some(Verdict::Prove)
        } else {
            standard(access)
        }
    }));
    net.pass(2);
    assert!(net.hosts[COLLECTOR].count(not_authorised) > 0);
    assert_eq!(net.hosts[COLLECTOR].node.accesses.waiting().0, 0);
    assert_eq!(net.delivered(), 0);
}

/// Has the gateway say something to the relay's registrar.
fn register(net: &mut Net, frames: &[RegistrarFrame<'_>]) {
    let channel = net.hosts[GATEWAY].channel(|used_for| matches!(used_for, Use::Registrar { .. }));
    for frame in frames {
        let mut bytes = Vec::new();
        frame.put(&mut bytes);
        net.say(GATEWAY, channel, &bytes);
    }
    net.settle();
}

/// Permits what the relay has not decided about the gateway, with the right to hold anything.
fn permit_everything(net: &mut Net) {
    let gateway = net.identifier(GATEWAY);
    let now = net.now;
    let relay = &mut net.hosts[RELAY];
    let mut asked = relay.asked.iter().rev();
    let attempt = asked.find(|access| access.peer == gateway).unwrap().attempt;
    let verdict = Verdict::Permit {
        rights: MemberRights {
            names: vec!["*".parse().unwrap()],
            reach: vec!["*".parse().unwrap()],
        },
        guest: false,
    };
    relay.decide(now, &mut net.entropy, attempt, verdict);
    net.settle();
}

#[test]
fn what_was_said_before_the_verdict_is_dealt_with_in_order() {
    let mut net = fleet(|_| {});
    net.hosts[RELAY].policy = Some(hesitating(&net, GATEWAY, Service::Registrar));
    net.settle();
    let frames = [
        RegistrarFrame::Register {
            request: 1,
            name: "a",
        },
        RegistrarFrame::Unregister { name: "a" },
        RegistrarFrame::Register {
            request: 2,
            name: "b",
        },
    ];
    register(&mut net, &frames);
    assert_eq!(net.hosts[RELAY].node.registered_names(), ["authority", "plant"]);
    permit_everything(&mut net);
    assert_eq!(
        net.hosts[RELAY].node.registered_names(),
        ["authority", "b", "plant"]
    );
    assert_eq!(net.hosts[RELAY].node.accesses.waiting(), (0, 0, 0));
    net.pass(20);
    assert_eq!(net.delivered(), 100);
}

#[test]
fn sixteen_frames_of_a_channel_are_kept() {
    let mut net = fleet(|_| {});
    net.hosts[RELAY].policy = Some(hesitating(&net, GATEWAY, Service::Registrar));
    net.settle();
    // One has been said: which list the gateway has.
    let names: Vec<String> = (0..40).map(|n| format!("name-{n:02}")).collect();
    let frames: Vec<RegistrarFrame<'_>> = names
        .iter()
        .map(|name| RegistrarFrame::Register { request: 1, name })
        .collect();
    register(&mut net, &frames);
    assert_eq!(net.hosts[RELAY].node.stats().frames_unkept, 25);
    permit_everything(&mut net);
    let registered = net.hosts[RELAY].node.registered_names();
    let kept: Vec<&String> = registered
        .iter()
        .filter(|name| name.starts_with("name-"))
        .collect();
    assert_eq!(kept, names.iter().take(15).collect::<Vec<_>>());
}

#[test]
fn a_verdict_for_what_is_gone_changes_nothing() {
    let mut net = fleet(|_| {});
    net.hosts[COLLECTOR].policy = Some(hesitating(&net, GATEWAY, Service::Uplink));
    net.pass(2);
    let gateway = net.identifier(GATEWAY);
    let attempt = |net: &Net| {
        let mut asked = net.hosts[COLLECTOR].asked.iter().rev();
        asked.find(|access| access.peer == gateway).unwrap().attempt
    };
    let gone = attempt(&net);
    let relay = net.connection(GATEWAY, RELAY);
    net.disconnect(GATEWAY, relay);
    net.settle();
    assert_eq!(net.hosts[COLLECTOR].node.accesses.waiting(), (0, 0, 0));
    net.pass(5);
    let newer = attempt(&net);
    assert_ne!(gone, newer);
    let now = net.now;
    for attempt in [gone, newer + 1, 0] {
        net.hosts[COLLECTOR].decide(now, &mut net.entropy, attempt, permit());
    }
    net.pass(1);
    assert_eq!(net.delivered(), 0);
    net.hosts[COLLECTOR].decide(now, &mut net.entropy, newer, permit());
    // It counts once.
    net.hosts[COLLECTOR].decide(now, &mut net.entropy, newer, Verdict::Refuse);
    net.pass(2);
    assert_eq!(net.delivered(), 100);
}

#[test]
fn a_verdict_from_before_another_credential_does_not_count() {
    let mut net = fleet(|plan| plan.credential_secs = 600);
    net.hosts[COLLECTOR].policy = Some(hesitating(&net, GATEWAY, Service::Uplink));
    net.pass(310);
    let gateway = net.identifier(GATEWAY);
    let asked: Vec<(u64, u64)> = net.hosts[COLLECTOR]
        .asked
        .iter()
        .filter(|access| access.peer == gateway)
        .map(|access| (access.attempt, access.credential.as_ref().unwrap().0.serial))
        .collect();
    let [(first, serial), (second, newer)] = asked.as_slice() else {
        panic!("it was asked with each credential: {asked:?}");
    };
    assert!(newer > serial);
    assert_eq!(net.hosts[COLLECTOR].node.accesses.waiting().0, 1);
    let now = net.now;
    net.hosts[COLLECTOR].decide(now, &mut net.entropy, *first, permit());
    net.pass(40);
    assert_eq!(net.delivered(), 0);
    net.hosts[COLLECTOR].decide(now, &mut net.entropy, *second, permit());
    net.pass(40);
    assert_eq!(net.delivered(), 100);
}

/// Makes up a channel whose peer is known; it is in no table of the channels themselves.
fn made_up(net: &mut Net, host: usize, number: u32, used_for: Use) -> ChannelId {
    let (channel, now) = (ChannelId::from_wire(number), net.now);
    let mut peer = [0; 32];
    peer[..4].copy_from_slice(&number.to_be_bytes());
    let node = &mut net.hosts[host].node;
    let flow = FlowId::from_number(u64::MAX);
    node.by_channel.insert(channel, ChannelEntry { used_for, flow });
    assert!(node.meet(now, channel, Identifier::from_bytes(peer), SUITE, &[]));
    channel
}

const SUITE: Suite = Suite::ClassicalAes256Gcm;
const NEW: Use = Use::Unknown {
    service: Service::Uplink,
};

#[test]
fn a_thousand_wait_and_the_next_is_refused() {
    let mut net = fleet(|_| {});
    let channels: Vec<ChannelId> = (0..1_024).map(|n| made_up(&mut net, COLLECTOR, n, NEW)).collect();
    let (now, collector) = (net.now, &mut net.hosts[COLLECTOR]);
    for channel in &channels {
        collector
            .node
            .authorise(now, *channel, Service::Uplink, &mut collector.buffers);
    }
    while collector.node.poll_output().is_some() {}
    assert_eq!(collector.node.accesses.waiting().0, 1_024);
    net.pass(2);
    assert_eq!(net.delivered(), 0);
    assert_eq!(net.hosts[COLLECTOR].node.accesses.waiting().0, 1_024);
    assert!(net.hosts[COLLECTOR].count(not_authorised) > 0);
    for channel in channels {
        net.hosts[COLLECTOR].node.by_channel.remove(&channel);
        net.hosts[COLLECTOR].node.forget_access(channel);
    }
    net.pass(10);
    assert_eq!(net.delivered(), 100);
}

#[test]
fn four_mebibytes_of_frames_are_kept() {
    let mut net = fleet(|_| {});
    let channels: Vec<ChannelId> = (0..70).map(|n| made_up(&mut net, COLLECTOR, n, NEW)).collect();
    let (now, collector) = (net.now, &mut net.hosts[COLLECTOR]);
    let body = vec![7; 60_000];
    for channel in &channels {
        collector
            .node
            .authorise(now, *channel, Service::Uplink, &mut collector.buffers);
        for _ in 0..2 {
            assert!(collector.node.keep_frame(*channel, 0x22, &body));
        }
    }
    let (_, _, bytes) = collector.node.accesses.waiting();
    assert!((4 << 20) - body.len() < bytes && bytes <= 4 << 20, "{bytes}");
    assert_eq!(
        collector.node.stats().frames_unkept,
        140 - (bytes / body.len()) as u64
    );
    for channel in channels {
        collector.node.forget_access(channel);
    }
    assert_eq!(collector.node.accesses.waiting(), (0, 0, 0));
    assert!(!collector.node.keep_frame(ChannelId::from_wire(1), 0x22, &body));
}

#[test]
fn another_policy_is_asked_about_everybody_and_closes_nobody_for_want_of_room() {
    let mut net = fleet(|_| {});
    for n in 0..3_000 {
        made_up(&mut net, AUTHORITY, n, Use::Asker);
    }
    let (now, authority) = (net.now, &mut net.hosts[AUTHORITY]);
    authority.node.authorise_all_again(now, &mut authority.buffers);
    let mut asked = BTreeSet::new();
    loop {
        let mut attempts = Vec::new();
        while let Some(output) = authority.node.poll_output() {
            if let Output::Authorise(access) = output {
                assert!(asked.insert(access.peer), "each once");
                attempts.push(access.attempt);
            }
        }
        if attempts.is_empty() {
            break;
        }
        assert!(
            authority.node.accesses.waiting().0 <= 512,
            "room is left for newcomers"
        );
        for attempt in attempts {
            authority.decide(now, &mut net.entropy, attempt, permit());
        }
    }
    assert_eq!(asked.len(), 3_000);
    assert_eq!(authority.node.accesses.waiting(), (0, 0, 0));
    assert_eq!(authority.node.stats().unauthorised, 0);
}

#[test]
fn another_policy_ends_what_it_does_not_permit() {
    let mut net = fleet(|_| {});
    net.pass(3);
    let (gateway, relay) = (
        net.identifier(GATEWAY),
        net.hosts[RELAY].channel_with(net.identifier(GATEWAY)),
    );
    assert!(net.hosts[COLLECTOR].channel_with(gateway).is_some());
    net.hosts[COLLECTOR].policy = Some(refusing(&net, GATEWAY, Service::Uplink));
    for host in [RELAY, COLLECTOR] {
        let (now, host) = (net.now, &mut net.hosts[host]);
        host.node.authorise_all_again(now, &mut host.buffers);
    }
    net.settle();
    assert!(net.hosts[COLLECTOR].count(not_authorised) > 0);
    assert_eq!(
        net.hosts[RELAY].channel_with(gateway),
        relay,
        "nothing changed there"
    );
}

fn stranger() -> Net {
    fleet(|plan| {
        plan.strangers.insert(GATEWAY);
        plan.settings[GATEWAY].neighbours[0].registrations = vec![RegistrationSettings {
            name: "mine".to_owned(),
        }];
    })
}

#[test]
fn a_guest_reaches_open_names_only_and_registers_nothing() {
    let mut net = stranger();
    net.pass(30);
    assert_eq!(net.view(GATEWAY).state, AuthorityState::Up, "the open name");
    assert_eq!(net.delivered(), 0);
    let relay = &net.hosts[RELAY].node;
    assert!(relay.router_stats().dropped(DropReason::NotAllowed) > 0);
    assert_eq!(relay.registered_names(), ["authority", "plant"]);
    let refused = |event: &Event| matches!(event, Event::RegistrationRefused { .. });
    assert!(net.hosts[GATEWAY].count(refused) > 0);
}

#[test]
fn a_guest_has_to_go_after_a_minute_whatever_it_presents() {
    let mut net = stranger();
    net.settle();
    let link = net.connection(GATEWAY, RELAY);
    for _ in 0..59 {
        let channel = net.hosts[GATEWAY].channel(|used_for| matches!(used_for, Use::Registrar { .. }));
        let mut nothing = Vec::new();
        put_frame(&mut nothing, 0x07, &[]);
        net.say(GATEWAY, channel, &nothing);
        net.pass(1);
    }
    assert_eq!(net.connection(GATEWAY, RELAY), link);
    assert!(
        net.hosts[RELAY].asked.len() > 30,
        "it was decided again and again"
    );
    net.pass(2);
    assert_ne!(
        net.connection(GATEWAY, RELAY),
        link,
        "the link was closed, and is dialled again"
    );
    let up = |event: &Event| matches!(event, Event::LinkUp { .. });
    assert_eq!(net.hosts[GATEWAY].count(up), 2);
}

#[test]
fn guests_are_limited() {
    let mut net = fleet(|plan| {
        plan.strangers.extend([GATEWAY, COLLECTOR]);
        plan.settings[RELAY].guests_max = 1;
    });
    net.pass(5);
    let attached = |event: &Event| matches!(event, Event::MemberAttached { .. });
    // The authority, and one of the two.
    assert_eq!(net.hosts[RELAY].count(attached), 2);
    assert!(net.hosts[RELAY].count(not_authorised) > 0);
}

#[test]
fn a_link_of_one_leaves_no_rights_for_others() {
    let mut net = fleet(|_| {});
    net.pass(2);
    let (gateway, now) = (net.identifier(GATEWAY), net.now);
    let relay = &mut net.hosts[RELAY];
    let flow = relay.node.by_channel[&relay.channel_with(gateway).unwrap()].flow;
    // Somebody else, over the gateway's link.
    let other = Identifier::from_bytes([9; 32]);
    let channel = ChannelId::from_wire(77);
    let used_for = Use::Unknown {
        service: Service::Registrar,
    };
    relay
        .node
        .by_channel
        .insert(channel, ChannelEntry { used_for, flow });
    assert!(relay.node.meet(now, channel, other, SUITE, &[]));
    relay
        .node
        .authorise(now, channel, Service::Registrar, &mut relay.buffers);
    let refused = relay.node.stats().unauthorised;
    net.settle();
    let relay = &mut net.hosts[RELAY];
    assert!(relay.asked.iter().any(|access| access.peer == other));
    assert_eq!(relay.node.stats().unauthorised, refused + 1);
    let free = relay
        .node
        .ready_link(0)
        .expect("the link to the authority is nobody's");
    assert_eq!(
        relay.node.router.attach(free, other),
        Err(MemberLinkError::NotAMember)
    );
}
