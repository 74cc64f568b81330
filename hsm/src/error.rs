//! Why a signer could not be opened, or could not sign.
//!
//! Errors are plain data: they can be compared, counted and sent to another process. None ever holds a
//! PIN, a passphrase or a private key.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::file::SealError;
use crate::process::wire::WireError;
use crate::uri::UriError;

mod hint;
mod kind;

pub use kind::ErrorKind;

/// A call into the operating system that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OsError {
    /// The class of failure.
    pub kind: io::ErrorKind,
    /// The system's own words.
    pub message: String,
}

impl From<io::Error> for OsError {
    fn from(error: io::Error) -> Self {
        Self {
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}

/// A PKCS#11 call that did not return `CKR_OK`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{function} returned {code}")]
pub struct CallError {
    /// The function, such as `C_Sign`.
    pub function: String,
    /// The return value, such as `CKR_DEVICE_ERROR`, or what else went wrong.
    pub code: String,
}

impl From<cryptoki::error::Error> for CallError {
    fn from(error: cryptoki::error::Error) -> Self {
        if let cryptoki::error::Error::Pkcs11(value, function) = error {
            Self {
                function: format!("C_{function:?}"),
                code: return_value_name(&format!("{value:?}")),
            }
        } else {
            Self {
                function: "the PKCS#11 module".to_owned(),
                code: error.to_string(),
            }
        }
    }
}

/// Turns `PinIncorrect` into `CKR_PIN_INCORRECT`; the crate's own texts are whole paragraphs.
fn return_value_name(camel_case: &str) -> String {
    let mut name = String::from("CKR");
    for character in camel_case.chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

/// What a token says about the user PIN before anybody tries it (`CK_TOKEN_INFO` flags).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinState {
    /// `CKF_USER_PIN_LOCKED`: no login is possible.
    Locked,
    /// `CKF_USER_PIN_FINAL_TRY`: one more wrong PIN locks it.
    FinalTry,
    /// `CKF_USER_PIN_COUNT_LOW`: a wrong PIN was given since the last login.
    CountLow,
}

impl fmt::Display for PinState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Locked => "is locked",
            Self::FinalTry => "has one try left before it locks",
            Self::CountLow => "was given wrongly since the last login",
        })
    }
}

/// Why a private key on a token cannot be an identity key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// `CKA_SENSITIVE` is false: the token would reveal the key.
    NotSensitive,
    /// `CKA_EXTRACTABLE` is true: the key can be wrapped and carried away.
    Extractable,
    /// `CKA_SIGN` is false.
    CannotSign,
    /// `CKA_ALWAYS_AUTHENTICATE` is true: every signature wants the PIN again.
    AlwaysAuthenticate,
    /// The module does not report an attribute that has to be known.
    Unreported(&'static str),
    /// The key is neither an EC nor an Edwards key.
    Type(String),
    /// The curve is neither P-256 nor Ed25519; `CKA_EC_PARAMS` in hexadecimal digits.
    Curve(String),
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSensitive => formatter.write_str("is not CKA_SENSITIVE"),
            Self::Extractable => formatter.write_str("is CKA_EXTRACTABLE"),
            Self::CannotSign => formatter.write_str("has CKA_SIGN set to false"),
            Self::AlwaysAuthenticate => {
                formatter.write_str("wants the PIN for every signature (CKA_ALWAYS_AUTHENTICATE)")
            }
            Self::Unreported(attribute) => write!(formatter, "does not report {attribute}"),
            Self::Type(found) => write!(
                formatter,
                "has the key type {found}, neither CKK_EC nor CKK_EC_EDWARDS"
            ),
            Self::Curve(found) => write!(formatter, "lies on the curve {found}, neither P-256 nor Ed25519"),
        }
    }
}

/// Where a request was when its time ran out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The signer was still being opened.
    Opening,
    /// Other requests were before it.
    Queued,
    /// The token had it and did not answer.
    Signing,
    /// The token was being left alone after a failure, whose text this is.
    Waiting(String),
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => formatter.write_str("the signer was still opening"),
            Self::Queued => formatter.write_str("other requests were before it"),
            Self::Signing => formatter.write_str("the token did not answer"),
            Self::Waiting(problem) => write!(formatter, "the token was not usable: {problem}"),
        }
    }
}

/// How a token worker process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerEnd {
    /// A signal ended it; its number.
    Signal(i32),
    /// It exited by itself; its exit code.
    Exited(i32),
    /// It gave no sign of life for this long, and was killed.
    Silent(Duration),
    /// It broke the rules of the conversation, and was killed.
    Confused,
}

impl fmt::Display for WorkerEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => write!(formatter, "was ended by signal {signal}"),
            Self::Exited(code) => write!(formatter, "exited with code {code}"),
            Self::Silent(time) => {
                write!(formatter, "was silent for {} ms and was killed", time.as_millis())
            }
            Self::Confused => formatter.write_str("did not keep to the protocol and was killed"),
        }
    }
}

/// Why a signer could not be opened or could not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A PKCS#11 URI is malformed.
    #[error("the PKCS#11 URI is not valid")]
    Uri(#[source] UriError),
    /// A PKCS#11 URI is well formed but cannot mean an identity key.
    #[error("{uri} cannot name an identity key: {reason}")]
    UriUnsuitable {
        /// The URI.
        uri: String,
        /// Why not.
        reason: &'static str,
    },
    /// Two settings say different things.
    #[error("{what} is given twice and differently: `{first}` and `{second}`")]
    Contradiction {
        /// What is given twice.
        what: &'static str,
        /// One value.
        first: String,
        /// The other value.
        second: String,
    },
    /// A setting that is needed is not there.
    #[error("{what} is not given")]
    Missing {
        /// What is missing.
        what: &'static str,
    },

    /// A credential is named, but the service manager passed none.
    #[error("credential `{name}` cannot be read: CREDENTIALS_DIRECTORY is not set")]
    CredentialsDirectory {
        /// Name of the credential.
        name: String,
    },
    /// The name of a credential is not a plain file name.
    #[error("`{name}` is not the name of a credential")]
    CredentialName {
        /// The name given.
        name: String,
    },
    /// A secret could not be read.
    #[error("{secret} cannot be read")]
    SecretUnreadable {
        /// Which secret: its source, never its value.
        secret: String,
        /// What the system said.
        #[source]
        cause: OsError,
    },
    /// An environment variable is not set.
    #[error("environment variable `{variable}` is not set")]
    SecretVariable {
        /// The variable.
        variable: String,
    },
    /// A secret has no bytes.
    #[error("{secret} is empty")]
    SecretEmpty {
        /// Which secret: its source.
        secret: String,
    },
    /// A secret is larger than any PIN or key.
    #[error("{secret} is longer than {bytes_max} bytes")]
    SecretTooLong {
        /// Which secret: its source.
        secret: String,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// A secret file can be read or written by others.
    #[error("{} has mode {mode:04o}; others may get at it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A secret file belongs to somebody else.
    #[error("{} belongs to user {owner}, neither to root nor to this process's user {user}", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// The effective user of this process.
        user: u32,
    },

    /// A key file is in the way of a new one.
    #[error("{} exists already", path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// A key file could not be read.
    #[error("key file {} cannot be read", path.display())]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: OsError,
    },
    /// A key file could not be written.
    #[error("key file {} cannot be written", path.display())]
    FileUnwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: OsError,
    },
    /// A key file is not what this program wrote.
    #[error("key file {} is not usable", path.display())]
    FileDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: SealError,
    },
    /// A key file is whole, but the passphrase or key does not open it.
    #[error("the given passphrase or key does not open key file {}", path.display())]
    WrongKey {
        /// The file.
        path: PathBuf,
    },
    /// A sealing key is too short to go without a password hash.
    #[error("a sealing key of {have} bytes is given, {min} are needed without a password hash")]
    KeyTooShort {
        /// Bytes given.
        have: usize,
        /// Bytes needed.
        min: usize,
    },

    /// The module could not be loaded.
    #[error("PKCS#11 module {} cannot be loaded", module.display())]
    ModuleLoad {
        /// The shared library.
        module: PathBuf,
        /// What the loader said.
        #[source]
        cause: CallError,
    },
    /// The module did not initialise, or did not list its slots.
    #[error("PKCS#11 module {} does not work", module.display())]
    Module {
        /// The shared library.
        module: PathBuf,
        /// The call that failed.
        #[source]
        cause: CallError,
    },
    /// No token matches the URI.
    #[error("no token matches {uri}; {}", Offered("token", offered))]
    TokenNotFound {
        /// The URI.
        uri: String,
        /// URIs of the tokens there are.
        offered: Vec<String>,
    },
    /// More than one token matches the URI.
    #[error("{uri} is ambiguous; {}", Offered("matching token", offered))]
    TokenAmbiguous {
        /// The URI.
        uri: String,
        /// URIs of the tokens that match.
        offered: Vec<String>,
    },
    /// The token lacks a mechanism.
    #[error("{token} has no {mechanism}; {}", Offered("mechanism", offered))]
    Mechanism {
        /// URI of the token.
        token: String,
        /// The mechanism that is needed.
        mechanism: &'static str,
        /// The mechanisms it has.
        offered: Vec<String>,
    },
    /// The token is write-protected, so no key can be made on it.
    #[error("{token} is write-protected")]
    WriteProtected {
        /// URI of the token.
        token: String,
    },
    /// The token takes its PIN from a pad of its own.
    #[error("{token} wants its PIN on its own keypad (CKF_PROTECTED_AUTHENTICATION_PATH)")]
    PinPad {
        /// URI of the token.
        token: String,
    },
    /// The token has no user PIN yet.
    #[error("{token} has no user PIN")]
    PinUnset {
        /// URI of the token.
        token: String,
    },
    /// The token's flags say that trying a PIN is dangerous or useless; it was not tried.
    #[error("the user PIN of {token} {state}; it was not tried")]
    PinBlocked {
        /// URI of the token.
        token: String,
        /// What the flags say.
        state: PinState,
    },
    /// The token refused the PIN; this process will not try it again.
    #[error("{token} refuses the PIN from {secret}; it will not be tried again")]
    PinRefused {
        /// URI of the token.
        token: String,
        /// Where the PIN came from.
        secret: String,
        /// The return value of C_Login.
        #[source]
        cause: CallError,
    },
    /// The PIN is one that the token has refused before; it was not tried.
    #[error("the PIN from {secret} is one that the token has refused before; it was not tried")]
    PinRefusedBefore {
        /// Where the PIN comes from.
        secret: String,
        /// The file that remembers the refusal.
        marker: PathBuf,
    },
    /// The worker died during the login again and again; no login was tried.
    #[error("the token worker died {deaths} times in a row while it logged in; no login was tried")]
    LoginDeadly {
        /// How often.
        deaths: u32,
        /// The file that remembers it, where there is one.
        marker: Option<PathBuf>,
    },
    /// The file that remembers refused PINs cannot be used.
    #[error("{}, which remembers refused PINs, is not usable", path.display())]
    PinMarker {
        /// The file.
        path: PathBuf,
        /// What the system said, or what is wrong with it.
        #[source]
        cause: OsError,
    },
    /// No private key matches the URI.
    #[error("no private key matches {uri}; {}", Offered("private key", offered))]
    KeyNotFound {
        /// The URI.
        uri: String,
        /// URIs of the private keys on the token.
        offered: Vec<String>,
    },
    /// More than one private key matches the URI.
    #[error("{uri} is ambiguous; {}", Offered("matching private key", offered))]
    KeyAmbiguous {
        /// The URI.
        uri: String,
        /// URIs of the private keys that match.
        offered: Vec<String>,
    },
    /// None of the private keys that match is the one that belongs to the public key wanted.
    #[error(
        "no private key at {place} has the public key with the identifier {wanted}; {}",
        Offered("private key", offered)
    )]
    KeyNotWanted {
        /// The URI or the path.
        place: String,
        /// First 16 bytes of the SHA-256 of the public key, in hexadecimal digits.
        wanted: String,
        /// What there is instead.
        offered: Vec<String>,
    },
    /// The private key cannot be an identity key.
    #[error("the private key {key} {problem}")]
    KeyUnsuitable {
        /// URI of the key.
        key: String,
        /// What is wrong with it.
        problem: KeyProblem,
    },
    /// The token has no public key for the private key, or none in a form that can be read.
    #[error("no usable public key belongs to the private key {key}")]
    PublicKeyMissing {
        /// URI of the private key.
        key: String,
    },
    /// A wrapped secret does not open: the token has another key, or the bytes were damaged.
    #[error("what is wrapped does not open with {key}")]
    NotUnwrapped {
        /// URI of the key, or of the token.
        key: String,
    },
    /// A signature of the key is not verified by any public key that is said to belong to it.
    #[error("the token's signature does not verify with the public key of {key}")]
    SignatureInvalid {
        /// URI of the private key.
        key: String,
    },
    /// A signature has the wrong length.
    #[error("the token's signature has {have} bytes instead of 64")]
    SignatureLength {
        /// Bytes received.
        have: usize,
    },
    /// An object with that label is on the token already.
    #[error("{token} already holds an object with the label `{label}`")]
    LabelTaken {
        /// URI of the token.
        token: String,
        /// The label.
        label: String,
    },
    /// A label is empty or too long.
    #[error("a key label has {have} bytes, outside 1..={max}")]
    Label {
        /// Bytes given.
        have: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A call failed while the token was being opened or a key made.
    #[error("{token} failed")]
    Call {
        /// URI of the token.
        token: String,
        /// The call.
        #[source]
        cause: CallError,
    },
    /// The token does not sign, and the whole recovery ladder did not help.
    #[error("{key} is not usable at the moment, next try in {} s", retry_after.as_secs())]
    Unavailable {
        /// URI of the key.
        key: String,
        /// Time to leave the token alone, 1 s to 60 s.
        retry_after: Duration,
        /// What failed last.
        #[source]
        cause: Box<Self>,
    },

    /// The cryptographic library failed.
    #[error("{operation} failed")]
    Crypto {
        /// What was being done.
        operation: &'static str,
    },
    /// A private key given to a software signer is not usable.
    #[error("the private key does not belong to its public key")]
    PrivateKey,

    /// A request was not answered in its time.
    #[error("no signature after {} ms: {stage}", after.as_millis())]
    TimedOut {
        /// Time the request was given.
        after: Duration,
        /// Where it was.
        stage: Stage,
    },
    /// The queue of the worker is full.
    #[error("{limit} requests of this priority are waiting already")]
    QueueFull {
        /// The limit.
        limit: usize,
    },
    /// The worker has ended.
    #[error("the signing worker has ended")]
    Stopped,
    /// The worker's threads could not be started.
    #[error("the signing worker cannot be started")]
    Thread(#[source] OsError),
    /// The worker's process could not be started.
    #[error("the token worker's process cannot be started from {}", program.display())]
    WorkerStart {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        cause: OsError,
    },
    /// The worker's process ended before it had answered.
    #[error("the token worker {how}")]
    WorkerEnded {
        /// How it ended.
        how: WorkerEnd,
    },
    /// The worker's process and this one do not understand each other.
    #[error("the token worker is not understood")]
    WorkerProtocol(#[source] WireError),
}

/// Says what there is instead: at most [`OFFERED_MAX`] entries.
struct Offered<'a>(&'static str, &'a [String]);

impl fmt::Display for Offered<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(what, entries) = self;
        if entries.is_empty() {
            return write!(formatter, "there is no {what}");
        }
        write!(formatter, "{what}s: ")?;
        for (index, entry) in entries.iter().take(OFFERED_MAX).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(formatter, "{separator}{entry}")?;
        }
        match entries.len().checked_sub(OFFERED_MAX) {
            None | Some(0) => Ok(()),
            Some(more) => write!(formatter, " and {more} more"),
        }
    }
}

/// Entries of a list of candidates that an error prints.
const OFFERED_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_return_values_as_the_standard_does() {
        assert_eq!(return_value_name("PinIncorrect"), "CKR_PIN_INCORRECT");
        assert_eq!(
            return_value_name("CryptokiNotInitialized"),
            "CKR_CRYPTOKI_NOT_INITIALIZED"
        );
        let call = CallError::from(cryptoki::error::Error::Pkcs11(
            cryptoki::error::RvError::DeviceRemoved,
            cryptoki::context::Function::SignInit,
        ));
        assert_eq!(call.to_string(), "C_SignInit returned CKR_DEVICE_REMOVED");
    }

    #[test]
    fn lists_what_there_is_instead() {
        let none = Error::TokenNotFound {
            uri: "pkcs11:token=a".into(),
            offered: vec![],
        };
        assert_eq!(
            none.to_string(),
            "no token matches pkcs11:token=a; there is no token"
        );
        let two = Error::KeyAmbiguous {
            uri: "pkcs11:token=a".into(),
            offered: vec!["x".into(), "y".into()],
        };
        assert_eq!(
            two.to_string(),
            "pkcs11:token=a is ambiguous; matching private keys: x, y"
        );
        let many = Error::KeyNotFound {
            uri: "u".into(),
            offered: vec!["k".into(); 40],
        };
        assert!(many.to_string().ends_with(" and 8 more"));
    }

    #[test]
    fn only_an_unavailable_token_is_worth_waiting_for() {
        let cause = Box::new(Error::TokenNotFound {
            uri: "u".into(),
            offered: vec![],
        });
        let retry_after = Duration::from_secs(2);
        let error = Error::Unavailable {
            key: "k".into(),
            retry_after,
            cause,
        };
        assert_eq!(error.retry_after(), Some(retry_after));
        assert_eq!(error.kind(), ErrorKind::Token);
        assert_eq!(Error::Stopped.retry_after(), None);
    }
}
