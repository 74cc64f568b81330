use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::*;

fn device(name: &str) -> Arc<Device> {
    Arc::new(Device::new(name, [].into()).unwrap())
}

/// Makes a certificate that signs itself.
fn certificate(common_names: &[&str], dns_names: &[&str]) -> CertificateDer<'static> {
    let names: Vec<String> = dns_names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "plant");
    for name in common_names {
        params.distinguished_name.push(DnType::CommonName, *name);
    }
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

#[test]
fn a_certificate_belongs_to_the_device_of_its_rule() {
    let pinned = certificate(&["pump-1"], &[]);
    let mut directory = Directory::default();
    directory.insert(&CertificateRule::SubjectCn("pump-1".to_owned()), device("by-cn"));
    directory.insert(
        &CertificateRule::SanDns("pump-2.example".to_owned()),
        device("by-dns"),
    );
    directory.insert(&CertificateRule::Sha256(sha256(&pinned)), device("by-hash"));
    let name = |certificate: &CertificateDer<'_>| directory.find(certificate).map(|device| device.name());
    assert_eq!(name(&pinned), Some("by-hash"), "the hash counts most");
    assert_eq!(name(&certificate(&["pump-1"], &[])), Some("by-cn"));
    assert_eq!(
        name(&certificate(&["x"], &["a.example", "PUMP-2.example"])),
        Some("by-dns")
    );
    assert_eq!(
        name(&certificate(&["pump-1"], &["pump-2.example"])),
        None,
        "of two"
    );
    assert_eq!(name(&certificate(&["Pump-1"], &["*.example"])), None);
    assert_eq!(name(&certificate(&[], &[])), None);
    assert_eq!(name(&CertificateDer::from(vec![0x30, 3, 1, 2, 3])), None);
}

#[test]
fn both_names_of_one_device_are_no_contradiction() {
    let both = device("both");
    let mut directory = Directory::default();
    directory.insert(&CertificateRule::SubjectCn("a".to_owned()), Arc::clone(&both));
    directory.insert(&CertificateRule::SanDns("a.example".to_owned()), both);
    assert!(directory.find(&certificate(&["a"], &["a.example"])).is_some());
}

#[test]
fn a_subject_has_exactly_one_common_name() {
    let attribute = |oid: u8, tag: u8, text: &[u8]| {
        let len = |more: usize| u8::try_from(text.len() + more).unwrap();
        let head = [
            SET,
            len(9),
            SEQUENCE,
            len(7),
            OBJECT_IDENTIFIER,
            3,
            0x55,
            4,
            oid,
            tag,
            len(0),
        ];
        [&head[..], text].concat()
    };
    let one = attribute(3, UTF8_STRING, b"pump");
    let organisation = attribute(10, UTF8_STRING, b"plant");
    assert_eq!(common_name(&one), Some("pump"));
    assert_eq!(common_name(&[&organisation[..], &one[..]].concat()), Some("pump"));
    assert_eq!(common_name(&[&one[..], &one[..]].concat()), None);
    assert_eq!(common_name(&organisation), None);
    assert_eq!(common_name(&attribute(3, 0x1e, b"pump")), None, "BMPString");
    assert_eq!(common_name(&attribute(3, UTF8_STRING, b"\xff")), None);
    assert_eq!(common_name(&one[..one.len() - 1]), None);
}

struct Chain {
    verifier: DeviceVerifier,
    certificate: CertificateDer<'static>,
}

/// Makes an authority and a device's certificate valid for a span of seconds since 1970, judged by `clock`.
fn chain(clock: Clock, validity: std::ops::Range<i64>) -> Chain {
    // The provider is the one that the listener has.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let at = |secs| time::OffsetDateTime::from_unix_timestamp(secs).unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (ca.not_before, ca.not_after) = (at(0), at(32_000_000_000));
    let ca_key = KeyPair::generate().unwrap();
    let root = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let mut leaf = CertificateParams::new(vec!["d.example".to_owned()]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (leaf.not_before, leaf.not_after) = (at(validity.start), at(validity.end));
    let certificate = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let inner = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let mut directory = Directory::default();
    directory.insert(&CertificateRule::SanDns("d.example".to_owned()), device("d"));
    Chain {
        verifier: DeviceVerifier {
            inner,
            directory: Arc::new(directory),
            clock,
            voice: Voice::default(),
        },
        certificate: certificate.der().clone(),
    }
}

#[test]
fn validity_is_judged_by_the_clock_of_the_node() {
    let judge = |from: i64, to: i64| {
        let clock = Clock::bare();
        let now = i64::try_from(clock.wall().unix_secs()).unwrap();
        let chain = chain(clock, now + from..now + to);
        // What rustls believes the time to be does not count.
        chain
            .verifier
            .verify_client_cert(
                &chain.certificate,
                &[],
                UnixTime::since_unix_epoch(Duration::ZERO),
            )
            .map(drop)
    };
    assert_eq!(judge(-1000, 1000), Ok(()));
    assert!(judge(500, 1000).is_err());
    // Expired ten years ago is expired for every clock that knows when this was built.
    assert!(judge(-400_000_000, -315_000_000).is_err());
}

#[test]
fn a_flood_of_refusals_fills_no_log() {
    let voice = Voice::default();
    let start = 5_000_000_000_000;
    let said = |from: u64, count: u64| {
        (0..count)
            .filter(|at| voice.may_say(from + at * 1_000_000))
            .count()
    };
    assert_eq!(said(start, 500), 11, "some at once");
    assert_eq!(said(start + 500_000_000, 10_000), 10, "then one a second");
    assert_eq!(
        said(start + 100_000_000_000, 100),
        11,
        "after a pause as in the beginning"
    );
}

proptest! {
    #[test]
    fn any_subject_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = common_name(&bytes);
    }
}
