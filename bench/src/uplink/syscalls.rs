//! System calls per reading: from the kernel's tracepoint where `perf` may use it, else from `strace`.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use super::System;
use crate::clock;
use crate::failure::Failure;
use crate::process::Running;

/// System calls of all measured processes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Count {
    /// Per delivered reading.
    pub(crate) per_reading: f64,
    /// How they were counted.
    pub(crate) method: Method,
}

/// How system calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Method {
    /// Tracepoint `raw_syscalls:sys_enter`: costs little.
    Perf,
    /// Every call stops the process: far fewer readings, but the ratio says the same.
    Strace,
}

/// Counts for a moment while the load goes on; `None` when neither program works here.
pub(crate) fn count(system: &mut dyn System) -> Result<Option<Count>, Failure> {
    let ids: Vec<String> = system
        .processes()
        .iter()
        .map(|process| process.id().to_string())
        .collect();
    if let Some(count) = with_perf(system, &ids.join(","))? {
        return Ok(Some(count));
    }
    with_strace(system, &ids)
}

fn with_perf(system: &dyn System, ids: &str) -> Result<Option<Count>, Failure> {
    let mut perf = Command::new("perf");
    perf.args([
        "stat",
        "--field-separator=,",
        "--event=raw_syscalls:sys_enter",
        "--pid",
        ids,
    ]);
    perf.args(["--", "sleep", &PERIOD.as_secs().to_string()]);
    let before = system.delivered()?;
    let Ok(output) = perf.output() else {
        return Ok(None);
    };
    let delivered = system.delivered()?.saturating_sub(before);
    // perf prints its figures to standard error.
    let calls = output
        .status
        .success()
        .then(|| perf_total(&String::from_utf8_lossy(&output.stderr)))
        .flatten();
    Ok(calls.map(|calls| Count {
        per_reading: ratio(calls, delivered),
        method: Method::Perf,
    }))
}

fn perf_total(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

fn with_strace(system: &dyn System, ids: &[String]) -> Result<Option<Count>, Failure> {
    let folder = tempfile::tempdir().map_err(Failure::io("making a private folder"))?;
    let summary = folder.path().join("summary");
    let mut strace = Command::new("strace");
    strace
        .args(["--follow-forks", "--summary-only", "--output"])
        .arg(&summary);
    for id in ids {
        strace.args(["--attach", id]);
    }
    let Ok(mut tracer) = Running::start("strace", &mut strace, folder.path()) else {
        return Ok(None);
    };
    clock::pause(ATTACH);
    if tracer.check_alive().is_err() {
        return Ok(None);
    }
    let before = system.delivered()?;
    clock::pause(PERIOD);
    let delivered = system.delivered()?.saturating_sub(before);
    tracer.stop()?;
    let text = fs::read_to_string(&summary).unwrap_or_default();
    Ok(strace_total(&text).map(|calls| Count {
        per_reading: ratio(calls, delivered),
        method: Method::Strace,
    }))
}

/// Reads `100.00    0.5    3    1234    12 total`; the column of errors may be empty.
fn strace_total(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .rev()
        .find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn ratio(calls: u64, readings: u64) -> f64 {
    calls as f64 / readings.max(1) as f64
}

/// How long is counted.
const PERIOD: Duration = Duration::from_secs(2);
/// What strace takes to attach to all threads.
const ATTACH: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::{perf_total, strace_total};

    #[test]
    fn totals_are_found_in_what_the_programs_print() {
        assert_eq!(
            perf_total("\n# started\n12345,,raw_syscalls:sys_enter,2000,100.00,,\n"),
            Some(12345)
        );
        assert_eq!(
            perf_total("<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n"),
            None
        );
        let table = "% time seconds usecs/call calls errors syscall\n\
                     ------ ------- ---------- ----- ------ -------\n\
                     100.00 0.001 3 321 12 total\n";
        assert_eq!(strace_total(table), Some(321));
        assert_eq!(strace_total(""), None);
    }
}
