//! TLS with pre-shared keys towards devices, by the system's OpenSSL, as rustls has none.
//!
//! TLS 1.2 with ECDHE-PSK, DHE-PSK and PSK (RFC 4279, RFC 5487, RFC 5489, RFC 7905), TLS 1.3 with external keys (RFC 8446 §2.2).
//! Only ciphers with authentication of their own (AEAD). Nothing is resumed and nothing renegotiated.
//!
//! An unknown identity gets a key that nobody has: from outside it looks like a wrong key, with the same alert at the same step
//! (RFC 4279 §2), and takes the same time. Identities are found by their MAC under a key of this process, so no comparison tells
//! how much of one was right.

#[cfg(feature = "tls-psk")]
mod keys;
#[cfg(feature = "tls-psk")]
mod openssl_connection;

use std::sync::Arc;

use fieldgate_adapters::device::Device;
use zeroize::Zeroizing;

#[cfg(feature = "tls-psk")]
pub(super) use openssl_connection::Psk;
#[cfg(feature = "tls-psk")]
pub(crate) use openssl_connection::{Acceptor, PskError};
#[cfg(not(feature = "tls-psk"))]
pub(super) use without::Psk;
#[cfg(not(feature = "tls-psk"))]
pub(crate) use without::{Acceptor, PskError};

/// The key of a device. `Debug` is left out: it would show it.
#[cfg_attr(
    not(feature = "tls-psk"),
    expect(dead_code, reason = "without OpenSSL nobody reads keys")
)]
pub(crate) struct DeviceKey {
    /// The identity that the device names.
    pub(crate) identity: String,
    /// 16 to 64 bytes.
    pub(crate) key: Zeroizing<Vec<u8>>,
    /// Who it is then.
    pub(crate) device: Arc<Device>,
}

/// Least and greatest length of a key in bytes: what guessing cannot reach, and what every implementation takes (RFC 4279 §5.3).
pub(crate) const KEY_LEN: std::ops::RangeInclusive<usize> = 16..=64;

/// A binary without OpenSSL.
#[cfg(not(feature = "tls-psk"))]
mod without {
    use std::sync::Arc;

    use fieldgate_adapters::device::Device;

    use super::DeviceKey;
    use crate::runtime::{StartError, transport::Take};

    #[derive(Clone)]
    pub(crate) enum Acceptor {}

    impl Acceptor {
        /// Says that this binary cannot.
        pub(crate) fn new(_keys: Vec<DeviceKey>) -> Result<Self, StartError> {
            Err(
                StartError::new("[mqtt.psk]: this fieldgate was built without TLS-PSK").hint(
                    "install one that was built with the feature `tls-psk`, or give the devices certificates",
                ),
            )
        }

        pub(in crate::runtime::transport) const fn open(&self) -> Result<Psk, PskError> {
            match *self {}
        }
    }

    #[derive(Debug, thiserror::Error)]
    pub(crate) enum PskError {}

    pub(in crate::runtime::transport) enum Psk {}

    impl Psk {
        pub(in crate::runtime::transport) fn receive(
            &mut self,
            _bytes: &[u8],
            _out: &mut Vec<u8>,
            _take: &mut Take<'_>,
        ) -> Result<(), PskError> {
            match *self {}
        }

        pub(in crate::runtime::transport) fn send(&mut self, _plain: &[u8], _out: &mut Vec<u8>) {
            match *self {}
        }

        pub(in crate::runtime::transport) fn close(&mut self, _out: &mut Vec<u8>) {
            match *self {}
        }

        pub(in crate::runtime::transport) fn device(&self) -> Option<&Arc<Device>> {
            match *self {}
        }
    }
}
