//! Addresses of network interfaces.
#![expect(
    unsafe_code,
    reason = "system calls; every function here upholds the contract of the one it wraps"
)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};

/// A list that the library has made and that it has to free.
struct List(*mut libc::ifaddrs);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list came from `getifaddrs`, and nothing of it is used any more.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

/// Returns the addresses of all interfaces that are up.
///
/// # Errors
/// The kernel's.
pub(crate) fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut first = ptr::null_mut();
    // SAFETY: `first` is a valid place for the one pointer the call writes.
    super::check(unsafe { libc::getifaddrs(&raw mut first) })?;
    let list = List(first);
    let mut addresses = Vec::new();
    let mut next = list.0;
    // SAFETY: each entry is valid until the list is freed, and the last has no next.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        let is_up = entry.ifa_flags & libc::IFF_UP.cast_unsigned() != 0;
        if let Some(address) = address(entry.ifa_addr).filter(|_| is_up) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn address(place: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: null, or an address of the list, which is not freed yet.
    let family = unsafe { place.as_ref() }?.sa_family;
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: its family says that it is one of these; the kernel's copy may be unaligned.
            let address = unsafe { place.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: its family says that it is one of these; the kernel's copy may be unaligned.
            let address = unsafe { place.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}
