//! PINs and passphrases: where they come from and how they are kept.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::guarded::{self, Audience, ReadError};

/// Bytes that must not be seen: redacted in `Debug`, wiped on drop, compared in constant time.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes as they are.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Lends the bytes to the one call that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Says whether these are at least 32 bytes that nobody typed: not printable text.
    ///
    /// Such a key needs no password hash before it is used.
    pub fn is_random_key(&self) -> bool {
        self.0.len() >= RANDOM_KEY_BYTES_MIN && !is_text(&self.0)
    }

    /// Makes a secret of what a file or a variable holds: a text loses the line feed at its end, other bytes stay.
    ///
    /// A random key may end in the byte of a line feed, so only text is shortened.
    fn from_source(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        let without_line_feed = bytes
            .strip_suffix(b"\n")
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        if let Some(line) = without_line_feed.filter(|line| is_text(line)) {
            let length = line.len();
            // Vec::truncate leaves what it cuts off in memory; it is a line feed and no secret.
            bytes.truncate(length);
        }
        Self(bytes)
    }
}

/// Says whether all of it is UTF-8 without control characters.
fn is_text(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// Where a secret is found. The configuration holds this, never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file of that name in `$CREDENTIALS_DIRECTORY`, put there by the service manager.
    Credential(String),
    /// A file of mode 0600 or stricter that belongs to root or to the user of this process.
    File(PathBuf),
    /// An environment variable. Others may see it (`/proc`, crash reports): for tests and containers.
    Environment(String),
}

impl SecretSource {
    /// Reads the secret; a text loses the line feed at its end.
    ///
    /// # Errors
    /// One of the secret variants of [`Error`], which name the source and never the content.
    pub fn read(&self) -> Result<Secret, Error> {
        self.read_with(|variable| env::var_os(variable))
    }

    /// Reads the secret with the environment as an argument.
    fn read_with(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Secret, Error> {
        let bytes = match self {
            Self::Credential(name) => {
                if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
                    return Err(Error::CredentialName { name: name.clone() });
                }
                let directory = variable("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| Error::CredentialsDirectory { name: name.clone() })?;
                self.read_file(PathBuf::from(directory).join(name), Audience::ServiceManager)?
            }
            Self::File(path) => self.read_file(path.clone(), Audience::Owner)?,
            Self::Environment(name) => {
                let value = variable(name).ok_or_else(|| Error::SecretVariable {
                    variable: name.clone(),
                })?;
                let mut value = value.into_vec();
                if value.len() > SECRET_BYTES_MAX {
                    value.zeroize();
                    return Err(Error::SecretTooLong {
                        secret: self.to_string(),
                        bytes_max: SECRET_BYTES_MAX,
                    });
                }
                Zeroizing::new(value)
            }
        };
        let secret = Secret::from_source(bytes);
        if secret.expose().is_empty() {
            return Err(Error::SecretEmpty {
                secret: self.to_string(),
            });
        }
        Ok(secret)
    }

    fn read_file(&self, path: PathBuf, audience: Audience) -> Result<Zeroizing<Vec<u8>>, Error> {
        guarded::read(&path, audience, SECRET_BYTES_MAX).map_err(|error| match error {
            ReadError::Os(cause) => Error::SecretUnreadable {
                secret: self.to_string(),
                cause,
            },
            ReadError::TooLong => Error::SecretTooLong {
                secret: self.to_string(),
                bytes_max: SECRET_BYTES_MAX,
            },
            ReadError::Exposed { mode } => Error::Exposed { path, mode },
            ReadError::Owner { owner, user } => Error::Owner { path, owner, user },
        })
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(name) => write!(formatter, "credential `{name}`"),
            Self::File(path) => write!(formatter, "file {}", path.display()),
            Self::Environment(variable) => write!(formatter, "environment variable `{variable}`"),
        }
    }
}

/// Largest secret in bytes: PINs and keys are far smaller, so more means the wrong file.
const SECRET_BYTES_MAX: usize = 4096;

/// Fewest bytes of a sealing key that is used without a password hash.
pub(crate) const RANDOM_KEY_BYTES_MIN: usize = 32;

#[cfg(test)]
mod tests;
