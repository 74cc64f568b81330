//! Free ports, for listeners that must keep their port over a restart.

use std::{
    net::{TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

/// Returns a port of 127.0.0.1 that nobody listens on, over TCP or UDP.
///
/// It lies below the range that the kernel gives to outgoing connections, so that none takes it in the meantime, and is given
/// out once in this process.
///
/// # Panics
/// If every port is taken.
pub(crate) fn free() -> u16 {
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(start());
        let port = FIRST + offset % COUNT;
        let address = ("127.0.0.1", port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

/// Where this process begins, so that two at the same time seldom meet.
fn start() -> u16 {
    u16::try_from(std::process::id() * 211 % u32::from(COUNT)).expect("the remainder fits")
}

static NEXT: AtomicU16 = AtomicU16::new(0);
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
