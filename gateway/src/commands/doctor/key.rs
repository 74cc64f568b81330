//! The identity and its key: module, token, PIN, and one signature.

use std::{path::Path, time::Duration};

use fieldgate_config::settings::{Identity, SecretSource, Settings};
use fieldgate_hsm::{
    PinState, Pkcs11Uri, Signer,
    process::{ProcessSettings, ProcessSigner, SandboxReport},
};
use fieldgate_proto::identity::{ChangeHistory, KeyAlgorithm};
use serde_json::Value;

use super::{Finding, child};
use crate::runtime::keys;

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut may_log_in = true;
    if let Identity::Pkcs11 { module, uri, .. } = &settings.identity {
        let probe = child::probe(module, PROBE_TIME_MAX);
        findings.push(judge_module(module, &probe));
        let token = judge_token(uri, probe.as_ref().ok());
        may_log_in = token.verdict != super::Verdict::Fail;
        findings.push(token);
    }
    let history = match keys::read_history(&settings.node.state_dir) {
        Ok(history) => {
            findings.push(Finding::ok("identity", history.identifier().to_string()));
            Some(history)
        }
        Err(error) => {
            let cure = "`fieldgate identity create` makes one; `fieldgate enroll` comes after it";
            findings.push(Finding::fail("identity", error.to_string(), cure));
            None
        }
    };
    findings.extend(signature(settings, history.as_ref(), may_log_in));
    findings
}

fn judge_module(module: &Path, probe: &Result<Value, String>) -> Finding {
    const CHECK: &str = "module";
    match probe {
        Ok(probe) => {
            let library = &probe["library"];
            let text = |key: &str| library[key].as_str().unwrap_or("?").to_owned();
            let found = format!(
                "{}: {} {}, PKCS#11 {}",
                module.display(),
                text("description"),
                text("version"),
                text("cryptoki_version")
            );
            Finding::ok(CHECK, found)
        }
        Err(error) => Finding::fail(
            CHECK,
            format!("{}: {error}", module.display()),
            "see that the vendor's package is installed for this processor, and that its service runs",
        ),
    }
}

/// Judges the token that the URI means by what it shows without a login.
fn judge_token(uri: &str, probe: Option<&Value>) -> Finding {
    const CHECK: &str = "token";
    let (Some(probe), Ok(wanted)) = (probe, uri.parse::<Pkcs11Uri>()) else {
        return Finding::fail(CHECK, "the module did not answer", "see above");
    };
    let slots = probe["slots"].as_array().into_iter().flatten();
    let tokens: Vec<&Value> = slots
        .map(|slot| &slot["token"])
        .filter(|token| token.is_object())
        .collect();
    let matching: Vec<&Value> = tokens
        .iter()
        .copied()
        .filter(|token| is_meant(&wanted, token))
        .collect();
    let [token] = matching.as_slice() else {
        let found = format!("{} of {} tokens match {uri}", matching.len(), tokens.len());
        let cure =
            "`fieldgate hsm probe` lists them; put token= or serial= of the right one into `identity.pkcs11`";
        return Finding::fail(CHECK, found, cure);
    };
    let name = wanted.token.clone().unwrap_or_else(|| uri.to_owned());
    let flag = |key: &str| token[key].as_bool() == Some(true);
    let mechanisms: Vec<&str> = token["mechanisms"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let can_sign = mechanisms
        .iter()
        .any(|name| ["CKM_ECDSA", "CKM_EDDSA"].contains(name));
    match token["pin"].as_str() {
        Some(state) if state == pin_words(PinState::Locked) => Finding::fail(
            CHECK,
            format!("{name}: the PIN {state}"),
            "set a new user PIN with the security officer's; the key is still there",
        ),
        // The last try, or a wrong one since the last login: whoever tries by itself may be the one who locks it.
        Some(state) => Finding::fail(
            CHECK,
            format!("{name}: the PIN {state}"),
            "a node does not try it like this; log in by hand with the right PIN once (pkcs11-tool --login --list-objects)",
        ),
        _ if !flag("is_initialized") || !flag("has_user_pin") => Finding::fail(
            CHECK,
            format!("{name} is not initialised or has no user PIN"),
            "initialise it and set the user PIN, with the vendor's tool",
        ),
        _ if !can_sign => Finding::fail(
            CHECK,
            format!("{name} has neither CKM_ECDSA nor CKM_EDDSA"),
            "use a token that signs with P-256 or Ed25519",
        ),
        _ if flag("is_write_protected") => Finding::warn(
            CHECK,
            format!("{name} is write-protected"),
            "it signs, but `fieldgate identity create` and `rotate` need it open",
        ),
        _ => Finding::ok(CHECK, format!("{name}, {} mechanisms", mechanisms.len())),
    }
}

/// Whether a token is one that a URI means.
fn is_meant(wanted: &Pkcs11Uri, token: &Value) -> bool {
    let Some(uri) = token["uri"]
        .as_str()
        .and_then(|uri| uri.parse::<Pkcs11Uri>().ok())
    else {
        return false;
    };
    [
        (&wanted.token, &uri.token),
        (&wanted.manufacturer, &uri.manufacturer),
        (&wanted.serial, &uri.serial),
        (&wanted.model, &uri.model),
    ]
    .into_iter()
    .all(|(wanted, have)| wanted.is_none() || wanted == have)
}

/// Returns the words `hsm probe` uses.
pub(crate) fn pin_words(state: PinState) -> String {
    state.to_string()
}

/// Opens the key as a node does, signs once and measures it.
fn signature(settings: &Settings, history: Option<&ChangeHistory>, may_log_in: bool) -> Vec<Finding> {
    const CHECK: &str = "signature";
    if !may_log_in {
        return vec![Finding::unused(CHECK, "not tried, see the token")];
    }
    let secret = match &settings.identity {
        Identity::Pkcs11 { pin, .. } => pin,
        Identity::File { passphrase, .. } => passphrase,
    };
    if let SecretSource::Credential(name) = secret
        && std::env::var_os("CREDENTIALS_DIRECTORY").is_none()
    {
        let cure = format!(
            "run it as the unit does: systemd-run --pipe --uid=fieldgate -p LoadCredentialEncrypted={name} fieldgate doctor"
        );
        return vec![Finding::warn(
            CHECK,
            format!("not tried: the credential {name} is handed to the service only"),
            cure,
        )];
    }
    match open(settings, history) {
        Ok(signer) => measured(CHECK, signer),
        Err(error) => vec![Finding::fail(CHECK, error.0, error.1)],
    }
}

/// What happened and what to do.
type Refusal = (String, String);

fn open(settings: &Settings, history: Option<&ChangeHistory>) -> Result<ProcessSigner, Refusal> {
    let refused = |error: &fieldgate_hsm::Error| (chain(error), error.hint().to_string());
    let mut process = ProcessSettings::new(key_settings(settings).map_err(|error| refused(&error))?);
    process.wanted = history.and_then(wanted);
    process.state_dir = Some(settings.node.state_dir.clone());
    ProcessSigner::start(process).map_err(|error| refused(&error))
}

fn measured(check: &'static str, mut signer: ProcessSigner) -> Vec<Finding> {
    let message = b"FG1 doctor: nothing depends on this";
    let before = fieldgate_io::clock::monotonic();
    let signed = signer.sign(message);
    let took = Duration::from_nanos(fieldgate_io::clock::monotonic() - before);
    let signature = match signed {
        Ok(signature) => signature,
        Err(error) => return vec![Finding::fail(check, chain(&error), error.hint().to_string())],
    };
    let mut findings = Vec::new();
    let millis = took.as_millis();
    findings.push(if !signer.public_key().verify(message, &signature) {
        let cure = "the token is broken or not the one it says; do not use it";
        Finding::fail(check, format!("{} signs wrongly", signer.location()), cure)
    } else if took > SIGN_TIME_MAX {
        let cure = "handshakes with a live proof will be slow; see what else uses the token";
        Finding::warn(check, format!("{millis} ms, good"), cure)
    } else {
        Finding::ok(check, format!("{millis} ms, good"))
    });
    findings.push(match signer.sandbox() {
        SandboxReport::Full => Finding::ok("sandbox", "full"),
        partial @ SandboxReport::Partial(_) => Finding::warn(
            "sandbox",
            partial.to_string(),
            "a kernel from 5.13 on with Landlock closes it; the module sees more than it has to until then",
        ),
    });
    findings
}

fn key_settings(settings: &Settings) -> Result<fieldgate_hsm::Settings, fieldgate_hsm::Error> {
    let mut key = match &settings.identity {
        Identity::Pkcs11 { module, uri, pin } => {
            let uri = uri.parse().map_err(fieldgate_hsm::Error::Uri)?;
            fieldgate_hsm::Settings::pkcs11(uri, Some(module.clone()), Some(keys::secret_source(pin)))?
        }
        Identity::File { path, passphrase } => fieldgate_hsm::Settings::File {
            path: path.clone(),
            key: keys::secret_source(passphrase),
        },
    };
    if let fieldgate_hsm::Settings::Pkcs11 { sandbox, .. } = &mut key {
        sandbox.extra_paths.clone_from(&settings.sandbox.paths);
        sandbox.network = settings.sandbox.network;
        sandbox.environment.clone_from(&settings.sandbox.environment);
    }
    Ok(key)
}

/// Returns the current key of the identity; a malformed one is found out by the node.
fn wanted(history: &ChangeHistory) -> Option<fieldgate_hsm::PublicKey> {
    let key = history.current_key();
    let algorithm = match key.algorithm() {
        KeyAlgorithm::EcdsaP256 => fieldgate_hsm::Algorithm::P256,
        KeyAlgorithm::Ed25519 => fieldgate_hsm::Algorithm::Ed25519,
    };
    fieldgate_hsm::PublicKey::from_bytes(algorithm, key.as_bytes())
}

/// Returns an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Longest time for a module to list its slots: readers that are asleep need seconds.
const PROBE_TIME_MAX: Duration = Duration::from_secs(30);
/// A TPM needs a few hundred milliseconds; what needs more makes people wait.
const SIGN_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Verdict;

    fn token(change: impl FnOnce(&mut Value)) -> Value {
        let mut token = serde_json::json!({
            "uri": "pkcs11:token=fieldgate;manufacturer=x;serial=1;model=y",
            "is_initialized": true, "has_user_pin": true, "is_write_protected": false,
            "pin": null, "mechanisms": ["CKM_ECDSA"],
        });
        change(&mut token);
        token
    }

    fn verdict(tokens: &[Value]) -> Verdict {
        let slots: Vec<Value> = tokens
            .iter()
            .map(|token| serde_json::json!({ "token": token }))
            .collect();
        let probe = serde_json::json!({ "slots": slots });
        judge_token("pkcs11:token=fieldgate;object=key", Some(&probe)).verdict
    }

    #[test]
    fn a_token_is_judged_by_its_flags() {
        let with = |key: &str, value: Value| verdict(&[token(|token| token[key] = value)]);
        assert_eq!(verdict(&[token(|_| {})]), Verdict::Ok);
        assert_eq!(with("pin", pin_words(PinState::Locked).into()), Verdict::Fail);
        assert_eq!(with("pin", pin_words(PinState::FinalTry).into()), Verdict::Fail);
        assert_eq!(with("pin", pin_words(PinState::CountLow).into()), Verdict::Fail);
        assert_eq!(with("has_user_pin", false.into()), Verdict::Fail);
        assert_eq!(with("is_write_protected", true.into()), Verdict::Warn);
        assert_eq!(with("mechanisms", Value::Array(Vec::new())), Verdict::Fail);
        assert_eq!(with("uri", "pkcs11:token=other".into()), Verdict::Fail);
    }

    #[test]
    fn there_is_one_token_that_is_meant() {
        assert_eq!(verdict(&[]), Verdict::Fail);
        assert_eq!(verdict(&[Value::Null]), Verdict::Fail);
        assert_eq!(verdict(&[token(|_| {}), token(|_| {})]), Verdict::Fail);
        let other = token(|token| token["uri"] = "pkcs11:token=other".into());
        assert_eq!(verdict(&[other, Value::Null, token(|_| {})]), Verdict::Ok);
    }
}
