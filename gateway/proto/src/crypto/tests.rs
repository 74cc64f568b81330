//! Published vectors: NIST ACVP (ML-KEM), Wycheproof, RFC 4231, RFC 5869, FIPS 180.

use std::{path::PathBuf, process::Command};

use aws_lc_rs::aead::Nonce;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use fips203::traits::{KeyGen as _, SerDes as _};
use serde_json::Value;
use wycheproof::{TestResult, aead as aead_vectors, ecdsa, mlkem, xdh};

use super::*;
use crate::identity::tests::Seeded;

/// Reads a file that is packaged inside a development dependency.
pub(crate) fn packaged(name: &str, file: &str) -> String {
    let cargo = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO")).args(arguments).output();
        String::from_utf8(output.expect("cargo runs, for it runs this test").stdout)
            .expect("cargo prints UTF-8")
    };
    let version = cargo(&["-vV"]);
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("cargo knows its host");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    // For this platform only: packages for others may not have been downloaded.
    let output = cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--filter-platform",
        host,
        "--manifest-path",
        manifest,
    ]);
    let metadata: Value = serde_json::from_str(&output).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    let package = packages
        .iter()
        .find(|package| package["name"] == name)
        .expect("it is a dependency");
    let manifest = PathBuf::from(
        package["manifest_path"]
            .as_str()
            .expect("packages have a manifest"),
    );
    std::fs::read_to_string(manifest.with_file_name(file)).expect("the package holds the file")
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER
        .decode(text.as_bytes())
        .expect("the vector is hexadecimal")
}

fn run_aead(aead: Aead, name: aead_vectors::TestName, want: usize) {
    let set = aead_vectors::TestSet::load(name).expect("the set is well-formed");
    let mut count = 0;
    for group in set.test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in group.tests {
            let key = Secret::new(test.key.as_ref().try_into().expect("the group has this key size"));
            let key = AeadKey::new(aead, &key);
            let nonce =
                || Nonce::try_assume_unique_for_key(&test.nonce).expect("the group has this nonce size");
            let mut sealed = [test.ct.as_ref(), test.tag.as_ref()].concat();
            let opened = key
                .open_with(nonce(), &test.aad, &mut sealed)
                .map(|plaintext| plaintext.to_vec());
            if test.result == TestResult::Invalid {
                assert_eq!(opened, Err(CryptoError::Tag), "{}: {}", test.tc_id, test.comment);
            } else {
                assert_eq!(opened, Ok(test.pt.to_vec()), "{}: {}", test.tc_id, test.comment);
                let mut in_out = test.pt.to_vec();
                let tag = key.seal_with(nonce(), &test.aad, &mut in_out);
                assert_eq!(
                    (in_out.as_slice(), tag.as_slice()),
                    (test.ct.as_ref(), test.tag.as_ref())
                );
            }
            count += 1;
        }
    }
    assert!(count >= want, "{count} vectors ran");
}

#[test]
fn wycheproof_aes_256_gcm() {
    run_aead(Aead::Aes256Gcm, aead_vectors::TestName::AesGcm, 60);
}

#[test]
fn wycheproof_chacha20_poly1305() {
    run_aead(
        Aead::ChaCha20Poly1305,
        aead_vectors::TestName::ChaCha20Poly1305,
        250,
    );
}

#[test]
fn wycheproof_x25519() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).expect("the set is well-formed");
    let mut count = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let Ok(public) = <[u8; 32]>::try_from(test.public_key.as_ref()) else {
            continue;
        };
        let private = Secret::new(
            test.private_key
                .as_ref()
                .try_into()
                .expect("private keys have 32 bytes"),
        );
        let shared = X25519Secret::new(&private).agree(&public);
        // What Wycheproof calls acceptable is a secret of zero, or a public key that is not reduced.
        if test.shared_secret.iter().all(|byte| *byte == 0) {
            assert_eq!(
                shared,
                Err(CryptoError::LowOrder),
                "{}: {}",
                test.tc_id,
                test.comment
            );
        } else {
            let want = Secret::new(
                test.shared_secret
                    .as_ref()
                    .try_into()
                    .expect("secrets have 32 bytes"),
            );
            assert_eq!(shared, Ok(want), "{}: {}", test.tc_id, test.comment);
        }
        count += 1;
    }
    assert!(count >= 500, "{count} vectors ran");
}

#[test]
fn wycheproof_ecdsa_p256() {
    let set =
        ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).expect("the set is well-formed");
    let (mut count, mut wrong_len) = (0, 0);
    for group in set.test_groups {
        let key: [u8; 65] = group
            .key
            .key
            .as_ref()
            .try_into()
            .expect("keys are uncompressed points");
        for test in group.tests {
            let Ok(signature) = Signature::try_from(test.sig.as_ref()) else {
                assert_eq!(test.result, TestResult::Invalid);
                wrong_len += 1;
                continue;
            };
            let valid = verify_ecdsa_p256(&key, &test.msg, &signature).is_ok();
            assert_eq!(
                valid,
                test.result == TestResult::Valid,
                "{}: {}",
                test.tc_id,
                test.comment
            );
            count += 1;
        }
    }
    assert!(
        count >= 200 && wrong_len > 0,
        "{count} vectors ran, {wrong_len} have another length"
    );
}

#[test]
fn a_compressed_or_hybrid_point_is_no_key() {
    for first in (0..=u8::MAX).filter(|first| *first != 4) {
        let mut key = [0x6b; 65];
        key[0] = first;
        assert_eq!(
            verify_ecdsa_p256(&key, b"", &[1; 64]),
            Err(CryptoError::Signature)
        );
    }
}

fn ml_kem_768(name: mlkem::TestName) -> impl Iterator<Item = mlkem::Test> {
    let set = mlkem::TestSet::load(name).expect("the set is well-formed");
    set.test_groups.into_iter().flat_map(|group| group.tests)
}

/// NIST's own vectors (ACVP, packaged with `fips203`), the groups for ML-KEM-768.
fn acvp(file: &str) -> Vec<Value> {
    let text = packaged(
        "fips203",
        &format!("tests/nist_vectors/{file}/internalProjection.json"),
    );
    let set: Value = serde_json::from_str(&text).expect("vectors are JSON");
    let groups = set["testGroups"].as_array().expect("a set has groups");
    groups
        .iter()
        .filter(|group| group["parameterSet"] == "ML-KEM-768")
        .cloned()
        .collect()
}

fn acvp_hex(value: &Value) -> Vec<u8> {
    HEXLOWER_PERMISSIVE
        .decode(value.as_str().expect("a vector is text").as_bytes())
        .expect("and hexadecimal")
}

/// The secrets of NIST's encapsulations and decapsulations come out, among them those of ciphertexts that
/// were modified (implicit rejection).
#[test]
fn acvp_ml_kem_768_decapsulation() {
    let (mut count, mut modified) = (0, 0);
    for group in acvp("ML-KEM-encapDecap-FIPS203") {
        for test in group["tests"].as_array().expect("a group has tests") {
            let dk = test.get("dk").unwrap_or_else(|| &group["dk"]);
            let key = KemSecret::from_expanded(&acvp_hex(dk)).expect("the key has the right length");
            let ek = test.get("ek").unwrap_or_else(|| &group["ek"]);
            assert_eq!(key.public().as_slice(), acvp_hex(ek));
            let ciphertext: [u8; CIPHERTEXT_LEN] = acvp_hex(&test["c"]).try_into().expect("1,088 bytes");
            let want = Secret::new(acvp_hex(&test["k"]).try_into().expect("32 bytes"));
            assert_eq!(key.decapsulate(&ciphertext), Ok(want), "test {}", test["tcId"]);
            modified += usize::from(test["reason"] == "modify ciphertext");
            count += 1;
        }
    }
    assert!(
        count == 35 && modified > 0,
        "{count} vectors ran, {modified} of them modified"
    );
}

/// NIST's key pairs work: what is encapsulated for the public half opens with the private one.
#[test]
fn acvp_ml_kem_768_keys() {
    let mut count = 0;
    for group in acvp("ML-KEM-keyGen-FIPS203") {
        for test in group["tests"].as_array().expect("a group has tests") {
            let key = KemSecret::from_expanded(&acvp_hex(&test["dk"])).expect("the key has the right length");
            let public: [u8; ENCAPSULATION_KEY_LEN] = acvp_hex(&test["ek"]).try_into().expect("1,184 bytes");
            assert_eq!(key.public(), &public);
            let (ciphertext, secret) = kem_encapsulate(&public).expect("the key is valid");
            assert_eq!(key.decapsulate(&ciphertext), Ok(secret));
            count += 1;
        }
    }
    assert_eq!(count, 25);
}

/// aws-lc-rs makes no key from a seed; `fips203` does, so that Wycheproof's vectors can run.
#[test]
fn wycheproof_ml_kem_768_decapsulation() {
    let (mut valid, mut refused) = (0, 0);
    for test in ml_kem_768(mlkem::TestName::MlKem768) {
        let seed = test.seed.expect("the test has a seed");
        let Some((d, z)) = seed.split_first_chunk::<32>() else {
            continue;
        };
        let Ok(z) = <[u8; 32]>::try_from(z) else { continue };
        let (_, dk) = fips203::ml_kem_768::KG::keygen_from_seed(*d, z);
        let key = KemSecret::from_expanded(&dk.into_bytes()).expect("the key has the right length");
        let ciphertext = test.ct.expect("the test has a ciphertext");
        let Ok(ciphertext) = <&[u8; CIPHERTEXT_LEN]>::try_from(ciphertext.as_ref()) else {
            assert_eq!(test.result, TestResult::Invalid);
            refused += 1;
            continue;
        };
        let want = test.shared_secret.expect("the test has a secret");
        let want = Secret::new(want.as_ref().try_into().expect("32 bytes"));
        assert_eq!(
            key.decapsulate(ciphertext),
            Ok(want),
            "{}: {}",
            test.tc_id,
            test.comment
        );
        valid += 1;
    }
    assert!(valid >= 150, "{valid} vectors ran, {refused} have another length");
}

#[test]
fn wycheproof_ml_kem_768_decapsulation_keys() {
    let (mut valid, mut invalid) = (0, 0);
    for test in ml_kem_768(mlkem::TestName::MlKem768SemiExpandedDecaps) {
        let dk = test.decaps_key.expect("the test has a key");
        let ciphertext = test.ct.expect("the test has a ciphertext");
        let secret = KemSecret::from_expanded(&dk).ok().and_then(|key| {
            let ciphertext: &[u8; CIPHERTEXT_LEN] = ciphertext.as_ref().try_into().ok()?;
            key.decapsulate(ciphertext).ok()
        });
        if test.result == TestResult::Valid {
            let want = test.shared_secret.expect("a valid test has a secret");
            assert_eq!(
                secret,
                want.as_ref().try_into().ok().map(Secret::new),
                "{}: {}",
                test.tc_id,
                test.comment
            );
            valid += 1;
        } else {
            assert_eq!(secret, None, "{}: {}", test.tc_id, test.comment);
            invalid += 1;
        }
    }
    assert_eq!((valid, invalid), (3, 6));
}

/// The public half that [`KemSecret`] takes from the expanded key is the one FIPS 203 derives from the seed.
#[test]
fn wycheproof_ml_kem_768_keys() {
    let mut count = 0;
    for test in ml_kem_768(mlkem::TestName::MlKem768KeyGenSeed) {
        if test.result != TestResult::Valid {
            continue;
        }
        let (ek, dk) = (
            test.encaps_key.expect("the test has a key"),
            test.decaps_key.expect("and its other half"),
        );
        let key = KemSecret::from_expanded(&dk).expect("the key has the right length");
        assert_eq!(key.public().as_slice(), ek.as_ref());
        let (ciphertext, secret) = kem_encapsulate(key.public()).expect("a valid key takes a secret");
        assert_eq!(key.decapsulate(&ciphertext), Ok(secret));
        count += 1;
    }
    assert!(count == 100, "{count} vectors ran");
}

/// A key with a coefficient that is not reduced is refused (FIPS 203 §7.2), a valid one is not.
#[test]
fn wycheproof_ml_kem_768_encapsulation_keys_are_checked() {
    let (mut valid, mut invalid) = (0, 0);
    for test in ml_kem_768(mlkem::TestName::MlKem768Encaps) {
        let ek = test.encaps_key.expect("the test has a key");
        let taken =
            <&[u8; ENCAPSULATION_KEY_LEN]>::try_from(ek.as_ref()).is_ok_and(|ek| kem_encapsulate(ek).is_ok());
        assert_eq!(
            taken,
            test.result == TestResult::Valid,
            "{}: {}",
            test.tc_id,
            test.comment
        );
        if taken {
            valid += 1;
        } else {
            invalid += 1;
        }
    }
    assert!(
        valid > 0 && invalid > 0,
        "{valid} valid and {invalid} invalid vectors ran"
    );
}

#[test]
fn a_ciphertext_for_another_key_gives_another_secret() {
    let (mine, other) = (KemSecret::generate(), KemSecret::generate());
    let (ciphertext, secret) = kem_encapsulate(mine.public()).expect("a generated key is valid");
    assert_eq!(mine.decapsulate(&ciphertext), Ok(secret.duplicate()));
    assert_ne!(other.decapsulate(&ciphertext), Ok(secret));
}

/// RFC 4231 §4.3, test case 2.
#[test]
fn hmac_sha_256_of_rfc_4231() {
    let mac = hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
    let want = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(mac.as_bytes().as_slice(), hex(want));
}

/// RFC 5869 §A.1: the first 32 bytes of the output, which is one block. The label takes 16 bytes of `info`,
/// so the test drives the block itself.
#[test]
fn hkdf_of_rfc_5869() {
    let salt = hex("000102030405060708090a0b0c");
    let prk = hmac_sha256(&salt, &[&[0x0b; 22]]);
    assert_eq!(
        prk.as_bytes().as_slice(),
        hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    );
    let okm = hmac_sha256(prk.as_bytes(), &[&hex("f0f1f2f3f4f5f6f7f8f9"), &[1]]);
    assert_eq!(
        okm.as_bytes().as_slice(),
        hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf")
    );
    assert_eq!(
        hkdf_expand(&prk, &[7; 16], b"x"),
        hmac_sha256(prk.as_bytes(), &[&[7; 16], b"x", &[1]])
    );
}

#[test]
fn sha_256_of_fips_180() {
    assert_eq!(
        sha256(&[b"a", b"", b"bc"]).as_slice(),
        hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    );
}

#[test]
fn secrets_do_not_print() {
    let secret = Secret::new([0xab; 32]);
    let x25519 = X25519Secret::generate(&mut Seeded::new(1));
    let key = AeadKey::new(Aead::Aes256Gcm, &secret);
    let printed = format!(
        "{secret:?} {x25519:?} {key:?} {:?} {:?}",
        KemSecret::generate(),
        MacKey::new(&[1])
    );
    assert_eq!(
        printed,
        "Secret(..) X25519Secret(..) AeadKey(Aes256Gcm, ..) KemSecret(..) MacKey(..)"
    );
}

#[test]
fn every_bit_of_a_sealed_text_counts() {
    for aead in [Aead::Aes256Gcm, Aead::ChaCha20Poly1305] {
        let key = AeadKey::new(aead, &Secret::new([9; 32]));
        let mut sealed = b"reading".to_vec();
        let tag = key.seal(5, b"header", &mut sealed);
        sealed.extend_from_slice(&tag);
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(5, b"header", &mut forged), Err(CryptoError::Tag));
        }
        assert_eq!(key.open(6, b"header", &mut sealed.clone()), Err(CryptoError::Tag));
        assert_eq!(key.open(5, b"Header", &mut sealed.clone()), Err(CryptoError::Tag));
        assert_eq!(key.open(5, b"header", &mut []), Err(CryptoError::Tag));
        assert_eq!(
            key.open(5, b"header", &mut sealed).as_deref(),
            Ok(b"reading".as_slice())
        );
    }
}
