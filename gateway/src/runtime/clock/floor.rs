//! The file that keeps the floors of the clock: `clock.floor` in the state directory.
//!
//! ```text
//! fieldgate clock floor 1
//! sure 1795220000000            milliseconds since 1970
//! likely 1795220400000
//! check 9f86d081884c7d65        first half of the first half of the SHA-256 of what stands above
//! ```
//! A digit that flips on an old disk would otherwise be a node that believes itself in the next century.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;

use super::state::Floors;

/// Why there is no floor in a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FloorError {
    /// There is none: the node runs for the first time, or somebody removed it.
    #[error("no floor of the clock was kept yet")]
    Missing,
    /// It cannot be read.
    #[error("the floor of the clock cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is not what was written.
    #[error("the floor of the clock is damaged")]
    Damaged,
}

/// Reads the floors kept in `state_dir`.
///
/// # Errors
/// [`FloorError`]; the build time of the program is the floor then.
pub(crate) fn read(state_dir: &Path) -> Result<Floors, FloorError> {
    let file = File::open(path(state_dir)).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            FloorError::Missing
        } else {
            FloorError::Unreadable(error)
        }
    })?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(FloorError::Unreadable)?;
    decode(&text).ok_or(FloorError::Damaged)
}

/// Replaces the floors kept in `state_dir`, so that after a power cut either the old or the new ones stand there.
///
/// # Errors
/// Those of the file system; the old floors then still stand there.
pub(crate) fn keep(state_dir: &Path, floors: Floors) -> io::Result<()> {
    let path = path(state_dir);
    let fresh = path.with_extension("floor.new");
    let result = write(&fresh, &encode(floors)).and_then(|()| fs::rename(&fresh, &path));
    if result.is_err() {
        // On a full disk half a file would stay for nothing.
        let _ = fs::remove_file(&fresh);
    }
    result?;
    File::open(state_dir)?.sync_all()
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Returns where the floors are kept.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("clock.floor")
}

fn encode(floors: Floors) -> String {
    let body = body(floors);
    let check = check(&body);
    format!("{body}check {check}\n")
}

fn body(floors: Floors) -> String {
    format!(
        "{HEADER}\nsure {}\nlikely {}\n",
        floors.sure_millis, floors.likely_millis
    )
}

fn check(body: &str) -> String {
    let hash = digest::digest(&digest::SHA256, body.as_bytes());
    HEXLOWER.encode(hash.as_ref().get(..8).unwrap_or_default())
}

/// Reads what [`encode`] wrote, and nothing else.
fn decode(text: &[u8]) -> Option<Floors> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = text.lines();
    if lines.next()? != HEADER {
        return None;
    }
    let floors = Floors {
        sure_millis: lines.next()?.strip_prefix("sure ")?.parse().ok()?,
        likely_millis: lines.next()?.strip_prefix("likely ")?.parse().ok()?,
    };
    (encode(floors) == text).then_some(floors)
}

const HEADER: &str = "fieldgate clock floor 1";
/// No such file is larger, in bytes.
const FILE_BYTES_MAX: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FLOORS: Floors = Floors {
        sure_millis: 1_795_220_000_000,
        likely_millis: 1_795_220_400_000,
    };

    #[test]
    fn what_was_kept_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(FloorError::Missing)));
        keep(dir.path(), Floors::default()).unwrap();
        keep(dir.path(), FLOORS).unwrap();
        assert_eq!(read(dir.path()).unwrap(), FLOORS);
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path(dir.path())).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn each_flipped_bit_and_each_cut_is_noticed() {
        let whole = encode(FLOORS).into_bytes();
        for at in 0..whole.len() {
            assert_eq!(decode(&whole[..at]), None, "cut at {at}");
            for bit in 0..8 {
                let mut text = whole.clone();
                text[at] ^= 1 << bit;
                assert_eq!(decode(&text), None, "bit {bit} of byte {at}");
            }
        }
        assert_eq!(decode(&[whole, b"\n".to_vec()].concat()), None);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        // Even root cannot make a file below a file.
        let state_dir = dir.path().join("file");
        fs::write(&state_dir, "").unwrap();
        keep(&state_dir, FLOORS).unwrap_err();
        assert!(matches!(read(&state_dir), Err(FloorError::Unreadable(_))));
        // Nor put a file in the place of a directory.
        let state_dir = dir.path().join("state");
        fs::create_dir_all(path(&state_dir).join("in the way")).unwrap();
        keep(&state_dir, FLOORS).unwrap_err();
        let names: Vec<_> = fs::read_dir(&state_dir).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_full_disk_keeps_the_old_floors() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), FLOORS).unwrap();
        // Writing to it fails with ENOSPC, as on a full disk.
        std::os::unix::fs::symlink("/dev/full", dir.path().join("clock.floor.new")).unwrap();
        let error = keep(dir.path(), Floors::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(read(dir.path()).unwrap(), FLOORS);
        // There is room again.
        keep(dir.path(), Floors::default()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Floors::default());
    }

    proptest! {
        #[test]
        fn floors_round_trip(sure_millis: u64, likely_millis: u64) {
            let floors = Floors { sure_millis, likely_millis };
            prop_assert_eq!(decode(encode(floors).as_bytes()), Some(floors));
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&bytes), None);
        }
    }
}
