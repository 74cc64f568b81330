//! The PROXY protocol: the first bytes of a connection tell for whom it was made.
//!
//! Versions 1 and 2 of HAProxy's specification, for TCP. Version 1 is a line of text, version 2 a header of binary fields.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::wire::{Reader, WireError};

/// Which form of header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text (§2.1).
    V1,
    /// Binary (§2.2).
    V2,
}

/// For whom a connection was made, and where they connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Who connected.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
}

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header; what follows is of the connection itself.
    pub len: usize,
    /// `None` where the sender made the connection for itself, such as to see whether somebody answers, or does not say for whom.
    pub endpoints: Option<Endpoints>,
}

/// Why the first bytes of a connection are no header. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// They are something else.
    #[error("the connection does not begin with a PROXY header")]
    Absent,
    /// The header is longer than is taken.
    #[error("the PROXY header has more than {max} bytes")]
    TooLong {
        /// Longest that is taken.
        max: usize,
    },
    /// A line without the fields that it needs.
    #[error("the PROXY line has not the fields of TCP4, TCP6 or UNKNOWN")]
    Line,
    /// A binary header with fields that do not fit.
    #[error("the PROXY header is malformed")]
    Wire(#[from] WireError),
}

impl ProxyError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Absent => "have the load balancer send the header, or take it out of `accept_proxy_from`",
            Self::TooLong { .. } => "have the load balancer send fewer extensions (TLV)",
            Self::Line | Self::Wire(_) => "see what the load balancer sends",
        }
    }
}

/// Longest header that is taken, extensions included, in bytes.
pub const HEADER_LEN_MAX: usize = 2_048;

/// Reads a header from the first bytes of a connection; `None` if more of them are needed.
///
/// # Errors
/// [`ProxyError`]: nothing on this connection can be believed.
pub fn decode(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let common = |with: &[u8]| bytes.iter().zip(with).take_while(|(a, b)| a == b).count();
    let goes_on = |with: &[u8]| common(with) == bytes.len().min(with.len());
    if goes_on(LINE_BEGIN) {
        decode_line(bytes)
    } else if goes_on(SIGNATURE) {
        decode_binary(bytes)
    } else {
        Err(ProxyError::Absent)
    }
}

fn decode_line(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let head = bytes.get(..LINE_LEN_MAX).unwrap_or(bytes);
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_LEN_MAX {
            Ok(None)
        } else {
            Err(ProxyError::TooLong { max: LINE_LEN_MAX })
        };
    };
    let line = head.get(..end).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Line)?;
    let mut fields = line.split(' ').skip(1);
    let endpoints = match fields.next() {
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(line_endpoints::<Ipv4Addr>(fields)?),
        Some("TCP6") => Some(line_endpoints::<Ipv6Addr>(fields)?),
        Some(_) | None => return Err(ProxyError::Line),
    };
    Ok(Some(Header {
        len: end.saturating_add(2),
        endpoints,
    }))
}

fn line_endpoints<'a, A>(mut fields: impl Iterator<Item = &'a str>) -> Result<Endpoints, ProxyError>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut address = || fields.next().and_then(|text| text.parse::<A>().ok()).map(A::into);
    let (source, destination) = (address(), address());
    let mut port = || fields.next().and_then(port);
    let (source_port, destination_port) = (port(), port());
    let endpoints = Endpoints {
        source: SocketAddr::new(
            source.ok_or(ProxyError::Line)?,
            source_port.ok_or(ProxyError::Line)?,
        ),
        destination: SocketAddr::new(
            destination.ok_or(ProxyError::Line)?,
            destination_port.ok_or(ProxyError::Line)?,
        ),
    };
    match fields.next() {
        None => Ok(endpoints),
        Some(_) => Err(ProxyError::Line),
    }
}

/// A port as the specification writes it: decimal digits without leading zeroes.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn decode_binary(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let mut reader = Reader::new(bytes);
    if bytes.len() < BINARY_HEAD_LEN {
        return Ok(None);
    }
    reader.bytes("signature", SIGNATURE.len())?;
    let command = reader.u8("version and command")?;
    let family = reader.u8("family and protocol")?;
    let body_len = usize::from(reader.u16("length")?);
    let len = BINARY_HEAD_LEN.saturating_add(body_len);
    if len > HEADER_LEN_MAX {
        return Err(ProxyError::TooLong { max: HEADER_LEN_MAX });
    }
    if command != COMMAND_PROXY && command != COMMAND_LOCAL {
        return Err(ProxyError::Wire(WireError::Value {
            field: "version and command",
            value: u64::from(command),
        }));
    }
    if bytes.len() < len {
        return Ok(None);
    }
    let mut body = Reader::new(reader.bytes("addresses", body_len)?);
    // What follows the addresses are extensions, which nothing here needs.
    let endpoints = match (command, family) {
        (COMMAND_PROXY, TCP4) => {
            let (source, destination) = (body.array::<4>("source")?, body.array::<4>("destination")?);
            Some((IpAddr::from(source), IpAddr::from(destination)))
        }
        (COMMAND_PROXY, TCP6) => {
            let (source, destination) = (body.array::<16>("source")?, body.array::<16>("destination")?);
            Some((IpAddr::from(source), IpAddr::from(destination)))
        }
        // UNIX sockets, datagrams, and what may come later: for whom is not told in a form that means something here.
        (_, _) => None,
    };
    let endpoints = match endpoints {
        Some((source, destination)) => Some(Endpoints {
            source: SocketAddr::new(source, body.u16("source port")?),
            destination: SocketAddr::new(destination, body.u16("destination port")?),
        }),
        None => None,
    };
    Ok(Some(Header { len, endpoints }))
}

/// Appends a header; without endpoints one that says that nobody knows for whom. Addresses of two families are written as IPv6.
pub fn put(version: ProxyVersion, endpoints: Option<Endpoints>, out: &mut Vec<u8>) {
    let endpoints = endpoints.map(|endpoints| {
        if endpoints.source.is_ipv4() == endpoints.destination.is_ipv4() {
            endpoints
        } else {
            Endpoints {
                source: mapped(endpoints.source),
                destination: mapped(endpoints.destination),
            }
        }
    });
    match version {
        ProxyVersion::V1 => put_line(endpoints, out),
        ProxyVersion::V2 => put_binary(endpoints, out),
    }
}

/// The IPv6 form of an address.
fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), address.port())
}

fn put_line(endpoints: Option<Endpoints>, out: &mut Vec<u8>) {
    let line = match endpoints {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some(Endpoints { source, destination }) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            format!(
                "PROXY {family} {} {} {} {}\r\n",
                source.ip(),
                destination.ip(),
                source.port(),
                destination.port()
            )
        }
    };
    out.extend_from_slice(line.as_bytes());
}

fn put_binary(endpoints: Option<Endpoints>, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    let Some(Endpoints { source, destination }) = endpoints else {
        out.extend_from_slice(&[COMMAND_LOCAL, UNSPECIFIED, 0, 0]);
        return;
    };
    let (family, len): (u8, u16) = if source.is_ipv4() { (TCP4, 12) } else { (TCP6, 36) };
    out.extend_from_slice(&[COMMAND_PROXY, family]);
    out.extend_from_slice(&len.to_be_bytes());
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    for address in [source, destination] {
        out.extend_from_slice(&address.port().to_be_bytes());
    }
}

/// How a line begins.
const LINE_BEGIN: &[u8] = b"PROXY ";
/// Longest line, its end included (§2.1).
const LINE_LEN_MAX: usize = 107;
/// How a binary header begins (§2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a binary header before its addresses.
const BINARY_HEAD_LEN: usize = 16;
/// Version 2, for somebody else.
const COMMAND_PROXY: u8 = 0x21;
/// Version 2, for the sender itself.
const COMMAND_LOCAL: u8 = 0x20;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoints(source: &str, destination: &str) -> Endpoints {
        Endpoints {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn lines_are_read() {
        let cases: [(&[u8], _); 4] = [
            (
                b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\nrest",
                Some(endpoints("192.0.2.7:56324", "192.0.2.1:443")),
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\nrest",
                Some(endpoints("[2001:db8::7]:1", "[::1]:65535")),
            ),
            (b"PROXY UNKNOWN\r\nrest", None),
            (b"PROXY UNKNOWN ffff:: 1 and more\r\nrest", None),
        ];
        for (bytes, endpoints) in cases {
            let len = bytes.len() - 4;
            assert_eq!(decode(bytes), Ok(Some(Header { len, endpoints })));
            for cut in 0..len {
                assert_eq!(decode(&bytes[..cut]), Ok(None), "{cut}");
            }
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for bytes in [
            &b"PROXY TCP4 192.0.2.7 192.0.2.1 56324\r\n"[..],
            b"PROXY TCP4 192.0.2.7 ::1 56324 443\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 056324 443\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 +5 443\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 5 70000\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 5 443 6\r\n",
            b"PROXY  TCP4 192.0.2.7 192.0.2.1 5 443\r\n",
            b"PROXY tcp4 192.0.2.7 192.0.2.1 5 443\r\n",
            b"PROXY \xff\r\n",
        ] {
            assert_eq!(decode(bytes), Err(ProxyError::Line), "{}", bytes.escape_ascii());
        }
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PROXX ", b"\r\n\r\nX"] {
            assert_eq!(decode(bytes), Err(ProxyError::Absent));
        }
        let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
        assert_eq!(decode(&endless), Err(ProxyError::TooLong { max: LINE_LEN_MAX }));
    }

    #[test]
    fn binary_headers_are_as_the_specification_draws_them() {
        let mut header = Vec::new();
        put(
            ProxyVersion::V2,
            Some(endpoints("192.0.2.7:256", "192.0.2.1:443")),
            &mut header,
        );
        let drawn = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\x01\x00\x01\xbb";
        assert_eq!(header, drawn);
        let mut local = Vec::new();
        put(ProxyVersion::V2, None, &mut local);
        assert_eq!(
            decode(&local),
            Ok(Some(Header {
                len: 16,
                endpoints: None
            }))
        );
        // Extensions behind the addresses are passed over.
        header[15] = 12 + 5;
        header.extend_from_slice(&[4, 0, 2, 1, 2]);
        let read = decode(&header).unwrap().unwrap();
        assert_eq!((read.len, read.endpoints.is_some()), (33, true));
    }

    #[test]
    fn binary_headers_that_do_not_fit_are_refused() {
        let mut header = Vec::new();
        put(ProxyVersion::V2, None, &mut header);
        let with = |at: usize, value: u8| {
            let mut header = header.clone();
            header[at] = value;
            decode(&header)
        };
        assert!(matches!(with(12, 0x31), Err(ProxyError::Wire(_))));
        assert!(matches!(with(12, 0x22), Err(ProxyError::Wire(_))));
        assert_eq!(with(14, 0x10), Err(ProxyError::TooLong { max: HEADER_LEN_MAX }));
        // For somebody, whose addresses are cut off.
        header[12] = 0x21;
        header[13] = TCP4;
        assert!(matches!(decode(&header), Err(ProxyError::Wire(_))));
    }

    #[test]
    fn two_families_are_written_as_one() {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let mut header = Vec::new();
            put(
                version,
                Some(endpoints("192.0.2.7:1", "[2001:db8::1]:2")),
                &mut header,
            );
            let read = decode(&header).unwrap().unwrap().endpoints.unwrap();
            assert_eq!(read, endpoints("[::ffff:192.0.2.7]:1", "[2001:db8::1]:2"));
        }
    }

    proptest! {
        #[test]
        fn headers_are_read_as_they_were_written(
            v1: bool,
            v6: bool,
            addresses: [[u8; 16]; 2],
            ports: [u16; 2],
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let version = if v1 { ProxyVersion::V1 } else { ProxyVersion::V2 };
            let address = |which: usize| {
                let ip: IpAddr = if v6 {
                    addresses[which].into()
                } else {
                    let mut four = [0; 4];
                    four.copy_from_slice(&addresses[which][..4]);
                    four.into()
                };
                SocketAddr::new(ip, ports[which])
            };
            let endpoints = Endpoints { source: address(0), destination: address(1) };
            let mut header = Vec::new();
            put(version, Some(endpoints), &mut header);
            let len = header.len();
            header.extend_from_slice(&rest);
            prop_assert_eq!(decode(&header), Ok(Some(Header { len, endpoints: Some(endpoints) })));
            for cut in 0..len {
                prop_assert_eq!(decode(&header[..cut]), Ok(None));
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..200), signed: bool) {
            if signed {
                bytes.splice(0..0, SIGNATURE.iter().copied());
            }
            if let Ok(Some(header)) = decode(&bytes) {
                prop_assert!(header.len <= bytes.len());
            }
        }
    }
}
