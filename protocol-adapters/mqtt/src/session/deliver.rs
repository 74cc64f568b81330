//! What the broker has for a client: messages, and the answers to its requests.

use super::{Context, aliases::Naming, connect::send_explained, connection::Connection, end::SessionEnd};
use crate::{
    exchange::{Answer, Delivery, Request, Step},
    packet::{
        Packet, PacketIdentifier, Qos,
        acknowledgement::Acknowledgement,
        publish::Publish,
        suback::{Reasons, SubAck, UnsubAck},
    },
    property::{Properties, Property},
    reason::ReasonCode,
    version::ProtocolVersion,
};

impl Connection {
    /// Tells the client what the broker answers.
    ///
    /// # Errors
    /// [`SessionEnd`] if the broker ends the connection.
    pub(super) fn handle_answer(
        &mut self,
        answer: Answer,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        match answer {
            Answer::Deliver(delivery) => self.deliver(&delivery, context),
            Answer::Release { packet_id, is_known } => self.release(packet_id, is_known, context),
            Answer::Completed { packet_id } => self.send_completed(packet_id, ReasonCode::Success, context),
            Answer::SubAck { packet_id, reasons } => self.send_suback(packet_id, reasons, context),
            Answer::UnsubAck { packet_id, reasons } => {
                let reasons = match self.version {
                    ProtocolVersion::V311 => Reasons::EMPTY,
                    ProtocolVersion::V5 => Reasons::from_list(&reasons),
                };
                let answer = UnsubAck {
                    packet_id,
                    properties: Properties::EMPTY,
                    reasons,
                };
                self.send(&Packet::UnsubAck(answer), context);
            }
            Answer::Close(termination) => return Err(SessionEnd::Terminated(termination)),
            // The client has its session.
            Answer::Attached(_) | Answer::Refused(_) => {}
        }
        Ok(())
    }

    fn send_suback(
        &self,
        packet_id: PacketIdentifier,
        mut reasons: Vec<ReasonCode>,
        context: &mut Context<'_>,
    ) {
        if self.version == ProtocolVersion::V311 {
            for reason in &mut reasons {
                if reason.is_failure() {
                    // 3.1.1 §3.9.3 has one word for every failure.
                    *reason = ReasonCode::UnspecifiedError;
                }
            }
        }
        // One text for all filters: the first failure's.
        let text = reasons.iter().find_map(|reason| self.text_for(*reason));
        send_explained(text, context.send, |properties, send| {
            let answer = SubAck {
                packet_id,
                properties,
                reasons: Reasons::from_list(&reasons),
            };
            self.put(&Packet::SubAck(answer), send);
        });
    }

    fn release(&self, packet_id: PacketIdentifier, is_known: bool, context: &mut Context<'_>) {
        let reason = if is_known || self.version == ProtocolVersion::V311 {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        let answer = Acknowledgement {
            packet_id,
            reason,
            properties: Properties::EMPTY,
        };
        self.send(&Packet::PubRel(answer), context);
    }

    /// Sends a message, by its topic's alias where the client takes aliases.
    fn deliver(&mut self, delivery: &Delivery, context: &mut Context<'_>) {
        let topic = &*delivery.message.topic;
        let naming = match self.version {
            ProtocolVersion::V5 => self.given_aliases.naming(topic),
            ProtocolVersion::V311 => Naming::Name,
        };
        let before = context.send.len();
        put(delivery, naming, self.version, context.send);
        if (context.send.len() - before) as u64 > u64::from(self.maximum_packet_size) {
            // [MQTT-3.1.2-25]: it counts as sent, and as acknowledged.
            context.send.truncate(before);
            context.counters.too_large_for_client += 1;
            if let Some(packet_id) = delivery.packet_id {
                let step = match delivery.qos {
                    Qos::ExactlyOnce => Step::Received,
                    Qos::AtMostOnce | Qos::AtLeastOnce => Step::Acknowledged,
                };
                context.exchange.request(Request::Acknowledge {
                    step,
                    packet_id,
                    reason: ReasonCode::PacketTooLarge,
                });
            }
            return;
        }
        context.counters.delivered += 1;
        if let Naming::Define(alias) = naming {
            self.given_aliases.note(topic, alias);
        }
    }
}

/// Appends a delivery as PUBLISH.
fn put(delivery: &Delivery, naming: Naming, version: ProtocolVersion, send: &mut Vec<u8>) {
    let message = &*delivery.message;
    let (topic, alias) = match naming {
        Naming::Name => (&*message.topic, None),
        Naming::Define(alias) => (&*message.topic, Some(alias)),
        Naming::Alias(alias) => ("", Some(alias)),
    };
    let mut properties = Vec::new();
    if version == ProtocolVersion::V5 {
        if message.payload_is_text {
            properties.push(Property::PayloadFormatIndicator(true));
        }
        properties.extend(delivery.expiry_secs.map(Property::MessageExpiryInterval));
        properties.extend(message.content_type.as_deref().map(Property::ContentType));
        properties.extend(message.response_topic.as_deref().map(Property::ResponseTopic));
        properties.extend(message.correlation_data.as_deref().map(Property::CorrelationData));
        let identifiers = delivery.identifiers.iter().copied();
        properties.extend(identifiers.map(Property::SubscriptionIdentifier));
        properties.extend(alias.map(Property::TopicAlias));
        let pairs = message.user_properties.iter();
        properties.extend(pairs.map(|(name, value)| Property::UserProperty((name, value))));
    }
    let publish = Publish {
        dup: delivery.dup,
        qos: delivery.qos,
        retain: delivery.retain,
        topic,
        packet_id: delivery.packet_id,
        properties: Properties::from_list(&properties),
        payload: &message.payload,
    };
    publish
        .encode(version, send)
        .expect("what came in a packet fits into one: the limits of the standard are those of the codec");
}
