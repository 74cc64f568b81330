//! Addresses of this machine.

use std::{io, net::IpAddr};

/// Returns the addresses of all network interfaces that are up, those of the machine itself (loopback) included.
///
/// # Errors
/// The kernel's.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    crate::sys::interfaces::addresses()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    #[test]
    fn loopback_is_one_of_them() {
        let addresses = super::addresses().expect("the kernel tells");
        assert!(addresses.contains(&Ipv4Addr::LOCALHOST.into()), "{addresses:?}");
    }
}
