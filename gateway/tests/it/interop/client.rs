//! What the scenario asks of a client, whichever it is.

use serde::{Deserialize, Serialize};

/// A stock MQTT client in the hands of a test.
pub(super) trait Client {
    /// Connects; says whether the gateway had a session, if the client tells.
    fn connect(&mut self, place: &Place) -> Option<bool>;
    /// Subscribes and wants to be granted the quality.
    fn subscribe(&mut self, filter: &str, qos: u8);
    /// Publishes, and returns when the gateway has acknowledged.
    fn publish(&mut self, message: &Message);
    /// Waits for the next message.
    fn message(&mut self) -> Message;
    /// Says goodbye.
    fn disconnect(&mut self);
    /// Whether it wants its will published when it says goodbye (MQTT 5.0 §3.14.2.1, 0x04).
    fn leaves_with_will(&self) -> bool {
        false
    }
    /// Cuts the connection off without a word.
    fn vanish(&mut self);
}

/// What lies under MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Transport {
    /// Nothing.
    Tcp,
    /// TLS with the certificate of a device.
    Tls,
    /// A WebSocket.
    Ws,
    /// A WebSocket over TLS with the certificate of a device.
    Wss,
}

/// Where and as whom a client connects.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Place {
    pub(super) transport: Transport,
    pub(super) host: String,
    pub(super) port: u16,
    /// Path of the WebSocket.
    pub(super) path: &'static str,
    /// Files of the authority and of the device, PEM.
    pub(super) ca: String,
    pub(super) certificate: String,
    pub(super) key: String,
    /// Protocol level: 4 for 3.1.1, 5 for 5.0.
    pub(super) version: u8,
    /// Client identifier.
    pub(super) id: String,
    /// Clean Session or Clean Start.
    pub(super) clean: bool,
    /// Session expiry interval, in MQTT 5.0.
    pub(super) expiry_secs: u32,
    pub(super) will: Option<Message>,
}

/// A message, as it is published and as it arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) properties: Properties,
}

/// Properties that go with a message from end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Properties {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correlation_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expiry_secs: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) user: Vec<(String, String)>,
}

impl Message {
    /// A message without properties.
    pub(super) fn new(topic: &str, payload: &str, qos: u8) -> Self {
        Self {
            topic: topic.to_owned(),
            payload: payload.to_owned(),
            qos,
            ..Self::default()
        }
    }

    /// The same, retained.
    pub(super) fn retained(self) -> Self {
        Self { retain: true, ..self }
    }
}

impl Place {
    /// The same place for another client identifier, with a clean session.
    pub(super) fn of(&self, id: &str) -> Self {
        Self {
            id: format!("{}-{id}", self.id),
            ..self.clone()
        }
    }

    /// The same with a session that is kept for an hour.
    pub(super) fn kept(self) -> Self {
        Self {
            clean: false,
            expiry_secs: 3_600,
            ..self
        }
    }
}
