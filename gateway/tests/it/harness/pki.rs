//! Certificates for gateways and devices, made in the test's directory.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// An authority that signs certificates; files go to a directory.
pub(crate) struct Pki {
    dir: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Files of a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Certified {
    /// The certificate, PEM.
    pub(crate) certificate: String,
    /// Its key, PEM.
    pub(crate) key: String,
    /// The certificate itself.
    pub(crate) der: Vec<u8>,
}

impl Pki {
    /// Makes an authority; its certificate is `<name>.pem`.
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{name} authority"));
        let key = KeyPair::generate().expect("randomness");
        let certificate = params.self_signed(&key).expect("it can sign itself");
        write(&dir.join(format!("{name}.pem")), &certificate.pem());
        Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Where the authority's certificate is.
    pub(crate) fn ca(&self) -> String {
        path(&self.dir.join(format!("{}.pem", self.name)))
    }

    /// Makes a certificate of a server on 127.0.0.1.
    pub(crate) fn server(&self, file: &str) -> Certified {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, file)
    }

    /// Makes a certificate of a device.
    pub(crate) fn device(&self, file: &str, common_name: &str, dns_names: &[&str], serial: u64) -> Certified {
        let names: Vec<String> = dns_names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        self.sign(params, file)
    }

    /// Makes a certificate of a device whose validity ended long ago.
    pub(crate) fn expired_device(&self, file: &str, common_name: &str) -> Certified {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        self.sign(params, file)
    }

    /// Writes a revocation list with these serial numbers.
    pub(crate) fn revoke(&self, file: &str, serials: &[u64]) {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            // Long over: a list counts until there is another.
            next_update: date_time_ymd(2025, 2, 1),
            crl_number: SerialNumber::from(u64::try_from(serials.len()).expect("a few")),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: date_time_ymd(2025, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("the authority signs");
        write(&self.dir.join(file), &list.pem().expect("it can be written"));
    }

    fn sign(&self, params: CertificateParams, file: &str) -> Certified {
        let key = KeyPair::generate().expect("randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority signs");
        let (at, key_at) = (
            self.dir.join(format!("{file}.pem")),
            self.dir.join(format!("{file}.key")),
        );
        write(&at, &certificate.pem());
        write(&key_at, &key.serialize_pem());
        Certified {
            certificate: path(&at),
            key: path(&key_at),
            der: certificate.der().to_vec(),
        }
    }
}

/// Writes a file as a careful operator does: the new one takes the old one's place at once.
fn write(at: &Path, text: &str) {
    let new = at.with_extension("new");
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, at))
        .expect("the directory is ours");
}

fn path(at: &Path) -> String {
    at.to_str().expect("the path is text").to_owned()
}
