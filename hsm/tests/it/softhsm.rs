//! A SoftHSM2 token in a private directory, in a process of its own.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::session::{Session, UserType};
use fieldgate_hsm::{Algorithm, CreatedKey, Error, Pkcs11Signer, Pkcs11Uri, SecretSource, create_pkcs11};

/// The user PIN of every token.
pub(crate) const PIN: &str = "834271";
/// The security officer's PIN of every token.
const SO_PIN: &str = "60013772";
/// Label of the first token.
pub(crate) const TOKEN: &str = "fieldgate test";

/// What a scenario has to work with.
pub(crate) struct Token {
    directory: PathBuf,
}

/// How the token is prepared.
#[derive(Clone, Copy, Default)]
pub(crate) struct Preparation {
    /// Value of `slots.mechanisms` in the module's configuration; all where empty.
    pub(crate) mechanisms: &'static str,
    /// Leaves the user PIN unset.
    pub(crate) without_user_pin: bool,
}

/// Runs `body` in a process of its own with one fresh token; `name` is the test's full name.
pub(crate) fn scenario(name: &str, body: fn(&Token)) {
    prepared_scenario(name, Preparation::default(), body);
}

/// Runs `body` like [`scenario`] with a token prepared as told.
pub(crate) fn prepared_scenario(name: &str, preparation: Preparation, body: fn(&Token)) {
    if let Some(directory) = env::var_os(DIRECTORY) {
        return body(&Token {
            directory: directory.into(),
        });
    }
    let directory = tempfile::tempdir().unwrap();
    let token = Token {
        directory: directory.path().to_owned(),
    };
    token.prepare(preparation);
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, &token.directory)
        .envs(token.environment())
        .output()
        .unwrap();
    let text = text_of(&output);
    assert!(output.status.success(), "{text}");
    // A name that matches no test would pass without having run.
    assert!(
        text.contains("1 passed"),
        "{name} is not the name of its test:\n{text}"
    );
}

impl Token {
    fn prepare(&self, preparation: Preparation) {
        fs::create_dir(self.tokens()).unwrap();
        let mechanisms = if preparation.mechanisms.is_empty() {
            "ALL"
        } else {
            preparation.mechanisms
        };
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.mechanisms = {mechanisms}\n",
            self.tokens().display()
        );
        fs::write(self.directory.join("softhsm2.conf"), configuration).unwrap();
        self.write_secret("pin", PIN);
        if preparation.without_user_pin {
            self.tool(
                "pkcs11-tool",
                &[
                    "--module",
                    path_text(&module()),
                    "--init-token",
                    "--label",
                    TOKEN,
                    "--so-pin",
                    SO_PIN,
                ],
            );
        } else {
            self.add_token(TOKEN);
        }
    }

    /// Variables that the module and the tools read.
    fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("SOFTHSM2_CONF", self.directory.join("softhsm2.conf")),
            ("PKCS11SPY", module()),
            ("PKCS11SPY_OUTPUT", self.directory.join("calls")),
        ]
    }

    /// Initialises one more token.
    pub(crate) fn add_token(&self, label: &str) {
        let arguments = [
            "--init-token",
            "--free",
            "--label",
            label,
            "--pin",
            PIN,
            "--so-pin",
            SO_PIN,
        ];
        self.tool("softhsm2-util", &arguments);
    }

    /// Runs a program of the distribution and returns what it printed.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(arguments)
            .envs(self.environment())
            .output()
            .unwrap_or_else(|error| {
                panic!("{program}: {error}; install what the tests need: cargo xtask setup")
            });
        let text = text_of(&output);
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
        text
    }

    /// Runs pkcs11-tool as the logged-in user.
    pub(crate) fn pkcs11_tool(&self, arguments: &[&str]) -> String {
        let module = module();
        let login = [
            "--module",
            path_text(&module),
            "--token-label",
            TOKEN,
            "--login",
            "--pin",
            PIN,
        ];
        self.tool("pkcs11-tool", &[&login, arguments].concat())
    }

    /// Directory that holds the tokens.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.directory.join("tokens")
    }

    /// Takes the token away, as if it were unplugged.
    pub(crate) fn unplug(&self) {
        fs::rename(self.tokens(), self.directory.join("unplugged")).unwrap();
        fs::create_dir(self.tokens()).unwrap();
    }

    /// Puts it back.
    pub(crate) fn plug_in(&self) {
        fs::remove_dir(self.tokens()).unwrap();
        fs::rename(self.directory.join("unplugged"), self.tokens()).unwrap();
    }

    /// Sets flags of `CK_TOKEN_INFO` that SoftHSM itself never sets, in the file it keeps them in.
    pub(crate) fn set_token_flags(&self, flags: u64) {
        let token = fs::read_dir(self.tokens())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let path = token.join("token.object");
        let mut bytes = fs::read(&path).unwrap();
        // The attribute CKA_OS_TOKENFLAGS, then the kind of value: a number.
        let attribute: Vec<u8> = [0x8000_534b_u64, 2]
            .into_iter()
            .flat_map(u64::to_be_bytes)
            .collect();
        let at = bytes
            .windows(16)
            .position(|window| window == attribute)
            .expect("the file has its flags")
            + 16;
        let old = u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        bytes[at..at + 8].copy_from_slice(&(old | flags).to_be_bytes());
        fs::write(path, bytes).unwrap();
    }

    /// Writes a secret into a file only its owner can read.
    pub(crate) fn write_secret(&self, name: &str, content: &str) -> SecretSource {
        let path = self.directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        SecretSource::File(path)
    }

    /// The right PIN.
    pub(crate) fn pin(&self) -> SecretSource {
        SecretSource::File(self.directory.join("pin"))
    }

    /// Makes a key on the token.
    pub(crate) fn create(&self, label: &str, algorithm: Algorithm) -> CreatedKey {
        create_pkcs11(&module(), &token_uri(), &self.pin(), label, algorithm).unwrap()
    }

    /// Opens a key of the token.
    pub(crate) fn open(&self, uri: &Pkcs11Uri) -> Result<Pkcs11Signer, Error> {
        Pkcs11Signer::open(&module(), uri, &self.pin())
    }

    /// How often a function was called through [`spy`].
    pub(crate) fn spied_calls(&self, function: &str) -> usize {
        let calls = fs::read_to_string(self.directory.join("calls")).unwrap_or_default();
        calls
            .lines()
            .filter(|line| {
                line.split(": ")
                    .nth(1)
                    .is_some_and(|name| name.trim() == function)
            })
            .count()
    }
}

/// Another user of the module in the same process, logged in.
pub(crate) fn second_user() -> (Pkcs11, Session) {
    let context = Pkcs11::new(module()).unwrap();
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(CryptokiError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => panic!("{error}"),
    }
    let slot = context.get_slots_with_initialized_token().unwrap()[0];
    let session = context.open_rw_session(slot).unwrap();
    log_in(&session);
    (context, session)
}

/// Logs the user in, who may be logged in already.
pub(crate) fn log_in(session: &Session) {
    match session.login(UserType::User, Some(&PIN.into())) {
        Ok(()) | Err(CryptokiError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// A URI of the first token.
pub(crate) fn token_uri() -> Pkcs11Uri {
    Pkcs11Uri {
        token: Some(TOKEN.to_owned()),
        ..Pkcs11Uri::default()
    }
}

/// A URI of a key on the first token.
pub(crate) fn key_uri(label: &str) -> Pkcs11Uri {
    Pkcs11Uri {
        object: Some(label.to_owned()),
        ..token_uri()
    }
}

/// Path of SoftHSM2.
pub(crate) fn module() -> PathBuf {
    find("libsofthsm2.so", &["softhsm", "pkcs11"])
}

/// Path of the module that writes down all calls and passes them on to SoftHSM2.
pub(crate) fn spy() -> PathBuf {
    find("pkcs11-spy.so", &["pkcs11", ""])
}

/// Finds a module where distributions put it: under the library directory or that of the architecture.
pub(crate) fn find(file: &str, folders: &[&str]) -> PathBuf {
    let mut roots = vec![
        PathBuf::from("/usr/lib"),
        PathBuf::from("/usr/lib64"),
        PathBuf::from("/usr/local/lib"),
    ];
    let architectures = fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    roots.extend(architectures.filter(|path| path.to_string_lossy().contains("-linux-")));
    let candidates = roots
        .iter()
        .flat_map(|root| folders.iter().map(move |folder| root.join(folder).join(file)));
    let found = candidates.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{file} is not installed; install what the tests need: cargo xtask setup"))
}

fn path_text(path: &Path) -> &str {
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
const DIRECTORY: &str = "FIELDGATE_HSM_TEST_DIRECTORY";
