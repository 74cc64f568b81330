//! The request that turns HTTP into a WebSocket, and the answer (RFC 6455 §4.2).

use aws_lc_rs::digest;
use data_encoding::BASE64;
use httparse::Header;

use crate::Settings;

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
            Self::Subprotocol => "let the client offer the subprotocol `mqtt`",
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
        if let Some(end) = end_of_request(gathered, from) {
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

/// Finds the end of the empty line, looking from `from` on. A line may end in a line feed alone (RFC 9112 §2.2).
fn end_of_request(bytes: &[u8], from: usize) -> Option<usize> {
    let tail = bytes.get(from..)?;
    let at = |pattern: &[u8]| {
        let found = tail.windows(pattern.len()).position(|window| window == pattern)?;
        from.checked_add(found)?.checked_add(pattern.len())
    };
    [at(END), at(b"\n\n"), at(b"\n\r\n")].into_iter().flatten().min()
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
    if fields.one("Host")?.is_none() || fields.has_body()? {
        return Err(Refusal::Malformed);
    }
    if path_of(target) != settings.path {
        return Err(Refusal::Path);
    }
    if !fields.lists("Connection", "upgrade") || !fields.lists("Upgrade", "websocket") {
        return Err(Refusal::NotUpgrade);
    }
    if fields.one("Sec-WebSocket-Version")? != Some(b"13") {
        return Err(Refusal::Version);
    }
    if let (Some(allowed), Some(origin)) = (&settings.origins, fields.one("Origin")?)
        && !allowed
            .iter()
            .any(|one| one.as_bytes().eq_ignore_ascii_case(origin))
    {
        return Err(Refusal::Origin);
    }
    if !fields.names("Sec-WebSocket-Protocol", &settings.subprotocol) {
        return Err(Refusal::Subprotocol);
    }
    let key = fields.one("Sec-WebSocket-Key")?.ok_or(Refusal::Malformed)?;
    let nonce = BASE64.decode(key).map_err(|_| Refusal::Malformed)?;
    if nonce.len() != NONCE_LEN {
        return Err(Refusal::Malformed);
    }
    Ok(Request { accept: accept(key) })
}

/// Returns the answer to a key (RFC 6455 §4.2.2, step 5.4). No secret is in it: it shows that the request was understood.
fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    BASE64.encode(context.finish().as_ref())
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

/// Header fields of a request.
struct Fields<'r>(&'r [Header<'r>]);

impl<'r> Fields<'r> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'r [u8]> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    }

    /// Returns the value of a field that may stand there once.
    fn one(&self, name: &str) -> Result<Option<&'r [u8]>, Refusal> {
        let mut all = self.all(name);
        let first = all.next();
        if all.next().is_some() {
            return Err(Refusal::Malformed);
        }
        Ok(first)
    }

    /// Returns whether a list has `token`, in capitals or not.
    fn lists(&self, name: &str, token: &str) -> bool {
        self.tokens(name)
            .any(|one| one.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Returns whether a list has exactly `token`.
    fn names(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|one| one == token.as_bytes())
    }

    fn tokens(&self, name: &str) -> impl Iterator<Item = &'r [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
    }

    fn has_body(&self) -> Result<bool, Refusal> {
        let length = self.one("Content-Length")?;
        Ok(length.is_some_and(|length| length != b"0") || self.all("Transfer-Encoding").next().is_some())
    }
}

/// Bytes of a request at most.
pub const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Header fields of a request at most.
pub const HEADERS_MAX: usize = 64;
/// Longest method that is waited for the end of.
const METHOD_LEN_MAX: usize = 16;
/// Bytes of the nonce in `Sec-WebSocket-Key` (RFC 6455 §4.1).
const NONCE_LEN: usize = 16;
/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The empty line.
const END: &[u8] = b"\r\n\r\n";
