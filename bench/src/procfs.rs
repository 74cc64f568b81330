//! What a process costs, read from `/proc`.

use std::fs;
use std::time::Duration;

use crate::failure::Failure;

/// What a process has cost until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time of all threads, kernel workers of the process's rings included; 10 ms resolution.
    pub(crate) cpu: Duration,
    /// Largest resident set so far, in KiB.
    pub(crate) peak_rss_kib: u64,
    /// Proportional set size now, in KiB.
    pub(crate) pss_kib: u64,
}

impl Usage {
    /// Reads the usage of a process.
    pub(crate) fn read(id: u32) -> Result<Self, Failure> {
        let stat = read(id, "stat")?;
        // Before the peak, which is then never below it, however fast the process grows.
        let smaps = read(id, "smaps_rollup")?;
        let status = read(id, "status")?;
        Ok(Self {
            cpu: parse(id, "stat", cpu(&stat))?,
            peak_rss_kib: parse(id, "status", kib(&status, "VmHWM:"))?,
            pss_kib: parse(id, "smaps_rollup", kib(&smaps, "Pss:"))?,
        })
    }
}

fn read(id: u32, file: &str) -> Result<String, Failure> {
    let path = format!("/proc/{id}/{file}");
    fs::read_to_string(&path).map_err(Failure::io(path))
}

fn parse<T>(id: u32, file: &str, value: Option<T>) -> Result<T, Failure> {
    value.ok_or_else(|| Failure::Format {
        what: format!("/proc/{id}/{file}"),
        problem: "a field is missing".to_owned(),
    })
}

/// Fields 14 and 15, counted after the name, which may hold anything but ends at the last parenthesis.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * MILLIS_PER_TICK))
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// USER_HZ is 100 on every architecture that Linux keeps for the targets of fieldgate.
const MILLIS_PER_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Usage, cpu, kib};

    #[test]
    fn cpu_time_is_found_behind_a_strange_name() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 70 30 1 2 20 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(1)));
        assert_eq!(cpu("12 (a) S 1"), None);
        assert_eq!(cpu(""), None);
    }

    #[test]
    fn sizes_are_found_by_name() {
        assert_eq!(kib("VmPeak:\t 9 kB\nVmHWM:\t  123 kB\n", "VmHWM:"), Some(123));
        assert_eq!(kib("VmPeak:\t 9 kB\n", "VmHWM:"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let usage = Usage::read(std::process::id()).unwrap();
        assert!(usage.peak_rss_kib >= usage.pss_kib && usage.pss_kib > 0);
    }
}
