//! rumqttc, in a thread of this process. It speaks TCP here: its TLS brings a cryptographic library that this workspace bans.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use rumqttc::v5::mqttbytes::{self as v5, v5 as packets};
use tokio::sync::oneshot;

use super::client::{Client, Message, Place, Properties};
use crate::harness::wait::PATIENCE;

/// A client, with what its event loop tells.
#[derive(Default)]
pub(super) struct Rumqtt {
    running: Option<Running>,
    early: VecDeque<Message>,
}

struct Running {
    handle: Handle,
    events: Receiver<Happened>,
    cut: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Where wishes go, by version.
enum Handle {
    V311(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// What the event loop has seen.
#[derive(Debug)]
enum Happened {
    Connected(bool),
    Subscribed(u8),
    Published,
    Arrived(Message),
    Gone,
    Failed(String),
}

impl Rumqtt {
    fn running(&self) -> &Running {
        self.running.as_ref().expect("it is connected")
    }

    /// Waits for what `want` takes; messages before it stay to be taken.
    fn wait<T>(&mut self, what: &str, want: impl Fn(&Happened) -> Option<T>) -> T {
        loop {
            let happened = self.running().events.recv_timeout(PATIENCE);
            let happened = happened.unwrap_or_else(|error| panic!("no {what}: {error}"));
            if let Some(found) = want(&happened) {
                return found;
            }
            match happened {
                Happened::Arrived(message) => self.early.push_back(message),
                Happened::Failed(why) => panic!("no {what}: {why}"),
                Happened::Connected(_) | Happened::Subscribed(_) | Happened::Published | Happened::Gone => {}
            }
        }
    }

    /// Ends the event loop, which closes the connection if it is still there.
    fn end(&mut self) {
        let running = self.running.take().expect("it is connected");
        // It may have ended by itself.
        let _ = running.cut.send(());
        running.thread.join().expect("the event loop does not panic");
    }
}

impl Client for Rumqtt {
    fn connect(&mut self, place: &Place) -> Option<bool> {
        let (tell, events) = channel();
        let (cut, is_cut) = oneshot::channel();
        self.early.clear();
        let (handle, thread) = if place.version == 5 {
            let (client, events) = rumqttc::v5::AsyncClient::new(options_v5(place), CAPACITY);
            (
                Handle::V5(client),
                thread::spawn(move || poll(poll_v5(events, tell), is_cut)),
            )
        } else {
            let (client, mut events) = rumqttc::AsyncClient::new(options_v311(place), CAPACITY);
            let mut network = rumqttc::NetworkOptions::new();
            network.set_connection_timeout(PATIENCE.as_secs());
            events.set_network_options(network);
            (
                Handle::V311(client),
                thread::spawn(move || poll(poll_v311(events, tell), is_cut)),
            )
        };
        self.running = Some(Running {
            handle,
            events,
            cut,
            thread,
        });
        Some(self.wait("CONNACK", |happened| match happened {
            Happened::Connected(present) => Some(*present),
            _ => None,
        }))
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        match &self.running().handle {
            Handle::V311(client) => client.try_subscribe(filter, quality(qos)).expect("it runs"),
            Handle::V5(client) => client.try_subscribe(filter, quality_v5(qos)).expect("it runs"),
        }
        let granted = self.wait("SUBACK", |happened| match happened {
            Happened::Subscribed(code) => Some(*code),
            _ => None,
        });
        assert_eq!(granted, qos, "{filter}");
    }

    fn publish(&mut self, message: &Message) {
        let (topic, payload, retain) = (message.topic.clone(), message.payload.clone(), message.retain);
        match &self.running().handle {
            Handle::V311(client) => client
                .try_publish(topic, quality(message.qos), retain, payload)
                .expect("it runs"),
            Handle::V5(client) => client
                .try_publish_with_properties(
                    topic,
                    quality_v5(message.qos),
                    retain,
                    payload,
                    publish_properties(&message.properties),
                )
                .expect("it runs"),
        }
        self.wait("acknowledgement", |happened| {
            matches!(happened, Happened::Published).then_some(())
        });
    }

    fn message(&mut self) -> Message {
        if let Some(early) = self.early.pop_front() {
            return early;
        }
        self.wait("message", |happened| match happened {
            Happened::Arrived(message) => Some(message.clone()),
            _ => None,
        })
    }

    fn disconnect(&mut self) {
        match &self.running().handle {
            Handle::V311(client) => client.try_disconnect().expect("it runs"),
            Handle::V5(client) => client.try_disconnect().expect("it runs"),
        }
        self.wait("goodbye", |happened| {
            matches!(happened, Happened::Gone).then_some(())
        });
        self.end();
    }

    fn vanish(&mut self) {
        self.end();
    }
}

/// Runs an event loop until it ends, or is cut off: then its connection is dropped as it is.
fn poll(events: impl Future<Output = ()>, is_cut: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the kernel has an epoll").block_on(async {
        tokio::select! {
            () = events => {}
            _ = is_cut => {}
        }
    });
}

async fn poll_v311(mut events: rumqttc::EventLoop, tell: Sender<Happened>) {
    use rumqttc::{Event, Outgoing, Packet};
    loop {
        let happened = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => Happened::Connected(connack.session_present),
            Ok(Event::Incoming(Packet::SubAck(suback))) => {
                Happened::Subscribed(match suback.return_codes[0] {
                    rumqttc::SubscribeReasonCode::Success(qos) => qos as u8,
                    rumqttc::SubscribeReasonCode::Failure => 0x80,
                })
            }
            Ok(
                Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))
                | Event::Outgoing(Outgoing::Publish(0)),
            ) => Happened::Published,
            Ok(Event::Incoming(Packet::Publish(publish))) => Happened::Arrived(Message {
                topic: publish.topic,
                payload: String::from_utf8_lossy(&publish.payload).into_owned(),
                qos: publish.qos as u8,
                retain: publish.retain,
                properties: Properties::default(),
            }),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => Happened::Gone,
            Ok(_) => continue,
            Err(error) => Happened::Failed(error.to_string()),
        };
        if !pass_on(happened, &tell) {
            return;
        }
    }
}

async fn poll_v5(mut events: rumqttc::v5::EventLoop, tell: Sender<Happened>) {
    use packets::{Packet, SubscribeReasonCode};
    use rumqttc::{Outgoing, v5::Event};
    loop {
        let happened = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => Happened::Connected(connack.session_present),
            Ok(Event::Incoming(Packet::SubAck(suback))) => {
                Happened::Subscribed(match suback.return_codes[0] {
                    SubscribeReasonCode::Success(qos) => qos as u8,
                    _ => 0x80,
                })
            }
            Ok(
                Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))
                | Event::Outgoing(Outgoing::Publish(0)),
            ) => Happened::Published,
            Ok(Event::Incoming(Packet::Publish(publish))) => Happened::Arrived(arrived(publish)),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => Happened::Gone,
            Ok(_) => continue,
            Err(error) => Happened::Failed(error.to_string()),
        };
        if !pass_on(happened, &tell) {
            return;
        }
    }
}

/// Returns whether there is more to come.
fn pass_on(happened: Happened, tell: &Sender<Happened>) -> bool {
    let is_last = matches!(happened, Happened::Gone | Happened::Failed(_));
    tell.send(happened).is_ok() && !is_last
}

fn arrived(publish: packets::Publish) -> Message {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let properties = publish.properties.unwrap_or_default();
    Message {
        topic: text(&publish.topic),
        payload: text(&publish.payload),
        qos: publish.qos as u8,
        retain: publish.retain,
        properties: Properties {
            content_type: properties.content_type,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data.map(|data| text(&data)),
            expiry_secs: properties.message_expiry_interval,
            user: properties.user_properties,
        },
    }
}

fn publish_properties(wanted: &Properties) -> packets::PublishProperties {
    packets::PublishProperties {
        content_type: wanted.content_type.clone(),
        response_topic: wanted.response_topic.clone(),
        correlation_data: wanted.correlation_data.clone().map(Into::into),
        message_expiry_interval: wanted.expiry_secs,
        user_properties: wanted.user.clone(),
        ..packets::PublishProperties::default()
    }
}

fn options_v311(place: &Place) -> rumqttc::MqttOptions {
    let mut options = rumqttc::MqttOptions::new(&place.id, &place.host, place.port);
    options.set_clean_session(place.clean);
    options.set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize);
    if let Some(will) = &place.will {
        let (topic, payload) = (will.topic.clone(), will.payload.clone());
        options.set_last_will(rumqttc::LastWill::new(
            topic,
            payload,
            quality(will.qos),
            will.retain,
        ));
    }
    options
}

fn options_v5(place: &Place) -> rumqttc::v5::MqttOptions {
    let mut options = rumqttc::v5::MqttOptions::new(&place.id, &place.host, place.port);
    options.set_clean_start(place.clean);
    options.set_connection_timeout(PATIENCE.as_secs());
    options.set_session_expiry_interval(Some(place.expiry_secs));
    options.set_max_packet_size(Some(PACKET_BYTES_MAX));
    if let Some(will) = &place.will {
        let (topic, payload) = (will.topic.clone(), will.payload.clone());
        options.set_last_will(packets::LastWill::new(
            topic,
            payload,
            quality_v5(will.qos),
            will.retain,
            None,
        ));
    }
    options
}

fn quality(qos: u8) -> rumqttc::QoS {
    rumqttc::qos(qos).expect("0 to 2")
}

fn quality_v5(qos: u8) -> v5::QoS {
    v5::qos(qos).expect("0 to 2")
}

/// Wishes that may wait.
const CAPACITY: usize = 16;
/// Largest packet in bytes; rumqttc's own bound is 10 KiB.
const PACKET_BYTES_MAX: u32 = 1 << 20;
