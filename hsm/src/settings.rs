//! What the configuration says about the identity key.

use std::path::PathBuf;

use crate::error::Error;
use crate::file::FileSigner;
use crate::pkcs11::{KeySummary, Pin, Pkcs11Signer, create_pkcs11, create_successor, destroy, list_keys};
use crate::secret::SecretSource;
use crate::signer::{Algorithm, PublicKey, Signer};
use crate::uri::Pkcs11Uri;

/// Where the identity key is: exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a process has one of it")]
pub enum Settings {
    /// In a PKCS#11 token.
    Pkcs11 {
        /// The module: a shared library.
        module: PathBuf,
        /// Which token and which key.
        uri: Pkcs11Uri,
        /// Where the user PIN is found.
        pin: SecretSource,
        /// What the worker process may do beyond the usual.
        sandbox: SandboxSettings,
    },
    /// In a sealed file.
    File {
        /// The file.
        path: PathBuf,
        /// Where the passphrase or the key that seals it is found.
        key: SecretSource,
    },
}

/// What the module needs beyond what every module gets: libraries and settings of the system, the devices of tokens, the
/// directories where SoftHSM2, tpm2-pkcs11 and kryoptic keep theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxSettings {
    /// Files and directories it may read, write and execute.
    pub extra_paths: Vec<PathBuf>,
    /// Whether it may open IP sockets: for HSMs in the network and TPMs behind TCP.
    pub network: bool,
    /// Names of further variables of the environment; one that ends in `*` stands for all that begin so.
    pub environment: Vec<String>,
}

impl Settings {
    /// Brings together what the URI and the settings beside it say about a token.
    ///
    /// The module may be given by `module` or by `module-path` in the URI, the PIN by `pin` or by `pin-source`.
    ///
    /// # Errors
    /// [`Error::Contradiction`] when both are given and differ, [`Error::Missing`] when neither is, [`Error::Uri`] for
    /// a `pin-source` that cannot be used, [`Error::UriUnsuitable`] for a URI that cannot mean a private key.
    pub fn pkcs11(uri: Pkcs11Uri, module: Option<PathBuf>, pin: Option<SecretSource>) -> Result<Self, Error> {
        uri.require_private_key()?;
        let show_path = |path: &PathBuf| path.display().to_string();
        let module = one_of("the PKCS#11 module", module, uri.module_path.clone(), show_path)?;
        let pin_of_uri = uri.pin_secret().map_err(Error::Uri)?;
        let pin = one_of("the place of the PIN", pin, pin_of_uri, SecretSource::to_string)?;
        Ok(Self::Pkcs11 {
            module,
            uri,
            pin,
            sandbox: SandboxSettings::default(),
        })
    }

    /// Returns where the PIN or the sealing key is found.
    pub const fn secret(&self) -> &SecretSource {
        match self {
            Self::Pkcs11 { pin, .. } => pin,
            Self::File { key, .. } => key,
        }
    }

    /// Opens the signer in this process; exactly one key must match.
    ///
    /// A token may take its time, and its module may crash: a node uses
    /// [`Worker::start_process`](crate::Worker::start_process).
    ///
    /// # Errors
    /// Whatever keeps the key from being used, with the candidates where a choice failed.
    pub fn open(&self) -> Result<Box<dyn Signer>, Error> {
        self.open_key(None)
    }

    /// Opens the signer in this process; with `wanted` the key with that public key, and others may match as well.
    ///
    /// After a rotation a token holds several keys with the same label, and a file its successor beside it. The `id` of a URI then
    /// does not choose: the public key says more.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`Error::KeyNotWanted`] when no key has that public key.
    pub fn open_key(&self, wanted: Option<&PublicKey>) -> Result<Box<dyn Signer>, Error> {
        match self {
            Self::Pkcs11 { module, uri, pin, .. } => {
                uri.require_private_key()?;
                let signer = Pkcs11Signer::open_with(module, uri, Pin::read(pin)?, wanted)?;
                Ok(Box::new(signer))
            }
            Self::File { path, key } => Ok(Box::new(FileSigner::open_wanted(path, &key.read()?, wanted)?)),
        }
    }

    /// Lists the keys that match, whatever the `id` of the URI; none for a sealed file.
    ///
    /// # Errors
    /// Those of finding a token and logging in.
    pub fn keys(&self) -> Result<Vec<KeySummary>, Error> {
        match self {
            Self::Pkcs11 { module, uri, pin, .. } => list_keys(module, uri, Pin::read(pin)?),
            Self::File { .. } => Ok(Vec::new()),
        }
    }

    /// Makes a new key at the place the settings name, and returns it open.
    ///
    /// On a token the label is `object` of the URI, `fieldgate-identity` where it names none; the URI of exactly the
    /// new key is the signer's [`location`](Signer::location).
    ///
    /// # Errors
    /// [`Error::LabelTaken`] and [`Error::FileExists`]: no key is ever replaced.
    pub fn create(&self, algorithm: Algorithm) -> Result<Box<dyn Signer>, Error> {
        match self {
            Self::Pkcs11 { module, uri, pin, .. } => {
                let label = uri.object.as_deref().unwrap_or(DEFAULT_LABEL);
                let created = create_pkcs11(module, uri, pin, label, algorithm)?;
                Ok(Box::new(Pkcs11Signer::open(module, &created.uri, pin)?))
            }
            Self::File { path, key } => Ok(Box::new(FileSigner::create(path, &key.read()?, algorithm)?)),
        }
    }

    /// Makes a successor for the key `current`, and returns it open; the old key stays.
    ///
    /// On a token it has the label of the current key and an identifier of its own. For a file see
    /// [`FileSigner::create_next`], which tells the order of steps that survives a crash.
    ///
    /// # Errors
    /// Those of [`create`](Self::create) but that others have the label, and [`Error::KeyNotWanted`] when `current` is not there.
    pub fn create_next(&self, current: &PublicKey, algorithm: Algorithm) -> Result<Box<dyn Signer>, Error> {
        match self {
            Self::Pkcs11 { module, uri, pin, .. } => {
                let created = create_successor(module, uri, Pin::read(pin)?, current, algorithm)?;
                Ok(Box::new(Pkcs11Signer::open(module, &created.uri, pin)?))
            }
            Self::File { path, key } => Ok(Box::new(FileSigner::create_next(
                path,
                &key.read()?,
                current,
                algorithm,
            )?)),
        }
    }

    /// Makes the successor with that public key the key the settings name, once its history is on stable storage.
    ///
    /// Nothing is to be done on a token. Can be called again after a crash.
    ///
    /// # Errors
    /// Those of [`FileSigner::commit_next`].
    pub fn commit_next(&self, public_key: &PublicKey) -> Result<(), Error> {
        match self {
            Self::Pkcs11 { .. } => Ok(()),
            Self::File { path, .. } => FileSigner::commit_next(path, public_key),
        }
    }

    /// Removes a key that is not needed any more: on a token the pair with that public key, of files the successor that was
    /// never committed. The caller makes sure that it is not the current key.
    ///
    /// # Errors
    /// [`Error::KeyNotWanted`] when there is no such key, and those of finding a token and logging in.
    pub fn destroy(&self, public_key: &PublicKey) -> Result<(), Error> {
        match self {
            Self::Pkcs11 { module, uri, pin, .. } => destroy(module, uri, Pin::read(pin)?, public_key),
            Self::File { path, .. } => FileSigner::discard_next(path, public_key),
        }
    }
}

/// Takes the one value that is given, or the same given twice.
fn one_of<T: PartialEq>(
    what: &'static str,
    first: Option<T>,
    second: Option<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, Error> {
    match (first, second) {
        (Some(first), Some(second)) if first != second => Err(Error::Contradiction {
            what,
            first: show(&first),
            second: show(&second),
        }),
        (Some(value), _) | (None, Some(value)) => Ok(value),
        (None, None) => Err(Error::Missing { what }),
    }
}

/// Label of an identity key whose URI names none.
pub(crate) const DEFAULT_LABEL: &str = "fieldgate-identity";

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Pkcs11Uri {
        text.parse().unwrap()
    }

    #[test]
    fn module_and_pin_come_from_either_place() {
        let expected = Settings::Pkcs11 {
            module: "/m.so".into(),
            uri: uri("pkcs11:token=a?pin-source=file:/pin&module-path=/m.so"),
            pin: SecretSource::File("/pin".into()),
            sandbox: SandboxSettings::default(),
        };
        let full = uri("pkcs11:token=a?pin-source=file:/pin&module-path=/m.so");
        assert_eq!(Settings::pkcs11(full.clone(), None, None), Ok(expected.clone()));
        let pin = SecretSource::File("/pin".into());
        assert_eq!(
            Settings::pkcs11(full.clone(), Some("/m.so".into()), Some(pin)),
            Ok(expected)
        );

        let other = Settings::pkcs11(full.clone(), Some("/n.so".into()), None);
        assert!(matches!(
            other,
            Err(Error::Contradiction {
                what: "the PKCS#11 module",
                ..
            })
        ));
        let other = Settings::pkcs11(full, None, Some(SecretSource::Credential("pin".into())));
        assert!(matches!(
            other,
            Err(Error::Contradiction {
                what: "the place of the PIN",
                ..
            })
        ));
        let missing = Settings::pkcs11(uri("pkcs11:token=a"), Some("/m.so".into()), None);
        assert_eq!(
            missing,
            Err(Error::Missing {
                what: "the place of the PIN"
            })
        );
        let program = Settings::pkcs11(
            uri("pkcs11:token=a?pin-source=|/bin/ask"),
            Some("/m.so".into()),
            None,
        );
        assert!(matches!(program, Err(Error::Uri(_))));
    }

    #[test]
    fn a_rotation_survives_a_stop_after_each_step() {
        use std::os::unix::fs::OpenOptionsExt;
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("credential");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&key)
            .unwrap();
        std::io::Write::write_all(&mut file, &[0xee; 32]).unwrap();
        let path = directory.path().join("identity");
        let next_path = directory.path().join("identity.next");
        let settings = Settings::File {
            path: path.clone(),
            key: SecretSource::File(key),
        };
        let opened = |wanted: &PublicKey| settings.open_key(Some(wanted)).map(|signer| *signer.public_key());
        let first = *settings.create(Algorithm::P256).unwrap().public_key();

        // Stopped after the first step: the old key is the current one, and what is left behind is replaced.
        let left = *settings
            .create_next(&first, Algorithm::P256)
            .unwrap()
            .public_key();
        assert_eq!((opened(&first), opened(&left)), (Ok(first), Ok(left)));
        std::fs::write(&next_path, b"half of a file").unwrap();
        assert_eq!(opened(&first), Ok(first));
        let second = *settings
            .create_next(&first, Algorithm::Ed25519)
            .unwrap()
            .public_key();
        assert!(matches!(opened(&left), Err(Error::KeyNotWanted { .. })));

        // Stopped after the second: the new key is the current one, and the next rotation ends this one first.
        assert_eq!(opened(&second), Ok(second));
        let third = *settings
            .create_next(&second, Algorithm::P256)
            .unwrap()
            .public_key();
        assert_eq!(FileSigner::dangerous_read_public_key(&path), Ok(second));

        // The whole way, and the last step twice.
        settings.commit_next(&third).unwrap();
        settings.commit_next(&third).unwrap();
        assert_eq!(settings.open().unwrap().public_key(), &third);
        assert!(!next_path.exists());
        for wrong in [&first, &second] {
            assert!(settings.commit_next(wrong).is_err());
            assert!(matches!(settings.destroy(wrong), Err(Error::KeyNotWanted { .. })));
            assert!(settings.create_next(wrong, Algorithm::P256).is_err());
        }
        // Only what was never committed is removed, never the key itself.
        let fourth = *settings
            .create_next(&third, Algorithm::P256)
            .unwrap()
            .public_key();
        assert!(settings.destroy(&third).is_err());
        settings.destroy(&fourth).unwrap();
        assert!(!next_path.exists() && path.exists());
    }

    #[test]
    fn a_file_is_created_and_opened() {
        use std::os::unix::fs::OpenOptionsExt;
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("credential");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&key)
            .unwrap();
        std::io::Write::write_all(&mut file, &[0xee; 32]).unwrap();
        let settings = Settings::File {
            path: directory.path().join("identity"),
            key: SecretSource::File(key),
        };
        assert!(matches!(
            settings.open().map(|_| ()),
            Err(Error::FileUnreadable { .. })
        ));
        let created = settings.create(Algorithm::P256).unwrap();
        let mut signer = settings.open().unwrap();
        let signature = signer.sign(b"message").unwrap();
        assert!(created.public_key().verify(b"message", &signature));
        assert!(matches!(
            settings.create(Algorithm::P256).map(|_| ()),
            Err(Error::FileExists { .. })
        ));
    }
}
