//! Network addresses to connect to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A host, by name or IP address, and a port: `relay.example.net:4433`, `10.77.0.2:4433`, `[fd00::2]:4433`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Returns the host name or IP address, without brackets, host names in lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether the host is this machine: a loopback address or `localhost`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is not a host and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// Nothing, or nothing but digits, follows the last colon.
    #[error("has no port")]
    NoPort,
    /// The port is no number from 1 to 65535.
    #[error("has a port outside 1..=65535")]
    Port,
    /// The host is neither a name (RFC 1123 §2.1) nor an IP address.
    #[error("has a host that is neither a name nor an IP address")]
    Host,
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError::NoPort)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) => {
                inner.parse::<Ipv6Addr>().map_err(|_| HostPortError::Host)?;
                inner.to_ascii_lowercase()
            }
            // `fd00::2` without brackets: its last group is no port.
            None if host.contains(':') => return Err(HostPortError::NoPort),
            None if is_host(host) => host.to_ascii_lowercase(),
            None => return Err(HostPortError::Host),
        };
        if port.is_empty() {
            return Err(HostPortError::NoPort);
        }
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(HostPortError::Port);
        }
        match port.parse() {
            Ok(0) | Err(_) => Err(HostPortError::Port),
            Ok(port) => Ok(Self { host, port }),
        }
    }
}

/// Whether `text` is a host name or an IPv4 address.
fn is_host(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels_fit = name.split('.').all(|label| {
        (1..=LABEL_LEN_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    // A last label of digits only makes it an IPv4 address or a mistake (RFC 1123 §2.1).
    let numeric = name
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= NAME_LEN_MAX && labels_fit && (!numeric || name.parse::<std::net::Ipv4Addr>().is_ok())
}

/// Longest label of a host name (RFC 1035 §2.3.4).
const LABEL_LEN_MAX: usize = 63;
/// Longest host name (RFC 1035 §2.3.4).
const NAME_LEN_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_addresses_are_taken() {
        for (text, host, port) in [
            ("relay.example.net:4433", "relay.example.net", 4433),
            ("Relay:1", "relay", 1),
            ("10.77.0.2:65535", "10.77.0.2", 65535),
            ("[fd00::2]:4433", "fd00::2", 4433),
            ("localhost:1883", "localhost", 1883),
        ] {
            let parsed: HostPort = text.parse().expect(text);
            assert_eq!((parsed.host(), parsed.port()), (host, port));
            assert_eq!(parsed.to_string(), text.to_lowercase());
        }
    }

    #[test]
    fn each_fault_has_its_own_error() {
        for (text, error) in [
            ("relay", HostPortError::NoPort),
            ("relay:", HostPortError::NoPort),
            ("fd00::2", HostPortError::NoPort),
            ("relay:0", HostPortError::Port),
            ("relay:65536", HostPortError::Port),
            ("relay:+80", HostPortError::Port),
            (":80", HostPortError::Host),
            ("10.77.0.300:80", HostPortError::Host),
            ("10.77:80", HostPortError::Host),
            ("[relay]:80", HostPortError::Host),
            ("-relay:80", HostPortError::Host),
            ("re lay:80", HostPortError::Host),
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(error), "{text}");
        }
    }

    #[test]
    fn loopback_is_recognised() {
        for (text, loopback) in [
            ("localhost:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("10.0.0.1:1", false),
            ("lo.example:1", false),
        ] {
            assert_eq!(
                text.parse::<HostPort>().expect(text).is_loopback(),
                loopback,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_never_panics_and_what_is_taken_round_trips(text in "\\PC{0,40}") {
            if let Ok(parsed) = text.parse::<HostPort>() {
                prop_assert_eq!(parsed.to_string().parse(), Ok(parsed));
            }
        }
    }
}
