//! The client of an MQTT broker in either version, as the sink and the commands that come from there see it.

use std::time::Duration;

use rumqttc::{
    Outgoing,
    v5::{
        self,
        mqttbytes::{
            QoS as QoS5,
            v5::{Filter, PubAckReason, PublishProperties, RetainForwardRule, SubscribeReasonCode},
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
    /// What the client is for.
    pub(crate) purpose: Purpose,
}

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It publishes.
    Readings,
    /// It takes what others publish, and acknowledges it itself. With MQTT 5 the broker keeps that for an hour while the
    /// client is away; 3.1.1 knows no such bound, and what comes too late is worse than what does not come.
    Commands,
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
    /// Correlation data, MQTT 5 only.
    pub(crate) correlation_data: Option<Vec<u8>>,
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
        let correlation_data = self.correlation_data.as_ref().map_or(0, |data| data.len() + 3);
        // Fixed header, topic length, packet identifier, length of the properties.
        self.topic.len() + self.payload.len() + properties + content_type + correlation_data + 13
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
    /// The broker has taken the subscription.
    Subscribed,
    /// The broker refuses the subscription.
    NotSubscribed {
        /// Why.
        reason: String,
    },
    /// The broker brings a message.
    Brought(Box<Brought>),
    /// Nothing that matters.
    Other,
}

/// A message that the broker brings.
pub(crate) struct Brought {
    /// Topic name.
    pub(crate) topic: String,
    /// Payload.
    pub(crate) payload: Vec<u8>,
    /// Whether it was retained when it was subscribed to, or said so.
    pub(crate) retained: bool,
    /// What MQTT 5 says besides.
    pub(crate) properties: PublishProperties,
    receipt: Receipt,
}

impl Brought {
    /// Takes a message of MQTT 5.
    pub(crate) fn v5(publish: v5::mqttbytes::v5::Publish) -> Self {
        Self {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.to_vec(),
            retained: publish.retain,
            properties: publish.properties.clone().unwrap_or_default(),
            receipt: Receipt::V5(publish),
        }
    }

    fn v311(publish: rumqttc::Publish) -> Self {
        Self {
            topic: publish.topic.clone(),
            payload: publish.payload.to_vec(),
            retained: publish.retain,
            properties: PublishProperties::default(),
            receipt: Receipt::V311(publish),
        }
    }
}

/// What acknowledges a message.
enum Receipt {
    V5(v5::mqttbytes::v5::Publish),
    V311(rumqttc::Publish),
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
            if connection.purpose == Purpose::Commands {
                options
                    .set_clean_start(false)
                    .set_session_expiry_interval(Some(SESSION_SECS))
                    .set_receive_maximum(Some(RECEIVE_MAX))
                    .set_max_packet_size(Some(BROUGHT_BYTES_MAX))
                    .set_manual_acks(true);
            }
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
                .set_inflight(connection.inflight_max)
                .set_manual_acks(connection.purpose == Purpose::Commands);
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
                    correlation_data: message.correlation_data.map(Into::into),
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

impl Client {
    /// Asks for what is published below `root` from now on, but not for what is retained there.
    ///
    /// # Errors
    /// In words, if the client has ended.
    pub(crate) fn subscribe_below(&self, root: &str) -> Result<(), String> {
        let filter = format!("{root}/#");
        match self {
            Self::V5(client) => {
                let filter = Filter {
                    retain_forward_rule: RetainForwardRule::Never,
                    ..Filter::new(filter, QoS5::AtLeastOnce)
                };
                client
                    .try_subscribe_many([filter])
                    .map_err(|error| error.to_string())
            }
            Self::V311(client) => client
                .try_subscribe(filter, rumqttc::QoS::AtLeastOnce)
                .map_err(|error| error.to_string()),
        }
    }

    /// Acknowledges what the broker has brought.
    ///
    /// # Errors
    /// In words, if the client has ended.
    pub(crate) async fn acknowledge(&self, brought: &Brought) -> Result<(), String> {
        match (self, &brought.receipt) {
            (Self::V5(client), Receipt::V5(publish)) => {
                client.ack(publish).await.map_err(|error| error.to_string())
            }
            (Self::V311(client), Receipt::V311(publish)) => {
                client.ack(publish).await.map_err(|error| error.to_string())
            }
            (Self::V5(_), Receipt::V311(_)) | (Self::V311(_), Receipt::V5(_)) => {
                Err("the message came to another client".to_owned())
            }
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
                rumqttc::Event::Incoming(rumqttc::Packet::SubAck(ack)) => {
                    let refused = ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure);
                    Ok(subscribed(refused.then(|| "Failure".to_owned())))
                }
                rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) => {
                    Ok(Happening::Brought(Box::new(Brought::v311(publish))))
                }
                rumqttc::Event::Incoming(_) | rumqttc::Event::Outgoing(_) => Ok(Happening::Other),
            },
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a client can get else does not matter"
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
        v5::Incoming::SubAck(ack) => {
            let refused = ack.return_codes.iter().find_map(|code| match code {
                SubscribeReasonCode::Success(_) => None,
                refused => Some(format!("{refused:?}")),
            });
            Ok(subscribed(refused))
        }
        v5::Incoming::Publish(publish) => Ok(Happening::Brought(Box::new(Brought::v5(publish)))),
        v5::Incoming::Disconnect(reason) => Err(format!("broker disconnected: {:?}", reason.reason_code)),
        _ => Ok(Happening::Other),
    }
}

fn subscribed(refused: Option<String>) -> Happening {
    refused.map_or(Happening::Subscribed, |reason| Happening::NotSubscribed {
        reason,
    })
}

/// Messages that the broker may bring before the first is acknowledged.
pub(crate) const RECEIVE_MAX: u16 = 64;
/// How long the broker keeps messages for a client that is away, in seconds.
const SESSION_SECS: u32 = 3600;
/// Largest packet that the broker may bring: a command with the longest payload, and what is too long by so little that its
/// sender is told so.
const BROUGHT_BYTES_MAX: u32 = 128 << 10;
/// Time without packets after which the broker is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Largest packet of the protocol, less the fixed header (MQTT 3.1.1 §2.2.3).
const PACKET_BYTES_MAX: usize = 268_435_455;
