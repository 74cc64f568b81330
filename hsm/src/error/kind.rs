//! Classes of errors, for counting.

use std::time::Duration;

use super::Error;

/// Coarse class of an [`Error`], for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// A setting is wrong: URI, module path, label.
    Settings,
    /// A secret cannot be had.
    Secret,
    /// The key file is not usable.
    File,
    /// The module or the token fails.
    Token,
    /// The PIN is refused or must not be tried.
    Pin,
    /// The key is absent, ambiguous or unsuitable.
    Key,
    /// A signature is wrong.
    Signature,
    /// The cryptographic library fails.
    Crypto,
    /// A request took too long.
    TimedOut,
    /// The worker did not take a request.
    Refused,
    /// The worker's process failed: it did not start, it crashed, it hung.
    Worker,
}

impl ErrorKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Settings,
        Self::Secret,
        Self::File,
        Self::Token,
        Self::Pin,
        Self::Key,
        Self::Signature,
        Self::Crypto,
        Self::TimedOut,
        Self::Refused,
        Self::Worker,
    ];

    /// Returns the kind's name, as metrics label it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Secret => "secret",
            Self::File => "file",
            Self::Token => "token",
            Self::Pin => "pin",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Crypto => "crypto",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::Worker => "worker",
        }
    }
}

impl Error {
    /// Returns the class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Uri(_)
            | Self::UriUnsuitable { .. }
            | Self::Contradiction { .. }
            | Self::Missing { .. }
            | Self::Label { .. }
            | Self::LabelTaken { .. } => ErrorKind::Settings,
            Self::CredentialsDirectory { .. }
            | Self::CredentialName { .. }
            | Self::SecretUnreadable { .. }
            | Self::SecretVariable { .. }
            | Self::SecretEmpty { .. }
            | Self::SecretTooLong { .. }
            | Self::Exposed { .. }
            | Self::Owner { .. } => ErrorKind::Secret,
            Self::FileExists { .. }
            | Self::FileUnreadable { .. }
            | Self::FileUnwritable { .. }
            | Self::FileDamaged { .. }
            | Self::WrongKey { .. }
            | Self::KeyTooShort { .. } => ErrorKind::File,
            Self::ModuleLoad { .. }
            | Self::Module { .. }
            | Self::TokenNotFound { .. }
            | Self::TokenAmbiguous { .. }
            | Self::Mechanism { .. }
            | Self::WriteProtected { .. }
            | Self::Call { .. } => ErrorKind::Token,
            Self::Unavailable { cause, .. } => cause.kind(),
            Self::PinPad { .. }
            | Self::PinUnset { .. }
            | Self::PinBlocked { .. }
            | Self::PinRefused { .. }
            | Self::PinRefusedBefore { .. }
            | Self::LoginDeadly { .. }
            | Self::PinMarker { .. } => ErrorKind::Pin,
            Self::KeyNotFound { .. }
            | Self::KeyAmbiguous { .. }
            | Self::KeyNotWanted { .. }
            | Self::KeyUnsuitable { .. }
            | Self::PublicKeyMissing { .. }
            | Self::NotUnwrapped { .. } => ErrorKind::Key,
            Self::SignatureInvalid { .. } | Self::SignatureLength { .. } => ErrorKind::Signature,
            Self::Crypto { .. } | Self::PrivateKey => ErrorKind::Crypto,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::QueueFull { .. } | Self::Stopped | Self::Thread(_) => ErrorKind::Refused,
            Self::WorkerStart { .. } | Self::WorkerEnded { .. } | Self::WorkerProtocol(_) => {
                ErrorKind::Worker
            }
        }
    }

    /// Returns the time after which another try can help, `None` where waiting changes nothing.
    pub const fn retry_after(&self) -> Option<Duration> {
        if let Self::Unavailable { retry_after, .. } = self {
            Some(*retry_after)
        } else {
            None
        }
    }
}
