//! The client of an MQTT broker in either version, as the sink sees it.

use std::time::Duration;

use rumqttc::{
    Outgoing,
    v5::{
        self,
        mqttbytes::{
            QoS as QoS5,
            v5::{PubAckReason, PublishProperties},
        },
    },
};

use fieldgate_config::settings::sink::MqttVersion;
use zeroize::Zeroizing;

/// Whom to connect to and as whom.
pub(crate) struct Connection {
    /// Version of MQTT.
    pub(crate) version: MqttVersion,
    /// Client identifier.
    pub(crate) client_id: String,
    /// Where the broker is.
    pub(crate) way: Way,
    /// User name and password.
    pub(crate) login: Option<(String, Zeroizing<String>)>,
    /// Publishes without PUBACK, at the most.
    pub(crate) inflight_max: u16,
}

/// Where the broker is reached.
pub(crate) enum Way {
    /// Over TCP: host and port.
    Tcp(String, u16),
    /// At this UNIX socket, behind which TLS begins.
    Socket(String),
}

/// A message for the broker.
pub(crate) struct Message {
    /// Topic name.
    pub(crate) topic: String,
    /// Payload.
    pub(crate) payload: Vec<u8>,
    /// Content type, MQTT 5 only.
    pub(crate) content_type: Option<String>,
    /// User properties, MQTT 5 only.
    pub(crate) user_properties: Vec<(String, String)>,
}

impl Message {
    /// Returns the size of its PUBLISH packet in MQTT 5, at the most.
    pub(crate) fn packet_bytes(&self) -> usize {
        let properties: usize = self
            .user_properties
            .iter()
            .map(|(name, text)| name.len() + text.len() + 5)
            .sum();
        let content_type = self.content_type.as_ref().map_or(0, |text| text.len() + 3);
        // Fixed header, topic length, packet identifier, length of the properties.
        self.topic.len() + self.payload.len() + properties + content_type + 13
    }
}

/// What the broker did, or the client.
pub(crate) enum Happening {
    /// The broker took the connection.
    Connected {
        /// Largest packet it takes, where it said one.
        packet_bytes_max: Option<u32>,
    },
    /// The next message has been sent, with this packet identifier.
    Sent(u16),
    /// The broker has the message with this packet identifier.
    Acknowledged(u16),
    /// The broker refuses the message with this packet identifier.
    Refused {
        /// Which.
        packet: u16,
        /// Why.
        reason: String,
        /// Whether it would be refused again.
        for_good: bool,
    },
    /// Nothing that matters.
    Other,
}

/// Hands messages to the client.
pub(crate) enum Client {
    /// MQTT 5.
    V5(v5::AsyncClient),
    /// MQTT 3.1.1.
    V311(rumqttc::AsyncClient),
}

/// Drives the client.
pub(crate) enum Events {
    /// MQTT 5.
    V5(Box<v5::EventLoop>),
    /// MQTT 3.1.1.
    V311(Box<rumqttc::EventLoop>),
}

/// Makes a client that knows nothing of those before.
pub(crate) fn open(connection: Connection) -> (Client, Events) {
    let capacity = usize::from(connection.inflight_max);
    match connection.version {
        MqttVersion::V5 => {
            let (host, port, transport) = connection.way.parts();
            let mut options = v5::MqttOptions::new(connection.client_id, host, port);
            options
                .set_transport(transport)
                .set_clean_start(true)
                .set_keep_alive(KEEP_ALIVE)
                .set_outgoing_inflight_upper_limit(connection.inflight_max);
            if let Some((user, password)) = &connection.login {
                options.set_credentials(user.clone(), password.as_str());
            }
            let (client, events) = v5::AsyncClient::new(options, capacity);
            (Client::V5(client), Events::V5(Box::new(events)))
        }
        MqttVersion::V311 => {
            let (host, port, transport) = connection.way.parts();
            let mut options = rumqttc::MqttOptions::new(connection.client_id, host, port);
            options
                .set_transport(transport)
                .set_clean_session(true)
                .set_keep_alive(KEEP_ALIVE)
                .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX)
                .set_inflight(connection.inflight_max);
            if let Some((user, password)) = &connection.login {
                options.set_credentials(user.clone(), password.as_str());
            }
            let (client, events) = rumqttc::AsyncClient::new(options, capacity);
            (Client::V311(client), Events::V311(Box::new(events)))
        }
    }
}

impl Way {
    fn parts(self) -> (String, u16, rumqttc::Transport) {
        match self {
            Self::Tcp(host, port) => (host, port, rumqttc::Transport::Tcp),
            Self::Socket(path) => (path, 0, rumqttc::Transport::Unix),
        }
    }
}

impl Client {
    /// Hands over a message at `QoS` 1; waits while too many are on their way.
    ///
    /// # Errors
    /// In words, if the client has ended.
    pub(crate) async fn publish(&self, message: Message) -> Result<(), String> {
        match self {
            Self::V5(client) => {
                let properties = PublishProperties {
                    content_type: message.content_type,
                    user_properties: message.user_properties,
                    ..PublishProperties::default()
                };
                client
                    .publish_with_properties(
                        message.topic,
                        QoS5::AtLeastOnce,
                        false,
                        message.payload,
                        properties,
                    )
                    .await
                    .map_err(|error| error.to_string())
            }
            Self::V311(client) => client
                .publish(message.topic, rumqttc::QoS::AtLeastOnce, false, message.payload)
                .await
                .map_err(|error| error.to_string()),
        }
    }
}

impl Events {
    /// Waits for what happens next.
    ///
    /// # Errors
    /// In words, when the connection ends or does not come about.
    pub(crate) async fn poll(&mut self) -> Result<Happening, String> {
        match self {
            Self::V5(events) => match events.poll().await.map_err(|error| error.to_string())? {
                v5::Event::Incoming(packet) => incoming_v5(packet),
                v5::Event::Outgoing(Outgoing::Publish(packet)) => Ok(Happening::Sent(packet)),
                v5::Event::Outgoing(_) => Ok(Happening::Other),
            },
            Self::V311(events) => match events.poll().await.map_err(|error| error.to_string())? {
                rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(_)) => Ok(Happening::Connected {
                    packet_bytes_max: None,
                }),
                rumqttc::Event::Incoming(rumqttc::Packet::PubAck(ack)) => {
                    Ok(Happening::Acknowledged(ack.pkid))
                }
                rumqttc::Event::Outgoing(Outgoing::Publish(packet)) => Ok(Happening::Sent(packet)),
                rumqttc::Event::Incoming(_) | rumqttc::Event::Outgoing(_) => Ok(Happening::Other),
            },
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a client that subscribes to nothing can get else does not matter"
)]
fn incoming_v5(packet: v5::Incoming) -> Result<Happening, String> {
    match packet {
        v5::Incoming::ConnAck(ack) => Ok(Happening::Connected {
            packet_bytes_max: ack.properties.and_then(|properties| properties.max_packet_size),
        }),
        v5::Incoming::PubAck(ack) => Ok(match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Happening::Acknowledged(ack.pkid),
            reason => Happening::Refused {
                packet: ack.pkid,
                reason: format!("{reason:?}"),
                // The others may pass: quota, identifier in use, and what the broker does not explain.
                for_good: matches!(
                    reason,
                    PubAckReason::TopicNameInvalid | PubAckReason::PayloadFormatInvalid
                ),
            },
        }),
        v5::Incoming::Disconnect(reason) => Err(format!("broker disconnected: {:?}", reason.reason_code)),
        _ => Ok(Happening::Other),
    }
}

/// Time without packets after which the broker is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Largest packet of the protocol, less the fixed header (MQTT 3.1.1 §2.2.3).
const PACKET_BYTES_MAX: usize = 268_435_455;
