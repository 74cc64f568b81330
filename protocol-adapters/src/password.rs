//! Passwords of devices: made at pairing, stored as hashes.

use std::{fmt, num::NonZeroU32, str::FromStr};

use aws_lc_rs::pbkdf2;
use data_encoding::BASE64_NOPAD;
use fieldgate_proto::entropy::Entropy;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::scram::{self, ScramKeys};

/// A password as it is stored: PBKDF2-HMAC-SHA-256 (RFC 8018 §5.2) with its own salt.
///
/// The text form is `pbkdf2-sha256$<iterations>$<salt>$<hash>`, salt and hash in unpadded base64. `Debug` shows neither. The other
/// scheme, `scram-sha-256$<iterations>$<salt>$<stored key>$<server key>`, serves both the password and
/// [SCRAM](crate::scram) (RFC 7677).
///
/// A count as low as one is accepted: a password of [`generate_password`] has 130 random bits and needs no stretching, and
/// thousands of devices coming back at once need a cheap check. Passwords people chose need [`ITERATIONS_FOR_PEOPLE`].
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    iterations: NonZeroU32,
    salt: Box<[u8]>,
    /// The derived bytes, or `StoredKey` where there is a server key.
    hash: [u8; HASH_LEN],
    /// `ServerKey` of the scheme `scram-sha-256`.
    server_key: Option<[u8; HASH_LEN]>,
}

impl PasswordHash {
    /// Returns how many iterations one check costs.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    /// Returns whether `password` is the one that was hashed; takes the time of [`iterations`](Self::iterations) and
    /// the same time whatever differs.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        let mut derived = Zeroizing::new([0; HASH_LEN]);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            self.iterations,
            &self.salt,
            password,
            derived.as_mut(),
        );
        match self.server_key {
            None => derived.as_slice().ct_eq(&self.hash).into(),
            Some(_) => scram::keys_of(derived.as_slice()).0.ct_eq(&self.hash).into(),
        }
    }

    /// Returns what SCRAM needs, if the scheme has it.
    pub(crate) fn scram_keys(&self) -> Option<ScramKeys> {
        Some(ScramKeys {
            salt: self.salt.clone(),
            iterations: self.iterations(),
            stored_key: self.hash,
            server_key: self.server_key?,
        })
    }
}

impl Drop for PasswordHash {
    fn drop(&mut self) {
        self.hash.zeroize();
        self.server_key.zeroize();
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.server_key.map_or(SCHEME, |_| SCRAM_SCHEME);
        write!(f, "PasswordHash({scheme}, {} iterations)", self.iterations)
    }
}

impl fmt::Display for PasswordHash {
    /// Writes the text form, for the device table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, hash) = (BASE64_NOPAD.encode(&self.salt), BASE64_NOPAD.encode(&self.hash));
        match &self.server_key {
            None => write!(f, "{SCHEME}${}${salt}${hash}", self.iterations),
            Some(key) => {
                let key = BASE64_NOPAD.encode(key);
                write!(f, "{SCRAM_SCHEME}${}${salt}${hash}${key}", self.iterations)
            }
        }
    }
}

impl FromStr for PasswordHash {
    type Err = PasswordHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fields: Vec<&str> = text.splitn(6, '$').collect();
        let (iterations, salt, hash, server_key) = match fields.as_slice() {
            [SCHEME, iterations, salt, hash] => (*iterations, *salt, *hash, None),
            [SCRAM_SCHEME, iterations, salt, hash, key] => (*iterations, *salt, *hash, Some(*key)),
            [SCHEME | SCRAM_SCHEME, ..] => return Err(PasswordHashError::Form),
            [_, _, _, _] | [_, _, _, _, _] => return Err(PasswordHashError::Scheme),
            _ => return Err(PasswordHashError::Form),
        };
        if iterations.starts_with(['0', '+']) {
            return Err(PasswordHashError::Iterations);
        }
        let iterations: u32 = iterations.parse().map_err(|_| PasswordHashError::Iterations)?;
        let iterations = checked_iterations(iterations)?;
        let salt = BASE64_NOPAD
            .decode(salt.as_bytes())
            .map_err(|_| PasswordHashError::Salt)?;
        if !(SALT_LEN_MIN..=SALT_LEN_MAX).contains(&salt.len()) {
            return Err(PasswordHashError::Salt);
        }
        let key = |text: &str| {
            let bytes = BASE64_NOPAD
                .decode(text.as_bytes())
                .map_err(|_| PasswordHashError::Hash)?;
            <[u8; HASH_LEN]>::try_from(Zeroizing::new(bytes).as_slice()).map_err(|_| PasswordHashError::Hash)
        };
        let hash = key(hash)?;
        let server_key = server_key.map(key).transpose()?;
        Ok(Self {
            iterations,
            salt: salt.into(),
            hash,
            server_key,
        })
    }
}

/// Hashes `password` with a fresh salt.
///
/// # Errors
/// [`PasswordHashError::Iterations`] if `iterations` is zero or above [`ITERATIONS_MAX`].
pub fn hash_password(
    password: &[u8],
    iterations: u32,
    entropy: &mut dyn Entropy,
) -> Result<PasswordHash, PasswordHashError> {
    let iterations = checked_iterations(iterations)?;
    let mut salt = [0; SALT_LEN];
    entropy.fill(&mut salt);
    let mut hash = [0; HASH_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password, &mut hash);
    Ok(PasswordHash {
        iterations,
        salt: salt.into(),
        hash,
        server_key: None,
    })
}

/// Hashes `password` with a fresh salt for SCRAM-SHA-256.
///
/// # Errors
/// [`PasswordHashError::Iterations`] if `iterations` is zero or above [`ITERATIONS_MAX`].
pub fn scram_password(
    password: &[u8],
    iterations: u32,
    entropy: &mut dyn Entropy,
) -> Result<PasswordHash, PasswordHashError> {
    let mut hashed = hash_password(password, iterations, entropy)?;
    let (stored_key, server_key) = scram::keys_of(&hashed.hash);
    hashed.hash = stored_key;
    hashed.server_key = Some(server_key);
    Ok(hashed)
}

/// Makes a password of 130 random bits: 26 characters of digits and lower-case letters that cannot be mistaken for another.
#[must_use]
pub fn generate_password(entropy: &mut dyn Entropy) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0_u8; PASSWORD_LEN]);
    entropy.fill(bytes.as_mut());
    let mut password = Zeroizing::new(String::with_capacity(PASSWORD_LEN));
    for byte in bytes.iter() {
        // 32 characters divide 256 evenly, so every one is equally likely.
        password.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    password
}

/// Iterations that are enough for a password of [`generate_password`].
pub const ITERATIONS_FOR_GENERATED: u32 = 64;
/// Iterations for a password that a person chose (OWASP Password Storage Cheat Sheet, 2023).
pub const ITERATIONS_FOR_PEOPLE: u32 = 600_000;
/// Iterations that clients of SCRAM-SHA-256 insist on (RFC 7677 §4).
pub const SCRAM_ITERATIONS_MIN: u32 = 4_096;
/// Iterations at most: about half a second on a small processor, so no table can stall a node.
pub const ITERATIONS_MAX: u32 = 1_000_000;

const SCHEME: &str = "pbkdf2-sha256";
const SCRAM_SCHEME: &str = "scram-sha-256";
const HASH_LEN: usize = 32;
const SALT_LEN: usize = 16;
const SALT_LEN_MIN: usize = 8;
const SALT_LEN_MAX: usize = 64;
const PASSWORD_LEN: usize = 26;
/// Crockford's base 32: without i, l, o and u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

const fn checked_iterations(iterations: u32) -> Result<NonZeroU32, PasswordHashError> {
    match NonZeroU32::new(iterations) {
        Some(checked) if iterations <= ITERATIONS_MAX => Ok(checked),
        Some(_) | None => Err(PasswordHashError::Iterations),
    }
}

/// Why a text is not a password hash. Never shows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordHashError {
    /// There are not as many fields as the scheme has.
    #[error("the password hash has not the form `pbkdf2-sha256$<iterations>$<salt>$<hash>`")]
    Form,
    /// The scheme is unknown.
    #[error("the password hash is neither of the scheme `pbkdf2-sha256` nor `scram-sha-256`")]
    Scheme,
    /// The iterations are no plain number from 1 to [`ITERATIONS_MAX`].
    #[error("the iterations of the password hash are not a number from 1 to 1000000")]
    Iterations,
    /// The salt is not 8 to 64 bytes in unpadded base64.
    #[error("the salt of the password hash is not 8 to 64 bytes in unpadded base64")]
    Salt,
    /// The hash is not 32 bytes in unpadded base64.
    #[error("the hash in the password hash is not 32 bytes in unpadded base64")]
    Hash,
}

impl PasswordHashError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Form | Self::Scheme | Self::Salt | Self::Hash => {
                "make the hash with `fieldgate device pair`, or any tool that derives PBKDF2-HMAC-SHA-256"
            }
            Self::Iterations => "64 are enough for a generated password, 600000 suit one that a person chose",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::tests::Counting;

    /// draft-josefsson-scrypt-kdf-01 §10 (the first 32 bytes), as in RFC 7914 §11; salt "salt" is too short for a table, so
    /// the parts are put together here.
    #[test]
    fn agrees_with_the_vectors_of_rfc_7914() {
        let cases: [(&[u8], &[u8], u32, &str); 2] = [
            (
                b"passwd",
                b"salt",
                1,
                "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc",
            ),
            (
                b"Password",
                b"NaCl",
                80_000,
                "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56",
            ),
        ];
        for (password, salt, iterations, hash) in cases {
            let hash = data_encoding::HEXLOWER.decode(hash.as_bytes()).unwrap();
            let stored = PasswordHash {
                iterations: NonZeroU32::new(iterations).unwrap(),
                salt: salt.into(),
                hash: hash.try_into().unwrap(),
                server_key: None,
            };
            assert!(stored.verify(password));
            assert!(!stored.verify(b"passwd "));
        }
    }

    #[test]
    fn the_scheme_for_scram_verifies_passwords_too_and_comes_back() {
        let hash = scram_password(b"secret", 64, &mut Counting::default()).unwrap();
        assert!(hash.verify(b"secret") && !hash.verify(b"secreu"));
        let text = hash.to_string();
        assert!(text.starts_with("scram-sha-256$64$"), "{text}");
        assert_eq!(text.parse(), Ok(hash));
        for bad in [
            text.replace("scram-sha-256", "scram-sha-1"),
            text[..text.len() - 1].to_owned(),
        ] {
            assert!(bad.parse::<PasswordHash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn generated_passwords_differ_and_open_their_hash_only() {
        let mut entropy = Counting::default();
        let first = generate_password(&mut entropy);
        let second = generate_password(&mut entropy);
        assert_ne!(*first, *second);
        assert_eq!(first.len(), 26);
        let hash = hash_password(first.as_bytes(), ITERATIONS_FOR_GENERATED, &mut entropy).unwrap();
        assert!(hash.verify(first.as_bytes()));
        assert!(!hash.verify(second.as_bytes()));
        assert!(!hash.verify(b""));
        assert_ne!(
            hash,
            hash_password(first.as_bytes(), ITERATIONS_FOR_GENERATED, &mut entropy).unwrap()
        );
    }

    #[test]
    fn refuses_malformed_texts() {
        const SALT: &str = "c2FsdHNhbHQ";
        const HASH: &str = "VawEblbjCJ/sFpHCJUS2BflBhSFt3gRl5oudV8INrLw";
        assert!(
            format!("pbkdf2-sha256$1${SALT}${HASH}")
                .parse::<PasswordHash>()
                .is_ok()
        );
        let cases = [
            (String::new(), PasswordHashError::Form),
            (format!("pbkdf2-sha256$1${SALT}"), PasswordHashError::Form),
            (format!("pbkdf2-sha256$1${SALT}${HASH}$"), PasswordHashError::Form),
            (
                format!("pbkdf2-sha512$1${SALT}${HASH}"),
                PasswordHashError::Scheme,
            ),
            (
                format!("pbkdf2-sha256$0${SALT}${HASH}"),
                PasswordHashError::Iterations,
            ),
            (
                format!("pbkdf2-sha256$01${SALT}${HASH}"),
                PasswordHashError::Iterations,
            ),
            (
                format!("pbkdf2-sha256$+1${SALT}${HASH}"),
                PasswordHashError::Iterations,
            ),
            (
                format!("pbkdf2-sha256$-1${SALT}${HASH}"),
                PasswordHashError::Iterations,
            ),
            (
                format!("pbkdf2-sha256$1000001${SALT}${HASH}"),
                PasswordHashError::Iterations,
            ),
            (
                format!("pbkdf2-sha256$99999999999${SALT}${HASH}"),
                PasswordHashError::Iterations,
            ),
            (format!("pbkdf2-sha256$1$c2FsdA${HASH}"), PasswordHashError::Salt),
            (format!("pbkdf2-sha256$1${SALT}=${HASH}"), PasswordHashError::Salt),
            (format!("pbkdf2-sha256$1${SALT}${HASH}="), PasswordHashError::Hash),
            (
                format!("pbkdf2-sha256$1${SALT}$c2FsdHNhbHQ"),
                PasswordHashError::Hash,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<PasswordHash>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn debug_shows_neither_salt_nor_hash() {
        let hash = hash_password(b"x", 7, &mut Counting::default()).unwrap();
        assert_eq!(format!("{hash:?}"), "PasswordHash(pbkdf2-sha256, 7 iterations)");
    }

    proptest! {
        #[test]
        fn texts_come_back(password: Vec<u8>, iterations in 1_u32..200) {
            let hash = hash_password(&password, iterations, &mut Counting::default()).unwrap();
            let back: PasswordHash = hash.to_string().parse().unwrap();
            prop_assert_eq!(&back, &hash);
            prop_assert!(back.verify(&password));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            if let Ok(hash) = text.parse::<PasswordHash>() {
                prop_assert_eq!(hash.to_string(), text);
            }
        }
    }
}
