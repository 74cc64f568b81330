//! Addresses at which nodes may reach each other without a relay, and the frame that tells them (PROTOCOL.md §19).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::{IpAddr, SocketAddr};

use crate::{
    channel::put_frame,
    wire::{Reader, WireError},
};

/// Kind of [`Candidates`] in a record.
pub const CANDIDATES: u8 = 0x60;

/// Addresses that one node tells another.
pub const CANDIDATES_MAX: usize = 8;

/// Addresses of a node at which it takes QUIC, or sends from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Of the attempt that they are for; 0 in an unasked message: they are not those told last.
    pub attempt: u32,
    /// At most [`CANDIDATES_MAX`].
    pub addresses: Vec<SocketAddr>,
}

impl Candidates {
    /// Reads the body of a frame of kind [`CANDIDATES`].
    ///
    /// # Errors
    /// [`WireError`] for a body of another form.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let attempt = reader.u32("attempt")?;
        let count = reader.u8("count")?;
        if usize::from(count) > CANDIDATES_MAX {
            return Err(WireError::Value {
                field: "count",
                value: u64::from(count),
            });
        }
        let mut addresses = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            addresses.push(read_address(&mut reader)?);
        }
        reader.finish()?;
        Ok(Self { attempt, addresses })
    }

    /// Appends the whole frame to the plaintext of a record; addresses behind the first [`CANDIDATES_MAX`] are left out.
    pub fn put(&self, out: &mut Vec<u8>) {
        let told = self.addresses.iter().take(CANDIDATES_MAX);
        let mut body = self.attempt.to_be_bytes().to_vec();
        body.push(u8::try_from(told.len()).unwrap_or_default());
        for address in told {
            put_address(&mut body, *address);
        }
        put_frame(out, CANDIDATES, &body);
    }
}

/// Appends an address: `u8 4 or 6 | 4 or 16 address | u16 port`.
pub(crate) fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

/// Reads what [`put_address`] writes.
///
/// # Errors
/// [`WireError`] for another form.
pub(crate) fn read_address(reader: &mut Reader<'_>) -> Result<SocketAddr, WireError> {
    let ip: IpAddr = match reader.u8("family")? {
        4 => reader.array::<4>("address")?.into(),
        6 => reader.array::<16>("address")?.into(),
        family => {
            return Err(WireError::Value {
                field: "family",
                value: u64::from(family),
            });
        }
    };
    Ok(SocketAddr::new(ip, reader.u16("port")?))
}

/// A range of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The lowest.
    pub first: IpAddr,
    /// The highest, of the same family.
    pub last: IpAddr,
}

impl Range {
    /// Returns whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    fn is_loopback(&self) -> bool {
        self.first.is_loopback() && self.last.is_loopback()
    }
}

/// Returns whether a node may be told of, or dial, an address: in one of the ranges, of one host, and no port that systems keep for
/// themselves. Loopback only where a range is of nothing else.
#[must_use]
pub fn is_allowed(ranges: &[Range], address: SocketAddr) -> bool {
    let ip = address.ip();
    let is_of_one_host = match ip {
        IpAddr::V4(ip) => {
            let is_nothing = ip.octets().first() == Some(&0);
            !is_nothing && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_link_local()
        }
        // Mapped addresses would be a way around ranges of IPv4.
        IpAddr::V6(ip) => {
            let is_nothing = ip.is_unspecified() || ip.to_ipv4_mapped().is_some();
            !is_nothing && !ip.is_multicast() && !ip.is_unicast_link_local()
        }
    };
    let allows = |range: &Range| range.contains(ip) && (!ip.is_loopback() || range.is_loopback());
    is_of_one_host && address.port() >= PORT_MIN && ranges.iter().any(allows)
}

/// Ports below are those of services that nobody should be led to.
const PORT_MIN: u16 = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: &str, last: &str) -> Range {
        Range {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        }
    }

    fn everything() -> [Range; 2] {
        [
            range("0.0.0.0", "255.255.255.255"),
            range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ]
    }

    #[test]
    fn what_is_no_address_of_one_host_is_never_allowed() {
        let ranges = everything();
        for good in [
            "10.0.0.1:4433",
            "203.0.113.9:1024",
            "[2001:db8::1]:65535",
            "[fd00::1]:5000",
        ] {
            assert!(is_allowed(&ranges, good.parse().unwrap()), "{good}");
        }
        for bad in [
            "0.0.0.0:4433",
            "0.1.2.3:4433",
            "127.0.0.1:4433",
            "169.254.1.1:4433",
            "224.0.0.1:4433",
            "255.255.255.255:4433",
            "10.0.0.1:0",
            "10.0.0.1:1023",
            "[::]:4433",
            "[::1]:4433",
            "[fe80::1]:4433",
            "[ff02::1]:4433",
            "[::ffff:10.0.0.1]:4433",
        ] {
            assert!(!is_allowed(&ranges, bad.parse().unwrap()), "{bad}");
        }
        let loopback = [range("127.0.0.0", "127.255.255.255")];
        assert!(is_allowed(&loopback, "127.0.0.1:4433".parse().unwrap()));
        assert!(!is_allowed(&loopback, "10.0.0.1:4433".parse().unwrap()));
        let plant = [range("10.1.0.0", "10.1.255.255")];
        assert!(is_allowed(&plant, "10.1.2.3:4433".parse().unwrap()));
        assert!(!is_allowed(&plant, "10.2.0.1:4433".parse().unwrap()));
        assert!(!is_allowed(&[], "10.1.2.3:4433".parse().unwrap()));
    }

    #[test]
    fn too_many_and_other_families_are_malformed() {
        let mut many = vec![0, 0, 0, 1, 9];
        for _ in 0..9 {
            put_address(&mut many, "10.0.0.1:1".parse().unwrap());
        }
        assert!(Candidates::decode(&many).is_err());
        assert!(Candidates::decode(&[0, 0, 0, 1, 1, 5, 1, 2, 3, 4, 0, 1]).is_err());
        assert!(Candidates::decode(&[0, 0, 0, 1, 0, 0]).is_err(), "bytes behind");
    }

    proptest! {
        #[test]
        fn frames_survive_the_wire(
            attempt: u32,
            addresses in proptest::collection::vec(any::<(IpAddr, u16)>(), 0..=CANDIDATES_MAX),
        ) {
            let addresses = addresses.into_iter().map(|(ip, port)| SocketAddr::new(ip, port)).collect();
            let candidates = Candidates { attempt, addresses };
            let mut out = Vec::new();
            candidates.put(&mut out);
            let (kind, body) = crate::channel::frames(&out).next().unwrap().unwrap();
            prop_assert_eq!(kind, CANDIDATES);
            prop_assert_eq!(Candidates::decode(body).unwrap(), candidates);
        }

        #[test]
        fn whatever_comes_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(candidates) = Candidates::decode(&body) {
                let mut out = Vec::new();
                candidates.put(&mut out);
                prop_assert_eq!(out.get(3..).unwrap(), body.as_slice());
            }
        }
    }
}
