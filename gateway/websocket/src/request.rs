//! The request that turns HTTP into a WebSocket, and the answer (RFC 6455 §4.2).

use data_encoding::BASE64;

use crate::{
    Settings,
    http::{END, Fields, accept, end_of_head},
};

/// A request that may be granted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Value of `Sec-WebSocket-Accept`.
    accept: String,
}

/// Why a request is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no HTTP/1.1 request, or says things twice that may be said once.
    #[error("it is not a well-formed request of HTTP/1.1")]
    Malformed,
    /// It is longer than [`REQUEST_BYTES_MAX`], or has more than [`HEADERS_MAX`] header fields.
    #[error("it is longer than {REQUEST_BYTES_MAX} bytes or has more than {HEADERS_MAX} header fields")]
    TooLong,
    /// It is another method than GET.
    #[error("its method is not GET")]
    Method,
    /// It is for another path.
    #[error("it is for another path")]
    Path,
    /// It does not ask for a WebSocket.
    #[error("it does not ask for a WebSocket")]
    NotUpgrade,
    /// It is for another version than 13.
    #[error("it is for another version of the protocol than 13")]
    Version,
    /// It comes from a page of an origin that is not allowed.
    #[error("it comes from a page of an origin that is not allowed")]
    Origin,
    /// It does not offer the subprotocol.
    #[error("it does not offer the subprotocol")]
    Subprotocol,
}

impl Refusal {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Malformed | Self::TooLong | Self::Method | Self::NotUpgrade | Self::Version => {
                "see to it that a WebSocket client of RFC 6455 connects here, and that proxies pass its upgrade on"
            }
            Self::Path => "give the client the path of the listener's configuration",
            Self::Origin => "add the page's origin to the listener's configuration if it is meant to connect",
            Self::Subprotocol => "let the client offer the subprotocol of the listener, as `mqtt`",
        }
    }

    /// Returns the status of the answer, its reason phrase, and the header fields that belong to it.
    const fn status(self) -> (&'static str, &'static str) {
        match self {
            Self::Malformed | Self::Subprotocol => ("400 Bad Request", ""),
            Self::Origin => ("403 Forbidden", ""),
            Self::Path => ("404 Not Found", ""),
            Self::Method => ("405 Method Not Allowed", "Allow: GET\r\n"),
            Self::NotUpgrade => (
                "426 Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            ),
            Self::Version => (
                "426 Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            ),
            Self::TooLong => ("431 Request Header Fields Too Large", ""),
        }
    }

    /// Appends the answer.
    pub(crate) fn answer(self, out: &mut Vec<u8>) {
        let (status, fields) = self.status();
        // RFC 9110 §7.8: who sends `Upgrade` lists it in `Connection`.
        let connection = if fields.contains("Upgrade") {
            "Upgrade, close"
        } else {
            "close"
        };
        let text =
            format!("HTTP/1.1 {status}\r\n{fields}Connection: {connection}\r\nContent-Length: 0\r\n\r\n");
        out.extend_from_slice(text.as_bytes());
    }
}

impl Request {
    /// Takes bytes of a request; what follows its end stays in `input`. `gathered` keeps what came so far.
    ///
    /// # Errors
    /// [`Refusal`], as soon as it is certain.
    pub(crate) fn take(
        gathered: &mut Vec<u8>,
        input: &mut &[u8],
        settings: &Settings,
    ) -> Result<Option<Self>, Refusal> {
        // Bytes may come one by one. The end is looked for only where it can be, so that they cost what they cost in one piece.
        let from = gathered.len().saturating_sub(END.len());
        let room = REQUEST_BYTES_MAX.saturating_sub(gathered.len());
        let (taken, _) = input.split_at(room.min(input.len()));
        let before = gathered.len();
        gathered.extend_from_slice(taken);
        // What cannot become a request is not waited for to end.
        if !may_become_get(gathered) {
            return Err(Refusal::Malformed);
        }
        if let Some(end) = end_of_head(gathered, from) {
            let (request, _) = gathered.split_at(end);
            let parsed = parse(request, settings)?;
            *input = input.get(end.saturating_sub(before)..).unwrap_or_default();
            *gathered = Vec::new();
            return Ok(Some(parsed));
        }
        *input = &[];
        if taken.len() == room {
            return Err(Refusal::TooLong);
        }
        Ok(None)
    }

    /// Appends the answer that grants it.
    pub(crate) fn answer(&self, settings: &Settings, out: &mut Vec<u8>) {
        let text = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            self.accept, settings.subprotocol
        );
        out.extend_from_slice(text.as_bytes());
    }
}

/// Returns whether a request that begins so can still have a method in capitals.
fn may_become_get(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    let method = start.split(|byte| *byte == b' ').next().unwrap_or_default();
    method.len() <= METHOD_LEN_MAX && method.iter().all(u8::is_ascii_uppercase)
}

fn parse(bytes: &[u8], settings: &Settings) -> Result<Request, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLong),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Refusal::Malformed),
    }
    let (Some(method), Some(target), Some(1)) = (request.method, request.path, request.version) else {
        return Err(Refusal::Malformed);
    };
    if method != "GET" {
        return Err(Refusal::Method);
    }
    let fields = Fields(request.headers);
    // Every request of HTTP/1.1 has exactly one (RFC 9112 §3.2); one with a body could carry a second request past a proxy.
    if one(&fields, "Host")?.is_none() || has_body(&fields)? {
        return Err(Refusal::Malformed);
    }
    if path_of(target) != settings.path {
        return Err(Refusal::Path);
    }
    if !fields.lists("Connection", "upgrade") || !fields.lists("Upgrade", "websocket") {
        return Err(Refusal::NotUpgrade);
    }
    if one(&fields, "Sec-WebSocket-Version")? != Some(b"13") {
        return Err(Refusal::Version);
    }
    if let (Some(allowed), Some(origin)) = (&settings.origins, one(&fields, "Origin")?)
        && !allowed
            .iter()
            .any(|one| one.as_bytes().eq_ignore_ascii_case(origin))
    {
        return Err(Refusal::Origin);
    }
    if !fields.names("Sec-WebSocket-Protocol", &settings.subprotocol) {
        return Err(Refusal::Subprotocol);
    }
    let key = one(&fields, "Sec-WebSocket-Key")?.ok_or(Refusal::Malformed)?;
    let nonce = BASE64.decode(key).map_err(|_| Refusal::Malformed)?;
    if nonce.len() != NONCE_LEN {
        return Err(Refusal::Malformed);
    }
    Ok(Request { accept: accept(key) })
}

/// Returns the value of a field that may stand there once.
fn one<'r>(fields: &Fields<'r>, name: &str) -> Result<Option<&'r [u8]>, Refusal> {
    fields.one(name).map_err(|_| Refusal::Malformed)
}

fn has_body(fields: &Fields<'_>) -> Result<bool, Refusal> {
    let length = one(fields, "Content-Length")?;
    Ok(length.is_some_and(|length| length != b"0") || fields.has("Transfer-Encoding"))
}

/// Returns the path of a request's target, which may be a whole URI (RFC 6455 §4.1).
fn path_of(target: &str) -> &str {
    let after_scheme = ["http://", "https://", "ws://", "wss://"]
        .iter()
        .find_map(|scheme| target.strip_prefix(scheme));
    let path = match after_scheme {
        Some(rest) => rest.find('/').and_then(|start| rest.get(start..)).unwrap_or("/"),
        None => target,
    };
    path.split('?').next().unwrap_or_default()
}

/// Bytes of a request at most.
pub const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Header fields of a request at most.
pub const HEADERS_MAX: usize = 64;
/// Longest method that is waited for the end of.
const METHOD_LEN_MAX: usize = 16;
/// Bytes of the nonce in `Sec-WebSocket-Key` (RFC 6455 §4.1).
const NONCE_LEN: usize = 16;
