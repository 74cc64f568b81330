//! TLS towards brokers and servers: rustls on aws-lc, with the certificates that the settings name.

use std::{path::Path, sync::Arc};

use fieldgate_config::settings::sink::SinkTls;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Reads the certificates and makes a configuration. Done for each connection, so that renewed files count.
///
/// # Errors
/// In words, with the file, if one cannot be read or does not fit.
pub(crate) fn client_config(settings: &SinkTls) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(settings.ca.as_deref())?);
    let Some((certificate, key)) = &settings.own else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| named(key, &error))?;
    builder
        .with_client_auth_cert(chain, key_der)
        .map_err(|error| named(certificate, &error))
}

/// Opens a TLS connection over `stream` to the server called `host`.
///
/// # Errors
/// In words, if the server is not who it should be, or does not speak TLS.
pub(crate) async fn connect(
    settings: &SinkTls,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    let config = client_config(settings)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("`{host}` is no name that a certificate can be for"))?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| format!("TLS with {host}: {error}"))
}

/// Returns the authorities of a file, or those of the system.
///
/// # Errors
/// In words, if there are none.
pub(crate) fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        // Odd certificates in the system's store are left out; what matters is whether the server's chain ends in a good one.
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err("the system has no certificates of authorities; name a file as `ca`".to_owned());
        }
        return Ok(roots);
    };
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| named(path, &error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    let found = read.map_err(|error| named(path, &error))?;
    if found.is_empty() {
        return Err(format!("{}: no certificate in it", path.display()));
    }
    Ok(found)
}

fn named(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
