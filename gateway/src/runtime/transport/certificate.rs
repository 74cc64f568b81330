//! Which device a certificate belongs to.
//!
//! ```text
//!  handshake ──▶ webpki: chain, purpose, dates, revocation ──▶ directory: hash, DNS name, common name ──▶ device
//!                   └─ refused, alert                            └─ none, or two: refused, alert access_denied
//! ```

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use fieldgate_adapters::device::Device;
use fieldgate_config::settings::CertificateRule;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::EndEntityCert;

use crate::runtime::clock::Clock;

/// The devices that are known by their certificates.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    by_hash: BTreeMap<[u8; 32], Arc<Device>>,
    by_dns_name: BTreeMap<String, Arc<Device>>,
    by_common_name: BTreeMap<String, Arc<Device>>,
}

impl Directory {
    /// Enters a device. The configuration sees to it that no rule stands for two.
    pub(crate) fn insert(&mut self, rule: &CertificateRule, device: Arc<Device>) {
        match rule {
            CertificateRule::Sha256(hash) => self.by_hash.insert(*hash, device),
            CertificateRule::SanDns(name) => self.by_dns_name.insert(name.clone(), device),
            CertificateRule::SubjectCn(name) => self.by_common_name.insert(name.clone(), device),
        };
    }

    /// Finds the device of a certificate whose chain was verified. The hash counts most, as it stands for one certificate only; a
    /// certificate with names of two devices belongs to neither.
    pub(crate) fn find(&self, certificate: &CertificateDer<'_>) -> Option<&Arc<Device>> {
        if let Some(device) = self.by_hash.get(&sha256(certificate)) {
            return Some(device);
        }
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        let by_dns = parsed
            .valid_dns_names()
            .filter_map(|name| self.by_dns_name.get(&name.to_ascii_lowercase()));
        let by_common = common_name(parsed.subject()).and_then(|name| self.by_common_name.get(name));
        let mut found = by_dns.chain(by_common);
        let first = found.next()?;
        found.all(|other| Arc::ptr_eq(first, other)).then_some(first)
    }
}

fn sha256(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, certificate);
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Returns the common name of a subject, if it has exactly one; `subject` is the content of the Name (RFC 5280 §4.1.2.4).
fn common_name(subject: &[u8]) -> Option<&str> {
    let mut names = Vec::new();
    let mut rest = subject;
    while !rest.is_empty() {
        let mut set = element(&mut rest, SET)?;
        while !set.is_empty() {
            let mut attribute = element(&mut set, SEQUENCE)?;
            if element(&mut attribute, OBJECT_IDENTIFIER)? == COMMON_NAME {
                names.push(attribute);
            }
        }
    }
    let [mut value] = names.try_into().ok()?;
    let tag = *value.first()?;
    if ![UTF8_STRING, PRINTABLE_STRING, IA5_STRING].contains(&tag) {
        return None;
    }
    let text = element(&mut value, tag)?;
    std::str::from_utf8(text).ok().filter(|_| value.is_empty())
}

/// Takes an element of DER with `tag` off `bytes` and returns its content (X.690 §10.1).
fn element<'b>(bytes: &mut &'b [u8], tag: u8) -> Option<&'b [u8]> {
    let (first, rest) = bytes.split_first()?;
    let (len, rest) = match rest {
        [len, rest @ ..] if *len < 0x80 => (usize::from(*len), rest),
        [0x81, len, rest @ ..] => (usize::from(*len), rest),
        [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    (*first == tag).then_some(content)
}

/// Takes certificates that webpki takes and that belong to a device.
pub(super) struct DeviceVerifier {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) directory: Arc<Directory>,
    pub(super) clock: Clock,
    pub(super) voice: Voice,
}

impl DeviceVerifier {
    /// Lets webpki judge. The beginning of validity is judged by the clock, and its end by the time that is surely past where
    /// nobody vouches for the clock: one that is ahead must not lock every device out.
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<ClientCertVerified, Error> {
        let monotonic = fieldgate_io::clock::monotonic();
        let at = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        let now = self.clock.at(monotonic).unix_secs();
        let judged = self.inner.verify_client_cert(certificate, intermediates, at(now));
        let bound = self.clock.bound_at(monotonic).unix_secs();
        match judged {
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) if bound < now => self
                .inner
                .verify_client_cert(certificate, intermediates, at(bound)),
            other => other,
        }
    }
}

impl ClientCertVerifier for DeviceVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verify(end_entity, intermediates).inspect_err(|error| {
            self.voice.say(end_entity, &error);
        })?;
        if self.directory.find(end_entity).is_none() {
            self.voice
                .say(end_entity, &"no [[mqtt.device]] stands for it, or two do");
            return Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ));
        }
        Ok(verified)
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

impl fmt::Debug for DeviceVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceVerifier")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

/// Logs refused certificates, some at once and then one a second: anybody can show any certificate.
#[derive(Debug, Default)]
pub(super) struct Voice {
    /// Nanoseconds of the monotonic clock: when the lines written so far are paid for, one a second.
    paid_at: AtomicU64,
    /// Refusals since the last line that were not written.
    unsaid: AtomicU64,
}

impl Voice {
    /// Returns whether a line may be written at `now`.
    fn may_say(&self, now: u64) -> bool {
        let paid_at = self.paid_at.load(Ordering::Relaxed);
        if paid_at > now.saturating_add(LINES_AT_ONCE * LINE_NANOS) {
            return false;
        }
        let next = paid_at.max(now).saturating_add(LINE_NANOS);
        // Of several threads one writes.
        self.paid_at
            .compare_exchange(paid_at, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    fn say(&self, certificate: &CertificateDer<'_>, reason: &dyn fmt::Display) {
        if !self.may_say(fieldgate_io::clock::monotonic()) {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let parsed = EndEntityCert::try_from(certificate).ok();
        let subject = parsed.as_ref().and_then(|parsed| common_name(parsed.subject()));
        tracing::info!(
            subject,
            sha256 = HEXLOWER.encode(&sha256(certificate)),
            %reason,
            unsaid = self.unsaid.swap(0, Ordering::Relaxed),
            "certificate of a device refused"
        );
    }
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// 2.5.4.3 (X.520).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// Lines in the log that are written without a pause between them.
const LINES_AT_ONCE: u64 = 10;
/// Time between lines after that.
const LINE_NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests;
