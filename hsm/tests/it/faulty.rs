//! The module that injects faults, in front of SoftHSM2: the identity suite on it while it behaves and while it is as slow
//! as a real TPM, and what each of its faults does to a signer.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::suite::soft_token::SoftHsm;
use crate::suite::{Bench, TokenUnderTest, identity_suite};

mod faults;

/// Path of the faulty module: Cargo builds it beside this program, because it is named as a dependency.
pub(crate) fn module() -> PathBuf {
    let directory = env::current_exe().unwrap().parent().unwrap().to_owned();
    let module = directory.join("libfieldgate_faulty_token.so");
    assert!(module.exists(), "{} was not built", module.display());
    module
}

/// Variables that put the faulty module in front of `target`.
pub(crate) fn environment(directory: &Path, target: &Path) -> [(&'static str, OsString); 3] {
    [
        ("FIELDGATE_FAULTY_MODULE", target.into()),
        ("FIELDGATE_FAULTY_CONTROL", control(directory).into()),
        ("FIELDGATE_FAULTY_COUNTS", counts(directory).into()),
    ]
}

/// Replaces the control file at once: half a file would be an error.
pub(crate) fn write_control(directory: &Path, lines: &str) {
    let fresh = directory.join("control.new");
    fs::write(&fresh, lines).unwrap();
    fs::rename(fresh, control(directory)).unwrap();
}

/// How often a function, such as `C_Sign`, was called through the faulty module.
pub(crate) fn calls(directory: &Path, function: &str) -> usize {
    let counts = fs::read_to_string(counts(directory)).unwrap_or_default();
    counts.lines().filter(|line| *line == function).count()
}

fn control(directory: &Path) -> PathBuf {
    directory.join("control")
}

fn counts(directory: &Path) -> PathBuf {
    directory.join("counts")
}

/// SoftHSM2 behind the faulty module.
pub(crate) struct Faulty<const SLOW: bool>(SoftHsm);

impl<const SLOW: bool> TokenUnderTest for Faulty<SLOW> {
    // What a TPM on a slow bus takes.
    const CONTROL: &'static str = if SLOW {
        "login delay 80\ngeneratekeypair delay 350\nsign delay 200\n"
    } else {
        ""
    };
    const HAS_ED25519: bool = SoftHsm::HAS_ED25519;
    const IS_REMOVABLE: bool = true;

    fn real_module() -> PathBuf {
        SoftHsm::real_module()
    }

    fn module() -> PathBuf {
        module()
    }

    fn environment(directory: &Path) -> Vec<(&'static str, OsString)> {
        SoftHsm::environment(directory)
    }

    fn start(directory: &Path) -> Self {
        Self(SoftHsm::start(directory))
    }

    /// A short absence that the module notices: a look at the slots falls into it.
    fn reset(bench: &mut Bench<Self>) {
        Self::unplug(bench);
        fieldgate_hsm::probe(&module()).unwrap();
        Self::plug_in(bench);
    }
}

mod well_behaved {
    super::identity_suite! { "faulty::well_behaved", super::Faulty<false> }
}

mod slow {
    super::identity_suite! { "faulty::slow", super::Faulty<true> }
}
