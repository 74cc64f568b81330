//! The memory of refused PINs: a file beside the node's other state.
//!
//! ```text
//!  fieldgate pin marker 1
//!  refused <32 hex digits: salt> <64 hex digits: PBKDF2-HMAC-SHA-256 of the PIN, 200,000 rounds>     up to 16 lines
//!  died <how often in a row>                                                                         at most one
//! ```
//!
//! A service that is started again and again must not spend the token's tries on the same wrong PIN. A PIN that differs may be
//! tried, the first of them even though the token warns that a wrong one was given; the file is removed when the token takes one. The slow hash is for the reader who should not be: a wrong PIN may be
//! the right one of another token.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::pbkdf2;
use aws_lc_rs::rand;
use subtle::{Choice, ConstantTimeEq};

use super::wire::RefusedPin;
use crate::error::{Error, OsError};
use crate::guarded::{self, Audience, ReadError};
use crate::pkcs11::LowCount;
use crate::secret::Secret;

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Content {
    refused: Vec<RefusedPin>,
    /// Times in a row that a worker died during the login.
    died: u32,
}

/// The file, or its stand-in in memory where there is no state directory.
#[derive(Debug)]
pub(super) struct Marker {
    path: Option<PathBuf>,
    content: Content,
}

impl Marker {
    /// Reads the file of the state directory; without a directory nothing outlives this process.
    pub(super) fn open(state_dir: Option<&Path>) -> Result<Self, Error> {
        let path = state_dir.map(|directory| directory.join(FILE_NAME));
        let content = match &path {
            None => Content::default(),
            Some(path) => read(path)?,
        };
        Ok(Self { path, content })
    }

    /// Returns an error if the PIN is one that was refused, or if logins have killed workers.
    pub(super) fn check(&self, pin: &Secret, source: &str) -> Result<(), Error> {
        if let Some(deadly) = self.deadly() {
            return Err(deadly);
        }
        let mut is_refused = Choice::from(0);
        for refused in &self.content.refused {
            is_refused |= hash(pin, &refused.salt).ct_eq(&refused.hash);
        }
        match bool::from(is_refused) {
            true => Err(Error::PinRefusedBefore {
                secret: source.to_owned(),
                marker: self.path.clone().unwrap_or_default(),
            }),
            false => Ok(()),
        }
    }

    /// Says whether a PIN that [`check`](Self::check) has let pass may be tried although the token warns of a wrong one: it was
    /// warned because of the one that is remembered. With more of them, or a death of which nobody knows how the token
    /// took it, a person has to look first.
    pub(super) fn low_count(&self) -> LowCount {
        match (self.content.refused.len(), self.content.died) {
            (1, 0) => LowCount::TryOnce,
            _ => LowCount::Stop,
        }
    }

    /// Remembers that the token has refused a PIN.
    pub(super) fn refuse(&mut self, pin: RefusedPin) -> Result<(), Error> {
        if self.content.refused.len() >= REFUSED_MAX {
            self.content.refused.remove(0);
        }
        self.content.refused.push(pin);
        self.content.died = 0;
        self.write()
    }

    /// Counts a worker that died during the login.
    pub(super) fn died(&mut self) -> Result<(), Error> {
        self.content.died = self.content.died.saturating_add(1);
        self.write()
    }

    /// Forgets everything: the token has taken a PIN.
    pub(super) fn clear(&mut self) -> Result<(), Error> {
        if self.content == Content::default() {
            return Ok(());
        }
        self.content = Content::default();
        let Some(path) = &self.path else {
            return Ok(());
        };
        fs::remove_file(path)
            .and_then(|()| sync_directory_of(path))
            .map_err(|error| unusable(path, error.into()))
    }

    /// Forgets the deaths: the token has answered to a login, whatever it said.
    pub(super) fn survived(&mut self) -> Result<(), Error> {
        if self.content.died == 0 {
            return Ok(());
        }
        self.content.died = 0;
        match self.content.refused.is_empty() {
            true => {
                // Not the default any more for `clear`, which would then leave the file.
                self.content.died = 1;
                self.clear()
            }
            false => self.write(),
        }
    }

    /// Returns the error for logins that have killed too many workers.
    pub(super) fn deadly(&self) -> Option<Error> {
        (self.content.died >= DEATHS_MAX).then(|| Error::LoginDeadly {
            deaths: self.content.died,
            marker: self.path.clone(),
        })
    }

    fn write(&self) -> Result<(), Error> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        replace(path, self.content.encode().as_bytes()).map_err(|error| unusable(path, error.into()))
    }
}

/// Reduces a PIN to what may be kept of it.
pub(super) fn reduce(pin: &Secret) -> Result<RefusedPin, Error> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| Error::Crypto {
        operation: "drawing random numbers",
    })?;
    let hash = hash(pin, &salt);
    Ok(RefusedPin { salt, hash })
}

impl Content {
    fn encode(&self) -> String {
        let mut text = format!("{MAGIC}\n");
        for refused in &self.refused {
            text.push_str(&format!(
                "refused {} {}\n",
                to_hex(&refused.salt),
                to_hex(&refused.hash)
            ));
        }
        if self.died > 0 {
            text.push_str(&format!("died {}\n", self.died));
        }
        text
    }

    /// Reads the text; `None` for one that this program does not write.
    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut content = Self::default();
        if lines.next()? != MAGIC {
            return None;
        }
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["refused", salt, hash] if content.refused.len() < REFUSED_MAX => {
                    content.refused.push(RefusedPin {
                        salt: from_hex(salt)?,
                        hash: from_hex(hash)?,
                    });
                }
                ["died", count] if content.died == 0 => content.died = count.parse().ok()?,
                _ => return None,
            }
        }
        Some(content)
    }
}

fn read(path: &Path) -> Result<Content, Error> {
    let invalid = |message: &str| {
        unusable(
            path,
            OsError {
                kind: ErrorKind::InvalidData,
                message: message.to_owned(),
            },
        )
    };
    let bytes = match guarded::read(path, Audience::Owner, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(ReadError::Os(error)) if error.kind == ErrorKind::NotFound => return Ok(Content::default()),
        Err(ReadError::Os(error)) => return Err(unusable(path, error)),
        Err(ReadError::TooLong) => return Err(invalid("it is longer than such files are")),
        Err(ReadError::Exposed { mode }) => {
            return Err(Error::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        Err(ReadError::Owner { owner, user }) => {
            return Err(Error::Owner {
                path: path.to_owned(),
                owner,
                user,
            });
        }
    };
    str::from_utf8(&bytes)
        .ok()
        .and_then(Content::decode)
        .ok_or_else(|| invalid("it is damaged"))
}

/// Replaces the file as a whole: a new one of mode 0600, synced, renamed, and the directory synced.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("refused.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_directory_of(path)
}

fn sync_directory_of(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn unusable(path: &Path, cause: OsError) -> Error {
    Error::PinMarker {
        path: path.to_owned(),
        cause,
    }
}

fn hash(pin: &Secret, salt: &[u8; 16]) -> [u8; 32] {
    let mut hash = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt, pin.expose(), &mut hash);
    hash
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let bytes: Vec<u8> = digits?
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    bytes
        .try_into()
        .ok()
        .filter(|_| text.len() == N.saturating_mul(2))
}

/// Name of the file.
const FILE_NAME: &str = "pin.refused";
/// Its first line.
const MAGIC: &str = "fieldgate pin marker 1";
/// Rounds of the hash: a tenth of a second, paid only while there is a marker.
const ROUNDS: NonZeroU32 = NonZeroU32::new(200_000).expect("it is not zero");
/// Refused PINs that are remembered; the oldest goes first.
const REFUSED_MAX: usize = 16;
/// Deaths in a row after which no login is tried.
const DEATHS_MAX: u32 = 2;
/// Largest file in bytes.
const FILE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pin(text: &str) -> Secret {
        Secret::new(text.into())
    }

    fn reopened(directory: &Path) -> Marker {
        Marker::open(Some(directory)).unwrap()
    }

    #[test]
    fn a_refused_pin_is_known_after_a_restart_until_another_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let mut marker = reopened(directory.path());
        marker.check(&pin("1234"), "file /pin").unwrap();
        assert_eq!(
            marker.low_count(),
            LowCount::Stop,
            "of a warning nobody knows the cause"
        );
        marker.refuse(reduce(&pin("1234")).unwrap()).unwrap();
        assert_eq!(reopened(directory.path()).low_count(), LowCount::TryOnce);
        marker.refuse(reduce(&pin("1235")).unwrap()).unwrap();
        let text = fs::read_to_string(directory.path().join(FILE_NAME)).unwrap();
        assert!(!text.contains("1234") && !text.contains("1235"), "{text}");

        let mut marker = reopened(directory.path());
        for refused in ["1234", "1235"] {
            assert_eq!(
                marker.check(&pin(refused), "file /pin"),
                Err(Error::PinRefusedBefore {
                    secret: "file /pin".into(),
                    marker: directory.path().join(FILE_NAME)
                })
            );
        }
        marker.check(&pin("1236"), "file /pin").unwrap();
        // The first other PIN was tried against the token's warning, this one is not.
        assert_eq!(marker.low_count(), LowCount::Stop);
        marker.clear().unwrap();
        assert!(!directory.path().join(FILE_NAME).exists());
        reopened(directory.path())
            .check(&pin("1234"), "file /pin")
            .unwrap();
    }

    #[test]
    fn two_deaths_in_a_row_close_the_login_for_every_pin() {
        let directory = tempfile::tempdir().unwrap();
        let mut marker = reopened(directory.path());
        marker.died().unwrap();
        marker.check(&pin("1234"), "").unwrap();
        // A login that was answered in between starts the count anew.
        marker.survived().unwrap();
        assert!(!directory.path().join(FILE_NAME).exists());
        marker.died().unwrap();
        let mut marker = reopened(directory.path());
        assert_eq!(marker.deadly(), None);
        marker.died().unwrap();
        assert!(matches!(
            reopened(directory.path()).check(&pin("other"), ""),
            Err(Error::LoginDeadly { deaths: 2, .. })
        ));
    }

    #[test]
    fn deaths_that_are_over_leave_the_refused_pins() {
        let directory = tempfile::tempdir().unwrap();
        let mut marker = reopened(directory.path());
        marker.refuse(reduce(&pin("1234")).unwrap()).unwrap();
        marker.died().unwrap();
        assert_eq!(reopened(directory.path()).low_count(), LowCount::Stop);
        marker.survived().unwrap();
        let marker = reopened(directory.path());
        assert_eq!(marker.content.died, 0);
        assert!(marker.check(&pin("1234"), "").is_err());
    }

    #[test]
    fn the_file_is_bounded_and_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let mut content = Content::default();
        for number in 0..REFUSED_MAX {
            content.refused.push(RefusedPin {
                salt: [u8::try_from(number).unwrap(); 16],
                hash: [0; 32],
            });
        }
        let path = directory.path().join(FILE_NAME);
        replace(&path, content.encode().as_bytes()).unwrap();
        let mut marker = reopened(directory.path());
        marker.refuse(reduce(&pin("1234")).unwrap()).unwrap();
        assert_eq!(marker.content.refused.len(), REFUSED_MAX);
        assert!(reopened(directory.path()).check(&pin("1234"), "").is_err());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            Marker::open(Some(directory.path())),
            Err(Error::Exposed { .. })
        ));
    }

    #[test]
    fn a_damaged_file_is_not_guessed_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        for text in [
            "",
            "fieldgate pin marker 2\n",
            "fieldgate pin marker 1\nrefused 00 11\n",
            "fieldgate pin marker 1\ndied many\n",
            "fieldgate pin marker 1\nforgotten\n",
        ] {
            replace(&path, text.as_bytes()).unwrap();
            assert!(
                matches!(Marker::open(Some(directory.path())), Err(Error::PinMarker { .. })),
                "{text:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(fieldgate pin marker 1\n)?.*") {
            let _ = Content::decode(&text);
        }

        #[test]
        fn what_is_written_is_read(salts in prop::collection::vec(any::<([u8; 16], [u8; 32])>(), 0..REFUSED_MAX), died in any::<u32>()) {
            let refused = salts.into_iter().map(|(salt, hash)| RefusedPin { salt, hash }).collect();
            let content = Content { refused, died };
            prop_assert_eq!(Content::decode(&content.encode()), Some(content));
        }
    }
}
