//! Who answers at an address `wss://…`: what webpki says, with the node's own clock.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::runtime::clock::Clock;

/// Takes certificates that webpki takes, and those that are valid at another time where this node's clock may be wrong.
///
/// A gateway that begins without a clock must reach its relay to learn the time. So the beginning of validity does not count:
/// TLS here gets bytes through networks, and the channel inside says who they are from. The end is judged by the time that is
/// surely past.
pub(crate) struct LinkVerifier {
    pub(crate) inner: Arc<WebPkiServerVerifier>,
    pub(crate) clock: Clock,
}

impl ServerCertVerifier for LinkVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judge = |at: UnixTime| {
            self.inner
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)
        };
        let monotonic = fieldgate_io::clock::monotonic();
        let at = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        let now = self.clock.at(monotonic).unix_secs();
        let bound = self.clock.bound_at(monotonic).unix_secs();
        match judge(at(now)) {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                judge(not_before)
            }
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) if bound < now => judge(at(bound)),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl fmt::Debug for LinkVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkVerifier").finish_non_exhaustive()
    }
}
