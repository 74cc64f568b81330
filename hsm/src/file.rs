//! The identity key in a file, sealed with a passphrase or a random key.
//!
//! ```text
//!  5 "FGKEY" | u8 version (1) | u8 algorithm | u8 derivation (1 Argon2id, 2 HKDF-SHA-256)
//!  | u32 memory in KiB | u32 passes | u32 lanes          zero for HKDF
//!  | 32 salt | public key (65 bytes P-256, 32 Ed25519)
//!  | 48 AES-256-GCM of the private scalar or seed; all bytes before are associated data
//!  | 32 SHA-256 of all bytes before
//! ```
//! Integers are big-endian. The hash at the end tells damage from a wrong passphrase; it is no protection, the
//! AEAD is. The salt is new for every file and so is the AES key, which seals this one text: the nonce is zero.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::guarded::{self, Audience, ReadError};
use crate::secret::{RANDOM_KEY_BYTES_MIN, Secret};
use crate::signer::{Algorithm, PublicKey, Signature, Signer};
use crate::software::SoftwareSigner;

mod sealed;

use sealed::Sealed;
pub use sealed::{Argon2Cost, Derivation, SealError};

/// Signs with a key that came out of a sealed file; the key is in memory while the signer lives.
#[derive(Debug)]
pub struct FileSigner {
    path: PathBuf,
    signer: SoftwareSigner,
}

impl FileSigner {
    /// Makes a new key and seals it in a new file of mode 0600; returns once it is on stable storage.
    ///
    /// The derivation is Argon2id, or HKDF for a secret that is a random key ([`Derivation::suited_to`]).
    ///
    /// # Errors
    /// [`Error::FileExists`]: no file is ever overwritten. [`Error::FileUnwritable`] leaves no file behind.
    pub fn create(path: &Path, secret: &Secret, algorithm: Algorithm) -> Result<Self, Error> {
        Self::create_with(path, secret, algorithm, Derivation::suited_to(secret))
    }

    /// Makes a new key and seals it with the given derivation.
    ///
    /// # Errors
    /// Those of [`create`](Self::create), and [`Error::KeyTooShort`] for HKDF with less than 32 bytes.
    pub fn create_with(
        path: &Path,
        secret: &Secret,
        algorithm: Algorithm,
        derivation: Derivation,
    ) -> Result<Self, Error> {
        Self::seal(path, secret, SoftwareSigner::generate(algorithm)?, derivation)
    }

    /// Seals a given key in a new file.
    ///
    /// # Errors
    /// Those of [`create_with`](Self::create_with).
    pub fn seal(
        path: &Path,
        secret: &Secret,
        signer: SoftwareSigner,
        derivation: Derivation,
    ) -> Result<Self, Error> {
        if derivation == Derivation::Hkdf && secret.expose().len() < RANDOM_KEY_BYTES_MIN {
            return Err(Error::KeyTooShort {
                have: secret.expose().len(),
                min: RANDOM_KEY_BYTES_MIN,
            });
        }
        let sealed = Sealed::seal(&signer, secret, derivation)?;
        write_new(path, &sealed.encode())?;
        Ok(Self {
            path: path.to_owned(),
            signer,
        })
    }

    /// Opens a sealed file.
    ///
    /// # Errors
    /// [`Error::Exposed`] and [`Error::Owner`] before anything is read; [`Error::FileDamaged`] when the file is not
    /// as it was written; [`Error::WrongKey`] when it is, but the secret does not open it.
    pub fn open(path: &Path, secret: &Secret) -> Result<Self, Error> {
        let sealed = read(path)?;
        let damaged = |problem| Error::FileDamaged {
            path: path.to_owned(),
            problem,
        };
        let private_key = sealed
            .open(secret)
            .map_err(damaged)?
            .ok_or_else(|| Error::WrongKey {
                path: path.to_owned(),
            })?;
        let signer = SoftwareSigner::from_private_key(&private_key, &sealed.public_key)
            .map_err(|_| damaged(SealError::Halves))?;
        Ok(Self {
            path: path.to_owned(),
            signer,
        })
    }

    /// Opens the sealed file with the key wanted: the one at `path`, or its successor beside it where
    /// [`create_next`](Self::create_next) was not yet followed by [`commit_next`](Self::commit_next).
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`Error::KeyNotWanted`] when neither file has that key.
    pub fn open_wanted(path: &Path, secret: &Secret, wanted: Option<&PublicKey>) -> Result<Self, Error> {
        let Some(wanted) = wanted else {
            return Self::open(path, secret);
        };
        // What the file says outside the seal only chooses the file; opening it proves it.
        let mut offered = Vec::new();
        for candidate in [path.to_owned(), next_path(path)] {
            match Self::dangerous_read_public_key(&candidate) {
                Ok(public_key) if public_key == *wanted => return Self::open(&candidate, secret),
                Ok(_) => offered.push(candidate.display().to_string()),
                Err(error) if candidate == path => return Err(error),
                // Most of the time there is no successor.
                Err(_) => {}
            }
        }
        Err(Error::KeyNotWanted {
            place: path.display().to_string(),
            wanted: wanted.key_id_text(),
            offered,
        })
    }

    /// Makes a successor for the key `current` at `path`, sealed in the file `<path>.next`, and opens it.
    ///
    /// The order that survives a crash anywhere:
    ///
    /// 1. `create_next`: both keys are on stable storage.
    /// 2. The caller has both sign the change and writes the new history to stable storage. Until then the old key is the
    ///    current one, and [`open_wanted`](Self::open_wanted) finds it at `path`; from then on the new one, found beside it.
    /// 3. [`commit_next`](Self::commit_next): the new file takes the place of the old one, in one step.
    ///
    /// `current` is the current key of the history on stable storage. With it a rotation that stopped after step 2 is brought to
    /// its end first, and what one that stopped before has left behind is removed: no history names it.
    ///
    /// # Errors
    /// Those of [`create`](Self::create) and [`commit_next`](Self::commit_next).
    pub fn create_next(
        path: &Path,
        secret: &Secret,
        current: &PublicKey,
        algorithm: Algorithm,
    ) -> Result<Self, Error> {
        Self::commit_next(path, current)?;
        let next = next_path(path);
        match fs::remove_file(&next) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::FileUnwritable {
                    path: next,
                    cause: error.into(),
                });
            }
            Ok(()) | Err(_) => {}
        }
        Self::create(&next, secret, algorithm)
    }

    /// Puts the successor in the place of the key at `path`; returns once that is on stable storage.
    ///
    /// Does nothing when the key at `path` is the one wanted already, so it can be called again after a crash.
    ///
    /// # Errors
    /// [`Error::KeyNotWanted`] when the successor is another one, [`Error::FileUnwritable`].
    pub fn commit_next(path: &Path, wanted: &PublicKey) -> Result<(), Error> {
        if Self::dangerous_read_public_key(path).is_ok_and(|public_key| public_key == *wanted) {
            return Ok(());
        }
        let next = next_path(path);
        if Self::dangerous_read_public_key(&next)? != *wanted {
            return Err(Error::KeyNotWanted {
                place: next.display().to_string(),
                wanted: wanted.key_id_text(),
                offered: vec![next.display().to_string()],
            });
        }
        fs::rename(&next, path)
            .and_then(|()| sync_directory_of(path))
            .map_err(|error| Error::FileUnwritable {
                path: path.to_owned(),
                cause: error.into(),
            })
    }

    /// Removes the successor beside `path` that has that public key; the key at `path` is never removed.
    ///
    /// # Errors
    /// [`Error::KeyNotWanted`] when there is no such successor, [`Error::FileUnwritable`].
    pub fn discard_next(path: &Path, public_key: &PublicKey) -> Result<(), Error> {
        let next = next_path(path);
        if Self::dangerous_read_public_key(&next).ok() != Some(*public_key) {
            return Err(Error::KeyNotWanted {
                place: next.display().to_string(),
                wanted: public_key.key_id_text(),
                offered: Vec::new(),
            });
        }
        fs::remove_file(&next)
            .and_then(|()| sync_directory_of(path))
            .map_err(|error| Error::FileUnwritable {
                path: next.clone(),
                cause: error.into(),
            })
    }

    /// Reads the public key of a sealed file without opening it.
    ///
    /// Only [`open`](Self::open) proves that the public key was not exchanged: for showing, not for trusting.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) but [`Error::WrongKey`].
    pub fn dangerous_read_public_key(path: &Path) -> Result<PublicKey, Error> {
        read(path).map(|sealed| sealed.public_key)
    }
}

impl Signer for FileSigner {
    fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    fn sign(&mut self, message: &[u8]) -> Result<Signature, Error> {
        self.signer.sign(message)
    }

    fn location(&self) -> String {
        self.path.display().to_string()
    }
}

/// Returns where the successor of the key at `path` is.
pub(crate) fn next_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

fn read(path: &Path) -> Result<Sealed, Error> {
    let damaged = |problem| Error::FileDamaged {
        path: path.to_owned(),
        problem,
    };
    let bytes = guarded::read(path, Audience::Owner, sealed::BYTES_MAX).map_err(|error| match error {
        ReadError::Os(cause) => Error::FileUnreadable {
            path: path.to_owned(),
            cause,
        },
        ReadError::TooLong => damaged(SealError::Length {
            have: sealed::BYTES_MAX.saturating_add(1),
        }),
        ReadError::Exposed { mode } => Error::Exposed {
            path: path.to_owned(),
            mode,
        },
        ReadError::Owner { owner, user } => Error::Owner {
            path: path.to_owned(),
            owner,
            user,
        },
    })?;
    Sealed::decode(&bytes).map_err(damaged)
}

/// Writes a new file of mode 0600 and waits until it and its name are on stable storage.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let unwritable = |error: std::io::Error| Error::FileUnwritable {
        path: path.to_owned(),
        cause: error.into(),
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| match error.kind() == ErrorKind::AlreadyExists {
            true => Error::FileExists {
                path: path.to_owned(),
            },
            false => unwritable(error),
        })?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_directory_of(path));
    written.map_err(|error| {
        // A half-written key is of no use to anybody; that it stays is no worse than the failure itself.
        let _ = fs::remove_file(path);
        unwritable(error)
    })
}

/// Makes the names in the directory of `path` durable.
fn sync_directory_of(path: &Path) -> std::io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
