//! `fieldgate hsm probe|tpm`: what a PKCS#11 module and a TPM have to offer.

use std::path::{Path, PathBuf};

use fieldgate_config::settings::{Identity, Settings};
use fieldgate_hsm::{
    Pkcs11Uri, Probe, ProbeReport, SecretSource, Serials, SlotSummary, TokenSummary, TokenTrials, Trial,
    probe_report,
    tpm::{self, TpmDictionaryAttack, TpmError},
};
use serde::Serialize;

use super::{Failure, check, doctor::key::pin_words, print, print_json};
use crate::{
    cli::{HsmCommand, ProbeArgs, TpmArgs},
    runtime::keys,
};

pub(super) fn run(command: HsmCommand) -> Result<(), Failure> {
    match command {
        HsmCommand::Probe(args) => probe(&args),
        HsmCommand::Tpm(args) => tpm(&args),
    }
}

/// Which module, and with a trial which token.
struct Target {
    module: PathBuf,
    token: Option<(Pkcs11Uri, SecretSource)>,
}

fn probe(args: &ProbeArgs) -> Result<(), Failure> {
    let Target { module, token } = target(args)?;
    let trial = match (&token, args.trial) {
        (Some((uri, pin)), true) => Trial::Yes { uri, pin },
        (None, true) => {
            return Err(Failure::input("a trial needs a token and its PIN")
                .hint("add --token pkcs11:token=… and --pin-from file:PATH, or --config FILE"));
        }
        (_, false) => Trial::No,
    };
    let report = probe_report(&module, trial).map_err(|error| hsm_failure(&error))?;
    let serials = if args.serials {
        Serials::Shown
    } else {
        Serials::LeftOut
    };
    if args.json {
        return print_json(&ShownReport::of(&report, serials));
    }
    print(&report.to_markdown(serials))
}

fn hsm_failure(error: &fieldgate_hsm::Error) -> Failure {
    Failure::chain("hsm probe", error).hint(error.hint())
}

fn target(args: &ProbeArgs) -> Result<Target, Failure> {
    if let Some(file) = &args.config {
        return of_settings(&check::settings(file)?);
    }
    let Some(module) = args.module.clone() else {
        return Err(
            Failure::input("no module is named").hint("add --module PATH, or --config FILE of a node")
        );
    };
    let token = match (&args.token, &args.pin_from) {
        (Some(token), Some(pin)) => {
            let uri = token.parse().map_err(|error: fieldgate_hsm::UriError| {
                Failure::input(format!("--token: {error}")).hint(error.hint())
            })?;
            Some((uri, secret_source(pin)?))
        }
        _ => None,
    };
    Ok(Target { module, token })
}

fn of_settings(settings: &Settings) -> Result<Target, Failure> {
    match &settings.identity {
        Identity::Pkcs11 { module, uri, pin } => {
            let uri = uri.parse().map_err(|error: fieldgate_hsm::UriError| {
                Failure::input(format!("identity.pkcs11: {error}")).hint(error.hint())
            })?;
            Ok(Target {
                module: module.clone(),
                token: Some((uri, keys::secret_source(pin))),
            })
        }
        Identity::File { .. } => Err(
            Failure::input("the file names no token: its key is in a sealed file")
                .hint("name a module with --module PATH"),
        ),
    }
}

/// Reads `credential:NAME`, `file:PATH`, `env:NAME`.
fn secret_source(text: &str) -> Result<SecretSource, Failure> {
    let source = match text.split_once(':') {
        Some((_, "")) | None => None,
        Some(("credential", name)) => Some(SecretSource::Credential(name.to_owned())),
        Some(("file", path)) => Some(SecretSource::File(path.into())),
        Some(("env", name)) => Some(SecretSource::Environment(name.to_owned())),
        Some(_) => None,
    };
    // What was given may be the secret itself, so it is not shown.
    source.ok_or_else(|| {
        Failure::input("this is not a place of a secret").hint(
            "write credential:NAME, file:PATH or env:NAME; the secret itself would stand in the list of processes",
        )
    })
}

/// A report as JSON.
#[derive(Serialize)]
struct ShownReport {
    library: Option<ShownLibrary>,
    slots: Vec<ShownSlot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trials: Option<ShownTrials>,
}

#[derive(Serialize)]
struct ShownLibrary {
    manufacturer: String,
    description: String,
    version: String,
    cryptoki_version: String,
}

#[derive(Serialize)]
struct ShownSlot {
    slot_id: u64,
    description: String,
    manufacturer: String,
    token: Option<ShownToken>,
    problem: Option<String>,
}

#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "flags of CK_TOKEN_INFO, one each")]
struct ShownToken {
    uri: String,
    is_initialized: bool,
    is_write_protected: bool,
    needs_login: bool,
    has_user_pin: bool,
    has_pin_pad: bool,
    pin: Option<String>,
    mechanisms: Vec<String>,
}

#[derive(Serialize)]
struct ShownTrials {
    token: String,
    label: String,
    rows: Vec<ShownRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signing: Option<ShownLatency>,
    left_behind: usize,
    left_earlier: usize,
}

#[derive(Serialize)]
struct ShownRow {
    what: &'static str,
    outcome: String,
}

#[derive(Serialize)]
struct ShownLatency {
    count: usize,
    median_us: u128,
    p99_us: u128,
}

impl ShownReport {
    fn of(report: &ProbeReport, serials: Serials) -> Self {
        let Probe { library, slots } = &report.probe;
        let version = |(major, minor): (u8, u8)| format!("{major}.{minor}");
        Self {
            library: library.as_ref().map(|library| ShownLibrary {
                manufacturer: library.manufacturer.clone(),
                description: library.description.clone(),
                version: version(library.version),
                cryptoki_version: version(library.cryptoki_version),
            }),
            slots: slots.iter().map(|slot| ShownSlot::of(slot, serials)).collect(),
            trials: report
                .trials
                .as_ref()
                .map(|trials| ShownTrials::of(trials, serials)),
        }
    }
}

impl ShownSlot {
    fn of(slot: &SlotSummary, serials: Serials) -> Self {
        Self {
            slot_id: slot.slot_id,
            description: slot.description.clone(),
            manufacturer: slot.manufacturer.clone(),
            token: slot.token.as_ref().map(|token| ShownToken::of(token, serials)),
            problem: slot.problem.as_ref().map(ToString::to_string),
        }
    }
}

impl ShownToken {
    fn of(token: &TokenSummary, serials: Serials) -> Self {
        Self {
            uri: uri_text(&token.uri, serials),
            is_initialized: token.is_initialized,
            is_write_protected: token.is_write_protected,
            needs_login: token.needs_login,
            has_user_pin: token.has_user_pin,
            has_pin_pad: token.has_pin_pad,
            pin: token.pin_state.map(pin_words),
            mechanisms: token.mechanisms.clone(),
        }
    }
}

impl ShownTrials {
    fn of(trials: &TokenTrials, serials: Serials) -> Self {
        let row = |row: &fieldgate_hsm::TrialRow| ShownRow {
            what: row.what,
            outcome: row.outcome.to_string().replace("**", ""),
        };
        Self {
            token: uri_text(&trials.token, serials),
            label: trials.label.clone(),
            rows: trials.rows.iter().map(row).collect(),
            signing: trials.signing.map(|signing| ShownLatency {
                count: signing.count,
                median_us: signing.median.as_micros(),
                p99_us: signing.p99.as_micros(),
            }),
            left_behind: trials.left_behind,
            left_earlier: trials.left_earlier,
        }
    }
}

fn uri_text(uri: &Pkcs11Uri, serials: Serials) -> String {
    match serials {
        Serials::Shown => uri.to_string(),
        Serials::LeftOut => Pkcs11Uri {
            serial: None,
            ..uri.clone()
        }
        .to_string(),
    }
}

fn tpm(args: &TpmArgs) -> Result<(), Failure> {
    let state = if args.set_limits {
        set_limits(&args.device, args.lockout_from.as_deref())?
    } else {
        tpm::read(&args.device).map_err(|error| tpm_failure(&error))?
    };
    if args.json {
        return print_json(&ShownTpm::of(&state));
    }
    print(&tpm_text(&args.device, &state))
}

fn set_limits(device: &Path, lockout_from: Option<&str>) -> Result<TpmDictionaryAttack, Failure> {
    let authorization = match lockout_from {
        Some(source) => Some(
            secret_source(source)?
                .read()
                .map_err(|error| Failure::chain("lockout authorisation", &error).hint(error.hint()))?,
        ),
        None => None,
    };
    tpm::set_limits(device, authorization.as_ref()).map_err(|error| tpm_failure(&error))
}

fn tpm_failure(error: &TpmError) -> Failure {
    Failure::chain("hsm tpm", error).hint(error.hint())
}

#[derive(Serialize)]
struct ShownTpm {
    in_lockout: bool,
    failures: u32,
    failures_max: u32,
    forgiven_every_secs: u32,
    lockout_recovery_secs: u32,
    needs_authorization: bool,
    has_recommended_limits: bool,
}

impl ShownTpm {
    const fn of(state: &TpmDictionaryAttack) -> Self {
        Self {
            in_lockout: state.in_lockout,
            failures: state.counter,
            failures_max: state.tries_max,
            forgiven_every_secs: state.interval_secs,
            lockout_recovery_secs: state.recovery_secs,
            needs_authorization: state.needs_authorization,
            has_recommended_limits: has_recommended_limits(state),
        }
    }
}

const fn has_recommended_limits(state: &TpmDictionaryAttack) -> bool {
    state.tries_max >= tpm::TRIES_MAX && state.interval_secs <= tpm::INTERVAL_SECS
}

fn tpm_text(device: &Path, state: &TpmDictionaryAttack) -> String {
    let lockout = if state.in_lockout {
        "LOCKED OUT: protected keys do not work"
    } else {
        "not locked out"
    };
    let advice = if has_recommended_limits(state) {
        ""
    } else {
        "\nA power cut while a key is in use counts as a failure. `fieldgate hsm tpm --set-limits` gives room for 31, one\n\
         forgiven every ten minutes.\n"
    };
    let authorization = if state.needs_authorization {
        "set: --set-limits needs --lockout-from"
    } else {
        "not set: whoever has the device may change the limits"
    };
    format!(
        "{}: {lockout}\n\n  failures        {} of {}\n  forgiven        one every {} s\n  authorisation   {authorization}\n  \
         if wrong        refused for {} s\n{advice}",
        device.display(),
        state.counter,
        state.tries_max,
        state.interval_secs,
        state.recovery_secs,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_secrets_are_read_and_secrets_are_not_repeated() {
        let read = |text: &str| secret_source(text).ok();
        assert_eq!(
            read("credential:pin"),
            Some(SecretSource::Credential("pin".into()))
        );
        assert_eq!(read("file:/a:b"), Some(SecretSource::File("/a:b".into())));
        assert_eq!(read("env:PIN"), Some(SecretSource::Environment("PIN".into())));
        for text in ["123456", "pin:123456", "file:", "", ":", "FILE:/x"] {
            let failure = secret_source(text).err().unwrap();
            assert!(!format!("{failure:?}").contains("123456"));
        }
    }

    #[test]
    fn serial_numbers_are_shown_only_where_asked_for() {
        let uri: Pkcs11Uri = "pkcs11:token=t;serial=0815".parse().unwrap();
        assert_eq!(uri_text(&uri, Serials::LeftOut), "pkcs11:token=t");
        assert_eq!(uri_text(&uri, Serials::Shown), uri.to_string());
    }

    #[test]
    fn limits_that_survive_power_cuts_need_no_advice() {
        let mut state = TpmDictionaryAttack {
            in_lockout: false,
            counter: 2,
            tries_max: tpm::TRIES_MAX,
            interval_secs: tpm::INTERVAL_SECS,
            recovery_secs: tpm::RECOVERY_SECS,
            needs_authorization: true,
        };
        let text = tpm_text(Path::new("/dev/tpmrm0"), &state);
        assert!(text.starts_with("/dev/tpmrm0: not locked out\n"), "{text}");
        assert!(text.contains("2 of 31") && !text.contains("power cut"), "{text}");
        state.tries_max = 3;
        state.in_lockout = true;
        let text = tpm_text(Path::new("/dev/tpmrm0"), &state);
        assert!(
            text.contains("LOCKED OUT") && text.contains("power cut"),
            "{text}"
        );
        assert!(!ShownTpm::of(&state).has_recommended_limits);
    }
}
