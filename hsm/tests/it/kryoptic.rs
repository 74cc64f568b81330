//! Kryoptic, a token in software with other ways than SoftHSM's: no quirks in its attributes, PKCS#11 3.2.
//!
//! It takes minutes to build, so it is no part of every run: `cargo xtask tokens` builds it and runs these tests.

use std::env;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as CryptokiError, RvError};

use crate::softhsm::TOKEN;
use crate::suite::{Bench, TokenUnderTest, identity_suite, path_text, run};

/// Kryoptic with three slots, each with a database of its own.
pub(crate) struct Kryoptic;

impl TokenUnderTest for Kryoptic {
    // The build on the OpenSSL of the distribution, which is older than what its Ed25519 needs.
    const HAS_ED25519: bool = false;
    const IS_REMOVABLE: bool = false;

    fn real_module() -> PathBuf {
        let module = env::var_os(MODULE);
        module
            .unwrap_or_else(|| panic!("{MODULE} is not set; run these tests with cargo xtask tokens"))
            .into()
    }

    fn environment(directory: &Path) -> Vec<(&'static str, OsString)> {
        vec![("KRYOPTIC_CONF", directory.join("kryoptic.conf").into())]
    }

    fn start(directory: &Path) -> Self {
        let mut configuration = String::new();
        for slot in 0..3 {
            let database = directory.join(format!("slot{slot}.sql"));
            writeln!(
                configuration,
                "[[slots]]\nslot = {slot}\ndbtype = \"sqlite\"\ndbargs = \"{}\"",
                database.display()
            )
            .unwrap();
        }
        fs::write(directory.join("kryoptic.conf"), configuration).unwrap();
        Self
    }

    /// It has no reset; a logout by another user in the process ends the login of all.
    fn reset(_: &mut Bench<Self>) {
        let context = Pkcs11::new(Self::real_module()).unwrap();
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(CryptokiError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => panic!("{error}"),
        }
        let slot = context
            .get_slots_with_initialized_token()
            .unwrap()
            .into_iter()
            .find(|slot| context.get_token_info(*slot).unwrap().label() == TOKEN)
            .unwrap();
        let session = context.open_ro_session(slot).unwrap();
        session.logout().unwrap();
    }

    /// Wrong tries until the token says that it is locked.
    fn lock_pin(_: &mut Bench<Self>) -> PathBuf {
        let module = Self::real_module();
        let attempt = [
            "--module",
            path_text(&module),
            "--token-label",
            TOKEN,
            "--login",
            "--pin",
            "000000",
            "--list-objects",
        ];
        let is_locked = || {
            let output = run("pkcs11-tool", &attempt);
            assert!(!output.status.success());
            String::from_utf8_lossy(&output.stderr).contains("CKR_PIN_LOCKED")
        };
        assert!((0..20).any(|_| is_locked()));
        module
    }
}

identity_suite! { "kryoptic", Kryoptic }

/// Names the module that was built.
const MODULE: &str = "FIELDGATE_KRYOPTIC_MODULE";
