//! What lies between the bytes of a connection and its MQTT session: TLS or TLS-PSK, and a WebSocket, in any combination.
//!
//! ```text
//!  TCP ──▶ nothing │ TLS (rustls) │ TLS-PSK (OpenSSL) ──▶ nothing │ WebSocket ──▶ MQTT
//!                     certificate      identity, key
//!                          └──────┬────────┘
//!                              device
//! ```
//!
//! Each layer takes bytes and gives bytes; none touches the socket. A layer that authenticates says which device it is, and then
//! CONNECT needs no password.
//!
//! | bound | value |
//! |---|---|
//! | time until CONNECT is read, handshakes included | `mqtt.connect_timeout_secs`, kept by the session |
//! | bytes until the first of MQTT | [`UNPROVEN_BYTES_MAX`] |
//! | connections without CONNECT | see [`HalfOpen`](super::field) |
//! | plaintext in one piece | 16 KiB |

mod certificate;
pub(crate) mod listeners;
pub(crate) mod psk;
pub(crate) mod tls;

use std::sync::Arc;

use fieldgate_adapters::device::Device;
use fieldgate_websocket::{Ended, WebSocket};

/// How clients of one listener speak below MQTT.
#[derive(Clone)]
pub(crate) struct Stack {
    pub(crate) security: Option<SecurityPlan>,
    pub(crate) websocket: Option<Arc<fieldgate_websocket::Settings>>,
}

/// How clients of one listener are protected.
#[derive(Clone)]
pub(crate) enum SecurityPlan {
    /// TLS with certificates.
    Tls(tls::Acceptor),
    /// TLS with pre-shared keys.
    Psk(psk::Acceptor),
}

impl Stack {
    /// MQTT over TCP and nothing else.
    pub(crate) const PLAIN: Self = Self {
        security: None,
        websocket: None,
    };

    /// Begins with a fresh connection; `None` if nothing lies between.
    ///
    /// # Errors
    /// [`TransportError`] if the library cannot make a connection, for want of memory.
    #[cfg_attr(
        not(feature = "tls-psk"),
        expect(unreachable_code, reason = "without OpenSSL there is no listener with keys")
    )]
    pub(crate) fn open(&self) -> Result<Option<Box<Transport>>, TransportError> {
        let security = match &self.security {
            None if self.websocket.is_none() => return Ok(None),
            None => Security::None,
            Some(SecurityPlan::Tls(acceptor)) => Security::Tls(Box::new(acceptor.open()?)),
            Some(SecurityPlan::Psk(acceptor)) => Security::Psk(Box::new(acceptor.open()?)),
        };
        Ok(Some(Box::new(Transport {
            security,
            websocket: self.websocket.clone().map(WebSocket::new),
            unproven: Some(UNPROVEN_BYTES_MAX),
        })))
    }

    /// Returns what it is called in logs.
    pub(crate) const fn name(&self) -> &'static str {
        match (&self.security, &self.websocket) {
            (None, None) => "TCP",
            (None, Some(_)) => "WebSocket",
            (Some(SecurityPlan::Tls(_)), None) => "TLS",
            (Some(SecurityPlan::Tls(_)), Some(_)) => "WebSocket over TLS",
            (Some(SecurityPlan::Psk(_)), None) => "TLS-PSK",
            (Some(SecurityPlan::Psk(_)), Some(_)) => "WebSocket over TLS-PSK",
        }
    }
}

/// Takes plaintext, and the device that the connection has proven to be by then.
type Take<'t> = dyn FnMut(&[u8], Option<&Arc<Device>>) + 't;

/// What lies between one connection and its session.
pub(crate) struct Transport {
    security: Security,
    websocket: Option<WebSocket>,
    /// Bytes that may still come before the first of MQTT; `None` after it.
    unproven: Option<usize>,
}

enum Security {
    None,
    Tls(Box<tls::Tls>),
    Psk(Box<psk::Psk>),
}

/// Why a connection cannot go on. What the client is told has been appended to the output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("TLS-PSK: {0}")]
    Psk(#[from] psk::PskError),
    #[error("WebSocket: {0}")]
    WebSocket(#[from] Ended),
    #[error("{UNPROVEN_BYTES_MAX} bytes of handshakes and none of MQTT")]
    Unproven,
    #[error("the certificate is not that of a device")]
    NoDevice,
}

impl Transport {
    /// Takes received bytes, gives those of MQTT to `take` in pieces with the device that is known by now, and appends answers
    /// to `out`.
    ///
    /// # Errors
    /// [`TransportError`] if the connection is to be closed when `out` has been sent.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut take: impl FnMut(&[u8], Option<&Arc<Device>>),
    ) -> Result<(), TransportError> {
        if let Some(left) = &mut self.unproven {
            *left = left.checked_sub(bytes.len()).ok_or(TransportError::Unproven)?;
        }
        let unproven = &mut self.unproven;
        let mut mqtt = |piece: &[u8], device: Option<&Arc<Device>>| {
            *unproven = None;
            take(piece, device);
        };
        let Some(websocket) = &mut self.websocket else {
            return self.security.receive(bytes, out, &mut mqtt);
        };
        let mut replies = Vec::new();
        let mut ended = Ok(());
        let received = self.security.receive(bytes, out, &mut |piece, device| {
            if ended.is_ok() {
                ended = websocket.handle_bytes(piece, &mut replies, |inner| mqtt(inner, device));
            }
        });
        if !replies.is_empty() {
            self.security.send(&replies, out);
        }
        received?;
        Ok(ended?)
    }

    /// Appends what `plain`, bytes of MQTT, becomes on the wire.
    pub(crate) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        match &self.websocket {
            None => self.security.send(plain, out),
            Some(websocket) => {
                let mut framed = Vec::with_capacity(plain.len().saturating_add(FRAME_HEADER_MAX));
                websocket.send(plain, &mut framed);
                self.security.send(&framed, out);
            }
        }
    }

    /// Appends the goodbye of each layer.
    pub(crate) fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(websocket) = &mut self.websocket {
            let mut framed = Vec::new();
            websocket.close(&mut framed);
            self.security.send(&framed, out);
        }
        match &mut self.security {
            Security::None => {}
            Security::Tls(tls) => tls.close(out),
            Security::Psk(psk) => psk.close(out),
        }
    }

    /// Returns whether bytes can be sent: the WebSocket is open, if there is one.
    pub(crate) const fn is_open(&self) -> bool {
        match &self.websocket {
            Some(websocket) => websocket.is_open(),
            None => true,
        }
    }

    /// Returns the device that the connection itself has proven to be.
    pub(crate) fn device(&self) -> Option<&Arc<Device>> {
        match &self.security {
            Security::None => None,
            Security::Tls(tls) => tls.device(),
            Security::Psk(psk) => psk.device(),
        }
    }
}

impl Security {
    fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        take: &mut Take<'_>,
    ) -> Result<(), TransportError> {
        match self {
            Self::None => {
                take(bytes, None);
                Ok(())
            }
            Self::Tls(tls) => tls.receive(bytes, out, take),
            Self::Psk(psk) => Ok(psk.receive(bytes, out, take)?),
        }
    }

    fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        if plain.is_empty() {
            return;
        }
        match self {
            Self::None => out.extend_from_slice(plain),
            Self::Tls(tls) => tls.send(plain, out),
            Self::Psk(psk) => psk.send(plain, out),
        }
    }
}

/// Bytes of handshakes and frames before the first byte of MQTT: two flights of TLS with long chains of certificates, and a
/// request.
const UNPROVEN_BYTES_MAX: usize = 128 << 10;
/// Longest header of a frame that is sent (RFC 6455 §5.2).
const FRAME_HEADER_MAX: usize = 10;
