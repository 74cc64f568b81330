//! The client's side of a link over a WebSocket: a tunnel through a proxy, TLS, and the WebSocket in it.

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
};

use fieldgate_config::{
    address::{HostPort, WebSocketAddress},
    settings::LinkWebSocket,
};
use fieldgate_proto::entropy::Entropy;
use fieldgate_websocket::{
    client::{self, Client, Ended},
    tunnel::{Credentials, Refused, Tunnel},
};
use rustls::{ClientConfig, ClientConnection, client::WebPkiServerVerifier, pki_types::ServerName};
use zeroize::Zeroizing;

use super::{SUBPROTOCOL, verify::LinkVerifier};
use crate::{
    runtime::{StartError, clock::Clock, entropy::SystemEntropy, keys::secret_source},
    sinks::tls::roots,
};

/// What links are dialled with.
pub(crate) struct Connector {
    /// Where some address begins with `wss://`.
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<Proxy>,
}

struct Proxy {
    address: HostPort,
    login: Option<(String, Zeroizing<Vec<u8>>)>,
}

impl Connector {
    /// Reads authorities and the proxy's password.
    ///
    /// # Errors
    /// [`StartError`]: a file that is named and cannot be read, a secret that is not there.
    pub(super) fn load(
        settings: Option<&LinkWebSocket>,
        dials_tls: bool,
        clock: &Clock,
    ) -> Result<Self, StartError> {
        let ca = settings.and_then(|settings| settings.ca.as_deref());
        let tls = if dials_tls {
            Some(client_config(ca, clock).map_err(|error| {
                StartError::new(format!("TLS for links: {error}"))
                    .hint("give link.websocket.ca, a PEM file with the certificates of the authorities")
            })?)
        } else {
            None
        };
        let proxy = settings
            .and_then(|settings| settings.proxy.as_ref())
            .map(|proxy| {
                let login = proxy.login.as_ref().map(|(username, password)| {
                    let secret = secret_source(password).read().map_err(|error| {
                        StartError::new(format!("link.websocket.proxy_password: {error}")).hint(error.hint())
                    })?;
                    Ok::<_, StartError>((username.clone(), Zeroizing::new(secret.expose().to_vec())))
                });
                Ok::<_, StartError>(Proxy {
                    address: proxy.address.clone(),
                    login: login.transpose()?,
                })
            });
        Ok(Self {
            tls,
            proxy: proxy.transpose()?,
        })
    }

    /// Returns where a connection to `url` goes first.
    pub(crate) fn first_hop<'a>(&'a self, url: &'a WebSocketAddress) -> &'a HostPort {
        self.proxy_to(url).map_or(&url.address, |proxy| &proxy.address)
    }

    /// Returns the proxy for `url`: this machine is not reached through one.
    pub(crate) fn has_proxy(&self, url: &WebSocketAddress) -> bool {
        self.proxy_to(url).is_some()
    }

    fn proxy_to(&self, url: &WebSocketAddress) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| url.is_tls)
    }

    /// Begins with a connection to the first hop, and appends what it is told.
    ///
    /// # Errors
    /// In words, if the address names nobody whom a certificate can be for, or there are no authorities.
    pub(super) fn open(&self, url: &WebSocketAddress, out: &mut Vec<u8>) -> Result<Dial, String> {
        let tls = url.is_tls.then(|| {
            let config = Arc::clone(self.tls.as_ref().ok_or("there are no authorities")?);
            let host = url.address.host();
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_| format!("`{host}` is no name that a certificate can be for"))?;
            ClientConnection::new(config, name).map_err(|error| error.to_string())
        });
        let mut dial = Dial {
            tunnel: None,
            tls: tls.transpose()?.map(Box::new),
            websocket: None,
            settings: client::Settings {
                host: url.authority(),
                path: url.path.clone(),
                subprotocol: SUBPROTOCOL.to_owned(),
            },
        };
        match self.proxy_to(url) {
            Some(proxy) => {
                let credentials = proxy
                    .login
                    .as_ref()
                    .map(|(username, password)| Credentials { username, password });
                dial.tunnel = Some(Tunnel::new(&url.address.to_string(), credentials.as_ref(), out));
            }
            None => dial.begin(out),
        }
        Ok(dial)
    }
}

fn client_config(ca: Option<&std::path::Path>, clock: &Clock) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca)?), Arc::clone(&provider))
        .build()
        .map_err(|error| error.to_string())?;
    let verifier = LinkVerifier {
        inner,
        clock: clock.clone(),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The layers of one link that was dialled.
pub(crate) struct Dial {
    /// The way through the proxy, until it is open.
    tunnel: Option<Tunnel>,
    tls: Option<Box<ClientConnection>>,
    /// `None` while the tunnel is.
    websocket: Option<Client>,
    settings: client::Settings,
}

/// Why a link that was dialled is over. What the other side is told has been appended to the output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("proxy: {0}")]
    Proxy(#[from] Refused),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("WebSocket: {0}")]
    WebSocket(#[from] Ended),
}

impl DialError {
    /// Returns what an operator can do about it.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::Proxy(refused) => refused.hint(),
            Self::Tls(_) => {
                "see what certificate answers there; `link.websocket.ca` names authorities beside the system's"
            }
            Self::WebSocket(Ended::Denied(denial)) => denial.hint(),
            Self::WebSocket(Ended::Violation(_)) => "look for a proxy that changes frames",
            Self::WebSocket(Ended::Closed) => "none is needed",
        }
    }
}

impl Dial {
    /// Returns whether bytes of the link can be sent.
    pub(super) const fn is_open(&self) -> bool {
        match &self.websocket {
            Some(websocket) => websocket.is_open(),
            None => false,
        }
    }

    /// Asks for the WebSocket. TLS keeps the request until its handshake is done.
    fn begin(&mut self, out: &mut Vec<u8>) {
        let mut request = Vec::new();
        self.websocket = Some(Client::new(&self.settings, random(), &mut request));
        self.protect(&request, out);
    }

    /// Takes received bytes, gives those of the link to `take` in pieces, and appends answers to `out`.
    ///
    /// # Errors
    /// [`DialError`] if the connection is to be closed when `out` has been sent.
    pub(super) fn receive(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), DialError> {
        if let Some(tunnel) = &mut self.tunnel {
            if !tunnel.handle_bytes(&mut bytes)? {
                return Ok(());
            }
            self.tunnel = None;
            self.begin(out);
        }
        let mut answers = Vec::new();
        let result = match &mut self.tls {
            None => open(self.websocket.as_mut(), bytes, &mut answers, &mut take),
            Some(tls) => through_tls(tls, bytes, |piece| {
                open(self.websocket.as_mut(), piece, &mut answers, &mut take)
            }),
        };
        self.protect(&answers, out);
        result
    }

    /// Appends what `plain`, bytes of the link, becomes on the wire.
    pub(super) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        if let Some(websocket) = &self.websocket {
            let mut framed = Vec::with_capacity(plain.len().saturating_add(FRAME_HEADER_MAX));
            websocket.send(plain, random(), &mut framed);
            self.protect(&framed, out);
        }
    }

    /// Appends the goodbye of each layer.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        let mut framed = Vec::new();
        if let Some(websocket) = &mut self.websocket {
            websocket.close(random(), &mut framed);
        }
        self.protect(&framed, out);
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.protect(&[], out);
    }

    /// Appends `plain` encrypted, where there is TLS, and what TLS itself has to say.
    fn protect(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let Some(tls) = &mut self.tls else {
            out.extend_from_slice(plain);
            return;
        };
        for piece in plain.chunks(PIECE) {
            // Memory takes everything: there is no limit, and what is given is bounded by the caller.
            let _ = tls.writer().write_all(piece);
            drain(tls, out);
        }
        drain(tls, out);
    }
}

fn drain(tls: &mut ClientConnection, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    while tls.wants_write() && tls.write_tls(out).is_ok() {}
}

/// Gives what is in TLS records to `take`.
fn through_tls(
    tls: &mut ClientConnection,
    mut bytes: &[u8],
    mut take: impl FnMut(&[u8]) -> Result<(), DialError>,
) -> Result<(), DialError> {
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        // Reading from memory cannot fail, and rustls takes at least one byte while its buffer is emptied below.
        if tls.read_tls(&mut bytes).is_err() {
            return Err(rustls::Error::General("the connection's buffer is full".to_owned()).into());
        }
        let mut left = tls.process_new_packets()?.plaintext_bytes_to_read();
        while left > 0 {
            plain.resize(left.min(PIECE), 0);
            let Ok(count @ 1..) = tls.reader().read(&mut plain) else {
                break;
            };
            take(plain.get(..count).unwrap_or_default())?;
            left = left.saturating_sub(count);
        }
    }
    Ok(())
}

/// Gives what is in WebSocket messages to `take`.
fn open(
    websocket: Option<&mut Client>,
    bytes: &[u8],
    answers: &mut Vec<u8>,
    take: &mut impl FnMut(&[u8]),
) -> Result<(), DialError> {
    match websocket {
        Some(websocket) if !bytes.is_empty() => {
            Ok(websocket.handle_bytes(bytes, [random(), random()], answers, take)?)
        }
        Some(_) | None => Ok(()),
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemEntropy.fill(&mut bytes);
    bytes
}

/// Bytes of plaintext at a time.
const PIECE: usize = 16 << 10;
/// Longest header of a frame with its mask (RFC 6455 §5.2).
const FRAME_HEADER_MAX: usize = 14;
