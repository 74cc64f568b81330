//! TLS towards devices: rustls between the bytes of a connection and its session.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    sync::Arc,
};

use rustls::{
    ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::StartError;

/// Reads certificate chain and key.
///
/// # Errors
/// [`StartError`] that names the file, if one cannot be read or they do not belong together.
pub(crate) fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, StartError> {
    let broken = |path: &Path, error: &dyn std::fmt::Display| {
        StartError::new(format!("{}: {error}", path.display()))
            .hint("give PEM files: the certificate chain, and its private key")
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| broken(certificate, &error))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| broken(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key_der))
        .map_err(|error| broken(certificate, &error))?;
    Ok(Arc::new(config))
}

/// One device's TLS connection.
pub(crate) struct Tls {
    connection: ServerConnection,
    /// Plaintext on its way to or from the session; kept for its capacity.
    pub(crate) plain: Vec<u8>,
}

impl Tls {
    /// Begins with a fresh connection.
    ///
    /// # Errors
    /// What rustls says of the configuration.
    pub(crate) fn new(config: &Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut connection = ServerConnection::new(Arc::clone(config))?;
        connection.set_buffer_limit(Some(OUTGOING_BYTES_MAX));
        Ok(Self {
            connection,
            plain: Vec::new(),
        })
    }

    /// Takes received bytes and gives the plaintext in them to `take` in pieces.
    ///
    /// # Errors
    /// What rustls says of the peer; what it wants to be told waits for [`Tls::drain`].
    pub(crate) fn receive(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            // Reading from memory cannot fail, and rustls takes at least one byte while its buffer is emptied below.
            if self.connection.read_tls(&mut bytes).is_err() {
                return Err(rustls::Error::General(
                    "the connection's buffer is full".to_owned(),
                ));
            }
            let state = self.connection.process_new_packets()?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                self.plain.resize(left.min(PIECE), 0);
                let Ok(count @ 1..) = self.connection.reader().read(&mut self.plain) else {
                    break;
                };
                take(self.plain.get(..count).unwrap_or_default());
                left -= count;
            }
            self.plain.clear();
        }
        Ok(())
    }

    /// Encrypts `plain`; the result waits for [`Tls::drain`].
    pub(crate) fn send(&mut self, plain: &[u8]) {
        // Beyond the limit the device does not read its answers; its connection is aborted by the driver's own limit.
        let _ = self.connection.writer().write_all(plain);
    }

    /// Appends the bytes that wait to be sent.
    pub(crate) fn drain(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Writing to memory cannot fail.
            if self.connection.write_tls(out).is_err() {
                return;
            }
        }
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self) {
        self.connection.send_close_notify();
    }
}

/// Bytes of plaintext given to the session at a time.
const PIECE: usize = 16 << 10;
/// Bytes that rustls keeps for sending.
const OUTGOING_BYTES_MAX: usize = 256 << 10;
