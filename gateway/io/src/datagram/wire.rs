//! How the kernel writes addresses and what it says beside a datagram, read and written without trust in lengths.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes that hold any address (`sockaddr_in6`).
pub(crate) const NAME_SIZE: usize = 28;

/// Bytes that hold the one control message we ask for, `IP_PKTINFO` or `IPV6_PKTINFO`.
pub(crate) const CONTROL_SIZE: usize = 48;

/// Bytes before name, control and payload where a ring receives (`io_uring_recvmsg_out`).
pub(crate) const RECEIVED_HEADER_SIZE: usize = 16;

/// Reads a `sockaddr_in` or `sockaddr_in6`.
pub(crate) fn read_name(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes(name, 0)?);
    let port = u16::from_be_bytes(bytes(name, 2)?);
    match i32::from(family) {
        libc::AF_INET => Some((Ipv4Addr::from(bytes::<4>(name, 4)?), port).into()),
        libc::AF_INET6 => Some(SocketAddr::V6(SocketAddrV6::new(
            Ipv6Addr::from(bytes::<16>(name, 8)?),
            port,
            u32::from_ne_bytes(bytes(name, 4)?),
            u32::from_ne_bytes(bytes(name, 24)?),
        ))),
        _ => None,
    }
}

/// Writes a `sockaddr_in` or `sockaddr_in6` and returns its length.
pub(crate) fn write_name(addr: SocketAddr) -> ([u8; NAME_SIZE], usize) {
    let mut name = Writer::<NAME_SIZE>::new();
    match addr {
        SocketAddr::V4(addr) => {
            name.put(&family(libc::AF_INET).to_ne_bytes());
            name.put(&addr.port().to_be_bytes());
            name.put(&addr.ip().octets());
            name.put(&[0; 8]);
        }
        SocketAddr::V6(addr) => {
            name.put(&family(libc::AF_INET6).to_ne_bytes());
            name.put(&addr.port().to_be_bytes());
            name.put(&addr.flowinfo().to_ne_bytes());
            name.put(&addr.ip().octets());
            name.put(&addr.scope_id().to_ne_bytes());
        }
    }
    (name.bytes, name.length)
}

/// Finds in control messages (`cmsg(3)`) to which address of ours a datagram was sent.
pub(crate) fn read_local(mut control: &[u8]) -> Option<IpAddr> {
    loop {
        let length = usize::from_ne_bytes(bytes(control, 0)?);
        let level = i32::from_ne_bytes(bytes(control, size_of::<usize>())?);
        let kind = i32::from_ne_bytes(bytes(control, size_of::<usize>() + 4)?);
        let data = control.get(HEADER_SIZE..length)?;
        match (level, kind) {
            // `in_pktinfo`: interface, our address on it, the address in the datagram.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                return Some(Ipv4Addr::from(bytes::<4>(data, 8)?).into());
            }
            // `in6_pktinfo`: the address in the datagram, interface.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                return Some(Ipv6Addr::from(bytes::<16>(data, 0)?).into());
            }
            _ => control = control.get(length.next_multiple_of(ALIGNMENT)..)?,
        }
    }
}

/// Writes the control message that has a datagram leave from `local`, and returns its length with padding.
pub(crate) fn write_local(local: IpAddr) -> ([u8; CONTROL_SIZE], usize) {
    let mut control = Writer::<CONTROL_SIZE>::new();
    let (level, kind, size) = match local {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO, 12),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 20),
    };
    control.put(&(HEADER_SIZE + size).to_ne_bytes());
    control.put(&level.to_ne_bytes());
    control.put(&kind.to_ne_bytes());
    match local {
        IpAddr::V4(addr) => {
            control.put(&[0; 4]);
            control.put(&addr.octets());
            control.put(&[0; 4]);
        }
        IpAddr::V6(addr) => {
            control.put(&addr.octets());
            control.put(&[0; 4]);
        }
    }
    (control.bytes, control.length.next_multiple_of(ALIGNMENT))
}

/// What a ring's multishot receive has written into a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local: Option<IpAddr>,
    pub(crate) payload: &'a mut [u8],
}

/// Takes apart what a ring received into room for names of [`NAME_SIZE`] and control messages of [`CONTROL_SIZE`].
pub(crate) fn read_received(buffer: &mut [u8]) -> Option<Received<'_>> {
    let size = |at| Some(u32::from_ne_bytes(bytes(buffer, at)?) as usize);
    let (name_size, control_size, payload_size) = (size(0)?, size(4)?, size(8)?);
    let (head, payload) = buffer.split_at_mut_checked(RECEIVED_HEADER_SIZE + NAME_SIZE + CONTROL_SIZE)?;
    let (name, control) = head.get(RECEIVED_HEADER_SIZE..)?.split_at_checked(NAME_SIZE)?;
    Some(Received {
        remote: read_name(name.get(..name_size.min(NAME_SIZE))?),
        local: read_local(control.get(..control_size.min(CONTROL_SIZE))?),
        payload: payload.get_mut(..payload_size)?,
    })
}

fn bytes<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..)?.first_chunk().copied()
}

fn family(family: i32) -> u16 {
    u16::try_from(family).expect("families are small")
}

struct Writer<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Writer<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    fn put(&mut self, part: &[u8]) {
        self.bytes
            .get_mut(self.length..self.length + part.len())
            .expect("the sizes above leave room for all parts")
            .copy_from_slice(part);
        self.length += part.len();
    }
}

/// `cmsghdr`: length in a word, level, kind.
const HEADER_SIZE: usize = size_of::<usize>() + 8;

/// Control messages begin at multiples of a word.
const ALIGNMENT: usize = size_of::<usize>();

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
            any::<([u8; 16], u16, u32, u32)>().prop_map(|(ip, port, flow, scope)| {
                SocketAddrV6::new(ip.into(), port, flow, scope).into()
            }),
        ]
    }

    proptest! {
        #[test]
        fn names_are_read_as_written(addr in address()) {
            let (name, length) = write_name(addr);
            prop_assert_eq!(read_name(&name[..length]), Some(addr));
            prop_assert_eq!(read_name(&name[..length - 9]).is_some(), false);
            let system = socket2::SockAddr::from(addr);
            prop_assert_eq!(length, usize::try_from(system.len()).expect("small"));
        }

        #[test]
        fn local_addresses_are_read_where_they_stand(addr in address(), other in 0_usize..12) {
            let mut control = Vec::new();
            if other > 0 {
                control.extend_from_slice(&(HEADER_SIZE + other).to_ne_bytes());
                control.extend_from_slice(&[0xff; 8]);
                control.resize((HEADER_SIZE + other).next_multiple_of(ALIGNMENT), 0);
            }
            let (own, _) = write_local(addr.ip());
            control.extend_from_slice(&own);
            let expected = match addr.ip() {
                // Written is the address to leave from, read is the one in the datagram: other fields.
                IpAddr::V4(_) => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                ip @ IpAddr::V6(_) => Some(ip),
            };
            prop_assert_eq!(read_local(&control), expected);
        }

        #[test]
        fn any_bytes_are_read_without_panic(
            mut buffer in prop::collection::vec(any::<u8>(), 0..200),
            sizes in any::<[u8; 3]>(),
        ) {
            read_name(&buffer);
            read_local(&buffer);
            read_received(&mut buffer);
            for (at, size) in [0, 4, 8].into_iter().zip(sizes) {
                if let Some(field) = buffer.get_mut(at..at + 4) {
                    field.copy_from_slice(&u32::from(size).to_ne_bytes());
                }
            }
            read_received(&mut buffer);
        }
    }

    #[test]
    fn a_received_datagram_is_taken_apart() {
        let remote: SocketAddr = "[fe80::1%3]:5683".parse().expect("an address");
        let mut buffer = Vec::new();
        for size in [NAME_SIZE, HEADER_SIZE + 20, 5, 0] {
            buffer.extend_from_slice(&u32::try_from(size).expect("small").to_ne_bytes());
        }
        buffer.extend_from_slice(&write_name(remote).0);
        buffer.extend_from_slice(&write_local("2001:db8::7".parse().expect("an address")).0);
        buffer.extend_from_slice(b"helloXXX");
        let received = read_received(&mut buffer).expect("it is whole");
        assert_eq!(received.remote, Some(remote));
        assert_eq!(received.local, Some("2001:db8::7".parse().expect("an address")));
        assert_eq!(received.payload, b"hello");
    }
}
