//! Which variables of the environment a worker gets.

use std::env;
use std::ffi::OsString;

/// Names of variables that modules and the libraries below them read. One that ends in `*` stands for all that begin so.
///
/// Not in the list, on purpose: `PATH` and `LD_*`, as the worker runs no programs; everything that may hold a secret.
pub(super) const ALLOWED: [&str; 13] = [
    "SOFTHSM2_CONF",
    "TPM2_PKCS11_*",
    "TSS2_*",
    "KRYOPTIC_CONF",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "PKCS11SPY",
    "PKCS11SPY_OUTPUT",
    "P11_KIT_*",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
];

/// Says whether a worker gets the variable; `extra` are the names that the settings add.
pub(super) fn is_allowed(name: &str, extra: &[String]) -> bool {
    let is_named = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    ALLOWED.into_iter().any(is_named) || extra.iter().any(|pattern| is_named(pattern))
}

/// Returns the variables of this process that a worker gets, but for `secret`, the one that holds the PIN.
pub(super) fn allowed(extra: &[String], secret: Option<&str>) -> Vec<(OsString, OsString)> {
    env::vars_os()
        .filter(|(name, _)| {
            name.to_str()
                .is_some_and(|name| is_allowed(name, extra) && secret != Some(name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_modules_read_is_passed_on() {
        let extra = ["CLOUDHSM_*".to_owned(), "YUBIHSM_PKCS11_CONF".to_owned()];
        for name in [
            "SOFTHSM2_CONF",
            "TPM2_PKCS11_STORE",
            "TSS2_LOG",
            "HOME",
            "CLOUDHSM_PIN_FREE",
            "YUBIHSM_PKCS11_CONF",
        ] {
            assert!(is_allowed(name, &extra), "{name}");
        }
        for name in [
            "PATH",
            "LD_PRELOAD",
            "FIELDGATE_PIN",
            "CREDENTIALS_DIRECTORY",
            "HOMEDIR",
            "YUBIHSM_PKCS11_CONF2",
            "SOFTHSM2",
        ] {
            assert!(!is_allowed(name, &extra), "{name}");
        }
    }
}
