//! The key with which the journal is encrypted on disk.
//!
//! `<journal>/key` is a sealed key file like an identity's, opened with the secret that `[journal] key` names. The Ed25519 key in
//! it does nothing but sign one text. That signature is always the same (RFC 8032 §5.1.6) and known to nobody without the
//! key, and the key of the journal is derived from it. The identity key has no part in this, so it can be in any token.

use std::path::{Path, PathBuf};

use fieldgate_config::settings::SecretSource;
use fieldgate_hsm::{Algorithm, Error, FileSigner, Signer as _};
use fieldgate_proto::{
    crypto::{Secret, hmac_sha256},
    journal::JournalKey,
};
use zeroize::Zeroizing;

use crate::runtime::keys::secret_source;

/// Returns the file of the key.
pub(crate) fn key_path(dir: &Path) -> PathBuf {
    dir.join("key")
}

/// Opens the key.
///
/// # Errors
/// The secret cannot be read, or there is no key, or the secret does not open it.
pub(crate) fn open(dir: &Path, source: &SecretSource) -> Result<JournalKey, Error> {
    let secret = secret_source(source).read()?;
    derive(FileSigner::open(&key_path(dir), &secret)?)
}

/// Opens the key, or makes it if there is none.
///
/// # Errors
/// As for [`open`]; or the file cannot be made.
pub(super) fn open_or_create(dir: &Path, source: &SecretSource) -> Result<JournalKey, Error> {
    let path = key_path(dir);
    let secret = secret_source(source).read()?;
    let signer = if path.exists() {
        FileSigner::open(&path, &secret)?
    } else {
        tracing::info!(file = %path.display(), "key of the journal made: without it nothing in the journal can be read");
        FileSigner::create(&path, &secret, Algorithm::Ed25519)?
    };
    derive(signer)
}

fn derive(mut signer: FileSigner) -> Result<JournalKey, Error> {
    let signature = Zeroizing::new(signer.sign(TEXT)?);
    let key: Secret = hmac_sha256(TEXT, &[signature.as_ref()]);
    Ok(JournalKey::new(key))
}

/// What is signed, and the salt of the derivation.
const TEXT: &[u8] = b"fieldgate: key of the journal, derived from this signature";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_same_every_time_and_another_secret_does_not_open_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let secret = |name: &str, byte: u8| {
            let path = dir.path().join(name);
            fieldgate_io::storage::Directory::lock(dir.path())
                .expect("nobody else uses it")
                .replace(name, &[byte; 32])
                .expect("there is room");
            SecretSource::File(path)
        };
        let (right, wrong) = (secret("right", 0xf1), secret("wrong", 0xf2));
        assert!(open(dir.path(), &right).is_err(), "there is none yet");
        let made = open_or_create(dir.path(), &right).expect("it is made");
        assert_eq!(made.id(), open(dir.path(), &right).expect("it opens").id());
        assert_eq!(
            made.id(),
            open_or_create(dir.path(), &right).expect("it opens").id()
        );
        assert!(matches!(open(dir.path(), &wrong), Err(Error::WrongKey { .. })));
        assert!(
            open_or_create(dir.path(), &wrong).is_err(),
            "it is never replaced"
        );
    }
}
