//! The frames of portals and their codecs.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::stream::StreamId;
use crate::{
    channel::{begin_frame, finish_frame},
    wire::{Reader, WireError, put_bytes8},
};

/// Which session: random, drawn by the inlet's node.
pub type SessionId = [u8; 16];

/// Kind of [`Begin`] by the inlet's node.
pub const BEGIN: u8 = 0x40;
/// Kind of [`Begin`] by the outlet's node.
pub const BEGUN: u8 = 0x41;
/// Kind of a packet: its sequence and [`Items`].
pub const PACKET: u8 = 0x42;
/// Kind of the acknowledgement of packets.
pub const TAKEN: u8 = 0x43;

/// Longest name and longest text in an item, in bytes.
pub const TEXT_LEN_MAX: usize = 255;

/// Why a frame of portals was refused. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortalError {
    /// The body does not have the form of its kind.
    #[error("portal frame is malformed")]
    Wire(#[from] WireError),
    /// A frame came that this side never gets, or before its time.
    #[error("portal frame {kind:#04x} is out of place")]
    OutOfPlace {
        /// Its kind.
        kind: u8,
    },
    /// A number is not possible.
    #[error("portal frame has {what} {value}, more than {max}")]
    Range {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Largest possible.
        max: u64,
    },
}

impl PortalError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Wire(_) | Self::OutOfPlace { .. } | Self::Range { .. } => {
                "upgrade the older of the two nodes"
            }
        }
    }
}

/// What either side says first in a channel: which session, and how many packets of the other side it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Which session.
    pub session: SessionId,
    /// Packets taken; 0 where the session is new.
    pub taken: u64,
    /// Whether the session is known from an earlier channel, or this one.
    pub resumes: bool,
    /// Grows with each channel that the inlet's node takes into use; the highest counts.
    pub term: u32,
}

impl Begin {
    /// Reads the body of a Begin or Begun.
    ///
    /// # Errors
    /// [`PortalError::Wire`].
    pub fn decode(body: &[u8]) -> Result<Self, PortalError> {
        let mut reader = Reader::new(body);
        let begin = Self {
            session: reader.array("session id")?,
            taken: reader.u64("packets taken")?,
            resumes: match reader.u8("resumption")? {
                0 => false,
                1 => true,
                value => {
                    return Err(WireError::Value {
                        field: "resumption",
                        value: u64::from(value),
                    }
                    .into());
                }
            },
            term: reader.u32("term")?,
        };
        reader.finish()?;
        Ok(begin)
    }

    /// Appends the frame, with [`BEGIN`] or [`BEGUN`] as its kind.
    pub fn put(&self, kind: u8, out: &mut Vec<u8>) {
        let mark = begin_frame(out, kind);
        out.extend_from_slice(&self.session);
        out.extend_from_slice(&self.taken.to_be_bytes());
        out.push(u8::from(self.resumes));
        out.extend_from_slice(&self.term.to_be_bytes());
        finish_frame(out, mark);
    }
}

/// Reads the body of a Taken: how many packets were.
pub(super) fn decode_taken(body: &[u8]) -> Result<u64, PortalError> {
    let mut reader = Reader::new(body);
    let taken = reader.u64("packets taken")?;
    reader.finish()?;
    Ok(taken)
}

/// Appends a Taken.
pub(super) fn put_taken(out: &mut Vec<u8>, taken: u64) {
    let mark = begin_frame(out, TAKEN);
    out.extend_from_slice(&taken.to_be_bytes());
    finish_frame(out, mark);
}

/// Bytes of a packet's frame before its items: kind, length, sequence.
pub(super) const PACKET_HEAD_LEN: usize = 3 + 8;

/// Appends a packet.
pub(super) fn put_packet(out: &mut Vec<u8>, sequence: u64, items: &[u8]) {
    let mark = begin_frame(out, PACKET);
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(items);
    finish_frame(out, mark);
}

/// Takes the body of a packet apart: its sequence and its items.
pub(super) fn split_packet(body: &[u8]) -> Result<(u64, Items<'_>), PortalError> {
    let mut reader = Reader::new(body);
    let sequence = reader.u64("sequence of a packet")?;
    Ok((sequence, Items(reader)))
}

/// A request for a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open<'a> {
    /// Name of the outlet.
    pub outlet: &'a str,
    /// Who connected to the inlet: an address, a user; empty if that is nobody's business. Not proven by anything but the
    /// word of the inlet's node.
    pub origin: &'a str,
    /// As whom they proved to be there; empty if they did not. As good as the word of the inlet's node.
    pub user: &'a str,
    /// Where the stream shall lead, `host:port`, for an outlet that leaves it to the inlet; empty otherwise.
    pub target: &'a str,
}

impl Open<'_> {
    /// Returns whether it can be written.
    #[must_use]
    pub fn fits(&self) -> bool {
        let texts = [self.outlet, self.origin, self.user, self.target];
        texts.iter().all(|text| text.len() <= TEXT_LEN_MAX)
    }
}

/// What a stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// The inlet's node wants a stream. Its identifier is higher than all before.
    Open(Open<'a>),
    /// The outlet has one: it is connected.
    Opened,
    /// Bytes.
    Data(&'a [u8]),
    /// The other side may send up to this many bytes in all, since the stream was opened.
    Credit(u64),
    /// No more bytes follow.
    Finish,
    /// The stream is over, whatever was on its way.
    Reset(ResetReason),
}

/// Why a stream is over before both sides have finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResetReason {
    /// The local connection broke.
    Broken,
    /// There is no such outlet, or the peer may not open it. The two are not told apart to strangers.
    NotAllowed,
    /// What the outlet leads to does not answer, or refuses.
    Unreachable,
    /// A bound is reached: streams, or their rate.
    Limit,
    /// Nothing passed for the longest time allowed.
    Idle,
    /// The session was lost: one of the nodes was restarted, or they could not reach each other for too long.
    Lost,
    /// The portal was closed by an operator, or the policy changed.
    Closed,
}

impl ResetReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Broken,
        Self::NotAllowed,
        Self::Unreachable,
        Self::Limit,
        Self::Idle,
        Self::Lost,
        Self::Closed,
    ];

    /// Returns the number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Broken => 1,
            Self::NotAllowed => 2,
            Self::Unreachable => 3,
            Self::Limit => 4,
            Self::Idle => 5,
            Self::Lost => 6,
            Self::Closed => 7,
        }
    }

    /// Returns the reason of a number; a number of a later version means [`Broken`](Self::Broken).
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        let known = Self::ALL.into_iter().find(|reason| reason.code() == code);
        known.unwrap_or(Self::Broken)
    }

    /// Returns its name, as logs and metrics show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::NotAllowed => "not_allowed",
            Self::Unreachable => "unreachable",
            Self::Limit => "limit",
            Self::Idle => "idle",
            Self::Lost => "lost",
            Self::Closed => "closed",
        }
    }
}

/// Bytes of an item of data before the data: kind, stream, length.
pub(super) const DATA_HEAD_LEN: usize = 1 + 4 + 2;

/// Longest item but for data: an Open with the longest texts.
pub(super) const ITEM_LEN_MAX: usize = 1 + 4 + 4 * (1 + TEXT_LEN_MAX);

impl Item<'_> {
    /// Appends the item.
    ///
    /// # Panics
    /// If data has more than 65,535 bytes, or a text more than [`TEXT_LEN_MAX`].
    pub fn put(&self, stream: StreamId, out: &mut Vec<u8>) {
        let code = match self {
            Self::Open(_) => OPEN,
            Self::Opened => OPENED,
            Self::Data(_) => DATA,
            Self::Credit(_) => CREDIT,
            Self::Finish => FINISH,
            Self::Reset(_) => RESET,
        };
        out.push(code);
        out.extend_from_slice(&stream.number().to_be_bytes());
        match self {
            Self::Open(open) => {
                for text in [open.outlet, open.origin, open.user, open.target] {
                    put_bytes8(out, text.as_bytes());
                }
            }
            Self::Data(bytes) => {
                let length = u16::try_from(bytes.len()).expect("callers split data into items");
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Credit(limit) => out.extend_from_slice(&limit.to_be_bytes()),
            Self::Reset(reason) => out.push(reason.code()),
            Self::Opened | Self::Finish => {}
        }
    }
}

/// The items of a packet.
#[derive(Clone, Debug)]
pub struct Items<'a>(Reader<'a>);

impl<'a> Items<'a> {
    /// Reads items that follow each other.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }

    /// Returns the next item and its stream, `None` at the end.
    ///
    /// # Errors
    /// [`PortalError::Wire`] for one that has not the form of its kind; nothing behind it can be read.
    pub fn next_item(&mut self) -> Result<Option<(StreamId, Item<'a>)>, PortalError> {
        let reader = &mut self.0;
        if reader.is_empty() {
            return Ok(None);
        }
        let code = reader.u8("kind of an item")?;
        let stream = StreamId::new(reader.u32("stream")?);
        let item = match code {
            OPEN => Item::Open(Open {
                outlet: reader.text8("outlet")?,
                origin: reader.text8("origin")?,
                user: reader.text8("user")?,
                target: reader.text8("target")?,
            }),
            OPENED => Item::Opened,
            DATA => {
                let length = reader.u16("length of data")?;
                Item::Data(reader.bytes("data", usize::from(length))?)
            }
            CREDIT => Item::Credit(reader.u64("credit")?),
            FINISH => Item::Finish,
            RESET => Item::Reset(ResetReason::from_code(reader.u8("reason")?)),
            value => {
                return Err(WireError::Value {
                    field: "kind of an item",
                    value: u64::from(value),
                }
                .into());
            }
        };
        Ok(Some((stream, item)))
    }
}

const OPEN: u8 = 1;
const OPENED: u8 = 2;
const DATA: u8 = 3;
const CREDIT: u8 = 4;
const FINISH: u8 = 5;
const RESET: u8 = 6;
