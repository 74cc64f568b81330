//! From CONNECT to CONNACK (MQTT 5.0 §3.1.4).

use std::sync::Arc;

use fieldgate_adapters::{
    authenticate::{Authentication, Credentials, Denial},
    device::Device,
    reading::DEVICE_LEN_MAX,
};
use fieldgate_proto::entropy::Entropy;

use super::{Context, connection::Connection, end::SessionEnd, will::StoredWill};
use crate::{
    frame::Frame,
    packet::{Packet, check_length_form, connack::ConnAck, connect::Connect},
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
    keep_alive_secs: u16,
    session_expiry_secs: u32,
    maximum_packet_size: u32,
    will: Option<Box<StoredWill>>,
}

impl Admission {
    /// Reads the first packet and asks who the client is.
    ///
    /// # Errors
    /// [`SessionEnd`] if the client is turned away at once; the answer, if one is due, has then been written.
    pub(super) fn begin(
        frame: &Frame<'_>,
        context: &mut Context<'_>,
    ) -> Result<(Self, Authentication), SessionEnd> {
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
                answer_refusal(version, violation.reason(), u32::MAX, context);
                return Err(violation.into());
            }
        };
        let wishes = Wishes::of(&connect);
        match Self::check(&connect, &wishes) {
            Ok(admission) => {
                let credentials = Credentials {
                    client_id: Some(connect.client_id).filter(|client_id| !client_id.is_empty()),
                    username: connect.username,
                    password: connect.password,
                };
                let authentication = context.authenticator.authenticate(&credentials);
                Ok((admission, authentication))
            }
            Err(reason) => {
                answer_refusal(version, reason, wishes.maximum_packet_size, context);
                Err(SessionEnd::Refused { reason })
            }
        }
    }

    fn check(connect: &Connect<'_>, wishes: &Wishes) -> Result<Self, ReasonCode> {
        if wishes.extended_authentication {
            return Err(ReasonCode::BadAuthenticationMethod);
        }
        // MQTT 3.1.1 §3.1.3.1: a client that wants its session kept must be known by a name.
        let nameless = connect.client_id.is_empty();
        if nameless && connect.version == ProtocolVersion::V311 && !connect.clean_start {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        if connect.client_id.len() > DEVICE_LEN_MAX {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        let will = match &connect.will {
            Some(will) => Some(Box::new(StoredWill::new(will, connect.version)?)),
            None => None,
        };
        Ok(Self {
            version: connect.version,
            client_id: if nameless {
                None
            } else {
                Some(connect.client_id.into())
            },
            keep_alive_secs: connect.keep_alive_secs,
            session_expiry_secs: wishes.session_expiry_secs,
            maximum_packet_size: wishes.maximum_packet_size,
            will,
        })
    }

    /// Answers the CONNECT with the decision `authentication`, which must not be `Pending`.
    ///
    /// # Errors
    /// [`SessionEnd::Refused`] if the client is turned away.
    pub(super) fn finish(
        self,
        authentication: Authentication,
        settings: &Settings,
        context: &mut Context<'_>,
    ) -> Result<Connection, SessionEnd> {
        let reason = match authentication {
            Authentication::Accepted(device) => match self.will_is_allowed(&device) {
                true => return Ok(self.accept(device, settings, context)),
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
        answer_refusal(self.version, reason, self.maximum_packet_size, context);
        Err(SessionEnd::Refused { reason })
    }

    fn will_is_allowed(&self, device: &Device) -> bool {
        self.will
            .as_ref()
            .is_none_or(|will| device.may_publish(will.topic()))
    }

    fn accept(self, device: Arc<Device>, settings: &Settings, context: &mut Context<'_>) -> Connection {
        let assigned = self.client_id.is_none();
        let client_id = self
            .client_id
            .unwrap_or_else(|| assign_client_id(context.entropy));
        let keep_alive_secs = granted_keep_alive(self.version, self.keep_alive_secs, settings);
        // In the order of their identifiers; those at the end only if there is something to say.
        let mut properties = vec![
            Property::ReceiveMaximum(settings.receive_maximum()),
            Property::TopicAliasMaximum(settings.topic_alias_maximum()),
            Property::MaximumQos(true),
            Property::RetainAvailable(false),
            Property::MaximumPacketSize(settings.maximum_packet_size()),
            Property::WildcardSubscriptionAvailable(false),
            Property::SubscriptionIdentifierAvailable(false),
            Property::SharedSubscriptionAvailable(false),
        ];
        if self.session_expiry_secs != 0 {
            // Sessions end with their connection, whatever the client asked for (§3.2.2.3.2).
            properties.push(Property::SessionExpiryInterval(0));
        }
        if assigned {
            properties.push(Property::AssignedClientIdentifier(&client_id));
        }
        if keep_alive_secs != self.keep_alive_secs {
            properties.push(Property::ServerKeepAlive(keep_alive_secs));
        }
        let properties = match self.version {
            ProtocolVersion::V311 => Properties::EMPTY,
            ProtocolVersion::V5 => Properties::from_list(&properties),
        };
        let answer = ConnAck {
            session_present: false,
            reason: ReasonCode::Success,
            properties,
        };
        send_packet(
            &Packet::ConnAck(answer),
            self.version,
            self.maximum_packet_size,
            context.send,
        );
        context.counters.connected += 1;
        Connection::new(super::connection::Accepted {
            version: self.version,
            client_id,
            device,
            keep_alive_secs,
            session_expires_with_connection: self.session_expiry_secs == 0,
            maximum_packet_size: self.maximum_packet_size,
            will: self.will,
        })
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let client_id = self.client_id.as_ref().map_or(0, |client_id| client_id.len());
        size_of::<Self>() + client_id + self.will.as_ref().map_or(0, |will| will.heap_bytes())
    }
}

/// What the properties of a CONNECT ask for.
struct Wishes {
    session_expiry_secs: u32,
    maximum_packet_size: u32,
    extended_authentication: bool,
}

impl Wishes {
    fn of(connect: &Connect<'_>) -> Self {
        let mut wishes = Self {
            session_expiry_secs: 0,
            maximum_packet_size: u32::MAX,
            extended_authentication: false,
        };
        for property in connect.properties.iter() {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "the rest is about messages to the client"
            )]
            match property {
                Property::SessionExpiryInterval(secs) => wishes.session_expiry_secs = secs,
                Property::MaximumPacketSize(bytes) => wishes.maximum_packet_size = bytes,
                Property::AuthenticationMethod(_) => wishes.extended_authentication = true,
                _ => {}
            }
        }
        wishes
    }
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
    reason: ReasonCode,
    maximum_packet_size: u32,
    context: &mut Context<'_>,
) {
    if version == ProtocolVersion::V311 && reason.connect_return_code().is_none() {
        return;
    }
    let answer = ConnAck {
        session_present: false,
        reason: ConnAck::reason_for(reason),
        properties: Properties::EMPTY,
    };
    send_packet(
        &Packet::ConnAck(answer),
        version,
        maximum_packet_size,
        context.send,
    );
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
