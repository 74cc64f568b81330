//! A secret that can be read with the help of one token only.
//!
//! The identity key signs and does nothing else, so the token gets a second key: RSA of 2048 bits, for decryption alone, with the
//! label [`WRAPPING_LABEL`]. A secret is drawn and encrypted to its public half here (RSAES-OAEP, RFC 8017 §7.1); the token is
//! needed only to open it again. RSA, because every token decrypts with it; what derives or encrypts otherwise, many do not have.
//!
//! ```text
//!  wrapped = "fgwrap" | u8 version (1) | u8 hash (1: SHA-1, 2: SHA-256) | u8 id length | id | ciphertext
//! ```
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ffi::c_ulong;
use std::path::Path;

use aws_lc_rs::rand;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPublicEncryptingKey, PublicEncryptingKey,
};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};

use super::key::{self, FoundKey};
use super::module::Module;
use super::session::{Login, Pin, Sessions};
use super::token;
use crate::error::{Error, KeyProblem};
use crate::secret::Secret;
use crate::uri::Pkcs11Uri;

/// A secret and the form in which it may lie on a disk.
#[derive(Debug, PartialEq, Eq)]
pub struct WrappedSecret {
    /// What only the token can open.
    pub wrapped: Vec<u8>,
    /// The secret: [`WRAPPED_SECRET_BYTES`] random bytes.
    pub secret: Secret,
}

/// Opens a wrapped secret; without one draws a secret and wraps it, with a new key on the token if that has none yet.
///
/// # Errors
/// [`Error::NotUnwrapped`] for what the token did not wrap, [`Error::KeyNotFound`] when its key is gone,
/// [`Error::KeyUnsuitable`], [`Error::Mechanism`], [`Error::WriteProtected`], and those of finding a token and logging in.
pub(crate) fn wrapped_secret(
    module: &Path,
    uri: &Pkcs11Uri,
    pin: Pin,
    wrapped: Option<&[u8]>,
) -> Result<WrappedSecret, Error> {
    let module = Module::load(module)?;
    let mut login = Login::new(pin);
    let sessions = Sessions::open(&module, uri, &mut login)?;
    token::require_mechanism(&sessions, token::UNWRAPPING)?;
    if let Some(wrapped) = wrapped {
        let secret = unwrap(&sessions, wrapped)?;
        return Ok(WrappedSecret {
            wrapped: wrapped.to_vec(),
            secret,
        });
    }
    let existing = wrapping_keys(&sessions)?.into_iter().next();
    let (mut sessions, key) = match existing {
        Some(key) => (sessions, key),
        None => {
            // Only now is it known that something has to be written. The login of the first sessions ends with them.
            drop(sessions);
            let sessions = Sessions::open_for_writing(&module, uri, &mut login)?;
            token::require_mechanism(&sessions, token::GENERATING_RSA)?;
            let key = generate(&sessions)?;
            (sessions, key)
        }
    };
    wrap_new(&mut sessions, &key)
}

/// Draws a secret and wraps it in the way that the token can open.
fn wrap_new(sessions: &mut Sessions, key: &FoundKey) -> Result<WrappedSecret, Error> {
    check(sessions, key)?;
    let public = public_key(sessions, key)?;
    let mut secret = vec![0; WRAPPED_SECRET_BYTES];
    rand::fill(&mut secret).map_err(|_| Error::Crypto {
        operation: "drawing random numbers",
    })?;
    let secret = Secret::new(secret);
    let mut last = Error::NotUnwrapped {
        key: sessions.key_uri(key).to_string(),
    };
    for hash in Hash::ALL {
        let mut ciphertext = vec![0; public.ciphertext_size()];
        public
            .encrypt(hash.algorithm(), secret.expose(), &mut ciphertext, None)
            .map_err(|_| Error::Crypto {
                operation: "encrypting with RSA",
            })?;
        // The proof that it can be opened again: what a token says of its mechanisms is not enough.
        match decrypt(sessions, key.handle, hash, &ciphertext) {
            Ok(opened) if opened == secret => {
                let wrapped = encode(hash, &key.id, &ciphertext);
                return Ok(WrappedSecret { wrapped, secret });
            }
            Ok(_) => {}
            Err(error) => {
                last = error;
                // It may hold an unfinished operation.
                sessions.replace_working()?;
            }
        }
    }
    Err(last)
}

fn unwrap(sessions: &Sessions, wrapped: &[u8]) -> Result<Secret, Error> {
    let not_unwrapped = |key: &Pkcs11Uri| Error::NotUnwrapped { key: key.to_string() };
    let parsed = decode(wrapped).ok_or_else(|| not_unwrapped(&sessions.token_uri()))?;
    let keys = wrapping_keys(sessions)?;
    let found = keys.iter().find(|key| key.id == parsed.id);
    let key = found.ok_or_else(|| Error::KeyNotFound {
        uri: Pkcs11Uri {
            object: Some(WRAPPING_LABEL.to_owned()),
            id: Some(parsed.id.to_vec()),
            ..sessions.token_uri()
        }
        .to_string(),
        offered: keys.iter().map(|key| sessions.key_uri(key).to_string()).collect(),
    })?;
    let secret = decrypt(sessions, key.handle, parsed.hash, parsed.ciphertext)?;
    if secret.expose().len() != WRAPPED_SECRET_BYTES {
        return Err(not_unwrapped(&sessions.key_uri(key)));
    }
    Ok(secret)
}

fn decrypt(sessions: &Sessions, key: ObjectHandle, hash: Hash, ciphertext: &[u8]) -> Result<Secret, Error> {
    let (mechanism, mgf) = match hash {
        Hash::Sha1 => (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
        Hash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
    };
    let parameters = PkcsOaepParams::new(mechanism, mgf, PkcsOaepSource::empty());
    let opened =
        sessions.call(|session| session.decrypt(&Mechanism::RsaPkcsOaep(parameters), key, ciphertext))?;
    Ok(Secret::new(opened))
}

/// Lists the RSA keys with the label of wrapping keys.
fn wrapping_keys(sessions: &Sessions) -> Result<Vec<FoundKey>, Error> {
    let mut keys = key::labelled(sessions, WRAPPING_LABEL)?;
    let mut result = Ok(());
    keys.retain(
        |key| match key::attribute(sessions, key.handle, AttributeType::KeyType) {
            Ok(Some(Attribute::KeyType(found))) => found == KeyType::RSA,
            Ok(_) => false,
            Err(error) => {
                result = Err(error);
                false
            }
        },
    );
    result.map(|()| keys)
}

/// Refuses a key that the token would give away.
fn check(sessions: &Sessions, key: &FoundKey) -> Result<(), Error> {
    let unsuitable = |problem| Error::KeyUnsuitable {
        key: sessions.key_uri(key).to_string(),
        problem,
    };
    match key::attribute(sessions, key.handle, AttributeType::Sensitive)? {
        Some(Attribute::Sensitive(true)) => {}
        Some(_) => return Err(unsuitable(KeyProblem::NotSensitive)),
        None => return Err(unsuitable(KeyProblem::Unreported("CKA_SENSITIVE"))),
    }
    match key::attribute(sessions, key.handle, AttributeType::Extractable)? {
        Some(Attribute::Extractable(false)) => Ok(()),
        Some(_) => Err(unsuitable(KeyProblem::Extractable)),
        None => Err(unsuitable(KeyProblem::Unreported("CKA_EXTRACTABLE"))),
    }
}

/// Reads the public half, which the token keeps beside the private one and mostly in it, too.
fn public_key(sessions: &Sessions, key: &FoundKey) -> Result<OaepPublicEncryptingKey, Error> {
    let template = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Id(key.id.clone()),
    ];
    let mut handles = sessions.call(|session| session.find_objects(&template))?;
    handles.push(key.handle);
    for handle in handles {
        let modulus = key::attribute(sessions, handle, AttributeType::Modulus);
        let exponent = key::attribute(sessions, handle, AttributeType::PublicExponent);
        let (Ok(Some(Attribute::Modulus(modulus))), Ok(Some(Attribute::PublicExponent(exponent)))) =
            (modulus, exponent)
        else {
            continue;
        };
        let public = public_key_info(&modulus, &exponent)
            .and_then(|info| PublicEncryptingKey::from_der(&info).ok())
            .and_then(|public| OaepPublicEncryptingKey::new(public).ok());
        if let Some(public) = public {
            return Ok(public);
        }
    }
    Err(Error::PublicKeyMissing {
        key: sessions.key_uri(key).to_string(),
    })
}

/// Makes the key pair.
fn generate(sessions: &Sessions) -> Result<FoundKey, Error> {
    let mut id = vec![0; ID_BYTES];
    rand::fill(&mut id).map_err(|_| Error::Crypto {
        operation: "drawing random numbers",
    })?;
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Encrypt(true),
        Attribute::ModulusBits(MODULUS_BITS.into()),
        Attribute::PublicExponent(EXPONENT.to_vec()),
        Attribute::Label(WRAPPING_LABEL.into()),
        Attribute::Id(id.clone()),
    ];
    let plain = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Decrypt(true),
        Attribute::Label(WRAPPING_LABEL.into()),
        Attribute::Id(id.clone()),
    ];
    let forbidden = [
        Attribute::Sign(false),
        Attribute::SignRecover(false),
        Attribute::Unwrap(false),
    ];
    let strict = [plain.as_slice(), &forbidden].concat();
    let attempt = |private: &[Attribute]| {
        sessions.call(|session| session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, private))
    };
    // Some modules take no attribute that they do not know.
    let (_, private) = attempt(&strict).or_else(|_| attempt(&plain))?;
    Ok(FoundKey {
        handle: private,
        label: WRAPPING_LABEL.to_owned(),
        id,
    })
}

/// What OAEP hashes with. SHA-1 is as good as any here (RFC 8017 §7.1 needs no collision resistance), and all that some tokens know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha1 = 1,
    Sha256 = 2,
}

impl Hash {
    /// In the order of preference.
    const ALL: [Self; 2] = [Self::Sha256, Self::Sha1];

    const fn algorithm(self) -> &'static OaepAlgorithm {
        match self {
            Self::Sha1 => &OAEP_SHA1_MGF1SHA1,
            Self::Sha256 => &OAEP_SHA256_MGF1SHA256,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Sha1 => 1,
            Self::Sha256 => 2,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Parsed<'a> {
    hash: Hash,
    id: &'a [u8],
    ciphertext: &'a [u8],
}

fn encode(hash: Hash, id: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    // A key that was made here has an identifier of 16 bytes; one with a longer one is found by its beginning nowhere.
    let id = id.get(..ID_BYTES_MAX).unwrap_or(id);
    let length = u8::try_from(id.len()).unwrap_or(u8::MAX);
    [MAGIC, &[VERSION, hash.code(), length], id, ciphertext].concat()
}

fn decode(wrapped: &[u8]) -> Option<Parsed<'_>> {
    let [version, hash, length, rest @ ..] = wrapped.strip_prefix(MAGIC)? else {
        return None;
    };
    let hash = Hash::ALL.into_iter().find(|known| known.code() == *hash)?;
    let (id, ciphertext) = rest.split_at_checked(usize::from(*length))?;
    (*version == VERSION && (1..=CIPHERTEXT_BYTES_MAX).contains(&ciphertext.len())).then_some(Parsed {
        hash,
        id,
        ciphertext,
    })
}

/// Encodes a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7, RFC 8017 §A.1.1); `None` for numbers beyond all measure.
fn public_key_info(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let key = element(SEQUENCE, &[unsigned(modulus)?, unsigned(exponent)?].concat())?;
    let bits = element(BIT_STRING, &[&[0], key.as_slice()].concat())?;
    element(SEQUENCE, &[RSA_ENCRYPTION, bits.as_slice()].concat())
}

/// Encodes an INTEGER that is not negative.
fn unsigned(number: &[u8]) -> Option<Vec<u8>> {
    let first = number.iter().position(|byte| *byte != 0)?;
    let digits = number.get(first..)?;
    let sign: &[u8] = match digits.first() {
        Some(first) if first & 0x80 != 0 => &[0],
        Some(_) | None => &[],
    };
    element(INTEGER, &[sign, digits].concat())
}

/// Encodes an element of DER (X.690 §8.1).
fn element(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(content.len()).ok()?;
    let [high, low] = length.to_be_bytes();
    let head = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    Some([head.as_slice(), content].concat())
}

/// Label of the keys that wrap secrets. No identity key may have it.
pub const WRAPPING_LABEL: &str = "fieldgate-wrapping";
/// Length of a secret.
pub const WRAPPED_SECRET_BYTES: usize = 32;
const MAGIC: &[u8] = b"fgwrap";
const VERSION: u8 = 1;
/// Longest identifier of a key.
const ID_BYTES_MAX: usize = 255;
const ID_BYTES: usize = 16;
const MODULUS_BITS: c_ulong = 2048;
/// 65537.
const EXPONENT: &[u8] = &[1, 0, 1];
/// RSA of 4096 bits.
const CIPHERTEXT_BYTES_MAX: usize = 512;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// SEQUENCE { rsaEncryption, NULL }.
const RSA_ENCRYPTION: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::KeyPair as _;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_public_key_has_the_form_that_the_library_gives_it() {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let expected: PublicKeyX509Der<'_> = public.as_der().unwrap();
        // 2,048 bits and 65537 have the same heads every time.
        let modulus = expected.as_ref().get(33..289).unwrap();
        let exponent = &[1, 0, 1];
        assert_eq!(public_key_info(modulus, exponent).unwrap(), expected.as_ref());
        let padded = [&[0, 0], modulus].concat();
        assert_eq!(
            public_key_info(&padded, &[0, 1, 0, 1]).unwrap(),
            expected.as_ref()
        );
        assert_eq!(public_key_info(&[0], exponent), None);
        assert_eq!(public_key_info(&vec![1; 1 << 16], exponent), None);
    }

    proptest! {
        #[test]
        fn what_is_wrapped_is_read_again(
            id in prop::collection::vec(any::<u8>(), 0..=ID_BYTES_MAX),
            ciphertext in prop::collection::vec(any::<u8>(), 1..=CIPHERTEXT_BYTES_MAX),
            hash in prop::sample::select(Hash::ALL.to_vec()),
        ) {
            let wrapped = encode(hash, &id, &ciphertext);
            let parsed = Parsed { hash, id: &id, ciphertext: &ciphertext };
            prop_assert_eq!(decode(&wrapped), Some(parsed));
        }

        #[test]
        fn any_bytes_are_read_without_harm(tail in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&tail);
            let _ = decode(&[MAGIC, &tail].concat());
        }
    }
}
