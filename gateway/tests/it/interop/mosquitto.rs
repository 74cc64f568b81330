//! mosquitto's own clients: one `mosquitto_sub` for what a client hears, and a `mosquitto_pub` for each message it says.

use std::collections::VecDeque;

use rustix::process::Signal;

use super::client::{Client, Message, Place, Properties, Transport};
use crate::harness::process::{CLIENT_TIME, Process, command, run_with_input};

/// A pair of mosquitto's clients under one name.
#[derive(Default)]
pub(super) struct Mosquitto {
    place: Option<Place>,
    /// What the session has subscribed to; the program must say it at each start.
    filter: Option<(String, u8)>,
    subscriber: Option<Process>,
    early: VecDeque<Message>,
}

impl Mosquitto {
    fn place(&self) -> &Place {
        self.place.as_ref().expect("it is connected")
    }

    /// Arguments that both programs take.
    fn arguments(&self, id: &str) -> Vec<String> {
        let place = self.place();
        let version = if place.version == 5 { "mqttv5" } else { "mqttv311" };
        let port = place.port.to_string();
        let mut words = vec!["-h", &place.host, "-p", &port, "-V", version, "-i", id];
        if place.transport == Transport::Tls {
            words.extend([
                "--cafile",
                &place.ca,
                "--cert",
                &place.certificate,
                "--key",
                &place.key,
            ]);
        }
        words.into_iter().map(str::to_owned).collect()
    }

    fn listen(&mut self) {
        let place = self.place();
        let (filter, qos) = self.filter.clone().expect("it has subscribed");
        let expiry = place.expiry_secs.to_string();
        let mut listener = command(&["stdbuf", "-oL", "mosquitto_sub", "-d", "-F", FORMAT]);
        listener.args(self.arguments(&place.id));
        listener.args(["-t", &filter, "-q", &qos.to_string()]);
        if !place.clean {
            listener.arg("-c");
            if place.version == 5 {
                listener.args(["-x", &expiry]);
            }
        }
        if let Some(will) = &place.will {
            listener.args(["--will-topic", &will.topic, "--will-payload", &will.payload]);
            listener.args(["--will-qos", &will.qos.to_string()]);
        }
        let mut listener = Process::spawn("mosquitto_sub", &mut listener);
        // What the session has kept comes before the answer to the subscription.
        let early = &mut self.early;
        early.clear();
        let granted = listener.wait_for("SUBACK", |line| {
            early.extend(line.strip_prefix("message|").and_then(parse));
            line.starts_with("Subscribed (mid: ").then(|| line.to_owned())
        });
        assert!(granted.ends_with(&format!(": {qos}")), "{granted}");
        self.subscriber = Some(listener);
    }
}

impl Client for Mosquitto {
    fn connect(&mut self, place: &Place) -> Option<bool> {
        let is_back = self.place.as_ref().is_some_and(|before| before.id == place.id);
        self.place = Some(place.clone());
        if is_back && self.filter.is_some() {
            self.listen();
        }
        // It does not say whether a session was there.
        None
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        self.filter = Some((filter.to_owned(), qos));
        self.listen();
    }

    fn publish(&mut self, message: &Message) {
        let limit = CLIENT_TIME.as_secs().to_string();
        let mut speaker = command(&["timeout", &limit, "mosquitto_pub"]);
        speaker.args(self.arguments(&format!("{}-says", self.place().id)));
        speaker.args(["-t", &message.topic, "-q", &message.qos.to_string()]);
        // An empty payload cannot come from standard input.
        speaker.arg(if message.payload.is_empty() { "-n" } else { "-s" });
        if message.retain {
            speaker.arg("-r");
        }
        let properties = &message.properties;
        let expiry = properties.expiry_secs.map(|secs| secs.to_string());
        for (name, value) in [
            ("content-type", &properties.content_type),
            ("response-topic", &properties.response_topic),
            ("correlation-data", &properties.correlation_data),
            ("message-expiry-interval", &expiry),
        ] {
            if let Some(value) = value {
                speaker.args(["-D", "publish", name, value]);
            }
        }
        for (name, value) in &properties.user {
            speaker.args(["-D", "publish", "user-property", name, value]);
        }
        run_with_input(&mut speaker, message.payload.as_bytes()).expect(0);
    }

    fn message(&mut self) -> Message {
        if let Some(early) = self.early.pop_front() {
            return early;
        }
        let listener = self.subscriber.as_mut().expect("it has subscribed");
        listener.wait_for("message", |line| parse(line.strip_prefix("message|")?))
    }

    fn disconnect(&mut self) {
        if let Some(mut listener) = self.subscriber.take() {
            listener.signal(Signal::TERM);
            listener.wait();
        }
    }

    fn leaves_with_will(&self) -> bool {
        // When a signal ends it.
        self.place().version == 5
    }

    fn vanish(&mut self) {
        self.subscriber.take().expect("it has subscribed").kill();
    }
}

/// Takes a line of [`FORMAT`] apart.
fn parse(line: &str) -> Option<Message> {
    let parts: Vec<&str> = line.splitn(9, '|').collect();
    let [
        qos,
        retain,
        topic,
        content_type,
        response_topic,
        correlation_data,
        expiry,
        user,
        payload,
    ] = parts[..]
    else {
        return None;
    };
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let pairs = user.split(' ').filter_map(|pair| pair.split_once(':'));
    Some(Message {
        topic: topic.to_owned(),
        payload: payload.to_owned(),
        qos: qos.parse().ok()?,
        retain: retain == "1",
        properties: Properties {
            content_type: given(content_type),
            response_topic: given(response_topic),
            correlation_data: given(correlation_data),
            expiry_secs: expiry.parse().ok(),
            user: pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        },
    })
}

/// A message in one line; properties that are not there are empty.
const FORMAT: &str = "message|%q|%r|%t|%C|%R|%D|%E|%P|%p";
