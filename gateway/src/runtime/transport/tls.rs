//! TLS towards devices: rustls between the bytes of a connection and what lies above.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use fieldgate_adapters::device::Device;
use fieldgate_config::settings::{ClientAuth, ClientCertificates, MqttTls};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};

pub(crate) use super::certificate::Directory;
use super::{
    Take, TransportError,
    certificate::{DeviceVerifier, Voice},
};
use crate::runtime::{StartError, clock::Clock};

/// What the connections of one listener begin with. Copies are the same.
#[derive(Clone)]
pub(crate) struct Acceptor {
    shared: Arc<Shared>,
}

struct Shared {
    settings: MqttTls,
    directory: Arc<Directory>,
    clock: Clock,
    config: RwLock<Arc<ServerConfig>>,
    /// What the files looked like when they were last read.
    seen: Mutex<Vec<Option<Stamp>>>,
}

/// What tells one version of a file from another.
type Stamp = (SystemTime, u64);

impl Acceptor {
    /// Reads certificates, key and revocation lists.
    ///
    /// # Errors
    /// [`StartError`] that names the file, if one cannot be read or they do not belong together.
    pub(crate) fn load(
        settings: &MqttTls,
        directory: &Arc<Directory>,
        clock: &Clock,
    ) -> Result<Self, StartError> {
        let seen = stamps(settings);
        let config = server_config(settings, directory, clock)?;
        Ok(Self {
            shared: Arc::new(Shared {
                settings: settings.clone(),
                directory: Arc::clone(directory),
                clock: clock.clone(),
                config: RwLock::new(config),
                seen: Mutex::new(seen),
            }),
        })
    }

    /// Reads the files again if they changed; what is wrong with them is logged, and then the old ones stay. It may block.
    pub(crate) fn look(&self) {
        let shared = &*self.shared;
        let now = stamps(&shared.settings);
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        match server_config(&shared.settings, &shared.directory, &shared.clock) {
            Ok(config) => {
                *shared.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                let certificate = shared.settings.certificate.display();
                tracing::info!(%certificate, "TLS: changed files taken for new connections");
            }
            Err(error) => {
                let (error, hint) = error.into_parts();
                tracing::warn!(error, hint, "TLS: changed files not taken, the old ones stay");
            }
        }
    }

    /// Begins with a fresh connection.
    ///
    /// # Errors
    /// What rustls says of the configuration.
    pub(super) fn open(&self) -> Result<Tls, rustls::Error> {
        let config = Arc::clone(&self.shared.config.read().unwrap_or_else(PoisonError::into_inner));
        let mut connection = ServerConnection::new(config)?;
        connection.set_buffer_limit(Some(OUTGOING_BYTES_MAX));
        Ok(Tls {
            connection,
            directory: Arc::clone(&self.shared.directory),
            device: None,
        })
    }
}

/// Looks after files that change, for as long as the node runs.
pub(crate) async fn follow(acceptors: Vec<Acceptor>) {
    if acceptors.is_empty() {
        return;
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for acceptor in acceptors.clone() {
            // The disk may be slow; the rest of the thread does not wait for it.
            if tokio::task::spawn_blocking(move || acceptor.look())
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

fn stamps(settings: &MqttTls) -> Vec<Option<Stamp>> {
    let clients = settings.clients.as_ref();
    let optional = [
        clients.map(|clients| &clients.ca),
        clients.and_then(|clients| clients.crl.as_ref()),
    ];
    [&settings.certificate, &settings.key]
        .into_iter()
        .chain(optional.into_iter().flatten())
        .map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
        .collect()
}

fn server_config(
    settings: &MqttTls,
    directory: &Arc<Directory>,
    clock: &Clock,
) -> Result<Arc<ServerConfig>, StartError> {
    let (certificate, key) = (&*settings.certificate, &*settings.key);
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| broken(certificate, &error))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| broken(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = match &settings.clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(clients) => Arc::new(DeviceVerifier {
            inner: chain_verifier(clients, &provider)?,
            directory: Arc::clone(directory),
            clock: clock.clone(),
            voice: Voice::default(),
        }),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key_der)
        })
        .map_err(|error| broken(certificate, &error))?;
    if settings.clients.is_some() {
        // A session that is resumed is not verified again: it would outlive the revocation of its certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

/// Makes what judges chains of devices' certificates.
fn chain_verifier(
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, StartError> {
    let ca = &*clients.ca;
    let authorities = CertificateDer::pem_file_iter(ca)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| broken(ca, &error))?;
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| broken(ca, &error))?;
    }
    if roots.is_empty() {
        return Err(broken(ca, &"there is no certificate in it"));
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if clients.auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    let mut named = ca;
    if let Some(crl) = &clients.crl {
        named = crl;
        let lists = CertificateRevocationListDer::pem_file_iter(crl)
            .and_then(|lists| lists.collect::<Result<Vec<_>, _>>())
            .map_err(|error| broken(crl, &error))?;
        if lists.is_empty() {
            return Err(broken(crl, &"there is no revocation list in it"));
        }
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    builder.build().map_err(|error| broken(named, &error))
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> StartError {
    StartError::new(format!("{}: {error}", path.display())).hint(
        "give PEM files: the certificate chain, and its private key; authorities, and their revocation lists",
    )
}

/// One device's TLS connection.
pub(super) struct Tls {
    connection: ServerConnection,
    directory: Arc<Directory>,
    /// Whose certificate was shown, once the handshake is done.
    device: Option<Arc<Device>>,
}

impl Tls {
    /// Takes received bytes and gives the plaintext in them to `take` in pieces.
    ///
    /// # Errors
    /// What rustls says of the peer, or that its certificate belongs to no device; what the peer is told has been appended to `out`.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        take: &mut Take<'_>,
    ) -> Result<(), TransportError> {
        let result = self.take_records(bytes, take);
        self.drain(out);
        result
    }

    fn take_records(&mut self, mut bytes: &[u8], take: &mut Take<'_>) -> Result<(), TransportError> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            // Reading from memory cannot fail, and rustls takes at least one byte while its buffer is emptied below.
            if self.connection.read_tls(&mut bytes).is_err() {
                return Err(rustls::Error::General("the connection's buffer is full".to_owned()).into());
            }
            let state = self.connection.process_new_packets()?;
            let mut left = state.plaintext_bytes_to_read();
            if left > 0 {
                self.identify()?;
            }
            while left > 0 {
                plain.resize(left.min(PIECE), 0);
                let Ok(count @ 1..) = self.connection.reader().read(&mut plain) else {
                    break;
                };
                take(plain.get(..count).unwrap_or_default(), self.device.as_ref());
                left = left.saturating_sub(count);
            }
        }
        Ok(())
    }

    /// Finds out whose certificate was verified, if one was. Call it only when there is plaintext: then the handshake is done, and
    /// the peer has proven that it holds the key.
    fn identify(&mut self) -> Result<(), TransportError> {
        if self.device.is_some() {
            return Ok(());
        }
        if let Some(certificate) = self.connection.peer_certificates().and_then(<[_]>::first) {
            let device = self.directory.find(certificate).ok_or(TransportError::NoDevice)?;
            self.device = Some(Arc::clone(device));
        }
        Ok(())
    }

    /// Appends `plain` encrypted.
    pub(super) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        // Piece by piece: rustls keeps only so much.
        for piece in plain.chunks(OUTGOING_PIECE) {
            // Beyond the limit the device does not read its answers; its connection is aborted by the driver's own limit.
            let _ = self.connection.writer().write_all(piece);
            self.drain(out);
        }
    }

    /// Appends the goodbye of TLS.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.drain(out);
    }

    pub(super) const fn device(&self) -> Option<&Arc<Device>> {
        self.device.as_ref()
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Writing to memory cannot fail.
            if self.connection.write_tls(out).is_err() {
                return;
            }
        }
    }
}

/// Bytes of plaintext given on at a time.
const PIECE: usize = 16 << 10;
/// Bytes that rustls keeps for sending.
const OUTGOING_BYTES_MAX: usize = 256 << 10;
/// Bytes given to rustls at a time.
const OUTGOING_PIECE: usize = 64 << 10;
/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
