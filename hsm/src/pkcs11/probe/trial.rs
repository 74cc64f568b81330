//! Trying out what a token can do, without leaving anything on it.

use std::path::Path;

use aws_lc_rs::agreement::{ECDH_P256, X25519};
use aws_lc_rs::rand;
use cryptoki::error::Error as CryptokiError;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;

use super::report::{SignLatency, TokenTrials, TrialOutcome, TrialRow, time};
use crate::clock;
use crate::error::Error;
use crate::pkcs11::module::Module;
use crate::pkcs11::point;
use crate::pkcs11::session::{Login, Pin, Sessions};
use crate::secret::SecretSource;
use crate::signer::{Algorithm, PublicKey, Signature, message_digest};
use crate::uri::Pkcs11Uri;

mod agreement;

use agreement::Agreement;

/// Tries out the token that `uri` names.
pub(super) fn run(module: &Path, uri: &Pkcs11Uri, pin: &SecretSource) -> Result<TokenTrials, Error> {
    uri.require_private_key()?;
    let module = Module::load(module)?;
    let mut login = Login::new(Pin::read(pin)?);
    let sessions = Sessions::open_for_writing(&module, uri, &mut login)?;
    let mut random = [0; 8];
    rand::fill(&mut random).map_err(|_| Error::Crypto {
        operation: "drawing random numbers",
    })?;
    let entered = sessions.enter();
    // A token that does not list its mechanisms offers none.
    let mechanisms = entered
        .context()
        .get_mechanism_list(sessions.slot())
        .unwrap_or_default();
    drop(entered);
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut token = TokenOnTrial {
        sessions: &sessions,
        mechanisms,
        label: format!("{LABEL}{digits}"),
        key: None,
        signing: None,
    };
    let left_earlier = token.labelled(|label| label.starts_with(LABEL)).len();
    let trials: [(&'static str, Row<'_>); 13] = [
        (
            "P-256 key on the token, sensitive, not extractable",
            TokenOnTrial::p256_key,
        ),
        ("CKA_EC_POINT of a P-256 key", TokenOnTrial::ec_point),
        ("P-256 key as session object", TokenOnTrial::p256_session_key),
        ("CKM_ECDSA over 32 bytes", TokenOnTrial::ecdsa),
        (
            "CKM_ECDSA checks that 32 bytes are given",
            TokenOnTrial::ecdsa_long,
        ),
        ("CKM_ECDSA_SHA256", TokenOnTrial::ecdsa_sha256),
        ("CKM_ECDH1_DERIVE on P-256", TokenOnTrial::ecdh_p256),
        ("Ed25519 key on the token, CKM_EDDSA", TokenOnTrial::ed25519),
        ("X25519 key, CKM_ECDH1_DERIVE", TokenOnTrial::x25519),
        ("AES-256 key, CKM_AES_GCM over 1 KiB", TokenOnTrial::aes_gcm),
        ("C_GenerateRandom of 32 bytes", TokenOnTrial::random),
        ("ML-DSA offered", TokenOnTrial::ml_dsa),
        ("ML-KEM offered", TokenOnTrial::ml_kem),
    ];
    let rows = trials
        .into_iter()
        .map(|(what, trial)| {
            let outcome = match trial(&mut token) {
                Ok(detail) => TrialOutcome::Works { detail },
                Err(outcome) => outcome,
            };
            TrialRow { what, outcome }
        })
        .collect();
    let left_behind = token.clear();
    Ok(TokenTrials {
        token: sessions.token_uri(),
        label: token.label.clone(),
        rows,
        signing: token.signing,
        left_behind,
        left_earlier,
    })
}

/// A trial: detail where it works, anything else where it does not.
type Row<'a> = fn(&mut TokenOnTrial<'a>) -> Result<String, TrialOutcome>;

struct TokenOnTrial<'a> {
    sessions: &'a Sessions,
    mechanisms: Vec<MechanismType>,
    label: String,
    /// The P-256 key on the token, once there is one.
    key: Option<Key>,
    signing: Option<SignLatency>,
}

#[derive(Clone, Copy)]
struct Key {
    public: ObjectHandle,
    private: ObjectHandle,
    public_key: PublicKey,
}

impl TokenOnTrial<'_> {
    /// Makes calls in a session of their own. It is closed afterwards: its objects go with it, and an operation that
    /// failed half-way blocks nobody.
    fn session<T>(&self, calls: impl FnOnce(&Session) -> Result<T, TrialOutcome>) -> Result<T, TrialOutcome> {
        let entered = self.sessions.enter();
        let session = entered
            .context()
            .open_rw_session(self.sessions.slot())
            .map_err(failed)?;
        calls(&session)
    }

    fn needs(&self, wanted: &[(MechanismType, &'static str)]) -> Result<(), TrialOutcome> {
        let absent = wanted
            .iter()
            .find(|(mechanism, _)| !self.mechanisms.contains(mechanism));
        match absent {
            Some((_, mechanism)) => Err(TrialOutcome::NotOffered { mechanism }),
            None => Ok(()),
        }
    }

    fn key(&self) -> Result<Key, TrialOutcome> {
        self.key.ok_or(TrialOutcome::Skipped {
            needs: "a P-256 key on the token",
        })
    }

    /// Finds objects by their label. Those that do not say theirs are somebody else's.
    fn labelled(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<ObjectHandle> {
        let found = self.session(|session| {
            let mut handles = session.find_objects(&[]).map_err(failed)?;
            handles.truncate(OBJECTS_MAX);
            handles.retain(|handle| {
                let read = session.get_attributes(*handle, &[AttributeType::Label]);
                read.into_iter().flatten().any(|attribute| {
                    matches!(attribute, Attribute::Label(label) if is_wanted(&String::from_utf8_lossy(&label)))
                })
            });
            Ok(handles)
        });
        found.unwrap_or_default()
    }

    /// Destroys everything that has the label of this trial, and says how much of it is still there.
    fn clear(&self) -> usize {
        for handle in self.labelled(|label| label == self.label) {
            let _ = self.session(|session| session.destroy_object(handle).map_err(failed));
        }
        self.labelled(|label| label == self.label).len()
    }

    fn public_template(&self, parameters: &[u8], is_token: bool, use_for: Attribute) -> Vec<Attribute> {
        vec![
            Attribute::Token(is_token),
            Attribute::Private(false),
            use_for,
            Attribute::EcParams(parameters.to_vec()),
            Attribute::Label(self.label.clone().into_bytes()),
        ]
    }

    fn private_template(&self, is_token: bool, use_for: Attribute) -> Vec<Attribute> {
        vec![
            Attribute::Token(is_token),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            use_for,
            Attribute::Label(self.label.clone().into_bytes()),
        ]
    }

    /// Makes a signing key with the first of the curve's parameters that the module takes, and reads its public key.
    fn signing_key(
        &self,
        session: &Session,
        algorithm: Algorithm,
        is_token: bool,
    ) -> Result<(Key, Vec<u8>), TrialOutcome> {
        let mechanism = match algorithm {
            Algorithm::P256 => Mechanism::EccKeyPairGen,
            Algorithm::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
        };
        let mut outcome = Err(CryptokiError::NotSupported);
        for parameters in point::parameters(algorithm) {
            let public = self.public_template(parameters, is_token, Attribute::Verify(true));
            let private = self.private_template(is_token, Attribute::Sign(true));
            outcome = session.generate_key_pair(&mechanism, &public, &private);
            if outcome.is_ok() {
                break;
            }
        }
        let (public, private) = outcome.map_err(failed)?;
        let point = ec_point(session, public)?;
        let public_key = point::from_ec_point(algorithm, &point)
            .ok_or_else(|| wrong(format!("CKA_EC_POINT has {} bytes of unknown form", point.len())))?;
        let key = Key {
            public,
            private,
            public_key,
        };
        Ok((key, point))
    }

    fn p256_key(&mut self) -> Result<String, TrialOutcome> {
        self.needs(&[(MechanismType::ECC_KEY_PAIR_GEN, "CKM_EC_KEY_PAIR_GEN")])?;
        let started = clock::now();
        let (key, problems) = self.session(|session| {
            let (key, _) = self.signing_key(session, Algorithm::P256, true)?;
            Ok((key, attribute_problems(session, key.private)))
        })?;
        let took = clock::now().saturating_duration_since(started);
        self.key = Some(key);
        if problems.is_empty() {
            Ok(format!("in {}", time(took)))
        } else {
            Err(wrong(problems.join(", ")))
        }
    }

    fn ec_point(&mut self) -> Result<String, TrialOutcome> {
        let key = self.key()?;
        let point = self.session(|session| ec_point(session, key.public))?;
        Ok(match point.as_slice() {
            [0x04, 0x41, ..] if point.len() == 67 => "DER OCTET STRING, 67 bytes".to_owned(),
            [0x03, 0x42, ..] if point.len() == 68 => "DER BIT STRING, 68 bytes".to_owned(),
            _ => format!("raw, {} bytes", point.len()),
        })
    }

    fn p256_session_key(&mut self) -> Result<String, TrialOutcome> {
        self.needs(&[
            (MechanismType::ECC_KEY_PAIR_GEN, "CKM_EC_KEY_PAIR_GEN"),
            (MechanismType::ECDSA, "CKM_ECDSA"),
        ])?;
        self.session(|session| {
            let (key, _) = self.signing_key(session, Algorithm::P256, false)?;
            sign(session, &key, &Mechanism::Ecdsa, &message_digest(MESSAGE))?;
            Ok(String::new())
        })
    }

    fn ecdsa(&mut self) -> Result<String, TrialOutcome> {
        self.needs(&[(MechanismType::ECDSA, "CKM_ECDSA")])?;
        let key = self.key()?;
        let times = self.session(|session| {
            let mut times = Vec::with_capacity(SIGNATURES);
            for _ in 0..SIGNATURES {
                let started = clock::now();
                sign(session, &key, &Mechanism::Ecdsa, &message_digest(MESSAGE))?;
                times.push(clock::now().saturating_duration_since(started));
            }
            Ok(times)
        })?;
        self.signing = SignLatency::of(times);
        Ok(String::new())
    }

    /// A module that takes more than a digest cuts it off: who calls it must check the length.
    fn ecdsa_long(&mut self) -> Result<String, TrialOutcome> {
        self.needs(&[(MechanismType::ECDSA, "CKM_ECDSA")])?;
        let key = self.key()?;
        let taken = self.session(|session| Ok(session.sign(&Mechanism::Ecdsa, key.private, &[7; 64])))?;
        match taken {
            Ok(_) => Err(TrialOutcome::No {
                instead: "64 are taken; fieldgate checks it itself",
            }),
            Err(_) => Ok(String::new()),
        }
    }

    fn ecdsa_sha256(&mut self) -> Result<String, TrialOutcome> {
        self.needs(&[(MechanismType::ECDSA_SHA256, "CKM_ECDSA_SHA256")])?;
        let key = self.key()?;
        self.session(|session| sign(session, &key, &Mechanism::EcdsaSha256, MESSAGE))?;
        Ok(String::new())
    }

    fn ecdh_p256(&mut self) -> Result<String, TrialOutcome> {
        self.needs(&[
            (MechanismType::ECC_KEY_PAIR_GEN, "CKM_EC_KEY_PAIR_GEN"),
            (MechanismType::ECDH1_DERIVE, "CKM_ECDH1_DERIVE"),
        ])?;
        let curve = Agreement {
            algorithm: &ECDH_P256,
            parameters: point::parameters(Algorithm::P256),
            generate: Mechanism::EccKeyPairGen,
            point_bytes: 65,
        };
        self.agree(&curve)
    }

    fn ed25519(&mut self) -> Result<String, TrialOutcome> {
        self.needs(&[
            (
                MechanismType::ECC_EDWARDS_KEY_PAIR_GEN,
                "CKM_EC_EDWARDS_KEY_PAIR_GEN",
            ),
            (MechanismType::EDDSA, "CKM_EDDSA"),
        ])?;
        self.session(|session| {
            let (key, point) = self.signing_key(session, Algorithm::Ed25519, true)?;
            let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
            sign(session, &key, &mechanism, &message_digest(MESSAGE))?;
            let form = if point.len() == 32 { "raw" } else { "DER" };
            Ok(format!("CKA_EC_POINT is {form}, {} bytes", point.len()))
        })
    }

    fn x25519(&mut self) -> Result<String, TrialOutcome> {
        self.needs(&[
            (
                MechanismType::ECC_MONTGOMERY_KEY_PAIR_GEN,
                "CKM_EC_MONTGOMERY_KEY_PAIR_GEN",
            ),
            (MechanismType::ECDH1_DERIVE, "CKM_ECDH1_DERIVE"),
        ])?;
        let curve = Agreement {
            algorithm: &X25519,
            parameters: &[X25519_OID, X25519_NAME],
            generate: Mechanism::EccMontgomeryKeyPairGen,
            point_bytes: 32,
        };
        self.agree(&curve)
    }

    fn aes_gcm(&mut self) -> Result<String, TrialOutcome> {
        self.needs(&[
            (MechanismType::AES_KEY_GEN, "CKM_AES_KEY_GEN"),
            (MechanismType::AES_GCM, "CKM_AES_GCM"),
        ])?;
        let template = [
            Attribute::Token(false),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::ValueLen(32.into()),
            Attribute::Label(self.label.clone().into_bytes()),
        ];
        self.session(|session| {
            let key = session
                .generate_key(&Mechanism::AesKeyGen, &template)
                .map_err(failed)?;
            let plain = vec![0x5a; 1024];
            let started = clock::now();
            let mut nonce = [1; 12];
            let sealed = gcm(&mut nonce, |mechanism| session.encrypt(mechanism, key, &plain))?;
            let took = clock::now().saturating_duration_since(started);
            // The token may have chosen the nonce itself; it then stands where ours stood.
            let opened = gcm(&mut nonce, |mechanism| session.decrypt(mechanism, key, &sealed))?;
            if opened == plain && sealed.len() == 1024 + 16 {
                Ok(format!("in {}", time(took)))
            } else {
                Err(wrong("what comes out is not what went in".to_owned()))
            }
        })
    }

    fn random(&mut self) -> Result<String, TrialOutcome> {
        self.session(|session| {
            let first = session.generate_random_vec(32).map_err(failed)?;
            let started = clock::now();
            let second = session.generate_random_vec(32).map_err(failed)?;
            let took = clock::now().saturating_duration_since(started);
            if first == second || first.len() != 32 || first.iter().all(|byte| *byte == 0) {
                return Err(wrong("the bytes are not random".to_owned()));
            }
            Ok(format!("in {}", time(took)))
        })
    }

    fn ml_dsa(&mut self) -> Result<String, TrialOutcome> {
        self.needs(&[
            (MechanismType::ML_DSA_KEY_PAIR_GEN, "CKM_ML_DSA_KEY_PAIR_GEN"),
            (MechanismType::ML_DSA, "CKM_ML_DSA"),
        ])?;
        Ok(String::new())
    }

    fn ml_kem(&mut self) -> Result<String, TrialOutcome> {
        self.needs(&[
            (MechanismType::ML_KEM_KEY_PAIR_GEN, "CKM_ML_KEM_KEY_PAIR_GEN"),
            (MechanismType::ML_KEM, "CKM_ML_KEM"),
        ])?;
        Ok(String::new())
    }
}

/// Whatever ends a trial, nothing is left behind.
impl Drop for TokenOnTrial<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Signs and checks the signature.
fn sign(session: &Session, key: &Key, mechanism: &Mechanism<'_>, data: &[u8]) -> Result<(), TrialOutcome> {
    let signature = session.sign(mechanism, key.private, data).map_err(failed)?;
    let signature: Signature = signature
        .as_slice()
        .try_into()
        .map_err(|_| wrong(format!("the signature has {} bytes", signature.len())))?;
    if key.public_key.verify(MESSAGE, &signature) {
        Ok(())
    } else {
        Err(wrong("the signature does not verify".to_owned()))
    }
}

fn gcm(
    nonce: &mut [u8],
    call: impl FnOnce(&Mechanism<'_>) -> Result<Vec<u8>, CryptokiError>,
) -> Result<Vec<u8>, TrialOutcome> {
    let parameters = GcmParams::new(nonce, &[], Ulong::new(128)).map_err(failed)?;
    call(&Mechanism::AesGcm(parameters)).map_err(failed)
}

fn ec_point(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, TrialOutcome> {
    let attributes = session
        .get_attributes(key, &[AttributeType::EcPoint])
        .map_err(failed)?;
    match attributes.into_iter().next() {
        Some(Attribute::EcPoint(point)) => Ok(point),
        Some(_) | None => Err(wrong("CKA_EC_POINT is not there".to_owned())),
    }
}

/// Says which attributes of a key that was made on the token are not as they should be.
fn attribute_problems(session: &Session, key: ObjectHandle) -> Vec<String> {
    let expected = [
        (
            AttributeType::Sensitive,
            Attribute::Sensitive(true),
            "CKA_SENSITIVE",
        ),
        (
            AttributeType::Extractable,
            Attribute::Extractable(false),
            "CKA_EXTRACTABLE",
        ),
        (AttributeType::Local, Attribute::Local(true), "CKA_LOCAL"),
        (
            AttributeType::AlwaysSensitive,
            Attribute::AlwaysSensitive(true),
            "CKA_ALWAYS_SENSITIVE",
        ),
        (
            AttributeType::NeverExtractable,
            Attribute::NeverExtractable(true),
            "CKA_NEVER_EXTRACTABLE",
        ),
    ];
    expected
        .into_iter()
        .filter_map(|(wanted, expected, name)| {
            let read = session.get_attributes(key, &[wanted]).unwrap_or_default();
            match read.first() {
                Some(value) if *value == expected => None,
                Some(_) => Some(format!("{name} is wrong")),
                None => Some(format!("{name} is not reported")),
            }
        })
        .collect()
}

fn failed(error: CryptokiError) -> TrialOutcome {
    TrialOutcome::Failed { cause: error.into() }
}

const fn wrong(problem: String) -> TrialOutcome {
    TrialOutcome::Wrong { problem }
}

/// What the label of every object of a trial begins with.
pub(super) const LABEL: &str = "fieldgate-probe-";
/// What is signed.
const MESSAGE: &[u8] = b"fieldgate probe";
/// Signatures that are timed.
const SIGNATURES: usize = 20;
/// Objects that are looked at when the trial cleans up; tokens hold far fewer.
const OBJECTS_MAX: usize = 4096;
/// 1.3.101.110, id-X25519 (RFC 8410 §3).
const X25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x6e];
/// PrintableString `curve25519` (PKCS#11 3.0 §2.3.7).
const X25519_NAME: &[u8] = b"\x13\x0acurve25519";
