//! Reason codes (MQTT 5.0 §2.4).

use std::fmt;

/// Why a packet was answered as it was (MQTT 5.0 §2.4, table 2-6); codes of 0x80 and above are failures.
///
/// MQTT 3.1.1 has return codes in CONNACK and SUBACK only; they are mapped to these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ReasonCode {
    /// Success, normal disconnection, or granted QoS 0.
    Success = 0x00,
    /// Granted QoS 1.
    GrantedQos1 = 0x01,
    /// Granted QoS 2.
    GrantedQos2 = 0x02,
    /// The client leaves and wants its will published.
    DisconnectWithWill = 0x04,
    /// Accepted, but nobody subscribes to it.
    NoMatchingSubscribers = 0x10,
    /// There was no such subscription.
    NoSubscriptionExisted = 0x11,
    /// The authentication goes on with another step.
    ContinueAuthentication = 0x18,
    /// The client authenticates again.
    ReAuthenticate = 0x19,
    /// The sender does not say why.
    UnspecifiedError = 0x80,
    /// A packet could not be parsed.
    MalformedPacket = 0x81,
    /// A packet came that must not come, or not now.
    ProtocolError = 0x82,
    /// The packet is valid, but the receiver does not take it.
    ImplementationSpecificError = 0x83,
    /// The server does not speak the version.
    UnsupportedProtocolVersion = 0x84,
    /// The client identifier is valid, but not allowed.
    ClientIdentifierNotValid = 0x85,
    /// The user name or password is wrong.
    BadUserNameOrPassword = 0x86,
    /// The client may not do this.
    NotAuthorized = 0x87,
    /// The server is not available.
    ServerUnavailable = 0x88,
    /// The server is busy.
    ServerBusy = 0x89,
    /// The client is banned.
    Banned = 0x8a,
    /// The server stops.
    ServerShuttingDown = 0x8b,
    /// The authentication method is not supported.
    BadAuthenticationMethod = 0x8c,
    /// Nothing came for one and a half keep-alives.
    KeepAliveTimeout = 0x8d,
    /// Another connection uses the same client identifier.
    SessionTakenOver = 0x8e,
    /// The topic filter is well formed, but not allowed.
    TopicFilterInvalid = 0x8f,
    /// The topic name is well formed, but not allowed.
    TopicNameInvalid = 0x90,
    /// The packet identifier is in use.
    PacketIdentifierInUse = 0x91,
    /// The packet identifier is not known.
    PacketIdentifierNotFound = 0x92,
    /// More publishes are unacknowledged than the receive maximum.
    ReceiveMaximumExceeded = 0x93,
    /// The topic alias is 0 or above the maximum.
    TopicAliasInvalid = 0x94,
    /// The packet is larger than the maximum packet size.
    PacketTooLarge = 0x95,
    /// Messages come too fast.
    MessageRateTooHigh = 0x96,
    /// A limit of the implementation or the administrator is reached.
    QuotaExceeded = 0x97,
    /// An administrator ended it.
    AdministrativeAction = 0x98,
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99,
    /// Retained messages are not supported.
    RetainNotSupported = 0x9a,
    /// The QoS is not supported.
    QosNotSupported = 0x9b,
    /// Use another server for the time being.
    UseAnotherServer = 0x9c,
    /// Use another server from now on.
    ServerMoved = 0x9d,
    /// Shared subscriptions are not supported.
    SharedSubscriptionsNotSupported = 0x9e,
    /// Connections come too fast.
    ConnectionRateExceeded = 0x9f,
    /// The time allowed for the connection is over.
    MaximumConnectTime = 0xa0,
    /// Subscription identifiers are not supported.
    SubscriptionIdentifiersNotSupported = 0xa1,
    /// Wildcard subscriptions are not supported.
    WildcardSubscriptionsNotSupported = 0xa2,
}

impl ReasonCode {
    /// Every reason code, in the order of their numbers.
    pub const ALL: [Self; 43] = [
        Self::Success,
        Self::GrantedQos1,
        Self::GrantedQos2,
        Self::DisconnectWithWill,
        Self::NoMatchingSubscribers,
        Self::NoSubscriptionExisted,
        Self::ContinueAuthentication,
        Self::ReAuthenticate,
        Self::UnspecifiedError,
        Self::MalformedPacket,
        Self::ProtocolError,
        Self::ImplementationSpecificError,
        Self::UnsupportedProtocolVersion,
        Self::ClientIdentifierNotValid,
        Self::BadUserNameOrPassword,
        Self::NotAuthorized,
        Self::ServerUnavailable,
        Self::ServerBusy,
        Self::Banned,
        Self::ServerShuttingDown,
        Self::BadAuthenticationMethod,
        Self::KeepAliveTimeout,
        Self::SessionTakenOver,
        Self::TopicFilterInvalid,
        Self::TopicNameInvalid,
        Self::PacketIdentifierInUse,
        Self::PacketIdentifierNotFound,
        Self::ReceiveMaximumExceeded,
        Self::TopicAliasInvalid,
        Self::PacketTooLarge,
        Self::MessageRateTooHigh,
        Self::QuotaExceeded,
        Self::AdministrativeAction,
        Self::PayloadFormatInvalid,
        Self::RetainNotSupported,
        Self::QosNotSupported,
        Self::UseAnotherServer,
        Self::ServerMoved,
        Self::SharedSubscriptionsNotSupported,
        Self::ConnectionRateExceeded,
        Self::MaximumConnectTime,
        Self::SubscriptionIdentifiersNotSupported,
        Self::WildcardSubscriptionsNotSupported,
    ];

    /// Returns the number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the reason code of a number, if it has a meaning.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL
            .binary_search_by_key(&code, |reason| reason.code())
            .ok()
            .and_then(|index| Self::ALL.get(index).copied())
    }

    /// Returns whether it says that something failed.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        self.code() >= 0x80
    }

    /// Returns the return code of a CONNACK of MQTT 3.1.1 (§3.2.2.3); `None` where it has none and the connection is just closed.
    #[must_use]
    pub const fn connect_return_code(self) -> Option<u8> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "MQTT 3.1.1 is finished and will not get another return code"
        )]
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerUnavailable => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized => Some(5),
            _ => None,
        }
    }

    /// Returns what a return code of a CONNACK of MQTT 3.1.1 says.
    #[must_use]
    pub const fn from_connect_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }

    /// Returns what it means in words, for the Reason String of an answer (MQTT 5.0 §4.13); `None` where the code says all.
    #[must_use]
    pub const fn text(self) -> Option<&'static str> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the rest is never said, or says all by its number"
        )]
        match self {
            Self::MalformedPacket => Some("a packet could not be read"),
            Self::ProtocolError => Some("a packet came that must not come, or not now"),
            Self::UnsupportedProtocolVersion => Some("MQTT 3.1.1 and 5.0 are spoken here"),
            Self::ClientIdentifierNotValid => Some("this client identifier is not taken here"),
            Self::BadUserNameOrPassword => Some("user name or password is wrong"),
            Self::NotAuthorized => Some("the rights of the device do not cover this"),
            Self::ServerUnavailable | Self::ServerBusy => {
                Some("it cannot be served at the moment; try again later")
            }
            Self::ServerShuttingDown => Some("the gateway stops; connect again later"),
            Self::BadAuthenticationMethod => Some("this authentication method is not offered"),
            Self::KeepAliveTimeout => Some("nothing came for one and a half keep-alives"),
            Self::SessionTakenOver => Some("another connection has the same client identifier"),
            Self::TopicFilterInvalid => Some("this topic filter is not taken here"),
            Self::TopicNameInvalid => Some("this topic is not taken here"),
            Self::ReceiveMaximumExceeded => {
                Some("more messages were under way than the receive maximum allows")
            }
            Self::PacketTooLarge => Some("the packet is larger than the maximum packet size"),
            Self::MessageRateTooHigh => Some("messages come too fast"),
            Self::QuotaExceeded => Some("there is no room for this: a bound of the gateway is reached"),
            Self::AdministrativeAction => Some("the device's settings have changed; connect again"),
            Self::PayloadFormatInvalid => Some("the payload is not the UTF-8 it is said to be"),
            Self::ConnectionRateExceeded => Some("connections come too fast"),
            _ => None,
        }
    }

    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the rest needs no cure that the name does not say"
        )]
        match self {
            Self::MalformedPacket | Self::ProtocolError => "the device's MQTT client is defective: update it",
            Self::UnsupportedProtocolVersion => "set the device's MQTT client to version 3.1.1 or 5.0",
            Self::ClientIdentifierNotValid => {
                "give the device a client identifier of 1 to 255 bytes, or set clean session"
            }
            Self::BadUserNameOrPassword => "compare the device's credentials with the device table",
            Self::NotAuthorized => "allow the topic or the client in the device table",
            Self::ServerUnavailable | Self::ServerBusy => "look at the node's load with `fieldgate status`",
            Self::BadAuthenticationMethod => "use user name and password",
            Self::KeepAliveTimeout => "look at the device's network, or set a longer keep-alive",
            Self::SessionTakenOver => "give every device a client identifier of its own",
            Self::ReceiveMaximumExceeded => {
                "the device's MQTT client ignores Receive Maximum: raise it, or update the client"
            }
            Self::TopicAliasInvalid => "the device's MQTT client ignores Topic Alias Maximum: update it",
            Self::PacketTooLarge => "let the device send smaller messages, or raise the maximum packet size",
            Self::QuotaExceeded => "restore the uplink, or give the journal more bytes",
            Self::RetainNotSupported => "publish without the retain flag",
            Self::QosNotSupported => "publish with QoS 0 or 1",
            _ => "see MQTT 5.0 §2.4",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02x}", self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_and_are_in_order() {
        assert!(ReasonCode::ALL.is_sorted_by_key(|reason| reason.code()));
        for code in 0..=u8::MAX {
            match ReasonCode::from_code(code) {
                Some(reason) => assert_eq!(reason.code(), code),
                None => assert!(!ReasonCode::ALL.iter().any(|reason| reason.code() == code)),
            }
        }
    }

    #[test]
    fn return_codes_of_3_1_1_come_back() {
        for code in 0..=u8::MAX {
            let reason = ReasonCode::from_connect_return_code(code);
            assert_eq!(reason.is_some(), code <= 5);
            assert_eq!(
                reason.and_then(ReasonCode::connect_return_code),
                (code <= 5).then_some(code)
            );
        }
    }
}
