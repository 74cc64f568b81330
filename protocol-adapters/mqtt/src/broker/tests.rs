//! The broker alone: what outlives connections and crashes, and its bounds.

mod command;
mod world;

use std::time::Duration;

pub(crate) use self::world::message;
use self::world::{Said, World, filter};
use super::limits::{Limits, SlowConsumer};
use crate::{
    exchange::{Step, SubscriptionOptions},
    packet::Qos,
    reason::ReasonCode,
    session::end::Termination,
};

fn options(qos: Qos) -> SubscriptionOptions {
    SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    }
}

#[test]
fn the_lower_of_both_qualities_counts() {
    for published in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for wanted in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let mut world = World::new(Limits::default());
            world.attach(1, "s", 0);
            world.subscribe(1, &[filter("a/+", options(wanted))]);
            world.attach(2, "p", 0);
            world.publish(2, "a/b", "x", published);
            let deliveries = world.deliveries(1);
            assert_eq!(deliveries.len(), 1);
            assert_eq!(deliveries[0].qos, published.min(wanted), "[MQTT-3.8.4-8]");
            assert_eq!(
                deliveries[0].packet_id.is_some(),
                deliveries[0].qos != Qos::AtMostOnce
            );
        }
    }
}

#[test]
fn overlapping_subscriptions_bring_one_copy_of_the_highest_quality() {
    let mut world = World::new(Limits::default());
    world.attach(1, "s", 0);
    let with_identifier = |qos, identifier| SubscriptionOptions {
        identifier: Some(crate::property::SubscriptionIdentifier(identifier)),
        ..options(qos)
    };
    world.subscribe(1, &[filter("a/#", with_identifier(Qos::AtMostOnce, 3))]);
    world.subscribe(1, &[filter("a/+", with_identifier(Qos::ExactlyOnce, 4))]);
    world.subscribe(1, &[filter("$share/g/a/b", with_identifier(Qos::AtLeastOnce, 5))]);
    world.attach(2, "p", 0);
    world.publish(2, "a/b", "x", Qos::ExactlyOnce);
    let mut seen: Vec<(Qos, Vec<u32>)> = world
        .deliveries(1)
        .into_iter()
        .map(|delivery| (delivery.qos, delivery.identifiers.iter().map(|id| id.0).collect()))
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [(Qos::AtLeastOnce, vec![5]), (Qos::ExactlyOnce, vec![3, 4])],
        "[MQTT-3.3.5-1], [MQTT-3.3.4-4]; the shared subscription is one of its own"
    );
}

#[test]
fn no_local_leaves_out_the_clients_own_messages() {
    let mut world = World::new(Limits::default());
    world.attach(1, "s", 0);
    let no_local = SubscriptionOptions {
        no_local: true,
        ..options(Qos::AtMostOnce)
    };
    world.subscribe(1, &[filter("a", no_local)]);
    world.publish(1, "a", "own", Qos::AtMostOnce);
    assert!(world.deliveries(1).is_empty(), "[MQTT-3.8.3-3]");
    world.attach(2, "p", 0);
    world.publish(2, "a", "other", Qos::AtMostOnce);
    assert_eq!(world.deliveries(1).len(), 1);
}

#[test]
fn the_receive_maximum_of_a_client_is_kept() {
    let mut world = World::new(Limits::default());
    world.attach_with(1, "s", |attach| attach.receive_maximum = 2);
    world.subscribe(1, &[filter("#", options(Qos::ExactlyOnce))]);
    world.attach(2, "p", 0);
    for payload in ["1", "2", "3", "4"] {
        world.publish(2, "a", payload, Qos::ExactlyOnce);
    }
    let first = world.deliveries(1);
    assert_eq!(first.len(), 2, "[MQTT-3.3.4-9]");
    let packet_id = first[0].packet_id.expect("above QoS 0");
    world.acknowledge(1, Step::Received, packet_id);
    assert_eq!(world.said(1), [Said::Release(packet_id.get(), true)]);
    world.acknowledge(1, Step::Completed, packet_id);
    assert_eq!(world.payloads(1), ["3"], "PUBCOMP makes room, PUBREC does not");
}

#[test]
fn what_was_not_acknowledged_comes_again_in_its_order_with_its_identifiers() {
    let mut world = World::new(Limits::default());
    world.attach(1, "s", 60);
    world.subscribe(1, &[filter("#", options(Qos::ExactlyOnce))]);
    world.attach(2, "p", 0);
    for (payload, qos) in [("1", 1), ("2", 2), ("3", 2), ("4", 1)] {
        world.publish(2, "a", payload, Qos::from_code(qos).expect("1 or 2"));
    }
    let first = world.deliveries(1);
    let ids: Vec<_> = first.iter().filter_map(|delivery| delivery.packet_id).collect();
    assert_eq!(ids.len(), 4);
    world.acknowledge(1, Step::Acknowledged, ids[0]);
    world.acknowledge(1, Step::Received, ids[1]);
    world.clear();
    world.detach(1);
    world.publish(2, "a", "5", Qos::AtLeastOnce);
    world.attach(3, "s", 60);
    let said = world.said(3);
    assert_eq!(
        said,
        [
            Said::Attached(true),
            Said::Release(ids[1].get(), true),
            Said::Deliver("3".into(), 2, ids[2].get(), true),
            Said::Deliver("4".into(), 1, ids[3].get(), true),
            Said::Deliver("5".into(), 1, ids[3].get() + 1, false),
        ],
        "[MQTT-4.4.0-1], [MQTT-4.6.0-1]"
    );
}

#[test]
fn everything_that_was_stored_is_there_after_a_crash_at_any_batch() {
    // The store fails to take anything after `batches`.
    for batches in 0..12 {
        let mut world = World::new(Limits::default());
        world.store_at_most(batches);
        world.attach(1, "s", 600);
        world.subscribe(1, &[filter("a/#", options(Qos::ExactlyOnce))]);
        world.attach(2, "p", 600);
        let mut acknowledged = Vec::new();
        for (payload, qos) in [("1", 1), ("2", 2), ("3", 1)] {
            if world.publish(2, "a/b", payload, Qos::from_code(qos).expect("1 or 2")) {
                acknowledged.push(payload.to_owned());
            }
        }
        world.publish_retained(2, "r", "kept", Qos::AtLeastOnce);
        let retained_is_due = world.is_stored();
        let mut world = world.crash();
        world.attach(3, "s", 600);
        let said = world.said(3);
        let payloads: Vec<String> = said
            .iter()
            .filter_map(|said| {
                if let Said::Deliver(payload, ..) = said {
                    Some(payload.clone())
                } else {
                    None
                }
            })
            .collect();
        for payload in &acknowledged {
            assert!(
                payloads.contains(payload),
                "{batches}: {payload} was acknowledged: {said:?}"
            );
        }
        if retained_is_due {
            world.subscribe(3, &[filter("r", options(Qos::AtLeastOnce))]);
            assert_eq!(world.payloads(3), ["kept"], "{batches}");
        }
    }
}

#[test]
fn an_acknowledgement_of_another_quality_ends_the_connection_and_the_message_stays() {
    for (qos, steps) in [
        (Qos::AtLeastOnce, &[Step::Received][..]),
        (Qos::AtLeastOnce, &[Step::Completed]),
        (Qos::ExactlyOnce, &[Step::Acknowledged]),
        (Qos::ExactlyOnce, &[Step::Completed]),
        (Qos::ExactlyOnce, &[Step::Received, Step::Acknowledged]),
    ] {
        let mut world = World::new(Limits::default());
        let attach = |world: &mut World, connection| {
            world.attach_with(connection, "s", |attach| attach.expiry_secs = 60);
        };
        attach(&mut world, 1);
        world.subscribe(1, &[filter("a", options(qos))]);
        world.attach(2, "p", 0);
        world.publish(2, "a", "x", qos);
        let packet_id = world.deliveries(1)[0].packet_id.expect("above QoS 0");
        for step in steps {
            world.acknowledge(1, *step, packet_id);
        }
        assert_eq!(
            world.said(1).last(),
            Some(&Said::Closed(Termination::WrongAcknowledgement)),
            "{qos:?} {steps:?}"
        );
        world.detach(1);
        attach(&mut world, 3);
        let again = world.said(3);
        assert!(
            matches!(
                &again[..],
                [Said::Attached(true), Said::Deliver(..) | Said::Release(..)]
            ),
            "{qos:?} {steps:?}: {again:?}"
        );
        // An acknowledgement of what is not under way is late, and harms nobody.
        world.attach(4, "late", 0);
        world.clear();
        world.acknowledge(4, Step::Acknowledged, packet_id);
        world.acknowledge(4, Step::Completed, packet_id);
        assert_eq!(world.said(4), []);
    }
}

#[test]
fn a_message_at_qos_2_is_neither_sent_nor_released_before_that_is_stored() {
    let mut world = World::new(Limits::default());
    world.attach(1, "s", 600);
    world.subscribe(1, &[filter("a", options(Qos::ExactlyOnce))]);
    world.attach(2, "p", 0);
    world.store_at_most(0);
    world.publish(2, "a", "x", Qos::ExactlyOnce);
    assert!(world.deliveries(1).is_empty());
    world.store_at_most(usize::MAX);
    let [delivery] = &world.deliveries(1)[..] else {
        panic!("stored, so sent")
    };
    let packet_id = delivery.packet_id.expect("above QoS 0");
    world.store_at_most(0);
    world.acknowledge(1, Step::Received, packet_id);
    assert!(world.said(1).is_empty());
    world.store_at_most(usize::MAX);
    assert_eq!(world.said(1), [Said::Release(packet_id.get(), true)]);
}

#[test]
fn received_identifiers_survive_a_crash_until_they_are_released() {
    let mut world = World::new(Limits::default());
    world.attach(1, "p", 600);
    world.publish_kept(1, "a", "x", 7);
    let mut world = world.crash();
    world.attach(2, "p", 600);
    assert_eq!(world.received(2), [7]);
    world.release(2, 7);
    assert_eq!(world.said(2), [Said::Completed(7)]);
    let mut world = world.crash();
    world.attach(3, "p", 600);
    assert!(world.received(3).is_empty());
}

#[test]
fn a_slow_client_is_disconnected_and_nobody_else_waits() {
    let limits = Limits {
        queue_messages_max: 3,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    world.attach_with(1, "slow", |attach| {
        (attach.receive_maximum, attach.expiry_secs) = (1, 60);
    });
    world.attach(2, "fast", 0);
    for connection in [1, 2] {
        world.subscribe(connection, &[filter("#", options(Qos::AtLeastOnce))]);
    }
    world.attach(3, "p", 0);
    world.clear();
    for payload in ["1", "2", "3", "4", "5"] {
        world.publish(3, "a", payload, Qos::AtLeastOnce);
        for delivery in world.deliveries(2) {
            world.acknowledge(2, Step::Acknowledged, delivery.packet_id.expect("above QoS 0"));
        }
    }
    let said = world.said(1);
    assert!(
        matches!(
            &said[..],
            [Said::Deliver(..), Said::Closed(Termination::QuotaExceeded)]
        ),
        "{said:?}"
    );
    world.detach(1);
    // Its session has what fitted.
    world.attach_with(4, "slow", |attach| attach.expiry_secs = 60);
    assert_eq!(world.payloads(4), ["1", "2", "3"]);
    assert_eq!(world.broker.counters().dropped_queue_full, 2);
    assert_eq!(world.broker.counters().slow_consumers, 1);
    let limits = Limits {
        queue_bytes_max: 1,
        slow_consumer: SlowConsumer::Drop,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    world.attach(1, "slow", 0);
    world.subscribe(1, &[filter("#", options(Qos::AtLeastOnce))]);
    world.clear();
    world.publish(1, "a", "x", Qos::AtLeastOnce);
    assert!(world.said(1).is_empty());
    assert_eq!(world.broker.counters().dropped_queue_full, 1);
}

#[test]
fn sessions_and_subscriptions_are_bounded() {
    let limits = Limits {
        sessions_max: 2,
        subscriptions_max: 1,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    world.attach(1, "a", 0);
    world.attach(2, "b", 0);
    world.attach_quietly(3, "c", 0);
    assert_eq!(world.said(3), [Said::Refused(ReasonCode::QuotaExceeded)]);
    world.detach(1);
    world.attach(4, "c", 0);
    let deep = vec!["x"; super::FILTER_LEVELS_MAX + 1].join("/");
    assert_eq!(
        world.subscribe(
            4,
            &[
                filter("a", options(Qos::AtMostOnce)),
                filter("b", options(Qos::AtMostOnce))
            ]
        ),
        [ReasonCode::Success, ReasonCode::QuotaExceeded]
    );
    assert_eq!(
        world.subscribe(2, &[filter(&deep, options(Qos::AtMostOnce))]),
        [ReasonCode::QuotaExceeded]
    );
    // The same again is no other.
    assert_eq!(
        world.subscribe(4, &[filter("a", options(Qos::AtLeastOnce))]),
        [ReasonCode::GrantedQos1]
    );
}

#[test]
fn a_successor_waits_for_the_last_word_of_the_older_connection() {
    let mut world = World::new(Limits::default());
    world.attach(1, "s", 60);
    world.subscribe(1, &[filter("a", options(Qos::AtLeastOnce))]);
    world.clear();
    world.attach_quietly(2, "s", 60);
    assert_eq!(world.said(1), [Said::Closed(Termination::TakenOver)]);
    assert!(world.said(2).is_empty());
    // What the older one still had under way is taken.
    world.publish(1, "a", "late", Qos::AtLeastOnce);
    assert!(world.said(1).is_empty(), "it is not spoken to any more");
    world.attach_quietly(3, "s", 60);
    assert_eq!(world.said(2), [Said::Closed(Termination::TakenOver)]);
    world.detach(2);
    world.detach(1);
    let said = world.said(3);
    assert_eq!(said[0], Said::Attached(true));
    assert!(matches!(&said[1], Said::Deliver(payload, ..) if payload == "late"));
    assert_eq!(world.broker.counters().connected, 1);
}

#[test]
fn a_session_ends_when_its_time_is_over() {
    let mut world = World::new(Limits::default());
    world.attach(1, "s", 10);
    world.subscribe(1, &[filter("a", options(Qos::AtLeastOnce))]);
    world.detach(1);
    world.advance(Duration::from_millis(9_999));
    assert_eq!(world.broker.counters().sessions, 1);
    let mut world = world.crash();
    assert_eq!(world.broker.counters().subscriptions, 1);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.broker.counters().sessions, 0);
    assert_eq!(world.broker.counters().subscriptions, 0);
    assert_eq!(world.broker.counters().sessions_expired, 1);
    let world = world.crash();
    assert_eq!(world.broker.counters().sessions, 0);
    assert_eq!(
        world.store.len(),
        1,
        "nothing but the version stays behind: {:?}",
        world.store
    );
}

#[test]
fn a_will_waits_for_its_delay_or_the_end_of_the_session() {
    for (delay, expiry, due) in [(5, 60, 5), (60, 5, 5), (0, 60, 0), (5, 0, 0)] {
        let mut world = World::new(Limits::default());
        world.attach(1, "watcher", 0);
        world.subscribe(1, &[filter("will", options(Qos::AtLeastOnce))]);
        world.attach_with(2, "s", |attach| {
            attach.expiry_secs = expiry;
            attach.will = Some(world::will("will", "gone", delay));
        });
        world.clear();
        world.detach(2);
        if due > 0 {
            world.advance(Duration::from_millis(due * 1_000 - 1));
            assert!(world.said(1).is_empty(), "{delay} {expiry}");
            world.advance(Duration::from_millis(1));
        }
        assert_eq!(world.payloads(1), ["gone"], "{delay} {expiry}, [MQTT-3.1.2-8]");
        assert_eq!(world.wills, 1, "the journal has it too");
    }
}

#[test]
fn a_client_that_is_back_in_time_takes_its_will_back() {
    let attach = |world: &mut World, connection, clean_start| {
        world.attach_with(connection, "s", |attach| {
            attach.expiry_secs = 60;
            attach.clean_start = clean_start;
            attach.will = Some(world::will("will", "gone", 5));
        });
    };
    let mut world = World::new(Limits::default());
    attach(&mut world, 1, false);
    world.detach(1);
    attach(&mut world, 2, false);
    world.advance(Duration::from_secs(100));
    assert_eq!(world.wills, 0, "[MQTT-3.1.3-9]");
    world.detach(2);
    attach(&mut world, 3, true);
    assert_eq!(world.wills, 1, "its session ended with the clean start");
    let mut world = world.crash();
    world.advance(Duration::from_secs(5));
    assert_eq!(world.wills, 2, "a crash is the loss of every connection");
}

#[test]
fn expired_messages_are_not_delivered() {
    let mut world = World::new(Limits::default());
    world.attach(1, "s", 600);
    world.subscribe(1, &[filter("#", options(Qos::AtLeastOnce))]);
    world.detach(1);
    world.attach(2, "p", 0);
    for (payload, secs) in [("short", 5), ("long", 50)] {
        world.publish_expiring(2, "a", payload, secs);
    }
    world.advance(Duration::from_millis(20_500));
    world.attach(3, "s", 600);
    let deliveries = world.deliveries(3);
    assert_eq!(deliveries.len(), 1, "[MQTT-3.3.2-5]");
    assert_eq!(deliveries[0].expiry_secs, Some(30), "[MQTT-3.3.2-6]");
    assert_eq!(world.broker.counters().queued, 1);
}

#[test]
fn the_gateway_speaks_of_itself_to_those_who_ask() {
    let mut world = World::new(Limits::default());
    world.attach(1, "all", 0);
    world.subscribe(1, &[filter("#", options(Qos::AtMostOnce))]);
    world.attach(2, "system", 0);
    world.subscribe(2, &[filter("$SYS/broker/version", options(Qos::AtMostOnce))]);
    assert_eq!(world.payloads(2), ["1.2.3"]);
    world.subscribe(2, &[filter("$SYS/broker/uptime", options(Qos::AtMostOnce))]);
    world.clear();
    world.advance(Duration::from_secs(10));
    assert_eq!(world.payloads(2), ["1.2.3", "10"]);
    assert!(world.said(1).is_empty(), "[MQTT-4.7.2-1]");
}
