//! The client's side of a WebSocket (RFC 6455 §4.1).
//!
//! ```text
//!  Opening ──good answer──▶ Open ──close frame, violation, close()──▶ Closed
//!     └──────bad answer──────────────────────────────────────────────▶ Closed
//! ```
//!
//! Every frame has a mask of its own (RFC 6455 §5.3), which the caller draws: this crate has no randomness.

use data_encoding::BASE64;

use crate::{
    HEADERS_MAX, MESSAGE_BYTES_MAX, NORMAL_CLOSURE, Violation,
    frame::{self, Decoder, MASK_LEN, Sender},
    http::{self, Fields},
};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Host, and port if it is not the usual one, for the `Host` field; visible ASCII.
    pub host: String,
    /// Path of the resource, beginning with `/`.
    pub path: String,
    /// Subprotocol that the server must take (RFC 6455 §1.9).
    pub subprotocol: String,
}

/// A mask for one frame: random, or a stranger's web page could choose what a proxy sees (RFC 6455 §10.3).
pub type Mask = [u8; MASK_LEN];

/// Random bytes of a request (RFC 6455 §4.1).
pub type Nonce = [u8; 16];

/// One connection to a server.
#[derive(Debug)]
pub struct Client {
    state: State,
}

#[derive(Debug)]
enum State {
    Opening {
        /// What `Sec-WebSocket-Accept` must say.
        accept: String,
        subprotocol: String,
        /// The beginning of the answer.
        answer: Vec<u8>,
    },
    Open(Decoder),
    Closed,
}

/// Why a connection to a server is over. What the server is told has been appended to the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The request was not granted.
    #[error("the request was not granted: {0}")]
    Denied(#[from] Denial),
    /// A frame was against the rules.
    #[error("the server broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// The server closed it, or it was closed before.
    #[error("the server closed the WebSocket")]
    Closed,
}

/// Why an answer does not open a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// It is no answer of HTTP/1.1, or says things twice that may be said once.
    #[error("the answer is not well-formed HTTP/1.1")]
    Malformed,
    /// Its head does not end.
    #[error("the answer is longer than 8 KiB or has more than {HEADERS_MAX} header fields")]
    TooLong,
    /// It has another status than 101.
    #[error("the answer has status {0}")]
    Status(u16),
    /// It does not speak of a WebSocket, or answers another request.
    #[error("the answer is not that of a WebSocket server")]
    NotWebSocket,
    /// It takes another subprotocol, or an extension that nobody offered.
    #[error("the server took another subprotocol or an extension")]
    NotOffered,
}

impl Denial {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Status(404) => "compare the path in the address with `path` of the listener",
            Self::Status(_) => "see what answers at that address: a proxy in between must pass upgrades on",
            Self::Malformed | Self::TooLong | Self::NotWebSocket => {
                "see what answers at that address: it is no WebSocket server"
            }
            Self::NotOffered => "see what answers at that address: it is no listener of fieldgate",
        }
    }
}

impl Client {
    /// Begins with a fresh connection: appends the request to `out`.
    #[must_use]
    pub fn new(settings: &Settings, nonce: Nonce, out: &mut Vec<u8>) -> Self {
        let key = BASE64.encode(&nonce);
        let Settings {
            host,
            path,
            subprotocol,
        } = settings;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        );
        out.extend_from_slice(request.as_bytes());
        Self {
            state: State::Opening {
                accept: http::accept(key.as_bytes()),
                subprotocol: subprotocol.clone(),
                answer: Vec::new(),
            },
        }
    }

    /// Returns whether the server has granted the request and neither side has closed.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Takes received bytes; gives the payload of binary messages to `take` in pieces, and appends answers to `out`, at most
    /// two, masked with `masks`.
    ///
    /// # Errors
    /// [`Ended`] if the connection is to be closed when `out` has been sent. `take` has had everything before that.
    pub fn handle_bytes(
        &mut self,
        mut bytes: &[u8],
        masks: [Mask; 2],
        out: &mut Vec<u8>,
        take: impl FnMut(&[u8]),
    ) -> Result<(), Ended> {
        if let State::Opening {
            accept,
            subprotocol,
            answer,
        } = &mut self.state
        {
            let granted = http::gather(answer, &mut bytes)
                .map_err(|_| Denial::TooLong)
                .and_then(|is_whole| {
                    if is_whole {
                        check(answer, accept, subprotocol)?;
                    }
                    Ok(is_whole)
                });
            match granted {
                Ok(false) => return Ok(()),
                Ok(true) => self.state = State::Open(Decoder::new(Sender::Server)),
                Err(denial) => {
                    self.state = State::Closed;
                    return Err(denial.into());
                }
            }
        }
        let State::Open(decoder) = &mut self.state else {
            return Err(Ended::Closed);
        };
        let result = decoder.converse(bytes, masks.map(Some), out, take);
        result.map_err(|violation| {
            self.state = State::Closed;
            violation.map_or(Ended::Closed, Ended::from)
        })
    }

    /// Appends a binary message with `payload`, at most [`MESSAGE_BYTES_MAX`] bytes. While the WebSocket is not open there is
    /// nobody to send to: nothing happens.
    ///
    /// # Panics
    /// If the payload is longer.
    pub fn send(&self, payload: &[u8], mask: Mask, out: &mut Vec<u8>) {
        assert!(payload.len() as u64 <= MESSAGE_BYTES_MAX, "a message is too long");
        if self.is_open() && !payload.is_empty() {
            frame::write(frame::BINARY, payload, Some(mask), out);
        }
    }

    /// Appends a close frame that says that the work is done (RFC 6455 §7.4.1, code 1000), if the WebSocket is open.
    pub fn close(&mut self, mask: Mask, out: &mut Vec<u8>) {
        if self.is_open() {
            frame::write_close(Some(NORMAL_CLOSURE), Some(mask), out);
        }
        self.state = State::Closed;
    }
}

/// Judges a whole answer (RFC 6455 §4.1).
fn check(head: &[u8], accept: &str, subprotocol: &str) -> Result<(), Denial> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Denial::TooLong),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Denial::Malformed),
    }
    let (Some(status), Some(1)) = (answer.code, answer.version) else {
        return Err(Denial::Malformed);
    };
    if status != SWITCHING_PROTOCOLS {
        return Err(Denial::Status(status));
    }
    let fields = Fields(answer.headers);
    let one = |name| fields.one(name).map_err(|_| Denial::Malformed);
    if !fields.lists("Connection", "upgrade")
        || !fields.lists("Upgrade", "websocket")
        || one("Sec-WebSocket-Accept")? != Some(accept.as_bytes())
    {
        return Err(Denial::NotWebSocket);
    }
    if one("Sec-WebSocket-Protocol")? != Some(subprotocol.as_bytes())
        || fields.has("Sec-WebSocket-Extensions")
    {
        return Err(Denial::NotOffered);
    }
    Ok(())
}

/// RFC 9110 §15.2.2.
const SWITCHING_PROTOCOLS: u16 = 101;

#[cfg(test)]
mod tests;
