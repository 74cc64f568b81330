//! The registrar's frames, which travel inside records of its channel (PROTOCOL.md §7).

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::SocketAddr;

use crate::{
    candidates::{put_address, read_address},
    channel::put_frame,
    wire::{Reader, WireError, put_bytes8},
};

const KIND_REGISTER: u8 = 0x10;
const KIND_REGISTERED: u8 = 0x11;
const KIND_REFUSED: u8 = 0x12;
const KIND_UNREGISTER: u8 = 0x13;
const KIND_DRAIN: u8 = 0x14;
const KIND_STAYS: u8 = 0x15;
const KIND_OBSERVED: u8 = 0x16;

/// Why a relay does not register a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusedReason {
    /// The member may not hold the name, or the link is not attached to it.
    NotAuthorised,
    /// The member has too many names, or the name too many holders.
    Limit,
    /// The name is empty or too long.
    BadName,
    /// The relay is being drained.
    Draining,
}

impl RefusedReason {
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::NotAuthorised),
            2 => Some(Self::Limit),
            3 => Some(Self::BadName),
            4 => Some(Self::Draining),
            _ => None,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::NotAuthorised => 1,
            Self::Limit => 2,
            Self::BadName => 3,
            Self::Draining => 4,
        }
    }

    /// Returns the word for logs, metrics and status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAuthorised => "not_authorised",
            Self::Limit => "limit",
            Self::BadName => "bad_name",
            Self::Draining => "draining",
        }
    }

    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::NotAuthorised => "let the relay's operator add the name to what this identity may hold",
            Self::Limit => "register fewer names, or give the node an identity of its own",
            Self::BadName => "use a name of 1 to 128 bytes",
            Self::Draining => {
                "wait: the relay is under maintenance; give the node a second relay so that it is reached meanwhile"
            }
        }
    }
}

/// Why a member has not left a relay that is being drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StaysReason {
    /// Nothing else leads to whom it needs, or to itself.
    NoOtherWay,
    /// It is about to: another channel is being opened, or a name registered elsewhere.
    Moving,
    /// Others still have channels to it over this relay.
    Peers,
}

impl StaysReason {
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::NoOtherWay),
            2 => Some(Self::Moving),
            3 => Some(Self::Peers),
            _ => None,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::NoOtherWay => 1,
            Self::Moving => 2,
            Self::Peers => 3,
        }
    }

    /// Returns the word for logs and status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoOtherWay => "no_other_way",
            Self::Moving => "moving",
            Self::Peers => "peers",
        }
    }
}

/// A frame between a node and a relay's registrar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrarFrame<'a> {
    /// The node wants to be found under a name, or goes on to.
    Register {
        /// Comes back in the answer.
        request: u32,
        /// The name.
        name: &'a str,
    },
    /// The relay agrees.
    Registered {
        /// The request this answers.
        request: u32,
        /// How long it holds, in seconds.
        lease_secs: u32,
    },
    /// The relay does not agree.
    Refused {
        /// The request this answers.
        request: u32,
        /// Why.
        reason: RefusedReason,
    },
    /// The node does not want to be found under the name any more.
    Unregister {
        /// The name.
        name: &'a str,
    },
    /// The relay is to be left: it takes no new names and no first messages for those it has.
    Drain {
        /// Seconds until it may stop; 0: it is not to be left any more.
        within_secs: u32,
    },
    /// The node has not left a relay that is to be left.
    Stays {
        /// Why.
        reason: StaysReason,
    },
    /// The relay says where the member's link over QUIC comes from, as it sees it.
    Observed {
        /// The address, maybe a router's.
        address: SocketAddr,
    },
}

impl<'a> RegistrarFrame<'a> {
    /// Reads the body of a frame of kind 0x10 to 0x1f; `None` for a kind of a later version, which is ignored.
    ///
    /// # Errors
    /// [`WireError`] for a body of another form.
    pub fn decode(kind: u8, body: &'a [u8]) -> Result<Option<Self>, WireError> {
        let mut reader = Reader::new(body);
        let frame = match kind {
            KIND_REGISTER => Self::Register {
                request: reader.u32("request")?,
                name: reader.text8("name")?,
            },
            KIND_REGISTERED => Self::Registered {
                request: reader.u32("request")?,
                lease_secs: reader.u32("lease")?,
            },
            KIND_REFUSED => {
                let request = reader.u32("request")?;
                let bits = reader.u8("reason")?;
                let reason = RefusedReason::from_bits(bits).ok_or_else(|| WireError::Value {
                    field: "reason",
                    value: u64::from(bits),
                })?;
                Self::Refused { request, reason }
            }
            KIND_UNREGISTER => Self::Unregister {
                name: reader.text8("name")?,
            },
            KIND_DRAIN => Self::Drain {
                within_secs: reader.u32("seconds")?,
            },
            KIND_STAYS => {
                let bits = reader.u8("reason")?;
                let reason = StaysReason::from_bits(bits).ok_or_else(|| WireError::Value {
                    field: "reason",
                    value: u64::from(bits),
                })?;
                Self::Stays { reason }
            }
            KIND_OBSERVED => Self::Observed {
                address: read_address(&mut reader)?,
            },
            _ => return Ok(None),
        };
        reader.finish()?;
        Ok(Some(frame))
    }

    /// Appends the whole frame, kind and length included, to the plaintext of a record.
    ///
    /// # Panics
    /// If a name is longer than 255 bytes: names are checked when settings are made.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let kind = match self {
            Self::Register { request, name } => {
                body.extend_from_slice(&request.to_be_bytes());
                put_bytes8(&mut body, name.as_bytes());
                KIND_REGISTER
            }
            Self::Registered { request, lease_secs } => {
                body.extend_from_slice(&request.to_be_bytes());
                body.extend_from_slice(&lease_secs.to_be_bytes());
                KIND_REGISTERED
            }
            Self::Refused { request, reason } => {
                body.extend_from_slice(&request.to_be_bytes());
                body.push(reason.bits());
                KIND_REFUSED
            }
            Self::Unregister { name } => {
                put_bytes8(&mut body, name.as_bytes());
                KIND_UNREGISTER
            }
            Self::Drain { within_secs } => {
                body.extend_from_slice(&within_secs.to_be_bytes());
                KIND_DRAIN
            }
            Self::Stays { reason } => {
                body.push(reason.bits());
                KIND_STAYS
            }
            Self::Observed { address } => {
                put_address(&mut body, *address);
                KIND_OBSERVED
            }
        };
        put_frame(out, kind, &body);
    }
}
