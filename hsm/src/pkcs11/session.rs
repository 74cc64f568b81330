//! Sessions with a token, and the login.

use std::sync::Arc;

use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::RawAuthPin;

use super::key::FoundKey;
use super::module::{Entered, Module};
use super::probe::{pin_state, token_uri};
use super::token::Token;
use super::{ObjectType, Pkcs11Uri};
use crate::error::{CallError, Error, PinState};
use crate::secret::{Secret, SecretSource};

/// What happens at a login, as it happens.
#[derive(Debug)]
pub(crate) enum LoginStep<'a> {
    /// The PIN is about to be given to the token.
    Begun,
    /// The token took it.
    Accepted,
    /// The token refused it.
    Refused(&'a Secret),
    /// The token said something else.
    Other,
}

/// Is told of logins, in the middle of them: it must not call the signer.
pub(crate) type LoginWatch = Box<dyn FnMut(LoginStep<'_>) + Send>;

/// What is done with a PIN when the token says that a wrong one was given since the last login (`CKF_USER_PIN_COUNT_LOW`).
///
/// When one try is left (`CKF_USER_PIN_FINAL_TRY`) none is ever made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowCount {
    /// It is not tried: nobody knows that it is another one.
    Stop,
    /// It is tried once: it is known to differ from the one that was refused.
    TryOnce,
}

/// A user PIN that was read.
pub(crate) struct Pin {
    /// Where it came from, in words.
    pub(crate) source: String,
    /// The PIN.
    pub(crate) secret: Secret,
    /// Whether a warning of the token holds it back.
    pub(crate) low_count: LowCount,
    /// Whom to tell when it is used.
    pub(crate) watch: LoginWatch,
}

impl Pin {
    /// Reads the PIN; nobody is told of logins.
    pub(crate) fn read(source: &SecretSource) -> Result<Self, Error> {
        Ok(Self {
            source: source.to_string(),
            secret: source.read()?,
            low_count: LowCount::Stop,
            watch: Box::new(|_| {}),
        })
    }
}

/// The user PIN, and whether it was refused before.
///
/// A PIN that was refused is not tried again while the process lives: each wrong try brings the token nearer to
/// its lock, and a loop of restarts is stopped by the token's own warning flags. The first of them gives way once to a PIN that
/// is known to be another one.
pub(super) struct Login {
    pin: Pin,
    refused: Option<Error>,
}

impl Login {
    pub(super) const fn new(pin: Pin) -> Self {
        Self { pin, refused: None }
    }

    /// Logs the user in, if the token wants that.
    fn log_in(&mut self, token: &Token, session: &Session) -> Result<(), Error> {
        let name = || token_uri(&token.info).to_string();
        if !token.info.login_required() {
            return Ok(());
        }
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        // For this login alone, whatever becomes of it.
        let low_count = std::mem::replace(&mut self.pin.low_count, LowCount::Stop);
        match pin_state(&token.info) {
            None => {}
            Some(PinState::CountLow) if low_count == LowCount::TryOnce => {}
            Some(state) => return Err(Error::PinBlocked { token: name(), state }),
        }
        if !token.info.user_pin_initialized() {
            return Err(Error::PinUnset { token: name() });
        }
        if token.info.protected_authentication_path() {
            return Err(Error::PinPad { token: name() });
        }
        let pin = RawAuthPin::new(Box::new(self.pin.secret.expose().to_vec()));
        (self.pin.watch)(LoginStep::Begun);
        match session.login_with_raw(UserType::User, &pin) {
            Ok(()) => {
                (self.pin.watch)(LoginStep::Accepted);
                Ok(())
            }
            Err(CryptokiError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                // The token has not looked at the PIN.
                (self.pin.watch)(LoginStep::Other);
                Ok(())
            }
            Err(error) => {
                let is_about_the_pin = matches!(
                    error,
                    CryptokiError::Pkcs11(
                        RvError::PinIncorrect
                            | RvError::PinInvalid
                            | RvError::PinLenRange
                            | RvError::PinExpired
                            | RvError::PinLocked,
                        _
                    )
                );
                let cause = CallError::from(error);
                if is_about_the_pin {
                    (self.pin.watch)(LoginStep::Refused(&self.pin.secret));
                    let refused = Error::PinRefused {
                        token: name(),
                        secret: self.pin.source.clone(),
                        cause,
                    };
                    self.refused = Some(refused.clone());
                    return Err(refused);
                }
                (self.pin.watch)(LoginStep::Other);
                Err(Error::Call { token: name(), cause })
            }
        }
    }
}

/// A session that is closed on drop, but only in the initialisation it belongs to.
struct OwnedSession {
    /// `None` only while it is being dropped.
    session: Option<Session>,
    module: Arc<Module>,
    generation: u64,
}

impl OwnedSession {
    fn open(
        module: &Arc<Module>,
        entered: &Entered<'_>,
        slot: Slot,
        access: Access,
    ) -> Result<Self, CryptokiError> {
        let session = match access {
            Access::ReadOnly => entered.context().open_ro_session_no_drop(slot)?,
            Access::ReadWrite => entered.context().open_rw_session_no_drop(slot)?,
        };
        Ok(Self {
            session: Some(session),
            module: Arc::clone(module),
            generation: entered.generation(),
        })
    }

    fn get(&self) -> &Session {
        self.session.as_ref().expect("only `drop` takes the session")
    }
}

impl Drop for OwnedSession {
    fn drop(&mut self) {
        // In a later initialisation the number of this session may be that of another.
        let entered = self
            .module
            .try_enter()
            .filter(|entered| entered.generation() == self.generation);
        if let (Some(session), Some(_entered)) = (self.session.take(), entered) {
            // A session that cannot be closed is lost with its token.
            let _ = session.close();
        }
    }
}

/// What a session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Signing.
    ReadOnly,
    /// Making and changing objects on the token.
    ReadWrite,
}

/// The sessions of one signer: one that works and one that keeps the login.
pub(super) struct Sessions {
    // Dropped in this order, so that the login ends last.
    working: OwnedSession,
    anchor: OwnedSession,
    token: Token,
}

impl Sessions {
    /// Finds the token, opens both sessions for signing and logs in.
    pub(super) fn open(module: &Arc<Module>, uri: &Pkcs11Uri, login: &mut Login) -> Result<Self, Error> {
        Self::open_with(module, uri, login, Access::ReadOnly, Before::Nothing)
    }

    /// Does the same after a logout: the token may have forgotten a login that the module still believes in.
    pub(super) fn open_after_logout(
        module: &Arc<Module>,
        uri: &Pkcs11Uri,
        login: &mut Login,
    ) -> Result<Self, Error> {
        Self::open_with(module, uri, login, Access::ReadOnly, Before::Logout)
    }

    /// Finds the token, opens both sessions for making keys and logs in; refuses a write-protected token.
    pub(super) fn open_for_writing(
        module: &Arc<Module>,
        uri: &Pkcs11Uri,
        login: &mut Login,
    ) -> Result<Self, Error> {
        Self::open_with(module, uri, login, Access::ReadWrite, Before::Nothing)
    }

    fn open_with(
        module: &Arc<Module>,
        uri: &Pkcs11Uri,
        login: &mut Login,
        access: Access,
        before: Before,
    ) -> Result<Self, Error> {
        let entered = module.enter();
        let token = Token::find(&entered, uri)?;
        let name = token_uri(&token.info).to_string();
        if access == Access::ReadWrite && token.info.write_protected() {
            return Err(Error::WriteProtected { token: name });
        }
        let open = |access| {
            OwnedSession::open(module, &entered, token.slot, access).map_err(|error| Error::Call {
                token: name.clone(),
                cause: error.into(),
            })
        };
        let anchor = open(Access::ReadOnly)?;
        if before == Before::Logout {
            // Not being logged in is fine as well.
            let _ = anchor.get().logout();
        }
        login.log_in(&token, anchor.get())?;
        let working = open(access)?;
        drop(entered);
        Ok(Self {
            working,
            anchor,
            token,
        })
    }

    /// Closes the working session and opens another.
    pub(super) fn replace_working(&mut self) -> Result<(), Error> {
        let module = Arc::clone(&self.working.module);
        let entered = module.enter();
        if entered.generation() != self.anchor.generation {
            let cause = CallError {
                function: "C_OpenSession".to_owned(),
                code: "was not called: the module was initialised anew".to_owned(),
            };
            return Err(Error::Call {
                token: self.token_uri().to_string(),
                cause,
            });
        }
        let fresh = OwnedSession::open(&module, &entered, self.token.slot, Access::ReadOnly)
            .map_err(|error| self.call_error(error))?;
        self.working = fresh;
        Ok(())
    }

    /// Makes calls in the working session.
    ///
    /// After an error the session may hold an unfinished operation: throw it away.
    pub(super) fn call<T>(
        &self,
        calls: impl FnOnce(&Session) -> Result<T, CryptokiError>,
    ) -> Result<T, Error> {
        let entered = self.working.module.enter();
        if entered.generation() != self.working.generation {
            return Err(self.call_error(CryptokiError::Pkcs11(
                RvError::SessionHandleInvalid,
                cryptoki::context::Function::GetSessionInfo,
            )));
        }
        calls(self.working.get()).map_err(|error| self.call_error(error))
    }

    fn call_error(&self, error: CryptokiError) -> Error {
        Error::Call {
            token: self.token_uri().to_string(),
            cause: error.into(),
        }
    }

    /// Enters the module for calls that need no session.
    pub(super) fn enter(&self) -> Entered<'_> {
        self.working.module.enter()
    }

    /// Returns the slot of the token.
    pub(super) const fn slot(&self) -> Slot {
        self.token.slot
    }

    /// Returns a URI of the token.
    pub(super) fn token_uri(&self) -> Pkcs11Uri {
        token_uri(&self.token.info)
    }

    /// Returns a URI of a private key on the token.
    pub(super) fn key_uri(&self, key: &FoundKey) -> Pkcs11Uri {
        Pkcs11Uri {
            object: Some(key.label.clone()).filter(|label| !label.is_empty()),
            id: Some(key.id.clone()).filter(|id| !id.is_empty()),
            object_type: Some(ObjectType::Private),
            ..self.token_uri()
        }
    }
}

/// What is done before the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Logout,
}
