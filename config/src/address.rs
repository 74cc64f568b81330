//! Network addresses to connect to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::target::{SocketPathError, socket_path};

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

/// Where a node takes links, and over what: `relay.example.net:4433`, `quic://relay.example.net:4433`, `wss://relay.example.net/`,
/// `unix:/run/fieldgate/link.sock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkAddress {
    /// Over TCP.
    Tcp(HostPort),
    /// Over QUIC.
    Quic(HostPort),
    /// Over a WebSocket.
    WebSocket(WebSocketAddress),
    /// Over a UNIX socket of this machine, by its absolute path of at most 107 bytes.
    Unix(PathBuf),
}

/// A `wss` or `ws` URL without user information, query and fragment (RFC 6455 §3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WebSocketAddress {
    /// Whether it is `wss`. Otherwise the host is this machine.
    pub is_tls: bool,
    /// Host and port.
    pub address: HostPort,
    /// Path, beginning with `/`.
    pub path: String,
}

impl From<HostPort> for LinkAddress {
    fn from(address: HostPort) -> Self {
        Self::Tcp(address)
    }
}

impl WebSocketAddress {
    /// Returns host, and port if it is not the usual one: the header `Host`.
    #[must_use]
    pub fn authority(&self) -> String {
        let text = self.address.to_string();
        let usual = if self.is_tls { ":443" } else { ":80" };
        match text.strip_suffix(usual) {
            Some(host) => host.to_owned(),
            None => text,
        }
    }
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Quic(address) => write!(f, "quic://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::WebSocket(url) => {
                let scheme = if url.is_tls { "wss" } else { "ws" };
                write!(f, "{scheme}://{}{}", url.authority(), url.path)
            }
        }
    }
}

/// Why a text is no address for links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkAddressError {
    /// Host or port.
    #[error(transparent)]
    Host(#[from] HostPortError),
    /// A URL of another scheme.
    #[error("is a URL, but neither of `quic` nor of `wss`")]
    Scheme,
    /// What follows `unix:` is no path of a socket.
    #[error(transparent)]
    Socket(#[from] SocketPathError),
    /// A user, a query, a fragment or a character that paths do not have.
    #[error("has a user name, a query, a fragment or a character that a path does not have")]
    Path,
    /// `ws` to another machine.
    #[error("is `ws`, but leads to another machine")]
    Plain,
}

impl LinkAddressError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Host(HostPortError::NoPort) => {
                "write host:port, such as \"relay.example.net:4433\" or \"[fd00::2]:4433\""
            }
            Self::Host(HostPortError::Port) => "choose a port from 1 to 65535",
            Self::Host(HostPortError::Host) => {
                "write a host name, an IPv4 address, or an IPv6 address in brackets"
            }
            Self::Scheme => "write host:port for TCP, \"quic://host:port\" or \"wss://host/path\"",
            Self::Socket(SocketPathError::Relative | SocketPathError::NoFile) => {
                "write where the socket stands, such as \"unix:/run/fieldgate/link.sock\""
            }
            Self::Socket(SocketPathError::Long { .. }) => "choose a shorter path",
            Self::Path => "write scheme, host and path only, such as \"wss://relay.example.net/links\"",
            Self::Plain => "write wss://: without TLS few networks let a WebSocket through unharmed",
        }
    }
}

impl FromStr for LinkAddress {
    type Err = LinkAddressError;

    fn from_str(text: &str) -> Result<Self, LinkAddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(socket_path(path)?));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Tcp(text.parse()?));
        };
        let (is_tls, usual_port) = match scheme {
            "wss" => (true, 443),
            "ws" => (false, 80),
            "quic" => return Ok(Self::Quic(rest.parse()?)),
            _ => return Err(LinkAddressError::Scheme),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_path_byte =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~' | b'%');
        if authority.contains(['@', '?', '#']) || path.len() > PATH_LEN_MAX || !path.bytes().all(is_path_byte)
        {
            return Err(LinkAddressError::Path);
        }
        let address: HostPort = match authority.parse() {
            Err(HostPortError::NoPort) => format!("{authority}:{usual_port}").parse()?,
            other => other?,
        };
        if !is_tls && !address.is_loopback() {
            return Err(LinkAddressError::Plain);
        }
        Ok(Self::WebSocket(WebSocketAddress {
            is_tls,
            address,
            path: if path.is_empty() { "/" } else { path }.to_owned(),
        }))
    }
}

/// Longest path of a URL, in bytes.
const PATH_LEN_MAX: usize = 255;

/// A range of IP addresses, written `10.77.0.0/24`; an address alone is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    /// The lowest address of the range.
    base: IpAddr,
    /// Bits that all addresses of the range share: at most 32, for IPv6 at most 128.
    prefix_len: u8,
}

/// Why a text is not a range of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// What stands before the slash is no IP address.
    #[error("does not begin with an IP address")]
    Address,
    /// What stands behind the slash is no number of bits that the address has.
    #[error("has a prefix length outside 0..={max}")]
    PrefixLen {
        /// Bits of the address.
        max: u8,
    },
    /// The address has bits behind the prefix: it is one of the range, not the range.
    #[error("has bits behind its prefix")]
    Host {
        /// The range that it is an address of.
        network: Network,
    },
}

impl Network {
    /// Returns whether `address` is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_ipv4() == address.is_ipv4() && Self::of(address, self.prefix_len).base == self.base
    }

    /// Returns the lowest address of the range.
    #[must_use]
    pub const fn first(&self) -> IpAddr {
        self.base
    }

    /// Returns the highest address of the range.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => {
                let rest = u32::MAX.checked_shr(u32::from(self.prefix_len)).unwrap_or(0);
                IpAddr::V4((base.to_bits() | rest).into())
            }
            IpAddr::V6(base) => {
                let rest = u128::MAX.checked_shr(u32::from(self.prefix_len)).unwrap_or(0);
                IpAddr::V6((base.to_bits() | rest).into())
            }
        }
    }

    /// Returns whether it is a range of IPv4 addresses.
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        self.base.is_ipv4()
    }

    /// Returns the range of this prefix length in which `address` is; the length fits the address.
    fn of(address: IpAddr, prefix_len: u8) -> Self {
        let base = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0);
                IpAddr::V4((address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0);
                IpAddr::V6((address.to_bits() & mask).into())
            }
        };
        Self { base, prefix_len }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_len)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix_len) = match text.split_once('/') {
            Some((address, prefix_len)) => (address, Some(prefix_len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = match prefix_len {
            None => max,
            Some(text) => {
                let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let number = text.parse().ok().filter(|number| is_number && *number <= max);
                number.ok_or(NetworkError::PrefixLen { max })?
            }
        };
        let network = Self::of(address, prefix_len);
        if network.base == address {
            Ok(network)
        } else {
            Err(NetworkError::Host { network })
        }
    }
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
    fn networks_have_a_first_and_a_last_address() {
        for (text, first, last) in [
            ("10.77.0.0/24", "10.77.0.0", "10.77.0.255"),
            ("10.77.0.9", "10.77.0.9", "10.77.0.9"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("fd00::/8", "fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::1/128", "::1", "::1"),
        ] {
            let network: Network = text.parse().expect(text);
            assert_eq!(
                (network.first().to_string(), network.last().to_string()),
                (first.into(), last.into())
            );
        }
    }

    #[test]
    fn links_have_addresses_of_several_forms() {
        for (text, shown) in [
            ("relay.example.net:4433", "relay.example.net:4433"),
            ("wss://Relay.Example.net", "wss://relay.example.net/"),
            ("wss://relay.example.net:443/", "wss://relay.example.net/"),
            ("wss://[fd00::2]:8443/a/b", "wss://[fd00::2]:8443/a/b"),
            ("ws://127.0.0.1:8080/x", "ws://127.0.0.1:8080/x"),
            ("ws://localhost", "ws://localhost/"),
            ("quic://Relay.Example.net:4433", "quic://relay.example.net:4433"),
            ("quic://[fd00::2]:4433", "quic://[fd00::2]:4433"),
            ("unix:/run/fieldgate/link.sock", "unix:/run/fieldgate/link.sock"),
        ] {
            let address: LinkAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address));
        }
        let LinkAddress::WebSocket(url) = "wss://relay.example.net/links".parse().expect("a URL") else {
            panic!("it is no TCP");
        };
        assert_eq!(
            (url.authority().as_str(), url.address.port()),
            ("relay.example.net", 443)
        );
    }

    #[test]
    fn what_is_no_address_of_links_is_refused_with_a_reason() {
        for (text, error) in [
            ("relay", LinkAddressError::Host(HostPortError::NoPort)),
            ("wss://", LinkAddressError::Host(HostPortError::Host)),
            ("wss://relay:0/", LinkAddressError::Host(HostPortError::Port)),
            ("https://relay/", LinkAddressError::Scheme),
            ("quic://relay", LinkAddressError::Host(HostPortError::NoPort)),
            ("quic://relay:4433/", LinkAddressError::Host(HostPortError::Port)),
            (
                "unix:run/link.sock",
                LinkAddressError::Socket(SocketPathError::Relative),
            ),
            ("unix:/run/", LinkAddressError::Socket(SocketPathError::NoFile)),
            ("wss://user@relay/", LinkAddressError::Path),
            ("wss://relay?x=1", LinkAddressError::Path),
            ("wss://relay/?x=1", LinkAddressError::Path),
            ("wss://relay/a b", LinkAddressError::Path),
            ("wss://relay/a\r\nHost: x", LinkAddressError::Path),
            ("ws://relay.example.net/", LinkAddressError::Plain),
        ] {
            assert_eq!(text.parse::<LinkAddress>(), Err(error), "{text}");
            assert!(!error.hint().is_empty());
        }
    }

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

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let cases = [
            ("10.77.0.0/24", "10.77.0.255", "10.77.1.0"),
            ("0.0.0.0/0", "255.0.0.1", "::1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("::1/128", "::1", "::2"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "fd00::2", "10.0.0.1"),
        ];
        for (text, inside, outside) in cases {
            let network: Network = text.parse().expect(text);
            assert!(network.contains(inside.parse().expect(inside)), "{text} {inside}");
            assert!(
                !network.contains(outside.parse().expect(outside)),
                "{text} {outside}"
            );
            assert_eq!(network.to_string().parse(), Ok(network));
        }
    }

    #[test]
    fn each_fault_of_a_network_has_its_own_error() {
        for (text, error) in [
            ("hall-3", NetworkError::Address),
            ("10.0.0.0/", NetworkError::PrefixLen { max: 32 }),
            ("10.0.0.0/33", NetworkError::PrefixLen { max: 32 }),
            ("10.0.0.0/+8", NetworkError::PrefixLen { max: 32 }),
            ("fd00::/129", NetworkError::PrefixLen { max: 128 }),
            (
                "10.77.0.2/24",
                NetworkError::Host {
                    network: "10.77.0.0/24".parse().expect("it is one"),
                },
            ),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_network_text_never_panics_and_what_is_taken_round_trips(text in "[0-9a-f.:/]{0,24}") {
            if let Ok(parsed) = text.parse::<Network>() {
                prop_assert_eq!(parsed.to_string().parse(), Ok(parsed));
            }
        }

        #[test]
        fn any_text_never_panics_and_what_is_taken_round_trips(text in "\\PC{0,40}") {
            if let Ok(parsed) = text.parse::<HostPort>() {
                prop_assert_eq!(parsed.to_string().parse(), Ok(parsed));
            }
        }
    }
}
