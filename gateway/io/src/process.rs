//! What a process does for itself at start: no core dumps, enough descriptors, secrets out of swap.

use std::io;

use crate::sys;

/// Forbids core dumps and, to processes without privileges, reading this one's memory.
///
/// Call before the first secret is in memory.
///
/// # Errors
/// The kernel refused; the secrets of this process could end up in a core file.
pub fn forbid_core_dumps() -> io::Result<()> {
    sys::set_undumpable()?;
    sys::set_limit(libc::RLIMIT_CORE, 0, 0)
}

/// Raises the number of descriptors this process may open to its hard limit and returns it.
///
/// # Errors
/// The limit cannot be read or set; the process goes on with the old one.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = sys::limit(libc::RLIMIT_NOFILE)?;
    if soft < hard {
        sys::set_limit(libc::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Keeps the pages that hold `secret` out of swap, as long as they are mapped. Whole pages are locked.
///
/// # Errors
/// `RLIMIT_MEMLOCK` is too low (`LimitMEMLOCK=` of the systemd unit). A caller may go on without.
pub fn lock_memory(secret: &[u8]) -> io::Result<()> {
    if secret.is_empty() {
        Ok(())
    } else {
        sys::lock_memory(secret)
    }
}

/// Returns the largest resident set this process has had, in bytes.
///
/// # Errors
/// The kernel does not say.
pub fn peak_resident_bytes() -> io::Result<u64> {
    Ok(sys::peak_resident_kib()?.saturating_mul(1024))
}

/// Returns the resident set of this process now, in bytes.
///
/// # Errors
/// `/proc` is not mounted or not readable.
pub fn resident_bytes() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    parse_resident(&status)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status has no VmRSS"))
}

/// Finds `VmRSS:   1234 kB`.
fn parse_resident(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value
        .trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_resident_set() {
        assert_eq!(
            parse_resident("VmSize:\t  10 kB\nVmRSS:\t     4 kB\n"),
            Some(4096)
        );
        assert_eq!(parse_resident("VmSize:\t  10 kB\n"), None);
        assert_eq!(parse_resident("VmRSS:\t 99999999999999999999 kB\n"), None);
        let now = resident_bytes().expect("/proc is mounted");
        assert!(now > 0);
        assert!(peak_resident_bytes().expect("the kernel says") > 0);
    }

    #[test]
    fn locks_a_secret() {
        let secret = [7_u8; 64];
        lock_memory(&secret).expect("one page is within every limit");
        lock_memory(&[]).expect("nothing to lock");
    }

    #[test]
    fn raises_the_descriptor_limit() {
        let limit = raise_descriptor_limit().expect("a soft limit may always be raised to the hard one");
        assert_eq!(sys::limit(libc::RLIMIT_NOFILE).expect("readable"), (limit, limit));
    }
}
