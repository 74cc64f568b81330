//! Finding a private key and the public key that belongs to it.

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::point::{self, Curve};
use super::session::Sessions;
use super::wrapping::WRAPPING_LABEL;
use crate::error::{Error, KeyProblem};
use crate::signer::{Algorithm, PublicKey};
use crate::uri::Pkcs11Uri;

/// A private key on a token.
#[derive(Clone, Debug)]
pub(super) struct FoundKey {
    pub(super) handle: ObjectHandle,
    pub(super) label: String,
    pub(super) id: Vec<u8>,
}

/// What a token says about how a key came to be; `None` where it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyOrigin {
    /// `CKA_LOCAL`: it was made on the token.
    pub local: Option<bool>,
    /// `CKA_NEVER_EXTRACTABLE`: it was extractable at no time.
    pub never_extractable: Option<bool>,
    /// `CKA_ALWAYS_SENSITIVE`: it was readable at no time.
    pub always_sensitive: Option<bool>,
}

/// A private key that can be an identity key.
#[derive(Clone, Copy, Debug)]
pub(super) struct CheckedKey {
    pub(super) algorithm: Algorithm,
    pub(super) origin: KeyOrigin,
}

/// A private key that matches the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySummary {
    /// A URI that names exactly this key.
    pub uri: Pkcs11Uri,
    /// Its public key, as an object on the token says; no signature was made.
    pub public_key: Option<PublicKey>,
    /// Why it cannot be an identity key, if it cannot.
    pub problem: Option<KeyProblem>,
}

/// Lists the private keys that match the URI, whatever its `id`: a key's successors have its label, not its identifier.
pub(super) fn list(sessions: &Sessions, uri: &Pkcs11Uri) -> Result<Vec<KeySummary>, Error> {
    let mut summaries = Vec::new();
    for key in successors(sessions, uri)? {
        let (public_key, problem) = match check(sessions, &key) {
            Ok(checked) => (
                public_keys(sessions, &key, checked.algorithm)?.first().copied(),
                None,
            ),
            Err(Error::KeyUnsuitable { problem, .. }) => (None, Some(problem)),
            Err(error) => return Err(error),
        };
        summaries.push(KeySummary {
            uri: sessions.key_uri(&key),
            public_key,
            problem,
        });
    }
    Ok(summaries)
}

/// Finds the private key with that public key among those that match the URI, whatever its `id`.
///
/// By a public key object, by an identifier made of the public key, or by being the only one there is; the caller has it
/// sign, which is the proof.
pub(super) fn find_wanted(
    sessions: &Sessions,
    uri: &Pkcs11Uri,
    wanted: &PublicKey,
) -> Result<FoundKey, Error> {
    let keys = successors(sessions, uri)?;
    let only = match &keys[..] {
        [only] => Some(only.clone()),
        _ => None,
    };
    let offered = keys.iter().map(|key| sessions.key_uri(key).to_string()).collect();
    let mut is_unknown = true;
    for key in keys {
        let Ok(Ok(algorithm)) = algorithm(sessions, &key) else {
            continue;
        };
        if algorithm != wanted.algorithm() {
            is_unknown = false;
            continue;
        }
        let candidates = public_keys(sessions, &key, algorithm)?;
        if candidates.contains(wanted) || key.id == wanted.key_id() {
            return Ok(key);
        }
        is_unknown &= candidates.is_empty();
    }
    only.filter(|_| is_unknown).ok_or_else(|| Error::KeyNotWanted {
        place: uri.to_string(),
        wanted: wanted.key_id_text(),
        offered,
    })
}

/// Lists the public key objects that belong to a private key and hold its public key.
pub(super) fn public_halves(
    sessions: &Sessions,
    key: &FoundKey,
    public_key: &PublicKey,
) -> Result<Vec<ObjectHandle>, Error> {
    let handles = sessions.call(|session| session.find_objects(&public_template(key)))?;
    let mut halves = Vec::new();
    for handle in handles.into_iter().take(KEYS_MAX) {
        if public_keys_of(sessions, handle, public_key.algorithm()).contains(public_key) {
            halves.push(handle);
        }
    }
    Ok(halves)
}

/// Lists the private keys with the label that the URI names, whatever its `id`; all if it names no label.
fn successors(sessions: &Sessions, uri: &Pkcs11Uri) -> Result<Vec<FoundKey>, Error> {
    let mut keys = sessions.call(private_keys)?;
    // An identifier without a label names one key; its successors then have the label of that key.
    let label = uri.object.clone().or_else(|| {
        let named = keys.iter().find(|key| uri.id.as_ref() == Some(&key.id));
        named.map(|key| key.label.clone())
    });
    keys.retain(|key| label.as_ref().is_none_or(|label| *label == key.label));
    Ok(keys)
}

/// Finds the one private key that the URI names.
pub(super) fn find_one(sessions: &Sessions, uri: &Pkcs11Uri) -> Result<FoundKey, Error> {
    let keys = sessions.call(private_keys)?;
    let is_wanted = |key: &FoundKey| {
        uri.object.as_ref().is_none_or(|label| *label == key.label)
            && uri.id.as_ref().is_none_or(|id| *id == key.id)
    };
    let uris = |keys: &[FoundKey]| keys.iter().map(|key| sessions.key_uri(key).to_string()).collect();
    let (mut matching, others): (Vec<FoundKey>, Vec<FoundKey>) = keys.into_iter().partition(is_wanted);
    match (matching.pop(), matching.is_empty()) {
        (Some(key), true) => Ok(key),
        (Some(key), false) => {
            matching.push(key);
            Err(Error::KeyAmbiguous {
                uri: uri.to_string(),
                offered: uris(&matching),
            })
        }
        (None, _) => Err(Error::KeyNotFound {
            uri: uri.to_string(),
            offered: uris(&others),
        }),
    }
}

/// Finds the key again that was opened before: by its identifier too, where it has one.
pub(super) fn find_again(sessions: &Sessions, uri: &Pkcs11Uri, id: &[u8]) -> Result<FoundKey, Error> {
    let id = if id.is_empty() {
        uri.id.clone()
    } else {
        Some(id.to_vec())
    };
    find_one(sessions, &Pkcs11Uri { id, ..uri.clone() })
}

/// Lists the private keys with that label.
pub(super) fn labelled(sessions: &Sessions, label: &str) -> Result<Vec<FoundKey>, Error> {
    let mut keys = sessions.call(all_private_keys)?;
    keys.retain(|key| key.label == label);
    Ok(keys)
}

/// Lists the private keys that may be identity keys as far as their labels go.
fn private_keys(session: &Session) -> Result<Vec<FoundKey>, cryptoki::error::Error> {
    let mut keys = all_private_keys(session)?;
    keys.retain(|key| key.label != WRAPPING_LABEL);
    Ok(keys)
}

/// Lists the private keys that the token keeps. Label and identifier are compared here: not every module filters well.
fn all_private_keys(session: &Session) -> Result<Vec<FoundKey>, cryptoki::error::Error> {
    let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Token(true)];
    let mut keys = Vec::new();
    for handle in session.find_objects(&template)?.into_iter().take(KEYS_MAX) {
        let mut key = FoundKey {
            handle,
            label: String::new(),
            id: Vec::new(),
        };
        for attribute in session.get_attributes(handle, &[AttributeType::Label, AttributeType::Id])? {
            if let Attribute::Label(label) = attribute {
                key.label = String::from_utf8_lossy(&label).into_owned();
            } else if let Attribute::Id(id) = attribute {
                key.id = id;
            }
        }
        keys.push(key);
    }
    Ok(keys)
}

/// Reads one attribute; `None` if the module does not have it.
pub(super) fn attribute(
    sessions: &Sessions,
    key: ObjectHandle,
    wanted: AttributeType,
) -> Result<Option<Attribute>, Error> {
    let mut attributes = sessions.call(|session| session.get_attributes(key, &[wanted]))?;
    Ok(attributes.pop())
}

/// Checks that a private key can be an identity key, and says of which algorithm.
pub(super) fn check(sessions: &Sessions, key: &FoundKey) -> Result<CheckedKey, Error> {
    let unsuitable = |problem| Error::KeyUnsuitable {
        key: sessions.key_uri(key).to_string(),
        problem,
    };
    let algorithm = algorithm(sessions, key)?.map_err(unsuitable)?;
    let wanted = [
        AttributeType::Sensitive,
        AttributeType::Extractable,
        AttributeType::Sign,
        AttributeType::AlwaysAuthenticate,
        AttributeType::Local,
        AttributeType::NeverExtractable,
        AttributeType::AlwaysSensitive,
    ];
    let (mut sensitive, mut extractable, mut sign, mut always_authenticate) = (None, None, None, None);
    let mut origin = KeyOrigin::default();
    for wanted in wanted {
        // One by one: some modules fail the whole call when they do not know one of several.
        let Ok(Some(attribute)) = attribute(sessions, key.handle, wanted) else {
            continue;
        };
        if let Attribute::Sensitive(value) = attribute {
            sensitive = Some(value);
        } else if let Attribute::Extractable(value) = attribute {
            extractable = Some(value);
        } else if let Attribute::Sign(value) = attribute {
            sign = Some(value);
        } else if let Attribute::AlwaysAuthenticate(value) = attribute {
            always_authenticate = Some(value);
        } else if let Attribute::Local(value) = attribute {
            origin.local = Some(value);
        } else if let Attribute::NeverExtractable(value) = attribute {
            origin.never_extractable = Some(value);
        } else if let Attribute::AlwaysSensitive(value) = attribute {
            origin.always_sensitive = Some(value);
        }
    }
    if !sensitive.ok_or_else(|| unsuitable(KeyProblem::Unreported("CKA_SENSITIVE")))? {
        return Err(unsuitable(KeyProblem::NotSensitive));
    }
    if extractable.ok_or_else(|| unsuitable(KeyProblem::Unreported("CKA_EXTRACTABLE")))? {
        return Err(unsuitable(KeyProblem::Extractable));
    }
    if !sign.ok_or_else(|| unsuitable(KeyProblem::Unreported("CKA_SIGN")))? {
        return Err(unsuitable(KeyProblem::CannotSign));
    }
    if always_authenticate == Some(true) {
        return Err(unsuitable(KeyProblem::AlwaysAuthenticate));
    }
    Ok(CheckedKey { algorithm, origin })
}

/// Reads key type and curve.
fn algorithm(sessions: &Sessions, key: &FoundKey) -> Result<Result<Algorithm, KeyProblem>, Error> {
    let Some(Attribute::KeyType(key_type)) = attribute(sessions, key.handle, AttributeType::KeyType)? else {
        return Ok(Err(KeyProblem::Unreported("CKA_KEY_TYPE")));
    };
    if key_type != KeyType::EC && key_type != KeyType::EC_EDWARDS {
        return Ok(Err(KeyProblem::Type(key_type.to_string())));
    }
    let Some(Attribute::EcParams(parameters)) = attribute(sessions, key.handle, AttributeType::EcParams)?
    else {
        return Ok(Err(KeyProblem::Unreported("CKA_EC_PARAMS")));
    };
    Ok(
        match (Curve::from_parameters(&parameters), key_type == KeyType::EC) {
            (Some(Curve::P256), true) => Ok(Algorithm::P256),
            (Some(Curve::Ed25519), false) => Ok(Algorithm::Ed25519),
            (Some(_) | None, _) => Err(KeyProblem::Curve(
                parameters.iter().map(|byte| format!("{byte:02x}")).collect(),
            )),
        },
    )
}

/// Lists the public keys that may belong to a private key, the likeliest first.
///
/// A public key object with the same identifier or, where there is none, the same label; then what the private key
/// itself says. Which of them it is, a signature shows.
pub(super) fn public_keys(
    sessions: &Sessions,
    key: &FoundKey,
    algorithm: Algorithm,
) -> Result<Vec<PublicKey>, Error> {
    let mut handles = sessions.call(|session| session.find_objects(&public_template(key)))?;
    handles.truncate(KEYS_MAX);
    handles.push(key.handle);
    let mut keys = Vec::new();
    for handle in handles {
        for read in public_keys_of(sessions, handle, algorithm) {
            if !keys.contains(&read) {
                keys.push(read);
            }
        }
    }
    Ok(keys)
}

/// What the public key objects of a private key have in common with it.
fn public_template(key: &FoundKey) -> [Attribute; 2] {
    let shared = match (key.id.is_empty(), key.label.is_empty()) {
        (false, _) => Attribute::Id(key.id.clone()),
        (true, false) => Attribute::Label(key.label.clone().into_bytes()),
        (true, true) => Attribute::Token(true),
    };
    [Attribute::Class(ObjectClass::PUBLIC_KEY), shared]
}

/// Reads the public key out of an object, in each way it may say it.
fn public_keys_of(sessions: &Sessions, handle: ObjectHandle, algorithm: Algorithm) -> Vec<PublicKey> {
    [AttributeType::EcPoint, AttributeType::PublicKeyInfo]
        .into_iter()
        .filter_map(|wanted| {
            // Most modules have neither on a private key, and say so in different ways.
            match attribute(sessions, handle, wanted) {
                Ok(Some(Attribute::EcPoint(point))) => point::from_ec_point(algorithm, &point),
                Ok(Some(Attribute::PublicKeyInfo(info))) => point::from_public_key_info(algorithm, &info),
                Ok(Some(_) | None) | Err(_) => None,
            }
        })
        .collect()
}

/// Objects that are looked at; tokens hold far fewer.
const KEYS_MAX: usize = 256;
