//! Commands to devices: what `fieldgate command` asks a collector, and what it answers.

use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum CommandJob {
    /// Send a command.
    Send(Box<SendJob>),
    /// Show the commands that are known.
    List {},
    /// Show one of them, with its answer.
    Show {
        /// Its id, 32 hexadecimal digits.
        id: String,
    },
    /// Take a command back.
    Cancel {
        /// Its id, 32 hexadecimal digits.
        id: String,
    },
}

/// A command to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SendJob {
    /// Name or identifier of the gateway.
    pub(crate) gateway: String,
    /// Name of the device at its gateway.
    pub(crate) device: String,
    /// What of the device.
    pub(crate) resource: String,
    /// Media type of the payload; empty if unknown.
    pub(crate) content_type: String,
    /// The payload in Base64.
    pub(crate) payload: String,
    /// Milliseconds to the deadline.
    pub(crate) deadline_ms: u64,
    /// Whether it is handed over once or never.
    pub(crate) at_most_once: bool,
    /// Whether the device's answer is waited for.
    pub(crate) answer: bool,
    /// Whether the end of the command is waited for, rather than that it is kept.
    pub(crate) wait: bool,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub(crate) enum CommandReply {
    /// It is on stable storage and will be sent.
    Kept {
        /// Its id, 32 hexadecimal digits.
        id: String,
    },
    /// How it stands: its end, if it was waited for; to a cancellation, perhaps that it is about to come.
    Is {
        /// How it stands.
        state: Box<CommandState>,
    },
    /// The commands that are known, in the order they were submitted, without answers.
    List {
        /// Each of them.
        commands: Vec<CommandState>,
    },
    /// It was not taken.
    Refused {
        /// Why.
        message: String,
        /// What to do about it.
        hint: String,
    },
}

/// How a command stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandState {
    /// Its id, 32 hexadecimal digits.
    pub(crate) id: String,
    /// Name or identifier of the gateway.
    pub(crate) gateway: String,
    /// Name of the device.
    pub(crate) device: String,
    /// What of the device.
    pub(crate) resource: String,
    /// When it was submitted, in milliseconds since 1970.
    pub(crate) submitted_ms: u64,
    /// Until when it may be handed over, in milliseconds since 1970.
    pub(crate) deadline_ms: u64,
    /// Whether it is to be taken back.
    pub(crate) cancelled: bool,
    /// Where it stands: `keeping`, `waiting`, `sent`, or a state of PROTOCOL.md §9.2.
    pub(crate) state: String,
    /// Whether that is its end.
    pub(crate) finished: bool,
    /// Whether the device had it and took it.
    pub(crate) succeeded: bool,
    /// The device's reason code, if it refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reason_code: Option<u8>,
    /// What the device answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) answer: Option<CommandAnswer>,
}

/// What a device answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandAnswer {
    /// Media type; empty if unknown.
    pub(crate) content_type: String,
    /// The payload in Base64.
    pub(crate) payload: String,
}
