//! The identity suite: the same tests on every kind of token.
//!
//! A kind of token implements [`TokenUnderTest`]; [`identity_suite!`](crate::suite::identity_suite) makes a test of each
//! body for it. As with SoftHSM alone, every test runs itself again as a process of its own: environment and
//! `C_Initialize` are of the whole process. Whatever a token needs, such as a software TPM, is started by that process and
//! ends with it.
//!
//! Before every token the faulty module can be put ([`Bench::faulty`]), where the token itself cannot be made to do what
//! is tested, and `pkcs11-spy`, which counts calls.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fieldgate_hsm::process::{ProcessSettings, ProcessSigner};
use fieldgate_hsm::{Algorithm, CreatedKey, Error, Pkcs11Uri, SecretSource, Settings, Signer, create_pkcs11};
use rustix::process::{Pid, Signal, kill_process};

use crate::softhsm::{PIN, TOKEN, token_uri};
use crate::{faulty, spy};

pub(crate) mod bodies;
pub(crate) mod soft_token;

/// The security officer's PIN of every token.
pub(crate) const SO_PIN: &str = "60013772";

/// A kind of token.
pub(crate) trait TokenUnderTest: Sized {
    /// What the control file of the faulty module always says.
    const CONTROL: &'static str = "";
    /// Whether it makes Ed25519 keys.
    const HAS_ED25519: bool;
    /// What pkcs11-tool says a key can be used for that was made to sign only.
    const USAGE: &'static str = "sign";
    /// Whether the token itself can be taken away while a program uses it; otherwise the faulty module does it.
    const IS_REMOVABLE: bool;

    /// The module that calls end up in.
    fn real_module() -> PathBuf;

    /// The module that programs load.
    fn module() -> PathBuf {
        Self::real_module()
    }

    /// Variables that the module needs, known before anything is started.
    fn environment(directory: &Path) -> Vec<(&'static str, OsString)>;

    /// Starts what the token needs; there is no initialised token yet.
    fn start(directory: &Path) -> Self;

    /// Initialises one more token.
    fn add_token(bench: &Bench<Self>, label: &str) {
        initialize_token(&Self::real_module(), label);
        let _ = bench;
    }

    /// Makes the token forget all logins and sessions, as a reset does, while it stays where it is.
    fn reset(bench: &mut Bench<Self>);

    /// Takes the token away.
    fn unplug(bench: &mut Bench<Self>) {
        bench.control("token vanish\n");
    }

    /// Puts it back.
    fn plug_in(bench: &mut Bench<Self>) {
        bench.control("");
    }

    /// Makes the user PIN unusable, by whatever locks it on this kind of token; returns the module that shows it.
    fn lock_pin(bench: &mut Bench<Self>) -> PathBuf {
        bench.control("flags locked\n");
        faulty::module()
    }
}

/// A token and what is around it, in the process of one test.
pub(crate) struct Bench<T> {
    pub(crate) directory: PathBuf,
    pub(crate) token: T,
}

impl<T: TokenUnderTest> Bench<T> {
    /// The right PIN.
    pub(crate) fn pin(&self) -> SecretSource {
        self.secret("pin", PIN)
    }

    /// Writes a secret into a file only its owner can read.
    pub(crate) fn secret(&self, name: &str, content: &str) -> SecretSource {
        let path = self.directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        SecretSource::File(path)
    }

    /// The faulty module in front of this token.
    pub(crate) fn faulty(&self) -> PathBuf {
        faulty::module()
    }

    /// The module from which the token can be taken away.
    pub(crate) fn removable(&self) -> PathBuf {
        if T::IS_REMOVABLE {
            T::module()
        } else {
            faulty::module()
        }
    }

    /// Tells the faulty module what to do from now on.
    pub(crate) fn control(&self, lines: &str) {
        faulty::write_control(&self.directory, &format!("{}{lines}", T::CONTROL));
    }

    /// Makes a key, through a module.
    pub(crate) fn create_through(&self, module: &Path, label: &str) -> Result<CreatedKey, Error> {
        create_pkcs11(module, &token_uri(), &self.pin(), label, Algorithm::P256)
    }

    /// Makes a key.
    pub(crate) fn create(&self, label: &str) -> CreatedKey {
        self.create_through(&T::module(), label).unwrap()
    }

    /// Opens a key, through a module.
    pub(crate) fn open_through(&self, module: &Path, uri: &Pkcs11Uri) -> Result<Box<dyn Signer>, Error> {
        self.open_with(module, uri, self.pin())
    }

    /// Opens a key, through a module and with a PIN.
    pub(crate) fn open_with(
        &self,
        module: &Path,
        uri: &Pkcs11Uri,
        pin: SecretSource,
    ) -> Result<Box<dyn Signer>, Error> {
        Settings::pkcs11(uri.clone(), Some(module.to_owned()), Some(pin))?.open()
    }

    /// Opens a key.
    pub(crate) fn open(&self, uri: &Pkcs11Uri) -> Result<Box<dyn Signer>, Error> {
        self.open_through(&T::module(), uri)
    }

    /// Opens a key in a worker process, through a module.
    pub(crate) fn open_in_process(&self, module: &Path, uri: &Pkcs11Uri) -> ProcessSigner {
        ProcessSigner::start(self.process_settings(module, uri)).unwrap()
    }

    /// Settings of a worker process with a module.
    pub(crate) fn process_settings(&self, module: &Path, uri: &Pkcs11Uri) -> ProcessSettings {
        let mut signer = Settings::pkcs11(uri.clone(), Some(module.to_owned()), Some(self.pin())).unwrap();
        if let Settings::Pkcs11 { sandbox, .. } = &mut signer
            && module == self.faulty()
        {
            // The real module behind it, and the files of its faults. A product has none of this.
            sandbox.environment.push("FIELDGATE_FAULTY_*".to_owned());
            let behind = T::real_module().parent().unwrap().to_owned();
            sandbox.extra_paths = vec![behind, self.directory.clone()];
        }
        ProcessSettings {
            program: env!("CARGO_BIN_EXE_fieldgate-token-worker").into(),
            arguments: vec![],
            ..ProcessSettings::new(signer)
        }
    }

    /// Runs pkcs11-tool on the token as the logged-in user, in a process of its own.
    pub(crate) fn pkcs11_tool(&self, arguments: &[&str]) -> String {
        let module = T::real_module();
        let login = [
            "--module",
            path_text(&module),
            "--token-label",
            TOKEN,
            "--login",
            "--pin",
            PIN,
        ];
        tool("pkcs11-tool", &[&login, arguments].concat())
    }
}

/// Runs `body` in a process of its own with one fresh token; `name` is the test's full name.
pub(crate) fn bench<T: TokenUnderTest>(name: &str, body: fn(&mut Bench<T>)) {
    if let Some(directory) = env::var_os(DIRECTORY) {
        let directory = PathBuf::from(directory);
        let token = T::start(&directory);
        let mut bench = Bench { directory, token };
        bench.control("");
        T::add_token(&bench, TOKEN);
        return body(&mut bench);
    }
    let directory = tempfile::tempdir().unwrap();
    // Nobody else may read in it: the log of pkcs11-spy has the PIN in it.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let leftovers = Leftovers(directory.path());
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory.path())
        .envs(T::environment(directory.path()))
        .envs(faulty::environment(directory.path(), &T::real_module()))
        .envs(spy::environment(directory.path(), &T::module()))
        .output()
        .unwrap();
    drop(leftovers);
    let text = text_of(&output);
    assert!(output.status.success(), "{text}");
    // A name that matches no test would pass without having run.
    assert!(
        text.contains("1 passed"),
        "{name} is not the name of its test:\n{text}"
    );
}

/// Daemons of a test that did not live to end them itself: each leaves its number in `<name>.pid`.
struct Leftovers<'a>(&'a Path);

impl Drop for Leftovers<'_> {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.0).into_iter().flatten().flatten() {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "pid")
            {
                end(&entry.path());
            }
        }
    }
}

/// Reads the number of a daemon from its file.
pub(crate) fn pid_of(file: &Path) -> Option<Pid> {
    let text = fs::read_to_string(file).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Kills a daemon and removes its file.
pub(crate) fn end(file: &Path) {
    if let Some(pid) = pid_of(file) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = fs::remove_file(file);
}

/// Initialises a token in the first free slot as every module allows it.
pub(crate) fn initialize_token(module: &Path, label: &str) {
    let slots = tool("pkcs11-tool", &["--module", path_text(module), "--list-slots"]);
    let index = slots
        .split("\nSlot ")
        .skip(1)
        .position(|slot| slot.contains("token state:   uninitialized"))
        .unwrap_or_else(|| panic!("no free slot: {slots}"));
    // In one process: SoftHSM gives the slot another number once its token has a serial number.
    let steps = [
        "--module",
        path_text(module),
        "--slot-index",
        &index.to_string(),
        "--init-token",
        "--label",
        label,
        "--so-pin",
        SO_PIN,
        "--login",
        "--login-type",
        "so",
        "--init-pin",
        "--pin",
        PIN,
    ];
    tool("pkcs11-tool", &steps);
}

/// Runs a program of the distribution and returns what it printed.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let text = text_of(&output);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// Runs a program of the distribution, whatever comes of it.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; install what the tests need: cargo xtask setup"))
}

pub(crate) fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn text_of(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Tells the child process where its token is.
const DIRECTORY: &str = "FIELDGATE_HSM_SUITE_DIRECTORY";

/// Makes a test of every body for one kind of token; called in the module named first.
macro_rules! identity_suite {
    ($module:literal, $token:ty: $($body:ident),* $(,)?) => { $(
        #[test]
        fn $body() {
            $crate::suite::bench::<$token>(concat!($module, "::", stringify!($body)), $crate::suite::bodies::$body);
        }
    )* };
    ($module:literal, $token:ty) => {
        $crate::suite::identity_suite! { $module, $token:
            makes_a_key_that_only_signs,
            opens_by_uri_and_signs,
            ed25519_is_made_or_refused,
            several_keys_are_refused_with_the_candidates,
            several_tokens_are_refused_with_the_candidates,
            a_missing_mechanism_is_refused,
            a_write_protected_token_takes_no_key,
            a_wrong_pin_is_tried_once,
            a_locked_pin_is_not_tried_again,
            a_reset_is_recovered_from,
            an_unplugged_token_comes_back,
            several_signers_share_the_token,
            a_confined_worker_process_wraps_a_secret,
            a_confined_worker_process_signs,
            a_confined_worker_process_finds_the_token_again,
        }
    };
}
pub(crate) use identity_suite;
