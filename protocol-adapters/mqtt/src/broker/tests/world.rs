//! A broker with clients, a store and a clock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fieldgate_adapters::{
    class::Class,
    device::Device,
    reading::{Reading, UserProperties},
    topic::TopicFilter,
};
use fieldgate_proto::time::{ClockQuality, Instant, Now, WallTime};

use crate::{
    broker::{Broker, ConnectionKey, Output, command::CommandOutcome, limits::Limits, message::Message},
    exchange::{
        Answer, Attach, Delivery, Envelope, Publication, Request, Step, SubscriptionOptions, Wanted, Will,
    },
    packet::{PacketIdentifier, Qos, subscribe::RetainHandling},
    reason::ReasonCode,
    session::end::Termination,
};

/// What a client was told, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Attached(bool),
    Refused(ReasonCode),
    Deliver(String, u8, u16, bool),
    Release(u16, bool),
    Completed(u16),
    Closed(Termination),
    Reasons(Vec<ReasonCode>),
}

/// A broker with everything around it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) broker: Broker,
    pub(super) store: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) wills: usize,
    limits: Limits,
    now: Now,
    batches_left: usize,
    answers: Vec<(u64, Answer)>,
}

impl World {
    pub(super) fn new(limits: Limits) -> Self {
        let now = Now {
            instant: Instant::from_nanos(1_000_000_000),
            wall: WallTime {
                unix_millis: 1_700_000_000_000,
                quality: ClockQuality::Synchronised,
            },
        };
        Self {
            broker: Broker::new(limits, "1.2.3", now.instant),
            store: BTreeMap::new(),
            wills: 0,
            limits,
            now,
            batches_left: usize::MAX,
            answers: Vec::new(),
        }
    }

    /// The process ends and begins again with what was stored.
    pub(super) fn crash(self) -> Self {
        let now = Now {
            instant: Instant::from_nanos(5),
            wall: self.now.wall,
        };
        let entries = self.store.clone();
        let (broker, bad) = Broker::restore(self.limits, "1.2.3", now, entries);
        assert_eq!(bad, 0);
        let mut world = Self {
            broker,
            now,
            batches_left: usize::MAX,
            answers: Vec::new(),
            ..self
        };
        world.settle();
        world
    }

    /// Lets the store take so many batches more.
    pub(super) fn store_at_most(&mut self, batches: usize) {
        self.batches_left = batches;
        self.settle();
    }

    /// Returns whether nothing waits for the store.
    pub(super) const fn is_stored(&self) -> bool {
        self.broker.pending_bytes() == 0
    }

    fn settle(&mut self) {
        loop {
            if self.batches_left > 0
                && let Some(batch) = self.broker.take_batch()
            {
                self.batches_left -= 1;
                for (key, value) in batch.changes {
                    match value {
                        Some(value) => self.store.insert(key, value),
                        None => self.store.remove(&key),
                    };
                }
                self.broker.handle_stored(self.now, batch.number);
            }
            match self.broker.poll_output() {
                Some(Output::Answer { to, answer }) => self.answers.push((to.connection, answer)),
                Some(Output::Will(_)) => self.wills += 1,
                None if self.batches_left > 0 && self.broker.pending_bytes() > 0 => {}
                None => return,
            }
        }
    }

    pub(super) fn advance(&mut self, duration: Duration) {
        self.now.instant = self.now.instant + duration;
        self.now.wall.unix_millis += u64::try_from(duration.as_millis()).expect("short");
        self.broker.handle_timeout(self.now);
        self.settle();
    }

    fn request(&mut self, connection: u64, request: Request) {
        self.broker.handle_request(self.now, key(connection), request);
        self.settle();
    }

    pub(super) fn attach_with(&mut self, connection: u64, client_id: &str, change: impl FnOnce(&mut Attach)) {
        let everything = ["#", "$SYS/#"].map(|text| TopicFilter::new(text).expect("a filter"));
        let mut attach = Attach {
            device: Arc::new(Device::new("d", everything.into()).expect("a name")),
            client_id: client_id.into(),
            clean_start: false,
            expiry_secs: 0,
            receive_maximum: u16::MAX,
            speaks_v5: true,
            will: None,
        };
        change(&mut attach);
        self.request(connection, Request::Attach(Box::new(attach)));
    }

    /// Attaches and leaves the answer to be looked at.
    pub(super) fn attach_quietly(&mut self, connection: u64, client_id: &str, expiry_secs: u32) {
        self.attach_with(connection, client_id, |attach| attach.expiry_secs = expiry_secs);
    }

    pub(super) fn attach(&mut self, connection: u64, client_id: &str, expiry_secs: u32) {
        self.attach_quietly(connection, client_id, expiry_secs);
        assert!(
            self.answers
                .iter()
                .any(|(to, answer)| *to == connection && matches!(answer, Answer::Attached(_))),
            "{client_id} has a session"
        );
    }

    pub(super) fn detach(&mut self, connection: u64) {
        self.request(
            connection,
            Request::Detach {
                publishes_will: true,
                expiry_secs: None,
            },
        );
    }

    /// Subscribes and returns the reasons.
    pub(super) fn subscribe(&mut self, connection: u64, wanted: &[Wanted]) -> Vec<ReasonCode> {
        let packet_id = packet_id(1);
        let wanted = wanted.to_vec();
        self.request(connection, Request::Subscribe { packet_id, wanted });
        let place = self
            .answers
            .iter()
            .position(|(to, answer)| *to == connection && matches!(answer, Answer::SubAck { .. }))
            .expect("every SUBSCRIBE is answered");
        let (_, Answer::SubAck { reasons, .. }) = self.answers.remove(place) else {
            panic!("just found")
        };
        reasons
    }

    pub(super) fn acknowledge(&mut self, connection: u64, step: Step, packet_id: PacketIdentifier) {
        self.request(
            connection,
            Request::Acknowledge {
                step,
                packet_id,
                reason: ReasonCode::Success,
            },
        );
    }

    pub(super) fn release(&mut self, connection: u64, id: u16) {
        let packet_id = packet_id(id);
        self.request(connection, Request::Release { packet_id });
    }

    fn give(&mut self, connection: u64, topic: &str, payload: &str, envelope: Envelope<'_>) -> bool {
        let publication = Publication {
            reading: Reading {
                device: "d",
                resource: topic,
                content_type: None,
                user_properties: UserProperties::EMPTY,
                payload: payload.as_bytes(),
                captured_at: self.now.wall,
                class: Class::Normal,
            },
            envelope,
        };
        let batch = self.broker.publish(self.now, key(connection), &publication);
        self.settle();
        batch == 0 || self.is_stored()
    }

    /// Publishes; says whether the message may be acknowledged.
    pub(super) fn publish(&mut self, connection: u64, topic: &str, payload: &str, qos: Qos) -> bool {
        let envelope = Envelope {
            qos,
            ..Envelope::default()
        };
        self.give(connection, topic, payload, envelope)
    }

    pub(super) fn publish_retained(&mut self, connection: u64, topic: &str, payload: &str, qos: Qos) {
        let envelope = Envelope {
            qos,
            retain: true,
            ..Envelope::default()
        };
        self.give(connection, topic, payload, envelope);
    }

    pub(super) fn publish_expiring(&mut self, connection: u64, topic: &str, payload: &str, secs: u32) {
        let envelope = Envelope {
            qos: Qos::AtLeastOnce,
            expiry_secs: Some(secs),
            ..Envelope::default()
        };
        self.give(connection, topic, payload, envelope);
    }

    /// Publishes at QoS 2 in a session that is kept.
    pub(super) fn publish_kept(&mut self, connection: u64, topic: &str, payload: &str, id: u16) {
        let envelope = Envelope {
            qos: Qos::ExactlyOnce,
            kept_packet_id: Some(packet_id(id)),
            ..Envelope::default()
        };
        self.give(connection, topic, payload, envelope);
    }

    /// Sends a command to the device `d`.
    pub(super) fn command(&mut self, tag: u64, topic: &str, payload: &str) {
        let message = message(topic, payload, Qos::AtLeastOnce);
        self.broker.command(self.now, tag, message);
        self.settle();
    }

    /// Takes what became of commands.
    pub(super) fn outcomes(&mut self) -> Vec<(u64, CommandOutcome)> {
        std::iter::from_fn(|| self.broker.poll_command()).collect()
    }

    /// The client refuses a message.
    pub(super) fn refuse(&mut self, connection: u64, packet_id: PacketIdentifier, reason: ReasonCode) {
        let step = Step::Acknowledged;
        self.request(
            connection,
            Request::Acknowledge {
                step,
                packet_id,
                reason,
            },
        );
    }

    fn take(&mut self, connection: u64) -> Vec<Answer> {
        let (mine, others) = std::mem::take(&mut self.answers)
            .into_iter()
            .partition(|(to, _)| *to == connection);
        self.answers = others;
        let mine: Vec<(u64, Answer)> = mine;
        mine.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Takes what a client was told.
    pub(super) fn said(&mut self, connection: u64) -> Vec<Said> {
        self.take(connection).iter().map(said).collect()
    }

    /// Takes the messages that a client was sent.
    pub(super) fn deliveries(&mut self, connection: u64) -> Vec<Delivery> {
        self.take(connection)
            .into_iter()
            .filter_map(|answer| {
                if let Answer::Deliver(delivery) = answer {
                    Some(*delivery)
                } else {
                    None
                }
            })
            .collect()
    }

    /// Takes the payloads that a client was sent.
    pub(super) fn payloads(&mut self, connection: u64) -> Vec<String> {
        self.deliveries(connection)
            .iter()
            .map(|delivery| text(&delivery.message))
            .collect()
    }

    /// Takes the identifiers that a client finds received.
    pub(super) fn received(&mut self, connection: u64) -> Vec<u16> {
        self.take(connection)
            .into_iter()
            .find_map(|answer| {
                if let Answer::Attached(attached) = answer {
                    Some(attached.received.iter().map(|id| id.get()).collect())
                } else {
                    None
                }
            })
            .expect("it is attached")
    }

    pub(super) fn clear(&mut self) {
        self.answers.clear();
    }
}

fn said(answer: &Answer) -> Said {
    match answer {
        Answer::Attached(attached) => Said::Attached(attached.session_present),
        Answer::Refused(reason) => Said::Refused(*reason),
        Answer::Deliver(delivery) => Said::Deliver(
            text(&delivery.message),
            delivery.qos.code(),
            delivery.packet_id.map_or(0, PacketIdentifier::get),
            delivery.dup,
        ),
        Answer::Release { packet_id, is_known } => Said::Release(packet_id.get(), *is_known),
        Answer::Completed { packet_id } => Said::Completed(packet_id.get()),
        Answer::SubAck { reasons, .. } | Answer::UnsubAck { reasons, .. } => Said::Reasons(reasons.clone()),
        Answer::Close(termination) => Said::Closed(*termination),
    }
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

const fn key(connection: u64) -> ConnectionKey {
    ConnectionKey { shard: 3, connection }
}

fn packet_id(id: u16) -> PacketIdentifier {
    PacketIdentifier::new(id).expect("not 0")
}

/// A subscription that asks for retained messages.
pub(super) fn filter(text: &str, options: SubscriptionOptions) -> Wanted {
    Wanted {
        filter: text.into(),
        options,
        retain_handling: RetainHandling::Always,
        refusal: None,
    }
}

/// A message without properties.
pub(crate) fn message(topic: &str, payload: &str, qos: Qos) -> Message {
    Message {
        device: "d".into(),
        topic: topic.into(),
        payload: payload.as_bytes().into(),
        qos,
        retain: false,
        payload_is_text: false,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Box::default(),
        expires_at: None,
    }
}

/// A will without properties.
pub(super) fn will(topic: &str, payload: &str, delay_secs: u32) -> Box<Will> {
    Box::new(Will {
        message: message(topic, payload, Qos::AtLeastOnce),
        expiry_secs: None,
        delay_secs,
        class: Class::Normal,
        is_local: false,
    })
}
