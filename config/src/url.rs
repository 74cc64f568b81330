//! Where an HTTP request goes.

use std::fmt;
use std::str::FromStr;

use crate::address::HostPort;

/// An `http` or `https` URL without user information and fragment (RFC 9110 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// Whether it is `https`.
    pub is_https: bool,
    /// Host and port.
    pub address: HostPort,
    /// Path and query, beginning with `/`.
    pub target: String,
    /// Host, and port if it is not the usual one: the header `Host`.
    pub authority: String,
}

/// Why a text is not such a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    /// It does not begin with `http://` or `https://`.
    #[error("does not begin with `http://` or `https://`")]
    Scheme,
    /// It names a user before the host.
    #[error("holds a user name or password")]
    User,
    /// The host or port is none.
    #[error("has no host, or a port outside 1..=65535")]
    Host,
    /// A character that a URL must not have.
    #[error("contains {character:?}, which a URL must not have")]
    Character {
        /// The character.
        character: char,
    },
}

impl HttpUrlError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Scheme | Self::Host => "write it like \"https://ingest.example.net/readings\"",
            Self::User => "take it out; `token` names where a bearer token is",
            Self::Character { .. } => "take it out, or write it in percent encoding: %20 for a space",
        }
    }
}

impl FromStr for HttpUrl {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, HttpUrlError> {
        let (is_https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(HttpUrlError::Scheme),
        };
        // RFC 3986 §2: what is neither reserved nor unreserved; a fragment is not sent.
        let bad = rest.chars().find(|c| {
            !c.is_ascii_graphic() || matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' | '#')
        });
        if let Some(character) = bad {
            return Err(HttpUrlError::Character { character });
        }
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        if authority.contains('@') {
            return Err(HttpUrlError::User);
        }
        let usual = if is_https { 443 } else { 80 };
        let address = authority
            .parse()
            .or_else(|_| format!("{authority}:{usual}").parse())
            .map_err(|_| HttpUrlError::Host)?;
        let target = match target.chars().next() {
            Some('/') => target.to_owned(),
            _ => format!("/{target}"),
        };
        Ok(Self {
            is_https,
            address,
            target,
            authority: authority.to_owned(),
        })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.target)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> HttpUrl {
        text.parse().expect(text)
    }

    #[test]
    fn the_usual_port_and_path_are_filled_in() {
        let plain = url("http://sink.example.net");
        assert_eq!(
            (plain.address.host(), plain.address.port()),
            ("sink.example.net", 80)
        );
        assert_eq!((plain.target.as_str(), plain.is_https), ("/", false));
        let full = url("https://10.0.0.1:8443/a/b?c=d");
        assert_eq!((full.address.port(), full.target.as_str()), (8443, "/a/b?c=d"));
        assert_eq!(full.authority, "10.0.0.1:8443");
        assert_eq!(url("https://[fd00::2]/x").address.port(), 443);
        assert_eq!(url("http://h?q").target, "/?q");
    }

    #[test]
    fn each_fault_has_its_own_error() {
        for (text, error) in [
            ("ftp://a", HttpUrlError::Scheme),
            ("a.example", HttpUrlError::Scheme),
            ("https://u:p@h/", HttpUrlError::User),
            ("https:///x", HttpUrlError::Host),
            ("https://h:0/", HttpUrlError::Host),
            ("https://h/a b", HttpUrlError::Character { character: ' ' }),
            ("https://h/#f", HttpUrlError::Character { character: '#' }),
            ("https://h/\r\nX: y", HttpUrlError::Character { character: '\r' }),
        ] {
            assert_eq!(text.parse::<HttpUrl>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_reads_the_same_again(text in "https?://[a-z0-9.:@?/\\[\\]]{0,30}|\\PC{0,30}") {
            if let Ok(url) = text.parse::<HttpUrl>() {
                prop_assert_eq!(url.to_string().parse::<HttpUrl>(), Ok(url));
            }
        }
    }
}
