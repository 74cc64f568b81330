//! An MQTT client that does exactly what a test says and shows exactly what comes back.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use fieldgate_mqtt::{
    frame::{Split, split},
    packet::{
        Packet, PacketIdentifier, Qos,
        acknowledgement::Acknowledgement,
        connect::{Connect, Will},
        disconnect::Disconnect,
        publish::Publish,
        subscribe::{RetainHandling, Subscribe, Subscription, Subscriptions},
        unsubscribe::{Filters, Unsubscribe},
    },
    property::{Properties, Property},
    reason::ReasonCode,
    version::ProtocolVersion,
};

use crate::harness::wait::PATIENCE;

/// Both versions, for tests that hold for each.
pub(crate) const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V311, ProtocolVersion::V5];

/// A connection.
pub(crate) struct Peer {
    stream: TcpStream,
    pub(crate) version: ProtocolVersion,
    received: Vec<u8>,
    /// Messages that came while something else was waited for.
    early: VecDeque<Event>,
    next_id: u16,
}

/// What came, without what borrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    ConnAck {
        session_present: bool,
        reason: ReasonCode,
        properties: Vec<String>,
    },
    Message(Message),
    PubAck(u16, ReasonCode),
    PubRec(u16, ReasonCode),
    PubRel(u16, ReasonCode),
    PubComp(u16, ReasonCode),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    Disconnect(ReasonCode),
    PingResp,
    End,
}

/// A PUBLISH that came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) id: u16,
    pub(crate) properties: Vec<String>,
}

/// What a PUBLISH of a test says beside topic and payload.
#[derive(Clone, Copy, Default)]
pub(crate) struct How<'a> {
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) properties: &'a [Property<'a>],
}

/// A CONNECT with an empty session that ends with its connection.
pub(crate) const fn fresh(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    Connect {
        version,
        clean_start: true,
        keep_alive_secs: 0,
        client_id,
        will: None,
        username: None,
        password: None,
        properties: Properties::EMPTY,
    }
}

/// A CONNECT that takes up a session and keeps it. For MQTT 5.0 put a session expiry interval into its properties.
pub(crate) const fn kept<'a>(
    version: ProtocolVersion,
    client_id: &'a str,
    properties: &'a [Property<'a>],
) -> Connect<'a> {
    Connect {
        clean_start: false,
        properties: match version {
            ProtocolVersion::V311 => Properties::EMPTY,
            ProtocolVersion::V5 => Properties::from_list(properties),
        },
        ..fresh(version, client_id)
    }
}

/// Keeps a session for an hour.
pub(crate) const HOUR: &[Property<'static>] = &[Property::SessionExpiryInterval(3_600)];

/// A will at QoS 1.
pub(crate) const fn will<'a>(topic: &'a str, payload: &'a [u8], properties: &'a [Property<'a>]) -> Will<'a> {
    Will {
        qos: Qos::AtLeastOnce,
        retain: false,
        topic,
        payload,
        properties: Properties::from_list(properties),
    }
}

impl Peer {
    /// Connects the socket and sends nothing.
    pub(crate) fn dial(to: SocketAddr, version: ProtocolVersion) -> Self {
        let stream = TcpStream::connect(to).expect("the port is open");
        stream.set_nodelay(true).expect("it is a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("it is a socket");
        Self {
            stream,
            version,
            received: Vec::new(),
            early: VecDeque::new(),
            next_id: 1,
        }
    }

    /// Connects with `connect`; returns CONNACK as well.
    pub(crate) fn open(to: SocketAddr, connect: &Connect<'_>) -> (Self, Event) {
        let mut peer = Self::dial(to, connect.version);
        peer.send(&Packet::Connect(*connect));
        let answer = peer.next();
        (peer, answer)
    }

    /// Connects with `connect` and wants to be accepted; says whether a session was present.
    pub(crate) fn accepted(to: SocketAddr, connect: &Connect<'_>) -> (Self, bool) {
        let (peer, answer) = Self::open(to, connect);
        let Event::ConnAck {
            session_present,
            reason: ReasonCode::Success,
            ..
        } = answer
        else {
            panic!("not accepted: {answer:?}")
        };
        (peer, session_present)
    }

    /// Connects with an empty session.
    pub(crate) fn connect(to: SocketAddr, version: ProtocolVersion, client_id: &str) -> Self {
        Self::accepted(to, &fresh(version, client_id)).0
    }

    pub(crate) fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).expect("a good packet");
        self.send_raw(&bytes);
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection is open");
    }

    /// Sends bytes to a gateway that may have closed.
    pub(crate) fn try_send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    fn id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Sends a PUBLISH; returns its packet identifier, 0 at QoS 0.
    pub(crate) fn publish_as(&mut self, topic: &str, payload: &str, how: How<'_>) -> u16 {
        let id = if how.qos == 0 { 0 } else { self.id() };
        self.publish_with_id(topic, payload, how, id);
        id
    }

    pub(crate) fn publish_with_id(&mut self, topic: &str, payload: &str, how: How<'_>, id: u16) {
        self.send(&Packet::Publish(Publish {
            dup: how.dup,
            qos: Qos::from_code(how.qos).expect("0 to 2"),
            retain: how.retain,
            topic,
            packet_id: PacketIdentifier::new(id),
            properties: Properties::from_list(how.properties),
            payload: payload.as_bytes(),
        }));
    }

    /// Publishes and goes through with it until the gateway has acknowledged.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str, how: How<'_>) {
        let id = self.publish_as(topic, payload, how);
        match how.qos {
            0 => {}
            1 => assert_eq!(self.answer(), Event::PubAck(id, ReasonCode::Success)),
            _ => {
                assert_eq!(self.answer(), Event::PubRec(id, ReasonCode::Success));
                self.release(id);
                assert_eq!(self.answer(), Event::PubComp(id, ReasonCode::Success));
            }
        }
    }

    pub(crate) fn release(&mut self, id: u16) {
        self.send(&Packet::PubRel(acknowledgement(id)));
    }

    /// Subscribes and returns the codes of SUBACK.
    pub(crate) fn subscribe_with(
        &mut self,
        subscriptions: &[Subscription<'_>],
        properties: &[Property<'_>],
    ) -> Vec<u8> {
        let id = self.id();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketIdentifier::new(id).expect("not 0"),
            properties: Properties::from_list(properties),
            subscriptions: Subscriptions::from_list(subscriptions),
        }));
        let Event::SubAck(answered, codes) = self.answer() else {
            panic!("no SUBACK")
        };
        assert_eq!(answered, id);
        codes
    }

    /// Subscribes to one filter and wants to be granted the quality.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        assert_eq!(self.subscribe_with(&[wants(filter, qos)], &[]), [qos], "{filter}");
    }

    /// Unsubscribes and returns the codes of UNSUBACK, none in MQTT 3.1.1.
    pub(crate) fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.id();
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id: PacketIdentifier::new(id).expect("not 0"),
            properties: Properties::EMPTY,
            filters: Filters::from_list(filters),
        }));
        let Event::UnsubAck(answered, codes) = self.answer() else {
            panic!("no UNSUBACK")
        };
        assert_eq!(answered, id);
        codes
    }

    /// Acknowledges a message to its end.
    pub(crate) fn acknowledge(&mut self, message: &Message) {
        match message.qos {
            0 => {}
            1 => self.send(&Packet::PubAck(acknowledgement(message.id))),
            _ => {
                self.send(&Packet::PubRec(acknowledgement(message.id)));
                assert_eq!(self.answer(), Event::PubRel(message.id, ReasonCode::Success));
                self.send(&Packet::PubComp(acknowledgement(message.id)));
            }
        }
    }

    /// Waits for a message and acknowledges it.
    pub(crate) fn take(&mut self) -> Message {
        let message = self.message();
        self.acknowledge(&message);
        message
    }

    /// Waits for a message and leaves it unacknowledged.
    pub(crate) fn message(&mut self) -> Message {
        match self.next() {
            Event::Message(message) => message,
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// Wants that nothing comes: what the gateway had to say would come before the answer to a ping.
    pub(crate) fn silent(&mut self) {
        self.send(&Packet::PingReq);
        assert_eq!(self.next(), Event::PingResp);
    }

    /// Says goodbye and waits for the end.
    pub(crate) fn disconnect(self) {
        self.disconnect_with(ReasonCode::Success, &[]);
    }

    pub(crate) fn disconnect_with(mut self, reason: ReasonCode, properties: &[Property<'_>]) {
        self.send(&Packet::Disconnect(Disconnect {
            reason,
            properties: Properties::from_list(properties),
        }));
        assert_eq!(self.next(), Event::End);
    }

    /// Waits for a packet that is no message; messages before it stay to be taken.
    fn answer(&mut self) -> Event {
        loop {
            match self.receive() {
                message @ Event::Message(_) => self.early.push_back(message),
                answer => return answer,
            }
        }
    }

    /// Waits for the next packet.
    pub(crate) fn next(&mut self) -> Event {
        match self.early.pop_front() {
            Some(early) => early,
            None => self.receive(),
        }
    }

    fn receive(&mut self) -> Event {
        loop {
            match split(&self.received, u32::MAX).expect("the gateway sends packets") {
                Split::Complete { frame, rest } => {
                    let packet =
                        Packet::decode(&frame, self.version).expect("the gateway sends good packets");
                    let (event, left) = (event(&packet), rest.len());
                    self.received.drain(..self.received.len() - left);
                    return event;
                }
                Split::Incomplete { .. } => {}
            }
            let mut bytes = [0; 65_536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Event::End,
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Event::End,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }
}

/// A subscription without options.
pub(crate) fn wants(filter: &str, qos: u8) -> Subscription<'_> {
    Subscription {
        filter,
        qos: Qos::from_code(qos).expect("0 to 2"),
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    }
}

fn acknowledgement(id: u16) -> Acknowledgement<'static> {
    Acknowledgement {
        packet_id: PacketIdentifier::new(id).expect("not 0"),
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    }
}

fn event(packet: &Packet<'_>) -> Event {
    match packet {
        Packet::ConnAck(packet) => Event::ConnAck {
            session_present: packet.session_present,
            reason: packet.reason,
            properties: texts(&packet.properties),
        },
        Packet::Publish(packet) => Event::Message(Message {
            topic: packet.topic.to_owned(),
            payload: String::from_utf8_lossy(packet.payload).into_owned(),
            qos: packet.qos.code(),
            retain: packet.retain,
            dup: packet.dup,
            id: packet.packet_id.map_or(0, PacketIdentifier::get),
            properties: texts(&packet.properties),
        }),
        Packet::PubAck(packet) => Event::PubAck(packet.packet_id.get(), packet.reason),
        Packet::PubRec(packet) => Event::PubRec(packet.packet_id.get(), packet.reason),
        Packet::PubRel(packet) => Event::PubRel(packet.packet_id.get(), packet.reason),
        Packet::PubComp(packet) => Event::PubComp(packet.packet_id.get(), packet.reason),
        Packet::SubAck(packet) => {
            let codes = packet.reasons.iter().map(ReasonCode::code).collect();
            Event::SubAck(packet.packet_id.get(), codes)
        }
        Packet::UnsubAck(packet) => {
            let codes = packet.reasons.iter().map(ReasonCode::code).collect();
            Event::UnsubAck(packet.packet_id.get(), codes)
        }
        Packet::Disconnect(packet) => Event::Disconnect(packet.reason),
        Packet::PingResp => Event::PingResp,
        other => panic!("{other:?} from a gateway"),
    }
}

/// Properties as `identifier=value`, for those that tests look at.
fn texts(properties: &Properties<'_>) -> Vec<String> {
    properties
        .iter()
        .map(|property| match property {
            Property::PayloadFormatIndicator(value) => format!("text={value}"),
            Property::MessageExpiryInterval(value) => format!("expiry={value}"),
            Property::ContentType(value) => format!("type={value}"),
            Property::ResponseTopic(value) => format!("response={value}"),
            Property::CorrelationData(value) => format!("correlation={value:?}"),
            Property::SubscriptionIdentifier(value) => format!("subscription={}", value.0),
            Property::TopicAlias(value) => format!("alias={value}"),
            Property::UserProperty((name, value)) => format!("{name}:{value}"),
            Property::AssignedClientIdentifier(_) => "assigned".to_owned(),
            Property::ServerKeepAlive(value) => format!("keep alive={value}"),
            Property::SessionExpiryInterval(value) => format!("session expiry={value}"),
            Property::ResponseInformation(value) => format!("responses={value}"),
            Property::ReasonString(_) => "reason".to_owned(),
            other => format!("{other:?}"),
        })
        .collect()
}
