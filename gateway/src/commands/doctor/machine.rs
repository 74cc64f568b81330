//! The machine: clock, randomness, I/O, TPM.

use std::{fs, path::Path};

use fieldgate_config::settings::{IoBackend, Settings};
use fieldgate_hsm::tpm::{self, TpmDictionaryAttack};
use fieldgate_io::{Backend, BackendChoice};
use rustix::{
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};

use super::Finding;
use crate::{
    runtime::{
        clock::{Clock, ClockStatus},
        keys,
    },
    sinks::json::rfc3339,
};

pub(super) fn examine(settings: Option<&Settings>) -> Vec<Finding> {
    let clock = settings.map_or_else(Clock::bare, |settings| Clock::look(&settings.node.state_dir));
    vec![
        judge_clock(&clock.status()),
        rtc(Path::new("/sys/class/rtc")),
        entropy(),
        io(settings.map(|settings| settings.node.io)),
        dictionary_attack(settings),
        Finding::unused("bluez", "not used: the file has no adapter for Bluetooth"),
    ]
}

fn judge_clock(status: &ClockStatus) -> Finding {
    const CHECK: &str = "clock";
    let found = format!(
        "{}, {} ({}), at least {}",
        rfc3339(status.unix_millis),
        status.quality,
        status.source,
        rfc3339(status.floor_millis)
    );
    if let Some(problem) = &status.file_problem {
        let cure = "remove clock.floor in the state directory; a new one is made";
        return Finding::warn(CHECK, format!("{found}; {problem}"), cure);
    }
    if let Some(why) = &status.distrust {
        let cure = "set the clock, or let it be synchronised (chrony, systemd-timesyncd)";
        return Finding::warn(CHECK, format!("{found}; {why}"), cure);
    }
    if status.quality == "synchronised" {
        return Finding::ok(CHECK, found);
    }
    let cure = "let it be synchronised (chrony, systemd-timesyncd); without that the beginning of validity is not judged";
    Finding::warn(CHECK, found, cure)
}

fn rtc(class: &Path) -> Finding {
    const CHECK: &str = "rtc";
    let read = |name: &str| fs::read_to_string(class.join("rtc0").join(name)).unwrap_or_default();
    let name = read("name");
    if name.trim().is_empty() {
        return Finding::unused(
            CHECK,
            "none: after a boot the time is the floor until somebody tells it",
        );
    }
    match read("since_epoch").trim().parse::<u64>() {
        Ok(secs) if secs > 0 => Finding::ok(
            CHECK,
            format!("{}: {}", name.trim(), rfc3339(secs.saturating_mul(1_000))),
        ),
        _ => Finding::warn(
            CHECK,
            format!("{} does not tell the time", name.trim()),
            "its battery may be flat; the floor on disk stands in for it",
        ),
    }
}

fn entropy() -> Finding {
    const CHECK: &str = "entropy";
    let mut bytes = [0; 32];
    let source = fs::read_to_string("/sys/class/misc/hw_random/rng_current").unwrap_or_default();
    let source = match source.trim() {
        "" | "none" => "no hardware generator".to_owned(),
        name => format!("hardware generator {name}"),
    };
    match getrandom(&mut bytes, GetRandomFlags::NONBLOCK) {
        Ok(32) => Finding::ok(CHECK, format!("the kernel is seeded; {source}")),
        Err(Errno::AGAIN) => Finding::fail(
            CHECK,
            format!("the kernel is not seeded yet; {source}"),
            "wait; on machines without a hardware generator keep a seed (systemd-random-seed)",
        ),
        Ok(_) | Err(_) => Finding::fail(
            CHECK,
            "the kernel gives no randomness",
            "see that getrandom(2) is not forbidden to the service",
        ),
    }
}

fn io(chosen: Option<IoBackend>) -> Finding {
    const CHECK: &str = "io_uring";
    // Tried out even where the file wants epoll: who reads this may be about to change it.
    let selected = Backend::select(BackendChoice::Auto);
    let (is_working, reason, cure) = match selected {
        Ok(selected) => (selected.backend == Backend::Uring, selected.reason, selected.cure),
        Err(error) => (false, error.reason.clone(), Some(error.hint().to_owned())),
    };
    let cure = cure.unwrap_or_else(|| "epoll does the same with more processor time".to_owned());
    match (is_working, chosen) {
        (true, Some(IoBackend::Epoll)) => {
            Finding::ok(CHECK, format!("works, but the file wants epoll ({reason})"))
        }
        (true, _) => Finding::ok(CHECK, reason),
        (false, Some(IoBackend::Uring)) => Finding::fail(CHECK, reason, cure),
        (false, Some(IoBackend::Epoll)) => Finding::unused(CHECK, format!("the file wants epoll ({reason})")),
        (false, _) => Finding::warn(CHECK, reason, cure),
    }
}

/// Looks at the TPM's protection against guessing: power cuts look like guesses to it.
fn dictionary_attack(settings: Option<&Settings>) -> Finding {
    const CHECK: &str = "tpm";
    let used = settings.and_then(keys::tpm::device);
    let is_used = used.is_some();
    let device = used.unwrap_or_else(|| keys::tpm::DEVICE.into());
    if !device.exists() {
        let found = format!("{} is not there", device.display());
        return if is_used {
            Finding::fail(
                CHECK,
                found,
                "switch the TPM on in the firmware, or load its driver",
            )
        } else {
            Finding::unused(CHECK, found)
        };
    }
    match tpm::read(&device) {
        Ok(state) => judge_dictionary_attack(CHECK, &state),
        Err(error) if is_used => Finding::warn(CHECK, error.to_string(), error.hint()),
        Err(error) => Finding::unused(CHECK, error.to_string()),
    }
}

fn judge_dictionary_attack(check: &'static str, state: &TpmDictionaryAttack) -> Finding {
    let found = format!(
        "{} of {} failures, one forgiven every {} s",
        state.counter, state.tries_max, state.interval_secs
    );
    if state.in_lockout {
        return Finding::fail(
            check,
            format!("locked out: {found}"),
            "wait until a failure is forgiven, then `fieldgate hsm tpm --set-limits`",
        );
    }
    if state.counter.saturating_mul(2) > state.tries_max {
        return Finding::warn(
            check,
            found,
            "power cuts or wrong PINs count; `fieldgate hsm tpm --set-limits` gives more room",
        );
    }
    if state.tries_max < tpm::TRIES_MAX || state.interval_secs > tpm::INTERVAL_SECS {
        return Finding::warn(
            check,
            found,
            "a few power cuts in a row may lock the key; `fieldgate hsm tpm --set-limits` gives more room",
        );
    }
    Finding::ok(check, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Verdict;

    #[test]
    fn a_clock_is_good_if_somebody_vouches_for_it() {
        let status = |quality: &str| ClockStatus {
            quality: quality.to_owned(),
            ..ClockStatus::default()
        };
        assert_eq!(judge_clock(&status("synchronised")).verdict, Verdict::Ok);
        assert_eq!(judge_clock(&status("floor")).verdict, Verdict::Warn);
        let distrusted = ClockStatus {
            distrust: Some("behind".into()),
            ..status("floor")
        };
        assert!(judge_clock(&distrusted).found.ends_with("; behind"));
        let damaged = ClockStatus {
            file_problem: Some("damaged".into()),
            ..status("synchronised")
        };
        assert_eq!(judge_clock(&damaged).verdict, Verdict::Warn);
    }

    #[test]
    fn a_clock_with_a_battery_tells_the_time() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(rtc(dir.path()).verdict, Verdict::Unused);
        let rtc0 = dir.path().join("rtc0");
        fs::create_dir(&rtc0).unwrap();
        fs::write(rtc0.join("name"), "rtc_cmos\n").unwrap();
        assert_eq!(rtc(dir.path()).verdict, Verdict::Warn);
        fs::write(rtc0.join("since_epoch"), "0\n").unwrap();
        assert_eq!(rtc(dir.path()).verdict, Verdict::Warn);
        fs::write(rtc0.join("since_epoch"), "1795000000\n").unwrap();
        let good = rtc(dir.path());
        assert_eq!(good.verdict, Verdict::Ok);
        assert!(good.found.starts_with("rtc_cmos: 2026-11-18T"), "{}", good.found);
    }

    #[test]
    fn power_cuts_are_told_before_they_lock() {
        let judge = |in_lockout, counter, tries_max, interval_secs| {
            let state = TpmDictionaryAttack {
                in_lockout,
                counter,
                tries_max,
                interval_secs,
                recovery_secs: 86_400,
                needs_authorization: false,
            };
            judge_dictionary_attack("tpm", &state).verdict
        };
        assert_eq!(judge(false, 0, 31, 600), Verdict::Ok);
        assert_eq!(judge(false, 15, 31, 600), Verdict::Ok);
        assert_eq!(judge(false, 16, 31, 600), Verdict::Warn);
        assert_eq!(judge(false, 0, 3, 1_000), Verdict::Warn);
        assert_eq!(judge(false, 0, 31, 7_200), Verdict::Warn);
        assert_eq!(judge(true, 31, 31, 600), Verdict::Fail);
    }

    #[test]
    fn this_machine_has_randomness() {
        assert_eq!(entropy().verdict, Verdict::Ok);
    }

    #[test]
    fn a_backend_that_is_not_wanted_is_no_failure() {
        assert_ne!(io(Some(IoBackend::Epoll)).verdict, Verdict::Fail);
        assert_ne!(io(Some(IoBackend::Auto)).verdict, Verdict::Fail);
        let strict = io(Some(IoBackend::Uring)).verdict;
        assert!(strict == Verdict::Ok || strict == Verdict::Fail);
    }
}
