//! OpenSSL over memory.

use std::{
    fmt,
    io::{self, Read, Write},
    sync::Arc,
};

use fieldgate_adapters::device::Device;
use fieldgate_proto::entropy::Entropy as _;
use openssl::{
    bn::BigNum,
    dh::Dh,
    error::ErrorStack,
    ex_data::Index,
    ssl::{
        ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
        SslStream, SslVerifyMode, SslVersion,
    },
};
use zeroize::Zeroizing;

use super::{DeviceKey, keys::Keys};
use crate::runtime::{StartError, entropy::SystemEntropy, transport::Take};

/// What the connections of the listener begin with. Copies are the same.
#[derive(Clone)]
pub(crate) struct Acceptor {
    context: SslContext,
    keys: Arc<Keys>,
    chosen: Index<Ssl, Option<usize>>,
}

impl Acceptor {
    /// Takes the devices' keys.
    ///
    /// # Errors
    /// [`StartError`] if the system's OpenSSL lacks what is needed.
    pub(crate) fn new(keys: Vec<DeviceKey>) -> Result<Self, StartError> {
        let mut secret = Zeroizing::new([0; 64]);
        SystemEntropy.fill(&mut *secret);
        let keys = Arc::new(Keys::new(keys, &secret));
        Self::build(keys).map_err(|error| {
            StartError::new(format!("[mqtt.psk]: OpenSSL: {error}"))
                .hint("see whether /etc/ssl/openssl.cnf forbids TLS 1.2 or ciphers with PSK")
        })
    }

    fn build(keys: Arc<Keys>) -> Result<Self, ErrorStack> {
        let chosen = Ssl::new_ex_index::<Option<usize>>()?;
        let mut builder = SslContextBuilder::new(SslMethod::tls_server())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        builder.set_cipher_list(CIPHERS)?;
        // External keys belong to the hash SHA-256 (RFC 8446 §4.2.11).
        builder.set_ciphersuites("TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256")?;
        builder.set_tmp_dh(&*group_14()?)?;
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_num_tickets(0)?;
        builder.set_options(
            SslOptions::NO_TICKET
                | SslOptions::NO_RENEGOTIATION
                | SslOptions::NO_COMPRESSION
                | SslOptions::CIPHER_SERVER_PREFERENCE
                | SslOptions::SINGLE_DH_USE,
        );
        // Idle connections keep no buffers.
        builder.set_mode(SslMode::RELEASE_BUFFERS);
        let table = Arc::clone(&keys);
        builder.set_psk_server_callback(move |ssl, identity, place| {
            let (len, number) = table.find(identity.unwrap_or_default(), place);
            ssl.set_ex_data(chosen, number);
            Ok(len)
        });
        Ok(Self {
            context: builder.build(),
            keys,
            chosen,
        })
    }

    /// Begins with a fresh connection.
    ///
    /// # Errors
    /// [`PskError`] if there is no memory.
    pub(in crate::runtime::transport) fn open(&self) -> Result<Psk, PskError> {
        let memory = Memory {
            incoming: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
        };
        let stream = Ssl::new(&self.context)
            .and_then(|ssl| SslStream::new(ssl, memory))
            .map_err(|error| PskError::from_stack(&error))?;
        Ok(Psk {
            stream,
            keys: Arc::clone(&self.keys),
            chosen: self.chosen,
            device: None,
        })
    }
}

/// RFC 3526 §3: a group whose origin nobody doubts.
fn group_14() -> Result<Dh<openssl::pkey::Params>, ErrorStack> {
    Dh::from_pqg(BigNum::get_rfc3526_prime_2048()?, None, BigNum::from_u32(2)?)
}

/// One device's connection.
pub(in crate::runtime::transport) struct Psk {
    stream: SslStream<Memory>,
    keys: Arc<Keys>,
    chosen: Index<Ssl, Option<usize>>,
    /// Whose key it was, once the handshake is done.
    device: Option<Arc<Device>>,
}

/// Why a connection with a pre-shared key cannot go on: what OpenSSL says of the peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PskError {
    /// The peer broke the protocol, or does not have the key of the identity it named, or there is no such identity.
    #[error("{0}")]
    Library(Box<str>),
    /// The peer said goodbye.
    #[error("the peer ended TLS")]
    Closed,
}

impl PskError {
    fn from_stack(stack: &ErrorStack) -> Self {
        let reason = stack.errors().first().and_then(openssl::error::Error::reason);
        Self::Library(reason.unwrap_or("unknown error").into())
    }

    fn from_ssl(error: &openssl::ssl::Error) -> Self {
        match (error.code(), error.ssl_error()) {
            (ErrorCode::ZERO_RETURN, _) => Self::Closed,
            (_, Some(stack)) => Self::from_stack(stack),
            (_, None) => Self::Library("the connection's memory".into()),
        }
    }
}

impl Psk {
    /// Takes received bytes and gives the plaintext in them to `take` in pieces.
    ///
    /// # Errors
    /// [`PskError`]; what the peer is told has been appended to `out`.
    pub(in crate::runtime::transport) fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        take: &mut Take<'_>,
    ) -> Result<(), PskError> {
        self.stream.get_mut().receive(bytes);
        let result = self.handshake().and_then(|is_done| match is_done {
            true => self.read(take),
            false => Ok(()),
        });
        self.drain(out);
        result
    }

    /// Goes on with the handshake; says whether it is done.
    fn handshake(&mut self) -> Result<bool, PskError> {
        if self.device.is_some() {
            return Ok(true);
        }
        match self.stream.accept() {
            Ok(()) => {}
            Err(error) if is_waiting(&error) => return Ok(false),
            Err(error) => return Err(PskError::from_ssl(&error)),
        }
        // The peer has the key, and it was that of this device: an unknown identity has a key that no peer can have.
        let number = self.stream.ssl().ex_data(self.chosen).copied().flatten();
        self.device = number.and_then(|number| self.keys.device(number)).cloned();
        match self.device {
            Some(_) => Ok(true),
            None => Err(PskError::Library("no key was used".into())),
        }
    }

    fn read(&mut self, take: &mut Take<'_>) -> Result<(), PskError> {
        let mut plain = Vec::new();
        loop {
            // Nothing is allocated for what cannot become plaintext.
            if self.stream.get_ref().is_empty() && self.stream.ssl().pending() == 0 {
                return Ok(());
            }
            plain.resize(PIECE, 0);
            match self.stream.ssl_read(&mut plain) {
                Ok(0) => return Err(PskError::Closed),
                Ok(count) => take(plain.get(..count).unwrap_or_default(), self.device.as_ref()),
                Err(error) if is_waiting(&error) => return Ok(()),
                Err(error) => return Err(PskError::from_ssl(&error)),
            }
        }
    }

    /// Appends `plain` encrypted.
    pub(in crate::runtime::transport) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let mut rest = plain;
        while !rest.is_empty() {
            // Memory takes everything; what fails has been told by `receive`.
            let Ok(count @ 1..) = self.stream.ssl_write(rest) else {
                break;
            };
            rest = rest.get(count..).unwrap_or_default();
        }
        self.drain(out);
    }

    /// Appends the goodbye of TLS, if there was a handshake.
    pub(in crate::runtime::transport) fn close(&mut self, out: &mut Vec<u8>) {
        if self.device.is_some() {
            // The peer's own goodbye is not waited for.
            let _ = self.stream.shutdown();
        }
        self.drain(out);
    }

    pub(in crate::runtime::transport) const fn device(&self) -> Option<&Arc<Device>> {
        self.device.as_ref()
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.stream.get_mut().outgoing);
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Psk")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

fn is_waiting(error: &openssl::ssl::Error) -> bool {
    error.code() == ErrorCode::WANT_READ
}

/// What OpenSSL takes for a socket. What was received is taken at once or when the rest of a record is there, so it holds one record
/// and one portion at most.
struct Memory {
    incoming: Vec<u8>,
    taken: usize,
    outgoing: Vec<u8>,
}

impl Memory {
    fn receive(&mut self, bytes: &[u8]) {
        self.incoming.drain(..self.taken);
        self.taken = 0;
        self.incoming.extend_from_slice(bytes);
    }

    const fn is_empty(&self) -> bool {
        self.taken == self.incoming.len()
    }
}

impl Read for Memory {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        let waiting = self.incoming.get(self.taken..).unwrap_or_default();
        if waiting.is_empty() {
            // Idle connections keep no memory.
            (self.incoming, self.taken) = (Vec::new(), 0);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = waiting.len().min(place.len());
        let (to, from) = (place.get_mut(..count), waiting.get(..count));
        if let (Some(to), Some(from)) = (to, from) {
            to.copy_from_slice(from);
        }
        self.taken = self.taken.saturating_add(count);
        Ok(count)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Forward secrecy first; CCM-8 last, for the devices of RFC 7925 that have nothing else.
const CIPHERS: &str = "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:DHE-PSK-CHACHA20-POLY1305:\
    DHE-PSK-AES128-GCM-SHA256:PSK-AES256-GCM-SHA384:PSK-CHACHA20-POLY1305:PSK-AES128-GCM-SHA256:PSK-AES256-CCM:\
    PSK-AES128-CCM:PSK-AES128-CCM8";
/// Bytes of plaintext given on at a time: a whole record.
const PIECE: usize = 16 << 10;

#[cfg(test)]
mod tests;
