//! What the two sides keep on stable storage.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use super::{Carried, CommandError, CommandId, Order, Report};
use crate::{
    identity::Identifier,
    wire::{Reader, WireError, put_bytes8, put_bytes16},
};

/// Why something kept cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another version of fieldgate wrote it.
    #[error("record of a command has version {got}, not {VERSION}")]
    Version {
        /// The version found.
        got: u8,
    },
    /// It is damaged.
    #[error("record of a command is damaged")]
    Damaged(#[source] CommandError),
    /// Another record says something about the same command.
    #[error("two records are about one command")]
    Twice,
}

impl RecordError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Version { .. } => {
                "start the version of fieldgate that wrote it, or remove the commands with their file"
            }
            Self::Damaged(_) | Self::Twice => {
                "check the disk; to go on without the commands that are under way, remove their file"
            }
        }
    }
}

impl From<WireError> for RecordError {
    fn from(error: WireError) -> Self {
        Self::Damaged(error.into())
    }
}

impl From<CommandError> for RecordError {
    fn from(error: CommandError) -> Self {
        Self::Damaged(error)
    }
}

/// How far a gateway has come with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It waits for the device.
    Queued(Arc<Order>),
    /// The device is handed it, or was, or will be in this moment.
    Handed(Arc<Order>),
    /// The device has acknowledged it and may answer.
    Acknowledged(Arc<Order>),
    /// The result is to be told.
    Finished {
        /// For which device it was.
        device: Arc<str>,
        /// The result.
        report: Report,
    },
    /// The collector has kept the result.
    Settled {
        /// For which device it was.
        device: Arc<str>,
        /// The result, an answer left out.
        report: Report,
    },
}

/// A gateway's record of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExecutorRecord {
    pub(super) number: u64,
    pub(super) collector: Identifier,
    pub(super) id: CommandId,
    pub(super) deadline: Carried,
    pub(super) kept: Kept,
}

impl ExecutorRecord {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = begin(bytes)?;
        let number = reader.u64("number")?;
        let collector = Identifier::from_bytes(reader.array("collector")?);
        let deadline = Carried::read(&mut reader)?;
        let phase = reader.u8("phase")?;
        let (id, kept) = match phase {
            QUEUED | HANDED | ACKNOWLEDGED => {
                let id = reader.array("command id")?;
                let order = Arc::new(Order::read(reader)?);
                let kept = match phase {
                    QUEUED => Kept::Queued(order),
                    HANDED => Kept::Handed(order),
                    _ => Kept::Acknowledged(order),
                };
                (id, kept)
            }
            FINISHED | SETTLED => {
                let device = reader.text8("device")?.into();
                let report = Report::decode(reader.rest())?;
                let id = report.id;
                let kept = if phase == FINISHED {
                    Kept::Finished { device, report }
                } else {
                    Kept::Settled { device, report }
                };
                (id, kept)
            }
            value => return Err(bad_phase(value).into()),
        };
        Ok(Self {
            number,
            collector,
            id,
            deadline,
            kept,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(self.collector.as_bytes());
        self.deadline.put(&mut out);
        match &self.kept {
            Kept::Queued(order) => put_order(&mut out, QUEUED, &self.id, order),
            Kept::Handed(order) => put_order(&mut out, HANDED, &self.id, order),
            Kept::Acknowledged(order) => put_order(&mut out, ACKNOWLEDGED, &self.id, order),
            Kept::Finished { device, report } => put_report(&mut out, FINISHED, device, report),
            Kept::Settled { device, report } => put_report(&mut out, SETTLED, device, report),
        }
        out
    }
}

/// How far a collector has come with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It has not left.
    Waiting,
    /// It may have left.
    Sent,
    /// This has become of it.
    Finished(Report),
}

/// A collector's record of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommanderRecord {
    pub(super) number: u64,
    pub(super) gateway: Identifier,
    pub(super) id: CommandId,
    pub(super) deadline: Carried,
    /// When it was submitted, in milliseconds since 1970-01-01 UTC.
    pub(super) submitted: u64,
    /// Whether it is to be taken back.
    pub(super) cancel: bool,
    pub(super) leaving: Leaving,
    pub(super) order: Arc<Order>,
}

impl CommanderRecord {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = begin(bytes)?;
        let number = reader.u64("number")?;
        let gateway = Identifier::from_bytes(reader.array("gateway")?);
        let id = reader.array("command id")?;
        let deadline = Carried::read(&mut reader)?;
        let submitted = reader.u64("time of submission")?;
        let cancel = match reader.u8("cancel")? {
            0 => false,
            1 => true,
            value => return Err(bad_phase(value).into()),
        };
        let leaving = match reader.u8("phase")? {
            WAITING => Leaving::Waiting,
            SENT => Leaving::Sent,
            FINISHED => Leaving::Finished(Report::decode(reader.bytes16("result")?)?),
            value => return Err(bad_phase(value).into()),
        };
        Ok(Self {
            number,
            gateway,
            id,
            deadline,
            submitted,
            cancel,
            leaving,
            order: Arc::new(Order::read(reader)?),
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(self.gateway.as_bytes());
        out.extend_from_slice(&self.id);
        self.deadline.put(&mut out);
        out.extend_from_slice(&self.submitted.to_be_bytes());
        out.push(u8::from(self.cancel));
        match &self.leaving {
            Leaving::Waiting => out.push(WAITING),
            Leaving::Sent => out.push(SENT),
            Leaving::Finished(report) => {
                out.push(FINISHED);
                let mut body = Vec::new();
                report.put_body(&mut body);
                put_bytes16(&mut out, &body);
            }
        }
        self.order.put(&mut out);
        out
    }
}

fn begin(bytes: &[u8]) -> Result<Reader<'_>, RecordError> {
    let mut reader = Reader::new(bytes);
    match reader.u8("version")? {
        VERSION => Ok(reader),
        got => Err(RecordError::Version { got }),
    }
}

fn bad_phase(value: u8) -> WireError {
    WireError::Value {
        field: "phase",
        value: u64::from(value),
    }
}

fn put_order(out: &mut Vec<u8>, phase: u8, id: &CommandId, order: &Order) {
    out.push(phase);
    out.extend_from_slice(id);
    order.put(out);
}

fn put_report(out: &mut Vec<u8>, phase: u8, device: &str, report: &Report) {
    out.push(phase);
    put_bytes8(out, device.as_bytes());
    report.put_body(out);
}

const VERSION: u8 = 1;
const QUEUED: u8 = 1;
const HANDED: u8 = 2;
const ACKNOWLEDGED: u8 = 3;
const FINISHED: u8 = 4;
const SETTLED: u8 = 5;
const WAITING: u8 = 1;
const SENT: u8 = 2;
