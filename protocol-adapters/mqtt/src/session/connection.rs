//! A connected client: what its packets do, but for messages.

use std::{borrow::Cow, sync::Arc, time::Duration};

use fieldgate_adapters::{
    device::Device,
    scram::{Dialog, Turn},
    topic::check_filter,
};
use fieldgate_proto::time::Now;

use super::{
    Context,
    acknowledgements::{Acknowledgements, PubAcks},
    aliases::{GivenAliases, TopicAliases},
    connect::{Wishes, authentication_data, send_explained, send_packet, send_word},
    end::SessionEnd,
};
use crate::{
    broker::subscriptions::Filter,
    exchange::{Request, Step, SubscriptionOptions, Wanted},
    frame::{Frame, PacketType},
    packet::{
        Packet, PacketIdentifier,
        acknowledgement::Acknowledgement,
        check_length_form,
        disconnect::{Auth, CLIENT_DISCONNECT_REASONS, Disconnect},
        subscribe::{Subscribe, Subscription},
        unsubscribe::Unsubscribe,
    },
    property::{Properties, Property, SubscriptionIdentifier},
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
    /// What was granted.
    pub(super) session_expiry_secs: u32,
    pub(super) wishes: Wishes,
    /// The method by which it proved who it is.
    pub(super) method: Option<Box<str>>,
    /// Messages at QoS 2 that the broker has of the client and that are not released, ascending.
    pub(super) received: Vec<PacketIdentifier>,
}

/// A connected client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) version: ProtocolVersion,
    pub(super) client_id: Box<str>,
    pub(super) device: Arc<Device>,
    keep_alive_secs: u16,
    pub(super) session_expiry_secs: u32,
    /// Bytes of the largest packet the client takes.
    pub(super) maximum_packet_size: u32,
    /// Whether answers explain themselves.
    pub(super) explains: bool,
    /// Whether the client asked for a session that ends with its connection.
    asked_for_no_expiry: bool,
    pub(super) acknowledgements: Acknowledgements,
    /// Messages above QoS 0 of the client that are not done with; those of an earlier connection do not count.
    pub(super) unfinished: u16,
    /// Messages at QoS 2 received and not released, ascending.
    pub(super) received: Vec<PacketIdentifier>,
    pub(super) aliases: TopicAliases,
    pub(super) given_aliases: GivenAliases,
    method: Option<Box<str>>,
    /// Under way while the client proves anew who it is.
    dialog: Option<Box<dyn Dialog>>,
}

impl Connection {
    pub(super) fn new(accepted: Accepted) -> Self {
        Self {
            version: accepted.version,
            client_id: accepted.client_id,
            device: accepted.device,
            keep_alive_secs: accepted.keep_alive_secs,
            session_expiry_secs: accepted.session_expiry_secs,
            maximum_packet_size: accepted.wishes.maximum_packet_size,
            explains: accepted.wishes.problem_information,
            asked_for_no_expiry: accepted.wishes.session_expiry_secs == 0,
            acknowledgements: Acknowledgements::default(),
            unfinished: 0,
            received: accepted.received,
            aliases: TopicAliases::default(),
            given_aliases: GivenAliases::new(accepted.wishes.topic_alias_maximum),
            method: accepted.method,
            dialog: None,
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
            Packet::Subscribe(subscribe) => self.handle_subscribe(&subscribe, context)?,
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe, context)?,
            Packet::PubAck(packet) => Self::handle_acknowledgement(Step::Acknowledged, &packet, context),
            Packet::PubRec(packet) => Self::handle_acknowledgement(Step::Received, &packet, context),
            Packet::PubComp(packet) => Self::handle_acknowledgement(Step::Completed, &packet, context),
            Packet::PubRel(release) => self.handle_release(&release, context),
            Packet::Disconnect(disconnect) => return Err(self.handle_disconnect(&disconnect, settings)),
            Packet::Connect(_) => {
                return Err(Violation::protocol("a second CONNECT came ([MQTT-3.1.0-2])").into());
            }
            Packet::Auth(auth) => return self.handle_auth(&auth, context),
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

    /// Passes a SUBSCRIBE on to the broker, with what is refused here: filters outside the device's rights.
    ///
    /// # Errors
    /// [`Violation`] if a filter is malformed.
    fn handle_subscribe(
        &self,
        subscribe: &Subscribe<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Violation> {
        let identifier = subscribe.properties.iter().find_map(|property| {
            if let Property::SubscriptionIdentifier(identifier) = property {
                Some(identifier)
            } else {
                None
            }
        });
        let wanted: Vec<Wanted> = subscribe
            .subscriptions
            .iter()
            .map(|subscription| self.wanted(&subscription, identifier))
            .collect::<Result<_, _>>()?;
        let refused = wanted.iter().filter(|wanted| wanted.refusal.is_some());
        context.counters.subscribes_refused += refused.count() as u64;
        context.exchange.request(Request::Subscribe {
            packet_id: subscribe.packet_id,
            wanted,
        });
        Ok(())
    }

    fn wanted(
        &self,
        subscription: &Subscription<'_>,
        identifier: Option<SubscriptionIdentifier>,
    ) -> Result<Wanted, Violation> {
        let refusal = match self.filter(subscription.filter)? {
            None => Some(ReasonCode::TopicFilterInvalid),
            Some(filter) if !self.device.may_subscribe(filter.topic_filter) => {
                Some(ReasonCode::NotAuthorized)
            }
            Some(_) => None,
        };
        Ok(Wanted {
            filter: subscription.filter.into(),
            options: SubscriptionOptions {
                qos: subscription.qos,
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
                identifier,
            },
            retain_handling: subscription.retain_handling,
            refusal,
        })
    }

    /// Takes a filter apart; `None` if it is one of MQTT 3.1.1 that says `$share`, of which that version knows nothing, in a way
    /// that MQTT 5.0 does not allow.
    ///
    /// # Errors
    /// [`Violation`] if it is malformed. SUBACK has no word for that: 0x8F stands for filters that are correctly formed
    /// (MQTT 5.0 §3.9.3), and in 3.1.1 the connection must end (3.1.1 `[MQTT-4.8.0-1]`).
    fn filter<'a>(&self, text: &'a str) -> Result<Option<Filter<'a>>, Violation> {
        let parsed = Filter::parse(text);
        let is_malformed = match self.version {
            ProtocolVersion::V5 => parsed.is_none(),
            ProtocolVersion::V311 => check_filter(text).is_err(),
        };
        if is_malformed {
            return Err(Violation::malformed(
                "a topic filter is malformed ([MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1], [MQTT-4.8.2-1], [MQTT-4.8.2-2])",
            ));
        }
        Ok(parsed)
    }

    fn handle_unsubscribe(
        &self,
        unsubscribe: &Unsubscribe<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Violation> {
        let filters = unsubscribe
            .filters
            .iter()
            .map(|filter| Ok(self.filter(filter)?.map(|_| filter.into())))
            .collect::<Result<_, Violation>>()?;
        context.exchange.request(Request::Unsubscribe {
            packet_id: unsubscribe.packet_id,
            filters,
        });
        Ok(())
    }

    /// Takes a client's acknowledgement of what it was sent.
    fn handle_acknowledgement(step: Step, packet: &Acknowledgement<'_>, context: &mut Context<'_>) {
        context.exchange.request(Request::Acknowledge {
            step,
            packet_id: packet.packet_id,
            reason: packet.reason,
        });
    }

    /// Takes the release of a message at QoS 2 (MQTT 5.0 §4.3.3).
    fn handle_release(&mut self, release: &Acknowledgement<'_>, context: &mut Context<'_>) {
        let packet_id = release.packet_id;
        let reason = match self.received.binary_search(&packet_id) {
            Ok(place) => {
                self.received.remove(place);
                if self.session_expiry_secs > 0 {
                    // The broker answers when the release is stored.
                    return context.exchange.request(Request::Release { packet_id });
                }
                ReasonCode::Success
            }
            Err(_) if self.version == ProtocolVersion::V5 => ReasonCode::PacketIdentifierNotFound,
            Err(_) => ReasonCode::Success,
        };
        self.send_completed(packet_id, reason, context);
    }

    /// Lets the client prove anew who it is (MQTT 5.0 §4.12.1); its session goes on meanwhile.
    fn handle_auth(&mut self, auth: &Auth<'_>, context: &mut Context<'_>) -> Result<(), SessionEnd> {
        let out_of_place = Violation::protocol("AUTH is out of place ([MQTT-4.12.0-6], [MQTT-4.12.1-1])");
        let method = self.method.as_deref().ok_or(out_of_place)?;
        let is_same = auth
            .properties
            .iter()
            .any(|property| property == Property::AuthenticationMethod(method));
        let dialog = match (auth.reason, self.dialog.take()) {
            (ReasonCode::ReAuthenticate, None) => context.authenticator.dialog(method, context.entropy),
            (ReasonCode::ContinueAuthentication, Some(dialog)) => Some(dialog),
            _ => None,
        };
        let mut dialog = dialog.filter(|_| is_same).ok_or(out_of_place)?;
        let (reason, data) = match dialog.step(authentication_data(&auth.properties)) {
            Turn::Continue(data) => {
                self.dialog = Some(dialog);
                (ReasonCode::ContinueAuthentication, data)
            }
            Turn::Accepted { device, data } if device.name() == self.device.name() => {
                (ReasonCode::Success, data)
            }
            Turn::Accepted { .. } | Turn::Denied(_) => return Err(SessionEnd::NotAuthorized),
        };
        send_word(reason, (method, &data), self.maximum_packet_size, context.send);
        Ok(())
    }

    pub(super) fn send_completed(
        &mut self,
        packet_id: PacketIdentifier,
        reason: ReasonCode,
        context: &mut Context<'_>,
    ) {
        if reason == ReasonCode::Success {
            self.unfinished = self.unfinished.saturating_sub(1);
        }
        let answer = Acknowledgement {
            packet_id,
            reason,
            properties: Properties::EMPTY,
        };
        self.send(&Packet::PubComp(answer), context);
    }

    fn handle_disconnect(&self, disconnect: &Disconnect<'_>, settings: &Settings) -> SessionEnd {
        if !CLIENT_DISCONNECT_REASONS.contains(&disconnect.reason) {
            return Violation::protocol("a client sent a reason code of the server (§3.14.2.1)").into();
        }
        let mut session_expiry_secs = None;
        for property in disconnect.properties.iter() {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "the other properties are for people"
            )]
            match property {
                Property::SessionExpiryInterval(secs) if secs != 0 && self.asked_for_no_expiry => {
                    return Violation::protocol("the session expiry interval was 0 at CONNECT (§3.14.2.2.2)")
                        .into();
                }
                Property::SessionExpiryInterval(secs) => {
                    session_expiry_secs = Some(secs.min(settings.session_expiry_secs_max()));
                }
                Property::ServerReference(_) => {
                    return Violation::protocol("a client sent a server reference (§3.14.2.2.5)").into();
                }
                _ => {}
            }
        }
        SessionEnd::Disconnected {
            reason: disconnect.reason,
            session_expiry_secs,
        }
    }

    /// Says goodbye and leaves the session to the broker.
    pub(super) fn finish(&self, end: &SessionEnd, context: &mut Context<'_>) {
        if let (ProtocolVersion::V5, Some(reason)) = (self.version, end.disconnect_reason()) {
            let text = if let SessionEnd::Violation(violation) = end {
                Some(Cow::Owned(violation.to_string()))
            } else {
                reason.text().map(Cow::Borrowed)
            };
            send_explained(text.as_deref(), context.send, |properties, send| {
                let goodbye = Disconnect {
                    reason: Disconnect::reason_for(reason),
                    properties,
                };
                self.put(&Packet::Disconnect(goodbye), send);
            });
        }
        context.exchange.request(Request::Detach {
            publishes_will: end.publishes_will(),
            expiry_secs: end.session_expiry_secs(),
        });
    }

    /// Writes every PUBACK and PUBREC whose message is on stable storage.
    pub(super) fn handle_committed(&mut self, up_to: u64, send: &mut Vec<u8>) {
        let (maximum_packet_size, explains) = (self.maximum_packet_size, self.explains);
        let done = self.acknowledgements.commit(
            up_to,
            &mut PubAcks {
                send,
                maximum_packet_size,
                explains,
            },
        );
        self.unfinished = self.unfinished.saturating_sub(done);
    }

    pub(super) fn send(&self, packet: &Packet<'_>, context: &mut Context<'_>) {
        self.put(packet, context.send);
    }

    pub(super) fn put(&self, packet: &Packet<'_>, send: &mut Vec<u8>) {
        send_packet(packet, self.version, self.maximum_packet_size, send);
    }

    /// Returns what the client is told about a failure, if it wants to be told (`[MQTT-3.1.2-29]`).
    pub(super) fn text_for(&self, reason: ReasonCode) -> Option<&'static str> {
        let is_told = self.explains && self.version == ProtocolVersion::V5 && reason.is_failure();
        reason.text().filter(|_| is_told)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.client_id.len()
            + self.acknowledgements.heap_bytes()
            + self.received.capacity() * size_of::<PacketIdentifier>()
            + self.aliases.heap_bytes()
            + self.given_aliases.heap_bytes()
    }
}
