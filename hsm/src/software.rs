//! A signer in memory: for the demo, for tests, and for the key of a sealed file once it is open.

use std::fmt;

use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::signer::{Algorithm, PublicKey, Signature, Signer, message_digest};

/// Signs with a key held in this process's memory.
///
/// The key is as safe as the process is; a node of value keeps it in a token.
pub struct SoftwareSigner {
    pair: Pair,
    public_key: PublicKey,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SoftwareSigner {
    /// Makes a new key from the system's random numbers.
    ///
    /// # Errors
    /// [`Error::Crypto`] when the system gives no random numbers.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Error> {
        let failed = |_| Error::Crypto {
            operation: "generating a key pair",
        };
        let pair = match algorithm {
            Algorithm::P256 => {
                Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?)
            }
            Algorithm::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate().map_err(failed)?),
        };
        Self::from_pair(pair)
    }

    /// Takes a given key: the P-256 scalar (big-endian) or the Ed25519 seed, and the public key that belongs to it.
    ///
    /// # Errors
    /// [`Error::PrivateKey`] when the two halves do not belong together or the scalar is out of range.
    pub fn from_private_key(private_key: &[u8; 32], public_key: &PublicKey) -> Result<Self, Error> {
        let pair = match public_key {
            PublicKey::P256(point) => EcdsaKeyPair::from_private_key_and_public_key(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                private_key,
                point,
            )
            .map(Pair::P256),
            PublicKey::Ed25519(key) => {
                Ed25519KeyPair::from_seed_and_public_key(private_key, key).map(Pair::Ed25519)
            }
        };
        Self::from_pair(pair.map_err(|_| Error::PrivateKey)?)
    }

    fn from_pair(pair: Pair) -> Result<Self, Error> {
        let public_key = match &pair {
            Pair::P256(pair) => PublicKey::from_bytes(Algorithm::P256, pair.public_key().as_ref()),
            Pair::Ed25519(pair) => PublicKey::from_bytes(Algorithm::Ed25519, pair.public_key().as_ref()),
        }
        .ok_or(Error::Crypto {
            operation: "reading a public key",
        })?;
        Ok(Self { pair, public_key })
    }

    /// Returns the P-256 scalar or the Ed25519 seed, for sealing it.
    pub(crate) fn private_key(&self) -> Result<Zeroizing<[u8; 32]>, Error> {
        let failed = Error::Crypto {
            operation: "reading a private key",
        };
        let mut bytes = Zeroizing::new([0; 32]);
        match &self.pair {
            Pair::P256(pair) => {
                let scalar: EcPrivateKeyBin<'static> =
                    pair.private_key().as_be_bytes().map_err(|_| failed.clone())?;
                copy_32(scalar.as_ref(), &mut bytes).ok_or(failed)?;
            }
            Pair::Ed25519(pair) => {
                let seed = pair.seed().map_err(|_| failed.clone())?;
                let seed = seed.as_be_bytes().map_err(|_| failed.clone())?;
                copy_32(seed.as_ref(), &mut bytes).ok_or(failed)?;
            }
        }
        Ok(bytes)
    }
}

fn copy_32(from: &[u8], to: &mut [u8; 32]) -> Option<()> {
    let from: &[u8; 32] = from.try_into().ok()?;
    *to = *from;
    Some(())
}

impl Signer for SoftwareSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn sign(&mut self, message: &[u8]) -> Result<Signature, Error> {
        let signature = match &self.pair {
            Pair::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map_err(|_| Error::Crypto {
                    operation: "signing with ECDSA P-256",
                })?,
            Pair::Ed25519(pair) => pair
                .try_sign(&message_digest(message))
                .map_err(|_| Error::Crypto {
                    operation: "signing with Ed25519",
                })?,
        };
        signature.as_ref().try_into().map_err(|_| Error::Crypto {
            operation: "reading a signature",
        })
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

impl fmt::Debug for SoftwareSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SoftwareSigner")
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_what_the_public_key_verifies() {
        for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
            let mut signer = SoftwareSigner::generate(algorithm).unwrap();
            let signature = signer.sign(b"reading").unwrap();
            assert_eq!(signer.algorithm(), algorithm);
            assert!(signer.public_key().verify(b"reading", &signature));
            assert!(!signer.public_key().verify(b"readinG", &signature));
        }
    }

    /// RFC 8032 §7.1 test 1: the key pair; the signature here is over a digest, so only the keys compare.
    #[test]
    fn takes_a_given_key_and_refuses_a_foreign_half() {
        let seed: [u8; 32] = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
            0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let public: [u8; 32] = [
            0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
            0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
        ];
        let mut signer = SoftwareSigner::from_private_key(&seed, &PublicKey::Ed25519(public)).unwrap();
        let signature = signer.sign(b"").unwrap();
        assert!(PublicKey::Ed25519(public).verify(b"", &signature));
        assert_eq!(*signer.private_key().unwrap(), seed);

        let foreign = SoftwareSigner::generate(Algorithm::Ed25519).unwrap();
        assert_eq!(
            SoftwareSigner::from_private_key(&seed, foreign.public_key()).unwrap_err(),
            Error::PrivateKey
        );
    }

    #[test]
    fn debug_shows_no_private_key() {
        let signer = SoftwareSigner::generate(Algorithm::Ed25519).unwrap();
        let private = format!("{:?}", *signer.private_key().unwrap());
        assert!(!format!("{signer:?}").contains(&private));
    }
}
