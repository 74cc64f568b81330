//! The normative statements of MQTT 5.0 and 3.1.1 that concern a server and show at its port, one after the other, against the
//! real binary. What is malformed or forbidden stands in the table of `fieldgate-mqtt` (`tests/it/forbidden.rs`).
//!
//! Each function is one theme; its assertions name the statements. All run against one gateway.

use std::net::SocketAddr;

use fieldgate_mqtt::{
    packet::{
        Packet, Qos,
        connect::{Connect, Will},
        subscribe::{RetainHandling, Subscription},
    },
    property::{Properties, Property, SubscriptionIdentifier},
    reason::ReasonCode,
    version::ProtocolVersion,
};

use crate::{
    harness::{site::Site, wait::Stopwatch},
    mqtt_peer::{Event, HOUR, How, Message, Peer, VERSIONS, fresh, kept, wants, will},
};

const V5: ProtocolVersion = ProtocolVersion::V5;
const V311: ProtocolVersion = ProtocolVersion::V311;

type Theme = fn(SocketAddr);

/// Every theme, by name.
const THEMES: &[(&str, Theme)] = &[
    ("connecting", connecting),
    ("kept sessions", kept_sessions),
    ("session expiry", session_expiry),
    ("taking over", taking_over),
    ("keep alive", keep_alive),
    ("wills", wills),
    ("will delay", will_delay),
    ("qualities", qualities),
    ("exactly once in", exactly_once_in),
    ("exactly once out", exactly_once_out),
    ("redelivery", redelivery),
    ("order", order),
    ("receive maximum", receive_maximum),
    ("maximum packet size", maximum_packet_size),
    ("topic aliases", topic_aliases),
    ("retained messages", retained_messages),
    ("retain handling", retain_handling),
    ("retain as published", retain_as_published),
    ("topics and filters", topics_and_filters),
    ("dollar topics", dollar_topics),
    ("subscribing", subscribing),
    ("unsubscribing", unsubscribing),
    ("no local", no_local),
    ("overlapping subscriptions", overlapping_subscriptions),
    ("shared subscriptions", shared_subscriptions),
    ("properties", properties),
    ("message expiry", message_expiry),
    ("request and response", request_and_response),
    ("disconnecting", disconnecting),
];

#[test]
fn every_theme_holds() {
    let mut site = Site::new().without_broker();
    site.gateway.edit(
        "alarm_topics = ",
        "anonymous = true\nreceive_max = 8\nconnects_per_second_max = 0\nalarm_topics = ",
    );
    site.gateway.start();
    let mut wrong = Vec::new();
    for (name, theme) in THEMES {
        if std::panic::catch_unwind(|| theme(site.mqtt)).is_err() {
            wrong.push(*name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    site.gateway.status();
}

const fn at(qos: u8) -> How<'static> {
    How {
        qos,
        retain: false,
        dup: false,
        properties: &[],
    }
}

const fn retained(qos: u8) -> How<'static> {
    How {
        retain: true,
        ..at(qos)
    }
}

fn connecting(to: SocketAddr) {
    for version in VERSIONS {
        let (mut peer, present) = Peer::accepted(to, &fresh(version, "connecting"));
        assert!(!present, "[MQTT-3.2.2-2], 3.1.1 [MQTT-3.2.2-1]");
        peer.silent();
        peer.disconnect();
        // [MQTT-3.1.3-5]: 23 characters at the least; [MQTT-3.1.3-4]: any UTF-8.
        for client_id in [
            "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
            "é/+#\u{feff}",
        ] {
            Peer::accepted(to, &fresh(version, client_id)).0.disconnect();
        }
        // [MQTT-3.1.2-1], [MQTT-3.1.2-2]: an unknown version is answered in the form its client knows.
        let mut peer = Peer::dial(to, version);
        let level = if version == V5 { 6 } else { 3 };
        let name: &[u8] = if version == V5 {
            b"\x00\x04MQTT"
        } else {
            b"\x00\x06MQIsdp"
        };
        let body = [name, &[level, 2, 0, 0, 0, 1, b'x']].concat();
        peer.send_raw(&[&[0x10, u8::try_from(body.len()).expect("short")], body.as_slice()].concat());
        let Event::ConnAck { reason, .. } = peer.next() else {
            panic!("no CONNACK")
        };
        assert_eq!(reason, ReasonCode::UnsupportedProtocolVersion);
        assert_eq!(peer.next(), Event::End, "[MQTT-3.1.4-6]");
    }
    // [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]
    let (peer, answer) = Peer::open(to, &fresh(V5, ""));
    let Event::ConnAck { properties, .. } = answer else {
        panic!("no CONNACK")
    };
    assert!(properties.contains(&"assigned".to_owned()), "{properties:?}");
    peer.disconnect();
    Peer::accepted(to, &fresh(V311, "")).0.disconnect();
    // 3.1.1 [MQTT-3.1.3-8], [MQTT-3.1.3-9]
    let (mut peer, answer) = Peer::open(to, &kept(V311, "", &[]));
    let Event::ConnAck {
        reason,
        session_present,
        ..
    } = answer
    else {
        panic!("no CONNACK")
    };
    assert_eq!(
        (reason, session_present),
        (ReasonCode::ClientIdentifierNotValid, false),
        "[MQTT-3.2.2-6]"
    );
    assert_eq!(peer.next(), Event::End);
    // [MQTT-4.12.0-1]: an authentication method that is not there.
    let method = [Property::AuthenticationMethod("GS2-KRB5")];
    let connect = Connect {
        properties: Properties::from_list(&method),
        ..fresh(V5, "method")
    };
    let (_, answer) = Peer::open(to, &connect);
    assert!(
        matches!(
            answer,
            Event::ConnAck {
                reason: ReasonCode::BadAuthenticationMethod,
                ..
            }
        ),
        "{answer:?}"
    );
    // [MQTT-3.1.0-1]: anything before CONNECT ends the connection; [MQTT-3.1.0-2]: so does a second one.
    for version in VERSIONS {
        let mut peer = Peer::dial(to, version);
        peer.send(&Packet::PingReq);
        assert_eq!(peer.next(), Event::End);
        let mut peer = Peer::connect(to, version, "twice");
        peer.send(&Packet::Connect(fresh(version, "twice")));
        if version == V5 {
            assert_eq!(peer.next(), Event::Disconnect(ReasonCode::ProtocolError));
        }
        assert_eq!(peer.next(), Event::End);
    }
}

fn kept_sessions(to: SocketAddr) {
    for version in VERSIONS {
        let name = format!("kept-{}", version.level());
        Peer::accepted(to, &fresh(version, &name)).0.disconnect();
        let (mut peer, present) = Peer::accepted(to, &kept(version, &name, HOUR));
        assert!(!present, "[MQTT-3.1.2-6], [MQTT-3.2.2-3]");
        peer.subscribe("kept/topic", 2);
        peer.disconnect();
        let mut speaker = Peer::connect(to, V5, "speaker");
        for qos in 0..3 {
            speaker.publish("kept/topic", &qos.to_string(), at(qos));
        }
        let (mut peer, present) = Peer::accepted(to, &kept(version, &name, HOUR));
        assert!(present, "[MQTT-3.1.2-5], [MQTT-3.2.2-2]");
        assert_eq!(peer.take().payload, "1", "3.1.1 [MQTT-3.1.2-5]");
        assert_eq!(peer.take().payload, "2");
        peer.silent();
        // The subscription is still there.
        speaker.publish("kept/topic", "again", at(1));
        assert_eq!(peer.take().payload, "again");
        peer.disconnect();
        let (mut peer, present) = Peer::accepted(to, &fresh(version, &name));
        assert!(!present, "[MQTT-3.1.2-4]");
        speaker.publish("kept/topic", "nobody", at(1));
        peer.silent();
        peer.disconnect();
        let (mut peer, present) = Peer::accepted(to, &kept(version, &name, HOUR));
        assert!(!present, "[MQTT-3.1.2-6]: a clean start left nothing");
        peer.silent();
        Peer::accepted(to, &fresh(version, &name)).0.disconnect();
    }
}

fn session_expiry(to: SocketAddr) {
    let short = [Property::SessionExpiryInterval(1)];
    let (mut peer, _) = Peer::accepted(to, &kept(V5, "expiring", HOUR));
    peer.subscribe("expiring", 1);
    peer.disconnect();
    let (peer, present) = Peer::accepted(to, &kept(V5, "expiring", &short));
    assert!(present, "[MQTT-3.1.2-23]");
    let watch = Stopwatch::start();
    peer.disconnect();
    // The end of the session shows in the end of its will's delay, so no clock of the test decides.
    let mut listener = Peer::connect(to, V5, "listener");
    listener.subscribe("expiring/will", 0);
    let delay = [Property::WillDelayInterval(3_600)];
    let connect = Connect {
        will: Some(will("expiring/will", b"ended", &delay)),
        ..kept(V5, "expiring", &short)
    };
    let (peer, _) = Peer::accepted(to, &connect);
    drop(peer);
    assert_eq!(listener.message().payload, "ended", "§3.1.3.2.2");
    assert!(watch.elapsed().as_millis() >= 990);
    assert!(!Peer::accepted(to, &kept(V5, "expiring", HOUR)).1);
    // DISCONNECT may change it, but not from 0.
    let (peer, _) = Peer::accepted(to, &kept(V5, "expiring", HOUR));
    peer.disconnect_with(ReasonCode::Success, &[Property::SessionExpiryInterval(0)]);
    assert!(!Peer::accepted(to, &kept(V5, "expiring", &[])).1);
    let mut peer = Peer::connect(to, V5, "expiring");
    peer.send(&Packet::Disconnect(
        fieldgate_mqtt::packet::disconnect::Disconnect {
            reason: ReasonCode::Success,
            properties: Properties::from_list(HOUR),
        },
    ));
    assert_eq!(
        peer.next(),
        Event::Disconnect(ReasonCode::ProtocolError),
        "§3.14.2.2.2"
    );
}

fn taking_over(to: SocketAddr) {
    for version in VERSIONS {
        let mut old = Peer::connect(to, version, "taken");
        let mut new = Peer::connect(to, version, "taken");
        if version == V5 {
            assert_eq!(
                old.next(),
                Event::Disconnect(ReasonCode::SessionTakenOver),
                "[MQTT-3.1.4-3]"
            );
        }
        assert_eq!(old.next(), Event::End, "3.1.1 [MQTT-3.1.4-2]");
        new.silent();
    }
}

fn keep_alive(to: SocketAddr) {
    let connect = Connect {
        keep_alive_secs: 1,
        will: Some(will("alive/will", b"silent", &[])),
        ..fresh(V5, "alive")
    };
    let mut listener = Peer::connect(to, V311, "listener");
    listener.subscribe("alive/will", 1);
    let watch = Stopwatch::start();
    let (mut peer, _) = Peer::accepted(to, &connect);
    assert_eq!(
        peer.next(),
        Event::Disconnect(ReasonCode::KeepAliveTimeout),
        "[MQTT-3.1.2-22]"
    );
    let waited = watch.elapsed().as_millis();
    assert!(waited >= 1_500, "{waited} ms");
    assert_eq!(listener.take().payload, "silent", "[MQTT-3.1.2-8]");
    // [MQTT-3.2.2-21], [MQTT-3.2.2-22]: the gateway's own bound.
    let connect = Connect {
        keep_alive_secs: 65_535,
        ..fresh(V5, "alive")
    };
    let (_, answer) = Peer::open(to, &connect);
    let Event::ConnAck { properties, .. } = answer else {
        panic!("no CONNACK")
    };
    assert!(
        properties.contains(&"keep alive=1200".to_owned()),
        "{properties:?}"
    );
}

fn wills(to: SocketAddr) {
    let mut listener = Peer::connect(to, V5, "listener");
    listener.subscribe("wills/#", 2);
    for version in VERSIONS {
        for (qos, retain) in [(0, false), (1, false), (2, true)] {
            let connect = Connect {
                will: Some(Will {
                    qos: Qos::from_code(qos).expect("0 to 2"),
                    retain,
                    ..will("wills/a", b"gone", &[])
                }),
                ..fresh(version, "mortal")
            };
            // [MQTT-3.1.2-7], [MQTT-3.1.2-8]: lost, or broken.
            drop(Peer::accepted(to, &connect));
            let message = listener.take();
            assert_eq!(
                (message.payload.as_str(), message.qos),
                ("gone", qos),
                "[MQTT-3.1.2-12]"
            );
            let (mut peer, _) = Peer::accepted(to, &connect);
            peer.send_raw(&[0, 0]);
            assert_eq!(listener.take().payload, "gone");
            // [MQTT-3.1.2-10], [MQTT-3.14.4-3]
            Peer::accepted(to, &connect).0.disconnect();
            listener.silent();
        }
        let mut late = Peer::connect(to, version, "late");
        late.subscribe("wills/a", 2);
        let message = late.take();
        assert!(message.retain && message.payload == "gone", "[MQTT-3.1.2-15]");
        late.publish("wills/a", "", retained(1));
        assert_eq!(listener.take().payload, "");
    }
    // 3.14.2.1: every reason but 0 leaves the will.
    let connect = Connect {
        will: Some(will("wills/a", b"wanted", &[])),
        ..fresh(V5, "mortal")
    };
    Peer::accepted(to, &connect)
        .0
        .disconnect_with(ReasonCode::DisconnectWithWill, &[]);
    assert_eq!(listener.take().payload, "wanted");
}

fn will_delay(to: SocketAddr) {
    let mut listener = Peer::connect(to, V5, "listener");
    listener.subscribe("delayed", 1);
    let late = [Property::WillDelayInterval(3_600)];
    let connect = Connect {
        will: Some(will("delayed", b"never", &late)),
        ..kept(V5, "delayed", HOUR)
    };
    drop(Peer::accepted(to, &connect));
    // [MQTT-3.1.3-9]: back in time.
    let delay = [Property::WillDelayInterval(1)];
    let connect = Connect {
        will: Some(will("delayed", b"gone", &delay)),
        ..connect
    };
    let back = Peer::accepted(to, &connect).0;
    let watch = Stopwatch::start();
    drop(back);
    assert_eq!(listener.take().payload, "gone");
    let waited = watch.elapsed().as_millis();
    assert!(waited >= 990, "{waited} ms");
    listener.silent();
}

fn qualities(to: SocketAddr) {
    for version in VERSIONS {
        for wanted in 0..3 {
            let mut listener = Peer::connect(to, version, "listener");
            listener.subscribe("qualities", wanted);
            for other in VERSIONS {
                let mut speaker = Peer::connect(to, other, "speaker");
                for published in 0..3 {
                    speaker.publish("qualities", "x", at(published));
                    let message = listener.take();
                    assert_eq!(message.qos, wanted.min(published), "[MQTT-3.8.4-8]");
                    assert!(
                        !message.dup && !message.retain,
                        "[MQTT-4.3.1-1], [MQTT-4.3.2-2], [MQTT-4.3.3-2]"
                    );
                    assert_eq!(message.id == 0, message.qos == 0, "[MQTT-2.2.1-2]");
                }
            }
        }
    }
}

fn exactly_once_in(to: SocketAddr) {
    for version in VERSIONS {
        let mut listener = Peer::connect(to, V5, "listener");
        listener.subscribe("once/in", 2);
        let (mut speaker, _) = Peer::accepted(to, &kept(version, "speaker", HOUR));
        let id = speaker.publish_as("once/in", "x", at(2));
        assert_eq!(
            speaker.next(),
            Event::PubRec(id, ReasonCode::Success),
            "[MQTT-4.3.3-8]"
        );
        let again = How { dup: true, ..at(2) };
        // [MQTT-4.3.3-10]: any number of times, on this connection and on the next.
        speaker.publish_with_id("once/in", "x", again, id);
        assert_eq!(speaker.next(), Event::PubRec(id, ReasonCode::Success));
        drop(speaker);
        let (mut speaker, present) = Peer::accepted(to, &kept(version, "speaker", HOUR));
        assert!(present);
        speaker.publish_with_id("once/in", "x", again, id);
        assert_eq!(speaker.next(), Event::PubRec(id, ReasonCode::Success));
        speaker.release(id);
        assert_eq!(
            speaker.next(),
            Event::PubComp(id, ReasonCode::Success),
            "[MQTT-4.3.3-11]"
        );
        assert_eq!(listener.take().payload, "x");
        listener.silent();
        // [MQTT-4.3.3-12]: the identifier is free now.
        speaker.publish_with_id("once/in", "y", at(2), id);
        assert_eq!(speaker.next(), Event::PubRec(id, ReasonCode::Success));
        speaker.release(id);
        assert_eq!(speaker.next(), Event::PubComp(id, ReasonCode::Success));
        assert_eq!(listener.take().payload, "y");
        speaker.release(id);
        let reason = if version == V5 {
            ReasonCode::PacketIdentifierNotFound
        } else {
            ReasonCode::Success
        };
        assert_eq!(speaker.next(), Event::PubComp(id, reason));
        Peer::accepted(to, &fresh(version, "speaker")).0.disconnect();
    }
}

fn exactly_once_out(to: SocketAddr) {
    for version in VERSIONS {
        let (mut listener, _) = Peer::accepted(to, &kept(version, "listener", HOUR));
        listener.subscribe("once/out", 2);
        let mut speaker = Peer::connect(to, V5, "speaker");
        speaker.publish("once/out", "x", at(2));
        let first = listener.message();
        drop(listener);
        // [MQTT-4.3.3-5], [MQTT-4.4.0-1]: the same message with the same identifier, until PUBREC.
        let (mut listener, _) = Peer::accepted(to, &kept(version, "listener", HOUR));
        let again = listener.message();
        assert_eq!((again.id, again.dup), (first.id, true));
        listener.send_raw(&[0x50, 2, 0, u8::try_from(first.id).expect("small")]);
        assert_eq!(
            listener.next(),
            Event::PubRel(first.id, ReasonCode::Success),
            "[MQTT-4.3.3-4]"
        );
        drop(listener);
        // Then PUBREL, until PUBCOMP ([MQTT-4.3.3-6], [MQTT-4.3.3-7]).
        let (mut listener, _) = Peer::accepted(to, &kept(version, "listener", HOUR));
        assert_eq!(listener.next(), Event::PubRel(first.id, ReasonCode::Success));
        listener.send_raw(&[0x70, 2, 0, u8::try_from(first.id).expect("small")]);
        listener.silent();
        drop(listener);
        let (mut listener, _) = Peer::accepted(to, &kept(version, "listener", HOUR));
        listener.silent();
        Peer::accepted(to, &fresh(version, "listener")).0.disconnect();
    }
    // A refusal ends it (§4.3.3), and the next message follows.
    let mut listener = Peer::connect(to, V5, "refuser");
    listener.subscribe("once/out", 2);
    let mut speaker = Peer::connect(to, V5, "speaker");
    speaker.publish("once/out", "x", at(2));
    let message = listener.message();
    listener.send_raw(&[0x50, 3, 0, u8::try_from(message.id).expect("small"), 0x97]);
    listener.silent();
}

fn redelivery(to: SocketAddr) {
    for version in VERSIONS {
        let (mut listener, _) = Peer::accepted(to, &kept(version, "listener", HOUR));
        listener.subscribe("redelivery", 1);
        let mut speaker = Peer::connect(to, V5, "speaker");
        speaker.publish("redelivery", "x", at(1));
        let first = listener.message();
        drop(listener);
        let (mut listener, _) = Peer::accepted(to, &kept(version, "listener", HOUR));
        let again = listener.take();
        assert_eq!(
            (again.id, again.dup),
            (first.id, true),
            "[MQTT-4.4.0-1], [MQTT-4.3.2-4]"
        );
        drop(listener);
        Peer::accepted(to, &fresh(version, "listener")).0.disconnect();
    }
}

fn order(to: SocketAddr) {
    for qos in 0..3 {
        let mut listener = Peer::connect(to, V311, "listener");
        listener.subscribe("order", qos);
        let mut speaker = Peer::connect(to, V5, "speaker");
        for number in 0..50 {
            speaker.publish("order", &number.to_string(), at(qos));
        }
        for number in 0..50 {
            assert_eq!(
                listener.take().payload,
                number.to_string(),
                "[MQTT-4.6.0-5], [MQTT-4.6.0-6]"
            );
        }
    }
    // [MQTT-4.6.0-2], [MQTT-4.6.0-3]: acknowledgements in the order of their messages.
    let mut speaker = Peer::connect(to, V5, "speaker");
    let ids: Vec<u16> = [1, 2, 1, 1, 2]
        .map(|qos| speaker.publish_as("order", "x", at(qos)))
        .to_vec();
    let answered: Vec<u16> = ids
        .iter()
        .map(|_| match speaker.next() {
            Event::PubAck(id, _) | Event::PubRec(id, _) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answered, ids);
}

fn receive_maximum(to: SocketAddr) {
    // The gateway's own is 8 here.
    let mut speaker = Peer::connect(to, V5, "speaker");
    for id in 1..=8 {
        speaker.publish_with_id("receive", "x", at(2), id);
    }
    for id in 1..=8 {
        assert_eq!(speaker.next(), Event::PubRec(id, ReasonCode::Success));
    }
    speaker.publish_with_id("receive", "x", at(1), 9);
    assert_eq!(
        speaker.next(),
        Event::Disconnect(ReasonCode::ReceiveMaximumExceeded),
        "[MQTT-3.3.4-7]"
    );
    // A client of MQTT 3.1.1 is not told, and not punished.
    let mut speaker = Peer::connect(to, V311, "speaker");
    for id in 1..=40 {
        speaker.publish_with_id("receive", "x", at(1), id);
    }
    for id in 1..=40 {
        assert_eq!(speaker.next(), Event::PubAck(id, ReasonCode::Success));
    }
    // The client's.
    let two = [Property::ReceiveMaximum(2)];
    let connect = Connect {
        properties: Properties::from_list(&two),
        ..fresh(V5, "listener")
    };
    let (mut listener, _) = Peer::accepted(to, &connect);
    listener.subscribe("receive/out", 2);
    let mut speaker = Peer::connect(to, V5, "speaker");
    for number in 0..5 {
        speaker.publish("receive/out", &number.to_string(), at(1 + number % 2));
    }
    let [first, second] = [listener.message(), listener.message()];
    listener.silent();
    listener.acknowledge(&first);
    let third = listener.message();
    listener.silent();
    listener.acknowledge(&second);
    listener.acknowledge(&third);
    assert_eq!(listener.take().payload, "3", "[MQTT-3.1.2-11], [MQTT-3.3.4-9]");
    assert_eq!(listener.take().payload, "4");
    // QoS 0 does not count (§4.9).
    speaker.publish("receive/out", "unsure", at(0));
    assert_eq!(listener.take().payload, "unsure");
}

fn maximum_packet_size(to: SocketAddr) {
    let small = [Property::MaximumPacketSize(40)];
    let connect = Connect {
        properties: Properties::from_list(&small),
        ..fresh(V5, "small")
    };
    let (mut listener, _) = Peer::accepted(to, &connect);
    for qos in 0..3 {
        listener.subscribe("small", qos);
        let mut speaker = Peer::connect(to, V5, "speaker");
        speaker.publish("small", &"x".repeat(60), at(qos));
        speaker.publish("small", "fits", at(qos));
        assert_eq!(
            listener.take().payload,
            "fits",
            "[MQTT-3.1.2-24], [MQTT-3.1.2-25]"
        );
    }
    // The gateway's own, §3.2.2.3.6.
    let mut peer = Peer::connect(to, V5, "large");
    peer.send_raw(&[0x30, 0xff, 0xff, 0x7f]);
    assert_eq!(peer.next(), Event::Disconnect(ReasonCode::PacketTooLarge));
}

fn topic_aliases(to: SocketAddr) {
    let takes_one = [Property::TopicAliasMaximum(1)];
    let connect = Connect {
        properties: Properties::from_list(&takes_one),
        ..fresh(V5, "listener")
    };
    let (mut listener, _) = Peer::accepted(to, &connect);
    let mut plain = Peer::connect(to, V5, "plain");
    for peer in [&mut listener, &mut plain] {
        peer.subscribe("alias/#", 1);
    }
    let mut speaker = Peer::connect(to, V5, "speaker");
    let defines = [Property::TopicAlias(1)];
    for topic in ["alias/a", ""] {
        let how = How {
            qos: 1,
            properties: &defines,
            ..How::default()
        };
        speaker.publish(topic, "x", how);
    }
    speaker.publish("alias/b", "y", at(0));
    let named = |message: Message| (message.topic, message.properties);
    assert_eq!(
        named(listener.take()),
        ("alias/a".to_owned(), vec!["alias=1".to_owned()])
    );
    assert_eq!(
        named(listener.take()),
        (String::new(), vec!["alias=1".to_owned()]),
        "§3.3.2.3.4"
    );
    assert_eq!(
        named(listener.take()),
        ("alias/b".to_owned(), vec![]),
        "[MQTT-3.1.2-26]"
    );
    for topic in ["alias/a", "alias/a", "alias/b"] {
        assert_eq!(named(plain.take()), (topic.to_owned(), vec![]), "[MQTT-3.1.2-27]");
    }
    // [MQTT-3.3.2-7]: an alias ends with its connection.
    drop(speaker);
    let mut speaker = Peer::connect(to, V5, "speaker");
    let how = How {
        properties: &defines,
        ..How::default()
    };
    speaker.publish_with_id("", "x", how, 0);
    assert_eq!(speaker.next(), Event::Disconnect(ReasonCode::ProtocolError));
}

fn retained_messages(to: SocketAddr) {
    for version in VERSIONS {
        let mut speaker = Peer::connect(to, version, "speaker");
        for (topic, qos) in [("retained/0", 0), ("retained/1", 1), ("retained/2/deep", 2)] {
            speaker.publish(topic, "old", retained(qos));
            speaker.publish(topic, "new", retained(qos));
        }
        let mut listener = Peer::connect(to, version, "listener");
        listener.subscribe("retained/#", 1);
        for (topic, qos) in [("retained/0", 0), ("retained/1", 1), ("retained/2/deep", 1)] {
            let message = listener.take();
            assert_eq!(
                (message.topic.as_str(), message.payload.as_str()),
                (topic, "new"),
                "[MQTT-3.3.1-5]"
            );
            assert_eq!((message.qos, message.retain), (qos, true), "[MQTT-3.3.1-8]");
        }
        // [MQTT-3.3.1-12]: to a subscription that is there it comes without the flag.
        speaker.publish("retained/0", "live", retained(0));
        assert!(!listener.take().retain);
        // [MQTT-3.3.1-6], [MQTT-3.3.1-7]
        for topic in ["retained/0", "retained/1", "retained/2/deep"] {
            speaker.publish(topic, "", retained(1));
            let message = listener.take();
            assert_eq!(
                (message.payload.as_str(), message.retain),
                ("", false),
                "3.1.1 [MQTT-3.3.1-10]"
            );
        }
        // [MQTT-3.3.1-8]: without the flag nothing is kept.
        speaker.publish("retained/0", "passing", at(1));
        listener.take();
        listener.subscribe("retained/#", 1);
        listener.silent();
    }
}

fn retain_handling(to: SocketAddr) {
    let mut speaker = Peer::connect(to, V5, "speaker");
    speaker.publish("handling", "x", retained(1));
    for (handling, first, second) in [
        (RetainHandling::Always, true, true),
        (RetainHandling::IfNew, true, false),
        (RetainHandling::Never, false, false),
    ] {
        let mut listener = Peer::connect(to, V5, "listener");
        for expected in [first, second] {
            let wanted = Subscription {
                retain_handling: handling,
                ..wants("handling", 1)
            };
            assert_eq!(listener.subscribe_with(&[wanted], &[]), [1]);
            if expected {
                assert_eq!(listener.take().payload, "x", "[MQTT-3.3.1-9], [MQTT-3.3.1-10]");
            }
            listener.silent();
        }
    }
    speaker.publish("handling", "", retained(1));
}

fn retain_as_published(to: SocketAddr) {
    let mut listener = Peer::connect(to, V5, "listener");
    let as_published = Subscription {
        retain_as_published: true,
        ..wants("published", 1)
    };
    listener.subscribe_with(&[as_published], &[]);
    let mut speaker = Peer::connect(to, V311, "speaker");
    speaker.publish("published", "x", retained(1));
    assert!(listener.take().retain, "[MQTT-3.3.1-13]");
    speaker.publish("published", "x", at(1));
    assert!(!listener.take().retain);
    speaker.publish("published", "", retained(1));
}

fn topics_and_filters(to: SocketAddr) {
    let cases = [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
            true,
        ),
        ("sport/#", "sport", true),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("+/tennis/#", "a/tennis/b", true),
        ("ACCOUNTS", "accounts", false),
        ("école/+", "école/x", true),
        ("\u{feff}a", "\u{feff}a", true),
        ("\u{feff}a", "a", false),
        ("a b/c", "a b/c", true),
        ("//", "//", true),
        ("a//b", "a/b", false),
    ];
    for version in VERSIONS {
        for (filter, topic, matches) in cases {
            let mut peer = Peer::connect(to, version, "topics");
            peer.subscribe(filter, 0);
            peer.publish(topic, "x", at(0));
            if matches {
                assert_eq!(peer.message().topic, topic, "{filter}: §4.7.1, [MQTT-4.7.3-4]");
            }
            peer.silent();
        }
    }
}

fn dollar_topics(to: SocketAddr) {
    let mut peer = Peer::connect(to, V5, "dollar");
    peer.subscribe("#", 0);
    peer.subscribe("+/broker/version", 0);
    peer.silent();
    peer.subscribe("$SYS/broker/version", 0);
    let message = peer.take();
    assert_eq!(
        (message.topic.as_str(), message.retain),
        ("$SYS/broker/version", true),
        "[MQTT-4.7.2-1]"
    );
    // Nobody else writes there.
    let id = peer.publish_as("$SYS/broker/version", "forged", at(1));
    assert_eq!(peer.next(), Event::PubAck(id, ReasonCode::NotAuthorized));
    peer.silent();
}

fn subscribing(to: SocketAddr) {
    for version in VERSIONS {
        let mut peer = Peer::connect(to, version, "subscriber");
        let failure = if version == V5 { 0x97 } else { 0x80 };
        let deep = "s/".repeat(200);
        let codes = peer.subscribe_with(
            &[wants("s/1", 1), wants(&deep, 1), wants("s/2", 2), wants("s/0", 0)],
            &[],
        );
        assert_eq!(
            codes,
            [1, failure, 2, 0],
            "[MQTT-3.8.4-1], [MQTT-3.8.4-5], [MQTT-3.8.4-6], [MQTT-3.8.4-7]"
        );
        // [MQTT-3.8.4-3]: the same filter again replaces the subscription.
        peer.subscribe("s/1", 0);
        let mut speaker = Peer::connect(to, version, "speaker");
        speaker.publish("s/1", "x", at(2));
        assert_eq!(peer.take().qos, 0);
        peer.silent();
    }
}

fn unsubscribing(to: SocketAddr) {
    for version in VERSIONS {
        let mut peer = Peer::connect(to, version, "unsubscriber");
        peer.subscribe("u/+", 1);
        peer.subscribe("u/a", 1);
        let codes = peer.unsubscribe(&["u/+", "u/none"]);
        let expected: &[u8] = if version == V5 { &[0, 0x11] } else { &[] };
        assert_eq!(
            codes, expected,
            "[MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT-3.11.3-1]"
        );
        peer.publish("u/b", "x", at(0));
        peer.silent();
        peer.publish("u/a", "x", at(0));
        assert_eq!(
            peer.message().topic,
            "u/a",
            "[MQTT-3.10.4-1]: character by character"
        );
        peer.unsubscribe(&["u/a"]);
        peer.publish("u/a", "x", at(0));
        peer.silent();
    }
}

fn no_local(to: SocketAddr) {
    let mut peer = Peer::connect(to, V5, "local");
    let wanted = Subscription {
        no_local: true,
        ..wants("local", 1)
    };
    peer.subscribe_with(&[wanted], &[]);
    peer.publish("local", "own", at(1));
    peer.silent();
    let mut other = Peer::connect(to, V5, "other");
    other.publish("local", "other", at(1));
    assert_eq!(peer.take().payload, "other", "[MQTT-3.8.3-3]");
}

fn overlapping_subscriptions(to: SocketAddr) {
    let mut peer = Peer::connect(to, V5, "overlap");
    for (filter, qos, identifier) in [("o/#", 0, 7), ("o/+", 2, 268_435_455), ("o/x", 1, 9)] {
        let identifier = [Property::SubscriptionIdentifier(SubscriptionIdentifier(
            identifier,
        ))];
        peer.subscribe_with(&[wants(filter, qos)], &identifier);
    }
    peer.subscribe_with(&[wants("o/x/#", 0)], &[]);
    let mut speaker = Peer::connect(to, V5, "speaker");
    speaker.publish("o/x", "x", at(2));
    let mut message = peer.take();
    message.properties.sort();
    assert_eq!(message.qos, 2, "[MQTT-3.3.4-2], [MQTT-3.3.5-1]");
    assert_eq!(
        message.properties,
        ["subscription=268435455", "subscription=7", "subscription=9"],
        "[MQTT-3.3.4-3], [MQTT-3.3.4-4], [MQTT-3.3.4-5]"
    );
    peer.silent();
}

fn shared_subscriptions(to: SocketAddr) {
    let mut members: Vec<Peer> = (0..3)
        .map(|number| {
            let mut peer = Peer::connect(to, VERSIONS[number % 2], &format!("member-{number}"));
            peer.subscribe("$share/group/shared/+", 1);
            peer
        })
        .collect();
    let mut other = Peer::connect(to, V5, "other-group");
    other.subscribe("$share/other/shared/#", 2);
    let mut all = Peer::connect(to, V5, "all");
    all.subscribe("shared/x", 0);
    let mut speaker = Peer::connect(to, V5, "speaker");
    for number in 0..9 {
        speaker.publish("shared/x", &number.to_string(), at(2));
        assert_eq!(other.take().qos, 2, "[MQTT-4.8.2-3]: its own quality");
        assert_eq!(all.take().payload, number.to_string());
    }
    let mut got = 0;
    for member in &mut members {
        member.send(&Packet::PingReq);
        let mut own = 0;
        loop {
            match member.next() {
                Event::Message(message) => {
                    assert_eq!(message.qos, 1);
                    own += 1;
                }
                Event::PingResp => break,
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(own, 3, "each in turn");
        got += own;
    }
    assert_eq!(got, 9, "§4.8.2: each message to one of the group");
    // Retained messages are not for shared subscriptions.
    speaker.publish("shared/kept", "x", retained(0));
    assert_eq!(other.take().payload, "x");
    let mut late = Peer::connect(to, V5, "late");
    late.subscribe("$share/group/shared/kept", 0);
    late.silent();
    speaker.publish("shared/kept", "", retained(0));
    assert_eq!(late.take().payload, "");
    // [MQTT-3.8.3-4]: no local is a protocol error here.
    late.send_raw(&[&[0x82, 16, 0, 2, 0, 0, 10][..], b"$share/g/a", &[0x04]].concat());
    assert_eq!(late.next(), Event::Disconnect(ReasonCode::ProtocolError));
}

fn properties(to: SocketAddr) {
    let mut listener = Peer::connect(to, V5, "listener");
    listener.subscribe("properties", 1);
    let mut old = Peer::connect(to, V311, "old");
    old.subscribe("properties", 1);
    let mut speaker = Peer::connect(to, V5, "speaker");
    let properties = [
        Property::PayloadFormatIndicator(true),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("answers/here"),
        Property::CorrelationData(&[1, 2]),
        Property::UserProperty(("b", "1")),
        Property::UserProperty(("a", "2")),
        Property::UserProperty(("b", "1")),
    ];
    let how = How {
        qos: 1,
        properties: &properties,
        ..How::default()
    };
    speaker.publish("properties", "x", how);
    assert_eq!(
        listener.take().properties,
        [
            "text=true",
            "type=text/plain",
            "response=answers/here",
            "correlation=[1, 2]",
            "b:1",
            "a:2",
            "b:1"
        ],
        "[MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]"
    );
    assert_eq!(old.take().payload, "x");
}

fn message_expiry(to: SocketAddr) {
    let (peer, _) = {
        let (mut peer, present) = Peer::accepted(to, &kept(V5, "sleeper", HOUR));
        peer.subscribe("expiry", 1);
        (peer, present)
    };
    peer.disconnect();
    let mut speaker = Peer::connect(to, V5, "speaker");
    let watch = Stopwatch::start();
    for (payload, secs) in [("short", 1), ("long", 1_000)] {
        let properties = [Property::MessageExpiryInterval(secs)];
        let how = How {
            qos: 1,
            properties: &properties,
            ..How::default()
        };
        speaker.publish("expiry", payload, how);
    }
    // A will whose delay is longer than the short expiry shows that it is over.
    let delay = [Property::WillDelayInterval(2)];
    let connect = Connect {
        will: Some(will("expiry/over", b"", &delay)),
        ..kept(V5, "timer", HOUR)
    };
    speaker.subscribe("expiry/over", 0);
    drop(Peer::accepted(to, &connect));
    speaker.message();
    let (mut peer, _) = Peer::accepted(to, &kept(V5, "sleeper", HOUR));
    let message = peer.take();
    assert_eq!(message.payload, "long", "[MQTT-3.3.2-5]");
    let least = 999_u32.saturating_sub(u32::try_from(watch.elapsed().as_secs()).expect("it is not a year"));
    let left = message.properties[0]
        .strip_prefix("expiry=")
        .and_then(|text| text.parse::<u32>().ok());
    assert!(
        left.is_some_and(|left| (least..=998).contains(&left)),
        "[MQTT-3.3.2-6]: {left:?}"
    );
    peer.silent();
}

fn request_and_response(to: SocketAddr) {
    let wishes = [Property::RequestResponseInformation(true)];
    let connect = Connect {
        properties: Properties::from_list(&wishes),
        ..fresh(V5, "requester")
    };
    let (mut requester, answer) = Peer::open(to, &connect);
    let Event::ConnAck { properties, .. } = answer else {
        panic!("no CONNACK")
    };
    assert!(
        properties.contains(&"responses=requester/responses".to_owned()),
        "{properties:?}"
    );
    requester.subscribe("requester/responses/#", 1);
    let mut responder = Peer::connect(to, V5, "responder");
    responder.subscribe("requests", 1);
    let properties = [
        Property::ResponseTopic("requester/responses/1"),
        Property::CorrelationData(b"c"),
    ];
    let how = How {
        qos: 1,
        properties: &properties,
        ..How::default()
    };
    requester.publish("requests", "what time is it", how);
    let request = responder.take();
    assert_eq!(
        request.properties,
        ["response=requester/responses/1", "correlation=[99]"]
    );
    let properties = [Property::CorrelationData(b"c")];
    let how = How {
        qos: 1,
        properties: &properties,
        ..How::default()
    };
    responder.publish("requester/responses/1", "noon", how);
    let response = requester.take();
    assert_eq!(
        (response.payload.as_str(), response.properties.as_slice()),
        ("noon", &["correlation=[99]".to_owned()][..])
    );
}

fn disconnecting(to: SocketAddr) {
    for version in VERSIONS {
        let peer = Peer::connect(to, version, "leaver");
        // [MQTT-3.14.4-1], [MQTT-3.14.4-2]: the gateway closes.
        peer.disconnect();
    }
    let mut peer = Peer::connect(to, V5, "leaver");
    peer.send_raw(&[0xe0, 0, 0xc0, 0]);
    assert_eq!(peer.next(), Event::End, "nothing after DISCONNECT is answered");
}
