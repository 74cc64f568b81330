//! A connected client: what its packets do.

use std::{sync::Arc, time::Duration};

use fieldgate_adapters::{
    class::Class,
    device::Device,
    ingest::{Ingest, Refused},
    reading::{CONTENT_TYPE_LEN_MAX, Reading, USER_PROPERTIES_MAX, UserProperties},
    topic::check_filter,
};
use fieldgate_proto::time::Now;

use super::{
    Context,
    acknowledgements::{Acknowledgements, PubAcks},
    aliases::TopicAliases,
    connect::send_packet,
    end::SessionEnd,
    will::StoredWill,
};
use crate::{
    counters::Counters,
    frame::{Frame, PacketType},
    packet::{
        Packet, PacketIdentifier, Qos,
        acknowledgement::Acknowledgement,
        check_length_form,
        disconnect::{CLIENT_DISCONNECT_REASONS, Disconnect},
        publish::Publish,
        suback::{Reasons, SubAck, UnsubAck},
        subscribe::Subscribe,
        unsubscribe::Unsubscribe,
    },
    property::{Properties, Property},
    reason::ReasonCode,
    settings::Settings,
    version::ProtocolVersion,
    violation::Violation,
};

/// What a client is when its CONNECT has been accepted.
pub(super) struct Accepted {
    pub(super) version: ProtocolVersion,
    pub(super) client_id: Box<str>,
    pub(super) device: Arc<Device>,
    pub(super) keep_alive_secs: u16,
    pub(super) session_expires_with_connection: bool,
    pub(super) maximum_packet_size: u32,
    pub(super) will: Option<Box<StoredWill>>,
}

/// A connected client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) version: ProtocolVersion,
    pub(super) client_id: Box<str>,
    pub(super) device: Arc<Device>,
    keep_alive_secs: u16,
    session_expires_with_connection: bool,
    /// Bytes of the largest packet the client takes.
    maximum_packet_size: u32,
    will: Option<Box<StoredWill>>,
    pub(super) acknowledgements: Acknowledgements,
    pub(super) aliases: TopicAliases,
}

impl Connection {
    pub(super) fn new(accepted: Accepted) -> Self {
        Self {
            version: accepted.version,
            client_id: accepted.client_id,
            device: accepted.device,
            keep_alive_secs: accepted.keep_alive_secs,
            session_expires_with_connection: accepted.session_expires_with_connection,
            maximum_packet_size: accepted.maximum_packet_size,
            will: accepted.will,
            acknowledgements: Acknowledgements::default(),
            aliases: TopicAliases::default(),
        }
    }

    /// Returns how long the client may be silent: one and a half keep-alives (`[MQTT-3.1.2-22]`); `None` for ever.
    pub(super) fn silence_max(&self) -> Option<Duration> {
        (self.keep_alive_secs != 0).then(|| Duration::from_millis(u64::from(self.keep_alive_secs) * 1_500))
    }

    /// Returns whether no further packet is taken until something is committed.
    ///
    /// MQTT 5.0 clients know the receive maximum and are ended when they exceed it; those of MQTT 3.1.1 cannot know it.
    pub(super) fn is_paused(&self, settings: &Settings) -> bool {
        self.version == ProtocolVersion::V311
            && self.acknowledgements.len() >= usize::from(settings.receive_maximum())
    }

    /// Takes one packet.
    ///
    /// # Errors
    /// [`SessionEnd`] if the session ends with it.
    pub(super) fn handle_packet(
        &mut self,
        now: Now,
        frame: &Frame<'_>,
        settings: &Settings,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        check_length_form(frame, self.version)?;
        if frame.packet_type == PacketType::Publish {
            return self.handle_publish(now, frame, settings, context);
        }
        match Packet::decode(frame, self.version)? {
            Packet::PingReq => self.send(&Packet::PingResp, context),
            Packet::Subscribe(subscribe) => self.handle_subscribe(&subscribe, context),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe, context),
            Packet::PubRel(release) => self.handle_release(&release, context),
            Packet::Disconnect(disconnect) => return Err(self.handle_disconnect(&disconnect)),
            Packet::Connect(_) => {
                return Err(Violation::protocol("a second CONNECT came ([MQTT-3.1.0-2])").into());
            }
            Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_) => {
                return Err(
                    Violation::protocol("an acknowledgement came for a message never sent (§4.3)").into(),
                );
            }
            Packet::Auth(_) => {
                return Err(Violation::protocol(
                    "AUTH came without an authentication method ([MQTT-4.12.0-6])",
                )
                .into());
            }
            Packet::Publish(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => {
                return Err(Violation::protocol("a packet came that only a server sends (§2.1.2)").into());
            }
        }
        Ok(())
    }

    fn handle_publish(
        &mut self,
        now: Now,
        frame: &Frame<'_>,
        settings: &Settings,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        let publish = Publish::decode(frame.flags, frame.body, self.version)?;
        let details = Details::of(&publish, self.version)?;
        let topic =
            self.aliases
                .resolve(details.topic_alias, publish.topic, settings.topic_alias_maximum())?;
        if let Some(packet_id) = publish.packet_id {
            if publish.dup && self.acknowledgements.is_waiting(packet_id) {
                context.counters.repeated += 1;
                return Ok(());
            }
            if self.acknowledgements.len() >= usize::from(settings.receive_maximum()) {
                let reason = ReasonCode::ReceiveMaximumExceeded;
                return Err(Violation::Rule {
                    reason,
                    what: "more publishes than the receive maximum (§3.3.4)",
                }
                .into());
            }
        }
        let reading = Reading {
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
        };
        let refusal = if !self.device.may_publish(topic) {
            Refusal::NotAuthorized
        } else if details.payload_is_text && std::str::from_utf8(publish.payload).is_err() {
            Refusal::PayloadFormatInvalid
        } else {
            match ingest(&reading, &details, &publish.properties, context.ingest) {
                Ok(sequence) => {
                    context.counters.readings += 1;
                    if let Some(packet_id) = publish.packet_id {
                        self.acknowledgements.await_commit(sequence, packet_id);
                    }
                    return Ok(());
                }
                Err(cause) => Refusal::NotTaken(cause),
            }
        };
        self.refuse(refusal, publish.packet_id, context)
    }

    /// Tells a client that its message was not taken, as well as its version can.
    fn refuse(
        &mut self,
        refusal: Refusal,
        packet_id: Option<PacketIdentifier>,
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
        let maximum_packet_size = self.maximum_packet_size;
        self.acknowledgements.refuse(
            packet_id,
            reason,
            &mut PubAcks {
                send: context.send,
                maximum_packet_size,
            },
        );
        Ok(())
    }

    /// Refuses every subscription: each filter gets the reason that tells its client most.
    ///
    /// MQTT 5.0 allows a DISCONNECT for what CONNACK said is not available. The codes of SUBACK say the same and keep those
    /// devices alive that subscribe by habit and then publish.
    fn handle_subscribe(&self, subscribe: &Subscribe<'_>, context: &mut Context<'_>) {
        let identified = subscribe
            .properties
            .iter()
            .any(|property| matches!(property, Property::SubscriptionIdentifier(_)));
        let reasons: Vec<ReasonCode> = subscribe
            .subscriptions
            .iter()
            .map(|subscription| match self.version {
                ProtocolVersion::V311 => ReasonCode::UnspecifiedError,
                ProtocolVersion::V5 => refusal_of_filter(subscription.filter, identified),
            })
            .collect();
        context.counters.subscribes_refused += 1;
        let answer = SubAck {
            packet_id: subscribe.packet_id,
            properties: Properties::EMPTY,
            reasons: Reasons::from_list(&reasons),
        };
        self.send(&Packet::SubAck(answer), context);
    }

    fn handle_unsubscribe(&self, unsubscribe: &Unsubscribe<'_>, context: &mut Context<'_>) {
        let reasons: Vec<ReasonCode> = unsubscribe
            .filters
            .iter()
            .map(|filter| match check_filter(filter) {
                Ok(()) => ReasonCode::NoSubscriptionExisted,
                Err(_) => ReasonCode::TopicFilterInvalid,
            })
            .collect();
        let reasons = match self.version {
            ProtocolVersion::V311 => Reasons::EMPTY,
            ProtocolVersion::V5 => Reasons::from_list(&reasons),
        };
        let answer = UnsubAck {
            packet_id: unsubscribe.packet_id,
            properties: Properties::EMPTY,
            reasons,
        };
        self.send(&Packet::UnsubAck(answer), context);
    }

    /// Answers the release of a message at QoS 2 that is not known: none ever is (MQTT 5.0 §4.3.3).
    fn handle_release(&self, release: &Acknowledgement<'_>, context: &mut Context<'_>) {
        let reason = match self.version {
            ProtocolVersion::V311 => ReasonCode::Success,
            ProtocolVersion::V5 => ReasonCode::PacketIdentifierNotFound,
        };
        let answer = Acknowledgement {
            packet_id: release.packet_id,
            reason,
            properties: Properties::EMPTY,
        };
        self.send(&Packet::PubComp(answer), context);
    }

    fn handle_disconnect(&self, disconnect: &Disconnect<'_>) -> SessionEnd {
        if !CLIENT_DISCONNECT_REASONS.contains(&disconnect.reason) {
            return Violation::protocol("a client sent a reason code of the server (§3.14.2.1)").into();
        }
        for property in disconnect.properties.iter() {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "the other properties are for people"
            )]
            match property {
                Property::SessionExpiryInterval(secs)
                    if secs != 0 && self.session_expires_with_connection =>
                {
                    return Violation::protocol("the session expiry interval was 0 at CONNECT (§3.14.2.2.2)")
                        .into();
                }
                Property::ServerReference(_) => {
                    return Violation::protocol("a client sent a server reference (§3.14.2.2.5)").into();
                }
                _ => {}
            }
        }
        SessionEnd::Disconnected {
            reason: disconnect.reason,
        }
    }

    /// Says goodbye and publishes the will, as far as `end` asks for it.
    pub(super) fn finish(
        &mut self,
        now: Now,
        end: &SessionEnd,
        settings: &Settings,
        context: &mut Context<'_>,
    ) {
        if let (ProtocolVersion::V5, Some(reason)) = (self.version, end.disconnect_reason()) {
            self.send(
                &Packet::Disconnect(Disconnect {
                    reason: Disconnect::reason_for(reason),
                    properties: Properties::EMPTY,
                }),
                context,
            );
        }
        let Some(will) = self.will.take().filter(|_| end.publishes_will()) else {
            return;
        };
        let like = Reading {
            device: self.device.name(),
            resource: will.topic(),
            content_type: None,
            user_properties: UserProperties::EMPTY,
            payload: &[],
            captured_at: now.wall,
            class: if settings.is_alarm(will.topic()) {
                Class::Alarm
            } else {
                Class::Normal
            },
        };
        if will.publish(&like, context.ingest) {
            context.counters.readings += 1;
            context.counters.wills += 1;
        } else {
            context.counters.wills_lost += 1;
        }
    }

    /// Writes every PUBACK whose reading is on stable storage.
    pub(super) fn handle_committed(&mut self, up_to: u64, send: &mut Vec<u8>) {
        let maximum_packet_size = self.maximum_packet_size;
        self.acknowledgements.commit(
            up_to,
            &mut PubAcks {
                send,
                maximum_packet_size,
            },
        );
    }

    fn send(&self, packet: &Packet<'_>, context: &mut Context<'_>) {
        send_packet(packet, self.version, self.maximum_packet_size, context.send);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.client_id.len()
            + self.acknowledgements.heap_bytes()
            + self.aliases.heap_bytes()
            + self.will.as_ref().map_or(0, |will| will.heap_bytes())
    }
}

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
///
/// Message expiry interval, response topic and correlation data are checked by the codec and go no further: a reading has
/// no expiry of its own, and nobody behind the gateway can answer a device yet.
#[derive(Default)]
struct Details<'a> {
    content_type: Option<&'a str>,
    topic_alias: Option<u16>,
    payload_is_text: bool,
    user_properties: usize,
}

impl<'a> Details<'a> {
    fn of(publish: &Publish<'a>, version: ProtocolVersion) -> Result<Self, Violation> {
        if publish.qos == Qos::ExactlyOnce {
            let reason = ReasonCode::QosNotSupported;
            return Err(Violation::Rule {
                reason,
                what: "a publish at QoS 2 came ([MQTT-3.2.2-11])",
            });
        }
        if publish.retain && version == ProtocolVersion::V5 {
            let reason = ReasonCode::RetainNotSupported;
            return Err(Violation::Rule {
                reason,
                what: "a publish with the retain flag came ([MQTT-3.2.2-14])",
            });
        }
        let mut details = Self::default();
        for property in publish.properties.iter() {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is for subscribers")]
            match property {
                Property::ContentType(text) => details.content_type = Some(text),
                Property::TopicAlias(alias) => details.topic_alias = Some(alias),
                Property::PayloadFormatIndicator(is_text) => details.payload_is_text = is_text,
                Property::UserProperty(_) => details.user_properties += 1,
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

fn ingest(
    reading: &Reading<'_>,
    details: &Details<'_>,
    properties: &Properties<'_>,
    ingest: &mut dyn Ingest,
) -> Result<u64, Refused> {
    if details
        .content_type
        .is_some_and(|text| text.len() > CONTENT_TYPE_LEN_MAX)
    {
        return Err(Refused::TooLarge);
    }
    if details.user_properties == 0 {
        return ingest.publish(reading);
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
    ingest.publish(&Reading {
        user_properties: UserProperties::from_pairs(pairs),
        ..*reading
    })
}

/// Returns why a subscription to `filter` is refused (MQTT 5.0 §3.9.3).
fn refusal_of_filter(filter: &str, identified: bool) -> ReasonCode {
    let (shared, topic_filter) = match filter.strip_prefix("$share/") {
        // §4.8.2: a share name of at least one character, without wildcards, and a topic filter behind it.
        Some(rest) => match rest.split_once('/') {
            Some((name, topic_filter)) if !name.is_empty() && !name.contains(['#', '+']) => {
                (true, topic_filter)
            }
            Some(_) | None => return ReasonCode::TopicFilterInvalid,
        },
        None if filter == "$share" => return ReasonCode::TopicFilterInvalid,
        None => (false, filter),
    };
    if check_filter(topic_filter).is_err() {
        ReasonCode::TopicFilterInvalid
    } else if shared {
        ReasonCode::SharedSubscriptionsNotSupported
    } else if identified {
        ReasonCode::SubscriptionIdentifiersNotSupported
    } else if topic_filter.contains(['#', '+']) {
        ReasonCode::WildcardSubscriptionsNotSupported
    } else {
        ReasonCode::ImplementationSpecificError
    }
}
