//! From CONNECT to CONNACK (MQTT 5.0 §3.1.4).

use std::sync::Arc;

use fieldgate_adapters::{
    authenticate::{Authentication, Credentials, Denial},
    device::Device,
    reading::DEVICE_LEN_MAX,
    scram::{Dialog, Turn},
};
use fieldgate_proto::entropy::Entropy;

use super::{Context, connection::Connection, end::SessionEnd, will};
use crate::{
    exchange::{Attach, Attached, Request, Will},
    frame::Frame,
    packet::{Packet, check_length_form, connack::ConnAck, connect::Connect, disconnect::Auth},
    property::{Properties, Property},
    reason::ReasonCode,
    settings::Settings,
    version::ProtocolVersion,
    violation::Violation,
};

/// A client whose CONNECT was read but not yet answered.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) version: ProtocolVersion,
    /// `None` if the client left the choice to us.
    client_id: Option<Box<str>>,
    clean_start: bool,
    keep_alive_secs: u16,
    pub(super) wishes: Wishes,
    will: Option<Box<Will>>,
    /// Method and last word of a conversation that let the client in.
    pub(super) proof: Option<(Box<str>, Vec<u8>)>,
}

/// How a CONNECT is decided on.
#[derive(Debug)]
pub(super) enum Opening {
    /// By user name and password.
    Asked(Admission, Authentication),
    /// By a conversation that has begun.
    Conversing(Admission, Box<str>, Box<dyn Dialog>, Turn),
}

/// A client that was let in and waits for its session.
#[derive(Debug)]
pub(super) struct Attaching {
    admission: Admission,
    device: Arc<Device>,
    client_id: Box<str>,
    session_expiry_secs: u32,
}

impl Admission {
    /// Reads the first packet and asks who the client is.
    ///
    /// # Errors
    /// [`SessionEnd`] if the client is turned away at once; the answer, if one is due, has then been written.
    pub(super) fn begin(
        frame: &Frame<'_>,
        settings: &Settings,
        context: &mut Context<'_>,
    ) -> Result<Opening, SessionEnd> {
        let version = match Connect::version(frame.body) {
            Ok(version) => version,
            Err(violation) => {
                refuse_version(frame.body, context.send);
                return Err(violation.into());
            }
        };
        let connect = check_length_form(frame, version).and_then(|()| Connect::decode(frame.body));
        let connect = match connect {
            Ok(connect) => connect,
            Err(violation) => {
                // MQTT 3.1.1 has no return code for this: the connection is just closed (3.1.1 §4.8).
                let text = violation.to_string();
                answer_refusal(version, (violation.reason(), Some(&text)), u32::MAX, context);
                return Err(violation.into());
            }
        };
        let wishes = Wishes::of(&connect);
        let maximum_packet_size = wishes.maximum_packet_size;
        match Self::check(&connect, wishes, settings) {
            Ok(admission) => {
                if let Some((method, data)) = method_of(&connect) {
                    let dialog = context.authenticator.dialog(method, context.entropy);
                    let Some(mut dialog) = dialog else {
                        let reason = ReasonCode::BadAuthenticationMethod;
                        answer_refusal(version, (reason, reason.text()), maximum_packet_size, context);
                        return Err(SessionEnd::Refused { reason });
                    };
                    let turn = dialog.step(data);
                    return Ok(Opening::Conversing(admission, method.into(), dialog, turn));
                }
                let credentials = Credentials {
                    client_id: Some(connect.client_id).filter(|client_id| !client_id.is_empty()),
                    username: connect.username,
                    password: connect.password,
                };
                let authentication = context.authenticator.authenticate(&credentials);
                Ok(Opening::Asked(admission, authentication))
            }
            Err(reason) => {
                answer_refusal(version, (reason, reason.text()), maximum_packet_size, context);
                Err(SessionEnd::Refused { reason })
            }
        }
    }

    fn check(connect: &Connect<'_>, wishes: Wishes, settings: &Settings) -> Result<Self, ReasonCode> {
        // MQTT 3.1.1 §3.1.3.1: a client that wants its session kept must be known by a name.
        let nameless = connect.client_id.is_empty();
        if nameless && connect.version == ProtocolVersion::V311 && !connect.clean_start {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        if connect.client_id.len() > DEVICE_LEN_MAX {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        let will = match &connect.will {
            Some(will) => Some(Box::new(will::keep(will, settings)?)),
            None => None,
        };
        Ok(Self {
            version: connect.version,
            client_id: if nameless {
                None
            } else {
                Some(connect.client_id.into())
            },
            clean_start: connect.clean_start,
            keep_alive_secs: connect.keep_alive_secs,
            wishes,
            will,
            proof: None,
        })
    }

    /// Takes the decision `authentication`, which must not be `Pending`, and asks for the client's session.
    ///
    /// # Errors
    /// [`SessionEnd::Refused`] if the client is turned away.
    pub(super) fn finish(
        self,
        authentication: Authentication,
        settings: &Settings,
        context: &mut Context<'_>,
    ) -> Result<Attaching, SessionEnd> {
        let reason = match authentication {
            Authentication::Accepted(device) => match self.will_is_allowed(&device) {
                true => return Ok(self.attach(device, settings, context)),
                false => {
                    context.counters.unauthorized += 1;
                    ReasonCode::NotAuthorized
                }
            },
            Authentication::Denied(Denial::BadCredentials) => {
                context.counters.logins_refused += 1;
                ReasonCode::BadUserNameOrPassword
            }
            Authentication::Denied(Denial::NotAuthorized) => {
                context.counters.logins_refused += 1;
                ReasonCode::NotAuthorized
            }
            Authentication::Denied(Denial::Busy) | Authentication::Pending => ReasonCode::ServerUnavailable,
        };
        Err(self.refuse(reason, context))
    }

    /// Turns the client away.
    fn refuse(&self, reason: ReasonCode, context: &mut Context<'_>) -> SessionEnd {
        let maximum_packet_size = self.wishes.maximum_packet_size;
        answer_refusal(
            self.version,
            (reason, reason.text()),
            maximum_packet_size,
            context,
        );
        SessionEnd::Refused { reason }
    }

    fn will_is_allowed(&self, device: &Device) -> bool {
        self.will
            .as_ref()
            .is_none_or(|will| device.may_publish(&will.message.topic))
    }

    fn attach(mut self, device: Arc<Device>, settings: &Settings, context: &mut Context<'_>) -> Attaching {
        let client_id = match &self.client_id {
            Some(client_id) => client_id.clone(),
            None => assign_client_id(context.entropy),
        };
        let wanted = match self.version {
            ProtocolVersion::V5 => self.wishes.session_expiry_secs,
            // MQTT 3.1.1 §3.1.2.4: without Clean Session the session stays, for how long is up to the server.
            ProtocolVersion::V311 if self.clean_start => 0,
            ProtocolVersion::V311 => u32::MAX,
        };
        let session_expiry_secs = wanted.min(settings.session_expiry_secs_max());
        if let Some(will) = &mut self.will {
            will.message.device = device.name().into();
        }
        context.exchange.request(Request::Attach(Box::new(Attach {
            device: Arc::clone(&device),
            client_id: client_id.clone(),
            clean_start: self.clean_start,
            expiry_secs: session_expiry_secs,
            receive_maximum: self.wishes.receive_maximum,
            speaks_v5: self.version == ProtocolVersion::V5,
            will: self.will.take(),
        })));
        Attaching {
            admission: self,
            device,
            client_id,
            session_expiry_secs,
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let client_id = self.client_id.as_ref().map_or(0, |client_id| client_id.len());
        let will = self.will.as_ref().map_or(0, |will| will.message.bytes());
        size_of::<Self>() + client_id + will
    }
}

impl Attaching {
    /// Answers the CONNECT: the client has a session.
    pub(super) fn accept(
        self,
        attached: &Attached,
        settings: &Settings,
        context: &mut Context<'_>,
    ) -> Connection {
        let Self {
            admission,
            device,
            client_id,
            session_expiry_secs,
        } = self;
        let version = admission.version;
        let keep_alive_secs = granted_keep_alive(version, admission.keep_alive_secs, settings);
        let response_information = response_information(&admission.wishes, &device);
        // In the order of their identifiers; those at the end only if there is something to say.
        let mut properties = vec![
            Property::ReceiveMaximum(settings.receive_maximum()),
            Property::TopicAliasMaximum(settings.topic_alias_maximum()),
            Property::MaximumPacketSize(settings.maximum_packet_size()),
        ];
        if session_expiry_secs != admission.wishes.session_expiry_secs {
            properties.push(Property::SessionExpiryInterval(session_expiry_secs));
        }
        if admission.client_id.is_none() {
            properties.push(Property::AssignedClientIdentifier(&client_id));
        }
        if keep_alive_secs != admission.keep_alive_secs {
            properties.push(Property::ServerKeepAlive(keep_alive_secs));
        }
        if let Some(topic) = &response_information {
            properties.push(Property::ResponseInformation(topic));
        }
        if let Some((method, data)) = &admission.proof {
            properties.push(Property::AuthenticationMethod(method));
            properties.push(Property::AuthenticationData(data));
        }
        let properties = match version {
            ProtocolVersion::V311 => Properties::EMPTY,
            ProtocolVersion::V5 => Properties::from_list(&properties),
        };
        let answer = ConnAck {
            session_present: attached.session_present,
            reason: ReasonCode::Success,
            properties,
        };
        let maximum_packet_size = admission.wishes.maximum_packet_size;
        send_packet(
            &Packet::ConnAck(answer),
            version,
            maximum_packet_size,
            context.send,
        );
        context.counters.connected += 1;
        Connection::new(super::connection::Accepted {
            version,
            client_id,
            device,
            keep_alive_secs,
            session_expiry_secs,
            wishes: admission.wishes,
            method: admission.proof.map(|(method, _)| method),
            received: attached.received.clone(),
        })
    }

    /// Turns the client away: it gets no session.
    pub(super) fn refuse(self, reason: ReasonCode, context: &mut Context<'_>) -> SessionEnd {
        let reason = match self.admission.version {
            ProtocolVersion::V5 => reason,
            // 3.1.1 §3.2.2.3 has no closer word.
            ProtocolVersion::V311 => ReasonCode::ServerUnavailable,
        };
        self.admission.refuse(reason, context)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.client_id.len() + self.admission.heap_bytes()
    }
}

/// Returns the base of response topics, where the client wants to know and may listen there (MQTT 5.0 §3.2.2.3.15).
fn response_information(wishes: &Wishes, device: &Device) -> Option<String> {
    let base = format!("{}/responses", device.name());
    (wishes.response_information && device.may_subscribe(&format!("{base}/#"))).then_some(base)
}

/// What the properties of a CONNECT ask for.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) session_expiry_secs: u32,
    pub(super) maximum_packet_size: u32,
    receive_maximum: u16,
    pub(super) topic_alias_maximum: u16,
    response_information: bool,
    /// Whether answers beside CONNACK and DISCONNECT may explain themselves (MQTT 5.0 §3.1.2.11.7).
    pub(super) problem_information: bool,
}

impl Wishes {
    fn of(connect: &Connect<'_>) -> Self {
        let mut wishes = Self {
            session_expiry_secs: 0,
            maximum_packet_size: u32::MAX,
            receive_maximum: u16::MAX,
            topic_alias_maximum: 0,
            response_information: false,
            problem_information: true,
        };
        for property in connect.properties.iter() {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is for people")]
            match property {
                Property::SessionExpiryInterval(secs) => wishes.session_expiry_secs = secs,
                Property::MaximumPacketSize(bytes) => wishes.maximum_packet_size = bytes,
                Property::ReceiveMaximum(maximum) => wishes.receive_maximum = maximum,
                Property::TopicAliasMaximum(maximum) => wishes.topic_alias_maximum = maximum,
                Property::RequestResponseInformation(wanted) => wishes.response_information = wanted,
                Property::RequestProblemInformation(wanted) => wishes.problem_information = wanted,
                _ => {}
            }
        }
        wishes
    }
}

/// Returns authentication method and data of a CONNECT (MQTT 5.0 §3.1.2.11.9).
fn method_of<'a>(connect: &Connect<'a>) -> Option<(&'a str, &'a [u8])> {
    let method = connect.properties.iter().find_map(|property| {
        if let Property::AuthenticationMethod(method) = property {
            Some(method)
        } else {
            None
        }
    })?;
    Some((method, authentication_data(&connect.properties)))
}

/// Returns the authentication data of a packet, empty if there is none.
pub(super) fn authentication_data<'a>(properties: &Properties<'a>) -> &'a [u8] {
    let data = properties.iter().find_map(|property| {
        if let Property::AuthenticationData(data) = property {
            Some(data)
        } else {
            None
        }
    });
    data.unwrap_or_default()
}

/// Reads the next word of a conversation.
///
/// # Errors
/// [`SessionEnd`] if the packet is not AUTH of the same method (`[MQTT-4.12.0-3]`, `[MQTT-4.12.0-5]`), or a goodbye.
pub(super) fn next_word<'a>(frame: &Frame<'a>, method: &str) -> Result<&'a [u8], SessionEnd> {
    check_length_form(frame, ProtocolVersion::V5)?;
    #[expect(clippy::wildcard_enum_match_arm, reason = "everything else is out of place")]
    match Packet::decode(frame, ProtocolVersion::V5)? {
        Packet::Auth(auth) if auth.reason == ReasonCode::ContinueAuthentication => {
            let is_same = auth
                .properties
                .iter()
                .any(|property| property == Property::AuthenticationMethod(method));
            if is_same {
                Ok(authentication_data(&auth.properties))
            } else {
                Err(Violation::protocol("AUTH names another method ([MQTT-4.12.0-5])").into())
            }
        }
        Packet::Disconnect(disconnect) => Err(SessionEnd::Disconnected {
            reason: disconnect.reason,
            session_expiry_secs: None,
        }),
        _ => Err(Violation::protocol("another packet came than AUTH (§4.12)").into()),
    }
}

/// Writes the next word of the gateway.
pub(super) fn send_word(
    reason: ReasonCode,
    (method, data): (&str, &[u8]),
    maximum_packet_size: u32,
    send: &mut Vec<u8>,
) {
    let properties = [
        Property::AuthenticationMethod(method),
        Property::AuthenticationData(data),
    ];
    let auth = Auth {
        reason,
        properties: Properties::from_list(&properties),
    };
    send_packet(
        &Packet::Auth(auth),
        ProtocolVersion::V5,
        maximum_packet_size,
        send,
    );
}

/// Returns the keep-alive that counts, in seconds; 0 switches the check off.
fn granted_keep_alive(version: ProtocolVersion, wanted: u16, settings: &Settings) -> u16 {
    match settings.keep_alive_secs_max() {
        Some(max) if version == ProtocolVersion::V5 && (wanted == 0 || wanted > max) => max,
        Some(_) | None => wanted,
    }
}

/// Chooses a client identifier of 128 random bits.
fn assign_client_id(entropy: &mut dyn Entropy) -> Box<str> {
    use std::fmt::Write as _;

    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    let mut client_id = String::with_capacity(35);
    client_id.push_str("fg-");
    for byte in bytes {
        write!(client_id, "{byte:02x}").expect("a string takes everything");
    }
    client_id.into_boxed_str()
}

/// Answers a CONNECT of a version that is not spoken, in the form its sender understands (MQTT 5.0 §3.1.2.2).
fn refuse_version(body: &[u8], send: &mut Vec<u8>) {
    let Some(unsupported) = Connect::unsupported_version(body) else {
        // Not MQTT at all: nothing is revealed.
        return;
    };
    // Bridges of mosquitto set the highest bit of the level to ask for bridge mode, and ask again without it when refused.
    let version = if unsupported.level & 0x7f <= 4 {
        ProtocolVersion::V311
    } else {
        ProtocolVersion::V5
    };
    let reason = ReasonCode::UnsupportedProtocolVersion;
    let answer = ConnAck {
        session_present: false,
        reason,
        properties: Properties::EMPTY,
    };
    send_packet(&Packet::ConnAck(answer), version, u32::MAX, send);
}

/// Writes a CONNACK that refuses, where the version can say the reason.
fn answer_refusal(
    version: ProtocolVersion,
    (reason, text): (ReasonCode, Option<&str>),
    maximum_packet_size: u32,
    context: &mut Context<'_>,
) {
    if version == ProtocolVersion::V311 && reason.connect_return_code().is_none() {
        return;
    }
    let send = &mut *context.send;
    send_explained(
        text.filter(|_| version == ProtocolVersion::V5),
        send,
        |properties, send| {
            let answer = ConnAck {
                session_present: false,
                reason: ConnAck::reason_for(reason),
                properties,
            };
            send_packet(&Packet::ConnAck(answer), version, maximum_packet_size, send);
        },
    );
}

/// Has a packet appended with a Reason String, and without one where there is none to give, or the packet would be larger than the
/// client takes (`[MQTT-3.2.2-19]`, `[MQTT-3.4.2-2]` and their like).
pub(super) fn send_explained(
    text: Option<&str>,
    send: &mut Vec<u8>,
    append: impl Fn(Properties<'_>, &mut Vec<u8>),
) {
    let before = send.len();
    if let Some(text) = text {
        append(Properties::from_list(&[Property::ReasonString(text)]), send);
    }
    if send.len() == before {
        append(Properties::EMPTY, send);
    }
}

/// Appends a packet of ours, unless it is larger than the client takes (`[MQTT-3.1.2-24]`, `[MQTT-3.1.2-25]`).
pub(super) fn send_packet(
    packet: &Packet<'_>,
    version: ProtocolVersion,
    maximum_packet_size: u32,
    send: &mut Vec<u8>,
) {
    let before = send.len();
    packet
        .encode(version, send)
        .expect("answers are within the limits of the standard");
    if (send.len() - before) as u64 > u64::from(maximum_packet_size) {
        send.truncate(before);
    }
}

/// The first packet is not a CONNECT.
pub(super) const NOT_CONNECT: Violation =
    Violation::protocol("the first packet is not CONNECT ([MQTT-3.1.0-1])");
