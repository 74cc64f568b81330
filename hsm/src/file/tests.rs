use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

/// The cheapest cost allowed, so that the tests spend their time on what they test.
fn cheap() -> Derivation {
    Derivation::Argon2id(Argon2Cost::new(1024, 1, 1).unwrap())
}

fn passphrase() -> Secret {
    Secret::new(b"correct horse battery staple".to_vec())
}

#[test]
fn a_key_survives_in_its_file() {
    let directory = tempfile::tempdir().unwrap();
    for (algorithm, derivation) in [(Algorithm::P256, cheap()), (Algorithm::Ed25519, Derivation::Hkdf)] {
        let path = directory.path().join(algorithm.name());
        let secret = match derivation {
            Derivation::Argon2id(_) => passphrase(),
            Derivation::Hkdf => Secret::new(vec![0xe1; 32]),
        };
        let created = FileSigner::create_with(&path, &secret, algorithm, derivation).unwrap();
        let mut opened = FileSigner::open(&path, &secret).unwrap();
        assert_eq!(opened.public_key(), created.public_key());
        assert_eq!(
            FileSigner::dangerous_read_public_key(&path).unwrap(),
            *created.public_key()
        );
        let signature = opened.sign(b"message").unwrap();
        assert!(created.public_key().verify(b"message", &signature));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(opened.location(), path.display().to_string());
    }
}

#[test]
fn the_default_cost_is_paid_for_a_passphrase_only() {
    assert_eq!(
        Derivation::suited_to(&passphrase()),
        Derivation::Argon2id(Argon2Cost::DEFAULT)
    );
    assert_eq!(
        Derivation::suited_to(&Secret::new(vec![0xe1; 32])),
        Derivation::Hkdf
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    FileSigner::create(&path, &passphrase(), Algorithm::P256).unwrap();
    FileSigner::open(&path, &passphrase()).unwrap();
}

#[test]
fn a_wrong_passphrase_is_told_from_damage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    FileSigner::create_with(&path, &passphrase(), Algorithm::P256, cheap()).unwrap();
    let wrong = Secret::new(b"correct horse battery stapler".to_vec());
    assert_eq!(
        FileSigner::open(&path, &wrong).unwrap_err(),
        Error::WrongKey { path: path.clone() }
    );

    let mut bytes = fs::read(&path).unwrap();
    bytes[60] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let problem = SealError::Checksum;
    assert_eq!(
        FileSigner::open(&path, &passphrase()).unwrap_err(),
        Error::FileDamaged {
            path: path.clone(),
            problem
        }
    );

    fs::write(&path, vec![b'F'; 100_000]).unwrap();
    assert!(matches!(
        FileSigner::open(&path, &passphrase()),
        Err(Error::FileDamaged { .. })
    ));
    fs::write(&path, b"").unwrap();
    assert!(matches!(
        FileSigner::open(&path, &passphrase()),
        Err(Error::FileDamaged {
            problem: SealError::Magic,
            ..
        })
    ));
}

#[test]
fn a_file_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, b"precious").unwrap();
    let error = FileSigner::create_with(&path, &passphrase(), Algorithm::P256, cheap()).unwrap_err();
    assert_eq!(error, Error::FileExists { path: path.clone() });
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    let nowhere = directory.path().join("absent/key");
    let error = FileSigner::create_with(&nowhere, &passphrase(), Algorithm::P256, cheap()).unwrap_err();
    assert!(matches!(error, Error::FileUnwritable { .. }));
    assert!(matches!(
        FileSigner::open(&nowhere, &passphrase()),
        Err(Error::FileUnreadable { .. })
    ));
}

#[test]
fn a_file_open_to_others_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    FileSigner::create_with(&path, &passphrase(), Algorithm::P256, cheap()).unwrap();
    for mode in [0o640, 0o604, 0o660, 0o622] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = FileSigner::open(&path, &passphrase()).unwrap_err();
        assert_eq!(
            error,
            Error::Exposed {
                path: path.clone(),
                mode
            }
        );
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    FileSigner::open(&path, &passphrase()).unwrap();
}

#[test]
fn a_short_key_needs_the_password_hash() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let short = Secret::new(vec![0xe1; 31]);
    let error = FileSigner::create_with(&path, &short, Algorithm::P256, Derivation::Hkdf).unwrap_err();
    assert_eq!(error, Error::KeyTooShort { have: 31, min: 32 });
    assert!(!path.exists());
}

#[test]
fn a_file_of_foreign_halves_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let secret = Secret::new(vec![0xe1; 32]);
    let signer = SoftwareSigner::generate(Algorithm::Ed25519).unwrap();
    let other = SoftwareSigner::generate(Algorithm::Ed25519).unwrap();
    FileSigner::seal(&path, &secret, signer, Derivation::Hkdf).unwrap();
    // The public key is associated data, so exchanging it alone already fails as a wrong key.
    let mut sealed = read(&path).unwrap();
    sealed.public_key = *other.public_key();
    fs::write(&path, sealed.encode()).unwrap();
    assert_eq!(
        FileSigner::open(&path, &secret).unwrap_err(),
        Error::WrongKey { path }
    );
}
