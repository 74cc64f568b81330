//! What a session asks of the broker behind it, and what it is told.
//!
//! A session lives where its connection does; the broker, which knows all sessions, may live on another thread. So the two
//! speak in values: a [`Request`] goes one way, an [`Answer`] the other, each in order. Messages go by [`Exchange::publish`],
//! borrowed, because they are many.

use std::sync::Arc;

use fieldgate_adapters::{class::Class, device::Device, ingest::Refused, reading::Reading};

use crate::{
    broker::message::Message,
    packet::{PacketIdentifier, Qos, subscribe::RetainHandling},
    property::SubscriptionIdentifier,
    reason::ReasonCode,
    session::end::Termination,
};

/// The way of one connection's messages and requests to journal and broker.
pub trait Exchange {
    /// Takes a message and returns its ticket, which never falls: the message may be acknowledged when everything up to it is
    /// on stable storage.
    ///
    /// What the publication borrows must be copied before the call returns.
    ///
    /// # Errors
    /// [`Refused`]: the message was not taken and must not be acknowledged.
    fn publish(&mut self, publication: &Publication<'_>) -> Result<u64, Refused>;

    /// Takes a request; requests and messages of one connection keep their order.
    fn request(&mut self, request: Request);
}

/// A message as its publisher sent it: the reading, and what only subscribers want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication<'a> {
    /// What goes into the journal.
    pub reading: Reading<'a>,
    /// What goes to subscribers besides.
    pub envelope: Envelope<'a>,
}

/// What a PUBLISH says beside the reading (MQTT 5.0 §3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// How surely it came, and reaches subscribers at most.
    pub qos: Qos,
    /// Whether it is kept for later subscribers.
    pub retain: bool,
    /// Whether the payload is said to be UTF-8 text.
    pub payload_is_text: bool,
    /// Whether it is passed on between devices only and not journalled.
    pub is_local: bool,
    /// The packet identifier of a message at QoS 2 in a session that outlives its connection.
    pub kept_packet_id: Option<PacketIdentifier>,
    /// Seconds after which it is worth nothing.
    pub expiry_secs: Option<u32>,
    /// Topic for a response.
    pub response_topic: Option<&'a str>,
    /// What the response shall carry.
    pub correlation_data: Option<&'a [u8]>,
}

/// What a session wants of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A client was let in: find or make its session. Answered by [`Answer::Attached`] or [`Answer::Refused`].
    Attach(Box<Attach>),
    /// Answered by [`Answer::SubAck`].
    Subscribe {
        /// The packet identifier of the SUBSCRIBE.
        packet_id: PacketIdentifier,
        /// What it wants; those with a refusal are only answered.
        wanted: Vec<Wanted>,
    },
    /// Answered by [`Answer::UnsubAck`].
    Unsubscribe {
        /// The packet identifier of the UNSUBSCRIBE.
        packet_id: PacketIdentifier,
        /// The topic filters, or `None` for one that is malformed.
        filters: Vec<Option<Box<str>>>,
    },
    /// The client acknowledged what it was sent.
    Acknowledge {
        /// By which packet.
        step: Step,
        /// Which message.
        packet_id: PacketIdentifier,
        /// Whether it took the message, or why not; [`ReasonCode::PacketTooLarge`] if it was not sent at all.
        reason: ReasonCode,
    },
    /// The client released a message at QoS 2, in a session that outlives its connection. Answered by [`Answer::Completed`].
    Release {
        /// Which message.
        packet_id: PacketIdentifier,
    },
    /// The connection ended; nothing follows.
    Detach {
        /// Whether the client's will is due.
        publishes_will: bool,
        /// Another session expiry interval in seconds, which the client asked for in its DISCONNECT.
        expiry_secs: Option<u32>,
    },
}

/// The packet by which a client acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// PUBACK.
    Acknowledged,
    /// PUBREC.
    Received,
    /// PUBCOMP.
    Completed,
}

/// A client that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Who it is; together with the client identifier it names the session.
    pub device: Arc<Device>,
    /// The client identifier.
    pub client_id: Box<str>,
    /// Whether an older session is forgotten.
    pub clean_start: bool,
    /// Seconds the session outlives its connection; `u32::MAX` for ever.
    pub expiry_secs: u32,
    /// Messages above QoS 0 that the client takes unacknowledged, at least 1.
    pub receive_maximum: u16,
    /// Whether the client speaks MQTT 5.0.
    pub speaks_v5: bool,
    /// What is published when the client is lost.
    pub will: Option<Box<Will>>,
}

/// The will of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The message; what it says of expiry is in `expiry_secs`.
    pub message: Message,
    /// Seconds between its publication and its expiry.
    pub expiry_secs: Option<u32>,
    /// Seconds between the end of the connection and its publication.
    pub delay_secs: u32,
    /// How urgent it is.
    pub class: Class,
    /// Whether it is passed on between devices only.
    pub is_local: bool,
}

/// One subscription that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The topic filter, with `$share/<name>/` in front for a shared subscription.
    pub filter: Box<str>,
    /// Its options.
    pub options: SubscriptionOptions,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
    /// Why it is refused, if the session has found a reason.
    pub refusal: Option<ReasonCode>,
}

/// How messages of a subscription are delivered (MQTT 5.0 §3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// The highest QoS.
    pub qos: Qos,
    /// Whether the client's own messages are left out.
    pub no_local: bool,
    /// Whether the retain flag stays as it was published.
    pub retain_as_published: bool,
    /// The identifier that deliveries carry.
    pub identifier: Option<SubscriptionIdentifier>,
}

/// What the broker tells a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The client has a session.
    Attached(Box<Attached>),
    /// The client gets no session.
    Refused(ReasonCode),
    /// A message for the client.
    Deliver(Box<Delivery>),
    /// The client may forget a message at QoS 2 it received: PUBREL.
    Release {
        /// Which message.
        packet_id: PacketIdentifier,
        /// Whether the broker knows of it.
        is_known: bool,
    },
    /// A message at QoS 2 of the client is done with: PUBCOMP.
    Completed {
        /// Which message.
        packet_id: PacketIdentifier,
    },
    /// What became of a SUBSCRIBE; one reason code per topic filter.
    SubAck {
        /// Its packet identifier.
        packet_id: PacketIdentifier,
        /// In the order of the topic filters.
        reasons: Vec<ReasonCode>,
    },
    /// What became of an UNSUBSCRIBE; one reason code per topic filter.
    UnsubAck {
        /// Its packet identifier.
        packet_id: PacketIdentifier,
        /// In the order of the topic filters.
        reasons: Vec<ReasonCode>,
    },
    /// The connection is to end.
    Close(Termination),
}

/// What a client finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Whether there was a session of it.
    pub session_present: bool,
    /// Messages at QoS 2 that the gateway has received from it and that it has not released, ascending.
    pub received: Vec<PacketIdentifier>,
}

/// A message on its way to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message; its own QoS and retain flag do not count here.
    pub message: Arc<Message>,
    /// How surely it is delivered.
    pub qos: Qos,
    /// The retain flag.
    pub retain: bool,
    /// Whether it may have been sent before.
    pub dup: bool,
    /// There exactly if the QoS is not 0.
    pub packet_id: Option<PacketIdentifier>,
    /// The identifiers of the subscriptions it matches.
    pub identifiers: Vec<SubscriptionIdentifier>,
    /// Seconds it is still worth something.
    pub expiry_secs: Option<u32>,
}
