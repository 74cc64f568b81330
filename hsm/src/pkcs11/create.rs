//! Making an identity key on a token.

use std::path::Path;

use aws_lc_rs::rand;
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectHandle};

use super::key::{self, FoundKey, KeyOrigin};
use super::module::Module;
use super::session::{Login, Pin, Sessions};
use super::{point, sign_once, token};
use crate::error::Error;
use crate::secret::SecretSource;
use crate::signer::{Algorithm, PublicKey, message_digest};
use crate::uri::Pkcs11Uri;

/// A key that was made on a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedKey {
    /// A URI that names exactly this key; write it into the configuration.
    pub uri: Pkcs11Uri,
    /// The public key.
    pub public_key: PublicKey,
    /// What the token says about it.
    pub origin: KeyOrigin,
}

/// Makes a key pair on the token that `uri` names: sensitive, not extractable, for signing only.
///
/// `CKA_ID` becomes the first 16 bytes of the SHA-256 of the public key, and a random number on a token that lets
/// nobody change it afterwards. The key has signed once and was checked as when it is opened; if that fails it is removed.
///
/// # Errors
/// [`Error::LabelTaken`] when any object has that label, [`Error::WriteProtected`], [`Error::Mechanism`], and those of
/// finding a token and logging in.
pub fn create_pkcs11(
    module: &Path,
    uri: &Pkcs11Uri,
    pin: &SecretSource,
    label: &str,
    algorithm: Algorithm,
) -> Result<CreatedKey, Error> {
    create(module, uri, Pin::read(pin)?, &Naming::New(label), algorithm)
}

/// Makes a key pair as [`create_pkcs11`] does, with a PIN that was read.
pub(crate) fn create_for(
    module: &Path,
    uri: &Pkcs11Uri,
    pin: Pin,
    label: &str,
    algorithm: Algorithm,
) -> Result<CreatedKey, Error> {
    create(module, uri, pin, &Naming::New(label), algorithm)
}

/// Makes a key pair beside the one with the public key `current`, with its label: its successor.
pub(crate) fn create_successor(
    module: &Path,
    uri: &Pkcs11Uri,
    pin: Pin,
    current: &PublicKey,
    algorithm: Algorithm,
) -> Result<CreatedKey, Error> {
    create(module, uri, pin, &Naming::SuccessorOf(current), algorithm)
}

/// Where the label of a new key comes from.
enum Naming<'a> {
    /// It is this one, which no other object may have.
    New(&'a str),
    /// It is that of the key with this public key.
    SuccessorOf(&'a PublicKey),
}

fn create(
    module: &Path,
    uri: &Pkcs11Uri,
    pin: Pin,
    naming: &Naming<'_>,
    algorithm: Algorithm,
) -> Result<CreatedKey, Error> {
    uri.require_private_key()?;
    if let Naming::New(label) = naming {
        check_label(label)?;
    }
    let module = Module::load(module)?;
    let sessions = Sessions::open_for_writing(&module, uri, &mut Login::new(pin))?;
    token::require_mechanism(&sessions, token::generating_mechanism(algorithm))?;
    token::require_mechanism(&sessions, token::signing_mechanism(algorithm))?;
    let label = match naming {
        Naming::SuccessorOf(current) => key::find_wanted(&sessions, uri, current)?.label,
        Naming::New(label) => {
            let taken =
                sessions.call(|session| session.find_objects(&[Attribute::Label((*label).into())]))?;
            if !taken.is_empty() {
                return Err(Error::LabelTaken {
                    token: sessions.token_uri().to_string(),
                    label: (*label).to_owned(),
                });
            }
            (*label).to_owned()
        }
    };
    let pair = Pair::generate(&sessions, &label, algorithm)?;
    finish(&sessions, &pair, &label, algorithm).inspect_err(|_| {
        // A key that is not as it should be must not be found by the next start.
        for handle in [pair.private, pair.public] {
            let _ = sessions.call(|session| session.destroy_object(handle));
        }
    })
}

fn check_label(label: &str) -> Result<(), Error> {
    if label.is_empty() || label.len() > LABEL_BYTES_MAX {
        return Err(Error::Label {
            have: label.len(),
            max: LABEL_BYTES_MAX,
        });
    }
    Ok(())
}

/// Removes the key pair with that public key from the token that `uri` names, once it has proved by a signature that it is that.
pub(crate) fn destroy(module: &Path, uri: &Pkcs11Uri, pin: Pin, public_key: &PublicKey) -> Result<(), Error> {
    uri.require_private_key()?;
    let module = Module::load(module)?;
    let sessions = Sessions::open_for_writing(&module, uri, &mut Login::new(pin))?;
    let found = key::find_wanted(&sessions, uri, public_key)?;
    // What is found may be the only key there is, of which nothing else is known: it goes only if it is the one that is meant.
    let mut message = [0; 32];
    rand::fill(&mut message).map_err(|_| Error::Crypto {
        operation: "drawing random numbers",
    })?;
    let signature = sign_once(
        &sessions,
        found.handle,
        public_key.algorithm(),
        &message_digest(&message),
    )?;
    if !public_key.verify(&message, &signature) {
        return Err(Error::KeyNotWanted {
            place: uri.to_string(),
            wanted: public_key.key_id_text(),
            offered: vec![sessions.key_uri(&found).to_string()],
        });
    }
    let public_halves = key::public_halves(&sessions, &found, public_key)?;
    // The private half first: what is left after a failure in between is of no use to anybody.
    sessions.call(|session| session.destroy_object(found.handle))?;
    for handle in public_halves {
        sessions.call(|session| session.destroy_object(handle))?;
    }
    Ok(())
}

struct Pair {
    public: ObjectHandle,
    private: ObjectHandle,
    id: Vec<u8>,
}

impl Pair {
    /// Makes the pair, with the fullest template the module takes.
    fn generate(sessions: &Sessions, label: &str, algorithm: Algorithm) -> Result<Self, Error> {
        let mut id = vec![0; 16];
        rand::fill(&mut id).map_err(|_| Error::Crypto {
            operation: "drawing random numbers",
        })?;
        let mechanism = match algorithm {
            Algorithm::P256 => Mechanism::EccKeyPairGen,
            Algorithm::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
        };
        let attempts = point::parameters(algorithm).iter().flat_map(|parameters| {
            [Template::Strict, Template::Plain].map(|template| (*parameters, template))
        });
        let mut outcome = Err(CryptokiError::NotSupported);
        for (parameters, template) in attempts {
            let public = public_template(label, &id, parameters);
            let private = private_template(label, &id, template);
            outcome = sessions.call(|session| {
                let outcome = session.generate_key_pair(&mechanism, &public, &private);
                Ok(outcome)
            })?;
            // Only a complaint about the template is a reason to try another one.
            let is_about_the_template = matches!(
                outcome,
                Err(CryptokiError::Pkcs11(
                    RvError::AttributeTypeInvalid
                        | RvError::AttributeValueInvalid
                        | RvError::TemplateInconsistent
                        | RvError::CurveNotSupported
                        | RvError::DomainParamsInvalid
                        | RvError::FunctionFailed
                        | RvError::GeneralError,
                    _
                ))
            );
            if !is_about_the_template {
                break;
            }
        }
        let (public, private) = outcome.map_err(|error| Error::Call {
            token: sessions.token_uri().to_string(),
            cause: error.into(),
        })?;
        Ok(Self { public, private, id })
    }
}

/// How much of what the key may not do is written into the template.
#[derive(Clone, Copy)]
enum Template {
    /// Everything: some modules allow by default what is not forbidden.
    Strict,
    /// What every module knows.
    Plain,
}

fn public_template(label: &str, id: &[u8], parameters: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(parameters.to_vec()),
        Attribute::Label(label.into()),
        Attribute::Id(id.to_vec()),
    ]
}

fn private_template(label: &str, id: &[u8], template: Template) -> Vec<Attribute> {
    let mut attributes = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Label(label.into()),
        Attribute::Id(id.to_vec()),
    ];
    match template {
        Template::Strict => attributes.extend([
            Attribute::Decrypt(false),
            Attribute::Derive(false),
            Attribute::Unwrap(false),
            Attribute::SignRecover(false),
        ]),
        Template::Plain => {}
    }
    attributes
}

/// Gives the pair its identifier, checks it and has it sign once.
fn finish(sessions: &Sessions, pair: &Pair, label: &str, algorithm: Algorithm) -> Result<CreatedKey, Error> {
    let mut found = FoundKey {
        handle: pair.private,
        label: label.to_owned(),
        id: pair.id.clone(),
    };
    let checked = key::check(sessions, &found)?;
    let location = |found: &FoundKey| sessions.key_uri(found).to_string();
    let mut message = [0; 32];
    rand::fill(&mut message).map_err(|_| Error::Crypto {
        operation: "drawing random numbers",
    })?;
    let signature = sign_once(sessions, pair.private, algorithm, &message_digest(&message))?;
    let candidates = key::public_keys(sessions, &found, algorithm)?;
    if candidates.is_empty() {
        return Err(Error::PublicKeyMissing {
            key: location(&found),
        });
    }
    let public_key = candidates
        .into_iter()
        .find(|candidate| candidate.verify(&message, &signature))
        .ok_or_else(|| Error::SignatureInvalid {
            key: location(&found),
        })?;
    let id = public_key.key_id().to_vec();
    let has_new_id = [pair.private, pair.public].iter().all(|handle| {
        sessions
            .call(|session| session.update_attributes(*handle, &[Attribute::Id(id.clone())]))
            .is_ok()
    });
    if has_new_id {
        found.id = id;
    } else {
        // The two halves must not end up with different identifiers.
        for handle in [pair.private, pair.public] {
            let _ =
                sessions.call(|session| session.update_attributes(handle, &[Attribute::Id(pair.id.clone())]));
        }
    }
    Ok(CreatedKey {
        uri: sessions.key_uri(&found),
        public_key,
        origin: checked.origin,
    })
}

/// Longest label in bytes.
const LABEL_BYTES_MAX: usize = 64;
