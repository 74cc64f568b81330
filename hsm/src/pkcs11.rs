//! The identity key in a PKCS#11 token.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::ObjectHandle;

use crate::error::{Error, PinState};
use crate::secret::SecretSource;
use crate::signer::{Algorithm, PublicKey, Signature, Signer, message_digest};
use crate::uri::{ObjectType, Pkcs11Uri};

mod create;
mod key;
mod module;
mod point;
mod probe;
mod session;
mod token;
mod wrapping;

pub use create::{CreatedKey, create_pkcs11};
pub use key::{KeyOrigin, KeySummary};
pub use probe::{
    Library, Probe, ProbeReport, Serials, SignLatency, SlotSummary, TokenSummary, TokenTrials, Trial,
    TrialOutcome, TrialRow, probe, probe_report,
};
pub use session::LowCount;
pub use wrapping::{WRAPPED_SECRET_BYTES, WRAPPING_LABEL, WrappedSecret};

pub(crate) use create::{create_for, create_successor, destroy};
pub(crate) use session::{LoginStep, LoginWatch, Pin};
pub(crate) use wrapping::wrapped_secret;

use module::{Found, Module};
use session::{Login, Sessions};

/// Signs with a private key that never leaves its token.
///
/// A working session signs, an idle *anchor* session beside it keeps the login alive. Only single-part calls are
/// made. After any failure the working session is thrown away, as an unfinished operation would block it for ever, and
/// the *recovery ladder* is climbed: find the key again in a new session, open all sessions anew, log in anew,
/// finalise and initialise the module. Return values are not told apart: modules disagree on them. Every signature
/// is verified before it is given out.
pub struct Pkcs11Signer {
    /// What was configured; tokens are found again by it.
    uri: Pkcs11Uri,
    /// The URI of exactly this key.
    location: String,
    module: Arc<Module>,
    login: Login,
    algorithm: Algorithm,
    public_key: PublicKey,
    /// `CKA_ID`; the key is found again by it. Empty if the key has none.
    id: Vec<u8>,
    origin: KeyOrigin,
    open: Option<OpenKey>,
    recoveries: Recoveries,
    /// Failed calls in a row; sets the pause.
    failures: u32,
}

/// A key that can be used now.
struct OpenKey {
    sessions: Sessions,
    handle: ObjectHandle,
}

/// A key that was found, and what was found out about it.
struct OpenedKey {
    location: String,
    algorithm: Algorithm,
    public_key: PublicKey,
    id: Vec<u8>,
    origin: KeyOrigin,
    key: OpenKey,
}

/// How often each rung of the recovery ladder brought a token back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recoveries {
    /// By finding the key again in a new working session.
    pub key: u64,
    /// By opening all sessions anew.
    pub session: u64,
    /// By logging out and in.
    pub login: u64,
    /// By finalising and initialising the module.
    pub module: u64,
    /// Climbs to the top that did not help.
    pub failed: u64,
}

impl Recoveries {
    /// Returns the sum of both.
    pub(crate) const fn plus(&self, other: &Self) -> Self {
        Self {
            key: self.key.saturating_add(other.key),
            session: self.session.saturating_add(other.session),
            login: self.login.saturating_add(other.login),
            module: self.module.saturating_add(other.module),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

/// A token as it shows itself without a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenState {
    /// A URI that names it.
    pub uri: Pkcs11Uri,
    /// What its flags say about the PIN, if they warn.
    pub pin_state: Option<PinState>,
    /// Whether keys can be made on it.
    pub is_write_protected: bool,
}

/// A rung of the recovery ladder, from cheap to dear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Key,
    Session,
    Login,
    Module,
}

impl Rung {
    const ALL: [Self; 4] = [Self::Key, Self::Session, Self::Login, Self::Module];
}

impl Pkcs11Signer {
    /// Opens the key: loads the module, finds the token, logs in, finds the key, checks it, and has it sign once.
    ///
    /// # Errors
    /// The first of: URI, secret, module, token absent or ambiguous, mechanism, PIN, key absent or ambiguous or
    /// unsuitable, public key. A PIN that was refused, or that the token's flags warn of, is not tried again. Where the module was
    /// initialised before and the token does not do what it is asked for, all of it is tried once more in a new initialisation.
    pub fn open(module: &Path, uri: &Pkcs11Uri, pin: &SecretSource) -> Result<Self, Error> {
        uri.require_private_key()?;
        Self::open_with(module, uri, Pin::read(pin)?, None)
    }

    /// Opens the key as [`open`](Self::open) does; with `wanted` the one with that public key, whatever others match.
    pub(crate) fn open_with(
        module: &Path,
        uri: &Pkcs11Uri,
        pin: Pin,
        wanted: Option<&PublicKey>,
    ) -> Result<Self, Error> {
        uri.require_private_key()?;
        let (module, found) = Module::load_or_find(module)?;
        let generation = module.generation();
        let mut login = Login::new(pin);
        let opened = Self::open_once(&module, uri, &mut login, wanted);
        let is_of_the_token = matches!(opened, Err(Error::Call { .. } | Error::Module { .. }));
        let opened = match found {
            // Its token may have been reset since the module was initialised; other signers climb their ladders then.
            Found::Initialized if is_of_the_token && module.reinitialize(generation).is_ok() => {
                Self::open_once(&module, uri, &mut login, wanted)
            }
            Found::Initialized | Found::Fresh => opened,
        }?;
        Ok(Self {
            uri: uri.clone(),
            location: opened.location,
            module,
            login,
            algorithm: opened.algorithm,
            public_key: opened.public_key,
            id: opened.id,
            origin: opened.origin,
            open: Some(opened.key),
            recoveries: Recoveries::default(),
            failures: 0,
        })
    }

    /// Finds token and key in the initialisation that is in force, and has the key sign once.
    fn open_once(
        module: &Arc<Module>,
        uri: &Pkcs11Uri,
        login: &mut Login,
        wanted: Option<&PublicKey>,
    ) -> Result<OpenedKey, Error> {
        let sessions = Sessions::open(module, uri, login)?;
        let found = match wanted {
            None => key::find_one(&sessions, uri)?,
            Some(wanted) => key::find_wanted(&sessions, uri, wanted)?,
        };
        let checked = key::check(&sessions, &found)?;
        token::require_mechanism(&sessions, token::signing_mechanism(checked.algorithm))?;
        let candidates = match wanted {
            None => key::public_keys(&sessions, &found, checked.algorithm)?,
            Some(wanted) => vec![*wanted],
        };
        let location = sessions.key_uri(&found);
        if candidates.is_empty() {
            return Err(Error::PublicKeyMissing {
                key: location.to_string(),
            });
        }
        // The proof that public and private key belong together, and that the token signs at all.
        let mut message = [0; 32];
        rand::fill(&mut message).map_err(|_| Error::Crypto {
            operation: "drawing random numbers",
        })?;
        let signature = sign_once(
            &sessions,
            found.handle,
            checked.algorithm,
            &message_digest(&message),
        )?;
        let public_key = candidates
            .into_iter()
            .find(|candidate| candidate.verify(&message, &signature))
            .ok_or_else(|| Error::SignatureInvalid {
                key: location.to_string(),
            })?;
        Ok(OpenedKey {
            location: location.to_string(),
            algorithm: checked.algorithm,
            public_key,
            id: found.id,
            origin: checked.origin,
            key: OpenKey {
                sessions,
                handle: found.handle,
            },
        })
    }

    /// Returns what the token says about how the key came to be.
    pub const fn origin(&self) -> KeyOrigin {
        self.origin
    }

    /// Returns description and version of the module, if it says.
    pub(crate) fn module_description(&self) -> Option<String> {
        let entered = self.module.try_enter()?;
        let library = probe::library(&entered)?;
        let (major, minor) = library.version;
        Some(format!(
            "{} {major}.{minor} ({})",
            library.description, library.manufacturer
        ))
    }

    /// Looks at the token without using it; `None` while there is none.
    pub(crate) fn token_state(&self) -> Option<TokenState> {
        let entered = self.module.try_enter()?;
        let token = token::Token::find(&entered, &self.uri).ok()?;
        Some(TokenState {
            uri: probe::token_uri(&token.info),
            pin_state: probe::pin_state(&token.info),
            is_write_protected: token.info.write_protected(),
        })
    }

    /// Lists the keys that match the URI, whatever its `id`: this one and its predecessors and successors.
    ///
    /// # Errors
    /// What the token says, and [`Error::Unavailable`] while it is away.
    pub fn keys(&self) -> Result<Vec<KeySummary>, Error> {
        let Some(OpenKey { sessions, .. }) = &self.open else {
            return Err(Error::Unavailable {
                key: self.location.clone(),
                retry_after: pause_after(self.failures),
                cause: Box::new(Error::KeyNotFound {
                    uri: self.location.clone(),
                    offered: Vec::new(),
                }),
            });
        };
        key::list(sessions, &self.uri)
    }

    /// Signs with what is open now.
    fn attempt(&self, message: &[u8], digest: &[u8; 32]) -> Result<Signature, Error> {
        let Some(OpenKey { sessions, handle }) = &self.open else {
            return Err(Error::KeyNotFound {
                uri: self.location.clone(),
                offered: Vec::new(),
            });
        };
        let signature = sign_once(sessions, *handle, self.algorithm, digest)?;
        if self.public_key.verify(message, &signature) {
            Ok(signature)
        } else {
            Err(Error::SignatureInvalid {
                key: self.location.clone(),
            })
        }
    }

    /// Does what a rung says. All old sessions are gone before new ones are opened: a module may give a new session
    /// the number of an old one, and closing the old one then closes the new.
    fn climb(&mut self, rung: Rung) -> Result<(), Error> {
        let sessions = match rung {
            Rung::Key => {
                let Some(OpenKey { mut sessions, .. }) = self.open.take() else {
                    return Err(Error::KeyNotFound {
                        uri: self.location.clone(),
                        offered: Vec::new(),
                    });
                };
                sessions.replace_working()?;
                sessions
            }
            Rung::Session => {
                self.open = None;
                Sessions::open(&self.module, &self.uri, &mut self.login)?
            }
            Rung::Login => {
                self.open = None;
                Sessions::open_after_logout(&self.module, &self.uri, &mut self.login)?
            }
            Rung::Module => {
                let generation = self.module.generation();
                self.open = None;
                self.module.reinitialize(generation)?;
                Sessions::open(&self.module, &self.uri, &mut self.login)?
            }
        };
        let handle = match self.id.is_empty() {
            true => key::find_wanted(&sessions, &self.uri, &self.public_key)?.handle,
            false => key::find_again(&sessions, &self.uri, &self.id)?.handle,
        };
        self.open = Some(OpenKey { sessions, handle });
        Ok(())
    }

    const fn count(&mut self, rung: Rung) {
        let count = match rung {
            Rung::Key => &mut self.recoveries.key,
            Rung::Session => &mut self.recoveries.session,
            Rung::Login => &mut self.recoveries.login,
            Rung::Module => &mut self.recoveries.module,
        };
        *count = count.saturating_add(1);
    }

    /// Says whether the rest of the ladder is of no use: only a person can help.
    const fn is_final(error: &Error) -> bool {
        matches!(
            error,
            Error::PinRefused { .. }
                | Error::PinBlocked { .. }
                | Error::PinUnset { .. }
                | Error::PinPad { .. }
                | Error::TokenAmbiguous { .. }
                | Error::KeyAmbiguous { .. }
        )
    }
}

impl Signer for Pkcs11Signer {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn sign(&mut self, message: &[u8]) -> Result<Signature, Error> {
        let digest = message_digest(message);
        let mut last = match self.attempt(message, &digest) {
            Ok(signature) => {
                self.failures = 0;
                return Ok(signature);
            }
            Err(error) => error,
        };
        for rung in Rung::ALL {
            match self.climb(rung).and_then(|()| self.attempt(message, &digest)) {
                Ok(signature) => {
                    self.failures = 0;
                    self.count(rung);
                    return Ok(signature);
                }
                Err(error) if Self::is_final(&error) => {
                    self.open = None;
                    return Err(error);
                }
                Err(error) => last = error,
            }
        }
        self.open = None;
        self.recoveries.failed = self.recoveries.failed.saturating_add(1);
        let retry_after = pause_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        Err(Error::Unavailable {
            key: self.location.clone(),
            retry_after,
            cause: Box::new(last),
        })
    }

    fn location(&self) -> String {
        self.location.clone()
    }

    fn recoveries(&self) -> Recoveries {
        self.recoveries
    }
}

impl fmt::Debug for Pkcs11Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pkcs11Signer")
            .field("location", &self.location)
            .field("public_key", &self.public_key)
            .field("recoveries", &self.recoveries)
            .finish_non_exhaustive()
    }
}

/// Lists the keys that match a URI, whatever its `id`.
pub(crate) fn list_keys(module: &Path, uri: &Pkcs11Uri, pin: Pin) -> Result<Vec<KeySummary>, Error> {
    uri.require_private_key()?;
    let module = Module::load(module)?;
    let sessions = Sessions::open(&module, uri, &mut Login::new(pin))?;
    key::list(&sessions, uri)
}

/// Returns the pause after a climb that did not help: 1 s, doubled up to 60 s.
pub(crate) fn pause_after(failures: u32) -> Duration {
    let doubled = 1_u64
        .checked_shl(failures)
        .filter(|seconds| *seconds != 0)
        .unwrap_or(u64::MAX);
    Duration::from_secs(doubled.min(PAUSE_SECS_MAX))
}

/// Has the token sign a digest, in one part.
///
/// The length of what goes in and what comes out is checked here: modules accept anything (ECDSA takes what it is
/// given and cuts it off).
fn sign_once(
    sessions: &Sessions,
    key: ObjectHandle,
    algorithm: Algorithm,
    digest: &[u8; 32],
) -> Result<Signature, Error> {
    let mechanism = match algorithm {
        Algorithm::P256 => Mechanism::Ecdsa,
        Algorithm::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
    };
    let signature = sessions.call(|session| session.sign(&mechanism, key, digest))?;
    Signature::try_from(signature.as_slice()).map_err(|_| Error::SignatureLength {
        have: signature.len(),
    })
}

/// Longest pause between two climbs.
const PAUSE_SECS_MAX: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<u64> = (0..8).map(|failures| pause_after(failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause_after(u32::MAX), Duration::from_secs(60));
        assert_eq!(pause_after(63), Duration::from_secs(60));
    }
}
