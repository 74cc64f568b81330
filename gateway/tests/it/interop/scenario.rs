//! One scenario for every client, version and transport.

use super::client::{Client, Message, Place, Properties};

/// Makes clients of one kind.
pub(super) type Make = fn() -> Box<dyn Client>;

/// Goes through everything at one place. Clients of the kind stand at both ends, and the gateway between them.
pub(super) fn run(make: Make, place: &Place) {
    let mut speaker = make();
    speaker.connect(&place.of("speaker"));
    qualities(make, place, speaker.as_mut());
    retained(make, place, speaker.as_mut());
    if place.version == 5 {
        properties(make, place, speaker.as_mut());
    }
    kept_session(make, place, speaker.as_mut());
    will(make, place);
    shared_subscription(make, place, speaker.as_mut());
    speaker.disconnect();
}

/// QoS 0, 1 and 2, from and to the client; text outside ASCII; a large payload.
fn qualities(make: Make, place: &Place, speaker: &mut dyn Client) {
    let mut listener = make();
    let present = listener.connect(&place.of("listener"));
    assert_ne!(present, Some(true), "a clean session is empty");
    let topic = format!("i/{}/über", place.id);
    listener.subscribe(&format!("i/{}/+", place.id), 2);
    let large = "0123456789".repeat(LARGE_BYTES / 10);
    for qos in 0..=2 {
        for payload in ["21.5 °C", &large] {
            let message = Message::new(&topic, payload, qos);
            speaker.publish(&message);
            assert_eq!(listener.message(), message);
        }
    }
    listener.disconnect();
}

/// A retained message comes to who subscribes later, and is gone after an empty one.
fn retained(make: Make, place: &Place, speaker: &mut dyn Client) {
    let topic = format!("i/{}/kept/value", place.id);
    let filter = format!("i/{}/kept/#", place.id);
    for round in ["first", "second"] {
        speaker.publish(&Message::new(&topic, round, 1).retained());
        let mut late = make();
        late.connect(&place.of("late"));
        late.subscribe(&filter, 1);
        assert_eq!(late.message(), Message::new(&topic, round, 1).retained());
        late.disconnect();
    }
    speaker.publish(&Message::new(&topic, "", 1).retained());
    let mut later = make();
    later.connect(&place.of("later"));
    later.subscribe(&filter, 1);
    // What came first would be the retained one.
    let mark = Message::new(&topic, "a mark", 1);
    speaker.publish(&mark);
    assert_eq!(later.message(), mark);
    later.disconnect();
}

/// The properties of MQTT 5.0 that go from end to end.
fn properties(make: Make, place: &Place, speaker: &mut dyn Client) {
    let mut listener = make();
    listener.connect(&place.of("reader"));
    let topic = format!("i/{}/request", place.id);
    listener.subscribe(&topic, 1);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let sent = Message {
        properties: Properties {
            content_type: Some("application/json".to_owned()),
            response_topic: Some(format!("i/{}/response", place.id)),
            correlation_data: Some("request-7".to_owned()),
            expiry_secs: Some(3_600),
            user: vec![pair("unit", "celsius"), pair("site", "north"), pair("unit", "K")],
        },
        ..Message::new(&topic, "{}", 1)
    };
    speaker.publish(&sent);
    let mut arrived = listener.message();
    let left = arrived.properties.expiry_secs.expect("it has not expired");
    assert!((3_540..=3_600).contains(&left), "{left} s left");
    arrived.properties.expiry_secs = Some(3_600);
    // A client may hand the pairs over by name; those of one name keep their order (§3.3.2.3.7).
    let by_name = |message: &Message| {
        let mut pairs = message.properties.user.clone();
        pairs.sort_by(|one, other| one.0.cmp(&other.0));
        pairs
    };
    assert_eq!(by_name(&arrived), by_name(&sent));
    arrived.properties.user.clone_from(&sent.properties.user);
    assert_eq!(arrived, sent);
    listener.disconnect();
}

/// A session goes on where it was, with what came meanwhile.
fn kept_session(make: Make, place: &Place, speaker: &mut dyn Client) {
    let topic = format!("i/{}/while-away", place.id);
    let own = place.of("sleeper").kept();
    let mut sleeper = make();
    assert_ne!(sleeper.connect(&own), Some(true), "nobody was here");
    sleeper.subscribe(&topic, 2);
    sleeper.disconnect();
    let missed: Vec<Message> = (1..=2)
        .flat_map(|qos| ["a", "b"].map(|payload| Message::new(&topic, payload, qos)))
        .collect();
    for message in &missed {
        speaker.publish(message);
    }
    assert_ne!(sleeper.connect(&own), Some(false), "the session was kept");
    for message in missed {
        assert_eq!(sleeper.message(), message);
    }
    sleeper.disconnect();
}

/// The will of a client that vanishes.
fn will(make: Make, place: &Place) {
    let topic = format!("i/{}/will", place.id);
    let mut heir = make();
    heir.connect(&place.of("heir"));
    heir.subscribe(&topic, 1);
    for vanishes in [false, true] {
        let mut mortal = make();
        let will = Message::new(&topic, if vanishes { "gone" } else { "goodbye" }, 1);
        mortal.connect(&Place {
            will: Some(will.clone()),
            // The next must not take over who has not been read to the end.
            ..place.of(if vanishes { "mortal" } else { "leaver" })
        });
        mortal.subscribe(&format!("i/{}/nothing", place.id), 0);
        let is_heard = vanishes || mortal.leaves_with_will();
        if vanishes {
            mortal.vanish();
        } else {
            mortal.disconnect();
        }
        // Who says goodbye usually has no will: then the next that the heir hears is the other's.
        if is_heard {
            assert_eq!(heir.message(), will);
        }
    }
    heir.disconnect();
}

/// Of several that share a subscription, one gets each message.
fn shared_subscription(make: Make, place: &Place, speaker: &mut dyn Client) {
    let topic = format!("i/{}/work", place.id);
    let mut workers: Vec<Box<dyn Client>> = ["one", "two"]
        .into_iter()
        .map(|name| {
            let mut worker = make();
            worker.connect(&place.of(name));
            worker.subscribe(&format!("$share/crew/{topic}"), 1);
            worker
        })
        .collect();
    for number in 0..JOBS {
        speaker.publish(&Message::new(&topic, &number.to_string(), 1));
    }
    // Round robin: which has how many is known, and so is when all have come.
    let mut done: Vec<String> = Vec::new();
    for worker in &mut workers {
        done.extend((0..JOBS / 2).map(|_| worker.message().payload));
        worker.disconnect();
    }
    done.sort();
    let all: Vec<String> = (0..JOBS).map(|number| number.to_string()).collect();
    assert_eq!(done, all);
}

/// Bytes of a large payload: close below the 63 KiB of a packet.
const LARGE_BYTES: usize = 60_000;
/// Messages for those who share; one digit each.
const JOBS: usize = 8;
