//! The bytes of a sealed key file.

use argon2::{Argon2, Block, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::secret::Secret;
use crate::signer::{Algorithm, PublicKey, Signer};
use crate::software::SoftwareSigner;

/// What is wrong with a sealed key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The file is shorter or longer than such files are.
    #[error("it has {have} bytes, which no key file has")]
    Length {
        /// Bytes in the file; one more than the largest for all that are larger.
        have: usize,
    },
    /// The file does not begin as key files do.
    #[error("it does not begin with FGKEY")]
    Magic,
    /// The hash at the end does not match: bytes were changed or lost.
    #[error("its checksum does not match")]
    Checksum,
    /// The file has a version this program does not know.
    #[error("its version {got} is not 1")]
    Version {
        /// The version.
        got: u8,
    },
    /// The algorithm number is unknown.
    #[error("its algorithm {got} is neither 1 (ECDSA P-256) nor 2 (Ed25519)")]
    Algorithm {
        /// The number.
        got: u8,
    },
    /// The derivation number is unknown.
    #[error("its key derivation {got} is neither 1 (Argon2id) nor 2 (HKDF)")]
    Derivation {
        /// The number.
        got: u8,
    },
    /// A parameter of the password hash is outside what this program is ready to spend.
    #[error("its password hash wants {what} {got}, outside {min}..={max}")]
    Cost {
        /// Which parameter.
        what: &'static str,
        /// Its value.
        got: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// There is not enough memory for the password hash.
    #[error("its password hash needs {kib} KiB of memory, which are not free")]
    Memory {
        /// KiB needed.
        kib: u32,
    },
    /// The private key is not that of the public key.
    #[error("its private key does not belong to its public key")]
    Halves,
}

impl SealError {
    /// Returns what an operator can do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Length { .. } | Self::Magic => {
                "check the path; this is not a key file, or the power failed while it was made"
            }
            Self::Checksum | Self::Halves => "restore the file from a copy, or make a new identity",
            Self::Version { .. } | Self::Algorithm { .. } | Self::Derivation { .. } => {
                "upgrade fieldgate: a newer version wrote this file"
            }
            Self::Cost { .. } => "do not trust this file: fieldgate never writes such values",
            Self::Memory { .. } => "free memory, or raise MemoryMax= of the service",
        }
    }
}

/// Cost of the password hash Argon2id (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Cost {
    /// 64 MiB and 3 passes as RFC 9106 §4 has for machines with little memory, in one lane for one core.
    pub const DEFAULT: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 1,
    };

    /// Takes a cost within the bounds.
    ///
    /// ```text
    /// memory_kib  1024..=262,144 (256 MiB)      passes  1..=16
    /// lanes       1..=4                         memory_kib × passes  at most 1,048,576
    /// ```
    ///
    /// # Errors
    /// [`SealError::Cost`] names the parameter that is out of bounds.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, SealError> {
        let work = u64::from(memory_kib).saturating_mul(u64::from(passes));
        let bounds = [
            (
                "KiB of memory",
                u64::from(memory_kib),
                MEMORY_KIB_MIN,
                MEMORY_KIB_MAX,
            ),
            ("passes", u64::from(passes), 1, PASSES_MAX),
            ("lanes", u64::from(lanes), 1, LANES_MAX),
            ("KiB × passes", work, MEMORY_KIB_MIN, WORK_MAX),
        ];
        for (what, got, min, max) in bounds {
            if !(min..=max).contains(&got) {
                return Err(SealError::Cost { what, got, min, max });
            }
        }
        Ok(Self {
            memory_kib,
            passes,
            lanes,
        })
    }
}

/// How the AES key is made of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derivation {
    /// By a password hash: for anything a person chose or typed.
    Argon2id(Argon2Cost),
    /// By HKDF-SHA-256 (RFC 5869): only for at least 32 random bytes.
    Hkdf,
}

impl Derivation {
    /// Returns HKDF for a secret that is a random key, Argon2id at the default cost for all others.
    pub fn suited_to(secret: &Secret) -> Self {
        if secret.is_random_key() {
            Self::Hkdf
        } else {
            Self::Argon2id(Argon2Cost::DEFAULT)
        }
    }

    /// Returns the number and the three parameters of the header.
    const fn header(self) -> (u8, [u32; 3]) {
        match self {
            Self::Argon2id(Argon2Cost {
                memory_kib,
                passes,
                lanes,
            }) => (1, [memory_kib, passes, lanes]),
            Self::Hkdf => (2, [0; 3]),
        }
    }

    fn derive(self, secret: &Secret, salt: &[u8; SALT_BYTES]) -> Result<Zeroizing<[u8; 32]>, SealError> {
        let mut key = Zeroizing::new([0; 32]);
        match self {
            Self::Argon2id(cost) => {
                let out_of_memory = SealError::Memory { kib: cost.memory_kib };
                // `Argon2Cost::new` has checked all that `Params::new` could refuse.
                let parameters = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(key.len()))
                    .map_err(|_| out_of_memory)?;
                let mut blocks: Vec<Block> = Vec::new();
                blocks
                    .try_reserve_exact(parameters.block_count())
                    .map_err(|_| out_of_memory)?;
                blocks.resize(parameters.block_count(), Block::default());
                let hash = Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, parameters)
                    .hash_password_into_with_memory(secret.expose(), salt, key.as_mut_slice(), &mut blocks);
                blocks.zeroize();
                hash.map_err(|_| out_of_memory)?;
            }
            Self::Hkdf => Salt::new(HKDF_SHA256, salt)
                .extract(secret.expose())
                .expand(&[b"fieldgate sealed key v1"], HKDF_SHA256)
                .and_then(|okm| okm.fill(key.as_mut_slice()))
                .expect("HKDF-SHA-256 gives 32 bytes, one block of its hash"),
        }
        Ok(key)
    }
}

/// A sealed key, decoded and not yet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) derivation: Derivation,
    pub(super) salt: [u8; SALT_BYTES],
    pub(super) public_key: PublicKey,
    pub(super) ciphertext: [u8; CIPHERTEXT_BYTES],
}

impl Sealed {
    /// Seals the key of `signer` under a new salt.
    pub(super) fn seal(
        signer: &SoftwareSigner,
        secret: &Secret,
        derivation: Derivation,
    ) -> Result<Self, Error> {
        let failed = Error::Crypto {
            operation: "sealing a key",
        };
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| failed.clone())?;
        let mut sealed = Self {
            derivation,
            salt,
            public_key: *signer.public_key(),
            ciphertext: [0; CIPHERTEXT_BYTES],
        };
        let key = derivation.derive(secret, &salt).map_err(|_| failed.clone())?;
        let mut text = signer.private_key()?;
        let tag = aead_key(&key)
            .ok_or_else(|| failed.clone())?
            .seal_in_place_separate_tag(nonce(), Aad::from(sealed.header()), text.as_mut_slice())
            .map_err(|_| failed)?;
        for (to, from) in sealed.ciphertext.iter_mut().zip(text.iter().chain(tag.as_ref())) {
            *to = *from;
        }
        Ok(sealed)
    }

    /// Opens the private key; `None` if the secret does not.
    pub(super) fn open(&self, secret: &Secret) -> Result<Option<Zeroizing<[u8; 32]>>, SealError> {
        let key = self.derivation.derive(secret, &self.salt)?;
        let mut buffer = Zeroizing::new(self.ciphertext);
        let Some(aead) = aead_key(&key) else {
            return Ok(None);
        };
        let Ok(text) = aead.open_in_place(nonce(), Aad::from(self.header()), buffer.as_mut_slice()) else {
            return Ok(None);
        };
        let mut private_key = Zeroizing::new([0; 32]);
        for (to, from) in private_key.iter_mut().zip(text.iter()) {
            *to = *from;
        }
        Ok(Some(private_key))
    }

    /// Returns all bytes before the ciphertext: the associated data.
    fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES_MAX);
        let (derivation, parameters) = self.derivation.header();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, self.public_key.algorithm().code(), derivation]);
        for parameter in parameters {
            bytes.extend_from_slice(&parameter.to_be_bytes());
        }
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(self.public_key.as_bytes());
        bytes
    }

    /// Returns the whole file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.extend_from_slice(&self.ciphertext);
        let checksum = digest(&SHA256, &bytes);
        bytes.extend_from_slice(checksum.as_ref());
        bytes
    }

    /// Reads the whole file.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SealError> {
        let wrong_length = SealError::Length { have: bytes.len() };
        if !bytes.starts_with(MAGIC) {
            return Err(SealError::Magic);
        }
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(wrong_length)?;
        // Before all else: a flipped bit anywhere is damage, not a strange value.
        if !bool::from(digest(&SHA256, content).as_ref().ct_eq(checksum)) {
            return Err(SealError::Checksum);
        }
        let mut fields = Fields(content.strip_prefix(MAGIC).unwrap_or_default());
        let [version] = fields.take().ok_or(wrong_length)?;
        if version != VERSION {
            return Err(SealError::Version { got: version });
        }
        let [algorithm] = fields.take().ok_or(wrong_length)?;
        let algorithm = Algorithm::from_code(algorithm).ok_or(SealError::Algorithm { got: algorithm })?;
        let [derivation] = fields.take().ok_or(wrong_length)?;
        let memory_kib = u32::from_be_bytes(fields.take().ok_or(wrong_length)?);
        let passes = u32::from_be_bytes(fields.take().ok_or(wrong_length)?);
        let lanes = u32::from_be_bytes(fields.take().ok_or(wrong_length)?);
        let derivation = match derivation {
            1 => Derivation::Argon2id(Argon2Cost::new(memory_kib, passes, lanes)?),
            2 => match [memory_kib, passes, lanes]
                .into_iter()
                .find(|parameter| *parameter != 0)
            {
                Some(got) => {
                    return Err(SealError::Cost {
                        what: "for HKDF",
                        got: u64::from(got),
                        min: 0,
                        max: 0,
                    });
                }
                None => Derivation::Hkdf,
            },
            got => return Err(SealError::Derivation { got }),
        };
        let salt = fields.take().ok_or(wrong_length)?;
        let public_key = match algorithm {
            Algorithm::P256 => PublicKey::from_bytes(algorithm, &fields.take::<65>().ok_or(wrong_length)?),
            Algorithm::Ed25519 => PublicKey::from_bytes(algorithm, &fields.take::<32>().ok_or(wrong_length)?),
        }
        .ok_or(SealError::Halves)?;
        let ciphertext = fields.take().ok_or(wrong_length)?;
        if !fields.0.is_empty() {
            return Err(wrong_length);
        }
        Ok(Self {
            derivation,
            salt,
            public_key,
            ciphertext,
        })
    }
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

fn aead_key(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

/// The nonce: zero, as each key seals one text.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

const MAGIC: &[u8; 5] = b"FGKEY";
const VERSION: u8 = 1;
const SALT_BYTES: usize = 32;
/// A private key of 32 bytes and the tag of 16.
const CIPHERTEXT_BYTES: usize = 48;
const CHECKSUM_BYTES: usize = 32;
/// The largest file, that of a P-256 key: header of 20, salt, public key, ciphertext, checksum.
pub(super) const BYTES_MAX: usize = 20 + SALT_BYTES + 65 + CIPHERTEXT_BYTES + CHECKSUM_BYTES;

/// 1 MiB; less is no hurdle.
const MEMORY_KIB_MIN: u64 = 1024;
/// 256 MiB: what a small gateway may have in all.
const MEMORY_KIB_MAX: u64 = 256 * 1024;
const PASSES_MAX: u64 = 16;
const LANES_MAX: u64 = 4;
/// 1 GiB filled in all, some seconds on a small gateway.
const WORK_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests;
