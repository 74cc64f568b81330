//! Commands: once to one client, and gone with its connection.

use super::{
    super::command::CommandOutcome,
    options,
    world::{World, filter},
};
use crate::{
    broker::limits::Limits,
    exchange::Step,
    packet::{PacketIdentifier, Qos},
    reason::ReasonCode,
};

const ACKNOWLEDGED: CommandOutcome = CommandOutcome::Acknowledged { can_answer: true };

fn listener(qos: Qos, receive_maximum: u16) -> World {
    let mut world = World::new(Limits::default());
    world.attach_with(1, "c", |attach| {
        (attach.expiry_secs, attach.receive_maximum) = (600, receive_maximum);
    });
    world.subscribe(1, &[filter("d/command/#", options(qos))]);
    world.clear();
    world
}

fn sent(world: &mut World, connection: u64) -> PacketIdentifier {
    let deliveries = world.deliveries(connection);
    assert_eq!(deliveries.len(), 1);
    assert!(!deliveries[0].dup && !deliveries[0].retain);
    deliveries[0].packet_id.expect("at QoS 1")
}

#[test]
fn a_command_is_acknowledged_or_refused_by_its_device() {
    let mut world = listener(Qos::ExactlyOnce, 10);
    world.command(7, "d/command/valve", "open");
    let packet_id = sent(&mut world, 1);
    assert_eq!(world.outcomes(), []);
    world.acknowledge(1, Step::Acknowledged, packet_id);
    assert_eq!(world.outcomes(), [(7, ACKNOWLEDGED)]);
    // Once.
    world.acknowledge(1, Step::Acknowledged, packet_id);
    assert_eq!(world.outcomes(), []);
    world.command(8, "d/command/valve", "shut");
    let packet_id = sent(&mut world, 1);
    world.refuse(1, packet_id, ReasonCode::QuotaExceeded);
    let refused = CommandOutcome::Refused(ReasonCode::QuotaExceeded);
    assert_eq!(world.outcomes(), [(8, refused)]);
    world.command(9, "d/command/valve", "long");
    let packet_id = sent(&mut world, 1);
    // So the session says that it is larger than the client takes: it has not had it.
    world.refuse(1, packet_id, ReasonCode::PacketTooLarge);
    assert_eq!(world.outcomes(), [(9, CommandOutcome::NotSent)]);
}

#[test]
fn what_was_not_acknowledged_is_gone_with_the_connection() {
    let mut world = listener(Qos::AtLeastOnce, 10);
    world.command(7, "d/command/valve", "open");
    sent(&mut world, 1);
    world.detach(1);
    assert_eq!(world.outcomes(), [(7, CommandOutcome::Interrupted)]);
    world.attach(2, "c", 600);
    assert!(world.deliveries(2).is_empty(), "the session has no more of it");
    let mut world = world.crash();
    world.attach(3, "c", 600);
    assert!(world.deliveries(3).is_empty(), "nor has the store");
}

#[test]
fn a_subscription_at_qos_0_gets_it_without_acknowledgement() {
    let mut world = listener(Qos::AtMostOnce, 10);
    world.command(7, "d/command/valve", "open");
    assert_eq!(world.deliveries(1)[0].packet_id, None);
    assert_eq!(world.outcomes(), [(7, CommandOutcome::Sent)]);
    world.detach(1);
    assert_eq!(world.outcomes(), []);
}

#[test]
fn who_does_not_listen_gets_nothing() {
    let mut world = listener(Qos::AtLeastOnce, 10);
    world.attach_with(2, "other", |attach| attach.receive_maximum = 1);
    assert!(world.broker.is_reachable("d") && !world.broker.is_reachable("e"));
    world.command(7, "d/else", "open");
    assert_eq!(world.outcomes(), [(7, CommandOutcome::NotSent)]);
    world.detach(1);
    assert!(
        !world.broker.is_reachable("d"),
        "the other one has not subscribed"
    );
    world.command(8, "d/command/valve", "open");
    assert_eq!(world.outcomes(), [(8, CommandOutcome::NotSent)]);
    assert!(world.deliveries(1).is_empty() && world.deliveries(2).is_empty());
}

#[test]
fn commands_count_towards_the_receive_maximum() {
    let mut world = listener(Qos::AtLeastOnce, 1);
    world.attach(2, "p", 0);
    world.command(7, "d/command/valve", "open");
    let packet_id = sent(&mut world, 1);
    world.command(8, "d/command/valve", "shut");
    assert_eq!(world.outcomes(), [(8, CommandOutcome::NotSent)], "[MQTT-3.3.4-9]");
    world.publish(2, "d/command/by-others", "x", Qos::AtLeastOnce);
    assert!(world.deliveries(1).is_empty());
    world.acknowledge(1, Step::Acknowledged, packet_id);
    let next = sent(&mut world, 1);
    assert_ne!(next, packet_id);
}
