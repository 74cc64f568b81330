//! What portals reach, and where they listen.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::address::{HostPort, Network};

/// Where an inlet listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InletAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A UNIX socket, written `unix:/path`.
    Unix(PathBuf),
    /// UDP, written `udp:address:port`.
    Udp(SocketAddr),
}

/// What an outlet leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutletAddress {
    /// TCP.
    Tcp(HostPort),
    /// A UNIX socket, written `unix:/path`.
    Unix(PathBuf),
    /// A serial line, written `serial:/path` with the path of its device.
    Serial(PathBuf),
    /// UDP, written `udp:host:port`.
    Udp(HostPort),
}

impl fmt::Display for InletAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
        }
    }
}

impl fmt::Display for OutletAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Serial(path) => write!(f, "serial:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
        }
    }
}

/// Why a text is no path of a UNIX socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketPathError {
    /// It does not begin at the root.
    #[error("is not an absolute path")]
    Relative,
    /// The kernel takes no more; lengths in bytes.
    #[error("makes a path of {got} bytes, more than {max}")]
    Long {
        /// Its length.
        got: usize,
        /// The longest.
        max: usize,
    },
    /// It holds a zero byte or ends in a slash.
    #[error("names no file")]
    NoFile,
}

/// Takes the path behind `unix:`.
///
/// # Errors
/// [`SocketPathError`].
pub fn socket_path(text: &str) -> Result<PathBuf, SocketPathError> {
    if !Path::new(text).is_absolute() {
        Err(SocketPathError::Relative)
    } else if text.contains('\0') || text.ends_with('/') {
        Err(SocketPathError::NoFile)
    } else if text.len() > SOCKET_PATH_LEN_MAX {
        Err(SocketPathError::Long {
            got: text.len(),
            max: SOCKET_PATH_LEN_MAX,
        })
    } else {
        Ok(PathBuf::from(text))
    }
}

/// Destinations that an outlet may be asked for, written `host:ports`: the host a network, a name in which `*` stands for any letters
/// without a dot, or `*` alone for every host; the ports one, a range `8000-8100`, or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPattern {
    host: HostPattern,
    first_port: u16,
    last_port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Any,
    Network(Network),
    /// In small letters.
    Name(String),
}

/// Why a text is no pattern of destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetPatternError {
    /// Nothing is said about ports.
    #[error("has no port")]
    NoPort,
    /// What stands for the ports is none of the forms.
    #[error("has no port from 1 to 65535, no range of them and no *")]
    Port,
    /// What stands for the host is none of the forms.
    #[error("has neither a network nor a name for the host")]
    Host,
    /// An address with bits behind the prefix.
    #[error("has bits behind the prefix of its network")]
    HostBits,
}

impl TargetPattern {
    /// Returns whether a destination may be asked for by this name, whatever its addresses are.
    #[must_use]
    pub fn allows_name(&self, host: &str, port: u16) -> bool {
        let is_host = match &self.host {
            HostPattern::Any => true,
            HostPattern::Network(_) => false,
            HostPattern::Name(pattern) => {
                let host = host.strip_suffix('.').unwrap_or(host);
                matches(pattern.as_bytes(), host.to_ascii_lowercase().as_bytes())
            }
        };
        is_host && self.allows_port(port)
    }

    /// Returns whether this address may be reached. One of IPv4 in the form of IPv6 counts as what it is.
    #[must_use]
    pub fn allows_address(&self, address: IpAddr, port: u16) -> bool {
        let is_host = match &self.host {
            HostPattern::Any => true,
            HostPattern::Network(network) => network.contains(address.to_canonical()),
            HostPattern::Name(_) => false,
        };
        is_host && self.allows_port(port)
    }

    /// Returns whether it depends on the addresses of a name whether this port there may be reached.
    #[must_use]
    pub const fn wants_address(&self, port: u16) -> bool {
        matches!(self.host, HostPattern::Network(_)) && self.first_port <= port && port <= self.last_port
    }

    fn allows_port(&self, port: u16) -> bool {
        (self.first_port..=self.last_port).contains(&port)
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any bytes but dots. The work is at most the product of their lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut in_text) = (0, 0);
    // The last star, and up to where in the text it stands.
    let mut star: Option<(usize, usize)> = None;
    while in_text < text.len() {
        let byte = text.get(in_text);
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_text));
                at += 1;
            }
            wanted if wanted == byte => {
                at += 1;
                in_text += 1;
            }
            Some(_) | None => {
                let Some((star_at, covered)) = star else {
                    return false;
                };
                if text.get(covered) == Some(&b'.') {
                    return false;
                }
                star = Some((star_at, covered + 1));
                at = star_at + 1;
                in_text = covered + 1;
            }
        }
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Any => f.write_str("*")?,
            HostPattern::Network(network) if network.is_ipv4() => network.fmt(f)?,
            HostPattern::Network(network) => write!(f, "[{network}]")?,
            HostPattern::Name(name) => f.write_str(name)?,
        }
        match (self.first_port, self.last_port) {
            (1, u16::MAX) => f.write_str(":*"),
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

impl FromStr for TargetPattern {
    type Err = TargetPatternError;

    fn from_str(text: &str) -> Result<Self, TargetPatternError> {
        let (host, ports) = text.rsplit_once(':').ok_or(TargetPatternError::NoPort)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(network) => Some(network_pattern(network)?).filter(|(_, is_ipv4)| !is_ipv4),
            // `fd00::2` without brackets: its last group is no port.
            None if host.contains(':') => return Err(TargetPatternError::NoPort),
            None if host == "*" => Some((HostPattern::Any, true)),
            None if is_name_pattern(host) => Some((HostPattern::Name(host.to_ascii_lowercase()), true)),
            None => Some(network_pattern(host)?).filter(|(_, is_ipv4)| *is_ipv4),
        };
        let (host, _) = host.ok_or(TargetPatternError::Host)?;
        let (first, last) = match ports {
            "" => return Err(TargetPatternError::NoPort),
            "*" => (1, u16::MAX),
            ports => match ports.split_once('-') {
                Some((first, last)) => (port(first)?, port(last)?),
                None => (port(ports)?, port(ports)?),
            },
        };
        if first > last {
            return Err(TargetPatternError::Port);
        }
        Ok(Self {
            host,
            first_port: first,
            last_port: last,
        })
    }
}

/// Reads a network; says whether it is one of IPv4.
fn network_pattern(text: &str) -> Result<(HostPattern, bool), TargetPatternError> {
    match text.parse::<Network>() {
        Ok(network) => Ok((HostPattern::Network(network), network.is_ipv4())),
        Err(crate::address::NetworkError::Host { .. }) => Err(TargetPatternError::HostBits),
        Err(_) => Err(TargetPatternError::Host),
    }
}

fn port(text: &str) -> Result<u16, TargetPatternError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_number && *number > 0);
    number.ok_or(TargetPatternError::Port)
}

/// Whether a text is a host name, perhaps with stars; digits and dots alone are an address or a mistake.
fn is_name_pattern(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*'))
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Size of `sun_path` on Linux less the final zero.
const SOCKET_PATH_LEN_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> TargetPattern {
        text.parse().expect(text)
    }

    #[test]
    fn destinations_are_allowed_by_name_or_by_address() {
        for (text, host, port, allowed) in [
            ("plc-*.local:502", "plc-7.local", 502, true),
            ("plc-*.local:502", "PLC-7.LOCAL.", 502, true),
            ("plc-*.local:502", "plc-7.local", 503, false),
            ("plc-*.local:502", "plc-7.evil.local", 502, false),
            ("plc-*.local:502", "plc-7.local.evil.example", 502, false),
            ("plc-*.local:502", "aplc-7.local", 502, false),
            ("plc-*.local:502", "plc-.local", 502, true),
            ("*.hall.local:8000-8100", "a.hall.local", 8100, true),
            ("*.hall.local:8000-8100", "a.b.hall.local", 8100, false),
            ("*.hall.local:8000-8100", "a.hall.local", 8101, false),
            ("*-a-*:*", "1-a-2", 1, true),
            ("*-a-*:*", "1-b-a-2", 65_535, true),
            ("*-a-*:*", "1-b", 1, false),
            ("*:22", "anything.example", 22, true),
            ("10.0.0.0/8:22", "plc.local", 22, false),
        ] {
            assert_eq!(
                pattern(text).allows_name(host, port),
                allowed,
                "{text} {host}:{port}"
            );
        }
        for (text, address, port, allowed) in [
            ("10.0.0.0/8:22", "10.255.0.1", 22, true),
            ("10.0.0.0/8:22", "11.0.0.1", 22, false),
            ("10.0.0.0/8:22", "::ffff:10.0.0.1", 22, true),
            ("[::/0]:22", "::ffff:10.0.0.1", 22, false),
            ("[fd00::/8]:*", "fd00::7", 443, true),
            ("10.0.0.7:22", "10.0.0.7", 22, true),
            ("10.0.0.7:22", "10.0.0.8", 22, false),
            ("*:22", "10.0.0.8", 22, true),
            ("plc.local:22", "10.0.0.8", 22, false),
        ] {
            let address = address.parse().expect(address);
            assert_eq!(
                pattern(text).allows_address(address, port),
                allowed,
                "{text} {address}"
            );
        }
    }

    #[test]
    fn each_fault_of_a_pattern_has_its_own_error() {
        for (text, error) in [
            ("plc.local", TargetPatternError::NoPort),
            ("plc.local:", TargetPatternError::NoPort),
            ("fd00::/8:22", TargetPatternError::NoPort),
            ("plc.local:0", TargetPatternError::Port),
            ("plc.local:70000", TargetPatternError::Port),
            ("plc.local:9-8", TargetPatternError::Port),
            ("plc.local:+8", TargetPatternError::Port),
            ("plc.local:8-", TargetPatternError::Port),
            ("[10.0.0.0/8]:22", TargetPatternError::Host),
            ("10.0.0.0/33:22", TargetPatternError::Host),
            ("10.0:22", TargetPatternError::Host),
            (":22", TargetPatternError::Host),
            ("a..b:22", TargetPatternError::Host),
            ("10.0.0.1/8:22", TargetPatternError::HostBits),
        ] {
            assert_eq!(text.parse::<TargetPattern>(), Err(error), "{text}");
        }
    }

    #[test]
    fn each_fault_of_a_socket_path_has_its_own_error() {
        assert_eq!(socket_path("run/a.sock"), Err(SocketPathError::Relative));
        assert_eq!(socket_path("/run/"), Err(SocketPathError::NoFile));
        assert_eq!(socket_path("/run/\0a"), Err(SocketPathError::NoFile));
        let long = format!("/{}", "a".repeat(107));
        assert_eq!(
            socket_path(&long),
            Err(SocketPathError::Long { got: 108, max: 107 })
        );
        assert_eq!(
            socket_path(&long[1..].replacen('a', "/", 1)),
            Ok(PathBuf::from(long[1..].replacen('a', "/", 1)))
        );
    }

    /// What the pattern means, without the care for its cost.
    fn matches_plainly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => {
                let stretch = text.iter().take_while(|byte| **byte != b'.').count();
                (0..=stretch).any(|count| matches_plainly(rest, &text[count..]))
            }
            Some((byte, rest)) => text.first() == Some(byte) && matches_plainly(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn stars_mean_what_they_say(pattern in "[ab.*]{0,8}", text in "[ab.]{0,10}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), matches_plainly(pattern, text));
        }

        #[test]
        fn any_text_never_panics_and_what_is_taken_round_trips(text in "\\PC{0,40}|[a-f0-9.:/*\\[\\]-]{0,24}") {
            if let Ok(parsed) = text.parse::<TargetPattern>() {
                prop_assert_eq!(parsed.to_string().parse(), Ok(parsed));
            }
        }
    }
}
