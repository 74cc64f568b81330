//! SoftHSM2 as a kind of token.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Bench, TokenUnderTest, identity_suite};
use crate::softhsm::{module, second_user};

/// SoftHSM2: its token is a directory.
pub(crate) struct SoftHsm;

impl TokenUnderTest for SoftHsm {
    const HAS_ED25519: bool = true;
    const IS_REMOVABLE: bool = true;

    fn real_module() -> PathBuf {
        module()
    }

    fn environment(directory: &Path) -> Vec<(&'static str, OsString)> {
        vec![("SOFTHSM2_CONF", directory.join("softhsm2.conf").into())]
    }

    fn start(directory: &Path) -> Self {
        let tokens = directory.join("tokens");
        fs::create_dir(&tokens).unwrap();
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(directory.join("softhsm2.conf"), configuration).unwrap();
        Self
    }

    /// It has no reset; a logout by another user in the process voids the login and all handles too.
    fn reset(_: &mut Bench<Self>) {
        let (_context, session) = second_user();
        session.logout().unwrap();
    }

    fn unplug(bench: &mut Bench<Self>) {
        let tokens = bench.directory.join("tokens");
        fs::rename(&tokens, bench.directory.join("unplugged")).unwrap();
        fs::create_dir(tokens).unwrap();
    }

    fn plug_in(bench: &mut Bench<Self>) {
        let tokens = bench.directory.join("tokens");
        fs::remove_dir(&tokens).unwrap();
        fs::rename(bench.directory.join("unplugged"), tokens).unwrap();
    }
}

identity_suite! { "suite::soft_token", SoftHsm }
