//! What a peer did wrong.

use fieldgate_proto::wire::WireError;

use crate::reason::ReasonCode;

/// Why bytes from a peer break the protocol. Always the peer's fault; ends its session and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A field is cut short or not what its type allows (MQTT 5.0 §1.5).
    #[error(transparent)]
    Field(#[from] WireError),
    /// A rule of the standard is broken.
    #[error("{what}")]
    Rule {
        /// What MQTT 5.0 calls it (§2.4).
        reason: ReasonCode,
        /// The rule, with its section.
        what: &'static str,
    },
}

impl Violation {
    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self::Rule {
            reason: ReasonCode::MalformedPacket,
            what,
        }
    }

    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self::Rule {
            reason: ReasonCode::ProtocolError,
            what,
        }
    }

    /// Returns the reason code that a DISCONNECT or CONNACK of MQTT 5.0 carries.
    #[must_use]
    pub const fn reason(&self) -> ReasonCode {
        match self {
            Self::Field(_) => ReasonCode::MalformedPacket,
            Self::Rule { reason, .. } => *reason,
        }
    }

    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Field(_) => "the device's MQTT client is defective, or no MQTT client at all",
            Self::Rule { reason, .. } => reason.hint(),
        }
    }
}
