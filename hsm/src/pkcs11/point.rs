//! Curves and public keys in the forms that modules give them.

use crate::signer::{Algorithm, PublicKey};

/// A curve of identity keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    Ed25519,
}

impl Curve {
    /// Reads `CKA_EC_PARAMS`: the DER of an object identifier, or for Edwards curves also of a name
    /// (PKCS#11 3.0 §2.3.5).
    pub(super) fn from_parameters(parameters: &[u8]) -> Option<Self> {
        match parameters {
            P256_OID => Some(Self::P256),
            ED25519_OID | ED25519_NAME => Some(Self::Ed25519),
            _ => None,
        }
    }
}

/// `CKA_EC_PARAMS` to make keys with, in the order in which modules are likely to take them.
pub(super) const fn parameters(algorithm: Algorithm) -> &'static [&'static [u8]] {
    match algorithm {
        Algorithm::P256 => &[P256_OID],
        Algorithm::Ed25519 => &[ED25519_OID, ED25519_NAME],
    }
}

/// Reads `CKA_EC_POINT`: the DER of an OCTET STRING by the standard, the raw bytes or a BIT STRING by some modules.
///
/// The lengths tell them apart: a raw key has 65 or 32 bytes, an OCTET STRING two more, a BIT STRING three more.
pub(super) fn from_ec_point(algorithm: Algorithm, value: &[u8]) -> Option<PublicKey> {
    let raw = match (algorithm, value) {
        (Algorithm::P256, [0x04, 0x41, raw @ ..] | [0x03, 0x42, 0x00, raw @ ..]) if raw.len() == 65 => raw,
        (Algorithm::Ed25519, [0x04, 0x20, raw @ ..] | [0x03, 0x21, 0x00, raw @ ..]) if raw.len() == 32 => raw,
        (Algorithm::P256 | Algorithm::Ed25519, raw) => raw,
    };
    PublicKey::from_bytes(algorithm, raw)
}

/// Reads `CKA_PUBLIC_KEY_INFO`: the DER of a SubjectPublicKeyInfo (RFC 5480 §2, RFC 8410 §4), which for one curve
/// always begins with the same bytes.
pub(super) fn from_public_key_info(algorithm: Algorithm, value: &[u8]) -> Option<PublicKey> {
    let prefix = match algorithm {
        Algorithm::P256 => P256_INFO_PREFIX,
        Algorithm::Ed25519 => ED25519_INFO_PREFIX,
    };
    PublicKey::from_bytes(algorithm, value.strip_prefix(prefix)?)
}

/// 1.2.840.10045.3.1.7, prime256v1.
const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.3.101.112, id-Ed25519 (RFC 8410 §3).
const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// PrintableString `edwards25519` (PKCS#11 3.0 §2.3.5).
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";
/// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING of 65 bytes }.
const P256_INFO_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// SEQUENCE { SEQUENCE { id-Ed25519 }, BIT STRING of 32 bytes }.
const ED25519_INFO_PREFIX: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use proptest::prelude::*;

    use super::*;

    /// The raw public key and its SubjectPublicKeyInfo, made by the cryptographic library.
    fn key(algorithm: Algorithm) -> (Vec<u8>, Vec<u8>) {
        match algorithm {
            Algorithm::P256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
                let info: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                (pair.public_key().as_ref().to_vec(), info.as_ref().to_vec())
            }
            Algorithm::Ed25519 => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let info: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                (pair.public_key().as_ref().to_vec(), info.as_ref().to_vec())
            }
        }
    }

    #[test]
    fn reads_a_point_in_all_three_forms() {
        for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
            let (raw, info) = key(algorithm);
            let expected = PublicKey::from_bytes(algorithm, &raw);
            assert!(expected.is_some());
            let length = u8::try_from(raw.len()).unwrap();
            let octets = [&[0x04, length], raw.as_slice()].concat();
            let bits = [&[0x03, length + 1, 0x00], raw.as_slice()].concat();
            for form in [&raw, &octets, &bits] {
                assert_eq!(from_ec_point(algorithm, form), expected);
            }
            assert_eq!(from_public_key_info(algorithm, &info), expected);
        }
    }

    /// A raw P-256 key whose x begins with the length byte of the DER form stays raw, and a raw Ed25519 key may begin
    /// like the DER form.
    #[test]
    fn does_not_take_a_raw_key_for_an_encoding() {
        let mut point = [0x41; 65];
        point[0] = 0x04;
        assert_eq!(
            from_ec_point(Algorithm::P256, &point),
            Some(PublicKey::P256(point))
        );
        let mut key = [0x20; 32];
        key[0] = 0x04;
        assert_eq!(
            from_ec_point(Algorithm::Ed25519, &key),
            Some(PublicKey::Ed25519(key))
        );
    }

    #[test]
    fn refuses_compressed_points_and_foreign_curves() {
        let mut compressed = [0x02; 33];
        assert_eq!(from_ec_point(Algorithm::P256, &compressed), None);
        compressed[0] = 0x03;
        assert_eq!(from_ec_point(Algorithm::P256, &compressed), None);
        assert_eq!(from_ec_point(Algorithm::P256, &[]), None);
        // secp384r1, then Ed448.
        assert_eq!(
            Curve::from_parameters(&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]),
            None
        );
        assert_eq!(Curve::from_parameters(&[0x06, 0x03, 0x2b, 0x65, 0x71]), None);
    }

    #[test]
    fn knows_what_it_makes() {
        for (algorithm, curve) in [
            (Algorithm::P256, Curve::P256),
            (Algorithm::Ed25519, Curve::Ed25519),
        ] {
            for form in parameters(algorithm) {
                assert_eq!(Curve::from_parameters(form), Some(curve));
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
                let _ = from_ec_point(algorithm, &bytes);
                let _ = from_public_key_info(algorithm, &bytes);
            }
            let _ = Curve::from_parameters(&bytes);
        }
    }
}
