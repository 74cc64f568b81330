//! Devices that talk to each other through one gateway.

use fieldgate_mqtt::{
    packet::{connect::Connect, subscribe::Subscription},
    property::Property,
    reason::ReasonCode,
    version::ProtocolVersion,
};

use crate::{
    harness::{
        site::{DEVICE, Site, device_password},
        wait::Stopwatch,
    },
    mqtt_peer::{Event, HOUR, How, Peer, VERSIONS, fresh, kept, wants, will},
};

/// A gateway alone: its uplink leads nowhere. `more` stands in `[mqtt]`.
fn gateway(more: &str) -> Site {
    let mut site = Site::new().without_broker();
    site.gateway.edit(
        "alarm_topics = ",
        &format!("anonymous = true\n{more}\nalarm_topics = "),
    );
    site.gateway.start();
    site
}

const fn at(qos: u8) -> How<'static> {
    How {
        qos,
        retain: false,
        dup: false,
        properties: &[],
    }
}

#[test]
fn devices_talk_to_each_other_while_no_uplink_exists() {
    let site = gateway("local_topics = [\"local/#\"]");
    for version in VERSIONS {
        for other in VERSIONS {
            let mut listener = Peer::connect(site.mqtt, version, "listener");
            listener.subscribe("hall/+", 2);
            listener.subscribe("local/#", 2);
            let mut speaker = Peer::connect(site.mqtt, other, "speaker");
            for qos in 0..3 {
                for topic in ["hall/a", "local/a/b"] {
                    speaker.publish(topic, "21.5", at(qos));
                    let message = listener.take();
                    assert_eq!(
                        (message.topic.as_str(), message.payload.as_str()),
                        (topic, "21.5")
                    );
                    assert_eq!((message.qos, message.dup, message.retain), (qos, false, false));
                }
            }
        }
    }
    let status = site.gateway.status();
    assert_eq!(
        status["journal"]["readings"], 12,
        "local topics are not journalled: {status:#}"
    );
    assert_eq!(status["uplinks"][0]["state"], "not connected", "{status:#}");
}

#[test]
fn clients_of_every_shard_reach_each_other() {
    let mut site = Site::new().without_broker();
    site.gateway
        .edit("alarm_topics = ", "anonymous = true\nalarm_topics = ");
    site.gateway
        .edit("name = \"gateway-1\"\n", "name = \"gateway-1\"\nshards = 3\n");
    site.gateway.start();
    let mut listeners: Vec<Peer> = (0..12)
        .map(|number| Peer::connect(site.mqtt, VERSIONS[number % 2], &format!("listener-{number}")))
        .collect();
    for listener in &mut listeners {
        listener.subscribe("all", 2);
    }
    let status = site.gateway.status();
    let shards = status["shards"].as_array().expect("a list");
    let used = shards
        .iter()
        .filter(|shard| shard["clients"].as_u64() > Some(0))
        .count();
    assert!(used > 1, "the kernel put all clients on one shard: {shards:?}");
    for number in 0..12 {
        let mut speaker = Peer::connect(site.mqtt, VERSIONS[number % 2], &format!("speaker-{number}"));
        speaker.publish(
            "all",
            &number.to_string(),
            at(u8::try_from(number % 3).expect("small")),
        );
        for listener in &mut listeners {
            assert_eq!(listener.take().payload, number.to_string());
        }
        speaker.disconnect();
    }
    // A session moves between shards, and takes what waits with it.
    let (mut peer, _) = Peer::accepted(site.mqtt, &kept(ProtocolVersion::V5, "mover", HOUR));
    peer.subscribe("mover", 1);
    for round in 0..20 {
        let (mut next, present) = Peer::accepted(site.mqtt, &kept(ProtocolVersion::V5, "mover", HOUR));
        assert!(present, "round {round}");
        assert_eq!(
            peer.next(),
            Event::Disconnect(ReasonCode::SessionTakenOver),
            "[MQTT-3.1.4-3]"
        );
        assert_eq!(peer.next(), Event::End);
        listeners[0].publish("mover", &round.to_string(), at(1));
        assert_eq!(next.take().payload, round.to_string());
        // The gateway has read PUBACK before it answers; a takeover that comes first may repeat the message (4.4).
        next.silent();
        peer = next;
    }
}

#[test]
fn sessions_and_retained_messages_survive_kill_9() {
    let mut site = gateway("");
    for version in VERSIONS {
        let name = format!("sleeper-{}", version.level());
        let (mut sleeper, present) = Peer::accepted(site.mqtt, &kept(version, &name, HOUR));
        assert!(!present);
        sleeper.subscribe("news/#", 2);
        sleeper.disconnect();
    }
    let mut speaker = Peer::connect(site.mqtt, ProtocolVersion::V5, "speaker");
    for (payload, qos) in [("lost", 0), ("one", 1), ("two", 2)] {
        speaker.publish("news/today", payload, at(qos));
    }
    let retained = How {
        qos: 1,
        retain: true,
        ..How::default()
    };
    speaker.publish("kept/a", "still here", retained);
    speaker.publish("kept/b", "taken back", retained);
    speaker.publish("kept/b", "", retained);
    // A publisher at QoS 2 that is cut off between PUBREC and PUBREL.
    let (mut cut, _) = Peer::accepted(site.mqtt, &kept(ProtocolVersion::V5, "cut", HOUR));
    let id = cut.publish_as("news/once", "three", at(2));
    assert_eq!(cut.next(), Event::PubRec(id, ReasonCode::Success));
    site.gateway.kill();
    site.gateway.start();
    let (mut cut, present) = Peer::accepted(site.mqtt, &kept(ProtocolVersion::V5, "cut", HOUR));
    assert!(present);
    let again = How {
        qos: 2,
        dup: true,
        ..How::default()
    };
    cut.publish_with_id("news/once", "three", again, id);
    assert_eq!(cut.next(), Event::PubRec(id, ReasonCode::Success));
    cut.release(id);
    assert_eq!(cut.next(), Event::PubComp(id, ReasonCode::Success));
    for version in VERSIONS {
        let name = format!("sleeper-{}", version.level());
        let (mut sleeper, present) = Peer::accepted(site.mqtt, &kept(version, &name, HOUR));
        assert!(present, "{version:?}");
        let payloads: Vec<String> = (0..3).map(|_| sleeper.take().payload).collect();
        assert_eq!(
            payloads,
            ["one", "two", "three"],
            "{version:?}: each once, in order"
        );
        sleeper.silent();
        sleeper.subscribe("kept/+", 1);
        let message = sleeper.take();
        assert_eq!((message.payload.as_str(), message.retain), ("still here", true));
        sleeper.silent();
    }
    // lost, one, two, still here, taken back, its removal, three: each once.
    let status = site.gateway.status();
    assert_eq!(status["journal"]["readings"], 7, "{:#}", status["journal"]);
}

#[test]
fn a_message_in_flight_is_sent_again_after_kill_9_with_its_identifier() {
    let mut site = gateway("");
    let (mut listener, _) = Peer::accepted(site.mqtt, &kept(ProtocolVersion::V311, "listener", &[]));
    listener.subscribe("t", 2);
    let mut speaker = Peer::connect(site.mqtt, ProtocolVersion::V5, "speaker");
    speaker.publish("t", "one", at(1));
    speaker.publish("t", "two", at(2));
    let first = [listener.message(), listener.message()];
    // At QoS 1 a message is on its way before the disk knows of it. What is acknowledged later is stored later.
    let retained = How {
        retain: true,
        ..at(1)
    };
    speaker.publish("elsewhere", "stored", retained);
    site.gateway.kill();
    site.gateway.start();
    let (mut listener, present) = Peer::accepted(site.mqtt, &kept(ProtocolVersion::V311, "listener", &[]));
    assert!(present);
    for before in first {
        let message = listener.take();
        assert_eq!(
            (message.payload, message.id),
            (before.payload, before.id),
            "[MQTT-4.4.0-1]"
        );
        assert!(message.dup, "[MQTT-3.3.1-1]");
    }
    listener.silent();
}

#[test]
fn a_slow_subscriber_is_shut_out_and_harms_nobody() {
    let site = gateway("queue_messages_max = 200\nqueue_bytes_max = \"1 MiB\"");
    let mut slow = Peer::connect(site.mqtt, ProtocolVersion::V5, "slow");
    slow.subscribe("flood/#", 1);
    let mut careless = Peer::connect(site.mqtt, ProtocolVersion::V5, "careless");
    careless.subscribe("flood/#", 0);
    let mut fast = Peer::connect(site.mqtt, ProtocolVersion::V5, "fast");
    fast.subscribe("flood/#", 1);
    let mut speaker = Peer::connect(site.mqtt, ProtocolVersion::V5, "speaker");
    let payload = "x".repeat(50_000);
    // More than all buffers between the gateway and a client that does not read.
    let mut shut_out = None;
    for number in 0..600 {
        let payload = format!("{number} {payload}");
        speaker.publish("flood/a", &payload, at(1));
        assert_eq!(fast.take().payload, payload, "number {number}");
        // Neither of the two has read a byte. The first is told, once it does, for as long as the kernel keeps it.
        if number % 20 == 19 && shut_out.is_none() && site.gateway.status()["mqtt"]["slow_consumers"] == 1 {
            let mut seen = 0;
            shut_out = Some(loop {
                match slow.next() {
                    Event::Message(_) => seen += 1,
                    other => break (seen, other),
                }
            });
        }
    }
    let (seen, end) = shut_out.expect("600 messages are too many for it");
    assert_eq!(end, Event::Disconnect(ReasonCode::QuotaExceeded));
    assert!(seen < 200, "{seen}");
    assert_eq!(slow.next(), Event::End);
    // The other misses messages at QoS 0 and nothing else.
    careless.send_raw(&[0xc0, 0]);
    let mut seen = 0;
    while let Event::Message(_) = careless.next() {
        seen += 1;
    }
    assert!((1..600).contains(&seen), "{seen}");
    let status = site.gateway.status();
    assert_eq!(status["mqtt"]["slow_consumers"], 1, "{:#}", status["mqtt"]);
}

#[test]
fn a_device_hears_its_own_topics_and_what_its_entry_lets_it() {
    let mut site = Site::new().without_broker();
    let (password, hash) = device_password("press-2");
    site.gateway.append(&format!(
        "\n[[mqtt.device]]\nname = \"press-2\"\npassword_hash = \"{hash}\"\npublish = [\"{{device}}/#\", \"hall\"]\nsubscribe = [\"hall/#\", \"{{device}}/in/+\", \"$SYS/broker/version\"]\n"
    ));
    site.gateway.start();
    let log_in = |name: &'static str, password: &'static str, version| Connect {
        username: Some(name),
        password: Some(password.as_bytes()),
        ..fresh(version, "c")
    };
    let (own, other): (&'static str, &'static str) = (site.password.clone().leak(), password.leak());
    let mut pump = Peer::accepted(site.mqtt, &log_in(DEVICE, own, ProtocolVersion::V5)).0;
    let mut press = Peer::accepted(site.mqtt, &log_in("press-2", other, ProtocolVersion::V311)).0;
    let asked = ["pump-7/#", "pump-7/+/x", "#", "press-2/a", "+/a", "$SYS/#"].map(|filter| wants(filter, 1));
    assert_eq!(pump.subscribe_with(&asked, &[]), [1, 1, 0x87, 0x87, 0x87, 0x87]);
    let asked: [Subscription<'_>; 6] = [
        "hall/#",
        "press-2/in/a",
        "press-2/in/#",
        "pump-7/a",
        "$SYS/broker/version",
        "$share/g/#",
    ]
    .map(|filter| wants(filter, 0));
    assert_eq!(press.subscribe_with(&asked, &[]), [0, 0, 0x80, 0x80, 0, 0x80]);
    let version = press.take();
    assert_eq!(version.payload, env!("CARGO_PKG_VERSION"));
    press.publish("hall", "both", at(0));
    assert_eq!(press.take().payload, "both");
    pump.silent();
}

#[test]
fn an_address_that_connects_too_fast_is_shut_out_for_a_while() {
    let mut site = Site::new().without_broker();
    site.gateway.edit(
        "alarm_topics = ",
        "anonymous = true\nconnects_per_second_max = 1\nalarm_topics = ",
    );
    site.gateway
        .edit("name = \"gateway-1\"\n", "name = \"gateway-1\"\nshards = 1\n");
    site.gateway.start();
    let watch = Stopwatch::start();
    let peers: Vec<Peer> = (0..10)
        .map(|number| Peer::connect(site.mqtt, ProtocolVersion::V5, &format!("c{number}")))
        .collect();
    let mut refused = 0;
    for _ in 0..10 {
        let mut peer = Peer::dial(site.mqtt, ProtocolVersion::V5);
        // The reset may come before or after what is sent.
        if !peer.try_send_raw(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00")
            || peer.next() == Event::End
        {
            refused += 1;
        }
    }
    // A burst of ten, and one more for each second that has passed.
    let more = watch.elapsed().as_secs() + 1;
    assert!(
        refused + more >= 10,
        "{refused} of 10 were refused after {more} s"
    );
    for mut peer in peers {
        peer.silent();
    }
}

#[test]
fn a_will_goes_to_subscribers_and_to_the_collector() {
    let mut site = Site::new().without_broker();
    site.gateway
        .edit("alarm_topics = ", "anonymous = true\nalarm_topics = ");
    site.start();
    let mut listener = Peer::connect(site.mqtt, ProtocolVersion::V5, "listener");
    listener.subscribe("wills/+", 1);
    let properties = [Property::WillDelayInterval(1)];
    let connect = Connect {
        will: Some(will("wills/late", b"gone", &properties)),
        ..kept(ProtocolVersion::V5, "late", HOUR)
    };
    let (late, _) = Peer::accepted(site.mqtt, &connect);
    let watch = Stopwatch::start();
    drop(late);
    let message = listener.take();
    assert_eq!(
        (message.topic.as_str(), message.payload.as_str()),
        ("wills/late", "gone")
    );
    let waited = watch.elapsed().as_millis();
    assert!(waited >= 990, "{waited} ms");
    let readings = site.wait_readings(1);
    assert_eq!(
        (&readings[0]["device"], &readings[0]["payload"]),
        (&"late".into(), &"gone".into())
    );
}
