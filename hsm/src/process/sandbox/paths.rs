//! Which parts of the file system a signer needs.

use std::env;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::directory_of;
use crate::file::next_path;
use crate::settings::Settings;

/// Parts of the file system by what may be done with them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Paths {
    /// Read and executed: libraries.
    pub(super) execute: Vec<PathBuf>,
    /// Read.
    pub(super) read: Vec<PathBuf>,
    /// Read and written.
    pub(super) write: Vec<PathBuf>,
    /// Everything: what the settings add.
    pub(super) everything: Vec<PathBuf>,
}

impl Paths {
    /// Returns what the settings need in the environment of this process.
    pub(super) fn of(settings: &Settings) -> Self {
        let mut paths = Self::default();
        match settings {
            Settings::Pkcs11 { module, sandbox, .. } => {
                paths.add_system();
                paths.add_module(module);
                paths.add_tokens(module, |name| env::var_os(name));
                paths.everything.extend(sandbox.extra_paths.iter().cloned());
            }
            Settings::File { path, .. } => {
                paths.read.extend([path.clone(), next_path(path)]);
                paths.read.extend(RANDOM.map(PathBuf::from));
            }
        }
        paths
    }

    /// Libraries, their data and settings, the devices of tokens.
    fn add_system(&mut self) {
        self.execute.extend(LIBRARIES.map(PathBuf::from));
        self.read.extend(DATA.map(PathBuf::from));
        self.read.extend(RANDOM.map(PathBuf::from));
        self.write.extend(DEVICES.map(PathBuf::from));
        // Not /etc as a whole: it holds the node's own files, and other secrets.
        let entries = fs::read_dir("/etc").into_iter().flatten().flatten();
        self.read.extend(
            entries
                .filter(|entry| !SECRET_SETTINGS.iter().any(|name| entry.file_name() == *name))
                .map(|entry| entry.path()),
        );
    }

    /// The directory of a module, where its parts may lie beside it; of the real file too, if the path is a link.
    fn add_module(&mut self, module: &Path) {
        let real = module.canonicalize().ok();
        for path in [Some(module.to_owned()), real].into_iter().flatten() {
            self.execute.extend(directory_of(&path));
        }
    }

    /// Where the modules we know keep their tokens, by their own settings.
    fn add_tokens(&mut self, module: &Path, variable: impl Fn(&str) -> Option<OsString>) {
        let path_of = |name| variable(name).map(PathBuf::from);
        let home = path_of("HOME").filter(|home| home.is_absolute());

        let is_softhsm = module.to_string_lossy().contains("softhsm");
        let softhsm = path_of("SOFTHSM2_CONF").or_else(|| {
            let own = home
                .as_ref()
                .map(|home| home.join(".config/softhsm2/softhsm2.conf"))
                .filter(|path| path.exists());
            is_softhsm.then(|| own.unwrap_or_else(|| SOFTHSM_SETTINGS.into()))
        });
        if let Some(file) = softhsm {
            self.write
                .extend(setting(&file, "directories.tokendir").map(PathBuf::from));
            self.read.push(file);
        }

        self.write.extend(path_of("TPM2_PKCS11_STORE"));
        self.write.extend(home.map(|home| home.join(".tpm2_pkcs11")));
        self.read.extend(path_of("TSS2_FAPICONF"));
        // A TPM under a name of its own: `device:/dev/tpmrm1`.
        let ways = ["TPM2_PKCS11_TCTI", "TSS2_TCTI"]
            .into_iter()
            .filter_map(&variable);
        self.write
            .extend(ways.filter_map(|way| way.to_str()?.strip_prefix("device:").map(PathBuf::from)));

        if let Some(file) = path_of("KRYOPTIC_CONF") {
            // Its database makes files beside itself.
            let databases = fs::read_to_string(&file).unwrap_or_default();
            let databases = values(&databases, "dbargs").map(PathBuf::from);
            self.write
                .extend(databases.filter_map(|database| directory_of(&database)));
            self.read.push(file);
        }

        // Tracing modules: the module behind, and the trace, which must exist to be granted.
        if let Some(behind) = path_of("PKCS11SPY") {
            self.add_module(&behind);
            if let Some(trace) = path_of("PKCS11SPY_OUTPUT") {
                let made = OpenOptions::new().append(true).create(true).open(&trace);
                self.write.extend(made.is_ok().then_some(trace));
            }
        }
    }
}

/// Returns the value of a setting in a file of lines `name = value`.
fn setting(file: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    values(&text, name).last().map(str::to_owned)
}

/// Lists the values of a setting in lines `name = value` or `name = "value"`.
fn values<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let (found, value) = line.split_once('=')?;
        (found.trim() == name).then(|| value.trim().trim_matches('"'))
    })
}

/// Where libraries are.
const LIBRARIES: [&str; 7] = [
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
];
/// What libraries read: tables, the devices there are, numbers about this process and the machine.
const DATA: [&str; 11] = [
    "/usr/share",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys",
    "/sys/bus",
    "/sys/class",
    "/sys/devices",
    "/run/udev",
    "/run/opensc",
];
/// Random numbers.
const RANDOM: [&str; 3] = ["/dev/random", "/dev/urandom", "/dev/zero"];
/// Devices and sockets that tokens are reached through, and what all programs write to.
const DEVICES: [&str; 7] = [
    "/dev/null",
    "/dev/shm",
    "/dev/tpm0",
    "/dev/tpmrm0",
    "/dev/tee0",
    "/dev/bus/usb",
    "/run/pcscd",
];
/// Entries of /etc that a module has no business with.
const SECRET_SETTINGS: [&str; 9] = [
    "credstore",
    "credstore.encrypted",
    "fieldgate",
    "gshadow",
    "gshadow-",
    "shadow",
    "shadow-",
    "ssh",
    "sudoers",
];
/// Where SoftHSM2 looks when nothing is said.
const SOFTHSM_SETTINGS: &str = "/etc/softhsm/softhsm2.conf";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretSource;

    #[test]
    fn tokens_are_found_by_the_settings_of_their_modules() {
        let directory = tempfile::tempdir().unwrap();
        let softhsm = directory.path().join("softhsm2.conf");
        fs::write(
            &softhsm,
            "# directories.tokendir = /no\n directories.tokendir = /srv/tokens \nlog.level = INFO\n",
        )
        .unwrap();
        let kryoptic = directory.path().join("kryoptic.conf");
        fs::write(
            &kryoptic,
            "[[slots]]\nslot = 1\ndbargs = \"/srv/kryoptic/one.sql\"\n[[slots]]\ndbargs=\"/two.sql\"\n",
        )
        .unwrap();
        let trace = directory.path().join("trace");
        let variable = |name: &str| match name {
            "SOFTHSM2_CONF" => Some(softhsm.clone().into()),
            "KRYOPTIC_CONF" => Some(kryoptic.clone().into()),
            "TPM2_PKCS11_STORE" => Some("/srv/tpm".into()),
            "TPM2_PKCS11_TCTI" => Some("device:/dev/tpmrm1".into()),
            "TSS2_TCTI" => Some("swtpm:port=2321".into()),
            "HOME" => Some("/home/fieldgate".into()),
            "PKCS11SPY" => Some("/opt/vendor/behind.so".into()),
            "PKCS11SPY_OUTPUT" => Some(trace.clone().into()),
            _ => None::<OsString>,
        };
        let mut paths = Paths::default();
        paths.add_tokens(Path::new("/opt/m.so"), variable);
        let expected = Paths {
            execute: vec!["/opt/vendor".into()],
            read: vec![softhsm.clone(), kryoptic.clone()],
            write: vec![
                "/srv/tokens".into(),
                "/srv/tpm".into(),
                "/home/fieldgate/.tpm2_pkcs11".into(),
                "/dev/tpmrm1".into(),
                // /two.sql lies in the root, which is never granted.
                "/srv/kryoptic".into(),
                trace.clone(),
            ],
            everything: vec![],
        };
        assert_eq!(paths, expected);
    }

    #[test]
    fn secrets_of_the_machine_are_not_among_the_settings_that_are_read() {
        let mut paths = Paths::default();
        paths.add_system();
        assert!(paths.read.contains(&"/etc/passwd".into()));
        for secret in ["/etc", "/etc/shadow", "/etc/fieldgate", "/etc/ssh", "/"] {
            assert!(!paths.read.contains(&secret.into()), "{secret}");
        }
    }

    #[test]
    fn a_sealed_file_needs_nothing_but_itself() {
        let settings = Settings::File {
            path: "/var/lib/fieldgate/identity".into(),
            key: SecretSource::Credential("key".into()),
        };
        let paths = Paths::of(&settings);
        assert!(paths.execute.is_empty() && paths.write.is_empty() && paths.everything.is_empty());
        assert!(paths.read.contains(&"/var/lib/fieldgate/identity".into()));
        assert!(paths.read.contains(&"/var/lib/fieldgate/identity.next".into()));
    }
}
