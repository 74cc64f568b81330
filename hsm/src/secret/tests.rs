use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Mode, chown, mkfifoat};
use rustix::process::{Uid, geteuid};

use super::*;

fn write(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn reads_a_credential_a_file_and_a_variable() {
    let directory = tempfile::tempdir().unwrap();
    write(&directory.path().join("pin"), b"1234\n", 0o440);
    let environment = |name: &str| match name {
        "CREDENTIALS_DIRECTORY" => Some(directory.path().as_os_str().to_owned()),
        "PIN" => Some(OsString::from("5678")),
        _ => None,
    };
    let credential = SecretSource::Credential("pin".into())
        .read_with(environment)
        .unwrap();
    assert_eq!(credential.expose(), b"1234");
    let variable = SecretSource::Environment("PIN".into())
        .read_with(environment)
        .unwrap();
    assert_eq!(variable.expose(), b"5678");

    let path = directory.path().join("private");
    write(&path, b"p\xc3\xa4ss \r\n", 0o600);
    assert_eq!(SecretSource::File(path).read().unwrap().expose(), b"p\xc3\xa4ss ");
}

#[test]
fn keeps_every_byte_of_a_random_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let mut key = [0x81; 32];
    key[31] = b'\n';
    write(&path, &key, 0o400);
    let secret = SecretSource::File(path).read().unwrap();
    assert_eq!(secret.expose(), key);
    assert!(secret.is_random_key());
    assert!(!Secret::new(b"a passphrase of more than thirty-two bytes".to_vec()).is_random_key());
    assert!(!Secret::new(vec![0x81; 31]).is_random_key());
}

#[test]
fn refuses_files_that_others_can_get_at() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pin");
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o777] {
        write(&path, b"1234", mode);
        let error = SecretSource::File(path.clone()).read().unwrap_err();
        assert_eq!(
            error,
            Error::Exposed {
                path: path.clone(),
                mode
            }
        );
        assert!(error.hint().contains("chmod"));
    }
    write(&path, b"1234", 0o404);
    let source = SecretSource::Credential("pin".into());
    let environment = |_: &str| Some(directory.path().as_os_str().to_owned());
    assert!(matches!(
        source.read_with(environment),
        Err(Error::Exposed { mode: 0o404, .. })
    ));
}

#[test]
fn refuses_a_foreign_owner() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pin");
    write(&path, b"1234", 0o600);
    if geteuid().is_root() {
        chown(&path, Some(Uid::from_raw(4321)), None).unwrap();
        assert_eq!(
            SecretSource::File(path.clone()).read().unwrap_err(),
            Error::Owner {
                path,
                owner: 4321,
                user: 0
            }
        );
    } else {
        // Only root can give a file away; a file of root's is taken by everybody.
        assert_eq!(SecretSource::File(path).read().unwrap().expose(), b"1234");
    }
}

#[test]
fn refuses_what_is_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pin");
    write(&path, b"\n", 0o600);
    assert!(matches!(
        SecretSource::File(path.clone()).read(),
        Err(Error::SecretEmpty { .. })
    ));
    write(&path, &[b'7'; SECRET_BYTES_MAX + 1], 0o600);
    assert!(matches!(
        SecretSource::File(path.clone()).read(),
        Err(Error::SecretTooLong { .. })
    ));
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        SecretSource::File(path.clone()).read(),
        Err(Error::SecretUnreadable { .. })
    ));
    mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    assert!(matches!(
        SecretSource::File(path).read(),
        Err(Error::SecretUnreadable { .. })
    ));
    let directory = SecretSource::File(directory.path().to_owned());
    assert!(matches!(directory.read(), Err(Error::SecretUnreadable { .. })));

    let nothing = |_: &str| None;
    assert!(matches!(
        SecretSource::Credential("pin".into()).read_with(nothing),
        Err(Error::CredentialsDirectory { .. })
    ));
    assert!(matches!(
        SecretSource::Environment("PIN".into()).read_with(nothing),
        Err(Error::SecretVariable { .. })
    ));
    let long = |_: &str| Some(OsString::from("7".repeat(SECRET_BYTES_MAX + 1)));
    assert!(matches!(
        SecretSource::Environment("PIN".into()).read_with(long),
        Err(Error::SecretTooLong { .. })
    ));
}

#[test]
fn a_credential_cannot_leave_its_directory() {
    for name in ["", ".", "..", "../../etc/shadow", "a/b", "a\0b"] {
        let error = SecretSource::Credential(name.into())
            .read_with(|_| Some("/".into()))
            .unwrap_err();
        assert_eq!(error, Error::CredentialName { name: name.into() });
    }
}

#[test]
fn shows_nothing_of_a_secret() {
    let secret = Secret::new(b"hunter2".to_vec());
    assert_eq!(format!("{secret:?}"), "Secret(…)");
    assert_eq!(secret, Secret::new(b"hunter2".to_vec()));
    assert_ne!(secret, Secret::new(b"hunter3".to_vec()));
}
