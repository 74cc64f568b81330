//! The frames of commands and their codecs.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{fmt, sync::Arc};

use super::{Carried, PAYLOAD_LEN_MAX, RESOURCE_LEN_MAX};
use crate::{
    channel::{begin_frame, finish_frame, put_frame},
    time::{ClockQuality, WallTime},
    wire::{Reader, WireError, put_bytes_varint, put_bytes8},
};

/// Which command: random, drawn by the collector.
pub type CommandId = [u8; 16];

/// Kind of [`Command`].
pub const COMMAND: u8 = 0x28;
/// Kind of [`Cancel`].
pub const CANCEL: u8 = 0x29;
/// Kind of [`Report`].
pub const RESULT: u8 = 0x2a;
/// Kind of [`ResultAck`].
pub const RESULT_ACK: u8 = 0x2b;
/// Kind of [`Query`].
pub const QUERY: u8 = 0x2c;

/// Why a frame of commands was refused. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The body does not have the form of its kind.
    #[error("command frame is malformed")]
    Wire(#[from] WireError),
    /// A frame came that this side never gets.
    #[error("command frame {kind:#04x} is out of place")]
    OutOfPlace {
        /// Its kind.
        kind: u8,
    },
    /// A field is longer than it may be.
    #[error("command has a {field} of {len} bytes, more than {max}")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// A field lacks what it needs, or has what it must not have.
    #[error("command has a {field} that is empty or holds control characters")]
    Text {
        /// Which field.
        field: &'static str,
    },
}

impl CommandError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Wire(_) | Self::OutOfPlace { .. } => "upgrade the older of gateway and collector",
            Self::TooLong { .. } => {
                "put large contents where the device can fetch them, and send their address"
            }
            Self::Text { .. } => "name a device, and use printable characters",
        }
    }
}

/// How often a device may be handed a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Once, or never.
    AtMostOnce,
    /// Until it has acknowledged.
    AtLeastOnce,
}

/// What a device is told.
#[derive(Clone, PartialEq, Eq)]
pub struct Order {
    /// How often it may be handed over.
    pub guarantee: Guarantee,
    /// Whether the device's answer is waited for.
    pub answer_wanted: bool,
    /// The device, as its gateway calls it; 1 to 255 bytes.
    pub device: Arc<str>,
    /// What of the device, like the resource of a reading; at most [`RESOURCE_LEN_MAX`] bytes, may be empty.
    pub resource: Box<str>,
    /// The payload's media type; at most 255 bytes, empty if unknown.
    pub content_type: Box<str>,
    /// At most [`PAYLOAD_LEN_MAX`] bytes.
    pub payload: Arc<[u8]>,
}

impl Order {
    /// Checks lengths and characters.
    ///
    /// # Errors
    /// [`CommandError::TooLong`] and [`CommandError::Text`].
    pub fn check(&self) -> Result<(), CommandError> {
        for (field, len, max) in [
            ("device", self.device.len(), TEXT8_MAX),
            ("resource", self.resource.len(), RESOURCE_LEN_MAX),
            ("content type", self.content_type.len(), TEXT8_MAX),
            ("payload", self.payload.len(), PAYLOAD_LEN_MAX),
        ] {
            if len > max {
                return Err(CommandError::TooLong { field, len, max });
            }
        }
        if self.device.is_empty() {
            return Err(CommandError::Text { field: "device" });
        }
        for (field, text) in [
            ("device", &*self.device),
            ("resource", &*self.resource),
            ("content type", &*self.content_type),
        ] {
            if text.chars().any(char::is_control) {
                return Err(CommandError::Text { field });
            }
        }
        Ok(())
    }

    /// Returns the order without its payload.
    #[must_use]
    pub fn without_payload(&self) -> Self {
        Self {
            payload: Arc::default(),
            ..self.clone()
        }
    }

    /// Reads an order that takes the rest of `reader`.
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, CommandError> {
        let flags = reader.u8("flags")?;
        if flags & !(AT_MOST_ONCE | ANSWER_WANTED) != 0 {
            return Err(WireError::Value {
                field: "flags",
                value: u64::from(flags),
            }
            .into());
        }
        let device = reader.text8("device")?;
        let resource = std::str::from_utf8(reader.bytes_varint("resource")?)
            .map_err(|_| WireError::Utf8 { field: "resource" })?;
        let content_type = reader.text8("content type")?;
        let order = Self {
            guarantee: guarantee_of(flags),
            answer_wanted: flags & ANSWER_WANTED != 0,
            device: device.into(),
            resource: resource.into(),
            content_type: content_type.into(),
            payload: reader.rest().into(),
        };
        order.check()?;
        Ok(order)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let answer = if self.answer_wanted { ANSWER_WANTED } else { 0 };
        out.push(flag_of(self.guarantee) | answer);
        put_bytes8(out, self.device.as_bytes());
        put_bytes_varint(out, self.resource.as_bytes());
        put_bytes8(out, self.content_type.as_bytes());
        out.extend_from_slice(&self.payload);
    }
}

impl fmt::Debug for Order {
    /// Leaves the payload out: it is nobody's business but the device's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("guarantee", &self.guarantee)
            .field("answer_wanted", &self.answer_wanted)
            .field("device", &self.device)
            .field("resource", &self.resource)
            .field("payload_len", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// What a collector sends to a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Which one.
    pub id: CommandId,
    /// Until when it may be handed over.
    pub deadline: Carried,
    /// What the device is told.
    pub order: Arc<Order>,
}

impl Command {
    /// Reads the body of a Command.
    ///
    /// # Errors
    /// [`CommandError`] for bad forms, lengths and characters.
    pub fn decode(body: &[u8]) -> Result<Self, CommandError> {
        let mut reader = Reader::new(body);
        Ok(Self {
            id: reader.array("command id")?,
            deadline: Carried::read(&mut reader)?,
            order: Arc::new(Order::read(reader)?),
        })
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mark = begin_frame(out, COMMAND);
        out.extend_from_slice(&self.id);
        self.deadline.put(out);
        self.order.put(out);
        finish_frame(out, mark);
    }
}

/// Asks what became of a command. The answer is a [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Which one.
    pub id: CommandId,
    /// Its guarantee: a gateway that does not know a command that is handed over at most once shall not take it any more.
    pub guarantee: Guarantee,
    /// Milliseconds left until its deadline.
    pub remaining_ms: u32,
}

impl Query {
    /// Reads the body of a Query.
    ///
    /// # Errors
    /// [`CommandError::Wire`].
    pub fn decode(body: &[u8]) -> Result<Self, CommandError> {
        let mut reader = Reader::new(body);
        let id = reader.array("command id")?;
        let flags = reader.u8("flags")?;
        if flags & !AT_MOST_ONCE != 0 {
            return Err(WireError::Value {
                field: "flags",
                value: u64::from(flags),
            }
            .into());
        }
        let remaining_ms = reader.u32("remaining time")?;
        reader.finish()?;
        Ok(Self {
            id,
            guarantee: guarantee_of(flags),
            remaining_ms,
        })
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mark = begin_frame(out, QUERY);
        out.extend_from_slice(&self.id);
        out.push(flag_of(self.guarantee));
        out.extend_from_slice(&self.remaining_ms.to_be_bytes());
        finish_frame(out, mark);
    }
}

/// Takes a command back, if the device was not handed it yet. The answer is a [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// Which one.
    pub id: CommandId,
    /// Milliseconds left until its deadline.
    pub remaining_ms: u32,
}

impl Cancel {
    /// Reads the body of a Cancel.
    ///
    /// # Errors
    /// [`CommandError::Wire`].
    pub fn decode(body: &[u8]) -> Result<Self, CommandError> {
        let mut reader = Reader::new(body);
        let cancel = Self {
            id: reader.array("command id")?,
            remaining_ms: reader.u32("remaining time")?,
        };
        reader.finish()?;
        Ok(cancel)
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mark = begin_frame(out, CANCEL);
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.remaining_ms.to_be_bytes());
        finish_frame(out, mark);
    }
}

/// Says that the collector has kept a final result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultAck {
    /// Of which command.
    pub id: CommandId,
}

impl ResultAck {
    /// Reads the body of a ResultAck.
    ///
    /// # Errors
    /// [`CommandError::Wire`].
    pub fn decode(body: &[u8]) -> Result<Self, CommandError> {
        let mut reader = Reader::new(body);
        let id = reader.array("command id")?;
        reader.finish()?;
        Ok(Self { id })
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_frame(out, RESULT_ACK, &self.id);
    }
}

/// Why a gateway does not take a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The gateway's policy does not permit it.
    NotAuthorised = 1,
    /// The gateway keeps as many commands as it may.
    Limit = 2,
    /// The gateway cannot keep it: its store fails.
    Storage = 3,
}

/// What a device answered.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The payload's media type; at most 255 bytes, empty if unknown.
    pub content_type: Box<str>,
    /// At most [`PAYLOAD_LEN_MAX`] bytes.
    pub payload: Arc<[u8]>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("content_type", &self.content_type)
            .field("payload_len", &self.payload.len())
            .finish()
    }
}

/// What has become of a command. All but the first two are final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The gateway keeps it, and waits for the device.
    Queued,
    /// The device has acknowledged it; its answer is waited for.
    Acknowledged,
    /// The device has acknowledged it. No answer was wanted, or could be given, or came in time.
    Delivered,
    /// The device has answered.
    Answered(Answer),
    /// The deadline passed before the device was handed it.
    Expired,
    /// The gateway does not take it.
    Refused(Refusal),
    /// The gateway has no device of this name.
    UnknownDevice,
    /// It was taken back before the device was handed it.
    Cancelled,
    /// It never came to the gateway, and will not be sent again.
    Lost,
    /// The device may have been handed it, and has not acknowledged it.
    Unconfirmed,
    /// The device got it and refuses it, with a reason code (MQTT 5.0 §2.4).
    Rejected(u8),
}

impl State {
    /// Returns whether nothing follows it.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Queued | Self::Acknowledged)
    }

    /// Returns whether the device surely had the command and took it.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Delivered | Self::Answered(_))
    }

    /// Returns the device's answer, if this is one.
    #[must_use]
    pub const fn answer(&self) -> Option<&Answer> {
        if let Self::Answered(answer) = self {
            Some(answer)
        } else {
            None
        }
    }

    /// Returns the word for logs, metrics and status.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Acknowledged => "acknowledged",
            Self::Delivered => "delivered",
            Self::Answered(_) => "answered",
            Self::Expired => "expired",
            Self::Refused(Refusal::NotAuthorised) => "not_authorised",
            Self::Refused(Refusal::Limit) => "limit",
            Self::Refused(Refusal::Storage) => "storage",
            Self::UnknownDevice => "unknown_device",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Unconfirmed => "unconfirmed",
            Self::Rejected(_) => "rejected",
        }
    }

    const fn code(&self) -> u8 {
        match self {
            Self::Queued => 1,
            Self::Acknowledged => 2,
            Self::Delivered => 16,
            Self::Answered(_) => 17,
            Self::Expired => 18,
            Self::Refused(_) => 19,
            Self::UnknownDevice => 20,
            Self::Cancelled => 21,
            Self::Lost => 22,
            Self::Unconfirmed => 23,
            Self::Rejected(_) => 24,
        }
    }
}

/// What has become of a command, as a gateway says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of which command.
    pub id: CommandId,
    /// When the gateway learnt it.
    pub at: WallTime,
    /// What has become of it.
    pub state: State,
}

impl Report {
    /// Reads the body of a Result.
    ///
    /// # Errors
    /// [`CommandError`] for bad forms and lengths.
    pub fn decode(body: &[u8]) -> Result<Self, CommandError> {
        let mut reader = Reader::new(body);
        let id = reader.array("command id")?;
        let state = reader.u8("state")?;
        let at = WallTime {
            unix_millis: reader.u64("time")?,
            quality: read_quality(&mut reader)?,
        };
        let state = match state {
            1 => State::Queued,
            2 => State::Acknowledged,
            16 => State::Delivered,
            17 => State::Answered(read_answer(&mut reader)?),
            18 => State::Expired,
            19 => State::Refused(read_refusal(&mut reader)?),
            20 => State::UnknownDevice,
            21 => State::Cancelled,
            22 => State::Lost,
            23 => State::Unconfirmed,
            24 => State::Rejected(reader.u8("reason code")?),
            value => {
                return Err(WireError::Value {
                    field: "state",
                    value: u64::from(value),
                }
                .into());
            }
        };
        reader.finish()?;
        Ok(Self { id, at, state })
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mark = begin_frame(out, RESULT);
        self.put_body(out);
        finish_frame(out, mark);
    }

    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        out.push(self.state.code());
        out.extend_from_slice(&self.at.unix_millis.to_be_bytes());
        out.push(self.at.quality.code());
        match &self.state {
            State::Answered(answer) => {
                put_bytes8(out, answer.content_type.as_bytes());
                out.extend_from_slice(&answer.payload);
            }
            State::Refused(refusal) => out.push(*refusal as u8),
            State::Rejected(code) => out.push(*code),
            State::Queued
            | State::Acknowledged
            | State::Delivered
            | State::Expired
            | State::UnknownDevice
            | State::Cancelled
            | State::Lost
            | State::Unconfirmed => {}
        }
    }
}

fn read_answer(reader: &mut Reader<'_>) -> Result<Answer, CommandError> {
    let content_type = reader.text8("content type")?;
    let len = reader.rest().len();
    if len > PAYLOAD_LEN_MAX {
        return Err(CommandError::TooLong {
            field: "answer",
            len,
            max: PAYLOAD_LEN_MAX,
        });
    }
    Ok(Answer {
        content_type: content_type.into(),
        payload: reader.bytes("answer", len)?.into(),
    })
}

fn read_refusal(reader: &mut Reader<'_>) -> Result<Refusal, WireError> {
    match reader.u8("reason")? {
        1 => Ok(Refusal::NotAuthorised),
        2 => Ok(Refusal::Limit),
        3 => Ok(Refusal::Storage),
        value => Err(WireError::Value {
            field: "reason",
            value: u64::from(value),
        }),
    }
}

pub(super) fn read_quality(reader: &mut Reader<'_>) -> Result<ClockQuality, WireError> {
    let code = reader.u8("clock quality")?;
    ClockQuality::from_code(code).ok_or_else(|| WireError::Value {
        field: "clock quality",
        value: u64::from(code),
    })
}

const fn guarantee_of(flags: u8) -> Guarantee {
    if flags & AT_MOST_ONCE == 0 {
        Guarantee::AtLeastOnce
    } else {
        Guarantee::AtMostOnce
    }
}

const fn flag_of(guarantee: Guarantee) -> u8 {
    match guarantee {
        Guarantee::AtMostOnce => AT_MOST_ONCE,
        Guarantee::AtLeastOnce => 0,
    }
}

/// Bit of the flags: hand over at most once.
const AT_MOST_ONCE: u8 = 1;
/// Bit of the flags: an answer is wanted.
const ANSWER_WANTED: u8 = 2;
/// Longest text behind a `u8` length.
const TEXT8_MAX: usize = 255;
