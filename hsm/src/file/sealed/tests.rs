use proptest::prelude::*;

use super::*;

fn hkdf_secret() -> Secret {
    Secret::new(vec![0x9c; 32])
}

fn sealed(algorithm: Algorithm) -> Sealed {
    let signer = SoftwareSigner::generate(algorithm).unwrap();
    Sealed::seal(&signer, &hkdf_secret(), Derivation::Hkdf).unwrap()
}

/// Writes the checksum anew, as somebody would who means harm.
fn with_new_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - CHECKSUM_BYTES);
    let checksum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(checksum.as_ref());
    bytes
}

#[test]
fn every_flipped_bit_is_damage() {
    for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
        let bytes = sealed(algorithm).encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit / 8 < MAGIC.len() {
                SealError::Magic
            } else {
                SealError::Checksum
            };
            assert_eq!(Sealed::decode(&flipped), Err(expected), "bit {bit}");
        }
    }
}

#[test]
fn every_flipped_bit_under_a_forged_checksum_is_refused() {
    for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
        let bytes = sealed(algorithm).encode();
        for bit in 0..(bytes.len() - CHECKSUM_BYTES) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(decoded) = Sealed::decode(&with_new_checksum(flipped)) {
                assert_eq!(decoded.open(&hkdf_secret()).unwrap(), None, "bit {bit}");
            }
        }
    }
}

#[test]
fn every_shorter_and_longer_file_is_refused() {
    for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
        let bytes = sealed(algorithm).encode();
        assert!(bytes.len() <= BYTES_MAX);
        for length in 0..bytes.len() {
            assert!(Sealed::decode(&bytes[..length]).is_err());
            if length > MAGIC.len() + CHECKSUM_BYTES {
                let shorter = with_new_checksum(bytes[..length].to_vec());
                assert!(matches!(
                    Sealed::decode(&shorter),
                    Err(SealError::Length { .. } | SealError::Checksum | SealError::Halves)
                ));
            }
        }
        let mut longer = bytes.clone();
        longer.insert(bytes.len() - CHECKSUM_BYTES, 0);
        assert_eq!(
            Sealed::decode(&with_new_checksum(longer)),
            Err(SealError::Length {
                have: bytes.len() + 1
            })
        );
    }
}

/// A hostile file cannot make the node spend more than the bounds.
#[test]
fn hostile_costs_are_refused_before_they_are_paid() {
    let signer = SoftwareSigner::generate(Algorithm::Ed25519).unwrap();
    let cost = Argon2Cost::new(1024, 1, 1).unwrap();
    let bytes = Sealed::seal(&signer, &hkdf_secret(), Derivation::Argon2id(cost))
        .unwrap()
        .encode();
    let with_cost = |cost: [u32; 3]| {
        let mut bytes = bytes.clone();
        for (index, value) in cost.into_iter().enumerate() {
            bytes[8 + index * 4..12 + index * 4].copy_from_slice(&value.to_be_bytes());
        }
        Sealed::decode(&with_new_checksum(bytes)).map(|sealed| sealed.derivation)
    };
    assert_eq!(with_cost([1024, 1, 1]), Ok(Derivation::Argon2id(cost)));
    assert!(with_cost([262_144, 4, 4]).is_ok());
    for cost in [
        [262_145, 1, 1],
        [u32::MAX, 1, 1],
        [1024, 17, 1],
        [1024, u32::MAX, 1],
        [1024, 1, 5],
        [1024, 1, u32::MAX],
        [1023, 1, 1],
        [0, 0, 0],
        [1024, 0, 1],
        [1024, 1, 0],
        [262_144, 5, 1],
        [u32::MAX, u32::MAX, u32::MAX],
    ] {
        assert!(matches!(with_cost(cost), Err(SealError::Cost { .. })), "{cost:?}");
    }
}

#[test]
fn an_hkdf_file_has_no_cost() {
    let mut bytes = sealed(Algorithm::Ed25519).encode();
    bytes[8] = 1;
    assert!(matches!(
        Sealed::decode(&with_new_checksum(bytes)),
        Err(SealError::Cost { what: "for HKDF", .. })
    ));
}

#[test]
fn unknown_numbers_are_named() {
    let bytes = sealed(Algorithm::P256).encode();
    let with = |offset: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[offset] = value;
        Sealed::decode(&with_new_checksum(bytes)).unwrap_err()
    };
    assert_eq!(with(5, 2), SealError::Version { got: 2 });
    assert_eq!(with(6, 3), SealError::Algorithm { got: 3 });
    assert_eq!(with(7, 0), SealError::Derivation { got: 0 });
    // The wrong algorithm for the length of the public key.
    assert!(matches!(with(6, 2), SealError::Length { .. }));
    // A public key that is not in uncompressed form.
    assert_eq!(with(52, 2), SealError::Halves);
}

/// The layout of the file, which later versions must keep reading: sealed by an independent computation
/// (HKDF and AES-GCM of another library) from the key pair of RFC 8032 §7.1 test 1.
#[test]
fn opens_a_file_made_by_another_implementation() {
    let hex = include_str!("../../../tests/vectors/sealed-key-v1.hex");
    let digits: Vec<u8> = hex
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::bytes)
        .filter_map(|digit| u8::try_from(char::from(digit).to_digit(16)?).ok())
        .collect();
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let sealed = Sealed::decode(&bytes).unwrap();
    let secret = Secret::new((0x80..0xa0).collect());
    let private_key = sealed.open(&secret).unwrap().unwrap();
    assert_eq!(private_key[..4], [0x9d, 0x61, 0xb1, 0x9d]);
    SoftwareSigner::from_private_key(&private_key, &sealed.public_key).unwrap();
    assert_eq!(sealed.encode(), bytes);
}

fn any_sealed() -> impl Strategy<Value = Sealed> {
    let cost = (1024..=65_536_u32, 1..=16_u32, 1..=4_u32).prop_map(|(memory, passes, lanes)| {
        Derivation::Argon2id(Argon2Cost::new(memory, passes, lanes).unwrap())
    });
    let key = prop_oneof![
        any::<[u8; 32]>().prop_map(PublicKey::Ed25519),
        proptest::collection::vec(any::<u8>(), 64).prop_map(|coordinates| {
            let mut point = [4; 65];
            point[1..].copy_from_slice(&coordinates);
            PublicKey::P256(point)
        }),
    ];
    (
        prop_oneof![cost, Just(Derivation::Hkdf)],
        any::<[u8; 32]>(),
        key,
        proptest::collection::vec(any::<u8>(), 48),
    )
        .prop_map(|(derivation, salt, public_key, ciphertext)| Sealed {
            derivation,
            salt,
            public_key,
            ciphertext: ciphertext.try_into().unwrap(),
        })
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(sealed in any_sealed()) {
        prop_assert_eq!(Sealed::decode(&sealed.encode()), Ok(sealed));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = Sealed::decode(&bytes);
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&bytes);
        file.extend_from_slice(&[0; CHECKSUM_BYTES]);
        let _ = Sealed::decode(&with_new_checksum(file));
    }
}
