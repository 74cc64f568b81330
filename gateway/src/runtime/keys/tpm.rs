//! The TPM's protection against guessing, looked at so that a counter that climbs is seen before it locks the key up.
//!
//! A thread of its own asks the TPM at the start, every hour, and after each failed log-in; a TPM that takes its time keeps
//! nobody else waiting. It lives as long as the worker that holds the key.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use fieldgate_config::settings::{Identity as IdentitySettings, Settings};
use fieldgate_hsm::{
    ErrorKind, Worker,
    process::Condition,
    tpm::{self, TpmDictionaryAttack, TpmError},
};

use super::KeyHealth;

/// Returns the TPM that holds the key: the one the file names, or the kernel's where the module is one for TPMs.
pub(crate) fn device(settings: &Settings) -> Option<PathBuf> {
    match &settings.identity {
        IdentitySettings::Pkcs11 { module, .. } => settings
            .tpm
            .clone()
            .or_else(|| is_for_tpms(module).then(|| PathBuf::from(DEVICE))),
        IdentitySettings::File { .. } => None,
    }
}

fn is_for_tpms(module: &Path) -> bool {
    module
        .file_name()
        .is_some_and(|name| name.to_string_lossy().contains("tpm2"))
}

/// Looks at a TPM until it is dropped, or the worker is gone.
pub(super) struct Watch {
    /// Its end is what the thread hears of.
    _alive: Sender<()>,
}

impl Watch {
    /// Starts to look at `device`, and keeps what is found in `health`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(
        device: PathBuf,
        worker: &Arc<Worker>,
        health: Arc<Mutex<KeyHealth>>,
    ) -> io::Result<Self> {
        let (alive, ended) = channel();
        let worker = Arc::downgrade(worker);
        thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(move || look(&device, &worker, &health, &ended))?;
        Ok(Self { _alive: alive })
    }
}

fn look(device: &Path, worker: &Weak<Worker>, health: &Mutex<KeyHealth>, ended: &Receiver<()>) {
    let mut schedule = Schedule::default();
    let mut problem = None;
    loop {
        // Held for the question alone: the worker ends with its last owner, which is not this thread.
        let Some(trouble) = worker.upgrade().map(|worker| Trouble::of(&worker)) else {
            return;
        };
        if schedule.is_due(fieldgate_io::clock::monotonic(), trouble) {
            let found = read(device);
            note(device, &found, &mut problem);
            let mut health = health.lock().unwrap_or_else(PoisonError::into_inner);
            health.tpm = found.ok().flatten();
        }
        if ended.recv_timeout(GLANCE_EVERY) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Asks the TPM; `None` where there is none.
fn read(device: &Path) -> Result<Option<TpmDictionaryAttack>, TpmError> {
    if !device.exists() {
        return Ok(None);
    }
    tpm::read(device).map(Some)
}

/// Logs what has changed.
fn note(
    device: &Path,
    found: &Result<Option<TpmDictionaryAttack>, TpmError>,
    problem: &mut Option<&'static str>,
) {
    let now = match found {
        Ok(Some(state)) if state.in_lockout => Some("locked out"),
        Ok(_) => None,
        Err(_) => Some("not read"),
    };
    if now == *problem {
        return;
    }
    *problem = now;
    let device = device.display();
    match found {
        Ok(Some(state)) if state.in_lockout => {
            tracing::warn!(%device, failures = state.counter, "the TPM is locked out");
        }
        Ok(_) => tracing::info!(%device, "the TPM is not locked out"),
        Err(error) => tracing::warn!(%device, %error, help = error.hint(), "the TPM cannot be read"),
    }
}

/// What changes when a log-in fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trouble {
    /// Requests that failed because of the PIN.
    pin_errors: u64,
    condition: Option<Condition>,
}

impl Trouble {
    fn of(worker: &Worker) -> Self {
        let statistics = worker.statistics();
        Self {
            pin_errors: statistics.errors.get(&ErrorKind::Pin).copied().unwrap_or(0),
            condition: statistics.process.map(|process| process.condition),
        }
    }
}

/// When the TPM is asked.
#[derive(Debug, Default)]
struct Schedule {
    asked: Option<(u64, Trouble)>,
}

impl Schedule {
    /// Says whether the TPM is to be asked at `now`, nanoseconds since start, and counts on that it is.
    fn is_due(&mut self, now: u64, trouble: Trouble) -> bool {
        let is_due = self.asked.is_none_or(|(at, before)| {
            let since = Duration::from_nanos(now.saturating_sub(at));
            since >= ASK_EVERY || (trouble != before && since >= ASK_AGAIN_AFTER)
        });
        if is_due {
            self.asked = Some((now, trouble));
        }
        is_due
    }
}

/// Where Linux has the TPM's resource manager.
pub(crate) const DEVICE: &str = "/dev/tpmrm0";
/// Between two questions while nothing happens.
const ASK_EVERY: Duration = Duration::from_secs(3600);
/// Least time between two questions, whatever happens.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How often the worker is glanced at, which costs the TPM nothing.
const GLANCE_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn trouble(pin_errors: u64, condition: Condition) -> Trouble {
        Trouble {
            pin_errors,
            condition: Some(condition),
        }
    }

    #[test]
    fn the_tpm_is_asked_at_the_start_hourly_and_after_failed_log_ins() {
        let mut schedule = Schedule::default();
        let calm = trouble(0, Condition::Running);
        assert!(schedule.is_due(5, calm));
        assert!(!schedule.is_due(3599 * SECOND, calm));
        assert!(schedule.is_due(3600 * SECOND + 5, calm));
        // A failed log-in, and what follows from it within seconds: asked once, and once more when it is over.
        let failed = trouble(1, Condition::Running);
        assert!(schedule.is_due(3700 * SECOND, failed));
        let given_up = trouble(1, Condition::PinRefused);
        assert!(!schedule.is_due(3709 * SECOND, given_up));
        assert!(schedule.is_due(3710 * SECOND, given_up));
        assert!(!schedule.is_due(3800 * SECOND, given_up));
    }

    #[test]
    fn a_module_tells_whether_it_is_for_tpms_by_its_name() {
        assert!(is_for_tpms(Path::new(
            "/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1"
        )));
        assert!(!is_for_tpms(Path::new("/home/tpm2/libsofthsm2.so")));
    }
}
