//! The key with which the journal is encrypted on disk.
//!
//! What protects the identity protects it: `<journal>/key.token` holds a secret that only the identity's token opens again, with a
//! key that it has for that ([`ProcessSettings::unwrap_secret`]); `<journal>/key` is a sealed key file like an identity's, opened
//! with the secret of the identity's file, or with the one that `[journal] key` names. The Ed25519 key in that file does
//! nothing but sign one text; that signature is always the same (RFC 8032 §5.1.6) and known to nobody without the key, and the key
//! of the journal is derived from it. The identity key itself has no part in this.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fieldgate_config::settings::{self, Identity, SecretSource, Settings};
use fieldgate_hsm::{Algorithm, Error, FileSigner, Signer as _, process::ProcessSettings};
use fieldgate_io::storage::Directory;
use fieldgate_proto::{
    crypto::{Secret, hmac_sha256},
    journal::JournalKey,
};
use zeroize::Zeroizing;

use crate::runtime::{
    StartError,
    durable::write_durably,
    keys::{process_settings, secret_source},
};

/// What protects the key of the journal.
pub(crate) enum KeyPlace<'a> {
    /// A secret that somebody keeps for the node.
    Secret(&'a SecretSource),
    /// The token that holds the identity.
    Token(Box<ProcessSettings>),
}

impl<'a> KeyPlace<'a> {
    /// Returns what protects the key by the settings; `None` if readings are not encrypted.
    ///
    /// # Errors
    /// [`StartError`] if the settings of the token cannot be used.
    pub(crate) fn of(settings: &'a Settings) -> Result<Option<Self>, StartError> {
        let key = settings.journal.as_ref().and_then(|journal| journal.key.as_ref());
        Ok(match (key, &settings.identity) {
            (None, _) => None,
            (Some(settings::JournalKey::Secret(source)), _)
            | (
                Some(settings::JournalKey::Identity),
                Identity::File {
                    passphrase: source, ..
                },
            ) => Some(Self::Secret(source)),
            (Some(settings::JournalKey::Identity), Identity::Pkcs11 { .. }) => {
                let state_dir = &settings.node.state_dir;
                let (process, _) = process_settings(&settings.identity, &settings.sandbox, state_dir)?;
                Some(Self::Token(Box::new(process)))
            }
        })
    }

    /// Opens the key of the journal in `dir`.
    ///
    /// # Errors
    /// The secret cannot be read, or there is no key, or secret or token do not open it.
    pub(crate) fn open(&self, dir: &Path) -> Result<JournalKey, Error> {
        match self {
            Self::Secret(source) => {
                let secret = secret_source(source).read()?;
                derive(FileSigner::open(&key_path(dir), &secret)?)
            }
            Self::Token(process) => {
                let path = token_path(dir);
                let wrapped = fs::read(&path).map_err(|error| Error::FileUnreadable {
                    path,
                    cause: error.into(),
                })?;
                unwrap(process, Some(&wrapped), |_| Ok(()))
            }
        }
    }

    /// Opens the key of the journal, or makes it if there is none. Whoever calls holds the lock of the directory.
    ///
    /// # Errors
    /// As for [`open`](Self::open); or the file cannot be made.
    pub(super) fn open_or_create(&self, lock: &Directory) -> Result<JournalKey, Error> {
        let dir = lock.path();
        match self {
            Self::Secret(source) => {
                let path = key_path(dir);
                if path.exists() {
                    return self.open(dir);
                }
                let secret = secret_source(source).read()?;
                told(&path);
                derive(FileSigner::create(&path, &secret, Algorithm::Ed25519)?)
            }
            Self::Token(process) => {
                let path = token_path(dir);
                if path.exists() {
                    return self.open(dir);
                }
                tracing::info!("the token is asked for a key of the journal; a slow one may take a minute");
                unwrap(process, None, |wrapped| {
                    // Before the key is used: what nobody can open again would be lost.
                    write_durably(&path, wrapped).map_err(|error| Error::FileUnwritable {
                        path: path.clone(),
                        cause: error.into(),
                    })?;
                    told(&path);
                    Ok(())
                })
            }
        }
    }
}

fn told(path: &Path) {
    tracing::info!(file = %path.display(), "key of the journal made: without it nothing in the journal can be read");
}

/// Returns the file of the key, where a secret opens it.
fn key_path(dir: &Path) -> PathBuf {
    dir.join("key")
}

/// Returns the file of the key, where the token opens it.
fn token_path(dir: &Path) -> PathBuf {
    dir.join("key.token")
}

/// Has the token open what is wrapped, or make it, gives it to `keep` and derives the key.
fn unwrap(
    process: &ProcessSettings,
    wrapped: Option<&[u8]>,
    keep: impl FnOnce(&[u8]) -> Result<(), Error>,
) -> Result<JournalKey, Error> {
    let unwrapped = process.clone().unwrap_secret(wrapped)?;
    let unwrapped = unwrapped.ok_or_else(|| Error::FileUnreadable {
        path: PathBuf::from("key.token"),
        cause: io::Error::from(io::ErrorKind::Unsupported).into(),
    })?;
    keep(&unwrapped.wrapped)?;
    let key: Secret = hmac_sha256(TOKEN_TEXT, &[unwrapped.secret.expose()]);
    Ok(JournalKey::new(key))
}

fn derive(mut signer: FileSigner) -> Result<JournalKey, Error> {
    let signature = Zeroizing::new(signer.sign(TEXT)?);
    let key: Secret = hmac_sha256(TEXT, &[signature.as_ref()]);
    Ok(JournalKey::new(key))
}

/// What is signed, and the salt of the derivation.
const TEXT: &[u8] = b"fieldgate: key of the journal, derived from this signature";

/// The salt of the derivation from what a token unwraps.
const TOKEN_TEXT: &[u8] = b"fieldgate: key of the journal, derived from a secret that the token wraps";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_same_every_time_and_another_secret_does_not_open_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let secret = |name: &str, byte: u8| {
            let path = dir.path().join(name);
            Directory::lock(dir.path())
                .expect("nobody else uses it")
                .replace(name, &[byte; 32])
                .expect("there is room");
            SecretSource::File(path)
        };
        let (right, wrong) = (secret("right", 0xf1), secret("wrong", 0xf2));
        let (right, wrong) = (KeyPlace::Secret(&right), KeyPlace::Secret(&wrong));
        assert!(right.open(dir.path()).is_err(), "there is none yet");
        let lock = Directory::lock(dir.path()).expect("nobody else uses it");
        let made = right.open_or_create(&lock).expect("it is made");
        assert_eq!(made.id(), right.open(dir.path()).expect("it opens").id());
        assert_eq!(made.id(), right.open_or_create(&lock).expect("it opens").id());
        assert!(matches!(wrong.open(dir.path()), Err(Error::WrongKey { .. })));
        assert!(wrong.open_or_create(&lock).is_err(), "it is never replaced");
    }
}
