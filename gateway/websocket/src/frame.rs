//! Frames (RFC 6455 §5).
//!
//! ```text
//!   0               1               2 …
//!  ┌─┬─┬─┬─┬───────┬─┬─────────────┬──────────────────────┬───────────────┬─────────┐
//!  │F│R│R│R│opcode │M│ length      │ length, if 126 or 127 │ mask (client) │ payload │
//!  └─┴─┴─┴─┴───────┴─┴─────────────┴──────────────────────┴───────────────┴─────────┘
//!   FIN, RSV 1–3            7 bits      2 or 8 bytes            4 bytes
//! ```

use std::mem;

use crate::{MESSAGE_BYTES_MAX, Violation};

/// Who sends frames: only those of clients are masked (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Server,
}

/// Takes frames of the other side apart.
#[derive(Debug)]
pub(crate) struct Decoder {
    sender: Sender,
    part: Part,
    /// Payload taken off the mask; each call overwrites it.
    plain: Vec<u8>,
    /// Bytes of the message whose fragments are arriving; `None` between messages.
    message: Option<u64>,
}

#[derive(Debug)]
enum Part {
    Header(Gathered<HEADER_LEN_MAX>),
    Data(Masked),
    Control {
        opcode: u8,
        masked: Masked,
        payload: Control,
    },
}

/// What is left of a payload.
#[derive(Clone, Copy, Debug)]
struct Masked {
    left: u64,
    /// Turned so that its first byte belongs to the next byte of the payload.
    mask: [u8; MASK_LEN],
}

/// Payload of a control frame.
pub(crate) type Control = Gathered<CONTROL_LEN_MAX>;

/// A few bytes that may come one by one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathered<const MAX: usize> {
    bytes: [u8; MAX],
    len: usize,
}

impl<const MAX: usize> Gathered<MAX> {
    const fn new() -> Self {
        Self {
            bytes: [0; MAX],
            len: 0,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Moves bytes here until there are `want`; says whether there are.
    fn fill(&mut self, from: &mut &[u8], want: usize) -> bool {
        let count = want.min(MAX).saturating_sub(self.len).min(from.len());
        let (taken, rest) = from.split_at(count);
        let end = self.len.saturating_add(count);
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(taken);
            self.len = end;
        }
        *from = rest;
        self.len >= want.min(MAX)
    }
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Event<'d> {
    /// The next bytes of the stream.
    Payload(&'d [u8]),
    /// To be answered by a pong with the same payload.
    Ping(Control),
    /// To be answered by a close frame with the same code, if it has one.
    Close(Option<u16>),
}

impl Decoder {
    pub(crate) const fn new(sender: Sender) -> Self {
        Self {
            sender,
            part: Part::Header(Gathered::new()),
            plain: Vec::new(),
            message: None,
        }
    }

    /// Gives the payload in `bytes` to `take` in pieces, and appends answers to `out`: one to the last ping, and one to the end.
    /// They are masked with `masks` in this order, if there are some.
    ///
    /// # Errors
    /// If the connection is to be closed when `out` has been sent: the other side's violation, or none if it has closed. `take` has
    /// had everything before that.
    pub(crate) fn converse(
        &mut self,
        mut bytes: &[u8],
        masks: [Option<[u8; MASK_LEN]>; 2],
        out: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Option<Violation>> {
        let mut pong = None;
        let result = loop {
            match self.next(&mut bytes) {
                Ok(None) => break Ok(()),
                Ok(Some(Event::Payload(piece))) => take(piece),
                Ok(Some(Event::Ping(ping))) => pong = Some(ping),
                Ok(Some(Event::Close(code))) => break Err((code, None)),
                Err(violation) => break Err((Some(violation.code()), Some(violation))),
            }
        };
        let [first, second] = masks;
        if let Some(ping) = pong {
            write(PONG, ping.as_bytes(), first, out);
        }
        result.map_err(|(code, violation)| {
            write_close(code, second, out);
            violation
        })
    }

    /// Takes bytes off `input` until there is something to tell, or nothing left.
    fn next(&mut self, input: &mut &[u8]) -> Result<Option<Event<'_>>, Violation> {
        loop {
            match &mut self.part {
                Part::Header(header) => {
                    let has_start = header.fill(input, START_LEN);
                    let want = header_len(header.as_bytes(), self.sender)?;
                    if !has_start || !header.fill(input, want) {
                        self.give_back();
                        return Ok(None);
                    }
                    let header = *header;
                    self.part = self.begin(&Header::decode(header.as_bytes())?)?;
                }
                Part::Data(masked) => {
                    if masked.left == 0 {
                        self.part = Part::Header(Gathered::new());
                        continue;
                    }
                    if input.is_empty() {
                        self.give_back();
                        return Ok(None);
                    }
                    let piece = masked.split(input, PIECE);
                    self.plain.clear();
                    self.plain.extend_from_slice(piece);
                    masked.unmask(&mut self.plain);
                    return Ok(Some(Event::Payload(&self.plain)));
                }
                Part::Control {
                    opcode,
                    masked,
                    payload,
                } => {
                    let want = usize::try_from(masked.left).unwrap_or(CONTROL_LEN_MAX);
                    if !payload.fill(input, want) {
                        return Ok(None);
                    }
                    masked.unmask(payload.bytes.get_mut(..payload.len).unwrap_or_default());
                    let (opcode, payload) = (*opcode, *payload);
                    self.part = Part::Header(Gathered::new());
                    match opcode {
                        CLOSE => return close_code(payload.as_bytes()).map(|code| Some(Event::Close(code))),
                        PING => return Ok(Some(Event::Ping(payload))),
                        // A pong that nobody asked for is a heartbeat in one direction (RFC 6455 §5.5.3).
                        _ => {}
                    }
                }
            }
        }
    }

    /// Finds out what a frame with `header` is, and whether it may come now.
    fn begin(&mut self, header: &Header) -> Result<Part, Violation> {
        let masked = Masked {
            left: header.len,
            mask: header.mask,
        };
        let before = match (header.opcode, self.message) {
            (CONTINUATION, Some(before)) => before,
            (BINARY, None) => 0,
            (CONTINUATION, None) | (BINARY, Some(_)) => return Err(Violation::Fragments),
            (TEXT, _) => return Err(Violation::Text),
            (CLOSE | PING | PONG, _) => {
                if !header.is_final || header.len > CONTROL_LEN_MAX as u64 {
                    return Err(Violation::Control);
                }
                return Ok(Part::Control {
                    opcode: header.opcode,
                    masked,
                    payload: Gathered::new(),
                });
            }
            (other, _) => return Err(Violation::Opcode(other)),
        };
        let message = before.saturating_add(header.len);
        if message > MESSAGE_BYTES_MAX {
            return Err(Violation::TooLong);
        }
        self.message = (!header.is_final).then_some(message);
        Ok(Part::Data(masked))
    }

    /// Gives memory back while the connection is quiet.
    fn give_back(&mut self) {
        drop(mem::take(&mut self.plain));
    }
}

impl Masked {
    /// Takes at most `max` bytes of this payload off `input`.
    fn split<'i>(&self, input: &mut &'i [u8], max: usize) -> &'i [u8] {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let (piece, rest) = input.split_at(input.len().min(left).min(max));
        *input = rest;
        piece
    }

    /// Takes the mask off the next bytes of the payload (RFC 6455 §5.3).
    fn unmask(&mut self, bytes: &mut [u8]) {
        apply(self.mask, bytes);
        self.mask.rotate_left(bytes.len() & 3);
        self.left = self.left.saturating_sub(bytes.len() as u64);
    }
}

/// The header of a frame.
#[derive(Debug)]
struct Header {
    is_final: bool,
    opcode: u8,
    len: u64,
    mask: [u8; MASK_LEN],
}

impl Header {
    /// Reads a whole header whose first two bytes [`header_len`] has checked.
    fn decode(bytes: &[u8]) -> Result<Self, Violation> {
        let [first, second, rest @ ..] = bytes else {
            return Err(Violation::Length);
        };
        let (len, min, mask) = match (second & LENGTH_BITS, rest) {
            (LENGTH_16, [a, b, mask @ ..]) => (
                u64::from(u16::from_be_bytes([*a, *b])),
                u64::from(LENGTH_16),
                mask,
            ),
            (LENGTH_64, [a, b, c, d, e, f, g, h, mask @ ..]) => (
                u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
                1 << 16,
                mask,
            ),
            (short, mask) => (u64::from(short), 0, mask),
        };
        // RFC 6455 §5.2: the fewest bytes, and the highest bit is 0.
        if len < min || len >> 63 != 0 {
            return Err(Violation::Length);
        }
        Ok(Self {
            is_final: first & FINAL_BIT != 0,
            opcode: first & OPCODE_BITS,
            len,
            mask: match mask {
                // What a server sends; a mask of zeroes changes nothing.
                [] => [0; MASK_LEN],
                mask => mask.try_into().map_err(|_| Violation::Length)?,
            },
        })
    }
}

/// Checks the first two bytes of a header, as soon as they are there, and returns its whole length.
fn header_len(bytes: &[u8], sender: Sender) -> Result<usize, Violation> {
    let &[first, second, ..] = bytes else {
        return Ok(START_LEN);
    };
    if first & RESERVED_BITS != 0 {
        return Err(Violation::ReservedBit);
    }
    let mask = match (second & MASK_BIT != 0, sender) {
        (true, Sender::Client) => MASK_LEN,
        (false, Sender::Server) => 0,
        (false, Sender::Client) => return Err(Violation::NotMasked),
        (true, Sender::Server) => return Err(Violation::Masked),
    };
    let length = match second & LENGTH_BITS {
        LENGTH_16 => 2,
        LENGTH_64 => 8,
        _ => 0,
    };
    Ok(START_LEN.saturating_add(length).saturating_add(mask))
}

/// Reads what a close frame says (RFC 6455 §5.5.1, §7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::Close),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(Violation::Close);
            }
            std::str::from_utf8(reason).map_err(|_| Violation::Reason)?;
            Ok(Some(code))
        }
    }
}

/// Appends a whole frame: unmasked, as servers send it, or under the mask of a client.
pub(crate) fn write(opcode: u8, payload: &[u8], mask: Option<[u8; MASK_LEN]>, out: &mut Vec<u8>) {
    let mask_bit = if mask.is_some() { MASK_BIT } else { 0 };
    out.push(FINAL_BIT | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..LENGTH_16), _) => out.push(mask_bit | short),
        (_, Ok(medium)) => {
            out.push(mask_bit | LENGTH_16);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(mask_bit | LENGTH_64);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(mask.as_ref().map_or(&[], |mask| mask.as_slice()));
    let start = out.len();
    out.extend_from_slice(payload);
    if let (Some(mask), Some(masked)) = (mask, out.get_mut(start..)) {
        apply(mask, masked);
    }
}

/// Puts a mask on bytes, or takes it off (RFC 6455 §5.3).
fn apply(mask: [u8; MASK_LEN], bytes: &mut [u8]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (whole, rest) = bytes.as_chunks_mut::<8>();
    for chunk in whole {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Appends a close frame.
pub(crate) fn write_close(code: Option<u16>, mask: Option<[u8; MASK_LEN]>, out: &mut Vec<u8>) {
    match code {
        Some(code) => write(CLOSE, &code.to_be_bytes(), mask, out),
        None => write(CLOSE, &[], mask, out),
    }
}

const FINAL_BIT: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const OPCODE_BITS: u8 = 0x0f;
const MASK_BIT: u8 = 0x80;
const LENGTH_BITS: u8 = 0x7f;
/// The length follows in 2 bytes.
const LENGTH_16: u8 = 126;
/// The length follows in 8 bytes.
const LENGTH_64: u8 = 127;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// What every header begins with.
const START_LEN: usize = 2;
/// RFC 6455 §5.3.
pub(crate) const MASK_LEN: usize = 4;
/// A header with a mask and a length of 8 bytes.
const HEADER_LEN_MAX: usize = 14;
/// RFC 6455 §5.5.
const CONTROL_LEN_MAX: usize = 125;
/// Bytes given on at a time.
const PIECE: usize = 16 << 10;
