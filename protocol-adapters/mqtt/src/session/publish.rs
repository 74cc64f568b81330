//! Messages of a client: from PUBLISH to its acknowledgement.

use fieldgate_adapters::{
    class::Class,
    ingest::Refused,
    reading::{CONTENT_TYPE_LEN_MAX, Reading, USER_PROPERTIES_MAX, UserProperties},
};
use fieldgate_proto::time::Now;

use super::{Context, acknowledgements::PubAcks, connection::Connection, end::SessionEnd};
use crate::{
    counters::Counters,
    exchange::{Envelope, Exchange, Publication},
    frame::Frame,
    packet::{PacketIdentifier, Qos, publish::Publish},
    property::{Properties, Property},
    reason::ReasonCode,
    settings::Settings,
    version::ProtocolVersion,
    violation::Violation,
};

impl Connection {
    pub(super) fn handle_publish(
        &mut self,
        now: Now,
        frame: &Frame<'_>,
        settings: &Settings,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        let publish = Publish::decode(frame.flags, frame.body, self.version)?;
        let details = Details::of(&publish)?;
        let topic =
            self.aliases
                .resolve(details.topic_alias, publish.topic, settings.topic_alias_maximum())?;
        let id = publish.packet_id;
        if let Some(packet_id) = id {
            if self.received.binary_search(&packet_id).is_ok()
                || publish.dup && self.acknowledgements.is_waiting(packet_id)
            {
                self.repeat(packet_id, publish.qos, context);
                return Ok(());
            }
            // Another borrow of `self` than `topic`'s.
            check_room(self.version, self.unfinished, self.received.len(), settings)?;
        }
        let is_kept = publish.qos == Qos::ExactlyOnce && self.session_expiry_secs > 0;
        let publication = Publication {
            reading: Reading {
                device: self.device.name(),
                resource: topic,
                content_type: details.content_type,
                user_properties: UserProperties::EMPTY,
                payload: publish.payload,
                captured_at: now.wall,
                class: if settings.is_alarm(topic) {
                    Class::Alarm
                } else {
                    Class::Normal
                },
            },
            envelope: Envelope {
                qos: publish.qos,
                retain: publish.retain,
                payload_is_text: details.payload_is_text,
                is_local: settings.is_local(topic),
                kept_packet_id: id.filter(|_| is_kept),
                expiry_secs: details.expiry_secs,
                response_topic: details.response_topic,
                correlation_data: details.correlation_data,
            },
        };
        let refusal = if !self.device.may_publish(topic) {
            Refusal::NotAuthorized
        } else if details.payload_is_text && std::str::from_utf8(publish.payload).is_err() {
            Refusal::PayloadFormatInvalid
        } else {
            match give(&publication, &details, &publish.properties, context.exchange) {
                Ok(ticket) => {
                    context.counters.readings += 1;
                    if let Some(packet_id) = id {
                        self.await_commit(ticket, packet_id, publish.qos);
                    }
                    return Ok(());
                }
                Err(cause) => Refusal::NotTaken(cause),
            }
        };
        self.refuse(refusal, id, publish.qos, context)
    }

    fn await_commit(&mut self, ticket: u64, packet_id: PacketIdentifier, qos: Qos) {
        self.unfinished += 1;
        self.acknowledgements.await_commit(ticket, packet_id, qos);
        if qos == Qos::ExactlyOnce
            && let Err(place) = self.received.binary_search(&packet_id)
        {
            self.received.insert(place, packet_id);
        }
    }

    /// Deals with a message that was taken before: it is acknowledged again, unless that is still to come.
    fn repeat(&mut self, packet_id: PacketIdentifier, qos: Qos, context: &mut Context<'_>) {
        context.counters.repeated += 1;
        if self.acknowledgements.is_waiting(packet_id) {
            return;
        }
        let answers = &mut PubAcks {
            send: context.send,
            maximum_packet_size: self.maximum_packet_size,
            explains: self.explains,
        };
        self.acknowledgements
            .answer(packet_id, ReasonCode::Success, qos, answers);
    }

    /// Tells a client that its message was not taken, as well as its version can.
    fn refuse(
        &mut self,
        refusal: Refusal,
        packet_id: Option<PacketIdentifier>,
        qos: Qos,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        *refusal.counter(context.counters) += 1;
        // MQTT 3.1.1 §3.3.5: a positive acknowledgement or the end of the connection; a lie is no choice.
        if self.version == ProtocolVersion::V311 && (packet_id.is_some() || refusal == Refusal::NotAuthorized)
        {
            return Err(refusal.session_end());
        }
        let Some(packet_id) = packet_id else {
            context.counters.dropped_qos0 += 1;
            return Ok(());
        };
        let reason = match refusal {
            Refusal::NotAuthorized => ReasonCode::NotAuthorized,
            Refusal::PayloadFormatInvalid => ReasonCode::PayloadFormatInvalid,
            Refusal::NotTaken(Refused::Full | Refused::TooLarge) => ReasonCode::QuotaExceeded,
            Refusal::NotTaken(Refused::NotNow) => return Err(refusal.session_end()),
        };
        let answers = &mut PubAcks {
            send: context.send,
            maximum_packet_size: self.maximum_packet_size,
            explains: self.explains,
        };
        self.unfinished += 1;
        self.unfinished -= self.acknowledgements.answer(packet_id, reason, qos, answers);
        Ok(())
    }
}

/// Refuses a client of MQTT 5.0 that exceeds the receive maximum, and one of MQTT 3.1.1, which does not know it, that leaves
/// too many messages at QoS 2 unreleased.
fn check_room(
    version: ProtocolVersion,
    unfinished: u16,
    received: usize,
    settings: &Settings,
) -> Result<(), Violation> {
    match version {
        ProtocolVersion::V5 if unfinished >= settings.receive_maximum() => {
            let reason = ReasonCode::ReceiveMaximumExceeded;
            Err(Violation::Rule {
                reason,
                what: "more publishes than the receive maximum ([MQTT-3.3.4-7])",
            })
        }
        ProtocolVersion::V311 if received >= RECEIVED_MAX => {
            let reason = ReasonCode::QuotaExceeded;
            Err(Violation::Rule {
                reason,
                what: "too many messages at QoS 2 are not released",
            })
        }
        ProtocolVersion::V311 | ProtocolVersion::V5 => Ok(()),
    }
}

/// Messages at QoS 2 that a client of MQTT 3.1.1 may leave unreleased.
const RECEIVED_MAX: usize = 4_096;

/// Why a publish was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NotAuthorized,
    PayloadFormatInvalid,
    NotTaken(Refused),
}

impl Refusal {
    const fn counter(self, counters: &mut Counters) -> &mut u64 {
        match self {
            Self::NotAuthorized => &mut counters.unauthorized,
            Self::PayloadFormatInvalid => &mut counters.payload_format_invalid,
            Self::NotTaken(Refused::Full) => &mut counters.journal_full,
            Self::NotTaken(Refused::TooLarge) => &mut counters.too_large,
            Self::NotTaken(Refused::NotNow) => &mut counters.not_now,
        }
    }

    const fn session_end(self) -> SessionEnd {
        match self {
            Self::NotAuthorized => SessionEnd::NotAuthorized,
            // Only MQTT 5.0 has a payload format, and it is told by PUBACK.
            Self::PayloadFormatInvalid => SessionEnd::NotTaken {
                cause: Refused::TooLarge,
            },
            Self::NotTaken(cause) => SessionEnd::NotTaken { cause },
        }
    }
}

/// What the properties of a PUBLISH say.
#[derive(Default)]
struct Details<'a> {
    content_type: Option<&'a str>,
    topic_alias: Option<u16>,
    payload_is_text: bool,
    user_properties: usize,
    expiry_secs: Option<u32>,
    response_topic: Option<&'a str>,
    correlation_data: Option<&'a [u8]>,
}

impl<'a> Details<'a> {
    fn of(publish: &Publish<'a>) -> Result<Self, Violation> {
        let mut details = Self::default();
        for property in publish.properties.iter() {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "no other property stands in PUBLISH"
            )]
            match property {
                Property::ContentType(text) => details.content_type = Some(text),
                Property::TopicAlias(alias) => details.topic_alias = Some(alias),
                Property::PayloadFormatIndicator(is_text) => details.payload_is_text = is_text,
                Property::UserProperty(_) => details.user_properties += 1,
                Property::MessageExpiryInterval(secs) => details.expiry_secs = Some(secs),
                Property::ResponseTopic(topic) => details.response_topic = Some(topic),
                Property::CorrelationData(data) => details.correlation_data = Some(data),
                Property::SubscriptionIdentifier(_) => {
                    return Err(Violation::protocol(
                        "a client sent a subscription identifier ([MQTT-3.3.4-6])",
                    ));
                }
                _ => {}
            }
        }
        Ok(details)
    }
}

fn give(
    publication: &Publication<'_>,
    details: &Details<'_>,
    properties: &Properties<'_>,
    exchange: &mut dyn Exchange,
) -> Result<u64, Refused> {
    if details
        .content_type
        .is_some_and(|text| text.len() > CONTENT_TYPE_LEN_MAX)
    {
        return Err(Refused::TooLarge);
    }
    if details.user_properties == 0 {
        return exchange.publish(publication);
    }
    let mut pairs = [("", ""); USER_PROPERTIES_MAX];
    let Some(pairs) = pairs.get_mut(..details.user_properties) else {
        return Err(Refused::TooLarge);
    };
    let found = properties.iter().filter_map(|property| {
        if let Property::UserProperty(pair) = property {
            Some(pair)
        } else {
            None
        }
    });
    for (place, pair) in pairs.iter_mut().zip(found) {
        *place = pair;
    }
    exchange.publish(&Publication {
        reading: Reading {
            user_properties: UserProperties::from_pairs(pairs),
            ..publication.reading
        },
        envelope: publication.envelope,
    })
}
