//! A way through an HTTP proxy (RFC 9110 §9.3.6, `CONNECT`), sans-IO.

use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::{HEADERS_MAX, http};

/// One connection to a proxy that is to become one to somebody else.
#[derive(Debug, Default)]
pub struct Tunnel {
    answer: Vec<u8>,
}

/// Why a proxy does not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no answer of HTTP.
    #[error("what answers is no HTTP proxy")]
    Malformed,
    /// Its head does not end.
    #[error("the proxy's answer is longer than 8 KiB or has more than {HEADERS_MAX} header fields")]
    TooLong,
    /// It has a status that is not of success.
    #[error("the proxy answers with status {0}")]
    Status(u16),
}

impl Refused {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Malformed | Self::TooLong => {
                "compare the proxy's address with what the network's administrator says"
            }
            Self::Status(407) => "give the proxy's user name and password",
            Self::Status(403 | 405) => {
                "the proxy does not let this address or port through: most take port 443 only"
            }
            Self::Status(_) => "see the proxy's log: it could not reach the address",
        }
    }
}

/// User name, without a colon, and password for a proxy that asks for them (RFC 7617).
pub struct Credentials<'a> {
    /// The user name.
    pub username: &'a str,
    /// The password.
    pub password: &'a [u8],
}

impl Tunnel {
    /// Begins with a fresh connection: appends the request for a way to `target`, `host:port`, to `out`.
    #[must_use]
    pub fn new(target: &str, credentials: Option<&Credentials<'_>>, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").as_bytes());
        if let Some(credentials) = credentials {
            let plain =
                Zeroizing::new([credentials.username.as_bytes(), b":", credentials.password].concat());
            let encoded = Zeroizing::new(BASE64.encode(&plain));
            out.extend_from_slice(b"Proxy-Authorization: Basic ");
            out.extend_from_slice(encoded.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Self::default()
    }

    /// Takes received bytes off `bytes`; returns whether the way is open. What is left in `bytes` then is the other end's.
    ///
    /// # Errors
    /// [`Refused`] if the connection leads nowhere.
    pub fn handle_bytes(&mut self, bytes: &mut &[u8]) -> Result<bool, Refused> {
        if !http::gather(&mut self.answer, bytes).map_err(|_| Refused::TooLong)? {
            return Ok(false);
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(&self.answer) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Refused::TooLong),
            Ok(httparse::Status::Partial) | Err(_) => return Err(Refused::Malformed),
        }
        match answer.code {
            // Whatever length it claims, a body does not follow (RFC 9110 §9.3.6).
            Some(200..=299) => Ok(true),
            Some(status) => Err(Refused::Status(status)),
            None => Err(Refused::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(tunnel: &mut Tunnel, portions: &[&[u8]]) -> (Result<bool, Refused>, Vec<u8>) {
        let mut result = Ok(false);
        let mut rest = Vec::new();
        for mut portion in portions.iter().copied() {
            if result == Ok(false) {
                result = tunnel.handle_bytes(&mut portion);
            }
            rest.extend_from_slice(portion);
        }
        (result, rest)
    }

    #[test]
    fn a_way_opens_and_what_follows_belongs_to_it() {
        let answer: &[u8] = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 squid\r\n\r\n\x16\x03\x03";
        let mut out = Vec::new();
        let mut tunnel = Tunnel::new("relay.example.net:443", None, &mut out);
        assert_eq!(
            out,
            b"CONNECT relay.example.net:443 HTTP/1.1\r\nHost: relay.example.net:443\r\n\r\n"
        );
        assert_eq!(feed(&mut tunnel, &[answer]), (Ok(true), vec![0x16, 3, 3]));
        let single: Vec<&[u8]> = answer.chunks(1).collect();
        assert_eq!(
            feed(&mut Tunnel::default(), &single),
            (Ok(true), vec![0x16, 3, 3])
        );
        let bare: &[u8] = b"HTTP/1.0 200 OK\n\nrest";
        assert_eq!(
            feed(&mut Tunnel::default(), &[bare]),
            (Ok(true), b"rest".to_vec())
        );
    }

    #[test]
    fn user_name_and_password_are_given_as_rfc_7617_says() {
        let credentials = Credentials {
            username: "Aladdin",
            password: b"open sesame",
        };
        let mut out = Vec::new();
        let _ = Tunnel::new("[2001:db8::1]:443", Some(&credentials), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"),
            "{text}"
        );
    }

    #[test]
    fn refusals_name_the_status() {
        for (answer, expected) in [
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
                Refused::Status(407),
            ),
            (
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!",
                Refused::Status(403),
            ),
            ("HTTP/1.1 101 Switching\r\n\r\n", Refused::Status(101)),
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", Refused::Malformed),
        ] {
            let (result, _) = feed(&mut Tunnel::default(), &[answer.as_bytes()]);
            assert_eq!(result, Err(expected), "{answer}");
            assert!(!expected.hint().is_empty());
        }
        let endless = vec![b'x'; 10_000];
        assert_eq!(feed(&mut Tunnel::default(), &[&endless]).0, Err(Refused::TooLong));
    }
}
