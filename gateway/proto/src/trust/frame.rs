//! The frames of trust, which travel inside records of any channel (PROTOCOL.md §11).

use crate::{
    channel::{begin_frame, finish_frame},
    identity::Identifier,
    wire::{Reader, WireError},
};

use super::{ENROL_LEN_MAX, PRESENTATION_LEN_MAX};

/// First kind of these frames.
pub const FIRST_KIND: u8 = 0x30;
/// Last kind that is reserved for them.
pub const LAST_KIND: u8 = 0x3f;
/// Most bytes of a status list in one frame.
pub const PART_LEN_MAX: usize = 60_000;

const KIND_STATUS_HAVE: u8 = 0x30;
const KIND_STATUS_PART: u8 = 0x31;
const KIND_TIME_PLEASE: u8 = 0x32;
const KIND_TIME: u8 = 0x33;
const KIND_ENROL: u8 = 0x34;
const KIND_RENEW: u8 = 0x35;
const KIND_ISSUED: u8 = 0x36;
const KIND_DENIED: u8 = 0x37;
const KIND_MANAGE: u8 = 0x38;
const KIND_MANAGED: u8 = 0x39;

const TIME_SIGNED: u8 = 1;

/// A piece of a status list with its history, for an [`Assembler`](super::Assembler).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusPart<'a> {
    /// Whose list.
    pub authority: Identifier,
    /// The list's number.
    pub number: u64,
    /// Bytes of the whole.
    pub total: u32,
    /// Where the piece begins.
    pub offset: u32,
    /// The piece, 1 to [`PART_LEN_MAX`] bytes.
    pub bytes: &'a [u8],
}

/// A frame about who belongs to an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustFrame<'a> {
    /// The sender holds this list.
    StatusHave {
        /// Whose list.
        authority: Identifier,
        /// Its number; 0 if the sender holds none.
        number: u64,
    },
    /// A piece of a status list.
    StatusPart(StatusPart<'a>),
    /// Asks for the time.
    TimePlease {
        /// Drawn at random.
        nonce: [u8; 16],
    },
    /// The authority's time, for [`Trust::take_time`](super::Trust::take_time).
    SignedTime {
        /// History and signed statement.
        presentation: &'a [u8],
    },
    /// Asks to become a member.
    Enrol {
        /// Comes back in the answer.
        request: u32,
        /// For [`EnrolRequest::decode`](super::EnrolRequest::decode).
        signed_request: &'a [u8],
    },
    /// Asks for the sender's next credential.
    Renew {
        /// Comes back in the answer.
        request: u32,
    },
    /// A credential, for [`Trust::set_own`](super::Trust::set_own).
    Issued {
        /// The request this answers.
        request: u32,
        /// History and signed statement.
        presentation: &'a [u8],
    },
    /// No credential. Why is in the authority's log.
    Denied {
        /// The request this answers.
        request: u32,
    },
    /// Asks the authority to do something.
    Manage {
        /// Comes back in the answer.
        request: u32,
        /// JSON.
        text: &'a str,
    },
    /// What the authority did.
    Managed {
        /// The request this answers.
        request: u32,
        /// JSON.
        text: &'a str,
    },
}

impl<'a> TrustFrame<'a> {
    /// Reads the body of a frame of kind [`FIRST_KIND`] to [`LAST_KIND`]; `None` for a kind of a later version, which
    /// is ignored.
    ///
    /// # Errors
    /// [`WireError`] for a body of another form.
    pub fn decode(kind: u8, body: &'a [u8]) -> Result<Option<Self>, WireError> {
        let mut reader = Reader::new(body);
        let frame = match kind {
            KIND_STATUS_HAVE => Self::StatusHave {
                authority: Identifier::from_bytes(reader.array("authority")?),
                number: reader.u64("list number")?,
            },
            KIND_STATUS_PART => Self::StatusPart(StatusPart {
                authority: Identifier::from_bytes(reader.array("authority")?),
                number: reader.u64("list number")?,
                total: reader.u32("total length")?,
                offset: reader.u32("offset")?,
                bytes: rest(&mut reader, "part", PART_LEN_MAX)?,
            }),
            KIND_TIME_PLEASE => Self::TimePlease {
                nonce: reader.array("nonce")?,
            },
            KIND_TIME => Self::decode_time(&mut reader)?,
            KIND_ENROL => Self::Enrol {
                request: reader.u32("request")?,
                signed_request: rest(&mut reader, "signed request", ENROL_LEN_MAX)?,
            },
            KIND_RENEW => Self::Renew {
                request: reader.u32("request")?,
            },
            KIND_ISSUED => Self::Issued {
                request: reader.u32("request")?,
                presentation: rest(&mut reader, "presentation", PRESENTATION_LEN_MAX)?,
            },
            KIND_DENIED => Self::Denied {
                request: reader.u32("request")?,
            },
            KIND_MANAGE => Self::Manage {
                request: reader.u32("request")?,
                text: text(&mut reader)?,
            },
            KIND_MANAGED => Self::Managed {
                request: reader.u32("request")?,
                text: text(&mut reader)?,
            },
            _ => return Ok(None),
        };
        reader.finish()?;
        Ok(Some(frame))
    }

    fn decode_time(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        match reader.u8("form of time")? {
            TIME_SIGNED => Ok(Self::SignedTime {
                presentation: rest(reader, "signed time", usize::MAX)?,
            }),
            form => Err(WireError::Value {
                field: "form of time",
                value: u64::from(form),
            }),
        }
    }

    /// Appends the whole frame, kind and length included, to the plaintext of a record.
    ///
    /// # Panics
    /// If the body is longer than 65,535 bytes: callers keep parts and texts within their bounds.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mark = begin_frame(out, self.kind());
        match *self {
            Self::StatusHave { authority, number } => {
                out.extend_from_slice(authority.as_bytes());
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::StatusPart(part) => {
                out.extend_from_slice(part.authority.as_bytes());
                out.extend_from_slice(&part.number.to_be_bytes());
                out.extend_from_slice(&part.total.to_be_bytes());
                out.extend_from_slice(&part.offset.to_be_bytes());
                out.extend_from_slice(part.bytes);
            }
            Self::TimePlease { nonce } => out.extend_from_slice(&nonce),
            Self::SignedTime { presentation } => {
                out.push(TIME_SIGNED);
                out.extend_from_slice(presentation);
            }
            Self::Renew { request } | Self::Denied { request } => {
                out.extend_from_slice(&request.to_be_bytes());
            }
            Self::Enrol {
                request,
                signed_request: bytes,
            }
            | Self::Issued {
                request,
                presentation: bytes,
            } => {
                out.extend_from_slice(&request.to_be_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Manage { request, text } | Self::Managed { request, text } => {
                out.extend_from_slice(&request.to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
        finish_frame(out, mark);
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::StatusHave { .. } => KIND_STATUS_HAVE,
            Self::StatusPart(_) => KIND_STATUS_PART,
            Self::TimePlease { .. } => KIND_TIME_PLEASE,
            Self::SignedTime { .. } => KIND_TIME,
            Self::Enrol { .. } => KIND_ENROL,
            Self::Renew { .. } => KIND_RENEW,
            Self::Issued { .. } => KIND_ISSUED,
            Self::Denied { .. } => KIND_DENIED,
            Self::Manage { .. } => KIND_MANAGE,
            Self::Managed { .. } => KIND_MANAGED,
        }
    }
}

/// Cuts a list, as [`Trust::status_encoded`](super::Trust::status_encoded) gives it, into the frames that carry it.
pub fn status_parts(
    authority: Identifier,
    number: u64,
    encoded: &[u8],
) -> impl Iterator<Item = TrustFrame<'_>> {
    let total = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
    let offsets = (0..=total).step_by(PART_LEN_MAX);
    encoded
        .chunks(PART_LEN_MAX)
        .zip(offsets)
        .map(move |(bytes, offset)| {
            TrustFrame::StatusPart(StatusPart {
                authority,
                number,
                total,
                offset,
                bytes,
            })
        })
}

/// Takes all that is left, at least 1 and at most `max` bytes.
fn rest<'a>(reader: &mut Reader<'a>, field: &'static str, max: usize) -> Result<&'a [u8], WireError> {
    let len = reader.rest().len();
    if len == 0 {
        return Err(WireError::Truncated {
            field,
            need: 1,
            have: 0,
        });
    }
    if len > max {
        return Err(WireError::Trailing {
            extra: len.saturating_sub(max),
        });
    }
    reader.bytes(field, len)
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, WireError> {
    let len = reader.rest().len();
    std::str::from_utf8(reader.bytes("text", len)?).map_err(|_| WireError::Utf8 { field: "text" })
}
