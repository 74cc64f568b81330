//! WebSockets (RFC 6455), sans-IO: what a connection receives goes in, the bytes of its binary messages come out, and answers are
//! appended to a buffer. Here is the server's side; [`client`] has the other, and [`tunnel`] the way through an HTTP proxy.
//!
//! ```text
//!  Opening ──good request──▶ Open ──close frame, violation, close()──▶ Closed
//!     └───────bad request─────────────────────────────────────────────▶ Closed
//! ```
//!
//! Made for protocols that bring their own framing, as MQTT does (MQTT 5.0 §6): the payload of binary messages is one stream of
//! bytes, given on as it arrives. So nothing is gathered, and memory does not depend on what a client calls the length of a frame.
//!
//! | bound | value |
//! |---|---|
//! | upgrade request | [`REQUEST_BYTES_MAX`], [`HEADERS_MAX`] header fields |
//! | a message, all its fragments together | [`MESSAGE_BYTES_MAX`] |
//! | answers to pings | one in each call, to the newest (RFC 6455 §5.5.3) |
//!
//! No extension is ever agreed on: compressed frames of a stranger are work and memory that a bound on bytes does not bound.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod client;
mod frame;
mod http;
mod request;
pub mod tunnel;

use std::sync::Arc;

use frame::{Decoder, Sender};
use request::Request;
pub use request::{HEADERS_MAX, REQUEST_BYTES_MAX, Refusal};

/// What upgrade requests must ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Path of the resource, beginning with `/`; the query is not looked at.
    pub path: String,
    /// Subprotocol that the client must offer (RFC 6455 §1.9).
    pub subprotocol: String,
    /// Origins that pages of browsers may have, such as `https://panel.example.net`; `None` allows each. Clients that are no
    /// browsers send no origin and are let in (RFC 6455 §10.2).
    pub origins: Option<Vec<String>>,
}

/// One connection of a client.
#[derive(Debug)]
pub struct WebSocket {
    state: State,
}

#[derive(Debug)]
enum State {
    Opening {
        settings: Arc<Settings>,
        /// The beginning of the request.
        request: Vec<u8>,
    },
    Open(Decoder),
    Closed,
}

/// Why a WebSocket is over. What the client is told has been appended to the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The request was answered with an HTTP error.
    #[error("the request was refused: {0}")]
    Refused(#[from] Refusal),
    /// A frame was against the rules.
    #[error("the client broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// The client closed it, or it was closed before.
    #[error("the client closed the WebSocket")]
    Closed,
}

impl Ended {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.hint(),
            Self::Violation(_) => "look for a proxy that changes frames, or a newer version of the client",
            Self::Closed => "none is needed",
        }
    }
}

/// What a client may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 6455 §5.2: a reserved bit, though no extension was agreed on.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// RFC 6455 §5.2.
    #[error("opcode {0} is not one of RFC 6455")]
    Opcode(u8),
    /// RFC 6455 §5.1: of a client.
    #[error("a frame is not masked")]
    NotMasked,
    /// RFC 6455 §5.1: of a server.
    #[error("a frame is masked")]
    Masked,
    /// RFC 6455 §5.5.
    #[error("a control frame is fragmented or longer than 125 bytes")]
    Control,
    /// RFC 6455 §5.2: not in the fewest bytes, or with the highest bit.
    #[error("the length of a frame is not well-formed")]
    Length,
    /// RFC 6455 §5.4.
    #[error("fragments of messages are mixed")]
    Fragments,
    /// RFC 6455 §5.5.1 and §7.4: no code, or one that may not be sent.
    #[error("a close frame holds no valid code")]
    Close,
    /// RFC 6455 §5.5.1: not UTF-8.
    #[error("the reason in a close frame is not UTF-8")]
    Reason,
    /// MQTT 5.0 §6 (`[MQTT-6.0.0-1]`).
    #[error("a text message, where only binary ones are taken")]
    Text,
    /// More than [`MESSAGE_BYTES_MAX`].
    #[error("a message is longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
}

impl Violation {
    /// Returns the status code that the client is told (RFC 6455 §7.4.1).
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::Reason => 1007,
            Self::TooLong => 1009,
            Self::ReservedBit
            | Self::Opcode(_)
            | Self::NotMasked
            | Self::Masked
            | Self::Control
            | Self::Length
            | Self::Fragments
            | Self::Close => 1002,
        }
    }
}

impl WebSocket {
    /// Begins with a connection of which nothing was received.
    #[must_use]
    pub const fn new(settings: Arc<Settings>) -> Self {
        Self {
            state: State::Opening {
                settings,
                request: Vec::new(),
            },
        }
    }

    /// Returns whether the upgrade is done and neither side has closed.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Takes received bytes; gives the payload of binary messages to `take` in pieces, and appends answers to `out`.
    ///
    /// Bytes given in other portions have the same effect, but that fewer pings may be answered.
    ///
    /// # Errors
    /// [`Ended`] if the connection is to be closed when `out` has been sent. `take` has had everything before that.
    pub fn handle_bytes(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        take: impl FnMut(&[u8]),
    ) -> Result<(), Ended> {
        if let State::Opening { settings, request } = &mut self.state {
            match Request::take(request, &mut bytes, settings) {
                Ok(None) => return Ok(()),
                Ok(Some(upgrade)) => {
                    upgrade.answer(settings, out);
                    self.state = State::Open(Decoder::new(Sender::Client));
                }
                Err(refusal) => {
                    refusal.answer(out);
                    self.state = State::Closed;
                    return Err(refusal.into());
                }
            }
        }
        let State::Open(decoder) = &mut self.state else {
            return Err(Ended::Closed);
        };
        let result = decoder.converse(bytes, [None; 2], out, take);
        result.map_err(|violation| {
            self.state = State::Closed;
            violation.map_or(Ended::Closed, Ended::from)
        })
    }

    /// Appends a binary message with `payload`. Before the upgrade and after the close there is nobody to send to: nothing happens.
    pub fn send(&self, payload: &[u8], out: &mut Vec<u8>) {
        if self.is_open() && !payload.is_empty() {
            frame::write(frame::BINARY, payload, None, out);
        }
    }

    /// Appends a close frame that says that the work is done (RFC 6455 §7.4.1, code 1000), unless the WebSocket is closed or was never open.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.is_open() {
            frame::write_close(Some(NORMAL_CLOSURE), None, out);
        }
        self.state = State::Closed;
    }
}

/// Bytes of a message at most, all its fragments together.
pub const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// RFC 6455 §7.4.1.
const NORMAL_CLOSURE: u16 = 1000;

#[cfg(test)]
mod tests;
