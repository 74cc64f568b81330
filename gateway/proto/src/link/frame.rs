//! Frames on a byte stream.
//!
//! ```text
//! frame = u24 length | u8 kind | body          length counts the body
//! ```

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{Class, Label};
use crate::{
    route::{HopLimit, RouteRef},
    wire::{Reader, WireError, put_bytes8},
};

/// Bytes in front of a frame's body: length and kind.
pub const FRAME_HEADER_LEN: usize = 4;
/// Longest body of a frame in bytes (68 KiB).
pub const FRAME_LEN_MAX: usize = 69_632;
/// Longest body of a Hello: magic, length, nonce, 255 bytes of text.
pub(super) const HELLO_LEN_MAX: usize = 4 + 4 + 8 + 1 + 255;

pub(super) const KIND_HELLO: u8 = 0x01;
pub(super) const KIND_PING: u8 = 0x02;
pub(super) const KIND_PONG: u8 = 0x03;
const KIND_LABEL_GONE: u8 = 0x04;
const KIND_DATA: u8 = 0x10;
const KIND_DATA_OFFER: u8 = 0x20;
const KIND_ROUTED: u8 = 0x30;
const LABEL_LEN: usize = 4;
const MAGIC: [u8; 4] = *b"FGL1";

/// Why a frame was refused. Always the sender's fault, except `TooLong` when sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than the receiver accepts; in bytes of body.
    #[error("frame of {len} bytes exceeds {max}")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The kind is not one of ours.
    #[error("frame has the unknown kind {kind:#04x}")]
    Kind {
        /// The kind byte.
        kind: u8,
    },
    /// The body does not have the form of its kind.
    #[error("frame of kind {kind:#04x} is malformed")]
    Malformed {
        /// The kind byte.
        kind: u8,
        /// What is wrong.
        #[source]
        cause: WireError,
    },
}

impl FrameError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "check that the peer is fieldgate, and its version",
            Self::Kind { .. } => "upgrade the older of the two nodes",
            Self::Malformed { .. } => "check the software of the node at the other end of the link",
        }
    }

    /// Returns whether the link cannot go on after it.
    #[must_use]
    pub const fn closes_link(&self) -> bool {
        match self {
            Self::TooLong { .. } | Self::Kind { .. } => true,
            Self::Malformed { .. } => false,
        }
    }
}

/// The first frame in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Largest frame length the sender accepts, in bytes of body.
    pub frame_len_max: u32,
    /// Drawn once when the sender started.
    pub nonce: u64,
    /// Name and version of its software, at most 255 bytes.
    pub software: &'a str,
}

impl<'a> Hello<'a> {
    /// Reads the body of a Hello.
    ///
    /// # Errors
    /// [`WireError`] for another magic or form.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let magic: [u8; 4] = reader.array("hello magic")?;
        if magic != MAGIC {
            return Err(WireError::Value {
                field: "hello magic",
                value: u64::from(u32::from_be_bytes(magic)),
            });
        }
        let hello = Self {
            frame_len_max: reader.u32("largest frame length")?,
            nonce: reader.u64("hello nonce")?,
            software: reader.text8("software")?,
        };
        reader.finish()?;
        Ok(hello)
    }
}

/// What a Routed frame says in front of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutedHead<'a> {
    /// How many times it may still be forwarded.
    pub hop_limit: HopLimit,
    /// The label the sender offers for the way back, if any.
    pub offered: Option<Label>,
    /// Where it goes.
    pub onward: RouteRef<'a>,
    /// The way back.
    pub return_route: RouteRef<'a>,
}

/// A frame whose payload lies in the caller's buffer and can be decrypted there.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// First frame in each direction.
    Hello(Hello<'a>),
    /// Asks for a Pong with the same number.
    Ping(u64),
    /// Answers a Ping.
    Pong(u64),
    /// The receiver shall stop using this label.
    LabelGone(Label),
    /// Payload for an established label.
    Data {
        /// How urgent.
        class: Class,
        /// Where it goes, chosen by the receiver.
        label: Label,
        /// What is carried.
        payload: &'a mut [u8],
    },
    /// As `Data`, and the sender offers a label for the way back.
    DataOffer {
        /// How urgent.
        class: Class,
        /// Where it goes, chosen by the receiver.
        label: Label,
        /// The label for the way back, chosen by the sender.
        offered: Label,
        /// What is carried.
        payload: &'a mut [u8],
    },
    /// Payload with the routes in full.
    Routed {
        /// How urgent.
        class: Class,
        /// Routes, hop limit, offer.
        head: RoutedHead<'a>,
        /// What is carried.
        payload: &'a mut [u8],
    },
}

impl<'a> Frame<'a> {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`FrameError::Kind`] for an unknown kind, [`FrameError::Malformed`] for a body of another form.
    pub fn decode(kind: u8, body: &'a mut [u8]) -> Result<Self, FrameError> {
        let malformed = |cause| FrameError::Malformed { kind, cause };
        match kind {
            KIND_HELLO => return Hello::decode(body).map(Self::Hello).map_err(malformed),
            KIND_PING => {
                return whole(body, |reader| reader.u64("ping"))
                    .map(Self::Ping)
                    .map_err(malformed);
            }
            KIND_PONG => {
                return whole(body, |reader| reader.u64("pong"))
                    .map(Self::Pong)
                    .map_err(malformed);
            }
            KIND_LABEL_GONE => return whole(body, read_label).map(Self::LabelGone).map_err(malformed),
            _ => {}
        }
        let Some(class) = Class::from_bits(kind & 0x0f) else {
            return Err(FrameError::Kind { kind });
        };
        let head_len = match kind & 0xf0 {
            KIND_DATA => LABEL_LEN,
            KIND_DATA_OFFER => 2 * LABEL_LEN,
            KIND_ROUTED => routed_head_len(body).map_err(malformed)?,
            _ => return Err(FrameError::Kind { kind }),
        };
        let have = body.len();
        let Some((head, payload)) = body.split_at_mut_checked(head_len) else {
            return Err(malformed(WireError::Truncated {
                field: "labels",
                need: head_len,
                have,
            }));
        };
        let mut reader = Reader::new(head);
        match kind & 0xf0 {
            KIND_DATA => Ok(Self::Data {
                class,
                label: read_label(&mut reader).map_err(malformed)?,
                payload,
            }),
            KIND_DATA_OFFER => Ok(Self::DataOffer {
                class,
                label: read_label(&mut reader).map_err(malformed)?,
                offered: read_label(&mut reader).map_err(malformed)?,
                payload,
            }),
            _ => Ok(Self::Routed {
                class,
                head: read_routed_head(&mut reader).map_err(malformed)?,
                payload,
            }),
        }
    }
}

/// Reads a body that has no payload.
fn whole<T>(body: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>) -> Result<T, WireError> {
    let mut reader = Reader::new(body);
    let value = read(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// Returns how many bytes stand in front of the payload of a Routed frame, which has to be known before the body can
/// be cut into a head that is read and a payload that is written to.
fn routed_head_len(body: &[u8]) -> Result<usize, WireError> {
    let mut reader = Reader::new(body);
    read_routed_head(&mut reader)?;
    Ok(body.len().saturating_sub(reader.rest().len()))
}

fn read_label(reader: &mut Reader<'_>) -> Result<Label, WireError> {
    Label::new(reader.u32("label")?).ok_or(WireError::Value {
        field: "label",
        value: 0,
    })
}

fn read_routed_head<'a>(reader: &mut Reader<'a>) -> Result<RoutedHead<'a>, WireError> {
    Ok(RoutedHead {
        hop_limit: HopLimit::read(reader)?,
        offered: Label::new(reader.u32("offered label")?),
        onward: RouteRef::read(reader)?,
        return_route: RouteRef::read(reader)?,
    })
}

/// Where a frame begun in a buffer starts; give it to [`finish_frame`] or [`abandon_frame`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the frame has no length until it is finished"]
pub struct Mark {
    start: usize,
}

fn begin_frame(out: &mut Vec<u8>, kind: u8) -> Mark {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, kind]);
    Mark { start }
}

/// Begins a Data frame; the caller appends the payload to `out` and finishes the frame.
pub fn begin_data(out: &mut Vec<u8>, class: Class, label: Label) -> Mark {
    let mark = begin_frame(out, KIND_DATA | class.bits());
    out.extend_from_slice(&label.number().to_be_bytes());
    mark
}

/// Begins a `DataOffer` frame; the caller appends the payload to `out` and finishes the frame.
pub fn begin_data_offer(out: &mut Vec<u8>, class: Class, label: Label, offered: Label) -> Mark {
    let mark = begin_frame(out, KIND_DATA_OFFER | class.bits());
    out.extend_from_slice(&label.number().to_be_bytes());
    out.extend_from_slice(&offered.number().to_be_bytes());
    mark
}

/// Begins a Routed frame; the caller appends the payload to `out` and finishes the frame.
pub fn begin_routed(out: &mut Vec<u8>, class: Class, head: &RoutedHead<'_>) -> Mark {
    let mark = begin_frame(out, KIND_ROUTED | class.bits());
    out.push(head.hop_limit.get());
    out.extend_from_slice(&head.offered.map_or(0, Label::number).to_be_bytes());
    head.onward.put(out);
    head.return_route.put(out);
    mark
}

/// Writes the length of the frame begun at `mark`; everything appended to `out` since belongs to it.
///
/// # Errors
/// [`FrameError::TooLong`] if the body exceeds `len_max` bytes, the neighbour's limit. `out` is then as it was before
/// the frame was begun.
///
/// # Panics
/// If `out` was shortened since.
pub fn finish_frame(out: &mut Vec<u8>, mark: Mark, len_max: usize) -> Result<(), FrameError> {
    let len = out.len().checked_sub(mark.start.saturating_add(FRAME_HEADER_LEN));
    let len = len.expect("the buffer only grows while a frame is written");
    let max = len_max.min(FRAME_LEN_MAX);
    if len > max {
        abandon_frame(out, mark);
        return Err(FrameError::TooLong { len, max });
    }
    if let Some(header) = out
        .get_mut(mark.start..)
        .and_then(|frame| frame.first_chunk_mut::<3>())
    {
        *header = length_bytes(len);
    }
    Ok(())
}

/// Returns the u24 length field; callers have checked the length against [`FRAME_LEN_MAX`].
const fn length_bytes(len: usize) -> [u8; 3] {
    let [.., high, middle, low] = len.to_be_bytes();
    [high, middle, low]
}

/// Takes back the frame begun at `mark`.
#[expect(clippy::needless_pass_by_value, reason = "a mark is used once")]
pub fn abandon_frame(out: &mut Vec<u8>, mark: Mark) {
    out.truncate(mark.start);
}

/// Appends a whole Data frame: the hot path of a relay, 8 bytes and one copy.
///
/// # Errors
/// [`FrameError::TooLong`] if the body exceeds `len_max` bytes; nothing is appended.
pub fn put_data(
    out: &mut Vec<u8>,
    class: Class,
    label: Label,
    payload: &[u8],
    len_max: usize,
) -> Result<(), FrameError> {
    let len = payload.len().saturating_add(LABEL_LEN);
    let max = len_max.min(FRAME_LEN_MAX);
    if len > max {
        return Err(FrameError::TooLong { len, max });
    }
    let [high, middle, low] = length_bytes(len);
    let [l0, l1, l2, l3] = label.number().to_be_bytes();
    out.reserve(len.saturating_add(FRAME_HEADER_LEN));
    out.extend_from_slice(&[high, middle, low, KIND_DATA | class.bits(), l0, l1, l2, l3]);
    out.extend_from_slice(payload);
    Ok(())
}

/// Appends a Hello.
///
/// # Panics
/// If its text is longer than 255 bytes: it is a constant of the program.
pub fn put_hello(out: &mut Vec<u8>, hello: &Hello<'_>) {
    let mark = begin_frame(out, KIND_HELLO);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&hello.frame_len_max.to_be_bytes());
    out.extend_from_slice(&hello.nonce.to_be_bytes());
    put_bytes8(out, hello.software.as_bytes());
    finish_frame(out, mark, FRAME_LEN_MAX).expect("a Hello has at most 272 bytes");
}

/// Appends a Ping.
pub fn put_ping(out: &mut Vec<u8>, id: u64) {
    put_fixed(out, KIND_PING, &id.to_be_bytes());
}

/// Appends a Pong.
pub fn put_pong(out: &mut Vec<u8>, id: u64) {
    put_fixed(out, KIND_PONG, &id.to_be_bytes());
}

/// Appends a `LabelGone`.
pub fn put_label_gone(out: &mut Vec<u8>, label: Label) {
    put_fixed(out, KIND_LABEL_GONE, &label.number().to_be_bytes());
}

fn put_fixed(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let mark = begin_frame(out, kind);
    out.extend_from_slice(body);
    finish_frame(out, mark, FRAME_LEN_MAX).expect("a few bytes");
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
pub(crate) mod tests;
