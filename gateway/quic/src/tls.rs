//! TLS as links over QUIC have it: 1.3 only, one post-quantum key exchange, a bare key that proves nothing.

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms,
        aws_lc_rs::{default_provider, kx_group, sign::any_ecdsa_type},
        verify_tls13_signature_with_raw_key,
    },
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    },
    server::AlwaysResolvesServerRawPublicKeys,
    sign::CertifiedKey,
    version::TLS13,
};

/// Why there is no TLS for links; the library's fault, or that of a system without randomness.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No key could be made.
    #[error("no key for TLS")]
    Key,
    /// The library refuses.
    #[error("TLS: {0}")]
    Refused(#[from] Error),
    /// The library cannot protect the first packets.
    #[error("TLS without AES-128-GCM")]
    NoInitialSuite,
}

/// The application's protocol (RFC 7301), so that nothing else that speaks QUIC is taken for a link.
pub(crate) const ALPN: &[u8] = b"fieldgate-link";

/// The name that TLS wants, and does not send.
pub(crate) const SERVER_NAME: &str = "fieldgate";

/// X25519MLKEM768 and nothing else: both ends are fieldgate, so there is nobody to make concessions to.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768],
        ..default_provider()
    })
}

/// Makes what accepts: with a key that is made here and forgotten with the process.
pub(crate) fn server() -> Result<QuicServerConfig, TlsError> {
    QuicServerConfig::try_from(server_tls(provider())?).map_err(|_| TlsError::NoInitialSuite)
}

/// Makes what dials.
pub(crate) fn client() -> Result<QuicClientConfig, TlsError> {
    QuicClientConfig::try_from(client_tls(provider())?).map_err(|_| TlsError::NoInitialSuite)
}

fn server_tls(provider: Arc<CryptoProvider>) -> Result<ServerConfig, TlsError> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| TlsError::Key)?;
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| TlsError::Key)?;
    let key = any_ecdsa_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref())))?;
    let public = key.public_key().ok_or(TlsError::Key)?;
    let bare = CertificateDer::from(public.as_ref().to_vec());
    let certified = Arc::new(CertifiedKey::new(vec![bare], key));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        // RFC 7250: nobody would judge a certificate, and a key alone is shorter.
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No early data, and no tickets, without which there could be none.
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_tls(provider: Arc<CryptoProvider>) -> Result<ClientConfig, TlsError> {
    let verifier = AnyKey {
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}

/// Takes any key whose owner signed the handshake: who that is, the channel finds out.
#[derive(Debug)]
struct AnyKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(cert.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A client that has the classical key exchange only.
#[cfg(test)]
pub(crate) fn classical_client() -> QuicClientConfig {
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![kx_group::X25519],
        ..default_provider()
    });
    QuicClientConfig::try_from(client_tls(provider).expect("it is known")).expect("it has AES-128-GCM")
}

#[cfg(test)]
mod tests {
    use rustls::{
        HandshakeKind, NamedGroup,
        quic::{ClientConnection, Connection, ServerConnection, Version},
    };

    use super::*;

    /// Runs the handshakes of two configurations against each other.
    fn shake(client: ClientConfig, server: ServerConfig) -> Result<(Connection, Connection), Error> {
        let name = ServerName::try_from(SERVER_NAME).expect("a name").to_owned();
        let client = ClientConnection::new(Arc::new(client), Version::V1, name, b"client".to_vec())?;
        let server = ServerConnection::new(Arc::new(server), Version::V1, b"server".to_vec())?;
        let (mut client, mut server) = (Connection::from(client), Connection::from(server));
        let mut rounds = 0;
        while client.is_handshaking() || server.is_handshaking() {
            pass(&mut client, &mut server)?;
            pass(&mut server, &mut client)?;
            rounds += 1;
            assert!(rounds < 10, "it does not end");
        }
        Ok((client, server))
    }

    fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), Error> {
        // Each change of keys ends what belongs together.
        loop {
            let mut bytes = Vec::new();
            let change = from.write_hs(&mut bytes);
            to.read_hs(&bytes)?;
            if change.is_none() && bytes.is_empty() {
                return Ok(());
            }
        }
    }

    #[test]
    fn the_key_exchange_is_post_quantum() {
        let (client, server) = shake(
            client_tls(provider()).expect("a client"),
            server_tls(provider()).expect("a server"),
        )
        .expect("they agree");
        for side in [client, server] {
            let group = side.negotiated_key_exchange_group().map(|group| group.name());
            assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
            assert_eq!(side.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(side.alpn_protocol(), Some(ALPN));
            assert!(side.zero_rtt_keys().is_none(), "no early data");
        }
    }

    #[test]
    fn who_offers_the_classical_exchange_only_is_refused() {
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![kx_group::X25519],
            ..default_provider()
        });
        let refused = shake(
            client_tls(provider).expect("a client"),
            server_tls(super::provider()).expect("a server"),
        );
        assert!(refused.is_err());
    }

    #[test]
    fn another_application_is_refused() {
        let mut client = client_tls(provider()).expect("a client");
        client.alpn_protocols = vec![b"h3".to_vec()];
        let refused = shake(client, server_tls(provider()).expect("a server"));
        assert_eq!(refused.err(), Some(Error::NoApplicationProtocol));
    }
}
