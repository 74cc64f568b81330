//! The state directory: can it be written, does it last, is there room.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use fieldgate_config::settings::Settings;

use super::{Finding, bytes_text};

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![state_dir(&settings.node.state_dir)];
    let needed = settings
        .journal
        .as_ref()
        .map(|journal| (journal.dir.as_path(), journal.bytes_max));
    let (dir, bytes_max) = needed.unwrap_or((&settings.node.state_dir, 0));
    findings.push(space(dir, bytes_max));
    findings.push(file_system(dir));
    findings
}

fn state_dir(dir: &Path) -> Finding {
    const CHECK: &str = "state";
    let name = dir.display();
    let metadata = match fs::metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) => {
            let cure =
                "`fieldgate identity create` makes it; or make it for the user of the service, mode 0700";
            return Finding::fail(CHECK, format!("{name}: {error}"), cure);
        }
    };
    if let Err(error) = tempfile::tempfile_in(dir) {
        let cure = "run this as the user of the service, or give that user the directory";
        return Finding::fail(CHECK, format!("{name} cannot be written: {error}"), cure);
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        let cure = format!("chmod go-w {name}");
        return Finding::warn(
            CHECK,
            format!("{name} can be written by others (mode {mode:o})"),
            cure,
        );
    }
    Finding::ok(CHECK, format!("{name} can be written"))
}

fn space(dir: &Path, bytes_max: u64) -> Finding {
    const CHECK: &str = "space";
    let dir = existing(dir);
    let statistics = match rustix::fs::statvfs(&dir) {
        Ok(statistics) => statistics,
        Err(error) => {
            return Finding::fail(
                CHECK,
                format!("{}: {error}", dir.display()),
                "see that it can be entered",
            );
        }
    };
    let free = statistics.f_bavail.saturating_mul(statistics.f_frsize);
    judge_space(
        CHECK,
        free,
        statistics.f_favail,
        bytes_max.saturating_sub(used(&dir)),
    )
}

fn judge_space(check: &'static str, free: u64, inodes: u64, wanted: u64) -> Finding {
    let found = format!("{} free", bytes_text(free));
    if free < FREE_BYTES_MIN {
        Finding::fail(check, found, "make room: nothing can be kept like this")
    } else if inodes == 0 {
        Finding::fail(
            check,
            "no inode is free",
            "remove files: nothing can be kept like this",
        )
    } else if free < wanted {
        let found = format!("{found}, but the journal may grow by {}", bytes_text(wanted));
        Finding::warn(check, found, "lower `journal.bytes_max`, or make room")
    } else {
        Finding::ok(check, found)
    }
}

/// Returns the bytes of the files of a directory.
fn used(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Returns the nearest directory above that is there.
fn existing(dir: &Path) -> PathBuf {
    let found = dir.ancestors().find(|dir| dir.is_dir());
    found.map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

fn file_system(dir: &Path) -> Finding {
    let dir = existing(dir);
    let dir = fs::canonicalize(&dir).unwrap_or(dir);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match mount_of(&mounts, &dir) {
        Some(mount) => judge_mount(&mount),
        None => Finding::warn("filesystem", "not known", "see that /proc is mounted"),
    }
}

/// What `/proc/self/mountinfo` says of a file system (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
    options: String,
}

/// Returns the mount that holds `path`: of the longest mount points the last, which covers the ones before.
fn mount_of(mounts: &str, path: &Path) -> Option<Mount> {
    let parse = |line: &str| {
        let (mount, rest) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        Some(Mount {
            point: PathBuf::from(unescape(fields.next()?)),
            options: fields.next()?.to_owned(),
            kind: rest.split(' ').next()?.to_owned(),
        })
    };
    let holding = mounts
        .lines()
        .filter_map(parse)
        .filter(|mount| path.starts_with(&mount.point));
    holding.max_by_key(|mount| mount.point.as_os_str().len())
}

/// Undoes the octal escapes of blanks and the like.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn judge_mount(mount: &Mount) -> Finding {
    const CHECK: &str = "filesystem";
    let found = format!("{} on {}", mount.kind, mount.point.display());
    if mount.options.split(',').any(|option| option == "ro") {
        return Finding::fail(
            CHECK,
            format!("{found} is read-only"),
            "put the state on a partition that can be written",
        );
    }
    match mount.kind.as_str() {
        "tmpfs" | "ramfs" | "rootfs" => Finding::warn(
            CHECK,
            format!("{found} is memory: everything is gone after a power cut"),
            "put the state on a disk, or mount a data partition there",
        ),
        "overlay" | "aufs" => Finding::warn(
            CHECK,
            format!("{found} may be gone after an update"),
            "mount a data partition or a volume there",
        ),
        kind if kind.starts_with("nfs")
            || kind.starts_with("fuse")
            || ["cifs", "smb3", "9p", "virtiofs"].contains(&kind) =>
        {
            Finding::warn(
                CHECK,
                format!("{found} may confirm writes that are not on a disk yet"),
                "put the state on a local disk",
            )
        }
        "vfat" | "exfat" | "msdos" | "ntfs" | "ntfs3" => Finding::warn(
            CHECK,
            format!("{found} keeps no permissions and tears at power cuts"),
            "use ext4, f2fs, xfs, btrfs or ubifs",
        ),
        _ => Finding::ok(CHECK, found),
    }
}

/// Less than a few segments of a journal: no node works with that.
const FREE_BYTES_MIN: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Verdict;

    const MOUNTS: &str = "\
22 27 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
27 1 259:2 / / rw,noatime shared:1 - ext4 /dev/root rw
40 27 259:3 / /var/lib\\040x ro,relatime shared:20 - vfat /dev/sda1 rw
41 27 0:40 / /var rw - overlay overlay rw
42 27 0:41 / /var rw - tmpfs tmpfs rw
";

    #[test]
    fn the_mount_that_holds_a_path_is_found() {
        let kind = |path: &str| mount_of(MOUNTS, Path::new(path)).map(|mount| mount.kind);
        assert_eq!(kind("/etc/x").as_deref(), Some("ext4"));
        assert_eq!(kind("/var/x").as_deref(), Some("tmpfs"), "the later one covers");
        assert_eq!(kind("/variant").as_deref(), Some("ext4"), "whole names only");
        assert_eq!(kind("/var/lib x/y").as_deref(), Some("vfat"));
        assert_eq!(mount_of("", Path::new("/")), None);
        assert_eq!(mount_of("a b - c\n\n - ", Path::new("/")), None);
    }

    #[test]
    fn file_systems_that_lose_state_are_told() {
        for (kind, options, verdict) in [
            ("ext4", "rw,noatime", Verdict::Ok),
            ("ext4", "ro,noatime", Verdict::Fail),
            ("tmpfs", "rw", Verdict::Warn),
            ("overlay", "rw", Verdict::Warn),
            ("nfs4", "rw", Verdict::Warn),
            ("fuse.sshfs", "rw", Verdict::Warn),
            ("vfat", "rw", Verdict::Warn),
        ] {
            let mount = Mount {
                point: "/x".into(),
                kind: kind.into(),
                options: options.into(),
            };
            assert_eq!(judge_mount(&mount).verdict, verdict, "{kind} {options}");
        }
    }

    #[test]
    fn space_is_what_is_free_against_what_may_come() {
        let verdict = |free, inodes, wanted| judge_space("space", free, inodes, wanted).verdict;
        assert_eq!(verdict(1 << 30, 5, 1 << 30), Verdict::Ok);
        assert_eq!(verdict((1 << 30) - 1, 5, 1 << 30), Verdict::Warn);
        assert_eq!(verdict(1 << 30, 0, 0), Verdict::Fail);
        assert_eq!(verdict(FREE_BYTES_MIN - 1, 5, 0), Verdict::Fail);
    }

    #[test]
    fn the_state_directory_is_there_and_ours() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(state_dir(dir.path()).verdict, Verdict::Ok);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(state_dir(dir.path()).verdict, Verdict::Warn);
        assert_eq!(state_dir(&dir.path().join("none")).verdict, Verdict::Fail);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(state_dir(&file).verdict, Verdict::Fail);
    }
}
