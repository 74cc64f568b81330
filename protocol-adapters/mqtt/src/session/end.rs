//! Why a session ended.

use crate::{reason::ReasonCode, violation::Violation};

/// Why a session ended; the connection is closed after what is in the output buffer has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionEnd {
    /// The client said goodbye.
    #[error("the client disconnected")]
    Disconnected {
        /// The reason code it gave; every one but 0 leaves the will.
        reason: ReasonCode,
        /// Another session expiry interval in seconds.
        session_expiry_secs: Option<u32>,
    },
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// The CONNECT was refused.
    #[error("the connection was refused with reason code {reason}")]
    Refused {
        /// What CONNACK said.
        reason: ReasonCode,
    },
    /// A client of MQTT 3.1.1, which cannot be told otherwise, published outside its rights (§3.3.5).
    #[error("the device published a topic outside its rights")]
    NotAuthorized,
    /// A reading was not taken, and MQTT 3.1.1 has no other way to say so.
    #[error("a reading was not taken")]
    NotTaken {
        /// Why.
        #[source]
        cause: fieldgate_adapters::ingest::Refused,
    },
    /// No CONNECT, or no answer to it, in time.
    #[error("the client did not connect in time")]
    ConnectTimeout,
    /// Nothing came for one and a half keep-alives (`[MQTT-3.1.2-22]`).
    #[error("the client sent nothing for one and a half keep-alives")]
    KeepAliveTimeout,
    /// The caller ended it.
    #[error("the session was ended from outside")]
    Terminated(Termination),
    /// The transport connection closed.
    #[error("the connection was closed")]
    Closed,
}

/// Why the caller ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// Another connection of the same device uses the same client identifier (`[MQTT-3.1.4-3]`).
    TakenOver,
    /// The node stops.
    ShuttingDown,
    /// The device was removed or its rights changed.
    Administrative,
    /// The client does not read what it is sent, or another bound of the caller is reached.
    QuotaExceeded,
    /// The client acknowledged a message with a packet that is not the next one of its quality of service (MQTT 5.0 §4.3).
    WrongAcknowledgement,
}

impl SessionEnd {
    /// Returns the reason code of the DISCONNECT that tells an MQTT 5.0 client; `None` if it needs none.
    #[must_use]
    pub const fn disconnect_reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Disconnected { .. } | Self::Refused { .. } | Self::ConnectTimeout | Self::Closed => None,
            Self::Violation(violation) => Some(violation.reason()),
            Self::NotAuthorized => Some(ReasonCode::NotAuthorized),
            Self::NotTaken { .. } => Some(ReasonCode::ServerBusy),
            Self::KeepAliveTimeout => Some(ReasonCode::KeepAliveTimeout),
            Self::Terminated(Termination::TakenOver) => Some(ReasonCode::SessionTakenOver),
            Self::Terminated(Termination::ShuttingDown) => Some(ReasonCode::ServerShuttingDown),
            Self::Terminated(Termination::Administrative) => Some(ReasonCode::AdministrativeAction),
            Self::Terminated(Termination::QuotaExceeded) => Some(ReasonCode::QuotaExceeded),
            Self::Terminated(Termination::WrongAcknowledgement) => Some(ReasonCode::ProtocolError),
        }
    }

    /// Returns whether the will is published: always, unless the client said goodbye with reason code 0 (`[MQTT-3.1.2-10]`, `[MQTT-3.14.4-3]`).
    #[must_use]
    pub fn publishes_will(&self) -> bool {
        !matches!(self, Self::Disconnected { reason, .. } if *reason == ReasonCode::Success)
    }

    /// Returns the session expiry interval in seconds that the client asked for at its end.
    #[must_use]
    pub const fn session_expiry_secs(&self) -> Option<u32> {
        match self {
            Self::Disconnected {
                session_expiry_secs, ..
            } => *session_expiry_secs,
            Self::Violation(_)
            | Self::Refused { .. }
            | Self::NotAuthorized
            | Self::NotTaken { .. }
            | Self::ConnectTimeout
            | Self::KeepAliveTimeout
            | Self::Terminated(_)
            | Self::Closed => None,
        }
    }

    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Disconnected { .. } | Self::Closed => "nothing is wrong on this side",
            Self::Violation(violation) => violation.hint(),
            Self::Refused { reason } => reason.hint(),
            Self::NotAuthorized => "allow the topic in the device table",
            Self::NotTaken { cause } => cause.hint(),
            Self::ConnectTimeout => "look at the device's network, or for something that scans the port",
            Self::KeepAliveTimeout => "look at the device's network, or set a longer keep-alive",
            Self::Terminated(Termination::TakenOver) => "give every device a client identifier of its own",
            Self::Terminated(Termination::ShuttingDown | Termination::Administrative) => {
                "the device may connect again"
            }
            Self::Terminated(Termination::QuotaExceeded) => {
                "look at the device's network: it does not read its answers"
            }
            Self::Terminated(Termination::WrongAcknowledgement) => ReasonCode::ProtocolError.hint(),
        }
    }
}
